//! Computes from headers and times whether a response may be stored, for how long it is fresh, and
//! with which fields it is served (RFC 9111).

use std::time::{Duration, SystemTime};

use http::header::{
    AGE, AUTHORIZATION, CACHE_CONTROL, CONNECTION, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_RANGE, DATE,
    ETAG, EXPIRES, HeaderMap, HeaderName, HeaderValue, IF_MODIFIED_SINCE, IF_NONE_MATCH, LAST_MODIFIED,
    PRAGMA, VARY,
};
use http::{Request, StatusCode, response};

use super::date;
use super::directives::{Directives, seconds, split_list};

/// Upper limit of the lifetime of a response that does not state one.
const HEURISTIC_MAX: Duration = Duration::from_secs(7 * 86_400);

/// Fields that describe the connection or a proxy on it (RFC 9111, section 3.1).
const CONNECTION_FIELDS: [&str; 9] = [
    "connection",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authentication-info",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "transfer-encoding",
    "upgrade",
];

/// Request fields whose values are lists, in which white space around commas is insignificant.
const LISTS: [&str; 6] =
    ["accept", "accept-charset", "accept-encoding", "accept-language", "cache-control", "te"];

/// The properties of a stored response that decide how it may be used.
#[derive(Debug, Clone)]
pub(super) struct Policy {
    status: StatusCode,
    /// The header as served, without `Age`.
    headers: HeaderMap,
    directives: Directives,
    is_shared: bool,
    /// Values of the request fields that `Vary` names.
    selecting: Vec<(HeaderName, Option<String>)>,
    received: SystemTime,
    /// Age at the time of arrival (RFC 9111, section 4.2.3).
    age: Duration,
    lifetime: Duration,
}

/// The cache directives of a request (RFC 9111, section 5.2.1).
#[derive(Debug)]
pub(super) struct RequestDirectives {
    directives: Directives,
    no_cache: bool,
}

/// The result of matching a stored response against a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum PolicyMatch {
    /// May be served as it is.
    Fresh,
    /// May be served after revalidation.
    Stale,
    /// Belongs to another variant.
    Other,
}

impl RequestDirectives {
    pub(super) fn of(headers: &HeaderMap) -> Self {
        let directives = Directives::of(headers);
        let is_http_1_0 = !headers.contains_key(CACHE_CONTROL);
        let no_cache = directives.has("no-cache") || is_http_1_0 && has_pragma_no_cache(headers);
        Self { directives, no_cache }
    }

    pub(super) fn only_if_cached(&self) -> bool {
        self.directives.has("only-if-cached")
    }

    /// Returns true if the request restricts the age of the response beyond its lifetime.
    fn restricts_age(&self) -> bool {
        self.no_cache || self.directives.has("max-age") || self.directives.has("min-fresh")
    }
}

impl Policy {
    /// Computes the policy of a response that was requested at `asked` and arrived at `received`.
    /// Returns `None` if the response may not be stored, or if storing it would be useless.
    pub(super) fn new<B>(
        request: &Request<B>,
        response: &response::Parts,
        asked: SystemTime,
        received: SystemTime,
        is_shared: bool,
    ) -> Option<Self> {
        let cdn = if is_shared { Directives::of_cdn(&response.headers) } else { None };
        let is_targeted = cdn.is_some();
        let directives = cdn.unwrap_or_else(|| Directives::of(&response.headers));
        let selecting = selecting(&response.headers, request.headers())?;
        let mut policy = Self {
            status: response.status,
            headers: storable_fields(&response.headers, &directives, is_shared),
            directives,
            is_shared,
            selecting,
            received,
            age: Duration::ZERO,
            lifetime: Duration::ZERO,
        };
        let no_store = Directives::of(request.headers()).has("no-store");
        let is_authorized = request.headers().contains_key(AUTHORIZATION);
        let explicit = policy.explicit_lifetime(is_targeted);
        if no_store || !policy.may_store(is_authorized, explicit.is_some()) {
            return None;
        }
        policy.age = policy.initial_age(asked);
        policy.lifetime = explicit.unwrap_or_else(|| policy.heuristic_lifetime());
        policy.headers.remove(AGE);
        if !policy.headers.contains_key(DATE)
            && let Some(date) = date::format(received).and_then(|text| HeaderValue::try_from(text).ok())
        {
            // RFC 9110, section 6.6.1: a recipient that stores the response adds the date of
            // arrival.
            policy.headers.insert(DATE, date);
        }
        policy.is_useful().then_some(policy)
    }

    /// Matches the response against a request.
    pub(super) fn matches(
        &self,
        headers: &HeaderMap,
        request: &RequestDirectives,
        now: SystemTime,
    ) -> PolicyMatch {
        if !self.is_selected_by(headers) {
            PolicyMatch::Other
        } else if self.is_fresh(request, now) {
            PolicyMatch::Fresh
        } else {
            PolicyMatch::Stale
        }
    }

    /// Returns true if the request has the same values as the original request in all fields that
    /// `Vary` names (RFC 9111, section 4.1).
    pub(super) fn is_selected_by(&self, headers: &HeaderMap) -> bool {
        self.selecting.iter().all(|(name, value)| normalized(headers, name) == *value)
    }

    /// Returns the age of the response (RFC 9111, section 4.2.3).
    pub(super) fn age(&self, now: SystemTime) -> Duration {
        self.age.saturating_add(since(now, self.received))
    }

    /// Returns the time since the response became stale.
    pub(super) fn stale_for(&self, now: SystemTime) -> Duration {
        self.age(now).saturating_sub(self.lifetime)
    }

    /// Returns true if `directive` (of RFC 5861) allows the stale response to be served and the
    /// request does not object.
    pub(super) fn may_serve_stale(
        &self,
        directive: &str,
        request: &RequestDirectives,
        now: SystemTime,
    ) -> bool {
        let window = self.directives.seconds(directive).unwrap_or_default();
        !request.restricts_age() && !self.forbids_stale() && self.stale_for(now) < window
    }

    /// Returns the status and header of the response as served at `now`.
    pub(super) fn head(&self, now: SystemTime) -> (StatusCode, HeaderMap) {
        let mut headers = self.headers.clone();
        headers.insert(AGE, HeaderValue::from(self.age(now).as_secs()));
        (self.status, headers)
    }

    /// Returns the header of a revalidation request, in which validators of the stored response
    /// replace the client's conditions. Returns `None` if the response has no validators.
    pub(super) fn conditions(&self, request: &HeaderMap) -> Option<HeaderMap> {
        let mut headers = request.clone();
        headers.remove(IF_NONE_MATCH);
        headers.remove(IF_MODIFIED_SINCE);
        let pairs = [(ETAG, IF_NONE_MATCH), (LAST_MODIFIED, IF_MODIFIED_SINCE)];
        let validators: Vec<_> =
            pairs.into_iter().filter_map(|(from, to)| Some((to, self.headers.get(from)?.clone()))).collect();
        if validators.is_empty() {
            return None;
        }
        headers.extend(validators.into_iter().map(|(name, value)| (Some(name), value)));
        Some(headers)
    }

    /// Returns the header of the stored response after a 304, or `None` if the 304 identifies
    /// another response (RFC 9111, section 4.3.4). A 304 without validators refers to the stored
    /// response.
    pub(super) fn updated(&self, not_modified: &response::Parts) -> Option<response::Parts> {
        let differs = |name: HeaderName| {
            not_modified.headers.get(&name).is_some_and(|new| {
                self.headers
                    .get(&name)
                    .is_none_or(|old| opaque_tag(old.as_bytes()) != opaque_tag(new.as_bytes()))
            })
        };
        if differs(ETAG) || !not_modified.headers.contains_key(ETAG) && differs(LAST_MODIFIED) {
            return None;
        }
        let mut headers = self.headers.clone();
        // The age now follows from the `Date` of the 304.
        headers.remove(DATE);
        let body_fields = [CONTENT_LENGTH, CONTENT_ENCODING, CONTENT_RANGE];
        let is_unchanged =
            |name: &HeaderName| body_fields.contains(name) || CONNECTION_FIELDS.contains(&name.as_str());
        for name in not_modified.headers.keys().filter(|name| !is_unchanged(name)) {
            headers.remove(name);
            for value in not_modified.headers.get_all(name) {
                headers.append(name, value.clone());
            }
        }
        let mut parts = not_modified.clone();
        (parts.status, parts.headers) = (self.status, headers);
        Some(parts)
    }

    /// Returns true if the response may be stored (RFC 9111, section 3).
    fn may_store(&self, is_authorized: bool, has_lifetime: bool) -> bool {
        let says = |name: &str| self.directives.has(name);
        let no_store = if says("must-understand") { !is_understood(self.status) } else { says("no-store") };
        let is_final = !self.status.is_informational() && self.status != StatusCode::NOT_MODIFIED;
        let is_for_others = !is_authorized || ["must-revalidate", "public", "s-maxage"].into_iter().any(says);
        let is_for_me = !self.is_shared || !self.directives.has_bare("private") && is_for_others;
        let is_cacheable = has_lifetime
            || says("public")
            || says("private") && !self.is_shared
            || is_heuristically_cacheable(self.status);
        is_final && !no_store && is_for_me && is_cacheable
    }

    /// Returns true for a part of a response. It is used while fresh, and not revalidated.
    pub(super) fn is_partial(&self) -> bool {
        self.status == StatusCode::PARTIAL_CONTENT
    }

    /// Returns true if the stored response could ever avoid or shorten a request.
    fn is_useful(&self) -> bool {
        let lasts = self.age < self.lifetime && !self.directives.has_bare("no-cache");
        if self.is_partial() {
            return lasts;
        }
        let is_validated = self.headers.contains_key(ETAG) || self.headers.contains_key(LAST_MODIFIED);
        let may_be_stale = ["stale-while-revalidate", "stale-if-error"];
        lasts || is_validated || may_be_stale.into_iter().any(|name| self.directives.has(name))
    }

    fn is_fresh(&self, request: &RequestDirectives, now: SystemTime) -> bool {
        if request.no_cache || self.is_always_asked_about() {
            return false;
        }
        let age = self.age(now);
        let age_max = request.directives.seconds("max-age");
        if age_max.is_some_and(|max| max.is_zero() || age > max) {
            return false;
        }
        let spare = request.directives.seconds("min-fresh").unwrap_or_default();
        if age.saturating_add(spare) < self.lifetime {
            return true;
        }
        let patience = match request.directives.seconds("max-stale") {
            Some(_) if request.directives.is_unlimited("max-stale") => Some(Duration::MAX),
            seconds => seconds,
        };
        !self.forbids_stale() && spare.is_zero() && patience.is_some_and(|most| self.stale_for(now) <= most)
    }

    fn is_always_asked_about(&self) -> bool {
        let is_http_1_0 = !self.headers.contains_key(CACHE_CONTROL);
        self.directives.has_bare("no-cache") || is_http_1_0 && has_pragma_no_cache(&self.headers)
    }

    /// Returns true if the response must not be served stale (RFC 9111, section 4.2.4).
    fn forbids_stale(&self) -> bool {
        let says = |name: &str| self.directives.has(name);
        self.is_always_asked_about()
            || says("must-revalidate")
            || self.is_shared && (says("proxy-revalidate") || says("s-maxage"))
    }

    /// Returns the stated lifetime (RFC 9111, section 4.2.1). Directives that target caches like
    /// this one take precedence over `Expires`.
    fn explicit_lifetime(&self, is_targeted: bool) -> Option<Duration> {
        let shared = self.is_shared.then(|| self.directives.seconds("s-maxage")).flatten();
        let seconds = shared.or_else(|| self.directives.seconds("max-age"));
        if seconds.is_some() || is_targeted || !self.headers.contains_key(EXPIRES) {
            return seconds;
        }
        // An invalid date, or several different ones, count as a date in the past.
        let expires = self.date_of(&EXPIRES);
        Some(expires.map_or(Duration::ZERO, |expires| since(expires, self.date())))
    }

    /// Returns a tenth of the time since the last modification (RFC 9111, section 4.2.2).
    fn heuristic_lifetime(&self) -> Duration {
        let may_guess = is_heuristically_cacheable(self.status) || self.directives.has("public");
        let modified = self.date_of(&LAST_MODIFIED).filter(|_| may_guess);
        modified.map_or(Duration::ZERO, |modified| (since(self.date(), modified) / 10).min(HEURISTIC_MAX))
    }

    /// Computes the age at arrival (RFC 9111, section 4.2.3). Of several `Age` values the first one
    /// counts; an invalid one is ignored (section 5.1).
    fn initial_age(&self, asked: SystemTime) -> Duration {
        let lines = self.headers.get(AGE).and_then(|line| line.to_str().ok());
        let said = lines.and_then(|line| split_list(line).next()).and_then(seconds).unwrap_or(0);
        let corrected = Duration::from_secs(said).saturating_add(since(self.received, asked));
        corrected.max(since(self.received, self.date()))
    }

    fn date(&self) -> SystemTime {
        self.date_of(&DATE).unwrap_or(self.received)
    }

    /// Returns the date in a field that has exactly one value.
    fn date_of(&self, name: &HeaderName) -> Option<SystemTime> {
        let mut lines = self.headers.get_all(name).iter();
        let first = lines.next()?;
        let is_one = lines.all(|line| line == first);
        first.to_str().ok().filter(|_| is_one).and_then(|text| date::parse(text, self.received))
    }
}

/// Returns an entity tag without its weakness prefix; other values unchanged.
pub(super) fn opaque_tag(tag: &[u8]) -> &[u8] {
    tag.strip_prefix(b"W/").unwrap_or(tag)
}

fn since(now: SystemTime, before: SystemTime) -> Duration {
    now.duration_since(before).unwrap_or_default()
}

/// Returns true if `Pragma` contains `no-cache` (RFC 9111, section 5.4).
fn has_pragma_no_cache(headers: &HeaderMap) -> bool {
    let lines = headers.get_all(PRAGMA).iter().filter_map(|line| line.to_str().ok());
    lines.flat_map(split_list).any(|part| part.eq_ignore_ascii_case("no-cache"))
}

/// Returns the fields that may be stored: all except fields of the connection and fields excluded
/// by directives (RFC 9111, sections 3.1, 5.2.2.4 and 5.2.2.7).
fn storable_fields(headers: &HeaderMap, directives: &Directives, is_shared: bool) -> HeaderMap {
    let mut stored = headers.clone();
    let lines = headers.get_all(CONNECTION).iter().filter_map(|line| line.to_str().ok());
    let named = lines.flat_map(split_list);
    let listed = directives.fields("no-cache");
    let private = directives.fields("private").filter(|_| is_shared);
    for name in CONNECTION_FIELDS.into_iter().chain(named).chain(listed).chain(private) {
        stored.remove(name.to_ascii_lowercase().as_str());
    }
    stored
}

/// Returns the fields that `Vary` names with their values in the request, or `None` for `Vary: *`.
fn selecting(response: &HeaderMap, request: &HeaderMap) -> Option<Vec<(HeaderName, Option<String>)>> {
    let mut selecting = Vec::new();
    for line in response.get_all(VARY) {
        for name in line.to_str().ok()?.split(',').map(str::trim).filter(|name| !name.is_empty()) {
            // `*` is a valid field name by its grammar, so it is excluded here. Invalid names match
            // nothing.
            let name = HeaderName::from_bytes(name.as_bytes()).ok().filter(|name| name.as_str() != "*")?;
            let value = normalized(request, &name);
            selecting.push((name, value));
        }
    }
    Some(selecting)
}

/// Returns a request field as one line without insignificant differences: the number of lines,
/// white space around the value and around commas of lists, and the case of languages.
fn normalized(headers: &HeaderMap, name: &HeaderName) -> Option<String> {
    let lines: Vec<_> = headers
        .get_all(name)
        .iter()
        .map(|line| String::from_utf8_lossy(line.as_bytes()).trim_matches([' ', '\t']).to_owned())
        .collect();
    let text = lines.join(", ");
    if lines.is_empty() {
        return None;
    }
    if !LISTS.contains(&name.as_str()) {
        return Some(text);
    }
    let text = split_list(&text).collect::<Vec<_>>().join(", ");
    Some(if name == "accept-language" { text.to_ascii_lowercase() } else { text })
}

/// Returns true for statuses that RFC 9110 defines, which this cache implements.
fn is_understood(status: StatusCode) -> bool {
    status.canonical_reason().is_some()
}

/// RFC 9110, section 15.1, except for 206: a part is stored only with a stated lifetime.
fn is_heuristically_cacheable(status: StatusCode) -> bool {
    matches!(status.as_u16(), 200 | 203 | 204 | 300 | 301 | 308 | 404 | 405 | 410 | 414 | 501)
}
