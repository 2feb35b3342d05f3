//! Kills a real process with SIGKILL while it reads a response, and checks that its successor
//! resumes and every unit is processed once.

use std::fs::OpenOptions;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::stream;
use greenwave_streaming::{
    BoxError, Delivery, Journal, OpenError, Opened, Position, Resume, ResumeOptions, ResumeStrategy, Retry,
    Source, Sse, Unit, UnitId,
};

/// Passes the directory to the child, which is this test binary.
const CHILD_DIR: &str = "GREENWAVE_STREAMING_CRASH_DIR";
/// Passes the number of units of the response to the child.
const CHILD_UNITS: &str = "GREENWAVE_STREAMING_CRASH_UNITS";
/// Number of rounds, for long runs.
const ROUNDS: &str = "GREENWAVE_STREAMING_CRASH_ROUNDS";
/// The log of processed units, one line each.
const DONE: &str = "done";
const JOURNAL: &str = "journal";

/// Events over connections that sometimes break. Every fourth event has an id.
#[derive(Debug)]
struct Events {
    units: u64,
}

fn event(number: u64) -> String {
    let id = if number.is_multiple_of(4) { format!("id: {number}\n") } else { String::new() };
    format!("{id}data: unit {number} {}\n\n", "x".repeat((number * 37 % 190) as usize))
}

fn number(cursor: &[u8]) -> u64 {
    std::str::from_utf8(cursor).ok().and_then(|id| id.parse().ok()).expect("a cursor is the id of an event")
}

#[async_trait]
impl Source for Events {
    async fn open(&self, at: &Position) -> Result<Opened, OpenError> {
        let cursor = at.cursor.as_ref().map(|cursor| number(cursor));
        let from = cursor.map_or(0, |cursor| cursor + 1);
        // Each connection lasts for a few hundred units.
        let to = self.units.min(from + 150 + from * 7 % 100);
        let mut text: String = (from..to).map(event).collect();
        if to == self.units {
            text.push_str("data: [DONE]\n\n");
        }
        let chunks: Vec<Result<Bytes, BoxError>> =
            text.as_bytes().chunks(300).map(|chunk| Ok(Bytes::copy_from_slice(chunk))).collect();
        Ok(Opened::new(stream::iter(chunks), ResumeStrategy::Cursor))
    }
}

fn sse(at: &Position) -> Sse {
    Sse::default().after(at.cursor.as_deref().unwrap_or_default())
}

fn is_done(unit: &Unit<'_>) -> bool {
    *unit.content() == b"[DONE]"[..]
}

/// Returns the processed units. A line torn by the kill does not count.
fn done(dir: &Path) -> Vec<String> {
    let text = std::fs::read_to_string(dir.join(DONE)).unwrap_or_default();
    let whole = text.rfind('\n').map_or("", |end| &text[..end]);
    whole.lines().map(str::to_owned).collect()
}

/// The child process: reads the response until it is killed, and reports.
#[test]
#[ignore = "the child of the test below"]
fn child() {
    let (Ok(dir), Ok(units)) = (std::env::var(CHILD_DIR), std::env::var(CHILD_UNITS)) else { return };
    let (dir, units) = (Path::new(&dir), units.parse().unwrap());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    runtime.block_on(async {
        let had = done(dir);
        let mut file =
            OpenOptions::new().create(true).truncate(false).write(true).open(dir.join(DONE)).unwrap();
        file.set_len(had.iter().map(|line| line.len() as u64 + 1).sum()).unwrap();
        std::io::Seek::seek(&mut file, std::io::SeekFrom::End(0)).unwrap();
        let retry =
            Retry { delay_min: std::time::Duration::from_micros(1), ..ResumeOptions::default().retry };
        let options = ResumeOptions { retry, attempts_total_max: u32::MAX, ..ResumeOptions::default() };
        let mut response = Resume::new(Arc::new(Events { units }), 1, sse, is_done)
            .with_options(options)
            .with_journal(Arc::new(Journal::open(dir.join(JOURNAL)).unwrap()));
        if !had.is_empty() {
            response = response.after(UnitId { turn: 1, attempt: 0, sequence: had.len() as u64 - 1 });
        }
        while let Some(delivery) = response.next().await {
            let Delivery::Units { batch, .. } = delivery.unwrap() else {
                panic!("the response does not restart")
            };
            for unit in batch.iter() {
                // Processing a unit and recording that fact are one write.
                file.write_all(format!("{} {}\n", unit.sequence(), unit.text().unwrap()).as_bytes()).unwrap();
            }
            println!("\nreached {}", batch.iter().last().unwrap().sequence());
        }
        println!("\nfinished 0");
    });
}

#[test]
fn every_unit_is_processed_once_despite_sigkill() {
    let rounds = std::env::var(ROUNDS).ok().and_then(|n| n.parse().ok()).unwrap_or(10_u64);
    let units = rounds * 400;
    let dir = tempfile::tempdir().unwrap();
    let mut kills = 0;
    let is_finished = (0..rounds * 4).any(|round| {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "crash::child", "--ignored", "--nocapture"])
            .env(CHILD_DIR, dir.path())
            .env(CHILD_UNITS, units.to_string())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        // The kill follows some reports, wherever the child is by then.
        let lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
        let reports = lines.filter(|line| line.starts_with("reached ") || line.starts_with("finished "));
        let mut reports = reports.take(1 + (round * 41 % 160) as usize);
        let is_finished = reports.any(|line| line.starts_with("finished "));
        kills += u64::from(!is_finished);
        child.kill().unwrap();
        child.wait().unwrap();
        is_finished
    });
    assert!(is_finished && kills > rounds / 4, "{kills} kills before the end");
    let expected = (0..units).map(|number| {
        let text = event(number);
        let data = text.lines().find_map(|line| line.strip_prefix("data: ")).unwrap();
        format!("{number} {data}")
    });
    let expected: Vec<_> = expected.chain([format!("{units} [DONE]")]).collect();
    assert!(done(dir.path()) == expected, "each unit once and in order, after {kills} kills");
}
