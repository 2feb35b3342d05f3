//! Runs whose plan, project or surroundings are out of the ordinary, though the plan itself is sound.

use std::fs::{self, File};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::Path;

use crate::folder::Folder;
use crate::program::{Finished, Program};
use crate::sketch::{self, Report, Sketch};

/// A feature that any agent can do.
fn plain(id: &str) -> Sketch {
    Sketch::new(id, &format!("answer {id}.txt x"), &format!("test -f {id}.txt"))
}

fn folder(features: &[Sketch]) -> Folder {
    Folder::with_project().with("plan.toml", sketch::plan(features))
}

/// Runs a feature that fails before any agent is asked, with one that depends on it and one that does not.
#[track_caller]
fn check_red(test: &str, reason: &str) {
    let folder = folder(&[plain("bad"), plain("after").after("bad"), plain("apart")]);
    let plan = folder.read("plan.toml");
    let (before, after) = plan.split_once("command = [\"sh\", \"-c\", '''test -f bad.txt''']").unwrap();
    folder.write("plan.toml", format!("{before}{test}{after}"));
    let report = Report::of(&folder.run_plan().with_code(1));
    assert_eq!(report.reason("bad"), reason);
    assert_eq!(report.phases(), [("bad", "failed"), ("after", "skipped"), ("apart", "green")]);
    assert_eq!(report.questions(), 1, "only for `apart`");
    assert_eq!(folder.files("project").into_keys().collect::<Vec<_>>(), ["apart.txt", "keep.txt"]);
}

#[test]
fn tests_that_cannot_be_run() {
    check_red(
        r#"command = ["no-such-program", "--all"]"#,
        "test `bad` runs `no-such-program`, which is neither on the PATH nor in the project",
    );
    check_red(
        r#"command = ["./missing.sh"]"#,
        "test `bad` runs `./missing.sh`, which is neither on the PATH nor in the project",
    );
}

/// What a test reads may be what the agent is to write.
#[test]
fn tests_whose_inputs_are_yet_to_be_written() {
    let folder = folder(&[plain("one")]);
    let plan = folder.read("plan.toml");
    folder.write(
        "plan.toml",
        plan.replace("[[features.tests]]", "[[features.tests]]\ninputs = [\"/one.txt\"]"),
    );
    folder.run_plan().with_code(0);
    let report = Report::of(&folder.run_plan().with_code(0));
    assert_eq!((report.questions(), report.total("tests_run")), (0, 0));
}

#[test]
fn tests_that_prove_nothing() {
    check_red(r#"command = ["true"]"#, "tests pass before anything is written, so they prove nothing: bad");
    check_red(
        r#"command = ["echo", "test result: ok. 0 passed; 0 failed; 0 ignored; 0 measured; 3 filtered out"]"#,
        "test `bad` succeeds but runs no tests, so it proves nothing",
    );
}

/// A test may not leave the feature's copy of the project, wherever its plan says it runs.
#[test]
fn tests_stay_in_their_copy() {
    for directory in ["../../..", "/", "a/../../../../.."] {
        let test = "touch touched.txt; test -f one.txt";
        let feature = Sketch::new("one", "answer one.txt x", test);
        let folder = folder(&[feature]);
        let plan = folder.read("plan.toml");
        let at = plan.rfind("[[features.tests]]").unwrap();
        let (before, after) = plan.split_at(at);
        let after =
            after.replace("[[features.tests]]", &format!("[[features.tests]]\ndirectory = \"{directory}\""));
        // Not run where it could write into the root of the machine.
        let test_of_root =
            after.replace("touch touched.txt; ", if directory == "/" { "" } else { "touch touched.txt; " });
        folder.write("plan.toml", format!("{before}{test_of_root}"));
        let finished = folder.run_plan();
        assert_eq!(folder.files("project").into_keys().collect::<Vec<_>>(), ["keep.txt"], "{directory}");
        assert_eq!(finished.status.code(), Some(2), "{directory}: {finished:?}");
    }
}

#[test]
fn tests_that_never_end() {
    let feature = Sketch::new("one", "answer one.txt x", "test -f one.txt || exit 1; sleep 50 & sleep 50");
    let folder = folder(&[feature]);
    let plan =
        folder.read("plan.toml").replace("[[features.tests]]", "[[features.tests]]\ntime_limit = \"300ms\"");
    folder.write("plan.toml", plan);
    let report = Report::of(&folder.run_plan().with_code(1));
    assert_eq!(report.refusals("one"), ["test `one` did not end within 300ms and was killed"]);
}

#[test]
fn limits_may_be_as_large_as_they_like() {
    for limit in ["9223372036854775807", "\"584542046090y\""] {
        let feature = plain("one").agent(&format!("time_limit = {limit}"));
        let folder = folder(&[feature]);
        let plan = folder.read("plan.toml");
        folder.write(
            "plan.toml",
            plan.replace("[[features.tests]]", &format!("[[features.tests]]\ntime_limit = {limit}")),
        );
        let finished = folder.run_plan();
        // Refused or honoured, but nothing in between.
        assert!([Some(0), Some(2)].contains(&finished.status.code()), "{finished:?}");
        assert!(!finished.stderr.contains("panicked"), "{}", finished.stderr);
    }
}

#[test]
fn a_pace_beyond_measure_is_refused() {
    let script = "{\"greenwave_script\": 1}\n{\"feature\": \"one\", \"attempt\": 1}\n{\"after_ms\": 1, \"text\": \"x\"}\n";
    let plan = "project = \"project\"\n[agents.recorded]\nkind = \"scripted\"\nscript = \"answers.jsonl\"\n\
                [[features]]\nid = \"one\"\nagent = \"recorded\"\nprompt = \"p\"\ntests = [{ command = [\"false\"] }]\n";
    for pace in ["1e300", "nan", "inf", "-1"] {
        let folder = Folder::with_project().with("answers.jsonl", script).with("plan.toml", plan);
        let pace = format!("--pace={pace}");
        let finished = folder.greenwave(["run", "plan.toml", "--no-metrics", &pace]).run().with_code(2);
        // The flag is wrong, and not the plan.
        assert!(
            finished.stderr.contains("--pace") && !finished.stderr.contains("plan.toml"),
            "{}",
            finished.stderr
        );
    }
}

/// What a plan says of a feature that is green already may be put better. The feature is done all the same.
#[test]
fn a_green_feature_whose_words_change_stays_green() {
    let folder = folder(&[plain("one"), plain("two").after("one")]);
    folder.run_plan().with_code(0);
    let plan = folder.read("plan.toml");
    folder.write("plan.toml", plan.replace("Do it.", "Do it well."));
    let finished = folder.run_plan();
    assert_eq!(finished.status.code(), Some(0), "{finished:?}");
}

/// Another agent, or another way to call it, does not unmake what was made.
#[test]
fn a_green_feature_whose_agent_changes_stays_green() {
    let folder = folder(&[plain("one"), plain("two").after("one")]);
    folder.run_plan().with_code(0);
    let plan = folder.read("plan.toml");
    folder.write("plan.toml", plan.replace("[\"sh\", \"-c\", '''\n", "[\"sh\", \"-e\", \"-c\", '''\n"));
    let finished = folder.run_plan();
    assert_eq!(finished.status.code(), Some(0), "{finished:?}");
}

/// A new feature in a plan that was run before is done, and nothing else.
#[test]
fn a_plan_may_grow() {
    let folder = folder(&[plain("one")]);
    folder.run_plan().with_code(0);
    folder.write("plan.toml", sketch::plan(&[plain("one"), plain("two").after("one")]));
    let report = Report::of(&folder.run_plan().with_code(0));
    assert_eq!((report.questions(), report.phases()), (1, vec![("one", "green"), ("two", "green")]));
    assert_eq!(report.feature("one")["up_to_date"], true);
}

/// What was green and is broken now is noticed and made anew.
#[test]
fn a_green_feature_that_was_broken_is_done_again() {
    let folder = folder(&[plain("one")]);
    folder.run_plan().with_code(0);
    fs::remove_file(folder.path("project/one.txt")).unwrap();
    let report = Report::of(&folder.run_plan().with_code(0));
    assert_eq!(report.questions(), 1);
    assert_eq!(folder.read("project/one.txt"), "x\n");
}

/// What was green is tested again where results may not be looked up, and asked for never.
#[test]
fn without_the_cache_green_features_are_tested_and_not_asked() {
    let folder = folder(&[plain("one"), plain("two").after("one")]);
    folder.run_plan().with_code(0);
    let args = ["run", "plan.toml", "--no-metrics", "--format", "json", "--no-cache"];
    let report = Report::of(&folder.greenwave(args).run().with_code(0));
    assert_eq!((report.questions(), report.total("tests_run"), report.total("tests_cached")), (0, 2, 0));
    assert_eq!(report.feature("two")["up_to_date"], true);
}

/// The user goes on with what was made: as long as the tests pass, it is green.
#[test]
fn a_green_feature_that_was_edited_stays_green() {
    let folder = folder(&[plain("one")]);
    folder.run_plan().with_code(0);
    folder.write("project/one.txt", "better\n");
    let report = Report::of(&folder.run_plan().with_code(0));
    assert_eq!((report.questions(), report.total("tests_run")), (0, 1));
    assert_eq!(folder.read("project/one.txt"), "better\n");
}

/// Whoever changes the test of a green feature is told that it proves nothing, and may take that back.
#[test]
fn a_change_of_a_test_can_be_taken_back() {
    let folder = folder(&[plain("one")]);
    let plan = folder.read("plan.toml");
    folder.run_plan().with_code(0);
    folder.write("plan.toml", plan.replace("test -f one.txt", "test -e one.txt"));
    let report = Report::of(&folder.run_plan().with_code(1));
    assert!(report.reason("one").starts_with("tests pass before anything is written"));
    folder.write("plan.toml", plan);
    folder.run_plan().with_code(0);
}

#[test]
fn a_review_has_the_last_word() {
    let script = "if grep -q 'must be polite'; then answer word.txt please; else answer word.txt now; fi";
    let review = r#"
[features.review]
name = "manners"
command = ["sh", "-c", "grep please word.txt || { echo it must be polite; exit 7; }"]
"#;
    let folder = folder(&[Sketch::new("strict", script, "test -f word.txt").attempts(2).lines(review)]);
    let report = Report::of(&folder.run_plan().with_code(0));
    assert_eq!(report.refusals("strict"), ["review `manners` failed with exit code 7"]);
    assert_eq!(folder.read("project/word.txt"), "please\n");
}

/// Tests that hold a resource of which there is one never run at the same time.
#[test]
fn resources_keep_tests_apart() {
    let turn = "test -f ID.txt || exit 1; mkdir \"$TURN\" || exit 3; sleep 0.02; rmdir \"$TURN\"";
    let names = ["a", "b", "c", "d", "e", "f"];
    let features = names.map(|id| {
        let script = format!("answer {id}.txt x");
        Sketch::new(id, &script, &turn.replace("ID", id)).lines("resources = { turn = 1 }")
    });
    let folder = folder(&features);
    let plan = folder.read("plan.toml");
    let plan = plan.replace("[[features.tests]]", "[[features.tests]]\nenv = [\"TURN\"]");
    folder.write("plan.toml", format!("resources = {{ turn = 1 }}\n{plan}"));
    let args = ["run", "plan.toml", "--no-metrics", "--format", "json", "--workers", "4"];
    let program = folder.greenwave(args).variable("TURN", folder.path("turn"));
    let report = Report::of(&program.run().with_code(0));
    assert_eq!(report.phases(), names.map(|id| (id, "green")));
}

/// A failure is told when it happens, and so is what is skipped for it, while others are at work.
#[test]
fn failures_are_told_at_once() {
    let folder = Folder::with_project();
    let go = folder.path("go");
    // Goes on in the end whatever happens.
    let wait = format!("for w in $(seq 500); do test -e '{}' && break; sleep 0.01; done", go.display());
    let slow = Sketch::new("slow", &format!("{wait}; answer slow.txt x"), "test -f slow.txt");
    let bad = Sketch::new("bad", "false", "test -f bad.txt");
    folder.write("plan.toml", sketch::plan(&[bad, plain("after").after("bad"), slow]));
    let mut running = folder.plan().start();
    running.read_until(r#""event":"skipped","feature":"after""#);
    folder.write("go", "");
    let told = running.finish().with_code(1).stdout;
    let at = |text: &str| told.lines().position(|line| line.contains(text)).unwrap();
    assert!(at(r#""event":"failed""#) < at(r#""path":"slow.txt""#), "{told}");
    assert!(at(r#""event":"skipped""#) < at(r#""path":"slow.txt""#), "{told}");
}

/// What greenwave keeps for itself may be lost or damaged: results are made anew, and the project is as it was.
#[test]
fn damaged_state_harms_nothing() {
    for part in ["results", "store", "journal"] {
        for garbage in [b"".as_slice(), b"garbage", &[0xff; 5000]] {
            let folder = folder(&[plain("one"), plain("two").after("one")]);
            folder.run_plan().with_code(0);
            let files = folder.files("project");
            for segment in fs::read_dir(folder.path("project/.greenwave").join(part)).unwrap() {
                let path = segment.unwrap().path();
                if path.is_file() {
                    fs::write(path, garbage).unwrap();
                }
            }
            let finished = folder.run_plan();
            // Without the journal nobody knows that the features were red before.
            finished.clone().with_code(i32::from(part == "journal"));
            assert!(!finished.stderr.contains("panicked"), "{part}: {}", finished.stderr);
            assert_eq!((folder.files("project"), Report::of(&finished).questions()), (files, 0), "{part}");
        }
    }
}

#[test]
fn output_that_nobody_reads_stops_nothing() {
    for format in ["human", "json"] {
        let folder = folder(&[plain("one"), plain("two"), plain("three").after("one")]);
        let args = ["run", "plan.toml", "--no-metrics", "--format", format];
        let finished = folder.greenwave(args).read_lines(1).run().with_code(0);
        assert_eq!(finished.stdout.lines().count(), 1);
        let files: Vec<_> = folder.files("project").into_keys().collect();
        assert_eq!(files, ["keep.txt", "one.txt", "three.txt", "two.txt"]);
    }
}

/// A device that takes nothing: where the output is what was asked for, its loss is a failure.
#[test]
fn output_that_is_lost_is_a_failure() {
    let folder = folder(&[plain("one")]);
    for args in [["graph", "plan.toml"], ["profile", "show"]] {
        let full = File::options().write(true).open("/dev/full").unwrap();
        let finished = folder.greenwave(args).stdout(full).run();
        assert_ne!(finished.status.code(), Some(0), "{args:?}");
    }
}

/// A name that is not UTF-8 is worth a warning. Where that cannot be printed, the run goes on.
#[test]
fn names_that_are_no_text_are_left_out() {
    for readable in [true, false] {
        let folder = folder(&[plain("one")]);
        let name = std::ffi::OsStr::from_bytes(b"caf\xe9.txt");
        fs::write(folder.path("project").join(name), "x").unwrap();
        let program = folder.plan();
        let finished = if readable {
            let finished = program.run();
            assert!(finished.stderr.contains("name is not UTF-8"), "{}", finished.stderr);
            finished
        } else {
            program.stderr(File::options().write(true).open("/dev/full").unwrap()).run()
        };
        finished.with_code(0);
        assert_eq!(fs::read(folder.path("project").join(name)).unwrap(), b"x");
    }
}

#[test]
fn names_with_blanks_and_letters_of_any_kind() {
    let test = "test -f 'sp ace/ünï ☃.txt' && test -f '-dash.txt' && grep -q neu 'alte Datei.txt'";
    let script = "answer 'sp ace/ünï ☃.txt' x; answer -dash.txt x; answer 'alte Datei.txt' neu";
    let folder = folder(&[Sketch::new("one", script, test)]).with("project/alte Datei.txt", "alt\n");
    folder.run_plan().with_code(0);
    let files: Vec<_> = folder.files("project").into_keys().collect();
    assert_eq!(files, ["-dash.txt", "alte Datei.txt", "keep.txt", "sp ace/ünï ☃.txt"]);
    let report = Report::of(&folder.run_plan().with_code(0));
    assert_eq!((report.questions(), report.total("tests_run")), (0, 0));
}

/// A plan and a project whose own paths have blanks and letters of any kind.
#[test]
fn folders_with_blanks_and_letters_of_any_kind() {
    let folder = Folder::empty().with("mein Pläne/das Projekt/keep.txt", "keep\n");
    let plan = sketch::plan(&[plain("one")]).replace("\"project\"", "\"das Projekt\"");
    folder.write("mein Pläne/ein Plan.toml", plan);
    folder.greenwave(["run", "mein Pläne/ein Plan.toml", "--no-metrics"]).run().with_code(0);
    assert_eq!(folder.read("mein Pläne/das Projekt/one.txt"), "x\n");
}

#[test]
fn an_empty_project_is_a_beginning() {
    let folder = folder(&[plain("one")]);
    fs::remove_file(folder.path("project/keep.txt")).unwrap();
    folder.run_plan().with_code(0);
    assert_eq!(folder.read("project/one.txt"), "x\n");
}

/// Runs the program as a user who may not do everything, in a folder that belongs to that user.
fn as_nobody(folder: &Folder) -> Program {
    const NOBODY: u32 = 65534;
    if !rustix::process::geteuid().is_root() {
        return folder.plan();
    }
    // Where it was built it may be out of that user's reach.
    let copy = folder.path("greenwave");
    fs::copy(env!("CARGO_BIN_EXE_greenwave"), &copy).unwrap();
    give(&folder.path(""), NOBODY);
    let mut command = std::process::Command::new(copy);
    command.args(["run", "plan.toml", "--no-metrics", "--format", "json"]);
    Program::of(command).within(&folder.path("")).user(NOBODY)
}

fn give(path: &Path, user: u32) {
    chown(path, Some(user), Some(user)).unwrap();
    if path.is_dir() && !path.is_symlink() {
        fs::read_dir(path).unwrap().for_each(|entry| give(&entry.unwrap().path(), user));
    }
}

fn forbid(folder: &Folder, path: &str, mode: u32) {
    fs::set_permissions(folder.path(path), fs::Permissions::from_mode(mode)).unwrap();
}

fn without_place(folder: &Folder, finished: &Finished) -> String {
    finished.stderr.replace(&folder.path("").display().to_string(), "")
}

#[test]
fn a_file_that_cannot_be_read_is_named() {
    let folder = folder(&[plain("one")]).with("project/private/key", "secret");
    let program = as_nobody(&folder);
    forbid(&folder, "project/private/key", 0);
    let finished = program.run().with_code(2);
    insta::assert_snapshot!(without_place(&folder, &finished), @r"
    error: cannot read the project's files
      caused by: cannot read ./project/private/key
      caused by: Permission denied (os error 13)
    ");
    assert_eq!(fs::read_dir(folder.path("project")).unwrap().count(), 3);
}

#[test]
fn a_folder_that_cannot_be_listed_is_named() {
    let folder = folder(&[plain("one")]).with("project/private/key", "secret");
    let program = as_nobody(&folder);
    forbid(&folder, "project/private", 0);
    let finished = program.run().with_code(2);
    assert!(finished.stderr.contains("project/private"), "{}", finished.stderr);
    forbid(&folder, "project/private", 0o700);
}

#[test]
fn a_project_that_cannot_be_written_is_named() {
    let folder = folder(&[plain("one")]);
    let program = as_nobody(&folder);
    forbid(&folder, "project", 0o555);
    let finished = program.run().with_code(2);
    insta::assert_snapshot!(without_place(&folder, &finished), @r"
    error: cannot create ./project/.greenwave
      caused by: Permission denied (os error 13)
    ");
    forbid(&folder, "project", 0o755);
}

/// One of several files of a feature cannot be written: none of them is, and what is said names it.
#[test]
fn half_an_answer_is_not_left_in_the_project() {
    let feature = Sketch::new("one", "answer a.txt x; answer locked/b.txt x", "test -f a.txt");
    let folder = folder(&[feature, plain("apart")]).with("project/locked/old.txt", "old");
    let program = as_nobody(&folder);
    forbid(&folder, "project/locked", 0o555);
    let report = Report::of(&program.run().with_code(1));
    assert!(report.reason("one").contains("locked/b.txt"), "{}", report.reason("one"));
    let files: Vec<_> = folder.files("project").into_keys().collect();
    forbid(&folder, "project/locked", 0o755);
    assert_eq!(files, ["apart.txt", "keep.txt", "locked/old.txt"]);
}

/// What could not be written once keeps nobody from running the plan again, cured or not.
#[test]
fn a_file_that_could_not_be_written_stops_its_own_feature_alone() {
    let feature =
        Sketch::new("one", "answer a.txt x; answer locked/b.txt x", "test -f a.txt && test -f locked/b.txt");
    let folder =
        folder(&[feature, plain("apart"), plain("new").after("apart")]).with("project/locked/old.txt", "old");
    let program = as_nobody(&folder);
    forbid(&folder, "project/locked", 0o555);
    program.run().with_code(1);
    let second = as_nobody(&folder);
    forbid(&folder, "project/locked", 0o555);
    fs::remove_file(folder.path("project/new.txt")).unwrap();
    let report = Report::of(&second.run().with_code(1));
    let third = as_nobody(&folder);
    forbid(&folder, "project/locked", 0o755);
    assert_eq!(report.phases(), [("one", "failed"), ("apart", "green"), ("new", "green")]);
    assert_eq!(Report::of(&third.run().with_code(0)).feature("one")["phase"], "green");
}

/// A demonstration is not started over somebody's own plan.
#[test]
fn a_plan_of_ones_own_is_no_demo() {
    let folder = folder(&[plain("one")]);
    let finished = folder.greenwave(["demo", "--dir", ".", "--no-metrics"]).run();
    assert_eq!(folder.files("project").into_keys().collect::<Vec<_>>(), ["keep.txt"]);
    finished.with_code(2);
}

#[test]
fn a_plan_that_cannot_be_read_is_named() {
    let folder = Folder::with_project().with("bytes.toml", b"name = \"caf\xe9\"\n");
    let run = |plan: &str| folder.greenwave(["run", plan, "--no-metrics"]).run().with_code(2).stderr;
    insta::assert_snapshot!(run("missing.toml"), @r"
    error: cannot read the plan missing.toml
      caused by: No such file or directory (os error 2)
    hint: `greenwave init missing.toml` writes one to start from
    ");
    insta::assert_snapshot!(run("project"), @r"
    error: cannot read the plan project
      caused by: Is a directory (os error 21)
    ");
    insta::assert_snapshot!(run("bytes.toml"), @r"
    error: cannot read the plan bytes.toml
      caused by: stream did not contain valid UTF-8
    ");
}
