//! Files that are read by their paths.

use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::symlink;

use greenwave_dir::{Access, Dir, FileKind, open_regular, read_regular, read_regular_text, refused};

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

/// Runs `open` while another program has a lease on the file, which it returns soon after the
/// kernel asks for it. Returns `None` where no lease can be taken.
#[cfg(target_os = "linux")]
fn while_leased<T>(path: &std::path::Path, open: impl FnOnce() -> T) -> Option<T> {
    use std::io::{BufRead, BufReader};

    let script = "import fcntl, os, signal, sys, time
def return_it(*_):
    time.sleep(0.3)
    print('asked', flush=True)
    os._exit(0)
signal.signal(signal.SIGIO, return_it)
fcntl.fcntl(os.open(sys.argv[1], os.O_RDONLY), fcntl.F_SETLEASE, fcntl.F_WRLCK)
print('leased', flush=True)
while True: signal.pause()";
    let mut holder = std::process::Command::new("python3");
    holder.args(["-c", script]).arg(path).stdout(std::process::Stdio::piped());
    let mut holder = holder.spawn().ok()?;
    let mut lines = BufReader::new(holder.stdout.take().unwrap()).lines();
    let line = lines.next()?.ok()?;
    assert_eq!(line, "leased");
    let opened = open();
    // The holder ends only when another program waits.
    assert_eq!(lines.next().unwrap().unwrap(), "asked");
    holder.wait().unwrap();
    Some(opened)
}

#[cfg(target_os = "linux")]
#[test]
fn a_lease_of_another_program_is_waited_for() {
    let base = tempfile::tempdir().unwrap();
    let path = base.path().join("file");
    fs::write(&path, "text").unwrap();
    let Some(read) = while_leased(&path, || read_regular_text(&path, 4)) else { return };
    assert_eq!(read.unwrap(), "text");
    let directory = Dir::open(base.path()).unwrap();
    assert_eq!(while_leased(&path, || directory.read("file", 4)).unwrap().unwrap(), b"text");
    let file = while_leased(&path, || directory.open_file("file", Access::Write, 0)).unwrap().unwrap();
    assert_eq!(file.metadata().unwrap().len(), 4);
}
