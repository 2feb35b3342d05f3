//! The encoding of the files that hold cached state: a header with magic number and version, values
//! of fixed or prefixed length, a checksum, and atomic replacement.
//!
//! `docs/formats/state.md` describes the files.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use greenwave_dir::Dir;

use crate::Error;

/// Replaces a file atomically: concurrent readers get the old content or the new one, never a part.
///
/// The file is not synchronized to the disk. After a crash of the system it may be empty, so
/// readers must verify a checksum.
///
/// # Errors
/// [`Error::Io`] if the file cannot be written, or is a link or not a file. The old content
/// remains.
pub fn replace_file(file: &Path, bytes: &[u8]) -> Result<(), Error> {
    let (directory, inside) = split(file);
    let written = Dir::open(directory).and_then(|directory| directory.replace_file(inside, bytes, 0o600));
    written.map_err(Error::io("write", file))
}

/// Splits the path of a file into a directory that is the user's, whose path may have links, and
/// the path below it, which may come with a clone.
fn split(file: &Path) -> (&Path, &Path) {
    let is_state = |directory: &&Path| directory.file_name().is_some_and(|name| name == STATE);
    let inner = file.ancestors().skip(1).find(is_state).unwrap_or(file);
    let directory = inner.parent().filter(|directory| !directory.as_os_str().is_empty());
    let inside = directory.and_then(|directory| file.strip_prefix(directory).ok());
    (directory.unwrap_or(Path::new(".")), inside.unwrap_or(file))
}

/// Returns the bytes of a path. Comparing them defines the order of paths in this crate, which
/// differs from the order of [`Path`] by components.
pub fn path_bytes(path: &Path) -> &[u8] {
    path.as_os_str().as_bytes()
}

/// Name of the directory of a project's state.
const STATE: &str = ".greenwave";

/// Number of bytes of a checksum.
const CHECKSUM_BYTES: usize = 16;

/// Maximum capacity that a writer begins with, in bytes.
const CAPACITY_MAX: usize = 16 << 20;

/// The header of a file: eight bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// Number that identifies the kind of file.
    pub magic: [u8; 4],
    /// Version of the format. A file of another version counts as missing.
    pub version: u32,
}

impl Header {
    /// Creates a writer that has written the header. `capacity` is the expected size of the file.
    pub fn writer(&self, capacity: usize) -> Writer {
        let mut writer = Writer(Vec::with_capacity(capacity.min(CAPACITY_MAX)));
        writer.bytes(&self.magic).bytes(&self.version.to_le_bytes());
        writer
    }

    /// Creates a reader of the bytes after the header. Returns `None` if the header differs.
    pub fn reader<'a>(&self, file: &'a [u8]) -> Option<Reader<'a>> {
        let mut reader = Reader(file);
        let is_same = reader.array()? == self.magic && reader.array()? == self.version.to_le_bytes();
        is_same.then_some(reader)
    }

    /// Creates a reader of what stands between the header and the checksum of
    /// [`Writer::with_checksum`]. Returns `None` if one of them is wrong.
    pub fn checked_reader<'a>(&self, file: &'a [u8]) -> Option<Reader<'a>> {
        let (body, checksum) = file.split_at_checked(file.len().checked_sub(CHECKSUM_BYTES)?)?;
        let is_valid = blake3::hash(body).as_bytes()[..CHECKSUM_BYTES] == *checksum;
        self.reader(body).filter(|_| is_valid)
    }
}

/// A writer that appends values to a byte string. Integers are little-endian.
#[derive(Debug, Clone, Default)]
pub struct Writer(
    /// The bytes that were written.
    pub Vec<u8>,
);

impl Writer {
    /// Appends bytes without their number.
    pub fn bytes(&mut self, bytes: &[u8]) -> &mut Self {
        self.0.extend_from_slice(bytes);
        self
    }

    /// Appends one byte.
    pub fn byte(&mut self, byte: u8) -> &mut Self {
        self.0.push(byte);
        self
    }

    /// Appends a number as eight bytes.
    pub fn number(&mut self, number: u64) -> &mut Self {
        self.bytes(&number.to_le_bytes())
    }

    /// Appends a number of elements as four bytes.
    ///
    /// # Panics
    /// If the number is 2^32 or more.
    pub fn count(&mut self, count: usize) -> &mut Self {
        let count = u32::try_from(count).expect("lists and texts have fewer than 2^32 elements");
        self.bytes(&count.to_le_bytes())
    }

    /// Appends the number of bytes and the bytes.
    ///
    /// # Panics
    /// If there are 2^32 bytes or more.
    pub fn text(&mut self, text: &[u8]) -> &mut Self {
        self.count(text.len()).bytes(text)
    }

    /// Appends a path as a text.
    ///
    /// # Panics
    /// If the path has 2^32 bytes or more.
    pub fn path(&mut self, path: &Path) -> &mut Self {
        self.text(path_bytes(path))
    }

    /// Appends a checksum, the first bytes of BLAKE3 over everything before, and returns the file.
    pub fn with_checksum(mut self) -> Vec<u8> {
        let checksum = blake3::hash(&self.0);
        self.bytes(&checksum.as_bytes()[..CHECKSUM_BYTES]);
        self.0
    }
}

/// A reader that takes values off the front of a byte string. Each method returns `None` if too few
/// bytes remain.
#[derive(Debug, Clone)]
pub struct Reader<'a>(
    /// The bytes that remain.
    pub &'a [u8],
);

impl<'a> Reader<'a> {
    /// Takes `count` bytes.
    pub fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }

    /// Takes `N` bytes.
    pub fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.take(N)?.try_into().ok()
    }

    /// Takes a little-endian number of eight bytes.
    pub fn number(&mut self) -> Option<u64> {
        Some(u64::from_le_bytes(self.array()?))
    }

    /// Takes one byte.
    pub fn byte(&mut self) -> Option<u8> {
        self.array().map(|[byte]| byte)
    }

    /// Takes a number of elements, four bytes.
    pub fn count(&mut self) -> Option<usize> {
        Some(u32::from_le_bytes(self.array()?) as usize)
    }

    /// Takes a number of bytes and the bytes.
    pub fn text(&mut self) -> Option<&'a [u8]> {
        let length = self.count()?;
        self.take(length)
    }

    /// Takes a text in UTF-8.
    pub fn string(&mut self) -> Option<String> {
        String::from_utf8(self.text()?.to_vec()).ok()
    }

    /// Takes a text that is a path.
    pub fn path(&mut self) -> Option<PathBuf> {
        Some(PathBuf::from(OsStr::from_bytes(self.text()?)))
    }

    /// Takes a number of elements and the elements.
    pub fn list<T>(&mut self, mut element: impl FnMut(&mut Self) -> Option<T>) -> Option<Vec<T>> {
        let count = self.count()?;
        (0..count).map(|_| element(self)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEADER: Header = Header { magic: *b"test", version: 3 };

    fn file() -> Vec<u8> {
        let mut writer = HEADER.writer(64);
        writer.byte(7).number(u64::MAX).path(Path::new("a/b")).count(2).text(b"x").text(b"");
        writer.with_checksum()
    }

    #[test]
    fn a_reader_returns_what_was_written() {
        let file = file();
        let mut reader = HEADER.checked_reader(&file).expect("the file is valid");
        assert_eq!(reader.byte(), Some(7));
        assert_eq!(reader.number(), Some(u64::MAX));
        assert_eq!(reader.path(), Some(PathBuf::from("a/b")));
        assert_eq!(reader.list(Reader::string), Some(vec!["x".to_owned(), String::new()]));
        assert!(reader.0.is_empty() && reader.byte().is_none());
    }

    #[test]
    fn no_damaged_file_is_read() {
        let file = file();
        for length in 0..file.len() {
            assert!(HEADER.checked_reader(&file[..length]).is_none(), "{length}");
        }
        for at in 0..file.len() {
            let mut damaged = file.clone();
            damaged[at] ^= 1;
            assert!(HEADER.checked_reader(&damaged).is_none(), "{at}");
        }
        assert!(Header { version: 4, ..HEADER }.reader(&file).is_none());
        // A number of elements that exceeds the bytes is no reason to reserve memory.
        assert_eq!(Reader(&[0xFF; 4]).list(Reader::byte), None);
    }
}
