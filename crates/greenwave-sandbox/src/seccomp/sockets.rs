//! Decides whether a socket address belongs to the traced command itself or to another process.
//!
//! Each socket that the command binds, listens on or sends from is recorded by its inode number. An
//! address is the command's own if every socket that could receive at it has a recorded inode
//! (`/proc/PID/net`, `proc_net(5)`). The table is that of the caller's network namespace.

use std::collections::HashSet;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use libc::c_int;

use super::net_tables::{is_local, receivers};
use super::tracee::Tracee;

/// Maximum number of addresses whose owner is cached. The cache is cleared when it is full.
const OWN_MAX: usize = 10_000;
/// Time for which the owner of an address is cached.
const OWN_AGE_MAX: Duration = Duration::from_millis(10);

/// The sockets of one command.
#[derive(Debug, Default)]
pub(super) struct Sockets {
    inodes: HashSet<u64>,
    /// The paths that the command bound sockets to.
    paths: HashSet<PathBuf>,
    own: OwnAddresses,
}

/// The receiver of data at an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Receiver {
    /// The command itself.
    Own,
    /// Another process, perhaps on another machine.
    Other,
    /// Nobody: the address is one of this machine, and no socket receives there.
    None,
}

/// Addresses that were the command's own a short time ago. A program may send many messages to one
/// address, and reading the kernel's tables for each would be slow.
#[derive(Debug)]
struct OwnAddresses {
    addresses: HashSet<SocketAddr>,
    since: Instant,
}

impl Default for OwnAddresses {
    fn default() -> Self {
        Self { addresses: HashSet::new(), since: Instant::now() }
    }
}

impl OwnAddresses {
    /// Returns whether the address is cached. Forgets all addresses after [`OWN_AGE_MAX`], because
    /// another process may take an address that the command has given up.
    fn contains(&mut self, address: SocketAddr) -> bool {
        if self.since.elapsed() > OWN_AGE_MAX {
            *self = Self::default();
        }
        self.addresses.contains(&address)
    }

    fn insert(&mut self, address: SocketAddr) {
        if self.addresses.len() >= OWN_MAX {
            self.addresses.clear();
        }
        self.addresses.insert(address);
    }
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
        let Ok(table) = fs::read(it.net_directory().join("unix")) else { return false };
        // The kernel shows each zero byte as `@`.
        let shown = |byte: &u8| if *byte == 0 { b'@' } else { *byte };
        let wanted: Vec<u8> = [b'@'].into_iter().chain(name.iter().map(shown)).collect();
        let bound = table.split(|byte| *byte == b'\n').filter_map(|line| {
            let (inode, path) = unix_line(line)?;
            (path == wanted).then_some(inode)
        });
        self.own_all(bound)
    }

    /// Returns the receiver of data at an address.
    pub(super) fn receiver(&mut self, it: &Tracee<'_>, address: SocketAddr) -> Receiver {
        if self.own.contains(address) {
            return Receiver::Own;
        }
        let is_local = is_local(address.ip());
        let receivers = receivers(&it.net_directory(), address, is_local);
        if receivers.is_empty() && is_local {
            return Receiver::None;
        }
        if !self.own_all(receivers.into_iter()) {
            return Receiver::Other;
        }
        self.own.insert(address);
        Receiver::Own
    }

    fn own_all(&self, mut inodes: impl Iterator<Item = u64>) -> bool {
        let Some(first) = inodes.next() else { return false };
        self.inodes.contains(&first) && inodes.all(|inode| self.inodes.contains(&inode))
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_the_kernel_s_tables_are_parsed() {
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
