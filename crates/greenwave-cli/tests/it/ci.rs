//! The steps of the GitHub action and of the GitLab snippet in the documentation, as a runner
//! executes them.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use crate::program::until;
use crate::test_dir::TestDir;

fn workspace_file(path: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(path);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Returns the scripts of a key: `KEY: LINE`, `KEY: |` with an indented block, or a list.
fn scripts(yaml: &str, key: &str) -> Vec<String> {
    let lines: Vec<&str> = yaml.lines().collect();
    let indent = |line: &str| line.len() - line.trim_start().len();
    let mut found = Vec::new();
    for (at, line) in lines.iter().enumerate() {
        let Some(value) = line.trim_start().strip_prefix(key).and_then(|rest| rest.strip_prefix(':')) else {
            continue;
        };
        let below = lines[at + 1..].iter().take_while(|next| next.is_empty() || indent(next) > indent(line));
        let block: Vec<&str> = below.map(|next| next.trim_start()).collect();
        match value.trim() {
            "|" => found.push(block.join("\n")),
            "" => found.extend(block.iter().filter_map(|item| item.strip_prefix("- ")).map(str::to_owned)),
            script => found.push(script.to_owned()),
        }
    }
    found
}

/// Runs scripts one after another, each in a shell that ends at the first failure.
fn run(scripts: &[String], directory: &Path, variables: &[(&str, &Path)]) -> Output {
    let program = PathBuf::from(env!("CARGO_BIN_EXE_greenwave"));
    let path = std::env::join_paths(
        std::iter::once(program.parent().unwrap().to_owned())
            .chain(std::env::split_paths(&std::env::var_os("PATH").unwrap())),
    )
    .unwrap();
    let mut last = None;
    for script in scripts {
        let mut command = Command::new("bash");
        command.args(["-e", "-o", "pipefail", "-c", script]).current_dir(directory);
        command.env("PATH", &path).envs(variables.iter().copied()).env_remove("XDG_CACHE_HOME");
        let output = command.output().unwrap();
        assert!(output.status.success(), "{script}\n{output:?}");
        last = Some(output);
    }
    last.unwrap()
}

/// Returns a new clone of the project in `origin`.
fn clone(dir: &TestDir, name: &str) -> PathBuf {
    let git = |directory: &Path, arguments: &[&str]| {
        let identity = ["-c", "user.name=t", "-c", "user.email=t@localhost"];
        let output =
            Command::new("git").current_dir(directory).args(identity).args(arguments).output().unwrap();
        assert!(output.status.success(), "{output:?}");
    };
    let origin = dir.path("origin");
    if !origin.join(".git").exists() {
        git(&origin, &["init", "--quiet"]);
        git(&origin, &["add", "--all"]);
        git(&origin, &["commit", "--quiet", "--message", "one"]);
    }
    let target = dir.path(name);
    git(&origin, &["clone", "--quiet", origin.to_str().unwrap(), target.to_str().unwrap()]);
    target
}

fn project() -> TestDir {
    let tests = "[[test]]\nname = \"one\"\ncommand = [\"sh\", \"one.sh\"]\ninputs = [\"one.sh\"]\n";
    TestDir::empty()
        .with("origin/greenwave.toml", tests)
        .with("origin/one.sh", "echo ran")
        .with("home/x", "")
        .with("temp/x", "")
}

fn closing(output: &Output) -> String {
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.lines().last().unwrap_or_default().to_owned()
}

#[test]
fn the_action_uses_the_results_of_the_run_before() {
    let action = workspace_file(".github/actions/test/action.yml");
    let steps = scripts(&action, "run");
    assert_eq!(steps.len(), 2, "{steps:?}");
    // The step that stores the results names the directory that the tests use.
    assert_eq!(scripts(&action, "path"), ["${{ runner.temp }}/greenwave/results"]);
    let dir = project();
    let (temporary, home) = (dir.path("temp"), dir.path("home"));
    let action_path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../.github/actions/test");
    let run = |checkout: &Path, arguments: &str| {
        let arguments = Path::new(arguments).to_owned();
        let variables: [(&str, &Path); 4] = [
            ("RUNNER_TEMP", &temporary),
            ("HOME", &home),
            ("GITHUB_ACTION_PATH", &action_path),
            ("ARGUMENTS", &arguments),
        ];
        closing(&run(&steps, checkout, &variables))
    };
    let first = clone(&dir, "first");
    assert!(run(&first, "").starts_with("1 test: 1 passed"));
    until("the result is cached", || run(&first, "").contains("all cached"));
    let cached = run(&clone(&dir, "second"), "--output all one");
    assert!(cached.starts_with("1 test: 1 passed, all cached"), "{cached}");
    assert!(dir.read("temp/greenwave/junit.xml").contains("<testsuite"));
    let install = "cargo install --locked --path \"$GITHUB_ACTION_PATH/../../../crates/greenwave-cli\"";
    assert!(steps[0].contains(install), "{}", steps[0]);
    assert!(action_path.join("../../../crates/greenwave-cli/Cargo.toml").is_file());
}

#[test]
fn the_gitlab_snippet_uses_the_results_of_the_run_before() {
    let page = workspace_file("docs/ci.md");
    let snippet = page.split("## GitLab").nth(1).unwrap().split("```").nth(1).unwrap().to_owned();
    let lines = scripts(&snippet, "script");
    assert_eq!(lines.len(), 2, "{lines:?}");
    assert_eq!(scripts(&snippet, "paths"), [".greenwave-ci/results/"]);
    let dir = project();
    let home = dir.path("home");
    let run =
        |checkout: &Path| closing(&run(&lines, checkout, &[("CI_PROJECT_DIR", checkout), ("HOME", &home)]));
    let first = clone(&dir, "first");
    assert!(run(&first).starts_with("1 test: 1 passed"));
    until("the result is cached", || run(&first).contains("all cached"));
    // The runner stores and restores the cached paths.
    let checkout = clone(&dir, "second");
    fs::create_dir(checkout.join(".greenwave-ci")).unwrap();
    fs::rename(first.join(".greenwave-ci/results"), checkout.join(".greenwave-ci/results")).unwrap();
    let cached = run(&checkout);
    assert!(cached.starts_with("1 test: 1 passed, all cached"), "{cached}");
    assert!(fs::read_to_string(checkout.join(".greenwave-ci/junit.xml")).unwrap().contains("<testsuite"));
}
