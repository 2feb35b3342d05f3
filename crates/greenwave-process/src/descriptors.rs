//! Passes file descriptors through Unix sockets (`SCM_RIGHTS`).

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, recvmsg, sendmsg,
};

/// Size of an ancillary message with one descriptor, in bytes.
const ONE_BYTES: usize = rustix::cmsg_space!(ScmRights(1));
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
    sendmsg(socket, &[IoSlice::new(&[0])], &mut control, SendFlags::NOSIGNAL)?;
    Ok(())
}

/// Sends a descriptor like [`send_one`], in a `sendmsg` call that a filter recognizes by its unused
/// fourth and fifth argument.
///
/// A filter that reports calls must let this call pass, which delivers the filter's own descriptor:
/// nobody could answer the report. Nothing but a secret distinguishes the call, so that the command
/// cannot make one like it.
///
/// # Errors
/// The error of `sendmsg(2)`.
pub(crate) fn send_one_secretly(socket: &OwnedFd, descriptor: &OwnedFd, secret: [u64; 2]) -> io::Result<()> {
    let mut byte = 0_u8;
    let mut part = libc::iovec { iov_base: (&raw mut byte).cast(), iov_len: 1 };
    let mut control = Control { bytes: [0; ONE_BYTES] };
    // SAFETY: `msghdr` consists of integers and pointers, for which zeros are valid.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    message.msg_iov = &raw mut part;
    message.msg_iovlen = 1;
    message.msg_control = (&raw mut control).cast();
    message.msg_controllen = ONE_BYTES as _;
    // SAFETY: the control buffer is aligned and has room for one header with one descriptor.
    unsafe {
        let header = libc::CMSG_FIRSTHDR(&raw const message);
        (*header).cmsg_level = libc::SOL_SOCKET;
        (*header).cmsg_type = libc::SCM_RIGHTS;
        (*header).cmsg_len = libc::CMSG_LEN(size_of::<libc::c_int>() as u32) as _;
        libc::CMSG_DATA(header).cast::<libc::c_int>().write_unaligned(descriptor.as_raw_fd());
    }
    let [first, second] = secret;
    // SAFETY: the message and everything that it points to live until the call returns. The kernel
    // ignores the last two arguments.
    let sent = unsafe {
        libc::syscall(
            libc::SYS_sendmsg,
            socket.as_raw_fd(),
            &raw const message,
            libc::MSG_NOSIGNAL,
            first,
            second,
        )
    };
    if sent < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// A buffer of an ancillary message, with the alignment of its header.
#[repr(C, align(8))]
struct Control {
    bytes: [u8; ONE_BYTES],
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
