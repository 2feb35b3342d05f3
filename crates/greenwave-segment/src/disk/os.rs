//! File operations of the operating system.

use std::fs::OpenOptions;
use std::hash::{BuildHasher, RandomState};
use std::io;
use std::path::Path;
use std::time::{Duration, UNIX_EPOCH};

use crate::access::{Access, FileStatus};
use crate::format::directory_identity;

pub(super) fn open(path: &Path, access: Access) -> io::Result<std::fs::File> {
    let mut options = OpenOptions::new();
    options.read(true);
    match access {
        Access::Read => &mut options,
        Access::Write => options.write(true),
        Access::Create => options.write(true).create(true).truncate(false),
        Access::CreateNew => options.write(true).create_new(true),
    };
    // The directory may come from elsewhere, and has files only.
    #[cfg(target_os = "linux")]
    std::os::unix::fs::OpenOptionsExt::custom_flags(&mut options, REFUSED.bits().cast_signed());
    options.open(path)
}

/// Flags with which a symbolic link is not followed, and a pipe is not waited for.
#[cfg(target_os = "linux")]
const REFUSED: rustix::fs::OFlags = rustix::fs::OFlags::NOFOLLOW.union(rustix::fs::OFlags::NONBLOCK);

pub(super) fn names(dir: &Path) -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in std::fs::read_dir(dir)? {
        let entry = entry?;
        // A file that vanishes between the two calls is skipped.
        if entry.file_type().is_ok_and(|kind| kind.is_file()) {
            names.extend(entry.file_name().into_string());
        }
    }
    Ok(names)
}

pub(super) fn all_names(dir: &Path) -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in std::fs::read_dir(dir)? {
        let entry = entry?;
        let mut name = entry.file_name().to_string_lossy().into_owned();
        if !entry.file_type().is_ok_and(|kind| kind.is_file()) {
            name.push('/');
        }
        names.push(name);
    }
    names.sort_unstable();
    Ok(names)
}

pub(super) fn status(path: &Path) -> io::Result<FileStatus> {
    let metadata = path.metadata()?;
    let modified = metadata.modified()?.duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos();
    #[cfg(unix)]
    let identity = {
        use std::os::unix::fs::MetadataExt;
        [metadata.dev().into(), metadata.ino().into(), metadata.ctime().into(), metadata.ctime_nsec().into()]
    };
    #[cfg(not(unix))]
    let identity = [0; 4];
    Ok(FileStatus { len: metadata.len(), modified, identity })
}

pub(super) fn identity(dir: &Path) -> io::Result<u64> {
    #[cfg(unix)]
    {
        use std::os::unix::fs::MetadataExt;
        let metadata = dir.metadata()?;
        Ok(directory_identity(metadata.dev(), metadata.ino()))
    }
    // Without inode numbers, copies of a directory cannot be recognised.
    #[cfg(not(unix))]
    {
        let _ = dir;
        Ok(directory_identity(0, 0))
    }
}

pub(super) fn remove(path: &Path) -> io::Result<()> {
    std::fs::remove_file(path)
}

pub(super) fn create_dir(dir: &Path) -> io::Result<()> {
    let mut builder = std::fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(dir)
}

/// An open directory; `None` where directories cannot be synced.
pub(super) type Directory = Option<std::fs::File>;

pub(super) fn open_directory(dir: &Path) -> io::Result<Directory> {
    if cfg!(windows) { Ok(None) } else { std::fs::File::open(dir).map(Some) }
}

pub(super) fn sync_directory(directory: &Directory) -> io::Result<()> {
    directory.as_ref().map_or(Ok(()), std::fs::File::sync_all)
}

/// Uses the seed of `RandomState`, which the operating system provides.
pub(super) fn random() -> u64 {
    RandomState::new().hash_one((std::process::id(), std::time::SystemTime::now()))
}

pub(super) fn pause(duration: Duration) {
    std::thread::sleep(duration);
}

pub(super) mod file {
    //! Operations on an open file, each one system call.

    use std::fs::File;
    use std::io;
    use std::path::Path;

    #[cfg(unix)]
    pub(in crate::disk) fn read_at(file: &File, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        std::os::unix::fs::FileExt::read_at(file, buf, offset)
    }

    #[cfg(windows)]
    pub(in crate::disk) fn read_at(file: &File, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        std::os::windows::fs::FileExt::seek_read(file, buf, offset)
    }

    #[cfg(unix)]
    pub(in crate::disk) fn write_at(file: &File, bytes: &[u8], offset: u64) -> io::Result<usize> {
        std::os::unix::fs::FileExt::write_at(file, bytes, offset)
    }

    #[cfg(windows)]
    pub(in crate::disk) fn write_at(file: &File, bytes: &[u8], offset: u64) -> io::Result<usize> {
        std::os::windows::fs::FileExt::seek_write(file, bytes, offset)
    }

    #[cfg(target_os = "linux")]
    pub(in crate::disk) fn read_at_nowait(file: &File, buf: &mut [u8], offset: u64) -> bool {
        use rustix::io::{ReadWriteFlags, preadv2};
        let len = buf.len();
        let bufs = &mut [io::IoSliceMut::new(buf)];
        // A short read means the end of the file or of its cached part. The blocking read
        // distinguishes them.
        preadv2(file, bufs, offset, ReadWriteFlags::NOWAIT).is_ok_and(|read| read == len)
    }

    /// No other system reports whether a read would wait.
    #[cfg(not(target_os = "linux"))]
    pub(in crate::disk) fn read_at_nowait(_: &File, _: &mut [u8], _: u64) -> bool {
        false
    }

    /// Uses the position of the file, which nothing else uses.
    #[cfg(any(target_os = "linux", target_os = "macos"))]
    pub(in crate::disk) fn next_data(file: &File, offset: u64) -> u64 {
        use rustix::fs::{SeekFrom, seek};
        match seek(file, SeekFrom::Data(offset)) {
            Ok(data) => data,
            Err(rustix::io::Errno::NXIO) => u64::MAX,
            // The file system does not know.
            Err(_) => offset,
        }
    }

    #[cfg(not(any(target_os = "linux", target_os = "macos")))]
    pub(in crate::disk) fn next_data(_: &File, offset: u64) -> u64 {
        offset
    }

    pub(in crate::disk) fn set_len(file: &File, len: u64) -> io::Result<()> {
        file.set_len(len)
    }

    pub(in crate::disk) fn sync_data(file: &File) -> io::Result<()> {
        file.sync_data()
    }

    #[cfg(unix)]
    pub(in crate::disk) fn try_lock(file: &File) -> io::Result<bool> {
        use rustix::fs::{FlockOperation, flock};
        match flock(file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(true),
            Err(rustix::io::Errno::WOULDBLOCK) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    #[cfg(unix)]
    pub(in crate::disk) fn lock(file: &File) -> io::Result<()> {
        Ok(rustix::fs::flock(file, rustix::fs::FlockOperation::LockExclusive)?)
    }

    #[cfg(unix)]
    pub(in crate::disk) fn unlock(file: &File) -> io::Result<()> {
        Ok(rustix::fs::flock(file, rustix::fs::FlockOperation::Unlock)?)
    }

    #[cfg(not(unix))]
    #[expect(clippy::incompatible_msrv, reason = "needs Rust 1.89 there")]
    pub(in crate::disk) fn try_lock(file: &File) -> io::Result<bool> {
        match file.try_lock() {
            Ok(()) => Ok(true),
            Err(std::fs::TryLockError::WouldBlock) => Ok(false),
            Err(std::fs::TryLockError::Error(error)) => Err(error),
        }
    }

    #[cfg(not(unix))]
    #[expect(clippy::incompatible_msrv, reason = "needs Rust 1.89 there")]
    pub(in crate::disk) fn lock(file: &File) -> io::Result<()> {
        file.lock()
    }

    #[cfg(not(unix))]
    #[expect(clippy::incompatible_msrv, reason = "needs Rust 1.89 there")]
    pub(in crate::disk) fn unlock(file: &File) -> io::Result<()> {
        file.unlock()
    }

    pub(in crate::disk) fn len(file: &File) -> io::Result<u64> {
        file.metadata().map(|metadata| metadata.len())
    }

    pub(in crate::disk) fn is_unlinked(file: &File, path: &Path) -> bool {
        #[cfg(unix)]
        {
            use std::os::unix::fs::MetadataExt;
            let _ = path;
            file.metadata().map_or(true, |metadata| metadata.nlink() == 0)
        }
        #[cfg(not(unix))]
        {
            let _ = file;
            !path.exists()
        }
    }
}
