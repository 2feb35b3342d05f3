//! Tests of shared and exclusive locks.

use std::collections::HashMap;
use std::time::Duration;

use greenwave_scheduler::{
    Action, DispatchEvent, Dispatcher, GraphBuilder, Limits, Needs, Resources, TaskId, TaskState,
};
use greenwave_testkit::random::Random;
use proptest::prelude::*;

#[derive(Debug, Clone, Copy)]
enum Hold {
    Nothing,
    Shared,
    Exclusive,
}

fn hold() -> impl Strategy<Value = Hold> {
    prop_oneof![Just(Hold::Nothing), Just(Hold::Shared), Just(Hold::Shared), Just(Hold::Exclusive)]
}

fn needs((a, b, units): (Hold, Hold, u32)) -> Needs {
    let lock = |needs: Needs, name: &str, hold| match hold {
        Hold::Nothing => needs,
        Hold::Shared => needs.shared(name),
        Hold::Exclusive => needs.exclusive(name),
    };
    lock(lock(Needs::nothing().of("workers", units), "a", a), "b", b)
}

proptest! {
    #[test]
    fn an_exclusive_lock_has_one_holder(tasks in proptest::collection::vec((hold(), hold(), 0..3_u32), 1..40), picks in any::<u64>()) {
        let mut graph = GraphBuilder::new();
        for at in 0..tasks.len() {
        graph.task(at.to_string(), ());
    }
        let graph = graph.build().unwrap();
        let limits = Limits { resources: Resources::new([("workers", 4)]), overtakes_max: 5, ..Limits::default() };
        let ranks: Vec<u64> = (0..tasks.len() as u64).map(|at| at * 7919 % 17).collect();
        let mut dispatcher = Dispatcher::new(&graph, limits, &ranks, |task| needs(tasks[task.index()])).unwrap();
        let (mut actions, mut running, mut done) = (Vec::new(), Vec::new(), 0);
        let mut overtaken: HashMap<TaskId, u32> = HashMap::new();
        dispatcher.handle(Duration::ZERO, DispatchEvent::Begin, &mut actions).unwrap();
        let mut picks = Random::new(picks);
        loop {
            for action in actions.drain(..) {
                let Action::Start(task) = action else { continue };
                running.push(task);
                for other in graph.tasks().filter(|other| matches!(dispatcher.state(*other), TaskState::Ready(_))) {
                    *overtaken.entry(other).or_default() += u32::from(ranks[other.index()] > ranks[task.index()]);
                }
            }
            let holders = |pick: fn(&(Hold, Hold, u32)) -> Hold| {
                let held: Vec<Hold> = running.iter().map(|task: &TaskId| pick(&tasks[task.index()])).collect();
                let exclusive = held.iter().filter(|hold| matches!(hold, Hold::Exclusive)).count();
                let shared = held.iter().filter(|hold| matches!(hold, Hold::Shared)).count();
                exclusive == 0 || (exclusive == 1 && shared == 0)
            };
            prop_assert!(holders(|task| task.0) && holders(|task| task.1));
            prop_assert!(running.iter().map(|task| tasks[task.index()].2).sum::<u32>() <= 4);
            if running.is_empty() {
                break;
            }
            let ended = running.swap_remove(picks.index(running.len()));
            done += 1;
            dispatcher.handle(Duration::from_secs(done), DispatchEvent::Done(ended), &mut actions).unwrap();
        }
        prop_assert_eq!(done, tasks.len() as u64, "all ran, so nothing hung");
    }
}

#[test]
fn an_exclusive_lock_is_not_starved_by_shared_holders() {
    let mut graph = GraphBuilder::new();
    graph.task("alone", ());
    for at in 0..100 {
        graph.task(format!("shared {at}"), ());
    }
    let graph = graph.build().unwrap();
    let mut ranks = vec![1; 101];
    (ranks[0], ranks[1]) = (5, 9);
    let limits =
        Limits { resources: Resources::new([("workers", 2)]), overtakes_max: 3, ..Limits::default() };
    let needs = |task: TaskId| {
        let needs = Needs::nothing().of("workers", 1);
        if task.index() == 0 { needs.exclusive("db") } else { needs.shared("db") }
    };
    let mut dispatcher = Dispatcher::new(&graph, limits, &ranks, needs).unwrap();
    let (mut actions, mut running) = (Vec::new(), std::collections::VecDeque::new());
    dispatcher.handle(Duration::ZERO, DispatchEvent::Begin, &mut actions).unwrap();
    for step in 1..10 {
        running.extend(actions.drain(..).map(|action| match action {
            Action::Start(task) => task,
            Action::Skip(..) => panic!("nothing fails"),
        }));
        if running.contains(&TaskId::from_index(0)) {
            assert_eq!(running.len(), 1);
            return;
        }
        let ended = running.pop_front().unwrap();
        dispatcher.handle(Duration::from_secs(step), DispatchEvent::Done(ended), &mut actions).unwrap();
    }
    panic!("it never started");
}
