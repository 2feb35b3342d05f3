//! The errors of commands, and hints at what to do about them.

use std::io::ErrorKind;
use std::path::PathBuf;

use greenwave_dir::{FileKind, Refused, refused};

use crate::config::ConfigError;
use crate::diagnostic::Diagnostic;
use crate::text::list;

type Source = Box<dyn std::error::Error + Send + Sync>;

/// An error that ends a command.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CliError {
    /// A plan is invalid.
    #[error("{0}")]
    Plan(Box<Diagnostic>),
    /// A plan is valid, and cannot run on this machine.
    #[error("{diagnostic}")]
    Problem { diagnostic: Box<Diagnostic>, hint: Option<String> },
    /// A plan cannot be read.
    #[error("cannot read plan {}", path.display())]
    ReadPlan { path: PathBuf, source: std::io::Error },
    /// A setting is invalid.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// A run cannot start or continue.
    #[error(transparent)]
    Run(#[from] greenwave::Error),
    /// Metrics cannot be served.
    #[error(transparent)]
    Metrics(#[from] greenwave::TelemetryError),
    /// The async runtime cannot start.
    #[error("cannot start the async runtime")]
    Runtime(#[source] std::io::Error),
    /// Signal handlers cannot be installed.
    #[error("cannot listen for signals")]
    Signals(#[source] std::io::Error),
    /// A file or directory cannot be read or written.
    #[error("cannot {operation} {}", path.display())]
    Io { operation: &'static str, path: PathBuf, source: std::io::Error },
    /// Settings above the working directory belong to somebody else.
    #[error("{} belongs to {}", path.display(), owner.map_or("another user".to_owned(), |id| format!("user {id}")))]
    ForeignSettings { path: PathBuf, owner: Option<u32> },
    /// A report of a test run cannot be written.
    #[error("cannot write report {}", path.display())]
    Report { path: PathBuf, source: std::io::Error },
    /// The file of expected durations cannot be read.
    #[error("cannot read {}", path.display())]
    ReadTimings { path: PathBuf, source: std::io::Error },
    /// The file of expected durations is invalid.
    #[error("cannot read {}", path.display())]
    Timings { path: PathBuf, source: greenwave_testing::TimingsError },
    /// Standard output cannot be written.
    #[error("cannot write to standard output")]
    Output(#[source] std::io::Error),
    /// Tests cannot be discovered or run.
    #[error(transparent)]
    Test(#[from] greenwave_testing::Error),
    /// The store of test results failed.
    #[error(transparent)]
    Results(#[from] greenwave::ResultStoreError),
    /// The key of results on a server cannot be used.
    #[error(transparent)]
    Key(#[from] crate::key_error::KeyError),
    /// The project has no tests.
    #[error("cannot find any tests")]
    NoTests,
    /// A signal arrived while tests were listed.
    #[error("stopped while listing tests")]
    Stopped { code: u8 },
    /// No test matches the given names.
    #[error("unknown test `{filters}`: expected part of the name of one of {names}")]
    NoSuchTest { filters: String, names: String },
    /// A flag names a feature that the plan does not have.
    #[error("unknown feature `{name}`{}", similar.as_ref().map(|name| format!("; did you mean `{name}`?")).unwrap_or_default())]
    NoSuchFeature { name: String, similar: Option<String> },
    /// Options that need a feature.
    #[error("missing argument `FEATURE`: expected the feature whose attempts are compared or opened")]
    NoFeatureNamed,
    /// No agent has the name.
    #[error("unknown agent `{name}`: expected one of {known}")]
    NoSuchAgent { name: String, known: String },
    /// A file is no list of issues.
    #[error("cannot read issues from {}: {problem}", path.display())]
    Issues { path: PathBuf, problem: String },
    /// The plan has no exchanges that could be recorded or replayed.
    #[error("cannot record or replay agents: no agent of the plan is a program or a model server")]
    NoExchanges,
    /// The plan has no pull request that could be created.
    #[error("cannot create a pull request: the plan does not set `result = \"pr\"`")]
    NoPullRequest,
    /// git or gh cannot create the pull request.
    #[error("cannot create a pull request with `{program}`: {said}")]
    PullRequest { program: &'static str, said: String, file: PathBuf },
    /// A decision about a feature that does not wait for one.
    #[error("cannot {operation} `{feature}`: no answer of it waits for approval{}", other_held(held))]
    NotHeld { operation: &'static str, feature: String, held: Vec<String> },
    /// Several tests match a name that must match one.
    #[error("ambiguous test `{name}`: expected part of the name of only one of {names}")]
    SeveralTests { name: String, names: String },
    /// Arguments for a test runner, although tests of several runners are selected.
    #[error("cannot pass the arguments after `--` to several runners: {names}")]
    SeveralRunners { names: String },
    /// A feature has no such attempt.
    #[error("cannot find {}{}", an_attempt(*number), of_feature(feature))]
    NoSuchAttempt { feature: Option<String>, number: Option<u32> },
    /// No recorded run has the number.
    #[error("cannot find run {number}: {count} recorded")]
    NoSuchRun { number: usize, count: usize },
    /// git cannot list changes.
    #[error("cannot list changes since `{commit}`")]
    Git { commit: String, source: Source },
    /// The project cannot be watched.
    #[error("cannot watch {}", path.display())]
    Watch { path: PathBuf, source: notify::Error },
    /// No directory for test results can be derived from the environment.
    #[error(
        "cannot locate the directory of test results: neither XDG_CACHE_HOME nor HOME is an absolute path"
    )]
    NoResultsDir,
    /// A file that would be created exists.
    #[error("cannot create {}", path.display())]
    Exists { path: PathBuf, source: std::io::Error },
    /// A file exists that would be overwritten.
    #[error("cannot create {}", path.display())]
    NotForced { path: PathBuf, source: std::io::Error },
    /// The program was built without the feature `mcp`.
    #[cfg(not(feature = "mcp"))]
    #[error("cannot serve the Model Context Protocol: this program was built without the feature `mcp`")]
    NoMcp,
    /// The connection to a client of the Model Context Protocol failed.
    #[cfg(feature = "mcp")]
    #[error("cannot serve the Model Context Protocol")]
    Mcp(#[source] Source),
    /// No clients of the Model Context Protocol can connect.
    #[cfg(feature = "mcp")]
    #[error("cannot listen on {address}")]
    Listen { address: std::net::SocketAddr, source: std::io::Error },
    /// A file has no token for clients of the Model Context Protocol.
    #[cfg(feature = "mcp")]
    #[error("invalid token in {}: expected 16 to 256 letters, digits, `-`, `.`, `_` or `~`", path.display())]
    Token { path: PathBuf },
    /// The directory for a demo holds something else.
    #[error("cannot create a demo in {}: the directory is not empty and holds no demo", path.display())]
    NotADemo { path: PathBuf },
}

impl CliError {
    /// Returns an instruction that would remove the cause, if there is one.
    pub(crate) fn hint(&self) -> Option<String> {
        if let CliError::ReadPlan { path, source } = self
            && source.kind() == ErrorKind::NotFound
        {
            return Some(format!("create a plan with `greenwave init {}`", path.display()));
        }
        if let CliError::Problem { hint, .. } = self {
            return hint.clone();
        }
        if matches!(self, CliError::ReadPlan { .. }) && refused_entry(self).is_some() {
            return Some("name the file of a plan".to_owned());
        }
        if let Some(refused) = refused_entry(self).filter(|_| !is_named_by_user(self)) {
            return Some(if refused.kind() == FileKind::Link {
                "remove the symbolic link: greenwave writes nothing through it".to_owned()
            } else {
                "rename or remove it".to_owned()
            });
        }
        if let CliError::PullRequest { file, .. } = self {
            return Some(format!("create it by hand from the branch, with the text in {}", file.display()));
        }
        if let CliError::Results(greenwave::ResultStoreError::NoRemote { feature, .. }) = self {
            return Some(format!(
                "install with `cargo install --path crates/greenwave-cli --features {feature}`"
            ));
        }
        self.fixed_hint().map(str::to_owned)
    }

    fn fixed_hint(&self) -> Option<&'static str> {
        Some(match self {
            CliError::Config(ConfigError::NoProject { .. }) => "create the directory, or name another one",
            CliError::Metrics(greenwave::TelemetryError::AddressInUse { .. }) => {
                "pass `--metrics-port 0` for a free port, or `--no-metrics`"
            }
            CliError::Run(error) => return run_hint(error),
            CliError::NoTests => {
                "run this in a cargo, pytest, go or npm project, or declare `[[test]]` in greenwave.toml"
            }
            CliError::Test(greenwave_testing::Error::NotTraced { .. }) => {
                "allow seccomp user notification, or set `testing.trace = true` to run without tracing"
            }
            CliError::Key(error) => return error.hint(),
            CliError::NoResultsDir => "pass `--set cache.directory=DIR`, or `--no-cache`",
            CliError::Results(greenwave::ResultStoreError::Open { .. }) => {
                "pass `--set cache.directory=DIR` to use another directory, or `--no-cache`"
            }
            CliError::Report { source, .. } | CliError::Io { operation: "create", source, .. }
                if source.kind() == ErrorKind::NotFound =>
            {
                "create the parent directory first"
            }
            CliError::ReadTimings { source, .. } if source.kind() == ErrorKind::NotFound => {
                "create the file with `greenwave test --save-timings FILE`"
            }
            CliError::Timings { .. } => "create the file again with `greenwave test --save-timings FILE`",
            CliError::NotHeld { .. } => "run the plan with `hold = true` until the feature is held",
            CliError::NoExchanges => "leave `--record` and `--replay` out",
            CliError::NoPullRequest => "set `result = \"pr\"` in the plan, or leave `--create-pr` out",
            CliError::NoSuchAgent { .. } => {
                "name an agent of `[agents]` in greenwave.toml or in the plan of `--config`"
            }
            CliError::Issues { .. } => {
                "pass the output of `gh issue list --json number,title,body`, or a list in Markdown"
            }
            CliError::NoFeatureNamed => "list all attempts with `greenwave attempts PLAN`",
            CliError::NoSuchAttempt { .. } => "list all attempts with `greenwave attempts PLAN`",
            CliError::NoSuchRun { count: 0, .. } => "run a plan with `greenwave run PLAN`",
            CliError::NoSuchRun { .. } => "list the recorded runs with `greenwave dashboard --list`",
            CliError::Report { .. } => "name a file that can be written",
            CliError::SeveralTests { .. } => "give the full name of one of them",
            CliError::SeveralRunners { .. } => {
                "select the tests of one runner by a part of their names (`greenwave test NAME -- ARGUMENT`)"
            }
            CliError::Output(_) => "free disk space, or redirect the output (`> FILE`)",
            CliError::Exists { .. } => "edit or remove the existing file",
            CliError::NotForced { .. } => "pass `--force` to overwrite it, or name another file with `-o`",
            CliError::NotADemo { .. } => "choose an empty directory",
            #[cfg(not(feature = "mcp"))]
            CliError::NoMcp => "install with `cargo install --path crates/greenwave-cli --features mcp`",
            #[cfg(feature = "mcp")]
            error => return mcp_hint(error),
            #[cfg(not(feature = "mcp"))]
            _ => return None,
        })
    }
}

/// Returns an instruction that would remove the cause of an error of `greenwave mcp`, if there is
/// one.
#[cfg(feature = "mcp")]
fn mcp_hint(error: &CliError) -> Option<&'static str> {
    Some(match error {
        CliError::Mcp(_) => {
            "let a coding agent start the command, which speaks JSON-RPC on its standard streams"
        }
        CliError::Listen { source, .. } if source.kind() == ErrorKind::AddrInUse => {
            "pass `--http` without an address for a free port"
        }
        CliError::Token { .. } => "create a token with `openssl rand -hex 16`",
        _ => return None,
    })
}

/// Names the features that wait for approval.
fn other_held(held: &[String]) -> String {
    match held {
        [] => String::new(),
        held => format!(" (held: {})", list(held.iter().map(String::as_str))),
    }
}

fn an_attempt(number: Option<u32>) -> String {
    number.map_or_else(|| "any attempt".to_owned(), |number| format!("attempt {number}"))
}

fn of_feature(feature: &Option<String>) -> String {
    feature.as_ref().map(|feature| format!(" of feature `{feature}`")).unwrap_or_default()
}

/// Returns the entry that an operation refused to follow or to replace, if that is the cause of an
/// error.
fn refused_entry<'a>(error: &'a (dyn std::error::Error + 'static)) -> Option<&'a Refused> {
    let mut chain = std::iter::successors(Some(error), |error| error.source());
    chain.find_map(|error| refused(error.downcast_ref::<std::io::Error>()?))
}

/// Returns whether an error is about a file that the user names: a script or a key. Then another
/// name is the cure.
fn is_named_by_user(error: &(dyn std::error::Error + 'static)) -> bool {
    let mut chain = std::iter::successors(Some(error), |error| error.source());
    chain.any(|error| {
        let script = error.downcast_ref::<greenwave::AgentError>();
        let is_script = matches!(script, Some(greenwave::AgentError::ReadScript { .. }));
        is_script || matches!(error.downcast_ref::<CliError>(), Some(CliError::Key(_)))
    })
}

/// Returns an instruction that would remove the cause of a run's error, if there is one.
fn run_hint(error: &greenwave::Error) -> Option<&'static str> {
    Some(match error {
        greenwave::Error::Project { .. } => "make all files readable, or name the others in .gitignore",
        greenwave::Error::Busy { .. } => "wait for the other run to end, or use a copy of the project",
        greenwave::Error::Branch { .. } => "check out another branch there, or rename the plan",
        greenwave::Error::BranchName { .. } => "rename that branch, or remove `result` from the plan",
        greenwave::Error::BranchOfPlan { .. } => "give this plan another `name`, or delete the branch",
        greenwave::Error::NoRepository { .. } => "run `git init` and commit, or remove the key from the plan",
        greenwave::Error::NotTraced => {
            "pass `--set testing.trace=true`, and declare all `inputs` of tests, or none"
        }
        greenwave::Error::NoRunDirectory => {
            "set HOME, or pass `--set run.directory=DIR` with a directory outside of the project"
        }
        greenwave::Error::RunDirectory { .. } => {
            "pass `--set run.directory=DIR` with a writable directory outside of the project"
        }
        greenwave::Error::Agent { source: greenwave::AgentError::ReadScript { .. }, .. } => {
            "give the path relative to the plan's directory"
        }
        greenwave::Error::Agent { source: greenwave::AgentError::NotFound { .. }, .. } => {
            "install the program, or correct `command` of the agent in the plan"
        }
        greenwave::Error::NoHttp { .. } => {
            "install with `cargo install --path crates/greenwave-cli --features http-agents`"
        }
        greenwave::Error::Agent { source: greenwave::AgentError::NoKey { .. }, .. } => {
            "set the variable, or name another source of the key: `key_env` or `key_command`"
        }
        greenwave::Error::Agent { source: greenwave::AgentError::Client { .. }, .. } => {
            "install the certificates of your system (package `ca-certificates`)"
        }
        greenwave::Error::CopyMode { .. } => "set `run.copies = \"auto\"` to use what this file system has",
        greenwave::Error::Confinement { .. } => "set `confine = \"auto\"` to use what this system has",
        greenwave::Error::Network { source: None } => {
            "remove `confine = \"off\"`, or set `network = \"open\"`"
        }
        greenwave::Error::Network { .. } => "allow unprivileged user namespaces, or set `network = \"open\"`",
        _ => return None,
    })
}
