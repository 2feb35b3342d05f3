//! A compressed archive of each target, and a script that downloads, verifies and unpacks it.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use super::{Build, Release};
use crate::Result;
use crate::process::output_of;

const SCRIPT: &str = include_str!("install.sh");

/// Name of the install script.
pub(super) const SCRIPT_NAME: &str = "install.sh";

/// Returns the file name of a target's archive, as in `[package.metadata.binstall]` of the program.
pub(super) fn name(release: &Release, target: &str) -> String {
    format!("greenwave-{}-{target}.tar.gz", release.version)
}

/// Packs the files of a target. Equal files give equal archives.
pub(super) fn pack(release: &Release, build: &Build) -> Result<String> {
    let name = name(release, &build.target);
    let (parent, tree) = (build.tree.parent().ok_or("no parent")?, build.tree.file_name().ok_or("no name")?);
    let mut command = Command::new("tar");
    command.args(["--create", "--sort=name", "--owner=0", "--group=0", "--numeric-owner"]);
    command.arg(format!("--mtime=@{}", release.timestamp)).args(["--use-compress-program", "gzip -9 -n"]);
    command.arg("--file").arg(release.out.join(&name)).arg("--directory").arg(parent).arg(tree);
    output_of(&mut command)?;
    Ok(name)
}

/// Writes the install script, which states the SHA-256 of each archive.
pub(super) fn write_install_script(release: &Release, builds: &[Build], url: Option<&str>) -> Result<String> {
    let (mut cases, mut sums) = (String::new(), String::new());
    for build in builds {
        let archive = name(release, &build.target);
        let sum = sha256(&release.out.join(&archive))?;
        cases.push_str(&format!("    {}) archive={archive} sum={sum} ;;\n", system(build)));
        sums.push_str(&format!("{sum}  {archive}\n"));
    }
    let script = SCRIPT.replace("@VERSION@", &release.version).replace("    @CASES@\n", &cases);
    let file = release.out.join(SCRIPT_NAME);
    fs::write(&file, script.replace("@URL@", url.unwrap_or_default()))?;
    fs::set_permissions(&file, fs::Permissions::from_mode(0o755))?;
    fs::write(release.out.join("SHA256SUMS"), sums)?;
    Ok(SCRIPT_NAME.to_owned())
}

/// Returns the pattern of `uname -sm` on systems that run the program.
fn system(build: &Build) -> String {
    match build.processor() {
        "aarch64" => "\"Linux aarch64\" | \"Linux arm64\"".to_owned(),
        processor => format!("\"Linux {processor}\""),
    }
}

fn sha256(file: &Path) -> Result<String> {
    let printed = output_of(Command::new("sha256sum").arg("--binary").arg(file))?;
    Ok(printed.split_whitespace().next().ok_or("sha256sum printed nothing")?.to_owned())
}
