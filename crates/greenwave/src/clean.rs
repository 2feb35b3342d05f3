//! Removes what runs have left on disk.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use greenwave_dir::Dir;
use greenwave_testing::{Environment, STATE_DIRECTORY};

use crate::copies::{self, leftovers};
use crate::error::Error;
use crate::settings::Settings;
use crate::state_dir;

/// Options of [`clean`].
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CleanOptions {
    /// Project whose data is removed. `None` for the working copies of all projects.
    pub project: Option<PathBuf>,
    /// Whether the project's state is removed as well: recorded features, attempts, stored files
    /// and, unless they are in a directory that all projects share, test results.
    pub state: bool,
    /// Whether directories are listed and stay.
    pub dry_run: bool,
}

/// A directory that [`clean`] has found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cleaned {
    /// The directory.
    pub path: PathBuf,
    /// Content of the directory.
    pub kind: CleanedKind,
    /// Space that it takes, in bytes.
    pub bytes: u64,
    /// Whether a run uses it. It is not removed then.
    pub in_use: bool,
}

/// Content of a directory that [`clean`] removes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CleanedKind {
    /// Working copies of a killed run.
    Copies,
    /// Temporary files of programs of a killed run.
    Temporary,
    /// State of a project.
    State,
}

/// Removes the working copies and temporary directories that killed runs have left, and the state
/// of a project if `options` say so. Returns the directories that it found.
///
/// A run that is in progress keeps everything that belongs to it.
///
/// # Errors
/// Returns [`Error::NoRunDirectory`] if the environment names no directory for working copies, and
/// otherwise the reason why a directory cannot be read or removed.
pub fn clean(
    options: &CleanOptions,
    settings: &Settings,
    environment: &Environment,
) -> Result<Vec<Cleaned>, Error> {
    let base = copies::base_directory(settings, environment)?;
    let mut found = Vec::new();
    if base.is_dir() {
        let base = Dir::open(&base).map_err(Error::io("open", &base))?;
        let only = options.project.as_deref().map(copies::project_name).transpose()?.map(OsString::from);
        let names = leftovers::names(&base)?.into_iter();
        for name in names.filter(|name| only.as_ref().is_none_or(|only| only == name)) {
            clean_copies(&base, &name, options.dry_run, &mut found)?;
        }
        if !options.dry_run {
            state_dir::remove_set_aside(&base)?;
        }
    }
    if let Some(project) = options.project.as_deref().filter(|_| options.state) {
        found.extend(clean_state(project, options.dry_run)?);
    }
    Ok(found)
}

fn clean_copies(base: &Dir, name: &OsString, dry_run: bool, found: &mut Vec<Cleaned>) -> Result<(), Error> {
    let path = base.path().join(name);
    let temporary = leftovers::temporary_dirs(&path).into_iter();
    let temporary = temporary.map(|path| (path, CleanedKind::Temporary));
    let all: Vec<(PathBuf, CleanedKind)> =
        [(path.clone(), CleanedKind::Copies)].into_iter().chain(temporary).collect();
    let sizes: Vec<u64> = all.iter().map(|(path, _)| leftovers::disk_bytes(path)).collect();
    let in_use = if dry_run { leftovers::is_in_use(base, name)? } else { !leftovers::remove(base, name)? };
    found.extend(all.into_iter().zip(sizes).map(|((path, kind), bytes)| Cleaned {
        path,
        kind,
        bytes,
        in_use,
    }));
    Ok(())
}

fn clean_state(project: &Path, dry_run: bool) -> Result<Option<Cleaned>, Error> {
    let path = project.join(STATE_DIRECTORY);
    if !path.is_dir() {
        return Ok(None);
    }
    let bytes = leftovers::disk_bytes(&path);
    let cleared = if dry_run { state_dir::lock(project).map(drop) } else { state_dir::clear(project) };
    let in_use = match cleared {
        Err(Error::Busy { .. }) => true,
        cleared => cleared.map(|()| false)?,
    };
    Ok(Some(Cleaned { path, kind: CleanedKind::State, bytes, in_use }))
}
