//! Compares the serialised events with `docs/formats/run-events.schema.json`.

use std::collections::BTreeSet;

use greenwave_testkit::schema::Schema;
use serde_json::{Value, json};

use super::{AttemptDetails, Event, FileChange};
use crate::report::{FeatureReport, Report, Totals, Usage};

const SCHEMA: &str = include_str!("../../../../docs/formats/run-events.schema.json");

/// Returns the event that follows `event` in the order of declaration, so that a new event cannot
/// be forgotten here.
fn next(event: &Event) -> Option<Event> {
    let (feature, test, reason) = ("a".to_owned(), "t".to_owned(), "why".to_owned());
    let (attempt, details) = (1, AttemptDetails { words: "words".to_owned(), ..AttemptDetails::default() });
    Some(match event {
        Event::Started { .. } => confinement(reason),
        Event::Confinement { .. } => Event::Copies { method: "overlay" },
        Event::Copies { .. } => Event::Tracing { status: "off" },
        Event::Tracing { .. } => Event::Base { commit: None, uncommitted: 2, note: Some(reason) },
        Event::Base { .. } => Event::UpToDate { feature },
        Event::UpToDate { .. } => Event::Phase { feature, phase: "yellow", attempt },
        Event::Phase { .. } => Event::File {
            feature,
            attempt,
            path: "a.txt".to_owned(),
            bytes: 3,
            change: FileChange::Renamed,
            from: Some("b.txt".to_owned()),
            executable: false,
        },
        Event::File { .. } => Event::NotTaken { feature, attempt, path: None, reason },
        Event::NotTaken { .. } => Event::Tests {
            feature,
            test,
            phase: "baseline",
            status: "passed".to_owned(),
            passed: Some(3),
            failed: None,
            cached: false,
            seconds: 0.5,
        },
        Event::Tests { .. } => Event::Continued { feature, attempt, answered: true, new_round: false },
        Event::Continued { .. } => Event::Waiting { feature, attempt, reason, seconds: Some(7.0) },
        Event::Waiting { .. } => {
            let (agent, instead_of) = ("other".to_owned(), "one".to_owned());
            Event::Fallback { feature, attempt, agent, instead_of, reason }
        }
        Event::Fallback { .. } => {
            let (agent, reason) = ("one".to_owned(), Some(reason));
            Event::Candidate { feature, attempt, candidate: 1, of: 2, agent, status: "unusable", reason }
        }
        Event::Candidate { .. } => {
            Event::Chosen { feature, attempt, candidate: 2, of: 2, agent: "other".to_owned(), reason }
        }
        Event::Chosen { .. } => {
            Event::Reviewed { feature, attempt, agent: "critic".to_owned(), approved: false, reason }
        }
        Event::Reviewed { .. } => {
            let (tests, files) = (vec!["py:test_a.py".to_owned()], vec!["test_a.py".to_owned()]);
            Event::TestsWritten { feature, attempt, agent: "tester".to_owned(), tests, files }
        }
        Event::TestsWritten { .. } => {
            Event::NeedsYou { feature, attempt, kind: "login", reason, action: "log in".to_owned() }
        }
        Event::NeedsYou { .. } => Event::Adopted { feature },
        Event::Adopted { .. } => Event::Refused { feature, attempt, reason, details },
        Event::Refused { .. } => Event::Merged { feature, files: 1, retested: 2, cached: 1 },
        Event::Merged { .. } => Event::Failed { feature, reason, details },
        Event::Failed { .. } => Event::Note { code: "built", feature: None, message: reason, hint: None },
        Event::Note { .. } => Event::Skipped { feature, because: "b".to_owned() },
        Event::Skipped { .. } => return None,
    })
}

fn confinement(reason: String) -> Event {
    Event::Confinement {
        strength: "landlock",
        landlock: Some(7),
        reason: None,
        shared_processes: Some(reason),
        agents: [("codex".to_owned(), "off")].into(),
    }
}

fn started() -> Event {
    Event::Started { plan: "p".to_owned(), features: 2, workers: 4, agents: 2, agent_kinds: vec![] }
}

/// Returns the serialised report of a run, with and without the keys that may be missing.
fn reports() -> [Value; 2] {
    let usage = Usage { input_tokens: 3, cost: Some(1), ..Usage::default() };
    let hint = Some("do it".to_owned());
    let agent = Some("other".to_owned());
    let full = FeatureReport { phase: "failed", usage, agent, hint, ..FeatureReport::default() };
    let least = FeatureReport { phase: "waiting", ..FeatureReport::default() };
    [(full, usage), (least, Usage::default())].map(|(feature, usage)| {
        let totals = Totals { usage, ..Totals::default() };
        let report = Report { plan: "p".to_owned(), features: vec![feature], totals, branch: None };
        let mut value = serde_json::to_value(report).unwrap();
        value["event"] = json!("finished");
        value
    })
}

#[test]
fn the_schema_describes_each_event_with_all_its_keys() {
    let schema = Schema::parse(SCHEMA);
    let events = std::iter::successors(Some(started()), next);
    let events = events.map(|event| serde_json::to_value(event).unwrap()).chain(reports());
    let mut names = BTreeSet::new();
    for event in events {
        schema.check(&event).unwrap_or_else(|problem| panic!("{problem}: {event}"));
        let mut other = event.clone();
        other["unknown"] = json!(1);
        assert!(schema.check(&other).is_err(), "{other}");
        names.insert(event["event"].as_str().unwrap().to_owned());
    }
    // The command line adds these.
    names.extend(["settings", "planned", "pull_request", "stopped"].map(str::to_owned));
    let document: Value = serde_json::from_str(SCHEMA).unwrap();
    let described = document["oneOf"].as_array().unwrap().iter();
    let described = described.map(|it| it["$ref"].as_str().unwrap().rsplit('/').next().unwrap().to_owned());
    assert_eq!(names, described.collect());
}
