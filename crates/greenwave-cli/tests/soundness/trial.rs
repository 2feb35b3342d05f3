//! Tries a probe on a tool: runs the test, changes something, runs it again and compares with an
//! uncached run.

use std::fmt;
use std::sync::{PoisonError, RwLock};
use std::time::Duration;

use crate::Result;
use crate::concurrent::{two_runs, with_steps};
use crate::directory::ProbeDirectory;
use crate::probe::{Expect, Probe};
use crate::steps::perform;
use crate::tools::{Caching, TestRun, Tool, UNRELATED, run_fast_path};

/// The outcome of a probe.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// The second run executed the test.
    Fresh,
    /// The second run took the cached result, which was correct.
    Cached,
    /// The first result was not stored, for a reason. The second verdict was correct.
    NotStored(String),
    /// The second verdict was wrong. The text has the output of both runs.
    Stale(String),
    /// Two simultaneous runs executed the test once, or twice, with correct verdicts.
    RanOnce,
    RanTwice,
    /// The probe does not apply to the tool, or needs something that is not installed.
    NotTried,
}

impl Outcome {
    /// Compares the outcome with the required one.
    ///
    /// # Errors
    /// If they differ.
    pub(crate) fn check(&self, expect: Expect) -> Result<()> {
        let is_expected = match expect {
            Expect::Cached => matches!(self, Outcome::Cached | Outcome::RanOnce),
            Expect::NotStored => matches!(self, Outcome::NotStored(_)),
            Expect::Rerun => !matches!(self, Outcome::Stale(_)),
        };
        match self {
            _ if is_expected => Ok(()),
            Outcome::Stale(runs) => Err(format!("expected {expect:?}, found: {self}\n{runs}").into()),
            _ => Err(format!("expected {expect:?}, found: {self}").into()),
        }
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Outcome::Fresh => f.write_str("fresh"),
            Outcome::Cached => f.write_str("cached"),
            Outcome::NotStored(reason) => write!(f, "not cached: {reason}"),
            Outcome::Stale(_) => f.write_str("**stale**"),
            Outcome::RanOnce => f.write_str("ran once for both"),
            Outcome::RanTwice => f.write_str("ran twice"),
            Outcome::NotTried => f.write_str("not tried"),
        }
    }
}

/// Longer than the resolution of timestamps in any file system.
const SETTLE: Duration = Duration::from_millis(2_200);

/// Tries a probe on a tool.
///
/// # Errors
/// If a step or the first run fails.
pub(crate) fn try_probe(tool: &Tool, probe: &Probe) -> Result<Outcome> {
    if !tool.can_try(probe) {
        return Ok(Outcome::NotTried);
    }
    beside_others(probe, || {
        let directory = ProbeDirectory::new(tool, probe)?;
        let outcome = try_in(tool, probe, &directory);
        perform(&probe.after, &directory)?;
        outcome
    })
}

/// Held by probes that create kernel objects, for writing by those that run without a trace. An
/// object of any program counts against these.
static KERNEL_OBJECTS: RwLock<()> = RwLock::new(());

/// Tries a probe when no other one interferes with it.
fn beside_others<T>(probe: &Probe, trial: impl FnOnce() -> T) -> T {
    if !probe.creates_kernel_objects() {
        return trial();
    }
    if probe.is_traced() {
        let _guard = KERNEL_OBJECTS.read().unwrap_or_else(PoisonError::into_inner);
        return trial();
    }
    let _guard = KERNEL_OBJECTS.write().unwrap_or_else(PoisonError::into_inner);
    trial()
}

fn try_in(tool: &Tool, probe: &Probe, directory: &ProbeDirectory) -> Result<Outcome> {
    // Settled files are trusted by their timestamps, which is what many probes are about.
    if probe.settled || tool.needs_settled_files() {
        std::thread::sleep(SETTLE);
    }
    if probe.two_runs {
        return two_runs(tool, probe, directory);
    }
    let run = || tool.run(directory, &probe.env.first, Caching::On);
    let first = match &probe.during {
        Some(steps) => with_steps(directory, steps, run)?,
        None => run()?,
    };
    if !first.passed {
        return Err(format!("the first run failed: {}", first.output).into());
    }
    if probe.settled && probe.during.is_none() {
        // From now on the properties of files come from their timestamps.
        tool.run(directory, &probe.env.first, Caching::On)?;
    }
    if probe.during.is_some() {
        directory.remove_pipes()?;
    }
    perform(&probe.change, directory)?;
    if matches!(tool, Tool::Trace) {
        directory.write(UNRELATED, "2")?;
    }
    let second = tool.run(directory, &probe.env.second, Caching::On)?;
    let truth = tool.run(directory, &probe.env.second, Caching::Off)?;
    Ok(outcome(directory, first, &second, &truth))
}

/// Returns the outcome of runs whose verdicts differ. A run that failed for want of time looks like
/// a stale result, and only its output tells.
pub(crate) fn stale(second: &TestRun, truth: &TestRun) -> Outcome {
    let shown = |run: &TestRun| format!("passed: {}, output:\n{}", run.passed, run.output);
    Outcome::Stale(format!("second run: {}\nuncached run: {}", shown(second), shown(truth)))
}

fn outcome(directory: &ProbeDirectory, first: TestRun, second: &TestRun, truth: &TestRun) -> Outcome {
    if second.passed != truth.passed {
        return stale(second, truth);
    }
    match (first.not_stored, second.was_cached) {
        // The path of the temporary directory differs each time.
        (Some(reason), _) => {
            Outcome::NotStored(reason.replace(&directory.path("").display().to_string(), "../"))
        }
        (None, true) => Outcome::Cached,
        (None, false) => Outcome::Fresh,
    }
}

/// The file by which `greenwave test` recognises that nothing has changed since all tests passed.
const UP_TO_DATE_RECORD: &str = "project/.greenwave/tests/answer";

/// Attempts to get an up-to-date record. On a busy machine, files settle late.
const ATTEMPTS_MAX: usize = 3;

/// Returns whether a probe can be tried after an up-to-date record: its change comes between two
/// runs.
pub(crate) fn can_follow_record(probe: &Probe) -> bool {
    probe.during.is_none() && !probe.two_runs && probe.cargo_test.is_none()
}

/// Tries a probe on greenwave after an up-to-date record was written. `None` if none was written,
/// since the result is not stored.
///
/// # Errors
/// If a step fails, or if the record does not take effect.
pub(crate) fn try_after_record(probe: &Probe) -> Result<Option<Outcome>> {
    beside_others(probe, || {
        let directory = ProbeDirectory::new(&Tool::Greenwave, probe)?;
        let outcome = try_after_record_in(probe, &directory);
        perform(&probe.after, &directory)?;
        outcome
    })
}

fn try_after_record_in(probe: &Probe, directory: &ProbeDirectory) -> Result<Option<Outcome>> {
    let record = directory.path(UP_TO_DATE_RECORD);
    let mut before = run_fast_path(directory, &probe.env.first)?;
    for _ in 0..ATTEMPTS_MAX {
        std::thread::sleep(SETTLE);
        // This run looks everything up and writes the record.
        before = run_fast_path(directory, &probe.env.first)?;
        if record.exists() {
            break;
        }
    }
    if !record.exists() {
        return Ok(None);
    }
    let again = run_fast_path(directory, &probe.env.first)?;
    if !before.was_cached || !again.was_cached {
        return Err(format!("not cached after a record was written: {}", again.output).into());
    }
    perform(&probe.change, directory)?;
    let second = run_fast_path(directory, &probe.env.second)?;
    let truth = Tool::Greenwave.run(directory, &probe.env.second, Caching::Off)?;
    Ok(Some(outcome(directory, before, &second, &truth)))
}
