//! Restricts which files a command can read inside a directory. The kernel enforces it, by
//! Landlock.

use std::path::{Path, PathBuf};

use greenwave_process::BeforeExec;

use crate::Error;

#[cfg_attr(not(target_os = "linux"), path = "landlock/unsupported.rs")]
mod rules;

const FACILITY: &str = "Landlock";

/// The files inside a directory that a command may read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AllowedReads {
    /// The directory inside which reading is restricted. Absolute.
    pub directory: PathBuf,
    /// Files and directories in it that may be read, directories with everything below them.
    /// Absolute, or relative to `directory`. Paths that do not exist are skipped: a file that is
    /// created there later cannot be read.
    pub paths: Vec<PathBuf>,
}

/// Landlock rules that restrict reading. They can be attached to any number of commands.
///
/// Landlock (<https://docs.kernel.org/userspace-api/landlock.html>) lets an unprivileged process
/// restrict itself and everything that it starts. Inside the directory, opening a file for reading
/// and executing a program fails with `EACCES` unless the path is allowed. This applies to static
/// programs, to child processes and to raw system calls alike.
///
/// Not restricted:
/// - Metadata, existence, and the names in directories. Landlock has no rule for them.
/// - Writing, creating and removing files.
///
/// Outside the directory, commands run as before, with three exceptions:
/// - Rules refer to files that exist. A file that is created beside the directory or beside one of
///   its ancestors, after the rules, cannot be read.
/// - Moving a file out of the directory fails with `EXDEV`, as between file systems.
/// - Nothing can be mounted.
#[derive(Debug)]
pub struct ReadRules(rules::Rules);

impl ReadRules {
    /// Tests whether this system supports the rules. It is probed once per process.
    ///
    /// # Errors
    /// [`Error::Unavailable`] with the reason. The rules require Linux 5.19 or later with Landlock
    /// enabled.
    pub fn available() -> Result<(), Error> {
        rules::available().map_err(unavailable)
    }

    /// Creates the rules.
    ///
    /// Opens each allowed path once, and every entry beside the directory and beside each of its
    /// ancestors. This takes a few microseconds per path.
    ///
    /// # Errors
    /// [`Error::Unavailable`] as for [`available`](Self::available), and [`Error::Io`] if the
    /// directory does not exist or one of its ancestors cannot be listed.
    pub fn new(allowed: &AllowedReads) -> Result<Self, Error> {
        Self::available()?;
        let directory = allowed.directory.canonicalize().map_err(Error::io("find", &allowed.directory))?;
        let mut paths = outside(&directory)?;
        paths.extend(allowed.paths.iter().map(|path| directory.join(path)));
        rules::Rules::new(&paths).map(Self).map_err(unavailable)
    }

    /// Attaches the rules to a command and everything that it starts.
    ///
    /// The command does not gain privileges from set-user-id programs.
    ///
    /// # Errors
    /// [`Error::Unavailable`] if no file descriptor is left.
    pub fn attach(&self, command: &mut impl BeforeExec) -> Result<(), Error> {
        self.0.attach(command).map_err(|error| unavailable(error.to_string()))
    }
}

fn unavailable(reason: String) -> Error {
    Error::Unavailable { facility: FACILITY, reason }
}

/// Returns the paths that together cover everything outside a directory: the siblings of the
/// directory and of each of its ancestors. Symbolic links are left out, because their targets are
/// covered by their own paths or are inside the directory.
fn outside(directory: &Path) -> Result<Vec<PathBuf>, Error> {
    let mut paths = Vec::new();
    for (below, above) in directory.ancestors().zip(directory.ancestors().skip(1)) {
        let entries = match above.read_dir() {
            // Its entries are unknown, so they cannot be allowed. The command cannot list them
            // either.
            Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => continue,
            entries => entries.map_err(Error::io("list", above))?,
        };
        for entry in entries {
            let entry = entry.map_err(Error::io("list", above))?;
            let is_link = entry.file_type().is_ok_and(|kind| kind.is_symlink());
            if entry.path() != below && !is_link {
                paths.push(entry.path());
            }
        }
    }
    Ok(paths)
}
