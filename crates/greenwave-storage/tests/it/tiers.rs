//! Every tier of this crate keeps the contract.

use std::sync::Arc;

use greenwave_storage::conformance::Harness;
use greenwave_storage::{Cold, MemoryCold, SegmentCold, SegmentOptions};

mod memory {
    use super::*;

    struct Memory(Arc<MemoryCold>);

    impl Harness for Memory {
        async fn open(&self) -> Arc<dyn Cold> {
            self.0.clone()
        }
    }

    greenwave_storage::cold_conformance!(Memory(Arc::default()));
}

mod segment {
    use super::*;

    struct Segment(tempfile::TempDir);

    impl Harness for Segment {
        async fn open(&self) -> Arc<dyn Cold> {
            Arc::new(SegmentCold::open(self.0.path(), SegmentOptions::default()).unwrap())
        }
    }

    greenwave_storage::cold_conformance!(Segment(tempfile::tempdir().unwrap()));
}
