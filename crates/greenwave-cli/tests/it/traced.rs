//! Whether tests are traced, and what is said and believed where they are not: inside another run, in sandboxes, and where it is required.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use serde_json::Value;

use crate::folder::Folder;
use crate::program::{Finished, Program, until};
use crate::tested::verdicts;

/// A program in whose place another runs, which cannot trace: by `deny`, since calls for filters are refused, and by `listen`, since somebody else
/// listens already.
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

/// The sandbox, built; `None` where that is not possible.
fn sandbox(folder: &Folder) -> Option<PathBuf> {
    let (source, program) = (folder.path("sandbox.c"), folder.path("sandbox"));
    fs::write(&source, SANDBOX).unwrap();
    let built = Command::new("cc").arg("-o").arg(&program).arg(&source).output();
    let is_built = built.is_ok_and(|output| output.status.success());
    let is_required = std::env::var_os("GREENWAVE_REQUIRE_SERVICES").is_some_and(|value| value == "1");
    assert!(is_built || !is_required, "there is no C compiler");
    if !is_built {
        println!("SKIPPED: there is no C compiler");
    }
    is_built.then_some(program)
}

/// One test that declares less than it reads, and one that declares all.
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

fn project() -> Folder {
    Folder::empty().with("p/greenwave.toml", TESTS).with("p/in.txt", "1").with("p/data.txt", "1")
}

fn greenwave<'a>(folder: &Folder, project: &str, args: impl IntoIterator<Item = &'a str>) -> Program {
    let args = ["test"].into_iter().chain(args);
    Program::new(args).within(&folder.path(project)).variable("XDG_CACHE_HOME", folder.path("cache"))
}

/// The same inside a sandbox.
fn confined(folder: &Folder, sandbox: &std::path::Path, kind: &str, args: &[&str]) -> Finished {
    let mut command = Command::new(sandbox);
    command.arg(kind).arg(env!("CARGO_BIN_EXE_greenwave")).arg("test").args(args);
    let program = Program::of(command).within(&folder.path("p"));
    program.variable("XDG_CACHE_HOME", folder.path("cache")).run()
}

fn last(finished: &Finished) -> Value {
    finished.events().pop().unwrap()
}

/// Whether tests can be traced at all where these tests run.
fn can_trace(folder: &Folder) -> bool {
    let finished = greenwave(folder, "p", ["--format", "json", "--no-cache"]).run();
    let can = last(&finished)["tracing"] == "traced";
    if !can {
        println!("SKIPPED: tracing is not there: {}", last(&finished));
    }
    can
}

#[test]
fn a_run_that_cannot_trace_says_so_everywhere() {
    let folder = project();
    let Some(sandbox) = sandbox(&folder) else { return };
    let (summary, junit) = (folder.path("summary.md"), folder.path("junit.xml"));
    for kind in SANDBOXES {
        let warning = "warning: tests are not traced, so that results rest on declared inputs alone: ";
        let says_so = || confined(&folder, &sandbox, kind, &[]).with_code(0).stdout.contains(warning);
        assert!(says_so());
        // Also where the answer is remembered, which it is when files have rested.
        until("an answer is remembered", || {
            assert!(says_so());
            folder.path("p/.greenwave/tests/answer").exists()
        });
        assert!(says_so());
        fs::remove_file(folder.path("p/.greenwave/tests/answer")).unwrap();
        let args =
            ["--format", "json", "--summary", summary.to_str().unwrap(), "--junit", junit.to_str().unwrap()];
        let finished = confined(&folder, &sandbox, kind, &args).with_code(0);
        assert_eq!(last(&finished)["tracing"], "unavailable");
        assert!(last(&finished)["tracing_problem"].is_string());
        assert!(fs::read_to_string(&summary).unwrap().contains("Tests were not traced"));
        assert!(fs::read_to_string(&junit).unwrap().contains("greenwave.not_traced"));
        let off = confined(&folder, &sandbox, kind, &["--set", "testing.trace=false"]).with_code(0);
        assert!(!off.stdout.contains(warning), "nobody wanted it");
    }
}

#[test]
fn what_is_required_and_cannot_be_had_is_an_error() {
    let folder = project();
    let Some(sandbox) = sandbox(&folder) else { return };
    for kind in SANDBOXES {
        let refused = confined(&folder, &sandbox, kind, &["--set", "testing.trace=required"]).with_code(2);
        assert!(refused.stderr.contains("error: tests cannot be traced: "), "{}", refused.stderr);
        assert!(refused.stderr.contains("\nhint: "), "{}", refused.stderr);
        assert!(!refused.stdout.contains("passed"), "{}", refused.stdout);
    }
    if can_trace(&folder) {
        greenwave(&folder, "p", ["--set", "testing.trace=required"]).run().with_code(0);
    }
    let wrong = greenwave(&folder, "p", ["--set", "testing.trace=sometimes"]).run().with_code(2);
    assert!(wrong.stderr.contains("true, false or \"required\""), "{}", wrong.stderr);
}

#[test]
fn an_untraced_result_is_not_believed_where_a_traced_run_saw_more() {
    let folder = project();
    let Some(sandbox) = sandbox(&folder) else { return };
    if !can_trace(&folder) {
        return;
    }
    let json = ["--format", "json"];
    let verdict = |name: &str, passed, known| (name.to_owned(), passed, known);
    // Nobody knows of it yet.
    confined(&folder, &sandbox, "deny", &json).with_code(0);
    let untraced = verdicts(&confined(&folder, &sandbox, "deny", &json));
    assert_eq!(untraced, [verdict("all", true, true), verdict("more", true, true)]);
    // Results of either kind are none of the other.
    until("traced results are cached", || {
        let traced = verdicts(&greenwave(&folder, "p", json).run());
        traced == [verdict("all", true, true), verdict("more", true, true)]
    });
    for untraced in [
        confined(&folder, &sandbox, "deny", &json),
        confined(&folder, &sandbox, "listen", &json),
        greenwave(&folder, "p", json.into_iter().chain(["--set", "testing.trace=false"])).run(),
    ] {
        let more = untraced.events().into_iter().find(|event| event["name"] == "more").unwrap();
        assert_eq!((&more["status"], &more["known"]), (&"passed".into(), &false.into()));
        assert!(more["not_kept"].as_str().unwrap().contains("seen to read more than it declares"));
    }
    folder.write("p/data.txt", "2");
    let untraced = verdicts(&confined(&folder, &sandbox, "deny", &json));
    assert_eq!(untraced, [verdict("all", true, true), verdict("more", false, false)]);
}

/// A project inside a project, whose test reads a file that nobody declares.
fn nested() -> Folder {
    let program = env!("CARGO_BIN_EXE_greenwave");
    let outer = format!(
        "[[test]]\nname = \"outer\"\ncommand = \"cd inner && {program} test --format json\"\ninputs = [\"/round\"]\n"
    );
    let inner = "[[test]]\nname = \"inner\"\ncommand = \"grep -q 1 data.txt && test $(ls in | wc -l) = 1\"\ninputs = [\"/in/**\"]\n";
    Folder::empty()
        .with("p/greenwave.toml", outer)
        .with("p/round", "0")
        .with("p/inner/greenwave.toml", inner)
        .with("p/inner/data.txt", "1")
        .with("p/inner/in/a.txt", "1")
}

/// What the outer run says of its test, and what the inner one printed.
fn of_outer(finished: &Finished) -> (bool, bool, Vec<Value>) {
    let outer = finished.events().into_iter().find(|event| event["name"] == "outer").unwrap();
    let lines = outer["output"].as_str().unwrap().lines().map(str::to_owned).collect::<Vec<_>>();
    let inner = lines.iter().filter_map(|line| serde_json::from_str(line).ok()).collect();
    (outer["status"] == "passed", outer["known"] == true, inner)
}

fn is_cached(events: &[Value]) -> bool {
    events.iter().any(|event| event["name"] == "inner" && event["known"] == true)
}

#[test]
fn a_run_inside_a_run_hides_nothing_from_the_outer_one() {
    let folder = nested();
    if !can_trace(&folder) {
        return;
    }
    let outer = || of_outer(&greenwave(&folder, "p", ["--format", "json"]).run());
    let (passed, _, events) = outer();
    assert!(passed && !is_cached(&events));
    assert_eq!(events.last().unwrap()["tracing"], "traced_by_outer");
    until("the outer result is cached", || outer().1);
    // A file that the inner test reads, and a name in a directory that it lists.
    for (path, before, after) in [("p/inner/data.txt", Some("1"), "2"), ("p/inner/in/b.txt", None, "1")] {
        folder.write(path, after);
        assert_eq!((outer().0, outer().1), (false, false), "{path}");
        match before {
            Some(text) => folder.write(path, text),
            None => fs::remove_file(folder.path(path)).unwrap(),
        }
        until("the outer result is cached", || outer().1);
    }
}

#[test]
fn a_result_that_an_inner_run_finds_is_as_good_as_a_run_for_the_outer_one() {
    let folder = nested();
    if !can_trace(&folder) {
        return;
    }
    // The inner project's own run has stored it, where the outer one stores its results.
    until("the inner result is cached", || {
        verdicts(&greenwave(&folder, "p/inner", ["--format", "json"]).run())
            == [("inner".to_owned(), true, true)]
    });
    for (round, path, before, after) in
        [("1", "p/inner/data.txt", Some("1"), "2"), ("2", "p/inner/in/b.txt", None, "1")]
    {
        folder.write("p/round", round);
        let outer = || of_outer(&greenwave(&folder, "p", ["--format", "json"]).run());
        let (passed, cached, events) = outer();
        assert!(passed && !cached && is_cached(&events), "the inner run found it: {events:?}");
        until("the outer result is cached", || outer().1);
        folder.write(path, after);
        assert_eq!((outer().0, outer().1), (false, false), "{path} was read by a test that did not run");
        match before {
            Some(text) => folder.write(path, text),
            None => fs::remove_file(folder.path(path)).unwrap(),
        }
    }
}

#[test]
fn a_run_inside_a_run_shares_the_jobserver() {
    let program = env!("CARGO_BIN_EXE_greenwave");
    // Which pipe the description of the jobserver leads to.
    let pipe = "readlink /proc/self/fd/$(echo $CARGO_MAKEFLAGS | sed 's/.*--jobserver-auth=//; s/,.*//')";
    let outer = format!(
        "[[test]]\nname = \"outer\"\ncommand = \"{pipe} && cd inner && {program} test --output all\"\ninputs = [\"/none\"]\n"
    );
    let inner = format!("[[test]]\nname = \"inner\"\ncommand = \"{pipe}\"\n");
    let folder = Folder::empty()
        .with("p/greenwave.toml", outer)
        .with("p/none", "")
        .with("p/inner/greenwave.toml", inner);
    let finished = greenwave(&folder, "p", ["--output", "all"]).run().with_code(0);
    let pipes: Vec<&str> = finished.stdout.lines().filter(|line| line.starts_with("pipe:[")).collect();
    assert_eq!(pipes.len(), 2, "{}", finished.stdout);
    assert_eq!(pipes[0], pipes[1]);
}

#[test]
fn a_test_sees_the_same_with_and_without_a_cache() {
    let shown = "env -0 | sort -z | tr '\\\\0' '\\\\n'; pwd; umask; ulimit -a; ls -l /proc/self/fd/; cat /proc/self/status | grep -E '^(Sig|Seccomp|NoNewPrivs|Cap|Uid|Groups)'; ps -o sid= -p $$ > /dev/null";
    let config = format!("[[test]]\nname = \"t\"\ncommand = \"{shown}\"\nenv = [\"GIVEN\"]\n");
    let folder = Folder::empty().with("p/greenwave.toml", config).with("p/a", "");
    let seen = |args: &[&str]| {
        let args = ["--format", "json"].into_iter().chain(args.iter().copied());
        let finished = greenwave(&folder, "p", args).variable("GIVEN", "x").run().with_code(0);
        let events = finished.events();
        let output = events.iter().find(|event| event["event"] == "test").unwrap()["output"].clone();
        normal(output.as_str().unwrap())
    };
    let with = seen(&[]);
    assert!(with.contains("GREENWAVE_PORT_FIRST=#") && with.contains("GIVEN=x"), "{with}");
    assert_eq!(with, seen(&["--no-cache"]));
    assert_eq!(with, seen(&["--no-cache", "--set", "cache.enabled=true"]));
}

/// Without what is another each time: the name of the test's own directory, and numbers of ports, processes, pipes and times.
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
        match varies {
            true => line
                .chars()
                .map(|it| if it.is_ascii_digit() { '#' } else { it })
                .collect::<String>()
                .replace("##", "#")
                .replace("##", "#")
                .replace("##", "#"),
            false => line,
        }
    };
    text.lines().map(|it| line(it) + "\n").collect()
}
