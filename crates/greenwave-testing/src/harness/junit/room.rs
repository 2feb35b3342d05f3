//! Limits the texts of all cases in the reports of a test.

use bytes::Bytes;

use crate::CaseReport;

/// The space that is left for the texts of all reports of a test. A short report can have long
/// ones, since each case repeats the name of its suite.
#[derive(Debug)]
pub(crate) struct TextRoom {
    pub(super) names: usize,
    pub(super) outputs: usize,
}

impl TextRoom {
    /// Maximum length of all names, classes and files of cases, in bytes.
    const NAMES_BYTES_MAX: usize = 64 << 20;
    /// Maximum length of the outputs of all cases, in bytes. Further ones are left out.
    const OUTPUTS_BYTES_MAX: usize = 32 << 20;

    pub(crate) fn new() -> Self {
        Self { names: Self::NAMES_BYTES_MAX, outputs: Self::OUTPUTS_BYTES_MAX }
    }

    /// # Errors
    /// A phrase that names the limit.
    pub(super) fn take_names(&mut self, length: usize) -> Result<(), String> {
        let left = self.names.checked_sub(length);
        self.names = left.ok_or(format!(
            "the names of the cases are longer than {} MiB in all",
            Self::NAMES_BYTES_MAX >> 20
        ))?;
        Ok(())
    }

    pub(super) fn take_output(&mut self, report: &mut CaseReport) {
        let length = report.output.as_ref().map_or(0, Bytes::len);
        match self.outputs.checked_sub(length) {
            Some(left) => self.outputs = left,
            None => report.output = None,
        }
    }
}
