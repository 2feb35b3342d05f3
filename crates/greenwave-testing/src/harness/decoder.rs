//! Decoders of the machine-readable output that a harness asks its tool for.

use std::fmt::Debug;

use super::summary::CaseReport;

/// Turns the events that a tool prints into the text that it prints for people, while it runs, and
/// collects the results of single tests.
///
/// The text takes the place of the output: limits of length, displays and stored results see
/// nothing else. Input that is no event, such as messages of a compiler, must stay as it is.
pub trait OutputDecoder: Debug + Send {
    /// Takes the next part of the output, which may end within a line, and returns the text that
    /// is complete by now.
    fn decode(&mut self, block: &[u8]) -> Vec<u8>;

    /// Returns the rest of the text, and the results of all single tests.
    ///
    /// Called once, after the process has ended in any way.
    fn finish(&mut self) -> (Vec<u8>, Vec<CaseReport>);
}
