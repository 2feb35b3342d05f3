//! Explores all batches of up to five features, with all answers of the tests that run on parts of
//! a group, with all moments at which the process is killed or the user edits a file, and compares
//! them with features that are merged one by one.

use std::collections::BTreeSet;

use super::*;

/// Features by number, as bits.
type Set = u32;

fn set(features: &[u32]) -> Set {
    features.iter().fold(0, |set, feature| set | 1 << feature)
}

/// The tests of a project: each fails with all of these features together.
#[derive(Debug)]
struct World(Vec<Set>);

impl World {
    /// Returns the first test that fails.
    fn failing(&self, files: Set) -> Option<usize> {
        self.0.iter().position(|test| files & test == *test)
    }

    fn passes(&self, files: Set) -> bool {
        self.failing(files).is_none()
    }

    /// Returns the features that are green if they are merged one by one.
    fn one_by_one(&self, count: u32) -> Set {
        let merge = |green: Set, feature: u32| {
            let files = green | 1 << feature;
            if self.passes(files) { files } else { green }
        };
        (0..count).fold(0, merge)
    }
}

/// All worlds with up to three tests that fail for one feature or for two together.
fn worlds(count: u32) -> Vec<World> {
    let sets: Vec<Set> = (1..1 << count).filter(|set: &Set| set.count_ones() <= 2).collect();
    let mut worlds = vec![World(Vec::new())];
    for (at, &first) in sets.iter().enumerate() {
        worlds.push(World(vec![first]));
        for (next, &second) in sets.iter().enumerate().skip(at + 1) {
            worlds.push(World(vec![first, second]));
            worlds.extend(sets[next + 1..].iter().map(|&third| World(vec![first, second, third])));
        }
    }
    worlds
}

/// State of a run.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct State {
    green: Set,
    rejected: Set,
    groups: Groups<u32>,
    /// A group that failed, and the search for its culprit.
    search: Option<(Vec<u32>, Bisection)>,
}

/// Follows all ways in which a batch can be decided.
struct Explorer<'w> {
    world: &'w World,
    count: u32,
    /// Numbers of tests that run at once.
    at_once: usize,
    seen: BTreeSet<State>,
    ends: usize,
}

impl Explorer<'_> {
    fn explore(&mut self, state: State) {
        if !self.seen.insert(state.clone()) {
            return;
        }
        assert!(self.seen.len() < 1_000_000, "too many states");
        // A kill: the next run has the green features, and the others arrive in their order.
        let left: Vec<u32> =
            (0..self.count).filter(|at| (state.green | state.rejected) & (1 << at) == 0).collect();
        self.explore(State { groups: Groups::new(left.clone()), search: None, ..state.clone() });
        match state.search.clone() {
            Some((group, search)) => self.explore_search(&state, &group, &search),
            None => self.explore_group(state, &left),
        }
    }

    fn explore_search(&mut self, state: &State, group: &[u32], search: &Bisection) {
        let probes = search.probes(self.at_once);
        let goes_on = |search: Bisection| State { search: Some((group.to_vec(), search)), ..state.clone() };
        if !probes.is_empty() {
            // Any test may pass or fail: it can be flaky. The feature is found in the end.
            for answers in 0..1_u32 << probes.len() {
                let results: Vec<(usize, bool)> =
                    probes.iter().enumerate().map(|(at, &probe)| (probe, answers & (1 << at) != 0)).collect();
                let mut next = search.clone();
                next.record(&results);
                assert!(next.fails - next.passes < search.fails - search.passes, "{search:?} {results:?}");
                self.explore(goes_on(next));
            }
        }
        // Tests that cannot run end the search early.
        let mut next = state.clone();
        let parts = search.parts(group.to_vec());
        assert_eq!(parts.concat(), group, "the order of arrival");
        assert!(parts.iter().all(|part| part.len() < group.len()), "{search:?} splits nothing");
        next.groups.put_back(parts);
        next.search = None;
        self.explore(next);
    }

    fn explore_group(&mut self, mut state: State, left: &[u32]) {
        let Some(group) = state.groups.take() else {
            self.ends += 1;
            assert_eq!(state.green, self.world.one_by_one(self.count), "{:?} {state:?}", self.world);
            assert_eq!(left, [0; 0], "a feature is lost: {state:?}");
            return;
        };
        assert!(left.starts_with(&group), "{group:?} overtakes others of {left:?}");
        // The user changes a file of the group: it is tested again, or split after many times.
        if group.len() > 1 {
            let mut split = state.clone();
            split.groups.put_back(halves(group.clone()));
            self.explore(split);
        }
        let files = state.green | set(&group);
        match self.world.failing(files) {
            None => state.green = files,
            Some(_) if group.len() == 1 => {
                assert!(self.world.passes(state.green), "a verdict without its evidence");
                state.rejected |= set(&group);
            }
            Some(_) => {
                for own in 0..group.len() {
                    let search = Some((group.clone(), Bisection::new(own, group.len())));
                    self.explore(State { search, ..state.clone() });
                }
                return;
            }
        }
        self.explore(state);
    }
}

#[test]
fn a_batch_ends_as_if_its_features_were_merged_one_by_one() {
    let mut states = 0;
    for count in 1..=5 {
        for world in worlds(count) {
            for at_once in [1, 3] {
                let mut explorer = Explorer { world: &world, count, at_once, seen: BTreeSet::new(), ends: 0 };
                let groups = Groups::new((0..count).collect());
                explorer.explore(State { green: 0, rejected: 0, groups, search: None });
                assert!(explorer.ends > 0);
                states += explorer.seen.len();
            }
        }
    }
    assert!(states > 100_000, "{states}");
}

/// Runs of all tests of a candidate, and of single tests, until a batch is decided.
#[derive(Debug, Default)]
struct Cost {
    whole: usize,
    single: usize,
    /// Test commands, where a candidate that fails costs as little as it can: its first test, and
    /// twice the repetition.
    commands: usize,
    /// Rounds of single tests.
    rounds: usize,
}

/// Decides a batch whose tests are not flaky.
fn decide(world: &World, count: u32, at_once: usize, is_searched: bool) -> (Set, Cost) {
    let (mut green, mut cost) = (0, Cost::default());
    let mut groups = Groups::new((0..count).collect::<Vec<u32>>());
    while let Some(group) = groups.take() {
        cost.whole += 1;
        let Some(test) = world.failing(green | set(&group)) else {
            green |= set(&group);
            cost.commands += count as usize;
            continue;
        };
        cost.commands += 3;
        if group.len() == 1 {
            continue;
        }
        if !is_searched {
            groups.put_back(halves(group));
            continue;
        }
        let mut search = Bisection::new(0, group.len());
        loop {
            let probes = search.probes(at_once);
            if probes.is_empty() {
                break;
            }
            (cost.single, cost.rounds) = (cost.single + probes.len(), cost.rounds + 1);
            cost.commands += probes.len();
            let passes = |at: usize| {
                let files = green | set(&group[..at]);
                files & world.0[test] != world.0[test]
            };
            search.record(&probes.into_iter().map(|at| (at, passes(at))).collect::<Vec<_>>());
        }
        groups.put_back(search.parts(group));
    }
    (green, cost)
}

/// A feature to blame costs three more runs of all tests: up to it, with it, and the rest.
#[test]
fn a_feature_to_blame_costs_three_runs() {
    for count in 2..=31 {
        for first in 0..count {
            for second in first..count {
                let world = World(vec![1 << first, 1 << second]);
                let culprits = if first == second { 1 } else { 2 };
                for at_once in [1, 2, 8] {
                    let (green, cost) = decide(&world, count, at_once, true);
                    assert_eq!(green, world.one_by_one(count));
                    let whole_max = 1 + 3 * culprits;
                    assert!(cost.whole <= whole_max, "{count} {first} {second} {cost:?}");
                    let rounds_max =
                        culprits * (1 + (count as f64).log((at_once + 1) as f64).ceil() as usize);
                    assert!(cost.rounds <= rounds_max, "{count} {first} {second} {at_once} {cost:?}");
                }
            }
        }
    }
}

/// Where many features are to blame, the search costs at most twice the test commands of
/// halves.
#[test]
fn many_features_to_blame_cost_at_most_twice_the_commands_of_halves() {
    for count in 2..=10 {
        for bad in 1..1_u32 << count {
            let world = World((0..count).map(|at| 1 << at).filter(|test| bad & test != 0).collect());
            let (green, halves) = decide(&world, count, 1, false);
            for at_once in [1, 2, 3] {
                let (same, cost) = decide(&world, count, at_once, true);
                assert_eq!(green, same);
                let max = 2 * halves.commands;
                assert!(cost.commands <= max, "{count} {bad:b} {at_once} {cost:?} {halves:?}");
            }
        }
    }
}
