//! Confines a command with a mount namespace.
//!
//! Everything is made read-only, except for the writable paths, which are mounted on themselves
//! before. Hidden directories are covered by an empty file system and hidden files by `/dev/null`.
//! The command keeps its user and its paths. It has no capability with which it could change
//! mounts or reach another process's files; in a separate user namespace, the mounts are locked.

use std::ffi::{CStr, CString, NulError};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use greenwave_process::{BeforeExec, Setup};
use rustix::process::{getegid, geteuid};

use super::super::c_path;
use super::{Confinement, Network};

/// Capabilities that a confined command does not have, by number (`linux/capability.h`): reading
/// any file by handle, immutable files, modules, raw devices, `chroot`, `ptrace`, administration,
/// rebooting, the clock, device nodes, audit, security modules, the kernel log, BPF and
/// checkpoints.
const DROPPED: [u8; 17] = [2, 9, 16, 17, 18, 19, 21, 22, 25, 27, 30, 32, 33, 34, 38, 39, 40];
/// `CAP_SYS_ADMIN`, with which mounts need no user namespace.
const ADMINISTRATION: u64 = 1 << 21;
/// Directory of shared memory, which gets an empty file system.
const SHARED_MEMORY: &str = "/dev/shm";

/// The mounts of a confined command.
#[derive(Debug)]
pub(in crate::confinement) struct MountPlan {
    writable: Vec<PathBuf>,
    hidden_files: Vec<PathBuf>,
    hidden_directories: Vec<PathBuf>,
    network: Network,
}

impl MountPlan {
    pub(super) fn new(confinement: &Confinement) -> Self {
        let (hidden_directories, hidden_files) =
            confinement.hidden.iter().cloned().partition(|path| path.is_dir());
        Self {
            writable: confinement.writable.clone(),
            hidden_files,
            hidden_directories,
            network: confinement.network,
        }
    }

    pub(super) fn attach(&self, command: &mut impl BeforeExec, directory: &Path) -> Result<(), NulError> {
        for setup in self.setups(directory)? {
            command.before_exec(setup);
        }
        Ok(())
    }

    fn setups(&self, directory: &Path) -> Result<Vec<Setup>, NulError> {
        let mut setups = namespaces(self.network);
        // Mounts of the system appear here, and none of here appears there.
        setups.push(mount(c"none", c"/", c"", libc::MS_REC | libc::MS_SLAVE, c""));
        for path in &self.writable {
            let path = c_path(path)?;
            setups.push(mount(&path, &path, c"", libc::MS_BIND | libc::MS_REC, c""));
        }
        setups.push(set_read_only(c"/", true));
        for path in &self.writable {
            setups.push(set_read_only(&c_path(path)?, false));
        }
        if is_mount_point(Path::new("/proc")) {
            // Programs write to their own files there, and the kernel checks each of them.
            setups.push(Setup::SetReadOnly { path: c"/proc".into(), read_only: false, recursive: false });
        }
        let plain = libc::MS_NOSUID | libc::MS_NODEV;
        if Path::new(SHARED_MEMORY).is_dir() {
            setups.push(mount(c"tmpfs", c"/dev/shm", c"tmpfs", plain, c"mode=1777"));
        }
        for path in &self.hidden_directories {
            let flags = plain | libc::MS_NOEXEC | libc::MS_RDONLY;
            setups.push(mount(c"tmpfs", &c_path(path)?, c"tmpfs", flags, c"size=4k,mode=0555"));
        }
        for path in &self.hidden_files {
            setups.push(mount(c"/dev/null", &c_path(path)?, c"", libc::MS_BIND, c""));
        }
        if self.network == Network::Loopback {
            setups.push(Setup::LoopbackUp);
        }
        setups.push(Setup::NoNewPrivileges);
        setups.push(Setup::DropCapabilities(DROPPED.iter().fold(0, |mask, number| mask | 1 << number)));
        // The working directory is still the one below the mounts.
        setups.push(Setup::Enter(c_path(directory)?));
        Ok(setups)
    }
}

/// Returns the steps that move a process into its namespaces.
fn namespaces(network: Network) -> Vec<Setup> {
    let mut flags = libc::CLONE_NEWNS;
    if network != Network::Open {
        flags |= libc::CLONE_NEWNET;
    }
    if is_administrator() {
        return vec![Setup::Unshare(flags)];
    }
    let (user, group) = (geteuid().as_raw(), getegid().as_raw());
    let write = |path: &CStr, content: String| Setup::Write { path: path.into(), content: content.into() };
    vec![
        Setup::Unshare(flags | libc::CLONE_NEWUSER),
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

fn is_mount_point(path: &Path) -> bool {
    let device = |path: &Path| fs::metadata(path).map(|metadata| metadata.dev()).ok();
    device(path) != device(path.parent().unwrap_or(path))
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

fn set_read_only(path: &CStr, read_only: bool) -> Setup {
    Setup::SetReadOnly { path: path.into(), read_only, recursive: true }
}
