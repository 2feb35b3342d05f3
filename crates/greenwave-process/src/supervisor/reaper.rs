//! A reaper: starts one child at a time, adopts its orphans, and kills the remaining ones.

use std::io;
use std::os::fd::OwnedFd;
use std::process::exit;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, Signal, WaitOptions, kill_process_group, wait};

use super::descendants::{signal_descendants, suspended};
use super::events::ChildEvents;
use super::init::{self, Side};
use super::wire::{self, FREEZE, KILL, ReaperReply, TERMINATE, THAW};
use crate::Spawn;

/// First and longest pause between two attempts to kill everything.
const PAUSES: [Duration; 2] = [Duration::from_micros(200), Duration::from_millis(50)];
/// Time after which a reaper gives up suspending processes, for example one that waits for a disk.
const FREEZE_TIME_MAX: Duration = Duration::from_secs(2);
/// Time after which a reaper without a parent gives up on processes that it cannot kill, such as
/// those of another user.
const KILL_TIME_MAX: Duration = Duration::from_secs(10);

/// Serves requests until the other end of the socket is closed.
pub(super) fn run(socket: OwnedFd) -> io::Result<()> {
    // Any process sets the attribute, which belongs to this one.
    rustix::process::set_child_subreaper(Some(rustix::process::getpid()))?;
    let events = ChildEvents::new()?;
    let mut reaper = Reaper {
        socket,
        events,
        leader: None,
        group: None,
        is_killing: false,
        is_thawing: false,
        is_init: false,
    };
    while let Some(mut spawn) = wire::receive(&reaper.socket)? {
        match init::take_namespace(&mut spawn) {
            None => reaper.serve(spawn)?,
            Some(identity) => reaper.serve_in_namespace(spawn, identity)?,
        }
    }
    Ok(())
}

struct Reaper {
    socket: OwnedFd,
    events: ChildEvents,
    /// The child, until it was waited for.
    leader: Option<Pid>,
    /// The process group that the child was started in.
    group: Option<Pid>,
    is_killing: bool,
    /// Whether to say that the processes continue, once all that have exited were reaped.
    is_thawing: bool,
    /// Whether this process is the first one of a namespace of processes.
    is_init: bool,
}

impl Reaper {
    /// Starts a child, and serves it until no process is left.
    fn serve(&mut self, spawn: Spawn) -> io::Result<()> {
        let pid = match spawn.launch() {
            Ok(pid) => pid,
            Err(error) => return self.reply(&[failed(&error)]),
        };
        self.leader = Some(pid);
        self.group = Some(pid);
        self.is_killing = false;
        self.is_thawing = false;
        let number = if self.is_init { init::outer_number(pid) } else { Ok(pid.as_raw_nonzero().get()) };
        if self.is_init {
            init::close_to_others();
        }
        let attended = number.and_then(|number| self.reply(&[ReaperReply::Started(number)]));
        let attended = attended.and_then(|()| self.attend());
        if attended.is_err() {
            self.kill_all();
        }
        attended
    }

    /// Starts a child in a namespace of processes, and returns when no process is left in it.
    fn serve_in_namespace(&mut self, spawn: Spawn, identity: Option<(u32, u32)>) -> io::Result<()> {
        match init::fork(identity) {
            Err(error) => self.reply(&[failed(&error)]),
            Ok(Side::Inside) => {
                self.is_init = true;
                let served = self.serve(spawn);
                exit(i32::from(served.is_err()))
            }
            Ok(Side::Outside(init)) => {
                // The pipes of the child end with the child.
                drop(spawn);
                match init::wait(init)? {
                    0 => Ok(()),
                    _ => Err(io::Error::other("the first process of a namespace failed")),
                }
            }
        }
    }

    fn reply(&self, replies: &[ReaperReply]) -> io::Result<()> {
        let bytes: Vec<u8> = replies.iter().flat_map(|reply| reply.encode()).collect();
        rustix::net::send(&self.socket, &bytes, rustix::net::SendFlags::NOSIGNAL)?;
        Ok(())
    }

    /// Serves the running child until no process is left. Fails when the other end is closed.
    fn attend(&mut self) -> io::Result<()> {
        let mut pause = PAUSES[0];
        loop {
            let (status, is_empty) = self.reap();
            let exited = status.map(ReaperReply::Exited).into_iter();
            let thawed = std::mem::take(&mut self.is_thawing).then_some(ReaperReply::Thawed);
            let replies: Vec<ReaperReply> =
                exited.chain(is_empty.then_some(ReaperReply::Empty)).chain(thawed).collect();
            if !replies.is_empty() {
                self.reply(&replies)?;
            }
            if is_empty {
                return Ok(());
            }
            if self.is_killing {
                self.signal(Signal::KILL);
            }
            let timeout = self.is_killing.then_some(pause);
            pause = (pause * 2).min(PAUSES[1]);
            if self.wait(timeout)? {
                self.command()?;
                pause = PAUSES[0];
            }
        }
    }

    /// Waits until the child or an orphan exits, or a command arrives. Returns whether one did.
    fn wait(&mut self, timeout: Option<Duration>) -> io::Result<bool> {
        let timeout = timeout.and_then(|timeout| Timespec::try_from(timeout).ok());
        let mut files = [PollFd::new(&self.socket, PollFlags::IN), PollFd::new(&self.events, PollFlags::IN)];
        match poll(&mut files, timeout.as_ref()) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        let is_command = !files[0].revents().is_empty();
        self.events.clear();
        Ok(is_command)
    }

    fn command(&mut self) -> io::Result<()> {
        let mut command = [0];
        match rustix::io::read(&self.socket, &mut command)? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            _ if command[0] == KILL => self.is_killing = true,
            _ if command[0] == TERMINATE => {
                if let Some(leader) = self.leader {
                    let _ = kill_process_group(leader, Signal::TERM);
                }
            }
            _ if command[0] == FREEZE => {
                let is_frozen = self.freeze();
                self.reply(&[ReaperReply::Frozen(is_frozen)])?;
            }
            _ if command[0] == THAW => {
                self.signal(Signal::CONT);
                self.is_thawing = true;
            }
            _ => return Err(io::ErrorKind::InvalidData.into()),
        }
        Ok(())
    }

    /// Suspends everything below this process. Returns whether every process was seen to be
    /// suspended, twice: a process that was still running may have woken one that was seen before.
    fn freeze(&self) -> bool {
        let root = if self.is_init {
            init::own_outer_number()
        } else {
            Ok(rustix::process::getpid().as_raw_nonzero().get())
        };
        let Ok(root) = root else { return false };
        let (started, mut pause) = (Instant::now(), PAUSES[0]);
        loop {
            self.signal(Signal::STOP);
            let seen = suspended(root);
            if seen.is_some() && suspended(root) == seen {
                return true;
            }
            if started.elapsed() > FREEZE_TIME_MAX {
                return false;
            }
            std::thread::sleep(pause);
            pause = (pause * 2).min(PAUSES[1]);
        }
    }

    /// Reaps everything that has exited. Returns the status of the child if it was among it, and
    /// whether no process is left.
    fn reap(&mut self) -> (Option<i32>, bool) {
        let mut exited = None;
        loop {
            match wait(WaitOptions::NOHANG) {
                Ok(Some((pid, status))) if Some(pid) == self.leader => {
                    self.leader = None;
                    exited = Some(status.as_raw());
                }
                Ok(Some(_)) | Err(rustix::io::Errno::INTR) => {}
                Ok(None) => return (exited, false),
                Err(_) => return (exited, true),
            }
        }
    }

    /// Sends a signal to everything below this process.
    fn signal(&self, signal: Signal) {
        if self.is_init {
            init::signal_namespace(signal);
        } else {
            signal_descendants(&[], self.group, signal);
        }
    }

    /// Kills everything below this process, and waits for it.
    fn kill_all(&mut self) {
        let (started, mut pause) = (Instant::now(), PAUSES[0]);
        while !self.reap().1 && started.elapsed() < KILL_TIME_MAX {
            self.signal(Signal::KILL);
            std::thread::sleep(pause);
            pause = (pause * 2).min(PAUSES[1]);
        }
    }
}

fn failed(error: &io::Error) -> ReaperReply {
    ReaperReply::Failed(error.raw_os_error().unwrap_or(libc::EINVAL))
}
