//! The dispatcher in virtual time, checked against the invariants of every schedule.

use std::collections::BTreeMap;
use std::time::Duration;

use greenwave_scheduler::{
    Action, Addition, DispatchEvent, Dispatcher, Graph, GraphBuilder, Limits, Needs, OnFailure, Resources,
    TaskId, TaskState,
};
use proptest::prelude::*;

/// A small random graph with stages, durations, needs and failures.
#[derive(Debug, Clone)]
struct Case {
    tasks: Vec<Vec<(u64, u32, u32)>>,
    /// Length of the stages that need no slot under `tasks_max`; 0 for none.
    without_slot: u64,
    edges: Vec<(usize, usize)>,
    fails: Vec<bool>,
    workers: u32,
    gpus: u32,
    tasks_max: usize,
}

fn cases() -> impl Strategy<Value = Case> {
    let stage = (0u64..20, 0u32..3, 0u32..2);
    let tasks = proptest::collection::vec(proptest::collection::vec(stage, 1..4), 1..25);
    let limits = (2u32..4, 1u32..3, 1usize..30, 0u64..4);
    (tasks, limits).prop_flat_map(|(tasks, (workers, gpus, tasks_max, without_slot))| {
        let count = tasks.len();
        let edges = proptest::collection::vec((0..count, 0..count), 0..count * 2);
        let fails = proptest::collection::vec(proptest::bool::weighted(0.1), count);
        (edges, fails).prop_map(move |(edges, fails)| {
            let forward = |(a, b): (usize, usize)| (a.max(b), a.min(b));
            let edges = edges.into_iter().map(forward).filter(|(a, b)| a != b).collect();
            Case { tasks: tasks.clone(), without_slot, edges, fails, workers, gpus, tasks_max }
        })
    })
}

impl Case {
    fn graph(&self) -> Graph<()> {
        let mut graph = GraphBuilder::new();
        for at in 0..self.tasks.len() {
            graph.task(at.to_string(), ());
        }
        for (from, to) in &self.edges {
            graph.depends_on(from.to_string(), to.to_string());
        }
        graph.build().unwrap()
    }

    fn needs(&self, task: TaskId, stage: usize) -> Needs {
        let (_, workers, gpus) = self.tasks[task.index()][stage];
        let needs = Needs::nothing().of("workers", workers).of("gpu", gpus);
        if self.has_slot(task, stage) { needs } else { needs.without_task_slot() }
    }

    fn has_slot(&self, task: TaskId, stage: usize) -> bool {
        self.without_slot == 0 || self.tasks[task.index()][stage].0 != self.without_slot
    }

    /// Runs the case in virtual time and checks the invariants after each event. Returns the order
    /// of starts.
    fn simulate(&self) -> Vec<(u64, TaskId)> {
        let graph = self.graph();
        let resources = Resources::new([("workers", self.workers), ("gpu", self.gpus)]);
        let limits = Limits { resources, tasks_max: self.tasks_max, ..Limits::default() };
        let ranks: Vec<u64> = (0..graph.len() as u64).map(|at| at * 7919 % 13).collect();
        let mut dispatcher = Dispatcher::new(&graph, limits, &ranks, |task| self.needs(task, 0)).unwrap();
        let mut running: BTreeMap<(u64, TaskId), usize> = BTreeMap::new();
        let mut next_stage = vec![0; graph.len()];
        let (mut starts, mut actions, mut now) = (Vec::new(), Vec::new(), 0);
        dispatcher.handle(Duration::ZERO, DispatchEvent::Begin, &mut actions).unwrap();
        loop {
            for action in actions.drain(..) {
                let Action::Start(task) = action else { continue };
                for &dependency in graph.dependencies(task) {
                    assert_eq!(dispatcher.state(dependency), TaskState::Done);
                }
                let stage = next_stage[task.index()];
                next_stage[task.index()] += 1;
                assert!(running.insert((now + self.tasks[task.index()][stage].0, task), stage).is_none());
                starts.push((now, task));
            }
            self.check_resources(&running, &dispatcher);
            let Some(((at, task), stage)) = running.pop_first() else { break };
            now = at;
            let needs;
            let event = if self.fails[task.index()] {
                DispatchEvent::Failed(task)
            } else if stage + 1 < self.tasks[task.index()].len() {
                needs = self.needs(task, stage + 1);
                DispatchEvent::Next(task, &needs)
            } else {
                DispatchEvent::Done(task)
            };
            dispatcher.handle(Duration::from_secs(now), event, &mut actions).unwrap();
        }
        self.check_all_settled(&graph, &dispatcher);
        starts
    }

    fn check_resources(&self, running: &BTreeMap<(u64, TaskId), usize>, dispatcher: &Dispatcher) {
        let sum = |pick: fn(&(u64, u32, u32)) -> u32| -> u32 {
            running.iter().map(|((_, task), stage)| pick(&self.tasks[task.index()][*stage])).sum()
        };
        assert!(sum(|stage| stage.1) <= self.workers && sum(|stage| stage.2) <= self.gpus);
        assert_eq!(dispatcher.stats().pool("workers").unwrap().used, sum(|stage| stage.1));
        let has_slot = running.iter().filter(|((_, task), stage)| self.has_slot(*task, **stage));
        let in_flight = dispatcher.stats().in_flight;
        assert!(has_slot.count() <= in_flight && in_flight <= self.tasks_max);
    }

    fn check_all_settled(&self, graph: &Graph<()>, dispatcher: &Dispatcher) {
        assert!(dispatcher.is_finished());
        for task in graph.tasks() {
            let bad =
                |id: &TaskId| matches!(dispatcher.state(*id), TaskState::Failed | TaskState::Skipped(_));
            match dispatcher.state(task) {
                TaskState::Done => assert!(!self.fails[task.index()]),
                TaskState::Failed => assert!(self.fails[task.index()]),
                TaskState::Skipped(because) => {
                    assert_eq!(dispatcher.state(because), TaskState::Failed);
                    assert!(graph.dependencies(task).iter().any(bad));
                }
                other => panic!("{task:?} was left {other:?}"),
            }
        }
        assert_eq!(dispatcher.stats().finished(), graph.len());
    }
}

proptest! {
    #[test]
    fn every_schedule_is_valid_complete_and_repeatable(case in cases()) {
        prop_assert_eq!(case.simulate(), case.simulate());
    }
}

#[test]
fn a_wide_task_is_not_starved_by_narrow_ones() {
    let mut graph = GraphBuilder::new();
    graph.task("wide", 2);
    (0..100).for_each(|at| {
        graph.task(format!("narrow{at}"), 1);
    });
    let graph = graph.build().unwrap();
    let limits =
        Limits { resources: Resources::new([("workers", 2)]), overtakes_max: 3, ..Limits::default() };
    let needs = |task| Needs::nothing().of("workers", *graph.payload(task));
    // Whenever one worker becomes free, the other is busy with a narrow task.
    let mut ranks = vec![1; 101];
    ranks[0] = 5;
    (ranks[1], ranks[2]) = (9, 9);
    let mut dispatcher = Dispatcher::new(&graph, limits, &ranks, needs).unwrap();
    let mut actions = Vec::new();
    let mut running = Vec::new();
    dispatcher.handle(Duration::ZERO, DispatchEvent::Begin, &mut actions).unwrap();
    for step in 1.. {
        running.extend(actions.drain(..).filter_map(|action| match action {
            Action::Start(task) => Some(task),
            Action::Skip(..) => None,
        }));
        if running.contains(&TaskId::clone(&graph.find("wide").unwrap())) {
            assert!(step < 8, "started only at step {step}");
            return;
        }
        let ended = running.remove(0);
        dispatcher.handle(Duration::from_secs(step), DispatchEvent::Done(ended), &mut actions).unwrap();
    }
}

/// The first task waits in its second stage. The second one begins meanwhile, and has to end before
/// the first one has a slot for its third stage.
#[test]
fn a_task_that_waits_without_a_slot_makes_room_for_another() {
    let mut graph = GraphBuilder::new();
    graph.task("a", ()).task("b", ());
    let graph = graph.build().unwrap();
    let [a, b] = ["a", "b"].map(|id| graph.find(id).unwrap());
    let limits = Limits { tasks_max: 1, ..Limits::default() };
    let mut dispatcher = Dispatcher::new(&graph, limits, &[], |_| Needs::nothing()).unwrap();
    let mut actions = Vec::new();
    let mut handle = |event| {
        dispatcher.handle(Duration::ZERO, event, &mut actions).unwrap();
        (std::mem::take(&mut actions), dispatcher.stats().in_flight)
    };
    let (waits, works) = (Needs::nothing().without_task_slot(), Needs::nothing());
    assert_eq!(handle(DispatchEvent::Begin), (vec![Action::Start(a)], 1));
    assert_eq!(handle(DispatchEvent::Next(a, &waits)), (vec![Action::Start(a), Action::Start(b)], 1));
    assert_eq!(handle(DispatchEvent::Next(a, &works)), (vec![], 1));
    assert_eq!(handle(DispatchEvent::Done(b)), (vec![Action::Start(a)], 1));
    assert_eq!(handle(DispatchEvent::Done(a)), (vec![], 0));
}

/// Starts 40 short stages, one after another, while a task waits for a lock that another one holds.
/// Returns how often the task was overtaken, and whether a task of lower rank starts afterwards.
fn starts_beside_a_blocked_task(short: &Needs, blocked_workers: u32) -> (u32, bool) {
    let mut graph = GraphBuilder::new();
    graph.task("holder", 2).task("blocked", blocked_workers);
    let graph = graph.build().unwrap();
    let [holder, blocked] = ["holder", "blocked"].map(|id| graph.find(id).unwrap());
    let limits = Limits { resources: Resources::new([("workers", 3)]), ..Limits::default() };
    let needs = |task| Needs::nothing().of("workers", *graph.payload(task)).exclusive("lock");
    let mut dispatcher = Dispatcher::new(&graph, limits, &[3, 2], needs).unwrap();
    let mut actions = Vec::new();
    dispatcher.handle(Duration::ZERO, DispatchEvent::Begin, &mut actions).unwrap();
    let addition = Addition { id: "short", rank: 0, needs: short, after: &[], before: &[] };
    let added = dispatcher.add(Duration::ZERO, addition, &mut actions).unwrap();
    assert_eq!(actions, [Action::Start(holder), Action::Start(added)]);
    for _ in 0..40 {
        actions.clear();
        dispatcher.handle(Duration::ZERO, DispatchEvent::Next(added, short), &mut actions).unwrap();
    }
    let overtaken = dispatcher.overtaken(blocked);
    dispatcher.handle(Duration::ZERO, DispatchEvent::Done(added), &mut actions).unwrap();
    actions.clear();
    let one = Needs::nothing().of("workers", 1);
    let other = Addition { id: "other", rank: 1, needs: &one, after: &[], before: &[] };
    let other = dispatcher.add(Duration::ZERO, other, &mut actions).unwrap();
    let is_started = actions == [Action::Start(other)];
    let stats = dispatcher.stats();
    assert_eq!((stats.added, stats.added_done, stats.done), (2, is_started.into(), is_started.into()));
    (overtaken, is_started)
}

#[test]
fn stages_in_the_background_reserve_nothing_for_tasks_that_wait_for_something_else() {
    let short = Needs::nothing().of("workers", 1);
    assert_eq!(starts_beside_a_blocked_task(&short, 1), (16, false), "the worker is reserved");
    assert_eq!(starts_beside_a_blocked_task(&short.clone().in_background(), 1), (0, true));
    // It lacks the workers that they take, and must not starve.
    assert_eq!(starts_beside_a_blocked_task(&short.in_background(), 3), (16, false));
}

#[test]
fn stop_at_first_lets_running_tasks_finish_and_starts_no_others() {
    let mut graph = GraphBuilder::new();
    graph.task("a", ()).task("b", ()).task("c", ());
    let graph = graph.build().unwrap();
    let resources = Resources::new([("workers", 2)]);
    let limits = Limits { resources, on_failure: OnFailure::StopAtFirst, ..Limits::default() };
    let mut dispatcher = Dispatcher::new(&graph, limits, &[], |_| Needs::nothing().of("workers", 1)).unwrap();
    let mut actions = Vec::new();
    let [a, b, c] = ["a", "b", "c"].map(|id| graph.find(id).unwrap());
    dispatcher.handle(Duration::ZERO, DispatchEvent::Begin, &mut actions).unwrap();
    assert_eq!(actions, [Action::Start(a), Action::Start(b)]);
    actions.clear();
    dispatcher.handle(Duration::ZERO, DispatchEvent::Failed(a), &mut actions).unwrap();
    assert!(actions.is_empty() && !dispatcher.is_finished());
    dispatcher.handle(Duration::ZERO, DispatchEvent::Done(b), &mut actions).unwrap();
    assert!(actions.is_empty() && dispatcher.is_finished());
    assert!(matches!(dispatcher.state(c), TaskState::Ready(_)));
}

#[test]
fn needs_beyond_the_limits_are_refused() {
    let mut graph = GraphBuilder::new();
    graph.task("render", ());
    let graph = graph.build().unwrap();
    let limits = Limits { resources: Resources::new([("gpu", 1)]), ..Limits::default() };
    let refused = Dispatcher::new(&graph, limits, &[], |_| Needs::nothing().of("gpu", 2)).unwrap_err();
    insta::assert_snapshot!(refused, @"invalid number 2 of resource `gpu` for task `render`: expected at most 1");
}

#[test]
fn a_million_tasks_are_dispatched_in_virtual_time() {
    const TASKS: usize = 1_000_000;
    let mut graph = GraphBuilder::new();
    for task in 0..TASKS {
        graph.task(task.to_string(), ());
    }
    // Each task depends on up to two earlier ones, chosen by a hash.
    for task in 1..TASKS {
        for salt in 0..task % 3 {
            let before = task - 1 - (task * 7919 + salt * 104_729) % task.min(1000);
            graph.depends_on(task.to_string(), before.to_string());
        }
    }
    let graph = graph.build().unwrap();
    let seconds = |task: TaskId| 1 + (task.index() as u64 * 31) % 10;
    let ranks = graph.upward_ranks(|task| Duration::from_secs(seconds(task)));
    let ranks: Vec<u64> = ranks.iter().map(Duration::as_secs).collect();
    let resources = Resources::new([("workers", 64), ("gpu", 2)]);
    let limits = Limits { resources, ..Limits::default() };
    let (plain, gpu) = (Needs::nothing().of("workers", 1), Needs::nothing().of("workers", 2).of("gpu", 1));
    let needs = |task: TaskId| if task.index().is_multiple_of(50) { gpu.clone() } else { plain.clone() };
    let mut dispatcher = Dispatcher::new(&graph, limits, &ranks, needs).unwrap();
    let mut running = std::collections::BinaryHeap::new();
    let (mut actions, mut now) = (Vec::new(), 0);
    dispatcher.handle(Duration::ZERO, DispatchEvent::Begin, &mut actions).unwrap();
    loop {
        for action in actions.drain(..) {
            let Action::Start(task) = action else { panic!("nothing fails") };
            running.push(std::cmp::Reverse((now + seconds(task), task)));
        }
        let Some(std::cmp::Reverse((end, task))) = running.pop() else { break };
        now = end;
        dispatcher.handle(Duration::from_secs(now), DispatchEvent::Done(task), &mut actions).unwrap();
    }
    let stats = dispatcher.stats();
    assert_eq!((stats.done, stats.pool("workers").unwrap().peak), (TASKS, 64));
    assert!(stats.efficiency("workers") > 0.95, "{stats:?}");
    let idle = stats.wall * 64 - stats.pool("workers").unwrap().busy;
    assert_eq!(stats.lost.total(), idle, "all lost time has a cause");
}

/// Runs a graph of `first`, `wide` after it, and two tasks with many stages, with at most two tasks
/// in progress.
fn order_of_starts(overtakes_max: u32) -> Vec<TaskId> {
    let mut graph = GraphBuilder::new();
    graph.task("wide", 2).task("first", 1).task("a", 1).task("b", 1).depends_on("wide", "first");
    let graph = graph.build().unwrap();
    let resources = Resources::new([("workers", 2)]);
    let limits = Limits { resources, tasks_max: 2, overtakes_max, ..Limits::default() };
    let needs = |task| Needs::nothing().of("workers", *graph.payload(task));
    let mut dispatcher = Dispatcher::new(&graph, limits, &[], needs).unwrap();
    let (mut starts, mut actions) = (Vec::new(), Vec::new());
    let mut running = BTreeMap::new();
    let mut stages = [0; 4];
    dispatcher.handle(Duration::ZERO, DispatchEvent::Begin, &mut actions).unwrap();
    loop {
        for action in actions.drain(..) {
            let Action::Start(task) = action else { panic!("nothing fails") };
            let now = dispatcher.stats().wall.as_millis() as u64;
            running.insert((now + 10 + 3 * task.index() as u64, task), ());
            starts.push(task);
        }
        let Some(((now, task), ())) = running.pop_first() else { break };
        stages[task.index()] += 1;
        let one = Needs::nothing().of("workers", 1);
        let has_more = task.index() >= 2 && stages[task.index()] <= 40;
        let event = if has_more { DispatchEvent::Next(task, &one) } else { DispatchEvent::Done(task) };
        dispatcher.handle(Duration::from_millis(now), event, &mut actions).unwrap();
    }
    assert!(dispatcher.is_finished(), "{overtakes_max}: nothing runs: {:?}", dispatcher.stats());
    assert_eq!(dispatcher.stats().done, 4);
    starts
}

#[test]
fn a_task_without_a_slot_reserves_nothing_that_tasks_in_progress_need() {
    for overtakes_max in [0, 1, 16, u32::MAX] {
        order_of_starts(overtakes_max);
    }
}
