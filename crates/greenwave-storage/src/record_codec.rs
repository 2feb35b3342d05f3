//! Encodes and decodes stored records as length-prefixed fields, so that no text can imitate a
//! field boundary.
//!
//! A record consists of four bytes for its kind and version, followed by its fields. Numbers are
//! four bytes, wide numbers eight, little-endian; texts are their length and their bytes; blob ids
//! are 32 bytes. A checksum is unnecessary, because records are stored as contents and verified by
//! their hash.

use std::collections::BTreeMap;

use crate::BlobId;

/// Encodes a record.
#[derive(Debug)]
pub(crate) struct RecordWriter(Vec<u8>);

impl RecordWriter {
    pub(crate) fn new(kind: [u8; 4]) -> Self {
        Self(kind.to_vec())
    }

    pub(crate) fn number(&mut self, number: u32) -> &mut Self {
        self.0.extend_from_slice(&number.to_le_bytes());
        self
    }

    pub(crate) fn wide(&mut self, number: u64) -> &mut Self {
        self.0.extend_from_slice(&number.to_le_bytes());
        self
    }

    pub(crate) fn len(&mut self, len: usize) -> &mut Self {
        self.number(u32::try_from(len).expect("a record's fields are far below 4 GiB"))
    }

    pub(crate) fn text(&mut self, text: &str) -> &mut Self {
        self.len(text.len()).0.extend_from_slice(text.as_bytes());
        self
    }

    pub(crate) fn blob(&mut self, id: &BlobId) -> &mut Self {
        self.0.extend_from_slice(id.as_bytes());
        self
    }

    pub(crate) fn finish(self) -> Vec<u8> {
        self.0
    }
}

/// Decodes a record. Every step returns `None` if the bytes are invalid.
#[derive(Debug)]
pub(crate) struct RecordReader<'a>(&'a [u8]);

impl<'a> RecordReader<'a> {
    pub(crate) fn new(bytes: &'a [u8], kind: [u8; 4]) -> Option<Self> {
        Some(Self(bytes.strip_prefix(&kind)?))
    }

    pub(crate) fn number(&mut self) -> Option<u32> {
        let (number, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(u32::from_le_bytes(*number))
    }

    pub(crate) fn wide(&mut self) -> Option<u64> {
        let (number, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(u64::from_le_bytes(*number))
    }

    pub(crate) fn text(&mut self) -> Option<String> {
        let len = self.number()? as usize;
        let (text, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        String::from_utf8(text.to_vec()).ok()
    }

    pub(crate) fn blob(&mut self) -> Option<BlobId> {
        let (hash, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(BlobId::from_bytes(*hash))
    }

    /// Returns `None` if bytes are left over.
    pub(crate) fn finish(self) -> Option<()> {
        self.0.is_empty().then_some(())
    }
}

/// Converts files to a map. Returns `None` unless they are sorted by path and distinct, as they are
/// when written.
pub(crate) fn sorted_files<T>(files: Vec<(String, T)>) -> Option<BTreeMap<String, T>> {
    files.is_sorted_by(|(one, _), (next, _)| one < next).then(|| files.into_iter().collect())
}
