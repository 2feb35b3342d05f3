//! The filter that has calls told to an observer, and its installation. Knows nothing of what is done with them.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use libc::{c_int, c_ulong, sock_filter, sock_fprog};

use super::call;

/// This machine's calls, as a filter sees them (`AUDIT_ARCH_…` of `linux/audit.h`).
#[cfg(target_arch = "x86_64")]
pub(super) const ARCHITECTURE: u32 = 0xc000_003e;
#[cfg(target_arch = "aarch64")]
pub(super) const ARCHITECTURE: u32 = 0xc000_00b7;

/// Numbers from here on are x32's, which share the architecture with x86-64 but not the calls (`__X32_SYSCALL_BIT`). No architecture has
/// so many calls of its own.
pub(super) const FOREIGN: u32 = 0x4000_0000;

/// A program of the kernel's classic filter machine.
#[derive(Debug, Clone)]
pub(super) struct Filter(Vec<sock_filter>);

impl Filter {
    /// Tells of the calls that take paths, and of all calls of other architectures. Rings (`io_uring`), which read without calls, are not
    /// there: programs that can use them can do without, since containers commonly refuse them.
    pub(super) fn observing() -> Self {
        let told: Vec<u32> = call::numbers().map(|number| number as u32).collect();
        let mut program = vec![
            load(std::mem::offset_of!(libc::seccomp_data, arch)),
            unless_equal(ARCHITECTURE, told.len() + 4),
            load(std::mem::offset_of!(libc::seccomp_data, nr)),
            if_at_least(FOREIGN, told.len() + 2),
            if_equal(libc::SYS_io_uring_setup as u32, told.len() + 2),
        ];
        for (at, number) in told.iter().enumerate() {
            program.push(if_equal(*number, told.len() - at));
        }
        program.push(answer(libc::SECCOMP_RET_ALLOW));
        program.push(answer(libc::SECCOMP_RET_USER_NOTIF));
        program.push(answer(libc::SECCOMP_RET_ERRNO | libc::ENOSYS as u32));
        Self(program)
    }

    /// Tells of nothing.
    pub(super) fn idle() -> Self {
        Self(vec![answer(libc::SECCOMP_RET_ALLOW)])
    }

    /// Puts the filter on the calling thread and whatever it starts, for good. Safe to call between fork and exec: it allocates nothing.
    ///
    /// Returns what the calls are told through.
    pub(super) fn install(&self) -> io::Result<OwnedFd> {
        let killable = libc::SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV;
        // Signals that do not kill wait until a call is answered. Otherwise a program with a timer may repeat a call for ever, as the
        // timer interrupts it each time before it is answered. Linux 5.19 has it.
        match self.install_with(killable) {
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => self.install_with(0),
            result => result,
        }
    }

    fn install_with(&self, flags: c_ulong) -> io::Result<OwnedFd> {
        match self.seccomp(flags) {
            // Without privileges, only those may filter who will never gain any.
            Err(error) if error.raw_os_error() == Some(libc::EACCES) => {
                // SAFETY: this call takes numbers only.
                if unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) } != 0 {
                    return Err(io::Error::last_os_error());
                }
                self.seccomp(flags)
            }
            result => result,
        }
    }

    fn seccomp(&self, flags: c_ulong) -> io::Result<OwnedFd> {
        let program = sock_fprog { len: self.0.len() as u16, filter: self.0.as_ptr().cast_mut() };
        // SAFETY: `program` points to that many instructions, which the kernel copies and does not change.
        let listener = unsafe {
            libc::syscall(
                libc::SYS_seccomp,
                libc::SECCOMP_SET_MODE_FILTER,
                libc::SECCOMP_FILTER_FLAG_NEW_LISTENER | flags,
                &raw const program,
            )
        };
        if listener < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the kernel has just opened it for us.
        Ok(unsafe { OwnedFd::from_raw_fd(listener as c_int) })
    }
}

fn instruction(code: u32, constant: u32, if_true: usize, if_false: usize) -> sock_filter {
    let offset = |count: usize| u8::try_from(count).expect("the program is shorter than a jump can be");
    sock_filter { code: code as u16, jt: offset(if_true), jf: offset(if_false), k: constant }
}

fn load(offset: usize) -> sock_filter {
    instruction(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, offset as u32, 0, 0)
}

/// Skips so many instructions if the value is that.
fn if_equal(value: u32, skip: usize) -> sock_filter {
    instruction(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, value, skip, 0)
}

fn unless_equal(value: u32, skip: usize) -> sock_filter {
    instruction(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, value, 0, skip)
}

fn if_at_least(value: u32, skip: usize) -> sock_filter {
    instruction(libc::BPF_JMP | libc::BPF_JGE | libc::BPF_K, value, skip, 0)
}

fn answer(action: u32) -> sock_filter {
    instruction(libc::BPF_RET | libc::BPF_K, action, 0, 0)
}

/// Sends a descriptor through a socket. Safe to call between fork and exec.
pub(super) fn send(socket: &OwnedFd, file: &OwnedFd) -> io::Result<()> {
    let (mut byte, mut control) = (0_u8, Control::default());
    let mut part = libc::iovec { iov_base: (&raw mut byte).cast(), iov_len: 1 };
    let message = control.message(&mut part);
    // SAFETY: `message` has room for one header with one descriptor, so the pointer to the first header is valid and aligned.
    unsafe {
        let header = libc::CMSG_FIRSTHDR(&raw const message);
        (*header).cmsg_level = libc::SOL_SOCKET;
        (*header).cmsg_type = libc::SCM_RIGHTS;
        (*header).cmsg_len = libc::CMSG_LEN(size_of::<c_int>() as u32) as _;
        libc::CMSG_DATA(header).cast::<c_int>().write_unaligned(file.as_raw_fd());
    }
    // SAFETY: everything that `message` points to lives on this frame.
    let sent = unsafe { libc::sendmsg(socket.as_raw_fd(), &raw const message, libc::MSG_NOSIGNAL) };
    if sent == 1 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// The descriptor that was sent; `None` if nobody can send one any more.
pub(super) fn receive(socket: &OwnedFd) -> io::Result<Option<OwnedFd>> {
    let (mut byte, mut control) = (0_u8, Control::default());
    let mut part = libc::iovec { iov_base: (&raw mut byte).cast(), iov_len: 1 };
    let mut message = control.message(&mut part);
    let count = loop {
        // SAFETY: everything that `message` points to lives on this frame.
        let count = unsafe { libc::recvmsg(socket.as_raw_fd(), &raw mut message, libc::MSG_CMSG_CLOEXEC) };
        if count >= 0 || io::Error::last_os_error().kind() != io::ErrorKind::Interrupted {
            break count;
        }
    };
    match count {
        0 => return Ok(None),
        1.. => {}
        _ => return Err(io::Error::last_os_error()),
    }
    // SAFETY: the kernel has filled in `message`; a header is looked at only if there is one.
    unsafe {
        let header = libc::CMSG_FIRSTHDR(&raw const message);
        if header.is_null() || (*header).cmsg_type != libc::SCM_RIGHTS {
            return Ok(None);
        }
        let file = libc::CMSG_DATA(header).cast::<c_int>().read_unaligned();
        Ok(Some(OwnedFd::from_raw_fd(file)))
    }
}

/// Room for one header with one descriptor.
#[repr(C, align(8))]
#[derive(Default)]
struct Control([u8; 32]);

impl Control {
    fn message(&mut self, part: &mut libc::iovec) -> libc::msghdr {
        // SAFETY: a structure of numbers and pointers, for which zero is a value.
        let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
        message.msg_iov = part;
        message.msg_iovlen = 1;
        message.msg_control = self.0.as_mut_ptr().cast();
        // SAFETY: this computes a number.
        message.msg_controllen = unsafe { libc::CMSG_SPACE(size_of::<c_int>() as u32) } as _;
        debug_assert!(message.msg_controllen as usize <= size_of::<Self>(), "one descriptor fits");
        message
    }
}
