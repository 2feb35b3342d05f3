//! Reads the list of public projects, `xtask/field.toml`.

use std::fs;

use serde::Deserialize;

use crate::Result;
use crate::process::root;

/// A public project, as the list describes it.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Project {
    /// Name of the package in its registry.
    pub(super) name: String,
    pub(super) source: Registry,
    pub(super) version: String,
    pub(super) runner: Runner,
    /// Packages that the tests need.
    #[serde(default)]
    pub(super) packages: Vec<String>,
    /// Path of the module, for a Go package without a manifest.
    pub(super) module: Option<String>,
    /// Whether CI runs it.
    #[serde(default)]
    pub(super) quick: bool,
}

/// Where the sources come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Registry {
    Pypi,
    Crates,
    Npm,
    /// Source packages of Debian.
    Debian,
}

/// The project's own test runner.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Runner {
    Pytest,
    Cargo,
    Go,
    Npm,
    Ctest,
}

impl Runner {
    /// Returns the runner's name, as it is typed.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Pytest => "pytest",
            Self::Cargo => "cargo",
            Self::Go => "go",
            Self::Npm => "npm",
            Self::Ctest => "ctest",
        }
    }

    /// Returns how many workers both runners get, of `cores`. pytest, ctest and the scripts of npm
    /// run tests one after another by default.
    pub(super) fn workers(self, cores: usize) -> usize {
        match self {
            Self::Cargo | Self::Go => cores,
            Self::Pytest | Self::Npm | Self::Ctest => 1,
        }
    }
}

/// Reads the list.
///
/// # Errors
/// If the list is missing or invalid.
pub(super) fn projects() -> Result<Vec<Project>> {
    let path = root().join("xtask/field.toml");
    let text = fs::read_to_string(&path).map_err(|error| format!("cannot read xtask/field.toml: {error}"))?;
    parse(&text)
}

fn parse(text: &str) -> Result<Vec<Project>> {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct List {
        project: Vec<Project>,
    }
    Ok(toml::from_str::<List>(text)?.project)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn the_list_has_twenty_projects_with_distinct_names_and_three_for_ci() {
        let projects = projects().expect("the list is valid");
        let names: BTreeSet<_> = projects.iter().map(|project| &project.name).collect();
        assert_eq!((names.len(), projects.len()), (20, 20));
        assert_eq!(projects.iter().filter(|project| project.quick).count(), 3);
        let runners: BTreeSet<_> = projects.iter().map(|project| project.runner.name()).collect();
        assert_eq!(runners.len(), 5, "{runners:?}");
    }

    #[test]
    fn unknown_keys_are_rejected() {
        assert!(
            parse("[[project]]\nname = \"a\"\nsource = \"pypi\"\nversion = \"1\"\nrunner = \"pytest\"")
                .is_ok()
        );
        assert!(parse("[[project]]\nname = \"a\"\nsource = \"pypi\"\nrunner = \"pytest\"").is_err());
        assert!(
            parse("[[project]]\nname = \"a\"\nsource = \"pypi\"\nversion = \"1\"\nrunner = \"pytest\"\nfast = true").is_err()
        );
    }
}
