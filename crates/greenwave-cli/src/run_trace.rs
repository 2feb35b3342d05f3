//! `greenwave run --trace FILE`: the run as a trace, for Perfetto and `chrome://tracing`.
//!
//! A trace has three groups of tracks: `features` with one track per feature, which shows its
//! phases, waits and refusals; `tests` with as many tracks as tests ran at the same time; and the
//! number of features in each phase.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use greenwave::Event;
use serde_json::{Value, json};

use crate::report_file;
use crate::trace_events::{TraceEvents, number_of};

/// Groups of tracks, in the order in which viewers sort them.
const FEATURES: u32 = 1;
const TESTS: u32 = 2;

/// Maximum length of a reason in characters. `greenwave attempts` shows all of it.
const REASON_CHARS_MAX: usize = 500;

/// Writes the events of a run to a file.
#[derive(Debug)]
pub(crate) struct RunTrace {
    path: PathBuf,
    tracks: Tracks<BufWriter<File>>,
    started: Instant,
    /// First error of the file, after which no event is written.
    failed: Option<io::Error>,
}

impl RunTrace {
    /// Creates the file, or empties an existing one. Links in these directories are not followed.
    pub(crate) fn create(path: &Path, directories: &[&Path]) -> io::Result<Self> {
        let file = report_file::open(directories, path, false)?;
        let tracks = Tracks::begin(BufWriter::new(file))?;
        Ok(Self { path: path.to_owned(), tracks, started: Instant::now(), failed: None })
    }

    /// Writes an event that happens now.
    pub(crate) fn event(&mut self, event: &Event) {
        if self.failed.is_none() {
            self.failed = self.tracks.event(event, self.started.elapsed()).err();
        }
    }

    /// Ends all slices and closes the file.
    ///
    /// # Errors
    ///
    /// Returns the path and the first error of the file.
    pub(crate) fn finish(mut self) -> Result<(), (PathBuf, io::Error)> {
        let result = match self.failed {
            Some(error) => Err(error),
            None => self.tracks.end(self.started.elapsed()),
        };
        result.map_err(|error| (self.path, error))
    }
}

/// A phase or wait that has not ended.
#[derive(Debug)]
struct Slice {
    name: String,
    start: Duration,
    details: Value,
}

/// The track of a feature.
#[derive(Debug)]
struct FeatureTrack {
    number: u32,
    phase: Option<(&'static str, Slice)>,
    /// A wait within the phase.
    wait: Option<Slice>,
}

/// Turns the events of a run into those of a trace.
#[derive(Debug)]
struct Tracks<W> {
    out: TraceEvents<W>,
    features: BTreeMap<String, FeatureTrack>,
    /// Number of features in each phase.
    counts: BTreeMap<&'static str, u32>,
}

impl<W: Write> Tracks<W> {
    fn begin(out: W) -> io::Result<Self> {
        let out = TraceEvents::begin(out, &[(FEATURES, "features"), (TESTS, "tests")])?;
        Ok(Self { out, features: BTreeMap::new(), counts: BTreeMap::new() })
    }

    /// Ends all slices and the array.
    fn end(&mut self, at: Duration) -> io::Result<()> {
        let names: Vec<String> = self.features.keys().cloned().collect();
        for name in names {
            self.end_phase(&name, at)?;
        }
        self.out.end()
    }

    fn event(&mut self, event: &Event, at: Duration) -> io::Result<()> {
        match event {
            Event::Phase { feature, phase, attempt } => self.phase(feature, phase, *attempt, at),
            Event::Waiting { feature, reason, .. } => self.wait(feature, reason, at),
            Event::Tests { feature, test, cached: false, seconds, .. } => {
                let start = at.saturating_sub(Duration::try_from_secs_f64(*seconds).unwrap_or_default());
                self.track(feature)?;
                self.out.parallel_slice(TESTS, test, [start, at], &details(event).1)
            }
            Event::Failed { feature, .. } => {
                self.end_phase(feature, at)?;
                self.moment(event, at)
            }
            _ => self.moment(event, at),
        }?;
        // A killed run leaves a trace up to its last event.
        self.out.flush()
    }

    /// Ends the phase of a feature, and begins the next one.
    fn phase(&mut self, feature: &str, phase: &'static str, attempt: u32, at: Duration) -> io::Result<()> {
        self.end_phase(feature, at)?;
        let name = if attempt == 0 { phase.to_owned() } else { format!("{phase} {attempt}") };
        let slice = Slice { name, start: at, details: json!({"attempt": attempt}) };
        self.track(feature)?.phase = Some((phase, slice));
        *self.counts.entry(phase).or_default() += 1;
        self.write_counts(at)
    }

    fn end_phase(&mut self, feature: &str, at: Duration) -> io::Result<()> {
        self.end_wait(feature, at)?;
        let track = self.track(feature)?;
        let (number, Some((phase, slice))) = (track.number, track.phase.take()) else { return Ok(()) };
        self.slice(number, &slice, at)?;
        if let Some(count) = self.counts.get_mut(phase) {
            *count = count.saturating_sub(1);
        }
        self.write_counts(at)
    }

    fn wait(&mut self, feature: &str, reason: &str, at: Duration) -> io::Result<()> {
        self.end_wait(feature, at)?;
        let details = json!({"reason": shortened(reason)});
        self.track(feature)?.wait = Some(Slice { name: "waiting".to_owned(), start: at, details });
        Ok(())
    }

    fn end_wait(&mut self, feature: &str, at: Duration) -> io::Result<()> {
        let track = self.track(feature)?;
        let (number, Some(slice)) = (track.number, track.wait.take()) else { return Ok(()) };
        self.slice(number, &slice, at)
    }

    /// Writes an event that has no duration, to the track of its feature.
    fn moment(&mut self, event: &Event, at: Duration) -> io::Result<()> {
        let (name, details) = details(event);
        let feature = details["feature"].as_str().unwrap_or_default();
        let track = if feature.is_empty() { None } else { Some(self.track(feature)?.number) };
        self.out.moment(FEATURES, track, &name, at, &details)
    }

    /// Returns the track of a feature. Names it when it is new.
    fn track(&mut self, feature: &str) -> io::Result<&mut FeatureTrack> {
        if !self.features.contains_key(feature) {
            let number = number_of(self.features.len()) + 1;
            self.out.name_track((FEATURES, number), feature)?;
            self.features.insert(feature.to_owned(), FeatureTrack { number, phase: None, wait: None });
        }
        Ok(self.features.get_mut(feature).expect("inserted above"))
    }

    fn slice(&mut self, number: u32, slice: &Slice, at: Duration) -> io::Result<()> {
        self.out.slice((FEATURES, number), &slice.name, [slice.start, at], &slice.details)
    }

    fn write_counts(&mut self, at: Duration) -> io::Result<()> {
        self.out.counts(FEATURES, "features", at, &json!(self.counts))
    }
}

/// Returns the name of an event, and its other values without long texts.
fn details(event: &Event) -> (String, Value) {
    let mut details = serde_json::to_value(event).unwrap_or_default();
    let Some(values) = details.as_object_mut() else { return (String::new(), details) };
    let name = values.remove("event").and_then(|name| Some(name.as_str()?.to_owned()));
    for text in ["test_output", "words", "stderr", "exit"] {
        values.remove(text);
    }
    if let Some(Value::String(reason)) = values.get_mut("reason") {
        *reason = shortened(reason);
    }
    (name.unwrap_or_default(), details)
}

fn shortened(text: &str) -> String {
    let mut short: String = text.chars().take(REASON_CHARS_MAX).collect();
    if short.len() < text.len() {
        short.push('…');
    }
    short
}

#[cfg(test)]
mod tests {
    use super::*;

    fn phase(phase: &'static str, attempt: u32) -> Event {
        Event::Phase { feature: "a".to_owned(), phase, attempt }
    }

    fn test(name: &str, seconds: f64, cached: bool) -> Event {
        Event::Tests {
            feature: "a".to_owned(),
            test: name.to_owned(),
            phase: "red",
            status: "failed".to_owned(),
            passed: None,
            failed: None,
            cached,
            seconds,
        }
    }

    /// Writes events at a distance of one second, and returns those of the trace.
    fn trace(events: &[Event]) -> Vec<Value> {
        let mut tracks = Tracks::begin(Vec::new()).unwrap();
        for (second, event) in (1..).zip(events) {
            tracks.event(event, Duration::from_secs(second)).unwrap();
        }
        tracks.end(Duration::from_secs(100)).unwrap();
        serde_json::from_slice(&tracks.out.written()).unwrap()
    }

    /// Returns group, track, name, start and duration in seconds of each slice.
    fn slices(trace: &[Value]) -> Vec<(u64, u64, &str, u64, u64)> {
        let slices = trace.iter().filter(|event| event["ph"] == "X");
        let number = |value: &Value| value.as_u64().unwrap();
        slices
            .map(|event| {
                let (group, track) = (number(&event["pid"]), number(&event["tid"]));
                let seconds = |key: &str| number(&event[key]) / 1_000_000;
                (group, track, event["name"].as_str().unwrap(), seconds("ts"), seconds("dur"))
            })
            .collect()
    }

    #[test]
    fn phases_and_waits_are_slices() {
        let waiting = Event::Waiting {
            feature: "a".to_owned(),
            attempt: 1,
            reason: "rate limit".to_owned(),
            seconds: None,
        };
        let events = [phase("red", 0), phase("yellow", 1), waiting, phase("yellow", 2), phase("green", 2)];
        let trace = trace(&events);
        let expected = [
            (1, 1, "red", 1, 1),
            (1, 1, "waiting", 3, 1),
            (1, 1, "yellow 1", 2, 2),
            (1, 1, "yellow 2", 4, 1),
            (1, 1, "green 2", 5, 95),
        ];
        assert_eq!(slices(&trace), expected);
        let last = trace.iter().rfind(|event| event["ph"] == "C").unwrap();
        assert_eq!(last["args"], json!({"green": 0, "red": 0, "yellow": 0}));
    }

    #[test]
    fn tests_at_the_same_time_have_tracks_of_their_own() {
        let events = [
            test("one", 0.5, false),
            test("two", 1.5, false),
            test("three", 1.0, false),
            test("four", 1.0, true),
        ];
        let trace = trace(&events);
        // They end at 1, 2 and 3 seconds.
        assert_eq!(slices(&trace), [(2, 0, "one", 0, 0), (2, 1, "two", 0, 1), (2, 0, "three", 2, 1)]);
        let cached = trace.iter().find(|event| event["ph"] == "i").unwrap();
        assert_eq!((&cached["name"], &cached["args"]["test"]), (&json!("tests"), &json!("four")));
    }

    #[test]
    fn reasons_are_short_and_messages_are_left_out() {
        let refused = Event::Refused {
            feature: "a".to_owned(),
            attempt: 1,
            reason: "x".repeat(10_000),
            details: greenwave::AttemptDetails { test_output: "long".to_owned(), ..Default::default() },
        };
        let trace = trace(&[refused]);
        let args = &trace.iter().find(|event| event["ph"] == "i").unwrap()["args"];
        assert_eq!(args["reason"].as_str().unwrap().chars().count(), REASON_CHARS_MAX + 1);
        assert_eq!(args.get("test_output"), None);
    }

    #[test]
    fn a_trace_that_ends_early_lacks_only_the_bracket() {
        let mut tracks = Tracks::begin(Vec::new()).unwrap();
        tracks.event(&phase("red", 0), Duration::ZERO).unwrap();
        let text = String::from_utf8(tracks.out.written()).unwrap();
        let events: Vec<Value> = serde_json::from_str(&format!("{text}]")).unwrap();
        assert_eq!(events.last().unwrap()["args"], json!({"red": 1}));
    }
}
