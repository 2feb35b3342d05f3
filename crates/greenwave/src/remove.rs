//! Removes files and directories, even if programs have changed their permissions.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

/// Removes a file, or a directory with everything below it whatever its permissions are. Does not
/// follow links.
pub(crate) fn remove_all(path: &Path) -> io::Result<()> {
    let is_gone = |error: &io::Error| error.kind() == io::ErrorKind::NotFound;
    match path.symlink_metadata() {
        Ok(metadata) if !metadata.is_dir() => return fs::remove_file(path),
        Ok(_) => {}
        Err(error) if is_gone(&error) => return Ok(()),
        Err(error) => return Err(error),
    }
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            let mut pending = vec![path.to_owned()];
            while let Some(directory) = pending.pop() {
                make_accessible(&directory)?;
                for entry in fs::read_dir(&directory)?.flatten() {
                    if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                        pending.push(entry.path());
                    }
                }
            }
            fs::remove_dir_all(path)
        }
        Err(error) if is_gone(&error) => Ok(()),
        other => other,
    }
}

/// Gives the owner all rights to a directory.
pub(crate) fn make_accessible(directory: &Path) -> io::Result<()> {
    let mode = directory.symlink_metadata()?.permissions().mode();
    if mode & 0o700 != 0o700 {
        fs::set_permissions(directory, fs::Permissions::from_mode(mode & 0o7777 | 0o700))?;
    }
    Ok(())
}
