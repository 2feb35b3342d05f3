//! The order in which a batch is tested, split and decided. Pure: the caller runs the tests.
//!
//! A group that fails is split where its test begins to fail. That is found by running this one
//! test on the joined files of the first features of the group, on several numbers of them at once.
//! These results decide nothing but where the group is split: a feature is merged only with a group
//! that was tested as a whole, and rejected only alone.

use std::collections::VecDeque;

/// The groups of a batch that are not decided, in the order of arrival.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Groups<T>(VecDeque<Vec<T>>);

impl<T> Groups<T> {
    /// Creates one group of a whole batch.
    pub(super) fn new(batch: Vec<T>) -> Self {
        let mut groups = Self(VecDeque::new());
        groups.put_back(vec![batch]);
        groups
    }

    /// Takes the group that is tested and decided next.
    pub(super) fn take(&mut self) -> Option<Vec<T>> {
        self.0.pop_front()
    }

    /// Puts the parts of a group back that was not decided, in their order.
    pub(super) fn put_back(&mut self, parts: Vec<Vec<T>>) {
        for part in parts.into_iter().rev().filter(|part| !part.is_empty()) {
            self.0.push_front(part);
        }
    }
}

/// Splits a group into halves.
pub(super) fn halves<T>(mut first: Vec<T>) -> Vec<Vec<T>> {
    let second = first.split_off(first.len().div_ceil(2));
    vec![first, second]
}

/// Finds the feature with which a test of a group begins to fail.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Bisection {
    /// Number of features with which the test is thought to pass.
    passes: usize,
    /// Number of features with which it fails.
    fails: usize,
    /// Number of features of the group.
    len: usize,
}

impl Bisection {
    /// Begins to look for the feature of a group of `len`, whose test fails with all of them. It
    /// does not run before the files of `passes` features exist.
    pub(super) fn new(passes: usize, len: usize) -> Self {
        Self { passes: passes.min(len.saturating_sub(1)), fails: len, len }
    }

    /// Returns numbers of features to run the test with next, at most `count` of them. They divide
    /// the range in equal parts. Empty once the feature is found, and for a group of two, which is
    /// split in the same way with either result.
    pub(super) fn probes(&self, count: usize) -> Vec<usize> {
        let (range, is_pair) = (self.fails - self.passes, self.len <= 2);
        let count = if is_pair { 0 } else { count.min(range - 1) };
        (1..=count).map(|at| self.passes + range * at / (count + 1)).collect()
    }

    /// Records results: numbers of features, and whether the test passed with them.
    pub(super) fn record(&mut self, results: &[(usize, bool)]) {
        let numbers = |wanted| results.iter().filter(move |(_, passed)| *passed == wanted).map(|(at, _)| *at);
        let inside = |at: &usize| (self.passes + 1..self.fails).contains(at);
        self.fails = numbers(false).filter(inside).min().unwrap_or(self.fails);
        self.passes = numbers(true).filter(|at| *at < self.fails).fold(self.passes, usize::max);
    }

    /// Splits the group: features with which the test passes, suspects, and the
    /// rest. Without results, into halves.
    pub(super) fn parts<T>(&self, mut features: Vec<T>) -> Vec<Vec<T>> {
        if self.passes == 0 && self.fails >= features.len() {
            return halves(features);
        }
        let rest = features.split_off(self.fails.min(features.len()));
        let suspects = features.split_off(self.passes.min(features.len()));
        vec![features, suspects, rest]
    }
}

#[cfg(test)]
mod tests;
