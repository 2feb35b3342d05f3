//! Index files: list the records of a segment up to a mark, so that opening a log reads them
//! instead of the records.
//!
//! The index file of `<id>.seg` is `<id>.idx`. It begins with the file header of `format.rs`, with
//! the magic `F5 47 57 49 44 58 0D 0A`. Blocks follow, and each continues the one before
//! (integers little-endian):
//!
//! | offset | bytes | field |
//! | --- | --- | --- |
//! | 0 | 4 | magic `F5 47 57 42` |
//! | 4 | 4 | number of records |
//! | 8 | 8 | offset in the segment of the first record |
//! | 16 | 8 | the mark: offset just past the last record |
//! | 24 | 8 | size of the body |
//! | 32 | 8 | XXH3-64 of the body |
//! | 40 | 8 | header checksum of the last record, as in the segment |
//! | 48 | 8 | XXH3-64 of bytes 0 to 48, with the segment's id as seed |
//! | 56 | | body: the records in the order of the segment |
//!
//! A record in the body is 36 bytes, its key, and the key and tag of its base as in the payload:
//!
//! | offset | bytes | field |
//! | --- | --- | --- |
//! | 0 | 8 | timestamp |
//! | 8 | 8 | offset in the segment |
//! | 16 | 4 | key length |
//! | 20 | 4 | payload length as stored |
//! | 24 | 4 | payload length when decompressed |
//! | 28 | 4 | length of the base's key and tag, 0 if the record is not a delta |
//! | 32 | 1 | kind, as the flags of a record |
//! | 33 | 1 | depth |
//! | 34 | 1 | generation |
//! | 35 | 1 | 1 if a tag follows the base's key |
//!
//! A block is written after the records that it covers are on the disk. A record before the mark
//! that does not verify is therefore damaged; one beyond it may be torn. If the file is missing or
//! does not match its segment, the segment is read instead. A key table may follow the last block,
//! see `key_table.rs`.

use std::io;
use std::path::{Path, PathBuf};

use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

use crate::Error;
use crate::access::Access;
use crate::disk::{Disk, File};
use crate::entry::{RecordInfo, split_base};
use crate::format::{SEGMENT_HEADER_BYTES, file_header, index_path, u32_at, u64_at};
use crate::key::INLINE_BYTES_MAX;
use crate::record::{self, Codec, HEADER_BYTES, Header, RecordKind};
use crate::segment::Segment;

const FILE_MAGIC: [u8; 8] = [0xF5, b'G', b'W', b'I', b'D', b'X', b'\r', b'\n'];
const BLOCK_MAGIC: [u8; 4] = [0xF5, b'G', b'W', b'B'];
const BLOCK_HEADER_BYTES: usize = 56;
const RECORD_BYTES: usize = 36;

/// Records that the next block will cover.
#[derive(Debug)]
pub(crate) struct PendingBlock {
    from: u64,
    to: u64,
    count: u32,
    last_checksum: u64,
    body: Vec<u8>,
}

impl PendingBlock {
    /// Creates an empty list of records that begins at `from` in the segment.
    pub(crate) fn new(from: u64) -> Self {
        Self { from, to: from, count: 0, last_checksum: 0, body: Vec::new() }
    }

    /// Adds a record that was just written at `offset`.
    pub(crate) fn push(&mut self, offset: u64, header: &Header, key: &[u8], base: &[u8], checksum: u64) {
        let len = |bytes: &[u8]| u32::try_from(bytes.len()).expect("keys are at most 64 KiB long");
        self.body.extend(header.timestamp.to_le_bytes());
        self.body.extend(offset.to_le_bytes());
        for number in [len(key), header.stored_len, header.raw_len, len(base)] {
            self.body.extend(number.to_le_bytes());
        }
        self.body.extend([
            header.kind.flags(),
            header.depth(),
            header.generation,
            u8::from(header.codec == Codec::DELTA),
        ]);
        self.body.extend(key);
        self.body.extend(base);
        self.to = offset + header.record_len();
        self.count += 1;
        self.last_checksum = checksum;
    }

    /// Returns the number of records.
    pub(crate) fn count(&self) -> u32 {
        self.count
    }

    /// Returns the size of the records in the segment, in bytes.
    pub(crate) fn covers_bytes(&self) -> u64 {
        self.to - self.from
    }

    /// Appends the block to the segment's index file, without syncing it; returns the bytes
    /// written.
    pub(crate) fn append_to(&self, disk: &Disk, segment: &Segment) -> Result<u64, Error> {
        let path = index_path(&segment.path);
        let io = |e| Error::io("append to", &path)(e);
        let file = disk.open(&path, Access::Create).map_err(io)?;
        let end = file.len().map_err(io)?;
        let mut bytes = Vec::with_capacity(32 + BLOCK_HEADER_BYTES + self.body.len());
        if end == 0 {
            bytes.extend(file_header(FILE_MAGIC, segment.id));
        }
        bytes.extend(self.block_header(segment.id));
        bytes.extend(&self.body);
        // Only the segment's writer writes this file, so it still ends here.
        file.write_at(&bytes, end).map_err(io)?;
        Ok(bytes.len() as u64)
    }

    fn block_header(&self, segment: u64) -> [u8; BLOCK_HEADER_BYTES] {
        let mut out = [0; BLOCK_HEADER_BYTES];
        out[0..4].copy_from_slice(&BLOCK_MAGIC);
        out[4..8].copy_from_slice(&self.count.to_le_bytes());
        out[8..16].copy_from_slice(&self.from.to_le_bytes());
        out[16..24].copy_from_slice(&self.to.to_le_bytes());
        out[24..32].copy_from_slice(&(self.body.len() as u64).to_le_bytes());
        out[32..40].copy_from_slice(&xxh3_64(&self.body).to_le_bytes());
        out[40..48].copy_from_slice(&self.last_checksum.to_le_bytes());
        let checksum = xxh3_64_with_seed(&out[..48], segment);
        out[48..56].copy_from_slice(&checksum.to_le_bytes());
        out
    }
}

/// An index file being read, block by block, as long as blocks verify and continue each other.
#[derive(Debug)]
pub(crate) struct IndexFile {
    file: File,
    path: PathBuf,
    id: u64,
    /// Offset in the segment just past the last block that matches it.
    pub(crate) mark: u64,
    /// Offset in the segment where the next block must begin.
    next: u64,
    /// Whether every block read matches the segment.
    pub(crate) fits: bool,
    /// Whether a block that does not match means that records were lost. In a copy, the index file
    /// may be newer than the segment.
    pub(crate) trusted: bool,
    /// Size of the header and all blocks that verify, in bytes.
    good_len: u64,
    /// Size of the file in bytes.
    pub(crate) len: u64,
    /// Body of the last block.
    body: Vec<u8>,
}

/// A block that verifies.
#[derive(Debug)]
pub(crate) struct BlockRead<'a> {
    pub(crate) records: BodyRecords<'a>,
    /// Whether the segment contains the last record of the block. If not, the segment was
    /// truncated, replaced by an older copy, or lost after the block's records had reached the
    /// disk, and each of them may exist or not.
    pub(crate) fits: bool,
}

impl IndexFile {
    /// Opens the index file of a segment; `None` if it is missing or belongs to another segment.
    pub(crate) fn open(disk: &Disk, segment: &Segment) -> Result<Option<Self>, Error> {
        let path = index_path(&segment.path);
        let open = disk.open(&path, Access::Read).and_then(|file| {
            let len = file.len()?;
            Ok((file, len))
        });
        let (file, len) = match open {
            Ok(opened) => opened,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(Error::io("open", &path)(e)),
        };
        let mut header = [0; SEGMENT_HEADER_BYTES as usize];
        match file.read_exact_at(&mut header, 0) {
            Ok(true) if header == file_header(FILE_MAGIC, segment.id) => {}
            Ok(_) => {
                tracing::warn!(path = %path.display(), "an index file belongs to another segment: reading the segment instead");
                return Ok(None);
            }
            Err(e) => return Err(Error::io("read", &path)(e)),
        }
        let mark = SEGMENT_HEADER_BYTES;
        let id = segment.id;
        Ok(Some(Self {
            file,
            path,
            id,
            mark,
            next: mark,
            fits: true,
            trusted: true,
            good_len: mark,
            len,
            body: Vec::new(),
        }))
    }

    /// Reads the next block; `None` at the end or if it does not verify. It may be torn, or
    /// another process may be writing it.
    pub(crate) fn next_block(
        &mut self,
        segment: &Segment,
        segment_len: u64,
    ) -> Result<Option<BlockRead<'_>>, Error> {
        let Some(block) = self.read_block().map_err(Error::io("read", &self.path))? else {
            return Ok(None);
        };
        let fits = self.fits && block.mark <= segment_len && {
            let mut header = [0; HEADER_BYTES];
            let read = segment.read_at(&mut header, block.last).map_err(Error::io("read", &segment.path))?;
            read == HEADER_BYTES && record::checksum_of(&header) == block.last_checksum
        };
        if !fits && !self.trusted {
            return Ok(None);
        }
        self.fits = fits;
        self.next = block.mark;
        self.good_len += (BLOCK_HEADER_BYTES + self.body.len()) as u64;
        if self.fits {
            self.mark = block.mark;
        } else {
            tracing::warn!(path = %self.path.display(), offset = block.last, "an index file lists records that its segment lacks");
        }
        Ok(Some(BlockRead { records: BodyRecords { bytes: &self.body }, fits: self.fits }))
    }

    fn read_block(&mut self) -> io::Result<Option<Block>> {
        let mut header = [0; BLOCK_HEADER_BYTES];
        if !self.file.read_exact_at(&mut header, self.good_len)? {
            return Ok(None);
        }
        let body_len = u64_at(&header, 24);
        let body_at = self.good_len + BLOCK_HEADER_BYTES as u64;
        let good = header[0..4] == BLOCK_MAGIC
            && u64_at(&header, 48) == xxh3_64_with_seed(&header[..48], self.id)
            && u64_at(&header, 8) == self.next
            && u64_at(&header, 16) >= self.next
            && body_len <= self.len.saturating_sub(body_at);
        let Some(body_len) = usize::try_from(body_len).ok().filter(|_| good) else { return Ok(None) };
        self.body.resize(body_len, 0);
        if !self.file.read_exact_at(&mut self.body, body_at)? || xxh3_64(&self.body) != u64_at(&header, 32) {
            return Ok(None);
        }
        Ok(Block::check(&header, &self.body))
    }

    /// Returns the size of the header and of the blocks that were read and verify, in bytes.
    pub(crate) fn good_len(&self) -> u64 {
        self.good_len
    }

    /// Truncates the file after the last block that verifies, so that blocks can be appended. Only
    /// the segment's writer may call this.
    pub(crate) fn truncate_torn(disk: &Disk, segment: &Segment, file: Option<&Self>) -> Result<(), Error> {
        let path = index_path(&segment.path);
        let good_len = file.map_or(0, |file| file.good_len);
        if file.is_some_and(|file| file.len == good_len) {
            return Ok(());
        }
        match disk.open(&path, Access::Write).and_then(|file| file.set_len(good_len)) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
            other => other.map_err(Error::io("truncate", &path)),
        }
    }
}

/// Header fields of a block.
struct Block {
    mark: u64,
    /// Offset of the last record, and its header checksum.
    last: u64,
    last_checksum: u64,
}

impl Block {
    /// Checks that offsets are plausible: a valid checksum does not prove that the body was written
    /// by this crate.
    fn check(header: &[u8; BLOCK_HEADER_BYTES], body: &[u8]) -> Option<Self> {
        let (count, mark) = (u32_at(header, 4), u64_at(header, 16));
        let (mut seen, mut last, mut next) = (0, 0, u64_at(header, 8));
        for (offset, record) in (BodyRecords { bytes: body }) {
            if offset < next || record.record_len().checked_add(offset)? > mark {
                return None;
            }
            (seen, last, next) = (seen + 1, offset, offset + record.record_len());
        }
        let last_checksum = u64_at(header, 40);
        (seen == count && count > 0).then_some(Self { mark, last, last_checksum })
    }
}

/// Iterates over the records in a body. Ends early at a malformed one.
#[derive(Debug)]
pub(crate) struct BodyRecords<'a> {
    bytes: &'a [u8],
}

impl<'a> Iterator for BodyRecords<'a> {
    type Item = (u64, RecordInfo<'a>);

    fn next(&mut self) -> Option<Self::Item> {
        let (head, rest) = self.bytes.split_first_chunk::<RECORD_BYTES>()?;
        let padded = rest.first_chunk();
        let (key, rest) = rest.split_at_checked(u32_at(head, 16) as usize)?;
        let padded = padded.filter(|_| key.len() <= INLINE_BYTES_MAX);
        let (base, rest) = rest.split_at_checked(u32_at(head, 28) as usize)?;
        let kind = RecordKind::from_flags(head[32])?;
        self.bytes = rest;
        let (stored_len, raw_len) = (u32_at(head, 20), u32_at(head, 24));
        let (base, base_tag) = split_base(base, head[35] == 1);
        let record = RecordInfo {
            kind,
            key,
            padded,
            base,
            base_tag,
            timestamp: u64_at(head, 0),
            stored_len,
            raw_len,
            depth: head[33],
            generation: head[34],
            lost: false,
        };
        Some((u64_at(head, 8), record))
    }
}

/// Removes the index file of a removed segment. A failure is harmless.
pub(crate) fn remove(disk: &Disk, segment: &Path) {
    let path = index_path(segment);
    match disk.remove(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            tracing::warn!(path = %path.display(), %error, "cannot remove an index file");
        }
        _ => {}
    }
}
