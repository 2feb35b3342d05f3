//! Complete units of a byte stream (lines, sentences, code blocks, files, JSON values, server-sent events), handed on the moment they
//! complete, bounded in memory and never dropped.
//!
//! A [`Splitter`] is a state machine that looks at every byte once, however the bytes were chunked. [`Pull`] drives one over any
//! [`Stream`](futures_core::Stream) of chunks, under a byte [`Budget`] and time [`Limits`], and yields [`UnitBatch`]es: units that
//! share one block of memory and are sliced lazily. [`BufferedSplitter`] is the same without async. [`Resume`] goes on when the source breaks.
//! [`Fanout`] hands values to many subscribers, tasks or callbacks, each with its own [`SubscriberPolicy`] for the moment when it is slow.
//! [`PartialJson`] shows a value that is not finished.
//!
//! ```
//! use bytes::Bytes;
//! use futures_util::stream;
//! use greenwave_streaming::{Files, Pull};
//!
//! # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
//! // An answer as it arrives from an agent, cut anywhere.
//! let chunks = ["Here:\n``", "`rust src/li", "b.rs\nfn main", "() {}\n```\nDone."];
//! let source = stream::iter(chunks.map(|text| Ok::<_, std::io::Error>(Bytes::from(text))));
//!
//! let mut pull = Pull::new(source, Files::default());
//! while let Some(batch) = pull.next().await {
//!     for unit in batch?.iter() {
//!         assert_eq!(unit.path(), Some("src/lib.rs"));
//!         assert_eq!(unit.language(), Some("rust"));
//!         assert_eq!(unit.bytes(), "fn main() {}\n");
//!         assert!(unit.is_complete());
//!     }
//! }
//! assert_eq!(pull.stats().units, 1);
//! # Ok::<(), greenwave_streaming::Error>(()) }).unwrap();
//! ```
//!
//! # Splitters
//!
//! | splitter | unit |
//! | --- | --- |
//! | [`Lines`] | a line ended by LF, CRLF or CR |
//! | [`Delimited`] | what stands between two delimiters of any length |
//! | [`Paragraphs`] | lines of text between blank ones |
//! | [`Sentences`] | a sentence by the rules of Unicode |
//! | [`Fences`] | a fenced code block of CommonMark, also in quotes and lists |
//! | [`Files`] | a whole file inside an agent's answer; an edit, a diff and any other block as such |
//! | [`Json`] | a JSON value; concatenated or newline-delimited |
//! | [`Sse`] | a server-sent event of the HTML standard |
//!
//! # Memory
//!
//! A stream holds at most one chunk, one unfinished unit (its cap is an argument of every splitter) and the batches that are still
//! alive somewhere. Only the last are charged to the [`Budget`], so that streams can never wait for each other's unfinished units.
//!
//! # Features
//!
//! | feature | default | what it adds | cost |
//! | --- | --- | --- | --- |
//! | `conformance` | no | the test suites that every splitter and every source passes, for authors of them | none |
//! | `journal` | no | answers that go on in a new process: `Journal`, `Resume::with_journal` | greenwave-segment, which compiles libzstd |
//! | `simulation` | no | `Journal::open_simulated`, for tests on the simulated machine of greenwave-segment | the crate `corosensei` |
//!
//! # Errors
//!
//! A stream that yields an [`Error`] yields nothing after it. Units that completed before the error were handed on; the unfinished
//! one was not: a broken source never looks like a short answer. [`Error::Source`], [`Error::Timeout`] and [`Error::Truncated`] are
//! worth another attempt, which [`Resume`] makes by itself; when it has made enough, it says so with [`Error::RetriesExhausted`].
//! [`Error::Journal`] says which folder is to blame. The others say that the bytes themselves are beyond a limit or not of the expected form.
//!
//! # Resuming
//!
//! [`Resume`] reads an answer over as many attempts as it takes: from a [`Source`] that can be opened again, behind a cursor, at the next
//! unit, with units that overlap, or anew. Units are numbered `(turn, attempt, sequence)`, and each is handed on once. With the
//! feature `journal` that holds over the end of the process, too. An end without the protocol's last unit is a failure, never a
//! short answer.

mod budget;
mod buffered;
#[cfg(feature = "conformance")]
pub mod conformance;
mod error;
mod fanout;
#[cfg(feature = "journal")]
mod journal;
mod partial_json;
mod partial_unit;
mod pull;
mod resume;
mod splitter;
mod stats;
mod unit;

pub use budget::Budget;
pub use buffered::{BufferedSplitter, CHUNK_BYTES_MAX};
pub use error::{BoxError, Error, TimeoutKind};
pub use fanout::{
    CallbackPanic, Fanout, Full, SubscriberPolicy, Subscription, SubscriptionCounters, SubscriptionStats,
};
pub use greenwave_retry::{Retry, RetryBudget};
#[cfg(feature = "journal")]
pub use journal::Journal;
pub use partial_json::PartialJson;
pub use pull::{Limits, Pull};
pub use resume::{
    Chunks, Delivery, OpenError, Opened, Position, Resume, ResumeOptions, ResumeStats, ResumeStrategy,
    Source, UnitId,
};
pub use splitter::{
    Cap, Cut, Cuts, Delimited, Fences, Files, Json, Lines, Overflow, Paragraphs, Sentences, SplitError,
    Splitter, Sse, UNIT_BYTES_MAX,
};
pub use stats::StreamStats;
pub use unit::{OwnedUnit, Unit, UnitBatch, UnitKind};
