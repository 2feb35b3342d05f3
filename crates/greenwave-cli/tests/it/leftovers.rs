//! State that earlier runs have left: it never makes a test pass that would fail.
//!
//! The clock of the program is ahead, so that timestamps of files that were just written are not
//! racy.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::clock::{Clocked, HOUR};
use crate::program::Finished;
use crate::test_dir::TestDir;

const RECORD: &str = "p/.greenwave/tests/answer";

fn project(script: &str) -> Option<Clocked> {
    let config = format!("[[test]]\nname = \"t\"\ncommand = \"{script}\"\n");
    let dir = TestDir::empty().with("p/greenwave.toml", config).with("p/data.txt", "1");
    let clocked = Clocked::of(dir)?;
    clocked.set(HOUR);
    Some(clocked)
}

/// Runs the test in the project, or in a copy of it.
fn run(clocked: &Clocked, project: &str, code: i32) -> Finished {
    let project = clocked.dir.path(project);
    clocked.greenwave(["test"]).within(&project).run().with_code(code)
}

fn is_cached(finished: &Finished) -> bool {
    finished.stdout.contains("all cached")
}

/// Runs until the up-to-date record answers.
fn settle(clocked: &Clocked) {
    for _ in 0..3 {
        run(clocked, "p", 0);
    }
    assert!(clocked.dir.path(RECORD).exists() && is_cached(&run(clocked, "p", 0)));
}

fn command(directory: &Path, words: &[&str]) {
    let output = Command::new(words[0]).args(&words[1..]).current_dir(directory).output().unwrap();
    assert!(output.status.success(), "{words:?}: {output:?}");
}

/// Writes text of the same length, and restores the modification time.
fn disguise(path: &Path, text: &str) {
    let modified = fs::metadata(path).unwrap().modified().unwrap();
    fs::write(path, text).unwrap();
    fs::File::options().write(true).open(path).unwrap().set_modified(modified).unwrap();
}

#[test]
fn a_record_holds_for_one_directory_only() {
    let Some(clocked) = project("grep -q 1 data.txt") else { return };
    let dir = clocked.dir.path("");
    settle(&clocked);
    command(&dir, &["cp", "-a", "p", "copy"]);
    assert!(is_cached(&run(&clocked, "copy", 0)), "the content is the same");
    disguise(&dir.join("copy/data.txt"), "2");
    assert!(!is_cached(&run(&clocked, "copy", 1)));
    assert!(is_cached(&run(&clocked, "p", 0)));
    // The copy takes the place of the project, with the project's record.
    command(&dir, &["mv", "p", "original"]);
    command(&dir, &["mv", "copy", "p"]);
    command(&dir, &["cp", "original/.greenwave/tests/answer", RECORD]);
    assert!(!is_cached(&run(&clocked, "p", 1)));
    assert!(is_cached(&run(&clocked, "original", 0)));
}

#[test]
fn a_record_holds_for_one_worktree_only() {
    let Some(clocked) = project("grep -q 1 data.txt") else { return };
    let project = clocked.dir.path("p");
    let git = ["git", "-c", "user.name=u", "-c", "user.email=u@localhost"];
    command(&project, &[&git[..], &["init", "-q"]].concat());
    command(&project, &[&git[..], &["add", "-A"]].concat());
    command(&project, &[&git[..], &["commit", "-qm", "one"]].concat());
    settle(&clocked);
    command(&project, &[&git[..], &["worktree", "add", "-q", "../linked"]].concat());
    assert!(is_cached(&run(&clocked, "linked", 0)), "the content is the same");
    let linked = clocked.dir.path("linked");
    command(&project, &["cp", "-r", ".greenwave", "../linked"]);
    disguise(&linked.join("data.txt"), "2");
    assert!(!is_cached(&run(&clocked, "linked", 1)));
    assert!(is_cached(&run(&clocked, "p", 0)));
}

#[test]
fn a_file_that_the_test_once_wrote_counts_when_others_edit_it() {
    let script = "if test -e ../write; then echo 1 > data.txt; fi; grep -q 1 data.txt";
    let Some(clocked) = project(script) else { return };
    let data = clocked.dir.path("p/data.txt");
    clocked.dir.write("write", "");
    for _ in 0..2 {
        run(&clocked, "p", 0);
    }
    fs::remove_file(clocked.dir.path("write")).unwrap();
    settle(&clocked);
    disguise(&data, "2\n");
    assert!(!is_cached(&run(&clocked, "p", 1)));
    disguise(&data, "1\n");
    run(&clocked, "p", 0);
    fs::remove_file(&data).unwrap();
    assert!(!is_cached(&run(&clocked, "p", 1)));
}
