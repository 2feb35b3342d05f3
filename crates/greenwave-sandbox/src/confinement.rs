//! Confines a command: which files it may write, which it may not read, and which network it has.

use std::collections::HashSet;
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use greenwave_process::BeforeExec;

use crate::aliases::Mounts;
use crate::links::ResolvedPaths;
use crate::{Error, links};

mod private_dir;
#[cfg_attr(not(target_os = "linux"), path = "confinement/unsupported.rs")]
mod rules;

pub use self::private_dir::{ChangedCopy, PrivateDir};

/// The way in which the kernel enforces a [`Confinement`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Strength {
    /// A mount namespace in which everything is read-only except for the writable paths, and the
    /// hidden ones are covered. Requires `CAP_SYS_ADMIN` or unprivileged user namespaces, and Linux
    /// 5.12.
    Mount,
    /// Landlock rules. Never refuse `chmod`, `chown`, `utime` and `setxattr`, and before certain
    /// versions more: `truncate` before version 3 (Linux 6.2), `ioctl` on devices before 5 (6.10),
    /// signals and abstract Unix sockets before 6 (6.12).
    Landlock,
}

impl Strength {
    /// Returns the strength as a word for output: `mount` or `landlock`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Mount => "mount",
            Self::Landlock => "landlock",
        }
    }

    /// Tests whether this system can confine commands in this way, by confining one. Each strength
    /// is probed once per process.
    ///
    /// # Errors
    /// [`Error::Unavailable`] with the reason.
    pub fn available(self) -> Result<(), Error> {
        rules::available(self).map_err(|reason| unavailable(self, &reason))
    }

    /// Returns the stronger of the available ways.
    ///
    /// # Errors
    /// [`Error::Unavailable`] if neither is available, with the reason why Landlock is not.
    pub fn strongest() -> Result<Self, Error> {
        match Self::Mount.available() {
            Ok(()) => Ok(Self::Mount),
            Err(_) => Self::Landlock.available().map(|()| Self::Landlock),
        }
    }
}

/// The network of a confined command.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Network {
    /// The network of this process.
    #[default]
    Open,
    /// A loopback interface that only the command and what it starts can reach. Requires
    /// [`Strength::Mount`].
    Loopback,
    /// None. Unix sockets remain.
    None,
}

/// Returns the version of Landlock in the kernel, from 1. `None` without Landlock.
#[must_use]
pub fn landlock_version() -> Option<u32> {
    rules::landlock_version()
}

/// Tests whether commands that a [`Supervisor`](greenwave_process::Supervisor) starts under
/// [`Strength::Mount`] see and reach their own processes only. It is probed once per process.
///
/// # Errors
/// [`Error::Unavailable`] with the reason: a container may have covered parts of `/proc`, or the
/// system may forbid namespaces of processes.
pub fn own_processes() -> Result<(), Error> {
    let unavailable = |reason| Error::Unavailable { facility: "a view of own processes only", reason };
    rules::own_processes().map_err(unavailable)
}

/// Paths that a command may write or may not read, and its network. Without any path, it may read
/// everything and write nothing but the usual devices.
///
/// ```
/// use std::process::Command;
///
/// use greenwave_sandbox::{Confinement, Strength};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let Ok(strength) = Strength::strongest() else { return Ok(()) };
/// let directory = std::env::temp_dir();
/// let mut command = Command::new("sh");
/// command.args(["-c", "! touch /refused"]).current_dir(&directory);
/// Confinement::new().writable(&directory).prepare(strength)?.attach(&mut command, &directory)?;
/// assert!(command.status()?.success());
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Confinement {
    writable: Vec<PathBuf>,
    /// Directories with the start of the names that may be changed in them.
    additions: Vec<(PathBuf, OsString)>,
    hidden: Vec<PathBuf>,
    /// Hidden paths that do not exist, below directories that do. Set by `resolve`.
    absent: Vec<PathBuf>,
    covered: Vec<PathBuf>,
    readable: Vec<PathBuf>,
    /// Paths in writable ones that are read-only.
    unchanged: Vec<PathBuf>,
    /// Directory whose place a private one takes, with the names of files that are copied to it.
    replaced: Option<(PathBuf, Vec<OsString>)>,
    private: Option<PrivateDir>,
    /// A directory, and the second path at which it is visible.
    shown_at: Option<(PathBuf, PathBuf)>,
    network: Network,
    shares_processes: bool,
}

impl Confinement {
    /// Creates a confinement that permits no writing, hides nothing and leaves the network open.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Permits writing to a file, or to a directory with everything below it. A path that does not
    /// exist when the command starts is skipped, and so is a symbolic link in a writable directory:
    /// an earlier command may have put it there.
    #[must_use]
    pub fn writable(mut self, path: impl Into<PathBuf>) -> Self {
        self.writable.push(path.into());
        self
    }

    /// Permits creating regular files in a directory, and changing files whose names begin with
    /// `prefix`. Only the first such directory counts. Nothing can be removed or renamed there, and
    /// other entries that exist when the command starts stay as they are, unless they are
    /// [writable](Self::writable).
    ///
    /// [`Strength::Landlock`] permits only names that begin with `prefix`, and
    /// [`Strength::Mount`] no other names that begin with a dot. This process opens the files for
    /// the command, which costs the command 5 to 10 microseconds for each file that it opens, or
    /// under [`Strength::Mount`] that it opens for writing. A [`Tracer`](crate::Tracer) cannot be
    /// attached then.
    #[must_use]
    pub fn additions_in(mut self, directory: impl Into<PathBuf>, prefix: impl Into<OsString>) -> Self {
        self.additions.push((directory.into(), prefix.into()));
        self
    }

    /// Hides a file, or a directory with everything below it: the command cannot read it. Writable
    /// and [readable](Self::readable) paths inside remain visible.
    ///
    /// With Landlock, the entries beside a hidden path and beside each of its ancestors are
    /// permitted one by one: a file that is created there later, and one that replaces another,
    /// cannot be read. That holds for paths as well that do not exist yet, unless they lie in a
    /// writable one. Names remain visible under [`Strength::Landlock`].
    #[must_use]
    pub fn hidden(mut self, path: impl Into<PathBuf>) -> Self {
        self.hidden.push(path.into());
        self
    }

    /// Hides a path under [`Strength::Mount`] only, without an effect on files that are created
    /// beside it: for sockets, whose use Landlock does not restrict. A path that does not exist is
    /// skipped.
    #[must_use]
    pub fn covered(mut self, path: impl Into<PathBuf>) -> Self {
        self.covered.push(path.into());
        self
    }

    /// Permits reading a path that is [hidden](Self::hidden), or in a hidden directory.
    #[must_use]
    pub fn readable(mut self, path: impl Into<PathBuf>) -> Self {
        self.readable.push(path.into());
        self
    }

    /// Forbids changing, removing and replacing a file, or a directory with everything below it,
    /// that is [writable](Self::writable) or lies in a writable path. Only under
    /// [`Strength::Mount`]: Landlock cannot take a right back.
    ///
    /// A path that does not exist when the command starts is skipped, and so is a symbolic link.
    /// The protection ends when somebody outside replaces the file by renaming another.
    #[must_use]
    pub fn unchanged(mut self, path: impl Into<PathBuf>) -> Self {
        self.unchanged.push(path.into());
        self
    }

    /// Has each command see a [private directory](PrivateDir) in the place of one: for the home
    /// directory, in which programs replace files by renaming others. Files with the names in
    /// `copied` may be changed. Only under [`Strength::Mount`], and with
    /// [`Sandbox::private_dir`](crate::Sandbox::private_dir).
    #[must_use]
    pub fn private_in(mut self, directory: impl Into<PathBuf>, copied: Vec<OsString>) -> Self {
        self.replaced = Some((directory.into(), copied));
        self
    }

    /// Returns the directory of [`private_in`](Self::private_in) with its files.
    pub(crate) fn replaced_directory(&self) -> Option<&(PathBuf, Vec<OsString>)> {
        self.replaced.as_ref()
    }

    /// Returns the hidden paths that a private directory leaves out. Those with a visible path
    /// inside, such as the working directory of the command, cannot be left out.
    pub(crate) fn left_out(&self, directory: &Path) -> Vec<PathBuf> {
        let resolved = self.resolve();
        let directory = directory.canonicalize().ok();
        let shown: Vec<PathBuf> =
            resolved.writable.into_iter().chain(resolved.readable).chain(directory).collect();
        let hidden = resolved.hidden.into_iter().chain(resolved.absent);
        hidden.filter(|path| !shown.iter().any(|shown| shown.starts_with(path))).collect()
    }

    /// Shows a directory at an empty one as well, under [`Strength::Mount`].
    pub(crate) fn shown_at(mut self, directory: &Path, place: &Path) -> Self {
        self.shown_at = Some((directory.to_owned(), place.to_owned()));
        self
    }

    /// Sets the private directory of a command.
    pub(crate) fn with_private(mut self, private: &PrivateDir) -> Self {
        self.private = Some(private.clone());
        self
    }

    /// Sets the network, which is open by default.
    #[must_use]
    pub fn network(mut self, network: Network) -> Self {
        self.network = network;
        self
    }

    /// Gives the command the processes and process numbers of this process, even if it could have
    /// [its own](own_processes): for programs that keep locks or files with process numbers where
    /// other programs read them.
    #[must_use]
    pub fn shared_processes(mut self) -> Self {
        self.shares_processes = true;
        self
    }

    /// Returns the network.
    pub(crate) fn restricted_network(&self) -> Network {
        self.network
    }

    /// Prepares the confinement for one or more commands. Paths are resolved now.
    ///
    /// # Errors
    /// [`Error::Unavailable`] if the strength is not available or cannot enforce the network, and
    /// [`Error::Io`] if a directory beside a hidden path cannot be listed.
    pub fn prepare(&self, strength: Strength) -> Result<PreparedConfinement, Error> {
        self.prepare_with(strength, &VisibleCache::default(), self)
    }

    /// Prepares the confinement of a command that can read the paths of this confinement in
    /// addition to those of `base`, which are cached.
    pub(crate) fn prepare_with(
        &self,
        strength: Strength,
        cache: &VisibleCache,
        base: &Self,
    ) -> Result<PreparedConfinement, Error> {
        strength.available()?;
        let visible = || cache.of(base).as_ref().ok();
        rules::Rules::new(&self.resolve(), strength, visible).map(PreparedConfinement)
    }

    /// Resolves symbolic links, and drops paths that do not exist or need no rule.
    pub(crate) fn resolve(&self) -> Self {
        // The paths share most of their directories.
        let links = ResolvedPaths::default();
        let existing = |paths: &[PathBuf]| -> Vec<PathBuf> {
            let mut paths: Vec<_> = paths.iter().filter_map(|path| links.resolve(path)).collect();
            paths.sort();
            paths.dedup();
            paths
        };
        let (all, mut hidden) = (existing(&self.writable), existing(&self.hidden));
        let replaceable = Replaceable { writable: names(&all), hidden: names(&hidden), links: &links };
        let mut writable = existing(&replaceable.without(&self.writable));
        let readable = existing(&replaceable.without(&self.readable));
        let mut additions = Vec::new();
        for (directory, prefix) in &self.additions {
            let Ok(directory) = directory.canonicalize() else { continue };
            for entry in directory.read_dir().into_iter().flatten().flatten() {
                let is_own = entry.file_name().as_encoded_bytes().starts_with(prefix.as_encoded_bytes());
                let is_link = entry.file_type().is_ok_and(|kind| kind.is_symlink());
                if is_own && !is_link {
                    writable.push(entry.path());
                }
            }
            additions.push((directory, prefix.clone()));
        }
        let shown = names(readable.iter().chain(&writable));
        let is_shown = |path: &PathBuf| shown.contains(path.as_os_str());
        hidden.retain(|path| !is_shown(path));
        let unchanged = self.unchanged.iter().filter_map(|path| unlinked(path, &links)).collect();
        let mounts = Mounts::now();
        let mut hidden = mounts.with_aliases(hidden);
        let mut covered = mounts.with_aliases(existing(&self.covered));
        hidden.retain(|path| !is_shown(path));
        covered.retain(|path| !is_shown(path));
        let absent: Vec<PathBuf> = self.hidden.iter().filter_map(|path| first_absent(path, &links)).collect();
        let mut absent = mounts.with_aliases(absent);
        let in_writable = names(&writable);
        absent.retain(|path| !path.ancestors().any(|above| in_writable.contains(above.as_os_str())));
        Self {
            writable,
            additions,
            hidden,
            absent,
            covered,
            readable,
            unchanged,
            replaced: None,
            private: self.private.clone(),
            shown_at: self.shown_at.as_ref().and_then(|(directory, place)| {
                Some((directory.canonicalize().ok()?, place.canonicalize().ok()?))
            }),
            network: self.network,
            shares_processes: self.shares_processes,
        }
    }
}

/// Paths that an earlier command may have replaced by a link, because they lie in a writable
/// directory.
struct Replaceable<'a> {
    /// Resolved.
    writable: HashSet<&'a OsStr>,
    /// Resolved.
    hidden: HashSet<&'a OsStr>,
    links: &'a ResolvedPaths,
}

impl Replaceable<'_> {
    /// Returns the paths without those that commands can lead elsewhere. Nothing is lost: a path in
    /// a writable directory is writable and readable, unless it lies in a hidden one.
    fn without(&self, paths: &[PathBuf]) -> Vec<PathBuf> {
        paths.iter().filter(|path| !self.is_led_by_commands(path)).cloned().collect()
    }

    fn is_led_by_commands(&self, path: &Path) -> bool {
        let leads = |at: &Path| {
            let nearest = |set: &HashSet<&OsStr>, from: usize| {
                let above = at.ancestors().skip(from).position(|above| set.contains(above.as_os_str()));
                above.map(|distance| distance + from)
            };
            let hidden = nearest(&self.hidden, 0);
            let writable = nearest(&self.writable, 1);
            writable.is_some_and(|writable| hidden.is_none_or(|hidden| hidden > writable))
        };
        let is_linked = || links::on_path(path).iter().any(|link| leads(link));
        let resolved = self.links.resolve(path);
        resolved.is_some_and(|resolved| leads(&resolved) || resolved != path && is_linked())
    }
}

/// Returns the resolved paths as a set in which a path is found without comparing it with all.
fn names<'a>(paths: impl IntoIterator<Item = &'a PathBuf>) -> HashSet<&'a OsStr> {
    paths.into_iter().map(|path| path.as_os_str()).collect()
}

/// Returns a path whose directory is resolved. `None` if it does not exist or is a symbolic link.
fn unlinked(path: &Path, links: &ResolvedPaths) -> Option<PathBuf> {
    // A slash at the end would follow the link.
    let path: PathBuf = path.components().collect();
    let unlinked = links.resolve(path.parent()?)?.join(path.file_name()?);
    (links.resolve(&path)? == unlinked).then_some(unlinked)
}

/// Returns the first part of a path that does not exist, in its resolved directory. `None` if the
/// path exists.
fn first_absent(path: &Path, links: &ResolvedPaths) -> Option<PathBuf> {
    let (mut below, mut above) = (path, path.parent()?);
    if !links.is_absent(path) {
        return None;
    }
    loop {
        match links.resolve(above) {
            Some(directory) => return Some(directory.join(below.file_name()?)),
            None => (below, above) = (above, above.parent()?),
        }
    }
}

/// The paths that commands of one sandbox can read under [`Strength::Mount`], found when the first
/// command starts.
#[derive(Debug, Clone, Default)]
pub(crate) struct VisibleCache(Arc<OnceLock<Result<rules::VisiblePaths, String>>>);

impl VisibleCache {
    fn of(&self, base: &Confinement) -> &Result<rules::VisiblePaths, String> {
        self.0.get_or_init(|| rules::VisiblePaths::new(&base.resolve()))
    }

    /// Returns the reason why commands can read more than these paths.
    pub(crate) fn problem(&self, base: &Confinement) -> Option<String> {
        self.of(base).as_ref().err().cloned()
    }
}

impl PartialEq for VisibleCache {
    /// The content follows from the confinement.
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Eq for VisibleCache {}

/// A confinement that can be attached to commands.
#[derive(Debug)]
pub struct PreparedConfinement(rules::Rules);

impl PreparedConfinement {
    /// Attaches the confinement to a command and everything that it starts. `directory` is its
    /// working directory. Attach a [`Tracer`](crate::Tracer) after this.
    ///
    /// The command does not gain privileges from set-user-id programs.
    ///
    /// # Errors
    /// [`Error::Unavailable`] if no file descriptor is left or the path contains a zero byte.
    pub fn attach(&self, command: &mut impl BeforeExec, directory: &Path) -> Result<(), Error> {
        self.0.attach(command, directory)
    }
}

fn unavailable(strength: Strength, reason: &dyn ToString) -> Error {
    let facility = match strength {
        Strength::Mount => "confinement by mounts",
        Strength::Landlock => "confinement by Landlock",
    };
    Error::Unavailable { facility, reason: reason.to_string() }
}
