//! Starts a child that shares the memory of its parent until it executes its program.
//!
//! # Why this is sound
//! With `CLONE_VFORK` the calling thread is suspended until the child has executed its program or
//! exited. Everything that the child reads through [`Child`] therefore outlives its use, and is not
//! written to meanwhile. Other threads keep running in the same memory, which requires care:
//!
//! - **Locks and allocation**: another thread may be inside `malloc`. The child makes only system
//!   calls, and neither allocates nor panics. The parent prepares every pointer that it needs.
//! - **Signals**: all signals are blocked before the clone, and the child resets every handler
//!   before it unblocks them. No handler of the parent runs in the child.
//! - **Stack**: the child runs on a separate stack, which is freed after the child has stopped
//!   using it.
//! - **errno and thread-local state**: the child shares the thread-local storage of the suspended
//!   thread and writes to `errno` only, which the parent reads only if the clone itself failed.
//! - **Cancellation**: the function is synchronous, so no future can be dropped between the clone
//!   and the registration of the pidfd.

use std::ffi::{CString, OsString, c_char, c_int, c_void};
use std::fs::File;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStringExt;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::ptr;
use std::sync::OnceLock;
use std::time::Duration;

use rustix::process::{Pid, PidfdFlags, Signal, WaitOptions, kill_process, pidfd_open, waitpid};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::Spawn;
use crate::Setup;

/// Size of the child's stack, which holds a few frames of functions that make system calls.
const STACK_BYTES: usize = 64 * 1024;
/// The interpreter of executable files without a `#!` line, as in `execvp`.
const SHELL: &std::ffi::CStr = c"/bin/sh";

/// Delays between attempts to execute a program that is open for writing: about a quarter of a
/// second in all.
const BUSY_DELAYS: [Duration; 8] = [
    Duration::from_millis(1),
    Duration::from_millis(2),
    Duration::from_millis(4),
    Duration::from_millis(8),
    Duration::from_millis(16),
    Duration::from_millis(32),
    Duration::from_millis(64),
    Duration::from_millis(128),
];

/// A started child that is reaped through its pidfd.
#[derive(Debug)]
pub(crate) struct Spawned {
    pid: Pid,
    /// The pidfd, readable once the child has exited.
    ended: AsyncFd<OwnedFd>,
    /// Exit status, once the child has been waited for.
    status: Option<ExitStatus>,
}

impl Spawned {
    /// Starts the program, and returns once the child executes it.
    pub(super) fn start(spawn: Spawn) -> io::Result<Self> {
        let pid = launch(spawn)?;
        let spawned = pidfd_open(pid, PidfdFlags::NONBLOCK)
            .map_err(io::Error::from)
            // SAFETY: the pidfd is owned by the `AsyncFd` and stays open as long as it is
            // registered.
            .and_then(|ended| Ok(unsafe { AsyncFd::register_with_interest(ended, Interest::READABLE)? }));
        match spawned {
            Ok(ended) => Ok(Self { pid, ended, status: None }),
            Err(error) => {
                // `wait` needs the pidfd, so the child must be reaped here.
                let _ = kill_process(pid, Signal::KILL);
                let _ = waitpid(Some(pid), WaitOptions::empty());
                Err(error)
            }
        }
    }

    /// Returns the process id, or `None` once the child was waited for.
    pub(crate) fn id(&self) -> Option<Pid> {
        self.status.is_none().then_some(self.pid)
    }

    /// Waits for the child to exit. Cancel safe.
    pub(crate) async fn wait(&mut self) -> io::Result<ExitStatus> {
        loop {
            if let Some(status) = self.try_wait()? {
                return Ok(status);
            }
            let mut ready = self.ended.readable().await?;
            ready.clear_ready();
        }
    }

    /// Returns the exit status if the child has exited.
    pub(crate) fn try_wait(&mut self) -> io::Result<Option<ExitStatus>> {
        if self.status.is_none() {
            let ended = waitpid(Some(self.pid), WaitOptions::NOHANG)?;
            self.status = ended.map(|(_, status)| ExitStatus::from_raw(status.as_raw()));
        }
        Ok(self.status)
    }
}

impl Drop for Spawned {
    /// Reaps the child from a thread if it was not waited for. It would otherwise stay a zombie.
    fn drop(&mut self) {
        if matches!(self.try_wait(), Ok(None)) {
            let pid = self.pid;
            let _ = std::thread::Builder::new()
                .name("greenwave-reap".to_owned())
                .spawn(move || waitpid(Some(pid), WaitOptions::empty()));
        }
    }
}

/// Starts the program, and returns once the child executes it. The caller has to wait for it.
pub(super) fn launch(spawn: Spawn) -> io::Result<Pid> {
    let null = null()?;
    let program = c_string(spawn.program.into_os_string())?;
    let arguments = spawn.arguments.into_iter().map(c_string).collect::<io::Result<Vec<CString>>>()?;
    let variables = spawn.variables.into_iter().map(|(name, value)| {
        let mut variable = name;
        variable.push("=");
        variable.push(value);
        c_string(variable)
    });
    let variables = variables.collect::<io::Result<Vec<CString>>>()?;
    let directory = spawn.directory.map(|directory| c_string(directory.into_os_string())).transpose()?;
    let rest = || arguments.iter().map(|argument| argument.as_ptr()).chain([ptr::null()]);
    let mut child = Child {
        program: program.as_ptr(),
        words: [program.as_ptr()].into_iter().chain(rest()).collect(),
        shell_words: [SHELL.as_ptr(), program.as_ptr()].into_iter().chain(rest()).collect(),
        variables: variables.iter().map(|it| it.as_ptr()).chain([ptr::null()]).collect(),
        directory: directory.as_ref().map_or(ptr::null(), |it| it.as_ptr()),
        streams: [
            spawn.stdin.as_ref().map_or(null, AsRawFd::as_raw_fd),
            spawn.stdout.as_ref().map_or(libc::STDOUT_FILENO, AsRawFd::as_raw_fd),
            spawn.stderr.as_ref().map_or(libc::STDERR_FILENO, AsRawFd::as_raw_fd),
        ],
        setups: &spawn.setups,
        error: 0,
    };
    // Another thread that forked while this program was being written holds a copy of the writer's
    // descriptor until it executes a program of its own.
    for delay in BUSY_DELAYS {
        match child.start() {
            Err(error) if error.kind() == io::ErrorKind::ExecutableFileBusy => std::thread::sleep(delay),
            result => return result,
        }
    }
    child.start()
}

/// Returns a descriptor of `/dev/null`, which is opened once per process.
fn null() -> io::Result<RawFd> {
    static NULL: OnceLock<File> = OnceLock::new();
    if NULL.get().is_none() {
        let _ = NULL.set(File::open("/dev/null")?);
    }
    Ok(NULL.get().map_or(libc::STDIN_FILENO, AsRawFd::as_raw_fd))
}

fn c_string(text: OsString) -> io::Result<CString> {
    let failed = |_| {
        io::Error::new(
            io::ErrorKind::InvalidInput,
            "invalid argument: expected no zero byte in a program, argument or variable",
        )
    };
    CString::new(text.into_vec()).map_err(failed)
}

/// Everything that the child reads, prepared by the parent.
struct Child<'a> {
    program: *const c_char,
    words: Vec<*const c_char>,
    shell_words: Vec<*const c_char>,
    variables: Vec<*const c_char>,
    directory: *const c_char,
    /// Descriptors of the parent that become the child's first three.
    streams: [RawFd; 3],
    setups: &'a [Setup],
    /// The `errno` of a failure in the child, or 0.
    error: c_int,
}

impl Child<'_> {
    /// Clones the process. Returns once the child executes its program, or has failed.
    fn start(&mut self) -> io::Result<Pid> {
        self.error = 0;
        let mut stack = Vec::<MaybeUninit<u128>>::with_capacity(STACK_BYTES / size_of::<u128>());
        let top = stack.spare_capacity_mut().as_mut_ptr_range().end;
        let all = signals(libc::sigfillset);
        let mut before = MaybeUninit::uninit();
        // A handler that runs in the child before the handlers are reset would change the memory of
        // the parent.
        // SAFETY: the first set is initialised and the second is only written to.
        unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, &raw const all, before.as_mut_ptr()) };
        let flags = libc::CLONE_VM | libc::CLONE_VFORK | libc::SIGCHLD;
        // SAFETY: the stack is aligned and large enough. It outlives the child's use of it, as does
        // everything that `self` points to: this thread is suspended until the child has executed
        // its program or exited.
        let pid = unsafe { libc::clone(run, top.cast(), flags, ptr::from_mut(self).cast()) };
        let error = io::Error::last_os_error();
        // SAFETY: `before` was initialised by the call above.
        unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, before.as_ptr(), ptr::null_mut()) };
        let Some(pid) = Some(pid).filter(|pid| *pid > 0).and_then(Pid::from_raw) else { return Err(error) };
        // SAFETY: the field is valid memory. The child, which wrote to it, has exited or executed
        // its program.
        match unsafe { ptr::read_volatile(&raw const self.error) } {
            0 => Ok(pid),
            error => {
                let _ = waitpid(Some(pid), WaitOptions::empty());
                Err(io::Error::from_raw_os_error(error))
            }
        }
    }

    /// Runs in the child. Returns only if the program cannot be executed.
    fn prepare_and_run(&mut self) -> io::Result<()> {
        for signal in 1..libc::SIGRTMAX() {
            default_handler(signal);
        }
        rustix::process::setpgid(None, None)?;
        self.redirect()?;
        if !self.directory.is_null() {
            // SAFETY: the path is a C string that the parent prepared, and the call only reads it.
            check(unsafe { libc::chdir(self.directory) })?;
        }
        close_others_on_exec();
        for setup in self.setups {
            setup.apply()?;
        }
        let none = signals(libc::sigemptyset);
        // SAFETY: the call reads the set, which outlives it. A null pointer asks for no old set.
        unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, &raw const none, ptr::null_mut()) };
        // SAFETY: the parent prepared the C strings and the arrays, which end with a null pointer.
        // The call only reads them.
        unsafe { libc::execve(self.program, self.words.as_ptr(), self.variables.as_ptr()) };
        let error = io::Error::last_os_error();
        if error.raw_os_error() == Some(libc::ENOEXEC) {
            // SAFETY: as above.
            unsafe {
                libc::execve(SHELL.as_ptr(), self.shell_words.as_ptr(), self.variables.as_ptr());
            }
        }
        Err(error)
    }

    /// Makes the streams the first three descriptors. Duplicates a stream first if its descriptor
    /// is the target of another stream.
    fn redirect(&self) -> io::Result<()> {
        let mut streams = self.streams;
        for (at, stream) in streams.iter_mut().enumerate() {
            if (0..3).contains(stream) && *stream as usize != at {
                // SAFETY: the call has no pointers. The child has its own table of descriptors, so
                // nothing that the parent owns changes; this holds for the calls below, too.
                *stream = check(unsafe { libc::fcntl(*stream, libc::F_DUPFD_CLOEXEC, 3) })?;
            }
        }
        for (at, stream) in streams.into_iter().enumerate() {
            let at = at as RawFd;
            let result = if stream == at {
                // SAFETY: the call has no pointers.
                unsafe { libc::fcntl(at, libc::F_SETFD, 0) }
            } else {
                // SAFETY: the call has no pointers.
                unsafe { libc::dup2(stream, at) }
            };
            check(result)?;
        }
        Ok(())
    }
}

/// Entry point of the child.
extern "C" fn run(child: *mut c_void) -> c_int {
    // SAFETY: `start` passes a `Child` and is suspended until this process no longer uses it.
    let child = unsafe { &mut *child.cast::<Child<'_>>() };
    if let Err(error) = child.prepare_and_run() {
        // SAFETY: the field is valid memory of the suspended parent.
        unsafe {
            ptr::write_volatile(&raw mut child.error, error.raw_os_error().unwrap_or(libc::EINVAL));
        }
    }
    // SAFETY: the child ends at once. No destructor or exit handler runs in the memory that it
    // shares with its parent.
    unsafe { libc::_exit(127) }
}

/// Resets a signal that has a handler, and `SIGPIPE`, which the Rust runtime ignores, to the
/// default action. Other ignored signals stay ignored, as `exec` specifies.
fn default_handler(signal: c_int) {
    let mut action = MaybeUninit::<libc::sigaction>::zeroed();
    // SAFETY: `sigaction` is valid when zeroed, and the first call initialises it before it is
    // read. The child has its own table of handlers, so the handlers of the parent stay.
    unsafe {
        if libc::sigaction(signal, ptr::null(), action.as_mut_ptr()) != 0 {
            return;
        }
        let mut action = action.assume_init();
        let is_ignored = action.sa_sigaction == libc::SIG_IGN && signal != libc::SIGPIPE;
        if action.sa_sigaction != libc::SIG_DFL && !is_ignored {
            action.sa_sigaction = libc::SIG_DFL;
            libc::sigaction(signal, &raw const action, ptr::null_mut());
        }
    }
}

/// Keeps the program from inheriting descriptors other than its streams and those of a [`Setup`].
///
/// This process may have inherited some itself, such as a file that a shell opened for it. Kernels
/// before Linux 5.11 reject the flag, and the program inherits them there.
fn close_others_on_exec() {
    let flag = libc::CLOSE_RANGE_CLOEXEC;
    // SAFETY: the call has no pointers. The descriptors of this process are not shared with its
    // parent, and stay open until it executes the program.
    unsafe { libc::syscall(libc::SYS_close_range, libc::STDERR_FILENO + 1, libc::c_uint::MAX, flag) };
}

fn signals(fill: unsafe extern "C" fn(*mut libc::sigset_t) -> c_int) -> libc::sigset_t {
    let mut set = MaybeUninit::zeroed();
    // SAFETY: a set consists of integers, for which all-zero bytes are valid; `fill` writes to it.
    unsafe {
        fill(set.as_mut_ptr());
        set.assume_init()
    }
}

fn check(result: c_int) -> io::Result<c_int> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}
