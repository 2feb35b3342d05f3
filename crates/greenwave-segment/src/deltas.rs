//! Deltas.

use std::sync::Arc;

use bytes::Bytes;

use crate::Error;
use crate::append::Appender;
use crate::codec::{DeltaBase, Frame};
use crate::entry::{Entry, Location};
use crate::inner::Inner;
use crate::read::Reader;
use crate::refresh::Refresher;
use crate::rewrite_lock::RewriteGuard;
use crate::writer::Writer;

/// At the end of a chain, the next value is stored against the one half-way up: so a chain grows by one again, and not each value twice.
const HALF: u8 = 2;

/// A base, and what has to be true of it when the difference is written.
pub(crate) struct ChosenBase {
    key: Vec<u8>,
    value: Bytes,
    timestamp: u64,
    depth: u8,
    location: Location,
}

impl ChosenBase {
    pub(crate) fn as_base(&self) -> DeltaBase<'_> {
        DeltaBase { key: &self.key, value: &self.value, timestamp: self.timestamp, depth: self.depth }
    }
}

/// Stores values as deltas, and rewrites those whose base changes.
#[derive(Clone, Copy)]
pub(crate) struct Deltas<'a> {
    inner: &'a Inner,
}

impl<'a> Deltas<'a> {
    pub(crate) fn new(inner: &'a Inner) -> Self {
        Self { inner }
    }

    /// What to store a value of `key` against, if it is probably similar to that of `like`.
    pub(crate) fn choose_base(
        &self,
        key: &[u8],
        like: &[u8],
        value: &[u8],
    ) -> Result<Option<ChosenBase>, Error> {
        let depth_max = self.inner.options.chain_depth_max;
        if depth_max == 0 || key == like || like.is_empty() || !self.inner.codec.can_delta(value) {
            return Ok(None);
        }
        let Some(depth) = self.inner.index.read().get(like).map(|entry| entry.depth) else { return Ok(None) };
        let target = if depth < depth_max { depth } else { depth_max / HALF };
        self.base_at(key, like, target)
    }

    pub(crate) fn encode(&self, key: &[u8], value: &[u8], base: Option<&ChosenBase>) -> Frame {
        match base {
            Some(base) => self.inner.codec.encode_against(key, value, &base.as_base()),
            None => self.inner.codec.encode(key, value),
        }
    }

    /// For a difference, keeps all processes from removing what it is from until it is written; with a look at what they did remove. `None` for
    /// what is no difference, and if there is no getting in soon: then it must not be written.
    pub(crate) fn lock_for_delta(&self, frame: &Frame) -> Result<Option<RewriteGuard<'a>>, Error> {
        if frame.header.depth() == 0 {
            return Ok(None);
        }
        let Some(mut guard) = self.inner.rewrite_lock.lock_briefly().unwrap_or_else(|error| {
            tracing::debug!(%error, "storing a value whole");
            None
        }) else {
            return Ok(None);
        };
        if !guard.is_unchanged() {
            Refresher::new(self.inner).refresh()?;
            guard.mark_refreshed();
        }
        Ok(Some(guard))
    }

    /// Whether a base is still what it was when it was read. The writer is held, so it stays so until the difference is written.
    pub(crate) fn base_is_current(&self, base: &ChosenBase) -> bool {
        let index = self.inner.index.read();
        index.get(&base.key).is_some_and(|entry| {
            entry.location() == base.location
                && !entry.tombstone
                && entry.timestamp == base.timestamp
                && entry.depth == base.depth
        })
    }

    /// Whether values other than those of `keys` are differences from one of them.
    pub(crate) fn has_dependents(&self, keys: &dyn Fn(&[u8]) -> bool, key: &[u8]) -> bool {
        let index = self.inner.index.read();
        index.may_be_base(key)
            && index.dependents(&|base| base == key).iter().any(|entry| !keys(entry.key.as_slice()))
    }

    /// Stores values anew that are differences from one of `keys` and are not among them; returns how many. They are on the disk then.
    pub(crate) fn rebase(&self, keys: &dyn Fn(&[u8]) -> bool) -> Result<u64, Error> {
        let dependents = self.inner.index.read().dependents(keys);
        let mut rebased = 0;
        for entry in dependents.into_iter().filter(|entry| !keys(entry.key.as_slice())) {
            rebased += u64::from(self.rewrite_value(&entry, keys)?);
        }
        if rebased > 0 {
            // A power cut that kept the removal and lost these would lose the values.
            Appender::new(self.inner).flush()?;
        }
        Ok(rebased)
    }

    /// Stores the stranded values anew, each without a base; returns how many. The caller is inside the fence, so there will not be more.
    pub(crate) fn rewrite_stranded(&self) -> Result<u64, Error> {
        let stranded = self.inner.index.read().stranded();
        let mut rewritten = 0;
        for entry in stranded {
            let key = entry.key.as_slice();
            let Some(value) = Reader::new(self.inner).get(key)? else { continue };
            let mut frame = self.inner.codec.encode(key, &value);
            let mut writer = self.inner.writer.lock();
            if self.inner.is_current(key, entry.location()) {
                self.append_copy(&mut writer, &mut frame, &entry)?;
                self.inner.counters.rebased_records.add(1);
                rewritten += 1;
            }
        }
        Ok(rewritten)
    }

    /// A difference far down a chain, against one half-way up; `None` if that would take much more room, or more than `spare` bytes more.
    pub(crate) fn shorten_chain(
        &self,
        entry: &Entry,
        spare: u64,
    ) -> Result<Option<(Frame, ChosenBase)>, Error> {
        let half = self.inner.options.chain_depth_max / HALF;
        let key = entry.key.as_slice();
        let Some(base) = entry.base.as_ref().filter(|_| entry.depth > half) else { return Ok(None) };
        let Some(value) = Reader::new(self.inner).get(key)? else { return Ok(None) };
        let Some(base) = self.base_at(key, base.as_slice(), half.saturating_sub(1))? else {
            return Ok(None);
        };
        let mut frame = self.inner.codec.encode_against(key, &value, &base.as_base());
        frame.header.timestamp = entry.timestamp;
        let extra = (frame.bytes.len() as u64).saturating_sub(entry.record_len());
        let affordable = extra <= entry.record_len().min(spare);
        Ok(affordable.then_some((frame, base)))
    }

    /// The nearest of `like`, its base, that one's base, and so on, whose chain is not longer than `depth_max`.
    fn base_at(&self, key: &[u8], like: &[u8], depth_max: u8) -> Result<Option<ChosenBase>, Error> {
        let Some((base, entry)) = self.ancestor(key, like, depth_max) else { return Ok(None) };
        let value = Reader::new(self.inner).get(&base)?;
        let (timestamp, depth, location) = (entry.timestamp, entry.depth, entry.location());
        Ok(value.map(|value| ChosenBase { key: base, value, timestamp, depth, location }))
    }

    fn ancestor(&self, key: &[u8], like: &[u8], depth_max: u8) -> Option<(Vec<u8>, Entry)> {
        let index = self.inner.index.read();
        let mut entry = index.get(like)?;
        while entry.depth > depth_max {
            entry = index.get(entry.base.as_ref()?.as_slice())?;
        }
        let slot = index.slot(entry.location().slot);
        // A flush of ours has to make the base durable too: it does not reach into a segment that another process is writing. And a
        // base must not depend on what depends on it.
        let usable = !entry.tombstone && (slot.sealed || slot.own) && entry.key.as_slice() != key;
        let free_of_key = || {
            let mut above = entry;
            while let Some(base) = &above.base {
                if base.as_slice() == key {
                    return false;
                }
                let Some(next) = index.get(base.as_slice()) else { return false };
                above = next;
            }
            true
        };
        (usable && free_of_key()).then(|| (entry.key.as_slice().to_vec(), entry.clone()))
    }

    /// Stores a value against the nearest base above that is not one of `keys`, or without one.
    fn rewrite_value(&self, entry: &Entry, keys: &dyn Fn(&[u8]) -> bool) -> Result<bool, Error> {
        let key = entry.key.as_slice();
        let Some(value) = Reader::new(self.inner).get(key)? else { return Ok(false) };
        let mut above = entry.base.clone();
        while let Some(base) = &above
            && keys(base.as_slice())
        {
            above = self.inner.index.read().get(base.as_slice()).and_then(|entry| entry.base.clone());
        }
        let base = match &above {
            Some(base) => {
                self.base_at(key, base.as_slice(), self.inner.options.chain_depth_max.saturating_sub(1))?
            }
            None => None,
        };
        let mut frame = self.encode(key, &value, base.as_ref());
        let guard = self.lock_for_delta(&frame)?;
        let mut writer = self.inner.writer.lock();
        if !self.inner.is_current(key, entry.location()) {
            return Ok(false);
        }
        if base.is_some_and(|base| guard.is_none() || !self.base_is_current(&base)) {
            frame = self.inner.codec.encode(key, &value);
        }
        self.append_copy(&mut writer, &mut frame, entry)?;
        drop((writer, guard));
        self.inner.counters.rebased_records.add(1);
        Ok(true)
    }

    /// Appends a value that is there already, with its old stamp: a new one could win against what another process has put since. Whether
    /// the budget allows it is not asked: a removal that it forbids would never free anything.
    fn append_copy(&self, writer: &mut Writer, frame: &mut Frame, entry: &Entry) -> Result<(), Error> {
        frame.header.timestamp = entry.timestamp;
        frame.header.generation = entry.generation;
        frame.header = frame.header.copied();
        Appender::new(self.inner).append_unbudgeted(writer, frame)
    }
}

/// Keys as a set, for looking up.
pub(crate) fn contains_in<'a>(keys: &[&'a [u8]]) -> impl Fn(&[u8]) -> bool + use<'a> {
    let keys: Arc<std::collections::HashSet<&'a [u8]>> = Arc::new(keys.iter().copied().collect());
    move |key| keys.contains(key)
}
