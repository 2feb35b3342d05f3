//! Runs a long stream through a slow subscriber in a separate process, and checks that its memory
//! stays constant.

use std::collections::VecDeque;
use std::convert::Infallible;

use bytes::Bytes;
use futures_util::stream;
use greenwave_streaming::{Budget, Fanout, Pull, Sse, SubscriberPolicy};
use greenwave_testkit::random::Random;

/// Length of the stream in bytes, for long runs.
const BYTES: &str = "GREENWAVE_SOAK_BYTES";
/// Marks the child process.
const IS_CHILD: &str = "GREENWAVE_SOAK_CHILD";
/// Budget in bytes.
const BUDGET_BYTES: usize = 1 << 20;
/// Maximum length of a chunk in bytes.
const CHUNK_BYTES_MAX: usize = 64 << 10;
/// Number of batches that the subscriber holds.
const HELD_MAX: usize = 8;
/// Permitted growth of memory after the first tenth of the stream, in KiB.
const GROWTH_KIB_MAX: u64 = 4 << 10;

fn bytes() -> u64 {
    std::env::var(BYTES).ok().and_then(|bytes| bytes.parse().ok()).unwrap_or(40_000_000)
}

/// Returns the peak memory of this process, in KiB.
fn peak_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("this is Linux");
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("the kernel keeps count");
    line.trim().trim_end_matches(" kB").parse().expect("a number")
}

/// Returns numbered events of many sizes, in chunks of random sizes.
fn chunks() -> impl Iterator<Item = Bytes> {
    let mut number = 0_u64;
    let mut text = String::new();
    let mut random = Random::new(1);
    std::iter::repeat_with(move || {
        let size = 1 + random.index(CHUNK_BYTES_MAX);
        while text.len() < size {
            let pad = "x".repeat((number * 7919 % 900) as usize);
            text.push_str(&format!("id: {number}\ndata: {number} {pad}\n\n"));
            number += 1;
        }
        Bytes::from(text.drain(..size).collect::<String>())
    })
}

/// The child process: runs the stream and its subscriber and measures memory.
#[test]
#[ignore = "the child of the test below"]
fn child() {
    if std::env::var_os(IS_CHILD).is_none() {
        return;
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).build().unwrap();
    runtime.block_on(async {
        let budget = Budget::new(BUDGET_BYTES);
        let source = stream::iter(chunks().map(Ok::<_, Infallible>));
        let mut pull = Pull::new(source, Sse::default()).with_budget(budget.clone());
        let fanout = Fanout::new();
        let mut slow = fanout.subscribe(SubscriberPolicy::Wait { queue_max: 4 });
        let reader = tokio::spawn(async move {
            let (mut held, mut expected) = (VecDeque::new(), 0);
            while let Some(batch) = slow.next().await {
                let batch: greenwave_streaming::UnitBatch = batch;
                for unit in batch.iter() {
                    let text = unit.text().unwrap();
                    assert_eq!(text.split(' ').next(), unit.id(), "no unit is lost, cut or mixed up");
                    assert_eq!(unit.id().and_then(|id| id.parse().ok()), Some(expected));
                    expected += 1;
                }
                held.push_back(batch);
                if held.len() > HELD_MAX {
                    held.pop_front();
                }
                tokio::task::yield_now().await;
            }
            expected
        });
        let (bytes, mut early) = (bytes(), None);
        while pull.stats().bytes < bytes {
            fanout.publish(pull.next().await.unwrap().unwrap()).await;
            if pull.stats().bytes > bytes / 10 {
                early.get_or_insert_with(peak_kib);
            }
        }
        let stats = pull.stats();
        drop((fanout, pull));
        assert_eq!(reader.await.unwrap(), stats.units);
        assert_eq!(budget.used(), 0);
        assert!(
            budget.peak() <= BUDGET_BYTES + 2 * CHUNK_BYTES_MAX,
            "overdrawn by a chunk: {}",
            budget.peak()
        );
        // The kernel's counter lags and may even decrease.
        let growth = peak_kib().saturating_sub(early.unwrap());
        assert!(growth <= GROWTH_KIB_MAX, "memory has grown by {growth} KiB");
        println!("\nsoaked {} bytes, peak {} KiB", stats.bytes, peak_kib());
    });
}

#[cfg(target_os = "linux")]
#[test]
fn memory_stays_constant_for_long_streams() {
    let output = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "soak::child", "--ignored", "--nocapture"])
        .env(IS_CHILD, "1")
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    let report = text.lines().find(|line| line.starts_with("soaked ")).expect("the child has done its work");
    println!("{report}");
}
