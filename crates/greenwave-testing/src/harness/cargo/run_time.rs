//! The variables, library path and launcher that cargo gives to the programs that it runs.

use std::collections::{BTreeMap, HashSet};
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

use super::HARNESS;
use super::config::{CargoConfig, ConfigVariable};
use super::metadata::{Metadata, Package};
use super::toolchain::Toolchain;
use super::variables::VARIABLES;
use crate::harness::build::BuildRequest;
use crate::run::isolation::cargo_home;
use crate::run::toolchain::resolve;

/// Variable with the search path of dynamic libraries.
pub(super) const LIBRARY_PATH: &str =
    if cfg!(target_os = "macos") { "DYLD_FALLBACK_LIBRARY_PATH" } else { "LD_LIBRARY_PATH" };
/// Subdirectory of the target directory that `cargo test` builds into.
const PROFILE: &str = "debug";

/// Everything that cargo adds to a program beside what its package says.
#[derive(Debug)]
pub(super) struct RunTime {
    config: CargoConfig,
    toolchain: Toolchain,
    /// Whether cargo builds for a named target, into directories for this target.
    has_target: bool,
    /// Variables of `[env]` that do not yield to those of the user.
    variables: BTreeMap<String, OsString>,
    /// The user's search path of dynamic libraries, if tests see it.
    libraries: Option<OsString>,
}

impl RunTime {
    /// Reads cargo's configuration of a directory, and asks the compiler about its target.
    pub(super) async fn of(request: &BuildRequest<'_>) -> Self {
        let BuildRequest { project, directory, environment, tests } = *request;
        let at = project.join(directory);
        let config = CargoConfig::read(&at, cargo_home(environment).as_deref());
        let target = config.target(environment);
        let toolchain = Toolchain::query(&at, environment, tests, target.as_deref()).await;
        let declared = tests.iter().flat_map(|test| test.env.iter().cloned());
        let declared: Vec<String> = declared.chain(VARIABLES.map(str::to_owned)).collect();
        let visible = environment.visible(&declared);
        let of_user = |name: &str| visible.get(name).map(|value| (*value).to_owned());
        let mut variables = BTreeMap::new();
        for (name, ConfigVariable { value, force }) in config.variables() {
            if force || of_user(&name).is_none() {
                variables.insert(name, value);
            }
        }
        Self {
            config,
            toolchain: toolchain.unwrap_or_default(),
            has_target: target.is_some(),
            variables,
            libraries: of_user(LIBRARY_PATH),
        }
    }

    /// Returns the variables of a package's programs, without the variables of its build script
    /// (<https://doc.rust-lang.org/cargo/reference/environment-variables.html>).
    pub(super) fn variables(&self, package: &Package) -> Vec<(OsString, OsString)> {
        let configured = self.variables.iter().map(|(name, value)| (name.into(), value.clone()));
        let cargo = ("CARGO".into(), self.toolchain.program(HARNESS).into());
        // Cargo's own values override the configured ones.
        configured.chain([cargo]).chain(package_variables(package)).collect()
    }

    /// Returns the search path of dynamic libraries. `linked` are the paths that build scripts
    /// name. Cargo adds the paths inside its own directories.
    pub(super) fn library_path(&self, metadata: &Metadata, linked: &[PathBuf]) -> Option<OsString> {
        let triple = self.has_target.then_some(self.toolchain.triple.as_str());
        let in_profile = |root: &PathBuf| root.join(triple.unwrap_or_default()).join(PROFILE);
        let products = in_profile(&metadata.target_directory);
        let intermediate = metadata.build_directory.as_ref().map_or(products.clone(), in_profile);
        let mut paths: Vec<PathBuf> = linked.iter().map(|path| without_kind(path)).collect();
        paths.retain(|path| path.starts_with(&products) || path.starts_with(&intermediate));
        paths.extend([intermediate.join("deps"), products, self.toolchain.libraries.clone()]);
        paths.extend(self.libraries.iter().flat_map(std::env::split_paths));
        let mut seen = HashSet::new();
        paths.retain(|path| !path.as_os_str().is_empty() && seen.insert(path.clone()));
        std::env::join_paths(paths).ok()
    }

    /// Returns the command that runs programs of the target: a program and its first arguments.
    pub(super) fn runner(&self, request: &BuildRequest<'_>) -> Vec<OsString> {
        let Toolchain { triple, cfgs, .. } = &self.toolchain;
        let mut runner = self.config.runner(triple, cfgs, request.environment);
        if let Some(program) = runner.first_mut() {
            *program = found(request, Path::new(program)).into();
        }
        runner
    }

    /// Returns the program that runs documentation tests.
    pub(super) fn rustdoc(&self, request: &BuildRequest<'_>) -> PathBuf {
        let set = request.environment.get("RUSTDOC").map(PathBuf::from);
        let configured = set.or_else(|| self.config.rustdoc());
        found(request, &configured.unwrap_or_else(|| self.toolchain.program("rustdoc")))
    }
}

/// Returns the path of a program that may be a plain name on the PATH.
fn found(request: &BuildRequest<'_>, program: &Path) -> PathBuf {
    let at = request.project.join(request.directory);
    let path = program.to_str().and_then(|name| resolve(name, &at, request.environment.get("PATH")));
    path.unwrap_or_else(|| program.to_owned())
}

/// Removes the kind from a path that a build script adds for the linker: `native=PATH`.
fn without_kind(path: &Path) -> PathBuf {
    let split = path.to_str().and_then(|text| text.split_once('='));
    match split {
        Some(("native" | "crate" | "dependency" | "framework" | "all", path)) => PathBuf::from(path),
        _ => path.to_owned(),
    }
}

fn package_variables(package: &Package) -> Vec<(OsString, OsString)> {
    let directory = package.directory().unwrap_or(Path::new(""));
    let (release, _) = package.version.split_once('+').unwrap_or((&package.version, ""));
    let (numbers, pre) = release.split_once('-').unwrap_or((release, ""));
    let mut numbers = numbers.split('.');
    let mut number = || numbers.next().unwrap_or_default().to_owned();
    let text = |field: &Option<String>| field.clone().unwrap_or_default();
    let texts = [
        ("CARGO_PKG_NAME", package.name.clone()),
        ("CARGO_PKG_VERSION", package.version.clone()),
        ("CARGO_PKG_VERSION_MAJOR", number()),
        ("CARGO_PKG_VERSION_MINOR", number()),
        ("CARGO_PKG_VERSION_PATCH", number()),
        ("CARGO_PKG_VERSION_PRE", pre.to_owned()),
        ("CARGO_PKG_AUTHORS", package.authors.join(":")),
        ("CARGO_PKG_DESCRIPTION", text(&package.description)),
        ("CARGO_PKG_HOMEPAGE", text(&package.homepage)),
        ("CARGO_PKG_REPOSITORY", text(&package.repository)),
        ("CARGO_PKG_LICENSE", text(&package.license)),
        ("CARGO_PKG_LICENSE_FILE", text(&package.license_file)),
        ("CARGO_PKG_RUST_VERSION", text(&package.rust_version)),
        ("CARGO_PKG_README", text(&package.readme)),
    ];
    let paths = [
        ("CARGO_MANIFEST_DIR", directory.as_os_str()),
        ("CARGO_MANIFEST_PATH", package.manifest_path.as_os_str()),
    ];
    let paths = paths.into_iter().map(|(name, path): (&str, &OsStr)| (name.into(), path.to_owned()));
    paths.chain(texts.into_iter().map(|(name, text)| (name.into(), text.into()))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_split_as_cargo_does() {
        let text = r#"{"id":"","name":"p","version":"1.2.3-rc.1+b-2","manifest_path":"/w/p/Cargo.toml",
            "targets":[],"dependencies":[],"authors":["A <a@x>","B"],"readme":"README.md"}"#;
        let package: Package = serde_json::from_str(text).unwrap();
        let variables: BTreeMap<OsString, OsString> = package_variables(&package).into_iter().collect();
        let check = |name: &str, expected: &str| {
            assert_eq!(variables[OsStr::new(&format!("CARGO_{name}"))], OsString::from(expected), "{name}");
        };
        for (name, expected) in [("MAJOR", "1"), ("MINOR", "2"), ("PATCH", "3"), ("PRE", "rc.1")] {
            check(&format!("PKG_VERSION_{name}"), expected);
        }
        check("PKG_AUTHORS", "A <a@x>:B");
        check("PKG_README", "README.md");
        check("PKG_LICENSE", "");
        check("MANIFEST_DIR", "/w/p");
    }

    #[test]
    fn paths_of_build_scripts_may_name_a_kind() {
        let check = |path: &str, expected: &str| {
            assert_eq!(without_kind(Path::new(path)), Path::new(expected));
        };
        check("native=/a=b", "/a=b");
        check("/a=b", "/a=b");
        check("/a", "/a");
    }
}
