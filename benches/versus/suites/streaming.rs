//! The streaming toolkit beside the crates that people use for the same: events, lines, JSON, fences, hand-off. Knows nothing of
//! how a page looks.

#[path = "streaming/allocations.rs"]
mod allocations;
#[path = "streaming/contenders.rs"]
mod contenders;
#[path = "streaming/contest.rs"]
mod contest;
#[path = "streaming/handoff.rs"]
mod handoff;
#[path = "streaming/inputs.rs"]
mod inputs;

use greenwave_benches::{Page, Row, is_measuring};

use crate::contest::Contest;
use crate::inputs::{
    Chunks, answer, arguments, cut, cut_at, event_stream, labelled_stream, markdown, one_long_event,
};

const ABOUT: &str = "
Everything runs in one process, the contenders of a row in turn, round by round. Whoever is a `Stream` is read from the same
stream of chunks that is always ready, without a runtime; the chunks are static, so that handing them over costs nobody anything. The text of every unit is taken as checked UTF-8, unless a row says *found only*.

The 16 MiB do not fit in the near caches, and each chunk that ends inside an event is copied once. In a dozen runs of one day, the median of *events,
chunks of 1..=1400* was between 0.7 and 1.0 of sse-stream's time, 0.7 with nobody else in the caches: one run says little about that row. What is
slower than a rival by more than that: an event alone, and one of 4 MiB.

- **events**: 16 MiB of chat-completion events of 288 bytes; also as many with `id` and `event` fields. `eventsource-stream` 0.2, `sseer` 0.3, and `sse-stream` 0.3 with `memchr`
  and `simdutf8`, through its `SseByteStream`. The last leaves ids and empty events to its caller, which makes it less than the standard's parser;
  it counts as a rival all the same. `LinesCodec` knows lines only and is shown for its speed.
- **lines**: 16 MiB of Markdown with 18 bytes a line, in chunks of 1400. `LinesCodec` decodes from a `BytesMut` that the chunks are appended to.
- **values**: 8 KiB of tool arguments. `StreamDeserializer` and `jiter` cannot be fed: after each chunk they look at all that there
  is. `jiter` in partial mode is what *partial* is compared with.
- **fences**: an answer of 64 KiB with 32 files, in tokens of four bytes. No crate does this; accumulating the answer and looking at all of it
  after each token took 33 ms in the study that this crate began with.
- **hand-off**: events from one thread to another. One by one through `tokio::sync::mpsc` is what a channel of units costs.

Rates (MB/s) stand behind the names; they are the medians in other words. *of the best rival* is the time in multiples of the fastest rival's
in the same round; 0.83 is 1.2 times as fast.";

/// Milliseconds for 16 MiB at a rate in MB/s.
const fn at_rate(megabytes_per_second: f64) -> f64 {
    (16 << 20) as f64 / 1e3 / megabytes_per_second
}

/// What the issue of this crate asks for: events at network-sized chunks with UTF-8 checked.
const EVENTS_MS: f64 = at_rate(3500.0);
/// 1.2 times as fast as the best rival, whatever the chunks.
const OF_RIVAL: f64 = 1.0 / 1.2;
/// Where nothing else is asked for, no rival is to be faster.
const NO_SLOWER: f64 = 1.0;
/// Where each chunk is scanned once, one event of 4 MiB costs little more than copying it.
const LONG_EVENT_MS: f64 = 5.0;
/// Eight bytes of index a line, and one look at each byte.
const LINES_MS: f64 = at_rate(3000.0);
/// 8 KiB at 200 MB/s.
const VALUES_US: f64 = (8 << 10) as f64 / 200.0;
/// Tokens have 18 ns each.
const FENCES_US: f64 = 300.0;
/// A channel costs 546 ns for each message, so units go in batches.
const HAND_OFF_NS: f64 = 100.0;
/// Nothing is allocated for an event; what is left is rounding.
const ALLOCATIONS: f64 = 0.001;
/// One small object for each stream and its source.
const FIRST_UNIT_NS: f64 = 200.0;

#[global_allocator]
static ALLOCATOR: allocations::Counting = allocations::Counting;

fn events(name: &'static str, chunks: &Chunks) -> Contest {
    Contest::new(name, "ms", 1e6)
        .ours("greenwave", contenders::greenwave_events(chunks.clone()))
        .rival("sse-stream", contenders::sse_stream(chunks.clone()))
        .rival("sseer", contenders::sseer(chunks.clone()))
        .rival("eventsource-stream", contenders::eventsource_stream(chunks.clone()))
        .beside("LinesCodec", contenders::lines_codec(chunks.clone()))
        .bytes(chunks.bytes())
        .of_rival(OF_RIVAL)
        .allocations_per(inputs::EVENTS, ALLOCATIONS)
}

fn contests() -> Vec<Contest> {
    let events_text = event_stream();
    let mut contests = vec![
        events("events, chunks of 1..=1400", &cut(events_text, 1..=1400)).at_most(EVENTS_MS),
        events("events, a chunk each", &cut_at(events_text, inputs::EVENT_BYTES)),
        events("events, chunks of 1..=32", &cut(events_text, 1..=32)),
    ];
    let labelled = labelled_stream();
    contests.push(events("events with type and id, chunks of 1..=1400", &cut(labelled, 1..=1400)));
    contests.push(events("events with type and id, a chunk each", &cut_at(labelled, inputs::EVENT_BYTES)));
    let long = cut_at(one_long_event(), 1460);
    contests.push(
        Contest::new("one event of 4 MiB, chunks of 1460", "ms", 1e6)
            .ours("greenwave", contenders::greenwave_events(long.clone()))
            .rival("sse-stream", contenders::sse_stream(long.clone()))
            .rival("sseer", contenders::sseer(long.clone()))
            .bytes(long.bytes())
            .at_most(LONG_EVENT_MS)
            .of_rival(NO_SLOWER),
    );
    let first = cut_at(&events_text[..inputs::EVENT_BYTES], inputs::EVENT_BYTES);
    contests.push(
        Contest::new("time to the first event", "ns", 1.0)
            .repeated(1000)
            .ours("greenwave", contenders::greenwave_events(first.clone()))
            .rival("sse-stream", contenders::sse_stream(first.clone()))
            .rival("sseer", contenders::sseer(first.clone()))
            .rival("eventsource-stream", contenders::eventsource_stream(first))
            .at_most(FIRST_UNIT_NS)
            .of_rival(NO_SLOWER),
    );
    contests.extend(others());
    contests
}

fn others() -> Vec<Contest> {
    let lines = cut_at(markdown(), 1400);
    let values = cut(arguments(), 1..=16);
    let tokens = cut_at(answer(), 4);
    vec![
        Contest::new("lines, found only", "ms", 1e6)
            .ours("greenwave", contenders::greenwave_lines(lines.clone()))
            .bytes(lines.bytes())
            .at_most(LINES_MS),
        Contest::new("lines as text", "ms", 1e6)
            .ours("greenwave", contenders::greenwave_line_texts(lines.clone()))
            .rival("LinesCodec", contenders::lines_codec_all(lines.clone()))
            .bytes(lines.bytes())
            .of_rival(OF_RIVAL),
        Contest::new("values, chunks of 1..=16", "µs", 1e3)
            .repeated(20)
            .ours("greenwave", contenders::greenwave_values(values.clone()))
            .bytes(values.bytes())
            .at_most(VALUES_US),
        Contest::new("values by looking again, chunks of 1..=16", "µs", 1e3)
            .ours("greenwave", contenders::greenwave_values(values.clone()))
            .rival("StreamDeserializer", contenders::stream_deserializer(values.clone()))
            .rival("jiter", contenders::jiter(values.clone()))
            .bytes(values.bytes())
            .of_rival(OF_RIVAL),
        Contest::new("a value shown after each chunk of 1..=16", "µs", 1e3)
            .ours("greenwave", contenders::greenwave_partial(values.clone()))
            .rival("jiter, partial", contenders::jiter_partial(values.clone()))
            .bytes(values.bytes())
            .of_rival(OF_RIVAL),
        Contest::new("fences, an answer in tokens", "µs", 1e3)
            .repeated(5)
            .ours("greenwave", contenders::greenwave_fences(tokens.clone()))
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
