//! Creates settings of agents that do not exist, so that mounts can protect them during a run.
//!
//! A confined agent can create files in its state. One that names programs, such as a hook, counts
//! in the agent's next session, which nothing confines. Nothing can be mounted on a path that does
//! not exist, so a run creates an empty file or directory there, and removes it at its end.
//!
//! An extended attribute marks it, so that a later run removes it if the system has stopped this
//! one. Several runs can share it: each has a shared lock on it, and the last one removes it. On
//! file systems without such attributes, nothing is created.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use greenwave_dir::{Access, Dir, Metadata};
use rustix::fs::{FlockOperation, Mode, OFlags, XattrFlags, fgetxattr, flock, fsetxattr, openat};

/// Name of the attribute of a file or directory that a run has created.
const MARK: &str = "user.greenwave.placeholder";
/// Number of tries to open a file that another run may remove meanwhile.
const TRIES_MAX: usize = 3;

/// Files and directories that count as absent, and are removed when this value is dropped.
#[derive(Debug, Default)]
pub(crate) struct Placeholders(Vec<Placeholder>);

#[derive(Debug)]
struct Placeholder {
    directory: Dir,
    name: OsString,
    /// Has the lock.
    opened: Opened,
}

#[derive(Debug)]
enum Opened {
    File(File),
    /// A handle of a directory has neither locks nor attributes, unlike a descriptor for reading.
    Directory(Dir, OwnedFd),
}

impl Placeholders {
    /// Creates those of these paths that do not exist, in directories that do. A path that ends
    /// with a slash becomes a directory. Failures are ignored: agents can create that path then.
    pub(crate) fn create(paths: &[PathBuf]) -> Self {
        Self(paths.iter().filter_map(|path| Placeholder::create(path)).collect())
    }
}

impl Drop for Placeholders {
    fn drop(&mut self) {
        for placeholder in &self.0 {
            if let Err(error) = placeholder.remove() {
                let path = placeholder.directory.path().join(&placeholder.name);
                tracing::warn!(%error, path = %path.display(), "cannot remove an empty setting of an agent");
            }
        }
    }
}

impl Placeholder {
    /// Creates a file or directory, or opens the one that another run has created. `None` if it is
    /// the user's.
    fn create(path: &Path) -> Option<Self> {
        let is_directory = path.as_os_str().as_encoded_bytes().ends_with(b"/");
        let (directory, name) = (Dir::open(path.parent()?).ok()?, path.file_name()?);
        let empty = empty(path);
        for _ in 0..TRIES_MAX {
            let opened = match Opened::open(&directory, Path::new(name), is_directory) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    Opened::create(&directory, Path::new(name), is_directory, empty).ok()?
                }
                opened => opened.ok().filter(Opened::is_marked)?,
            };
            flock(&opened, FlockOperation::LockShared).ok()?;
            let placeholder = Self { directory: directory.clone(), name: name.to_owned(), opened };
            if placeholder.is_in_place().is_ok_and(|is_in_place| is_in_place) {
                return Some(placeholder);
            }
        }
        None
    }

    /// Removes the file or directory, unless it has any content or another run uses it.
    fn remove(&self) -> io::Result<()> {
        if flock(&self.opened, FlockOperation::NonBlockingLockExclusive).is_err() || !self.is_in_place()? {
            return Ok(());
        }
        let name = Path::new(&self.name);
        match &self.opened {
            Opened::Directory(directory, _) if directory.entries()?.is_empty() => {
                self.directory.remove_empty(name)
            }
            Opened::File(_) if self.directory.read(name, 1024).is_ok_and(|text| text == empty(name)) => {
                self.directory.remove_file(name)
            }
            _ => Ok(()),
        }
    }

    /// Returns whether the name still leads to the file or directory that has the lock.
    fn is_in_place(&self) -> io::Result<bool> {
        match self.directory.metadata(Path::new(&self.name)) {
            Ok(found) => Ok(found.identity() == Metadata::of(&self.opened)?.identity()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }
}

impl Opened {
    fn open(directory: &Dir, name: &Path, is_directory: bool) -> io::Result<Self> {
        if is_directory {
            return Self::directory(directory.subdirectory(name)?);
        }
        directory.open_file(name, Access::Read, 0).map(Self::File)
    }

    fn create(directory: &Dir, name: &Path, is_directory: bool, content: &[u8]) -> io::Result<Self> {
        if is_directory {
            let created = Self::directory(directory.create_new_subdirectory(name, 0o700)?)?;
            created.mark().or_else(|error| directory.remove_empty(name).and(Err(error)))?;
            return Ok(created);
        }
        let mut file = directory.open_file(name, Access::CreateNew, 0o600)?;
        let written = file.write_all(content);
        let created = Self::File(file);
        let marked = written.and_then(|()| created.mark());
        marked.or_else(|error| directory.remove_file(name).and(Err(error)))?;
        Ok(created)
    }

    fn directory(handle: Dir) -> io::Result<Self> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let opened = openat(&handle, ".", flags, Mode::empty())?;
        Ok(Self::Directory(handle, opened))
    }

    fn mark(&self) -> io::Result<()> {
        Ok(fsetxattr(self, MARK, b"1", XattrFlags::CREATE)?)
    }

    fn is_marked(&self) -> bool {
        fgetxattr(self, MARK, &mut [0_u8; 1][..]).is_ok()
    }
}

impl AsFd for Opened {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::File(file) => file.as_fd(),
            Self::Directory(_, opened) => opened.as_fd(),
        }
    }
}

/// Returns a content that means the same to an agent as no file at this path.
fn empty(path: &Path) -> &'static [u8] {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    match path.extension().and_then(|extension| extension.to_str()) {
        Some("json" | "jsonc") if name.starts_with("mcp") => b"{\"mcpServers\": {}}\n",
        Some("json" | "jsonc") => b"{}\n",
        _ => b"",
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    /// Returns a directory whose file system has extended attributes, with paths in it.
    fn home() -> Option<(tempfile::TempDir, Vec<PathBuf>)> {
        let home = tempfile::tempdir().unwrap();
        let paths = ["settings.json", "mcp.json", "NOTES.md", "hooks/", "absent/file"];
        let paths: Vec<PathBuf> = paths.iter().map(|path| home.path().join(path)).collect();
        let created = Placeholders::create(&paths[..1]).0.len();
        (created == 1).then_some((home, paths))
    }

    fn names(home: &tempfile::TempDir) -> Vec<String> {
        let entries = fs::read_dir(home.path()).unwrap();
        let mut names: Vec<_> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn empty_settings_exist_during_the_last_of_several_runs() {
        let Some((home, paths)) = home() else { return };
        assert!(names(&home).is_empty());
        let first = Placeholders::create(&paths);
        let expected = ["NOTES.md", "hooks", "mcp.json", "settings.json"];
        assert_eq!(names(&home), expected);
        assert_eq!(fs::read_to_string(&paths[0]).unwrap(), "{}\n");
        let second = Placeholders::create(&paths);
        drop(first);
        assert_eq!(names(&home), expected);
        drop(second);
        assert!(names(&home).is_empty());
        // The end of a run that was killed.
        std::mem::forget(Placeholders::create(&paths));
        let other = Placeholders::create(&paths);
        assert_eq!(other.0.len(), 4);
    }

    #[test]
    fn settings_of_the_user_stay() {
        let Some((home, paths)) = home() else { return };
        fs::write(&paths[0], "{}\n").unwrap();
        fs::create_dir(&paths[3]).unwrap();
        let created = Placeholders::create(&paths);
        fs::write(&paths[1], "{\"mcpServers\": {\"x\": {}}}\n").unwrap();
        // Replaced, as editors do.
        fs::write(home.path().join("new"), "").unwrap();
        fs::rename(home.path().join("new"), &paths[2]).unwrap();
        drop(created);
        assert_eq!(names(&home), ["NOTES.md", "hooks", "mcp.json", "settings.json"]);
    }
}
