//! Plans in a part of a repository, and results on a branch.

use std::process::Command;

use serde_json::Value;

use crate::shell_plan::{self, Report, ShellFeature};
use crate::test_dir::TestDir;

fn git(dir: &TestDir, args: &[&str]) {
    let mut call = Command::new("git");
    call.current_dir(dir.path("project")).args(["-c", "user.name=u", "-c", "user.email=u@u"]).args(args);
    let output = call.output().unwrap();
    assert!(output.status.success(), "{args:?}: {output:?}");
}

fn repository(dir: &TestDir) {
    git(dir, &["init", "-q"]);
    git(dir, &["add", "-A"]);
    git(dir, &["commit", "-qm", "start"]);
}

/// Changed and new files in a submodule are in the copies. They count as uncommitted work.
#[test]
fn work_in_submodules_is_uncommitted_work() {
    let dir =
        TestDir::with_project().with("project/library/a.txt", "1\n").with("project/library/b.txt", "1\n");
    let script = "cat library/a.txt library/new.txt > one.txt";
    dir.write("plan.toml", shell_plan::plan(&[ShellFeature::new("one", script, "test -f one.txt")]));
    git(&dir, &["init", "-q", "library"]);
    git(&dir, &["-C", "library", "add", "-A"]);
    git(&dir, &["-C", "library", "commit", "-qm", "library"]);
    git(&dir, &["init", "-q"]);
    git(&dir, &["-c", "advice.addEmbeddedRepo=false", "add", "-A"]);
    git(&dir, &["commit", "-qm", "start"]);
    dir.write("project/library/a.txt", "2\n");
    dir.write("project/library/new.txt", "new\n");
    let finished = dir.run_plan().with_code(0);
    let events = finished.events();
    let base = events.iter().find(|event| event["event"] == "base").expect("the run names its base");
    assert_eq!(base["uncommitted"], 2);
    let note = Report::of(&finished).notes("submodule-work")[0].to_owned();
    assert!(note.ends_with("where `git status` does not show it: `library` (2)"), "{note}");
    assert_eq!(dir.read("project/one.txt"), "2\nnew\n");
}

/// A developer may put a link to another checkout in the place of a submodule, and so may an agent.
#[test]
fn a_link_in_the_place_of_a_submodule_is_not_followed() {
    let dir = TestDir::with_project().with("elsewhere/a.txt", "1\n").with("project/below/b.txt", "1\n");
    let script = "test -h library && rm -r below && ln -s ../elsewhere below && echo 2 > library/a.txt; \
                  test $GREENWAVE_ATTEMPT = 1 || { rm below; mkdir below; echo x > one.txt; }";
    let one = ShellFeature::new("one", script, "test -f one.txt").attempts(2);
    dir.write("plan.toml", shell_plan::plan(&[one]));
    git(&dir, &["-C", "../elsewhere", "init", "-q"]);
    git(&dir, &["-C", "../elsewhere", "add", "-A"]);
    git(&dir, &["-C", "../elsewhere", "commit", "-qm", "library"]);
    let head = Command::new("git").args(["rev-parse", "HEAD"]).current_dir(dir.path("elsewhere")).output();
    let head = String::from_utf8(head.unwrap().stdout).unwrap();
    git(&dir, &["init", "-q"]);
    git(&dir, &["add", "keep.txt"]);
    std::os::unix::fs::symlink("../elsewhere", dir.path("project/library")).unwrap();
    for name in ["library", "below"] {
        git(&dir, &["update-index", "--add", "--cacheinfo", &format!("160000,{},{name}", head.trim())]);
    }
    git(&dir, &["commit", "-qm", "start"]);
    let report = Report::of(&dir.run_plan().with_code(0));
    assert_eq!((report.phases(), report.rejections("one").len()), (vec![("one", "green")], 1));
    assert_eq!((dir.read("elsewhere/a.txt"), dir.read("project/one.txt")), ("1\n".into(), "x\n".into()));
    assert!(dir.path("project/library").is_symlink());
}

/// The commits of the results are gone after a squash, and their files are in the project.
#[test]
fn results_that_were_squashed_stay_green() {
    let dir = TestDir::with_project();
    let one = ShellFeature::new("one", "echo x > one.txt", "test -f one.txt");
    let two = ShellFeature::new("two", "echo y > two.txt", "test -f two.txt").after("one");
    dir.write("plan.toml", format!("result = \"branch\"\n{}", shell_plan::plan(&[one, two])));
    repository(&dir);
    dir.run_plan().with_code(0);
    git(&dir, &["merge", "-q", "--squash", "greenwave/plan"]);
    git(&dir, &["commit", "-qm", "squashed"]);
    git(&dir, &["branch", "-D", "greenwave/plan"]);
    let finished = dir.run_plan().with_code(0);
    let report = Report::of(&finished);
    assert_eq!(report.phases(), [("one", "green"), ("two", "green")]);
    assert_eq!(report.requests(), 0);
}

/// Guards that are discovered are those of the plan's project, not of the repository around it.
#[test]
fn guards_of_a_subdirectory_are_its_own() {
    let test = |name: &str| format!("def test_{name}():\n    assert open('{name}').read() == 'ok\\n'\n");
    let dir = TestDir::empty()
        .with("project/elsewhere/test_other.py", "def test_slow():\n    assert False\n")
        .with("project/part/test_kept.py", test("kept"))
        .with("project/part/pytest.ini", "[pytest]\n")
        .with("project/part/kept", "ok\n");
    if Command::new("python3").args(["-c", "import pytest"]).status().map_or(true, |status| !status.success())
    {
        return;
    }
    let breaks = ShellFeature::new("one", "echo x > one.txt; echo broken > kept", "test -f one.txt");
    let plan = shell_plan::plan(&[breaks]).replace("\"project\"", "\"project/part\"");
    dir.write("plan.toml", plan);
    repository(&dir);
    let finished = dir.run_plan().with_code(1);
    let reason = Report::of(&finished).reason("one").to_owned();
    assert!(reason.contains("test_kept.py"), "{reason}: {finished:?}");
    let notes = finished.events();
    let failing = notes.iter().filter(|event: &&Value| event["code"] == "guards-failing").count();
    assert_eq!(failing, 0, "{notes:?}");
}

/// A linked worktree and a pipe in the copy are scratch.
#[test]
fn scratch_of_an_agent_is_left_out() {
    let dir = TestDir::with_project();
    let script = "git worktree add -q ./scratch; mkfifo pipe; echo x > one.txt";
    dir.write("plan.toml", shell_plan::plan(&[ShellFeature::new("one", script, "test -f one.txt")]));
    repository(&dir);
    let events = dir.run_plan().with_code(0).events();
    let not_taken: Vec<&Value> = events.iter().filter(|event| event["event"] == "not_taken").collect();
    assert!(not_taken.len() == 1 && not_taken[0]["path"] == "pipe", "{not_taken:?}");
    assert!(dir.path("project/one.txt").exists());
    assert!(!dir.path("project/scratch").exists() && !dir.path("project/pipe").exists());
}

/// An agent that is not confined reaches the directory in which results are committed.
#[test]
fn what_lies_beside_the_copies_does_not_hinder_commits() {
    let dir = TestDir::with_project().with("precious", "precious\n");
    let precious = dir.path("precious").display().to_string();
    let script = format!(
        "for above in ../.. ../../..; do mkdir -p $above/index.branch/x; ln -s {precious} \
         $above/index.branch.lock; done; answer one.txt x"
    );
    let one = ShellFeature::new("one", &script, "test -f one.txt");
    dir.write("plan.toml", format!("result = \"branch\"\n{}", shell_plan::unconfined(&[one])));
    repository(&dir);
    dir.run_plan().with_code(0);
    assert_eq!(dir.read("precious"), "precious\n");
    git(&dir, &["cat-file", "-e", "greenwave/plan:one.txt"]);
}

/// Commits and stashes of an agent end with its copy. If no file has changed, the reason names
/// them.
#[test]
fn work_that_is_only_in_git_is_named() {
    for (script, named) in [
        (
            "git checkout -q -b topic/x; echo x > one.txt; git add -A; git commit -qm x; git checkout -q -",
            "branch `topic/x`",
        ),
        ("echo x > one.txt; git stash -qu", "the stash"),
        (
            "git worktree add -q ./w -b other && cd w && echo x > one.txt && git add -A && git commit -qm x",
            "branch `other`",
        ),
    ] {
        let dir = TestDir::with_project();
        dir.write("plan.toml", shell_plan::plan(&[ShellFeature::new("one", script, "test -f one.txt")]));
        repository(&dir);
        let finished = dir.run_plan().with_code(1);
        let reason = Report::of(&finished).reason("one").to_owned();
        let expected = format!("; its work in git does not count before it is in the files: {named}");
        assert!(reason.ends_with(&expected), "{reason}: {finished:?}");
    }
}

/// A branch that the user checks out during the run does not move: its files would not follow, and
/// the user's next commit would undo the results. The answer is merged by the next run.
#[test]
fn a_branch_that_is_checked_out_during_a_run_does_not_move() {
    let dir = TestDir::with_project();
    let script = "git -C ../project checkout -q -b greenwave/plan; echo x > one.txt";
    let one = ShellFeature::new("one", script, "test -f one.txt");
    dir.write("plan.toml", format!("result = \"branch\"\n{}", shell_plan::unconfined(&[one])));
    repository(&dir);
    let script = dir.read("plan.toml").replace("../project", &dir.path("project").display().to_string());
    dir.write("plan.toml", script);
    let finished = dir.run_plan();
    assert!(
        format!("{finished:?}").contains("cannot write branch `greenwave/plan`: it is checked out in"),
        "{finished:?}"
    );
    git(&dir, &["diff", "--exit-code", "HEAD"]);
    git(&dir, &["checkout", "-q", "-"]);
    let report = Report::of(&dir.run_plan().with_code(0));
    assert_eq!((report.phases(), report.requests()), (vec![("one", "green")], 0));
    git(&dir, &["cat-file", "-e", "greenwave/plan:one.txt"]);
}

/// Without the check, the agent would be paid before git refuses the branch.
#[test]
fn a_branch_that_git_cannot_have_is_refused_before_any_agent_starts() {
    let one = ShellFeature::new("one", "echo x > one.txt", "test -f one.txt");
    let plan = format!("result = \"branch\"\n{}", shell_plan::plan(&[one]));
    for existing in ["greenwave", "greenwave/plan/other"] {
        let dir = TestDir::with_project().with("plan.toml", &plan).with("a..b.lock.toml", &plan);
        repository(&dir);
        git(&dir, &["branch", existing]);
        let finished = dir.run_plan().with_code(2);
        let expected = format!("cannot write branch `greenwave/plan`: branch `{existing}` exists");
        assert!(finished.stderr.contains(&expected), "{finished:?}");
        if existing != "greenwave" {
            dir.greenwave(["run", "a..b.lock.toml", "--no-metrics"]).run().with_code(0);
            git(&dir, &["cat-file", "-e", "greenwave/a.-b-lock:one.txt"]);
        }
    }
}

/// Names of different plans can lead to one branch. The results of one are no start for the other.
#[test]
fn a_branch_has_the_results_of_one_plan() {
    let dir = TestDir::with_project();
    let plan = |feature: &str| {
        let test = format!("test -f {feature}.txt");
        let one = ShellFeature::new(feature, &format!("echo x > {feature}.txt"), &test);
        format!("result = \"branch\"\n{}", shell_plan::plan(&[one]))
    };
    let run = |file: &str| dir.greenwave(["run", file, "--no-metrics"]).run();
    repository(&dir);
    dir.write("my plan.toml", plan("one"));
    run("my plan.toml").with_code(0);
    for (file, text) in [
        ("my-plan.toml", plan("two")),
        ("other.toml", format!("name = \"my plan\"\n{}", plan("two"))),
        ("part/my plan.toml", plan("two").replace("\"project\"", "\"../project\"")),
    ] {
        dir.write(file, text);
        let refused = run(file).with_code(2);
        let expected = format!(
            "cannot write branch `greenwave/my-plan`: it has the results of plan {}",
            dir.path("my plan.toml").canonicalize().unwrap().display()
        );
        assert!(refused.stderr.contains(&expected), "{refused:?}");
        assert!(refused.stderr.contains("give this plan another `name`"), "{refused:?}");
        git(&dir, &["cat-file", "-e", "greenwave/my-plan:one.txt"]);
    }
    // The plan itself continues, also from another place, and others can have another name.
    run("my plan.toml").with_code(0);
    std::fs::rename(dir.path("my plan.toml"), dir.path("moved.toml")).unwrap();
    let moved = dir.read("moved.toml");
    dir.write("moved.toml", format!("name = \"my plan\"\n{moved}"));
    run("moved.toml").with_code(0);
    let named = format!("name = \"mine\"\n{}", plan("two"));
    dir.write("my-plan.toml", named);
    run("my-plan.toml").with_code(0);
    git(&dir, &["cat-file", "-e", "greenwave/mine:two.txt"]);
}

/// A relative directory in `PATH` leads into the project and its copies, where agents can create
/// programs.
#[test]
fn git_is_no_program_of_an_agent() {
    let dir = TestDir::with_project();
    repository(&dir);
    let started = dir.path("started");
    let program = format!("#!/bin/sh\ntouch {}\nexit 1\n", started.display());
    let script = format!("printf '%s' '{program}' > git; chmod 755 git; touch one.txt");
    let features = [
        ShellFeature::new("one", &script, "test -f one.txt"),
        ShellFeature::new("two", "touch two.txt", "test -f two.txt").after("one"),
    ];
    dir.write("plan.toml", shell_plan::plan(&features));
    let path = format!(".:{}:{}", dir.path("project").display(), std::env::var("PATH").unwrap());
    dir.plan().variable("PATH", &path).run().with_code(0);
    assert!(dir.path("project/git").exists() && dir.path("project/two.txt").exists());
    dir.write("project/greenwave.toml", "[[test]]\nname = \"t\"\ncommand = [\"true\"]\n");
    let test = dir.greenwave(["test", "--affected", "HEAD", "--dry-run"]).within(&dir.path("project"));
    test.variable("PATH", &path).run().with_code(0);
    assert!(!started.exists());
}

/// A clone, or the answer of an agent, can hold the files of a bare repository, whose configuration
/// names programs. Git takes such a directory for a repository before it looks above.
#[test]
fn a_bare_repository_in_a_project_is_none() {
    let dir = TestDir::with_project().with("project/part/refs/x", "").with("project/part/objects/x", "");
    let started = dir.path("started");
    let program = format!("touch {}; cat", started.display());
    let settings = format!(
        "[core]\n\tbare = false\n\tworktree = .\n\tfsmonitor = \"{program}\"\n\
         [filter \"trap\"]\n\tclean = \"{program}\"\n[protocol]\n\tallow = always\n\
         [remote \"origin\"]\n\turl = \"ext::sh -c 'touch% {}'\"\n",
        started.display()
    );
    dir.write("project/part/config", settings);
    dir.write("project/part/info/attributes", "* filter=trap\n");
    dir.write("project/part/HEAD", "ref: refs/heads/main\n");
    dir.write("project/part/greenwave.toml", "[[test]]\nname = \"t\"\ncommand = [\"true\"]\n");
    let plan = shell_plan::plan(&[ShellFeature::new("one", "echo x > one.txt", "test -f one.txt")]);
    let plan = plan.replace("\"project\"", "\"project/part\"");
    dir.write("plan.toml", format!("result = \"pr\"\n{plan}"));
    git(&dir, &["init", "-q"]);
    let mut show = Command::new("git");
    show.current_dir(dir.path("project/part")).args(["rev-parse", "--git-dir"]);
    let shown = show.output().unwrap();
    assert_eq!(shown.stdout, b".\n", "git takes the directory for a repository");
    dir.greenwave(["run", "plan.toml", "--no-metrics", "--create-pr"]).run();
    let test = dir.greenwave(["test", "--affected", "HEAD", "--dry-run"]).within(&dir.path("project/part"));
    test.run().with_code(2);
    dir.write("plan.toml", plan);
    dir.run_plan().with_code(0);
    assert!(!started.exists());
}

/// A project that is handed over with its `.git` can name a worktree elsewhere. Were it believed,
/// the directories beside the project would be in the copies, and changes of them merged.
#[test]
fn a_worktree_elsewhere_makes_no_directory_a_part_of_the_project() {
    for has_repository_above in [false, true] {
        let dir = TestDir::with_project().with("private/notes", "precious").with("project/a.txt", "a\n");
        git(&dir, &["init", "-q"]);
        git(&dir, &["add", "-f", "a.txt"]);
        git(&dir, &["commit", "-qm", "first"]);
        if has_repository_above {
            for args in [["init", "-q", ".."].as_slice(), &["-C", "..", "add", "-f", "private"]] {
                git(&dir, args);
            }
        }
        git(&dir, &["config", "core.worktree", "../.."]);
        let script = "echo changed > ../private/notes; cat ../private/notes > seen.txt; echo x > one.txt";
        dir.write("plan.toml", shell_plan::plan(&[ShellFeature::new("one", script, "test -f one.txt")]));
        let events = dir.run_plan().with_code(0).events();
        let base = events.iter().find(|event| event["event"] == "base").unwrap();
        let note = base["note"].as_str().unwrap();
        assert!(note.contains("`core.worktree` of "), "{note}");
        assert_eq!(dir.read("private/notes"), "precious");
    }
}
