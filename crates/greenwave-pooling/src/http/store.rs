//! Where responses are kept. Knows nothing of whether they may be.

use std::collections::{HashMap, VecDeque};
use std::fmt::Debug;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use bytes::Bytes;
use http::Request;
use http::header::HeaderMap;
use http_cache_semantics::CachePolicy;
use parking_lot::Mutex;

use super::{has, value_of};

/// A response that is kept, with what is known of how long it is good.
#[derive(Debug, Clone)]
pub struct StoredResponse {
    pub(super) id: u64,
    pub(super) policy: CachePolicy,
    headers: HeaderMap,
    pub(super) body: Bytes,
    stored: SystemTime,
}

static NEXT_ID: AtomicU64 = AtomicU64::new(0);

impl StoredResponse {
    pub(super) fn new(policy: CachePolicy, headers: HeaderMap, body: Bytes, stored: SystemTime) -> Self {
        // Ids differ; nothing else hangs on their order.
        Self { id: NEXT_ID.fetch_add(1, Ordering::Relaxed), policy, headers, body, stored }
    }

    /// Bytes of the body.
    #[must_use]
    pub fn body_bytes(&self) -> usize {
        self.body.len()
    }

    /// Since when it has been stale.
    pub(super) fn stale_for(&self, now: SystemTime) -> Duration {
        let fresh_for = self.policy.time_to_live(self.stored) + self.policy.age(self.stored);
        self.policy.age(now).saturating_sub(fresh_for)
    }

    /// Whether a directive of RFC 5861 lets it be given out, so long stale, and the request has nothing against that.
    pub(super) fn may_serve(&self, request: &Request<Bytes>, directive: &str, stale_for: Duration) -> bool {
        let refuses = ["no-cache", "max-age", "min-fresh"].iter().any(|name| has(request.headers(), name));
        let window = value_of(&self.headers, directive).and_then(|seconds| seconds.parse().ok());
        !refuses && window.is_some_and(|seconds| stale_for < Duration::from_secs(seconds))
    }
}

/// Keeps responses by key: all variants of an address together.
///
/// # Contract
///
/// - What was put is what is got, or nothing: a store may forget at any time, and has to if it is bounded.
/// - Calls come concurrently. Of two puts of one key either may be the last.
/// - No call fails: a store that cannot be reached keeps nothing.
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
    kept: Mutex<Kept>,
}

#[derive(Debug, Default)]
struct Kept {
    variants: HashMap<String, Vec<StoredResponse>>,
    /// The one put last is at the back.
    order: VecDeque<String>,
    bytes: usize,
}

impl MemoryHttpStore {
    /// Keeps up to so many keys, and so many bytes of bodies.
    #[must_use]
    pub fn new(keys_max: usize, bytes_max: usize) -> Self {
        Self { keys_max, bytes_max, kept: Mutex::default() }
    }

    /// How many keys are kept.
    #[must_use]
    pub fn len(&self) -> usize {
        self.kept.lock().variants.len()
    }

    /// Whether none is kept.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl Kept {
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
        self.kept.lock().variants.get(key).cloned().unwrap_or_default()
    }

    async fn put(&self, key: &str, variants: Vec<StoredResponse>) {
        let mut kept = self.kept.lock();
        kept.remove(key);
        if variants.is_empty() {
            return;
        }
        kept.bytes += variants.iter().map(StoredResponse::body_bytes).sum::<usize>();
        kept.order.push_back(key.to_owned());
        kept.variants.insert(key.to_owned(), variants);
        while kept.order.len() > self.keys_max || kept.bytes > self.bytes_max {
            let Some(oldest) = kept.order.front().cloned() else { return };
            kept.remove(&oldest);
        }
    }

    async fn remove(&self, key: &str) {
        self.kept.lock().remove(key);
    }
}
