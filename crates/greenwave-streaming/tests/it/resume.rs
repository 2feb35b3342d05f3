//! Answers that go on when their source breaks: every seam, at every byte.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::{FutureExt, StreamExt, stream};
use greenwave_streaming::conformance::{BreaksOnce, Seen, read, units};
use greenwave_streaming::{
    BoxError, Budget, Delivery, Error, Files, Journal, Json, Lines, OpenError, Opened, Position, Resume,
    ResumeOptions, ResumeStrategy, Retry, Source, Splitter, Sse, Unit, UnitId,
};
use tokio::time::Instant;

/// How far the source of the long run goes, in bytes; each of them is one where it breaks.
const BYTES: &str = "GREENWAVE_BREAK_BYTES";

/// A text that is cut into units at known places, and how it goes on when asked to.
#[derive(Debug)]
struct Text {
    text: String,
    /// Where each unit ends, with what ends it.
    ends: Vec<usize>,
    strategy: ResumeStrategy,
    /// How many units are repeated at an overlap, whatever is asked.
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
        let handed_on = at.sequence as usize;
        let from = match self.strategy {
            _ if at.is_start() => 0,
            ResumeStrategy::Next => handed_on,
            // The cursor is the number of a unit.
            ResumeStrategy::Cursor => {
                let cursor = at.cursor.as_ref().expect("a cursor is asked for only where there is one");
                std::str::from_utf8(cursor)
                    .ok()
                    .and_then(|id| id.parse::<usize>().ok())
                    .expect("a cursor is a number")
                    + 1
            }
            ResumeStrategy::Overlap { .. } => handed_on.saturating_sub(self.repeats),
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

/// Breaks at every byte in turn, and each time the reader has every unit once.
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
        let answer = Resume::new(broken.clone(), 7, splitter, is_end).with_options(quick());
        let (found, stats, error) = runtime.block_on(read(answer));
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
fn breaks_at_every_byte_go_on_at_the_next_unit() {
    let source = Arc::new(Text::of(&lines(bytes_of_run() / 18), ResumeStrategy::Next));
    check_every_byte(&source, |_| Lines::default(), |_| false);
}

#[test]
fn breaks_at_every_byte_go_on_behind_a_cursor() {
    // Every third event has an id; the others come again and are told by their content.
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
fn breaks_at_every_byte_with_units_that_overlap() {
    for repeats in 0..4 {
        let text = Text {
            repeats,
            ..Text::of(&lines(bytes_of_run() / 18), ResumeStrategy::Overlap { units_max: 5 })
        };
        check_every_byte(&Arc::new(text), |_| Lines::default(), |_| false);
    }
}

#[test]
fn breaks_at_every_byte_begin_anew_where_nothing_else_is_possible() {
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

/// What an attempt gives.
type Attempt = (ResumeStrategy, Vec<Result<&'static str, &'static str>>);

/// Answers to attempts in their order.
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
        let next = self.0.lock().expect("nobody panics with it").pop_front();
        let Some((strategy, chunks)) = next else {
            return Err(OpenError::Permanent("no more attempts".into()));
        };
        let chunks = chunks.into_iter().map(|chunk| chunk.map(Bytes::from).map_err(BoxError::from));
        Ok(Opened::new(stream::iter(chunks.collect::<Vec<_>>()), strategy))
    }
}

/// Deliveries as text: units by `attempt:sequence:content`.
async fn told<S: Splitter>(mut answer: Resume<S>) -> Vec<String> {
    let mut told = Vec::new();
    while let Some(delivery) = answer.next().await {
        match delivery {
            Ok(Delivery::Units { attempt, batch }) => told.extend(batch.iter().map(|unit| {
                format!("{attempt}:{}:{}", unit.sequence(), String::from_utf8_lossy(&unit.content()))
            })),
            Ok(Delivery::Superseded { attempt }) => told.push(format!("superseded by {attempt}")),
            Err(error) => told.push(format!("{error}")),
            Ok(_) => unreachable!("there are two kinds of deliveries"),
        }
    }
    told
}

fn answer(attempts: Vec<Attempt>) -> Resume<Lines> {
    Resume::new(Script::new(attempts), 0, |_| Lines::default(), is_end).with_options(quick())
}

const OVERLAP: ResumeStrategy = ResumeStrategy::Overlap { units_max: 4 };

#[tokio::test(start_paused = true)]
async fn an_overlap_that_is_not_certain_begins_anew() {
    // One or two of the equal lines may have come again.
    let attempts = vec![
        (ResumeStrategy::Start, vec![Ok("a\nb\nb\n"), Err("gone")]),
        (OVERLAP, vec![Ok("b\nb\nc\nend\n")]),
        (ResumeStrategy::Start, vec![Ok("a\nb\nb\nc\nend\n")]),
    ];
    assert_eq!(
        told(answer(attempts)).await,
        ["0:0:a", "0:1:b", "0:2:b", "superseded by 1", "1:0:a", "1:1:b", "1:2:b", "1:3:c", "1:4:end"]
    );
}

#[tokio::test(start_paused = true)]
async fn an_overlap_is_decided_as_soon_as_it_is_certain() {
    let attempts = vec![
        (ResumeStrategy::Start, vec![Ok("a\nb\nc\n"), Err("gone")]),
        // That `b` comes again can be known only with the line after it: `c`, or something new.
        (OVERLAP, vec![Ok("b\n"), Err("gone again")]),
        (OVERLAP, vec![Ok("b\nc\nd\n"), Ok("end\n")]),
    ];
    let mut answer = answer(attempts);
    let first = answer.next().await.unwrap().unwrap();
    assert!(matches!(first, Delivery::Units { batch, .. } if batch.len() == 3));
    assert_eq!(told(answer).await, ["0:3:d", "0:4:end"]);
}

#[tokio::test(start_paused = true)]
async fn what_comes_again_otherwise_begins_anew() {
    let attempts = vec![
        (ResumeStrategy::Start, vec![Ok("id:1\ndata:a\n\ndata:b\n\n"), Err("gone")]),
        (ResumeStrategy::Cursor, vec![Ok("data:x\n\ndata:end\n\n")]),
        (ResumeStrategy::Start, vec![Ok("data:c\n\ndata:end\n\n")]),
    ];
    let answer = Resume::new(Script::new(attempts), 0, |_| Sse::default(), is_end).with_options(quick());
    assert_eq!(told(answer).await, ["0:0:a", "0:1:b", "superseded by 1", "1:0:c", "1:1:end"]);
}

#[tokio::test(start_paused = true)]
async fn an_end_without_the_last_unit_is_no_end() {
    let attempts = vec![
        (ResumeStrategy::Start, vec![Ok("a\nunfin")]),
        (ResumeStrategy::Next, vec![Ok("unfinished\nend\n")]),
    ];
    let mut answer = answer(attempts);
    assert!(answer.next().await.unwrap().is_ok());
    assert_eq!(answer.next_id(), UnitId { turn: 0, attempt: 0, sequence: 1 });
    assert_eq!(told(answer).await, ["0:1:unfinished", "0:2:end"]);
}

#[tokio::test(start_paused = true)]
async fn attempts_that_bring_nothing_are_limited() {
    let started = Instant::now();
    let attempts = (0..9).map(|_| (ResumeStrategy::Next, vec![Err("down")])).collect();
    let mut answer = answer(attempts);
    let error = answer.next().await.unwrap().unwrap_err();
    assert!(matches!(error, Error::RetriesExhausted { attempts: 5, .. }), "{error:?}");
    assert!(answer.next().await.is_none(), "nothing follows an error");
    // Up to 1 + 2 + 4 + 8 ms, each rounded up to what the timer counts.
    let waited = started.elapsed().as_millis();
    assert!(waited <= 19, "{waited}");
}

#[tokio::test(start_paused = true)]
async fn a_refusal_is_final_and_other_errors_too() {
    assert_eq!(told(answer(vec![])).await, ["source refused"]);
    let attempts = vec![(ResumeStrategy::Start, vec![Ok("1 ]")])];
    let answer = Resume::new(Script::new(attempts), 0, |_| Json::default(), is_end);
    assert_eq!(told(answer).await, ["0:0:1", "malformed at byte 2: expected a JSON value"]);
}

#[tokio::test(start_paused = true)]
async fn the_stream_says_how_long_to_wait() {
    let attempts = vec![
        (ResumeStrategy::Start, vec![Ok("retry: 60000\ndata: a\n\n"), Err("gone")]),
        (ResumeStrategy::Next, vec![Ok("data: end\n\n")]),
    ];
    let started = Instant::now();
    let answer = Resume::new(Script::new(attempts), 0, |_| Sse::default(), is_end)
        .with_options(quick())
        .with_retry_hint(Sse::retry);
    assert_eq!(told(answer).await, ["0:0:a", "0:1:end"]);
    assert_eq!(started.elapsed().as_secs(), 60);
}

#[tokio::test(start_paused = true)]
async fn a_cancelled_reader_loses_nothing() {
    let source = Arc::new(BreaksOnce::new(Arc::new(Text::of(&lines(20), ResumeStrategy::Next)), 111));
    let mut answer = Resume::new(source, 0, |_| Lines::default(), is_end).with_options(quick());
    let mut found = Vec::new();
    loop {
        // Dropped at its first wait, over and over.
        match answer.next().now_or_never() {
            Some(None) => break,
            Some(Some(delivery)) => {
                let Delivery::Units { batch, .. } = delivery.unwrap() else {
                    panic!("nothing is superseded")
                };
                found.extend(batch.iter().map(Seen::from));
            }
            None => tokio::time::advance(Duration::from_millis(1)).await,
        }
    }
    assert_eq!(found, units(Lines::default(), [lines(20).concat().as_bytes()]).0);
}

#[tokio::test(start_paused = true)]
async fn a_reader_with_a_journal_goes_on_in_a_new_process() {
    let dir = tempfile::tempdir().unwrap();
    let open = || Arc::new(Journal::open(dir.path().join("journal")).unwrap());
    let source = || Arc::new(Text::of(&lines(9), ResumeStrategy::Next));
    let read_some = |units: usize| {
        let answer = Resume::new(source(), 3, |_| Lines::default(), is_end).with_journal(open());
        async move {
            let taken: Vec<_> = answer.take(units).collect().await;
            taken.into_iter().map(Result::unwrap).collect::<Vec<_>>()
        }
    };
    let first = read_some(2).await;
    let Some(Delivery::Units { batch, .. }) = first.last() else { panic!("units come first") };
    let last = batch.iter().last().unwrap().sequence();
    // Without saying what it has, a reader gets everything again, from the journal.
    let answer = Resume::new(source(), 3, |_| Lines::default(), is_end).with_journal(open());
    let (found, stats, error) = read(answer).await;
    assert!(error.is_none());
    assert_eq!((found.len(), stats.replayed), (10, last + 1));
    // By now the journal has all of it, and the source is not asked.
    let answer = Resume::new(Script::new(vec![]), 3, |_| Lines::default(), is_end)
        .with_journal(open())
        .after(UnitId { turn: 3, attempt: 0, sequence: 7 });
    assert_eq!(told(answer).await, ["0:8:line 8 ä€😀", "0:9:end"]);
    open().remove(3).unwrap();
    let answer = Resume::new(Script::new(vec![]), 3, |_| Lines::default(), is_end).with_journal(open());
    assert_eq!(told(answer).await, ["source refused"]);
}

#[tokio::test(start_paused = true)]
async fn a_journal_knows_what_was_superseded() {
    let dir = tempfile::tempdir().unwrap();
    let journal = Arc::new(Journal::open(dir.path().join("journal")).unwrap());
    let attempts = vec![
        (ResumeStrategy::Start, vec![Ok("a\nb\n"), Err("gone")]),
        (ResumeStrategy::Start, vec![Ok("A\n"), Err("gone")]),
    ];
    let told_first = told(answer(attempts).with_journal(journal.clone())).await;
    assert_eq!(told_first, ["0:0:a", "0:1:b", "superseded by 1", "1:0:A", "source refused"]);
    // The reader has not seen the notice: it comes again.
    let attempts = vec![(ResumeStrategy::Next, vec![Ok("B\nend\n")])];
    let answer = answer(attempts).with_journal(journal).after(UnitId { turn: 0, attempt: 0, sequence: 1 });
    assert_eq!(told(answer).await, ["superseded by 1", "1:0:A", "1:1:B", "1:2:end"]);
}

#[tokio::test(start_paused = true)]
async fn what_is_left_of_a_batch_is_charged_while_it_is_alive() {
    let attempts = vec![
        (ResumeStrategy::Start, vec![Ok("id:1\ndata:a\n\ndata:b\n\n"), Err("gone")]),
        (ResumeStrategy::Cursor, vec![Ok("data:b\n\ndata:c\n\ndata:end\n\n")]),
    ];
    let budget = Budget::new(1 << 10);
    let options = ResumeOptions { budget: Some(budget.clone()), ..quick() };
    let mut answer = Resume::new(Script::new(attempts), 0, |_| Sse::default(), is_end).with_options(options);
    drop(answer.next().await.unwrap().unwrap());
    assert_eq!(budget.used(), 0);
    let Delivery::Units { batch, .. } = answer.next().await.unwrap().unwrap() else {
        panic!("units come next")
    };
    assert_eq!((batch.len(), batch.first_sequence(), budget.used()), (2, 2, 26));
    let clone = batch.clone();
    drop(batch);
    assert_eq!(budget.used(), 26, "a clone keeps it");
    drop(clone);
    assert_eq!(budget.used(), 0);
    assert!(answer.next().await.is_none());
    assert_eq!((answer.stats().repeated, answer.stats().units), (1, 4));
}

#[tokio::test(start_paused = true)]
async fn a_seam_does_not_wait_for_what_it_holds_itself() {
    let attempts = vec![
        (ResumeStrategy::Start, vec![Ok("a\nb\nb\n"), Err("gone")]),
        (OVERLAP, vec![Ok("b\n"), Ok("b\n"), Ok("c\n"), Ok("d\n"), Ok("end\n")]),
        (ResumeStrategy::Start, vec![Ok("a\nend\n")]),
    ];
    let options = ResumeOptions { budget: Some(Budget::new(1)), ..quick() };
    let answer = answer(attempts).with_options(options);
    assert_eq!(
        told(answer).await,
        ["0:0:a", "0:1:b", "0:2:b", "superseded by 1", "1:0:a", "1:1:end"],
        "one byte of budget is enough"
    );
    let attempts = vec![
        (ResumeStrategy::Start, vec![Ok("a\nb\nc\n"), Err("gone")]),
        (OVERLAP, vec![Ok("b\n"), Ok("c\n"), Ok("d\n"), Ok("end\n")]),
    ];
    let budget = Budget::new(1);
    let options = ResumeOptions { budget: Some(budget.clone()), ..quick() };
    assert_eq!(told(self::answer(attempts).with_options(options)).await.last().unwrap(), "0:4:end");
    assert_eq!((budget.used(), budget.peak()), (0, 6), "what follows the strategy is charged");
}

/// The delays between attempts of an answer whose source is never there.
async fn delays(retry: Retry) -> Vec<Duration> {
    #[derive(Debug, Default)]
    struct Gone(Mutex<Vec<Instant>>);

    #[async_trait]
    impl Source for Gone {
        async fn open(&self, _: &Position) -> Result<Opened, OpenError> {
            self.0.lock().expect("nobody panics here").push(Instant::now());
            Err(OpenError::Transient("gone".into()))
        }
    }

    let source = Arc::new(Gone::default());
    let mut answer = Resume::new(source.clone(), 1, |_| Lines::default(), is_end)
        .with_options(ResumeOptions { retry, ..ResumeOptions::default() });
    assert!(matches!(answer.next().await, Some(Err(Error::RetriesExhausted { attempts: 5, .. }))));
    let opened = source.0.lock().expect("nobody panics here");
    opened.windows(2).map(|pair| pair[1] - pair[0]).collect()
}

#[tokio::test(start_paused = true)]
async fn readers_that_lost_the_same_server_do_not_come_back_together() {
    let retry = ResumeOptions::default().retry;
    assert_ne!(delays(retry.clone()).await, delays(retry.clone()).await);
    let seeded = Retry { seed: Some(1), ..retry };
    assert_eq!(delays(seeded.clone()).await, delays(seeded).await);
}
