//! The error of keys of results on a server.

use std::io;
use std::path::PathBuf;

use greenwave::{KeySource, RemoteKey};

/// Variable with the program that prints the token for a server.
pub(crate) const COMMAND: &str = "GREENWAVE_REMOTE_TOKEN_COMMAND";
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
