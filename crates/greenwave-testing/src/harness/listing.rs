//! The single tests in a command, and what is needed to list them.

use std::collections::HashMap;
use std::path::Path;

use super::discovery::{Discovery, DiscoveryNote};
use super::registry::Harnesses;
use crate::{Environment, Error, Outcome, Test};

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

    /// Adds the outcomes of listing commands; `None` for those that could not run.
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

impl Discovery {
    /// Returns the commands whose output [`split`](Self::split) needs, to be run as a
    /// [`Suite`](crate::Suite) before it.
    pub fn listing_commands(&self, harnesses: &Harnesses, context: &ListingContext<'_>) -> Vec<Test> {
        let commands = |test: &Test| harnesses.get(&test.harness).listing_commands(test, context);
        self.tests.iter().flat_map(commands).collect()
    }

    /// Replaces each test by the single tests in it, as its harness lists them.
    ///
    /// A test that cannot be listed stays whole, with a note.
    ///
    /// # Errors
    /// [`Error::Discover`] if a harness cannot list its tests at all; the discovery is then unchanged.
    pub async fn split(&mut self, harnesses: &Harnesses, context: &ListingContext<'_>) -> Result<(), Error> {
        let mut listings: Vec<Listing> = vec![Listing::Whole; self.tests.len()];
        for harness in harnesses.iter() {
            let is_own = |test: &Test| test.harness.as_str() == harness.name();
            let (ids, own): (Vec<usize>, Vec<&Test>) =
                self.tests.iter().enumerate().filter(|(_, test)| is_own(test)).unzip();
            for (id, listing) in ids.into_iter().zip(harness.list(&own, context).await?) {
                listings[id] = listing;
            }
        }
        for (test, listing) in std::mem::take(&mut self.tests).into_iter().zip(listings) {
            match listing {
                Listing::Whole => self.tests.push(test),
                Listing::Single(single) => self.tests.extend(single),
                Listing::Failed(problem) => {
                    self.notes.push(DiscoveryNote::ListingFailed { test: test.name.clone(), problem });
                    self.tests.push(test);
                }
            }
        }
        Ok(())
    }
}
