//! Splits plain text into paragraphs: lines between blank lines.

use std::ops::Range;

use crate::cut::{Cut, Cuts};
use crate::layout::UnitKind;
use crate::splitter::line_ends::find_end;
use crate::splitter::{Cap, SplitError, Splitter};

/// Splits at blank lines, which contain only spaces and tabs. Lines end with LF, CRLF or CR.
///
/// A paragraph starts with its first character that is not white space, and is reported when the
/// blank line after it is complete. It excludes the ending of its last line and includes those of
/// other lines. The last paragraph of a stream that does not end with a blank line is
/// [incomplete](crate::Unit::is_complete). The cap also counts trailing white space; if white space
/// exceeds it, the last piece is empty.
#[derive(Debug, Default)]
pub struct Paragraphs {
    cap: Cap,
    /// The window starts with a paragraph. Otherwise the window is empty.
    is_inside: bool,
    /// Start of the current line, or of its rest after a split.
    line: usize,
    /// The part split off the current line was not blank.
    line_has_text: bool,
    /// Offset from which to search for line endings.
    next: usize,
    /// End of the last line that is not blank.
    end: usize,
    continued: bool,
}

impl Paragraphs {
    /// Creates a splitter for paragraphs of up to `cap`.
    #[must_use]
    pub fn new(cap: Cap) -> Self {
        Self { cap, ..Self::default() }
    }

    /// Moves to the paragraph that starts at or after `from`, if there is one.
    fn begin(&mut self, window: &[u8], from: usize) -> Option<usize> {
        let is_text = |byte: &u8| !matches!(byte, b' ' | b'\t' | b'\n' | b'\r');
        let start = from + window[from..].iter().position(is_text)?;
        self.is_inside = true;
        (self.line, self.next, self.end) = (start, start, start);
        self.line_has_text = false;
        Some(start)
    }

    /// Completes the line from `self.line` to `end`. Returns whether it ends the paragraph.
    fn line_end(&mut self, window: &[u8], end: usize, after: usize) -> bool {
        let is_blank = !self.line_has_text && is_blank(&window[self.line..end]);
        if !is_blank {
            self.end = end;
        }
        (self.line, self.next, self.line_has_text) = (after, after, false);
        is_blank
    }

    /// Splits `body` at the cap; returns the start of the rest.
    fn enforce(&mut self, window: &[u8], body: Range<usize>, out: &mut Cuts) -> Result<usize, SplitError> {
        let continued = &mut self.continued;
        let start = self.cap.enforce(window, body, out, |piece| {
            Cut::new(UnitKind::Paragraph, piece).incomplete().continued(std::mem::replace(continued, true))
        })?;
        if start > self.line {
            self.line_has_text |= !is_blank(&window[self.line..start]);
            self.line = start;
        }
        self.end = self.end.max(start);
        self.next = self.next.max(start);
        Ok(start)
    }

    /// Returns the end of the next line and the start of the line after it. The start is `None` if
    /// the line is unfinished or ends with a CR that an LF may follow.
    fn next_line(&self, window: &[u8]) -> (usize, Option<usize>) {
        let Some(end) = find_end(window, self.next) else { return (window.len(), None) };
        let after = match (window[end], window.get(end + 1)) {
            (b'\n', _) => Some(end + 1),
            (_, Some(b'\n')) => Some(end + 2),
            (_, next) => next.map(|_| end + 1),
        };
        (end, after)
    }

    fn emit(&mut self, start: usize, out: &mut Cuts) {
        self.is_inside = false;
        let continued = std::mem::take(&mut self.continued);
        out.push(Cut::new(UnitKind::Paragraph, start..self.end).continued(continued));
    }
}

impl Splitter for Paragraphs {
    fn scan(&mut self, window: &[u8], _fresh: usize, out: &mut Cuts) -> Result<usize, SplitError> {
        let mut start = 0;
        loop {
            if !self.is_inside {
                match self.begin(window, start) {
                    Some(begun) => start = begun,
                    None => return Ok(window.len()),
                }
            }
            let (end, after) = self.next_line(window);
            let Some(after) = after else {
                self.next = end;
                start = self.enforce(window, start..end, out)?;
                break;
            };
            let is_blank = self.line_end(window, end, after);
            if is_blank {
                self.line = end;
                start = self.enforce(window, start..end, out)?;
                self.emit(start, out);
                start = after;
            }
        }
        self.line -= start;
        self.next -= start;
        self.end -= start;
        Ok(start)
    }

    fn finish(&mut self, window: &[u8], out: &mut Cuts) -> Result<(), SplitError> {
        if self.is_inside {
            // The rest is at most one line, possibly with a CR.
            let has_end = self.next < window.len();
            let is_blank = self.line_end(window, self.next, window.len());
            let cut = Cut::new(UnitKind::Paragraph, 0..self.end).continued(self.continued);
            out.push(if is_blank && has_end { cut } else { cut.incomplete() });
        }
        Ok(())
    }
}

fn is_blank(line: &[u8]) -> bool {
    line.iter().all(|byte| matches!(byte, b' ' | b'\t'))
}
