//! Tests of the contract of [`Executor`], for every implementation to pass.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::future::join_all;

use crate::{Action, ActionOutput, Entry, Error, Event, Executor, ExecutorExt, Outcome, Tree};

/// Longest time of an action that ends by itself. Long, since workers may be busy.
const TIME_LIMIT: Duration = Duration::from_secs(120);
/// More actions than a fixture runs at once.
const ACTIONS: usize = 8;

/// An executor under test, whose workers have `/bin/sh` and the usual programs in `/usr/bin`, and
/// run fewer than eight actions at once.
pub trait ExecutorFixture {
    /// Opens the executor. Called once.
    fn open(&self) -> impl Future<Output = Arc<dyn Executor>>;
}

/// Generates one `#[test]` per promise, for the [`ExecutorFixture`] that the expression creates.
///
/// ```ignore
/// mod my_executor {
///     greenwave_remote::executor_conformance!(MyFixture::new());
/// }
/// ```
#[macro_export]
macro_rules! executor_conformance {
    ($fixture:expr) => {
        $crate::executor_conformance!(@each $fixture;
            exit_code_and_output_come_back, inputs_are_as_given, outputs_come_back,
            missing_outputs_are_absent, variables_are_those_of_the_action,
            actions_share_nothing, many_actions_run_at_once, large_output_is_complete,
            the_outcome_is_the_last_event, actions_over_their_time_are_lost,
            dropped_actions_make_room, invalid_actions_are_errors);
    };
    (@each $fixture:expr; $($promise:ident),*) => {
        $(#[test]
        fn $promise() {
            $crate::conformance::run($crate::conformance::$promise(&$fixture));
        })*
    };
}

/// Runs a test of a promise on a new runtime.
///
/// # Panics
/// Panics if the promise is broken.
pub fn run(promise: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.expect("the runtime starts").block_on(promise);
}

fn shell(script: &str) -> Action {
    Action { time_limit: TIME_LIMIT, ..Action::new(["/bin/sh", "-c", script], Tree::new()) }
}

fn file(content: &'static str, is_executable: bool) -> Entry {
    Entry::File { content: content.into(), is_executable }
}

async fn done(executor: &Arc<dyn Executor>, action: Action) -> ActionOutput {
    match executor.execute(action).await.expect("the action is valid") {
        Outcome::Done(output) => output,
        Outcome::Lost(reason) => panic!("the action is lost: {reason}"),
    }
}

/// Executes an action that passes, and returns its outputs.
async fn passed(executor: &Arc<dyn Executor>, action: Action) -> ActionOutput {
    let output = done(executor, action).await;
    assert_eq!(output.exit_code, 0, "{}", String::from_utf8_lossy(&output.stderr));
    output
}

/// Tests that the exit code, standard output and standard error come back.
pub async fn exit_code_and_output_come_back(fixture: &impl ExecutorFixture) {
    let executor = fixture.open().await;
    let output = done(&executor, shell("echo out; echo err >&2; exit 3")).await;
    assert_eq!(output.exit_code, 3);
    assert_eq!((&*output.stdout, &*output.stderr), (&b"out\n"[..], &b"err\n"[..]));
    let silent = done(&executor, shell(":")).await;
    assert_eq!((silent.exit_code, silent.stdout.len(), silent.stderr.len()), (0, 0, 0));
}

/// Tests that the command sees its tree: contents, executable files, links and empty directories.
pub async fn inputs_are_as_given(fixture: &impl ExecutorFixture) {
    let executor = fixture.open().await;
    let mut tree = Tree::new();
    for (path, entry) in [
        ("work/deep/er/file.txt", file("content\n", false)),
        ("work/run.sh", file("#!/bin/sh\necho ran \"$@\"\n", true)),
        ("work/plain.sh", file("#!/bin/sh\n", false)),
        ("work/link", Entry::Link("deep/er/file.txt".to_owned())),
        ("work/empty", Entry::Directory),
        ("work/no bytes", file("", false)),
        ("beside/ünï 'x'", file("odd", false)),
    ] {
        tree.insert(path, entry).expect("the tree is valid");
    }
    let script = "cat deep/er/file.txt link && ./run.sh 'a  b' && ! test -x plain.sh && \
                  test -L link && test -d empty && test -f 'no bytes' && test ! -s 'no bytes' && \
                  cat \"../beside/ünï 'x'\"";
    let action = Action { tree, directory: "work".to_owned(), ..shell(script) };
    let output = passed(&executor, action).await;
    assert_eq!(String::from_utf8_lossy(&output.stdout), "content\ncontent\nran a  b\nodd");
}

/// Tests that outputs come back with everything below them, and nothing else.
pub async fn outputs_come_back(fixture: &impl ExecutorFixture) {
    let executor = fixture.open().await;
    let script = "mkdir -p out/below/empty && echo one > out/one && echo two > out/below/two && \
                  chmod +x out/below/two && ln -s one out/link && echo plain > plain && \
                  echo other > other";
    let mut tree = Tree::new();
    tree.insert("work", Entry::Directory).expect("the tree is valid");
    let outputs = ["out", "plain"].map(str::to_owned).to_vec();
    let action = Action { tree, directory: "work".to_owned(), outputs, ..shell(script) };
    let found = passed(&executor, action).await.outputs;
    let mut expected = Tree::new();
    for (path, entry) in [
        ("out", Entry::Directory),
        ("out/one", file("one\n", false)),
        ("out/link", Entry::Link("one".to_owned())),
        ("out/below", Entry::Directory),
        ("out/below/empty", Entry::Directory),
        ("out/below/two", file("two\n", true)),
        ("plain", file("plain\n", false)),
    ] {
        expected.insert(path, entry).expect("the tree is valid");
    }
    assert_eq!(found, expected);
}

/// Tests that an output that was not written is absent, also where the command fails.
pub async fn missing_outputs_are_absent(fixture: &impl ExecutorFixture) {
    let executor = fixture.open().await;
    let outputs = ["one".to_owned(), "two".to_owned()].to_vec();
    let action = Action { outputs, ..shell("echo 1 > one; exit 1") };
    let output = done(&executor, action).await;
    assert_eq!(output.exit_code, 1);
    assert_eq!(output.outputs, Tree::new().with_file("one", "1\n").expect("the tree is valid"));
}

/// Tests that the command has its variables, without those of the submitting process.
pub async fn variables_are_those_of_the_action(fixture: &impl ExecutorFixture) {
    let executor = fixture.open().await;
    let variables = [("ONE", "a b"), ("TWO", ""), ("THREE", "x=\"y\"\nz")];
    let variables = variables.map(|(name, value)| (name.to_owned(), value.to_owned()));
    let script = "printf '%s|%s|%s|%s' \"$ONE\" \"${TWO-unset}\" \"$THREE\" \"${CARGO_MANIFEST_DIR-unset}\"";
    let action = Action { variables: BTreeMap::from(variables), ..shell(script) };
    let output = passed(&executor, action).await;
    assert_eq!(String::from_utf8_lossy(&output.stdout), "a b||x=\"y\"\nz|unset");
}

/// Tests that an action does not find what another one has written, even into its inputs.
pub async fn actions_share_nothing(fixture: &impl ExecutorFixture) {
    let executor = fixture.open().await;
    let tree = Tree::new().with_file("work/input", "as given\n").expect("the tree is valid");
    let within = |script: &str| Action { tree: tree.clone(), directory: "work".to_owned(), ..shell(script) };
    let script = "cat input; test ! -e left; echo changed > input 2>/dev/null; rm -f input; echo x > left";
    for _ in 0..2 {
        assert_eq!(&*passed(&executor, within(&format!("{script}; true"))).await.stdout, b"as given\n");
    }
    let left = passed(&executor, within("ls")).await;
    assert_eq!(&*left.stdout, b"input\n");
}

/// Tests that more actions than run at once all end, each with its own output.
pub async fn many_actions_run_at_once(fixture: &impl ExecutorFixture) {
    let executor = fixture.open().await;
    let run = |number: usize| done(&executor, shell(&format!("echo {number}; exit {number}")));
    let outputs = join_all((0..2 * ACTIONS).map(run)).await;
    for (number, output) in outputs.into_iter().enumerate() {
        assert_eq!(output.exit_code, i32::try_from(number).expect("a small number"));
        assert_eq!(output.stdout, format!("{number}\n"));
    }
}

/// Tests that output beyond the size of a message is complete.
pub async fn large_output_is_complete(fixture: &impl ExecutorFixture) {
    let executor = fixture.open().await;
    let large: Bytes = (0..600_000_u32).flat_map(|number| format!("{number:9}\n").into_bytes()).collect();
    let tree = Tree::new().with_file("large", large.clone()).expect("the tree is valid");
    let outputs = vec!["copy".to_owned()];
    let action = Action { tree, outputs, ..shell("cat large; cp large copy") };
    let output = passed(&executor, action).await;
    assert!(output.stdout == large, "{} bytes of {}", output.stdout.len(), large.len());
    let expected = Entry::File { content: large, is_executable: false };
    assert!(output.outputs.get("copy") == Some(&expected), "the file is incomplete");
}

/// Tests that there is one outcome, after which nothing comes, and that output that is reported is
/// part of it.
pub async fn the_outcome_is_the_last_event(fixture: &impl ExecutorFixture) {
    let executor = fixture.open().await;
    let events = executor.submit(shell("echo one; echo two >&2; echo three")).await;
    let mut all: Vec<Event> = events.expect("the action is valid").collect().await;
    let output = match all.pop() {
        Some(Event::Finished(Outcome::Done(output))) => output,
        last => panic!("the last event is no outcome: {last:?} after {all:?}"),
    };
    let is_outcome = |event: &Event| matches!(event, Event::Finished(_));
    assert!(!all.iter().any(is_outcome), "{all:?}");
    for (is_error, whole) in [(false, &output.stdout), (true, &output.stderr)] {
        let mut seen = Vec::new();
        for event in &all {
            if let Event::Output { is_error: found, bytes } = event
                && *found == is_error
            {
                seen.extend_from_slice(bytes);
            }
        }
        assert!(whole.starts_with(&seen), "{seen:?} is not the start of {whole:?}");
    }
}

/// Tests that an action that exceeds its time limit is lost, and that others run afterwards.
pub async fn actions_over_their_time_are_lost(fixture: &impl ExecutorFixture) {
    let executor = fixture.open().await;
    let endless = Action { time_limit: Duration::from_secs(1), ..shell("sleep 1000 & sleep 1000") };
    let outcome = executor.execute(endless).await.expect("the action is valid");
    assert!(matches!(outcome, Outcome::Lost(_)), "{outcome:?}");
    assert_eq!(&*passed(&executor, shell("echo next")).await.stdout, b"next\n");
}

/// Tests that dropping the events ends actions: later ones would wait indefinitely.
pub async fn dropped_actions_make_room(fixture: &impl ExecutorFixture) {
    let executor = fixture.open().await;
    let endless = || Action { time_limit: Duration::from_secs(100_000), ..shell("sleep 100000") };
    let mut running = Vec::new();
    for _ in 0..ACTIONS {
        running.push(executor.submit(endless()).await.expect("the action is valid"));
    }
    for events in &mut running {
        assert!(matches!(events.next().await, Some(Event::Queued | Event::Started)));
    }
    drop(running);
    assert_eq!(&*passed(&executor, shell("echo next")).await.stdout, b"next\n");
}

/// Tests that actions that can run nowhere are refused at once.
pub async fn invalid_actions_are_errors(fixture: &impl ExecutorFixture) {
    let executor = fixture.open().await;
    let variable = |name: &str| BTreeMap::from([(name.to_owned(), "x".to_owned())]);
    for action in [
        Action::new([""], Tree::new()),
        Action { command: Vec::new(), ..shell(":") },
        Action { outputs: vec!["../up".to_owned()], ..shell(":") },
        Action { outputs: vec!["/etc/passwd".to_owned()], ..shell(":") },
        Action { directory: "missing".to_owned(), ..shell(":") },
        Action { variables: variable("A=B"), ..shell(":") },
        Action { variables: variable("A\0"), ..shell(":") },
        Action { time_limit: Duration::ZERO, ..shell(":") },
    ] {
        let shown = format!("{action:?}");
        let refused = executor.submit(action).await.err();
        assert!(matches!(refused, Some(Error::InvalidAction { .. })), "{shown}");
    }
}
