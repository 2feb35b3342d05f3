//! Kills a writing process with SIGKILL: everything that it reported as flushed must exist, and
//! every value must be correct.

use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};

use greenwave_segment::{Log, Options};

use crate::{noise, rounds, small};

/// Environment variable with the directory for the child process, which runs this test binary.
const CHILD_DIR: &str = "GREENWAVE_SEGMENT_CRASH_DIR";
/// Environment variable with the number of rounds, for long runs.
const ROUNDS: &str = "GREENWAVE_CRASH_ROUNDS";

/// Returns a value that differs from the ones before if `number` is a multiple of seven, and is
/// similar to the previous one otherwise.
fn value(number: u64) -> Vec<u8> {
    let mut value = noise(number / 7, 300 + (number / 7 % 700) as usize);
    value.extend((0..number % 7).flat_map(|change| noise(number + change, 5)));
    value
}

/// Returns how many numbers the log contains; they have no gaps.
fn numbers(log: &Log) -> u64 {
    log.keys_with_prefix(b"").iter().filter(|key| key.len() == 8).count() as u64
}

/// The child process: writes until it is killed, and reports each flushed number.
#[test]
#[ignore = "the child of the test below"]
fn child() {
    let Ok(dir) = std::env::var(CHILD_DIR) else { return };
    let log = Log::open(dir, small()).unwrap();
    let start = numbers(&log);
    let mut out = std::io::stdout();
    for number in start.. {
        log.put_delta(&number.to_le_bytes(), &value(number), &number.wrapping_sub(1).to_le_bytes()).unwrap();
        if number % 7 == 0 {
            log.flush().unwrap();
            writeln!(out, "\nflushed {number}").unwrap();
            out.flush().unwrap();
        }
        if number % 61 == 0 {
            // For a while, other values are deltas from this one.
            log.put_delta(b"base", &value(number), &number.to_le_bytes()).unwrap();
            log.put_delta(b"delta", &value(number + 1), b"base").unwrap();
            log.remove(b"base").unwrap();
            log.compact().unwrap();
        }
    }
}

#[test]
fn sigkill_loses_nothing_flushed() {
    let rounds = rounds(ROUNDS, 12);
    let mut dir = tempfile::tempdir().unwrap();
    let mut flushed = None;
    for round in 0..u64::from(rounds) {
        // A new log from time to time, since every round reads the whole log.
        if round % 20 == 19 {
            (dir, flushed) = (tempfile::tempdir().unwrap(), None);
        }
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "crash::child", "--ignored", "--nocapture"])
            .env(CHILD_DIR, dir.path())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        // The kill comes after some reports, at an arbitrary point of the child.
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let reports =
            lines.map_while(Result::ok).filter_map(|line| line.strip_prefix("flushed ")?.parse().ok());
        flushed = reports.take(1 + (round * 5 % 17) as usize).last().or(flushed);
        child.kill().unwrap();
        child.wait().unwrap();

        let log = Log::open(dir.path(), Options::default()).unwrap();
        let last: u64 = flushed.expect("the child reports at least once");
        for number in 0..=last {
            let found = log.get(&number.to_le_bytes()).unwrap();
            assert_eq!(found.as_deref(), Some(&value(number)[..]), "number {number} in round {round}");
        }
        for number in last + 1..numbers(&log) {
            let found = log.get(&number.to_le_bytes()).unwrap();
            assert_eq!(found.as_deref(), Some(&value(number)[..]), "number {number} in round {round}");
        }
        assert_eq!(log.stats().bad_records, 0);
    }
}
