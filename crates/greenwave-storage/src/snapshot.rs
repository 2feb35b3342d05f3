//! A whole state of files by content: cheap to keep, since equal contents are held once. Knows nothing of directories.

use std::collections::{BTreeMap, HashSet};

use bytes::Bytes;

use crate::manifest::{Reader, Writer, in_order};
use crate::{BlobId, Error, Store};

const KIND: [u8; 4] = *b"GWS\x01";
const EXPECTED: &str = "a snapshot of version 1";

/// A state of files. Two snapshots are equal when all their files are.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Snapshot {
    /// The files by path.
    pub files: BTreeMap<String, SnapshotFile>,
}

/// A file of a [`Snapshot`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SnapshotFile {
    /// Unix permission and type bits, or whatever the caller means by them.
    pub mode: u32,
    /// The contents.
    pub blob: BlobId,
}

impl Snapshot {
    /// Puts a file's contents into the store and enters the file, in place of what the path had before.
    ///
    /// # Errors
    ///
    /// Those of [`Store::put_blob`].
    pub async fn add(&mut self, store: &Store, path: &str, mode: u32, contents: Bytes) -> Result<(), Error> {
        let blob = match self.files.get(path) {
            Some(before) => store.put_blob_with_base(contents, &before.blob).await?,
            None => store.put_blob(contents).await?,
        };
        self.files.insert(path.to_owned(), SnapshotFile { mode, blob });
        Ok(())
    }

    /// Saves the state under a name. Durable after the store's next flush.
    ///
    /// # Errors
    ///
    /// Those of [`Store::put`].
    pub async fn save(&self, store: &Store, name: &str) -> Result<BlobId, Error> {
        let needs = self.files.values().map(|file| file.blob).collect();
        store.put_named(name, self.encode().into(), None, Some(needs)).await
    }

    /// The state saved under a name.
    ///
    /// # Errors
    ///
    /// [`Error::ColdTier`], [`Error::InvalidRecord`].
    pub async fn load(store: &Store, name: &str) -> Result<Option<Self>, Error> {
        let Some(bytes) = store.get(name).await? else { return Ok(None) };
        let snapshot = Self::decode(&bytes);
        snapshot.map(Some).ok_or_else(|| Error::InvalidRecord { name: name.to_owned(), expected: EXPECTED })
    }

    /// All files with their modes and contents, for writing them out.
    ///
    /// # Errors
    ///
    /// [`Error::ColdTier`], [`Error::Missing`].
    pub async fn contents(&self, store: &Store) -> Result<BTreeMap<String, (u32, Bytes)>, Error> {
        let ids: Vec<BlobId> = self.files.values().map(|file| file.blob).collect();
        let contents = store.get_many(&ids).await?;
        let found = self.files.iter().zip(contents).map(|((path, file), contents)| {
            let missing = || Error::Missing { what: path.clone(), blob: file.blob };
            Ok((path.clone(), (file.mode, contents.ok_or_else(missing)?)))
        });
        found.collect()
    }

    /// The paths whose files differ from those in `other`, in either direction, sorted.
    pub fn changed_paths<'a>(&'a self, other: &'a Self) -> Vec<&'a str> {
        let here = self.files.iter().filter(|(path, file)| other.files.get(*path) != Some(file));
        let there = other.files.keys().filter(|path| !self.files.contains_key(*path));
        let mut paths: Vec<&str> = here.map(|(path, _)| path).chain(there).map(String::as_str).collect();
        paths.sort_unstable();
        paths
    }

    /// Everything that a [`Store::sweep`] has to keep for this snapshot.
    pub fn blobs(&self) -> HashSet<BlobId> {
        self.files.values().map(|file| file.blob).collect()
    }

    fn encode(&self) -> Vec<u8> {
        let mut record = Writer::new(KIND);
        record.len(self.files.len());
        for (path, file) in &self.files {
            record.text(path).number(file.mode).blob(&file.blob);
        }
        record.finish()
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let mut record = Reader::new(bytes, KIND)?;
        let files = (0..record.number()?).map(|_| {
            let (path, mode, blob) = (record.text()?, record.number()?, record.blob()?);
            Some((path, SnapshotFile { mode, blob }))
        });
        let files = in_order(files.collect::<Option<_>>()?)?;
        record.finish()?;
        Some(Self { files })
    }
}

/// Reads any bytes as a record: what is read is written as the same bytes.
#[cfg(feature = "conformance")]
pub(crate) fn check_record(record: &[u8]) {
    if let Some(read) = Snapshot::decode(record) {
        assert_eq!(read.encode(), record);
    }
}
