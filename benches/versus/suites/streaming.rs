//! Compares the streaming toolkit with other crates: events, lines, JSON values, fences, and
//! handing units to another thread.

#[path = "streaming/allocations.rs"]
mod allocations;
#[path = "streaming/contest.rs"]
mod contest;
#[path = "streaming/contestants.rs"]
mod contestants;
#[path = "streaming/handoff.rs"]
mod handoff;
#[path = "streaming/inputs.rs"]
mod inputs;

use greenwave_benches::{Page, Row, is_measuring};

use crate::contest::Contest;
use crate::inputs::{
    Chunks, arguments, cut, cut_at, event_stream, labelled_stream, markdown, one_long_event, response,
};

const ABOUT: &str = "
All contestants of a row run in one process, in turns. Each `Stream` reads from the same stream of
chunks, which is always ready, without a runtime. The chunks are static, so passing them on costs
nothing. The text of every unit is checked to be UTF-8, unless a row says *found only*.

The 16 MiB do not fit in the caches close to the cores, and each chunk that ends inside an event is
copied once. In a dozen runs on one day, the median of *events, chunks of 1..=1400* was between 0.7
and 1.0 of the time of sse-stream, and 0.7 with no other load on the caches: a single run says
little about that row. Larger losses are a single event, and an event of 4 MiB.

- **events**: 16 MiB of chat-completion events of 288 bytes, and as many with `id` and `event`
  fields. Rivals: `eventsource-stream` 0.2, `sseer` 0.3, and `sse-stream` 0.3 with `memchr` and
  `simdutf8`, through its `SseByteStream`. The last leaves ids and empty events to its caller. It
  does less than the standard's parser but counts as a rival. `LinesCodec` only finds lines, and is
  shown for its speed.
- **lines**: 16 MiB of Markdown with 18 bytes per line, in chunks of 1400. `LinesCodec` decodes from
  a `BytesMut` to which the chunks are appended.
- **values**: 8 KiB of tool arguments. `StreamDeserializer` and `jiter` are not incremental: they
  scan all bytes again after each chunk. *partial* is compared with the partial mode of `jiter`.
- **fences**: a response of 64 KiB with 32 files, in tokens of four bytes. No other crate does this.
  A prototype that accumulated the response and scanned all of it after each token took 33 ms.
- **hand-off**: events from one thread to another. One by one through `tokio::sync::mpsc` shows the
  cost of a channel of units.

Rates (MB/s) after the names are the medians in another unit. *of the best rival* is the time
divided by that of the fastest rival in the same round; 0.83 means 1.2 times as fast.";

/// Returns the milliseconds that 16 MiB take at a rate in MB/s.
const fn at_rate(megabytes_per_second: f64) -> f64 {
    (16 << 20) as f64 / 1e3 / megabytes_per_second
}

/// Expected time for events in network-sized chunks with UTF-8 checks, from the issue that
/// introduced the suite.
const EVENTS_MS: f64 = at_rate(3500.0);
/// Expected ratio to the best rival for chunks of any size: 1.2 times as fast.
const OF_RIVAL: f64 = 1.0 / 1.2;
/// Expected ratio without another requirement: no rival is faster.
const NO_SLOWER: f64 = 1.0;
/// Expected time for one event of 4 MiB: if each chunk is scanned once, little more than copying
/// it.
const LONG_EVENT_MS: f64 = 5.0;
/// Expected time for lines: eight bytes of index per line, and one scan of each byte.
const LINES_MS: f64 = at_rate(3000.0);
/// Expected time for values: 8 KiB at 200 MB/s.
const VALUES_US: f64 = (8 << 10) as f64 / 200.0;
/// Expected time for fences: 18 ns per token.
const FENCES_US: f64 = 300.0;
/// Expected time per unit. A channel costs 546 ns per message, so units are sent in batches.
const HAND_OFF_NS: f64 = 100.0;
/// Expected allocations per event: none, except for rounding.
const ALLOCATIONS: f64 = 0.001;
/// Expected time to the first event, which includes creating a stream and its source.
const FIRST_UNIT_NS: f64 = 200.0;

#[global_allocator]
static ALLOCATOR: allocations::Counting = allocations::Counting;

fn events(name: &'static str, chunks: &Chunks) -> Contest {
    Contest::new(name, "ms", 1e6)
        .greenwave(contestants::greenwave_events(chunks.clone()))
        .rival("sse-stream", contestants::sse_stream(chunks.clone()))
        .rival("sseer", contestants::sseer(chunks.clone()))
        .rival("eventsource-stream", contestants::eventsource_stream(chunks.clone()))
        .reference("LinesCodec", contestants::lines_codec(chunks.clone()))
        .bytes(chunks.bytes())
        .of_rival(OF_RIVAL)
        .allocations_per(inputs::EVENTS, ALLOCATIONS)
}

fn contests() -> Vec<Contest> {
    let events_text = event_stream();
    let mut contests = vec![
        events("events, chunks of 1..=1400", &cut(events_text, 1..=1400)).at_most(EVENTS_MS),
        events("events, one per chunk", &cut_at(events_text, inputs::EVENT_BYTES)),
        events("events, chunks of 1..=32", &cut(events_text, 1..=32)),
    ];
    let labelled = labelled_stream();
    contests.push(events("events with type and id, chunks of 1..=1400", &cut(labelled, 1..=1400)));
    contests.push(events("events with type and id, one per chunk", &cut_at(labelled, inputs::EVENT_BYTES)));
    let long = cut_at(one_long_event(), 1460);
    contests.push(
        Contest::new("one event of 4 MiB, chunks of 1460", "ms", 1e6)
            .greenwave(contestants::greenwave_events(long.clone()))
            .rival("sse-stream", contestants::sse_stream(long.clone()))
            .rival("sseer", contestants::sseer(long.clone()))
            .bytes(long.bytes())
            .at_most(LONG_EVENT_MS)
            .of_rival(NO_SLOWER),
    );
    let first = cut_at(&events_text[..inputs::EVENT_BYTES], inputs::EVENT_BYTES);
    contests.push(
        Contest::new("time to the first event", "ns", 1.0)
            .repeated(1000)
            .greenwave(contestants::greenwave_events(first.clone()))
            .rival("sse-stream", contestants::sse_stream(first.clone()))
            .rival("sseer", contestants::sseer(first.clone()))
            .rival("eventsource-stream", contestants::eventsource_stream(first))
            .at_most(FIRST_UNIT_NS)
            .of_rival(NO_SLOWER),
    );
    contests.extend(contests_of_other_units());
    contests
}

fn contests_of_other_units() -> Vec<Contest> {
    let lines = cut_at(markdown(), 1400);
    let values = cut(arguments(), 1..=16);
    let tokens = cut_at(response(), 4);
    vec![
        Contest::new("lines, found only", "ms", 1e6)
            .greenwave(contestants::greenwave_lines(lines.clone()))
            .bytes(lines.bytes())
            .at_most(LINES_MS),
        Contest::new("lines as text", "ms", 1e6)
            .greenwave(contestants::greenwave_line_texts(lines.clone()))
            .rival("LinesCodec", contestants::lines_codec_all(lines.clone()))
            .bytes(lines.bytes())
            .of_rival(OF_RIVAL),
        Contest::new("values, chunks of 1..=16", "µs", 1e3)
            .repeated(20)
            .greenwave(contestants::greenwave_values(values.clone()))
            .bytes(values.bytes())
            .at_most(VALUES_US),
        Contest::new("values beside rescanning, chunks of 1..=16", "µs", 1e3)
            .greenwave(contestants::greenwave_values(values.clone()))
            .rival("StreamDeserializer", contestants::stream_deserializer(values.clone()))
            .rival("jiter", contestants::jiter(values.clone()))
            .bytes(values.bytes())
            .of_rival(OF_RIVAL),
        Contest::new("a value shown after each chunk of 1..=16", "µs", 1e3)
            .greenwave(contestants::greenwave_partial(values.clone()))
            .rival("jiter, partial", contestants::jiter_partial(values.clone()))
            .bytes(values.bytes())
            .of_rival(OF_RIVAL),
        Contest::new("fences, a response in tokens", "µs", 1e3)
            .repeated(5)
            .greenwave(contestants::greenwave_fences(tokens.clone()))
            .bytes(tokens.bytes())
            .at_most(FENCES_US),
    ]
}

fn main() {
    let filter: Vec<String> = std::env::args().skip(1).filter(|arg| !arg.starts_with('-')).collect();
    let wanted = |name: &str| filter.is_empty() || filter.iter().any(|part| name.contains(part.as_str()));
    if !is_measuring() {
        return;
    }
    let mut rows: Vec<Row> = Vec::new();
    for contest in contests() {
        if wanted(contest.name()) {
            rows.extend(contest.run());
        }
    }
    if wanted("hand-off") {
        rows.extend(handoff::rows(HAND_OFF_NS));
    }
    Page { suite: "versus-streaming", about: ABOUT, rows }.publish();
}
