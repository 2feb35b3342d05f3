//! Results that depend on the trace of a run and on nothing else: what re-runs after an edit.

use crate::program::{Program, until};
use crate::pytest::Suite;
use crate::test_command::verdicts;
use crate::test_dir::TestDir;
use crate::tracing::can_trace;

/// Returns a suite whose files each import one private module and a shared one.
fn suite_of_modules() -> Option<Suite> {
    let mut files = vec![
        ("pytest.ini".to_owned(), "[pytest]\npythonpath = .\n".to_owned()),
        ("conftest.py".to_owned(), "import shared\n".to_owned()),
        ("shared.py".to_owned(), "VALUE = 1\n".to_owned()),
        ("README.md".to_owned(), "one\n".to_owned()),
    ];
    for name in ["a", "b", "c", "d"] {
        files.push((format!("lib_{name}.py"), "VALUE = 1\n".to_owned()));
        let test = format!(
            "import shared, lib_{name}\n\
             def test_{name}(tmp_path):\n\
             \x20   (tmp_path / 'file').write_text('text')\n\
             \x20   assert lib_{name}.VALUE == shared.VALUE\n"
        );
        files.push((format!("tests/test_{name}.py"), test));
    }
    let files: Vec<(&str, &str)> = files.iter().map(|(path, text)| (&**path, &**text)).collect();
    Suite::new(&files)
}

/// Runs until all results are cached: those of files younger than the run are not.
fn settle(run: impl Fn() -> Vec<(String, bool, bool)>) {
    until("all results are cached", || run().iter().all(|(.., is_cached)| *is_cached));
}

/// Returns the names of the tests that ran, and whether all tests passed.
fn ran(verdicts: Vec<(String, bool, bool)>) -> (Vec<String>, bool) {
    let all_passed = verdicts.iter().all(|(_, passed, _)| *passed);
    let ran = verdicts.into_iter().filter(|(.., is_cached)| !is_cached);
    (ran.map(|(name, ..)| name).collect(), all_passed)
}

#[test]
fn an_edit_reruns_the_pytest_files_that_import_the_edited_module() {
    let Some(suite) = suite_of_modules() else { return };
    let all = ["a", "b", "c", "d"].map(|name| format!("py:tests/test_{name}.py"));
    settle(|| suite.run());
    // In their first run, files share a process and its trace. Later each has a process.
    suite.dir.write("p/shared.py", "VALUE = 1  # one\n");
    assert_eq!(ran(suite.run()), (all.to_vec(), true));
    settle(|| suite.run());
    suite.dir.write("p/README.md", "two\n");
    assert_eq!(ran(suite.run()), (vec![], true));
    suite.dir.write("p/lib_b.py", "VALUE = 1  # one\n");
    assert_eq!(ran(suite.run()), (vec![all[1].clone()], true));
    settle(|| suite.run());
    suite.dir.write("p/tests/test_c.py", "import lib_c\ndef test_c():\n    assert lib_c.VALUE == 1\n");
    assert_eq!(ran(suite.run()), (vec![all[2].clone()], true));
    settle(|| suite.run());
    suite.dir.write("p/lib_d.py", "VALUE = 2\n");
    assert_eq!(ran(suite.run()), (vec![all[3].clone()], false));
    suite.dir.write("p/lib_d.py", "VALUE = 1\n");
    assert_eq!(ran(suite.run()), (vec![], true));
    // The common process has imported this module, so that it belongs to all files.
    suite.dir.write("p/shared.py", "VALUE = 2\n");
    assert_eq!(ran(suite.run()), (all.to_vec(), false));
}

#[test]
fn a_pytest_file_depends_on_what_an_earlier_one_wrote_for_it() {
    let writes = "def test_a():\n    open('state/file', 'w').write(open('data').read())\n";
    let reads = "def test_b():\n    assert open('state/file').read() == '1'\n";
    let files = [
        ("test_a.py", writes),
        ("test_b.py", reads),
        ("data", "1"),
        ("state/empty", ""),
        ("pytest.ini", "[pytest]\n"),
        (".gitignore", "state/file\n.venv\n__pycache__\n"),
    ];
    let Some(suite) = Suite::new(&files) else { return };
    let run = || verdicts(&suite.greenwave(&["--format", "json", "--jobs", "1"]).run());
    until("both results are cached", || run().iter().all(|(.., is_cached)| *is_cached));
    suite.dir.write("p/data", "2");
    let verdicts = run();
    assert!(verdicts.iter().any(|(name, passed, _)| name == "py:test_b.py" && !passed), "{verdicts:?}");
}

#[test]
fn a_command_depends_on_what_it_reads() {
    let settings = "[[test]]\nname = \"a\"\ncommand = [\"sh\", \"a.sh\"]\n\
        [[test]]\nname = \"b\"\ncommand = [\"sh\", \"b.sh\"]\n";
    let dir = TestDir::empty()
        .with("p/greenwave.toml", settings)
        .with("p/a.sh", "grep -q 1 a.txt")
        .with("p/b.sh", "grep -q 1 b.txt")
        .with("p/a.txt", "1\n")
        .with("p/b.txt", "1\n")
        .with("p/c.txt", "1\n");
    let run = || {
        let program = Program::new(["test", "--format", "json"]).within(&dir.path("p"));
        verdicts(&program.variable("XDG_CACHE_HOME", dir.path("cache")).run())
    };
    settle(run);
    dir.write("p/c.txt", "2\n");
    assert_eq!(ran(run()), (vec![], true));
    dir.write("p/b.txt", "2\n");
    assert_eq!(ran(run()), (vec!["b".to_owned()], false));
    dir.write("p/b.txt", "1\n2\n");
    assert_eq!(ran(run()), (vec!["b".to_owned()], true));
    // Both contents have passed.
    dir.write("p/b.txt", "1\n");
    assert_eq!(ran(run()), (vec![], true));
}

#[test]
fn an_explanation_names_the_program_that_read_the_changed_file() {
    let settings = "[[test]]\nname = \"a\"\ncommand = [\"sh\", \"a.sh\"]\n";
    let dir = TestDir::empty()
        .with("p/greenwave.toml", settings)
        .with("p/a.sh", "grep -q 1 a.txt && ls in > /dev/null && cat ../b.txt")
        .with("p/a.txt", "1\n")
        .with("p/in/one", "")
        .with("b.txt", "1\n");
    if !can_trace(&dir) {
        return;
    }
    let greenwave = |arguments: &[&str]| {
        let program = Program::new(["test"].iter().chain(arguments)).within(&dir.path("p"));
        program.variable("XDG_CACHE_HOME", dir.path("cache")).run()
    };
    settle(|| verdicts(&greenwave(&["--format", "json"])));
    let changed_line = |start: &str| {
        let explained = greenwave(&["--explain", "a"]).with_code(0).stdout;
        let found = explained.lines().map(str::trim).find(|line| line.starts_with(start));
        found.unwrap_or_else(|| panic!("no line `{start}`:\n{explained}")).to_owned()
    };
    dir.write("p/a.txt", "1 2\n");
    assert_eq!(changed_line("input a.txt"), "input a.txt was changed (read by `grep -q 1 a.txt`)");
    dir.write("p/a.txt", "1\n");
    dir.write("b.txt", "2\n");
    let outside = changed_line("discovered");
    assert!(outside.ends_with("b.txt was changed (read by `cat ../b.txt`)"), "{outside}");
    dir.write("b.txt", "1\n");
    dir.write("p/in/two", "");
    let names = changed_line("discovered");
    assert_eq!(names, "discovered dependency in (its names) was changed (read by `ls in`)");
    dir.write("p/a.sh", "grep -q 1 a.txt || true");
    assert_eq!(changed_line("input a.sh"), "input a.sh was changed (read by `sh a.sh`)");
}

/// Test runners such as Jest examine each file of the project.
#[test]
fn a_test_that_examines_all_files_does_not_depend_on_the_state_of_runs() {
    let test =
        "[[test]]\nname = \"t\"\ncommand = \"find . -name '*.json' -size +0 > /dev/null; cat a.json\"\n";
    let dir = TestDir::empty()
        .with("p/greenwave.toml", test)
        .with("p/a.json", "1\n")
        .with("p/.git/HEAD", "ref: refs/heads/main\n");
    let run = || {
        let program = Program::new(["test", "--format", "json"]).within(&dir.path("p"));
        verdicts(&program.variable("XDG_CACHE_HOME", dir.path("cache")).run())
    };
    settle(run);
    dir.write("p/.greenwave/tests/own.json", "1\n");
    assert_eq!(ran(run()), (vec!["t".to_owned()], true));
    settle(run);
    dir.write("p/a.json", "2\n");
    assert_eq!(ran(run()), (vec!["t".to_owned()], true));
}
