//! Runs fuzz targets with cargo-fuzz on the compiler that is there. Knows nothing of what they feed.

use std::fs;

use crate::Result;
use crate::program::{cargo, output_of, root, watch};

/// Runs each target of each crate, or those named, for some seconds, from the corpus that stands beside it.
///
/// # Errors
/// If there is none of a name, cargo-fuzz is not installed, or a target fails.
pub(crate) fn fuzz(wanted: &[String], seconds: u64) -> Result<String> {
    let all = targets()?;
    if let Some(unknown) = wanted.iter().find(|name| !all.iter().any(|(_, target)| target == *name)) {
        let names: Vec<_> = all.iter().map(|(_, target)| target).collect();
        return Err(format!("there is no fuzz target `{unknown}` among {names:?}").into());
    }
    if all.is_empty() {
        return Err("there are no fuzz targets".into());
    }
    output_of(&mut cargo(["fuzz", "--version"]))
        .map_err(|_| "cargo-fuzz is not there; `cargo install cargo-fuzz` brings it")?;
    let mut done = Vec::new();
    for (folder, target) in all.iter().filter(|(_, target)| wanted.is_empty() || wanted.contains(target)) {
        let mut command = cargo(["fuzz", "run", "--fuzz-dir", folder, "--sanitizer", "none", target]);
        // What is found goes to `corpus`, which is not committed; the seeds are.
        command.args([format!("{folder}/corpus/{target}"), format!("{folder}/seeds/{target}")]);
        command.args(["--".to_owned(), format!("-max_total_time={seconds}"), "-timeout=10".to_owned()]);
        fs::create_dir_all(root().join(folder).join("corpus").join(target))?;
        // The flags for coverage are not stable.
        watch(command.env("RUSTC_BOOTSTRAP", "1"))?;
        done.push(target.as_str());
    }
    Ok(format!("fuzz: {seconds} s each without a finding: {}", done.join(", ")))
}

/// Folder and name of each target: the files in `crates/*/fuzz/targets`.
fn targets() -> Result<Vec<(String, String)>> {
    let mut targets = Vec::new();
    for krate in fs::read_dir(root().join("crates"))? {
        let krate = krate?.file_name().to_string_lossy().into_owned();
        let folder = format!("crates/{krate}/fuzz");
        let Ok(files) = fs::read_dir(root().join(&folder).join("targets")) else { continue };
        for file in files {
            let path = file?.path();
            let name = path.file_stem().and_then(|name| name.to_str());
            targets.extend(name.map(|name| (folder.clone(), name.to_owned())));
        }
    }
    targets.sort();
    Ok(targets)
}
