//! Integration tests of greenwave-testing, with real directories and processes.

#![expect(clippy::unwrap_used, reason = "a helper of tests is a test")]

mod discover;
mod discover_npm;
mod edits;
mod harnesses;
mod maintained;
mod objects;
mod option_ranges;
mod panics;
mod report;

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use greenwave_cache::{MemoryBackend, Tier, Tiered, TieredOptions};
use greenwave_testing::{
    CacheDecision, Environment, Error, ExitReason, Manifest, Outcome, Runner, SCHEMA, Source, Status, Test,
    TestCount,
};
use tempfile::TempDir;

fn project(files: &[(&str, &str)]) -> TempDir {
    let directory = tempfile::tempdir().unwrap();
    for (path, text) in files {
        write(directory.path(), path, text);
    }
    directory
}

fn write(directory: &Path, path: &str, text: &str) {
    let path = directory.join(path);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, text).unwrap();
}

fn runner(variables: &[(&str, &str)]) -> Runner {
    let backend = Arc::new(MemoryBackend::new(100, 1 << 20).unwrap());
    let tier = Tier::new("memory", backend);
    let path = ("PATH".into(), std::env::var_os("PATH").unwrap());
    let variables = variables.iter().map(|(name, value)| (name.into(), value.into()));
    let environment = Environment::new(variables.chain([path]));
    Runner::new(environment, Some(Tiered::new(vec![tier], TieredOptions::new(SCHEMA))))
}

fn shell(script: &str) -> Test {
    Test::new("test", ["sh", "-c", script])
}

async fn run(runner: &Runner, directory: &TempDir, test: &Test) -> Outcome {
    runner.run(directory.path(), test).await.unwrap()
}

#[tokio::test]
async fn a_pass_is_cached_until_an_input_changes() {
    let directory = project(&[("src/a.txt", "1"), ("notes.md", "x")]);
    let runner = runner(&[]);
    let test = Test { inputs: vec!["src/**".to_owned()], ..shell("cat src/a.txt; echo seen >&2") };
    let first = run(&runner, &directory, &test).await;
    assert_eq!((first.source, first.output.as_ref()), (Source::Ran(CacheDecision::Stored), &b"1seen\n"[..]));

    write(directory.path(), "notes.md", "no input");
    let second = run(&runner, &directory, &test).await;
    assert!(second.is_cached() && second.passed());
    assert_eq!((second.output, second.duration.as_micros()), (first.output, first.duration.as_micros()));

    let changes: [fn(&Path); 5] = [
        |directory| write(directory, "src/a.txt", "2"),
        |directory| write(directory, "src/new.txt", ""),
        |directory| fs::rename(directory.join("src/new.txt"), directory.join("src/other.txt")).unwrap(),
        |directory| make_executable(&directory.join("src/other.txt")),
        |directory| std::os::unix::fs::symlink("a.txt", directory.join("src/link")).unwrap(),
    ];
    for (number, change) in changes.into_iter().enumerate() {
        change(directory.path());
        assert!(!run(&runner, &directory, &test).await.is_cached(), "change {number} was not detected");
    }
    // The original state is cached, in any directory.
    let elsewhere = project(&[("src/a.txt", "1")]);
    assert!(run(&runner, &elsewhere, &test).await.is_cached());
}

fn make_executable(path: &Path) {
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
}

#[tokio::test]
async fn key_covers_command_directory_and_visible_variables() {
    let directory = project(&[("sub/a", ""), ("a", "")]);
    let key =
        async |test: &Test, variables: &[(&str, &str)]| run(&runner(variables), &directory, test).await.key;
    let plain = key(&shell("true"), &[]).await;
    assert_eq!(key(&Test { name: "renamed".to_owned(), ..shell("true") }, &[]).await, plain);
    assert_ne!(key(&shell("true "), &[]).await, plain);
    assert_ne!(key(&Test { directory: "sub".into(), ..shell("true") }, &[]).await, plain);
    assert_ne!(key(&shell("true"), &[("LANG", "C")]).await, plain);
    assert_eq!(key(&shell("true"), &[("SECRET", "x")]).await, plain);
    let declared = Test { env: vec!["SECRET".to_owned()], ..shell("true") };
    assert_ne!(key(&declared, &[("SECRET", "x")]).await, key(&declared, &[("SECRET", "y")]).await);
    assert_eq!(key(&declared, &[]).await, plain);
}

#[tokio::test]
async fn undeclared_variables_are_not_passed_on() {
    let directory = project(&[("a", "")]);
    let runner = runner(&[("SECRET", "x"), ("OPEN", "y")]);
    let test = Test { env: vec!["OPEN".to_owned()], ..shell("echo $SECRET-$OPEN; env | grep -c SECRET") };
    assert_eq!(run(&runner, &directory, &test).await.output, "-y\n0\n");
}

#[tokio::test]
async fn only_clean_passes_are_stored() {
    let directory = project(&[("a", "")]);
    let runner = runner(&[]);
    let source = async |script: &str| {
        let outcome = run(&runner, &directory, &shell(script)).await;
        (outcome.status, outcome.source)
    };
    let not_a_pass = || Source::Ran(CacheDecision::NotAPass);
    assert_eq!(source("exit 3").await, (Status::Failed(ExitReason::Code(3)), not_a_pass()));
    assert_eq!(source("kill -9 $$").await, (Status::Failed(ExitReason::Signal(9)), not_a_pass()));
    let no_tests = "echo 'test result: ok. 0 passed; 0 failed; 0 ignored'";
    assert_eq!(source(no_tests).await, (Status::NoTests, not_a_pass()));
    let none = Test { inputs: vec!["*.rs".to_owned()], ..shell("true") };
    for _ in 0..2 {
        assert_eq!(run(&runner, &directory, &none).await.source, Source::Ran(CacheDecision::NoInputs));
    }
    let changed = Source::Ran(CacheDecision::InputChanged("a".into()));
    assert_eq!(source("echo x > a").await, (Status::Passed, changed));
    assert!(!run(&runner, &directory, &shell("exit 3")).await.is_cached());
}

#[tokio::test]
async fn output_of_a_test_that_exceeds_its_time_limit_is_captured() {
    let directory = project(&[("a", "")]);
    let test = Test { time_max: Duration::from_millis(300), ..shell("echo before; sleep 1000") };
    let outcome = run(&runner(&[]), &directory, &test).await;
    assert_eq!(
        (outcome.status, outcome.output.as_ref()),
        (Status::TimedOut(test.time_max), &b"before\n"[..])
    );
}

#[test]
fn a_time_limit_reads_as_in_settings() {
    let check = |ms: u64, expected: &str| {
        let text = Status::TimedOut(Duration::from_millis(ms)).to_string();
        assert_eq!(text, format!("did not end within {expected} and was killed"));
    };
    check(250, "250ms");
    check(1_500, "1s 500ms");
    check(300_000, "5m");
    check(5_400_000, "1h 30m");
}

#[tokio::test]
async fn the_middle_of_long_output_is_omitted() {
    let directory = project(&[("a", "")]);
    let outcome =
        run(&runner(&[]), &directory, &shell("echo first; head -c 3000000 /dev/zero; echo last")).await;
    let text = String::from_utf8_lossy(&outcome.output);
    assert!(text.starts_with("first\n") && text.ends_with("last\n") && text.len() < 300_000);
    assert!(text.contains("bytes omitted"));
}

#[tokio::test]
async fn errors_explain_why_a_test_cannot_start() {
    let directory = project(&[("a", ""), ("plain.sh", "true")]);
    let error = async |test: &Test| runner(&[]).run(directory.path(), test).await.unwrap_err();
    let message = async |test: &Test| error(test).await.to_string();
    let missing = Test::new("t", ["no-such-program"]);
    assert_eq!(
        message(&missing).await,
        "cannot find program `no-such-program` of test `t` on the PATH or in the project"
    );
    assert!(
        matches!(error(&Test::new("t", ["./plain.sh"])).await, Error::NoSuchProgram { .. }),
        "not executable"
    );
    assert_eq!(
        message(&Test::new("t", [""; 0])).await,
        "invalid value `[]` for `command` in test `t`: expected a program and its arguments"
    );
    let bad = Test { inputs: vec!["a[".to_owned()], ..shell("true") };
    assert_eq!(
        message(&bad).await,
        "invalid pattern `a[` of test `test`: expected a glob in the syntax of .gitignore"
    );
}

#[test]
fn default_inputs_exclude_ignored_and_derived_files() {
    let directory = project(&[
        (".gitignore", "/built\n*.log\n"),
        (".hidden", ""),
        ("built/x", ""),
        ("run.log", ""),
        (".git/HEAD", ""),
        ("src/target/mod.rs", ""),
        ("target/debug/x", ""),
        ("target/CACHEDIR.TAG", "Signature: 8a477f597d28d172789f06886806bc55\n"),
        ("worktree/.git", "gitdir: elsewhere"),
    ]);
    std::os::unix::fs::symlink("nowhere", directory.path().join("link")).unwrap();
    let manifest = Manifest::of_project(directory.path()).unwrap();
    let found: Vec<_> = manifest.files().map(|(path, _)| path.to_str().unwrap().to_owned()).collect();
    assert_eq!(found, [".gitignore", ".hidden", "link", "src/target/mod.rs"]);
}

#[test]
fn counts_are_parsed_from_the_output_of_harnesses() {
    let check = |output: &str, expected: Option<(u32, u32)>| {
        let expected = expected.map(|(passed, failed)| TestCount { passed, failed });
        assert_eq!(TestCount::find(output.as_bytes()), expected, "{output}");
    };
    let rust = "running 2 tests\ntest result: ok. 2 passed; 0 failed; 1 ignored\n";
    check(rust, Some((2, 0)));
    check(
        &format!("{rust}test result: \x1b[31mFAILED\x1b[0m. 1 passed; 3 failed; 0 ignored\n"),
        Some((3, 3)),
    );
    check("     Summary [   0.004s] 5 tests run: 4 passed, 1 failed, 0 skipped\n", Some((4, 1)));
    check("==== 1 failed, 3 passed, 1 error in 0.12s ====\n", Some((3, 2)));
    check("3 passed in 0.01s\n", Some((3, 0)));
    check("no tests ran in 0.01s\n", Some((0, 0)));
    check("ok  \tx/pkg\t0.002s [no tests to run]\n", Some((0, 0)));
    check("?   \tx/pkg\t[no test files]\n", Some((0, 0)));
    check("ok  \tx/pkg\t0.002s\n", None);
    check("all 3 passed, honestly\n", None);
    check("", None);
}
