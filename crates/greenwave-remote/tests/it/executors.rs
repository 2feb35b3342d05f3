//! Executors: the contract on this machine and on buildbox-casd, and servers that misbehave.

use std::sync::Arc;
use std::time::Duration;

use bazel_remote_apis::build::bazel::remote::execution::v2 as proto;
use bazel_remote_apis::google::rpc;
use futures_util::StreamExt;
use greenwave_remote::conformance::{self, ExecutorFixture};
use greenwave_remote::{
    Action, ActionOutput, Entry, Event, Executor, ExecutorExt, LocalExecutor, Outcome, RemoteExecutor, Tree,
};
use greenwave_testkit::server::Server;
use tonic::Code;

use crate::fake::{Fake, State};
use crate::fake_execution::Execution;
use crate::{client, patient};

const MINUTE: Duration = Duration::from_secs(60);

struct Directory(tempfile::TempDir);

impl ExecutorFixture for Directory {
    async fn open(&self) -> Arc<dyn Executor> {
        Arc::new(LocalExecutor::new(self.0.path(), 2))
    }
}

mod this_machine {
    use super::*;

    greenwave_remote::executor_conformance!(Directory(tempfile::tempdir().unwrap()));
}

struct Casd(Server);

impl ExecutorFixture for Casd {
    async fn open(&self) -> Arc<dyn Executor> {
        Arc::new(executor(self.0.port()))
    }
}

/// Generates a test per promise of the contract, except `dropped_actions_make_room`: the server
/// names operations when they are done, so that they cannot be cancelled. Tests are skipped with a
/// note if the server is not installed.
macro_rules! conformance_on_casd {
    ($($promise:ident),*) => {
        mod casd {
            use super::*;

            $(#[test]
            fn $promise() {
                let Some(server) = Server::casd_with_execution() else { return };
                conformance::run(conformance::$promise(&Casd(server)));
            })*
        }
    };
}

conformance_on_casd!(
    exit_code_and_output_come_back,
    inputs_are_as_given,
    outputs_come_back,
    missing_outputs_are_absent,
    variables_are_those_of_the_action,
    actions_share_nothing,
    many_actions_run_at_once,
    large_output_is_complete,
    the_outcome_is_the_last_event,
    actions_over_their_time_are_lost,
    invalid_actions_are_errors
);

fn executor(port: u16) -> RemoteExecutor {
    RemoteExecutor::new(client(port, patient()), MINUTE)
}

fn executes(capabilities: &mut proto::ServerCapabilities) {
    capabilities.execution_capabilities =
        Some(proto::ExecutionCapabilities { exec_enabled: true, ..Default::default() });
}

fn fake(execution: Execution) -> Fake {
    Fake::start(State { capabilities: Some(executes), execution, ..State::default() })
}

fn action() -> Action {
    Action::new(["true"], Tree::new().with_file("input", "content").unwrap())
}

async fn lost(fake: &Fake, action: Action) -> String {
    match executor(fake.port).execute(action).await.unwrap() {
        Outcome::Lost(reason) => reason,
        Outcome::Done(output) => panic!("{output:?}"),
    }
}

#[tokio::test]
async fn an_action_that_is_cached_does_not_run_again() {
    let Some(server) = Server::casd_with_execution() else { return };
    let executor = executor(server.port());
    let script = "head -c 16 /dev/urandom | od -An -tx1";
    let run = async |is_cacheable, salt: &'static str| {
        let action = Action::new(["/bin/sh", "-c", script], Tree::new());
        let action = Action { is_cacheable, salt: salt.into(), ..action };
        match executor.execute(action).await.unwrap() {
            Outcome::Done(ActionOutput { stdout, is_cached, .. }) => (stdout, is_cached),
            Outcome::Lost(reason) => panic!("{reason}"),
        }
    };
    let (first, is_cached) = run(true, "one").await;
    assert!(!is_cached);
    assert_eq!(run(true, "one").await, (first.clone(), true));
    assert_ne!(run(true, "another toolchain").await.0, first);
    let (fresh, is_cached) = run(false, "one").await;
    assert!(fresh != first && !is_cached);
}

#[tokio::test]
async fn a_worker_that_is_killed_loses_the_action() {
    let Some(mut server) = Server::casd_with_execution() else { return };
    let client = client(server.port(), patient());
    let executor = RemoteExecutor::new(client, Duration::from_secs(3));
    let action = Action::new(["/bin/sh", "-c", "sleep 1000"], Tree::new());
    let mut events = executor.submit(Action { time_limit: MINUTE, ..action }).await.unwrap();
    assert_eq!(events.next().await, Some(Event::Queued));
    server.kill();
    let mut last = events.next().await.unwrap();
    while let Some(event) = events.next().await {
        last = event;
    }
    let Event::Finished(Outcome::Lost(reason)) = last else { panic!("{last:?}") };
    assert!(reason.contains(&server.address()), "{reason}");
}

#[tokio::test]
async fn dropped_actions_end_at_their_time_limit_where_the_server_cannot_cancel() {
    let Some(server) = Server::casd_with_execution() else { return };
    let executor = executor(server.port());
    for _ in 0..4 {
        let action = Action::new(["/bin/sh", "-c", "sleep 1000"], Tree::new());
        let action = Action { time_limit: Duration::from_secs(1), ..action };
        let mut events = executor.submit(action).await.unwrap();
        assert_eq!(events.next().await, Some(Event::Queued));
    }
    let outcome = executor.execute(Action::new(["/bin/sh", "-c", "exit 4"], Tree::new())).await.unwrap();
    let Outcome::Done(output) = outcome else { panic!("{outcome:?}") };
    assert_eq!(output.exit_code, 4);
}

#[tokio::test]
async fn a_stream_that_is_cut_is_taken_up_again() {
    let result = proto::ActionResult { exit_code: 7, stdout_raw: b"out".to_vec(), ..Default::default() };
    let fake = fake(Execution { cuts: 3, result, ..Execution::default() });
    let Outcome::Done(output) = executor(fake.port).execute(action()).await.unwrap() else { panic!() };
    assert_eq!((output.exit_code, &*output.stdout), (7, &b"out"[..]));
    assert_eq!((fake.calls("execute"), fake.calls("wait_execution")), (1, 3));
    assert_eq!(fake.calls("cancel_operation"), 0);
}

#[tokio::test]
async fn an_action_that_the_server_has_forgotten_or_never_named_is_executed_again() {
    for cuts_early in [false, true] {
        let fake = fake(Execution { cuts: 2, forgets: true, cuts_early, ..Execution::default() });
        let outcome = executor(fake.port).execute(action()).await.unwrap();
        assert!(matches!(outcome, Outcome::Done(_)), "{outcome:?}");
        assert_eq!(fake.calls("execute"), 3);
        assert_eq!(fake.calls("wait_execution"), if cuts_early { 0 } else { 2 });
    }
}

#[tokio::test]
async fn streams_that_are_cut_without_an_end_lose_the_action() {
    let fake = fake(Execution { cuts: u32::MAX, cuts_early: true, ..Execution::default() });
    let reason = lost(&fake, action()).await;
    assert!(reason.ends_with("UNAVAILABLE: the connection was cut"), "{reason}");
    assert_eq!(fake.calls("execute"), 6);
}

#[tokio::test]
async fn a_dropped_action_is_cancelled_on_the_server() {
    let fake = fake(Execution { hangs: true, ..Execution::default() });
    let mut events = executor(fake.port).submit(action()).await.unwrap();
    while events.next().await != Some(Event::Started) {}
    assert_eq!(fake.calls("cancel_operation"), 0);
    drop(events);
    while fake.calls("cancel_operation") == 0 {
        tokio::task::yield_now().await;
    }
    while fake.state.lock().execution.cancelled.is_empty() {
        tokio::task::yield_now().await;
    }
    assert_eq!(fake.state.lock().execution.cancelled, ["operations/one"]);
}

#[tokio::test]
async fn an_action_without_an_end_is_cancelled_and_lost() {
    let fake = fake(Execution { hangs: true, ..Execution::default() });
    let second = Duration::from_millis(200);
    let executor = RemoteExecutor::new(client(fake.port, patient()), second);
    let outcome = executor.execute(Action { time_limit: second, ..action() }).await.unwrap();
    let Outcome::Lost(reason) = outcome else { panic!("{outcome:?}") };
    assert!(reason.ends_with("within 400ms"), "{reason}");
    while fake.calls("cancel_operation") == 0 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn what_a_server_refuses_is_lost_with_its_reason() {
    let status =
        |code: Code| rpc::Status { code: code as i32, message: "no room".to_owned(), ..Default::default() };
    let late = fake(Execution { status: status(Code::DeadlineExceeded), ..Execution::default() });
    assert!(lost(&late, action()).await.contains("longer than its limit of 60s"));
    let no_worker = fake(Execution { status: status(Code::FailedPrecondition), ..Execution::default() });
    let reason = lost(&no_worker, action()).await;
    assert!(reason.ends_with("FAILED_PRECONDITION: no room"), "{reason}");
    let failed = fake(Execution { error: Some(status(Code::ResourceExhausted)), ..Execution::default() });
    assert!(lost(&failed, action()).await.ends_with("RESOURCE_EXHAUSTED: no room"));
    let cache_only = Fake::start(State::default());
    assert!(lost(&cache_only, action()).await.ends_with("it executes no actions"));
}

#[tokio::test]
async fn damaged_results_are_lost() {
    let digest = |hash: &str| Some(proto::Digest { hash: hash.to_owned(), size_bytes: 3 });
    let file = |path: &str, hash: &str| proto::OutputFile {
        path: path.to_owned(),
        digest: digest(hash),
        ..proto::OutputFile::default()
    };
    let absent = "a".repeat(64);
    let files = |file| proto::ActionResult { output_files: vec![file], ..proto::ActionResult::default() };
    let links = |path: &str| proto::ActionResult {
        output_symlinks: vec![proto::OutputSymlink {
            path: path.to_owned(),
            target: "x".to_owned(),
            ..proto::OutputSymlink::default()
        }],
        ..proto::ActionResult::default()
    };
    let directory = proto::OutputDirectory {
        path: "out".to_owned(),
        tree_digest: digest(&absent),
        ..proto::OutputDirectory::default()
    };
    for (result, expected) in [
        (files(file("out", &absent)), "the server lacks the blob"),
        (files(file("out", "zz")), "invalid digest"),
        (files(file("../../home/x", &absent)), "is no output of the action"),
        (links("/etc/x"), "is no output of the action"),
        (proto::ActionResult { stdout_digest: digest(&absent), ..Default::default() }, "lacks the blob"),
        (proto::ActionResult { output_directories: vec![directory], ..Default::default() }, "lacks the blob"),
    ] {
        let fake = fake(Execution { result, ..Execution::default() });
        let reason = lost(&fake, Action { outputs: vec!["out".to_owned()], ..action() }).await;
        assert!(reason.contains(expected), "{reason}");
    }
}

#[tokio::test]
async fn inputs_that_the_server_has_are_not_sent_again() {
    let fake = fake(Execution::default());
    let large = vec![7; 5 << 20];
    let tree = Tree::new().with_file("large", large).unwrap();
    for _ in 0..2 {
        executor(fake.port).execute(Action::new(["true"], tree.clone())).await.unwrap();
    }
    assert_eq!((fake.calls("find_missing_blobs"), fake.calls("write")), (2, 1));
    assert_eq!(fake.calls("batch_update_blobs"), 1);
}

#[test]
fn trees_refuse_what_no_directory_can_hold() {
    let file = || Entry::File { content: "x".into(), is_executable: false };
    let mut tree = Tree::new().with_file("a/b", "x").unwrap();
    for path in
        ["", "/a", "a/", "a//b", "./a", "a/../b", "a\0", "a/b/c", "a", &"x/".repeat(300), &"x".repeat(5000)]
    {
        assert!(tree.insert(path, file()).is_err(), "{path:?}");
    }
    tree.insert("a", Entry::Directory).unwrap();
    tree.insert("a/b", file()).unwrap();
    assert!(tree.insert("l", Entry::Link(String::new())).is_err());
    assert_eq!(tree.iter().count(), 2);
    assert_eq!(tree.bytes(), 1);
}

#[tokio::test]
async fn a_directory_of_a_local_action_is_removed_also_when_it_is_dropped() {
    let directory = tempfile::tempdir().unwrap();
    let executor = LocalExecutor::new(directory.path(), 1);
    executor.execute(Action::new(["sh", "-c", "mkdir -p a/b; chmod 0 a"], Tree::new())).await.unwrap();
    assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);
    let mut events = executor.submit(Action::new(["sleep", "1000"], Tree::new())).await.unwrap();
    while events.next().await != Some(Event::Started) {}
    while std::fs::read_dir(directory.path()).unwrap().count() == 0 {
        tokio::task::yield_now().await;
    }
    drop(events);
    while std::fs::read_dir(directory.path()).unwrap().count() > 0 {
        tokio::task::yield_now().await;
    }
    let none = executor.execute(Action::new(["no-such-program-at-all"], Tree::new())).await.unwrap();
    let Outcome::Done(output) = none else { panic!("{none:?}") };
    assert_eq!(
        (output.exit_code, &*output.stderr),
        (127, &b"cannot find program `no-such-program-at-all`\n"[..])
    );
}
