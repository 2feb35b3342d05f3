//! redb.

use std::path::Path;

use greenwave_benches::Result;
use redb::{ReadableDatabase, TableDefinition};

use super::zstd::Zstd;
use super::{BenchStore, MISSING};

const TABLE: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("files");

/// redb with one transaction per group.
pub(super) struct Redb {
    database: redb::Database,
    zstd: Zstd,
}

impl Redb {
    pub(super) fn open(directory: &Path) -> Result<Self> {
        let database = redb::Database::create(directory.join("redb"))?;
        Ok(Self { database, zstd: Zstd::new()? })
    }
}

impl BenchStore for Redb {
    fn put(&mut self, first: u64, files: &[Vec<u8>]) -> Result<()> {
        let write = self.database.begin_write()?;
        {
            let mut table = write.open_table(TABLE)?;
            for (number, file) in (first..).zip(files) {
                table.insert(number, self.zstd.pack(file)?.as_slice())?;
            }
        }
        Ok(write.commit()?)
    }

    fn get(&mut self, number: u64) -> Result<Vec<u8>> {
        let read = self.database.begin_read()?;
        let table = read.open_table(TABLE)?;
        let packed = table.get(number)?.ok_or(MISSING)?;
        self.zstd.unpack(packed.value())
    }

    fn close(self: Box<Self>) -> Result<()> {
        Ok(())
    }
}
