//! Reads values: from their record, or from the records of a chain of deltas.

use std::io;
use std::sync::Arc;

use bytes::Bytes;

use crate::Error;
use crate::codec::{DeltaPayload, Frame, dictionary_id, parse_delta};
use crate::entry::{Location, RecordRef};
use crate::error::unless_gone;
use crate::format::{SEGMENT_HEADER_BYTES, UNKNOWN_CODEC};
use crate::inner::Inner;
use crate::record::{self, Codec as CodecId, HEADER_BYTES, Header, RecordKind};
use crate::refresh::Refresher;
use crate::scan::{self, PayloadCheck};
use crate::segment::Segment;
use crate::unread::{Completion, Unread};

/// Values from this size on take about a millisecond to read and decompress, and are not read
/// without blocking; in bytes.
const NOWAIT_BYTES_MAX: u64 = 1 << 20;

/// Attempts at reading a value while its record or its base is replaced.
const TRIES_MAX: usize = 8;

/// Result of [`Log::get_nowait`](crate::Log::get_nowait).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Nowait {
    /// Result that [`Log::get`](crate::Log::get) would have returned.
    Ready(Option<Bytes>),
    /// The read would have to wait: call [`Log::get`](crate::Log::get) where blocking is allowed.
    WouldBlock,
}

/// Whether a read may wait for the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Blocking {
    Allowed,
    Forbidden,
}

/// Reason why a read returned no value.
enum ReadFailure {
    Io(Error),
    WouldBlock,
    /// A record does not verify, or a base is missing.
    Bad(&'static str),
    /// Another process has removed the segment, and the file was not open.
    Gone,
}

/// A record whose hashes verify.
struct VerifiedRecord {
    header: Header,
    payload: Bytes,
}

/// Reads values.
#[derive(Clone, Copy)]
pub(crate) struct Reader<'a> {
    inner: &'a Inner,
    refresher: Refresher<'a>,
    unread: Unread<'a>,
}

impl<'a> Reader<'a> {
    pub(crate) fn new(inner: &'a Inner) -> Self {
        Self { inner, refresher: Refresher::new(inner), unread: Unread::new(inner) }
    }

    /// Returns the value of `key`; see [`Log::get`](crate::Log::get).
    pub(crate) fn get(&self, key: &[u8]) -> Result<Option<Bytes>, Error> {
        match self.read_current(key, Blocking::Allowed) {
            Ok(value) => Ok(value),
            Err(ReadFailure::Io(error)) => Err(error),
            Err(ReadFailure::WouldBlock | ReadFailure::Bad(_) | ReadFailure::Gone) => Ok(None),
        }
    }

    /// Returns whether the newest record of a key can be read. Changes nothing.
    pub(crate) fn is_readable(&self, key: &[u8]) -> Result<bool, Error> {
        let read = match self.lookup(key, Blocking::Allowed) {
            Ok(None) => return Ok(true),
            Ok(Some((record, segment))) => match self.read_value(key, &record, &segment, Blocking::Allowed) {
                Err(ReadFailure::Bad(_)) => self.read_any_base(key, &record, &segment).map(drop),
                other => other.map(drop),
            },
            Err(failure) => Err(failure),
        };
        match read {
            Ok(()) => Ok(true),
            Err(ReadFailure::Bad(_)) => Ok(false),
            // The key has another record by now.
            Err(ReadFailure::Gone | ReadFailure::WouldBlock) => Ok(true),
            Err(ReadFailure::Io(error)) => Err(error),
        }
    }

    /// Returns the value of `key` without blocking; see
    /// [`Log::get_nowait`](crate::Log::get_nowait).
    pub(crate) fn get_nowait(&self, key: &[u8]) -> Nowait {
        match self.read_current(key, Blocking::Forbidden) {
            Ok(value) => Nowait::Ready(value),
            Err(ReadFailure::Bad(_)) => Nowait::Ready(None),
            // A later blocking read finds and reports the error.
            Err(ReadFailure::Io(_) | ReadFailure::WouldBlock | ReadFailure::Gone) => Nowait::WouldBlock,
        }
    }

    /// Returns the newest record of a key, and its segment; `None` if the key has no value.
    fn lookup(
        &self,
        key: &[u8],
        blocking: Blocking,
    ) -> Result<Option<(RecordRef, Arc<Segment>)>, ReadFailure> {
        match self.unread.complete(key, blocking == Blocking::Allowed).map_err(ReadFailure::Io)? {
            Completion::Complete => {}
            Completion::WouldBlock => return Err(ReadFailure::WouldBlock),
            Completion::Gone => return Err(ReadFailure::Gone),
        }
        let index = self.inner.index.read();
        let Some(entry) = index.get(key).filter(|entry| !entry.tombstone) else { return Ok(None) };
        let record = RecordRef::to(entry);
        Ok(Some((record, index.slot(record.location.slot).segment.clone())))
    }

    /// Returns the number of deltas to apply to read the value of a key; `None` if the key has no
    /// value. Does not read the value.
    pub(crate) fn depth(&self, key: &[u8]) -> Result<Option<u8>, Error> {
        for _ in 0..TRIES_MAX {
            match self.lookup(key, Blocking::Allowed) {
                Ok(found) => return Ok(found.map(|(record, _)| record.depth)),
                Err(ReadFailure::Io(error)) => return Err(error),
                Err(_) => self.refresher.refresh()?,
            }
        }
        Err(Error::io("read", &self.inner.dir)(io::ErrorKind::WouldBlock.into()))
    }

    /// Returns whether `key` has a value; see [`Log::contains`](crate::Log::contains).
    pub(crate) fn contains(&self, key: &[u8]) -> bool {
        self.depth(key).map(|depth| depth.is_some()).unwrap_or_else(|error| {
            tracing::warn!(%error, "cannot read the index: only the part in memory counts");
            self.inner.index.read().get(key).is_some_and(|entry| !entry.tombstone)
        })
    }

    /// Like [`contains`](Self::contains), for a caller that holds the writer; `None` if it must
    /// refresh first.
    pub(crate) fn contains_now(&self, key: &[u8]) -> Result<Option<bool>, Error> {
        match self.lookup(key, Blocking::Allowed) {
            Ok(found) => Ok(Some(found.is_some())),
            Err(ReadFailure::Io(error)) => Err(error),
            Err(_) => Ok(None),
        }
    }

    /// Returns the locations of the newest records of a key, of its base, of that one's base, and
    /// so on.
    fn chain(&self, key: &[u8]) -> Vec<Location> {
        let index = self.inner.index.read();
        let mut chain = Vec::new();
        let mut next = index.get(key);
        while let Some(entry) = next {
            chain.push(entry.location());
            let base = entry.base.as_ref().and_then(|base| index.get(base.as_slice()));
            // Depths fall along a chain, so the loop ends.
            next = base.filter(|base| base.depth < entry.depth);
        }
        chain
    }

    fn read_current(&self, key: &[u8], blocking: Blocking) -> Result<Option<Bytes>, ReadFailure> {
        let mut last = None;
        for _ in 0..TRIES_MAX {
            let (record, segment) = match self.lookup(key, blocking) {
                Ok(Some(found)) => found,
                Ok(None) => return Ok(None),
                Err(ReadFailure::Gone) if blocking == Blocking::Allowed => {
                    self.refresher.refresh().map_err(ReadFailure::Io)?;
                    continue;
                }
                Err(other) => return Err(other),
            };
            let chain = if last.is_some() { self.chain(key) } else { Vec::new() };
            match self.read_value(key, &record, &segment, blocking) {
                Ok(value) => return Ok(Some(value)),
                // The record has not moved since the last attempt, so this is not a race.
                Err(ReadFailure::Bad(reason)) if last == Some(record.location) => {
                    if let Some(value) = self.read_stranded(key, &record, &segment, blocking)? {
                        return Ok(Some(value));
                    }
                    if record.depth > 0 && blocking == Blocking::Allowed {
                        // A process that removed a base has rewritten a delta of the chain before.
                        self.refresher.refresh().map_err(ReadFailure::Io)?;
                        if self.chain(key) != chain {
                            last = None;
                            continue;
                        }
                    }
                    self.inner.report_bad(&segment, record.location.offset, reason);
                    if reason != UNKNOWN_CODEC {
                        // The key has no value from now on, and callers may put it again. An older
                        // value must not reappear.
                        self.inner.index.write().mark_lost(key, record.location);
                    }
                    return Err(ReadFailure::Bad(reason));
                }
                Err(ReadFailure::Gone) if blocking == Blocking::Allowed => {
                    self.refresher.refresh().map_err(ReadFailure::Io)?;
                }
                Err(ReadFailure::Bad(_)) if blocking == Blocking::Allowed && record.depth > 0 => {
                    // The base may be in a segment that another process has written since.
                    self.refresher.refresh().map_err(ReadFailure::Io)?;
                    last = Some(record.location);
                }
                Err(ReadFailure::Bad(_)) if record.depth > 0 => return Err(ReadFailure::WouldBlock),
                Err(ReadFailure::Bad(_)) => last = Some(record.location),
                Err(other) => return Err(other),
            }
        }
        Err(ReadFailure::Bad("it is replaced faster than it can be read"))
    }

    fn read_value(
        &self,
        key: &[u8],
        record: &RecordRef,
        segment: &Segment,
        blocking: Blocking,
    ) -> Result<Bytes, ReadFailure> {
        let max = self.inner.options.value_bytes_max;
        let found = read_record(key, record, segment, blocking)?;
        if !found.header.codec.is_delta() {
            return self.decode(found, blocking);
        }
        let mut deltas = vec![found];
        let mut depth = record.depth;
        let mut value = loop {
            let last = deltas.last().expect("the first delta is pushed before the loop");
            let DeltaPayload { base, tag, .. } =
                parse_delta(&last.header, &last.payload).ok_or(ReadFailure::Bad("it is too short"))?;
            let found = self.lookup(base, blocking)?;
            let (record, segment) = found.ok_or(ReadFailure::Bad("its base is missing"))?;
            // Depths fall along a chain, so the loop ends.
            if record.depth >= depth || tag.is_some_and(|tag| tag != record.tag) {
                return Err(ReadFailure::Bad("its base has another value"));
            }
            depth = record.depth;
            let found = read_record(base, &record, &segment, blocking)?;
            if !found.header.codec.is_delta() {
                break self.decode(found, blocking)?;
            }
            deltas.push(found);
        };
        while let Some(VerifiedRecord { header, payload }) = deltas.pop() {
            value = self.inner.codec.apply_delta(&header, &payload, &value, max).map_err(ReadFailure::Bad)?;
        }
        Ok(value)
    }

    /// Reads a stranded delta; `None` if `record` is not one or its base is missing.
    fn read_stranded(
        &self,
        key: &[u8],
        record: &RecordRef,
        segment: &Segment,
        blocking: Blocking,
    ) -> Result<Option<Bytes>, ReadFailure> {
        if record.depth == 0 || blocking == Blocking::Forbidden {
            return Ok(None);
        }
        match self.read_any_base(key, record, segment) {
            Ok(value) => Ok(Some(value)),
            Err(ReadFailure::Bad(_) | ReadFailure::Gone) => Ok(None),
            Err(other) => Err(other),
        }
    }

    /// Like [`read_value`](Self::read_value), but tries every record of each base's key.
    fn read_any_base(&self, key: &[u8], record: &RecordRef, segment: &Segment) -> Result<Bytes, ReadFailure> {
        let VerifiedRecord { header, payload } = read_record(key, record, segment, Blocking::Allowed)?;
        if !header.codec.is_delta() {
            return self.decode(VerifiedRecord { header, payload }, Blocking::Allowed);
        }
        let DeltaPayload { base, tag, .. } =
            parse_delta(&header, &payload).ok_or(ReadFailure::Bad("it is too short"))?;
        for (record, segment) in self.base_candidates(base, tag, header.depth()).map_err(ReadFailure::Io)? {
            match self.read_any_base(base, &record, &segment) {
                Ok(value) => {
                    let max = self.inner.options.value_bytes_max;
                    match self.inner.codec.apply_delta(&header, &payload, &value, max) {
                        Ok(value) => return Ok(value),
                        Err(_) => continue,
                    }
                }
                Err(ReadFailure::Bad(_) | ReadFailure::Gone) => {}
                Err(other) => return Err(other),
            }
        }
        Err(ReadFailure::Bad("its base is missing"))
    }

    /// Returns all records of a key that may be the base of a delta, newest first. Reads every
    /// segment.
    fn base_candidates(
        &self,
        key: &[u8],
        tag: Option<u32>,
        depth: u8,
    ) -> Result<Vec<(RecordRef, Arc<Segment>)>, Error> {
        let slots: Vec<_> = {
            let index = self.inner.index.read();
            let readable = index.slots().filter(|(_, slot)| !slot.orphan);
            readable.map(|(id, slot)| (id, slot.segment.clone(), slot.end)).collect()
        };
        let mut records = Vec::new();
        for (slot, segment, end) in slots {
            let scanned = scan::scan(&segment, SEGMENT_HEADER_BYTES, end, PayloadCheck::Trust, |found| {
                let Header { kind, timestamp, .. } = found.header;
                let fits = found.header.depth() < depth && tag.is_none_or(|tag| tag == timestamp as u32);
                if kind == RecordKind::Value && fits && found.key.as_slice() == key {
                    let location = Location { slot, offset: found.offset };
                    records.push((timestamp, RecordRef::scanned(location, &found.header), segment.clone()));
                }
            });
            // If another process removed the segment, its live records are in other segments.
            unless_gone(scanned)?;
        }
        records.sort_unstable_by_key(|(timestamp, ..)| std::cmp::Reverse(*timestamp));
        Ok(records.into_iter().map(|(_, record, segment)| (record, segment)).collect())
    }

    /// Decodes a record that is not a delta.
    fn decode(&self, record: VerifiedRecord, blocking: Blocking) -> Result<Bytes, ReadFailure> {
        let VerifiedRecord { header, payload } = record;
        let id = u32::from_le_bytes(header.extra);
        if header.codec == CodecId::DICT && !self.inner.codec.has_dictionary(id) {
            // Another process has trained the dictionary since.
            if blocking == Blocking::Forbidden {
                return Err(ReadFailure::WouldBlock);
            }
            self.load_dictionary(id).map_err(ReadFailure::Io)?;
        }
        self.inner
            .codec
            .decode(&header, payload, self.inner.options.value_bytes_max)
            .map_err(ReadFailure::Bad)
    }

    /// Reads a record for copying; `None` if it is damaged and so a miss already.
    pub(crate) fn read_frame(
        &self,
        segment: &Segment,
        key: &[u8],
        record: &RecordRef,
    ) -> Result<Option<Frame>, Error> {
        // If the segment was removed, its records were as well.
        let bytes = read_bytes(segment, record)?.unwrap_or_default();
        Ok(self.parse_frame(segment, key, record, bytes))
    }

    /// Verifies the bytes of a record; reports it and returns `None` if it is damaged.
    fn parse_frame(
        &self,
        segment: &Segment,
        key: &[u8],
        record: &RecordRef,
        bytes: Vec<u8>,
    ) -> Option<Frame> {
        let offset = record.location.offset;
        match parse_record(segment, offset, key, &bytes) {
            Ok(header) => Some(Frame { header, bytes, shared_payload: Bytes::new() }),
            Err(reason) => {
                self.inner.report_bad(segment, offset, reason);
                None
            }
        }
    }

    /// Loads all dictionaries. New values are compressed with the newest one that is in a sealed
    /// segment or in one of this log: a flush does not sync the segments of other processes, and
    /// must make the dictionary durable too.
    pub(crate) fn load_dictionaries(&self) -> Result<(), Error> {
        let mut ids: Vec<(u64, u32, bool)> = {
            let index = self.inner.index.read();
            let usable = |record: &RecordRef| {
                index.try_slot(record.location.slot).is_some_and(|slot| slot.sealed || slot.own)
            };
            let all = index.dictionaries.iter();
            all.map(|(id, (record, timestamp))| (*timestamp, *id, usable(record))).collect()
        };
        ids.sort_unstable();
        for (_, id, usable) in ids {
            if self.load_dictionary(id)? && usable {
                self.inner.codec.use_dictionary(id);
            }
        }
        Ok(())
    }

    /// Loads a dictionary; returns whether it exists. Refreshes before it reports a missing one: a
    /// refresh in progress, or one that failed, may have read the value but not the dictionary's
    /// segment.
    pub(crate) fn load_dictionary(&self, id: u32) -> Result<bool, Error> {
        let mut refreshed = false;
        for _ in 0..TRIES_MAX {
            if self.inner.codec.has_dictionary(id) {
                return Ok(true);
            }
            let found = {
                let index = self.inner.index.read();
                let found = index.dictionaries.get(&id);
                found.map(|(record, _)| (*record, index.slot(record.location.slot).segment.clone()))
            };
            let Some((record, segment)) = found else {
                if std::mem::replace(&mut refreshed, true) {
                    return Ok(false);
                }
                self.refresher.refresh()?;
                continue;
            };
            let Some(bytes) = read_bytes(&segment, &record)? else {
                // Another process has copied the dictionary and removed the segment.
                self.refresher.refresh()?;
                continue;
            };
            let Some(frame) = self.parse_frame(&segment, &id.to_le_bytes(), &record, bytes) else {
                return Ok(false);
            };
            let dictionary = frame.payload();
            let right = dictionary_id(dictionary) == id;
            if right {
                self.inner.codec.add_dictionary(Bytes::copy_from_slice(dictionary));
            }
            return Ok(right);
        }
        Ok(false)
    }
}

/// Reads the bytes of a record; `None` if the file was closed and another process has removed it.
fn read_bytes(segment: &Segment, record: &RecordRef) -> Result<Option<Vec<u8>>, Error> {
    let mut bytes = record.buffer();
    match segment.read_at(&mut bytes, record.location.offset) {
        Ok(read) => {
            bytes.truncate(read);
            Ok(Some(bytes))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Error::io("read", &segment.path)(error)),
    }
}

/// Reads the record of a key, without decoding its payload.
fn read_record(
    key: &[u8],
    record: &RecordRef,
    segment: &Segment,
    blocking: Blocking,
) -> Result<VerifiedRecord, ReadFailure> {
    let mut bytes = record.buffer();
    let offset = record.location.offset;
    match blocking {
        Blocking::Allowed => match segment.read_at(&mut bytes, offset) {
            Ok(read) => bytes.truncate(read),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(ReadFailure::Gone),
            Err(error) => return Err(ReadFailure::Io(Error::io("read", &segment.path)(error))),
        },
        Blocking::Forbidden => {
            let large = record.record_len.max(record.raw_len.into()) >= NOWAIT_BYTES_MAX;
            if large || !segment.read_at_nowait(&mut bytes, offset) {
                return Err(ReadFailure::WouldBlock);
            }
        }
    }
    let header = parse_record(segment, offset, key, &bytes).map_err(ReadFailure::Bad)?;
    Ok(VerifiedRecord { header, payload: Bytes::from(bytes).slice(HEADER_BYTES + key.len()..) })
}

/// Verifies the record in `bytes` and returns its header. Does not check the codec.
pub(crate) fn parse_record(
    segment: &Segment,
    offset: u64,
    key: &[u8],
    bytes: &[u8],
) -> Result<Header, &'static str> {
    let seed = record::location_seed(segment.id, offset);
    let (head, rest) = bytes.split_first_chunk::<HEADER_BYTES>().ok_or("it is too short")?;
    let header = Header::decode(head).ok_or("its header is damaged")?;
    if !record::verified(head, seed, key) || header.record_len() != bytes.len() as u64 {
        return Err("its header is damaged");
    }
    let (stored_key, payload) = rest.split_at_checked(key.len()).ok_or("it is too short")?;
    if stored_key != key {
        return Err("its key is damaged");
    }
    if record::hash_payload(payload) != header.payload_hash {
        return Err("its payload is damaged");
    }
    Ok(header)
}
