//! Opens journals whose log holds arbitrary keys and values: nothing panics, every duration is
//! usable, and later records and removals count.
#![no_main]

use std::time::Duration;

use greenwave_scheduler::Journal;
use greenwave_segment::{Log, Options};
use libfuzzer_sys::fuzz_target;

// Records: a byte that selects the prefix of the key, the length of the rest of the key, the length
// of the value, and both.
fuzz_target!(|data: &[u8]| {
    let base = if std::path::Path::new("/dev/shm").is_dir() { "/dev/shm".into() } else { std::env::temp_dir() };
    let dir = tempfile::tempdir_in(base).expect("a temporary directory");
    let log = Log::open(dir.path(), Options::default()).expect("an empty directory");
    let mut rest = data;
    while let Some(([prefix, key_len, value_len], tail)) = rest.split_first_chunk() {
        let key_len = usize::from(key_len % 16).min(tail.len());
        let (key, tail) = tail.split_at(key_len);
        let (value, tail) = tail.split_at(usize::from(value_len % 32).min(tail.len()));
        let prefix: &[u8] = [b"finished/".as_slice(), b"duration/", b""][usize::from(prefix % 3)];
        let key = [prefix, key].concat();
        if !key.is_empty() {
            log.put(&key, value).expect("room");
        }
        rest = tail;
    }
    log.flush().expect("a disk");
    drop(log);
    let journal = Journal::open(dir.path()).expect("the log is intact");
    let finished = journal.finished().expect("the log is intact");
    let durations = journal.durations().expect("the log is intact");
    for (_, seconds) in durations.iter() {
        Duration::try_from_secs_f64(seconds).expect("a usable duration");
    }
    for id in finished.keys().map(String::as_str).chain(["new"]) {
        journal.record(id, b"payload").expect("room");
        assert_eq!(journal.finished().expect("intact")[id].as_ref(), b"payload");
        journal.forget(id).expect("room");
        assert!(!journal.finished().expect("intact").contains_key(id));
    }
});
