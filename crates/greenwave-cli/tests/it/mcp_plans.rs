//! Plans and their attempts over `greenwave mcp`.

use std::path::Path;

use serde_json::json;

use crate::mcp_client::{Client, text};
use crate::program::until;
use crate::shell_plan::{self, ShellFeature};
use crate::test_dir::TestDir;

fn start(dir: &TestDir) -> Client {
    Client::start(dir.greenwave(["mcp"]).variable("XDG_CACHE_HOME", dir.path("cache")))
}

#[test]
fn a_plan_runs_and_its_attempts_are_shown() {
    let dir = TestDir::with_project();
    let count = dir.path("count").display().to_string();
    let script = format!("echo x >> '{count}'; answer one.txt \"try $(wc -l < '{count}' | tr -d ' ')\"");
    let feature = ShellFeature::new("one", &script, "cat one.txt; grep -q 'try 2' one.txt").attempts(2);
    dir.write("plan.toml", shell_plan::unconfined(&[feature]));
    let mut client = start(&dir);
    let plan = json!({"plan": "plan.toml"});
    assert_eq!(client.ask("plan_status", &plan).0["state"], "not_finished");
    let (status, text_of_status) = client.ask("run_plan", &plan);
    assert_eq!((&status["state"], &status["green"]), (&json!("finished"), &json!(1)), "{status}");
    assert_eq!(status["rejected"][0]["attempt"], 1, "{status}");
    assert!(text_of_status.ends_with("finished: 1 of 1 green, 0 failed, 0 skipped"), "{text_of_status}");
    // The record of the run says the same as its events.
    let (recorded, _) = start(&dir).ask("plan_status", &plan);
    assert_eq!((&recorded["features"], &recorded["state"]), (&status["features"], &status["state"]));
    let (attempts, _) = client.ask("attempts", &plan);
    assert_eq!(attempts["attempts"].as_array().unwrap().len(), 2, "{attempts}");
    let second = json!({"plan": "plan.toml", "feature": "one", "number": 2});
    let (second, text_of_second) = client.ask("attempts", &second);
    assert!(second["attempts"][0]["diff"].as_str().unwrap().contains("+try 2"), "{second}");
    assert!(text_of_second.contains("diff:\n"), "{text_of_second}");
    let between = json!({"plan": "plan.toml", "feature": "one", "from": 1, "to": 2});
    let (between, _) = client.ask("attempt_diff", &between);
    assert!(between["diff"].as_str().unwrap().contains("-try 1\n+try 2"), "{between}");
    let missing = json!({"plan": "plan.toml", "feature": "one", "from": 1, "to": 7});
    assert_eq!(client.call("attempt_diff", &missing)["isError"], true);
    let invalid = client.call("run_plan", &json!({"plan": "missing.toml"}));
    assert!(text(&invalid).contains("cannot read plan"), "{invalid}");
}

#[test]
fn a_run_ends_with_its_call_and_with_its_server() {
    let dir = TestDir::with_project();
    let started = dir.path("started").display().to_string();
    let script = format!("echo $$ > '{started}.new'; mv '{started}.new' '{started}'; sleep 50");
    dir.write("plan.toml", shell_plan::unconfined(&[ShellFeature::new("one", &script, "cat one.txt")]));
    let mut client = start(&dir);
    let call = json!({"name": "run_plan", "arguments": {"plan": "plan.toml"}});
    let wait_for_agent = || {
        until("the agent", || Path::new(&started).exists());
        let process = Path::new("/proc").join(dir.read("started").trim());
        std::fs::remove_file(&started).unwrap();
        process
    };
    let id = client.begin("tools/call", &call);
    let agent = wait_for_agent();
    client.notify("notifications/cancelled", &json!({"requestId": id}));
    until("the end of the agent", || !agent.exists());
    let (status, _) = client.ask("run_plan", &json!({"plan": "plan.toml", "wait_seconds": 0}));
    assert_eq!(status["state"], "running");
    let agent = wait_for_agent();
    assert_eq!(client.close().status.code(), Some(0));
    until("the end of the agent", || !agent.exists());
}
