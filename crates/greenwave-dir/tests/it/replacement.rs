//! Files that take the place of others.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};

use greenwave_dir::{Access, Dir, FileKind, refused};

use crate::handles;

#[test]
fn a_temporary_file_takes_the_place_of_a_file_or_a_link() {
    let base = tempfile::tempdir().unwrap();
    for dir in handles(base.path()) {
        fs::write(base.path().join("file"), "old").unwrap();
        symlink("file", base.path().join("link")).unwrap();
        for name in ["file", "link", "new"] {
            let mut temporary = dir.temporary(".tmp-", 0o666).unwrap();
            temporary.write_all(name.as_bytes()).unwrap();
            temporary.replace(name).unwrap();
            assert_eq!(dir.read(name, 10).unwrap(), name.as_bytes());
            assert!(dir.metadata(name).unwrap().is_file());
        }
        dir.temporary_link(".tmp-", "elsewhere").unwrap().replace("file").unwrap();
        assert_eq!(dir.read_link("file").unwrap().to_str(), Some("elsewhere"));
        dir.clear().unwrap();
    }
}

#[test]
fn a_directory_is_not_replaced() {
    let base = tempfile::tempdir().unwrap();
    for dir in handles(base.path()) {
        dir.create_subdirectory("a", 0o700).unwrap();
        let error = dir.temporary(".tmp-", 0o600).unwrap().replace("a").unwrap_err();
        assert_eq!(refused(&error).unwrap().kind(), FileKind::Directory);
        assert!(dir.replace_file("a", b"", 0o600).is_err());
        assert_eq!(dir.entries().unwrap().len(), 1);
    }
}

#[test]
fn a_dropped_temporary_file_is_removed_and_a_placed_one_stays() {
    let base = tempfile::tempdir().unwrap();
    let dir = Dir::open(base.path()).unwrap();
    drop(dir.temporary(".tmp-", 0o600).unwrap());
    drop(dir.temporary_link(".tmp-", "x").unwrap());
    assert!(dir.entries().unwrap().is_empty());
    let name = dir.temporary(".tmp-", 0o600).unwrap().keep();
    assert_eq!(dir.entries().unwrap().len(), 1);
    assert!(name.to_str().unwrap().starts_with(".tmp-"));
}

#[test]
fn a_file_too_large_is_not_read() {
    let base = tempfile::tempdir().unwrap();
    let dir = Dir::open(base.path()).unwrap();
    dir.replace_file("a", b"12345", 0o600).unwrap();
    assert_eq!(dir.read("a", 5).unwrap(), b"12345");
    assert_eq!(dir.read("a", 4).unwrap_err().kind(), std::io::ErrorKind::FileTooLarge);
}

#[test]
fn permissions_are_set_whatever_they_were() {
    let base = tempfile::tempdir().unwrap();
    for dir in handles(base.path()) {
        dir.replace_file("file", b"", 0o000).unwrap();
        dir.create_subdirectory("directory", 0o000).unwrap();
        for name in ["file", "directory"] {
            for mode in [0o751, 0o000, 0o640] {
                dir.set_permissions(name, mode).unwrap();
                assert_eq!(dir.metadata(name).unwrap().permissions(), mode, "{name}");
            }
        }
        dir.clear().unwrap();
    }
}

#[test]
fn a_rename_to_a_new_name_replaces_nothing() {
    let base = tempfile::tempdir().unwrap();
    let dir = Dir::open(base.path()).unwrap();
    for name in ["a", "b"] {
        dir.replace_file(name, name.as_bytes(), 0o600).unwrap();
    }
    assert_eq!(dir.rename_new("a", "b").unwrap_err().kind(), std::io::ErrorKind::AlreadyExists);
    dir.rename_new("a", "c").unwrap();
    dir.exchange("b", "c").unwrap();
    assert_eq!((dir.read("b", 9).unwrap(), dir.read("c", 9).unwrap()), (b"a".to_vec(), b"b".to_vec()));
}

#[test]
fn directories_are_created_with_the_given_permissions() {
    let base = tempfile::tempdir().unwrap();
    for (name, dir) in ["one", "two"].into_iter().zip(handles(base.path())) {
        dir.create_subdirectory(format!("{name}/a/b"), 0o700).unwrap();
        for path in [name.to_owned(), format!("{name}/a"), format!("{name}/a/b")] {
            let mode = fs::metadata(base.path().join(path)).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o700);
        }
        let (parent, file) = dir.create_parent(format!("{name}/c/d/file"), 0o700).unwrap();
        parent.open_file(&file, Access::CreateNew, 0o600).unwrap();
        assert_eq!(parent.path(), base.path().join(name).join("c/d"));
        assert!(dir.metadata(format!("{name}/c/d/file")).unwrap().is_file());
        let again = dir.create_new_subdirectory(name, 0o700).unwrap_err();
        assert_eq!(again.kind(), std::io::ErrorKind::AlreadyExists);
    }
}

#[test]
fn a_temporary_file_is_placed_only_where_nothing_is() {
    let base = tempfile::tempdir().unwrap();
    for dir in handles(base.path()) {
        dir.symlink("elsewhere", "link").unwrap();
        let error = dir.temporary(".tmp-", 0o600).unwrap().place("link").unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::AlreadyExists);
        assert_eq!(dir.entries().unwrap().len(), 1);
        dir.temporary(".tmp-", 0o600).unwrap().place("new").unwrap();
        assert!(dir.metadata("new").unwrap().is_file());
        dir.clear().unwrap();
    }
}
