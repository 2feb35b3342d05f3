//! Implements a cold tier with one file per key, named by the key's hash. It blocks the calling
//! thread, which a production tier must not do.
//!
//! `cargo run -p greenwave-storage --features conformance --example custom_cold`
#![expect(clippy::print_stdout, reason = "an example shows what it does")]

use std::io::{self, ErrorKind, Write};
use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use greenwave_storage::{
    BlobId, BoxError, ColdEntry, ColdTier, ColdTierStats, SharedColdTier, Store, StoreOptions,
};

/// A directory of files. Each file holds the length of the key in four bytes, the key, and the
/// value.
#[derive(Debug)]
struct LooseFiles(PathBuf);

impl LooseFiles {
    fn path(&self, key: &[u8]) -> PathBuf {
        self.0.join(BlobId::of(key).to_string())
    }

    fn read(&self, path: PathBuf) -> io::Result<Option<(Bytes, Bytes)>> {
        let file = match std::fs::read(path) {
            Ok(file) => Bytes::from(file),
            Err(e) if e.kind() == ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(e),
        };
        let Some((len, _)) = file.split_first_chunk() else { return Ok(None) };
        let value_at = 4 + u32::from_le_bytes(*len) as usize;
        Ok((file.len() >= value_at).then(|| (file.slice(4..value_at), file.slice(value_at..))))
    }

    fn write(&self, key: &[u8], value: &[u8]) -> io::Result<()> {
        // Written to a temporary file and renamed, so that readers never see a partial value.
        let mut file = tempfile::NamedTempFile::new_in(&self.0)?;
        file.write_all(&u32::try_from(key.len()).map_err(io::Error::other)?.to_le_bytes())?;
        file.write_all(key)?;
        file.write_all(value)?;
        file.as_file().sync_data()?;
        file.persist(self.path(key))?;
        Ok(())
    }

    fn entries(&self) -> io::Result<Vec<(Bytes, Bytes)>> {
        let read = |entry: io::Result<std::fs::DirEntry>| self.read(entry.ok()?.path()).transpose();
        std::fs::read_dir(&self.0)?.filter_map(read).collect()
    }
}

#[async_trait]
impl ColdTier for LooseFiles {
    async fn get(&self, key: &[u8]) -> Result<Option<Bytes>, BoxError> {
        Ok(self.read(self.path(key))?.map(|(_, value)| value))
    }

    async fn get_many(&self, keys: Vec<Bytes>) -> Result<Vec<Option<Bytes>>, BoxError> {
        let value = |key: &Bytes| Ok(self.read(self.path(key))?.map(|(_, value)| value));
        keys.iter().map(value).collect()
    }

    async fn contains_many(&self, keys: Vec<Bytes>) -> Result<Vec<bool>, BoxError> {
        Ok(keys.iter().map(|key| self.path(key).exists()).collect())
    }

    fn value_bytes_max(&self) -> Option<u64> {
        None
    }

    fn shared(&self) -> Option<&dyn SharedColdTier> {
        None
    }

    async fn put_many(&self, entries: Vec<ColdEntry>) -> Result<(), BoxError> {
        Ok(entries.iter().try_for_each(|entry| self.write(&entry.key, &entry.value))?)
    }

    async fn remove_many(&self, keys: Vec<Bytes>) -> Result<(), BoxError> {
        let gone = |key: &Bytes| match std::fs::remove_file(self.path(key)) {
            Err(e) if e.kind() != ErrorKind::NotFound => Err(e),
            _ => Ok(()),
        };
        Ok(keys.iter().try_for_each(gone)?)
    }

    async fn list(&self, prefix: &[u8]) -> Result<Vec<Bytes>, BoxError> {
        let keys = self.entries()?.into_iter().map(|(key, _)| key);
        Ok(keys.filter(|key| key.starts_with(prefix)).collect())
    }

    async fn flush(&self) -> Result<(), BoxError> {
        Ok(std::fs::File::open(&self.0)?.sync_all()?)
    }

    async fn close(&self) -> Result<(), BoxError> {
        self.flush().await
    }

    fn stats(&self) -> ColdTierStats {
        ColdTierStats { codec: "none".to_owned(), ..ColdTierStats::default() }
    }
}

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    let dir = tempfile::tempdir()?;
    let store = Store::open(StoreOptions::default(), Arc::new(LooseFiles(dir.path().into())))?;
    let id = store.put("greeting", "hello, wave".into()).await?;
    store.close().await?;
    println!("{id} is in one of {} files", std::fs::read_dir(dir.path())?.count());
    Ok(())
}

#[cfg(test)]
mod tests {
    //! Runs the conformance tests on the tier.
    use super::*;

    struct Directory(tempfile::TempDir);

    impl greenwave_storage::conformance::ColdTierFixture for Directory {
        async fn open(&self) -> Arc<dyn ColdTier> {
            Arc::new(LooseFiles(self.0.path().into()))
        }
    }

    greenwave_storage::cold_conformance!(Directory(tempfile::tempdir().unwrap()));
}
