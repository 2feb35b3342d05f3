//! The seccomp filter that reports system calls.

use libc::sock_filter;

use super::call;

/// The architecture of this machine's system calls, as a filter sees it (`AUDIT_ARCH_…` of
/// `linux/audit.h`).
#[cfg(target_arch = "x86_64")]
pub(super) const ARCHITECTURE: u32 = 0xc000_003e;
#[cfg(target_arch = "aarch64")]
pub(super) const ARCHITECTURE: u32 = 0xc000_00b7;

/// The smallest call number of the x32 ABI, which shares its architecture with x86-64 but numbers
/// its calls differently (`__X32_SYSCALL_BIT`). Native call numbers are smaller on all
/// architectures.
pub(super) const X32_CALLS: u32 = 0x4000_0000;

/// A program for the kernel's classic BPF machine.
#[derive(Debug, Clone)]
pub(super) struct Filter(Vec<sock_filter>);

impl Filter {
    /// Reports the calls that take paths, and all calls of other architectures.
    ///
    /// `io_uring_setup` fails with `ENOSYS`, because a ring reads files without system calls.
    /// Programs that use rings can do without: containers commonly deny them.
    pub(super) fn reporting() -> Self {
        let reported: Vec<u32> = call::numbers().map(|number| number as u32).collect();
        Self::of(&reported, &[libc::SYS_io_uring_setup as u32])
    }

    /// Reports the calls that open files, and all calls of other architectures.
    ///
    /// `openat2` fails with `ENOSYS` as well, so that programs use the others.
    pub(super) fn opening() -> Self {
        let reported: Vec<u32> = call::OPENING.iter().map(|number| *number as u32).collect();
        Self::of(&reported, &[libc::SYS_io_uring_setup, libc::SYS_openat2].map(|number| number as u32))
    }

    /// Reports some calls, and has others fail with `ENOSYS`.
    fn of(reported: &[u32], failing: &[u32]) -> Self {
        let count = reported.len() + failing.len();
        let mut program = vec![
            load(std::mem::offset_of!(libc::seccomp_data, arch)),
            unless_equal(ARCHITECTURE, count + 3),
            load(std::mem::offset_of!(libc::seccomp_data, nr)),
            if_at_least(X32_CALLS, count + 1),
        ];
        for (at, number) in failing.iter().enumerate() {
            program.push(if_equal(*number, count + 1 - at));
        }
        for (at, number) in reported.iter().enumerate() {
            program.push(if_equal(*number, reported.len() - at));
        }
        program.push(finish(libc::SECCOMP_RET_ALLOW));
        program.push(finish(libc::SECCOMP_RET_USER_NOTIF));
        program.push(finish(libc::SECCOMP_RET_ERRNO | libc::ENOSYS as u32));
        Self(program)
    }

    /// Reports no call.
    pub(super) fn idle() -> Self {
        Self(vec![finish(libc::SECCOMP_RET_ALLOW)])
    }

    /// Returns the instructions. There are fewer than 256, as their jumps require.
    pub(super) fn into_program(self) -> Vec<sock_filter> {
        self.0
    }
}

fn instruction(code: u32, constant: u32, if_true: usize, if_false: usize) -> sock_filter {
    let offset = |count: usize| u8::try_from(count).expect("the program is shorter than the longest jump");
    sock_filter { code: code as u16, jt: offset(if_true), jf: offset(if_false), k: constant }
}

/// Loads a word of `seccomp_data`.
fn load(offset: usize) -> sock_filter {
    instruction(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, offset as u32, 0, 0)
}

/// Skips `skip` instructions if the loaded word equals `value`.
fn if_equal(value: u32, skip: usize) -> sock_filter {
    instruction(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, value, skip, 0)
}

fn unless_equal(value: u32, skip: usize) -> sock_filter {
    instruction(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, value, 0, skip)
}

fn if_at_least(value: u32, skip: usize) -> sock_filter {
    instruction(libc::BPF_JMP | libc::BPF_JGE | libc::BPF_K, value, skip, 0)
}

fn finish(action: u32) -> sock_filter {
    instruction(libc::BPF_RET | libc::BPF_K, action, 0, 0)
}
