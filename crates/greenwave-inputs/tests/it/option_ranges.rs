//! Numbers of any value.

use greenwave_inputs::codec::Header;
use greenwave_inputs::{FileStamp, now_ns};

#[test]
fn times_of_any_number_are_racy_or_not() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let stamp = FileStamp::from_metadata(&file.as_file().metadata().unwrap());
    for modified in [i64::MIN, 0, stamp.modified, i64::MAX] {
        let stamp = FileStamp { modified, changed: modified, ..stamp };
        for at in [i64::MIN, -1, 0, now_ns(), i64::MAX] {
            let is_racy = stamp.is_racy(at) || stamp.is_racy_within_run(at);
            assert!(is_racy || modified < at, "{modified} at {at}");
        }
    }
}

/// A capacity is a hint, which no caller can know to be too large.
#[test]
fn a_writer_of_any_capacity_writes() {
    let header = Header { magic: *b"test", version: 1 };
    for capacity in [0, 1, usize::MAX] {
        let mut writer = header.writer(capacity);
        writer.count(3).number(u64::MAX).byte(u8::MAX);
        let mut reader = header.reader(&writer.0).unwrap();
        let read = (reader.count(), reader.number(), reader.byte());
        assert_eq!(read, (Some(3), Some(u64::MAX), Some(u8::MAX)));
        for count in [1, usize::MAX] {
            assert_eq!(reader.take(count), None, "nothing is left");
        }
    }
}
