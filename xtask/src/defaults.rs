//! Checks that the program with its default features names the feature that is missing.
//!
//! `cargo test` enables these features for the program.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::process::cargo;
use crate::{Result, profiles};

/// A test that passes, which is the settings file of a project.
const SETTINGS: &str = "[[test]]\nname = \"passes\"\ncommand = [\"true\"]\ninputs = []\n";

/// Arguments of the program, the exit code, and a part of its standard error. An address of a
/// server that cannot be used fails no test.
const EXPECTED: [(&[&str], i32, &str); 5] = [
    (&["test", "--remote", "redis://:hunter2@127.0.0.1:1"], 0, "the feature `remote` is disabled"),
    (&["test", "--remote", "memcached://127.0.0.1:1"], 0, "--features remote"),
    (&["test", "--remote", "s3://bucket/results"], 0, "the feature `remote` is disabled"),
    (&["test", "--remote", "grpc://127.0.0.1:1"], 0, "--features remote-reapi"),
    (&["mcp"], 2, "--features mcp"),
];

/// Builds the program without warnings and runs it with each of these arguments.
///
/// # Errors
/// If the compiler warns, or an exit code or a message differs.
pub(crate) fn defaults() -> Result<String> {
    let program = profiles::build()?;
    check_warnings()?;
    let directory = tempfile::tempdir()?;
    let project = directory.path().join("project");
    fs::create_dir(&project)?;
    fs::write(project.join("greenwave.toml"), SETTINGS)?;
    for (args, code, expected) in EXPECTED {
        check(&program, directory.path(), args, code, expected)?;
    }
    Ok(format!("defaults: {} commands name the feature that they need", EXPECTED.len()))
}

/// Clippy sees only the features that tests enable. Cargo repeats the warnings of an earlier build.
fn check_warnings() -> Result<()> {
    let output = cargo(["build", "--locked", "--package=greenwave-cli"]).output()?;
    let messages = String::from_utf8_lossy(&output.stderr);
    if messages.lines().any(|line| line.starts_with("warning:")) {
        return Err(format!("the default build has warnings:\n{messages}").into());
    }
    Ok(())
}

fn check(program: &Path, directory: &Path, args: &[&str], code: i32, expected: &str) -> Result<()> {
    let mut command = Command::new(program);
    command.args(args).current_dir(directory.join("project")).stdin(Stdio::null());
    command.env("XDG_CACHE_HOME", directory.join("cache")).env("XDG_STATE_HOME", directory.join("state"));
    let output = command.output()?;
    let errors = String::from_utf8_lossy(&output.stderr);
    if output.status.code() != Some(code) || !errors.contains(expected) || errors.contains("hunter2") {
        let args = args.join(" ");
        let problem =
            format!("expected exit code {code} and a message with `{expected}`, without the password");
        return Err(format!("greenwave {args}: {}: {problem}\n{errors}", output.status).into());
    }
    Ok(())
}
