//! Reads the kernel's tables of internet sockets (`/proc/PID/net`, `proc_net(5)`).

use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::path::Path;

/// State of a listening socket in `/proc/PID/net/tcp` (`TCP_LISTEN` of `net/tcp_states.h`).
const LISTEN: &str = "0A";
/// The tables, and whether their sockets receive only if they listen.
const TABLES: [(&str, bool); 4] = [("tcp", true), ("tcp6", true), ("udp", false), ("udp6", false)];
/// The tables of the network namespace of this process.
pub(super) const OWN_TABLES: &str = "/proc/thread-self/net";

/// Returns the inodes of the sockets that receive data at an address. `tables` is the
/// directory of the tables of a network namespace, and `is_local` says whether the address is one
/// of this machine.
pub(super) fn receivers(tables: &Path, address: SocketAddr, is_local: bool) -> Vec<u64> {
    let mut receivers = Vec::new();
    for (name, must_listen) in TABLES {
        let table = fs::read_to_string(tables.join(name)).unwrap_or_default();
        for socket in table.lines().skip(1).filter_map(InetLine::parse) {
            let is_open = socket.address.port() == address.port() && (!must_listen || socket.state == LISTEN);
            if !is_open {
                continue;
            }
            let ip = unmapped(socket.address.ip());
            let is_wildcard = ip.is_unspecified() && (ip.is_ipv6() || address.ip().is_ipv4());
            if ip == address.ip() || (is_wildcard && is_local) || address.ip().is_unspecified() {
                receivers.push(socket.inode);
            }
        }
    }
    receivers
}

/// Returns whether packets to an address stay on this machine.
pub(super) fn is_local(ip: IpAddr) -> bool {
    ip.is_loopback() || ip.is_unspecified() || UdpSocket::bind((ip, 0)).is_ok()
}

/// Converts an IPv4 address that is mapped into IPv6.
pub(super) fn unmapped(ip: IpAddr) -> IpAddr {
    ip.to_canonical()
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
    }
}
