//! Puts, removals and batches.

use crate::Error;
use crate::append::Appender;
use crate::batch::Batch;
use crate::codec::Frame;
use crate::compact::Compactor;
use crate::deltas::Deltas;
use crate::deltas::{ChosenBase, contains_in};
use crate::inner::Inner;
use crate::read::Reader;
use crate::refresh::Refresher;

/// How often a put makes room before it takes the log for full, and how often a removal is overtaken by puts against what it removes.
const TRIES_MAX: usize = 16;

/// Most bytes that the records of a batch take together.
const BATCH_BYTES_MAX: u64 = 1 << 30;

/// What became of an attempt to put.
enum PutOutcome {
    /// The record is there. A flush is `overdue` when too much waits for one.
    Done { overdue: bool },
    /// Other values are differences from the old one.
    HasDependents,
    /// What the new one is a difference from has changed, or cannot be kept from changing.
    BaseChanged,
    /// It does not fit the budget.
    Full(Error),
}

/// What became of an attempt to write a batch.
enum BatchOutcome {
    /// All of it is there. A flush is overdue when too much waits for one.
    Done { overdue: bool },
    /// A condition does not hold.
    Refused,
    /// Other values are differences from what it replaces.
    HasDependents,
    /// It does not fit the budget.
    Full(Error),
}

/// Changes values: puts, removals and batches.
#[derive(Clone, Copy)]
pub(crate) struct Changes<'a> {
    inner: &'a Inner,
}

impl<'a> Changes<'a> {
    pub(crate) fn new(inner: &'a Inner) -> Self {
        Self { inner }
    }

    /// Like [`put`](Self::put), for a value that is probably similar to that of `base`: an earlier version of it, say. It is then stored as
    /// the difference, if that takes a quarter less room. Costs reading that value, about as much as compressing this one.
    ///
    /// What `base` names may be missing, and may be removed or set anew later without harm, by any process. Values of up to 64 MiB, both
    /// together, are compared; others, and those of a log that is opened without compression, are stored without difference, as are all in
    /// a log that drops the oldest.
    ///
    /// # Errors
    ///
    /// Those of [`put`](Self::put).
    pub(crate) fn put_delta(&self, key: &[u8], value: &[u8], base: &[u8]) -> Result<(), Error> {
        self.inner.check_writable()?;
        self.inner.check_size(key, value)?;
        let base = Deltas::new(self.inner).choose_base(key, base, value)?;
        let mut frame = Deltas::new(self.inner).encode(key, value, base.as_ref());
        let is_key = |other: &[u8]| other == key;
        for _ in 0..TRIES_MAX {
            Appender::new(self.inner).refresh_before_roll(frame.bytes.len() as u64)?;
            match self.try_put(key, &mut frame, base.as_ref())? {
                PutOutcome::Done { overdue } => {
                    Appender::new(self.inner).flush_if(overdue);
                    return Ok(());
                }
                PutOutcome::HasDependents => drop(Deltas::new(self.inner).rebase(&is_key)?),
                PutOutcome::BaseChanged => frame = self.inner.codec.encode(key, value),
                PutOutcome::Full(full) => Compactor::new(self.inner).make_space(full)?,
            }
        }
        Err(Appender::new(self.inner).fits(frame.bytes.len() as u64).err().unwrap_or_else(|| self.busy()))
    }

    /// Removes keys; returns how many had a value. Values that are stored as differences from theirs, and are not removed with them, are
    /// stored anew first, which costs one look at all keys if there are any.
    ///
    /// # Errors
    ///
    /// [`Error::Io`]. Some of the values then stay. A full log still takes removals.
    pub(crate) fn remove_many(&self, keys: &[&[u8]]) -> Result<u64, Error> {
        self.inner.check_writable()?;
        let among = contains_in(keys);
        let mut present: Vec<(u8, &[u8])> = keys
            .iter()
            .filter_map(|key| Some((Reader::new(self.inner).lookup(key)?.0.depth, *key)))
            .collect();
        // Differences before what they are differences from.
        present.sort_unstable_by_key(|(depth, _)| std::cmp::Reverse(*depth));
        if present.iter().any(|(_, key)| self.inner.index.read().may_be_base(key)) {
            Deltas::new(self.inner).rebase(&among)?;
        }
        let mut removed = 0;
        for (_, key) in present {
            removed += u64::from(self.remove_free(key)?);
        }
        Ok(removed)
    }

    /// Makes all changes of a batch, or none if one of its conditions does not hold; returns whether they were made. After a
    /// crash or a power cut either all of them are there or none is, and of two batches that change the same keys one counts
    /// for all of these. Durable after [`flush`](Self::flush), as a put is.
    ///
    /// Conditions are compared with the newest values of all processes. Between the comparison and the changes no other batch
    /// with conditions can come, of any process; a [`put`](Self::put) or [`remove`](Self::remove) can, so change keys that
    /// conditions name with batches only.
    ///
    /// Values are not stored as differences. All records stand in one segment, which may become larger than
    /// [`Options::segment_bytes_max`](crate::Options::segment_bytes_max) for it.
    ///
    /// # Errors
    ///
    /// [`Error::KeyTooLong`], [`Error::ValueTooLarge`], [`Error::BatchTooLarge`] from 1 GiB on, [`Error::Full`],
    /// [`Error::ReadOnly`], or [`Error::Io`]. Nothing has changed then.
    pub(crate) fn write(&self, batch: &Batch) -> Result<bool, Error> {
        self.inner.check_writable()?;
        for (key, value) in batch.changes.iter().chain(&batch.conditions) {
            self.inner.check_size(key, value.as_deref().unwrap_or_default())?;
        }
        let mut frames: Vec<Frame> = Vec::with_capacity(batch.changes.len());
        for (key, value) in &batch.changes {
            frames.push(
                value
                    .as_ref()
                    .map_or_else(|| Frame::tombstone(key), |value| self.inner.codec.encode(key, value)),
            );
        }
        let len = frames.iter().map(|frame| frame.bytes.len() as u64).sum();
        if len > BATCH_BYTES_MAX {
            return Err(Error::BatchTooLarge { len, max: BATCH_BYTES_MAX });
        }
        let keys: Vec<&[u8]> = batch.changes.keys().map(Vec::as_slice).collect();
        let among = contains_in(&keys);
        for _ in 0..TRIES_MAX {
            Appender::new(self.inner).refresh_before_roll(len)?;
            match self.try_write(batch, &mut frames, len, &among)? {
                BatchOutcome::Done { overdue } => {
                    Appender::new(self.inner).flush_if(overdue);
                    return Ok(true);
                }
                BatchOutcome::Refused => return Ok(false),
                BatchOutcome::HasDependents => drop(Deltas::new(self.inner).rebase(&among)?),
                BatchOutcome::Full(full) => Compactor::new(self.inner).make_space(full)?,
            }
        }
        Err(Appender::new(self.inner).fits(len).err().unwrap_or_else(|| self.busy()))
    }

    /// Appends a value's record, unless something else has to be done first.
    fn try_put(&self, key: &[u8], frame: &mut Frame, base: Option<&ChosenBase>) -> Result<PutOutcome, Error> {
        let entered = Deltas::new(self.inner).lock_for_delta(frame)?;
        if frame.header.depth() > 0 && entered.is_none() {
            // Somebody compacts, for which no put waits: this one is stored whole.
            return Ok(PutOutcome::BaseChanged);
        }
        let mut writer = self.inner.writer.lock();
        if Deltas::new(self.inner).has_dependents(&|_| false, key) {
            return Ok(PutOutcome::HasDependents);
        }
        if frame.header.depth() > 0 && base.is_some_and(|base| !Deltas::new(self.inner).base_is_current(base))
        {
            return Ok(PutOutcome::BaseChanged);
        }
        if let Err(full) = Appender::new(self.inner).fits(frame.bytes.len() as u64) {
            return Ok(PutOutcome::Full(full));
        }
        frame.header.timestamp = Appender::new(self.inner).next_timestamp(&mut writer);
        Appender::new(self.inner).append_unbudgeted(&mut writer, frame)?;
        Ok(PutOutcome::Done { overdue: writer.overdue() })
    }

    /// Removes a key that probably is no base any more.
    fn remove_free(&self, key: &[u8]) -> Result<bool, Error> {
        for _ in 0..TRIES_MAX {
            let mut writer = self.inner.writer.lock();
            if !self.inner.contains(key) {
                return Ok(false);
            }
            if Deltas::new(self.inner).has_dependents(&|_| false, key) {
                drop(writer);
                Deltas::new(self.inner).rebase(&|other| other == key)?;
                continue;
            }
            let mut frame = Frame::tombstone(key);
            frame.header.timestamp = Appender::new(self.inner).next_timestamp(&mut writer);
            Appender::new(self.inner).append_unbudgeted(&mut writer, &mut frame)?;
            return Ok(true);
        }
        Err(self.busy())
    }

    fn try_write(
        &self,
        batch: &Batch,
        frames: &mut [Frame],
        len: u64,
        among: &dyn Fn(&[u8]) -> bool,
    ) -> Result<BatchOutcome, Error> {
        // Held until the records are there, so that whoever compares next finds them.
        let _guard = if batch.conditions.is_empty() { None } else { Some(self.inner.rewrite_lock.lock()?) };
        if !batch.conditions.is_empty() {
            Refresher::new(self.inner).refresh()?;
            for (key, expected) in &batch.conditions {
                if Reader::new(self.inner).get(key)?.as_deref() != expected.as_deref() {
                    return Ok(BatchOutcome::Refused);
                }
            }
        }
        if frames.is_empty() {
            return Ok(BatchOutcome::Done { overdue: false });
        }
        let mut writer = self.inner.writer.lock();
        if batch.changes.keys().any(|key| Deltas::new(self.inner).has_dependents(among, key)) {
            return Ok(BatchOutcome::HasDependents);
        }
        if let Err(full) = Appender::new(self.inner).fits(len) {
            let frees = batch.changes.values().all(Option::is_none);
            // A full log still takes removals.
            if !frees {
                return Ok(BatchOutcome::Full(full));
            }
        }
        let timestamp = Appender::new(self.inner).next_timestamp(&mut writer);
        frames.iter_mut().for_each(|frame| frame.header.timestamp = timestamp);
        Appender::new(self.inner).append_batch(&mut writer, frames)?;
        Ok(BatchOutcome::Done { overdue: writer.overdue() })
    }

    pub(crate) fn busy(&self) -> Error {
        let busy = std::io::Error::new(std::io::ErrorKind::WouldBlock, "others keep storing against it");
        Error::io("change a value in", &self.inner.dir)(busy)
    }
}
