//! Agents that use git, leave processes behind and are killed together with the program, in a
//! repository with uncommitted work, a stash, a submodule and a linked worktree. Whatever happens,
//! only the result changes in the user's repository.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;

use rustix::process::Signal;

use crate::program::until;
use crate::random::random;
use crate::test_dir::{Files, TestDir};

/// Number of rounds, each with a new repository.
const ROUNDS: u64 = 2;
/// Variable with a larger number, for long runs.
const ROUNDS_VARIABLE: &str = "GREENWAVE_AGENT_ROUNDS";
const FEATURES: usize = 4;

/// Script of an agent. `MARK` identifies its processes.
const AGENT: &str = r#"
f=$(basename "$PWD"); exec 2>/dev/null >/dev/null
n=$(od -An -N1 -tu1 /dev/urandom | tr -d ' ')
(setsid sleep MARK &) ; setsid sh -c '(sleep MARK &)' & sleep MARK &
git status; git diff HEAD; echo junk > junk.txt; git add -A
case $((n % 7)) in
    0) git commit -qm junk; git reset -q --hard HEAD~1;;
    1) git stash -q; git stash drop -q;;
    2) git stash -q; git stash clear;;
    3) git checkout -q -- .; git rm -q --cached junk.txt; git clean -fdxq;;
    4) git checkout -q -b other; git branch -D main; git tag v9; git gc -q --prune=now;;
    5) git reset -q --hard; git clean -fdxq; git worktree prune;;
    *) git rm -q --cached junk.txt; git reflog expire --expire=now --all; git gc -q;;
esac
rm -f junk.txt
sleep 0.$((n % 5))
sed -i "s/^line $f\$/line $f done/" list.txt; echo x > $f.txt
test $((n % 2)) = 0 && git add -A && git commit -qm work
test $((n % 11)) = 0 && kill -9 $$
exit 0
"#;

/// State of the user's repository, as far as git shows it.
#[derive(Debug, PartialEq, Eq)]
struct Repository {
    refs: String,
    stash: String,
    index: String,
    worktrees: String,
    config: String,
    linked: Files,
    files: Files,
}

#[track_caller]
fn git(directory: &Path, args: &[&str]) -> String {
    let mut call = Command::new("git");
    call.current_dir(directory).args(["-c", "protocol.file.allow=always", "-c", "user.name=u"]);
    let output = call.args(["-c", "user.email=u@example.org"]).args(args).output().unwrap();
    assert!(output.status.success(), "git {args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn repository(dir: &TestDir) -> Repository {
    let project = dir.path("project");
    let files = |path: &str| -> Files {
        dir.files(path).into_iter().filter(|(path, _)| !path.split('/').any(|part| part == ".git")).collect()
    };
    Repository {
        refs: git(&project, &["for-each-ref"]),
        stash: git(&project, &["stash", "list"]),
        index: git(&project, &["ls-files", "-s"]),
        worktrees: git(&project, &["worktree", "list", "--porcelain"]),
        config: dir.read("project/.git/config"),
        linked: files("linked"),
        files: files("project"),
    }
}

/// Returns all objects of the user's repository.
fn objects(dir: &TestDir) -> BTreeSet<String> {
    let args = ["cat-file", "--batch-check=%(objectname)", "--batch-all-objects"];
    git(&dir.path("project"), &args).lines().map(str::to_owned).collect()
}

/// Creates the repository, with every kind of state that an agent could damage.
fn create(mark: &str, result: &str) -> TestDir {
    let ids = || (0..FEATURES).map(|at| format!("f{at}"));
    // The lines are far enough apart for changes of two features to be merged.
    let list: String = ids().map(|id| format!("line {id}\n.\n.\n.\n.\n")).collect();
    let mut plan = format!("project = \"project\"\nresult = \"{result}\"\nguards = \"off\"\n");
    plan.push_str("[agents.a]\nkind = \"command\"\nedits = \"directory\"\ncommand = [\"sh\", \"-c\", '''");
    plan.push_str(&format!("{}''']\n", AGENT.replace("MARK", mark)));
    for id in ids() {
        let test = format!("test -f {id}.txt && grep -q '^line {id} done' list.txt");
        plan.push_str(&format!(
            "[[features]]\nid = \"{id}\"\nagent = \"a\"\nprompt = \"p\"\nattempts = 20\n\
             [[features.tests]]\ncommand = [\"sh\", \"-c\", \"{test}\"]\n"
        ));
    }
    let dir = TestDir::with_project().with("plan.toml", plan).with("project/list.txt", list);
    let project = dir.path("project");
    fs::create_dir(dir.path("library")).unwrap();
    dir.write("library/code.txt", "library\n");
    for (at, args) in [
        ("library", &["init", "-q", "-b", "main"][..]),
        ("library", &["add", "-A"]),
        ("library", &["commit", "-qm", "library"]),
        ("project", &["init", "-q", "-b", "main"]),
        ("project", &["add", "-A"]),
        ("project", &["commit", "-qm", "first"]),
        ("project", &["submodule", "add", "-q", "../library", "library"]),
        ("project", &["commit", "-qm", "submodule"]),
        ("project", &["worktree", "add", "-q", "-b", "linked", "../linked"]),
    ] {
        git(&dir.path(at), args);
    }
    dir.write("project/keep.txt", "stashed\n");
    git(&project, &["stash", "-q"]);
    dir.write("project/staged.txt", "staged\n");
    git(&project, &["add", "staged.txt"]);
    dir.write("project/keep.txt", "uncommitted\n");
    dir.write("project/untracked.txt", "untracked\n");
    dir.write("linked/keep.txt", "uncommitted in the worktree\n");
    dir
}

/// Returns whether a process with this argument runs.
fn is_left(mark: &str) -> bool {
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    processes.into_iter().any(|process| {
        let arguments = fs::read(process.path().join("cmdline")).unwrap_or_default();
        arguments.split(|byte| *byte == 0).any(|argument| argument == mark.as_bytes())
    })
}

#[test]
fn agents_that_are_killed_change_nothing_but_the_result() {
    let given = std::env::var(ROUNDS_VARIABLE).ok().and_then(|rounds| rounds.parse().ok());
    let mut random = random();
    for round in 0..given.unwrap_or(ROUNDS) {
        let mark = format!("{}.{}", 30_000 + round, std::process::id());
        let is_branch = round % 2 == 1;
        let dir = create(&mark, if is_branch { "branch" } else { "files" });
        let (before, objects_before) = (repository(&dir), objects(&dir));
        for _ in 0..random.below(3) {
            let mut running = dir.plan().start();
            for _ in 0..random.below(45) {
                if running.line().is_none() {
                    break;
                }
            }
            running.signal(Signal::KILL);
            running.finish();
            until("no process of an agent is left", || !is_left(&mark));
        }
        dir.plan().run().with_code(0);
        until("no process of an agent is left", || !is_left(&mark));
        check(&dir, &before, &objects_before, is_branch);
    }
}

/// Checks that only the result differs, and has every feature once.
fn check(dir: &TestDir, before: &Repository, objects_before: &BTreeSet<String>, is_branch: bool) {
    let project = dir.path("project");
    assert!(objects(dir).is_superset(objects_before), "objects are lost");
    git(&project, &["fsck", "--connectivity-only"]);
    let mut now = repository(dir);
    let done = |list: &str| list.lines().filter(|line| line.ends_with(" done")).count();
    if is_branch {
        let branch = "greenwave/plan";
        now.refs =
            now.refs.lines().filter(|line| !line.contains(branch)).map(|line| format!("{line}\n")).collect();
        assert_eq!(git(&project, &["rev-list", "--count", &format!("main..{branch}")]).trim(), "4");
        assert_eq!(done(&git(&project, &["show", &format!("{branch}:list.txt")])), FEATURES);
    } else {
        assert_eq!(done(&dir.read("project/list.txt")), FEATURES);
        for at in 0..FEATURES {
            assert_eq!(now.files.remove(&format!("f{at}.txt")).as_deref(), Some("x\n"));
        }
        now.files.insert("list.txt".to_owned(), before.files["list.txt"].clone());
    }

    assert_eq!(&now, before);
}
