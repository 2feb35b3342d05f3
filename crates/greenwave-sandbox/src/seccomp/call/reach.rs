//! Decodes the calls by which a command can exchange data with other processes.

use libc::{c_int, c_long};

use super::{Arguments, Call, SocketCall};

/// The calls that are always reported.
pub(super) const NUMBERS: &[c_long] = &[
    libc::SYS_connect,
    libc::SYS_bind,
    libc::SYS_listen,
    libc::SYS_sendmmsg,
    libc::SYS_clone3,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_pidfd_getfd,
    libc::SYS_add_key,
    libc::SYS_request_key,
    libc::SYS_keyctl,
    libc::SYS_syslog,
    libc::SYS_fanotify_init,
    libc::SYS_bpf,
    libc::SYS_userfaultfd,
    libc::SYS_exit_group,
];

/// Requests of `ptrace` that start to trace another process (`linux/ptrace.h`).
pub(in super::super) const PTRACE_STARTS: [u32; 2] = [libc::PTRACE_ATTACH as _, libc::PTRACE_SEIZE as _];
/// Families of sockets whose peers have addresses that are reported. Sockets of other families are
/// reported when they are created.
pub(in super::super) const ADDRESSED: [c_int; 3] = [libc::AF_UNIX, libc::AF_INET, libc::AF_INET6];
/// Mask of the type in an argument of `socket`, which also holds flags (`linux/net.h`).
pub(in super::super) const SOCKET_TYPE: u32 = 0xf;

/// Operations of `keyctl` that neither read nor change keys: they return the number of a keyring
/// and start a new session (`linux/keyctl.h`).
const KEYCTL_HARMLESS: [c_int; 2] = [0, 1];

pub(super) fn decode(number: c_long, it: Arguments<'_>) -> Option<Call> {
    socket(number, it).map(Call::Socket).or_else(|| process(number, it)).or_else(|| {
        Some(match number {
            libc::SYS_add_key | libc::SYS_request_key => Call::Keyring,
            libc::SYS_keyctl if KEYCTL_HARMLESS.contains(&it.int(0)) => Call::Harmless,
            libc::SYS_keyctl => Call::Keyring,
            libc::SYS_syslog => Call::KernelLog,
            libc::SYS_exit_group => Call::Exit,
            libc::SYS_fanotify_init => Call::Untraceable("watches files with fanotify"),
            libc::SYS_bpf => Call::Untraceable("uses BPF programs or maps"),
            libc::SYS_userfaultfd => Call::Untraceable("handles its own page faults"),
            _ => return None,
        })
    })
}

fn socket(number: c_long, it: Arguments<'_>) -> Option<SocketCall> {
    let (descriptor, length) = (it.int(0), u64::from(it.raw(2) as u32));
    Some(match number {
        libc::SYS_connect => SocketCall::Send { descriptor, address: it.raw(1), length },
        libc::SYS_sendto => {
            SocketCall::Send { descriptor, address: it.raw(4), length: u64::from(it.raw(5) as u32) }
        }
        libc::SYS_sendmsg => SocketCall::SendMessages { descriptor, messages: it.raw(1), count: 1 },
        libc::SYS_sendmmsg => {
            SocketCall::SendMessages { descriptor, messages: it.raw(1), count: it.raw(2) as u32 }
        }
        libc::SYS_bind => SocketCall::Bind { descriptor, address: it.raw(1), length },
        libc::SYS_listen => SocketCall::Listen { descriptor },
        libc::SYS_socket => SocketCall::Create {
            family: it.int(0),
            kind: it.raw(1) as u32 & SOCKET_TYPE,
            protocol: it.int(2),
        },
        _ => return None,
    })
}

fn process(number: c_long, it: Arguments<'_>) -> Option<Call> {
    Some(match number {
        libc::SYS_clone => Call::NewThread { flags: it.raw(0) },
        libc::SYS_clone3 => Call::NewThreadOrProcess { arguments: it.raw(0) },
        libc::SYS_ptrace => Call::OtherMemory { process: it.int(1) },
        libc::SYS_process_vm_readv | libc::SYS_process_vm_writev => Call::OtherMemory { process: it.int(0) },
        libc::SYS_pidfd_getfd => Call::OtherDescriptor { process: it.int(0) },
        _ => return None,
    })
}
