//! Opens files on behalf of a command that may not create them itself.
//!
//! Landlock permits a right for a directory with everything below it, and a writable mount permits
//! replacing links and changing the mode of the directory. Neither can permit new files in a
//! directory and protect its other entries. The command's calls that open files are therefore
//! reported, and those that name a permitted file are carried out here.

use std::cell::RefCell;
use std::collections::HashSet;
use std::ffi::{CString, OsStr, OsString};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::UnixStream;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use greenwave_process::{BeforeExec, Setup, receive_one};
use libc::{c_int, c_long, seccomp_notif};
use rustix::fs::{FileType, Mode, OFlags};

use super::call::{Call, PathArgument, decode};
use super::filter::{ARCHITECTURE, Filter, X32_CALLS};
use super::observer::Response;
use super::supervisor::{Readiness, answer_one, continue_all, wait};
use super::threads;
use super::tracee::{Reads, Tracee};

/// Prepares a command to have files opened for it whose names begin with a prefix, in a directory.
/// If the command can read the directory (`readable`), only calls that write are reported, and
/// files with other names are created as well, unless they are hidden.
///
/// # Errors
/// The error of the operating system.
pub(crate) fn attach(
    command: &mut impl BeforeExec,
    directory: &Path,
    prefix: &OsStr,
    readable: bool,
) -> io::Result<()> {
    let (ours, theirs) = UnixStream::pair()?;
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let opener = Opener {
        file: rustix::fs::open(directory, flags, Mode::empty())?,
        path: directory.to_owned(),
        prefix: prefix.to_owned(),
        created: readable.then(RefCell::default),
    };
    threads::run(move || {
        // Nothing arrives if the command is not started.
        let Ok(Some(listener)) = receive_one(&OwnedFd::from(ours)) else { return };
        if catch_unwind(AssertUnwindSafe(|| opener.serve(&listener))).is_err() {
            continue_all(&listener);
        }
    })?;
    command.before_exec(Setup::ReportCalls {
        filter: Filter::opening(readable).into_program(),
        socket: OwnedFd::from(theirs),
        // This filter reports no message.
        secret: [0; 2],
    });
    Ok(())
}

/// A directory in which files are opened.
struct Opener {
    file: OwnedFd,
    path: PathBuf,
    prefix: OsString,
    /// Devices and inodes of the files with other names that the command has created. `None` if it
    /// may create none.
    created: Option<RefCell<HashSet<(u64, u64)>>>,
}

/// A file that a command may open.
struct Permitted {
    name: CString,
    /// Whether its name begins with the prefix.
    has_prefix: bool,
}

impl Opener {
    /// Answers calls until all processes of the command have ended.
    fn serve(&self, listener: &OwnedFd) {
        let reads = Reads::default();
        loop {
            match wait(listener, None, None) {
                Readiness::Call
                    if answer_one(listener, &reads, |it, call| self.answer(listener, it, call)).is_ok() => {}
                Readiness::None => {}
                _ => return,
            }
        }
    }

    fn answer(&self, listener: &OwnedFd, it: &Tracee<'_>, call: &seccomp_notif) -> Response {
        let number = call.data.nr as u32;
        if call.data.arch != ARCHITECTURE || number >= X32_CALLS {
            return Response::Continue;
        }
        let Some(Call::Open { path, flags }) = decode(number.into(), &call.data.args) else {
            return Response::Continue;
        };
        let Some(permitted) = self.permitted(it, path) else { return Response::Continue };
        let mode =
            call.data.args[if c_long::from(call.data.nr) == libc::SYS_openat { 3 } else { mode_at(call) }];
        match self.open(&permitted, flags, mode as u32 & !umask(it.thread)) {
            Ok(Some(file)) => give(listener, it.call, &file, flags),
            Ok(None) => Response::Continue,
            Err(error) => Response::Fail(error.raw_os_error().unwrap_or(libc::EACCES)),
        }
    }

    /// Returns the permitted file, if a path of a call names one.
    fn permitted(&self, it: &Tracee<'_>, argument: PathArgument) -> Option<Permitted> {
        let bytes = it.path(argument.address).ok()??;
        let path = Path::new(OsStr::from_bytes(&bytes));
        let name = path.file_name()?;
        let has_prefix = name.as_bytes().starts_with(self.prefix.as_bytes());
        let may_be_created = self.created.is_some() && is_record(name.as_bytes());
        // Most calls end here.
        if !(has_prefix || may_be_created) || bytes.ends_with(b"/") {
            return None;
        }
        let parent = path.parent()?;
        let parent =
            if parent.is_absolute() { parent.to_owned() } else { it.base(argument.base).ok()??.join(parent) };
        let is_here = parent.canonicalize().is_ok_and(|parent| parent == self.path);
        let name = CString::new(name.as_bytes()).ok()?;
        (is_here && it.is_waiting()).then_some(Permitted { name, has_prefix })
    }

    /// Opens a regular file. Returns `None` for a call that the kernel can decide.
    fn open(&self, permitted: &Permitted, flags: c_int, mode: u32) -> io::Result<Option<OwnedFd>> {
        if flags & (libc::O_PATH | libc::O_DIRECTORY | libc::O_TMPFILE & !libc::O_DIRECTORY) != 0 {
            return Ok(None);
        }
        let flags = OFlags::from_bits_retain(flags as u32);
        // A link could lead anywhere, a pipe could block, and a name of another file must not lose
        // its content.
        let safe = (flags - OFlags::TRUNC) | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let mode = Mode::from_raw_mode(mode & 0o777);
        let file = if permitted.has_prefix {
            rustix::fs::openat(&self.file, permitted.name.as_c_str(), safe, mode)?
        } else {
            // Nobody shall take it for a program.
            let mode = mode & Mode::from_raw_mode(0o666);
            let Some(file) = self.open_created(&permitted.name, safe, mode) else { return Ok(None) };
            file
        };
        let status = rustix::fs::fstat(&file)?;
        if FileType::from_raw_mode(status.st_mode) != FileType::RegularFile || status.st_nlink != 1 {
            return Err(io::Error::from_raw_os_error(libc::EACCES));
        }
        if flags.contains(OFlags::TRUNC) {
            rustix::fs::ftruncate(&file, 0)?;
        }
        rustix::fs::fcntl_setfl(&file, flags & (OFlags::APPEND | OFlags::NONBLOCK))?;
        Ok(Some(file))
    }
}

impl Opener {
    /// Creates a file, or opens one that the command has created.
    fn open_created(&self, name: &CString, flags: OFlags, mode: Mode) -> Option<OwnedFd> {
        let mut created = self.created.as_ref()?.borrow_mut();
        let identity = |file: &OwnedFd| rustix::fs::fstat(file).map(|status| (status.st_dev, status.st_ino));
        if flags.contains(OFlags::CREATE)
            && let Ok(file) = rustix::fs::openat(&self.file, name.as_c_str(), flags | OFlags::EXCL, mode)
        {
            created.insert(identity(&file).ok()?);
            return Some(file);
        }
        let existing = flags - OFlags::CREATE;
        let file = rustix::fs::openat(&self.file, name.as_c_str(), existing, mode).ok()?;
        let is_own = !flags.contains(OFlags::EXCL) && created.contains(&identity(&file).ok()?);
        is_own.then_some(file)
    }
}

/// Returns whether no program takes a file of this name for code, settings or instructions, even if
/// somebody starts one in its directory: `count`, `calls-2`, `state.log`.
fn is_record(name: &[u8]) -> bool {
    /// Ends of names of records.
    const ENDS: [&[u8]; 6] = [b"log", b"out", b"err", b"jsonl", b"count", b"pid"];
    /// Names of files that programs look for, beside those that end in `file`.
    const TAKEN: [&[u8]; 14] = [
        b"configure",
        b"wscript",
        b"workspace",
        b"build",
        b"dune",
        b"dune-project",
        b"dune-workspace",
        b"sconstruct",
        b"sconscript",
        b"jamroot",
        b"jamrules",
        b"rules",
        b"config",
        b"crontab",
    ];
    let mut parts = name.splitn(2, |byte| *byte == b'.');
    let (stem, end) = (parts.next().unwrap_or_default(), parts.next());
    let is_plain = |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-_".contains(byte);
    let is_taken = TAKEN.contains(&stem) || stem.ends_with(b"file");
    !stem.is_empty() && stem.iter().all(is_plain) && !is_taken && end.is_none_or(|end| ENDS.contains(&end))
}

/// Returns the position of the mode among the arguments of `open` or `creat`.
fn mode_at(call: &seccomp_notif) -> usize {
    #[cfg(target_arch = "x86_64")]
    if c_long::from(call.data.nr) == libc::SYS_creat {
        return 1;
    }
    let _ = call;
    2
}

/// Returns the permissions that new files of a thread lack.
fn umask(thread: u32) -> u32 {
    let status = std::fs::read_to_string(format!("/proc/{thread}/status")).unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("Umask:"));
    mask.and_then(|mask| u32::from_str_radix(mask.trim(), 8).ok()).unwrap_or(0o077)
}

/// Puts an open file into the process that waits in a call, as the result of the call.
fn give(listener: &OwnedFd, call: u64, file: &OwnedFd, flags: c_int) -> Response {
    /// `SECCOMP_IOCTL_NOTIF_ADDFD` of `linux/seccomp.h`: `_IOW('!', 3, struct
    /// seccomp_notif_addfd)`.
    const ADD_FILE: u64 = 0x4018_2103;
    let added = libc::seccomp_notif_addfd {
        id: call,
        flags: 0,
        srcfd: file.as_raw_fd() as u32,
        newfd: 0,
        newfd_flags: (flags & libc::O_CLOEXEC) as u32,
    };
    // SAFETY: the request reads one `seccomp_notif_addfd`, whose size its number encodes, from the
    // pointer, and `added` is one and lives until the call returns. Both descriptors are open for
    // the duration of the borrows.
    let number = unsafe { libc::ioctl(listener.as_raw_fd(), ADD_FILE as _, &raw const added) };
    match number {
        0.. => Response::Return(number.into()),
        // The caller was killed, or has no descriptor left.
        _ => Response::Fail(io::Error::last_os_error().raw_os_error().unwrap_or(libc::EMFILE)),
    }
}

#[cfg(test)]
mod tests {
    use super::is_record;

    #[test]
    fn names_that_programs_look_for_are_no_records() {
        for name in ["count", "calls-2", "state_1", "agent.log", "run.jsonl", "x.pid"] {
            assert!(is_record(name.as_bytes()), "{name}");
        }
        for name in [
            "",
            ".",
            ".envrc",
            "GNUmakefile",
            "Makefile",
            "makefile",
            "Justfile",
            "justfile",
            "rakefile",
            "dockerfile",
            "wscript",
            "configure",
            "WORKSPACE",
            "BUILD",
            "build",
            "dune",
            "dune-project",
            "sconstruct",
            "rules",
            "config",
            "json.py",
            "conftest.py",
            "pytest.ini",
            "go.work",
            "package.json",
            "Cargo.toml",
            "AGENTS.md",
            "CMakeLists.txt",
            "x.mk",
            "requirements.txt",
            "a.so",
            "a.log.py",
            "x.tar.log",
            "a b",
            "\u{fc}",
        ] {
            assert!(!is_record(name.as_bytes()), "{name}");
        }
    }
}
