//! Makes the changes of [`Setup`] with system calls of Linux.

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::ptr;

use libc::{c_int, c_long, c_ulong, sock_filter, sock_fprog};
use rustix::fs::{Mode, OFlags, open};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};

use super::Setup;
use crate::descriptors;

/// Number of `mount_setattr`, which has one number on all architectures.
const SYS_MOUNT_SETATTR: c_long = 442;
/// Flag of `mount_setattr`: also the mounts below.
const AT_RECURSIVE: c_int = 0x8000;
/// Mode of directories and files that become mount points.
const MOUNT_POINT_MODE: Mode = Mode::from_raw_mode(0o755);
/// The highest number that a capability may get.
const CAPABILITY_MAX: u64 = 63;
/// Maximum length of a line that maps one id, in bytes.
const MAPPING_BYTES_MAX: usize = 32;
/// Version of the structures of `capset(2)` with 64 capabilities.
const CAPABILITY_VERSION: u32 = 0x2008_0522;

/// The argument of `mount_setattr`.
#[repr(C)]
struct MountAttributes {
    set: u64,
    clear: u64,
    propagation: u64,
    user_namespace: u64,
}

/// The header of `capget` and `capset`.
#[repr(C)]
struct CapabilityHeader {
    version: u32,
    process: c_int,
}

/// 32 capabilities of each set.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Capabilities {
    effective: u32,
    permitted: u32,
    inheritable: u32,
}

/// Makes a change in the calling thread.
pub(super) fn apply(setup: &Setup) -> io::Result<()> {
    match setup {
        // Handled by the caller on every system.
        Setup::Inherit(_) => Ok(()),
        Setup::Place { file, number } => {
            // SAFETY: the call has no pointers. It closes what `number` refers to, which nothing in
            // the child uses before it executes its program.
            check(c_long::from(unsafe { libc::dup2(file.as_raw_fd(), *number) }))
        }
        Setup::NoNewPrivileges => no_new_privileges(),
        Setup::Restrict(rules) => {
            // SAFETY: the call has no pointers. `rules` is open for the duration of the borrow.
            check(unsafe { libc::syscall(libc::SYS_landlock_restrict_self, rules.as_raw_fd(), 0) })
        }
        Setup::ReportCalls { filter, socket, secret } => {
            let listener = install_filter(filter)?;
            descriptors::send_one_secretly(socket, &listener, *secret)
        }
        Setup::FilterCalls { filter, .. } => {
            no_new_privileges()?;
            // Without this flag, kernels before 5.16 switch speculation off, which slows programs.
            seccomp(filter, libc::SECCOMP_FILTER_FLAG_SPEC_ALLOW).map(drop)
        }
        Setup::Namespaces { flags, identity } => {
            let user = if identity.is_some() { libc::CLONE_NEWUSER } else { 0 };
            // SAFETY: the call has no pointers. With `CLONE_FILES`, it would end the sharing of
            // descriptors between threads; the child has one thread.
            check(c_long::from(unsafe { libc::unshare(flags | user) }))?;
            identity.map_or(Ok(()), keep_identity)
        }
        // A supervisor replaces it.
        Setup::OwnProcesses { .. } => Ok(()),
        Setup::Mount { source, target, kind, flags, options } => {
            mount(source, target, pointer(kind), *flags, pointer(options))
        }
        Setup::Cover(path) => cover(path),
        Setup::SetAttributes { path, set, clear, recursive } => {
            set_attributes(path, *set, *clear, *recursive)
        }
        Setup::Create { path, directory } => create(path, *directory),
        Setup::Link { target, path } => Ok(rustix::fs::symlink(target.as_c_str(), path.as_c_str())?),
        Setup::DropCapabilities(capabilities) => drop_capabilities(*capabilities),
        Setup::LoopbackUp => loopback_up(),
        Setup::Enter(path) => Ok(rustix::process::chdir(path.as_c_str())?),
    }
}

/// Mounts a file system. `kind` and `options` are null, or C strings.
fn mount(
    source: &CStr,
    target: &CStr,
    kind: *const libc::c_char,
    flags: c_ulong,
    options: *const libc::c_char,
) -> io::Result<()> {
    // SAFETY: the pointers are null, or C strings that outlive the call and that it only reads.
    check(c_long::from(unsafe { libc::mount(source.as_ptr(), target.as_ptr(), kind, flags, options.cast()) }))
}

/// Mounts the null device on a file. Sockets of other programs disappear at any time.
fn cover(path: &CStr) -> io::Result<()> {
    let null = ptr::null();
    mount(c"/dev/null", path, null, libc::MS_BIND, null).or_else(|error| {
        let is_gone = rustix::fs::lstat(path).is_err_and(|error| error == Errno::NOENT);
        if is_gone { Ok(()) } else { Err(error) }
    })
}

/// Installs a seccomp filter on the calling thread and everything that it starts. It cannot be
/// removed.
///
/// Returns the descriptor on which calls are reported. Does not allocate, so that it may be called
/// between `fork` and `exec`.
///
/// # Errors
/// The error of `seccomp(2)`.
pub fn install_filter(filter: &[sock_filter]) -> io::Result<OwnedFd> {
    // With this flag, signals that do not kill wait until a call is answered. Without it, a program
    // with a fast timer may restart a call forever, because the timer interrupts it before it is
    // answered. Linux 5.19 introduced the flag.
    let listener = libc::SECCOMP_FILTER_FLAG_NEW_LISTENER;
    let descriptor = match install_with(filter, listener | libc::SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV) {
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => install_with(filter, listener)?,
        result => result?,
    };
    // SAFETY: with `NEW_LISTENER`, the call returns a descriptor that it has just opened for this
    // process, so nothing else owns it. Descriptors fit into a `c_int`.
    Ok(unsafe { OwnedFd::from_raw_fd(descriptor as c_int) })
}

fn install_with(filter: &[sock_filter], flags: c_ulong) -> io::Result<c_long> {
    match seccomp(filter, flags) {
        // An unprivileged process may install filters only if it can never gain privileges.
        Err(error) if error.raw_os_error() == Some(libc::EACCES) => {
            no_new_privileges()?;
            seccomp(filter, flags)
        }
        result => result,
    }
}

fn seccomp(filter: &[sock_filter], flags: c_ulong) -> io::Result<c_long> {
    let program = sock_fprog { len: filter.len() as u16, filter: filter.as_ptr().cast_mut() };
    // SAFETY: `program` lives until the call returns and points to `len` instructions. The kernel
    // copies them and writes nothing, so the cast from `*const` is sound.
    let result =
        unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, flags, &raw const program) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

fn no_new_privileges() -> io::Result<()> {
    Ok(rustix::thread::set_no_new_privs(true)?)
}

/// Maps a user and a group to themselves, in a new user namespace.
pub(crate) fn keep_identity((user, group): (u32, u32)) -> io::Result<()> {
    write(c"/proc/self/setgroups", b"deny")?;
    write_mapping(c"/proc/self/uid_map", user)?;
    write_mapping(c"/proc/self/gid_map", group)
}

fn write_mapping(path: &CStr, id: u32) -> io::Result<()> {
    let mut text = [0; MAPPING_BYTES_MAX];
    let mut rest = text.as_mut_slice();
    // Formatting numbers does not allocate.
    io::Write::write_fmt(&mut rest, format_args!("{id} {id} 1"))?;
    let length = MAPPING_BYTES_MAX - rest.len();
    write(path, &text[..length])
}

/// Writes to an existing file with one call, as files of `/proc` require.
fn write(path: &CStr, content: &[u8]) -> io::Result<()> {
    let file = open(path, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty())?;
    rustix::io::write(&file, content)?;
    Ok(())
}

/// Creates an empty directory or file unless there is one.
fn create(path: &CStr, directory: bool) -> io::Result<()> {
    if directory {
        return match rustix::fs::mkdir(path, MOUNT_POINT_MODE) {
            Err(Errno::EXIST) => Ok(()),
            result => Ok(result?),
        };
    }
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    drop(open(path, flags, MOUNT_POINT_MODE)?);
    Ok(())
}

fn set_attributes(path: &CStr, set: u64, clear: u64, recursive: bool) -> io::Result<()> {
    let attributes = MountAttributes { set, clear, propagation: 0, user_namespace: 0 };
    let flags = if recursive { AT_RECURSIVE } else { 0 };
    // SAFETY: the kernel only reads the path, a C string, and the structure, whose size is passed.
    // Both outlive the call.
    check(unsafe {
        libc::syscall(
            SYS_MOUNT_SETATTR,
            libc::AT_FDCWD,
            path.as_ptr(),
            flags,
            &raw const attributes,
            size_of::<MountAttributes>(),
        )
    })
}

/// Removes capabilities from the bounding, ambient, effective, permitted and inheritable sets.
fn drop_capabilities(capabilities: u64) -> io::Result<()> {
    for number in 0..=CAPABILITY_MAX {
        if capabilities & (1 << number) != 0 {
            // Fails for a number that this kernel does not have, and without `CAP_SETPCAP`, which
            // a process without capabilities does not need.
            // SAFETY: the operation has no pointers.
            unsafe { libc::prctl(libc::PR_CAPBSET_DROP, number as c_ulong, 0, 0, 0) };
        }
    }
    // Fails only on kernels without ambient capabilities.
    let _ = rustix::thread::clear_ambient_capability_set();
    let header = CapabilityHeader { version: CAPABILITY_VERSION, process: 0 };
    let mut sets = [Capabilities::default(); 2];
    // SAFETY: version 3 reads the header and writes two structures. Both outlive the call.
    check(unsafe { libc::syscall(libc::SYS_capget, &raw const header, sets.as_mut_ptr()) })?;
    for (set, mask) in sets.iter_mut().zip([capabilities as u32, (capabilities >> 32) as u32]) {
        set.effective &= !mask;
        set.permitted &= !mask;
        set.inheritable &= !mask;
    }
    // SAFETY: version 3 reads the header and two structures. Both outlive the call.
    check(unsafe { libc::syscall(libc::SYS_capset, &raw const header, sets.as_ptr()) })
}

/// Sets the flag `IFF_UP` of the interface `lo`.
fn loopback_up() -> io::Result<()> {
    let socket = socket_with(AddressFamily::INET, SocketType::DGRAM, SocketFlags::CLOEXEC, None)?;
    // SAFETY: `ifreq` consists of integers and a union of plain data, for which zeros are valid.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    request.ifr_name[0] = b'l' as libc::c_char;
    request.ifr_name[1] = b'o' as libc::c_char;
    request.ifr_ifru.ifru_flags = (libc::IFF_UP | libc::IFF_RUNNING) as libc::c_short;
    // SAFETY: the request reads one `ifreq` from the pointer, and `request` outlives the call.
    check(c_long::from(unsafe {
        libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS as _, &raw const request)
    }))
}

/// Returns a null pointer for an empty string.
fn pointer(text: &CStr) -> *const libc::c_char {
    if text.is_empty() { ptr::null() } else { text.as_ptr() }
}

fn check(result: c_long) -> io::Result<()> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
