//! Parses scripts of recorded responses, which consist of one JSON object per line.
//!
//! ```text
//! {"greenwave_script": 1}                                 first line: format version 1
//! {"feature": "lexer", "attempt": 1, "expects": ["red"]}  a response and required prompt texts
//! {"after_ms": 640, "text": "Here is "}                   a chunk and its delay
//! {"end": true}                                           the response is complete
//! ```
//!
//! `expects` is optional. A response without an `end` line is replayed as one that breaks off. A
//! response with `"candidate": 2` answers the second of several requests of an attempt; the others
//! get the response without that key.

use std::collections::BTreeMap;
use std::io::{self, ErrorKind, Read};
use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use greenwave_dir::open_regular;
use serde::Deserialize;

use crate::Error;

/// The supported version of the format.
const VERSION: u32 = 1;
/// Maximum size of a script, in bytes.
const SCRIPT_BYTES_MAX: u64 = 64 << 20;

/// The feature, the attempt and the candidate that a response answers.
type ResponseKey = (String, u32, u32);

/// Recorded responses by feature and attempt.
#[derive(Debug, Clone)]
pub struct Script {
    name: String,
    responses: BTreeMap<ResponseKey, Recording>,
    fingerprint: [u8; 32],
}

/// A recorded response.
#[derive(Debug, Clone, Default)]
pub(crate) struct Recording {
    pub(crate) expects: Vec<String>,
    pub(crate) chunks: Vec<(Duration, Bytes)>,
    pub(crate) complete: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ScriptHeader {
    greenwave_script: u32,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ScriptLine {
    feature: Option<String>,
    attempt: Option<u32>,
    candidate: Option<u32>,
    #[serde(default)]
    expects: Vec<String>,
    after_ms: Option<u64>,
    text: Option<String>,
    end: Option<bool>,
}

/// The reason that a line of a script is invalid.
#[derive(Debug, thiserror::Error)]
enum LineError {
    #[error("invalid line at column {column}: {reason}")]
    Json { column: usize, reason: String },
    #[error("invalid header: expected {{\"greenwave_script\": {VERSION}}}")]
    Header,
    #[error("unsupported format version {found}: expected {VERSION}")]
    Version { found: u32 },
    #[error("invalid line: expected the start of an answer, {{\"feature\": \"…\", \"attempt\": 1}}")]
    NoResponse,
    #[error("duplicate answer for feature `{feature}`, attempt {attempt}")]
    Duplicate { feature: String, attempt: u32 },
    #[error(
        "invalid line: expected the start of an answer (`feature`, `attempt`), a chunk (`after_ms`, `text`) \
         or an end (`end`)"
    )]
    UnknownForm,
}

impl LineError {
    /// Creates an error without the number of the line, which is 1 for every line that is parsed
    /// alone.
    fn json(error: &serde_json::Error) -> Self {
        let text = error.to_string();
        let reason = text.rsplit_once(" at line ").map_or(text.as_str(), |(reason, _)| reason).to_owned();
        Self::Json { column: error.column(), reason }
    }
}

impl Script {
    /// Reads a script of up to 64 MiB from a file.
    ///
    /// # Errors
    /// [`Error::ReadScript`], or [`Error::InvalidScript`] with the line.
    pub fn read(path: &Path) -> Result<Self, Error> {
        let failed = |source| Error::ReadScript { path: path.to_owned(), source };
        let file = open_regular(path).map_err(failed)?;
        let mut text = String::new();
        file.take(SCRIPT_BYTES_MAX + 1).read_to_string(&mut text).map_err(failed)?;
        if text.len() as u64 > SCRIPT_BYTES_MAX {
            let problem = format!("the script is larger than {SCRIPT_BYTES_MAX} bytes");
            return Err(failed(io::Error::new(ErrorKind::FileTooLarge, problem)));
        }
        Self::parse(&path.display().to_string(), &text)
    }

    /// Parses a script; `name` is its name in errors.
    ///
    /// # Errors
    /// [`Error::InvalidScript`] with the line.
    pub fn parse(name: &str, text: &str) -> Result<Self, Error> {
        let invalid = |line: usize, source: LineError| Error::InvalidScript {
            name: name.to_owned(),
            line,
            source: source.into(),
        };
        let mut lines = (1..).zip(text.lines()).filter(|(_, line)| !line.trim().is_empty());
        let (at, first) = lines.next().unwrap_or((1, ""));
        match serde_json::from_str::<ScriptHeader>(first) {
            Ok(header) if header.greenwave_script == VERSION => {}
            Ok(ScriptHeader { greenwave_script: found }) => {
                return Err(invalid(at, LineError::Version { found }));
            }
            Err(_) => return Err(invalid(at, LineError::Header)),
        }
        let fingerprint = *blake3::hash(text.as_bytes()).as_bytes();
        let mut script = Self { name: name.to_owned(), responses: BTreeMap::new(), fingerprint };
        let mut current = None;
        for (at, line) in lines {
            let line = serde_json::from_str(line).map_err(|error| invalid(at, LineError::json(&error)))?;
            script.add(line, &mut current).map_err(|error| invalid(at, error))?;
        }
        Ok(script)
    }

    /// Returns the name of the script in messages.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Returns a hash of the script's text.
    pub fn fingerprint(&self) -> [u8; 32] {
        self.fingerprint
    }

    pub(crate) fn response(&self, feature: &str, attempt: u32, candidate: u32) -> Result<&Recording, Error> {
        let get = |candidate| self.responses.get(&(feature.to_owned(), attempt, candidate));
        get(candidate).or_else(|| get(1)).ok_or_else(|| Error::NoRecording {
            name: self.name.clone(),
            feature: feature.to_owned(),
            attempt,
            nearest: self.nearest(feature),
        })
    }

    fn add(&mut self, line: ScriptLine, current: &mut Option<ResponseKey>) -> Result<(), LineError> {
        match line {
            ScriptLine {
                feature: Some(feature),
                attempt: Some(attempt),
                candidate,
                expects,
                after_ms: None,
                text: None,
                end: None,
            } => {
                let key = (feature, attempt, candidate.unwrap_or(1));
                if self.responses.contains_key(&key) {
                    let (feature, attempt, _) = key;
                    return Err(LineError::Duplicate { feature, attempt });
                }
                *current = Some(key.clone());
                self.responses.insert(key, Recording { expects, ..Recording::default() });
                Ok(())
            }
            ScriptLine {
                feature: None,
                attempt: None,
                candidate: None,
                after_ms: Some(after),
                text: Some(text),
                end: None,
                ..
            } => {
                let recording = current
                    .as_ref()
                    .and_then(|key| self.responses.get_mut(key))
                    .ok_or(LineError::NoResponse)?;
                recording.chunks.push((Duration::from_millis(after), Bytes::from(text)));
                Ok(())
            }
            ScriptLine {
                feature: None,
                attempt: None,
                candidate: None,
                after_ms: None,
                text: None,
                end: Some(true),
                ..
            } => {
                let key = current.take().ok_or(LineError::NoResponse)?;
                self.responses.entry(key).or_default().complete = true;
                Ok(())
            }
            _ => Err(LineError::UnknownForm),
        }
    }

    fn nearest(&self, feature: &str) -> String {
        let attempts: Vec<_> = self.responses.keys().filter(|(other, ..)| other == feature).collect();
        if let Some((_, last, _)) = attempts.last() {
            return format!("its last recorded attempt is {last}");
        }
        let nearness = |other: &str| (strsim::normalized_levenshtein(feature, other) * 1000.0) as u32;
        let names = self.responses.keys().map(|(other, ..)| other.as_str());
        match names.max_by_key(|other| nearness(other)) {
            Some(other) => format!("the nearest recorded feature is `{other}`"),
            None => "it has no answers".to_owned(),
        }
    }
}
