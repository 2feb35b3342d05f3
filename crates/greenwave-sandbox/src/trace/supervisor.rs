//! The thread that is told of a command's calls, notes them and lets them go on. It answers every call, whatever happens to it.

use std::collections::HashSet;
use std::ffi::CStr;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::UnixStream;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use greenwave_process::BeforeExec;
use libc::{c_int, seccomp_notif, seccomp_notif_resp};
use parking_lot::{Condvar, Mutex};
use tokio::sync::Notify;

use super::Trace;
use super::call::{Base, Call, Made, Name, decode};
use super::filter::{ARCHITECTURE, FOREIGN, Filter, receive, send};
use super::interpreter::interpreter;
use super::log::Log;
use super::resolution::{Found, Resolution, Resolver};
use super::tracee::Tracee;

/// How long what a command has started may go on after it.
const GRACE: Duration = Duration::from_millis(500);
/// Calls that are remembered to have been noted.
const SEEN_MAX: usize = 200_000;
/// Scripts whose interpreters are scripts; the kernel gives up after five.
const INTERPRETERS_MAX: usize = 5;

/// Whoever asks whether there is something at this path, at which there never is, is told by an observer of ours that it is observed.
const QUESTION: &CStr = c"/proc/greenwave/is-this-traced";
/// The error that says so: no file system says that a connection is being made already.
const ANSWER: c_int = libc::EALREADY;

/// Whether this process is observed by another of ours. It is asked by a call that the observer answers, since a variable would say so also of
/// processes that have it from elsewhere.
pub(super) fn is_observed() -> bool {
    // SAFETY: the kernel reads a text that ends with a zero.
    let found = unsafe { libc::access(QUESTION.as_ptr(), libc::F_OK) };
    found != 0 && io::Error::last_os_error().raw_os_error() == Some(ANSWER)
}

/// Whether a filter can be installed and its calls told, or why not.
pub(super) fn available() -> Result<(), String> {
    static AVAILABLE: OnceLock<Result<(), String>> = OnceLock::new();
    AVAILABLE.get_or_init(try_out).clone()
}

fn try_out() -> Result<(), String> {
    if std::fs::read_link("/proc/self/cwd").is_err() {
        return Err("there is no /proc".to_owned());
    }
    // A filter is its thread's for good, so a thread is given up for it.
    let thread = std::thread::Builder::new().name("greenwave-trace-trial".to_owned());
    let trial = thread.spawn(|| Filter::idle().install().map(drop)).map_err(|error| error.to_string())?;
    match trial.join() {
        Ok(Ok(())) => Ok(()),
        Ok(Err(error)) if error.raw_os_error() == Some(libc::EBUSY) => {
            Err("this process is observed itself, and there can be one observer only".to_owned())
        }
        Ok(Err(error)) => Err(format!("system calls cannot be filtered: {error}")),
        Err(_) => Err("trying it out failed".to_owned()),
    }
}

/// Has the command install the filter when it starts, and a thread wait for it.
pub(super) fn attach(command: &mut impl BeforeExec, paths_max: usize) -> io::Result<Supervisor> {
    let (ours, theirs) = UnixStream::pair()?;
    let (ours, theirs) = (Arc::new(OwnedFd::from(ours)), OwnedFd::from(theirs));
    let (wake, stop) = io::pipe()?;
    let answer = Arc::new(Slot::default());
    let work = Work {
        socket: Arc::clone(&ours),
        stop: wake.into(),
        paths_max,
        result: Sender { slot: Some(Arc::clone(&answer)) },
    };
    pool::hand_over(work)?;
    let filter = Filter::observing();
    // SAFETY: the closure makes system calls only, on memory that was allocated before: it is safe between fork and exec.
    unsafe {
        command.before_exec(move || {
            let listener = filter.install()?;
            send(&theirs, &listener)
        });
    }
    Ok(Supervisor { socket: ours, stop: Some(stop.into()), answer })
}

/// The thread, as seen from outside.
#[derive(Debug)]
pub(super) struct Supervisor {
    socket: Arc<OwnedFd>,
    /// Closed to say that the command has ended, or that nobody wants to know of it.
    stop: Option<OwnedFd>,
    answer: Arc<Slot>,
}

impl Supervisor {
    pub(super) fn blocking_finish(mut self) -> Trace {
        self.stop();
        self.answer.wait()
    }

    pub(super) async fn finish(mut self) -> Trace {
        self.stop();
        self.answer.come().await
    }

    fn stop(&mut self) {
        // What was sent before can still be received; if nothing was, nobody need wait for it.
        hang_up(&self.socket);
        self.stop = None;
    }
}

impl Drop for Supervisor {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Where a thread leaves its answer, for somebody who waits as a thread or as a task.
#[derive(Debug, Default)]
struct Slot {
    reads: Mutex<Option<Trace>>,
    is_there: Condvar,
    has_come: Notify,
}

impl Slot {
    fn put(&self, reads: Trace) {
        *self.reads.lock() = Some(reads);
        self.is_there.notify_one();
        self.has_come.notify_one();
    }

    fn wait(&self) -> Trace {
        let mut reads = self.reads.lock();
        loop {
            match reads.take() {
                Some(reads) => return reads,
                None => self.is_there.wait(&mut reads),
            }
        }
    }

    async fn come(&self) -> Trace {
        loop {
            let reads = self.reads.lock().take();
            match reads {
                Some(reads) => return reads,
                None => self.has_come.notified().await,
            }
        }
    }
}

/// Dropped without an answer, it says that there is none.
struct Sender {
    slot: Option<Arc<Slot>>,
}

impl Sender {
    fn send(mut self, reads: Trace) {
        if let Some(slot) = self.slot.take() {
            slot.put(reads);
        }
    }
}

impl Drop for Sender {
    fn drop(&mut self) {
        if let Some(slot) = self.slot.take() {
            slot.put(Trace { incomplete: Some("was not observed".to_owned()), ..Trace::default() });
        }
    }
}

/// Ends a socket for both sides.
fn hang_up(socket: &OwnedFd) {
    // SAFETY: this call takes numbers only.
    unsafe { libc::shutdown(socket.as_raw_fd(), libc::SHUT_RDWR) };
}

/// A command to be observed.
struct Work {
    socket: Arc<OwnedFd>,
    stop: OwnedFd,
    paths_max: usize,
    result: Sender,
}

impl Work {
    /// Until nobody is left of the command, whatever becomes of it.
    fn supervise(self) {
        let Self { socket, stop, paths_max, result } = self;
        let Ok(Some(listener)) = receive(&socket) else {
            return result.send(Trace { incomplete: Some("was not started".to_owned()), ..Trace::default() });
        };
        // Whoever is started by the same command again is told that nobody listens, instead of waiting for ever.
        hang_up(&socket);
        prefer_same_core(&listener);
        let mut observer = Observer::new(paths_max);
        let served = catch_unwind(AssertUnwindSafe(|| serve(&listener, &stop, &mut observer)));
        let end = served.unwrap_or_else(|_| {
            observer.log.incomplete("does something that cannot be understood");
            End::StillRunning
        });
        let blinded = |end: &End| {
            if *end == End::StillRunning {
                "left processes behind"
            } else {
                "could not be observed to its end"
            }
        };
        match &end {
            End::Gone => result.send(observer.log.finish()),
            end => {
                observer.log.incomplete(blinded(end));
                result.send(observer.log.so_far());
                drop(observer);
                answer_all(&listener);
            }
        }
    }
}

mod pool {
    //! Threads that have observed a command and wait for another: making one, with its stack and its part of the heap, costs more than a small
    //! command's whole observation.

    use std::io;
    use std::sync::atomic::{AtomicU64, Ordering};
    use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
    use std::time::Duration;

    use parking_lot::Mutex;

    use super::Work;

    /// How long a thread waits for more.
    const IDLE_MAX: Duration = Duration::from_secs(5);

    struct Idle {
        number: u64,
        work: SyncSender<Work>,
    }

    /// The last to come is the first to go.
    static IDLE: Mutex<Vec<Idle>> = Mutex::new(Vec::new());
    static NUMBER: AtomicU64 = AtomicU64::new(0);

    pub(super) fn hand_over(work: Work) -> io::Result<()> {
        let idle = IDLE.lock().pop();
        let work = match idle {
            None => work,
            Some(idle) => match idle.work.send(work) {
                Ok(()) => return Ok(()),
                Err(refused) => refused.0,
            },
        };
        let thread = std::thread::Builder::new().name("greenwave-trace".to_owned());
        thread.spawn(move || live(work)).map(drop)
    }

    fn live(first: Work) {
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let (sender, receiver) = sync_channel(1);
        first.supervise();
        loop {
            IDLE.lock().push(Idle { number, work: sender.clone() });
            match next(number, &receiver) {
                Some(work) => work.supervise(),
                None => return,
            }
        }
    }

    fn next(number: u64, receiver: &Receiver<Work>) -> Option<Work> {
        if let Ok(work) = receiver.recv_timeout(IDLE_MAX) {
            return Some(work);
        }
        let mut idle = IDLE.lock();
        match idle.iter().position(|idle| idle.number == number) {
            Some(at) => {
                idle.remove(at);
                None
            }
            None => {
                // Somebody has taken us from the list, and is about to send.
                drop(idle);
                receiver.recv().ok()
            }
        }
    }
}

/// How observing ended.
#[derive(Debug, PartialEq, Eq)]
enum End {
    /// With the last process.
    Gone,
    /// The command has ended, and others go on.
    StillRunning,
    /// Calls are told no more.
    Broken,
}

/// Answers every call until nobody is left, or until some time after the command has ended.
fn serve(listener: &OwnedFd, stop: &OwnedFd, observer: &mut Observer) -> End {
    let mut deadline: Option<Instant> = None;
    loop {
        let timeout = deadline.map(|at| at.saturating_duration_since(Instant::now()));
        if timeout == Some(Duration::ZERO) {
            return End::StillRunning;
        }
        match wait(listener, deadline.is_none().then_some(stop), timeout) {
            Event::Call => {
                if answer_one(listener, |tracee, call| observer.observe(tracee, call)).is_err() {
                    return End::Broken;
                }
            }
            Event::Gone => return End::Gone,
            Event::Stop => deadline = Some(Instant::now() + GRACE),
            Event::Nothing => {}
        }
    }
}

/// Answers every call until nobody is left, noting nothing.
fn answer_all(listener: &OwnedFd) {
    loop {
        match wait(listener, None, None) {
            Event::Call if answer_one(listener, |_, _| GO_ON).is_ok() => {}
            Event::Nothing => {}
            _ => return,
        }
    }
}

enum Event {
    Call,
    Gone,
    Stop,
    Nothing,
}

fn wait(listener: &OwnedFd, stop: Option<&OwnedFd>, timeout: Option<Duration>) -> Event {
    let watch = |file: c_int| libc::pollfd { fd: file, events: libc::POLLIN, revents: 0 };
    // The kernel passes over negative descriptors.
    let mut files = [watch(listener.as_raw_fd()), watch(stop.map_or(-1, AsRawFd::as_raw_fd))];
    let timeout = timeout.map_or(-1, |time| c_int::try_from(time.as_millis() + 1).unwrap_or(c_int::MAX));
    // SAFETY: the kernel writes into the two structures only.
    let count = unsafe { libc::poll(files.as_mut_ptr(), 2, timeout) };
    let [calls, stop] = files.map(|file| file.revents);
    match () {
        () if count <= 0 => Event::Nothing,
        () if calls & libc::POLLIN != 0 => Event::Call,
        () if calls != 0 => Event::Gone,
        () if stop != 0 => Event::Stop,
        () => Event::Nothing,
    }
}

/// The error with which a call ends, if it does not go on.
type Verdict = Option<c_int>;
const GO_ON: Verdict = None;

/// Takes one call, has it looked at, and lets it go on, or has it fail.
fn answer_one(
    listener: &OwnedFd,
    look: impl FnOnce(&Tracee<'_>, &seccomp_notif) -> Verdict,
) -> io::Result<()> {
    // SAFETY: a structure of numbers; the kernel wants it to be zero.
    let mut call: seccomp_notif = unsafe { std::mem::zeroed() };
    // SAFETY: the request fills in the structure that its number was made for.
    let received =
        unsafe { libc::ioctl(listener.as_raw_fd(), libc::SECCOMP_IOCTL_NOTIF_RECV, &raw mut call) };
    if received != 0 {
        let error = io::Error::last_os_error();
        // Interrupted, or the caller was killed in the meantime.
        return match error.raw_os_error() {
            Some(libc::EINTR | libc::ENOENT | libc::EAGAIN) => Ok(()),
            _ => Err(error),
        };
    }
    // Answered even when looking at it panics.
    let mut answer = Answer { listener: listener.as_fd(), call: call.id, verdict: GO_ON };
    answer.verdict = look(&Tracee { thread: call.pid, call: call.id, listener: listener.as_fd() }, &call);
    drop(answer);
    Ok(())
}

/// Lets a call go on when it is dropped, or fail.
struct Answer<'a> {
    listener: BorrowedFd<'a>,
    call: u64,
    verdict: Verdict,
}

impl Drop for Answer<'_> {
    fn drop(&mut self) {
        let (error, flags) = match self.verdict {
            Some(error) => (-error, 0),
            None => (0, libc::SECCOMP_USER_NOTIF_FLAG_CONTINUE as u32),
        };
        let mut answer = seccomp_notif_resp { id: self.call, val: 0, error, flags };
        // If it fails, the caller is gone.
        // SAFETY: the request reads the structure that its number was made for.
        unsafe {
            libc::ioctl(self.listener.as_raw_fd(), libc::SECCOMP_IOCTL_NOTIF_SEND, &raw mut answer);
        }
    }
}

/// Has the kernel run us where the caller was, which waits anyway: it halves the cost of a call. Linux 6.6 has it; without, it is slower.
fn prefer_same_core(listener: &OwnedFd) {
    const SYNC_WAKE_UP: u64 = 1;
    // SAFETY: this request takes a number.
    unsafe { libc::ioctl(listener.as_raw_fd(), libc::SECCOMP_IOCTL_NOTIF_SET_FLAGS, SYNC_WAKE_UP) };
}

/// Understands calls and notes them.
struct Observer {
    log: Log,
    resolver: Resolver,
    /// Calls that were noted, and would be noted in the same way again: what they do, and the path before it was followed.
    seen: HashSet<(u64, Vec<u8>)>,
    /// The last call was the question whether it is seen.
    is_asked: bool,
}

/// An absolute path that was not followed yet.
struct Place {
    path: Vec<u8>,
}

/// What a socket's address means.
enum Socket {
    None,
    /// It is no path.
    Elsewhere,
    At(Place),
}

/// Why a call cannot be noted.
enum Trouble {
    /// It will fail whatever files there are, or is none of files.
    Nothing,
    /// The caller cannot be looked into.
    Hidden(io::Error),
}

impl From<io::Error> for Trouble {
    fn from(error: io::Error) -> Self {
        Trouble::Hidden(error)
    }
}

impl Observer {
    fn new(paths_max: usize) -> Self {
        Self {
            log: Log::new(paths_max),
            resolver: Resolver::default(),
            seen: HashSet::new(),
            is_asked: false,
        }
    }

    /// Notes a call, unless it asks whether anybody does.
    fn observe(&mut self, tracee: &Tracee<'_>, call: &seccomp_notif) -> Verdict {
        self.is_asked = false;
        self.note_call(tracee, call);
        self.is_asked.then_some(ANSWER)
    }

    fn note_call(&mut self, tracee: &Tracee<'_>, call: &seccomp_notif) {
        // Nothing can be concluded any more, and following paths might wait for somebody who waits for us: a file system of the command's.
        if self.log.is_blind() {
            return;
        }
        let number = call.data.nr as u32;
        if call.data.arch != ARCHITECTURE || number >= FOREIGN {
            return self.log.incomplete("runs programs of another architecture");
        }
        let Some(call) = decode(number.into(), &call.data.args) else { return };
        match self.note(tracee, call) {
            Err(Trouble::Hidden(error)) if tracee.is_waiting() => {
                self.log.incomplete(format!("runs a program that cannot be looked into ({error})"));
            }
            _ => {}
        }
    }

    fn note(&mut self, it: &Tracee<'_>, call: Call) -> Result<(), Trouble> {
        match call {
            Call::Blind(why) => self.log.incomplete(why),
            Call::Object(call) => {
                if it.is_waiting() {
                    self.log.object(call, |at| it.path(at).ok().flatten());
                }
            }
            Call::Open { name, flags } => self.open(it, name, flags)?,
            Call::OpenHow { name, how } => {
                let [flags, _, resolve] = it.numbers(how)?.ok_or(Trouble::Nothing)?;
                if resolve & libc::RESOLVE_IN_ROOT != 0 {
                    self.log.incomplete("opens files below a root of its own");
                }
                self.open(it, name, flags as c_int)?;
            }
            Call::Look { name, follow } => {
                let place = self.place(it, name)?;
                if place.path == QUESTION.to_bytes() {
                    self.is_asked = true;
                    return Ok(());
                }
                self.once(it, 1 << 32 | u64::from(follow), place, |observer, place| {
                    let found = observer.resolve(it, &place, follow);
                    observer.log.depend(&found.path, |access| access.queried = true);
                    found.found
                });
            }
            Call::List { file } => {
                let Some(folder) = it.base(Base::File(file))? else { return Ok(()) };
                if it.is_waiting() {
                    self.log.depend(&folder, |access| access.listed = true);
                }
            }
            Call::Execute { name, follow } => {
                let base = name.base;
                let place = match self.place(it, name) {
                    // What was opened is what runs.
                    Err(Trouble::Nothing) if name.may_be_empty => {
                        Place { path: bytes(it.base(base)?.ok_or(Trouble::Nothing)?) }
                    }
                    place => place?,
                };
                let directory = it.base(Base::Directory)?;
                self.once(it, 2 << 32 | u64::from(follow), place, |observer, place| {
                    observer.execute(it, &place, follow, directory.as_deref())
                });
            }
            Call::Make { name, what } => {
                let place = self.waiting(it, name)?;
                if what == Made::Link {
                    self.forget();
                }
                let found = self.resolve(it, &place, false);
                self.make(&found, what == Made::Folder);
            }
            Call::Remove { name } => {
                let place = self.waiting(it, name)?;
                let found = self.resolve(it, &place, false);
                match found.found {
                    Found::Absent | Found::Unreachable => self.look(&found.path),
                    _ => self.log.remove(&found.path),
                }
            }
            Call::Move { from, to, flags } => {
                let (from, to) = (self.waiting(it, from)?, self.waiting(it, to)?);
                self.move_to(it, &from, &to, flags);
            }
            Call::Link { from, to, follow } => {
                let from = match self.waiting(it, from) {
                    Err(Trouble::Nothing) if from.may_be_empty => {
                        Place { path: bytes(it.base(from.base)?.ok_or(Trouble::Nothing)?) }
                    }
                    from => from?,
                };
                let to = self.waiting(it, to)?;
                let from = self.resolve(it, &from, follow);
                self.log.depend(&from.path, |access| access.read = true);
                let to = self.resolve(it, &to, false);
                self.make(&to, false);
            }
            Call::Truncate { name, length } => {
                let place = self.waiting(it, name)?;
                let found = self.resolve(it, &place, true);
                match (found.found, length) {
                    (Found::File, 0) => self.log.replace(&found.path),
                    (Found::File, _) => {
                        self.log.depend(&found.path, |access| access.read = true);
                        self.log.write(&found.path);
                    }
                    _ => self.look(&found.path),
                }
            }
            Call::Change { name, follow } => {
                let place = self.waiting(it, name)?;
                let found = self.resolve(it, &place, follow);
                self.look(&found.path);
                self.log.write(&found.path);
            }
            Call::Connect { address, length } => match self.socket(it, address, length)? {
                Socket::None => {}
                Socket::Elsewhere => self.log.talks(),
                Socket::At(place) => {
                    let found = self.resolve(it, &place, true);
                    match found.found {
                        Found::Absent | Found::Unreachable => self.look(&found.path),
                        _ => self.log.talks(),
                    }
                }
            },
            Call::Bind { address, length } => {
                if let Socket::At(place) = self.socket(it, address, length)? {
                    let found = self.resolve(it, &place, false);
                    self.make(&found, false);
                }
            }
        }
        Ok(())
    }

    /// The path that a call names, before it is followed.
    fn place(&self, it: &Tracee<'_>, name: Name) -> Result<Place, Trouble> {
        let text = it.path(name.text)?.ok_or(Trouble::Nothing)?;
        match text.first() {
            None => Err(Trouble::Nothing),
            Some(b'/') => Ok(Place { path: text }),
            Some(_) => {
                let base = it.base(name.base)?.ok_or(Trouble::Nothing)?;
                let mut path = bytes(base);
                path.reserve(text.len() + 1);
                path.push(b'/');
                path.extend_from_slice(&text);
                Ok(Place { path })
            }
        }
    }

    /// The same, of somebody who still waits.
    fn waiting(&self, it: &Tracee<'_>, name: Name) -> Result<Place, Trouble> {
        let place = self.place(it, name)?;
        it.is_waiting().then_some(place).ok_or(Trouble::Nothing)
    }

    /// Notes a call unless that was done before.
    fn once(
        &mut self,
        it: &Tracee<'_>,
        what: u64,
        place: Place,
        note: impl FnOnce(&mut Self, Place) -> Found,
    ) {
        // What `/proc/self` is depends on who asks.
        let is_personal = place.path.starts_with(b"/proc") || place.path.starts_with(b"/dev");
        let key = (what, place.path);
        if self.seen.contains(&key) || !it.is_waiting() {
            return;
        }
        if self.seen.len() >= SEEN_MAX {
            self.seen.clear();
        }
        let found = note(self, Place { path: key.1.clone() });
        // What is not there may come, and lead elsewhere.
        if !is_personal && matches!(found, Found::File | Found::Folder) {
            self.seen.insert(key);
        }
    }

    /// Follows a path, and notes the links on the way.
    fn resolve(&mut self, it: &Tracee<'_>, place: &Place, follow: bool) -> Resolution {
        let found = self.resolver.resolve(it.thread, &place.path, follow);
        for link in &found.links {
            self.log.depend(link, |access| (access.queried, access.symlink) = (true, true));
        }
        if found.found == Found::Link {
            self.log.depend(&found.path, |access| access.symlink = true);
        }
        if found.path.as_os_str().len() >= libc::PATH_MAX as usize {
            // We cannot even ask what is there.
            self.log.incomplete("uses longer paths than can be looked at");
        }
        if matches!(found.found, Found::File | Found::Folder | Found::Link | Found::Other) {
            self.log.is_there(&found.path);
        }
        found.links.iter().for_each(|link| self.log.is_there(link));
        found
    }

    fn look(&mut self, path: &Path) {
        self.log.depend(path, |access| access.queried = true);
    }

    fn make(&mut self, found: &Resolution, is_folder: bool) {
        match found.found {
            Found::Absent => self.log.make(&found.path, is_folder),
            // It will fail.
            _ => self.look(&found.path),
        }
    }

    /// Links have come or gone: what was found about paths may be wrong.
    fn forget(&mut self) {
        self.resolver.forget();
        self.seen.clear();
    }

    fn open(&mut self, it: &Tracee<'_>, name: Name, flags: c_int) -> Result<(), Trouble> {
        let place = self.place(it, name)?;
        self.once(it, u64::from(flags as u32), place, |observer, place| {
            observer.open_place(it, &place, flags)
        });
        Ok(())
    }

    fn open_place(&mut self, it: &Tracee<'_>, place: &Place, flags: c_int) -> Found {
        let has = |flag: c_int| flags & flag == flag;
        let makes = has(libc::O_CREAT) && !has(libc::O_PATH);
        let must_be_new = makes && has(libc::O_EXCL);
        let found = self.resolve(it, place, !has(libc::O_NOFOLLOW) && !must_be_new);
        let (reads, writes) = match flags & libc::O_ACCMODE {
            libc::O_RDONLY => (true, false),
            libc::O_WRONLY => (false, true),
            _ => (true, true),
        };
        match found.found {
            Found::Nameless => {}
            Found::Absent if makes && !must_be_new && has(libc::O_TRUNC) => self.log.replace(&found.path),
            Found::Absent if makes => self.log.make(&found.path, false),
            Found::File if !must_be_new && !has(libc::O_PATH) => {
                if writes && has(libc::O_TRUNC) {
                    self.log.replace(&found.path);
                    return found.found;
                }
                self.log.depend(&found.path, |access| {
                    access.read |= reads;
                    access.queried |= !reads;
                });
                if writes {
                    self.log.write(&found.path);
                }
            }
            Found::Other if !has(libc::O_PATH) => {
                self.log.depend(&found.path, |access| access.read |= reads);
                if writes {
                    self.log.write(&found.path);
                }
            }
            _ => self.look(&found.path),
        }
        found.found
    }

    fn execute(&mut self, it: &Tracee<'_>, place: &Place, follow: bool, directory: Option<&Path>) -> Found {
        let mut found = self.resolve(it, place, follow);
        for _ in 0..=INTERPRETERS_MAX {
            if found.found != Found::File {
                self.look(&found.path);
                break;
            }
            self.log.depend(&found.path, |access| access.read = true);
            // A program that we may not read may still be run.
            let Ok(Some(next)) = interpreter(&found.path) else { break };
            let path = directory.unwrap_or(Path::new("/")).join(next);
            found = self.resolve(it, &Place { path: bytes(path) }, true);
        }
        found.found
    }

    fn move_to(&mut self, it: &Tracee<'_>, from: &Place, to: &Place, flags: u32) {
        let (from, to) = (self.resolve(it, from, false), self.resolve(it, to, false));
        self.forget();
        if from.found == Found::Absent || from.found == Found::Unreachable {
            return self.look(&from.path);
        }
        if flags & libc::RENAME_EXCHANGE != 0 {
            for path in [&from.path, &to.path] {
                self.log.depend(path, |access| access.read = true);
                self.log.write(path);
            }
            if [from.found, to.found].contains(&Found::Folder) {
                self.log.incomplete("swaps folders");
            }
            return;
        }
        // Its content goes on elsewhere, and was somebody's before.
        self.log.depend(&from.path, |access| access.read = true);
        if from.found == Found::Folder {
            self.log.move_folder(&from.path, &to.path);
        }
        self.log.remove(&from.path);
        match to.found {
            Found::Unreachable => self.look(&to.path),
            Found::Folder => {
                self.look(&to.path);
                self.log.replace(&to.path);
            }
            _ if flags & libc::RENAME_NOREPLACE != 0 => self.make(&to, false),
            _ => self.log.replace(&to.path),
        }
    }

    /// Where a socket's address leads.
    fn socket(&self, it: &Tracee<'_>, address: u64, length: u64) -> Result<Socket, Trouble> {
        let mut socket = [0_u8; size_of::<libc::sockaddr_un>()];
        let length = usize::try_from(length).unwrap_or(0).min(socket.len());
        if length < 2 || !it.read(address, &mut socket[..length])? || !it.is_waiting() {
            return Ok(Socket::None);
        }
        let (family, rest) = (c_int::from(u16::from_ne_bytes([socket[0], socket[1]])), &socket[2..length]);
        if family == libc::AF_UNSPEC {
            return Ok(Socket::None);
        }
        if family != libc::AF_UNIX || rest.first().is_none_or(|byte| *byte == 0) {
            return Ok(Socket::Elsewhere);
        }
        let text = rest.split(|byte| *byte == 0).next().unwrap_or_default();
        let base = it.base(Base::Directory)?.ok_or(Trouble::Nothing)?;
        Ok(Socket::At(Place { path: bytes(base.join(std::ffi::OsStr::from_bytes(text))) }))
    }
}

fn bytes(path: PathBuf) -> Vec<u8> {
    use std::os::unix::ffi::OsStringExt;
    path.into_os_string().into_vec()
}
