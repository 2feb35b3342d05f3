//! Runs plans in git projects of every shape, with agents that use git, and compares the user's
//! repository before and after.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use greenwave::{
    AgentSpec, CommandSpec, ConfineMode, Engine, Environment, Feature, Plan, Report, Settings, Test,
};

/// A project of the user, with a home and a directory for copies outside of it.
struct User {
    directory: tempfile::TempDir,
}

impl User {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        fs::create_dir(directory.path().join("project")).unwrap();
        Self { directory }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().canonicalize().unwrap().join(name)
    }

    fn project(&self) -> PathBuf {
        self.path("project")
    }

    /// Runs git in a directory below, and returns its standard output.
    #[track_caller]
    fn git(&self, directory: &str, arguments: &[&str]) -> String {
        let mut command = Command::new("git");
        command.current_dir(self.path(directory)).env_clear().env("PATH", std::env::var_os("PATH").unwrap());
        command.env("HOME", self.path("home")).env("GIT_CONFIG_NOSYSTEM", "1");
        for (role, name) in [("AUTHOR", "User"), ("COMMITTER", "User")] {
            command.env(format!("GIT_{role}_NAME"), name).env(format!("GIT_{role}_EMAIL"), "user@localhost");
        }
        command.args(["-c", "protocol.file.allow=always", "-c", "init.defaultBranch=main"]).args(arguments);
        let output = command.output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "git {arguments:?}: {said}");
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    fn write(&self, name: &str, content: &str) {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }

    fn commit_all(&self, directory: &str, message: &str) {
        self.git(directory, &["add", "-A"]);
        self.git(directory, &["commit", "-q", "-m", message]);
    }

    /// Creates a repository with two commits, a submodule, a stash, a linked worktree, a pointer of
    /// git-lfs, and uncommitted work of every kind.
    fn with_everything(format: &str) -> Self {
        let user = Self::new();
        user.git("project", &["init", "-q", &format!("--object-format={format}")]);
        fs::create_dir(user.path("library")).unwrap();
        user.git("library", &["init", "-q", &format!("--object-format={format}")]);
        user.write("library/inner.txt", "inner\n");
        user.commit_all("library", "library");
        user.write("project/.gitignore", "*.log\n/out/\n");
        user.write("project/.gitattributes", "*.bin filter=lfs\n");
        user.write(
            "project/pointer.bin",
            "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n",
        );
        user.write("project/a.txt", "one\n");
        user.write("project/b.txt", "one\n");
        user.write("project/src/c.txt", "one\n");
        user.write("project/tracked.log", "tracked although ignored\n");
        user.write("project/run.sh", "#!/bin/sh\n");
        fs::set_permissions(user.path("project/run.sh"), fs::Permissions::from_mode(0o755)).unwrap();
        symlink("a.txt", user.path("project/link")).unwrap();
        user.git("project", &["add", "-f", "tracked.log"]);
        user.commit_all("project", "first");
        user.git("project", &["tag", "v1"]);
        let library = user.path("library");
        user.git("project", &["submodule", "--quiet", "add", library.to_str().unwrap(), "sub"]);
        user.write("project/a.txt", "two\n");
        user.commit_all("project", "second");
        user.write("project/b.txt", "stashed\n");
        user.git("project", &["stash", "-q"]);
        let linked = user.path("linked");
        user.git("project", &["worktree", "add", "-q", "-b", "side", linked.to_str().unwrap()]);
        user.write("project/a.txt", "three days of work\n");
        user.write("project/new.txt", "not added\n");
        user.write("project/staged.txt", "staged\n");
        user.git("project", &["add", "staged.txt"]);
        fs::remove_file(user.path("project/src/c.txt")).unwrap();
        user.write("project/noise.log", "ignored\n");
        user
    }

    /// Runs a plan with one feature, whose agent is a shell script that gets the user's directory
    /// as `$USER_DIR`.
    fn run(&self, project: &str, script: &str) -> Report {
        self.run_plan(
            Plan { project: self.path(project), ..plan(&self.path(""), script) },
            Settings::default(),
        )
    }

    fn run_plan(&self, plan: Plan, mut settings: Settings) -> Report {
        settings.metrics.enabled = false;
        // Copies alone protect the repository of the user, and agents here record what they see
        // beside the project.
        settings.run.confine = ConfineMode::Off;
        settings.run.directory.get_or_insert_with(|| self.path("copies"));
        let environment = Environment::new(std::env::vars_os());
        let runtime = tokio::runtime::Runtime::new().unwrap();
        runtime.block_on(async { Engine::open(plan, settings, environment).unwrap().run().await.unwrap() })
    }

    /// Describes everything that belongs to the user: files, refs, stash, index, configuration, and
    /// every object that is reachable.
    fn state(&self, project: &str) -> BTreeMap<String, Vec<u8>> {
        let mut state = BTreeMap::new();
        let mut pending = vec![self.path(project)];
        while let Some(directory) = pending.pop() {
            for entry in fs::read_dir(&directory).unwrap().flatten() {
                let (path, metadata) = (entry.path(), entry.path().symlink_metadata().unwrap());
                if entry.file_name() == ".greenwave" {
                    continue;
                } else if metadata.is_dir() {
                    pending.push(path);
                } else {
                    let content = if metadata.is_symlink() {
                        fs::read_link(&path).unwrap().into_os_string().into_encoded_bytes()
                    } else {
                        fs::read(&path).unwrap()
                    };
                    let content =
                        [format!("{:o} ", metadata.permissions().mode()).into_bytes(), content].concat();
                    state.insert(path.display().to_string(), content);
                }
            }
        }
        for command in
            [&["for-each-ref"][..], &["stash", "list"], &["fsck", "--no-dangling", "--no-progress"]]
        {
            state.insert(command.join(" "), self.git(project, command).into_bytes());
        }
        state
    }
}

fn plan(user: &Path, script: &str) -> Plan {
    let script = format!("export USER_DIR='{}'; cat >/dev/null; {script}", user.display());
    let command = ["sh", "-c", &script].map(str::to_owned).to_vec();
    let agent = AgentSpec::Command(CommandSpec { command, ..CommandSpec::default() });
    let feature = Feature {
        id: "f".to_owned(),
        prompt: "Write it.".to_owned(),
        agent: "a".to_owned(),
        tests: vec![Test::new("f", ["grep", "-q", "ok", "f.txt"])],
        attempts_max: 1,
        ..Feature::default()
    };
    Plan {
        name: "plan".to_owned(),
        agents: [("a".to_owned(), agent)].into(),
        features: vec![feature],
        ..Plan::default()
    }
}

#[track_caller]
fn assert_green(report: &Report) {
    assert!(report.all_green(), "{:?}", report.features);
}

/// Checks that the user's repository is as before, except for the result.
#[track_caller]
fn assert_untouched(before: &BTreeMap<String, Vec<u8>>, mut after: BTreeMap<String, Vec<u8>>) {
    after.retain(|path, _| !path.ends_with("/project/f.txt"));
    let differing = |path: &&String| before.get(*path) != after.get(*path);
    let changed: Vec<_> = before.keys().chain(after.keys()).filter(differing).collect();
    assert!(changed.is_empty(), "changed: {changed:?}");
}

/// An agent that does everything with git that coding programs do.
const WILD_AGENT: &str = "
    set -e
    git config user.name agent; git config core.hooksPath /tmp; git config alias.x '!false'
    echo work > work.txt; rm a.txt; git add -A; git stash -q; git stash apply -q
    git checkout -q -b other; git commit -q -a -m work; git tag wild
    git clean -fdxq; git reset -q --hard HEAD~1; git branch -D main -q; git gc -q --prune=now
    git checkout -q -- . ; git reflog expire --expire=now --all; git update-ref -d refs/stash
    test \"$(git rev-parse --show-toplevel)\" = \"$PWD\"
    git checkout -q $(git rev-list --all -n 1); git checkout -q ORIG_HEAD -- a.txt 2>/dev/null || true
    echo ok > f.txt";

#[test]
fn agents_cannot_reach_the_repository_of_the_user() {
    for format in ["sha1", "sha256"] {
        let user = User::with_everything(format);
        let before = user.state("project");
        let script = format!("{WILD_AGENT}; git checkout -q -f {{}} 2>/dev/null; git restore . ");
        let script = script.replace("{}", "HEAD");
        let mut plan = Plan { project: user.project(), ..plan(&user.path(""), &script) };
        // Only the new file counts here. Other files of the agent are its own answer.
        plan.features[0].tests = vec![Test::new("f", ["test", "-e", "never"])];
        let report = user.run_plan(plan, Settings::default());
        assert_eq!(report.features[0].phase, "failed", "{:?}", report.features);
        assert_untouched(&before, user.state("project"));
        assert!(fs::read_dir(user.path("copies")).unwrap().next().is_none(), "copies are left behind");
    }
}

/// The copy has the files of the user with uncommitted work, its status is clean, and its history
/// is visible.
#[test]
fn a_copy_is_clean_and_has_the_history() {
    for (format, project) in
        [("sha1", "project"), ("sha256", "project"), ("sha1", "linked"), ("sha1", "project/sub")]
    {
        let user = User::with_everything(format);
        let before = user.state(project);
        let report = user.run(
            project,
            "{ pwd; git status --porcelain; git log --format=%s; git describe --tags --always; git stash list;
               git remote; git config gc.auto; git rev-parse --git-dir; } > \"$USER_DIR/seen\" 2>&1
             cat *.txt pointer.bin sub/inner.txt > \"$USER_DIR/files\" 2>/dev/null; git blame HEAD -- inner.txt a.txt >/dev/null 2>&1
             test -z \"$(git status --porcelain)\" && git fsck --no-progress >/dev/null && echo ok > f.txt",
        );
        let seen = fs::read_to_string(user.path("seen")).unwrap();
        assert_green(&report);
        let lines: Vec<&str> = seen.lines().collect();
        assert!(lines[0].ends_with("/plan/f"), "{seen}");
        match project {
            "project" => {
                assert_eq!(
                    lines[1..4],
                    ["Uncommitted work at the start of the run", "second", "first"],
                    "{seen}"
                );
                assert!(lines[4].starts_with("v1-2-g"), "{seen}");
                let files = fs::read_to_string(user.path("files")).unwrap();
                for part in ["three days of work", "not added", "staged", "git-lfs", "inner"] {
                    assert!(files.contains(part), "{part}: {files}");
                }
            }
            "linked" => assert_eq!(lines[1..3], ["second", "first"], "{seen}"),
            _ => assert_eq!(lines[1], "library", "{seen}"),
        }
        assert_eq!(lines[lines.len() - 2..], ["0", ".git"], "no stash and no remote: {seen}");
        let mut after = user.state(project);
        after.remove(&user.path(&format!("{project}/f.txt")).display().to_string());
        assert_untouched(&before, after);
    }
}

/// The user rewrites history and collects garbage while an agent works.
#[test]
fn a_copy_survives_garbage_collection_in_the_repository_of_the_user() {
    let user = User::with_everything("sha1");
    user.git("project", &["tag", "-d", "v1"]);
    user.git("project", &["worktree", "remove", "--force", "../linked"]);
    user.git("project", &["branch", "-q", "-D", "side"]);
    user.git("project", &["stash", "drop", "-q"]);
    let report = user.run(
        "project",
        "set -e; here=\"$PWD\"; export GIT_COMMITTER_NAME=u GIT_COMMITTER_EMAIL=u@u
         ( cd \"$USER_DIR/project\" && git reset -q --hard HEAD~1 && git reflog expire --expire=now --all &&
           git gc -q --prune=now ); cd \"$here\"
         test -z \"$(git status --porcelain)\"
         echo more >> b.txt; git diff --stat; git commit -q -a -m more; git show --stat HEAD HEAD~1 > /dev/null
         git stash list; git checkout -q HEAD~1 -- b.txt; git cat-file -e HEAD~2^{tree}
         git ls-tree -r HEAD~2 | while read mode kind id path; do test $kind = commit || git cat-file -e $id; done
         echo ok > f.txt",
    );
    assert_green(&report);
}

#[test]
fn a_shallow_clone_and_borrowed_objects_have_their_history() {
    let user = User::with_everything("sha1");
    let url = format!("file://{}", user.project().display());
    user.git("", &["clone", "-q", "--depth", "1", &url, "shallow"]);
    user.git("", &["clone", "-q", "--shared", "project", "borrowing"]);
    user.git("", &["clone", "-q", "--shared", "borrowing", "twice"]);
    for (project, commits) in [("shallow", "1"), ("borrowing", "2"), ("twice", "2")] {
        let report = user.run(
            project,
            &format!(
                "test -z \"$(git status --porcelain)\" && test $(git log --oneline | wc -l) = {commits} &&
                 git fsck --no-progress && echo ok > f.txt"
            ),
        );
        assert_green(&report);
    }
}

/// Repositories before the first commit, and directories without one in a repository above that
/// does not track them.
#[test]
fn a_repository_above_is_out_of_reach() {
    let user = User::new();
    user.git("", &["init", "-q"]);
    user.write("precious.txt", "precious\n");
    user.commit_all("", "home");
    user.write("project/a.txt", "a\n");
    let mut settings = Settings::default();
    let elsewhere = user.path("copies");
    settings.run.directory = Some(elsewhere);
    let plan = Plan {
        project: user.project(),
        ..plan(
            &user.path(""),
            "git status >/dev/null 2>&1 && exit 3; git add -A 2>/dev/null; echo ok > f.txt",
        )
    };
    assert_green(&user.run_plan(plan, settings));
    assert_eq!(user.git("", &["status", "--porcelain", "--", "precious.txt"]), "");

    let user = User::new();
    user.git("project", &["init", "-q"]);
    user.write("project/a.txt", "a\n");
    let report =
        user.run("project", "test -z \"$(git status --porcelain)\" && git log --oneline && echo ok > f.txt");
    assert_green(&report);
}

/// Later attempts and dependants start from a repository whose `HEAD` is their base.
#[test]
fn every_attempt_starts_from_its_base_commit() {
    let user = User::with_everything("sha1");
    let script = "
        case $PWD in
        */f) n=$(cat \"$USER_DIR/n\" 2>/dev/null || echo 0); echo $((n+1)) > \"$USER_DIR/n\"
             test \"$(git rev-list --count HEAD)\" = 3 || exit 5
             test \"$(git branch --format='%(refname:short)')\" = main || exit 6
             test -z \"$(git stash list)\" || exit 7
             test \"$(git config --get core.hooksPath)\" = /dev/null || exit 8
             rm -rf .git/hooks; git config core.hooksPath .; git checkout -q -b mine; echo x > left.txt; git add -A; git commit -q -m mine
             echo y >> left.txt; git stash -q
             if [ $n = 0 ]; then echo no > f.txt; else echo ok > f.txt; fi ;;
        */g) git log -1 --format=%s | grep -q 'Merged features' || exit 9
             test -z \"$(git status --porcelain)\" || exit 10
             git show HEAD:f.txt | grep -q ok && echo ok > g.txt ;;
        esac";
    let mut plan = Plan { project: user.project(), ..plan(&user.path(""), script) };
    plan.features[0].attempts_max = 2;
    let mut second = plan.features[0].clone();
    (second.id, second.depends_on) = ("g".to_owned(), vec!["f".to_owned()]);
    second.tests = vec![Test::new("g", ["grep", "-q", "ok", "g.txt"])];
    plan.features.push(second);
    assert_green(&user.run_plan(plan, Settings::default()));
    assert_eq!(fs::read_to_string(user.path("n")).unwrap(), "2\n");
}

/// A plan in a part of a repository works on a copy of the whole, and its result is written to the
/// part.
#[test]
fn a_part_of_a_repository_is_copied_with_the_rest() {
    let user = User::new();
    user.git("project", &["init", "-q"]);
    user.write("project/shared/value.txt", "ok\n");
    user.write("project/parts/one/here.txt", "here\n");
    user.commit_all("project", "first");
    let script =
        "test -f here.txt && cp ../../shared/value.txt f.txt && echo changed >> ../../shared/value.txt";
    let mut plan = Plan { project: user.path("project/parts/one"), ..plan(&user.path(""), script) };
    plan.features[0].tests[0].inputs = vec!["*.txt".to_owned(), "../../shared/**".to_owned()];
    plan.features[0].tests[0].inputs.truncate(1);
    assert_green(&user.run_plan(plan, Settings::default()));
    assert_eq!(user.git("project", &["status", "--porcelain"]), " M shared/value.txt\n?? parts/one/f.txt\n");
}

#[test]
fn a_directory_of_copies_in_the_project_is_refused() {
    let user = User::new();
    user.git("project", &["init", "-q"]);
    let mut settings = Settings::default();
    settings.run.directory = Some(user.path("project/copies"));
    let plan = Plan { project: user.project(), ..plan(&user.path(""), "true") };
    let error = Engine::open(plan, settings, Environment::default()).unwrap_err();
    assert!(greenwave::chain(&error).contains("the directory is in the project"), "{error}");
}

#[test]
fn ignored_files_that_a_plan_includes_are_in_every_copy() {
    let user = User::new();
    user.git("project", &["init", "-q"]);
    user.write("project/.gitignore", ".env\n/gen/\n/tools\n");
    user.commit_all("project", "first");
    user.write("project/.env", "KEY=1\n");
    user.write("project/gen/deep/schema.txt", "schema\n");
    user.write("project/gen/run.sh", "#!/bin/sh\n");
    fs::set_permissions(user.path("project/gen/run.sh"), fs::Permissions::from_mode(0o755)).unwrap();
    symlink("gen", user.path("project/tools")).unwrap();
    let script = "
        test -z \"$(git status --porcelain -- . ':!f.txt')\" && test -x gen/run.sh && test \"$(readlink tools)\" = gen &&
        grep -q KEY=1 .env && test -f tools/deep/schema.txt && git clean -fdxq && rm -rf gen .env &&
        if test -e \"$USER_DIR/again\"; then echo ok > f.txt; else touch \"$USER_DIR/again\"; echo no > f.txt; fi";
    let mut plan = Plan { project: user.project(), ..plan(&user.path(""), script) };
    plan.include = [".env", "gen/**", "tools", "missing"].map(str::to_owned).to_vec();
    plan.features[0].attempts_max = 2;
    assert_green(&user.run_plan(plan, Settings::default()));
    assert_eq!(user.git("project", &["status", "--porcelain"]), "?? f.txt\n");
    assert_eq!(fs::read_to_string(user.path("project/.env")).unwrap(), "KEY=1\n");
}

#[test]
fn a_copy_is_set_up_once_and_torn_down() {
    let user = User::new();
    user.git("project", &["init", "-q"]);
    user.write("project/package.json", "{}\n");
    user.commit_all("project", "first");
    let log = user.path("log").display().to_string();
    let command = |text: &str| ["sh", "-c", text].map(str::to_owned).to_vec();
    let script = "test -f made.txt && test -f node_modules/m.js || exit 3
        if test -e \"$USER_DIR/again\"; then echo ok > f.txt; else touch \"$USER_DIR/again\"; echo no > f.txt; fi";
    let mut plan = Plan { project: user.project(), ..plan(&user.path(""), script) };
    plan.features[0].attempts_max = 2;
    plan.setup = vec![command(&format!(
        "mkdir node_modules && echo m > node_modules/m.js && echo made > made.txt && echo changed > package.json && echo up ${{PWD##*/}} >> '{log}'"
    ))];
    plan.teardown = vec![command(&format!("echo down ${{PWD##*/}} >> '{log}'"))];
    assert_green(&user.run_plan(plan.clone(), Settings::default()));
    let logged = fs::read_to_string(&log).unwrap();
    let mut lines: Vec<&str> = logged.lines().collect();
    lines.sort_unstable();
    assert_eq!(lines, ["down .merge", "down f", "up .merge", "up f"]);
    assert_eq!(
        user.git("project", &["status", "--porcelain"]),
        "?? f.txt\n",
        "setup does not change the project"
    );

    let user = User::new();
    user.write("project/a.txt", "a\n");
    plan.project = user.project();
    plan.setup = vec![command("echo no network; exit 4")];
    let report = user.run_plan(plan, Settings::default());
    let reason = report.features[0].reason.clone().unwrap();
    assert!(reason.contains("exit status: 4") && reason.contains("no network"), "{reason}");
    assert_eq!(report.totals.requests, 0);
}

/// Copies with the same files share the files of the commands, unless these name the copy.
#[test]
fn a_setup_is_shared_by_copies() {
    for (creates, runs) in [("echo m > node_modules/m.js", 1), ("pwd > node_modules/m.js", 3)] {
        let user = User::new();
        user.git("project", &["init", "-q"]);
        user.write("project/package.json", "{}\n");
        user.write("project/.gitignore", "node_modules\n");
        user.commit_all("project", "first");
        let log = user.path("log").display().to_string();
        let script =
            "test -s node_modules/m.js || exit 3; echo x >> node_modules/m.js; echo ok > ${PWD##*/}.txt";
        let mut plan = Plan { project: user.project(), ..plan(&user.path(""), script) };
        let mut second = plan.features[0].clone();
        second.id = "g".to_owned();
        second.tests = vec![Test::new("g", ["grep", "-q", "ok", "g.txt"])];
        plan.features.push(second);
        let set_up = format!("mkdir node_modules; {creates}; echo up >> '{log}'");
        plan.setup = vec![["sh", "-c", &set_up].map(str::to_owned).to_vec()];
        plan.setup_inputs = vec!["package.json".to_owned()];
        // A second worker may make a copy of its own for the merge.
        let mut settings = Settings::default();
        settings.parallel.workers = 1;
        assert_green(&user.run_plan(plan, settings));
        assert_eq!(fs::read_to_string(&log).unwrap().lines().count(), runs, "{creates}");
    }
}

/// One commit for each feature on a separate branch, while everything of the user stays.
#[test]
fn results_go_to_a_branch() {
    let user = User::with_everything("sha1");
    let before = user.state("project");
    let script = "
        echo run >> \"$USER_DIR/asked\"
        case $PWD in
        */f) echo ok > f.txt; echo changed >> b.txt; echo mine >> a.txt ;;
        */g) grep -q ok f.txt && echo ok > g.txt; rm run.sh ;;
        esac";
    let mut plan = Plan { project: user.project(), ..plan(&user.path(""), script) };
    plan.result = greenwave::ResultKind::Branch;
    let mut second = plan.features[0].clone();
    (second.id, second.depends_on) = ("g".to_owned(), vec!["f".to_owned()]);
    second.title = "The second".to_owned();
    second.tests = vec![Test::new("g", ["grep", "-q", "ok", "g.txt"])];
    plan.features.push(second);
    assert_green(&user.run_plan(plan.clone(), Settings::default()));
    let branch = "greenwave/plan";
    assert_eq!(user.git("project", &["log", "--format=%s", &format!("HEAD..{branch}")]), "The second\nf\n");
    let names = user.git("project", &["diff", "--name-status", "HEAD", branch]);
    assert_eq!(names, "M\ta.txt\nM\tb.txt\nA\tf.txt\nA\tg.txt\nD\trun.sh\n");
    assert_eq!(user.git("project", &["show", &format!("{branch}:b.txt")]), "one\nchanged\n");
    let unchanged = |user: &User| {
        let mut after = user.state("project");
        after.retain(|path, _| before.contains_key(path));
        let refs = String::from_utf8(after["for-each-ref"].clone()).unwrap();
        let others: String =
            refs.lines().filter(|line| !line.contains("greenwave")).map(|line| format!("{line}\n")).collect();
        after.insert("for-each-ref".to_owned(), others.into_bytes());
        assert_untouched(&before, after);
    };
    unchanged(&user);
    // The next run has nothing to do.
    let tip = user.git("project", &["rev-parse", branch]);
    let report = user.run_plan(plan.clone(), Settings::default());
    assert_green(&report);
    assert_eq!((report.totals.requests, user.git("project", &["rev-parse", branch])), (0, tip));
    // A third feature continues the branch.
    let mut third = plan.features[0].clone();
    third.id = "h".to_owned();
    third.tests = vec![Test::new("h", ["grep", "-q", "ok", "h.txt"])];
    third.depends_on = vec!["g".to_owned()];
    plan.features.push(third);
    let AgentSpec::Command(agent) = plan.agents.get_mut("a").unwrap() else { unreachable!() };
    agent.command[2].push_str("\ngrep -q ok g.txt && echo ok > h.txt");
    let report = user.run_plan(plan, Settings::default());
    assert_green(&report);
    assert_eq!(report.totals.requests, 1);
    assert_eq!(user.git("project", &["rev-list", "--count", &format!("HEAD..{branch}")]), "3\n");
    unchanged(&user);
}

#[test]
fn a_base_of_head_leaves_uncommitted_work_out() {
    let user = User::with_everything("sha1");
    let script = "test \"$(cat a.txt)\" = two && test ! -e new.txt && test -f src/c.txt && test -f sub/inner.txt &&
        test -z \"$(git status --porcelain)\" && test \"$(git log -1 --format=%s)\" = second && echo ok > f.txt";
    let mut plan = Plan { project: user.project(), ..plan(&user.path(""), script) };
    plan.base = greenwave::BaseKind::Head;
    assert_green(&user.run_plan(plan, Settings::default()));
    assert_eq!(fs::read_to_string(user.path("project/a.txt")).unwrap(), "three days of work\n");
}
