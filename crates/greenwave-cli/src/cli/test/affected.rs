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
    let filters = without_filters(project).await;
    let git = async |args: &[&str]| {
        let args: Vec<&str> = filters.iter().map(String::as_str).chain(args.iter().copied()).collect();
        git(project, &args).await
    };
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

/// Returns options that disable the filters that the repository's own settings define. The files
/// that they would convert count as changed.
async fn without_filters(project: &Path) -> Vec<String> {
    let mut options = Vec::new();
    for scope in ["--local", "--worktree"] {
        let query = ["config", scope, "--name-only", "-z", "--get-regexp", r"^filter\..*\.(clean|process)$"];
        let found = git(project, &query).await.unwrap_or_default();
        for key in String::from_utf8_lossy(&found).split('\0').filter(|key| !key.is_empty()) {
            options.extend(["-c".to_owned(), format!("{key}=")]);
            if let Some((filter, _)) = key.rsplit_once('.') {
                options.extend(["-c".to_owned(), format!("{filter}.required=false")]);
            }
        }
    }
    options
}

/// Runs git in the project and returns its output. Of the programs that the repository's own
/// settings can name, git starts none.
async fn git(project: &Path, args: &[&str]) -> Result<Vec<u8>, GitError> {
    let mut command = Command::new("git");
    command.envs(greenwave::trusted_path(project).map(|path| ("PATH", path)));
    command.args(["-c", "core.fsmonitor=false", "-c", "core.hooksPath=/dev/null"]);
    // Missing objects of a partial clone would be fetched by a program.
    command.args(["-c", "protocol.allow=never"]).env("GIT_NO_LAZY_FETCH", "1");
    let output = command.arg("-C").arg(project).args(args).output().await?;
    if output.status.success() {
        return Ok(output.stdout);
    }
    // The lines after the first one explain how to call git. `rev-parse --quiet` prints none.
    let message = String::from_utf8_lossy(&output.stderr);
    Err(message.lines().next().unwrap_or("no such commit").into())
}
