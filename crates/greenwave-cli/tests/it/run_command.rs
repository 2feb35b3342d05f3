//! Runs of valid plans under unusual conditions.

use std::fs::{self, File};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::Path;

use crate::program::{Finished, Program};
use crate::shell_plan::{self, Report, ShellFeature};
use crate::test_dir::{STATE, TestDir};

/// Returns a feature whose agent and test work.
fn plain(id: &str) -> ShellFeature {
    ShellFeature::new(id, &format!("answer {id}.txt x"), &format!("test -f {id}.txt"))
}

fn dir(features: &[ShellFeature]) -> TestDir {
    TestDir::with_project().with("plan.toml", shell_plan::plan(features))
}

/// Runs a feature that fails before the first attempt, a dependant of it, and an independent
/// feature.
#[track_caller]
fn check_red(test: &str, reason: &str) {
    let dir = dir(&[plain("bad"), plain("after").after("bad"), plain("apart")]);
    let plan = dir.read("plan.toml");
    let (before, after) = plan.split_once("command = [\"sh\", \"-c\", '''test -f bad.txt''']").unwrap();
    dir.write("plan.toml", format!("{before}{test}{after}"));
    let report = Report::of(&dir.run_plan().with_code(1));
    assert_eq!(report.reason("bad"), reason);
    assert_eq!(report.phases(), [("bad", "failed"), ("after", "skipped"), ("apart", "green")]);
    assert_eq!(report.requests(), 1, "only for `apart`");
    assert_eq!(dir.files("project").into_keys().collect::<Vec<_>>(), ["apart.txt", "keep.txt"]);
}

#[test]
fn tests_whose_script_does_not_exist_fail_the_feature() {
    check_red(
        r#"command = ["./missing.sh"]"#,
        "cannot find program `./missing.sh` of test `bad` on the PATH or in the project",
    );
}

#[test]
fn inputs_may_be_files_that_the_agent_creates() {
    let dir = dir(&[plain("one")]);
    let plan = dir.read("plan.toml");
    dir.write("plan.toml", plan.replace("[[features.tests]]", "[[features.tests]]\ninputs = [\"/one.txt\"]"));
    dir.run_plan().with_code(0);
    let report = Report::of(&dir.run_plan().with_code(0));
    assert_eq!((report.requests(), report.total("tests_run")), (0, 0));
}

#[test]
fn tests_that_pass_before_the_code_exists_fail_the_feature() {
    check_red(r#"command = ["true"]"#, "tests pass before anything is written, so they prove nothing: bad");
    check_red(
        r#"command = ["echo", "test result: ok. 0 passed; 0 failed; 0 ignored; 0 measured; 3 filtered out"]"#,
        "test `bad` succeeds but runs no tests, so it proves nothing",
    );
}

#[test]
fn tests_cannot_run_outside_their_working_copy() {
    for directory in ["../../..", "/", "a/../../../../.."] {
        let test = "touch touched.txt; test -f one.txt";
        let feature = ShellFeature::new("one", "answer one.txt x", test);
        let dir = dir(&[feature]);
        let plan = dir.read("plan.toml");
        let at = plan.rfind("[[features.tests]]").unwrap();
        let (before, after) = plan.split_at(at);
        let after =
            after.replace("[[features.tests]]", &format!("[[features.tests]]\ndirectory = \"{directory}\""));
        // If the check failed, the test must not write to the root directory of the machine.
        let after =
            after.replace("touch touched.txt; ", if directory == "/" { "" } else { "touch touched.txt; " });
        dir.write("plan.toml", format!("{before}{after}"));
        let finished = dir.run_plan();
        assert_eq!(dir.files("project").into_keys().collect::<Vec<_>>(), ["keep.txt"], "{directory}");
        assert_eq!(finished.status.code(), Some(2), "{directory}: {finished:?}");
    }
}

#[test]
fn tests_that_exceed_their_time_limit_are_killed() {
    let feature =
        ShellFeature::new("one", "answer one.txt x", "test -f one.txt || exit 1; sleep 50 & sleep 50");
    let dir = dir(&[feature]);
    let plan =
        dir.read("plan.toml").replace("[[features.tests]]", "[[features.tests]]\ntime_limit = \"300ms\"");
    dir.write("plan.toml", plan);
    let report = Report::of(&dir.run_plan().with_code(1));
    assert_eq!(report.rejections("one"), ["test `one` did not end within 300ms and was killed"]);
}

#[test]
fn very_large_time_limits_do_not_panic() {
    for limit in ["9223372036854775807", "\"584542046090y\""] {
        let feature = plain("one").agent(&format!("time_limit = {limit}"));
        let dir = dir(&[feature]);
        let plan = dir.read("plan.toml");
        dir.write(
            "plan.toml",
            plan.replace("[[features.tests]]", &format!("[[features.tests]]\ntime_limit = {limit}")),
        );
        let finished = dir.run_plan();
        assert!([Some(0), Some(2)].contains(&finished.status.code()), "{finished:?}");
        assert!(!finished.stderr.contains("panicked"), "{}", finished.stderr);
    }
}

#[test]
fn an_invalid_pace_is_an_error_of_the_flag() {
    let script = "{\"greenwave_script\": 1}\n{\"feature\": \"one\", \"attempt\": 1}\n{\"after_ms\": 1, \"text\": \"x\"}\n";
    let plan = "project = \"project\"\n[agents.recorded]\nkind = \"scripted\"\nscript = \"answers.jsonl\"\n\
                [[features]]\nid = \"one\"\nagent = \"recorded\"\nprompt = \"p\"\ntests = [{ command = [\"false\"] }]\n";
    for pace in ["1e300", "nan", "inf", "-1"] {
        let dir = TestDir::with_project().with("answers.jsonl", script).with("plan.toml", plan);
        let pace = format!("--pace={pace}");
        let finished = dir.greenwave(["run", "plan.toml", "--no-metrics", &pace]).run().with_code(2);
        assert!(
            finished.stderr.contains("--pace") && !finished.stderr.contains("plan.toml"),
            "{}",
            finished.stderr
        );
    }
}

#[test]
fn a_run_with_required_tracing_is_refused() {
    let dir = dir(&[plain("one")]);
    let arguments = ["run", "plan.toml", "--no-metrics", "--set", "testing.trace=required"];
    let refused = dir.greenwave(arguments).run().with_code(2);
    assert!(refused.stderr.contains("cannot trace the tests of a run"), "{}", refused.stderr);
    assert!(refused.stderr.contains("hint: pass `--set testing.trace=true`"), "{}", refused.stderr);
    dir.run_plan().with_code(0);
}

#[test]
fn a_green_feature_stays_green_when_its_prompt_changes() {
    let dir = dir(&[plain("one"), plain("two").after("one")]);
    dir.run_plan().with_code(0);
    let plan = dir.read("plan.toml");
    dir.write("plan.toml", plan.replace("Do it.", "Do it well."));
    let finished = dir.run_plan();
    assert_eq!(finished.status.code(), Some(0), "{finished:?}");
}

#[test]
fn a_green_feature_stays_green_when_its_agent_changes() {
    let dir = dir(&[plain("one"), plain("two").after("one")]);
    dir.run_plan().with_code(0);
    let plan = dir.read("plan.toml");
    dir.write("plan.toml", plan.replace("[\"sh\", \"-c\", '''\n", "[\"sh\", \"-e\", \"-c\", '''\n"));
    let finished = dir.run_plan();
    assert_eq!(finished.status.code(), Some(0), "{finished:?}");
}

#[test]
fn a_feature_that_is_added_to_a_plan_runs_alone() {
    let dir = dir(&[plain("one")]);
    dir.run_plan().with_code(0);
    dir.write("plan.toml", shell_plan::plan(&[plain("one"), plain("two").after("one")]));
    let report = Report::of(&dir.run_plan().with_code(0));
    assert_eq!((report.requests(), report.phases()), (1, vec![("one", "green"), ("two", "green")]));
    assert_eq!(report.feature("one")["up_to_date"], true);
}

#[test]
fn a_green_feature_whose_tests_fail_now_runs_again() {
    let dir = dir(&[plain("one")]);
    dir.run_plan().with_code(0);
    fs::remove_file(dir.path("project/one.txt")).unwrap();
    let report = Report::of(&dir.run_plan().with_code(0));
    assert_eq!(report.requests(), 1);
    assert_eq!(dir.read("project/one.txt"), "x\n");
}

#[test]
fn without_the_cache_green_features_are_tested_again() {
    let dir = dir(&[plain("one"), plain("two").after("one")]);
    dir.run_plan().with_code(0);
    let args = ["run", "plan.toml", "--no-metrics", "--format", "json", "--no-cache"];
    let report = Report::of(&dir.greenwave(args).run().with_code(0));
    assert_eq!((report.requests(), report.total("tests_run"), report.total("tests_cached")), (0, 2, 0));
    assert_eq!(report.feature("two")["up_to_date"], true);
}

#[test]
fn a_green_feature_that_the_user_edits_stays_green() {
    let dir = dir(&[plain("one")]);
    dir.run_plan().with_code(0);
    dir.write("project/one.txt", "better\n");
    let report = Report::of(&dir.run_plan().with_code(0));
    assert_eq!((report.requests(), report.total("tests_run")), (0, 1));
    assert_eq!(dir.read("project/one.txt"), "better\n");
}

/// A changed test passes before code is written, so it proves nothing.
#[test]
fn a_change_of_a_green_features_test_can_be_reverted() {
    let dir = dir(&[plain("one")]);
    let plan = dir.read("plan.toml");
    dir.run_plan().with_code(0);
    dir.write("plan.toml", plan.replace("test -f one.txt", "test -e one.txt"));
    let report = Report::of(&dir.run_plan().with_code(1));
    assert!(report.reason("one").starts_with("tests pass before anything is written"));
    dir.write("plan.toml", plan);
    dir.run_plan().with_code(0);
}

#[test]
fn a_review_can_reject_an_attempt() {
    let script = "if grep -q 'must be polite'; then answer word.txt please; else answer word.txt now; fi";
    let review = r#"
[features.review]
name = "manners"
command = ["sh", "-c", "grep please word.txt || { echo it must be polite; exit 7; }"]
"#;
    let dir = dir(&[ShellFeature::new("strict", script, "test -f word.txt").attempts(2).lines(review)]);
    let report = Report::of(&dir.run_plan().with_code(0));
    assert_eq!(report.rejections("strict"), ["review `manners` failed with exit code 7"]);
    assert_eq!(dir.read("project/word.txt"), "please\n");
}

#[test]
fn tests_that_need_the_same_unit_of_a_resource_do_not_overlap() {
    let turn = "test -f ID.txt || exit 1; mkdir \"$TURN\" || exit 3; sleep 0.02; rmdir \"$TURN\"";
    let names = ["a", "b", "c", "d", "e", "f"];
    let features = names.map(|id| {
        let script = format!("answer {id}.txt x");
        ShellFeature::new(id, &script, &turn.replace("ID", id)).lines("resources = { turn = 1 }")
    });
    let dir = dir(&features);
    let plan = dir.read("plan.toml");
    let plan = plan.replace("[[features.tests]]", "[[features.tests]]\nenv = [\"TURN\"]");
    dir.write("plan.toml", format!("resources = {{ turn = 1 }}\nconfine = \"off\"\n{plan}"));
    let args = ["run", "plan.toml", "--no-metrics", "--format", "json", "--workers", "4"];
    let program = dir.greenwave(args).variable("TURN", dir.path("turn"));
    let report = Report::of(&program.run().with_code(0));
    assert_eq!(report.phases(), names.map(|id| (id, "green")));
}

#[test]
fn failures_and_skips_are_printed_while_other_features_run() {
    let dir = TestDir::with_project();
    let go = dir.path("go");
    // Waits at most five seconds.
    let wait = format!("for w in $(seq 500); do test -e '{}' && break; sleep 0.01; done", go.display());
    let slow = ShellFeature::new("slow", &format!("{wait}; answer slow.txt x"), "test -f slow.txt");
    let bad = ShellFeature::new("bad", "false", "test -f bad.txt");
    dir.write("plan.toml", shell_plan::plan(&[bad, plain("after").after("bad"), slow]));
    let mut running = dir.plan().start();
    running.read_until(r#""event":"skipped","feature":"after""#);
    dir.write("go", "");
    let output = running.finish().with_code(1).stdout;
    let at = |text: &str| output.lines().position(|line| line.contains(text)).unwrap();
    assert!(at(r#""event":"failed""#) < at(r#""path":"slow.txt""#), "{output}");
    assert!(at(r#""event":"skipped""#) < at(r#""path":"slow.txt""#), "{output}");
}

#[test]
fn damaged_state_does_not_harm_the_project() {
    for part in ["results", "store", "journal"] {
        for garbage in [b"".as_slice(), b"garbage", &[0xff; 5000]] {
            let dir = dir(&[plain("one"), plain("two").after("one")]);
            dir.run_plan().with_code(0);
            let files = dir.files("project");
            for segment in fs::read_dir(dir.path("project/.greenwave").join(part)).unwrap() {
                let path = segment.unwrap().path();
                if path.is_file() {
                    fs::write(path, garbage).unwrap();
                }
            }
            let finished = dir.run_plan();
            // Without the journal, the receipts prove that the tests failed before.
            finished.clone().with_code(0);
            assert!(!finished.stderr.contains("panicked"), "{part}: {}", finished.stderr);
            assert_eq!((dir.files("project"), Report::of(&finished).requests()), (files, 0), "{part}");
        }
    }
}

#[test]
fn a_closed_output_pipe_does_not_stop_the_run() {
    for format in ["human", "json"] {
        let dir = dir(&[plain("one"), plain("two"), plain("three").after("one")]);
        let args = ["run", "plan.toml", "--no-metrics", "--format", format];
        let finished = dir.greenwave(args).read_lines(1).run().with_code(0);
        assert_eq!(finished.stdout.lines().count(), 1);
        let files: Vec<_> = dir.files("project").into_keys().collect();
        assert_eq!(files, ["keep.txt", "one.txt", "three.txt", "two.txt"]);
    }
}

#[test]
fn an_answer_that_cannot_be_written_is_an_error() {
    let dir = dir(&[plain("one")]);
    for args in [["graph", "plan.toml"], ["profile", "show"]] {
        let full = File::options().write(true).open("/dev/full").unwrap();
        let finished = dir.greenwave(args).stdout(full).run();
        assert_ne!(finished.status.code(), Some(0), "{args:?}");
    }
}

/// The run continues even if the warning cannot be printed.
#[test]
fn names_that_are_not_utf8_are_skipped_with_a_warning() {
    for is_printable in [true, false] {
        let dir = dir(&[plain("one")]);
        let name = std::ffi::OsStr::from_bytes(b"caf\xe9.txt");
        fs::write(dir.path("project").join(name), "x").unwrap();
        let program = dir.plan();
        let finished = if is_printable {
            let finished = program.run();
            assert!(finished.stderr.contains("name is not UTF-8"), "{}", finished.stderr);
            finished
        } else {
            program.stderr(File::options().write(true).open("/dev/full").unwrap()).run()
        };
        finished.with_code(0);
        assert_eq!(fs::read(dir.path("project").join(name)).unwrap(), b"x");
    }
}

#[test]
fn file_names_may_contain_spaces_and_any_letters() {
    let test = "test -f 'sp ace/ünï ☃.txt' && test -f '-dash.txt' && grep -q neu 'alte Datei.txt'";
    let script = "answer 'sp ace/ünï ☃.txt' x; answer -dash.txt x; answer 'alte Datei.txt' neu";
    let dir = dir(&[ShellFeature::new("one", script, test)]).with("project/alte Datei.txt", "alt\n");
    dir.run_plan().with_code(0);
    let files: Vec<_> = dir.files("project").into_keys().collect();
    assert_eq!(files, ["-dash.txt", "alte Datei.txt", "keep.txt", "sp ace/ünï ☃.txt"]);
    let report = Report::of(&dir.run_plan().with_code(0));
    assert_eq!((report.requests(), report.total("tests_run")), (0, 0));
}

#[test]
fn directory_names_may_contain_spaces_and_any_letters() {
    let dir = TestDir::empty().with("mein Pläne/das Projekt/keep.txt", "keep\n");
    let plan = shell_plan::plan(&[plain("one")]).replace("\"project\"", "\"das Projekt\"");
    dir.write("mein Pläne/ein Plan.toml", plan);
    dir.greenwave(["run", "mein Pläne/ein Plan.toml", "--no-metrics"]).run().with_code(0);
    assert_eq!(dir.read("mein Pläne/das Projekt/one.txt"), "x\n");
}

#[test]
fn a_project_may_be_empty() {
    let dir = dir(&[plain("one")]);
    fs::remove_file(dir.path("project/keep.txt")).unwrap();
    dir.run_plan().with_code(0);
    assert_eq!(dir.read("project/one.txt"), "x\n");
}

/// Runs the plan as a user without root permissions, who owns the directory.
pub(crate) fn as_nobody(dir: &TestDir) -> Program {
    const NOBODY: u32 = 65534;
    if !rustix::process::geteuid().is_root() {
        return dir.plan();
    }
    // The user may have no access to the build directory.
    let copy = dir.path("greenwave");
    fs::copy(env!("CARGO_BIN_EXE_greenwave"), &copy).unwrap();
    give(&dir.path(""), NOBODY);
    let mut command = std::process::Command::new(copy);
    command.args(["run", "plan.toml", "--no-metrics", "--format", "json"]);
    let state = dir.path(STATE);
    Program::of(command).within(&dir.path("")).variable("XDG_STATE_HOME", state).user(NOBODY)
}

fn give(path: &Path, user: u32) {
    chown(path, Some(user), Some(user)).unwrap();
    if path.is_dir() && !path.is_symlink() {
        fs::read_dir(path).unwrap().for_each(|entry| give(&entry.unwrap().path(), user));
    }
}

fn forbid(dir: &TestDir, path: &str, mode: u32) {
    fs::set_permissions(dir.path(path), fs::Permissions::from_mode(mode)).unwrap();
}

fn without_dir(dir: &TestDir, finished: &Finished) -> String {
    finished.stderr.replace(&dir.path("").display().to_string(), "")
}

/// Files that nobody may read do not end a run, unless git tracks them.
#[test]
fn unreadable_files_are_left_out_unless_they_are_tracked() {
    for tracked in ["keep.txt", "private/key"] {
        let dir = dir(&[plain("one")]).with("project/private/key", "secret").with("project/closed/a", "x");
        let script = format!("git init -q && git add {tracked}");
        let mut shell = std::process::Command::new("sh");
        let done = shell.args(["-c", &script]).current_dir(dir.path("project")).status().unwrap();
        assert!(done.success());
        let program = as_nobody(&dir);
        forbid(&dir, "project/private/key", 0);
        forbid(&dir, "project/closed", 0);
        let finished = program.run();
        if tracked == "keep.txt" {
            let report = Report::of(&finished.with_code(0));
            let expected =
                "not in the copies, because you have no permission to read them: `closed`, `private/key`";
            assert_eq!(report.notes("unreadable"), [expected]);
        } else {
            let finished = finished.with_code(2);
            insta::assert_snapshot!(without_dir(&dir, &finished), @r"
            error: cannot read the project's files
              caused by: cannot read project/private/key
              caused by: Permission denied (os error 13)
            hint: make all files readable, or name the others in .gitignore
            ");
        }
        forbid(&dir, "project/closed", 0o700);
    }
}

#[test]
fn the_error_names_a_directory_that_cannot_be_listed() {
    let dir = dir(&[plain("one")]).with("project/private/key", "secret");
    let mut shell = std::process::Command::new("sh");
    shell.args(["-c", "git init -q && git add private"]).current_dir(dir.path("project"));
    assert!(shell.status().unwrap().success());
    let program = as_nobody(&dir);
    forbid(&dir, "project/private", 0);
    let finished = program.run().with_code(2);
    assert!(finished.stderr.contains("project/private"), "{}", finished.stderr);
    forbid(&dir, "project/private", 0o700);
}

#[test]
fn the_error_names_a_project_that_cannot_be_written() {
    let dir = dir(&[plain("one")]);
    let program = as_nobody(&dir);
    forbid(&dir, "project", 0o555);
    let finished = program.run().with_code(2);
    insta::assert_snapshot!(without_dir(&dir, &finished), @r"
    error: cannot create ./project/.greenwave
      caused by: Permission denied (os error 13)
    ");
    forbid(&dir, "project", 0o755);
}

/// One of the files cannot be written, so none is, and the reason names it.
#[test]
fn a_failed_merge_writes_no_file() {
    let feature = ShellFeature::new("one", "answer a.txt x; answer locked/b.txt x", "test -f a.txt");
    let dir = dir(&[feature, plain("apart")]).with("project/locked/old.txt", "old");
    let program = as_nobody(&dir);
    forbid(&dir, "project/locked", 0o555);
    let report = Report::of(&program.run().with_code(1));
    assert!(report.reason("one").contains("locked/b.txt"), "{}", report.reason("one"));
    let files: Vec<_> = dir.files("project").into_keys().collect();
    forbid(&dir, "project/locked", 0o755);
    assert_eq!(files, ["apart.txt", "keep.txt", "locked/old.txt"]);
}

#[test]
fn a_file_that_cannot_be_written_fails_only_its_feature() {
    let feature = ShellFeature::new(
        "one",
        "answer a.txt x; answer locked/b.txt x",
        "test -f a.txt && test -f locked/b.txt",
    );
    let dir =
        dir(&[feature, plain("apart"), plain("new").after("apart")]).with("project/locked/old.txt", "old");
    let program = as_nobody(&dir);
    forbid(&dir, "project/locked", 0o555);
    program.run().with_code(1);
    let second = as_nobody(&dir);
    forbid(&dir, "project/locked", 0o555);
    fs::remove_file(dir.path("project/new.txt")).unwrap();
    let report = Report::of(&second.run().with_code(1));
    let third = as_nobody(&dir);
    forbid(&dir, "project/locked", 0o755);
    assert_eq!(report.phases(), [("one", "failed"), ("apart", "green"), ("new", "green")]);
    assert_eq!(Report::of(&third.run().with_code(0)).feature("one")["phase"], "green");
}

#[test]
fn a_demo_does_not_overwrite_a_plan() {
    let dir = dir(&[plain("one")]);
    let finished = dir.greenwave(["demo", "--dir", ".", "--no-metrics"]).run();
    assert_eq!(dir.files("project").into_keys().collect::<Vec<_>>(), ["keep.txt"]);
    finished.with_code(2);
}

#[test]
fn the_error_names_a_plan_that_cannot_be_read() {
    let dir = TestDir::with_project().with("bytes.toml", b"name = \"caf\xe9\"\n");
    let run = |plan: &str| dir.greenwave(["run", plan, "--no-metrics"]).run().with_code(2).stderr;
    insta::assert_snapshot!(run("missing.toml"), @r"
    error: cannot read plan missing.toml
      caused by: No such file or directory (os error 2)
    hint: create a plan with `greenwave init missing.toml`
    ");
    insta::assert_snapshot!(run("project"), @r"
    error: cannot read plan project
      caused by: `project` is a directory, expected a file
    hint: name the file of a plan
    ");
    insta::assert_snapshot!(run("bytes.toml"), @r"
    error: cannot read plan bytes.toml
      caused by: the file is not valid UTF-8
    ");
}
