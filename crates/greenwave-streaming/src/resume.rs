//! Reads a response that resumes when its source breaks, and delivers each unit once.

mod retries;
mod source;
mod splice;

use std::collections::VecDeque;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use futures_core::Stream;
use tokio::time::Sleep;

use crate::budget::Budget;
use crate::error::Error;
#[cfg(feature = "journal")]
use crate::journal::{Journal, Replay};
use crate::pull::{Limits, Pull, panic_error};
use crate::splitter::Splitter;
use crate::unit::{Unit, UnitBatch};
use greenwave_retry::Retry;
use retries::AttemptCount;
pub use source::{Chunks, OpenError, Opened, Position, ResumeStrategy, Source};
use splice::{Splice, SpliceResult, UnitTrace};

/// Options for [`Resume`].
#[derive(Debug, Clone)]
pub struct ResumeOptions {
    /// Retry policy. Only attempts without a new unit count; each delivered unit resets the count
    /// and the deadline.
    pub retry: Retry,
    /// Maximum number of attempts in total, even if each delivers units; 0 counts as 1.
    pub attempts_total_max: u32,
    /// Limits of each attempt.
    pub limits: Limits,
    /// Memory budget, shared with other streams. The source is not read while it is exhausted.
    pub budget: Option<Budget>,
    /// Number of recent units retained to detect repeated units. Each costs a copy of its content.
    pub overlap_units_max: usize,
}

impl Default for ResumeOptions {
    /// 5 attempts without a new unit, 100 in total, otherwise the defaults of [`Retry`] and
    /// [`Limits`]; no budget, 16 retained units.
    fn default() -> Self {
        Self {
            retry: Retry { attempts_max: 5, ..Retry::default() },
            attempts_total_max: 100,
            limits: Limits::default(),
            budget: None,
            overlap_units_max: 16,
        }
    }
}

/// An item of [`Resume`].
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Delivery {
    /// The next units. Within an attempt, their [sequence](Unit::sequence) numbers have no gaps and
    /// no duplicates.
    Units {
        /// Number of the attempt. Attempts that resume where the previous one broke count as the
        /// same.
        attempt: u32,
        /// The units.
        batch: UnitBatch,
    },
    /// The source could not resume and restarts: all earlier units are invalid. The units of
    /// `attempt` start at sequence 0.
    Superseded {
        /// The number of the new attempt.
        attempt: u32,
    },
}

/// Identifies a delivered unit; ordered by delivery.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UnitId {
    /// Number of the response.
    pub turn: u64,
    /// Number of restarts before this unit.
    pub attempt: u32,
    /// Number of the unit in the attempt, from 0.
    pub sequence: u64,
}

/// Counters of a response.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ResumeStats {
    /// Calls to [`Source::open`].
    pub opened: u32,
    /// Attempts that resumed where the previous one broke.
    pub resumed: u32,
    /// Restarts of the response.
    pub superseded: u32,
    /// Units that a source repeated, which were skipped.
    pub repeated: u64,
    /// Units delivered from a journal.
    pub replayed: u64,
    /// Units delivered, including those from a journal.
    pub units: u64,
}

type IsLast = Arc<dyn Fn(&Unit<'_>) -> bool + Send + Sync>;
type CursorOf = Box<dyn Fn(&Unit<'_>) -> Option<Bytes> + Send + Sync>;
type RetryHint<S> = fn(&S) -> Option<Duration>;

/// Reads a response through a [`Splitter`], over as many attempts as needed, and delivers each unit
/// once.
///
/// A response ends with the unit that its protocol defines as the last. When the source breaks, is
/// too slow, or ends before that unit, it is reopened after a delay, and resumes according to its
/// [`ResumeStrategy`]: after a cursor, at the next unit, or with overlapping units that are
/// recognized by their contents. If the match is not certain, the response restarts, and a
/// [`Delivery::Superseded`] reports it. The unfinished unit of a broken attempt is never delivered.
///
/// With a journal (feature `journal`), units are recorded before they are delivered, and a new
/// process resumes where the old one was killed. For exactly-once processing, store the [`UnitId`]
/// of the last processed unit together with its effects and pass it to [`after`](Self::after).
///
/// `Resume` is a [`Stream`]; [`next`](Self::next) is cancel safe. It needs a tokio runtime with its
/// timer.
pub struct Resume<S> {
    source: Arc<dyn Source>,
    splitter: Box<dyn FnMut(&Position) -> S + Send>,
    options: ResumeOptions,
    is_last: IsLast,
    cursor_of: CursorOf,
    retry_hint: Option<RetryHint<S>>,
    /// The last delay that the source requested.
    requested_delay: Option<Duration>,
    attempts: AttemptCount,
    progress: Progress,
    ready: VecDeque<Delivery>,
    state: ResumeState<S>,
    after: Option<UnitId>,
    #[cfg(feature = "journal")]
    journal: Option<Arc<Journal>>,
    stats: ResumeStats,
}

/// The progress of a response.
#[derive(Debug, Default)]
struct Progress {
    turn: u64,
    attempt: u32,
    sequence: u64,
    cursor: Option<Bytes>,
    since_cursor: usize,
    tail: VecDeque<UnitTrace>,
    is_done: bool,
}

/// The phases of reading: `Start -> (Replaying) -> Opening -> Reading -> Over`, and from `Opening`
/// and `Reading` through `Waiting` back to `Opening`.
enum ResumeState<S> {
    Start,
    /// Delivering units that an earlier process recorded.
    #[cfg(feature = "journal")]
    Replaying(Replay),
    Opening(Pin<Box<dyn Future<Output = Result<Opened, OpenError>> + Send>>),
    Reading {
        pull: Box<Pull<Chunks, S>>,
        splice: Splice,
    },
    Waiting(Pin<Box<Sleep>>),
    Over,
}

impl<S: Splitter> Resume<S> {
    /// Reads response number `turn` of `source`. `splitter` creates a splitter for each attempt.
    /// `is_last` recognizes the unit that ends the response.
    ///
    /// Cursors default to the [ids](Unit::id) of events; see [`with_cursor`](Self::with_cursor).
    /// Start an event splitter with the last id: `|at|
    /// Sse::default().after(at.cursor.as_deref().unwrap_or_default())`.
    pub fn new(
        source: Arc<dyn Source>,
        turn: u64,
        splitter: impl FnMut(&Position) -> S + Send + 'static,
        is_last: impl Fn(&Unit<'_>) -> bool + Send + Sync + 'static,
    ) -> Self {
        let options = ResumeOptions::default();
        Self {
            source,
            splitter: Box::new(splitter),
            attempts: AttemptCount::new(options.retry.clone(), options.attempts_total_max),
            options,
            is_last: Arc::new(is_last),
            cursor_of: Box::new(|unit| unit.id().map(|id| Bytes::copy_from_slice(id.as_bytes()))),
            retry_hint: None,
            requested_delay: None,
            progress: Progress { turn, ..Progress::default() },
            ready: VecDeque::new(),
            state: ResumeState::Start,
            after: None,
            #[cfg(feature = "journal")]
            journal: None,
            stats: ResumeStats::default(),
        }
    }

    /// Sets the options.
    #[must_use]
    pub fn with_options(mut self, options: ResumeOptions) -> Self {
        self.attempts = AttemptCount::new(options.retry.clone(), options.attempts_total_max);
        self.options = options;
        self
    }

    /// Sets the function that returns a unit's cursor: the value with which the source resumes
    /// after that unit. A unit with the same cursor as its predecessor counts as having none.
    #[must_use]
    pub fn with_cursor(
        mut self,
        cursor_of: impl Fn(&Unit<'_>) -> Option<Bytes> + Send + Sync + 'static,
    ) -> Self {
        self.cursor_of = Box::new(cursor_of);
        self
    }

    /// Waits at least as long as the stream requested, according to the splitter: `|sse: &Sse|
    /// sse.retry()`.
    #[must_use]
    pub fn with_retry_hint(mut self, hint: fn(&S) -> Option<Duration>) -> Self {
        self.retry_hint = Some(hint);
        self
    }

    /// Resumes after a unit that the reader has processed. Without a journal, this requires a
    /// source that repeats the same response.
    #[must_use]
    pub fn after(mut self, number: UnitId) -> Self {
        self.after = Some(number);
        self
    }

    /// Records units before they are delivered, and starts with the recorded ones.
    #[cfg(feature = "journal")]
    #[must_use]
    pub fn with_journal(mut self, journal: Arc<Journal>) -> Self {
        self.journal = Some(journal);
        self
    }

    /// Returns the next delivery, or `None` at the end and after an error.
    pub async fn next(&mut self) -> Option<Result<Delivery, Error>> {
        std::future::poll_fn(|cx| Pin::new(&mut *self).poll_next(cx)).await
    }

    /// Returns the counters.
    #[must_use]
    pub fn stats(&self) -> ResumeStats {
        self.stats
    }

    /// Returns the id of the next unit, unless the response restarts.
    #[must_use]
    pub fn next_id(&self) -> UnitId {
        let Progress { turn, attempt, sequence, .. } = self.progress;
        UnitId { turn, attempt, sequence }
    }

    fn poll_step(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        match &mut self.state {
            ResumeState::Start => self.start()?,
            #[cfg(feature = "journal")]
            ResumeState::Replaying(_) => self.replay()?,
            ResumeState::Opening(opening) => {
                let opened = ready!(opening.as_mut().poll(cx));
                self.opened(opened)?;
            }
            ResumeState::Reading { pull, .. } => match ready!(Pin::new(&mut **pull).poll_next(cx)) {
                Some(Ok(batch)) => self.splice_batch(batch)?,
                Some(Err(error)) => self.broken(error)?,
                None => self.ended()?,
            },
            ResumeState::Waiting(sleep) => {
                ready!(sleep.as_mut().poll(cx));
                self.open();
            }
            ResumeState::Over => {}
        }
        Poll::Ready(Ok(()))
    }

    fn start(&mut self) -> Result<(), Error> {
        #[cfg(feature = "journal")]
        if let Some(journal) = &self.journal {
            let replay = journal.replay(self.progress.turn)?;
            self.progress.attempt = replay.attempt();
            self.state = ResumeState::Replaying(replay);
            let is_void = self.after.is_some_and(|after| after.attempt != self.progress.attempt);
            if is_void {
                self.after = None;
                self.ready.push_back(Delivery::Superseded { attempt: self.progress.attempt });
            }
            return Ok(());
        }
        self.progress.attempt = self.after.map_or(0, |after| after.attempt);
        self.open();
        Ok(())
    }

    /// Delivers one recorded batch.
    #[cfg(feature = "journal")]
    fn replay(&mut self) -> Result<(), Error> {
        let (ResumeState::Replaying(replay), Some(journal)) = (&mut self.state, &self.journal) else {
            return Ok(());
        };
        match journal.next(replay)? {
            Some(batch) => {
                self.stats.replayed += self.advance(batch);
            }
            None if self.progress.is_done => self.state = ResumeState::Over,
            None => self.open(),
        }
        Ok(())
    }

    fn open(&mut self) {
        self.attempts.begin();
        self.stats.opened += 1;
        let (source, at) = (self.source.clone(), self.progress.position());
        self.state = ResumeState::Opening(Box::pin(async move { source.open(&at).await }));
    }

    fn opened(&mut self, opened: Result<Opened, OpenError>) -> Result<(), Error> {
        let Opened { chunks, strategy } = match opened {
            Ok(opened) => opened,
            Err(OpenError::Permanent(source)) => return Err(Error::Open { source }),
            Err(OpenError::Transient(source)) => return self.broken(Error::Source { received: 0, source }),
        };
        let is_start = self.progress.sequence == 0;
        if strategy == ResumeStrategy::Start && !is_start {
            self.supersede()?;
        }
        let splice = if is_start { Some(Splice::Aligned) } else { self.progress.splice(strategy) };
        let Some(splice) = splice else { return self.restart() };
        self.stats.resumed += u32::from(!is_start && strategy != ResumeStrategy::Start);
        let splitter = (self.splitter)(&self.progress.position());
        let mut pull = Pull::new(chunks, splitter).with_limits(self.options.limits).ends_with({
            let is_last = self.is_last.clone();
            move |unit| is_last(unit)
        });
        if let (Some(budget), false) = (&self.options.budget, splice.holds()) {
            pull.set_budget(budget.clone());
        }
        self.state = ResumeState::Reading { pull: Box::new(pull), splice };
        Ok(())
    }

    fn splice_batch(&mut self, batch: UnitBatch) -> Result<(), Error> {
        let ResumeState::Reading { splice, .. } = &mut self.state else { return Ok(()) };
        let result = splice.push(batch);
        self.spliced(result)
    }

    fn spliced(&mut self, result: SpliceResult) -> Result<(), Error> {
        match result {
            SpliceResult::Hold => Ok(()),
            SpliceResult::Mismatch => self.restart(),
            SpliceResult::Deliver { batches, repeated } => {
                self.stats.repeated += repeated as u64;
                // Batches held while splicing are not charged, because they would wait for
                // themselves. Their number of units is limited.
                if let (ResumeState::Reading { pull, .. }, Some(budget)) =
                    (&mut self.state, &self.options.budget)
                {
                    pull.set_budget(budget.clone());
                }
                batches.into_iter().try_for_each(|batch| self.deliver(batch))
            }
        }
    }

    /// Numbers and records new units, then delivers them.
    fn deliver(&mut self, batch: UnitBatch) -> Result<(), Error> {
        let batch = batch.renumbered(self.progress.sequence);
        #[cfg(feature = "journal")]
        if let Some(journal) = &self.journal {
            journal.append(self.progress.turn, self.progress.attempt, &batch)?;
        }
        self.attempts.record_progress();
        self.advance(batch);
        Ok(())
    }

    /// Advances the progress and delivers the units that the reader does not have; returns their
    /// number.
    fn advance(&mut self, batch: UnitBatch) -> u64 {
        for unit in batch.iter() {
            self.progress.advance(&unit, (self.cursor_of)(&unit), self.options.overlap_units_max);
            self.progress.is_done |= (self.is_last)(&unit);
        }
        let had = self
            .after
            .map_or(0, |after| after.sequence.saturating_add(1).saturating_sub(batch.first_sequence()));
        let had = usize::try_from(had).unwrap_or(usize::MAX);
        if had >= batch.len() {
            return 0;
        }
        let batch = batch.without_first(had);
        let units = batch.len() as u64;
        self.stats.units += units;
        self.ready.push_back(Delivery::Units { attempt: self.progress.attempt, batch });
        units
    }

    fn broken(&mut self, error: Error) -> Result<(), Error> {
        if !error.is_transient() {
            return Err(error);
        }
        if let (ResumeState::Reading { pull, .. }, Some(hint)) = (&self.state, self.retry_hint) {
            self.requested_delay = hint(pull.splitter()).or(self.requested_delay);
        }
        let Some(delay) = self.attempts.next_delay(self.requested_delay) else {
            return Err(Error::RetriesExhausted { attempts: self.attempts.total, source: Box::new(error) });
        };
        tracing::debug!(%error, ?delay, sequence = self.progress.sequence, "stream broke, reopening");
        self.state = ResumeState::Waiting(Box::pin(tokio::time::sleep(delay)));
        Ok(())
    }

    fn ended(&mut self) -> Result<(), Error> {
        let ResumeState::Reading { splice, .. } = &mut self.state else { return Ok(()) };
        let result = splice.end();
        let is_mismatch = matches!(result, SpliceResult::Mismatch);
        self.spliced(result)?;
        if !is_mismatch {
            self.state = ResumeState::Over;
        }
        Ok(())
    }

    /// Restarts because the attempt does not match the delivered units.
    fn restart(&mut self) -> Result<(), Error> {
        self.supersede()?;
        let mismatch = "the source repeated different units than those delivered";
        self.broken(Error::Source { received: 0, source: mismatch.into() })
    }

    fn supersede(&mut self) -> Result<(), Error> {
        let (turn, attempt) = (self.progress.turn, self.progress.attempt.saturating_add(1));
        #[cfg(feature = "journal")]
        if let Some(journal) = &self.journal {
            journal.supersede(turn, attempt)?;
        }
        self.stats.superseded += 1;
        self.progress = Progress { turn, attempt, ..Progress::default() };
        self.after = None;
        self.ready.push_back(Delivery::Superseded { attempt });
        Ok(())
    }
}

impl<S: Splitter> Stream for Resume<S> {
    type Item = Result<Delivery, Error>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = self.get_mut();
        loop {
            if let Some(delivery) = this.ready.pop_front() {
                return Poll::Ready(Some(Ok(delivery)));
            }
            if matches!(this.state, ResumeState::Over) {
                return Poll::Ready(None);
            }
            let step = catch_unwind(AssertUnwindSafe(|| this.poll_step(cx))).unwrap_or_else(|panic| {
                let source = panic_error("a callback", &*panic);
                Poll::Ready(Err(Error::Source { received: 0, source }))
            });
            if let Err(error) = ready!(step) {
                this.state = ResumeState::Over;
                // Deliveries after the error would never be read.
                this.ready.clear();
                return Poll::Ready(Some(Err(error)));
            }
        }
    }
}

// Pinned fields are boxed.
impl<S> Unpin for Resume<S> {}

impl<S> fmt::Debug for Resume<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Resume")
            .field("source", &self.source)
            .field("progress", &self.progress)
            .field("stats", &self.stats)
            .finish_non_exhaustive()
    }
}

impl Progress {
    fn position(&self) -> Position {
        Position {
            turn: self.turn,
            attempt: self.attempt,
            sequence: self.sequence,
            cursor: self.cursor.clone(),
            tail: self.tail.iter().map(|trace| trace.bytes.clone()).collect(),
        }
    }

    fn splice(&self, strategy: ResumeStrategy) -> Option<Splice> {
        match strategy {
            ResumeStrategy::Cursor if self.cursor.is_none() => None,
            _ => Splice::new(strategy, &self.tail, self.since_cursor),
        }
    }

    fn advance(&mut self, unit: &Unit<'_>, cursor: Option<Bytes>, tail_max: usize) {
        self.sequence = unit.sequence() + 1;
        if cursor.is_some() && cursor != self.cursor {
            (self.cursor, self.since_cursor) = (cursor, 0);
        } else {
            self.since_cursor += 1;
        }
        if tail_max > 0 {
            self.tail.drain(..(self.tail.len() + 1).saturating_sub(tail_max));
            self.tail.push_back(UnitTrace::of(unit));
        }
    }
}
