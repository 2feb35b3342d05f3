//! Recognises files above a project that another user has put there, as everybody can in `/tmp`.

use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// Returns whether a file in or above a directory may say what belongs to it. Above, the file must
/// belong to the user, to root, or to the owner of the directory, who could put it in there as
/// well. If it is a link, its target must, too.
pub(crate) fn is_trusted_above(file: &Path, directory: &Path) -> bool {
    if file.parent() == Some(directory) {
        return true;
    }
    let owner = directory.metadata().map(|found| found.uid());
    let user = rustix::process::geteuid().as_raw();
    let is_trusted = |uid: u32| uid == user || uid == 0 || owner.as_ref().is_ok_and(|owner| *owner == uid);
    let entry = file.symlink_metadata().is_ok_and(|found| is_trusted(found.uid()));
    entry && file.metadata().map_or(true, |found| is_trusted(found.uid()))
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
