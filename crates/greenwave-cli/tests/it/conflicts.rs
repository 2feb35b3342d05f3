//! Concurrent changes of the same files by features, the user and other runs.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use rustix::process::Signal;

use crate::shell_plan::{self, Report, ShellFeature};
use crate::test_dir::TestDir;

/// Ten lines: changes of the first and the last one can be merged.
const LIST: &str = "one\n2\n3\n4\n5\n6\n7\n8\n9\nten\n";

fn run(dir: &TestDir, features: &[ShellFeature], code: i32) -> Report {
    dir.write("plan.toml", shell_plan::unconfined(features));
    Report::of(&dir.run_plan().with_code(code))
}

#[test]
fn changes_of_different_lines_are_merged() {
    let dir = TestDir::with_project().with("project/list.txt", LIST);
    let top =
        ShellFeature::new("top", "answer list.txt \"$(sed 's/one/ONE/' list.txt)\"", "grep ONE list.txt");
    let end =
        ShellFeature::new("end", "answer list.txt \"$(sed 's/ten/TEN/' list.txt)\"", "grep TEN list.txt");
    let report = run(&dir, &[top, end], 0);
    assert_eq!(report.phases(), [("top", "green"), ("end", "green")]);
    assert_eq!(report.requests(), 2);
    assert_eq!(dir.read("project/list.txt"), LIST.replace("one", "ONE").replace("ten", "TEN"));
}

/// The second agent gets the file with conflict markers, and another attempt.
#[test]
fn changes_of_the_same_line_are_rejected() {
    let dir = TestDir::with_project().with("project/list.txt", LIST);
    let feature = |id: &str| {
        let script = format!(
            "if grep -q '<<<<<<<'; then answer list.txt \"$(sed 's/^one.*/one {id} and the other/' list.txt)\"; \
             else answer list.txt \"$(sed 's/one/one {id}/' list.txt)\"; fi"
        );
        ShellFeature::new(id, &script, &format!("grep {id} list.txt")).attempts(2)
    };
    let report = run(&dir, &[feature("left"), feature("right")], 1);
    // The second attempt undoes the change of the first feature, whose test then fails.
    let (first, second) = match report.phases()[..] {
        [("left", "green"), ("right", "failed")] => ("left", "right"),
        [("left", "failed"), ("right", "green")] => ("right", "left"),
        ref other => panic!("{other:?}"),
    };
    assert_eq!(
        report.rejections(second),
        [
            "`list.txt` was changed by another feature in the same place",
            &format!("after merging, test `{first}` of `{first}` failed with exit code 1")
        ]
    );
    assert_eq!(dir.read("project/list.txt"), LIST.replace("one", &format!("one {first}")));
}

#[test]
fn an_agent_can_resolve_a_conflict() {
    let dir = TestDir::with_project().with("project/list.txt", LIST);
    let feature = |id: &str| {
        let script = format!("answer list.txt \"$(sed 's/^one.*/& {id}/' list.txt)\"");
        ShellFeature::new(id, &script, &format!("grep {id} list.txt")).attempts(2)
    };
    let report = run(&dir, &[feature("left"), feature("right")], 0);
    assert_eq!(report.requests(), 3);
    let first = dir.read("project/list.txt").lines().next().unwrap().to_owned();
    assert!(["one left right", "one right left"].contains(&first.as_str()), "{first}");
}

#[test]
fn a_merge_that_breaks_another_feature_is_rejected() {
    let dir = TestDir::with_project();
    let strict =
        ShellFeature::new("strict", "answer strict.txt x", "test -f strict.txt && ! grep bad other.txt");
    let script = "if grep -q 'test `strict` of `strict` failed'; then answer other.txt good; else answer other.txt bad; fi";
    let other = ShellFeature::new("other", script, "test -f other.txt").after("strict").attempts(2);
    let report = run(&dir, &[strict, other], 0);
    assert_eq!(
        report.rejections("other"),
        ["after merging, test `strict` of `strict` failed with exit code 1"]
    );
    assert_eq!(dir.read("project/other.txt"), "good\n");
}

/// One feature creates a file and another a directory of the same name. The second one fails, and
/// later features are tested without its files.
#[test]
fn a_file_and_a_directory_of_one_name_are_a_conflict() {
    let dir = TestDir::with_project();
    let file = ShellFeature::new("file", "answer thing x", "test -f thing");
    let wait = |name: &str| {
        let path = dir.path("project").join(name);
        format!("for w in $(seq 3000); do test -e '{}' && break; sleep 0.01; done", path.display())
    };
    let script = format!("{}; answer left-over.txt x; answer thing/part.txt x", wait("thing"));
    let within = ShellFeature::new("within", &script, "test -f thing/part.txt");
    let careful = ShellFeature::new(
        "careful",
        "answer careful.txt x",
        "test -f careful.txt && test ! -e left-over.txt",
    );
    let report = run(&dir, &[file, within.lines("resources = {}"), careful], 1);
    assert_eq!(report.phases(), [("file", "green"), ("within", "failed"), ("careful", "green")]);
    assert!(report.reason("within").contains("`thing"), "{}", report.reason("within"));
    let files: Vec<_> = dir.files("project").into_keys().collect();
    assert_eq!(files, ["careful.txt", "keep.txt", "thing"]);
}

#[test]
fn links_inside_the_project_are_followed() {
    let dir = TestDir::with_project().with("project/src/lib.txt", "old\n");
    std::os::unix::fs::symlink("src", dir.path("project/alias")).unwrap();
    let feature = ShellFeature::new("one", "answer alias/lib.txt new", "grep new src/lib.txt");
    run(&dir, &[feature], 0);
    assert_eq!(dir.read("project/src/lib.txt"), "new\n");
    assert!(dir.path("project/alias").is_symlink());
}

#[test]
fn edits_of_the_user_are_joined_by_lines() {
    let dir = TestDir::with_project().with("project/list.txt", LIST);
    let list = dir.path("project/list.txt").display().to_string();
    // By rename as an editor does, in place, and the permissions only.
    for edit in [
        format!("sed -i 's/ten/TEN/' '{list}'"),
        format!("sed 's/ten/TEN/' list.txt > '{list}'"),
        format!("chmod 755 '{list}'"),
    ] {
        dir.write("project/list.txt", LIST);
        fs::set_permissions(dir.path("project/list.txt"), fs::Permissions::from_mode(0o644)).unwrap();
        let _ = fs::remove_dir_all(dir.path("project/.greenwave"));
        let script = format!("{edit}; answer list.txt \"$(sed 's/one/ONE/' list.txt)\"");
        let report = run(&dir, &[ShellFeature::new("one", &script, "grep -q ONE list.txt")], 0);
        assert_eq!(report.requests(), 1);
        let expected = LIST.replace("one", "ONE");
        if edit.starts_with("chmod") {
            assert_eq!(dir.read("project/list.txt"), expected);
            let mode = fs::metadata(dir.path("project/list.txt")).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o755);
        } else {
            assert_eq!(dir.read("project/list.txt"), expected.replace("ten", "TEN"));
        }
    }
}

/// The answer waits for the user and costs no attempt. The next run merges it without a request.
#[test]
fn a_file_that_the_user_changes_is_not_overwritten() {
    let dir = TestDir::with_project().with("project/list.txt", LIST);
    let user = format!("echo mine > '{}'", dir.path("project/list.txt").display());
    let script = format!("{user}; answer first.txt x; answer list.txt theirs");
    let feature = || ShellFeature::new("one", &script, "grep theirs list.txt");
    let two = || ShellFeature::new("two", "answer two.txt x", "test -f two.txt");
    let report = run(&dir, &[feature(), two()], 1);
    let reason = report.reason("one");
    assert!(reason.starts_with("cannot merge `list.txt`: your change overlaps"), "{reason}");
    assert_eq!(report.feature("one")["hint"], "move or undo your change and run the plan again");
    assert_eq!(report.rejections("one"), [""; 0]);
    let files = dir.files("project");
    assert_eq!(files["list.txt"], "mine\n");
    assert_eq!(files.into_keys().collect::<Vec<_>>(), ["keep.txt", "list.txt", "two.txt"]);
    dir.write("project/list.txt", LIST);
    let report = run(&dir, &[feature(), two()], 0);
    assert_eq!(report.requests(), 0, "the answer is stored");
    assert_eq!(dir.read("project/list.txt"), "theirs\n");
}

/// While other features are worked on, the user can make room for the answer.
#[test]
fn a_blocked_feature_continues_when_the_user_changes_the_file() {
    let dir = TestDir::with_project().with("project/list.txt", LIST);
    let path = dir.path("project/list.txt").display().to_string();
    let script = format!("rm '{path}'; answer list.txt theirs");
    let feature = ShellFeature::new("one", &script, "grep theirs list.txt");
    let go = dir.path("go");
    let wait = format!(
        "for w in $(seq 3000); do test -e '{}' && break; sleep 0.01; done; answer two.txt x",
        go.display()
    );
    let two = ShellFeature::new("two", &wait, "test -f two.txt");
    dir.write("plan.toml", shell_plan::unconfined(&[feature, two]));
    let mut running = dir.plan().start();
    running.read_until(r#""event":"waiting""#);
    running.read_until(r#""kind":"edit""#);
    dir.write("project/list.txt", LIST);
    running.read_until(r#""event":"merged""#);
    dir.write("go", "");
    let report = Report::of(&running.finish().with_code(0));
    assert_eq!(report.phases(), [("one", "green"), ("two", "green")]);
    assert_eq!(dir.read("project/list.txt"), "theirs\n");
}

#[test]
fn a_file_that_the_user_creates_is_not_overwritten() {
    let dir = TestDir::with_project();
    let user = format!("echo mine > '{}'", dir.path("project/new.txt").display());
    let feature = ShellFeature::new("one", &format!("{user}; answer new.txt theirs"), "test -f new.txt");
    run(&dir, &[feature], 1);
    assert_eq!(dir.read("project/new.txt"), "mine\n");
}

/// Ignored files are not in the working copies, and belong to the user.
#[test]
fn ignored_files_are_not_overwritten() {
    let dir =
        TestDir::with_project().with("project/.gitignore", "*.env\n").with("project/my.env", "SECRET\n");
    let feature = ShellFeature::new("one", "answer my.env x", "test -f my.env");
    let report = run(&dir, &[feature], 1);
    assert_eq!(dir.read("project/my.env"), "SECRET\n");
    // The message must not claim that it changed during the run.
    assert!(!report.reason("one").contains("was changed"), "{}", report.reason("one"));
}

#[test]
fn permissions_are_preserved() {
    let dir = TestDir::with_project().with("project/private.txt", "old\n").with("project/tool.sh", "old\n");
    let mode = |path: &str| fs::metadata(dir.path(path)).unwrap().permissions().mode() & 0o777;
    for (path, mode) in [("project/private.txt", 0o600), ("project/tool.sh", 0o750)] {
        fs::set_permissions(dir.path(path), fs::Permissions::from_mode(mode)).unwrap();
    }
    let feature = ShellFeature::new(
        "one",
        "answer private.txt new; answer tool.sh new",
        "grep new private.txt tool.sh",
    );
    run(&dir, &[feature], 0);
    assert_eq!(dir.read("project/private.txt"), "new\n");
    assert_eq!(format!("{:o} {:o}", mode("project/private.txt"), mode("project/tool.sh")), "600 750");
}

#[test]
fn a_second_run_in_the_same_project_is_an_error() {
    let dir = TestDir::with_project();
    let go = dir.path("go");
    let script = format!(
        "for w in $(seq 3000); do test -e '{}' && break; sleep 0.01; done; answer one.txt x",
        go.display()
    );
    dir.write("plan.toml", shell_plan::unconfined(&[ShellFeature::new("one", &script, "test -f one.txt")]));
    let mut running = dir.plan().start();
    running.read_until(r#""phase":"yellow""#);
    let second = dir.run_plan().with_code(2);
    insta::assert_snapshot!(second.stderr, @r"
    error: cannot start a run in ./project: another run is using it
    hint: wait for the other run to end, or use a copy of the project
    ");
    dir.write("go", "");
    assert_eq!(Report::of(&running.finish().with_code(0)).phases(), [("one", "green")]);
}

#[test]
fn a_killed_run_does_not_block_the_project() {
    let dir = TestDir::with_project();
    let go = dir.path("go");
    let script = format!("test -e '{}' || exec sleep 20; answer one.txt x", go.display());
    dir.write("plan.toml", shell_plan::unconfined(&[ShellFeature::new("one", &script, "test -f one.txt")]));
    let mut running = dir.plan().start();
    running.read_until(r#""phase":"yellow""#);
    running.signal(Signal::KILL);
    running.wait();
    dir.write("go", "");
    dir.run_plan().with_code(0);
}

/// The next prompt has both files if two features create one path.
#[test]
fn an_agent_can_resolve_a_conflict_of_new_files() {
    let dir = TestDir::with_project();
    let feature = |id: &str| {
        let script = format!(
            "if grep -q '<<<<<<<'; then printf 'left\\nright\\n' > new.txt; else echo {id} > new.txt; fi"
        );
        ShellFeature::new(id, &script, &format!("grep {id} new.txt")).attempts(2)
    };
    let report = run(&dir, &[feature("left"), feature("right")], 0);
    assert_eq!(report.requests(), 3);
    assert_eq!(dir.read("project/new.txt"), "left\nright\n");
}

/// An empty new file gives way to one with text.
#[test]
fn an_empty_new_file_is_joined_with_another() {
    let dir = TestDir::with_project();
    let empty =
        ShellFeature::new("empty", "touch a/new.txt || mkdir a && touch a/new.txt", "test -f a/new.txt");
    let full = ShellFeature::new("full", "mkdir a; echo x > a/new.txt", "test -s a/new.txt");
    let report = run(&dir, &[empty, full], 0);
    assert_eq!(report.requests(), 2);
    assert_eq!(dir.read("project/a/new.txt"), "x\n");
}

/// The next prompt says that the other side deletes a file, or shows the file that it keeps. An
/// agent that leaves it at that has nothing more to change.
#[test]
fn an_agent_can_resolve_a_conflict_with_a_deletion() {
    let dir = TestDir::with_project().with("project/old.txt", "1\n");
    let edit = "grep -q 'The other side deletes the file.' || echo 2 >> old.txt; echo x > edit.txt";
    let edit = ShellFeature::new("edit", edit, "test -f edit.txt").attempts(2);
    let delete =
        "if test \"$GREENWAVE_ATTEMPT\" = 2; then grep -qx 2 || exit 1; fi; rm old.txt; echo x > del.txt";
    let delete = ShellFeature::new("delete", delete, "test -f del.txt").attempts(2);
    let report = run(&dir, &[edit, delete], 0);
    assert_eq!(report.requests(), 3);
    assert!(!dir.path("project/old.txt").exists());
}
