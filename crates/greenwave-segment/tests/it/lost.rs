//! Records that are damaged, cut off or gone: the key is absent rather than older, before and after compaction and reopening, as
//! long as the record itself, an index file or the manifest still names it; and `check` says what is wrong.

use std::path::{Path, PathBuf};

use greenwave_segment::{Compression, Error, Log, Options, ProblemKind};
use tempfile::TempDir;

use crate::noise;

fn raw() -> Options {
    Options { segment_bytes_max: 4096, compression: Compression::None, ..Options::default() }
}

fn key(number: u64) -> [u8; 8] {
    number.to_be_bytes()
}

/// A log in which twenty keys have an older value in the first sealed segments and a newer one in others; with its files.
fn twice() -> (TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log");
    for round in 0..2_u64 {
        let log = Log::open(&path, raw()).unwrap();
        for number in 0..20 {
            log.put(&key(number), &noise(round * 100 + number, 700)).unwrap();
        }
        // So that the last segment is sealed, and has an index file.
        for number in 0..6 {
            log.put(&[round as u8, number], &noise(number.into(), 700)).unwrap();
        }
        log.flush().unwrap();
        log.flush().unwrap();
    }
    (dir, path)
}

fn files(dir: &Path, extension: &str) -> Vec<PathBuf> {
    let files = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<_> = files.filter(|path| path.extension().is_some_and(|it| it == extension)).collect();
    files.sort();
    files
}

/// The segments that hold newer values, with the place of each in them.
fn newer(dir: &Path) -> Vec<(PathBuf, u64, usize)> {
    let mut places = Vec::new();
    for path in files(dir, "seg") {
        let bytes = std::fs::read(&path).unwrap();
        for number in 0..20 {
            let value = noise(100 + number, 700);
            if let Some(at) = bytes.windows(value.len()).position(|window| window == value) {
                places.push((path.clone(), number, at));
            }
        }
    }
    assert_eq!(places.len(), 20);
    places
}

/// No key shows its older value; returns how many show their newer one.
fn none_is_older(log: &Log, when: &str) -> usize {
    let shown = (0..20).filter(|number| match log.get(&key(*number)).unwrap() {
        None => false,
        Some(value) => {
            assert_eq!(value, noise(100 + number, 700), "key {number} {when}");
            true
        }
    });
    shown.count()
}

/// Opens, compacts and reopens a damaged log.
fn examine(dir: &Path, expected: usize) {
    let log = Log::open(dir, raw()).unwrap();
    assert_eq!(none_is_older(&log, "at first"), expected);
    assert_eq!(none_is_older(&log, "when read again"), expected);
    assert!(!log.check().unwrap().is_intact());
    drop(log);
    for round in 0..3 {
        let log = Log::open(dir, raw()).unwrap();
        log.compact().unwrap();
        assert_eq!(none_is_older(&log, "after compaction"), expected, "round {round}");
        // Something to compact next time.
        (0..12).for_each(|number| log.put(b"filler", &noise(number, 900)).unwrap());
    }
    let log = Log::open(dir, raw()).unwrap();
    assert_eq!(none_is_older(&log, "at the end"), expected);
}

#[test]
fn a_damaged_value_does_not_bring_the_older_one_back() {
    let (_dir, path) = twice();
    for (file, _, at) in newer(&path).into_iter().step_by(3) {
        let mut bytes = std::fs::read(&file).unwrap();
        bytes[at + 300] ^= 1;
        std::fs::write(&file, &bytes).unwrap();
    }
    examine(&path, 13);
}

#[test]
fn a_damaged_header_does_not_bring_the_older_value_back() {
    let (_dir, path) = twice();
    for (file, _, at) in newer(&path).into_iter().step_by(3) {
        let mut bytes = std::fs::read(&file).unwrap();
        // The stamp, so that the record is no record any more.
        bytes[at - 8 - 48 + 9] ^= 1;
        std::fs::write(&file, &bytes).unwrap();
    }
    examine(&path, 13);
}

#[test]
fn a_segment_that_is_cut_does_not_bring_older_values_back() {
    let (_dir, path) = twice();
    let (file, _, at) = newer(&path).swap_remove(10);
    let len = std::fs::metadata(&file).unwrap().len();
    let gone = newer(&path).iter().filter(|(other, _, place)| *other == file && *place >= at).count();
    std::fs::File::options().write(true).open(&file).unwrap().set_len(at as u64 - 50).unwrap();
    assert!(len > at as u64);
    examine(&path, 20 - gone);
}

#[test]
fn a_segment_that_is_gone_does_not_bring_older_values_back() {
    let (_dir, path) = twice();
    let places = newer(&path);
    let gone = places.iter().filter(|(file, ..)| *file == places[5].0).count();
    std::fs::remove_file(&places[5].0).unwrap();
    examine(&path, 20 - gone);
}

#[test]
fn what_is_wrong_is_said_with_file_and_place() {
    let (_dir, path) = twice();
    let log = Log::open(&path, raw()).unwrap();
    let checked = log.check().unwrap();
    assert_eq!((checked.is_intact(), checked.problems.len()), (true, 0), "{:?}", checked.problems);
    assert_eq!(checked.values, log.stats().entries);
    let (file, number, at) = newer(&path).swap_remove(0);
    let mut bytes = std::fs::read(&file).unwrap();
    bytes[at] ^= 1;
    std::fs::write(&file, &bytes).unwrap();
    std::fs::create_dir(path.join("00000000000000ff.seg")).unwrap();
    std::fs::write(path.join("notes.txt"), "mine").unwrap();
    let checked = Log::open_read_only(&path, raw()).unwrap().check().unwrap();
    let damaged = checked.problems.iter().find(|problem| problem.path == file).unwrap();
    assert_eq!(damaged.offset, Some(at as u64 - 8 - 48));
    assert_eq!(damaged.kind, ProblemKind::DamagedRecord { key: key(number).to_vec() });
    assert!(damaged.to_string().contains("is damaged") && !checked.is_intact());
    assert_eq!(checked.problems.iter().filter(|problem| problem.kind == ProblemKind::Stray).count(), 2);
}

#[test]
fn strangers_with_the_name_of_a_segment_are_left_alone() {
    let (_dir, path) = twice();
    std::fs::create_dir(path.join("00000000000000f0.seg")).unwrap();
    std::fs::write(path.join("00000000000000f1.seg"), "somebody's notes").unwrap();
    std::fs::write(path.join("00000000000000f2.seg"), noise(3, 5000)).unwrap();
    #[cfg(unix)]
    {
        std::os::unix::fs::symlink("/dev/zero", path.join("00000000000000f3.seg")).unwrap();
        let made = std::process::Command::new("mkfifo").arg(path.join("00000000000000f4.seg")).status();
        assert!(made.unwrap().success());
    }
    for _ in 0..2 {
        let log = Log::open(&path, raw()).unwrap();
        assert_eq!(none_is_older(&log, "beside strangers"), 20);
        log.put(b"key", b"value").unwrap();
        log.compact().unwrap();
    }
    assert_eq!(std::fs::read(path.join("00000000000000f1.seg")).unwrap(), b"somebody's notes");
    assert_eq!(std::fs::read(path.join("00000000000000f2.seg")).unwrap(), noise(3, 5000));
}

#[test]
fn reading_changes_nothing_and_needs_nothing() {
    let (_dir, path) = twice();
    let before: Vec<_> = files(&path, "seg").into_iter().map(|file| std::fs::read(file).unwrap()).collect();
    let names = || {
        let names = std::fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().file_name());
        names.collect::<std::collections::BTreeSet<_>>()
    };
    let (named, writer) = (names(), Log::open(&path, raw()).unwrap());
    let log = Log::open_read_only(&path, raw()).unwrap();
    assert_eq!(none_is_older(&log, "read only"), 20);
    assert!(matches!(log.put(b"key", b"value"), Err(Error::ReadOnly { .. })));
    assert!(matches!(log.remove(&key(0)), Err(Error::ReadOnly { .. })));
    assert!(matches!(log.compact(), Err(Error::ReadOnly { .. })));
    log.flush().unwrap();
    writer.put(b"key", b"value").unwrap();
    log.refresh().unwrap();
    assert_eq!(log.get(b"key").unwrap().unwrap(), "value");
    drop((log, writer));
    let after: Vec<_> = files(&path, "seg").into_iter().map(|file| std::fs::read(file).unwrap()).collect();
    assert!(before.iter().zip(&after).all(|(before, after)| after.starts_with(before)) && names() == named);
    assert!(Log::open_read_only(path.join("missing"), raw()).is_err());
}

#[test]
fn open_files_are_bounded() {
    let dir = tempfile::tempdir().unwrap();
    let open = || Log::open(dir.path(), Options { open_files_max: 8, ..raw() }).unwrap();
    let log = open();
    for number in 0..600 {
        log.put(&key(number), &noise(number, 900)).unwrap();
    }
    log.flush().unwrap();
    let others = [open(), Log::open_read_only(dir.path(), Options { open_files_max: 1, ..raw() }).unwrap()];
    for log in others.iter().chain([&log]) {
        assert!(log.stats().segments > 140);
        for number in (0..600).rev() {
            assert_eq!(log.get(&key(number)).unwrap().unwrap(), noise(number, 900));
        }
    }
    #[cfg(target_os = "linux")]
    {
        let prefix = dir.path().canonicalize().unwrap();
        let open = std::fs::read_dir("/proc/self/fd")
            .unwrap()
            .filter_map(|fd| std::fs::read_link(fd.ok()?.path()).ok());
        let ours = open.filter(|target| target.starts_with(&prefix)).count();
        assert!(ours <= 8 + 8 + 1 + 3 * 6, "{ours}");
    }
}

#[test]
fn a_copy_that_lacks_a_segment_is_refused() {
    let (dir, path) = twice();
    let writer = Log::open(&path, raw()).unwrap();
    writer.put(b"key", b"value").unwrap();
    let copy = |skipped: usize| {
        let to = dir.path().join(format!("copy {skipped}"));
        std::fs::create_dir(&to).unwrap();
        for (number, file) in files(&path, "seg").iter().chain(&files(&path, "idx")).enumerate() {
            if number != skipped {
                std::fs::copy(file, to.join(file.file_name().unwrap())).unwrap();
            }
        }
        std::fs::copy(path.join("manifest"), to.join("manifest")).unwrap();
        to
    };
    let error = Log::open(copy(0), raw()).unwrap_err();
    assert!(
        matches!(error, Error::IncompleteCopy { .. }) && error.to_string().contains("is missing"),
        "{error}"
    );
    // As far as it goes, when that is asked for.
    std::fs::remove_file(dir.path().join("copy 0/manifest")).unwrap();
    Log::open(dir.path().join("copy 0"), raw()).unwrap();
    // Without an index file it is slower, and whole.
    let log = Log::open(copy(files(&path, "seg").len()), raw()).unwrap();
    assert_eq!(none_is_older(&log, "in the copy"), 20);
    drop(log);
    // And from then on a log of its own.
    let whole = copy(usize::MAX);
    let log = Log::open(&whole, raw()).unwrap();
    for number in 0..20 {
        log.remove(&key(number)).unwrap();
    }
    log.compact().unwrap();
    drop(log);
    assert_eq!(none_is_older(&Log::open(&whole, raw()).unwrap(), "removed"), 0);
    assert_eq!(none_is_older(&Log::open(&path, raw()).unwrap(), "in the original"), 20);
}
