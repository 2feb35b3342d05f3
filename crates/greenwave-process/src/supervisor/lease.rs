//! A child that runs under a reaper.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::sync::Arc;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::process::Pid;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::Supervisor;
use super::client::Client;
use super::wire::{Encoded, FREEZE, KILL, REPLY_BYTES, ReaperReply, TERMINATE, THAW};
use crate::{Spawn, descriptors};

/// Time that killed processes get to disappear. Longer only if the kernel is in the middle of
/// something that cannot be interrupted.
const DEATH_TIME_MAX: Duration = Duration::from_secs(5);
/// Number of idle reapers that may turn out dead before a start fails.
const DEAD_REAPERS_MAX: usize = 100;

/// The socket of a reaper with a running child.
pub(crate) type ReaperSocket = Arc<AsyncFd<OwnedFd>>;

/// A child that runs under a reaper. Dropping it has the reaper kill everything below it.
#[derive(Debug)]
pub(crate) struct Supervised {
    client: Arc<Client>,
    /// Taken when the reaper is given back.
    socket: Option<ReaperSocket>,
    pid: Pid,
    status: Option<ExitStatus>,
    is_empty: bool,
    /// The answer to the last request to suspend the processes, or to let them continue.
    answer: Option<ReaperReply>,
    /// The part of a reply that has arrived.
    partial: Vec<u8>,
}

impl Supervised {
    /// Starts a child, and returns once it executes its program.
    pub(crate) fn start(supervisor: &Supervisor, spawn: &Spawn) -> io::Result<Self> {
        let client = &supervisor.client;
        for _ in 0..DEAD_REAPERS_MAX {
            let (socket, was_idle) = client.reaper()?;
            match Self::start_under(&socket, spawn) {
                Ok(ReaperReply::Started(pid)) => {
                    let pid = Pid::from_raw(pid).ok_or(io::ErrorKind::InvalidData)?;
                    rustix::io::ioctl_fionbio(&socket, true)?;
                    // SAFETY: the socket is owned by the `AsyncFd` and stays open as long as it is
                    // registered.
                    let socket = unsafe { AsyncFd::register_with_interest(socket, Interest::READABLE)? };
                    return Ok(Self {
                        client: Arc::clone(client),
                        socket: Some(Arc::new(socket)),
                        pid,
                        status: None,
                        is_empty: false,
                        answer: None,
                        partial: Vec::new(),
                    });
                }
                Ok(ReaperReply::Failed(error)) => {
                    client.give_back(socket);
                    return Err(io::Error::from_raw_os_error(error));
                }
                Ok(_) => return Err(io::ErrorKind::InvalidData.into()),
                // Somebody has killed the idle reaper.
                Err(_) if was_idle => {}
                Err(error) => return Err(error),
            }
        }
        Err(io::Error::other("the supervisor of child processes was killed"))
    }

    fn start_under(socket: &OwnedFd, spawn: &Spawn) -> io::Result<ReaperReply> {
        let request = Encoded::new(spawn)?;
        let mut sent = descriptors::send(socket.as_fd(), &request.bytes, &request.descriptors)?;
        while sent < request.bytes.len() {
            sent += descriptors::send(socket.as_fd(), &request.bytes[sent..], &[])?;
        }
        let mut reply = [0; REPLY_BYTES];
        let mut read = 0;
        while read < REPLY_BYTES {
            match rustix::io::retry_on_intr(|| rustix::io::read(socket, &mut reply[read..]))? {
                0 => return Err(ended()),
                count => read += count,
            }
        }
        ReaperReply::decode(reply)
    }

    pub(crate) fn id(&self) -> Option<Pid> {
        self.status.is_none().then_some(self.pid)
    }

    pub(crate) fn socket(&self) -> Option<ReaperSocket> {
        self.socket.clone()
    }

    /// Waits for the child to exit. Cancel safe.
    pub(crate) async fn wait(&mut self) -> io::Result<ExitStatus> {
        loop {
            if let Some(status) = self.try_wait()? {
                return Ok(status);
            }
            self.readable().await?;
        }
    }

    pub(crate) fn try_wait(&mut self) -> io::Result<Option<ExitStatus>> {
        self.read_replies()?;
        Ok(self.status)
    }

    /// Waits until no descendant of the child is left. Cancel safe.
    pub(crate) async fn wait_until_empty(&mut self) -> io::Result<()> {
        while !self.is_empty {
            self.read_replies()?;
            if !self.is_empty {
                self.readable().await?;
            }
        }
        Ok(())
    }

    /// Suspends the child and all its descendants. Returns whether all of them are suspended.
    pub(crate) async fn freeze(&mut self) -> io::Result<bool> {
        Ok(self.ask(FREEZE).await? == Some(ReaperReply::Frozen(true)) && self.status.is_none())
    }

    /// Lets the child and its descendants continue. Returns whether the child has not exited.
    pub(crate) async fn thaw(&mut self) -> io::Result<bool> {
        Ok(self.ask(THAW).await? == Some(ReaperReply::Thawed) && self.status.is_none())
    }

    /// Sends a command, and waits for its answer. `None` if no process is left.
    async fn ask(&mut self, asked: u8) -> io::Result<Option<ReaperReply>> {
        let Some(socket) = &self.socket else { return Err(ended()) };
        self.answer = None;
        command(socket.get_ref().as_fd(), asked)?;
        loop {
            self.read_replies()?;
            if self.answer.is_some() || self.is_empty {
                return Ok(self.answer.take());
            }
            self.readable().await?;
        }
    }

    /// Kills the remaining processes after the child has exited, and waits for them. Cancel safe.
    pub(crate) async fn finish(&mut self) {
        self.read_replies().ok();
        if !self.is_empty {
            if let Some(socket) = &self.socket {
                let _ = kill(socket.get_ref().as_fd());
            }
            // On an error the reaper is gone, and the supervisor kills its processes.
            let _ = tokio::time::timeout(DEATH_TIME_MAX, self.wait_until_empty()).await;
        }
    }

    /// Gives the reaper back if it is free. Every other clone of its socket must be dropped before.
    pub(crate) fn release(&mut self) {
        if !self.is_empty || self.status.is_none() {
            return;
        }
        let socket = self.socket.take().and_then(Arc::into_inner).map(AsyncFd::into_inner);
        if let Some(socket) = socket
            && rustix::io::ioctl_fionbio(&socket, false).is_ok()
        {
            self.client.give_back(socket);
        }
    }

    async fn readable(&self) -> io::Result<()> {
        match &self.socket {
            Some(socket) => {
                let mut ready = socket.readable().await?;
                if !has_input(socket.get_ref().as_fd())? {
                    ready.clear_ready();
                }
                Ok(())
            }
            None => Err(ended()),
        }
    }

    /// Reads the replies that have arrived.
    fn read_replies(&mut self) -> io::Result<()> {
        let Some(socket) = &self.socket else { return Ok(()) };
        let mut bytes = [0; 4 * REPLY_BYTES];
        while !self.is_empty {
            match rustix::io::read(socket.get_ref(), &mut bytes) {
                Ok(0) => return Err(ended()),
                Ok(count) => self.partial.extend_from_slice(&bytes[..count]),
                Err(Errno::AGAIN) => return Ok(()),
                Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
            while let Some(reply) = self.partial.first_chunk::<REPLY_BYTES>().copied() {
                self.partial.drain(..REPLY_BYTES);
                match ReaperReply::decode(reply)? {
                    ReaperReply::Exited(status) => self.status = Some(ExitStatus::from_raw(status)),
                    ReaperReply::Empty => self.is_empty = true,
                    answer @ (ReaperReply::Frozen(_) | ReaperReply::Thawed) => self.answer = Some(answer),
                    ReaperReply::Started(_) | ReaperReply::Failed(_) => {
                        return Err(io::ErrorKind::InvalidData.into());
                    }
                }
            }
        }
        Ok(())
    }
}

fn has_input(socket: BorrowedFd<'_>) -> io::Result<bool> {
    let mut files = [PollFd::new(&socket, PollFlags::IN)];
    let timeout = rustix::event::Timespec { tv_sec: 0, tv_nsec: 0 };
    Ok(poll(&mut files, Some(&timeout))? > 0)
}

/// Asks a reaper to kill everything below it.
pub(crate) fn kill(socket: BorrowedFd<'_>) -> io::Result<()> {
    command(socket, KILL)
}

/// Asks a reaper to send `SIGTERM` to the group of its child.
pub(crate) fn terminate(socket: BorrowedFd<'_>) -> io::Result<()> {
    command(socket, TERMINATE)
}

fn command(socket: BorrowedFd<'_>, command: u8) -> io::Result<()> {
    match descriptors::send(socket, &[command], &[]) {
        // The reaper is gone, and with it everything below.
        Err(error) if matches!(error.raw_os_error(), Some(libc::EPIPE | libc::ECONNRESET)) => Ok(()),
        result => result.map(drop),
    }
}

fn ended() -> io::Error {
    io::Error::other("the reaper of a child process was killed")
}
