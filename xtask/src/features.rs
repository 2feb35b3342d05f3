//! Compiles each library crate with each of its features, apart from the other crates.
//!
//! In a build of the whole workspace, cargo unifies features: a crate that forgets to enable a
//! feature compiles because another crate enables it. Here each crate is checked without features,
//! with its default ones, and with each one alone. Each feature is also enabled beneath the crates
//! that depend on its crate, which do not ask for it.

use cargo_metadata::{DependencyKind, Metadata, MetadataCommand, Package};

use crate::Result;
use crate::process::{cargo, output_of, root};

/// The crates with features that users take one by one.
const CRATES: [&str; 8] = [
    "greenwave-cache",
    "greenwave-pooling",
    "greenwave-process",
    "greenwave-retry",
    "greenwave-scheduler",
    "greenwave-segment",
    "greenwave-storage",
    "greenwave-streaming",
];

/// Features whose clients of servers take longer to compile than all the rest. The steps `unified`
/// and `object` compile them.
const CLIENTS: [&str; 8] =
    ["memcached", "redis", "redis-tls", "object", "object-https", "object-s3", "object-gcs", "object-azure"];

/// Features that the step `unified` compiles, and that are not combined with others, because their
/// packages are not among [`CRATES`].
#[cfg(test)]
const UNIFIED: [(&str, &str); 13] = [
    ("greenwave-agents", "http"),
    ("greenwave-agents", "recording"),
    ("greenwave", "http-agents"),
    ("greenwave", "remote"),
    ("greenwave", "remote-objects"),
    ("greenwave", "remote-reapi"),
    ("greenwave-cli", "completions"),
    ("greenwave-cli", "http-agents"),
    ("greenwave-cli", "mcp"),
    ("greenwave-cli", "otel"),
    ("greenwave-cli", "remote"),
    ("greenwave-cli", "remote-objects"),
    ("greenwave-cli", "remote-reapi"),
];

/// Checks every combination.
///
/// # Errors
/// Returns the errors of the compiler for the first combination that fails.
pub(crate) fn features() -> Result<String> {
    let metadata = MetadataCommand::new().current_dir(root()).no_deps().exec()?;
    let combinations = combinations(&metadata)?;
    for combination in &combinations {
        output_of(&mut cargo(
            ["check", "--quiet"].into_iter().chain(combination.iter().map(String::as_str)),
        ))?;
    }
    Ok(format!("features: {} combinations compile", combinations.len()))
}

/// Returns the arguments of `cargo check` for each combination.
fn combinations(metadata: &Metadata) -> Result<Vec<Vec<String>>> {
    let mut all = Vec::new();
    for name in CRATES {
        let package = find(metadata, name).ok_or_else(|| format!("no package {name}"))?;
        let one = format!("--package={name}");
        let alone = [one.clone(), "--no-default-features".to_owned()];
        all.push(alone.to_vec());
        if package.features.contains_key("default") {
            all.push(vec![one.clone()]);
        }
        let users = users(metadata, name);
        for feature in single_features(package) {
            all.push([&alone[..], &[format!("--features={feature}")]].concat());
            if !users.is_empty() {
                all.push([&[one.clone(), format!("--features={name}/{feature}")], &users[..]].concat());
            }
        }
    }
    Ok(all)
}

fn single_features(package: &Package) -> impl Iterator<Item = &str> {
    let names = package.features.keys().map(String::as_str);
    names.filter(|name| *name != "default" && !CLIENTS.contains(name))
}

/// Returns the arguments that select the other crates that depend on one.
fn users(metadata: &Metadata, name: &str) -> Vec<String> {
    let uses = |user: &&str| {
        let dependencies = find(metadata, user).into_iter().flat_map(|package| &package.dependencies);
        let mut normal = dependencies.filter(|dependency| dependency.kind == DependencyKind::Normal);
        *user != name && normal.any(|dependency| dependency.name == name)
    };
    CRATES.into_iter().filter(uses).map(|user| format!("--package={user}")).collect()
}

fn find<'m>(metadata: &'m Metadata, name: &str) -> Option<&'m Package> {
    metadata.packages.iter().find(|package| package.name.as_str() == name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_library_with_several_features_is_checked() {
        let metadata = MetadataCommand::new().current_dir(root()).no_deps().exec().unwrap();
        let shown: Vec<String> = combinations(&metadata).unwrap().iter().map(|args| args.join(" ")).collect();
        for expected in [
            "--package=greenwave-cache",
            "--package=greenwave-cache --no-default-features",
            "--package=greenwave-scheduler --no-default-features --features=jobserver",
            "--package=greenwave-process --features=greenwave-process/jobserver \
             --package=greenwave-pooling --package=greenwave-scheduler",
        ] {
            assert!(shown.iter().any(|args| args == expected), "{expected} is missing in {shown:#?}");
        }
        let has_choice = |package: &&Package| {
            let mut names = package.features.keys().filter(|name| *name != "conformance");
            package.manifest_path.starts_with(root().join("crates").to_str().unwrap())
                && names.any(|name| !UNIFIED.contains(&(&**package.name, name.as_str())))
        };
        for package in metadata.packages.iter().filter(has_choice) {
            assert!(CRATES.contains(&package.name.as_str()), "{} is not checked", package.name);
        }
        // A feature that is renamed must not stay in the list.
        for client in CLIENTS {
            let has_client = |package: &Package| package.features.contains_key(client);
            assert!(metadata.packages.iter().any(has_client), "no crate has the feature {client}");
        }
    }
}
