//! The time at which a file was created.

use std::fs;
use std::path::Path;
use std::time::UNIX_EPOCH;

/// Returns the creation time of the file that `metadata` describes, in nanoseconds since the Unix
/// epoch. `None` if the file system has no such time, or if another file is at the path by now.
pub(crate) fn created(path: &Path, metadata: &fs::Metadata) -> Option<i64> {
    let Ok(created) = metadata.created() else { return by_statx(path, metadata) };
    i64::try_from(created.duration_since(UNIX_EPOCH).ok()?.as_nanos()).ok()
}

/// Asks the kernel, as the standard library does with the GNU C library only.
#[cfg(target_os = "linux")]
fn by_statx(path: &Path, metadata: &fs::Metadata) -> Option<i64> {
    use std::os::unix::fs::MetadataExt;

    use rustix::fs::{AtFlags, CWD, StatxFlags, makedev, statx};

    const NS_PER_S: i64 = 1_000_000_000;
    [AtFlags::SYMLINK_NOFOLLOW, AtFlags::empty()].into_iter().find_map(|flags| {
        let found = statx(CWD, path, flags, StatxFlags::BASIC_STATS | StatxFlags::BTIME).ok()?;
        let device = makedev(found.stx_dev_major, found.stx_dev_minor);
        let is_same = (found.stx_ino, device) == (metadata.ino(), metadata.dev());
        let has_time = StatxFlags::from_bits_retain(found.stx_mask).contains(StatxFlags::BTIME);
        let seconds = (is_same && has_time).then_some(found.stx_btime.tv_sec)?;
        seconds.checked_mul(NS_PER_S)?.checked_add(i64::from(found.stx_btime.tv_nsec))
    })
}

#[cfg(not(target_os = "linux"))]
fn by_statx(_: &Path, _: &fs::Metadata) -> Option<i64> {
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg(target_os = "linux")]
    fn both_sources_agree() {
        let root = tempfile::tempdir().unwrap();
        let (file, link) = (root.path().join("file"), root.path().join("link"));
        fs::write(&file, "").unwrap();
        std::os::unix::fs::symlink(&file, &link).unwrap();
        for path in [root.path(), &file, &link] {
            for metadata in [fs::metadata(path).unwrap(), fs::symlink_metadata(path).unwrap()] {
                assert_eq!(by_statx(path, &metadata), created(path, &metadata), "{}", path.display());
            }
        }
        let other = fs::metadata(&file).unwrap();
        assert_eq!(by_statx(root.path(), &other), None, "another file");
    }
}
