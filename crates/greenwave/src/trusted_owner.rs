//! Recognises files above a project that another user has put there, as everybody can in `/tmp`.

use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// The users whose files above a directory decide what belongs to it or runs in it: the user of
/// this process, root, and the owner of the directory, who could put the same file in there.
#[derive(Debug, Clone, Copy)]
pub struct TrustedOwners([u32; 3]);

impl TrustedOwners {
    /// Returns the trusted users for a directory.
    #[must_use]
    pub fn of(directory: &Path) -> Self {
        let user = rustix::process::geteuid().as_raw();
        let owner = directory.metadata().map_or(user, |found| found.uid());
        Self([user, 0, owner])
    }

    /// Returns whether they own an entry, and its target if it is a link that leads somewhere.
    ///
    /// # Errors
    /// The first owner who is not trusted; `None` if the entry does not exist.
    pub fn check(self, path: &Path) -> Result<(), Option<u32>> {
        let entry = path.symlink_metadata().map_err(|_| None)?.uid();
        let target = path.metadata().map_or(entry, |found| found.uid());
        match [entry, target].into_iter().find(|owner| !self.0.contains(owner)) {
            None => Ok(()),
            Some(owner) => Err(Some(owner)),
        }
    }
}

/// Returns whether a file in or above a directory may say what belongs to it.
pub(crate) fn is_trusted_above(file: &Path, directory: &Path) -> bool {
    file.parent() == Some(directory) || TrustedOwners::of(directory).check(file).is_ok()
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{lchown, symlink};

    use crate::project_root::ProjectRoot;

    const OTHER: Option<u32> = Some(65534);

    #[test]
    fn what_another_user_puts_above_a_project_is_not_its_root() {
        if !rustix::process::geteuid().is_root() {
            return;
        }
        let directory = tempfile::tempdir().unwrap();
        let shared = directory.path().canonicalize().unwrap();
        let project = shared.join("project");
        fs::create_dir(&project).unwrap();
        fs::write(project.join("Cargo.toml"), "[package]\n").unwrap();
        let root = || ProjectRoot::of(&project).unwrap().path;
        for (name, content) in [(".git", "gitdir: /nowhere\n"), ("Cargo.toml", "[workspace]\n")] {
            let planted = shared.join(name);
            fs::write(&planted, content).unwrap();
            assert_eq!(root(), shared, "{name} of the user");
            lchown(&planted, OTHER, None).unwrap();
            assert_eq!(root(), project, "{name} of another user");
            // A link of another user to a file of the user.
            fs::remove_file(&planted).unwrap();
            fs::write(shared.join("target"), content).unwrap();
            symlink("target", &planted).unwrap();
            lchown(&planted, OTHER, None).unwrap();
            assert_eq!(root(), project, "{name} as a link");
            // A project of that user, in which root works.
            lchown(&project, OTHER, None).unwrap();
            assert_eq!(root(), shared, "{name} of the owner");
            lchown(&project, Some(0), None).unwrap();
            fs::remove_file(&planted).unwrap();
        }
    }
}
