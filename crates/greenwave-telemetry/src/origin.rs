//! Refuses requests that a web page makes through a user's browser.

use std::net::{IpAddr, SocketAddr};

use hyper::header::{HOST, ORIGIN};
use hyper::{Request, StatusCode};

/// Reason why a request is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// `Host` names another server.
    Host,
    /// `Origin` is a page of another server.
    Origin,
}

impl Refusal {
    pub(crate) fn status(self) -> StatusCode {
        match self {
            Refusal::Host => StatusCode::MISDIRECTED_REQUEST,
            Refusal::Origin => StatusCode::FORBIDDEN,
        }
    }

    pub(crate) fn message(self) -> &'static str {
        match self {
            Refusal::Host => "the Host header names another server: use localhost or the address\n",
            Refusal::Origin => "requests from pages of other servers are refused\n",
        }
    }
}

/// Checks the `Host` and `Origin` of a request to the endpoint at `address`.
///
/// The check of `Host` applies to loopback addresses only. Elsewhere the endpoint may have any
/// name.
pub(crate) fn check<B>(request: &Request<B>, address: SocketAddr) -> Result<(), Refusal> {
    let header = |name| {
        let mut values = request.headers().get_all(name).iter();
        let first = values.next().map(|value| value.to_str().unwrap_or_default());
        (first, values.next().is_some())
    };
    let (host, is_repeated) = match request.uri().authority() {
        Some(authority) => (Some(authority.as_str()), false),
        None => header(HOST),
    };
    if is_repeated || (address.ip().is_loopback() && !host.is_none_or(is_loopback)) {
        return Err(Refusal::Host);
    }
    match header(ORIGIN) {
        (None, _) => Ok(()),
        (Some(origin), false) if host.is_some_and(|host| origin == format!("http://{host}")) => Ok(()),
        _ => Err(Refusal::Origin),
    }
}

/// Returns whether a `Host` header names this machine: `localhost` or a loopback address, with or
/// without a port.
fn is_loopback(host: &str) -> bool {
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    };
    let is_address = |name: &str| name.parse().is_ok_and(|address: IpAddr| address.is_loopback());
    match name.strip_prefix('[').and_then(|name| name.strip_suffix(']')) {
        Some(address) => is_address(address),
        None => name.eq_ignore_ascii_case("localhost") || is_address(name),
    }
}

#[cfg(test)]
mod tests {
    use hyper::Request;

    use super::{Refusal, check};

    fn checked(address: &str, host: Option<&str>, origin: Option<&str>) -> Result<(), Refusal> {
        let mut request = Request::builder().uri("/metrics");
        if let Some(host) = host {
            request = request.header("host", host);
        }
        if let Some(origin) = origin {
            request = request.header("origin", origin);
        }
        check(&request.body(()).expect("a request"), address.parse().expect("an address"))
    }

    #[test]
    fn a_loopback_endpoint_answers_to_loopback_names_only() {
        let host = |host| checked("127.0.0.1:8080", Some(host), None);
        for name in ["localhost", "LOCALHOST:8080", "127.0.0.1:8080", "127.8.9.1", "[::1]:80", "[::1]"] {
            assert_eq!(host(name), Ok(()), "{name}");
        }
        for name in [
            "evil.example",
            "evil.example:8080",
            "10.0.0.1",
            "localhost.evil.example",
            "",
            ":8080",
            "[::2]",
            "a:b",
        ] {
            assert_eq!(host(name), Err(Refusal::Host), "{name}");
        }
        assert_eq!(checked("127.0.0.1:8080", None, None), Ok(()), "HTTP/1.0 sends no Host");
        assert_eq!(checked("0.0.0.0:8080", Some("metrics.example:8080"), None), Ok(()));
    }

    #[test]
    fn pages_of_other_servers_are_refused_on_every_address() {
        for address in ["127.0.0.1:8080", "0.0.0.0:8080"] {
            let origin = |origin| checked(address, Some("localhost:8080"), Some(origin));
            assert_eq!(origin("http://localhost:8080"), Ok(()));
            for page in ["https://evil.example", "null", "", "http://localhost", "https://localhost:8080"] {
                assert_eq!(origin(page), Err(Refusal::Origin), "{page}");
            }
        }
    }
}
