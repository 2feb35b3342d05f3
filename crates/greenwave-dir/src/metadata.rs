//! Metadata of entries of a directory.

use std::fmt;
use std::io;
use std::os::fd::AsFd;

use rustix::fs::{FileType, Stat, fstat};

/// Kind of an entry of a directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FileKind {
    /// A regular file.
    File,
    /// A directory.
    Directory,
    /// A symbolic link, wherever it leads.
    Link,
    /// A named pipe.
    Pipe,
    /// A socket.
    Socket,
    /// A device.
    Device,
}

impl FileKind {
    pub(crate) fn of(kind: FileType) -> Self {
        match kind {
            FileType::RegularFile => Self::File,
            FileType::Directory => Self::Directory,
            FileType::Symlink => Self::Link,
            FileType::Fifo => Self::Pipe,
            FileType::Socket => Self::Socket,
            _ => Self::Device,
        }
    }

    /// Returns whether the entry is a pipe, a socket or a device.
    pub fn is_special(self) -> bool {
        matches!(self, Self::Pipe | Self::Socket | Self::Device)
    }
}

/// The kind with its article: `a symbolic link`.
impl fmt::Display for FileKind {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::File => "a file",
            Self::Directory => "a directory",
            Self::Link => "a symbolic link",
            Self::Pipe => "a pipe",
            Self::Socket => "a socket",
            Self::Device => "a device",
        })
    }
}

/// Metadata of an entry. That of a symbolic link describes the link itself.
#[derive(Debug, Clone, Copy)]
pub struct Metadata(pub(crate) Stat);

impl Metadata {
    /// Reads the metadata of an open file.
    ///
    /// # Errors
    /// Those of the operating system.
    pub fn of(file: impl AsFd) -> io::Result<Self> {
        Ok(Self(fstat(file)?))
    }

    /// Returns the kind of the entry.
    pub fn kind(&self) -> FileKind {
        FileKind::of(FileType::from_raw_mode(self.0.st_mode))
    }

    /// Returns whether the entry is a regular file.
    pub fn is_file(&self) -> bool {
        self.kind() == FileKind::File
    }

    /// Returns whether the entry is a directory.
    pub fn is_dir(&self) -> bool {
        self.kind() == FileKind::Directory
    }

    /// Returns the permissions: the lowest twelve bits of the mode.
    #[cfg_attr(
        target_os = "linux",
        expect(clippy::unnecessary_cast, reason = "the mode has 16 bits on other systems")
    )]
    pub fn permissions(&self) -> u32 {
        self.0.st_mode as u32 & 0o7777
    }

    /// Returns the size in bytes.
    pub fn len(&self) -> u64 {
        u64::try_from(self.0.st_size).unwrap_or(0)
    }

    /// Returns whether the size is zero.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns the number of hard links.
    #[cfg_attr(
        all(target_os = "linux", target_pointer_width = "64"),
        expect(clippy::unnecessary_cast, reason = "the number has 16 or 32 bits on other systems")
    )]
    pub fn links(&self) -> u64 {
        self.0.st_nlink as u64
    }

    /// Returns the numbers of the device and of the inode, which together identify the entry.
    #[cfg_attr(
        all(target_os = "linux", target_pointer_width = "64"),
        expect(clippy::unnecessary_cast, reason = "the numbers have other types on other systems")
    )]
    pub fn identity(&self) -> (u64, u64) {
        (self.0.st_dev as u64, self.0.st_ino as u64)
    }

    /// Returns the number of the user who owns the entry.
    pub fn owner(&self) -> u32 {
        self.0.st_uid
    }

    /// Returns the number of the group of the entry.
    pub fn group(&self) -> u32 {
        self.0.st_gid
    }

    /// Returns all fields.
    pub fn stat(&self) -> &Stat {
        &self.0
    }
}
