//! Runs fuzz targets with cargo-fuzz on the installed stable compiler.

use std::fs;

use crate::Result;
use crate::process::{cargo, output_of, root, run_visibly};

/// Runs the named fuzz targets, or all of them, for a number of seconds each. Every target starts
/// from its seeds.
///
/// # Errors
/// If a name is unknown, cargo-fuzz is not installed, or a target fails.
pub(crate) fn fuzz(wanted: &[String], seconds: u64) -> Result<String> {
    let all = targets()?;
    if let Some(unknown) = wanted.iter().find(|name| !all.iter().any(|(_, target)| target == *name)) {
        let names: Vec<_> = all.iter().map(|(_, target)| target.as_str()).collect();
        return Err(format!("unknown fuzz target `{unknown}`: expected one of {}", names.join(", ")).into());
    }
    if all.is_empty() {
        return Err("no fuzz targets in crates/*/fuzz/targets".into());
    }
    output_of(&mut cargo(["fuzz", "--version"]))
        .map_err(|_| "cargo-fuzz is not installed: run `cargo install cargo-fuzz`")?;
    let mut done = Vec::new();
    for (package, target) in all.iter().filter(|(_, target)| wanted.is_empty() || wanted.contains(target)) {
        run_target(package, target, seconds)?;
        done.push(target.as_str());
    }
    Ok(format!("fuzz: {seconds} s each without a finding: {}", done.join(", ")))
}

fn run_target(package: &str, target: &str, seconds: u64) -> Result<()> {
    let corpus = format!("{package}/corpus/{target}");
    fs::create_dir_all(root().join(&corpus))?;
    let mut command = cargo(["fuzz", "run", "--fuzz-dir", package, "--sanitizer", "none", target]);
    // New inputs are written to the first directory, which is not committed. The seeds are.
    command.args([corpus, format!("{package}/seeds/{target}")]);
    command.args(["--".to_owned(), format!("-max_total_time={seconds}"), "-timeout=10".to_owned()]);
    // The compiler flags for coverage are unstable.
    run_visibly(command.env("RUSTC_BOOTSTRAP", "1"))
}

/// Returns the package directory and the name of each target: the files in `crates/*/fuzz/targets`.
fn targets() -> Result<Vec<(String, String)>> {
    let mut targets = Vec::new();
    for entry in fs::read_dir(root().join("crates"))? {
        let package = format!("crates/{}/fuzz", entry?.file_name().to_string_lossy());
        let Ok(files) = fs::read_dir(root().join(&package).join("targets")) else { continue };
        for file in files {
            let path = file?.path();
            let name = path.file_stem().and_then(|name| name.to_str());
            targets.extend(name.map(|name| (package.clone(), name.to_owned())));
        }
    }
    targets.sort();
    Ok(targets)
}
