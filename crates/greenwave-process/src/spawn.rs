//! A builder that starts a program without copying this process's memory map.
//!
//! `fork` copies the page tables of the whole address space: half a millisecond for a process of 50
//! MB, and more for each page that is written before the child executes its program. The standard
//! library avoids that with `posix_spawn`, but only if no code must run in the child; installing a
//! seccomp filter has to. Here the child shares the memory of its parent until it executes its
//! program (`CLONE_VM | CLONE_VFORK`, as glibc's own `posix_spawn` does) and runs on a separate
//! stack.
//!
//! On systems other than Linux, [`Spawn`] is an ordinary [`Command`].

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::io;
use std::os::fd::OwnedFd;
use std::path::PathBuf;

use tokio::process::Command;

#[cfg(target_os = "linux")]
mod linux;
#[cfg(not(target_os = "linux"))]
mod portable;

#[cfg(target_os = "linux")]
pub(crate) use linux::Spawned;
#[cfg(not(target_os = "linux"))]
pub(crate) use portable::Spawned;

/// A closure that runs in the child before it executes its program.
type Setup = Box<dyn FnMut() -> io::Result<()> + Send + Sync>;

/// A builder of a process that can run code in the child before the program is executed.
pub trait BeforeExec {
    /// Adds a closure that the child runs, in the order in which closures were added. If it fails,
    /// the child is not started and the error is returned from the call that starts it.
    ///
    /// # Safety
    /// Other threads of this process may hold locks that are never released in the child, and the
    /// child may share this process's memory. The closure must therefore make only calls that
    /// `signal-safety(7)` lists, on data that was prepared before, and must not allocate or panic.
    unsafe fn before_exec(&mut self, setup: impl FnMut() -> io::Result<()> + Send + Sync + 'static);
}

impl BeforeExec for std::process::Command {
    unsafe fn before_exec(&mut self, setup: impl FnMut() -> io::Result<()> + Send + Sync + 'static) {
        use std::os::unix::process::CommandExt;

        // SAFETY: the caller upholds the contract of `BeforeExec`, which is that of `pre_exec`.
        unsafe { self.pre_exec(setup) };
    }
}

impl BeforeExec for Command {
    unsafe fn before_exec(&mut self, setup: impl FnMut() -> io::Result<()> + Send + Sync + 'static) {
        // SAFETY: the caller upholds the contract of `BeforeExec`, which is that of `pre_exec`.
        unsafe { self.pre_exec(setup) };
    }
}

/// A builder of a process for [`Child::start`](crate::Child::start).
///
/// The child gets exactly the variables that are set here, and `/dev/null` as standard input. Its
/// standard output and standard error are those of this process unless they are set.
pub struct Spawn {
    program: PathBuf,
    arguments: Vec<OsString>,
    directory: Option<PathBuf>,
    variables: Vec<(OsString, OsString)>,
    stdout: Option<OwnedFd>,
    stderr: Option<OwnedFd>,
    setups: Vec<Setup>,
}

impl Spawn {
    /// Creates a builder for the program at this path. `PATH` is not searched.
    pub fn new(program: impl Into<PathBuf>) -> Self {
        Self {
            program: program.into(),
            arguments: Vec::new(),
            directory: None,
            variables: Vec::new(),
            stdout: None,
            stderr: None,
            setups: Vec::new(),
        }
    }

    /// Adds arguments.
    pub fn args<S: AsRef<OsStr>>(&mut self, arguments: impl IntoIterator<Item = S>) -> &mut Self {
        self.arguments.extend(arguments.into_iter().map(|argument| argument.as_ref().to_owned()));
        self
    }

    /// Sets the working directory. A relative path of the program is resolved from there.
    pub fn current_dir(&mut self, directory: impl Into<PathBuf>) -> &mut Self {
        self.directory = Some(directory.into());
        self
    }

    /// Sets an environment variable, replacing an earlier value.
    pub fn env(&mut self, name: impl Into<OsString>, value: impl Into<OsString>) -> &mut Self {
        let (name, value) = (name.into(), value.into());
        match self.variables.iter_mut().find(|(set, _)| *set == name) {
            Some((_, previous)) => *previous = value,
            None => self.variables.push((name, value)),
        }
        self
    }

    /// Sets standard output.
    pub fn stdout(&mut self, stdout: impl Into<OwnedFd>) -> &mut Self {
        self.stdout = Some(stdout.into());
        self
    }

    /// Sets standard error.
    pub fn stderr(&mut self, stderr: impl Into<OwnedFd>) -> &mut Self {
        self.stderr = Some(stderr.into());
        self
    }

    /// Starts the process as the leader of a new process group.
    pub(crate) fn start(self) -> io::Result<Spawned> {
        Spawned::start(self)
    }
}

impl BeforeExec for Spawn {
    unsafe fn before_exec(&mut self, setup: impl FnMut() -> io::Result<()> + Send + Sync + 'static) {
        self.setups.push(Box::new(setup));
    }
}

impl fmt::Debug for Spawn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Spawn")
            .field("program", &self.program)
            .field("arguments", &self.arguments)
            .field("directory", &self.directory)
            .finish_non_exhaustive()
    }
}
