//! Which of several ready tasks goes first. Knows nothing of resources or execution.

use std::collections::HashMap;
use std::time::Duration;

use crate::{Graph, TaskId};

/// The order among tasks that could start now. Ties go in the order of adding.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Priority {
    /// The task with the longest chain of work behind it, itself included (the upward rank of
    /// Topcuoglu et al., HEFT, 2002): shortest makespan in practice.
    #[default]
    LongestPath,
    /// The task expected to take least time: earliest first results.
    ShortestFirst,
    /// The order of adding.
    FirstInFirstOut,
    /// Any order, the same for the same seed: finds out what depends on an order by chance.
    Shuffled(u64),
}

impl Priority {
    /// One number a task, highest first.
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

/// The output function of splitmix64 (<https://prng.di.unimi.it/splitmix64.c>).
fn mixed(z: u64) -> u64 {
    let z = z.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

/// How long things took in earlier runs, by key, and so how long they will probably take.
///
/// A key is `kind:name` (`feature:parser`). A key never seen is expected to take the median of its
/// kind, a kind never seen [`Durations::DEFAULT`]. One observation moves an estimate by at most a
/// factor of 4 before averaging, so that a single stall does not turn the order over.
#[derive(Debug, Clone, Default)]
pub struct Durations {
    seconds: HashMap<String, f64>,
    /// All of a kind, sorted, so that the median need not be looked for.
    kinds: HashMap<String, Vec<f64>>,
}

impl Durations {
    /// What is assumed where nothing is known.
    pub const DEFAULT: Duration = Duration::from_secs(1);

    /// The weight of the newest observation in the moving average.
    const NEWEST: f64 = 0.3;

    /// Takes note of a duration.
    pub fn observe(&mut self, key: &str, took: Duration) {
        let took = took.as_secs_f64();
        let known = self.seconds.get(key).copied();
        let next = known.map_or(took, |old| {
            let bounded = took.clamp(old / 4.0, (old * 4.0).max(1e-6));
            old + Self::NEWEST * (bounded - old)
        });
        self.set(key, next);
    }

    fn set(&mut self, key: &str, seconds: f64) {
        let of_kind = self.kinds.entry(kind_of(key).to_owned()).or_default();
        let place = |of_kind: &[f64], seconds: f64| of_kind.partition_point(|other| *other < seconds);
        if let Some(old) = self.seconds.insert(key.to_owned(), seconds) {
            of_kind.remove(place(of_kind, old));
        }
        of_kind.insert(place(of_kind, seconds), seconds);
    }

    /// The expected duration.
    pub fn estimate(&self, key: &str) -> Duration {
        let known = self.seconds.get(key).copied().or_else(|| self.median_of_kind(key));
        known.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok()).unwrap_or(Self::DEFAULT)
    }

    /// All keys with their estimates in seconds, in no order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, f64)> {
        self.seconds.iter().map(|(key, seconds)| (key.as_str(), *seconds))
    }

    fn median_of_kind(&self, key: &str) -> Option<f64> {
        let known = self.kinds.get(kind_of(key))?;
        known.get(known.len() / 2).copied()
    }
}

fn kind_of(key: &str) -> &str {
    key.split(':').next().unwrap_or(key)
}

impl<K: Into<String>> FromIterator<(K, f64)> for Durations {
    /// Estimates in seconds, as [`iter`](Durations::iter) gives them; what is no duration is left out.
    fn from_iter<I: IntoIterator<Item = (K, f64)>>(estimates: I) -> Self {
        let usable = |seconds: &f64| Duration::try_from_secs_f64(*seconds).is_ok();
        let mut all = Self::default();
        for (key, seconds) in estimates.into_iter().filter(|(_, seconds)| usable(seconds)) {
            all.set(&key.into(), seconds);
        }
        all
    }
}
