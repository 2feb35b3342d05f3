//! Verdicts of a run: red, protected tests, guards, repeated tests, and checks of a plan.

use crate::program::Finished;
use crate::shell_plan::{self, Report, ShellFeature};
use crate::test_dir::TestDir;

fn plain(id: &str) -> ShellFeature {
    ShellFeature::new(id, &format!("answer {id}.txt x"), &format!("test -f {id}.txt"))
}

/// Returns a directory with a project, and a plan that begins with these lines.
fn dir(lines: &str, features: &[ShellFeature]) -> TestDir {
    let plan = shell_plan::plan(features).replacen("\n\n", &format!("\n{lines}\n\n"), 1);
    TestDir::with_project().with("plan.toml", plan)
}

/// Returns the messages of the notes with a code.
fn notes(finished: &Finished, code: &str) -> Vec<String> {
    let events = finished.events();
    let notes = events.iter().filter(|event| event["event"] == "note" && event["code"] == code);
    notes.map(|event| event["message"].as_str().unwrap_or_default().to_owned()).collect()
}

#[test]
fn a_test_that_cannot_run_ends_the_feature_before_an_agent_is_asked() {
    for (test, reason) in [
        ("no-such-tool-xyz --all", "test `one` cannot run: program `no-such-tool-xyz` is not found"),
        ("sh build/run.sh", "test `one` cannot run: `build/run.sh` does not exist"),
        ("kill -9 $$", "test `one` was ended by signal 9"),
        (
            "echo \"bind: Address already in use\"; exit 1",
            "test `one` cannot run: a port that it binds is in use",
        ),
    ] {
        let dir = dir("", &[ShellFeature::new("one", "answer one.txt x", test), plain("two")]);
        let finished = dir.run_plan().with_code(1);
        let report = Report::of(&finished);
        // It ran again, alone.
        assert_eq!(notes(&finished, "port-in-use").len(), usize::from(test.contains("Address")));
        assert_eq!(report.reason("one"), reason);
        assert!(report.feature("one")["hint"].is_string(), "{test}");
        assert_eq!(report.phases(), [("one", "failed"), ("two", "green")]);
        assert_eq!(report.requests(), 1, "only for `two`");
    }
}

#[test]
fn an_expression_narrows_red() {
    let fails = "test -f one.txt || { echo missing: one.txt; exit 1; }";
    let feature = |red: &str| ShellFeature::new("one", "answer one.txt x", fails).lines(red);
    let report = |red: &str, code| Report::of(&dir("", &[feature(red)]).run_plan().with_code(code));
    assert_eq!(report("red = \"missing: .*[.]txt\"", 0).phases(), [("one", "green")]);
    let other = report("red = \"AssertionError\"", 1);
    assert_eq!(
        other.reason("one"),
        "test `one` failed, and its output does not match `red` (AssertionError)"
    );
    assert_eq!(other.requests(), 0);
    let invalid = dir("", &[feature("red = \"(\"")]).run_plan().with_code(2);
    assert!(
        invalid.stderr.contains("invalid value `\"(\"` for `red`: expected a regular expression"),
        "{invalid:?}"
    );
}

#[test]
fn a_changed_test_is_restored_and_named_in_the_next_prompt() {
    let script = "if grep -q 'tests/check.sh. is named by the test'; then answer one.txt x; \
                  else answer tests/check.sh true; answer half.txt y; fi";
    let features = [ShellFeature::new("one", script, "sh tests/check.sh").attempts(2)];
    let dir = dir("", &features).with("project/tests/check.sh", "test -f one.txt\n");
    let report = Report::of(&dir.run_plan().with_code(0));
    assert_eq!(
        report.rejections("one"),
        ["`tests/check.sh` is named by the test's command: the agent may not change it"]
    );
    assert_eq!(dir.read("project/tests/check.sh"), "test -f one.txt\n");
}

#[test]
fn tests_may_be_changed_where_the_plan_allows_it() {
    let script = "answer tests/check.sh true";
    let feature = || ShellFeature::new("one", script, "sh tests/check.sh");
    let with = |lines: &str| {
        let dir = dir("", &[feature().lines(lines)]).with("project/tests/check.sh", "false\n");
        dir.run_plan().status.code()
    };
    assert_eq!(with("may_edit = [\"tests/**\"]"), Some(0));
    assert_eq!(with("may_edit = [\"src/**\"]"), Some(1));
}

#[test]
fn the_plan_protects_more_files() {
    let feature = ShellFeature::new("one", "answer one.txt x; answer schema/a.sql y", "test -f one.txt");
    let dir = dir("protect = [\"/schema/**\"]", &[feature]);
    let report = Report::of(&dir.run_plan().with_code(1));
    assert_eq!(
        report.rejections("one"),
        ["`schema/a.sql` is protected by the plan (`protect`): the agent may not change it"]
    );
}

/// A guard that passes until a file has other content.
const GUARD: &str = "[[guards]]\nname = \"old\"\ncommand = [\"grep\", \"-q\", \"kept\", \"old.txt\"]\n";

fn guarded(features: &[ShellFeature]) -> TestDir {
    let dir = dir("", features).with("project/old.txt", "kept\n");
    let plan = dir.read("plan.toml");
    dir.write("plan.toml", format!("{plan}\n{GUARD}"));
    dir
}

#[test]
fn a_merge_that_breaks_a_guard_is_rejected() {
    let script = "if grep -q 'test .old., which passed before, failed'; then answer old.txt kept; \
                  else answer one.txt x; answer old.txt lost; fi";
    let dir = guarded(&[ShellFeature::new("one", script, "test -f one.txt").attempts(2), plain("two")]);
    let report = Report::of(&dir.run_plan().with_code(0));
    assert_eq!(
        report.rejections("one"),
        ["after merging, test `old`, which passed before, failed with exit code 1"]
    );
    assert_eq!(dir.read("project/old.txt"), "kept\n");
}

#[test]
fn a_guard_that_fails_before_any_change_is_none() {
    let dir = guarded(&[plain("one"), plain("two")]);
    dir.write("project/old.txt", "lost\n");
    let finished = dir.run_plan().with_code(0);
    assert_eq!(
        notes(&finished, "guards-failing"),
        ["test `old` fails before any change, so it does not guard the project"]
    );
}

#[test]
fn guards_are_discovered_and_can_be_switched_off() {
    // Without a test function, so that it needs no pytest.
    let check = "import os\nassert os.path.exists('old.txt')\n";
    let feature = || ShellFeature::new("one", "answer one.txt x; answer old.txt lost", "test -f one.txt");
    let run = |lines: &str| {
        let dir = dir(lines, &[feature()])
            .with("project/test_old.py", check.replace("exists('old.txt')", "getsize('old.txt') > 10"))
            .with("project/old.txt", "a long text that is kept\n");
        dir.run_plan()
    };
    if !std::process::Command::new("python3").arg("--version").output().is_ok_and(|it| it.status.success()) {
        return;
    }
    let report = Report::of(&run("").with_code(1));
    assert_eq!(
        report.rejections("one"),
        ["after merging, test `py:test_old.py`, which passed before, failed with exit code 1"]
    );
    run("guards = \"off\"").with_code(0);
    let invalid = run("guards = \"on\"").with_code(2);
    assert!(
        invalid.stderr.contains("for `guards`: expected \"auto\", \"off\" or a list of tests"),
        "{invalid:?}"
    );
}

#[test]
fn tests_that_the_project_declares_are_guards() {
    let features = [ShellFeature::new("one", "answer one.txt x; answer old.txt lost", "test -f one.txt")];
    let declared = "[[test]]\nname = \"old\"\ncommand = [\"grep\", \"-q\", \"present\", \"old.txt\"]\n";
    let dir =
        dir("", &features).with("project/old.txt", "present\n").with("project/greenwave.toml", declared);
    let report = Report::of(&dir.run_plan().with_code(1));
    assert_eq!(
        report.rejections("one"),
        ["after merging, test `old`, which passed before, failed with exit code 1"]
    );
    assert_eq!(dir.read("project/old.txt"), "present\n");
}

#[test]
fn a_flaky_test_on_a_merge_costs_no_attempt() {
    // Fails every second time that it runs on a merge with `two.txt`, and never without.
    let flaky = "test -f one.txt || exit 1; test -f two.txt || exit 0; \
                 if mkdir ../../../seen 2>/dev/null; then exit 1; else rmdir ../../../seen; fi";
    let dir = dir(
        "confine = 'off'",
        &[ShellFeature::new("one", "answer one.txt x", flaky), plain("two").after("one")],
    );
    let finished = dir.run_plan().with_code(0);
    let report = Report::of(&finished);
    assert!(report.rejections("two").is_empty() && report.rejections("one").is_empty());
    assert_eq!(
        notes(&finished, "flaky-test"),
        ["test `one` of `one` failed and passed when it was repeated: it is flaky"]
    );
}

#[test]
fn a_test_that_breaks_by_itself_is_not_blamed_on_the_merge() {
    // Passes twice, for the feature and for its merge, and then never again.
    let breaks = "test -f one.txt || exit 1; d=$PWD/../../../runs; mkdir -p $d; \
                  n=$(ls $d | wc -l); touch $d/$n; test $n -lt 1";
    let dir = dir(
        "confine = 'off'",
        &[ShellFeature::new("one", "answer one.txt x", breaks), plain("two").after("one")],
    );
    let finished = dir.run_plan().with_code(0);
    assert_eq!(
        notes(&finished, "broken-before"),
        ["test `one` of `one` also fails without this feature's changes"]
    );
    assert!(Report::of(&finished).rejections("two").is_empty());
}

#[test]
fn a_review_that_cannot_start_costs_no_attempt() {
    let feature = plain("one").attempts(3);
    let dir = dir("", &[feature]);
    let plan = dir.read("plan.toml");
    let review = "[features.review]\ncommand = [\"sh\", \"-c\", \"no-such-reviewer\"]\n";
    dir.write("plan.toml", format!("{plan}\n{review}"));
    let report = Report::of(&dir.run_plan().with_code(1));
    assert_eq!(report.reason("one"), "review `one` failed with exit code 127");
    assert_eq!(report.requests(), 1);
}

#[test]
fn a_check_shows_all_problems_at_once_and_runs_nothing() {
    let features = [plain("one"), plain("two"), plain("three")];
    let dir = dir("", &features);
    let plan = dir.read("plan.toml");
    let plan = plan
        .replace("command = [\"sh\", \"-c\", '''test -f one.txt''']", "command = [\"no-such-tool\"]")
        .replace(
            "command = [\"sh\", \"-c\", '''test -f two.txt''']",
            "command = [\"sh\", \"tests/typo.sh\"]",
        );
    dir.write("plan.toml", plan);
    let finished = dir.greenwave(["run", "--check", "plan.toml"]).run().with_code(2);
    assert!(finished.stderr.contains("cannot find program `no-such-tool` of test `one`"), "{finished:?}");
    assert!(
        finished.stderr.contains("test `two` names `tests/typo.sh`, which does not exist"),
        "{finished:?}"
    );
    assert_eq!(finished.stderr.matches("plan.toml:").count(), 2);
    assert!(!dir.path("project/.greenwave").exists());
    // A run begins with the same check.
    dir.run_plan().with_code(2);
    let right = self::dir("", &features);
    let finished = right.greenwave(["run", "--check", "plan.toml"]).run().with_code(0);
    let lines: Vec<&str> = finished.stdout.lines().collect();
    assert_eq!(lines[0], "plan: 3 features, no problem found");
    assert!(lines[1].starts_with("Copies: "), "{}", lines[1]);
    assert_eq!(lines[2], "Tracing: off (a cached result depends on the test's inputs only)");
    assert!(lines[3].starts_with("Protected from agents, besides tests and the plan"), "{}", lines[3]);
    assert!(lines[4].contains(" .github ") || lines[4].contains(".git* "), "{}", lines[4]);
    // All errors of a plan are shown, not only the first.
    right.write(
        "plan.toml",
        right.read("plan.toml").replace("attempts = 1", "attempts = 1\nresources = { x = 1 }"),
    );
    let finished = right.greenwave(["run", "--check", "plan.toml"]).run().with_code(2);
    assert_eq!(finished.stderr.matches("unknown resource `x`").count(), 3, "{finished:?}");
}

#[test]
fn a_check_can_see_the_tests_fail_without_asking_an_agent() {
    let features = [plain("one"), plain("two").after("one")];
    let check = |dir: &TestDir| {
        dir.greenwave(["run", "--check=red", "--no-metrics", "--format", "json", "plan.toml"]).run()
    };
    let dir = dir("", &features);
    let finished = check(&dir).with_code(0);
    assert_eq!(Report::of(&finished).phases(), [("one", "red"), ("two", "red")]);
    assert_eq!(Report::of(&finished).requests(), 0);
    dir.write("project/two.txt", "x");
    let finished = check(&dir).with_code(2);
    assert_eq!(Report::of(&finished).phases(), [("one", "red"), ("two", "failed")]);
}

#[test]
fn a_run_can_be_restricted_to_some_features() {
    let dir = dir("", &[plain("one"), plain("two").after("one"), plain("three")]);
    let only = |names: &str| {
        dir.greenwave(["run", "--only", names, "--no-metrics", "--format", "json", "plan.toml"]).run()
    };
    let finished = only("twoo").with_code(2);
    assert!(finished.stderr.contains("unknown feature `twoo`; did you mean `two`?"), "{finished:?}");
    let report = Report::of(&only("two").with_code(0));
    assert_eq!(report.phases(), [("one", "green"), ("two", "green")]);
    assert_eq!(report.requests(), 2);
    let report = Report::of(&only("three,one").with_code(0));
    assert_eq!((report.phases().len(), report.requests()), (2, 1));
}

#[test]
fn a_run_can_end_at_the_first_failure() {
    let run = |flag: &str| {
        let dir = dir(
            "",
            &[
                ShellFeature::new("one", "echo no", "test -f one.txt"),
                // The first feature starts first, since others depend on it.
                plain("after").after("one"),
                plain("two"),
            ],
        );
        let args = ["run", flag, "--features", "1", "--no-metrics", "--format", "json", "plan.toml"];
        let finished = dir.greenwave(args).run().with_code(1);
        Report::of(&finished).requests()
    };
    assert_eq!(run("--fail-fast"), 1);
    assert_eq!(run("--keep-going"), 2);
}

/// The modules that a command of unittest names are no paths: the check before a run accepts them.
#[test]
fn modules_of_unittest_are_not_taken_for_paths() {
    let dir = TestDir::with_project()
        .with("project/tests/__init__.py", "")
        .with("project/calc/__init__.py", "")
        .with(
            "project/tests/test_add.py",
            "import unittest\nfrom calc.add import add\n\n\nclass Adding(unittest.TestCase):\n    \
             def test_sum(self):\n        self.assertEqual(add(1, 2), 3)\n",
        );
    let script = "printf 'def add(a, b):\\n    return a + b\\n' > calc/add.py";
    let features = ["tests.test_add", "tests.test_add.Adding.test_sum", "tests.test_add.Adding.test_typo"]
        .map(|name| {
            ShellFeature::new(&name.replace('.', "-"), script, &format!("python3 -m unittest {name}"))
        });
    dir.write("plan.toml", shell_plan::plan(&features));
    let finished = dir.run_plan().with_code(1);
    let report = Report::of(&finished);
    let phases: Vec<&str> = report.phases().into_iter().map(|(_, phase)| phase).collect();
    assert_eq!(phases, ["green", "green", "failed"], "{finished:?}");
}

/// A file that a test only looks at is the feature's, even if its name speaks of tests.
#[test]
fn data_with_names_of_tests_can_be_the_feature() {
    let script = "mkdir docs; echo x > docs/check-list.md; echo x > test-results.txt";
    let test = "test -f docs/check-list.md && grep -q x test-results.txt";
    let dir = dir("", &[ShellFeature::new("one", script, test)]);
    assert_eq!(Report::of(&dir.run_plan().with_code(0)).phases(), [("one", "green")]);
    // A later feature may change them, too.
    let two = ShellFeature::new("two", "echo y >> test-results.txt", "grep -q y test-results.txt");
    dir.write("plan.toml", shell_plan::plan(&[ShellFeature::new("one", script, test), two]));
    dir.run_plan().with_code(0);
}

/// An attempt that deletes most of a project is an accident, unless the plan allows it or the files
/// were moved. The files are restored, and the rest of the attempt stays.
#[test]
fn an_attempt_may_not_delete_most_of_a_project() {
    let project =
        |dir: &TestDir| (0..15).for_each(|at| dir.write(&format!("project/src/f{at}"), at.to_string()));
    let wipe = "if test $GREENWAVE_ATTEMPT = 1; then rm -rf src; fi; echo x > one.txt";
    let one = |script: &str| ShellFeature::new("one", script, "test -f one.txt");
    let wiped = dir("", &[one(wipe).attempts(2)]);
    project(&wiped);
    let report = Report::of(&wiped.run_plan().with_code(0));
    assert_eq!(
        report.rejections("one"),
        [
            "`src/f0` is deleted, as are most files of the project: the agent may not change it, nor 14 other files"
        ]
    );
    assert_eq!(wiped.files("project/src").len(), 15);
    let moved = dir("", &[one("mv src lib; echo x > one.txt")]);
    project(&moved);
    moved.run_plan().with_code(0);
    let allowed = dir("", &[one("rm -r src; echo x > one.txt").lines("may_edit = [\"/src/**\"]")]);
    project(&allowed);
    allowed.run_plan().with_code(0);
    assert!(!allowed.path("project/src/f1").exists() && moved.path("project/lib/f1").exists());
}

#[test]
fn code_that_ends_the_process_of_its_tests_is_not_green() {
    let Some(python) = crate::harnesses::python() else { return };
    let by_shell = "[\"sh\", \"-c\", '''pytest''']";
    let direct = format!("[{python:?}, \"-m\", \"pytest\", \"-q\"]");
    let in_line = format!("[\"sh\", \"-c\", \"true && {python} -m pytest -q -p no:cacheprovider\"]");
    // Python ignores the variables that add the plugin.
    let isolated = format!("[{python:?}, \"-I\", \"-m\", \"pytest\", \"-q\", \"--pyargs\", \".\"]");
    let exits = "import os; os._exit(0)";
    for (command, code, exit) in
        [(&direct, 1, exits), (&in_line, 1, exits), (&in_line, 0, ""), (&isolated, 0, "")]
    {
        let feature = ShellFeature::new("one", &format!("answer one.py 'x = 1; {exit}'"), "pytest");
        let dir = dir("", &[feature]);
        // The test's own processes of pytest are not observed.
        let test = "import one, os\ndef test_one():\n    assert 'PYTEST_ADDOPTS' not in os.environ\n";
        dir.write("project/test_one.py", test);
        let plan = dir.read("plan.toml");
        assert!(plan.contains(by_shell), "{plan}");
        dir.write("plan.toml", plan.replace(by_shell, command));
        let report = Report::of(&dir.run_plan().with_code(code));
        if code == 1 {
            let reason = report.reason("one");
            assert!(reason.contains("exited with code 0 before its tests had ended"), "{reason}");
        }
    }
}
