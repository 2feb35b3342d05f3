//! Packages for npm: one with the program for each target, and one that starts the right one.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use super::{Build, Release};
use crate::Result;
use crate::process::{output_of, root};

const LAUNCHER: &str = include_str!("launcher.js");

/// Packs the packages. Returns the names of their files.
pub(super) fn pack(release: &Release, builds: &[Build]) -> Result<Vec<String>> {
    let mut packages = Vec::new();
    let mut programs = serde_json::Map::new();
    for build in builds {
        let name = package_name(build);
        let directory = release.out.join("trees/npm").join(&name);
        fs::create_dir_all(directory.join("bin"))?;
        fs::copy(build.program(), directory.join("bin/greenwave"))?;
        let mut manifest = manifest(release, &name);
        manifest["os"] = json!(["linux"]);
        manifest["cpu"] = json!([processor(build)]);
        manifest["files"] = json!(["bin"]);
        packages.push(pack_directory(release, &directory, &manifest)?);
        programs.insert(name, json!(release.version));
    }
    let directory = release.out.join("trees/npm/greenwave");
    fs::create_dir_all(&directory)?;
    let launcher = directory.join("launcher.js");
    fs::write(&launcher, LAUNCHER)?;
    fs::set_permissions(&launcher, fs::Permissions::from_mode(0o755))?;
    fs::copy(root().join("crates/greenwave-cli/README.md"), directory.join("README.md"))?;
    let mut manifest = manifest(release, "greenwave");
    manifest["bin"] = json!({ "greenwave": "launcher.js" });
    manifest["engines"] = json!({ "node": ">=18" });
    manifest["files"] = json!(["launcher.js"]);
    manifest["optionalDependencies"] = Value::Object(programs);
    packages.push(pack_directory(release, &directory, &manifest)?);
    Ok(packages)
}

/// Returns the file name of a package.
pub(super) fn file_name(release: &Release, package: &str) -> String {
    format!("{package}-{}.tgz", release.version)
}

/// Returns the name of the package with a target's program: `greenwave-`, then the platform and the
/// processor as Node.js names them.
pub(super) fn package_name(build: &Build) -> String {
    format!("greenwave-linux-{}", processor(build))
}

fn processor(build: &Build) -> &str {
    match build.processor() {
        "x86_64" => "x64",
        "aarch64" => "arm64",
        other => other,
    }
}

fn manifest(release: &Release, name: &str) -> Value {
    json!({
        "name": name,
        "version": release.version,
        "description": release.description,
        "license": release.license,
    })
}

fn pack_directory(release: &Release, directory: &Path, manifest: &Value) -> Result<String> {
    fs::write(directory.join("package.json"), serde_json::to_string_pretty(manifest)?)?;
    let mut command = Command::new("npm");
    command.args(["pack", "--silent", "--pack-destination"]).arg(&release.out).current_dir(directory);
    Ok(output_of(&mut command)?.trim().to_owned())
}
