//! Finds the project directory and the directory of test results.

use std::path::{Path, PathBuf};
use std::sync::Once;

use greenwave::TrustedOwners;
use greenwave_testing::RESULTS_VARIABLE;

use crate::config::Config;
use crate::error::CliError;
use crate::output;
use crate::reader::SETTINGS_FILE;

/// Returns the named project directory. Without one, returns the nearest directory with a
/// `greenwave.toml` at or above the working directory, or else the working directory.
///
/// A file above that belongs to another user is ignored with a warning: in `/tmp`, everybody could
/// choose the commands that the users of directories below run.
pub(crate) fn project_dir(named: Option<&Path>) -> Result<PathBuf, CliError> {
    if let Some(named) = named {
        return Ok(named.to_owned());
    }
    let io = |source| CliError::Io { operation: "find", path: ".".into(), source };
    let here = std::env::current_dir().map_err(io)?;
    let trusted = TrustedOwners::of(&here);
    let is_project = |dir: &&Path| {
        let file = dir.join(SETTINGS_FILE);
        file.is_file() && (*dir == here || is_trusted(trusted, &file))
    };
    Ok(here.ancestors().find(is_project).unwrap_or(&here).to_owned())
}

/// Returns whether trusted users own a settings file above the working directory. Warns otherwise.
fn is_trusted(owners: TrustedOwners, file: &Path) -> bool {
    let Err(owner) = owners.check(file) else { return true };
    static WARNED: Once = Once::new();
    let error = CliError::ForeignSettings { path: file.to_owned(), owner };
    WARNED.call_once(|| output::warn("settings are passed over", &error));
    false
}

/// Returns the directory of test results: the setting `cache.directory`, or else the default
/// directory, which all worktrees share.
pub(crate) fn results_dir(config: &Config) -> Result<PathBuf, CliError> {
    match &config.settings.cache.directory {
        Some(dir) => Ok(dir.clone()),
        None => default_results_dir(),
    }
}

/// Returns the directory of the key that seals the state of projects: `keys` in the directory of
/// the user's state.
pub(crate) fn key_dir() -> Option<PathBuf> {
    state_dir().map(|state| state.join("keys"))
}

/// Returns the directories that neither tests nor agents may read.
pub(crate) fn private_dirs() -> Vec<PathBuf> {
    key_dir().into_iter().chain(receipts_dir()).collect()
}

/// Returns the directory of the user's own state: `greenwave` in `$XDG_STATE_HOME`, or else in
/// `~/.local/state`. `None` if the environment names none.
fn state_dir() -> Option<PathBuf> {
    let variable = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let state = variable("XDG_STATE_HOME").or_else(|| Some(variable("HOME")?.join(".local/state")));
    state.map(|state| state.join("greenwave"))
}

/// Returns the directory of receipts of merged features, which all copies of a project share:
/// `green` in the directory of the user's state.
pub(crate) fn receipts_dir() -> Option<PathBuf> {
    state_dir().map(|state| state.join("green"))
}

/// Returns the directory of test results for users who have not chosen one.
pub(crate) fn default_results_dir() -> Result<PathBuf, CliError> {
    let variable = |name: &str| std::env::var_os(name).map(PathBuf::from);
    let below = |caches: PathBuf| caches.join("greenwave").join("tests");
    let caches = variable("XDG_CACHE_HOME").filter(|path| path.is_absolute());
    // The home of a test is empty, so the outer run passes the directory on.
    let outer = || variable(RESULTS_VARIABLE).filter(|path| path.is_absolute());
    // A relative directory would be one in the project, such as in a clone.
    let home = || variable("HOME").filter(|path| path.is_absolute());
    let dir = caches.map(below).or_else(outer).or_else(|| home().map(|home| below(home.join(".cache"))));
    dir.ok_or(CliError::NoResultsDir)
}
