//! Tests of leases. Several processes are simulated by opening the backend and the leases several
//! times.

use std::convert::Infallible;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use greenwave_cache::{
    BoxError, ComputeError, DiskBackend, DiskOptions, FileLeases, Key, KeyBuilder, Lease, Leases, Persist,
    Record, Tier, Tiered, TieredOptions,
};

fn key(number: u64) -> Key {
    KeyBuilder::new("leases", 1).number(number).finish()
}

fn record() -> Record {
    Record { schema: 1, created_ms: 0, cost: Duration::ZERO, tags: vec![], payload: "computed".into() }
}

/// Opens the backend and leases as a separate process would.
fn process(dir: &Path) -> Tiered {
    let backend = Arc::new(DiskBackend::open(dir.join("results"), DiskOptions::default()).unwrap());
    let tier = Tier::new("disk", backend);
    let leases = FileLeases::open(dir.join("leases")).unwrap();
    Tiered::new(vec![tier], TieredOptions { leases: Some(Arc::new(leases)), ..TieredOptions::new(1) })
}

#[tokio::test(start_paused = true)]
async fn a_lease_has_one_holder_at_a_time() {
    let dir = tempfile::tempdir().unwrap();
    let (one, two) = (FileLeases::open(dir.path()).unwrap(), FileLeases::open(dir.path()).unwrap());
    let held = one.acquire(&key(1)).await.unwrap();
    let other = two.acquire(&key(2)).await.unwrap();
    // A second acquisition by the same holder waits too.
    for leases in [&one, &two] {
        let waiting = tokio::time::timeout(Duration::from_secs(1), leases.acquire(&key(1))).await;
        assert!(waiting.is_err());
    }
    drop(held);
    let held = two.acquire(&key(1)).await.unwrap();
    drop((held, other));
    let left: Vec<u64> =
        std::fs::read_dir(dir.path()).unwrap().map(|it| it.unwrap().metadata().unwrap().len()).collect();
    assert!(left.is_empty() || left == [0], "files remain: {left:?}");
}

#[tokio::test(start_paused = true)]
async fn concurrent_processes_compute_once() {
    let dir = tempfile::tempdir().unwrap();
    let runs = Arc::new(AtomicUsize::new(0));
    let task = |_| {
        let (tiered, runs) = (process(dir.path()), runs.clone());
        tokio::spawn(async move {
            let compute = || async {
                runs.fetch_add(1, Ordering::Relaxed);
                tokio::time::sleep(Duration::from_millis(50)).await;
                Ok::<_, Infallible>((record(), Persist::Yes))
            };
            let key = key(1);
            let (one, two) =
                tokio::join!(tiered.get_or_compute(&key, compute), tiered.get_or_compute(&key, compute));
            assert_eq!((one, two), (Ok(record()), Ok(record())));
        })
    };
    let tasks: Vec<_> = (0..6).map(task).collect();
    for task in tasks {
        task.await.unwrap();
    }
    assert_eq!(runs.load(Ordering::Relaxed), 1);
}

#[tokio::test]
async fn queued_writes_finish_before_the_lease_is_released() {
    let dir = tempfile::tempdir().unwrap();
    let writes = greenwave_cache::WriteMode::Back { queued_max: 8 };
    let process = || {
        let backend =
            Arc::new(DiskBackend::open(dir.path().join("results"), DiskOptions::default()).unwrap());
        let leases = Arc::new(FileLeases::open(dir.path().join("leases")).unwrap());
        let tier = Tier { writes, ..Tier::new("disk", backend) };
        Tiered::new(vec![tier], TieredOptions { leases: Some(leases), ..TieredOptions::new(1) })
    };
    let (one, two) = (process(), process());
    let computed = one.get_or_compute(&key(1), async || Ok::<_, Infallible>((record(), Persist::Yes))).await;
    assert_eq!(computed, Ok(record()));
    assert_eq!(two.get(&key(1)).await, Some(record()));
}

#[tokio::test]
async fn unpersisted_records_are_not_stored() {
    let dir = tempfile::tempdir().unwrap();
    let tiered = process(dir.path());
    let shared = tiered.get_or_compute(&key(1), async || Ok::<_, Infallible>((record(), Persist::No))).await;
    assert_eq!(shared, Ok(record()));
    assert_eq!(tiered.get(&key(1)).await, None);
    let failed = tiered.get_or_compute(&key(1), async || Err("fails")).await;
    assert_eq!(failed, Err(ComputeError::Failed(Arc::new("fails"))));
}

/// Leases that are never granted.
#[derive(Debug)]
enum Unavailable {
    Failing,
    Hanging,
}

#[async_trait]
impl Leases for Unavailable {
    async fn acquire(&self, _: &Key) -> Result<Lease, BoxError> {
        match self {
            Self::Failing => Err("gone".into()),
            Self::Hanging => std::future::pending().await,
        }
    }
}

#[tokio::test(start_paused = true)]
async fn the_computation_runs_without_a_lease_if_none_is_granted() {
    for leases in [Unavailable::Failing, Unavailable::Hanging] {
        let options = TieredOptions { leases: Some(Arc::new(leases)), ..TieredOptions::new(1) };
        let tiered = Tiered::new(vec![], options);
        let computed =
            tiered.get_or_compute(&key(1), async || Ok::<_, Infallible>((record(), Persist::Yes))).await;
        assert_eq!(computed, Ok(record()));
        assert_eq!(tiered.stats().lease_failures, 1);
    }
}

/// Environment variable that passes the directory to the child process, which runs this test
/// binary.
const CHILD_DIR: &str = "GREENWAVE_CACHE_LEASE_DIR";

/// Runs in a child process: acquires the lease, reports it, and holds it until killed.
#[test]
#[ignore = "runs as a child process of the next test"]
fn child() {
    let Ok(dir) = std::env::var(CHILD_DIR) else { return };
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let _held = runtime.block_on(FileLeases::open(dir).unwrap().acquire(&key(1))).unwrap();
    println!("\nheld");
    loop {
        std::thread::park();
    }
}

#[tokio::test(start_paused = true)]
async fn the_lease_of_a_killed_process_is_released() {
    let dir = tempfile::tempdir().unwrap();
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "leases::child", "--ignored", "--nocapture"])
        .env(CHILD_DIR, dir.path())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let output = std::io::BufReader::new(child.stdout.take().unwrap());
    let held = std::io::BufRead::lines(output).map_while(Result::ok).any(|line| line == "held");
    assert!(held, "the child acquires the lease");
    let leases = FileLeases::open(dir.path()).unwrap();
    let key = key(1);
    let mut waiting = Box::pin(leases.acquire(&key));
    tokio::select! {
        biased;
        _ = &mut waiting => panic!("the child still holds the lease"),
        () = async { for _ in 0..100 { tokio::task::yield_now().await } } => {}
    }
    child.kill().unwrap();
    child.wait().unwrap();
    waiting.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn contending_holders_exclude_each_other() {
    let dir = tempfile::tempdir().unwrap();
    let holders = Arc::new(AtomicUsize::new(0));
    let task = |_| {
        let (leases, holders) = (FileLeases::open(dir.path()).unwrap(), holders.clone());
        tokio::spawn(async move {
            for _ in 0..40 {
                let held = leases.acquire(&key(1)).await.unwrap();
                assert_eq!(holders.fetch_add(1, Ordering::SeqCst), 0);
                tokio::task::yield_now().await;
                holders.fetch_sub(1, Ordering::SeqCst);
                drop(held);
            }
        })
    };
    let tasks: Vec<_> = (0..8).map(task).collect();
    for task in tasks {
        task.await.unwrap();
    }
}
