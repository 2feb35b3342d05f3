//! Batches: changes that count together or not at all, on conditions that no other batch can change in between.

use std::collections::BTreeMap;

use crate::Error;
use crate::codec::Frame;
use crate::log::Log;
use crate::rebase::member;

/// Most bytes that the records of a batch take together.
const BATCH_BYTES_MAX: u64 = 1 << 30;
/// How often a batch makes room, or finds that other processes have stored differences against what it replaces.
const TRIES_MAX: usize = 16;

/// Changes for [`Log::write`]. Of several changes of one key the last counts.
#[derive(Debug, Clone, Default)]
pub struct Batch {
    changes: BTreeMap<Vec<u8>, Option<Vec<u8>>>,
    conditions: BTreeMap<Vec<u8>, Option<Vec<u8>>>,
}

impl Batch {
    /// A batch without changes.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets `key` to `value`.
    #[must_use]
    pub fn put(mut self, key: &[u8], value: &[u8]) -> Self {
        self.changes.insert(key.to_vec(), Some(value.to_vec()));
        self
    }

    /// Removes `key`.
    #[must_use]
    pub fn remove(mut self, key: &[u8]) -> Self {
        self.changes.insert(key.to_vec(), None);
        self
    }

    /// Writes the batch only if `key` has this value, or has none, when the batch is written.
    #[must_use]
    pub fn expect(mut self, key: &[u8], value: Option<&[u8]>) -> Self {
        self.conditions.insert(key.to_vec(), value.map(<[u8]>::to_vec));
        self
    }

    /// Whether there is nothing to change.
    pub fn is_empty(&self) -> bool {
        self.changes.is_empty()
    }
}

/// What became of an attempt to write a batch.
enum Written {
    /// All of it is there. A flush is overdue when too much waits for one.
    Done { overdue: bool },
    /// A condition does not hold.
    Refused,
    /// Other values are differences from what it replaces.
    IsBase,
    /// It does not fit the budget.
    Full(Error),
}

impl Log {
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
    pub fn write(&self, batch: &Batch) -> Result<bool, Error> {
        self.check_writable()?;
        for (key, value) in batch.changes.iter().chain(&batch.conditions) {
            self.check_size(key, value.as_deref().unwrap_or_default())?;
        }
        let mut frames: Vec<Frame> = Vec::with_capacity(batch.changes.len());
        for (key, value) in &batch.changes {
            frames.push(
                value.as_ref().map_or_else(|| Frame::tombstone(key), |value| self.codec.encode(key, value)),
            );
        }
        let len = frames.iter().map(|frame| frame.bytes.len() as u64).sum();
        if len > BATCH_BYTES_MAX {
            return Err(Error::BatchTooLarge { len, max: BATCH_BYTES_MAX });
        }
        let keys: Vec<&[u8]> = batch.changes.keys().map(Vec::as_slice).collect();
        let among = member(&keys);
        for _ in 0..TRIES_MAX {
            self.refresh_before_roll(len)?;
            match self.try_write(batch, &mut frames, len, &among)? {
                Written::Done { overdue } => {
                    self.flush_if(overdue);
                    return Ok(true);
                }
                Written::Refused => return Ok(false),
                Written::IsBase => drop(self.rebase(&among)?),
                Written::Full(full) => self.make_space(full)?,
            }
        }
        Err(self.fits(len).err().unwrap_or_else(|| self.busy()))
    }

    /// Replaces the value of `key`, or removes it, if it has the value `expected`, or none; returns whether it was replaced. Atomic
    /// among processes, under the conditions of [`write`](Self::write).
    ///
    /// # Errors
    ///
    /// Those of [`write`](Self::write).
    pub fn compare_and_swap(
        &self,
        key: &[u8],
        expected: Option<&[u8]>,
        new: Option<&[u8]>,
    ) -> Result<bool, Error> {
        let batch = Batch::new().expect(key, expected);
        self.write(&match new {
            Some(value) => batch.put(key, value),
            None => batch.remove(key),
        })
    }

    fn try_write(
        &self,
        batch: &Batch,
        frames: &mut [Frame],
        len: u64,
        among: &dyn Fn(&[u8]) -> bool,
    ) -> Result<Written, Error> {
        // Held until the records are there, so that whoever compares next finds them.
        let _inside = if batch.conditions.is_empty() { None } else { Some(self.fence.enter()?) };
        if !batch.conditions.is_empty() {
            self.refresh()?;
            for (key, expected) in &batch.conditions {
                if self.get(key)?.as_deref() != expected.as_deref() {
                    return Ok(Written::Refused);
                }
            }
        }
        if frames.is_empty() {
            return Ok(Written::Done { overdue: false });
        }
        let mut writer = self.writer.lock();
        if batch.changes.keys().any(|key| self.has_dependants(among, key)) {
            return Ok(Written::IsBase);
        }
        if let Err(full) = self.fits(len) {
            let frees = batch.changes.values().all(Option::is_none);
            // A full log still takes removals.
            if !frees {
                return Ok(Written::Full(full));
            }
        }
        let stamp = self.next_stamp(&mut writer);
        frames.iter_mut().for_each(|frame| frame.header.stamp = stamp);
        self.append_batch(&mut writer, frames)?;
        Ok(Written::Done { overdue: writer.overdue() })
    }
}
