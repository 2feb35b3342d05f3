//! Finds uncommitted work in the submodules of a repository.
//!
//! The snapshot of a run has the files of submodules, but as in git only their commits are recorded
//! in its commit, which therefore does not show this work.

use std::path::Path;

use crate::error::Error;
use crate::git;
use crate::git_filters::filters_off;

/// Returns the submodules whose files differ from the given commit, with the number of these files.
/// Untracked files count unless they are ignored. Submodules that are not checked out are left out.
pub(crate) fn uncommitted(top: &Path, submodules: &[(String, String)]) -> Vec<(String, usize)> {
    let count = |(path, commit): &(String, String)| {
        let directory = top.join(path);
        directory.join(".git").symlink_metadata().ok()?;
        match count(&directory, commit).or_else(|_| count(&directory, "HEAD")) {
            Ok(0) => None,
            Ok(files) => Some((path.clone(), files)),
            Err(error) => {
                tracing::warn!(%error, path, "cannot compare a submodule with its commit");
                None
            }
        }
    };
    submodules.iter().filter_map(count).collect()
}

fn count(directory: &Path, commit: &str) -> Result<usize, Error> {
    let filters = filters_off(directory);
    let list = |arguments: &[&str]| {
        let mut list = git::command(directory);
        git::configure(&mut list, &filters);
        let listed = git::output(list.args(arguments), "compare a submodule")?;
        Ok::<_, Error>(listed.split(|byte| *byte == 0).filter(|path| !path.is_empty()).count())
    };
    // `diff-index` alone takes files for changed whose timestamps differ from the index.
    let changed = ["diff", "-z", "--name-only", "--no-renames", "--no-ext-diff", "--no-textconv"];
    let changed = [changed.as_slice(), &[commit, "--"]].concat();
    let untracked = ["ls-files", "-z", "--others", "--exclude-standard"];
    Ok(list(&changed)? + list(&untracked)?)
}
