//! A process that starts children and survives the process that asked for them.
//!
//! # Processes
//! The supervisor is a process without a terminal. For each child that runs it has a *reaper*: a
//! fork of itself that starts the child, adopts every orphan below it (`PR_SET_CHILD_SUBREAPER`)
//! and holds one end of a socket. This process holds the other end. When it closes that end, or
//! ends in any way, the reaper kills everything below it. Sessions, double forks and cleared
//! environments make no difference: all descendants of a child stay below its reaper. Reapers are
//! used again, so that a child costs one message and no additional fork.
//!
//! A child with [`Setup::OwnProcesses`](crate::Setup::OwnProcesses) runs in a namespace of
//! processes. Its first process is a fork of the reaper, which serves the child in the reaper's
//! place. The child does not see the reaper, the supervisor and this process.
//!
//! If a reaper is killed, the supervisor adopts its descendants and kills them.

use std::ffi::OsString;
use std::io;
use std::process::Command;

use crate::Spawn;

#[cfg(target_os = "linux")]
mod client;
#[cfg(target_os = "linux")]
mod descendants;
#[cfg(target_os = "linux")]
mod events;
#[cfg(target_os = "linux")]
mod init;
#[cfg(target_os = "linux")]
mod lease;
#[cfg(target_os = "linux")]
mod reaper;
#[cfg(target_os = "linux")]
mod server;
#[cfg(target_os = "linux")]
mod wire;

#[cfg(target_os = "linux")]
pub use init::probe_own_processes;
#[cfg(target_os = "linux")]
pub(crate) use lease::{ReaperSocket, Supervised, kill, terminate};

/// A supervisor of child processes: after this process ends in any way, `SIGKILL` included, all of
/// its children and their descendants are killed.
///
/// Clones refer to one supervisor. It is started when the first child is, and ends with the last
/// clone, whose `drop` waits up to a second for it.
///
/// On systems other than Linux it does nothing: children are started as without one.
#[derive(Debug, Clone)]
pub struct Supervisor {
    #[cfg(target_os = "linux")]
    client: std::sync::Arc<client::Client>,
    inherited: std::sync::Arc<[(OsString, OsString)]>,
}

impl Supervisor {
    /// Creates a supervisor that `command` starts: a program that calls [`supervise`] before
    /// anything else, usually this program with a special argument.
    ///
    /// The command's standard streams are replaced. Children do not inherit its environment.
    #[must_use]
    pub fn new(command: Command) -> Self {
        #[cfg(not(target_os = "linux"))]
        drop(command);
        Self {
            #[cfg(target_os = "linux")]
            client: std::sync::Arc::new(client::Client::new(command)),
            inherited: [].into(),
        }
    }

    /// Sets the environment variables of this process, which a [`Command`] passes on to its child
    /// unless it sets or removes them. See [`Child::spawn_piped`](crate::Child::spawn_piped).
    #[must_use]
    pub fn inheriting(self, variables: impl IntoIterator<Item = (OsString, OsString)>) -> Self {
        Self { inherited: variables.into_iter().collect(), ..self }
    }

    /// Creates a builder from the program, arguments, working directory and variables of a command,
    /// for a child of this supervisor. Variables that the command does not set are those that the
    /// supervisor [inherits](Self::inheriting). Streams and closures are left out.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`](io::ErrorKind::NotFound) if there is no such program.
    pub fn spawn(&self, command: &tokio::process::Command) -> io::Result<Spawn> {
        Spawn::from_command(command.as_std(), self.inherited())
    }

    pub(crate) fn inherited(&self) -> impl Iterator<Item = (OsString, OsString)> {
        self.inherited.iter().cloned()
    }
}

/// Serves as the supervisor of the process at the other end of the socket on standard input, until
/// that process ends. Call it from `main` before any thread is started.
///
/// # Errors
/// Fails if standard input is not a socket, or if the system is out of processes or descriptors.
pub fn supervise() -> io::Result<()> {
    #[cfg(target_os = "linux")]
    return server::serve();
    #[cfg(not(target_os = "linux"))]
    Err(io::ErrorKind::Unsupported.into())
}
