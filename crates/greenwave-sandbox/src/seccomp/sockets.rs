//! Decides whether a socket address belongs to the traced command itself or to another process.
//!
//! Each socket that the command binds, listens on or sends from is recorded by its inode number. An
//! address is the command's own if every socket that could receive at it has a recorded inode
//! (`/proc/PID/net`, `proc_net(5)`). The table is that of the caller's network namespace.

use std::collections::HashSet;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::path::{Path, PathBuf};

use libc::c_int;

use super::tracee::Tracee;
use crate::Peer;

/// State of a listening socket in `/proc/PID/net/tcp` (`TCP_LISTEN` of `net/tcp_states.h`).
const LISTEN: &str = "0A";
/// Maximum number of addresses whose owner is cached. The cache is cleared when it is full.
const OWN_MAX: usize = 10_000;

/// The sockets of one command.
#[derive(Debug, Default)]
pub(super) struct Sockets {
    inodes: HashSet<u64>,
    /// The paths that the command bound sockets to.
    paths: HashSet<PathBuf>,
    /// Addresses that were the command's own when it last sent to them. A program may send many
    /// messages to one address.
    own: HashSet<SocketAddr>,
}

impl Sockets {
    /// Records a socket of the command.
    pub(super) fn insert(&mut self, it: &Tracee<'_>, descriptor: c_int) {
        if let Some(inode) = it.socket_inode(descriptor) {
            self.inodes.insert(inode);
        }
    }

    /// Records that the command binds a socket to a path at which nothing exists.
    pub(super) fn bind_path(&mut self, path: &Path) {
        self.paths.insert(path.to_owned());
    }

    /// Returns whether the command itself has bound a socket to a path.
    pub(super) fn owns_path(&self, path: &Path) -> bool {
        self.paths.contains(path)
    }

    /// Returns whether the command itself has bound a socket to an abstract name.
    pub(super) fn owns_name(&self, it: &Tracee<'_>, name: &[u8]) -> bool {
        let Ok(table) = fs::read(it.net("unix")) else { return false };
        // The kernel shows each zero byte as `@`.
        let shown = |byte: &u8| if *byte == 0 { b'@' } else { *byte };
        let wanted: Vec<u8> = [b'@'].into_iter().chain(name.iter().map(shown)).collect();
        let bound = table.split(|byte| *byte == b'\n').filter_map(|line| {
            let (inode, path) = unix_line(line)?;
            (path == wanted).then_some(inode)
        });
        self.own_all(bound)
    }

    /// Returns the peer at an address, or `None` if it is the command itself.
    pub(super) fn peer(&mut self, it: &Tracee<'_>, address: SocketAddr) -> Option<Peer> {
        if self.own.contains(&address) {
            return None;
        }
        let mut local = None;
        let mut is_local = || *local.get_or_insert_with(|| is_local(address.ip()));
        let mut receivers = Vec::new();
        for (name, is_stream) in [("tcp", true), ("tcp6", true), ("udp", false), ("udp6", false)] {
            let table = fs::read_to_string(it.net(name)).unwrap_or_default();
            let sockets = table.lines().skip(1).filter_map(InetLine::parse);
            let receives = |socket: &InetLine<'_>| {
                socket.address.port() == address.port() && (!is_stream || socket.state == LISTEN)
            };
            for socket in sockets.filter(receives) {
                let ip = unmapped(socket.address.ip());
                let is_wildcard = ip.is_unspecified() && (ip.is_ipv6() || address.ip().is_ipv4());
                if ip == address.ip() || (is_wildcard && is_local()) || address.ip().is_unspecified() {
                    receivers.push(socket.inode);
                }
            }
        }
        if !self.own_all(receivers.into_iter()) {
            return Some(Peer::Inet(address));
        }
        if self.own.len() >= OWN_MAX {
            self.own.clear();
        }
        self.own.insert(address);
        None
    }

    fn own_all(&self, mut inodes: impl Iterator<Item = u64>) -> bool {
        let Some(first) = inodes.next() else { return false };
        self.inodes.contains(&first) && inodes.all(|inode| self.inodes.contains(&inode))
    }
}

/// Returns whether packets to an address stay on this machine.
fn is_local(ip: IpAddr) -> bool {
    ip.is_loopback() || ip.is_unspecified() || UdpSocket::bind((ip, 0)).is_ok()
}

/// Converts an IPv4 address that is mapped into IPv6.
pub(super) fn unmapped(ip: IpAddr) -> IpAddr {
    ip.to_canonical()
}

/// Parses a line of `/proc/PID/net/unix`. Returns the inode and the path of the socket.
fn unix_line(mut line: &[u8]) -> Option<(u64, &[u8])> {
    let mut word = || {
        let start = line.iter().position(|byte| *byte != b' ')?;
        let end = line[start..].iter().position(|byte| *byte == b' ').map_or(line.len(), |at| start + at);
        let word = &line[start..end];
        line = &line[end..];
        Some(word)
    };
    // Address, references, protocol, flags, type and state come first.
    for _ in 0..6 {
        word()?;
    }
    let inode = std::str::from_utf8(word()?).ok()?.parse().ok()?;
    Some((inode, line.strip_prefix(b" ").unwrap_or(line)))
}

/// A line of `/proc/PID/net/tcp` and its like.
struct InetLine<'a> {
    address: SocketAddr,
    state: &'a str,
    inode: u64,
}

impl<'a> InetLine<'a> {
    fn parse(line: &'a str) -> Option<Self> {
        let mut words = line.split_ascii_whitespace();
        let address = inet_address(words.nth(1)?)?;
        let state = words.nth(1)?;
        // Queues, timer, retransmissions, user and timeout are in between.
        let inode = words.nth(5)?.parse().ok()?;
        Some(Self { address, state, inode })
    }
}

/// Parses an address such as `0100007F:1F90`: words of 32 bits in the byte order of the machine,
/// then the port.
fn inet_address(text: &str) -> Option<SocketAddr> {
    let (ip, port) = text.split_once(':')?;
    let port = u16::from_str_radix(port, 16).ok()?;
    let word = |at: usize| Some(u32::from_str_radix(ip.get(at..at + 8)?, 16).ok()?.to_ne_bytes());
    let ip = match ip.len() {
        8 => IpAddr::V4(Ipv4Addr::from(word(0)?)),
        32 => {
            let mut bytes = [0; 16];
            for (at, bytes) in bytes.chunks_exact_mut(4).enumerate() {
                bytes.copy_from_slice(&word(at * 8)?);
            }
            IpAddr::V6(Ipv6Addr::from(bytes))
        }
        _ => return None,
    };
    Some(SocketAddr::new(ip, port))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_the_kernel_s_tables_are_parsed() {
        let line = "   0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000  1000 \
                    0 31337 1 0000000000000000 100 0 0 10 0";
        let line = InetLine::parse(line).unwrap();
        assert_eq!((line.address.to_string().as_str(), line.state), ("127.0.0.1:8080", "0A"));
        assert_eq!(line.inode, 31337);
        let six = inet_address("00000000000000000000000001000000:0050").unwrap();
        assert_eq!(six.to_string(), "[::1]:80");
        let mapped = inet_address("0000000000000000FFFF00000100007F:0050").unwrap();
        assert_eq!(unmapped(mapped.ip()).to_string(), "127.0.0.1");
        assert_eq!(inet_address("xyz:80"), None);
        let unix = b"0000000000000000: 00000002 00000000 00010000 0001 01 12345 @a b";
        assert_eq!(unix_line(unix), Some((12345, b"@a b".as_slice())));
        let padded = b"0000000000000000: 00000002 00000000 00010000 0001 01    45 /run/x";
        assert_eq!(unix_line(padded), Some((45, b"/run/x".as_slice())));
        let unnamed = b"0000000000000000: 00000003 00000000 00000000 0001 03 12346";
        assert_eq!(unix_line(unnamed), Some((12346, b"".as_slice())));
    }

    #[test]
    fn an_address_without_receivers_is_not_the_command_s_own() {
        let sockets = Sockets { inodes: HashSet::from([1, 2]), ..Sockets::default() };
        assert!(sockets.own_all([1, 2].into_iter()));
        assert!(!sockets.own_all([1, 3].into_iter()));
        assert!(!sockets.own_all(std::iter::empty()));
    }
}
