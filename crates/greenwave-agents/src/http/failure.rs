//! Turns failed requests to model servers into errors.

use std::error::Error as StdError;
use std::time::{Duration, SystemTime};

use greenwave_pooling::Retryability;
use greenwave_streaming::ModelStreamError;
use reqwest::StatusCode;
use reqwest::header::{CONTENT_TYPE, DATE, HeaderMap, RETRY_AFTER};
use serde_json::Value;

use super::key::Key;
use super::protocol;
use super::reply::{BodyError, Reply};
use crate::Error;

/// Maximum size of the response that is read for an error, in bytes.
const BODY_BYTES_MAX: usize = 64 * 1024;
/// Maximum length of a message that an error quotes, in bytes.
const MESSAGE_BYTES_MAX: usize = 300;

/// Makes the errors of one request, without its key.
#[derive(Debug, Clone)]
pub(super) struct Failures {
    server: String,
    key: Option<Key>,
}

impl Failures {
    pub(super) fn new(server: &str, key: Option<Key>) -> Self {
        Self { server: server.to_owned(), key }
    }

    /// Returns a text without the key.
    pub(super) fn masked(&self, text: String) -> String {
        self.key.as_ref().map(|key| key.mask(&text).into_owned()).unwrap_or(text)
    }

    /// Returns the error of a request without a response: nobody answered, or not as the protocol
    /// demands.
    pub(super) fn of_request(&self, error: &reqwest::Error) -> Error {
        let Some(protocol) = protocol::violated(error) else { return self.of_connection(error) };
        let source = self.shown(&root_cause(error).to_string()).into();
        Error::ProtocolViolation { server: self.server.clone(), protocol, source }
    }

    /// Returns the error of a connection that failed or was lost.
    fn of_connection(&self, error: &reqwest::Error) -> Error {
        let cause = root_cause(error);
        let operation = if error.is_connect() { "cannot connect" } else { "the connection broke off" };
        Error::ServerUnavailable {
            server: self.server.clone(),
            message: self.shown(&format!("{operation}: {cause}")),
            retry_after: None,
            is_unreachable: true,
        }
    }

    /// Returns the error of a response that cannot be read to its end.
    pub(super) fn of_body(&self, error: &BodyError) -> Error {
        match error {
            BodyError::Connection(error) if protocol::violated(error).is_some() => {
                let source = self.shown(&root_cause(error).to_string()).into();
                Error::InvalidAnswer { server: self.server.clone(), source }
            }
            BodyError::Connection(error) => self.of_connection(error),
            BodyError::Replayed => Error::ServerUnavailable {
                server: self.server.clone(),
                message: "the connection broke off when the response was recorded".to_owned(),
                retry_after: None,
                is_unreachable: true,
            },
        }
    }

    /// Returns the error of a response with a status other than success.
    pub(super) async fn of_status(&self, mut reply: Reply) -> Error {
        let status = reply.status;
        let message = self.shown(&message(&start_of(&mut reply).await));
        let message = match message.as_str() {
            "" => status.canonical_reason().unwrap_or("no message").to_owned(),
            _ => message,
        };
        let server = self.server.clone();
        if !may_succeed_later(status) {
            return Error::RequestRefused { server, status: status.as_u16(), message };
        }
        Error::ServerUnavailable {
            server,
            message: format!("{message} (HTTP {})", status.as_u16()),
            retry_after: retry_after(&reply.headers, SystemTime::now()),
            is_unreachable: false,
        }
    }

    /// Returns the error of a response that is not a stream of events, or `None` if it is one.
    pub(super) async fn of_content_type(&self, mut reply: Reply) -> Result<Reply, Error> {
        let header = reply.headers.get(CONTENT_TYPE).map(|value| value.to_str().unwrap_or_default());
        let kind =
            header.map(|value| value.split(';').next().unwrap_or_default().trim().to_ascii_lowercase());
        // Some servers send no type.
        let Some(kind) = kind.filter(|kind| kind != "text/event-stream") else { return Ok(reply) };
        let text = self.shown(&message(&start_of(&mut reply).await));
        let source = format!("expected `text/event-stream`, found `{}`: {text}", self.shown(&kind));
        Err(Error::InvalidAnswer { server: self.server.clone(), source: source.into() })
    }

    /// Returns the error of a stream that cannot be decoded, or in which the server reports one.
    pub(super) fn of_stream(&self, error: &ModelStreamError) -> Error {
        let server = self.server.clone();
        let message = match error {
            ModelStreamError::Provider { kind, message } if kind.is_empty() => message.clone(),
            ModelStreamError::Provider { kind, message } => format!("{message} ({kind})"),
            other => other.to_string(),
        };
        let message = self.shown(&message);
        if error.is_overloaded() {
            return Error::ServerUnavailable { server, message, retry_after: None, is_unreachable: false };
        }
        Error::InvalidAnswer { server, source: message.into() }
    }

    /// Returns the error of bytes that are not a stream of events.
    pub(super) fn of_bytes(&self, error: &greenwave_streaming::Error) -> Error {
        Error::InvalidAnswer { server: self.server.clone(), source: self.shown(&error.to_string()).into() }
    }

    /// Returns the error of a response that is too large.
    pub(super) fn of_size(&self, problem: &'static str) -> Error {
        Error::InvalidAnswer { server: self.server.clone(), source: problem.into() }
    }

    /// Returns a text of others on one line, shortened, without control characters and the key.
    fn shown(&self, text: &str) -> String {
        let line: String = text.split_whitespace().collect::<Vec<_>>().join(" ");
        let line: String = self.masked(line).chars().filter(|c| !c.is_control()).collect();
        match (0..=MESSAGE_BYTES_MAX).rev().find(|&at| line.is_char_boundary(at)) {
            Some(end) if line.len() > MESSAGE_BYTES_MAX => format!("{}…", &line[..end]),
            _ => line,
        }
    }
}

fn root_cause(error: &reqwest::Error) -> &dyn StdError {
    let mut cause: &dyn StdError = error;
    while let Some(deeper) = cause.source() {
        cause = deeper;
    }
    cause
}

/// Returns whether the same request may succeed later: the server limits requests, is overloaded or
/// has failed. 529 is the overload of Anthropic.
fn may_succeed_later(status: StatusCode) -> bool {
    match status.as_u16() {
        408 | 425 | 429 => true,
        501 | 505 => false,
        code => code >= 500,
    }
}

/// Returns the delay that a server asks for: in milliseconds, as several providers do, or in
/// seconds or until a date (RFC 9110, section 10.2.3). A date is compared with that of the
/// response, because the clocks may differ.
fn retry_after(headers: &HeaderMap, now: SystemTime) -> Option<Duration> {
    let text = |value: Option<&reqwest::header::HeaderValue>| Some(value?.to_str().ok()?.trim().to_owned());
    let milliseconds = text(headers.get("retry-after-ms")).and_then(|value| value.parse::<f64>().ok());
    if let Some(delay) = milliseconds.and_then(|value| Duration::try_from_secs_f64(value / 1000.0).ok()) {
        return Some(delay);
    }
    let sent = text(headers.get(DATE)).and_then(|date| since_epoch(&date));
    let now = sent.map_or(now, |sent| SystemTime::UNIX_EPOCH + sent);
    match Retryability::retry_after(&text(headers.get(RETRY_AFTER))?, now) {
        Retryability::After(delay) => Some(delay),
        _ => None,
    }
}

/// Returns the time of a date in a header.
fn since_epoch(date: &str) -> Option<Duration> {
    // A number is not a date.
    let is_date = date.bytes().any(|byte| byte.is_ascii_alphabetic());
    match Retryability::retry_after(date, SystemTime::UNIX_EPOCH) {
        Retryability::After(since) if is_date => Some(since),
        _ => None,
    }
}

/// Reads the start of a response.
async fn start_of(reply: &mut Reply) -> Vec<u8> {
    let mut body = Vec::new();
    while let Ok(Some(chunk)) = reply.chunk().await {
        body.extend_from_slice(&chunk[..chunk.len().min(BODY_BYTES_MAX - body.len())]);
        if body.len() == BODY_BYTES_MAX {
            break;
        }
    }
    body
}

/// Returns the message in the body of an error: the usual places in JSON, or its text.
fn message(body: &[u8]) -> String {
    let value: Value = serde_json::from_slice(body).unwrap_or_default();
    let places = ["/error/message", "/error", "/message", "/detail", "/0/error/message"];
    let found = places.iter().find_map(|place| value.pointer(place)?.as_str());
    found.map_or_else(|| String::from_utf8_lossy(body).into_owned(), str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(fields: &[(&'static str, &str)]) -> HeaderMap {
        fields.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect()
    }

    #[test]
    fn delays_are_read_in_all_forms() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_777);
        let seconds = |fields: &[(&'static str, &str)]| {
            retry_after(&headers(fields), now).map(|delay| delay.as_secs_f64())
        };
        assert_eq!(seconds(&[("retry-after", "7")]), Some(7.0));
        assert_eq!(seconds(&[("retry-after", "Sun, 06 Nov 1994 08:50:07 GMT")]), Some(30.0));
        let skewed =
            [("retry-after", "Sun, 06 Nov 1994 08:50:07 GMT"), ("date", "Sun, 06 Nov 1994 08:50:00 GMT")];
        assert_eq!(seconds(&skewed), Some(7.0));
        assert_eq!(seconds(&[("retry-after", "1"), ("retry-after-ms", "20")]), Some(0.02));
        assert_eq!(seconds(&[("retry-after-ms", "-1"), ("retry-after", "2")]), Some(2.0));
        for nonsense in ["", "soon", "-5", "1.5", "\"7\""] {
            assert_eq!(seconds(&[("retry-after", nonsense)]), None, "{nonsense}");
        }
        assert_eq!(seconds(&[("retry-after", "3"), ("date", "12")]), Some(3.0));
    }

    #[test]
    fn messages_are_found_in_the_forms_of_several_servers() {
        for (body, expected) in [
            (r#"{"error":{"message":"No such model","type":"t"}}"#, "No such model"),
            (r#"{"type":"error","error":{"type":"overloaded_error","message":"Overloaded"}}"#, "Overloaded"),
            (r#"{"error":"out of memory"}"#, "out of memory"),
            (r#"{"detail":"Not Found"}"#, "Not Found"),
            ("<html>Bad gateway</html>", "<html>Bad gateway</html>"),
            ("", ""),
        ] {
            assert_eq!(message(body.as_bytes()), expected);
        }
    }
}
