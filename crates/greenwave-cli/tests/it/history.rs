//! `greenwave history`: what test runs have learned.

use crate::program::Finished;
use crate::test_dir::TestDir;

const TESTS: &str = r#"
    [[test]]
    name = "steady"
    command = ["cat", "a.txt"]
    inputs = ["a.txt"]

    [[test]]
    name = "second try"
    command = "test -e ../second && rm ../second || { touch ../second; exit 1; }"
    inputs = ["b.txt"]
    retries = 1
"#;

fn call(dir: &TestDir, args: &[&str]) -> Finished {
    let program = dir.greenwave(args.iter().copied()).within(&dir.path("p"));
    program.variable("XDG_CACHE_HOME", dir.path("cache")).run()
}

#[test]
fn flaky_tests_and_saved_time_are_remembered_for_their_user() {
    let dir = TestDir::empty().with("p/greenwave.toml", TESTS).with("p/a.txt", "").with("p/b.txt", "");
    let nothing = call(&dir, &["history"]).with_code(0).stdout;
    assert_eq!(nothing, "No test has run in this directory\n");
    call(&dir, &["test"]).with_code(0);
    // A flaky result is not cached, so the test runs again.
    call(&dir, &["test"]).with_code(0);
    let shown = call(&dir, &["history"]).with_code(0).stdout;
    assert!(shown.starts_with("2 tests: "), "{shown}");
    assert!(shown.contains("Flaky:\n  second try: passed only after a retry in "), "{shown}");
    assert!(shown.contains("1 cached result saved "), "{shown}");
    let json = call(&dir, &["history", "--format", "json"]).with_code(0).stdout;
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!((&json["cached"], &json["tests"][1]["name"]), (&1.into(), &"steady".into()));
    let page = dir.path("page.html");
    call(&dir, &["history", "--page", page.to_str().unwrap()]).with_code(0);
    let page = dir.read("page.html");
    assert!(page.contains("<tr><th scope=\"row\">second try<"), "{page}");
    let missing = call(&dir, &["history", "--page", "none/page.html"]).with_code(2).stderr;
    assert!(missing.contains("cannot write report none/page.html"), "{missing}");
    // The state of another user is not believed.
    let program = dir.greenwave(["history"]).within(&dir.path("p"));
    let foreign = program.variable("XDG_STATE_HOME", dir.path("other")).run().with_code(0).stdout;
    assert_eq!(foreign, "No test has run in this directory\n");
}
