//! Receipts of merged features, stored outside of the project.
//!
//! A receipt proves that a feature's tests failed before an agent wrote the code, and passed after.
//! It lets a fresh clone, or a project whose `.greenwave` was removed, continue with the features
//! that are done. Its name is the hash of the feature's definition, so that every copy of a project
//! finds it. Its content is sealed with the user's key.

use std::io;
use std::path::{Path, PathBuf};

use greenwave_dir::Dir;
use serde::{Deserialize, Serialize};

use greenwave_testing::{StateSeal, UserKey};

use crate::file_state;
use crate::settings::Settings;
use crate::tree::{Change, File};
use crate::written_tests::WrittenTests;

/// Version of the format. A receipt of another version does not count.
const VERSION: u32 = 2;
/// Maximum number of receipts of one definition that are examined.
const RECEIPTS_MAX: usize = 64;
/// Maximum size of a receipt, in bytes. A merge of 100,000 files has about 10 MB.
const RECEIPT_BYTES_MAX: u64 = 64 << 20;

/// Purpose of the key of the seals.
const PURPOSE: &str = "greenwave 2026-11 receipts of features";
/// Name of receipts in their seals.
const NAME: &str = "receipt";

/// A directory of receipts.
#[derive(Debug, Clone)]
pub(crate) struct Receipts {
    /// `None` if no receipt is written or found.
    directory: Option<PathBuf>,
    seal: Option<StateSeal>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Receipt {
    version: u32,
    /// Files of the feature after its merge.
    files: Vec<MergedFile>,
    /// The tests, if an agent has written them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    tests: Option<WrittenTests>,
}

#[derive(Debug, Serialize, Deserialize)]
struct MergedFile {
    path: String,
    state: File,
}

impl Receipts {
    /// Uses the directory of the settings, which is created when the first receipt is written.
    pub(crate) fn new(settings: &Settings) -> Self {
        Self::open(settings.receipts.clone(), settings.user_key.as_ref())
    }

    fn open(directory: Option<PathBuf>, key: Option<&UserKey>) -> Self {
        Self { directory, seal: key.map(|key| key.for_purpose(PURPOSE)) }
    }

    /// Stores that a feature was merged. A failure is only logged: the journal has the record that
    /// later runs in this project use.
    pub(crate) fn write(&self, definition: &str, merged: &[Change], tests: Option<&WrittenTests>) {
        let Some(directory) = &self.directory else { return };
        let file = |change: &Change| Some(MergedFile { path: change.path.clone(), state: change.after? });
        let files: Vec<MergedFile> = merged.iter().filter_map(file).collect();
        if files.is_empty() {
            return;
        }
        let receipt = Receipt { version: VERSION, files, tests: tests.cloned() };
        let text = serde_json::to_vec(&receipt).expect("strings, numbers and lists always serialise");
        let hash = blake3::hash(&text).to_hex();
        let path = directory.join(format!("{definition}-{}.json", &hash[..16]));
        let text = match &self.seal {
            Some(seal) => seal.seal(NAME, text),
            None => text,
        };
        if let Err(error) = write_file(directory, &path, &text) {
            tracing::warn!(%error, file = %path.display(), "cannot write the receipt of a feature");
        }
    }

    /// Returns whether a feature was merged with files that the project has: all of them exist, and
    /// at least one is unchanged.
    pub(crate) fn matches(&self, definition: &str, project: &Path) -> bool {
        self.matching(definition, project).is_some()
    }

    /// Returns the tests that an agent has written for a feature that was merged with files that
    /// the project has.
    pub(crate) fn tests(&self, definition: &str, project: &Path) -> Option<WrittenTests> {
        self.matching(definition, project)?.tests
    }

    fn matching(&self, definition: &str, project: &Path) -> Option<Receipt> {
        let directory = self.directory.as_ref()?;
        let prefix = format!("{definition}-");
        let directory = Dir::open(directory).ok()?;
        let entries = directory.entries().unwrap_or_default().into_iter();
        let named = entries.filter(|entry| entry.name.to_string_lossy().starts_with(&prefix));
        named.take(RECEIPTS_MAX).find_map(|entry| {
            let sealed = directory.read(entry.name, RECEIPT_BYTES_MAX).ok()?;
            let receipt = self.decode(&sealed)?;
            (receipt.version == VERSION && receipt.is_in(project)).then_some(receipt)
        })
    }

    fn decode(&self, sealed: &[u8]) -> Option<Receipt> {
        let text = match &self.seal {
            Some(seal) => seal.unseal(NAME, sealed)?,
            None => sealed,
        };
        serde_json::from_slice(text).ok()
    }

    /// Removes the receipts of a feature.
    ///
    /// # Errors
    /// Those of the file system.
    pub(crate) fn remove(&self, definition: &str) -> io::Result<()> {
        let Some(directory) = &self.directory else { return Ok(()) };
        let prefix = format!("{definition}-");
        let directory = match Dir::open(directory) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            opened => opened?,
        };
        for entry in directory.entries()? {
            if entry.name.to_string_lossy().starts_with(&prefix) {
                directory.remove_file(entry.name)?;
            }
        }
        Ok(())
    }
}

impl Receipt {
    fn is_in(&self, project: &Path) -> bool {
        let Ok(project) = Dir::open(project) else { return false };
        let now: Vec<Option<File>> =
            self.files.iter().map(|file| file_state::file_at(&project, &file.path).ok().flatten()).collect();
        now.iter().all(Option::is_some)
            && self.files.iter().zip(&now).any(|(file, now)| *now == Some(file.state))
    }
}

/// Decodes arbitrary bytes as a receipt without a seal, and compares it with a project's files.
#[cfg(feature = "conformance")]
pub(crate) fn check(project: &Path, bytes: &[u8]) {
    let receipts = Receipts::open(None, None);
    if let Some(receipt) = receipts.decode(bytes) {
        receipt.is_in(project);
    }
}

fn write_file(directory: &Path, path: &Path, text: &[u8]) -> io::Result<()> {
    let name = path.file_name().unwrap_or_default();
    Dir::create(directory, 0o700)?.replace_file(name, text, 0o600)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use greenwave_testing::Test;

    use super::*;

    #[test]
    fn a_receipt_counts_only_where_its_files_are() {
        let dir = tempfile::tempdir().unwrap();
        let (project, other) = (dir.path().join("project"), dir.path().join("other"));
        for (root, one) in [(&project, "one"), (&other, "something else")] {
            fs::create_dir(root).unwrap();
            fs::write(root.join("a"), one).unwrap();
            fs::write(root.join("b"), "edited later").unwrap();
        }
        let change = |path: &str, text: &str| {
            let blob = greenwave_storage::BlobId::of(text.as_bytes());
            let after = Some(File { kind: greenwave_testing::EntryKind::Regular, blob });
            Change { path: path.to_owned(), before: None, after }
        };
        let open =
            |key: u8| Receipts::open(Some(dir.path().join("state/green")), Some(&UserKey::new([key; 32])));
        let receipts = open(1);
        assert!(!receipts.matches("hash", &project));
        let written = WrittenTests { tests: vec![Test::new("t", ["true"])], changes: Vec::new() };
        receipts.write("hash", &[change("a", "one"), change("b", "two")], Some(&written));
        assert!(receipts.matches("hash", &project));
        assert_eq!(receipts.tests("hash", &project), Some(written));
        assert!(!receipts.matches("other", &project) && !receipts.matches("hash", &other));
        assert!(!open(2).matches("hash", &project), "the receipt of somebody else");
        fs::remove_file(project.join("b")).unwrap();
        assert!(!receipts.matches("hash", &project));
        fs::write(project.join("b"), "").unwrap();
        receipts.remove("hash").unwrap();
        assert!(!receipts.matches("hash", &project));
    }
}
