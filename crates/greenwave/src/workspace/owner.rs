//! Owners of the files that a merge writes into the project.
//!
//! A file that replaces another keeps its owner and group, as far as the user may set them. New
//! files and directories that the superuser writes, such as in a container, belong to the owner of
//! the directory that they are in, so that the project stays its user's.

use std::ffi::{OsStr, OsString};
use std::io;
use std::path::Path;

use greenwave_dir::{Dir, Temporary};
use rustix::process::geteuid;

/// Creates the directories above a path. Returns the directory of the entry, and its name.
pub(super) fn create_parent(root: &Dir, path: &str) -> io::Result<(Dir, OsString)> {
    if geteuid().is_root() {
        let parents: Vec<&Path> = Path::new(path).ancestors().skip(1).collect();
        for directory in parents.into_iter().rev() {
            let is_missing =
                root.metadata(directory).is_err_and(|error| error.kind() == io::ErrorKind::NotFound);
            let Some(above) = directory.parent().filter(|_| is_missing) else { continue };
            let above = root.metadata(above)?;
            root.create_subdirectory(directory, 0o777)?;
            root.set_owner(directory, Some(above.owner()), Some(above.group()))?;
        }
    }
    root.create_parent(path, 0o777)
}

/// Gives a new file the owner of the file that it will replace, or else of its directory.
pub(super) fn inherit(temporary: &Temporary, parent: &Dir, replaced: &OsStr) {
    let is_superuser = geteuid().is_root();
    let Ok(model) = parent
        .metadata(replaced)
        .or_else(|error| if is_superuser { parent.metadata("") } else { Err(error) })
    else {
        return;
    };
    // Other users may only choose among their groups. A file that they may not give away is theirs.
    let owner = is_superuser.then_some(model.owner());
    let _ = temporary.directory().set_owner(temporary.name(), owner, Some(model.group()));
}
