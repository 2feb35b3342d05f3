//! Records the calls by which a command can exchange data with other processes.

use std::ffi::OsStr;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use libc::c_int;

use super::{Observer, RawPath, Skip, into_bytes};
use crate::Peer;
use crate::seccomp::call::reach::ADDRESSED;
use crate::seccomp::call::{Base, SocketCall};
use crate::seccomp::net_tables::unmapped;
use crate::seccomp::processes::own_number;
use crate::seccomp::resolver::{ForeignProcess, Node, Resolution, Target};
use crate::seccomp::sockets::Receiver;
use crate::seccomp::tracee::Tracee;

/// Maximum number of messages of one `sendmmsg` (`UIO_MAXIOV`). The kernel ignores further ones.
const MESSAGES_MAX: u32 = 1024;
/// Size of a message of `sendmmsg` (`struct mmsghdr`), in bytes.
const MESSAGE_BYTES: u64 = 64;
/// Protocol of the netlink sockets by which programs query network interfaces and routes. C
/// libraries create one for each lookup of a host name.
const NETLINK_ROUTE: c_int = 0;
/// Major and minor numbers of devices through which nothing gets from one process to another: null,
/// zero, full, random, urandom, the controlling terminal, the console and the multiplexer of
/// pseudo terminals (`Documentation/admin-guide/devices.txt` of Linux).
const HARMLESS_DEVICES: [(u32, u32); 8] = [(1, 3), (1, 5), (1, 7), (1, 8), (1, 9), (5, 0), (5, 1), (5, 2)];
/// Major numbers of pseudo terminals.
const TERMINALS: std::ops::RangeInclusive<u32> = 136..=143;
/// The list of System V objects, and those of keys.
const OBJECT_LISTS: [(&str, &str); 3] = [
    ("/proc/sysvipc", "the list of System V objects"),
    ("/proc/keys", "the kernel's keyrings"),
    ("/proc/key-users", "the kernel's keyrings"),
];

/// Sockets of the system's log (`syslog(3)`, `sd-journal(3)`).
const LOG_SOCKETS: [&str; 4] = [
    "/dev/log",
    "/run/systemd/journal/dev-log",
    "/run/systemd/journal/socket",
    "/run/systemd/journal/stdout",
];

/// The address of a socket.
enum SocketAddress {
    /// Unreadable, unspecified, or of a family whose sockets are recorded when they are created.
    None,
    Path(RawPath),
    Abstract(Vec<u8>),
    Inet(SocketAddr),
}

impl Observer {
    pub(super) fn socket(&mut self, it: &Tracee<'_>, call: SocketCall) -> Result<(), Skip> {
        match call {
            SocketCall::Create { family, kind, protocol } => self.create_socket(family, kind, protocol),
            SocketCall::Bind { descriptor, address, length } => {
                self.bind(it, descriptor, address, length)?;
            }
            SocketCall::Listen { descriptor } => self.sockets.insert(it, descriptor),
            SocketCall::Send { descriptor, address, length } => {
                self.send(it, descriptor, address, length)?;
            }
            SocketCall::SendMessages { descriptor, messages, count } => {
                for at in 0..count.min(MESSAGES_MAX) {
                    let message = messages.saturating_add(u64::from(at) * MESSAGE_BYTES);
                    let [address, length] = it.numbers(message)?.ok_or(Skip::NoAccess)?;
                    self.send(it, descriptor, address, u64::from(length as u32))?;
                }
            }
        }
        Ok(())
    }

    fn create_socket(&mut self, family: c_int, kind: u32, protocol: c_int) {
        let peer = match family {
            libc::AF_NETLINK if protocol == NETLINK_ROUTE => return,
            // Hashes and ciphers of the kernel, which store nothing.
            libc::AF_ALG => return,
            libc::AF_NETLINK => format!("a netlink socket of protocol {protocol}"),
            libc::AF_VSOCK => "a socket of another virtual machine".to_owned(),
            libc::AF_PACKET => "a packet socket".to_owned(),
            _ if kind == libc::SOCK_RAW as u32 && ADDRESSED.contains(&family) => "a raw socket".to_owned(),
            _ if protocol == libc::IPPROTO_SCTP => "an SCTP socket".to_owned(),
            _ => format!("a socket of address family {family}"),
        };
        self.log.reach(Peer::Other(peer));
    }

    fn bind(&mut self, it: &Tracee<'_>, descriptor: c_int, address: u64, length: u64) -> Result<(), Skip> {
        self.sockets.insert(it, descriptor);
        if let SocketAddress::Path(path) = socket_address(it, address, length)? {
            let resolved = self.resolve(it, &path, false);
            if resolved.target == Target::Absent {
                self.sockets.bind_path(&resolved.path);
            }
            self.create(&resolved, false);
        }
        Ok(())
    }

    fn send(&mut self, it: &Tracee<'_>, descriptor: c_int, address: u64, length: u64) -> Result<(), Skip> {
        let peer = match socket_address(it, address, length)? {
            SocketAddress::None => return Ok(()),
            SocketAddress::Inet(address) => self.inet_peer(it, descriptor, address),
            SocketAddress::Abstract(name) if self.sockets.owns_name(it, &name) => None,
            SocketAddress::Abstract(name) => Some(Peer::Abstract(name)),
            SocketAddress::Path(path) => {
                let resolved = self.resolve(it, &path, true);
                match resolved.target {
                    Target::Absent | Target::Unreachable => {
                        self.depend_on_existence(&resolved);
                        None
                    }
                    _ if self.sockets.owns_path(&resolved.path) || is_log(&resolved.path) => None,
                    _ => Some(Peer::Unix(resolved.path)),
                }
            }
        };
        if let Some(peer) = peer.filter(|_| it.is_waiting()) {
            self.log.reach(peer);
        }
        Ok(())
    }

    /// Returns the peer at an address, or `None` if it is the command itself or if nothing receives
    /// there.
    fn inet_peer(&mut self, it: &Tracee<'_>, descriptor: c_int, address: SocketAddr) -> Option<Peer> {
        let receiver = self.sockets.receiver(it, address);
        // The answer may come to the socket from a server of the command.
        self.sockets.insert(it, descriptor);
        match receiver {
            Receiver::Own => None,
            Receiver::Other => Some(Peer::Inet(address)),
            // C libraries connect to port 0 to find out which address is nearest.
            Receiver::None if address.port() == 0 => None,
            Receiver::None => {
                if it.is_waiting() {
                    self.log.absent_server(address);
                }
                None
            }
        }
    }

    /// Records an access to the memory of a process.
    pub(super) fn other_memory(&mut self, it: &Tracee<'_>, process: c_int) {
        let process = u32::try_from(process).map(|process| own_number(it.thread, process));
        if !process.is_ok_and(|process| self.processes.contains(process)) {
            self.log.incomplete("accesses the memory of a process that it did not start");
        }
    }

    /// Records that a descriptor of a process is copied.
    pub(super) fn other_descriptor(&mut self, it: &Tracee<'_>, process: c_int) {
        let about = fs::read_to_string(format!("/proc/{}/fdinfo/{process}", it.thread)).unwrap_or_default();
        let number = about.lines().find_map(|line| line.strip_prefix("Pid:")?.trim().parse().ok());
        if !number.is_some_and(|number| self.processes.contains(number)) {
            self.log.incomplete("takes over open files of a process that it did not start");
        }
    }

    /// Records that a path leads through `/proc/PID` of a process.
    pub(super) fn foreign_process(&mut self, process: ForeignProcess) {
        let ForeignProcess { number, has_files, has_environment } = process;
        if self.processes.contains(number) {
            return;
        }
        if has_files {
            self.log.incomplete("opens files of a process that it did not start");
        } else if number != 1 || has_environment {
            self.log.reach(Peer::Other("other processes, through /proc".to_owned()));
        }
    }

    /// Records that the names in `/proc` are read, or a list of objects.
    pub(super) fn pseudo_file(&mut self, path: &Path) {
        if path == Path::new("/proc") {
            self.log.reach(Peer::Other("other processes, through /proc".to_owned()));
        }
        if let Some((_, name)) = OBJECT_LISTS.iter().find(|(list, _)| path.starts_with(list)) {
            self.log.use_object((*name).to_owned());
        }
    }

    /// Records that a device, pipe or socket is opened. Nothing comes out of a pipe that is not
    /// opened for reading.
    pub(super) fn open_node(&mut self, resolved: &Resolution, node: Node, reads: bool) {
        let path = &resolved.path;
        match node {
            Node::Pipe if reads && !self.log.is_output(path) => self.log.reach(Peer::Pipe(path.clone())),
            Node::Character(major, minor)
                if !HARMLESS_DEVICES.contains(&(major, minor)) && !TERMINALS.contains(&major) =>
            {
                self.log.reach(Peer::Device(path.clone()));
            }
            Node::Block => self.log.incomplete("opens a block device"),
            _ => {}
        }
    }
}

/// Returns whether a socket belongs to the system's log, which answers nothing.
fn is_log(socket: &Path) -> bool {
    LOG_SOCKETS.iter().any(|log| socket == Path::new(log))
}

/// Reads the address of a socket.
fn socket_address(it: &Tracee<'_>, address: u64, length: u64) -> Result<SocketAddress, Skip> {
    let mut socket = [0_u8; size_of::<libc::sockaddr_un>()];
    let length = usize::try_from(length).unwrap_or(0).min(socket.len());
    if address == 0 || length < 2 || !it.read_structure(address, &mut socket[..length])? || !it.is_waiting() {
        return Ok(SocketAddress::None);
    }
    let (family, rest) = (c_int::from(u16::from_ne_bytes([socket[0], socket[1]])), &socket[2..length]);
    match family {
        libc::AF_UNIX if rest.first() == Some(&0) => Ok(SocketAddress::Abstract(rest[1..].to_vec())),
        // Requests an abstract name from the kernel.
        libc::AF_UNIX if rest.is_empty() => Ok(SocketAddress::None),
        libc::AF_UNIX => {
            let path = rest.split(|byte| *byte == 0).next().unwrap_or_default();
            let base = it.base(Base::WorkingDirectory)?.ok_or(Skip::NoAccess)?;
            Ok(SocketAddress::Path(into_bytes(base.join(OsStr::from_bytes(path)))))
        }
        libc::AF_INET | libc::AF_INET6 => {
            Ok(inet_address(family, rest).map_or(SocketAddress::None, SocketAddress::Inet))
        }
        _ => Ok(SocketAddress::None),
    }
}

/// Decodes an address behind its family (`struct sockaddr_in` and `sockaddr_in6`).
fn inet_address(family: c_int, rest: &[u8]) -> Option<SocketAddr> {
    let port = u16::from_be_bytes(rest.get(..2)?.try_into().ok()?);
    let ip = if family == libc::AF_INET {
        IpAddr::V4(Ipv4Addr::from(<[u8; 4]>::try_from(rest.get(2..6)?).ok()?))
    } else {
        // The flow label comes first.
        IpAddr::V6(Ipv6Addr::from(<[u8; 16]>::try_from(rest.get(6..22)?).ok()?))
    };
    Some(SocketAddr::new(unmapped(ip), port))
}
