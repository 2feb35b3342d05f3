//! Runs the models in `crates/*/loom`: every interleaving of a few threads. Knows nothing of what they model.

use std::fs;

use crate::Result;
use crate::program::{cargo, output_of, root};

/// Runs them all.
///
/// # Errors
/// What a model found.
pub(crate) fn loom() -> Result<String> {
    let mut done = Vec::new();
    for krate in fs::read_dir(root().join("crates"))? {
        let krate = krate?.file_name().to_string_lossy().into_owned();
        let manifest = root().join("crates").join(&krate).join("loom/Cargo.toml");
        if !manifest.is_file() {
            continue;
        }
        // With this cfg a crate's locks are loom's. Everything is built anew for it, in a folder of its own.
        let target = root().join("target/loom");
        let mut command = cargo(["test", "--quiet", "--manifest-path"]);
        command.arg(&manifest).env("RUSTFLAGS", "--cfg greenwave_loom").env("CARGO_TARGET_DIR", target);
        output_of(&mut command)?;
        done.push(krate);
    }
    done.sort();
    Ok(format!("loom: the models of {} hold", done.join(", ")))
}
