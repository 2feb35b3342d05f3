//! Files that the user names and that may lie in directories that come with a clone: reports,
//! and plans and settings that are created.

use std::fs::File;
use std::io;
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::{Component, Path, PathBuf};

use greenwave_dir::{Access, Dir};
use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};

/// Returns the directory that a file lies in, with the file's path below it, or `None` if it lies
/// elsewhere. Links in the directory may come with a clone; other links are the user's.
pub(crate) fn below(directory: &Path, path: &Path) -> Option<(Dir, PathBuf)> {
    let (directory, path) = (std::path::absolute(directory).ok()?, std::path::absolute(path).ok()?);
    let below = path.strip_prefix(&directory).ok()?;
    if below.components().any(|component| component == Component::ParentDir) {
        return None;
    }
    Some((Dir::open(&directory).ok()?, below.to_owned()))
}

/// Opens a file and empties it, or appends to it. Creates it if it does not exist. A link in the
/// first of the directories that the file lies in is not followed, and a pipe without a reader is
/// an error.
///
/// # Errors
/// Those of the file system.
pub(crate) fn open(directories: &[&Path], path: &Path, appends: bool) -> io::Result<File> {
    let found = directories.iter().find_map(|directory| below(directory, path));
    // A link may come with a clone and lead to a device of the machine. A pipe is the user's.
    let is_special = |(directory, below): &(Dir, PathBuf)| {
        directory.metadata(below).is_ok_and(|metadata| metadata.kind().is_special())
    };
    if let Some((directory, below)) = found.filter(|found| !is_special(found)) {
        let access = if appends { Access::Append } else { Access::Create };
        let file = directory.open_file(below, access, 0o666)?;
        if !appends {
            file.set_len(0)?;
        }
        return Ok(file);
    }
    let mut options = File::options();
    options.create(true).append(appends).write(!appends).truncate(!appends);
    let file = options.custom_flags(OFlags::NONBLOCK.bits().cast_signed()).open(path)?;
    if file.metadata()?.file_type().is_fifo() {
        // A reader that is slow is waited for.
        fcntl_setfl(&file, fcntl_getfl(&file)? - OFlags::NONBLOCK)?;
    }
    Ok(file)
}

/// Creates a file that must not exist. A link in the directory that the file lies in is not
/// followed.
///
/// # Errors
/// Those of the file system.
pub(crate) fn create_new(directory: &Path, path: &Path) -> io::Result<File> {
    match below(directory, path) {
        Some((directory, below)) => directory.open_file(below, Access::CreateNew, 0o666),
        None => File::options().write(true).create_new(true).open(path),
    }
}
