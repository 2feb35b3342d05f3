//! The short output of `greenwave test` for coding agents, and output of tests while they run.

use crate::program::Program;
use crate::test_dir::TestDir;

fn greenwave(dir: &TestDir, args: &[&str]) -> Program {
    let args = ["test"].into_iter().chain(args.iter().copied());
    dir.greenwave(args).within(&dir.path("p")).variable("XDG_CACHE_HOME", dir.path("cache"))
}

/// A cargo project with a failing test among twenty.
fn project() -> TestDir {
    let passing: String = (0..19).map(|at| format!("#[test]\nfn passes_{at}() {{}}\n")).collect();
    let failing = "#[test]\nfn fails() {\n    assert_eq!(1 + 1, 3, \"sum\");\n}\n";
    TestDir::empty()
        .with(
            "p/Cargo.toml",
            "[package]\nname = \"one\"\nversion = \"0.1.0\"\nedition = \"2021\"\n\n[lib]\ndoctest = false\n",
        )
        .with("p/src/lib.rs", failing.to_owned() + &passing)
}

#[test]
fn an_agent_sees_the_assertion_its_line_and_one_closing_line() {
    let dir = project();
    let finished = greenwave(&dir, &[]).variable("CLAUDECODE", "1").run().with_code(1);
    let lines: Vec<&str> = finished.stdout.lines().filter(|line| !line.trim().is_empty()).collect();
    assert_eq!(lines[0], "FAIL one: failed with exit code 101");
    for text in [
        "Failing tests: fails",
        "panicked at src/lib.rs:3:5",
        "assertion `left == right` failed: sum",
        "left: 2",
    ] {
        assert!(finished.stdout.contains(text), "lacks {text:?}:\n{}", finished.stdout);
    }
    assert!(lines.last().unwrap().starts_with("1 test: 1 failed in "), "{}", finished.stdout);
    assert!(lines.len() < 20 && !finished.stdout.contains("passes_1"), "{}", finished.stdout);
    assert!(!finished.stdout.contains('\u{1b}'), "{}", finished.stdout);
    let explicit = greenwave(&dir, &["--output", "agent"]).run().with_code(1);
    let without_time = |text: &str| text.rsplit_once(" in ").map(|(start, _)| start.to_owned());
    let all = |text: &str| {
        text.lines().filter(|line| !line.contains("thread '")).map(str::to_owned).collect::<Vec<_>>()
    };
    let (explicit, implicit) = (all(&explicit.stdout), all(&finished.stdout));
    assert_eq!(explicit[..explicit.len() - 2], implicit[..implicit.len() - 2]);
    assert_eq!(without_time(explicit.last().unwrap()), without_time(implicit.last().unwrap()));
    // A flag counts more than the variable.
    let finished = greenwave(&dir, &["--output", "failed"]).variable("CLAUDECODE", "1").run().with_code(1);
    assert!(finished.stdout.contains("passes_1"), "{}", finished.stdout);
}

#[test]
fn a_program_that_does_not_compile_is_said_once() {
    let test = "#[test]\nfn t() { missing(); }\n";
    let dir = project().with("p/src/lib.rs", "").with("p/tests/a.rs", test).with("p/tests/b.rs", test);
    let finished = greenwave(&dir, &["--output", "agent"]).run().with_code(1);
    assert!(finished.stdout.contains("cannot find function `missing`"), "{}", finished.stdout);
    assert!(finished.stdout.contains("tests/a.rs:2:10"), "{}", finished.stdout);
}

#[test]
fn failures_are_annotated_on_github() {
    let dir = project();
    let call = |args: &[&str]| {
        greenwave(&dir, args)
            .variable("GITHUB_ACTIONS", "true")
            .variable("GITHUB_WORKSPACE", dir.path("."))
            .run()
            .with_code(1)
    };
    let finished = call(&[]);
    let annotation = finished.stdout.lines().find(|line| line.starts_with("::error ")).unwrap();
    assert!(
        annotation.starts_with("::error title=one,file=p/src/lib.rs,line=3::failed with"),
        "{annotation}"
    );
    assert!(!call(&["--format", "json"]).stdout.contains("::error"));
}

#[test]
fn nothing_that_a_test_says_is_a_command_of_a_workflow() {
    let test = r#"
        [[test]]
        name = "one\n::error::named"
        command = ["sh", "say.sh"]
        inputs = ["say.sh"]
    "#;
    let words =
        "echo; echo ::error::said; echo '  ::set-output name=a::b'; echo 'x ##[add-path]/x'; exit 1\n";
    let dir = TestDir::empty().with("p/greenwave.toml", test).with("p/say.sh", words);
    for output in ["failed", "all", "live", "agent"] {
        let program = greenwave(&dir, &["--output", output]).variable("GITHUB_ACTIONS", "true");
        let finished = program.run().with_code(1);
        let is_command = |line: &&str| line.trim_start().starts_with("::") || line.contains("##[");
        let all = format!("{}\n{}", finished.stdout, finished.stderr);
        let commands: Vec<&str> = all.lines().filter(is_command).collect();
        assert_eq!(commands.len(), 1, "{output}: {all}");
        assert!(commands[0].starts_with("::error title=one"), "{output}: {all}");
        assert!(all.contains("said"), "{output}: {all}");
    }
}

/// Names of tests and files, and the words of agents.
#[test]
fn nothing_in_a_run_is_a_command_of_a_workflow() {
    let plan = r#"
        project = "p"
        confine = "off"
        [agents.a]
        kind = "command"
        command = ["sh", "-c", "echo ::error::word; echo ::error::word >&2; touch \"$(printf 'f\\n::error::file')\""]
        [[features]]
        id = "one"
        prompt = "x"
        agent = "a"
        attempts = 1
        [[features.tests]]
        name = "t\n::error::named"
        command = ["sh", "-c", "echo ::error::said; exit 1"]
    "#;
    let dir = TestDir::empty().with("p/readme", "x\n").with("plan.toml", plan);
    for arguments in [&["run", "--no-metrics", "plan.toml"][..], &["attempts", "plan.toml", "one"]] {
        let program = dir.greenwave(arguments.iter().copied()).variable("GITHUB_ACTIONS", "true");
        let finished = program.run();
        let all = format!("{}\n{}", finished.stdout, finished.stderr);
        assert!(!all.lines().any(|line| line.trim_start().starts_with("::")), "{arguments:?}: {all}");
        assert!(all.contains("::error::word"), "{arguments:?}: {all}");
    }
}

#[test]
fn live_output_appears_before_the_test_ends() {
    let test = "[[test]]\nname = \"slow\"\ncommand = \"printf 'first\\n4'; until test -e ../go; do sleep 0.02; done; echo 2; exit 1\"\n";
    let dir = TestDir::empty().with("p/greenwave.toml", test);
    let mut running = greenwave(&dir, &["--output", "live"]).start();
    running.read_until("slow | first");
    dir.write("go", "");
    let finished = running.finish().with_code(1);
    assert!(finished.stdout.contains("\nslow | 42\n"), "{}", finished.stdout);
    assert_eq!(finished.stdout.matches("| 42").count(), 1, "{}", finished.stdout);
}
