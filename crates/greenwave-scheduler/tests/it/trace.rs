//! Tests of `ChromeTrace`.

use std::time::Duration;

use greenwave_scheduler::{ChromeTrace, Progress, Stage, TaskId};

#[test]
fn concurrent_stages_use_separate_rows() {
    let [a, b, c] = [0, 1, 2].map(TaskId::from_index);
    let stage = |task, number| Stage { task, number, retry: 0 };
    let mut trace = ChromeTrace::new();
    let mut at = |ms: u64, progress| trace.observe_at(Duration::from_millis(ms), progress);
    at(0, Progress::Started(stage(a, 0)));
    at(1, Progress::Started(stage(b, 0)));
    at(4, Progress::Ended(stage(a, 0)));
    at(5, Progress::Started(stage(a, 1)));
    at(9, Progress::Failed(b));
    at(9, Progress::Skipped(c, b));
    at(12, Progress::Done(a));
    let json = trace.to_json(|task| format!("task \"{}\"\n", task.index()));
    let trace: serde_json::Value = serde_json::from_str(&json).unwrap();
    let events = trace["traceEvents"].as_array().unwrap();
    let shown = |event: &serde_json::Value| {
        let number = |key: &str| event[key].as_f64().unwrap_or(-1.0);
        (
            event["name"].as_str().unwrap().to_owned(),
            number("ts"),
            number("dur"),
            number("tid"),
            event["args"]["outcome"].as_str().unwrap_or("").to_owned(),
        )
    };
    let name = |number: usize| format!("task \"{number}\"\n");
    let expected = [
        (name(0), 0.0, 4000.0, 0.0, "ended".to_owned()),
        (name(1), 1000.0, 8000.0, 1.0, "failed".to_owned()),
        (name(2), 9000.0, -1.0, 0.0, String::new()),
        (name(0), 5000.0, 7000.0, 0.0, "done".to_owned()),
    ];
    assert_eq!(events.iter().map(shown).collect::<Vec<_>>(), expected);
}
