//! The up-to-date check of `greenwave test` for discovered tests.
//!
//! The clock of the program is ahead, so that timestamps of files that were just written are not
//! racy.

use std::fs;
use std::os::unix::fs::MetadataExt;

use crate::clock::{Clocked, HOUR};
use crate::program::Finished;
use crate::test_dir::TestDir;

/// A project with an up-to-date record about discovered tests.
struct UpToDate {
    clocked: Clocked,
    /// Number of tests.
    tests: usize,
}

impl UpToDate {
    fn new(dir: TestDir, tests: usize) -> Option<Self> {
        let project = Self { clocked: Clocked::of(dir)?, tests };
        project.clocked.set(HOUR);
        let first = project.run().with_code(0);
        assert!(!first.stdout.contains("cached"), "{}", first.stdout);
        assert_eq!(project.record(), None, "the tests ran");
        assert!(!project.takes_fast_path(), "this run stores the record");
        assert!(project.takes_fast_path());
        Some(project)
    }

    fn pytest() -> Option<Self> {
        let dir = TestDir::empty()
            .with("p/lib.py", "def one():\n    return 1\n")
            .with("p/tests/test_a.py", "import lib\n\n\ndef test_a():\n    assert lib.one() == 1\n")
            .with("p/tests/test_b.py", "def test_b():\n    assert open('tests/data.txt').read() == '1'\n")
            .with("p/tests/data.txt", "1")
            .with("p/conftest.py", "")
            .with("p/notes.md", "1");
        fs::create_dir(dir.path("p/empty")).unwrap();
        Self::new(dir, 2)
    }

    fn run(&self) -> Finished {
        self.clocked.greenwave(["test"]).run()
    }

    /// Returns the identity of the record's file, which is replaced when a record is stored.
    fn record(&self) -> Option<(u64, i64)> {
        let metadata = fs::metadata(self.clocked.dir.path("p/.greenwave/tests/answer")).ok()?;
        Some((metadata.ino(), metadata.ctime_nsec()))
    }

    /// Runs the tests, which must all be cached. Returns whether the record answered.
    #[track_caller]
    fn takes_fast_path(&self) -> bool {
        let before = self.record();
        let finished = self.run().with_code(0);
        let line = match self.tests {
            1 => "1 test: 1 passed, all cached (saved ".to_owned(),
            tests => format!("{tests} tests: {tests} passed, all cached (saved "),
        };
        assert!(finished.stdout.contains(&line), "{}", finished.stdout);
        before.is_some() && self.record() == before
    }
}

#[test]
fn a_changed_project_is_discovered_again() {
    type Change = fn(&TestDir);
    let changes: [(&str, Change, &str); 9] = [
        ("a module", |dir| dir.write("p/lib.py", "def one():\n    return 2\n"), "1 failed"),
        ("a data file", |dir| dir.write("p/tests/data.txt", "2"), "1 failed"),
        (
            "a new test",
            |dir| dir.write("p/tests/test_c.py", "def test_c():\n    assert False\n"),
            "3 tests: 2 passed, 1 failed",
        ),
        (
            "a test in a directory that was empty",
            |dir| dir.write("p/empty/test_c.py", "def test_c():\n    assert False\n"),
            "3 tests: 2 passed, 1 failed",
        ),
        ("a removed test", |dir| fs::remove_file(dir.path("p/tests/test_b.py")).unwrap(), "1 test: 1 passed"),
        ("a hook", |dir| dir.write("p/conftest.py", "raise SystemError('no')\n"), "failed"),
        (
            "settings of pytest in the project",
            |dir| dir.write("p/pytest.ini", "[pytest]\npython_files = test_a.py\n"),
            "1 test: 1 passed",
        ),
        (
            "settings of pytest above the project",
            |dir| dir.write("pytest.ini", "[pytest]\npython_files = test_a.py\n"),
            "1 test: 1 passed",
        ),
        (
            "declared tests",
            |dir| dir.write("p/greenwave.toml", "[[test]]\nname = \"t\"\ncommand = \"exit 1\"\n"),
            "1 test: 1 failed",
        ),
    ];
    for (change, apply, expected) in changes {
        let Some(project) = UpToDate::pytest() else { return };
        apply(&project.clocked.dir);
        let finished = project.run();
        assert!(finished.stdout.contains(expected), "{change}: {}{}", finished.stdout, finished.stderr);
    }
}

#[test]
fn a_file_that_no_test_reads_keeps_the_record() {
    let Some(project) = UpToDate::pytest() else { return };
    project.clocked.dir.write("p/notes.md", "2");
    assert!(project.takes_fast_path());
    // Another file may be a test. pytest collects again, and the run after that stores a record.
    project.clocked.dir.write("p/empty/more.md", "2");
    assert!(project.run().with_code(0).stdout.contains("all cached"));
    assert!(!project.takes_fast_path());
    assert!(project.takes_fast_path());
}

#[test]
fn a_script_of_a_manifest_has_a_record() {
    let manifest = |code: &str| format!(r#"{{"name": "p", "scripts": {{"test": "node -e {code}"}}}}"#);
    let Some(project) = UpToDate::new(TestDir::empty().with("p/package.json", manifest("0")), 1) else {
        return;
    };
    project.clocked.dir.write("p/package.json", manifest("process.exit(1)"));
    let finished = project.run().with_code(1);
    assert!(finished.stdout.contains("1 failed"), "{}", finished.stdout);
}

#[test]
fn a_package_of_go_has_a_record() {
    let test = |answer: &str| {
        format!(
            "package p\n\nimport \"testing\"\n\nfunc TestOne(t *testing.T) {{\n\tif {answer} != 1 {{\n\t\tt.Fail()\n\t}}\n}}\n"
        )
    };
    let dir = TestDir::empty().with("p/go.mod", "module example.org/p\n\ngo 1.18\n");
    let Some(project) = UpToDate::new(dir.with("p/p_test.go", test("1")), 1) else { return };
    project.clocked.dir.write("p/p_test.go", test("2"));
    let finished = project.run().with_code(1);
    assert!(finished.stdout.contains("1 failed"), "{}", finished.stdout);
}
