//! Files with prompts, below handles of directories for temporary files.

use std::io;
use std::path::{Path, PathBuf};

use greenwave_dir::Dir;

/// A file with a prompt. Dropping it removes it.
#[derive(Debug)]
pub(crate) struct PromptFile {
    directory: Dir,
    path: PathBuf,
}

impl PromptFile {
    /// Creates the file with a random name, for its owner only.
    ///
    /// # Errors
    /// Those of the file system, also if there is a link in the place of the directory.
    pub(crate) fn create(directory: &Path, prompt: &[u8]) -> io::Result<Self> {
        let directory = open_temporary(directory)?;
        let mut file = directory.temporary("prompt-", 0o600)?;
        file.write_all(prompt)?;
        let mut name = file.name().to_owned();
        name.push(".md");
        file.place(&name)?;
        let path = directory.path().join(name);
        Ok(Self { directory, path })
    }

    /// Returns the path of the file.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for PromptFile {
    fn drop(&mut self) {
        // The program may have removed it, and its directory is removed anyway.
        let _ = self.directory.remove_file(self.path.file_name().unwrap_or_default());
    }
}

/// Opens a directory for temporary files, which is created if it does not exist. A link in its
/// place is refused: a program that has used the directory may have put it there.
pub(crate) fn open_temporary(path: &Path) -> io::Result<Dir> {
    // The program has another working directory.
    let path = std::path::absolute(path)?;
    match (path.parent(), path.file_name()) {
        (Some(parent), Some(name)) => Dir::create(parent, 0o700)?.create_subdirectory(name, 0o700),
        _ => Dir::open(path),
    }
}
