//! The up-to-date check of `greenwave test`: it answers for unchanged projects, and only for those.
//!
//! The clock of the program is ahead, so that timestamps of files that were just written are not
//! racy.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

use crate::clock::{Clocked, HOUR};
use crate::program::{Finished, Program};
use crate::test_dir::{STATE, TestDir};

const CONFIG: &str = r#"
[testing]
ttl = "30m"

[[test]]
name = "reads"
command = "grep -q 1 in/a.txt && grep -q 1 undeclared.txt && test ! -e gone.txt && test \"$MODE\" != bad && grep -q 1 in/link"
inputs = ["/in/**", "!*.md"]
env = ["MODE"]

[[test]]
name = "tool"
command = ["probe", "x"]
folders = ["in"]
"#;

/// A project with an up-to-date record.
struct UpToDate(Clocked);

impl UpToDate {
    fn new() -> Option<Self> {
        let dir = TestDir::empty()
            .with("p/greenwave.toml", CONFIG)
            .with("p/in/a.txt", "1")
            .with("p/in/deep/b.txt", "1")
            .with("p/in/notes.md", "1")
            .with("p/undeclared.txt", "1")
            .with("target.txt", "1")
            .with("early/nothing", "")
            .with("late/probe", "#!/bin/sh\nexit 0\n");
        fs::set_permissions(dir.path("late/probe"), fs::Permissions::from_mode(0o755)).unwrap();
        symlink("../../target.txt", dir.path("p/in/link")).unwrap();
        let project = Self(Clocked::of(dir)?);
        project.0.set(HOUR);
        assert!(!project.run(&[]).with_code(0).stdout.contains("cached"));
        assert_eq!(project.record(), None, "the tests ran");
        assert!(!project.takes_fast_path(&[]), "this run stores the record");
        assert!(project.takes_fast_path(&[]));
        Some(project)
    }

    fn program(&self, args: &[&str]) -> Program {
        let path = std::env::var("PATH").unwrap();
        let dir = |name: &str| self.0.dir.path(name).display().to_string();
        let path = format!("{}:{}:{path}", dir("early"), dir("late"));
        self.0.greenwave(["test"].into_iter().chain(args.iter().copied())).variable("PATH", path)
    }

    fn run(&self, args: &[&str]) -> Finished {
        self.program(args).run()
    }

    /// Returns the identity of the record's file, which is replaced when a record is stored.
    fn record(&self) -> Option<(u64, i64)> {
        let metadata = fs::metadata(self.0.dir.path("p/.greenwave/tests/answer")).ok()?;
        Some((metadata.ino(), metadata.ctime_nsec()))
    }

    /// Runs the tests, which must all be cached. Returns whether the record answered.
    #[track_caller]
    fn takes_fast_path(&self, args: &[&str]) -> bool {
        let before = self.record();
        let finished = self.run(args).with_code(0);
        assert!(finished.stdout.contains("2 tests: 2 passed, all cached (saved "), "{}", finished.stdout);
        before.is_some() && self.record() == before
    }

    /// Checks that the next run looks all results up, and stores a record.
    #[track_caller]
    fn takes_slow_path_once(&self) {
        assert!(!self.takes_fast_path(&[]));
        assert!(self.takes_fast_path(&[]));
    }

    /// Checks that a test runs, and the exit code.
    #[track_caller]
    fn runs_again(&self, args: &[&str], code: i32) -> Finished {
        let finished = self.run(args).with_code(code);
        assert!(!finished.stdout.contains("all cached"), "{}", finished.stdout);
        finished
    }
}

/// Overwrites a file with a text of the same length and restores its modification time.
fn overwrite_silently(dir: &TestDir, path: &str, text: &str) {
    let path = dir.path(path);
    let modified = fs::metadata(&path).unwrap().modified().unwrap();
    fs::write(&path, text).unwrap();
    fs::File::options().write(true).open(&path).unwrap().set_modified(modified).unwrap();
}

#[test]
fn changes_of_dependencies_run_tests_again() {
    type Change = fn(&TestDir);
    let changes: [(&str, Change); 9] = [
        ("an input", |dir| overwrite_silently(dir, "p/in/a.txt", "2")),
        ("the target of a link", |dir| overwrite_silently(dir, "target.txt", "2")),
        ("a link", |dir| {
            fs::remove_file(dir.path("p/in/link")).unwrap();
            symlink("../../early/nothing", dir.path("p/in/link")).unwrap();
        }),
        ("an undeclared file", |dir| overwrite_silently(dir, "p/undeclared.txt", "2")),
        ("a file that did not exist", |dir| dir.write("p/gone.txt", "")),
        ("a removed input", |dir| fs::remove_file(dir.path("p/in/a.txt")).unwrap()),
        ("the command", |dir| {
            dir.write("p/greenwave.toml", CONFIG.replace("-q 1 in/a.txt", "-q 2 in/a.txt"));
        }),
        ("a program", |dir| overwrite_silently(dir, "late/probe", "#!/bin/sh\nexit 1\n")),
        ("another program of that name on the path", |dir| {
            dir.write("early/probe", "#!/bin/sh\nexit 1\n");
            fs::set_permissions(dir.path("early/probe"), fs::Permissions::from_mode(0o755)).unwrap();
        }),
    ];
    for (change, apply) in changes {
        let Some(project) = UpToDate::new() else { return };
        apply(&project.0.dir);
        let finished = project.run(&[]);
        assert_eq!(finished.status.code(), Some(1), "{change}: {}", finished.stdout);
        assert!(finished.stdout.contains("1 failed"), "{change}: {}", finished.stdout);
    }
}

#[test]
fn changes_that_tests_survive_run_them_again() {
    let Some(project) = UpToDate::new() else { return };
    // A new input in an existing directory.
    project.0.dir.write("p/in/deep/c.txt", "1");
    project.runs_again(&[], 0);
    project.takes_slow_path_once();
    // An ignored file is not an input. A change of an ignore file is a change of the inputs.
    project.0.dir.write("p/.gitignore", "b.txt\n");
    project.runs_again(&[], 0);
    project.takes_slow_path_once();
    project.0.dir.write("p/.gitignore", "a.txt\n");
    project.runs_again(&[], 0);
    project.takes_slow_path_once();
    // A declared variable, and one that all tests see.
    for (name, value) in [("MODE", "good"), ("LANG", "C.UTF-8")] {
        let finished = project.program(&[]).variable(name, value).run().with_code(0);
        assert!(!finished.stdout.contains("all cached"), "{name}: {}", finished.stdout);
    }
    project.takes_slow_path_once();
    let failed = project.program(&[]).variable("MODE", "bad").run().with_code(1);
    assert!(failed.stdout.contains("1 failed"), "{}", failed.stdout);
}

#[test]
fn removed_and_expired_results_run_again() {
    let Some(project) = UpToDate::new() else { return };
    project.0.greenwave(["cache", "clear"]).run().with_code(0);
    project.runs_again(&[], 0);
    project.takes_slow_path_once();
    fs::remove_dir_all(project.0.dir.path("cache")).unwrap();
    project.runs_again(&[], 0);
    project.takes_slow_path_once();
    // The TTL is half an hour.
    project.0.set(HOUR + HOUR / 4);
    assert!(project.takes_fast_path(&[]));
    project.0.set(2 * HOUR);
    project.runs_again(&[], 0);
    project.takes_slow_path_once();
    // A change of the stored results invalidates the record.
    project.0.dir.write("other/greenwave.toml", CONFIG.replace("probe", "true"));
    project.0.dir.write("other/in/a.txt", "other");
    let other = project.0.dir.path("other");
    project.program(&["--project", other.to_str().unwrap(), "tool"]).run().with_code(0);
    project.takes_slow_path_once();
}

#[test]
fn flags_that_need_results_take_the_slow_path() {
    let Some(project) = UpToDate::new() else { return };
    let audited = project.run(&["--audit", "100%"]).with_code(0);
    assert!(audited.stdout.contains("2 cached results audited: no difference"), "{}", audited.stdout);
    project.runs_again(&["--no-cache"], 0);
    let verbose = project.run(&["--verbose"]).with_code(0);
    assert!(verbose.stdout.contains("cached   reads"), "{}", verbose.stdout);
    let json = project.run(&["--format", "json"]).with_code(0);
    assert_eq!(json.report().iter().filter(|event| event["cached"] == true).count(), 2);
    // Untraced results are separate.
    project.runs_again(&["--set", "testing.trace=false"], 0);
    let wrong = project.program(&[]).variable("GREENWAVE_NONSENSE", "1").run().with_code(2);
    assert!(wrong.stderr.contains("unknown variable `GREENWAVE_NONSENSE`"), "{}", wrong.stderr);
}

#[test]
fn filters_choose_among_the_tests_of_the_record() {
    let Some(project) = UpToDate::new() else { return };
    let record = project.record();
    for (filters, tests) in [(&["tool"] as &[_], "1 test: 1"), (&["tool", "ead"], "2 tests: 2")] {
        let finished = project.run(filters).with_code(0);
        assert!(
            finished.stdout.contains(&format!("{tests} passed, all cached (saved ")),
            "{}",
            finished.stdout
        );
    }
    let none = project.run(&["nothing"]).with_code(2);
    assert!(none.stderr.contains("unknown test `nothing`"), "{}", none.stderr);
    assert_eq!(project.record(), record, "a selection does not replace the record");
    project.0.dir.write("p/in/a.txt", "2");
    assert!(project.run(&["tool"]).with_code(0).stdout.contains("1 test: 1 passed"));
    assert!(project.run(&["reads"]).with_code(1).stdout.contains("1 failed"));
}

#[test]
fn a_record_cannot_be_forged() {
    let Some(project) = UpToDate::new() else { return };
    let path = project.0.dir.path("p/.greenwave/tests/answer");
    let whole = fs::read(&path).unwrap();
    for at in (0..whole.len()).step_by(7) {
        let mut bytes = whole.clone();
        bytes[at] ^= 1;
        fs::write(&path, &bytes).unwrap();
        // A record without a valid seal is ignored and replaced.
        if at % 5 == 0 {
            project.takes_slow_path_once();
        }
    }
    for length in [0, 7, 31, 32, 40, whole.len() / 2, whole.len() - 1] {
        fs::write(&path, &whole[..length]).unwrap();
        project.takes_slow_path_once();
    }
    // A record that was sealed with another key is ignored.
    let key = project.0.dir.path(STATE).join("greenwave/keys/key");
    assert_eq!(fs::metadata(&key).unwrap().permissions().mode() & 0o777, 0o600);
    fs::write(&key, [7; 32]).unwrap();
    project.takes_slow_path_once();
    fs::remove_file(&key).unwrap();
    project.takes_slow_path_once();
    // A record is bound to the path of its project.
    fs::rename(project.0.dir.path("p"), project.0.dir.path("q")).unwrap();
    symlink(project.0.dir.path("q"), project.0.dir.path("p")).unwrap();
    assert!(!project.takes_fast_path(&[]));
}

#[test]
fn racy_timestamps_prevent_a_record() {
    let Some(project) = UpToDate::new() else { return };
    project.0.set(0);
    project.0.dir.write("p/in/a.txt", "1 1");
    project.runs_again(&[], 0);
    // The file could change again without changing its timestamp. The clock is set back so that
    // the file is that young for as long as the test takes.
    project.0.set(-HOUR);
    fs::remove_file(project.0.dir.path("p/.greenwave/tests/answer")).unwrap();
    for _ in 0..3 {
        assert!(!project.takes_fast_path(&[]));
    }
    assert_eq!(project.record(), None);
}

#[test]
fn ignore_files_are_dependencies_in_every_directory() {
    let config =
        "[[test]]\nname = \"t\"\ncommand = \"! grep -q bad in/deep/*.txt\"\nfolders = [\"in/deep\"]\n";
    // In and above the input directory; the ignore file ignores itself.
    for ignore_file in ["p/.gitignore", "p/in/.ignore", "p/in/deep/.gitignore"] {
        let dir = TestDir::empty().with("p/greenwave.toml", config).with(ignore_file, "b.txt\n.*ignore\n");
        let dir = dir.with("p/in/deep/a.txt", "good").with("p/in/deep/b.txt", "good");
        let Some(clocked) = Clocked::of(dir) else { return };
        clocked.set(HOUR);
        // Without tracing, which would see that the files are read.
        let run = || clocked.greenwave(["test", "--set", "testing.trace=false"]).run();
        for _ in 0..3 {
            run().with_code(0);
        }
        clocked.dir.write(ignore_file, "\n");
        let finished = run().with_code(0);
        assert!(!finished.stdout.contains("cached"), "{ignore_file}: {}", finished.stdout);
        for _ in 0..2 {
            run().with_code(0);
        }
        clocked.dir.write("p/in/deep/b.txt", "bad!");
        run().with_code(1);
    }
}
