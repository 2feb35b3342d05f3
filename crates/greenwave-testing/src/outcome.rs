//! What came of a test. Knows nothing of how it was run.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::Count;

/// What came of a test, whether it ran now or its result was known.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// The verdict.
    pub status: Status,
    /// The runner's own count, where its output has one.
    pub count: Option<Count>,
    /// Standard output and error as they came, in one; the middle left out if it was very long.
    pub output: Bytes,
    /// How long it ran: now, or back then if the result was known.
    pub duration: Duration,
    /// Where the result comes from.
    pub source: Source,
    /// Everything that the result depends on, hashed.
    pub key: [u8; 32],
}

/// A verdict.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Status {
    /// The command ended with success, and ran at least one test as far as can be told.
    Passed,
    /// The command ended otherwise.
    Failed(Ending),
    /// The command ended with success but ran no test at all, by its own count: that proves nothing.
    NoTests,
    /// The command was killed after its time limit.
    TimedOut(Duration),
}

/// How a failed command ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Ending {
    /// With this exit code.
    Code(i32),
    /// By this signal.
    Signal(i32),
}

/// Where a result comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// The test ran now, and this became of its result.
    Ran(Stored),
    /// The result was known, from so long ago; or somebody else who wanted the same at the same moment
    /// has just made it.
    Known(Duration),
}

/// Whether a new result was kept for later.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Stored {
    /// It was.
    Yes,
    /// It was not a pass.
    NotAPass,
    /// It was not, because this input changed while the test ran.
    InputChanged(PathBuf),
    /// It was not, because no file is among its inputs: nothing would ever have changed it.
    NoInputs,
    /// There is no cache, or the caller did not want it used.
    NoCache,
}

impl Outcome {
    /// Whether the test passed.
    pub fn passed(&self) -> bool {
        self.status == Status::Passed
    }

    /// Whether the result was known and the test did not run.
    pub fn was_known(&self) -> bool {
        matches!(self.source, Source::Known(_))
    }
}

impl fmt::Display for Status {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Status::Passed => formatter.write_str("passed"),
            Status::Failed(Ending::Code(code)) => write!(formatter, "failed with exit code {code}"),
            Status::Failed(Ending::Signal(signal)) => write!(formatter, "was ended by signal {signal}"),
            Status::NoTests => formatter.write_str("ran no test at all"),
            Status::TimedOut(limit) => write!(formatter, "did not end within {limit:?} and was killed"),
        }
    }
}
