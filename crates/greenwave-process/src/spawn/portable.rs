//! Starts a child with the standard library.

use std::io;
use std::process::{ExitStatus, Stdio};

use rustix::process::Pid;
use tokio::process::{Child, Command};

use super::{BeforeExec, Spawn};

#[derive(Debug)]
pub(crate) struct Spawned(Child);

impl Spawned {
    pub(super) fn start(spawn: Spawn) -> io::Result<Self> {
        let mut command = Command::new(&spawn.program);
        command.args(&spawn.arguments).env_clear().envs(spawn.variables).stdin(Stdio::null());
        if let Some(directory) = &spawn.directory {
            command.current_dir(directory);
        }
        if let Some(stdin) = spawn.stdin {
            command.stdin(stdin);
        }
        if let Some(stdout) = spawn.stdout {
            command.stdout(stdout);
        }
        if let Some(stderr) = spawn.stderr {
            command.stderr(stderr);
        }
        for setup in spawn.setups {
            command.before_exec(setup);
        }
        command.process_group(0).kill_on_drop(true).spawn().map(Self)
    }

    pub(crate) fn id(&self) -> Option<Pid> {
        self.0.id().and_then(|id| Pid::from_raw(i32::try_from(id).ok()?))
    }

    pub(crate) fn try_wait(&mut self) -> io::Result<Option<ExitStatus>> {
        self.0.try_wait()
    }

    pub(crate) async fn wait(&mut self) -> io::Result<ExitStatus> {
        self.0.wait().await
    }
}
