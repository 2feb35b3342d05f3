//! Everything through the public API.

mod answers;
mod blocks;
mod budget;
mod chunkings;
mod commonmark;
mod crash;
mod fanout;
mod json;
mod lines;
mod options;
mod partial_json;
mod pull;
mod resume;
mod soak;
mod sse;
mod text;

use greenwave_streaming::conformance::{Seen, units};
use greenwave_streaming::{Error, Splitter};

/// The units of `input` as text, each with `…` behind it if incomplete and in front if continued.
fn texts(splitter: impl Splitter, input: &[u8]) -> (Vec<String>, Option<Error>) {
    let (seen, error) = units(splitter, [input]);
    (seen.iter().map(marked).collect(), error)
}

fn marked(unit: &Seen) -> String {
    let before = if unit.continued { "…" } else { "" };
    let behind = if unit.complete { "" } else { "…" };
    format!("{before}{}{behind}", String::from_utf8_lossy(&unit.bytes))
}
