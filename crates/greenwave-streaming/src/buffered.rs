//! Drives a splitter over chunks without async.

use bytes::Bytes;

use crate::budget::Budget;
use crate::cut::Cuts;
use crate::error::Error;
use crate::partial_unit::PartialUnit;
use crate::splitter::{SplitError, Splitter, UNIT_BYTES_MAX};
use crate::unit::{IndexPool, UnitBatch};

/// Largest chunk that [`BufferedSplitter::feed`] accepts, in bytes. [`Pull`](crate::Pull) divides
/// larger ones.
pub const CHUNK_BYTES_MAX: usize = UNIT_BYTES_MAX;

/// A splitter with a buffer for the unfinished unit. [`Pull`](crate::Pull) drives one over a
/// stream.
///
/// ```
/// use greenwave_streaming::{BufferedSplitter, Lines};
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
    /// Receives the splitter's reports. Empty between calls.
    cuts: Cuts,
    index_pool: IndexPool,
    /// Holds the window if it is not just the latest chunk.
    partial: PartialUnit,
    /// Offset of the window in the stream.
    offset: u64,
    next_seq: u64,
    overflows: u64,
    budget: Option<Budget>,
    /// An error to be returned after the units before it.
    failure: Option<Error>,
    /// The stream has ended or failed, and accepts no more chunks.
    ended: bool,
}

impl<S: Splitter> BufferedSplitter<S> {
    /// Creates a splitter whose first unit has the sequence number 0.
    #[must_use]
    pub fn new(splitter: S) -> Self {
        Self {
            splitter,
            cuts: Cuts::default(),
            index_pool: IndexPool::default(),
            partial: PartialUnit::default(),
            offset: 0,
            next_seq: 0,
            overflows: 0,
            budget: None,
            failure: None,
            ended: false,
        }
    }

    /// Sets the sequence number of the next unit. Numbers saturate at `u64::MAX`.
    #[must_use]
    pub fn starting_at(mut self, sequence: u64) -> Self {
        self.next_seq = sequence;
        self
    }

    /// Charges batches to `budget`. The caller must check for room.
    pub(crate) fn set_budget(&mut self, budget: Budget) {
        self.budget = Some(budget);
    }

    /// Feeds a chunk and returns the units that it completes. An error after complete units is
    /// returned by the next call.
    ///
    /// # Errors
    /// Returns the splitter's error if the bytes exceed a limit or are malformed.
    ///
    /// # Panics
    /// If the chunk is longer than [`CHUNK_BYTES_MAX`], or if called after an error or after the
    /// end.
    pub fn feed(&mut self, chunk: Bytes) -> Result<Option<UnitBatch>, Error> {
        self.check()?;
        let block = self.scan(chunk);
        self.batch(block)
    }

    /// Feeds a borrowed chunk, which is copied. Otherwise like [`feed`](Self::feed).
    ///
    /// # Errors
    /// As [`feed`](Self::feed).
    ///
    /// # Panics
    /// As [`feed`](Self::feed).
    pub fn feed_slice(&mut self, chunk: &[u8]) -> Result<Option<UnitBatch>, Error> {
        self.check()?;
        let block = self.scan_partial(chunk);
        self.batch(block)
    }

    /// Ends the stream and returns the open unit.
    ///
    /// # Errors
    /// As [`feed`](Self::feed).
    ///
    /// # Panics
    /// If called after an error or after the end.
    pub fn finish(&mut self) -> Result<Option<UnitBatch>, Error> {
        self.check()?;
        let block = self.partial.take(self.partial.len());
        let outcome = self.splitter.finish(&block, &mut self.cuts);
        self.failure = outcome.err().map(|error| error.at_base(self.offset));
        let batch = self.batch(block);
        self.ended = true;
        batch
    }

    /// Returns the splitter, for state that it exposes besides units.
    pub fn splitter(&self) -> &S {
        &self.splitter
    }

    /// Returns the number of bytes buffered for the unfinished unit.
    #[must_use]
    pub fn buffered_bytes(&self) -> usize {
        self.partial.len()
    }

    #[inline]
    pub(crate) fn has_partial(&self) -> bool {
        !self.partial.is_empty()
    }

    /// Returns the sequence number of the next unit.
    #[must_use]
    pub fn next_sequence(&self) -> u64 {
        self.next_seq
    }

    /// Returns how many times a unit was split at its cap.
    #[must_use]
    pub fn overflows(&self) -> u64 {
        self.overflows
    }

    #[inline]
    pub(crate) fn has_failed(&self) -> bool {
        self.failure.is_some()
    }

    /// Takes the error that follows the last batch.
    pub(crate) fn take_failure(&mut self) -> Option<Error> {
        self.failure.take()
    }

    /// Scans a chunk and returns the block of the units found. An error is stored in `failure`.
    #[inline]
    pub(crate) fn scan(&mut self, mut chunk: Bytes) -> Bytes {
        if !self.partial.is_empty() {
            return self.scan_partial(&chunk);
        }
        assert!(chunk.len() <= CHUNK_BYTES_MAX, "a chunk is at most {CHUNK_BYTES_MAX} bytes");
        // The window is the chunk itself. Only the start of an unfinished unit is copied.
        match self.splitter.scan(&chunk, 0, &mut self.cuts) {
            Ok(done) => {
                self.offset += done as u64;
                if done < chunk.len() {
                    self.partial.append(&chunk[done..]);
                    chunk.truncate(done);
                }
            }
            Err(error) => self.failure = Some(error.at_base(self.offset)),
        }
        chunk
    }

    /// Appends the chunk to the buffer and scans it. Otherwise like [`scan`](Self::scan).
    #[inline]
    pub(crate) fn scan_partial(&mut self, chunk: &[u8]) -> Bytes {
        assert!(chunk.len() <= CHUNK_BYTES_MAX, "a chunk is at most {CHUNK_BYTES_MAX} bytes");
        let fresh = self.partial.len();
        if fresh + chunk.len() > u32::MAX as usize {
            self.failure = Some(SplitError::too_long(0, UNIT_BYTES_MAX).at_base(self.offset));
            return Bytes::new();
        }
        self.partial.append(chunk);
        match self.splitter.scan(self.partial.window(), fresh, &mut self.cuts) {
            Ok(done) => self.release(done),
            Err(error) => {
                self.failure = Some(error.at_base(self.offset));
                self.partial.take(self.partial.len())
            }
        }
    }

    /// Releases the front of the window. Returns it as the block if units were found in it.
    #[inline]
    fn release(&mut self, done: usize) -> Bytes {
        assert!(done <= self.partial.len(), "a splitter releases bytes of its window only");
        self.offset += done as u64;
        if !self.cuts.is_empty() {
            return self.partial.take(done);
        }
        self.partial.skip(done);
        Bytes::new()
    }

    /// Returns the batch of the units found, if any; otherwise the stored error, if any.
    fn batch(&mut self, block: Bytes) -> Result<Option<UnitBatch>, Error> {
        if self.cuts.is_empty() {
            return self.check().map(|()| None);
        }
        Ok(Some(self.take_batch(block)))
    }

    /// Returns the number of units that the last chunk completed.
    #[inline]
    pub(crate) fn units_found(&self) -> usize {
        self.cuts.len()
    }

    #[inline]
    pub(crate) fn take_batch(&mut self, block: Bytes) -> UnitBatch {
        self.overflows += self.cuts.overflows;
        let first_seq = self.next_seq;
        self.next_seq = self.next_seq.saturating_add(self.cuts.len() as u64);
        self.index_pool.batch(block, &mut self.cuts, first_seq, self.budget.as_ref())
    }

    fn check(&mut self) -> Result<(), Error> {
        assert!(!self.ended, "no chunk is fed after an error or the end");
        if self.failure.is_none() {
            return Ok(());
        }
        self.ended = true;
        self.failure.take().map_or(Ok(()), Err)
    }
}
