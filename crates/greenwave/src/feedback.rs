//! Turns the output of failing tests into short feedback for an agent.
//!
//! Pure text processing. The whole output stays with the recorded attempt.

mod changes;

use std::path::Path;

use greenwave_testing::FailureText;

pub(crate) use changes::{FileChange, describe_progress};

/// Maximum size of the text of one failing test command, in bytes, without the list of failing
/// tests.
const TEXT_BYTES_MAX: usize = 7 * 1024;

/// Returns the part of a test command's output that matters to the author of the code. Paths below
/// one of the `roots` become relative.
pub(crate) fn failure_text(output: &[u8], roots: &[&Path]) -> FailureText {
    FailureText::of_output(output, roots, TEXT_BYTES_MAX)
}

#[cfg(test)]
mod tests;
