//! Servers that a test declares.

use std::net::IpAddr;
use std::path::Path;

use greenwave_sandbox::Peer;

/// Maximum number of peers that a description names.
const NAMED_MAX: usize = 3;

/// A declared server.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Server<'a> {
    /// Path of a Unix socket, a named pipe or a device.
    Path(&'a Path),
    /// Abstract name of a Unix socket.
    Abstract(&'a str),
    /// Internet address.
    Inet {
        /// `None` for all addresses of this machine's loopback interface.
        ip: Option<IpAddr>,
        /// `None` for all ports.
        port: Option<u16>,
    },
}

/// Returns whether a text names a server that a test can declare.
///
/// It is an absolute path of a Unix socket, a named pipe or a device; `@` and an abstract name of a
/// Unix socket; or an IP address or `localhost`, `:`, and a port or `*`. IPv6 addresses are in
/// brackets.
pub fn is_server(text: &str) -> bool {
    Server::parse(text).is_some()
}

impl<'a> Server<'a> {
    fn parse(text: &'a str) -> Option<Self> {
        if text.starts_with('/') {
            return Some(Server::Path(Path::new(text)));
        }
        if let Some(name) = text.strip_prefix('@') {
            return (!name.is_empty()).then_some(Server::Abstract(name));
        }
        let (host, port) = text.rsplit_once(':')?;
        let port = match port {
            "*" => None,
            port => Some(port.parse().ok().filter(|port| *port != 0)?),
        };
        let ip = match host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
            Some(host) => Some(IpAddr::V6(host.parse().ok()?)),
            None if host == "localhost" => None,
            None => Some(IpAddr::V4(host.parse().ok()?)),
        };
        Some(Server::Inet { ip, port })
    }

    fn matches(&self, peer: &Peer) -> bool {
        match (self, peer) {
            (Server::Path(path), Peer::Unix(peer) | Peer::Pipe(peer) | Peer::Device(peer)) => path == peer,
            (Server::Abstract(name), Peer::Abstract(peer)) => name.as_bytes() == peer,
            (Server::Inet { ip, port }, Peer::Inet(peer)) => {
                let is_local = || peer.ip().is_loopback() || peer.ip().is_unspecified();
                port.is_none_or(|port| port == peer.port()) && ip.map_or_else(is_local, |ip| ip == peer.ip())
            }
            _ => false,
        }
    }
}

/// Returns the peers that a test does not declare. A text that names no server declares none.
pub(crate) fn undeclared<'p>(declared: &[String], peers: impl Iterator<Item = &'p Peer>) -> Vec<Peer> {
    let servers: Vec<Server<'_>> = declared.iter().filter_map(|text| Server::parse(text)).collect();
    peers.filter(|peer| !servers.iter().any(|server| server.matches(peer))).cloned().collect()
}

/// Describes peers that a test does not declare, as in "127.0.0.1:80 and 2 more". Returns `None` if
/// there are none.
pub(crate) fn describe(peers: &[Peer]) -> Option<String> {
    let named: Vec<String> = peers.iter().take(NAMED_MAX).map(ToString::to_string).collect();
    let rest = peers.len() - named.len();
    let more = if rest > 0 { format!(" and {rest} more") } else { String::new() };
    (!named.is_empty()).then(|| format!("{}{more}", named.join(", ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn declared_servers_match_their_peers() {
        let peers = [
            Peer::Inet("127.0.0.1:5432".parse().unwrap()),
            Peer::Inet("[::1]:5432".parse().unwrap()),
            Peer::Inet("10.0.0.1:80".parse().unwrap()),
            Peer::Unix("/run/db.sock".into()),
            Peer::Pipe("/run/pipe".into()),
            Peer::Device("/dev/kvm".into()),
            Peer::Abstract(b"bus".to_vec()),
            Peer::Other("a raw socket".to_owned()),
        ];
        let matched = |text: &str| -> Vec<usize> {
            let left = undeclared(&[text.to_owned()], peers.iter());
            (0..peers.len()).filter(|at| !left.contains(&peers[*at])).collect()
        };
        for (text, expected) in [
            ("127.0.0.1:5432", &[0][..]),
            ("[::1]:5432", &[1]),
            ("localhost:5432", &[0, 1]),
            ("localhost:*", &[0, 1]),
            ("10.0.0.1:*", &[2]),
            ("10.0.0.1:81", &[]),
            ("/run/db.sock", &[3]),
            ("/run/pipe", &[4]),
            ("/dev/kvm", &[5]),
            ("@bus", &[6]),
            ("@other", &[]),
        ] {
            assert!(is_server(text), "{text}");
            assert_eq!(matched(text), expected, "{text}");
        }
        for text in
            ["", "@", "localhost", "localhost:0", "::1:80", "[127.0.0.1]:80", "db:80", "run/db", "*:80"]
        {
            assert!(!is_server(text) && matched(text).is_empty(), "{text}");
        }
    }

    #[test]
    fn descriptions_name_three_peers() {
        let peer = |number: u16| Peer::Inet(([127, 0, 0, 1], number).into());
        assert_eq!(describe(&[]), None);
        assert_eq!(describe(&[peer(1)]).unwrap(), "127.0.0.1:1");
        let many: Vec<Peer> = (1..=5).map(peer).collect();
        assert_eq!(describe(&many).unwrap(), "127.0.0.1:1, 127.0.0.1:2, 127.0.0.1:3 and 2 more");
    }
}
