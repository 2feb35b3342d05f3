//! The seam between the log and the operating system: every file operation of this crate goes through a [`Disk`].
//!
//! Without the feature `simulation` both enums have one variant, so the seam costs nothing. With it, a log can run on the file
//! system in memory of [`crate::simulation`], which interleaves processes and crashes at every call in this file.

use std::io;
use std::path::Path;
use std::time::Duration;

use crate::access::{Access, FileStatus};

mod os;

/// Where a log's files are.
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

/// Calls the function of the same name on whichever disk this is.
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

    /// The names of the regular files in a directory. Those that are not UTF-8 are left out: no file of a log has such a name.
    pub(crate) fn names(&self, dir: &Path) -> io::Result<Vec<String>> {
        on_disk!(self, names(dir))
    }

    /// The names of everything in a directory, in order. Regular files have their names, others have a `/` behind it.
    pub(crate) fn all_names(&self, dir: &Path) -> io::Result<Vec<String>> {
        on_disk!(self, all_names(dir))
    }

    pub(crate) fn status(&self, path: &Path) -> io::Result<FileStatus> {
        on_disk!(self, status(path))
    }

    /// A number that another directory, a copy say, is unlikely to have.
    pub(crate) fn identity(&self, dir: &Path) -> io::Result<u64> {
        on_disk!(self, identity(dir))
    }

    pub(crate) fn remove(&self, path: &Path) -> io::Result<()> {
        on_disk!(self, remove(path))
    }

    /// Makes a directory with mode 0700, and those above it, unless it exists.
    pub(crate) fn create_dir(&self, dir: &Path) -> io::Result<()> {
        on_disk!(self, create_dir(dir))
    }

    /// Makes creations and removals of files in a directory durable.
    pub(crate) fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        on_disk!(self, sync_dir(dir))
    }

    /// An unpredictable number.
    pub(crate) fn random(&self) -> u64 {
        on_disk!(self, random())
    }

    /// Lets others go on for a while.
    pub(crate) fn pause(&self, duration: Duration) {
        on_disk!(self, pause(duration));
    }
}

impl File {
    /// Reads until the buffer or the file ends; returns how much.
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

    /// Fills the buffer; `false` if the file ends before.
    pub(crate) fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<bool> {
        Ok(self.read_at(buf, offset)? == buf.len())
    }

    /// Fills the buffer without waiting for the disk; `false` if that cannot be done.
    pub(crate) fn read_at_nowait(&self, buf: &mut [u8], offset: u64) -> bool {
        on_file!(self, read_at_nowait(buf, offset))
    }

    /// Writes all of it, or fails with a part of it written.
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

    /// Takes the exclusive lock if nobody has it.
    pub(crate) fn try_lock(&self) -> io::Result<bool> {
        on_file!(self, try_lock())
    }

    /// Waits for the exclusive lock.
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

    /// Whether the file at `path`, which this was opened as, has been removed from its directory.
    pub(crate) fn is_unlinked(&self, path: &Path) -> bool {
        on_file!(self, is_unlinked(path))
    }
}
