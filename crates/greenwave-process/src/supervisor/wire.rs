//! Messages between a process and its reapers.
//!
//! A request is [`REQUEST`], its length in four bytes, and a [`Spawn`] as length-prefixed fields;
//! its descriptors accompany the first byte. A command is one byte. A reply is a kind and a
//! number, of four bytes each. All numbers are little-endian. Both ends are the same program, so
//! the protocol has no version.

use std::ffi::{CString, OsStr, OsString};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};

use rustix::io::{FdFlags, fcntl_dupfd_cloexec, fcntl_setfd};

use crate::descriptors::{self, DESCRIPTORS_MAX};
use crate::{Setup, Spawn};

/// First byte of a request.
const REQUEST: u8 = b'R';
/// Length of the start of a request in bytes.
const HEAD_BYTES: usize = 5;
/// Byte that asks a reaper to kill everything below it.
pub(super) const KILL: u8 = b'K';
/// Byte that asks a reaper to send `SIGTERM` to the process group of the child.
pub(super) const TERMINATE: u8 = b'T';
/// Byte that asks a reaper to suspend everything below it.
pub(super) const FREEZE: u8 = b'F';
/// Byte that asks a reaper to let everything below it continue.
pub(super) const THAW: u8 = b'C';

/// Length of a reply in bytes.
pub(super) const REPLY_BYTES: usize = 8;

/// A reply of a reaper.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ReaperReply {
    /// The child runs, with this process id.
    Started(i32),
    /// The child cannot be started, for this error number.
    Failed(i32),
    /// The child has exited with this status, as `wait(2)` encodes it.
    Exited(i32),
    /// No process is left below the reaper.
    Empty,
    /// Whether every process below the reaper is suspended.
    Frozen(bool),
    /// The processes below the reaper continue.
    Thawed,
}

impl ReaperReply {
    pub(super) fn encode(self) -> [u8; REPLY_BYTES] {
        let (kind, number) = match self {
            Self::Started(pid) => (0_i32, pid),
            Self::Failed(error) => (1, error),
            Self::Exited(status) => (2, status),
            Self::Empty => (3, 0),
            Self::Frozen(is_frozen) => (4, i32::from(is_frozen)),
            Self::Thawed => (5, 0),
        };
        let mut bytes = [0; REPLY_BYTES];
        bytes[..4].copy_from_slice(&kind.to_le_bytes());
        bytes[4..].copy_from_slice(&number.to_le_bytes());
        bytes
    }

    pub(super) fn decode(bytes: [u8; REPLY_BYTES]) -> io::Result<Self> {
        let [a, b, c, d, rest @ ..] = bytes;
        let number = i32::from_le_bytes(rest);
        match i32::from_le_bytes([a, b, c, d]) {
            0 => Ok(Self::Started(number)),
            1 => Ok(Self::Failed(number)),
            2 => Ok(Self::Exited(number)),
            3 => Ok(Self::Empty),
            4 => Ok(Self::Frozen(number == 1)),
            5 => Ok(Self::Thawed),
            _ => Err(io::ErrorKind::InvalidData.into()),
        }
    }
}

/// A request as bytes, with the descriptors that it refers to by index.
pub(super) struct Encoded<'a> {
    pub(super) bytes: Vec<u8>,
    pub(super) descriptors: Vec<BorrowedFd<'a>>,
}

impl<'a> Encoded<'a> {
    pub(super) fn new(spawn: &'a Spawn) -> io::Result<Self> {
        let mut encoded = Self { bytes: vec![REQUEST, 0, 0, 0, 0], descriptors: Vec::new() };
        encoded.text(spawn.program.as_os_str());
        encoded.number(spawn.arguments.len() as u64);
        spawn.arguments.iter().for_each(|argument| encoded.text(argument));
        encoded.text(spawn.directory.as_ref().map_or(OsStr::new(""), |directory| directory.as_os_str()));
        encoded.number(spawn.variables.len() as u64);
        for (name, value) in &spawn.variables {
            encoded.text(name);
            encoded.text(value);
        }
        for stream in [&spawn.stdin, &spawn.stdout, &spawn.stderr] {
            encoded.number(u64::from(stream.is_some()));
            stream.iter().for_each(|stream| encoded.descriptors.push(stream.as_fd()));
        }
        encoded.number(spawn.setups.len() as u64);
        spawn.setups.iter().for_each(|setup| encoded.setup(setup));
        if encoded.descriptors.len() > DESCRIPTORS_MAX {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let length =
            u32::try_from(encoded.bytes.len() - HEAD_BYTES).map_err(|_| io::ErrorKind::InvalidInput)?;
        encoded.bytes[1..HEAD_BYTES].copy_from_slice(&length.to_le_bytes());
        Ok(encoded)
    }

    fn number(&mut self, number: u64) {
        self.bytes.extend_from_slice(&number.to_le_bytes());
    }

    fn block(&mut self, bytes: &[u8]) {
        self.number(bytes.len() as u64);
        self.bytes.extend_from_slice(bytes);
    }

    fn text(&mut self, text: &OsStr) {
        self.block(text.as_bytes());
    }

    fn filter(&mut self, filter: &[libc::sock_filter]) {
        self.number(filter.len() as u64);
        for step in filter {
            self.number(
                u64::from(step.code)
                    | u64::from(step.jt) << 16
                    | u64::from(step.jf) << 24
                    | u64::from(step.k) << 32,
            );
        }
    }

    fn numbers(&mut self, numbers: &[u64]) {
        numbers.iter().for_each(|number| self.number(*number));
    }

    fn namespaces(&mut self, flags: libc::c_int, identity: Option<(u32, u32)>) {
        self.number(flags as u64);
        self.number(u64::from(identity.is_some()));
        let (user, group) = identity.unwrap_or_default();
        [user, group].into_iter().for_each(|id| self.number(u64::from(id)));
    }

    fn setup(&mut self, setup: &'a Setup) {
        match setup {
            Setup::Inherit(file) => {
                self.number(0);
                self.number(*file as u64);
                // SAFETY: the owner of the descriptor keeps it open while the child is started.
                self.descriptors.push(unsafe { BorrowedFd::borrow_raw(*file) });
            }
            Setup::Place { file, number } => {
                self.number(0);
                self.number(*number as u64);
                self.descriptors.push(file.as_fd());
            }
            Setup::NoNewPrivileges => self.number(1),
            Setup::Restrict(rules) => {
                self.number(2);
                self.descriptors.push(rules.as_fd());
            }
            Setup::ReportCalls { filter, socket, secret } => {
                self.number(3);
                secret.iter().for_each(|number| self.number(*number));
                self.filter(filter);
                self.descriptors.push(socket.as_fd());
            }
            Setup::FilterCalls { filter, on_processes } => {
                self.number(4);
                self.filter(filter);
                self.number(u64::from(*on_processes));
            }
            Setup::Namespaces { flags, identity } => {
                self.number(5);
                self.namespaces(*flags, *identity);
            }
            Setup::OwnProcesses { read_only } => self.numbers(&[6, u64::from(*read_only)]),
            Setup::Mount { source, target, kind, flags, options } => {
                self.number(7);
                [source, target, kind, options].into_iter().for_each(|text| self.block(text.to_bytes()));
                self.number(*flags);
            }
            Setup::SetAttributes { path, set, clear, recursive } => {
                self.number(8);
                self.block(path.to_bytes());
                self.numbers(&[*set, *clear, u64::from(*recursive)]);
            }
            Setup::Create { path, directory } => {
                self.number(12);
                self.block(path.to_bytes());
                self.number(u64::from(*directory));
            }
            Setup::Link { target, path } => {
                self.number(13);
                [target, path].into_iter().for_each(|text| self.block(text.to_bytes()));
            }
            Setup::DropCapabilities(mask) => self.numbers(&[9, *mask]),
            Setup::LoopbackUp => self.number(10),
            Setup::Enter(path) | Setup::Cover(path) => {
                self.number(if matches!(setup, Setup::Enter(_)) { 11 } else { 14 });
                self.block(path.to_bytes());
            }
        }
    }
}

/// Receives a request. Returns `None` at the end of the stream.
///
/// Skips commands that were meant for a child that has ended in the meantime.
pub(super) fn receive(socket: &OwnedFd) -> io::Result<Option<Spawn>> {
    let mut first = [0];
    let descriptors = loop {
        let (count, descriptors) = descriptors::receive(socket, &mut first)?;
        match (count, first[0]) {
            (0, _) => return Ok(None),
            (_, REQUEST) => break descriptors,
            (_, KILL | TERMINATE) => {}
            _ => return Err(io::ErrorKind::InvalidData.into()),
        }
    };
    let mut length = [0; HEAD_BYTES - 1];
    read_exact(socket, &mut length)?;
    let mut bytes = vec![0; u32::from_le_bytes(length) as usize];
    read_exact(socket, &mut bytes)?;
    Decoder { bytes: &bytes, descriptors: descriptors.into_iter() }.spawn().map(Some)
}

fn read_exact(socket: &OwnedFd, mut bytes: &mut [u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        match rustix::io::retry_on_intr(|| rustix::io::read(socket, &mut *bytes))? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            count => bytes = &mut bytes[count..],
        }
    }
    Ok(())
}

/// The part of a request that has not been read.
struct Decoder<'a> {
    bytes: &'a [u8],
    descriptors: std::vec::IntoIter<OwnedFd>,
}

impl Decoder<'_> {
    fn spawn(mut self) -> io::Result<Spawn> {
        let mut spawn = Spawn::new(self.text()?);
        for _ in 0..self.number()? {
            spawn.arguments.push(self.text()?);
        }
        spawn.directory = Some(self.text()?).filter(|text| !text.is_empty()).map(Into::into);
        for _ in 0..self.number()? {
            spawn.variables.push((self.text()?, self.text()?));
        }
        spawn.stdin = self.stream()?;
        spawn.stdout = self.stream()?;
        spawn.stderr = self.stream()?;
        for _ in 0..self.number()? {
            let setup = self.setup()?;
            spawn.setups.push(setup);
        }
        move_above_placed(&mut spawn)?;
        Ok(spawn)
    }

    fn take(&mut self, count: usize) -> io::Result<&[u8]> {
        let (taken, rest) = self.bytes.split_at_checked(count).ok_or(io::ErrorKind::InvalidData)?;
        self.bytes = rest;
        Ok(taken)
    }

    fn number(&mut self) -> io::Result<u64> {
        let bytes = self.take(8)?.try_into().map_err(|_| io::ErrorKind::InvalidData)?;
        Ok(u64::from_le_bytes(bytes))
    }

    fn block(&mut self) -> io::Result<Vec<u8>> {
        let count = self.number()? as usize;
        self.take(count).map(<[u8]>::to_vec)
    }

    fn text(&mut self) -> io::Result<OsString> {
        self.block().map(OsString::from_vec)
    }

    fn path(&mut self) -> io::Result<CString> {
        Ok(CString::new(self.block()?)?)
    }

    fn descriptor(&mut self) -> io::Result<OwnedFd> {
        self.descriptors.next().ok_or_else(|| io::ErrorKind::InvalidData.into())
    }

    fn stream(&mut self) -> io::Result<Option<OwnedFd>> {
        if self.number()? == 0 { Ok(None) } else { self.descriptor().map(Some) }
    }

    fn filter(&mut self) -> io::Result<Vec<libc::sock_filter>> {
        let count = self.number()?;
        let step = |number: u64| libc::sock_filter {
            code: number as u16,
            jt: (number >> 16) as u8,
            jf: (number >> 24) as u8,
            k: (number >> 32) as u32,
        };
        (0..count).map(|_| self.number().map(step)).collect()
    }

    fn setup(&mut self) -> io::Result<Setup> {
        Ok(match self.number()? {
            0 => Setup::Place { number: self.number()? as RawFd, file: self.descriptor()? },
            1 => Setup::NoNewPrivileges,
            2 => Setup::Restrict(self.descriptor()?),
            3 => {
                let secret = [self.number()?, self.number()?];
                Setup::ReportCalls { filter: self.filter()?, socket: self.descriptor()?, secret }
            }
            4 => Setup::FilterCalls { filter: self.filter()?, on_processes: self.number()? != 0 },
            5 => {
                let (flags, has_identity) = (self.number()? as libc::c_int, self.number()? != 0);
                let identity = (self.number()? as u32, self.number()? as u32);
                Setup::Namespaces { flags, identity: has_identity.then_some(identity) }
            }
            6 => Setup::OwnProcesses { read_only: self.number()? != 0 },
            7 => {
                let (source, target, kind) = (self.path()?, self.path()?, self.path()?);
                Setup::Mount { source, target, kind, options: self.path()?, flags: self.number()? }
            }
            8 => {
                let (path, set, clear) = (self.path()?, self.number()?, self.number()?);
                Setup::SetAttributes { path, set, clear, recursive: self.number()? != 0 }
            }
            9 => Setup::DropCapabilities(self.number()?),
            10 => Setup::LoopbackUp,
            11 => Setup::Enter(self.path()?),
            12 => Setup::Create { path: self.path()?, directory: self.number()? != 0 },
            13 => Setup::Link { target: self.path()?, path: self.path()? },
            14 => Setup::Cover(self.path()?),
            _ => return Err(io::ErrorKind::InvalidData.into()),
        })
    }
}

/// Moves all descriptors of a request above the numbers that some of them get in the child, so that
/// none overwrites another.
fn move_above_placed(spawn: &mut Spawn) -> io::Result<()> {
    let numbers = spawn.setups.iter().filter_map(|setup| match setup {
        Setup::Place { number, .. } => Some(*number),
        _ => None,
    });
    let Some(highest) = numbers.max() else { return Ok(()) };
    let streams = [&mut spawn.stdin, &mut spawn.stdout, &mut spawn.stderr].into_iter().flatten();
    let files = spawn.setups.iter_mut().filter_map(|setup| match setup {
        Setup::Place { file, .. } | Setup::Restrict(file) | Setup::ReportCalls { socket: file, .. } => {
            Some(file)
        }
        _ => None,
    });
    for file in streams.chain(files) {
        *file = fcntl_dupfd_cloexec(&*file, highest.saturating_add(1))?;
        fcntl_setfd(&*file, FdFlags::CLOEXEC)?;
    }
    Ok(())
}
