//! Snapshots: visibility of changes, and caching.

#![expect(clippy::unwrap_used, reason = "helpers of tests are tests")]

use std::path::{Path, PathBuf};
use std::sync::Arc;

use greenwave_inputs::{
    DirCache, Error, InputSpec, ProjectFiles, SealedContent, StatCache, StateSeal, UserKey,
};
use parking_lot::Mutex;
use tokio::time::Instant;

use crate::support::{Project, paths};

fn seal() -> StateSeal {
    UserKey::new([7; 32]).for_purpose("snapshots")
}

fn open(project: &Project, tests: &[(&str, &str)], state: Option<&Path>) -> ProjectFiles {
    let specs = tests.iter().map(|(name, pattern)| {
        let spec = InputSpec { inputs: vec![(*pattern).to_owned()], ..InputSpec::default() };
        ((*name).to_owned(), spec)
    });
    let read = |name: &str| state.and_then(|state| seal().read(&state.join(name)).valid());
    let stat_cache = StatCache::load(read("stat").as_deref());
    let dir_cache = read("dir").and_then(|content| DirCache::decode(&content));
    let specs: Vec<_> = specs.collect();
    ProjectFiles::new(project.root(), Arc::new(Mutex::new(stat_cache)), dir_cache, specs, |_| None).unwrap()
}

#[tokio::test]
async fn a_test_sees_changes_of_its_own_inputs() {
    let project = Project::new(&[("a/x", "1"), ("b/x", "1")]);
    let files = open(&project, &[("a", "/a/**"), ("b", "/b/**"), ("also a", "/a/**")], None);
    let before = files.latest().await.unwrap();
    let of = async |snapshot, test| files.input_snapshot(snapshot, test).await.unwrap().inputs;
    let (a, b) = (of(&before, "a").await, of(&before, "b").await);
    assert_eq!((paths(&a), paths(&b)), (vec!["a/x".to_owned()], vec!["b/x".to_owned()]));
    assert!(a.ptr_eq(&of(&before, "also a").await), "equal specifications share a manifest");
    project.write("a/x", "2");
    let after = files.snapshot_after(Instant::now()).await.unwrap();
    assert_ne!(of(&after, "a").await, a);
    assert_eq!(of(&after, "b").await, b);
    let unknown = files.input_snapshot(&after, "c").await.unwrap_err();
    assert!(matches!(unknown, Error::UnknownTest { test } if test == "c"));
}

#[tokio::test]
async fn callers_share_a_snapshot_that_began_after_their_request() {
    let project = Project::new(&[("a", "1")]);
    let files = open(&project, &[("a", "/a")], None);
    let asked = Instant::now();
    let first = files.snapshot_after(asked).await.unwrap();
    assert!(Arc::ptr_eq(&first, &files.snapshot_after(asked).await.unwrap()));
    assert!(Arc::ptr_eq(&first, &files.latest().await.unwrap()));
    assert_eq!(files.snapshot_count(), 1);
    let later = files.snapshot_after(Instant::now()).await.unwrap();
    assert!(!Arc::ptr_eq(&first, &later));
    assert_eq!(files.snapshot_count(), 2);
}

#[tokio::test]
async fn unmatched_patterns_are_found() {
    let project = Project::new(&[("src/main.c", "")]);
    let files = open(&project, &[("a", "/src/**")], None);
    let snapshot = files.latest().await.unwrap();
    let patterns = ["src/*.c", "!nothing", "*.h", "*.o"].map(str::to_owned);
    assert_eq!(files.unmatched_pattern(&snapshot, &patterns), Some("*.h"));
    assert_eq!(files.unmatched_pattern(&snapshot, &patterns[..2]), None);
}

#[tokio::test]
async fn recent_files_are_not_cached_between_runs() {
    let project = Project::new(&[("a", "1")]);
    let state = tempfile::tempdir().unwrap();
    let files = open(&project, &[("a", "/a")], Some(state.path()));
    let snapshot = files.latest().await.unwrap();
    files.hash_all(&snapshot);
    assert_eq!(snapshot.files().filter(|(_, entry)| entry.is_some()).count(), 1);
    files.save(&state.path().join("stat"), &state.path().join("dir"), &seal()).unwrap();
    // All timestamps are racy, although the modification time alone would not be.
    project.age("a");
    assert!(files.durable_directories().is_none());
    assert_eq!(seal().read(&state.path().join("dir")), SealedContent::Missing);
    let files = open(&project, &[("a", "/a")], Some(state.path()));
    let snapshot = files.latest().await.unwrap();
    assert_eq!(snapshot.files().filter(|(_, entry)| entry.is_some()).count(), 0);
}

#[tokio::test]
async fn listings_follow_files_that_come_and_go() {
    let project = Project::new(&[("a", ""), ("d/b", "")]);
    let files = open(&project, &[("all", "**")], None);
    let list = async || -> Vec<PathBuf> {
        let snapshot = files.snapshot_after(Instant::now()).await.unwrap();
        snapshot.files().map(|(file, _)| file.path.clone()).collect()
    };
    assert_eq!(list().await, ["a", "d/b"].map(PathBuf::from));
    project.write("d/c", "");
    assert_eq!(list().await, ["a", "d/b", "d/c"].map(PathBuf::from));
    std::fs::remove_file(project.at("d/b")).unwrap();
    assert_eq!(list().await, ["a", "d/c"].map(PathBuf::from));
}
