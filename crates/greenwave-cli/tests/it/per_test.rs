//! Single tests of cargo programs: as units with `--per-test`, and run one by one after a program
//! crashed.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::harnesses::{by_cargo, program, workspace};
use crate::program::{COMPILING_BOUND, Finished, Program};
use crate::test_command::verdicts;
use crate::test_dir::TestDir;

/// Calls `greenwave test` in the project with this `PATH`.
fn greenwave<'a>(dir: &TestDir, path: &str, args: impl IntoIterator<Item = &'a str>) -> Program {
    let args = ["test", "--format", "json"].into_iter().chain(args);
    let program = Program::new(args).within(&dir.path("p")).bound(COMPILING_BOUND);
    program.variable("XDG_CACHE_HOME", dir.path("cache")).variable("PATH", path)
}

fn usual_path() -> String {
    std::env::var("PATH").unwrap()
}

/// Returns a `PATH` with cargo and without cargo-nextest.
fn path_without_nextest(dir: &TestDir) -> String {
    let path = usual_path();
    let dirs: Vec<&str> = path.split(':').collect();
    let programs = dir.path("programs");
    std::fs::create_dir_all(&programs).unwrap();
    for name in ["cargo", "rustc", "rustdoc"] {
        let found = dirs.iter().map(|dir| Path::new(dir).join(name)).find(|path| path.is_file());
        std::os::unix::fs::symlink(found.unwrap(), programs.join(name)).unwrap();
    }
    let others = dirs.into_iter().filter(|dir| !Path::new(dir).join("cargo-nextest").exists());
    others.fold(programs.display().to_string(), |path, dir| format!("{path}:{dir}"))
}

/// Returns all units except doctests: whether each passed, and whether that was cached.
fn functions(finished: &Finished) -> BTreeMap<String, (bool, bool)> {
    let all = verdicts(finished).into_iter().filter(|(name, ..)| !name.ends_with("(doc)"));
    all.map(|(name, passed, cached)| (name, (passed, cached))).collect()
}

fn check_functions(dir: &TestDir, path: &str) {
    dir.write(
        "p/b/tests/more.rs",
        "#[test] #[ignore] fn later() { panic!() }\n#[test] #[should_panic] fn panics() { panic!() }\n\
         mod inner { #[test] fn reads() { assert_eq!(std::fs::read_to_string(\"fixture.txt\").unwrap(), \"x\") } }\n",
    );
    let run = |args: &[&str]| greenwave(dir, path, ["--per-test"].iter().chain(args).copied()).run();
    let first = run(&[]).with_code(0);
    let names: Vec<String> = functions(&first).into_keys().collect();
    let expected = [
        "a outside",
        "a unit",
        "b::bin/b",
        "b::more inner::reads",
        "b::more panics",
        "b::runs prints",
        "b::runs reads",
    ];
    assert_eq!(names, expected, "{}", first.stderr);
    let by_cargo = by_cargo(dir, "p");
    for (name, (passed, cached)) in functions(&first) {
        assert!(!cached);
        if let Some((_, function)) = name.split_once(' ') {
            let expected =
                by_cargo.iter().find(|(name, _)| name.trim_end_matches(" - should panic") == function);
            assert_eq!(expected.map(|(_, passed)| *passed), Some(passed), "{name}");
        }
    }
    let second = run(&[]).with_code(0);
    assert!(functions(&second).values().all(|verdict| *verdict == (true, true)), "{}", second.stdout);
    // The list of functions is cached, so cargo builds nothing. (Doctests depend on build output.)
    std::fs::remove_dir_all(dir.path("p/target/debug")).unwrap();
    let again = run(&["b::", "unit"]).with_code(0);
    assert_eq!(functions(&again).len(), 6);
    assert!(functions(&again).values().all(|verdict| *verdict == (true, true)), "{}", again.stdout);
    assert!(!dir.path("p/target/debug").exists());

    // A file of `b`. No program changes, so only the functions that read the file run again.
    dir.write("p/b/fixture.txt", "y");
    let third = functions(&run(&[]).with_code(1));
    for (name, verdict) in third {
        let expected = match name.as_str() {
            "b::more inner::reads" | "b::runs reads" => (false, false),
            _ => (true, true),
        };
        assert_eq!(verdict, expected, "{name}");
    }
    dir.write("p/b/fixture.txt", "x");

    // A renamed function.
    let text = dir.read("p/b/tests/more.rs").replace("fn panics", "fn fails");
    dir.write("p/b/tests/more.rs", text);
    let names: Vec<String> = functions(&run(&["more"])).into_keys().collect();
    assert_eq!(names, ["b::more fails", "b::more inner::reads"]);
}

#[test]
fn nextest_lists_the_functions() {
    let Some(_) = program(&[&["cargo-nextest", "--version"]]) else { return };
    let dir = workspace();
    check_functions(&dir, &usual_path());
    // The settings of nextest exclude functions.
    dir.write("p/.config/nextest.toml", "[profile.default]\ndefault-filter = \"not test(fails)\"\n");
    let names: Vec<String> =
        functions(&greenwave(&dir, &usual_path(), ["--per-test", "more"]).run()).into_keys().collect();
    assert_eq!(names, ["b::more inner::reads"]);
}

#[test]
fn programs_list_the_functions_without_nextest() {
    let dir = workspace();
    let path = path_without_nextest(&dir);
    check_functions(&dir, &path);
}

#[test]
fn declared_functions_that_no_longer_exist_fail() {
    let dir = workspace();
    let path = path_without_nextest(&dir);
    greenwave(&dir, &path, ["--per-test"]).run().with_code(0);
    greenwave(&dir, &path, ["--per-test", "--init"]).run().with_code(0);
    let text = dir.read("p/greenwave.toml");
    assert!(text.contains("name = \"a unit\"\n"), "{text}");
    assert!(
        text.contains(r#"command = ["cargo", "test", "--package", "a", "--lib", "--", "--exact", "unit"]"#),
        "{text}"
    );
    let run = |code: i32| functions(&greenwave(&dir, &path, ["a "]).run().with_code(code));
    // The settings file is not an input, so the results are cached.
    assert_eq!(
        run(0),
        [("a outside", (true, true)), ("a unit", (true, true))]
            .map(|(name, it)| (name.to_owned(), it))
            .into()
    );
    let text = dir.read("p/a/src/lib.rs").replace("fn unit", "fn other");
    dir.write("p/a/src/lib.rs", text);
    assert_eq!(run(1)["a unit"], (false, false));
}

#[test]
fn a_program_that_cannot_be_built_stays_one_unit() {
    let dir = workspace();
    dir.write("p/b/tests/runs.rs", "#[test] fn prints() { nonsense }\n");
    let path = path_without_nextest(&dir);
    // The other programs are listed even with `--fail-fast`.
    let stopped = greenwave(&dir, &path, ["--per-test", "--fail-fast", "--jobs", "1"]).run().with_code(1);
    assert_eq!(stopped.stderr.matches("cannot be listed").count(), 1, "{}", stopped.stderr);
    let finished = greenwave(&dir, &path, ["--per-test"]).run().with_code(1);
    assert!(finished.stderr.contains("the single tests of b::runs cannot be listed"), "{}", finished.stderr);
    assert_eq!(functions(&finished)["b::runs"], (false, false));
    let wrote = greenwave(&dir, &path, ["--per-test", "--init"]).run().with_code(0);
    assert!(wrote.stdout.contains("with 5 tests"), "{}", wrote.stdout);
    let text = dir.read("p/greenwave.toml");
    assert!(text.contains("# Note: the single tests of b::runs cannot be listed"), "{text}");
    greenwave(&dir, &path, ["--dry-run"]).run().with_code(0);
}

/// A test program with a custom harness that accepts the arguments of the Rust test harness.
const CUSTOM: &str = r##"fn main() {
    let words: Vec<String> = std::env::args().collect();
    let has = |word: &str| words.iter().any(|it| it == word);
    if has("--list") {
        if !has("--ignored") { println!("say \"hi\" -- --exact: test\n# ü\u{1F7E2} [[test]]: test\nfast: benchmark"); }
        return;
    }
    let name = words.iter().skip_while(|word| *word != "--exact").nth(1);
    let known = name.is_none_or(|name| name == "say \"hi\" -- --exact" || name == "# ü\u{1F7E2} [[test]]");
    println!("test result: ok. {} passed; 0 failed", u32::from(known));
}
"##;

#[test]
fn function_names_may_be_any_text() {
    let package = "[package]\nname = \"x\"\nversion = \"0.1.0\"\nedition = \"2024\"\n";
    let dir = TestDir::empty()
        .with("p/sub/Cargo.toml", format!("{package}[[test]]\nname = \"custom\"\nharness = false\n"))
        .with("p/sub/src/main.rs", "fn main() {}\n")
        .with("p/sub/tests/custom.rs", CUSTOM);
    let path = path_without_nextest(&dir);
    let first = functions(&greenwave(&dir, &path, ["--per-test"]).run().with_code(0));
    let names: Vec<&str> = first.keys().map(String::as_str).collect();
    assert_eq!(names, ["x::bin/x", "x::custom # ü\u{1F7E2} [[test]]", "x::custom say \"hi\" -- --exact"]);
    // Files with racy timestamps are cached by the second run.
    greenwave(&dir, &path, ["--per-test"]).run().with_code(0);
    greenwave(&dir, &path, ["--per-test", "--init"]).run().with_code(0);
    let again = functions(&greenwave(&dir, &path, []).run().with_code(0));
    assert_eq!(again, names.iter().map(|name| ((*name).to_owned(), (true, true))).collect());
}

/// Creates a package with these tests, run as one program with this time limit.
fn package(tests: &str, limit: &str) -> TestDir {
    let test = "[[test]]\nname = \"x\"\ncommand = [\"cargo\", \"test\", \"--package\", \"x\", \"--lib\"]\n";
    TestDir::empty()
        .with("p/Cargo.toml", "[package]\nname = \"x\"\nversion = \"0.1.0\"\nedition = \"2024\"\n")
        .with("p/src/lib.rs", tests)
        .with("p/greenwave.toml", format!("{test}timeout = \"{limit}\"\n"))
}

/// Runs the one unit. Returns its event, and whether each of its single tests passed that ran.
fn one(dir: &TestDir, code: i32) -> (Value, BTreeMap<String, bool>) {
    let finished = greenwave(dir, &usual_path(), []).run().with_code(code);
    let event = finished.report().into_iter().find(|event| event["event"] == "test").unwrap();
    let case = |case: &Value| (case["name"].as_str().unwrap().to_owned(), case["status"] == "passed");
    let ran = |case: &&Value| case["status"] != "skipped";
    let cases = event["cases"].as_array().into_iter().flatten().filter(ran).map(case).collect();
    (event, cases)
}

fn cases(expected: &[(&str, bool)]) -> BTreeMap<String, bool> {
    expected.iter().map(|(name, passed)| ((*name).to_owned(), *passed)).collect()
}

#[test]
fn after_a_crash_the_output_names_the_crashing_tests() {
    let tests = "#[test] fn good() {}\n#[test] #[ignore] fn later() { std::process::abort() }\n\
                 mod m { #[test] fn dies() { std::process::abort() } }\n#[test] fn bad() { assert_eq!(1, 2) }\n\
                 #[test] fn leaves() { std::process::exit(3) }\n";
    let dir = package(tests, "60s");
    let (event, found) = one(&dir, 1);
    assert_eq!(found, cases(&[("good", true), ("m::dies", false), ("bad", false), ("leaves", false)]));
    let output = event["output"].as_str().unwrap();
    assert!(output.contains("test m::dies ... FAILED (was ended by signal 6)\n"), "{output}");
    assert!(output.contains("test leaves ... FAILED (failed with exit code 3)\n"), "{output}");
    assert!(output.contains("test bad ... FAILED (failed with exit code 101)\n"), "{output}");
    let end = output.lines().next_back().unwrap();
    let either = ["`leaves`, `m::dies`", "`m::dies`, `leaves`"];
    assert!(
        either
            .iter()
            .any(|names| end == format!("These tests end the program even when run alone: {names}.")),
        "{output}"
    );
}

#[test]
fn a_crash_of_only_the_whole_program_is_reported() {
    let tests = "use std::sync::atomic::{AtomicU32, Ordering};\nstatic COUNT: AtomicU32 = AtomicU32::new(0);\n\
                 fn second_dies() { if COUNT.fetch_add(1, Ordering::SeqCst) == 1 { std::process::abort() } }\n\
                 #[test] fn a() { second_dies() }\n#[test] fn b() { second_dies() }\n";
    let (event, found) = one(&package(tests, "60s"), 1);
    assert_eq!(found, cases(&[("a", true), ("b", true)]), "each alone");
    assert_eq!(event["status"], "failed");
    assert!(
        event["output"].as_str().unwrap().contains("None of the 2 tests ends the program when run alone"),
        "{event}"
    );
}

/// Compiles the tests, so that the time limit covers only their run.
fn compile(dir: &TestDir) {
    let mut cargo = Command::new("cargo");
    cargo.args(["test", "--no-run"]).current_dir(dir.path("p"));
    Program::of(cargo).bound(COMPILING_BOUND).run().with_code(0);
}

#[test]
fn a_hanging_program_is_examined_within_its_time_limit() {
    let tests = "#[test] fn good() {}\n#[test] fn hangs() { loop { std::thread::park() } }\n";
    let dir = package(tests, "2s");
    compile(&dir);
    let started = Instant::now();
    let (event, found) = one(&dir, 1);
    let took = started.elapsed();
    assert_eq!(found, cases(&[("good", true), ("hangs", false)]));
    let output = event["output"].as_str().unwrap();
    assert!(output.contains("The program did not end within 2s and was killed."), "{output}");
    assert!(
        output.ends_with(
            "These tests did not end in half of the remaining time, even when run alone: `hangs`.\n"
        ),
        "{output}"
    );
    assert!(took < Duration::from_secs(20), "more than twice the limit and overhead: {took:?}");
}

#[test]
fn tests_that_were_not_tried_are_counted() {
    let hanging = |name: char| format!("#[test] fn {name}() {{ loop {{ std::thread::park() }} }}\n");
    let dir = package(&('a'..='j').map(hanging).collect::<String>(), "1s");
    compile(&dir);
    let (event, found) = one(&dir, 1);
    let output = event["output"].as_str().unwrap();
    let end = output.lines().next_back().unwrap();
    let untried = end.strip_prefix("The time limit (1s) left no time for ");
    let untried: usize = untried.unwrap().strip_suffix(" of 10 tests.").unwrap().parse().unwrap();
    assert!((1..10).contains(&untried) && found.len() == 10 - untried, "{output}");
    assert!(found.values().all(|passed| !passed));
}

#[test]
fn a_program_that_fails_without_a_crash_runs_once() {
    let tests = "#[test] fn good() {}\n#[test] fn bad() { assert_eq!(1, 2) }\n";
    let (event, found) = one(&package(tests, "60s"), 1);
    assert_eq!(found, cases(&[("good", true), ("bad", false)]));
    assert!(!event["output"].as_str().unwrap().contains("in a process of its own"), "{event}");
}
