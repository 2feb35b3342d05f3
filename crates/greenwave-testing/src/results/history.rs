//! How tests have fared in earlier runs. Knows nothing of running them.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::Duration;

use greenwave_scheduler::TaskHistory;
use serde::{Deserialize, Serialize};

use crate::{Error, Outcome};
use greenwave_inputs::replace;

/// Most tests that are remembered.
const TESTS_MAX: usize = 100_000;
/// The weight of the newest duration in the moving average.
const NEWEST: f64 = 0.3;

/// What is remembered of a project's tests, by name.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Statistics {
    tests: BTreeMap<String, TestStatistics>,
    #[serde(skip)]
    is_changed: bool,
}

/// How a test has fared. Older runs count less: each further run takes a tenth off what those before count.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct TestStatistics {
    /// Moving average of the time it took, in seconds.
    pub seconds: f64,
    /// Runs.
    pub runs: f64,
    /// Failed runs.
    pub failures: f64,
    /// Runs that passed only when tried again.
    pub flaky: f64,
    /// Whether the last one failed.
    pub failed_last: bool,
}

impl Statistics {
    /// What an earlier run saved; nothing if there is nothing that can be read.
    pub(crate) fn load(file: &Path) -> Self {
        let read = fs::read(file).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok());
        read.unwrap_or_default()
    }

    /// What is remembered of a test.
    pub fn get(&self, test: &str) -> Option<&TestStatistics> {
        self.tests.get(test)
    }

    /// All that is remembered, by name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &TestStatistics)> {
        self.tests.iter().map(|(name, statistics)| (name.as_str(), statistics))
    }

    /// Takes note of a run that was one.
    pub(crate) fn observe(&mut self, test: &str, outcome: &Outcome) {
        if outcome.is_cached() || (self.tests.len() >= TESTS_MAX && !self.tests.contains_key(test)) {
            return;
        }
        self.is_changed = true;
        let known = self.tests.entry(test.to_owned()).or_default();
        let took = outcome.duration.as_secs_f64();
        known.seconds = if known.runs > 0.0 { known.seconds + NEWEST * (took - known.seconds) } else { took };
        let mut history = known.history(Duration::ZERO);
        history.observe(!outcome.passed());
        known.flaky = known.flaky * 0.9 + f64::from(u8::from(outcome.is_flaky()));
        (known.runs, known.failures, known.failed_last) =
            (history.runs, history.failures, history.failed_last);
    }

    /// What to expect of a test; of one that is not known, the median of the others.
    pub(crate) fn expect(&self, test: &str, changed: bool) -> TaskHistory {
        let median = || {
            let mut all: Vec<f64> = self.tests.values().map(|it| it.seconds).collect();
            all.sort_by(f64::total_cmp);
            Duration::try_from_secs_f64(all.get(all.len() / 2).copied().unwrap_or(1.0)).unwrap_or_default()
        };
        let history = self.tests.get(test).map_or_else(
            || TaskHistory::unknown(median()),
            |known| known.history(Duration::try_from_secs_f64(known.seconds).unwrap_or_default()),
        );
        TaskHistory { changed, ..history }
    }

    pub(crate) fn save(&mut self, file: &Path) -> Result<(), Error> {
        if self.is_changed {
            replace(file, &serde_json::to_vec(&self).unwrap_or_default())?;
            self.is_changed = false;
        }
        Ok(())
    }
}

impl TestStatistics {
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
