//! Splits text into lines that end with LF, CRLF or CR.

use crate::cut::{Cut, Cuts};
use crate::layout::UnitKind;
use crate::splitter::line_ends::LineEnds;
use crate::splitter::{Cap, SplitError, Splitter};

/// Splits at LF, CRLF and CR. The unit is the line without its ending. A last line without an
/// ending is [incomplete](crate::Unit::is_complete).
///
/// A line that ends with CR is reported at once; an LF that follows is skipped.
#[derive(Debug, Default)]
pub struct Lines {
    cap: Cap,
    /// The last byte before the window was a CR that ended a line.
    after_cr: bool,
    /// The line before the window was split and continues.
    continued: bool,
}

impl Lines {
    /// Creates a splitter for lines of up to `cap`.
    #[must_use]
    pub fn new(cap: Cap) -> Self {
        Self { cap, ..Self::default() }
    }

    /// Reports the line `start..end`, in pieces if it exceeds the cap.
    #[cold]
    fn long_line(
        &mut self,
        window: &[u8],
        start: usize,
        end: usize,
        out: &mut Cuts,
    ) -> Result<(), SplitError> {
        let start = self.enforce(window, start, end, out)?;
        let continued = std::mem::take(&mut self.continued);
        out.push(Cut::new(UnitKind::Line, start..end).continued(continued));
        Ok(())
    }

    /// Splits `start..end` at the cap; returns the start of the last piece.
    fn enforce(
        &mut self,
        window: &[u8],
        start: usize,
        end: usize,
        out: &mut Cuts,
    ) -> Result<usize, SplitError> {
        if end.saturating_sub(start) <= self.cap.bytes_max() {
            return Ok(start);
        }
        let continued = &mut self.continued;
        self.cap.enforce(window, start..end, out, |piece| {
            Cut::new(UnitKind::Line, piece).incomplete().continued(std::mem::replace(continued, true))
        })
    }
}

impl Splitter for Lines {
    fn scan(&mut self, window: &[u8], fresh: usize, out: &mut Cuts) -> Result<usize, SplitError> {
        let mut start = 0;
        if std::mem::take(&mut self.after_cr) {
            debug_assert_eq!(fresh, 0, "no bytes are buffered after a line ending");
            start = usize::from(window.first() == Some(&b'\n'));
        }
        for end in LineEnds::new(window, fresh) {
            if end < start {
                continue; // the LF of a CRLF
            }
            if self.continued || end - start > self.cap.bytes_max() {
                self.long_line(window, start, end, out)?;
            } else {
                out.push_plain(UnitKind::Line, &(start..end));
            }
            start = end + 1;
            if window[end] == b'\r' {
                match window.get(start) {
                    Some(b'\n') => start += 1,
                    Some(_) => {}
                    None => self.after_cr = true,
                }
            }
        }
        self.enforce(window, start, window.len(), out)
    }

    fn finish(&mut self, window: &[u8], out: &mut Cuts) -> Result<(), SplitError> {
        if !window.is_empty() {
            out.push(Cut::new(UnitKind::Line, 0..window.len()).incomplete().continued(self.continued));
        }
        Ok(())
    }
}
