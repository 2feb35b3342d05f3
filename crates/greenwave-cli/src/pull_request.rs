//! Writes the pull request of a run with `result = "pr"`, and has `gh` create it.

use std::io;
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::time::Duration;

use greenwave::{BranchReport, Plan, Report, trusted_path};
use greenwave_dir::Dir;
use greenwave_testing::STATE_DIRECTORY;
use tokio::io::AsyncWriteExt;
use tokio::process::Command;

use crate::error::CliError;

mod text;

/// Name of the directory of the texts in the state directory.
const DIRECTORY: &str = "pull-requests";
/// Maximum time of one call of git or gh.
const TIME_MAX: Duration = Duration::from_secs(120);

/// A pull request that was written.
#[derive(Debug)]
pub(crate) struct PullRequest {
    title: String,
    body: String,
    branch: String,
    project: PathBuf,
    /// The file with the title and the body.
    pub(crate) file: PathBuf,
    /// Address of the pull request, if `gh` has created it.
    pub(crate) url: Option<String>,
}

impl PullRequest {
    /// Writes the text of a pull request into the project's state directory. Returns `None` if the
    /// branch has no commits.
    ///
    /// # Errors
    /// [`CliError::Io`].
    pub(crate) fn write(plan: &Plan, report: &Report) -> Result<Option<Self>, CliError> {
        let Some(branch) = report.branch.as_ref().filter(|branch| !branch.messages.is_empty()) else {
            return Ok(None);
        };
        let (title, body) = (text::title(plan, branch), text::body(plan, report, branch));
        let name = format!("{}.md", branch.name.rsplit('/').next().unwrap_or(&branch.name));
        let below = Path::new(STATE_DIRECTORY).join(DIRECTORY);
        let file = plan.project.join(&below).join(&name);
        let written = Dir::open(&plan.project).and_then(|project| {
            let directory = project.create_subdirectory(below, 0o700)?;
            directory.replace_file(&name, format!("# {title}\n\n{body}").as_bytes(), 0o600)
        });
        written.map_err(|source| CliError::Io { operation: "write", path: file.clone(), source })?;
        let BranchReport { name: branch, .. } = branch.clone();
        Ok(Some(Self { title, body, branch, project: plan.project.clone(), file, url: None }))
    }

    /// Pushes the branch, and creates the pull request with `gh`, or updates an existing one.
    ///
    /// # Errors
    /// [`CliError::PullRequest`] with the words of git or gh.
    pub(crate) async fn create(&mut self) -> Result<(), CliError> {
        let refspec = format!("refs/heads/{0}:refs/heads/{0}", self.branch);
        self.call("git", &["push", "--quiet", "origin", &refspec], "").await?;
        let create = ["pr", "create", "--head", &self.branch, "--title", &self.title, "--body-file", "-"];
        let created = match self.call("gh", &create, &self.body).await {
            Err(CliError::PullRequest { said, .. }) if said.contains("already exists") => {
                let edit = ["pr", "edit", &self.branch, "--title", &self.title, "--body-file", "-"];
                self.call("gh", &edit, &self.body).await?
            }
            created => created?,
        };
        self.url = created.lines().rev().find(|line| line.starts_with("https://")).map(str::to_owned);
        Ok(())
    }

    /// Calls a program in the project. Returns its standard output.
    async fn call(&self, program: &'static str, arguments: &[&str], input: &str) -> Result<String, CliError> {
        let failed = |said: String| CliError::PullRequest { program, said, file: self.file.clone() };
        let mut command = std::process::Command::new(program);
        // The remote is that of the project's repository. `gh` calls git, too.
        greenwave::isolate_git(&mut command);
        let mut command = Command::from(command);
        command.args(arguments).current_dir(&self.project).kill_on_drop(true);
        // The program is the user's, and no agent's.
        command.env("PATH", trusted_path(&self.project).unwrap_or_default());
        command.env("GIT_TERMINAL_PROMPT", "0").env("GH_PROMPT_DISABLED", "1");
        let output = match tokio::time::timeout(TIME_MAX, output(command, input)).await {
            Ok(output) => output.map_err(|error| failed(error.to_string()))?,
            Err(_) => return Err(failed(format!("it took longer than {} s", TIME_MAX.as_secs()))),
        };
        if output.status.success() {
            return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
        }
        let said = String::from_utf8_lossy(&output.stderr).trim().replace('\n', "; ");
        Err(failed(if said.is_empty() { output.status.to_string() } else { said }))
    }
}

async fn output(mut command: Command, input: &str) -> io::Result<Output> {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn()?;
    let stdin = child.stdin.take();
    let write = async {
        if let Some(mut stdin) = stdin {
            // A program that fails reports its reason on standard error.
            let _ = stdin.write_all(input.as_bytes()).await;
        }
    };
    let ((), output) = tokio::join!(write, child.wait_with_output());
    output
}
