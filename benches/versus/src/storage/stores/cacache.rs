//! cacache.

use std::path::{Path, PathBuf};

use greenwave_benches::Result;

use super::BenchStore;
use super::zstd::Zstd;

/// cacache with its fastest hash. It never syncs.
pub(super) struct Cacache {
    directory: PathBuf,
    zstd: Zstd,
}

impl Cacache {
    pub(super) fn open(directory: &Path) -> Result<Self> {
        Ok(Self { directory: directory.to_owned(), zstd: Zstd::new()? })
    }
}

impl BenchStore for Cacache {
    fn put(&mut self, first: u64, files: &[Vec<u8>]) -> Result<()> {
        for (number, file) in (first..).zip(files) {
            let packed = self.zstd.pack(file)?;
            let hash = cacache::Algorithm::Xxh3;
            cacache::write_sync_with_algo(hash, &self.directory, number.to_string(), packed)?;
        }
        Ok(())
    }

    fn get(&mut self, number: u64) -> Result<Vec<u8>> {
        let packed = cacache::read_sync(&self.directory, number.to_string())?;
        self.zstd.unpack(&packed)
    }

    fn close(self: Box<Self>) -> Result<()> {
        Ok(())
    }
}
