//! The executor in paused time.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use greenwave_scheduler::{
    AdmittedUnits, Durations, Executor, Graph, GraphBuilder, Limits, Needs, OnFailure, Progress, Resources,
    RunReport, Stage, Step, TaskFailure, TaskOutcome,
};
use tokio::time::sleep;

fn graph(edges: &[(&str, &[&str])]) -> Graph<()> {
    let mut graph = GraphBuilder::new();
    for (id, dependencies) in edges {
        graph.task(*id, ());
        for dependency in *dependencies {
            graph.depends_on(*id, *dependency);
        }
    }
    graph.build().unwrap()
}

fn executor(workers: u32) -> Executor {
    Executor::new(Limits { resources: Resources::new([("workers", workers)]), ..Limits::default() })
}

async fn run<F>(executor: &Executor, graph: &Graph<()>, stage: impl Fn(Stage) -> F) -> RunReport<(), String>
where
    F: Future<Output = Step<(), String>> + Send + 'static,
{
    let needs = |_| Needs::nothing().of("workers", 1);
    executor.run(graph, |_| Durations::DEFAULT, &[], needs, stage, |_| {}).await.unwrap()
}

#[tokio::test(start_paused = true)]
async fn tasks_start_without_a_barrier_between_levels() {
    // `c` depends on `a` only, so it runs while `b` still runs: 10 s in total. With levels it would
    // take 15 s.
    let graph = graph(&[("a", &[]), ("b", &[]), ("c", &["a"])]);
    let seconds = [5, 10, 5];
    let report = run(&executor(2), &graph, |stage| async move {
        sleep(Duration::from_secs(seconds[stage.task.index()])).await;
        Step::Done(())
    })
    .await;
    assert_eq!(report.stats.wall, Duration::from_secs(10));
    assert_eq!(report.stats.efficiency("workers"), 1.0);
    assert_eq!(report.stats.speed_up(), 2.0);
}

#[tokio::test(start_paused = true)]
async fn resources_are_released_between_stages() {
    // One worker, and two tasks that need it for 1 s and then wait 10 s without it.
    let graph = graph(&[("a", &[]), ("b", &[])]);
    let report = run(&executor(1), &graph, |stage| async move {
        match stage.number {
            0 => {
                sleep(Duration::from_secs(1)).await;
                Step::Next(Needs::nothing())
            }
            _ => {
                sleep(Duration::from_secs(10)).await;
                Step::Done(())
            }
        }
    })
    .await;
    assert_eq!(report.stats.wall, Duration::from_secs(12));
    assert_eq!(report.stats.pool("workers").unwrap().peak, 1);
}

#[tokio::test(start_paused = true)]
async fn failures_panics_and_time_limits_affect_only_their_task() {
    let graph =
        graph(&[("panics", &[]), ("hangs", &[]), ("fails", &[]), ("after", &["fails"]), ("fine", &[])]);
    let mut executor = executor(8);
    executor.stage_time_max = Some(Duration::from_secs(60));
    let report = run(&executor, &graph, |stage| async move {
        match stage.task.index() {
            0 => panic!("number {}", stage.number),
            1 => std::future::pending().await,
            2 => Step::Failed("no".to_owned()),
            _ => Step::Done(()),
        }
    })
    .await;
    let [panics, hangs, fails, after, fine] = &report.outcomes[..] else { panic!("five tasks") };
    assert!(matches!(panics, TaskOutcome::Failed(TaskFailure::Panicked(text)) if text == "number 0"));
    assert!(matches!(hangs, TaskOutcome::Failed(TaskFailure::TimedOut(limit)) if limit.as_secs() == 60));
    assert!(matches!(fails, TaskOutcome::Failed(TaskFailure::Task(text)) if text == "no"));
    assert!(matches!(after, TaskOutcome::Skipped(task) if task.index() == 2));
    assert!(matches!(fine, TaskOutcome::Done(())));
}

#[tokio::test(start_paused = true)]
async fn finished_tasks_of_an_earlier_run_are_not_repeated() {
    let graph = graph(&[("a", &[]), ("b", &["a"]), ("c", &["b"])]);
    let ran = Arc::new(Mutex::new(Vec::new()));
    let done = [graph.find("a").unwrap(), graph.find("b").unwrap()];
    let stage = |stage: Stage| {
        ran.lock().unwrap().push(stage.task.index());
        async { Step::<(), ()>::Done(()) }
    };
    let needs = |_| Needs::nothing();
    let mut seen = Vec::new();
    let observe = |progress| seen.push(progress);
    let report =
        Executor::default().run(&graph, |_| Durations::DEFAULT, &done, needs, stage, observe).await.unwrap();
    assert_eq!(*ran.lock().unwrap(), [2]);
    assert!(matches!(report.outcomes[1], TaskOutcome::AlreadyDone));
    let c = graph.find("c").unwrap();
    assert_eq!(seen, [Progress::Started(Stage { task: c, number: 0, retry: 0 }), Progress::Done(c)]);
}

#[tokio::test(start_paused = true)]
async fn the_longest_chain_goes_first() {
    // `long` was added last but has the longest chain after it.
    let graph = graph(&[("x", &[]), ("y", &[]), ("long", &[]), ("end", &["long"])]);
    let report = run(&executor(2), &graph, |_| async {
        sleep(Duration::from_secs(1)).await;
        Step::Done(())
    })
    .await;
    assert_eq!(report.stats.wall, Duration::from_secs(2));
}

#[tokio::test(start_paused = true)]
async fn dropping_the_run_drops_its_stages() {
    let graph = graph(&[("a", &[])]);
    let alive = Arc::new(());
    let held = Arc::clone(&alive);
    let executor = executor(1);
    let running = run(&executor, &graph, move |_| {
        let held = Arc::clone(&held);
        async move {
            let _held = held;
            std::future::pending().await
        }
    });
    assert!(tokio::time::timeout(Duration::from_secs(1), running).await.is_err());
    tokio::task::yield_now().await;
    assert_eq!(Arc::strong_count(&alive), 1);
}

#[tokio::test(start_paused = true)]
async fn stopping_waits_until_every_stage_is_gone() {
    let graph = graph(&[("ends", &[]), ("hangs", &[]), ("waits", &["hangs"])]);
    let alive = Arc::new(());
    let held = Arc::clone(&alive);
    let executor = executor(2);
    let stopper = executor.stopper();
    let running = run(&executor, &graph, move |stage| {
        let held = Arc::clone(&held);
        async move {
            let _held = held;
            if stage.task.index() == 1 { std::future::pending().await } else { Step::Done(()) }
        }
    });
    let stop = async {
        sleep(Duration::from_secs(1)).await;
        stopper.stop();
    };
    let (report, ()) = tokio::join!(running, stop);
    assert_eq!(Arc::strong_count(&alive), 1);
    let [ends, hangs, waits] = &report.outcomes[..] else { panic!("three tasks") };
    assert!(matches!(
        (ends, hangs, waits),
        (TaskOutcome::Done(()), TaskOutcome::Stopped, TaskOutcome::Stopped)
    ));
}

#[test]
fn estimates_learn_and_withstand_outliers() {
    let mut durations = Durations::default();
    assert_eq!(durations.estimate("feature:x"), Durations::DEFAULT);
    for seconds in [2, 4, 100] {
        durations.observe(&format!("feature:{seconds}"), Duration::from_secs(seconds));
    }
    assert_eq!(durations.estimate("feature:x"), Duration::from_secs(4), "the median of its kind");
    durations.observe("feature:2", Duration::from_secs(2000));
    assert!(durations.estimate("feature:2") < Duration::from_secs(4));
    let copied: Durations = durations.iter().map(|(key, seconds)| (key.to_owned(), seconds)).collect();
    assert_eq!(copied.estimate("feature:4"), Duration::from_secs(4));
}

#[tokio::test(start_paused = true)]
async fn stop_at_first_leaves_remaining_tasks_stopped() {
    let graph = graph(&[("fails", &[]), ("runs", &[]), ("left", &[]), ("too", &[])]);
    let mut executor = executor(2);
    executor.limits.on_failure = OnFailure::StopAtFirst;
    let run = run(&executor, &graph, |stage| async move {
        if stage.task.index() == 0 {
            return Step::Failed("no".to_owned());
        }
        sleep(Duration::from_secs(1)).await;
        Step::Done(())
    });
    let report = tokio::time::timeout(Duration::from_secs(60), run).await.expect("the run ends");
    let [fails, runs, left, too] = &report.outcomes[..] else { panic!("four tasks") };
    assert!(matches!((fails, runs), (TaskOutcome::Failed(_), TaskOutcome::Done(()))));
    assert!(matches!((left, too), (TaskOutcome::Stopped, TaskOutcome::Stopped)));
}

/// While one unit is admitted, stages run one after another. Then both units are used.
#[tokio::test(start_paused = true)]
async fn the_admitted_units_of_a_pool_change_during_a_run() {
    let graph = graph(&[("a", &[]), ("b", &[]), ("c", &[]), ("d", &[])]);
    let (admit, units) = tokio::sync::watch::channel(1);
    let mut executor = Executor::new(Limits {
        resources: Resources::new([("workers", 4), ("places", 2)]),
        ..Limits::default()
    });
    executor.admitted = Some(AdmittedUnits { pool: "places".to_owned(), units });
    let stage = |_| async {
        sleep(Duration::from_secs(10)).await;
        Step::Done(())
    };
    let needs = |_| Needs::nothing().of("workers", 1).of("places", 1);
    let run = executor.run::<_, (), String, _>(&graph, |_| Durations::DEFAULT, &[], needs, stage, |_| {});
    let later = async {
        sleep(Duration::from_secs(15)).await;
        // More than the limit counts as the limit.
        admit.send(3).unwrap();
        admit
    };
    let (report, _admit) = tokio::join!(run, later);
    let stats = report.unwrap().stats;
    // From 0 s and from 10 s, one stage; from 15 s, another one beside it; from 20 s, the last one.
    assert_eq!(stats.wall, Duration::from_secs(30));
    assert_eq!(stats.pool("places").unwrap().peak, 2);
}

/// If nobody can change the number any more, the run goes on with it.
#[tokio::test(start_paused = true)]
async fn admitted_units_stay_once_nobody_can_change_them() {
    let graph = graph(&[("a", &[]), ("b", &[])]);
    let (admit, units) = tokio::sync::watch::channel(1);
    drop(admit);
    let mut executor =
        Executor::new(Limits { resources: Resources::new([("places", 2)]), ..Limits::default() });
    executor.admitted = Some(AdmittedUnits { pool: "places".to_owned(), units });
    let stage = |_| async {
        sleep(Duration::from_secs(1)).await;
        Step::Done(())
    };
    let needs = |_| Needs::nothing().of("places", 1);
    let run = executor.run::<_, (), String, _>(&graph, |_| Durations::DEFAULT, &[], needs, stage, |_| {});
    assert_eq!(run.await.unwrap().stats.wall, Duration::from_secs(2));
}
