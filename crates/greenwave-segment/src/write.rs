//! Changes values: puts, removals and batches.

use bytes::Bytes;

use crate::Error;
use crate::append::Appender;
use crate::batch::WriteBatch;
use crate::codec::Frame;
use crate::compact::Compactor;
use crate::deltas::{ChosenBase, Deltas, key_set};
use crate::inner::Inner;
use crate::read::Reader;
use crate::refresh::Refresher;

/// Attempts at a change while the log is full, or while other processes store deltas against the
/// value to be replaced.
const TRIES_MAX: usize = 16;

/// Maximum size of a batch's records in bytes.
const BATCH_BYTES_MAX: u64 = 1 << 30;

/// Outcome of an attempt to put a value.
enum PutOutcome {
    /// The record is written. A flush is overdue if too many records wait for one.
    Done { overdue: bool },
    /// The old value is the base of deltas, which must be rewritten first.
    HasDependents,
    /// The base of the delta has changed, or cannot be protected from removal.
    BaseChanged,
    /// The record does not fit the disk budget.
    Full(Error),
}

/// Outcome of an attempt to write a batch.
enum BatchOutcome {
    /// All records are written. A flush is overdue if too many records wait for one.
    Done { overdue: bool },
    /// A condition does not hold.
    Refused,
    /// A replaced value is the base of deltas, which must be rewritten first.
    HasDependents,
    /// The batch does not fit the disk budget.
    Full(Error),
}

/// Changes values of a log.
#[derive(Clone, Copy)]
pub(crate) struct Changes<'a> {
    inner: &'a Inner,
    refresher: Refresher<'a>,
    reader: Reader<'a>,
    appender: Appender<'a>,
    deltas: Deltas<'a>,
    compactor: Compactor<'a>,
}

impl<'a> Changes<'a> {
    pub(crate) fn new(inner: &'a Inner) -> Self {
        Self {
            inner,
            refresher: Refresher::new(inner),
            reader: Reader::new(inner),
            appender: Appender::new(inner),
            deltas: Deltas::new(inner),
            compactor: Compactor::new(inner),
        }
    }

    /// Puts a value, if possible as a delta; see [`Log::put_delta`](crate::Log::put_delta).
    pub(crate) fn put_delta(&self, key: &[u8], value: &[u8], base: &[u8]) -> Result<(), Error> {
        self.appender.begin_writing()?;
        self.inner.check_size(key, value)?;
        let base = self.deltas.choose_base(key, base, value)?;
        let mut frame = self.deltas.encode(key, value, base.as_ref());
        let is_key = |other: &[u8]| other == key;
        for _ in 0..TRIES_MAX {
            self.appender.refresh_before_roll(frame.len())?;
            match self.try_put(key, &mut frame, base.as_ref())? {
                PutOutcome::Done { overdue } => {
                    self.appender.flush_if(overdue);
                    return Ok(());
                }
                PutOutcome::HasDependents => drop(self.deltas.rebase(&is_key)?),
                PutOutcome::BaseChanged => frame = self.inner.codec.encode(key, value),
                PutOutcome::Full(full) => self.compactor.make_space(full)?,
            }
        }
        Err(self.appender.fits(frame.len()).err().unwrap_or_else(|| self.busy()))
    }

    /// Removes keys; see [`Log::remove_many`](crate::Log::remove_many).
    pub(crate) fn remove_many(&self, keys: &[&[u8]]) -> Result<u64, Error> {
        self.appender.begin_writing()?;
        let among = key_set(keys);
        let mut present: Vec<(u8, &[u8])> = Vec::new();
        for key in keys {
            present.extend(self.reader.depth(key)?.map(|depth| (depth, *key)));
        }
        // Deltas are removed before their bases.
        present.sort_unstable_by_key(|(depth, _)| std::cmp::Reverse(*depth));
        if present.iter().any(|(_, key)| self.inner.index.read().may_be_base(key)) {
            self.deltas.rebase(&among)?;
        }
        let mut removed = 0;
        for (_, key) in present {
            removed += u64::from(self.remove_free(key)?);
        }
        Ok(removed)
    }

    /// Writes a batch; see [`Log::write`](crate::Log::write).
    pub(crate) fn write(&self, batch: &WriteBatch) -> Result<bool, Error> {
        self.appender.begin_writing()?;
        for (key, value) in batch.changes.iter().chain(&batch.conditions) {
            self.inner.check_size(key, value.as_deref().unwrap_or_default())?;
        }
        let encode = |(key, value): (&Bytes, &Option<Bytes>)| match value {
            Some(value) => self.inner.codec.encode_shared(key, value),
            None => Frame::tombstone(key),
        };
        let mut frames: Vec<Frame> = batch.changes.iter().map(encode).collect();
        let len = frames.iter().map(Frame::len).sum();
        if len > BATCH_BYTES_MAX {
            return Err(Error::BatchTooLarge { len, max: BATCH_BYTES_MAX });
        }
        let keys: Vec<&[u8]> = batch.changes.keys().map(Bytes::as_ref).collect();
        let among = key_set(&keys);
        for _ in 0..TRIES_MAX {
            self.appender.refresh_before_roll(len)?;
            match self.try_write(batch, &mut frames, len, &among)? {
                BatchOutcome::Done { overdue } => {
                    self.appender.flush_if(overdue);
                    return Ok(true);
                }
                BatchOutcome::Refused => return Ok(false),
                BatchOutcome::HasDependents => drop(self.deltas.rebase(&among)?),
                BatchOutcome::Full(full) => self.compactor.make_space(full)?,
            }
        }
        Err(self.appender.fits(len).err().unwrap_or_else(|| self.busy()))
    }

    /// Appends the record of a value, unless something else must be done first.
    fn try_put(&self, key: &[u8], frame: &mut Frame, base: Option<&ChosenBase>) -> Result<PutOutcome, Error> {
        let entered = self.deltas.lock_for_delta(frame)?;
        if frame.header.depth() > 0 && entered.is_none() {
            // Another process is compacting, and a put does not wait for it: the value is stored
            // whole.
            return Ok(PutOutcome::BaseChanged);
        }
        let mut writer = self.inner.writer.lock();
        if self.deltas.has_dependents(&|_| false, key) {
            return Ok(PutOutcome::HasDependents);
        }
        if frame.header.depth() > 0 && base.is_some_and(|base| !self.deltas.base_is_current(base)) {
            return Ok(PutOutcome::BaseChanged);
        }
        if let Err(full) = self.appender.fits(frame.len()) {
            return Ok(PutOutcome::Full(full));
        }
        self.appender.append_new(&mut writer, frame)?;
        Ok(PutOutcome::Done { overdue: writer.overdue() })
    }

    /// Removes a key whose dependents have been rewritten.
    fn remove_free(&self, key: &[u8]) -> Result<bool, Error> {
        for _ in 0..TRIES_MAX {
            let mut writer = self.inner.writer.lock();
            match self.reader.contains_now(key)? {
                Some(true) => {}
                Some(false) => return Ok(false),
                None => {
                    drop(writer);
                    self.refresher.refresh()?;
                    continue;
                }
            }
            if self.deltas.has_dependents(&|_| false, key) {
                drop(writer);
                self.deltas.rebase(&|other| other == key)?;
                continue;
            }
            self.appender.append_new(&mut writer, &mut Frame::tombstone(key))?;
            return Ok(true);
        }
        Err(self.busy())
    }

    fn try_write(
        &self,
        batch: &WriteBatch,
        frames: &mut [Frame],
        len: u64,
        among: &dyn Fn(&[u8]) -> bool,
    ) -> Result<BatchOutcome, Error> {
        // Held until the records are written, so that the next holder's comparison sees them.
        let _guard = if batch.conditions.is_empty() { None } else { Some(self.inner.rewrite_lock.lock()?) };
        if !batch.conditions.is_empty() {
            self.refresher.refresh()?;
            for (key, expected) in &batch.conditions {
                if self.reader.get(key)?.as_deref() != expected.as_deref() {
                    return Ok(BatchOutcome::Refused);
                }
            }
        }
        if frames.is_empty() {
            return Ok(BatchOutcome::Done { overdue: false });
        }
        let mut writer = self.inner.writer.lock();
        if batch.changes.keys().any(|key| self.deltas.has_dependents(among, key)) {
            return Ok(BatchOutcome::HasDependents);
        }
        if let Err(full) = self.appender.fits(len) {
            let frees = batch.changes.values().all(Option::is_none);
            // A full log still accepts removals.
            if !frees {
                return Ok(BatchOutcome::Full(full));
            }
        }
        self.appender.append_new_batch(&mut writer, frames)?;
        Ok(BatchOutcome::Done { overdue: writer.overdue() })
    }

    pub(crate) fn busy(&self) -> Error {
        let busy =
            std::io::Error::new(std::io::ErrorKind::WouldBlock, "other writers keep storing deltas from it");
        Error::io("change a value in", &self.inner.dir)(busy)
    }
}
