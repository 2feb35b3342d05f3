//! Rules for `go test`.

use std::sync::LazyLock;

use regex_lite::Regex;

use super::{FailedTest, Finding, Obstacle, ProjectNames, expression, quoted};
use crate::test_files::is_test_file;

static FAILED: LazyLock<Regex> = LazyLock::new(|| expression(r"(?m)^\s*(?:--- FAIL: |panic: )"));
static TIMED_OUT: LazyLock<Regex> = LazyLock::new(|| expression(r"(?m)^panic: test timed out after (\S+)$"));
static SIGNAL: LazyLock<Regex> = LazyLock::new(|| expression(r"(?m)^signal: (.+)$"));
const BUILD_FAILED: &str = "[build failed]";
static PACKAGE: LazyLock<Regex> = LazyLock::new(|| {
    expression(
        r"(?m)(?:no required module provides package|cannot find module providing package|cannot find package) \x22?([^\s:;\x22]+)|package (\S+) is not in (?:GOROOT|std)",
    )
});
static SETUP: LazyLock<Regex> = LazyLock::new(|| expression(r"(?m)^(?:\./)?(\S+\.go):[0-9]+:[0-9]+: (.*)$"));
static USAGE: LazyLock<Regex> = LazyLock::new(|| {
    expression(
        r"(?m)^.*(?:: directory not found|^no Go files in .*|: no Go files in .*|go\.mod file not found.*|cannot find main module.*|does not contain (?:main module|package).*|flag provided but not defined.*|missing go\.sum entry.*|updates to go\.mod needed.*|toolchain not available.*|matched no packages.*|go: errors parsing go\.mod.*|module declares its path as.*|unknown command)$",
    )
});

pub(super) fn findings(failed: &FailedTest<'_>, project: &ProjectNames) -> Vec<Finding> {
    let output = failed.output;
    let mut findings = Vec::new();
    findings.extend(ended_early(output));
    if findings.is_empty() && FAILED.is_match(output) {
        findings.push(Finding::Genuine);
    }
    if output.contains(BUILD_FAILED) {
        findings.push(not_compiled(output, project));
    }
    for found in PACKAGE.captures_iter(output) {
        let package = found.get(1).or(found.get(2)).map_or("", |name| name.as_str());
        findings.push(missing_package(package, project));
    }
    if output.contains("[setup failed]") && findings.is_empty() {
        for found in SETUP.captures_iter(output) {
            let (file, is_test) = (&found[1], found[1].ends_with("_test.go"));
            let hint = "correct the test: agents may not change it";
            let problem = format!("cannot run: `{file}` has a syntax error ({})", &found[2]);
            findings.push(if is_test { Obstacle::new(problem, hint).into() } else { Finding::Genuine });
        }
    }
    if findings.is_empty()
        && let Some(found) = USAGE.find(output)
    {
        findings.push(quoted(found.as_str(), "correct the test's command or go.mod"));
    }
    findings
}

/// Returns why `go test` ended the tests, or who killed them, before they could fail.
fn ended_early(output: &str) -> Option<Finding> {
    if let Some(found) = TIMED_OUT.captures(output) {
        let hint = "raise `-timeout`, or find out what the test waits for";
        let problem = format!("did not end within {} (`-timeout`) and was killed", &found[1]);
        return Some(Obstacle::killed(problem, hint).into());
    }
    let has_failed = FAILED.is_match(output);
    let found = SIGNAL.captures(output).filter(|_| !has_failed)?;
    let hint = "run the test's command by hand to find out why";
    Some(Obstacle::killed(format!("was ended by a signal ({})", &found[1]), hint).into())
}

/// Decides about code that does not compile. An unused import or variable in a test is a mistake in
/// the test, which no feature can cure.
fn not_compiled(output: &str, project: &ProjectNames) -> Finding {
    let errors: Vec<_> = SETUP.captures_iter(output).collect();
    let is_unused = |message: &str| {
        message.contains("imported and not used")
            || message.contains("declared and not used")
            || message.contains("declared but not used")
    };
    let is_mistake = |file: &str, message: &str| is_test_file(&project.relative(file)) && is_unused(message);
    match errors.first() {
        Some(first) if errors.iter().all(|found| is_mistake(&found[1], &found[2])) => {
            let problem = format!("cannot run: `{}` does not compile ({})", &first[1], &first[2]);
            Obstacle::new(problem, "correct the test: agents may not change it").into()
        }
        _ => Finding::Genuine,
    }
}

/// The feature can add a package inside the project's own module.
fn missing_package(package: &str, project: &ProjectNames) -> Finding {
    if project.contains_package(package) {
        return Finding::Genuine;
    }
    let hint = format!("add the module to go.mod and download it: go get {package}");
    Obstacle::new(format!("cannot run: package `{package}` is not available"), hint).into()
}
