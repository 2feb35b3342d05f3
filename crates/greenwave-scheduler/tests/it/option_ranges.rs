//! Extreme values of every option: each works, or is refused with the accepted range. The tests use
//! paused time, so a run that does not end fails.

use std::sync::Arc;
use std::time::Duration;

use greenwave_scheduler::{
    Addition, ChromeTrace, DispatchEvent, Dispatcher, Durations, Error, Executor, Graph, GraphBuilder, Job,
    Limits, LoadOptions, LoadSample, Needs, OrderRules, Priority, Progress, Resources, Retry, RunReport,
    Stage, Step, TaskHistory, TaskId, TaskOutcome, Workers,
};

const DURATIONS: [Duration; 4] =
    [Duration::ZERO, Duration::from_nanos(1), Duration::from_secs(1), Duration::MAX];
const COUNTS: [u32; 3] = [0, 1, u32::MAX];

/// A chain of three tasks.
fn chain() -> Graph<()> {
    let mut graph = GraphBuilder::new();
    graph.task("a", ()).task("b", ()).task("c", ()).depends_on("b", "a").depends_on("c", "b");
    graph.build().unwrap()
}

fn limits() -> Limits {
    Limits { resources: Resources::new([("workers", 2)]), ..Limits::default() }
}

fn job<'a>() -> Job<'a, u32, String> {
    Job::new().needs(|_| Needs::nothing().of("workers", 1))
}

/// Runs stages that wait briefly and are each retried once.
async fn run(executor: &Executor, job: Job<'_, u32, String>) -> Result<RunReport<u32, String>, Error> {
    let stage = |stage: Stage| async move {
        tokio::time::sleep(Duration::from_millis(10)).await;
        if stage.retry == 0 { Step::Retry("again".to_owned()) } else { Step::Done(stage.retry) }
    };
    let graph = chain();
    let run = executor.run_job(&graph, job, stage);
    // Longer than any delay that ends.
    tokio::time::timeout(Duration::from_secs(1_000_000), run).await.expect("the run ends")
}

fn is_done(report: &RunReport<u32, String>) -> bool {
    report.outcomes.iter().all(|outcome| matches!(outcome, TaskOutcome::Done(1)))
}

#[tokio::test(start_paused = true)]
async fn a_limit_of_zero_tasks_is_refused_and_other_limits_work() {
    for tasks_max in [0, 1, usize::MAX] {
        for overtakes_max in COUNTS {
            let executor = Executor::new(Limits { tasks_max, overtakes_max, ..limits() });
            match run(&executor, job()).await {
                Ok(report) => assert!(tasks_max > 0 && is_done(&report)),
                Err(refused) => {
                    assert_eq!(refused.to_string(), "invalid value 0 for tasks_max: expected 1 or more");
                    assert_eq!(tasks_max, 0);
                }
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn units_and_needs_of_any_number() {
    for units in COUNTS {
        for wanted in COUNTS {
            let resources = Resources::new([("x", units), ("workers", units)]);
            let executor = Executor::new(Limits { resources, ..Limits::default() });
            let needs = |_| Needs::nothing().of("x", wanted).of("x", wanted).of("workers", wanted);
            match run(&executor, Job::new().needs(needs)).await {
                Ok(report) => assert!(is_done(&report) && wanted <= units),
                Err(Error::ResourceTooSmall { limit, .. }) => {
                    assert!(limit == units && wanted.saturating_mul(2) > units);
                }
                Err(other) => panic!("{other}"),
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn expected_durations_of_any_length() {
    for expected in DURATIONS {
        let graph = chain();
        assert_eq!(graph.upward_ranks(|_| expected)[0], expected.saturating_mul(3));
        assert_eq!(graph.critical_path(|_| expected).1, expected.saturating_mul(3));
        for priority in [Priority::LongestPath, Priority::ShortestFirst, Priority::Shuffled(u64::MAX)] {
            let mut executor = Executor::new(limits());
            executor.priority = priority;
            assert!(is_done(&run(&executor, job().expected(|_| expected)).await.unwrap()));
        }
        let mut durations = Durations::default();
        durations.observe("", expected);
        durations.observe("", Duration::MAX);
        assert!(durations.estimate("") >= expected.min(Duration::from_secs(1)));
    }
}

#[tokio::test(start_paused = true)]
async fn delays_and_time_limits_of_any_length() {
    for length in DURATIONS {
        for attempts_max in [0, 1, 2, usize::MAX] {
            let mut executor = Executor::new(limits());
            executor.retry = Retry { attempts_max, delay_min: length, delay_max: length, ..Retry::default() };
            // A delay of half a billion years must not panic, and the run can still be stopped.
            let stopper = executor.stopper();
            let stop = async {
                tokio::time::sleep(Duration::from_secs(10)).await;
                stopper.stop();
            };
            let (report, ()) = tokio::join!(run(&executor, job()), stop);
            let report = report.unwrap();
            match attempts_max {
                0 | 1 => assert!(matches!(report.outcomes[0], TaskOutcome::Failed(_))),
                _ => assert!(is_done(&report) || length >= Duration::from_secs(1), "{length:?}"),
            }
        }
        let mut executor = Executor::new(limits());
        executor.stage_time_max = Some(length);
        let report = run(&executor, job()).await.unwrap();
        assert_eq!(is_done(&report), length >= Duration::from_secs(1), "{length:?}");
        let report = run(&Executor::new(limits()), job().time_max(|_| Some(length))).await.unwrap();
        assert_eq!(is_done(&report), length >= Duration::from_secs(1), "{length:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn load_samples_of_any_value() {
    let figures = [0.0, -1.0, 1.0, f64::NAN, f64::INFINITY, f64::MIN];
    for min in COUNTS {
        for every in DURATIONS {
            for figure in figures {
                let sample =
                    LoadSample { cpu_pressure: figure, memory_pressure: figure, memory_used: figure };
                let follow = LoadOptions { min, every, sampler: Arc::new(move || sample) };
                let mut executor = Executor::new(limits());
                executor.workers = Workers { follow: Some(follow) };
                assert!(is_done(&run(&executor, job()).await.unwrap()));
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn orders_from_any_history() {
    for duration in DURATIONS {
        for number in [0.0, -1.0, f64::NAN, f64::INFINITY, f64::MAX] {
            for workers in COUNTS {
                for tail_permille in [None, Some(0), Some(u32::MAX)] {
                    let rules = OrderRules { tail_permille, ..OrderRules::default() };
                    let history =
                        TaskHistory { runs: number, failures: number, ..TaskHistory::unknown(duration) };
                    let mut other = history;
                    other.observe(true);
                    // More histories than tasks, and fewer.
                    for histories in [vec![history; 5], vec![other], vec![]] {
                        let (ranks, order) = rules.order(&histories, workers);
                        let job = job().order(ranks, order);
                        assert!(is_done(&run(&Executor::new(limits()), job).await.unwrap()));
                    }
                }
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn unknown_done_tasks_are_refused() {
    let executor = Executor::new(limits());
    let refused = run(&executor, job().already_done(&[TaskId::from_index(7)])).await.unwrap_err();
    assert_eq!(refused.to_string(), "invalid number 7 of a finished task: expected less than 3");
}

#[test]
fn the_dispatcher_accepts_any_time_and_any_task() {
    let needs = |_| Needs::nothing().of("workers", 2);
    for (first, second) in DURATIONS.into_iter().flat_map(|first| DURATIONS.map(|second| (first, second))) {
        let mut dispatcher = Dispatcher::new(&chain(), limits(), &[u64::MAX], needs).unwrap();
        let mut actions = Vec::new();
        let [a, other] = [0, 100].map(TaskId::from_index);
        dispatcher.already_done(other);
        dispatcher.handle(first, DispatchEvent::Begin, &mut actions).unwrap();
        dispatcher.handle(second, DispatchEvent::Admit("workers", u32::MAX), &mut actions).unwrap();
        dispatcher.handle(second, DispatchEvent::Admit("workers", 0), &mut actions).unwrap();
        dispatcher.handle(second, DispatchEvent::Admit("none", 0), &mut actions).unwrap();
        for event in
            [DispatchEvent::Done(other), DispatchEvent::Failed(other), DispatchEvent::Retry(other, first)]
        {
            dispatcher.handle(second, event, &mut actions).unwrap();
        }
        dispatcher.handle(Duration::MAX, DispatchEvent::Retry(a, second), &mut actions).unwrap();
        assert_eq!(dispatcher.wakes_at(), Some(Duration::MAX));
        dispatcher.handle(Duration::MAX, DispatchEvent::Tick, &mut actions).unwrap();
        dispatcher.handle(Duration::ZERO, DispatchEvent::Done(a), &mut actions).unwrap();
        let stats = dispatcher.stats();
        assert_eq!((stats.done, stats.running, stats.wall), (1, 1, Duration::MAX), "{first:?} {second:?}");
        assert!(stats.lost.total() <= Duration::MAX && stats.efficiency("workers").is_finite());
    }
}

#[test]
fn added_tasks_of_any_rank_run() {
    let nothing = Needs::nothing();
    for rank in [0, 1, u64::MAX] {
        let mut dispatcher =
            Dispatcher::new(&chain(), limits(), &[u64::MAX; 3], |_| Needs::nothing()).unwrap();
        let mut actions = Vec::new();
        dispatcher.handle(Duration::ZERO, DispatchEvent::Begin, &mut actions).unwrap();
        for after in [vec![], vec![TaskId::from_index(0)]] {
            let addition = Addition { id: "added", rank, needs: &nothing, after: &after, before: &[] };
            dispatcher.add(Duration::MAX, addition, &mut actions).unwrap();
        }
        let unknown = [TaskId::from_index(usize::MAX >> 33)];
        let addition = Addition { id: "added", rank, needs: &nothing, after: &unknown, before: &[] };
        assert!(dispatcher.add(Duration::MAX, addition, &mut actions).is_err());
        assert_eq!(dispatcher.stats().tasks, 5);
    }
}

#[test]
fn a_trace_accepts_any_time() {
    for (start, end) in DURATIONS.into_iter().flat_map(|start| DURATIONS.map(|end| (start, end))) {
        let task = TaskId::from_index(0);
        let mut trace = ChromeTrace::new();
        for number in [0, 1, u32::MAX] {
            let stage = Stage { task, number, retry: number };
            trace.observe_at(start, Progress::Started(stage));
            trace.observe_at(end, Progress::Ended(stage));
            trace.observe_at(end, Progress::Ended(stage));
        }
        let json: serde_json::Value = serde_json::from_str(&trace.to_json(|_| "a".to_owned())).unwrap();
        assert!(json.to_string().contains("\"a"), "{json}");
    }
}
