//! A program exchanges a directory and a link while a run writes files.

use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use greenwave_storage::{MemoryColdTier, StoreOptions};
use greenwave_testing::EntryKind;
use tempfile::TempDir;

use super::*;
use crate::tree::{Change, File};

/// Number of writes of each kind, raised by `cargo xtask long run-races`.
fn rounds() -> usize {
    std::env::var("GREENWAVE_PATH_ROUNDS").ok().and_then(|text| text.parse().ok()).unwrap_or(40)
}

/// A directory outside, and a base in which a thread exchanges the directory `d` and the link `l`,
/// which leads outside.
struct World {
    directory: TempDir,
    store: Store,
}

impl World {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        fs::create_dir(directory.path().join("outside")).unwrap();
        fs::write(directory.path().join("outside/precious"), "precious").unwrap();
        let store = Store::open(StoreOptions::default(), Arc::new(MemoryColdTier::default())).unwrap();
        Self { directory, store }
    }

    fn base(&self) -> Dir {
        Dir::create(self.directory.path().join("base"), 0o700).unwrap()
    }

    /// Calls `write` for each round while the exchange goes on. Returns how many calls succeeded.
    async fn race(&self, base: &Dir, mut write: impl AsyncFnMut(usize) -> Result<(), Error>) -> usize {
        base.remove_all("l").unwrap();
        base.symlink("../outside", "l").unwrap();
        base.create_subdirectory("d", 0o700).unwrap();
        let is_done = Arc::new(AtomicBool::new(false));
        let (swapper, swapping) = (base.clone(), Arc::clone(&is_done));
        let thread = std::thread::spawn(move || {
            // Relaxed: the flag guards no other memory.
            while !swapping.load(Ordering::Relaxed) {
                let _ = swapper.exchange("d", "l");
            }
        });
        let mut succeeded = 0;
        for round in 0..rounds() * 100 {
            // On a busy machine, a few rounds can all meet the link.
            if round >= rounds() && succeeded > 0 {
                break;
            }
            succeeded += usize::from(write(round).await.is_ok());
        }
        is_done.store(true, Ordering::Relaxed);
        thread.join().unwrap();
        let outside = fs::read_dir(self.directory.path().join("outside")).unwrap();
        let outside: Vec<_> = outside.map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(outside, ["precious"]);
        let precious = fs::read_to_string(self.directory.path().join("outside/precious"));
        assert_eq!(precious.unwrap(), "precious");
        succeeded
    }

    async fn file(&self, content: &str) -> File {
        let blob = self.store.put_blob(Bytes::copy_from_slice(content.as_bytes())).await.unwrap();
        File { kind: EntryKind::Regular, blob }
    }

    /// Writes or removes files behind the directory, as an answer or as a merge.
    async fn write_changes(&self, is_project: bool) -> usize {
        let (dir, file) = (self.base(), self.file("x").await);
        let in_flight = Arc::default();
        let destination = Destination {
            dir: dir.clone(),
            in_flight,
            steps: Steps::default(),
            is_project,
            written: Arc::default(),
        };
        let precious = self.file("precious").await;
        self.race(&dir, async |round| {
            let removed = Change { path: "d/precious".to_owned(), before: Some(precious), after: None };
            let _ = apply(&destination, &[removed], &self.store).await;
            let path = if round % 2 == 0 { format!("d/f{round}") } else { format!("d/sub{round}/f") };
            apply(&destination, &[Change { path, before: None, after: Some(file) }], &self.store).await
        })
        .await
    }
}

#[tokio::test]
async fn an_answer_is_written_inside() {
    assert!(World::new().write_changes(false).await > 0);
}

#[tokio::test]
async fn a_merge_is_written_inside() {
    assert!(World::new().write_changes(true).await > 0);
}

#[tokio::test]
async fn a_tree_is_restored_inside() {
    let world = World::new();
    let parent = Dir::open(world.directory.path()).unwrap();
    let mut workspace = Workspace::new(&parent, "base", Arc::default()).unwrap();
    let base = workspace.dir().clone();
    let files = [world.file("one").await, world.file("two").await];
    world
        .race(&base, async |round| {
            let name = |number: usize| format!("d/sub/f{number}");
            let tree: Tree = (0..4).map(|number| (name(number + round % 3), files[round % 2])).collect();
            workspace.reset(&tree, &world.store).await
        })
        .await;
}
