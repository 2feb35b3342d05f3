//! Causes of [`Error::Discover`](crate::Error::Discover) and [`Error::Build`](crate::Error::Build).

use std::path::Path;

use crate::Error;

/// A reason why a harness's tests cannot be discovered, listed or built.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Problem {
    /// The harness's program does not exist.
    #[error("cannot find program `{program}` on the PATH or in the project")]
    NoSuchProgram { program: String },
    /// The harness's program exists but did not start.
    #[error("cannot start `{program}`")]
    Start { program: String, source: std::io::Error },
    /// A command of the harness failed.
    #[error("`{command}` failed: {output}")]
    Failed { command: &'static str, output: String },
    /// A command of the harness did not end.
    #[error("`{command}` did not end within {seconds} s")]
    TimedOut { command: &'static str, seconds: u64 },
    /// A command of the harness printed something unexpected.
    #[error("cannot parse the output of `{command}`")]
    Output { command: &'static str, source: serde_json::Error },
    /// A manifest is not UTF-8.
    #[error("cannot read `{file}`: expected UTF-8")]
    NotText { file: String },
    /// A manifest cannot be parsed.
    #[error("cannot parse `{file}` at line {line}, column {column}: {message}")]
    Syntax { file: String, line: usize, column: usize, message: String },
    /// A manifest has an invalid glob pattern.
    #[error("invalid pattern in `{file}`")]
    Pattern { file: String, source: globset::Error },
}

impl Problem {
    /// Returns a manifest's file name for use in messages.
    pub(crate) fn file(manifest: &Path) -> String {
        manifest.file_name().unwrap_or_default().to_string_lossy().into_owned()
    }

    /// Returns the error that the tests of `harness` in a directory cannot be discovered.
    pub(crate) fn discovering(self, harness: &'static str, directory: &Path) -> Error {
        Error::Discover { harness, directory: directory.to_owned(), source: Box::new(self) }
    }
}
