//! The client's side of a supervisor: starts it, and hands out reapers.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::process::{Child, Command, Stdio};

use parking_lot::Mutex;
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};

use crate::descriptors;

/// Maximum number of idle reapers.
const IDLE_MAX: usize = 64;

/// A supervisor with its idle reapers.
#[derive(Debug)]
pub(super) struct Client {
    command: Mutex<Command>,
    server: Mutex<Option<Server>>,
    /// Sockets of reapers without a child. The last to become idle is used first.
    idle: Mutex<Vec<OwnedFd>>,
}

/// A running supervisor process.
#[derive(Debug)]
struct Server {
    socket: OwnedFd,
    process: Option<Child>,
}

impl Client {
    pub(super) fn new(command: Command) -> Self {
        Self { command: Mutex::new(command), server: Mutex::default(), idle: Mutex::default() }
    }

    /// Returns the socket of an idle reaper, and whether it was used before: it may have been
    /// killed since.
    pub(super) fn reaper(&self) -> io::Result<(OwnedFd, bool)> {
        if let Some(idle) = self.idle.lock().pop() {
            return Ok((idle, true));
        }
        let mut server = self.server.lock();
        if let Some(running) = &*server
            && let Ok(reaper) = running.fork()
        {
            return Ok((reaper, false));
        }
        let started = Server::start(&mut self.command.lock())?;
        let reaper = started.fork()?;
        *server = Some(started);
        Ok((reaper, false))
    }

    /// Takes back a reaper without a child.
    pub(super) fn give_back(&self, reaper: OwnedFd) {
        let mut idle = self.idle.lock();
        if idle.len() < IDLE_MAX {
            idle.push(reaper);
        }
    }
}

impl Server {
    fn start(command: &mut Command) -> io::Result<Self> {
        let (ours, theirs) = socketpair(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
        command.stdin(theirs).stdout(Stdio::null()).stderr(Stdio::null());
        let process = command.spawn();
        // Closes this process's copy of the supervisor's end.
        command.stdin(Stdio::null());
        Ok(Self { socket: ours, process: Some(process?) })
    }

    /// Returns the socket of a new reaper.
    fn fork(&self) -> io::Result<OwnedFd> {
        descriptors::send(self.socket.as_fd(), &[0], &[])?;
        descriptors::receive_one(&self.socket)?
            .ok_or_else(|| io::Error::other("the supervisor of child processes has ended"))
    }
}

impl Drop for Server {
    /// Reaps the supervisor from a thread: it ends once the socket is closed.
    fn drop(&mut self) {
        if let Some(mut process) = self.process.take() {
            let _ =
                std::thread::Builder::new().name("greenwave-reap".to_owned()).spawn(move || process.wait());
        }
    }
}
