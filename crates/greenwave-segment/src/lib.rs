//! A crash-safe, checksummed log of keys to bytes in a directory that threads and processes share.
//!
//! A [`Log`] is opened with [`Options`] on a directory, and appends to *segments*: files that only grow until they are sealed. Each process
//! writes a segment of its own, guarded by a file lock, and reads everyone's. The newest write of a key wins. Values are compressed when
//! that helps, checked at every read, and held in memory only while a caller holds them.
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
//! # Room
//!
//! [`Log::put_like`] stores a value as the difference from one that it resembles, an earlier version say, which takes a tenth of the room or
//! less. Reading it costs reading that one too, and so on along a chain of at most [`Options::chain_depth_max`]. What a value is a
//! difference from may be removed or set anew: those that depend on it are stored anew first. [`Log::train_dictionary`] helps with many
//! small values that are alike. [`Log::compact`] gives back what is dead.
//!
//! # What is promised
//!
//! - After [`Log::flush`] returns, everything put before survives a power cut. Before, it survives the end of the process.
//! - No wrong byte is returned. A record that does not verify is a miss, counted in [`Stats::bad_records`] and warned about.
//! - Opening cuts off a torn tail, if nobody else is writing there, and steps over damaged records. It reads index files, and records
//!   only where these do not reach: a million keys take about a fifth of a second.
//! - Files are never mapped into memory, so a file truncated by others is a miss and not a signal.
//!
//! The directory must be on a local file system: the locks of network file systems are not relied on.
//!
//! # Features
//!
//! None. The crate compiles libzstd, which is most of its build time.
//!
//! # Errors
//!
//! An [`Error`] says that an operation had no effect, and which file or value is to blame. Damage is not an error.
//! The byte layout is described in `docs/storage-format.md` of the repository and at the top of `record.rs` and `segment.rs`.

mod batch;
mod check;
mod codec;
mod compact;
mod descriptors;
mod dictionary;
mod disk;
mod error;
mod fence;
mod follow;
mod hold;
mod index;
mod index_file;
mod key;
mod log;
mod options;
mod prefix;
mod read;
mod rebase;
mod record;
mod recover;
mod segment;
#[cfg(feature = "simulation")]
pub mod simulation;
mod stats;
mod turn;

pub use batch::Batch;
pub use check::{Checked, Problem, ProblemKind};
pub use compact::Compacted;
pub use error::Error;
pub use hold::Hold;
pub use log::Log;
pub use options::{Compression, Options, WhenFull};
pub use read::Nowait;
pub use stats::Stats;
