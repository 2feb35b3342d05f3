//! One recorded request with its response, as it is stored.

use std::io::{self, Read};
use std::path::{Component, Path};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Version of the format.
const VERSION: u32 = 1;
/// Compression level of zstd.
const LEVEL: i32 = 3;
/// Number of characters before and after a difference that its description quotes.
const QUOTED: (usize, usize) = (20, 40);

/// A request, and its response.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Exchange {
    greenwave_exchange: u32,
    /// Name of the file, which does not contain it.
    #[serde(skip)]
    pub(super) name: String,
    pub(super) path: String,
    pub(super) request: Value,
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    /// Time from the request to the start of the response.
    #[serde(rename = "delay_ms", with = "milliseconds")]
    pub(crate) delay: Duration,
    pub(super) chunks: Vec<Chunk>,
    body: Body,
    /// Whether the connection was lost after the last chunk.
    pub(crate) is_lost: bool,
    /// The end of a program.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) end: Option<ProgramEnd>,
}

/// The end of a program.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct ProgramEnd {
    /// Time since the last chunk.
    #[serde(rename = "delay_ms", with = "milliseconds")]
    pub(super) delay: Duration,
    /// The status, as `wait(2)` encodes it.
    pub(super) status: i32,
    /// All of standard error.
    pub(super) stderr: String,
    /// The files that the program has changed, by their paths in the request's root.
    pub(super) files: Vec<ChangedFile>,
}

/// A file that a program has created, changed or removed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct ChangedFile {
    pub(super) path: String,
    pub(super) change: FileChange,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum FileChange {
    Removed,
    Link { target: String },
    Written { permissions: u32, content: Body },
}

/// A part of a response, as it arrived.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub(super) struct Chunk {
    /// Time since the one before.
    #[serde(rename = "delay_ms", with = "milliseconds")]
    pub(super) delay: Duration,
    pub(super) bytes: usize,
}

/// The bytes of all chunks.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Body {
    Text(String),
    /// Bytes that are not UTF-8, in hexadecimal.
    Hex(String),
}

impl Default for Body {
    fn default() -> Self {
        Self::Text(String::new())
    }
}

impl Body {
    /// Stores bytes, without what `mask` removes.
    pub(super) fn new(bytes: Vec<u8>, mask: &dyn Fn(&str) -> String) -> Self {
        let text = String::from_utf8(bytes);
        let readable = text
            .as_ref()
            .map_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned(), String::clone);
        let masked = mask(&readable);
        match text {
            Err(error) if masked == readable => Self::Hex(hex(error.as_bytes())),
            _ => Self::Text(masked),
        }
    }

    /// Returns the bytes.
    ///
    /// # Errors
    /// If the hexadecimal digits are invalid.
    pub(super) fn bytes(&self) -> io::Result<Vec<u8>> {
        match self {
            Self::Text(text) => Ok(text.clone().into_bytes()),
            Self::Hex(digits) => unhex(digits).ok_or_else(|| invalid("expected hexadecimal digits")),
        }
    }
}

impl Exchange {
    /// Creates an exchange that has no response yet.
    pub(super) fn new(name: String, path: String, request: Value) -> Self {
        Self { name, path, request, ..Self::default() }
    }

    /// Sets the bytes of all chunks. If `mask` changes them, the chunks end at the same numbers of
    /// bytes, as far as the masked text has as many.
    pub(super) fn set_body(&mut self, bytes: Vec<u8>, mask: &dyn Fn(&str) -> String) {
        self.body = Body::new(bytes, mask);
    }

    /// Returns the chunks with their delays.
    ///
    /// # Errors
    /// If the hexadecimal digits are invalid.
    pub(crate) fn chunks(&self) -> io::Result<Vec<(Duration, Vec<u8>)>> {
        let bytes = self.body.bytes()?;
        let mut rest = &bytes[..];
        let last = self.chunks.len().saturating_sub(1);
        let chunks = self.chunks.iter().enumerate().map(|(number, chunk)| {
            let end = if number == last { rest.len() } else { chunk.bytes.min(rest.len()) };
            let (part, after) = rest.split_at(end);
            rest = after;
            (chunk.delay, part.to_vec())
        });
        Ok(chunks.collect())
    }

    /// Returns the content of a file.
    ///
    /// # Errors
    /// If it has more than `bytes_max` bytes, so that it could not be replayed.
    pub(super) fn encode(&self, bytes_max: u64) -> io::Result<Vec<u8>> {
        let exchange = Self { greenwave_exchange: VERSION, ..self.clone() };
        let json = serde_json::to_vec(&exchange)?;
        if json.len() as u64 > bytes_max {
            return Err(invalid("the response and the changed files are too large"));
        }
        zstd::encode_all(&json[..], LEVEL)
    }

    pub(super) fn decode(name: &str, content: &[u8], bytes_max: u64) -> io::Result<Self> {
        let mut json = Vec::new();
        zstd::Decoder::new(content)?.take(bytes_max + 1).read_to_end(&mut json)?;
        if json.len() as u64 > bytes_max {
            return Err(invalid("it is too large"));
        }
        let exchange: Self = serde_json::from_slice(&json)?;
        if exchange.greenwave_exchange != VERSION {
            return Err(invalid("it was written by another version of greenwave"));
        }
        // A body that cannot be replayed is found before the run.
        exchange.chunks()?;
        for file in exchange.end.iter().flat_map(|end| &end.files) {
            file.check()?;
        }
        Ok(Self { name: name.to_owned(), ..exchange })
    }
}

impl ChangedFile {
    /// Checks that the path stays in the directory and out of its repository.
    fn check(&self) -> io::Result<()> {
        let mut parts = Path::new(&self.path).components().peekable();
        let is_plain = parts.peek().is_some()
            && parts
                .all(|part| matches!(part, Component::Normal(name) if !name.eq_ignore_ascii_case(".git")));
        if !is_plain {
            return Err(invalid("a file is outside of the working copy"));
        }
        match &self.change {
            FileChange::Written { content, .. } => content.bytes().map(drop),
            FileChange::Removed | FileChange::Link { .. } => Ok(()),
        }
    }
}

/// Describes the difference between a request and the nearest one that was recorded: the one with
/// the longest common start.
pub(super) fn difference<'a>(known: impl Iterator<Item = &'a Exchange>, request: &Value) -> String {
    let request = request.to_string();
    let common = |other: &str| other.bytes().zip(request.bytes()).take_while(|(a, b)| a == b).count();
    let known = known.map(|exchange| (exchange, exchange.request.to_string()));
    let nearest = known.map(|(exchange, text)| (common(&text), exchange, text)).max_by_key(|it| it.0);
    let Some((at, exchange, text)) = nearest else {
        return "there is no recorded request to it".to_owned();
    };
    let (recorded, now) = (quoted(&text, at), quoted(&request, at));
    format!("the nearest, in {}, has `{recorded}` instead of `{now}`", exchange.name)
}

/// Returns the text around a position.
fn quoted(text: &str, at: usize) -> String {
    let before = text.get(..at).unwrap_or_else(|| {
        let start = (0..=at.min(text.len())).rev().find(|&end| text.is_char_boundary(end));
        &text[..start.unwrap_or(0)]
    });
    let start: String = before.chars().rev().take(QUOTED.0).collect::<Vec<_>>().into_iter().rev().collect();
    let end: String = text[before.len()..].chars().take(QUOTED.1).collect();
    format!("…{start}{end}…")
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(digits: &str) -> Option<Vec<u8>> {
    let pairs = digits.as_bytes().chunks(2);
    pairs.map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()).collect()
}

fn invalid(problem: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, problem)
}

/// Durations as milliseconds with three decimals.
mod milliseconds {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_f64((duration.as_secs_f64() * 1e6).round() / 1e3)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
        let milliseconds = f64::deserialize(deserializer)?;
        Duration::try_from_secs_f64(milliseconds / 1e3).map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exchange(chunks: &[&[u8]], mask: &dyn Fn(&str) -> String) -> Exchange {
        let delay = Duration::from_micros(1500);
        let mut exchange = Exchange {
            path: "/v1".to_owned(),
            request: serde_json::json!({ "model": "m", "prompt": "Write one." }),
            status: 200,
            chunks: chunks.iter().map(|chunk| Chunk { delay, bytes: chunk.len() }).collect(),
            ..Exchange::default()
        };
        exchange.set_body(chunks.concat(), mask);
        exchange
    }

    fn stored(exchange: &Exchange) -> Vec<Vec<u8>> {
        let decoded = Exchange::decode("a", &exchange.encode(1 << 20).unwrap(), 1 << 20).unwrap();
        let chunks = decoded.chunks().unwrap();
        assert!(chunks.iter().all(|(delay, _)| *delay == Duration::from_micros(1500)));
        chunks.into_iter().map(|(_, chunk)| chunk).collect()
    }

    #[test]
    fn chunks_are_the_same_after_they_were_stored() {
        let cases: [&[&[u8]]; 4] =
            [&[], &[b"abc"], &["ä".as_bytes(), &[0xff, 0x00], b"x"], &[b"\xc3", b"\xa4b"]];
        for chunks in cases {
            assert_eq!(stored(&exchange(chunks, &str::to_owned)), chunks);
        }
    }

    #[test]
    fn secrets_in_several_chunks_are_masked() {
        let mask = |text: &str| text.replace("secret", "[masked]");
        let chunks: &[&[u8]] = &[b"a sec", b"ret and", b" more"];
        assert_eq!(stored(&exchange(chunks, &mask)).concat(), b"a [masked] and more");
        let invalid: &[&[u8]] = &[b"\xff sec", b"ret"];
        let masked = stored(&exchange(invalid, &mask)).concat();
        assert_eq!(String::from_utf8(masked).unwrap(), "\u{fffd} [masked]");
    }

    #[test]
    fn files_of_others_are_refused() {
        let content = exchange(&[b"abc"], &str::to_owned);
        assert!(content.encode(10).is_err());
        let content = content.encode(1 << 20).unwrap();
        assert!(Exchange::decode("a", &content, 10).is_err());
        assert!(Exchange::decode("a", &content[..content.len() / 2], 1 << 20).is_err());
        let newer = zstd::encode_all(&br#"{"greenwave_exchange":2}"#[..], 1).unwrap();
        assert!(Exchange::decode("a", &newer, 1 << 20).is_err());
    }

    #[test]
    fn the_nearest_request_is_described() {
        let known = exchange(&[], &str::to_owned);
        let known = Exchange { name: "1".to_owned(), ..known };
        let other = serde_json::json!({ "model": "m", "prompt": "Write öne." });
        assert_eq!(
            difference([&known].into_iter(), &other),
            "the nearest, in 1, has `…\"m\",\"prompt\":\"Write one.\"}…` instead of \
             `…\"m\",\"prompt\":\"Write öne.\"}…`"
        );
        assert!(difference([].into_iter(), &other).starts_with("there is no recorded request"));
    }
}
