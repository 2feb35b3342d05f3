//! Named pools of units that tasks hold while they run. Knows nothing of the tasks' order.

/// The pools that exist: names with how many units each has.
///
/// ```
/// let resources = greenwave_scheduler::Resources::new([("workers", 4), ("database", 1)]);
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

    /// The units wanted of each pool, in the pools' order; the name of the first pool that does not
    /// exist or is too small, with what there is of it, otherwise.
    pub(crate) fn resolve(&self, needs: &Needs) -> Result<Box<[u32]>, (String, u32, u32)> {
        let mut units = vec![0; self.pools.len()];
        for (name, wanted) in &needs.units {
            let at = self.pools.iter().position(|(pool, _)| pool == name);
            match at {
                Some(at) if units[at] + wanted <= self.pools[at].1 => units[at] += wanted,
                at => return Err((name.clone(), *wanted, at.map_or(0, |at| self.pools[at].1))),
            }
        }
        Ok(units.into())
    }
}

/// What one stage of a task holds while it runs: acquired all at once or not at all, so that no two
/// tasks can hold half of what the other waits for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Needs {
    pub(crate) units: Vec<(String, u32)>,
}

impl Needs {
    /// Nothing: the stage starts as soon as its dependencies are done.
    pub fn nothing() -> Self {
        Self::default()
    }

    /// So many units of a pool, in addition to what was said before.
    #[must_use]
    pub fn of(mut self, resource: impl Into<String>, units: u32) -> Self {
        self.units.push((resource.into(), units));
        self
    }
}
