//! Process groups: real children, really ended.

use std::process::Stdio;
use std::time::Duration;

use greenwave_scheduler::ProcessGroup;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};
use tokio::process::Command;

/// A shell that starts a grandchild and prints its number; both hold the write end of the returned pipe.
async fn family(script: &str) -> (ProcessGroup, BufReader<tokio::process::ChildStdout>) {
    let mut group =
        ProcessGroup::spawn(Command::new("sh").arg("-c").arg(script).stdout(Stdio::piped())).unwrap();
    let mut output = BufReader::new(group.leader().stdout.take().unwrap());
    let mut ready = String::new();
    output.read_line(&mut ready).await.unwrap();
    assert_eq!(ready, "ready\n");
    (group, output)
}

/// The pipe ends only when every process that holds it is gone.
async fn ends(mut output: BufReader<tokio::process::ChildStdout>) {
    let mut rest = Vec::new();
    let all = output.read_to_end(&mut rest);
    tokio::time::timeout(Duration::from_secs(20), all).await.expect("some process is still alive").unwrap();
}

#[tokio::test]
async fn dropping_kills_grandchildren() {
    let (group, output) = family("sleep 1000 & echo ready; wait").await;
    drop(group);
    ends(output).await;
}

#[tokio::test]
async fn stopping_kills_what_ignores_the_request() {
    let (mut group, output) = family("trap '' TERM; sleep 1000 & echo ready; while :; do wait; done").await;
    let status = group.stop(Duration::from_millis(20)).await.unwrap();
    assert!(!status.success());
    ends(output).await;
}

#[tokio::test]
async fn leftovers_of_an_ended_leader_are_killed() {
    let (mut group, output) = family("sleep 1000 & echo ready; exit 3").await;
    assert_eq!(group.wait().await.unwrap().code(), Some(3));
    ends(output).await;
}
