//! Runs that cannot trace their tests: inside another run, in sandboxes, and with `testing.trace =
//! "required"`.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use greenwave_testkit::service::skip;
use serde_json::Value;

use crate::program::{Finished, Program, until};
use crate::test_command::verdicts;
use crate::test_dir::TestDir;

/// A program that executes another one in a sandbox where it cannot trace. `deny` forbids filters;
/// with `listen` another listener exists.
const SANDBOX: &str = r#"
#include <errno.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>
int main(int count, char **words) {
    int listens = !strcmp(words[1], "listen");
    struct sock_filter deny[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_seccomp, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_filter allow[] = { BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW) };
    struct sock_fprog program = { listens ? 1 : 4, listens ? allow : deny };
    prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
    int done = syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, listens ? SECCOMP_FILTER_FLAG_NEW_LISTENER : 0, &program);
    if (done < 0) return 99;
    /* The listener stays open: the kernel marks it close-on-exec. */
    if (listens) dup(done);
    execvp(words[2], words + 2);
    return 98;
}
"#;

const SANDBOXES: [&str; 2] = ["deny", "listen"];

/// Builds the sandbox. Returns `None` without a C compiler.
fn sandbox(dir: &TestDir) -> Option<PathBuf> {
    let (source, program) = (dir.path("sandbox.c"), dir.path("sandbox"));
    fs::write(&source, SANDBOX).unwrap();
    let built = Command::new("cc").arg("-o").arg(&program).arg(&source).output();
    let is_built = built.is_ok_and(|output| output.status.success());
    if !is_built {
        skip("no C compiler is installed");
    }
    is_built.then_some(program)
}

/// A test that declares less than it reads, and a test that declares everything.
const TESTS: &str = r#"
[[test]]
name = "more"
command = "grep -q 1 data.txt"
inputs = ["/in.txt"]

[[test]]
name = "all"
command = "grep -q 1 in.txt"
inputs = ["/in.txt"]
"#;

fn project() -> TestDir {
    TestDir::empty().with("p/greenwave.toml", TESTS).with("p/in.txt", "1").with("p/data.txt", "1")
}

fn greenwave<'a>(dir: &TestDir, project: &str, args: impl IntoIterator<Item = &'a str>) -> Program {
    let args = ["test"].into_iter().chain(args);
    Program::new(args).within(&dir.path(project)).variable("XDG_CACHE_HOME", dir.path("cache"))
}

/// Calls `greenwave test` inside a sandbox.
fn confined(dir: &TestDir, sandbox: &std::path::Path, kind: &str, args: &[&str]) -> Finished {
    let mut command = Command::new(sandbox);
    command.arg(kind).arg(env!("CARGO_BIN_EXE_greenwave")).arg("test").args(args);
    let program = Program::of(command).within(&dir.path("p"));
    program.variable("XDG_CACHE_HOME", dir.path("cache")).run()
}

fn last(finished: &Finished) -> Value {
    finished.report().pop().unwrap()
}

/// Returns whether tests can be traced on this machine.
pub(crate) fn can_trace(dir: &TestDir) -> bool {
    let finished = greenwave(dir, "p", ["--format", "json", "--no-cache"]).run();
    let can = last(&finished)["tracing"] == "traced";
    if !can {
        println!("skipped: tracing is not available: {}", last(&finished));
    }
    can
}

#[test]
fn a_run_that_cannot_trace_warns_in_all_reports() {
    let dir = project();
    let Some(sandbox) = sandbox(&dir) else { return };
    let (summary, junit) = (dir.path("summary.md"), dir.path("junit.xml"));
    for kind in SANDBOXES {
        let warning = "warning: tests are not traced, so results depend on declared inputs only: ";
        let warns = || confined(&dir, &sandbox, kind, &[]).with_code(0).stdout.contains(warning);
        assert!(warns());
        // Also if the up-to-date record answers, which is stored when no timestamp is racy.
        until("an up-to-date record is stored", || {
            assert!(warns());
            dir.path("p/.greenwave/tests/answer").exists()
        });
        assert!(warns());
        fs::remove_file(dir.path("p/.greenwave/tests/answer")).unwrap();
        let args =
            ["--format", "json", "--summary", summary.to_str().unwrap(), "--junit", junit.to_str().unwrap()];
        let finished = confined(&dir, &sandbox, kind, &args).with_code(0);
        assert_eq!(last(&finished)["tracing"], "unavailable");
        assert!(last(&finished)["tracing_problem"].is_string());
        assert!(fs::read_to_string(&summary).unwrap().contains("Tests were not traced"));
        assert!(fs::read_to_string(&junit).unwrap().contains("greenwave.not_traced"));
        let off = confined(&dir, &sandbox, kind, &["--set", "testing.trace=false"]).with_code(0);
        assert!(!off.stdout.contains(warning), "tracing is off");
    }
}

#[test]
fn required_tracing_that_is_unavailable_is_an_error() {
    let dir = project();
    let Some(sandbox) = sandbox(&dir) else { return };
    for kind in SANDBOXES {
        let refused = confined(&dir, &sandbox, kind, &["--set", "testing.trace=required"]).with_code(2);
        assert!(refused.stderr.contains("error: cannot trace tests: "), "{}", refused.stderr);
        assert!(refused.stderr.contains("\nhint: "), "{}", refused.stderr);
        assert!(!refused.stdout.contains("passed"), "{}", refused.stdout);
    }
    if can_trace(&dir) {
        greenwave(&dir, "p", ["--set", "testing.trace=required"]).run().with_code(0);
    }
    let wrong = greenwave(&dir, "p", ["--set", "testing.trace=sometimes"]).run().with_code(2);
    assert!(wrong.stderr.contains("true, false or \"required\""), "{}", wrong.stderr);
}

#[test]
fn an_untraced_result_misses_if_a_traced_run_has_seen_more_reads() {
    let dir = project();
    let Some(sandbox) = sandbox(&dir) else { return };
    if !can_trace(&project()) {
        return;
    }
    let json = ["--format", "json"];
    let verdict = |name: &str, passed, cached| (name.to_owned(), passed, cached);
    // No traced run has happened yet.
    confined(&dir, &sandbox, "deny", &json).with_code(0);
    let untraced = verdicts(&confined(&dir, &sandbox, "deny", &json));
    assert_eq!(untraced, [verdict("all", true, true), verdict("more", true, true)]);
    // Traced and untraced results are separate.
    until("traced results are cached", || {
        let traced = verdicts(&greenwave(&dir, "p", json).run());
        traced == [verdict("all", true, true), verdict("more", true, true)]
    });
    for untraced in [
        confined(&dir, &sandbox, "deny", &json),
        confined(&dir, &sandbox, "listen", &json),
        greenwave(&dir, "p", json.into_iter().chain(["--set", "testing.trace=false"])).run(),
    ] {
        let more = untraced.report().into_iter().find(|event| event["name"] == "more").unwrap();
        assert_eq!((&more["status"], &more["cached"]), (&"passed".into(), &false.into()));
        assert!(more["not_stored"].as_str().unwrap().contains("seen to read more than it declares"));
    }
    dir.write("p/data.txt", "2");
    let untraced = verdicts(&confined(&dir, &sandbox, "deny", &json));
    assert_eq!(untraced, [verdict("all", true, true), verdict("more", false, false)]);
}

/// A project whose test reads a file outside of it, in untraced and traced runs.
struct Outside {
    dir: TestDir,
    command: String,
}

impl Outside {
    /// Creates the project. Returns `None` where tests cannot be traced.
    fn new() -> Option<Self> {
        let dir = TestDir::empty().with("p/in", "1").with("data", "1");
        let command = format!("grep -q 1 {}", dir.path("data").display());
        let outside = Self { dir, command };
        outside.declare(&["/in"]);
        can_trace(&project()).then_some(outside)
    }

    fn declare(&self, inputs: &[&str]) {
        let command = &self.command;
        let test = format!("[[test]]\nname = \"more\"\ncommand = \"{command}\"\ninputs = {inputs:?}\n");
        self.dir.write("p/greenwave.toml", test);
    }

    /// Runs the test. Returns whether it passed, and whether the result was cached.
    fn run(&self, args: &[&str]) -> (bool, bool) {
        let json = ["--format", "json"];
        let finished = greenwave(&self.dir, "p", json.into_iter().chain(args.iter().copied())).run();
        let verdicts = verdicts(&finished);
        assert_eq!(verdicts.len(), 1, "{}", finished.stdout);
        (verdicts[0].1, verdicts[0].2)
    }

    fn untraced(&self) -> (bool, bool) {
        self.run(&["--set", "testing.trace=false"])
    }
}

#[test]
fn other_inputs_and_another_name_restore_no_trust_in_untraced_results() {
    let Some(outside) = Outside::new() else { return };
    assert_eq!(outside.untraced(), (true, false));
    assert!(outside.run(&[]).0);
    assert_eq!(outside.untraced(), (true, false), "the traced run saw the file");
    // The same files match, so the result has the same key.
    outside.declare(&["/in", "/missing"]);
    assert_eq!(outside.untraced(), (true, false));
    outside.dir.write("data", "2");
    assert_eq!(outside.untraced(), (false, false));
    outside.dir.write("data", "1");
    let text = fs::read_to_string(outside.dir.path("p/greenwave.toml")).unwrap();
    outside.dir.write("p/greenwave.toml", text.replace("\"more\"", "\"less\""));
    assert_eq!(outside.untraced(), (true, false));
}

#[test]
fn what_a_traced_run_saw_outlasts_its_record_in_the_cache() {
    let Some(outside) = Outside::new() else { return };
    assert!(outside.run(&[]).0);
    // As after `testing.ttl`.
    fs::remove_dir_all(outside.dir.path("cache")).unwrap();
    assert_eq!(outside.untraced(), (true, false));
    assert_eq!(outside.untraced(), (true, false));
    outside.dir.write("data", "2");
    assert_eq!(outside.untraced(), (false, false));
}

#[test]
fn a_traced_run_without_a_cache_remembers_what_it_saw() {
    let Some(outside) = Outside::new() else { return };
    let record = outside.dir.path("p/.greenwave/tests/answer");
    let shown = || greenwave(&outside.dir, "p", ["--set", "testing.trace=false"]).run().with_code(0);
    until("an up-to-date record of an untraced result is stored", || {
        shown();
        record.exists()
    });
    assert!(outside.run(&["--no-cache"]).0);
    assert!(shown().stdout.contains("seen to read more than it declares"));
    outside.dir.write("data", "2");
    assert_eq!(outside.untraced(), (false, false));
}

#[test]
fn untraced_results_count_once_all_files_are_declared() {
    let dir = project();
    fs::create_dir(dir.path("programs")).unwrap();
    // Shells search this directory for `grep`, too.
    let path = format!("{}:{}", dir.path("programs").display(), std::env::var("PATH").unwrap());
    if !can_trace(&dir) {
        return;
    }
    let untraced = |dir: &TestDir| {
        let args = ["--format", "json", "--set", "testing.trace=false"];
        verdicts(&greenwave(dir, "p", args).variable("PATH", &path).run())
    };
    let verdict = |name: &str, cached| (name.to_owned(), true, cached);
    greenwave(&dir, "p", ["--no-cache"]).variable("PATH", &path).run().with_code(0);
    untraced(&dir);
    assert_eq!(untraced(&dir), [verdict("all", true), verdict("more", false)]);
    dir.write("p/greenwave.toml", TESTS.replacen("[\"/in.txt\"]", "[\"/in.txt\", \"/data.txt\"]", 1));
    untraced(&dir);
    assert_eq!(untraced(&dir), [verdict("all", true), verdict("more", true)]);
}

/// Creates a project inside a project. The inner test reads an undeclared file.
fn nested() -> TestDir {
    let program = env!("CARGO_BIN_EXE_greenwave");
    let outer = format!(
        "[[test]]\nname = \"outer\"\ncommand = \"cd inner && {program} test --format json\"\ninputs = [\"/round\"]\n"
    );
    let inner = "[[test]]\nname = \"inner\"\ncommand = \"grep -q 1 data.txt && test $(ls in | wc -l) = 1\"\ninputs = [\"/in/**\"]\n";
    TestDir::empty()
        .with("p/greenwave.toml", outer)
        .with("p/round", "0")
        .with("p/inner/greenwave.toml", inner)
        .with("p/inner/data.txt", "1")
        .with("p/inner/in/a.txt", "1")
}

/// Returns whether the outer test passed, whether that was cached, and the events of the inner run.
fn of_outer(finished: &Finished) -> (bool, bool, Vec<Value>) {
    let outer = finished.report().into_iter().find(|event| event["name"] == "outer").unwrap();
    let lines = outer["output"].as_str().unwrap().lines().map(str::to_owned).collect::<Vec<_>>();
    let inner = lines.iter().filter_map(|line| serde_json::from_str(line).ok()).collect();
    (outer["status"] == "passed", outer["cached"] == true, inner)
}

fn is_cached(events: &[Value]) -> bool {
    events.iter().any(|event| event["name"] == "inner" && event["cached"] == true)
}

#[test]
fn the_outer_run_traces_the_tests_of_the_inner_run() {
    let dir = nested();
    if !can_trace(&dir) {
        return;
    }
    let outer = || of_outer(&greenwave(&dir, "p", ["--format", "json"]).run());
    let (passed, _, events) = outer();
    assert!(passed && !is_cached(&events));
    assert_eq!(events.last().unwrap()["tracing"], "traced_by_outer");
    until("the outer result is cached", || outer().1);
    // A file that the inner test reads, and a directory that it lists.
    for (path, before, after) in [("p/inner/data.txt", Some("1"), "2"), ("p/inner/in/b.txt", None, "1")] {
        dir.write(path, after);
        assert_eq!((outer().0, outer().1), (false, false), "{path}");
        match before {
            Some(text) => dir.write(path, text),
            None => fs::remove_file(dir.path(path)).unwrap(),
        }
        until("the outer result is cached", || outer().1);
    }
}

#[test]
fn the_outer_run_depends_on_the_dependencies_of_cached_inner_results() {
    let dir = nested();
    if !can_trace(&dir) {
        return;
    }
    // A run of the inner project stores the result in the cache of the outer run.
    until("the inner result is cached", || {
        verdicts(&greenwave(&dir, "p/inner", ["--format", "json"]).run())
            == [("inner".to_owned(), true, true)]
    });
    for (round, path, before, after) in
        [("1", "p/inner/data.txt", Some("1"), "2"), ("2", "p/inner/in/b.txt", None, "1")]
    {
        dir.write("p/round", round);
        let outer = || of_outer(&greenwave(&dir, "p", ["--format", "json"]).run());
        let (passed, cached, events) = outer();
        assert!(passed && !cached && is_cached(&events), "the inner result is cached: {events:?}");
        until("the outer result is cached", || outer().1);
        dir.write(path, after);
        assert_eq!(
            (outer().0, outer().1),
            (false, false),
            "{path} is a dependency of the cached inner result"
        );
        match before {
            Some(text) => dir.write(path, text),
            None => fs::remove_file(dir.path(path)).unwrap(),
        }
    }
}

#[test]
fn an_inner_run_shares_the_jobserver() {
    let program = env!("CARGO_BIN_EXE_greenwave");
    // Prints the pipe of the jobserver.
    let pipe = "readlink /proc/self/fd/$(echo $CARGO_MAKEFLAGS | sed 's/.*--jobserver-auth=//; s/,.*//')";
    let outer = format!(
        "[[test]]\nname = \"outer\"\ncommand = \"{pipe} && cd inner && {program} test --output all\"\ninputs = [\"/none\"]\n"
    );
    let inner = format!("[[test]]\nname = \"inner\"\ncommand = \"{pipe}\"\n");
    let dir = TestDir::empty()
        .with("p/greenwave.toml", outer)
        .with("p/none", "")
        .with("p/inner/greenwave.toml", inner);
    let finished = greenwave(&dir, "p", ["--output", "all"]).run().with_code(0);
    let pipes: Vec<&str> = finished.stdout.lines().filter(|line| line.starts_with("pipe:[")).collect();
    assert_eq!(pipes.len(), 2, "{}", finished.stdout);
    assert_eq!(pipes[0], pipes[1]);
}

#[test]
fn a_test_has_the_same_environment_with_and_without_a_cache() {
    // `SigQ` is left out: it counts the pending signals of all processes of this user.
    let shown = "env -0 | sort -z | tr '\\\\0' '\\\\n'; pwd; umask; ulimit -a; ls -l /proc/self/fd/; cat /proc/self/status | grep -E '^(Sig[^Q]|Seccomp|NoNewPrivs|Cap|Uid|Groups)'; ps -o sid= -p $$ > /dev/null";
    let config = format!("[[test]]\nname = \"t\"\ncommand = \"{shown}\"\nenv = [\"GIVEN\"]\n");
    let dir = TestDir::empty().with("p/greenwave.toml", config).with("p/a", "");
    let seen = |args: &[&str]| {
        let args = ["--format", "json"].into_iter().chain(args.iter().copied());
        let finished = greenwave(&dir, "p", args).variable("GIVEN", "x").run().with_code(0);
        let events = finished.report();
        let output = events.iter().find(|event| event["event"] == "test").unwrap()["output"].clone();
        normal(output.as_str().unwrap())
    };
    let with = seen(&[]);
    assert!(with.contains("GREENWAVE_PORT_FIRST=#") && with.contains("GIVEN=x"), "{with}");
    assert_eq!(with, seen(&["--no-cache"]));
    assert_eq!(with, seen(&["--no-cache", "--set", "cache.enabled=true"]));
}

/// Returns the output without values that differ between runs: the temporary directory, ports,
/// processes, pipes and times.
fn normal(output: &str) -> String {
    let own = output.lines().find_map(|line| line.strip_prefix("TMPDIR=")).unwrap();
    let own = own.trim_end_matches("/tmp");
    let mut text = output.replace(own, "OWN");
    text.retain(|character| character != '\r');
    let line = |line: &str| {
        let is_listing = line.contains(" -> ");
        let line = if is_listing {
            line.split_whitespace().skip(8).collect::<Vec<_>>().join(" ")
        } else {
            line.to_owned()
        };
        let varies = is_listing || line.starts_with("GREENWAVE_PORT_FIRST=");
        if !varies {
            return line;
        }
        let hidden: String = line.chars().map(|it| if it.is_ascii_digit() { '#' } else { it }).collect();
        hidden.replace("##", "#").replace("##", "#").replace("##", "#")
    };
    text.lines().map(|it| line(it) + "\n").collect()
}
