//! A run as a picture: Chrome's trace format, which Perfetto (<https://ui.perfetto.dev>) and `chrome://tracing` show. Knows nothing of how it came
//! about.
//!
//! The format: <https://docs.google.com/document/d/1CvAClvFfyA5R-PhYUmn5OOQtYMH4h6I0nSsKchNAySU>, "complete" events (`X`) in rows that stand
//! for as many stages as run at once, and "instant" ones (`i`).

use std::collections::HashMap;
use std::fmt::Write as _;
use std::time::{Duration, Instant};

use crate::{Progress, Stage, TaskId};

/// Collects what happens in a run, with the time, and writes it as JSON.
#[derive(Debug)]
pub struct ChromeTrace {
    begun: Instant,
    running: HashMap<TaskId, Running>,
    /// Rows in which nothing runs.
    free: Vec<u32>,
    rows: u32,
    events: Vec<Shown>,
}

#[derive(Debug, Clone, Copy)]
struct Running {
    stage: Stage,
    since: Duration,
    row: u32,
}

#[derive(Debug)]
struct Shown {
    task: TaskId,
    what: What,
    at: Duration,
}

#[derive(Debug)]
enum What {
    Stage { stage: Stage, row: u32, took: Duration, outcome: &'static str },
    Instant(&'static str),
}

impl Default for ChromeTrace {
    fn default() -> Self {
        Self::new()
    }
}

impl ChromeTrace {
    /// Begins now.
    pub fn new() -> Self {
        Self { begun: Instant::now(), running: HashMap::new(), free: Vec::new(), rows: 0, events: Vec::new() }
    }

    /// Takes note of what happens now: for a run's observer.
    pub fn observe(&mut self, progress: Progress) {
        self.observe_at(self.begun.elapsed(), progress);
    }

    /// Takes note of what happened so long after the beginning.
    pub fn observe_at(&mut self, at: Duration, progress: Progress) {
        match progress {
            Progress::Started(stage) => self.start(at, stage),
            Progress::Ended(stage) => self.end(at, stage.task, "ended"),
            Progress::Retrying(stage, _) => self.end(at, stage.task, "to be tried again"),
            Progress::Done(task) => self.end(at, task, "done"),
            Progress::Failed(task) => self.end(at, task, "failed"),
            Progress::Skipped(task, _) => {
                self.events.push(Shown { task, what: What::Instant("skipped"), at });
            }
            Progress::Added(task) => self.events.push(Shown { task, what: What::Instant("added"), at }),
        }
    }

    fn start(&mut self, since: Duration, stage: Stage) {
        let row = self.free.pop().unwrap_or_else(|| {
            self.rows += 1;
            self.rows - 1
        });
        self.running.insert(stage.task, Running { stage, since, row });
    }

    fn end(&mut self, at: Duration, task: TaskId, outcome: &'static str) {
        // A task can fail between two of its stages.
        let Some(Running { stage, since, row }) = self.running.remove(&task) else { return };
        // Low rows first, so that there are as few as stages at once.
        self.free.push(row);
        self.free.sort_unstable_by_key(|row| std::cmp::Reverse(*row));
        let what = What::Stage { stage, row, took: at.saturating_sub(since), outcome };
        self.events.push(Shown { task, what, at: since });
    }

    /// The JSON, with the tasks' names as `name` has them. What still runs is left out.
    pub fn to_json(&self, name: impl Fn(TaskId) -> String) -> String {
        let mut text = String::from("{\"displayTimeUnit\":\"ms\",\"traceEvents\":[");
        for (at, Shown { task, what, at: when }) in self.events.iter().enumerate() {
            let _ = write!(text, "{}\n{{\"name\":", if at > 0 { "," } else { "" });
            quote(&mut text, &name(*task));
            let _ = write!(text, ",\"pid\":1,\"ts\":{}", micros(*when));
            let _ = match what {
                What::Stage { stage, row, took, outcome } => write!(
                    text,
                    ",\"ph\":\"X\",\"cat\":\"stage\",\"tid\":{row},\"dur\":{},\"args\":{{\"stage\":{},\"retry\":{},\"outcome\":\"{outcome}\"}}}}",
                    micros(*took),
                    stage.number,
                    stage.retry
                ),
                What::Instant(what) => {
                    write!(text, ",\"ph\":\"i\",\"cat\":\"{what}\",\"tid\":0,\"s\":\"p\"}}")
                }
            };
        }
        text + "\n]}\n"
    }
}

fn micros(time: Duration) -> String {
    format!("{}.{:03}", time.as_micros(), time.as_nanos() % 1000)
}

/// A text as JSON has it (RFC 8259, section 7).
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
