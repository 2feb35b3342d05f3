//! The calls of redb and fjall, and their counterparts in this crate.
//!
//! A [`Log`] is one table of bytes. Several processes share its directory, values are compressed,
//! and no value is cached in memory:
//!
//! ```
//! use greenwave_segment::{Log, Options, WriteBatch};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let dir = tempfile::tempdir()?;
//! # let dir = dir.path().join("log");
//! // redb: let db = Database::create(path)?;
//! let log = Log::open(&dir, Options::default())?;
//!
//! // redb: let txn = db.begin_write()?; table.insert(..)?; table.remove(..)?; txn.commit()?;
//! log.write(&WriteBatch::new().put(b"users/1", b"red").put(b"users/2", b"green"))?;
//! log.flush()?;
//!
//! // redb: read, change and insert in one transaction.
//! let old = log.get(b"users/1")?;
//! assert!(log.compare_and_swap(b"users/1", old.as_deref(), Some(b"yellow"))?);
//!
//! // fjall: for guard in items.prefix("users/") { let (key, value) = guard.into_inner()?; .. }
//! for entry in log.prefix(b"users/")? {
//!     let (_key, _value) = entry?;
//! }
//! # Ok(())
//! # }
//! ```
//!
//! | redb | fjall | here |
//! | --- | --- | --- |
//! | `Database::create`, `open` | `Database::builder(path).open()` | [`Log::open`], by several processes; redb and fjall admit one |
//! | `ReadOnlyDatabase::open` | none | [`Log::open_read_only`] |
//! | `TableDefinition`, `open_table` | `keyspace` | a prefix of the key, or a directory for each |
//! | `table.get`, `insert`, `remove` | `get`, `insert`, `remove` | [`Log::get`], [`Log::put`], [`Log::remove`] |
//! | `begin_write`, `commit` | `batch`, `commit` | [`WriteBatch`] and [`Log::write`]: atomic, not durable by itself |
//! | a read in the write transaction | `OptimisticTxDatabase` | [`WriteBatch::expect`], [`Log::compare_and_swap`] |
//! | `Durability::Immediate`, `Durability::None` | `PersistMode::SyncAll`, `Buffer` | [`Log::flush`] after a write, or none |
//! | `range`, `iter` | `range`, `prefix`, `iter` | [`Log::range`], [`Log::prefix`], which pass over the whole index for about each 64th of the keys |
//! | `begin_read`, a snapshot | `snapshot` | none: each read returns the newest value |
//! | `check_integrity` | none | [`Log::check`], which names each damaged record |
//! | a copy of the file of a closed database | none | [`Log::backup`], while processes write |
//! | `compact` | automatic | [`Log::compact`], and automatic |
//! | `set_cache_size` | `cache_size` | none: values are not cached, the index is in memory, or read on demand ([`Options::load_index`]) |
//!
//! Medians with 3,000 source files of 4 to 64 KiB on two cores, each store in a process of its own
//! (`benches/results/2026-11-29-x86_64-2core/versus-storage.md` in the repository has the method,
//! the spread and more):
//!
//! | | here | redb | fjall |
//! | --- | --- | --- | --- |
//! | put and sync | 301 MB/s | 252 MB/s | 293 MB/s |
//! | get, files not in the page cache | 74.3 µs | 71.6 µs | 82.0 µs |
//! | get, files in the page cache | 11.5 µs | 11.4 µs | 12.0 µs |
//! | bytes written, of the compressed values | 1.05 | 1.60 | 2.06 |
//! | open after a kill | 0.88 ms | 17.7 ms | 17.6 ms |
//! | open after a normal end | 0.90 ms | 0.65 ms | 10.6 ms |
//! | open a million small values after a kill | 179 ms | 186 ms | 465 ms |
//!
//! Losses: the index is a hash table, so the first key of a range takes a pass over all keys; there
//! are no snapshots over several reads, and no types for keys and values. The index takes memory
//! for each key, unless it is read on demand. In return, a second process needs no server, values
//! that resemble each other take a tenth of their size ([`Log::put_delta`]), every read verifies a
//! checksum, and a copy of the directory made while a process writes can be opened.
//!
//! [`Log`]: crate::Log
//! [`Log::open`]: crate::Log::open
//! [`Log::open_read_only`]: crate::Log::open_read_only
//! [`Log::get`]: crate::Log::get
//! [`Log::put`]: crate::Log::put
//! [`Log::put_delta`]: crate::Log::put_delta
//! [`Log::remove`]: crate::Log::remove
//! [`Log::write`]: crate::Log::write
//! [`Log::compare_and_swap`]: crate::Log::compare_and_swap
//! [`Log::flush`]: crate::Log::flush
//! [`Log::range`]: crate::Log::range
//! [`Log::prefix`]: crate::Log::prefix
//! [`Log::backup`]: crate::Log::backup
//! [`Log::check`]: crate::Log::check
//! [`Log::compact`]: crate::Log::compact
//! [`WriteBatch`]: crate::WriteBatch
//! [`WriteBatch::expect`]: crate::WriteBatch::expect
//! [`Options::load_index`]: crate::Options::load_index
