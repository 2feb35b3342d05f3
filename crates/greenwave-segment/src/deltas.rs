//! Deltas: chooses the base that a value is stored against, and rewrites deltas when their base
//! changes.
//!
//! A value may be stored as a delta from the value of another key, its *base*. Reading it reads the
//! base as well, and the base's base, along a *chain* of bounded length. A process that removes or
//! replaces a value first rewrites the deltas that depend on it. It cannot know about deltas that
//! another process writes at that moment. Such a delta is *stranded*: its base is superseded but
//! still on the disk, where `read.rs` finds it. The base stays there until a compactor has
//! rewritten the stranded value.

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

/// Divisor of the maximum depth at the end of a chain: the next value is stored against the base
/// half-way up. The chain can then grow again, so that not every value is stored whole.
const HALF: u8 = 2;

/// A base, and the state of its entry when it was read.
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

/// Stores values as deltas, and rewrites deltas whose base changes.
#[derive(Clone, Copy)]
pub(crate) struct Deltas<'a> {
    inner: &'a Inner,
    refresher: Refresher<'a>,
    reader: Reader<'a>,
    appender: Appender<'a>,
}

impl<'a> Deltas<'a> {
    pub(crate) fn new(inner: &'a Inner) -> Self {
        Self {
            inner,
            refresher: Refresher::new(inner),
            reader: Reader::new(inner),
            appender: Appender::new(inner),
        }
    }

    /// Chooses the base for a value of `key` that is probably similar to the value of `similar`.
    pub(crate) fn choose_base(
        &self,
        key: &[u8],
        similar: &[u8],
        value: &[u8],
    ) -> Result<Option<ChosenBase>, Error> {
        let depth_max = self.inner.options.chain_depth_max;
        if depth_max == 0 || key == similar || similar.is_empty() || !self.inner.codec.can_delta(value) {
            return Ok(None);
        }
        let Some(depth) = self.inner.index.read().get(similar).map(|entry| entry.depth) else {
            return Ok(None);
        };
        let target = if depth < depth_max { depth } else { depth_max / HALF };
        self.base_at(key, similar, target)
    }

    pub(crate) fn encode(&self, key: &[u8], value: &[u8], base: Option<&ChosenBase>) -> Frame {
        match base {
            Some(base) => self.inner.codec.encode_against(key, value, &base.as_base()),
            None => self.inner.codec.encode(key, value),
        }
    }

    /// Takes the rewrite lock for a delta, so that no process removes its base before it is
    /// written, and refreshes if removals were announced since the last time. Returns `None` for a
    /// record that is not a delta, or if the lock is not free soon; a delta must not be written
    /// then.
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
        self.refresh_if_announced(&mut guard)?;
        Ok(Some(guard))
    }

    /// Refreshes if removals were announced since the last refresh under the rewrite lock.
    fn refresh_if_announced(&self, guard: &mut RewriteGuard<'_>) -> Result<(), Error> {
        if !guard.is_unchanged() {
            self.refresher.refresh()?;
            guard.mark_refreshed();
        }
        Ok(())
    }

    /// Returns whether a base is unchanged since it was read. The caller holds the writer, so the
    /// base stays unchanged until the delta is written.
    pub(crate) fn base_is_current(&self, base: &ChosenBase) -> bool {
        let index = self.inner.index.read();
        index.get(&base.key).is_some_and(|entry| {
            entry.location() == base.location
                && !entry.tombstone
                && entry.timestamp == base.timestamp
                && entry.depth == base.depth
        })
    }

    /// Returns whether the value of `key` is the base of a delta whose key is not in `keys`.
    pub(crate) fn has_dependents(&self, keys: &dyn Fn(&[u8]) -> bool, key: &[u8]) -> bool {
        let index = self.inner.index.read();
        index.may_be_base(key)
            && index.dependents(&|base| base == key).iter().any(|entry| !keys(entry.key.as_slice()))
    }

    /// Rewrites and flushes all deltas whose base is in `keys` and whose own key is not; returns
    /// how many.
    pub(crate) fn rebase(&self, keys: &dyn Fn(&[u8]) -> bool) -> Result<u64, Error> {
        let dependents = self.inner.index.read().dependents(keys);
        let mut rebased = 0;
        for entry in dependents.into_iter().filter(|entry| !keys(entry.key.as_slice())) {
            rebased += u64::from(self.rewrite_value(&entry, keys)?);
        }
        if rebased > 0 {
            // If a power cut preserved the removal but not the rewritten deltas, their values would
            // be lost.
            self.appender.flush()?;
        }
        Ok(rebased)
    }

    /// Rewrites all stranded values without a base; returns how many. The caller holds the rewrite
    /// lock, so no process can add more.
    pub(crate) fn rewrite_stranded(&self) -> Result<u64, Error> {
        let stranded = self.inner.index.read().stranded();
        let mut rewritten = 0;
        for entry in stranded {
            let key = entry.key.as_slice();
            let Some(value) = self.reader.get(key)? else { continue };
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

    /// Encodes a delta far down its chain against the base half-way up. Returns `None` if that
    /// would double its size or take more than `spare` bytes more.
    pub(crate) fn shorten_chain(
        &self,
        entry: &Entry,
        spare: u64,
    ) -> Result<Option<(Frame, ChosenBase)>, Error> {
        let half = self.inner.options.chain_depth_max / HALF;
        let key = entry.key.as_slice();
        let Some(base) = entry.base.as_ref().filter(|_| entry.depth > half) else { return Ok(None) };
        let Some(value) = self.reader.get(key)? else { return Ok(None) };
        let Some(base) = self.base_at(key, base.as_slice(), half.saturating_sub(1))? else {
            return Ok(None);
        };
        let mut frame = self.inner.codec.encode_against(key, &value, &base.as_base());
        frame.header.timestamp = entry.timestamp;
        let extra = frame.len().saturating_sub(entry.record_len());
        let affordable = extra <= entry.record_len().min(spare);
        Ok(affordable.then_some((frame, base)))
    }

    /// Reads the first of `similar`, its base, the base's base, and so on, whose depth is at most
    /// `depth_max`.
    fn base_at(&self, key: &[u8], similar: &[u8], depth_max: u8) -> Result<Option<ChosenBase>, Error> {
        let Some((base, entry)) = self.ancestor(key, similar, depth_max) else { return Ok(None) };
        let value = self.reader.get(&base)?;
        let (timestamp, depth, location) = (entry.timestamp, entry.depth, entry.location());
        Ok(value.map(|value| ChosenBase { key: base, value, timestamp, depth, location }))
    }

    fn ancestor(&self, key: &[u8], similar: &[u8], depth_max: u8) -> Option<(Vec<u8>, Entry)> {
        let index = self.inner.index.read();
        let mut entry = index.get(similar)?;
        while entry.depth > depth_max {
            entry = index.get(entry.base.as_ref()?.as_slice())?;
        }
        let slot = index.slot(entry.location().slot);
        // A flush must make the base durable too, but it does not sync segments that other
        // processes write. A base must not depend on the key itself either.
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

    /// Rewrites a delta against its nearest ancestor that is not in `keys`, or without a base.
    fn rewrite_value(&self, entry: &Entry, keys: &dyn Fn(&[u8]) -> bool) -> Result<bool, Error> {
        let key = entry.key.as_slice();
        let Some(value) = self.reader.get(key)? else { return Ok(false) };
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
        // The index may be stale. A compactor may have forgotten that the value was removed or
        // replaced, and a copy would bring it back.
        let mut guard = self.inner.rewrite_lock.lock()?;
        self.refresh_if_announced(&mut guard)?;
        let mut writer = self.inner.writer.lock();
        if !self.inner.is_current(key, entry.location()) {
            return Ok(false);
        }
        if base.is_some_and(|base| !self.base_is_current(&base)) {
            frame = self.inner.codec.encode(key, &value);
        }
        self.append_copy(&mut writer, &mut frame, entry)?;
        drop((writer, guard));
        self.inner.counters.rebased_records.add(1);
        Ok(true)
    }

    /// Appends a copy of a value with its old timestamp, since a new one could win against a later
    /// put of another process. Ignores the disk budget: a removal must always succeed, or a full
    /// log could never be emptied.
    fn append_copy(&self, writer: &mut Writer, frame: &mut Frame, entry: &Entry) -> Result<(), Error> {
        frame.header.timestamp = entry.timestamp;
        frame.header.generation = entry.generation;
        frame.header = frame.header.copied();
        self.appender.append_unbudgeted(writer, frame)
    }
}

/// Returns a function that tests whether a key is among `keys`.
pub(crate) fn key_set<'a>(keys: &[&'a [u8]]) -> impl Fn(&[u8]) -> bool + use<'a> {
    let keys: Arc<std::collections::HashSet<&'a [u8]>> = Arc::new(keys.iter().copied().collect());
    move |key| keys.contains(key)
}
