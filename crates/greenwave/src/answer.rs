//! Applies the edits of an answer to files: search/replace blocks, unified diffs, whole files.
//!
//! Pure functions of texts. The caller reads and writes the files, and discards everything if one
//! part of the answer cannot be applied.

mod diff;
mod elision;
mod lines;
mod search_replace;

pub(crate) use diff::{FilePatch, PatchKind, parse as parse_diff};
pub(crate) use elision::{has_elision, is_excerpt, loses_most, lost_lines};
pub(crate) use search_replace::parse as parse_replacements;

/// Reason why an edit cannot be applied to a file. Written for the agent: it says where and why.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum EditProblem {
    /// The text that the edit replaces is not in the file.
    #[error("the text to replace is not in the file; its first line is {first:?}")]
    NotFound { first: String },
    /// The text that the edit replaces is in the file several times.
    #[error(
        "the text to replace is in the file {} times, at lines {}; give more lines around it",
        lines.len(),
        lines.iter().map(usize::to_string).collect::<Vec<_>>().join(", ")
    )]
    Several { lines: Vec<usize> },
    /// The edit changes a file that does not exist.
    #[error("the file does not exist")]
    NoFile,
    /// The edit creates a file that exists.
    #[error("the file already exists")]
    Exists,
    /// The file is not text.
    #[error("the file is not UTF-8 text")]
    NotText,
    /// The edit is malformed.
    #[error("{0}")]
    Malformed(&'static str),
}
