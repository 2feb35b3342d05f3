//! The two ways in which Linux enforces a confinement.

use std::io;
use std::os::unix::fs::FileTypeExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use greenwave_process::BeforeExec;
use rustix::fs::{Access, AtFlags, CWD};
use rustix::process::geteuid;

use super::{Confinement, Network, Strength, unavailable};
use crate::Error;

#[path = "landlock.rs"]
mod landlock;
#[path = "mount.rs"]
mod mount;
#[path = "visible.rs"]
mod visible;

pub(super) use self::visible::VisiblePaths;

/// Devices that every command may write to.
const DEVICES: [&str; 7] =
    ["/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom", "/dev/tty", "/dev/ptmx"];
/// Directory of shared memory.
const SHARED_MEMORY: &str = "/dev/shm";
/// Capabilities that a confined command does not have, by number (`linux/capability.h`): reading
/// any file by handle, immutable files, the configuration of networks, packets of other processes,
/// shared memory of other users, modules, raw devices, `chroot`, `ptrace`, process accounting,
/// administration, rebooting, the clock, terminals, device nodes, audit, capabilities of files,
/// security modules, the kernel log, suspending, BPF and checkpoints.
const DROPPED: [u8; 26] =
    [2, 9, 12, 13, 15, 16, 17, 18, 19, 20, 21, 22, 25, 26, 27, 30, 31, 32, 33, 34, 35, 36, 37, 38, 39, 40];

/// Returns whether this user can open a raw device of the machine, which holds every file: root,
/// and members of a group such as `disk`.
fn opens_disks() -> bool {
    static OPENS: OnceLock<bool> = OnceLock::new();
    let is_open = |entry: std::fs::DirEntry| {
        entry.file_type().is_ok_and(|kind| kind.is_block_device())
            && rustix::fs::accessat(CWD, entry.path(), Access::READ_OK, AtFlags::EACCESS).is_ok()
    };
    *OPENS.get_or_init(|| {
        let mut entries = std::fs::read_dir("/dev").into_iter().flatten().flatten();
        geteuid().is_root() || entries.any(is_open)
    })
}

/// The rules of one strength.
#[derive(Debug)]
pub(super) enum Rules {
    Mount(Box<mount::MountPlan>),
    Landlock(landlock::PathRules),
}

impl Rules {
    /// `visible` returns what commands can read under [`Strength::Mount`].
    pub(super) fn new<'a>(
        confinement: &Confinement,
        strength: Strength,
        visible: impl FnOnce() -> Option<&'a VisiblePaths>,
    ) -> Result<Self, Error> {
        match strength {
            Strength::Mount => Ok(Self::Mount(Box::new(mount::MountPlan::new(confinement, visible())))),
            Strength::Landlock if confinement.network == Network::Loopback => {
                Err(unavailable(strength, &"a loopback network requires namespaces"))
            }
            Strength::Landlock => landlock::PathRules::new(confinement).map(Self::Landlock),
        }
    }

    pub(super) fn attach(&self, command: &mut impl BeforeExec, directory: &Path) -> Result<(), Error> {
        match self {
            Self::Mount(plan) => {
                plan.attach(command, directory).map_err(|error| unavailable(Strength::Mount, &error))
            }
            Self::Landlock(rules) => {
                rules.attach(command).map_err(|error| unavailable(Strength::Landlock, &error))
            }
        }
    }
}

/// Returns the reason if commands cannot have a namespace of processes.
pub(super) fn own_processes() -> Result<(), String> {
    crate::namespace::own_processes()
}

/// Returns the version of Landlock in the kernel.
pub(super) fn landlock_version() -> Option<u32> {
    landlock::version()
}

/// Returns the reason if commands cannot be confined in this way.
pub(super) fn available(strength: Strength) -> Result<(), String> {
    static MOUNT: OnceLock<Result<(), String>> = OnceLock::new();
    static LANDLOCK: OnceLock<Result<(), String>> = OnceLock::new();
    let result = match strength {
        Strength::Mount => MOUNT.get_or_init(|| probe(strength)),
        Strength::Landlock => LANDLOCK.get_or_init(|| probe(strength)),
    };
    result.clone()
}

/// Confines a shell that does nothing: a permission shows only in its effect.
fn probe(strength: Strength) -> Result<(), String> {
    let confinement = Confinement::new();
    let rules = Rules::new(&confinement, strength, || None).map_err(|error| error.to_string())?;
    let mut command = Command::new("/bin/sh");
    command.args(["-c", ":"]).env_clear().current_dir("/").process_group(0);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    rules.attach(&mut command, Path::new("/")).map_err(|error| error.to_string())?;
    let refused = |error: io::Error| format!("the system refuses it: {error}");
    let status = command.status().map_err(refused)?;
    if status.success() { Ok(()) } else { Err(format!("a confined shell failed: {status}")) }
}
