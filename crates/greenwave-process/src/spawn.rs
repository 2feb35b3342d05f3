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

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fmt;
use std::io;
use std::os::fd::OwnedFd;
use std::path::PathBuf;

use tokio::process::Command;

use crate::Setup;

#[cfg(target_os = "linux")]
mod linux;
#[cfg(not(target_os = "linux"))]
mod portable;

#[cfg(target_os = "linux")]
pub(crate) use linux::Spawned;
#[cfg(not(target_os = "linux"))]
pub(crate) use portable::Spawned;

/// A builder of a process whose child can change itself before it executes its program.
pub trait BeforeExec {
    /// Adds a change that the child makes to itself, after the earlier ones. If it fails, the child
    /// is not started and the error is returned from the call that starts it.
    fn before_exec(&mut self, setup: Setup);
}

impl BeforeExec for std::process::Command {
    fn before_exec(&mut self, setup: Setup) {
        use std::os::unix::process::CommandExt;

        // SAFETY: `Setup::apply` makes system calls only.
        unsafe { self.pre_exec(move || setup.apply()) };
    }
}

impl BeforeExec for Command {
    fn before_exec(&mut self, setup: Setup) {
        // SAFETY: `Setup::apply` makes system calls only.
        unsafe { self.pre_exec(move || setup.apply()) };
    }
}

/// A builder of a process for [`Child::start`](crate::Child::start).
///
/// The child gets exactly the variables that are set here. Its standard input is `/dev/null` unless
/// it is set. Its standard output and standard error are those of this process unless they are set,
/// and `/dev/null` under a supervisor.
pub struct Spawn {
    pub(crate) program: PathBuf,
    pub(crate) arguments: Vec<OsString>,
    pub(crate) directory: Option<PathBuf>,
    pub(crate) variables: Vec<(OsString, OsString)>,
    pub(crate) stdin: Option<OwnedFd>,
    pub(crate) stdout: Option<OwnedFd>,
    pub(crate) stderr: Option<OwnedFd>,
    pub(crate) setups: Vec<Setup>,
}

impl Spawn {
    /// Creates a builder for the program at this path. `PATH` is not searched.
    pub fn new(program: impl Into<PathBuf>) -> Self {
        Self {
            program: program.into(),
            arguments: Vec::new(),
            directory: None,
            variables: Vec::new(),
            stdin: None,
            stdout: None,
            stderr: None,
            setups: Vec::new(),
        }
    }

    /// Creates a builder from the program, arguments, working directory and variables of a command.
    /// `inherited` holds the variables that the command takes from its parent: none if it was
    /// cleared. The program is searched in `PATH`. Streams and closures are left out.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`](io::ErrorKind::NotFound) if the program was not found.
    pub fn from_command(
        command: &std::process::Command,
        inherited: impl IntoIterator<Item = (OsString, OsString)>,
    ) -> io::Result<Self> {
        let mut variables: BTreeMap<OsString, OsString> = inherited.into_iter().collect();
        for (name, value) in command.get_envs() {
            match value {
                Some(value) => variables.insert(name.to_owned(), value.to_owned()),
                None => variables.remove(name),
            };
        }
        let path = variables.get(OsStr::new("PATH")).map(OsString::as_os_str);
        let mut spawn = Self::new(find_program(command.get_program(), path)?);
        spawn.args(command.get_args());
        spawn.directory = command.get_current_dir().map(Into::into);
        spawn.variables = variables.into_iter().collect();
        Ok(spawn)
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

    /// Sets standard input, which is `/dev/null` by default.
    pub fn stdin(&mut self, stdin: impl Into<OwnedFd>) -> &mut Self {
        self.stdin = Some(stdin.into());
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

    /// Starts the process as the leader of a new process group, and does not track it.
    #[cfg(target_os = "linux")]
    pub(crate) fn launch(self) -> io::Result<rustix::process::Pid> {
        linux::launch(self)
    }

    /// Starts the process as the leader of a new process group.
    pub(crate) fn start(self) -> io::Result<Spawned> {
        Spawned::start(self)
    }
}

/// Search path of programs where `PATH` is not set, as in glibc.
const DEFAULT_PATH: &str = "/bin:/usr/bin";

/// Finds a program as `execvp` does.
fn find_program(program: &OsStr, path: Option<&OsStr>) -> io::Result<PathBuf> {
    if program.as_encoded_bytes().contains(&b'/') {
        return Ok(program.into());
    }
    let candidates = std::env::split_paths(path.unwrap_or(OsStr::new(DEFAULT_PATH)));
    let is_program =
        |path: &PathBuf| path.is_file() && rustix::fs::access(path, rustix::fs::Access::EXEC_OK).is_ok();
    let found = candidates.map(|directory| directory.join(program)).find(is_program);
    found.ok_or_else(|| rustix::io::Errno::NOENT.into())
}

impl BeforeExec for Spawn {
    fn before_exec(&mut self, setup: Setup) {
        self.setups.push(setup);
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
