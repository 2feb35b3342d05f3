//! Finds the filters that a repository's own settings define.
//!
//! Git runs a filter when it compares a file with a commit, and the filters of a submodule when it
//! looks whether the submodule has changes. A repository that somebody hands over as files brings
//! such settings with it.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use crate::git;

/// Maximum number of repositories that are looked at.
const REPOSITORIES_MAX: usize = 10_000;

/// Returns settings that disable the filters which the settings of a repository and its submodules
/// define, also in files that they include. The user's own filters stay. The files that the filters
/// would convert count as changed. Git passes the settings on to its calls in submodules.
pub fn filters_off(directory: &Path) -> Vec<(OsString, String)> {
    let top =
        git::text(git::command(directory).args(["rev-parse", "--show-toplevel"]), "find the repository");
    let mut repositories = vec![top.map_or_else(|_| directory.to_owned(), PathBuf::from)];
    let mut settings = Vec::new();
    let mut looked_at = 0;
    while let Some(repository) = repositories.pop() {
        looked_at += 1;
        for scope in ["--local", "--worktree"] {
            add_filters(&repository, scope, &mut settings);
        }
        if looked_at + repositories.len() < REPOSITORIES_MAX {
            repositories.extend(submodules(&repository));
        }
    }
    settings.sort();
    settings.dedup();
    settings
}

/// Adds the settings that disable the filters of one scope.
fn add_filters(repository: &Path, scope: &str, settings: &mut Vec<(OsString, String)>) {
    let mut list = git::command(repository);
    list.args(["config", scope, "--includes", "--name-only", "-z", "--get-regexp"]);
    list.arg(r"^filter\..*\.(clean|smudge|process)$");
    // Without such settings, git fails.
    let found = git::output(&mut list, "list filters").unwrap_or_default();
    for key in found.split(|byte| *byte == 0).filter(|key| !key.is_empty()) {
        settings.push((OsStr::from_bytes(key).to_owned(), String::new()));
        if let Some(end) = key.iter().rposition(|byte| *byte == b'.') {
            let required = OsString::from_vec([&key[..end], b".required"].concat());
            settings.push((required, "false".to_owned()));
        }
    }
}

/// Returns the directories of the submodules that are checked out.
fn submodules(repository: &Path) -> Vec<PathBuf> {
    let mut list = git::command(repository);
    let listed = git::output(list.args(["ls-files", "-z", "--stage"]), "list submodules").unwrap_or_default();
    let path = |entry: &[u8]| {
        let at = entry.starts_with(b"160000 ").then(|| entry.iter().position(|byte| *byte == b'\t'))??;
        Some(repository.join(OsStr::from_bytes(&entry[at + 1..])))
    };
    let paths = listed.split(|byte| *byte == 0).filter_map(path);
    paths.filter(|path| path.join(".git").symlink_metadata().is_ok()).collect()
}
