//! Explores every state that the dispatcher can reach with a small number of tasks, and checks
//! invariants in each.
//!
//! A run is a path through states: a stage ends in one of five ways, delays pass, the run is paused
//! or stopped, the number of admitted workers changes, or a task is added. The search takes every
//! possible step from every state that it reaches, starting with all graphs. It covers runs of any
//! length, with tasks of any number of stages and retries, and any number of tasks that are added,
//! as long as no more than a few have not ended at the same time.
//!
//! Three things make the search small enough to be complete. Each state is a number in a dense
//! range, so that the visited ones are a bitmap. A dispatcher is restored from that number before
//! each step, so that none is stored. Choices are made as late as possible: see [`state::State`].
//! Restoring might omit something that affects the future, so [`real`] compares restored
//! dispatchers with those of whole runs.
//!
//! Invariants of each state: no limit is exceeded; every stage that can start has started, unless
//! its resources are reserved for a task of higher rank that was overtaken too often; if no stage
//! runs, all tasks have ended or a delay is pending. Invariants of each step: the event changes the
//! task that it names and no other, unless that starts, becomes ready or is skipped; all
//! dependencies of a started task are done; no task of higher rank is overtaken more often than
//! allowed. The latter implies that no task waits without end while others come and go: each new
//! task has a higher rank, counts as overtaking, or takes nothing that the waiting task needs.

mod invariants;
mod real;
mod search;
mod state;
mod step;

use search::{Figures, explore, graphs};
use state::Setting;

/// Variable with the number of tasks of a long run: 3, 4 or 5.
const TASKS: &str = "GREENWAVE_SCHEDULER_TASKS";
/// Variable with the number of kinds of needs of a long run, up to 14.
const KINDS: &str = "GREENWAVE_SCHEDULER_KINDS";

/// Returns the number of tasks that have not ended at the same time, and of kinds of needs.
fn size() -> (usize, u8) {
    let number = |name: &str| std::env::var(name).ok().map(|text| text.parse::<u8>().unwrap());
    let (tasks, usual) = match number(TASKS) {
        None => (3, 6),
        Some(3) => (3_u8, state::KINDS.len() as u8),
        // Without the second pool, which multiplies the number of states by four.
        Some(4) => (4, 10),
        // All kinds would take days.
        Some(5) => (5, 4),
        Some(other) => panic!("invalid value {other} for {TASKS}: expected 3, 4 or 5"),
    };
    (usize::from(tasks), number(KINDS).unwrap_or(usual).clamp(1, state::KINDS.len() as u8))
}

#[test]
fn no_state_is_stuck_or_over_a_limit_or_unfair() {
    let (tasks, kinds) = size();
    let mut all = Figures::default();
    for tasks_max in (1..tasks).chain([usize::MAX]) {
        for overtakes_max in [0, 1, 2, u32::MAX] {
            let setting = Setting { tasks, tasks_max, overtakes_max, kinds };
            let Figures { states, steps } = explore(&setting).unwrap_or_else(|why| panic!("{why}"));
            println!("{setting:?}: {states} states, {steps} steps");
            all = Figures { states: all.states + states, steps: all.steps + steps };
        }
    }
    println!("{} states, {} steps", all.states, all.steps);
    assert!(all.states > 300_000, "{} states: the search ended early", all.states);
}

#[test]
fn every_state_has_a_number() {
    let setting = Setting { tasks: 3, tasks_max: 2, overtakes_max: 1, kinds: 2 };
    let numbering = state::Numbering::new(&setting);
    let mut states = std::collections::HashSet::new();
    for number in 0..numbering.len() {
        let state = numbering.state(number);
        // Some numbers have a gap between tasks.
        if numbering.number(&state) == number {
            states.insert(format!("{state:?}"));
        }
    }
    // Up to three tasks, each with one of 15 values, and 7 values of the run.
    assert_eq!(states.len(), (1 + 15 + 15 * 15 + 15 * 15 * 15) * 7);
}

#[test]
fn graphs_without_implied_dependencies_are_counted() {
    // OEIS A082402.
    assert_eq!([1, 2, 3, 4].map(|tasks| graphs(tasks).len()), [1, 3, 19, 219]);
}
