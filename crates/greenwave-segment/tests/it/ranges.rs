//! Ordered scans of ranges, beside a `BTreeMap`.

use std::collections::BTreeMap;
use std::ops::Bound;

use greenwave_segment::{Log, Options};

use crate::fresh;
use crate::key_table::on_demand;

/// More than two pages.
const KEYS: u64 = 10_000;

fn key(number: u64) -> Vec<u8> {
    number.to_be_bytes().to_vec()
}

/// Returns a log with many keys, written in no order.
fn filled(options: Options) -> (tempfile::TempDir, Log, BTreeMap<Vec<u8>, Vec<u8>>) {
    let (dir, log) = fresh(options);
    let mut model = BTreeMap::new();
    for number in 0..KEYS {
        let key = key(number.wrapping_mul(0x9E37_79B9_7F4A_7C15));
        log.put(&key, &number.to_le_bytes()).unwrap();
        model.insert(key, number.to_le_bytes().to_vec());
    }
    for key in model.keys().step_by(3).cloned().collect::<Vec<_>>() {
        assert!(log.remove(&key).unwrap());
        model.remove(&key);
    }
    (dir, log, model)
}

#[test]
fn ranges_are_those_of_an_ordered_map() {
    let (_dir, log, model) = filled(Options::default());
    let middle = model.keys().nth(model.len() / 3).unwrap().clone();
    let (low, high) = (key(u64::MAX / 10), key(u64::MAX / 10 * 9));
    let unbounded = (Bound::Unbounded, Bound::Unbounded);
    for range in [
        unbounded,
        (Bound::Included(low.clone()), Bound::Excluded(high.clone())),
        (Bound::Excluded(middle.clone()), Bound::Unbounded),
        (Bound::Included(middle.clone()), Bound::Included(middle)),
        (Bound::Unbounded, Bound::Included(high.clone())),
    ] {
        let expected: Vec<_> = model.range(range.clone()).map(|(k, v)| (k.clone(), v.clone())).collect();
        let entries = || {
            let entries = log.range(range.clone()).unwrap();
            entries.map(|entry| entry.map(|(key, value)| (key, value.to_vec())).unwrap())
        };
        assert!(entries().eq(expected.iter().cloned()), "{range:?}");
        assert!(entries().rev().eq(expected.iter().rev().cloned()), "{range:?}");
        // From both ends, in turn.
        let (mut entries, mut expected) = (entries(), expected.into_iter());
        for step in 0.. {
            let (found, wanted) = match step % 3 {
                0 => (entries.next_back(), expected.next_back()),
                _ => (entries.next(), expected.next()),
            };
            assert_eq!(found, wanted, "{range:?}");
            if found.is_none() {
                break;
            }
        }
    }
    assert_eq!(
        log.range::<[u8]>((Bound::Included(&high[..]), Bound::Excluded(&low[..]))).unwrap().count(),
        0
    );
}

#[test]
fn keys_that_stay_are_returned_once_while_others_change() {
    let (_dir, log, model) = filled(Options::default());
    let stays = |key: &[u8]| key[7].is_multiple_of(2);
    let mut returned = Vec::new();
    for (number, key) in log.range::<[u8]>(..).unwrap().keys().enumerate() {
        if number.is_multiple_of(101) {
            let others = model.keys().filter(|key| !stays(key)).skip(number % 911).step_by(17);
            for other in others {
                log.remove(other).unwrap();
                let mut new = other.clone();
                new.push(1);
                log.put(&new, b"new").unwrap();
            }
        }
        returned.push(key);
    }
    assert!(returned.is_sorted_by(|one, next| one < next));
    let staying = |keys: &[Vec<u8>]| keys.iter().filter(|key| key.len() == 8 && stays(key)).count();
    assert_eq!(staying(&returned), staying(&model.keys().cloned().collect::<Vec<_>>()));
}

#[test]
fn a_prefix_selects_its_keys() {
    let (_dir, log) = fresh(Options::default());
    for key in [&b"a"[..], b"b", b"b/1", b"b/2", b"b0", b"\xff", b"\xff\xff", b""] {
        log.put(key, key).unwrap();
    }
    let keys = |prefix: &[u8]| log.prefix(prefix).unwrap().keys().collect::<Vec<_>>();
    assert_eq!(keys(b"b/"), [b"b/1", b"b/2"]);
    assert_eq!(keys(b"\xff"), [&b"\xff"[..], b"\xff\xff"]);
    assert_eq!((keys(b"").len(), keys(b"c").len()), (8, 0));
}

#[test]
fn an_index_on_disk_is_read_before() {
    let (_dir, log, model) = filled(on_demand());
    let dir = log.dir().to_owned();
    drop(log);
    let log = Log::open(dir, on_demand()).unwrap();
    assert!(log.stats().unread_segments > 0);
    assert!(log.range::<[u8]>(..).unwrap().keys().eq(model.keys().cloned()));
}
