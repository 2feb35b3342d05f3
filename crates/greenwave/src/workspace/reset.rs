//! Resets a workspace to a tree.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use greenwave_dir::{Dir, Metadata};
use greenwave_inputs::{CLOCK_TICK, now_ns};
use greenwave_storage::Store;
use greenwave_testing::EntryKind;

use super::Workspace;
use super::destination::{TEMPORARY_PREFIX, apply};
use super::listing::{IGNORE_FILES, ListedFile, Listing};
use super::scan::Observed;
use crate::copies::Copied;
use crate::error::Error;
use crate::tree::{self, Change, Tree};

/// Age of the files in a fresh copy, in seconds.
const MTIME_AGE_S: i64 = 10;

impl Workspace {
    /// Resets the directory to a tree, with any leftovers of programs in it: restores changed and
    /// deleted files and their modes, and removes everything that the tree does not have.
    ///
    /// Build output, and files that the ignore files of the tree exclude, stay.
    ///
    /// # Errors
    /// [`Error::Io`] or [`Error::Store`].
    pub(crate) async fn reset(&mut self, tree: &Tree, store: &Store) -> Result<(), Error> {
        let mtime = self.copies.as_ref().filter(|_| self.is_fresh).and_then(|copies| copies.mtime());
        self.reset_at(tree, store, mtime).await
    }

    /// Writes the first tree with an old modification time, and returns that time in seconds since
    /// the Unix epoch. An index of git with this time is valid for every such copy.
    pub(crate) async fn write_first(&mut self, tree: &Tree, store: &Store) -> Result<i64, Error> {
        // Git reads files again that changed in the second in which the index was written.
        let mtime = now_ns() / 1_000_000_000 - MTIME_AGE_S;
        self.reset_at(tree, store, Some(mtime)).await?;
        self.repositories.insert(String::new());
        Ok(mtime)
    }

    /// Resets the directory. Files that are written get a modification time, if there is one.
    async fn reset_at(&mut self, tree: &Tree, store: &Store, mtime: Option<i64>) -> Result<(), Error> {
        // Nothing needs to be looked for in a new directory.
        let is_pristine = std::mem::take(&mut self.is_pristine);
        let is_empty = self.is_fresh && self.dir().entries().is_ok_and(|entries| entries.is_empty());
        let changes = if is_pristine {
            let changes = tree::changes(&self.tree, tree);
            let removed: Vec<Change> = changes.iter().filter(|it| it.after.is_none()).cloned().collect();
            apply(&self.destination, &removed, store).await?;
            changes
        } else if is_empty {
            tree::changes(&Tree::new(), tree)
        } else {
            let observed = self.observe_for(tree, store).await?;
            let changes = tree::changes(&observed.files, tree);
            let (root, wanted) = (self.dir().clone(), tree.clone());
            self.blocking(move || clean(&root, observed, &wanted)).await?;
            changes
        };
        let written: Vec<Change> = changes.into_iter().filter(|change| change.after.is_some()).collect();
        // Build output of the base is older than files that differ from those it was built from.
        let (old, new) = match self.copies.as_ref().and_then(|copies| copies.base()) {
            Some(base) => written.into_iter().partition(|it| base.tree.get(&it.path) == it.after.as_ref()),
            None => (written, Vec::new()),
        };
        let is_unchanged = old.is_empty() && new.is_empty() && !self.is_fresh;
        self.write(old, mtime, store).await?;
        self.write(new, None, store).await?;
        if !is_unchanged {
            // The result of a test that starts at once would not be stored: the directories that it
            // reads would have just changed.
            tokio::time::sleep(CLOCK_TICK + Duration::from_millis(1)).await;
        }
        self.is_fresh = false;
        self.tree.clone_from(tree);
        Ok(())
    }

    /// Writes files. They get a modification time, if there is one.
    async fn write(&mut self, files: Vec<Change>, mtime: Option<i64>, store: &Store) -> Result<(), Error> {
        let Copied { copied, rest } = self.copy_originals(files, mtime).await?;
        self.stamps.record(copied);
        apply(&self.destination, &rest, store).await?;
        if let Some(mtime) = mtime {
            set_times(&self.destination.dir, &rest, mtime)?;
        }
        self.stamps.record_written(&self.destination.dir, &rest);
        Ok(())
    }

    /// Reads the state of the directory, as far as it can stay under a tree.
    async fn observe_for(&mut self, tree: &Tree, store: &Store) -> Result<Observed, Error> {
        let mut rules = BTreeMap::new();
        for (path, file) in tree {
            let name = path.rsplit('/').next().unwrap_or(path);
            if IGNORE_FILES.contains(&name) && file.kind != EntryKind::Symlink {
                rules.insert(path.clone(), tree::content(store, &file.blob).await?);
            }
        }
        let mut observed = self.observe(Some(rules), tree.clone()).await?;
        let Observed { listing, files, too_large } = &mut observed;
        files.retain(|path, _| !is_hard_link(&listing.files[path]));
        for path in too_large.drain(..) {
            files.remove(&path);
        }
        Ok(observed)
    }

    /// Copies files that are unchanged in the project from there.
    async fn copy_originals(&self, written: Vec<Change>, mtime: Option<i64>) -> Result<Copied, Error> {
        let Some(copies) = self.copies.clone().filter(|copies| copies.originals().is_some()) else {
            return Ok(Copied { copied: Vec::new(), rest: written });
        };
        let root = self.dir().clone();
        self.blocking(move || match copies.originals() {
            Some(originals) => originals.copy(&root, written, mtime, copies.method()),
            None => Ok(Copied { copied: Vec::new(), rest: written }),
        })
        .await
    }
}

/// Returns whether a file has other names. A change of its content or mode would change them too.
fn is_hard_link(listed: &ListedFile) -> bool {
    listed.links > 1 && listed.kind != EntryKind::Symlink
}

/// Removes paths that the tree does not have, and obstacles to its files and directories.
/// Restores modes.
fn clean(root: &Dir, observed: Observed, tree: &Tree) -> Result<(), Error> {
    let remove = |path: &Path| root.remove_all(path).map_err(Error::io("remove", root.path().join(path)));
    let Listing { files, directories, special, too_deep, not_utf8, foreign_repositories } = observed.listing;
    for path in foreign_repositories.iter().chain(special.keys()).chain(&too_deep) {
        remove(Path::new(path))?;
    }
    not_utf8.iter().try_for_each(|path| remove(path))?;
    for (path, listed) in &files {
        if !tree.contains_key(path) || is_hard_link(listed) {
            remove(Path::new(path))?;
        }
    }
    let mut wanted_directories = BTreeSet::new();
    for path in tree.keys() {
        let parents = Path::new(path).ancestors().skip(1).filter(|parent| *parent != Path::new(""));
        // The parents of a directory are inserted with it.
        for parent in parents {
            if !wanted_directories.insert(parent.to_owned()) {
                break;
            }
        }
    }
    for directory in &wanted_directories {
        match root.metadata(directory) {
            Ok(metadata) if !metadata.is_dir() => remove(directory)?,
            _ => {}
        }
    }
    for directory in directories.iter().rev().map(Path::new) {
        if !wanted_directories.contains(directory) {
            // Fails if ignored files are in it.
            let _ = root.remove_empty(directory);
        }
    }
    for path in tree.keys().map(Path::new) {
        if root.metadata(path).is_ok_and(|metadata| metadata.is_dir()) {
            remove(path)?;
        }
    }
    restore_modes(root, tree, &wanted_directories)
}

fn restore_modes(root: &Dir, tree: &Tree, directories: &BTreeSet<PathBuf>) -> Result<(), Error> {
    let umask = umask_of(root).map_err(Error::io("write in", root.path()))?;
    let set = |path: &Path, metadata: &Metadata, permissions: u32| {
        if metadata.permissions() == permissions {
            return Ok(());
        }
        let set = root.set_permissions(path, permissions);
        set.map_err(Error::io("restore the mode of", root.path().join(path)))
    };
    for directory in directories {
        if let Ok(metadata) = root.metadata(directory) {
            set(directory, &metadata, 0o777 & !umask | 0o700)?;
        }
    }
    for (path, file) in tree {
        match root.metadata(path) {
            Ok(metadata) if metadata.is_file() && metadata.links() == 1 => {
                let all = if file.kind == EntryKind::Executable { 0o777 } else { 0o666 };
                set(Path::new(path), &metadata, all & !umask | 0o600)?;
            }
            _ => {}
        }
    }
    Ok(())
}

/// Sets the modification time of written files, in seconds since the Unix epoch.
fn set_times(root: &Dir, written: &[Change], seconds: i64) -> Result<(), Error> {
    for Change { path, .. } in written {
        let set = root.set_time(path, seconds, 0);
        set.map_err(Error::io("set the time of", root.path().join(path)))?;
    }
    Ok(())
}

/// Returns the permissions that new files lack, as bits.
fn umask_of(directory: &Dir) -> io::Result<u32> {
    let probe = directory.temporary(TEMPORARY_PREFIX, 0o777)?;
    Ok(!probe.file().metadata()?.permissions().mode() & 0o777)
}
