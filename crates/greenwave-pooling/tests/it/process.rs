//! Child processes with their descendants. That all of a group is gone is seen by the end of the pipe they all hold.

use std::process::Stdio;
use std::time::Duration;

use greenwave_pooling::{Child, Pool, PoolOptions, Process, manager_conformance};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::process::{ChildStdout, Command};
use tokio::time::timeout;

manager_conformance!(Process::new(|| Command::new("cat")));

/// A shell that starts a process of its own, says so, and then does `then`.
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

/// Everyone who could write is gone.
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
async fn descendants_that_outlive_the_child_are_killed_when_it_is_waited_for() {
    let (mut child, stdout) = family("exit 3").await;
    assert_eq!(child.wait().await.unwrap().code(), Some(3));
    assert_all_gone(stdout).await;
}

#[tokio::test]
async fn a_program_that_is_not_there_is_an_error() {
    let error = Child::spawn(&mut Command::new("/nonexistent/program")).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::NotFound);
}

#[tokio::test]
async fn a_warm_process_answers_again_and_again_and_a_dead_one_is_replaced() {
    let pool = Pool::new(
        Process::new(|| Command::new("cat")),
        PoolOptions { size_min: 0, size_max: 1, ..PoolOptions::default() },
    );
    for word in ["one\n", "two\n"] {
        let mut cat = pool.get().await.unwrap();
        cat.stdin().unwrap().write_all(word.as_bytes()).await.unwrap();
        let mut answer = vec![0; word.len()];
        cat.stdout().unwrap().read_exact(&mut answer).await.unwrap();
        assert_eq!(answer, word.as_bytes());
    }
    assert_eq!(pool.stats().created, 1);
    let mut cat = pool.get().await.unwrap();
    cat.kill_group().unwrap();
    cat.wait().await.unwrap();
    drop(cat);
    assert_eq!(pool.stats().discarded, 1);
    assert!(pool.get().await.unwrap().id().is_some());
}
