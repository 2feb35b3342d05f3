//! Several who change the same files: features, the user, another run.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use rustix::process::Signal;

use crate::folder::Folder;
use crate::sketch::{self, Report, Sketch};

/// Ten lines, far enough from each other that changes of the first and the last can be joined.
const LIST: &str = "one\n2\n3\n4\n5\n6\n7\n8\n9\nten\n";

fn run(folder: &Folder, features: &[Sketch], code: i32) -> Report {
    folder.write("plan.toml", sketch::plan(features));
    Report::of(&folder.run_plan().with_code(code))
}

#[test]
fn changes_in_different_places_are_joined() {
    let folder = Folder::with_project().with("project/list.txt", LIST);
    let top = Sketch::new("top", "answer list.txt \"$(sed 's/one/ONE/' list.txt)\"", "grep ONE list.txt");
    let end = Sketch::new("end", "answer list.txt \"$(sed 's/ten/TEN/' list.txt)\"", "grep TEN list.txt");
    let report = run(&folder, &[top, end], 0);
    assert_eq!(report.phases(), [("top", "green"), ("end", "green")]);
    assert_eq!(report.questions(), 2);
    assert_eq!(folder.read("project/list.txt"), LIST.replace("one", "ONE").replace("ten", "TEN"));
}

/// Whoever comes second sees both sides, and answers once more.
#[test]
fn changes_in_the_same_place_are_told() {
    let folder = Folder::with_project().with("project/list.txt", LIST);
    let feature = |id: &str| {
        let script = format!(
            "if grep -q '<<<<<<<'; then answer list.txt \"$(sed 's/^one.*/one {id} and the other/' list.txt)\"; \
             else answer list.txt \"$(sed 's/one/one {id}/' list.txt)\"; fi"
        );
        Sketch::new(id, &script, &format!("grep {id} list.txt")).attempts(2)
    };
    let report = run(&folder, &[feature("left"), feature("right")], 1);
    // The second attempt removes what the first feature has done, so the first one's test stands against it.
    let (first, second) = match report.phases()[..] {
        [("left", "green"), ("right", "failed")] => ("left", "right"),
        [("left", "failed"), ("right", "green")] => ("right", "left"),
        ref other => panic!("{other:?}"),
    };
    assert_eq!(
        report.refusals(second),
        [
            "`list.txt` was changed by another feature in the same place",
            &format!("after merging, test `{first}` of `{first}` failed with exit code 1")
        ]
    );
    assert_eq!(folder.read("project/list.txt"), LIST.replace("one", &format!("one {first}")));
}

#[test]
fn conflicts_can_be_resolved() {
    let folder = Folder::with_project().with("project/list.txt", LIST);
    let feature = |id: &str| {
        let script = format!("answer list.txt \"$(sed 's/^one.*/& {id}/' list.txt)\"");
        Sketch::new(id, &script, &format!("grep {id} list.txt")).attempts(2)
    };
    let report = run(&folder, &[feature("left"), feature("right")], 0);
    assert_eq!(report.questions(), 3);
    let first = folder.read("project/list.txt").lines().next().unwrap().to_owned();
    assert!(["one left right", "one right left"].contains(&first.as_str()), "{first}");
}

#[test]
fn a_merge_that_breaks_another_feature_is_refused() {
    let folder = Folder::with_project();
    let strict = Sketch::new("strict", "answer strict.txt x", "test -f strict.txt && ! grep bad other.txt");
    let script = "if grep -q 'test `strict` of `strict` failed'; then answer other.txt good; else answer other.txt bad; fi";
    let other = Sketch::new("other", script, "test -f other.txt").after("strict").attempts(2);
    let report = run(&folder, &[strict, other], 0);
    assert_eq!(
        report.refusals("other"),
        ["after merging, test `strict` of `strict` failed with exit code 1"]
    );
    assert_eq!(folder.read("project/other.txt"), "good\n");
}

/// One feature makes a file where another has made a folder. The second fails; what it tried leaves no trace in
/// what later features are tested with.
#[test]
fn a_file_and_a_folder_of_one_name_are_a_conflict() {
    let folder = Folder::with_project();
    let file = Sketch::new("file", "answer thing x", "test -f thing");
    let wait = |name: &str| {
        let path = folder.path("project").join(name);
        format!("for w in $(seq 3000); do test -e '{}' && break; sleep 0.01; done", path.display())
    };
    let script = format!("{}; answer left-over.txt x; answer thing/part.txt x", wait("thing"));
    let within = Sketch::new("within", &script, "test -f thing/part.txt");
    let careful =
        Sketch::new("careful", "answer careful.txt x", "test -f careful.txt && test ! -e left-over.txt");
    // Begins when the one before has failed: it holds the only turn until then.
    let report = run(&folder, &[file, within.lines("resources = {}"), careful], 1);
    assert_eq!(report.phases(), [("file", "green"), ("within", "failed"), ("careful", "green")]);
    assert!(report.reason("within").contains("`thing"), "{}", report.reason("within"));
    let files: Vec<_> = folder.files("project").into_keys().collect();
    assert_eq!(files, ["careful.txt", "keep.txt", "thing"]);
}

#[test]
fn links_inside_the_project_may_be_followed() {
    let folder = Folder::with_project().with("project/src/lib.txt", "old\n");
    std::os::unix::fs::symlink("src", folder.path("project/alias")).unwrap();
    let feature = Sketch::new("one", "answer alias/lib.txt new", "grep new src/lib.txt");
    run(&folder, &[feature], 0);
    assert_eq!(folder.read("project/src/lib.txt"), "new\n");
    assert!(folder.path("project/alias").is_symlink());
}

#[test]
fn what_the_user_changes_meanwhile_is_not_overwritten() {
    let folder = Folder::with_project().with("project/list.txt", LIST);
    let user = format!("echo mine > '{}'", folder.path("project/list.txt").display());
    let script = format!("{user}; answer first.txt x; answer list.txt theirs");
    let feature = Sketch::new("one", &script, "grep theirs list.txt");
    let report = run(&folder, &[feature, Sketch::new("two", "answer two.txt x", "test -f two.txt")], 1);
    assert_eq!(
        report.reason("one"),
        "`list.txt` was changed in the project during the run; no file of this feature was written"
    );
    let files = folder.files("project");
    assert_eq!(files["list.txt"], "mine\n");
    assert_eq!(files.into_keys().collect::<Vec<_>>(), ["keep.txt", "list.txt", "two.txt"]);
}

#[test]
fn what_the_user_creates_meanwhile_is_not_overwritten() {
    let folder = Folder::with_project();
    let user = format!("echo mine > '{}'", folder.path("project/new.txt").display());
    let feature = Sketch::new("one", &format!("{user}; answer new.txt theirs"), "test -f new.txt");
    run(&folder, &[feature], 1);
    assert_eq!(folder.read("project/new.txt"), "mine\n");
}

/// A file that the project ignores is in no feature's copy, and is the user's all the same.
#[test]
fn ignored_files_are_not_overwritten() {
    let folder =
        Folder::with_project().with("project/.gitignore", "*.env\n").with("project/my.env", "SECRET\n");
    let feature = Sketch::new("one", "answer my.env x", "test -f my.env");
    let report = run(&folder, &[feature], 1);
    assert_eq!(folder.read("project/my.env"), "SECRET\n");
    // It was not changed by anybody during the run.
    assert!(!report.reason("one").contains("was changed"), "{}", report.reason("one"));
}

/// Who may read a file is up to the user, whoever writes it.
#[test]
fn permissions_are_kept() {
    let folder = Folder::with_project().with("project/private.txt", "old\n").with("project/tool.sh", "old\n");
    let mode = |path: &str| fs::metadata(folder.path(path)).unwrap().permissions().mode() & 0o777;
    for (path, mode) in [("project/private.txt", 0o600), ("project/tool.sh", 0o750)] {
        fs::set_permissions(folder.path(path), fs::Permissions::from_mode(mode)).unwrap();
    }
    let feature =
        Sketch::new("one", "answer private.txt new; answer tool.sh new", "grep new private.txt tool.sh");
    run(&folder, &[feature], 0);
    assert_eq!(folder.read("project/private.txt"), "new\n");
    assert_eq!(format!("{:o} {:o}", mode("project/private.txt"), mode("project/tool.sh")), "600 750");
}

#[test]
fn a_second_run_in_the_same_project_is_refused() {
    let folder = Folder::with_project();
    let go = folder.path("go");
    let script = format!(
        "for w in $(seq 3000); do test -e '{}' && break; sleep 0.01; done; answer one.txt x",
        go.display()
    );
    folder.write("plan.toml", sketch::plan(&[Sketch::new("one", &script, "test -f one.txt")]));
    let mut running = folder.plan().start();
    running.read_until(r#""phase":"yellow""#);
    let second = folder.run_plan().with_code(2);
    insta::assert_snapshot!(second.stderr, @r"
    error: another run is using ./project
    hint: wait for it to end, or give this run a project folder of its own
    ");
    folder.write("go", "");
    assert_eq!(Report::of(&running.finish().with_code(0)).phases(), [("one", "green")]);
}

/// What a killed run has left behind keeps nobody out.
#[test]
fn a_killed_run_does_not_keep_others_out() {
    let folder = Folder::with_project();
    let go = folder.path("go");
    let script = format!("test -e '{}' || exec sleep 20; answer one.txt x", go.display());
    folder.write("plan.toml", sketch::plan(&[Sketch::new("one", &script, "test -f one.txt")]));
    let mut running = folder.plan().start();
    running.read_until(r#""phase":"yellow""#);
    running.signal(Signal::KILL);
    running.wait();
    folder.write("go", "");
    folder.run_plan().with_code(0);
}
