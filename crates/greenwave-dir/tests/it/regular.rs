//! Files that are read by their paths.

use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::symlink;

use greenwave_dir::{FileKind, open_regular, read_regular, read_regular_text, refused};

#[test]
fn only_regular_files_are_read() {
    let base = tempfile::tempdir().unwrap();
    let at = |name: &str| base.path().join(name);
    fs::write(at("file"), "text").unwrap();
    symlink("file", at("link")).unwrap();
    symlink("/dev/zero", at("zero")).unwrap();
    assert!(std::process::Command::new("mkfifo").arg(at("pipe")).status().unwrap().success());
    symlink("pipe", at("to-pipe")).unwrap();
    for name in ["file", "link"] {
        assert_eq!(read_regular_text(at(name), 4).unwrap(), "text");
    }
    for (name, kind) in [
        ("zero", FileKind::Device),
        ("pipe", FileKind::Pipe),
        ("to-pipe", FileKind::Pipe),
        (".", FileKind::Directory),
    ] {
        let error = open_regular(at(name)).unwrap_err();
        assert_eq!(refused(&error).unwrap().kind(), kind, "{name}");
    }
    assert_eq!(open_regular(at("missing")).unwrap_err().kind(), ErrorKind::NotFound);
}

#[test]
fn larger_files_are_refused_unread() {
    let base = tempfile::tempdir().unwrap();
    let path = base.path().join("large");
    // Has no blocks, and would fill the memory.
    fs::File::create(&path).unwrap().set_len(1 << 40).unwrap();
    let error = read_regular(&path, 1000).unwrap_err();
    assert_eq!(
        (error.kind(), error.to_string().as_str()),
        (ErrorKind::FileTooLarge, "the file is larger than 1000 bytes")
    );
    fs::write(&path, [0xff]).unwrap();
    assert_eq!(read_regular_text(&path, 1).unwrap_err().kind(), ErrorKind::InvalidData);
    assert_eq!(read_regular(&path, 0).unwrap_err().kind(), ErrorKind::FileTooLarge);
}
