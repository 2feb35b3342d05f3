//! Programs that call `greenwave mcp` with the settings that it prints: each runs the tests, sees a
//! failure, edits the file, and sees that the tests pass.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use super::responses::{self, Step};
use super::{Server, codex_settings, install, target};
use crate::Result;
use crate::process::output_of;

/// A program of a package.
pub(super) struct Client {
    /// Its name for `--print-config`.
    pub(super) name: &'static str,
    package: &'static str,
    program: &'static str,
    /// Name of the tool `run_tests`, as the program names it for models.
    run_tests: &'static str,
    /// The tool that reads the file, if the program wants that before an edit.
    read: Option<(&'static str, &'static str)>,
    /// The tool that edits the file, and its arguments. `FILE` stands for the path.
    edit: (&'static str, &'static str),
}

pub(super) const CLIENTS: [Client; 4] = [
    Client {
        name: "claude",
        package: super::CLAUDE_CODE,
        program: "claude",
        run_tests: "mcp__greenwave__run_tests",
        read: Some(("Read", r#"{"file_path":"FILE"}"#)),
        edit: ("Edit", r#"{"file_path":"FILE","old_string":"wrong","new_string":"right"}"#),
    },
    Client {
        name: "codex",
        package: super::CODEX,
        program: "codex",
        run_tests: "run_tests",
        read: None,
        edit: ("exec_command", r#"{"cmd":"sed -i s/wrong/right/ FILE"}"#),
    },
    Client {
        name: "opencode",
        package: "opencode-ai@1.18.33",
        program: "opencode",
        run_tests: "greenwave_run_tests",
        read: Some(("read", r#"{"filePath":"FILE"}"#)),
        edit: ("edit", r#"{"filePath":"FILE","oldString":"wrong","newString":"right"}"#),
    },
    Client {
        name: "gemini",
        package: "@google/gemini-cli@0.61.0",
        program: "gemini",
        run_tests: "mcp_greenwave_run_tests",
        read: None,
        edit: ("write_file", r#"{"file_path":"FILE","content":"right\n"}"#),
    },
];

/// The test prints [`FAILURE`] unless the file contains `right`.
const SETTINGS: &str = r#"[[test]]
name = "answer"
command = ["sh", "-c", "grep -q right answer.txt || { echo 'answer.txt:1: want a better one'; exit 1; }"]
inputs = ["answer.txt"]
"#;
const FAILURE: &str = "want a better one";
const GREEN: &str = "1 passed";
const PROMPT: &str = "Make the tests green.";
/// The last answer of the model, which it gives only after a result with [`GREEN`].
const END: &str = "The tests have passed.";
/// Name of the namespace that Codex has for the tools of the server.
const NAMESPACE: &str = "mcp__greenwave";
/// Maximum duration of a program, in seconds.
const SECONDS_MAX: &str = "180";

/// Lets a program repair a project, and returns a line about it.
///
/// # Errors
/// If the program did not see the failure, did not edit the file, or did not see the tests pass.
pub(super) fn run(client: &Client, base: &Path, server: &Path) -> Result<String> {
    let name = client.name;
    let binaries = match install(base, client.package) {
        Ok(binaries) => binaries,
        Err(error) => return Ok(format!("mcp-{name} cannot be installed: {error}")),
    };
    let directory = base.join(format!("mcp-{name}"));
    let _ = fs::remove_dir_all(&directory);
    let (project, home) = (directory.join("project"), directory.join("home"));
    fs::create_dir_all(&project)?;
    fs::create_dir_all(&home)?;
    output_of(Command::new("git").args(["init", "--quiet"]).current_dir(&project))?;
    let file = project.join("answer.txt");
    fs::write(&file, "wrong\n")?;
    fs::write(project.join("greenwave.toml"), SETTINGS)?;
    let answers = directory.join("answers.json");
    fs::write(&answers, fixtures(client, &file).to_string())?;
    let (_server, address) = if name == "codex" {
        (None, responses::start(decide_for_codex(client, &file))?)
    } else {
        let (server, address) = Server::start(server, &answers)?;
        (Some(server), address)
    };
    configure(client, [&project, &home], &address)?;
    let output = output_of(&mut command(client, &binaries, [&project, &home], &address))?;
    let text = fs::read_to_string(&file)?;
    if text != "right\n" || !output.contains(END) {
        return Err(
            format!("mcp-{name}: expected an edited file and passed tests: {text:?}\n{output}").into()
        );
    }
    Ok(format!("mcp-{name} saw a failure, edited the file and saw the tests pass"))
}

/// Returns the answers of the server of others. Each decides by the last result of a tool.
fn fixtures(client: &Client, file: &Path) -> Value {
    let call = |words: &str, name: &str, arguments: &str| {
        let call = json!({"name": name, "arguments": arguments.replace("FILE", &file.display().to_string())});
        json!({"content": words, "toolCalls": [call]})
    };
    let edit = call("I will edit the file.", client.edit.0, client.edit.1);
    let run = || call("I will run the tests.", client.run_tests, "{}");
    let mut all = Vec::new();
    let mut answer = |condition: Value, response: Value| {
        let mut condition = condition;
        condition["userMessage"] = json!(PROMPT);
        all.push(json!({"match": condition, "response": response}));
    };
    match client.read {
        Some((name, arguments)) => {
            let read = call("I will read the file.", name, arguments);
            answer(json!({"toolResultContains": FAILURE}), read);
            answer(json!({"toolResultContains": "wrong"}), edit);
        }
        None => answer(json!({"toolResultContains": FAILURE}), edit),
    }
    answer(json!({"toolResultContains": GREEN}), json!({"content": END}));
    answer(json!({"hasToolResult": false}), run());
    // The result of the edit. A second one ends the program.
    answer(json!({"hasToolResult": true, "sequenceIndex": 0}), run());
    answer(json!({"hasToolResult": true}), json!({"content": "This result was not expected."}));
    json!({"fixtures": all})
}

/// Returns the steps of the same model for Codex.
fn decide_for_codex(client: &Client, file: &Path) -> impl Fn(Option<&str>) -> Step + Send + 'static {
    let (name, arguments) = (client.edit.0, client.edit.1.replace("FILE", &file.display().to_string()));
    let run_tests = client.run_tests;
    move |result| match result {
        Some(result) if result.contains(FAILURE) => {
            Step::Call { namespace: None, name, arguments: arguments.clone() }
        }
        Some(result) if result.contains(GREEN) => Step::Text(END),
        // A call that Codex does not know would repeat indefinitely.
        Some(result) if result.contains("unsupported") => Step::Text("This result was not expected."),
        _ => Step::Call { namespace: Some(NAMESPACE), name: run_tests, arguments: "{}".to_owned() },
    }
}

/// Writes the settings that `greenwave mcp --print-config` prints into the file of the program,
/// with those of a model on this machine.
fn configure(client: &Client, [project, home]: [&Path; 2], address: &str) -> Result<()> {
    let mut command = Command::new(target().join("debug/greenwave"));
    let printed = output_of(command.args(["mcp", "--print-config", client.name]))?;
    let write = |path: PathBuf, text: String| -> Result<()> {
        fs::create_dir_all(path.parent().ok_or("no directory")?)?;
        Ok(fs::write(path, text)?)
    };
    match client.name {
        "claude" => write(project.join(".mcp.json"), printed),
        "codex" => write(home.join(".codex/config.toml"), format!("{}{printed}", codex_settings(address))),
        "opencode" => {
            let mut settings: Value = serde_json::from_str(&printed)?;
            let options = json!({"baseURL": format!("{address}/v1"), "apiKey": "none"});
            settings["provider"] = json!({"local": {
                "npm": "@ai-sdk/openai-compatible", "name": "local", "options": options,
                "models": {"model": {"name": "model"}},
            }});
            settings["model"] = json!("local/model");
            settings["small_model"] = json!("local/model");
            settings["autoupdate"] = json!(false);
            write(project.join("opencode.json"), settings.to_string())
        }
        _ => {
            let key = json!({"security": {"auth": {"selectedType": "gemini-api-key"}}});
            write(home.join(".gemini/settings.json"), key.to_string())?;
            write(project.join(".gemini/settings.json"), printed)
        }
    }
}

/// Returns the call of a program without a terminal, in which it may call the tools.
fn command(client: &Client, binaries: &Path, [project, home]: [&Path; 2], address: &str) -> Command {
    let arguments: &[&str] = match client.name {
        "claude" => &[
            "-p",
            PROMPT,
            "--model",
            "claude-sonnet-4-5",
            "--permission-mode",
            "acceptEdits",
            "--mcp-config",
            ".mcp.json",
            "--allowedTools",
            "mcp__greenwave__run_tests",
        ],
        "codex" => &["exec", "--skip-git-repo-check", "--sandbox", "danger-full-access", PROMPT],
        "opencode" => &["run", PROMPT],
        _ => &["--approval-mode", "yolo", "-m", "gemini-2.5-flash", "-p", PROMPT],
    };
    let path = std::env::var("PATH").unwrap_or_default();
    let mut command = Command::new("timeout");
    command.arg(SECONDS_MAX).arg(binaries.join(client.program)).args(arguments).current_dir(project);
    // OpenCode believes the variable, which the shell of the user has set.
    command.stdin(Stdio::null()).env("HOME", home).env("PWD", project);
    command.env("PATH", format!("{}:{path}", target().join("debug").display()));
    for (name, directory) in [("XDG_CACHE_HOME", "cache"), ("XDG_STATE_HOME", "state")] {
        command.env(name, home.join(directory));
    }
    command.envs(variables(client, address));
    command
}

/// Returns the variables with which a program uses a model on this machine.
fn variables<'a>(client: &Client, address: &'a str) -> Vec<(&'static str, &'a str)> {
    match client.name {
        "claude" => vec![
            ("ANTHROPIC_BASE_URL", address),
            ("ANTHROPIC_API_KEY", "none"),
            ("CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC", "1"),
            ("DISABLE_AUTOUPDATER", "1"),
            ("MAX_THINKING_TOKENS", "0"),
            // It refuses to work for root elsewhere.
            ("IS_SANDBOX", "1"),
        ],
        "codex" => vec![("LOCAL_KEY", "none")],
        "opencode" => vec![("OPENCODE_DISABLE_AUTOUPDATE", "1"), ("OPENCODE_DISABLE_MODELS_FETCH", "1")],
        // It reads the settings of trusted directories only.
        _ => vec![
            ("GEMINI_API_KEY", "none"),
            ("GOOGLE_GEMINI_BASE_URL", address),
            ("GEMINI_CLI_TRUST_WORKSPACE", "true"),
        ],
    }
}
