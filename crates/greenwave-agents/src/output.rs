//! Decodes the output of coding programs into events.

mod claude;
mod codex;
mod gemini;
mod opencode;

use std::collections::VecDeque;

use bytes::Bytes;
use futures_util::{StreamExt, stream};
use greenwave_streaming::{BufferedSplitter, CHUNK_BYTES_MAX, Cap, Lines, UnitBatch};
use serde_json::Value;

use crate::{AgentEvent, Error, ResponseStream};

/// Maximum length of a line in bytes. Longer ones fail the response.
const LINE_BYTES_MAX: usize = 64 << 20;
/// Maximum length of the description of a tool call, in bytes.
const TARGET_BYTES_MAX: usize = 200;

/// Format of the standard output of an agent's program.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum OutputFormat {
    /// The answer: text with files, edits and diffs.
    #[default]
    Answer,
    /// Text for people, which is not searched for files.
    Messages,
    /// JSON lines of `claude --output-format stream-json`.
    Claude,
    /// JSON lines of `codex exec --json`.
    Codex,
    /// JSON lines of `opencode run --format json`.
    Opencode,
    /// JSON lines of `gemini --output-format stream-json`.
    Gemini,
}

impl OutputFormat {
    /// Decodes the text of a response. A response in JSON lines is complete only if a line says
    /// that the work succeeded. The exit code does not matter then.
    pub(crate) fn decode(self, program: String, response: ResponseStream) -> ResponseStream {
        let reader: Box<dyn LineReader> = match self {
            Self::Answer => return response,
            Self::Messages => {
                return ResponseStream::new(response.map(|event| match event {
                    Ok(AgentEvent::Text(text)) => Ok(AgentEvent::Message(text)),
                    other => other,
                }));
            }
            Self::Claude => Box::new(claude::Claude::default()),
            Self::Codex => Box::new(codex::Codex::default()),
            Self::Opencode => Box::new(opencode::Opencode::default()),
            Self::Gemini => Box::new(gemini::Gemini),
        };
        let lines = BufferedSplitter::new(Lines::new(Cap::error(LINE_BYTES_MAX)));
        let decoder = Decoder {
            program,
            response,
            reader,
            lines: Some(lines),
            events: VecDeque::new(),
            result: None,
            bytes: 0,
        };
        ResponseStream::new(stream::unfold(Some(decoder), |decoder| async move {
            let mut decoder = decoder?;
            let event = decoder.next().await;
            let continues = !matches!(event, Ok(AgentEvent::End) | Err(_));
            Some((event, continues.then_some(decoder)))
        }))
    }
}

/// Meaning of a line of output.
#[derive(Debug, PartialEq, Eq)]
enum Report {
    Event(AgentEvent),
    /// The work succeeded.
    Succeeded,
    /// The work failed, for this reason. A later success replaces it.
    Failed(String),
}

/// Reads the lines of one program.
trait LineReader: Send {
    /// Reads an object, and appends its meaning. Objects of other kinds are ignored.
    fn read(&mut self, line: &Value, reports: &mut Vec<Report>);
}

struct Decoder {
    program: String,
    response: ResponseStream,
    reader: Box<dyn LineReader>,
    /// `None` after the end of the output.
    lines: Option<BufferedSplitter<Lines>>,
    events: VecDeque<AgentEvent>,
    /// The last result that a line reported.
    result: Option<Result<(), String>>,
    bytes: u64,
}

impl Decoder {
    async fn next(&mut self) -> Result<AgentEvent, Error> {
        loop {
            if let Some(event) = self.events.pop_front() {
                return Ok(event);
            }
            match self.response.next().await {
                Some(Ok(AgentEvent::Text(text))) => {
                    self.bytes += text.len() as u64;
                    self.feed(text)?;
                }
                Some(Ok(AgentEvent::Exit(status))) => {
                    self.feed_end()?;
                    self.events.push_back(AgentEvent::Exit(status));
                }
                Some(Ok(AgentEvent::End)) => return self.end(Error::BrokeOff { bytes: self.bytes }),
                Some(Err(error @ Error::Exited { .. })) => return self.end(error),
                Some(other) => return other,
                None => return Err(Error::BrokeOff { bytes: self.bytes }),
            }
        }
    }

    /// Ends the response with its reported result; with this error if none was reported.
    fn end(&mut self, otherwise: Error) -> Result<AgentEvent, Error> {
        self.feed_end()?;
        match self.result.take() {
            Some(Ok(())) => Ok(AgentEvent::End),
            Some(Err(message)) => Err(Error::Failed { program: self.program.clone(), message }),
            None => Err(otherwise),
        }
    }

    fn feed(&mut self, mut text: Bytes) -> Result<(), Error> {
        let Some(mut lines) = self.lines.take() else { return Ok(()) };
        while !text.is_empty() {
            let chunk = text.split_to(text.len().min(CHUNK_BYTES_MAX));
            let batch = lines.feed(chunk).map_err(|error| self.unreadable(error))?;
            self.read_all(batch.as_ref());
        }
        self.lines = Some(lines);
        Ok(())
    }

    fn feed_end(&mut self) -> Result<(), Error> {
        let Some(mut lines) = self.lines.take() else { return Ok(()) };
        let batch = lines.finish().map_err(|error| self.unreadable(error))?;
        self.read_all(batch.as_ref());
        Ok(())
    }

    fn unreadable(&self, error: greenwave_streaming::Error) -> Error {
        Error::Broken { program: self.program.clone(), source: std::io::Error::other(error) }
    }

    fn read_all(&mut self, batch: Option<&UnitBatch>) {
        let mut reports = Vec::new();
        for unit in batch.into_iter().flat_map(UnitBatch::iter) {
            let line = unit.bytes();
            match serde_json::from_slice::<Value>(&line) {
                Ok(value) if value.is_object() => self.reader.read(&value, &mut reports),
                // A warning of the program or of its runtime.
                _ if line.trim_ascii().is_empty() => {}
                _ => reports.push(Report::Event(AgentEvent::Message([&line[..], b"\n"].concat().into()))),
            }
        }
        for report in reports {
            match report {
                Report::Event(event) => self.events.push_back(event),
                Report::Succeeded => self.result = Some(Ok(())),
                Report::Failed(message) => self.result = Some(Err(message)),
            }
        }
    }
}

/// Returns the text at a path of keys.
pub(crate) fn text<'v>(value: &'v Value, path: &[&str]) -> Option<&'v str> {
    at(value, path)?.as_str()
}

/// Returns the number at a path of keys, or 0.
pub(crate) fn count(value: &Value, path: &[&str]) -> u64 {
    at(value, path).and_then(Value::as_u64).unwrap_or(0)
}

/// Returns the value at a path of keys.
fn at<'v>(value: &'v Value, path: &[&str]) -> Option<&'v Value> {
    path.iter().try_fold(value, |value, key| value.get(key))
}

/// Converts dollars to millionths of a dollar. Amounts that are negative or not finite count as 0.
fn millionths(dollars: f64) -> u64 {
    (dollars * 1e6).round().max(0.0) as u64
}

/// Returns a message that ends with a line break.
fn message(text: &str) -> Report {
    let end = if text.ends_with('\n') { "" } else { "\n" };
    Report::Event(AgentEvent::Message([text, end].concat().into()))
}

/// Returns the events of a tool call: the call, and the file that it changes.
fn tool_call(name: &str, input: &Value, changes_file: bool, reports: &mut Vec<Report>) {
    const PATHS: [&str; 4] = ["file_path", "filePath", "path", "notebook_path"];
    const OTHERS: [&str; 6] = ["command", "pattern", "query", "url", "description", "prompt"];
    let file = PATHS.iter().find_map(|key| text(input, &[key]));
    let target = file.or_else(|| OTHERS.iter().find_map(|key| text(input, &[key]))).unwrap_or_default();
    let (name, target) = (name.to_owned(), shortened(target));
    reports.push(Report::Event(AgentEvent::ToolCall { name, target }));
    if let Some(path) = file.filter(|_| changes_file) {
        reports.push(Report::Event(AgentEvent::FileTouched(path.into())));
    }
}

/// Returns the first line of a text, cut to a length that fits a line of output.
pub(crate) fn shortened(text: &str) -> String {
    let line = text.trim_start().lines().next().unwrap_or_default();
    let end = (0..=TARGET_BYTES_MAX.min(line.len())).rev().find(|end| line.is_char_boundary(*end));
    line[..end.unwrap_or(0)].to_owned()
}

#[cfg(test)]
mod tests;
