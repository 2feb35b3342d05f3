//! Conformance suites for implementations of [`Splitter`] and [`Source`].
//!
//! ```
//! # #[cfg(test)]
//! mod lines {
//!     greenwave_streaming::splitter_conformance! {
//!         || greenwave_streaming::Lines::default(),
//!         [b"one\ntwo".as_slice(), b"", "ä\r\nö\r".as_bytes()]
//!     }
//! }
//! ```

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Poll;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures_core::Stream;

use crate::buffered::BufferedSplitter;
use crate::error::{BoxError, Error};
use crate::layout::UnitKind;
use crate::resume::{Delivery, OpenError, Opened, Position, Resume, ResumeOptions, ResumeStats, Source};
use crate::splitter::Splitter;
use crate::unit::{Unit, UnitBatch};
use greenwave_retry::Retry;

/// Decodes arbitrary bytes as a journal record and checks that encoding the result yields the same
/// bytes. For fuzzing.
///
/// # Panics
/// If the bytes differ.
#[cfg(feature = "journal")]
pub fn check_journal_record(record: &[u8]) {
    crate::journal::check_record(record);
}

/// Emits one `#[test]` per promise of [`Splitter`]. Takes a closure that creates the splitter and
/// an array of inputs.
#[macro_export]
macro_rules! splitter_conformance {
    ($make:expr, $inputs:expr $(,)?) => {
        #[test]
        fn any_chunking_gives_the_same_units() {
            for input in $inputs {
                $crate::conformance::any_chunking($make, input.as_ref());
            }
        }

        #[test]
        fn characters_stay_whole() {
            for input in $inputs {
                $crate::conformance::characters_stay_whole($make, input.as_ref());
            }
        }

        #[test]
        fn units_are_numbered_without_gaps() {
            for input in $inputs {
                $crate::conformance::sequence_numbers_have_no_gaps($make, input.as_ref());
            }
        }

        #[test]
        fn an_empty_stream_has_no_units() {
            $crate::conformance::empty_stream_has_no_units($make);
        }
    };
}

/// Emits one `#[tokio::test]` per promise of [`Source`]. Takes an expression for a source that
/// always returns the same response, a closure that creates its splitter, and a closure that
/// recognizes the last unit. The tests need tokio's `macros`, `rt` and `test-util`.
#[macro_export]
macro_rules! source_conformance {
    ($make:expr, $splitter:expr, $is_last:expr $(,)?) => {
        #[tokio::test(start_paused = true)]
        async fn a_response_ends_with_its_last_unit() {
            $crate::conformance::response_completes(std::sync::Arc::new($make), $splitter, $is_last).await;
        }

        #[tokio::test(start_paused = true)]
        async fn a_broken_response_resumes() {
            $crate::conformance::broken_response_resumes(|| std::sync::Arc::new($make), $splitter, $is_last)
                .await;
        }

        #[tokio::test(start_paused = true)]
        async fn an_attempt_can_be_cancelled() {
            $crate::conformance::attempts_can_be_cancelled(std::sync::Arc::new($make), $splitter, $is_last)
                .await;
        }
    };
}

/// A copy of all public properties of a unit, for comparisons.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnitRecord {
    /// [`Unit::kind`].
    pub kind: UnitKind,
    /// [`Unit::bytes`].
    pub bytes: Bytes,
    /// [`Unit::path`].
    pub path: Option<String>,
    /// [`Unit::edited_path`].
    pub edited_path: Option<String>,
    /// [`Unit::language`].
    pub language: Option<String>,
    /// [`Unit::info`].
    pub info: Option<String>,
    /// [`Unit::event`].
    pub event: Option<String>,
    /// [`Unit::id`].
    pub id: Option<String>,
    /// [`Unit::is_complete`].
    pub complete: bool,
    /// [`Unit::is_continued`].
    pub continued: bool,
}

impl From<Unit<'_>> for UnitRecord {
    fn from(unit: Unit<'_>) -> Self {
        Self {
            kind: unit.kind(),
            bytes: unit.bytes(),
            path: unit.path().map(str::to_owned),
            edited_path: unit.edited_path().map(str::to_owned),
            language: unit.language().map(str::to_owned),
            info: unit.info().map(str::to_owned),
            event: unit.event().map(str::to_owned),
            id: unit.id().map(str::to_owned),
            complete: unit.is_complete(),
            continued: unit.is_continued(),
        }
    }
}

/// Returns the units of `chunks` and the error that ended them, if any.
pub fn units<'a>(
    splitter: impl Splitter,
    chunks: impl IntoIterator<Item = &'a [u8]>,
) -> (Vec<UnitRecord>, Option<Error>) {
    let mut splitter = BufferedSplitter::new(splitter);
    let mut seen = Vec::new();
    for chunk in chunks {
        match splitter.feed(Bytes::copy_from_slice(chunk)) {
            Ok(batch) => seen.extend(batch.iter().flat_map(|batch| batch.iter().map(UnitRecord::from))),
            Err(error) => return (seen, Some(error)),
        }
    }
    match splitter.finish() {
        Ok(batch) => seen.extend(batch.iter().flat_map(|batch| batch.iter().map(UnitRecord::from))),
        Err(error) => return (seen, Some(error)),
    }
    (seen, splitter.take_failure())
}

/// Promise: the units and the error depend only on the bytes. Tests single bytes, every split into
/// two chunks, and 32 random chunkings.
pub fn any_chunking<S: Splitter>(make: impl Fn() -> S, input: &[u8]) {
    let expected = units(make(), [input]);
    let check = |sizes: &mut dyn FnMut() -> usize, what: &str| {
        let found = units(make(), chunked(input, sizes));
        assert_eq!(
            format!("{found:#?}"),
            format!("{expected:#?}"),
            "{what} of {:?}",
            input.escape_ascii().to_string()
        );
    };
    check(&mut || 1, "bytes one by one");
    for at in (1..input.len()).step_by(input.len().div_ceil(256).max(1)) {
        let mut sizes = [at, input.len() - at].into_iter();
        check(&mut || sizes.next().unwrap_or(1), &format!("cut at {at}"));
    }
    for seed in 0..32 {
        let mut state = seed;
        check(&mut || 1 + (next_random(&mut state) % 7) as usize, &format!("chunking {seed}"));
    }
}

/// Promise: the units of valid UTF-8 are valid UTF-8.
pub fn characters_stay_whole<S: Splitter>(make: impl Fn() -> S, input: &[u8]) {
    if std::str::from_utf8(input).is_err() {
        return;
    }
    for unit in units(make(), chunked(input, &mut || 1)).0 {
        assert!(
            std::str::from_utf8(&unit.bytes).is_ok(),
            "{unit:?} of {:?}",
            input.escape_ascii().to_string()
        );
    }
}

/// Promise: sequence numbers have no gaps, within and across batches.
pub fn sequence_numbers_have_no_gaps<S: Splitter>(make: impl Fn() -> S, input: &[u8]) {
    let mut splitter = BufferedSplitter::new(make()).starting_at(7);
    let mut expected = 7;
    for chunk in chunked(input, &mut || 3) {
        let Ok(batch) = splitter.feed(Bytes::copy_from_slice(chunk)) else { return };
        for unit in batch.iter().flat_map(UnitBatch::iter) {
            assert_eq!(unit.sequence(), expected);
            expected += 1;
        }
    }
    assert_eq!(splitter.next_sequence(), expected);
}

/// Promise: an empty stream has no units and no error.
pub fn empty_stream_has_no_units<S: Splitter>(make: impl Fn() -> S) {
    let (seen, error) = units(make(), []);
    assert!(seen.is_empty() && error.is_none(), "{seen:?} {error:?}");
}

/// Divides `input` into chunks of the sizes that `sizes` returns.
pub fn chunked<'a>(input: &'a [u8], sizes: &mut dyn FnMut() -> usize) -> Vec<&'a [u8]> {
    let mut rest = input;
    let mut chunks = Vec::new();
    while !rest.is_empty() {
        let (chunk, left) = rest.split_at(sizes().clamp(1, rest.len()));
        chunks.push(chunk);
        rest = left;
    }
    chunks
}

/// SplitMix64, which needs only a seed and no dependency.
fn next_random(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let mut mixed = *state;
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    mixed ^ (mixed >> 31)
}

/// A source that breaks once, after a number of bytes of the first attempt that is long enough.
#[derive(Debug)]
pub struct BreaksOnce {
    source: Arc<dyn Source>,
    bytes: usize,
    has_broken: Arc<AtomicBool>,
}

impl BreaksOnce {
    /// Creates a source that breaks after `bytes` bytes of `source`.
    pub fn new(source: Arc<dyn Source>, bytes: usize) -> Self {
        Self { source, bytes, has_broken: Arc::default() }
    }

    /// Returns whether the source has broken.
    pub fn has_broken(&self) -> bool {
        self.has_broken.load(Ordering::Relaxed)
    }
}

#[async_trait]
impl Source for BreaksOnce {
    async fn open(&self, at: &Position) -> Result<Opened, OpenError> {
        let Opened { chunks, strategy } = self.source.open(at).await?;
        if self.has_broken() {
            return Ok(Opened { chunks, strategy });
        }
        Ok(Opened::new(broken_after(chunks, self.bytes, self.has_broken.clone()), strategy))
    }
}

/// Returns the first `left` bytes of `chunks`, then an error.
fn broken_after(
    mut chunks: crate::resume::Chunks,
    mut left: usize,
    has_broken: Arc<AtomicBool>,
) -> impl Stream<Item = Result<Bytes, BoxError>> + Send {
    let mut pending = Bytes::new();
    stream_of(move |cx| {
        if left == 0 {
            has_broken.store(true, Ordering::Relaxed);
            return Poll::Ready(Some(Err("broken on purpose".into())));
        }
        if pending.is_empty() {
            match chunks.as_mut().poll_next(cx) {
                Poll::Ready(Some(Ok(chunk))) => pending = chunk,
                other => return other,
            }
        }
        let chunk = pending.split_to(pending.len().min(left));
        left -= chunk.len();
        Poll::Ready(Some(Ok(chunk)))
    })
}

/// Creates a stream from a closure.
fn stream_of<T, F>(poll: F) -> impl Stream<Item = T> + Send
where
    F: FnMut(&mut std::task::Context<'_>) -> Poll<Option<T>> + Send + Unpin,
{
    struct PollFn<F>(F);

    impl<T, F: FnMut(&mut std::task::Context<'_>) -> Poll<Option<T>> + Unpin> Stream for PollFn<F> {
        type Item = T;

        fn poll_next(mut self: std::pin::Pin<&mut Self>, cx: &mut std::task::Context<'_>) -> Poll<Option<T>> {
            (self.0)(cx)
        }
    }

    PollFn(poll)
}

/// Reads a response to its end and returns its valid units, the counters and the error, if any.
///
/// # Panics
/// If sequence numbers have gaps or duplicates.
pub async fn read_response<S: Splitter>(
    mut response: Resume<S>,
) -> (Vec<UnitRecord>, ResumeStats, Option<Error>) {
    let mut units: Vec<UnitRecord> = Vec::new();
    while let Some(delivery) = response.next().await {
        match delivery {
            Ok(Delivery::Units { batch, .. }) => {
                for unit in batch.iter() {
                    assert_eq!(
                        unit.sequence(),
                        units.len() as u64,
                        "sequence numbers have no gaps and no duplicates"
                    );
                    units.push(unit.into());
                }
            }
            Ok(Delivery::Superseded { .. }) => units.clear(),
            Err(error) => return (units, response.stats(), Some(error)),
        }
    }
    (units, response.stats(), None)
}

fn response<S: Splitter>(
    source: Arc<dyn Source>,
    splitter: impl Fn(&Position) -> S + Send + 'static,
    is_last: impl Fn(&Unit<'_>) -> bool + Send + Sync + 'static,
) -> Resume<S> {
    let retry = Retry { delay_min: Duration::from_millis(1), ..ResumeOptions::default().retry };
    Resume::new(source, 0, splitter, is_last)
        .with_options(ResumeOptions { retry, ..ResumeOptions::default() })
}

/// Promise: a response read from its start reaches its last unit.
pub async fn response_completes<S: Splitter>(
    source: Arc<dyn Source>,
    splitter: impl Fn(&Position) -> S + Send + 'static,
    is_last: impl Fn(&Unit<'_>) -> bool + Send + Sync + 'static,
) {
    let (units, stats, error) = read_response(response(source, splitter, is_last)).await;
    assert!(error.is_none() && !units.is_empty(), "{error:?} after {} units", units.len());
    assert_eq!((stats.opened, stats.superseded), (1, 0), "the first attempt reaches the end");
}

/// Promise: a response that breaks after any byte yields the same units.
pub async fn broken_response_resumes<S: Splitter>(
    make: impl Fn() -> Arc<dyn Source>,
    splitter: impl Fn(&Position) -> S + Clone + Send + 'static,
    is_last: impl Fn(&Unit<'_>) -> bool + Clone + Send + Sync + 'static,
) {
    let (whole, ..) = read_response(response(make(), splitter.clone(), is_last.clone())).await;
    for bytes in 0.. {
        let source = Arc::new(BreaksOnce::new(make(), bytes));
        let (units, _, error) =
            read_response(response(source.clone(), splitter.clone(), is_last.clone())).await;
        assert!(error.is_none(), "{error:?} after {bytes} bytes");
        assert_eq!(units, whole, "broken after {bytes} bytes");
        if !source.has_broken() {
            return;
        }
    }
}

/// Promise: dropping an attempt, before or after it was opened, does not affect the next one.
pub async fn attempts_can_be_cancelled<S: Splitter>(
    source: Arc<dyn Source>,
    splitter: impl Fn(&Position) -> S + Clone + Send + 'static,
    is_last: impl Fn(&Unit<'_>) -> bool + Clone + Send + Sync + 'static,
) {
    drop(source.open(&Position::default()));
    drop(source.open(&Position::default()).await);
    let mut given_up = response(source.clone(), splitter.clone(), is_last.clone());
    let _first = given_up.next().await;
    drop(given_up);
    response_completes(source, splitter, is_last).await;
}
