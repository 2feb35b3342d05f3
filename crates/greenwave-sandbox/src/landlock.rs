//! Commands that cannot read what they were not allowed to: enforced by the kernel. Knows nothing of tests or of what is allowed why.
//!
//! The means is Landlock (<https://docs.kernel.org/userspace-api/landlock.html>), which a process can put on itself and on what it starts
//! without privileges. What it enforces:
//! - Opening a file for reading, and executing one, fails with `EACCES` inside the project unless it was allowed, whoever tries: a
//!   static program, a subprocess, a raw system call.
//! - Outside the project nothing changes, with three exceptions. What appears later, beside the project or beside one of the folders above
//!   it, cannot be read: rules are about what is there. Moving files from inside the project to outside fails with `EXDEV`, as between
//!   file systems. And nothing can be mounted.
//!
//! What it does not: whether a file is there, its size and times can be asked for as before, and so can the names in a folder; no rule of
//! Landlock is about that. Writing is not restricted: a test that changes its own inputs is found out by comparing them, and with rules that
//! are always about everything below a folder, new files beside the project would be forbidden as well.

use std::path::{Path, PathBuf};

use greenwave_process::BeforeExec;

use crate::Error;

#[cfg(target_os = "linux")]
use linux as platform;

const WHAT: &str = "keeping tests from reading undeclared files";

/// The files below a directory that a command may read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AllowedReads {
    /// The directory inside which reading is restricted. Absolute.
    pub directory: PathBuf,
    /// Files and directories below it that may be read, directories with everything in them. Absolute, or
    /// relative to `directory`. Paths that do not exist are skipped.
    pub paths: Vec<PathBuf>,
}

/// Rules for commands, made once and put on any number of them.
#[derive(Debug)]
pub struct ReadRules(platform::Rules);

impl ReadRules {
    /// Whether rules can be put on commands here. Tried out once in the life of this process.
    ///
    /// # Errors
    /// [`Error::Unavailable`] with the reason: another system than Linux 5.19 or later, or Landlock not switched on.
    pub fn available() -> Result<(), Error> {
        platform::available().map_err(unavailable)
    }

    /// Makes rules. It opens every allowed path once, and everything beside the project and the folders above it: microseconds each.
    ///
    /// # Errors
    /// [`Error::Unavailable`] as [`available`](Self::available), and [`Error::Io`] with what cannot be opened.
    pub fn new(allowed: &AllowedReads) -> Result<Self, Error> {
        Self::available()?;
        let directory = allowed.directory.canonicalize().map_err(Error::io("find", &allowed.directory))?;
        let mut paths = beside(&directory)?;
        paths.extend(allowed.paths.iter().map(|path| directory.join(path)));
        platform::Rules::new(&paths).map(Self)
    }

    /// Puts the rules on a command and everything it will start. A program that gains rights by being started (set-user-id) does not gain
    /// them.
    ///
    /// # Errors
    /// [`Error::Unavailable`] if there is no descriptor left.
    pub fn attach(&self, command: &mut impl BeforeExec) -> Result<(), Error> {
        self.0.attach(command).map_err(|error| unavailable(error.to_string()))
    }
}

fn unavailable(reason: String) -> Error {
    Error::Unavailable { what: WHAT, reason }
}

/// Everything that is beside a folder or beside one of those above it, but for symbolic links: what they lead to is in the list by its own
/// name, or inside the folder.
fn beside(folder: &Path) -> Result<Vec<PathBuf>, Error> {
    let mut paths = Vec::new();
    for (below, above) in folder.ancestors().zip(folder.ancestors().skip(1)) {
        let names = match above.read_dir() {
            // Nor can the command list it, or we could: what it may reach by name is not known.
            Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => continue,
            names => names.map_err(Error::io("list", above))?,
        };
        for entry in names {
            let entry = entry.map_err(Error::io("list", above))?;
            let is_link = entry.file_type().is_ok_and(|kind| kind.is_symlink());
            if entry.path() != below && !is_link {
                paths.push(entry.path());
            }
        }
    }
    Ok(paths)
}

#[cfg(target_os = "linux")]
mod linux {
    //! Rules of Landlock.

    use std::io;
    use std::os::fd::{AsRawFd, OwnedFd};
    use std::path::PathBuf;
    use std::sync::OnceLock;

    use greenwave_process::BeforeExec;
    use landlock::{
        AccessFs, BitFlags, CompatLevel, Compatible, PathBeneath, PathFd, Ruleset, RulesetAttr,
        RulesetCreated, RulesetCreatedAttr, RulesetError,
    };

    use super::unavailable;
    use crate::Error;

    /// What rules are about. Without the last, files could not be moved between folders at all.
    fn governed() -> BitFlags<AccessFs> {
        AccessFs::ReadFile | AccessFs::Execute | AccessFs::Refer
    }

    /// A rule set, as the kernel holds it.
    #[derive(Debug)]
    pub(super) struct Rules(OwnedFd);

    impl Rules {
        pub(super) fn new(paths: &[PathBuf]) -> Result<Self, Error> {
            let failed = |error: RulesetError| unavailable(error.to_string());
            let mut rules = empty().map_err(failed)?;
            // Moving and linking is allowed everywhere, as long as it gains nobody a right.
            let root = PathFd::new("/").map_err(|error| unavailable(error.to_string()))?;
            rules = rules.add_rule(PathBeneath::new(root, AccessFs::Refer)).map_err(failed)?;
            for path in paths {
                // What cannot be opened even as a name cannot be read either.
                let Ok(file) = PathFd::new(path) else { continue };
                let rule = PathBeneath::new(file, AccessFs::ReadFile | AccessFs::Execute);
                rules = rules.add_rule(rule).map_err(failed)?;
            }
            descriptor(rules).map(Self).map_err(unavailable)
        }

        pub(super) fn attach(&self, command: &mut impl BeforeExec) -> io::Result<()> {
            let rules = self.0.try_clone()?;
            // SAFETY: the closure makes system calls only: it is safe between fork and exec.
            unsafe {
                command.before_exec(move || restrict(&rules));
            }
            Ok(())
        }
    }

    pub(super) fn available() -> Result<(), String> {
        static AVAILABLE: OnceLock<Result<(), String>> = OnceLock::new();
        AVAILABLE.get_or_init(try_out).clone()
    }

    fn try_out() -> Result<(), String> {
        let rules = descriptor(empty().map_err(|error| format!("Landlock is not there: {error}"))?)?;
        // Rules are their thread's for good, so a thread is given up for it.
        let thread = std::thread::Builder::new().name("greenwave-strict-trial".to_owned());
        let trial = thread.spawn(move || restrict(&rules)).map_err(|error| error.to_string())?;
        match trial.join() {
            Ok(tried) => tried.map_err(|error| format!("Landlock cannot be used: {error}")),
            Err(_) => Err("trying it out failed".to_owned()),
        }
    }

    fn empty() -> Result<RulesetCreated, RulesetError> {
        Ruleset::default().set_compatibility(CompatLevel::HardRequirement).handle_access(governed())?.create()
    }

    fn descriptor(rules: RulesetCreated) -> Result<OwnedFd, String> {
        Option::from(rules).ok_or_else(|| "Landlock is not there".to_owned())
    }

    /// Puts rules on the calling thread and whatever it starts. Allocates nothing.
    fn restrict(rules: &OwnedFd) -> io::Result<()> {
        // SAFETY: both calls take numbers only.
        let restricted = unsafe {
            libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0
                && libc::syscall(libc::SYS_landlock_restrict_self, rules.as_raw_fd(), 0) == 0
        };
        if restricted { Ok(()) } else { Err(io::Error::last_os_error()) }
    }
}

#[cfg(not(target_os = "linux"))]
mod platform {
    //! No rules.

    use std::path::PathBuf;

    use greenwave_process::BeforeExec;

    use crate::Error;

    /// Never made.
    #[derive(Debug)]
    pub(super) enum Rules {}

    impl Rules {
        pub(super) fn new(_: &[PathBuf]) -> Result<Self, Error> {
            Err(super::unavailable("it takes Linux".to_owned()))
        }

        pub(super) fn attach(&self, _: &mut impl BeforeExec) -> std::io::Result<()> {
            match *self {}
        }
    }

    pub(super) fn available() -> Result<(), String> {
        Err("it takes Linux".to_owned())
    }
}
