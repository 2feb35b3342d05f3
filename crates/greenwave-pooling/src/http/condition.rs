//! What a client makes of a response: conditions (RFC 9110, section 13) and ranges (section 14) of
//! its request, met from what is stored.

use bytes::Bytes;
use http::header::{
    CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, ETAG, HeaderMap, HeaderValue,
    IF_MODIFIED_SINCE, IF_NONE_MATCH, IF_RANGE, LAST_MODIFIED, RANGE,
};
use http::{Response, StatusCode};

use super::date;
use super::directives::split_list;
use super::policy::opaque_tag;

/// The response to a request with these fields, where `response` is what it selects: as it is, 304
/// where the client has it already, or the part that it asked for. `None` where only the origin
/// server can tell.
pub(super) fn apply(
    request: &HeaderMap,
    response: Response<Bytes>,
    now: std::time::SystemTime,
) -> Option<Response<Bytes>> {
    if response.status() != StatusCode::OK {
        return (!request.contains_key(RANGE)).then_some(response);
    }
    if is_unchanged(request, response.headers(), now) {
        return Some(not_modified(response));
    }
    match request.get(RANGE) {
        Some(_) if !is_in_range_of(request, response.headers()) => Some(response),
        Some(range) => partial(range, response),
        None => Some(response),
    }
}

/// `If-None-Match` counts before `If-Modified-Since` (RFC 9110, section 13.2.2). Without
/// `Last-Modified` the date of the response stands for it (RFC 9111, section 4.3.2).
fn is_unchanged(request: &HeaderMap, response: &HeaderMap, now: std::time::SystemTime) -> bool {
    if request.contains_key(IF_NONE_MATCH) {
        let tag = response.get(ETAG).map(|tag| opaque_tag(tag.as_bytes()));
        return request.get_all(IF_NONE_MATCH).iter().any(|line| {
            let line = String::from_utf8_lossy(line.as_bytes());
            split_list(&line).any(|one| one == "*" || tag == Some(opaque_tag(one.as_bytes())))
        });
    }
    let date = |headers: &HeaderMap, name| date::parse(headers.get(name)?.to_str().ok()?, now);
    let modified = date(response, LAST_MODIFIED).or_else(|| date(response, http::header::DATE));
    date(request, IF_MODIFIED_SINCE).zip(modified).is_some_and(|(since, modified)| modified <= since)
}

fn not_modified(response: Response<Bytes>) -> Response<Bytes> {
    let (mut parts, _) = response.into_parts();
    parts.status = StatusCode::NOT_MODIFIED;
    for name in [CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE] {
        parts.headers.remove(name);
    }
    Response::from_parts(parts, Bytes::new())
}

/// Whether `If-Range`, where there is one, names this response; a weak tag does not name the bytes
/// of any.
fn is_in_range_of(request: &HeaderMap, response: &HeaderMap) -> bool {
    let Some(wanted) = request.get(IF_RANGE) else { return true };
    let is_weak = wanted.as_bytes().starts_with(b"W/");
    let has = |name| response.get(name).is_some_and(|value| value == wanted);
    !is_weak && (has(ETAG) || has(LAST_MODIFIED))
}

/// The one range of bytes asked for. Several, or another unit, are for the origin server.
fn partial(range: &HeaderValue, response: Response<Bytes>) -> Option<Response<Bytes>> {
    let length = response.body().len() as u64;
    let (unit, spec) = range.to_str().ok()?.split_once('=')?;
    let (first, last) = spec.trim().split_once('-').filter(|_| unit.trim().eq_ignore_ascii_case("bytes"))?;
    let number = |text: &str| {
        let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        is_number.then(|| text.parse().unwrap_or(u64::MAX))
    };
    let (first, end) = match (first, last) {
        ("", suffix) => (length.saturating_sub(number(suffix)?), length),
        (first, "") => (number(first)?, length),
        (first, last) => (number(first)?, number(last)?.saturating_add(1).min(length)),
    };
    let (mut parts, body) = response.into_parts();
    parts.headers.remove(CONTENT_LENGTH);
    let (status, content_range, body) = if first < end {
        let content_range = format!("bytes {first}-{}/{length}", end - 1);
        // Both lie within the body.
        (StatusCode::PARTIAL_CONTENT, content_range, body.slice(first as usize..end as usize))
    } else if first >= length {
        (StatusCode::RANGE_NOT_SATISFIABLE, format!("bytes */{length}"), Bytes::new())
    } else {
        // The last byte lies before the first one: malformed.
        return None;
    };
    parts.status = status;
    parts.headers.insert(CONTENT_RANGE, HeaderValue::try_from(content_range).ok()?);
    Some(Response::from_parts(parts, body))
}
