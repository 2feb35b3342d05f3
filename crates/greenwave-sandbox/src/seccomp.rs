//! Traces commands on Linux, by a seccomp filter that reports system calls to this process.
//!
//! The filter (<https://www.kernel.org/doc/html/latest/userspace-api/seccomp_filter.html>) stops
//! each call that takes a path and notifies a thread of this process, which records the path and
//! lets the call continue. Every process that the command starts inherits the filter, and none can
//! remove it. Static programs and raw system calls are therefore recorded too, which a preloaded
//! library would miss. Other calls run at full speed, which `ptrace` would not allow.

mod call;
mod changes;
mod filter;
mod interpreter;
mod ipc;
mod log;
mod mark;
mod nested;
mod net_tables;
mod observer;
mod opener;
mod parts;
mod processes;
mod readers;
mod resolver;
mod sockets;
mod supervisor;
mod threads;
mod tracee;

pub use ipc::kernel_object_exists;
pub(crate) use nested::is_traced;
pub(crate) use opener::attach as open_files;
pub(crate) use supervisor::{Supervisor, attach, available};
