//! A store on a disk that is full: a real one, a small file system in memory that a child process mounts for itself alone.

use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use greenwave_storage::{Error, SegmentColdTier, SegmentOptions, Store, StoreOptions};

use crate::{contents, skipped};

/// Names the mount point to the child, which is this same test binary.
const DIR: &str = "GREENWAVE_DISK_DIR";

fn open(dir: &Path) -> Store {
    let cold = SegmentColdTier::open(dir, SegmentOptions::default()).unwrap();
    Store::open(StoreOptions { memory_bytes_max: 64 << 10, ..StoreOptions::default() }, Arc::new(cold))
        .unwrap()
}

fn message(error: &Error) -> String {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}

#[test]
fn a_full_disk_loses_nothing_and_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let script = format!("mount -t tmpfs -o size=1m tmpfs \"${DIR}\" && echo mounted && exec \"$0\" \"$@\"");
    let output = Command::new("unshare")
        .args(["--map-root-user", "--mount", "sh", "-c", &script])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", "disks::on_a_full_disk", "--ignored", "--nocapture"])
        .env(DIR, dir.path())
        .output();
    if !output.as_ref().is_ok_and(|output| output.stdout.starts_with(b"mounted")) {
        let required = std::env::var_os("GREENWAVE_REQUIRE_SERVICES").is_some();
        assert!(!required, "no disk could be mounted: {output:?}");
        return skipped("this system lets nobody mount a disk for a process alone");
    }
    let output = output.unwrap();
    let printed = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    assert!(output.status.success() && printed.contains("1 passed"), "{printed}");
}

#[tokio::test]
#[ignore = "the child of the test above"]
async fn on_a_full_disk() {
    let Some(mounted) = std::env::var_os(DIR) else { return };
    let dir = Path::new(&mounted).join("store");
    // What else is on the disk, and will go.
    let other = Path::new(&mounted).join("other");
    std::fs::write(&other, vec![1; 256 << 10]).unwrap();
    let store = open(&dir);
    let mut put = 0;
    let error = loop {
        let result = store.put(&put.to_string(), contents(put, 2000)).await;
        put += 1;
        if let Err(error) = result {
            break error;
        }
    };
    let said = message(&error);
    assert!(said.contains(dir.to_str().unwrap()) && said.contains("No space left"), "{said}");
    let mut refused = 0;
    for _ in 0..40 {
        // Memory takes what the disk does not.
        refused += u32::from(store.put(&put.to_string(), contents(put, 2000)).await.is_err());
        put += 1;
    }
    assert!(refused > 5, "{refused}");
    assert!(store.flush().await.is_err());
    for number in 0..put {
        assert_eq!(store.get(&number.to_string()).await.unwrap(), Some(contents(number, 2000)));
    }
    std::fs::remove_file(other).unwrap();
    store.flush().await.unwrap();
    assert!(store.stats().memory_bytes_used > 0);
    drop(store);
    let store = open(&dir);
    for number in 0..put {
        assert_eq!(store.get(&number.to_string()).await.unwrap(), Some(contents(number, 2000)));
    }
}
