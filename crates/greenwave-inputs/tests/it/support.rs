//! Creates projects in temporary directories.

#![expect(clippy::unwrap_used, reason = "helpers of tests are tests")]

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use greenwave_inputs::Manifest;
use tempfile::TempDir;

/// A project in a temporary directory.
pub(crate) struct Project(TempDir);

impl Project {
    pub(crate) fn new(files: &[(&str, &str)]) -> Self {
        let project = Self(tempfile::tempdir().unwrap());
        files.iter().for_each(|(path, text)| project.write(path, text));
        project
    }

    pub(crate) fn root(&self) -> &Path {
        self.0.path()
    }

    pub(crate) fn at(&self, path: &str) -> PathBuf {
        self.root().join(path)
    }

    pub(crate) fn write(&self, path: &str, text: &str) {
        let path = self.at(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    /// Sets the modification time of a file to an hour ago.
    pub(crate) fn age(&self, path: &str) {
        let file = fs::File::options().append(true).open(self.at(path)).unwrap();
        file.set_modified(SystemTime::now() - Duration::from_secs(3600)).unwrap();
    }
}

pub(crate) fn paths(manifest: &Manifest) -> Vec<String> {
    manifest.files().map(|(path, _)| path.to_str().unwrap().to_owned()).collect()
}
