//! Packages the crates as for publication, and builds their examples and a program that uses them
//! from the packages, apart from the workspace.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use cargo_metadata::{Package, TargetKind};

use crate::Result;
use crate::process::{cargo, output_of, root, run_visibly};
use crate::workspace::Workspace;

/// The program, in a package that is no member of the workspace.
const PROGRAM: &str = "xtask/outside";

/// Builds all examples from the packages, and runs the program, which starts Redis and PostgreSQL.
///
/// # Errors
/// If a crate cannot be packaged, an example does not compile, or the program fails.
pub(crate) fn outside() -> Result<String> {
    let workspace = Workspace::load()?;
    let published: Vec<&Package> =
        workspace.members().into_iter().filter(|package| package.publish.is_none()).collect();
    // Cargo would look for a workspace in the directories above.
    let base = tempfile::tempdir()?;
    let packages = unpack(base.path(), &published)?;
    let mut examples = 0;
    for (package, directory) in published.iter().zip(&packages) {
        examples += build_examples(package, directory, &published, &packages)?;
    }
    let program = base.path().join("program");
    fs::create_dir_all(program.join("src"))?;
    for file in ["Cargo.toml", "src/main.rs"] {
        fs::copy(root().join(PROGRAM).join(file), program.join(file))?;
    }
    let mut run = Command::new("cargo");
    run.args(["run", "--quiet"]).current_dir(program);
    run_visibly(with_packages(&mut run, &published, &packages))?;
    Ok(format!("outside: {} packages, {examples} examples, and a program with real servers", packages.len()))
}

/// Packages the crates, and returns the directory of each package's content.
fn unpack(base: &Path, published: &[&Package]) -> Result<Vec<PathBuf>> {
    let mut package = cargo(["package", "--quiet", "--no-verify", "--allow-dirty", "--target-dir"]);
    package.arg(base);
    package.args(published.iter().map(|package| format!("--package={}", package.name)));
    output_of(&mut package)?;
    let archives = base.join("package");
    let directory = |package: &&Package| -> Result<PathBuf> {
        let name = format!("{}-{}", package.name, package.version);
        let directory = archives.join(&name);
        let archive = format!("{name}.crate");
        output_of(
            Command::new("tar").args(["--extract", "--gzip", "--file", &archive]).current_dir(&archives),
        )?;
        Ok(directory)
    };
    published.iter().map(directory).collect()
}

/// Builds the examples of a package with the features that they need. Returns their number.
fn build_examples(
    package: &Package,
    directory: &Path,
    published: &[&Package],
    packages: &[PathBuf],
) -> Result<usize> {
    let is_example = |target: &&cargo_metadata::Target| target.kind.contains(&TargetKind::Example);
    let examples: Vec<_> = package.targets.iter().filter(is_example).collect();
    if examples.is_empty() {
        return Ok(0);
    }
    let mut features: Vec<&str> =
        examples.iter().flat_map(|example| &example.required_features).map(String::as_str).collect();
    features.sort_unstable();
    features.dedup();
    let mut build = Command::new("cargo");
    build.args(["build", "--quiet", "--examples", "--features", &features.join(",")]);
    build.current_dir(directory);
    output_of(with_packages(&mut build, published, packages))?;
    Ok(examples.len())
}

/// Has a call of cargo take the crates from their packages instead of a registry.
fn with_packages<'c>(
    command: &'c mut Command,
    published: &[&Package],
    packages: &[PathBuf],
) -> &'c mut Command {
    for (package, directory) in published.iter().zip(packages) {
        let patch = format!("patch.crates-io.{}.path={:?}", package.name, directory.display().to_string());
        command.args(["--config", &patch]);
    }
    command.env("CARGO_TARGET_DIR", root().join("target/outside/build"))
}
