//! The Rust toolchain that builds a workspace.

use std::path::{Path, PathBuf};
use std::str::FromStr;

use cargo_platform::Cfg;

use super::metadata::tool;
use crate::{Environment, Test};

/// Properties of the compiler and of the target that it builds for.
#[derive(Debug, Default)]
pub(super) struct Toolchain {
    /// Directory of the toolchain.
    pub(super) root: PathBuf,
    /// Directory of the target's dynamic libraries.
    pub(super) libraries: PathBuf,
    /// Name of the target.
    pub(super) triple: String,
    /// Configuration of the target.
    pub(super) cfgs: Vec<Cfg>,
}

impl Toolchain {
    /// Runs the compiler in a directory, where rustup selects the toolchain; `None` if it fails.
    pub(super) async fn query(
        directory: &Path,
        environment: &Environment,
        tests: &[&Test],
        target: Option<&str>,
    ) -> Option<Self> {
        let mut command = tool("rustc", directory, environment, tests);
        command.args(["--print", "sysroot", "--print", "target-libdir", "--print", "cfg"]);
        command.args(target.into_iter().flat_map(|target| ["--target", target]));
        let output = environment.output(&mut command).await.ok()?;
        Self::parse(std::str::from_utf8(&output.stdout).ok()?)
    }

    fn parse(text: &str) -> Option<Self> {
        let mut lines = text.lines();
        let (root, libraries) = (PathBuf::from(lines.next()?), PathBuf::from(lines.next()?));
        // The libraries are in `lib/rustlib/TRIPLE/lib`.
        let triple = libraries.parent()?.file_name()?.to_string_lossy().into_owned();
        let cfgs = lines.filter_map(|line| Cfg::from_str(line).ok()).collect();
        Some(Self { root, libraries, triple, cfgs })
    }

    /// Returns a program of the toolchain; its plain name if the toolchain does not contain it.
    pub(super) fn program(&self, name: &str) -> PathBuf {
        let path = self.root.join("bin").join(name);
        if path.is_file() { path } else { PathBuf::from(name) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_target_is_read_from_the_directory_of_its_libraries() {
        let text = "/t\n/t/lib/rustlib/wasm32-wasip1/lib\ndebug_assertions\ntarget_os=\"wasi\"\n";
        let toolchain = Toolchain::parse(text).unwrap();
        assert_eq!((toolchain.triple.as_str(), toolchain.cfgs.len()), ("wasm32-wasip1", 2));
        assert_eq!(toolchain.program("cargo"), Path::new("cargo"));
        assert!(Toolchain::parse("").is_none());
    }
}
