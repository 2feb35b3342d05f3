//! Recognises the files of tests and the settings of test runners by their paths.

/// Directories whose files belong to tests, in lower case.
const DIRECTORIES: [&str; 10] = [
    "tests",
    "test",
    "__tests__",
    "spec",
    "specs",
    "e2e",
    "testdata",
    "__snapshots__",
    "__mocks__",
    "cypress",
];

/// Extensions of JavaScript and TypeScript.
const SCRIPTS: [&str; 8] = ["js", "jsx", "ts", "tsx", "mjs", "cjs", "mts", "cts"];

/// Files that choose or change tests wherever they are, with their extensions.
const SETTINGS: [&str; 20] = [
    "conftest.py",
    "sitecustomize.py",
    "usercustomize.py",
    "pytest.ini",
    ".pytest.ini",
    "pytest.toml",
    ".pytest.toml",
    "tox.ini",
    "noxfile.py",
    "nextest.toml",
    "phpunit.xml",
    "phpunit.xml.dist",
    ".rspec",
    ".npmrc",
    "testng.xml",
    "karma.conf.js",
    "CTestTestfile.cmake",
    ".jest.config",
    "junit-platform.properties",
    "cargo-nextest.toml",
];

/// Names of settings of test runners, before any extension.
const SETTINGS_STEMS: [&str; 18] = [
    "jest.config",
    "jest.setup",
    "jest-setup",
    "jest-preset",
    "setup-jest",
    "setupJest",
    "setupTests",
    "setup-tests",
    "test-setup",
    "vitest.config",
    "vitest.workspace",
    "vitest.setup",
    "playwright.config",
    "cypress.config",
    ".mocharc",
    "ava.config",
    "wdio.conf",
    "karma.conf",
];

/// Returns whether a path relative to the project names a test, or a file in a directory of tests.
pub fn is_test_file(path: &str) -> bool {
    let (directories, name) = path.rsplit_once('/').unwrap_or(("", path));
    directories.split('/').any(is_test_directory) || has_test_name(name)
}

/// Returns whether a directory holds tests, by its name: also `App.Tests`, `unit-tests`,
/// `integration_test` and `commonTest`.
fn is_test_directory(name: &str) -> bool {
    let lower = name.to_ascii_lowercase();
    if DIRECTORIES.contains(&lower.as_str()) {
        return true;
    }
    let Some(rest) = lower.strip_suffix("tests").or_else(|| lower.strip_suffix("test")) else { return false };
    let (before, word) = name.split_at(rest.len());
    let is_capital = word.starts_with("Test") && before.ends_with(|c: char| c.is_ascii_lowercase());
    rest.ends_with(['.', '-', '_']) || is_capital
}

/// Returns whether a path names settings that choose or change the tests of a project.
pub(crate) fn is_runner_settings(path: &str) -> bool {
    let name = path.rsplit('/').next().unwrap_or(path);
    let is_cargo = path == ".cargo/config.toml" || path.ends_with("/.cargo/config.toml");
    let is_older = path == ".cargo/config" || path.ends_with("/.cargo/config");
    let has_stem =
        |stem: &str| name.strip_prefix(stem).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'));
    is_cargo || is_older || SETTINGS.contains(&name) || SETTINGS_STEMS.iter().any(|stem| has_stem(stem))
}

/// Returns whether a script tests or checks something, by its name.
pub(crate) fn is_test_script(path: &str) -> bool {
    let name = path.rsplit('/').next().unwrap_or(path);
    let stem = name.split('.').next().unwrap_or(name).to_ascii_lowercase();
    let words = ["test", "tests", "check", "checks", "spec", "verify", "t", "selftest"];
    is_test_file(path) || stem.split(['_', '-']).any(|part| words.contains(&part))
}

/// Returns whether a path names a test, wherever the file is.
pub(crate) fn has_test_name(path: &str) -> bool {
    let name = path.rsplit('/').next().unwrap_or(path);
    let (stem, extension) = name.rsplit_once('.').unwrap_or((name, ""));
    match extension {
        "go" | "exs" | "dart" | "cc" | "cpp" | "cxx" | "c" | "zig" => stem.ends_with("_test"),
        "rs" => stem == "tests" || stem.ends_with("_test") || stem.ends_with("_tests"),
        "py" => stem.starts_with("test_") || stem.ends_with("_test") || stem == "conftest" || stem == "tests",
        "rb" => stem.ends_with("_spec") || stem.ends_with("_test") || stem.starts_with("test_"),
        "java" | "kt" | "scala" | "groovy" => {
            ["Test", "Tests", "IT", "Spec"].iter().any(|end| stem.ends_with(end))
        }
        "cs" | "fs" | "swift" => stem.ends_with("Tests") || stem.ends_with("Test"),
        "php" => stem.ends_with("Test"),
        "bats" | "snap" => true,
        other if SCRIPTS.contains(&other) => {
            [".test", ".spec", "_test", "-test"].iter().any(|end| stem.ends_with(end)) || stem == "test"
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tests_are_recognised_by_directory_and_name() {
        for path in [
            "tests/helper.txt",
            "crates/a/tests/it.rs",
            "src/add.test.ts",
            "src/__tests__/add.js",
            "pkg/add_test.go",
            "test_add.py",
            "pkg/conftest.py",
            "spec/add_spec.rb",
            "src/test/java/AddTest.java",
            "src/parser/tests.rs",
            "ui/button.spec.tsx",
            "check.bats",
            "Tests/AppTests/Helper.swift",
            "App.Tests/Setup.cs",
            "src/commonTest/kotlin/Fakes.kt",
            "unit-tests/data.json",
            "integration_test/driver.dart",
        ] {
            assert!(is_test_file(path), "{path}");
        }
        for path in [
            "src/lib.rs",
            "src/testing.rs",
            "src/contest.py",
            "add.py",
            "latest/x.go",
            "attest.js",
            "Test.md",
            "contest/x.py",
            "LATEST/x.py",
            "test-runner/src/lib.rs",
        ] {
            assert!(!is_test_file(path), "{path}");
        }
    }

    #[test]
    fn settings_of_runners_are_recognised() {
        for path in [
            "jest.config.js",
            "a/vitest.config.mts",
            "pytest.ini",
            "x/conftest.py",
            ".cargo/config.toml",
            ".mocharc",
            "src/setupTests.ts",
            "test-setup.mjs",
        ] {
            assert!(is_runner_settings(path), "{path}");
        }
        for path in
            ["config.toml", "jest.configuration", "src/setupTestsFor.ts", "src/config.rs", "pyproject.toml"]
        {
            assert!(!is_runner_settings(path), "{path}");
        }
    }

    #[test]
    fn scripts_are_recognised_by_the_words_of_their_names() {
        for path in ["check.sh", "t.py", "scripts/run-tests.sh", "verify_all.py", "tests/x.sh"] {
            assert!(is_test_script(path), "{path}");
        }
        for path in ["src/main.py", "tool.sh", "latest.py"] {
            assert!(!is_test_script(path), "{path}");
        }
    }
}
