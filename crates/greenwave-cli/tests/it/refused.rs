//! Answers that cannot be taken: each fails its own feature with a clear reason, skips those that depend on it,
//! and leaves the others, the project and everything outside alone.

use std::fs;
use std::os::unix::fs::symlink;

use crate::folder::Folder;
use crate::sketch::{self, Report, Sketch};

/// A folder whose project has links that agents might follow.
fn folder() -> Folder {
    let folder =
        Folder::with_project().with("outside/secret.txt", "secret\n").with("project/src/lib.txt", "lib\n");
    symlink("../outside", folder.path("project/out")).unwrap();
    symlink(folder.path("outside"), folder.path("project/absolute")).unwrap();
    symlink("src", folder.path("project/within")).unwrap();
    folder
}

/// Runs a plan in which an agent misbehaves: `reason` is why its one attempt is refused.
#[track_caller]
fn check(script: &str, reason: &str) -> Report {
    check_in(&folder(), Sketch::new("bad", script, "test -f wanted.txt"), reason)
}

#[track_caller]
fn check_in(folder: &Folder, bad: Sketch, reason: &str) -> Report {
    let report = run(folder, bad);
    assert_eq!(report.refusals("bad"), [reason]);
    assert_eq!(report.reason("bad"), format!("failed after 1 attempt: {reason}"));
    report
}

/// Runs a feature that fails with one that depends on it, one that depends on that, and one that does not. The
/// last becomes green, and nothing else is written.
#[track_caller]
fn run(folder: &Folder, bad: Sketch) -> Report {
    let others = [
        Sketch::new("after", "answer after.txt a", "test -f after.txt").after("bad"),
        Sketch::new("later", "answer later.txt l", "test -f later.txt").after("after"),
        Sketch::new("apart", "answer apart.txt a", "test -f apart.txt"),
    ];
    let features: Vec<_> = std::iter::once(bad).chain(others).collect();
    let mut expected = folder.files("");
    folder.write("plan.toml", sketch::plan(&features));
    expected.insert("plan.toml".to_owned(), folder.read("plan.toml"));
    expected.insert("project/apart.txt".to_owned(), "a\n".to_owned());

    let report = Report::of(&folder.run_plan().with_code(1));
    let phases = [("bad", "failed"), ("after", "skipped"), ("later", "skipped"), ("apart", "green")];
    assert_eq!(report.phases(), phases);
    assert_eq!(report.reason("after"), "depends on `bad`, which failed");
    assert_eq!(report.reason("later"), "depends on `bad`, which failed");
    assert_eq!(folder.files(""), expected);
    assert_eq!(fs::read_dir(folder.path("project/.greenwave/work")).unwrap().count(), 0, "copies are left");
    report
}

#[test]
fn files_outside_the_project() {
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
fn files_behind_links_that_lead_outside() {
    for link in ["out", "absolute"] {
        let reason =
            format!("invalid path `{link}/new.txt`: the symbolic link `{link}` leads out of the project");
        check(&format!("answer {link}/new.txt x"), &reason);
    }
    let reason = "invalid path `out`: the symbolic link `out` leads out of the project";
    check("answer out x", reason);
}

/// A relative link can lead to another place from a feature's copy than from the project itself. Where it leads
/// in the project is what counts.
#[test]
fn files_behind_links_that_lead_outside_of_the_project_alone() {
    let folder = Folder::with_project().with("bad/secret.txt", "secret\n");
    // In the copy, which is named after the feature, the link leads to the copy itself.
    symlink("../bad", folder.path("project/link")).unwrap();
    let reason = "invalid path `link/new.txt`: the symbolic link `link` leads out of the project";
    check_in(&folder, Sketch::new("bad", "answer link/new.txt x", "test -f link/new.txt"), reason);
}

#[test]
fn files_that_belong_to_others() {
    for path in [".git/hooks/pre-commit", "src/.GIT/config", ".greenwave/journal", ".jj/x"] {
        let folder = path.split('/').find(|part| part.starts_with('.')).unwrap();
        let reason = format!("invalid path `{path}`: agents may not write to `{folder}`");
        check(&format!("answer {path} x"), &reason);
    }
}

#[test]
fn names_that_are_none() {
    check("answer src x", "invalid path `src`: `src` is in the way");
    check("answer keep.txt/x.txt x", "invalid path `keep.txt/x.txt`: `keep.txt` is in the way");
    // These name no file, so the block that follows is none.
    check("answer src/ x", "the answer (26 bytes) contains no file");
    check("answer . x", "the answer (23 bytes) contains no file");
}

#[test]
fn answers_without_files() {
    check("true", "the answer (0 bytes) contains no file");
    check("cat > /dev/null", "the answer (0 bytes) contains no file");
    check("echo I would rather not.", "the answer (20 bytes) contains no file");
    check("printf '\\377\\376\\000\\200garbage\\n\\033[31m```\\n'", "the answer (21 bytes) contains no file");
    check("yes garbage | head -c 300000", "the answer (300000 bytes) contains no file");
}

#[test]
fn answers_that_break_off() {
    let reason = "file `wanted.txt` is cut off by the end of the answer";
    check("printf '```text wanted.txt\\nhalf'", reason);
    let reason = "agent command `sh` ended with exit status: 3; standard error: out of tokens";
    check("answer wanted.txt x; echo out of tokens >&2; exit 3", reason);
    check("kill -9 $$", "agent command `sh` ended with signal: 9 (SIGKILL)");
}

#[test]
fn answers_that_never_end() {
    for script in ["exec sleep 50", "answer wanted.txt x; exec sleep 50", "while :; do echo more; done"] {
        let bad = Sketch::new("bad", script, "test -f wanted.txt").agent("time_limit = \"300ms\"");
        let report = run(&folder(), bad);
        // Two limits of the same length: which of them is told is chance, and so is how much had come by then.
        let refusals = report.refusals("bad");
        let reasons = [
            "the answer did not end within 300ms",
            "agent command `sh` did not end within 300ms and was killed",
        ];
        assert!(reasons.iter().any(|reason| refusals[0].starts_with(reason)), "{refusals:?}");
    }
}

/// An answer is whole when the agent has ended, whatever it has left running.
#[test]
fn answers_of_agents_that_leave_something_running() {
    let script = "sleep 50 & answer wanted.txt x";
    let plan = sketch::plan(&[Sketch::new("one", script, "test -f wanted.txt").agent("time_limit = \"5s\"")]);
    let folder = Folder::with_project().with("plan.toml", plan);
    assert_eq!(Report::of(&folder.run_plan().with_code(0)).phases(), [("one", "green")]);
}

/// A gigabyte, as prose, as one line of a file, as many lines of a file: none of it piles up in memory.
#[test]
fn answers_without_measure() {
    let reason = "the answer is longer than 16000000 bytes (agent.answer_limit)";
    for script in [
        "head -c 1G /dev/zero",
        "printf '```text wanted.txt\\n'; head -c 1G /dev/zero",
        "printf '```text wanted.txt\\n'; yes | head -c 1G",
        "yes 'answer' | head -c 1G",
    ] {
        let report = check(script, reason);
        assert!(report.total("memory_peak_mb") < 100, "{} MB for {script}", report.total("memory_peak_mb"));
    }
}

#[test]
fn agents_that_do_not_start() {
    let folder = folder();
    let features = sketch::plan(&[
        Sketch::new("bad", "", "test -f wanted.txt"),
        Sketch::new("apart", "answer apart.txt a", "test -f apart.txt"),
    ]);
    let (_, rest) = features.split_once("''']").unwrap();
    folder.write(
        "plan.toml",
        format!(
            "project = \"project\"\n[agents.bad]\nkind = \"command\"\ncommand = [\"no-such-agent\"]{rest}"
        ),
    );
    let report = Report::of(&folder.run_plan().with_code(1));
    assert_eq!(report.phases(), [("bad", "failed"), ("apart", "green")]);
    assert_eq!(
        report.reason("bad"),
        "cannot send the request to the agent: cannot start agent command `no-such-agent` in ./project/.greenwave/work/bad: \
         No such file or directory (os error 2)"
    );
}

/// What was wrong with an answer is told to the agent, and files of a refused answer do not come into the project.
#[test]
fn files_of_refused_answers_are_not_kept() {
    let script = "if grep -q 'attempt 2 of 3'; then answer good.txt x; else answer junk.txt x; answer ../bad.txt x; fi";
    let feature = Sketch::new("one", script, "test -f good.txt").attempts(3);
    let folder = Folder::with_project().with("plan.toml", sketch::plan(&[feature]));
    let report = Report::of(&folder.run_plan().with_code(0));
    assert_eq!(report.refusals("one").len(), 1);
    let files: Vec<_> = folder.files("project").into_keys().collect();
    assert_eq!(files, ["good.txt", "keep.txt"]);
}

#[test]
fn agents_are_told_why_they_were_refused() {
    let script = "if grep -q 'a path without `..`'; then answer good.txt x; else answer ../bad.txt x; fi";
    let feature = Sketch::new("one", script, "test -f good.txt").attempts(2);
    let folder = Folder::with_project().with("plan.toml", sketch::plan(&[feature]));
    assert_eq!(Report::of(&folder.run_plan().with_code(0)).questions(), 2);
}
