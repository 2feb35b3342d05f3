//! `greenwave test` on packages and workspaces of npm.

use crate::harnesses::program;
use crate::program::{Finished, Program};
use crate::test_command::verdicts;
use crate::test_dir::TestDir;

/// Runs the tests of the project in `p`.
fn run(dir: &TestDir) -> Finished {
    let program = Program::new(["test", "--format", "json"]).within(&dir.path("p"));
    program.variable("XDG_CACHE_HOME", dir.path("cache")).run()
}

/// Writes a program.
fn write_program(dir: &TestDir, path: &str, script: &str) {
    use std::os::unix::fs::PermissionsExt;
    dir.write(path, format!("#!/bin/sh\n{script}\n"));
    std::fs::set_permissions(dir.path(path), std::fs::Permissions::from_mode(0o755)).unwrap();
}

fn has_npm() -> bool {
    program(&[&["npm", "--version"]]).is_some()
}

#[test]
fn tests_that_need_a_build_run_after_it() {
    if !has_npm() {
        return;
    }
    let dir = TestDir::empty()
        .with(
            "p/package.json",
            r#"{"name":"root","private":true,"workspaces":["packages/*"],"scripts":{"test":"turbo run test"}}"#,
        )
        .with("p/turbo.json", r#"{"tasks":{"build":{"outputs":["dist/**"]},"test":{"dependsOn":["^build"]}}}"#)
        .with("p/packages/lib/package.json", r#"{"name":"lib","main":"dist/i.js","scripts":{"build":"x"}}"#)
        .with("p/packages/lib/i.js", "module.exports = 1")
        .with("p/packages/app/package.json", r#"{"name":"app","scripts":{"test":"node t.js"}}"#)
        .with("p/packages/app/t.js", "require('assert').equal(require('../lib'), 1)")
        .with("p/.gitignore", "dist\nnode_modules\n");
    write_program(
        &dir,
        "p/node_modules/.bin/turbo",
        "mkdir -p packages/lib/dist && cp packages/lib/i.js packages/lib/dist && cd packages/app && npm test",
    );
    let expected = |passed: bool, cached: bool| [("npm:root test".to_owned(), passed, cached)];
    assert_eq!(verdicts(&run(&dir)), expected(true, false));
    assert_eq!(verdicts(&run(&dir)), expected(true, true));
    dir.write("p/packages/lib/i.js", "module.exports = 2");
    assert_eq!(verdicts(&run(&dir)), expected(false, false));
}

#[test]
fn a_script_that_watches_ends() {
    if !has_npm() {
        return;
    }
    let manifest =
        r#"{"name":"w","scripts":{"pretest":"echo before","test":"jest --watch","posttest":"echo after"}}"#;
    let dir = TestDir::empty().with("p/package.json", manifest).with("p/.gitignore", "node_modules\n");
    // Fails instead of watching.
    write_program(&dir, "p/node_modules/.bin/jest", "echo run by $npm_package_name; [ $# = 0 ]");
    let finished = run(&dir).with_code(0);
    let output = finished.report().iter().find(|it| it["event"] == "test").unwrap()["output"].clone();
    let output = output.as_str().unwrap();
    for word in ["before", "after"] {
        assert!(output.contains(word), "{output}");
    }
    assert!(finished.stderr.contains("npm:w test runs without `--watch`"), "{}", finished.stderr);
}

#[test]
fn a_manifest_that_cannot_be_read_is_a_note_and_the_rest_runs() {
    if !has_npm() {
        return;
    }
    let dir = TestDir::empty()
        .with("p/package.json", r#"{"name":"good","scripts":{"test":"true"}}"#)
        .with("p/data/package.json", "{ broken")
        .with("p/data/pyproject.toml", "[broken")
        .with("p/data/x.py", "");
    let finished = run(&dir).with_code(0);
    assert_eq!(verdicts(&finished), [("npm:good test".to_owned(), true, false)]);
    assert!(finished.stderr.contains("note: data/package.json is skipped: "), "{}", finished.stderr);
    assert!(finished.stderr.contains("note: data/pyproject.toml is skipped: "), "{}", finished.stderr);
}

/// Returns whether the package manager's own run of the tests passes.
fn passes_with_npm(dir: &TestDir) -> bool {
    let own = std::process::Command::new("npm").arg("test").current_dir(dir.path("p")).output();
    own.unwrap().status.success()
}

#[test]
fn scripts_of_tap_have_the_verdict_of_npm() {
    if !has_npm() {
        return;
    }
    let dir = TestDir::empty()
        .with("p/package.json", r#"{"name":"t","scripts":{"test":"tap test/*.js"}}"#)
        .with("p/test/a.js", "ok")
        .with("p/test/b.js", "ok")
        .with("p/.gitignore", "node_modules\n");
    // Like tap, writes the results of the run beside the tests, and reads those of the last one.
    let tap = "mkdir -p .tap; cat .tap/last 2>/dev/null; echo TAP version 14; status=0\n\
        for file in \"$@\"; do\n\
        \x20 if grep -q '^ok' \"$file\"; then echo \"ok - $file\"; else echo \"not ok - $file\"; status=1; fi\n\
        done\n\
        echo \"1..$#\" | tee .tap/last; exit $status";
    write_program(&dir, "p/node_modules/.bin/tap", tap);
    let expected = |passed: bool, cached: bool| [("npm:t test".to_owned(), passed, cached)];
    assert_eq!(verdicts(&run(&dir)), expected(true, false));
    assert_eq!(verdicts(&run(&dir)), expected(true, true));
    assert!(passes_with_npm(&dir));
    dir.write("p/test/b.js", "no");
    assert_eq!(verdicts(&run(&dir)), expected(false, false));
    assert!(!passes_with_npm(&dir));
    dir.write("p/test/b.js", "ok");
    assert_eq!(verdicts(&run(&dir)), expected(true, true));
}

#[test]
fn scripts_that_leave_the_choice_to_nx_run_as_a_whole() {
    if !has_npm() {
        return;
    }
    let manifest = r#"{"name":"root","private":true,"workspaces":["packages/*"],
        "scripts":{"test":"nx run-many -t test"}}"#;
    let dir = TestDir::empty()
        .with("p/package.json", manifest)
        .with(
            "p/nx.json",
            r#"{"targetDefaults":{"build":{"outputs":["{projectRoot}/dist"]},"test":{"dependsOn":["^build"]}}}"#,
        )
        .with("p/packages/lib/package.json", r#"{"name":"lib","scripts":{"build":"x"}}"#)
        .with("p/packages/lib/i.js", "module.exports = 1")
        .with("p/packages/app/package.json", r#"{"name":"app","scripts":{"test":"node t.js"}}"#)
        .with("p/packages/app/t.js", "require('assert').equal(require('../lib/dist/i'), 1)")
        .with("p/packages/other/package.json", r#"{"name":"other","scripts":{"test":"false"}}"#)
        .with("p/.gitignore", "dist\nnode_modules\n.nx\n");
    // Like nx, builds a dependency of the tests. It chooses one of the two packages with tests.
    let nx = "mkdir -p .nx packages/lib/dist && cp packages/lib/i.js packages/lib/dist\n\
        cd packages/app && npm test";
    write_program(&dir, "p/node_modules/.bin/nx", nx);
    let expected = |passed: bool, cached: bool| [("npm:root test".to_owned(), passed, cached)];
    let first = run(&dir);
    assert_eq!(verdicts(&first), expected(true, false));
    assert!(first.stderr.contains("note: "), "{}", first.stderr);
    assert!(first.stderr.contains("nx"), "{}", first.stderr);
    assert_eq!(verdicts(&run(&dir)), expected(true, true));
    assert!(passes_with_npm(&dir));
    dir.write("p/packages/lib/i.js", "module.exports = 2");
    assert_eq!(verdicts(&run(&dir)), expected(false, false));
    assert!(!passes_with_npm(&dir));
}
