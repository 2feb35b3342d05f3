//! A child process that leads a process group, and a handle of that group.

use std::io;
#[cfg(target_os = "linux")]
use std::os::fd::AsFd;
use std::os::fd::OwnedFd;
use std::process::{ExitStatus, Output, Stdio};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use rustix::process::{Pid, Signal, kill_process_group, test_kill_process_group};
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::process::{ChildStderr, ChildStdin, ChildStdout, Command};

use crate::Supervisor;
#[cfg(target_os = "linux")]
use crate::left_over;
use crate::spawn::{Spawn, Spawned};
#[cfg(target_os = "linux")]
use crate::supervisor::{self, ReaperSocket, Supervised};

/// Interval at which [`Child::wait_for_group`] checks whether the group is gone.
const POLL_INTERVAL: Duration = Duration::from_millis(5);

/// A child process that leads its own process group.
///
/// Dropping it kills the whole group with `SIGKILL` and does not wait. Once the leader has exited
/// and was waited for, the rest of its group is killed too.
///
/// With a [`Supervisor`], all of this holds for every descendant, in any group or session, and also
/// when this process ends in any way. Without one, a descendant that moves itself into another
/// group or session escapes, and so does every descendant if this process itself is killed with
/// `SIGKILL`.
#[derive(Debug)]
pub struct Child {
    leader: Leader,
    group: ProcessGroup,
    pipes: Pipes,
    /// Names of the programs that outlived the leader.
    left_over: Vec<String>,
}

/// The ends of the standard streams of a child that a supervisor started.
#[derive(Debug, Default)]
struct Pipes {
    stdin: Option<ChildStdin>,
    stdout: Option<ChildStdout>,
    stderr: Option<ChildStderr>,
}

/// The process at the head of the group, by the way it was started.
#[derive(Debug)]
enum Leader {
    Command(Box<tokio::process::Child>),
    Spawned(Spawned),
    #[cfg(target_os = "linux")]
    Supervised(Box<Supervised>),
}

impl Leader {
    /// Waits for the process to exit. Cancel safe.
    async fn wait(&mut self) -> io::Result<ExitStatus> {
        match self {
            Self::Command(child) => child.wait().await,
            Self::Spawned(spawned) => spawned.wait().await,
            #[cfg(target_os = "linux")]
            Self::Supervised(supervised) => supervised.wait().await,
        }
    }

    fn try_wait(&mut self) -> io::Result<Option<ExitStatus>> {
        match self {
            Self::Command(child) => child.try_wait(),
            Self::Spawned(spawned) => spawned.try_wait(),
            #[cfg(target_os = "linux")]
            Self::Supervised(supervised) => supervised.try_wait(),
        }
    }

    /// Returns the child of tokio, unless the process was started from a [`Spawn`].
    fn command(&mut self) -> Option<&mut tokio::process::Child> {
        match self {
            Self::Command(child) => Some(child),
            _ => None,
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
        let group = ProcessGroup::new(leader.map(Target::Group));
        Ok(Self {
            leader: Leader::Command(Box::new(child)),
            group,
            pipes: Pipes::default(),
            left_over: Vec::new(),
        })
    }

    /// Starts `command` as the leader of a new process group, without a controlling terminal and
    /// with pipes for its three standard streams. A supervisor starts it if there is one; otherwise
    /// it leads a new session.
    ///
    /// A supervisor starts the command's program with its arguments, working directory and
    /// variables, after the ones that the supervisor [inherits](Supervisor::inheriting). Closures
    /// that were added with `pre_exec` are not run.
    ///
    /// # Errors
    /// Fails as [`Command::spawn`] does.
    ///
    /// # Panics
    /// Outside a tokio runtime with I/O enabled.
    pub fn spawn_piped(command: &mut Command, supervisor: Option<&Supervisor>) -> io::Result<Self> {
        let Some(supervisor) = supervisor.filter(|_| cfg!(target_os = "linux")) else {
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
            return Self::spawn_session(command);
        };
        let spawn = Spawn::from_command(command.as_std(), supervisor.inherited())?;
        Self::start_piped(Some(supervisor), spawn)
    }

    /// Starts `command` like [`spawn_piped`](Self::spawn_piped), with nothing on standard input and
    /// one pipe for standard output and standard error, which is returned.
    ///
    /// # Errors
    /// Fails as [`Command::spawn`] does.
    ///
    /// # Panics
    /// Outside a tokio runtime with I/O enabled.
    pub fn spawn_joined(
        command: &mut Command,
        supervisor: Option<&Supervisor>,
    ) -> io::Result<(Self, io::PipeReader)> {
        let (reader, writer) = io::pipe()?;
        if let Some(supervisor) = supervisor.filter(|_| cfg!(target_os = "linux")) {
            let mut spawn = Spawn::from_command(command.as_std(), supervisor.inherited())?;
            spawn.stdout(writer.try_clone()?).stderr(writer);
            return Ok((Self::start_under(Some(supervisor), spawn)?, reader));
        }
        command.stdin(Stdio::null()).stdout(writer.try_clone()?).stderr(writer);
        let child = Self::spawn(command);
        // The command's ends of the pipe would keep it open.
        command.stdout(Stdio::null()).stderr(Stdio::null());
        Ok((child?, reader))
    }

    /// Starts a program like [`start_under`](Self::start_under), with pipes for its three standard
    /// streams.
    ///
    /// # Errors
    /// Fails as [`start`](Self::start) does.
    ///
    /// # Panics
    /// Outside a tokio runtime with I/O enabled.
    pub fn start_piped(supervisor: Option<&Supervisor>, mut spawn: Spawn) -> io::Result<Self> {
        let (stdin, ours) = io::pipe()?;
        spawn.stdin(stdin);
        let stdin = ChildStdin::from_std(OwnedFd::from(ours).into())?;
        let (ours, stdout) = io::pipe()?;
        spawn.stdout(stdout);
        let stdout = ChildStdout::from_std(OwnedFd::from(ours).into())?;
        let (ours, stderr) = io::pipe()?;
        spawn.stderr(stderr);
        let stderr = ChildStderr::from_std(OwnedFd::from(ours).into())?;
        let mut child = Self::start_under(supervisor, spawn)?;
        child.pipes = Pipes { stdin: Some(stdin), stdout: Some(stdout), stderr: Some(stderr) };
        Ok(child)
    }

    /// Starts `command` as the leader of a new session, and so of a new process group, without a
    /// controlling terminal: opening `/dev/tty` fails at once instead of stopping the process.
    fn spawn_session(command: &mut Command) -> io::Result<Self> {
        // SAFETY: `setsid` is a bare system call. It touches no memory and no lock.
        unsafe { command.pre_exec(|| Ok(rustix::process::setsid().map(drop)?)) };
        let child = command.kill_on_drop(true).spawn()?;
        let leader = child.id().and_then(|id| Pid::from_raw(i32::try_from(id).ok()?));
        let group = ProcessGroup::new(leader.map(Target::Group));
        Ok(Self {
            leader: Leader::Command(Box::new(child)),
            group,
            pipes: Pipes::default(),
            left_over: Vec::new(),
        })
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
        Self::spawn(command)?.read_to_end().await
    }

    /// Runs a program to its end like [`output`](Self::output), with nothing on standard input, and
    /// captures its standard output and standard error.
    ///
    /// # Errors
    /// Fails as [`start`](Self::start) does, or if the output cannot be read.
    ///
    /// # Panics
    /// Outside a tokio runtime with I/O enabled.
    pub async fn output_of(supervisor: Option<&Supervisor>, spawn: Spawn) -> io::Result<Output> {
        let mut child = Self::start_piped(supervisor, spawn)?;
        drop(child.take_stdin());
        child.read_to_end().await
    }

    async fn read_to_end(self) -> io::Result<Output> {
        let mut child = self;
        let (stdout, stderr) = (child.take_stdout(), child.take_stderr());
        // All at once: a pipe that a descendant holds open ends only when the group is killed.
        let (status, stdout, stderr) = tokio::join!(child.wait(), read(stdout), read(stderr));
        Ok(Output { status: status?, stdout: stdout?, stderr: stderr? })
    }

    /// Starts a program as the leader of a new process group, on Linux without copying the memory
    /// map of this process.
    ///
    /// The call blocks until the program is loaded. It takes a tenth of the time of
    /// [`spawn`](Self::spawn), and less than that in a process with much memory. A program that is
    /// open for writing is tried again for a quarter of a second: another thread that forks at the
    /// wrong moment keeps a descriptor open which this process has already closed.
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
        let group = ProcessGroup::new(spawned.id().map(Target::Group));
        Ok(Self { leader: Leader::Spawned(spawned), group, pipes: Pipes::default(), left_over: Vec::new() })
    }

    /// Starts a program like [`start`](Self::start). If there is a supervisor, it starts the child:
    /// nothing that the child starts can outlive it then, and nothing outlives this process. The
    /// child has no controlling terminal.
    ///
    /// # Errors
    /// Fails as [`start`](Self::start) does, or if the supervisor cannot be started.
    ///
    /// # Panics
    /// Outside a tokio runtime with I/O enabled.
    pub fn start_under(supervisor: Option<&Supervisor>, spawn: Spawn) -> io::Result<Self> {
        #[cfg(target_os = "linux")]
        if let Some(supervisor) = supervisor {
            let supervised = Supervised::start(supervisor, &spawn)?;
            let group = ProcessGroup::new(supervised.socket().map(Target::Reaper));
            let leader = Leader::Supervised(Box::new(supervised));
            return Ok(Self { leader, group, pipes: Pipes::default(), left_over: Vec::new() });
        }
        #[cfg(not(target_os = "linux"))]
        let _ = supervisor;
        Self::start(spawn)
    }

    /// Returns the process id of the leader, which is also the id of the group; `None` once the
    /// leader was waited for.
    #[must_use]
    pub fn id(&self) -> Option<u32> {
        match &self.leader {
            Leader::Command(child) => child.id(),
            Leader::Spawned(spawned) => spawned.id().map(|pid| pid.as_raw_nonzero().get().cast_unsigned()),
            #[cfg(target_os = "linux")]
            Leader::Supervised(child) => child.id().map(|pid| pid.as_raw_nonzero().get().cast_unsigned()),
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
        drop(self.pipes.stdin.take());
        let status = self.leader.wait().await?;
        self.end().await;
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

    /// Kills the remaining processes after the leader was waited for. Under a supervisor it is gone
    /// afterwards.
    async fn end(&mut self) {
        #[cfg(target_os = "linux")]
        if let Leader::Supervised(child) = &mut self.leader {
            child.finish().await;
            self.group.release();
            child.release();
            return;
        }
        self.group.end();
    }

    /// Waits like [`wait`](Self::wait), and returns as well whether some process of the group
    /// outlived the leader by more than `grace`.
    ///
    /// # Errors
    /// Fails as [`tokio::process::Child::wait`] does.
    pub async fn wait_for_group(&mut self, grace: Duration) -> io::Result<(ExitStatus, bool)> {
        drop(self.pipes.stdin.take());
        #[cfg(target_os = "linux")]
        let leader = self.id();
        #[cfg(target_os = "linux")]
        let reaper = leader.and_then(left_over::parent_of).filter(|_| self.is_supervised());
        let status = self.leader.wait().await?;
        #[cfg(target_os = "linux")]
        if let Leader::Supervised(child) = &mut self.leader {
            let emptied = tokio::time::timeout(grace, child.wait_until_empty()).await;
            if emptied.is_err() {
                self.left_over = leader.map(|leader| left_over::names(leader, reaper)).unwrap_or_default();
            }
            self.end().await;
            return Ok((status, emptied.is_err()));
        }
        let mut waited = Duration::ZERO;
        while self.group.is_alive() && waited < grace {
            tokio::time::sleep(POLL_INTERVAL).await;
            waited += POLL_INTERVAL;
        }
        let is_left_over = self.group.is_alive();
        #[cfg(target_os = "linux")]
        if is_left_over {
            self.left_over = leader.map(|leader| left_over::names(leader, reaper)).unwrap_or_default();
        }
        self.group.end();
        Ok((status, is_left_over))
    }

    /// Returns the file names of programs that outlived the leader when
    /// [`wait_for_group`](Self::wait_for_group) has found some, at most five. Empty on systems
    /// other than Linux.
    #[must_use]
    pub fn left_over(&self) -> &[String] {
        &self.left_over
    }

    #[cfg(target_os = "linux")]
    fn is_supervised(&self) -> bool {
        matches!(self.leader, Leader::Supervised(_))
    }

    /// Suspends the child and all its descendants, so that none of them does anything until
    /// [`thaw`](Self::thaw). Returns whether all of them are suspended: only a supervisor can see
    /// that, and a process that waits for a disk may not stop in time. Kill the group otherwise.
    ///
    /// Processes outside of the group that may signal its members can wake them. Processes that are
    /// suspended can be killed, and end with the supervisor.
    ///
    /// # Errors
    /// Fails if the reaper of the child was killed.
    pub async fn freeze(&mut self) -> io::Result<bool> {
        match &mut self.leader {
            #[cfg(target_os = "linux")]
            Leader::Supervised(child) => child.freeze().await,
            _ => Ok(false),
        }
    }

    /// Lets the child and its descendants continue after [`freeze`](Self::freeze). Returns whether
    /// the child still runs.
    ///
    /// # Errors
    /// Fails if the reaper of the child was killed.
    pub async fn thaw(&mut self) -> io::Result<bool> {
        match &mut self.leader {
            #[cfg(target_os = "linux")]
            Leader::Supervised(child) => child.thaw().await,
            _ => Ok(false),
        }
    }

    /// Asks the group to exit with `SIGTERM`, and kills the processes that remain after `grace`
    /// with `SIGKILL`.
    ///
    /// # Errors
    /// Fails as [`tokio::process::Child::wait`] does.
    pub async fn stop(&mut self, grace: Duration) -> io::Result<ExitStatus> {
        let _ = self.group.signal(Signal::TERM);
        if let Ok(status) = tokio::time::timeout(grace, self.wait()).await {
            return status;
        }
        let _ = self.group.kill();
        self.wait().await
    }

    /// Returns standard input, if it is a pipe and was not taken.
    pub fn stdin(&mut self) -> Option<&mut ChildStdin> {
        match &mut self.pipes.stdin {
            Some(stdin) => Some(stdin),
            None => self.leader.command()?.stdin.as_mut(),
        }
    }

    /// Returns standard output, if it is a pipe and was not taken.
    pub fn stdout(&mut self) -> Option<&mut ChildStdout> {
        match &mut self.pipes.stdout {
            Some(stdout) => Some(stdout),
            None => self.leader.command()?.stdout.as_mut(),
        }
    }

    /// Takes standard input, if it is a pipe. Dropping it closes it.
    pub fn take_stdin(&mut self) -> Option<ChildStdin> {
        self.pipes.stdin.take().or_else(|| self.leader.command()?.stdin.take())
    }

    /// Takes standard output, if it is a pipe.
    pub fn take_stdout(&mut self) -> Option<ChildStdout> {
        self.pipes.stdout.take().or_else(|| self.leader.command()?.stdout.take())
    }

    /// Takes standard error, if it is a pipe.
    pub fn take_stderr(&mut self) -> Option<ChildStderr> {
        self.pipes.stderr.take().or_else(|| self.leader.command()?.stderr.take())
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

/// The processes of a [`Child`]. Clones refer to one group.
///
/// The system may reuse the id of a group once its last member is gone. The id is therefore dropped
/// as soon as the leader was waited for; [`kill`](Self::kill) does nothing from then on.
#[derive(Debug, Clone)]
pub struct ProcessGroup {
    /// `None` once the leader was waited for.
    target: Arc<Mutex<Option<Target>>>,
}

/// The way to reach the processes of a group.
#[derive(Debug)]
enum Target {
    /// They are in this process group.
    Group(Pid),
    /// They are below the reaper at the other end.
    #[cfg(target_os = "linux")]
    Reaper(ReaperSocket),
}

impl ProcessGroup {
    fn new(target: Option<Target>) -> Self {
        Self { target: Arc::new(Mutex::new(target)) }
    }

    /// Kills every process of the group with `SIGKILL`; under a supervisor, every descendant of the
    /// child. A group that is gone already is not an error.
    ///
    /// # Errors
    /// Fails if the system denies it, as it does when the processes run as another user.
    pub fn kill(&self) -> io::Result<()> {
        self.signal(Signal::KILL)
    }

    /// Returns whether any process is in the group, the leader included unless it was waited for.
    fn is_alive(&self) -> bool {
        match &*self.target.lock() {
            Some(Target::Group(id)) => test_kill_process_group(*id).is_ok(),
            #[cfg(target_os = "linux")]
            Some(Target::Reaper(_)) => true,
            None => false,
        }
    }

    /// Sends `SIGKILL` or `SIGTERM`.
    fn signal(&self, signal: Signal) -> io::Result<()> {
        // The lock is held during the call, so that `end` cannot release the id in between.
        match &*self.target.lock() {
            Some(Target::Group(id)) => match kill_process_group(*id, signal) {
                Err(error) if error != rustix::io::Errno::SRCH => Err(error.into()),
                _ => Ok(()),
            },
            #[cfg(target_os = "linux")]
            Some(Target::Reaper(socket)) if signal == Signal::TERM => {
                supervisor::terminate(socket.get_ref().as_fd())
            }
            #[cfg(target_os = "linux")]
            Some(Target::Reaper(socket)) => supervisor::kill(socket.get_ref().as_fd()),
            None => Ok(()),
        }
    }

    /// Kills the rest of the group and drops its id.
    ///
    /// The leader was just waited for or still exists. While any member lives, the system does not
    /// reuse the id of the group.
    fn end(&self) {
        // On an error the group is gone or cannot be killed by this user.
        let _ = self.kill();
        self.release();
    }

    /// Drops the id of the group, which is empty.
    fn release(&self) {
        self.target.lock().take();
    }
}
