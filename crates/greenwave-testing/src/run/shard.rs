//! Splits the tests of a project into parts for several machines.

use std::fmt;
use std::num::NonZeroU32;
use std::str::FromStr;
use std::time::Duration;

/// One of several parts of a project's tests.
///
/// Every machine computes the same parts from the same names and durations, so together they run
/// each test exactly once. Durations must therefore be the same on all machines: they come from a
/// file ([`Timings`](crate::Timings)), not from a machine's own statistics.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shard {
    /// The number of this part, from 1.
    number: NonZeroU32,
    /// The number of parts.
    count: NonZeroU32,
}

/// The error of a text that is not the number of a part.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("expected K/N with a part K from 1 to N, such as 1/4")]
pub struct InvalidShard;

impl Shard {
    /// Returns the indexes of the tests in this part, in order. `tests` holds the name and the
    /// expected duration of each test.
    ///
    /// Each test goes to the part with the lowest total, the longest tests first
    /// (Graham, "Bounds on Multiprocessing Timing Anomalies", 1969): the longest part takes at most
    /// 4/3 of the shortest possible time. A test without a duration is expected to take the median
    /// of the others.
    pub fn select(self, tests: &[(&str, Option<Duration>)]) -> Vec<usize> {
        let mut durations: Vec<Duration> = tests.iter().filter_map(|(_, duration)| *duration).collect();
        durations.sort_unstable();
        let median = durations.get(durations.len() / 2).copied().unwrap_or(Duration::from_secs(1));
        let mut order: Vec<(std::cmp::Reverse<Duration>, &str, usize)> = tests
            .iter()
            .enumerate()
            .map(|(at, (name, duration))| (std::cmp::Reverse(duration.unwrap_or(median)), *name, at))
            .collect();
        order.sort_unstable();
        // More parts than tests would only be empty.
        let parts = usize::try_from(self.count.get()).unwrap_or(usize::MAX).min(tests.len().max(1));
        // Ties go to the part with fewer tests, then to the first.
        let mut loads = std::collections::BinaryHeap::new();
        loads.extend((0..parts).map(|part| std::cmp::Reverse((Duration::ZERO, 0_usize, part))));
        let own = usize::try_from(self.number.get() - 1).unwrap_or(usize::MAX);
        let mut selected = Vec::new();
        for (std::cmp::Reverse(duration), _, at) in order {
            let Some(std::cmp::Reverse((load, tests, part))) = loads.pop() else { break };
            loads.push(std::cmp::Reverse((load.saturating_add(duration), tests + 1, part)));
            if part == own {
                selected.push(at);
            }
        }
        selected.sort_unstable();
        selected
    }
}

impl FromStr for Shard {
    type Err = InvalidShard;

    fn from_str(text: &str) -> Result<Self, InvalidShard> {
        let (number, count) = text.split_once('/').ok_or(InvalidShard)?;
        let number: NonZeroU32 = number.parse().map_err(|_| InvalidShard)?;
        let count: NonZeroU32 = count.parse().map_err(|_| InvalidShard)?;
        if number <= count { Ok(Self { number, count }) } else { Err(InvalidShard) }
    }
}

impl fmt::Display for Shard {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}/{}", self.number, self.count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all_parts(count: u32, tests: &[(&str, Option<Duration>)]) -> Vec<Vec<usize>> {
        (1..=count)
            .map(|number| format!("{number}/{count}").parse::<Shard>().unwrap().select(tests))
            .collect()
    }

    #[test]
    fn every_test_is_in_exactly_one_part() {
        let names: Vec<String> = (0..23).map(|at| format!("test {at}")).collect();
        let duration = |at: usize| (!at.is_multiple_of(3)).then(|| Duration::from_millis((at * at) as u64));
        let tests: Vec<_> =
            names.iter().enumerate().map(|(at, name)| (name.as_str(), duration(at))).collect();
        for count in [1, 2, 3, 7, 23, 40] {
            let mut all = all_parts(count, &tests).concat();
            all.sort_unstable();
            assert_eq!(all, (0..23).collect::<Vec<_>>(), "{count} parts");
        }
        let reversed: Vec<_> = tests.iter().rev().copied().collect();
        let names = |part: &[usize], of: &[(&str, _)]| {
            let mut names: Vec<String> = part.iter().map(|at| of[*at].0.to_owned()).collect();
            names.sort_unstable();
            names
        };
        for (one, other) in all_parts(4, &tests).iter().zip(all_parts(4, &reversed)) {
            assert_eq!(
                names(one, &tests),
                names(&other, &reversed),
                "the order of the tests must not matter"
            );
        }
    }

    #[test]
    fn parts_take_equally_long() {
        let seconds = |seconds| Some(Duration::from_secs(seconds));
        let tests =
            [("a", seconds(4)), ("b", seconds(1)), ("c", seconds(1)), ("d", seconds(1)), ("e", seconds(1))];
        assert_eq!(all_parts(2, &tests), [vec![0], vec![1, 2, 3, 4]]);
        let unknown = [("a", None), ("b", None), ("c", None), ("d", None)];
        assert_eq!(all_parts(2, &unknown), [vec![0, 2], vec![1, 3]]);
        assert_eq!(all_parts(2, &[]), [Vec::<usize>::new(), Vec::new()]);
        let long = [("a", Some(Duration::MAX)), ("b", Some(Duration::MAX)), ("c", Some(Duration::MAX))];
        assert_eq!(all_parts(2, &long).concat().len(), 3);
    }

    #[test]
    fn numbers_are_checked() {
        for text in ["", "1", "0/2", "3/2", "1/0", "-1/2", "1/2/3", "a/b", "1/4294967296"] {
            assert_eq!(text.parse::<Shard>(), Err(InvalidShard), "{text}");
        }
        assert_eq!("2/4".parse::<Shard>().unwrap().to_string(), "2/4");
        let last: Shard = "4294967295/4294967295".parse().unwrap();
        assert_eq!(
            last.select(&[("a", Some(Duration::MAX)), ("b", Some(Duration::MAX))]),
            Vec::<usize>::new()
        );
    }
}
