//! Snapshots of a set of files, which are cheap because equal contents are stored once.

use std::collections::{BTreeMap, HashSet};

use bytes::Bytes;

use crate::record_codec::{RecordReader, RecordWriter, sorted_files};
use crate::{BlobId, Error, Store};

const KIND: [u8; 4] = *b"GWS\x01";
const EXPECTED: &str = "a snapshot of version 1";

/// State of a set of files. Two snapshots are equal if all their files are.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Snapshot {
    /// The files by path.
    pub files: BTreeMap<String, SnapshotFile>,
}

/// A file of a [`Snapshot`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SnapshotFile {
    /// Unix type and permission bits, or any other meaning that the caller gives them.
    pub mode: u32,
    /// Id of the contents.
    pub blob: BlobId,
}

impl Snapshot {
    /// Stores a file's contents and adds the file, replacing an earlier one with the same path.
    ///
    /// # Errors
    ///
    /// Returns the errors of [`Store::put_blob`].
    pub async fn add(&mut self, store: &Store, path: &str, mode: u32, contents: Bytes) -> Result<(), Error> {
        let blob = match self.files.get(path) {
            Some(before) => store.put_blob_with_base(contents, &before.blob).await?,
            None => store.put_blob(contents).await?,
        };
        self.files.insert(path.to_owned(), SnapshotFile { mode, blob });
        Ok(())
    }

    /// Saves the snapshot under a name. It is durable after the store's next flush.
    ///
    /// # Errors
    ///
    /// Returns the errors of [`Store::put`].
    pub async fn save(&self, store: &Store, name: &str) -> Result<BlobId, Error> {
        let requires = self.files.values().map(|file| file.blob).collect();
        store.put_named(name, self.encode().into(), None, Some(requires)).await
    }

    /// Loads the snapshot saved under a name.
    ///
    /// # Errors
    ///
    /// Returns [`Error::ColdTier`] or [`Error::InvalidRecord`].
    pub async fn load(store: &Store, name: &str) -> Result<Option<Self>, Error> {
        let Some(bytes) = store.get(name).await? else { return Ok(None) };
        let snapshot = Self::decode(&bytes);
        snapshot.map(Some).ok_or_else(|| Error::InvalidRecord { name: name.to_owned(), expected: EXPECTED })
    }

    /// Returns all files with their modes and contents.
    ///
    /// # Errors
    ///
    /// Returns [`Error::ColdTier`] or [`Error::Missing`].
    pub async fn contents(&self, store: &Store) -> Result<BTreeMap<String, (u32, Bytes)>, Error> {
        let ids: Vec<BlobId> = self.files.values().map(|file| file.blob).collect();
        let contents = store.get_many(&ids).await?;
        let found = self.files.iter().zip(contents).map(|((path, file), contents)| {
            let missing = || Error::Missing { what: path.clone(), blob: file.blob };
            Ok((path.clone(), (file.mode, contents.ok_or_else(missing)?)))
        });
        found.collect()
    }

    /// Returns the paths of files that differ between the two snapshots, sorted.
    pub fn changed_paths<'a>(&'a self, other: &'a Self) -> Vec<&'a str> {
        let here = self.files.iter().filter(|(path, file)| other.files.get(*path) != Some(file));
        let there = other.files.keys().filter(|path| !self.files.contains_key(*path));
        let mut paths: Vec<&str> = here.map(|(path, _)| path).chain(there).map(String::as_str).collect();
        paths.sort_unstable();
        paths
    }

    /// Returns the contents that a [`Store::sweep`] must keep for this snapshot.
    pub fn blobs(&self) -> HashSet<BlobId> {
        self.files.values().map(|file| file.blob).collect()
    }

    fn encode(&self) -> Vec<u8> {
        let mut record = RecordWriter::new(KIND);
        record.len(self.files.len());
        for (path, file) in &self.files {
            record.text(path).number(file.mode).blob(&file.blob);
        }
        record.finish()
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let mut record = RecordReader::new(bytes, KIND)?;
        let files = (0..record.number()?).map(|_| {
            let (path, mode, blob) = (record.text()?, record.number()?, record.blob()?);
            Some((path, SnapshotFile { mode, blob }))
        });
        let files = sorted_files(files.collect::<Option<_>>()?)?;
        record.finish()?;
        Some(Self { files })
    }
}

/// Decodes arbitrary bytes as a record, and checks that encoding the result yields the same bytes.
#[cfg(feature = "conformance")]
pub(crate) fn check_record(record: &[u8]) {
    if let Some(read) = Snapshot::decode(record) {
        assert_eq!(read.encode(), record);
    }
}
