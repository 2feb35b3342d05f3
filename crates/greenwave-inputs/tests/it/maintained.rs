//! Records of files in caches that tests maintain.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use greenwave_inputs::{AccessKind, MaintainedFiles, PathState, PathStates, StatCache};
use parking_lot::Mutex;

const FIRST: PathState = PathState::AsLeft([0; 32]);

/// A project with a cache `made`, and the records of a process.
struct Project {
    directory: tempfile::TempDir,
    maintained: Arc<MaintainedFiles>,
}

impl Project {
    fn new() -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        fs::create_dir_all(directory.path().join("made/sub")).expect("created");
        Self { directory, maintained: Arc::default() }
    }

    fn path(&self, path: &str) -> PathBuf {
        self.directory.path().join(path)
    }

    fn states(&self) -> PathStates {
        let cache = Arc::new(Mutex::new(StatCache::default()));
        let states = PathStates::new(self.directory.path(), cache, |_| None);
        states.with_maintained(Arc::clone(&self.maintained))
    }

    /// Writes a file as a test does.
    fn test_writes(&self, path: &str, text: &str) {
        self.write(path, text);
        self.record(path);
    }

    fn write(&self, path: &str, text: &str) {
        fs::write(self.path(path), text).expect("written");
    }

    fn record(&self, path: &str) {
        let (root, path) = (self.path("made"), self.path(path));
        self.states().record_maintained([(root.as_path(), path.as_path())].into_iter());
    }

    /// Returns the state of a path in a later process.
    fn later(&mut self, path: &str, kind: AccessKind) -> PathState {
        let stored = self.maintained.encode(None);
        if let Some(stored) = stored {
            let maintained = MaintainedFiles::default();
            maintained.load(Some(&stored));
            self.maintained = Arc::new(maintained);
        }
        self.states().verify_maintained();
        self.states().state(Path::new(path), kind).0
    }

    fn content(&mut self, path: &str) -> PathState {
        self.later(path, AccessKind::Maintained)
    }
}

#[test]
fn a_file_counts_if_another_program_changed_it() {
    let mut project = Project::new();
    project.test_writes("made/sub/a", "1");
    assert_eq!(project.content("made/sub/a"), FIRST);
    assert_eq!(project.content("made/sub"), FIRST);
    assert_eq!(project.content("made"), FIRST);
    project.write("made/sub/a", "1");
    assert_eq!(project.content("made/sub/a"), FIRST, "the content is the same");
    project.write("made/sub/a", "2");
    let edited = project.content("made/sub/a");
    assert!(matches!(edited, PathState::File(_)), "{edited:?}");
    assert_eq!(project.content("made/sub/a"), edited);
    fs::remove_file(project.path("made/sub/a")).unwrap();
    assert_eq!(project.content("made/sub/a"), PathState::Absent);
    symlink("b", project.path("made/sub/a")).unwrap();
    assert!(matches!(project.content("made/sub/a"), PathState::Symlink(_)));
}

#[test]
fn what_tests_write_after_a_change_has_another_epoch() {
    let mut project = Project::new();
    project.test_writes("made/a", "1");
    project.test_writes("made/b", "1");
    project.write("made/a", "2");
    project.content("made/a");
    let second = project.content("made/b");
    assert!(matches!(second, PathState::AsLeft(_)) && second != FIRST, "{second:?}");
    project.test_writes("made/a", "2");
    assert_eq!(project.content("made/a"), second);
    // The same edit as before, which tests have undone meanwhile.
    project.test_writes("made/a", "1");
    project.write("made/a", "2");
    project.content("made/a");
    let third = project.content("made/b");
    assert!(third != second && third != FIRST, "{third:?}");
    fs::remove_dir_all(project.path("made")).unwrap();
    assert_eq!(project.content("made/b"), PathState::Absent);
    fs::create_dir(project.path("made")).unwrap();
    project.test_writes("made/b", "1");
    assert_eq!(project.content("made/b"), FIRST, "nothing is left that the edits could have changed");
}

#[test]
fn without_a_record_an_existing_file_counts() {
    let mut project = Project::new();
    assert_eq!(project.content("made/a"), FIRST, "no test has created it yet");
    project.write("made/a", "1");
    assert!(matches!(project.content("made/a"), PathState::File(_)));
    project.test_writes("made/a", "1");
    assert_eq!(project.content("made/a"), FIRST);
    fs::remove_file(project.path("made/a")).unwrap();
    project.record("made/a");
    assert_eq!(project.content("made/a"), FIRST, "a test has removed it");
}

#[test]
fn foreign_names_count() {
    let mut project = Project::new();
    project.test_writes("made/sub/a", "1");
    let names = |project: &mut Project| project.later("made/sub", AccessKind::MaintainedNames);
    assert_eq!(names(&mut project), FIRST);
    project.test_writes("made/sub/b", "1");
    assert_eq!(names(&mut project), FIRST);
    project.write("made/sub/c", "1");
    let more = names(&mut project);
    assert!(matches!(more, PathState::Directory(_)), "{more:?}");
    fs::remove_file(project.path("made/sub/c")).unwrap();
    assert_eq!(names(&mut project), FIRST);
    fs::remove_file(project.path("made/sub/b")).unwrap();
    let fewer = names(&mut project);
    assert!(matches!(fewer, PathState::Directory(_)) && fewer != more, "{fewer:?}");
}

#[test]
fn two_processes_save_without_losing_a_change() {
    let mut project = Project::new();
    project.test_writes("made/a", "1");
    project.test_writes("made/b", "1");
    project.content("made/a");
    let stored = project.maintained.encode(None);
    let stored = stored.unwrap_or_else(|| {
        project.test_writes("made/b", "2");
        project.maintained.encode(None).unwrap()
    });
    let loaded = || {
        let maintained = Arc::new(MaintainedFiles::default());
        maintained.load(Some(&stored));
        maintained
    };
    let (one, other) = (loaded(), loaded());
    // One process finds an edit, and a test of the other writes another file.
    project.write("made/a", "3");
    project.maintained = Arc::clone(&one);
    project.states().verify_maintained();
    let first = one.encode(Some(&stored)).unwrap();
    project.maintained = Arc::clone(&other);
    project.test_writes("made/b", "4");
    let second = other.encode(Some(&first)).unwrap();
    let maintained = MaintainedFiles::default();
    maintained.load(Some(&second));
    project.maintained = Arc::new(maintained);
    assert!(matches!(project.content("made/a"), PathState::File(_)));
    let epoch = project.content("made/b");
    assert!(matches!(epoch, PathState::AsLeft(_)) && epoch != FIRST, "{epoch:?}");
}

#[test]
fn damaged_records_count_as_none() {
    let project = Project::new();
    project.test_writes("made/a", "1");
    let stored = project.maintained.encode(None).unwrap();
    for length in 0..stored.len() {
        let maintained = MaintainedFiles::default();
        maintained.load(Some(&stored[..length]));
        assert!(maintained.is_empty(), "{length}");
    }
}
