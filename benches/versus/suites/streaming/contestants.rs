//! The contestants. Each is a closure that reads all chunks and returns a sum, by which results are
//! compared.

use std::convert::Infallible;
use std::hint::black_box;
use std::task::{Context, Poll, Waker};

use bytes::BytesMut;
use eventsource_stream::Eventsource;
use futures_util::{Stream, StreamExt, stream};
use greenwave_streaming::{
    BufferedSplitter, Files, Json, Lines, PartialJson, Pull, Splitter, Sse, UnitBatch,
};
use jiter::{JsonValueScratch, PartialMode};
use tokio_util::codec::{Decoder, LinesCodec};

use crate::contest::Run;
use crate::inputs::{Chunks, FILES};

/// Returns the sum over all items of a stream whose source is always ready. A stream that yields is
/// polled again at once.
fn drain<S: Stream + Unpin>(mut stream: S, mut sum: impl FnMut(S::Item) -> usize) -> usize {
    let mut context = Context::from_waker(Waker::noop());
    let mut total = 0;
    loop {
        match stream.poll_next_unpin(&mut context) {
            Poll::Ready(Some(item)) => total += sum(item),
            Poll::Ready(None) => return total,
            Poll::Pending => {}
        }
    }
}

pub(crate) fn greenwave_events(chunks: Chunks) -> Run {
    Box::new(move || {
        let pull = Pull::new(stream::iter(chunks.iter().map(Ok::<_, Infallible>)), Sse::default());
        drain(pull, |batch| {
            let batch = batch.expect("the events are well-formed");
            batch.iter().map(|unit| unit.text().expect("the text is UTF-8").len()).sum()
        })
    })
}

pub(crate) fn sse_stream(chunks: Chunks) -> Run {
    Box::new(move || {
        let source = stream::iter(chunks.iter().map(Ok::<_, Infallible>));
        drain(sse_stream::SseByteStream::new(source), |event| {
            event.expect("the events are well-formed").data.map_or(0, |data| black_box(data).len())
        })
    })
}

pub(crate) fn sseer(chunks: Chunks) -> Run {
    Box::new(move || {
        let source = stream::iter(chunks.iter().map(Ok::<_, Infallible>));
        drain(sseer::EventStream::new(source), |event| {
            black_box(event.expect("the events are well-formed")).data.len()
        })
    })
}

pub(crate) fn eventsource_stream(chunks: Chunks) -> Run {
    Box::new(move || {
        let source = stream::iter(chunks.iter().map(Ok::<_, Infallible>));
        drain(source.eventsource(), |event| black_box(event.expect("the events are well-formed")).data.len())
    })
}

/// Returns the lines of an event stream without their `data: `.
pub(crate) fn lines_codec(chunks: Chunks) -> Run {
    decoded(chunks, |line| line.len().saturating_sub(6))
}

pub(crate) fn lines_codec_all(chunks: Chunks) -> Run {
    decoded(chunks, str::len)
}

fn decoded(chunks: Chunks, length: fn(&str) -> usize) -> Run {
    Box::new(move || {
        let (mut codec, mut buffer, mut sum) = (LinesCodec::new(), BytesMut::new(), 0);
        for chunk in chunks.slices() {
            buffer.extend_from_slice(chunk);
            while let Some(line) = codec.decode(&mut buffer).expect("the lines are UTF-8") {
                sum += length(&black_box(line));
            }
        }
        sum
    })
}

/// Returns the sum over all batches of units, without async.
fn split<S: Splitter>(chunks: &Chunks, splitter: S, sum: impl Fn(&UnitBatch) -> usize) -> usize {
    let mut splitter = BufferedSplitter::new(splitter);
    let mut total = 0;
    for chunk in chunks.iter() {
        if let Some(batch) = splitter.feed(chunk).expect("the input is well-formed") {
            total += sum(&batch);
        }
    }
    total + splitter.finish().expect("the input is well-formed").map_or(0, |batch| sum(&batch))
}

pub(crate) fn greenwave_lines(chunks: Chunks) -> Run {
    Box::new(move || split(&chunks, Lines::default(), UnitBatch::len))
}

pub(crate) fn greenwave_line_texts(chunks: Chunks) -> Run {
    Box::new(move || {
        split(&chunks, Lines::default(), |batch| {
            batch.iter().map(|unit| black_box(unit.text().expect("the text is UTF-8")).len()).sum()
        })
    })
}

pub(crate) fn greenwave_values(chunks: Chunks) -> Run {
    Box::new(move || split(&chunks, Json::default(), UnitBatch::len))
}

pub(crate) fn stream_deserializer(chunks: Chunks) -> Run {
    Box::new(move || {
        let (mut buffer, mut values) = (Vec::new(), 0);
        for chunk in chunks.slices() {
            buffer.extend_from_slice(chunk);
            let mut found =
                serde_json::Deserializer::from_slice(&buffer).into_iter::<&serde_json::value::RawValue>();
            values += found.by_ref().map_while(Result::ok).count();
            let done = found.byte_offset();
            buffer.drain(..done);
        }
        values
    })
}

pub(crate) fn jiter(chunks: Chunks) -> Run {
    Box::new(move || {
        let (mut buffer, mut values) = (Vec::new(), 0);
        for chunk in chunks.slices() {
            buffer.extend_from_slice(chunk);
            let mut scanner = jiter::Jiter::new(&buffer);
            values += usize::from(scanner.next_skip().is_ok());
        }
        values
    })
}

/// Renders the incomplete value after each chunk.
pub(crate) fn greenwave_partial(chunks: Chunks) -> Run {
    Box::new(move || {
        let mut partial = PartialJson::default();
        for chunk in chunks.slices() {
            partial.push(chunk).expect("the input is a prefix of a value");
            black_box(partial.text());
        }
        usize::from(partial.is_complete())
    })
}

pub(crate) fn jiter_partial(chunks: Chunks) -> Run {
    Box::new(move || {
        let mut buffer = Vec::new();
        for chunk in chunks.slices() {
            buffer.extend_from_slice(chunk);
            let mut scratch = JsonValueScratch::new();
            black_box(
                scratch
                    .parse(&buffer, false, PartialMode::TrailingStrings)
                    .expect("the input is a prefix of a value"),
            );
        }
        1
    })
}

pub(crate) fn greenwave_fences(chunks: Chunks) -> Run {
    Box::new(move || {
        let files = split(&chunks, Files::default(), UnitBatch::len);
        assert_eq!(files, FILES, "every file is found");
        files
    })
}
