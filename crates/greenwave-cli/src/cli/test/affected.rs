//! Asks git which files of a project have changed since a commit.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use tokio::process::Command;

use crate::error::CliError;

/// Returns the paths of files that have changed since a commit, and of files that git does not
/// track and does not ignore.
///
/// # Errors
/// [`CliError::Git`] if git cannot be started, or does not know the commit.
pub(super) async fn changed_since(project: &Path, commit: &str) -> Result<Vec<PathBuf>, CliError> {
    let paths = changed_paths(project, commit).await;
    paths.map_err(|source| CliError::Git { commit: commit.to_owned(), source })
}

type GitError = Box<dyn std::error::Error + Send + Sync>;

async fn changed_paths(project: &Path, commit: &str) -> Result<Vec<PathBuf>, GitError> {
    git(project, &["rev-parse", "--git-dir"]).await?;
    // The commit's name might start with a dash and be an option of `diff`; its hash cannot.
    let name = format!("{commit}^{{commit}}");
    let hash = git(project, &["rev-parse", "--verify", "--quiet", "--end-of-options", &name]).await?;
    let hash = String::from_utf8_lossy(&hash).trim().to_owned();
    let tracked =
        git(project, &["diff", "--name-only", "--no-renames", "--relative", "-z", &hash, "--"]).await?;
    let untracked = git(project, &["ls-files", "--others", "--exclude-standard", "-z"]).await?;
    let paths = tracked.split(|byte| *byte == 0).chain(untracked.split(|byte| *byte == 0));
    let paths = paths.filter(|path| !path.is_empty());
    Ok(paths.map(|path| PathBuf::from(OsStr::from_bytes(path))).collect())
}

/// Runs git in the project and returns its output.
async fn git(project: &Path, args: &[&str]) -> Result<Vec<u8>, GitError> {
    let output = Command::new("git").arg("-C").arg(project).args(args).output().await?;
    if output.status.success() {
        return Ok(output.stdout);
    }
    // The lines after the first one explain how to call git. `rev-parse --quiet` prints none.
    let message = String::from_utf8_lossy(&output.stderr);
    Err(message.lines().next().unwrap_or("no such commit").into())
}
