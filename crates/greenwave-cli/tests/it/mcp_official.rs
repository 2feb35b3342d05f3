//! `greenwave mcp` with programs of the protocol's authors: the inspector's command line, and a
//! client of the official library, which checks answers against the output schemas.

use std::path::{Path, PathBuf};
use std::process::Command;

use greenwave_testkit::service::skip;
use serde_json::{Value, json};

use crate::mcp::project;
use crate::program::{Finished, Program};
use crate::shell_plan::{self, ShellFeature};
use crate::test_dir::TestDir;

/// Calls each tool once, in the order of the arguments, and prints the results.
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
console.log(JSON.stringify({ tools: tools.map((tool) => tool.name), results }));
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

#[test]
fn the_official_inspector_lists_the_tools() {
    let Some(modules) = modules() else { return };
    let inspector = modules.join(INSPECTOR).display().to_string();
    let args = [inspector.as_str(), env!("CARGO_BIN_EXE_greenwave"), "mcp", "--method", "tools/list"];
    let listed = run_node(&project(), &args).stdout;
    let listed: Value = serde_json::from_str(&listed).unwrap();
    let tools: Vec<&str> =
        listed["tools"].as_array().unwrap().iter().map(|tool| tool["name"].as_str().unwrap()).collect();
    assert_eq!(tools, TOOLS);
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
    let dir = project();
    dir.write("client.mjs", CLIENT);
    let feature = ShellFeature::new("one", "answer one.txt yes", "grep -q yes one.txt");
    dir.write("p/plan.toml", shell_plan::unconfined(&[feature]));
    dir.write("p/project/keep.txt", "");
    Program::of(git(&["init", "--quiet"])).within(&dir.path("p")).run().with_code(0);
    let commit = ["-c", "user.name=t", "-c", "user.email=t@example.com", "commit", "--allow-empty", "-mx"];
    Program::of(git(&commit)).within(&dir.path("p")).run().with_code(0);
    let plan = json!({"plan": "plan.toml"});
    let calls = json!([
        ["run_tests", {}],
        ["list_tests", {}],
        ["why_rerun", {"test": "check a"}],
        ["affected", {}],
        ["test_history", {}],
        ["run_plan", plan],
        ["plan_status", plan],
        ["attempts", {"plan": "plan.toml", "number": 1}],
        ["attempt_diff", {"plan": "plan.toml", "feature": "one", "from": 1, "to": 1}],
    ]);
    let called: Vec<&Value> = calls.as_array().unwrap().iter().map(|call| &call[0]).collect();
    assert_eq!(called, TOOLS);
    let script = dir.path("client.mjs").display().to_string();
    let modules = modules.display().to_string();
    let server = env!("CARGO_BIN_EXE_greenwave");
    let args = [script.as_str(), &modules, server, &calls.to_string()];
    let printed = run_node(&dir, &args).stdout;
    let printed: Value = serde_json::from_str(&printed).unwrap();
    let results = printed["results"].as_array().unwrap();
    assert!(results.iter().all(|result| result["isError"] != true), "{printed:#}");
    assert_eq!(results[0]["structuredContent"]["failures"][0]["line"], 2, "{printed:#}");
}

fn git(args: &[&str]) -> Command {
    let mut command = Command::new("git");
    command.args(args);
    command
}
