//! The order of tests: each rule alone, and all rules in a simulation.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Duration;

use greenwave_scheduler::{
    Action, DispatchEvent, Dispatcher, Graph, GraphBuilder, Limits, Needs, OrderRules, Resources,
    TaskHistory, TaskId,
};
use greenwave_testkit::random::Random;

fn graph(tasks: usize) -> Graph<()> {
    let mut graph = GraphBuilder::new();
    for task in 0..tasks {
        graph.task(task.to_string(), ());
    }
    graph.build().unwrap()
}

fn tested(seconds: f64, failures: f64) -> TaskHistory {
    let duration = Duration::from_secs_f64(seconds);
    TaskHistory { duration, runs: 10.0, failures, failed_last: false, changed: false }
}

/// Returns the tasks in the order of their starts, each with its start and end.
fn simulate(
    histories: &[TaskHistory],
    rules: &OrderRules,
    workers: u32,
    group: impl Fn(usize) -> Option<String>,
) -> Vec<(usize, f64, f64)> {
    let graph = graph(histories.len());
    let (ranks, order) = rules.order(histories, workers);
    let needs = |task: TaskId| {
        let needs = Needs::nothing().of("workers", 1);
        group(task.index()).map_or(needs.clone(), |lock| needs.shared(lock))
    };
    let limits = Limits { resources: Resources::new([("workers", workers)]), ..Limits::default() };
    let mut dispatcher = Dispatcher::new(&graph, limits, &ranks, needs).unwrap().with_order(order);
    let (mut actions, mut running, mut ran) = (Vec::new(), BinaryHeap::new(), Vec::new());
    let mut now = Duration::ZERO;
    dispatcher.handle(now, DispatchEvent::Begin, &mut actions).unwrap();
    loop {
        for action in actions.drain(..) {
            let Action::Start(task) = action else { panic!("nothing fails") };
            let end = now + histories[task.index()].duration;
            running.push(Reverse((end, task)));
            ran.push((task.index(), now.as_secs_f64(), end.as_secs_f64()));
        }
        let Some(Reverse((end, task))) = running.pop() else { return ran };
        now = end;
        dispatcher.handle(now, DispatchEvent::Done(task), &mut actions).unwrap();
    }
}

fn order_of(histories: &[TaskHistory], rules: &OrderRules) -> Vec<usize> {
    simulate(histories, rules, 1, |_| None).into_iter().map(|(task, ..)| task).collect()
}

#[test]
fn each_rule_can_be_chosen_alone() {
    let mut failed = tested(4.0, 0.0);
    failed.failed_last = true;
    let mut changed = tested(3.0, 0.0);
    changed.changed = true;
    let histories = [tested(2.0, 0.0), tested(1.0, 0.0), changed, failed, tested(8.0, 9.0)];
    let none = OrderRules::none();
    assert_eq!(order_of(&histories, &none), [0, 1, 2, 3, 4]);
    assert_eq!(order_of(&histories, &OrderRules { failed_first: true, ..none }), [3, 0, 1, 2, 4]);
    assert_eq!(order_of(&histories, &OrderRules { changed_first: true, ..none }), [2, 0, 1, 3, 4]);
    assert_eq!(order_of(&histories, &OrderRules { likely_first: true, ..none }), [4, 0, 1, 2, 3]);
    assert_eq!(order_of(&histories, &OrderRules { fast_first: true, ..none }), [1, 0, 2, 3, 4]);
    // With two workers, the eight-second task would otherwise start last.
    let started = |rules: &OrderRules| simulate(&histories, rules, 2, |_| None);
    let end = |rules: &OrderRules| started(rules).iter().map(|run| run.2).fold(0.0, f64::max);
    assert_eq!(end(&none), 12.0);
    assert_eq!(end(&OrderRules { tail_permille: Some(0), ..none }), 9.0);
    assert_eq!(order_of(&histories, &OrderRules::default()), [3, 2, 4, 1, 0]);
}

#[test]
fn affinity_groups_tasks_of_similar_rank() {
    let histories: Vec<TaskHistory> = (0..12).map(|at| tested(1.0 + f64::from(at) / 100.0, 0.0)).collect();
    let group = |task: usize| Some((task % 3).to_string());
    let switches = |rules: &OrderRules| {
        let ran = simulate(&histories, rules, 1, group);
        ran.windows(2).filter(|pair| pair[0].0 % 3 != pair[1].0 % 3).count()
    };
    let rules = OrderRules { tail_permille: None, ..OrderRules::default() };
    assert_eq!(switches(&OrderRules { affinity: false, ..rules }), 11);
    assert_eq!(switches(&rules), 2);
    // A task that failed in its last run still goes first.
    let mut histories = histories.clone();
    histories[7].failed_last = true;
    assert_eq!(simulate(&histories, &rules, 1, group)[0].0, 7);
}

#[test]
fn history_learns_and_decays() {
    let mut history = TaskHistory::unknown(Duration::from_secs(1));
    let unknown = history.failure_probability();
    history.observe(true);
    assert!(history.failed_last && history.failure_probability() > unknown * 5.0);
    let after_failure = history.failure_probability();
    (0..30).for_each(|_| history.observe(false));
    assert!(!history.failed_last && history.failure_probability() < after_failure / 5.0);
    assert!(history.failure_probability() > 0.0);
}

/// Normal deviates by the polar method.
struct NormalDeviates(Random);

impl NormalDeviates {
    fn uniform(&mut self) -> f64 {
        self.0.fraction()
    }

    fn normal(&mut self) -> f64 {
        loop {
            let (x, y) = (self.uniform() * 2.0 - 1.0, self.uniform() * 2.0 - 1.0);
            let square = x * x + y * y;
            if square > 0.0 && square < 1.0 {
                return x * (-2.0 * square.ln() / square).sqrt();
            }
        }
    }
}

/// Returns the makespan over the lower bound, and the time of the first failure as a fraction of
/// the makespan, averaged over `suites` runs.
fn simulated(rules: &OrderRules, suites: u64) -> (f64, f64) {
    let (mut makespans, mut failures) = (0.0, 0.0);
    for seed in 1..=suites {
        let mut chance = NormalDeviates(Random::new(seed));
        let flaky: Vec<f64> = (0..200).map(|_| if chance.uniform() < 0.1 { 0.3 } else { 0.005 }).collect();
        let histories: Vec<TaskHistory> =
            flaky.iter().map(|rate| tested((chance.normal() * 1.2).exp(), rate * 10.0)).collect();
        let fails: Vec<bool> = flaky.iter().map(|rate| chance.uniform() < *rate).collect();
        let ran = simulate(&histories, rules, 8, |_| None);
        assert_eq!(ran.len(), 200);
        let end = ran.iter().map(|run| run.2).fold(0.0, f64::max);
        let longest = histories.iter().map(|history| history.duration.as_secs_f64()).fold(0.0, f64::max);
        let work: f64 = histories.iter().map(|history| history.duration.as_secs_f64()).sum();
        makespans += end / longest.max(work / 8.0);
        let first = ran.iter().filter(|run| fails[run.0]).map(|run| run.2).fold(end, f64::min);
        failures += first / end;
    }
    (makespans / suites as f64, failures / suites as f64)
}

#[test]
fn the_default_rules_show_failures_early_and_avoid_a_long_tail() {
    let (makespan, failure) = simulated(&OrderRules::default(), 40);
    let (fast_makespan, fast_failure) = simulated(&OrderRules { fast_first: true, ..OrderRules::none() }, 40);
    assert!(makespan < 1.01, "{makespan}");
    assert!(fast_makespan > 1.2, "shortest first has a long tail: {fast_makespan}");
    assert!(failure < fast_failure, "{failure}, {fast_failure}");
}

#[test]
fn finished_tasks_do_not_count_as_remaining() {
    // A long test that an earlier run has finished must not make this run look shorter than it is.
    let mut histories = vec![tested(100.0, 0.0)];
    histories.extend((0..20).map(|_| tested(1.0, 0.0)));
    histories.push(tested(10.0, 0.0));
    let graph = graph(histories.len());
    let (ranks, order) = OrderRules::default().order(&histories, 2);
    let limits = Limits { resources: Resources::new([("workers", 2)]), ..Limits::default() };
    let needs = |_| Needs::nothing().of("workers", 1);
    let mut dispatcher = Dispatcher::new(&graph, limits, &ranks, needs).unwrap().with_order(order);
    dispatcher.already_done(TaskId::from_index(0));
    let (mut actions, mut running, mut now) = (Vec::new(), BinaryHeap::new(), Duration::ZERO);
    dispatcher.handle(now, DispatchEvent::Begin, &mut actions).unwrap();
    loop {
        for action in actions.drain(..) {
            let Action::Start(task) = action else { panic!("nothing fails") };
            running.push(Reverse((now + histories[task.index()].duration, task)));
            assert!(
                task.index() != 21 || now >= Duration::from_secs(3),
                "started at {now:?} although nothing was late"
            );
        }
        let Some(Reverse((end, task))) = running.pop() else { break };
        now = end;
        dispatcher.handle(now, DispatchEvent::Done(task), &mut actions).unwrap();
    }
    assert!(now <= Duration::from_secs(16), "{now:?} for 30 s of work on two workers");
}
