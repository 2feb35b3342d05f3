//! Protects directories from a command that may otherwise do what its user may.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use greenwave_process::BeforeExec;

use crate::aliases::Mounts;
use crate::{Error, Strength, links};

#[cfg_attr(not(target_os = "linux"), path = "guard/unsupported.rs")]
mod rules;

/// Directories that a command, and everything that it starts, must not read or change. The command
/// cannot read the memory of processes outside of it either.
///
/// Unlike a [`Confinement`](crate::Confinement), a guard leaves everything else as it is. What it
/// costs the command depends on how the kernel enforces it:
///
/// - Landlock (Linux 5.19): the command cannot mount, and cannot use new entries of directories
///   that contain a protected one, such as a new file directly in the home directory. Restricting a
///   command takes about 20 microseconds.
/// - A mount namespace, where a protected directory lies in one that commands create files in: the
///   command has no capability that would undo the mounts, and `rename(2)` fails with `EXDEV`
///   between the inside and the outside of a directory that contains a protected one.
///
/// In both cases it does not gain privileges from set-user-id programs.
///
/// ```
/// use std::process::Command;
///
/// use greenwave_sandbox::Guard;
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let directory = tempfile::tempdir()?;
/// let secret = directory.path().join("secret");
/// std::fs::create_dir(&secret)?;
/// std::fs::write(secret.join("key"), "1234")?;
/// # let Ok(guard) = Guard::new().hidden(&secret).prepare(&[directory.path()]) else { return Ok(()) };
/// let mut command = Command::new("sh");
/// command.args(["-c", "! cat secret/key && touch file"]).current_dir(&directory);
/// guard.attach(&mut command, directory.path())?;
/// assert!(command.status()?.success());
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Guard {
    hidden: Vec<PathBuf>,
    read_only: Vec<PathBuf>,
    writable: Vec<PathBuf>,
    /// Symbolic links through which the paths of protected directories lead. Set by `prepare`.
    links: Vec<PathBuf>,
}

impl Guard {
    /// Creates a guard that protects nothing.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Protects a directory from being read and changed. One that does not exist is skipped.
    #[must_use]
    pub fn hidden(mut self, directory: impl Into<PathBuf>) -> Self {
        self.hidden.push(directory.into());
        self
    }

    /// Protects a directory from being changed. One that does not exist is skipped.
    #[must_use]
    pub fn read_only(mut self, directory: impl Into<PathBuf>) -> Self {
        self.read_only.push(directory.into());
        self
    }

    /// Permits changes in a directory inside of a read-only one. One that does not exist is
    /// skipped.
    #[must_use]
    pub fn writable(mut self, directory: impl Into<PathBuf>) -> Self {
        self.writable.push(directory.into());
        self
    }

    /// Prepares the guard for one or more commands. Paths are resolved now. `open` are directories
    /// in which commands create files, such as the project and the directory of temporary files.
    ///
    /// Symbolic links on the paths of protected directories are protected as well, so that no
    /// command can lead the path elsewhere. That requires Landlock.
    ///
    /// # Errors
    /// [`Error::Unavailable`] with the reason if the kernel cannot enforce the guard, or if such a
    /// link lies in an open directory.
    pub fn prepare(&self, open: &[&Path]) -> Result<PreparedGuard, Error> {
        let resolved = |paths: &[PathBuf]| -> Vec<PathBuf> {
            let paths = paths.iter().filter_map(|path| path.canonicalize().ok());
            paths.filter(|path| path.is_dir()).collect()
        };
        let mounts = Mounts::now();
        let all = |paths: &[PathBuf]| {
            let mut paths = mounts.with_aliases(resolved(paths));
            paths.retain(|path| path.is_dir());
            paths
        };
        let guard = Self {
            hidden: all(&self.hidden),
            read_only: all(&self.read_only),
            writable: resolved(&self.writable),
            links: self.hidden.iter().chain(&self.read_only).flat_map(|path| links::on_path(path)).collect(),
        };
        rules::Rules::new(&guard, open).map(PreparedGuard)
    }

    /// Returns whether a protected directory lies in one of these.
    #[cfg_attr(not(target_os = "linux"), expect(dead_code, reason = "used by the implementation for Linux"))]
    fn is_inside(&self, open: &[&Path]) -> bool {
        self.hidden.iter().chain(&self.read_only).any(|path| lies_in(path, open))
    }

    /// Returns a link that lies in one of these.
    #[cfg_attr(not(target_os = "linux"), expect(dead_code, reason = "used by the implementation for Linux"))]
    fn link_in(&self, open: &[&Path]) -> Option<&Path> {
        self.links.iter().find(|link| lies_in(link, open)).map(PathBuf::as_path)
    }
}

/// Returns whether a resolved path lies in one of these directories.
fn lies_in(path: &Path, open: &[&Path]) -> bool {
    open.iter().filter_map(|open| open.canonicalize().ok()).any(|open| path.starts_with(open))
}

/// A guard that is prepared when the first command needs it.
#[derive(Debug)]
pub struct LazyGuard {
    guard: Guard,
    open: Vec<PathBuf>,
    prepared: OnceLock<Result<PreparedGuard, Error>>,
}

impl LazyGuard {
    /// Creates a guard for [`Guard::prepare`] with these arguments.
    #[must_use]
    pub fn new(guard: Guard, open: Vec<PathBuf>) -> Self {
        Self { guard, open, prepared: OnceLock::new() }
    }

    /// Returns the prepared guard.
    ///
    /// # Errors
    /// [`Error::Unavailable`] with the reason if the kernel cannot enforce the guard.
    pub fn get(&self) -> Result<&PreparedGuard, &Error> {
        let prepare = || {
            let open: Vec<&Path> = self.open.iter().map(PathBuf::as_path).collect();
            self.guard.prepare(&open)
        };
        self.prepared.get_or_init(prepare).as_ref()
    }

    /// Returns the reason why commands ran without the guard, if they did.
    #[must_use]
    pub fn problem(&self) -> Option<&Error> {
        self.prepared.get()?.as_ref().err()
    }
}

/// A guard that can be attached to commands.
#[derive(Debug)]
pub struct PreparedGuard(rules::Rules);

impl PreparedGuard {
    /// Returns the way in which the kernel enforces the guard.
    #[must_use]
    pub fn strength(&self) -> Strength {
        self.0.strength()
    }

    /// Attaches the guard to a command. `directory` is its working directory. Attach a
    /// [`Tracer`](crate::Tracer) after this.
    ///
    /// # Errors
    /// [`Error::Unavailable`] if no file descriptor is left or the path contains a zero byte.
    pub fn attach(&self, command: &mut impl BeforeExec, directory: &Path) -> Result<(), Error> {
        self.0.attach(command, directory)
    }
}
