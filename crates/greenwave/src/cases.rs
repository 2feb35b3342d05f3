//! Single tests that an output lists, and tests that vanish between two outputs.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::LazyLock;

use greenwave_testing::Outcome;
use regex_lite::Regex;

use crate::red;

/// A line with the result of a single test: of Rust's harness, of pytest and Go with `-v`, and TAP.
static CASE: LazyLock<Regex> = LazyLock::new(|| {
    let pattern = r"(?m)^\s*(?:test (\S.*?) \.\.\. (ok|FAILED|ignored)\b.*|(\S+::\S.*?) (PASSED|FAILED|SKIPPED|XFAIL|XPASS|ERROR)\b.*|--- (PASS|FAIL|SKIP): (\S+).*|(not ok|ok) [0-9]+ - (.+?)(?: # (SKIP|TO[D]O).*)?)$";
    Regex::new(pattern).expect("the pattern is a constant, and tests compile it")
});
/// The line of a documentation test of Rust, which changes when lines are added above.
static LINE: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(r" \(line [0-9]+\)").expect("the pattern is a constant, and tests compile it")
});

/// The single tests that the tests of a feature ran before the code existed, and in the last
/// attempt. By the index of the test in the feature.
#[derive(Debug, Clone, Default)]
pub(crate) struct CaseLog {
    red: BTreeMap<usize, Cases>,
    last: BTreeMap<usize, Cases>,
}

impl CaseLog {
    /// Records the single tests that a test command ran in a phase.
    pub(crate) fn record(&mut self, phase: &str, index: usize, outcome: &Outcome) {
        let cases = if phase == "red" { &mut self.red } else { &mut self.last };
        cases.insert(index, Cases::of(outcome));
    }

    /// Returns which single test ran before the code existed and not in the last attempt.
    pub(crate) fn missing(&self) -> Option<String> {
        self.last.iter().find_map(|(index, last)| self.red.get(index)?.missing_in(last))
    }
}

/// The single tests that ran.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Cases {
    passed: BTreeSet<String>,
    failed: BTreeSet<String>,
    /// Number of tests that passed, if the runner counts them.
    count: Option<u32>,
}

impl Cases {
    /// Reads the single tests of an outcome.
    pub(crate) fn of(outcome: &Outcome) -> Self {
        let mut cases = Self::read(&red::plain_output(outcome));
        cases.count = outcome.count.map(|count| count.passed);
        cases
    }

    fn read(output: &str) -> Self {
        let mut cases = Self::default();
        for found in CASE.captures_iter(output) {
            let group = |number: usize| found.get(number).map(|group| group.as_str());
            let name = group(1).or(group(3)).or(group(6)).or(group(8)).unwrap_or_default();
            let name = LINE.replace(name.trim_end_matches(" - should panic"), "").into_owned();
            let result = group(2).or(group(4)).or(group(5)).or(group(7)).unwrap_or_default();
            match (result, group(9)) {
                ("ok" | "PASSED" | "PASS" | "XPASS", None) => drop(cases.passed.insert(name)),
                ("FAILED" | "ERROR" | "FAIL" | "not ok", None) => drop(cases.failed.insert(name)),
                _ => {}
            }
        }
        cases
    }

    /// Returns a test that ran here and did not pass in a later, passing outcome of the same
    /// command.
    pub(crate) fn missing_in(&self, later: &Self) -> Option<String> {
        let ran = self.passed.union(&self.failed);
        // A long output lists only some tests.
        let is_complete = later.count.is_none_or(|count| count as usize <= later.passed.len());
        let missing = ran.into_iter().find(|name| !later.passed.contains(*name));
        if let Some(name) = missing.filter(|_| is_complete && !later.passed.is_empty()) {
            return Some(format!("`{name}` no longer runs"));
        }
        match (self.count, later.count) {
            (Some(before), Some(now)) if now < before => Some(format!("only {now} of {before} tests run")),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cases(output: &str, count: Option<u32>) -> Cases {
        Cases { count, ..Cases::read(output) }
    }

    #[test]
    fn outputs_of_several_runners_list_their_tests() {
        let rust =
            cases("test a::b ... ok\ntest c - should panic ... FAILED\ntest d ... ignored, slow\n", None);
        assert_eq!(rust.passed, ["a::b".to_owned()].into());
        assert_eq!(rust.failed, ["c".to_owned()].into());
        let doc = cases("test src/lib.rs - add (line 5) ... ok\n", None);
        assert_eq!(doc.passed, ["src/lib.rs - add".to_owned()].into());
        let pytest = cases("tests/t.py::test_a PASSED  [ 50%]\ntests/t.py::test_b SKIPPED (x)\n", None);
        assert_eq!(pytest.passed, ["tests/t.py::test_a".to_owned()].into());
        let go = cases("=== RUN   TestA\n--- PASS: TestA (0.00s)\n    --- FAIL: TestA/sub (0.00s)\n", None);
        assert_eq!((go.passed.len(), go.failed.len()), (1, 1));
        let tap = cases("ok 1 - a\nnot ok 2 - b\nok 3 - c # SKIP\n", None);
        assert_eq!((tap.passed.len(), tap.failed.len()), (1, 1));
    }

    #[test]
    fn a_test_that_vanishes_or_is_skipped_is_missing() {
        let before = cases("test a ... ok\ntest b ... FAILED\n", Some(1));
        assert_eq!(before.missing_in(&cases("test a ... ok\ntest b ... ok\n", Some(2))), None);
        assert_eq!(
            before.missing_in(&cases("test b ... ok\n", Some(1))).as_deref(),
            Some("`a` no longer runs")
        );
        let ignored = cases("test a ... ignored\ntest b ... ok\n", Some(1));
        assert_eq!(before.missing_in(&ignored).as_deref(), Some("`a` no longer runs"));
    }

    #[test]
    fn counts_are_compared_where_there_are_no_names() {
        let before = cases("5 passed in 0.01s", Some(5));
        assert_eq!(before.missing_in(&cases("", Some(3))).as_deref(), Some("only 3 of 5 tests run"));
        assert_eq!(before.missing_in(&cases("", Some(6))), None);
        assert_eq!(before.missing_in(&cases("", None)), None);
        // The middle of a long output is omitted.
        let named = cases("test a ... ok\n", Some(1));
        assert_eq!(named.missing_in(&cases("test z ... ok\n", Some(500))), None);
    }
}
