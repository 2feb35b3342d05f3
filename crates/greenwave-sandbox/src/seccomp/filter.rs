//! The seccomp filter that reports system calls.

use libc::sock_filter;

use super::call::{self, reach};

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

const ARCHITECTURE_OFFSET: usize = std::mem::offset_of!(libc::seccomp_data, arch);
const NUMBER_OFFSET: usize = std::mem::offset_of!(libc::seccomp_data, nr);

/// A program for the kernel's classic BPF machine.
#[derive(Debug, Clone)]
pub(super) struct Filter(Vec<sock_filter>);

impl Filter {
    /// Reports the calls that take paths or reach other processes, and all calls of other
    /// architectures.
    ///
    /// `io_uring_setup` fails with `ENOSYS`, because a ring reads files without system calls.
    /// Programs that use rings can do without: containers commonly deny them.
    ///
    /// `secret` are the unused arguments of the call that passes on the filter's descriptor, the
    /// only `sendmsg` that is not reported ([`Setup::ReportCalls`](greenwave_process::Setup)).
    pub(super) fn reporting(secret: [u64; 2]) -> Self {
        let conditional: Vec<sock_filter> =
            [report_send(), report_message(secret), report_socket(), report_ptrace(), report_clone()]
                .concat();
        let reported: Vec<u32> = call::numbers().map(|number| number as u32).collect();
        Self::of(conditional, &reported, &[libc::SYS_io_uring_setup as u32])
    }

    /// Reports the calls that open files, and all calls of other architectures.
    ///
    /// `openat2` fails with `ENOSYS` as well, so that programs use the others.
    pub(super) fn opening() -> Self {
        let reported: Vec<u32> = call::OPENING.iter().map(|number| *number as u32).collect();
        let failing = [libc::SYS_io_uring_setup, libc::SYS_openat2].map(|number| number as u32);
        Self::of(Vec::new(), &reported, &failing)
    }

    /// Reports some calls, reports others under conditions, and has further ones fail with `ENOSYS`.
    fn of(conditional: Vec<sock_filter>, reported: &[u32], failing: &[u32]) -> Self {
        let rest = conditional.len() + reported.len();
        let count = rest + failing.len();
        let mut program = vec![
            load(ARCHITECTURE_OFFSET),
            unless_equal(ARCHITECTURE, count + 3),
            load(NUMBER_OFFSET),
            if_at_least(X32_CALLS, count + 1),
        ];
        for (at, number) in failing.iter().enumerate() {
            program.push(if_equal(*number, count + 1 - at));
        }
        program.extend(conditional);
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

/// Reports `sendto` with an address. Without one, the peer was reported when it was connected.
fn report_send() -> Vec<sock_filter> {
    block(libc::SYS_sendto, &[load(argument(4)), if_unequal(0, 3), load(argument_high(4)), if_unequal(0, 1)])
}

/// Reports `sendmsg`, except the call by which this crate passes on the filter's descriptor. The
/// kernel ignores the arguments that are compared.
fn report_message(secret: [u64; 2]) -> Vec<sock_filter> {
    let words = [3, 4]
        .into_iter()
        .zip(secret)
        .flat_map(|(at, number)| [(argument(at), number as u32), (argument_high(at), (number >> 32) as u32)]);
    let words: Vec<(usize, u32)> = words.collect();
    let compare = |(index, (offset, word)): (usize, &(usize, u32))| {
        // Each word takes two instructions, and behind the last stands the one that allows the call.
        [load(*offset), if_unequal(*word, 2 * (words.len() - index) - 1)]
    };
    let body: Vec<sock_filter> = words.iter().enumerate().flat_map(compare).collect();
    block(libc::SYS_sendmsg, &body)
}

/// Reports `socket` for raw sockets, for SCTP, which connects without `connect`, and for families
/// whose addresses are not reported.
fn report_socket() -> Vec<sock_filter> {
    let [one, two, three] = reach::ADDRESSED.map(|family| family as u32);
    let body = [
        load(argument(0)),
        if_equal(one, 3),
        if_equal(two, 2),
        if_equal(three, 1),
        always(6),
        load(argument(1)),
        mask(reach::SOCKET_TYPE),
        if_equal(libc::SOCK_RAW as u32, 3),
        load(argument(2)),
        if_equal(libc::IPPROTO_SCTP as u32, 1),
    ];
    block(libc::SYS_socket, &body)
}

/// Reports `ptrace` when it begins to trace another process.
fn report_ptrace() -> Vec<sock_filter> {
    let [attach, seize] = reach::PTRACE_STARTS;
    block(libc::SYS_ptrace, &[load(argument(0)), if_equal(attach, 2), if_equal(seize, 1)])
}

/// Reports `clone` if the child shares the memory of its parent, and the parent continues.
fn report_clone() -> Vec<sock_filter> {
    let [shared, suspended] = [libc::CLONE_VM as u32, libc::CLONE_VFORK as u32];
    let body = [load(argument(0)), unless_any(shared, 1), unless_any(suspended, 1)];
    block(libc::SYS_clone, &body)
}

/// Returns instructions for the call with this number. Behind `body` stands an instruction that
/// allows the call, and then one that reports it. Other calls skip the instructions.
fn block(number: libc::c_long, body: &[sock_filter]) -> Vec<sock_filter> {
    let mut block = vec![unless_equal(number as u32, body.len() + 2)];
    block.extend_from_slice(body);
    block.push(finish(libc::SECCOMP_RET_ALLOW));
    block.push(finish(libc::SECCOMP_RET_USER_NOTIF));
    block
}

/// Returns the offset of the lower half of an argument, on a little-endian machine.
fn argument(at: usize) -> usize {
    std::mem::offset_of!(libc::seccomp_data, args) + at * size_of::<u64>()
}

fn argument_high(at: usize) -> usize {
    argument(at) + size_of::<u32>()
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

/// Skips `skip` instructions if the loaded word differs from `value`.
fn if_unequal(value: u32, skip: usize) -> sock_filter {
    unless_equal(value, skip)
}

/// Skips `skip` instructions if the loaded word has none of the bits of `mask`.
fn unless_any(mask: u32, skip: usize) -> sock_filter {
    instruction(libc::BPF_JMP | libc::BPF_JSET | libc::BPF_K, mask, 0, skip)
}

/// Clears the bits of the loaded word that are not in `mask`.
fn mask(mask: u32) -> sock_filter {
    instruction(libc::BPF_ALU | libc::BPF_AND | libc::BPF_K, mask, 0, 0)
}

/// Skips `skip` instructions.
fn always(skip: u32) -> sock_filter {
    instruction(libc::BPF_JMP | libc::BPF_JA | libc::BPF_K, skip, 0, 0)
}

fn if_at_least(value: u32, skip: usize) -> sock_filter {
    instruction(libc::BPF_JMP | libc::BPF_JGE | libc::BPF_K, value, skip, 0)
}

fn finish(action: u32) -> sock_filter {
    instruction(libc::BPF_RET | libc::BPF_K, action, 0, 0)
}
