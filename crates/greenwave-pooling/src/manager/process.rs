//! A manager of warm child processes that answer requests on their standard streams.

use std::fmt;
use std::io;
use std::process::Stdio;

use async_trait::async_trait;
use greenwave_process::Child;
use tokio::process::Command;

use crate::manager::Manager;

/// Lends warm child processes that answer one request after another on their standard streams.
///
/// Standard input and output are piped; standard error is as the command says. A child that has
/// exited counts as broken.
pub struct Process {
    command: Box<dyn Fn() -> Command + Send + Sync>,
}

impl Process {
    /// Creates a manager that starts a child from a new `command()` whenever one is needed.
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
