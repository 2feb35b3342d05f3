//! Programs as agents: real ones, ended for real.

use std::time::Duration;

use futures_util::StreamExt;
use greenwave_agents::{Agent, CommandAgent, Error, Request, agent_conformance};

fn shell(script: &str, time_max: Duration) -> CommandAgent {
    CommandAgent::new(["sh", "-c", script].map(str::to_owned).to_vec(), time_max)
}

const PLENTY: Duration = Duration::from_secs(60);

// A conforming program cannot tell the features apart, since only the prompt reaches it: one for each promise.
agent_conformance!(whole, Switch);

/// `whole` is answered by a program that echoes, `broken` by one that fails half-way.
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
        shell("cat", PLENTY).fingerprint()
    }
}

#[derive(Debug)]
struct SwitchSession;

#[async_trait::async_trait]
impl greenwave_agents::Session for SwitchSession {
    async fn send(&mut self, request: &Request) -> Result<greenwave_agents::ResponseStream, Error> {
        let script = if request.feature == "whole" { "cat" } else { "echo half; exit 3" };
        shell(script, PLENTY).connect().await?.send(request).await
    }

    fn is_open(&self) -> bool {
        true
    }
}

async fn ask(agent: &CommandAgent, prompt: &str) -> Result<Vec<u8>, Error> {
    let request = Request { feature: "f".into(), attempt: 1, prompt: prompt.into(), directory: ".".into() };
    let mut text = agent.connect().await?.send(&request).await?.into_text();
    let mut whole = Vec::new();
    while let Some(chunk) = text.next().await {
        whole.extend_from_slice(&chunk?);
    }
    Ok(whole)
}

#[tokio::test]
async fn large_prompts_and_answers_do_not_block_each_other() {
    let prompt = "0123456789abcdef".repeat(64 * 1024);
    let answer = ask(&shell("cat", PLENTY), &prompt).await.unwrap();
    assert!(answer == prompt.as_bytes());
    assert_eq!(ask(&shell("echo unread", PLENTY), &prompt).await.unwrap(), b"unread\n");
}

#[tokio::test]
async fn failures_carry_status_and_last_words() {
    let error = ask(&shell("echo half; echo 'no credit left' >&2; exit 3", PLENTY), "").await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "agent command `sh` ended with exit status: 3; its last words: no credit left"
    );
    let error = ask(&CommandAgent::new(vec!["no-such-agent".to_owned()], PLENTY), "").await.unwrap_err();
    assert_eq!(error.to_string(), "cannot start agent command `no-such-agent` in .");
    assert!(error.is_permanent());
}

#[tokio::test]
async fn an_answer_that_never_ends_is_killed_with_all_its_processes() {
    // The grandchild holds the pipe: only when it is dead as well has the other end seen the end.
    let fifo = tempfile::tempdir().unwrap();
    let path = fifo.path().join("alive");
    assert!(std::process::Command::new("mkfifo").arg(&path).status().unwrap().success());
    let script = format!("(sleep 1000 > '{0}') & sleep 1000", path.display());
    let asking = tokio::spawn(async move { ask(&shell(&script, Duration::from_millis(300)), "").await });
    // Opening waits for the grandchild, reading for its end.
    let held = tokio::task::spawn_blocking(move || std::fs::read(path));
    let error = asking.await.unwrap().unwrap_err();
    assert_eq!(error.to_string(), "agent command `sh` did not end within 300ms and was killed");
    let end =
        tokio::time::timeout(Duration::from_secs(20), held).await.expect("the grandchild is still alive");
    assert_eq!(end.unwrap().unwrap(), b"");
}
