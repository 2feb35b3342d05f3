//! Reads from configuration whether tools build packages before their tests, and their outputs.

use std::path::Path;

use greenwave_dir::read_regular_text;
use serde_json::Value;

use super::package::Package;
use super::script::Tool;
use crate::harness::project::{MANIFEST_BYTES_MAX, Project};

/// Configuration of Turborepo (<https://turborepo.com/docs/reference/configuration>).
const TURBO: [&str; 2] = ["turbo.json", "turbo.jsonc"];
/// Configuration of Nx (<https://nx.dev/reference/nx-json>).
const NX: &str = "nx.json";

/// Returns whether a tool builds something before it runs the tests of a workspace's members.
/// Configuration that cannot be read counts as such.
pub(super) fn builds_first(project: &Project, root: &Path, tool: Tool) -> bool {
    match tool {
        Tool::Manager => false,
        Tool::Turbo => turbo_builds_first(project, root),
        Tool::Lerna => nx_builds_first(project, root),
    }
}

/// Returns whether Turborepo's configuration has tests depend on other tasks.
pub(super) fn turbo_builds_first(project: &Project, root: &Path) -> bool {
    let Some(configuration) = read(project, root, &TURBO) else { return false };
    let Some(configuration) = configuration else { return true };
    let tasks = tasks(&configuration);
    let is_test = |name: &str| name == "test" || name.ends_with("#test");
    let mut tests = tasks.into_iter().flatten().filter(|(name, _)| is_test(name));
    tests.any(|(_, task)| depends_on_more(task))
}

/// Returns whether the configuration of Nx has tests depend on other targets.
pub(super) fn nx_builds_first(project: &Project, root: &Path) -> bool {
    match read(project, root, &[NX]) {
        None => false,
        Some(None) => true,
        Some(Some(configuration)) => {
            let test = configuration.get("targetDefaults").and_then(|targets| targets.get("test"));
            test.is_some_and(depends_on_more)
        }
    }
}

/// Returns whether a task depends on tasks other than tests.
fn depends_on_more(task: &Value) -> bool {
    let dependencies = task.get("dependsOn").and_then(Value::as_array);
    dependencies.into_iter().flatten().any(|dependency| {
        let target = dependency.as_str().or_else(|| dependency.get("target").and_then(Value::as_str));
        target.is_none_or(|target| target.trim_start_matches('^') != "test")
    })
}

fn tasks(configuration: &Value) -> Option<&serde_json::Map<String, Value>> {
    configuration.get("tasks").or_else(|| configuration.get("pipeline")).and_then(Value::as_object)
}

/// Returns patterns, relative to a package, of what Turborepo's tasks write there.
pub(super) fn turbo_outputs(project: &Project, root: &Path) -> Vec<String> {
    let Some(Some(configuration)) = read(project, root, &TURBO) else { return Vec::new() };
    let lists = tasks(&configuration).into_iter().flatten();
    let lists = lists.filter_map(|(_, task)| task.get("outputs").and_then(Value::as_array));
    let mut patterns: Vec<String> = lists.flatten().filter_map(Value::as_str).map(str::to_owned).collect();
    patterns.retain(|pattern| is_inside(pattern));
    patterns.sort();
    patterns.dedup();
    patterns
}

/// Returns the outputs that `nx.json` declares for the targets of all packages, as patterns
/// relative to a package.
pub(super) fn nx_outputs(project: &Project, root: &Path) -> Vec<String> {
    let Some(Some(configuration)) = read(project, root, &[NX]) else { return Vec::new() };
    let targets = configuration.get("targetDefaults").and_then(Value::as_object);
    let lists = targets.into_iter().flatten().filter_map(|(_, target)| target.get("outputs")?.as_array());
    let in_package = |output: &Value| Some(output.as_str()?.strip_prefix("{projectRoot}/")?.to_owned());
    let paths = lists.flatten().filter_map(in_package).filter(|path| is_inside(path));
    // A path without a wildcard is that of a file or of a directory.
    let mut patterns: Vec<String> = paths.flat_map(|path| [format!("{path}/"), path]).collect();
    patterns.retain(|pattern| !pattern.ends_with("//") && !pattern.ends_with("*/"));
    patterns.sort();
    patterns.dedup();
    patterns
}

/// Returns whether the path of an output is in its package and excludes nothing.
fn is_inside(path: &str) -> bool {
    !path.is_empty() && !path.starts_with(['!', '/', '$', '{']) && !path.contains("..")
}

/// Returns whether a tool is installed for a workspace or on the PATH, or declared as a dependency.
pub(super) fn is_available(project: &Project, root: &Path, package: &Package, tool: &str) -> bool {
    let local = project.root().join(root).join("node_modules/.bin").join(tool);
    package.declares(tool) || local.exists() || project.has_program(tool)
}

/// Reads the first configuration that exists; the inner `None` if it cannot be parsed.
fn read(project: &Project, root: &Path, names: &[&str]) -> Option<Option<Value>> {
    let path = names.iter().map(|name| root.join(name)).find(|path| project.has(path))?;
    Some(
        read_regular_text(project.root().join(path), MANIFEST_BYTES_MAX)
            .ok()
            .and_then(|text| parse_jsonc(&text)),
    )
}

/// Parses JSON with comments and commas before closing brackets.
pub(super) fn parse_jsonc(text: &str) -> Option<Value> {
    let text = text.trim_start_matches('\u{feff}');
    serde_json::from_str(text).ok().or_else(|| serde_json::from_str(&plain_json(text)).ok())
}

fn plain_json(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(character) = rest.chars().next() {
        let length = match character {
            '"' => string_length(rest),
            '/' if rest.starts_with("//") => {
                rest = rest.find('\n').map_or("", |end| &rest[end..]);
                continue;
            }
            '/' if rest.starts_with("/*") => {
                rest = rest.find("*/").map_or("", |end| &rest[end + 2..]);
                continue;
            }
            other => other.len_utf8(),
        };
        if matches!(character, ']' | '}') && plain.trim_end().ends_with(',') {
            let end = plain.trim_end().len() - 1;
            plain.truncate(end);
        }
        plain.push_str(&rest[..length]);
        rest = &rest[length..];
    }
    plain
}

/// Returns the length of the string literal that a text starts with.
fn string_length(text: &str) -> usize {
    let mut is_escaped = false;
    for (at, character) in text.char_indices().skip(1) {
        match character {
            _ if is_escaped => is_escaped = false,
            '\\' => is_escaped = true,
            '"' => return at + 1,
            _ => {}
        }
    }
    text.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_and_closing_commas_are_ignored() {
        let text = "// first\n{\"a\": [1, 2, /* , */ ], \"b//\": \"/* \\\" */\",}\n";
        assert_eq!(parse_jsonc(text), Some(serde_json::json!({"a": [1, 2], "b//": "/* \" */"})));
        for broken in ["", "{", "\"", "/*", "{\"a\\", "//"] {
            assert_eq!(parse_jsonc(broken), None, "{broken}");
        }
    }

    #[test]
    fn tasks_depend_on_more_than_tests() {
        let check = |task: Value| depends_on_more(&task);
        assert!(check(serde_json::json!({"dependsOn": ["^build"]})));
        assert!(check(serde_json::json!({"dependsOn": ["^test", {"target": "build"}]})));
        assert!(!check(serde_json::json!({"dependsOn": ["^test"]})));
        assert!(!check(serde_json::json!({"dependsOn": []})));
        assert!(!check(serde_json::json!({})));
    }
}
