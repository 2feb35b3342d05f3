//! The features that may be on in a workspace, and the targets that require others.

use std::collections::{HashMap, HashSet};
use std::path::Path;

use super::metadata::{Metadata, Package, Target};

/// Feature that is on unless a dependency turns it off.
const DEFAULT: &str = "default";

/// The features of each package of a workspace that are on when all of its members are built.
///
/// Features that only some members or platforms turn on are included, so that a feature that is
/// missing here is certainly off.
#[derive(Debug, Default)]
pub(super) struct Features<'m> {
    enabled: HashMap<&'m Path, HashSet<&'m str>>,
}

impl<'m> Features<'m> {
    pub(super) fn of(metadata: &'m Metadata) -> Self {
        let by_directory: HashMap<&Path, &Package> =
            metadata.packages.iter().filter_map(|package| Some((package.directory()?, package))).collect();
        let mut features = Self::default();
        let mut waiting: Vec<(&Path, &str)> =
            by_directory.keys().map(|directory| (*directory, DEFAULT)).collect();
        for dependency in metadata.packages.iter().flat_map(|package| &package.dependencies) {
            let Some(path) = dependency.path.as_deref() else { continue };
            waiting.extend(dependency.features.iter().map(|feature| (path, feature.as_str())));
        }
        while let Some((directory, feature)) = waiting.pop() {
            let Some(package) = by_directory.get(directory) else { continue };
            if features.enabled.entry(directory).or_default().insert(feature) {
                let enabled = package.features.get(feature).into_iter().flatten();
                waiting.extend(enabled.flat_map(|enabled| enabled_by(package, directory, enabled)));
            }
        }
        features
    }

    /// Returns whether the features that a target requires may all be on. Features of
    /// dependencies (`dependency/feature`) always may.
    pub(super) fn may_build(&self, package: &Package, target: &Target) -> bool {
        let enabled = package.directory().and_then(|directory| self.enabled.get(directory));
        let may_be_on = |feature: &String| {
            feature.contains('/') || enabled.is_some_and(|enabled| enabled.contains(feature.as_str()))
        };
        target.required_features.iter().all(may_be_on)
    }
}

/// Returns the features that an entry of a feature turns on
/// (<https://doc.rust-lang.org/cargo/reference/features.html>).
fn enabled_by<'m>(package: &'m Package, directory: &'m Path, entry: &'m str) -> Vec<(&'m Path, &'m str)> {
    let Some((name, feature)) = entry.split_once('/') else { return vec![(directory, entry)] };
    let name = name.trim_end_matches('?');
    let is_named = |dependency: &&super::metadata::Dependency| {
        dependency.rename.as_deref().unwrap_or(&dependency.name) == name
    };
    let dependencies = package.dependencies.iter().filter(is_named);
    let of_dependency = dependencies.filter_map(|dependency| Some((dependency.path.as_deref()?, feature)));
    [(directory, name)].into_iter().chain(of_dependency).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn metadata() -> Metadata {
        let package = |name: &str, features: &str, dependencies: &str| {
            format!(
                r#"{{"id":"{name}","name":"{name}","version":"1.0.0","manifest_path":"/w/{name}/Cargo.toml",
                "targets":[],"features":{features},"dependencies":{dependencies}}}"#
            )
        };
        let packages = [
            package(
                "a",
                r#"{"default":["x"],"x":["b/y"],"z":[],"unused":["z"]}"#,
                r#"[{"name":"b","path":"/w/b"}]"#,
            ),
            package("b", r#"{"y":["w"],"w":[],"v":[],"u":[]}"#, "[]"),
            package("c", "{}", r#"[{"name":"b","rename":"d","path":"/w/b","features":["v"]}]"#),
        ];
        let text = format!(
            r#"{{"packages":[{}],"workspace_members":[],"workspace_root":"/w","target_directory":"/w/target"}}"#,
            packages.join(",")
        );
        serde_json::from_str(&text).unwrap()
    }

    #[test]
    fn a_target_is_built_if_the_features_that_it_requires_may_be_on() {
        let metadata = metadata();
        let features = Features::of(&metadata);
        let check = |package: usize, required: &[&str], expected: bool| {
            let required_features = required.iter().map(|it| (*it).to_owned()).collect();
            let target = Target { required_features, ..Target::default() };
            assert_eq!(features.may_build(&metadata.packages[package], &target), expected, "{required:?}");
        };
        check(0, &[], true);
        check(0, &["default", "x"], true);
        check(0, &["x", "z"], false);
        check(0, &["unused"], false);
        check(0, &["b/any"], true);
        check(1, &["y", "w", "v"], true);
        check(1, &["u"], false);
        check(2, &["none"], false);
    }
}
