//! Edits that the user makes during a run in files that no feature touches.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use crate::shell_plan::{self, Report, ShellFeature};
use crate::test_dir::TestDir;

/// Text of a file with line ends of Windows.
const CRLF: &str = "one\r\n2\r\n3\r\n4\r\n5\r\n6\r\n7\r\n8\r\nten\r\n";

/// Runs a feature whose agent waits until the user has edited the project.
fn run_with_edits(dir: &TestDir, lines: &str, script: &str, edit: impl FnOnce()) -> Option<Report> {
    let wait = "for w in $(seq 3000); do test -e $D/go && break; sleep 0.01; done";
    let script = format!("{wait}; {script}").replace("$D", &dir.path("").display().to_string());
    let plan = shell_plan::plan(&[ShellFeature::new("one", &script, "grep -q done one.txt")]);
    dir.write("plan.toml", format!("{lines}\n{plan}"));
    let mut running = dir.plan().start();
    let mut has_begun = false;
    while let Some(line) = running.line() {
        has_begun = line.contains(r#""phase":"yellow""#);
        if has_begun {
            break;
        }
    }
    edit();
    dir.write("go", "");
    let finished = running.finish();
    if !has_begun && lines.contains("landlock") {
        return None;
    }
    Some(Report::of(&finished.with_code(0)))
}

#[test]
fn edits_of_files_that_no_feature_touches_stay_and_are_no_agents_doing() {
    for strength in ["mount", "landlock", "off", "auto"] {
        let dir = TestDir::with_project()
            .with("project/edited.txt", "old\n")
            .with("project/saved.txt", "same\n")
            .with("project/removed.txt", "old\n")
            .with("project/moved.txt", "moved\n")
            .with("project/tool.sh", "tool\n")
            .with("project/private.txt", "private\n");
        let chmod = |path: &str, mode: u32| {
            fs::set_permissions(dir.path(path), fs::Permissions::from_mode(mode)).unwrap();
        };
        let edit = || {
            dir.write("project/edited.txt", "new\n");
            dir.write("project/saved.txt", "same\n");
            dir.write("project/created.txt", "new\n");
            fs::remove_file(dir.path("project/removed.txt")).unwrap();
            fs::create_dir(dir.path("project/sub")).unwrap();
            fs::rename(dir.path("project/moved.txt"), dir.path("project/sub/moved.txt")).unwrap();
            chmod("project/tool.sh", 0o755);
            chmod("project/private.txt", 0o600);
        };
        let lines = format!("confine = \"{strength}\"");
        let Some(report) = run_with_edits(&dir, &lines, "echo done > one.txt", edit) else { continue };
        assert_eq!(report.phases(), [("one", "green")], "{strength}");
        let files = dir.files("project");
        let names: Vec<&str> = files.keys().map(String::as_str).collect();
        let expected = [
            "created.txt",
            "edited.txt",
            "keep.txt",
            "one.txt",
            "private.txt",
            "saved.txt",
            "sub/moved.txt",
            "tool.sh",
        ];
        assert_eq!(names, expected, "{strength}");
        assert_eq!((&*files["edited.txt"], &*files["created.txt"]), ("new\n", "new\n"), "{strength}");
        let mode = |path: &str| fs::metadata(dir.path(path)).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode("project/tool.sh"), mode("project/private.txt")), (0o755, 0o600), "{strength}");
        for code in ["project-restored", "project-damaged"] {
            assert_eq!(report.notes(code), [""; 0], "{strength}");
        }
    }
}

#[test]
fn line_ends_of_windows_stay() {
    let agents = [
        "sed -i 's/^one/ONE/' list.txt; printf 'done\\r\\n' > one.txt",
        "printf 'done\\r\\n' > one.txt; printf '```diff\\n--- a/list.txt\\n+++ b/list.txt\\n@@ -1,3 +1,3 @@\\n-one\\n+ONE\\n 2\\n 3\\n```\\n'",
        "printf 'done\\r\\n' > one.txt; printf '```text path=\"list.txt\"\\n<<<<<<< SEARCH\\none\\n=======\\nONE\\n>>>>>>> REPLACE\\n```\\n'",
    ];
    for agent in agents {
        let dir = TestDir::with_project().with("project/list.txt", CRLF);
        let edit = || dir.write("project/list.txt", CRLF.replace("ten", "TEN"));
        let report = run_with_edits(&dir, "", agent, edit).unwrap();
        assert_eq!(report.phases(), [("one", "green")], "{agent}");
        assert_eq!(dir.read("project/list.txt"), CRLF.replace("one", "ONE").replace("ten", "TEN"), "{agent}");
        assert_eq!(dir.read("project/one.txt"), "done\r\n");
    }
}

/// An agent replaces a file by a directory, and a directory by a file.
#[test]
fn a_file_and_a_directory_take_each_others_place() {
    let script = "rm thing; mkdir thing; echo part > thing/part.txt; rm -r parts; echo whole > parts; \
                  echo done > one.txt";
    let set_up = || {
        TestDir::with_project()
            .with("project/thing", "thing\n")
            .with("project/parts/a/one.txt", "1\n")
            .with("project/parts/two.txt", "2\n")
    };
    let dir = set_up();
    let report = run_with_edits(&dir, "", script, || dir.write("project/keep.txt", "kept\n")).unwrap();
    assert_eq!(report.phases(), [("one", "green")]);
    let files = dir.files("project");
    assert_eq!(files.keys().collect::<Vec<_>>(), ["keep.txt", "one.txt", "parts", "thing/part.txt"]);
    assert_eq!((&*files["thing/part.txt"], &*files["keep.txt"]), ("part\n", "kept\n"));

    // A new file of the user in the directory is in the way.
    let dir = set_up();
    let wait = "for w in $(seq 3000); do test -e $D/go && break; sleep 0.01; done";
    let script = format!("{wait}; {script}").replace("$D", &dir.path("").display().to_string());
    dir.write("plan.toml", shell_plan::plan(&[ShellFeature::new("one", &script, "test -f parts")]));
    let mut running = dir.plan().start();
    running.read_until(r#""phase":"yellow""#);
    dir.write("project/parts/mine.txt", "mine\n");
    dir.write("go", "");
    running.finish().with_code(1);
    let files = dir.files("project");
    let expected = ["keep.txt", "parts/a/one.txt", "parts/mine.txt", "parts/two.txt", "thing"];
    assert_eq!(files.keys().collect::<Vec<_>>(), expected);
}

/// A change of a protected file in this way is undone, and the other changes stay.
#[test]
fn a_protected_file_that_became_a_directory_is_restored() {
    let dir = TestDir::with_project().with("project/tests/test_a.py", "assert True\n");
    let script = "test -f tests/test_a.py && rm -r tests && echo x > tests; echo done > one.txt; \
                  test -e one.txt";
    let feature = ShellFeature::new("one", script, "grep -q done one.txt").attempts(1);
    dir.write("plan.toml", shell_plan::plan(&[feature]));
    let report = Report::of(&dir.run_plan().with_code(1));
    let reason = report.reason("one").to_owned();
    assert!(reason.contains("tests/test_a.py"), "{reason}");
    let files = dir.files("project");
    assert_eq!(files.keys().collect::<Vec<_>>(), ["keep.txt", "tests/test_a.py"]);
}

/// The user removes everything that git ignores or does not track, with the state of the run. The
/// run goes on, and the next one knows what is green.
#[test]
fn a_run_goes_on_when_git_clean_removes_its_state() {
    let dir = TestDir::with_project();
    let clean = format!("git -C '{}' clean -fdxq", dir.path("project").display());
    let first = format!("{clean}; answer one.txt \"$GREENWAVE_ATTEMPT\"");
    let second = format!("answer two.txt done; {clean}");
    dir.write(
        "plan.toml",
        shell_plan::unconfined(&[
            ShellFeature::new("one", &first, "grep -q 2 one.txt").attempts(2),
            ShellFeature::new("two", &second, "grep -q done two.txt").after("one"),
        ]),
    );
    let git = |command: &str| {
        let script = format!("git -c user.name=a -c user.email=a {command}");
        let mut shell = std::process::Command::new("sh");
        let done = shell.args(["-c", &script]).current_dir(dir.path("project")).status().unwrap();
        assert!(done.success(), "{command}");
    };
    git("init -q && git add -A");
    git("commit -qm start");
    let finished = dir.run_plan().with_code(0);
    assert!(!finished.stderr.contains("WARN"), "{}", finished.stderr);
    let report = Report::of(&finished);
    // The first feature's file is not tracked either.
    assert_eq!(report.phases(), [("one", "green"), ("two", "green")]);
    assert!(report.notes("state-restored")[0].contains("`.greenwave` was removed during the run"));
    assert!(report.notes("state-restored").len() > 1);
    let attempts = dir.greenwave(["attempts", "plan.toml"]).run().with_code(0);
    assert!(attempts.stdout.contains("one") && attempts.stdout.contains("two"), "{attempts:?}");
    dir.write("project/one.txt", "2");
    let again = Report::of(&dir.run_plan().with_code(0));
    assert_eq!((again.phases(), again.requests()), (vec![("one", "green"), ("two", "green")], 0));
}
