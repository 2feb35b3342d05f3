//! Rules for make, C compilers, shells and other interpreters.

use std::sync::LazyLock;

use greenwave_testing::{ExitReason, Status};
use regex_lite::Regex;

use super::{FailedTest, Finding, Obstacle, ProjectNames, expression, missing_operand, quoted, syntax_error};

static MAKE_RULE: LazyLock<Regex> = LazyLock::new(|| {
    expression(r"(?m)^make(?:\[[0-9]+\])?: \*\*\* No rule to make target '([^']+)'(, needed by)?.*$")
});
static MAKE_TOOL: LazyLock<Regex> =
    LazyLock::new(|| expression(r"(?m)^make(?:\[[0-9]+\])?: \*\*\* \[.*\] Error 12[67]$"));
static MAKE_MISSING: LazyLock<Regex> = LazyLock::new(|| {
    expression(
        r"(?m)^(?:make(?:\[[0-9]+\])?: |(?:/\S+/)?\w*sh: [0-9]+: )(\S+?): (?:No such file or directory|(?:command )?not found|Permission denied)$",
    )
});
static MAKE_NONE: LazyLock<Regex> = LazyLock::new(|| {
    expression(r"(?m)^make: \*\*\* (?:No targets specified.*|\S+: No such file or directory\.  Stop\.)$")
});
static HEADER: LazyLock<Regex> = LazyLock::new(|| {
    expression(
        r"(?m)^[^\s:]+:[0-9]+:[0-9]+: fatal error: '?([^:']+)'?(?:: No such file or directory| file not found)$",
    )
});
static COMPILER_ERROR: LazyLock<Regex> =
    LazyLock::new(|| expression(r"(?m)^([^\s:]+\.(?:c|cc|cpp|cxx|h|hpp)):[0-9]+:[0-9]+: error: (.*)$"));
static LIBRARY: LazyLock<Regex> =
    LazyLock::new(|| expression(r"(?m)^.*(?:cannot find -l|library not found for -l)(\S+?):?(?: .*)?$"));
static SHELL_FILE: LazyLock<Regex> = LazyLock::new(|| {
    expression(r"(?m)^(?:/\S+/)?\w*sh: [0-9]+: (?:cannot open|Can't open) (\S+?)(?:: No such file)?$")
});
static SHELL_SYNTAX: LazyLock<Regex> =
    LazyLock::new(|| expression(r"(?mi)^(\S+?): (?:line )?[0-9]+: syntax error.*$"));
/// A program that a line of shell starts, and that no directory of `PATH` has.
static SHELL_PROGRAM: LazyLock<Regex> = LazyLock::new(|| {
    expression(r"(?m)^(?:\S*/)?\w*sh: (?:line )?[0-9]+: ([\w.+-]+): (?:command )?not found$")
});
static SCRIPT: LazyLock<Regex> = LazyLock::new(|| {
    expression(
        r#"(?m)^(?:Can't open perl script "([^"]+)"|Could not open input file: (\S+)|\S*ruby: No such file or directory -- (\S+)).*$"#,
    )
});
static USAGE: LazyLock<Regex> = LazyLock::new(|| {
    expression(
        r"(?m)^.*(?:there is no POM in this directory.*|Could not find or load main class .*|Unable to access jarfile .*|Could not resolve dependencies for project .*|No goals have been specified.*|Justfile does not contain recipe.*|Justfile does not contain recipes.*)$",
    )
});
/// Messages of managers of versions that have no version to start.
static VERSION: LazyLock<Regex> = LazyLock::new(|| {
    expression(
        r"(?m)^(?:(?:pyenv|rbenv|nodenv|jenv|goenv): version .* is not installed.*|No (?:preset )?version (?:is )?(?:set|installed) for command .*|Volta error: .*|go: go\.mod requires go >= .*|go: download go\S+ for \S+: toolchain not available.*)$",
    )
});
static UNRESOLVED: LazyLock<Regex> =
    LazyLock::new(|| expression(r"(?m)undefined reference to|Undefined symbols for"));

pub(super) fn findings(failed: &FailedTest<'_>, project: &ProjectNames) -> Vec<Finding> {
    let output = failed.output;
    let mut findings = make(failed, project);
    findings.extend(compilers(failed, project));
    if let Some(found) = SHELL_FILE.captures(output) {
        findings.push(missing_operand(&found[1], project));
    }
    let is_usage = failed.status == Status::Failed(ExitReason::Code(2));
    if let Some(found) = SHELL_SYNTAX.captures(output).filter(|_| is_usage) {
        let is_script = failed.command.iter().skip(1).any(|word| *word == found[1]);
        findings.push(if is_script {
            syntax_error(&found[1], project, failed)
        } else {
            quoted(&found[0], "correct the test's command")
        });
    }
    if let Some(found) = SCRIPT.captures(output) {
        let path = (1..4).find_map(|group| found.get(group)).map_or("", |path| path.as_str());
        findings.push(missing_operand(path, project));
    }
    // Scripts often try a program and go on without it, so this counts only if nothing else does.
    if findings.is_empty()
        && let Some(found) = SHELL_PROGRAM.captures(output).filter(|found| !project.mentions(&found[1]))
    {
        let hint = format!("install `{}`, or correct the test's command", &found[1]);
        findings
            .push(Obstacle::new(format!("cannot run: program `{}` is not found", &found[1]), hint).into());
    }
    if let Some(found) = VERSION.find(output) {
        findings.push(quoted(found.as_str(), "install the version, or select one that is installed"));
    }
    if let Some(found) = USAGE.find(output) {
        findings.push(quoted(found.as_str(), "correct the test's command"));
    }
    findings
}

fn make(failed: &FailedTest<'_>, project: &ProjectNames) -> Vec<Finding> {
    let output = failed.output;
    let mut findings = Vec::new();
    if let Some(found) = MAKE_RULE.captures(output) {
        // A missing prerequisite can be a source that the feature adds.
        findings.push(match found.get(2) {
            Some(_) => Finding::Genuine,
            None => quoted(&found[0], "add the target to the Makefile, or correct the test's command"),
        });
    }
    if let Some(found) = MAKE_NONE.find(output) {
        findings.push(quoted(found.as_str(), "add a Makefile, or correct the test's command"));
    }
    if MAKE_TOOL.is_match(output) {
        let name = MAKE_MISSING.captures_iter(output).last().map(|found| found[1].to_owned());
        findings.push(match name {
            Some(name) if name.contains('/') => missing_operand(&name, project),
            Some(name) => Obstacle::new(
                format!("cannot run: program `{name}` is not found"),
                format!("install `{name}`, or correct the Makefile"),
            )
            .into(),
            None => quoted("a program that the Makefile starts is not found", "install it"),
        });
    }
    findings
}

/// Returns a syntax error of C or C++, if the compiler names no other error. An unknown name is
/// often followed by one.
fn syntax_of_c(failed: &FailedTest<'_>, project: &ProjectNames) -> Option<Finding> {
    let errors: Vec<_> = COMPILER_ERROR.captures_iter(failed.output).collect();
    let first = errors.first()?;
    if errors.iter().all(|found| found[2].starts_with("expected ")) {
        return Some(syntax_error(&first[1], project, failed));
    }
    Some(Finding::Genuine)
}

fn compilers(failed: &FailedTest<'_>, project: &ProjectNames) -> Vec<Finding> {
    let output = failed.output;
    let mut findings: Vec<Finding> = syntax_of_c(failed, project).into_iter().collect();
    if UNRESOLVED.is_match(output) {
        findings.push(Finding::Genuine);
    }
    for found in HEADER.captures_iter(output) {
        let header = &found[1];
        // `#include "x.h"` names a header of the project, `#include <x.h>` one of the system.
        let is_system = output.contains(&format!("<{header}>"));
        let first = header.split('/').next().unwrap_or(header);
        let is_own = project.mentions_path(header) || (header.contains('/') && project.has_module(first));
        findings.push(if is_system && !is_own {
            let hint = "install the library that provides the header";
            Obstacle::new(format!("cannot run: header `{header}` is not installed"), hint).into()
        } else {
            Finding::Genuine
        });
    }
    if let Some(found) = LIBRARY.captures(output) {
        let problem = format!("cannot run: library `{}` is not installed", &found[1]);
        findings.push(Obstacle::new(problem, "install the library").into());
    }
    findings
}
