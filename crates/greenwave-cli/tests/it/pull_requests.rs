//! Results as a pull request: the text with the evidence, and its creation by a script that plays
//! `gh`.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use crate::program::Program;
use crate::shell_plan::{self, Report, ShellFeature};
use crate::test_dir::TestDir;

/// Creates one pull request, and refuses a second one. Logs its arguments and its standard input.
const GH: &str = r#"#!/bin/sh
cd "$(dirname "$0")/.."
{ echo "gh $*"; cat; } >> log
if [ "$2" = create ] && test -e created; then
    echo 'a pull request for branch "greenwave/plan" already exists' >&2
    exit 1
fi
: > created
echo https://github.com/o/r/pull/7
"#;

fn git(dir: &TestDir, args: &[&str]) -> String {
    let mut call = Command::new("git");
    call.current_dir(dir.path("project")).args(["-c", "user.name=u", "-c", "user.email=u@u"]).args(args);
    let output = call.output().unwrap();
    assert!(output.status.success(), "{args:?}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// Creates a project with a remote, a plan and a script that plays `gh`.
fn project(features: &[ShellFeature]) -> TestDir {
    let dir = TestDir::with_project().with("bin/gh", GH);
    fs::set_permissions(dir.path("bin/gh"), PermissionsExt::from_mode(0o755)).unwrap();
    dir.write("plan.toml", format!("result = \"pr\"\n{}", shell_plan::plan(features)));
    git(&dir, &["init", "-q"]);
    git(&dir, &["init", "-q", "--bare", "../remote"]);
    git(&dir, &["remote", "add", "origin", "../remote"]);
    git(&dir, &["add", "-A"]);
    git(&dir, &["commit", "-qm", "start"]);
    dir
}

fn run(dir: &TestDir, options: &[&str]) -> Program {
    let path = format!("{}:{}", dir.path("bin").display(), std::env::var("PATH").unwrap());
    let args = ["run", "plan.toml", "--no-metrics", "--format", "json"];
    dir.greenwave(args.iter().chain(options).copied()).variable("PATH", path)
}

fn remote_branches(dir: &TestDir) -> String {
    git(dir, &["ls-remote", "--heads", "origin"])
}

#[test]
fn the_text_has_evidence_and_nothing_is_pushed() {
    let features = [
        ShellFeature::new("one", "echo x > one.txt", "test -f one.txt").lines("title = \"The first\""),
        ShellFeature::new("two", "false", "test -f two.txt"),
    ];
    let dir = project(&features);
    // A run in which some feature failed has a pull request, which is not created.
    let finished = run(&dir, &["--create-pr"]).run().with_code(1);
    assert_eq!(Report::of(&finished).count("pull_request"), 1);
    let text = dir.read("project/.greenwave/pull-requests/plan.md");
    for part in [
        "# The first\n\n",
        "| `one`: The first | test `one` failed with exit code 1 | 1 | - |\n",
        "- `two`, failed: `failed after 1 attempt: ",
        "git switch greenwave/plan\nsh -c 'test -f one.txt'\n",
    ] {
        assert!(text.contains(part), "{part:?} in {text}");
    }
    assert!(!dir.path("log").exists());
    assert_eq!(remote_branches(&dir), "");
}

#[test]
fn gh_creates_the_pull_request_once_every_feature_is_green() {
    let dir = project(&[ShellFeature::new("one", "echo x > one.txt", "test -f one.txt")]);
    let finished = run(&dir, &["--create-pr"]).run().with_code(0);
    let events = finished.events();
    let created = events.iter().find(|event| event["event"] == "pull_request").expect("there is one");
    assert_eq!(created["url"], "https://github.com/o/r/pull/7");
    let log = dir.read("log");
    let text = dir.read("project/.greenwave/pull-requests/plan.md");
    let (_, body) = text.split_once("# one\n\n").unwrap();
    assert_eq!(log, format!("gh pr create --head greenwave/plan --title one --body-file -\n{body}"));
    assert!(remote_branches(&dir).contains("refs/heads/greenwave/plan"));

    // The next run updates it.
    fs::remove_file(dir.path("log")).unwrap();
    run(&dir, &["--create-pr"]).run().with_code(0);
    let log = dir.read("log");
    let calls: Vec<&str> = log.lines().filter(|line| line.starts_with("gh ")).collect();
    let edit = "gh pr edit greenwave/plan --title one --body-file -";
    assert_eq!((calls.len(), calls[1]), (2, edit), "{log}");
}

#[test]
fn a_failure_names_what_to_do() {
    let dir = project(&[ShellFeature::new("one", "echo x > one.txt", "test -f one.txt")]);
    dir.write(
        "bin/gh",
        "#!/bin/sh\necho 'To get started with GitHub CLI, please run: gh auth login' >&2\nexit 4\n",
    );
    let error = run(&dir, &["--create-pr"]).run().with_code(2).stderr;
    for part in [
        "cannot create a pull request with `gh`: To get started with GitHub CLI, please run: gh auth login",
        "hint: create it by hand from the branch, with the text in ./project/.greenwave/pull-requests/plan.md",
    ] {
        assert!(error.contains(part), "{error}");
    }
    let plan = dir.read("plan.toml").replace("result = \"pr\"", "");
    dir.write("plan.toml", plan);
    let error = run(&dir, &["--create-pr"]).run().with_code(2).stderr;
    assert!(
        error.contains("cannot create a pull request: the plan does not set `result = \"pr\"`"),
        "{error}"
    );
}
