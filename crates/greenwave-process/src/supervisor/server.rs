//! The supervisor process: forks reapers on request, and kills everything when its client is gone.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::process::exit;
use std::ptr;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use rustix::process::{Pid, PidfdFlags, WaitOptions, pidfd_open, wait};

use super::descendants::kill_descendants;
use super::events::signals;
use super::reaper;
use crate::descriptors;

/// Time after which the supervisor gives up on processes that it cannot kill.
const KILL_TIME_MAX: Duration = Duration::from_secs(10);
/// Pause between two attempts to kill everything.
const PAUSE: Duration = Duration::from_millis(1);
/// The first descriptor that is not a standard stream.
const FIRST_FILE: libc::c_uint = 3;

/// A running reaper.
struct Reaper {
    pid: Pid,
    /// The pidfd, readable once the reaper has exited. `SIGCHLD` would be lost in a process
    /// with another thread that does not block it.
    ended: OwnedFd,
}

/// Serves the client at the other end of standard input until it is gone.
pub(super) fn serve() -> io::Result<()> {
    let client = detach()?;
    let mut reapers = Vec::new();
    loop {
        let ended = reapers.iter().map(|reaper: &Reaper| PollFd::new(&reaper.ended, PollFlags::IN));
        let mut files: Vec<PollFd<'_>> =
            std::iter::once(PollFd::new(&client, PollFlags::IN)).chain(ended).collect();
        match poll(&mut files, None) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        let is_request = !files[0].revents().is_empty();
        reap(&mut reapers);
        if is_request {
            let mut byte = [0];
            match rustix::io::read(&client, &mut byte) {
                Ok(1) => fork_reaper(&client, &mut reapers)?,
                _ => break,
            }
        }
    }
    let started = Instant::now();
    while reap(&mut Vec::new()) && started.elapsed() < KILL_TIME_MAX {
        kill_descendants(&[], None);
        std::thread::sleep(PAUSE);
    }
    Ok(())
}

/// Detaches this process from the terminal and its signals, and from everything that it inherited,
/// except for the socket on standard input, which is returned.
fn detach() -> io::Result<OwnedFd> {
    // Not a session: the scheduler shares the processor between sessions, so that children in a
    // separate session would wait for each other and for this program.
    rustix::process::setpgid(None, None)?;
    leave_terminal();
    // SAFETY: the call has no pointers, and closes descriptors that nothing in this process uses:
    // it is at its start.
    unsafe { libc::syscall(libc::SYS_close_range, FIRST_FILE, libc::c_uint::MAX, 0) };
    let client = io::stdin().as_fd().try_clone_to_owned()?;
    rustix::net::sockopt::socket_type(&client)?;
    let null = File::options().read(true).write(true).open("/dev/null")?;
    rustix::stdio::dup2_stdin(&null)?;
    rustix::stdio::dup2_stdout(&null)?;
    rustix::stdio::dup2_stderr(&null)?;
    // Any process sets the attribute, which belongs to this one.
    rustix::process::set_child_subreaper(Some(rustix::process::getpid()))?;
    block_signals();
    Ok(client)
}

/// Gives up the controlling terminal, if there is one, for this process and its children only.
fn leave_terminal() {
    if let Ok(terminal) = File::open("/dev/tty") {
        // SAFETY: the request takes no argument. For a process that does not lead its session, it
        // changes this process only.
        unsafe { libc::ioctl(terminal.as_raw_fd(), libc::TIOCNOTTY) };
    }
}

/// Forks a reaper and sends the other end of its socket to the client.
fn fork_reaper(client: &OwnedFd, reapers: &mut Vec<Reaper>) -> io::Result<()> {
    let (ours, theirs) = socketpair(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
    // SAFETY: this process has one thread, so no lock is held by another one.
    match unsafe { libc::fork() } {
        0 => {
            drop(theirs);
            reapers.clear();
            // SAFETY: the child does not use the supervisor's descriptor after this. The copy in
            // the supervisor is not affected.
            unsafe { libc::close(client.as_raw_fd()) };
            let ended = reaper::run(ours);
            exit(i32::from(ended.is_err()));
        }
        pid => {
            let Some(pid) = Some(pid).filter(|pid| *pid > 0).and_then(Pid::from_raw) else {
                return Err(io::Error::last_os_error());
            };
            reapers.push(Reaper { pid, ended: pidfd_open(pid, PidfdFlags::empty())? });
            // Fails if the client is gone. The reaper then ends, since its socket is closed.
            let _ = descriptors::send_one(client, &theirs);
            Ok(())
        }
    }
}

/// Reaps exited processes. If a reaper exited, kills the orphans that it has left to this process.
/// Returns whether this process has children.
fn reap(reapers: &mut Vec<Reaper>) -> bool {
    let mut has_lost_reaper = false;
    loop {
        match wait(WaitOptions::NOHANG) {
            Ok(Some((pid, _))) => {
                let before = reapers.len();
                reapers.retain(|reaper| reaper.pid != pid);
                has_lost_reaper |= reapers.len() < before;
            }
            Err(rustix::io::Errno::INTR) => {}
            Ok(None) => {
                // Every child other than a reaper is an orphan whose reaper was killed.
                let spared: Vec<Pid> = reapers.iter().map(|reaper| reaper.pid).collect();
                if has_lost_reaper && kill_descendants(&spared, None) > 0 {
                    std::thread::sleep(PAUSE);
                    continue;
                }
                return true;
            }
            Err(_) => return false,
        }
    }
}

/// Blocks all signals: the supervisor ends when its client does and not before. Children start
/// with no signal blocked.
fn block_signals() {
    let set = signals(|set| {
        // SAFETY: `signals` passes a pointer to a set that it owns.
        unsafe { libc::sigfillset(set) };
    });
    // SAFETY: the call reads the set, which outlives it, and a null pointer asks for no old set.
    unsafe { libc::sigprocmask(libc::SIG_SETMASK, &raw const set, ptr::null_mut()) };
}
