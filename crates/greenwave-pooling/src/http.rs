//! Responses that are kept as RFC 9111 allows. Knows nothing of how a request is sent: the caller brings that.

mod store;

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::header::{CACHE_CONTROL, HeaderMap, HeaderValue, RANGE, VARY};
use http::{Method, Request, Response, StatusCode};
use http_cache_semantics::{AfterResponse, BeforeRequest, CacheOptions, CachePolicy};
use parking_lot::Mutex;

pub use store::{HttpStore, MemoryHttpStore, StoredResponse};

/// How a cache is to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HttpCacheOptions {
    /// Whether several users share it: then `private` is not kept, nor what was asked for with `Authorization` unless that is allowed.
    pub is_shared: bool,
    /// Responses to one address that differ by `Vary`.
    pub variants_max: usize,
    /// A longer body is not kept.
    pub body_bytes_max: usize,
}

impl Default for HttpCacheOptions {
    /// Of one user, 8 variants, 8 MiB.
    fn default() -> Self {
        Self { is_shared: false, variants_max: 8, body_bytes_max: 8 << 20 }
    }
}

type Clock = Arc<dyn Fn() -> SystemTime + Send + Sync>;

/// A cache of responses to `GET`, by RFC 9111 (<https://www.rfc-editor.org/rfc/rfc9111>) and RFC 5861 (`stale-while-revalidate`,
/// `stale-if-error`). Cloning shares it.
///
/// Several callers that miss the same key make one request; the others wait, and take its response if it may be given to them. Where a
/// response may not be kept, the next ones to that address are not made to wait. Requests for ranges and methods other than `GET` pass
/// through; one that is not safe forgets what is kept of its address, unless it fails.
#[derive(Clone)]
pub struct HttpCache {
    shared: Arc<Shared>,
}

struct Shared {
    store: Arc<dyn HttpStore>,
    options: HttpCacheOptions,
    clock: Clock,
    flights: Mutex<Flights>,
}

/// Addresses for which no response may be kept, remembered up to this many.
const PASSED_MAX: usize = 1024;

#[derive(Default)]
struct Flights {
    locks: HashMap<String, Arc<tokio::sync::Mutex<()>>>,
    passed: HashSet<String>,
}

/// What is kept, in the light of a request.
enum Found {
    Fresh(Response<Bytes>),
    /// To be asked about with these headers; how long it has been stale.
    Stale {
        stored: Box<StoredResponse>,
        headers: Box<HeaderMap>,
        stale_for: Duration,
    },
    Nothing,
}

impl HttpCache {
    /// Over a store, by the system's clock.
    #[must_use]
    pub fn new(store: Arc<dyn HttpStore>, options: HttpCacheOptions) -> Self {
        Self::with_clock(store, options, SystemTime::now)
    }

    /// Over a store, by another clock.
    #[must_use]
    pub fn with_clock(
        store: Arc<dyn HttpStore>,
        options: HttpCacheOptions,
        clock: impl Fn() -> SystemTime + Send + Sync + 'static,
    ) -> Self {
        let flights = Mutex::new(Flights::default());
        Self { shared: Arc::new(Shared { store, options, clock: Arc::new(clock), flights }) }
    }

    /// The response to `request`: kept, or had from `fetch`, or kept and found by `fetch` to be still good. May be cancelled.
    ///
    /// # Errors
    /// That of `fetch`, unless what is kept may be given out all the same.
    ///
    /// # Panics
    /// Outside a tokio runtime, where something is to be refreshed in the background.
    pub async fn send<E, F, Fut>(&self, request: Request<Bytes>, fetch: F) -> Result<Response<Bytes>, E>
    where
        E: Send + 'static,
        F: Fn(Request<Bytes>) -> Fut + Clone + Send + Sync + 'static,
        Fut: Future<Output = Result<Response<Bytes>, E>> + Send + 'static,
    {
        if request.method() != Method::GET || request.headers().contains_key(RANGE) {
            return self.pass(request, fetch).await;
        }
        let key = request.uri().to_string();
        match self.find(&key, &request).await {
            Found::Fresh(response) => return Ok(response),
            Found::Stale { stored, stale_for, .. }
                if stored.may_serve(&request, "stale-while-revalidate", stale_for) =>
            {
                if let Some(response) = self.stale(&stored, &request) {
                    self.refresh(key, request, fetch);
                    return Ok(response);
                }
            }
            Found::Stale { .. } | Found::Nothing => {}
        }
        if has(request.headers(), "only-if-cached") {
            return Ok(status_only(StatusCode::GATEWAY_TIMEOUT));
        }
        self.fetch_once(key, request, fetch).await
    }

    /// Sends what is not cached. RFC 9111, section 4.4: what may have changed is forgotten.
    async fn pass<E, F, Fut>(&self, request: Request<Bytes>, fetch: F) -> Result<Response<Bytes>, E>
    where
        F: Fn(Request<Bytes>) -> Fut,
        Fut: Future<Output = Result<Response<Bytes>, E>>,
    {
        let (is_safe, uri) = (request.method().is_safe(), request.uri().clone());
        let response = fetch(request).await?;
        let is_error = response.status().is_client_error() || response.status().is_server_error();
        if !is_safe && !is_error {
            self.shared.store.remove(&uri.to_string()).await;
            for name in ["location", "content-location"] {
                let named = response.headers().get(name).and_then(|value| value.to_str().ok());
                let named = named.and_then(|named| absolute(named, &uri));
                // Of another host it would let anybody empty a cache.
                if let Some(named) = named.filter(|named| named.authority() == uri.authority()) {
                    self.shared.store.remove(&named.to_string()).await;
                }
            }
        }
        Ok(response)
    }

    /// One request at a time for a key whose responses may be kept; who waited looks again.
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
        let flight = self.shared.flight(&key);
        let _turn = match &flight {
            Some(flight) => Some(flight.lock.lock().await),
            None => None,
        };
        match self.find(&key, &request).await {
            Found::Fresh(response) => Ok(response),
            Found::Stale { stored, headers, stale_for } => {
                self.revalidate(&key, request, *stored, *headers, stale_for, fetch).await
            }
            Found::Nothing => {
                let response = fetch(copy(&request)).await?;
                let policy = self.policy(&request, &response);
                Ok(self.keep(&key, policy, response, None).await)
            }
        }
    }

    async fn revalidate<E, F, Fut>(
        &self,
        key: &str,
        request: Request<Bytes>,
        stored: StoredResponse,
        headers: HeaderMap,
        stale_for: Duration,
        fetch: F,
    ) -> Result<Response<Bytes>, E>
    where
        F: Fn(Request<Bytes>) -> Fut,
        Fut: Future<Output = Result<Response<Bytes>, E>>,
    {
        let mut asking = copy(&request);
        *asking.headers_mut() = headers;
        let may_serve = stored.may_serve(&request, "stale-if-error", stale_for);
        let fetched = fetch(copy(&asking)).await;
        let has_failed = fetched.as_ref().map_or(true, |response| response.status().is_server_error());
        if has_failed
            && may_serve
            && let Some(response) = self.stale(&stored, &request)
        {
            return Ok(response);
        }
        let response = fetched?;
        let now = (self.shared.clock)();
        // By the caller's request, of which `Vary` is to speak, not by the one with conditions added.
        match stored.policy.after_response(&request, &response, now) {
            AfterResponse::NotModified(policy, parts) => {
                let response = Response::from_parts(parts, stored.body.clone());
                Ok(self.keep(key, policy, response, Some(&stored)).await)
            }
            AfterResponse::Modified(..) if response.status() == StatusCode::NOT_MODIFIED => {
                // It speaks of a response that is not the one kept: section 4.3.3 has it asked for without conditions.
                let response = fetch(copy(&request)).await?;
                let policy = self.policy(&request, &response);
                Ok(self.keep(key, policy, response, Some(&stored)).await)
            }
            AfterResponse::Modified(policy, _) => Ok(self.keep(key, policy, response, Some(&stored)).await),
        }
    }

    /// Keeps a response if it may be kept, in place of `old`.
    async fn keep(
        &self,
        key: &str,
        policy: CachePolicy,
        response: Response<Bytes>,
        old: Option<&StoredResponse>,
    ) -> Response<Bytes> {
        let options = self.shared.options;
        let varies_by_all =
            response.headers().get_all(VARY).iter().any(|value| value.as_bytes().contains(&b'*'));
        let may = policy.is_storable() && !varies_by_all && response.body().len() <= options.body_bytes_max;
        self.shared.note(key, may);
        let mut variants = self.shared.store.get(key).await;
        let before = variants.len();
        // A server error does not push out what may still be of use.
        let is_error = response.status().is_server_error();
        if let Some(old) = old.filter(|_| !is_error) {
            variants.retain(|other| other.id != old.id);
        }
        if may {
            let (parts, body) = response.into_parts();
            let stored =
                StoredResponse::new(policy, parts.headers.clone(), body.clone(), (self.shared.clock)());
            variants.insert(0, stored);
            variants.truncate(options.variants_max.max(1));
            self.shared.store.put(key, variants).await;
            return Response::from_parts(parts, body);
        }
        if variants.len() != before {
            self.shared.store.put(key, variants).await;
        }
        response
    }

    async fn find(&self, key: &str, request: &Request<Bytes>) -> Found {
        let now = (self.shared.clock)();
        let mut stale = Found::Nothing;
        for stored in self.shared.store.get(key).await {
            match stored.policy.before_request(request, now) {
                BeforeRequest::Fresh(parts) => {
                    return Found::Fresh(Response::from_parts(parts, stored.body));
                }
                BeforeRequest::Stale { request, matches: true } if matches!(stale, Found::Nothing) => {
                    let stale_for = stored.stale_for(now);
                    stale = Found::Stale {
                        stored: Box::new(stored),
                        headers: Box::new(request.headers),
                        stale_for,
                    };
                }
                BeforeRequest::Stale { .. } => {}
            }
        }
        stale
    }

    fn policy(&self, request: &Request<Bytes>, response: &Response<Bytes>) -> CachePolicy {
        let options = CacheOptions { shared: self.shared.options.is_shared, ..CacheOptions::default() };
        CachePolicy::new_options(request, response, (self.shared.clock)(), options)
    }

    /// What is kept although it is stale; nothing, where the response forbids that (`must-revalidate` and the like, section 4.2.4).
    fn stale(&self, stored: &StoredResponse, request: &Request<Bytes>) -> Option<Response<Bytes>> {
        let mut patient = copy(request);
        patient.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("max-stale"));
        match stored.policy.before_request(&patient, (self.shared.clock)()) {
            BeforeRequest::Fresh(parts) => Some(Response::from_parts(parts, stored.body.clone())),
            BeforeRequest::Stale { .. } => None,
        }
    }

    /// Asks in the background, unless someone is asking already.
    fn refresh<E, F, Fut>(&self, key: String, request: Request<Bytes>, fetch: F)
    where
        E: Send + 'static,
        F: Fn(Request<Bytes>) -> Fut + Clone + Send + Sync + 'static,
        Fut: Future<Output = Result<Response<Bytes>, E>> + Send + 'static,
    {
        let is_asking = self.shared.flights.lock().locks.contains_key(&key);
        if !is_asking {
            let cache = self.clone();
            // Taken here, so that the next caller sees it.
            let flight = self.shared.flight(&key);
            tokio::spawn(async move {
                let refreshed = cache.fetch_once(key, request, fetch).await;
                drop(flight);
                if refreshed.is_err() {
                    tracing::debug!("what is stale could not be refreshed");
                }
            });
        }
    }
}

impl fmt::Debug for HttpCache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HttpCache").field("options", &self.shared.options).finish_non_exhaustive()
    }
}

impl Shared {
    /// The turn of a key; none where nothing is gained by waiting.
    fn flight(self: &Arc<Self>, key: &str) -> Option<Flight> {
        let mut flights = self.flights.lock();
        if flights.passed.contains(key) {
            return None;
        }
        let lock = flights.locks.entry(key.to_owned()).or_default().clone();
        Some(Flight { shared: self.clone(), key: key.to_owned(), lock })
    }

    /// Remembers whether a response could be kept.
    fn note(&self, key: &str, was_kept: bool) {
        let passed = &mut self.flights.lock().passed;
        if was_kept {
            passed.remove(key);
        } else {
            if passed.len() >= PASSED_MAX {
                passed.clear();
            }
            passed.insert(key.to_owned());
        }
    }
}

/// A place at a key's lock, which goes when the last one does.
struct Flight {
    shared: Arc<Shared>,
    key: String,
    lock: Arc<tokio::sync::Mutex<()>>,
}

impl Drop for Flight {
    fn drop(&mut self) {
        let mut flights = self.shared.flights.lock();
        // The map's and this one: clones are made under the lock only.
        if Arc::strong_count(&self.lock) == 2 {
            flights.locks.remove(&self.key);
        }
    }
}

fn copy(request: &Request<Bytes>) -> Request<Bytes> {
    request.clone()
}

fn status_only(status: StatusCode) -> Response<Bytes> {
    let mut response = Response::new(Bytes::new());
    *response.status_mut() = status;
    response
}

fn absolute(named: &str, base: &http::Uri) -> Option<http::Uri> {
    let uri: http::Uri = named.parse().ok()?;
    if uri.authority().is_some() {
        return Some(uri);
    }
    let mut parts = base.clone().into_parts();
    parts.path_and_query = Some(uri.path_and_query()?.clone());
    http::Uri::from_parts(parts).ok()
}

/// Whether `Cache-Control` has a directive.
fn has(headers: &HeaderMap, directive: &str) -> bool {
    value_of(headers, directive).is_some()
}

/// The value of a directive of `Cache-Control`, empty if it has none.
fn value_of<'a>(headers: &'a HeaderMap, directive: &str) -> Option<&'a str> {
    let values = headers.get_all(CACHE_CONTROL).iter().filter_map(|value| value.to_str().ok());
    let mut directives = values.flat_map(|value| value.split(',')).map(str::trim);
    directives.find_map(|one| {
        let (name, value) = one.split_once('=').unwrap_or((one, ""));
        name.trim().eq_ignore_ascii_case(directive).then_some(value.trim().trim_matches('"'))
    })
}
