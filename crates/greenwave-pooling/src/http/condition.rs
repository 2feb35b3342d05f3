//! Evaluates the conditions (RFC 9110, section 13) and ranges (section 14) of a request against a
//! stored response.

use bytes::Bytes;
use http::header::{
    CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, ETAG, HeaderMap, HeaderValue,
    IF_MODIFIED_SINCE, IF_NONE_MATCH, IF_RANGE, LAST_MODIFIED, RANGE,
};
use http::{Response, StatusCode};

use super::date;
use super::directives::split_list;
use super::policy::opaque_tag;

/// Returns the response to a request with the given fields: `response` itself, a 304 if the client
/// has it already, or the requested range of it. Returns `None` if only the origin server can
/// answer.
pub(super) fn apply(
    request: &HeaderMap,
    response: Response<Bytes>,
    now: std::time::SystemTime,
) -> Option<Response<Bytes>> {
    if response.status() == StatusCode::PARTIAL_CONTENT {
        return part_of_part(request, response);
    }
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

/// Returns true if the client's conditions match. `If-None-Match` takes precedence over
/// `If-Modified-Since` (RFC 9110, section 13.2.2). Without `Last-Modified`, the `Date` of the
/// response is used (RFC 9111, section 4.3.2).
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

/// Returns true if `If-Range` is absent or identifies this response. Weak entity tags never match,
/// because they do not identify bytes.
fn is_in_range_of(request: &HeaderMap, response: &HeaderMap) -> bool {
    let Some(wanted) = request.get(IF_RANGE) else { return true };
    let is_weak = wanted.as_bytes().starts_with(b"W/");
    let has = |name| response.get(name).is_some_and(|value| value == wanted);
    !is_weak && (has(ETAG) || has(LAST_MODIFIED))
}

/// Returns the requested range of bytes. Returns `None`, which leaves the request to the origin
/// server, for several ranges or another unit.
fn partial(range: &HeaderValue, response: Response<Bytes>) -> Option<Response<Bytes>> {
    let length = response.body().len() as u64;
    let (first, end) = requested(range, length)?;
    let (mut parts, body) = response.into_parts();
    parts.headers.remove(CONTENT_LENGTH);
    let (status, content_range, body) = if first < end {
        let content_range = format!("bytes {first}-{}/{length}", end - 1);
        // Both ends are within the body.
        (StatusCode::PARTIAL_CONTENT, content_range, body.slice(first as usize..end as usize))
    } else if first >= length {
        (StatusCode::RANGE_NOT_SATISFIABLE, format!("bytes */{length}"), Bytes::new())
    } else {
        // The last byte is before the first one, so the range is malformed.
        return None;
    };
    parts.status = status;
    parts.headers.insert(CONTENT_RANGE, HeaderValue::try_from(content_range).ok()?);
    Some(Response::from_parts(parts, body))
}

/// Returns the requested range of a stored partial response, if the part contains all of it.
/// Returns `None`, which leaves the request to the origin server, for other ranges and for requests
/// with conditions.
fn part_of_part(request: &HeaderMap, response: Response<Bytes>) -> Option<Response<Bytes>> {
    let is_conditional = request.contains_key(IF_NONE_MATCH) || request.contains_key(IF_MODIFIED_SINCE);
    if is_conditional || !is_in_range_of(request, response.headers()) {
        return None;
    }
    let (start, length) = part(response.headers(), response.body())?;
    let (first, end) = requested(request.get(RANGE)?, length)?;
    let offset = first.checked_sub(start).filter(|_| first < end)?;
    if end - start > response.body().len() as u64 {
        return None;
    }
    let (mut parts, body) = response.into_parts();
    parts.headers.remove(CONTENT_LENGTH);
    let content_range = HeaderValue::try_from(format!("bytes {first}-{}/{length}", end - 1)).ok()?;
    parts.headers.insert(CONTENT_RANGE, content_range);
    // Both ends are within the part.
    Some(Response::from_parts(parts, body.slice(offset as usize..(end - start) as usize)))
}

/// Returns the offset of a partial response and the length of the whole, both in bytes. Returns
/// `None` for several parts, another unit, an unknown length, or a body that is not as long as its
/// range.
pub(super) fn part(headers: &HeaderMap, body: &Bytes) -> Option<(u64, u64)> {
    let (unit, range) = headers.get(CONTENT_RANGE)?.to_str().ok()?.trim().split_once(' ')?;
    let (range, length) = range.split_once('/').filter(|_| unit.eq_ignore_ascii_case("bytes"))?;
    let (first, last) = range.split_once('-')?;
    let (first, last, length) = (number(first)?, number(last)?, number(length)?);
    let is_whole = last < length && first.checked_add(body.len() as u64) == last.checked_add(1);
    is_whole.then_some((first, length))
}

/// Returns the first byte that a single range of bytes requests, and the end, of `length` bytes.
fn requested(range: &HeaderValue, length: u64) -> Option<(u64, u64)> {
    let (unit, spec) = range.to_str().ok()?.split_once('=')?;
    let (first, last) = spec.trim().split_once('-').filter(|_| unit.trim().eq_ignore_ascii_case("bytes"))?;
    Some(match (first, last) {
        ("", suffix) => (length.saturating_sub(number(suffix)?), length),
        (first, "") => (number(first)?, length),
        (first, last) => (number(first)?, number(last)?.saturating_add(1).min(length)),
    })
}

/// Parses a number of bytes. Numbers that are too large become the maximum.
fn number(text: &str) -> Option<u64> {
    let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    is_number.then(|| text.parse().unwrap_or(u64::MAX))
}
