//! An answer that goes on when its source breaks, each unit handed on once. Unaware of protocols: what can be opened again is a
//! [`Source`].

mod retries;
mod source;
mod splice;

use std::collections::VecDeque;
use std::fmt;
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
use crate::pull::{Limits, Pull};
use crate::splitter::Splitter;
use crate::unit::{Unit, UnitBatch};
use greenwave_retry::Retry;
use retries::Count;
pub use source::{Chunks, OpenError, Opened, Position, ResumeStrategy, Source};
use splice::{Splice, SpliceResult, Trace};

/// How an answer is read and resumed.
#[derive(Debug, Clone)]
pub struct ResumeOptions {
    /// How often, and when, to try again. Attempts that bring nothing new count; a unit that is handed on
    /// begins the count and the deadline anew.
    pub retry: Retry,
    /// Attempts in all, whatever they bring; 0 counts as 1.
    pub attempts_total_max: u32,
    /// The limits of each attempt.
    pub limits: Limits,
    /// Shared with other streams; nothing is read while it is full.
    pub budget: Option<Budget>,
    /// How many of the last units are remembered, to tell at a seam what comes again. Each costs a copy of its content.
    pub overlap_units_max: usize,
}

impl Default for ResumeOptions {
    /// 5 attempts that bring nothing new, 100 in all, else the defaults of [`Retry`] and [`Limits`]; no budget, 16 units.
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

/// What a reader gets.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Delivery {
    /// The next units. Their [sequence](Unit::sequence) has no gap and no number twice within an attempt.
    Units {
        /// Which attempt they belong to: attempts that went on where the one before broke off count as the same.
        attempt: u32,
        /// The units.
        batch: UnitBatch,
    },
    /// The source could not go on, and begins anew: all units so far are void. Those of `attempt` begin with sequence 0.
    Superseded {
        /// The number of the new attempt.
        attempt: u32,
    },
}

/// Which unit, of all that a reader of answers gets; ordered as they are handed on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UnitId {
    /// Which answer.
    pub turn: u64,
    /// How often the answer was begun anew before.
    pub attempt: u32,
    /// Which unit of the attempt, from 0.
    pub sequence: u64,
}

/// Counters of one answer.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ResumeStats {
    /// How often the source was opened or asked to.
    pub opened: u32,
    /// How often an attempt went on where the one before broke off.
    pub resumed: u32,
    /// How often the answer was begun anew.
    pub superseded: u32,
    /// Units that came again at a seam and were left out.
    pub repeated: u64,
    /// Units handed on from a journal.
    pub replayed: u64,
    /// Units handed on, those from a journal included.
    pub units: u64,
}

type IsLast = Arc<dyn Fn(&Unit<'_>) -> bool + Send + Sync>;
type CursorOf = Box<dyn Fn(&Unit<'_>) -> Option<Bytes> + Send + Sync>;
type RetryHint<S> = fn(&S) -> Option<Duration>;

/// Reads an answer through a [`Splitter`], over as many attempts as it takes, and hands each unit on once.
///
/// An answer is over when the unit has come that its protocol says is the last. When the source breaks, is too slow, or ends before that,
/// it is opened again after a delay, and goes on as its [`ResumeStrategy`] says: behind a cursor, at the next unit, or with units that overlap
/// and are told by their contents. Where that is not certain, the answer begins anew, and a [`Delivery::Superseded`] says so. The unfinished
/// unit of a broken attempt is not handed on.
///
/// With a journal (feature `journal`), units are recorded before they are handed on, and a new process goes on where the old one was
/// killed. What "once" means then: the reader says by [`after`](Self::after) which unit it has, as kept with what it did with it.
///
/// It is a [`Stream`]; [`next`](Self::next) may be cancelled without losing anything. It needs a tokio runtime with its timer.
pub struct Resume<S> {
    source: Arc<dyn Source>,
    splitter: Box<dyn FnMut(&Position) -> S + Send>,
    options: ResumeOptions,
    is_last: IsLast,
    cursor_of: CursorOf,
    retry_hint: Option<RetryHint<S>>,
    /// The last delay that the source has asked for.
    asked_delay: Option<Duration>,
    attempts: Count,
    progress: Progress,
    ready: VecDeque<Delivery>,
    state: State<S>,
    after: Option<UnitId>,
    #[cfg(feature = "journal")]
    journal: Option<Arc<Journal>>,
    stats: ResumeStats,
}

/// How far the answer has come.
#[derive(Debug, Default)]
struct Progress {
    turn: u64,
    attempt: u32,
    sequence: u64,
    cursor: Option<Bytes>,
    since_cursor: usize,
    tail: VecDeque<Trace>,
    is_done: bool,
}

/// `Start -> (Replaying) -> Opening -> Reading -> Over`, and from `Opening` and `Reading` by way of `Waiting` back to `Opening`.
enum State<S> {
    Start,
    /// Handing on what an earlier process has recorded.
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
    /// Reads answer number `turn` of `source`, each attempt through a splitter of its own. `is_last` tells the unit that ends the answer.
    ///
    /// Cursors are the [ids](Unit::id) of events, where they are; [`with_cursor`](Self::with_cursor) says otherwise. A splitter for
    /// events starts with the id that the last one had: `|at| Sse::default().after(at.cursor.as_deref().unwrap_or_default())`.
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
            attempts: Count::new(options.retry.clone(), options.attempts_total_max),
            options,
            is_last: Arc::new(is_last),
            cursor_of: Box::new(|unit| unit.id().map(|id| Bytes::copy_from_slice(id.as_bytes()))),
            retry_hint: None,
            asked_delay: None,
            progress: Progress { turn, ..Progress::default() },
            ready: VecDeque::new(),
            state: State::Start,
            after: None,
            #[cfg(feature = "journal")]
            journal: None,
            stats: ResumeStats::default(),
        }
    }

    /// With other options than the defaults.
    #[must_use]
    pub fn with_options(mut self, options: ResumeOptions) -> Self {
        self.attempts = Count::new(options.retry.clone(), options.attempts_total_max);
        self.options = options;
        self
    }

    /// Takes the cursor of a unit from `cursor_of`: what the source wants to hear to go on behind that unit. A unit that gives the same
    /// as the one before has none of its own.
    #[must_use]
    pub fn with_cursor(
        mut self,
        cursor_of: impl Fn(&Unit<'_>) -> Option<Bytes> + Send + Sync + 'static,
    ) -> Self {
        self.cursor_of = Box::new(cursor_of);
        self
    }

    /// Waits at least as long as the stream has asked for, which the splitter knows: `|sse: &Sse| sse.retry()`.
    #[must_use]
    pub fn with_retry_hint(mut self, hint: fn(&S) -> Option<Duration>) -> Self {
        self.retry_hint = Some(hint);
        self
    }

    /// Goes on behind a unit that the reader has already. Without a journal, only the numbers of the same attempt can be kept to, by
    /// a source that repeats its answer.
    #[must_use]
    pub fn after(mut self, number: UnitId) -> Self {
        self.after = Some(number);
        self
    }

    /// Records units before they are handed on, and begins with what is recorded.
    #[cfg(feature = "journal")]
    #[must_use]
    pub fn with_journal(mut self, journal: Arc<Journal>) -> Self {
        self.journal = Some(journal);
        self
    }

    /// The next units or notice; `None` at the end and after an error.
    pub async fn next(&mut self) -> Option<Result<Delivery, Error>> {
        std::future::poll_fn(|cx| Pin::new(&mut *self).poll_next(cx)).await
    }

    /// What it has counted so far.
    #[must_use]
    pub fn stats(&self) -> ResumeStats {
        self.stats
    }

    /// The number that the next unit will have if the answer does not begin anew.
    #[must_use]
    pub fn next_id(&self) -> UnitId {
        let Progress { turn, attempt, sequence, .. } = self.progress;
        UnitId { turn, attempt, sequence }
    }

    fn poll_step(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        match &mut self.state {
            State::Start => self.start()?,
            #[cfg(feature = "journal")]
            State::Replaying(_) => self.replay()?,
            State::Opening(opening) => {
                let opened = ready!(opening.as_mut().poll(cx));
                self.opened(opened)?;
            }
            State::Reading { pull, .. } => match ready!(Pin::new(&mut **pull).poll_next(cx)) {
                Some(Ok(batch)) => self.join(batch)?,
                Some(Err(error)) => self.broken(error)?,
                None => self.ended()?,
            },
            State::Waiting(sleep) => {
                ready!(sleep.as_mut().poll(cx));
                self.open();
            }
            State::Over => {}
        }
        Poll::Ready(Ok(()))
    }

    fn start(&mut self) -> Result<(), Error> {
        #[cfg(feature = "journal")]
        if let Some(journal) = &self.journal {
            let replay = journal.replay(self.progress.turn)?;
            self.progress.attempt = replay.attempt();
            self.state = State::Replaying(replay);
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

    /// Hands on one recorded batch.
    #[cfg(feature = "journal")]
    fn replay(&mut self) -> Result<(), Error> {
        let (State::Replaying(replay), Some(journal)) = (&mut self.state, &self.journal) else {
            return Ok(());
        };
        match journal.next(replay)? {
            Some(batch) => {
                self.stats.replayed += self.advance(batch);
            }
            None if self.progress.is_done => self.state = State::Over,
            None => self.open(),
        }
        Ok(())
    }

    fn open(&mut self) {
        self.attempts.begin();
        self.stats.opened += 1;
        let (source, at) = (self.source.clone(), self.progress.position());
        self.state = State::Opening(Box::pin(async move { source.open(&at).await }));
    }

    fn opened(&mut self, opened: Result<Opened, OpenError>) -> Result<(), Error> {
        let Opened { chunks, strategy } = match opened {
            Ok(opened) => opened,
            Err(OpenError::Permanent(source)) => return Err(Error::Refused { source }),
            Err(OpenError::Transient(source)) => return self.broken(Error::Source { received: 0, source }),
        };
        let is_start = self.progress.sequence == 0;
        if strategy == ResumeStrategy::Start && !is_start {
            self.supersede()?;
        }
        let splice = if is_start { Some(Splice::Joined) } else { self.progress.splice(strategy) };
        let Some(splice) = splice else { return self.begin_anew() };
        self.stats.resumed += u32::from(!is_start && strategy != ResumeStrategy::Start);
        let splitter = (self.splitter)(&self.progress.position());
        let mut pull = Pull::new(chunks, splitter).with_limits(self.options.limits).ends_with({
            let is_last = self.is_last.clone();
            move |unit| is_last(unit)
        });
        if let (Some(budget), false) = (&self.options.budget, splice.holds()) {
            pull.set_budget(budget.clone());
        }
        self.state = State::Reading { pull: Box::new(pull), splice };
        Ok(())
    }

    fn join(&mut self, batch: UnitBatch) -> Result<(), Error> {
        let State::Reading { splice, .. } = &mut self.state else { return Ok(()) };
        let join = splice.join(batch);
        self.joined(join)
    }

    fn joined(&mut self, join: SpliceResult) -> Result<(), Error> {
        match join {
            SpliceResult::Hold => Ok(()),
            SpliceResult::Mismatch => self.begin_anew(),
            SpliceResult::Deliver { batches, repeated } => {
                self.stats.repeated += repeated as u64;
                // What a seam holds is not charged: it would wait for itself. Its number of units is limited.
                if let (State::Reading { pull, .. }, Some(budget)) = (&mut self.state, &self.options.budget) {
                    pull.set_budget(budget.clone());
                }
                batches.into_iter().try_for_each(|batch| self.hand_on(batch))
            }
        }
    }

    /// Numbers new units, records them, and only then hands them on.
    fn hand_on(&mut self, batch: UnitBatch) -> Result<(), Error> {
        let batch = batch.renumbered(self.progress.sequence);
        #[cfg(feature = "journal")]
        if let Some(journal) = &self.journal {
            journal.append(self.progress.turn, self.progress.attempt, &batch)?;
        }
        self.attempts.succeed();
        self.advance(batch);
        Ok(())
    }

    /// Counts units as handed on, and hands those on that the reader does not have. Returns how many.
    fn advance(&mut self, batch: UnitBatch) -> u64 {
        for unit in batch.iter() {
            self.progress.advance(&unit, (self.cursor_of)(&unit), self.options.overlap_units_max);
            self.progress.is_done |= (self.is_last)(&unit);
        }
        let had = self.after.map_or(0, |after| (after.sequence + 1).saturating_sub(batch.first_sequence()));
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
        if let (State::Reading { pull, .. }, Some(hint)) = (&self.state, self.retry_hint) {
            self.asked_delay = hint(pull.splitter()).or(self.asked_delay);
        }
        let Some(delay) = self.attempts.next_delay(self.asked_delay) else {
            return Err(Error::RetriesExhausted { attempts: self.attempts.total, source: Box::new(error) });
        };
        tracing::debug!(%error, ?delay, sequence = self.progress.sequence, "stream broke, and is opened again");
        self.state = State::Waiting(Box::pin(tokio::time::sleep(delay)));
        Ok(())
    }

    fn ended(&mut self) -> Result<(), Error> {
        let State::Reading { splice, .. } = &mut self.state else { return Ok(()) };
        let join = splice.end();
        let is_misfit = matches!(join, SpliceResult::Mismatch);
        self.joined(join)?;
        if !is_misfit {
            self.state = State::Over;
        }
        Ok(())
    }

    /// The attempt does not fit what was handed on: nothing but the whole answer will do.
    fn begin_anew(&mut self) -> Result<(), Error> {
        self.supersede()?;
        let misfit = "what came again is not what was there before";
        self.broken(Error::Source { received: 0, source: misfit.into() })
    }

    fn supersede(&mut self) -> Result<(), Error> {
        let (turn, attempt) = (self.progress.turn, self.progress.attempt + 1);
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
            if matches!(this.state, State::Over) {
                return Poll::Ready(None);
            }
            if let Err(error) = ready!(this.poll_step(cx)) {
                this.state = State::Over;
                // A notice that stands behind the error would never be read.
                this.ready.clear();
                return Poll::Ready(Some(Err(error)));
            }
        }
    }
}

// What is pinned is boxed.
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
            self.tail.push_back(Trace::of(unit));
        }
    }
}
