//! Control of a run in progress: retries, pauses, added tasks, progress streams, load. In paused
//! time.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::StreamExt;
use greenwave_scheduler::{
    Error, Executor, Graph, GraphBuilder, Job, Limits, LoadOptions, LoadSample, Needs, NewTask, Progress,
    Resources, Retry, RunReport, Stage, Step, TaskFailure, TaskId, TaskOutcome, TaskSender, Workers,
    progress,
};
use tokio::time::{Instant, sleep};

fn graph(tasks: usize) -> Graph<()> {
    let mut graph = GraphBuilder::new();
    for task in 0..tasks {
        graph.task(task.to_string(), ());
    }
    graph.build().unwrap()
}

fn executor(workers: u32) -> Executor {
    Executor::new(Limits { resources: Resources::new([("workers", workers)]), ..Limits::default() })
}

fn job<'a, R, E>() -> Job<'a, R, E> {
    Job::new().needs(|_| Needs::nothing().of("workers", 1))
}

async fn second() -> Step<u32, String> {
    sleep(Duration::from_secs(1)).await;
    Step::Done(0)
}

#[tokio::test]
async fn a_run_can_be_spawned() {
    let graph: &'static Graph<()> = Box::leak(Box::new(graph(10)));
    let executor = executor(2);
    let run = async move { executor.run_job(graph, job(), |_| async { Step::<(), ()>::Done(()) }).await };
    assert_eq!(tokio::spawn(run).await.unwrap().unwrap().stats.done, 10);
}

#[test]
fn a_run_without_delays_needs_no_timer() {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let graph = graph(2);
    let executor = executor(1);
    let run = executor.run_job(&graph, job(), |_| async {
        tokio::task::yield_now().await;
        Step::<(), ()>::Done(())
    });
    assert_eq!(runtime.block_on(run).unwrap().stats.done, 2);
}

#[tokio::test]
async fn stages_of_an_inline_run_may_borrow_and_need_not_be_send() {
    let graph = graph(100);
    let sum = std::cell::Cell::new(0);
    let report = executor(3)
        .run_inline(&graph, job(), |stage| {
            let sum = &sum;
            async move {
                tokio::task::yield_now().await;
                sum.set(sum.get() + stage.task.index());
                if stage.task.index() == 7 {
                    panic!("inside")
                }
                Step::<(), ()>::Done(())
            }
        })
        .await
        .unwrap();
    assert_eq!((sum.get(), report.stats.done, report.stats.pool("workers").unwrap().peak), (4950, 99, 3));
    assert!(
        matches!(&report.outcomes[7], TaskOutcome::Failed(TaskFailure::Panicked(text)) if text == "inside")
    );
}

#[tokio::test(start_paused = true)]
async fn failed_stages_are_retried_after_growing_delays() {
    let graph = graph(2);
    let mut executor = executor(1);
    executor.retry = Retry { delay_min: Duration::from_secs(1), seed: Some(1), ..Retry::default() };
    let tries = AtomicU32::new(0);
    let observed = Mutex::new(Vec::new());
    let observe = |progress| observed.lock().unwrap().push(progress);
    let begun = Instant::now();
    let report: RunReport<(), String> = executor
        .run_inline(&graph, job().observe(observe), |stage| {
            let tries = &tries;
            async move {
                if stage.task.index() == 1 {
                    return Step::Done(());
                }
                assert_eq!(stage.retry, tries.fetch_add(1, Ordering::Relaxed));
                if stage.retry < 2 { Step::Retry("not yet".to_owned()) } else { Step::Done(()) }
            }
        })
        .await
        .unwrap();
    assert!(matches!(report.outcomes[..], [TaskOutcome::Done(()), TaskOutcome::Done(())]));
    assert_eq!(report.stats.retries, 2);
    // At most one second, then at most two. The other task did not wait for the retries.
    let delays: Vec<_> = observed
        .lock()
        .unwrap()
        .iter()
        .filter_map(|observed| match observed {
            Progress::Retrying(stage, delay) => Some((stage.retry, delay.as_secs_f64())),
            _ => None,
        })
        .collect();
    assert!(
        matches!(delays[..], [(0, first), (1, second)] if (0.0..=1.0).contains(&first) && (0.0..=2.0).contains(&second)),
        "{delays:?}"
    );
    assert!(begun.elapsed().as_secs_f64() >= delays[0].1 + delays[1].1);
    assert!(report.stats.lost.retry > Duration::from_millis(500), "{:?}", report.stats.lost);
    assert_eq!(report.stats.lost.resource, Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn retries_are_limited_and_panics_are_retried_only_on_request() {
    let graph = graph(2);
    for (also_panics, expected) in [(false, [3, 1]), (true, [3, 3])] {
        let mut executor = executor(2);
        executor.retry = Retry { attempts_max: 3, ..Retry::default() };
        executor.retry_panics = also_panics;
        let tries = [AtomicU32::new(0), AtomicU32::new(0)];
        let report: RunReport<(), &str> = executor
            .run_inline(&graph, job(), |stage| {
                tries[stage.task.index()].fetch_add(1, Ordering::Relaxed);
                async move { if stage.task.index() == 0 { Step::Retry("no") } else { panic!("never") } }
            })
            .await
            .unwrap();
        assert_eq!(tries.map(AtomicU32::into_inner), expected);
        assert!(matches!(report.outcomes[0], TaskOutcome::Failed(TaskFailure::Task("no"))));
        assert!(matches!(report.outcomes[1], TaskOutcome::Failed(TaskFailure::Panicked(_))));
    }
}

#[tokio::test(start_paused = true)]
async fn a_pause_lets_running_stages_finish_and_starts_no_others() {
    let graph = graph(3);
    let executor = executor(1);
    let pauser = executor.pauser();
    let control = async {
        sleep(Duration::from_millis(500)).await;
        pauser.pause();
        sleep(Duration::from_secs(10)).await;
        assert!(pauser.is_paused());
        assert_eq!(executor.stats().done, 1);
        pauser.resume();
    };
    let run = executor.run_job(&graph, job(), |_| second());
    let (report, ()) = tokio::join!(run, control);
    let stats = report.unwrap().stats;
    assert_eq!(stats.wall, Duration::from_millis(12_500));
    assert_eq!(
        (stats.lost.worker, stats.lost.total()),
        (Duration::from_millis(9_500), Duration::from_millis(9_500))
    );
}

#[tokio::test(start_paused = true)]
async fn a_paused_run_can_be_stopped_and_a_run_started_while_paused_waits() {
    let graph = graph(2);
    let executor = executor(2);
    executor.pauser().pause();
    let stop = async {
        sleep(Duration::from_secs(5)).await;
        executor.stopper().stop();
    };
    let (report, ()) = tokio::join!(executor.run_job(&graph, job(), |_| second()), stop);
    let report = report.unwrap();
    assert!(matches!(report.outcomes[..], [TaskOutcome::Stopped, TaskOutcome::Stopped]));
    assert_eq!(report.stats.started, 0);
}

#[tokio::test(start_paused = true)]
async fn tasks_can_add_dependencies_of_waiting_tasks() {
    let mut graph = GraphBuilder::new();
    graph.task("plan", ()).task("end", ()).depends_on("end", "plan");
    let graph = graph.build().unwrap();
    let (plan, end) = (graph.find("plan").unwrap(), graph.find("end").unwrap());
    let (sender, receiver) = TaskSender::<u32, String>::channel();
    let order = Arc::new(Mutex::new(Vec::new()));
    let seen = order.clone();
    let report = executor(2)
        .run_job(&graph, job().new_tasks(receiver), move |stage| {
            let (sender, order) = (sender.clone(), seen.clone());
            async move {
                if stage.task == plan {
                    let mut steps = Vec::new();
                    for step in 0..3 {
                        let needs = Needs::nothing().of("workers", 1);
                        let after = steps.last().copied().into_iter().collect();
                        let task =
                            NewTask { id: format!("step {step}"), needs, after, before: vec![end], rank: 1 };
                        let seen = order.clone();
                        let id = sender.add(task, move |stage: Stage| {
                            let seen = seen.clone();
                            async move {
                                seen.lock().unwrap().push(stage.task);
                                second().await
                            }
                        });
                        steps.push(id.await.unwrap());
                    }
                }
                order.lock().unwrap().push(stage.task);
                second().await
            }
        })
        .await
        .unwrap();
    let order = order.lock().unwrap().clone();
    assert_eq!(order.last(), Some(&end), "{order:?}");
    assert_eq!((order.len(), report.outcomes.len(), report.stats.done), (5, 5, 5));
    // The steps run one after another, the first beside the task that added it, and then the end.
    assert_eq!(report.stats.wall, Duration::from_secs(4));
}

#[tokio::test(start_paused = true)]
async fn invalid_additions_are_refused_with_a_reason() {
    let mut graph = GraphBuilder::new();
    graph.task("a", ()).task("b", ()).task("c", ()).depends_on("b", "a").depends_on("c", "b");
    let graph = graph.build().unwrap();
    let [a, b, c] = ["a", "b", "c"].map(|id| graph.find(id).unwrap());
    let (sender, receiver) = TaskSender::<u32, String>::channel();
    let errors = Arc::new(Mutex::new(Vec::new()));
    let (observed, mine) = (errors.clone(), sender.clone());
    let report = executor(1)
        .run_job(&graph, job().new_tasks(receiver), move |stage| {
            let (sender, observed) = (mine.clone(), observed.clone());
            async move {
                if stage.task == a {
                    let new = |id: &str, after: &[TaskId], before: &[TaskId], gpus| NewTask {
                        id: id.to_owned(),
                        after: after.to_vec(),
                        before: before.to_vec(),
                        needs: Needs::nothing().of("gpus", gpus),
                        rank: 0,
                    };
                    for task in [new("x", &[c], &[b], 0), new("y", &[], &[a], 0), new("z", &[], &[], 1)] {
                        let error = sender.add(task, |_| second()).await.unwrap_err();
                        observed.lock().unwrap().push(error.to_string());
                    }
                }
                Step::Done(1)
            }
        })
        .await
        .unwrap();
    assert_eq!(report.stats.done, 3);
    let errors = errors.lock().unwrap().clone();
    assert_eq!(errors[0], "cannot add task `x` as a dependency of a task that it depends on");
    assert_eq!(errors[1], "cannot add task `y` as a dependency of a task that may have started");
    assert_eq!(errors[2], "invalid number 1 of resource `gpus` for task `z`: expected at most 0");
    let late = sender.add(NewTask { id: "late".to_owned(), ..NewTask::default() }, |_| second()).await;
    assert!(matches!(late, Err(Error::Ended { id }) if id == "late"));
}

#[tokio::test(start_paused = true)]
async fn a_task_added_after_a_failed_dependency_is_skipped() {
    let graph = graph(1);
    let failing = graph.find("0").unwrap();
    let (sender, receiver) = TaskSender::<u32, String>::channel();
    let report = executor(2)
        .run_job(&graph, job().new_tasks(receiver), move |_| {
            let sender = sender.clone();
            async move {
                let task = NewTask { id: "after".to_owned(), after: vec![failing], ..NewTask::default() };
                sender.add(task, |_| second()).await.unwrap();
                Step::Failed("no".to_owned())
            }
        })
        .await
        .unwrap();
    assert!(matches!(report.outcomes[1], TaskOutcome::Skipped(task) if task == failing));
}

#[tokio::test(start_paused = true)]
async fn progress_can_be_read_as_a_stream() {
    let graph = graph(2);
    let (observe, stream) = progress();
    let report = executor(1).run_job(&graph, job().observe(observe), |_| second()).await.unwrap();
    assert_eq!(report.stats.done, 2);
    let [first, second] = [0, 1].map(TaskId::from_index);
    let started = |task| Progress::Started(Stage { task, number: 0, retry: 0 });
    let observed: Vec<_> = stream.collect().await;
    assert_eq!(observed, [started(first), Progress::Done(first), started(second), Progress::Done(second)]);
}

#[tokio::test(start_paused = true)]
async fn time_limits_can_differ_by_task() {
    let graph = graph(3);
    let limit = |task: TaskId| (task.index() == 1).then_some(Duration::from_millis(300));
    let report = executor(3).run_job(&graph, job().time_max(limit), |_| second()).await.unwrap();
    let [TaskOutcome::Done(_), TaskOutcome::Failed(failure), TaskOutcome::Done(_)] = &report.outcomes[..]
    else {
        panic!("{:?}", report.outcomes)
    };
    assert!(matches!(failure, TaskFailure::TimedOut(after) if *after == Duration::from_millis(300)));
    assert_eq!(failure.to_string(), "ran longer than 300ms");
}

#[tokio::test(start_paused = true)]
async fn the_load_limits_workers_and_no_other_pool() {
    // Under load from the third second on.
    let begun = Instant::now();
    let sampler = move || {
        let cpu_pressure = if begun.elapsed() > Duration::from_secs(3) { 0.9 } else { 0.0 };
        LoadSample { cpu_pressure, ..LoadSample::default() }
    };
    let follow = LoadOptions { sampler: Arc::new(sampler), ..LoadOptions::default() };
    let resources = Resources::new([("workers", 64), ("agents", 8)]);
    let mut executor = Executor::new(Limits { resources, ..Limits::default() });
    executor.workers = Workers { follow: Some(follow) };
    let graph = graph(400);
    let is_agent = |task: TaskId| task.index().is_multiple_of(10);
    let needs = move |task| Needs::nothing().of(if is_agent(task) { "agents" } else { "workers" }, 1);
    let most = Mutex::new(Vec::new());
    let stats = executor.stats_reader();
    let report = executor
        .run_inline(&graph, Job::new().needs(needs), |_| {
            let stats = stats();
            let used = |pool: &str| stats.pool(pool).unwrap().used;
            most.lock().unwrap().push((begun.elapsed(), used("workers"), used("agents")));
            second()
        })
        .await
        .unwrap();
    assert_eq!(report.stats.done, 400);
    let most = most.lock().unwrap();
    let peak = |from: u64, to: u64| {
        let during = most.iter().filter(|(at, ..)| (from..to).contains(&(at.as_millis() as u64)));
        during.map(|(_, workers, _)| *workers).max().unwrap()
    };
    let processors = std::thread::available_parallelism().unwrap().get() as u32;
    assert!(peak(0, 400) <= processors, "starts with one worker per processor");
    assert!(peak(2000, 3000) > processors, "grows without load");
    assert_eq!(peak(8000, 60_000), 1, "shrinks under load");
    assert_eq!(report.stats.pool("agents").unwrap().peak, 8);
    assert!(report.stats.lost.worker > Duration::from_secs(60), "{:?}", report.stats.lost);
}

#[tokio::test(start_paused = true)]
async fn a_stage_that_needs_more_than_the_admitted_workers_runs_alone() {
    // The load never permits more than one worker.
    let sampler = || LoadSample { cpu_pressure: 0.9, ..LoadSample::default() };
    let follow = LoadOptions { sampler: Arc::new(sampler), ..LoadOptions::default() };
    let mut executor = executor(4);
    executor.workers = Workers { follow: Some(follow) };
    let graph = graph(6);
    let needs = |task: TaskId| Needs::nothing().of("workers", if task.index() < 2 { 4 } else { 1 });
    let run = executor.run_job(&graph, Job::new().needs(needs), |_| second());
    let report = tokio::time::timeout(Duration::from_secs(600), run).await.expect("the run ends").unwrap();
    assert_eq!(report.stats.done, 6);
}

#[tokio::test(start_paused = true)]
async fn a_task_of_another_run_is_refused() {
    let graph = graph(1);
    let (sender, receiver) = TaskSender::<u32, String>::channel();
    let elsewhere = TaskId::from_index(99);
    let report = executor(1)
        .run_job(&graph, job().new_tasks(receiver), move |_| {
            let sender = sender.clone();
            async move {
                for (after, before) in [(vec![elsewhere], vec![]), (vec![], vec![elsewhere])] {
                    let task = NewTask { id: "x".to_owned(), after, before, ..NewTask::default() };
                    let error = sender.add(task, |_| second()).await.unwrap_err();
                    assert_eq!(error.to_string(), "unknown task number 99 in task `x`");
                }
                Step::Done(1)
            }
        })
        .await
        .unwrap();
    assert_eq!(report.stats.done, 1, "{:?}", report.outcomes);
}
