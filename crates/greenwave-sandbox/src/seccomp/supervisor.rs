//! Serves the notifications of one traced command until all its processes have ended.
//!
//! Every notification is answered, even if recording it panics: a call without an answer would
//! block its process forever.

use std::future::Future;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::pin::pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::Thread;
use std::time::{Duration, Instant};

use greenwave_process::{BeforeExec, Setup, install_filter, receive_one};
use libc::{seccomp_notif, seccomp_notif_resp};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::Shutdown;
use rustix::rand::{GetRandomFlags, getrandom};
use tokio::sync::oneshot;

use super::filter::Filter;
use super::mark::Mark;
use super::observer::{Observer, Response};
use super::parts::Parts;
use super::threads;
use super::tracee::{Reads, Tracee};
use crate::Trace;

/// Time for which processes that a command left behind may continue before the trace is incomplete.
const GRACE: Duration = Duration::from_millis(500);

/// Returns the reason if a filter cannot be installed. The system is probed once per process.
pub(crate) fn available() -> Result<(), String> {
    static AVAILABLE: OnceLock<Result<(), String>> = OnceLock::new();
    AVAILABLE.get_or_init(probe).clone()
}

fn probe() -> Result<(), String> {
    if std::fs::read_link("/proc/self/cwd").is_err() {
        return Err("/proc is not mounted".to_owned());
    }
    // A thread cannot remove a filter, so one is created for it.
    let thread = std::thread::Builder::new().name("greenwave-trace-probe".to_owned());
    let probe = thread
        .spawn(|| install_filter(&Filter::idle().into_program()).map(drop))
        .map_err(|error| error.to_string())?;
    match probe.join() {
        Ok(Ok(())) => Ok(()),
        Ok(Err(error)) if error.raw_os_error() == Some(libc::EBUSY) => {
            Err("this process is traced itself, and the kernel allows one tracer".to_owned())
        }
        Ok(Err(error)) => Err(format!("seccomp filters cannot be installed: {error}")),
        Err(_) => Err("the probe panicked".to_owned()),
    }
}

/// Prepares a command to install the filter when it starts, and a thread to supervise it.
///
/// The trace has at most `paths_max` paths. A status of an entry of `announcements` begins a part.
/// A status of `mark` sends the trace up to there.
pub(crate) fn attach(
    command: &mut impl BeforeExec,
    paths_max: usize,
    announcements: Option<PathBuf>,
    mark: Option<PathBuf>,
) -> io::Result<Supervisor> {
    let (ours, theirs) = UnixStream::pair()?;
    let (ours, theirs) = (Arc::new(OwnedFd::from(ours)), OwnedFd::from(theirs));
    let (stop_reader, stop) = io::pipe()?;
    let (sender, trace) = oneshot::channel();
    let (socket, stop_reader) = (Arc::clone(&ours), stop_reader.into());
    let (mark, marked) = mark.map(|path| Mark::new(&path)).unzip();
    let observer = Observer::new(paths_max, Parts::new(announcements), mark);
    let work = SupervisorThread { socket, stop: stop_reader, observer, trace: sender };
    threads::run(move || work.run())?;
    let secret = secret()?;
    let filter = Filter::reporting(secret).into_program();
    command.before_exec(Setup::ReportCalls { filter, socket: theirs, secret });
    Ok(Supervisor { socket: ours, stop: Some(stop.into()), trace: Some(trace), marked })
}

/// Returns random numbers that the command cannot guess.
fn secret() -> io::Result<[u64; 2]> {
    let mut bytes = [[0; 8]; 2];
    for number in &mut bytes {
        // The kernel returns up to 256 bytes as a whole.
        rustix::io::retry_on_intr(|| getrandom(&mut number[..], GetRandomFlags::empty()))?;
    }
    Ok(bytes.map(u64::from_ne_bytes))
}

/// A handle to the thread that supervises a command.
#[derive(Debug)]
pub(crate) struct Supervisor {
    socket: Arc<OwnedFd>,
    /// The end of a pipe. Closing it reports that the command has exited or that the trace is not
    /// wanted.
    stop: Option<OwnedFd>,
    /// Taken when the trace is awaited.
    trace: Option<oneshot::Receiver<Trace>>,
    /// Taken when the trace up to the mark was received.
    marked: Option<oneshot::Receiver<Trace>>,
}

impl Supervisor {
    pub(crate) fn blocking_finish(self) -> Trace {
        block_on(self.finish())
    }

    pub(crate) async fn marked(&mut self) -> Option<Trace> {
        let trace = self.marked.as_mut()?.await.ok();
        self.marked = None;
        trace
    }

    pub(crate) async fn finish(mut self) -> Trace {
        self.stop();
        let trace = match self.trace.take() {
            Some(trace) => trace.await.ok(),
            None => None,
        };
        trace.unwrap_or_else(|| incomplete_trace("was not traced"))
    }

    fn stop(&mut self) {
        // A listener that was sent before can still be received. If none was, the thread stops
        // waiting.
        shut_down(&self.socket);
        self.stop = None;
    }
}

impl Drop for Supervisor {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Polls a future on this thread, which is parked meanwhile.
///
/// `oneshot::Receiver::blocking_recv` would panic in a task of tokio, where blocking is unwise but
/// possible. `unconstrained` prevents tokio from deferring the wake-up to a scheduler that this
/// thread blocks.
fn block_on<T>(future: impl Future<Output = T>) -> T {
    struct Unpark(Thread);

    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }

    let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
    let mut context = Context::from_waker(&waker);
    let mut future = pin!(tokio::task::unconstrained(future));
    loop {
        match future.as_mut().poll(&mut context) {
            Poll::Ready(output) => return output,
            Poll::Pending => std::thread::park(),
        }
    }
}

/// Closes a socket in both directions.
fn shut_down(socket: &OwnedFd) {
    // It fails only if the other end is closed already.
    let _ = rustix::net::shutdown(socket, Shutdown::Both);
}

fn incomplete_trace(reason: &str) -> Trace {
    Trace { incomplete: Some(reason.to_owned()), ..Trace::default() }
}

/// The thread's side of a [`Supervisor`].
struct SupervisorThread {
    socket: Arc<OwnedFd>,
    stop: OwnedFd,
    observer: Observer,
    trace: oneshot::Sender<Trace>,
}

impl SupervisorThread {
    /// Serves the command until all its processes have ended.
    fn run(self) {
        let Self { socket, stop, mut observer, trace } = self;
        let Ok(Some(listener)) = receive_one(&socket) else {
            // The receiver is dropped if the session was.
            let _ = trace.send(incomplete_trace("was not started"));
            return;
        };
        // If the same command is started again, it fails instead of waiting for an answer forever.
        shut_down(&socket);
        prefer_same_core(&listener);
        let served = catch_unwind(AssertUnwindSafe(|| serve(&listener, &stop, &mut observer)));
        let reason = match served {
            Ok(Served::AllEnded) => {
                let _ = trace.send(observer.log.finish());
                return;
            }
            Ok(Served::StillRunning) => "left processes behind",
            Ok(Served::Failed) => "could not be traced to its end",
            Err(_) => "made a system call that could not be interpreted",
        };
        observer.log.incomplete(reason);
        let _ = trace.send(observer.log.snapshot());
        drop(observer);
        continue_all(&listener);
    }
}

/// The ways in which serving a command ends.
#[derive(Debug, PartialEq, Eq)]
enum Served {
    /// All processes have ended.
    AllEnded,
    /// The command has exited, and processes that it started continue.
    StillRunning,
    /// The kernel does not deliver notifications any more.
    Failed,
}

/// Records and answers every call until no process is left, or until [`GRACE`] has passed since
/// `stop` was closed.
fn serve(listener: &OwnedFd, stop: &OwnedFd, observer: &mut Observer) -> Served {
    let mut deadline: Option<Instant> = None;
    let reads = Reads::default();
    loop {
        let timeout = deadline.map(|at| at.saturating_duration_since(Instant::now()));
        if timeout == Some(Duration::ZERO) {
            return Served::StillRunning;
        }
        match wait(listener, deadline.is_none().then_some(stop), timeout) {
            Readiness::Call => {
                if answer_one(listener, &reads, |tracee, call| observer.observe(tracee, call)).is_err() {
                    return Served::Failed;
                }
            }
            Readiness::AllEnded => return Served::AllEnded,
            Readiness::Stop => deadline = Some(Instant::now() + GRACE),
            Readiness::None => {}
        }
    }
}

/// Answers every call without recording it until no process is left.
pub(super) fn continue_all(listener: &OwnedFd) {
    let reads = Reads::default();
    loop {
        match wait(listener, None, None) {
            Readiness::Call if answer_one(listener, &reads, |_, _| Response::Continue).is_ok() => {}
            Readiness::None => {}
            _ => return,
        }
    }
}

/// The events that end a [`wait`].
pub(super) enum Readiness {
    /// A call was reported.
    Call,
    /// All processes with the filter have ended.
    AllEnded,
    /// The stop pipe was closed.
    Stop,
    /// The time is up, or a signal arrived.
    None,
}

pub(super) fn wait(listener: &OwnedFd, stop: Option<&OwnedFd>, timeout: Option<Duration>) -> Readiness {
    // Rounded up to a whole millisecond, so that a wait does not end just before the deadline.
    let timeout = timeout.and_then(|time| Timespec::try_from(time + Duration::from_millis(1)).ok());
    let mut both =
        [PollFd::new(listener, PollFlags::IN), PollFd::new(stop.unwrap_or(listener), PollFlags::IN)];
    let files = if stop.is_some() { &mut both[..] } else { &mut both[..1] };
    if !matches!(poll(files, timeout.as_ref()), Ok(1..)) {
        return Readiness::None;
    }
    let calls = files[0].revents();
    if calls.contains(PollFlags::IN) {
        Readiness::Call
    } else if !calls.is_empty() {
        Readiness::AllEnded
    } else if files.get(1).is_some_and(|stop| !stop.revents().is_empty()) {
        Readiness::Stop
    } else {
        Readiness::None
    }
}

/// Receives one call and answers it.
pub(super) fn answer_one(
    listener: &OwnedFd,
    reads: &Reads,
    observe: impl FnOnce(&Tracee<'_>, &seccomp_notif) -> Response,
) -> io::Result<()> {
    // SAFETY: `seccomp_notif` consists of integers, for which all-zero bytes are valid.
    let mut call: seccomp_notif = unsafe { std::mem::zeroed() };
    // SAFETY: the request writes one `seccomp_notif`, whose size its number encodes, to the
    // pointer, and `call` is one and lives until the call returns. The kernel requires it to be
    // zeroed. `listener` is an open seccomp descriptor for the duration of the borrow.
    let received =
        unsafe { libc::ioctl(listener.as_raw_fd(), libc::SECCOMP_IOCTL_NOTIF_RECV, &raw mut call) };
    if received != 0 {
        let error = io::Error::last_os_error();
        return match error.raw_os_error() {
            // The request was interrupted, or the caller was killed in the meantime.
            Some(libc::EINTR | libc::ENOENT | libc::EAGAIN) => Ok(()),
            _ => Err(error),
        };
    }
    // Created before `observe` runs, so that the call is answered even if it panics.
    let mut reply = CallReply { listener: listener.as_fd(), call: call.id, response: Response::Continue };
    reads.clear();
    let tracee = Tracee { thread: call.pid, call: call.id, listener: listener.as_fd(), reads };
    reply.response = observe(&tracee, &call);
    drop(reply);
    Ok(())
}

/// A guard that answers a call when it is dropped.
struct CallReply<'a> {
    listener: BorrowedFd<'a>,
    call: u64,
    response: Response,
}

impl Drop for CallReply<'_> {
    fn drop(&mut self) {
        let (val, error, flags) = match self.response {
            Response::Fail(error) => (0, -error, 0),
            Response::Return(value) => (value, 0, 0),
            Response::Continue => (0, 0, libc::SECCOMP_USER_NOTIF_FLAG_CONTINUE as u32),
        };
        let mut answer = seccomp_notif_resp { id: self.call, val, error, flags };
        // The request fails if the caller was killed, which needs no answer. SAFETY: the request
        // reads one `seccomp_notif_resp`, whose size its number encodes, from the pointer, and
        // `answer` is one and lives until the call returns. `listener` is an open seccomp
        // descriptor for the duration of the borrow.
        unsafe {
            libc::ioctl(self.listener.as_raw_fd(), libc::SECCOMP_IOCTL_NOTIF_SEND, &raw mut answer);
        }
    }
}

/// Asks the kernel to run this thread on the caller's core, which idles meanwhile. This halves the
/// cost of a call. Kernels before Linux 6.6 reject the request.
fn prefer_same_core(listener: &OwnedFd) {
    const SYNC_WAKE_UP: u64 = 1;
    // SAFETY: the request takes its flags by value, so no pointer is involved. `listener` is an
    // open seccomp descriptor for the duration of the borrow.
    unsafe { libc::ioctl(listener.as_raw_fd(), libc::SECCOMP_IOCTL_NOTIF_SET_FLAGS, SYNC_WAKE_UP) };
}
