//! Key tables: find the records of a key in a sealed segment with one or two reads, so that opening
//! a log need not read its records.
//!
//! A key table follows the last block of a segment's index file and ends with the file. It consists
//! of pages of equal size and a trailer (integers little-endian). A page:
//!
//! | offset | bytes | field |
//! | --- | --- | --- |
//! | 0 | 8 | XXH3-64 of the rest of the page, with the sum of the table's seed and the page's number as seed |
//! | 8 | 4 | number of entries |
//! | 12 | 4 | zero |
//! | 16 | | the entries, then zeros |
//!
//! An entry is the offset of a record in the segment (8 bytes) and the lower half of the XXH3-64 of
//! the record's key with the table's seed (4 bytes). It is in the page whose number is the upper
//! half of that hash, multiplied by the number of pages and divided by 2^32. The trailer:
//!
//! | offset | bytes | field |
//! | --- | --- | --- |
//! | 0 | 8 | magic `F5 47 57 54 41 42 0D 0A` |
//! | 8 | 4 | number of pages |
//! | 12 | 4 | size of a page, 28 to 1024 bytes |
//! | 16 | 8 | seed, chosen at random |
//! | 24 | 8 | offset of the segment's seal |
//! | 32 | 8 | offset of the segment's last record |
//! | 40 | 8 | header checksum of the last record, as in the segment |
//! | 48 | 8 | earliest timestamp of all records |
//! | 56 | 8 | latest timestamp of all records |
//! | 64 | 8 | number of values |
//! | 72 | 8 | number of tombstones |
//! | 80 | 8 | size of the values as stored |
//! | 88 | 8 | size of the values when decompressed |
//! | 96 | 8 | XXH3-64 of bytes 0 to 96, with the segment's id as seed |
//!
//! Of several records of a key in the segment, the table has the winner, and the trailer counts
//! only the winner. A segment with deltas or dictionaries has no table. Nor has one with too
//! many keys for a page, which chosen keys cannot cause, since the seed is random.
//!
//! The file is not synced, so each page is verified when it is read. If one does not verify, the
//! blocks of the index file are read instead.

use std::collections::HashMap;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use xxhash_rust::xxh3::xxh3_64_with_seed;

use crate::Error;
use crate::access::Access;
use crate::descriptors::{Descriptors, Handle};
use crate::disk::Disk;
use crate::entry::{Entry, Location};
use crate::format::{SEGMENT_HEADER_BYTES, index_path, u32_at, u64_at};
use crate::index_file::IndexFile;
use crate::record::{self, HEADER_BYTES, Header, RecordKind};
use crate::segment::Segment;

const MAGIC: [u8; 8] = [0xF5, b'G', b'W', b'T', b'A', b'B', b'\r', b'\n'];
const TRAILER_BYTES: usize = 104;
const PAGE_HEADER_BYTES: usize = 16;
const ENTRY_BYTES: usize = 12;
/// Size of a page of a table with several pages, in bytes.
const PAGE_BYTES_MAX: usize = 1024;
/// Maximum number of entries in a page.
const PAGE_ENTRIES_MAX: usize = (PAGE_BYTES_MAX - PAGE_HEADER_BYTES) / ENTRY_BYTES;
/// Mean number of entries in a page. Among a thousand pages, the probability of an overflow is
/// below a thousandth.
const PAGE_ENTRIES_MEAN: usize = 48;
/// Attempts at building a table whose pages do not overflow.
const TRIES_MAX: usize = 4;

/// The key table of a sealed segment whose records are not in memory.
#[derive(Debug)]
pub(crate) struct KeyTable {
    disk: Disk,
    handle: Handle,
    path: PathBuf,
    /// Offset of the first page in the index file.
    start: u64,
    trailer: Trailer,
    /// Size of the index file in bytes.
    pub(crate) index_len: u64,
}

/// Contents of a segment.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TableTotals {
    pub(crate) values: u64,
    pub(crate) tombstones: u64,
    pub(crate) stored_bytes: u64,
    pub(crate) raw_bytes: u64,
}

/// Trailer of a table.
#[derive(Debug, Clone, Copy)]
struct Trailer {
    pages: u32,
    page_bytes: u32,
    seed: u64,
    /// Offset of the segment's seal.
    end: u64,
    last: u64,
    last_checksum: u64,
    timestamp_min: u64,
    timestamp_max: u64,
    totals: TableTotals,
}

/// Result of a search in a table.
#[derive(Debug)]
pub(crate) enum Found {
    /// The winning record of the key, and its offset.
    Record(u64, Header),
    /// The segment has no record of the key.
    Nothing,
    /// The search would have to wait for the disk.
    WouldBlock,
    /// A page or a record does not verify, or the index file is missing.
    Damaged,
}

impl KeyTable {
    /// Opens the table of a sealed segment of this length; `None` if it has none, or one that does
    /// not match the segment.
    pub(crate) fn open(
        disk: &Disk,
        descriptors: &Arc<Descriptors>,
        segment: &Segment,
        segment_len: u64,
    ) -> Result<Option<Self>, Error> {
        let path = index_path(&segment.path);
        let file = match descriptors.open(disk, &path, Access::Read) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(Error::io("open", &path)(error)),
        };
        let read = |e| Error::io("read", &path)(e);
        let index_len = file.len().map_err(read)?;
        let Some(at) = index_len.checked_sub(TRAILER_BYTES as u64) else { return Ok(None) };
        let mut bytes = [0; TRAILER_BYTES];
        if !file.read_exact_at(&mut bytes, at).map_err(read)? {
            return Ok(None);
        }
        let Some(trailer) = Trailer::decode(&bytes, segment.id) else { return Ok(None) };
        let Some(start) = at.checked_sub(trailer.pages_bytes()) else { return Ok(None) };
        if start < SEGMENT_HEADER_BYTES || !trailer.matches(segment, segment_len)? {
            return Ok(None);
        }
        let handle = descriptors.admit(file);
        Ok(Some(Self { disk: disk.clone(), handle, path, start, trailer, index_len }))
    }

    /// Returns the earliest and the latest timestamp of the segment's records.
    pub(crate) fn timestamps(&self) -> (u64, u64) {
        (self.trailer.timestamp_min, self.trailer.timestamp_max)
    }

    /// Returns the offset of the segment's seal.
    pub(crate) fn end(&self) -> u64 {
        self.trailer.end
    }

    /// Returns the sums over the segment's records.
    pub(crate) fn totals(&self) -> TableTotals {
        self.trailer.totals
    }

    /// Finds the record of a key. Fails with [`io::ErrorKind::NotFound`] if the segment was closed
    /// and has been removed.
    pub(crate) fn find(&self, segment: &Segment, key: &[u8], may_block: bool) -> io::Result<Found> {
        let hash = xxh3_64_with_seed(key, self.trailer.seed);
        let number = page_of(hash, self.trailer.pages);
        let mut page = [0; PAGE_BYTES_MAX];
        let page = &mut page[..self.trailer.page_bytes as usize];
        match self.read_page(page, number, may_block) {
            Ok(true) => {}
            Ok(false) if !may_block => return Ok(Found::WouldBlock),
            Ok(false) => return Ok(Found::Damaged),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Found::Damaged),
            Err(error) => return Err(error),
        }
        let Some(entries) = self.verified_entries(page, number) else { return Ok(Found::Damaged) };
        for entry in entries.chunks_exact(ENTRY_BYTES) {
            if u32_at(entry, 8) != hash as u32 {
                continue;
            }
            let offset = u64_at(entry, 0);
            match read_head(segment, offset, key, may_block)? {
                Head::Of(header) => return Ok(Found::Record(offset, header)),
                Head::OfAnother => {}
                Head::WouldBlock => return Ok(Found::WouldBlock),
                Head::Damaged => return Ok(Found::Damaged),
            }
        }
        Ok(Found::Nothing)
    }

    /// Reads a page; returns `false` if the file is too short, or if the read would wait although
    /// it must not.
    fn read_page(&self, page: &mut [u8], number: u32, may_block: bool) -> io::Result<bool> {
        let offset = self.start + u64::from(number) * u64::from(self.trailer.page_bytes);
        let file = self.handle.file(&self.disk, &self.path, false)?;
        if may_block { file.read_exact_at(page, offset) } else { Ok(file.read_at_nowait(page, offset)) }
    }

    /// Returns the entries of a page if it verifies.
    fn verified_entries<'p>(&self, page: &'p [u8], number: u32) -> Option<&'p [u8]> {
        let (head, rest) = page.split_first_chunk::<PAGE_HEADER_BYTES>()?;
        if u64_at(head, 0) != page_checksum(page, self.trailer.seed, number) {
            return None;
        }
        rest.get(..(u32_at(head, 8) as usize).checked_mul(ENTRY_BYTES)?)
    }
}

/// A record's header and key, compared with a key that is searched.
enum Head {
    Of(Header),
    OfAnother,
    WouldBlock,
    Damaged,
}

fn read_head(segment: &Segment, offset: u64, key: &[u8], may_block: bool) -> io::Result<Head> {
    let mut bytes = vec![0; HEADER_BYTES + key.len()];
    if may_block {
        let read = segment.read_at(&mut bytes, offset)?;
        bytes.truncate(read);
    } else if !segment.read_at_nowait(&mut bytes, offset) {
        return Ok(Head::WouldBlock);
    }
    let seed = record::location_seed(segment.id, offset);
    let Some((head, rest)) = bytes.split_first_chunk::<HEADER_BYTES>() else { return Ok(Head::Damaged) };
    let Some(header) = Header::decode(head) else { return Ok(Head::Damaged) };
    if rest == key && header.key_len as usize == key.len() && record::verified(head, seed, key) {
        let usable = matches!(header.kind, RecordKind::Value | RecordKind::Tombstone) && header.depth() == 0;
        return Ok(if usable { Head::Of(header) } else { Head::Damaged });
    }
    // Another key with the same part of its hash, or damage: its own key decides.
    if !may_block {
        return Ok(Head::WouldBlock);
    }
    let mut own = vec![0; usize::try_from(header.key_len).map_or(0, |len| len.min(1 << 16))];
    let read = segment.read_at(&mut own, offset + HEADER_BYTES as u64)?;
    let verifies = read == own.len() && own.len() == header.key_len as usize;
    Ok(if verifies && record::verified(head, seed, &own) { Head::OfAnother } else { Head::Damaged })
}

/// Appends a key table to the index file of a segment that is about to be sealed at `end`, or was
/// sealed there; returns the bytes written, 0 if the segment cannot have a table. Only one process
/// may call this for a segment at a time.
pub(crate) fn append(disk: &Disk, segment: &Segment, end: u64) -> Result<u64, Error> {
    let Some(mut file) = IndexFile::open(disk, segment)? else { return Ok(0) };
    let Some(mut table) = Builder::read(&mut file, segment, end)? else { return Ok(0) };
    if file.len != file.good_len() {
        return Ok(0);
    }
    let Some(bytes) = table.build(disk, segment.id) else { return Ok(0) };
    let path = index_path(&segment.path);
    // Never creates the file: an index file without its segment means that the segment was lost.
    let index = match disk.open(&path, Access::Write) {
        Ok(index) => index,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(0),
        Err(error) => return Err(Error::io("open", &path)(error)),
    };
    index.write_at(&bytes, file.len).map_err(|error| {
        // No table can be added behind a part of one.
        let _ = index.set_len(file.len);
        Error::io("append to", &path)(error)
    })?;
    Ok(bytes.len() as u64)
}

/// Builds a table.
struct Builder {
    winners: HashMap<Box<[u8]>, Entry>,
    trailer: Trailer,
}

impl Builder {
    /// Reads the blocks of an index file; `None` if they do not list all records, or if the segment
    /// cannot have a table.
    fn read(file: &mut IndexFile, segment: &Segment, end: u64) -> Result<Option<Self>, Error> {
        let mut winners: HashMap<Box<[u8]>, Entry> = HashMap::new();
        let (mut last, mut timestamp_min, mut timestamp_max) = (None, u64::MAX, 0);
        while let Some(block) = file.next_block(segment, end)? {
            if !block.fits {
                return Ok(None);
            }
            for (offset, record) in block.records {
                if !matches!(record.kind, RecordKind::Value | RecordKind::Tombstone) || record.depth > 0 {
                    return Ok(None);
                }
                last = Some(offset);
                timestamp_min = timestamp_min.min(record.timestamp);
                timestamp_max = timestamp_max.max(record.timestamp);
                let entry = Entry::new(Location { slot: 0, offset }, &record);
                match winners.get_mut(record.key) {
                    Some(winner) if entry.supersedes(winner) => *winner = entry,
                    Some(_) => {}
                    None => drop(winners.insert(record.key.into(), entry)),
                }
            }
        }
        let Some(last) = last.filter(|_| file.mark == end) else { return Ok(None) };
        let mut header = [0; HEADER_BYTES];
        let read = segment.read_at(&mut header, last).map_err(Error::io("read", &segment.path))?;
        if read < HEADER_BYTES {
            return Ok(None);
        }
        let mut totals = TableTotals::default();
        winners.values().for_each(|entry| totals.count(entry));
        let last_checksum = record::checksum_of(&header);
        let (pages, page_bytes, seed) = (0, 0, 0);
        let trailer = Trailer {
            pages,
            page_bytes,
            seed,
            end,
            last,
            last_checksum,
            timestamp_min,
            timestamp_max,
            totals,
        };
        Ok(Some(Self { winners, trailer }))
    }

    /// Returns the bytes of the table; `None` if a page overflows with every seed that was tried.
    fn build(&mut self, disk: &Disk, segment: u64) -> Option<Vec<u8>> {
        let count = self.winners.len();
        for attempt in 0..TRIES_MAX {
            let pages = if count <= PAGE_ENTRIES_MAX { 1 } else { count / PAGE_ENTRIES_MEAN * (attempt + 1) };
            self.trailer.pages = u32::try_from(pages).ok()?;
            self.trailer.seed = disk.random();
            if let Some(bytes) = self.encode(segment) {
                return Some(bytes);
            }
        }
        None
    }

    fn encode(&mut self, segment: u64) -> Option<Vec<u8>> {
        let trailer = &mut self.trailer;
        let mut pages: Vec<Vec<(u32, u64)>> = vec![Vec::new(); trailer.pages as usize];
        for (key, entry) in &self.winners {
            let hash = xxh3_64_with_seed(key, trailer.seed);
            pages[page_of(hash, trailer.pages) as usize].push((hash as u32, entry.offset));
        }
        let most = pages.iter().map(Vec::len).max().filter(|most| *most <= PAGE_ENTRIES_MAX)?;
        let entries = if trailer.pages == 1 { most } else { PAGE_ENTRIES_MAX };
        let page_bytes = PAGE_HEADER_BYTES + entries * ENTRY_BYTES;
        trailer.page_bytes = u32::try_from(page_bytes).expect("at most a kilobyte");
        let mut bytes = Vec::with_capacity(pages.len() * page_bytes + TRAILER_BYTES);
        for (number, mut entries) in (0_u32..).zip(pages) {
            entries.sort_unstable();
            let mut page = vec![0; 8];
            page.extend(u32::try_from(entries.len()).expect("at most a page").to_le_bytes());
            page.extend([0; 4]);
            for (fingerprint, offset) in entries {
                page.extend(offset.to_le_bytes());
                page.extend(fingerprint.to_le_bytes());
            }
            page.resize(page_bytes, 0);
            let checksum = page_checksum(&page, trailer.seed, number);
            page[..8].copy_from_slice(&checksum.to_le_bytes());
            bytes.extend(page);
        }
        bytes.extend(trailer.encode(segment));
        Some(bytes)
    }
}

impl std::ops::Add for TableTotals {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            values: self.values + other.values,
            tombstones: self.tombstones + other.tombstones,
            stored_bytes: self.stored_bytes + other.stored_bytes,
            raw_bytes: self.raw_bytes + other.raw_bytes,
        }
    }
}

impl TableTotals {
    fn count(&mut self, entry: &Entry) {
        if entry.tombstone {
            self.tombstones += 1;
        } else {
            self.values += 1;
            self.stored_bytes += u64::from(entry.stored_len);
            self.raw_bytes += u64::from(entry.raw_len);
        }
    }
}

impl Trailer {
    fn encode(&self, segment: u64) -> Vec<u8> {
        let mut out = MAGIC.to_vec();
        out.extend(self.pages.to_le_bytes());
        out.extend(self.page_bytes.to_le_bytes());
        let TableTotals { values, tombstones, stored_bytes, raw_bytes } = self.totals;
        let timestamps = [self.timestamp_min, self.timestamp_max];
        let totals = [values, tombstones, stored_bytes, raw_bytes];
        for number in [self.seed, self.end, self.last, self.last_checksum].into_iter().chain(timestamps) {
            out.extend(number.to_le_bytes());
        }
        totals.iter().for_each(|number| out.extend(number.to_le_bytes()));
        let checksum = xxh3_64_with_seed(&out, segment);
        out.extend(checksum.to_le_bytes());
        assert_eq!(out.len(), TRAILER_BYTES);
        out
    }

    /// Decodes a trailer; `None` if it does not verify.
    fn decode(bytes: &[u8; TRAILER_BYTES], segment: u64) -> Option<Self> {
        let (pages, page_bytes) = (u32_at(bytes, 8), u32_at(bytes, 12));
        let good = bytes[..8] == MAGIC
            && u64_at(bytes, 96) == xxh3_64_with_seed(&bytes[..96], segment)
            && pages > 0
            && (PAGE_HEADER_BYTES + ENTRY_BYTES..=PAGE_BYTES_MAX).contains(&(page_bytes as usize));
        let [seed, end, last, last_checksum] = [16, 24, 32, 40].map(|at| u64_at(bytes, at));
        let [timestamp_min, timestamp_max] = [48, 56].map(|at| u64_at(bytes, at));
        let [values, tombstones, stored_bytes, raw_bytes] = [64, 72, 80, 88].map(|at| u64_at(bytes, at));
        let totals = TableTotals { values, tombstones, stored_bytes, raw_bytes };
        good.then_some(Self {
            pages,
            page_bytes,
            seed,
            end,
            last,
            last_checksum,
            timestamp_min,
            timestamp_max,
            totals,
        })
    }

    fn pages_bytes(&self) -> u64 {
        u64::from(self.pages) * u64::from(self.page_bytes)
    }

    /// Returns whether the table lists all records of a sealed segment of this length.
    fn matches(&self, segment: &Segment, len: u64) -> Result<bool, Error> {
        if self.end.checked_add(HEADER_BYTES as u64) != Some(len) || self.last >= self.end {
            return Ok(false);
        }
        let mut header = [0; HEADER_BYTES];
        let read = segment.read_at(&mut header, self.last).map_err(Error::io("read", &segment.path))?;
        Ok(read == HEADER_BYTES && record::checksum_of(&header) == self.last_checksum)
    }
}

/// Returns the number of the page that contains the entries of keys with this hash.
fn page_of(hash: u64, pages: u32) -> u32 {
    (((hash >> 32) * u64::from(pages)) >> 32) as u32
}

fn page_checksum(page: &[u8], seed: u64, number: u32) -> u64 {
    xxh3_64_with_seed(&page[8..], seed.wrapping_add(number.into()))
}
