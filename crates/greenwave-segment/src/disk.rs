//! The file operations of a log, on the operating system or on a simulated machine.
//!
//! Every file operation of this crate goes through [`Disk`] and [`File`]. Without the feature
//! `simulation` both have one variant and cost nothing. With it, a log can also run on the file
//! system in memory of [`crate::simulation`], which interleaves processes and crashes at every call
//! in this file.

use std::io;
use std::path::Path;
use std::time::Duration;

use crate::access::{Access, FileStatus};

mod os;
mod watch;

pub(crate) use watch::Watch;

/// The file system that contains a log.
#[derive(Debug, Clone, Default)]
pub(crate) enum Disk {
    /// The operating system's file systems.
    #[default]
    Os,
    /// One process of a simulated machine.
    #[cfg(feature = "simulation")]
    Simulated(crate::simulation::Process),
}

/// An open file. Dropping it closes it and releases its lock.
#[derive(Debug)]
pub(crate) enum File {
    Os(std::fs::File),
    #[cfg(feature = "simulation")]
    Simulated(crate::simulation::SimulatedFile),
}

/// An open directory.
#[derive(Debug)]
pub(crate) enum Directory {
    Os(os::Directory),
    #[cfg(feature = "simulation")]
    Simulated(crate::simulation::SimulatedDirectory),
}

/// Calls the function of the same name on the variant in use.
macro_rules! on_disk {
    ($self:ident, $call:ident($($arg:expr),*)) => {
        match $self {
            Disk::Os => os::$call($($arg),*),
            #[cfg(feature = "simulation")]
            Disk::Simulated(process) => process.$call($($arg),*),
        }
    };
}

macro_rules! on_file {
    ($self:ident, $call:ident($($arg:expr),*)) => {
        match $self {
            File::Os(file) => os::file::$call(file, $($arg),*),
            #[cfg(feature = "simulation")]
            File::Simulated(file) => file.$call($($arg),*),
        }
    };
}

impl Disk {
    pub(crate) fn open(&self, path: &Path, access: Access) -> io::Result<File> {
        match self {
            Self::Os => os::open(path, access).map(File::Os),
            #[cfg(feature = "simulation")]
            Self::Simulated(process) => process.open(path, access).map(File::Simulated),
        }
    }

    /// Returns whether this is the disk of a simulated machine.
    pub(crate) fn is_simulated(&self) -> bool {
        match self {
            Self::Os => false,
            #[cfg(feature = "simulation")]
            Self::Simulated(_) => true,
        }
    }

    /// Lists the names of the regular files in a directory. Skips names that are not UTF-8, which
    /// no file of a log has.
    pub(crate) fn names(&self, dir: &Path) -> io::Result<Vec<String>> {
        on_disk!(self, names(dir))
    }

    /// Lists all names in a directory, sorted, with `/` appended to names of everything but regular
    /// files.
    pub(crate) fn all_names(&self, dir: &Path) -> io::Result<Vec<String>> {
        on_disk!(self, all_names(dir))
    }

    pub(crate) fn status(&self, path: &Path) -> io::Result<FileStatus> {
        on_disk!(self, status(path))
    }

    /// Returns a number that identifies a directory. A copy of the directory has another one.
    pub(crate) fn identity(&self, dir: &Path) -> io::Result<u64> {
        on_disk!(self, identity(dir))
    }

    pub(crate) fn remove(&self, path: &Path) -> io::Result<()> {
        on_disk!(self, remove(path))
    }

    /// Creates a directory with mode 0700, and its parents, unless it exists.
    pub(crate) fn create_dir(&self, dir: &Path) -> io::Result<()> {
        on_disk!(self, create_dir(dir))
    }

    /// Opens a directory to sync it.
    pub(crate) fn open_directory(&self, dir: &Path) -> io::Result<Directory> {
        match self {
            Self::Os => os::open_directory(dir).map(Directory::Os),
            #[cfg(feature = "simulation")]
            Self::Simulated(process) => process.open_directory(dir).map(Directory::Simulated),
        }
    }

    /// Watches a directory for changes, where the system can.
    pub(crate) fn watch(&self, dir: &Path) -> Option<Watch> {
        match self {
            Self::Os => Watch::new(dir),
            #[cfg(feature = "simulation")]
            Self::Simulated(_) => None,
        }
    }

    /// Returns an unpredictable number.
    pub(crate) fn random(&self) -> u64 {
        on_disk!(self, random())
    }

    /// Sleeps, so that other processes can continue.
    pub(crate) fn pause(&self, duration: Duration) {
        on_disk!(self, pause(duration));
    }
}

impl Directory {
    /// Makes creations and removals of files in the directory durable.
    pub(crate) fn sync(&self) -> io::Result<()> {
        match self {
            Self::Os(directory) => os::sync_directory(directory),
            #[cfg(feature = "simulation")]
            Self::Simulated(directory) => directory.sync(),
        }
    }
}

impl File {
    /// Reads until the buffer is full or the file ends; returns the number of bytes.
    pub(crate) fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut done = 0;
        while done < buf.len() {
            match on_file!(self, read_at(&mut buf[done..], offset + done as u64)) {
                Ok(0) => break,
                Ok(n) => done += n,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        Ok(done)
    }

    /// Fills the buffer; returns `false` if the file is too short.
    pub(crate) fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<bool> {
        Ok(self.read_at(buf, offset)? == buf.len())
    }

    /// Returns the offset of the first byte from `offset` on that is not in a hole of the file, or
    /// an offset beyond the end. May return an earlier one.
    pub(crate) fn next_data(&self, offset: u64) -> u64 {
        on_file!(self, next_data(offset))
    }

    /// Fills the buffer without waiting for the disk; returns `false` if that is impossible.
    pub(crate) fn read_at_nowait(&self, buf: &mut [u8], offset: u64) -> bool {
        on_file!(self, read_at_nowait(buf, offset))
    }

    /// Writes all bytes. May have written a part of them if it fails.
    pub(crate) fn write_at(&self, mut bytes: &[u8], mut offset: u64) -> io::Result<()> {
        while !bytes.is_empty() {
            match on_file!(self, write_at(bytes, offset)) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(n) => (bytes, offset) = (&bytes[n..], offset + n as u64),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }

    pub(crate) fn set_len(&self, len: u64) -> io::Result<()> {
        on_file!(self, set_len(len))
    }

    pub(crate) fn sync_data(&self) -> io::Result<()> {
        on_file!(self, sync_data())
    }

    /// Takes the exclusive lock; returns `false` if another file handle holds it.
    pub(crate) fn try_lock(&self) -> io::Result<bool> {
        on_file!(self, try_lock())
    }

    /// Takes the exclusive lock, waiting for it.
    pub(crate) fn lock(&self) -> io::Result<()> {
        loop {
            match on_file!(self, lock()) {
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                other => return other,
            }
        }
    }

    pub(crate) fn unlock(&self) -> io::Result<()> {
        on_file!(self, unlock())
    }

    pub(crate) fn len(&self) -> io::Result<u64> {
        on_file!(self, len())
    }

    /// Returns whether the file, which was opened at `path`, has been removed from its directory.
    pub(crate) fn is_unlinked(&self, path: &Path) -> bool {
        on_file!(self, is_unlinked(path))
    }
}
