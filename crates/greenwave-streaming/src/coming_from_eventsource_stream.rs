//! The calls of eventsource-stream, `tokio_util::codec` and partial-json crates, and their
//! counterparts in this crate.
//!
//! | eventsource-stream | here |
//! | --- | --- |
//! | `body.eventsource()` | [`Pull::new`]`(body, Sse::default())`[`.events()`](crate::Pull::events) |
//! | `Event { event, data, id, retry }` | [`Event`], with the same fields |
//! | `EventStreamError::Transport(e)` | [`Error::Source`], with `e` as its source |
//! | `EventStreamError::Utf8`, `Parser` | none: the standard replaces such bytes, and ignores such lines |
//! | `with_last_event_id(id)` | [`Sse::after`] |
//!
//! An event that the end of the stream cuts off is discarded, as the standard requires.
//! [`Pull::ends_with`] turns a missing last event into an error, [`Pull::with_limits`] limits times
//! and sizes, and [`Resume`] reopens the stream.
//!
//! | tokio-util | here |
//! | --- | --- |
//! | `FramedRead::new(reader, LinesCodec::new())` | [`Pull::read`]`(reader, Lines::default())`[`.units()`](crate::Pull::units) |
//! | `LinesCodec::new_with_max_length(n)` | [`Lines::new`]`(Cap::error(n))`, or [`Cap::split`] for long lines in pieces |
//! | `AnyDelimiterCodec` | [`Delimited`], whose delimiter is a sequence of bytes |
//! | `Decoder` of yours | a [`Splitter`]: it scans each byte once, and the suite in `conformance` tests it |
//! | `Encoder` of `LinesCodec` | [`encode_line`]; [`encode_record`], [`encode_fence`] and [`Event::encode`] for other formats |
//! | `ReaderStream::new(reader)` | [`ReadChunks::new`] |
//!
//! For frames with a length prefix, use tokio-util.
//!
//! | partial-json crates | here |
//! | --- | --- |
//! | `parse_partial(text)` at each delta | [`PartialJson`], which scans each byte once instead of the whole text at each delta |
//!
//! ```
//! # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
//! use bytes::Bytes;
//! use futures_util::{StreamExt, stream};
//! use greenwave_streaming::{Pull, Sse};
//!
//! # let body = stream::iter([Ok::<_, std::io::Error>(Bytes::from("data: a\n\ndata: b\n\n"))]);
//! // eventsource-stream: let mut events = body.eventsource();
//! let mut events = Pull::new(body, Sse::default()).events();
//! let mut seen = Vec::new();
//! while let Some(event) = StreamExt::next(&mut events).await {
//!     seen.push(event?.data);
//! }
//! assert_eq!(seen, ["a", "b"]);
//! # Ok::<(), greenwave_streaming::Error>(())
//! # }).unwrap();
//! ```
//!
//! [`Pull::new`]: crate::Pull::new
//! [`Pull::read`]: crate::Pull::read
//! [`Pull::ends_with`]: crate::Pull::ends_with
//! [`Pull::with_limits`]: crate::Pull::with_limits
//! [`ReadChunks::new`]: crate::ReadChunks::new
//! [`Event`]: crate::Event
//! [`Event::encode`]: crate::Event::encode
//! [`Error::Source`]: crate::Error::Source
//! [`Sse::after`]: crate::Sse::after
//! [`Resume`]: crate::Resume
//! [`Lines::new`]: crate::Lines::new
//! [`Cap::split`]: crate::Cap::split
//! [`Delimited`]: crate::Delimited
//! [`Splitter`]: crate::Splitter
//! [`PartialJson`]: crate::PartialJson
//! [`encode_line`]: crate::encode_line
//! [`encode_record`]: crate::encode_record
//! [`encode_fence`]: crate::encode_fence
