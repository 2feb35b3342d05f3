//! `greenwave test` on files of pytest that share processes, ports or results: the verdicts of one
//! process in pytest's order count.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

use crate::program::until;
use crate::pytest::{PASSES, Suite};

#[test]
fn a_file_that_fails_beside_others_passes_without_them() {
    // Two files need one lock. The file that has it waits until the other has tried to take it, or
    // has passed before.
    let test = |own: &str, other: &str| {
        format!(
            "import os\n\
             def test_{own}():\n\
             \x20   try:\n\
             \x20       os.mkdir('state/lock')\n\
             \x20   finally:\n\
             \x20       os.makedirs('state/{own}', exist_ok=True)\n\
             \x20   while not os.path.exists('state/{other}'):\n\
             \x20       pass\n\
             \x20   os.rmdir('state/lock')\n"
        )
    };
    let files = [
        ("test_one.py", &*test("one", "two")),
        ("test_two.py", &*test("two", "one")),
        ("state/empty", ""),
        ("pytest.ini", "[pytest]\n"),
    ];
    let Some(suite) = Suite::new(&files) else { return };
    let finished = suite.greenwave(&["--jobs", "2"]).run().with_code(0);
    let text = "fails while other tests run beside it and passes alone: it runs alone from now on";
    assert_eq!(finished.stdout.matches(text).count(), 1, "{}", finished.describe());
}

const STATE: &str = "seen = []\n";
const ADDS: &str = "import state\ndef test_a():\n    state.seen.append('a')\n";
const NEEDS: &str = "import state\ndef test_b():\n    assert state.seen\n";

#[test]
fn files_that_depend_on_earlier_files_have_the_verdict_of_pytests_order() {
    let fails = "import state\ndef test_c():\n    assert not state.seen\n";
    let files = [("state.py", STATE), ("test_a.py", ADDS), ("test_b.py", NEEDS), ("test_c.py", fails)];
    let Some(suite) = Suite::new(&files) else { return };
    let expected = [("py:test_a.py", true), ("py:test_b.py", true), ("py:test_c.py", false)];
    suite.check(&expected);
    suite.check(&expected);
    let failed = suite.greenwave(&["test_c"]).run().with_code(1).stdout;
    assert!(failed.contains("fails after the files before it in one process"), "{failed}");
    assert!(failed.contains("test_c.py::test_c FAILED"), "{failed}");
}

#[test]
fn a_file_that_needs_earlier_files_passes_without_them_in_the_run() {
    let files = [("state.py", STATE), ("test_a.py", ADDS), ("test_b.py", NEEDS)];
    let Some(suite) = Suite::new(&files) else { return };
    let passed = suite.greenwave(&["test_b"]).run().with_code(0).stdout;
    assert!(passed.contains("fails alone and passes after the files before it in one process"), "{passed}");
    suite.dir.write("p/state.py", "seen = []\n# changed\n");
    suite.greenwave(&["test_b"]).run().with_code(0);
}

#[test]
fn session_fixtures_are_set_up_and_torn_down_once_in_each_process() {
    let fixture = "import os, pytest\n\
        @pytest.fixture(scope='session', autouse=True)\n\
        def server():\n\
        \x20   with open('log/%d' % os.getpid(), 'a') as log:\n\
        \x20       log.write('up ')\n\
        \x20   yield\n\
        \x20   with open('log/%d' % os.getpid(), 'a') as log:\n\
        \x20       log.write('down ')\n";
    let names = ["a", "b", "c", "d", "e", "f"].map(|name| format!("test_{name}.py"));
    let mut files = vec![("conftest.py", fixture), ("log/empty", "")];
    files.extend(names.iter().map(|name| (name.as_str(), PASSES)));
    let Some(suite) = Suite::new(&files) else { return };
    suite.greenwave(&["--jobs", "2"]).run().with_code(0);
    let logs: BTreeMap<_, _> = suite.dir.files("p/log").into_iter().collect();
    let processes: Vec<_> = logs.iter().filter(|(path, _)| !path.ends_with("empty")).collect();
    assert!((1..=2).contains(&processes.len()), "{logs:?}");
    assert!(processes.iter().all(|(_, log)| *log == "up down "), "{logs:?}");
}

#[test]
fn a_linked_worktree_reuses_the_results_of_the_repository() {
    let Some(suite) = Suite::new(&[("tests/test_a.py", PASSES), ("pytest.ini", "[pytest]\n")]) else {
        return;
    };
    let git = |args: &[&str]| {
        let mut command = Command::new("git");
        command.args(["-c", "user.name=a", "-c", "user.email=a@localhost"]).args(args);
        let output = command.current_dir(suite.dir.path("p")).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    };
    git(&["init", "-q"]);
    git(&["add", "."]);
    git(&["commit", "-qm", "one"]);
    let cached = ("py:tests/test_a.py".to_owned(), true, true);
    until("the result is cached", || suite.run() == [cached.clone()]);
    git(&["worktree", "add", "-q", "../linked"]);
    let (own, linked) = (suite.dir.path("p"), suite.dir.path("linked"));
    Command::new("cp").arg("-a").arg(own.join(".venv")).arg(&linked).status().unwrap();
    std::fs::rename(&own, suite.dir.path("original")).unwrap();
    std::fs::rename(&linked, &own).unwrap();
    assert_eq!(suite.run(), [cached]);
}

#[test]
fn a_collection_of_any_size_is_complete() {
    // The list of files is longer than the part of an output that is captured.
    let directory = "d".repeat(200);
    let files: Vec<String> = (0..1500).map(|n| format!("{directory}/test_{n}.py")).collect();
    let all: Vec<(&str, &str)> = files.iter().map(|file| (file.as_str(), PASSES)).collect();
    let Some(suite) = Suite::new(&all) else { return };
    let found = suite.greenwave(&["--format", "json", "test_777.py"]).run().with_code(0);
    assert_eq!(found.report().iter().filter(|line| line["event"] == "test").count(), 1);
}

/// A file that writes down whether it runs in a process forked from one with the plugin.
fn forked(name: &str) -> String {
    format!(
        "import os, sys, lib\n\
         def test_{name}():\n\
         \x20   with open('../log/{name}', 'w') as log:\n\
         \x20       log.write('%d %s' % (os.getpid(), 'greenwave_forks' in sys.modules))\n\
         \x20   assert lib.x\n"
    )
}

#[test]
fn after_the_first_run_each_file_runs_alone_in_a_forked_process() {
    let names = ["a", "b", "c", "d"];
    let texts = names.map(|name| (format!("tests/test_{name}.py"), forked(name)));
    let mut files = vec![("lib.py", "x = 1\n"), ("tests/conftest.py", ""), ("pytest.ini", "[pytest]\n")];
    files.extend(texts.iter().map(|(file, text)| (file.as_str(), text.as_str())));
    let Some(suite) = Suite::new(&files) else { return };
    suite.dir.write("log/empty", "");
    // Without version control, any file beside the tests may be a cache, and its directory counts.
    assert!(Command::new("git").args(["init", "-q"]).arg(suite.dir.path("p")).status().unwrap().success());
    // Results of files younger than the run are not stored.
    let settle = || until("all results are cached", || suite.run().iter().all(|(.., cached)| *cached));
    let ran = || {
        let all = suite.run();
        assert!(all.iter().all(|(_, passed, _)| *passed), "{all:?}");
        settle();
        let ran = all.into_iter().filter(|(.., cached)| !cached);
        ran.map(|(name, ..)| name.trim_start_matches("py:tests/test_").to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(ran().len(), 4);
    suite.dir.write("p/lib.py", "x = 2\n");
    assert_eq!(ran(), ["a.py", "b.py", "c.py", "d.py"]);
    let logs: BTreeSet<String> = names.map(|name| suite.dir.read(&format!("log/{name}"))).into();
    assert!(logs.len() == 4 && logs.iter().all(|log| log.ends_with(" True")), "{logs:?}");

    // Each file depends on what it uses itself, in whatever order the files ran.
    suite.dir.write("p/tests/test_a.py", forked("a").replace("x\n", "x == 2\n"));
    assert_eq!(ran(), ["a.py"]);
    suite.dir.write("p/tests/data.txt", "1\n");
    suite.dir.write("p/tests/test_e.py", PASSES);
    assert_eq!(ran(), ["e.py"]);
    std::fs::remove_file(suite.dir.path("p/tests/test_b.py")).unwrap();
    assert_eq!(ran(), [""; 0]);
    // A new file that takes the place of a module does count.
    suite.dir.write("p/tests/lib.py", "x = 2\n");
    assert_eq!(ran(), ["a.py", "c.py", "d.py"]);
}

#[test]
fn a_file_that_fails_leaves_the_others_their_own_dependencies() {
    let names = ["a", "b", "c"].map(|name| format!("test_{name}.py"));
    let test = |word: &str| format!("import lib\ndef test_x():\n    assert {word}lib.x\n");
    let mut files = vec![("lib.py", "x = 1\n".to_owned())];
    files.extend(names.iter().map(|name| (name.as_str(), test(""))));
    let files: Vec<(&str, &str)> = files.iter().map(|(file, text)| (*file, text.as_str())).collect();
    let Some(suite) = Suite::new(&files) else { return };
    let settle = |failing: &str| {
        let is_settled =
            |(name, passed, cached): &(String, bool, bool)| *cached || (!passed && name == failing);
        until("the passes are cached", || suite.run().iter().all(is_settled));
    };
    settle("");
    suite.dir.write("p/lib.py", "x = 2\n");
    suite.dir.write("p/test_b.py", test("not "));
    suite.check(&[("py:test_a.py", true), ("py:test_b.py", false), ("py:test_c.py", true)]);
    settle("py:test_b.py");
    suite.dir.write("p/test_b.py", test(""));
    let found: Vec<bool> = suite.run().into_iter().map(|(_, _, cached)| cached).collect();
    assert_eq!(found, [true, false, true]);
}

#[test]
fn files_that_fail_are_repeated_in_forked_processes() {
    let counts = "import os\nwith open('starts', 'a') as log:\n    log.write('+')\n";
    let fails = "def test_fails():\n    one = 1\n    assert one == 2\n";
    let names: Vec<String> = (0..8).map(|number| format!("test_{number}.py")).collect();
    let mut files = vec![("conftest.py", counts), (".gitignore", "starts\n"), ("pytest.ini", "[pytest]\n")];
    files.extend(names.iter().map(|name| (name.as_str(), fails)));
    let Some(suite) = Suite::new(&files) else { return };
    let finished = suite.greenwave(&["--jobs", "1"]).run().with_code(1);
    assert!(finished.stdout.contains("8 tests: 8 failed"), "{}", finished.stdout);
    assert_eq!(finished.stdout.matches("assert 1 == 2").count(), 8, "{}", finished.stdout);
    // One process collects, one runs all files, and one forks a process for each.
    let starts = std::fs::read_to_string(suite.dir.path("p/starts")).unwrap();
    assert!((1..=3).contains(&starts.len()), "{starts}");
}

#[test]
fn the_process_that_has_collected_the_first_time_runs_the_files() {
    let names = ["a", "b", "c"];
    let texts = names.map(|name| (format!("tests/test_{name}.py"), forked(name)));
    let starts = "import os\nopen('../log/start-%d' % os.getpid(), 'w').close()\n";
    let mut files = vec![("lib.py", "x = 1\n"), ("conftest.py", starts), ("pytest.ini", "[pytest]\n")];
    files.extend(texts.iter().map(|(file, text)| (file.as_str(), text.as_str())));
    let Some(suite) = Suite::new(&files) else { return };
    assert!(Command::new("git").args(["init", "-q"]).arg(suite.dir.path("p")).status().unwrap().success());
    // Results of files younger than the run are not stored.
    until("the files are old enough", || {
        let _ = std::fs::remove_dir_all(suite.dir.path("cache"));
        let _ = std::fs::remove_dir_all(suite.dir.path("p/.greenwave"));
        let _ = std::fs::remove_dir_all(suite.dir.path("log"));
        suite.dir.write("log/empty", "");
        suite.greenwave(&["--jobs", "1"]).run().with_code(0);
        suite.run().iter().all(|(.., cached)| *cached)
    });
    let starts: Vec<String> = suite.dir.files("log").into_keys().collect();
    let starts: Vec<&str> = starts.iter().filter_map(|name| name.strip_prefix("start-")).collect();
    let logs = names.map(|name| suite.dir.read(&format!("log/{name}")));
    assert!(starts.len() == 1, "{starts:?}");
    assert!(logs.iter().all(|log| *log == format!("{} True", starts[0])), "{starts:?} {logs:?}");

    // Another process has listed the directories.
    suite.dir.write("p/tests/test_d.py", PASSES);
    let ran: Vec<String> =
        suite.run().into_iter().filter(|(.., cached)| !cached).map(|(name, ..)| name).collect();
    assert_eq!(ran, ["py:tests/test_d.py"]);
    suite.dir.write("p/lib.py", "x = 0\n");
    assert_eq!(suite.run().iter().filter(|(_, passed, _)| *passed).count(), 1);
}
