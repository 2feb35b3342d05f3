//! Finds the local projects that a Python project depends on, in manifests of uv, Poetry and pip.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use toml::{Table, Value};

use super::{HARNESS, with_python};
use crate::harness::discovery::DiscoveryNote;
use crate::harness::project::{Project, within};

/// Returns the directories that each Python project may import from, beside its own.
pub(super) fn dependencies(
    project: &Project,
    notes: &mut Vec<DiscoveryNote>,
) -> BTreeMap<PathBuf, Vec<PathBuf>> {
    let mut tables = BTreeMap::new();
    let with_python = with_python(project);
    for directory in
        project.directories_with("pyproject.toml").filter(|directory| with_python.contains(directory))
    {
        let manifest = directory.join("pyproject.toml");
        match project.toml(HARNESS, &manifest) {
            Ok(table) => drop(tables.insert(directory.to_owned(), table)),
            Err(error) => notes.push(DiscoveryNote::unreadable(&manifest, &error)),
        }
    }
    let names: BTreeMap<String, &PathBuf> =
        tables.iter().filter_map(|(directory, table)| Some((project_name(table)?, directory))).collect();
    let mut found: BTreeMap<PathBuf, Vec<PathBuf>> = BTreeMap::new();
    let mut paths: Vec<(PathBuf, String)> = Vec::new();
    for (directory, table) in &tables {
        paths.extend(paths_of(table).into_iter().map(|path| (directory.join("pyproject.toml"), path)));
    }
    for directory in project.directories_with("requirements.txt") {
        let manifest = directory.join("requirements.txt");
        match project.text(HARNESS, &manifest) {
            Ok(text) => paths.extend(required(&text).into_iter().map(|path| (manifest.clone(), path))),
            Err(error) => notes.push(DiscoveryNote::unreadable(&manifest, &error)),
        }
    }
    for (manifest, path) in paths {
        let directory = manifest.parent().unwrap_or(Path::new(""));
        match within(directory, &path) {
            Some(target) => found.entry(directory.to_owned()).or_default().push(target),
            None => notes.push(DiscoveryNote::OutsideDependency { manifest, directory: path }),
        }
    }
    for (directory, table) in &tables {
        let members = workspace_sources(table).filter_map(|name| names.get(&name).map(|it| (*it).clone()));
        found.entry(directory.clone()).or_default().extend(members);
    }
    found
}

/// Normalizes a project's name for comparison
/// (<https://packaging.python.org/en/latest/specifications/name-normalization/>).
fn normal(name: &str) -> String {
    let mut normal = String::new();
    for character in name.chars() {
        match character {
            '-' | '_' | '.' if normal.ends_with('-') => {}
            '-' | '_' | '.' => normal.push('-'),
            other => normal.extend(other.to_lowercase()),
        }
    }
    normal
}

fn project_name(table: &Table) -> Option<String> {
    let standard = table.get("project").and_then(|it| it.get("name"));
    let poetry = || table.get("tool")?.get("poetry")?.get("name");
    standard.or_else(poetry)?.as_str().map(normal)
}

fn uv_sources(table: &Table) -> impl Iterator<Item = (&String, &Value)> {
    let sources = table.get("tool").and_then(|it| it.get("uv")?.get("sources")?.as_table());
    sources.into_iter().flatten().flat_map(|(name, value)| {
        let one_or_more = value.as_array().map_or(std::slice::from_ref(value), Vec::as_slice);
        one_or_more.iter().map(move |value| (name, value))
    })
}

/// Returns the members of uv's workspace that a project depends on.
fn workspace_sources(table: &Table) -> impl Iterator<Item = String> {
    let is_member = |value: &Value| value.get("workspace").and_then(Value::as_bool) == Some(true);
    uv_sources(table).filter(move |(_, value)| is_member(value)).map(|(name, _)| normal(name))
}

/// Returns the directories that uv and Poetry settings of a project depend on.
fn paths_of(table: &Table) -> Vec<String> {
    let path = |value: &Value| value.get("path").and_then(Value::as_str).map(str::to_owned);
    let mut paths: Vec<String> = uv_sources(table).filter_map(|(_, value)| path(value)).collect();
    let poetry = table.get("tool").and_then(|it| it.get("poetry"));
    let groups =
        poetry.and_then(|it| it.get("group")?.as_table()).into_iter().flatten().map(|(_, group)| group);
    for list in poetry.into_iter().chain(groups) {
        for key in ["dependencies", "dev-dependencies"] {
            let list = list.get(key).and_then(Value::as_table);
            paths.extend(list.into_iter().flatten().filter_map(|(_, value)| path(value)));
        }
    }
    // A wheel is a file, not a directory with sources.
    paths.retain(|path| !path.ends_with(".whl") && !path.ends_with(".tar.gz"));
    paths
}

/// Returns the directories in a list of requirements
/// (<https://pip.pypa.io/en/stable/reference/requirements-file-format/>).
fn required(text: &str) -> Vec<String> {
    let directory = |line: &str| {
        let line = line.split(" #").next().unwrap_or_default().trim();
        let editable = ["-e", "--editable"].iter().find_map(|flag| line.strip_prefix(flag));
        let target = editable.unwrap_or(line).trim_start_matches('=').trim();
        let target = target.split(['[', ';']).next().unwrap_or_default().trim();
        let is_directory =
            target.starts_with('.') && !target.ends_with(".whl") && !target.ends_with(".tar.gz");
        is_directory.then(|| target.to_owned())
    };
    text.lines().filter_map(directory).collect()
}
