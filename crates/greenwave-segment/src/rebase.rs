//! Differences: what a value is stored against, and what becomes of it when that is removed.
//!
//! A value may be stored as a difference from another key's value, its *base*. Reading it reads both, and their bases in turn: the
//! *chain*, which is bounded. Whoever removes or replaces a value stores those anew first that are differences from it. Of differences that
//! another process writes at that moment it cannot know: such a difference is *stranded*. Its base is superseded but still on the disk, where
//! `read.rs` finds it, and stays there until whoever compacts has stored the stranded value anew.

use std::sync::Arc;

use bytes::Bytes;

use crate::Error;
use crate::codec::{Base, Frame};
use crate::index::{Entry, Place};
use crate::log::{Log, Writer};

/// At the end of a chain, the next value is stored against the one half-way up: so a chain grows by one again, and not each value twice.
const HALF: u8 = 2;

/// A base, and what has to be true of it when the difference is written.
pub(crate) struct Chosen {
    key: Vec<u8>,
    value: Bytes,
    stamp: u64,
    depth: u8,
    place: Place,
}

impl Chosen {
    pub(crate) fn as_base(&self) -> Base<'_> {
        Base { key: &self.key, value: &self.value, stamp: self.stamp, depth: self.depth }
    }
}

impl Log {
    /// What to store a value of `key` against, if it is probably similar to that of `like`.
    pub(crate) fn choose_base(&self, key: &[u8], like: &[u8], value: &[u8]) -> Result<Option<Chosen>, Error> {
        let depth_max = self.options.chain_depth_max;
        if depth_max == 0 || key == like || like.is_empty() || !self.codec.tries_delta(value) {
            return Ok(None);
        }
        let Some(depth) = self.index.read().get(like).map(|entry| entry.depth) else { return Ok(None) };
        let target = if depth < depth_max { depth } else { depth_max / HALF };
        self.base_at(key, like, target)
    }

    /// The nearest of `like`, its base, that one's base, and so on, whose chain is not longer than `depth_max`.
    fn base_at(&self, key: &[u8], like: &[u8], depth_max: u8) -> Result<Option<Chosen>, Error> {
        let Some((base, entry)) = self.ancestor(key, like, depth_max) else { return Ok(None) };
        let value = self.get(&base)?;
        let (stamp, depth, place) = (entry.stamp, entry.depth, entry.place());
        Ok(value.map(|value| Chosen { key: base, value, stamp, depth, place }))
    }

    fn ancestor(&self, key: &[u8], like: &[u8], depth_max: u8) -> Option<(Vec<u8>, Entry)> {
        let index = self.index.read();
        let mut entry = index.get(like)?;
        while entry.depth > depth_max {
            entry = index.get(entry.base.as_ref()?.as_slice())?;
        }
        let slot = index.slot(entry.place().slot);
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

    /// Whether a base is still what it was when it was read. The writer is held, so it stays so until the difference is written.
    pub(crate) fn still_holds(&self, chosen: &Chosen) -> bool {
        let index = self.index.read();
        index.get(&chosen.key).is_some_and(|entry| {
            entry.place() == chosen.place
                && !entry.tombstone
                && entry.stamp == chosen.stamp
                && entry.depth == chosen.depth
        })
    }

    /// Whether values other than those of `keys` are differences from one of them.
    pub(crate) fn has_dependants(&self, keys: &dyn Fn(&[u8]) -> bool, key: &[u8]) -> bool {
        let index = self.index.read();
        index.may_be_base(key)
            && index.dependants(&|base| base == key).iter().any(|entry| !keys(entry.key.as_slice()))
    }

    /// Stores values anew that are differences from one of `keys` and are not among them; returns how many. They are on the disk then.
    pub(crate) fn rebase(&self, keys: &dyn Fn(&[u8]) -> bool) -> Result<u64, Error> {
        let dependants = self.index.read().dependants(keys);
        let mut rebased = 0;
        for entry in dependants.into_iter().filter(|entry| !keys(entry.key.as_slice())) {
            rebased += u64::from(self.store_anew(&entry, keys)?);
        }
        if rebased > 0 {
            // A power cut that kept the removal and lost these would lose the values.
            self.flush()?;
        }
        Ok(rebased)
    }

    /// Stores a value against the nearest base above that is not one of `keys`, or without one.
    fn store_anew(&self, entry: &Entry, keys: &dyn Fn(&[u8]) -> bool) -> Result<bool, Error> {
        let key = entry.key.as_slice();
        let Some(value) = self.get(key)? else { return Ok(false) };
        let mut above = entry.base.clone();
        while let Some(base) = &above
            && keys(base.as_slice())
        {
            above = self.index.read().get(base.as_slice()).and_then(|entry| entry.base.clone());
        }
        let chosen = match &above {
            Some(base) => {
                self.base_at(key, base.as_slice(), self.options.chain_depth_max.saturating_sub(1))?
            }
            None => None,
        };
        let mut frame = self.encode(key, &value, chosen.as_ref());
        let inside = self.enter_for(&frame)?;
        let mut writer = self.writer.lock();
        if !self.is_current(key, entry.place()) {
            return Ok(false);
        }
        if chosen.is_some_and(|chosen| inside.is_none() || !self.still_holds(&chosen)) {
            frame = self.codec.encode(key, &value);
        }
        self.append_again(&mut writer, &mut frame, entry)?;
        drop((writer, inside));
        self.counters.rebased_records.add(1);
        Ok(true)
    }

    /// Stores the stranded values anew, each without a base; returns how many. The caller is inside the fence, so there will not be more.
    pub(crate) fn relieve(&self) -> Result<u64, Error> {
        let stranded = self.index.read().stranded();
        let mut relieved = 0;
        for entry in stranded {
            let key = entry.key.as_slice();
            let Some(value) = self.get(key)? else { continue };
            let mut frame = self.codec.encode(key, &value);
            let mut writer = self.writer.lock();
            if self.is_current(key, entry.place()) {
                self.append_again(&mut writer, &mut frame, &entry)?;
                self.counters.rebased_records.add(1);
                relieved += 1;
            }
        }
        Ok(relieved)
    }

    /// Appends a value that is there already, with its old stamp: a new one could win against what another process has put since. Whether
    /// the budget allows it is not asked: a removal that it forbids would never free anything.
    fn append_again(&self, writer: &mut Writer, frame: &mut Frame, entry: &Entry) -> Result<(), Error> {
        frame.header.stamp = entry.stamp;
        frame.header.generation = entry.generation;
        frame.header = frame.header.copied();
        self.append_unbudgeted(writer, frame)
    }

    pub(crate) fn encode(&self, key: &[u8], value: &[u8], chosen: Option<&Chosen>) -> Frame {
        match chosen {
            Some(chosen) => self.codec.encode_against(key, value, &chosen.as_base()),
            None => self.codec.encode(key, value),
        }
    }

    /// A difference far down a chain, against one half-way up; `None` if that would take much more room, or more than `spare` bytes more.
    pub(crate) fn shortened(&self, entry: &Entry, spare: u64) -> Result<Option<(Frame, Chosen)>, Error> {
        let half = self.options.chain_depth_max / HALF;
        let key = entry.key.as_slice();
        let Some(base) = entry.base.as_ref().filter(|_| entry.depth > half) else { return Ok(None) };
        let Some(value) = self.get(key)? else { return Ok(None) };
        let Some(chosen) = self.base_at(key, base.as_slice(), half.saturating_sub(1))? else {
            return Ok(None);
        };
        let mut frame = self.codec.encode_against(key, &value, &chosen.as_base());
        frame.header.stamp = entry.stamp;
        let extra = (frame.bytes.len() as u64).saturating_sub(entry.record_len());
        let affordable = extra <= entry.record_len().min(spare);
        Ok(affordable.then_some((frame, chosen)))
    }

    pub(crate) fn is_current(&self, key: &[u8], place: Place) -> bool {
        self.index.read().get(key).is_some_and(|entry| entry.place() == place)
    }
}

/// Keys as a set, for looking up.
pub(crate) fn member<'a>(keys: &[&'a [u8]]) -> impl Fn(&[u8]) -> bool + use<'a> {
    let keys: Arc<std::collections::HashSet<&'a [u8]>> = Arc::new(keys.iter().copied().collect());
    move |key| keys.contains(key)
}
