//! A cache of responses by RFC 9111. Knows nothing of how a request is sent: the caller brings
//! that.

mod condition;
mod date;
mod directives;
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

use policy::{Match, Policy, Wishes};
pub use store::{HttpStore, MemoryHttpStore, StoredResponse};

/// Options of a cache. Every value has a meaning.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HttpCacheOptions {
    /// Whether several users share it. A shared cache does not store what is `private`, nor what
    /// was asked for with `Authorization` unless the response allows that; it obeys `s-maxage`,
    /// `proxy-revalidate` and, in place of `Cache-Control` and `Expires`, the `CDN-Cache-Control`
    /// of RFC 9213.
    pub is_shared: bool,
    /// How many responses to one address are stored that differ by `Vary`; zero is as one.
    pub variants_max: usize,
    /// Bytes of a body: a longer one is not stored. With zero, only responses without a body are.
    pub body_bytes_max: usize,
}

impl Default for HttpCacheOptions {
    /// Of one user, 8 variants, 8 MiB.
    fn default() -> Self {
        Self { is_shared: false, variants_max: 8, body_bytes_max: 8 << 20 }
    }
}

type Clock = Arc<dyn Fn() -> SystemTime + Send + Sync>;

/// A cache of responses to `GET`, by RFC 9111 (<https://www.rfc-editor.org/rfc/rfc9111>), RFC 5861
/// (`stale-while-revalidate`, `stale-if-error`) and, if it is shared, RFC 9213
/// (`CDN-Cache-Control`). Cloning shares it.
///
/// Several callers that miss the same key make one request; the others wait, and take its response
/// if it may be given to them. Where a response may not be stored, the next ones to that address
/// are not made to wait.
///
/// - A stored response is handed out with its fields as they came, `Date` and `Expires` included,
///   and with its `Age` in seconds.
/// - A stale one with an `ETag` or `Last-Modified` is asked about. A 304 updates it, also one that
///   repeats neither; one that names another response makes for a second request, without
///   conditions.
/// - `If-None-Match`, `If-Modified-Since` and a `Range` of bytes are met from a stored response
///   with status 200. A response to a request with a range is not stored.
/// - What cannot be understood is stale: a lifetime that is no number, two that differ, an
///   `Expires` that is none of the three forms of a date. Of several values of `Age` the first
///   counts, and one that is no number does not.
/// - A response without a lifetime is fresh for a tenth of the time since its `Last-Modified`, and
///   for a week at most.
///
/// Requests with other methods, and those with `If-Match` or `If-Unmodified-Since`, pass through; a
/// response to a method that is not safe removes what is stored of its address, unless it is an
/// error.
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

/// Addresses for which no response may be stored, remembered up to this many.
const PASSED_MAX: usize = 1024;

#[derive(Default)]
struct Flights {
    locks: HashMap<String, Arc<tokio::sync::Mutex<()>>>,
    passed: HashSet<String>,
}

/// What is stored, in the light of a request.
enum Found {
    Fresh(Box<StoredResponse>),
    /// To be asked about.
    Stale(Box<StoredResponse>),
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

    /// The response to `request`: a stored one, one from `fetch`, or a stored one that `fetch` has
    /// found to be still good. May be cancelled.
    ///
    /// # Errors
    /// That of `fetch`, unless a stale response may be handed out all the same.
    ///
    /// # Panics
    /// Outside a tokio runtime, where something is to be refreshed in the background.
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
        let (key, wishes) = (request.uri().to_string(), Wishes::of(headers));
        match self.find(&key, &request, &wishes).await {
            Found::Fresh(stored) => {
                if let Some(response) = self.apply(&request, &stored) {
                    return Ok(response);
                }
            }
            Found::Stale(stored) if self.may_serve_stale(&stored, "stale-while-revalidate", &wishes) => {
                if let Some(response) = self.apply(&request, &stored) {
                    if !request.headers().contains_key(RANGE) {
                        self.refresh(key, request, fetch);
                    }
                    return Ok(response);
                }
            }
            Found::Stale(_) | Found::Nothing => {}
        }
        if wishes.only_if_cached() {
            return Ok(status_only(StatusCode::GATEWAY_TIMEOUT));
        }
        if request.headers().contains_key(RANGE) {
            return self.pass(request, fetch).await;
        }
        self.fetch_once(key, request, fetch).await
    }

    /// Sends what is not cached. RFC 9111, section 4.4: what may have changed is removed.
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

    /// One request at a time for a key whose responses may be stored; a waiter searches the store again.
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
        let wishes = Wishes::of(request.headers());
        match self.find(&key, &request, &wishes).await {
            Found::Fresh(stored) => match self.apply(&request, &stored) {
                Some(response) => Ok(response),
                None => fetch(request).await,
            },
            Found::Stale(stored) => self.revalidate(&key, request, &wishes, *stored, fetch).await,
            Found::Nothing => self.fetch_anew(&key, &request, None, fetch).await,
        }
    }

    /// Without conditions of this cache's own.
    async fn fetch_anew<E, F, Fut>(
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
        wishes: &Wishes,
        stored: StoredResponse,
        fetch: F,
    ) -> Result<Response<Bytes>, E>
    where
        F: Fn(Request<Bytes>) -> Fut,
        Fut: Future<Output = Result<Response<Bytes>, E>>,
    {
        let conditions = stored.policy.conditions(request.headers());
        let is_conditional = conditions.is_some();
        let mut asking = request.clone();
        if let Some(headers) = conditions {
            *asking.headers_mut() = headers;
        }
        let asked = self.now();
        let fetched = fetch(asking).await;
        let has_failed = fetched.as_ref().map_or(true, |response| response.status().is_server_error());
        if has_failed
            && self.may_serve_stale(&stored, "stale-if-error", wishes)
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
            // It speaks of a response that is not the stored one: section 4.3.3 has it asked for
            // without conditions.
            let mut anew = request.clone();
            anew.headers_mut().remove(http::header::IF_NONE_MATCH);
            anew.headers_mut().remove(http::header::IF_MODIFIED_SINCE);
            let response = self.fetch_anew(key, &anew, Some(&stored), fetch).await?;
            return Ok(self.meet(&request, response));
        };
        let response = Response::from_parts(head, stored.body.clone());
        let response = self.store(key, &request, asked, response, Some(&stored)).await;
        Ok(self.meet(&request, response))
    }

    /// Stores a response if it may be stored, in place of `old` and of others that answer the same
    /// request.
    async fn store(
        &self,
        key: &str,
        request: &Request<Bytes>,
        asked: SystemTime,
        response: Response<Bytes>,
        old: Option<&StoredResponse>,
    ) -> Response<Bytes> {
        let options = self.shared.options;
        let (parts, body) = response.into_parts();
        let policy = Policy::new(request, &parts, asked, self.now(), options.is_shared)
            .filter(|_| body.len() <= options.body_bytes_max);
        self.shared.note(key, policy.is_some());
        let mut variants = self.shared.store.get(key).await;
        let before = variants.len();
        // A server error does not push out what may still be of use; nor does an answer to the
        // client's own condition.
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
            self.shared.store.put(key, variants).await;
        }
        Response::from_parts(parts, body)
    }

    async fn find(&self, key: &str, request: &Request<Bytes>, wishes: &Wishes) -> Found {
        let now = self.now();
        let mut stale = Found::Nothing;
        for stored in self.shared.store.get(key).await {
            match stored.policy.answers(request.headers(), wishes, now) {
                Match::Fresh => return Found::Fresh(Box::new(stored)),
                Match::Stale if matches!(stale, Found::Nothing) => stale = Found::Stale(Box::new(stored)),
                Match::Stale | Match::Other => {}
            }
        }
        stale
    }

    fn now(&self) -> SystemTime {
        (self.shared.clock)()
    }

    fn may_serve_stale(&self, stored: &StoredResponse, directive: &str, wishes: &Wishes) -> bool {
        stored.policy.may_serve_stale(directive, wishes, self.now())
    }

    /// What the request gets of a stored response; `None` where only the origin server can tell.
    fn apply(&self, request: &Request<Bytes>, stored: &StoredResponse) -> Option<Response<Bytes>> {
        let now = self.now();
        condition::apply(request.headers(), stored.response(now), now)
    }

    /// What the request gets of a response that was fetched without its conditions.
    fn meet(&self, request: &Request<Bytes>, response: Response<Bytes>) -> Response<Bytes> {
        condition::apply(request.headers(), response.clone(), self.now()).unwrap_or(response)
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

    /// Remembers whether a response could be stored.
    fn note(&self, key: &str, was_stored: bool) {
        let passed = &mut self.flights.lock().passed;
        if was_stored {
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
