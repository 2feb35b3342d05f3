//! Recognises programs that failed because a provider limits requests, is overloaded or cannot be
//! reached.

use std::collections::VecDeque;
use std::process::ExitStatus;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{StreamExt, stream};

use crate::{AgentEvent, Error, ResponseStream};

/// Maximum number of bytes at the end of the response that are examined.
const TAIL_BYTES_MAX: usize = 2 * 1024;
/// Maximum length of the line that an error quotes, in bytes.
const LINE_BYTES_MAX: usize = 300;

/// Phrases of known programs and providers, in lower case.
const PHRASES: [&str; 22] = [
    "rate limit",
    "rate_limit",
    "rate-limit",
    "ratelimit",
    "too many requests",
    "toomanyrequests",
    "overloaded",
    "usage limit",
    "session limit",
    "quota exceeded",
    "exceeded your current quota",
    "insufficient_quota",
    "resource_exhausted",
    "resource exhausted",
    "limit reached",
    "hit your limit",
    "server is busy",
    "service unavailable",
    "at capacity",
    "internal server error",
    "bad gateway",
    "gateway timeout",
];
/// Phrases of failed connections, in lower case: those of Node.js, curl, Python, Rust and Go.
const CONNECTION_PHRASES: [&str; 30] = [
    "econnrefused",
    "econnreset",
    "econnaborted",
    "etimedout",
    "enotfound",
    "eai_again",
    "enetunreach",
    "ehostunreach",
    "enetdown",
    "und_err_",
    "getaddrinfo",
    "fetch failed",
    "socket hang up",
    "connection refused",
    "connection reset",
    "connection error",
    "connection aborted",
    "connection timed out",
    "connection closed before",
    "network error",
    "network is unreachable",
    "no route to host",
    "name resolution",
    "name or service not known",
    "nodename nor servname",
    "no such host",
    "could not resolve host",
    "dns error",
    "error sending request",
    "stream disconnected",
];
/// HTTP status codes of overload. They count in lines that speak of a request only.
const CODES: [&str; 10] = ["429", "500", "502", "503", "504", "520", "522", "523", "524", "529"];
/// Words that make a number in the same line a status code.
const CODE_WORDS: [&str; 7] = ["http", "status", "api", "error", "code", "request", "retry"];

/// Words that a delay may follow, in lower case.
const HINTS: [&str; 11] = [
    "retry-after",
    "retry_after",
    "retry after",
    "try again in",
    "try again after",
    "retry in",
    "retrying in",
    "retrydelay",
    "retry_delay",
    "resets in",
    "reset after",
];

/// Conditions under which a failed program is started again later, without using up an attempt.
///
/// They apply to programs that end with an exit status other than 0, or report that they failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WaitOn {
    /// Exit codes that are always a reason to wait.
    pub exit: Vec<i32>,
    /// Texts in the last lines of standard error or of the response, without regard to case. A text
    /// of digits matches as a whole number. `None` for the phrases of known programs.
    pub output: Option<Vec<String>>,
}

impl Default for WaitOn {
    /// Exit code 75 (`EX_TEMPFAIL` of sysexits.h), and the phrases of known programs.
    fn default() -> Self {
        Self { exit: vec![75], output: None }
    }
}

impl WaitOn {
    /// Never waits.
    #[must_use]
    pub fn never() -> Self {
        Self { exit: Vec::new(), output: Some(Vec::new()) }
    }

    /// Replaces the error of a program that failed under one of the conditions by
    /// [`Error::Overloaded`]. Everything else passes unchanged.
    pub fn watch(&self, response: ResponseStream) -> ResponseStream {
        let (conditions, tail) = (self.clone(), Tail::default());
        ResponseStream::new(stream::unfold((response, conditions, tail), |mut state| async move {
            let (response, conditions, tail) = &mut state;
            let event = match response.next().await? {
                Ok(AgentEvent::Text(text)) => {
                    tail.push(&text);
                    Ok(AgentEvent::Text(text))
                }
                Err(error) => Err(conditions.classify(error, &tail.text())),
                other => other,
            };
            Some((event, state))
        }))
    }

    /// Returns [`Error::Overloaded`] for the error of a program that failed under one of the
    /// conditions, and any other error as it is. `tail` is the end of the response.
    pub fn classify(&self, error: Error, tail: &str) -> Error {
        let (program, status, outputs) = match &error {
            Error::Exited { program, status, stderr } => (program, Some(*status), [stderr.as_str(), tail]),
            Error::Failed { program, message } => (program, None, [message.as_str(), ""]),
            _ => return error,
        };
        let Some(line) = self.reason(status, &outputs) else { return error };
        let retry_after = outputs.into_iter().find_map(delay_hint);
        let is_unreachable = self.output.is_none() && is_connection_failure(&line.to_lowercase());
        Error::Overloaded { program: program.clone(), line, retry_after, is_unreachable }
    }

    /// Returns the line that says why a program has to wait.
    fn reason(&self, status: Option<ExitStatus>, outputs: &[&str]) -> Option<String> {
        let lines = || outputs.iter().flat_map(|output| output.lines().rev());
        let found = lines().find(|line| self.matches(&line.to_lowercase()));
        let by_code = status.filter(|status| status.code().is_some_and(|code| self.exit.contains(&code)));
        let last = || lines().find(|line| !line.trim().is_empty()).map(str::to_owned);
        let line = match found {
            Some(line) => line.to_owned(),
            None => by_code.map(|status| last().unwrap_or_else(|| status.to_string()))?,
        };
        Some(shortened(line.trim()))
    }

    fn matches(&self, line: &str) -> bool {
        match &self.output {
            Some(texts) => texts.iter().any(|text| {
                let text = text.to_lowercase();
                if text.bytes().all(|byte| byte.is_ascii_digit()) {
                    has_number(line, &text)
                } else {
                    line.contains(&text)
                }
            }),
            None => {
                PHRASES.iter().any(|phrase| line.contains(phrase))
                    || is_connection_failure(line)
                    || (CODES.iter().any(|code| has_number(line, code))
                        && CODE_WORDS.iter().any(|word| line.contains(word)))
            }
        }
    }
}

/// Returns whether a line, in lower case, speaks of a connection that failed.
fn is_connection_failure(line: &str) -> bool {
    CONNECTION_PHRASES.iter().any(|phrase| line.contains(phrase))
}

/// Returns whether a line contains a number that is not part of a longer number, word or path.
fn has_number(line: &str, number: &str) -> bool {
    let is_part = |c: Option<char>| c.is_some_and(|c| c.is_alphanumeric() || c == '_' || c == '/');
    !number.is_empty()
        && line.match_indices(number).any(|(at, _)| {
            let (before, after) = (&line[..at], &line[at + number.len()..]);
            let is_line_number =
                before.ends_with("line ") || before.ends_with(".py:") || before.ends_with(".rs:");
            !is_line_number && !is_part(before.chars().next_back()) && !is_part(after.chars().next())
        })
}

/// Returns the delay that a text asks for, such as `retry-after: 6` or `try again in 1m30s`.
///
/// A number without a unit counts seconds.
fn delay_hint(text: &str) -> Option<Duration> {
    let text = text.to_lowercase();
    HINTS.iter().find_map(|hint| {
        let mut places = text.match_indices(hint);
        places.find_map(|(at, _)| delay(&text[at + hint.len()..]))
    })
}

/// Parses a delay at the start of a text, after punctuation: `: 6`, `="34s"`, ` 1 min 5 s`.
fn delay(text: &str) -> Option<Duration> {
    let text = text.trim_start_matches(|c: char| c.is_whitespace() || ":=\"'(~".contains(c));
    let text = text.strip_prefix("about ").unwrap_or(text);
    let (first, mut rest) = number(text)?;
    let mut seconds = first * unit(&mut rest).unwrap_or(1.0);
    while let Some((next, mut after)) = number(rest.trim_start_matches([' ', ','])) {
        let Some(scale) = unit(&mut after) else { break };
        seconds += next * scale;
        rest = after;
    }
    Duration::try_from_secs_f64(seconds).ok()
}

fn number(text: &str) -> Option<(f64, &str)> {
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let digits = text[..end].trim_end_matches('.');
    Some((digits.parse().ok()?, &text[end..]))
}

/// Takes a unit of time from the start of a text, and returns it in seconds.
fn unit(text: &mut &str) -> Option<f64> {
    let rest = text.trim_start();
    let end = rest.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(rest.len());
    let seconds = match &rest[..end] {
        "ms" | "milliseconds" | "millis" => 0.001,
        "s" | "sec" | "secs" | "second" | "seconds" => 1.0,
        "m" | "min" | "mins" | "minute" | "minutes" => 60.0,
        "h" | "hr" | "hrs" | "hour" | "hours" => 3600.0,
        _ => return None,
    };
    *text = &rest[end..];
    Some(seconds)
}

fn shortened(line: &str) -> String {
    let line: String = line.chars().filter(|c| !c.is_control()).collect();
    match (0..=LINE_BYTES_MAX).rev().find(|&at| line.is_char_boundary(at)) {
        Some(end) if line.len() > LINE_BYTES_MAX => format!("{}…", &line[..end]),
        _ => line,
    }
}

/// The last bytes of a response.
#[derive(Debug, Default)]
struct Tail(VecDeque<u8>);

impl Tail {
    fn push(&mut self, text: &Bytes) {
        self.0.extend(&text[text.len().saturating_sub(TAIL_BYTES_MAX)..]);
        let excess = self.0.len().saturating_sub(TAIL_BYTES_MAX);
        self.0.drain(..excess);
    }

    fn text(&self) -> String {
        let bytes: Vec<u8> = self.0.iter().copied().collect();
        String::from_utf8_lossy(&bytes).into_owned()
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt;

    use super::*;

    fn classify(
        conditions: &WaitOn,
        code: i32,
        stderr: &str,
        tail: &str,
    ) -> Option<(String, Option<Duration>)> {
        let status = ExitStatus::from_raw(code << 8);
        let error = Error::Exited { program: "agent".to_owned(), status, stderr: stderr.to_owned() };
        match conditions.classify(error, tail) {
            Error::Overloaded { line, retry_after, .. } => Some((line, retry_after)),
            _ => None,
        }
    }

    #[test]
    fn messages_of_known_programs_are_overload() {
        for text in [
            "API Error: 429 {\"type\":\"error\",\"error\":{\"type\":\"rate_limit_error\"}}",
            "API Error (529 {\"type\":\"overloaded_error\",\"message\":\"Overloaded\"})",
            "Claude usage limit reached. Your limit will reset at 7pm",
            "You've hit your limit · resets 7:30pm (Europe/Berlin)",
            "stream error: exceeded retry limit, last status: 429 Too Many Requests",
            "[API Error: You exceeded your current quota, please check your plan]",
            "litellm.RateLimitError: AnthropicException",
            "error: got status: RESOURCE_EXHAUSTED",
            "unexpected status 503 Service Unavailable",
            "API Error: 502 <html><head><title>502 Bad Gateway</title></head>",
            "HTTP status server error (504 Gateway Timeout) for url (https://api.example.com/v1/responses)",
        ] {
            let found = classify(&WaitOn::default(), 1, text, "");
            assert_eq!(found.as_ref().map(|(line, _)| line.as_str()), Some(text));
            assert!(classify(&WaitOn::default(), 1, "", text).is_some(), "{text}");
        }
    }

    #[test]
    fn failed_connections_are_a_reason_to_wait() {
        let is_unreachable = |text: &str| {
            let status = ExitStatus::from_raw(1 << 8);
            let error = Error::Exited { program: "agent".to_owned(), status, stderr: text.to_owned() };
            match WaitOn::default().classify(error, "") {
                Error::Overloaded { is_unreachable, .. } => Some(is_unreachable),
                _ => None,
            }
        };
        for text in [
            "Error: connect ECONNREFUSED 127.0.0.1:443",
            "API Error: Connection error.",
            "Error: read ECONNRESET",
            "Error: getaddrinfo ENOTFOUND api.example.com",
            "TypeError: fetch failed",
            "curl: (6) Could not resolve host: api.example.com",
            "ConnectionError: [Errno -3] Temporary failure in name resolution",
            "error sending request for url (https://api.example.com/v1/responses)",
            "dial tcp: lookup api.example.com: no such host",
            "stream disconnected before completion",
        ] {
            assert_eq!(is_unreachable(text), Some(true), "{text}");
        }
        assert_eq!(is_unreachable("HTTP 500 Internal Server Error"), Some(false));
        assert_eq!(is_unreachable("API Error: 500 {\"type\":\"api_error\"}"), Some(false));
        assert_eq!(is_unreachable("Cannot find module './connection'"), None);
    }

    #[test]
    fn other_failures_are_not() {
        for text in [
            "",
            "Segmentation fault",
            "  File \"agent.py\", line 429, in main",
            "error: src/lib.rs:503:5: expected `;`",
            "wrote 429 bytes",
            "error in commit 429abc",
            "Invalid API key",
        ] {
            assert_eq!(classify(&WaitOn::default(), 1, text, ""), None, "{text}");
        }
        assert_eq!(classify(&WaitOn::never(), 75, "429 rate limit", ""), None);
    }

    #[test]
    fn conditions_can_be_set() {
        let own = WaitOn { exit: vec![29], output: Some(vec!["Come Back".to_owned(), "7".to_owned()]) };
        assert!(classify(&own, 29, "", "").is_some());
        assert!(classify(&own, 1, "please come back later", "").is_some());
        assert!(classify(&own, 1, "code 7", "").is_some());
        assert_eq!(classify(&own, 75, "code 77, rate limit", ""), None);
    }

    #[test]
    fn delays_are_read_in_the_usual_forms() {
        let seconds = |text| delay_hint(text).map(|delay| delay.as_secs_f64());
        assert_eq!(seconds("429 rate_limit_error: retry-after: 6"), Some(6.0));
        assert_eq!(seconds("Please try again in 20s."), Some(20.0));
        assert_eq!(seconds("try again in 1m30.5s"), Some(90.5));
        assert_eq!(seconds("Retry in 2 minutes, 5 seconds"), Some(125.0));
        assert_eq!(seconds("\"retryDelay\": \"34s\""), Some(34.0));
        assert_eq!(seconds("Retry-After=500ms"), Some(0.5));
        assert_eq!(seconds("resets in 2h"), Some(7200.0));
        assert_eq!(seconds("retry after the weekend"), None);
        assert_eq!(seconds("retry-after: 99999999999999999999999999"), None);
        assert_eq!(seconds("nothing"), None);
    }
}
