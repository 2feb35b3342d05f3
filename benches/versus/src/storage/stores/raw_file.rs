//! A lower bound of the work of any store.

use std::fs;
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use greenwave_benches::Result;

use super::BenchStore;
use super::zstd::Zstd;

/// A lower bound of any store's work: one file, written and read at given offsets without checks or
/// recovery.
pub(super) struct RawFile {
    file: fs::File,
    ends: Vec<u64>,
    list: PathBuf,
    zstd: Zstd,
}

impl RawFile {
    pub(super) fn open(directory: &Path) -> Result<Self> {
        let mut options = fs::OpenOptions::new();
        let file = options.create(true).append(true).read(true).open(directory.join("values"))?;
        let list = directory.join("ends");
        let ends = fs::read(&list).unwrap_or_default();
        let ends = ends.as_chunks::<8>().0.iter().map(|end| u64::from_le_bytes(*end)).collect();
        Ok(Self { file, ends, list, zstd: Zstd::new()? })
    }
}

impl BenchStore for RawFile {
    fn put(&mut self, _: u64, files: &[Vec<u8>]) -> Result<()> {
        for file in files {
            let packed = self.zstd.pack(file)?;
            self.file.write_all(&packed)?;
            self.ends.push(self.ends.last().unwrap_or(&0) + packed.len() as u64);
        }
        self.file.sync_data()?;
        let ends: Vec<u8> = self.ends.iter().flat_map(|end| end.to_le_bytes()).collect();
        Ok(fs::write(&self.list, ends)?)
    }

    fn get(&mut self, number: u64) -> Result<Vec<u8>> {
        let at = number as usize;
        let begin = at.checked_sub(1).map_or(0, |previous| self.ends[previous]);
        let mut packed = vec![0; (self.ends[at] - begin) as usize];
        self.file.read_exact_at(&mut packed, begin)?;
        self.zstd.unpack(&packed)
    }

    fn close(self: Box<Self>) -> Result<()> {
        Ok(())
    }
}
