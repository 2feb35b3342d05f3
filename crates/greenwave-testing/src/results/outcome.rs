//! The outcome of a test: status, output, and whether the result was cached or stored.

use std::fmt;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::results::outputs::OutputFile;
use crate::run::servers::is_server;
use crate::{CaseReport, TestCount};

/// The outcome of a test that ran or whose result was cached.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// Status of the last attempt.
    pub status: Status,
    /// Numbers of passed and failed tests that the harness reported, if its output has them.
    pub count: Option<TestCount>,
    /// Standard output and standard error, interleaved as they were written. The middle of a very
    /// long output is omitted.
    pub output: Bytes,
    /// Duration of the run that produced the result. For a cached result, this run was an earlier
    /// one.
    pub duration: Duration,
    /// Results of the single tests in [reports](crate::Test::reports).
    pub cases: Vec<CaseReport>,
    /// Origin of the result.
    pub source: Source,
    /// Key of the result: a hash over everything that it depends on.
    pub key: [u8; 32],
    /// Number of attempts in this run; 0 if the result was cached.
    pub attempts: u32,
    /// Project files that the test read although it declares inputs that do not include them.
    pub undeclared: Vec<PathBuf>,
    /// If the result was stored with a [coarse](crate::IncompleteMode::Coarse) key although the
    /// trace could have decided: the reason, followed by advice in parentheses.
    pub coarse: Option<String>,
    /// The influence of other tests on this run, if one was observed.
    pub interference: Option<Interference>,
    /// Names of the programs that the test left running when its process ended, and that were then
    /// killed. Empty if the result was cached.
    pub left_behind: Vec<String>,
    /// Files that the test wrote inside the project, as its `outputs` declare.
    pub outputs: Arc<[OutputFile]>,
}

/// The influence of other tests on the result of a test.
///
/// Observed by running the test again under other conditions, for harnesses whose own runner runs
/// tests one after another in one process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Interference {
    /// The test fails while tests run in other processes, and passes without them.
    FailsBesideOthers,
    /// The test fails after other tests in the same process, and passes alone.
    FailsAfterOthers,
    /// The test passes after other tests in the same process, and fails alone.
    NeedsOthers,
    /// The test fails after some of the tests before it in the same process, and passes after all.
    FailsAfterSome,
}

impl Interference {
    /// Returns whether the test depends on those before it in the same process.
    pub(crate) fn is_of_order(self) -> bool {
        self != Interference::FailsBesideOthers
    }
}

impl fmt::Display for Interference {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Interference::FailsBesideOthers => {
                "fails while other tests run beside it and passes alone: it runs alone from now on"
            }
            Interference::FailsAfterOthers => {
                "fails after the files before it in one process, as its own runner runs them, and passes alone"
            }
            Interference::NeedsOthers => {
                "fails alone and passes after the files before it in one process, as its own runner runs them"
            }
            Interference::FailsAfterSome => {
                "fails after a part of the files before it, and passes after all of them, as its own runner \
                 runs them"
            }
        })
    }
}

/// The status of a test.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Status {
    /// The command succeeded. If its output contains a count, at least one test ran.
    Passed,
    /// The command failed.
    Failed(ExitReason),
    /// The command succeeded, but reported that it ran no tests, so its success proves nothing.
    NoTests,
    /// The command exceeded this time limit and was killed.
    TimedOut(Duration),
}

/// The way in which a failed command ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum ExitReason {
    /// The command exited with this code.
    Code(i32),
    /// This signal ended the command.
    Signal(i32),
    /// The command succeeded, but its reports say otherwise, or it has written none.
    Report,
    /// The command exited with 0 before all of its tests had ended.
    Unfinished,
}

/// The origin of a result.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// The test ran in this run.
    Ran(CacheDecision),
    /// The result was cached, and is this old. The age is near zero if a concurrent run that
    /// needed the same result has just stored it.
    Cached(Duration),
}

/// Whether a new result was stored, and the reason if it was not.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum CacheDecision {
    /// The result was stored.
    Stored,
    /// The test did not pass.
    NotAPass,
    /// This input changed while the test ran.
    InputChanged(PathBuf),
    /// This path is not a declared input, and changed shortly before or during the run. The test
    /// may have read either version.
    DependencyChanged(PathBuf),
    /// The test modified this path, which it also depends on.
    ModifiedInput(PathBuf),
    /// The path of this file, shortened here, is too long to open, and the file may be an input.
    InputPathTooLong(String),
    /// The test has no input files, so no change would ever make its result stale.
    NoInputs,
    /// The test passed only after a retry.
    Flaky,
    /// Processes of the test were still running after it had ended: the names of their programs.
    LeftProcesses(String),
    /// The test left this kernel object behind, which its next run would find.
    LeftObject(String),
    /// The test used this kernel object, which existed before and whose content has no hash.
    UsedObject(String),
    /// An outer run traces the test, so this run does not see its reads.
    TracedByOuter,
    /// This run does not trace the test, and an earlier traced run has seen undeclared reads.
    UndeclaredReads,
    /// The system clock was set while the test ran, so timestamps prove nothing.
    ClockSet,
    /// The test read this path in cargo's target directory, and cargo could not build the whole
    /// workspace.
    NotBuilt(PathBuf),
    /// The result is stored, but this output of it was removed and cannot be restored, so the test
    /// ran again.
    OutputRemoved(PathBuf),
    /// The trace may lack accesses for this reason, a phrase whose subject is the test.
    IncompleteTrace(String),
    /// The test reached these servers or other peers, which it neither started nor declares, and
    /// such results are [refused](crate::IncompleteMode::Refuse).
    ReachedPeers(String),
    /// The run has no cache, or the caller bypassed it.
    NoCache,
}

impl Outcome {
    /// Returns whether the test passed.
    pub fn passed(&self) -> bool {
        self.status == Status::Passed
    }

    /// Returns whether the test would have ended in the same way under this time limit.
    pub(crate) fn holds_under(&self, time_max: Duration) -> bool {
        match self.status {
            Status::TimedOut(limit) => time_max <= limit,
            Status::Passed | Status::Failed(_) | Status::NoTests => self.duration <= time_max,
        }
    }

    /// Returns whether the test passed only after a retry.
    pub fn is_flaky(&self) -> bool {
        self.passed() && self.attempts > 1
    }

    /// Returns whether the result was cached, so that the test did not run.
    pub fn is_cached(&self) -> bool {
        matches!(self.source, Source::Cached(_))
    }
}

impl CacheDecision {
    /// Returns why the result was not stored, followed by advice in parentheses.
    ///
    /// Displays put `not cached: ` in front. Returns `None` if the result was stored, if the test
    /// failed, and if the run has no cache.
    pub fn reason(&self) -> Option<String> {
        Some(match self {
            CacheDecision::Stored | CacheDecision::NotAPass | CacheDecision::NoCache => return None,
            CacheDecision::InputChanged(path) => {
                format!("input `{}` changed while the test ran (run the test again)", display(path))
            }
            CacheDecision::DependencyChanged(path) => format!(
                "the test read `{}`, which is not declared and had just changed \
                 (declare it in `inputs`, or run the test again)",
                display(path)
            ),
            CacheDecision::ModifiedInput(path) => {
                format!("the test modifies its own input `{}` (declare it in `outputs`)", display(path))
            }
            CacheDecision::InputPathTooLong(path) => format!(
                "`{path}` may be an input, but its path is too long (exclude its directory in `inputs`)"
            ),
            CacheDecision::NoInputs => "the test has no input files (declare them in `inputs`)".to_owned(),
            CacheDecision::Flaky => "the test passed only after a retry (make it deterministic)".to_owned(),
            CacheDecision::LeftProcesses(names) if names.is_empty() => {
                "the test left processes behind (end them before the test exits)".to_owned()
            }
            CacheDecision::LeftProcesses(names) => format!(
                "the test left processes behind: {} (end them before the test exits)",
                names.escape_debug()
            ),
            CacheDecision::LeftObject(object) => {
                format!("the test left {object} behind (remove the object before the test exits)")
            }
            CacheDecision::UsedObject(object) => {
                format!("the test used {object} (create the object within the test)")
            }
            CacheDecision::TracedByOuter => "an outer run traces the test \
                (run `greenwave test` outside of a test to store its result)"
                .to_owned(),
            CacheDecision::UndeclaredReads => "the test was seen to read more than it declares, \
                and is not traced now (extend `inputs`, or enable `testing.trace`)"
                .to_owned(),
            CacheDecision::ClockSet => {
                "the system clock was set while the test ran (run the test again)".to_owned()
            }
            CacheDecision::NotBuilt(path) => format!(
                "the test reads `{}`, which may be out of date (fix the workspace's build)",
                display(path)
            ),
            CacheDecision::OutputRemoved(path) => format!(
                "output `{}` had been removed, so the test ran again (its earlier result stays cached)",
                path.display()
            ),
            CacheDecision::IncompleteTrace(reason) => {
                format!("the test's reads cannot be traced completely: it {reason} (avoid that in the test)")
            }
            CacheDecision::ReachedPeers(peers) => format!(
                "the test reached {peers}, which it did not start \
                 (declare it in `servers`, or set `testing.incomplete` to \"coarse\")"
            ),
        })
    }
}

impl CacheDecision {
    /// Returns the setting of the test in `greenwave.toml` after which its results are stored, as a
    /// line of TOML. Returns `None` if only the test itself, its environment or another run can
    /// change that.
    pub fn setting(&self) -> Option<String> {
        match self {
            CacheDecision::ModifiedInput(path) => Some(format!("outputs = [{}]", pattern(path)?)),
            CacheDecision::NoInputs => Some("inputs = [\"/**\"]".to_owned()),
            CacheDecision::ReachedPeers(peers) => {
                let servers: Vec<&str> = peers.split(", ").collect();
                let is_plain = |server: &&str| is_server(server) && !server.contains(['"', '\\', ' ']);
                let lines = servers.iter().map(|server| format!("\"{server}\"")).collect::<Vec<_>>();
                servers.iter().all(is_plain).then(|| format!("servers = [{}]", lines.join(", ")))
            }
            _ => None,
        }
    }
}

/// Returns the pattern that matches one file of the project, in quotation marks. Returns `None` for
/// a path outside of the project, and for one with characters that patterns or TOML interpret.
fn pattern(path: &Path) -> Option<String> {
    let text = path.to_str()?;
    let is_plain = |part: char| !part.is_control() && !"\"\\*?[]{}! ".contains(part);
    let is_inside = path.is_relative() && path.components().all(|part| matches!(part, Component::Normal(_)));
    (is_inside && !text.is_empty() && text.chars().all(is_plain)).then(|| format!("\"/{text}\""))
}

/// Returns a path as text; the empty path is the project's directory.
fn display(path: &Path) -> String {
    if path.as_os_str().is_empty() { ".".to_owned() } else { path.display().to_string() }
}

impl fmt::Display for Status {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Status::Passed => formatter.write_str("passed"),
            Status::Failed(ExitReason::Code(code)) => write!(formatter, "failed with exit code {code}"),
            Status::Failed(ExitReason::Report) => formatter.write_str("failed by its report"),
            Status::Failed(ExitReason::Unfinished) => {
                formatter.write_str("exited with code 0 before its tests had ended")
            }
            Status::Failed(ExitReason::Signal(signal)) => write!(formatter, "was ended by signal {signal}"),
            Status::NoTests => formatter.write_str("ran no test at all"),
            Status::TimedOut(limit) => {
                write!(formatter, "did not end within {} and was killed", humantime::format_duration(*limit))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_declare_what_prevents_the_storing() {
        let check = |decision: CacheDecision, expected: Option<&str>| {
            assert_eq!(decision.setting().as_deref(), expected, "{decision:?}");
        };
        let modified = |path: &str| CacheDecision::ModifiedInput(path.into());
        check(modified("a/b.txt"), Some("outputs = [\"/a/b.txt\"]"));
        for path in ["", "/tmp/a", "../a", "a*", "a\"b", "a b", "a\nb", "[a]"] {
            check(modified(path), None);
        }
        let reached = |peers: &str| CacheDecision::ReachedPeers(peers.to_owned());
        check(reached("127.0.0.1:80, /run/db"), Some("servers = [\"127.0.0.1:80\", \"/run/db\"]"));
        check(reached("127.0.0.1:80 and 2 more"), None);
        check(reached("/run/a and 2 more"), None);
        check(reached("the pipe /run/pipe"), None);
        check(CacheDecision::NoInputs, Some("inputs = [\"/**\"]"));
        check(CacheDecision::Flaky, None);
    }
}
