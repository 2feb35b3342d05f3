//! Errors of a client, and the answers of a server.

use std::fmt;
use std::time::Duration;

use tonic::Code;

/// Maximum number of characters of a server's message that are shown.
const MESSAGE_CHARS_MAX: usize = 300;

/// Errors of a [`Client`](crate::Client). Each names the server. A result or a blob that the server
/// does not have is not an error.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// An option has an invalid value.
    #[error("invalid value {value} for {option}: expected {expected}")]
    InvalidOption {
        /// Name of the option.
        option: &'static str,
        /// The invalid value, without a password.
        value: String,
        /// Description of the valid values.
        expected: &'static str,
    },
    /// An action can run on no executor.
    #[error("invalid action: {problem}")]
    InvalidAction {
        /// The mistake.
        problem: String,
    },
    /// A call failed: the server cannot be reached, did not answer in time, or refused.
    #[error("cannot {operation} at {server}")]
    Call {
        /// The operation, as a verb and an object.
        operation: &'static str,
        /// Address of the server.
        server: String,
        /// Answer of the server, or the reason why there is none.
        source: Failure,
    },
    /// The server failed recently, and the call was skipped.
    #[error("cannot reach {server}: calls are skipped for {retry_in:?}")]
    Unavailable {
        /// Address of the server.
        server: String,
        /// Time until the next attempt.
        retry_in: Duration,
    },
    /// The server cannot be used: it speaks another version of the protocol, lacks SHA-256, or has
    /// no cache.
    #[error("cannot use {server}: it {problem}")]
    Incompatible {
        /// Address of the server.
        server: String,
        /// Reason, as a predicate.
        problem: String,
    },
    /// The server sent something else than it was asked for.
    #[error("cannot {operation} at {server}: {problem}")]
    Damaged {
        /// The operation, as a verb and an object.
        operation: &'static str,
        /// Address of the server.
        server: String,
        /// Fault of the answer.
        problem: String,
    },
    /// The blob exceeds the limit that the server states.
    #[error("cannot store a blob of {bytes} bytes at {server}: its limit is {bytes_max}")]
    TooLarge {
        /// Address of the server.
        server: String,
        /// Size of the blob.
        bytes: u64,
        /// The limit.
        bytes_max: u64,
    },
    /// The token that the server wants could not be obtained.
    #[error("cannot obtain the token for {server}: {problem}")]
    Token {
        /// Address of the server.
        server: String,
        /// The cause.
        problem: String,
    },
}

impl Error {
    /// Returns whether the server refuses this call and may accept others: a full server, or one
    /// that is read only.
    pub fn is_refusal(&self) -> bool {
        match self {
            Self::Call { source, .. } => source.is_refusal(),
            Self::TooLarge { .. } => true,
            _ => false,
        }
    }
}

/// Why a call failed.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Failure {
    /// The server, or the client of HTTP/2, answered with an error.
    Status {
        /// Name of the gRPC status code, such as `UNAVAILABLE`.
        code: &'static str,
        /// Message of the server or of the connection, limited in length, without control
        /// characters.
        message: String,
    },
    /// The answer did not arrive within this time.
    Late(Duration),
}

impl Failure {
    pub(crate) fn of(status: &tonic::Status) -> Self {
        let mut message = status.message().to_owned();
        // The connection's own errors hide their cause: "transport error".
        let mut source = std::error::Error::source(status);
        while let Some(cause) = source {
            let text = cause.to_string();
            if !message.contains(&text) {
                message = if message.is_empty() { text } else { format!("{message}: {text}") };
            }
            source = cause.source();
        }
        Self::Status { code: name(status.code()), message: printable(&message) }
    }

    /// Returns whether the code of the status is this one.
    pub(crate) fn is(&self, code: Code) -> bool {
        matches!(self, Self::Status { code: found, .. } if *found == name(code))
    }

    fn is_refusal(&self) -> bool {
        let refusals = [
            Code::InvalidArgument,
            Code::NotFound,
            Code::AlreadyExists,
            Code::PermissionDenied,
            Code::ResourceExhausted,
            Code::FailedPrecondition,
            Code::OutOfRange,
            Code::Unimplemented,
        ];
        refusals.iter().any(|code| self.is(*code))
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Status { code, message } if message.is_empty() => f.write_str(code),
            Self::Status { code, message } => write!(f, "{code}: {message}"),
            Self::Late(limit) => write!(f, "no answer within {limit:?}"),
        }
    }
}

impl std::error::Error for Failure {}

/// Returns a text of a server as one short line.
fn printable(text: &str) -> String {
    let line = text.chars().map(|c| if c.is_control() { ' ' } else { c });
    let mut shown: String = line.take(MESSAGE_CHARS_MAX).collect();
    if text.chars().nth(MESSAGE_CHARS_MAX).is_some() {
        shown.push('…');
    }
    shown
}

/// Returns the name of a status code in the specification of gRPC.
pub(crate) fn name(code: Code) -> &'static str {
    match code {
        Code::Ok => "OK",
        Code::Cancelled => "CANCELLED",
        Code::Unknown => "UNKNOWN",
        Code::InvalidArgument => "INVALID_ARGUMENT",
        Code::DeadlineExceeded => "DEADLINE_EXCEEDED",
        Code::NotFound => "NOT_FOUND",
        Code::AlreadyExists => "ALREADY_EXISTS",
        Code::PermissionDenied => "PERMISSION_DENIED",
        Code::ResourceExhausted => "RESOURCE_EXHAUSTED",
        Code::FailedPrecondition => "FAILED_PRECONDITION",
        Code::Aborted => "ABORTED",
        Code::OutOfRange => "OUT_OF_RANGE",
        Code::Unimplemented => "UNIMPLEMENTED",
        Code::Internal => "INTERNAL",
        Code::Unavailable => "UNAVAILABLE",
        Code::DataLoss => "DATA_LOSS",
        Code::Unauthenticated => "UNAUTHENTICATED",
    }
}
