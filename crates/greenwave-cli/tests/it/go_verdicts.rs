//! Go modules whose verdicts depend on build tags, settings and packages without tests.

use std::process::Command;

use greenwave_testkit::service::skip;

use crate::program::{COMPILING_BOUND, Program, until};
use crate::test_command::verdicts;
use crate::test_dir::TestDir;

/// Returns the verdicts of the units of the project `p`, with a private home and private caches.
fn units(dir: &TestDir, variables: &[(&str, &str)]) -> Vec<(String, bool)> {
    let mut program =
        Program::new(["test", "--format", "json"]).within(&dir.path("p")).bound(COMPILING_BOUND);
    program = program.variable("HOME", dir.path("home")).variable("XDG_CACHE_HOME", dir.path("cache"));
    for (name, value) in variables {
        program = program.variable(name, value);
    }
    verdicts(&program.run()).into_iter().map(|(name, passed, _)| (name, passed)).collect()
}

fn unit(name: &str, passed: bool) -> (String, bool) {
    (name.to_owned(), passed)
}

fn test_file(package: &str, head: &str, body: &str) -> String {
    format!("{head}package {package}\n\nimport \"testing\"\n\nfunc TestX(t *testing.T) {{ {body} }}\n")
}

pub(crate) fn has_go() -> bool {
    let found = Command::new("go").arg("version").output().is_ok();
    if !found {
        skip("go is not installed");
    }
    found
}

#[test]
fn packages_without_tests_under_the_build_tags_have_none() {
    if !has_go() {
        return;
    }
    let dir = TestDir::empty()
        .with("home/x", "")
        .with("p/go.mod", "module example.test/m\n\ngo 1.19\n")
        .with("p/tagged/d.go", "package tagged\n")
        .with("p/tagged/x_test.go", test_file("tagged", "//go:build special\n\n", "t.Fatal()"))
        .with("p/other/x_plan9_test.go", test_file("other", "", "t.Fatal()"))
        .with("p/ok/x_test.go", test_file("ok", "", ""))
        .with("p/none/x_test.go", "package none\n\nvar helper = 1\n")
        .with("p/testdata/x_test.go", test_file("x", "", "t.Fatal()"));
    let all = |tagged: Option<bool>| {
        let untested = tagged.is_none().then(|| unit("go:. (packages without tests)", true));
        let tagged = tagged.map(|passed| unit("go:./tagged", passed));
        let always = [unit("go:./none", true), unit("go:./ok", true)];
        untested.into_iter().chain(always).chain(tagged).collect::<Vec<_>>()
    };
    assert_eq!(units(&dir, &[]), all(None));
    assert_eq!(units(&dir, &[("GOFLAGS", "-tags=special")]), all(Some(false)));
    // As `go env -w GOFLAGS=-tags=special` writes it.
    dir.write("home/.config/go/env", "GOFLAGS=-tags=special\n");
    assert_eq!(units(&dir, &[]), all(Some(false)));
    dir.write("home/.config/go/env", "GOFLAGS=\n");
    dir.write("p/tagged/d.go", "package tagged\n\nfunc f() { nothing() }\n");
    assert!(units(&dir, &[]).contains(&unit("go:. (packages without tests)", false)));
    // The build cache is in the home of the user, where later runs find it.
    assert!(dir.path("cache/go-build").is_dir());
}

#[test]
fn arguments_go_to_go_test() {
    if !has_go() {
        return;
    }
    let body = "package a\n\nimport \"testing\"\n\nfunc TestGood(t *testing.T) {}\n\n\
        func TestBad(t *testing.T) { if !testing.Short() { t.Fatal() } }\n";
    let dir = TestDir::empty()
        .with("home/x", "")
        .with("p/go.mod", "module example.test/m\n\ngo 1.19\n")
        .with("p/a/x_test.go", body);
    let run = |arguments: &[&str]| {
        let program = Program::new(["test", "--format", "json"].iter().chain(arguments));
        let program = program.within(&dir.path("p")).bound(COMPILING_BOUND);
        let run =
            program.variable("HOME", dir.path("home")).variable("XDG_CACHE_HOME", dir.path("cache")).run();
        verdicts(&run).into_iter().map(|(_, passed, cached)| (passed, cached)).collect::<Vec<_>>()
    };
    assert_eq!(run(&[]), [(false, false)]);
    assert!(run(&["--", "-short"])[0].0);
    assert!(run(&["--", "-run", "TestGood"])[0].0);
    assert_eq!(run(&["--", "-run=TestBad"]), [(false, false)]);
    until("the result is cached", || run(&["--", "-short"]) == [(true, true)]);
    // Neither result is the other's.
    assert_eq!(run(&[]), [(false, false)]);
}

#[test]
fn modules_below_modules_and_in_workspaces_have_the_verdicts_of_go_test() {
    if !has_go() {
        return;
    }
    let module = |name: &str| format!("module example.test/{name}\n\ngo 1.19\n");
    let uses_b = "package a\n\nimport (\n\t\"testing\"\n\n\t\"example.test/b\"\n)\n\n\
        func TestX(t *testing.T) { if b.V != 1 { t.Fatal() } }\n";
    let dir = TestDir::empty()
        .with("home/x", "")
        .with("p/go.mod", module("root"))
        .with("p/x_test.go", test_file("root", "", ""))
        .with("p/below/go.mod", module("below"))
        .with("p/below/x_test.go", test_file("below", "", "t.Fatal()"))
        .with("p/below/deep/x_test.go", test_file("deep", "", ""))
        .with("p/w/go.work", "go 1.19\n\nuse (\n\t./a\n\t./b\n)\n")
        .with("p/w/a/go.mod", module("a"))
        .with("p/w/a/x_test.go", uses_b)
        .with("p/w/b/go.mod", module("b"))
        .with("p/w/b/b.go", "package b\n\nconst V = 1\n")
        .with("p/w/outside/go.mod", module("outside"))
        .with("p/w/outside/x_test.go", test_file("outside", "", ""));
    let packages = ["", "below", "below/deep", "w/a", "w/outside"];
    let by_go = |variables: &[(&str, &str)]| -> Vec<(String, bool)> {
        let verdict = |package: &&str| {
            let mut go = Command::new("go");
            go.args(["test", "."]).current_dir(dir.path("p").join(package)).env("HOME", dir.path("home"));
            go.env("XDG_CACHE_HOME", dir.path("cache")).envs(variables.iter().copied());
            let name = if package.is_empty() { "go:.".to_owned() } else { format!("go:./{package}") };
            unit(&name, go.output().unwrap().status.success())
        };
        packages.iter().map(verdict).collect()
    };
    let with_tests = |variables: &[(&str, &str)]| {
        let mut units = units(&dir, variables);
        units.retain(|(name, _)| !name.contains("without tests"));
        units.sort();
        units
    };
    let passed = |units: &[(String, bool)]| units.iter().map(|(_, passed)| *passed).collect::<Vec<_>>();
    let expected = by_go(&[]);
    assert_eq!(passed(&expected), [true, false, true, true, false]);
    assert_eq!(with_tests(&[]), expected);
    let without = [("GOWORK", "off")];
    let expected = by_go(&without);
    assert_eq!(passed(&expected), [true, false, true, false, true]);
    assert_eq!(with_tests(&without), expected);
    // An edit in a module of the workspace re-runs the modules that import it.
    dir.write("p/w/b/b.go", "package b\n\nconst V = 2\n");
    assert_eq!(passed(&with_tests(&[])), [true, false, true, false, false]);
}
