//! The hybrid store of this workspace.

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use greenwave_benches::Result;
use greenwave_storage::{BlobId, SegmentColdTier, SegmentOptions, Store, StoreOptions};
use tokio::runtime::Runtime;

use super::{BenchStore, MISSING};

/// The hybrid store. Memory holds a tenth of the files while they are put, and none after opening.
/// The search for similar contents is off, since no file is a version of another.
pub(super) struct Hybrid {
    runtime: Runtime,
    store: Store,
    ids: Vec<BlobId>,
}

impl Hybrid {
    pub(super) fn open(directory: &Path, files: &[Vec<u8>]) -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
        let options = SegmentOptions { find_similar: false, ..SegmentOptions::default() };
        let cold = SegmentColdTier::open(directory, options)?;
        let options =
            StoreOptions { memory_bytes_max: 10 << 20, promote_after: 1000, ..StoreOptions::default() };
        let store = runtime.block_on(async { Store::open(options, Arc::new(cold)) })?;
        Ok(Self { runtime, store, ids: files.iter().map(|file| BlobId::of(file)).collect() })
    }
}

impl BenchStore for Hybrid {
    fn put(&mut self, first: u64, files: &[Vec<u8>]) -> Result<()> {
        self.runtime.block_on(async {
            for (number, file) in (first..).zip(files) {
                let contents = Bytes::copy_from_slice(file);
                self.store.put(&number.to_string(), contents).await?;
            }
            Ok(self.store.flush().await?)
        })
    }

    fn get(&mut self, number: u64) -> Result<Vec<u8>> {
        let found = self.runtime.block_on(self.store.get_blob(&self.ids[number as usize]));
        Ok(found?.ok_or(MISSING)?.into())
    }

    fn close(self: Box<Self>) -> Result<()> {
        Ok(self.runtime.block_on(self.store.close())?)
    }
}
