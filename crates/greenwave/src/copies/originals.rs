//! Copies files from the project into working copies without reading them into memory.

use std::collections::HashMap;
use std::fs::{self, FileTimes};
use std::io;

use std::time::{Duration, SystemTime};

use greenwave_dir::{Access, Dir, Metadata, refused};
use greenwave_inputs::FileStamp;
use greenwave_testing::EntryKind;

use super::method::CopyMethod;
use crate::error::Error;
use crate::tree::{Change, File};

/// Files of the project, with the stamps that they had when their contents were stored.
///
/// A file whose stamp is still the same has the stored content. It is copied from the project by
/// the kernel. All others are written from the store.
#[derive(Debug)]
pub(crate) struct Originals {
    root: Dir,
    files: HashMap<String, (File, FileStamp)>,
}

/// Files that were copied and files that were not.
#[derive(Debug, Default)]
pub(crate) struct Copied {
    /// The copied files with the stamps of the copies.
    pub(crate) copied: Vec<(String, File, FileStamp)>,
    /// Changes of files that have no unchanged original, or that exist in the copy.
    pub(crate) rest: Vec<Change>,
}

impl Originals {
    /// Creates the originals in a project. Files that were read so shortly after they were changed
    /// that a later change could have the same stamp must not be among them.
    pub(crate) fn new(root: Dir, files: HashMap<String, (File, FileStamp)>) -> Self {
        Self { root, files }
    }

    /// Copies the files that changes create into a working copy. With `mtime`, the copies get this
    /// modification time, in seconds since the Unix epoch.
    ///
    /// # Errors
    /// [`Error::Io`] with the file that cannot be written.
    pub(crate) fn copy(
        &self,
        to: &Dir,
        changes: Vec<Change>,
        mtime: Option<i64>,
        method: CopyMethod,
    ) -> Result<Copied, Error> {
        let mut result = Copied::default();
        let mut target = Target { root: to, directory: None, mtime, method };
        for change in changes {
            let original = self.files.get(&change.path);
            let original = original.filter(|(file, _)| change.after == Some(*file));
            let copied = match original {
                Some((_, stamp)) => target
                    .copy(&self.root, &change.path, stamp)
                    .map_err(Error::io("write", to.path().join(&change.path)))?,
                None => None,
            };
            match (copied, change.after) {
                (Some(stamp), Some(file)) => result.copied.push((change.path, file, stamp)),
                _ => result.rest.push(change),
            }
        }
        Ok(result)
    }
}

/// A working copy that files are copied to.
struct Target<'a> {
    root: &'a Dir,
    /// Path and handle of the directory of the last file. Files come sorted, so the next one is
    /// probably in it.
    directory: Option<(String, Dir)>,
    mtime: Option<i64>,
    method: CopyMethod,
}

impl Target<'_> {
    /// Copies a file whose original has this stamp before and afterwards. Returns the stamp of the
    /// copy.
    fn copy(&mut self, from: &Dir, path: &str, stamp: &FileStamp) -> io::Result<Option<FileStamp>> {
        let Ok(source) = from.open_file(path, Access::Read, 0) else { return Ok(None) };
        if stamp_of(&source)? != *stamp {
            return Ok(None);
        }
        let (above, name) = path.rsplit_once('/').unwrap_or(("", path));
        let mtime = self.mtime;
        let method = self.method;
        let directory = match self.enter(above) {
            // Something is in the way: the general path removes it.
            Err(error) if refused(&error).is_some() => return Ok(None),
            directory => directory?,
        };
        let permissions = if stamp.mode & 0o100 != 0 { 0o777 } else { 0o666 };
        let target = match directory.open_file(name, Access::CreateNew, permissions) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists || refused(&error).is_some() => {
                return Ok(None);
            }
            target => target?,
        };
        let written = method.copy_content(&source, &target).and_then(|()| {
            if let Some(mtime) = mtime {
                target.set_times(FileTimes::new().set_modified(time(mtime)))?;
            }
            Ok(stamp_of(&source)? == *stamp)
        });
        match written {
            Ok(true) => stamp_of(&target).map(Some),
            other => {
                directory.remove_file(name)?;
                other.map(|_| None)
            }
        }
    }

    /// Opens a directory of the working copy, and creates it if it does not exist.
    fn enter(&mut self, path: &str) -> io::Result<&Dir> {
        let found = self.directory.take().filter(|(of, _)| of == path);
        let entered = match found {
            Some(found) => found,
            None => (path.to_owned(), self.root.create_subdirectory(path, 0o777)?),
        };
        Ok(&self.directory.insert(entered).1)
    }
}

fn stamp_of(file: &fs::File) -> io::Result<FileStamp> {
    Ok(FileStamp::from_stat(Metadata::of(file)?.stat()))
}

fn time(seconds: i64) -> SystemTime {
    let since = Duration::from_secs(seconds.unsigned_abs());
    if seconds < 0 { SystemTime::UNIX_EPOCH - since } else { SystemTime::UNIX_EPOCH + since }
}

/// Returns the original of a file, if it can be one: a regular file whose content has the hash that
/// was read with the stamp.
pub(crate) fn original(file: File, hash: &[u8; 32], stamp: FileStamp, at: i64) -> Option<(File, FileStamp)> {
    let is_same = file.blob.as_bytes() == hash && file.kind != EntryKind::Symlink;
    (is_same && !stamp.is_racy_within_run(at)).then_some((file, stamp))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use greenwave_inputs::now_ns;
    use greenwave_storage::BlobId;

    use super::*;

    struct Dirs {
        directory: tempfile::TempDir,
    }

    impl Dirs {
        fn new() -> Self {
            let directory = tempfile::tempdir().unwrap();
            for name in ["project/src", "copy"] {
                fs::create_dir_all(directory.path().join(name)).unwrap();
            }
            Self { directory }
        }

        fn path(&self, path: &str) -> std::path::PathBuf {
            self.directory.path().join(path)
        }

        fn originals(&self, files: &[(&str, &str)]) -> (Originals, Vec<Change>) {
            let root = Dir::open(self.path("project")).unwrap();
            let mut originals = HashMap::new();
            let mut changes = Vec::new();
            for (name, content) in files {
                fs::write(self.path("project").join(name), content).unwrap();
                let file = File { kind: EntryKind::Regular, blob: BlobId::of(content.as_bytes()) };
                let stamp = FileStamp::from_stat(root.metadata(name).unwrap().stat());
                originals.insert((*name).to_owned(), (file, stamp));
                changes.push(Change { path: (*name).to_owned(), before: None, after: Some(file) });
            }
            (Originals::new(root, originals), changes)
        }

        fn copy(&self, originals: &Originals, changes: Vec<Change>) -> Copied {
            let copy = Dir::open(self.path("copy")).unwrap();
            originals.copy(&copy, changes, Some(1_000), CopyMethod::Copy).unwrap()
        }
    }

    #[test]
    fn unchanged_files_are_copied() {
        let dirs = Dirs::new();
        let (originals, changes) = dirs.originals(&[("README", "text"), ("src/a", "one"), ("src/b", "two")]);
        let copied = dirs.copy(&originals, changes);
        assert!(copied.rest.is_empty() && copied.copied.len() == 3);
        assert_eq!(fs::read_to_string(dirs.path("copy/src/b")).unwrap(), "two");
        let (one, other) = (dirs.path("project/src/b"), dirs.path("copy/src/b"));
        let (one, other) = (fs::metadata(one).unwrap(), fs::metadata(other).unwrap());
        assert!(one.ino() != other.ino() && other.mtime() == 1_000 && one.mtime() != 1_000);
        assert_eq!(copied.copied[2].2, FileStamp::from_metadata(&other));
    }

    /// The content that was stored counts, not that of now.
    #[test]
    fn changed_and_existing_files_are_left_out() {
        let dirs = Dirs::new();
        let (originals, changes) = dirs.originals(&[("a", "1"), ("b", "1"), ("c", "1"), ("src/d", "1")]);
        fs::write(dirs.path("project/a"), "other").unwrap();
        fs::remove_file(dirs.path("project/b")).unwrap();
        fs::write(dirs.path("copy/c"), "mine").unwrap();
        std::os::unix::fs::symlink("..", dirs.path("copy/src")).unwrap();
        let copied = dirs.copy(&originals, changes);
        assert!(copied.copied.is_empty());
        let rest: Vec<&str> = copied.rest.iter().map(|change| change.path.as_str()).collect();
        assert_eq!(rest, ["a", "b", "c", "src/d"]);
        assert_eq!(fs::read_to_string(dirs.path("copy/c")).unwrap(), "mine");
        assert!(!dirs.path("copy/a").exists() && !dirs.path("d").exists());
    }

    #[test]
    fn a_file_that_was_just_changed_is_no_original() {
        let file = File { kind: EntryKind::Regular, blob: BlobId::of(b"x") };
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join("a"), "x").unwrap();
        let stamp = FileStamp::from_metadata(&fs::metadata(directory.path().join("a")).unwrap());
        // Not in memory, wherever temporary files are.
        let stamp = FileStamp { device: u64::MAX, ..stamp };
        let hash = *file.blob.as_bytes();
        assert!(original(file, &hash, stamp, now_ns()).is_none());
        assert!(original(file, &hash, stamp, now_ns() + 10_000_000_000).is_some());
        assert!(original(file, &[0; 32], stamp, now_ns() + 10_000_000_000).is_none());
    }
}
