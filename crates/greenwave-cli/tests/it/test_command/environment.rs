//! The environment of tests: homes, ports, resources, and properties of the process.

use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::Command;

use serde_json::Value;

use super::{greenwave, run, verdict, verdicts};
use crate::program::Program;
use crate::test_dir::TestDir;

#[test]
fn each_test_has_its_own_home_and_ports() {
    let test = |name: &str| {
        format!(
            "[[test]]\nname = \"{name}\"\ninputs = [\"/in\"]\n\
             command = \"test -z \\\"$SECRET\\\" && test -d $HOME && echo $HOME $TMPDIR $GREENWAVE_PORT_FIRST > ../{name}; sleep 0.3\"\n"
        )
    };
    let dir = TestDir::empty().with("p/greenwave.toml", test("a") + &test("b")).with("p/in", "");
    let args = ["--jobs", "2", "--set", "testing.follow_load=false"];
    greenwave(&dir, "p", args).variable("SECRET", "x").run().with_code(0);
    let (a, b) = (dir.read("a"), dir.read("b"));
    for (one, other) in a.split_whitespace().zip(b.split_whitespace()) {
        assert_ne!(one, other);
        assert!(one.parse::<u16>().is_ok() || !Path::new(one).exists(), "{one} is left");
    }
}

#[test]
fn tests_that_are_not_parallel_safe_run_alone() {
    let script = "mkdir ../lock || exit 1; sleep 0.1; rmdir ../lock";
    let test = |name: &str, more: &str| {
        format!("[[test]]\nname = \"{name}\"\ncommand = \"{script}; : {name}\"\ninputs = [\"/in\"]\n{more}\n")
    };
    let check = |more: &str| {
        let config = ["a", "b", "c"].map(|name| test(name, more)).concat();
        let dir = TestDir::empty().with("p/greenwave.toml", config).with("p/in", "");
        let args = ["--jobs", "3", "--format", "json", "--set", "testing.follow_load=false"];
        let found = verdicts(&greenwave(&dir, "p", args).run());
        found.iter().all(|(_, passed, _)| *passed)
    };
    assert!(check("parallel_safe = false"));
    assert!(check("needs = [\"lock\"]"));
    assert!(!check(""), "they would overlap");
}

#[test]
fn an_audit_finds_untracked_dependencies() {
    let config =
        "[[test]]\nname = \"t\"\ncommand = \"grep -qx 0 /proc/self/oom_score_adj\"\ninputs = [\"/in\"]\n";
    let dir = TestDir::empty().with("p/greenwave.toml", config).with("p/in", "");
    if fs::read_to_string("/proc/self/oom_score_adj").ok().as_deref() != Some("0\n") {
        let _ = writeln!(std::io::stderr(), "skipped: oom_score_adj is not 0");
        return;
    }
    assert_eq!(run(&dir, "p"), [verdict("t", true, false)]);
    let again = greenwave(&dir, "p", ["--audit", "100%"]).run().with_code(0);
    assert!(again.stdout.contains("1 cached result audited: no difference"), "{}", again.stdout);
    let mut shell = Command::new("sh");
    let script = "echo 500 > /proc/self/oom_score_adj; exec \"$0\" test --audit 1.0";
    shell.args(["-c", script, env!("CARGO_BIN_EXE_greenwave")]);
    let other = Program::of(shell).within(&dir.path("p")).variable("XDG_CACHE_HOME", dir.path("cache"));
    let other = other.run().with_code(1);
    assert!(other.stdout.contains("audit    t: cached as passed ("), "{}", other.stdout);
}

#[test]
fn the_umask_is_a_dependency() {
    let test =
        "[[test]]\nname = \"t\"\ncommand = \"touch $TMPDIR/new && test $(stat -c %a $TMPDIR/new) = 644\"\n";
    let dir = TestDir::empty().with("p/greenwave.toml", test);
    let run = |mask: &str| run_after(&dir, &format!("umask {mask}"));
    assert_eq!(run("022"), (true, false));
    assert_eq!(run("022"), (true, true));
    assert_eq!(run("077"), (false, false));
    assert_eq!(run("022"), (true, true));
}

#[test]
fn resource_limits_are_dependencies() {
    let test =
        "[[test]]\nname = \"t\"\ncommand = \"test $(ulimit -n) -ge 512 && test $(ulimit -s) -ge 4096\"\n";
    let dir = TestDir::empty().with("p/greenwave.toml", test);
    let run = |limits: &str| run_after(&dir, limits);
    assert_eq!(run("ulimit -S -s 8192; ulimit -S -n 2000"), (true, false));
    assert_eq!(run("ulimit -S -s 8192; ulimit -S -n 2000"), (true, true));
    // The usual limit of open files differs between systems.
    assert_eq!(run("ulimit -S -s 8192; ulimit -S -n 3000"), (true, true));
    assert_eq!(run("ulimit -S -s 8192; ulimit -S -n 400"), (false, false));
    assert_eq!(run("ulimit -S -s 2048; ulimit -S -n 2000"), (false, false));
    assert_eq!(run("ulimit -S -s 8192; ulimit -S -n 2000"), (true, true));
}

/// Runs the test `t` of the project `p` in a shell, after other commands. Returns whether it passed
/// and whether its result was cached.
fn run_after(dir: &TestDir, commands: &str) -> (bool, bool) {
    let script = format!("{commands}; exec \"$0\" test --format json");
    let output = Command::new("sh")
        .args(["-c", &script, env!("CARGO_BIN_EXE_greenwave")])
        .current_dir(dir.path("p"))
        .env("XDG_CACHE_HOME", dir.path("cache"))
        .output()
        .unwrap();
    let lines = String::from_utf8(output.stdout).unwrap();
    let test = lines.lines().find(|line| line.contains("\"name\":\"t\"")).unwrap().to_owned();
    let test: Value = serde_json::from_str(&test).unwrap();
    (test["status"] == "passed", test["cached"] == true)
}
