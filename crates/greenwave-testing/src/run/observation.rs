//! Observes the accesses of a test, and the kernel objects that it leaves behind.

use std::collections::{HashMap, HashSet};
use std::ops::Bound;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use greenwave_inputs::AccessKind;
use greenwave_process::Spawn;
use greenwave_sandbox::{
    Access, Peer, Retimed, Trace, TraceMode, TraceParts, TraceReaders, TraceSession, TraceStatus, Tracer,
};

use crate::Error;
use crate::results::readers::NamedReaders;
use crate::run::left_objects::{ObjectList, POSIX};
use crate::run::servers;

/// Name of the directory or file at the root of a repository of git.
const REPOSITORY: &str = ".git";

/// A running observation of a command.
pub(super) enum Observation {
    Trace(TraceSession),
    /// The kernel objects before the command.
    Objects(ObjectList),
    /// An outer run traces the command. Its result is not stored here.
    ByOuter,
}

impl Observation {
    /// Begins an observation, as far as the mode and the system allow it.
    ///
    /// # Errors
    /// [`Error::NotTraced`] if tracing is required but not available, or the error of the tracer.
    pub(super) async fn begin(tracer: Tracer, command: &mut Spawn, mode: TraceMode) -> Result<Self, Error> {
        Ok(match (TraceStatus::of(mode), mode) {
            (TraceStatus::Unavailable(reason), TraceMode::Required) => {
                return Err(Error::NotTraced { reason });
            }
            (TraceStatus::Traced, _) => Self::Trace(tracer.attach(command)?),
            (TraceStatus::TracedByOuter, _) => Self::ByOuter,
            (TraceStatus::Off | TraceStatus::Unavailable(_), _) => Self::Objects(ObjectList::now().await),
        })
    }

    /// Returns the accesses of a command up to its mark; `None` if it will not reach one.
    pub(super) async fn marked(&mut self, own: &Path, servers: &[String]) -> Option<Seen> {
        match self {
            Self::Trace(tracing) => Some(Seen::of(&tracing.marked().await?, own, servers)),
            Self::Objects(_) | Self::ByOuter => None,
        }
    }

    /// Ends the observation of a command that has exited, with its private directory `own` and its
    /// declared servers.
    pub(super) async fn finish(self, own: &Path, servers: &[String]) -> Seen {
        match self {
            Self::Trace(tracing) => Seen::of(&tracing.finish().await, own, servers),
            Self::Objects(before) => Seen { left: before.first_left().await, ..Seen::default() },
            Self::ByOuter => Seen::default(),
        }
    }
}

/// The traced accesses of a command.
#[derive(Debug, Clone, Default)]
pub(crate) struct Seen {
    /// Accesses by absolute path, without paths that the command created itself.
    pub(crate) accesses: Vec<(PathBuf, AccessKind)>,
    /// Paths that the command wrote to.
    pub(crate) written: HashSet<PathBuf>,
    /// Paths that existed when the command accessed them.
    pub(crate) existing: HashSet<PathBuf>,
    /// Written paths of which the command has changed nothing but the timestamps.
    pub(crate) retimed: HashMap<PathBuf, Retimed>,
    /// Directories that the command removed unread and created again. None of them has inputs.
    pub(crate) swept: HashSet<PathBuf>,
    /// Programs that the command executed, and whose files it did not access in any other way.
    pub(crate) only_executed: HashSet<PathBuf>,
    /// A kernel object that the command left behind.
    pub(crate) left: Option<String>,
    /// A kernel object that the command used and that existed before.
    pub(crate) used: Option<String>,
    /// The reason why the trace may be incomplete.
    pub(crate) incomplete: Option<String>,
    /// Servers and other peers that the command neither started nor declares.
    pub(crate) peers: Vec<Peer>,
    /// The parts of the command, if it could announce any.
    pub(crate) parts: Option<TraceParts>,
    /// The programs that were the first to read each path.
    pub(crate) readers: Arc<TraceReaders>,
    /// Those of the paths that an explanation may name.
    pub(crate) named_readers: OnceLock<NamedReaders>,
}

impl Seen {
    fn of(reads: &Trace, own: &Path, servers: &[String]) -> Self {
        let accesses = reads.inputs(&[]).flat_map(|(path, access)| {
            let depends_on_content = access.read || access.queried || access.created;
            let is_repository = depends_on_content && is_repository(reads, path, access);
            let kind = if is_repository { AccessKind::Repository } else { AccessKind::Content };
            let content = depends_on_content.then(|| (path.to_owned(), kind));
            let names = access.listed.then(|| (path.to_owned(), AccessKind::Names));
            content.into_iter().chain(names)
        });
        let absent = reads.objects.absent.iter().map(|path| (path.clone(), AccessKind::Content));
        let (left, used) = shared_memory(reads, own);
        let written = reads.paths.iter().filter(|(_, access)| access.written || access.created);
        Self {
            accesses: accesses.chain(absent).collect(),
            written: written.map(|(path, _)| path.clone()).collect(),
            existing: reads.existing.clone(),
            retimed: reads.retimed.clone(),
            swept: reads.swept.clone(),
            only_executed: reads.only_executed.clone(),
            left: reads.objects.left_behind.clone().or(left),
            used: reads.objects.foreign.clone().or(used),
            incomplete: reads.incomplete.clone(),
            peers: servers::undeclared(servers, reads.peers.iter()),
            parts: reads.parts.clone(),
            readers: Arc::new(reads.readers.clone()),
            named_readers: OnceLock::new(),
        }
    }
}

/// Returns whether a command asked for the metadata or existence of a `.git`, and observed nothing
/// else of the repository: neither the content of the file, nor anything in the directory.
fn is_repository(reads: &Trace, path: &Path, access: Access) -> bool {
    let only_queried = Access { queried: true, ..Access::default() };
    let after = (Bound::Excluded(path), Bound::Unbounded);
    let next = || reads.paths.range::<Path, _>(after).next();
    path.file_name().is_some_and(|name| name == REPOSITORY)
        && access == only_queried
        && !next().is_some_and(|(next, _)| next.starts_with(path))
}

/// Returns a POSIX shared object that was left behind, and one that was read and existed before.
///
/// These objects are files, but writes through a memory map do not change their timestamps.
fn shared_memory(reads: &Trace, own: &Path) -> (Option<String>, Option<String>) {
    let is_shared = |path: &Path| {
        let is_in = POSIX.iter().any(|directory| path.parent() == Some(Path::new(directory)));
        is_in && !path.starts_with(own) && !own.starts_with(path) && !path.is_dir()
    };
    let (mut left, mut used) = (None, None);
    for (path, access) in reads.paths.iter().filter(|(path, _)| is_shared(path)) {
        if (access.written || access.created) && path.symlink_metadata().is_ok() {
            left.get_or_insert_with(|| path.display().to_string());
        }
        if access.read && !access.output_only && reads.existing.contains(path) {
            used.get_or_insert_with(|| format!("{}, which existed before", path.display()));
        }
    }
    (left, used)
}
