//! The priority of ready tasks, and estimates of durations.

use std::collections::HashMap;
use std::time::Duration;

use crate::{Graph, TaskId};

/// The order of ready tasks. Ties are in order of addition.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Priority {
    /// The task with the longest chain of work after it, including itself, goes first (the upward
    /// rank of HEFT; Topcuoglu et al., 2002). Gives the shortest makespan in practice.
    #[default]
    LongestPath,
    /// The task with the shortest expected duration goes first. Gives the earliest first results.
    ShortestFirst,
    /// Tasks go in order of addition.
    FirstInFirstOut,
    /// Tasks go in a random order that depends on the seed. Reveals dependencies on an accidental
    /// order.
    Shuffled(u64),
}

impl Priority {
    /// Returns the rank of each task, highest first.
    pub(crate) fn ranks<T>(self, graph: &Graph<T>, duration: impl Fn(TaskId) -> Duration) -> Vec<u64> {
        let nanos = |duration: Duration| u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        match self {
            Priority::LongestPath => graph.upward_ranks(duration).into_iter().map(nanos).collect(),
            Priority::ShortestFirst => graph.tasks().map(|task| u64::MAX - nanos(duration(task))).collect(),
            Priority::FirstInFirstOut => vec![0; graph.len()],
            Priority::Shuffled(seed) => {
                graph.tasks().map(|task| mixed(seed ^ mixed(task.index() as u64))).collect()
            }
        }
    }
}

/// The output function of SplitMix64 (<https://prng.di.unimi.it/splitmix64.c>).
fn mixed(z: u64) -> u64 {
    let z = z.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

/// Learns durations from earlier runs and estimates future ones.
///
/// A key has the form `kind:name`, such as `feature:parser`. The estimate of an unseen key is the
/// median of its kind; that of an unseen kind is [`Durations::DEFAULT`]. Each observation is
/// limited to a factor of 4 around the estimate before averaging, so that a single stall does not
/// upset the order.
#[derive(Debug, Clone, Default)]
pub struct Durations {
    seconds: HashMap<String, f64>,
    /// Durations by kind, sorted, for access to the median.
    kinds: HashMap<String, Vec<f64>>,
}

impl Durations {
    /// Estimate for unseen kinds.
    pub const DEFAULT: Duration = Duration::from_secs(1);

    /// Weight of the newest observation in the moving average.
    const NEWEST: f64 = 0.3;

    /// Records a duration.
    pub fn observe(&mut self, key: &str, took: Duration) {
        let took = took.as_secs_f64();
        let seen = self.seconds.get(key).copied();
        let next = seen.map_or(took, |old| {
            let bounded = took.clamp(old / 4.0, (old * 4.0).max(1e-6));
            old + Self::NEWEST * (bounded - old)
        });
        self.set(key, next);
    }

    fn set(&mut self, key: &str, seconds: f64) {
        let of_kind = self.kinds.entry(kind_of(key).to_owned()).or_default();
        let position = |of_kind: &[f64], seconds: f64| of_kind.partition_point(|other| *other < seconds);
        if let Some(old) = self.seconds.insert(key.to_owned(), seconds) {
            of_kind.remove(position(of_kind, old));
        }
        of_kind.insert(position(of_kind, seconds), seconds);
    }

    /// Returns the expected duration.
    pub fn estimate(&self, key: &str) -> Duration {
        let seen = self.seconds.get(key).copied().or_else(|| self.median_of_kind(key));
        seen.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok()).unwrap_or(Self::DEFAULT)
    }

    /// Returns all keys with their estimates in seconds, in no particular order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, f64)> {
        self.seconds.iter().map(|(key, seconds)| (key.as_str(), *seconds))
    }

    fn median_of_kind(&self, key: &str) -> Option<f64> {
        let seen = self.kinds.get(kind_of(key))?;
        seen.get(seen.len() / 2).copied()
    }
}

fn kind_of(key: &str) -> &str {
    key.split(':').next().unwrap_or(key)
}

impl<K: Into<String>> FromIterator<(K, f64)> for Durations {
    /// Collects estimates in seconds, as returned by [`iter`](Durations::iter). Invalid durations
    /// are skipped.
    fn from_iter<I: IntoIterator<Item = (K, f64)>>(estimates: I) -> Self {
        let usable = |seconds: &f64| Duration::try_from_secs_f64(*seconds).is_ok();
        let mut all = Self::default();
        for (key, seconds) in estimates.into_iter().filter(|(_, seconds)| usable(seconds)) {
            all.set(&key.into(), seconds);
        }
        all
    }
}
