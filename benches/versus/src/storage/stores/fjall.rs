//! fjall.

use std::path::Path;

use greenwave_benches::Result;

use super::zstd::Zstd;
use super::{BenchStore, MISSING};

/// fjall with key-value separation, as its documentation recommends for values of this size.
pub(super) struct Fjall {
    database: fjall::Database,
    files: fjall::Keyspace,
    zstd: Zstd,
}

impl Fjall {
    pub(super) fn open(directory: &Path) -> Result<Self> {
        let database = fjall::Database::builder(directory).open()?;
        let options = || {
            let separated = fjall::KvSeparationOptions::default().compression(fjall::CompressionType::None);
            fjall::KeyspaceCreateOptions::default().with_kv_separation(Some(separated))
        };
        let files = database.keyspace("files", options)?;
        Ok(Self { database, files, zstd: Zstd::new()? })
    }
}

impl BenchStore for Fjall {
    fn put(&mut self, first: u64, files: &[Vec<u8>]) -> Result<()> {
        for (number, file) in (first..).zip(files) {
            self.files.insert(number.to_be_bytes(), self.zstd.pack(file)?)?;
        }
        Ok(self.database.persist(fjall::PersistMode::SyncData)?)
    }

    fn get(&mut self, number: u64) -> Result<Vec<u8>> {
        let packed = self.files.get(number.to_be_bytes())?.ok_or(MISSING)?;
        self.zstd.unpack(&packed)
    }

    fn close(self: Box<Self>) -> Result<()> {
        // Values that remain in the journal would be in memory after opening, and not be read cold.
        self.files.rotate_memtable_and_wait()?;
        Ok(self.database.persist(fjall::PersistMode::SyncAll)?)
    }
}
