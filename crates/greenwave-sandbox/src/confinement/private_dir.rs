//! Puts a private directory in the place of one whose entries a command may replace.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// Maximum number of entries of the directory. Each costs a mount when a command starts.
const ENTRIES_MAX: usize = 1_000;
/// Maximum size of a file that is copied, in bytes.
const FILE_BYTES_MAX: u64 = 64 << 20;

/// A directory that a command sees in the place of another.
///
/// It has the entries of the other directory under the same names, with what the confinement
/// permits for them, and some files as copies. The command can create entries in it and replace the
/// copies. Both stay in the private directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PrivateDir {
    /// The directory that is replaced.
    pub(crate) original: PathBuf,
    /// The directory in its place.
    pub(crate) path: PathBuf,
    /// Names of the entries that are mounted from the original.
    #[cfg_attr(not(target_os = "linux"), expect(dead_code, reason = "only Linux has these mounts"))]
    pub(crate) mounted: Vec<OsString>,
    /// Names and original contents of the files that are copied.
    copied: Vec<(OsString, Option<Vec<u8>>)>,
}

impl PrivateDir {
    /// Creates the directory at `path`, which must not exist, in the place of `original`. Files
    /// with the names in `copied` are copied if they exist.
    ///
    /// Returns `None` if the directory has too many entries, does not exist, or cannot be listed.
    ///
    /// # Errors
    /// The error of the operating system.
    pub(crate) fn create(original: &Path, path: &Path, copied: &[OsString]) -> io::Result<Option<Self>> {
        let listed = original.canonicalize().and_then(|original| Ok((original.read_dir()?, original)));
        let Ok((entries, original)) = listed else { return Ok(None) };
        let entries: Vec<fs::DirEntry> = entries.collect::<io::Result<_>>()?;
        if entries.len() > ENTRIES_MAX {
            return Ok(None);
        }
        fs::create_dir(path)?;
        fs::set_permissions(path, original.metadata()?.permissions())?;
        let (path, mut mounted, mut contents) = (path.canonicalize()?, Vec::new(), Vec::new());
        for entry in entries {
            let (name, kind) = (entry.file_name(), entry.file_type()?);
            let place = path.join(&name);
            if copied.contains(&name) && kind.is_file() && entry.metadata()?.len() <= FILE_BYTES_MAX {
                fs::copy(entry.path(), &place)?;
                contents.push((name, Some(fs::read(&place)?)));
                continue;
            }
            if kind.is_symlink() {
                std::os::unix::fs::symlink(fs::read_link(entry.path())?, &place)?;
                continue;
            }
            if kind.is_dir() {
                fs::create_dir(&place)?;
            } else {
                fs::File::create_new(&place)?;
            }
            mounted.push(name);
        }
        let is_missing = |name: &&OsString| original.join(name).symlink_metadata().is_err();
        contents.extend(copied.iter().filter(is_missing).map(|name| (name.clone(), None)));
        Ok(Some(Self { original, path, mounted, copied: contents }))
    }

    /// Writes those copies back that the command has changed, unless the original has changed as
    /// well. Call it when the command has ended.
    ///
    /// # Errors
    /// The error of the operating system. Other files are written nevertheless.
    pub fn write_back(&self) -> io::Result<()> {
        let mut result = Ok(());
        for (name, before) in &self.copied {
            result = result.and(self.write_back_one(name, before.as_deref()));
        }
        result
    }

    fn write_back_one(&self, name: &OsString, before: Option<&[u8]>) -> io::Result<()> {
        let (source, target) = (self.path.join(name), self.original.join(name));
        // The command may have put a link to a hidden file in the place of the copy.
        let metadata = match source.symlink_metadata() {
            Ok(metadata) if metadata.is_file() && metadata.len() <= FILE_BYTES_MAX => metadata,
            _ => return Ok(()),
        };
        let after = fs::read(&source)?;
        let now = match fs::read(&target) {
            Ok(content) => Some(content),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(error),
        };
        if Some(after.as_slice()) == before || now.as_deref() != before {
            return Ok(());
        }
        let mut temporary = name.clone();
        temporary.push(format!(".greenwave-{}", std::process::id()));
        let temporary = self.original.join(temporary);
        let _ = fs::remove_file(&temporary);
        let mut file = fs::File::create_new(&temporary)?;
        let written = file
            .set_permissions(metadata.permissions())
            .and_then(|()| io::Write::write_all(&mut file, &after))
            .and_then(|()| fs::rename(&temporary, &target));
        written.inspect_err(|_| drop(fs::remove_file(&temporary)))
    }
}
