//! Finds the files that a program changes in a directory, and makes the same changes again.

use std::collections::BTreeMap;
use std::io;

use greenwave_dir::{Dir, FileKind, Metadata};

use super::exchange::{Body, ChangedFile, FileChange};

/// Maximum size of a changed file, in bytes.
const FILE_BYTES_MAX: u64 = 16 << 20;
/// Directory of a repository, whose files belong to nobody's work.
const REPOSITORY: &str = ".git";

/// The files and links of a directory, by their paths.
#[derive(Debug)]
pub(super) struct Files(BTreeMap<String, Stamp>);

/// Everything that differs after a file was changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stamp {
    is_link: bool,
    permissions: u32,
    bytes: u64,
    identity: (u64, u64),
    changed: (i64, i64),
}

impl Files {
    /// Lists a directory. Files whose paths are not UTF-8 are left out.
    ///
    /// # Errors
    /// Those of the operating system.
    pub(super) fn of(directory: &Dir) -> io::Result<Self> {
        let mut files = BTreeMap::new();
        let mut rest = vec![(directory.clone(), String::new())];
        while let Some((directory, prefix)) = rest.pop() {
            for entry in directory.entries()? {
                let Some(name) = entry.name.to_str().filter(|name| *name != REPOSITORY) else { continue };
                let path = format!("{prefix}{name}");
                match entry.kind {
                    FileKind::Directory => {
                        if let Some(inside) = existing(directory.subdirectory(name))? {
                            rest.push((inside, format!("{path}/")));
                        }
                    }
                    FileKind::File | FileKind::Link => {
                        let metadata = existing(directory.metadata(name))?;
                        files.extend(metadata.map(|metadata| (path, Stamp::of(&metadata))));
                    }
                    _ => {}
                }
            }
        }
        Ok(Self(files))
    }

    /// Returns the changes since these files were listed.
    ///
    /// # Errors
    /// Those of the operating system.
    pub(super) fn changes(
        &self,
        directory: &Dir,
        mask: &dyn Fn(&str) -> String,
    ) -> io::Result<Vec<ChangedFile>> {
        let now = Self::of(directory)?;
        let removed = self.0.keys().filter(|path| !now.0.contains_key(*path));
        let removed = removed.map(|path| ChangedFile { path: path.clone(), change: FileChange::Removed });
        let mut changes: Vec<ChangedFile> = removed.collect();
        for (path, stamp) in now.0.iter().filter(|(path, stamp)| self.0.get(*path) != Some(stamp)) {
            let change = if stamp.is_link {
                let target = directory.read_link(path)?;
                FileChange::Link { target: mask(&target.to_string_lossy()) }
            } else {
                let content = Body::new(directory.read(path, FILE_BYTES_MAX)?, mask);
                FileChange::Written { permissions: stamp.permissions, content }
            };
            changes.push(ChangedFile { path: path.clone(), change });
        }
        Ok(changes)
    }
}

impl Stamp {
    fn of(metadata: &Metadata) -> Self {
        let stat = metadata.stat();
        Self {
            is_link: metadata.kind() == FileKind::Link,
            permissions: metadata.permissions(),
            bytes: metadata.len(),
            identity: metadata.identity(),
            changed: (stat.st_ctime, i64::try_from(stat.st_ctime_nsec).unwrap_or(0)),
        }
    }
}

/// Makes recorded changes in a directory.
///
/// # Errors
/// Those of the operating system.
pub(super) fn apply(directory: &Dir, changes: &[ChangedFile]) -> io::Result<()> {
    for ChangedFile { path, change } in changes {
        if matches!(change, FileChange::Removed) {
            existing(directory.remove_file(path))?;
            continue;
        }
        let (parent, name) = directory.create_parent(path, 0o777)?;
        // The program has removed the directory with everything in it.
        if existing(parent.metadata(&name))?.is_some_and(|found| found.is_dir()) {
            parent.remove_all(&name)?;
        }
        match change {
            FileChange::Written { permissions, content } => {
                parent.replace_file(&name, &content.bytes()?, *permissions)?;
            }
            FileChange::Link { target } => {
                existing(parent.remove_file(&name))?;
                parent.symlink(target, &name)?;
            }
            FileChange::Removed => {}
        }
    }
    Ok(())
}

/// Returns `None` for an entry that does not exist.
fn existing<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn changes_are_the_same_in_another_directory() {
        let [one, other] = [(); 2].map(|()| {
            let directory = tempfile::tempdir().unwrap();
            fs::create_dir_all(directory.path().join("sources/deep")).unwrap();
            fs::write(directory.path().join("sources/deep/a"), "a").unwrap();
            fs::write(directory.path().join("b"), "b").unwrap();
            directory
        });
        let opened = Dir::open(one.path()).unwrap();
        let before = Files::of(&opened).unwrap();
        // A directory becomes a file, a file a directory, and links replace nothing and a file.
        fs::remove_dir_all(one.path().join("sources")).unwrap();
        fs::write(one.path().join("sources"), "a file").unwrap();
        fs::remove_file(one.path().join("b")).unwrap();
        fs::create_dir(one.path().join("b")).unwrap();
        symlink("../sources", one.path().join("b/link")).unwrap();
        let changes = before.changes(&opened, &str::to_owned).unwrap();
        apply(&Dir::open(other.path()).unwrap(), &changes).unwrap();
        assert_eq!(fs::read_to_string(other.path().join("sources")).unwrap(), "a file");
        assert_eq!(fs::read_link(other.path().join("b/link")).unwrap().to_str(), Some("../sources"));
        assert_eq!(fs::read_dir(other.path()).unwrap().count(), 2);
    }
}
