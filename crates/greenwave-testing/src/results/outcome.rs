//! What came of a test. Knows nothing of how it was run.

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::TestCount;

/// What came of a test, whether it ran now or its result was known.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// The verdict.
    pub status: Status,
    /// The runner's own count, where its output has one.
    pub count: Option<TestCount>,
    /// Standard output and error as they came, in one; the middle left out if it was very long.
    pub output: Bytes,
    /// How long it ran: now, or back then if the result was known.
    pub duration: Duration,
    /// Where the result comes from.
    pub source: Source,
    /// Everything that the result depends on, hashed.
    pub key: [u8; 32],
    /// How often it was run now; 0 if the result was known.
    pub attempts: u32,
    /// Project files that it was seen to read although its inputs are declared and these are not among them.
    pub undeclared: Vec<PathBuf>,
}

/// A verdict.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Status {
    /// The command ended with success, and ran at least one test as far as can be told.
    Passed,
    /// The command ended otherwise.
    Failed(ExitReason),
    /// The command ended with success but ran no test at all, by its own count: that proves nothing.
    NoTests,
    /// The command was killed after its time limit.
    TimedOut(Duration),
}

/// How a failed command ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum ExitReason {
    /// With this exit code.
    Code(i32),
    /// By this signal.
    Signal(i32),
}

/// Where a result comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// The test ran now, and this became of its result.
    Ran(CacheDecision),
    /// The result was known, from so long ago; or somebody else who wanted the same at the same moment
    /// has just made it.
    Cached(Duration),
}

/// Whether a new result was kept for later.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum CacheDecision {
    /// It was.
    Stored,
    /// It was not a pass.
    NotAPass,
    /// It was not, because this input changed while the test ran.
    InputChanged(PathBuf),
    /// It was not, because this file was changed before or while the test looked at it, which nobody could tell: it is not among
    /// the declared inputs.
    DependencyChanged(PathBuf),
    /// It was not, because the test itself changed this file, which is among its inputs or which it also read.
    ModifiedInput(PathBuf),
    /// It was not, because no file is among its inputs: nothing would ever have changed it.
    NoInputs,
    /// It was not, because it passed only when it was tried again.
    Flaky,
    /// It was not, because processes that it had started went on after it had ended.
    LeftProcesses,
    /// It was not, because it left this kernel object behind, which another run would find.
    LeftObject(String),
    /// It was not, because it used this kernel object, which was there before and whose content cannot be compared.
    UsedObject(String),
    /// It was not, because the run that this one is a part of traces the test, and this one does not see what it reads.
    TracedByOuter,
    /// It was not, because it is not traced, and a run that was has seen it read more than it declares.
    UndeclaredReads,
    /// It was not, because the system's clock was set while it ran, so that nothing can be told by times.
    ClockSet,
    /// It was not, because it read this in cargo's target directory, and not everything that cargo builds there could be built.
    NotBuilt(PathBuf),
    /// It was not, because it did something that hides what it looks at.
    IncompleteTrace(String),
    /// There is no cache, or the caller did not want it used.
    NoCache,
}

impl Outcome {
    /// Whether the test passed.
    pub fn passed(&self) -> bool {
        self.status == Status::Passed
    }

    /// Whether it passed only when it was tried again.
    pub fn is_flaky(&self) -> bool {
        self.passed() && self.attempts > 1
    }

    /// Whether the result was known and the test did not run.
    pub fn is_cached(&self) -> bool {
        matches!(self.source, Source::Cached(_))
    }
}

impl CacheDecision {
    /// Why a pass was not kept, in words; `None` if it was, or was not to be.
    pub fn reason(&self) -> Option<String> {
        let shown = |path: &Path| match path.as_os_str().is_empty() {
            true => "the project's folder".to_owned(),
            false => path.display().to_string(),
        };
        Some(match self {
            CacheDecision::Stored | CacheDecision::NotAPass | CacheDecision::NoCache => return None,
            CacheDecision::InputChanged(path) => format!("{} changed while it ran", shown(path)),
            CacheDecision::DependencyChanged(path) => {
                format!("it read {}, which had just changed and is not among its inputs", shown(path))
            }
            CacheDecision::ModifiedInput(path) => format!(
                "it writes to {}, which it depends on itself (`outputs` names what a test writes)",
                shown(path)
            ),
            CacheDecision::NoInputs => "no file is among its inputs".to_owned(),
            CacheDecision::Flaky => "it passed only when it was tried again".to_owned(),
            CacheDecision::LeftProcesses => "it left processes behind".to_owned(),
            CacheDecision::LeftObject(object) => format!("it left {object} behind"),
            CacheDecision::UsedObject(object) => format!("it used {object}"),
            CacheDecision::TracedByOuter => "the run that this one is a part of traces it".to_owned(),
            CacheDecision::UndeclaredReads => {
                "it is not traced, and was seen to read more than it declares when it was".to_owned()
            }
            CacheDecision::ClockSet => "the clock was set while it ran".to_owned(),
            CacheDecision::NotBuilt(path) => {
                format!("it read {}, which is not up to date: cargo cannot build the workspace", shown(path))
            }
            CacheDecision::IncompleteTrace(why) => format!("what it reads cannot be seen: {why}"),
        })
    }
}

impl fmt::Display for Status {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Status::Passed => formatter.write_str("passed"),
            Status::Failed(ExitReason::Code(code)) => write!(formatter, "failed with exit code {code}"),
            Status::Failed(ExitReason::Signal(signal)) => write!(formatter, "was ended by signal {signal}"),
            Status::NoTests => formatter.write_str("ran no test at all"),
            Status::TimedOut(limit) => write!(formatter, "did not end within {limit:?} and was killed"),
        }
    }
}
