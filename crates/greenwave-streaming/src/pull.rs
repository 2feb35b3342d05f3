//! A stream of chunks as a stream of batches, under a budget and time limits. Knows nothing of how units are found.

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

/// After this many chunks without a unit, other tasks have their turn.
const CHUNKS_PER_POLL_MAX: usize = 64;

/// The limits of one stream. All are off by default.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Limits {
    /// The longest the whole stream may be, in bytes.
    pub stream_bytes_max: Option<u64>,
    /// From the first poll to the first byte; `idle` where this is off.
    pub first_byte: Option<Duration>,
    /// From one chunk to the next, while the source is being waited for.
    pub idle: Option<Duration>,
    /// From the first poll to the end.
    pub total: Option<Duration>,
}

/// Reads a stream of chunks through a [`Splitter`] and yields the units in batches, as each chunk completes them.
///
/// The source is read only when it is asked for the next batch and the [`Budget`] has room. Its items may be any error; its `None` is
/// taken as a good end, unless a [terminal unit](Self::ends_with) was to come. Units of the same chunk share a batch; nothing is held back.
///
/// Dropping it drops the source. [`next`](Self::next) may be cancelled at any time without losing a unit. Time limits need a tokio
/// runtime with its timer; without limits any executor does.
pub struct Pull<St, S> {
    /// Gone once the stream is over.
    source: Option<Pin<Box<St>>>,
    splitting: BufferedSplitter<S>,
    /// What is left of a chunk that was too long to be fed at once.
    rest: Bytes,
    budget: Option<Budget>,
    limits: Limits,
    terminal: Option<Terminal>,
    /// When something was first waited for.
    started: Option<Instant>,
    quiet: Alarm,
    total: Alarm,
    /// The budget is being waited for.
    is_waiting: bool,
    stats: StreamStats,
}

/// Tells the unit that is to be the last, and whether it has come.
struct Terminal {
    is_last: Box<dyn FnMut(&Unit<'_>) -> bool + Send + Sync>,
    seen: bool,
}

impl<St, S, E> Pull<St, S>
where
    St: Stream<Item = Result<Bytes, E>>,
    S: Splitter,
    E: Into<BoxError>,
{
    /// Reads `source` through `splitter`, without limits.
    #[must_use]
    pub fn new(source: St, splitter: S) -> Self {
        Self {
            source: Some(Box::pin(source)),
            splitting: BufferedSplitter::new(splitter),
            rest: Bytes::new(),
            budget: None,
            limits: Limits::default(),
            terminal: None,
            started: None,
            quiet: Alarm::default(),
            total: Alarm::default(),
            is_waiting: false,
            stats: StreamStats::default(),
        }
    }

    /// Charges the batches that are alive to `budget`, and does not read while it is full.
    #[must_use]
    pub fn with_budget(mut self, budget: Budget) -> Self {
        self.set_budget(budget);
        self
    }

    /// From the next chunk on.
    pub(crate) fn set_budget(&mut self, budget: Budget) {
        self.splitting.set_budget(budget.clone());
        self.budget = Some(budget);
    }

    /// Fails when a limit is passed.
    #[must_use]
    pub fn with_limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// Numbers the first unit `sequence`: that of the unit after the last one of an earlier attempt.
    #[must_use]
    pub fn starting_at(mut self, sequence: u64) -> Self {
        self.splitting = self.splitting.starting_at(sequence);
        self
    }

    /// Expects a last unit, as protocols have that say when they are done. The stream ends with the batch that holds it; if the source
    /// ends without it, that is [`Error::Truncated`].
    #[must_use]
    pub fn ends_with(mut self, is_last: impl FnMut(&Unit<'_>) -> bool + Send + Sync + 'static) -> Self {
        self.terminal = Some(Terminal { is_last: Box::new(is_last), seen: false });
        self
    }

    /// The next batch; `None` at the end and after an error.
    pub async fn next(&mut self) -> Option<Result<UnitBatch, Error>> {
        std::future::poll_fn(|cx| Pin::new(&mut *self).poll_next(cx)).await
    }

    /// What it has counted so far.
    #[must_use]
    pub fn stats(&self) -> StreamStats {
        StreamStats { overflows: self.splitting.overflows(), ..self.stats }
    }

    /// The splitter, for what it knows beyond its units.
    #[must_use]
    pub fn splitter(&self) -> &S {
        self.splitting.splitter()
    }

    /// The sequence number that the next unit will have.
    #[must_use]
    pub fn next_sequence(&self) -> u64 {
        self.splitting.next_sequence()
    }

    /// The next batch. It is made where it is returned: each move of one costs as much as looking at a short chunk.
    #[inline]
    fn poll_batch(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<UnitBatch, Error>>> {
        for _ in 0..CHUNKS_PER_POLL_MAX {
            if self.splitting.has_failed() {
                return Poll::Ready(self.splitting.take_failure().map(|error| self.failed(error)));
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
                let polled = source.as_mut().poll_next(cx);
                if let Poll::Ready(Some(Ok(chunk))) = &polled
                    && let Err(error) = self.count(chunk.len())
                {
                    return Poll::Ready(Some(self.failed(error)));
                }
                match &polled {
                    // A chunk that is copied anyway is not moved first: that costs as much as looking at a short one.
                    Poll::Ready(Some(Ok(chunk))) if self.is_copied(chunk) => self.splitting.scan_carry(chunk),
                    _ => match polled {
                        Poll::Ready(Some(Ok(chunk))) => self.scan(chunk),
                        Poll::Ready(Some(Err(source))) => {
                            return Poll::Ready(Some(self.broken(source.into())));
                        }
                        Poll::Ready(None) => return Poll::Ready(self.end()),
                        Poll::Pending => return self.poll_quiet(cx),
                    },
                }
            } else {
                let chunk = std::mem::take(&mut self.rest);
                self.scan(chunk)
            };
            let units = self.splitting.units_found();
            if units > 0 {
                self.count_units(units);
                if self.terminal.is_some() {
                    return Poll::Ready(Some(Ok(self.look_at_batch(block))));
                }
                return Poll::Ready(Some(Ok(self.splitting.take_batch(block))));
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    #[inline]
    fn is_copied(&self, chunk: &Bytes) -> bool {
        self.splitting.is_carrying() && chunk.len() <= CHUNK_BYTES_MAX
    }

    /// Looks at as much of a chunk as can be fed; the rest is for later.
    #[inline]
    fn scan(&mut self, mut chunk: Bytes) -> Bytes {
        if chunk.len() > CHUNK_BYTES_MAX {
            self.rest = chunk.split_off(CHUNK_BYTES_MAX);
        }
        self.splitting.scan(chunk)
    }

    /// Ready when the budget has room for another chunk, and the time for the whole is not up.
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
            self.quiet.disarm();
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

    /// The source has nothing yet: fails if that has lasted too long.
    fn poll_quiet<T>(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<T, Error>>> {
        let Limits { first_byte, idle, .. } = self.limits;
        let (limit, after) = match first_byte {
            Some(after) if self.stats.bytes == 0 => (TimeoutKind::FirstByte, Some(after)),
            _ => (TimeoutKind::Idle, idle),
        };
        let Some(after) = after else { return Poll::Pending };
        self.quiet.poll(after, cx).map(|()| {
            let error = self.timeout(limit, after);
            Some(self.failed(error))
        })
    }

    fn poll_total(&mut self, cx: &mut Context<'_>) -> Result<(), Error> {
        match self.limits.total {
            Some(after) if self.total.poll(after, cx).is_ready() => {
                Err(self.timeout(TimeoutKind::Total, after))
            }
            _ => Ok(()),
        }
    }

    fn timeout(&self, limit: TimeoutKind, after: Duration) -> Error {
        Error::Timeout { limit, after, received: self.stats.bytes }
    }

    /// The source has ended well: the last batch, or the error that it is no good end.
    fn end(&mut self) -> Option<Result<UnitBatch, Error>> {
        self.source = None;
        let batch = match self.splitting.finish() {
            Ok(batch) => batch,
            Err(error) => return Some(self.failed(error)),
        };
        if let Some(terminal) = &mut self.terminal {
            batch.iter().for_each(|batch| terminal.look_at(batch));
            if !terminal.seen {
                let error = Error::Truncated { received: self.stats.bytes };
                return Some(self.failed(error));
            }
        }
        batch.iter().for_each(|batch| self.count_units(batch.len()));
        batch.map(Ok)
    }

    /// Nothing follows an error.
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

    /// The batch, in which the unit may be that is the last.
    fn look_at_batch(&mut self, block: Bytes) -> UnitBatch {
        let batch = self.splitting.take_batch(block);
        if let Some(terminal) = &mut self.terminal {
            terminal.look_at(&batch);
            if terminal.seen {
                self.source = None;
            }
        }
        batch
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
        let polled = this.poll_batch(cx);
        if polled.is_pending() && this.started.is_none() {
            // A source that has a unit at once costs no look at the clock.
            this.started = Some(Instant::now());
        }
        polled
    }
}

// The source is boxed, and nothing else is pinned.
impl<St, S> Unpin for Pull<St, S> {}

impl<St, S: std::fmt::Debug> std::fmt::Debug for Pull<St, S> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pull")
            .field("splitting", &self.splitting)
            .field("limits", &self.limits)
            .field("is_over", &self.source.is_none())
            .field("stats", &self.stats)
            .finish_non_exhaustive()
    }
}

impl Terminal {
    fn look_at(&mut self, batch: &UnitBatch) {
        self.seen = self.seen || batch.iter().any(|unit| (self.is_last)(&unit));
    }
}

/// A timer that is set only while something is waited for, so that a source that always has a chunk costs no timer.
#[derive(Debug, Default)]
struct Alarm {
    sleep: Option<Pin<Box<Sleep>>>,
    is_armed: bool,
}

impl Alarm {
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
