//! A thread that waits for its call to be answered: its memory, its folder, its open files. Knows nothing of what calls mean.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

use super::call::Base;

/// A thread that is stopped in a call. It may be gone at any moment: what is learned of it counts only if it is there afterwards.
#[derive(Debug, Clone, Copy)]
pub(super) struct Tracee<'a> {
    pub(super) thread: u32,
    pub(super) call: u64,
    pub(super) listener: BorrowedFd<'a>,
}

/// Longest path that the kernel takes, with its end.
const PATH_BYTES_MAX: usize = libc::PATH_MAX as usize;
/// No page is smaller, so that what does not cross a multiple of this can be read in one go.
const PAGE: u64 = 4096;

impl Tracee<'_> {
    /// Whether it still waits for the answer. If not, its number may belong to somebody else already.
    pub(super) fn is_waiting(&self) -> bool {
        let mut call = self.call;
        let request = libc::SECCOMP_IOCTL_NOTIF_ID_VALID;
        // SAFETY: the request reads one number from there.
        unsafe { libc::ioctl(self.listener.as_raw_fd(), request, &raw mut call) == 0 }
    }

    /// A path in its memory; `None` if it is too long or not there, so that the call will fail whatever files there are.
    pub(super) fn path(&self, address: u64) -> io::Result<Option<Vec<u8>>> {
        let mut path = Vec::with_capacity(256);
        let mut chunk = 256;
        while address != 0 && path.len() < PATH_BYTES_MAX {
            let Some(at) = address.checked_add(path.len() as u64) else { return Ok(None) };
            let start = path.len();
            path.resize(start + chunk.min((PAGE - at % PAGE) as usize), 0);
            if !self.read(at, &mut path[start..])? {
                return Ok(None);
            }
            if let Some(end) = path[start..].iter().position(|byte| *byte == 0) {
                path.truncate(start + end);
                return Ok((path.len() < PATH_BYTES_MAX).then_some(path));
            }
            chunk = PAGE as usize;
        }
        Ok(None)
    }

    /// Numbers in its memory.
    pub(super) fn numbers<const N: usize>(&self, address: u64) -> io::Result<Option<[u64; N]>> {
        let mut numbers = [0_u8; 64];
        let bytes = &mut numbers[..N * 8];
        let is_there = self.read(address, bytes)?;
        let number = |at: usize| {
            u64::from_ne_bytes(numbers[at * 8..][..8].try_into().expect("eight bytes were taken"))
        };
        Ok(is_there.then(|| std::array::from_fn(number)))
    }

    /// Bytes in its memory; `false` if there are none.
    pub(super) fn read(&self, address: u64, into: &mut [u8]) -> io::Result<bool> {
        let local = libc::iovec { iov_base: into.as_mut_ptr().cast(), iov_len: into.len() };
        let remote = libc::iovec { iov_base: address as *mut libc::c_void, iov_len: into.len() };
        let thread = self.thread as libc::pid_t;
        // SAFETY: the kernel writes into `into` only, whose length it is told.
        let count = unsafe { libc::process_vm_readv(thread, &raw const local, 1, &raw const remote, 1, 0) };
        match count {
            count if count == into.len() as isize => Ok(true),
            0.. => Ok(false),
            _ => match io::Error::last_os_error() {
                error if error.raw_os_error() == Some(libc::EFAULT) => Ok(false),
                error => Err(error),
            },
        }
    }

    /// Where a path starts; `None` if that is no place with a path (it was removed, or is no file at all).
    pub(super) fn base(&self, base: Base) -> io::Result<Option<PathBuf>> {
        let link = match base {
            Base::Directory => format!("/proc/{}/cwd", self.thread),
            Base::File(file) => format!("/proc/{}/fd/{file}", self.thread),
        };
        match target(&link) {
            // No such open file: the call will fail, whatever files there are.
            Err(error) if error.kind() == io::ErrorKind::NotFound && base != Base::Directory => Ok(None),
            result => result,
        }
    }
}

/// Where one of the kernel's links of a process leads; `None` if to nothing that has a path.
pub(super) fn target(link: &str) -> io::Result<Option<PathBuf>> {
    let target = fs::read_link(link)?.into_os_string().into_vec();
    if !target.starts_with(b"/") {
        return Ok(None);
    }
    // Not by the text alone: a file may really be called so.
    if target.ends_with(b" (deleted)") && fs::metadata(link).is_ok_and(|file| file.nlink() == 0) {
        return Ok(None);
    }
    Ok(Some(PathBuf::from(OsString::from_vec(target))))
}
