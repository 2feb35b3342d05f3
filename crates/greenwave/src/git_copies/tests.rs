//! Another program writes into the repository of a copy while a run makes a new one.

use std::fs;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use greenwave_storage::{MemoryColdTier, StoreOptions};
use tempfile::TempDir;

use super::*;
use crate::tree::File;

/// Number of repositories that are made, raised by the variable.
fn rounds() -> usize {
    std::env::var("GREENWAVE_PATH_ROUNDS").ok().and_then(|text| text.parse().ok()).unwrap_or(20)
}

/// A repository of the user with one commit, and directories of a run.
struct World {
    directory: TempDir,
    store: Store,
}

impl World {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let project = directory.path().join("project");
        fs::create_dir(&project).unwrap();
        fs::write(project.join("a.txt"), "a\n").unwrap();
        let commit = ["-c", "user.name=u", "-c", "user.email=u@u", "commit", "-qm", "start"];
        for arguments in [&["init", "-q", "-b", "main"][..], &["add", "-A"], &commit] {
            let status = Command::new("git").current_dir(&project).args(arguments).status();
            assert!(status.unwrap().success(), "{arguments:?}");
        }
        let store = Store::open(StoreOptions::default(), Arc::new(MemoryColdTier::default())).unwrap();
        Self { directory, store }
    }

    fn dir(&self, name: &str) -> Dir {
        Dir::create(self.directory.path().join(name), 0o700).unwrap()
    }

    /// Returns the commit of the user's branch.
    fn branch(&self) -> String {
        fs::read_to_string(self.directory.path().join("project/.git/refs/heads/main")).unwrap()
    }

    fn base(&self, copy: &Dir) -> GitBase {
        let repository = UserRepository::of(&self.directory.path().join("project")).unwrap().unwrap();
        GitBase::create(&repository, &self.dir("base"), copy, Tree::default(), 0).unwrap()
    }

    /// Returns a tree that a new repository has to have a commit for.
    async fn merged(&self) -> Tree {
        let blob = self.store.put_blob(Bytes::from_static(b"merged\n")).await.unwrap();
        Tree::from_iter([("merged.txt".to_owned(), File { kind: EntryKind::Regular, blob })])
    }
}

#[tokio::test]
async fn a_repository_of_a_copy_leads_into_no_other_one() {
    let world = World::new();
    let (copy, private) = (world.dir("copy"), world.dir("private"));
    let (base, merged, before) = (world.base(&copy), world.merged().await, world.branch());
    let is_done = Arc::new(AtomicBool::new(false));
    let (planter, planting) = (copy.clone(), Arc::clone(&is_done));
    let target = format!("{}\n", world.directory.path().join("project/.git").display());
    let plant = move || planter.replace_file(".git/commondir", target.as_bytes(), 0o600);
    let again = plant.clone();
    let thread = std::thread::spawn(move || {
        let mut planted = 0_usize;
        // Relaxed: the flag guards no other memory.
        while !planting.load(Ordering::Relaxed) {
            planted += usize::from(plant().is_ok());
        }
        planted
    });
    for _ in 0..rounds() {
        // The other program may hinder it, and that is all.
        let _ = base.attach(&copy, &private, &merged, &world.store).await;
        assert_eq!(world.branch(), before);
    }
    is_done.store(true, Ordering::Relaxed);
    assert!(thread.join().unwrap() > 0, "nothing was planted");
    assert!(private.entries().unwrap().is_empty());
    // The control: git in the copy follows the planted file.
    copy.remove_all(".git").unwrap();
    base.attach(&copy, &private, &merged, &world.store).await.unwrap();
    again().unwrap();
    let mut moved = git::command_in_copy(copy.path(), copy.path());
    moved.args(["update-ref", "-d", "refs/heads/main"]);
    git::output(&mut moved, "move a branch").unwrap();
    assert!(!world.directory.path().join("project/.git/refs/heads/main").exists());
}

#[tokio::test]
async fn a_new_repository_has_what_was_merged() {
    let world = World::new();
    let (copy, private) = (world.dir("copy"), world.dir("private"));
    let (base, merged) = (world.base(&copy), world.merged().await);
    base.attach(&copy, &private, &merged, &world.store).await.unwrap();
    let shown = |arguments: &[&str]| {
        git::text(git::command_in_copy(copy.path(), copy.path()).args(arguments), "show").unwrap()
    };
    assert_eq!(shown(&["show", "HEAD:merged.txt"]), "merged");
    assert_eq!(shown(&["ls-files"]), "merged.txt");
    assert_eq!(shown(&["rev-list", "--count", "HEAD"]), "3");
    assert_eq!(shown(&["fsck", "--no-progress"]), "");
}
