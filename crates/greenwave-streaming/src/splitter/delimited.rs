//! Splits a stream into records between delimiters.

use memchr::memmem::Finder;

use crate::cut::{Cut, Cuts};
use crate::layout::UnitKind;
use crate::splitter::{Cap, SplitError, Splitter};

/// Splits at a delimiter of any length. The unit is the record without the delimiter. A last record
/// without a delimiter is [incomplete](crate::Unit::is_complete). Adjacent delimiters enclose an
/// empty record.
#[derive(Debug)]
pub struct Delimited {
    cap: Cap,
    finder: Finder<'static>,
    continued: bool,
}

impl Delimited {
    /// Creates a splitter for records of up to `cap`. With an empty delimiter, the whole stream is
    /// one record.
    #[must_use]
    pub fn new(delimiter: &[u8], cap: Cap) -> Self {
        Self { cap, finder: Finder::new(delimiter).into_owned(), continued: false }
    }

    fn enforce(
        &mut self,
        window: &[u8],
        start: usize,
        end: usize,
        out: &mut Cuts,
    ) -> Result<usize, SplitError> {
        let continued = &mut self.continued;
        self.cap.enforce(window, start..end.max(start), out, |piece| {
            Cut::new(UnitKind::Record, piece).incomplete().continued(std::mem::replace(continued, true))
        })
    }
}

impl Splitter for Delimited {
    fn scan(&mut self, window: &[u8], fresh: usize, out: &mut Cuts) -> Result<usize, SplitError> {
        let width = self.finder.needle().len();
        let mut start = 0;
        // A delimiter may start before the fresh bytes.
        let mut from = fresh.saturating_sub(width.saturating_sub(1));
        while let Some(i) = self.finder.find(&window[from..]).filter(|_| width > 0) {
            let end = from + i;
            start = self.enforce(window, start, end, out)?;
            let continued = std::mem::take(&mut self.continued);
            out.push(Cut::new(UnitKind::Record, start..end).continued(continued));
            start = end + width;
            from = start;
        }
        // The last bytes may be the start of a delimiter.
        self.enforce(window, start, (window.len() + 1).saturating_sub(width.max(1)), out)
    }

    fn finish(&mut self, window: &[u8], out: &mut Cuts) -> Result<(), SplitError> {
        let start = self.enforce(window, 0, window.len(), out)?;
        if start < window.len() {
            out.push(Cut::new(UnitKind::Record, start..window.len()).incomplete().continued(self.continued));
        }
        Ok(())
    }
}
