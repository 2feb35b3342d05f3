//! The segment log of this workspace.

use std::path::Path;

use greenwave_benches::Result;
use greenwave_segment::{Log, Options};

use super::{BenchStore, MISSING};

/// The segment log with its default options.
pub(super) struct Segment(Log);

impl Segment {
    pub(super) fn open(directory: &Path) -> Result<Self> {
        Ok(Self(Log::open(directory, Options::default())?))
    }
}

impl BenchStore for Segment {
    fn put(&mut self, first: u64, files: &[Vec<u8>]) -> Result<()> {
        for (number, file) in (first..).zip(files) {
            self.0.put(&number.to_be_bytes(), file)?;
        }
        Ok(self.0.flush()?)
    }

    fn get(&mut self, number: u64) -> Result<Vec<u8>> {
        Ok(self.0.get(&number.to_be_bytes())?.ok_or(MISSING)?.into())
    }

    fn close(self: Box<Self>) -> Result<()> {
        Ok(())
    }
}
