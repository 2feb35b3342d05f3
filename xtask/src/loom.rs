//! Runs the loom models in `crates/*/loom`, which explore all interleavings of a few threads.

use std::fs;

use crate::Result;
use crate::process::{cargo, output_of, root};

/// Runs all models.
///
/// # Errors
/// If a model finds an interleaving that fails.
pub(crate) fn loom() -> Result<String> {
    let mut done = Vec::new();
    for entry in fs::read_dir(root().join("crates"))? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        let manifest = root().join("crates").join(&name).join("loom/Cargo.toml");
        if !manifest.is_file() {
            continue;
        }
        // The cfg replaces a crate's locks with loom's, so that everything is rebuilt: in a
        // separate directory.
        let target = root().join("target/loom");
        let mut command = cargo(["test", "--quiet", "--manifest-path"]);
        command.arg(&manifest).env("RUSTFLAGS", "--cfg greenwave_loom").env("CARGO_TARGET_DIR", target);
        output_of(&mut command)?;
        done.push(name);
    }
    done.sort();
    Ok(format!("loom: the models of {} pass", done.join(", ")))
}
