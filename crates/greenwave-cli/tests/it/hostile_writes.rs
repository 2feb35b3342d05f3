//! Links and pipes that a repository or a test puts where greenwave writes.

use std::os::unix::fs::symlink;

use crate::program::Finished;
use crate::shell_plan::{self, ShellFeature};
use crate::test_dir::TestDir;

fn with_plan() -> TestDir {
    let feature = ShellFeature::new("one", "answer one.txt x", "test -f one.txt");
    TestDir::with_project().with("plan.toml", shell_plan::plan(&[feature])).with("home/notes", "precious")
}

#[test]
fn the_trace_of_a_run_is_not_written_through_links_that_a_clone_brings() {
    for (link, target, trace) in [
        ("trace.json", "home/notes", "trace.json"),
        ("trace.json", "home/new", "trace.json"),
        ("project/trace.json", "../home/notes", "project/trace.json"),
        ("project/out", "../home", "project/out/new"),
    ] {
        let dir = with_plan();
        symlink(target, dir.path(link)).unwrap();
        let run = dir.greenwave(["run", "plan.toml", "--no-metrics", "--trace", trace]).run().with_code(2);
        let name = link.rsplit('/').next().unwrap();
        assert!(run.stderr.contains(&format!("cannot write trace {trace}")), "{}", run.stderr);
        assert!(run.stderr.contains(&format!("`{name}` is a symbolic link")), "{}", run.stderr);
        assert_eq!(dir.read("home/notes"), "precious");
        assert!(!dir.path("home/new").exists());
    }
}

/// Outside of the directory of the plan and of the project, links are the user's.
#[test]
fn the_trace_of_a_run_is_written_through_links_of_the_user() {
    let (dir, other) = (with_plan(), with_plan());
    symlink(other.path("home"), other.path("linked")).unwrap();
    let trace = other.path("linked/new").display().to_string();
    dir.greenwave(["run", "plan.toml", "--no-metrics", "--trace", &trace]).run().with_code(0);
    assert!(other.read("home/new").starts_with('['));
}

/// Runs two tests one after the other. Both do the same in the directories of locks, to which tests
/// may write because runs inside of tests lock files there. The second one gets other ports and
/// another private directory.
fn run_beside_locks(script: &str) -> (TestDir, Finished) {
    let dir = TestDir::empty().with("p/keep", "");
    let locks = dir.path("cache/greenwave/tests").display().to_string();
    let script = format!("cd {locks}/leases && rm -f * || exit 1; touch $TMPDIR/changed; {script}; true");
    let test = |name: &str| {
        format!(
            "[[test]]\nname = \"{name}\"\ncommand = [\"sh\", \"-c\", '''{script} # {name}''']\ninputs = []\n"
        )
    };
    dir.write("p/greenwave.toml", format!("[parallel]\nworkers = 1\n{}{}", test("a"), test("b")));
    let run = dir.greenwave(["test"]).within(&dir.path("p"));
    let run = run.variable("XDG_CACHE_HOME", dir.path("cache")).variable("HOME", dir.path("home"));
    let done = run.run();
    (dir, done)
}

#[test]
fn pipes_that_a_test_puts_in_the_place_of_locks_hold_nothing_up() {
    for script in ["mkfifo leases", "cd ../ports; rm -f *; mkfifo $(seq 20000 16 31999)"] {
        let (_, done) = run_beside_locks(script);
        assert!(done.stdout.contains("2 tests: 2 passed"), "{script}: {}", done.describe());
    }
}

/// The results themselves are read-only to tests.
#[test]
fn links_that_a_test_puts_in_the_place_of_locks_are_not_followed() {
    let ports = "cd ../ports; rm -f *; for port in $(seq 20000 16 31999); do ln -s ../forged $port; done";
    for script in ["ln -s ../forged leases", ports] {
        let (dir, done) = run_beside_locks(script);
        assert!(done.stdout.contains("2 tests: 2 passed"), "{script}: {}", done.describe());
        assert!(!dir.path("cache/greenwave/tests/forged").exists(), "{script}: {}", done.describe());
    }
}
