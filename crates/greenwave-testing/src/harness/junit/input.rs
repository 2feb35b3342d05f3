//! Reads reports with a limit on what is in memory at a time.

use std::io::{self, BufRead, Read};

/// Maximum length of one element or text, in bytes: what is in memory at a time.
pub(super) const PART_BYTES_MAX: usize = 32 << 20;
/// Maximum size of a report in UTF-16, which is decoded as a whole, in bytes.
const UTF_16_BYTES_MAX: u64 = 32 << 20;

/// Decodes UTF-16 with a byte order mark. Returns `None` for everything else, which is read as
/// UTF-8: other encodings keep their ASCII characters.
pub(super) fn utf_16(input: &mut impl BufRead) -> io::Result<Option<String>> {
    let convert: fn([u8; 2]) -> u16 = match input.fill_buf()? {
        [0xff, 0xfe, ..] => u16::from_le_bytes,
        [0xfe, 0xff, ..] => u16::from_be_bytes,
        _ => return Ok(None),
    };
    input.consume(2);
    let mut bytes = Vec::new();
    input.take(UTF_16_BYTES_MAX + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > UTF_16_BYTES_MAX {
        let problem = format!("it is in UTF-16 and larger than {} MiB", UTF_16_BYTES_MAX >> 20);
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, problem));
    }
    let (pairs, _) = bytes.as_chunks::<2>();
    let units = pairs.iter().map(|pair| convert(*pair));
    Ok(Some(char::decode_utf16(units).map(|it| it.unwrap_or(char::REPLACEMENT_CHARACTER)).collect()))
}

/// A reader that fails if a part of the input is too long.
pub(super) struct Limited<R> {
    input: R,
    left: usize,
}

impl<R> Limited<R> {
    pub(super) fn new(input: R) -> Self {
        Self { input, left: PART_BYTES_MAX }
    }

    /// Permits another part of the maximum length.
    pub(super) fn begin_part(&mut self) {
        self.left = PART_BYTES_MAX;
    }
}

impl<R: BufRead> Read for Limited<R> {
    fn read(&mut self, target: &mut [u8]) -> io::Result<usize> {
        let mut available = self.fill_buf()?;
        let count = available.read(target)?;
        self.consume(count);
        Ok(count)
    }
}

impl<R: BufRead> BufRead for Limited<R> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        let available = self.input.fill_buf()?;
        if self.left == 0 && !available.is_empty() {
            let problem = format!("an element or a text is longer than {} MiB", PART_BYTES_MAX >> 20);
            return Err(io::Error::new(io::ErrorKind::FileTooLarge, problem));
        }
        Ok(&available[..available.len().min(self.left)])
    }

    fn consume(&mut self, count: usize) {
        self.left -= count;
        self.input.consume(count);
    }
}
