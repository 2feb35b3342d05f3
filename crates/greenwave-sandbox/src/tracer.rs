//! Starts and ends traces of commands.

use std::path::PathBuf;
use std::sync::OnceLock;

use greenwave_process::BeforeExec;

use crate::{Error, Trace, seccomp};

const FACILITY: &str = "system-call tracing";

/// A policy on tracing, for programs that leave the choice to their users.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum TraceMode {
    /// Commands are not traced.
    #[default]
    Off,
    /// Commands are traced if possible, and run without a trace otherwise.
    WhenPossible,
    /// Commands are traced. If that is impossible, none may run.
    Required,
}

/// The state of tracing in this process, which follows from a [`TraceMode`] and from the system.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TraceStatus {
    /// Tracing is switched off.
    Off,
    /// This process can trace the commands that it starts.
    Traced,
    /// This process is itself traced by another process that uses this crate. The outer process
    /// sees the accesses of all commands; this process cannot see them.
    TracedByOuter,
    /// Tracing was requested and is impossible, for this reason.
    Unavailable(String),
}

impl TraceStatus {
    /// Determines the status under a mode. The system is probed once per process; later calls take
    /// nanoseconds.
    pub fn of(mode: TraceMode) -> Self {
        static STATUS: OnceLock<TraceStatus> = OnceLock::new();
        if mode == TraceMode::Off {
            return TraceStatus::Off;
        }
        let probe = || match seccomp::available() {
            Ok(()) => TraceStatus::Traced,
            Err(_) if seccomp::is_traced() => TraceStatus::TracedByOuter,
            Err(reason) => TraceStatus::Unavailable(reason),
        };
        STATUS.get_or_init(probe).clone()
    }

    /// Returns the status as a word for machine-readable output: `off`, `traced`, `traced_by_outer`
    /// or `unavailable`.
    pub fn as_str(&self) -> &'static str {
        match self {
            TraceStatus::Off => "off",
            TraceStatus::Traced => "traced",
            TraceStatus::TracedByOuter => "traced_by_outer",
            TraceStatus::Unavailable(_) => "unavailable",
        }
    }

    /// Returns the reason why tracing is impossible although it was requested.
    pub fn reason(&self) -> Option<&str> {
        match self {
            TraceStatus::Unavailable(reason) => Some(reason),
            _ => None,
        }
    }
}

/// Options of a trace, and the entry point to start one.
///
/// Tracing costs about 5 to 10 microseconds per system call that takes a path, and nothing for
/// other calls; run the example `trace_cost` for figures of your machine. Each running trace
/// occupies a thread and three file descriptors.
#[derive(Debug, Clone)]
pub struct Tracer {
    /// Maximum number of paths that are recorded. A command that uses more gets an
    /// [incomplete](Trace::incomplete) trace. 200,000 by default.
    pub paths_max: usize,
    /// Absolute path of a directory, without symbolic links. A command that asks for the status of
    /// an entry whose name is a decimal number announces that this [part](crate::TraceParts) of it
    /// begins. The directory may be missing. The command starts in part 0.
    pub announcements: Option<PathBuf>,
    /// Absolute path of a missing file, without symbolic links. When the command first asks for its
    /// status, [`TraceSession::marked`] returns the trace up to there.
    pub mark: Option<PathBuf>,
}

impl Default for Tracer {
    fn default() -> Self {
        Self { paths_max: 200_000, announcements: None, mark: None }
    }
}

impl Tracer {
    /// Tests whether this process can trace commands. The system is probed once per process.
    ///
    /// # Errors
    /// [`Error::Unavailable`] with the reason. Tracing requires Linux 5.9 or later on `x86_64` or
    /// `aarch64` and a mounted `/proc`. It is impossible in sandboxes that forbid seccomp filters,
    /// and in a process that is itself traced this way: the kernel allows one listener.
    pub fn available() -> Result<(), Error> {
        seccomp::available().map_err(unavailable)
    }

    /// Prepares a command to be traced from its first instruction on. Spawn the command next, once,
    /// and finish the session when it has exited.
    ///
    /// A traced command does not gain privileges from set-user-id programs, unless this process is
    /// privileged.
    ///
    /// # Errors
    /// [`Error::Unavailable`] as for [`available`](Self::available), or if no thread or file
    /// descriptor is left.
    pub fn attach(self, command: &mut impl BeforeExec) -> Result<TraceSession, Error> {
        Self::available()?;
        let supervisor = seccomp::attach(command, self.paths_max, self.announcements, self.mark);
        supervisor.map(TraceSession).map_err(|error| unavailable(error.to_string()))
    }
}

fn unavailable(reason: String) -> Error {
    Error::Unavailable { facility: FACILITY, reason }
}

/// A running trace of one command.
///
/// Dropping the session lets the command continue without being recorded.
#[derive(Debug)]
#[must_use = "`finish` returns the trace"]
pub struct TraceSession(seccomp::Supervisor);

impl TraceSession {
    /// Returns the trace from the start of the command until it reaches the
    /// [mark](Tracer::mark). The trace of the command continues. Cancel safe.
    ///
    /// Returns `None` if the command has ended before, if its trace is
    /// [incomplete](Trace::incomplete), or if there is no mark or the trace was returned already.
    pub async fn marked(&mut self) -> Option<Trace> {
        self.0.marked().await
    }

    /// Returns the trace after the command has exited.
    ///
    /// Waits for the processes that the command left behind, for half a second at most. If some are
    /// still running then, the trace is [incomplete](Trace::incomplete); they continue as long as
    /// this process lives, and afterwards their calls that take a path fail.
    pub async fn finish(self) -> Trace {
        self.0.finish().await
    }

    /// Returns the trace like [`finish`](Self::finish), and blocks the calling thread meanwhile.
    pub fn blocking_finish(self) -> Trace {
        self.0.blocking_finish()
    }
}
