//! Compares the size of an answer of `run_tests` with the output of test runners, on suites of 200
//! failing tests in 20 files.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::json;

use super::client::{self, Client as _};
use crate::Result;

/// Numbers of files, and of failing tests in each.
const FILES: usize = 20;
const TESTS: usize = 10;

/// Number of the last test, which each runner prints.
const LAST: &str = "199";

/// A suite of failing tests for one runner.
struct Suite {
    name: &'static str,
    /// The command that runs it without Greenwave.
    command: &'static [&'static str],
    /// Files beside the tests.
    files: &'static [(&'static str, &'static str)],
    /// Path of a file with tests, its first lines, and a test. `$` is the number of the file or
    /// test, and `@` the wrong sum.
    path: &'static str,
    head: &'static str,
    test: &'static str,
}

const SUITES: [Suite; 5] = [
    Suite {
        name: "cargo",
        command: &["cargo", "test", "--no-fail-fast"],
        files: &[
            (
                "Cargo.toml",
                "[package]\nname = \"app\"\nversion = \"0.1.0\"\nedition = \"2021\"\n[workspace]\n",
            ),
            ("src/lib.rs", "pub fn total(items: &[i32]) -> i32 {\n    items.iter().sum::<i32>() + 1\n}\n"),
        ],
        path: "tests/f$.rs",
        head: "use app::total;\n",
        test: "\n#[test]\nfn total_$() {\n    assert_eq!(total(&[$, 2, 3]), @);\n}\n",
    },
    Suite {
        name: "pytest",
        command: &["pytest"],
        files: &[
            ("pytest.ini", "[pytest]\npythonpath = .\n"),
            ("app.py", "def total(items):\n    return sum(items) + 1\n"),
        ],
        path: "tests/test_f$.py",
        head: "from app import total\n",
        test: "\n\ndef test_total_$():\n    items = [$, 2, 3]\n    assert total(items) == sum(items)\n",
    },
    Suite {
        name: "go",
        command: &["go", "test", "./..."],
        files: &[
            ("go.mod", "module app\n\ngo 1.19\n"),
            ("app.go", "package app\n\nfunc Total(a, b int) int {\n\treturn a + b + 1\n}\n"),
        ],
        path: "f$_test.go",
        head: "package app\n\nimport \"testing\"\n",
        test: "\nfunc TestTotal$(t *testing.T) {\n\tif got := Total($, 5); got != @ {\n\t\tt.Errorf(\"got %d, want @\", got)\n\t}\n}\n",
    },
    Suite {
        name: "npm (node --test)",
        command: &["npm", "test"],
        files: &[
            ("package.json", r#"{"name":"app","version":"1.0.0","scripts":{"test":"node --test"}}"#),
            ("app.js", "exports.total = (items) => items.reduce((sum, item) => sum + item, 1);\n"),
        ],
        path: "test/f$.test.js",
        head: "const test = require('node:test');\nconst assert = require('node:assert');\nconst { total } = require('../app.js');\n",
        test: "\ntest('total $', () => {\n  assert.strictEqual(total([$, 2, 3]), @);\n});\n",
    },
    Suite {
        name: "jest",
        command: &["npm", "test"],
        files: &[
            (
                "package.json",
                r#"{"name":"app","version":"1.0.0","scripts":{"test":"jest"},"devDependencies":{"jest":"*"}}"#,
            ),
            ("app.js", "exports.total = (items) => items.reduce((sum, item) => sum + item, 1);\n"),
        ],
        path: "tests/f$.test.js",
        head: "const { total } = require('../app.js');\n",
        test: "\ntest('total $', () => {\n  expect(total([$, 2, 3])).toBe(@);\n});\n",
    },
];

/// Returns the sizes for each runner.
pub(super) fn figures(program: &Path) -> Result<String> {
    let mut text = "bytes of 200 failing tests (tokens are about a quarter):\n".to_owned();
    for suite in &SUITES {
        let directory = tempfile::tempdir()?;
        let project = directory.path().join("p");
        suite.write(&project)?;
        let raw = suite.output(&project)?;
        let mut client = client::Stdio::start(program, &project, directory.path())?;
        let (result, _) = client.call("run_tests", &json!({}))?;
        let answer = result["content"][0]["text"].as_str().unwrap_or_default();
        let structured = result["structuredContent"].to_string();
        if result["structuredContent"]["failed"].as_u64().is_none_or(|failed| failed == 0) {
            return Err(format!("{}: no test failed: {answer}", suite.name).into());
        }
        let share = |bytes: usize| 100.0 * bytes as f64 / raw as f64;
        writeln!(
            text,
            "  {}: {raw}; run_tests {} as text ({:.1} %), {} as JSON ({:.1} %)",
            suite.name,
            answer.len(),
            share(answer.len()),
            structured.len(),
            share(structured.len())
        )?;
    }
    Ok(text)
}

impl Suite {
    fn write(&self, project: &Path) -> Result<()> {
        for (path, text) in self.files {
            write(project, path, text)?;
        }
        for file in 0..FILES {
            let test = |number: usize| {
                self.test.replace('$', &number.to_string()).replace('@', &(number + 5).to_string())
            };
            let tests: String = (0..TESTS).map(|number| test(file * TESTS + number)).collect();
            write(project, &self.path.replace('$', &file.to_string()), &format!("{}{tests}", self.head))?;
        }
        if self.name == "jest" {
            let mut install = Command::new("npm");
            install.args(["install", "--silent"]).current_dir(project).stdin(Stdio::null());
            crate::process::output_of(&mut install)?;
        }
        Ok(())
    }

    /// Returns the size of the runner's output, after it has compiled.
    fn output(&self, project: &Path) -> Result<usize> {
        let mut bytes = 0;
        for _ in 0..2 {
            let mut command = Command::new(self.command[0]);
            command.args(&self.command[1..]).current_dir(project).stdin(Stdio::null());
            let output = client::without_settings(&mut command).env("CI", "1").output()?;
            let printed = [output.stdout, output.stderr].concat();
            if !String::from_utf8_lossy(&printed).contains(LAST) {
                return Err(format!("{}: {}", self.name, String::from_utf8_lossy(&printed)).into());
            }
            bytes = printed.len();
        }
        Ok(bytes)
    }
}

fn write(project: &Path, path: &str, text: &str) -> Result<()> {
    let path = project.join(path);
    fs::create_dir_all(path.parent().ok_or("a file has no directory")?)?;
    Ok(fs::write(path, text)?)
}
