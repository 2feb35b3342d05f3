//! Tests agents that are real programs.

use std::time::Duration;

use futures_util::StreamExt;
use greenwave_agents::{Agent, CommandAgent, Error, Request, agent_conformance};

fn shell(script: &str, time_max: Duration) -> CommandAgent {
    CommandAgent::new(["sh", "-c", script].map(str::to_owned).to_vec(), time_max)
}

const LONG: Duration = Duration::from_secs(60);

// The program receives only the prompt, so `Switch` selects a program by feature.
agent_conformance!(whole, Switch);

/// Answers `whole` with a program that echoes, and `broken` with one that fails halfway.
#[derive(Debug)]
struct Switch;

#[async_trait::async_trait]
impl Agent for Switch {
    async fn connect(&self) -> Result<Box<dyn greenwave_agents::Session>, Error> {
        Ok(Box::new(SwitchSession))
    }

    fn kind(&self) -> &'static str {
        "command"
    }

    fn fingerprint(&self) -> [u8; 32] {
        shell("cat", LONG).fingerprint()
    }
}

#[derive(Debug)]
struct SwitchSession;

#[async_trait::async_trait]
impl greenwave_agents::Session for SwitchSession {
    async fn send(&mut self, request: &Request) -> Result<greenwave_agents::ResponseStream, Error> {
        let script = if request.feature == "whole" { "cat" } else { "echo half; exit 3" };
        shell(script, LONG).connect().await?.send(request).await
    }

    fn is_open(&self) -> bool {
        true
    }
}

async fn send(agent: &CommandAgent, prompt: &str) -> Result<Vec<u8>, Error> {
    let request = Request { feature: "f".into(), attempt: 1, prompt: prompt.into(), directory: ".".into() };
    let mut text = agent.connect().await?.send(&request).await?.into_text();
    let mut whole = Vec::new();
    while let Some(chunk) = text.next().await {
        whole.extend_from_slice(&chunk?);
    }
    Ok(whole)
}

#[tokio::test]
async fn large_prompts_and_responses_do_not_deadlock() {
    let prompt = "0123456789abcdef".repeat(64 * 1024);
    let response = send(&shell("cat", LONG), &prompt).await.unwrap();
    assert!(response == prompt.as_bytes());
    assert_eq!(send(&shell("echo unread", LONG), &prompt).await.unwrap(), b"unread\n");
}

#[tokio::test]
async fn failures_carry_status_and_standard_error() {
    let error = send(&shell("echo half; echo 'no credit left' >&2; exit 3", LONG), "").await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "agent command `sh` ended with exit status: 3; standard error: no credit left"
    );
    let error = send(&CommandAgent::new(vec!["no-such-agent".to_owned()], LONG), "").await.unwrap_err();
    assert_eq!(error.to_string(), "cannot start agent command `no-such-agent` in .");
    assert!(error.is_permanent());
}

#[tokio::test]
async fn a_timed_out_program_is_killed_with_its_descendants() {
    // The grandchild holds the pipe, so the reader sees the end only after the grandchild is dead.
    let fifo = tempfile::tempdir().unwrap();
    let path = fifo.path().join("alive");
    assert!(std::process::Command::new("mkfifo").arg(&path).status().unwrap().success());
    let script = format!("(sleep 1000 > '{0}') & sleep 1000", path.display());
    let sending = tokio::spawn(async move { send(&shell(&script, Duration::from_millis(300)), "").await });
    // Opening waits for the grandchild to start, reading for its death.
    let held = tokio::task::spawn_blocking(move || std::fs::read(path));
    let error = sending.await.unwrap().unwrap_err();
    assert_eq!(error.to_string(), "agent command `sh` did not end within 300ms and was killed");
    let end =
        tokio::time::timeout(Duration::from_secs(20), held).await.expect("the grandchild is still alive");
    assert_eq!(end.unwrap().unwrap(), b"");
}
