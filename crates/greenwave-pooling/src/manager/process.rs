//! Child processes, each in a process group of its own that is killed as one. Knows nothing of what they run.

use std::fmt;
use std::io;
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;

use async_trait::async_trait;
use parking_lot::Mutex;
use rustix::process::{Pid, Signal, kill_process_group};
use tokio::process::{ChildStderr, ChildStdin, ChildStdout, Command};

use crate::manager::Manager;

/// A child process together with its descendants, as one process group. Dropping it kills the group, and does not wait.
///
/// When the child itself has exited, what is left of its group is killed as well. A descendant that makes a group or session of its own
/// escapes; so does everything when this process is killed with `SIGKILL`.
#[derive(Debug)]
pub struct Child {
    child: tokio::process::Child,
    group: ProcessGroup,
}

impl Child {
    /// Starts `command` in a process group of its own. Its standard streams are as the command says.
    ///
    /// # Errors
    /// As [`Command::spawn`]: the program is not there, may not be run, or there are too many processes.
    ///
    /// # Panics
    /// Outside a tokio runtime with I/O enabled.
    pub fn spawn(command: &mut Command) -> io::Result<Self> {
        // tokio's own kill reaches the leader only; it is kept since it also has the leader reaped.
        let child = command.process_group(0).kill_on_drop(true).spawn()?;
        let leader = child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
        Ok(Self { child, group: ProcessGroup { leader: Arc::new(Mutex::new(leader)) } })
    }

    /// The process id, which is the id of the group too; `None` once the child has exited and that was seen.
    #[must_use]
    pub fn id(&self) -> Option<u32> {
        self.child.id()
    }

    /// The group, to kill it from elsewhere.
    #[must_use]
    pub fn group(&self) -> ProcessGroup {
        self.group.clone()
    }

    /// Kills the whole group. Once the child has exited, nothing is left to kill.
    ///
    /// # Errors
    /// If the system refuses, as it does when the child has taken another user's identity.
    pub fn kill_group(&self) -> io::Result<()> {
        self.group.kill()
    }

    /// Waits until the child exits, then kills what is left of its group. May be cancelled and called again.
    ///
    /// Its standard input is closed first, if it was not taken, so that a child that reads to the end does not wait for ever.
    ///
    /// # Errors
    /// If the system cannot tell.
    pub async fn wait(&mut self) -> io::Result<ExitStatus> {
        let status = self.child.wait().await?;
        self.group.end();
        Ok(status)
    }

    /// The exit status, if the child has exited; then what is left of its group is killed.
    ///
    /// # Errors
    /// If the system cannot tell.
    pub fn try_wait(&mut self) -> io::Result<Option<ExitStatus>> {
        let status = self.child.try_wait()?;
        if status.is_some() {
            self.group.end();
        }
        Ok(status)
    }

    /// Its standard input, if piped and not taken.
    pub fn stdin(&mut self) -> Option<&mut ChildStdin> {
        self.child.stdin.as_mut()
    }

    /// Its standard output, if piped and not taken.
    pub fn stdout(&mut self) -> Option<&mut ChildStdout> {
        self.child.stdout.as_mut()
    }

    /// Takes its standard input, if piped. Dropping it closes it.
    pub fn take_stdin(&mut self) -> Option<ChildStdin> {
        self.child.stdin.take()
    }

    /// Takes its standard output, if piped.
    pub fn take_stdout(&mut self) -> Option<ChildStdout> {
        self.child.stdout.take()
    }

    /// Takes its standard error, if piped.
    pub fn take_stderr(&mut self) -> Option<ChildStderr> {
        self.child.stderr.take()
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        self.group.end();
    }
}

/// The process group of a [`Child`]. Cloning shares it.
///
/// The id of a group may be given to others once its last member is gone, so it is forgotten as soon as the child has been waited for:
/// from then on [`kill`](Self::kill) does nothing.
#[derive(Debug, Clone)]
pub struct ProcessGroup {
    /// `None` once the leader has been waited for.
    leader: Arc<Mutex<Option<Pid>>>,
}

impl ProcessGroup {
    /// Kills every process of the group (`SIGKILL`). A group that is gone already is no error.
    ///
    /// # Errors
    /// If the system refuses.
    pub fn kill(&self) -> io::Result<()> {
        // Held during the call, so that the id is not forgotten in between.
        let leader = self.leader.lock();
        match leader.map(|leader| kill_process_group(leader, Signal::KILL)) {
            Some(Err(error)) if error != rustix::io::Errno::SRCH => Err(error.into()),
            _ => Ok(()),
        }
    }

    /// Kills what is left, and forgets the id. The leader has just been waited for or is still there, so the id is the group's own: while
    /// any member lives the system gives it to nobody else, and in the instant after the last one it has no reason to.
    fn end(&self) {
        if let Some(leader) = self.leader.lock().take() {
            // An error leaves nothing to be done: the group is gone, or not ours to kill.
            let _refused = kill_process_group(leader, Signal::KILL);
        }
    }
}

/// Lends warm child processes, for programs that answer one request after another on their standard streams.
///
/// Standard input and output are piped; standard error is as the command says. A child that has exited is broken.
pub struct Process {
    command: Box<dyn Fn() -> Command + Send + Sync>,
}

impl Process {
    /// Starts what `command` makes, anew for each child.
    #[must_use]
    pub fn new(command: impl Fn() -> Command + Send + Sync + 'static) -> Self {
        Self { command: Box::new(command) }
    }
}

impl fmt::Debug for Process {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Process").finish_non_exhaustive()
    }
}

#[async_trait]
impl Manager for Process {
    type Connection = Child;
    type Error = io::Error;

    async fn connect(&self) -> io::Result<Child> {
        let mut command = (self.command)();
        Child::spawn(command.stdin(Stdio::piped()).stdout(Stdio::piped()))
    }

    async fn check(&self, child: &mut Child) -> io::Result<()> {
        match child.try_wait()? {
            None => Ok(()),
            Some(status) => {
                Err(io::Error::new(io::ErrorKind::BrokenPipe, format!("the child has ended: {status}")))
            }
        }
    }

    fn is_broken(&self, child: &mut Child) -> bool {
        !matches!(child.try_wait(), Ok(None))
    }
}
