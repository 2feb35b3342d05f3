//! Rules for Node.js, its package managers, test runners and the TypeScript compiler.

use std::sync::LazyLock;

use regex_lite::Regex;

use super::{FailedTest, Finding, Obstacle, ProjectNames, expression, missing_operand, quoted, syntax_error};

static MODULE: LazyLock<Regex> = LazyLock::new(|| {
    expression(
        r#"(?:Cannot find (?:module|package)|Failed to resolve import|Failed to load url|Could not resolve) ['"]?([^'"\s]+)['"]?(.*)$"#,
    )
});
static FROM: LazyLock<Regex> = LazyLock::new(|| {
    expression(
        r#"^(?: or its corresponding type declarations)?.*?(?:imported )?from ['"]?([^'"\s]+?)['"]?\.?(?:\s|$)"#,
    )
});
static FAILED: LazyLock<Regex> = LazyLock::new(|| {
    expression(
        r"\b(?:AssertionError|AssertionFailedError|TypeError|ReferenceError|RangeError|JestAssertionError)\b|expect\(received\)|ERR_ASSERTION",
    )
});
static PLACE: LazyLock<Regex> =
    LazyLock::new(|| expression(r"^(?:# )?((?:file://)?/[^:]+):[0-9]+(?::[0-9]+)?$"));
static SYNTAX: LazyLock<Regex> = LazyLock::new(|| {
    expression(
        r"^\s*(?:# )?(?:SyntaxError|Error: Transform failed|Error: Failed to parse source|Error: Parse failure|RolldownError: Parse failure|.*\[PARSE_ERROR\])",
    )
});
static INLINE: LazyLock<Regex> = LazyLock::new(|| {
    expression(
        r"(?:SyntaxError: |╭─\[ ?|\[builtin:vite-transform\] |\(|^\s*File: )?((?:/|[\w.-]+/)[^\s:()\[\]]*\.[cm]?[jt]sx?)\b",
    )
});
static TYPESCRIPT: LazyLock<Regex> = LazyLock::new(|| {
    expression(r"^(?:([^\s(:]+)(?:\([0-9,]+\)|:[0-9]+:[0-9]+)(?:: | - ))?error TS([0-9]+): (.*)$")
});
/// Messages of package managers and runners that did not run any test.
static USAGE: LazyLock<Regex> = LazyLock::new(|| {
    expression(
        r#"(?m)^.*(?:Missing script: .*|ERR_PNPM_NO_SCRIPT.*|error Command ".*" not found.*|error: Script not found.*|Could not read package\.json.*|could not determine executable to run.*|^Could not find '[^']*'|npx canceled due to missing packages.*|No test files? found.*|No tests found, exiting with code 1.*|: bad option: .*|Validation Error.*|Unrecognized CLI Parameter.*|Unrecognized option.*|npm error 404 .*could not be found.*|CACError: .*|ERR_MOCHA_NO_TEST.*)$"#,
    )
});

pub(super) fn findings(failed: &FailedTest<'_>, project: &ProjectNames) -> Vec<Finding> {
    let mut findings = Vec::new();
    let lines: Vec<&str> =
        failed.output.lines().map(|line| line.strip_prefix("# ").unwrap_or(line)).collect();
    let mut place = None;
    for (at, line) in lines.iter().enumerate() {
        if let Some(found) = TYPESCRIPT.captures(line) {
            let file = found.get(1).map(|file| file.as_str());
            findings.push(typescript(file, &found[2], &found[3], failed, project));
        } else if let Some(found) = MODULE.captures(line) {
            let more = lines[at + 1..].iter().take(3).copied().collect::<Vec<_>>();
            findings.push(module(&found[1], &found[2], &more, failed, project));
        } else if SYNTAX.is_match(line) {
            let near = lines[at..]
                .iter()
                .take(8)
                .find_map(|line| INLINE.captures(line))
                .map(|found| found[1].to_owned());
            findings.extend(syntax(line, place.map(str::to_owned).or(near), failed, project));
        } else if let Some(found) = PLACE.captures(line) {
            place = found.get(1).map(|file| file.as_str());
        } else if FAILED.is_match(line) {
            findings.push(Finding::Genuine);
        } else if line.contains("EADDRINUSE") {
            findings.push(super::port_in_use().into());
        }
    }
    if findings.is_empty()
        && let Some(found) = USAGE.find(failed.output)
    {
        findings.push(quoted(found.as_str(), "correct the test's command or package.json"));
    }
    findings
}

fn syntax(
    line: &str,
    place: Option<String>,
    failed: &FailedTest<'_>,
    project: &ProjectNames,
) -> Option<Finding> {
    if line.contains("does not provide an export") || line.contains("Named export") {
        return Some(Finding::Genuine);
    }
    // Errors of other languages have no such place.
    place.map(|place| syntax_error(&place, project, failed))
}

/// Decides whether a module could come from the project's own sources.
///
/// A relative path, an absolute path inside and an alias (`@/`, `~/`, `#`) can. Another name is
/// that of a package: one of the project's own, or one that is not installed.
fn module(name: &str, rest: &str, more: &[&str], failed: &FailedTest<'_>, project: &ProjectNames) -> Finding {
    let has_importer = FROM.is_match(rest) || more.iter().any(|line| line.trim() == "Require stack:");
    if name.starts_with('/') {
        let path = project.relative(name);
        let is_operand = failed.command.iter().any(|word| project.relative(word) == path);
        return if has_importer && !is_operand { Finding::Genuine } else { missing_operand(name, project) };
    }
    let is_alias = ["@/", "~", "#", "./", "../", "$"].iter().any(|start| name.starts_with(start));
    if is_alias || name == "." || name == ".." {
        return Finding::Genuine;
    }
    if !has_importer && failed.command.iter().any(|word| word == name) {
        return missing_operand(name, project);
    }
    let mut parts = name.splitn(3, '/');
    let first = parts.next().unwrap_or(name);
    let package = if first.starts_with('@') {
        format!("{first}/{}", parts.next().unwrap_or_default())
    } else {
        first.to_owned()
    };
    let is_own = project.has_package(&package)
        || (name.contains('/') && !first.starts_with('@') && project.has_module(first))
        || (first.starts_with('@') && project.has_scope(first));
    if is_own && !project.declares(&package) {
        return Finding::Genuine;
    }
    let hint = format!("install `{package}` in the project");
    Obstacle::new(format!("cannot run: package `{package}` is not installed"), hint).into()
}

fn typescript(
    file: Option<&str>,
    code: &str,
    message: &str,
    failed: &FailedTest<'_>,
    project: &ProjectNames,
) -> Finding {
    let is_syntax = code.len() == 4 && code.starts_with('1');
    match (code, file) {
        ("2307" | "7016", _) => match MODULE.captures(message) {
            Some(found) => module(&found[1], " from 'x'", &[], failed, project),
            None => Finding::Genuine,
        },
        ("2582" | "2580" | "2593" | "2688", _) => quoted(message, "install the type definitions"),
        (_, Some(file)) if is_syntax => syntax_error(file, project, failed),
        ("6053" | "5023" | "5025" | "5058" | "5112" | "18003", _) => {
            quoted(message, "correct the test's command")
        }
        _ => Finding::Genuine,
    }
}
