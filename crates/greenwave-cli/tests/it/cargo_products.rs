//! Tests of cargo packages that read build output of other packages, which is rebuilt before a
//! cached result is used.

use crate::program::{COMPILING_BOUND, Finished, Program, until};
use crate::test_command::verdicts;
use crate::test_dir::TestDir;

const RUNS_B: &str = r#"
#[test]
fn t() {
    let mut path = std::env::current_exe().unwrap();
    path.pop();
    path.pop();
    let output = std::process::Command::new(path.join("b")).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), "one");
}
"#;

fn manifest(name: &str) -> String {
    format!("[package]\nname = \"{name}\"\nversion = \"0.1.0\"\nedition = \"2024\"\n")
}

/// Creates a workspace: a test of `a` runs the program of `b`, another reads nothing.
fn workspace() -> TestDir {
    TestDir::empty()
        .with("p/Cargo.toml", "[workspace]\nmembers = [\"a\", \"b\"]\nresolver = \"2\"\n")
        .with("p/.gitignore", "target\n")
        .with("p/a/Cargo.toml", manifest("a"))
        .with("p/a/src/lib.rs", "#[test]\nfn t() {}\n")
        .with("p/a/tests/runs.rs", RUNS_B)
        .with("p/a/tests/plain.rs", "#[test]\nfn t() {}\n")
        .with("p/b/Cargo.toml", manifest("b"))
        .with("p/b/src/main.rs", "fn main() { println!(\"one\"); }\n")
        .with("p/b/tests/own.rs", "#[test]\nfn t() { assert!(std::process::Command::new(env!(\"CARGO_BIN_EXE_b\")).status().unwrap().success()); }\n")
}

fn run(dir: &TestDir, args: &[&str]) -> Finished {
    let args = ["test", "--format", "json"].into_iter().chain(args.iter().copied());
    let program = Program::new(args).within(&dir.path("p")).variable("XDG_CACHE_HOME", dir.path("cache"));
    program.bound(COMPILING_BOUND).run()
}

fn verdict(finished: &Finished, name: &str) -> (bool, bool) {
    let found = verdicts(finished).into_iter().find(|(it, ..)| it == name);
    found.map(|(_, passed, cached)| (passed, cached)).unwrap()
}

#[test]
fn a_program_of_another_package_is_rebuilt_before_a_cached_result_is_used() {
    let dir = workspace();
    run(&dir, &[]).with_code(0);
    until("all is cached", || verdicts(&run(&dir, &[])).iter().all(|(_, passed, cached)| *passed && *cached));
    dir.write("p/b/src/main.rs", "fn main() { println!(\"two\"); }\n");
    // Also if only this test is selected, which does not need the workspace.
    let alone = run(&dir, &["a::runs"]).with_code(1);
    assert_eq!(verdict(&alone, "a::runs"), (false, false));
    let all = run(&dir, &[]).with_code(1);
    assert_eq!(verdict(&all, "a::runs"), (false, false));
    assert_eq!(verdict(&all, "a::plain"), (true, true), "it reads nothing of b");
    assert_eq!(verdict(&all, "a"), (true, true));
    // Another source, the same behavior.
    dir.write("p/b/src/main.rs", "// As before.\nfn main() { println!(\"one\"); }\n");
    run(&dir, &["a::runs"]).with_code(0);
}

#[test]
fn results_that_depend_on_build_output_miss_while_the_build_fails() {
    let dir = workspace();
    run(&dir, &[]).with_code(0);
    until("all is cached", || verdicts(&run(&dir, &[])).iter().all(|(_, passed, cached)| *passed && *cached));
    dir.write("p/b/src/main.rs", "fn main() { nothing() }\n");
    let broken = run(&dir, &["a::runs"]);
    assert!(!verdict(&broken, "a::runs").1, "the program is outdated");
    let broken = run(&dir, &[]).with_code(1);
    assert_eq!(verdict(&broken, "a::plain"), (true, true));
}

#[test]
fn tests_that_read_no_build_output_hit_without_tracing() {
    let dir = workspace();
    run(&dir, &[]).with_code(0);
    until("all is cached", || verdicts(&run(&dir, &[])).iter().all(|(_, passed, cached)| *passed && *cached));
    let untraced = || run(&dir, &["--set", "testing.trace=false"]).with_code(0);
    untraced();
    let second = untraced();
    assert_eq!(verdict(&second, "a::plain"), (true, true));
    assert_eq!(verdict(&second, "b::own"), (true, true));
    assert_eq!(verdict(&second, "a::runs"), (true, false), "a traced run has seen it read the program of b");
}

#[test]
fn a_test_that_reads_build_output_is_affected_by_every_source() {
    let dir = workspace();
    // Before the commit, so that `Cargo.lock` is in it.
    run(&dir, &[]).with_code(0);
    for words in [
        ["init", "--quiet"].as_slice(),
        &["add", "."],
        &["-c", "user.name=x", "-c", "user.email=x@x", "commit", "--quiet", "-m", "x"],
    ] {
        let status = std::process::Command::new("git").arg("-C").arg(dir.path("p")).args(words).status();
        assert!(status.unwrap().success());
    }
    dir.write("p/b/src/main.rs", "fn main() { println!(\"two\"); }\n");
    let affected = run(&dir, &["--affected", "HEAD"]).with_code(1);
    assert_eq!(verdict(&affected, "a::runs"), (false, false));
    assert!(verdicts(&affected).iter().all(|(name, ..)| name != "a::plain"));
}

#[test]
fn an_edit_in_one_chain_of_packages_runs_the_documentation_tests_of_that_chain_only() {
    let (chains, length) = (['a', 'b', 'c'], 2);
    let packages = || chains.iter().flat_map(|chain| (0..length).map(move |at| (chain, at)));
    let members: Vec<String> = packages().map(|(chain, at)| format!("\"{chain}{at}\"")).collect();
    let mut dir = TestDir::empty()
        .with("p/Cargo.toml", format!("[workspace]\nresolver = \"2\"\nmembers = [{}]\n", members.join(", ")))
        .with("p/.gitignore", "target\n");
    for (chain, at) in packages() {
        let (name, below) = (format!("{chain}{at}"), format!("{chain}{}", at.max(1) - 1));
        let depends = format!("[lib]\ntest = false\n[dependencies]\n{below} = {{ path = \"../{below}\" }}\n");
        let (depends, value) = match at {
            0 => ("[lib]\ntest = false\n".to_owned(), "0".to_owned()),
            _ => (depends, format!("{below}::value() + 1")),
        };
        let source = format!(
            "/// ```\n/// assert_eq!({name}::value(), {at});\n/// ```\npub fn value() -> u32 {{ {value} }}\n"
        );
        dir = dir.with(&format!("p/{name}/Cargo.toml"), manifest(&name) + &depends);
        dir = dir.with(&format!("p/{name}/src/lib.rs"), source);
    }
    run(&dir, &[]).with_code(0);
    until("all is cached", || verdicts(&run(&dir, &[])).iter().all(|(_, passed, cached)| *passed && *cached));
    let ran = |finished: &Finished| {
        let ran = verdicts(finished).into_iter().filter(|(_, _, cached)| !cached);
        ran.map(|(name, passed, _)| (name, passed)).collect::<std::collections::BTreeSet<_>>()
    };
    let both = |passed: bool| [("b0 (doc)".to_owned(), passed), ("b1 (doc)".to_owned(), passed)].into();
    dir.write("p/b0/src/lib.rs", dir.read("p/b0/src/lib.rs").replace("{ 0 }", "{ 2 - 2 }"));
    assert_eq!(ran(&run(&dir, &[]).with_code(0)), both(true));
    dir.write("p/b0/src/lib.rs", dir.read("p/b0/src/lib.rs").replace("{ 2 - 2 }", "{ 7 }"));
    assert_eq!(ran(&run(&dir, &[]).with_code(1)), both(false));
}
