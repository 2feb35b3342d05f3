//! Publishes the events of a run, and the output of its agents line by line, for a dashboard.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use greenwave_agents::{AgentEvent, Error as AgentError};
use greenwave_telemetry::{EventFeed, MetricsSnapshot};
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::event::{AttemptDetails, Event};
use crate::excerpt;
use crate::mask::Mask;
use crate::run_record::RunRecord;

/// Maximum length of a shown line, in characters.
const LINE_CHARS_MAX: usize = 400;
/// Maximum size of a line, in bytes. The rest of a longer line is ignored. The limit lies far above
/// that of shown characters, so that no secret is shown in part.
const LINE_BYTES_MAX: usize = 8 * 1024;
/// Maximum number of lines of each feature that stay in memory.
const NEWEST_MAX: usize = 50;

/// The feed of a run, with its clock.
#[derive(Debug)]
pub(crate) struct LiveFeed {
    feed: EventFeed,
    started: Instant,
    mask: Mask,
    /// The first event.
    plan: String,
    record: Mutex<Option<RunRecord>>,
    /// The newest lines of each active feature.
    newest: Mutex<BTreeMap<String, VecDeque<String>>>,
}

impl LiveFeed {
    /// Starts the clock, and publishes the features of the run: id, title and dependencies.
    pub(crate) fn start(plan: &str, features: &[Value], mask: Mask) -> Self {
        let plan = json!({"at": 0, "event": {"event": "plan", "name": plan, "features": features}});
        let (feed, started, plan) =
            (EventFeed::new(), Instant::now(), excerpt::visible_json(&plan.to_string()));
        feed.publish(&plan);
        Self { feed, started, mask, plan, record: Mutex::new(None), newest: Mutex::default() }
    }

    /// Writes the events of the run to a record as well.
    pub(crate) fn record_to(&self, mut record: RunRecord) {
        record.write(&self.plan);
        *self.record.lock() = Some(record);
    }

    /// Returns the feed for a dashboard.
    pub(crate) fn feed(&self) -> EventFeed {
        self.feed.clone()
    }

    /// Returns the time since the start, in seconds.
    pub(crate) fn seconds(&self) -> f64 {
        (self.started.elapsed().as_secs_f64() * 1000.0).round() / 1000.0
    }

    /// Publishes an event without the output of tests and agents, which the dashboard reads from
    /// the stored attempts.
    pub(crate) fn publish(&self, event: &Event) {
        if let Event::Phase { feature, phase: "green", .. } | Event::Failed { feature, .. } = event {
            self.newest.lock().remove(feature);
        }
        let mut event = event.clone();
        if let Event::Refused { details, .. } | Event::Failed { details, .. } = &mut event {
            *details = AttemptDetails::default();
        }
        if let Ok(event) = serde_json::to_value(event) {
            self.push(&event);
        }
    }

    /// Returns the newest lines of a feature's agent, at most `count`, oldest first.
    pub(crate) fn newest_lines(&self, feature: &str, count: usize) -> Vec<String> {
        let newest = self.newest.lock();
        let Some(lines) = newest.get(feature) else { return Vec::new() };
        lines.iter().skip(lines.len().saturating_sub(count)).cloned().collect()
    }

    fn add_line(&self, feature: &str, line: &str) {
        let mut newest = self.newest.lock();
        let lines = newest.entry(feature.to_owned()).or_default();
        if lines.len() == NEWEST_MAX {
            lines.pop_front();
        }
        lines.push_back(line.to_owned());
    }

    /// Publishes the end of the run, with its last figures.
    pub(crate) fn finish(&self, figures: &MetricsSnapshot, is_stopped: bool) {
        let event = if is_stopped { "stopped" } else { "finished" };
        self.push(&json!({"event": event, "figures": figures}));
    }

    fn push(&self, event: &Value) {
        let event = json!({"at": self.seconds(), "event": event}).to_string();
        let event = excerpt::visible_json(&event);
        self.feed.publish(&event);
        if let Some(record) = &mut *self.record.lock() {
            record.write(&event);
        }
    }
}

/// Publishes the output of an agent during an attempt.
#[derive(Debug)]
pub(crate) struct AgentLines {
    live: Arc<LiveFeed>,
    feature: String,
    attempt: u32,
    /// Number of the answer, if the attempt asks for several.
    candidate: Option<u32>,
    words: Line,
    stderr: Line,
}

/// A line that has not ended.
#[derive(Debug, Default)]
struct Line {
    bytes: Vec<u8>,
    /// Whether the line is part of a private key.
    is_key: bool,
}

impl AgentLines {
    /// `candidate` is the number of the answer, if the attempt asks for several.
    pub(crate) fn new(live: Arc<LiveFeed>, feature: &str, attempt: u32, candidate: Option<u32>) -> Self {
        let (words, stderr) = (Line::default(), Line::default());
        Self { live, feature: feature.to_owned(), attempt, candidate, words, stderr }
    }

    /// Publishes the lines that an event of the agent completes.
    pub(crate) fn observe(&mut self, event: &Result<AgentEvent, AgentError>) {
        match event {
            Ok(AgentEvent::Text(text) | AgentEvent::Message(text)) => {
                self.words.push(text).into_iter().for_each(|line| self.publish(&line));
            }
            Ok(AgentEvent::Stderr(text)) => {
                self.stderr.push(text).into_iter().for_each(|line| self.publish(&line));
            }
            Ok(AgentEvent::ToolCall { name, target }) => self.publish(&format!("{name} {target}")),
            Ok(AgentEvent::End | AgentEvent::Exit(_)) | Err(_) => {
                for line in [self.words.push(b"\n"), self.stderr.push(b"\n")].concat() {
                    self.publish(&line);
                }
            }
            _ => {}
        }
    }

    fn publish(&self, line: &str) {
        let masked = self.live.mask.apply(line);
        let text: String = masked.trim_end().chars().take(LINE_CHARS_MAX).collect();
        if text.is_empty() {
            return;
        }
        let text = match self.candidate {
            Some(candidate) => format!("[{candidate}] {text}"),
            None => text,
        };
        self.live.add_line(&self.feature, &text);
        let (at, feature) = (self.live.seconds(), &self.feature);
        let line = json!({"at": at, "feature": feature, "attempt": self.attempt, "text": text});
        self.live.feed.publish_line(&line.to_string());
    }
}

impl Line {
    /// Adds the next bytes of the output, and returns the lines that end in them, without control
    /// characters. Private keys, which have several lines, are left out.
    fn push(&mut self, chunk: &[u8]) -> Vec<String> {
        let mut lines = Vec::new();
        let mut parts = chunk.split(|byte| *byte == b'\n').peekable();
        while let Some(part) = parts.next() {
            let room = LINE_BYTES_MAX.saturating_sub(self.bytes.len());
            self.bytes.extend_from_slice(&part[..part.len().min(room)]);
            if parts.peek().is_none() {
                break;
            }
            let line = excerpt::clean(&std::mem::take(&mut self.bytes));
            self.is_key |= line.contains("-----BEGIN ") && line.contains("PRIVATE KEY");
            let ends_key = self.is_key && line.contains("-----END ");
            if !self.is_key {
                lines.push(line);
            }
            self.is_key &= !ends_key;
        }
        lines
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(chunks: &[&str], expected: &[&str]) {
        let mut line = Line::default();
        let lines: Vec<String> = chunks.iter().flat_map(|chunk| line.push(chunk.as_bytes())).collect();
        assert_eq!(lines, expected, "{chunks:?}");
    }

    #[test]
    fn lines_are_joined_across_chunks() {
        check(&["one\ntw", "o", "\nthree"], &["one", "two"]);
        check(&["\n\n", "\x1b[31mred\x1b[0m\r\n"], &["", "", "red"]);
    }

    #[test]
    fn private_keys_are_left_out() {
        let key = "a\n-----BEGIN RSA PRIVATE KEY-----\nMIIE\nabc\n-----END RSA PRIVATE KEY-----\nb\n";
        check(&[key], &["a", "b"]);
        let (first, second) = key.split_at(50);
        check(&[first, second], &["a", "b"]);
    }

    #[test]
    fn long_lines_are_bounded() {
        let mut line = Line::default();
        for _ in 0..100 {
            assert!(line.push("x".repeat(1000).as_bytes()).is_empty());
        }
        assert_eq!(line.bytes.len(), LINE_BYTES_MAX);
        assert_eq!(line.push(b"y\n")[0].len(), LINE_BYTES_MAX);
        assert_eq!(line.push(b"z\n"), ["z"]);
    }
}
