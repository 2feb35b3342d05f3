//! Defines the errors of agents.

use std::path::PathBuf;
use std::time::Duration;

/// An error of an agent.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A script cannot be read from disk.
    #[error("cannot read script {}", path.display())]
    ReadScript {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: std::io::Error,
    },
    /// A line of a script is invalid.
    #[error("cannot parse script {name}, line {line}")]
    InvalidScript {
        /// The file or another name of the script.
        name: String,
        /// The line, from 1.
        line: usize,
        /// The cause, which says what would be accepted.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A script has no response for the request.
    #[error("cannot find an answer for feature `{feature}`, attempt {attempt}, in script {name}: {nearest}")]
    NoRecording {
        /// The file or another name of the script.
        name: String,
        /// The requested feature.
        feature: String,
        /// The requested attempt.
        attempt: u32,
        /// Description of the most similar recorded response.
        nearest: String,
    },
    /// The prompt does not contain a text that the recorded response requires.
    #[error(
        "cannot replay feature `{feature}`, attempt {attempt}, of script {name}: \
         the prompt does not contain {missing:?}"
    )]
    PromptMismatch {
        /// The file or another name of the script.
        name: String,
        /// The requested feature.
        feature: String,
        /// The requested attempt.
        attempt: u32,
        /// The missing text.
        missing: String,
    },
    /// An agent program cannot be started.
    #[error("cannot start agent command `{program}` in {}", directory.display())]
    Start {
        /// The program as configured.
        program: String,
        /// The program's working directory.
        directory: PathBuf,
        /// The cause.
        source: std::io::Error,
    },
    /// An agent program does not exist, or cannot be executed.
    #[error("cannot find agent program `{program}`{}", if program.contains('/') { "" } else { " in PATH" })]
    NotFound {
        /// The program as configured.
        program: String,
    },
    /// The prompt is too large for an argument of the agent program. `{prompt_file}` in its place
    /// has no limit.
    #[error("cannot pass a prompt of {bytes} bytes to agent command `{program}` as an argument")]
    PromptTooLarge {
        /// The program as configured.
        program: String,
        /// Size of the prompt, in bytes.
        bytes: usize,
    },
    /// The file with the prompt cannot be written.
    #[error("cannot write the prompt for agent command `{program}` in {}", directory.display())]
    WritePrompt {
        /// The program as configured.
        program: String,
        /// The directory of the file.
        directory: PathBuf,
        /// The cause.
        source: std::io::Error,
    },
    /// An agent program failed.
    #[error("agent command `{program}` ended with {status}{}", stderr_suffix(stderr))]
    Exited {
        /// The program as configured.
        program: String,
        /// The exit status.
        status: std::process::ExitStatus,
        /// The end of its standard error.
        stderr: String,
    },
    /// An agent program reported that its work failed.
    #[error("agent command `{program}` failed: {message}")]
    Failed {
        /// The program as configured.
        program: String,
        /// The reason that it reported.
        message: String,
    },
    /// An agent program failed because its provider limits requests, is overloaded or cannot be
    /// reached. The request can be sent again later.
    #[error("agent command `{program}` is unavailable: {line}")]
    Overloaded {
        /// The program as configured.
        program: String,
        /// The line of its output that shows it.
        line: String,
        /// The delay that the output asks for.
        retry_after: Option<Duration>,
        /// Whether the program could not connect to its provider, or lost the connection.
        is_unreachable: bool,
    },
    /// An agent program exceeded its time limit and was killed with all its descendants.
    #[error("agent command `{program}` did not end within {} and was killed", humantime::format_duration(*limit))]
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
        /// The cause.
        source: std::io::Error,
    },
    /// The options of a model server are invalid.
    #[error("cannot use a model server")]
    InvalidServer {
        /// The option with its accepted values.
        source: crate::InvalidHttpOption,
    },
    /// No client of a model server can be created.
    #[error("cannot create a client of model server {server}")]
    Client {
        /// Host and port of the server.
        server: String,
        /// The cause.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The variable with the key of a model server is not set, or its value cannot be sent.
    #[error("cannot find the key of model server {server} in variable `{variable}`")]
    NoKey {
        /// Host and port of the server.
        server: String,
        /// Name of the variable.
        variable: String,
    },
    /// The program that prints the key of a model server failed.
    #[error("cannot get the key of model server {server} from `{program}`")]
    KeyCommand {
        /// Host and port of the server.
        server: String,
        /// The program as configured.
        program: String,
        /// The cause.
        source: std::io::Error,
    },
    /// The files of a prompt cannot be read.
    #[error("cannot read the files for the prompt in {}", directory.display())]
    ReadContext {
        /// The directory of the files.
        directory: PathBuf,
        /// The cause.
        source: std::io::Error,
    },
    /// A model server refused a request. Sending it again does not help.
    #[error("model server {server} refused the request: {message} (HTTP {status})")]
    RequestRefused {
        /// Host and port of the server.
        server: String,
        /// HTTP status code.
        status: u16,
        /// Message of the server.
        message: String,
    },
    /// A model server limits requests, is overloaded, has failed or cannot be reached. The request
    /// can be sent again later.
    #[error("model server {server} is unavailable: {message}")]
    ServerUnavailable {
        /// Host and port of the server.
        server: String,
        /// Message of the server, or the reason why the connection failed.
        message: String,
        /// The delay that the server asks for.
        retry_after: Option<Duration>,
        /// Whether the connection failed or was lost.
        is_unreachable: bool,
    },
    /// A model server violates HTTP or TLS, or has no trusted certificate, also when the request is
    /// repeated.
    #[error("model server {server} does not keep to {protocol}")]
    ProtocolViolation {
        /// Host and port of the server.
        server: String,
        /// `HTTP` or `TLS`.
        protocol: &'static str,
        /// The cause.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A directory of recorded exchanges and runs cannot be used, or the files of a working copy.
    #[error("cannot {operation} {}", path.display())]
    Recording {
        /// The operation, as a verb.
        operation: &'static str,
        /// The directory, or a file in it.
        path: PathBuf,
        /// The cause.
        source: std::io::Error,
    },
    /// No recorded exchange has the same request.
    #[error("no recorded response of {source_name} fits the request: {difference}")]
    NotRecorded {
        /// The model server, or the program.
        source_name: String,
        /// The difference to the nearest recorded request.
        difference: String,
    },
    /// The response of a model server is not what its interface defines, or reports an error.
    #[error("cannot read the answer of model server {server}")]
    InvalidAnswer {
        /// Host and port of the server.
        server: String,
        /// The cause.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A model stopped before its answer was complete.
    #[error("model `{model}` stopped before its answer was complete: {reason}")]
    Stopped {
        /// The model as configured.
        model: String,
        /// The reason.
        reason: &'static str,
    },
    /// A response ended without [`AgentEvent::End`](crate::AgentEvent::End).
    #[error("the answer broke off after {bytes} bytes")]
    BrokeOff {
        /// Number of bytes received.
        bytes: u64,
    },
    /// The code of an agent panicked. Only the call that it ran for fails.
    #[error("the code of the agent panicked in `{callback}`: {message}")]
    Panicked {
        /// The method that panicked.
        callback: &'static str,
        /// Message of the panic.
        message: String,
    },
    /// The pool cannot provide a session.
    #[error("cannot open a session with agent `{agent}`")]
    Pool {
        /// The name of the agent.
        agent: String,
        /// The cause.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

impl Error {
    /// Returns whether sending the same request again would fail in the same way.
    pub fn is_permanent(&self) -> bool {
        matches!(
            self,
            Error::ReadScript { .. }
                | Error::InvalidScript { .. }
                | Error::NoRecording { .. }
                | Error::PromptMismatch { .. }
                | Error::Start { .. }
                | Error::NotFound { .. }
                | Error::PromptTooLarge { .. }
                | Error::InvalidServer { .. }
                | Error::Client { .. }
                | Error::NoKey { .. }
                | Error::KeyCommand { .. }
                | Error::RequestRefused { .. }
                | Error::ProtocolViolation { .. }
                | Error::Recording { .. }
                | Error::NotRecorded { .. }
                | Error::Panicked { .. }
        )
    }
}

fn stderr_suffix(stderr: &str) -> String {
    if stderr.is_empty() { String::new() } else { format!("; standard error: {stderr}") }
}
