//! `greenwave test` on suites of pytest of many kinds: it runs what pytest collects, with its
//! verdicts.

use std::process::{Command, Stdio};

use crate::harnesses::{python, real_path, use_pytest};
use crate::program::Program;
use crate::test_command::verdicts;
use crate::test_dir::TestDir;

/// Runs a project with pytest and with `greenwave test`, twice.
pub(crate) struct Suite {
    pub(crate) dir: TestDir,
    python: String,
}

impl Suite {
    pub(crate) fn new(files: &[(&str, &str)]) -> Option<Self> {
        let python = python()?;
        let mut dir = TestDir::empty().with("p/.gitignore", ".venv\n__pycache__\n.coverage*\n");
        for (path, text) in files {
            dir = dir.with(&format!("p/{path}"), *text);
        }
        use_pytest(&dir, &python);
        Some(Self { dir, python })
    }

    /// Returns whether pytest by itself passes.
    fn passes_with_pytest(&self) -> bool {
        let mut command = Command::new(&self.python);
        command.args(["-m", "pytest", "-q", "-p", "no:cacheprovider"]).current_dir(self.dir.path("p"));
        command.env("PYTHONDONTWRITEBYTECODE", "1").stdout(Stdio::null()).stderr(Stdio::null());
        command.status().unwrap().success()
    }

    pub(crate) fn run(&self) -> Vec<(String, bool, bool)> {
        verdicts(&self.greenwave(&["--format", "json"]).run())
    }

    /// Returns a call of `greenwave test` in the project.
    pub(crate) fn greenwave(&self, args: &[&str]) -> Program {
        let program = Program::new(["test"].iter().chain(args)).within(&self.dir.path("p"));
        program.variable("XDG_CACHE_HOME", self.dir.path("cache"))
    }

    /// Checks the units and their verdicts, and that both runners agree.
    #[track_caller]
    pub(crate) fn check(&self, expected: &[(&str, bool)]) {
        let found = self.run();
        let found: Vec<(&str, bool)> =
            found.iter().map(|(name, passed, _)| (name.as_str(), *passed)).collect();
        let mut sorted = expected.to_vec();
        sorted.sort_unstable();
        assert_eq!(found, sorted);
        let all_passed = expected.iter().all(|(_, passed)| *passed);
        assert_eq!(self.passes_with_pytest(), all_passed, "pytest has another verdict");
    }
}

pub(crate) const PASSES: &str = "def test_passes():\n    pass\n";
pub(crate) const FAILS: &str = "def test_fails():\n    assert False\n";

#[test]
fn doctests_of_modules_and_text_files_run() {
    let Some(suite) = Suite::new(&[
        (
            "pytest.ini",
            "[pytest]\ntestpaths = tests src docs\npythonpath = src\naddopts = --doctest-modules --doctest-glob=*.md\n",
        ),
        ("src/pkg/__init__.py", ""),
        // Its function is no test, since the file's name is not that of a test.
        (
            "src/pkg/calc.py",
            "def add(a, b):\n    \"\"\"\n    >>> add(1, 2)\n    3\n    \"\"\"\n    return a + b\n\ndef test_connection():\n    assert False\n",
        ),
        ("docs/guide.md", "    >>> 1 + 1\n    3\n"),
        ("tests/test_a.py", PASSES),
    ]) else {
        return;
    };
    suite.check(&[("py:tests/test_a.py", true), ("py:src/pkg/calc.py", true), ("py:docs/guide.md", false)]);
}

#[test]
fn files_of_custom_collectors_run() {
    let collector = "import pytest\n\
        def pytest_collect_file(parent, file_path):\n\
        \x20   if file_path.suffix == '.yaml':\n\
        \x20       return YamlFile.from_parent(parent, path=file_path)\n\
        class YamlFile(pytest.File):\n\
        \x20   def collect(self):\n\
        \x20       yield YamlItem.from_parent(self, name='one')\n\
        class YamlItem(pytest.Item):\n\
        \x20   def runtest(self):\n\
        \x20       assert 'bad' not in self.path.read_text()\n";
    let Some(suite) = Suite::new(&[
        ("tests/conftest.py", collector),
        ("tests/good.yaml", "a: good"),
        ("tests/bad.yaml", "a: bad"),
        ("tests/test_a.py", PASSES),
    ]) else {
        return;
    };
    suite.check(&[("py:tests/bad.yaml", false), ("py:tests/good.yaml", true), ("py:tests/test_a.py", true)]);
}

#[test]
fn files_that_the_settings_leave_out_do_not_run() {
    let Some(suite) = Suite::new(&[
        ("setup.cfg", "[tool:pytest]\naddopts = --ignore=e2e -m 'not slow'\nmarkers = slow\n"),
        ("conftest.py", "collect_ignore = ['test_old.py']\n"),
        ("e2e/test_e.py", FAILS),
        ("test_old.py", FAILS),
        (
            "test_slow.py",
            "import pytest\npytestmark = pytest.mark.slow\ndef test_slow():\n    assert False\n",
        ),
        ("test_a.py", PASSES),
    ]) else {
        return;
    };
    suite.check(&[("py:test_a.py", true)]);
}

#[test]
fn files_that_only_the_settings_name_run() {
    let Some(suite) = Suite::new(&[
        ("pytest.ini", "[pytest]\ntestpaths = tests/suite.py tests/unit\nxfail_strict = true\n"),
        ("tests/suite.py", FAILS),
        ("tests/unit/test_b.py", "import pytest\n@pytest.mark.xfail\ndef test_b():\n    pass\n"),
        ("tests/other/test_c.py", FAILS),
    ]) else {
        return;
    };
    suite.check(&[("py:tests/suite.py", false), ("py:tests/unit/test_b.py", false)]);
}

#[test]
fn modules_that_skip_themselves_pass() {
    let Some(suite) = Suite::new(&[
        ("test_a.py", PASSES),
        ("test_device.py", "import pytest\npytest.skip('no device', allow_module_level=True)\n"),
        ("test_optional.py", "import pytest\npytest.importorskip('no_such_module')\n"),
    ]) else {
        return;
    };
    let expected = [("py:test_a.py", true), ("py:test_device.py", true), ("py:test_optional.py", true)];
    suite.check(&expected);
    suite.dir.write("p/test_a.py", FAILS);
    suite.check(&[("py:test_a.py", false), expected[1], expected[2]]);
}

#[test]
fn directories_with_brackets_and_links_are_collected() {
    let Some(suite) = Suite::new(&[
        ("pytest.ini", "[pytest]\ntestpaths = tests\n"),
        ("tests/[a]/test_brackets.py", FAILS),
        ("tests/test_a.py", PASSES),
        ("elsewhere/test_linked.py", PASSES),
    ]) else {
        return;
    };
    std::os::unix::fs::symlink("../elsewhere", suite.dir.path("p/tests/link")).unwrap();
    let mut found = suite.run();
    found.sort();
    let found: Vec<(&str, bool)> = found.iter().map(|(name, passed, _)| (name.as_str(), *passed)).collect();
    let expected = [
        ("py:tests/[a]/test_brackets.py", false),
        ("py:tests/link/test_linked.py", true),
        ("py:tests/test_a.py", true),
    ];
    assert_eq!(found, expected);
}

#[test]
fn settings_above_the_project_and_below_it_are_those_that_pytest_uses() {
    let reads =
        "import os\ndef test_root(request):\n    assert request.config.inipath.parent.name == 'above'\n";
    let Some(suite) = Suite::new(&[("sub/test_a.py", reads), ("test_b.py", reads)]) else { return };
    // The project itself is below a directory with settings, and has a manifest in a directory.
    suite.dir.write("p/sub/setup.cfg", "[metadata]\nname = sub\n");
    let moved = suite.dir.path("above");
    std::fs::create_dir(&moved).unwrap();
    std::fs::rename(suite.dir.path("p"), moved.join("p")).unwrap();
    std::fs::write(moved.join("pytest.ini"), "[pytest]\n").unwrap();
    let program = Program::new(["test", "--format", "json"]).within(&moved.join("p"));
    let found = verdicts(&program.variable("XDG_CACHE_HOME", suite.dir.path("cache")).run());
    assert_eq!(found.len(), 2);
    assert!(found.iter().all(|(_, passed, _)| *passed), "{found:?}");
}

#[test]
fn errors_of_the_collection_are_failures_with_the_text_of_pytest() {
    let Some(suite) = Suite::new(&[("test_a.py", PASSES), ("test_b.py", "import no_such_module\n")]) else {
        return;
    };
    suite.check(&[("py:test_a.py", true), ("py:. (collection)", false)]);
    // A hook that fails ends pytest after it has collected all files.
    suite.dir.write("p/conftest.py", "def pytest_collection_modifyitems():\n    raise ValueError\n");
    suite.check(&[("py:.", false)]);
    suite.dir.write("p/conftest.py", "import no_such_helper\n");
    suite.check(&[("py:.", false)]);
    let program = Program::new(["test"]).within(&suite.dir.path("p"));
    let finished = program.variable("XDG_CACHE_HOME", suite.dir.path("cache")).run().with_code(1);
    assert!(finished.stdout.contains("no_such_helper"), "{}", finished.stdout);
}

#[test]
fn a_collection_runs_again_only_if_a_file_that_it_read_has_changed() {
    // Each collection finds another selection of sixteen files.
    let collector = "import os, pytest\n\
        def pytest_collect_file(parent, file_path):\n\
        \x20   is_wanted = not parent.config.option.collectonly or os.urandom(1)[0] % 2\n\
        \x20   if file_path.suffix == '.yaml' and is_wanted:\n\
        \x20       return YamlFile.from_parent(parent, path=file_path)\n\
        class YamlFile(pytest.File):\n\
        \x20   def collect(self):\n\
        \x20       yield YamlItem.from_parent(self, name='one')\n\
        class YamlItem(pytest.Item):\n\
        \x20   def runtest(self):\n\
        \x20       pass\n";
    let files: Vec<String> = (0..16).map(|number| format!("tests/f{number}.yaml")).collect();
    let settings = "[pytest]\ntestpaths = tests\n";
    let more = [("pytest.ini", settings), ("tests/conftest.py", collector), ("docs/page.md", "one")];
    let all: Vec<(&str, &str)> = files.iter().map(|file| (file.as_str(), "")).chain(more).collect();
    let Some(suite) = Suite::new(&all) else { return };
    let names = || suite.run().into_iter().map(|(name, ..)| name).collect::<Vec<_>>();
    // Files with racy timestamps are cached by a later run.
    crate::program::until("the collection is cached", || names() == names());
    let before = names();
    suite.dir.write("p/docs/page.md", "two");
    assert_eq!(names(), before);
    suite.dir.write("p/tests/conftest.py", format!("{collector}\n# changed\n"));
    assert_ne!(names(), before);
}

#[test]
fn arguments_of_the_user_and_of_a_variable_go_to_pytest() {
    let both = format!("{PASSES}{FAILS}");
    let Some(suite) = Suite::new(&[("test_a.py", both.as_str()), ("test_b.py", FAILS)]) else { return };
    let run = |arguments: &[&str], addopts: &str| {
        let all: Vec<&str> = ["--format", "json"].into_iter().chain(arguments.iter().copied()).collect();
        verdicts(&suite.greenwave(&all).variable("PYTEST_ADDOPTS", addopts).run())
    };
    let passed = [("py:test_a.py".to_owned(), true, false)];
    assert_eq!(run(&["--", "-k", "passes"], ""), passed);
    assert_eq!(run(&[], "-k passes --verbose"), passed);
    assert_eq!(run(&[], "").iter().filter(|(_, passed, _)| !passed).count(), 2);
    let single = [("py:test_a.py::test_passes".to_owned(), true, false)];
    assert_eq!(run(&["--per-test", "--", "-k", "passes"], "-v"), single);
    assert_eq!(run(&["--per-test"], "-k passes -qq"), single);
    // Arguments that name what to run belong to one process.
    assert_eq!(run(&["--", "test_b.py"], ""), [("py:.".to_owned(), false, false)]);
}

#[test]
fn a_failure_that_names_a_withheld_variable_ends_with_a_hint() {
    let test = "import os\ndef test_database():\n    assert os.environ['DATABASE_URL']\n";
    let Some(suite) = Suite::new(&[("test_a.py", test)]) else { return };
    let run = || {
        let program = Program::new(["test"]).within(&suite.dir.path("p")).variable("DATABASE_URL", "x");
        program.variable("XDG_CACHE_HOME", suite.dir.path("cache")).run()
    };
    let finished = run().with_code(1);
    assert!(finished.stdout.contains("env = [\"DATABASE_URL\"]"), "{}", finished.stdout);
    let declared = "[[test]]\nname = \"t\"\ncommand = \".venv/bin/python -m pytest test_a.py\"\nenv = [\"DATABASE_*\"]\n";
    suite.dir.write("p/greenwave.toml", declared);
    run().with_code(0);
}

#[test]
fn the_interpreter_is_named_where_that_helps() {
    let Some(python) = python() else { return };
    let dir = TestDir::empty().with("p/test_a.py", PASSES).with("environment/bin/.keep", "");
    std::os::unix::fs::symlink(real_path(&python), dir.path("environment/bin/python")).unwrap();
    let run = |args: &[&str], code: i32| {
        let program = Program::new(["test"].iter().chain(args)).within(&dir.path("p"));
        let program = program.variable("XDG_CACHE_HOME", dir.path("cache"));
        let finished = program.variable("VIRTUAL_ENV", dir.path("environment")).run().with_code(code);
        finished.stderr.contains("the active virtual environment")
    };
    assert!(!run(&["no-such-test"], 2), "a note precedes an error that it does not explain");
    assert!(run(&[], 0), "the first run does not name the interpreter");
    assert!(!run(&[], 0), "a later run names the interpreter again");
    assert!(run(&["--verbose"], 0), "`--verbose` does not name the interpreter");
}

#[test]
fn a_process_that_exits_before_its_session_ends_fails() {
    let exits = "import os\ndef test_a():\n    os._exit(0)\ndef test_b():\n    assert False\n";
    let files = [("test_a.py", exits), ("test_b.py", PASSES), ("test_c.py", PASSES)];
    for files in [&files[..1], &files] {
        let Some(suite) = Suite::new(files) else { return };
        let finished = suite.greenwave(&["--format", "json"]).run().with_code(1);
        let found = verdicts(&finished);
        let expected: Vec<_> =
            files.iter().map(|(name, _)| (format!("py:{name}"), *name != "test_a.py", false)).collect();
        assert_eq!(found, expected);
        let failed = finished.report().into_iter().find(|line| line["name"] == "py:test_a.py").unwrap();
        assert_eq!(failed["problem"], "exited with code 0 before its tests had ended");
    }
}
