//! The mount namespace of a run, in which it mounts overlays as working copies.
//!
//! Mounts that the user makes later appear in it. Its mounts do not appear outside, and vanish when
//! the last process of the run ends.

use std::sync::OnceLock;

use greenwave::{CopyMode, Overlays};

/// Ability of this process to mount overlays since it entered its namespace.
static ENTERED: OnceLock<Overlays> = OnceLock::new();

/// Returns the ability of this process to mount overlays, if it has entered a namespace.
pub(crate) fn overlays() -> Option<Overlays> {
    ENTERED.get().copied()
}

/// Enters a mount namespace if this process may create one, or if the setting `run.copies` demands
/// overlays, for which it also enters a user namespace. `mode` reads the setting. Without a
/// namespace, the process continues without overlays.
///
/// # Safety
/// No other thread may run, because a namespace belongs to a thread.
#[cfg(target_os = "linux")]
pub(crate) unsafe fn enter(mode: impl FnOnce() -> Option<CopyMode>) {
    use rustix::mount::{MountPropagationFlags, mount_change};
    use rustix::thread::{UnshareFlags, unshare_unsafe};

    let is_root = rustix::process::geteuid().is_root();
    let (user, group) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
    // SAFETY: the caller guarantees that this is the only thread, and file descriptors stay shared.
    let overlays = if is_root && unsafe { unshare_unsafe(UnshareFlags::NEWNS) }.is_ok() {
        Overlays::Full
    } else if mode() == Some(CopyMode::Overlay) {
        // SAFETY: as above.
        let entered = unsafe { unshare_unsafe(UnshareFlags::NEWUSER | UnshareFlags::NEWNS) };
        let write = |name: &str, content: String| std::fs::write(format!("/proc/self/{name}"), content);
        let mapped = entered.map_err(std::io::Error::from).and_then(|()| {
            write("setgroups", "deny".to_owned())?;
            write("uid_map", format!("{user} {user} 1"))?;
            write("gid_map", format!("{group} {group} 1"))
        });
        if mapped.is_err() {
            // The setting cannot be met, which the run reports.
            return;
        }
        Overlays::WithoutRenames
    } else {
        return;
    };
    let propagation = MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC;
    if mount_change("/", propagation).is_ok() {
        let _ = ENTERED.set(overlays);
    }
}

/// Does nothing: only Linux has overlays.
///
/// # Safety
/// None is required.
#[cfg(not(target_os = "linux"))]
pub(crate) unsafe fn enter(_: impl FnOnce() -> Option<CopyMode>) {}
