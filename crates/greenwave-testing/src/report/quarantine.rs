//! Tests whose failures do not fail a run until a date.

use std::fmt;
use std::time::SystemTime;

use chrono::{DateTime, NaiveDate, Utc};

use crate::run::environment::matches_pattern;

/// A test that is in quarantine: its failures are reported, and do not fail a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QuarantineEntry {
    /// Name of the test. A `*` matches any characters.
    test: String,
    /// The last day, in UTC. Afterwards failures count again.
    until: NaiveDate,
    /// Reason, for people.
    reason: Option<String>,
}

/// The error of a text that is not a day.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("expected a day like 2030-12-31")]
pub struct InvalidDay;

impl QuarantineEntry {
    /// Creates an entry for the test of this name, in which a `*` matches any
    /// characters.
    /// `until` is the last day in UTC, such as `2030-12-31`.
    ///
    /// # Errors
    /// [`InvalidDay`] if `until` is not a day.
    pub fn new(test: impl Into<String>, until: &str, reason: Option<String>) -> Result<Self, InvalidDay> {
        let until = NaiveDate::parse_from_str(until, "%Y-%m-%d").map_err(|_| InvalidDay)?;
        Ok(Self { test: test.into(), until, reason })
    }

    /// Returns the name of the test, or the pattern.
    pub fn test(&self) -> &str {
        &self.test
    }
}

/// The tests in quarantine on one day.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Quarantine {
    entries: Vec<QuarantineEntry>,
    today: NaiveDate,
}

impl Quarantine {
    /// Creates the quarantine of a moment.
    pub fn at(now: SystemTime, entries: Vec<QuarantineEntry>) -> Self {
        Self { entries, today: DateTime::<Utc>::from(now).date_naive() }
    }

    /// Returns the entry that holds for a test today.
    pub fn entry(&self, test: &str) -> Option<&QuarantineEntry> {
        self.entries.iter().find(|entry| entry.until >= self.today && matches_pattern(&entry.test, test))
    }

    /// Returns the entries whose last day has passed.
    pub fn ended(&self) -> impl Iterator<Item = &QuarantineEntry> {
        self.entries.iter().filter(|entry| entry.until < self.today)
    }

    /// Returns the entries that match no test.
    pub fn unmatched<'q>(&'q self, tests: &'q [crate::Test]) -> impl Iterator<Item = &'q QuarantineEntry> {
        let matches =
            |entry: &&QuarantineEntry| tests.iter().any(|test| matches_pattern(&entry.test, &test.name));
        self.entries.iter().filter(move |entry| !matches(entry))
    }
}

impl fmt::Display for QuarantineEntry {
    /// Writes `in quarantine until 2030-12-31: REASON`.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "in quarantine until {}", self.until)?;
        match &self.reason {
            Some(reason) => write!(formatter, ": {reason}"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn an_entry_holds_through_its_last_day() {
        let until = NaiveDate::from_ymd_opt(2030, 5, 6).unwrap();
        let entry = QuarantineEntry::new("net *", "2030-05-06", Some("#7".to_owned())).unwrap();
        let midnight = SystemTime::from(until.and_hms_opt(0, 0, 0).unwrap().and_utc());
        let at = |hours: i64| {
            let offset = Duration::from_secs(hours.unsigned_abs() * 3600);
            let now = if hours < 0 { midnight - offset } else { midnight + offset };
            Quarantine::at(now, vec![entry.clone()])
        };
        assert_eq!(at(23).entry("net slow"), Some(&entry));
        assert_eq!(at(23).entry("other net slow"), None);
        assert_eq!(at(23).ended().count(), 0);
        assert_eq!(at(24).entry("net slow"), None);
        assert_eq!(at(24).ended().count(), 1);
        assert_eq!(at(-24).entry("net slow"), Some(&entry));
        assert_eq!(entry.to_string(), "in quarantine until 2030-05-06: #7");
        let tests = [crate::Test::new("a", ["true"])];
        assert_eq!(at(0).unmatched(&tests).count(), 1);
        assert_eq!(QuarantineEntry::new("a", "2030-02-30", None), Err(InvalidDay));
    }
}
