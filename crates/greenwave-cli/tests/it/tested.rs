//! `greenwave test` as a person uses it: on real projects, with real processes, several at once, killed in the middle.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::Command;
use std::sync::{Arc, Mutex};

use rustix::process::Signal;
use serde_json::Value;

use crate::folder::Folder;
use crate::program::{Finished, Program, until};

/// The program, called in a project, with a cache of results of the folder's own.
fn greenwave<'a>(folder: &Folder, project: &str, args: impl IntoIterator<Item = &'a str>) -> Program {
    let args = ["test"].into_iter().chain(args);
    Program::new(args).within(&folder.path(project)).variable("XDG_CACHE_HOME", folder.path("cache"))
}

/// What a run said of each test, by name: whether it passed, and whether that was known.
pub(crate) fn verdicts(finished: &Finished) -> Vec<(String, bool, bool)> {
    let lines = finished.stdout.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let tests = lines.filter(|line| line["event"] == "test");
    let mut verdicts: Vec<_> = tests
        .map(|test| {
            let name = test["name"].as_str().unwrap().to_owned();
            (name, test["status"] == "passed", test["known"] == true)
        })
        .collect();
    verdicts.sort();
    verdicts
}

fn run(folder: &Folder, project: &str) -> Vec<(String, bool, bool)> {
    verdicts(&greenwave(folder, project, ["--format", "json"]).run())
}

fn verdict(name: &str, passed: bool, known: bool) -> (String, bool, bool) {
    (name.to_owned(), passed, known)
}

/// Two tests with a file of inputs each.
const TWO: &str = r#"
[[test]]
name = "one"
command = "grep -q 1 one/in.txt"
inputs = ["/one/**"]

[[test]]
name = "two"
command = ["grep", "-q", "2", "two/in.txt"]
inputs = ["/two/**"]
"#;

fn two() -> Folder {
    Folder::empty().with("p/greenwave.toml", TWO).with("p/one/in.txt", "1").with("p/two/in.txt", "2")
}

#[test]
fn only_what_a_change_touches_runs_again() {
    let folder = two();
    assert_eq!(run(&folder, "p"), [verdict("one", true, false), verdict("two", true, false)]);
    assert_eq!(run(&folder, "p"), [verdict("one", true, true), verdict("two", true, true)]);
    folder.write("p/two/in.txt", "3");
    assert_eq!(run(&folder, "p"), [verdict("one", true, true), verdict("two", false, false)]);
    // Failures are not kept, unless somebody wants that.
    assert_eq!(run(&folder, "p"), [verdict("one", true, true), verdict("two", false, false)]);
    for known in [false, true] {
        let kept = greenwave(&folder, "p", ["--format", "json", "--keep-failures"]).run().with_code(1);
        assert_eq!(verdicts(&kept), [verdict("one", true, true), verdict("two", false, known)]);
    }
    folder.write("p/two/in.txt", "2");
    assert_eq!(run(&folder, "p"), [verdict("one", true, true), verdict("two", true, true)], "back as it was");
}

#[test]
fn what_is_printed_is_for_people() {
    let folder = two();
    let first = greenwave(&folder, "p", []).run().with_code(0);
    assert!(first.stdout.starts_with("2 tests: 2 to run\n"), "{}", first.stdout);
    let second = greenwave(&folder, "p", []).run().with_code(0);
    assert!(second.stdout.starts_with("2 tests: 2 passed, all known (saved "), "{}", second.stdout);
    folder.write("p/one/in.txt", "5");
    let dry = greenwave(&folder, "p", ["--dry-run"]).run().with_code(0);
    assert!(
        dry.stdout.contains("  to run   one\n") && dry.stdout.contains("  known    two"),
        "{}",
        dry.stdout
    );
    let why = greenwave(&folder, "p", ["--explain", "one"]).run().with_code(0);
    assert!(why.stdout.starts_with("one: not known, to be run\n"), "{}", why.stdout);
    assert!(why.stdout.contains("    input one/in.txt was changed\n"), "{}", why.stdout);
    let failed = greenwave(&folder, "p", ["one"]).run().with_code(1);
    assert!(
        failed.stdout.contains("FAIL     one") && failed.stdout.contains("1 failed"),
        "{}",
        failed.stdout
    );
}

#[test]
fn what_is_wrong_is_said_with_what_would_help() {
    let check = |config: &str, args: &[&str], expected: &str| {
        let folder = Folder::empty().with("p/greenwave.toml", config).with("p/a", "");
        let finished = greenwave(&folder, "p", args.iter().copied()).run().with_code(2);
        assert!(finished.stderr.contains(expected), "{}", finished.stderr);
        assert!(!finished.stdout.contains("passed"), "{}", finished.stdout);
    };
    let test = |more: &str| format!("[[test]]\nname = \"t\"\ncommand = [\"true\"]\n{more}\n");
    check("", &[], "no tests were found");
    check("", &[], "`[[test]]` in greenwave.toml declares any command");
    check(&test("inputs = [\"a[\"]"), &[], "`a[` is not a valid glob pattern");
    check(&test("input = [\"a\"]"), &[], "did you mean `inputs`?");
    check(&test("retries = -1"), &[], "a whole number from 0");
    check(&test("directory = \"/tmp\""), &[], "a path inside the project is wanted");
    check(&test("needs = { gpu = 2 }"), &[], "needs 2 of `gpu`, and there is 1");
    check(&format!("{0}{0}", test("")), &[], "there is another test called `t`");
    check("[[test]]\nname = \"t\"\ncommand = []\n", &[], "a program and its arguments are wanted");
    check("[[test]]\nname = \"t\"\ncommand = \" \"\n", &[], "a program and its arguments are wanted");
    check("[[test]]\nname = \"\"\ncommand = \"true\"\n", &[], "`name` is empty");
    check("[[test]]\ncommand = [\"true\"]\n", &[], "has no `name`");
    check(&test(""), &["nothing"], "no test's name contains nothing; there are `t`");
    check(&test(""), &["--remote", "ftp://x"], "an address like \"redis://host:6379\"");
    check(&test(""), &["--audit", "2"], "a number from 0 to 1");
    check(&test(""), &["--affected", "nonsense"], "git cannot say what has changed since nonsense");
}

#[test]
fn the_commit_of_a_question_is_no_option() {
    let folder = two();
    let git = |args: &[&str]| {
        let done = Command::new("git").arg("-C").arg(folder.path("p")).args(args).output().unwrap();
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    };
    let affected = |commit: &str| {
        let flag = format!("--affected={commit}");
        greenwave(&folder, "p", [flag.as_str()]).run()
    };
    let outside = affected("main").with_code(2);
    assert_eq!(outside.stderr.lines().count(), 1, "not all of git's help: {}", outside.stderr);
    git(&["init", "--quiet"]);
    git(&["add", "."]);
    git(&["-c", "user.name=a", "-c", "user.email=a@b", "commit", "--quiet", "-m", "first"]);
    let option = affected("--output=written").with_code(2);
    assert!(option.stderr.contains("since --output=written: it knows no such commit"), "{}", option.stderr);
    assert!(!folder.path("p/written").exists());
    folder.write("p/one/in.txt", "1\n");
    let told = affected("HEAD").with_code(0);
    assert!(
        told.stdout.contains("  pass     one") && !told.stdout.contains("  pass     two"),
        "{}",
        told.stdout
    );
}

#[test]
fn a_program_that_is_not_there_is_named_and_the_others_run() {
    let config = "[[test]]\nname = \"t\"\ncommand = [\"no-such-program\"]\n[[test]]\nname = \"u\"\ncommand = [\"true\"]\n";
    let folder = Folder::empty().with("p/greenwave.toml", config);
    let finished = greenwave(&folder, "p", []).run().with_code(1);
    assert!(
        finished.stdout.contains("`no-such-program`, which is neither on the PATH"),
        "{}",
        finished.stdout
    );
    assert!(finished.stdout.contains("2 tests: 1 passed, 1 broken"), "{}", finished.stdout);
}

#[test]
fn a_pattern_that_matches_nothing_is_told() {
    let config = "[[test]]\nname = \"t\"\ncommand = [\"true\"]\ninputs = [\"/in/*.txt\", \"/data/**\"]\n";
    let folder = Folder::empty().with("p/greenwave.toml", config).with("p/in/a.txt", "");
    let finished = greenwave(&folder, "p", []).run().with_code(0);
    assert!(finished.stdout.contains("note: `/data/**` of test t matches no file"), "{}", finished.stdout);
}

#[test]
fn a_file_that_cannot_be_read_breaks_the_tests_that_need_it() {
    if !rustix::process::geteuid().is_root() {
        let _ = writeln!(std::io::stderr(), "skipped: it takes root to run as somebody else");
        return;
    }
    let folder = two();
    for path in ["", "p", "p/one", "p/two", "p/greenwave.toml", "p/one/in.txt", "p/two/in.txt"] {
        std::os::unix::fs::chown(folder.path(path), Some(65_534), Some(65_534)).unwrap();
    }
    fs::set_permissions(folder.path("p/one/in.txt"), std::os::unix::fs::PermissionsExt::from_mode(0o000))
        .unwrap();
    let finished = greenwave(&folder, "p", []).user(65_534).run().with_code(1);
    assert!(
        finished.stdout.contains("one/in.txt") && finished.stdout.contains("Permission denied"),
        "{}",
        finished.stdout
    );
    assert!(finished.stdout.contains("2 tests: 1 passed, 1 broken"), "{}", finished.stdout);
}

#[test]
fn names_of_any_kind_and_links_in_a_circle_are_no_trouble() {
    let name = "ein Täst → \u{1F7E2} 'x' \\\"y\\\"";
    let config = format!("[[test]]\nname = \"{name}\"\ncommand = \"cat 'dätei \u{1F7E2}.txt'\"\n");
    let folder = Folder::empty().with("p/greenwave.toml", config).with("p/dätei \u{1F7E2}.txt", "x");
    std::os::unix::fs::symlink("circle", folder.path("p/circle")).unwrap();
    std::os::unix::fs::symlink("..", folder.path("p/up")).unwrap();
    for known in [false, true] {
        let found = run(&folder, "p");
        assert_eq!(found.len(), 1);
        assert_eq!((found[0].1, found[0].2), (true, known), "{found:?}");
    }
}

#[test]
fn a_second_work_tree_knows_everything() {
    let folder = two();
    let git = |args: &[&str]| {
        let mut git = Command::new("git");
        git.args(["-c", "user.name=t", "-c", "user.email=t@example.org"])
            .args(args)
            .current_dir(folder.path("p"));
        assert!(git.output().unwrap().status.success(), "git {args:?}");
    };
    git(&["init", "-q"]);
    git(&["add", "."]);
    git(&["commit", "-q", "-m", "x"]);
    git(&["worktree", "add", "-q", "../other"]);
    run(&folder, "p");
    assert_eq!(run(&folder, "other"), [verdict("one", true, true), verdict("two", true, true)]);
    // Only what may read what has changed since.
    folder.write("other/two/in.txt", "22");
    let affected = greenwave(&folder, "other", ["--format", "json", "--affected", "HEAD"]).run().with_code(0);
    assert_eq!(verdicts(&affected), [verdict("two", true, false)]);
}

/// Tests that tell of each run through a pipe, which is no file that anything could depend on.
struct Noting {
    folder: Folder,
    notes: Arc<Mutex<Vec<usize>>>,
}

impl Noting {
    fn new(count: usize, script: &str) -> Self {
        let folder = Folder::empty();
        let pipe = folder.path("pipe");
        assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
        let mut config = String::new();
        for number in 0..count {
            folder.write(&format!("p/{number}/in.txt"), number.to_string());
            config.push_str(&format!(
                "[[test]]\nname = \"t{number}\"\ncommand = \"cat {number}/in.txt; {script}; echo {number} > ../pipe\"\n\
                 inputs = [\"/{number}/**\"]\n"
            ));
        }
        let notes: Arc<Mutex<Vec<usize>>> = Arc::default();
        let into = Arc::clone(&notes);
        // Open for writing as well, so that it does not end when no test has it open.
        let pipe = fs::File::options().read(true).write(true).open(pipe).unwrap();
        std::thread::spawn(move || {
            for line in BufReader::new(pipe).lines() {
                into.lock().unwrap().push(line.unwrap().parse().unwrap());
            }
        });
        Self { folder: folder.with("p/greenwave.toml", config), notes }
    }

    fn sorted(&self) -> Vec<usize> {
        let mut notes = self.notes.lock().unwrap().clone();
        notes.sort_unstable();
        notes
    }
}

#[test]
fn eight_processes_at_once_run_each_test_once() {
    let noting = Noting::new(12, "sleep 0.05");
    let folder = &noting.folder;
    let running: Vec<_> = (0..8).map(|_| greenwave(folder, "p", ["--format", "json"]).start()).collect();
    for running in running {
        let found = verdicts(&running.finish().with_code(0));
        assert_eq!(found.len(), 12);
        assert!(found.iter().all(|(_, passed, _)| *passed));
    }
    assert_eq!(noting.sorted(), (0..12).collect::<Vec<_>>());
}

#[test]
fn what_had_passed_before_a_kill_is_known_afterwards() {
    let noting = Noting::new(3, "true");
    let folder = &noting.folder;
    let config = folder.read("p/greenwave.toml") + "[[test]]\nname = \"long\"\ncommand = \"sleep 600\"\n";
    folder.write("p/greenwave.toml", config.replace("sleep 600", "echo $$ > ../begun; exec sleep 600"));
    let args = ["--format", "json", "--set", "testing.follow_load=false", "--jobs", "2"];
    let mut running = greenwave(folder, "p", args).start();
    for _ in 0..3 {
        running.read_until(r#""status":"passed""#);
    }
    let begun = || fs::read_to_string(folder.path("begun")).is_ok_and(|text| text.ends_with('\n'));
    until("the long test runs", begun);
    running.signal(Signal::KILL);
    running.wait();
    // Nobody is left to end what the killed one had started.
    let left = folder.read("begun").trim().parse().unwrap();
    rustix::process::kill_process(rustix::process::Pid::from_raw(left).unwrap(), Signal::KILL).unwrap();
    folder.write("p/greenwave.toml", config.replace("sleep 600", "true"));
    let after = run(folder, "p");
    assert_eq!(after.iter().filter(|(_, passed, known)| *passed && *known).count(), 3, "{after:?}");
    assert_eq!(noting.sorted(), [0, 1, 2]);
}

#[test]
fn an_interrupt_ends_what_was_started() {
    let config = "[[test]]\nname = \"long\"\ncommand = \"echo $$ > ../id; sleep 600\"\n";
    let folder = Folder::empty().with("p/greenwave.toml", config);
    let running = greenwave(&folder, "p", ["--format", "json"]).start();
    let id = || fs::read_to_string(folder.path("id")).unwrap_or_default();
    until("the test runs", || id().ends_with('\n'));
    running.signal(Signal::INT);
    let finished = running.finish().with_code(130);
    assert!(finished.stdout.contains(r#""event":"stopped""#), "{}", finished.stdout);
    until("the test is gone", || is_gone(&id()));
}

#[test]
fn an_interrupt_ends_what_is_being_built() {
    let script = "fn main() {\n    std::fs::write(\"../id\", format!(\"{}\\n\", std::process::id())).unwrap();\n    \
                  std::thread::sleep(std::time::Duration::from_secs(600));\n}\n";
    let folder = Folder::empty()
        .with("p/Cargo.toml", "[package]\nname = \"a\"\nversion = \"0.1.0\"\nedition = \"2024\"\n")
        .with("p/build.rs", script)
        .with("p/src/lib.rs", "#[test] fn t() {}\n");
    let running = greenwave(&folder, "p", ["--format", "json"]).start();
    let id = || fs::read_to_string(folder.path("id")).unwrap_or_default();
    until("the build script runs", || id().ends_with('\n'));
    running.signal(Signal::INT);
    let finished = running.finish().with_code(130);
    assert!(finished.stdout.contains(r#""event":"stopped""#), "{}", finished.stdout);
    until("the build script is gone", || is_gone(&id()));
}

/// Whether a process has ended, waited for or not.
fn is_gone(id: &str) -> bool {
    let stat = fs::read_to_string(format!("/proc/{}/stat", id.trim())).unwrap_or_default();
    stat.is_empty() || stat.contains(") Z ")
}

#[test]
fn a_full_disk_keeps_nothing_and_fails_nothing() {
    let folder = two();
    // No file may grow: every write of greenwave's fails, as on a full disk.
    let mut shell = Command::new("sh");
    shell.args(["-c", "trap '' XFSZ; ulimit -f 0; exec \"$0\" test", env!("CARGO_BIN_EXE_greenwave")]);
    let full =
        Program::of(shell).within(&folder.path("p")).variable("XDG_CACHE_HOME", folder.path("cache")).run();
    // Whether it can begin at all is up to what has to be written for that.
    match full.status.code() {
        Some(0) => assert!(full.stdout.contains("2 passed"), "{}{}", full.stdout, full.stderr),
        Some(2) => assert!(full.stderr.contains("caused by: File too large"), "{}", full.stderr),
        other => panic!("{other:?}: {}{}", full.stdout, full.stderr),
    }
    assert_eq!(run(&folder, "p"), [verdict("one", true, false), verdict("two", true, false)]);
}

#[test]
fn a_damaged_cache_is_no_pass() {
    let folder = two();
    run(&folder, "p");
    let mut damaged = 0;
    for entry in fs::read_dir(folder.path("cache/greenwave/tests")).unwrap() {
        let path = entry.unwrap().path();
        if path.is_file() && fs::metadata(&path).unwrap().len() > 100 {
            let mut bytes = fs::read(&path).unwrap();
            bytes.iter_mut().skip(64).for_each(|byte| *byte ^= 0x55);
            fs::write(&path, bytes).unwrap();
            damaged += 1;
        }
    }
    assert!(damaged > 0);
    folder.write("p/one/in.txt", "7");
    assert_eq!(run(&folder, "p"), [verdict("one", false, false), verdict("two", true, false)]);
}

#[test]
fn what_is_remembered_of_a_project_can_be_anything() {
    let folder = two();
    run(&folder, "p");
    for entry in fs::read_dir(folder.path("p/.greenwave/tests")).unwrap() {
        fs::write(entry.unwrap().path(), b"\xF5GWI not what was there").unwrap();
    }
    assert_eq!(run(&folder, "p"), [verdict("one", true, true), verdict("two", true, true)]);
    folder.write("p/one/in.txt", "7");
    assert_eq!(run(&folder, "p"), [verdict("one", false, false), verdict("two", true, true)]);
}

#[test]
fn the_folder_of_another_user_is_refused() {
    if !rustix::process::geteuid().is_root() {
        let _ = writeln!(std::io::stderr(), "skipped: only root can give a folder to somebody else");
        return;
    }
    let folder = two();
    run(&folder, "p");
    std::os::unix::fs::chown(folder.path("p/.greenwave/tests"), Some(12_345), None).unwrap();
    let finished = greenwave(&folder, "p", []).run().with_code(2);
    assert!(finished.stderr.contains("belongs to user 12345, not to user 0"), "{}", finished.stderr);
}

/// Folders in each other until no path leads to the last: `deep` and so on.
fn too_deep(project: &Path) {
    use rustix::fs::{CWD, Mode, OFlags, mkdirat, openat};
    let name = "d".repeat(200);
    let mut at = openat(CWD, project, OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty()).unwrap();
    for depth in 0..25 {
        let name = if depth == 0 { "deep" } else { name.as_str() };
        mkdirat(&at, name, Mode::from_raw_mode(0o755)).unwrap();
        at = openat(&at, name, OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty()).unwrap();
    }
    openat(&at, "file", OFlags::CREATE | OFlags::WRONLY, Mode::from_raw_mode(0o644)).unwrap();
}

#[test]
fn what_is_deeper_than_a_path_can_be_long_is_left_out_and_keeps_results_that_may_depend_on_it_from_being_kept()
 {
    let test = |name: &str, inputs: &str| {
        format!("[[test]]\nname = \"{name}\"\ncommand = \"true; : {name}\"\n{inputs}\n")
    };
    let config =
        test("all", "") + &test("but", "inputs = [\"!/deep/**\"]") + &test("one", "inputs = [\"/in\"]");
    let folder = Folder::empty().with("p/greenwave.toml", config).with("p/in", "");
    let all = |known: [bool; 3]| {
        ["all", "but", "one"]
            .into_iter()
            .zip(known)
            .map(|(name, known)| verdict(name, true, known))
            .collect::<Vec<_>>()
    };
    until("all is known", || run(&folder, "p") == all([true; 3]));
    too_deep(&folder.path("p"));
    // What was known without it is not known with it.
    assert_eq!(run(&folder, "p"), all([false, true, true]));
    assert_eq!(run(&folder, "p"), all([false, true, true]));
    let told = greenwave(&folder, "p", []).run().with_code(0);
    assert!(
        told.stderr.contains("WARN deep/ddd") && told.stderr.contains("is left out with all below"),
        "{}",
        told.stderr
    );
    assert!(told.stderr.lines().count() == 1 && told.stderr.len() < 200, "{}", told.stderr);
    let reason = "`deep/ddd";
    assert!(
        told.stdout.contains(reason) && told.stdout.contains("may be an input, but its path is too long"),
        "{}",
        told.stdout
    );
    // In a project that does not say what its tests are as well.
    let folder = Folder::empty().with("p/package.json", r#"{"name": "web", "scripts": {"test": "true"}}"#);
    too_deep(&folder.path("p"));
    let found = greenwave(&folder, "p", ["--dry-run"]).run().with_code(0);
    assert!(found.stdout.contains("to run   npm:web"), "{}", found.stdout);
}

#[test]
fn a_flaky_pass_is_told_and_not_kept() {
    let config = "[[test]]\nname = \"t\"\nretries = 2\ninputs = [\"/in\"]\n\
                  command = \"test -e ../second || { touch ../second; exit 1; }\"\n";
    let folder = Folder::empty().with("p/greenwave.toml", config).with("p/in", "");
    let first = greenwave(&folder, "p", []).run().with_code(0);
    assert!(
        first.stdout.contains("flaky    t") && first.stdout.contains("passed at attempt 2"),
        "{}",
        first.stdout
    );
    assert_eq!(run(&folder, "p"), [verdict("t", true, false)]);
}

#[test]
fn tests_have_a_home_and_ports_of_their_own() {
    let test = |name: &str| {
        format!(
            "[[test]]\nname = \"{name}\"\ninputs = [\"/in\"]\n\
             command = \"test -z \\\"$SECRET\\\" && test -d $HOME && echo $HOME $TMPDIR $GREENWAVE_PORT_FIRST > ../{name}; sleep 0.3\"\n"
        )
    };
    let folder = Folder::empty().with("p/greenwave.toml", test("a") + &test("b")).with("p/in", "");
    let args = ["--jobs", "2", "--set", "testing.follow_load=false"];
    greenwave(&folder, "p", args).variable("SECRET", "x").run().with_code(0);
    let (a, b) = (folder.read("a"), folder.read("b"));
    for (one, other) in a.split_whitespace().zip(b.split_whitespace()) {
        assert_ne!(one, other);
        assert!(one.parse::<u16>().is_ok() || !Path::new(one).exists(), "{one} is left");
    }
}

#[test]
fn what_is_not_safe_beside_others_runs_alone() {
    let script = "mkdir ../lock || exit 1; sleep 0.1; rmdir ../lock";
    let test = |name: &str, more: &str| {
        format!("[[test]]\nname = \"{name}\"\ncommand = \"{script}; : {name}\"\ninputs = [\"/in\"]\n{more}\n")
    };
    let check = |more: &str| {
        let config = ["a", "b", "c"].map(|name| test(name, more)).concat();
        let folder = Folder::empty().with("p/greenwave.toml", config).with("p/in", "");
        let args = ["--jobs", "3", "--format", "json", "--set", "testing.follow_load=false"];
        let found = verdicts(&greenwave(&folder, "p", args).run());
        found.iter().all(|(_, passed, _)| *passed)
    };
    assert!(check("parallel_safe = false"));
    assert!(check("needs = [\"lock\"]"));
    assert!(!check(""), "side by side they would meet");
}

#[test]
fn an_audit_finds_what_nobody_could_see() {
    let config =
        "[[test]]\nname = \"t\"\ncommand = \"grep -qx 0 /proc/self/oom_score_adj\"\ninputs = [\"/in\"]\n";
    let folder = Folder::empty().with("p/greenwave.toml", config).with("p/in", "");
    if fs::read_to_string("/proc/self/oom_score_adj").ok().as_deref() != Some("0\n") {
        let _ = writeln!(std::io::stderr(), "skipped: this process is not as the test wants it");
        return;
    }
    assert_eq!(run(&folder, "p"), [verdict("t", true, false)]);
    let again = greenwave(&folder, "p", ["--audit", "100%"]).run().with_code(0);
    assert!(again.stdout.contains("1 known result checked again, all the same"), "{}", again.stdout);
    let mut shell = Command::new("sh");
    let script = "echo 500 > /proc/self/oom_score_adj; exec \"$0\" test --audit 1.0";
    shell.args(["-c", script, env!("CARGO_BIN_EXE_greenwave")]);
    let other = Program::of(shell).within(&folder.path("p")).variable("XDG_CACHE_HOME", folder.path("cache"));
    let other = other.run().with_code(1);
    assert!(other.stdout.contains("audit    t: it passed when its result was kept"), "{}", other.stdout);
}

#[test]
fn a_test_that_takes_too_long_is_killed_with_what_it_started() {
    let config =
        "[[test]]\nname = \"t\"\ntimeout = \"300ms\"\ncommand = \"sleep 600 & echo $! > ../id; wait\"\n";
    let folder = Folder::empty().with("p/greenwave.toml", config);
    let finished = greenwave(&folder, "p", []).run().with_code(1);
    assert!(finished.stdout.contains("did not end within 300ms and was killed"), "{}", finished.stdout);
    let id = folder.read("id");
    until("what it started is gone", || is_gone(&id));
}

#[test]
fn what_was_found_can_be_written_down_and_edited() {
    let folder = Folder::empty()
        .with("p/package.json", r#"{"name": "web", "scripts": {"test": "sh check.sh"}}"#)
        .with("p/check.sh", "test \"$(cat data.txt)\" = 1")
        .with("p/data.txt", "1");
    let wrote = greenwave(&folder, "p", ["--init"]).run().with_code(0);
    assert!(wrote.stdout.contains("greenwave.toml with 1 test"), "{}", wrote.stdout);
    assert!(
        folder.read("p/greenwave.toml").contains("[[test]]\nname = \"npm:web"),
        "{}",
        folder.read("p/greenwave.toml")
    );
    greenwave(&folder, "p", ["--dry-run"]).run().with_code(0);
    let again = greenwave(&folder, "p", ["--init"]).run().with_code(2);
    assert!(again.stderr.contains("is there already, and is not overwritten"), "{}", again.stderr);
}

#[test]
fn the_cache_can_be_looked_after() {
    let folder = two();
    run(&folder, "p");
    let cache = |command: &str| {
        let args = ["cache", command];
        let program =
            Program::new(args).within(&folder.path("p")).variable("XDG_CACHE_HOME", folder.path("cache"));
        program.run().with_code(0).stdout
    };
    assert!(cache("stats").contains(" records, "), "{}", cache("stats"));
    assert!(cache("verify").contains(" good, 0 damaged"), "{}", cache("verify"));
    assert!(cache("clear").starts_with("Forgot "));
    assert_eq!(run(&folder, "p"), [verdict("one", true, false), verdict("two", true, false)]);
}

#[test]
fn the_mask_for_new_files_counts() {
    let test =
        "[[test]]\nname = \"t\"\ncommand = \"touch $TMPDIR/new && test $(stat -c %a $TMPDIR/new) = 644\"\n";
    let folder = Folder::empty().with("p/greenwave.toml", test);
    let run = |mask: &str| {
        let script = format!("umask {mask}; exec \"$0\" test --format json");
        let output = Command::new("sh")
            .args(["-c", &script, env!("CARGO_BIN_EXE_greenwave")])
            .current_dir(folder.path("p"))
            .env("XDG_CACHE_HOME", folder.path("cache"))
            .output()
            .unwrap();
        let lines = String::from_utf8(output.stdout).unwrap();
        let test = lines.lines().find(|line| line.contains("\"name\":\"t\"")).unwrap().to_owned();
        let test: Value = serde_json::from_str(&test).unwrap();
        (test["status"] == "passed", test["known"] == true)
    };
    assert_eq!(run("022"), (true, false));
    assert_eq!(run("022"), (true, true));
    assert_eq!(run("077"), (false, false));
    assert_eq!(run("022"), (true, true));
}

#[test]
fn what_goes_on_in_a_session_of_its_own_is_told_as_that() {
    let test = "[[test]]\nname = \"t\"\ncommand = \"setsid sleep 3 >/dev/null 2>&1 &\"\n";
    let folder = Folder::empty().with("p/greenwave.toml", test);
    let ran = greenwave(&folder, "p", []).run().with_code(0);
    assert!(ran.stdout.contains("left processes behind"), "{}", ran.stdout);
    assert!(!ran.stdout.contains("clock"), "{}", ran.stdout);
}

#[test]
fn a_cache_that_cannot_be_opened_is_told_with_what_would_help_and_done_without() {
    let folder = two().with("cache", "a file");
    let without = greenwave(&folder, "p", []).run().with_code(0);
    assert!(without.stderr.starts_with("warning: no result is known in this run"), "{}", without.stderr);
    let place = format!("cannot open the test results in {}", folder.path("cache/greenwave/tests").display());
    assert!(without.stderr.contains(&place), "{}", without.stderr);
    assert!(without.stderr.contains("`--no-cache` does without"), "{}", without.stderr);
    assert!(without.stdout.contains("2 tests: 2 passed;"), "{}", without.stdout);
    let silent = greenwave(&folder, "p", ["--no-cache"]).run().with_code(0);
    assert_eq!(silent.stderr, "");
    // Whoever asks for the results themselves is not helped by none.
    for command in ["stats", "verify", "clear", "warm"] {
        let program = Program::new(["cache", command]).within(&folder.path("p"));
        let refused = program.variable("XDG_CACHE_HOME", folder.path("cache")).run().with_code(2);
        assert!(refused.stderr.starts_with("error: cannot open the test results"), "{}", refused.stderr);
    }
}

#[test]
fn output_that_is_lost_is_a_failure_and_the_results_are_kept() {
    let folder = two();
    let full = fs::File::options().write(true).open("/dev/full").unwrap();
    let lost = greenwave(&folder, "p", []).stdout(full).run().with_code(2);
    assert!(lost.stderr.contains("error: cannot write to the standard output"), "{}", lost.stderr);
    assert!(
        lost.stderr.contains("caused by: No space left") && lost.stderr.contains("hint: "),
        "{}",
        lost.stderr
    );
    assert_eq!(run(&folder, "p"), [verdict("one", true, true), verdict("two", true, true)]);
    // Whoever has read enough has lost nothing.
    greenwave(&folder, "p", ["--output", "all"]).read_lines(1).run().with_code(0);
}

/// "If an implementation encounters a relative path in any of these variables it should consider the path invalid and ignore it"
/// (<https://specifications.freedesktop.org/basedir-spec/latest/>).
#[test]
fn a_relative_folder_for_caches_is_ignored() {
    let folder = two().with("home/.keep", "");
    let program = Program::new(["test"]).within(&folder.path("p")).variable("HOME", folder.path("home"));
    program.variable("XDG_CACHE_HOME", "caches").run().with_code(0);
    assert!(!folder.path("p/caches").exists());
    assert!(folder.path("home/.cache/greenwave/tests").is_dir());
}

#[test]
fn inputs_outside_the_project_are_a_mistake_with_its_place() {
    let check = |inputs: &str, expected: &str| {
        let config = format!("[[test]]\nname = \"t\"\ncommand = [\"true\"]\ninputs = [{inputs}]\n");
        let folder = Folder::empty().with("p/greenwave.toml", config).with("p/a", "").with("x", "");
        let refused = greenwave(&folder, "p", []).run().with_code(2);
        assert!(refused.stderr.contains("greenwave.toml:4:"), "{}", refused.stderr);
        assert!(refused.stderr.contains(expected), "{}", refused.stderr);
    };
    check("\"../x\"", "a path inside the project is wanted, without `..`");
    check("\"a\", \"!b/../../x\"", "a path inside the project is wanted, without `..`");
    for nothing in ["\"\"", "\" \"", "\"!\"", "\"/\""] {
        check(nothing, "it means no file");
    }
}

#[test]
fn a_report_that_cannot_be_written_is_told_before_anything_runs() {
    let config = "[[test]]\nname = \"t\"\ncommand = \"touch ../ran\"\ninputs = [\"/in\"]\n";
    for flag in ["--junit", "--summary"] {
        let folder = Folder::empty().with("p/greenwave.toml", config).with("p/in", "").with("report", "old");
        for place in ["../no/such/folder/report", "..", "in/report"] {
            let refused = greenwave(&folder, "p", [flag, place]).run().with_code(2);
            let expected = format!("error: cannot write the report {place}\n  caused by: ");
            assert!(refused.stderr.contains(&expected), "{}", refused.stderr);
            assert!(!folder.path("ran").exists(), "{flag} {place}");
        }
        // What does not start has left everything as it was.
        greenwave(&folder, "p", [flag, "../report", "no-such-test"]).run().with_code(2);
        assert_eq!(folder.read("report"), "old");
        greenwave(&folder, "p", [flag, "../new", "no-such-test"]).run().with_code(2);
        assert!(!folder.path("new").exists());
        greenwave(&folder, "p", [flag, "../new"]).run().with_code(0);
        assert!(folder.read("new").contains('t'), "{}", folder.read("new"));
    }
}

#[test]
fn the_slowest_are_named_one_to_a_line() {
    let long = "n".repeat(70);
    let test = |at: usize| format!("[[test]]\nname = \"{at}{long}\"\ncommand = \"sleep 0.6; : {at}\"\n");
    let folder = Folder::empty().with("p/greenwave.toml", (0..6).map(test).collect::<String>());
    let ran = greenwave(&folder, "p", ["--jobs", "6"]).run().with_code(0);
    let slowest: Vec<&str> = ran.stdout.lines().skip_while(|line| *line != "Slowest:").collect();
    assert_eq!(slowest.len(), 7, "{}", ran.stdout);
    assert!(slowest[1..6].iter().all(|line| line.len() < 100 && line.contains(&long)), "{}", ran.stdout);
}

#[test]
fn tests_that_are_the_same_run_once_and_say_so() {
    let test = |name: &str| {
        format!(
            "[[test]]\nname = \"{name}\"\ncommand = \"echo x >> ../ran; sleep 0.2\"\ninputs = [\"/in\"]\n"
        )
    };
    let folder = Folder::empty().with("p/greenwave.toml", test("a") + &test("b")).with("p/in", "");
    let jobs = ["--jobs", "2", "--set", "testing.follow_load=false"];
    let first = greenwave(&folder, "p", jobs).run().with_code(0);
    assert_eq!(folder.read("ran"), "x\n", "{}", first.stdout);
    assert!(first.stdout.contains("2 tests: 2 passed, 1 the same as another; "), "{}", first.stdout);
    let says = |one: &str, other: &str| {
        first.stdout.contains(&format!("  pass     {one}      same  as {other}, which has just run"))
    };
    assert!(says("a", "b") || says("b", "a"), "{}", first.stdout);
    assert!(!first.stdout.contains("known"), "{}", first.stdout);
}

#[test]
fn a_file_whose_tests_pytest_leaves_out_by_its_settings_is_no_failure() {
    let check = |summary: &str, more: &str, code: i32| {
        let test =
            format!("[[test]]\nname = \"t\"\ncommand = [\"./python\", \"-m\", \"pytest\", \"a.py\"{more}]\n");
        let script = format!("#!/bin/sh\necho\necho '{summary}'\nexit 5\n");
        let folder = Folder::empty().with("p/greenwave.toml", &test).with("p/python", &script);
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        fs::set_permissions(folder.path("p/python"), mode).unwrap();
        greenwave(&folder, "p", []).run().with_code(code);
    };
    check("===== 2 deselected in 0.01s =====", "", 0);
    check("2 deselected in 0.01s", "", 0);
    check("===== no tests ran in 0.01s =====", "", 1);
    check("===== 2 deselected in 0.01s =====", ", \"-k\", \"mistyped\"", 1);
}
