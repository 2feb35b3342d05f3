//! Seccomp filters that refuse calls by which a command reaches other processes, the user's kernel
//! objects or the network.
//!
//! The kernel permits a process to change the limits, the priority and the processors of every
//! process of the same user, by its number. A limit of processor time kills. Neither mounts nor
//! Landlock govern these calls.

use greenwave_process::Setup;
use libc::{c_int, c_long, sock_filter};

use crate::bpf::{argument, finish, if_equal, instruction, load, unless_equal};

/// An architecture of system calls, as a filter sees it (`AUDIT_ARCH_…` of `linux/audit.h`), with
/// the numbers of its calls. An architecture without constants here has the number 0, and all of
/// its calls pass.
struct Architecture {
    name: u32,
    /// Limits, priority, processors, scheduling (policy, parameters, attributes), input and output.
    processes: [c_long; 7],
    /// `add_key`, `request_key`, `keyctl`.
    keyrings: [c_long; 3],
    /// `socket`, `socketcall` or 0, `io_uring_setup`.
    network: [c_long; 3],
    /// `ioctl`.
    requests: c_long,
}

const NATIVE: Architecture = Architecture {
    name: if cfg!(target_arch = "x86_64") {
        0xc000_003e
    } else if cfg!(target_arch = "aarch64") {
        0xc000_00b7
    } else {
        0
    },
    processes: [
        libc::SYS_prlimit64,
        libc::SYS_setpriority,
        libc::SYS_sched_setaffinity,
        libc::SYS_sched_setscheduler,
        libc::SYS_sched_setparam,
        libc::SYS_sched_setattr,
        libc::SYS_ioprio_set,
    ],
    keyrings: [libc::SYS_add_key, libc::SYS_request_key, libc::SYS_keyctl],
    network: [libc::SYS_socket, 0, libc::SYS_io_uring_setup],
    requests: libc::SYS_ioctl,
};
/// The architecture of programs for 32 bits on the same machine.
const COMPATIBLE: Architecture = if cfg!(target_arch = "x86_64") {
    Architecture {
        name: 0x4000_0003,
        processes: [340, 97, 241, 156, 154, 351, 289],
        keyrings: [286, 287, 288],
        network: [359, 102, 425],
        requests: 54,
    }
} else if cfg!(target_arch = "aarch64") {
    Architecture {
        name: 0x4000_0028,
        processes: [369, 97, 241, 156, 154, 380, 314],
        keyrings: [309, 310, 311],
        network: [281, 102, 425],
        requests: 54,
    }
} else {
    Architecture { name: 0, processes: [0; 7], keyrings: [0; 3], network: [0; 3], requests: 0 }
};
/// The bit by which the x32 ABI marks its calls, whose numbers here are otherwise the same.
const X32_CALL: u32 = 0x4000_0000;
/// The families of sockets that stay without a network: Unix sockets and sockets to the kernel.
const LOCAL: [c_int; 2] = [libc::AF_UNIX, libc::AF_NETLINK];
/// Requests that put characters into the input of a terminal: `TIOCSTI` and `TIOCLINUX`, which
/// pastes the selection. The shell that reads them there is not confined.
const TYPING: [u32; 2] = [0x5412, 0x541c];
/// `PRIO_PROCESS` of `sys/resource.h`.
const PRIORITY_OF_PROCESS: u32 = 0;
/// `IOPRIO_WHO_PROCESS` of `linux/ioprio.h`.
const IO_PRIORITY_OF_PROCESS: u32 = 1;
/// Maximum number of rules that are compared one by one.
const RULES_PER_LEAF: usize = 3;

/// A set of calls that fail. The number zero of a process means the caller.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Refusals {
    /// Whether new limits of a process that a call names by its number fail with `EPERM`, even if
    /// the number is the caller's.
    pub(crate) limits: bool,
    /// Whether new priorities, processors and scheduling of a process or thread that a call names
    /// by its number fail with `EPERM`. Programs make such calls on their own threads as well
    /// (`pthread_setaffinity_np`).
    pub(crate) scheduling: bool,
    /// Whether calls on keyrings of the kernel fail with `EPERM`.
    pub(crate) keyrings: bool,
    /// Whether requests that type into a terminal fail with `EPERM`.
    pub(crate) typing: bool,
    /// Whether sockets other than local ones fail with `EACCES`, and rings with `ENOSYS`.
    pub(crate) internet: bool,
}

/// The condition under which a call fails. Only the lower halves of arguments are compared: the
/// kernel ignores the upper half of numbers of processes and kinds.
#[derive(Debug, Clone, Copy)]
enum Condition {
    Always,
    /// The first argument names a process.
    NamesProcess,
    /// The first argument names a process, and the third is a new value.
    ChangesProcess,
    /// The first argument differs from a kind, or the second names a process.
    NotOwn(u32),
    /// The first argument is not a local family.
    NotLocal,
    /// The second argument is a request that types into a terminal.
    Types,
}

/// A call with the error that it gets under a condition.
#[derive(Debug, Clone, Copy)]
struct Rule {
    number: u32,
    condition: Condition,
    error: c_int,
}

/// Returns the step that keeps a command from changing limits of processes by their numbers.
pub(crate) fn refuse_limits() -> Setup {
    let limits = Refusals { limits: true, ..Refusals::default() };
    Setup::FilterCalls { filter: limits.filter(), on_processes: true }
}

impl Refusals {
    /// Returns the filter.
    pub(crate) fn filter(self) -> Vec<sock_filter> {
        let (native, compatible) = (self.section(&NATIVE), self.section(&COMPATIBLE));
        let mut program = vec![load(std::mem::offset_of!(libc::seccomp_data, arch))];
        program.push(unless_equal(NATIVE.name, native.len()));
        program.extend(native);
        program.push(unless_equal(COMPATIBLE.name, compatible.len()));
        program.extend(compatible);
        program.push(finish(libc::SECCOMP_RET_ALLOW));
        program
    }

    /// Returns the instructions for the calls of one architecture. They do not continue behind
    /// their end.
    fn section(self, architecture: &Architecture) -> Vec<sock_filter> {
        let mut program = vec![load(std::mem::offset_of!(libc::seccomp_data, nr))];
        if cfg!(target_arch = "x86_64") {
            program.push(instruction(libc::BPF_ALU | libc::BPF_AND, !X32_CALL, 0, 0));
        }
        program.extend(search(&self.rules(architecture)));
        program
    }

    /// Returns the rules, sorted by number.
    fn rules(self, architecture: &Architecture) -> Vec<Rule> {
        let [limits, priority, processors, policy, parameters, attributes, input] = architecture.processes;
        let [socket, multiplexer, ring] = architecture.network;
        let scheduling = [
            (priority, Condition::NotOwn(PRIORITY_OF_PROCESS)),
            (processors, Condition::NamesProcess),
            (policy, Condition::NamesProcess),
            (parameters, Condition::NamesProcess),
            (attributes, Condition::NamesProcess),
            (input, Condition::NotOwn(IO_PRIORITY_OF_PROCESS)),
        ];
        let keyrings = architecture.keyrings.map(|number| (number, Condition::Always));
        let limits = self.limits.then_some((limits, Condition::ChangesProcess));
        let typing = (self.typing && architecture.requests != 0).then_some(architecture.requests);
        let refused = limits
            .into_iter()
            .chain(scheduling.into_iter().filter(|_| self.scheduling))
            .chain(keyrings.into_iter().filter(|_| self.keyrings))
            .chain(typing.map(|number| (number, Condition::Types)));
        let refused = refused.map(|(number, condition)| (number, condition, libc::EPERM));
        let network = [
            (socket, Condition::NotLocal, libc::EACCES),
            (multiplexer, Condition::Always, libc::EACCES),
            (ring, Condition::Always, libc::ENOSYS),
        ];
        let network = network.into_iter().filter(|(number, ..)| self.internet && *number != 0);
        let rule =
            |(number, condition, error): (c_long, _, _)| Rule { number: number as u32, condition, error };
        let mut rules: Vec<Rule> = refused.chain(network).map(rule).collect();
        rules.sort_unstable_by_key(|rule| rule.number);
        rules
    }
}

/// Returns instructions that apply sorted rules to the loaded number and allow other calls. The
/// kernel runs a filter for each call that there is when it is installed, so the rules are searched
/// in halves.
fn search(rules: &[Rule]) -> Vec<sock_filter> {
    if rules.len() <= RULES_PER_LEAF {
        let mut program = Vec::new();
        for rule in rules {
            let body = rule.body();
            program.push(unless_equal(rule.number, body.len()));
            program.extend(body);
        }
        program.push(finish(libc::SECCOMP_RET_ALLOW));
        return program;
    }
    let (low, high) = rules.split_at(rules.len() / 2);
    let low = search(low);
    let at_least = libc::BPF_JMP | libc::BPF_JGE | libc::BPF_K;
    let mut program = vec![instruction(at_least, high[0].number, low.len(), 0)];
    program.extend(low);
    program.extend(search(high));
    program
}

impl Rule {
    /// Returns the instructions for the call. They do not continue behind their end.
    fn body(self) -> Vec<sock_filter> {
        let refuse = finish(libc::SECCOMP_RET_ERRNO | self.error as u32);
        let allow = finish(libc::SECCOMP_RET_ALLOW);
        match self.condition {
            Condition::Always => vec![refuse],
            Condition::NamesProcess => vec![load(argument(0)), unless_equal(0, 1), allow, refuse],
            Condition::ChangesProcess => {
                let (low, high) = (argument(2), argument(2) + size_of::<u32>());
                let unless_null = [load(low), unless_equal(0, 3), load(high), unless_equal(0, 1)];
                [load(argument(0)), if_equal(0, 4)]
                    .into_iter()
                    .chain(unless_null)
                    .chain([allow, refuse])
                    .collect()
            }
            Condition::NotOwn(kind) => {
                vec![
                    load(argument(0)),
                    unless_equal(kind, 3),
                    load(argument(1)),
                    unless_equal(0, 1),
                    allow,
                    refuse,
                ]
            }
            Condition::NotLocal => {
                let [one, two] = LOCAL.map(|family| family as u32);
                vec![load(argument(0)), if_equal(one, 1), unless_equal(two, 1), allow, refuse]
            }
            Condition::Types => {
                let [one, two] = TYPING;
                vec![load(argument(1)), if_equal(one, 1), unless_equal(two, 1), refuse, allow]
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bpf_machine::run;

    const ALLOWED: u32 = libc::SECCOMP_RET_ALLOW;
    const REFUSED: u32 = libc::SECCOMP_RET_ERRNO | libc::EPERM as u32;

    fn each_architecture(check: impl Fn(&[sock_filter], &Architecture, u32)) {
        let all = Refusals { limits: true, scheduling: true, keyrings: true, typing: true, internet: true };
        let program = all.filter();
        check(&program, &NATIVE, 0);
        check(&program, &COMPATIBLE, 0);
        if cfg!(target_arch = "x86_64") {
            check(&program, &NATIVE, X32_CALL);
        }
    }

    #[test]
    fn calls_on_other_processes_are_refused() {
        each_architecture(|program, architecture, bit| {
            let call = |at: usize, arguments: [u64; 6]| {
                let number = architecture.processes[at] as u32 | bit;
                run(program, architecture.name, number, arguments)
            };
            // Reading limits is permitted.
            assert_eq!(call(0, [9, 0, 0, 1, 0, 0]), ALLOWED);
            assert_eq!(call(0, [0, 0, 1, 0, 0, 0]), ALLOWED);
            assert_eq!(call(0, [9, 0, 1, 0, 0, 0]), REFUSED);
            assert_eq!(call(0, [9, 0, 1 << 32, 0, 0, 0]), REFUSED);
            // Kinds: a process, a group, a user.
            let priority =
                [0, 1, 2].map(|kind| (call(1, [kind, 0, 5, 0, 0, 0]), call(1, [kind, 9, 5, 0, 0, 0])));
            assert_eq!(priority, [(ALLOWED, REFUSED), (REFUSED, REFUSED), (REFUSED, REFUSED)]);
            let input =
                [1, 2, 3].map(|kind| (call(6, [kind, 0, 5, 0, 0, 0]), call(6, [kind, 9, 5, 0, 0, 0])));
            assert_eq!(input, [(ALLOWED, REFUSED), (REFUSED, REFUSED), (REFUSED, REFUSED)]);
            for at in 2..6 {
                let (own, other) = (call(at, [0, 1, 2, 0, 0, 0]), call(at, [9, 1, 2, 0, 0, 0]));
                assert_eq!((own, other), (ALLOWED, REFUSED), "call {at}");
            }
        });
    }

    #[test]
    fn keyrings_and_sockets_are_refused_on_demand() {
        let permissive = Refusals::default().filter();
        each_architecture(|program, architecture, bit| {
            for number in architecture.keyrings {
                let number = number as u32 | bit;
                assert_eq!(run(program, architecture.name, number, [0; 6]), REFUSED);
                assert_eq!(run(&permissive, architecture.name, number, [0; 6]), ALLOWED);
            }
            let socket = architecture.network[0] as u32 | bit;
            for (family, expected) in [(libc::AF_UNIX, ALLOWED), (libc::AF_NETLINK, ALLOWED)] {
                assert_eq!(run(program, architecture.name, socket, [family as u64, 0, 0, 0, 0, 0]), expected);
            }
            let internet = [libc::AF_INET as u64, 0, 0, 0, 0, 0];
            let refused = libc::SECCOMP_RET_ERRNO | libc::EACCES as u32;
            assert_eq!(run(program, architecture.name, socket, internet), refused);
            assert_eq!(run(&permissive, architecture.name, socket, internet), ALLOWED);
        });
    }

    #[test]
    fn typing_into_terminals_is_refused() {
        each_architecture(|program, architecture, bit| {
            let number = architecture.requests as u32 | bit;
            let call = |request: u64| run(program, architecture.name, number, [0, request, 0, 0, 0, 0]);
            assert_eq!(TYPING.map(|request| call(request.into())), [REFUSED; 2]);
            // The kernel ignores the upper half.
            assert_eq!(call(1 << 32 | u64::from(TYPING[0])), REFUSED);
            assert_eq!([0, 0x5401, 0x5413, 0x541d].map(call), [ALLOWED; 4]);
        });
    }

    #[test]
    fn other_calls_are_allowed() {
        each_architecture(|program, architecture, bit| {
            let network = architecture.network;
            let ruled = architecture.processes.into_iter().chain(architecture.keyrings).chain(network);
            let ruled: Vec<c_long> = ruled.chain([architecture.requests]).collect();
            for number in (0..600).filter(|number| !ruled.contains(&c_long::from(*number))) {
                assert_eq!(run(program, architecture.name, number | bit, [9; 6]), ALLOWED, "call {number}");
            }
        });
    }
}
