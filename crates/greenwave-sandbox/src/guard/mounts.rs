//! The mounts of a guard.

use std::collections::BTreeSet;
use std::ffi::{CStr, CString, NulError};
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use greenwave_process::Setup;
use rustix::process::{getegid, geteuid};

use super::super::Guard;

/// Capabilities that a guarded command does not have, by number (`linux/capability.h`): with them
/// it could undo the mounts, or read files and memory in other ways. Reading any file by handle,
/// modules, raw devices, `chroot`, `ptrace`, administration, device nodes, performance monitoring,
/// BPF and checkpoints.
const DROPPED: [u8; 10] = [2, 16, 17, 18, 19, 21, 27, 38, 39, 40];
/// `CAP_SYS_ADMIN`, with which mounts need no user namespace.
const ADMINISTRATION: u64 = 1 << 21;

/// Returns the steps that cover hidden directories with an empty file system and make others
/// read-only, for a command in a working directory.
pub(super) fn mounts(guard: &Guard, directory: &Path) -> Result<Vec<Setup>, NulError> {
    let mut steps = namespaces();
    // Mounts of the system appear here, and none of here appears there.
    steps.push(mount(c"none", c"/", c"", libc::MS_REC | libc::MS_SLAVE, c""));
    // A mount point cannot be moved away, to be replaced by another directory.
    let protected = guard.hidden.iter().chain(&guard.read_only);
    let above: BTreeSet<&Path> = protected.flat_map(|path| path.ancestors().skip(1)).collect();
    let above = above.into_iter().filter(|path| path.parent().is_some());
    for path in above.chain(guard.read_only.iter().chain(&guard.writable).map(PathBuf::as_path)) {
        let path = c_path(path)?;
        steps.push(mount(&path, &path, c"", libc::MS_BIND | libc::MS_REC, c""));
    }
    for path in &guard.read_only {
        steps.push(Setup::SetReadOnly { path: c_path(path)?, read_only: true, recursive: true });
    }
    for path in &guard.writable {
        steps.push(Setup::SetReadOnly { path: c_path(path)?, read_only: false, recursive: true });
    }
    let flags = libc::MS_NOSUID | libc::MS_NODEV | libc::MS_NOEXEC | libc::MS_RDONLY;
    for path in &guard.hidden {
        steps.push(mount(c"tmpfs", &c_path(path)?, c"tmpfs", flags, c"size=4k,mode=0555"));
    }
    steps.push(Setup::NoNewPrivileges);
    steps.push(Setup::DropCapabilities(DROPPED.iter().fold(0, |mask, number| mask | 1 << number)));
    // The working directory is still the one below the mounts.
    steps.push(Setup::Enter(c_path(directory)?));
    Ok(steps)
}

/// Returns the steps that move a process into a mount namespace.
fn namespaces() -> Vec<Setup> {
    if is_administrator() {
        return vec![Setup::Unshare(libc::CLONE_NEWNS)];
    }
    let (user, group) = (geteuid().as_raw(), getegid().as_raw());
    let write = |path: &CStr, content: String| Setup::Write { path: path.into(), content: content.into() };
    vec![
        Setup::Unshare(libc::CLONE_NEWNS | libc::CLONE_NEWUSER),
        write(c"/proc/self/setgroups", "deny".to_owned()),
        write(c"/proc/self/uid_map", format!("{user} {user} 1")),
        write(c"/proc/self/gid_map", format!("{group} {group} 1")),
    ]
}

/// Returns whether this process may mount without a user namespace.
fn is_administrator() -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    effective
        .and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok())
        .is_some_and(|mask| mask & ADMINISTRATION != 0)
}

fn mount(source: &CStr, target: &CStr, kind: &CStr, flags: libc::c_ulong, options: &CStr) -> Setup {
    let owned = CString::from;
    Setup::Mount {
        source: owned(source),
        target: owned(target),
        kind: owned(kind),
        flags,
        options: owned(options),
    }
}

fn c_path(path: &Path) -> Result<CString, NulError> {
    CString::new(path.as_os_str().as_bytes())
}
