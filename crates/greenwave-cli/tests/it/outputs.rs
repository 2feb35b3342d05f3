//! `greenwave test` on tests that write files into the project: these exist after each run, and
//! writing them does not make results stale.

use crate::program::{Program, until};
use crate::test_command::verdicts;
use crate::test_dir::TestDir;

fn project(script: &str) -> TestDir {
    let test = "[[test]]\nname = \"t\"\ncommand = [\"sh\", \"test.sh\"]\ninputs = [\"test.sh\"]\n\
        outputs = [\"report.txt\", \"out/\"]\n";
    TestDir::empty().with("p/greenwave.toml", test).with("p/test.sh", script)
}

/// Runs the test. Returns whether its result was cached.
fn is_cached(dir: &TestDir) -> bool {
    let program = Program::new(["test", "--format", "json"]).within(&dir.path("p"));
    let finished = program.variable("XDG_CACHE_HOME", dir.path("cache")).run().with_code(0);
    verdicts(&finished)[0].2
}

/// Runs the test with the up-to-date check.
fn run_plainly(dir: &TestDir) {
    let program = Program::new(["test"]).within(&dir.path("p"));
    program.variable("XDG_CACHE_HOME", dir.path("cache")).run().with_code(0);
}

#[test]
fn removed_outputs_of_a_cached_result_are_restored() {
    let dir = project(
        "echo report > report.txt; mkdir -p out/sub; echo more > out/sub/more; chmod +x out/sub/more",
    );
    until("the result is cached", || is_cached(&dir));
    run_plainly(&dir);
    run_plainly(&dir);
    std::fs::remove_file(dir.path("p/report.txt")).unwrap();
    std::fs::remove_dir_all(dir.path("p/out")).unwrap();
    run_plainly(&dir);
    assert_eq!(dir.read("p/report.txt"), "report\n");
    assert_eq!(dir.read("p/out/sub/more"), "more\n");
    assert!(is_cached(&dir));
}

#[test]
fn a_test_with_large_outputs_runs_again_if_one_was_removed() {
    let dir = project("head -c 2000000 /dev/zero > report.txt");
    until("the result is cached", || is_cached(&dir));
    std::fs::remove_file(dir.path("p/report.txt")).unwrap();
    assert!(!is_cached(&dir));
    assert_eq!(dir.read("p/report.txt").len(), 2_000_000);
    assert!(is_cached(&dir));
}

#[test]
fn a_test_may_list_the_directory_that_it_writes_outputs_to() {
    let dir = project("ls > /dev/null; rm -f report.txt; echo report > report.txt; ls > /dev/null");
    until("the result is cached", || is_cached(&dir));
    // Another name in the directory counts.
    dir.write("p/new", "");
    assert!(!is_cached(&dir));
}

/// Returns whether each of three runs used a cached result of a test that declares nothing.
fn sweeping(script: &str, ignored: &str) -> Vec<bool> {
    let test = "[[test]]\nname = \"t\"\ncommand = [\"sh\", \"test.sh\"]\n";
    let dir = TestDir::empty().with("p/greenwave.toml", test).with("p/test.sh", script);
    dir.write("p/.gitignore", ignored);
    dir.write("p/made/earlier", "1");
    // The first run may still find the files too new.
    is_cached(&dir);
    (0..3).map(|_| is_cached(&dir)).collect()
}

#[test]
fn a_directory_that_a_test_removes_and_creates_again_is_no_dependency() {
    let remake = "rm -rf made; mkdir -p made/tmp; echo $$ > made/tmp/$$; cat made/tmp/*; ls made > /dev/null";
    assert_eq!(sweeping(remake, "made\n").last(), Some(&true));
    // It depends on an earlier file, or on files that git does not ignore.
    let reads = format!("cat made/earlier made/tmp/* > /dev/null; {remake}");
    assert_eq!(sweeping(&reads, "made\n"), [false; 3]);
    assert_eq!(sweeping(remake, ""), [false; 3]);
}

#[test]
fn tests_that_are_not_cached_are_listed_with_the_reason() {
    let settings = "[[test]]\nname = \"counts\"\ncommand = \"echo x >> count\"\n\
        [[test]]\nname = \"fine\"\ncommand = \"true\"\ninputs = [\"fine\"]\n";
    let dir = TestDir::empty().with("p/greenwave.toml", settings).with("p/count", "x\n").with("p/fine", "");
    let run = |arguments: &[&str]| {
        let program = Program::new(["test"].iter().chain(arguments)).within(&dir.path("p"));
        program.variable("XDG_CACHE_HOME", dir.path("cache")).run().with_code(0).stdout
    };
    let nothing = "No selected test passed without its result being stored\n";
    assert_eq!(run(&["--why-not-cached"]), nothing);
    run(&[]);
    let listed = run(&["--why-not-cached"]);
    assert_eq!(
        listed,
        "counts\n  not cached: the test modifies its own input `count` (declare it in `outputs`)\n  \
         never cached in this directory\n  setting: outputs = [\"/count\"]\n\
         hint: add each setting to the test in greenwave.toml, which `greenwave test --init` writes for \
         tests that were discovered\n"
    );
    assert_eq!(run(&["fine", "--why-not-cached"]), nothing);
    assert_eq!(dir.read("p/count"), "x\nx\n");
    // The setting helps.
    let line = listed.lines().find_map(|line| line.trim().strip_prefix("setting: ")).unwrap();
    dir.write("p/greenwave.toml", settings.replacen(">> count\"\n", &format!(">> count\"\n{line}\n"), 1));
    run(&["counts"]);
    assert_eq!(run(&["--why-not-cached"]), nothing);
}
