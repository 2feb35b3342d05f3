//! Plans which tests share a process.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::registry::Harnesses;
use crate::{HarnessName, Test};

/// Everything that tests in one process have in common.
#[derive(Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
struct BatchKey<'t> {
    harness: &'t HarnessName,
    command: &'t [String],
    directory: &'t Path,
    inputs: &'t [String],
    directories: &'t [PathBuf],
    outputs: &'t [String],
    servers: &'t [String],
    env: &'t [String],
    set: &'t BTreeMap<String, String>,
}

/// Least expected work of a process; with less, starting a second one does not pay.
const WORK_MIN: Duration = Duration::from_millis(200);

/// Groups tests into batches of similar expected duration; tests that cannot share a process stay
/// alone.
///
/// Uses the rule of the longest processing time first: R. L. Graham, "Bounds on multiprocessing
/// timing anomalies", SIAM J. Appl. Math. 17 (1969). `expected` returns `None` for a test without
/// history.
pub(crate) fn plan<I: Copy + Ord>(
    harnesses: &Harnesses,
    tests: &[(I, &Test)],
    expected: impl Fn(I) -> Option<Duration>,
    workers: u32,
) -> Vec<Vec<I>> {
    let mut groups: BTreeMap<BatchKey<'_>, Vec<I>> = BTreeMap::new();
    let mut batches = Vec::new();
    for (id, test) in tests {
        match key(harnesses, test) {
            Some(key) => groups.entry(key).or_default().push(*id),
            None => batches.push(vec![*id]),
        }
    }
    for group in groups.into_values() {
        batches.extend(spread(group, &expected, workers));
    }
    batches.iter_mut().for_each(|batch| batch.sort_unstable());
    batches.sort_unstable();
    batches
}

/// Distributes a group over as many processes as workers and work allow.
fn spread<I: Copy + Ord>(
    mut group: Vec<I>,
    expected: &impl Fn(I) -> Option<Duration>,
    workers: u32,
) -> Vec<Vec<I>> {
    let total: Option<Duration> = group.iter().map(|id| expected(*id)).sum();
    let worthwhile = total.map_or(usize::MAX, |total| {
        usize::try_from(total.as_nanos().div_ceil(WORK_MIN.as_nanos())).unwrap_or(usize::MAX).max(1)
    });
    let expected = |id: I| expected(id).unwrap_or_default();
    group.sort_by_key(|id| std::cmp::Reverse(expected(*id)));
    let count = group.len().min(workers.max(1) as usize).min(worthwhile);
    let mut bins: Vec<(Duration, Vec<I>)> = vec![(Duration::ZERO, Vec::new()); count];
    for id in group {
        // Bins of equal duration are filled by number of tests.
        if let Some(shortest) = bins.iter_mut().min_by_key(|(length, bin)| (*length, bin.len())) {
            shortest.0 += expected(id);
            shortest.1.push(id);
        }
    }
    bins.into_iter().map(|(_, bin)| bin).filter(|bin| !bin.is_empty()).collect()
}

/// Returns whether two tests can run in one process.
pub(crate) fn can_share(harnesses: &Harnesses, one: &Test, other: &Test) -> bool {
    let (one, other) = (key(harnesses, one), key(harnesses, other));
    one.is_some() && one == other
}

fn key<'t>(harnesses: &Harnesses, test: &'t Test) -> Option<BatchKey<'t>> {
    let can_share = test.parallel_safe && test.needs.is_empty() && test.retries == 0;
    let (_, command) = test.command.split_last().filter(|_| can_share)?;
    harnesses.get(&test.harness).batch(test)?;
    Some(BatchKey {
        harness: &test.harness,
        command,
        directory: &test.directory,
        inputs: &test.inputs,
        directories: &test.directories,
        outputs: &test.outputs,
        servers: &test.servers,
        env: &test.env,
        set: &test.set,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_tests_that_are_alike_share_a_process() {
        let pytest = |file: &str| Test {
            harness: HarnessName::new("pytest"),
            ..Test::new(file, ["python3", "-m", "pytest", file])
        };
        let tests = [
            pytest("a.py"),
            pytest("b.py"),
            Test { parallel_safe: false, ..pytest("c.py") },
            Test::new("d", ["true"]),
            pytest("e.py"),
            Test { env: vec!["X".to_owned()], ..pytest("f.py") },
        ];
        let harnesses = Harnesses::builtin();
        let all: Vec<(usize, &Test)> = tests.iter().enumerate().collect();
        let long = |at: usize| Some(Duration::from_secs(if at == 4 { 3 } else { 1 }));
        assert_eq!(plan(&harnesses, &all, long, 2), [vec![0, 1], vec![2], vec![3], vec![4], vec![5]]);
        // Short tests share one process; tests without history are spread over the workers.
        let alike = [all[0], all[1], all[4]];
        assert_eq!(plan(&harnesses, &alike, |_| Some(Duration::ZERO), 2), [vec![0, 1, 4]]);
        assert_eq!(plan(&harnesses, &alike, |_| None, 2), [vec![0, 4], vec![1]]);
    }
}
