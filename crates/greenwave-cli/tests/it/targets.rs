//! What tests of cargo packages read in the target directory: other packages' programs, brought up to date before a result is believed.

use crate::folder::Folder;
use crate::program::{COMPILING_BOUND, Finished, Program, until};
use crate::tested::verdicts;

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

/// `a` has a test that runs the program of `b`, and one that reads nothing.
fn workspace() -> Folder {
    Folder::empty()
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

fn run(folder: &Folder, args: &[&str]) -> Finished {
    let args = ["test", "--format", "json"].into_iter().chain(args.iter().copied());
    let program =
        Program::new(args).within(&folder.path("p")).variable("XDG_CACHE_HOME", folder.path("cache"));
    program.bound(COMPILING_BOUND).run()
}

fn verdict(finished: &Finished, name: &str) -> (bool, bool) {
    let found = verdicts(finished).into_iter().find(|(it, ..)| it == name);
    found.map(|(_, passed, known)| (passed, known)).unwrap()
}

#[test]
fn a_program_of_another_package_is_built_anew_before_a_result_is_believed() {
    let folder = workspace();
    run(&folder, &[]).with_code(0);
    until("all is cached", || {
        verdicts(&run(&folder, &[])).iter().all(|(_, passed, known)| *passed && *known)
    });
    folder.write("p/b/src/main.rs", "fn main() { println!(\"two\"); }\n");
    // Asked for alone as well: nothing else of the workspace would have to be built.
    let alone = run(&folder, &["a::runs"]).with_code(1);
    assert_eq!(verdict(&alone, "a::runs"), (false, false));
    let all = run(&folder, &[]).with_code(1);
    assert_eq!(verdict(&all, "a::runs"), (false, false));
    assert_eq!(verdict(&all, "a::plain"), (true, true), "it reads nothing of b");
    assert_eq!(verdict(&all, "a"), (true, true));
    // Another text, the same program.
    folder.write("p/b/src/main.rs", "// As before.\nfn main() { println!(\"one\"); }\n");
    run(&folder, &["a::runs"]).with_code(0);
}

#[test]
fn while_the_workspace_cannot_be_built_nothing_that_was_built_before_is_believed() {
    let folder = workspace();
    run(&folder, &[]).with_code(0);
    until("all is cached", || {
        verdicts(&run(&folder, &[])).iter().all(|(_, passed, known)| *passed && *known)
    });
    folder.write("p/b/src/main.rs", "fn main() { nothing() }\n");
    let broken = run(&folder, &["a::runs"]);
    assert!(!verdict(&broken, "a::runs").1, "the program is an old one");
    let broken = run(&folder, &[]).with_code(1);
    assert_eq!(verdict(&broken, "a::plain"), (true, true));
}

#[test]
fn tests_that_read_nothing_of_others_are_believed_without_tracing_as_well() {
    let folder = workspace();
    run(&folder, &[]).with_code(0);
    until("all is cached", || {
        verdicts(&run(&folder, &[])).iter().all(|(_, passed, known)| *passed && *known)
    });
    let untraced = || run(&folder, &["--set", "testing.trace=false"]).with_code(0);
    untraced();
    let second = untraced();
    assert_eq!(verdict(&second, "a::plain"), (true, true));
    assert_eq!(verdict(&second, "b::own"), (true, true));
    assert_eq!(verdict(&second, "a::runs"), (true, false), "it was seen to read the program of b");
}

#[test]
fn a_test_that_reads_what_is_built_may_be_affected_by_any_source() {
    let folder = workspace();
    // Before the commit, so that `Cargo.lock` is in it.
    run(&folder, &[]).with_code(0);
    for words in [
        ["init", "--quiet"].as_slice(),
        &["add", "."],
        &["-c", "user.name=x", "-c", "user.email=x@x", "commit", "--quiet", "-m", "x"],
    ] {
        let status = std::process::Command::new("git").arg("-C").arg(folder.path("p")).args(words).status();
        assert!(status.unwrap().success());
    }
    folder.write("p/b/src/main.rs", "fn main() { println!(\"two\"); }\n");
    let affected = run(&folder, &["--affected", "HEAD"]).with_code(1);
    assert_eq!(verdict(&affected, "a::runs"), (false, false));
    assert!(verdicts(&affected).iter().all(|(name, ..)| name != "a::plain"));
}
