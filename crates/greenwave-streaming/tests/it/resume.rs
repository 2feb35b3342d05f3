//! Tests that responses resume when their source breaks, with every strategy and at every byte.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::{FutureExt, StreamExt, stream};
use greenwave_streaming::conformance::{BreaksOnce, UnitRecord, read_response, units};
use greenwave_streaming::{
    BoxError, Budget, Delivery, Error, Files, Journal, Json, Lines, OpenError, Opened, Position, Resume,
    ResumeOptions, ResumeStrategy, Retry, Source, Splitter, Sse, Unit, UnitId,
};
use tokio::time::Instant;

/// Length of the response in bytes, for long runs. It breaks at each of them.
const BYTES: &str = "GREENWAVE_BREAK_BYTES";

/// A text with predefined units and a resume strategy.
#[derive(Debug)]
struct Text {
    text: String,
    /// End of each unit, including its terminator.
    ends: Vec<usize>,
    strategy: ResumeStrategy,
    /// Number of units repeated at an overlap.
    repeats: usize,
}

impl Text {
    fn of(pieces: &[String], strategy: ResumeStrategy) -> Self {
        let ends = pieces.iter().scan(0, |end, piece| {
            *end += piece.len();
            Some(*end)
        });
        Self { text: pieces.concat(), ends: ends.collect(), strategy, repeats: 0 }
    }

    fn start(&self, unit: usize) -> usize {
        if unit == 0 { 0 } else { self.ends[unit - 1] }
    }

    fn chunks_from(&self, unit: usize) -> Vec<Result<Bytes, BoxError>> {
        let text = &self.text.as_bytes()[self.start(unit)..];
        text.chunks(7).map(|chunk| Ok(Bytes::copy_from_slice(chunk))).collect()
    }
}

#[async_trait]
impl Source for Text {
    async fn open(&self, at: &Position) -> Result<Opened, OpenError> {
        let delivered = at.sequence as usize;
        let from = match self.strategy {
            _ if at.is_start() => 0,
            ResumeStrategy::Next => delivered,
            // The cursor is the number of a unit.
            ResumeStrategy::Cursor => {
                let cursor = at.cursor.as_ref().expect("the cursor strategy is used with a cursor only");
                std::str::from_utf8(cursor)
                    .ok()
                    .and_then(|id| id.parse::<usize>().ok())
                    .expect("a cursor is a number")
                    + 1
            }
            ResumeStrategy::Overlap { .. } => delivered.saturating_sub(self.repeats),
            _ => 0,
        };
        let strategy = if at.is_start() { ResumeStrategy::Start } else { self.strategy };
        Ok(Opened::new(stream::iter(self.chunks_from(from)), strategy))
    }
}

fn lines(count: usize) -> Vec<String> {
    let mut pieces: Vec<_> = (0..count).map(|i| format!("line {i} ä€😀\n")).collect();
    pieces.push("end\n".to_owned());
    pieces
}

fn is_end(unit: &Unit<'_>) -> bool {
    unit.content().ends_with(b"end") || unit.content().trim_ascii_end().ends_with(b"\"end\"")
}

fn quick() -> ResumeOptions {
    let retry = Retry { delay_min: Duration::from_millis(1), ..ResumeOptions::default().retry };
    ResumeOptions { retry, ..ResumeOptions::default() }
}

/// Breaks at every byte in turn and checks that every unit is delivered once.
#[track_caller]
fn check_every_byte<S: Splitter>(
    source: &Arc<Text>,
    splitter: impl Fn(&Position) -> S + Copy + Send + 'static,
    superseded: impl Fn(usize) -> bool,
) {
    let (expected, error) = units(splitter(&Position::default()), [source.text.as_bytes()]);
    assert!(error.is_none());
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .expect("a runtime can be made");
    for bytes in 0..source.text.len() {
        let broken = Arc::new(BreaksOnce::new(source.clone(), bytes));
        let response = Resume::new(broken.clone(), 7, splitter, is_end).with_options(quick());
        let (found, stats, error) = runtime.block_on(read_response(response));
        assert!(error.is_none(), "{error:?} after {bytes} bytes");
        assert_eq!(found, expected, "broken after {bytes} bytes");
        assert!(broken.has_broken());
        assert_eq!(stats.opened, 2, "{stats:?} after {bytes} bytes");
        assert_eq!(stats.superseded > 0, superseded(bytes), "{stats:?} after {bytes} bytes");
    }
}

fn bytes_of_run() -> usize {
    std::env::var(BYTES).ok().and_then(|bytes| bytes.parse().ok()).unwrap_or(300)
}

#[test]
fn a_break_at_any_byte_resumes_at_the_next_unit() {
    let source = Arc::new(Text::of(&lines(bytes_of_run() / 18), ResumeStrategy::Next));
    check_every_byte(&source, |_| Lines::default(), |_| false);
}

#[test]
fn a_break_at_any_byte_resumes_after_a_cursor() {
    // Every third event has an id. The others are repeated and recognized by content.
    let pieces: Vec<_> = (0..bytes_of_run() / 25)
        .map(|i| {
            if i % 3 == 0 { format!("id: {i}\ndata: event {i}\n\n") } else { format!("data: event {i}\n\n") }
        })
        .chain(["data: end\n\n".to_owned()])
        .collect();
    let source = Arc::new(Text::of(&pieces, ResumeStrategy::Cursor));
    let sse = |at: &Position| Sse::default().after(at.cursor.as_deref().unwrap_or_default());
    check_every_byte(&source, sse, |_| false);
}

#[test]
fn a_break_at_any_byte_resumes_with_overlapping_units() {
    for repeats in 0..4 {
        let text = Text {
            repeats,
            ..Text::of(&lines(bytes_of_run() / 18), ResumeStrategy::Overlap { units_max: 5 })
        };
        check_every_byte(&Arc::new(text), |_| Lines::default(), |_| false);
    }
}

#[test]
fn a_break_at_any_byte_restarts_without_another_strategy() {
    let source = Arc::new(Text::of(&lines(bytes_of_run() / 18), ResumeStrategy::Start));
    let first = source.ends[0];
    check_every_byte(&source, |_| Lines::default(), |bytes| bytes >= first);

    let values: Vec<_> =
        (0..10).map(|i| format!("{{\"value\":{i}}}")).chain(["\"end\"".to_owned()]).collect();
    let source = Arc::new(Text::of(&values, ResumeStrategy::Next));
    check_every_byte(&source, |_| Json::default(), |_| false);
    let files: Vec<_> = (0..9).map(|i| format!("```rust f{i}.rs\nfn f{i}() {{}}\n```\n")).collect();
    let source =
        Arc::new(Text::of(&[files, vec!["```\n\"end\"\n```\n".to_owned()]].concat(), ResumeStrategy::Next));
    check_every_byte(&source, |_| Files::default(), |_| false);
}

/// The strategy and chunks of an attempt.
type Attempt = (ResumeStrategy, Vec<Result<&'static str, &'static str>>);

/// A source with a predefined sequence of attempts.
#[derive(Debug)]
struct Script(Mutex<VecDeque<Attempt>>);

impl Script {
    fn new(attempts: Vec<Attempt>) -> Arc<Self> {
        Arc::new(Self(Mutex::new(attempts.into())))
    }
}

#[async_trait]
impl Source for Script {
    async fn open(&self, _at: &Position) -> Result<Opened, OpenError> {
        let next = self.0.lock().expect("no thread panics while it holds the lock").pop_front();
        let Some((strategy, chunks)) = next else {
            return Err(OpenError::Permanent("no more attempts".into()));
        };
        let chunks = chunks.into_iter().map(|chunk| chunk.map(Bytes::from).map_err(BoxError::from));
        Ok(Opened::new(stream::iter(chunks.collect::<Vec<_>>()), strategy))
    }
}

/// Formats deliveries as text; units as `attempt:sequence:content`.
async fn deliveries<S: Splitter>(mut response: Resume<S>) -> Vec<String> {
    let mut deliveries = Vec::new();
    while let Some(delivery) = response.next().await {
        match delivery {
            Ok(Delivery::Units { attempt, batch }) => deliveries.extend(batch.iter().map(|unit| {
                format!("{attempt}:{}:{}", unit.sequence(), String::from_utf8_lossy(&unit.content()))
            })),
            Ok(Delivery::Superseded { attempt }) => deliveries.push(format!("superseded by {attempt}")),
            Err(error) => deliveries.push(format!("{error}")),
            Ok(_) => unreachable!("no other delivery exists"),
        }
    }
    deliveries
}

fn response(attempts: Vec<Attempt>) -> Resume<Lines> {
    Resume::new(Script::new(attempts), 0, |_| Lines::default(), is_end).with_options(quick())
}

const OVERLAP: ResumeStrategy = ResumeStrategy::Overlap { units_max: 4 };

#[tokio::test(start_paused = true)]
async fn an_ambiguous_overlap_restarts() {
    // One or two of the equal lines may be repeats.
    let attempts = vec![
        (ResumeStrategy::Start, vec![Ok("a\nb\nb\n"), Err("gone")]),
        (OVERLAP, vec![Ok("b\nb\nc\nend\n")]),
        (ResumeStrategy::Start, vec![Ok("a\nb\nb\nc\nend\n")]),
    ];
    assert_eq!(
        deliveries(response(attempts)).await,
        ["0:0:a", "0:1:b", "0:2:b", "superseded by 1", "1:0:a", "1:1:b", "1:2:b", "1:3:c", "1:4:end"]
    );
}

#[tokio::test(start_paused = true)]
async fn an_overlap_is_decided_as_soon_as_it_is_certain() {
    let attempts = vec![
        (ResumeStrategy::Start, vec![Ok("a\nb\nc\n"), Err("gone")]),
        // The line after `b` decides whether `b` is a repeat: `c`, or a new line.
        (OVERLAP, vec![Ok("b\n"), Err("gone again")]),
        (OVERLAP, vec![Ok("b\nc\nd\n"), Ok("end\n")]),
    ];
    let mut response = response(attempts);
    let first = response.next().await.unwrap().unwrap();
    assert!(matches!(first, Delivery::Units { batch, .. } if batch.len() == 3));
    assert_eq!(deliveries(response).await, ["0:3:d", "0:4:end"]);
}

#[tokio::test(start_paused = true)]
async fn a_response_that_differs_restarts() {
    let attempts = vec![
        (ResumeStrategy::Start, vec![Ok("id:1\ndata:a\n\ndata:b\n\n"), Err("gone")]),
        (ResumeStrategy::Cursor, vec![Ok("data:x\n\ndata:end\n\n")]),
        (ResumeStrategy::Start, vec![Ok("data:c\n\ndata:end\n\n")]),
    ];
    let response = Resume::new(Script::new(attempts), 0, |_| Sse::default(), is_end).with_options(quick());
    assert_eq!(deliveries(response).await, ["0:0:a", "0:1:b", "superseded by 1", "1:0:c", "1:1:end"]);
}

#[tokio::test(start_paused = true)]
async fn an_end_without_the_last_unit_is_retried() {
    let attempts = vec![
        (ResumeStrategy::Start, vec![Ok("a\nunfin")]),
        (ResumeStrategy::Next, vec![Ok("unfinished\nend\n")]),
    ];
    let mut response = response(attempts);
    assert!(response.next().await.unwrap().is_ok());
    assert_eq!(response.next_id(), UnitId { turn: 0, attempt: 0, sequence: 1 });
    assert_eq!(deliveries(response).await, ["0:1:unfinished", "0:2:end"]);
}

#[tokio::test(start_paused = true)]
async fn attempts_without_a_new_unit_are_limited() {
    let started = Instant::now();
    let attempts = (0..9).map(|_| (ResumeStrategy::Next, vec![Err("down")])).collect();
    let mut response = response(attempts);
    let error = response.next().await.unwrap().unwrap_err();
    assert!(matches!(error, Error::RetriesExhausted { attempts: 5, .. }), "{error:?}");
    assert!(response.next().await.is_none(), "no item follows an error");
    // Up to 1 + 2 + 4 + 8 ms, each rounded up to the timer's resolution.
    let waited = started.elapsed().as_millis();
    assert!(waited <= 19, "{waited}");
}

#[tokio::test(start_paused = true)]
async fn permanent_errors_are_not_retried() {
    assert_eq!(deliveries(response(vec![])).await, ["cannot open the source"]);
    let attempts = vec![(ResumeStrategy::Start, vec![Ok("1 ]")])];
    let response = Resume::new(Script::new(attempts), 0, |_| Json::default(), is_end);
    assert_eq!(deliveries(response).await, ["0:0:1", "malformed at byte 2: expected a JSON value"]);
}

#[tokio::test(start_paused = true)]
async fn a_requested_retry_delay_is_respected() {
    let attempts = vec![
        (ResumeStrategy::Start, vec![Ok("retry: 60000\ndata: a\n\n"), Err("gone")]),
        (ResumeStrategy::Next, vec![Ok("data: end\n\n")]),
    ];
    let started = Instant::now();
    let response = Resume::new(Script::new(attempts), 0, |_| Sse::default(), is_end)
        .with_options(quick())
        .with_retry_hint(Sse::retry);
    assert_eq!(deliveries(response).await, ["0:0:a", "0:1:end"]);
    assert_eq!(started.elapsed().as_secs(), 60);
}

#[tokio::test(start_paused = true)]
async fn a_cancelled_reader_loses_nothing() {
    let source = Arc::new(BreaksOnce::new(Arc::new(Text::of(&lines(20), ResumeStrategy::Next)), 111));
    let mut response = Resume::new(source, 0, |_| Lines::default(), is_end).with_options(quick());
    let mut found = Vec::new();
    loop {
        // The future is dropped at its first wait, each time.
        match response.next().now_or_never() {
            Some(None) => break,
            Some(Some(delivery)) => {
                let Delivery::Units { batch, .. } = delivery.unwrap() else {
                    panic!("the response does not restart")
                };
                found.extend(batch.iter().map(UnitRecord::from));
            }
            None => tokio::time::advance(Duration::from_millis(1)).await,
        }
    }
    assert_eq!(found, units(Lines::default(), [lines(20).concat().as_bytes()]).0);
}

#[tokio::test(start_paused = true)]
async fn a_journaled_response_resumes_in_a_new_process() {
    let dir = tempfile::tempdir().unwrap();
    let open = || Arc::new(Journal::open(dir.path().join("journal")).unwrap());
    let source = || Arc::new(Text::of(&lines(9), ResumeStrategy::Next));
    let read_some = |units: usize| {
        let response = Resume::new(source(), 3, |_| Lines::default(), is_end).with_journal(open());
        async move {
            let taken: Vec<_> = response.take(units).collect().await;
            taken.into_iter().map(Result::unwrap).collect::<Vec<_>>()
        }
    };
    let first = read_some(2).await;
    let Some(Delivery::Units { batch, .. }) = first.last() else { panic!("units come first") };
    let last = batch.iter().last().unwrap().sequence();
    // A reader that does not call `after` receives everything again, from the journal.
    let response = Resume::new(source(), 3, |_| Lines::default(), is_end).with_journal(open());
    let (found, stats, error) = read_response(response).await;
    assert!(error.is_none());
    assert_eq!((found.len(), stats.replayed), (10, last + 1));
    // The journal is complete now, so the source is not opened.
    let response = Resume::new(Script::new(vec![]), 3, |_| Lines::default(), is_end)
        .with_journal(open())
        .after(UnitId { turn: 3, attempt: 0, sequence: 7 });
    assert_eq!(deliveries(response).await, ["0:8:line 8 ä€😀", "0:9:end"]);
    open().remove(3).unwrap();
    let response = Resume::new(Script::new(vec![]), 3, |_| Lines::default(), is_end).with_journal(open());
    assert_eq!(deliveries(response).await, ["cannot open the source"]);
}

#[tokio::test(start_paused = true)]
async fn a_journal_records_restarts() {
    let dir = tempfile::tempdir().unwrap();
    let journal = Arc::new(Journal::open(dir.path().join("journal")).unwrap());
    let attempts = vec![
        (ResumeStrategy::Start, vec![Ok("a\nb\n"), Err("gone")]),
        (ResumeStrategy::Start, vec![Ok("A\n"), Err("gone")]),
    ];
    let first_deliveries = deliveries(response(attempts).with_journal(journal.clone())).await;
    assert_eq!(first_deliveries, ["0:0:a", "0:1:b", "superseded by 1", "1:0:A", "cannot open the source"]);
    // The reader has not seen the notice, so it is repeated.
    let attempts = vec![(ResumeStrategy::Next, vec![Ok("B\nend\n")])];
    let response =
        response(attempts).with_journal(journal).after(UnitId { turn: 0, attempt: 0, sequence: 1 });
    assert_eq!(deliveries(response).await, ["superseded by 1", "1:0:A", "1:1:B", "1:2:end"]);
}

#[tokio::test(start_paused = true)]
async fn the_rest_of_a_batch_is_charged_while_it_is_alive() {
    let attempts = vec![
        (ResumeStrategy::Start, vec![Ok("id:1\ndata:a\n\ndata:b\n\n"), Err("gone")]),
        (ResumeStrategy::Cursor, vec![Ok("data:b\n\ndata:c\n\ndata:end\n\n")]),
    ];
    let budget = Budget::new(1 << 10);
    let options = ResumeOptions { budget: Some(budget.clone()), ..quick() };
    let mut response =
        Resume::new(Script::new(attempts), 0, |_| Sse::default(), is_end).with_options(options);
    drop(response.next().await.unwrap().unwrap());
    assert_eq!(budget.used(), 0);
    let Delivery::Units { batch, .. } = response.next().await.unwrap().unwrap() else {
        panic!("units come next")
    };
    assert_eq!((batch.len(), batch.first_sequence(), budget.used()), (2, 2, 26));
    let clone = batch.clone();
    drop(batch);
    assert_eq!(budget.used(), 26, "a clone keeps it");
    drop(clone);
    assert_eq!(budget.used(), 0);
    assert!(response.next().await.is_none());
    assert_eq!((response.stats().repeated, response.stats().units), (1, 4));
}

#[tokio::test(start_paused = true)]
async fn splicing_does_not_wait_for_its_own_batches() {
    let attempts = vec![
        (ResumeStrategy::Start, vec![Ok("a\nb\nb\n"), Err("gone")]),
        (OVERLAP, vec![Ok("b\n"), Ok("b\n"), Ok("c\n"), Ok("d\n"), Ok("end\n")]),
        (ResumeStrategy::Start, vec![Ok("a\nend\n")]),
    ];
    let options = ResumeOptions { budget: Some(Budget::new(1)), ..quick() };
    let response = response(attempts).with_options(options);
    assert_eq!(
        deliveries(response).await,
        ["0:0:a", "0:1:b", "0:2:b", "superseded by 1", "1:0:a", "1:1:end"],
        "one byte of budget is enough"
    );
    let attempts = vec![
        (ResumeStrategy::Start, vec![Ok("a\nb\nc\n"), Err("gone")]),
        (OVERLAP, vec![Ok("b\n"), Ok("c\n"), Ok("d\n"), Ok("end\n")]),
    ];
    let budget = Budget::new(1);
    let options = ResumeOptions { budget: Some(budget.clone()), ..quick() };
    assert_eq!(deliveries(self::response(attempts).with_options(options)).await.last().unwrap(), "0:4:end");
    assert_eq!((budget.used(), budget.peak()), (0, 6), "units after the splice are charged");
}

/// Returns the delays between attempts of a response whose source is never available.
async fn delays(retry: Retry) -> Vec<Duration> {
    #[derive(Debug, Default)]
    struct Gone(Mutex<Vec<Instant>>);

    #[async_trait]
    impl Source for Gone {
        async fn open(&self, _: &Position) -> Result<Opened, OpenError> {
            self.0.lock().expect("no thread panics while it holds the lock").push(Instant::now());
            Err(OpenError::Transient("gone".into()))
        }
    }

    let source = Arc::new(Gone::default());
    let mut response = Resume::new(source.clone(), 1, |_| Lines::default(), is_end)
        .with_options(ResumeOptions { retry, ..ResumeOptions::default() });
    assert!(matches!(response.next().await, Some(Err(Error::RetriesExhausted { attempts: 5, .. }))));
    let opened = source.0.lock().expect("no thread panics while it holds the lock");
    opened.windows(2).map(|pair| pair[1] - pair[0]).collect()
}

#[tokio::test(start_paused = true)]
async fn retry_delays_differ_between_readers() {
    let retry = ResumeOptions::default().retry;
    assert_ne!(delays(retry.clone()).await, delays(retry.clone()).await);
    let seeded = Retry { seed: Some(1), ..retry };
    assert_eq!(delays(seeded.clone()).await, delays(seeded).await);
}

#[tokio::test]
async fn a_callback_that_panics_ends_a_response_with_an_error() {
    let response = || {
        let text = Arc::new(Text::of(&["a\n".to_owned(), "b\n".to_owned()], ResumeStrategy::Next));
        Resume::new(text, 0, |_: &Position| Lines::default(), |unit| unit.bytes() == "b")
    };
    for mut response in [
        response().with_cursor(|_| panic!("boom")),
        Resume::new(
            Arc::new(Text::of(&["a\n".to_owned()], ResumeStrategy::Next)),
            0,
            |_: &Position| -> Lines { panic!("boom") },
            |_| false,
        ),
    ] {
        let Some(Err(Error::Source { source, .. })) = response.next().await else { panic!("no error") };
        assert_eq!(source.to_string(), "a callback panicked: boom");
        assert!(response.next().await.is_none());
    }
}

#[tokio::test]
async fn a_response_can_resume_after_any_unit() {
    for sequence in [0, 1, u64::MAX - 1, u64::MAX] {
        let after = UnitId { turn: 0, attempt: u32::MAX, sequence };
        let text = Text::of(&["a\n".to_owned(), "b\n".to_owned()], ResumeStrategy::Next);
        let mut response =
            Resume::new(Arc::new(text), 0, |_: &Position| Lines::default(), |unit| unit.bytes() == "b")
                .after(after);
        let mut units = 0;
        while let Some(delivery) = response.next().await {
            let Delivery::Units { batch, .. } = delivery.unwrap() else { panic!("restarted") };
            units += batch.len();
        }
        assert_eq!(units, if sequence == 0 { 1 } else { 0 }, "{sequence}");
    }
}
