//! Summarizes which tests were found in a project, and which are not covered.

use std::collections::BTreeSet;
use std::fmt;
use std::path::{Path, PathBuf};

use greenwave_inputs::{Selection, list_files};

use super::discovery::Discovery;
use crate::{Error, Test};

/// Maximum number of paths that a line names.
const PATHS_MAX: usize = 3;
/// Directories whose manifests are data or installed packages.
const SKIPPED: [&str; 6] = ["node_modules", "testdata", "fixtures", "__fixtures__", "templates", "vendor"];
/// Manifests of tools whose tests are not discovered, with the tool, and with a directory of tests
/// that must exist beside the manifest; empty if none must.
const OTHERS: [(&str, &str, &str); 12] = [
    ("CMakeLists.txt", "ctest", ""),
    ("pom.xml", "Maven", ""),
    ("build.gradle", "Gradle", ""),
    ("build.gradle.kts", "Gradle", ""),
    (".rspec", "RSpec", ""),
    ("Gemfile", "RSpec", "spec"),
    ("phpunit.xml", "PHPUnit", ""),
    ("phpunit.xml.dist", "PHPUnit", ""),
    ("mix.exs", "ExUnit", "test"),
    ("deno.json", "deno test", ""),
    ("Package.swift", "swift test", "Tests"),
    ("build.sbt", "sbt", ""),
];

/// Returns the tests found and those not covered, from the project's files and a harness's tests.
type Describe = fn(&[PathBuf], &[&Test]) -> (String, Option<String>);

/// The tests found for a harness, or a tool whose tests are not discovered. `Display` writes one
/// line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OverviewLine {
    /// Name of the harness or of the tool.
    subject: String,
    /// The tests, as in "3 packages".
    found: String,
    /// Tests that do not run, as in "2 files named like tests".
    not_covered: Option<String>,
}

impl fmt::Display for OverviewLine {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}: {}", self.subject, self.found)?;
        match &self.not_covered {
            Some(text) => write!(formatter, "; not covered: {text}"),
            None => Ok(()),
        }
    }
}

impl Discovery {
    /// Returns a line for each harness that has found tests, and for each other tool that has a
    /// manifest in the project.
    ///
    /// # Errors
    /// [`Error::Inputs`] if the project's files cannot be listed.
    pub fn overview(&self, project: &Path) -> Result<Vec<OverviewLine>, Error> {
        let listed = list_files(project, &[&Selection::everything()])?;
        let files: Vec<PathBuf> = listed.into_iter().map(|file| file.path).collect();
        Ok(lines(&files, &self.tests))
    }
}

fn lines(files: &[PathBuf], tests: &[Test]) -> Vec<OverviewLine> {
    let of = |harness: &str| -> Vec<&Test> {
        tests.iter().filter(|test| test.harness.as_str() == harness).collect()
    };
    let line = |harness: &str, describe: Describe| {
        let own = of(harness);
        let (found, not_covered) = describe(files, &own);
        (!own.is_empty()).then(|| OverviewLine { subject: harness.to_owned(), found, not_covered })
    };
    let found = [line("cargo", cargo), line("pytest", pytest), line("go", go), line("npm", npm)];
    let mut lines: Vec<OverviewLine> = found.into_iter().flatten().collect();
    let mut named = BTreeSet::new();
    for (name, tool, beside) in OTHERS {
        let has_tests = |directory: &Path| {
            beside.is_empty() || files.iter().any(|file| file.starts_with(directory.join(beside)))
        };
        let mut manifests = files.iter().filter(|file| file.file_name().is_some_and(|it| it == name));
        let manifest = manifests.find(|file| is_searched(file) && file.parent().is_some_and(has_tests));
        if let Some(manifest) = manifest.filter(|_| named.insert(tool)) {
            lines.push(OverviewLine {
                subject: manifest.display().to_string(),
                found: format!("tests of {tool} are not discovered: declare them with `harness = \"junit\"`"),
                not_covered: None,
            });
        }
    }
    lines
}

/// Returns whether a manifest belongs to the project itself.
fn is_searched(file: &Path) -> bool {
    !file.iter().any(|part| SKIPPED.iter().any(|name| part == *name))
}

/// Returns whether the go command skips a directory of a file because of its name.
fn is_skipped_by_go(file: &Path) -> bool {
    file.iter().any(|part| matches!(part.as_encoded_bytes().first(), Some(b'_' | b'.')))
}

fn cargo(files: &[PathBuf], tests: &[&Test]) -> (String, Option<String>) {
    let docs = tests.iter().filter(|test| test.command.last().is_some_and(|word| word == "--doc")).count();
    let mut found = plural(tests.len() - docs, "test program");
    if docs > 0 {
        found = format!("{found}, doctests of {}", plural(docs, "library"));
    }
    let covered =
        |directory: &Path| tests.iter().any(|test| test.directories.iter().any(|it| it == directory));
    let root = |directory: &Path| tests.iter().any(|test| test.directory == directory);
    let left: Vec<&Path> = directories(files, "Cargo.toml").filter(|it| !covered(it) && !root(it)).collect();
    (found, named("package", &left, "without tests or no default member"))
}

fn pytest(files: &[PathBuf], tests: &[&Test]) -> (String, Option<String>) {
    let is_test = |file: &&PathBuf| {
        let name = file.file_name().unwrap_or_default().to_string_lossy();
        name.ends_with(".py") && (name.starts_with("test_") || name.ends_with("_test.py"))
    };
    let is_whole = |directory: &Path| {
        tests
            .iter()
            .any(|test| !test.command.iter().any(|word| word.contains(".py")) && test.directory == directory)
    };
    let runs = |file: &Path| {
        tests.iter().any(|test| {
            let inside = file.strip_prefix(&test.directory).unwrap_or(file).to_string_lossy();
            test.command.iter().any(|word| word.split("::").next() == Some(&*inside))
        })
    };
    let is_left = |file: &&Path| !runs(file) && !file.ancestors().skip(1).any(is_whole) && is_searched(file);
    let left: Vec<&Path> = files.iter().filter(is_test).map(PathBuf::as_path).filter(is_left).collect();
    (plural(tests.len(), "file"), named("file", &left, "named like tests that pytest does not collect"))
}

fn go(files: &[PathBuf], tests: &[&Test]) -> (String, Option<String>) {
    let is_test = |file: &&PathBuf| file.to_string_lossy().ends_with("_test.go");
    let found: BTreeSet<&str> = tests.iter().filter_map(|test| test.name.strip_prefix("go:")).collect();
    let runs = |directory: &Path| match directory.to_string_lossy() {
        name if name.is_empty() => found.contains("."),
        name => found.contains(format!("./{name}").as_str()),
    };
    let all: BTreeSet<&Path> = files
        .iter()
        .filter(is_test)
        .filter(|file| is_searched(file) && !is_skipped_by_go(file))
        .filter_map(|file| file.parent())
        .collect();
    let left: Vec<&Path> = all.into_iter().filter(|directory| !runs(directory)).collect();
    let packages = tests.iter().filter(|test| !test.name.ends_with(')')).count();
    (
        plural(packages, "package"),
        named("package", &left, "whose test files the build tags or go.mod leave out"),
    )
}

fn npm(files: &[PathBuf], tests: &[&Test]) -> (String, Option<String>) {
    let runs = |directory: &Path| tests.iter().any(|test| test.directory == directory);
    let left: Vec<&Path> = directories(files, "package.json").filter(|directory| !runs(directory)).collect();
    (
        format!("the script `test` of {}", plural(tests.len(), "package")),
        named("package", &left, "whose script `test` does not run by itself"),
    )
}

fn directories<'f>(files: &'f [PathBuf], manifest: &'static str) -> impl Iterator<Item = &'f Path> {
    let manifests = files.iter().filter(move |file| file.file_name().is_some_and(|it| it == manifest));
    manifests.filter(|file| is_searched(file)).filter_map(|file| file.parent())
}

/// Returns a text such as "2 packages without tests (a, b)"; `None` for no paths.
fn named(noun: &str, paths: &[&Path], reason: &str) -> Option<String> {
    if paths.is_empty() {
        return None;
    }
    let shown = |path: &&Path| match path.to_string_lossy() {
        text if text.is_empty() => ".".to_owned(),
        text => text.escape_debug().to_string(),
    };
    let names: Vec<String> = paths.iter().take(PATHS_MAX).map(shown).collect();
    let more = if paths.len() > PATHS_MAX { ", …" } else { "" };
    Some(format!("{} {reason} ({}{more})", plural(paths.len(), noun), names.join(", ")))
}

fn plural(count: usize, noun: &str) -> String {
    match (count, noun.strip_suffix('y')) {
        (1, _) => format!("1 {noun}"),
        (_, Some(stem)) => format!("{count} {stem}ies"),
        (_, None) => format!("{count} {noun}s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::HarnessName;

    fn test(harness: &'static str, name: &str, directory: &str, command: &[&str]) -> Test {
        Test {
            directory: directory.into(),
            directories: vec![directory.into()],
            harness: HarnessName::new(harness),
            ..Test::new(name, command.iter().copied())
        }
    }

    fn check(files: &[&str], tests: &[Test], expected: &[&str]) {
        let files: Vec<PathBuf> = files.iter().map(PathBuf::from).collect();
        let lines: Vec<String> = lines(&files, tests).iter().map(ToString::to_string).collect();
        assert_eq!(lines, expected);
    }

    #[test]
    fn each_harness_has_a_line() {
        let tests = [
            test("cargo", "a", "a", &["cargo", "test", "--package", "a", "--lib"]),
            test("cargo", "a (doc)", "a", &["cargo", "test", "--package", "a", "--doc"]),
            test("pytest", "py:t/test_a.py", "t", &["python", "-m", "pytest", "test_a.py"]),
            test("go", "go:.", "", &["go", "test", "-count=1", "."]),
            test("go", "go:. (packages without tests)", "", &["go", "test", "-count=1", "./x"]),
            test("npm", "npm:n test", "n", &["npm", "test"]),
        ];
        let files = [
            "a/Cargo.toml",
            "b/Cargo.toml",
            "t/test_a.py",
            "t/more/test_b.py",
            "x_test.go",
            "tagged/y_test.go",
            "_old/z_test.go",
            ".hidden/z_test.go",
            "n/package.json",
            "m/package.json",
            "n/fixtures/z/package.json",
        ];
        let expected = [
            "cargo: 1 test program, doctests of 1 library; not covered: 1 package without tests or no default member (b)",
            "pytest: 1 file; not covered: 1 file named like tests that pytest does not collect (t/more/test_b.py)",
            "go: 1 package; not covered: 1 package whose test files the build tags or go.mod leave out (tagged)",
            "npm: the script `test` of 1 package; not covered: 1 package whose script `test` does not run by itself (m)",
        ];
        check(&files, &tests, &expected);
        check(&["x_test.go"], &tests[3..4], &["go: 1 package"]);
    }

    #[test]
    fn tools_whose_tests_are_not_discovered_are_named_once() {
        let line = |manifest: &str, tool: &str| {
            format!("{manifest}: tests of {tool} are not discovered: declare them with `harness = \"junit\"`")
        };
        let files = [
            "CMakeLists.txt",
            "sub/CMakeLists.txt",
            "Gemfile",
            "e/mix.exs",
            "e/test/a.exs",
            "vendor/pom.xml",
        ];
        check(&files, &[], &[&line("CMakeLists.txt", "ctest"), &line("e/mix.exs", "ExUnit")]);
        check(&[], &[], &[]);
    }
}
