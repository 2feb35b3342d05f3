//! Tests of a merge that run one after another.

use std::collections::BTreeSet;

use greenwave_testing::{Outcome, Test};

use crate::context::RunContext;
use crate::error::FeatureError;
use crate::plan::FeatureId;
use crate::report::FeatureReport;

/// The tests of a feature, in their order, or a guard.
///
/// A test of a feature may need files that an earlier one has built, so they never run side by
/// side.
#[derive(Debug)]
pub(super) struct Chain {
    /// The feature whose tests these are. `None` for a guard.
    pub(super) owner: Option<FeatureId>,
    /// Place in the batch of the feature for which results are reported.
    pub(super) at: usize,
    /// The feature at this place.
    pub(super) reporter: FeatureId,
    pub(super) tests: Vec<Test>,
    /// Names of resources that no other chain uses at the same time.
    resources: BTreeSet<String>,
    /// Whether no other chain runs at the same time.
    is_alone: bool,
}

/// State of a chain.
#[derive(Debug)]
pub(super) enum ChainState {
    /// Its next test can start.
    Pending,
    /// A worker runs its tests.
    Running,
    /// The test before its next one failed.
    Failed,
    /// A test could not run.
    Broken(FeatureError),
    /// All its tests have passed, apart from failures that do not count.
    Done,
}

/// A chain, and how far it has come.
#[derive(Debug)]
pub(super) struct ChainProgress {
    pub(super) state: ChainState,
    /// Number of tests that have run.
    pub(super) next: usize,
    /// Counts of the tests that ran since they were taken last.
    pub(super) report: FeatureReport,
    /// Result of the last test, if it passed.
    pub(super) passed: Option<Outcome>,
}

impl Chain {
    /// Creates the chain of the tests of a feature.
    pub(super) fn of_feature(
        ctx: &RunContext,
        owner: FeatureId,
        (at, reporter): (usize, FeatureId),
    ) -> Option<Self> {
        let feature = ctx.feature(owner);
        let tests = ctx.tests_of(owner).to_vec();
        let of_feature = feature.resources.iter().filter(|(_, units)| **units > 0);
        let resources: BTreeSet<String> = of_feature.map(|(name, _)| name.clone()).collect();
        let chain = Self { owner: Some(owner), at, reporter, tests, resources, is_alone: false };
        (!chain.tests.is_empty()).then(|| chain.with_needs())
    }

    /// Creates the chain of a guard, which is reported for the first feature of the batch.
    pub(super) fn of_guard(test: Test, reporter: FeatureId) -> Self {
        let (tests, resources) = (vec![test], BTreeSet::new());
        Self { owner: None, at: 0, reporter, tests, resources, is_alone: false }.with_needs()
    }

    /// Adds the needs of the tests themselves.
    fn with_needs(mut self) -> Self {
        for test in &self.tests {
            let needed = test.needs.iter().filter(|(_, units)| **units > 0);
            self.resources.extend(needed.map(|(name, _)| name.clone()));
            self.is_alone |= !test.parallel_safe;
        }
        self
    }

    /// Returns whether the chain can run beside another one.
    pub(super) fn can_run_beside(&self, other: &Self) -> bool {
        !self.is_alone && !other.is_alone && self.resources.is_disjoint(&other.resources)
    }
}

impl Default for ChainProgress {
    fn default() -> Self {
        Self { state: ChainState::Pending, next: 0, report: FeatureReport::default(), passed: None }
    }
}
