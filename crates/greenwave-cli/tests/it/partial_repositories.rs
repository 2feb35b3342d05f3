//! Repositories in which objects or files are missing: partial clones, sparse checkouts, files that
//! git-lfs stores elsewhere, and damage.

use std::process::Command;

use crate::shell_plan::{self, Report, ShellFeature};
use crate::test_dir::TestDir;

#[track_caller]
fn git(dir: &TestDir, at: &str, args: &[&str]) -> String {
    let mut call = Command::new("git");
    call.current_dir(dir.path(at)).env("LC_ALL", "C").env("GIT_NO_LAZY_FETCH", "1");
    let output = call.args(["-c", "user.name=u", "-c", "user.email=u@u"]).args(args).output().unwrap();
    assert!(output.status.success(), "{args:?}: {output:?}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Creates a repository with three commits in `origin`, and clones it to `project` with these
/// arguments. A sparse clone has the directory `src`.
fn cloned(arguments: &[&str]) -> TestDir {
    let dir = TestDir::empty().with("origin/src/a.txt", "").with("origin/docs/d.txt", "");
    git(&dir, "origin", &["init", "-q", "-b", "main"]);
    git(&dir, "origin", &["config", "uploadpack.allowFilter", "true"]);
    for version in ["1", "2", "3"] {
        dir.write("origin/src/a.txt", format!("code {version}\n"));
        dir.write("origin/docs/d.txt", format!("text {version}\n"));
        git(&dir, "origin", &["add", "-A"]);
        git(&dir, "origin", &["commit", "-qm", version]);
    }
    let url = format!("file://{}", dir.path("origin").display());
    let mut clone = Command::new("git");
    clone.args(["clone", "-q"]).args(arguments).arg(&url).arg(dir.path("project"));
    assert!(clone.status().unwrap().success());
    if arguments.contains(&"--sparse") {
        let set = Command::new("git")
            .args(["-C", &dir.path("project").display().to_string(), "sparse-checkout", "set", "src"])
            .status();
        assert!(set.unwrap().success());
    }
    dir
}

/// Returns the objects that the user's repository misses.
fn missing(dir: &TestDir) -> Vec<String> {
    let listed = git(dir, "project", &["rev-list", "--objects", "--all", "--missing=print"]);
    listed.lines().filter(|line| line.starts_with('?')).map(str::to_owned).collect()
}

const CLONES: [&[&str]; 4] =
    [&["--filter=blob:none"], &["--filter=tree:0"], &["--sparse"], &["--filter=blob:none", "--sparse"]];

/// Copies have the history and the files of the user's worktree, and nothing in them counts as
/// deleted. Git works, and names the reason where a content of older history is missing.
#[test]
fn copies_of_partial_clones_and_sparse_checkouts_have_history() {
    for arguments in CLONES {
        let dir = cloned(arguments);
        let is_partial = arguments[0].starts_with("--filter");
        let script = "exec 2>errors.txt; git log --format=%s > log.txt\n\
             git diff --name-status HEAD~ HEAD > changed.txt; git status --short | grep -v '^??' > status.txt\n\
             git log -p -- src > patches.txt && echo complete > history.txt\n\
             echo more >> src/a.txt; echo new > docs-new.txt; mkdir -p docs; echo new > docs/new.txt\n\
             git add -A && git commit -qm own && git stash list && git checkout -q HEAD~ -- src && \
             git reset -q --hard HEAD && git diff --name-status HEAD~ HEAD > committed.txt; git gc -q";
        let one = ShellFeature::new("one", script, "test -f committed.txt");
        dir.write("plan.toml", format!("result = \"branch\"\n{}", shell_plan::plan(&[one])));
        let (missing_before, start) = (missing(&dir), git(&dir, "project", &["rev-parse", "HEAD"]));
        dir.write("project/uncommitted.txt", "mine\n");
        let finished = dir.run_plan().with_code(0);
        assert_eq!(Report::of(&finished).phases(), [("one", "green")], "{arguments:?}: {finished:?}");
        let shown = |path: &str| git(&dir, "project", &["show", &format!("greenwave/plan:{path}")]);
        let (errors, log) = (shown("errors.txt"), shown("log.txt"));
        let of_base = "Uncommitted work at the start of the run\n3\n";
        assert!(log.starts_with(of_base) && (log.lines().count() == 4), "{arguments:?}: {log}{errors}");
        assert_eq!(shown("changed.txt"), "A\tuncommitted.txt\n", "{arguments:?}");
        assert_eq!(shown("status.txt"), "", "{arguments:?}");
        let committed = shown("committed.txt");
        let only_own = ["A\tdocs-new.txt", "A\tdocs/new.txt", "M\tsrc/a.txt"];
        assert!(only_own.iter().all(|line| committed.lines().any(|it| it == *line)), "{committed}");
        assert!(!committed.contains("D\t"), "{arguments:?}: {committed}");
        let history = git(&dir, "project", &["ls-tree", "--name-only", "greenwave/plan", "history.txt"]);
        assert_eq!(history.is_empty(), is_partial, "{arguments:?}: {errors}");
        let reasons = ["could not fetch", "unable to read tree"];
        assert_eq!(
            reasons.iter().any(|reason| errors.contains(reason)),
            is_partial,
            "{arguments:?}: {errors}"
        );
        // Files outside of the checkout are on the branch as before.
        let of_branch = git(&dir, "project", &["ls-tree", "-r", "--name-only", "greenwave/plan", "docs"]);
        assert_eq!(of_branch, "docs/d.txt\ndocs/new.txt\n", "{arguments:?}");
        assert_eq!(missing(&dir), missing_before, "{arguments:?}");
        assert_eq!(git(&dir, "project", &["rev-parse", "HEAD"]), start);
        assert_eq!(git(&dir, "project", &["status", "--short"]), "?? uncommitted.txt\n");
    }
}

/// With `base = "HEAD"`, files are taken from the commit, as far as the worktree has them.
#[test]
fn the_committed_files_of_a_sparse_checkout_are_taken() {
    for arguments in CLONES {
        let dir = cloned(arguments);
        let script = "ls . docs > files.txt 2>&1; cat src/a.txt >> files.txt";
        let one = ShellFeature::new("one", script, "test -f files.txt");
        dir.write("plan.toml", format!("base = \"HEAD\"\n{}", shell_plan::plan(&[one])));
        dir.write("project/src/a.txt", "uncommitted\n");
        let finished = dir.run_plan().with_code(0);
        assert_eq!(Report::of(&finished).phases(), [("one", "green")], "{arguments:?}");
        let files = dir.read("project/files.txt");
        assert_eq!(files.contains("d.txt"), !arguments.contains(&"--sparse"), "{arguments:?}: {files}");
        assert!(files.ends_with("code 3\n"), "{arguments:?}: {files}");
        assert_eq!(dir.read("project/src/a.txt"), "uncommitted\n");
    }
}

/// A repository whose object of a file is gone is damaged. Copies make the object from the file and
/// have the whole history.
#[test]
fn objects_that_git_misses_are_made_from_the_files() {
    let dir = TestDir::empty().with("project/src/a.txt", "a\n").with("project/b.txt", "b\n");
    git(&dir, "project", &["init", "-q", "-b", "main"]);
    for message in ["first", "second"] {
        git(&dir, "project", &["add", "-A"]);
        git(&dir, "project", &["commit", "-qm", message, "--allow-empty"]);
    }
    let id = git(&dir, "project", &["rev-parse", "HEAD:src/a.txt"]);
    let (start, rest) = id.trim().split_at(2);
    std::fs::remove_file(dir.path(&format!("project/.git/objects/{start}/{rest}"))).unwrap();
    let script = "{ git log --format=%s; git show HEAD:src/a.txt; git blame -s src/a.txt; echo c >> src/a.txt\n\
         git stash; git stash pop; git commit -qam own; git fsck; } > log.txt 2> errors.txt";
    let one = ShellFeature::new("one", script, "grep -q c src/a.txt");
    dir.write("plan.toml", shell_plan::plan(&[one]));
    let finished = dir.run_plan().with_code(0);
    let log = dir.read("project/log.txt");
    assert!(log.starts_with("second\nfirst\na\n"), "{log}{}: {finished:?}", dir.read("project/errors.txt"));
    assert_eq!(dir.read("project/errors.txt"), "");
    assert_eq!(dir.read("project/src/a.txt"), "a\nc\n");
}

/// Not a byte of a pointer of git-lfs changes, even if git-lfs is configured and missing.
#[test]
fn pointers_of_git_lfs_stay_pointers() {
    let pointer = format!(
        "version https://git-lfs.github.com/spec/v1\noid sha256:{}\nsize 12345\n",
        "4d7a214614ab2935c943f9e0ff69d22eadbb8f32b1258daaa5e2ca24d17e2393"
    );
    for result in ["files", "branch"] {
        let dir = TestDir::empty().with("project/big.bin", &pointer).with("project/a.txt", "a\n");
        dir.write("project/.gitattributes", "*.bin filter=lfs diff=lfs merge=lfs -text\n");
        git(&dir, "project", &["init", "-q", "-b", "main"]);
        git(&dir, "project", &["add", "-A"]);
        git(&dir, "project", &["commit", "-qm", "start"]);
        for (key, value) in [
            ("smudge", "missing-git-lfs smudge -- %f"),
            ("clean", "missing-git-lfs clean -- %f"),
            ("process", "missing-git-lfs filter-process"),
            ("required", "true"),
        ] {
            git(&dir, "project", &["config", &format!("filter.lfs.{key}"), value]);
        }
        let script = "{ git status --short; cp big.bin before; echo x >> big.bin; git stash; cmp big.bin before\n\
             git stash pop; git checkout -- big.bin; cmp big.bin before; rm big.bin; git reset --hard\n\
             cmp big.bin before; cp big.bin second.bin; git add -A; git commit -m own; git show HEAD:second.bin\n\
             } > out.txt 2> errors.txt";
        let one = ShellFeature::new("one", script, "cmp big.bin second.bin");
        let two = ShellFeature::new("two", "cp second.bin third.bin", "cmp big.bin third.bin").after("one");
        dir.write("plan.toml", format!("result = \"{result}\"\n{}", shell_plan::plan(&[one, two])));
        let finished = dir.run_plan().with_code(0);
        let report = Report::of(&finished);
        assert_eq!(report.phases(), [("one", "green"), ("two", "green")], "{finished:?}");
        let read = |path: &str| match result {
            "files" => dir.read(&format!("project/{path}")),
            _ => git(&dir, "project", &["cat-file", "blob", &format!("greenwave/plan:{path}")]),
        };
        assert_eq!(read("errors.txt"), "");
        assert!(read("out.txt").ends_with(&pointer), "{}", read("out.txt"));
        for path in ["big.bin", "second.bin", "third.bin"] {
            assert_eq!(read(path), pointer, "{path}");
        }
        assert_eq!(dir.read("project/big.bin"), pointer);
    }
}
