//! Errors in text files, shown with the line and the part of it that is wrong.

use std::fmt;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};

use greenwave_dir::read_regular_text;

/// Maximum size of a plan or settings file, in bytes.
pub(crate) const FILE_BYTES_MAX: u64 = 16 << 20;

/// An error in a text file, with its location.
#[derive(Debug, Clone)]
pub(crate) struct Diagnostic {
    file: PathBuf,
    line: usize,
    column: usize,
    source_line: String,
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
        Diagnostic { file: self.path.clone(), line, column, source_line, width, message: message.into() }
    }
}

fn floor_char_boundary(text: &str, at: usize) -> usize {
    (0..=at.min(text.len())).rev().find(|&at| text.is_char_boundary(at)).unwrap_or(0)
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { file, line, column, source_line, message, .. } = self;
        writeln!(out, "{}:{line}:{column}: {message}", file.display())?;
        let number = line.to_string();
        let gutter = " ".repeat(number.len());
        // Tabs stay tabs, so that the marks line up with the text above.
        let indent: String =
            source_line.chars().take(column - 1).map(|c| if c == '\t' { '\t' } else { ' ' }).collect();
        write!(out, "{gutter} |\n{number} | {source_line}\n{gutter} | {indent}{}", "^".repeat(self.width))
    }
}

impl std::error::Error for Diagnostic {}
