//! The index of a test in its suite.

use std::fmt;

/// The index of a test in the list that a [`Suite`](crate::Suite) was opened with, from 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TestId(usize);

impl TestId {
    /// Creates the id of the test at an index of the suite's list.
    pub fn new(index: usize) -> Self {
        Self(index)
    }

    /// Returns the index in the suite's list.
    pub fn index(self) -> usize {
        self.0
    }
}

impl fmt::Display for TestId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(formatter)
    }
}
