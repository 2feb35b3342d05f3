//! Distributes blobs over messages of limited size.

use crate::Digest;

/// Bytes of a message that a blob takes besides its content: its digest, a status and lengths.
const OVERHEAD_BYTES: u64 = 160;
/// Maximum number of blobs in a message.
const BLOBS_MAX: usize = 1000;

/// Blobs by how they are transferred. The numbers are positions in the caller's list.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Plan {
    /// Blobs that go together in one message.
    pub(super) batches: Vec<Vec<usize>>,
    /// Blobs that are too large for a message.
    pub(super) streamed: Vec<usize>,
}

impl Plan {
    pub(super) fn new<'a>(blobs: impl IntoIterator<Item = &'a Digest>, batch_bytes_max: u64) -> Self {
        let mut plan = Self::default();
        let mut filled = 0;
        for (position, digest) in blobs.into_iter().enumerate() {
            let bytes = digest.bytes.saturating_add(OVERHEAD_BYTES);
            if bytes > batch_bytes_max {
                plan.streamed.push(position);
                continue;
            }
            match plan.batches.last_mut() {
                Some(batch) if batch.len() < BLOBS_MAX && filled + bytes <= batch_bytes_max => {
                    batch.push(position);
                    filled += bytes;
                }
                _ => {
                    plan.batches.push(vec![position]);
                    filled = bytes;
                }
            }
        }
        plan
    }
}
