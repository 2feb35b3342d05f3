//! A wheel, the package format of Python, whose only content is the program.
//! Source: <https://packaging.python.org/en/latest/specifications/binary-distribution-format/>.

use std::process::Command;

use super::{Build, Release};
use crate::Result;
use crate::process::{output_of, root};

/// Packs the wheel of a target. Returns the name of its file.
pub(super) fn pack(release: &Release, build: &Build) -> Result<String> {
    let platform = platform(build);
    let name = format!("greenwave-{}-py3-none-{platform}.whl", release.version);
    let mut command = Command::new("python3");
    command.arg(root().join("xtask/src/dist/wheel.py")).arg(release.out.join(&name)).arg(build.program());
    command.arg(root().join("crates/greenwave-cli/README.md"));
    command.args([&release.version, &platform, &release.description, &release.license, &release.timestamp]);
    output_of(&mut command)?;
    Ok(name)
}

/// Returns the platform tag. A static program runs with any C library, old or new.
fn platform(build: &Build) -> String {
    let processor = build.processor();
    if build.target.ends_with("-musl") {
        return format!("manylinux_2_17_{processor}.musllinux_1_1_{processor}");
    }
    format!("linux_{processor}")
}
