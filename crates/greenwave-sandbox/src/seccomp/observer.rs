//! Interprets system calls and records their accesses.

mod races;
mod reach;

use std::collections::{HashMap, HashSet};
use std::io;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use libc::{c_int, seccomp_notif};

use super::call::{Base, Call, NewNode, PathArgument, decode};
use super::changes::Caller;
use super::filter::{ARCHITECTURE, X32_CALLS};
use super::interpreter::interpreter;
use super::log::AccessLog;
use super::mark::Mark;
use super::nested::{ANSWER, QUESTION};
use super::parts::Parts;
use super::processes::Processes;
use super::resolver::{Resolution, Resolver, Target};
use super::sockets::Sockets;
use super::tracee::Tracee;
use crate::Peer;

/// Maximum number of calls in the set of recorded calls. The set is cleared when it is full.
const RECORDED_MAX: usize = 200_000;
/// Maximum nesting of scripts whose interpreters are scripts, as in the kernel.
const INTERPRETERS_MAX: usize = 5;

/// The outcome of a reported call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Response {
    /// The kernel executes the call.
    Continue,
    /// The call fails with this error.
    Fail(c_int),
    /// The call returns this value, and the kernel does not execute it.
    Return(i64),
}

/// The interpreter of one command's calls.
pub(super) struct Observer {
    pub(super) log: AccessLog,
    resolver: Resolver,
    /// Calls that would be recorded in the same way again: an operation with the path before it is
    /// resolved.
    recorded: HashSet<(u64, RawPath)>,
    /// Whether the current call was in `recorded`, or has an empty path. Its memory is not
    /// compared, since no time has passed since it was read.
    was_recorded: bool,
    sockets: Sockets,
    processes: Processes,
    /// Whether processes of the command share memory, as threads do.
    has_threads: bool,
    /// Whether the memory of a path held another path later.
    is_suspicious: bool,
    /// Number of pauses that may still be made.
    pauses_left: u32,
    /// The path that the current call opens or queries, if there are threads.
    current: Option<RawPath>,
    /// The mark that the command has not reached yet.
    mark: Option<Mark>,
    /// The last call of each thread that opened or queried a path, with the path. Filled only if
    /// there are threads.
    previous: HashMap<u32, (Call, RawPath)>,
}

/// An absolute path that may contain symbolic links.
type RawPath = Vec<u8>;

/// The operations of [`Observer::recorded`] beside opening, which is stored as its flags.
const QUERY: u64 = 1 << 32;
const EXECUTE: u64 = 2 << 32;

/// The reasons why a call is not recorded.
enum Skip {
    /// The call accesses no file, or fails regardless of the files that exist.
    NoAccess,
    /// The path of the call is empty, as that of a query of an open file. C libraries make these
    /// often.
    EmptyPath,
    /// The caller's memory or its directories cannot be read.
    Unreadable(io::Error),
}

impl From<io::Error> for Skip {
    fn from(error: io::Error) -> Self {
        Skip::Unreadable(error)
    }
}

impl Observer {
    pub(super) fn new(paths_max: usize, parts: Parts, mark: Option<Mark>) -> Self {
        Self {
            log: AccessLog::new(paths_max, parts),
            resolver: Resolver::default(),
            recorded: HashSet::new(),
            was_recorded: false,
            sockets: Sockets::default(),
            processes: Processes::default(),
            has_threads: false,
            is_suspicious: false,
            pauses_left: races::PAUSES_MAX,
            current: None,
            mark,
            previous: HashMap::new(),
        }
    }

    /// Records a call, and decides its outcome.
    pub(super) fn observe(&mut self, tracee: &Tracee<'_>, call: &seccomp_notif) -> Response {
        // Nothing can be concluded from an incomplete log. Moreover, resolving a path might wait
        // for a file system that the command itself provides, and so for this thread.
        if self.log.is_incomplete() {
            self.mark = None;
            return Response::Continue;
        }
        let number = call.data.nr as u32;
        if call.data.arch != ARCHITECTURE || number >= X32_CALLS {
            self.log.incomplete("runs programs of another architecture");
            return Response::Continue;
        }
        let Some(decoded) = decode(number.into(), &call.data.args) else { return Response::Continue };
        let caller = Caller { thread: tracee.thread, number: call.data.nr, arguments: call.data.args };
        if self.log.next_call(caller) {
            // The same call may succeed now, which would make a difference.
            self.recorded.clear();
        }
        self.resolver.trust_device_of(tracee.thread);
        self.resolver.next_call(tracee.thread);
        self.processes.insert(tracee.thread);
        if self.has_threads {
            self.check_previous(tracee);
            tracee.reads.clear();
        }
        self.current = None;
        let response = match self.record(tracee, decoded) {
            Ok(response) => response,
            Err(Skip::Unreadable(error)) if tracee.is_waiting() => {
                self.log.incomplete(format!("runs a program whose memory cannot be read ({error})"));
                Response::Continue
            }
            Err(skip) => {
                self.was_recorded |= matches!(skip, Skip::EmptyPath);
                Response::Continue
            }
        };
        let must_compare = self.has_threads || !std::mem::take(&mut self.was_recorded);
        if must_compare && !self.has_stable_memory(tracee) && tracee.is_waiting() {
            self.log.incomplete("changes the arguments of a system call while it makes the call");
        }
        if self.has_threads {
            self.remember(tracee.thread, decoded);
        }
        response
    }

    fn new_thread_or_process(&mut self, it: &Tracee<'_>, arguments: u64) -> Result<(), Skip> {
        let [flags] = it.numbers(arguments)?.ok_or(Skip::NoAccess)?;
        let has = |flag: c_int| flags & flag as u64 != 0;
        self.has_threads |= has(libc::CLONE_VM) && !has(libc::CLONE_VFORK);
        Ok(())
    }

    fn record(&mut self, it: &Tracee<'_>, call: Call) -> Result<Response, Skip> {
        match call {
            Call::Query { path, follow } => return self.query(it, path, follow),
            Call::Open { path, flags } => self.open(it, path, flags)?,
            Call::OpenHow { path, how } => self.open_how(it, path, how)?,
            Call::List { descriptor } => self.list(it, descriptor)?,
            Call::Execute { path, follow } => self.execute(it, path, follow)?,
            Call::Create { path, node } => self.create_node(it, path, node)?,
            Call::Remove { path } => self.remove(it, path)?,
            Call::Rename { from, to, flags } => self.rename(it, from, to, flags)?,
            Call::Link { from, to, follow } => self.link(it, from, to, follow)?,
            Call::Truncate { path, length } => self.truncate(it, path, length)?,
            Call::ChangeMetadata { path, follow } => {
                let changed = self.changed_metadata(it, path, follow)?;
                self.log.write(&changed);
            }
            Call::SetTimes { path, follow } => {
                let changed = self.changed_metadata(it, path, follow)?;
                self.log.set_times(&changed);
            }
            Call::Socket(call) => self.socket(it, call)?,
            Call::Exit if self.has_threads => self.check_last_calls(it),
            Call::Exit => {}
            Call::NewThread { .. } => self.has_threads = true,
            Call::NewThreadOrProcess { arguments } => self.new_thread_or_process(it, arguments)?,
            Call::OtherMemory { process } => self.other_memory(it, process),
            Call::OtherDescriptor { process } => self.other_descriptor(it, process),
            Call::Ipc(call) if it.is_waiting() => {
                self.log.ipc(call, |name| it.path(name).ok().flatten());
            }
            Call::Ipc(_) | Call::Harmless => {}
            Call::Keyring => self.log.use_object("the kernel's keyrings".to_owned()),
            Call::KernelLog => self.log.reach(Peer::Other("the kernel's log".to_owned())),
            Call::Untraceable(reason) => self.log.incomplete(reason),
        }
        Ok(Response::Continue)
    }

    fn query(&mut self, it: &Tracee<'_>, path: PathArgument, follow: bool) -> Result<Response, Skip> {
        let path = raw_path(it, path)?;
        if path == QUESTION.to_bytes() {
            return Ok(Response::Fail(ANSWER));
        }
        if self.log.parts.announce(&path) {
            // The part may repeat calls of others.
            self.forget(it.thread);
            return Ok(Response::Continue);
        }
        if let Some(mark) = self.mark.take_if(|mark| mark.is_at(&path)) {
            if self.has_threads {
                self.check_last_calls(it);
            }
            mark.reach(self.log.snapshot());
            // Changes that are not certain yet count as failed, so that calls may succeed now.
            self.recorded.clear();
            return Ok(Response::Continue);
        }
        self.set_current(&path);
        self.once(it, QUERY | u64::from(follow), path, |observer, path| {
            let resolved = observer.resolve(it, path, follow);
            observer.depend_on_existence(&resolved);
            resolved.target
        });
        Ok(Response::Continue)
    }

    fn open(&mut self, it: &Tracee<'_>, path: PathArgument, flags: c_int) -> Result<(), Skip> {
        let path = raw_path(it, path)?;
        self.set_current(&path);
        self.once(it, u64::from(flags as u32), path, |observer, path| observer.open_path(it, path, flags));
        Ok(())
    }

    fn open_how(&mut self, it: &Tracee<'_>, path: PathArgument, how: u64) -> Result<(), Skip> {
        let [flags, _, resolve] = it.numbers(how)?.ok_or(Skip::NoAccess)?;
        if resolve & libc::RESOLVE_IN_ROOT != 0 {
            self.log.incomplete("opens files relative to another root directory");
        }
        self.open(it, path, flags as c_int)
    }

    fn open_path(&mut self, it: &Tracee<'_>, path: &[u8], flags: c_int) -> Target {
        let has = |flag: c_int| flags & flag == flag;
        let creates = has(libc::O_CREAT) && !has(libc::O_PATH);
        let must_be_new = creates && has(libc::O_EXCL);
        let resolved = self.resolve(it, path, !has(libc::O_NOFOLLOW) && !must_be_new);
        let (reads, writes) = match flags & libc::O_ACCMODE {
            libc::O_RDONLY => (true, false),
            libc::O_WRONLY => (false, true),
            _ => (true, true),
        };
        if resolved.path.starts_with("/proc") && !has(libc::O_PATH) {
            self.pseudo_file(&resolved.path);
        }
        match resolved.target {
            Target::Unnamed => {}
            Target::Absent if creates && !must_be_new && has(libc::O_TRUNC) => {
                self.log.replace(&resolved.path);
            }
            Target::Absent if creates => self.log.create(&resolved.path, false),
            Target::File if !must_be_new && !has(libc::O_PATH) => {
                if writes && has(libc::O_TRUNC) {
                    self.log.replace(&resolved.path);
                    return resolved.target;
                }
                self.log.depend(&resolved.path, |access| {
                    access.read |= reads;
                    access.queried |= !reads;
                });
                if writes {
                    self.log.open_for_writing(&resolved.path);
                }
            }
            Target::Other(node) if !has(libc::O_PATH) => {
                self.open_node(&resolved, node, reads);
                self.log.depend(&resolved.path, |access| access.read |= reads);
                if writes {
                    self.log.write(&resolved.path);
                }
            }
            _ => self.depend_on_existence(&resolved),
        }
        resolved.target
    }

    fn list(&mut self, it: &Tracee<'_>, descriptor: c_int) -> Result<(), Skip> {
        let directory = it.base(Base::Descriptor(descriptor))?.ok_or(Skip::NoAccess)?;
        if it.is_waiting() {
            self.log.list(&directory);
        }
        Ok(())
    }

    fn execute(&mut self, it: &Tracee<'_>, path: PathArgument, follow: bool) -> Result<(), Skip> {
        let path = raw_path_or_base(it, path)?;
        let directory = it.base(Base::WorkingDirectory)?;
        let mut is_program = false;
        self.once(it, EXECUTE | u64::from(follow), path, |observer, path| {
            let target = observer.execute_path(it, path, follow, directory.as_deref());
            is_program = target == Target::File;
            target
        });
        if is_program || self.was_recorded {
            self.log.executes();
        }
        Ok(())
    }

    fn execute_path(
        &mut self,
        it: &Tracee<'_>,
        path: &[u8],
        follow: bool,
        directory: Option<&Path>,
    ) -> Target {
        let mut resolved = self.resolve(it, path, follow);
        for _ in 0..=INTERPRETERS_MAX {
            if resolved.target != Target::File {
                self.depend_on_existence(&resolved);
                break;
            }
            self.log.execute(&resolved.path);
            // A program may be executable without being readable.
            let Ok(Some(next)) = interpreter(&resolved.path) else { break };
            let path = directory.unwrap_or(Path::new("/")).join(next);
            resolved = self.resolve(it, &into_bytes(path), true);
        }
        resolved.target
    }

    fn create_node(&mut self, it: &Tracee<'_>, path: PathArgument, node: NewNode) -> Result<(), Skip> {
        let path = waiting_path(it, path)?;
        if node == NewNode::Symlink {
            self.forget(it.thread);
        }
        let resolved = self.resolve(it, &path, false);
        self.create(&resolved, node == NewNode::Directory);
        Ok(())
    }

    fn remove(&mut self, it: &Tracee<'_>, path: PathArgument) -> Result<(), Skip> {
        let path = waiting_path(it, path)?;
        let resolved = self.resolve(it, &path, false);
        match resolved.target {
            Target::Absent | Target::Unreachable => self.depend_on_existence(&resolved),
            Target::Directory => {
                // The call fails if the directory has entries, which may then be listed.
                self.log.list(&resolved.path);
                self.log.remove(&resolved.path);
                self.resolver.forget_removed(it.thread, &resolved.path);
            }
            Target::Symlink => {
                self.log.remove(&resolved.path);
                self.resolver.forget_removed(it.thread, &resolved.path);
            }
            _ => self.log.remove(&resolved.path),
        }
        Ok(())
    }

    fn rename(
        &mut self,
        it: &Tracee<'_>,
        from: PathArgument,
        to: PathArgument,
        flags: u32,
    ) -> Result<(), Skip> {
        let (from, to) = (waiting_path(it, from)?, waiting_path(it, to)?);
        let (from, to) = (self.resolve(it, &from, false), self.resolve(it, &to, false));
        self.forget(it.thread);
        if matches!(from.target, Target::Absent | Target::Unreachable) {
            self.depend_on_existence(&from);
        } else if flags & libc::RENAME_EXCHANGE != 0 {
            self.exchange(&from, &to);
        } else {
            self.move_file(&from, &to, flags & libc::RENAME_NOREPLACE != 0);
        }
        Ok(())
    }

    fn exchange(&mut self, from: &Resolution, to: &Resolution) {
        for path in [&from.path, &to.path] {
            self.log.depend(path, |access| access.read = true);
            self.log.write(path);
        }
        if [from.target, to.target].contains(&Target::Directory) {
            self.log.incomplete("exchanges directories");
        }
    }

    fn move_file(&mut self, from: &Resolution, to: &Resolution, must_be_new: bool) {
        // Its content lives on under another name, and may stem from before the command.
        self.log.depend(&from.path, |access| access.read = true);
        self.log.remove(&from.path);
        match to.target {
            Target::Unreachable => return self.depend_on_existence(to),
            Target::Directory => {
                self.depend_on_existence(to);
                self.log.list(&to.path);
            }
            Target::Absent if must_be_new => {
                self.log.depend(&to.path, |access| (access.queried, access.created) = (true, true));
            }
            // The call is going to fail.
            _ if must_be_new => return self.depend_on_existence(to),
            _ => {}
        }
        self.log.move_here(&from.path, &to.path, from.target == Target::Directory);
    }

    fn link(
        &mut self,
        it: &Tracee<'_>,
        from: PathArgument,
        to: PathArgument,
        follow: bool,
    ) -> Result<(), Skip> {
        let from = raw_path_or_base(it, from)?;
        let to = waiting_path(it, to)?;
        let from = self.resolve(it, &from, follow);
        self.log.depend(&from.path, |access| access.read = true);
        let to = self.resolve(it, &to, false);
        self.create(&to, false);
        Ok(())
    }

    fn truncate(&mut self, it: &Tracee<'_>, path: PathArgument, length: u64) -> Result<(), Skip> {
        let path = waiting_path(it, path)?;
        let resolved = self.resolve(it, &path, true);
        match (resolved.target, length) {
            (Target::File, 0) => self.log.replace(&resolved.path),
            (Target::File, _) => {
                self.log.depend(&resolved.path, |access| access.read = true);
                self.log.write(&resolved.path);
            }
            _ => self.depend_on_existence(&resolved),
        }
        Ok(())
    }

    /// Records a call that changes metadata of an existing file, and returns the path of the file.
    fn changed_metadata(
        &mut self,
        it: &Tracee<'_>,
        path: PathArgument,
        follow: bool,
    ) -> Result<PathBuf, Skip> {
        let path = raw_path_or_base(it, path)?;
        let resolved = self.resolve(it, &path, follow);
        self.depend_on_existence(&resolved);
        Ok(resolved.path)
    }

    /// Records a call, unless the same one was recorded before or the caller was killed.
    fn once(
        &mut self,
        it: &Tracee<'_>,
        operation: u64,
        path: RawPath,
        record: impl FnOnce(&mut Self, &[u8]) -> Target,
    ) {
        // The meaning of `/proc/self` and `/dev/stdin` depends on the caller.
        let depends_on_caller = path.starts_with(b"/proc") || path.starts_with(b"/dev");
        let key = (operation, path);
        if self.recorded.contains(&key) {
            self.was_recorded = true;
            return;
        }
        if !it.is_waiting() {
            return;
        }
        if self.recorded.len() >= RECORDED_MAX {
            self.recorded.clear();
        }
        let target = record(self, &key.1);
        // A path that is absent now may exist at the next call.
        if !depends_on_caller && matches!(target, Target::File | Target::Directory) {
            self.recorded.insert(key);
        }
    }

    /// Resolves a path, and records the symbolic links on the way.
    fn resolve(&mut self, it: &Tracee<'_>, path: &[u8], follow: bool) -> Resolution {
        let resolved = self.resolver.resolve(it.thread, path, follow);
        for link in &resolved.links {
            self.log.depend(link, |access| (access.queried, access.symlink) = (true, true));
            self.log.exists(link);
        }
        if resolved.target == Target::Symlink {
            self.log.depend(&resolved.path, |access| access.symlink = true);
        }
        if resolved.path.as_os_str().len() >= libc::PATH_MAX as usize {
            // The state of such a path cannot be determined later.
            self.log.incomplete("uses paths longer than the kernel accepts");
        }
        if resolved.target.exists() {
            self.log.exists(&resolved.path);
        }
        if let Some(process) = resolved.process {
            self.foreign_process(process);
        }
        if resolved.is_fuse {
            self.log.reach(Peer::Other("a FUSE file system".to_owned()));
        }
        resolved
    }

    /// Records that the existence of a path matters. A file without a path cannot be recorded.
    fn depend_on_existence(&mut self, resolved: &Resolution) {
        if resolved.target != Target::Unnamed {
            self.log.depend(&resolved.path, |access| access.queried = true);
        }
    }

    fn create(&mut self, resolved: &Resolution, is_directory: bool) {
        match resolved.target {
            Target::Absent => self.log.create(&resolved.path, is_directory),
            // The call is going to fail.
            _ => self.depend_on_existence(resolved),
        }
    }

    /// Clears all caches about paths, because symbolic links may have been created or removed.
    fn forget(&mut self, thread: u32) {
        self.resolver.forget(thread);
        self.recorded.clear();
    }
}

/// Reads the path that a call names, and makes it absolute.
fn raw_path(it: &Tracee<'_>, argument: PathArgument) -> Result<RawPath, Skip> {
    let text = it.path(argument.address)?.ok_or(Skip::NoAccess)?;
    match text.first() {
        None => Err(Skip::EmptyPath),
        Some(b'/') => Ok(text),
        Some(_) => {
            let mut path = into_bytes(it.base(argument.base)?.ok_or(Skip::NoAccess)?);
            path.reserve(text.len() + 1);
            path.push(b'/');
            path.extend_from_slice(&text);
            Ok(path)
        }
    }
}

/// Reads a path like [`raw_path`], and then makes sure that it is valid: that the caller still
/// waits.
fn waiting_path(it: &Tracee<'_>, argument: PathArgument) -> Result<RawPath, Skip> {
    let path = raw_path(it, argument)?;
    if it.is_waiting() { Ok(path) } else { Err(Skip::NoAccess) }
}

/// Reads a path like [`waiting_path`]. An empty path means the open file itself, if the call allows
/// it.
fn raw_path_or_base(it: &Tracee<'_>, argument: PathArgument) -> Result<RawPath, Skip> {
    match waiting_path(it, argument) {
        Err(Skip::NoAccess | Skip::EmptyPath) if argument.may_be_empty => {
            Ok(into_bytes(it.base(argument.base)?.ok_or(Skip::NoAccess)?))
        }
        path => path,
    }
}

fn into_bytes(path: PathBuf) -> Vec<u8> {
    path.into_os_string().into_vec()
}
