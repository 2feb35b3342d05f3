//! What is wrong in a file, with its place. Knows nothing of what files mean.

use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};

/// A mistake in a text file: where, what, and what would be accepted.
#[derive(Debug, Clone)]
pub(crate) struct Diagnostic {
    file: PathBuf,
    line: usize,
    column: usize,
    source_line: String,
    width: usize,
    message: String,
}

/// A text file that mistakes can be shown in.
#[derive(Debug, Clone)]
pub(crate) struct Document {
    pub(crate) path: PathBuf,
    pub(crate) text: String,
}

impl Document {
    pub(crate) fn read(path: &Path) -> std::io::Result<Self> {
        Ok(Self { path: path.to_owned(), text: std::fs::read_to_string(path)? })
    }

    /// A mistake at a range of bytes.
    pub(crate) fn mistake(&self, at: Range<usize>, message: impl Into<String>) -> Diagnostic {
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
        // Tabs are kept, so that the marks stand below what they mean.
        let indent: String =
            source_line.chars().take(column - 1).map(|c| if c == '\t' { '\t' } else { ' ' }).collect();
        write!(out, "{gutter} |\n{number} | {source_line}\n{gutter} | {indent}{}", "^".repeat(self.width))
    }
}

impl std::error::Error for Diagnostic {}
