//! Starts a program without copying this one's memory. Knows nothing of groups or of what is run.
//!
//! `fork` copies the tables of the whole address space, half a millisecond for a program of 50 MB, and again for each page that is written while the
//! child is not gone. The standard library avoids it (`posix_spawn`) only where nothing has to be done in the child; filters on system calls have to be.
//! So the child borrows our memory until it runs its program (`CLONE_VM | CLONE_VFORK`, as in glibc's own `posix_spawn`), and what is to be done before that it
//! does on a stack of its own.
//!
//! On other systems than Linux it is an ordinary [`Command`](tokio::process::Command).

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::io;
use std::os::fd::OwnedFd;
use std::path::PathBuf;

use tokio::process::Command;

#[cfg(target_os = "linux")]
pub(crate) use linux::Spawned;
#[cfg(not(target_os = "linux"))]
pub(crate) use portable::Spawned;

/// Work in the child, between its start and its program's.
pub(crate) type Setup = Box<dyn FnMut() -> io::Result<()> + Send + Sync>;

/// What can do something in the child, between its start and its program's.
pub trait BeforeExec {
    /// Has the child do this as well, after what was named before. If it fails, so does starting the child.
    ///
    /// # Safety
    /// The other threads of this process may hold locks that nobody in the child will ever release, and the child may share this process's memory. So the
    /// closure may make system calls only (those of `signal-safety(7)`), on what was prepared before, and must not panic.
    unsafe fn before_exec(&mut self, setup: impl FnMut() -> io::Result<()> + Send + Sync + 'static);
}

impl BeforeExec for Command {
    unsafe fn before_exec(&mut self, setup: impl FnMut() -> io::Result<()> + Send + Sync + 'static) {
        // SAFETY: what has to hold the caller has promised.
        unsafe { self.pre_exec(setup) };
    }
}

/// A program to be started by [`ProcessGroup::start`](crate::ProcessGroup::start): with exactly these variables and nothing to read. What it prints goes where
/// this program's goes, if nothing else is said.
pub struct Spawn {
    program: PathBuf,
    arguments: Vec<OsString>,
    directory: Option<PathBuf>,
    variables: Vec<(OsString, OsString)>,
    stdout: Option<OwnedFd>,
    stderr: Option<OwnedFd>,
    setups: Vec<Setup>,
}

impl Spawn {
    /// The program at this path. It is not searched for in `PATH`.
    pub fn new(program: impl Into<PathBuf>) -> Self {
        Self {
            program: program.into(),
            arguments: Vec::new(),
            directory: None,
            variables: Vec::new(),
            stdout: None,
            stderr: None,
            setups: Vec::new(),
        }
    }

    /// Adds arguments.
    pub fn args<S: AsRef<OsStr>>(&mut self, arguments: impl IntoIterator<Item = S>) -> &mut Self {
        self.arguments.extend(arguments.into_iter().map(|argument| argument.as_ref().to_owned()));
        self
    }

    /// The folder that it starts in; a relative program is looked for from there.
    pub fn current_dir(&mut self, directory: impl Into<PathBuf>) -> &mut Self {
        self.directory = Some(directory.into());
        self
    }

    /// Sets a variable. What was set under this name before is replaced.
    pub fn env(&mut self, name: impl Into<OsString>, value: impl Into<OsString>) -> &mut Self {
        let (name, value) = (name.into(), value.into());
        match self.variables.iter_mut().find(|(known, _)| *known == name) {
            Some((_, known)) => *known = value,
            None => self.variables.push((name, value)),
        }
        self
    }

    /// Where its output goes.
    pub fn stdout(&mut self, stdout: impl Into<OwnedFd>) -> &mut Self {
        self.stdout = Some(stdout.into());
        self
    }

    /// Where its errors go.
    pub fn stderr(&mut self, stderr: impl Into<OwnedFd>) -> &mut Self {
        self.stderr = Some(stderr.into());
        self
    }

    /// Starts it as the leader of a new process group.
    pub(crate) fn start(self) -> io::Result<Spawned> {
        Spawned::start(self)
    }
}

impl BeforeExec for Spawn {
    unsafe fn before_exec(&mut self, setup: impl FnMut() -> io::Result<()> + Send + Sync + 'static) {
        self.setups.push(Box::new(setup));
    }
}

impl fmt::Debug for Spawn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Spawn")
            .field("program", &self.program)
            .field("arguments", &self.arguments)
            .field("directory", &self.directory)
            .finish_non_exhaustive()
    }
}

#[cfg(target_os = "linux")]
mod linux {
    //! A child that borrows our memory until it runs its program.

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

    use rustix::process::{Pid, PidfdFlags, Signal, WaitOptions, kill_process, pidfd_open, waitpid};
    use tokio::io::Interest;
    use tokio::io::unix::AsyncFd;

    use super::{Setup, Spawn};

    /// Room for what the child does before it runs its program: system calls, a few frames deep.
    const STACK_BYTES: usize = 64 * 1024;
    /// What runs a file that is no program and does not say by what it is run.
    const SHELL: &std::ffi::CStr = c"/bin/sh";

    /// A child that was started here.
    #[derive(Debug)]
    pub(crate) struct Spawned {
        pid: Pid,
        /// Readable when it has ended.
        ended: AsyncFd<OwnedFd>,
        /// How, once it was waited for.
        status: Option<ExitStatus>,
    }

    impl Spawned {
        pub(super) fn start(mut spawn: Spawn) -> io::Result<Self> {
            let null = null()?;
            let program = c_string(spawn.program.into_os_string())?;
            let arguments =
                spawn.arguments.into_iter().map(c_string).collect::<io::Result<Vec<CString>>>()?;
            let variables = spawn.variables.into_iter().map(|(name, value)| {
                let mut variable = name;
                variable.push("=");
                variable.push(value);
                c_string(variable)
            });
            let variables = variables.collect::<io::Result<Vec<CString>>>()?;
            let directory =
                spawn.directory.map(|directory| c_string(directory.into_os_string())).transpose()?;
            let rest = || arguments.iter().map(|argument| argument.as_ptr()).chain([ptr::null()]);
            let mut child = Child {
                program: program.as_ptr(),
                words: [program.as_ptr()].into_iter().chain(rest()).collect(),
                words_of_shell: [SHELL.as_ptr(), program.as_ptr()].into_iter().chain(rest()).collect(),
                variables: variables.iter().map(|it| it.as_ptr()).chain([ptr::null()]).collect(),
                directory: directory.as_ref().map_or(ptr::null(), |it| it.as_ptr()),
                streams: [
                    null,
                    spawn.stdout.as_ref().map_or(libc::STDOUT_FILENO, AsRawFd::as_raw_fd),
                    spawn.stderr.as_ref().map_or(libc::STDERR_FILENO, AsRawFd::as_raw_fd),
                ],
                setups: &mut spawn.setups,
                error: 0,
            };
            let pid = child.start()?;
            let spawned = pidfd_open(pid, PidfdFlags::NONBLOCK)
                .map_err(io::Error::from)
                // SAFETY: the descriptor is open, and nobody else's, for as long as it is in there.
                .and_then(|ended| Ok(unsafe { AsyncFd::register_with_interest(ended, Interest::READABLE)? }));
            match spawned {
                Ok(ended) => Ok(Self { pid, ended, status: None }),
                Err(error) => {
                    // Nobody would ever wait for it.
                    let _ = kill_process(pid, Signal::KILL);
                    let _ = waitpid(Some(pid), WaitOptions::empty());
                    Err(error)
                }
            }
        }

        /// Its number, as long as it was not waited for.
        pub(crate) fn id(&self) -> Option<Pid> {
            self.status.is_none().then_some(self.pid)
        }

        /// Cancel-safe.
        pub(crate) async fn wait(&mut self) -> io::Result<ExitStatus> {
            loop {
                if let Some(status) = self.try_wait()? {
                    return Ok(status);
                }
                let mut ready = self.ended.readable().await?;
                ready.clear_ready();
            }
        }

        fn try_wait(&mut self) -> io::Result<Option<ExitStatus>> {
            if self.status.is_none() {
                let ended = waitpid(Some(self.pid), WaitOptions::NOHANG)?;
                self.status = ended.map(|(_, status)| ExitStatus::from_raw(status.as_raw()));
            }
            Ok(self.status)
        }
    }

    impl Drop for Spawned {
        /// What was not waited for is waited for by somebody else, or it would stay in the kernel's table for as long as this program runs.
        fn drop(&mut self) {
            if matches!(self.try_wait(), Ok(None)) {
                let pid = self.pid;
                let _ = std::thread::Builder::new()
                    .name("greenwave-reap".to_owned())
                    .spawn(move || waitpid(Some(pid), WaitOptions::empty()));
            }
        }
    }

    /// Nothing to read, opened once.
    fn null() -> io::Result<RawFd> {
        static NULL: OnceLock<File> = OnceLock::new();
        if NULL.get().is_none() {
            let _ = NULL.set(File::open("/dev/null")?);
        }
        Ok(NULL.get().map_or(libc::STDIN_FILENO, AsRawFd::as_raw_fd))
    }

    fn c_string(text: OsString) -> io::Result<CString> {
        let failed =
            |_| io::Error::new(io::ErrorKind::InvalidInput, "a byte of zero in a name or an argument");
        CString::new(text.into_vec()).map_err(failed)
    }

    /// Everything that the child needs, in our memory.
    struct Child<'a> {
        program: *const c_char,
        words: Vec<*const c_char>,
        words_of_shell: Vec<*const c_char>,
        variables: Vec<*const c_char>,
        directory: *const c_char,
        /// Those of ours that become its first three.
        streams: [RawFd; 3],
        setups: &'a mut Vec<Setup>,
        /// Why it could not run its program, as the system's number.
        error: c_int,
    }

    impl Child<'_> {
        fn start(&mut self) -> io::Result<Pid> {
            let mut stack = Vec::<MaybeUninit<u128>>::with_capacity(STACK_BYTES / size_of::<u128>());
            let top = stack.spare_capacity_mut().as_mut_ptr_range().end;
            let all = signals(libc::sigfillset);
            let mut before = MaybeUninit::uninit();
            // A signal that reaches the child before its handlers are taken away would be handled in our memory.
            // SAFETY: the first set was made above, the second is written to.
            unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, &raw const all, before.as_mut_ptr()) };
            let flags = libc::CLONE_VM | libc::CLONE_VFORK | libc::SIGCHLD;
            // SAFETY: the stack is large enough, aligned, and outlives the child's use of it, as does all that `self` refers to: until the child has
            // run its program or ended, this thread does not go on.
            let pid = unsafe { libc::clone(run, top.cast(), flags, ptr::from_mut(self).cast()) };
            let error = io::Error::last_os_error();
            // SAFETY: the set was written to above.
            unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, before.as_ptr(), ptr::null_mut()) };
            let Some(pid) = Pid::from_raw(pid).filter(|_| pid > 0) else { return Err(error) };
            // SAFETY: a place of our own; another process has written there, which is done now.
            match unsafe { ptr::read_volatile(&raw const self.error) } {
                0 => Ok(pid),
                error => {
                    let _ = waitpid(Some(pid), WaitOptions::empty());
                    Err(io::Error::from_raw_os_error(error))
                }
            }
        }

        /// In the child. Comes back only if its program cannot be run.
        fn prepare_and_run(&mut self) -> io::Result<()> {
            for signal in 1..libc::SIGRTMAX() {
                default_handler(signal);
            }
            // SAFETY: takes numbers only.
            check(unsafe { libc::setpgid(0, 0) })?;
            self.redirect()?;
            if !self.directory.is_null() {
                // SAFETY: a text that ends with zero.
                check(unsafe { libc::chdir(self.directory) })?;
            }
            for setup in self.setups.iter_mut() {
                setup()?;
            }
            let none = signals(libc::sigemptyset);
            // SAFETY: the set was made above.
            unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, &raw const none, ptr::null_mut()) };
            // SAFETY: texts that end with zero, in lists that end with null.
            unsafe { libc::execve(self.program, self.words.as_ptr(), self.variables.as_ptr()) };
            let error = io::Error::last_os_error();
            if error.raw_os_error() == Some(libc::ENOEXEC) {
                // SAFETY: as above.
                unsafe {
                    libc::execve(SHELL.as_ptr(), self.words_of_shell.as_ptr(), self.variables.as_ptr());
                }
            }
            Err(error)
        }

        /// Makes the streams the first three descriptors. One of ours may have the number of another of them.
        fn redirect(&self) -> io::Result<()> {
            let mut streams = self.streams;
            for (at, stream) in streams.iter_mut().enumerate() {
                if (0..3).contains(stream) && *stream as usize != at {
                    // SAFETY: takes numbers only.
                    *stream = check(unsafe { libc::fcntl(*stream, libc::F_DUPFD_CLOEXEC, 3) })?;
                }
            }
            for (at, stream) in streams.into_iter().enumerate() {
                let at = at as RawFd;
                let made = match stream == at {
                    // SAFETY: takes numbers only.
                    true => unsafe { libc::fcntl(at, libc::F_SETFD, 0) },
                    // SAFETY: takes numbers only.
                    false => unsafe { libc::dup2(stream, at) },
                };
                check(made)?;
            }
            Ok(())
        }
    }

    extern "C" fn run(child: *mut c_void) -> c_int {
        // SAFETY: `start` has given us this, and does nothing with it until we are gone.
        let child = unsafe { &mut *child.cast::<Child<'_>>() };
        if let Err(error) = child.prepare_and_run() {
            // SAFETY: a place of the parent's, who waits.
            unsafe {
                ptr::write_volatile(&raw mut child.error, error.raw_os_error().unwrap_or(libc::EINVAL));
            }
        }
        // SAFETY: takes a number, and does not come back.
        unsafe { libc::_exit(127) }
    }

    /// A handler is code of ours, and no program's; what is ignored stays ignored, but for what the standard library ignores for us.
    fn default_handler(signal: c_int) {
        let mut known = MaybeUninit::<libc::sigaction>::zeroed();
        // SAFETY: one structure is written to, of which zero is a value, and another is read that is made of it.
        unsafe {
            if libc::sigaction(signal, ptr::null(), known.as_mut_ptr()) != 0 {
                return;
            }
            let mut known = known.assume_init();
            let is_ignored = known.sa_sigaction == libc::SIG_IGN && signal != libc::SIGPIPE;
            if known.sa_sigaction != libc::SIG_DFL && !is_ignored {
                known.sa_sigaction = libc::SIG_DFL;
                libc::sigaction(signal, &raw const known, ptr::null_mut());
            }
        }
    }

    fn signals(fill: unsafe extern "C" fn(*mut libc::sigset_t) -> c_int) -> libc::sigset_t {
        let mut set = MaybeUninit::zeroed();
        // SAFETY: writes to the set, of which zero is a value.
        unsafe {
            fill(set.as_mut_ptr());
            set.assume_init()
        }
    }

    fn check(result: c_int) -> io::Result<c_int> {
        if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
    }
}

#[cfg(not(target_os = "linux"))]
mod portable {
    //! An ordinary command.

    use std::io;
    use std::process::{ExitStatus, Stdio};

    use rustix::process::Pid;
    use tokio::process::{Child, Command};

    use super::{BeforeExec, Spawn};

    #[derive(Debug)]
    pub(crate) struct Spawned(Child);

    impl Spawned {
        pub(super) fn start(spawn: Spawn) -> io::Result<Self> {
            let mut command = Command::new(&spawn.program);
            command.args(&spawn.arguments).env_clear().envs(spawn.variables).stdin(Stdio::null());
            if let Some(directory) = &spawn.directory {
                command.current_dir(directory);
            }
            if let Some(stdout) = spawn.stdout {
                command.stdout(stdout);
            }
            if let Some(stderr) = spawn.stderr {
                command.stderr(stderr);
            }
            for setup in spawn.setups {
                // SAFETY: whoever named it has promised what has to hold.
                unsafe { command.before_exec(setup) };
            }
            command.process_group(0).spawn().map(Self)
        }

        pub(crate) fn id(&self) -> Option<Pid> {
            self.0.id().and_then(|id| Pid::from_raw(i32::try_from(id).ok()?))
        }

        pub(crate) async fn wait(&mut self) -> io::Result<ExitStatus> {
            self.0.wait().await
        }
    }
}
