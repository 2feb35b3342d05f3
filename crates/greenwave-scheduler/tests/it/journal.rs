//! Tests of the journal.

use std::time::Duration;

use greenwave_scheduler::{Durations, Journal};

#[test]
fn finished_tasks_and_durations_survive_reopening() {
    let dir = tempfile::tempdir().unwrap();
    let journal = Journal::open(dir.path()).unwrap();
    journal.record("lexer", b"one").unwrap();
    journal.record("parser", b"two").unwrap();
    journal.record("lexer", b"three").unwrap();
    journal.forget("parser").unwrap();
    let mut durations = Durations::default();
    durations.observe("feature:lexer", Duration::from_secs(7));
    journal.record_durations(&durations).unwrap();
    drop(journal);

    let journal = Journal::open(dir.path()).unwrap();
    let finished = journal.finished().unwrap();
    assert_eq!(finished.len(), 1);
    assert_eq!(finished["lexer"], "three");
    assert_eq!(journal.durations().unwrap().estimate("feature:lexer"), Duration::from_secs(7));
}

#[test]
fn concurrent_journals_see_each_others_records() {
    let dir = tempfile::tempdir().unwrap();
    let (one, two) = (Journal::open(dir.path()).unwrap(), Journal::open(dir.path()).unwrap());
    one.record("lexer", b"one").unwrap();
    one.record("parser", b"two").unwrap();
    assert_eq!(two.finished().unwrap().len(), 2);
    two.forget("lexer").unwrap();
    assert_eq!(one.finished().unwrap().keys().collect::<Vec<_>>(), ["parser"]);
}

#[test]
fn a_key_that_is_no_text_is_no_task() {
    let dir = tempfile::tempdir().unwrap();
    let log = greenwave_segment::Log::open(dir.path(), greenwave_segment::Options::default()).unwrap();
    log.put(b"finished/\xFF", b"foreign").unwrap();
    log.put(b"duration/\xFF", &1.5_f64.to_le_bytes()).unwrap();
    log.flush().unwrap();
    drop(log);
    let journal = Journal::open(dir.path()).unwrap();
    assert_eq!((journal.finished().unwrap().len(), journal.durations().unwrap().iter().count()), (0, 0));
    // The name that a lossy conversion would give to the foreign key.
    journal.record("\u{FFFD}", b"own").unwrap();
    assert_eq!(journal.finished().unwrap()["\u{FFFD}"].as_ref(), b"own");
    journal.forget("\u{FFFD}").unwrap();
    assert!(journal.finished().unwrap().is_empty());
}
