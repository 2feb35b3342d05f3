//! Tests that memory freed by a spill is returned to the operating system, by the resident size of
//! a child process.

use std::process::Command;
use std::sync::Arc;

use greenwave_storage::{SegmentColdTier, SegmentOptions, Store, StoreOptions};

use crate::contents;

/// Environment variable that tells the child process, which runs this test binary, whether to
/// reclaim.
const RECLAIM: &str = "GREENWAVE_STORAGE_RECLAIM";
const MEMORY: u64 = 32 << 20;

fn resident_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() << 10
}

/// Runs in a child process: fills memory with small contents, which large contents then displace.
#[tokio::test]
#[ignore = "runs as a child process of the next test"]
async fn child() {
    let Ok(reclaim) = std::env::var(RECLAIM) else { return };
    let dir = tempfile::tempdir().unwrap();
    let cold = SegmentColdTier::open(dir.path(), SegmentOptions::default()).unwrap();
    let options =
        StoreOptions { memory_bytes_max: MEMORY, reclaim: reclaim == "true", ..StoreOptions::default() };
    let store = Store::open(options, Arc::new(cold)).unwrap();
    for number in 0..MEMORY / 5000 {
        store.put_blob(contents(number, 4000)).await.unwrap();
    }
    assert_eq!(store.stats().spilled_blobs, 0);
    store.put_blob(contents(0, 30 << 20)).await.unwrap();
    assert!(store.stats().memory_bytes_used < MEMORY);
    println!("\nresident {}", resident_bytes());
}

fn resident_of_child(reclaim: bool) -> u64 {
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "reclaim::child", "--ignored", "--nocapture"])
        .env(RECLAIM, reclaim.to_string())
        .output()
        .unwrap();
    let printed = String::from_utf8_lossy(&output.stdout).into_owned();
    let line = printed.lines().find_map(|line| line.strip_prefix("resident "));
    line.unwrap_or_else(|| panic!("{printed}")).parse().unwrap()
}

#[test]
fn memory_freed_by_a_spill_is_returned() {
    let (without_reclaim, with_reclaim) = (resident_of_child(false), resident_of_child(true));
    assert!(
        with_reclaim < MEMORY + (16 << 20),
        "{with_reclaim} bytes are resident with a budget of {MEMORY}"
    );
    assert!(
        with_reclaim + (16 << 20) < without_reclaim,
        "{with_reclaim} bytes are resident with reclaiming, {without_reclaim} without"
    );
}
