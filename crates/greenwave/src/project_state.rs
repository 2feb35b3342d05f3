//! Finds changes of the project that a confinement does not stop, and undoes them where possible.
//!
//! Landlock never refuses to change modes and times of files, nor to truncate them before its
//! version 3, and an agent that is not confined can change anything. The metadata of all files is
//! read before a run and compared afterwards. That costs a system call per file, twice; contents
//! are read only of files whose times differ.
//!
//! Nothing shows whether the user or a program has changed something. What users do in their daily
//! work is therefore reported at most, and never undone.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::io;
use std::path::{Path, PathBuf};

use greenwave_dir::{Dir, FileKind, Metadata};
use greenwave_inputs::now_ns;
use greenwave_testing::STATE_DIRECTORY;

use crate::file_state;
use crate::tree::Tree;

/// Maximum number of entries that are compared. Later ones are not looked at.
const ENTRIES_MAX: usize = 1_000_000;
/// Maximum number of paths that a description names.
const NAMES_MAX: usize = 5;

/// Changes that programs of a run can make in the project.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exposure {
    /// Modes and times of files.
    Metadata,
    /// Also the length of files.
    Length,
    /// Everything.
    All,
}

/// Metadata of a project's files and directories before a run.
#[derive(Debug)]
pub(crate) struct ProjectState {
    entries: BTreeMap<PathBuf, EntryState>,
    exposure: Exposure,
    /// Time at which the reading began, in seconds since the Unix epoch.
    started: i64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct EntryState {
    pub(crate) kind: FileKind,
    pub(crate) mode: u32,
    pub(crate) inode: u64,
    pub(crate) size: u64,
    /// Modification time, as seconds and nanoseconds since the Unix epoch.
    pub(crate) modified: (i64, u32),
}

/// Changes of a project that are not the results of a run.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Slips {
    /// Descriptions of changes of modes, times and lengths that were undone.
    pub(crate) metadata: Vec<String>,
    /// Descriptions of changes of modes that the user may have made.
    pub(crate) modes: Vec<String>,
    /// Descriptions of changes that could not be undone.
    pub(crate) not_undone: Vec<String>,
    /// Paths of files that the store has and that were emptied.
    pub(crate) emptied: Vec<String>,
    /// Paths of files that changed or were removed, by the user or by a program.
    pub(crate) content: Vec<String>,
}

impl EntryState {
    pub(crate) fn of(metadata: &Metadata) -> Self {
        let stat = metadata.stat();
        Self {
            kind: metadata.kind(),
            mode: metadata.permissions() & 0o7777,
            inode: metadata.identity().1,
            size: metadata.len(),
            modified: (stat.st_mtime as _, stat.st_mtime_nsec as _),
        }
    }
}

impl ProjectState {
    /// Reads the metadata of a project.
    pub(crate) fn read(root: &Dir, exposure: Exposure) -> Self {
        let (mut entries, started) = (BTreeMap::new(), seconds_now());
        let mut pending = vec![PathBuf::new()];
        while let Some(directory) = pending.pop() {
            // What cannot be listed is not compared.
            let Ok(opened) = root.subdirectory(&directory) else { continue };
            for entry in opened.entries().unwrap_or_default() {
                let path = directory.join(&entry.name);
                let Ok(metadata) = opened.metadata(&entry.name) else { continue };
                if path == Path::new(STATE_DIRECTORY) || entries.len() >= ENTRIES_MAX {
                    continue;
                }
                // The data of version control in it is addressed by its content.
                if metadata.is_dir() && !path.ends_with(".git/objects") {
                    pending.push(path.clone());
                }
                entries.insert(path, EntryState::of(&metadata));
            }
        }
        Self { entries, exposure, started }
    }

    /// Compares the project with its state before the run. Restores times, and modes that a user
    /// would not set. Leaves out the paths that the run has written. `tree` has the contents of
    /// files before the run.
    pub(crate) fn compare(&self, root: &Dir, written: &BTreeSet<String>, tree: &Tree) -> Slips {
        let mut slips = Slips::default();
        // A directory comes before its entries, which may be out of reach until it is restored.
        for (path, before) in &self.entries {
            let name = path.to_str();
            if name.is_some_and(|name| written.contains(name)) || before.kind == FileKind::Link {
                continue;
            }
            let now = match root.metadata(path) {
                Ok(metadata) => EntryState::of(&metadata),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    slips.content.extend(name.filter(|_| before.kind == FileKind::File).map(str::to_owned));
                    continue;
                }
                Err(_) => continue,
            };
            if now == *before || now.kind != before.kind {
                continue;
            }
            if is_index(path) {
                // Git writes it whenever it looks at the files.
                self.check_mode(root, path, before, now, &mut slips);
                continue;
            }
            if before.kind == FileKind::Directory {
                // Its time changes with its entries.
                self.check_mode(root, path, before, now, &mut slips);
            } else if before.kind == FileKind::File {
                self.check_file(root, path, before, now, tree, &mut slips);
            }
        }
        if self.exposure != Exposure::All {
            slips.content.clear();
        }
        slips
    }

    fn check_file(
        &self,
        root: &Dir,
        path: &Path,
        before: &EntryState,
        now: EntryState,
        tree: &Tree,
        slips: &mut Slips,
    ) {
        let Some(name) = path.to_str() else { return };
        // Editors that save by renaming make another file.
        let is_same_file = now.inode == before.inode;
        let is_untouched = is_same_file && (now.size, now.modified) == (before.size, before.modified);
        if is_untouched {
            self.check_mode(root, path, before, now, slips);
            return;
        }
        let known = tree.get(name);
        let has_same_content = now.size == before.size
            && known.is_some_and(|file| {
                file_state::state_of(root, path)
                    .is_ok_and(|state| state.is_some_and(|it| it.blob == file.blob))
            });
        if is_same_file && has_same_content {
            if !self.is_during_run(now.modified.0) {
                let restored = root.set_time(path, before.modified.0, before.modified.1);
                slips.note(path, "time", &restored);
            }
            self.check_mode(root, path, before, now, slips);
        } else if is_same_file && now.size == 0 && before.size > 0 && self.exposure == Exposure::Length {
            match known {
                Some(_) => slips.emptied.push(name.to_owned()),
                None => slips.not_undone.push(format!("`{}` (emptied)", path.display())),
            }
        } else if !has_same_content {
            slips.content.push(name.to_owned());
        }
    }

    /// Returns whether a time is that of a write during the run, such as one of the user's editor.
    fn is_during_run(&self, seconds: i64) -> bool {
        (self.started..=seconds_now()).contains(&seconds)
    }

    fn check_mode(&self, root: &Dir, path: &Path, before: &EntryState, now: EntryState, slips: &mut Slips) {
        if now.mode == before.mode {
            return;
        }
        let what = format!("mode {:o} instead of {:o}", now.mode, before.mode);
        if is_damage(before, now) {
            slips.note(path, &what, &root.set_permissions(path, before.mode));
        } else {
            slips.modes.push(format!("`{}` ({what})", path.display()));
        }
    }
}

impl Slips {
    pub(crate) fn note(&mut self, path: &Path, what: &str, restored: &io::Result<()>) {
        let list = if restored.is_ok() { &mut self.metadata } else { &mut self.not_undone };
        list.push(format!("`{}` ({what})", path.display()));
    }
}

/// Returns whether a change of the mode takes the owner's access, or lends it to others. Other
/// changes of modes are everyday work of users, who can make them during a run.
pub(crate) fn is_damage(before: &EntryState, now: EntryState) -> bool {
    let access = if before.kind == FileKind::Directory { 0o500 } else { 0o400 };
    let lent = if before.kind == FileKind::Directory { 0 } else { 0o6000 };
    before.mode & access & !now.mode != 0 || now.mode & lent & !before.mode != 0
}

pub(crate) fn seconds_now() -> i64 {
    now_ns() / 1_000_000_000
}

/// Joins the first of many descriptions.
pub(crate) fn list(names: &[String]) -> String {
    let shown = names.iter().take(NAMES_MAX).cloned().collect::<Vec<_>>().join(", ");
    match names.len().checked_sub(NAMES_MAX) {
        None | Some(0) => shown,
        Some(more) => format!("{shown} and {more} more"),
    }
}

/// Returns whether a file is the index of a repository.
fn is_index(path: &Path) -> bool {
    path.file_name() == Some(OsStr::new("index"))
        && path.parent().is_some_and(|parent| parent.ends_with(".git"))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{MetadataExt, PermissionsExt};

    use greenwave_storage::BlobId;
    use greenwave_testing::EntryKind;

    use super::*;
    use crate::tree::File;

    struct Project {
        directory: tempfile::TempDir,
        root: Dir,
        tree: Tree,
    }

    fn project() -> Project {
        let directory = tempfile::tempdir().unwrap();
        let (root, mut tree) = (Dir::open(directory.path()).unwrap(), Tree::new());
        for path in ["a", "b", "src/c", "src/d", "ignored"] {
            fs::create_dir_all(directory.path().join(path).parent().unwrap()).unwrap();
            fs::write(directory.path().join(path), "text").unwrap();
            let file = File { kind: EntryKind::Regular, blob: BlobId::of(b"text") };
            tree.insert(path.to_owned(), file);
        }
        tree.remove("ignored");
        Project { directory, root, tree }
    }

    impl Project {
        fn path(&self, path: &str) -> PathBuf {
            self.directory.path().join(path)
        }

        fn chmod(&self, path: &str, mode: u32) {
            fs::set_permissions(self.path(path), fs::Permissions::from_mode(mode)).unwrap();
        }

        fn mode(&self, path: &str) -> u32 {
            fs::metadata(self.path(path)).unwrap().mode() & 0o7777
        }
    }

    #[test]
    fn modes_and_times_are_restored() {
        let project = project();
        let before = ProjectState::read(&project.root, Exposure::Metadata);
        let (mode, time) = (project.mode("a"), fs::metadata(project.path("b")).unwrap().modified().unwrap());
        project.chmod("a", 0o000);
        project.chmod("src/c", 0o4777);
        project.chmod("src", 0o000);
        let file = fs::File::options().write(true).open(project.path("b")).unwrap();
        file.set_modified(std::time::SystemTime::UNIX_EPOCH).unwrap();
        let slips = before.compare(&project.root, &BTreeSet::new(), &project.tree);
        assert_eq!(slips.metadata.len(), 4, "{slips:?}");
        assert!(slips.metadata[0].starts_with("`a` (mode 0 instead of 6"), "{slips:?}");
        assert!(slips.not_undone.is_empty() && slips.content.is_empty(), "{slips:?}");
        assert_eq!((project.mode("a"), project.mode("src/c")), (mode, mode));
        assert_eq!(fs::metadata(project.path("b")).unwrap().modified().unwrap(), time);
        let again = before.compare(&project.root, &BTreeSet::new(), &project.tree);
        assert_eq!(again, Slips::default());
    }

    #[test]
    fn edits_of_the_user_and_results_stay() {
        let project = project();
        let before = ProjectState::read(&project.root, Exposure::Metadata);
        fs::write(project.path("a"), "edited by the user").unwrap();
        project.chmod("a", 0o700);
        fs::remove_file(project.path("b")).unwrap();
        project.chmod("src/c", 0o755);
        project.chmod("src/d", 0o755);
        let time = fs::metadata(project.path("ignored")).unwrap().modified().unwrap();
        // A file that is saved without a change is as new as the save.
        fs::write(project.path("src/d"), "text").unwrap();
        fs::write(project.path("new"), "").unwrap();
        let written = ["src/c".to_owned()].into();
        let slips = before.compare(&project.root, &written, &project.tree);
        let modes = slips.modes.clone();
        assert!(modes.len() == 1 && modes[0].starts_with("`src/d` (mode 755 instead of 6"), "{slips:?}");
        assert_eq!(slips, Slips { modes, ..Slips::default() });
        assert_eq!(["a", "src/c", "src/d"].map(|path| project.mode(path)), [0o700, 0o755, 0o755]);
        assert!(fs::metadata(project.path("src/d")).unwrap().modified().unwrap() >= time);
        let before = ProjectState { exposure: Exposure::All, ..before };
        let slips = before.compare(&project.root, &written, &project.tree);
        assert_eq!(slips.content, ["a", "b"]);
    }

    #[test]
    fn files_of_git_are_compared_by_their_modes() {
        let project = project();
        for path in [".git/index", ".git/objects/ab/cd"] {
            fs::create_dir_all(project.path(path).parent().unwrap()).unwrap();
            fs::write(project.path(path), "text").unwrap();
        }
        let before = ProjectState::read(&project.root, Exposure::All);
        // Git does both whenever it is used.
        fs::write(project.path(".git/index"), "longer text").unwrap();
        fs::write(project.path(".git/objects/ab/ef"), "").unwrap();
        let slips = before.compare(&project.root, &BTreeSet::new(), &project.tree);
        assert_eq!(slips, Slips::default());
        project.chmod(".git/index", 0);
        project.chmod(".git/objects", 0);
        let slips = before.compare(&project.root, &BTreeSet::new(), &project.tree);
        assert_eq!(slips.metadata.len(), 2, "{slips:?}");
        assert_eq!(fs::read(project.path(".git/objects/ab/cd")).unwrap(), b"text");
    }

    #[test]
    fn emptied_files_are_found_where_truncation_is_not_stopped() {
        let project = project();
        for (exposure, found) in [(Exposure::Metadata, 0), (Exposure::Length, 1)] {
            fs::write(project.path("a"), "text").unwrap();
            let before = ProjectState::read(&project.root, exposure);
            fs::File::options().write(true).open(project.path("a")).unwrap().set_len(0).unwrap();
            let slips = before.compare(&project.root, &BTreeSet::new(), &project.tree);
            assert_eq!(slips.emptied.len(), found, "{slips:?}");
        }
    }
}
