//! Tests agents that are real programs.

use std::time::Duration;

use futures_util::StreamExt;
use greenwave_agents::{Agent, AgentEvent, CommandAgent, Error, Preflight, Request, agent_conformance};

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
    let request = Request::new("f", 1, prompt, ".", std::env::temp_dir());
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

/// Runs a command for feature `lexer`, attempt 2, in a directory of its own, and returns its
/// output.
async fn output(command: &[&str], prompt: &str) -> Result<String, Error> {
    let (copy, temporary) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let agent = CommandAgent::new(command.iter().map(|word| (*word).to_owned()).collect(), LONG);
    let request = Request::new("lexer", 2, prompt, copy.path(), temporary.path().join("new"));
    let mut text = agent.connect().await?.send(&request).await?.into_text();
    let mut whole = Vec::new();
    while let Some(chunk) = text.next().await {
        whole.extend_from_slice(&chunk?);
    }
    drop(text);
    assert_eq!(
        std::fs::read_dir(copy.path()).unwrap().count(),
        0,
        "the copy holds no file of the agent crate"
    );
    let left = std::fs::read_dir(temporary.path().join("new")).unwrap().count();
    assert_eq!(left, 0, "the prompt is removed at the end");
    Ok(String::from_utf8(whole).unwrap())
}

#[tokio::test]
async fn a_program_learns_its_feature_and_attempt() {
    let script = "echo $GREENWAVE_FEATURE $GREENWAVE_ATTEMPT $0 $1";
    let found = output(&["sh", "-c", script, "{feature}", "--n={attempt}"], "").await.unwrap();
    assert_eq!(found, "lexer 2 lexer --n=2\n");
}

#[tokio::test]
async fn the_prompt_is_in_a_private_file_outside_of_the_copy() {
    let script = r#"stat -c %a "$GREENWAVE_PROMPT_FILE"; cat "$GREENWAVE_PROMPT_FILE"; wc -c"#;
    // Standard input holds the prompt too.
    assert_eq!(output(&["sh", "-c", script], "the prompt\n").await.unwrap(), "600\nthe prompt\n11\n");
    // With a placeholder, standard input is empty.
    let script = r#"cat "$0"; cat"#;
    let found = output(&["sh", "-c", script, "{prompt_file}"], "the prompt\n").await.unwrap();
    assert_eq!(found, "the prompt\n");
}

/// An earlier program that used the directory can have put a link in its place.
#[tokio::test]
async fn the_prompt_is_not_written_through_a_link() {
    let outer = tempfile::tempdir().unwrap();
    let elsewhere = outer.path().join("elsewhere");
    std::fs::create_dir(&elsewhere).unwrap();
    std::os::unix::fs::symlink(&elsewhere, outer.path().join("temporary")).unwrap();
    let request = Request::new("f", 1, "the prompt", ".", outer.path().join("temporary"));
    // The program would show that the file exists.
    let agent = shell("ls \"$TMPDIR\"", LONG);
    let error = agent.connect().await.unwrap().send(&request).await.expect_err("the link is refused");
    let causes = std::iter::successors(Some(&error as &dyn std::error::Error), |error| error.source());
    let text: Vec<String> = causes.map(ToString::to_string).collect();
    assert!(text.join(": ").contains("`temporary` is a symbolic link"), "{text:?}");
    assert_eq!(std::fs::read_dir(elsewhere).unwrap().count(), 0);
}

#[tokio::test]
async fn the_prompt_can_be_an_argument() {
    let found = output(&["sh", "-c", "printf %s \"$0\"; cat", "{prompt}"], "say {feature}").await.unwrap();
    assert_eq!(found, "say {feature}");
}

#[tokio::test]
async fn a_prompt_that_is_too_large_for_an_argument_is_refused() {
    let prompt = "x".repeat(200 * 1024);
    let error = output(&["echo", "{prompt}"], &prompt).await.unwrap_err();
    assert!(error.is_permanent());
    assert_eq!(
        error.to_string(),
        "cannot pass a prompt of 204800 bytes to agent command `echo` as an argument"
    );
    let found = output(&["sh", "-c", "wc -c < $0", "{prompt_file}"], &prompt).await.unwrap();
    assert_eq!(found.trim(), "204800");
}

#[tokio::test]
async fn a_program_has_no_terminal_and_no_editor() {
    let script = "(exec < /dev/tty) 2> /dev/null && echo terminal; ps -o sid= -p $$ | tr -d ' '; echo $$; \
                  echo $TERM $NO_COLOR $GIT_TERMINAL_PROMPT $GIT_EDITOR $EDITOR";
    let found = output(&["sh", "-c", script], "").await.unwrap();
    let lines: Vec<_> = found.lines().collect();
    assert_eq!(lines.len(), 3, "{found}");
    assert_eq!(lines[0], lines[1], "the program leads its session");
    assert_eq!(lines[2], "dumb 1 0 true true");
}

#[tokio::test]
async fn standard_error_and_the_exit_are_events() {
    let script = "echo one >&2; echo two; echo three >&2; exit 4";
    let request = Request::new("f", 1, "", ".", std::env::temp_dir());
    let mut response = shell(script, LONG).connect().await.unwrap().send(&request).await.unwrap();
    let (mut text, mut stderr, mut exits) = (Vec::new(), Vec::new(), Vec::new());
    let error = loop {
        match response.next().await.expect("an error ends the response") {
            Ok(AgentEvent::Text(chunk)) => text.extend_from_slice(&chunk),
            Ok(AgentEvent::Stderr(chunk)) => stderr.extend_from_slice(&chunk),
            Ok(AgentEvent::Exit(status)) => exits.push(status.code()),
            Ok(_) => {}
            Err(error) => break error,
        }
    };
    assert_eq!((text.as_slice(), stderr.as_slice()), (&b"two\n"[..], &b"one\nthree\n"[..]));
    assert_eq!(exits, [Some(4)]);
    assert!(matches!(error, Error::Exited { .. }));
}

/// A process in another session survives the group, and holds the pipes open.
#[tokio::test]
async fn a_daemon_that_holds_the_pipes_does_not_delay_the_end() {
    let script = "setsid sleep 20 & echo done";
    let found = tokio::time::timeout(Duration::from_secs(15), output(&["sh", "-c", script], "")).await;
    assert_eq!(found.expect("the response ends with the program").unwrap(), "done\n");
}

#[test]
fn a_missing_program_is_found_before_any_request() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("plain.sh"), "").unwrap();
    let path = std::env::var_os("PATH");
    let context = Preflight::new(directory.path(), path.as_deref());
    let check = |program: &str| {
        let agent = CommandAgent::new(vec![program.to_owned()], LONG);
        agent.preflight(&context).map_err(|error| error.to_string())
    };
    assert_eq!(check("sh"), Ok(()));
    assert_eq!(check("/bin/sh"), Ok(()));
    assert_eq!(check("cladue"), Err("cannot find agent program `cladue` in PATH".to_owned()));
    // Neither executable, nor there.
    for program in ["./plain.sh", "./none.sh", "/none", "."] {
        assert!(check(program).is_err(), "{program}");
    }
}

#[tokio::test]
async fn the_working_directory_is_named_in_the_environment() {
    let directory = tempfile::tempdir().unwrap();
    let agent = shell("env", LONG);
    let request = Request::new("f", 1, "", directory.path(), std::env::temp_dir());
    let mut text = agent.connect().await.unwrap().send(&request).await.unwrap().into_text();
    let mut output = Vec::new();
    while let Some(chunk) = text.next().await {
        output.extend_from_slice(&chunk.unwrap());
    }
    let output = String::from_utf8(output).unwrap();
    let expected = format!("PWD={}", directory.path().display());
    assert!(output.lines().any(|line| line == expected), "{output}");
    assert!(!output.lines().any(|line| line.starts_with("OLDPWD=")), "{output}");
}
