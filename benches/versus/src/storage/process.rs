//! What the system says of a process and a folder. Knows nothing of stores.

use std::fs::{self, File};
use std::path::Path;

/// What this process has used so far.
#[derive(Debug, Clone, Copy)]
pub struct Usage {
    /// Bytes that it had written to the disk, or made the system write later.
    pub written_bytes: u64,
    /// The most memory that it ever had, bytes.
    pub peak_bytes: u64,
}

impl Usage {
    /// Now.
    ///
    /// # Panics
    /// Where there is no `/proc`.
    pub fn now() -> Self {
        let field = |path: &str, name: &str| -> u64 {
            let text = fs::read_to_string(path).expect("Linux has /proc");
            let line = text.lines().find_map(|line| line.strip_prefix(name)).expect("and this line in it");
            line.trim().trim_end_matches(" kB").parse().expect("and a number in that")
        };
        let written_bytes = field("/proc/self/io", "write_bytes:");
        Self { written_bytes, peak_bytes: field("/proc/self/status", "VmHWM:") << 10 }
    }
}

/// Bytes of all files in a folder, as their lengths say.
///
/// # Panics
/// If it cannot be read.
pub fn folder_bytes(folder: &Path) -> u64 {
    let mut bytes = 0;
    each_file(folder, &mut |path| bytes += path.metadata().map_or(0, |metadata| metadata.len()));
    bytes
}

/// Has the system forget what it holds of the files in a folder.
///
/// # Panics
/// If it does not.
pub fn drop_page_cache(folder: &Path) {
    each_file(folder, &mut |path| {
        let file = File::open(path).expect("a file of a store can be read");
        file.sync_all().expect("and synced");
        rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed)
            .expect("and dropped from the page cache");
    });
}

fn each_file(folder: &Path, on_file: &mut dyn FnMut(&Path)) {
    for entry in fs::read_dir(folder).expect("the folder of a store can be read").flatten() {
        let path = entry.path();
        if path.is_dir() { each_file(&path, on_file) } else { on_file(&path) }
    }
}
