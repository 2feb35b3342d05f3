//! The first process of a namespace of processes, which starts a child in it.
//!
//! The kernel kills everything in the namespace when its first process ends. That process is a copy
//! of the reaper and stays outside of the child's other namespaces. The child cannot signal it, and
//! cannot open its files or memory: it has capabilities that a confined child lacks, and cannot be
//! dumped.

use std::fs;
use std::io;
use std::os::fd::AsRawFd;

use rustix::process::{
    DumpableBehavior, Pid, PidfdFlags, Signal, pidfd_open, set_dumpable_behavior,
    set_parent_process_death_signal,
};

use crate::setup::keep_identity;
use crate::{Setup, Spawn};

/// One of the two processes after a fork.
pub(super) enum Side {
    /// The process that forked. Holds the number of the first process of the namespace.
    Outside(Pid),
    /// The first process of the namespace.
    Inside,
}

/// Moves the namespaces of processes and users from the steps of a child to its first process.
/// Returns the user and the group of the new user namespace, if there is to be one. `None` if the
/// child does not get a namespace of processes.
pub(super) fn take_namespace(spawn: &mut Spawn) -> Option<Option<(u32, u32)>> {
    if !spawn.setups.iter().any(|setup| matches!(setup, Setup::OwnProcesses { .. })) {
        return None;
    }
    let mut taken = None;
    spawn.setups.retain(|setup| !matches!(setup, Setup::FilterCalls { on_processes: true, .. }));
    for setup in &mut spawn.setups {
        match setup {
            Setup::Namespaces { identity, .. } if taken.is_none() => taken = identity.take(),
            Setup::OwnProcesses { read_only } => *setup = mount(*read_only),
            _ => {}
        }
    }
    Some(taken)
}

/// Returns the step that mounts a `/proc` of the namespace of processes that it is made in.
fn mount(read_only: bool) -> Setup {
    let flags = libc::MS_NOSUID | libc::MS_NODEV | libc::MS_NOEXEC;
    let flags = if read_only { flags | libc::MS_RDONLY } else { flags };
    let [source, target, kind] = [c"proc", c"/proc", c"proc"].map(Into::into);
    Setup::Mount { source, target, kind, flags, options: c"".into() }
}

/// Forks this process into a new namespace of processes, and a new user namespace with one user.
/// The copy is killed when this thread ends.
pub(super) fn fork(identity: Option<(u32, u32)>) -> io::Result<Side> {
    let user = if identity.is_some() { libc::CLONE_NEWUSER } else { 0 };
    let flags = libc::c_long::from(libc::CLONE_NEWPID | user | libc::SIGCHLD);
    let none: libc::c_long = 0;
    // SAFETY: without a stack and without shared memory, the call forks. The copy runs on a copy of
    // this thread's stack. The reaper has one thread, so no lock is held by another one.
    let pid = unsafe { libc::syscall(libc::SYS_clone, flags, none, none, none, none) };
    if pid != 0 {
        let pid = i32::try_from(pid).ok().filter(|pid| *pid > 0).and_then(Pid::from_raw);
        return pid.map(Side::Outside).ok_or_else(io::Error::last_os_error);
    }
    let prepared = identity.map_or(Ok(()), keep_identity);
    let _ = set_parent_process_death_signal(Some(Signal::KILL));
    match prepared {
        Ok(()) => Ok(Side::Inside),
        // SAFETY: the process ends at once, without destructors and without handlers of the parent.
        Err(error) => unsafe { libc::_exit(error.raw_os_error().unwrap_or(libc::EINVAL)) },
    }
}

/// Tests whether children get a namespace of processes with this user and group, by forking a
/// process into one that mounts a `/proc`. Takes about a millisecond.
///
/// # Errors
/// The error of the system call that failed.
pub fn probe_own_processes(identity: Option<(u32, u32)>) -> io::Result<()> {
    let (source, target) = (c"none".into(), c"/".into());
    let (flags, empty) = (libc::MS_REC | libc::MS_SLAVE, || c"".into());
    let steps = [
        Setup::Namespaces { flags: libc::CLONE_NEWNS, identity: None },
        Setup::Mount { source, target, kind: empty(), flags, options: empty() },
        mount(false),
    ];
    match fork(identity)? {
        Side::Inside => {
            let failed = steps.iter().find_map(|step| step.apply().err());
            let code = failed.map_or(0, |error| error.raw_os_error().unwrap_or(libc::EINVAL));
            // SAFETY: as in `fork`.
            unsafe { libc::_exit(code) }
        }
        Side::Outside(init) => match wait(init)? {
            0 => Ok(()),
            code => Err(io::Error::from_raw_os_error(code)),
        },
    }
}

/// Waits for the first process of a namespace, and returns its exit code.
pub(super) fn wait(init: Pid) -> io::Result<i32> {
    let status = rustix::io::retry_on_intr(|| {
        rustix::process::waitpid(Some(init), rustix::process::WaitOptions::empty())
    })?;
    let code = status.and_then(|(_, status)| status.exit_status());
    code.ok_or_else(|| io::Error::other("the first process of a namespace was killed"))
}

/// Returns the number that a child of this process has where this process was started.
///
/// The `/proc` of this process is the one outside. It shows there to which process a pidfd refers.
pub(super) fn outer_number(child: Pid) -> io::Result<i32> {
    let file = pidfd_open(child, PidfdFlags::empty())?;
    let about = fs::read_to_string(format!("/proc/self/fdinfo/{}", file.as_raw_fd()))?;
    let number = about.lines().find_map(|line| line.strip_prefix("Pid:")?.trim().parse().ok());
    number.filter(|number| *number > 0).ok_or_else(|| io::ErrorKind::InvalidData.into())
}

/// Keeps processes of the same user from opening files and memory of this one.
pub(super) fn close_to_others() {
    let _ = set_dumpable_behavior(DumpableBehavior::NotDumpable);
}

/// Sends a signal to everything else in the namespace of this process, which is its first one. No
/// process can start another one until it has handled the signal.
pub(super) fn signal_namespace(signal: Signal) {
    assert!(std::process::id() == 1, "only the first process of a namespace signals all others");
    // SAFETY: the call has no pointers. The signal reaches this namespace only, and not its first
    // process.
    unsafe { libc::kill(-1, signal.as_raw()) };
}

/// Returns the number that this process has in the `/proc` that it sees.
pub(super) fn own_outer_number() -> io::Result<i32> {
    let link = fs::read_link("/proc/self")?;
    let number = link.to_str().and_then(|number| number.parse().ok());
    number.ok_or_else(|| io::ErrorKind::InvalidData.into())
}
