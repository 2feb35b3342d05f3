//! The compared stores, each at its best settings for source files that are written once and read
//! whole.
//!
//! All values are compressed with zstd level 1 and reused contexts: by the store if it can,
//! otherwise by the caller. The compression of foyer is off, since it made no difference when
//! tried.

mod cacache;
mod fjall;
mod foyer;
mod hybrid;
mod loose;
mod raw_file;
mod redb;
mod segment;
mod zstd;

use std::path::Path;

use greenwave_benches::Result;

/// Names of all stores, those of this workspace first. The last one is a lower bound, not a store.
pub const STORES: [&str; 8] = [
    "greenwave-segment",
    "greenwave-storage",
    "redb",
    "fjall",
    "foyer",
    "cacache",
    "loose files",
    "the disk",
];

/// Error of a store without a file that was put.
const MISSING: &str = "the file is not stored";

/// The common interface of the stores.
pub trait BenchStore {
    /// Stores a group of files numbered from `first`, and returns once they are durable.
    ///
    /// # Errors
    /// If the store fails.
    fn put(&mut self, first: u64, files: &[Vec<u8>]) -> Result<()>;

    /// Returns the contents of a file.
    ///
    /// # Errors
    /// If the store fails, or does not have the file.
    fn get(&mut self, number: u64) -> Result<Vec<u8>>;

    /// Closes the store in the way that its documentation recommends.
    ///
    /// # Errors
    /// If the store fails.
    fn close(self: Box<Self>) -> Result<()>;
}

/// Opens a store in a directory, which may be empty. Stores that address contents by hash need
/// `files` to map numbers to hashes.
///
/// # Errors
/// If no store has this name, or it cannot be opened.
pub fn open(name: &str, directory: &Path, files: &[Vec<u8>]) -> Result<Box<dyn BenchStore>> {
    Ok(match name {
        "greenwave-segment" => Box::new(segment::Segment::open(directory)?),
        "greenwave-storage" => Box::new(hybrid::Hybrid::open(directory, files)?),
        "redb" => Box::new(redb::Redb::open(directory)?),
        "fjall" => Box::new(fjall::Fjall::open(directory)?),
        "foyer" => Box::new(foyer::Foyer::open(directory)?),
        "cacache" => Box::new(cacache::Cacache::open(directory)?),
        "loose files" => Box::new(loose::Loose::open(directory)?),
        "the disk" => Box::new(raw_file::RawFile::open(directory)?),
        other => return Err(format!("invalid store {other:?}").into()),
    })
}
