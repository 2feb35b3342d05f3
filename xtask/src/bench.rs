//! Runs the benchmarks and has them write their pages into `benches/results/`. Knows nothing of what they measure:
//! that, and how a page looks, stands in `benches/`.

use std::fs;
use std::process::Command;

use crate::Result;
use crate::program::{cargo, root, watch};

/// Told to the suites by this variable: write pages, do not only print.
const WRITE: &str = "BENCH_PAGES";
/// Stands before the names of the suites beside rivals.
const VERSUS: &str = "versus-";

/// Runs the suites, all or those named.
///
/// # Errors
/// If there is no suite of a name, or one fails.
pub(crate) fn bench(wanted: &[String]) -> Result<String> {
    let all = suites()?;
    if let Some(unknown) = wanted.iter().find(|name| !all.contains(name)) {
        return Err(format!("there is no suite `{unknown}`; there are {}", all.join(", ")).into());
    }
    let chosen = if wanted.is_empty() { &all[..] } else { wanted };
    for suite in chosen {
        watch(command(suite).env(WRITE, "1"))?;
    }
    Ok(format!("bench: ran {}; the pages are in benches/results", chosen.join(", ")))
}

/// A suite beside rivals has a feature of its own, so that nobody compiles the rivals of another.
fn command(suite: &str) -> Command {
    match suite.strip_prefix(VERSUS) {
        Some(name) => cargo(["bench", "--package", "greenwave-versus", "--features", name, "--bench", name]),
        None => cargo(["bench", "--package", "greenwave-benches", "--bench", suite]),
    }
}

/// The suites' names: those of the files in `benches/suites`, and with a prefix those in `benches/versus/suites`.
fn suites() -> Result<Vec<String>> {
    let mut names = Vec::new();
    for (folder, prefix) in [("benches/suites", ""), ("benches/versus/suites", VERSUS)] {
        let Ok(entries) = fs::read_dir(root().join(folder)) else { continue };
        for entry in entries {
            let path = entry?.path();
            let name = path.file_stem().and_then(|name| name.to_str());
            names.extend(name.map(|name| format!("{prefix}{name}")));
        }
    }
    names.sort();
    Ok(names)
}
