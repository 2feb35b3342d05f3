//! Named pools of units, and locks, that tasks hold while they run. Knows nothing of the tasks' order.

use std::collections::HashMap;
use std::sync::Arc;

/// The pools that exist: names with how many units each has.
///
/// ```
/// let resources = greenwave_scheduler::Resources::new([("workers", 4), ("database", 1), ("memory_mb", 4000)]);
/// assert_eq!(resources.limit("database"), Some(1));
/// ```
#[derive(Debug, Clone, Default)]
pub struct Resources {
    pub(crate) pools: Vec<(String, u32)>,
}

impl Resources {
    /// The pools with their units. A name given twice keeps the last number.
    pub fn new<N: Into<String>>(pools: impl IntoIterator<Item = (N, u32)>) -> Self {
        let mut all = Self::default();
        for (name, units) in pools {
            let name = name.into();
            all.pools.retain(|(other, _)| *other != name);
            all.pools.push((name, units));
        }
        all
    }

    /// How many units a pool has; `None` for a pool that does not exist.
    pub fn limit(&self, name: &str) -> Option<u32> {
        self.pools.iter().find(|(pool, _)| pool == name).map(|&(_, units)| units)
    }
}

/// What one stage of a task holds while it runs: acquired all at once or not at all, so that no two
/// tasks can hold half of what the other waits for. Clones are cheap, and recognised as the same.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Needs(Arc<Vec<Need>>);

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Need {
    Units(String, u32),
    Shared(String),
    Exclusive(String),
}

impl Needs {
    /// Nothing: the stage starts as soon as its dependencies are done.
    pub fn nothing() -> Self {
        Self::default()
    }

    /// So many units of a pool, in addition to what was said before.
    #[must_use]
    pub fn of(self, resource: impl Into<String>, units: u32) -> Self {
        self.and(Need::Units(resource.into(), units))
    }

    /// A lock that any number of stages may hold at once, if none holds it [`exclusive`](Self::exclusive)ly. Locks are not
    /// declared: one exists as soon as it is named. Their names are not those of pools.
    #[must_use]
    pub fn shared(self, lock: impl Into<String>) -> Self {
        self.and(Need::Shared(lock.into()))
    }

    /// A lock that nobody else may hold at the same time.
    #[must_use]
    pub fn exclusive(self, lock: impl Into<String>) -> Self {
        self.and(Need::Exclusive(lock.into()))
    }

    fn and(mut self, need: Need) -> Self {
        Arc::make_mut(&mut self.0).push(need);
        self
    }
}

/// How many stages may hold a lock at once. A lock is a pool of so many units, of which an exclusive holder takes all.
const SHARES: u32 = 1 << 30;

/// A pool's number, and units of it.
pub(crate) type Want = (usize, u32);

/// The pools by number: first those that were declared, then the locks as they are named.
#[derive(Debug, Clone)]
pub(crate) struct Pools {
    numbers: HashMap<String, usize>,
    locks: HashMap<String, usize>,
    /// How many units each has.
    pub(crate) limits: Vec<u32>,
}

impl Pools {
    pub(crate) fn new(resources: &Resources) -> Self {
        let numbers = resources.pools.iter().map(|(name, _)| name.clone()).zip(0..).collect();
        let limits = resources.pools.iter().map(|&(_, units)| units).collect();
        Self { numbers, locks: HashMap::new(), limits }
    }

    pub(crate) fn number(&self, name: &str) -> Option<usize> {
        self.numbers.get(name).copied()
    }

    /// What is wanted of each pool; the name of the first pool that does not exist or is too small otherwise, with what is wanted
    /// and what there is of it.
    pub(crate) fn resolve(&mut self, needs: &Needs) -> Result<Box<[Want]>, (String, u32, u32)> {
        let mut wants: Vec<Want> = Vec::new();
        for need in needs.0.iter() {
            let (number, units) = match need {
                Need::Units(_, 0) => continue,
                Need::Units(name, units) => {
                    (self.number(name).ok_or_else(|| (name.clone(), *units, 0))?, *units)
                }
                Need::Shared(name) => (self.lock(name), 1),
                Need::Exclusive(name) => (self.lock(name), SHARES),
            };
            let at = wants.iter().position(|want| want.0 == number);
            let wanted = at.map_or(0, |at| wants[at].1).saturating_add(units);
            match (need, at) {
                (Need::Units(name, _), _) if wanted > self.limits[number] => {
                    return Err((name.clone(), wanted, self.limits[number]));
                }
                // Who holds a lock both ways holds it exclusively.
                (_, Some(at)) => wants[at].1 = wanted.min(self.limits[number]),
                (_, None) => wants.push((number, wanted)),
            }
        }
        Ok(wants.into())
    }

    fn lock(&mut self, name: &str) -> usize {
        if let Some(&number) = self.locks.get(name) {
            return number;
        }
        self.limits.push(SHARES);
        self.locks.insert(name.to_owned(), self.limits.len() - 1);
        self.limits.len() - 1
    }
}
