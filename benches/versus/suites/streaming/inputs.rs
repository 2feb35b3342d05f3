//! The inputs of the contests: generated texts, cut into chunks by a fixed seed.

use std::fmt::Write as _;
use std::ops::RangeInclusive;
use std::sync::Arc;

use bytes::Bytes;

const MIB: usize = 1 << 20;
/// Length of each event including its blank line, in bytes.
pub(crate) const EVENT_BYTES: usize = 288;
/// Number of events in 16 MiB.
pub(crate) const EVENTS: usize = 16 * MIB / EVENT_BYTES;

/// A text in chunks, which clones share.
#[derive(Debug, Clone)]
pub(crate) struct Chunks(Arc<[&'static [u8]]>);

impl Chunks {
    pub(crate) fn bytes(&self) -> usize {
        self.0.iter().map(|chunk| chunk.len()).sum()
    }

    /// Returns the chunks in order. They are static, so that no reference count is part of the
    /// measurement.
    pub(crate) fn iter(&self) -> impl Iterator<Item = Bytes> + '_ {
        self.slices().map(Bytes::from_static)
    }

    pub(crate) fn slices(&self) -> impl Iterator<Item = &'static [u8]> + '_ {
        self.0.iter().copied()
    }
}

/// Cuts a text into chunks of random sizes.
pub(crate) fn cut(text: &'static [u8], sizes: RangeInclusive<usize>) -> Chunks {
    let mut state = 0x5EED_u64;
    let mut rest = text;
    let mut chunks = Vec::new();
    while !rest.is_empty() {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        let span = sizes.end() - sizes.start() + 1;
        let size = sizes.start() + (state >> 16) as usize % span;
        let (chunk, left) = rest.split_at(size.min(rest.len()));
        chunks.push(chunk);
        rest = left;
    }
    Chunks(chunks.into())
}

/// Cuts a text into chunks of one size.
pub(crate) fn cut_at(text: &'static [u8], size: usize) -> Chunks {
    Chunks(text.chunks(size).collect())
}

fn leak(text: String) -> &'static [u8] {
    text.leak().as_bytes()
}

/// Returns chat-completion chunks, in the format of OpenAI's streaming API.
pub(crate) fn event_stream() -> &'static [u8] {
    let words = [" the", " stream", " of", " words", "\\n", " caf\u{e9}", ".", " which", " ends"];
    let mut text = String::with_capacity(16 * MIB);
    for i in 0..EVENTS {
        let start = text.len();
        let word = words[i % words.len()];
        let _ = write!(
            text,
            "data: {{\"id\":\"chatcmpl-9f2c1d{i:06}\",\"object\":\"chat.completion.chunk\",\"created\":1764000000,\"model\":\"model-large-2026\",\
             \"system_fingerprint\":\"fp_50cad350e4\",\"choices\":[{{\"index\":0,\"delta\":{{\"content\":\"{word}\"}},\"logprobs\":null,\
             \"finish_reason\":null}}],\"pad\":\""
        );
        let end = start + EVENT_BYTES - "\"}\n\n".len();
        text.extend(std::iter::repeat_n('x', end - text.len()));
        text.push_str("\"}\n\n");
    }
    leak(text)
}

/// Returns events with `id` and `event` fields, as sent by servers that can resume after an id.
pub(crate) fn labelled_stream() -> &'static [u8] {
    let mut text = String::with_capacity(16 * MIB);
    for i in 0..EVENTS {
        let start = text.len();
        let _ = write!(
            text,
            "id: {i:08}\nevent: content_block_delta\ndata: {{\"type\":\"content_block_delta\",\"delta\":{{\"type\":\"text_delta\",\"text\":\""
        );
        let end = start + EVENT_BYTES - "\"}}\n\n".len();
        text.extend(std::iter::repeat_n('x', end - text.len()));
        text.push_str("\"}}\n\n");
    }
    leak(text)
}

/// Returns one event whose data is a line of 4 MiB.
pub(crate) fn one_long_event() -> &'static [u8] {
    leak(format!("data: {}\n\n", "x".repeat(4 * MIB)))
}

/// Returns Markdown with 18 bytes per line on average, including line ends.
pub(crate) fn markdown() -> &'static [u8] {
    let lines = [
        "# A heading",
        "",
        "Some text of a line, ",
        "- an item",
        "- another one",
        "```rust",
        "let a = b + c * d;",
        "```",
        "|a|b|",
        "A longer line of prose, caf\u{e9}.",
    ];
    let mut text = String::with_capacity(16 * MIB + 64);
    let mut i = 0;
    while text.len() < 16 * MIB {
        text.push_str(lines[i * 7 % lines.len()]);
        text.push_str(if i % 3 == 0 { " and so on.\n" } else { "\n" });
        i += 1;
    }
    leak(text)
}

/// Returns the arguments of a tool call that writes a file: one object of 8 KiB with long strings
/// and some nesting.
pub(crate) fn arguments() -> &'static [u8] {
    let mut text = String::from(
        "{\"path\":\"src/lib.rs\",\"options\":{\"create\":true,\"mode\":420,\"tags\":[\"a\",\"b\"]},\"edits\":[",
    );
    while text.len() < (8 << 10) - 200 {
        text.push_str("{\"line\":17,\"text\":\"    let total = items.iter().map(|item| item.price).sum::<u64>();\\n    println!(\\\"{total}\\\");\\n\"},");
    }
    text.push_str("null]}");
    leak(text)
}

/// Number of files in [`response`].
pub(crate) const FILES: usize = 32;

/// Returns an agent's response of 64 KiB with files in fenced blocks.
pub(crate) fn response() -> &'static [u8] {
    let response_bytes = 64 << 10;
    let mut text = String::new();
    for file in 0..FILES {
        let _ = write!(text, "Here is file {file}:\n\n```rust src/file_{file}.rs\n");
        while text.len() < response_bytes / FILES * (file + 1) - 10 {
            text.push_str("    let total = items.iter().map(|item| item.price).sum::<u64>();\n");
        }
        text.push_str("```\n\n");
    }
    leak(text)
}
