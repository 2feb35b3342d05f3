//! Addresses of servers: `grpc://HOST:PORT/INSTANCE` and `grpcs://HOST:PORT/INSTANCE`.

use std::fmt;
use std::net::IpAddr;

use crate::Error;

const EXPECTED: &str = "grpc://HOST:PORT or grpcs://HOST[:PORT], with /INSTANCE if the server wants one";
/// Port of `grpcs://` without one.
const TLS_PORT: u16 = 443;
/// Maximum length of an address in bytes.
const BYTES_MAX: usize = 1024;

/// Where a server is, and which of its instances is meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Address {
    pub(crate) host: String,
    pub(crate) port: u16,
    pub(crate) has_tls: bool,
    /// Name of the instance. Most servers have only the empty one.
    pub(crate) instance: String,
}

impl Address {
    pub(crate) fn parse(text: &str) -> Result<Self, Error> {
        parse(text).ok_or_else(|| Error::InvalidOption {
            option: "address",
            value: format!("`{}`", without_user(text)),
            expected: EXPECTED,
        })
    }

    /// Returns the address without the instance, in the form that the client of HTTP/2 reads.
    pub(crate) fn origin(&self) -> String {
        let scheme = if self.has_tls { "https" } else { "http" };
        format!("{scheme}://{}:{}", self.host, self.port)
    }

    /// Returns the name that the certificate of the server must have.
    pub(crate) fn server_name(&self) -> &str {
        self.host.trim_matches(['[', ']'])
    }

    /// Returns whether messages are encrypted or stay on this machine.
    pub(crate) fn is_private(&self) -> bool {
        let is_loopback = |name: &str| name.parse().is_ok_and(|ip: IpAddr| ip.is_loopback());
        self.has_tls || self.host == "localhost" || is_loopback(self.server_name())
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.has_tls { "grpcs" } else { "grpc" };
        write!(f, "{scheme}://{}:{}", self.host, self.port)?;
        if self.instance.is_empty() { Ok(()) } else { write!(f, "/{}", self.instance) }
    }
}

fn parse(text: &str) -> Option<Address> {
    if text.len() > BYTES_MAX || !text.bytes().all(|byte| byte.is_ascii_graphic()) {
        return None;
    }
    let (scheme, rest) = text.split_once("://")?;
    let has_tls = match scheme {
        "grpc" => false,
        "grpcs" => true,
        _ => return None,
    };
    let (authority, instance) = rest.split_once('/').unwrap_or((rest, ""));
    // Passwords belong into a header, and questions and fragments have no meaning here.
    if text.contains(['@', '?', '#']) {
        return None;
    }
    let (host, port) = match authority.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => (host, port.parse().ok().filter(|port| *port > 0)?),
        _ => (authority, Some(TLS_PORT).filter(|_| has_tls)?),
    };
    let is_host = if let Some(ip) = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
        ip.parse::<std::net::Ipv6Addr>().is_ok()
    } else {
        let is_part = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
        !host.is_empty() && host.chars().all(is_part)
    };
    let instance = instance.trim_end_matches('/').to_owned();
    is_host.then(|| Address { host: host.to_owned(), port, has_tls, instance })
}

/// Returns the text without what stands before an `@`, which may be a password.
fn without_user(text: &str) -> String {
    let (scheme, rest) = text.split_once("://").unwrap_or(("", text));
    match rest.rsplit_once('@') {
        Some((_, host)) => format!("{scheme}://***@{host}"),
        None => text.to_owned(),
    }
}
