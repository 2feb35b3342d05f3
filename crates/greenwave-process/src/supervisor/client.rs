//! The client's side of a supervisor: starts it, and hands out reapers.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use parking_lot::Mutex;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use rustix::process::{Pid, PidfdFlags, pidfd_open};

use crate::descriptors;

/// Time that the supervisor gets to end before the last clone of its handle is dropped.
const END_TIME_MAX: Duration = Duration::from_secs(1);
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
    /// Taken when the supervisor is to end.
    socket: Option<OwnedFd>,
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
        Ok(Self { socket: Some(ours), process: Some(process?) })
    }

    /// Returns the socket of a new reaper.
    fn fork(&self) -> io::Result<OwnedFd> {
        let ended = || io::Error::other("the supervisor of child processes has ended");
        let socket = self.socket.as_ref().ok_or_else(ended)?;
        descriptors::send(socket.as_fd(), &[0], &[])?;
        descriptors::receive_one(socket)?.ok_or_else(ended)
    }
}

impl Drop for Server {
    /// Waits for the supervisor, which kills everything below it and ends once the socket is
    /// closed. If that takes long, a thread waits for it.
    fn drop(&mut self) {
        let Some(mut process) = self.process.take() else { return };
        drop(self.socket.take());
        if has_ended(&process, END_TIME_MAX) {
            let _ = process.wait();
            return;
        }
        let _ = std::thread::Builder::new().name("greenwave-reap".to_owned()).spawn(move || process.wait());
    }
}

/// Waits for a process to exit, and returns whether it did in time.
fn has_ended(process: &Child, time_max: Duration) -> bool {
    let pid = i32::try_from(process.id()).ok().and_then(Pid::from_raw);
    let Some(Ok(ended)) = pid.map(|pid| pidfd_open(pid, PidfdFlags::empty())) else { return false };
    let timeout = Timespec::try_from(time_max).ok();
    let mut files = [PollFd::new(&ended, PollFlags::IN)];
    rustix::io::retry_on_intr(|| poll(&mut files, timeout.as_ref())).is_ok_and(|ready| ready > 0)
}
