//! Modes of opening a file, and metadata of files.

/// Mode of opening a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Access {
    /// An existing file, for reading.
    Read,
    /// An existing file, for reading and writing.
    Write,
    /// For reading and writing; created if it is missing.
    Create,
    /// For reading and writing; fails if the file exists.
    CreateNew,
}

/// Metadata of a file or directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FileStatus {
    /// Size in bytes.
    pub(crate) len: u64,
    /// Time of the last change of the contents, in nanoseconds since the Unix epoch.
    pub(crate) modified: u128,
    /// Device, inode, and seconds and nanoseconds of the last status change; zeros where the system
    /// does not provide them.
    pub(crate) identity: [i128; 4],
}
