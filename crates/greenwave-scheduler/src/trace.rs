//! Records a run in Chrome's trace event format, which Perfetto (<https://ui.perfetto.dev>) and
//! `chrome://tracing` display.
//!
//! The format is described at
//! <https://docs.google.com/document/d/1CvAClvFfyA5R-PhYUmn5OOQtYMH4h6I0nSsKchNAySU>. Stages are
//! "complete" events (`X`), with one row for each stage that runs at the same time. Other events
//! are "instant" events (`i`).

use std::collections::HashMap;
use std::fmt::Write as _;
use std::time::{Duration, Instant};

use crate::{Progress, Stage, TaskId};

/// Records the progress of a run with timestamps, and writes it as JSON.
#[derive(Debug)]
pub struct ChromeTrace {
    begun: Instant,
    running: HashMap<TaskId, RunningStage>,
    /// Rows in which no stage runs.
    free: Vec<u32>,
    rows: u32,
    events: Vec<TraceEvent>,
}

#[derive(Debug, Clone, Copy)]
struct RunningStage {
    stage: Stage,
    since: Duration,
    row: u32,
}

#[derive(Debug)]
struct TraceEvent {
    task: TaskId,
    kind: EventKind,
    at: Duration,
}

#[derive(Debug)]
enum EventKind {
    Stage { stage: Stage, row: u32, took: Duration, outcome: &'static str },
    Instant(&'static str),
}

impl Default for ChromeTrace {
    fn default() -> Self {
        Self::new()
    }
}

impl ChromeTrace {
    /// Starts a trace at the current time.
    pub fn new() -> Self {
        Self { begun: Instant::now(), running: HashMap::new(), free: Vec::new(), rows: 0, events: Vec::new() }
    }

    /// Records an event at the current time. Use it as the observer of a run.
    pub fn observe(&mut self, progress: Progress) {
        self.observe_at(self.begun.elapsed(), progress);
    }

    /// Records an event at a time since the start of the trace.
    pub fn observe_at(&mut self, at: Duration, progress: Progress) {
        match progress {
            Progress::Started(stage) => self.start(at, stage),
            Progress::Ended(stage) => self.end(at, stage.task, "ended"),
            Progress::Retrying(stage, _) => self.end(at, stage.task, "retried"),
            Progress::Done(task) => self.end(at, task, "done"),
            Progress::Failed(task) => self.end(at, task, "failed"),
            Progress::Skipped(task, _) => {
                self.events.push(TraceEvent { task, kind: EventKind::Instant("skipped"), at });
            }
            Progress::Added(task) => {
                self.events.push(TraceEvent { task, kind: EventKind::Instant("added"), at });
            }
        }
    }

    fn start(&mut self, since: Duration, stage: Stage) {
        let row = self.free.pop().unwrap_or_else(|| {
            self.rows += 1;
            self.rows - 1
        });
        self.running.insert(stage.task, RunningStage { stage, since, row });
    }

    fn end(&mut self, at: Duration, task: TaskId, outcome: &'static str) {
        // A task can fail between two stages.
        let Some(RunningStage { stage, since, row }) = self.running.remove(&task) else { return };
        // Low rows are reused first, to use as few rows as possible.
        self.free.push(row);
        self.free.sort_unstable_by_key(|row| std::cmp::Reverse(*row));
        let kind = EventKind::Stage { stage, row, took: at.saturating_sub(since), outcome };
        self.events.push(TraceEvent { task, kind, at: since });
    }

    /// Writes the JSON. `name` returns the displayed name of a task. Stages that still run are
    /// omitted.
    pub fn to_json(&self, name: impl Fn(TaskId) -> String) -> String {
        let mut text = String::from("{\"displayTimeUnit\":\"ms\",\"traceEvents\":[");
        for (at, TraceEvent { task, kind, at: when }) in self.events.iter().enumerate() {
            let _ = write!(text, "{}\n{{\"name\":", if at > 0 { "," } else { "" });
            quote(&mut text, &name(*task));
            let _ = write!(text, ",\"pid\":1,\"ts\":{}", micros(*when));
            let _ = match kind {
                EventKind::Stage { stage, row, took, outcome } => write!(
                    text,
                    ",\"ph\":\"X\",\"cat\":\"stage\",\"tid\":{row},\"dur\":{},\"args\":{{\"stage\":{},\"retry\":{},\"outcome\":\"{outcome}\"}}}}",
                    micros(*took),
                    stage.number,
                    stage.retry
                ),
                EventKind::Instant(kind) => {
                    write!(text, ",\"ph\":\"i\",\"cat\":\"{kind}\",\"tid\":0,\"s\":\"p\"}}")
                }
            };
        }
        text + "\n]}\n"
    }
}

fn micros(time: Duration) -> String {
    format!("{}.{:03}", time.as_micros(), time.as_nanos() % 1000)
}

/// Appends a JSON string (RFC 8259, section 7).
fn quote(json: &mut String, text: &str) {
    json.push('"');
    for c in text.chars() {
        match c {
            '"' | '\\' => json.extend(['\\', c]),
            c if c < ' ' => {
                let _ = write!(json, "\\u{:04x}", c as u32);
            }
            c => json.push(c),
        }
    }
    json.push('"');
}
