//! Runs the benchmark suites, which write their pages to `benches/results/`.

use std::fs;
use std::process::Command;

use crate::Result;
use crate::process::{cargo, root, run_visibly};

/// Variable that makes a suite write its page in addition to printing it.
const WRITE_PAGES: &str = "BENCH_PAGES";
/// Prefix of the suites that compare with other programs and libraries.
const VERSUS: &str = "versus-";

/// Runs the named suites, or all of them.
///
/// # Errors
/// If a name is unknown or a suite fails.
pub(crate) fn bench(wanted: &[String]) -> Result<String> {
    let all = suites()?;
    if let Some(unknown) = wanted.iter().find(|name| !all.contains(name)) {
        return Err(format!("unknown suite `{unknown}`: expected one of {}", all.join(", ")).into());
    }
    let chosen = if wanted.is_empty() { &all[..] } else { wanted };
    for suite in chosen {
        run_visibly(command(suite).env(WRITE_PAGES, "1"))?;
    }
    Ok(format!("bench: ran {}; see benches/results", chosen.join(", ")))
}

/// Returns the command for a suite. Each comparison has its own feature, so that only its rivals
/// are compiled.
fn command(suite: &str) -> Command {
    if let Some(name) = suite.strip_prefix(VERSUS) {
        cargo(["bench", "--package", "greenwave-versus", "--features", name, "--bench", name])
    } else {
        cargo(["bench", "--package", "greenwave-benches", "--bench", suite])
    }
}

/// Returns the names of the suites: the files of `benches/suites`, and those of
/// `benches/versus/suites` with a prefix.
fn suites() -> Result<Vec<String>> {
    let mut names = Vec::new();
    for (directory, prefix) in [("benches/suites", ""), ("benches/versus/suites", VERSUS)] {
        let Ok(entries) = fs::read_dir(root().join(directory)) else { continue };
        for entry in entries {
            let path = entry?.path();
            // A suite of several files has a directory as well.
            if path.extension().is_none_or(|extension| extension != "rs") {
                continue;
            }
            let name = path.file_stem().and_then(|name| name.to_str());
            names.extend(name.map(|name| format!("{prefix}{name}")));
        }
    }
    names.sort();
    Ok(names)
}
