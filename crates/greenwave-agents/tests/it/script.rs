//! Scripts and their replay.

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

async fn ask(feature: &str, attempt: u32, prompt: &str) -> Result<Vec<u8>, Error> {
    let request = Request { feature: feature.into(), attempt, prompt: prompt.into(), directory: ".".into() };
    let mut text = agent(2.0).connect().await?.send(&request).await?.into_text();
    let mut whole = Vec::new();
    while let Some(chunk) = text.next().await {
        whole.extend_from_slice(&chunk?);
    }
    Ok(whole)
}

#[tokio::test(start_paused = true)]
async fn delays_are_kept_and_scaled() {
    let started = Instant::now();
    assert_eq!(ask("whole", 1, "").await.unwrap(), b"one two");
    assert_eq!(started.elapsed(), Duration::from_millis(300));
}

#[tokio::test(start_paused = true)]
async fn what_is_not_recorded_is_told_with_what_is() {
    let message =
        async |feature, attempt, prompt| ask(feature, attempt, prompt).await.unwrap_err().to_string();
    assert_eq!(
        message("hole", 1, "").await,
        "script test.jsonl has no answer for feature `hole`, attempt 1; the nearest recorded feature is `whole`"
    );
    assert_eq!(
        message("whole", 2, "").await,
        "script test.jsonl has no answer for feature `whole`, attempt 2; its last recorded attempt is 1"
    );
    assert_eq!(
        message("fussy", 2, "again, please").await,
        "script test.jsonl: the answer for feature `fussy`, attempt 2, was recorded for a prompt with \
         \"test `x` failed\" in it, and this prompt has none"
    );
    assert_eq!(message("broken", 1, "").await, "the answer broke off after 5 bytes without an end");
    assert!(ask("fussy", 2, "so: test `x` failed.").await.unwrap().is_empty());
}

#[test]
fn mistakes_in_scripts_are_told_with_their_line() {
    let message = |text: &str| Script::parse("s", text).unwrap_err().to_string();
    assert_eq!(message(""), r#"script s, line 1: should be {"greenwave_script": 1}"#);
    let newer = "script s, line 1: is of format version 9, and this program reads version 1";
    assert_eq!(message(r#"{"greenwave_script": 9}"#), newer);
    let with = |line: &str| message(&format!("{{\"greenwave_script\": 1}}\n\n{line}"));
    assert!(with("{").starts_with("script s, line 3: EOF"));
    assert!(with(r#"{"text": "x"}"#).contains("line 3: is none of an answer's beginning"));
    assert!(with(r#"{"after_ms": 1, "text": "x"}"#).contains("line 3: should begin an answer"));
    assert!(with(r#"{"txt": "x"}"#).contains("unknown field `txt`"));
    let twice = r#"{"feature": "a", "attempt": 1}"#;
    assert!(with(&format!("{twice}\n{twice}")).contains("line 4: answers the same feature and attempt"));
}

#[test]
fn a_missing_script_is_named() {
    let error = Script::read("no/such/script.jsonl".as_ref()).unwrap_err();
    assert_eq!(error.to_string(), "cannot read the script no/such/script.jsonl");
}
