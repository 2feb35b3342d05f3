//! The key of the user that seals the state of projects.

use std::path::{Path, PathBuf};
use std::sync::Once;

use greenwave::UserKey;

use crate::dirs::key_dir;
use crate::error::CliError;
use crate::output;

/// Returns the key, which is created when it is first needed. If it cannot be stored, returns a
/// random one, with which no state of earlier runs verifies.
///
/// # Errors
/// [`CliError::Io`] if the system provides no random bytes.
pub(crate) fn user_key(project: &Path) -> Result<UserKey, CliError> {
    static NOTED: Once = Once::new();
    let stored = key_dir().map(|directory| {
        if resolved(&directory).starts_with(resolved(project)) {
            return Err(format!("{} is in the project", directory.display()));
        }
        UserKey::open(&directory).map_err(|error| format!("{}: {error}", directory.display()))
    });
    match stored {
        Some(Ok(key)) => return Ok(key),
        Some(Err(reason)) => NOTED.call_once(|| {
            output::note(&format!("later runs will not use the state of this one: {reason}"));
        }),
        None => {}
    }
    let failed = |source| CliError::Io { operation: "read", path: "/dev/urandom".into(), source };
    UserKey::random().map_err(failed)
}

/// Resolves the links in the part of a path that exists.
pub(crate) fn resolved(path: &Path) -> PathBuf {
    let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let existing = path.ancestors().find_map(|above| Some((above, above.canonicalize().ok()?)));
    match existing {
        Some((above, real)) => real.join(path.strip_prefix(above).unwrap_or(Path::new(""))),
        None => path,
    }
}
