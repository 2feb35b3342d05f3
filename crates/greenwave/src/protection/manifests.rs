//! Compares the parts of manifests that choose or run tests.

use std::collections::BTreeSet;

use greenwave_testing::parse_toml_manifest;
use serde_json::Value;

use super::{build_files, makefiles};

/// Names of manifests with protected parts.
const MANIFESTS: [&str; 9] = [
    "package.json",
    "composer.json",
    "deno.json",
    "deno.jsonc",
    "Cargo.toml",
    "pyproject.toml",
    "setup.cfg",
    "Makefile",
    "makefile",
];
/// Beginnings of the names of files with settings of Vite, which can hold those of Vitest.
const VITE: &str = "vite.config.";
/// Keys of `package.json` with settings of test runners.
const RUNNERS: [&str; 8] = ["jest", "vitest", "mocha", "ava", "tap", "c8", "nyc", "playwright"];

/// Scripts of `package.json` that package managers run by themselves.
const LIFECYCLE: [&str; 10] = [
    "preinstall",
    "install",
    "postinstall",
    "preprepare",
    "prepare",
    "postprepare",
    "prepublish",
    "prepublishOnly",
    "prepack",
    "dependencies",
];

/// Returns whether a file is a manifest with protected parts.
pub(crate) fn has_protected_parts(path: &str) -> bool {
    let name = path.rsplit('/').next().unwrap_or(path);
    MANIFESTS.contains(&name)
        || name.starts_with(VITE)
        || matches!(name, "GNUmakefile" | "justfile")
        || build_files::is_build_file(name)
}

/// Returns which protected part of a manifest a change touches.
pub(super) fn violation(
    path: &str,
    before: Option<&str>,
    after: Option<&str>,
    targets: &[String],
) -> Option<String> {
    let name = path.rsplit('/').next().unwrap_or(path);
    let (old, new) = (before.unwrap_or_default(), after.unwrap_or_default());
    let part = match name {
        "package.json" => package_json(old, new),
        "composer.json" => json_part(old, new, &["scripts"]),
        "deno.json" | "deno.jsonc" => json_part(old, new, &["tasks", "test"]),
        "Cargo.toml" => cargo(old, new),
        "pyproject.toml" => pyproject(old, new),
        "setup.cfg" => {
            (section(old, "tool:pytest") != section(new, "tool:pytest")).then(|| "[tool:pytest]".to_owned())
        }
        "GNUmakefile" | "makefile" if old.is_empty() => makefiles::overriding(new, targets),
        "Makefile" | "makefile" | "GNUmakefile" | "justfile" => makefiles::changed(old, new, targets),
        name if name.starts_with(VITE) => {
            (braces(old, "test") != braces(new, "test")).then(|| "test".to_owned())
        }
        name => build_files::changed(name, old, new),
    }?;
    Some(format!("changes `{part}`, which chooses or runs tests or other programs"))
}

/// Compares the commands in a manifest. New ones may be added. A file with comments is skipped.
fn json_part(old: &str, new: &str, keys: &[&str]) -> Option<String> {
    let parse = |text: &str| serde_json::from_str::<Value>(text).unwrap_or_default();
    let (old, new) = (parse(old), parse(new));
    keys.iter().find_map(|key| {
        let members = old[*key].as_object()?;
        let changed = members.iter().find(|(name, value)| new[*key][name.as_str()] != **value);
        changed.map(|(name, _)| format!("{key}.{name}"))
    })
}

fn package_json(old: &str, new: &str) -> Option<String> {
    let parse = |text: &str| serde_json::from_str::<Value>(text).unwrap_or_default();
    let (old, new) = (parse(old), parse(new));
    if let Some(key) = RUNNERS.iter().find(|key| old[**key] != new[**key]) {
        return Some((*key).to_owned());
    }
    let empty = serde_json::Map::new();
    let scripts = old["scripts"].as_object().unwrap_or(&empty);
    for (name, script) in scripts {
        if new["scripts"][name] != *script {
            return Some(format!("scripts.{name}"));
        }
    }
    let is_new = |name: &&&str| old["scripts"][**name] != new["scripts"][**name];
    if let Some(name) = LIFECYCLE.iter().find(is_new) {
        return Some(format!("scripts.{name}"));
    }
    // npm runs `pretest` before and `posttest` after `test`.
    let added =
        new["scripts"].as_object().unwrap_or(&empty).keys().filter(|name| !scripts.contains_key(*name));
    let is_hook = |name: &&String| {
        let inner = name.strip_prefix("pre").or_else(|| name.strip_prefix("post"));
        inner.is_some_and(|inner| scripts.contains_key(inner))
    };
    added.into_iter().find(is_hook).map(|name| format!("scripts.{name}"))
}

fn cargo(old: &str, new: &str) -> Option<String> {
    let parse = |text: &str| parse_toml_manifest(text).unwrap_or_default();
    let (old, new) = (parse(old), parse(new));
    let get = |table: &Value, keys: &[&str]| -> Option<Value> {
        let first = table.get(keys[0])?;
        keys[1..].iter().try_fold(first, |value, key| value.get(key)).cloned()
    };
    let paths: [&[&str]; 10] = [
        &["test"],
        &["lib", "test"],
        &["lib", "doctest"],
        &["lib", "harness"],
        &["lib", "path"],
        &["package", "autotests"],
        &["package", "autobins"],
        &["profile", "test"],
        &["workspace", "exclude"],
        &["workspace", "default-members"],
    ];
    // Also in a new manifest: cargo compiles and runs it.
    let build = ["package", "build"];
    if get(&new, &build).is_some() && get(&old, &build) != get(&new, &build) {
        return Some("package.build".to_owned());
    }
    let is_new = old.as_object().is_none_or(serde_json::Map::is_empty);
    let changed = paths.iter().find(|keys| get(&old, keys) != get(&new, keys));
    if let Some(keys) = changed.filter(|_| !is_new) {
        return Some(keys.join("."));
    }
    // Members may be added, and targets other than tests, as long as their tests run.
    let members = |table: &Value| -> BTreeSet<String> {
        let list = get(table, &["workspace", "members"]);
        let list = list.as_ref().and_then(Value::as_array).cloned().unwrap_or_default();
        list.iter().filter_map(Value::as_str).map(str::to_owned).collect()
    };
    if !members(&old).is_subset(&members(&new)) {
        return Some("workspace.members".to_owned());
    }
    let switches_off = |value: &Value| {
        let targets = value.as_array().into_iter().flatten();
        targets.filter(|target| target.get("test").and_then(Value::as_bool) == Some(false)).count()
    };
    let off = |table: &Value| table.get("bin").map_or(0, switches_off);
    (off(&new) > off(&old)).then(|| "bin.test".to_owned())
}

fn pyproject(old: &str, new: &str) -> Option<String> {
    let parse = |text: &str| parse_toml_manifest(text).unwrap_or_default();
    let (old, new) = (parse(old), parse(new));
    let tool = |table: &Value, key: &str| table.get("tool").and_then(|tool| tool.get(key)).cloned();
    if let Some(key) =
        ["pytest", "tox", "nox", "coverage"].iter().find(|key| tool(&old, key) != tool(&new, key))
    {
        return Some(format!("tool.{key}"));
    }
    let plugins = |table: &Value| {
        let project = table.get("project")?;
        project.get("entry-points")?.get("pytest11").cloned()
    };
    (plugins(&old) != plugins(&new)).then(|| "project.entry-points.pytest11".to_owned())
}

/// Returns the text of a section of an INI file.
fn section(text: &str, name: &str) -> String {
    let head = format!("[{name}]");
    let lines = text.lines().skip_while(|line| line.trim() != head);
    let body = lines.skip(1).take_while(|line| !line.starts_with('['));
    body.map(str::trim).filter(|line| !line.is_empty()).collect::<Vec<_>>().join("\n")
}

/// Returns the text in braces after `name:`, without white space.
fn braces(text: &str, name: &str) -> Option<String> {
    let compact: String = text.chars().filter(|character| !character.is_whitespace()).collect();
    let at = compact.find(&format!("{name}:{{"))?;
    let mut depth = 0;
    let end = compact[at..].char_indices().find_map(|(at, character)| {
        depth += i32::from(character == '{') - i32::from(character == '}');
        (character == '}' && depth == 0).then_some(at)
    })?;
    Some(compact[at..=at + end].to_owned())
}
