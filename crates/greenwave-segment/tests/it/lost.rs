//! Tests of records that are damaged, cut off or missing. Their keys have no value instead of an
//! older one, before and after compaction and reopening, as long as the record, an index file or
//! the manifest names them. `check` reports the damage.

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

/// Creates a log in which twenty keys have an older value in the first sealed segments and a newer
/// one in later ones.
fn log_with_two_versions() -> (TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log");
    for round in 0..2_u64 {
        let log = Log::open(&path, raw()).unwrap();
        for number in 0..20 {
            log.put(&key(number), &noise(round * 100 + number, 700)).unwrap();
        }
        // Fills the last segment, so that it is sealed and has an index file.
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

/// Returns the segment, number and offset of each newer value.
fn newer_values(dir: &Path) -> Vec<(PathBuf, u64, usize)> {
    let mut offsets = Vec::new();
    for path in files(dir, "seg") {
        let bytes = std::fs::read(&path).unwrap();
        for number in 0..20 {
            let value = noise(100 + number, 700);
            if let Some(at) = bytes.windows(value.len()).position(|window| window == value) {
                offsets.push((path.clone(), number, at));
            }
        }
    }
    assert_eq!(offsets.len(), 20);
    offsets
}

/// Checks that no key shows its older value; returns how many show their newer one.
fn count_newer(log: &Log, when: &str) -> usize {
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
fn check_damaged(dir: &Path, expected: usize) {
    let log = Log::open(dir, raw()).unwrap();
    assert_eq!(count_newer(&log, "at first"), expected);
    assert_eq!(count_newer(&log, "when read again"), expected);
    assert!(!log.check().unwrap().is_intact());
    drop(log);
    for round in 0..3 {
        let log = Log::open(dir, raw()).unwrap();
        log.compact().unwrap();
        assert_eq!(count_newer(&log, "after compaction"), expected, "round {round}");
        // Fills segments for the next compaction.
        (0..12).for_each(|number| log.put(b"filler", &noise(number, 900)).unwrap());
    }
    let log = Log::open(dir, raw()).unwrap();
    assert_eq!(count_newer(&log, "at the end"), expected);
}

#[test]
fn a_damaged_value_hides_the_older_one() {
    let (_dir, path) = log_with_two_versions();
    for (file, _, at) in newer_values(&path).into_iter().step_by(3) {
        let mut bytes = std::fs::read(&file).unwrap();
        bytes[at + 300] ^= 1;
        std::fs::write(&file, &bytes).unwrap();
    }
    check_damaged(&path, 13);
}

#[test]
fn a_damaged_header_hides_the_older_value() {
    let (_dir, path) = log_with_two_versions();
    for (file, _, at) in newer_values(&path).into_iter().step_by(3) {
        let mut bytes = std::fs::read(&file).unwrap();
        // Damages the timestamp and so the header checksum.
        bytes[at - 8 - 48 + 9] ^= 1;
        std::fs::write(&file, &bytes).unwrap();
    }
    check_damaged(&path, 13);
}

#[test]
fn a_truncated_segment_hides_older_values() {
    let (_dir, path) = log_with_two_versions();
    let (file, _, at) = newer_values(&path).swap_remove(10);
    let len = std::fs::metadata(&file).unwrap().len();
    let lost =
        newer_values(&path).iter().filter(|(other, _, offset)| *other == file && *offset >= at).count();
    std::fs::File::options().write(true).open(&file).unwrap().set_len(at as u64 - 50).unwrap();
    assert!(len > at as u64);
    check_damaged(&path, 20 - lost);
}

#[test]
fn a_missing_segment_hides_older_values() {
    let (_dir, path) = log_with_two_versions();
    let offsets = newer_values(&path);
    let lost = offsets.iter().filter(|(file, ..)| *file == offsets[5].0).count();
    std::fs::remove_file(&offsets[5].0).unwrap();
    check_damaged(&path, 20 - lost);
}

#[test]
fn check_reports_file_and_offset() {
    let (_dir, path) = log_with_two_versions();
    let log = Log::open(&path, raw()).unwrap();
    let report = log.check().unwrap();
    assert_eq!((report.is_intact(), report.problems.len()), (true, 0), "{:?}", report.problems);
    assert_eq!(report.values, log.stats().entries);
    let (file, number, at) = newer_values(&path).swap_remove(0);
    let mut bytes = std::fs::read(&file).unwrap();
    bytes[at] ^= 1;
    std::fs::write(&file, &bytes).unwrap();
    std::fs::create_dir(path.join("00000000000000ff.seg")).unwrap();
    std::fs::write(path.join("notes.txt"), "mine").unwrap();
    let report = Log::open_read_only(&path, raw()).unwrap().check().unwrap();
    let damaged = report.problems.iter().find(|problem| problem.path == file).unwrap();
    assert_eq!(damaged.offset, Some(at as u64 - 8 - 48));
    assert_eq!(damaged.kind, ProblemKind::DamagedRecord { key: key(number).to_vec() });
    assert!(damaged.to_string().contains("is damaged") && !report.is_intact());
    assert_eq!(report.problems.iter().filter(|problem| problem.kind == ProblemKind::Stray).count(), 2);
}

/// Copies the only segment of a log to another directory.
fn copy_segment(from: &Path, to: &Path) -> PathBuf {
    let segment = files(from, "seg").swap_remove(0);
    std::fs::create_dir(to).unwrap();
    let copy = to.join(segment.file_name().unwrap());
    std::fs::copy(segment, &copy).unwrap();
    copy
}

#[test]
fn check_finds_records_within_the_length_that_a_bad_record_claims() {
    let dir = tempfile::tempdir().unwrap();
    let [first, long, short] = ["first", "long", "short"].map(|name| dir.path().join(name));
    Log::open(&first, raw()).unwrap().put(b"key", b"value").unwrap();
    // Both logs continue the same segment.
    let (long_file, short_file) = (copy_segment(&first, &long), copy_segment(&first, &short));
    let at = std::fs::read(&short_file).unwrap().len();
    Log::open(&long, raw()).unwrap().put(b"long", &noise(1, 1500)).unwrap();
    let log = Log::open(&short, raw()).unwrap();
    (0..5).for_each(|number| log.put(&key(number), &noise(number, 300)).unwrap());
    assert_eq!(log.check().unwrap().records, 6);
    drop(log);
    // The header of the long record takes the place of a short one.
    let mut bytes = std::fs::read(&short_file).unwrap();
    bytes[at..at + 52].copy_from_slice(&std::fs::read(&long_file).unwrap()[at..at + 52]);
    std::fs::write(&short_file, &bytes).unwrap();
    let report = Log::open_read_only(&short, raw()).unwrap().check().unwrap();
    assert_eq!(report.records, 5, "{:?}", report.problems);
    assert_eq!(report.problems[0].offset, Some(at as u64));
    assert_eq!(report.problems[0].kind, ProblemKind::DamagedRecord { key: b"long".to_vec() });
}

#[test]
fn foreign_files_named_like_segments_are_left_alone() {
    let (_dir, path) = log_with_two_versions();
    std::fs::create_dir(path.join("00000000000000f0.seg")).unwrap();
    std::fs::write(path.join("00000000000000f1.seg"), "foreign notes").unwrap();
    std::fs::write(path.join("00000000000000f2.seg"), noise(3, 5000)).unwrap();
    #[cfg(unix)]
    {
        std::os::unix::fs::symlink("/dev/zero", path.join("00000000000000f3.seg")).unwrap();
        let made = std::process::Command::new("mkfifo").arg(path.join("00000000000000f4.seg")).status();
        assert!(made.unwrap().success());
    }
    for _ in 0..2 {
        let log = Log::open(&path, raw()).unwrap();
        assert_eq!(count_newer(&log, "with foreign files"), 20);
        log.put(b"key", b"value").unwrap();
        log.compact().unwrap();
    }
    assert_eq!(std::fs::read(path.join("00000000000000f1.seg")).unwrap(), b"foreign notes");
    assert_eq!(std::fs::read(path.join("00000000000000f2.seg")).unwrap(), noise(3, 5000));
}

#[test]
fn a_read_only_log_changes_nothing() {
    let (_dir, path) = log_with_two_versions();
    let before: Vec<_> = files(&path, "seg").into_iter().map(|file| std::fs::read(file).unwrap()).collect();
    let names = || {
        let names = std::fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().file_name());
        names.collect::<std::collections::BTreeSet<_>>()
    };
    let (named, writer) = (names(), Log::open(&path, raw()).unwrap());
    let log = Log::open_read_only(&path, raw()).unwrap();
    assert_eq!(count_newer(&log, "read only"), 20);
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
fn open_files_are_limited() {
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
        let own = open.filter(|target| target.starts_with(&prefix)).count();
        assert!(own <= 8 + 8 + 1 + 3 * 6, "{own}");
    }
}

#[test]
fn a_copy_without_a_segment_is_refused() {
    let (dir, path) = log_with_two_versions();
    let writer = Log::open(&path, raw()).unwrap();
    writer.put(b"key", b"value").unwrap();
    let copy = |omitted: usize| {
        let to = dir.path().join(format!("copy {omitted}"));
        std::fs::create_dir(&to).unwrap();
        for (number, file) in files(&path, "seg").iter().chain(&files(&path, "idx")).enumerate() {
            if number != omitted {
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
    // Without its manifest, the copy can be read as far as it goes.
    std::fs::remove_file(dir.path().join("copy 0/manifest")).unwrap();
    Log::open(dir.path().join("copy 0"), raw()).unwrap();
    // A copy without an index file is complete, but slower to open.
    let log = Log::open(copy(files(&path, "seg").len()), raw()).unwrap();
    assert_eq!(count_newer(&log, "in the copy"), 20);
    drop(log);
    // A complete copy is an independent log.
    let complete = copy(usize::MAX);
    let log = Log::open(&complete, raw()).unwrap();
    for number in 0..20 {
        log.remove(&key(number)).unwrap();
    }
    log.compact().unwrap();
    drop(log);
    assert_eq!(count_newer(&Log::open(&complete, raw()).unwrap(), "removed"), 0);
    assert_eq!(count_newer(&Log::open(&path, raw()).unwrap(), "in the original"), 20);
}
