//! Runs the benchmarks and has them write their pages into `benches/results/`. Knows nothing of what they measure:
//! that, and how a page looks, stands in `benches/`.

use std::fs;

use crate::Result;
use crate::program::{cargo, root, watch};

/// Told to the suites by this variable: write pages, do not only print.
const WRITE: &str = "BENCH_PAGES";

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
        watch(cargo(["bench", "--package", "greenwave-benches", "--bench", suite]).env(WRITE, "1"))?;
    }
    Ok(format!("bench: ran {}; the pages are in benches/results", chosen.join(", ")))
}

fn suites() -> Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(root().join("benches/suites"))? {
        let path = entry?.path();
        names.extend(path.file_stem().and_then(|name| name.to_str()).map(str::to_owned));
    }
    names.sort();
    Ok(names)
}
