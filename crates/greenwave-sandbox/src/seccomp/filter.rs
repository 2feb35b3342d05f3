//! The seccomp filter that reports system calls.

use libc::{c_long, sock_filter};

use super::call::{self, reach};
use crate::bpf::{
    always, argument, argument_high, finish, if_any, if_at_least, if_equal, if_unequal, load, mask,
    unless_any, unless_at_least, unless_equal,
};

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
        let reported = call::numbers().map(|number| Rule { number, body: Body::Report });
        let conditions = [
            report_send(),
            report_message(secret),
            report_socket(),
            report_ptrace(),
            report_clone(),
            Rule { number: libc::SYS_io_uring_setup, body: Body::Fail },
        ];
        Self::of(reported.chain(conditions).collect())
    }

    /// Reports the calls that open files, or only calls that write to them, and all calls of other
    /// architectures.
    ///
    /// `openat2` fails with `ENOSYS` as well, so that programs use the others.
    pub(super) fn opening(only_writes: bool) -> Self {
        let reported = call::OPENING.iter().map(|number| match flags_at(*number) {
            Some(at) if only_writes => {
                let writes = libc::O_WRONLY | libc::O_RDWR | libc::O_CREAT | libc::O_TRUNC;
                Rule::condition(*number, &[load(argument(at)), if_any(writes as u32, 1)])
            }
            _ => Rule { number: *number, body: Body::Report },
        });
        let failing = [libc::SYS_io_uring_setup, libc::SYS_openat2];
        Self::of(reported.chain(failing.map(|number| Rule { number, body: Body::Fail })).collect())
    }

    /// Applies rules, which are for different calls, allows other calls, and reports all calls of
    /// other architectures.
    ///
    /// The rules are searched in halves. When the filter is installed, the kernel runs it for each
    /// call that there is, to find out which are always allowed. That took longer than a short
    /// command when the rules were searched one by one.
    fn of(mut rules: Vec<Rule>) -> Self {
        rules.sort_unstable_by_key(|rule| rule.number);
        let mut program = vec![
            load(ARCHITECTURE_OFFSET),
            if_equal(ARCHITECTURE, 1),
            finish(libc::SECCOMP_RET_USER_NOTIF),
            load(NUMBER_OFFSET),
            unless_at_least(X32_CALLS, 1),
            finish(libc::SECCOMP_RET_USER_NOTIF),
        ];
        program.extend(search(&rules));
        Self(program)
    }

    /// Reports no call.
    pub(super) fn idle() -> Self {
        Self(vec![finish(libc::SECCOMP_RET_ALLOW)])
    }

    /// Returns the instructions.
    pub(super) fn into_program(self) -> Vec<sock_filter> {
        self.0
    }
}

/// The treatment of one call.
struct Rule {
    number: c_long,
    body: Body,
}

enum Body {
    /// The call is reported.
    Report,
    /// The call fails with `ENOSYS`.
    Fail,
    /// The call is reported under a condition. Behind the instructions stands one that allows the
    /// call, and then one that reports it.
    Condition(Vec<sock_filter>),
}

/// Maximum number of rules that are searched one by one.
const RULES_PER_LEAF: usize = 4;

/// Returns instructions that apply sorted rules to the loaded number. They do not continue behind
/// their end.
fn search(rules: &[Rule]) -> Vec<sock_filter> {
    match rules {
        [Rule { number, body: Body::Condition(body) }] => {
            let mut program = vec![unless_equal(*number as u32, body.len() + 2)];
            program.extend_from_slice(body);
            program.push(finish(libc::SECCOMP_RET_ALLOW));
            program.push(finish(libc::SECCOMP_RET_USER_NOTIF));
            program.push(finish(libc::SECCOMP_RET_ALLOW));
            program
        }
        rules if rules.len() <= RULES_PER_LEAF && rules.iter().all(Rule::is_simple) => leaf(rules),
        rules => {
            let (low, high) = rules.split_at(rules.len() / 2);
            let low = search(low);
            let mut program = vec![if_at_least(high[0].number as u32, low.len())];
            program.extend(low);
            program.extend(search(high));
            program
        }
    }
}

/// Returns instructions that compare with one rule after another.
fn leaf(rules: &[Rule]) -> Vec<sock_filter> {
    let compare = |(at, rule): (usize, &Rule)| {
        let to_report = rules.len() - at;
        if_equal(rule.number as u32, if matches!(rule.body, Body::Fail) { to_report + 1 } else { to_report })
    };
    let mut program: Vec<sock_filter> = rules.iter().enumerate().map(compare).collect();
    program.push(finish(libc::SECCOMP_RET_ALLOW));
    program.push(finish(libc::SECCOMP_RET_USER_NOTIF));
    program.push(finish(libc::SECCOMP_RET_ERRNO | libc::ENOSYS as u32));
    program
}

impl Rule {
    fn is_simple(&self) -> bool {
        !matches!(self.body, Body::Condition(_))
    }

    fn condition(number: c_long, body: &[sock_filter]) -> Self {
        Self { number, body: Body::Condition(body.to_vec()) }
    }
}

/// Returns the position of the flags among the arguments of a call that opens a file. `None` if it
/// has none and always writes.
fn flags_at(number: c_long) -> Option<usize> {
    #[cfg(target_arch = "x86_64")]
    if number == libc::SYS_open {
        return Some(1);
    }
    (number == libc::SYS_openat).then_some(2)
}

/// Reports `sendto` with an address. Without one, the peer was reported when it was connected.
fn report_send() -> Rule {
    Rule::condition(
        libc::SYS_sendto,
        &[load(argument(4)), if_unequal(0, 3), load(argument_high(4)), if_unequal(0, 1)],
    )
}

/// Reports `sendmsg`, except the call by which this crate passes on the filter's descriptor. The
/// kernel ignores the arguments that are compared.
fn report_message(secret: [u64; 2]) -> Rule {
    let words = [3, 4]
        .into_iter()
        .zip(secret)
        .flat_map(|(at, number)| [(argument(at), number as u32), (argument_high(at), (number >> 32) as u32)]);
    let words: Vec<(usize, u32)> = words.collect();
    let compare = |(index, (offset, word)): (usize, &(usize, u32))| {
        // Each word takes two instructions, and the instruction after the last one allows
        // the call.
        [load(*offset), if_unequal(*word, 2 * (words.len() - index) - 1)]
    };
    let body: Vec<sock_filter> = words.iter().enumerate().flat_map(compare).collect();
    Rule::condition(libc::SYS_sendmsg, &body)
}

/// Reports `socket` for raw sockets, for SCTP, which connects without `connect`, and for families
/// whose addresses are not reported.
fn report_socket() -> Rule {
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
    Rule::condition(libc::SYS_socket, &body)
}

/// Reports `ptrace` when it begins to trace another process.
fn report_ptrace() -> Rule {
    let [attach, seize] = reach::PTRACE_STARTS;
    Rule::condition(libc::SYS_ptrace, &[load(argument(0)), if_equal(attach, 2), if_equal(seize, 1)])
}

/// Reports `clone` if the child shares the memory of its parent, and the parent continues.
fn report_clone() -> Rule {
    let [shared, suspended] = [libc::CLONE_VM as u32, libc::CLONE_VFORK as u32];
    let body = [load(argument(0)), unless_any(shared, 1), unless_any(suspended, 1)];
    Rule::condition(libc::SYS_clone, &body)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    /// Runs a filter for a call of this machine's architecture.
    fn run(program: &[sock_filter], number: u32, arguments: [u64; 6]) -> u32 {
        crate::bpf_machine::run(program, ARCHITECTURE, number, arguments)
    }

    const REPORTED: u32 = libc::SECCOMP_RET_USER_NOTIF;
    const ALLOWED: u32 = libc::SECCOMP_RET_ALLOW;

    #[test]
    fn exactly_the_listed_calls_are_reported() {
        let program = Filter::reporting([1, 2]).into_program();
        let listed: HashSet<u32> = call::numbers().map(|number| number as u32).collect();
        let conditional = [libc::SYS_sendto, libc::SYS_sendmsg, libc::SYS_socket, libc::SYS_ptrace];
        for number in 0..1000 {
            let action = run(&program, number, [0; 6]);
            if c_long::from(number) == libc::SYS_io_uring_setup {
                assert_eq!(action, libc::SECCOMP_RET_ERRNO | libc::ENOSYS as u32);
            } else if !conditional.contains(&c_long::from(number)) {
                let expected = if listed.contains(&number) { REPORTED } else { ALLOWED };
                assert_eq!(action, expected, "call {number}");
            }
        }
        assert_eq!(run(&program, X32_CALLS, [0; 6]), REPORTED);
        assert_eq!(run(&program, X32_CALLS + libc::SYS_read as u32, [0; 6]), REPORTED);
    }

    #[test]
    fn only_calls_that_write_are_reported_on_demand() {
        for (only_writes, reading) in [(true, ALLOWED), (false, REPORTED)] {
            let program = Filter::opening(only_writes).into_program();
            let open = |flags: i32| run(&program, libc::SYS_openat as u32, [3, 4, flags as u64, 0, 0, 0]);
            assert_eq!(open(libc::O_RDONLY | libc::O_CLOEXEC), reading);
            for flags in [libc::O_WRONLY, libc::O_RDWR, libc::O_CREAT, libc::O_TRUNC] {
                assert_eq!(open(flags), REPORTED, "flags {flags:o}");
            }
            assert_eq!(run(&program, libc::SYS_read as u32, [0; 6]), ALLOWED);
        }
    }

    #[test]
    fn messages_with_any_other_secret_are_reported() {
        let secret = [0x1122_3344_5566_7788, 0x99aa_bbcc_ddee_ff00];
        let program = Filter::reporting(secret).into_program();
        let send = |first: u64, second: u64, flags: u64| {
            run(&program, libc::SYS_sendmsg as u32, [3, 4, flags, first, second, 0])
        };
        let [first, second] = secret;
        assert_eq!(send(first, second, 0), ALLOWED);
        for bit in 0..64 {
            assert_eq!(send(first ^ (1 << bit), second, 0), REPORTED, "bit {bit} of the first number");
            assert_eq!(send(first, second ^ (1 << bit), 0), REPORTED, "bit {bit} of the second number");
            assert_eq!(send(0, 0, 1 << bit), REPORTED, "flag {bit}");
        }
    }

    #[test]
    fn conditions_select_sockets_threads_and_addresses() {
        let program = Filter::reporting([1, 2]).into_program();
        let action = |number: c_long, arguments: [u64; 6]| run(&program, number as u32, arguments);
        let socket = |family: i32, kind: i32, protocol: i32| {
            action(libc::SYS_socket, [family as u64, kind as u64, protocol as u64, 0, 0, 0])
        };
        for family in reach::ADDRESSED {
            assert_eq!(socket(family, libc::SOCK_STREAM | libc::SOCK_CLOEXEC, 0), ALLOWED);
            assert_eq!(socket(family, libc::SOCK_RAW, 0), REPORTED);
            assert_eq!(socket(family, libc::SOCK_STREAM, libc::IPPROTO_SCTP), REPORTED);
        }
        assert_eq!(socket(libc::AF_NETLINK, libc::SOCK_DGRAM, 0), REPORTED);
        let clone = |flags: i32| action(libc::SYS_clone, [flags as u64, 0, 0, 0, 0, 0]);
        assert_eq!(clone(libc::SIGCHLD), ALLOWED);
        assert_eq!(clone(libc::CLONE_VM | libc::CLONE_VFORK), ALLOWED);
        assert_eq!(clone(libc::CLONE_VM | libc::CLONE_THREAD), REPORTED);
        let send = |address: u64| action(libc::SYS_sendto, [3, 4, 5, 0, address, 16]);
        assert_eq!((send(0), send(1), send(1 << 32)), (ALLOWED, REPORTED, REPORTED));
        let ptrace = |request: u32| action(libc::SYS_ptrace, [request.into(), 0, 0, 0, 0, 0]);
        assert_eq!((ptrace(0), ptrace(libc::PTRACE_SEIZE)), (ALLOWED, REPORTED));
    }
}
