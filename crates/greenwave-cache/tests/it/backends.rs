//! Runs the conformance tests on the crate's backends, and tests their limits.

use std::sync::Arc;

use greenwave_cache::conformance::BackendFixture;
use greenwave_cache::{Backend, DiskBackend, DiskOptions, Key, KeyBuilder, MemoryBackend};

fn key(number: u64) -> Key {
    KeyBuilder::new("backends", 1).number(number).finish()
}

mod memory {
    use super::*;

    struct Memory(Arc<MemoryBackend>);

    impl BackendFixture for Memory {
        async fn open(&self) -> Arc<dyn Backend> {
            self.0.clone()
        }
    }

    greenwave_cache::backend_conformance!(Memory(Arc::new(MemoryBackend::new(1000, 1 << 20).unwrap())));

    #[tokio::test]
    async fn the_size_limit_holds() {
        let backend = MemoryBackend::new(1000, 100_000).unwrap();
        for number in 0..200 {
            backend.put(&key(number), vec![0; 1000].into(), None).await.unwrap();
        }
        let stats = backend.stats();
        assert!(stats.weight <= 100_000 && stats.entries > 70, "{stats:?}");
    }
}

mod disk {
    use super::*;

    struct Disk(tempfile::TempDir);

    impl BackendFixture for Disk {
        async fn open(&self) -> Arc<dyn Backend> {
            Arc::new(DiskBackend::open(self.0.path(), DiskOptions::default()).unwrap())
        }
    }

    greenwave_cache::backend_conformance!(Disk(tempfile::tempdir().unwrap()));

    #[tokio::test]
    async fn backends_on_one_directory_see_each_others_changes() {
        let dir = tempfile::tempdir().unwrap();
        let one = DiskBackend::open(dir.path(), DiskOptions::default()).unwrap();
        let two = DiskBackend::open(dir.path(), DiskOptions::default()).unwrap();
        one.put(&key(1), "one".into(), None).await.unwrap();
        two.put(&key(2), "two".into(), None).await.unwrap();
        assert_eq!(two.get(&key(1)).await.unwrap().unwrap(), "one");
        assert_eq!(one.get_many(&[key(2)]).await.unwrap(), [Some("two".into())]);
        two.remove(&key(1)).await.unwrap();
        assert_eq!(one.list().await.unwrap(), [key(2)]);
    }

    #[tokio::test]
    async fn the_size_limit_holds_and_old_entries_go_first() {
        let dir = tempfile::tempdir().unwrap();
        let options = DiskOptions { disk_bytes_max: Some(100_000), compress: false };
        let backend = DiskBackend::open(dir.path(), options).unwrap();
        for number in 0..300 {
            backend.put(&key(number), vec![7; 1000].into(), None).await.unwrap();
            assert!(backend.stats().disk_bytes <= 100_000);
        }
        assert!(backend.get(&key(299)).await.unwrap().is_some());
        assert!(backend.get(&key(0)).await.unwrap().is_none());
    }
}
