//! Compares cached results with those of uncached runs, in a project that is edited at random.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use greenwave_cache::{MemoryBackend, Tier, Tiered, TieredOptions};
use greenwave_testing::{
    Environment, Runner, RunnerOptions, SCHEMA, Suite, Test, TraceMode, TraceStatus, UserKey,
};
use greenwave_testkit::random::Random;

/// Returns the number of rounds of edits. `cargo xtask long testing-edits` sets a larger one.
fn rounds() -> u64 {
    std::env::var("GREENWAVE_EDIT_ROUNDS").ok().and_then(|rounds| rounds.parse().ok()).unwrap_or(60)
}

const DIRECTORIES: [&str; 3] = ["a", "b", "c"];
const FILES: u64 = 4;

fn file(random: &mut Random) -> PathBuf {
    Path::new(random.one_of(&DIRECTORIES)).join(format!("{}.txt", random.below(FILES)))
}

/// Returns tests that read declared files, undeclared files, names, modes and links.
fn tests() -> Vec<Test> {
    let test = |name: &str, script: &str, inputs: &[&str]| Test {
        inputs: inputs.iter().map(|pattern| (*pattern).to_owned()).collect(),
        ..Test::new(name, ["sh", "-c", script])
    };
    vec![
        test("declared", "! cat a/*.txt | grep -q bad", &["/a/**"]),
        test("half declared", "! cat a/0.txt b/1.txt c/2.txt 2>/dev/null | grep -q bad", &["/a/0.txt"]),
        test("names", "test $(ls b c | wc -l) -lt 9", &["/a/1.txt"]),
        test("modes", "test ! -x a/2.txt && test ! -x b/2.txt", &["/a/**"]),
        test("links", "! cat c/link 2>/dev/null | grep -q bad", &["/a/3.txt"]),
        Test::new("everything", ["sh", "-c", "! cat */*.txt | grep -q bad"]),
    ]
}

/// Edits a random file and returns a description of the edit.
fn edit(project: &Path, random: &mut Random) -> String {
    let (one, other) = (file(random), file(random));
    let (path, target) = (project.join(&one), project.join(&other));
    match random.below(9) {
        0 => {
            let _ = fs::remove_file(&path);
            format!("remove {}", one.display())
        }
        1 => {
            let _ = fs::rename(&path, &target);
            format!("rename {} to {}", one.display(), other.display())
        }
        2 => {
            let _ = fs::remove_file(project.join("c/link"));
            let _ = std::os::unix::fs::symlink(project.join(&one), project.join("c/link"));
            format!("link to {}", one.display())
        }
        3 => {
            let mode = *random.one_of(&[0o644, 0o755]);
            let _ = fs::set_permissions(&path, fs::Permissions::from_mode(mode));
            format!("mode {mode:o} of {}", one.display())
        }
        // Keeps the size and the modification time.
        4 | 5 => {
            let times = fs::metadata(&path).and_then(|metadata| metadata.modified());
            let text = *random.one_of(&["good\n", "bad \n"]);
            let _ = fs::write(&path, text);
            if let (Ok(modified), Ok(file)) = (times, fs::File::options().write(true).open(&path)) {
                let _ = file.set_modified(modified);
            }
            format!("{text:?} into {}, with its old time", one.display())
        }
        _ => {
            let text = *random.one_of(&["good\n", "good\n", "bad \n"]);
            let _ = fs::write(&path, text);
            format!("{text:?} into {}", one.display())
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_edit_makes_a_result_stale() {
    let seed = std::env::var("GREENWAVE_SEED").ok().and_then(|seed| seed.parse().ok());
    let seed = seed.unwrap_or_else(|| u64::from(std::process::id()) * 2_654_435_761 + 1);
    let mut random = Random::new(seed);
    let directory = tempfile::tempdir().unwrap();
    let project = directory.path();
    for name in DIRECTORIES {
        fs::create_dir(project.join(name)).unwrap();
        for number in 0..FILES {
            fs::write(project.join(name).join(format!("{number}.txt")), "good\n").unwrap();
        }
    }
    let path = || [("PATH".into(), std::env::var_os("PATH").unwrap())];
    let backend = Arc::new(MemoryBackend::new(100_000, 64 << 20).unwrap());
    let uncached_runner = Runner::new(Environment::new(path()), None);
    let (key, mut cached, mut edits) = (UserKey::new([3; 32]), 0, Vec::new());
    for round in 0..rounds() {
        let tier = Tier::new("memory", Arc::clone(&backend) as Arc<dyn greenwave_cache::Backend>);
        let cache = Tiered::new(vec![tier], TieredOptions::new(SCHEMA));
        let options = RunnerOptions { trace: TraceMode::WhenPossible, ..RunnerOptions::default() };
        let mut tests = tests();
        if TraceStatus::of(options.trace) != TraceStatus::Traced {
            // Without tracing, undeclared reads are not detected, so all files are inputs.
            tests.iter_mut().for_each(|test| test.inputs.clear());
        }
        // A new suite per round, as in a new process: all state is in the project's directory.
        let suite =
            Suite::builder(project).tests(tests).environment(Environment::new(path())).key(key.clone());
        let suite = suite.cache(Some(cache)).runner(options).open();
        let suite = suite.unwrap();
        let ids: Vec<_> = suite.ids().collect();
        let report = suite.run(&ids, |_| {}).await.unwrap();
        for (test, result) in suite.tests().iter().zip(&report.results) {
            let outcome = result.as_ref().unwrap().as_ref().unwrap();
            let uncached = uncached_runner.run(project, test).await.unwrap();
            cached += u64::from(outcome.is_cached());
            assert_eq!(
                outcome.passed(),
                uncached.passed(),
                "seed {seed}, round {round}: `{}` is stale ({:?}) after {edits:?}",
                test.name,
                outcome.source,
            );
        }
        edits = (0..=random.below(2)).map(|_| edit(project, &mut random)).collect();
    }
    assert!(cached > 0, "seed {seed}: no result was cached, so nothing was compared");
}
