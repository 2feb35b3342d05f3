//! Directories in which programs are searched that run outside of every confinement.

use std::env::{join_paths, split_paths};
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

use crate::repository_marker::nearest_marker;

/// Returns the directories of the variable `PATH` in which neither an agent nor a clone can create
/// a program: the absolute ones outside of the project or its repository.
///
/// A relative one, such as `.` or `./node_modules/.bin`, leads into the directory that a program
/// works in: the project or a copy of it. An empty one means `.`.
#[must_use]
pub fn trusted_path(project: &Path) -> Option<OsString> {
    let top = nearest_marker(project).or_else(|| project.canonicalize().ok());
    outside(&std::env::var_os("PATH")?, top.as_deref())
}

fn outside(path: &OsStr, project: Option<&Path>) -> Option<OsString> {
    let is_inside = |directory: &PathBuf| {
        let directory = directory.canonicalize();
        directory.is_ok_and(|directory| project.is_some_and(|project| directory.starts_with(project)))
    };
    join_paths(split_paths(path).filter(|path| path.is_absolute() && !is_inside(path))).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn relative_directories_and_those_of_the_project_are_left_out() {
        let directory = tempfile::tempdir().unwrap();
        let project = directory.path().canonicalize().unwrap().join("project");
        std::fs::create_dir_all(project.join("bin")).unwrap();
        std::os::unix::fs::symlink("project/bin", directory.path().join("link")).unwrap();
        let check = |path: &str, expected: &str| {
            let path = path.replace('@', directory.path().to_str().unwrap());
            assert_eq!(outside(OsStr::new(&path), Some(&project)).unwrap(), expected, "{path}");
        };
        check("/usr/bin:/bin", "/usr/bin:/bin");
        check(".:/usr/bin::./node_modules/.bin:bin:/bin:", "/usr/bin:/bin");
        check("@/project/bin:/bin:@/link:@/project", "/bin");
        check("", "");
    }
}
