//! What can go wrong between a question and the end of its answer.

use std::path::PathBuf;
use std::time::Duration;

/// Everything that can go wrong with an agent. Each says which agent, and what would help where that is known.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A script could not be read from disk.
    #[error("cannot read the script {}", path.display())]
    ReadScript {
        /// The script's file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A script is not what a script should be.
    #[error("script {name}, line {line}: {problem}")]
    InvalidScript {
        /// The script's file or other name.
        name: String,
        /// The line, from 1.
        line: usize,
        /// What is wrong with it, and what would be accepted.
        problem: String,
    },
    /// A script holds no answer to what was asked.
    #[error("script {name} has no answer for feature `{feature}`, attempt {attempt}; {nearest}")]
    NoRecording {
        /// The script's file or other name.
        name: String,
        /// The feature that was asked for.
        feature: String,
        /// The attempt that was asked for.
        attempt: u32,
        /// What it does hold that comes nearest.
        nearest: String,
    },
    /// A script's answer was recorded for another question.
    #[error(
        "script {name}: the answer for feature `{feature}`, attempt {attempt}, was recorded for a prompt \
         with {missing:?} in it, and this prompt has none"
    )]
    PromptMismatch {
        /// The script's file or other name.
        name: String,
        /// The feature that was asked for.
        feature: String,
        /// The attempt that was asked for.
        attempt: u32,
        /// The text that is missing.
        missing: String,
    },
    /// An agent program could not be started.
    #[error("cannot start agent command `{program}` in {}", directory.display())]
    Start {
        /// The program as configured.
        program: String,
        /// Where it was to run.
        directory: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// An agent program ended with something else than success.
    #[error("agent command `{program}` ended with {status}{}", stderr_suffix(stderr))]
    Exited {
        /// The program as configured.
        program: String,
        /// How it ended.
        status: std::process::ExitStatus,
        /// The end of what it wrote to its standard error.
        stderr: String,
    },
    /// An agent program did not end in time, and was killed with everything it had started.
    #[error("agent command `{program}` did not end within {limit:?} and was killed")]
    TimedOut {
        /// The program as configured.
        program: String,
        /// The limit.
        limit: Duration,
    },
    /// Reading from or waiting for an agent program failed.
    #[error("lost the connection to agent command `{program}`")]
    Broken {
        /// The program as configured.
        program: String,
        /// Why.
        source: std::io::Error,
    },
    /// An answer stopped without saying that it was complete.
    #[error("the answer broke off after {bytes} bytes without an end")]
    BrokeOff {
        /// Bytes received until then.
        bytes: u64,
    },
    /// No session could be had.
    #[error("no session with agent `{agent}` could be had")]
    Pool {
        /// The agent's name.
        agent: String,
        /// Why.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

impl Error {
    /// Whether asking the same again would fail in the same way, whatever the agent does.
    pub fn is_permanent(&self) -> bool {
        matches!(
            self,
            Error::ReadScript { .. }
                | Error::InvalidScript { .. }
                | Error::NoRecording { .. }
                | Error::PromptMismatch { .. }
                | Error::Start { .. }
        )
    }
}

fn stderr_suffix(stderr: &str) -> String {
    if stderr.is_empty() { String::new() } else { format!("; its last words: {stderr}") }
}
