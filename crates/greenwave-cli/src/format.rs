//! The formats and amounts of output that commands let the user choose.

use clap::ValueEnum;

/// Format of a command's output.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// Text: colors and a progress line on a terminal, plain lines in a pipe.
    Human,
    /// One JSON object per line.
    Json,
}

/// Tests whose captured output is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Show {
    /// Failed tests.
    Failed,
    /// All tests, including those with a cached result.
    All,
    /// No tests.
    None,
}
