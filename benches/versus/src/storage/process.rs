//! Measures the memory and disk usage of this process, and of a directory.

use std::fs::{self, File};
use std::path::Path;

/// Resources that this process has used since it started.
#[derive(Debug, Clone, Copy)]
pub struct Usage {
    /// Bytes written to the disk, including writes that the system has deferred.
    pub written_bytes: u64,
    /// Peak resident memory, in bytes.
    pub peak_bytes: u64,
}

impl Usage {
    /// Returns the current values.
    ///
    /// # Panics
    /// If `/proc` is not available.
    pub fn now() -> Self {
        let field = |path: &str, name: &str| -> u64 {
            let text = fs::read_to_string(path).expect("Linux has /proc");
            let line = text.lines().find_map(|line| line.strip_prefix(name)).expect("the file has this line");
            line.trim().trim_end_matches(" kB").parse().expect("the line has a number")
        };
        let written_bytes = field("/proc/self/io", "write_bytes:");
        Self { written_bytes, peak_bytes: field("/proc/self/status", "VmHWM:") << 10 }
    }
}

/// Returns the total length of all files in a directory, in bytes.
///
/// # Panics
/// If the directory cannot be read.
pub fn directory_bytes(directory: &Path) -> u64 {
    let mut bytes = 0;
    each_file(directory, &mut |path| bytes += path.metadata().map_or(0, |metadata| metadata.len()));
    bytes
}

/// Drops the files in a directory from the page cache.
///
/// # Panics
/// If a file cannot be read, synced or dropped.
pub fn drop_page_cache(directory: &Path) {
    each_file(directory, &mut |path| {
        let file = File::open(path).expect("the store's file can be read");
        file.sync_all().expect("the file can be synced");
        rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed)
            .expect("the file can be dropped from the page cache");
    });
}

fn each_file(directory: &Path, on_file: &mut dyn FnMut(&Path)) {
    for entry in fs::read_dir(directory).expect("the store's directory can be read").flatten() {
        let path = entry.path();
        if path.is_dir() { each_file(&path, on_file) } else { on_file(&path) }
    }
}
