//! Counts the features of a run by their state, to decide whether merges can wait.

use crate::dependencies::Dependencies;
use crate::plan::FeatureId;

/// State of a feature, as far as merges depend on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Standing {
    /// Not started.
    Unstarted,
    /// At work, or between two stages.
    Working,
    /// Waits for its agent, and occupies one of the slots of features in progress.
    Paused,
    /// Waits for the user.
    Blocked,
    /// Waits for its merge.
    Queued,
    /// Part of the project.
    Green,
    /// Ended without being merged.
    Failed,
}

/// The standing of each feature, with counts that are updated at each change, so that a plan of
/// thousands of features costs no more per change than its dependencies.
#[derive(Debug)]
pub(super) struct Standings {
    standings: Vec<Standing>,
    dependants: Vec<Vec<FeatureId>>,
    /// Number of direct dependencies that are not green, by feature.
    not_green: Vec<u32>,
    /// Number of direct dependencies that are neither green nor queued, by feature.
    not_queued: Vec<u32>,
    slots: usize,
    counts: Counts,
}

#[derive(Debug, Default)]
struct Counts {
    working: usize,
    paused: usize,
    queued: usize,
    /// Features that can start, apart from slots and resources.
    startable: usize,
    /// Features that wait for nothing but merges.
    waits_for_merge: usize,
}

impl Standings {
    /// Creates the standings of features that have not started. At most `slots` of them are in
    /// progress at once.
    pub(super) fn new(dependencies: &Dependencies, count: usize, slots: usize) -> Self {
        let ids = || (0..count).map(FeatureId::from_index);
        let mut dependants = vec![Vec::new(); count];
        for id in ids() {
            for other in dependencies.direct(id) {
                dependants[other.index()].push(id);
            }
        }
        let direct: Vec<u32> = ids().map(|id| dependencies.direct(id).len() as u32).collect();
        let mut standings = Self {
            standings: vec![Standing::Unstarted; count],
            dependants,
            not_green: direct.clone(),
            not_queued: direct,
            slots,
            counts: Counts::default(),
        };
        ids().for_each(|id| standings.count(id, 1));
        standings
    }

    /// Changes the standing of a feature.
    pub(super) fn set(&mut self, id: FeatureId, now: Standing) {
        let before = self.standings[id.index()];
        if before == now {
            return;
        }
        self.count(id, -1);
        self.standings[id.index()] = now;
        self.count(id, 1);
        let is_green = |standing| standing == Standing::Green;
        let is_queued = |standing| matches!(standing, Standing::Green | Standing::Queued);
        let change = |was: bool, is: bool| i32::from(was) - i32::from(is);
        let green = change(is_green(before), is_green(now));
        let queued = change(is_queued(before), is_queued(now));
        if green == 0 && queued == 0 {
            return;
        }
        for at in 0..self.dependants[id.index()].len() {
            let dependant = self.dependants[id.index()][at];
            self.count(dependant, -1);
            let (not_green, not_queued) =
                (&mut self.not_green[dependant.index()], &mut self.not_queued[dependant.index()]);
            *not_green = not_green.saturating_add_signed(green);
            *not_queued = not_queued.saturating_add_signed(queued);
            self.count(dependant, 1);
        }
    }

    /// Returns whether some feature cannot continue before a queued one is merged, or whether no
    /// feature can continue without a merge.
    pub(super) fn need_merge(&self) -> bool {
        let Counts { working, paused, startable, waits_for_merge, .. } = self.counts;
        waits_for_merge > 0 || (working == 0 && (startable == 0 || paused >= self.slots))
    }

    /// Returns whether no feature can start, and none is under way except those that wait for the
    /// user. `is_closed` says that none starts any more.
    pub(super) fn is_idle(&self, is_closed: bool) -> bool {
        let Counts { working, paused, queued, startable, .. } = self.counts;
        working + paused + queued == 0 && (is_closed || startable == 0)
    }

    /// Adds a feature to the counts, or removes it.
    fn count(&mut self, id: FeatureId, by: isize) {
        let at = id.index();
        let count = match self.standings[at] {
            Standing::Working => &mut self.counts.working,
            Standing::Paused => &mut self.counts.paused,
            Standing::Queued => &mut self.counts.queued,
            Standing::Unstarted if self.not_green[at] == 0 => &mut self.counts.startable,
            Standing::Unstarted if self.not_queued[at] == 0 => &mut self.counts.waits_for_merge,
            _ => return,
        };
        *count = count.saturating_add_signed(by);
    }
}

#[cfg(test)]
mod tests {
    use greenwave_scheduler::GraphBuilder;

    use super::*;

    fn standings(after: &[(&str, &[&str])], slots: usize) -> Standings {
        let mut graph = GraphBuilder::new();
        for (at, (id, after)) in after.iter().enumerate() {
            graph.task(*id, FeatureId::from_index(at));
            for after in *after {
                graph.depends_on(*id, *after);
            }
        }
        Standings::new(&Dependencies::of(&graph.build().unwrap()), after.len(), slots)
    }

    #[test]
    fn merges_wait_while_features_work() {
        let id = FeatureId::from_index;
        let mut standings = standings(&[("a", &[]), ("b", &[]), ("c", &[])], 2);
        standings.set(id(0), Standing::Queued);
        assert!(!standings.need_merge(), "b and c can start");
        standings.set(id(1), Standing::Working);
        standings.set(id(2), Standing::Failed);
        assert!(!standings.need_merge(), "b works");
        standings.set(id(1), Standing::Queued);
        assert!(standings.need_merge(), "nothing else can continue");
    }

    #[test]
    fn a_feature_that_waits_for_queued_ones_makes_merges_due() {
        let id = FeatureId::from_index;
        let mut standings = standings(&[("a", &[]), ("b", &[]), ("c", &["a", "b"]), ("d", &[])], 4);
        standings.set(id(0), Standing::Queued);
        assert!(!standings.need_merge(), "c waits for b as well");
        standings.set(id(1), Standing::Queued);
        assert!(standings.need_merge(), "c waits for merges only");
        standings.set(id(0), Standing::Green);
        assert!(standings.need_merge(), "c waits for the merge of b");
        standings.set(id(1), Standing::Green);
        assert!(!standings.need_merge(), "c can start");
        standings.set(id(1), Standing::Working);
        standings.set(id(1), Standing::Queued);
        assert!(standings.need_merge());
    }

    #[test]
    fn a_run_is_idle_once_all_features_have_ended_or_wait_for_the_user() {
        let id = FeatureId::from_index;
        let mut standings = standings(&[("a", &[]), ("b", &[]), ("c", &["a"])], 2);
        standings.set(id(0), Standing::Blocked);
        assert!(!standings.is_idle(false), "b can start");
        assert!(standings.is_idle(true), "nothing starts any more");
        for standing in [Standing::Working, Standing::Paused, Standing::Queued] {
            standings.set(id(1), standing);
            assert!(!standings.is_idle(true), "{standing:?}");
        }
        for standing in [Standing::Green, Standing::Failed, Standing::Blocked] {
            standings.set(id(1), standing);
            assert!(standings.is_idle(false), "{standing:?}");
        }
        standings.set(id(0), Standing::Green);
        assert!(!standings.is_idle(false), "c can start");
    }

    #[test]
    fn features_that_wait_in_all_slots_do_not_hold_back_merges() {
        let id = FeatureId::from_index;
        let mut standings = standings(&[("a", &[]), ("b", &[]), ("c", &[])], 1);
        standings.set(id(0), Standing::Queued);
        standings.set(id(1), Standing::Paused);
        assert!(standings.need_merge(), "c cannot start, because b occupies the slot");
    }
}
