//! Named resource pools and locks, which stages hold while they run.

use std::collections::HashMap;
use std::sync::Arc;

/// The resource pools of a run: names and numbers of units.
///
/// ```
/// use greenwave_scheduler::Resources;
///
/// let resources = Resources::new([("workers", 4), ("database", 1), ("memory_mb", 4000)]);
/// assert_eq!(resources.limit("database"), Some(1));
/// ```
#[derive(Debug, Clone, Default)]
pub struct Resources {
    pub(crate) pools: Vec<(String, u32)>,
}

impl Resources {
    /// Creates pools. If a name is repeated, the last number of units counts.
    pub fn new<N: Into<String>>(pools: impl IntoIterator<Item = (N, u32)>) -> Self {
        let mut all = Self::default();
        for (name, units) in pools {
            let name = name.into();
            all.pools.retain(|(other, _)| *other != name);
            all.pools.push((name, units));
        }
        all
    }

    /// Returns the number of units of a pool, or `None` if it does not exist.
    pub fn limit(&self, name: &str) -> Option<u32> {
        self.pools.iter().find(|(pool, _)| pool == name).map(|&(_, units)| units)
    }
}

/// The resources that one stage holds while it runs. They are acquired all at once, so that tasks
/// cannot deadlock on each other's resources. Clones are cheap.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Needs(Arc<Vec<Need>>);

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Need {
    Units(String, u32),
    Shared(String),
    Exclusive(String),
    NoTaskSlot,
    Background,
}

impl Needs {
    /// Needs nothing: the stage starts as soon as the task's dependencies are done.
    pub fn nothing() -> Self {
        Self::default()
    }

    /// Adds units of a pool.
    #[must_use]
    pub fn of(self, resource: impl Into<String>, units: u32) -> Self {
        self.and(Need::Units(resource.into(), units))
    }

    /// Adds a lock that stages may share, unless one holds it [exclusively](Self::exclusive). Locks
    /// need no declaration. Their names are separate from those of pools.
    #[must_use]
    pub fn shared(self, lock: impl Into<String>) -> Self {
        self.and(Need::Shared(lock.into()))
    }

    /// Adds a lock that no other stage may hold at the same time.
    #[must_use]
    pub fn exclusive(self, lock: impl Into<String>) -> Self {
        self.and(Need::Exclusive(lock.into()))
    }

    /// Runs the stage outside of [`Limits::tasks_max`](crate::Limits::tasks_max). A task in
    /// progress gives its slot back as soon as it has a next stage of this kind, and acquires one
    /// again for a later stage of another kind. For stages in which a task only waits.
    #[must_use]
    pub fn without_task_slot(self) -> Self {
        self.and(Need::NoTaskSlot)
    }

    /// Counts the stage as overtaking only stages that lack units which it takes, see
    /// [`Limits::overtakes_max`](crate::Limits::overtakes_max). For stages of low rank that use
    /// what others leave: many short ones, one after another, would otherwise reserve resources for
    /// a stage that waits for something else.
    #[must_use]
    pub fn in_background(self) -> Self {
        self.and(Need::Background)
    }

    /// Returns whether the stage is [in the background](Self::in_background).
    pub(crate) fn is_background(&self) -> bool {
        self.0.contains(&Need::Background)
    }

    /// Returns whether the stage needs one of the slots under `tasks_max`.
    pub(crate) fn has_task_slot(&self) -> bool {
        !self.0.contains(&Need::NoTaskSlot)
    }

    fn and(mut self, need: Need) -> Self {
        Arc::make_mut(&mut self.0).push(need);
        self
    }
}

/// Maximum number of stages that share a lock. A lock is a pool with this many units, and an
/// exclusive holder takes all of them.
const SHARES: u32 = 1 << 30;

/// Index of a pool and number of units.
pub(crate) type UnitsNeeded = (usize, u32);

/// The pools by index: declared pools first, then locks in order of first use.
#[derive(Debug, Clone)]
pub(crate) struct ResourcePools {
    numbers: HashMap<String, usize>,
    locks: HashMap<String, usize>,
    /// Number of units of each pool.
    pub(crate) limits: Vec<u32>,
}

impl ResourcePools {
    pub(crate) fn new(resources: &Resources) -> Self {
        let numbers = resources.pools.iter().map(|(name, _)| name.clone()).zip(0..).collect();
        let limits = resources.pools.iter().map(|&(_, units)| units).collect();
        Self { numbers, locks: HashMap::new(), limits }
    }

    pub(crate) fn number(&self, name: &str) -> Option<usize> {
        self.numbers.get(name).copied()
    }

    /// Resolves needs to units of pools. The error is the first pool that does not exist or is too
    /// small, with the units needed and available.
    pub(crate) fn resolve(&mut self, needs: &Needs) -> Result<Box<[UnitsNeeded]>, (String, u32, u32)> {
        let mut wants: Vec<UnitsNeeded> = Vec::new();
        for need in needs.0.iter() {
            let (number, units) = match need {
                Need::Units(_, 0) | Need::NoTaskSlot | Need::Background => continue,
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
                // A stage that needs a lock both shared and exclusively holds it exclusively.
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
