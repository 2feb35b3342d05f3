//! Groups of child processes. The end of the pipe that a whole group holds shows that all of it is
//! gone.

use std::process::Stdio;
use std::time::Duration;

use greenwave_process::Child;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};
use tokio::process::{ChildStdout, Command};
use tokio::time::timeout;

/// Starts a shell that starts a grandchild, prints `started` and then runs `then`.
async fn family(then: &str) -> (Child, BufReader<ChildStdout>) {
    let mut command = Command::new("sh");
    command
        .arg("-c")
        .arg(format!("sleep 600 & echo started; {then}"))
        .stdin(Stdio::null())
        .stdout(Stdio::piped());
    let mut child = Child::spawn(&mut command).unwrap();
    let mut stdout = BufReader::new(child.take_stdout().unwrap());
    let mut line = String::new();
    stdout.read_line(&mut line).await.unwrap();
    assert_eq!(line, "started\n");
    (child, stdout)
}

/// Waits until every process that holds the pipe is gone.
async fn assert_all_gone(mut stdout: BufReader<ChildStdout>) {
    let mut rest = Vec::new();
    let read = timeout(Duration::from_secs(20), stdout.read_to_end(&mut rest)).await;
    read.expect("a process of the group is still alive").unwrap();
}

#[tokio::test]
async fn dropping_a_child_kills_its_descendants() {
    let (child, stdout) = family("wait").await;
    drop(child);
    assert_all_gone(stdout).await;
}

#[tokio::test]
async fn a_group_is_killed_from_elsewhere() {
    let (mut child, stdout) = family("wait").await;
    let group = child.group();
    group.kill().unwrap();
    assert_all_gone(stdout).await;
    let status = child.wait().await.unwrap();
    assert!(!status.success());
    assert_eq!(child.id(), None);
    group.kill().unwrap();
    child.kill_group().unwrap();
}

#[tokio::test]
async fn waiting_for_a_child_kills_descendants_that_outlive_it() {
    let (mut child, stdout) = family("exit 3").await;
    assert_eq!(child.wait().await.unwrap().code(), Some(3));
    assert_all_gone(stdout).await;
}

#[tokio::test]
async fn a_missing_program_is_an_error() {
    let error = Child::spawn(&mut Command::new("/nonexistent/program")).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::NotFound);
}

#[tokio::test]
async fn stopping_kills_a_group_that_ignores_the_request() {
    let (mut child, stdout) = family("trap '' TERM; while :; do wait; done").await;
    let status = child.stop(Duration::from_millis(20)).await.unwrap();
    assert!(!status.success());
    assert_all_gone(stdout).await;
}

#[tokio::test]
async fn output_is_complete_and_does_not_wait_for_descendants() {
    let mut command = Command::new("sh");
    command.args(["-c", "sleep 600 & echo out; echo err >&2; exit 5"]).stderr(Stdio::piped());
    let output = timeout(Duration::from_secs(20), Child::output(&mut command)).await.unwrap().unwrap();
    assert_eq!((output.stdout, output.stderr), (b"out\n".to_vec(), b"err\n".to_vec()));
    assert_eq!(output.status.code(), Some(5));
}

#[tokio::test]
async fn the_status_of_an_exited_child_is_returned_without_waiting() {
    let (mut child, stdout) = family("read line; exit 4").await;
    let status = loop {
        if let Some(status) = child.try_wait().unwrap() {
            break status;
        }
        tokio::task::yield_now().await;
    };
    assert_eq!((status.code(), child.id()), (Some(4), None));
    assert_all_gone(stdout).await;
}
