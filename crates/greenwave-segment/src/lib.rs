//! A crash-safe, checksummed key-value log in a directory that threads and processes share.
//!
//! Open a [`Log`] with [`Options`] on a directory. It appends to *segments*: files that only grow
//! until they are sealed. Each process writes its own segment under a file lock, and reads those of
//! all processes. The newest write of a key wins. Values are compressed if that helps, verified by
//! every read, and not cached in memory.
//!
//! ```
//! use greenwave_segment::{Log, Options};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let dir = tempfile::tempdir()?;
//! # let dir = dir.path().join("log");
//! let log = Log::open(&dir, Options::default())?;
//! log.put(b"green", b"wave")?;
//! log.flush()?; // durable from here on
//!
//! let other = Log::open(&dir, Options::default())?; // this or any other process
//! assert_eq!(other.get(b"green")?.as_deref(), Some(&b"wave"[..]));
//! other.remove(b"green")?;
//!
//! log.refresh()?;
//! assert_eq!(log.get(b"green")?, None);
//! # Ok(())
//! # }
//! ```
//!
//! Coming from another embedded store: [`coming_from_redb`].
//!
//! # Atomic changes
//!
//! [`Log::write`] makes all changes of a [`WriteBatch`], or none. A batch may have conditions,
//! which are compared with the newest values of all processes. [`Log::compare_and_swap`] is a batch
//! with one change and one condition.
//!
//! # Disk space
//!
//! [`Log::put_delta`] stores a value as a delta from a similar value, such as its previous version,
//! which often takes a tenth of the space or less. Reading the value reads its base as well, along
//! a chain of at most [`Options::chain_depth_max`] deltas. The base may be removed or replaced:
//! deltas that depend on it are rewritten first. [`Log::train_dictionary`] improves the compression
//! of many small, similar values. [`Log::compact`] frees the space of superseded records.
//!
//! # Guarantees
//!
//! - After [`Log::flush`] returns, everything put before through this log survives a power cut.
//!   Without a flush, it survives the end of the process.
//! - Up to 256 logs, of any processes, may write, compact and drop values in a directory at the
//!   same time. If a write of a key began after another one had returned, the later one wins, even
//!   if the clocks of the two processes disagree. Clocks that differ by less than a millisecond are
//!   trusted. No two writes have the same timestamp.
//! - No read returns a wrong byte. A record that does not verify is a miss, counted in
//!   [`Stats::bad_records`] and reported with a warning. Older values of its key stay hidden, as
//!   long as the key of the damaged record can be recovered. [`Log::check`] reports all damage.
//! - Opening cuts off a torn tail unless another process is writing there, and skips damaged
//!   records. It reads index files, and records only beyond them: a million keys take 180 ms
//!   (`benches/results/2026-11-29-x86_64-2core/versus-storage.md` in the repository). With
//!   [`LoadIndex::OnDemand`] it reads neither for sealed segments until a key is needed.
//! - A log on a full or read-only disk can be opened and read. [`Log::open_read_only`] changes
//!   nothing at all.
//! - A copy of the directory made while a process wrote contains everything that had been flushed
//!   before the copy was begun, or opening it fails with [`Error::IncompleteCopy`].
//! - Files are not mapped into memory, so a file truncated by another program is a miss and not a
//!   signal. At most [`Options::open_files_max`] segments are open.
//!
//! The directory must be on a local file system, since file locks on network file systems are
//! unreliable. `docs/reliability.md` in the repository lists the tests of each guarantee, and the
//! limits.
//!
//! # Features
//!
//! | feature | default | adds | cost |
//! | --- | --- | --- | --- |
//! | `simulation` | no | module `simulation`: a machine in memory that interleaves processes and crashes, for tests | the crate `corosensei` |
//!
//! The crate compiles libzstd, which is most of its build time.
//!
//! # Errors
//!
//! An operation that returns an [`Error`] had no effect. The error names the file or value
//! concerned. Damage is not an error but a miss. `docs/formats/storage.md` in the repository
//! describes the byte layout and how processes share a directory.

#![cfg_attr(docsrs, feature(doc_cfg))]

mod access;
mod append;
mod backup;
mod batch;
mod change_watch;
mod check;
mod codec;
#[cfg(doc)]
pub mod coming_from_redb;
mod compact;
mod compaction_lock;
mod deltas;
mod descriptors;
mod dictionary;
mod disk;
mod entry;
mod error;
mod format;
mod hold;
mod index;
mod index_file;
mod inner;
mod key;
mod key_table;
mod log;
mod manifest;
mod options;
mod prefix;
mod range;
mod read;
mod record;
mod recover;
mod refresh;
mod rewrite_lock;
mod scan;
mod segment;
mod shared_clock;
#[cfg(feature = "simulation")]
pub mod simulation;
mod stats;
mod unread;
mod write;
mod writer;
mod writer_number;

pub use backup::BackupStats;
pub use batch::WriteBatch;
pub use check::{CheckReport, Problem, ProblemKind};
pub use compact::CompactionStats;
pub use error::Error;
pub use hold::Hold;
pub use log::Log;
pub use options::{Compression, LoadIndex, Options, WhenFull};
pub use range::{Keys, Range};
pub use read::Nowait;
pub use stats::Stats;
