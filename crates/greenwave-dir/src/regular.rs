//! Reads regular files that somebody else may have put at a path.

use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use rustix::fs::{FileType, OFlags, fstat};

use crate::{FileKind, Refused, wait_for_leases};

/// Opens a regular file for reading. Symbolic links are followed. Neither waits for the other end
/// of a pipe nor opens a device such as `/dev/zero`, which has no end. Waits for programs that have
/// a [lease](wait_for_leases) on the file.
///
/// # Errors
/// [`Refused`] for anything but a regular file, with the path that was passed. Otherwise those of
/// the operating system.
pub fn open_regular(path: impl AsRef<Path>) -> io::Result<File> {
    let path = path.as_ref();
    let flags = (OFlags::NONBLOCK | OFlags::NOCTTY).bits().cast_signed();
    let file = wait_for_leases(|| OpenOptions::new().read(true).custom_flags(flags).open(path))?;
    match FileKind::of(FileType::from_raw_mode(fstat(&file)?.st_mode)) {
        FileKind::File => Ok(file),
        kind => Err(Refused::error(path, kind, FileKind::File)),
    }
}

/// Returns the content of a regular file of at most `bytes_max` bytes.
///
/// # Errors
/// [`io::ErrorKind::FileTooLarge`], with the limit in the message, for a larger file. Otherwise as
/// [`open_regular`].
pub fn read_regular(path: impl AsRef<Path>, bytes_max: u64) -> io::Result<Vec<u8>> {
    let file = open_regular(path)?;
    let size = file.metadata()?.len();
    let mut content = Vec::new();
    if size <= bytes_max {
        content.reserve_exact(usize::try_from(size).unwrap_or(0));
        file.take(bytes_max.saturating_add(1)).read_to_end(&mut content)?;
    }
    if size > bytes_max || content.len() as u64 > bytes_max {
        let problem = format!("the file is larger than {bytes_max} bytes");
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, problem));
    }
    Ok(content)
}

/// Returns the content of a regular text file of at most `bytes_max` bytes.
///
/// # Errors
/// [`io::ErrorKind::InvalidData`] if the content is not UTF-8. Otherwise as [`read_regular`].
pub fn read_regular_text(path: impl AsRef<Path>, bytes_max: u64) -> io::Result<String> {
    let content = read_regular(path, bytes_max)?;
    let not_text = |_| io::Error::new(io::ErrorKind::InvalidData, "the file is not valid UTF-8");
    String::from_utf8(content).map_err(not_text)
}
