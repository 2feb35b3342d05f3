//! A seccomp filter that refuses sockets other than local ones.

use libc::{c_int, sock_filter};

/// The architecture of this machine's system calls, as a filter sees it (`AUDIT_ARCH_…` of
/// `linux/audit.h`), or 0 for an architecture without a constant here: every call is refused then.
const ARCHITECTURE: u32 = if cfg!(target_arch = "x86_64") {
    0xc000_003e
} else if cfg!(target_arch = "aarch64") {
    0xc000_00b7
} else {
    0
};
/// The smallest call number of the x32 ABI.
const X32_CALLS: u32 = 0x4000_0000;
/// The families of sockets that stay: Unix sockets and sockets to the kernel.
const LOCAL: [c_int; 2] = [libc::AF_UNIX, libc::AF_NETLINK];

/// Returns a filter under which `socket` fails with `EACCES` for every other family, and
/// `io_uring_setup` and calls of other architectures with `ENOSYS`.
pub(super) fn without_internet() -> Vec<sock_filter> {
    let word = libc::BPF_LD | libc::BPF_W | libc::BPF_ABS;
    let equal = libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K;
    let at_least = libc::BPF_JMP | libc::BPF_JGE | libc::BPF_K;
    let number = std::mem::offset_of!(libc::seccomp_data, nr) as u32;
    let architecture = std::mem::offset_of!(libc::seccomp_data, arch) as u32;
    // The family fits into the lower half of the first argument, which comes first on the two
    // little-endian architectures.
    let family = std::mem::offset_of!(libc::seccomp_data, args) as u32;
    vec![
        step(word, architecture, 0, 0),
        step(equal, ARCHITECTURE, 0, 9),
        step(word, number, 0, 0),
        step(at_least, X32_CALLS, 7, 0),
        step(equal, libc::SYS_io_uring_setup as u32, 6, 0),
        step(equal, libc::SYS_socket as u32, 0, 3),
        step(word, family, 0, 0),
        step(equal, LOCAL[0] as u32, 1, 0),
        step(equal, LOCAL[1] as u32, 0, 1),
        step(libc::BPF_RET, libc::SECCOMP_RET_ALLOW, 0, 0),
        step(libc::BPF_RET, libc::SECCOMP_RET_ERRNO | libc::EACCES as u32, 0, 0),
        step(libc::BPF_RET, libc::SECCOMP_RET_ERRNO | libc::ENOSYS as u32, 0, 0),
    ]
}

fn step(code: u32, k: u32, jt: u8, jf: u8) -> sock_filter {
    sock_filter { code: code as u16, jt, jf, k }
}
