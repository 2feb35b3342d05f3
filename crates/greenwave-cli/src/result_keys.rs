//! The keys of stored results, and where they come from.

use std::ffi::OsString;
use std::io;
use std::path::Path;
use std::sync::Once;

use greenwave::{KeySource, ObjectStoreSettings, RemoteKey, ResultKeys, SigningSeed};
use greenwave_dir::read_regular;
use greenwave_testing::UserKey;

use crate::config::{Config, Origin};
use crate::dirs::key_dir;
use crate::error::CliError;
use crate::key_error::{KEY, KeyError, SIGNING};
use crate::output;
use crate::result_scope;
use crate::server_login::server_login;
use crate::user_key::{resolved, user_key};

/// Maximum size of a file with a key, in bytes.
const KEY_BYTES_MAX: u64 = 1 << 20;

/// Reads a key. Returns `None` if the file or the variable does not exist. One line break at the
/// end of a file is not part of the key.
fn read(source: &KeySource, project: &Path) -> Result<Option<RemoteKey>, KeyError> {
    let bytes = match source {
        KeySource::File(path) => {
            let path = project.join(path);
            if resolved(&path).starts_with(resolved(project)) {
                return Err(KeyError::InProject(source.clone()));
            }
            match read_regular(&path, KEY_BYTES_MAX) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
                Err(source) => return Err(KeyError::Read { path, source }),
                Ok(mut bytes) => {
                    bytes.pop_if(|byte| *byte == b'\n');
                    bytes.pop_if(|byte| *byte == b'\r');
                    bytes
                }
            }
        }
        KeySource::Variable(name) => match std::env::var_os(name) {
            Some(value) if !value.is_empty() => value.into_encoded_bytes(),
            _ => return Ok(None),
        },
    };
    RemoteKey::new(&bytes).map(Some).ok_or_else(|| KeyError::TooShort(source.clone()))
}

/// Returns the keys of stored results. If the settings name keys for the server and none of them
/// exists, removes the server from the settings, with a note.
///
/// # Errors
/// [`CliError::Key`].
pub(crate) fn result_keys(project: &Path, config: &mut Config) -> Result<ResultKeys, CliError> {
    // The author of a project may have filled a directory that a file of the project names.
    let is_chosen = matches!(config.origin("cache.directory"), Some(Origin::File(_)));
    let directory = if is_chosen && config.settings.cache.directory.is_some() {
        Some(user_key(project)?.derive("greenwave 2026-11 results in a directory"))
    } else {
        None
    };
    let mut keys = ResultKeys { directory, ..ResultKeys::default() };
    if config.settings.testing.remote.is_empty() {
        return Ok(keys);
    }
    let text =
        |(name, value): (OsString, OsString)| Some((name.into_string().ok()?, value.into_string().ok()?));
    keys.object_store = ObjectStoreSettings::from_variables(std::env::vars_os().filter_map(text));
    keys.login = server_login(config)?;
    keys.signing = signing_key()?;
    let testing = &mut config.settings.testing;
    if !testing.trust.is_empty() {
        // What this user has stored is his own.
        testing.trust.extend(keys.signing.as_ref().and_then(SigningSeed::public));
    }
    result_scope::resolve(project, config);
    for source in &config.settings.testing.remote_key {
        keys.remote.extend(read(source, project)?);
    }
    if keys.remote.is_empty() {
        note_missing(config);
    }
    Ok(keys)
}

/// Returns the key that signs results: that of the variable, or else the one in the directory of
/// keys, if it was created.
///
/// # Errors
/// [`KeyError::Signing`] and [`KeyError::ReadSigning`].
pub(crate) fn signing_key() -> Result<Option<SigningSeed>, KeyError> {
    if let Some(digits) = std::env::var_os(SIGNING).filter(|value| !value.is_empty()) {
        let seed = digits.to_str().and_then(SigningSeed::parse);
        return seed.map(Some).ok_or(KeyError::Signing);
    }
    let Some(directory) = key_dir() else { return Ok(None) };
    let stored = UserKey::signing(&directory);
    stored
        .map(|bytes| bytes.map(SigningSeed::new))
        .map_err(|source| KeyError::ReadSigning { directory, source })
}

fn note_missing(config: &mut Config) {
    static NOTED: Once = Once::new();
    let testing = &config.settings.testing;
    if testing.remote_key.is_empty() && !testing.trust.is_empty() {
        return;
    }
    let text = if testing.remote_key.is_empty() {
        format!(
            "results on the server are not authenticated: anyone who can write there can make a test \
             pass (set `testing.trust` or `{KEY}`)"
        )
    } else {
        config.settings.testing.remote.clear();
        let sources: Vec<String> =
            config.settings.testing.remote_key.iter().map(|source| format!("`{source}`")).collect();
        format!("results on the server are not used: no key in {}", sources.join(" or "))
    };
    NOTED.call_once(|| output::note(&text));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_in_files_are_outside_of_the_project_and_long_enough() {
        let directory = tempfile::tempdir().unwrap();
        let project = directory.path().join("project");
        std::fs::create_dir(&project).unwrap();
        std::fs::write(directory.path().join("key"), "0123456789abcdef\n").unwrap();
        std::fs::write(directory.path().join("short"), "0123456789abcde\n").unwrap();
        std::os::unix::fs::symlink(&project, directory.path().join("link")).unwrap();
        let read_file = |path: &str| read(&KeySource::File(path.into()), &project);
        assert_eq!(read_file("../key").unwrap(), RemoteKey::new(b"0123456789abcdef"));
        assert_eq!(read_file("../missing").unwrap(), None);
        assert!(matches!(read_file("../short"), Err(KeyError::TooShort(_))));
        for path in ["key", "../link/key", "../project/missing"] {
            assert!(matches!(read_file(path), Err(KeyError::InProject(_))), "{path}");
        }
    }
}
