//! The promises of `Harness`, which all built-in harnesses keep.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use async_trait::async_trait;
use greenwave_cache::{MemoryBackend, Tier, Tiered, TieredOptions};
use greenwave_testing::conformance::Fixture;
use greenwave_testing::{
    BuildOutput, CommandHarness, Discovery, DiscoveryInputs, Environment, Error, Harness, HarnessName,
    Harnesses, LaunchSpec, Project, Runner, RunnerOptions, SCHEMA, Summary, Test, harness_conformance,
};

#[expect(clippy::unwrap_used, reason = "a helper of tests is a test")]
fn builtin(name: &str) -> Arc<dyn Harness> {
    Arc::clone(Harnesses::builtin().iter().find(|harness| harness.name() == name).unwrap())
}

fn environment() -> Environment {
    Environment::new(std::env::vars_os())
}

mod cargo {
    use super::{Fixture, builtin, environment, harness_conformance};

    harness_conformance!(Fixture {
        harness: builtin("cargo"),
        environment: environment(),
        files: vec![
            ("Cargo.toml", "[package]\nname = \"a\"\nversion = \"0.1.0\"\nedition = \"2024\"\n"),
            ("src/lib.rs", "#[test] fn passes() {}\n"),
            ("tests/it.rs", "#[test] fn passes() {}\n"),
        ],
        command: vec!["cargo", "test", "--package", "a", "--lib"],
        output: "running 3 tests\ntest a ... ok\ntest result: FAILED. 2 passed; 1 failed; 0 ignored\n",
        count: (2, 1),
    });
}

mod pytest {
    use super::{Fixture, builtin, environment, harness_conformance};

    harness_conformance!(Fixture {
        harness: builtin("pytest"),
        environment: environment(),
        files: vec![
            (
                "pyproject.toml",
                "[project]\nname = \"a\"\n[tool.pytest.ini_options]\ntestpaths = [\"tests\"]\n"
            ),
            ("tox.ini", "[pytest]\npython_files = test_*.py\n"),
            ("requirements.txt", "-e ./lib\n"),
            ("tests/test_a.py", "def test_a(): pass\n"),
        ],
        command: vec!["python3", "-m", "pytest", "-q", "tests/test_a.py"],
        output: "==== 1 failed, 3 passed, 1 error in 0.12s ====\n",
        count: (3, 2),
    });
}

mod go {
    use super::{Fixture, builtin, environment, harness_conformance};

    harness_conformance!(Fixture {
        harness: builtin("go"),
        environment: environment(),
        files: vec![
            ("go.mod", "module a\n\nreplace b => ./b\n"),
            ("go.work", "use (\n\t.\n\t./b\n)\n"),
            ("a_test.go", "package a\n"),
            ("b/go.mod", "module b\n"),
        ],
        command: vec!["go", "test", "./..."],
        output: "?   \ta\t[no test files]\n",
        count: (0, 0),
    });
}

mod npm {
    use super::{Fixture, builtin, environment, harness_conformance};

    harness_conformance!(Fixture {
        harness: builtin("npm"),
        environment: environment(),
        files: vec![
            (
                "package.json",
                "{\"name\": \"a\", \"scripts\": {\"test\": \"vitest\"}, \"workspaces\": [\"b/*\"]}"
            ),
            ("pnpm-workspace.yaml", "packages:\n  - \"b/*\"\n"),
        ],
        command: vec!["npm", "test"],
        output: "2 passed in 0.3s\n",
        count: (2, 0),
    });
}

mod command {
    use super::{Arc, CommandHarness, Fixture, environment, harness_conformance};

    harness_conformance!(Fixture {
        harness: Arc::new(CommandHarness),
        environment: environment(),
        files: vec![],
        command: vec!["make", "check"],
        output: "test result: ok. 2 passed; 0 failed\n3 passed in 0.01s\n",
        count: (5, 0),
    });
}

/// A harness whose tests were built from one file, which the tests do not read.
#[derive(Debug)]
struct Built {
    source: PathBuf,
}

#[async_trait]
impl Harness for Built {
    fn name(&self) -> &'static str {
        "built"
    }

    fn recognizes(&self, _: &[String]) -> bool {
        false
    }

    fn discovery_inputs(&self) -> DiscoveryInputs {
        DiscoveryInputs::default()
    }

    async fn discover(&self, _: &Project) -> Result<Discovery, Error> {
        Ok(Discovery::default())
    }

    fn shared_directories(&self, _: &Environment) -> Vec<(&'static str, PathBuf)> {
        vec![("BUILT_CACHE", self.source.with_file_name("no-cache-yet"))]
    }

    fn launch(&self, _: &Test, _: Option<&dyn BuildOutput>, command: LaunchSpec) -> LaunchSpec {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let now = i64::try_from(now.as_nanos()).unwrap_or(i64::MAX);
        command.built_from([self.source.clone()], now)
    }

    fn parse_summary(&self, _: &Test, _: Option<i32>, _: &[u8]) -> Summary {
        Summary::of_count(None)
    }
}

/// Returns a runner of tests that were built from `library.c` in a directory.
#[expect(clippy::unwrap_used, reason = "a helper of tests is a test")]
fn built_runner(directory: &Path) -> Runner {
    let harness = Built { source: directory.join("library.c") };
    let harnesses = Harnesses::builtin().with(Arc::new(harness));
    let tier = Tier::new("memory", Arc::new(MemoryBackend::new(100, 1 << 20).unwrap()));
    let cache = Tiered::new(vec![tier], TieredOptions::new(SCHEMA));
    let options = RunnerOptions { harnesses, ..RunnerOptions::default() };
    Runner::with(environment(), Some(cache), options)
}

#[tokio::test]
async fn a_test_sees_the_directories_that_its_harness_shares() {
    let project = crate::project(&[("a", ""), ("library.c", "")]);
    let runner = built_runner(project.path());
    // The results of equal commands of two harnesses are separate.
    let test = Test::new("t", ["sh", "-c", "echo $BUILT_CACHE"]);
    assert_eq!(crate::run(&runner, &project, &test).await.output, "\n", "a plain command");
    let test = Test { harness: HarnessName::new("built"), ..test };
    let expected = format!("{}\n", project.path().join("no-cache-yet").display());
    assert_eq!(crate::run(&runner, &project, &test).await.output, expected);
}

#[tokio::test]
async fn a_result_depends_on_the_files_that_its_program_was_built_from() {
    let project = crate::project(&[("a", "")]);
    let library = crate::project(&[("library.c", "1")]);
    let runner = built_runner(library.path());
    let test = Test { harness: HarnessName::new("built"), ..Test::new("t", ["true"]) };
    for text in ["1", "2"] {
        crate::write(library.path(), "library.c", text);
        // A file that changed in the same tick of the clock may change again unnoticed.
        tokio::time::sleep(Duration::from_millis(50)).await;
        assert!(!crate::run(&runner, &project, &test).await.is_cached(), "library {text}");
        assert!(crate::run(&runner, &project, &test).await.is_cached(), "library {text}");
    }
}
