//! Statistics of earlier runs: durations, failures and flakiness of each test.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use greenwave_scheduler::TaskHistory;
use serde::{Deserialize, Serialize};

use crate::results::state::{StateDirectory, StateFile};
use crate::{Error, Interference, Outcome, UserKey};

/// Maximum number of tests with statistics. Further tests are not recorded.
const TESTS_MAX: usize = 100_000;
/// Weight of the newest duration in the exponential moving average.
const NEWEST: f64 = 0.3;

/// Durations, failures and flakiness of a project's tests, learned by earlier runs.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ProjectHistory {
    /// The tests that have run, ordered by name.
    pub tests: Vec<TestHistory>,
    /// Time that cached results have saved in runs in which at least one test ran. What runs have
    /// saved in which all tests were cached is not recorded.
    pub saved: Duration,
    /// Number of cached results that those runs used.
    pub cached: u64,
}

/// Durations, failures and flakiness of one test.
///
/// The weight of a run decays by a tenth with each later run, so the counts are fractions.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct TestHistory {
    /// Name of the test.
    pub name: String,
    /// Moving average of the duration.
    pub average: Duration,
    /// Moving average of the duration before the last run. That of the last run after the first
    /// one.
    pub earlier: Duration,
    /// Duration of the last run.
    pub last: Duration,
    /// Decayed number of runs.
    pub runs: f64,
    /// Decayed number of failed runs.
    pub failures: f64,
    /// Decayed number of runs that passed only after a retry.
    pub flaky: f64,
    /// Whether the last run failed.
    pub failed_last: bool,
    /// Whether the test was seen to fail while others run beside it.
    pub runs_alone: bool,
    /// Whether the last result depended on the tests before it in the same process.
    pub depends_on_order: bool,
}

impl ProjectHistory {
    /// Reads the history of a project. It is empty if no test has run there, or if another user's
    /// key seals its state.
    ///
    /// # Errors
    /// [`Error::Io`] if the project does not exist.
    pub fn read(project: &Path, key: &UserKey) -> Result<Self, Error> {
        Ok(Statistics::load(&StateDirectory::existing(project, key)?).into_history())
    }
}

/// Statistics of a project's tests, by name.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Statistics {
    tests: BTreeMap<String, TestStatistics>,
    /// Time that cached results have saved in runs in which another test ran, in seconds.
    #[serde(default)]
    saved_seconds: f64,
    /// Number of cached results that those runs used.
    #[serde(default)]
    cached: u64,
    #[serde(skip)]
    is_changed: bool,
}

/// Statistics of one test.
///
/// The weight of a run decays by a tenth with each later run, so the counts are fractions.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct TestStatistics {
    /// Exponential moving average of the duration, in seconds.
    pub seconds: f64,
    /// Duration of the last run, in seconds.
    #[serde(default)]
    pub last_seconds: f64,
    /// Moving average of the duration before the last run, in seconds.
    #[serde(default)]
    pub earlier_seconds: f64,
    /// Decayed number of runs.
    pub runs: f64,
    /// Decayed number of failed runs.
    pub failures: f64,
    /// Decayed number of runs that passed only after a retry.
    pub flaky: f64,
    /// Whether the last run failed.
    pub failed_last: bool,
    /// Whether the test was seen to fail while others run beside it.
    #[serde(default)]
    pub runs_alone: bool,
    /// Whether the last result depended on the tests before it in the same process.
    #[serde(default)]
    pub depends_on_order: bool,
}

impl Statistics {
    /// Loads the statistics that an earlier run saved. A missing or damaged file counts as empty.
    pub(crate) fn load(state: &StateDirectory) -> Self {
        state.load_json(StateFile::Statistics)
    }

    /// Adds an outcome. Ignores cached results, since the test did not run.
    pub(crate) fn observe(&mut self, test: &str, outcome: &Outcome) {
        if outcome.is_cached() || (self.tests.len() >= TESTS_MAX && !self.tests.contains_key(test)) {
            return;
        }
        self.is_changed = true;
        let statistics = self.tests.entry(test.to_owned()).or_default();
        let seconds = outcome.duration.as_secs_f64();
        (statistics.earlier_seconds, statistics.last_seconds) = (statistics.seconds, seconds);
        if statistics.runs > 0.0 {
            statistics.seconds += NEWEST * (seconds - statistics.seconds);
        } else {
            statistics.seconds = seconds;
            statistics.earlier_seconds = seconds;
        }
        statistics.runs_alone |= outcome.interference == Some(Interference::FailsBesideOthers);
        statistics.depends_on_order = outcome.interference.is_some_and(Interference::is_of_order);
        let mut history = statistics.history(Duration::ZERO);
        history.observe(!outcome.passed());
        statistics.flaky = statistics.flaky * 0.9 + f64::from(u8::from(outcome.is_flaky()));
        statistics.runs = history.runs;
        statistics.failures = history.failures;
        statistics.failed_last = history.failed_last;
    }

    /// Records that a test could not be run.
    pub(crate) fn observe_error(&mut self, test: &str) {
        let is_full = self.tests.len() >= TESTS_MAX && !self.tests.contains_key(test);
        if !is_full {
            self.is_changed = true;
            self.tests.entry(test.to_owned()).or_default().failed_last = true;
        }
    }

    /// Adds the cached results that a run has used, and the time that they have saved.
    pub(crate) fn observe_cached(&mut self, cached: usize, saved: Duration) {
        self.is_changed |= cached > 0;
        self.cached = self.cached.saturating_add(cached as u64);
        self.saved_seconds += saved.as_secs_f64();
    }

    /// Returns the statistics for people.
    pub(crate) fn into_history(self) -> ProjectHistory {
        let seconds = |seconds: f64| Duration::try_from_secs_f64(seconds).unwrap_or_default();
        let test = |(name, it): (String, TestStatistics)| TestHistory {
            name,
            average: seconds(it.seconds),
            earlier: seconds(it.earlier_seconds),
            last: seconds(it.last_seconds),
            runs: it.runs,
            failures: it.failures,
            flaky: it.flaky,
            failed_last: it.failed_last,
            runs_alone: it.runs_alone,
            depends_on_order: it.depends_on_order,
        };
        let tests = self.tests.into_iter().map(test).collect();
        ProjectHistory { tests, saved: seconds(self.saved_seconds), cached: self.cached }
    }

    /// Returns the statistics of a test, if it has run before.
    pub(crate) fn get(&self, test: &str) -> Option<&TestStatistics> {
        self.tests.get(test)
    }

    /// Returns the history of a test for the scheduler. `changed` states whether one of its
    /// dependencies has changed since its last stored result.
    ///
    /// A test without statistics is expected to take the median duration of all tests, or one
    /// second in a project without statistics.
    pub(crate) fn expect(&self, test: &str, changed: bool) -> TaskHistory {
        let median = || {
            let mut seconds: Vec<f64> = self.tests.values().map(|it| it.seconds).collect();
            seconds.sort_by(f64::total_cmp);
            Duration::try_from_secs_f64(seconds.get(seconds.len() / 2).copied().unwrap_or(1.0))
                .unwrap_or_default()
        };
        let history = self.tests.get(test).map_or_else(
            || TaskHistory::unknown(median()),
            |it| it.history(Duration::try_from_secs_f64(it.seconds).unwrap_or_default()),
        );
        TaskHistory { changed, ..history }
    }

    /// Saves the statistics if they have changed.
    ///
    /// # Errors
    /// [`Error::Inputs`] if the file cannot be replaced.
    pub(crate) fn save(&mut self, state: &StateDirectory) -> Result<(), Error> {
        if self.is_changed {
            state.save_json(StateFile::Statistics, &self)?;
            self.is_changed = false;
        }
        Ok(())
    }
}

impl TestStatistics {
    /// Returns the average duration, if the test has run.
    pub(crate) fn duration(&self) -> Option<Duration> {
        Some(self.seconds).filter(|_| self.runs > 0.0).and_then(|it| Duration::try_from_secs_f64(it).ok())
    }

    fn history(&self, duration: Duration) -> TaskHistory {
        TaskHistory {
            duration,
            runs: self.runs,
            failures: self.failures,
            failed_last: self.failed_last,
            changed: false,
        }
    }
}
