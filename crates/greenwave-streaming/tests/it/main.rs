//! Tests of greenwave-streaming through its public API.

mod answers;
mod blocks;
mod budget;
mod chunkings;
mod commonmark;
mod crash;
mod custom_events;
mod encode;
mod fanout;
mod files;
mod files_habits;
mod json;
mod lines;
mod models;
mod option_ranges;
mod partial_json;
mod pull;
mod read;
mod resume;
mod soak;
mod sse;
mod text;

use greenwave_streaming::conformance::{UnitRecord, units};
use greenwave_streaming::{Error, Splitter};

/// Returns the units of `input` as text: with a trailing `…` if incomplete, and a leading one if
/// continued.
fn texts(splitter: impl Splitter, input: &[u8]) -> (Vec<String>, Option<Error>) {
    let (seen, error) = units(splitter, [input]);
    (seen.iter().map(marked).collect(), error)
}

fn marked(unit: &UnitRecord) -> String {
    let before = if unit.continued { "…" } else { "" };
    let after = if unit.complete { "" } else { "…" };
    format!("{before}{}{after}", String::from_utf8_lossy(&unit.bytes))
}
