//! Turns a stream of chunks into a stream of batches, under a budget and time limits.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures_core::Stream;
use tokio::time::{Instant, Sleep};

use crate::budget::Budget;
use crate::buffered::{BufferedSplitter, CHUNK_BYTES_MAX};
use crate::error::{BoxError, Error, TimeoutKind};
use crate::splitter::Splitter;
use crate::stats::StreamStats;
use crate::unit::{Unit, UnitBatch};

/// Number of chunks without a unit after which the task yields to others.
const CHUNKS_PER_POLL_MAX: usize = 64;

/// The limits of a stream. All are off by default.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Limits {
    /// Maximum length of the stream, in bytes.
    pub stream_bytes_max: Option<u64>,
    /// Maximum time from the first poll to the first byte; defaults to `idle`.
    pub first_byte: Option<Duration>,
    /// Maximum time between chunks, counted only while waiting for the source.
    pub idle: Option<Duration>,
    /// Maximum time from the first poll to the end.
    pub total: Option<Duration>,
}

/// Reads a stream of chunks through a [`Splitter`] and yields batches of units as chunks complete
/// them.
///
/// The source is polled only when the next batch is requested and the [`Budget`] has room. Its
/// items may contain any error. Its end is a success unless a [terminal unit](Self::ends_with) is
/// missing. Units completed by the same chunk share a batch, and no complete unit is held back.
///
/// A source or a test for the terminal unit that panics is a broken source. If a splitter panics,
/// the panic reaches the caller, and the next call returns an error. Dropping `Pull` drops the
/// source. [`next`](Self::next) is cancel safe: no unit is lost. Time limits need a tokio runtime
/// with its timer; without them any executor works.
pub struct Pull<St, S> {
    /// `None` once the stream has ended.
    source: Option<Pin<Box<St>>>,
    splitter: BufferedSplitter<S>,
    /// The rest of a chunk that was too long to be fed at once.
    rest: Bytes,
    budget: Option<Budget>,
    limits: Limits,
    terminal: Option<Terminal>,
    /// Time of the first wait.
    started: Option<Instant>,
    idle_timer: LazyTimer,
    total_timer: LazyTimer,
    /// The stream is waiting for the budget.
    is_waiting: bool,
    /// A poll has begun and not returned. Before a poll: the splitter has panicked.
    is_polling: bool,
    stats: StreamStats,
}

/// Detects the terminal unit and records whether it was seen.
struct Terminal {
    is_last: Box<dyn FnMut(&Unit<'_>) -> bool + Send + Sync>,
    is_seen: bool,
}

impl<St, S, E> Pull<St, S>
where
    St: Stream<Item = Result<Bytes, E>>,
    S: Splitter,
    E: Into<BoxError>,
{
    /// Creates a stream that reads `source` through `splitter`, without limits.
    #[must_use]
    pub fn new(source: St, splitter: S) -> Self {
        Self {
            source: Some(Box::pin(source)),
            splitter: BufferedSplitter::new(splitter),
            rest: Bytes::new(),
            budget: None,
            limits: Limits::default(),
            terminal: None,
            started: None,
            idle_timer: LazyTimer::default(),
            total_timer: LazyTimer::default(),
            is_waiting: false,
            is_polling: false,
            stats: StreamStats::default(),
        }
    }

    /// Charges live batches to `budget`, and does not read while it is exhausted.
    #[must_use]
    pub fn with_budget(mut self, budget: Budget) -> Self {
        self.set_budget(budget);
        self
    }

    /// Applies from the next chunk on.
    pub(crate) fn set_budget(&mut self, budget: Budget) {
        self.splitter.set_budget(budget.clone());
        self.budget = Some(budget);
    }

    /// Sets limits. The stream fails when one is exceeded.
    #[must_use]
    pub fn with_limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// Sets the sequence number of the first unit, to continue the numbers of an earlier attempt.
    #[must_use]
    pub fn starting_at(mut self, sequence: u64) -> Self {
        self.splitter = self.splitter.starting_at(sequence);
        self
    }

    /// Expects a terminal unit, for protocols that have one. The stream ends with the batch that
    /// contains it. If the source ends without it, the stream fails with [`Error::Truncated`].
    #[must_use]
    pub fn ends_with(mut self, is_last: impl FnMut(&Unit<'_>) -> bool + Send + Sync + 'static) -> Self {
        self.terminal = Some(Terminal { is_last: Box::new(is_last), is_seen: false });
        self
    }

    /// Returns the next batch, or `None` at the end and after an error.
    pub async fn next(&mut self) -> Option<Result<UnitBatch, Error>> {
        std::future::poll_fn(|cx| Pin::new(&mut *self).poll_next(cx)).await
    }

    /// Returns the counters.
    #[must_use]
    pub fn stats(&self) -> StreamStats {
        StreamStats { overflows: self.splitter.overflows(), ..self.stats }
    }

    /// Returns the splitter, for state that it exposes besides units.
    #[must_use]
    pub fn splitter(&self) -> &S {
        self.splitter.splitter()
    }

    /// Returns the sequence number of the next unit.
    #[must_use]
    pub fn next_sequence(&self) -> u64 {
        self.splitter.next_sequence()
    }

    /// Polls for the next batch. Batches are built in the return position, because moving one costs
    /// as much as scanning a short chunk.
    #[inline]
    fn poll_batch(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<UnitBatch, Error>>> {
        for _ in 0..CHUNKS_PER_POLL_MAX {
            if self.splitter.has_failed() {
                return Poll::Ready(self.splitter.take_failure().map(|error| self.failed(error)));
            }
            if self.source.is_none() {
                return Poll::Ready(None);
            }
            let block = if self.rest.is_empty() {
                match self.poll_room(cx) {
                    Ok(Poll::Ready(())) => {}
                    Ok(Poll::Pending) => return Poll::Pending,
                    Err(error) => return Poll::Ready(Some(self.failed(error))),
                }
                let Some(source) = &mut self.source else { return Poll::Ready(None) };
                let polled = match catch_unwind(AssertUnwindSafe(|| source.as_mut().poll_next(cx))) {
                    Ok(polled) => polled,
                    // The source is dropped: what it would return next may lack a part.
                    Err(panic) => {
                        return Poll::Ready(Some(self.broken(panic_error("source", &*panic))));
                    }
                };
                if let Poll::Ready(Some(Ok(chunk))) = &polled
                    && let Err(error) = self.count(chunk.len())
                {
                    return Poll::Ready(Some(self.failed(error)));
                }
                match &polled {
                    // A chunk that is going to be copied is passed by reference: moving it costs as
                    // much as scanning a short one.
                    Poll::Ready(Some(Ok(chunk))) if self.is_copied(chunk) => {
                        self.splitter.scan_partial(chunk)
                    }
                    _ => match polled {
                        Poll::Ready(Some(Ok(chunk))) => self.scan(chunk),
                        Poll::Ready(Some(Err(source))) => {
                            return Poll::Ready(Some(self.broken(source.into())));
                        }
                        Poll::Ready(None) => return Poll::Ready(self.end()),
                        Poll::Pending => return self.poll_idle(cx),
                    },
                }
            } else {
                let chunk = std::mem::take(&mut self.rest);
                self.scan(chunk)
            };
            let units = self.splitter.units_found();
            if units > 0 {
                self.count_units(units);
                if self.terminal.is_some() {
                    return Poll::Ready(Some(self.check_terminal(block)));
                }
                return Poll::Ready(Some(Ok(self.splitter.take_batch(block))));
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    #[inline]
    fn is_copied(&self, chunk: &Bytes) -> bool {
        self.splitter.has_partial() && chunk.len() <= CHUNK_BYTES_MAX
    }

    /// Scans as much of a chunk as can be fed at once and stores the rest.
    #[inline]
    fn scan(&mut self, mut chunk: Bytes) -> Bytes {
        if chunk.len() > CHUNK_BYTES_MAX {
            self.rest = chunk.split_off(CHUNK_BYTES_MAX);
        }
        self.splitter.scan(chunk)
    }

    /// Returns `Ready` if the budget has room for another chunk. Fails if the total time has
    /// elapsed.
    #[inline]
    fn poll_room(&mut self, cx: &mut Context<'_>) -> Result<Poll<()>, Error> {
        self.poll_total(cx)?;
        let Some(budget) = &self.budget else { return Ok(Poll::Ready(())) };
        let room = budget.poll_room(cx);
        self.stats.waits += u64::from(room.is_pending() && !self.is_waiting);
        self.is_waiting = room.is_pending();
        Ok(room)
    }

    #[inline]
    fn count(&mut self, bytes: usize) -> Result<(), Error> {
        if bytes > 0 {
            self.idle_timer.disarm();
            self.stats.chunks += 1;
            self.stats.bytes += bytes as u64;
        }
        match self.limits.stream_bytes_max {
            Some(bytes_max) if self.stats.bytes > bytes_max => Err(Error::StreamTooLong { bytes_max }),
            _ => Ok(()),
        }
    }

    fn broken<T>(&mut self, source: BoxError) -> Result<T, Error> {
        self.failed(Error::Source { received: self.stats.bytes, source })
    }

    /// Handles a pending source: fails if it has been silent for too long.
    fn poll_idle<T>(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<T, Error>>> {
        let Limits { first_byte, idle, .. } = self.limits;
        let (limit, after) = match first_byte {
            Some(after) if self.stats.bytes == 0 => (TimeoutKind::FirstByte, Some(after)),
            _ => (TimeoutKind::Idle, idle),
        };
        let Some(after) = after else { return Poll::Pending };
        self.idle_timer.poll(after, cx).map(|()| {
            let error = self.timeout(limit, after);
            Some(self.failed(error))
        })
    }

    fn poll_total(&mut self, cx: &mut Context<'_>) -> Result<(), Error> {
        match self.limits.total {
            Some(after) if self.total_timer.poll(after, cx).is_ready() => {
                Err(self.timeout(TimeoutKind::Total, after))
            }
            _ => Ok(()),
        }
    }

    fn timeout(&self, limit: TimeoutKind, after: Duration) -> Error {
        Error::Timeout { limit, after, received: self.stats.bytes }
    }

    /// Handles the end of the source: returns the last batch, or an error if the terminal unit is
    /// missing.
    fn end(&mut self) -> Option<Result<UnitBatch, Error>> {
        self.source = None;
        let batch = match self.splitter.finish() {
            Ok(batch) => batch,
            Err(error) => return Some(self.failed(error)),
        };
        if let Some(terminal) = &mut self.terminal {
            if let Err(source) = batch.iter().try_for_each(|batch| terminal.check(batch)) {
                return Some(self.broken(source));
            }
            if !terminal.is_seen {
                let error = Error::Truncated { received: self.stats.bytes };
                return Some(self.failed(error));
            }
        }
        batch.iter().for_each(|batch| self.count_units(batch.len()));
        batch.map(Ok)
    }

    /// Ends the stream with `error`.
    #[cold]
    fn failed<T>(&mut self, error: Error) -> Result<T, Error> {
        tracing::debug!(%error, bytes = self.stats.bytes, "stream failed");
        self.source = None;
        Err(error)
    }

    #[inline]
    fn count_units(&mut self, units: usize) {
        if self.stats.first_unit.is_none() {
            self.stats.first_unit = Some(self.started.map_or(Duration::ZERO, |started| started.elapsed()));
        }
        self.stats.batches += 1;
        self.stats.units += units as u64;
    }

    /// Returns the batch and ends the stream if it contains the terminal unit.
    fn check_terminal(&mut self, block: Bytes) -> Result<UnitBatch, Error> {
        let batch = self.splitter.take_batch(block);
        if let Some(terminal) = &mut self.terminal {
            if let Err(source) = terminal.check(&batch) {
                return self.broken(source);
            }
            if terminal.is_seen {
                self.source = None;
            }
        }
        Ok(batch)
    }
}

impl<St, S, E> Stream for Pull<St, S>
where
    St: Stream<Item = Result<Bytes, E>>,
    S: Splitter,
    E: Into<BoxError>,
{
    type Item = Result<UnitBatch, Error>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = self.get_mut();
        if std::mem::replace(&mut this.is_polling, true) {
            this.is_polling = false;
            return Poll::Ready(this.source.is_some().then(|| this.broken("the splitter panicked".into())));
        }
        let polled = this.poll_batch(cx);
        this.is_polling = false;
        if polled.is_pending() && this.started.is_none() {
            // A source whose unit is available at once does not cost a clock read.
            this.started = Some(Instant::now());
        }
        polled
    }
}

/// Returns the error of a callback that panicked.
#[cold]
pub(crate) fn panic_error(callback: &str, panic: &(dyn Any + Send)) -> BoxError {
    let message = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    let message = message.or_else(|| panic.downcast_ref::<String>().cloned());
    format!("{callback} panicked: {}", message.unwrap_or_default()).into()
}

// The source is boxed, and no other field is pinned.
impl<St, S> Unpin for Pull<St, S> {}

impl<St, S: std::fmt::Debug> std::fmt::Debug for Pull<St, S> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pull")
            .field("splitter", &self.splitter)
            .field("limits", &self.limits)
            .field("is_over", &self.source.is_none())
            .field("stats", &self.stats)
            .finish_non_exhaustive()
    }
}

impl Terminal {
    /// Returns an error if the callback panics.
    fn check(&mut self, batch: &UnitBatch) -> Result<(), BoxError> {
        if !self.is_seen {
            let any_last = || batch.iter().any(|unit| (self.is_last)(&unit));
            self.is_seen = catch_unwind(AssertUnwindSafe(any_last))
                .map_err(|panic| panic_error("the test for the terminal unit", &*panic))?;
        }
        Ok(())
    }
}

/// A timer that is armed only while waiting, so that a source that always has a chunk does not pay
/// for one.
#[derive(Debug, Default)]
struct LazyTimer {
    sleep: Option<Pin<Box<Sleep>>>,
    is_armed: bool,
}

impl LazyTimer {
    fn poll(&mut self, after: Duration, cx: &mut Context<'_>) -> Poll<()> {
        let sleep = match &mut self.sleep {
            None => self.sleep.insert(Box::pin(tokio::time::sleep(after))),
            Some(sleep) => {
                if !self.is_armed
                    && let Some(deadline) = Instant::now().checked_add(after)
                {
                    sleep.as_mut().reset(deadline);
                }
                sleep
            }
        };
        self.is_armed = true;
        sleep.as_mut().poll(cx)
    }

    fn disarm(&mut self) {
        self.is_armed = false;
    }
}
