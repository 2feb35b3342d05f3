//! Where responses are stored. Knows nothing of whether they may be.

use std::collections::{HashMap, VecDeque};
use std::fmt::Debug;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

use async_trait::async_trait;
use bytes::Bytes;
use http::Response;
use parking_lot::Mutex;

use super::policy::Policy;

/// A stored response, with what decides about it.
#[derive(Debug, Clone)]
pub struct StoredResponse {
    pub(super) id: u64,
    pub(super) policy: Policy,
    pub(super) body: Bytes,
}

static NEXT_ID: AtomicU64 = AtomicU64::new(0);

impl StoredResponse {
    pub(super) fn new(policy: Policy, body: Bytes) -> Self {
        // Ids differ; nothing else hangs on their order.
        Self { id: NEXT_ID.fetch_add(1, Ordering::Relaxed), policy, body }
    }

    /// Bytes of the body.
    #[must_use]
    pub fn body_bytes(&self) -> usize {
        self.body.len()
    }

    /// The response as it is handed out now, with its age.
    pub(super) fn response(&self, now: SystemTime) -> Response<Bytes> {
        let (status, headers) = self.policy.head(now);
        let mut response = Response::new(self.body.clone());
        (*response.status_mut(), *response.headers_mut()) = (status, headers);
        response
    }
}

/// Stores responses by key: all variants of an address together.
///
/// # Contract
///
/// - What was put is what is got, or nothing: a store may forget at any time, and has to if it is
///   bounded.
/// - Calls come concurrently. Of two puts of one key either may be the last.
/// - No call fails: a store that cannot be reached stores nothing.
/// - Each call may be cancelled; a key then has its old variants or its new ones, or none.
#[async_trait]
pub trait HttpStore: Debug + Send + Sync + 'static {
    /// The variants of a key.
    async fn get(&self, key: &str) -> Vec<StoredResponse>;

    /// Replaces the variants of a key; none of them is as [`remove`](Self::remove).
    async fn put(&self, key: &str, variants: Vec<StoredResponse>);

    /// Forgets a key.
    async fn remove(&self, key: &str);
}

/// In memory, up to so many keys and bytes; what was put longest ago is forgotten first.
#[derive(Debug)]
pub struct MemoryHttpStore {
    keys_max: usize,
    bytes_max: usize,
    stored: Mutex<Stored>,
}

#[derive(Debug, Default)]
struct Stored {
    variants: HashMap<String, Vec<StoredResponse>>,
    /// The one put last is at the back.
    order: VecDeque<String>,
    bytes: usize,
}

impl MemoryHttpStore {
    /// Stores up to so many keys, and so many bytes of bodies; nothing where either is zero.
    #[must_use]
    pub fn new(keys_max: usize, bytes_max: usize) -> Self {
        Self { keys_max, bytes_max, stored: Mutex::default() }
    }

    /// How many keys are stored.
    #[must_use]
    pub fn len(&self) -> usize {
        self.stored.lock().variants.len()
    }

    /// Whether none is stored.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl Stored {
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
