//! A cache of HTTP responses by RFC 9111. The caller supplies the function that sends requests.

mod condition;
mod date;
mod directives;
mod guarded_store;
mod policy;
mod store;

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;

use bytes::Bytes;
use http::header::{IF_MATCH, IF_UNMODIFIED_SINCE, RANGE};
use http::{Method, Request, Response, StatusCode};
use parking_lot::Mutex;

use self::guarded_store::GuardedStore;
use crate::callback;
use policy::{Policy, PolicyMatch, RequestDirectives};
pub use store::{HttpStore, MemoryHttpStore, StoredResponse};

/// Options of an HTTP cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HttpCacheOptions {
    /// Makes this a shared cache, used by several users. A shared cache stores neither `private`
    /// responses nor responses to requests with `Authorization`, unless the response allows it. It
    /// obeys `s-maxage`, `proxy-revalidate` and the `CDN-Cache-Control` of RFC 9213, which takes
    /// precedence over `Cache-Control` and `Expires`.
    pub is_shared: bool,
    /// Maximum number of stored responses for one URL that differ by `Vary`; 0 counts as 1.
    pub variants_max: usize,
    /// Maximum size of a stored body, in bytes. Responses with longer bodies are not stored. With
    /// 0, only responses without a body are stored.
    pub body_bytes_max: usize,
}

impl Default for HttpCacheOptions {
    /// A private cache, 8 variants, 8 MiB.
    fn default() -> Self {
        Self { is_shared: false, variants_max: 8, body_bytes_max: 8 << 20 }
    }
}

type Clock = Arc<dyn Fn() -> SystemTime + Send + Sync>;

/// A cache of responses to `GET`, by RFC 9111 (<https://www.rfc-editor.org/rfc/rfc9111>), RFC 5861
/// (`stale-while-revalidate`, `stale-if-error`) and, if it is shared, RFC 9213
/// (`CDN-Cache-Control`). Clones share the cache.
///
/// Concurrent misses of the same URL make one request. The other callers wait, and reuse its
/// response if they may. If it fails, each of them makes a request of its own, all at once. If it
/// panics or is dropped, the next caller makes the request, and the others wait for that. Once a
/// response to a URL could not be stored, later requests for that URL do not wait for each other.
///
/// - A stored response is returned with its original fields, including `Date` and `Expires`, and
///   with an `Age` in seconds.
/// - A stale response with an `ETag` or `Last-Modified` is revalidated. A 304 updates it, even if
///   the 304 repeats neither field. If the 304 identifies another response, the cache sends a
///   second request without conditions.
/// - `If-None-Match`, `If-Modified-Since` and a `Range` of bytes are evaluated against a
///   stored response with status 200.
/// - A response with status 206, one range and a stated lifetime is stored, the last one for each
///   variant, and answers ranges within it while it is fresh. Parts are not combined. A response
///   with status 200 to a request with a range is not stored.
/// - Values that cannot be parsed make a response stale: a lifetime that is not a number, two
///   different lifetimes, or an `Expires` that is not a date. Of several `Age` values the first one
///   counts; an invalid one is ignored.
/// - A response without a lifetime is fresh for a tenth of the time since its `Last-Modified`, at
///   most a week.
///
/// A call of the store that panics is logged and has no effect: the response then comes from
/// `fetch`. If the clock panics, the system clock is read in its place.
///
/// Requests with other methods, with `If-Match` or with `If-Unmodified-Since` bypass the
/// cache. A successful response to an unsafe method removes the stored responses of its URL.
#[derive(Clone)]
pub struct HttpCache {
    inner: Arc<HttpCacheInner>,
}

struct HttpCacheInner {
    store: GuardedStore,
    options: HttpCacheOptions,
    clock: Clock,
    flights: Mutex<InFlight>,
}

/// Maximum number of URLs recorded as not storable.
const UNSTORABLE_MAX: usize = 1024;

/// Held by the caller that makes the request of a key. The value is true once a request has failed.
type FlightLock = Arc<tokio::sync::Mutex<bool>>;

#[derive(Default)]
struct InFlight {
    locks: HashMap<String, FlightLock>,
    unstorable: HashSet<String>,
}

/// The result of a lookup.
enum CacheLookup {
    Fresh(Box<StoredResponse>),
    /// Must be revalidated.
    Stale(Box<StoredResponse>),
    Miss,
}

impl HttpCache {
    /// Creates a cache on top of `store`, with the system clock.
    #[must_use]
    pub fn new(store: Arc<dyn HttpStore>, options: HttpCacheOptions) -> Self {
        Self::with_clock(store, options, SystemTime::now)
    }

    /// Creates a cache on top of `store`, with another clock.
    #[must_use]
    pub fn with_clock(
        store: Arc<dyn HttpStore>,
        options: HttpCacheOptions,
        clock: impl Fn() -> SystemTime + Send + Sync + 'static,
    ) -> Self {
        let flights = Mutex::new(InFlight::default());
        let store = GuardedStore(store);
        Self { inner: Arc::new(HttpCacheInner { store, options, clock: Arc::new(clock), flights }) }
    }

    /// Returns the response to `request`, from the store or from `fetch`. A stale stored response
    /// is revalidated through `fetch`. May be cancelled.
    ///
    /// # Errors
    /// The error of `fetch`, unless a stale response may be served instead.
    ///
    /// # Panics
    /// Outside a tokio runtime, if a stale response is refreshed in the background.
    pub async fn send<E, F, Fut>(&self, request: Request<Bytes>, fetch: F) -> Result<Response<Bytes>, E>
    where
        E: Send + 'static,
        F: Fn(Request<Bytes>) -> Fut + Clone + Send + Sync + 'static,
        Fut: Future<Output = Result<Response<Bytes>, E>> + Send + 'static,
    {
        let headers = request.headers();
        let is_for_origin = headers.contains_key(IF_MATCH) || headers.contains_key(IF_UNMODIFIED_SINCE);
        if request.method() != Method::GET || is_for_origin {
            return self.pass(request, fetch).await;
        }
        let (key, directives) = (request.uri().to_string(), RequestDirectives::of(headers));
        match self.lookup(&key, &request, &directives).await {
            CacheLookup::Fresh(stored) => {
                if let Some(response) = self.apply(&request, &stored) {
                    return Ok(response);
                }
            }
            CacheLookup::Stale(stored)
                if self.may_serve_stale(&stored, "stale-while-revalidate", &directives) =>
            {
                if let Some(response) = self.apply(&request, &stored) {
                    if !request.headers().contains_key(RANGE) {
                        self.refresh(key, request, fetch);
                    }
                    return Ok(response);
                }
            }
            CacheLookup::Stale(_) | CacheLookup::Miss => {}
        }
        if directives.only_if_cached() {
            return Ok(status_only(StatusCode::GATEWAY_TIMEOUT));
        }
        if request.headers().contains_key(RANGE) {
            return self.fetch_part(&key, request, fetch).await;
        }
        self.fetch_once(key, request, fetch).await
    }

    /// Sends a request that bypasses the cache, and removes the responses that it may have
    /// invalidated (RFC 9111, section 4.4).
    async fn pass<E, F, Fut>(&self, request: Request<Bytes>, fetch: F) -> Result<Response<Bytes>, E>
    where
        F: Fn(Request<Bytes>) -> Fut,
        Fut: Future<Output = Result<Response<Bytes>, E>>,
    {
        let (is_safe, uri) = (request.method().is_safe(), request.uri().clone());
        let response = fetch(request).await?;
        let is_error = response.status().is_client_error() || response.status().is_server_error();
        if !is_safe && !is_error {
            self.inner.store.remove(&uri.to_string()).await;
            for name in ["location", "content-location"] {
                let target = response.headers().get(name).and_then(|value| value.to_str().ok());
                let target = target.and_then(|target| absolute(target, &uri));
                // A response may only invalidate URLs of the same host. Otherwise any host could
                // clear the cache.
                if let Some(target) = target.filter(|target| target.authority() == uri.authority()) {
                    self.inner.store.remove(&target.to_string()).await;
                }
            }
        }
        Ok(response)
    }

    /// Fetches a range, and stores it if the response is a part that may be stored.
    async fn fetch_part<E, F, Fut>(
        &self,
        key: &str,
        request: Request<Bytes>,
        fetch: F,
    ) -> Result<Response<Bytes>, E>
    where
        F: Fn(Request<Bytes>) -> Fut,
        Fut: Future<Output = Result<Response<Bytes>, E>>,
    {
        let (asked, options) = (self.now(), self.inner.options);
        let (parts, body) = fetch(request.clone()).await?.into_parts();
        let is_part =
            parts.status == StatusCode::PARTIAL_CONTENT && condition::part(&parts.headers, &body).is_some();
        let policy = Policy::new(&request, &parts, asked, self.now(), options.is_shared)
            .filter(|_| is_part && body.len() <= options.body_bytes_max);
        if let Some(policy) = policy {
            let mut variants = self.inner.store.get(key).await;
            let is_replaced = |other: &StoredResponse| {
                other.policy.is_partial() && other.policy.is_selected_by(request.headers())
            };
            variants.retain(|other| !is_replaced(other));
            variants.insert(0, StoredResponse::new(policy, body.clone()));
            variants.truncate(options.variants_max.max(1));
            self.inner.store.put(key, variants).await;
        }
        Ok(Response::from_parts(parts, body))
    }

    /// Fetches a response while concurrent requests for the same key wait, and then look up the key
    /// again. If the fetch fails, they no longer wait for each other: with a server that does not
    /// respond, the n-th caller would wait for n timeouts.
    async fn fetch_once<E, F, Fut>(
        &self,
        key: String,
        request: Request<Bytes>,
        fetch: F,
    ) -> Result<Response<Bytes>, E>
    where
        F: Fn(Request<Bytes>) -> Fut,
        Fut: Future<Output = Result<Response<Bytes>, E>>,
    {
        let flight = self.inner.flight(&key);
        let mut guard = match &flight {
            Some(flight) => Some(flight.lock.lock().await).filter(|has_failed| !**has_failed),
            None => None,
        };
        let directives = RequestDirectives::of(request.headers());
        let response = match self.lookup(&key, &request, &directives).await {
            CacheLookup::Fresh(stored) => match self.apply(&request, &stored) {
                Some(response) => Ok(response),
                None => fetch(request).await,
            },
            CacheLookup::Stale(stored) => self.revalidate(&key, request, &directives, *stored, fetch).await,
            CacheLookup::Miss => self.fetch_unconditionally(&key, &request, None, fetch).await,
        };
        if let Some(has_failed) = guard.as_deref_mut() {
            *has_failed = response.is_err();
        }
        response
    }

    /// Fetches a response without adding conditions.
    async fn fetch_unconditionally<E, F, Fut>(
        &self,
        key: &str,
        request: &Request<Bytes>,
        old: Option<&StoredResponse>,
        fetch: F,
    ) -> Result<Response<Bytes>, E>
    where
        F: Fn(Request<Bytes>) -> Fut,
        Fut: Future<Output = Result<Response<Bytes>, E>>,
    {
        let asked = self.now();
        let response = fetch(request.clone()).await?;
        Ok(self.store(key, request, asked, response, old).await)
    }

    async fn revalidate<E, F, Fut>(
        &self,
        key: &str,
        request: Request<Bytes>,
        directives: &RequestDirectives,
        stored: StoredResponse,
        fetch: F,
    ) -> Result<Response<Bytes>, E>
    where
        F: Fn(Request<Bytes>) -> Fut,
        Fut: Future<Output = Result<Response<Bytes>, E>>,
    {
        let conditions = stored.policy.conditions(request.headers());
        let is_conditional = conditions.is_some();
        let mut revalidation = request.clone();
        if let Some(headers) = conditions {
            *revalidation.headers_mut() = headers;
        }
        let asked = self.now();
        let fetched = fetch(revalidation).await;
        let has_failed = fetched.as_ref().map_or(true, |response| response.status().is_server_error());
        if has_failed
            && self.may_serve_stale(&stored, "stale-if-error", directives)
            && let Some(response) = self.apply(&request, &stored)
        {
            return Ok(response);
        }
        let response = fetched?;
        if !is_conditional || response.status() != StatusCode::NOT_MODIFIED {
            return Ok(self.store(key, &request, asked, response, Some(&stored)).await);
        }
        let (not_modified, _) = response.into_parts();
        let Some(head) = stored.policy.updated(&not_modified) else {
            // The 304 identifies a response that is not the stored one. RFC 9111, section 4.3.3,
            // requires a request without conditions.
            let mut unconditional = request.clone();
            unconditional.headers_mut().remove(http::header::IF_NONE_MATCH);
            unconditional.headers_mut().remove(http::header::IF_MODIFIED_SINCE);
            let response = self.fetch_unconditionally(key, &unconditional, Some(&stored), fetch).await?;
            return Ok(self.apply_conditions(&request, response));
        };
        let response = Response::from_parts(head, stored.body.clone());
        let response = self.store(key, &request, asked, response, Some(&stored)).await;
        Ok(self.apply_conditions(&request, response))
    }

    /// Stores a response if allowed. Replaces `old` and other variants that match the request.
    async fn store(
        &self,
        key: &str,
        request: &Request<Bytes>,
        asked: SystemTime,
        response: Response<Bytes>,
        old: Option<&StoredResponse>,
    ) -> Response<Bytes> {
        let options = self.inner.options;
        let (parts, body) = response.into_parts();
        let policy = Policy::new(request, &parts, asked, self.now(), options.is_shared)
            .filter(|policy| body.len() <= options.body_bytes_max && !policy.is_partial());
        self.inner.record_storable(key, policy.is_some());
        let mut variants = self.inner.store.get(key).await;
        let before = variants.len();
        // A server error does not replace a response that may still be useful, and neither does a
        // 304 to a condition of the client.
        let is_other = parts.status.is_server_error() || parts.status == StatusCode::NOT_MODIFIED;
        if !is_other {
            let is_replaced = |other: &StoredResponse| {
                old.is_some_and(|old| old.id == other.id)
                    || policy.is_some() && other.policy.is_selected_by(request.headers())
            };
            variants.retain(|other| !is_replaced(other));
        }
        let is_changed = policy.is_some() || variants.len() != before;
        if let Some(policy) = policy {
            variants.insert(0, StoredResponse::new(policy, body.clone()));
            variants.truncate(options.variants_max.max(1));
        }
        if is_changed {
            self.inner.store.put(key, variants).await;
        }
        Response::from_parts(parts, body)
    }

    async fn lookup(
        &self,
        key: &str,
        request: &Request<Bytes>,
        directives: &RequestDirectives,
    ) -> CacheLookup {
        let now = self.now();
        let (mut stale, mut part) = (CacheLookup::Miss, None);
        for stored in self.inner.store.get(key).await {
            if stored.policy.is_partial() {
                let is_fresh =
                    stored.policy.matches(request.headers(), directives, now) == PolicyMatch::Fresh;
                if is_fresh && self.apply(request, &stored).is_some() {
                    part = Some(stored);
                }
                continue;
            }
            match stored.policy.matches(request.headers(), directives, now) {
                PolicyMatch::Fresh => return CacheLookup::Fresh(Box::new(stored)),
                PolicyMatch::Stale if matches!(stale, CacheLookup::Miss) => {
                    stale = CacheLookup::Stale(Box::new(stored));
                }
                PolicyMatch::Stale | PolicyMatch::Other => {}
            }
        }
        part.map_or(stale, |part| CacheLookup::Fresh(Box::new(part)))
    }

    /// Reads the clock. A panic is logged, and the system clock is read in its place.
    fn now(&self) -> SystemTime {
        callback::call("clock", || (self.inner.clock)()).unwrap_or_else(|error| {
            tracing::error!(%error, "the clock of an HTTP cache failed: using the system clock");
            SystemTime::now()
        })
    }

    fn may_serve_stale(
        &self,
        stored: &StoredResponse,
        directive: &str,
        directives: &RequestDirectives,
    ) -> bool {
        stored.policy.may_serve_stale(directive, directives, self.now())
    }

    /// Builds the response to the request from a stored one, or returns `None` if only the origin
    /// server can do so.
    fn apply(&self, request: &Request<Bytes>, stored: &StoredResponse) -> Option<Response<Bytes>> {
        let now = self.now();
        condition::apply(request.headers(), stored.response(now), now)
    }

    /// Evaluates the client's conditions, which were not part of the fetched request.
    fn apply_conditions(&self, request: &Request<Bytes>, response: Response<Bytes>) -> Response<Bytes> {
        condition::apply(request.headers(), response.clone(), self.now()).unwrap_or(response)
    }

    /// Refreshes a response in the background, unless a request for the key is in flight already.
    fn refresh<E, F, Fut>(&self, key: String, request: Request<Bytes>, fetch: F)
    where
        E: Send + 'static,
        F: Fn(Request<Bytes>) -> Fut + Clone + Send + Sync + 'static,
        Fut: Future<Output = Result<Response<Bytes>, E>> + Send + 'static,
    {
        let is_in_flight = self.inner.flights.lock().locks.contains_key(&key);
        if !is_in_flight {
            let cache = self.clone();
            // Taken before the task is spawned, so that the next caller sees the request in flight.
            let flight = self.inner.flight(&key);
            tokio::spawn(async move {
                let refreshed = cache.fetch_once(key, request, fetch).await;
                drop(flight);
                if refreshed.is_err() {
                    tracing::debug!("cannot refresh a stale response");
                }
            });
        }
    }
}

impl fmt::Debug for HttpCache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HttpCache").field("options", &self.inner.options).finish_non_exhaustive()
    }
}

impl HttpCacheInner {
    /// Joins the requests in flight for a key. Returns `None` if responses for the key are not
    /// storable, so that waiting would be pointless.
    fn flight(self: &Arc<Self>, key: &str) -> Option<Flight> {
        let mut flights = self.flights.lock();
        if flights.unstorable.contains(key) {
            return None;
        }
        let lock = flights.locks.entry(key.to_owned()).or_default().clone();
        Some(Flight { cache: self.clone(), key: key.to_owned(), lock })
    }

    /// Records whether a response for the key could be stored.
    fn record_storable(&self, key: &str, was_stored: bool) {
        let unstorable = &mut self.flights.lock().unstorable;
        if was_stored {
            unstorable.remove(key);
        } else {
            if unstorable.len() >= UNSTORABLE_MAX {
                unstorable.clear();
            }
            unstorable.insert(key.to_owned());
        }
    }
}

/// A share in the lock of a key. The lock is removed with its last share.
struct Flight {
    cache: Arc<HttpCacheInner>,
    key: String,
    lock: FlightLock,
}

impl Drop for Flight {
    fn drop(&mut self) {
        let mut flights = self.cache.flights.lock();
        // One reference is held by the map and one by `self`. Clones are made under the lock only.
        if Arc::strong_count(&self.lock) == 2 {
            flights.locks.remove(&self.key);
        }
    }
}

fn status_only(status: StatusCode) -> Response<Bytes> {
    let mut response = Response::new(Bytes::new());
    *response.status_mut() = status;
    response
}

fn absolute(target: &str, base: &http::Uri) -> Option<http::Uri> {
    let uri: http::Uri = target.parse().ok()?;
    if uri.authority().is_some() {
        return Some(uri);
    }
    let mut parts = base.clone().into_parts();
    parts.path_and_query = Some(uri.path_and_query()?.clone());
    http::Uri::from_parts(parts).ok()
}
