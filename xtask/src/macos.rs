//! Checks that the workspace compiles for macOS, on any machine with a Rust toolchain.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use crate::Result;
use crate::process::{cargo, output_of, root};

const TARGET: &str = "x86_64-apple-darwin";

/// Replaces a C compiler of the target. A check links nothing, so the objects of C libraries may
/// be empty. Preprocessing shows build scripts the kind of the compiler.
const COMPILER: &str = r#"#!/bin/sh
object=
previous=
for argument in "$@"; do
    if [ "$previous" = -o ]; then object=$argument; fi
    if [ "$argument" = -E ]; then exec cc "$@"; fi
    previous=$argument
done
exec cc -x c -c /dev/null -o "$object"
"#;

/// Checks all targets of all packages, except for the comparisons with other crates.
///
/// # Errors
/// If the target is not installed or something does not compile.
pub(crate) fn macos() -> Result<String> {
    let mut query = Command::new("rustc");
    let libraries = output_of(query.args(["--print=target-libdir", "--target", TARGET]).current_dir(root()))?;
    if !Path::new(libraries.trim()).is_dir() {
        return Err(format!("cannot check {TARGET}: run `rustup target add {TARGET}` first").into());
    }
    let compiler = root().join("target/macos-cc");
    fs::create_dir_all(root().join("target"))?;
    fs::write(&compiler, COMPILER)?;
    fs::set_permissions(&compiler, fs::Permissions::from_mode(0o755))?;
    let mut check = cargo(["check", "--quiet", "--workspace", "--exclude=greenwave-versus", "--all-targets"]);
    check.args(["--target", TARGET]);
    for variable in ["CC", "CXX"] {
        check.env(format!("{variable}_{}", TARGET.replace('-', "_")), &compiler);
    }
    check.env(format!("AR_{}", TARGET.replace('-', "_")), "ar");
    output_of(&mut check)?;
    Ok(format!("macos: all targets compile for {TARGET}"))
}
