//! A child process together with everything it starts. Knows nothing of tasks or of what is run.

use std::io;
use std::process::ExitStatus;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group, test_kill_process_group};
use tokio::process::{Child, Command};

use crate::spawn::{Spawn, Spawned};

/// A child process that leads a process group of its own: ending it ends what it started as well.
///
/// Dropping it kills the whole group at once, so a cancelled task leaves nothing behind. A process that
/// moved itself into another group or session is beyond reach.
#[derive(Debug)]
pub struct ProcessGroup {
    leader: Leader,
    group: Option<Pid>,
}

#[derive(Debug)]
enum Leader {
    Child(Child),
    Spawned(Spawned),
}

impl Leader {
    /// Cancel-safe.
    async fn wait(&mut self) -> io::Result<ExitStatus> {
        match self {
            Leader::Child(child) => child.wait().await,
            Leader::Spawned(spawned) => spawned.wait().await,
        }
    }
}

/// How often it is looked whether a group is gone.
const LOOK_AGAIN: Duration = Duration::from_millis(5);

impl ProcessGroup {
    /// Starts the command as leader of a new group.
    ///
    /// # Errors
    /// Those of [`Command::spawn`]: no such program, no permission, no process left.
    pub fn spawn(command: &mut Command) -> io::Result<Self> {
        let child = command.process_group(0).spawn()?;
        let group = child.id().and_then(|id| Pid::from_raw(i32::try_from(id).ok()?));
        Ok(Self { leader: Leader::Child(child), group })
    }

    /// Starts a program as leader of a new group, on Linux without a copy of this program's memory map: a tenth of what it costs otherwise, and less for
    /// larger programs. Blocks until the program runs. Call it from inside a tokio runtime.
    ///
    /// # Errors
    /// No such program or folder, no permission, no process or descriptor left, a byte of zero in a name, or what was to be done
    /// [before](crate::BeforeExec) has failed.
    pub fn start(spawn: Spawn) -> io::Result<Self> {
        let spawned = spawn.start()?;
        let group = spawned.id();
        Ok(Self { leader: Leader::Spawned(spawned), group })
    }

    /// The leader of a group that was [spawned](Self::spawn) from a command, for its pipes and id.
    pub fn leader(&mut self) -> Option<&mut Child> {
        match &mut self.leader {
            Leader::Child(child) => Some(child),
            Leader::Spawned(_) => None,
        }
    }

    /// Waits for the leader to end, then kills whatever is left of its group.
    ///
    /// Cancel-safe. Pipes that the leader was given are closed by what is left only once it is killed,
    /// so read them and wait at the same time.
    ///
    /// # Errors
    /// Those of [`Child::wait`].
    pub async fn wait(&mut self) -> io::Result<ExitStatus> {
        let status = self.leader.wait().await?;
        self.kill();
        Ok(status)
    }

    /// Like [`wait`](Self::wait), and says whether anything was left of the group: not at once, but after `grace`.
    ///
    /// # Errors
    /// Those of [`Child::wait`].
    pub async fn wait_for_all(&mut self, grace: Duration) -> io::Result<(ExitStatus, bool)> {
        let status = self.leader.wait().await?;
        let mut waited = Duration::ZERO;
        while self.is_alive() && waited < grace {
            tokio::time::sleep(LOOK_AGAIN).await;
            waited += LOOK_AGAIN;
        }
        let is_left = self.is_alive();
        self.kill();
        Ok((status, is_left))
    }

    /// Whether any process is in the group, the leader included unless it was waited for.
    fn is_alive(&self) -> bool {
        self.group.is_some_and(|group| test_kill_process_group(group).is_ok())
    }

    /// Asks the group to end (`SIGTERM`), and kills what is left after `grace` (`SIGKILL`).
    ///
    /// # Errors
    /// Those of [`Child::wait`].
    pub async fn stop(&mut self, grace: Duration) -> io::Result<ExitStatus> {
        self.signal(Signal::TERM);
        if let Ok(status) = tokio::time::timeout(grace, self.wait()).await {
            return status;
        }
        self.signal(Signal::KILL);
        self.wait().await
    }

    /// Kills the whole group at once. Once only: the number of a group that is gone may be given out again.
    fn kill(&mut self) {
        self.signal(Signal::KILL);
        self.group = None;
    }

    fn signal(&self, signal: Signal) {
        if let Some(group) = self.group {
            // The group may be gone already, which is what was wanted.
            let _ = kill_process_group(group, signal);
        }
    }
}

impl Drop for ProcessGroup {
    fn drop(&mut self) {
        self.kill();
    }
}
