//! Finds changed modes and times in the directories of the plan and of agents' scripts, which
//! Landlock does not stop there either.
//!
//! A directory is compared with its entries, but without what lies deeper. The contents of files
//! are not known, so times are reported and not restored.

use std::io;
use std::path::{Path, PathBuf};

use greenwave_dir::{Dir, FileKind};

use crate::project_state::{EntryState, Slips, is_damage, seconds_now};

/// Maximum number of entries of a directory that are compared.
const ENTRIES_MAX: usize = 1_000;

/// Metadata of directories and their entries before a run.
#[derive(Debug)]
pub(crate) struct Surroundings {
    directories: Vec<(Dir, Vec<(PathBuf, EntryState)>)>,
    /// Time at which the reading began, in seconds since the Unix epoch.
    started: i64,
}

impl Surroundings {
    /// Reads the metadata. Directories that cannot be listed are not compared.
    pub(crate) fn read(directories: &[PathBuf]) -> Self {
        let started = seconds_now();
        let opened = directories.iter().filter_map(|directory| Dir::open(directory).ok());
        let directories = opened.map(|directory| {
            let entries = entries(&directory);
            (directory, entries)
        });
        Self { directories: directories.collect(), started }
    }

    /// Compares the directories with their state before the run, and restores modes that a user
    /// would not set.
    pub(crate) fn compare(&self) -> Slips {
        let mut slips = Slips::default();
        for (directory, entries) in &self.directories {
            for (name, before) in entries {
                let Ok(metadata) = directory.metadata(name) else { continue };
                self.check(directory, name, before, EntryState::of(&metadata), &mut slips);
            }
        }
        slips
    }

    fn check(&self, dir: &Dir, name: &Path, before: &EntryState, now: EntryState, slips: &mut Slips) {
        let is_same = (now.kind, now.inode) == (before.kind, before.inode);
        if !is_same || now == *before || before.kind == FileKind::Link {
            return;
        }
        let shown = dir.path().join(name);
        if now.mode != before.mode {
            let what = format!("mode {:o} instead of {:o}", now.mode, before.mode);
            if is_damage(before, now) {
                slips.note(&shown, &what, &set_permissions(dir, name, before.mode));
            } else {
                slips.modes.push(format!("`{}` ({what})", shown.display()));
            }
        }
        let is_retimed =
            now.size == before.size && now.modified != before.modified && before.kind == FileKind::File;
        if is_retimed && !(self.started..=seconds_now()).contains(&now.modified.0) {
            slips.not_undone.push(format!("`{}` (time)", shown.display()));
        }
    }
}

/// Returns the directory itself, which has an empty name, and its entries.
fn entries(directory: &Dir) -> Vec<(PathBuf, EntryState)> {
    let listed = directory.entries().unwrap_or_default().into_iter().take(ENTRIES_MAX);
    let names = [PathBuf::new()].into_iter().chain(listed.map(|entry| entry.name.into()));
    let found = names.filter_map(|name| {
        let state = EntryState::of(&directory.metadata(&name).ok()?);
        Some((name, state))
    });
    found.collect()
}

fn set_permissions(directory: &Dir, name: &Path, mode: u32) -> io::Result<()> {
    if name.as_os_str().is_empty() {
        return directory.set_own_permissions(mode);
    }
    directory.set_permissions(name, mode)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;
    use std::time::SystemTime;

    use super::*;

    fn set_mode(path: &Path, mode: u32) {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }

    #[test]
    fn modes_are_restored_and_times_reported() {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        for name in ["plan.toml", "agent.sh", "edited", "opened"] {
            fs::write(at(name), "text").unwrap();
            set_mode(&at(name), 0o644);
        }
        set_mode(directory.path(), 0o700);
        let before = Surroundings::read(&[directory.path().to_owned()]);
        fs::File::open(at("agent.sh")).unwrap().set_modified(SystemTime::UNIX_EPOCH).unwrap();
        fs::write(at("edited"), "by the user").unwrap();
        set_mode(&at("opened"), 0o666);
        set_mode(&at("plan.toml"), 0);
        set_mode(directory.path(), 0o300);
        let slips = before.compare();
        let shown = |name: &str, what: &str| format!("`{}` ({what})", at(name).display());
        let mut restored = slips.metadata.clone();
        restored.sort();
        assert_eq!(
            restored,
            [shown("", "mode 300 instead of 700"), shown("plan.toml", "mode 0 instead of 644")]
        );
        assert_eq!(slips.not_undone, [shown("agent.sh", "time")]);
        assert_eq!(slips.modes, [shown("opened", "mode 666 instead of 644")]);
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o7777;
        assert_eq!([mode(directory.path()), mode(&at("plan.toml"))], [0o700, 0o644]);
    }
}
