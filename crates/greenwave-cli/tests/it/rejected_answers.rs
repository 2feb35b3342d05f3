//! Answers that are rejected. Each fails its feature with a reason, skips the dependants, and
//! changes neither other features, nor the project, nor files outside it.

use std::fs;
use std::os::unix::fs::symlink;

use crate::shell_plan::{self, Report, ShellFeature};
use crate::test_dir::{STATE, TestDir};

/// Creates a project with symbolic links that agents might follow.
fn dir() -> TestDir {
    let dir =
        TestDir::with_project().with("outside/secret.txt", "secret\n").with("project/src/lib.txt", "lib\n");
    symlink("../outside", dir.path("project/out")).unwrap();
    symlink(dir.path("outside"), dir.path("project/absolute")).unwrap();
    symlink("src", dir.path("project/within")).unwrap();
    dir
}

/// Runs a plan with one bad agent and checks the reason why its attempt is rejected.
#[track_caller]
fn check(script: &str, reason: &str) -> Report {
    check_in(&dir(), ShellFeature::new("bad", script, "test -f wanted.txt"), reason)
}

#[track_caller]
fn check_in(dir: &TestDir, bad: ShellFeature, reason: &str) -> Report {
    let report = run(dir, bad);
    assert_eq!(report.rejections("bad"), [reason]);
    assert_eq!(report.reason("bad"), format!("failed after 1 attempt: {reason}"));
    report
}

/// Runs a failing feature with a dependant, a dependant of that, and an independent feature. Only
/// the independent one becomes green, and no other file is written.
#[track_caller]
fn run(dir: &TestDir, bad: ShellFeature) -> Report {
    let others = [
        ShellFeature::new("after", "answer after.txt a", "test -f after.txt").after("bad"),
        ShellFeature::new("later", "answer later.txt l", "test -f later.txt").after("after"),
        ShellFeature::new("apart", "answer apart.txt a", "test -f apart.txt"),
    ];
    let features: Vec<_> = std::iter::once(bad).chain(others).collect();
    let mut expected = dir.files("");
    dir.write("plan.toml", shell_plan::plan(&features));
    expected.insert("plan.toml".to_owned(), dir.read("plan.toml"));
    expected.insert("project/apart.txt".to_owned(), "a\n".to_owned());

    let report = Report::of(&dir.plan().run().with_code(1));
    let phases = [("bad", "failed"), ("after", "skipped"), ("later", "skipped"), ("apart", "green")];
    assert_eq!(report.phases(), phases);
    assert_eq!(report.reason("after"), "depends on `bad`, which failed");
    assert_eq!(report.reason("later"), "depends on `bad`, which failed");
    assert_eq!(dir.files(""), expected);
    // The user's state holds the key and the receipt of the green feature. No working copy is left.
    let state = fs::read_dir(dir.path(STATE).join("greenwave")).unwrap();
    let mut state: Vec<_> = state.map(|entry| entry.unwrap().file_name()).collect();
    state.sort();
    assert_eq!(state, ["green", "keys"]);
    report
}

#[test]
fn paths_outside_the_project_are_rejected() {
    check("answer ../wanted.txt x", "invalid path `../wanted.txt`: expected a path without `..`");
    check(
        "answer src/../../outside/new.txt x",
        "invalid path `src/../../outside/new.txt`: expected a path without `..`",
    );
    let outside = "/greenwave-test-that-must-not-be-written.txt";
    check(
        &format!("answer {outside} x"),
        &format!("invalid path `{outside}`: expected a path relative to the project"),
    );
    assert!(!fs::exists(outside).unwrap());
}

#[test]
fn links_that_leave_the_project_are_rejected() {
    for link in ["out", "absolute"] {
        let reason =
            format!("invalid path `{link}/new.txt`: the symbolic link `{link}` leads out of the project");
        check(&format!("answer {link}/new.txt x"), &reason);
    }
    let reason = "invalid path `out`: the symbolic link `out` leads out of the project";
    check("answer out x", reason);
}

/// A relative link may stay inside the working copy and leave the project, where the file is merged
/// to.
#[test]
fn links_that_leave_only_the_project_are_rejected() {
    let dir = TestDir::with_project().with("bad/secret.txt", "secret\n");
    // The working copy is named after the feature, so there the link leads to the copy itself.
    symlink("../bad", dir.path("project/link")).unwrap();
    let reason = "invalid path `link/new.txt`: the symbolic link `link` leads out of the project";
    check_in(&dir, ShellFeature::new("bad", "answer link/new.txt x", "test -f link/new.txt"), reason);
}

#[test]
fn paths_in_the_directories_of_other_tools_are_rejected() {
    for path in [".git/hooks/pre-commit", "src/.GIT/config", ".greenwave/journal", ".jj/x"] {
        let dir = path.split('/').find(|part| part.starts_with('.')).unwrap();
        let reason = format!("invalid path `{path}`: agents may not write to `{dir}`");
        check(&format!("answer {path} x"), &reason);
    }
}

#[test]
fn paths_that_cannot_be_files_are_rejected() {
    check("answer src x", "invalid path `src`: `src` exists with another file type");
    check(
        "answer keep.txt/x.txt x",
        "invalid path `keep.txt/x.txt`: `keep.txt` exists with another file type",
    );
    // The block of a path that names no file is not a file.
    check("answer src/ x", &empty(26, "```text path=\\\"src/\\\"\\nx\\n```"));
    check("answer . x", &empty(23, "```text path=\\\".\\\"\\nx\\n```"));
}

/// Returns the reason why an answer without a file is rejected, given its escaped last words.
fn empty(bytes: usize, words: &str) -> String {
    let words = if words.is_empty() { String::new() } else { format!("; it ends with \"{words}\"") };
    format!("the agent changed no file, and its answer ({bytes} bytes) contains none{words}")
}

#[test]
fn answers_without_files_are_rejected() {
    check("true", &empty(0, ""));
    check("cat > /dev/null", &empty(0, ""));
    check("echo I would rather not.", &empty(20, "I would rather not."));
}

#[test]
fn incomplete_answers_are_rejected() {
    let reason = "file `wanted.txt` is cut off by the end of the answer";
    check("printf '```text wanted.txt\\nhalf'", reason);
    let reason = "agent command `sh` ended with exit status: 3; standard error: out of tokens";
    check("answer wanted.txt x; echo out of tokens >&2; exit 3", reason);
    check("kill -9 $$", "agent command `sh` ended with signal: 9 (SIGKILL)");
}

#[test]
fn endless_answers_are_rejected() {
    for script in ["exec sleep 50", "answer wanted.txt x; exec sleep 50", "while :; do echo more; done"] {
        let bad = ShellFeature::new("bad", script, "test -f wanted.txt").agent("time_limit = \"300ms\"");
        let report = run(&dir(), bad);
        // Two limits of equal length apply; either may expire first.
        let rejections = report.rejections("bad");
        let reasons = [
            "the answer did not end within 300ms",
            "agent command `sh` did not end within 300ms and was killed",
        ];
        assert!(reasons.iter().any(|reason| rejections[0].starts_with(reason)), "{rejections:?}");
    }
}

/// An answer is complete when the agent exits, even if a child of it holds the pipe open.
#[test]
fn an_agent_may_leave_a_process_behind() {
    let script = "sleep 50 & answer wanted.txt x";
    let plan = shell_plan::plan(&[
        ShellFeature::new("one", script, "test -f wanted.txt").agent("time_limit = \"5s\"")
    ]);
    let dir = TestDir::with_project().with("plan.toml", plan);
    assert_eq!(Report::of(&dir.run_plan().with_code(0)).phases(), [("one", "green")]);
}

/// Answers of a gigabyte, as prose and as files with one or many lines, are not collected in
/// memory.
#[test]
fn answers_above_the_limit_are_rejected() {
    for (script, limit) in [
        ("head -c 1G /dev/zero", None),
        ("printf '```text wanted.txt\\n'; head -c 1G /dev/zero", None),
        ("printf '```text wanted.txt\\n'; yes | head -c 1G", Some(1_000_000)),
        ("yes 'answer' | head -c 1G", Some(1_000_000)),
    ] {
        let bytes = limit.unwrap_or(16_000_000);
        let reason = format!("the answer is longer than {bytes} bytes (agent.answer_limit)");
        let mut dir = dir();
        if let Some(limit) = limit {
            dir = dir.with("project/greenwave.toml", format!("[agent]\nanswer_limit = {limit}\n"));
        }
        let report = check_in(&dir, ShellFeature::new("bad", script, "test -f wanted.txt"), &reason);
        assert!(report.total("memory_peak_mb") < 100, "{} MB for {script}", report.total("memory_peak_mb"));
    }
}

#[test]
fn answers_with_too_many_files_are_rejected() {
    let report = check(
        "seq 50001 | sed 's/.*/```text f&.txt\\nx\\n```/'",
        "the answer has more than 50000 files and edits",
    );
    assert!(report.total("memory_peak_mb") < 200, "{} MB", report.total("memory_peak_mb"));
}

#[test]
fn agents_that_do_not_exist_are_found_before_the_run() {
    let dir = dir();
    let features = shell_plan::plan(&[
        ShellFeature::new("bad", "", "test -f wanted.txt"),
        ShellFeature::new("apart", "answer apart.txt a", "test -f apart.txt"),
    ]);
    let (_, rest) = features.split_once("''']").unwrap();
    dir.write(
        "plan.toml",
        format!(
            "project = \"project\"\n[agents.bad]\nkind = \"command\"\ncommand = [\"no-such-agent\"]{rest}"
        ),
    );
    let finished = dir.run_plan().with_code(2);
    assert_eq!(finished.stdout, "");
    assert_eq!(
        finished.stderr,
        "error: plan.toml:2:9: cannot find program `no-such-agent` of agent `bad`\n  |\n2 | [agents.bad]\n  \
         |         ^^^\nhint: install `no-such-agent`, or correct `command`\n"
    );
}

#[test]
fn files_of_rejected_answers_are_removed() {
    let script = "if grep -q 'attempt 2 of 3'; then answer good.txt x; else answer junk.txt x; answer ../bad.txt x; fi";
    let feature = ShellFeature::new("one", script, "test -f good.txt").attempts(3);
    let dir = TestDir::with_project().with("plan.toml", shell_plan::plan(&[feature]));
    let report = Report::of(&dir.run_plan().with_code(0));
    assert_eq!(report.rejections("one").len(), 1);
    let files: Vec<_> = dir.files("project").into_keys().collect();
    assert_eq!(files, ["good.txt", "keep.txt"]);
}

#[test]
fn the_next_prompt_contains_the_reason_of_the_rejection() {
    let script = "if grep -q 'a path without `..`'; then answer good.txt x; else answer ../bad.txt x; fi";
    let feature = ShellFeature::new("one", script, "test -f good.txt").attempts(2);
    let dir = TestDir::with_project().with("plan.toml", shell_plan::plan(&[feature]));
    assert_eq!(Report::of(&dir.run_plan().with_code(0)).requests(), 2);
}
