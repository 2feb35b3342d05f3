//! Rules for cargo and rustc.

use std::sync::LazyLock;

use regex_lite::Regex;

use super::{FailedTest, Finding, Obstacle, ProjectNames, expression, quoted};
use crate::test_files::is_test_file;

static ERROR: LazyLock<Regex> = LazyLock::new(|| expression(r"^error(?:\[(E[0-9]{4})\])?: (.+)$"));
static PLACE: LazyLock<Regex> = LazyLock::new(|| expression(r"^\s*--> ([^:]+):[0-9]+"));
static CRATE: LazyLock<Regex> = LazyLock::new(|| {
    expression(
        r"(?:unresolved module or unlinked crate|maybe a missing crate|undeclared crate or module|can't find crate for) `([^`]+)`",
    )
});
static FAILED: LazyLock<Regex> = LazyLock::new(|| {
    expression(
        r"(?m)^(?:test .* \.\.\. FAILED$|thread '.*' (?:\([0-9]+\) )?panicked at|test result: FAILED\.)",
    )
});
static SIGNAL: LazyLock<Regex> =
    LazyLock::new(|| expression(r"process didn't exit successfully: .*\(signal: ([0-9]+)"));

/// Errors of cargo itself, before anything is compiled. Each is a part of the message.
const CARGO: [&str; 29] = [
    " target named `",
    "package ID specification",
    "could not find `Cargo.toml`",
    "failed to parse manifest",
    "failed to load manifest",
    "failed to read `",
    "unexpected argument",
    "invalid value '",
    "no such command",
    "no matching package",
    "failed to select a version",
    "failed to get `",
    "failed to load source",
    "failed to download",
    "failed to query replaced source",
    "failed to fetch",
    "current package believes it's in a workspace",
    "virtual manifest",
    "is not installed",
    "rustup could not choose a version of ",
    "linker `",
    "linking with `",
    "failed to run custom build command",
    "the lock file",
    "cannot update the lock file",
    "cannot specify features",
    "does not have feature",
    "the package '",
    "manifest path `",
];

/// Beginnings of the messages for code that does not parse.
const SYNTAX: [&str; 11] = [
    "expected ",
    "unexpected ",
    "mismatched closing delimiter",
    "this file contains an un",
    "unknown start of token",
    "unterminated ",
    "unknown prefix",
    "prefix ",
    "invalid suffix",
    "missing ",
    "character literal",
];

/// Messages that only repeat that something above has failed.
const SUMMARIES: [&str; 9] = [
    "could not compile",
    "aborting due",
    "test failed",
    "doctest failed",
    "process didn't exit",
    "build failed",
    "target failed",
    "targets failed",
    "test run failed",
];

pub(super) fn findings(failed: &FailedTest<'_>, project: &ProjectNames) -> Vec<Finding> {
    let output = failed.output;
    let mut findings = Vec::new();
    if FAILED.is_match(output) {
        findings.push(Finding::Genuine);
    }
    let lines: Vec<&str> = output.lines().collect();
    for (at, line) in lines.iter().enumerate() {
        let Some(found) = ERROR.captures(line) else { continue };
        // The place and the notes follow, up to an empty line.
        let more: Vec<&str> = lines[at + 1..].iter().take_while(|line| !line.is_empty()).copied().collect();
        let place = more.iter().find_map(|line| PLACE.captures(line)).map(|found| found[1].to_owned());
        let code = found.get(1).map(|code| code.as_str());
        findings.extend(error(code, &found[2], place.as_deref(), &more, project));
    }
    if findings.is_empty()
        && let Some(found) = SIGNAL.captures(output)
    {
        let problem = format!("was ended by signal {}", &found[1]);
        findings.push(Obstacle::killed(problem, "run the test's command by hand to find out why").into());
    }
    findings
}

fn error(
    code: Option<&str>,
    message: &str,
    place: Option<&str>,
    more: &[&str],
    project: &ProjectNames,
) -> Option<Finding> {
    let path = place.map(|place| project.relative(place));
    let is_test = path.as_deref().is_some_and(is_test_file);
    if let Some(code) = code {
        return Some(match code {
            "E0583" if is_test => quoted(message, "add the module to the tests before the run"),
            "E0432" | "E0433" | "E0463" => missing_crate(message, more, is_test, project),
            _ => Finding::Genuine,
        });
    }
    // The compiler's errors without a code have a place; rustup's and cargo's have none.
    if path.as_deref().is_none_or(|path| path.ends_with("Cargo.toml")) {
        if SUMMARIES.iter().any(|part| message.contains(part)) {
            return None;
        }
        let is_cargo = path.is_some() || CARGO.iter().any(|part| message.contains(part));
        return is_cargo.then(|| quoted(message, "correct the test's command or the manifests"));
    }
    let is_syntax = SYNTAX.iter().any(|start| message.starts_with(start));
    if is_test && is_syntax {
        let problem = format!("cannot run: `{}` has a syntax error", path.unwrap_or_default());
        return Some(Obstacle::new(problem, "correct the test: agents may not change it").into());
    }
    if is_test && message.starts_with("couldn't read `") {
        let file = message.split('`').nth(1).unwrap_or_default();
        let is_source = !is_test_file(&project.relative(file));
        return Some(if is_source {
            Finding::Genuine
        } else {
            quoted(message, "add the file before the run")
        });
    }
    Some(Finding::Genuine)
}

/// Decides whether a missing crate could come from the project's own sources.
///
/// A crate that a test names is from a registry unless the project has a package or module of that
/// name, or the feature's text names it. In a source it can be a module that the feature adds.
fn missing_crate(message: &str, more: &[&str], is_test: bool, project: &ProjectNames) -> Finding {
    let text = format!("{message}\n{}", more.join("\n"));
    let Some(found) = CRATE.captures(&text) else { return Finding::Genuine };
    let name = &found[1];
    if ["std", "core", "alloc", "test"].contains(&name) {
        return quoted(message, "install the standard library of the target: rustup target add");
    }
    if !is_test || project.has_module(name) || project.mentions(name) {
        return Finding::Genuine;
    }
    let hint =
        format!("add `{name}` to the dependencies, or name it in the prompt if the agent shall add it");
    Obstacle::new(format!("cannot run: crate `{name}` is not a dependency"), hint).into()
}
