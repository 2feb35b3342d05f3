//! Tests scripts and their replay.

use std::time::Duration;

use futures_util::StreamExt;
use greenwave_agents::{Agent, Error, Request, Script, ScriptedAgent, agent_conformance};
use tokio::time::Instant;

const SCRIPT: &str = r#"{"greenwave_script": 1}
{"feature": "whole", "attempt": 1}
{"after_ms": 100, "text": "one "}
{"after_ms": 50, "text": "two"}
{"end": true}

{"feature": "broken", "attempt": 1}
{"after_ms": 1, "text": "cut o"}
{"feature": "fussy", "attempt": 2, "expects": ["test `x` failed"]}
{"end": true}
"#;

fn agent(pace: f64) -> ScriptedAgent {
    ScriptedAgent::new(Script::parse("test.jsonl", SCRIPT).unwrap(), pace)
}

agent_conformance!(conformance, agent(0.0));

async fn send(feature: &str, attempt: u32, prompt: &str) -> Result<Vec<u8>, Error> {
    let request = Request::new(feature, attempt, prompt, ".", std::env::temp_dir());
    let mut text = agent(2.0).connect().await?.send(&request).await?.into_text();
    let mut whole = Vec::new();
    while let Some(chunk) = text.next().await {
        whole.extend_from_slice(&chunk?);
    }
    Ok(whole)
}

#[tokio::test(start_paused = true)]
async fn recorded_delays_are_scaled() {
    let started = Instant::now();
    assert_eq!(send("whole", 1, "").await.unwrap(), b"one two");
    assert_eq!(started.elapsed(), Duration::from_millis(300));
}

#[tokio::test(start_paused = true)]
async fn missing_recordings_name_the_nearest() {
    let message =
        async |feature, attempt, prompt| send(feature, attempt, prompt).await.unwrap_err().to_string();
    assert_eq!(
        message("hole", 1, "").await,
        "cannot find an answer for feature `hole`, attempt 1, in script test.jsonl: the nearest recorded feature is `whole`"
    );
    assert_eq!(
        message("whole", 2, "").await,
        "cannot find an answer for feature `whole`, attempt 2, in script test.jsonl: its last recorded attempt is 1"
    );
    assert_eq!(
        message("fussy", 2, "again, please").await,
        "cannot replay feature `fussy`, attempt 2, of script test.jsonl: the prompt does not contain \
         \"test `x` failed\""
    );
    assert_eq!(message("broken", 1, "").await, "the answer broke off after 5 bytes");
    assert!(send("fussy", 2, "so: test `x` failed.").await.unwrap().is_empty());
}

#[test]
fn invalid_scripts_name_their_line() {
    let message = |text: &str| {
        let error = Script::parse("s", text).unwrap_err();
        format!("{error}: {}", std::error::Error::source(&error).unwrap())
    };
    let header = r#"cannot parse script s, line 1: invalid header: expected {"greenwave_script": 1}"#;
    assert_eq!(message(""), header);
    let newer = "cannot parse script s, line 1: unsupported format version 9: expected 1";
    assert_eq!(message(r#"{"greenwave_script": 9}"#), newer);
    let with = |line: &str| message(&format!("{{\"greenwave_script\": 1}}\n\n{line}"));
    assert!(with("{").starts_with("cannot parse script s, line 3: invalid line at column 1: EOF"));
    assert!(with(r#"{"text": "x"}"#).contains("line 3: invalid line: expected the start of an answer (`"));
    let stray = r#"line 3: invalid line: expected the start of an answer, {"feature""#;
    assert!(with(r#"{"after_ms": 1, "text": "x"}"#).contains(stray));
    assert!(with(r#"{"txt": "x"}"#).contains("unknown field `txt`"));
    let twice = r#"{"feature": "a", "attempt": 1}"#;
    let duplicate = "line 4: duplicate answer for feature `a`, attempt 1";
    assert!(with(&format!("{twice}\n{twice}")).contains(duplicate));
}

#[test]
fn a_missing_script_names_its_path() {
    let error = Script::read("no/such/script.jsonl".as_ref()).unwrap_err();
    assert_eq!(error.to_string(), "cannot read script no/such/script.jsonl");
}

#[test]
fn a_script_that_is_too_large_is_not_read() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("script.jsonl");
    // A sparse file: it takes no space on the disk.
    std::fs::File::create(&path).unwrap().set_len(1 << 40).unwrap();
    let error = Script::read(&path).unwrap_err();
    let cause = std::error::Error::source(&error).unwrap();
    assert_eq!(cause.to_string(), "the script is larger than 67108864 bytes");
}

#[test]
fn a_pipe_in_the_place_of_a_script_is_not_waited_for() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("s.jsonl");
    assert!(std::process::Command::new("mkfifo").arg(&path).status().unwrap().success());
    let Err(Error::ReadScript { source, .. }) = Script::read(&path) else { panic!("a pipe was read") };
    assert!(source.to_string().ends_with("is a pipe, expected a file"), "{source}");
}
