//! Compares journal records with the format page, byte by byte.

mod simulation;

use bytes::Bytes;
use greenwave_segment::{Log, Options};

use super::{HAS_LABEL, HAS_NOTE, Journal, VERSION, decode, encode};
use crate::buffered::BufferedSplitter;
use crate::conformance::UnitRecord;
use crate::splitter::{Files, Sse};
use crate::unit::UnitBatch;

/// The record of two events from `docs/formats/journal.md`: the first has an id, the second has a
/// type and inherits the id.
const EVENTS: &[u8] = b"\x01\x02\0\0\0\
    \x09\x05\0\0\x01\0\0\x007\x01\0\0\0a\
    \x0d\x05\0\0\x04\0\0\0note\x01\0\0\x007\x02\0\0\0bc";

fn events() -> UnitBatch {
    let mut splitter = BufferedSplitter::new(Sse::default());
    splitter.feed("id:7\ndata:a\n\nevent:note\ndata:bc\n\n".into()).unwrap().unwrap()
}

fn seen(batch: &UnitBatch) -> Vec<UnitRecord> {
    batch.iter().map(UnitRecord::from).collect()
}

#[test]
fn a_record_matches_the_format_page() {
    assert_eq!(encode(&events()).escape_ascii().to_string(), EVENTS.escape_ascii().to_string());
    let batch = decode(Bytes::from_static(EVENTS), 5).unwrap();
    assert_eq!(seen(&batch), seen(&events()));
    assert_eq!(batch.first_sequence(), 5);
}

#[test]
fn keys_match_the_format_page() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path().join("journal");
    let journal = Journal::open(&dir).unwrap();
    journal.append(258, 0, &events().renumbered(3)).unwrap();
    journal.supersede(258, 1).unwrap();
    journal.append(258, 1, &events()).unwrap();
    let log = Log::open(&dir, Options::default()).unwrap();
    let mut keys = log.keys_with_prefix(b"");
    keys.sort();
    let units = b"units/\0\0\0\0\0\0\x01\x02\0\0\0\x01\0\0\0\0\0\0\0\0";
    assert_eq!(keys, [&b"turn/\0\0\0\0\0\0\x01\x02"[..], units]);
    assert_eq!(log.get(b"turn/\0\0\0\0\0\0\x01\x02").unwrap().unwrap(), b"\x01\x01\0\0\0"[..]);
    assert_eq!(log.get(units).unwrap().unwrap(), EVENTS);
}

#[test]
fn damaged_records_are_rejected() {
    for end in 0..EVENTS.len() {
        assert!(decode(Bytes::from_static(&EVENTS[..end]), 0).is_none(), "cut at {end}");
    }
    let newer = [&[2], &EVENTS[1..]].concat();
    assert!(decode(newer.into(), 0).is_none(), "newer versions are rejected");
    let longer = [EVENTS, b"\0"].concat();
    assert!(decode(longer.into(), 0).is_none());
    for flag in [HAS_LABEL, HAS_NOTE] {
        let empty = [&[VERSION, 1, 0, 0, 0, flag, 0, 0, 0][..], &[0; 8]].concat();
        assert!(decode(empty.into(), 0).is_none(), "an empty label is written as none");
    }
}

#[test]
fn files_survive_a_round_trip() {
    let mut splitter = BufferedSplitter::new(Files::default());
    let text = "  ```rust src/lib.rs\n  a\n  ```\n\n```\nb\n```\n";
    let batch = splitter.feed(text.into()).unwrap().unwrap();
    assert_eq!(seen(&decode(encode(&batch).into(), 0).unwrap()), seen(&batch));
}

#[test]
fn any_bytes_can_be_decoded() {
    crate::conformance::check_journal_record(EVENTS);
    for end in 0..EVENTS.len() {
        crate::conformance::check_journal_record(&EVENTS[..end]);
        for byte in 0..=255 {
            let mut changed = EVENTS.to_vec();
            changed[end] = byte;
            crate::conformance::check_journal_record(&changed);
        }
    }
}
