//! `greenwave mcp`: a server of the Model Context Protocol.

use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::mcp_client::{Client, text};
use crate::program::Program;
use crate::pytest::Suite;
use crate::test_dir::TestDir;

/// A test that fails with a location, and one that passes and reads `b.txt`.
const TESTS: &str = r#"
    [[test]]
    name = "check a"
    command = ["sh", "check.sh"]
    inputs = ["check.sh", "a.txt"]

    [[test]]
    name = "read b"
    command = ["cat", "b.txt"]
    inputs = ["b.txt"]
"#;

pub(crate) fn project() -> TestDir {
    TestDir::empty()
        .with("p/greenwave.toml", TESTS)
        .with("p/check.sh", "read -r line < a.txt\n[ \"$line\" = 1 ] || { echo \"check.sh:2: want 1, got $line\"; exit 1; }\n")
        .with("p/a.txt", "2\n")
        .with("p/b.txt", "b\n")
}

fn start(dir: &TestDir) -> Client {
    start_in(dir, "p")
}

fn start_in(dir: &TestDir, project: &str) -> Client {
    let program = dir.greenwave(["mcp"]).within(&dir.path(project));
    Client::start(program.variable("XDG_CACHE_HOME", dir.path("cache")))
}

#[test]
fn an_agent_sees_a_failure_with_its_place_and_then_what_was_cached() {
    let dir = project();
    let mut client = start(&dir);
    let (answer, text) = client.ask("run_tests", &json!({}));
    assert_eq!(answer["success"], false);
    let failure = &answer["failures"][0];
    assert_eq!(
        (&failure["name"], &failure["problem"], &failure["file"], &failure["line"], &failure["text"]),
        (
            &json!("check a"),
            &json!("failed with exit code 1"),
            &json!("check.sh"),
            &json!(2),
            &json!("check.sh:2: want 1, got 2")
        )
    );
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(
        lines[..2],
        ["FAIL check a: failed with exit code 1 (check.sh:2)", "  check.sh:2: want 1, got 2"]
    );
    assert_eq!(lines[2], "Whole output: resource greenwave://output/check%20a");
    assert!(lines[3].starts_with("2 tests: 1 passed, 1 failed in "), "{text}");
    // The edit of an agent.
    dir.write("p/a.txt", "1\n");
    let (answer, _) = client.ask("run_tests", &json!({}));
    assert_eq!(
        (&answer["passed"], &answer["cached"], &answer["failures"]),
        (&json!(2), &json!(1), &json!([]))
    );
    let (answer, text) = client.ask("run_tests", &json!({}));
    assert_eq!((&answer["passed"], &answer["cached"]), (&json!(2), &json!(2)));
    assert!(text.starts_with("2 tests: 2 passed, all cached (saved "), "{text}");
    assert_eq!(client.close().status.code(), Some(0));
}

#[test]
fn single_tests_of_pytest_run_and_are_cached_by_themselves() {
    let tests = "def test_good():\n    pass\n\ndef test_reads():\n    assert open('a.txt').read() == '1'\n";
    let Some(suite) = Suite::new(&[("test_a.py", tests), ("a.txt", "2"), ("pytest.ini", "[pytest]\n")])
    else {
        return;
    };
    let mut client = start(&suite.dir);
    let per_test = json!({"per_test": true});
    let (answer, text) = client.ask("run_tests", &per_test);
    assert_eq!((&answer["tests"], &answer["passed"], &answer["failed"]), (&json!(2), &json!(1), &json!(1)));
    let failure = &answer["failures"][0];
    assert_eq!((&failure["file"], &failure["line"]), (&json!("test_a.py"), &json!(5)), "{answer}");
    assert!(failure["name"].as_str().unwrap().ends_with("test_a.py::test_reads"), "{answer}");
    assert!(text.contains("AssertionError: assert '2' == '1'"), "{text}");
    // Only the test that reads the edited file runs again.
    suite.dir.write("p/a.txt", "1");
    let (answer, _) = client.ask("run_tests", &per_test);
    assert_eq!((&answer["passed"], &answer["cached"]), (&json!(2), &json!(1)), "{answer}");
    // Without `per_test`, the file is one test, whose result is stored separately.
    let (answer, _) = client.ask("run_tests", &json!({}));
    assert_eq!((&answer["tests"], &answer["passed"]), (&json!(1), &json!(1)), "{answer}");
}

#[test]
fn progress_is_reported_if_the_client_asks_for_it() {
    let dir = project();
    let mut client = start(&dir);
    let id = client.begin("tools/call", &json!({"name": "run_tests", "_meta": {"progressToken": "t"}}));
    let response = client.response(id);
    assert_eq!(response["result"]["structuredContent"]["tests"], 2, "{response}");
    let last = client.notifications.last().expect("a notification");
    assert_eq!(
        (&last["method"], &last["params"]["progressToken"]),
        (&json!("notifications/progress"), &json!("t"))
    );
    assert_eq!(last["params"]["total"], 2.0, "{last}");
    client.ask("run_tests", &json!({"filters": ["check"]}));
    assert_eq!(client.notifications, [Value::Null; 0]);
}

#[test]
fn tests_are_listed_and_explained_without_running_them() {
    let dir = project();
    let mut client = start(&dir);
    let (listed, _) = client.ask("list_tests", &json!({}));
    let states = |listed: &Value| {
        let tests = listed["tests"].as_array().unwrap().clone();
        tests.iter().map(|test| test["state"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!((states(&listed), &listed["total"]), (vec!["to_run".to_owned(); 2], &json!(2)));
    client.ask("run_tests", &json!({}));
    let (listed, text) = client.ask("list_tests", &json!({"limit": 1, "offset": 1}));
    assert_eq!((states(&listed), &listed["cached"]), (vec!["cached".to_owned()], &json!(1)));
    assert_eq!(text, "cached   read b\n2 tests, 1 cached");
    let (first, _) = client.ask("list_tests", &json!({"limit": 1}));
    assert_eq!(first["next_offset"], 1);
    dir.write("p/b.txt", "c\n");
    let (why, text) = client.ask("why_rerun", &json!({"test": "read"}));
    assert_eq!(
        (&why["test"], &why["cached"], &why["changes"]),
        (&json!("read b"), &json!(false), &json!(["input b.txt was changed (read by `cat b.txt`)"]))
    );
    assert!(text.contains("b.txt"), "{text}");
}

#[test]
fn whole_outputs_and_the_last_report_are_resources() {
    let dir = project();
    let mut client = start(&dir);
    let read = |client: &mut Client, uri: &str| client.request("resources/read", &json!({"uri": uri}));
    let none = read(&mut client, "greenwave://report");
    assert_eq!(none["error"]["message"], "no output or report at greenwave://report");
    let (answer, _) = client.ask("run_tests", &json!({}));
    let failed = read(&mut client, answer["failures"][0]["output"].as_str().unwrap());
    assert_eq!(failed["result"]["contents"][0]["text"], "check.sh:2: want 1, got 2\n");
    let report = read(&mut client, "greenwave://report")["result"]["contents"][0]["text"].clone();
    let report: Value = serde_json::from_str(report.as_str().unwrap()).unwrap();
    assert_eq!((&report["results"][0]["name"], &report["failed"]), (&json!("check a"), &json!(1)));
    // A new server has run nothing, and finds the output of the cached result.
    let mut other = start(&dir);
    let cached = read(&mut other, "greenwave://output/read%20b");
    assert_eq!(cached["result"]["contents"][0]["text"], "b\n");
    let listed = other.request("resources/templates/list", &json!({}));
    assert_eq!(listed["result"]["resourceTemplates"][0]["uriTemplate"], "greenwave://output/{test}");
}

#[test]
fn affected_tests_and_the_history_are_shown() {
    let dir = project();
    let git = |args: &[&str]| {
        let mut command = std::process::Command::new("git");
        command.args(["-c", "user.name=t", "-c", "user.email=t@example.com"]).args(args);
        Program::of(command).within(&dir.path("p")).run().with_code(0);
    };
    git(&["init", "--quiet"]);
    git(&["add", "."]);
    git(&["commit", "--quiet", "-m", "start"]);
    let mut client = start(&dir);
    client.ask("run_tests", &json!({}));
    assert_eq!(client.ask("affected", &json!({})).0["tests"], json!([]));
    dir.write("p/b.txt", "c\n");
    let (affected, text) = client.ask("affected", &json!({"since": "HEAD"}));
    assert_eq!(affected["tests"], json!(["read b"]));
    assert_eq!(text, "read b\n1 test may read files changed since HEAD");
    let (answer, _) = client.ask("run_tests", &json!({"affected_since": "HEAD"}));
    assert_eq!(answer["tests"], 1);
    let (history, text) = client.ask("test_history", &json!({"filters": ["check"]}));
    assert_eq!(history["tests"][0]["failed_last"], true, "{history}");
    assert!(text.contains("Failed in their last run:\n  check a: "), "{text}");
}

#[test]
fn mistakes_are_answers_that_a_model_can_correct() {
    let dir = project();
    let mut client = start(&dir);
    let mut check = |tool: &str, arguments: Value, expected: &str| {
        let result = client.call(tool, &arguments);
        assert_eq!(result["isError"], true, "{result}");
        assert_eq!(text(&result), expected);
    };
    check("run_tests", json!({"filter": "a"}), "unknown argument `filter`: see the tool's input schema");
    check("run_tests", json!({"fail_fast": 1}), "invalid value 1 for `fail_fast`: expected true or false");
    check("why_rerun", json!({}), "missing argument `test`: expected a text");
    check(
        "run_tests",
        json!({"filters": ["zzz"]}),
        "error: unknown test `zzz`: expected part of the name of one of `check a`, `read b`",
    );
    let unknown = client.request("tools/call", &json!({"name": "run"}));
    assert_eq!(unknown["error"]["message"], "unknown tool `run`");
}

#[test]
fn a_cancelled_call_ends_everything_that_it_started() {
    let test = "[[test]]\nname = \"slow\"\ncommand = [\"sh\", \"slow.sh\"]\ninputs = [\"slow.sh\"]\n";
    let dir = TestDir::empty().with("p/greenwave.toml", test);
    let started = dir.path("started");
    let script = format!("sleep 100 & echo $! > '{0}.new'; mv '{0}.new' '{0}'; wait\n", started.display());
    dir.write("p/slow.sh", script);
    let mut client = start(&dir);
    let id = client.begin("tools/call", &json!({"name": "run_tests"}));
    wait_for("the test to start", || started.exists());
    let process = dir.read("started").trim().to_owned();
    let is_running = || Path::new("/proc").join(&process).exists();
    assert!(is_running());
    client.notify("notifications/cancelled", &json!({"requestId": id, "reason": "enough"}));
    wait_for("the test to end", || !is_running());
    // The server works on, and does not answer the cancelled request.
    dir.write("p/slow.sh", "exit 0\n");
    assert_eq!(client.ask("run_tests", &json!({})).0["passed"], 1);
}

fn wait_for(what: &str, condition: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !condition() {
        assert!(Instant::now() < deadline, "waited too long for {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Takes long enough for all agents to ask for it while it runs.
const SHARED: &str = r#"
    [[test]]
    name = "shared"
    command = "cat a.txt; sleep 0.3"
    inputs = ["a.txt"]
"#;

#[test]
fn eight_agents_on_worktrees_run_a_test_once() {
    let dir = TestDir::empty();
    let worktrees: Vec<String> = (0..8).map(|number| format!("w{number}")).collect();
    for worktree in &worktrees {
        dir.write(&format!("{worktree}/greenwave.toml"), SHARED);
        dir.write(&format!("{worktree}/a.txt"), "a\n");
    }
    let mut clients: Vec<Client> = worktrees.iter().map(|worktree| start_in(&dir, worktree)).collect();
    let call = json!({"name": "run_tests"});
    let ids: Vec<u64> = clients.iter_mut().map(|client| client.begin("tools/call", &call)).collect();
    let answers = clients.iter_mut().zip(ids).map(|(client, id)| client.response(id));
    let answers: Vec<Value> = answers.map(|answer| answer["result"]["structuredContent"].clone()).collect();
    assert!(answers.iter().all(|answer| answer["passed"] == 1), "{answers:?}");
    // A result that another process has just stored is cached.
    assert_eq!(answers.iter().filter(|answer| answer["cached"] == 1).count(), 7, "{answers:?}");
}
