//! `greenwave test` on projects of each harness, compared with the harness itself, and with a
//! shared server.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Command, Stdio};

use greenwave_testkit::server::Server;
use greenwave_testkit::service::skip;
use serde_json::Value;

use crate::program::{COMPILING_BOUND, Program, until};
use crate::test_command::verdicts;
use crate::test_dir::TestDir;

/// Runs the tests of a project. Returns whether each single test passed, the number of cached
/// units, and the number of units.
fn cases(dir: &TestDir, project: &str) -> (BTreeMap<String, bool>, usize, usize) {
    let program =
        Program::new(["test", "--format", "json"]).within(&dir.path(project)).bound(COMPILING_BOUND);
    let finished = program.variable("XDG_CACHE_HOME", dir.path("cache")).run();
    let (mut cases, mut cached, mut units) = (BTreeMap::new(), 0, 0);
    for line in finished.stdout.lines() {
        let line: Value = serde_json::from_str(line).unwrap();
        if line["event"] != "test" {
            continue;
        }
        units += 1;
        cached += usize::from(line["cached"] == true);
        for case in line["cases"].as_array().into_iter().flatten() {
            let name = format!("{} {}", line["name"].as_str().unwrap(), case["name"].as_str().unwrap());
            cases.insert(name, case["status"] == "passed");
        }
    }
    assert!(units > 0, "{}{}", finished.stdout, finished.stderr);
    (cases, cached, units)
}

/// Returns whether each test passes under `cargo test`.
pub(crate) fn by_cargo(dir: &TestDir, project: &str) -> BTreeMap<String, bool> {
    let mut cargo = Command::new("cargo");
    cargo.args(["test", "--no-fail-fast"]).current_dir(dir.path(project));
    let finished = Program::of(cargo).bound(COMPILING_BOUND).run();
    let text = finished.stdout;
    let verdict = |line: &str| {
        let (name, verdict) = line.strip_prefix("test ")?.rsplit_once(" ... ")?;
        Some((name.to_owned(), verdict == "ok"))
    };
    text.lines().filter_map(verdict).collect()
}

/// Creates a cargo workspace of two packages with unit tests, integration tests and a doctest.
pub(crate) fn workspace() -> TestDir {
    let package = |name: &str, more: &str| {
        format!("[package]\nname = \"{name}\"\nversion = \"0.1.0\"\nedition = \"2024\"\n{more}")
    };
    TestDir::empty()
        .with("p/Cargo.toml", "[workspace]\nmembers = [\"a\", \"b\"]\nresolver = \"3\"\n")
        .with("p/.gitignore", "target\n")
        .with("p/a/Cargo.toml", package("a", ""))
        .with(
            "p/a/src/lib.rs",
            "/// ```\n/// assert_eq!(a::one(), 1);\n/// ```\npub fn one() -> i32 { 1 }\n\
             #[test] fn unit() { assert_eq!(one(), 1) }\n\
             #[test] fn outside() { assert_eq!(include_str!(\"../../data.txt\"), \"1\\n\") }\n",
        )
        .with("p/data.txt", "1\n")
        .with("p/b/Cargo.toml", package("b", "[dependencies]\na = { path = \"../a\" }\n"))
        .with("p/b/src/main.rs", "fn main() { println!(\"{}\", a::one()) }\n")
        .with(
            "p/b/tests/runs.rs",
            "#[test] fn prints() {\n\
             let out = std::process::Command::new(env!(\"CARGO_BIN_EXE_b\")).output().unwrap();\n\
             assert_eq!(out.stdout, b\"1\\n\") }\n\
             #[test] fn reads() { assert_eq!(std::fs::read_to_string(\"fixture.txt\").unwrap(), \"x\") }\n",
        )
        .with("p/b/fixture.txt", "x")
}

#[test]
fn a_cargo_workspace_has_the_results_of_cargo_test() {
    let dir = workspace();
    let check = |cached_expected: usize| {
        let (cases, cached, units) = cases(&dir, "p");
        let mut ours: BTreeMap<String, bool> = BTreeMap::new();
        for (name, passed) in &cases {
            ours.insert(
                name.split_once(' ')
                    .map_or(name.as_str(), |(_, case)| case)
                    .trim_start_matches("(doc) ")
                    .to_owned(),
                *passed,
            );
        }
        assert_eq!(ours, by_cargo(&dir, "p"));
        assert_eq!((cached, units), (cached_expected, 4));
    };
    check(0);
    check(4);
    // A file of `b` affects the program of `b` that reads it, and no other test.
    dir.write("p/b/fixture.txt", "y");
    check(3);
    dir.write("p/b/fixture.txt", "x");
    check(4);
    // An undeclared file outside the packages that is compiled into the tests of `a`.
    dir.write("p/data.txt", "2\n");
    let (failing, cached, _) = cases(&dir, "p");
    assert_eq!((failing["a outside"], cached), (false, 3));
    dir.write("p/data.txt", "1\n");
    // Documentation tests depend on the library.
    dir.write("p/a/src/lib.rs", dir.read("p/a/src/lib.rs").replace("-> i32 { 1 }", "-> i32 { 2 }"));
    let (failing, ..) = cases(&dir, "p");
    assert!(failing.iter().any(|(name, passed)| name.contains("(doc)") && !passed), "{failing:?}");
}

#[test]
fn a_source_with_an_unchanged_timestamp_is_recompiled() {
    let dir = workspace();
    let (first, ..) = cases(&dir, "p");
    assert!(first.values().all(|passed| *passed), "{first:?}");
    let path = dir.path("p/data.txt");
    let modified = std::fs::metadata(&path).unwrap().modified().unwrap();
    dir.write("p/data.txt", "2\n");
    std::fs::File::options().write(true).open(&path).unwrap().set_modified(modified).unwrap();
    let (second, ..) = cases(&dir, "p");
    assert!(!second["a outside"], "cargo compares timestamps and would run the old program: {second:?}");
}

#[test]
fn tests_that_cannot_be_compiled_fail_with_the_messages_of_the_build() {
    let dir = workspace();
    dir.write("p/b/tests/runs.rs", "#[test] fn prints() { undefined() }\n");
    let run = || {
        let program = Program::new(["test", "--format", "json", "--keep-failures"]).within(&dir.path("p"));
        program.variable("XDG_CACHE_HOME", dir.path("cache")).bound(COMPILING_BOUND).run().with_code(1)
    };
    // A failed build is not cached: its dependencies were not traced.
    for _ in 0..2 {
        let events = run().report();
        let event = |name: &str| events.iter().find(|event| event["name"] == name).unwrap();
        let broken = event("b::runs");
        assert_eq!((&broken["exit_code"], &broken["cached"]), (&101.into(), &false.into()), "{broken}");
        let output = broken["output"].as_str().unwrap();
        assert!(output.contains("undefined"), "{output}");
        assert!(output.contains("could not compile `b` (test \"runs\")"), "{output}");
        assert!(!output.contains("Compiling"), "cargo ran again: {output}");
        assert_eq!(event("a")["status"], "passed");
    }
    dir.write("p/b/tests/runs.rs", "#[test] fn prints() {}\n");
    let program = Program::new(["test"]).within(&dir.path("p")).variable("XDG_CACHE_HOME", dir.path("cache"));
    program.bound(COMPILING_BOUND).run().with_code(0);
}

/// Returns the first of these programs that runs. Without one, prints that the test is skipped, or
/// fails if services are required.
pub(crate) fn program(candidates: &[&[&str]]) -> Option<String> {
    let answers = |words: &&&[&str]| {
        let mut command = Command::new(words[0]);
        command.args(&words[1..]).stdin(Stdio::null()).output().is_ok_and(|output| output.status.success())
    };
    let found = candidates.iter().find(answers).map(|words| words[0].to_owned());
    if found.is_none() {
        skip(&format!("none of {candidates:?} is installed"));
    }
    found
}

/// Returns a Python that has pytest.
pub(crate) fn python() -> Option<String> {
    let pytest = ["-m", "pytest", "--version"];
    let python = |name: &'static str| [name, pytest[0], pytest[1], pytest[2]];
    program(&[&python("python3"), &python("/usr/bin/python3")])
}

/// Makes the project in `p` use this Python instead of the one on the path.
pub(crate) fn use_pytest(dir: &TestDir, python: &str) {
    std::fs::create_dir_all(dir.path("p/.venv/bin")).unwrap();
    std::os::unix::fs::symlink(real_path(python), dir.path("p/.venv/bin/python")).unwrap();
}

/// Returns the path of a Python that is not a script which selects one.
pub(crate) fn real_path(python: &str) -> String {
    let which = Command::new(python).args(["-c", "import sys; print(sys.executable)"]).output().unwrap();
    String::from_utf8(which.stdout).unwrap().trim().to_owned()
}

#[test]
fn pytest_files_share_a_process_and_failures_are_isolated() {
    let Some(python) = python() else { return };
    let dir = TestDir::empty()
        .with("p/pyproject.toml", "[project]\nname = \"x\"\n")
        .with("p/.gitignore", ".venv\n")
        .with("p/pkg/__init__.py", "def f():\n    return 1\n")
        .with("p/tests/test_a.py", "from pkg import f\ndef test_one():\n    assert f() == 1\n")
        .with("p/tests/test_b.py", "def test_two():\n    assert open('data.json').read() == '1'\n")
        .with("p/tests/test_c.py", "def test_three():\n    pass\n")
        .with("p/data.json", "1");
    use_pytest(&dir, &python);
    let run = || {
        let program = Program::new(["test", "--format", "json", "--jobs", "1"]).within(&dir.path("p"));
        let finished = program.variable("XDG_CACHE_HOME", dir.path("cache")).run();
        verdicts(&finished)
    };
    let expected = |b: bool, cached: bool| {
        [("a", true), ("b", b), ("c", true)]
            .map(|(name, passed)| (format!("py:tests/test_{name}.py"), passed, cached && passed))
    };
    assert_eq!(run(), expected(true, false));
    assert_eq!(run(), expected(true, true));
    dir.write("p/data.json", "2");
    assert_eq!(run(), expected(false, false), "one of three fails");
    assert_eq!(run(), expected(false, true));
}

#[test]
fn an_npm_package_runs_its_test_script() {
    let Some(_) = program(&[&["npm", "--version"]]) else { return };
    let dir = TestDir::empty()
        .with("p/package.json", r#"{"name": "web", "scripts": {"test": "node check.js"}}"#)
        .with("p/check.js", "process.exit(require('fs').readFileSync('data.txt', 'utf8') === '1' ? 0 : 1)")
        .with("p/data.txt", "1");
    let run = || {
        let program = Program::new(["test"]).within(&dir.path("p"));
        program.variable("XDG_CACHE_HOME", dir.path("cache")).run()
    };
    assert!(run().with_code(0).stdout.contains("1 test: 1 passed in "));
    assert!(run().with_code(0).stdout.contains("1 passed, all cached"));
    dir.write("p/data.txt", "2");
    run().with_code(1);
}

#[test]
fn each_go_package_is_a_unit() {
    let Some(_) = program(&[&["go", "version"]]) else { return };
    let package = |name: &str, check: &str| {
        format!(
            "package {name}\n\nimport (\n\t\"os\"\n\t\"testing\"\n)\n\nfunc TestIt(t *testing.T) {{\n\tb, _ := os.ReadFile(\"{check}\")\n\tif string(b) != \"1\" {{\n\t\tt.Fatal(string(b))\n\t}}\n}}\n"
        )
    };
    let dir = TestDir::empty()
        .with("p/go.mod", "module example.org/x\n\ngo 1.19\n")
        .with("p/a/a_test.go", package("a", "in.txt"))
        .with("p/a/in.txt", "1")
        .with("p/b/b_test.go", package("b", "../../outside.txt"))
        .with("outside.txt", "1");
    let run = |code: i32| {
        let program =
            Program::new(["test", "--format", "json"]).within(&dir.path("p")).bound(COMPILING_BOUND);
        let finished = program.variable("XDG_CACHE_HOME", dir.path("cache")).run().with_code(code);
        verdicts(&finished)
    };
    let expected = |cached: bool, b: bool| {
        [("go:./a", true, cached), ("go:./b", b, cached && b)]
            .map(|(name, passed, cached)| (name.to_owned(), passed, cached))
    };
    assert_eq!(run(0), expected(false, true));
    // Files with racy timestamps are cached by the second run.
    run(0);
    assert_eq!(run(0), expected(true, true));
    // An undeclared file outside the module.
    dir.write("outside.txt", "2");
    assert_eq!(run(1), expected(true, false));
}

/// A module whose packages depend on each other, and a `go` that records calls of `go list`.
struct GoModule {
    dir: TestDir,
    path: std::ffi::OsString,
}

impl GoModule {
    fn new(go: &Path) -> Self {
        let test = |package: &str, imports: &str, check: &str| {
            format!(
                "package {package}\n\nimport (\n\t\"testing\"\n{imports})\n\nfunc TestIt(t *testing.T) {{\n\tif {check} {{\n\t\tt.Fail()\n\t}}\n}}\n"
            )
        };
        let import = |name: &str| format!("\t\"example.org/x/{name}\"\n");
        let dir = TestDir::empty()
            .with("bin/go", format!("#!/bin/sh\n[ \"$1\" = list ] && echo >> ../calls\nexec {} \"$@\"\n", go.display()))
            .with("calls", "")
            .with("p/go.mod", "module example.org/x\n\ngo 1.19\n")
            .with("p/x.go", "package x\n\nfunc X() int { return 1 }\n")
            .with("p/x_test.go", test("x", "", "X() != 1"))
            .with("p/a/a.go", "package a\n\nfunc A() int { return 1 }\n")
            .with("p/a/a_test.go", test("a", "", "A() != 1"))
            .with("p/b/b.go", format!("package b\n\nimport (\n{})\n\nfunc B() int {{ return a.A() }}\n", import("a")))
            .with("p/b/b_test.go", test("b_test", &(import("b") + &import("c")), "b.B() == 0 || c.C() == 0"))
            .with("p/c/c.go", "package c\n\nimport _ \"embed\"\n\n//go:embed static/x.txt\nvar text string\n\nfunc C() int { return len(text) }\n")
            .with("p/c/c_test.go", test("c", "", "C() == 0"))
            .with("p/c/static/x.txt", "x")
            .with("p/c/deep/deep.go", "package deep\n")
            .with("p/c/deep/deep_test.go", test("deep", "", "false"));
        std::fs::set_permissions(dir.path("bin/go"), std::os::unix::fs::PermissionsExt::from_mode(0o755))
            .unwrap();
        let paths = std::env::var_os("PATH").unwrap();
        let path =
            std::env::join_paths([dir.path("bin")].into_iter().chain(std::env::split_paths(&paths))).unwrap();
        Self { dir, path }
    }

    fn run(&self, args: &[&str]) -> crate::program::Finished {
        let program =
            Program::new(["test", "--format", "json"].iter().chain(args)).within(&self.dir.path("p"));
        program
            .variable("XDG_CACHE_HOME", self.dir.path("cache"))
            .variable("PATH", &self.path)
            .bound(COMPILING_BOUND)
            .run()
    }

    /// Runs the tests. Returns the packages whose tests ran.
    fn ran(&self) -> Vec<String> {
        let ran = verdicts(&self.run(&[]).with_code(0)).into_iter().filter(|(_, _, cached)| !cached);
        ran.map(|(name, ..)| name.trim_start_matches("go:").to_owned()).collect()
    }

    /// Runs until all results are cached.
    fn settle(&self) {
        until("all is cached", || self.ran().is_empty());
    }
}

#[test]
fn a_change_of_a_go_package_runs_its_dependants() {
    let Some(_) = program(&[&["go", "version"]]) else { return };
    let paths = std::env::var_os("PATH").unwrap();
    let go = std::env::split_paths(&paths).map(|it| it.join("go")).find(|it| it.is_file()).unwrap();
    let module = GoModule::new(&go);
    let dir = &module.dir;
    assert_eq!(module.ran(), [".", "./a", "./b", "./c", "./c/deep"]);
    let check = |path: &str, text: &str, expected: &[&str]| {
        module.settle();
        dir.write(path, text);
        assert_eq!(module.ran(), expected, "{path}");
    };
    check("p/a/a.go", "package a\n\nfunc A() int { return 2 - 1 }\n", &["./a", "./b"]);
    check("p/x.go", "package x\n\nfunc X() int { return 3 - 2 }\n", &["."]);
    check("p/c/deep/deep.go", "package deep\n\nvar Deep int\n", &["./c/deep"]);
    // A file embedded in a package that only the tests of `b` import.
    check("p/c/static/x.txt", "xx", &["./b", "./c"]);
    // A new import makes the imported package a dependency.
    let more = "package a\n\nimport \"example.org/x\"\n\nfunc A() int { return x.X() }\n";
    check("p/a/a.go", more, &["./a", "./b"]);
    check("p/x.go", "package x\n\nfunc X() int { return 4 - 3 }\n", &[".", "./a", "./b"]);
    check("p/c/testdata/new.txt", "", &["./b", "./c"]);
    check("p/go.mod", "module example.org/x\n\ngo 1.18\n", &[".", "./a", "./b", "./c", "./c/deep"]);
    // A package that cannot be built depends on the whole module: any change may fix it.
    module.settle();
    dir.write("p/a/a.go", "package a\n\nimport \"example.org/x/none\"\n\nfunc A() int { return none.N() }\n");
    let failed = verdicts(&module.run(&[]).with_code(1));
    let failed: Vec<&str> =
        failed.iter().filter(|(_, passed, _)| !passed).map(|(name, ..)| name.as_str()).collect();
    assert_eq!(failed, ["go:./a", "go:./b"]);
    dir.write("p/none/none.go", "package none\n\nfunc N() int { return 1 }\n");
    // `go` lists the directory of the package that it tests. The new package has no tests, and is
    // compiled.
    assert_eq!(module.ran(), [".", ". (packages without tests)", "./a", "./b"]);
    // The package list is cached: `go list` is not called.
    module.settle();
    let calls = || dir.read("calls").len();
    until("the package list is cached", || {
        let before = calls();
        module.run(&[]).with_code(0);
        calls() == before
    });
}

#[test]
fn a_server_shares_results_and_may_fail() {
    let config = "[[test]]\nname = \"t\"\ncommand = \"cat in.txt\"\ninputs = [\"/in.txt\"]\n";
    let dir = TestDir::empty().with("p/greenwave.toml", config).with("p/in.txt", "1");
    let Some(redis) = Server::redis() else { return };
    let address = redis.redis_url();
    let run = |cache: &str| {
        let program = Program::new(["test", "--remote", &address]).within(&dir.path("p"));
        program.variable("XDG_CACHE_HOME", dir.path(cache)).run().with_code(0).stdout
    };
    assert!(run("first").contains("1 test: 1 passed in "));
    assert!(run("second").contains("all cached"), "from the server");
    let warm = Program::new(["cache", "warm", "--remote", &address]).within(&dir.path("p"));
    let warm = warm.variable("XDG_CACHE_HOME", dir.path("third")).run().with_code(0);
    assert_eq!(warm.stdout, "1 of 1 result cached locally\n");
    drop(redis);
    assert!(run("third").contains("all cached"), "fetched by `cache warm`");
    assert!(run("second").contains("all cached"), "stored locally when it came from the server");
    assert!(run("new").contains("1 test: 1 passed in "), "without the server the test runs");
}
