//! Runs the conformance tests on the crate's cold tiers.

use std::sync::Arc;

use greenwave_storage::conformance::ColdTierFixture;
use greenwave_storage::{ColdTier, MemoryColdTier, SegmentColdTier, SegmentOptions};

mod memory {
    use super::*;

    struct Memory(Arc<MemoryColdTier>);

    impl ColdTierFixture for Memory {
        async fn open(&self) -> Arc<dyn ColdTier> {
            self.0.clone()
        }
    }

    greenwave_storage::cold_conformance!(Memory(Arc::default()));
}

mod segment {
    use super::*;

    struct Segment(tempfile::TempDir);

    impl ColdTierFixture for Segment {
        async fn open(&self) -> Arc<dyn ColdTier> {
            Arc::new(SegmentColdTier::open(self.0.path(), SegmentOptions::default()).unwrap())
        }
    }

    greenwave_storage::cold_conformance!(Segment(tempfile::tempdir().unwrap()));
}
