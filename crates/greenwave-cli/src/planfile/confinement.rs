//! Reads the keys that confine agents and tests, of a plan or of one agent.

use std::path::{Path, PathBuf};

use greenwave::{ConfineMode, ConfineOptions, Network};

use crate::diagnostic::{Diagnostic, Document};
use crate::reader::Table;

/// Accepted values of `confine`.
const MODES: [(&str, ConfineMode); 4] = [
    ("auto", ConfineMode::Auto),
    ("mount", ConfineMode::Mount),
    ("landlock", ConfineMode::Landlock),
    ("off", ConfineMode::Off),
];
/// Accepted values of `network`.
const NETWORKS: [(&str, Network); 3] =
    [("open", Network::Open), ("loopback", Network::Loopback), ("none", Network::None)];

/// Reads the keys. `~/` in a path is the home directory; other paths are relative to the plan.
pub(super) fn read(
    document: &Document,
    table: &mut Table<'_>,
    dir: &Path,
) -> Result<ConfineOptions, Diagnostic> {
    let mode = choice(document, table, "confine", &MODES)?;
    let network = choice(document, table, "network", &NETWORKS)?;
    Ok(ConfineOptions {
        mode,
        writable: paths(document, table, "writable", dir)?,
        readable: paths(document, table, "readable", dir)?,
        hidden: paths(document, table, "hidden", dir)?,
        network,
    })
}

fn paths(
    document: &Document,
    table: &mut Table<'_>,
    key: &'static str,
    dir: &Path,
) -> Result<Vec<PathBuf>, Diagnostic> {
    let Some(found) = table.texts(key)? else { return Ok(Vec::new()) };
    let home = std::env::var_os("HOME").map(PathBuf::from);
    let paths = found.value.into_iter().map(|text| {
        let path = match (
            text.value.strip_prefix('~').filter(|rest| rest.is_empty() || rest.starts_with('/')),
            &home,
        ) {
            (Some(rest), Some(home)) => home.join(rest.trim_start_matches('/')),
            _ => dir.join(&text.value),
        };
        let invalid = || {
            let message = format!("invalid value `{:?}` for `{key}`: expected a path", text.value);
            document.error(text.at.clone(), message)
        };
        std::path::absolute(path).map_err(|_| invalid())
    });
    paths.collect()
}

/// Reads a key with a few valid words.
fn choice<T: Copy>(
    document: &Document,
    table: &mut Table<'_>,
    key: &'static str,
    choices: &[(&str, T)],
) -> Result<Option<T>, Diagnostic> {
    let Some(found) = table.text(key)? else { return Ok(None) };
    let chosen = choices.iter().find(|(name, _)| *name == found.value);
    chosen.map(|(_, value)| Some(*value)).ok_or_else(|| {
        let names: Vec<String> = choices.iter().map(|(name, _)| format!("{name:?}")).collect();
        let message = format!("invalid value `{:?}` for `{key}`: expected {}", found.value, any_of(&names));
        document.error(found.at, message)
    })
}

/// Joins words as `a, b or c`.
pub(super) fn any_of(words: &[String]) -> String {
    match words {
        [first @ .., last] if !first.is_empty() => format!("{} or {last}", first.join(", ")),
        _ => words.concat(),
    }
}
