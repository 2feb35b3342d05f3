//! Derives from scripts and manifests which directories the tools of a package write.

use std::path::{Path, PathBuf};

use serde_json::Value;

use super::package::Package;
use super::shell;
use crate::harness::project::within;

/// Tools by a word of a script, with the directories that they write in the package.
const WRITERS: [(&str, &[&str]); 8] = [
    ("vitest", &["node_modules/.vite", "node_modules/.vitest", "coverage"]),
    ("jest", &["coverage"]),
    ("c8", &["coverage"]),
    ("nyc", &["coverage", ".nyc_output"]),
    ("tap", &[".tap", ".nyc_output"]),
    ("ava", &["node_modules/.cache"]),
    ("turbo", &[".turbo", "node_modules/.cache"]),
    ("nx", &[".nx", "node_modules/.cache"]),
];

/// Directories that only tools write. Files in others may be sources.
const GENERATED: [&str; 4] = [".nyc_output", ".tap", ".turbo", ".nx"];

/// Arguments of these tools that name a directory for coverage, and the same keys in a manifest:
/// of jest, c8, nyc and vitest.
const FLAGS: [&str; 8] = [
    "--coverageDirectory",
    "--coverage-directory",
    "--reports-dir",
    "--reportsDirectory",
    "--report-dir",
    "--temp-dir",
    "--temp-directory",
    "--coverage.reportsDirectory",
];
/// Fields of a manifest that configure these tools.
const SETTINGS: [&str; 3] = ["jest", "nyc", "c8"];

/// Returns the directories that tools in a package's scripts write, relative to the project.
/// `directory` is that of the package.
pub(super) fn written_directories(directory: &Path, package: &Package) -> Vec<PathBuf> {
    let scripts = package.scripts.values().filter_map(Value::as_str);
    let commands: Vec<Vec<String>> = scripts
        .flat_map(|script| shell::split(script).commands)
        .map(|words| words.into_iter().map(|word| word.text).collect())
        .collect();
    let has = |tool: &str| commands.iter().flatten().any(|word| word.rsplit('/').next() == Some(tool));
    let by_default = WRITERS.iter().filter(|(tool, _)| has(tool)).flat_map(|(_, written)| *written);
    let chosen = commands.iter().flat_map(|words| named(words));
    let settings = SETTINGS.iter().filter_map(|tool| package.other.get(*tool)?.as_object());
    let configured = settings.flat_map(|table| {
        FLAGS.iter().filter_map(|flag| table.get(flag.trim_start_matches('-')).and_then(Value::as_str))
    });
    let configured = configured.map(|path| path.trim_start_matches("<rootDir>/").to_owned());
    let all = by_default.map(|path| (*path).to_owned()).chain(chosen).chain(configured);
    all.filter_map(|path| within(directory, &path)).filter(|path| path != directory).collect()
}

/// Returns whether only tools write into a directory.
pub(super) fn is_generated(directory: &Path) -> bool {
    GENERATED.iter().any(|name| directory.ends_with(name))
}

/// Returns the values of the flags in a command, `--flag value` or `--flag=value`.
fn named(words: &[String]) -> Vec<String> {
    let value = |(at, word): (usize, &String)| {
        if FLAGS.contains(&word.as_str()) {
            return words.get(at + 1).cloned();
        }
        let (flag, value) = word.split_once('=')?;
        FLAGS.contains(&flag).then(|| value.to_owned())
    };
    words.iter().enumerate().filter_map(value).filter(|path| !path.contains(['$', '*'])).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(manifest: &str, expected: &[&str]) {
        let package: Package = serde_json::from_str(manifest).unwrap();
        let expected: Vec<PathBuf> = expected.iter().map(PathBuf::from).collect();
        assert_eq!(written_directories(Path::new("p"), &package), expected, "{manifest}");
    }

    #[test]
    fn directories_of_coverage_are_outputs() {
        check(r#"{"scripts": {"test": "jest"}}"#, &["p/coverage"]);
        check(
            r#"{"scripts": {"test": "jest --coverage --coverageDirectory=reports/cov"}}"#,
            &["p/coverage", "p/reports/cov"],
        );
        check(
            r#"{"scripts": {"test": "npx c8 --reports-dir './out dir' node --test"}}"#,
            &["p/coverage", "p/out dir"],
        );
        check(
            r#"{"scripts": {"test": "nyc mocha"}, "nyc": {"report-dir": "r", "temp-dir": "t"}}"#,
            &["p/coverage", "p/.nyc_output", "p/r", "p/t"],
        );
        check(
            r#"{"scripts": {"test": "jest"}, "jest": {"coverageDirectory": "<rootDir>/../cov"}}"#,
            &["p/coverage", "cov"],
        );
        // Outside of the project, everything in it, or not a fixed path.
        check(r#"{"scripts": {"test": "x --report-dir ../../y --temp-dir . --reports-dir $D"}}"#, &[]);
        check(r#"{"scripts": {"test": "x --report-dir"}, "jest": [], "nyc": {"report-dir": 1}}"#, &[]);
    }
}
