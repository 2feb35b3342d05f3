//! Builds library crates with the oldest compilers that their manifests state.

use std::collections::BTreeMap;
use std::process::Command;

use crate::Result;
use crate::process::{output_of, root};
use crate::workspace::Workspace;

/// Checks each library crate with its `rust-version`, in its default features. Crates that need the
/// compiler of the whole workspace are checked by every other command.
///
/// # Errors
/// If a toolchain is not installed or a crate does not compile.
pub(crate) fn msrv() -> Result<String> {
    let workspace = Workspace::load()?;
    let members = workspace.members();
    let newest = members.iter().filter_map(|package| package.rust_version.clone()).max();
    let mut crates: BTreeMap<String, Vec<&str>> = BTreeMap::new();
    for package in members {
        let version = package.rust_version.as_ref();
        if let Some(version) = version.filter(|version| newest.as_ref() > Some(*version)) {
            crates.entry(version.to_string()).or_default().push(package.name.as_str());
        }
    }
    let mut checked = Vec::new();
    for (version, packages) in &crates {
        // The name is that of the toolchain which `rustup toolchain install VERSION` installs.
        let mut check = Command::new("rustup");
        check.args(["run", version, "cargo", "check", "--quiet", "--locked", "--lib"]).current_dir(root());
        check.args(packages.iter().map(|package| format!("--package={package}")));
        // The artifacts of another compiler would replace those of the usual one.
        check.env("CARGO_TARGET_DIR", root().join("target/msrv")).env_remove("RUSTC");
        output_of(&mut check)
            .map_err(|error| format!("{error}\nhint: run `rustup toolchain install {version}` first"))?;
        checked.push(format!("{} crates compile with Rust {version}", packages.len()));
    }
    Ok(format!("msrv: {}", checked.join(", ")))
}
