//! Connections to sockets in the file system.

use std::io;
use std::path::{Path, PathBuf};

use async_trait::async_trait;
use tokio::net::UnixStream;

use super::tcp::silent;
use crate::manager::Manager;

/// Connects to one socket in the file system.
///
/// A connection with bytes that nobody has read is broken: they belong to an answer that its asker left behind.
#[derive(Debug, Clone)]
pub struct Unix {
    path: PathBuf,
}

impl Unix {
    /// Connects to the socket at `path`.
    #[must_use]
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into() }
    }

    /// What it connects to.
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
        silent(stream.try_read(&mut [0]))
    }

    fn is_broken(&self, stream: &mut UnixStream) -> bool {
        silent(stream.try_read(&mut [0])).is_err()
    }
}
