//! Plain files.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use greenwave_benches::Result;

use super::BenchStore;
use super::zstd::Zstd;

/// One file per value in 256 directories. Each is written to a temporary file, synced and renamed.
pub(super) struct Loose {
    directory: PathBuf,
    zstd: Zstd,
}

impl Loose {
    pub(super) fn open(directory: &Path) -> Result<Self> {
        Ok(Self { directory: directory.to_owned(), zstd: Zstd::new()? })
    }

    fn path(&self, number: u64) -> PathBuf {
        self.directory.join(format!("{:02x}/{number:016x}", number % 256))
    }
}

impl BenchStore for Loose {
    fn put(&mut self, first: u64, files: &[Vec<u8>]) -> Result<()> {
        for (number, file) in (first..).zip(files) {
            let path = self.path(number);
            fs::create_dir_all(path.parent().unwrap_or(&self.directory))?;
            let temporary = path.with_extension("new");
            let mut new = fs::File::create(&temporary)?;
            new.write_all(&self.zstd.pack(file)?)?;
            new.sync_data()?;
            fs::rename(temporary, path)?;
        }
        Ok(())
    }

    fn get(&mut self, number: u64) -> Result<Vec<u8>> {
        let packed = fs::read(self.path(number))?;
        self.zstd.unpack(&packed)
    }

    fn close(self: Box<Self>) -> Result<()> {
        Ok(())
    }
}
