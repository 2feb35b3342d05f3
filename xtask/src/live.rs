//! Runs a plan with real coding programs from npm, and with model servers, and lets programs call
//! `greenwave mcp`. All are answered by scripted servers. Needs npm, git and a registry, but no key
//! and no account.

mod clients;
mod responses;

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use serde_json::{Value, json};

use self::clients::{CLIENTS, Client};
use crate::Result;
use crate::process::{cargo, output_of, root, run_visibly};

/// The server: it speaks the formats of several model providers.
const SERVER: &str = "@copilotkit/aimock@1.43.0";

const CLAUDE_CODE: &str = "@anthropic-ai/claude-code@2.1.197";
const CODEX: &str = "@openai/codex@0.171.0";

/// A coding program, or an interface of model servers.
struct Program {
    kind: &'static str,
    work: Work,
}

/// The way in which files are written.
enum Work {
    /// A program of a package runs a command by a tool with one parameter.
    Shell { package: &'static str, tool: [&'static str; 2] },
    /// Greenwave itself writes a file for a model, with these lines in the plan.
    Tools { agent: &'static str },
}

const PROGRAMS: [Program; 5] = [
    Program { kind: "claude", work: Work::Shell { package: CLAUDE_CODE, tool: ["Bash", "command"] } },
    Program { kind: "codex", work: Work::Shell { package: CODEX, tool: ["exec_command", "cmd"] } },
    Program {
        kind: "chat",
        work: Work::Tools { agent: "kind = \"openai\"\nmodel = \"gpt-4o\"\nbase_url = \"ADDRESS/v1\"\n" },
    },
    Program {
        kind: "responses",
        work: Work::Tools {
            agent: "kind = \"openai\"\nmodel = \"gpt-5\"\nbase_url = \"ADDRESS/v1\"\napi = \"responses\"\n",
        },
    },
    Program {
        kind: "messages",
        work: Work::Tools {
            agent: "kind = \"anthropic\"\nmodel = \"claude-sonnet-4-5\"\nbase_url = \"ADDRESS\"\n",
        },
    },
];

/// The features. The first answer for the second one fails its test.
const FEATURES: [&str; 3] = ["one", "two", "three"];

/// Runs the plan with each program of these kinds, or with all of them. Kinds that begin with
/// `mcp-` are programs that call `greenwave mcp`.
///
/// # Errors
/// If a program or the server cannot be installed, or if a run has another result than expected.
pub(crate) fn live(kinds: &[String]) -> Result<String> {
    let of_client = |client: &Client| format!("mcp-{}", client.name);
    let names: Vec<String> =
        PROGRAMS.iter().map(|it| it.kind.to_owned()).chain(CLIENTS.iter().map(of_client)).collect();
    if let Some(unknown) = kinds.iter().find(|kind| !names.contains(kind)) {
        return Err(format!("invalid kind `{unknown}`: expected one of {}", names.join(", ")).into());
    }
    let is_wanted = |name: &str| kinds.is_empty() || kinds.iter().any(|kind| kind == name);
    run_visibly(&mut cargo(["build", "--quiet", "--package=greenwave-cli", "--features=http-agents,mcp"]))?;
    let base = target().join("live");
    let server = install(&base, SERVER)?.join("llmock");
    let mut lines = Vec::new();
    for program in PROGRAMS.iter().filter(|program| is_wanted(program.kind)) {
        let directory = base.join(program.kind);
        let binaries = match program.work {
            Work::Shell { package, .. } => install(&base, package)?,
            Work::Tools { .. } => directory.clone(),
        };
        lines.push(run(program, &directory, &binaries, &server)?);
    }
    for client in CLIENTS.iter().filter(|client| is_wanted(&of_client(client))) {
        lines.push(clients::run(client, &base, &server)?);
    }
    Ok(format!("live: {}", lines.join("; ")))
}

/// Returns cargo's target directory.
fn target() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), |path| root().join(path))
}

/// Installs a package once, and returns the directory of its programs.
fn install(base: &Path, package: &str) -> Result<PathBuf> {
    let directory = base.join("npm").join(package.replace(['/', '@'], "-"));
    let binaries = directory.join("node_modules/.bin");
    if !binaries.exists() {
        fs::create_dir_all(&directory)?;
        let arguments = ["install", "--no-fund", "--no-audit", "--prefix", "."];
        output_of(Command::new("npm").args(arguments).arg(package).current_dir(&directory))?;
    }
    Ok(binaries)
}

/// A running server, which is killed when this is dropped.
struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Server {
    /// Starts the server on a free port, and returns its address.
    fn start(program: &Path, answers: &Path) -> Result<(Self, String)> {
        let mut command = Command::new(program);
        command.args(["-p", "0", "-f"]).arg(answers).arg("--strict");
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::inherit());
        let mut server = Self(command.spawn()?);
        let output = server.0.stdout.take().ok_or("the server has no output")?;
        for line in BufReader::new(output).lines() {
            if let Some((_, address)) = line?.split_once("listening on ") {
                return Ok((server, address.trim().to_owned()));
            }
        }
        Err("the server ended before it listened".into())
    }
}

fn run(program: &Program, directory: &Path, binaries: &Path, server: &Path) -> Result<String> {
    let _ = fs::remove_dir_all(directory);
    let project = directory.join("project");
    fs::create_dir_all(&project)?;
    let home = directory.join("home");
    fs::create_dir_all(home.join(".codex"))?;
    fs::write(directory.join("answers.json"), answers(program).to_string())?;
    let (_server, address) = Server::start(server, &directory.join("answers.json"))?;
    fs::write(project.join("README"), "")?;
    for arguments in [
        &["init", "--quiet"][..],
        &["add", "README"],
        &["-c", "user.name=a", "-c", "user.email=a@example.com", "commit", "--quiet", "-m", "base"],
    ] {
        output_of(Command::new("git").args(arguments).current_dir(&project))?;
    }
    fs::write(directory.join("plan.toml"), plan(program, &address))?;
    fs::write(home.join(".codex/config.toml"), codex_settings(&address))?;
    let path = std::env::var("PATH").unwrap_or_default();
    let mut command = Command::new(target().join("debug/greenwave"));
    command.args(["run", "plan.toml", "--no-metrics", "--format", "json"]).current_dir(directory);
    command.env("PATH", format!("{}:{path}", binaries.display())).env("HOME", &home);
    command.env("XDG_STATE_HOME", directory.join("state")).env("ANTHROPIC_API_KEY", "none");
    command.env("LOCAL_KEY", "none").stdin(Stdio::null());
    let output = output_of(&mut command)?;
    let last = output.lines().last().unwrap_or_default();
    let report: Value = serde_json::from_str(last)?;
    let attempts: Vec<u64> = report["features"]
        .as_array()
        .into_iter()
        .flatten()
        .filter(|feature| feature["phase"] == "green")
        .filter_map(|feature| feature["attempts"].as_u64())
        .collect();
    let files = FEATURES.map(|feature| fs::read_to_string(project.join(feature)).unwrap_or_default());
    if attempts != [1, 2, 1] || files.iter().any(|text| text != "right\n") {
        return Err(format!("{}: expected three green features: {last}", program.kind).into());
    }
    Ok(format!(
        "{} made {} features green with {} attempts",
        program.kind,
        files.len(),
        attempts.iter().sum::<u64>()
    ))
}

/// Returns the answers of the server. Each begins with a tool call, and ends after its result.
fn answers(program: &Program) -> Value {
    let answer = |prompt: &str, word: &str, feature: &str| {
        let (name, arguments) = match program.work {
            Work::Shell { tool: [name, parameter], .. } => {
                (name, json!({ parameter: format!("echo {word} > {feature}") }))
            }
            Work::Tools { .. } => ("write", json!({ "path": feature, "content": format!("{word}\n") })),
        };
        let arguments = arguments.to_string();
        let call = json!({ "name": name, "arguments": arguments });
        json!({
            "match": { "userMessage": prompt, "hasToolResult": false },
            "response": { "content": "I will write the file.", "toolCalls": [call] },
        })
    };
    let mut all = vec![answer("attempt 2 of", "right", "two")];
    all.extend(FEATURES.map(|feature| {
        answer(&format!("Write {feature}."), if feature == "two" { "wrong" } else { "right" }, feature)
    }));
    all.push(json!({
        "match": { "userMessage": "Write", "hasToolResult": true },
        "response": { "content": "Done." },
    }));
    json!({ "fixtures": all })
}

fn plan(program: &Program, address: &str) -> String {
    let kind = program.kind;
    let agent = match program.work {
        Work::Shell { .. } => format!("kind = {kind:?}\n"),
        Work::Tools { agent } => format!("{}mode = \"tools\"\n", agent.replace("ADDRESS", address)),
    };
    let mut plan = format!("project = \"project\"\n[agents.coder]\n{agent}");
    if kind == "claude" {
        // The server knows no other model, and Claude Code refuses to work for root elsewhere.
        plan.push_str(&format!(
            "model = \"claude-sonnet-4-5\"\n\
             env = {{ ANTHROPIC_BASE_URL = {address:?}, MAX_THINKING_TOKENS = \"0\", IS_SANDBOX = \"1\" }}\n"
        ));
    }
    for feature in FEATURES {
        plan.push_str(&format!(
            "[[features]]\nid = {feature:?}\nprompt = \"Write {feature}.\"\nagent = \"coder\"\n\
             [[features.tests]]\ncommand = [\"grep\", \"-q\", \"right\", {feature:?}]\n\
             inputs = [{feature:?}]\n"
        ));
    }
    plan
}

fn codex_settings(address: &str) -> String {
    format!(
        "model = \"gpt-5\"\nmodel_provider = \"local\"\n[model_providers.local]\nname = \"local\"\n\
         base_url = \"{address}/v1\"\nenv_key = \"LOCAL_KEY\"\nwire_api = \"responses\"\n\
         request_max_retries = 1\nstream_max_retries = 1\n"
    )
}
