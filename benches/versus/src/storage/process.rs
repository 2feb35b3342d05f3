//! Measures the memory and disk usage of this process, and of a directory.

use std::fs::{self, File};
use std::path::Path;

use greenwave_benches::Result;

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
    /// # Errors
    /// If `/proc` is not available.
    pub fn now() -> Result<Self> {
        let field = |path: &str, name: &str| -> Result<u64> {
            let text = fs::read_to_string(path)?;
            let line = text.lines().find_map(|line| line.strip_prefix(name));
            let number = line.ok_or_else(|| format!("{path} has no line {name:?}"))?;
            Ok(number.trim().trim_end_matches(" kB").parse()?)
        };
        let written_bytes = field("/proc/self/io", "write_bytes:")?;
        Ok(Self { written_bytes, peak_bytes: field("/proc/self/status", "VmHWM:")? << 10 })
    }
}

/// Returns the total length of all files in a directory, in bytes.
///
/// # Errors
/// If the directory cannot be read.
pub fn directory_bytes(directory: &Path) -> Result<u64> {
    let mut bytes = 0;
    each_file(directory, &mut |path| {
        bytes += path.metadata().map_or(0, |metadata| metadata.len());
        Ok(())
    })?;
    Ok(bytes)
}

/// Drops the files in a directory from the page cache.
///
/// # Errors
/// If a file cannot be read, synced or dropped.
pub fn drop_page_cache(directory: &Path) -> Result<()> {
    each_file(directory, &mut |path| {
        let file = File::open(path)?;
        file.sync_all()?;
        Ok(rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed)?)
    })
}

fn each_file(directory: &Path, on_file: &mut dyn FnMut(&Path) -> Result<()>) -> Result<()> {
    for entry in fs::read_dir(directory)?.flatten() {
        let path = entry.path();
        if path.is_dir() { each_file(&path, on_file)? } else { on_file(&path)? }
    }
    Ok(())
}
