//! Passes file descriptors through Unix sockets (`SCM_RIGHTS`).

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, recvmsg, sendmsg,
};

/// Size of an ancillary message with one descriptor, in bytes.
const ONE_BYTES: usize = rustix::cmsg_space!(ScmRights(1));
/// Flags of the `sendmsg` call of [`send_one`]: no signal, and a flag that only receivers interpret.
///
/// A filter that reports calls must not report this call, which delivers the filter's own
/// descriptor: it would never be answered. Programs do not send with the second flag.
pub const SEND_ONE_FLAGS: u32 = (libc::MSG_NOSIGNAL | libc::MSG_TRUNC) as u32;
/// Maximum number of descriptors in one message, set by the kernel (`SCM_MAX_FD`).
pub(crate) const DESCRIPTORS_MAX: usize = 253;
/// Size of an ancillary message with the maximum number of descriptors, in bytes.
const MANY_BYTES: usize = rustix::cmsg_space!(ScmRights(DESCRIPTORS_MAX));

/// Sends a descriptor with one byte. Makes one system call and does not allocate, so that it may be
/// called between `fork` and `exec`.
///
/// # Errors
/// The error of `sendmsg(2)`.
pub fn send_one(socket: &OwnedFd, descriptor: &OwnedFd) -> io::Result<()> {
    let mut space = [MaybeUninit::uninit(); ONE_BYTES];
    let mut control = SendAncillaryBuffer::new(&mut space);
    let descriptors = [descriptor.as_fd()];
    if !control.push(SendAncillaryMessage::ScmRights(&descriptors)) {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let flags = SendFlags::from_bits_retain(SEND_ONE_FLAGS);
    sendmsg(socket, &[IoSlice::new(&[0])], &mut control, flags)?;
    Ok(())
}

/// Receives a descriptor that [`send_one`] sent. Returns `None` if the other end was closed without
/// sending one.
///
/// # Errors
/// The error of `recvmsg(2)`.
pub fn receive_one(socket: &OwnedFd) -> io::Result<Option<OwnedFd>> {
    let mut byte = [0];
    Ok(receive(socket, &mut byte)?.1.into_iter().next())
}

/// Sends the start of `bytes`, together with all descriptors. Returns the number of bytes sent.
pub(crate) fn send(
    socket: BorrowedFd<'_>,
    bytes: &[u8],
    descriptors: &[BorrowedFd<'_>],
) -> io::Result<usize> {
    let mut space = [MaybeUninit::uninit(); MANY_BYTES];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !descriptors.is_empty() && !control.push(SendAncillaryMessage::ScmRights(descriptors)) {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    Ok(rustix::io::retry_on_intr(|| {
        sendmsg(socket, &[IoSlice::new(bytes)], &mut control, SendFlags::NOSIGNAL)
    })?)
}

/// Receives bytes and the descriptors that came with them. Returns 0 bytes at the end of the
/// stream.
pub(crate) fn receive(socket: &OwnedFd, bytes: &mut [u8]) -> io::Result<(usize, Vec<OwnedFd>)> {
    let mut space = [MaybeUninit::uninit(); MANY_BYTES];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut parts = [IoSliceMut::new(bytes)];
    let received =
        rustix::io::retry_on_intr(|| recvmsg(socket, &mut parts, &mut control, RecvFlags::CMSG_CLOEXEC))?;
    let mut descriptors = Vec::new();
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(received) = message {
            descriptors.extend(received);
        }
    }
    Ok((received.bytes, descriptors))
}
