//! The mounts of a guard.

use std::collections::BTreeSet;
use std::ffi::NulError;
use std::path::{Path, PathBuf};

use greenwave_process::Setup;

use super::super::Guard;
use crate::namespace::{attributes, c_path, mount, namespaces};
use crate::refusals::refuse_limits_and_samples;
use crate::rights::{Scope, scope_rules};

/// Capabilities that a guarded command does not have, by number (`linux/capability.h`): with them
/// it could undo the mounts, or read files and memory in other ways. Reading any file by handle,
/// modules, raw devices, `chroot`, `ptrace`, administration, device nodes, performance monitoring,
/// BPF and checkpoints.
const DROPPED: [u8; 10] = [2, 16, 17, 18, 19, 21, 27, 38, 39, 40];

/// Returns the steps that cover hidden directories with an empty file system and make others
/// read-only, for a command in a working directory.
pub(super) fn mounts(guard: &Guard, directory: &Path) -> Result<Vec<Setup>, NulError> {
    let mut steps = vec![namespaces(0)];
    // Later mounts of the system appear in this namespace. Its own mounts do not appear outside.
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
        steps.push(attributes(&c_path(path)?, libc::MOUNT_ATTR_RDONLY, 0, true));
    }
    for path in &guard.writable {
        steps.push(attributes(&c_path(path)?, 0, libc::MOUNT_ATTR_RDONLY, true));
    }
    let flags = libc::MS_NOSUID | libc::MS_NODEV | libc::MS_NOEXEC | libc::MS_RDONLY;
    for path in &guard.hidden {
        steps.push(mount(c"tmpfs", &c_path(path)?, c"tmpfs", flags, c"size=4k,mode=0555"));
    }
    steps.push(Setup::NoNewPrivileges);
    steps.push(refuse_limits_and_samples());
    steps.extend(scope_rules(Scope::Signal).map(Setup::Restrict));
    steps.push(Setup::DropCapabilities(DROPPED.iter().fold(0, |mask, number| mask | 1 << number)));
    // The working directory is still the one below the mounts.
    steps.push(Setup::Enter(c_path(directory)?));
    Ok(steps)
}
