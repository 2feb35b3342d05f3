//! A child process that leads a process group, and a handle of that group.

use std::io;
use std::process::{ExitStatus, Output, Stdio};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use rustix::process::{Pid, Signal, kill_process_group, setsid, test_kill_process_group};
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::process::{ChildStderr, ChildStdin, ChildStdout, Command};

use crate::spawn::{BeforeExec, Spawn, Spawned};

/// Interval at which [`Child::wait_for_group`] checks whether the group is gone.
const POLL_INTERVAL: Duration = Duration::from_millis(5);

/// A child process that leads its own process group.
///
/// Dropping it kills the whole group with `SIGKILL` and does not wait. Once the leader has exited
/// and was waited for, the rest of its group is killed too. A descendant that moves itself into
/// another group or session escapes, and so does every descendant if this process itself is killed
/// with `SIGKILL`.
#[derive(Debug)]
pub struct Child {
    leader: Leader,
    group: ProcessGroup,
}

/// The process at the head of the group, by the way it was started.
#[derive(Debug)]
enum Leader {
    Command(Box<tokio::process::Child>),
    Spawned(Spawned),
}

impl Leader {
    /// Waits for the process to exit. Cancel safe.
    async fn wait(&mut self) -> io::Result<ExitStatus> {
        match self {
            Self::Command(child) => child.wait().await,
            Self::Spawned(spawned) => spawned.wait().await,
        }
    }

    fn try_wait(&mut self) -> io::Result<Option<ExitStatus>> {
        match self {
            Self::Command(child) => child.try_wait(),
            Self::Spawned(spawned) => spawned.try_wait(),
        }
    }

    /// Returns the child of tokio, unless the process was started from a [`Spawn`].
    fn command(&mut self) -> Option<&mut tokio::process::Child> {
        match self {
            Self::Command(child) => Some(child),
            Self::Spawned(_) => None,
        }
    }
}

impl Child {
    /// Starts `command` as the leader of a new process group.
    ///
    /// # Errors
    /// Fails as [`Command::spawn`] does: the program does not exist or must not be executed, or the
    /// system is out of processes.
    ///
    /// # Panics
    /// Outside a tokio runtime with I/O enabled.
    pub fn spawn(command: &mut Command) -> io::Result<Self> {
        // tokio kills the leader only, but `kill_on_drop` also has it reap the leader.
        let child = command.process_group(0).kill_on_drop(true).spawn()?;
        let leader = child.id().and_then(|id| Pid::from_raw(i32::try_from(id).ok()?));
        Ok(Self { leader: Leader::Command(Box::new(child)), group: ProcessGroup::new(leader) })
    }

    /// Starts `command` as the leader of a new session, and so of a new process group, without a
    /// controlling terminal: opening `/dev/tty` fails at once instead of stopping the process.
    ///
    /// # Errors
    /// Fails as [`spawn`](Self::spawn) does.
    ///
    /// # Panics
    /// Outside a tokio runtime with I/O enabled.
    pub fn spawn_session(command: &mut Command) -> io::Result<Self> {
        // SAFETY: `setsid` is a bare system call. It touches no memory and no lock.
        unsafe { command.before_exec(|| Ok(setsid().map(drop)?)) };
        let child = command.kill_on_drop(true).spawn()?;
        let leader = child.id().and_then(|id| Pid::from_raw(i32::try_from(id).ok()?));
        Ok(Self { leader: Leader::Command(Box::new(child)), group: ProcessGroup::new(leader) })
    }

    /// Runs `command` to its end with nothing on standard input, and returns its output. Standard
    /// error is captured only if the command pipes it.
    ///
    /// Dropping the future kills the command and everything it started.
    ///
    /// # Errors
    /// Fails if the command cannot be started or its output cannot be read.
    ///
    /// # Panics
    /// Outside a tokio runtime with I/O enabled.
    pub async fn output(command: &mut Command) -> io::Result<Output> {
        command.stdin(Stdio::null()).stdout(Stdio::piped());
        let mut child = Self::spawn(command)?;
        let (stdout, stderr) = (child.take_stdout(), child.take_stderr());
        // All at once: a pipe that a descendant holds open ends only when the group is killed.
        let (status, stdout, stderr) = tokio::join!(child.wait(), read(stdout), read(stderr));
        Ok(Output { status: status?, stdout: stdout?, stderr: stderr? })
    }

    /// Starts a program as the leader of a new process group, on Linux without copying the memory
    /// map of this process.
    ///
    /// The call blocks until the program is loaded. It takes a tenth of the time of
    /// [`spawn`](Self::spawn), and less than that in a process with much memory.
    ///
    /// # Errors
    /// Fails if the program or its working directory does not exist, if it must not be executed, if
    /// the system is out of processes or file descriptors, if an argument contains a zero byte, or
    /// if a closure of [`BeforeExec`](crate::BeforeExec) fails.
    ///
    /// # Panics
    /// Outside a tokio runtime with I/O enabled.
    pub fn start(spawn: Spawn) -> io::Result<Self> {
        let spawned = spawn.start()?;
        let group = ProcessGroup::new(spawned.id());
        Ok(Self { leader: Leader::Spawned(spawned), group })
    }

    /// Returns the process id of the leader, which is also the id of the group; `None` once the
    /// leader was waited for.
    #[must_use]
    pub fn id(&self) -> Option<u32> {
        match &self.leader {
            Leader::Command(child) => child.id(),
            Leader::Spawned(spawned) => spawned.id().map(|pid| pid.as_raw_nonzero().get().cast_unsigned()),
        }
    }

    /// Returns a handle that kills the group from elsewhere.
    #[must_use]
    pub fn group(&self) -> ProcessGroup {
        self.group.clone()
    }

    /// Kills the whole group with `SIGKILL`. Does nothing once the leader was waited for.
    ///
    /// # Errors
    /// Fails if the system denies it, as it does when the child runs as another user.
    pub fn kill_group(&self) -> io::Result<()> {
        self.group.kill()
    }

    /// Waits for the leader to exit, then kills the rest of its group. Cancel safe.
    ///
    /// Standard input is closed first unless it was taken, so that a child that reads to the end
    /// does not wait indefinitely. Pipes that the child inherited stay open in its descendants
    /// until these are killed, so read them while waiting.
    ///
    /// # Errors
    /// Fails as [`tokio::process::Child::wait`] does.
    pub async fn wait(&mut self) -> io::Result<ExitStatus> {
        let status = self.leader.wait().await?;
        self.group.end();
        Ok(status)
    }

    /// Returns the exit status if the leader has exited; the rest of its group is killed then.
    ///
    /// # Errors
    /// Fails as [`tokio::process::Child::try_wait`] does.
    pub fn try_wait(&mut self) -> io::Result<Option<ExitStatus>> {
        let status = self.leader.try_wait()?;
        if status.is_some() {
            self.group.end();
        }
        Ok(status)
    }

    /// Waits like [`wait`](Self::wait), and returns as well whether some process of the group
    /// outlived the leader by more than `grace`.
    ///
    /// # Errors
    /// Fails as [`tokio::process::Child::wait`] does.
    pub async fn wait_for_group(&mut self, grace: Duration) -> io::Result<(ExitStatus, bool)> {
        let status = self.leader.wait().await?;
        let mut waited = Duration::ZERO;
        while self.group.is_alive() && waited < grace {
            tokio::time::sleep(POLL_INTERVAL).await;
            waited += POLL_INTERVAL;
        }
        let left_over = self.group.is_alive();
        self.group.end();
        Ok((status, left_over))
    }

    /// Asks the group to exit with `SIGTERM`, and kills the processes that remain after `grace`
    /// with `SIGKILL`.
    ///
    /// # Errors
    /// Fails as [`tokio::process::Child::wait`] does.
    pub async fn stop(&mut self, grace: Duration) -> io::Result<ExitStatus> {
        self.group.signal(Signal::TERM);
        if let Ok(status) = tokio::time::timeout(grace, self.wait()).await {
            return status;
        }
        self.group.signal(Signal::KILL);
        self.wait().await
    }

    /// Returns standard input, if it is a pipe and was not taken.
    pub fn stdin(&mut self) -> Option<&mut ChildStdin> {
        self.leader.command()?.stdin.as_mut()
    }

    /// Returns standard output, if it is a pipe and was not taken.
    pub fn stdout(&mut self) -> Option<&mut ChildStdout> {
        self.leader.command()?.stdout.as_mut()
    }

    /// Takes standard input, if it is a pipe. Dropping it closes it.
    pub fn take_stdin(&mut self) -> Option<ChildStdin> {
        self.leader.command()?.stdin.take()
    }

    /// Takes standard output, if it is a pipe.
    pub fn take_stdout(&mut self) -> Option<ChildStdout> {
        self.leader.command()?.stdout.take()
    }

    /// Takes standard error, if it is a pipe.
    pub fn take_stderr(&mut self) -> Option<ChildStderr> {
        self.leader.command()?.stderr.take()
    }
}

/// Reads a pipe to its end; without a pipe there is nothing to read.
async fn read(pipe: Option<impl AsyncRead + Unpin>) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    if let Some(mut pipe) = pipe {
        pipe.read_to_end(&mut bytes).await?;
    }
    Ok(bytes)
}

impl Drop for Child {
    fn drop(&mut self) {
        self.group.end();
    }
}

/// The process group of a [`Child`]. Clones refer to one group.
///
/// The system may reuse the id of a group once its last member is gone. The id is therefore dropped
/// as soon as the leader was waited for; [`kill`](Self::kill) does nothing from then on.
#[derive(Debug, Clone)]
pub struct ProcessGroup {
    /// `None` once the leader was waited for.
    id: Arc<Mutex<Option<Pid>>>,
}

impl ProcessGroup {
    fn new(id: Option<Pid>) -> Self {
        Self { id: Arc::new(Mutex::new(id)) }
    }

    /// Kills every process of the group with `SIGKILL`. A group that is gone already is not an
    /// error.
    ///
    /// # Errors
    /// Fails if the system denies it, as it does when the processes run as another user.
    pub fn kill(&self) -> io::Result<()> {
        // The lock is held during the call, so that `end` cannot release the id in between.
        let id = self.id.lock();
        match id.map(|id| kill_process_group(id, Signal::KILL)) {
            Some(Err(error)) if error != rustix::io::Errno::SRCH => Err(error.into()),
            _ => Ok(()),
        }
    }

    /// Returns whether any process is in the group, the leader included unless it was waited for.
    fn is_alive(&self) -> bool {
        self.id.lock().is_some_and(|id| test_kill_process_group(id).is_ok())
    }

    fn signal(&self, signal: Signal) {
        if let Some(id) = *self.id.lock() {
            // The group may be gone already.
            let _ = kill_process_group(id, signal);
        }
    }

    /// Kills the rest of the group and drops its id.
    ///
    /// The leader was just waited for or still exists. While any member lives, the system does not
    /// reuse the id of the group.
    fn end(&self) {
        if let Some(id) = self.id.lock().take() {
            // On an error the group is gone or cannot be killed by this user.
            let _ = kill_process_group(id, Signal::KILL);
        }
    }
}
