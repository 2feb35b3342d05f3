//! Splits a byte stream into complete units (lines, sentences, code blocks, files, JSON values,
//! server-sent events) and yields each unit as soon as it is complete. Memory is bounded and no
//! unit is dropped.
//!
//! A [`Splitter`] is a state machine that scans every byte once and finds the same units however
//! the bytes were chunked. [`Pull`] drives one over any [`Stream`](futures_core::Stream) of chunks,
//! under a byte [`Budget`] and time [`Limits`], and yields [`UnitBatch`]es: units that share one
//! block of memory and are sliced lazily.
//!
//! ```
//! use bytes::Bytes;
//! use futures_util::stream;
//! use greenwave_streaming::{Files, Pull};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! // A response as it arrives from an agent, in arbitrary chunks.
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
//! # Ok(())
//! # }
//! ```
//!
//! # Splitters
//!
//! | splitter | unit |
//! | --- | --- |
//! | [`Lines`] | a line ended by LF, CRLF or CR |
//! | [`Delimited`] | the bytes between two delimiters of any length |
//! | [`Paragraphs`] | lines of text between blank lines |
//! | [`Sentences`] | a sentence according to Unicode (UAX #29) |
//! | [`Fences`] | a fenced CommonMark code block, also inside quotes and lists |
//! | [`Files`] | a whole file in an agent's response, an edit, a diff or another code block |
//! | [`Json`] | a JSON value; concatenated or newline-delimited |
//! | [`Sse`] | a server-sent event (HTML standard) |
//!
//! # Further types
//!
//! | type | purpose |
//! | --- | --- |
//! | [`ReadChunks`] | the bytes of an `AsyncRead` as a stream of chunks, for [`Pull::read`] |
//! | [`Units`], [`Events`] | streams of single units, and of server-sent events as [`Event`]s |
//! | [`encode_line`], [`encode_record`], [`encode_fence`], [`Event::encode`] | write the formats that splitters read |
//! | [`BufferedSplitter`] | drives a splitter without async |
//! | [`Resume`] | reopens the source when it breaks, and continues |
//! | [`Fanout`] | broadcasts values to subscribers, each with a [`SubscriberPolicy`] for when it is slow |
//! | [`PartialJson`] | turns an unfinished JSON value into a valid one |
//! | `ModelDecoder` | turns the events of OpenAI, Anthropic and Gemini into typed deltas (feature `models`) |
//!
//! Coming from another crate: [`coming_from_eventsource_stream`].
//!
//! # Memory
//!
//! A stream holds at most one chunk, one unfinished unit (every splitter takes a cap) and the
//! batches that are still alive. Only the batches are charged to the [`Budget`], so two streams
//! never wait for each other's unfinished units.
//!
//! # Resuming
//!
//! [`Resume`] reads one response over as many attempts as it takes. It reopens a [`Source`] after a
//! cursor, at the next unit, with overlapping units, or from the start ([`ResumeStrategy`]). Units
//! are numbered `(turn, attempt, sequence)` and each is delivered once. With the feature `journal`,
//! this also holds across processes. A source that ends without the protocol's last unit has
//! failed.
//!
//! # Features
//!
//! | feature | default | adds | cost |
//! | --- | --- | --- | --- |
//! | `conformance` | no | conformance suites for `Splitter` and `Source` | none |
//! | `journal` | no | `Journal`: resume in a new process | greenwave-segment, with libzstd |
//! | `models` | no | `ModelDecoder`: the streams of model servers | the crates `serde` and `serde_json` |
//! | `simulation` | no | `Journal::open_simulated`, for tests | the crate `corosensei` |
//!
//! # Errors
//!
//! A stream that yields an [`Error`] yields nothing after it. Units that completed before the error
//! have been yielded; the unfinished unit has not, so a broken source is never mistaken for a short
//! response. [`Error::Source`], [`Error::Timeout`] and [`Error::Truncated`] are transient:
//! [`Resume`] retries them and reports [`Error::RetriesExhausted`] when it gives up.
//! [`Error::Journal`] names the journal's directory. All other errors mean that the bytes exceed a
//! limit or are malformed.

#![cfg_attr(docsrs, feature(doc_cfg))]

mod budget;
mod buffered;
#[cfg(doc)]
pub mod coming_from_eventsource_stream;
#[cfg(feature = "conformance")]
pub mod conformance;
mod cut;
mod encode;
mod error;
mod event;
mod fanout;
#[cfg(feature = "journal")]
mod journal;
mod layout;
mod line_prefix;
#[cfg(feature = "models")]
mod model;
mod partial_json;
mod partial_unit;
mod pull;
mod read;
mod resume;
mod splitter;
mod stats;
mod unit;
mod units;

pub use budget::Budget;
pub use buffered::{BufferedSplitter, CHUNK_BYTES_MAX};
pub use cut::{Cut, Cuts};
pub use encode::{EncodeError, encode_fence, encode_line, encode_record};
pub use error::{BoxError, Error, TimeoutKind};
pub use event::Event;
pub use fanout::{
    CallbackPanic, Fanout, Full, SubscriberPolicy, Subscription, SubscriptionCounters, SubscriptionStats,
};
pub use greenwave_retry::{Retry, RetryBudget};
#[cfg(feature = "journal")]
pub use journal::Journal;
pub use layout::UnitKind;
#[cfg(feature = "models")]
pub use model::{FinishReason, ModelDecoder, ModelEvent, ModelProtocol, ModelStreamError, ModelUsage};
pub use partial_json::PartialJson;
pub use pull::{Limits, Pull};
pub use read::ReadChunks;
pub use resume::{
    Chunks, Delivery, OpenError, Opened, Position, Resume, ResumeOptions, ResumeStats, ResumeStrategy,
    Source, UnitId,
};
pub use splitter::{
    Cap, Delimited, Fences, Files, Json, Lines, Overflow, Paragraphs, Sentences, SplitError, Splitter, Sse,
    UNIT_BYTES_MAX,
};
pub use stats::StreamStats;
pub use unit::{OwnedUnit, Unit, UnitBatch};
pub use units::{Events, Units};
