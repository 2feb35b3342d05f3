//! The storage interface of the HTTP cache, and an implementation in memory.

use std::collections::{HashMap, VecDeque};
use std::fmt::Debug;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

use async_trait::async_trait;
use bytes::Bytes;
use http::Response;
use parking_lot::Mutex;

use super::policy::Policy;

/// A stored response and the policy derived from its header.
#[derive(Debug, Clone)]
pub struct StoredResponse {
    pub(super) id: u64,
    pub(super) policy: Policy,
    pub(super) body: Bytes,
}

static NEXT_ID: AtomicU64 = AtomicU64::new(0);

impl StoredResponse {
    pub(super) fn new(policy: Policy, body: Bytes) -> Self {
        // Ids only need to be unique, so no ordering is needed.
        Self { id: NEXT_ID.fetch_add(1, Ordering::Relaxed), policy, body }
    }

    /// Returns the size of the body in bytes.
    #[must_use]
    pub fn body_bytes(&self) -> usize {
        self.body.len()
    }

    /// Returns the response as served at `now`, with its age.
    pub(super) fn response(&self, now: SystemTime) -> Response<Bytes> {
        let (status, headers) = self.policy.head(now);
        let mut response = Response::new(self.body.clone());
        (*response.status_mut(), *response.headers_mut()) = (status, headers);
        response
    }
}

/// Stores responses by key. All variants of a URL are stored together.
///
/// # Contract
///
/// - `get` returns the variants of the last `put`, or nothing. A store may drop entries at any
///   time; a bounded store must.
/// - Calls are concurrent. After two concurrent puts of a key, either may win.
/// - Calls do not fail. A store that cannot be reached stores nothing. A panic is logged, and the
///   call counts as one that found or stored nothing.
/// - Each call may be cancelled. The key then has its old variants, its new variants, or none.
#[async_trait]
pub trait HttpStore: Debug + Send + Sync + 'static {
    /// Returns the variants of a key.
    async fn get(&self, key: &str) -> Vec<StoredResponse>;

    /// Replaces the variants of a key. An empty list is equivalent to [`remove`](Self::remove).
    async fn put(&self, key: &str, variants: Vec<StoredResponse>);

    /// Removes a key.
    async fn remove(&self, key: &str);
}

/// A store in memory, bounded by number of keys and bytes. It evicts the entry that was put longest
/// ago.
#[derive(Debug)]
pub struct MemoryHttpStore {
    keys_max: usize,
    bytes_max: usize,
    stored: Mutex<StoredKeys>,
}

#[derive(Debug, Default)]
struct StoredKeys {
    variants: HashMap<String, Vec<StoredResponse>>,
    /// Keys in the order in which they were put, the newest at the back.
    order: VecDeque<String>,
    bytes: usize,
}

impl MemoryHttpStore {
    /// Creates a store for at most `keys_max` keys and `bytes_max` bytes of bodies. It stores
    /// nothing if either is zero.
    #[must_use]
    pub fn new(keys_max: usize, bytes_max: usize) -> Self {
        Self { keys_max, bytes_max, stored: Mutex::default() }
    }

    /// Returns the number of stored keys.
    #[must_use]
    pub fn len(&self) -> usize {
        self.stored.lock().variants.len()
    }

    /// Returns true if the store is empty.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl StoredKeys {
    fn remove(&mut self, key: &str) {
        if let Some(variants) = self.variants.remove(key) {
            self.bytes -= variants.iter().map(StoredResponse::body_bytes).sum::<usize>();
            self.order.retain(|other| other != key);
        }
    }
}

#[async_trait]
impl HttpStore for MemoryHttpStore {
    async fn get(&self, key: &str) -> Vec<StoredResponse> {
        self.stored.lock().variants.get(key).cloned().unwrap_or_default()
    }

    async fn put(&self, key: &str, variants: Vec<StoredResponse>) {
        let mut stored = self.stored.lock();
        stored.remove(key);
        if variants.is_empty() {
            return;
        }
        stored.bytes += variants.iter().map(StoredResponse::body_bytes).sum::<usize>();
        stored.order.push_back(key.to_owned());
        stored.variants.insert(key.to_owned(), variants);
        while stored.order.len() > self.keys_max || stored.bytes > self.bytes_max {
            let Some(oldest) = stored.order.front().cloned() else { return };
            stored.remove(&oldest);
        }
    }

    async fn remove(&self, key: &str) {
        self.stored.lock().remove(key);
    }
}
