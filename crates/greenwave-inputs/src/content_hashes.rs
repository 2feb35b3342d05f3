//! A cache of content hashes for one run, which works on several copies of a project.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::Error;
use crate::manifest::{Manifest, ManifestEntry};
use crate::selection::{InputSpec, Selection};
use crate::stamp::{FileStamp, now_ns};
use crate::walk::FoundFile;

/// Maximum number of files. When it is reached, the cache starts again from nothing.
const FILES_MAX: usize = 1 << 18;
/// Maximum number of copies that share files.
const COPIES_MAX: usize = 1 << 12;

/// Content hashes of files by [`FileStamp`], in memory.
///
/// Each test of a run looks at the files of its copy before and after. Files that did not change
/// are read once. The device and the inode are a part of the stamp, so that the files of different
/// copies differ.
#[derive(Debug, Default)]
pub struct ContentHashes(Mutex<Hashes>);

/// Hashes of files that several copies of a project share, by inode.
pub type SharedHashes = Arc<HashMap<u64, (FileStamp, ManifestEntry)>>;

#[derive(Debug, Default)]
struct Hashes {
    /// Hashes by device and inode.
    own: HashMap<(u64, u64), (FileStamp, ManifestEntry)>,
    /// Shared hashes by the device under which a copy shows the files.
    shared: HashMap<u64, SharedHashes>,
}

impl Hashes {
    fn get(&self, stamp: &FileStamp) -> Option<ManifestEntry> {
        if let Some((known, entry)) = self.own.get(&(stamp.device, stamp.inode)) {
            return (known == stamp).then_some(*entry);
        }
        let (known, entry) = self.shared.get(&stamp.device)?.get(&stamp.inode)?;
        let known = FileStamp { device: stamp.device, ..*known };
        (known == *stamp).then_some(*entry)
    }
}

impl ContentHashes {
    /// Reads the files of a project that a specification selects, like [`Manifest::read`], but only
    /// those whose hashes are not cached.
    ///
    /// # Errors
    /// As [`Manifest::read`].
    pub fn manifest(&self, project: &Path, spec: &InputSpec) -> Result<Manifest, Error> {
        Manifest::collect_with(project, &Selection::of(spec)?, |found| self.entry(project, found, now_ns()))
    }

    /// Adds a file whose content is certain to have this hash as long as it has this stamp.
    pub fn insert(&self, stamp: FileStamp, entry: ManifestEntry) {
        let mut hashes = self.0.lock();
        if hashes.own.len() >= FILES_MAX {
            hashes.own.clear();
        }
        hashes.own.insert((stamp.device, stamp.inode), (stamp, entry));
    }

    /// Adds files that a copy shares with others, such as the lower files of an overlay. Their
    /// stamps are the same in all copies, except for the device, which is that of the copy.
    pub fn share(&self, device: u64, files: &SharedHashes) {
        let mut hashes = self.0.lock();
        if hashes.shared.len() >= COPIES_MAX {
            hashes.shared.clear();
        }
        hashes.shared.insert(device, Arc::clone(files));
    }

    /// Returns the entry of a file that was listed, and the stamp that belongs to it. Reads the
    /// file at `at`, unless its stamp proves that it is unchanged. The hash of a symbolic link
    /// covers the file at its end, whose stamp is not the link's, so links are always read.
    fn entry(&self, project: &Path, file: &FoundFile, at: i64) -> Result<(ManifestEntry, FileStamp), Error> {
        let path = project.join(&file.path);
        if file.is_link {
            return ManifestEntry::read(&path, true);
        }
        if let Some(entry) = self.0.lock().get(&file.stamp) {
            return Ok((entry, file.stamp));
        }
        let (entry, stamp) = ManifestEntry::read(&path, false)?;
        if !stamp.is_racy_within_run(at) {
            self.insert(stamp, entry);
        }
        Ok((entry, stamp))
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::walk::list_files;

    /// A time at which no file of the test is racy.
    fn later() -> i64 {
        now_ns() + 10_000_000_000
    }

    #[test]
    fn copies_share_hashes_of_files_except_for_the_device() {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join("a"), "one").unwrap();
        let mut listed = list_files(directory.path(), &[&Selection::everything()]).unwrap();
        let mut file = listed.remove(0);
        let read = ManifestEntry::read(&directory.path().join("a"), false).unwrap().0;
        let (hashes, entry) = (ContentHashes::default(), ManifestEntry { hash: [7; 32], ..read });
        hashes.share(file.stamp.device + 1, &Arc::new([(file.stamp.inode, (file.stamp, entry))].into()));
        let found = |file: &FoundFile| hashes.entry(directory.path(), file, later()).unwrap().0.hash;
        assert_ne!(found(&file), [7; 32]);
        file.stamp.device += 1;
        assert_eq!(found(&file), [7; 32]);
        // A file of the copy, which has another inode or another time.
        file.stamp.changed += 1;
        assert_ne!(found(&file), [7; 32]);
    }

    #[test]
    fn unchanged_files_are_read_once() {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path();
        fs::write(root.join("a"), "one").unwrap();
        let hashes = ContentHashes::default();
        let listed = list_files(root, &[&Selection::everything()]).unwrap();
        let read = hashes.entry(root, &listed[0], later()).unwrap();
        // The file cannot be read any more, and need not be.
        fs::remove_file(root.join("a")).unwrap();
        let again = hashes.entry(root, &listed[0], later());
        if listed[0].stamp.is_in_memory() {
            assert!(again.is_err(), "the stamp of a file in memory proves nothing");
        } else {
            assert_eq!(again.unwrap(), read);
        }
    }

    #[test]
    fn a_changed_file_is_read_again() {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path();
        let hashes = ContentHashes::default();
        let manifest = || hashes.manifest(root, &InputSpec::default()).unwrap();
        for content in ["one", "two", "six"] {
            // The same size, and possibly the same tick of the clock.
            fs::write(root.join("a"), content).unwrap();
            assert_eq!(manifest(), Manifest::of_project(root).unwrap(), "{content}");
        }
        let listed = list_files(root, &[&Selection::everything()]).unwrap();
        hashes.entry(root, &listed[0], later()).unwrap();
        fs::write(root.join("a"), "three").unwrap();
        assert_eq!(manifest(), Manifest::of_project(root).unwrap());
    }
}
