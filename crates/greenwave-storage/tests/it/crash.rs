//! Crash tests: two processes write to one store and are killed with SIGKILL. Everything they
//! reported as flushed must survive, and everything found must be correct.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use bytes::Bytes;
use greenwave_storage::{
    AttemptOutcome, Attempts, BlobId, Error, NewAttempt, SegmentColdTier, SegmentOptions, Store, StoreOptions,
};

use crate::{contents, rounds};

/// Environment variables that pass the directory and the writer's number to a child process, which
/// runs this test binary.
const DIR: &str = "GREENWAVE_STORAGE_CRASH_DIR";
const WRITER: &str = "GREENWAVE_STORAGE_CRASH_WRITER";
/// Environment variable that sets the number of rounds, for long runs.
const ROUNDS: &str = "GREENWAVE_CRASH_ROUNDS";
/// Number of names that each writer writes in turn.
const NAMES: u64 = 5;

/// Opens a store small enough to spill, rotate and compact constantly.
fn open(dir: &Path) -> Store {
    let options = SegmentOptions { segment_bytes_max: 32 << 10, ..SegmentOptions::default() };
    let memory = StoreOptions { memory_bytes_max: 64 << 10, ..StoreOptions::default() };
    Store::open(memory, Arc::new(SegmentColdTier::open(dir, options).unwrap())).unwrap()
}

/// Returns the contents of a version. Every tenth version is new, and the following nine differ
/// from it slightly.
fn version(writer: u64, number: u64) -> Bytes {
    let mut bytes =
        contents((writer << 32) | (number / 10), 1000 + (number / 10 % 7) as usize * 900).to_vec();
    bytes.extend(number.to_le_bytes());
    bytes.into()
}

fn number_of(bytes: &[u8]) -> u64 {
    u64::from_le_bytes(*bytes.last_chunk().unwrap())
}

/// Runs in a child process: writes until killed, and reports flushes.
#[test]
#[ignore = "runs as a child process of the next test"]
fn child() {
    let (Ok(dir), Ok(writer)) = (std::env::var(DIR), std::env::var(WRITER)) else { return };
    let writer: u64 = writer.parse().unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let store = open(Path::new(&dir));
        let attempts = Attempts::new(store.clone(), &format!("attempts {writer}"));
        let mut next = 0;
        for name in 0..NAMES {
            let found = store.get(&format!("{writer}/{name}")).await.unwrap();
            next = next.max(found.map_or(0, |bytes| number_of(&bytes) + 1));
        }
        let mut out = std::io::stdout();
        let mut attempt = attempts.list("feature").await.unwrap().len() as u32;
        for number in next.. {
            store.put(&format!("{writer}/{}", number % NAMES), version(writer, number)).await.unwrap();
            if number % 4 == 0 {
                let files = [("lib.rs".to_owned(), version(writer, number))].into();
                let draft = NewAttempt {
                    files,
                    outcome: AttemptOutcome::Failed,
                    note: number.to_string(),
                    ..NewAttempt::default()
                };
                attempt = attempts.record("feature", draft).await.unwrap().number;
            }
            if number % 3 == 0 {
                store.flush().await.unwrap();
                writeln!(out, "\nflushed {number} {attempt}").unwrap();
                out.flush().unwrap();
            }
        }
    });
}

fn spawn(dir: &Path, writer: u64) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "crash::child", "--ignored", "--nocapture"])
        .env(DIR, dir)
        .env(WRITER, writer.to_string())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

/// Flushed state as reported by a writer: all versions and all attempts up to these numbers.
#[derive(Debug, Clone, Copy)]
struct Flushed {
    number: u64,
    attempt: u32,
}

/// Returns the last state among the first `reports` reports of a writer.
fn reported(child: &mut Child, reports: u64) -> Option<Flushed> {
    let lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
    let flushed = lines.filter_map(|line| {
        let (number, attempt) = line.strip_prefix("flushed ")?.split_once(' ')?;
        Some(Flushed { number: number.parse().ok()?, attempt: attempt.parse().ok()? })
    });
    flushed.take(reports as usize).last()
}

#[test]
fn flushed_contents_survive_sigkill_and_all_contents_are_correct() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let mut dir = tempfile::tempdir().unwrap();
    let mut last = [None; 2];
    for round in 0..u64::from(rounds(ROUNDS, 8)) {
        // Changes the store now and then, because every round reads all of it.
        if round % 20 == 19 {
            (dir, last) = (tempfile::tempdir().unwrap(), [None; 2]);
        }
        let mut children = [0, 1].map(|writer| spawn(dir.path(), writer));
        for (writer, last) in last.iter_mut().enumerate() {
            let flushed = reported(&mut children[writer], 1 + round * 5 % 11 + writer as u64);
            *last = flushed.or(*last);
        }
        for child in &mut children {
            child.kill().unwrap();
            child.wait().unwrap();
        }
        runtime.block_on(check(dir.path(), last, round));
    }
}

async fn check(dir: &Path, last: [Option<Flushed>; 2], round: u64) {
    let store = open(dir);
    for (writer, last) in (0..).zip(last) {
        let Flushed { number: last, attempt: last_attempt } = last.expect("each reports at least once");
        for name in 0..NAMES {
            // The newest flushed number of this name.
            let at_least = (last.saturating_sub(NAMES - 1)..=last).find(|number| number % NAMES == name);
            let Some(found) = store.get(&format!("{writer}/{name}")).await.unwrap() else {
                assert_eq!(at_least, None, "{writer}/{name} in round {round}");
                continue;
            };
            assert_eq!(found, version(writer, number_of(&found)), "{writer}/{name} in round {round}");
            assert!(Some(number_of(&found)) >= at_least, "{writer}/{name} in round {round}");
            assert_eq!(store.resolve(&format!("{writer}/{name}")).await.unwrap(), Some(BlobId::of(&found)));
        }
        let attempts = Attempts::new(store.clone(), &format!("attempts {writer}"));
        let recorded = attempts.list("feature").await.unwrap();
        // Without gaps, because each attempt is written before the next.
        assert!(recorded.iter().map(|attempt| attempt.number).eq(1..=recorded.len() as u32));
        assert!(recorded.len() as u32 >= last_attempt, "{} attempts of {last_attempt}", recorded.len());
        for attempt in recorded {
            match attempts.files(&attempt).await {
                Ok(files) => assert_eq!(files["lib.rs"], version(writer, attempt.note.parse().unwrap())),
                Err(error) => {
                    let is_flushed = attempt.number <= last_attempt;
                    assert!(
                        !is_flushed && matches!(error, Error::Missing { .. }),
                        "{error} in round {round}"
                    );
                }
            }
        }
    }
    assert_eq!(store.stats().corrupt_blobs, 0);
}
