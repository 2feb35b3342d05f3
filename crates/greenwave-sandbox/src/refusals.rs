//! Seccomp filters that refuse calls by which a command reaches other processes, the user's kernel
//! objects or the network, or leaves programs that run with the rights of the user.
//!
//! The kernel permits a process to change the limits, the priority and the processors of every
//! process of the same user, by its number. A limit of processor time kills. Neither mounts nor
//! Landlock govern these calls.

use greenwave_process::Setup;
use libc::{c_int, c_long, sock_filter};

use crate::bpf::{argument, finish, if_any, if_equal, instruction, load, unless_any, unless_equal};

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
    /// `fcntl`, and `fcntl64` or 0.
    control: [c_long; 2],
    /// Calls with the mode of a file, and 0 for those that the architecture does not have: `chmod`,
    /// `fchmod`, `fchmodat`, `fchmodat2`, `mknod`, `mknodat`, `open`, `openat`, `creat`.
    modes: [c_long; 9],
    /// `openat2`, whose mode is in memory.
    open_in_memory: c_long,
    /// `perf_event_open`.
    sampling: c_long,
}

/// Calls with a mode that only some architectures have: `chmod`, `mknod`, `open`, `creat`.
#[cfg(target_arch = "x86_64")]
const OLD_MODES: [c_long; 4] = [libc::SYS_chmod, libc::SYS_mknod, libc::SYS_open, libc::SYS_creat];
#[cfg(not(target_arch = "x86_64"))]
const OLD_MODES: [c_long; 4] = [0; 4];
/// `fchmodat2` and `openat2`, which have one number on all architectures.
const FCHMODAT2: c_long = 452;
const OPENAT2: c_long = 437;

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
    control: [libc::SYS_fcntl, 0],
    modes: [
        OLD_MODES[0],
        libc::SYS_fchmod,
        libc::SYS_fchmodat,
        FCHMODAT2,
        OLD_MODES[1],
        libc::SYS_mknodat,
        OLD_MODES[2],
        libc::SYS_openat,
        OLD_MODES[3],
    ],
    open_in_memory: OPENAT2,
    sampling: libc::SYS_perf_event_open,
};
/// The architecture of programs for 32 bits on the same machine.
const COMPATIBLE: Architecture = if cfg!(target_arch = "x86_64") {
    Architecture {
        name: 0x4000_0003,
        processes: [340, 97, 241, 156, 154, 351, 289],
        keyrings: [286, 287, 288],
        network: [359, 102, 425],
        requests: 54,
        control: [55, 221],
        modes: [15, 94, 306, FCHMODAT2, 14, 297, 5, 295, 8],
        open_in_memory: OPENAT2,
        sampling: 336,
    }
} else if cfg!(target_arch = "aarch64") {
    Architecture {
        name: 0x4000_0028,
        processes: [369, 97, 241, 156, 154, 380, 314],
        keyrings: [309, 310, 311],
        network: [281, 102, 425],
        requests: 54,
        control: [55, 221],
        modes: [15, 94, 333, FCHMODAT2, 14, 324, 5, 322, 8],
        open_in_memory: OPENAT2,
        sampling: 364,
    }
} else {
    Architecture {
        name: 0,
        processes: [0; 7],
        keyrings: [0; 3],
        network: [0; 3],
        requests: 0,
        control: [0; 2],
        modes: [0; 9],
        open_in_memory: 0,
        sampling: 0,
    }
};
/// The bit by which the x32 ABI marks its calls, whose numbers here are otherwise the same.
const X32_CALL: u32 = 0x4000_0000;
/// The families of sockets that stay without a network: Unix sockets and sockets to the kernel.
pub(crate) const LOCAL: &[c_int] = &[libc::AF_UNIX, libc::AF_NETLINK];
/// The families of sockets that a network namespace confines. Sockets of others, such as those of a
/// virtual machine to its host (`AF_VSOCK`), reach the same from each namespace.
pub(crate) const NAMESPACED: &[c_int] =
    &[libc::AF_UNIX, libc::AF_NETLINK, libc::AF_INET, libc::AF_INET6, libc::AF_PACKET];
/// Requests that put characters into the input of a terminal: `TIOCSTI` and `TIOCLINUX`, which
/// pastes the selection. The shell that reads them there is not confined.
const TYPING: [u32; 2] = [0x5412, 0x541c];
/// Commands of `fcntl` that keep other programs from opening a file for as long as 45 seconds:
/// `F_SETLEASE`, and `F_SETDELEG` (Linux 6.19, `linux/fcntl.h`).
const LEASING: [u32; 2] = [1024, 1024 + 16];
/// Bits of a mode with which a program runs as the owner or the group of its file.
const IDENTITY_BITS: u32 = libc::S_ISUID | libc::S_ISGID;
/// Flags with which a call that opens a file creates one: `O_CREAT` and `__O_TMPFILE`.
const CREATING: u32 = 0o100 | 0o20_000_000;
/// `PRIO_PROCESS` of `sys/resource.h`.
const PRIORITY_OF_PROCESS: u32 = 0;
/// `IOPRIO_WHO_PROCESS` of `linux/ioprio.h`.
const IO_PRIORITY_OF_PROCESS: u32 = 1;
/// `PERF_FLAG_PID_CGROUP` of `linux/perf_event.h`: the number of a process is a descriptor.
const SAMPLES_GROUP: u32 = 1 << 2;
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
    /// Whether leases on files fail with `EPERM`.
    pub(crate) leases: bool,
    /// The only families of sockets, if they are limited. Others fail with `EACCES`, and rings with
    /// `ENOSYS`.
    pub(crate) families: Option<&'static [c_int]>,
    /// Whether files get no set-user-id and set-group-id bits: such modes fail with `EPERM`. Calls
    /// whose mode no filter can see, and rings, fail with `ENOSYS`.
    pub(crate) identity_bits: bool,
    /// Whether samples of the registers and stacks of other processes fail with `EPERM`: of a
    /// process with a number, even the caller's, of groups, and of the whole system.
    pub(crate) sampling: bool,
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
    /// The first argument is a family that is not in this list.
    NotFamily(&'static [c_int]),
    /// The second argument is one of these commands or requests.
    Requests([u32; 2]),
    /// The argument with this number is a mode with one of the [`IDENTITY_BITS`].
    SetsIdentity(usize),
    /// The argument with this number has one of the [`CREATING`] flags, and the next one is a mode
    /// with one of the [`IDENTITY_BITS`]. Without such a flag, the kernel ignores the mode.
    CreatesWithIdentity(usize),
    /// The second argument is not the number zero, or a flag in the fifth makes it a descriptor.
    SamplesOther,
}

/// A call with the error that it gets under a condition.
#[derive(Debug, Clone, Copy)]
struct Rule {
    number: u32,
    condition: Condition,
    error: c_int,
}

/// Returns the step that keeps a command from changing limits of processes by their numbers, and
/// from sampling them. Landlock does not keep root from that.
pub(crate) fn refuse_limits_and_samples() -> Setup {
    let refusals = Refusals { limits: true, sampling: true, ..Refusals::default() };
    Setup::FilterCalls { filter: refusals.filter(), on_processes: true }
}

impl Refusals {
    /// Returns the calls that no confined command may make, in every view of processes.
    pub(crate) fn of_confined() -> Self {
        Self { keyrings: true, typing: true, leases: true, identity_bits: true, ..Self::default() }
    }

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
        let sampling = (self.sampling && architecture.sampling != 0).then_some(architecture.sampling);
        let typing = (self.typing && architecture.requests != 0).then_some(architecture.requests);
        let leases = architecture.control.into_iter().filter(|number| self.leases && *number != 0);
        let refused = limits
            .into_iter()
            .chain(scheduling.into_iter().filter(|_| self.scheduling))
            .chain(keyrings.into_iter().filter(|_| self.keyrings))
            .chain(typing.map(|number| (number, Condition::Requests(TYPING))))
            .chain(leases.map(|number| (number, Condition::Requests(LEASING))))
            .chain(sampling.map(|number| (number, Condition::SamplesOther)));
        let refused = refused.map(|(number, condition)| (number, condition, libc::EPERM));
        let network = [
            (socket, Condition::NotFamily(self.families.unwrap_or_default()), libc::EACCES),
            (multiplexer, Condition::Always, libc::EACCES),
            (ring, Condition::Always, libc::ENOSYS),
        ];
        let network = network.into_iter().filter(|(number, ..)| self.families.is_some() && *number != 0);
        let modes = self.modes(architecture);
        let rule =
            |(number, condition, error): (c_long, _, _)| Rule { number: number as u32, condition, error };
        let mut rules: Vec<Rule> = refused.chain(network).chain(modes).map(rule).collect();
        rules.sort_unstable_by_key(|rule| rule.number);
        rules.dedup_by_key(|rule| rule.number);
        rules
    }

    /// Returns the rules on modes of files.
    fn modes(self, architecture: &Architecture) -> Vec<(c_long, Condition, c_int)> {
        use Condition::{Always, CreatesWithIdentity, SetsIdentity};
        if !self.identity_bits {
            return Vec::new();
        }
        let conditions = [
            SetsIdentity(1),
            SetsIdentity(1),
            SetsIdentity(2),
            SetsIdentity(2),
            SetsIdentity(1),
            SetsIdentity(2),
            CreatesWithIdentity(1),
            CreatesWithIdentity(2),
            SetsIdentity(1),
        ];
        let seen = architecture.modes.into_iter().zip(conditions);
        let seen = seen.map(|(number, condition)| (number, condition, libc::EPERM));
        // A ring opens files as well, with a mode in memory.
        let unseen = [architecture.open_in_memory, architecture.network[2]];
        let unseen = unseen.map(|number| (number, Always, libc::ENOSYS));
        seen.chain(unseen).filter(|(number, ..)| *number != 0).collect()
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
            Condition::NotFamily(families) => {
                let compare = |(at, family): (usize, &c_int)| if_equal(*family as u32, families.len() - at);
                let compares = families.iter().enumerate().map(compare);
                [load(argument(0))].into_iter().chain(compares).chain([refuse, allow]).collect()
            }
            Condition::Requests([one, two]) => {
                vec![load(argument(1)), if_equal(one, 1), unless_equal(two, 1), refuse, allow]
            }
            Condition::SamplesOther => {
                vec![
                    load(argument(1)),
                    unless_equal(0, 3),
                    load(argument(4)),
                    if_any(SAMPLES_GROUP, 1),
                    allow,
                    refuse,
                ]
            }
            Condition::SetsIdentity(mode) => {
                vec![load(argument(mode)), if_any(IDENTITY_BITS, 1), allow, refuse]
            }
            Condition::CreatesWithIdentity(flags) => {
                vec![
                    load(argument(flags)),
                    unless_any(CREATING, 2),
                    load(argument(flags + 1)),
                    if_any(IDENTITY_BITS, 1),
                    allow,
                    refuse,
                ]
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
        let all = Refusals {
            limits: true,
            scheduling: true,
            keyrings: true,
            typing: true,
            leases: true,
            families: Some(LOCAL),
            identity_bits: true,
            sampling: true,
        };
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
            let namespaced = Refusals { families: Some(NAMESPACED), ..Refusals::default() }.filter();
            let refused = libc::SECCOMP_RET_ERRNO | libc::EACCES as u32;
            for (family, expected) in [
                (libc::AF_INET, ALLOWED),
                (libc::AF_INET6, ALLOWED),
                (libc::AF_UNIX, ALLOWED),
                (libc::AF_PACKET, ALLOWED),
                (libc::AF_VSOCK, refused),
                (libc::AF_BLUETOOTH, refused),
            ] {
                let arguments = [family as u64, 0, 0, 0, 0, 0];
                assert_eq!(run(&namespaced, architecture.name, socket, arguments), expected, "{family}");
                assert_eq!(run(&permissive, architecture.name, socket, arguments), ALLOWED, "{family}");
            }
            let internet = [libc::AF_INET as u64, 0, 0, 0, 0, 0];
            assert_eq!(run(program, architecture.name, socket, internet), refused);
        });
    }

    #[test]
    fn samples_of_other_processes_are_refused() {
        each_architecture(|program, architecture, bit| {
            let number = architecture.sampling as u32 | bit;
            let call = |process: u64, flags: u64| {
                run(program, architecture.name, number, [1, process, u64::MAX, u64::MAX, flags, 0])
            };
            // The kernel ignores the upper half of the number.
            assert_eq!([call(0, 0), call(0, 8), call(1 << 32, 0)], [ALLOWED; 3]);
            assert_eq!([call(9, 0), call(u64::MAX, 0), call(0, 4), call(9, 4)], [REFUSED; 4]);
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
    fn leases_on_files_are_refused() {
        each_architecture(|program, architecture, bit| {
            for number in architecture.control.into_iter().filter(|number| *number != 0) {
                let call = |command: u64| {
                    run(program, architecture.name, number as u32 | bit, [3, command, 1, 0, 0, 0])
                };
                assert_eq!(LEASING.map(|command| call(command.into())), [REFUSED; 2]);
                assert_eq!(call(1 << 32 | u64::from(LEASING[0])), REFUSED);
                // `F_SETFD`, `F_SETLK`, `F_GETLEASE` and `F_ADD_SEALS`.
                assert_eq!([2, 6, 1025, 1033].map(call), [ALLOWED; 4]);
            }
        });
    }

    #[test]
    fn modes_that_lend_an_identity_are_refused() {
        // Positions of the modes among the arguments.
        let positions = [1, 1, 2, 2, 1, 2, 2, 3, 1];
        each_architecture(|program, architecture, bit| {
            for (number, position) in architecture.modes.into_iter().zip(positions) {
                if number == 0 {
                    continue;
                }
                let call = |mode: u64, flags: u32| {
                    let mut arguments = [0; 6];
                    arguments[position - 1] = u64::from(flags);
                    arguments[position] = mode;
                    run(program, architecture.name, number as u32 | bit, arguments)
                };
                let opens = [architecture.modes[6], architecture.modes[7]].contains(&number);
                for creating in [libc::O_CREAT, libc::O_TMPFILE, libc::O_CREAT | libc::O_WRONLY] {
                    let creating = creating as u32;
                    let modes = [0o4755, 0o2755, 0o6000, 1 << 32 | 0o4000];
                    assert_eq!(modes.map(|mode| call(mode, creating)), [REFUSED; 4], "call {number}");
                    assert_eq!([0, 0o755, 0o1777].map(|mode| call(mode, creating)), [ALLOWED; 3]);
                }
                // A mode that the kernel ignores.
                let opened = call(0o4755, (libc::O_RDWR | libc::O_DIRECTORY) as u32);
                assert_eq!(opened, if opens { ALLOWED } else { REFUSED }, "call {number}");
            }
            let unseen = [architecture.open_in_memory, architecture.network[2]];
            let absent = libc::SECCOMP_RET_ERRNO | libc::ENOSYS as u32;
            let called = unseen.map(|number| run(program, architecture.name, number as u32 | bit, [0; 6]));
            assert_eq!(called, [absent; 2]);
        });
    }

    #[test]
    fn other_calls_are_allowed() {
        each_architecture(|program, architecture, bit| {
            let network = architecture.network;
            let ruled = architecture.processes.into_iter().chain(architecture.keyrings).chain(network);
            let ruled =
                ruled.chain([architecture.requests, architecture.open_in_memory, architecture.sampling]);
            let ruled = ruled.chain(architecture.control);
            let ruled: Vec<c_long> = ruled.chain(architecture.modes).collect();
            for number in (0..600).filter(|number| !ruled.contains(&c_long::from(*number))) {
                assert_eq!(run(program, architecture.name, number | bit, [9; 6]), ALLOWED, "call {number}");
            }
        });
    }
}
