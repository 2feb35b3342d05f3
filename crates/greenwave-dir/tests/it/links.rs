//! Nothing below a handle is reached through a link, and nothing but a file is opened as a file.

use std::fs;
use std::io::{self, ErrorKind};
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::Path;

use greenwave_dir::{Access, Dir, FileKind, refused};

use crate::handles;

/// Creates a directory outside with a file, and a base with links to both.
fn world() -> (tempfile::TempDir, std::path::PathBuf) {
    let world = tempfile::tempdir().unwrap();
    let root = world.path();
    fs::create_dir_all(root.join("outside/sub")).unwrap();
    fs::write(root.join("outside/file"), "precious").unwrap();
    fs::create_dir_all(root.join("base/inside")).unwrap();
    symlink(root.join("outside"), root.join("base/absolute")).unwrap();
    symlink("../outside", root.join("base/relative")).unwrap();
    symlink("inside", root.join("base/harmless")).unwrap();
    symlink("../../outside", root.join("base/inside/deep")).unwrap();
    symlink("nowhere", root.join("base/dangling")).unwrap();
    symlink(root.join("outside/file"), root.join("base/to-file")).unwrap();
    let base = root.join("base");
    (world, base)
}

fn outside(world: &tempfile::TempDir) -> Vec<String> {
    let mut found: Vec<String> = fs::read_dir(world.path().join("outside"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    found.sort();
    found.push(fs::read_to_string(world.path().join("outside/file")).unwrap());
    found
}

/// Each operation that changes something or reads a content, on a path.
fn operations(dir: &Dir, path: &Path) -> Vec<(&'static str, io::Result<()>)> {
    vec![
        ("open", dir.open_file(path, Access::Read, 0).map(drop)),
        ("write", dir.open_file(path, Access::Write, 0).map(drop)),
        ("create", dir.open_file(path, Access::Create, 0o600).map(drop)),
        ("create new", dir.open_file(path, Access::CreateNew, 0o600).map(drop)),
        ("append", dir.open_file(path, Access::Append, 0o600).map(drop)),
        ("read", dir.read(path, 100).map(drop)),
        ("replace", dir.replace_file(path, b"evil", 0o600)),
        ("metadata", dir.metadata(path).map(drop)),
        ("read link", dir.read_link(path).map(drop)),
        ("subdirectory", dir.subdirectory(path).map(drop)),
        ("create subdirectory", dir.create_subdirectory(path, 0o700).map(drop)),
        ("create new subdirectory", dir.create_new_subdirectory(path, 0o700).map(drop)),
        ("create parent", dir.create_parent(path, 0o700).map(drop)),
        ("symlink", dir.symlink("x", path)),
        ("hard link", dir.hard_link("inside/own", path)),
        ("rename", dir.rename("inside/own", path)),
        ("rename away", dir.rename(path, "inside/taken")),
        ("rename new", dir.rename_new("inside/own", path)),
        ("exchange", dir.exchange("inside/own", path)),
        ("set permissions", dir.set_permissions(path, 0o777)),
        ("set owner", dir.set_owner(path, None, None)),
        ("set time", dir.set_time(path, 0, 0)),
        ("remove file", dir.remove_file(path)),
        ("remove empty", dir.remove_empty(path)),
        ("remove all", dir.remove_all(path)),
    ]
}

#[test]
fn a_link_in_the_place_of_a_directory_is_named_and_not_followed() {
    let (world, base) = world();
    fs::write(base.join("inside/own"), "").unwrap();
    let before = outside(&world);
    for dir in handles(&base) {
        for (path, link) in [
            ("absolute/file", "absolute"),
            ("absolute/sub", "absolute"),
            ("absolute/new", "absolute"),
            ("relative/sub/new", "relative"),
            ("harmless/new", "harmless"),
            ("inside/deep/file", "inside/deep"),
            ("inside/deep/a/b/c", "inside/deep"),
            ("dangling/new", "dangling"),
        ] {
            for (name, result) in operations(&dir, Path::new(path)) {
                let error = result.expect_err(name);
                assert_eq!(error.kind(), ErrorKind::NotADirectory, "{name} {path}: {error}");
                let refused = refused(&error).unwrap_or_else(|| panic!("{name} {path}: {error}"));
                assert_eq!((refused.path(), refused.kind()), (Path::new(link), FileKind::Link), "{name}");
            }
        }
    }
    assert_eq!(outside(&world), before);
    assert!(!base.join("nowhere").exists());
}

#[test]
fn a_link_in_the_place_of_a_file_is_not_followed() {
    let (world, base) = world();
    let before = outside(&world);
    for dir in handles(&base) {
        for path in ["to-file", "inside/deep", "dangling"] {
            for access in [Access::Read, Access::Write, Access::Create, Access::Append] {
                let error = dir.open_file(path, access, 0o600).unwrap_err();
                assert_eq!(refused(&error).unwrap().kind(), FileKind::Link, "{path} {access:?}");
            }
            assert!(dir.open_file(path, Access::CreateNew, 0o600).is_err());
            let error = dir.replace_file(path, b"evil", 0o600).unwrap_err();
            assert_eq!(refused(&error).unwrap().path(), Path::new(path));
            assert!(dir.set_permissions(path, 0o777).is_err());
            assert_eq!(dir.metadata(path).unwrap().kind(), FileKind::Link);
        }
    }
    assert_eq!(outside(&world), before);
    assert!(!base.join("nowhere").exists());
}

#[test]
fn the_owner_of_a_link_is_not_that_of_its_target() {
    let (world, base) = world();
    let file = world.path().join("outside/file");
    let before = file.metadata().unwrap();
    let dir = Dir::open(&base).unwrap();
    // Only the superuser may choose another owner.
    let other = if before.uid() == 0 { 1234 } else { before.uid() };
    dir.set_owner("to-file", Some(other), Some(before.gid())).unwrap();
    assert_eq!(dir.metadata("to-file").unwrap().owner(), other);
    assert_eq!(dir.metadata("to-file").unwrap().group(), before.gid());
    assert_eq!(file.metadata().unwrap().uid(), before.uid());
}

#[test]
fn links_in_the_path_of_the_base_are_the_users() {
    let (world, base) = world();
    symlink(&base, world.path().join("alias")).unwrap();
    for dir in handles(&world.path().join("alias/inside/..")) {
        dir.replace_file("inside/own", b"text", 0o600).unwrap();
    }
    let created = Dir::create(world.path().join("alias/new/base"), 0o700).unwrap();
    created.replace_file("a", b"", 0o600).unwrap();
    assert_eq!(fs::read_to_string(base.join("inside/own")).unwrap(), "text");
    assert!(base.join("new/base/a").is_file());
}

#[test]
fn paths_that_could_leave_the_directory_are_invalid() {
    let (_world, base) = world();
    fs::write(base.join("inside/own"), "").unwrap();
    for dir in handles(&base) {
        for path in ["/etc/passwd", "..", "../outside/file", "inside/../../outside/file", "/"] {
            for (name, result) in operations(&dir, Path::new(path)) {
                assert_eq!(result.expect_err(name).kind(), ErrorKind::InvalidInput, "{name} {path}");
            }
        }
        assert_eq!(dir.metadata("./inside//own").unwrap().kind(), FileKind::File);
    }
}

#[test]
fn a_pipe_is_neither_opened_nor_waited_for_nor_replaced() {
    let (_world, base) = world();
    for (number, dir) in handles(&base).into_iter().enumerate() {
        let pipe = format!("inside/pipe-{number}");
        let status = std::process::Command::new("mkfifo").arg(base.join(&pipe)).status().unwrap();
        assert!(status.success());
        for access in [Access::Read, Access::Write, Access::Create, Access::Append] {
            let error = dir.open_file(&pipe, access, 0o600).unwrap_err();
            assert_eq!(refused(&error).unwrap().kind(), FileKind::Pipe, "{access:?}: {error}");
        }
        let error = dir.replace_file(&pipe, b"evil", 0o600).unwrap_err();
        assert_eq!(refused(&error).unwrap().kind(), FileKind::Pipe);
        let (parent, name) = dir.parent(&pipe).unwrap();
        let error = parent.temporary("new-", 0o600).unwrap().replace(&name).unwrap_err();
        assert_eq!(refused(&error).unwrap().kind(), FileKind::Pipe);
        assert_eq!(dir.metadata(&pipe).unwrap().kind(), FileKind::Pipe);
    }
}

#[test]
fn the_error_says_what_is_there_and_what_was_expected() {
    let (_world, base) = world();
    fs::write(base.join("inside/own"), "").unwrap();
    for dir in handles(&base) {
        let message = |path: &str| dir.open_file(path, Access::Create, 0o600).unwrap_err().to_string();
        assert_eq!(message("absolute/x"), "`absolute` is a symbolic link, expected a directory");
        assert_eq!(message("inside/own/x"), "`inside/own` is a file, expected a directory");
        assert_eq!(message("inside"), "`inside` is a directory, expected a file");
    }
}

#[test]
fn entries_other_than_files_and_directories_are_found_at_any_depth() {
    let base = tempfile::tempdir().unwrap();
    fs::create_dir_all(base.path().join("a/b")).unwrap();
    fs::write(base.path().join("a/b/file"), "").unwrap();
    fs::write(base.path().join("file"), "").unwrap();
    for dir in handles(base.path()) {
        dir.check_entries().unwrap();
        dir.subdirectory("a").unwrap().symlink("b", "link").unwrap();
        let error = dir.check_entries().unwrap_err();
        let refused = refused(&error).unwrap();
        assert_eq!((refused.path(), refused.kind()), (Path::new("a/link"), FileKind::Link));
        dir.remove_file("a/link").unwrap();
        let pipe = base.path().join("a/b/pipe");
        assert!(std::process::Command::new("mkfifo").arg(pipe).status().unwrap().success());
        assert_eq!(greenwave_dir::refused(&dir.check_entries().unwrap_err()).unwrap().kind(), FileKind::Pipe);
        dir.remove_file("a/b/pipe").unwrap();
    }
}
