//! Tests on full and read-only disks: file systems in memory that a child process mounts in its own
//! mount namespace.

use std::process::Command;

use greenwave_segment::{Compression, Error, Log, Options};
use greenwave_testkit::disk::{mounted, run_with_disk};

use crate::noise;

fn raw() -> Options {
    Options { compression: Compression::None, segment_bytes_max: 64 << 10, ..Options::default() }
}

fn check_all(log: &Log, count: u64) {
    for number in 0..count {
        assert_eq!(log.get(&number.to_le_bytes()).unwrap().unwrap(), noise(number, 1000), "{number}");
    }
}

#[test]
fn a_full_disk_loses_nothing_flushed() {
    run_with_disk("disks::on_a_full_disk", "512k");
}

#[test]
#[ignore = "the child of the test above"]
fn on_a_full_disk() {
    let Some(mounted) = mounted() else { return };
    let dir = mounted.join("log");
    let log = Log::open(&dir, raw()).unwrap();
    let (mut put, mut flushed) = (0, 0);
    let error = loop {
        if let Err(error) = log.put(&u64::to_le_bytes(put), &noise(put, 1000)) {
            break error;
        }
        put += 1;
        if put % 10 == 0 && log.flush().is_ok() {
            flushed = put;
        }
    };
    let Error::Io { path, source, .. } = &error else { panic!("{error}") };
    assert_eq!(source.kind(), std::io::ErrorKind::StorageFull);
    assert!(path.starts_with(&dir), "{error}");
    assert!(flushed > 300, "{flushed}");
    // The failed put left nothing behind. Everything before it can be read, by this log and by one
    // opened later.
    check_all(&log, put);
    assert_eq!(log.get(&put.to_le_bytes()).unwrap(), None);
    drop(log);
    let log = Log::open(&dir, raw()).unwrap();
    check_all(&log, flushed);
    assert_eq!(log.stats().bad_records, 0);
    // Removing the index files frees space, and the log continues.
    drop(log);
    let files = std::fs::read_dir(&dir).unwrap().map(|entry| entry.unwrap().path());
    let index_files = files.filter(|path| path.extension().is_some_and(|it| it == "idx"));
    index_files.for_each(|path| std::fs::remove_file(path).unwrap());
    let log = Log::open(&dir, raw()).unwrap();
    check_all(&log, flushed);
    log.put(b"more", b"fits").unwrap();
    log.flush().unwrap();
    assert_eq!(Log::open(&dir, raw()).unwrap().get(b"more").unwrap().unwrap(), "fits");
}

#[test]
fn a_read_only_disk_can_be_read() {
    run_with_disk("disks::on_a_read_only_disk", "1m");
}

#[test]
#[ignore = "the child of the test above"]
fn on_a_read_only_disk() {
    let Some(mounted) = mounted() else { return };
    let dir = mounted.join("log");
    let log = Log::open(&dir, raw()).unwrap();
    for number in 0..100 {
        log.put(&u64::to_le_bytes(number), &noise(number, 1000)).unwrap();
    }
    log.flush().unwrap();
    drop(log);
    assert!(Command::new("mount").args(["-o", "remount,ro"]).arg(&mounted).status().unwrap().success());
    let log = Log::open(&dir, raw()).unwrap();
    check_all(&log, 100);
    let error = log.put(b"key", b"value").unwrap_err();
    let Error::Io { operation: "create", path, source } = &error else { panic!("{error}") };
    assert_eq!(source.kind(), std::io::ErrorKind::ReadOnlyFilesystem);
    assert!(path.starts_with(&dir), "{error}");
    check_all(&log, 100);
}

#[test]
fn a_log_on_a_full_disk_can_be_opened() {
    run_with_disk("disks::on_a_disk_without_room_for_a_segment", "64k");
}

#[test]
#[ignore = "the child of the test above"]
fn on_a_disk_without_room_for_a_segment() {
    let Some(mounted) = mounted() else { return };
    let dir = mounted.join("log");
    let small = || Options { segment_bytes_max: 4096, ..raw() };
    let log = Log::open(&dir, small()).unwrap();
    let mut put = 0;
    while log.put(&u64::to_le_bytes(put), &noise(put, 1000)).is_ok() {
        put += 1;
        drop(log.flush());
    }
    // Another file takes the remaining space.
    let mut filler = std::fs::File::create(mounted.join("filler")).unwrap();
    while std::io::Write::write_all(&mut filler, &[1; 512]).is_ok() {}
    for _ in 0..20 {
        assert!(log.put(b"more", &noise(0, 3000)).is_err());
    }
    check_all(&log, put);
    drop(log);
    for read_only in [false, true, false] {
        let log =
            if read_only { Log::open_read_only(&dir, small()) } else { Log::open(&dir, small()) }.unwrap();
        check_all(&log, put);
    }
    // After a power cut, a segment that was just created may be empty.
    std::fs::write(dir.join("00000000000000aa.seg"), "").unwrap();
    let log = Log::open(&dir, small()).unwrap();
    check_all(&log, put);
    drop(filler);
    std::fs::remove_file(mounted.join("filler")).unwrap();
    log.put(b"more", b"fits").unwrap();
    log.flush().unwrap();
    drop(log);
    let log = Log::open(&dir, small()).unwrap();
    check_all(&log, put);
    assert_eq!(log.get(b"more").unwrap().unwrap(), "fits");
}
