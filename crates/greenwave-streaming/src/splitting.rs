//! One carry buffer and one splitter: chunks in, batches out, without async. Knows nothing of sources, budgets' waits or time.

use bytes::{Buf, Bytes, BytesMut};

use crate::budget::Budget;
use crate::error::Error;
use crate::splitter::{Cuts, Fault, Splitter, UNIT_BYTES_MAX};
use crate::unit::UnitBatch;

/// The largest chunk that [`Splitting::feed`] takes, in bytes. [`Pull`](crate::Pull) cuts larger ones up.
pub const CHUNK_BYTES_MAX: usize = UNIT_BYTES_MAX;

/// A splitter with the bytes it still needs. [`Pull`](crate::Pull) is this over a stream.
///
/// ```
/// use greenwave_streaming::{Lines, Splitting};
///
/// let mut lines = Splitting::new(Lines::default());
/// assert!(lines.feed("one\ntw".into())?.is_some_and(|batch| batch.len() == 1));
/// let last = lines.finish()?.expect("the last line has no end");
/// assert_eq!(last.get(0).unwrap().bytes(), "tw");
/// # Ok::<(), greenwave_streaming::Error>(())
/// ```
#[derive(Debug)]
pub struct Splitting<S> {
    splitter: S,
    /// The window while it is not simply the latest chunk.
    carry: BytesMut,
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

impl<S: Splitter> Splitting<S> {
    /// Starts at sequence number 0.
    #[must_use]
    pub fn new(splitter: S) -> Self {
        Self {
            splitter,
            carry: BytesMut::new(),
            offset: 0,
            next_seq: 0,
            overflows: 0,
            budget: None,
            failure: None,
            ended: false,
        }
    }

    /// Numbers the next unit `sequence`.
    #[must_use]
    pub fn starting_at(mut self, sequence: u64) -> Self {
        self.next_seq = sequence;
        self
    }

    /// Charges batches to `budget`; whether there is room is for the caller to ask.
    #[must_use]
    pub(crate) fn with_budget(mut self, budget: Budget) -> Self {
        self.budget = Some(budget);
        self
    }

    /// Takes a chunk; returns the units that it completes. An error that follows complete units is returned by the next call.
    ///
    /// # Errors
    /// What the splitter finds wrong with the bytes.
    ///
    /// # Panics
    /// If the chunk is longer than [`CHUNK_BYTES_MAX`], or after an error or the end.
    #[expect(clippy::needless_pass_by_value, reason = "the block of the batch is the chunk itself")]
    pub fn feed(&mut self, chunk: Bytes) -> Result<Option<UnitBatch>, Error> {
        assert!(chunk.len() <= CHUNK_BYTES_MAX, "a chunk is at most {CHUNK_BYTES_MAX} bytes");
        self.check()?;
        if chunk.is_empty() {
            return Ok(None);
        }
        let mut cuts = Cuts::default();
        let block = if self.carry.is_empty() {
            self.scan_chunk(&chunk, &mut cuts)
        } else {
            self.scan_carry(&chunk, &mut cuts)
        };
        let block = block.unwrap_or_else(|(block, error)| {
            self.failure = Some(error);
            block
        });
        self.batch(block, cuts)
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
        let mut cuts = Cuts::default();
        let block = std::mem::take(&mut self.carry).freeze();
        let outcome = self.splitter.finish(&block, &mut cuts);
        self.failure = outcome.err().map(|fault| fault.at_base(self.offset));
        let batch = self.batch(block, cuts);
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

    /// The error that is to follow the units handed on last.
    pub(crate) fn take_failure(&mut self) -> Option<Error> {
        self.failure.take()
    }

    /// The window is the chunk itself: nothing is copied but the start of an unfinished unit.
    fn scan_chunk(&mut self, chunk: &Bytes, cuts: &mut Cuts) -> Result<Bytes, (Bytes, Error)> {
        let done = self.scan(chunk, 0, cuts).map_err(|error| (chunk.clone(), error))?;
        self.carry.extend_from_slice(&chunk[done..]);
        self.offset += done as u64;
        Ok(chunk.slice(..done))
    }

    fn scan_carry(&mut self, chunk: &Bytes, cuts: &mut Cuts) -> Result<Bytes, (Bytes, Error)> {
        let fresh = self.carry.len();
        if fresh + chunk.len() > u32::MAX as usize {
            return Err((Bytes::new(), Fault::too_long(0, UNIT_BYTES_MAX).at_base(self.offset)));
        }
        self.carry.extend_from_slice(chunk);
        // The splitter needs `&mut self` beside the window.
        let mut window = std::mem::take(&mut self.carry);
        match self.scan(&window, fresh, cuts) {
            Err(error) => Err((window.freeze(), error)),
            Ok(done) => {
                self.offset += done as u64;
                let block = if cuts.is_empty() {
                    window.advance(done);
                    Bytes::new()
                } else {
                    window.split_to(done).freeze()
                };
                self.carry = window;
                Ok(block)
            }
        }
    }

    fn scan(&mut self, window: &[u8], fresh: usize, cuts: &mut Cuts) -> Result<usize, Error> {
        let done = self.splitter.scan(window, fresh, cuts).map_err(|fault| fault.at_base(self.offset))?;
        assert!(done <= window.len(), "a splitter is done with no more than it was shown");
        Ok(done)
    }

    fn batch(&mut self, block: Bytes, cuts: Cuts) -> Result<Option<UnitBatch>, Error> {
        self.overflows += cuts.overflows;
        if cuts.is_empty() {
            return self.check().map(|()| None);
        }
        let first_seq = self.next_seq;
        self.next_seq += cuts.len() as u64;
        Ok(Some(UnitBatch::new(block, cuts, first_seq, self.budget.as_ref())))
    }

    fn check(&mut self) -> Result<(), Error> {
        assert!(!self.ended, "nothing is fed after an error or the end");
        let Some(error) = self.failure.take() else { return Ok(()) };
        self.ended = true;
        Err(error)
    }
}
