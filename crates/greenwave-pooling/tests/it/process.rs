//! The manager of warm child processes.

use greenwave_pooling::{Pool, PoolOptions, Process, manager_conformance};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::process::Command;

manager_conformance!(Process::new(|| Command::new("cat")));

#[tokio::test]
async fn a_warm_process_is_reused_and_a_dead_one_is_replaced() {
    let pool = Pool::new(
        Process::new(|| Command::new("cat")),
        PoolOptions { size_min: 0, size_max: 1, ..PoolOptions::default() },
    );
    for word in ["one\n", "two\n"] {
        let mut cat = pool.get().await.unwrap();
        cat.stdin().unwrap().write_all(word.as_bytes()).await.unwrap();
        let mut answer = vec![0; word.len()];
        cat.stdout().unwrap().read_exact(&mut answer).await.unwrap();
        assert_eq!(answer, word.as_bytes());
    }
    assert_eq!(pool.stats().created, 1);
    let mut cat = pool.get().await.unwrap();
    cat.kill_group().unwrap();
    cat.wait().await.unwrap();
    drop(cat);
    assert_eq!(pool.stats().discarded, 1);
    assert!(pool.get().await.unwrap().id().is_some());
}
