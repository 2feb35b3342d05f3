//! The index of a segment on the disk: what its records hold, up to a mark, so that opening reads this and not the records.
//! Knows nothing of who wins.
//!
//! Beside `<id>.seg` may stand `<id>.idx`. It begins with 32 bytes as a segment does, with the magic `F5 47 57 49 44 58 0D 0A`, and goes on
//! in blocks, each of which continues the one before (integers little-endian):
//!
//! | offset | bytes | field |
//! | --- | --- | --- |
//! | 0 | 4 | magic `F5 47 57 42` |
//! | 4 | 4 | number of records |
//! | 8 | 8 | offset in the segment of the first record |
//! | 16 | 8 | the mark: offset just past the last record |
//! | 24 | 8 | bytes of the body |
//! | 32 | 8 | XXH3-64 of the body |
//! | 40 | 8 | header checksum of the last record, as it stands in the segment |
//! | 48 | 8 | XXH3-64 of bytes 0 to 48, with the segment's id as seed |
//! | 56 | | body: the records in the order of the segment |
//!
//! A record in the body is 36 bytes, its key, and the key of its base:
//!
//! | offset | bytes | field |
//! | --- | --- | --- |
//! | 0 | 8 | stamp |
//! | 8 | 8 | offset in the segment |
//! | 16 | 4 | key length |
//! | 20 | 4 | payload length as stored |
//! | 24 | 4 | payload length when decompressed |
//! | 28 | 4 | length of the base's key, 0 for none |
//! | 32 | 1 | kind, as the flags of a record |
//! | 33 | 1 | depth |
//! | 34 | 2 | zero |
//!
//! A block is written when what it covers is on the disk. Before the mark, therefore, a record that does not verify has been damaged;
//! beyond it, it may be torn. The file is a shortcut: without it, or if anything about it does not fit, the segment is read instead.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

use crate::Error;
use crate::index::Item;
use crate::key::INLINE_BYTES_MAX;
use crate::record::{self, HEADER_BYTES, Header, Kind};
use crate::segment::{SEGMENT_HEADER_BYTES, Segment, file_header};

/// The end of an index file's name.
pub(crate) const EXTENSION: &str = "idx";
const FILE_MAGIC: [u8; 8] = [0xF5, b'G', b'W', b'I', b'D', b'X', b'\r', b'\n'];
const BLOCK_MAGIC: [u8; 4] = [0xF5, b'G', b'W', b'B'];
const BLOCK_HEADER_BYTES: usize = 56;
const ITEM_BYTES: usize = 36;

/// Records that wait to be covered by a block.
#[derive(Debug)]
pub(crate) struct Pending {
    from: u64,
    to: u64,
    count: u32,
    last_checksum: u64,
    body: Vec<u8>,
}

impl Pending {
    /// Nothing yet, from a place in the segment on.
    pub(crate) fn new(from: u64) -> Self {
        Self { from, to: from, count: 0, last_checksum: 0, body: Vec::new() }
    }

    /// Takes note of a record that was just written at `offset`, with its header as it stands there.
    pub(crate) fn push(&mut self, offset: u64, header: &Header, key: &[u8], base: &[u8], checksum: u64) {
        let len = |bytes: &[u8]| u32::try_from(bytes.len()).expect("keys are at most 64 KiB long");
        self.body.extend(header.stamp.to_le_bytes());
        self.body.extend(offset.to_le_bytes());
        for number in [len(key), header.stored_len, header.raw_len, len(base)] {
            self.body.extend(number.to_le_bytes());
        }
        self.body.extend([header.kind.flags(), header.depth(), 0, 0]);
        self.body.extend(key);
        self.body.extend(base);
        self.to = offset + header.record_len();
        self.count += 1;
        self.last_checksum = checksum;
    }

    /// Records waiting.
    pub(crate) fn count(&self) -> u32 {
        self.count
    }

    /// Bytes of the segment that they take.
    pub(crate) fn covers_bytes(&self) -> u64 {
        self.to - self.from
    }

    /// Appends the block to the segment's index file; returns the bytes written. They need not reach the disk.
    pub(crate) fn append_to(&self, segment: &Segment) -> Result<u64, Error> {
        let path = path_of(&segment.path);
        let io = |e| Error::io("append to", &path)(e);
        let mut file = OpenOptions::new().create(true).append(true).open(&path).map_err(io)?;
        let mut bytes = Vec::with_capacity(32 + BLOCK_HEADER_BYTES + self.body.len());
        if file.metadata().map_err(io)?.len() == 0 {
            bytes.extend(file_header(FILE_MAGIC, segment.id));
        }
        bytes.extend(self.block_header(segment.id));
        bytes.extend(&self.body);
        file.write_all(&bytes).map_err(io)?;
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

/// An index file that is being read, block by block, as far as it is good and fits its segment.
#[derive(Debug)]
pub(crate) struct IndexFile {
    file: File,
    path: PathBuf,
    segment_len: u64,
    /// The offset in the segment up to which the blocks read so far reach.
    pub(crate) mark: u64,
    /// Bytes of the file that they take.
    good_len: u64,
    /// Bytes of the file.
    pub(crate) len: u64,
    /// The body of the last block.
    body: Vec<u8>,
}

impl IndexFile {
    /// Opens the index file of a segment of `segment_len` bytes. `None` if there is none, or it belongs to something else.
    pub(crate) fn open(segment: &Segment, segment_len: u64) -> Result<Option<Self>, Error> {
        let path = path_of(&segment.path);
        let open = File::open(&path).and_then(|file| {
            let len = file.metadata()?.len();
            Ok((file, len))
        });
        let (mut file, len) = match open {
            Ok(opened) => opened,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(Error::io("open", &path)(e)),
        };
        let expected = file_header(FILE_MAGIC, segment.id);
        let mut header = [0; SEGMENT_HEADER_BYTES as usize];
        match read_all(&mut file, &mut header) {
            Ok(true) if header == expected => {}
            Ok(_) => {
                tracing::warn!(path = %path.display(), "an index file is not that of its segment, which is read instead");
                return Ok(None);
            }
            Err(e) => return Err(Error::io("read", &path)(e)),
        }
        let mark = SEGMENT_HEADER_BYTES;
        Ok(Some(Self { file, path, segment_len, mark, good_len: mark, len, body: Vec::new() }))
    }

    /// The records of the next block, each with its offset in the segment. `None` when there is no good one that fits: it was torn, or is
    /// being written at this moment, or the segment was cut off and went on otherwise, or one of the two files was put back from an
    /// older copy.
    pub(crate) fn next_block(&mut self, segment: &Segment) -> Result<Option<Items<'_>>, Error> {
        let Some(block) = self.read_block(segment.id).map_err(Error::io("read", &self.path))? else {
            return Ok(None);
        };
        let mut header = [0; HEADER_BYTES];
        let read = segment.read_at(&mut header, block.last).map_err(Error::io("read", &segment.path))?;
        if read < HEADER_BYTES || record::checksum_of(&header) != block.last_checksum {
            tracing::warn!(path = %self.path.display(), offset = block.last, "an index file does not fit its segment, which is read instead");
            return Ok(None);
        }
        self.mark = block.mark;
        self.good_len += (BLOCK_HEADER_BYTES + self.body.len()) as u64;
        Ok(Some(Items { bytes: &self.body }))
    }

    fn read_block(&mut self, id: u64) -> io::Result<Option<Block>> {
        let mut header = [0; BLOCK_HEADER_BYTES];
        if !read_all(&mut self.file, &mut header)? {
            return Ok(None);
        }
        let body_len = u64_at(&header, 24);
        let good = header[0..4] == BLOCK_MAGIC
            && u64_at(&header, 48) == xxh3_64_with_seed(&header[..48], id)
            && u64_at(&header, 8) == self.mark
            && (self.mark..=self.segment_len).contains(&u64_at(&header, 16))
            && body_len <= self.len - self.good_len;
        let Some(body_len) = usize::try_from(body_len).ok().filter(|_| good) else { return Ok(None) };
        self.body.resize(body_len, 0);
        if !read_all(&mut self.file, &mut self.body)? || xxh3_64(&self.body) != u64_at(&header, 32) {
            return Ok(None);
        }
        Ok(Block::check(&header, &self.body))
    }

    /// Cuts off what is not good, so that blocks may follow. Only for whoever writes the segment.
    pub(crate) fn mend(segment: &Segment, file: Option<&Self>) -> Result<(), Error> {
        let path = path_of(&segment.path);
        let good_len = file.map_or(0, |file| file.good_len);
        if file.is_some_and(|file| file.len == good_len) {
            return Ok(());
        }
        match OpenOptions::new().write(true).open(&path).and_then(|file| file.set_len(good_len)) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
            other => other.map_err(Error::io("truncate", &path)),
        }
    }
}

/// What a block says besides its records.
struct Block {
    mark: u64,
    /// Offset of the last record, and the checksum that stands there.
    last: u64,
    last_checksum: u64,
}

impl Block {
    /// A checksum only says that somebody meant it. Offsets are believed no further than they make sense.
    fn check(header: &[u8; BLOCK_HEADER_BYTES], body: &[u8]) -> Option<Self> {
        let (count, mark) = (u32_at(header, 4), u64_at(header, 16));
        let (mut seen, mut last, mut next) = (0, 0, u64_at(header, 8));
        for (offset, item) in (Items { bytes: body }) {
            if offset < next || item.record_len().checked_add(offset)? > mark {
                return None;
            }
            (seen, last, next) = (seen + 1, offset, offset + item.record_len());
        }
        let last_checksum = u64_at(header, 40);
        (seen == count && count > 0).then_some(Self { mark, last, last_checksum })
    }
}

/// Removes the index file of a segment that is gone. It does no harm if it stays.
pub(crate) fn remove(segment: &Path) {
    let path = path_of(segment);
    match std::fs::remove_file(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            tracing::warn!(path = %path.display(), %error, "cannot remove an index file");
        }
        _ => {}
    }
}

fn path_of(segment: &Path) -> PathBuf {
    segment.with_extension(EXTENSION)
}

/// Fills the buffer; `false` if the file ends before.
fn read_all(file: &mut File, buf: &mut [u8]) -> io::Result<bool> {
    match file.read_exact(buf) {
        Ok(()) => Ok(true),
        Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
        Err(e) => Err(e),
    }
}

/// Reads a body. Ends early where it makes no sense.
#[derive(Debug)]
pub(crate) struct Items<'a> {
    bytes: &'a [u8],
}

impl<'a> Iterator for Items<'a> {
    type Item = (u64, Item<'a>);

    fn next(&mut self) -> Option<Self::Item> {
        let (head, rest) = self.bytes.split_first_chunk::<ITEM_BYTES>()?;
        let wide = rest.first_chunk();
        let (key, rest) = rest.split_at_checked(u32_at(head, 16) as usize)?;
        let wide = wide.filter(|_| key.len() <= INLINE_BYTES_MAX);
        let (base, rest) = rest.split_at_checked(u32_at(head, 28) as usize)?;
        let kind = Kind::from_flags(head[32])?;
        self.bytes = rest;
        let (stored_len, raw_len) = (u32_at(head, 20), u32_at(head, 24));
        let item =
            Item { kind, key, wide, base, stamp: u64_at(head, 0), stored_len, raw_len, depth: head[33] };
        Some((u64_at(head, 8), item))
    }
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("a range of four"))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("a range of eight"))
}
