//! Paragraphs of plain text: lines between blank ones. Unaware of what the lines hold.

use std::ops::Range;

use crate::cut::{Cut, Cuts};
use crate::layout::UnitKind;
use crate::splitter::line_ends::find_end;
use crate::splitter::{Cap, SplitError, Splitter};

/// Cuts at blank lines, which have nothing but spaces and tabs. Line ends are LF, CRLF and CR.
///
/// A paragraph begins with its first character that is not blank, and leaves when the blank line behind it is complete, without the end of
/// its last line; line ends inside it stay. The last one of a stream that does not end with a blank line is
/// [incomplete](crate::Unit::is_complete). The cap counts the blanks behind a line too; of a paragraph that they bring to it, the last
/// piece is empty.
#[derive(Debug, Default)]
pub struct Paragraphs {
    cap: Cap,
    /// The window starts with a paragraph; else it is empty.
    is_inside: bool,
    /// Where the current line starts, or what is left of it after a cut.
    line: usize,
    /// What was cut off the current line was not blank.
    line_has_text: bool,
    /// Where line ends are looked for next.
    next: usize,
    /// Where the last line that is not blank ends.
    end: usize,
    continued: bool,
}

impl Paragraphs {
    /// Paragraphs up to `cap`.
    #[must_use]
    pub fn new(cap: Cap) -> Self {
        Self { cap, ..Self::default() }
    }

    /// Goes to the paragraph that begins at or after `from`, if one does.
    fn begin(&mut self, window: &[u8], from: usize) -> Option<usize> {
        let is_text = |byte: &u8| !matches!(byte, b' ' | b'\t' | b'\n' | b'\r');
        let start = from + window[from..].iter().position(is_text)?;
        self.is_inside = true;
        (self.line, self.next, self.end) = (start, start, start);
        self.line_has_text = false;
        Some(start)
    }

    /// The line from `self.line` to `end` is complete. Returns whether it ends the paragraph.
    fn line_end(&mut self, window: &[u8], end: usize, after: usize) -> bool {
        let is_blank = !self.line_has_text && is_blank(&window[self.line..end]);
        if !is_blank {
            self.end = end;
        }
        (self.line, self.next, self.line_has_text) = (after, after, false);
        is_blank
    }

    /// Cuts what lies before `end` to the cap; returns where the rest starts.
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

    /// The end of the next line and where the one after it starts; the end alone where a CR may be followed by an LF.
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
            // What is left is one line at most, with a CR behind it or not.
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
