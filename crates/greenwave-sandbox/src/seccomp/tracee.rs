//! Reads the memory, the working directory and the open files of a thread that is stopped in a
//! call.

use std::cell::RefCell;
use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

use super::call::Base;

/// A thread that is stopped in a call.
///
/// The thread may be killed at any moment and its number reused. Data that was read from it is
/// valid only if [`is_waiting`](Self::is_waiting) returns true afterwards.
#[derive(Debug, Clone, Copy)]
pub(super) struct Tracee<'a> {
    pub(super) thread: u32,
    /// The identifier of the notification about the call.
    pub(super) call: u64,
    pub(super) listener: BorrowedFd<'a>,
    /// The memory that was read during this call.
    pub(super) reads: &'a Reads,
}

/// The parts of a thread's memory that were read during one call, with their content.
///
/// The kernel reads them again when the call continues. Another thread may change them in between.
#[derive(Debug, Default)]
pub(super) struct Reads(RefCell<ReadParts>);

#[derive(Debug, Default)]
struct ReadParts {
    /// Address and length of each part.
    parts: Vec<(u64, usize)>,
    /// The content of all parts.
    content: Vec<u8>,
    /// A buffer for the comparison.
    again: Vec<u8>,
}

impl Reads {
    /// Removes all parts.
    pub(super) fn clear(&self) {
        let mut reads = self.0.borrow_mut();
        reads.parts.clear();
        reads.content.clear();
    }

    fn add(&self, address: u64, content: &[u8]) {
        let mut reads = self.0.borrow_mut();
        reads.parts.push((address, content.len()));
        reads.content.extend_from_slice(content);
    }
}

/// Maximum length of a path including its terminator, in bytes.
const PATH_BYTES_MAX: usize = libc::PATH_MAX as usize;
/// The smallest page size of any architecture, in bytes. A read that does not cross a multiple of
/// it succeeds or fails as a whole.
const PAGE_BYTES: u64 = 4096;
/// Maximum number of parts of memory that are read with one call.
const PARTS_MAX: usize = 8;

impl Tracee<'_> {
    /// Returns whether the thread still waits in this call.
    pub(super) fn is_waiting(&self) -> bool {
        let mut call = self.call;
        let request = libc::SECCOMP_IOCTL_NOTIF_ID_VALID;
        // SAFETY: the request takes a pointer to a `u64` and only reads it; `call` lives until the
        // call returns. `listener` is an open seccomp descriptor for the duration of the borrow;
        // any other descriptor would fail with `ENOTTY`.
        unsafe { libc::ioctl(self.listener.as_raw_fd(), request, &raw mut call) == 0 }
    }

    /// Reads a path from the thread's memory. Returns `None` if it is too long or not readable, so
    /// that the call is going to fail regardless of the files that exist.
    pub(super) fn path(&self, address: u64) -> io::Result<Option<Vec<u8>>> {
        let mut path = Vec::with_capacity(256);
        let mut chunk = 256;
        while address != 0 && path.len() < PATH_BYTES_MAX {
            let Some(at) = address.checked_add(path.len() as u64) else { return Ok(None) };
            let start = path.len();
            path.resize(start + chunk.min((PAGE_BYTES - at % PAGE_BYTES) as usize), 0);
            if !self.read(at, &mut path[start..])? {
                return Ok(None);
            }
            if let Some(end) = path[start..].iter().position(|byte| *byte == 0) {
                // Other threads may change the memory behind the path.
                self.reads.add(address, &path[..=start + end]);
                path.truncate(start + end);
                return Ok((path.len() < PATH_BYTES_MAX).then_some(path));
            }
            chunk = PAGE_BYTES as usize;
        }
        Ok(None)
    }

    /// Reads numbers from the thread's memory. Returns `None` if they are not readable.
    pub(super) fn numbers<const N: usize>(&self, address: u64) -> io::Result<Option<[u64; N]>> {
        const { assert!(N <= 8, "the buffer holds eight numbers") };
        let mut numbers = [0_u8; 64];
        let is_readable = self.read_structure(address, &mut numbers[..N * 8])?;
        let number = |at: usize| {
            u64::from_ne_bytes(numbers[at * 8..][..8].try_into().expect("the slice has eight bytes"))
        };
        Ok(is_readable.then(|| std::array::from_fn(number)))
    }

    /// Fills a buffer from a structure in the thread's memory that the kernel reads as a whole.
    /// Returns `false` if the address is not readable.
    pub(super) fn read_structure(&self, address: u64, into: &mut [u8]) -> io::Result<bool> {
        let is_readable = self.read(address, into)?;
        if is_readable {
            self.reads.add(address, into);
        }
        Ok(is_readable)
    }

    /// Returns whether all memory that was read during this call still has the same content. The
    /// caller itself waits, so that a difference shows that another thread writes to it.
    pub(super) fn has_stable_memory(&self) -> bool {
        let mut reads = self.reads.0.borrow_mut();
        let ReadParts { parts, content, again } = &mut *reads;
        if parts.is_empty() {
            return true;
        }
        again.clear();
        again.resize(content.len(), 0);
        let mut filled = 0;
        for chunk in parts.chunks(PARTS_MAX) {
            let length: usize = chunk.iter().map(|(_, length)| length).sum();
            if !matches!(self.read_parts(chunk, &mut again[filled..filled + length]), Ok(true)) {
                return false;
            }
            filled += length;
        }
        content == again
    }

    fn read(&self, address: u64, into: &mut [u8]) -> io::Result<bool> {
        self.read_parts(&[(address, into.len())], into)
    }

    /// Fills a buffer from at most [`PARTS_MAX`] parts of the thread's memory with one call.
    fn read_parts(&self, parts: &[(u64, usize)], into: &mut [u8]) -> io::Result<bool> {
        let local = libc::iovec { iov_base: into.as_mut_ptr().cast(), iov_len: into.len() };
        let mut remote = [libc::iovec { iov_base: std::ptr::null_mut(), iov_len: 0 }; PARTS_MAX];
        for (remote, (address, length)) in remote.iter_mut().zip(parts) {
            *remote = libc::iovec { iov_base: *address as *mut libc::c_void, iov_len: *length };
        }
        let (thread, count) = (self.thread as libc::pid_t, parts.len().min(PARTS_MAX) as libc::c_ulong);
        // SAFETY: both vectors live until the call returns, and the counts are right. The kernel
        // writes at most `iov_len` bytes to `local.iov_base`, which is the exclusively borrowed
        // `into`. The remote addresses belong to another process: they are never dereferenced here,
        // and an invalid one fails with `EFAULT`.
        let count = unsafe { libc::process_vm_readv(thread, &raw const local, 1, remote.as_ptr(), count, 0) };
        match count {
            count if count == into.len() as isize => Ok(true),
            0.. => Ok(false),
            _ => match io::Error::last_os_error() {
                error if error.raw_os_error() == Some(libc::EFAULT) => Ok(false),
                error => Err(error),
            },
        }
    }

    /// Returns the path of the directory that a relative path starts from, or `None` if it has no
    /// path: it was removed, or the descriptor is not a file or not open.
    pub(super) fn base(&self, base: Base) -> io::Result<Option<PathBuf>> {
        let link = match base {
            Base::WorkingDirectory => format!("/proc/{}/cwd", self.thread),
            Base::Descriptor(descriptor) => format!("/proc/{}/fd/{descriptor}", self.thread),
        };
        match magic_link_target(&link) {
            // The descriptor is not open: the call is going to fail regardless of the files that
            // exist.
            Err(error) if error.kind() == io::ErrorKind::NotFound && base != Base::WorkingDirectory => {
                Ok(None)
            }
            result => result,
        }
    }

    /// Returns the inode number of the socket that is open as a descriptor.
    pub(super) fn socket_inode(&self, descriptor: libc::c_int) -> Option<u64> {
        let target = fs::read_link(format!("/proc/{}/fd/{descriptor}", self.thread)).ok()?;
        target.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok()
    }

    /// Returns the directory of the tables of the thread's network namespace.
    pub(super) fn net_directory(&self) -> PathBuf {
        PathBuf::from(format!("/proc/{}/net", self.thread))
    }
}

/// Returns the target of a link in `/proc` that the kernel resolves by itself, or `None` if the
/// target has no path.
pub(super) fn magic_link_target(link: &str) -> io::Result<Option<PathBuf>> {
    let target = fs::read_link(link)?.into_os_string().into_vec();
    if !target.starts_with(b"/") {
        return Ok(None);
    }
    // The suffix alone is no proof, because a file name may end with it.
    if target.ends_with(b" (deleted)") && fs::metadata(link).is_ok_and(|file| file.nlink() == 0) {
        return Ok(None);
    }
    Ok(Some(PathBuf::from(OsString::from_vec(target))))
}
