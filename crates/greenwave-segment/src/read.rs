//! Reading: a value from its record, or from the records of it and of the bases that it is a difference from.

use std::io;
use std::sync::Arc;

use bytes::Bytes;

use crate::Error;
use crate::codec::{Delta, delta_parts};
use crate::error::unless_gone;
use crate::index::{Entry, Place};
use crate::log::Log;
use crate::record::{self, Codec as CodecId, HEADER_BYTES, Header, Kind};
use crate::recover::{self, Payloads};
use crate::segment::{SEGMENT_HEADER_BYTES, Segment};

/// A value this large takes about a millisecond to read and decompress, which is no longer "at once".
const NOWAIT_BYTES_MAX: u64 = 1 << 20;
/// While a value is read, its base may be removed, and it stored anew. As often as this in a row is no coincidence.
const TRIES_MAX: usize = 8;

/// The answer of [`Log::get_nowait`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Nowait {
    /// What [`Log::get`] would have returned.
    Ready(Option<Bytes>),
    /// The disk would have to be waited for: call [`Log::get`] where blocking is allowed.
    WouldBlock,
}

/// Whether the disk may be waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wait {
    Allowed,
    Refused,
}

/// Why there is no value.
enum Failure {
    Io(Error),
    WouldBlock,
    /// A record does not verify, or a base is missing.
    Bad(&'static str),
    /// The segment was closed in the meantime, and another process has removed it.
    Gone,
}

/// What a lookup in the index says of a record.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Location {
    pub(crate) place: Place,
    pub(crate) depth: u8,
    tag: u32,
    record_len: u64,
    raw_len: u32,
}

impl Location {
    pub(crate) fn of(entry: &Entry) -> Self {
        Self {
            place: entry.place(),
            depth: entry.depth,
            tag: entry.tag(),
            record_len: entry.record_len(),
            raw_len: entry.raw_len,
        }
    }

    fn found(place: Place, header: &Header) -> Self {
        let (depth, tag, raw_len) = (header.depth(), header.stamp as u32, header.raw_len);
        Self { place, depth, tag, record_len: header.record_len(), raw_len }
    }

    /// A buffer for the whole record.
    pub(crate) fn buffer(&self) -> Vec<u8> {
        vec![0; usize::try_from(self.record_len).expect("value_bytes_max fits memory")]
    }
}

/// A record whose hashes verify.
struct Verified {
    header: Header,
    payload: Bytes,
}

impl Log {
    /// The value of `key`. `None` also when its record does not verify: such a record is counted, warned about and never returned.
    ///
    /// # Errors
    ///
    /// [`Error::Io`].
    pub fn get(&self, key: &[u8]) -> Result<Option<Bytes>, Error> {
        match self.read(key, Wait::Allowed) {
            Ok(value) => Ok(value),
            Err(Failure::Io(error)) => Err(error),
            Err(Failure::WouldBlock | Failure::Bad(_) | Failure::Gone) => Ok(None),
        }
    }

    /// Whether the record that the index names can be read. Changes nothing.
    pub(crate) fn is_readable(&self, key: &[u8]) -> Result<bool, Error> {
        let Some((location, segment)) = self.find(key) else { return Ok(true) };
        let read = match self.read_at(key, &location, &segment, Wait::Allowed) {
            Err(Failure::Bad(_)) => self.read_through(key, &location, &segment).map(drop),
            other => other.map(drop),
        };
        match read {
            Ok(()) => Ok(true),
            Err(Failure::Bad(_)) => Ok(false),
            // It is another record by now.
            Err(Failure::Gone | Failure::WouldBlock) => Ok(true),
            Err(Failure::Io(error)) => Err(error),
        }
    }

    /// Like [`get`](Self::get), unless that would wait for the disk, or take long for a value's sheer size: from 1 MiB on.
    /// Only Linux can tell the first; elsewhere every hit would.
    pub fn get_nowait(&self, key: &[u8]) -> Nowait {
        match self.read(key, Wait::Refused) {
            Ok(value) => Nowait::Ready(value),
            Err(Failure::Bad(_)) => Nowait::Ready(None),
            // An error is found again, and reported, where blocking is allowed.
            Err(Failure::Io(_) | Failure::WouldBlock | Failure::Gone) => Nowait::WouldBlock,
        }
    }

    /// Whether `key` has a value. Does not read it, so a damaged one counts until a read has found it out.
    pub fn contains(&self, key: &[u8]) -> bool {
        self.index.read().get(key).is_some_and(|entry| !entry.tombstone)
    }

    /// The keys that begin with `prefix`, sorted. Looks at every key.
    pub fn keys_with_prefix(&self, prefix: &[u8]) -> Vec<Vec<u8>> {
        let index = self.index.read();
        let live = index.entries().filter(|entry| !entry.tombstone);
        let keys = live.map(|entry| entry.key.as_slice()).filter(|key| key.starts_with(prefix));
        let mut keys: Vec<_> = keys.map(<[u8]>::to_vec).collect();
        drop(index);
        keys.sort_unstable();
        keys
    }

    /// Where the value of a key is.
    pub(crate) fn find(&self, key: &[u8]) -> Option<(Location, Arc<Segment>)> {
        let index = self.index.read();
        let entry = index.get(key).filter(|entry| !entry.tombstone)?;
        let location = Location::of(entry);
        Some((location, index.slot(location.place.slot).segment.clone()))
    }

    fn read(&self, key: &[u8], wait: Wait) -> Result<Option<Bytes>, Failure> {
        let mut last = None;
        for _ in 0..TRIES_MAX {
            let Some((location, segment)) = self.find(key) else { return Ok(None) };
            match self.read_at(key, &location, &segment, wait) {
                Ok(value) => return Ok(Some(value)),
                // The record is where it was before: it is not a race.
                Err(Failure::Bad(reason)) if last == Some(location.place) => {
                    if let Some(value) = self.read_stranded(key, &location, &segment, wait)? {
                        return Ok(Some(value));
                    }
                    if location.depth > 0 && wait == Wait::Allowed {
                        // Whoever removed its base meanwhile has stored it anew first.
                        self.refresh().map_err(Failure::Io)?;
                        if !self.is_current(key, location.place) {
                            last = None;
                            continue;
                        }
                    }
                    self.report_bad(&segment, location.place.offset, reason);
                    if reason != UNKNOWN_CODEC {
                        // The caller sees that it is not there, and can put it again. An older value does not come back.
                        self.index.write().lose(key, location.place);
                    }
                    return Err(Failure::Bad(reason));
                }
                Err(Failure::Gone) if wait == Wait::Allowed => self.refresh().map_err(Failure::Io)?,
                Err(Failure::Bad(_)) if wait == Wait::Allowed && location.depth > 0 => {
                    // Its base may stand in a segment that another process has finished since.
                    self.refresh().map_err(Failure::Io)?;
                    last = Some(location.place);
                }
                Err(Failure::Bad(_)) if location.depth > 0 => return Err(Failure::WouldBlock),
                Err(Failure::Bad(_)) => last = Some(location.place),
                Err(other) => return Err(other),
            }
        }
        Err(Failure::Bad("it keeps moving"))
    }

    fn read_at(
        &self,
        key: &[u8],
        location: &Location,
        segment: &Segment,
        wait: Wait,
    ) -> Result<Bytes, Failure> {
        let max = self.options.value_bytes_max;
        let record = verified(key, location, segment, wait)?;
        if !record.header.codec.is_delta() {
            return self.decode(record, wait);
        }
        let mut differences = vec![record];
        let mut depth = location.depth;
        let mut value = loop {
            let last = differences.last().expect("one is there from the beginning");
            let Delta { base, tag, .. } =
                delta_parts(&last.header, &last.payload).ok_or(Failure::Bad("it is cut short"))?;
            let (location, segment) = self.find(base).ok_or(Failure::Bad("its base is missing"))?;
            // Each is nearer to the end, so this comes to one.
            if location.depth >= depth || tag.is_some_and(|tag| tag != location.tag) {
                return Err(Failure::Bad("its base is not what it was"));
            }
            depth = location.depth;
            let record = verified(base, &location, &segment, wait)?;
            if !record.header.codec.is_delta() {
                break self.decode(record, wait)?;
            }
            differences.push(record);
        };
        while let Some(Verified { header, payload }) = differences.pop() {
            value = self.codec.undo(&header, &payload, &value, max).map_err(Failure::Bad)?;
        }
        Ok(value)
    }

    /// The value of a record that is a difference from one that its key does not have any more.
    fn read_stranded(
        &self,
        key: &[u8],
        location: &Location,
        segment: &Segment,
        wait: Wait,
    ) -> Result<Option<Bytes>, Failure> {
        if location.depth == 0 || wait == Wait::Refused {
            return Ok(None);
        }
        match self.read_through(key, location, segment) {
            Ok(value) => Ok(Some(value)),
            Err(Failure::Bad(_) | Failure::Gone) => Ok(None),
            Err(other) => Err(other),
        }
    }

    /// Like [`read_at`](Self::read_at), with each base looked for among all records of its key.
    fn read_through(&self, key: &[u8], location: &Location, segment: &Segment) -> Result<Bytes, Failure> {
        let Verified { header, payload } = verified(key, location, segment, Wait::Allowed)?;
        if !header.codec.is_delta() {
            return self.decode(Verified { header, payload }, Wait::Allowed);
        }
        let Delta { base, tag, .. } =
            delta_parts(&header, &payload).ok_or(Failure::Bad("it is cut short"))?;
        for (location, segment) in self.records_of(base, tag, header.depth()).map_err(Failure::Io)? {
            match self.read_through(base, &location, &segment) {
                Ok(value) => {
                    let max = self.options.value_bytes_max;
                    match self.codec.undo(&header, &payload, &value, max) {
                        Ok(value) => return Ok(value),
                        Err(_) => continue,
                    }
                }
                Err(Failure::Bad(_) | Failure::Gone) => {}
                Err(other) => return Err(other),
            }
        }
        Err(Failure::Bad("its base is missing"))
    }

    /// All records of a key that may be the base of a difference, the newest first. Reads every segment.
    fn records_of(
        &self,
        key: &[u8],
        tag: Option<u32>,
        depth: u8,
    ) -> Result<Vec<(Location, Arc<Segment>)>, Error> {
        let slots: Vec<_> = {
            let index = self.index.read();
            let there = index.slots().filter(|(_, slot)| !slot.orphan);
            there.map(|(id, slot)| (id, slot.segment.clone(), slot.end)).collect()
        };
        let mut records = Vec::new();
        for (slot, segment, end) in slots {
            let scanned = recover::scan(&segment, SEGMENT_HEADER_BYTES, end, Payloads::Trust, |found| {
                let Header { kind, stamp, .. } = found.header;
                let fits = found.header.depth() < depth && tag.is_none_or(|tag| tag == stamp as u32);
                if kind == Kind::Value && fits && found.key.as_slice() == key {
                    let place = Place { slot, offset: found.offset };
                    records.push((stamp, Location::found(place, &found.header), segment.clone()));
                }
            });
            // Where it was removed by another process, what was worth keeping of it stands elsewhere.
            unless_gone(scanned)?;
        }
        records.sort_unstable_by_key(|(stamp, ..)| std::cmp::Reverse(*stamp));
        Ok(records.into_iter().map(|(_, location, segment)| (location, segment)).collect())
    }

    /// The value of a record that is no difference.
    fn decode(&self, record: Verified, wait: Wait) -> Result<Bytes, Failure> {
        let Verified { header, payload } = record;
        let id = u32::from_le_bytes(header.extra);
        if header.codec == CodecId::DICT && !self.codec.has_dictionary(id) {
            // Another process has trained it since.
            if wait == Wait::Refused {
                return Err(Failure::WouldBlock);
            }
            self.load_dictionary(id).map_err(Failure::Io)?;
        }
        self.codec.decode(&header, payload, self.options.value_bytes_max).map_err(Failure::Bad)
    }

    /// Counts a record that does not verify, and says so once per meeting.
    pub(crate) fn report_bad(&self, segment: &Segment, offset: u64, reason: &str) {
        self.counters.bad_records.add(1);
        tracing::warn!(path = %segment.path.display(), offset, reason, "a record does not verify: taken as missing");
    }

    /// Takes an entry out of the index, unless the key has moved on.
    pub(crate) fn forget_at(&self, key: &[u8], place: Place) {
        let mut index = self.index.write();
        if index.get(key).is_some_and(|entry| entry.place() == place) {
            index.forget(key);
        }
    }
}

/// What the codec says of a record that a later version wrote, which must survive.
pub(crate) const UNKNOWN_CODEC: &str = "its codec is unknown";

/// The record of a key, its payload not yet decoded.
fn verified(key: &[u8], location: &Location, segment: &Segment, wait: Wait) -> Result<Verified, Failure> {
    let mut bytes = location.buffer();
    let offset = location.place.offset;
    match wait {
        Wait::Allowed => match segment.read_at(&mut bytes, offset) {
            Ok(read) => bytes.truncate(read),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(Failure::Gone),
            Err(error) => return Err(Failure::Io(Error::io("read", &segment.path)(error))),
        },
        Wait::Refused => {
            let large = location.record_len.max(location.raw_len.into()) >= NOWAIT_BYTES_MAX;
            if large || !segment.read_at_nowait(&mut bytes, offset) {
                return Err(Failure::WouldBlock);
            }
        }
    }
    let header = parse(segment, offset, key, &bytes).map_err(Failure::Bad)?;
    Ok(Verified { header, payload: Bytes::from(bytes).slice(HEADER_BYTES + key.len()..) })
}

/// The header of the record in `bytes`, once everything about it but the codec verifies.
pub(crate) fn parse(
    segment: &Segment,
    offset: u64,
    key: &[u8],
    bytes: &[u8],
) -> Result<Header, &'static str> {
    let seed = record::place_seed(segment.id, offset);
    let (head, rest) = bytes.split_first_chunk::<HEADER_BYTES>().ok_or("it is cut short")?;
    let header = Header::decode(head).ok_or("its header is damaged")?;
    if !record::verified(head, seed, key) || header.record_len() != bytes.len() as u64 {
        return Err("its header is damaged");
    }
    let (stored_key, payload) = rest.split_at_checked(key.len()).ok_or("it is cut short")?;
    if stored_key != key {
        return Err("its key is damaged");
    }
    if record::hash_payload(payload) != header.payload_hash {
        return Err("its payload is damaged");
    }
    Ok(header)
}
