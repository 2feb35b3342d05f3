//! Limits the packages that a build of the program with default features compiles. Unlike the
//! processor time of a build, their number does not depend on the machine.

use std::collections::BTreeSet;

use crate::Result;
use crate::process::{cargo, output_of};

/// Maximum number of packages in the build, those of the workspace included.
const PACKAGES_MAX: usize = 156;

/// Packages that take long to compile: TLS and cryptography in C, clients of servers, code
/// generators. Only features of the program that are off by default may depend on them.
const SLOW: &[&str] = &[
    "async-memcached",
    "aws-lc-sys",
    "bindgen",
    "cmake",
    "h2",
    "openssl-sys",
    "prost",
    "redis",
    "reqwest",
    "ring",
    "rustls",
    "tokio-util",
    "tonic",
    "url",
];

/// Checks the default build of the program, and returns its number of packages and the violations.
///
/// # Errors
/// If cargo fails.
pub(super) fn check() -> Result<(usize, Vec<String>)> {
    // Without `dev`, the features are those of `cargo build`, not of `cargo test`.
    let args = [
        "tree",
        "--locked",
        "--package=greenwave-cli",
        "--edges=normal,build",
        "--prefix=none",
        "--format={p}",
    ];
    let tree = output_of(&mut cargo(args))?;
    let packages = packages(&tree);
    let violations = violations(&packages);
    Ok((packages.len(), violations))
}

/// Returns the packages, with versions, that `cargo tree` lists once or several times.
fn packages(tree: &str) -> BTreeSet<(&str, &str)> {
    let mut packages = BTreeSet::new();
    for line in tree.lines() {
        let mut words = line.split_whitespace();
        packages.extend(words.next().zip(words.next()));
    }
    packages
}

fn violations(packages: &BTreeSet<(&str, &str)>) -> Vec<String> {
    let slow = packages.iter().filter(|(name, _)| SLOW.contains(name));
    let mut violations: Vec<String> = slow
        .map(|(name, _)| {
            format!("the default build of greenwave-cli compiles {name}: put it behind a feature")
        })
        .collect();
    if packages.len() > PACKAGES_MAX {
        violations.push(format!(
            "the default build of greenwave-cli compiles {} packages, more than {PACKAGES_MAX}: \
             `cargo tree -p greenwave-cli -e normal,build` lists them",
            packages.len(),
        ));
    }
    violations
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packages_count_once_for_each_version() {
        let tree = "greenwave-cli v0.1.0 (/p)\nsyn v2.0.1\nsyn v3.0.1\nquote v1.0.0\nquote v1.0.0 (*)\n\n";
        let found = packages(tree);
        let expected =
            [("greenwave-cli", "v0.1.0"), ("quote", "v1.0.0"), ("syn", "v2.0.1"), ("syn", "v3.0.1")];
        assert_eq!(found.into_iter().collect::<Vec<_>>(), expected);
    }

    #[test]
    fn slow_packages_are_refused() {
        let found = violations(&packages("redis v1.0.0\nserde v1.0.0\n"));
        assert_eq!(found, ["the default build of greenwave-cli compiles redis: put it behind a feature"]);
    }

    #[test]
    fn too_many_packages_are_refused() {
        let line = |number| format!("p{number} v1.0.0\n");
        let most: String = (0..PACKAGES_MAX).map(line).collect();
        assert!(violations(&packages(&most)).is_empty());
        let more = most + &line(PACKAGES_MAX);
        let found = violations(&packages(&more));
        assert_eq!(found.len(), 1);
        assert!(found[0].contains("compiles 157 packages, more than 156"), "{found:?}");
    }
}
