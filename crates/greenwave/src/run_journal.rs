//! The journal of a project's runs, whose records are sealed.
//!
//! The journal is in the project's directory, which may be a clone of somebody else's repository. A
//! record says that a feature was merged, or which files a merge still has to write, so a record
//! that was made elsewhere counts as missing.

use std::collections::BTreeMap;
use std::path::Path;

use bytes::Bytes;
use greenwave_scheduler::{Durations, Journal};
use greenwave_testing::StateSeal;

use crate::error::Error;

/// Id of the record of all durations, if they are sealed. Ids of features have no slash.
const DURATIONS: &str = "durations/all";

/// The journal of a project's runs.
#[derive(Debug)]
pub(crate) struct RunJournal {
    journal: Journal,
    seal: Option<StateSeal>,
}

impl RunJournal {
    /// Opens the journal in a directory. Without a seal, records are neither sealed nor verified.
    ///
    /// # Errors
    /// [`Error::Schedule`], as for all methods.
    pub(crate) fn open(directory: impl AsRef<Path>, seal: Option<StateSeal>) -> Result<Self, Error> {
        Ok(Self { journal: Journal::open(directory)?, seal })
    }

    /// Stores a record durably.
    pub(crate) fn record(&self, id: &str, payload: &[u8]) -> Result<(), Error> {
        match &self.seal {
            Some(seal) => Ok(self.journal.record(id, &seal.seal(&name(id), payload.to_vec()))?),
            None => Ok(self.journal.record(id, payload)?),
        }
    }

    /// Removes a record durably.
    pub(crate) fn forget(&self, id: &str) -> Result<(), Error> {
        Ok(self.journal.forget(id)?)
    }

    /// Returns all records whose seal verifies, by id.
    pub(crate) fn finished(&self) -> Result<BTreeMap<String, Bytes>, Error> {
        let mut records = self.journal.finished()?;
        if let Some(seal) = &self.seal {
            records.retain(|id, sealed| {
                let content = seal.unseal(&name(id), sealed).map(<[u8]>::len);
                content.inspect(|length| sealed.truncate(*length)).is_some()
            });
        }
        Ok(records)
    }

    /// Returns the durations that earlier runs have recorded.
    pub(crate) fn durations(&self) -> Result<Durations, Error> {
        if self.seal.is_none() {
            return Ok(self.journal.durations()?);
        }
        let recorded = self.finished()?.remove(DURATIONS);
        let seconds: BTreeMap<String, f64> =
            recorded.and_then(|text| serde_json::from_slice(&text).ok()).unwrap_or_default();
        Ok(seconds.into_iter().collect())
    }

    /// Records durations for later runs.
    pub(crate) fn record_durations(&self, durations: &Durations) -> Result<(), Error> {
        if self.seal.is_none() {
            return Ok(self.journal.record_durations(durations)?);
        }
        let seconds: BTreeMap<&str, f64> = durations.iter().collect();
        self.record(
            DURATIONS,
            &serde_json::to_vec(&seconds).expect("names and finite numbers always serialise"),
        )
    }
}

/// Returns the name of a record in its seal.
fn name(id: &str) -> String {
    format!("journal/{id}")
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use greenwave_testing::UserKey;

    use super::*;

    #[test]
    fn records_of_others_are_missing() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("journal");
        let open = |key: u8| {
            let seal = UserKey::new([key; 32]).for_project(directory.path()).unwrap();
            RunJournal::open(&path, Some(seal)).unwrap()
        };
        let mut durations = Durations::default();
        durations.observe("feature:a", Duration::from_secs(7));
        open(1).record("a", b"green").unwrap();
        open(1).record_durations(&durations).unwrap();
        assert_eq!(open(1).finished().unwrap()["a"], "green");
        assert_eq!(open(1).durations().unwrap().estimate("feature:a"), Duration::from_secs(7));
        // Another user or another project.
        assert!(open(2).finished().unwrap().is_empty());
        assert_eq!(open(2).durations().unwrap().estimate("feature:a"), Durations::DEFAULT);
        // Records without a seal, and a record under another id.
        let plain = RunJournal::open(&path, None).unwrap();
        let sealed = plain.finished().unwrap()["a"].clone();
        plain.record("b", &sealed).unwrap();
        plain.record("c", b"green").unwrap();
        plain.record_durations(&durations).unwrap();
        assert_eq!(open(1).finished().unwrap().keys().collect::<Vec<_>>(), ["a", DURATIONS]);
    }
}
