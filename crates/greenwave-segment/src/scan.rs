//! Scans segments: finds each record that verifies, and distinguishes torn from damaged ones.
//! Changes nothing.

use xxhash_rust::xxh3::Xxh3Default;

use crate::Error;
use crate::entry::RecordInfo;
use crate::format::{KEY_BYTES_MAX, SEGMENT_HEADER_BYTES};
use crate::key::Key;
use crate::record::{self, HEADER_BYTES, Header, MAGIC, RecordKind};
use crate::segment::Segment;

/// Bytes read at a time.
const WINDOW_BYTES: u64 = 256 << 10;

/// The depth of a scan's verification of records.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PayloadCheck {
    /// For sealed segments, whose records reached the disk before the seal: checks headers and
    /// keys. Payloads are checked when they are read. A record with a damaged payload is still the
    /// newest of its key.
    Trust,
    /// For the end of an unsealed segment: also checks payloads and batches. After a power cut a
    /// header may have reached the disk without its payload, and a live writer may not have
    /// finished a write.
    Verify,
}

/// A record that verifies.
#[derive(Debug)]
pub(crate) struct ScannedRecord {
    pub(crate) offset: u64,
    pub(crate) header: Header,
    pub(crate) key: Key,
    /// Key and tag of the base of a delta. They are part of the payload and so possibly wrong if
    /// that is not checked.
    pub(crate) base: Option<Key>,
    /// Header checksum of the record.
    pub(crate) checksum: u64,
}

impl ScannedRecord {
    pub(crate) fn info(&self) -> RecordInfo<'_> {
        RecordInfo::new(&self.header, self.key.as_slice(), self.base())
    }

    pub(crate) fn base(&self) -> &[u8] {
        self.base.as_ref().map_or(&[], Key::as_slice)
    }
}

/// Result of a scan.
#[derive(Debug)]
pub(crate) struct ScanResult {
    /// Offset just past the last good record. Bytes beyond it are torn or not written yet.
    pub(crate) end: u64,
    /// Whether the file ends in a seal and will never grow.
    pub(crate) sealed: bool,
    /// Number of damaged ranges between good records.
    pub(crate) damaged: u64,
    /// Offsets of records that do not count although their headers verify. A process that takes
    /// over the segment blanks them, so that no reader counts them later.
    pub(crate) refused: Vec<u64>,
}

/// A part of a segment, as [`inspect`] reports it.
#[derive(Debug)]
pub(crate) enum SegmentPart {
    /// A record that verifies completely.
    Record,
    /// A record whose header and key verify but whose payload does not.
    Damaged(ScannedRecord),
    /// Bytes up to the given offset that are not a record.
    Unknown(u64),
}

/// Scans the records of `segment` from offset `from` to `len`, the length of the file.
///
/// After a bad record, continues at the next magic whose header verifies, so a flipped bit costs
/// one record.
pub(crate) fn scan(
    segment: &Segment,
    from: u64,
    len: u64,
    payloads: PayloadCheck,
    mut on_record: impl FnMut(ScannedRecord),
) -> Result<ScanResult, Error> {
    let mut window = Window { segment, len, start: 0, bytes: Vec::new() };
    let mut scan = ScanResult { end: from, sealed: false, damaged: 0, refused: Vec::new() };
    let mut at = from;
    let mut in_damage = false;
    // Records of a batch whose last record has not been read yet.
    let mut batch: Vec<ScannedRecord> = Vec::new();
    while at < len {
        let Some(found) = window.record(at)? else {
            in_damage = true;
            scan.refused.extend(batch.drain(..).map(|found| found.offset));
            if window.is_cut_off(at)? {
                scan.refused.push(at);
            }
            at = window.next_magic(at + 1)?;
            continue;
        };
        let header = found.header;
        let mut next = at + header.record_len();
        let torn = payloads == PayloadCheck::Verify
            && header.kind != RecordKind::Seal
            && (!window.payload_ok(&found)? || header.follows && batch.is_empty());
        if !header.follows {
            scan.refused.extend(batch.drain(..).map(|found| found.offset));
        }
        if torn {
            in_damage = true;
            scan.refused.extend(batch.drain(..).map(|found| found.offset));
            scan.refused.push(at);
            // The header may remain from a failed write whose space other records have taken.
            next = window.next_magic(at + 1)?;
        } else if header.kind == RecordKind::Seal {
            scan.refused.extend(batch.drain(..).map(|found| found.offset));
            scan.damaged += u64::from(std::mem::take(&mut in_damage));
            scan.sealed = next == len;
            scan.end = next;
        } else if payloads == PayloadCheck::Verify && header.continues {
            batch.push(found);
        } else {
            scan.damaged += u64::from(std::mem::take(&mut in_damage));
            scan.end = next;
            batch.drain(..).for_each(&mut on_record);
            on_record(found);
        }
        at = next;
    }
    scan.refused.extend(batch.drain(..).map(|found| found.offset));
    Ok(scan)
}

/// Verifies a whole segment, and reports each part with its offset.
pub(crate) fn inspect(
    segment: &Segment,
    len: u64,
    mut on_part: impl FnMut(u64, SegmentPart),
) -> Result<(), Error> {
    let mut window = Window { segment, len, start: 0, bytes: Vec::new() };
    let mut at = SEGMENT_HEADER_BYTES.min(len);
    while at < len {
        let Some(found) = window.record(at)? else {
            let next = window.next_record(at + 1)?;
            on_part(at, SegmentPart::Unknown(next));
            at = next;
            continue;
        };
        let end = at + found.header.record_len();
        let good = found.header.kind == RecordKind::Seal || window.payload_ok(&found)?;
        // The header may remain from a failed write whose space other records have taken.
        let next = if good { end } else { window.next_record(at + 1)?.min(end) };
        on_part(at, if good { SegmentPart::Record } else { SegmentPart::Damaged(found) });
        at = next;
    }
    Ok(())
}

/// Returns whether the record described by an index file is at `offset`, with a header and key that
/// verify.
pub(crate) fn is_record(
    segment: &Segment,
    len: u64,
    offset: u64,
    record: &RecordInfo<'_>,
) -> Result<bool, Error> {
    let mut window = Window { segment, len, start: 0, bytes: Vec::new() };
    if offset >= len {
        return Ok(false);
    }
    Ok(window.record(offset)?.is_some_and(|found| {
        found.key.as_slice() == record.key
            && found.header.timestamp == record.timestamp
            && found.header.kind == record.kind
    }))
}

/// Hashes the bytes `from .. len`, or fewer if the file has been truncated. Holes of the file are
/// skipped, so that the time depends on its content and not on its length.
pub(crate) fn hash_range(segment: &Segment, from: u64, len: u64) -> Result<u64, Error> {
    let mut window = Window { segment, len, start: 0, bytes: Vec::new() };
    let mut hasher = Xxh3Default::new();
    let mut at = from;
    loop {
        at = at.max(segment.next_data(at));
        if at >= len {
            break;
        }
        let step = (len - at).min(WINDOW_BYTES);
        hasher.update(&at.to_le_bytes());
        let Some(bytes) = window.read(at, step)? else { break };
        hasher.update(bytes);
        at += step;
    }
    Ok(hasher.digest())
}

/// Returns whether a file of this length ends in a seal, by reading its end only.
pub(crate) fn is_sealed(segment: &Segment, len: u64) -> Result<bool, Error> {
    let Some(at) = len.checked_sub(HEADER_BYTES as u64) else { return Ok(false) };
    let mut window = Window { segment, len, start: 0, bytes: Vec::new() };
    Ok(window.record(at)?.is_some_and(|found| found.header.kind == RecordKind::Seal))
}

/// The range of the file that was read last.
struct Window<'a> {
    segment: &'a Segment,
    len: u64,
    start: u64,
    bytes: Vec<u8>,
}

impl Window<'_> {
    /// Returns the record at `at` if it is complete and its header and key verify.
    fn record(&mut self, at: u64) -> Result<Option<ScannedRecord>, Error> {
        let Some((bytes, header, key)) = self.head(at)? else { return Ok(None) };
        if self.len - at < header.record_len() {
            return Ok(None);
        }
        let base = match header.base_and_tag_len() as u64 {
            0 => None,
            len if len > u64::from(header.stored_len) => None,
            len => self.read(at + HEADER_BYTES as u64 + u64::from(header.key_len), len)?.map(Key::from),
        };
        Ok(Some(ScannedRecord { offset: at, header, key, base, checksum: record::checksum_of(&bytes) }))
    }

    /// Returns whether the header and key at `at` verify but the record reaches beyond the end of
    /// the file. It would be complete once the file has grown.
    fn is_cut_off(&mut self, at: u64) -> Result<bool, Error> {
        Ok(self.head(at)?.is_some_and(|(_, header, _)| self.len - at < header.record_len()))
    }

    /// Returns the header at `at` and its key if they verify.
    fn head(&mut self, at: u64) -> Result<Option<([u8; HEADER_BYTES], Header, Key)>, Error> {
        let Some(bytes) = self.read(at, HEADER_BYTES as u64)? else { return Ok(None) };
        let bytes: [u8; HEADER_BYTES] = bytes.try_into().expect("the length that was requested");
        let Some(header) = Header::decode(&bytes).filter(|header| header.key_len <= KEY_BYTES_MAX) else {
            return Ok(None);
        };
        let seed = record::location_seed(self.segment.id, at);
        let key = self.read(at + HEADER_BYTES as u64, u64::from(header.key_len))?;
        let key = key.filter(|key| record::verified(&bytes, seed, key));
        Ok(key.map(|key| (bytes, header, key.into())))
    }

    fn payload_ok(&mut self, found: &ScannedRecord) -> Result<bool, Error> {
        let mut at = found.offset + HEADER_BYTES as u64 + u64::from(found.header.key_len);
        let end = found.offset + found.header.record_len();
        let mut hasher = Xxh3Default::new();
        while at < end {
            let step = (end - at).min(WINDOW_BYTES);
            let Some(bytes) = self.read(at, step)? else { return Ok(false) };
            hasher.update(bytes);
            at += step;
        }
        Ok(hasher.digest() == found.header.payload_hash)
    }

    /// Returns the offset of the next magic from `at` on, or the end of the file.
    fn next_magic(&mut self, mut at: u64) -> Result<u64, Error> {
        // A magic does not begin in a hole, whose bytes are zero.
        const { assert!(MAGIC[0] != 0) };
        let magic_len = MAGIC.len() as u64;
        loop {
            at = at.max(self.segment.next_data(at));
            if at.saturating_add(magic_len) > self.len {
                break;
            }
            let step = (self.len - at).min(WINDOW_BYTES);
            let Some(bytes) = self.read(at, step)? else { break };
            if let Some(found) = bytes.windows(MAGIC.len()).position(|w| w == MAGIC) {
                return Ok(at + found as u64);
            }
            // The magic may straddle two windows.
            at += step - (magic_len - 1);
        }
        Ok(self.len)
    }

    /// Returns the offset of the next record from `at` on whose header and key verify, or the end
    /// of the file.
    fn next_record(&mut self, at: u64) -> Result<u64, Error> {
        let mut next = self.next_magic(at)?;
        while next < self.len && self.record(next)?.is_none() {
            next = self.next_magic(next + 1)?;
        }
        Ok(next)
    }

    /// Returns the bytes `at .. at + n`, or `None` if the file is too short.
    fn read(&mut self, at: u64, n: u64) -> Result<Option<&[u8]>, Error> {
        let end = at.saturating_add(n);
        if end > self.len {
            return Ok(None);
        }
        if at < self.start || end > self.start + self.bytes.len() as u64 {
            let want = n.max(WINDOW_BYTES).min(self.len - at);
            self.bytes.resize(usize::try_from(want).expect("a window fits memory"), 0);
            let read =
                self.segment.read_at(&mut self.bytes, at).map_err(Error::io("read", &self.segment.path))?;
            self.bytes.truncate(read);
            self.start = at;
        }
        let from = usize::try_from(at - self.start).expect("inside the window");
        Ok(self.bytes.get(from..from + usize::try_from(n).expect("inside the window")))
    }
}
