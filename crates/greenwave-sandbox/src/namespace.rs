//! Steps that move a child process into namespaces and change its mounts.

use std::ffi::{CStr, CString, NulError};
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::OnceLock;

use greenwave_process::Setup;
use rustix::process::{getegid, geteuid};

/// `CAP_SYS_ADMIN`, with which mounts need no user namespace.
const ADMINISTRATION: u64 = 1 << 21;

/// Returns the step that moves a process into a mount namespace, and into the other namespaces that
/// `flags` name. Where mounting requires it, it creates a user namespace with the same user.
pub(crate) fn namespaces(flags: libc::c_int) -> Setup {
    Setup::Namespaces { flags: flags | libc::CLONE_NEWNS, identity: identity() }
}

/// Tests whether a supervisor can start commands in a namespace of processes. It is probed once per
/// process.
///
/// # Errors
/// The reason.
pub(crate) fn own_processes() -> Result<(), String> {
    static AVAILABLE: OnceLock<Result<(), String>> = OnceLock::new();
    let probe = || greenwave_process::probe_own_processes(identity()).map_err(|error| error.to_string());
    AVAILABLE.get_or_init(probe).clone()
}

/// Returns the user and the group of a new user namespace. `None` if none is needed.
fn identity() -> Option<(u32, u32)> {
    (!is_administrator()).then(|| (geteuid().as_raw(), getegid().as_raw()))
}

/// Returns whether a child process may mount without a user namespace. Another user's process has
/// the capability in a separate user namespace, and its children lose it.
fn is_administrator() -> bool {
    if !geteuid().is_root() {
        return false;
    }
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    effective
        .and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok())
        .is_some_and(|mask| mask & ADMINISTRATION != 0)
}

/// Returns a call of `mount`.
pub(crate) fn mount(
    source: &CStr,
    target: &CStr,
    kind: &CStr,
    flags: libc::c_ulong,
    options: &CStr,
) -> Setup {
    let owned = CString::from;
    Setup::Mount {
        source: owned(source),
        target: owned(target),
        kind: owned(kind),
        flags,
        options: owned(options),
    }
}

/// Returns a step that sets and clears attributes of a mount, and of those below it if `recursive`.
pub(crate) fn attributes(path: &CStr, set: u64, clear: u64, recursive: bool) -> Setup {
    Setup::SetAttributes { path: path.into(), set, clear, recursive }
}

/// Returns a path for a system call.
pub(crate) fn c_path(path: &Path) -> Result<CString, NulError> {
    CString::new(path.as_os_str().as_bytes())
}
