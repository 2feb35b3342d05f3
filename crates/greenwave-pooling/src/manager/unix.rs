//! A manager of Unix domain socket connections.

use std::io;
use std::path::{Path, PathBuf};

use async_trait::async_trait;
use tokio::net::UnixStream;

use super::tcp::check_idle_read;
use crate::manager::Manager;

/// Connects to one Unix domain socket.
///
/// A connection with unread bytes counts as broken: they belong to a response that a previous user
/// did not read.
#[derive(Debug, Clone)]
pub struct Unix {
    path: PathBuf,
}

impl Unix {
    /// Creates a manager for the socket at `path`.
    #[must_use]
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into() }
    }

    /// Returns the path.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }
}

#[async_trait]
impl Manager for Unix {
    type Connection = UnixStream;
    type Error = io::Error;

    async fn connect(&self) -> io::Result<UnixStream> {
        UnixStream::connect(&self.path).await
    }

    async fn check(&self, stream: &mut UnixStream) -> io::Result<()> {
        check_idle_read(stream.try_read(&mut [0]))
    }

    fn is_broken(&self, stream: &mut UnixStream) -> bool {
        check_idle_read(stream.try_read(&mut [0])).is_err()
    }
}
