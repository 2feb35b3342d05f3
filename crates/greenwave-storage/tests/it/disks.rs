//! Tests of a store on a full disk: a small in-memory file system that a child process mounts in a
//! private namespace.

use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use greenwave_storage::{Error, SegmentColdTier, SegmentOptions, Store, StoreOptions};

use crate::{contents, skipped};

/// Environment variable that passes the mount point to the child process, which runs this test
/// binary.
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
fn a_full_disk_loses_nothing_and_the_error_names_it() {
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
        return skipped("this system does not allow mounting a file system in a private namespace");
    }
    let output = output.unwrap();
    let printed = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    assert!(output.status.success() && printed.contains("1 passed"), "{printed}");
}

#[tokio::test]
#[ignore = "runs as a child process of the previous test"]
async fn on_a_full_disk() {
    let Some(mounted) = std::env::var_os(DIR) else { return };
    let dir = Path::new(&mounted).join("store");
    // A file that takes up space and is removed later.
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
        // Contents that do not fit on the disk stay in memory.
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
