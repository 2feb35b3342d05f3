//! The jobserver: tokens for our own workers, and for real `make`s inside tasks.

use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use greenwave_process::{Child, Jobserver, Spawn};
use greenwave_scheduler::{Executor, Graph, GraphBuilder, Job, Limits, Needs, Resources, Step};
use tokio::process::Command;

fn graph(tasks: usize) -> Graph<()> {
    let mut graph = GraphBuilder::new();
    for task in 0..tasks {
        graph.task(task.to_string(), ());
    }
    graph.build().unwrap()
}

fn executor(workers: u32, jobserver: &Jobserver) -> Executor {
    let limits = Limits { resources: Resources::new([("workers", workers)]), ..Limits::default() };
    Executor::new(limits).with_jobserver(jobserver.clone())
}

fn job<'a>() -> Job<'a, (), String> {
    Job::new().needs(|_| Needs::nothing().of("workers", 1))
}

#[tokio::test]
async fn no_more_workers_are_used_than_there_are_tokens() {
    let jobserver = Jobserver::new(3).unwrap();
    let executor = executor(8, &jobserver);
    for _ in 0..2 {
        let report = executor
            .run_job(&graph(40), job(), |_| async {
                tokio::time::sleep(Duration::from_millis(2)).await;
                Step::Done(())
            })
            .await
            .unwrap();
        let pool = report.stats.pool("workers").unwrap();
        assert_eq!((report.stats.done, pool.peak), (40, 3), "and the tokens came back from the run before");
        assert!(report.stats.lost.worker > Duration::ZERO);
    }
}

#[tokio::test]
async fn makes_inside_tasks_stay_within_the_budget() {
    if std::process::Command::new("make").arg("--version").output().is_err() {
        assert!(std::env::var_os("GREENWAVE_REQUIRE_SERVICES").is_none(), "`make` is not there");
        return crate::skipped("`make` is not there");
    }
    let dir = tempfile::tempdir().unwrap();
    let log = dir.path().join("log");
    let targets: Vec<String> = (0..6).map(|target| format!("t{target}")).collect();
    let makefile = format!(
        "all: {}\nt%:\n\t@echo + >> {log}; sleep 0.02; echo - >> {log}\n",
        targets.join(" "),
        log = log.display()
    );
    std::fs::write(dir.path().join("Makefile"), makefile).unwrap();
    let jobserver = Jobserver::new(3).unwrap();
    let (offered, directory) = (jobserver.clone(), dir.path().to_owned());
    let report = executor(8, &jobserver)
        .run_job(&graph(4), job(), move |_| {
            let mut make = Command::new("make");
            make.arg("all").current_dir(&directory).stdout(Stdio::null()).stderr(Stdio::piped());
            offered.offer(&mut make);
            async move {
                let mut make = Child::spawn(&mut make).unwrap();
                let status = make.wait().await.unwrap();
                if status.success() { Step::Done(()) } else { Step::Failed(status.to_string()) }
            }
        })
        .await
        .unwrap();
    assert_eq!(report.stats.done, 4, "{:?}", report.outcomes);
    let log = std::fs::read_to_string(log).unwrap();
    let (mut now, mut most) = (0, 0);
    for line in log.lines() {
        now += if line == "+" { 1 } else { -1 };
        most = most.max(now);
    }
    assert_eq!((now, log.lines().count()), (0, 4 * 6 * 2));
    assert!((2..=3).contains(&most), "{most} recipes at once with 3 tokens");
}

/// A part of another test: uses the jobserver of the `make` that starts it.
#[test]
#[ignore = "started by the test below"]
fn child() {
    if std::env::var_os("MAKELEVEL").is_none() {
        return;
    }
    // SAFETY: the descriptors were inherited, so they were open under these numbers before this
    // process opened any.
    let jobserver = unsafe { Jobserver::inherited() }.expect("make offers one");
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let executor = executor(8, &jobserver);
    let graph = graph(40);
    let run = executor.run_job(&graph, job(), |_| async {
        tokio::time::sleep(Duration::from_millis(2)).await;
        Step::Done(())
    });
    let stats = runtime.block_on(run).unwrap().stats;
    assert_eq!(stats.done, 40);
    std::fs::write(std::env::var_os("PEAK").unwrap(), stats.pool("workers").unwrap().peak.to_string())
        .unwrap();
}

#[test]
fn a_jobserver_that_make_offers_is_honoured() {
    let dir = tempfile::tempdir().unwrap();
    let program = std::env::current_exe().unwrap();
    let recipe = format!("+@{} --exact jobserver::child --ignored --nocapture", program.display());
    std::fs::write(dir.path().join("Makefile"), format!("all:\n\t{recipe}\n")).unwrap();
    let peak = dir.path().join("peak");
    let make = std::process::Command::new("make")
        .args(["-j3", "all"])
        .current_dir(dir.path())
        .env("PEAK", &peak)
        .env_remove("MAKEFLAGS")
        .env_remove("CARGO_MAKEFLAGS")
        .output();
    let Ok(make) = make else {
        assert!(std::env::var_os("GREENWAVE_REQUIRE_SERVICES").is_none(), "`make` is not there");
        return crate::skipped("`make` is not there");
    };
    assert!(make.status.success(), "{}", String::from_utf8_lossy(&[make.stdout, make.stderr].concat()));
    assert_eq!(std::fs::read_to_string(peak).unwrap(), "3");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tokens_that_were_given_back_are_not_used_any_more() {
    // Many, one, many, one, so that tokens go back and forth between two runs.
    let phases = || {
        let mut graph = GraphBuilder::new();
        for phase in 0..12 {
            graph.task(format!("one {phase}"), ());
            for task in 0..8 {
                graph.task(format!("many {phase} {task}"), ());
                graph.depends_on(format!("many {phase} {task}"), format!("one {phase}"));
                if phase < 11 {
                    graph.depends_on(format!("one {}", phase + 1), format!("many {phase} {task}"));
                }
            }
        }
        &*Box::leak(Box::new(graph.build().unwrap()))
    };
    let jobserver = Jobserver::new(3).unwrap();
    let (now, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let run = |graph: &'static Graph<()>| {
        let (executor, now, most) = (executor(8, &jobserver), now.clone(), most.clone());
        tokio::spawn(async move {
            let stage = |_| {
                let (now, most) = (now.clone(), most.clone());
                async move {
                    most.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                    tokio::time::sleep(Duration::from_millis(2)).await;
                    now.fetch_sub(1, Ordering::SeqCst);
                    Step::Done(())
                }
            };
            executor.run_job(graph, job(), stage).await.unwrap().stats.done
        })
    };
    let (one, two) = (run(phases()), run(phases()));
    assert_eq!((one.await.unwrap(), two.await.unwrap()), (108, 108));
    // Two tokens, and one that each run has for nothing.
    assert!((2..=4).contains(&most.load(Ordering::SeqCst)), "{most:?} at once");
}

#[tokio::test]
async fn a_spawned_program_finds_it() {
    let dir = tempfile::tempdir().unwrap();
    let peak = dir.path().join("peak");
    let jobserver = Jobserver::new(3).unwrap();
    let mut spawn = Spawn::new(std::env::current_exe().unwrap());
    spawn.args(["--exact", "jobserver::child", "--ignored"]).env("MAKELEVEL", "1").env("PEAK", &peak);
    jobserver.offer_to(&mut spawn);
    let status = Child::start(spawn).unwrap().wait().await.unwrap();
    assert!(status.success(), "{status}");
    let peak: u32 = std::fs::read_to_string(peak).unwrap().parse().unwrap();
    assert!((2..=3).contains(&peak), "{peak} at once with 3 tokens");
}
