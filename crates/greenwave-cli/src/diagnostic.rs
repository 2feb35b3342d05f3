//! Errors in text files, shown with the line and the part of it that is wrong.

use std::fmt;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};

use greenwave_dir::read_regular_text;

/// Maximum length of the part of a line that is shown, in characters.
const SHOWN_CHARS_MAX: usize = 200;
/// Maximum size of a plan or settings file, in bytes.
pub(crate) const FILE_BYTES_MAX: u64 = 16 << 20;

/// An error in a text file, with its location.
#[derive(Debug, Clone)]
pub(crate) struct Diagnostic {
    file: PathBuf,
    line: usize,
    column: usize,
    /// The line, or the part of it around the error.
    source_line: String,
    /// Number of characters in it before the error.
    indent: usize,
    width: usize,
    message: String,
}

/// A text file that errors can be shown in.
#[derive(Debug, Clone)]
pub(crate) struct Document {
    pub(crate) path: PathBuf,
    pub(crate) text: String,
}

impl Document {
    /// Reads a file of up to [`FILE_BYTES_MAX`] bytes.
    ///
    /// # Errors
    /// The error of reading, or [`ErrorKind::FileTooLarge`].
    pub(crate) fn read(path: &Path) -> io::Result<Self> {
        Ok(Self { path: path.to_owned(), text: read_regular_text(path, FILE_BYTES_MAX)? })
    }

    /// Creates an error about a range of bytes.
    pub(crate) fn error(&self, at: Range<usize>, message: impl Into<String>) -> Diagnostic {
        let start = floor_char_boundary(&self.text, at.start);
        let before = &self.text[..start];
        let line_start = before.rfind('\n').map_or(0, |at| at + 1);
        let source_line = self.text[line_start..].lines().next().unwrap_or("").to_owned();
        let column = before[line_start..].chars().count() + 1;
        let rest_of_line = source_line.chars().count().saturating_sub(column - 1);
        let marked = self.text[start..floor_char_boundary(&self.text, at.end).max(start)].chars();
        let width = marked.take_while(|&c| c != '\n').count().clamp(1, rest_of_line.max(1));
        let line = before.matches('\n').count() + 1;
        let (source_line, indent) = excerpt(&source_line, column - 1);
        let width = width.min(source_line.chars().count().saturating_sub(indent).max(1));
        let message = message.into();
        Diagnostic { file: self.path.clone(), line, column, source_line, indent, width, message }
    }
}

/// Returns the part of a line that is shown, and the number of characters in it before the one at
/// `at`. A long line is cut on both sides.
fn excerpt(line: &str, at: usize) -> (String, usize) {
    let count = line.chars().count();
    if count <= SHOWN_CHARS_MAX {
        return (line.to_owned(), at);
    }
    let from = at.saturating_sub(SHOWN_CHARS_MAX / 2);
    let shown: String = line.chars().skip(from).take(SHOWN_CHARS_MAX).collect();
    let (start, end) =
        (if from > 0 { "…" } else { "" }, if from + SHOWN_CHARS_MAX < count { "…" } else { "" });
    (format!("{start}{shown}{end}"), at - from + start.chars().count())
}

fn floor_char_boundary(text: &str, at: usize) -> usize {
    (0..=at.min(text.len())).rev().find(|&at| text.is_char_boundary(at)).unwrap_or(0)
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { file, line, column, source_line, indent, message, .. } = self;
        writeln!(out, "{}:{line}:{column}: {message}", file.display())?;
        let number = line.to_string();
        let gutter = " ".repeat(number.len());
        // Tabs stay tabs, so that the marks line up with the text above.
        let indent: String =
            source_line.chars().take(*indent).map(|c| if c == '\t' { '\t' } else { ' ' }).collect();
        write!(out, "{gutter} |\n{number} | {source_line}\n{gutter} | {indent}{}", "^".repeat(self.width))
    }
}

impl std::error::Error for Diagnostic {}
