//! foyer.

use std::path::Path;

use foyer::{BlockEngineConfig, DeviceBuilder, FsDeviceBuilder, HybridCacheBuilder, HybridCachePolicy};
use greenwave_benches::Result;
use tokio::runtime::Runtime;

use super::zstd::Zstd;
use super::{BenchStore, MISSING};

/// foyer, a cache, which does not sync. It writes on insertion, and closing waits for pending
/// writes.
pub(super) struct Foyer {
    runtime: Runtime,
    cache: foyer::HybridCache<u64, Vec<u8>>,
    zstd: Zstd,
}

impl Foyer {
    pub(super) fn open(directory: &Path) -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
        let cache = runtime.block_on(async {
            let device = FsDeviceBuilder::new(directory).with_capacity(256 << 20).build()?;
            let builder = HybridCacheBuilder::new()
                .with_policy(HybridCachePolicy::WriteOnInsertion)
                .memory(64 << 10)
                .with_weighter(|_, value: &Vec<u8>| value.len())
                .storage()
                .with_engine_config(BlockEngineConfig::new(device).with_block_size(16 << 20));
            builder.build().await
        })?;
        Ok(Self { runtime, cache, zstd: Zstd::new()? })
    }
}

impl BenchStore for Foyer {
    fn put(&mut self, first: u64, files: &[Vec<u8>]) -> Result<()> {
        for (number, file) in (first..).zip(files) {
            let packed = self.zstd.pack(file)?;
            self.runtime.block_on(async { drop(self.cache.insert(number, packed)) });
        }
        // Without this call, foyer drops writes that do not fit in its queue.
        self.runtime.block_on(self.cache.storage().wait());
        Ok(())
    }

    fn get(&mut self, number: u64) -> Result<Vec<u8>> {
        let found = self.runtime.block_on(async { self.cache.get(&number).await });
        let entry = found?.ok_or(MISSING)?;
        self.zstd.unpack(entry.value())
    }

    fn close(self: Box<Self>) -> Result<()> {
        Ok(self.runtime.block_on(self.cache.close())?)
    }
}
