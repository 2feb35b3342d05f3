//! Rules for `go test`.

use std::sync::LazyLock;

use regex_lite::Regex;

use super::{FailedTest, Finding, Obstacle, ProjectNames, expression, quoted};

static FAILED: LazyLock<Regex> =
    LazyLock::new(|| expression(r"(?m)^\s*(?:--- FAIL: |panic: |FAIL\t\S+ \[build failed\])"));
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
    if FAILED.is_match(output) {
        findings.push(Finding::Genuine);
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

/// The feature can add a package inside the project's own module.
fn missing_package(package: &str, project: &ProjectNames) -> Finding {
    if project.contains_package(package) {
        return Finding::Genuine;
    }
    let hint = format!("add the module to go.mod and download it: go get {package}");
    Obstacle::new(format!("cannot run: package `{package}` is not available"), hint).into()
}
