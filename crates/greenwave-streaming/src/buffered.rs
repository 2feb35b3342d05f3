//! One carry buffer and one splitter: chunks in, batches out, without async. Knows nothing of sources, budgets' waits or time.

use bytes::Bytes;

use crate::budget::Budget;
use crate::error::Error;
use crate::partial_unit::PartialUnit;
use crate::splitter::{Cuts, SplitError, Splitter, UNIT_BYTES_MAX};
use crate::unit::{Slots, UnitBatch};

/// The largest chunk that [`BufferedSplitter::feed`] takes, in bytes. [`Pull`](crate::Pull) cuts larger ones up.
pub const CHUNK_BYTES_MAX: usize = UNIT_BYTES_MAX;

/// A splitter with the bytes it still needs. [`Pull`](crate::Pull) is this over a stream.
///
/// ```
/// use greenwave_streaming::{Lines, BufferedSplitter};
///
/// let mut lines = BufferedSplitter::new(Lines::default());
/// assert!(lines.feed("one\ntw".into())?.is_some_and(|batch| batch.len() == 1));
/// let last = lines.finish()?.expect("the last line has no end");
/// assert_eq!(last.get(0).unwrap().bytes(), "tw");
/// # Ok::<(), greenwave_streaming::Error>(())
/// ```
#[derive(Debug)]
pub struct BufferedSplitter<S> {
    splitter: S,
    /// What the splitter reports into; empty between calls.
    cuts: Cuts,
    slots: Slots,
    /// The window while it is not simply the latest chunk.
    carry: PartialUnit,
    /// Where the window starts in the stream.
    offset: u64,
    next_seq: u64,
    overflows: u64,
    budget: Option<Budget>,
    /// An error that waits for the units before it to be handed on.
    failure: Option<Error>,
    /// It finished or failed: nothing more is fed.
    ended: bool,
}

impl<S: Splitter> BufferedSplitter<S> {
    /// Starts at sequence number 0.
    #[must_use]
    pub fn new(splitter: S) -> Self {
        Self {
            splitter,
            cuts: Cuts::default(),
            slots: Slots::default(),
            carry: PartialUnit::default(),
            offset: 0,
            next_seq: 0,
            overflows: 0,
            budget: None,
            failure: None,
            ended: false,
        }
    }

    /// Numbers the next unit `sequence`. Numbers end at `u64::MAX`, which is then that of all that follow.
    #[must_use]
    pub fn starting_at(mut self, sequence: u64) -> Self {
        self.next_seq = sequence;
        self
    }

    /// Charges batches to `budget`; whether there is room is for the caller to ask.
    pub(crate) fn set_budget(&mut self, budget: Budget) {
        self.budget = Some(budget);
    }

    /// Takes a chunk; returns the units that it completes. An error that follows complete units is returned by the next call.
    ///
    /// # Errors
    /// What the splitter finds wrong with the bytes.
    ///
    /// # Panics
    /// If the chunk is longer than [`CHUNK_BYTES_MAX`], or after an error or the end.
    pub fn feed(&mut self, chunk: Bytes) -> Result<Option<UnitBatch>, Error> {
        self.check()?;
        let block = self.scan(chunk);
        self.batch(block)
    }

    /// As [`feed`](Self::feed), for a chunk that is borrowed: it is copied.
    ///
    /// # Errors
    /// As [`feed`](Self::feed).
    ///
    /// # Panics
    /// As [`feed`](Self::feed).
    pub fn feed_slice(&mut self, chunk: &[u8]) -> Result<Option<UnitBatch>, Error> {
        self.check()?;
        let block = self.scan_carry(chunk);
        self.batch(block)
    }

    /// The stream has ended well; returns what was still open.
    ///
    /// # Errors
    /// As [`feed`](Self::feed).
    ///
    /// # Panics
    /// After an error or the end.
    pub fn finish(&mut self) -> Result<Option<UnitBatch>, Error> {
        self.check()?;
        let block = self.carry.take(self.carry.len());
        let outcome = self.splitter.finish(&block, &mut self.cuts);
        self.failure = outcome.err().map(|fault| fault.at_base(self.offset));
        let batch = self.batch(block);
        self.ended = true;
        batch
    }

    /// The splitter, for what it knows beyond its units.
    pub fn splitter(&self) -> &S {
        &self.splitter
    }

    /// Bytes kept for the unfinished unit.
    #[must_use]
    pub fn carried_bytes(&self) -> usize {
        self.carry.len()
    }

    #[inline]
    pub(crate) fn is_carrying(&self) -> bool {
        !self.carry.is_empty()
    }

    /// The sequence number that the next unit will have.
    #[must_use]
    pub fn next_sequence(&self) -> u64 {
        self.next_seq
    }

    /// How often a unit was split at its cap.
    #[must_use]
    pub fn overflows(&self) -> u64 {
        self.overflows
    }

    #[inline]
    pub(crate) fn has_failed(&self) -> bool {
        self.failure.is_some()
    }

    /// The error that is to follow the units handed on last.
    pub(crate) fn take_failure(&mut self) -> Option<Error> {
        self.failure.take()
    }

    /// Looks at a chunk; returns the block that the units found lie in. A fault waits in `failure`.
    #[inline]
    pub(crate) fn scan(&mut self, mut chunk: Bytes) -> Bytes {
        if !self.carry.is_empty() {
            return self.scan_carry(&chunk);
        }
        assert!(chunk.len() <= CHUNK_BYTES_MAX, "a chunk is at most {CHUNK_BYTES_MAX} bytes");
        // The window is the chunk itself: nothing is copied but the start of an unfinished unit.
        match self.splitter.scan(&chunk, 0, &mut self.cuts) {
            Ok(done) => {
                self.offset += done as u64;
                if done < chunk.len() {
                    self.carry.append(&chunk[done..]);
                    chunk.truncate(done);
                }
            }
            Err(fault) => self.failure = Some(fault.at_base(self.offset)),
        }
        chunk
    }

    /// As [`scan`](Self::scan), by putting the chunk behind what is kept.
    #[inline]
    pub(crate) fn scan_carry(&mut self, chunk: &[u8]) -> Bytes {
        assert!(chunk.len() <= CHUNK_BYTES_MAX, "a chunk is at most {CHUNK_BYTES_MAX} bytes");
        let fresh = self.carry.len();
        if fresh + chunk.len() > u32::MAX as usize {
            self.failure = Some(SplitError::too_long(0, UNIT_BYTES_MAX).at_base(self.offset));
            return Bytes::new();
        }
        self.carry.append(chunk);
        match self.splitter.scan(self.carry.window(), fresh, &mut self.cuts) {
            Ok(done) => self.release(done),
            Err(fault) => {
                self.failure = Some(fault.at_base(self.offset));
                self.carry.take(self.carry.len())
            }
        }
    }

    /// Lets go of the front of the window, which is the block of the units found, if there are any.
    #[inline]
    fn release(&mut self, done: usize) -> Bytes {
        assert!(done <= self.carry.len(), "a splitter is done with no more than it was shown");
        self.offset += done as u64;
        if !self.cuts.is_empty() {
            return self.carry.take(done);
        }
        self.carry.skip(done);
        Bytes::new()
    }

    /// The batch of the units found, if any were; else the fault, if there was one.
    fn batch(&mut self, block: Bytes) -> Result<Option<UnitBatch>, Error> {
        if self.cuts.is_empty() {
            return self.check().map(|()| None);
        }
        Ok(Some(self.take_batch(block)))
    }

    /// How many units the last chunk has completed.
    #[inline]
    pub(crate) fn units_found(&self) -> usize {
        self.cuts.len()
    }

    #[inline]
    pub(crate) fn take_batch(&mut self, block: Bytes) -> UnitBatch {
        self.overflows += self.cuts.overflows;
        let first_seq = self.next_seq;
        self.next_seq = self.next_seq.saturating_add(self.cuts.len() as u64);
        self.slots.batch(block, &mut self.cuts, first_seq, self.budget.as_ref())
    }

    fn check(&mut self) -> Result<(), Error> {
        assert!(!self.ended, "nothing is fed after an error or the end");
        if self.failure.is_none() {
            return Ok(());
        }
        self.ended = true;
        self.failure.take().map_or(Ok(()), Err)
    }
}
