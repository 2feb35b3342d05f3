//! Explores the states that dispatchers of whole runs can reach for small graphs, and checks
//! invariants in each.
//!
//! The unit tests of the dispatcher explore more states, of dispatchers that are restored from a
//! state. Here each dispatcher has handled all events of its path. The test also covers graphs of
//! four and five tasks up to isomorphism, with all pairs of attribute values.
//!
//! A run is a path through states: a stage ends in one of four ways, a delay passes, the run is
//! paused or stopped, the number of admitted workers changes, or a task is added. A depth-first
//! search tries all of these in every state. States are packed exactly into 128 bits.
//!
//! Each state is explored once, and states that cannot differ in the future count as one: tasks are
//! numbered by priority, tasks that have ended are omitted, a dependency that follows from others
//! is omitted, and once the run is stopped, so is all that decides which stages start. So different
//! graphs share states. That nothing starts while the run is paused or stopped is an invariant, not
//! an assumption.
//!
//! Invariants of each state: no limit is exceeded; every stage that can start has started, unless
//! its resources are reserved for a task of higher rank that was overtaken too often; if no stage
//! runs, all tasks have ended or a delay is pending. Invariants of each start: all dependencies are
//! done, and no task of higher rank is overtaken more often than allowed. The latter two imply that
//! no task waits without end while others come and go: each new task has a higher rank, counts as
//! overtaking, or takes nothing that the waiting task needs.

mod graphs;
mod node;

use std::collections::HashSet;
use std::hash::{BuildHasherDefault, Hasher};

use greenwave_scheduler::OnFailure;

use graphs::{all_kinds, graphs, pairwise, permutations, relabelled, shapes};
use node::{EventSet, KINDS, Node, SearchSetting, Step, TASKS_MAX};

/// A hasher for keys that are uniformly distributed numbers.
#[derive(Default)]
struct KeyHasher(u64);

impl Hasher for KeyHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, _: &[u8]) {
        unreachable!("keys have 128 bits");
    }

    fn write_u128(&mut self, key: u128) {
        let mixed = (key as u64 ^ (key >> 64) as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        self.0 = mixed ^ (mixed >> 32);
    }
}

type Seen = HashSet<u128, BuildHasherDefault<KeyHasher>>;

/// Explores all states that are reachable from `roots` and not in `seen`.
fn explore(setting: &SearchSetting, roots: impl Iterator<Item = Node>, seen: &mut Seen) {
    let mut open = Vec::new();
    let mut steps = Vec::new();
    for root in roots {
        visit(setting, &root, Step::Begin, seen, &mut open);
        while let Some(node) = open.pop() {
            node.steps(setting, &mut steps);
            for step in steps.drain(..) {
                visit(setting, &node, step, seen, &mut open);
            }
        }
    }
}

fn visit(setting: &SearchSetting, node: &Node, step: Step, seen: &mut Seen, open: &mut Vec<Node>) {
    match node.after(setting, step) {
        Ok(next) if seen.insert(next.key(setting)) => open.push(next),
        Ok(_) => {}
        Err(problem) => {
            let trail = node.trail.as_ref().map(ToString::to_string).unwrap_or_default();
            panic!("{problem}\n{setting:?}\n{:?}\n{trail}  {step:?}", &node.tasks[..node.len]);
        }
    }
}

/// Explores the full product for all graphs with a number of tasks. Returns the number of states.
fn explore_all(tasks: usize, kinds: u8, events: EventSet, overtakes: &[u32]) -> usize {
    let mut states = 0;
    let graphs = graphs(tasks);
    let slots = tasks + usize::from(events.added_tasks);
    for tasks_max in (1..slots).chain([usize::MAX]) {
        for &overtakes_max in overtakes {
            for on_failure in [OnFailure::KeepGoing, OnFailure::StopAtFirst] {
                let setting =
                    SearchSetting { tasks_max, overtakes_max, on_failure, events, kinds, second: None };
                let roots = graphs.iter().flat_map(|graph| {
                    all_kinds(tasks, kinds).map(|kinds| Node::new(&setting, &kinds, graph))
                });
                let mut seen = Seen::default();
                explore(&setting, roots, &mut seen);
                states += seen.len();
            }
        }
    }
    states
}

/// Returns the number of kinds for a long run, from `GREENWAVE_SCHEDULER_KINDS`.
fn long_kinds() -> Option<u8> {
    let asked = std::env::var("GREENWAVE_SCHEDULER_KINDS").ok()?.parse::<u8>().ok()?;
    Some(asked.clamp(1, KINDS.len() as u8))
}

const NOTHING: EventSet =
    EventSet { retries: false, pauses: false, changing_workers: false, added_tasks: false, stops: false };
const ALL: EventSet =
    EventSet { retries: true, pauses: true, changing_workers: true, added_tasks: true, stops: true };

/// Number of tasks, kinds of needs in `cargo test`, kinds of needs in a long run, and events.
const SEARCHES: [(usize, u8, u8, EventSet); 7] = [
    (1, 6, 6, ALL),
    (2, 6, 6, EventSet { added_tasks: false, ..ALL }),
    (2, 4, 6, EventSet { added_tasks: true, ..NOTHING }),
    (2, 1, 6, ALL),
    (3, 5, 6, NOTHING),
    (3, 3, 6, EventSet { retries: true, ..NOTHING }),
    (3, 1, 6, EventSet { added_tasks: false, ..ALL }),
];

#[test]
fn no_state_of_up_to_three_tasks_is_stuck_or_over_a_limit_or_unfair() {
    let mut all = 0;
    for (tasks, usual, most, events) in SEARCHES {
        let kinds = long_kinds().map_or(usual, |kinds| kinds.clamp(usual, most));
        if kinds == 0 {
            continue;
        }
        let states = explore_all(tasks, kinds, events, &[0, 1, 2]);
        let graphs = graphs(tasks).len();
        println!("{tasks} tasks in {graphs} graphs, {kinds} kinds of needs: {states} states ({events:?})");
        all += states;
    }
    println!("{all} states");
    assert!(all > 500_000, "{all} states: the search ended early");
}

#[test]
fn pairwise_rows_cover_all_pairs_of_levels() {
    let levels = [3, 2, 5, 4];
    let rows = pairwise(&levels);
    for other in 0..levels.len() {
        for at in 0..other {
            let met: HashSet<_> = rows.iter().map(|row| (row[at], row[other])).collect();
            assert_eq!(met.len(), levels[at] * levels[other]);
        }
    }
    assert!(rows.len() < 40, "{} rows: fewer than a third of the product", rows.len());
    assert_eq!([1, 2, 3, 4, 5].map(|tasks| shapes(tasks).len()), [1, 2, 6, 31, 302], "OEIS A003087");
    assert_eq!([1, 2, 3, 4].map(|tasks| graphs(tasks).len()), [1, 3, 25, 543], "OEIS A003024");
}

/// Explores every graph shape with all pairs of attribute values. Of the rows for each shape, one
/// in `every` is used, a different one for each shape. Returns the number of states.
fn explore_shapes(tasks: usize, kinds: u8, every: usize) -> usize {
    let orders = permutations(tasks);
    // A spread of 24 of the 120 orders of five tasks.
    let orders: Vec<_> = orders.iter().step_by(orders.len().div_ceil(24)).collect();
    let tasks_max = [1, 2, tasks - 1, usize::MAX];
    let mut levels = vec![usize::from(kinds); 2 * tasks];
    levels.extend([orders.len(), tasks_max.len(), 3, 2, 2, 2, 2, 2, 2]);
    let rows = pairwise(&levels);
    let mut states = 0;
    for (number, shape) in shapes(tasks).iter().enumerate() {
        for (at, row) in
            rows.iter().enumerate().filter(|(at, _)| (number * rows.len() + at).is_multiple_of(every))
        {
            let kinds: Vec<u8> = row.iter().map(|level| *level as u8).collect();
            let (first, rest) = kinds.split_at(tasks);
            let mut second = [0; TASKS_MAX];
            second[..tasks].copy_from_slice(&rest[..tasks]);
            let [order, slots, overtakes_max, failure, flags @ ..] = &row[2 * tasks..] else {
                unreachable!("each row has a level for each factor");
            };
            let is = |flag: usize| flags[flag] == 1;
            let setting = SearchSetting {
                tasks_max: tasks_max[*slots],
                overtakes_max: *overtakes_max as u32,
                on_failure: [OnFailure::KeepGoing, OnFailure::StopAtFirst][*failure],
                events: EventSet {
                    retries: is(0),
                    pauses: is(1),
                    changing_workers: is(2),
                    stops: is(3),
                    // An added task multiplies the number of states by a hundred, so only some
                    // searches of five tasks have one.
                    added_tasks: is(4)
                        && every == 1
                        && (tasks < 5 || (number * rows.len() + at).is_multiple_of(64)),
                },
                // Kinds of an added task.
                kinds: 1,
                second: Some(second),
            };
            let graph = relabelled(shape, orders[*order]);
            let mut seen = Seen::default();
            explore(&setting, std::iter::once(Node::new(&setting, first, &graph)), &mut seen);
            states += seen.len();
        }
    }
    states
}

#[test]
fn no_state_of_four_or_five_tasks_is_stuck_or_over_a_limit_or_unfair() {
    // Limited to a few seconds in `cargo test`.
    for (tasks, kinds, every) in [(4, 4, 8), (5, 4, 1000)] {
        let (kinds, every) = long_kinds().map_or((kinds, every), |kinds| (kinds, 1));
        let states = explore_shapes(tasks, kinds, every);
        let shapes = shapes(tasks).len();
        println!("{tasks} tasks in {shapes} shapes, {kinds} kinds of needs, pairwise: {states} states");
        assert!(states > 1_000, "{states} states: the search ended early");
    }
}
