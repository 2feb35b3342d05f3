//! The file format of recorded answers: one JSON object a line. Knows nothing of how they are replayed.
//!
//! ```text
//! {"greenwave_script": 1}                                 the first line: format version 1
//! {"feature": "lexer", "attempt": 1, "expects": ["red"]}  an answer begins; texts its prompt must contain
//! {"after_ms": 640, "text": "Here is "}                   a chunk, so long after the one before
//! {"end": true}                                           the answer is whole
//! ```
//!
//! `expects` may be left out. An answer without its `end` line is replayed as one that breaks off.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use serde::Deserialize;

use crate::Error;

/// The newest version of the format that can be read.
const VERSION: u32 = 1;

/// Recorded answers, by feature and attempt.
#[derive(Debug, Clone)]
pub struct Script {
    name: String,
    answers: BTreeMap<(String, u32), Recording>,
    fingerprint: [u8; 32],
}

/// One recorded answer.
#[derive(Debug, Clone, Default)]
pub(crate) struct Recording {
    pub(crate) expects: Vec<String>,
    pub(crate) chunks: Vec<(Duration, Bytes)>,
    pub(crate) complete: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Header {
    greenwave_script: u32,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    feature: Option<String>,
    attempt: Option<u32>,
    #[serde(default)]
    expects: Vec<String>,
    after_ms: Option<u64>,
    text: Option<String>,
    end: Option<bool>,
}

impl Script {
    /// Reads a script from a file.
    ///
    /// # Errors
    /// [`Error::ReadScript`], or [`Error::InvalidScript`] with the line.
    pub fn read(path: &Path) -> Result<Self, Error> {
        let failed = |source| Error::ReadScript { path: path.to_owned(), source };
        let text = std::fs::read_to_string(path).map_err(failed)?;
        Self::parse(&path.display().to_string(), &text)
    }

    /// Reads a script from its text; `name` is what it is called in errors.
    ///
    /// # Errors
    /// [`Error::InvalidScript`] with the line.
    pub fn parse(name: &str, text: &str) -> Result<Self, Error> {
        let invalid =
            |line: usize, problem: String| Error::InvalidScript { name: name.to_owned(), line, problem };
        let mut lines = (1..).zip(text.lines()).filter(|(_, line)| !line.trim().is_empty());
        let (at, first) = lines.next().unwrap_or((1, ""));
        match serde_json::from_str::<Header>(first) {
            Ok(header) if header.greenwave_script == VERSION => {}
            Ok(Header { greenwave_script: newer }) => {
                let problem =
                    format!("is of format version {newer}, and this program reads version {VERSION}");
                return Err(invalid(at, problem));
            }
            Err(_) => return Err(invalid(at, r#"should be {"greenwave_script": 1}"#.to_owned())),
        }
        let fingerprint = *blake3::hash(text.as_bytes()).as_bytes();
        let mut script = Self { name: name.to_owned(), answers: BTreeMap::new(), fingerprint };
        let mut current = None;
        for (at, line) in lines {
            let line = serde_json::from_str(line).map_err(|error| invalid(at, error.to_string()))?;
            script.add(line, &mut current).map_err(|problem| invalid(at, problem.to_owned()))?;
        }
        Ok(script)
    }

    /// What the script is called in messages.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// A hash of the script's text.
    pub fn fingerprint(&self) -> [u8; 32] {
        self.fingerprint
    }

    pub(crate) fn answer(&self, feature: &str, attempt: u32) -> Result<&Recording, Error> {
        self.answers.get(&(feature.to_owned(), attempt)).ok_or_else(|| Error::NoRecording {
            name: self.name.clone(),
            feature: feature.to_owned(),
            attempt,
            nearest: self.nearest(feature),
        })
    }

    fn add(&mut self, line: Line, current: &mut Option<(String, u32)>) -> Result<(), &'static str> {
        let next_is_answer = "should begin an answer: {\"feature\": \"…\", \"attempt\": 1}";
        match line {
            Line {
                feature: Some(feature),
                attempt: Some(attempt),
                expects,
                after_ms: None,
                text: None,
                end: None,
            } => {
                let key = (feature, attempt);
                let recording = Recording { expects, ..Recording::default() };
                *current = Some(key.clone());
                let twice = self.answers.insert(key, recording).is_some();
                if twice { Err("answers the same feature and attempt a second time") } else { Ok(()) }
            }
            Line {
                feature: None, attempt: None, after_ms: Some(after), text: Some(text), end: None, ..
            } => {
                let recording =
                    current.as_ref().and_then(|key| self.answers.get_mut(key)).ok_or(next_is_answer)?;
                recording.chunks.push((Duration::from_millis(after), Bytes::from(text)));
                Ok(())
            }
            Line { feature: None, attempt: None, after_ms: None, text: None, end: Some(true), .. } => {
                let key = current.take().ok_or(next_is_answer)?;
                self.answers.entry(key).or_default().complete = true;
                Ok(())
            }
            _ => Err(
                "is none of an answer's beginning (feature, attempt), a chunk (after_ms, text), an end (end)",
            ),
        }
    }

    fn nearest(&self, feature: &str) -> String {
        let attempts: Vec<_> = self.answers.keys().filter(|(other, _)| other == feature).collect();
        if let Some((_, last)) = attempts.last() {
            return format!("its last recorded attempt is {last}");
        }
        let nearness = |other: &str| (strsim::normalized_levenshtein(feature, other) * 1000.0) as u32;
        let names = self.answers.keys().map(|(other, _)| other.as_str());
        match names.max_by_key(|other| nearness(other)) {
            Some(other) => format!("the nearest recorded feature is `{other}`"),
            None => "it has no answers at all".to_owned(),
        }
    }
}
