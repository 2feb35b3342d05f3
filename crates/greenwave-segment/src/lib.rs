//! A crash-safe, checksummed log of keys to bytes in a directory that threads and processes share.
//!
//! A [`Log`] is opened with [`Options`] on a directory, and appends to *segments*: files that only
//! grow until they are sealed. Each process writes a segment of its own, guarded by a file lock,
//! and reads everyone's. The newest write of a key wins. Values are compressed when that helps,
//! checked at every read, and held in memory only while a caller holds them.
//!
//! ```
//! use greenwave_segment::{Log, Options};
//!
//! # let dir = tempfile::tempdir().unwrap();
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
//! # Ok::<(), greenwave_segment::Error>(())
//! ```
//!
//! # Several changes at once
//!
//! [`Log::write`] makes all changes of a [`Batch`], or none; a batch may have conditions, which are
//! compared with the newest values of all processes. [`Log::compare_and_swap`] is a batch with one
//! of each.
//!
//! # Room
//!
//! [`Log::put_delta`] stores a value as the difference from one that it resembles, an earlier
//! version say, which takes a tenth of the room or less. Reading it costs reading that one too, and
//! so on along a chain of at most [`Options::chain_depth_max`]. What a value is a difference from
//! may be removed or set anew: those that depend on it are stored anew first.
//! [`Log::train_dictionary`] helps with many small values that are alike. [`Log::compact`] gives
//! back what is dead.
//!
//! # What is promised
//!
//! - After [`Log::flush`] returns, everything put before through this log survives a power cut.
//!   Before, it survives the end of the process.
//! - Any number of processes may write, compact and drop at the same time. Of two writes of a key,
//!   the second of which began after the first had returned, the second counts, whatever the clocks
//!   of the two processes say (if these differ by a millisecond or more; below that, by their
//!   clocks).
//! - No wrong byte is returned. A record that does not verify is a miss, counted in
//!   [`Stats::bad_records`] and warned about, and an older value of its key does not come back, as
//!   far as anything still names the record. [`Log::check`] reports all damage.
//! - Opening cuts off a torn tail, if nobody else is writing there, and steps over damaged records.
//!   It reads index files, and records only where these do not reach: a million keys take about a
//!   fifth of a second.
//! - A full or read-only disk does not keep a log from being opened and read.
//!   [`Log::open_read_only`] changes nothing at all.
//! - A copy of a directory that was made while somebody wrote has everything that had been flushed
//!   before it was begun, or opening it fails with [`Error::IncompleteCopy`].
//! - Files are never mapped into memory, so a file truncated by others is a miss and not a signal.
//!   At most [`Options::open_files_max`] segments are open.
//!
//! The directory must be on a local file system: the locks of network file systems are not relied
//! on. What shows each promise, and what is not promised, stands in `docs/reliability.md` of the
//! repository.
//!
//! # Features
//!
//! | feature | default | gives | costs |
//! | --- | --- | --- | --- |
//! | `simulation` | no | the module `simulation`: a machine in memory that interleaves processes and crashes, for tests | the crate `corosensei` |
//!
//! The crate compiles libzstd, which is most of its build time.
//!
//! # Errors
//!
//! An [`Error`] says that an operation had no effect, and which file or value is to blame. Damage
//! is not an error. The byte layout, and the protocol by which processes share a directory, are
//! described in `docs/storage-format.md` of the repository.

mod access;
mod append;
mod batch;
mod check;
mod codec;
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
mod log;
mod manifest;
mod options;
mod prefix;
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
mod write;
mod writer;

pub use batch::Batch;
pub use check::{CheckReport, Problem, ProblemKind};
pub use compact::CompactionStats;
pub use error::Error;
pub use hold::Hold;
pub use log::Log;
pub use options::{Compression, Options, WhenFull};
pub use read::Nowait;
pub use stats::Stats;
