//! Removes files and directories whose permissions programs have changed.

use std::io;
use std::path::Path;

use greenwave_dir::Dir;

/// Removes an entry, with everything in it if it is a directory. Does not follow links. The path of
/// its parent is trusted.
pub(crate) fn remove_all(path: &Path) -> io::Result<()> {
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(io::ErrorKind::InvalidInput.into());
    };
    match Dir::open(parent) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        parent => parent?.remove_all(name),
    }
}
