//! Notifies a supervisor or a reaper that a child has exited.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, FromRawFd, OwnedFd};

/// A descriptor that is readable when a child has exited.
pub(super) struct ChildEvents(OwnedFd);

impl ChildEvents {
    pub(super) fn new() -> io::Result<Self> {
        let set = signals(|set| {
            // SAFETY: `signals` passes a pointer to a set that it owns.
            unsafe { libc::sigemptyset(set) };
            // SAFETY: as above.
            unsafe { libc::sigaddset(set, libc::SIGCHLD) };
        });
        // SAFETY: the call reads the set, which outlives it.
        let file = unsafe { libc::signalfd(-1, &raw const set, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK) };
        if file < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the descriptor was just opened, so nothing else owns it.
        Ok(Self(unsafe { OwnedFd::from_raw_fd(file) }))
    }

    /// Discards pending events.
    pub(super) fn clear(&self) {
        let mut bytes = [0; size_of::<libc::signalfd_siginfo>()];
        while rustix::io::read(&self.0, &mut bytes).is_ok_and(|count| count > 0) {}
    }
}

impl AsFd for ChildEvents {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Returns a set of signals that `fill` has filled.
pub(super) fn signals(fill: impl FnOnce(*mut libc::sigset_t)) -> libc::sigset_t {
    let mut set = MaybeUninit::zeroed();
    fill(set.as_mut_ptr());
    // SAFETY: a set consists of integers, for which all-zero bytes are valid.
    unsafe { set.assume_init() }
}
