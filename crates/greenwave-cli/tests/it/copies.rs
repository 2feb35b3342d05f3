//! The ways of making working copies give the same results.

use std::fs;
use std::process::Command;

use rustix::process::Signal;
use serde_json::Value;

use crate::program::{Finished, until};
use crate::run_command::as_nobody;
use crate::shell_plan::{self, Report, ShellFeature};
use crate::test_dir::{STATE, TestDir};

/// Changes files of the project in every way. The directory `moved` is renamed by a program that
/// copies it where it cannot be renamed.
const EDITS: &str = "echo more >> src/changed.txt; rm src/removed.txt; chmod +x src/mode.sh; \
    mv moved elsewhere; mkdir -p new/deep; echo new > new/deep/file.txt; rm -r gone; \
    rm replaced.txt; mkdir replaced.txt; echo in > replaced.txt/in.txt; ln -sf keep.txt link";

fn project() -> TestDir {
    let dir = TestDir::with_project();
    let files = ["src/changed.txt", "src/removed.txt", "src/mode.sh", "moved/a/b.txt", "gone/x.txt"];
    for file in files.iter().chain(&["replaced.txt", "link.txt"]) {
        dir.write(&format!("project/{file}"), format!("{file}\n"));
    }
    dir
}

fn run(dir: &TestDir, method: &str) -> Finished {
    let set = format!("run.copies={method}");
    dir.greenwave(["run", "plan.toml", "--no-metrics", "--format", "json", "--set", &set]).run()
}

/// Returns whether a method works here, and prints otherwise that the test is skipped.
fn has(method: &str) -> bool {
    let dir = TestDir::with_project();
    dir.write("plan.toml", shell_plan::plan(&[ShellFeature::new("one", "true", "test -f one.txt")]));
    let set = format!("run.copies={method}");
    let checked = dir.greenwave(["run", "--check", "plan.toml", "--set", &set]).run();
    let has = checked.status.success();
    if has {
        assert!(checked.stdout.contains(&format!("\nCopies: {method}")), "{checked:?}");
    } else {
        assert!(checked.stderr.contains(&format!("with `run.copies = \"{method}\"`")), "{checked:?}");
        println!("skipped: {}", checked.stderr);
    }
    has
}

fn git(dir: &TestDir, args: &[&str]) {
    let mut call = Command::new("git");
    call.current_dir(dir.path("project")).args(["-c", "user.name=u", "-c", "user.email=u@u"]).args(args);
    let output = call.output().unwrap();
    assert!(output.status.success(), "{args:?}: {output:?}");
}

#[test]
fn every_method_gives_the_same_results() {
    let mut all = Vec::new();
    for method in ["copy", "reflink", "overlay"].into_iter().filter(|method| has(method)) {
        for is_repository in [false, true] {
            let dir = project();
            let one = ShellFeature::new("one", EDITS, "test -f new/deep/file.txt");
            let status = "test -z \"$(git status --porcelain)\" || exit 1; git log --oneline > log.txt; echo x > two.txt";
            let status = if is_repository { status } else { "echo x > two.txt; echo log > log.txt" };
            let two =
                ShellFeature::new("two", status, "test -f two.txt && test -f elsewhere/a/b.txt").after("one");
            let tried = "echo once >> tries.txt; test ! -f src/removed.txt && echo y > three.txt || rm src/removed.txt";
            let three = ShellFeature::new("three", tried, "test -f three.txt").after("two");
            dir.write("plan.toml", shell_plan::plan(&[one, two, three]));
            if is_repository {
                git(&dir, &["init", "-q"]);
                git(&dir, &["add", "-A"]);
                git(&dir, &["commit", "-qm", "start"]);
            }
            let finished = run(&dir, method).with_code(0);
            let events = finished.events();
            let used = events.iter().find(|event| event["event"] == "copies").unwrap();
            assert_eq!(used["method"], method);
            let tracing = events.iter().find(|event| event["event"] == "tracing").unwrap();
            assert_eq!(tracing["status"], "off");
            assert_eq!(Report::of(&finished).requests(), 3);
            let mut files = dir.files("project");
            files.retain(|path, _| !path.starts_with(".git/") && path != "log.txt");
            let mode = fs::metadata(dir.path("project/src/mode.sh")).unwrap().permissions();
            use std::os::unix::fs::PermissionsExt;
            assert!(mode.mode() & 0o100 != 0, "{method}");
            all.push(files);
        }
    }
    assert!(all.windows(2).all(|pair| pair[0] == pair[1]), "{all:#?}");
    assert_eq!(all[0]["elsewhere/a/b.txt"], "moved/a/b.txt\n");
    assert_eq!(all[0]["replaced.txt/in.txt"], "in\n");
    assert!(!all[0].contains_key("moved/a/b.txt") && !all[0].contains_key("gone/x.txt"), "{all:#?}");
}

/// A file is in the copy's own layer only once it was written.
#[test]
fn overlays_share_files_until_they_are_written() {
    if !has("overlay") {
        return;
    }
    let dir = project();
    dir.write("project/large.bin", vec![b'x'; 4 << 20]);
    let layers = dir.path(STATE).join("greenwave");
    let one = ShellFeature::new(
        "one",
        "echo y > one.txt; while ! test -f seen; do sleep 0.02; done",
        "test -f one.txt",
    );
    dir.write("plan.toml", shell_plan::plan(&[one]));
    let set = ["run", "plan.toml", "--no-metrics", "--format", "json", "--set", "run.copies=overlay"];
    let running = dir.greenwave(set).start();
    let upper = || {
        let of_project =
            fs::read_dir(&layers).ok()?.flatten().find(|entry| entry.path().join(".git").is_file())?;
        Some(of_project.path().join("plan/.layers/of/one/upper"))
    };
    until("the agent has written a file", || upper().is_some_and(|upper| upper.join("one.txt").exists()));
    let upper = upper().unwrap();
    // Directories are copied without their files.
    let files = fs::read_dir(upper.join("src")).unwrap().count();
    assert!(!upper.join("large.bin").exists() && files == 0, "{files} files");
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
    assert!(!mounts.contains(&*dir.path(STATE).to_string_lossy()), "mounts are seen outside of the run");
    running.signal(Signal::KILL);
    running.finish();
    dir.greenwave(["clean", "plan.toml"]).run().with_code(0);
    assert!(!upper.exists());
}

/// An administrator's overlays have no restriction. Others see that of two file systems.
#[test]
fn directories_of_overlays_are_renamed_as_documented() {
    if !has("overlay") {
        return;
    }
    let dir = project();
    let rename = "python3 -c 'import os; os.rename(\"moved\", \"elsewhere\")' 2> error.txt || grep -q 'cross-device' error.txt; \
        rm error.txt; test -d elsewhere || mv moved elsewhere; mkdir -p made/in; echo z > made/in/z.txt; \
        python3 -c 'import os; os.rename(\"made\", \"renamed\")'";
    let one = ShellFeature::new("one", rename, "test -f elsewhere/a/b.txt && test -f renamed/in/z.txt");
    dir.write("plan.toml", shell_plan::plan(&[one]));
    run(&dir, "overlay").with_code(0);
    assert_eq!(dir.read("project/elsewhere/a/b.txt"), "moved/a/b.txt\n");
    assert_eq!(dir.read("project/renamed/in/z.txt"), "z\n");
    assert!(!dir.path("project/moved").exists());
}

/// Without privileges, overlays are mounted in a user namespace if a setting demands them.
#[test]
fn users_get_overlays_in_a_user_namespace() {
    let script = "stat -f -c %T . > type.txt; echo more >> src/changed.txt; mv moved elsewhere; \
        mkdir made; echo z > made/z.txt; python3 -c 'import os; os.rename(\"made\", \"renamed\")'; id -u > user.txt";
    let one = ShellFeature::new("one", script, "test -f elsewhere/a/b.txt && test -f renamed/z.txt");
    let dir = project();
    dir.write("plan.toml", shell_plan::plan(&[one]));
    let finished = as_nobody(&dir).variable("GREENWAVE_RUN_COPIES", "overlay").run();
    if finished.stderr.contains("with `run.copies = \"overlay\"`") {
        println!("skipped: {}", finished.stderr);
        return;
    }
    finished.with_code(0);
    assert_eq!(dir.read("project/type.txt"), "overlayfs\n");
    assert_eq!(dir.read("project/src/changed.txt"), "src/changed.txt\nmore\n");
    let user = rustix::process::geteuid().as_raw();
    assert_eq!(
        dir.read("project/user.txt").trim(),
        if user == 0 { "65534".to_owned() } else { user.to_string() }
    );
    fs::remove_dir_all(dir.path("project/.greenwave")).unwrap();
    fs::remove_dir_all(dir.path("project/renamed")).unwrap();
    let events = as_nobody(&dir).run().events();
    let method = events.iter().find(|event| event["event"] == "copies").map(|event| event["method"].clone());
    assert!(method.is_some_and(|method| method != "overlay"), "{events:?}");
}

#[test]
fn the_start_of_a_run_says_how_copies_are_made() {
    let dir = TestDir::with_project();
    dir.write(
        "plan.toml",
        shell_plan::plan(&[ShellFeature::new("one", "echo x > one.txt", "test -f one.txt")]),
    );
    let finished = run(&dir, "copy").with_code(0);
    let events = finished.events();
    let methods: Vec<&Value> = events.iter().filter(|event| event["event"] == "copies").collect();
    assert!(methods.len() == 1 && methods[0]["method"] == "copy", "{methods:?}");
    let invalid = run(&dir, "hardlink").with_code(2).stderr;
    assert!(invalid.contains("expected \"auto\", \"overlay\", \"reflink\" or \"copy\""), "{invalid}");
}
