//! Tests of every option of a log at its limits: each value works, or is refused with the name of
//! the option and the accepted range.

use greenwave_segment::{Compression, Error, Log, Options, WhenFull};

/// The option that is expected to be refused, if any.
type Refused = Option<&'static str>;

/// Opens a log, writes, compacts and reads, and opens it again.
fn check(options: Options, refused: Refused) {
    let dir = tempfile::tempdir().unwrap();
    let shown = format!("{options:?}");
    let log = match (Log::open(dir.path(), options.clone()), refused) {
        (Ok(log), None) => log,
        (Err(Error::Option { option, accepted, .. }), Some(refused)) => {
            assert_eq!(option, refused, "{shown}");
            assert!(!accepted.is_empty());
            return;
        }
        (Ok(_), Some(refused)) => panic!("{shown}: {refused} is accepted"),
        (Err(error), _) => panic!("{shown}: {error}"),
    };
    let (key_fits, value_fits) = (options.key_bytes_max >= 1, options.value_bytes_max >= 5);
    let is_written = key_fits && value_fits;
    for (key, value) in [(b"a", b"value"), (b"b", b"other"), (b"a", b"again")] {
        match log.put(key, value) {
            Ok(()) => assert!(is_written, "{shown}"),
            Err(Error::ValueTooLarge { .. }) => assert!(!value_fits, "{shown}"),
            Err(error) => panic!("{shown}: {error}"),
        }
    }
    log.flush().unwrap();
    log.compact().unwrap();
    drop(log);
    let log = Log::open(dir.path(), options).unwrap();
    let expected = |value: &[u8]| is_written.then(|| value.to_vec());
    let read = |key: &[u8]| log.get(key).unwrap().map(|value| value.to_vec());
    assert_eq!((read(b"a"), read(b"b")), (expected(b"again"), expected(b"other")), "{shown}");
}

#[test]
fn every_option_works_at_its_limits_or_is_refused() {
    let usual = Options::default;
    for (bytes, refused) in
        [(0, true), (1, true), (4095, true), (4096, false), (u64::MAX - 1, false), (u64::MAX, false)]
    {
        let refused = refused.then_some("segment_bytes_max");
        check(Options { segment_bytes_max: bytes, ..usual() }, refused);
    }
    for (bytes, refused) in [(0, true), (1, true), (16_383, true), (16_384, false), (u64::MAX, false)] {
        for when_full in [WhenFull::Refuse, WhenFull::DropOldest] {
            let disk_bytes_max = Some(bytes);
            let refused = refused.then_some("disk_bytes_max");
            check(Options { disk_bytes_max, when_full, ..usual() }, refused);
        }
    }
    for (bytes, refused) in [(0, true), (1, false), (65_536, false), (65_537, true), (u32::MAX, true)] {
        check(Options { key_bytes_max: bytes, ..usual() }, refused.then_some("key_bytes_max"));
    }
    for bytes in [0, 1, 4, 5, u32::MAX - 1, u32::MAX] {
        check(Options { value_bytes_max: bytes, ..usual() }, None);
    }
    for (files, refused) in [(0, true), (1, false), (2, false), (u32::MAX, false)] {
        check(Options { open_files_max: files, ..usual() }, refused.then_some("open_files_max"));
    }
    for (depth, refused) in [(0, false), (1, false), (200, false), (201, true), (u8::MAX, true)] {
        check(Options { chain_depth_max: depth, ..usual() }, refused.then_some("chain_depth_max"));
    }
    let levels = [
        (i32::MIN, true),
        (-8, true),
        (-7, false),
        (0, false),
        (1, false),
        (22, false),
        (23, true),
        (i32::MAX, true),
    ];
    for (level, refused) in levels {
        let compression = Compression::Zstd { level };
        check(Options { compression, ..usual() }, refused.then_some("compression.level"));
    }
    for clock in [(|| 0) as fn() -> u64, || 1, || u64::MAX] {
        check(Options { clock, ..usual() }, None);
    }
}

#[test]
fn a_dictionary_of_any_size_is_trained_or_refused_with_the_range() {
    let dir = tempfile::tempdir().unwrap();
    let options = Options { compression: Compression::Zstd { level: 1 }, ..Options::default() };
    let log = Log::open(dir.path(), options).unwrap();
    for number in 0..2000_u64 {
        let value =
            format!("{{\"test\":\"module::case_{number}\",\"outcome\":\"passed\",\"ms\":{}}}", number * 7);
        log.put(&number.to_le_bytes(), value.as_bytes()).unwrap();
    }
    for bytes in [0, 1, 10, 1023, (1 << 20) + 1, usize::MAX] {
        let error = log.train_dictionary(bytes).unwrap_err();
        let expected = format!("invalid value {bytes} for bytes_max: expected a number from 1024 to 1048576");
        assert_eq!(error.to_string(), expected);
    }
    for bytes in [1024, 1025, 4095, 4097, (1 << 20) - 1, 1 << 20] {
        log.train_dictionary(bytes).unwrap_or_else(|error| panic!("{bytes}: {error}"));
        log.put(b"after", &[7; 100]).unwrap();
        assert_eq!(log.get(b"after").unwrap().unwrap().as_ref(), [7; 100]);
    }
}
