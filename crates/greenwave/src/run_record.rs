//! Records of runs: the events of each, so that a dashboard can show the run again.
//!
//! The newest records are in `.greenwave/runs`, one file each, with an event per line. Nothing
//! depends on them, so they are not sealed: a line that is not valid is left out.

use std::fs::File;
use std::io::{self, Write};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use greenwave_dir::{Access, Dir};
use greenwave_telemetry::{Dashboard, EventFeed};
use greenwave_testing::STATE_DIRECTORY;
use serde_json::{Value, json};

use crate::attempt_details::attempt_details;
use crate::attempt_log::AttemptLog;
use crate::error::Error;
use crate::excerpt;

/// Name of the directory in the state directory.
pub(crate) const RUNS: &str = "runs";
/// End of the names of records. Before it stands the start in milliseconds since the Unix epoch.
const EXTENSION: &str = ".jsonl";
/// Maximum number of records.
const RECORDS_MAX: usize = 20;
/// Maximum size of a record, in bytes. Later events are left out.
const RECORD_BYTES_MAX: u64 = 8 << 20;

/// The record of a run that is active.
#[derive(Debug)]
pub(crate) struct RunRecord {
    /// `None` after an error, and once the record is full.
    file: Option<File>,
    bytes: u64,
}

impl RunRecord {
    /// Creates a record, and removes the oldest ones.
    pub(crate) fn create(directory: &Dir) -> io::Result<Self> {
        for name in records(directory)?.into_iter().rev().skip(RECORDS_MAX - 1) {
            directory.remove_file(name)?;
        }
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let name = format!("{:013}{EXTENSION}", since.as_millis());
        Ok(Self { file: Some(directory.open_file(name, Access::CreateNew, 0o600)?), bytes: 0 })
    }

    /// Adds an event.
    pub(crate) fn write(&mut self, event: &str) {
        let line = format!("{event}\n");
        self.bytes += line.len() as u64;
        let Some(mut file) = self.file.take().filter(|_| self.bytes <= RECORD_BYTES_MAX) else { return };
        match file.write_all(line.as_bytes()) {
            Ok(()) => self.file = Some(file),
            Err(error) => tracing::warn!(%error, "cannot record the run"),
        }
    }
}

/// The recorded runs of a project.
#[derive(Debug)]
pub struct RunRecords {
    directory: Dir,
    /// Names of the files, the oldest first.
    names: Vec<String>,
}

/// A recorded run.
#[derive(Debug)]
pub struct RecordedRun {
    /// Start of the run.
    pub started: SystemTime,
    /// Name of the plan.
    pub plan: String,
    /// Whether the run ended by itself. Otherwise it was stopped or killed.
    pub has_finished: bool,
    /// Ids of the features.
    features: Vec<String>,
    /// The events, as they were published.
    events: Vec<String>,
}

impl RunRecords {
    /// Opens the records of a project. Returns `None` without a directory for them.
    ///
    /// # Errors
    /// [`Error::Io`], also if the project has a link in the place of the directory.
    pub fn open(project: &Path) -> Result<Option<Self>, Error> {
        let below = Path::new(STATE_DIRECTORY).join(RUNS);
        let opened = Dir::open(project).and_then(|project| project.subdirectory(&below));
        let directory = match opened {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            opened => opened.map_err(Error::io("open", project.join(below)))?,
        };
        let names = records(&directory).map_err(Error::io("list", directory.path()))?;
        Ok(Some(Self { directory, names }))
    }

    /// Returns the number of records.
    pub fn count(&self) -> usize {
        self.names.len()
    }

    /// Reads a record. Number 1 is the newest. Returns `None` if it does not exist.
    ///
    /// # Errors
    /// [`Error::Io`] if the file cannot be read.
    pub fn read(&self, number: usize) -> Result<Option<RecordedRun>, Error> {
        let index = self.names.len().checked_sub(number).filter(|_| number > 0);
        let Some(name) = index.and_then(|index| self.names.get(index)) else { return Ok(None) };
        let content = self.directory.read(name, RECORD_BYTES_MAX);
        let content = content.map_err(Error::io("read", self.directory.path().join(name)))?;
        Ok(Some(RecordedRun::parse(started(name), &String::from_utf8_lossy(&content))))
    }
}

impl RecordedRun {
    pub(crate) fn parse(started: SystemTime, text: &str) -> Self {
        let (plan, features, events) = (String::new(), Vec::new(), Vec::new());
        let mut run = Self { started, plan, has_finished: false, features, events };
        let (mut at, mut has_ended) = (0.0, false);
        for line in text.lines() {
            let Ok(entry) = serde_json::from_str::<Value>(line) else { continue };
            let (Some(time), event) = (entry["at"].as_f64(), &entry["event"]) else { continue };
            match event["event"].as_str() {
                Some("plan") => {
                    event["name"].as_str().unwrap_or_default().clone_into(&mut run.plan);
                    let features = event["features"].as_array().into_iter().flatten();
                    run.features = features.filter_map(|it| it["id"].as_str().map(str::to_owned)).collect();
                }
                Some("finished") => (run.has_finished, has_ended) = (true, true),
                Some("stopped") => has_ended = true,
                Some(_) => {}
                None => continue,
            }
            at = time;
            run.events.push(line.to_owned());
        }
        if !has_ended {
            run.events.push(json!({"at": at, "event": {"event": "stopped"}}).to_string());
        }
        run
    }

    /// Returns the events of the run, without their times. The last one has the last figures of
    /// `/metrics`, unless the run was killed.
    pub fn events(&self) -> impl Iterator<Item = Value> {
        let event = |line: &String| serde_json::from_str::<Value>(line).ok().map(|mut it| it["event"].take());
        self.events.iter().filter_map(event)
    }

    /// Returns the events with their times, in seconds since the start of the run.
    pub(crate) fn timed_events(&self) -> impl Iterator<Item = (f64, Value)> {
        self.events.iter().filter_map(|line| {
            let mut entry: Value = serde_json::from_str(line).ok()?;
            Some((entry["at"].as_f64()?, entry["event"].take()))
        })
    }

    /// Returns a dashboard that shows the run. The attempts of its features come from the log.
    #[must_use]
    pub fn dashboard(&self, log: Option<AttemptLog>) -> Dashboard {
        self.show(log, None)
    }

    /// Returns a dashboard that shows an event before those of the run.
    pub(crate) fn show(&self, log: Option<AttemptLog>, first: Option<Value>) -> Dashboard {
        let feed = EventFeed::new();
        if let Some(first) = first {
            let event = json!({"at": 0, "event": first}).to_string();
            feed.publish(&excerpt::visible_json(&event));
        }
        self.events.iter().for_each(|event| feed.publish(event));
        feed.close();
        let (log, features) = (Arc::new(log), Arc::new(self.features.clone()));
        Dashboard::new(feed).with_details(move |feature| {
            let (log, is_known) = (Arc::clone(&log), features.contains(&feature));
            async move {
                match &*log {
                    Some(log) if is_known => attempt_details(log, &feature).await,
                    None if is_known => Some("[]".to_owned()),
                    _ => None,
                }
            }
        })
    }
}

/// Returns the names of the records in a directory, the oldest first.
fn records(directory: &Dir) -> io::Result<Vec<String>> {
    let names = directory.entries()?.into_iter().filter_map(|entry| entry.name.into_string().ok());
    let is_record = |name: &String| {
        let start = name.strip_suffix(EXTENSION);
        start.is_some_and(|start| start.len() == 13 && start.bytes().all(|digit| digit.is_ascii_digit()))
    };
    let mut names: Vec<String> = names.filter(is_record).collect();
    names.sort_unstable();
    Ok(names)
}

/// Returns the start of a run from the name of its record.
fn started(name: &str) -> SystemTime {
    let milliseconds = name.strip_suffix(EXTENSION).and_then(|start| start.parse().ok()).unwrap_or(0);
    UNIX_EPOCH + Duration::from_millis(milliseconds)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_newest_records_stay() {
        let directory = tempfile::tempdir().unwrap();
        let dir = Dir::open(directory.path()).unwrap();
        for number in 0..30 {
            let name = format!("{number:013}{EXTENSION}");
            dir.open_file(name, Access::CreateNew, 0o600).unwrap();
        }
        dir.open_file("other.txt", Access::CreateNew, 0o600).unwrap();
        RunRecord::create(&dir).unwrap();
        let names = records(&dir).unwrap();
        assert_eq!((names.len(), names[0].as_str()), (RECORDS_MAX, "0000000000011.jsonl"));
        assert!(dir.metadata("other.txt").is_ok());
    }

    #[test]
    fn a_record_is_bounded() {
        let directory = tempfile::tempdir().unwrap();
        let dir = Dir::open(directory.path()).unwrap();
        let mut record = RunRecord::create(&dir).unwrap();
        let event = "x".repeat(1 << 20);
        (0..20).for_each(|_| record.write(&event));
        let name = &records(&dir).unwrap()[0];
        let bytes = dir.metadata(name).unwrap().len();
        assert!((7 << 20..=RECORD_BYTES_MAX).contains(&bytes), "{bytes}");
    }

    #[test]
    fn invalid_lines_are_left_out() {
        let text = "rubbish\n{}\n[1]\n{\"at\":1,\"event\":3}\n\
                    {\"at\":1,\"event\":{\"event\":\"plan\",\"name\":\"p\",\"features\":[{\"id\":\"a\"},4]}}\n\
                    {\"at\":2.5,\"event\":{\"event\":\"phase\"}}\n{\"at\":3,\"ev";
        let run = RecordedRun::parse(UNIX_EPOCH, text);
        assert_eq!(
            (run.plan.as_str(), run.has_finished, run.features.as_slice()),
            ("p", false, &["a".to_owned()][..])
        );
        assert_eq!(run.events.len(), 3);
        let names: Vec<Value> = run.events().map(|mut event| event["event"].take()).collect();
        assert_eq!(names, ["plan", "phase", "stopped"]);
        assert_eq!(run.events[2], "{\"at\":2.5,\"event\":{\"event\":\"stopped\"}}");
        let ended = RecordedRun::parse(UNIX_EPOCH, "{\"at\":1,\"event\":{\"event\":\"finished\"}}");
        assert!(ended.has_finished && ended.events.len() == 1);
        let stopped = RecordedRun::parse(UNIX_EPOCH, "{\"at\":1,\"event\":{\"event\":\"stopped\"}}");
        assert!(!stopped.has_finished && stopped.events.len() == 1);
    }
}
