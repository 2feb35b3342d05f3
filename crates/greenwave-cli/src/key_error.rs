//! The error of keys of results on a server.

use std::io;
use std::path::PathBuf;

use greenwave::{KeySource, RemoteKey};

/// Variable with the program that prints the token for a server.
pub(crate) const COMMAND: &str = "GREENWAVE_REMOTE_TOKEN_COMMAND";
/// Variable with the key that signs results.
pub(crate) const SIGNING: &str = "GREENWAVE_SIGNING_KEY";
/// Setting with the sources of keys.
pub(crate) const KEY: &str = "testing.remote_key";

/// The reason why a key cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum KeyError {
    /// Everybody who can read the project could make a test pass.
    #[error("invalid value `{0}` for `{KEY}`: expected a file outside of the project")]
    InProject(KeySource),
    /// The key can be guessed.
    #[error("invalid key in {0}: expected {min} bytes or more", min = RemoteKey::BYTES_MIN)]
    TooShort(KeySource),
    /// The key that signs results is no 32 bytes in hexadecimal digits.
    #[error("invalid value of `{SIGNING}`: expected 64 hexadecimal digits")]
    Signing,
    /// The key that signs results is damaged, or others could have read it.
    #[error("cannot use signing key in {}", directory.display())]
    ReadSigning { directory: PathBuf, source: io::Error },
    /// The key that signs results would be in the project, where others can read it.
    #[error("cannot create signing key in {}: it is in the project", .0.display())]
    SigningInProject(PathBuf),
    /// No directory of the user can hold a key.
    #[error("cannot find the directory of keys: neither XDG_STATE_HOME nor HOME is an absolute path")]
    NoDirectory,
    /// The user has not created a key that signs results.
    #[error("no signing key in {}", .0.display())]
    NoSigning(PathBuf),
    /// Signatures need a feature.
    #[error("cannot sign results: the feature `remote` is disabled")]
    NoSignatures,
    /// The program that prints a token is not given as words.
    #[error(
        "invalid value of `{COMMAND}`: expected a program and its arguments, as words or as a list of \
         strings in JSON"
    )]
    Command,
    /// The file cannot be read.
    #[error("cannot read key {}", path.display())]
    Read { path: PathBuf, source: io::Error },
}

impl KeyError {
    /// Returns an instruction that removes the cause, if there is one.
    pub(crate) fn hint(&self) -> Option<&'static str> {
        Some(match self {
            Self::TooShort(_) | Self::Signing => "create a key with `openssl rand -hex 32`",
            Self::ReadSigning { .. } => "make a new key with `greenwave key create --replace`",
            Self::NoSigning(_) => "create a key with `greenwave key create`",
            Self::NoSignatures => "install the program with `--features remote`",
            Self::NoDirectory => "set HOME",
            _ => return None,
        })
    }
}
