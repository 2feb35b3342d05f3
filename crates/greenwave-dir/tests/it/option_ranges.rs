//! Permissions, times and limits of any value, with and without `openat2`.

use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use greenwave_dir::{Access, Dir, read_regular, read_regular_text};

use crate::handles;

const PERMISSIONS: [u32; 6] = [0, 1, 0o600, 0o777, 0o7777, u32::MAX];

fn mode(path: impl AsRef<Path>) -> u32 {
    path.as_ref().symlink_metadata().unwrap().mode() & 0o7777
}

/// Only the permission bits count. New entries have those that the umask leaves.
#[test]
fn permissions_of_any_number() {
    let base = tempfile::tempdir().unwrap();
    for (at, dir) in handles(base.path()).into_iter().enumerate() {
        for permissions in PERMISSIONS {
            let name = |what: &str| format!("{what}-{at}-{permissions}");
            let path = |what: &str| base.path().join(name(what));
            let is_allowed = |what: &str| mode(path(what)) & !permissions & 0o777 == 0;
            dir.open_file(name("file"), Access::Create, permissions).unwrap();
            dir.create_new_subdirectory(name("new"), permissions | 0o700).unwrap();
            dir.create_subdirectory(name("sub"), permissions | 0o700).unwrap();
            dir.replace_file(name("replaced"), b"text", permissions).unwrap();
            assert!(is_allowed("file") && is_allowed("replaced"), "{permissions:o}");
            let mut temporary = dir.temporary("temporary", permissions).unwrap();
            temporary.write_all(b"text").unwrap();
            temporary.replace(name("placed")).unwrap();
            assert!(is_allowed("placed"), "{permissions:o}");
            dir.temporary_subdirectory("directory", permissions | 0o700).unwrap();
            dir.set_permissions(name("file"), permissions).unwrap();
            assert_eq!(mode(path("file")), permissions & 0o7777, "{permissions:o}");
            Dir::create(path("deep").join("er"), permissions | 0o700).unwrap();
            dir.create_parent(format!("{}/a/b", name("parent")), permissions | 0o700).unwrap();
            let own = dir.subdirectory(name("new")).unwrap();
            own.set_own_permissions(permissions).unwrap();
            assert_eq!(mode(path("new")), permissions & 0o7777, "{permissions:o}");
            own.set_own_permissions(0o700).unwrap();
        }
    }
}

#[test]
fn times_of_any_number_are_set_or_refused() {
    let base = tempfile::tempdir().unwrap();
    std::fs::write(base.path().join("file"), "text").unwrap();
    for dir in handles(base.path()) {
        for seconds in [i64::MIN, -1, 0, 1, i64::from(u32::MAX), i64::MAX] {
            for nanoseconds in [0, 1, 999_999_999] {
                dir.set_time("file", seconds, nanoseconds).unwrap();
                let found = base.path().join("file").symlink_metadata().unwrap();
                assert!(seconds < 0 || seconds > i64::from(u32::MAX) || found.mtime() == seconds);
            }
            for nanoseconds in [1_000_000_000, u32::MAX] {
                assert!(dir.set_time("file", seconds, nanoseconds).is_err(), "{nanoseconds}");
            }
        }
    }
}

#[test]
fn limits_of_any_size_are_kept() {
    let base = tempfile::tempdir().unwrap();
    std::fs::File::create(base.path().join("file")).unwrap().write_all(b"text").unwrap();
    for dir in handles(base.path()) {
        for bytes_max in [0, 1, 3, 4, 5, u64::MAX - 1, u64::MAX] {
            let read = dir.read("file", bytes_max);
            assert_eq!(read.ok(), (bytes_max >= 4).then(|| b"text".to_vec()), "{bytes_max}");
            let path = base.path().join("file");
            assert_eq!(read_regular(&path, bytes_max).is_ok(), bytes_max >= 4, "{bytes_max}");
            assert_eq!(read_regular_text(&path, bytes_max).is_ok(), bytes_max >= 4, "{bytes_max}");
        }
    }
}
