//! A page that shows a run while it lasts, and the data behind it.

use std::fmt;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;

use hyper::header::{AUTHORIZATION, HeaderValue};
use hyper::{HeaderMap, Uri};
use tokio::sync::Semaphore;

use crate::EventFeed;

/// The page. It loads nothing from elsewhere.
pub(crate) const PAGE: &str = include_str!("dashboard.html");

/// `Content-Security-Policy` of the page: it runs its own script, uses its own styles, and asks
/// this server for data. Markup in data has no effect, since scripts and styles are allowed by
/// their hashes, and text cannot be assigned as markup (`require-trusted-types-for`).
pub(crate) const POLICY: &str = "default-src 'none'; \
     script-src 'sha256-BdIKJRAxeyfo9eOUIAQOHMYsC2Fr8LgmWNFOcu5zOp8='; \
     style-src 'sha256-SyBselOHX+X/1HcRpYZVfiC5NVaXr+Oim9fup3fedqA='; \
     connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; \
     require-trusted-types-for 'script'; trusted-types 'none'";

/// Maximum number of event streams. Half of the connections stay free for other requests.
const STREAMS_MAX: usize = 32;

type BoxFuture<T> = Pin<Box<dyn Future<Output = T> + Send>>;
type DetailSource = dyn Fn(String) -> BoxFuture<Option<String>> + Send + Sync;

/// A page at `/` that shows the events of a feed, for
/// [`serve_with`](crate::MetricsEndpoint::serve_with).
///
/// The page expects the events of the crate `greenwave`, which documents them in `docs/metrics.md`.
#[derive(Clone)]
pub struct Dashboard {
    pub(crate) feed: EventFeed,
    pub(crate) streams: Arc<Semaphore>,
    details: Arc<DetailSource>,
    token: Option<String>,
}

impl Dashboard {
    /// Creates a dashboard of a feed.
    pub fn new(feed: EventFeed) -> Self {
        let details: Arc<DetailSource> = Arc::new(|_| Box::pin(std::future::ready(None)));
        Self { feed, streams: Arc::new(Semaphore::new(STREAMS_MAX)), details, token: None }
    }

    /// Sets the source of the details of a feature, as JSON, given the feature's id. `None` means
    /// that the feature does not exist.
    #[must_use]
    pub fn with_details<F>(mut self, details: impl Fn(String) -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = Option<String>> + Send + 'static,
    {
        self.details = Arc::new(move |feature| Box::pin(details(feature)));
        self
    }

    /// Sets the token that requests need on addresses other than the loopback, as the parameter
    /// `token` or as `Authorization: Bearer TOKEN`. Without one, the dashboard is not available
    /// there.
    #[must_use]
    pub fn with_token(mut self, token: impl Into<String>) -> Self {
        self.token = Some(token.into());
        self
    }

    /// Returns whether a request to the endpoint at `address` may see the dashboard.
    pub(crate) fn allows(&self, uri: &Uri, headers: &HeaderMap, address: SocketAddr) -> bool {
        if address.ip().is_loopback() {
            return true;
        }
        let bearer = headers.get(AUTHORIZATION).and_then(|value| bearer(value));
        let given = parameter(uri, "token").or_else(|| bearer.map(str::to_owned));
        match (&self.token, given) {
            (Some(token), Some(given)) => !token.is_empty() && is_same(token, &given),
            _ => false,
        }
    }

    /// Waits until no stream of events is open.
    pub(crate) async fn streams_ended(&self) {
        let all = u32::try_from(STREAMS_MAX).unwrap_or(u32::MAX);
        let _all = self.streams.acquire_many(all).await;
    }

    /// Returns the details of the feature that a request names.
    pub(crate) async fn details(&self, uri: &Uri) -> Option<String> {
        (self.details)(parameter(uri, "id")?).await
    }
}

impl fmt::Debug for Dashboard {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Dashboard").field("feed", &self.feed).finish_non_exhaustive()
    }
}

fn bearer(value: &HeaderValue) -> Option<&str> {
    value.to_str().ok()?.strip_prefix("Bearer ")
}

/// Compares two texts in a time that depends on their lengths only.
fn is_same(one: &str, other: &str) -> bool {
    let differences = one.bytes().zip(other.bytes()).fold(0, |sum, (one, other)| sum | (one ^ other));
    one.len() == other.len() && differences == 0
}

/// Returns the first parameter of a request's query with a name, decoded.
pub(crate) fn parameter(uri: &Uri, name: &str) -> Option<String> {
    let pairs = uri.query()?.split('&').filter_map(|pair| pair.split_once('='));
    let (_, value) = pairs.into_iter().find(|(key, _)| *key == name)?;
    decode(value)
}

/// Decodes `%XX` and `+`. Returns `None` for invalid encodings.
fn decode(text: &str) -> Option<String> {
    let mut bytes = text.bytes();
    let mut decoded = Vec::with_capacity(text.len());
    while let Some(byte) = bytes.next() {
        decoded.push(match byte {
            b'+' => b' ',
            b'%' => hex(bytes.next()?)? * 16 + hex(bytes.next()?)?,
            byte => byte,
        });
    }
    String::from_utf8(decoded).ok()
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).and_then(|digit| u8::try_from(digit).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_decoded() {
        let check = |uri: &'static str, expected: Option<&str>| {
            assert_eq!(parameter(&Uri::from_static(uri), "id").as_deref(), expected, "{uri}");
        };
        check("/feature?id=a", Some("a"));
        check("/feature?x=1&id=a%20b%C3%A4+c&id=d", Some("a bä c"));
        check("/feature?id=", Some(""));
        for uri in
            ["/feature", "/feature?", "/feature?id", "/feature?id=%", "/feature?id=%4", "/feature?id=%ff"]
        {
            check(uri, None);
        }
    }

    #[test]
    fn other_addresses_need_the_token() {
        let allows = |token: Option<&str>, address: &str, uri: &str, bearer: Option<&str>| {
            let dashboard = Dashboard::new(EventFeed::new());
            let dashboard = token.into_iter().fold(dashboard, Dashboard::with_token);
            let mut headers = HeaderMap::new();
            if let Some(bearer) = bearer {
                headers.insert(AUTHORIZATION, bearer.parse().expect("a header"));
            }
            let uri = uri.parse().expect("a path");
            dashboard.allows(&uri, &headers, address.parse().expect("an address"))
        };
        assert!(allows(None, "127.0.0.1:80", "/", None));
        assert!(allows(Some("secret"), "[::1]:80", "/", None));
        let everywhere = "0.0.0.0:80";
        assert!(!allows(None, everywhere, "/", None));
        assert!(!allows(None, everywhere, "/?token=", None));
        assert!(!allows(Some(""), everywhere, "/?token=", None));
        assert!(!allows(Some("secret"), everywhere, "/", None));
        assert!(!allows(Some("secret"), everywhere, "/?token=secre", None));
        assert!(!allows(Some("secret"), everywhere, "/?token=secreT", None));
        assert!(allows(Some("secret"), everywhere, "/?token=secret", None));
        assert!(allows(Some("secret"), everywhere, "/", Some("Bearer secret")));
        assert!(!allows(Some("secret"), everywhere, "/", Some("secret")));
    }
}
