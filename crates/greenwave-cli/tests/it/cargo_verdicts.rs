//! Cargo packages whose tests need what only cargo arranges: each has the verdicts of `cargo test`.

use std::collections::BTreeMap;

use crate::harnesses::{by_cargo, program};
use crate::program::{COMPILING_BOUND, Finished, Program, until};
use crate::test_command::verdicts;
use crate::test_dir::TestDir;

fn package(name: &str, more: &str) -> String {
    format!(
        "[package]\nname = \"{name}\"\nversion = \"0.1.2\"\nedition = \"2021\"\nauthors = [\"A\", \"B\"]\n{more}"
    )
}

fn run(dir: &TestDir, project: &str) -> Finished {
    let program = Program::new(["test", "--format", "json"]).within(&dir.path(project));
    program.variable("XDG_CACHE_HOME", dir.path("cache")).bound(COMPILING_BOUND).run()
}

/// Returns whether each single test that ran passed.
fn cases(finished: &Finished) -> BTreeMap<String, bool> {
    let tests = finished.report().into_iter().filter(|line| line["event"] == "test");
    let cases = tests.flat_map(|test| test["cases"].as_array().cloned().unwrap_or_default());
    let cases = cases.filter(|case| case["status"] != "skipped");
    cases.map(|case| (case["name"].as_str().unwrap().to_owned(), case["status"] == "passed")).collect()
}

/// Returns the names of the single tests that the program skipped.
fn skipped(finished: &Finished) -> Vec<String> {
    let tests = finished.report().into_iter().filter(|line| line["event"] == "test");
    let cases = tests.flat_map(|test| test["cases"].as_array().cloned().unwrap_or_default());
    let skipped = cases.filter(|case| case["status"] == "skipped");
    skipped.map(|case| case["name"].as_str().unwrap().to_owned()).collect()
}

fn units(finished: &Finished) -> Vec<(String, bool)> {
    verdicts(finished).into_iter().map(|(name, passed, _)| (name, passed)).collect()
}

fn unit(name: &str, passed: bool) -> (String, bool) {
    (name.to_owned(), passed)
}

const RUN_TIME: &str = r#"
fn var(name: &str) -> String { std::env::var(name).unwrap_or_else(|_| panic!("{name} is not set")) }
#[test] fn names() {
    for name in ["CARGO", "CARGO_MANIFEST_DIR", "CARGO_MANIFEST_PATH", "CARGO_PKG_DESCRIPTION", "CARGO_PKG_README"] {
        var(name);
    }
    assert_eq!((var("CARGO_PKG_VERSION_PATCH"), var("CARGO_PKG_AUTHORS")), ("2".to_owned(), "A:B".to_owned()));
    assert!(std::path::Path::new(&var("CARGO")).is_file());
}
#[test] fn configured() {
    assert_eq!((var("APP_MODE"), var("BY_RUNNER")), ("test".to_owned(), "x".to_owned()));
    assert!(std::path::Path::new(&var("APP_FILE")).is_file());
}
#[test] fn of_build_script() {
    assert_eq!(var("BY_SCRIPT"), "y");
    let out = var("OUT_DIR");
    assert!(var("LD_LIBRARY_PATH").split(':').any(|path| path == format!("{out}/lib")));
}
/// ```
/// assert_eq!((env!("BY_SCRIPT"), std::env::var("APP_MODE").unwrap().as_str()), ("y", "test"));
/// assert!(cfg!(feature = "on") && std::env::var("CARGO_PKG_VERSION_MAJOR").is_ok());
/// ```
pub fn documented() {}
"#;

const SCRIPT: &str = r#"
fn main() {
    println!("cargo:rustc-env=BY_SCRIPT=y");
    println!("cargo:rustc-link-search=native={}/lib", std::env::var("OUT_DIR").unwrap());
}
"#;

#[test]
fn programs_see_the_variables_that_cargo_sets() {
    use std::os::unix::fs::PermissionsExt;
    let config = "[env]\nAPP_MODE = \"test\"\nCARGO = \"no\"\nAPP_FILE = { value = \"Cargo.toml\", relative = true }\n\
                  [target.'cfg(unix)']\nrunner = \"./wrap\"\n[build]\ntarget-dir = \"made\"\n";
    let dir = TestDir::empty()
        .with("p/Cargo.toml", package("p", "[features]\ndefault = [\"on\"]\non = []\n"))
        .with("p/.gitignore", "made\n")
        .with("p/.cargo/config.toml", config)
        .with("p/wrap", "#!/bin/sh\nBY_RUNNER=x exec \"$@\"\n")
        .with("p/build.rs", SCRIPT)
        .with("p/src/lib.rs", RUN_TIME);
    std::fs::set_permissions(dir.path("p/wrap"), std::fs::Permissions::from_mode(0o755)).unwrap();
    let finished = run(&dir, "p").with_code(0);
    let cases = cases(&finished);
    assert_eq!((cases.len(), cases), (4, by_cargo(&dir, "p")));
    assert!(!dir.path("p/target").exists());
}

#[test]
fn targets_are_run_as_their_manifest_says() {
    let targets = "[features]\nextra = []\n\
        [[test]]\nname = \"gated\"\nrequired-features = [\"extra\"]\n\
        [[test]]\nname = \"plain\"\nharness = false\n\
        [[example]]\nname = \"e\"\ntest = true\n[[bin]]\nname = \"b\"\ntest = false\n";
    let dir = TestDir::empty()
        .with("p/Cargo.toml", package("p", targets))
        .with("p/.gitignore", "target\n")
        .with(
            "p/src/lib.rs",
            "#[test] fn unit() {}\n#[test] #[ignore] fn ignored() { panic!() }\n\
            #[test] #[should_panic] fn panics() { panic!() }\n",
        )
        .with("p/src/bin/b.rs", "fn main() {}\n#[test] fn no() { panic!() }\n")
        .with("p/examples/e.rs", "fn main() {}\n#[test] fn in_example() {}\n")
        .with("p/tests/gated.rs", "#[test] fn no() { panic!() }\n")
        .with("p/tests/plain.rs", "fn main() { assert_eq!(std::env::args().count(), 1) }\n");
    let finished = run(&dir, "p").with_code(0);
    let expected = [("p", true), ("p (doc)", true), ("p::example/e", true), ("p::plain", true)];
    assert_eq!(units(&finished), expected.map(|(name, passed)| unit(name, passed)));
    let mut by_cargo = by_cargo(&dir, "p");
    // Cargo prints `ignored` for it, and no verdict.
    by_cargo.remove("ignored");
    let by_cargo = by_cargo.into_iter().map(|(name, passed)| (name.replace(" - should panic", ""), passed));
    assert_eq!(cases(&finished), by_cargo.collect());
    assert!(skipped(&finished).contains(&"ignored".to_owned()), "{}", finished.describe());
}

#[test]
fn an_example_that_does_not_compile_fails_its_package() {
    let dir = TestDir::empty()
        .with("p/Cargo.toml", "[workspace]\nmembers = [\"a\", \"b\"]\nresolver = \"2\"\n")
        .with("p/.gitignore", "target\n")
        .with("p/a/Cargo.toml", package("a", "[lib]\ndoctest = false\n"))
        .with("p/a/src/lib.rs", "#[test] fn t() {}\n")
        .with("p/b/Cargo.toml", package("b", "[lib]\ndoctest = false\n"))
        .with("p/b/src/lib.rs", "#[test] fn t() {}\n");
    run(&dir, "p").with_code(0);
    until("all is cached", || verdicts(&run(&dir, "p")).iter().all(|(_, passed, cached)| *passed && *cached));
    dir.write("p/a/examples/e.rs", "fn main() { nothing() }\n");
    let finished = run(&dir, "p").with_code(1);
    assert_eq!(units(&finished), [unit("a", false), unit("b", true)]);
    assert!(finished.stdout.contains("cannot find function `nothing`"), "{}", finished.describe());
    dir.write("p/a/examples/e.rs", "fn main() {}\n");
    run(&dir, "p").with_code(0);
}

#[test]
fn documentation_runs_although_a_dependency_has_the_same_name() {
    let dir = TestDir::empty()
        .with(
            "p/Cargo.toml",
            package("p", "[dev-dependencies]\nold = { package = \"p\", path = \"../old\" }\n"),
        )
        .with("p/.gitignore", "target\n")
        .with("p/src/lib.rs", "/// ```\n/// assert!(true);\n/// ```\npub fn f() {}\n")
        .with("old/Cargo.toml", package("p", "").replace("0.1.2", "0.0.1"))
        .with("old/src/lib.rs", "");
    let finished = run(&dir, "p").with_code(0);
    assert_eq!(units(&finished), [unit("p", true), unit("p (doc)", true)]);
    assert_eq!(cases(&finished), by_cargo(&dir, "p"));
}

#[test]
fn declared_variables_reach_the_build() {
    let test = |name: &str, env: &str| {
        format!(
            "[[test]]\nname = \"{name}\"\ncommand = [\"cargo\", \"test\", \"--package\", \"p\", \"--test\", \"{name}\"]\n{env}"
        )
    };
    let dir = TestDir::empty()
        .with("p/Cargo.toml", package("p", ""))
        .with("p/.gitignore", "target\n")
        .with("p/src/lib.rs", "")
        .with("p/tests/one.rs", "#[test] fn t() { assert_eq!(option_env!(\"APP_BUILD\"), Some(\"x\")) }\n")
        .with("p/tests/two.rs", "#[test] fn t() { assert_eq!(option_env!(\"APP_BUILD\"), Some(\"x\")) }\n")
        .with("p/greenwave.toml", test("one", "env = [\"APP_*\"]\n") + &test("two", ""));
    let with = |value: &str| {
        let program = Program::new(["test", "--format", "json"]).within(&dir.path("p"));
        let program = program.variable("APP_BUILD", value).variable("XDG_CACHE_HOME", dir.path("cache"));
        units(&program.bound(COMPILING_BOUND).run())
    };
    assert_eq!(with("x"), [unit("one", true), unit("two", true)]);
    // Also for the test that does not declare it, since both are built together.
    assert_eq!(with("y"), [unit("one", false), unit("two", false)]);
    assert_eq!(with("x"), [unit("one", true), unit("two", true)]);
}

#[test]
fn arguments_go_to_the_test_programs() {
    let source = "/// ```\n/// assert!(true);\n/// ```\npub fn f() {}\n\
        #[test] fn good() {}\n#[test] fn bad() { panic!() }\n#[test] #[ignore] fn slow() {}\n";
    let dir = TestDir::empty().with("p/Cargo.toml", package("p", "")).with("p/src/lib.rs", source);
    let run = |arguments: &[&str]| {
        let program = Program::new(["test", "--format", "json", "--"].iter().chain(arguments));
        let program = program.within(&dir.path("p")).bound(COMPILING_BOUND);
        program.variable("XDG_CACHE_HOME", dir.path("cache")).run()
    };
    let passed = |name: &str| (name.to_owned(), true);
    let doc = |finished: &Finished| {
        cases(finished).into_iter().filter(|(name, _)| !name.contains("(line")).collect()
    };
    let selected: BTreeMap<String, bool> = doc(&run(&["--skip", "bad"]).with_code(0));
    assert_eq!(selected, BTreeMap::from([passed("good")]));
    let ignored: BTreeMap<String, bool> = doc(&run(&["--include-ignored", "--exact", "slow"]).with_code(0));
    assert_eq!(ignored, BTreeMap::from([passed("slow")]));
    let failed: BTreeMap<String, bool> = doc(&run(&["bad"]).with_code(1));
    assert_eq!(failed, BTreeMap::from([("bad".to_owned(), false)]));
    until("the results are cached", || {
        verdicts(&run(&["--skip", "bad"])).iter().all(|(_, passed, cached)| *passed && *cached)
    });
}

#[test]
fn arguments_are_for_one_runner() {
    let dir = TestDir::empty()
        .with("p/Cargo.toml", package("p", ""))
        .with("p/src/lib.rs", "#[test] fn good() {}\n#[test] fn bad() { panic!() }\n")
        .with("p/package.json", r#"{"name": "q", "scripts": {"test": "echo got"}}"#);
    let run = |arguments: &[&str]| {
        let program = Program::new(arguments).within(&dir.path("p")).bound(COMPILING_BOUND);
        program.variable("XDG_CACHE_HOME", dir.path("cache")).run()
    };
    let finished = run(&["test", "--", "good"]).with_code(2);
    assert!(
        finished.stderr.contains("cannot pass the arguments after `--` to several runners: `cargo`, `npm`"),
        "{}",
        finished.stderr
    );
    assert!(finished.stderr.contains("hint: select the tests of one runner"), "{}", finished.stderr);
    if program(&[&["npm", "--version"]]).is_some() {
        let finished = run(&["test", "npm", "--output", "all", "--", "good"]).with_code(0);
        assert!(finished.stdout.contains("got good"), "{}", finished.stdout);
    }
}

#[test]
fn a_workspace_that_cargo_cannot_read_fails_and_other_tests_run() {
    let dir = TestDir::empty()
        .with("p/Cargo.toml", "[workspace]\nmembers = [\"a\", \"b\"]\nresolver = \"2\"\n")
        .with("p/a/Cargo.toml", package("a", ""))
        .with("p/a/src/lib.rs", "#[test] fn t() {}\n")
        .with("p/b/Cargo.toml", "broken = [\n")
        .with("p/package.json", r#"{"name":"n","scripts":{"test":"true"}}"#);
    let Some(_) = program(&[&["npm", "--version"]]) else { return };
    let finished = run(&dir, "p").with_code(1);
    assert_eq!(units(&finished), [unit("cargo:.", false), unit("npm:n test", true)]);
    let notes = finished.describe();
    assert!(notes.contains("Cargo.toml is skipped: `cargo metadata` failed"), "{notes}");
    dir.write("p/b/Cargo.toml", package("b", ""));
    dir.write("p/b/src/lib.rs", "");
    let mended = run(&dir, "p").with_code(0);
    assert!(units(&mended).contains(&unit("a", true)), "{}", mended.describe());
}

#[test]
fn a_program_that_exits_before_its_summary_fails() {
    let exits = "#[test] fn a_exits() { std::process::exit(0) }\n#[test] fn b() {}\n";
    let own = "fn main() { println!(\"not by the harness\") }\n";
    let dir = TestDir::empty()
        .with("p/Cargo.toml", package("p", "[[test]]\nname = \"own\"\nharness = false\n"))
        .with("p/src/lib.rs", exits)
        .with("p/tests/own.rs", own)
        .with("p/tests/empty.rs", "");
    let finished = run(&dir, "p").with_code(1);
    let expected = [unit("p", false), unit("p (doc)", true), unit("p::empty", true), unit("p::own", true)];
    assert_eq!(units(&finished), expected);
    let failed = finished.report().into_iter().find(|line| line["name"] == "p").unwrap();
    assert_eq!(failed["problem"], "exited with code 0 before its tests had ended");
    let output = failed["output"].as_str().unwrap();
    assert!(output.contains("test a_exits ... FAILED"), "{output}");
    assert!(output.contains("test b ... ok"), "{output}");
    dir.write("p/src/lib.rs", exits.replace("std::process::exit(0)", ""));
    assert!(units(&run(&dir, "p").with_code(0)).contains(&unit("p", true)));
}
