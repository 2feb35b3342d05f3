//! The files that all working copies share.

use std::collections::BTreeSet;
use std::io;
use std::path::Path;

use greenwave_dir::{Dir, FileKind};
use greenwave_inputs::FileStamp;

use crate::included;
use crate::tree::{File, Tree};

/// The files that overlays are mounted on, and the build output that other copies begin with.
#[derive(Debug)]
pub(crate) struct BaseFiles {
    pub(crate) dir: Dir,
    pub(crate) tree: Tree,
    /// The files of the tree with the stamps that they have in the directory.
    pub(crate) stamps: Vec<(String, File, FileStamp)>,
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
