//! Decides whether the trace of a run is complete, so that its result depends on nothing else.

use std::path::{Path, PathBuf};

use greenwave_inputs::{AccessKind, DiscoveredDeps, InputSnapshot, PathState, Selection};

use super::timed_accesses::TimedAccesses;
use crate::run::servers;

/// Directories of installed packages. Their files are ignored by version control, but no test
/// derives them from the project.
const INSTALLED: [&str; 6] = ["node_modules", "site-packages", ".venv", "venv", ".tox", ".nox"];
/// Directory of git's state in a project.
const GIT: &str = ".git";
/// Directory of compiled Python modules. Python asks for the source of each one that it loads.
const PYTHON_CACHE: &str = "__pycache__";

/// Everything that a complete trace holds: a result that was stored by it is valid wherever these
/// paths have the same states. `None` if the states of some paths are not certain this time.
pub(super) type CompleteTrace = Option<DiscoveredDeps>;

/// A finished run whose trace may be complete.
pub(super) struct TracedRun<'a> {
    pub(super) project: &'a Path,
    pub(super) selection: &'a Selection,
    pub(super) after: &'a InputSnapshot,
    pub(super) test: &'a TimedAccesses,
}

impl TracedRun<'_> {
    /// Returns the complete trace of the run. `may_have_changed` returns whether the state of a
    /// path may differ from the state during the run.
    ///
    /// # Errors
    /// If the trace is not complete: the reason, a phrase whose subject is the test, followed by
    /// advice in parentheses.
    pub(super) fn complete_trace(
        &self,
        may_have_changed: impl Fn(&Path, AccessKind) -> bool,
    ) -> Result<CompleteTrace, String> {
        if let Some(peers) = servers::describe(&self.test.seen.peers) {
            return Err(format!("reached {peers} (declare it in `servers`)"));
        }
        if let Some(path) = &self.test.from_cache {
            return Err(format!(
                "read {} from a cache that it maintains (place the cache in the directory `TMPDIR`)",
                path.strip_prefix(self.project).unwrap_or(path).display()
            ));
        }
        let mut all = Vec::with_capacity(self.test.accesses.len());
        let mut is_certain = true;
        for (absolute, kind) in self.test.accesses.iter() {
            let path = absolute.strip_prefix(self.project).unwrap_or(absolute);
            if self.selection.is_output(path) {
                if self.reads_earlier_output(absolute, *kind) {
                    return Err(format!(
                        "read its output {} of an earlier run (write such a file before it is read)",
                        path.display()
                    ));
                }
                continue;
            }
            is_certain &=
                self.is_input_as_listed(path, *kind).unwrap_or(true) || !may_have_changed(path, *kind);
            all.push((path.to_owned(), *kind));
        }
        let directories = self.observed_directories();
        is_certain &= !directories.iter().any(|(path, kind)| may_have_changed(path, *kind));
        all.extend(directories);
        Ok(is_certain.then(|| DiscoveredDeps::new(all)))
    }

    /// Returns whether the test observed an output that an earlier run has left. It may then have
    /// skipped the sources of the output.
    fn reads_earlier_output(&self, absolute: &Path, kind: AccessKind) -> bool {
        let is_in_python_cache =
            absolute.ancestors().any(|above| above.file_name().is_some_and(|name| name == PYTHON_CACHE));
        let observes = kind == AccessKind::Names || !absolute.is_dir();
        observes && !is_in_python_cache && self.test.seen.existing.contains(absolute)
    }

    /// Returns whether an input file still has the content that it had before and after the run.
    /// Returns `None` for a path that is no input.
    fn is_input_as_listed(&self, path: &Path, kind: AccessKind) -> Option<bool> {
        let line = self.after.inputs.get(path).filter(|_| kind == AccessKind::Content)?;
        Some(self.after.states.state(path, kind).0 == PathState::File(line.entry))
    }

    /// Returns the directories of the project that the test asked for, with their names as the
    /// dependency, if the test read a file in the project that version control ignores.
    ///
    /// Such a file can be a cache that is valid for as long as the timestamps of directories are
    /// unchanged, and these change with the names.
    fn observed_directories(&self) -> Vec<(PathBuf, AccessKind)> {
        let in_project = |(absolute, kind): &&(PathBuf, AccessKind)| {
            *kind == AccessKind::Content && absolute.starts_with(self.project)
        };
        let accesses = || self.test.accesses.iter().filter(in_project);
        let is_versioned = self.project.ancestors().any(|directory| directory.join(GIT).exists());
        if is_versioned && !accesses().any(|(absolute, _)| self.may_be_cache(absolute)) {
            return Vec::new();
        }
        let is_observed = |absolute: &Path| {
            !absolute.starts_with(self.project.join(GIT))
                && self.test.seen.existing.contains(absolute)
                && absolute.is_dir()
        };
        let observed = accesses().filter(|(absolute, _)| is_observed(absolute));
        let relative = |(absolute, _): &(PathBuf, AccessKind)| {
            (absolute.strip_prefix(self.project).unwrap_or(absolute).to_owned(), AccessKind::Names)
        };
        observed.map(relative).collect()
    }

    /// Returns whether a path is a file that is neither an input nor an installed package.
    fn may_be_cache(&self, absolute: &Path) -> bool {
        let relative = absolute.strip_prefix(self.project).unwrap_or(absolute);
        !self.selection.is_output(relative)
            && !self.test.products.contains(absolute)
            && self.after.inputs.get(relative).is_none()
            && self.test.seen.existing.contains(absolute)
            && !is_installed(relative)
            && absolute.is_file()
    }
}

/// Returns whether a path is part of an installed package. Tools also keep caches beside packages,
/// in hidden directories.
fn is_installed(relative: &Path) -> bool {
    let mut names = relative.iter().map(|name| name.to_string_lossy());
    let Some(directory) = names.find(|name| INSTALLED.contains(&&**name)) else { return false };
    let is_hidden = |name: &str| name.starts_with('.') && name != ".pnpm" && name != ".bin";
    directory != "node_modules" || !names.any(|name| is_hidden(&name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hidden_directories_beside_packages_hold_caches() {
        let installed =
            ["node_modules/a/index.js", "p/node_modules/.pnpm/a/x.js", ".venv/lib/site-packages/a.py"];
        for path in installed {
            assert!(is_installed(Path::new(path)), "{path}");
        }
        for path in ["node_modules/.cache/x", "node_modules/.vite/deps.json", "dist/index.js", ".turbo/x"] {
            assert!(!is_installed(Path::new(path)), "{path}");
        }
    }
}
