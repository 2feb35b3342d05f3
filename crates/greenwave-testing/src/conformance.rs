//! The test suite that every harness passes, for authors of harnesses.
//!
//! ```
//! # #[cfg(test)]
//! mod plain_commands {
//!     use std::sync::Arc;
//!
//!     use greenwave_testing::{CommandHarness, Environment};
//!     use greenwave_testing::conformance::Fixture;
//!
//!     greenwave_testing::harness_conformance!(Fixture {
//!         harness: Arc::new(CommandHarness),
//!         environment: Environment::new(std::env::vars_os()),
//!         files: vec![],
//!         command: vec!["make", "check"],
//!         output: "3 passed in 0.01s\n",
//!         count: (3, 0),
//!     });
//! }
//! ```

use std::collections::HashSet;
use std::ffi::OsString;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use tempfile::TempDir;

use crate::{
    BuildRequest, Crash, Discovery, Environment, Error, FinishedProcess, Harness, HarnessName, LaunchSpec,
    ListingContext, Project, Rerun, Status, Test, TestCount,
};

/// A harness, and examples of its commands and outputs.
#[derive(Debug, Clone)]
pub struct Fixture {
    /// The harness under test.
    pub harness: Arc<dyn Harness>,
    /// Variables that `discover` sees, such as `PATH`.
    pub environment: Environment,
    /// Paths and texts of a small project with tests; empty if the harness discovers none.
    pub files: Vec<(&'static str, &'static str)>,
    /// A command of the harness, as a user would configure it.
    pub command: Vec<&'static str>,
    /// The output of a run that [`command`](Self::command) could print.
    pub output: &'static str,
    /// Numbers of passed and failed tests in [`output`](Self::output).
    pub count: (u32, u32),
}

/// Decodes arbitrary bytes as the payload of a cache record: results, dependencies, and lists of
/// traces. Used for fuzzing.
///
/// # Panics
/// If a decoded record does not encode to an equal record.
pub fn check_record(payload: &[u8]) {
    crate::results::record::check_payload(payload);
}

/// Decodes arbitrary bytes as an up-to-date record without its seal, and compares its timestamps
/// with those of the files in a directory. Used for fuzzing.
///
/// # Panics
/// If the directory does not exist.
pub fn check_up_to_date_record(directory: &Path, bytes: &[u8]) {
    crate::results::up_to_date::check_body(directory, bytes);
}

/// Emits one `#[tokio::test]` per promise of [`Harness`], for an expression that makes a
/// [`Fixture`].
///
/// The tests need tokio's features `macros` and `rt`.
#[macro_export]
macro_rules! harness_conformance {
    ($fixture:expr $(,)?) => {
        #[tokio::test]
        async fn the_name_is_valid() {
            $crate::conformance::name_is_valid(&$fixture);
        }

        #[tokio::test]
        async fn the_configured_command_is_recognized() {
            $crate::conformance::command_is_recognized(&$fixture);
        }

        #[tokio::test]
        async fn discovery_is_deterministic() {
            $crate::conformance::discovery_is_deterministic(&$fixture).await;
        }

        #[tokio::test]
        async fn an_empty_project_has_no_tests() {
            $crate::conformance::empty_project_has_no_tests(&$fixture).await;
        }

        #[tokio::test]
        async fn invalid_manifests_do_not_panic() {
            $crate::conformance::invalid_manifests_do_not_panic(&$fixture).await;
        }

        #[tokio::test]
        async fn every_test_has_one_listing() {
            $crate::conformance::every_test_has_one_listing(&$fixture).await;
        }

        #[tokio::test]
        async fn a_program_keeps_the_name_of_its_test() {
            $crate::conformance::program_keeps_name(&$fixture).await;
        }

        #[tokio::test]
        async fn a_launch_without_a_build_runs_the_command() {
            $crate::conformance::launch_without_build_runs_the_command(&$fixture).await;
        }

        #[tokio::test]
        async fn summaries_are_parsed() {
            $crate::conformance::summaries_are_parsed(&$fixture);
        }

        #[tokio::test]
        async fn a_batch_without_a_report_has_no_results() {
            $crate::conformance::batch_without_report_has_no_results(&$fixture);
        }

        #[tokio::test]
        async fn a_pass_has_no_explanation() {
            $crate::conformance::pass_has_no_explanation(&$fixture).await;
        }
    };
}

/// The name is lower-case ASCII, and the same on each call.
///
/// # Panics
/// If it is not.
pub fn name_is_valid(fixture: &Fixture) {
    let name = fixture.harness.name();
    let is_valid = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '-' | '_');
    assert!(!name.is_empty() && name.chars().all(is_valid), "invalid name {name:?}");
    assert_eq!(name, fixture.harness.name(), "the name changes");
}

/// The fixture's command is recognized; an empty command and odd words do not panic.
///
/// # Panics
/// If it is not.
pub fn command_is_recognized(fixture: &Fixture) {
    let test = configured(fixture);
    assert!(fixture.harness.recognizes(&test.command), "{:?} is not recognized", test.command);
    for odd in odd_commands(&test.command) {
        fixture.harness.recognizes(&odd);
    }
}

/// Two discoveries are equal, have tests of this harness only, with unique names, and directories
/// inside the project.
///
/// # Panics
/// If one of them does not.
pub async fn discovery_is_deterministic(fixture: &Fixture) {
    let (root, project) = project(&fixture.files, &fixture.environment);
    let found = discover(fixture, &project).await;
    assert_eq!(found, discover(fixture, &project).await, "two discoveries of {root:?} differ");
    assert_eq!(found.tests.is_empty(), fixture.files.is_empty(), "unexpected tests: {:?}", found.tests);
    let mut names = HashSet::new();
    for test in &found.tests {
        assert_eq!(test.harness.as_str(), fixture.harness.name(), "test of another harness: {test:?}");
        assert!(names.insert(&test.name), "duplicate name {}", test.name);
        assert!(!test.command.is_empty(), "empty command: {test:?}");
        let is_inside = |part: Component<'_>| matches!(part, Component::Normal(_));
        let mut directories = test.directories.iter().chain([&test.directory]);
        assert!(
            directories.all(|directory| directory.components().all(is_inside)),
            "directory outside: {test:?}"
        );
        test.selection().expect("the patterns are valid");
    }
}

/// A project without files has no tests and no notes.
///
/// # Panics
/// If it has any.
pub async fn empty_project_has_no_tests(fixture: &Fixture) {
    let (_root, project) = project(&[], &fixture.environment);
    assert_eq!(discover(fixture, &project).await, Discovery::default());
}

/// Discovery ends, with or without an error, when a manifest is empty, truncated, or not text.
///
/// # Panics
/// If discovery does.
pub async fn invalid_manifests_do_not_panic(fixture: &Fixture) {
    let manifests = fixture.harness.discovery_inputs().manifests;
    for (path, text) in &fixture.files {
        let is_manifest = |name: &&str| Path::new(path).file_name().is_some_and(|it| it == *name);
        if !manifests.iter().any(is_manifest) {
            continue;
        }
        let (root, project) = project(&fixture.files, &fixture.environment);
        let half = text.as_bytes().get(..text.len() / 2).unwrap_or_default();
        for invalid in [b"".as_slice(), half, b"{[\"\xff\x00", b"[[[[((((", "\u{feff}\u{0}".as_bytes()] {
            std::fs::write(root.path().join(path), invalid).expect("the project is writable");
            drop(fixture.harness.discover(&project).await);
        }
    }
}

/// `list` returns one listing per test if it succeeds, and no listing command has the name of
/// another.
///
/// Runs without programs on the PATH.
///
/// # Panics
/// If the numbers differ, or a name is taken.
pub async fn every_test_has_one_listing(fixture: &Fixture) {
    let (root, project) = project(&fixture.files, &fixture.environment);
    let found = discover(fixture, &project).await;
    let environment = Environment::new([("PATH".into(), OsString::new())]);
    let context = ListingContext::new(root.path(), &environment);
    let mut names: HashSet<String> = found.tests.iter().map(|test| test.name.clone()).collect();
    for command in found.tests.iter().flat_map(|test| fixture.harness.listing_commands(test, &context)) {
        assert!(names.insert(command.name.clone()), "duplicate name {}", command.name);
    }
    let tests: Vec<&Test> = found.tests.iter().collect();
    if let Ok(listings) = fixture.harness.list(&tests, &context).await {
        assert_eq!(listings.len(), tests.len(), "{listings:?}");
    }
    let none = fixture.harness.list(&[], &context).await.expect("listing no tests succeeds");
    assert_eq!(none.len(), 0);
}

/// A test that runs a file as a program has the name and the directory of the original test, and
/// another command. Odd commands, and projects without the test's files, do not panic.
///
/// # Panics
/// If it has not.
pub async fn program_keeps_name(fixture: &Fixture) {
    let (root, project) = project(&fixture.files, &fixture.environment);
    let configured = configured(fixture);
    let odd = odd_commands(&configured.command).map(|command| Test { command, ..configured.clone() });
    let tests: Vec<Test> = discover(fixture, &project).await.tests.into_iter().chain(odd).collect();
    for directory in [root.path(), &root.path().join("missing")] {
        for test in &tests {
            fixture.harness.may_have_tests(test, directory);
            if let Some(program) = fixture.harness.as_program(test, directory) {
                assert_eq!((&program.name, &program.directory), (&test.name, &test.directory));
                assert_ne!(program.command, test.command, "the program is the test itself");
            }
        }
    }
}

/// A launch without a build output starts the command's program, and a harness whose tests need no
/// build has no build output.
///
/// # Panics
/// If it starts another one, or has one.
pub async fn launch_without_build_runs_the_command(fixture: &Fixture) {
    let (root, _project) = project(&fixture.files, &fixture.environment);
    let test = configured(fixture);
    let command = LaunchSpec::new("/bin/program", root.path()).arguments(["argument".into()]);
    let launch = fixture.harness.launch(&test, None, command.clone());
    assert_eq!((&launch.program, &launch.directory), (&command.program, &command.directory));
    if !fixture.harness.needs_build(&test) {
        let environment = Environment::new([]);
        let request = BuildRequest {
            project: root.path(),
            directory: Path::new(""),
            environment: &environment,
            tests: &[&test],
        };
        let built = fixture.harness.build(&request).await.expect("building nothing succeeds");
        assert!(built.is_none(), "a build output that no test needs: {built:?}");
    }
}

/// The fixture's output has the fixture's count; truncated and binary outputs do not panic.
///
/// # Panics
/// If the count differs.
pub fn summaries_are_parsed(fixture: &Fixture) {
    let test = configured(fixture);
    let (passed, failed) = fixture.count;
    let exit_code = i32::from(failed > 0);
    let summary = fixture.harness.parse_summary(&test, Some(exit_code), fixture.output.as_bytes());
    assert_eq!(summary.count, Some(TestCount { passed, failed }), "of {:?}", fixture.output);
    let mut binary: Vec<u8> = (0..=255).collect();
    binary.extend_from_slice(fixture.output.as_bytes());
    for end in 0..=binary.len() {
        for exit_code in [None, Some(0), Some(1), Some(5), Some(-1)] {
            fixture.harness.parse_summary(&test, exit_code, &binary[..end]);
        }
        fixture.harness.parse_cases(&String::from_utf8_lossy(&binary[..end]));
    }
    for command in odd_commands(&test.command) {
        let odd = Test { command, ..test.clone() };
        fixture.harness.parse_summary(&odd, Some(0), fixture.output.as_bytes());
    }
}

/// A batch command names the last word of each test's command, and a process that wrote no report
/// has no results.
///
/// # Panics
/// If a word is missing, or there is a result.
pub fn batch_without_report_has_no_results(fixture: &Fixture) {
    let test = configured(fixture);
    for command in odd_commands(&test.command) {
        fixture.harness.batch(&Test { command, ..test.clone() });
    }
    let Some(batch) = fixture.harness.batch(&test) else { return };
    let directory = tempfile::tempdir().expect("a temporary directory can be created");
    let tests = [&test, &test];
    let environment = Environment::new([]);
    let command = batch.prepare(&tests, directory.path(), &environment).expect("the directory is writable");
    for word in tests.iter().filter_map(|test| test.command.last()) {
        let is_named = command.arguments.iter().any(|argument| argument == word.as_str());
        assert!(is_named, "{word} is not in {command:?}");
    }
    for status in [Status::Passed, Status::NoTests, Status::TimedOut(Duration::from_secs(1))] {
        assert_eq!(batch.results(&tests, status, directory.path()), [None, None], "{status}");
    }
    assert!(batch.results(&[], Status::Passed, directory.path()).is_empty());
}

/// A test that passed has no explanation, and is not run again.
///
/// # Panics
/// If it is.
pub async fn pass_has_no_explanation(fixture: &Fixture) {
    let (passed, failed) = fixture.count;
    let process = FinishedProcess {
        status: Status::Passed,
        count: Some(TestCount { passed, failed }),
        output: Bytes::from_static(fixture.output.as_bytes()),
    };
    let crash = Crash { test: &configured(fixture), process: &process, rerun: &NoRerun };
    assert_eq!(fixture.harness.explain_crash(&crash).await, None);
}

/// Fails the test that runs anything again.
struct NoRerun;

#[async_trait]
impl Rerun for NoRerun {
    async fn rerun(&self, test: &Test) -> Result<FinishedProcess, Error> {
        panic!("{} runs again although it passed", test.name);
    }
}

fn configured(fixture: &Fixture) -> Test {
    let harness = HarnessName::new(fixture.harness.name());
    Test { harness, ..Test::new("configured", fixture.command.iter().copied()) }
}

/// Returns the command without words at the end, and with odd ones.
fn odd_commands(command: &[String]) -> impl Iterator<Item = Vec<String>> + '_ {
    let prefixes = (0..=command.len()).map(|end| command[..end].to_vec());
    let odd = ["", "--", "-", "\u{0}", ".py"].map(|word| [command, &[word.to_owned()]].concat());
    prefixes.chain(odd)
}

/// Creates a project in a temporary directory.
fn project(files: &[(&str, &str)], environment: &Environment) -> (TempDir, Project) {
    let root = tempfile::tempdir().expect("a temporary directory can be created");
    for (path, text) in files {
        let path = root.path().join(path);
        let parent = path.parent().expect("a file has a parent directory");
        std::fs::create_dir_all(parent).expect("the project is writable");
        std::fs::write(path, text).expect("the project is writable");
    }
    let paths = files.iter().map(|(path, _)| PathBuf::from(path)).collect();
    let canonical = root.path().canonicalize().expect("the project exists");
    let project = Project::new(&canonical, paths, environment);
    (root, project)
}

async fn discover(fixture: &Fixture, project: &Project) -> Discovery {
    fixture.harness.discover(project).await.expect("the project is valid")
}
