//! Selecting tests by their last results and by shard.

use std::collections::BTreeSet;

use crate::program::{Finished, Program};
use crate::test_dir::TestDir;

/// Tests `a` to `d`, which write their names to a file outside of the project. `b` fails while the
/// file `broken` exists, and `a` takes longer than the others together.
fn project() -> TestDir {
    let test = |name: &str, script: &str| {
        format!(
            "[[test]]\nname = \"{name}\"\ninputs = [\"/in\"]\ncommand = \"echo {name} >> ../ran; {script}\"\n"
        )
    };
    let tests = [test("a", "sleep 0.6"), test("b", "test ! -e broken"), test("c", "true"), test("d", "true")];
    TestDir::empty().with("p/greenwave.toml", tests.concat()).with("p/in", "")
}

fn greenwave(dir: &TestDir, args: &[&str]) -> Program {
    let args = ["test", "--no-cache"].into_iter().chain(args.iter().copied());
    dir.greenwave(args).within(&dir.path("p")).variable("XDG_CACHE_HOME", dir.path("cache"))
}

/// Runs the program and returns which tests ran.
fn ran(dir: &TestDir, args: &[&str], code: i32) -> (BTreeSet<String>, Finished) {
    dir.write("ran", "");
    let finished = greenwave(dir, args).run().with_code(code);
    (dir.read("ran").lines().map(str::to_owned).collect(), finished)
}

fn names<const N: usize>(names: [&str; N]) -> BTreeSet<String> {
    names.map(str::to_owned).into_iter().collect()
}

#[test]
fn the_tests_that_failed_last_run_alone() {
    let dir = project();
    let (tests, finished) = ran(&dir, &["--last-failed"], 0);
    assert_eq!((tests, finished.stdout.trim()), (names([]), "No selected test failed when it last ran"));
    dir.write("p/broken", "");
    assert_eq!(ran(&dir, &[], 1).0, names(["a", "b", "c", "d"]));
    assert_eq!(ran(&dir, &["--last-failed"], 1).0, names(["b"]));
    std::fs::remove_file(dir.path("p/broken")).unwrap();
    assert_eq!(ran(&dir, &["--last-failed"], 0).0, names(["b"]));
    assert_eq!(ran(&dir, &["--last-failed"], 0).0, names([]));
}

#[test]
fn a_test_that_could_not_be_run_has_failed() {
    let dir = TestDir::empty()
        .with("p/greenwave.toml", "[[test]]\nname = \"a\"\ncommand = [\"no-such-program\"]\n");
    greenwave(&dir, &[]).run().with_code(1);
    let finished = greenwave(&dir, &["--last-failed"]).run().with_code(1);
    assert!(finished.stdout.contains("1 test: 1 broken"), "{}", finished.stdout);
}

#[test]
fn shards_run_each_test_once_and_take_equally_long_by_a_file() {
    let dir = project();
    let (first, finished) = ran(&dir, &["--shard", "1/2"], 0);
    let (second, _) = ran(&dir, &["--shard", "2/2"], 0);
    assert_eq!((first.len(), second.len()), (2, 2));
    assert_eq!(&first | &second, names(["a", "b", "c", "d"]));
    assert!(finished.stderr.contains("note: shard 1/2: 2 of 4 tests"), "{}", finished.stderr);

    let file = dir.path("timings.json").display().to_string();
    ran(&dir, &["--save-timings", &file], 0);
    assert!(dir.read("timings.json").starts_with("{\n  \"version\": 1,\n"), "{}", dir.read("timings.json"));
    let written = dir.read("timings.json");
    let (first, _) = ran(&dir, &["--shard", "1/2", "--timings", &file], 0);
    let (second, finished) = ran(&dir, &["--shard", "2/2", "--timings", &file], 0);
    assert_eq!((first, second), (names(["a"]), names(["b", "c", "d"])));
    assert!(finished.stderr.contains("3 of 4 tests, expected to take "), "{}", finished.stderr);
    assert_eq!(dir.read("timings.json"), written, "a shard must not change the file that it reads");

    let of_shard = dir.path("shard.json").display().to_string();
    ran(&dir, &["--shard", "1/2", "--timings", &file, "--save-timings", &of_shard], 0);
    assert_eq!(dir.read("timings.json"), written);
    assert!(dir.read("shard.json").starts_with("{\n  \"version\": 1,\n"), "{}", dir.read("shard.json"));

    let (tests, finished) = ran(&dir, &["--shard", "5/5"], 0);
    assert_eq!((tests, finished.stdout.trim()), (names([]), "Shard 5/5 has no test"));
}

#[test]
fn invalid_shards_and_files_are_errors() {
    let dir = project().with("p/other", "{}");
    let (_, finished) = ran(&dir, &["--shard", "3/2"], 2);
    assert!(finished.stderr.contains("expected K/N with a part K from 1 to N"), "{}", finished.stderr);
    let (_, finished) = ran(&dir, &["--shard", "1/2", "--timings", "missing"], 2);
    assert!(
        finished.stderr.contains("cannot read missing")
            && finished.stderr.contains("hint: create the file with"),
        "{}",
        finished.stderr
    );
    let (_, finished) = ran(&dir, &["--shard", "1/2", "--timings", "other"], 2);
    assert!(finished.stderr.contains("caused by: invalid file of durations"), "{}", finished.stderr);
    let (tests, _) = ran(&dir, &["--save-timings", "missing/file"], 2);
    assert_eq!(tests, names([]), "a file that cannot be written is an error before tests run");
    let (_, finished) = ran(&dir, &["--timings", "other"], 2);
    assert!(finished.stderr.contains("--shard <K/N>"), "{}", finished.stderr);
}

#[test]
fn new_tests_run_several_times() {
    // Passes twice, then fails.
    let script = "n=$(cat ../n 2>/dev/null || echo 0); echo $((n + 1)) > ../n; test $n -lt 2";
    let config = format!("[[test]]\nname = \"t\"\ninputs = [\"/in\"]\ncommand = \"{script}\"\n");
    let dir = TestDir::empty().with("p/greenwave.toml", config).with("p/in", "");
    let finished = greenwave(&dir, &["--stress-new", "5"]).run().with_code(1);
    assert!(finished.stdout.contains("[this new test failed at run 3 of 5]"), "{}", finished.stdout);
    assert_eq!(dir.read("n"), "3\n");
    // It has run, so that it is not new.
    dir.write("n", "0");
    let finished = greenwave(&dir, &["--stress-new", "5"]).run().with_code(0);
    assert!(!finished.stdout.contains("new test"), "{}", finished.stdout);
    assert_eq!(dir.read("n"), "1\n");
}

#[test]
fn a_new_test_that_fails_once_is_not_cached() {
    let script = "n=$(cat ../n 2>/dev/null || echo 0); echo $((n + 1)) > ../n; test $n -ne 1";
    let config = format!("[[test]]\nname = \"t\"\ninputs = [\"/in\"]\ncommand = \"{script}\"\n");
    let dir = TestDir::empty().with("p/greenwave.toml", config).with("p/in", "");
    let call = |args: &[&str]| {
        let args = ["test", "--set", "testing.trace=false"].into_iter().chain(args.iter().copied());
        dir.greenwave(args).within(&dir.path("p")).variable("XDG_CACHE_HOME", dir.path("cache")).run()
    };
    call(&["--stress-new", "3"]).with_code(1);
    let finished = call(&[]).with_code(0);
    assert!(!finished.stdout.contains("cached"), "{}", finished.stdout);
    assert_eq!(dir.read("n"), "3\n");
}
