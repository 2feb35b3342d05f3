//! Implements a backend that stores each value in a file named by its key. It blocks the calling
//! thread, which a production backend must not do.
//!
//! `cargo run -p greenwave-cache --features conformance --example custom_backend`
#![expect(clippy::print_stdout, reason = "an example shows what it does")]

use std::io::{ErrorKind, Write};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use greenwave_cache::{
    Backend, BoxError, Capabilities, Key, KeyBuilder, Record, Tier, Tiered, TieredOptions,
};

#[derive(Debug)]
struct LooseFiles(PathBuf);

impl LooseFiles {
    fn path(&self, key: &Key) -> PathBuf {
        self.0.join(key.to_string())
    }

    fn read(&self, key: &Key) -> Result<Option<Bytes>, BoxError> {
        match std::fs::read(self.path(key)) {
            Ok(value) => Ok(Some(value.into())),
            Err(e) if e.kind() == ErrorKind::NotFound => Ok(None),
            Err(e) => Err(e.into()),
        }
    }
}

#[async_trait]
impl Backend for LooseFiles {
    async fn get(&self, key: &Key) -> Result<Option<Bytes>, BoxError> {
        self.read(key)
    }

    async fn get_many(&self, keys: &[Key]) -> Result<Vec<Option<Bytes>>, BoxError> {
        keys.iter().map(|key| self.read(key)).collect()
    }

    async fn put(&self, key: &Key, value: Bytes, _: Option<Duration>) -> Result<(), BoxError> {
        // Written to a temporary file and renamed, so that readers never see a partial value.
        let mut file = tempfile::NamedTempFile::new_in(&self.0)?;
        file.write_all(&value)?;
        file.persist(self.path(key))?;
        Ok(())
    }

    async fn remove(&self, key: &Key) -> Result<(), BoxError> {
        match std::fs::remove_file(self.path(key)) {
            Err(e) if e.kind() != ErrorKind::NotFound => Err(e.into()),
            _ => Ok(()),
        }
    }

    async fn list(&self) -> Result<Vec<Key>, BoxError> {
        let names =
            std::fs::read_dir(&self.0)?.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
        Ok(names.filter_map(|name| name.parse().ok()).collect())
    }

    async fn flush(&self) -> Result<(), BoxError> {
        Ok(())
    }

    async fn close(&self) -> Result<(), BoxError> {
        Ok(())
    }

    fn capabilities(&self) -> Capabilities {
        // Not durable: that would require a sync of each file and of the directory.
        Capabilities { list: true, shared: true, ..Capabilities::default() }
    }
}

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    let dir = tempfile::tempdir()?;
    let backend = Arc::new(LooseFiles(dir.path().into()));
    let tier = Tier::new("files", backend);
    let results = Tiered::new(vec![tier], TieredOptions::new(1));
    let key = KeyBuilder::new("example", 1).text("all inputs of the result").finish();
    let record =
        Record { schema: 1, created_ms: 0, cost: Duration::from_secs(3), tags: vec![], payload: "ok".into() };
    results.put(&key, &record).await?;
    println!("{:?} saved {:?}", results.get(&key).await.map(|record| record.payload), results.stats().saved);
    Ok(())
}

#[cfg(test)]
mod tests {
    //! Runs the conformance tests on the backend.
    use super::*;

    struct Directory(tempfile::TempDir);

    impl greenwave_cache::conformance::BackendFixture for Directory {
        async fn open(&self) -> Arc<dyn Backend> {
            Arc::new(LooseFiles(self.0.path().into()))
        }
    }

    greenwave_cache::backend_conformance!(Directory(tempfile::tempdir().unwrap()));
}
