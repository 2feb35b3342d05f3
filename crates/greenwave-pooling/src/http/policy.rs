//! What RFC 9111 says of one response: whether it may be stored, for whom, for how long, and with
//! which fields. Pure functions of headers and times.

use std::time::{Duration, SystemTime};

use http::header::{
    AGE, AUTHORIZATION, CACHE_CONTROL, CONNECTION, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_RANGE, DATE,
    ETAG, EXPIRES, HeaderMap, HeaderName, HeaderValue, IF_MODIFIED_SINCE, IF_NONE_MATCH, LAST_MODIFIED,
    PRAGMA, VARY,
};
use http::{Request, StatusCode, response};

use super::date;
use super::directives::{Directives, seconds, split_list};

/// The longest time for which a response without a lifetime is taken to be fresh.
const HEURISTIC_MAX: Duration = Duration::from_secs(7 * 86_400);

/// Fields that speak of the connection, or of a proxy on it (RFC 9111, section 3.1).
const OF_CONNECTIONS: [&str; 9] = [
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

/// Fields of requests whose value is a list, so that white space around its commas means nothing.
const LISTS: [&str; 6] =
    ["accept", "accept-charset", "accept-encoding", "accept-language", "cache-control", "te"];

/// What decides about a stored response.
#[derive(Debug, Clone)]
pub(super) struct Policy {
    status: StatusCode,
    /// As they are handed out, except for `Age`.
    headers: HeaderMap,
    directives: Directives,
    is_shared: bool,
    /// What the request had in the fields that `Vary` names.
    selecting: Vec<(HeaderName, Option<String>)>,
    received: SystemTime,
    /// Its age when it was received (RFC 9111, section 4.2.3).
    age: Duration,
    lifetime: Duration,
}

/// What a request says of the responses that it takes (RFC 9111, section 5.2.1).
#[derive(Debug)]
pub(super) struct Wishes {
    directives: Directives,
    no_cache: bool,
}

/// Whether a stored response answers a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Match {
    /// It does, as it is.
    Fresh,
    /// It does once the origin server has confirmed it.
    Stale,
    /// It is another variant.
    Other,
}

impl Wishes {
    pub(super) fn of(headers: &HeaderMap) -> Self {
        let directives = Directives::of(headers);
        let is_old = !headers.contains_key(CACHE_CONTROL);
        let no_cache = directives.has("no-cache") || is_old && says_no_cache(headers);
        Self { directives, no_cache }
    }

    pub(super) fn only_if_cached(&self) -> bool {
        self.directives.has("only-if-cached")
    }

    /// Whether it wants a response younger than its lifetime would allow.
    fn is_particular(&self) -> bool {
        self.no_cache || self.directives.has("max-age") || self.directives.has("min-fresh")
    }
}

impl Policy {
    /// The policy of a response that was asked for at `asked` and came at `received`; `None` if it
    /// may not be stored, or if storing it would be of no use.
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
            // RFC 9110, section 6.6.1: who stores it says when it came.
            policy.headers.insert(DATE, date);
        }
        policy.is_useful().then_some(policy)
    }

    /// Whether the response answers the request.
    pub(super) fn answers(&self, headers: &HeaderMap, wishes: &Wishes, now: SystemTime) -> Match {
        if !self.is_selected_by(headers) {
            Match::Other
        } else if self.is_fresh(wishes, now) {
            Match::Fresh
        } else {
            Match::Stale
        }
    }

    /// Whether the request has in all fields that `Vary` names what the stored one had (RFC 9111,
    /// section 4.1).
    pub(super) fn is_selected_by(&self, headers: &HeaderMap) -> bool {
        self.selecting.iter().all(|(name, value)| normalized(headers, name) == *value)
    }

    /// How old the response is (RFC 9111, section 4.2.3).
    pub(super) fn age(&self, now: SystemTime) -> Duration {
        self.age.saturating_add(since(now, self.received))
    }

    /// For how long it has been stale.
    pub(super) fn stale_for(&self, now: SystemTime) -> Duration {
        self.age(now).saturating_sub(self.lifetime)
    }

    /// Whether `directive`, of RFC 5861, allows a response so long stale, and the request has
    /// nothing against that.
    pub(super) fn may_serve_stale(&self, directive: &str, wishes: &Wishes, now: SystemTime) -> bool {
        let window = self.directives.seconds(directive).unwrap_or_default();
        !wishes.is_particular() && !self.forbids_stale() && self.stale_for(now) < window
    }

    /// The status and the fields of a response that is handed out now.
    pub(super) fn head(&self, now: SystemTime) -> (StatusCode, HeaderMap) {
        let mut headers = self.headers.clone();
        headers.insert(AGE, HeaderValue::from(self.age(now).as_secs()));
        (self.status, headers)
    }

    /// The fields of a request that asks whether the response is still good, in place of the
    /// conditions of the client.
    pub(super) fn conditions(&self, request: &HeaderMap) -> Option<HeaderMap> {
        let mut headers = request.clone();
        headers.remove(IF_NONE_MATCH);
        headers.remove(IF_MODIFIED_SINCE);
        let pairs = [(ETAG, IF_NONE_MATCH), (LAST_MODIFIED, IF_MODIFIED_SINCE)];
        let known: Vec<_> =
            pairs.into_iter().filter_map(|(from, to)| Some((to, self.headers.get(from)?.clone()))).collect();
        if known.is_empty() {
            return None;
        }
        headers.extend(known.into_iter().map(|(name, value)| (Some(name), value)));
        Some(headers)
    }

    /// The head that the stored response has after a 304; `None` if that speaks of another response
    /// (RFC 9111, section 4.3.4). One without validators speaks of what it was asked about.
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
        // How old it is now is for the new response to say.
        headers.remove(DATE);
        let of_the_body = [CONTENT_LENGTH, CONTENT_ENCODING, CONTENT_RANGE];
        let is_left_alone =
            |name: &HeaderName| of_the_body.contains(name) || OF_CONNECTIONS.contains(&name.as_str());
        for name in not_modified.headers.keys().filter(|name| !is_left_alone(name)) {
            headers.remove(name);
            for value in not_modified.headers.get_all(name) {
                headers.append(name, value.clone());
            }
        }
        let mut parts = not_modified.clone();
        (parts.status, parts.headers) = (self.status, headers);
        Some(parts)
    }

    /// RFC 9111, section 3.
    fn may_store(&self, is_authorized: bool, has_lifetime: bool) -> bool {
        let says = |name: &str| self.directives.has(name);
        let no_store = if says("must-understand") { !is_understood(self.status) } else { says("no-store") };
        let is_complete = !self.status.is_informational()
            && ![StatusCode::PARTIAL_CONTENT, StatusCode::NOT_MODIFIED].contains(&self.status);
        let is_for_others = !is_authorized || ["must-revalidate", "public", "s-maxage"].into_iter().any(says);
        let is_for_me = !self.is_shared || !self.directives.has_bare("private") && is_for_others;
        let is_cacheable = has_lifetime
            || says("public")
            || says("private") && !self.is_shared
            || is_heuristically_cacheable(self.status);
        is_complete && !no_store && is_for_me && is_cacheable
    }

    /// Whether anything can become of it but another request without conditions.
    fn is_useful(&self) -> bool {
        let lasts = self.age < self.lifetime && !self.directives.has_bare("no-cache");
        let is_validated = self.headers.contains_key(ETAG) || self.headers.contains_key(LAST_MODIFIED);
        let may_be_stale = ["stale-while-revalidate", "stale-if-error"];
        lasts || is_validated || may_be_stale.into_iter().any(|name| self.directives.has(name))
    }

    fn is_fresh(&self, wishes: &Wishes, now: SystemTime) -> bool {
        if wishes.no_cache || self.is_always_asked_about() {
            return false;
        }
        let age = self.age(now);
        let age_max = wishes.directives.seconds("max-age");
        if age_max.is_some_and(|max| max.is_zero() || age > max) {
            return false;
        }
        let spare = wishes.directives.seconds("min-fresh").unwrap_or_default();
        if age.saturating_add(spare) < self.lifetime {
            return true;
        }
        let patience = match wishes.directives.seconds("max-stale") {
            Some(_) if wishes.directives.is_unlimited("max-stale") => Some(Duration::MAX),
            seconds => seconds,
        };
        !self.forbids_stale() && spare.is_zero() && patience.is_some_and(|most| self.stale_for(now) <= most)
    }

    fn is_always_asked_about(&self) -> bool {
        let is_old = !self.headers.contains_key(CACHE_CONTROL);
        self.directives.has_bare("no-cache") || is_old && says_no_cache(&self.headers)
    }

    /// RFC 9111, section 4.2.4.
    fn forbids_stale(&self) -> bool {
        let says = |name: &str| self.directives.has(name);
        self.is_always_asked_about()
            || says("must-revalidate")
            || self.is_shared && (says("proxy-revalidate") || says("s-maxage"))
    }

    /// RFC 9111, section 4.2.1, without the heuristic. `Expires` is ignored beside directives for
    /// caches like this one.
    fn explicit_lifetime(&self, is_targeted: bool) -> Option<Duration> {
        let shared = self.is_shared.then(|| self.directives.seconds("s-maxage")).flatten();
        let seconds = shared.or_else(|| self.directives.seconds("max-age"));
        if seconds.is_some() || is_targeted || !self.headers.contains_key(EXPIRES) {
            return seconds;
        }
        // One that is no date, or several that differ, are in the past.
        let expires = self.date_of(&EXPIRES);
        Some(expires.map_or(Duration::ZERO, |expires| since(expires, self.date())))
    }

    /// A tenth of the time since it was modified (RFC 9111, section 4.2.2).
    fn heuristic_lifetime(&self) -> Duration {
        let may_guess = is_heuristically_cacheable(self.status) || self.directives.has("public");
        let modified = self.date_of(&LAST_MODIFIED).filter(|_| may_guess);
        modified.map_or(Duration::ZERO, |modified| (since(self.date(), modified) / 10).min(HEURISTIC_MAX))
    }

    /// RFC 9111, section 4.2.3. Of several ages the first counts, and one that is no number does
    /// not (section 5.1).
    fn initial_age(&self, asked: SystemTime) -> Duration {
        let lines = self.headers.get(AGE).and_then(|line| line.to_str().ok());
        let said = lines.and_then(|line| split_list(line).next()).and_then(seconds).unwrap_or(0);
        let corrected = Duration::from_secs(said).saturating_add(since(self.received, asked));
        corrected.max(since(self.received, self.date()))
    }

    fn date(&self) -> SystemTime {
        self.date_of(&DATE).unwrap_or(self.received)
    }

    /// The one date of a field.
    fn date_of(&self, name: &HeaderName) -> Option<SystemTime> {
        let mut lines = self.headers.get_all(name).iter();
        let first = lines.next()?;
        let is_one = lines.all(|line| line == first);
        first.to_str().ok().filter(|_| is_one).and_then(|text| date::parse(text, self.received))
    }
}

/// An entity tag without the mark of weakness; other values as they are.
pub(super) fn opaque_tag(tag: &[u8]) -> &[u8] {
    tag.strip_prefix(b"W/").unwrap_or(tag)
}

fn since(now: SystemTime, before: SystemTime) -> Duration {
    now.duration_since(before).unwrap_or_default()
}

/// RFC 9111, section 5.4.
fn says_no_cache(headers: &HeaderMap) -> bool {
    let lines = headers.get_all(PRAGMA).iter().filter_map(|line| line.to_str().ok());
    lines.flat_map(split_list).any(|part| part.eq_ignore_ascii_case("no-cache"))
}

/// The fields that may be stored: without those of the connection, and without those that
/// directives name (RFC 9111, sections 3.1, 5.2.2.4 and 5.2.2.7).
fn storable_fields(headers: &HeaderMap, directives: &Directives, is_shared: bool) -> HeaderMap {
    let mut stored = headers.clone();
    let lines = headers.get_all(CONNECTION).iter().filter_map(|line| line.to_str().ok());
    let named = lines.flat_map(split_list);
    let listed = directives.fields("no-cache");
    let private = directives.fields("private").filter(|_| is_shared);
    for name in OF_CONNECTIONS.into_iter().chain(named).chain(listed).chain(private) {
        stored.remove(name.to_ascii_lowercase().as_str());
    }
    stored
}

/// The fields that `Vary` names with their values in the request; `None` where it names all.
fn selecting(response: &HeaderMap, request: &HeaderMap) -> Option<Vec<(HeaderName, Option<String>)>> {
    let mut selecting = Vec::new();
    for line in response.get_all(VARY) {
        for name in line.to_str().ok()?.split(',').map(str::trim).filter(|name| !name.is_empty()) {
            // `*` is a name by its letters; whatever is none cannot be compared either.
            let name = HeaderName::from_bytes(name.as_bytes()).ok().filter(|name| name.as_str() != "*")?;
            let value = normalized(request, &name);
            selecting.push((name, value));
        }
    }
    Some(selecting)
}

/// A field of a request in one line, without differences that mean nothing: how many lines it had,
/// white space around it, and in lists around commas; the case of languages.
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

/// Statuses whose meaning RFC 9110 gives, and this cache keeps to.
fn is_understood(status: StatusCode) -> bool {
    status.canonical_reason().is_some()
}

/// RFC 9110, section 15.1; but not 206, as parts are not stored.
fn is_heuristically_cacheable(status: StatusCode) -> bool {
    matches!(status.as_u16(), 200 | 203 | 204 | 300 | 301 | 308 | 404 | 405 | 410 | 414 | 501)
}
