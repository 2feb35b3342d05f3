//! Files that git stores in another form than the worktree has them: filters such as those of
//! git-crypt and git-lfs, and line endings.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;
use std::time::SystemTime;

use crate::shell_plan::{self, Report, ShellFeature};
use crate::test_dir::TestDir;

#[track_caller]
fn git(dir: &TestDir, args: &[&str]) -> String {
    let mut call = Command::new("git");
    call.current_dir(dir.path("project")).args(["-c", "user.name=u", "-c", "user.email=u@u"]);
    let output = call.args(args).output().unwrap();
    assert!(output.status.success(), "{args:?}: {output:?}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Creates a repository with a filter that replaces `plain` by `HIDDEN` in what git stores, and
/// with the line endings of Windows in `win.txt`.
fn filtered() -> TestDir {
    let dir = TestDir::with_project()
        .with("project/.gitattributes", "*.key filter=hide\nwin.txt text eol=crlf\n")
        .with("project/a.key", "plain 1\n")
        .with("project/b.key", "plain 1\nplain 2\nplain 3\nplain 4\n")
        .with("project/win.txt", "1\r\n2\r\n3\r\n")
        .with("clean", "#!/bin/sh\nexec sed s/plain/HIDDEN/\n")
        .with("smudge", "#!/bin/sh\nexec sed s/HIDDEN/plain/\n");
    git(&dir, &["init", "-q", "-b", "main"]);
    for name in ["clean", "smudge"] {
        let path = dir.path(name);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        git(&dir, &["config", &format!("filter.hide.{name}"), path.to_str().unwrap()]);
    }
    git(&dir, &["config", "filter.hide.required", "true"]);
    // Git reads files again that are as new as its index.
    for name in ["a.key", "b.key", "win.txt"] {
        let file = fs::File::options().write(true).open(dir.path(&format!("project/{name}"))).unwrap();
        file.set_modified(SystemTime::UNIX_EPOCH).unwrap();
    }
    git(&dir, &["add", "-A"]);
    git(&dir, &["commit", "-qm", "start"]);
    assert_eq!(git(&dir, &["show", "HEAD:a.key"]), "HIDDEN 1\n");
    assert_eq!(git(&dir, &["status", "--porcelain"]), "");
    dir
}

fn uncommitted(dir: &TestDir) -> u64 {
    let events = dir.run_plan().with_code(0).events();
    let base = events.iter().find(|event| event["event"] == "base").expect("the run names its base");
    base["uncommitted"].as_u64().unwrap()
}

/// Files that a filter has converted do not count as uncommitted work. Copies have their content.
#[test]
fn converted_files_are_not_uncommitted_work() {
    let script = "{ git log --format=%s; git status --porcelain; cat a.key; git stash list; } > log.txt\n\
         echo more >> a.key; git stash -q; cat a.key >> log.txt; git stash pop -q";
    for (edit, count) in [("", 0), ("mine\n", 1)] {
        let dir = filtered();
        dir.write("plan.toml", shell_plan::plan(&[ShellFeature::new("one", script, "test -f log.txt")]));
        if !edit.is_empty() {
            dir.write("project/keep.txt", edit);
        }
        assert_eq!(uncommitted(&dir), count);
        let subject = ["Files as filters have converted them", "Uncommitted work at the start of the run"]
            [count as usize];
        let expected = format!("{subject}\nstart\n?? log.txt\nplain 1\nplain 1\n");
        assert_eq!(dir.read("project/log.txt"), expected);
        assert_eq!(dir.read("project/a.key"), "plain 1\nmore\n");
    }
}

/// With `base = "HEAD"`, uncommitted work is left out, and other files are as the project has them.
#[test]
fn converted_files_are_in_copies_of_the_commit() {
    let dir = filtered();
    dir.write("project/b.key", "plain mine\n");
    let script = "cat a.key b.key win.txt > seen.txt; echo plain more >> a.key";
    let one = ShellFeature::new("one", script, "grep -q more a.key");
    dir.write("plan.toml", format!("base = \"HEAD\"\n{}", shell_plan::plan(&[one])));
    assert_eq!(uncommitted(&dir), 0);
    let b = "HIDDEN 1\nHIDDEN 2\nHIDDEN 3\nHIDDEN 4\n";
    assert_eq!(dir.read("project/seen.txt"), format!("plain 1\n{b}1\r\n2\r\n3\r\n"));
    assert_eq!(dir.read("project/a.key"), "plain 1\nplain more\n");
    assert_eq!(dir.read("project/b.key"), "plain mine\n");
}

/// Results on a branch have the form in which git stores files: what a filter encrypts is not
/// committed as plain text, and only changed lines differ.
#[test]
fn results_on_a_branch_pass_through_filters() {
    let dir = filtered();
    // Uncommitted work in a changed file stays uncommitted.
    dir.write("project/b.key", "plain 1\nplain 2\nplain 3\nplain mine\n");
    let script = "echo plain more >> a.key; echo plain new > c.key; sed -i 's/plain 1/plain one/' b.key\n\
         sed -i 's/^2/two/' win.txt";
    let one = ShellFeature::new("one", script, "test -f c.key");
    let two = ShellFeature::new("two", "echo plain two >> a.key", "grep -q two a.key").after("one");
    dir.write("plan.toml", format!("result = \"branch\"\n{}", shell_plan::plan(&[one, two])));
    dir.run_plan().with_code(0);
    let show = |path: &str| git(&dir, &["cat-file", "blob", &format!("greenwave/plan:{path}")]);
    assert_eq!(show("a.key"), "HIDDEN 1\nHIDDEN more\nHIDDEN two\n");
    assert_eq!(show("c.key"), "HIDDEN new\n");
    assert_eq!(show("b.key"), "HIDDEN one\nHIDDEN 2\nHIDDEN 3\nHIDDEN 4\n");
    assert_eq!(show("win.txt"), "1\ntwo\n3\n");
    let stat = git(&dir, &["diff", "--numstat", "main", "greenwave/plan"]);
    assert_eq!(stat, "2\t0\ta.key\n1\t1\tb.key\n1\t0\tc.key\n1\t1\twin.txt\n");
    assert_eq!(git(&dir, &["status", "--porcelain"]), " M b.key\n");
}

/// Without its filter, a file is not committed at all.
#[test]
fn results_whose_filter_fails_are_not_committed() {
    let dir = filtered();
    git(&dir, &["config", "filter.hide.clean", "missing-filter"]);
    let one = ShellFeature::new("one", "echo plain new > c.key", "test -f c.key");
    let two = ShellFeature::new("two", "echo x > two.txt", "test -f two.txt");
    dir.write("plan.toml", format!("result = \"branch\"\n{}", shell_plan::plan(&[one, two])));
    let finished = dir.run_plan().with_code(1);
    let report = Report::of(&finished);
    assert!(report.reason("one").contains("clean filter 'hide' failed"), "{finished:?}");
    assert_eq!(report.phases(), [("one", "failed"), ("two", "green")], "{finished:?}");
    assert_eq!(git(&dir, &["ls-tree", "--name-only", "greenwave/plan", "c.key", "two.txt"]), "two.txt\n");
}
