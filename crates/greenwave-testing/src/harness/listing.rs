//! The single tests in a command, and the context in which they are listed.

use std::collections::HashMap;
use std::path::Path;

use crate::{Environment, Outcome, Test};

/// The single tests in one test.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Listing {
    /// The test stays whole: it has no single tests, or they cannot run separately.
    Whole,
    /// The test is replaced by these.
    Single(Vec<Test>),
    /// The test stays whole, since its single tests could not be listed for this reason.
    Failed(String),
}

/// Everything that a [`Harness`](super::Harness) may use to list single tests.
#[derive(Debug)]
pub struct ListingContext<'a> {
    /// Absolute path of the project.
    pub project: &'a Path,
    /// Variables of the run.
    pub environment: &'a Environment,
    outcomes: HashMap<&'a str, Option<&'a Outcome>>,
}

impl<'a> ListingContext<'a> {
    /// Creates a context without outcomes.
    pub fn new(project: &'a Path, environment: &'a Environment) -> Self {
        Self { project, environment, outcomes: HashMap::new() }
    }

    /// Adds the outcomes of listing commands; `None` for a command that could not run.
    #[must_use]
    pub fn with(mut self, outcomes: impl IntoIterator<Item = (&'a Test, Option<&'a Outcome>)>) -> Self {
        self.outcomes.extend(outcomes.into_iter().map(|(test, outcome)| (test.name.as_str(), outcome)));
        self
    }

    /// Returns the outcome of a listing command by its name; the inner `None` if it could not run.
    pub fn outcome(&self, name: &str) -> Option<Option<&'a Outcome>> {
        self.outcomes.get(name).copied()
    }
}
