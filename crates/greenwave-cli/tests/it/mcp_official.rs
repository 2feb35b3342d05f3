//! `greenwave mcp` with programs of the protocol's authors: the inspector's command line, and a
//! client of the official library, which checks answers against the output schemas.

use std::path::{Path, PathBuf};
use std::process::Command;

use greenwave_testkit::service::skip;
use serde_json::{Value, json};

use crate::mcp::project;
use crate::mcp_http::Server;
use crate::program::{Finished, Program};
use crate::shell_plan::{self, ShellFeature};
use crate::test_dir::TestDir;

/// Calls each tool once, in the order of the arguments, and prints the results and the last report.
const CLIENT: &str = r#"
import { createRequire } from "node:module";
const [modules, program, calls] = process.argv.slice(2);
const require = createRequire(modules + "/@modelcontextprotocol/sdk/package.json");
const { Client } = require("@modelcontextprotocol/sdk/client/index.js");
const { StdioClientTransport } = require("@modelcontextprotocol/sdk/client/stdio.js");
const client = new Client({ name: "test", version: "1" });
const env = { ...process.env };
await client.connect(new StdioClientTransport({ command: program, args: ["mcp"], env }));
const { tools } = await client.listTools();
const results = [];
for (const [name, arguments_] of JSON.parse(calls)) {
  results.push(await client.callTool({ name, arguments: arguments_ }));
}
const report = await client.readResource({ uri: "greenwave://report" });
console.log(JSON.stringify({ tools: tools.map((tool) => tool.name), results, report }));
await client.close();
"#;

/// The inspector's command line in the directory `node_modules`.
const INSPECTOR: &str = "@modelcontextprotocol/inspector-cli/build/index.js";

/// Returns the directory `node_modules` in which `.ci/run` has installed the inspector.
fn modules() -> Option<PathBuf> {
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent()?;
    let found = target.join("ci-mcp/node_modules");
    if found.join(INSPECTOR).exists() {
        return Some(found);
    }
    skip("npm has not installed @modelcontextprotocol/inspector-cli in target/ci-mcp");
    None
}

fn run_node(dir: &TestDir, args: &[&str]) -> Finished {
    let mut command = Command::new("node");
    command.args(args);
    Program::of(command)
        .within(&dir.path("p"))
        .variable("XDG_STATE_HOME", dir.path(crate::test_dir::STATE))
        .variable("XDG_CACHE_HOME", dir.path("cache"))
        .run()
        .with_code(0)
}

/// Calls a method by the inspector's command line, which starts a server or connects to a URL.
fn inspect(dir: &TestDir, target: &[&str], options: &[&str]) -> Option<Value> {
    let inspector = modules()?.join(INSPECTOR).display().to_string();
    let printed = run_node(dir, &[&[inspector.as_str()], target, options].concat()).stdout;
    Some(serde_json::from_str(&printed).unwrap_or_else(|error| panic!("{error}: {printed}")))
}

/// The command of a server for the inspector to start.
const SERVER: [&str; 2] = [env!("CARGO_BIN_EXE_greenwave"), "mcp"];

#[test]
fn the_official_inspector_lists_the_tools_and_resources() {
    let dir = project();
    let Some(listed) = inspect(&dir, &SERVER, &["--method", "tools/list"]) else { return };
    let tools = listed["tools"].as_array().unwrap().iter();
    assert_eq!(tools.map(|tool| tool["name"].as_str().unwrap()).collect::<Vec<_>>(), TOOLS);
    let resources = inspect(&dir, &SERVER, &["--method", "resources/list"]).unwrap();
    assert_eq!(resources["resources"][0]["uri"], "greenwave://report", "{resources:#}");
    let templates = inspect(&dir, &SERVER, &["--method", "resources/templates/list"]).unwrap();
    let template = &templates["resourceTemplates"][0]["uriTemplate"];
    assert_eq!(template, "greenwave://output/{test}", "{templates:#}");
}

#[test]
fn the_official_inspector_calls_every_tool_and_reads_outputs() {
    let dir = project_with_plan();
    let mut called = Vec::new();
    for (tool, arguments, key, expected) in calls() {
        let pairs: Vec<String> = arguments.as_object().unwrap().iter().map(pair).collect();
        let mut options = vec!["--method", "tools/call", "--tool-name", tool];
        if !pairs.is_empty() {
            options.push("--tool-arg");
        }
        options.extend(pairs.iter().map(String::as_str));
        let Some(result) = inspect(&dir, &SERVER, &options) else { return };
        assert_eq!(result["isError"], false, "{tool}: {result:#}");
        assert_eq!(result["structuredContent"].pointer(key), Some(&expected), "{tool}: {result:#}");
        called.push(tool);
    }
    assert_eq!(called, TOOLS);
    let read = ["--method", "resources/read", "--uri", "greenwave://output/read%20b"];
    let read = inspect(&dir, &SERVER, &read).unwrap();
    assert_eq!(read["contents"][0]["text"], "b\n", "{read:#}");
}

/// Returns an argument of a tool as the inspector expects it. Texts have no quotes.
fn pair((key, value): (&String, &Value)) -> String {
    let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    format!("{key}={text}")
}

#[test]
fn the_official_inspector_calls_tools_over_http() {
    let dir = project();
    let server = Server::start(&dir, &[]);
    let options = ["--method", "tools/call", "--tool-name", "run_tests"];
    let Some(result) = inspect(&dir, &[server.url()], &options) else { return };
    assert_eq!(result["structuredContent"]["failures"][0]["line"], 2, "{result:#}");
}

/// Creates a project with tests, a plan and a commit, after which its files were added.
fn project_with_plan() -> TestDir {
    let dir = project();
    let feature = ShellFeature::new("one", "answer one.txt yes", "grep -q yes one.txt");
    dir.write("p/plan.toml", shell_plan::unconfined(&[feature]));
    dir.write("p/project/keep.txt", "");
    Program::of(git(&["init", "--quiet"])).within(&dir.path("p")).run().with_code(0);
    let commit = ["-c", "user.name=t", "-c", "user.email=t@example.com", "commit", "--allow-empty", "-mx"];
    Program::of(git(&commit)).within(&dir.path("p")).run().with_code(0);
    dir
}

/// A call of each tool, in the order in which they are listed, with a part of the answer.
fn calls() -> Vec<(&'static str, Value, &'static str, Value)> {
    let plan = json!({"plan": "plan.toml"});
    let first = json!({"plan": "plan.toml", "feature": "one", "number": 1});
    let between = json!({"plan": "plan.toml", "feature": "one", "from": 1, "to": 1});
    vec![
        ("run_tests", json!({}), "/failures/0/line", json!(2)),
        ("list_tests", json!({"filters": ["read"], "limit": 1}), "/tests/0/state", json!("cached")),
        ("why_rerun", json!({"test": "check a"}), "/cached", json!(false)),
        ("affected", json!({"since": "HEAD"}), "/tests", json!(["check a", "read b"])),
        ("test_history", json!({"filters": ["check"]}), "/tests/0/failed_last", json!(true)),
        ("run_plan", plan.clone(), "/green", json!(1)),
        ("plan_status", plan, "/features/0/phase", json!("green")),
        ("attempts", first, "/attempts/0/files", json!(["one.txt"])),
        ("attempt_diff", between, "/bytes", json!(0)),
    ]
}

/// All tools, in the order in which they are listed.
const TOOLS: [&str; 9] = [
    "run_tests",
    "list_tests",
    "why_rerun",
    "affected",
    "test_history",
    "run_plan",
    "plan_status",
    "attempts",
    "attempt_diff",
];

#[test]
fn the_official_client_accepts_the_answer_of_every_tool() {
    let Some(modules) = modules() else { return };
    let dir = project_with_plan();
    dir.write("client.mjs", CLIENT);
    let calls: Vec<Value> =
        calls().into_iter().map(|(tool, arguments, ..)| json!([tool, arguments])).collect();
    let calls = Value::from(calls);
    let script = dir.path("client.mjs").display().to_string();
    let modules = modules.display().to_string();
    let server = env!("CARGO_BIN_EXE_greenwave");
    let args = [script.as_str(), &modules, server, &calls.to_string()];
    let printed = run_node(&dir, &args).stdout;
    let printed: Value = serde_json::from_str(&printed).unwrap();
    let results = printed["results"].as_array().unwrap();
    assert!(results.iter().all(|result| result["isError"] != true), "{printed:#}");
    assert_eq!(results[0]["structuredContent"]["failures"][0]["line"], 2, "{printed:#}");
    let report = printed["report"]["contents"][0]["text"].as_str().unwrap();
    let report: Value = serde_json::from_str(report).unwrap();
    assert_eq!(report["results"][0]["name"], "check a", "{printed:#}");
}

fn git(args: &[&str]) -> Command {
    let mut command = Command::new("git");
    command.args(args);
    command
}
