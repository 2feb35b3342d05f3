//! Asks git which files of a project have changed since a commit.

use std::ffi::{OsStr, OsString};
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
    git(project, &[], &["rev-parse", "--git-dir"]).await?;
    let top = project.to_owned();
    let filters = tokio::task::spawn_blocking(move || greenwave::filters_off(&top)).await?;
    let git = async |args: &[&str]| git(project, &filters, args).await;
    // The commit's name might start with a dash and be an option of `diff`; its hash cannot.
    let name = format!("{commit}^{{commit}}");
    let hash = git(&["rev-parse", "--verify", "--quiet", "--end-of-options", &name]).await?;
    let hash = String::from_utf8_lossy(&hash).trim().to_owned();
    let plain = ["diff", "--no-ext-diff", "--no-textconv"];
    let names = ["--name-only", "--no-renames", "--relative", "-z", &hash, "--"];
    let tracked = git(&[plain.as_slice(), &names].concat()).await?;
    let untracked = git(&["ls-files", "--others", "--exclude-standard", "-z"]).await?;
    let paths = tracked.split(|byte| *byte == 0).chain(untracked.split(|byte| *byte == 0));
    let paths = paths.filter(|path| !path.is_empty());
    Ok(paths.map(|path| PathBuf::from(OsStr::from_bytes(path))).collect())
}

/// Runs git in the project with further settings and returns its output. Of the programs that the
/// repository's own settings can name, git starts none.
async fn git(project: &Path, settings: &[(OsString, String)], args: &[&str]) -> Result<Vec<u8>, GitError> {
    let mut command = std::process::Command::new("git");
    greenwave::restrict_git(&mut command, project);
    command.arg("-C").arg(project).args(args);
    // The settings of the user stay. Git refuses too large a number of them.
    let own = std::env::var("GIT_CONFIG_COUNT").ok().and_then(|count| count.parse().ok()).unwrap_or(0_usize);
    command.env("GIT_CONFIG_COUNT", own.saturating_add(settings.len()).to_string());
    for (at, (key, value)) in settings.iter().enumerate() {
        let at = own.saturating_add(at);
        command.env(format!("GIT_CONFIG_KEY_{at}"), key).env(format!("GIT_CONFIG_VALUE_{at}"), value);
    }
    let output = Command::from(command).output().await?;
    if output.status.success() {
        return Ok(output.stdout);
    }
    // The lines after the first one explain how to call git. `rev-parse --quiet` prints none.
    let message = String::from_utf8_lossy(&output.stderr);
    Err(message.lines().next().unwrap_or("no such commit").into())
}
