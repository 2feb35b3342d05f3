//! Finds out which files a command reads, writes, lists and misses, and restricts which files it
//! may read.
//!
//! A [`Tracer`] records every path that a command and all its descendants access, by intercepting
//! their system calls with seccomp. It needs no privileges, no `ptrace` and no preloaded library,
//! and it sees static programs too. [`ReadRules`] make the kernel refuse reads inside a directory
//! that were not allowed, with Landlock. A [`Confinement`] permits a command to write to some paths
//! only, hides others and restricts its network, by mounts or by Landlock. A [`Guard`] protects a
//! few directories from a command that may otherwise do what its user may.
//!
//! ```
//! use std::process::Command;
//!
//! use greenwave_sandbox::Tracer;
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # if Tracer::available().is_err() { return Ok(()) }
//! let mut command = Command::new("sh");
//! command.args(["-c", "cat /etc/passwd /no/such/file; echo x > /dev/null"]);
//! let session = Tracer::default().attach(&mut command)?;
//! command.output()?;
//! let trace = session.blocking_finish();
//! assert!(trace.read_paths().any(|path| path.ends_with("passwd")));
//! assert!(trace.written_paths().any(|path| path.ends_with("null")));
//! assert!(trace.missing_paths().any(|path| path.ends_with("no/such/file")));
//! assert_eq!(trace.incomplete, None);
//! # Ok(())
//! # }
//! ```
//!
//! # Limits
//!
//! A trace does not contain:
//!
//! - Accesses after the command changes the meaning of paths (mounts, `chroot`, namespaces), opens
//!   files by handle, or runs programs of another architecture. [`Trace::incomplete`] then gives
//!   the reason.
//! - Reads through a file descriptor that the command inherited, and work that it asks another
//!   process to do. [`Trace::peers`] lists the servers, pipes and processes outside of the command
//!   that it reached. A client that connects to a server of the command is not listed.
//! - Which part of a file was read. Accesses after `open` cost nothing and are not seen.
//!
//! The arguments of a call are read once and compared before the call continues. A thread that
//! changes them in between makes the trace incomplete. A change in the short time after the
//! comparison can go unnoticed, so traces are for builds and tests, not for hostile programs.
//! `io_uring` is disabled in traced commands.
//!
//! # Errors
//!
//! An [`Error`] means that tracing or a restriction could not be set up. It names the facility and
//! the reason, or the path. An incomplete trace is not an error.
//!
//! # Platforms
//!
//! Tracing requires Linux 5.9 on `x86_64` or `aarch64`; read rules require Linux 5.19. Elsewhere,
//! and where an outer sandbox forbids them, [`Tracer::available`] and [`ReadRules::available`]
//! return the reason. A process that is traced cannot trace: the kernel allows one listener.
//! [`TraceStatus`] recognizes that case.

#![cfg_attr(docsrs, feature(doc_cfg))]

mod aliases;
#[cfg(target_os = "linux")]
mod bpf;
#[cfg(all(test, target_os = "linux"))]
mod bpf_machine;
mod confinement;
mod error;
mod guard;
mod landlock;
mod links;
#[cfg(target_os = "linux")]
mod namespace;
mod peer;
#[cfg(target_os = "linux")]
mod refusals;
mod retimed;
#[cfg(target_os = "linux")]
mod rights;
mod sandbox;
#[cfg_attr(
    not(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64"))),
    path = "unsupported.rs"
)]
mod seccomp;
mod trace;
mod tracer;

pub use confinement::{
    ChangedCopy, Confinement, Network, PreparedConfinement, PrivateDir, Strength, landlock_version,
    own_processes,
};
pub use error::Error;
pub use guard::{Guard, LazyGuard, PreparedGuard};
pub use landlock::{AllowedReads, ReadRules};
pub use peer::Peer;
pub use retimed::{FileTimes, Retimed};
pub use sandbox::Sandbox;
pub use seccomp::kernel_object_exists;
pub use trace::{Access, KernelObjects, Trace, TraceParts, TraceReaders};
pub use tracer::{TraceMode, TraceSession, TraceStatus, Tracer};
