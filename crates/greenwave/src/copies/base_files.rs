//! The files that all working copies share.

use std::collections::{BTreeSet, HashMap};
use std::io;
use std::path::Path;
use std::sync::Arc;

use greenwave_dir::{Dir, FileKind};
use greenwave_inputs::{FileStamp, ManifestEntry, SharedHashes};
use greenwave_testing::EntryKind;

use crate::included;
use crate::tree::{File, Tree};

/// The contents of the files that all copies share, by their stamps. Each copy shows them with
/// another device.
#[derive(Debug)]
pub(crate) struct BaseStamps {
    pub(crate) files: HashMap<String, (File, FileStamp)>,
    /// Hashes of the files for tests. Links have no hashes.
    pub(crate) hashes: SharedHashes,
    /// Time of the last change of a file, in nanoseconds since the Unix epoch.
    pub(crate) changed: i64,
}

impl BaseStamps {
    pub(crate) fn new(files: impl IntoIterator<Item = (String, File, FileStamp)>) -> Self {
        let files: HashMap<_, _> =
            files.into_iter().map(|(path, file, stamp)| (path, (file, stamp))).collect();
        let plain = files.values().filter(|(file, _)| file.kind != EntryKind::Symlink);
        let entry = |file: &File| ManifestEntry { kind: file.kind, hash: *file.blob.as_bytes() };
        let hashes = plain.map(|(file, stamp)| (stamp.inode, (*stamp, entry(file)))).collect();
        let changed = files.values().map(|(_, stamp)| stamp.modified.max(stamp.changed)).max();
        Self { hashes: Arc::new(hashes), changed: changed.unwrap_or(i64::MIN), files }
    }
}

/// The files that overlays are mounted on, and the build output that other copies begin with.
#[derive(Debug)]
pub(crate) struct BaseFiles {
    pub(crate) dir: Dir,
    pub(crate) tree: Tree,
    /// The files of the tree with the stamps that they have in the directory.
    pub(crate) stamps: Arc<BaseStamps>,
    /// Modification time of the files, in seconds since the Unix epoch.
    pub(crate) mtime: i64,
    /// Directories of build output.
    pub(crate) built: Vec<String>,
}

impl BaseFiles {
    /// Returns the directories of the tree and of build output, each after the directories above.
    pub(crate) fn directories(&self) -> BTreeSet<&Path> {
        let above = self.tree.keys().flat_map(|path| Path::new(path).ancestors().skip(1));
        above.filter(|path| *path != Path::new("")).chain(self.built.iter().map(Path::new)).collect()
    }

    /// Copies the build output into a working copy, with its modes and times.
    ///
    /// # Errors
    /// The error of the operating system.
    pub(crate) fn copy_built(&self, copy: &Dir) -> io::Result<()> {
        let mut pending = self.built.clone();
        while let Some(directory) = pending.pop() {
            copy.create_subdirectory(&directory, 0o777)?;
            for entry in self.dir.subdirectory(&directory)?.entries()? {
                let Some(name) = entry.name.to_str() else { continue };
                let path = format!("{directory}/{name}");
                match entry.kind {
                    FileKind::Directory => pending.push(path),
                    FileKind::File | FileKind::Link => drop(included::copy(&self.dir, copy, &path)?),
                    _ => {}
                }
            }
        }
        Ok(())
    }
}
