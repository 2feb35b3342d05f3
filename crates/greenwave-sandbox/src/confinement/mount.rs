//! Confines a command with a mount namespace.
//!
//! Everything is made read-only, except for the writable paths, which are mounted on themselves
//! before. Hidden directories are covered by an empty file system and hidden files by `/dev/null`.
//! The command keeps its user and its paths. It has no capability with which it could change
//! mounts or reach another process's files; in a separate user namespace, the mounts are locked.
//! Where Landlock can do so, it keeps signals and abstract Unix sockets inside, and reading to the
//! files that were visible at the start.
//!
//! A command that a supervisor starts has a namespace of processes and a `/proc` of its own, if the
//! system permits it and the confinement does not share the processes outside. Otherwise `/proc` is
//! read-only like everything else: a user who may change the `oom_score_adj` of one process may
//! change that of all of them.

use std::collections::{BTreeSet, HashMap};
use std::ffi::{NulError, OsString};
use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use greenwave_process::{BeforeExec, Setup};
use rustix::process::geteuid;

use super::super::PrivateDir;
use super::visible::VisiblePaths;
use super::{Confinement, DEVICES, DROPPED, Network, SHARED_MEMORY, opens_disks};
use crate::namespace::{attributes, c_path, mount, namespaces, own_processes};
use crate::refusals::{NAMESPACED, Refusals};
use crate::rights::{Scope, scope_rules};
use crate::seccomp;

/// Directory of message queues.
const QUEUES: &str = "/dev/mqueue";
/// Directory of terminals, which gets a file system without the terminals of others.
const TERMINALS: &str = "/dev/pts";
/// Parts of `/proc` that root can write to without any capability and that hold for the whole
/// system. A program named in `/proc/sys/kernel/core_pattern` runs outside of every confinement.
const KERNEL: [&str; 6] =
    ["/proc/sys", "/proc/sysrq-trigger", "/proc/irq", "/proc/bus", "/proc/fs", "/proc/acpi"];

/// The mounts of a confined command.
#[derive(Debug)]
pub(in crate::confinement) struct MountPlan {
    /// Paths whose mount is writable.
    writable: BTreeSet<PathBuf>,
    /// Paths in writable ones whose mount is read-only.
    unchanged: BTreeSet<PathBuf>,
    /// Directories with the start of the names of files that may be created in them.
    additions: Vec<(PathBuf, OsString)>,
    private: Option<PrivateDir>,
    hidden: Vec<Hidden>,
    /// A directory, and the second path at which it is visible.
    shown_at: Option<(PathBuf, PathBuf)>,
    network: Network,
    shares_processes: bool,
    /// A Landlock rule set that permits reading visible files, and keeps signals and abstract
    /// sockets inside, as far as the kernel has it.
    rules: Option<OwnedFd>,
}

/// A hidden path.
#[derive(Debug)]
struct Hidden {
    path: PathBuf,
    is_directory: bool,
    /// Paths inside that remain visible, relative to it, and whether each is a directory.
    visible: Vec<(PathBuf, bool)>,
    /// Two visible paths: a directory, and the second path at which it is visible.
    shown_at: Option<(PathBuf, PathBuf)>,
}

impl MountPlan {
    pub(super) fn new(confinement: &Confinement, visible: Option<&VisiblePaths>) -> Self {
        let is_read_only = |path: &PathBuf| {
            let flags = rustix::fs::statvfs(path).map(|found| found.f_flag);
            flags.is_ok_and(|flags| flags.contains(rustix::fs::StatVfsMountFlags::RDONLY))
        };
        let mut writable: BTreeSet<PathBuf> = confinement.writable.iter().cloned().collect();
        writable.retain(|path| !is_read_only(path));
        let unchanged = unchanged(confinement, &mut writable);
        Self {
            writable,
            unchanged,
            additions: confinement.additions.clone(),
            private: confinement.private.clone(),
            hidden: hidden(confinement),
            shown_at: confinement.shown_at.clone(),
            network: confinement.network,
            shares_processes: confinement.shares_processes,
            rules: rules(confinement, visible),
        }
    }

    pub(super) fn attach(&self, command: &mut impl BeforeExec, directory: &Path) -> io::Result<()> {
        for setup in self.setups(directory)? {
            command.before_exec(setup);
        }
        // The kernel permits one listener.
        match self.additions.first() {
            Some((directory, prefix)) => seccomp::open_files(command, directory, prefix, true),
            None => Ok(()),
        }
    }

    fn setups(&self, directory: &Path) -> io::Result<Vec<Setup>> {
        let (is_root, opens_disks) = (geteuid().is_root(), opens_disks());
        let network = if self.network == Network::Open { 0 } else { libc::CLONE_NEWNET };
        let mut setups = vec![namespaces(libc::CLONE_NEWIPC | network)];
        // Its own mounts do not appear outside. Later mounts of the system do not appear here: they
        // would be writable.
        setups.push(mount(c"none", c"/", c"", libc::MS_REC | libc::MS_PRIVATE, c""));
        let on_itself = |path: &Path| -> Result<Setup, NulError> {
            let path = c_path(path)?;
            Ok(mount(&path, &path, c"", libc::MS_BIND | libc::MS_REC, c""))
        };
        let devices: Vec<&Path> = DEVICES.iter().map(Path::new).filter(|path| is_device(path)).collect();
        let kernel = KERNEL.iter().map(Path::new).filter(|path| is_root && path.exists());
        for path in kernel.chain(devices.iter().copied().filter(|_| opens_disks)) {
            setups.push(on_itself(path)?);
        }
        // Outer ones first, so that inner ones are mounted on them.
        for path in self.writable.union(&self.unchanged) {
            setups.push(on_itself(path)?);
        }
        let no_devices = if opens_disks { libc::MOUNT_ATTR_NODEV } else { 0 };
        setups.push(attributes(c"/", libc::MOUNT_ATTR_RDONLY | no_devices, 0, true));
        for path in devices.iter().filter(|_| opens_disks) {
            setups.push(attributes(&c_path(path)?, 0, libc::MOUNT_ATTR_NODEV, false));
        }
        for path in &self.writable {
            setups.push(attributes(&c_path(path)?, 0, libc::MOUNT_ATTR_RDONLY, false));
        }
        if !self.shares_processes && own_processes().is_ok() {
            // Programs write to their own files there. Root could change settings of the system.
            setups.push(Setup::OwnProcesses { read_only: is_root });
        }
        private_devices(&mut setups);
        if let Some(private) = &self.private {
            replace(private, &mut setups)?;
        }
        self.hide(&mut setups)?;
        if self.network == Network::Loopback {
            setups.push(Setup::LoopbackUp);
        }
        setups.push(Setup::NoNewPrivileges);
        let on_processes = Refusals { limits: true, scheduling: true, sampling: true, ..Refusals::default() };
        setups.push(Setup::FilterCalls { filter: on_processes.filter(), on_processes: true });
        let families = (self.network != Network::Open).then_some(NAMESPACED);
        let others = Refusals { families, ..Refusals::of_confined() };
        setups.push(Setup::FilterCalls { filter: others.filter(), on_processes: false });
        if let Some(rules) = &self.rules {
            setups.push(Setup::Restrict(rules.try_clone()?));
        }
        setups.push(Setup::DropCapabilities(DROPPED.iter().fold(0, |mask, number| mask | 1 << number)));
        // The working directory is still the one below the mounts.
        setups.push(Setup::Enter(c_path(directory)?));
        Ok(setups)
    }

    /// Adds the steps that cover hidden paths, and that show the directory at another path.
    fn hide(&self, setups: &mut Vec<Setup>) -> Result<(), NulError> {
        for hidden in &self.hidden {
            hidden.cover(setups)?;
        }
        let is_shown = self.hidden.iter().any(|hidden| hidden.shown_at.is_some());
        if let Some((directory, place)) = self.shown_at.as_ref().filter(|_| !is_shown) {
            let flags = libc::MS_BIND | libc::MS_REC;
            setups.push(mount(&c_path(directory)?, &c_path(place)?, c"", flags, c""));
        }
        Ok(())
    }
}

/// Returns the Landlock rules of a command. Its own paths are visible in addition.
fn rules(confinement: &Confinement, visible: Option<&VisiblePaths>) -> Option<OwnedFd> {
    let own = confinement.writable.iter().chain(&confinement.readable);
    let own = own.chain(confinement.additions.iter().map(|(directory, _)| directory));
    let private = confinement.private.iter().map(|private| &private.path);
    let rules = visible.and_then(|visible| visible.rules(own.chain(private).map(PathBuf::as_path)).ok()?);
    rules.or_else(|| scope_rules(Scope::Signal | Scope::AbstractUnixSocket))
}

impl Hidden {
    /// Returns whether a path lies in this one and is not visible.
    fn covers(&self, path: &Path) -> bool {
        let inside = path.strip_prefix(&self.path);
        inside.is_ok_and(|inside| !self.visible.iter().any(|(visible, _)| inside.starts_with(visible)))
    }

    /// Adds the steps that cover the path.
    fn cover(&self, setups: &mut Vec<Setup>) -> Result<(), NulError> {
        let path = c_path(&self.path)?;
        if !self.is_directory {
            setups.push(Setup::Cover(path));
            return Ok(());
        }
        let flags = libc::MS_NOSUID | libc::MS_NODEV | libc::MS_NOEXEC;
        if self.visible.is_empty() {
            let options = c"size=4k,mode=0555";
            setups.push(mount(c"tmpfs", &path, c"tmpfs", flags | libc::MS_RDONLY, options));
            return Ok(());
        }
        // Relative paths lead to the covered directory, absolute ones to the cover.
        setups.push(Setup::Enter(path.clone()));
        setups.push(mount(c"tmpfs", &path, c"tmpfs", flags, c"size=1m,mode=0755"));
        for (visible, is_directory) in &self.visible {
            let above = visible.ancestors().skip(1).filter(|above| !above.as_os_str().is_empty());
            let mut above: Vec<&Path> = above.collect();
            above.reverse();
            for directory in above {
                let path = c_path(&self.path.join(directory))?;
                setups.push(Setup::Create { path, directory: true });
            }
            let target = c_path(&self.path.join(visible))?;
            let source = match &self.shown_at {
                // A second mount would be another file system for `rename`.
                Some((shown, place)) if shown == visible => {
                    setups.push(Setup::Link { target: c_path(&self.path.join(place))?, path: target });
                    continue;
                }
                Some((shown, place)) if place == visible => shown,
                _ => visible,
            };
            setups.push(Setup::Create { path: target.clone(), directory: *is_directory });
            setups.push(mount(&c_path(source)?, &target, c"", libc::MS_BIND | libc::MS_REC, c""));
        }
        setups.push(attributes(&path, libc::MOUNT_ATTR_RDONLY, 0, false));
        Ok(())
    }
}

/// Returns the unchanged paths that lie in writable ones. Adds the directories between the two to
/// the writable paths, since a directory on which nothing is mounted can be renamed with everything
/// in it, and takes the unchanged paths from them.
fn unchanged(confinement: &Confinement, writable: &mut BTreeSet<PathBuf>) -> BTreeSet<PathBuf> {
    let mut found = BTreeSet::new();
    for path in &confinement.unchanged {
        let Some(depth) = path.ancestors().position(|above| writable.contains(above)) else { continue };
        let between = path.ancestors().take(depth).skip(1).map(Path::to_owned);
        writable.extend(between.collect::<Vec<_>>());
        writable.remove(path);
        found.insert(path.clone());
    }
    found
}

/// Adds the steps that mount a private directory on the directory that it replaces, and that mount
/// entries of the replaced directory in it.
fn replace(private: &PrivateDir, setups: &mut Vec<Setup>) -> Result<(), NulError> {
    let original = c_path(&private.original)?;
    // Relative paths lead to the covered directory, absolute ones to the private one.
    setups.push(Setup::Enter(original.clone()));
    setups.push(mount(&c_path(&private.path)?, &original, c"", libc::MS_BIND, c""));
    for name in &private.mounted {
        let (entry, target) = (c_path(name)?, c_path(&private.original.join(name))?);
        setups.push(mount(&entry, &target, c"", libc::MS_BIND | libc::MS_REC, c""));
    }
    Ok(())
}

/// Returns the paths to cover, outer ones first. Leaves out paths that another one covers.
fn hidden(confinement: &Confinement) -> Vec<Hidden> {
    let shown: BTreeSet<&PathBuf> = confinement.writable.iter().chain(&confinement.readable).collect();
    let mut found: Vec<Hidden> = Vec::new();
    // The index of each path in `found`.
    let mut indices: HashMap<OsString, usize> = HashMap::new();
    let paths: BTreeSet<&PathBuf> = confinement.hidden.iter().chain(&confinement.covered).collect();
    for path in paths {
        let is_covered = path.ancestors().any(|above| {
            let outer = indices.get(above.as_os_str()).and_then(|index| found.get(*index));
            outer.is_some_and(|outer| outer.covers(path))
        });
        if is_covered {
            continue;
        }
        let inside = shown.range::<PathBuf, _>(path..).take_while(|shown| shown.starts_with(path));
        let mut visible: Vec<&Path> = inside.filter_map(|shown| shown.strip_prefix(path).ok()).collect();
        visible.dedup_by(|inner, outer| inner.starts_with(outer));
        let shown_at = confinement.shown_at.as_ref().and_then(|(shown, place)| {
            let (shown, place) = (shown.strip_prefix(path).ok()?, place.strip_prefix(path).ok()?);
            let both = visible.contains(&shown) && visible.contains(&place);
            both.then(|| (shown.to_owned(), place.to_owned()))
        });
        let visible = visible.into_iter().map(|inner| (inner.to_owned(), path.join(inner).is_dir()));
        let visible = visible.collect();
        indices.insert(path.as_os_str().to_owned(), found.len());
        found.push(Hidden { path: path.clone(), is_directory: path.is_dir(), visible, shown_at });
    }
    found
}

/// Adds mounts of an empty shared memory, of the queues of the namespace, and of a file system for
/// new terminals.
fn private_devices(setups: &mut Vec<Setup>) {
    let flags = libc::MS_NOSUID | libc::MS_NODEV;
    if Path::new(SHARED_MEMORY).is_dir() {
        setups.push(mount(c"tmpfs", c"/dev/shm", c"tmpfs", flags, c"mode=1777"));
    }
    if is_mount_point(Path::new(QUEUES)) {
        setups.push(mount(c"mqueue", c"/dev/mqueue", c"mqueue", flags | libc::MS_NOEXEC, c""));
    }
    if is_mount_point(Path::new(TERMINALS)) {
        let flags = libc::MS_NOSUID | libc::MS_NOEXEC;
        let options = c"newinstance,ptmxmode=0666,mode=0620";
        setups.push(mount(c"devpts", c"/dev/pts", c"devpts", flags, options));
        if is_device(Path::new("/dev/ptmx")) {
            setups.push(mount(c"/dev/pts/ptmx", c"/dev/ptmx", c"", libc::MS_BIND, c""));
        }
    }
}

fn is_mount_point(path: &Path) -> bool {
    let device = |path: &Path| fs::metadata(path).map(|metadata| metadata.dev()).ok();
    device(path).is_some() && device(path) != device(path.parent().unwrap_or(path))
}

/// Returns whether a path is a device, and not a link to one.
fn is_device(path: &Path) -> bool {
    use std::os::unix::fs::FileTypeExt;

    path.symlink_metadata().is_ok_and(|found| found.file_type().is_char_device())
}
