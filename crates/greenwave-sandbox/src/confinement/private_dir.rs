//! Puts a private directory in the place of one whose entries a command may replace.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use greenwave_dir::{Dir, read_regular};
use rustix::fs::{Mode, OFlags};

/// Maximum number of entries of the directory. Each costs a mount when a command starts.
const ENTRIES_MAX: usize = 1_000;
/// Maximum size of a file that is copied, in bytes.
const FILE_BYTES_MAX: u64 = 64 << 20;

/// A directory that a command sees in the place of another.
///
/// It has the entries of the other directory under the same names, with the rights of the
/// confinement, and some files as copies. Hidden entries are empty. The command can create entries
/// in it and replace the copies. Both stay in the private directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PrivateDir {
    /// The directory that is replaced.
    pub(crate) original: PathBuf,
    /// The directory in its place.
    pub(crate) path: PathBuf,
    /// Device and inode of the directory. The command can put another one in its place.
    identity: (u64, u64),
    /// Relative paths of the entries that are mounted from the original.
    pub(crate) mounted: Vec<PathBuf>,
    /// Names and original contents of the files that are copied.
    copied: Vec<(OsString, Option<Vec<u8>>)>,
}

/// A copy that a command has changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct ChangedCopy<'a> {
    /// The file that the copy would replace.
    pub path: &'a Path,
    /// Content before the command. `None` if the file did not exist.
    pub before: Option<&'a [u8]>,
    /// Content after the command.
    pub after: &'a [u8],
}

impl<'a> ChangedCopy<'a> {
    /// Creates a copy from its parts, for tests of decisions about copies.
    #[must_use]
    pub fn new(path: &'a Path, before: Option<&'a [u8]>, after: &'a [u8]) -> Self {
        Self { path, before, after }
    }
}

impl PrivateDir {
    /// Creates the directory at `path`, which must not exist, in the place of `original`. Files
    /// with the names in `copied` are copied if they exist. Paths in `hidden`, which are resolved,
    /// are left empty, and do not appear if they are created later.
    ///
    /// Returns `None` if the directory has too many entries, does not exist, or cannot be listed.
    ///
    /// # Errors
    /// The error of the operating system.
    pub(crate) fn create(
        original: &Path,
        path: &Path,
        copied: &[OsString],
        hidden: &[PathBuf],
    ) -> io::Result<Option<Self>> {
        let listed = original.canonicalize().and_then(|original| Ok((original.read_dir()?, original)));
        let Ok((entries, original)) = listed else { return Ok(None) };
        if entries.count() > ENTRIES_MAX {
            return Ok(None);
        }
        fs::create_dir(path)?;
        fs::set_permissions(path, original.metadata()?.permissions())?;
        let path = path.canonicalize()?;
        let created = path.symlink_metadata()?;
        let identity = (created.dev(), created.ino());
        let mut private = Self { original, path, identity, mounted: Vec::new(), copied: Vec::new() };
        private.fill(Path::new(""), copied, hidden)?;
        let is_missing = |name: &&OsString| private.original.join(name).symlink_metadata().is_err();
        private
            .copied
            .extend(copied.iter().filter(is_missing).map(|name| (name.clone(), None)).collect::<Vec<_>>());
        Ok(Some(private))
    }

    /// Creates the entries of a directory, whose path is relative. A directory in which something
    /// is hidden is created with its entries, unless there are too many in all.
    fn fill(&mut self, inside: &Path, copied: &[OsString], hidden: &[PathBuf]) -> io::Result<()> {
        for entry in self.original.join(inside).read_dir()? {
            let entry = entry?;
            let (name, kind) = (entry.file_name(), entry.file_type()?);
            let (relative, source) = (inside.join(&name), entry.path());
            let place = self.path.join(&relative);
            let is_copied = inside.as_os_str().is_empty() && copied.contains(&name) && kind.is_file();
            if is_copied && entry.metadata()?.len() <= FILE_BYTES_MAX {
                fs::copy(source, &place)?;
                self.copied.push((name, Some(fs::read(&place)?)));
                continue;
            }
            if kind.is_symlink() {
                std::os::unix::fs::symlink(fs::read_link(source)?, &place)?;
                continue;
            }
            if kind.is_dir() {
                fs::create_dir(&place)?;
            } else {
                fs::File::create_new(&place)?;
            }
            if hidden.contains(&source) {
                continue;
            }
            let holds_hidden = kind.is_dir() && hidden.iter().any(|path| path.starts_with(&source));
            let count = || source.read_dir().map_or(ENTRIES_MAX, Iterator::count);
            if holds_hidden && self.mounted.len() + count() <= ENTRIES_MAX {
                self.fill(&relative, copied, hidden)?;
                fs::set_permissions(&place, entry.metadata()?.permissions())?;
            } else {
                self.mounted.push(relative);
            }
        }
        Ok(())
    }

    /// Writes those copies back that the command has changed since the last call, unless the
    /// original has changed as well. Call it when the command has ended or is suspended.
    ///
    /// # Errors
    /// The error of the operating system. Other files are written nevertheless.
    pub fn write_back(&mut self) -> io::Result<()> {
        self.write_back_if(|_| true)
    }

    /// Writes those copies back that the command has changed since the last call and that `accept`
    /// returns true for, unless the original has changed as well. Call it when the command has
    /// ended or is suspended.
    ///
    /// # Errors
    /// The error of the operating system. Other files are written nevertheless.
    pub fn write_back_if(&mut self, mut accept: impl FnMut(&ChangedCopy<'_>) -> bool) -> io::Result<()> {
        let mut result = Ok(());
        let mut copied = std::mem::take(&mut self.copied);
        for (name, before) in &mut copied {
            match self.write_back_one(name, before.as_deref(), &mut accept) {
                Ok(Some(written)) => *before = Some(written),
                Ok(None) => {}
                Err(error) => result = result.and(Err(error)),
            }
        }
        self.copied = copied;
        result
    }

    /// Reads the copy of a file. Returns `None` if it is gone, or if anything else is in the place
    /// of the copy or of the directory: the command may have put a link to a hidden file there.
    fn read_copy(&self, name: &OsString) -> io::Result<Option<(Vec<u8>, fs::Metadata)>> {
        let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::RDONLY | OFlags::CLOEXEC;
        let Ok(directory) = rustix::fs::open(&self.path, flags, Mode::empty()) else { return Ok(None) };
        let directory = fs::File::from(directory);
        let metadata = directory.metadata()?;
        if (metadata.dev(), metadata.ino()) != self.identity {
            return Ok(None);
        }
        let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::RDONLY | OFlags::CLOEXEC;
        let Ok(file) = rustix::fs::openat(&directory, name, flags, Mode::empty()) else { return Ok(None) };
        let file = fs::File::from(file);
        let metadata = file.metadata()?;
        if !metadata.is_file() || metadata.nlink() != 1 {
            return Ok(None);
        }
        let mut content = Vec::new();
        io::Read::read_to_end(&mut io::Read::take(file, FILE_BYTES_MAX + 1), &mut content)?;
        Ok((content.len() as u64 <= FILE_BYTES_MAX).then_some((content, metadata)))
    }

    /// Writes a copy back. Returns what was written, if anything was.
    fn write_back_one(
        &self,
        name: &OsString,
        before: Option<&[u8]>,
        accept: &mut dyn FnMut(&ChangedCopy<'_>) -> bool,
    ) -> io::Result<Option<Vec<u8>>> {
        let target = self.original.join(name);
        let Some((after, metadata)) = self.read_copy(name)? else { return Ok(None) };
        let now = match read_regular(&target, FILE_BYTES_MAX) {
            Ok(content) => Some(content),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(error),
        };
        if Some(after.as_slice()) == before || now.as_deref() != before {
            return Ok(None);
        }
        if !accept(&ChangedCopy::new(&target, before, &after)) {
            return Ok(None);
        }
        let mut temporary = Dir::open(&self.original)?.temporary(".greenwave-", 0o600)?;
        // The file lies outside of the confinement, where its user id would count, and other users
        // would find it writable.
        let before = target.symlink_metadata().map_or(0, |found| found.permissions().mode() & 0o777);
        let mode = metadata.permissions().mode() & (0o755 | before);
        temporary.file().set_permissions(fs::Permissions::from_mode(mode))?;
        temporary.write_all(&after)?;
        temporary.replace(name)?;
        Ok(Some(after))
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    /// A home directory with one file that is copied, and a directory of somebody else with a
    /// secret file of the same name.
    struct Homes {
        directory: tempfile::TempDir,
        private: PrivateDir,
    }

    impl Homes {
        fn new() -> Self {
            let directory = tempfile::tempdir().unwrap();
            let at = |path: &str| directory.path().join(path);
            for home in ["home", "other", "temporary"] {
                fs::create_dir(at(home)).unwrap();
            }
            fs::write(at("home/state.json"), "state").unwrap();
            fs::write(at("other/state.json"), "secret").unwrap();
            let private = PrivateDir::create(&at("home"), &at("temporary/home"), &["state.json".into()], &[]);
            let private = private.unwrap().unwrap();
            Self { directory, private }
        }

        fn at(&self, path: &str) -> PathBuf {
            self.directory.path().join(path)
        }

        #[track_caller]
        fn check(&mut self, expected: &str) {
            self.private.write_back().unwrap();
            assert_eq!(fs::read_to_string(self.at("home/state.json")).unwrap(), expected);
        }
    }

    #[test]
    fn a_changed_copy_is_written_back_each_time() {
        let mut homes = Homes::new();
        for text in ["new", "newer"] {
            fs::write(homes.at("temporary/home/state.json"), text).unwrap();
            homes.check(text);
        }
        fs::write(homes.at("home/state.json"), "of another program").unwrap();
        fs::write(homes.at("temporary/home/state.json"), "newest").unwrap();
        homes.check("of another program");
    }

    #[test]
    fn a_copy_opens_no_file_to_other_users() {
        for (before, copied, expected) in
            [(0o644, 0o6777, 0o755), (0o600, 0o622, 0o600), (0o664, 0o660, 0o660), (0o640, 0o600, 0o600)]
        {
            let mut homes = Homes::new();
            let set = |path: &str, mode: u32| {
                fs::set_permissions(homes.at(path), fs::Permissions::from_mode(mode)).unwrap();
            };
            fs::write(homes.at("temporary/home/state.json"), "new").unwrap();
            set("home/state.json", before);
            set("temporary/home/state.json", copied);
            homes.check("new");
            let mode = homes.at("home/state.json").metadata().unwrap().permissions().mode() & 0o7777;
            assert_eq!(mode, expected, "{before:o}, {copied:o}: {mode:o}");
        }
    }

    #[test]
    fn what_stands_in_the_place_of_a_copy_is_not_read() {
        let mut homes = Homes::new();
        let copy = homes.at("temporary/home/state.json");
        fs::remove_file(&copy).unwrap();
        symlink(homes.at("other/state.json"), &copy).unwrap();
        homes.check("state");
        fs::remove_file(&copy).unwrap();
        fs::hard_link(homes.at("other/state.json"), &copy).unwrap();
        homes.check("state");
        fs::remove_file(&copy).unwrap();
        assert!(std::process::Command::new("mkfifo").arg(&copy).status().unwrap().success());
        homes.check("state");
    }

    #[test]
    fn what_stands_in_the_place_of_the_directory_is_not_read() {
        for is_link in [true, false] {
            let mut homes = Homes::new();
            fs::rename(homes.at("temporary/home"), homes.at("temporary/moved")).unwrap();
            if is_link {
                symlink(homes.at("other"), homes.at("temporary/home")).unwrap();
            } else {
                fs::rename(homes.at("other"), homes.at("temporary/home")).unwrap();
            }
            homes.check("state");
        }
        // A link above the directory.
        let mut homes = Homes::new();
        fs::rename(homes.at("temporary"), homes.at("moved")).unwrap();
        fs::rename(homes.at("other"), homes.at("home2")).unwrap();
        fs::create_dir(homes.at("other")).unwrap();
        fs::rename(homes.at("home2"), homes.at("other/home")).unwrap();
        symlink(homes.at("other"), homes.at("temporary")).unwrap();
        homes.check("state");
    }
}
