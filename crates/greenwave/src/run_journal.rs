//! The journal of a project's runs, whose records are sealed.
//!
//! The journal is in the project's directory, which may be a clone of somebody else's repository. A
//! record says that a feature was merged, or which files a merge still has to write, so a record
//! that was made elsewhere counts as missing.
//!
//! The user may remove the directory during a run. Its records are then written into a new one.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use greenwave_scheduler::{Durations, Error as JournalError, Journal};
use greenwave_testing::StateSeal;
use parking_lot::{Mutex, RwLock};

use crate::error::Error;
use crate::state_home::{StateHome, StatePart};

/// Name of the journal's directory in the state directory.
const NAME: &str = "journal";
/// Id of the record of all durations, if they are sealed. Ids of features have no slash.
const DURATIONS: &str = "durations/all";

/// The journal of a project's runs.
#[derive(Debug)]
pub(crate) struct RunJournal {
    opened: RwLock<Opened>,
    seal: Option<StateSeal>,
}

#[derive(Debug)]
struct Opened {
    journal: Journal,
    /// The directory and the records in it, if the directory may be removed.
    guarded: Option<Guarded>,
}

#[derive(Debug)]
struct Guarded {
    home: Arc<StateHome>,
    part: StatePart,
    /// The records as they are on disk.
    records: Mutex<BTreeMap<String, Vec<u8>>>,
}

impl RunJournal {
    /// Opens the journal in a directory. Without a seal, records are neither sealed nor verified.
    ///
    /// # Errors
    /// [`Error::Schedule`], as for all methods.
    pub(crate) fn open(directory: impl AsRef<Path>, seal: Option<StateSeal>) -> Result<Self, Error> {
        let opened = Opened { journal: Journal::open(directory)?, guarded: None };
        Ok(Self { opened: RwLock::new(opened), seal })
    }

    /// Opens the journal of a run in a state directory that may be removed.
    ///
    /// # Errors
    /// Those of [`open`](Self::open) and of the directory.
    pub(crate) fn open_guarded(home: Arc<StateHome>, seal: Option<StateSeal>) -> Result<Self, Error> {
        let part = home.part(NAME)?;
        let journal = Journal::open(&part.path)?;
        let records = journal.finished()?.into_iter().map(|(id, record)| (id, record.to_vec()));
        let guarded = Guarded { home, part, records: Mutex::new(records.collect()) };
        let opened = Opened { journal, guarded: Some(guarded) };
        Ok(Self { opened: RwLock::new(opened), seal })
    }

    /// Calls the journal, which is in a new directory if its own was removed. Repeats a call that
    /// fails because the directory was removed meanwhile.
    fn call<T>(&self, call: impl Fn(&Journal) -> Result<T, JournalError>) -> Result<T, Error> {
        self.recover()?;
        let called = call(&self.opened.read().journal);
        if called.is_err() && self.opened.read().is_gone() {
            self.recover()?;
            return Ok(call(&self.opened.read().journal)?);
        }
        Ok(called?)
    }

    /// Writes the records into a new directory if theirs was removed.
    fn recover(&self) -> Result<(), Error> {
        if !self.opened.read().is_gone() {
            return Ok(());
        }
        let mut opened = self.opened.write();
        if !opened.is_gone() {
            return Ok(());
        }
        let Opened { journal, guarded: Some(guarded) } = &mut *opened else { return Ok(()) };
        let part = guarded.home.part(NAME)?;
        let new = Journal::open(&part.path)?;
        for (id, record) in guarded.records.lock().iter() {
            new.record(id, record)?;
        }
        (*journal, guarded.part) = (new, part);
        guarded.home.note_restored(0);
        Ok(())
    }

    /// Stores a record durably.
    pub(crate) fn record(&self, id: &str, payload: &[u8]) -> Result<(), Error> {
        let sealed = self.seal.as_ref().map(|seal| seal.seal(&name(id), payload.to_vec()));
        let record = sealed.as_deref().unwrap_or(payload);
        self.call(|journal| journal.record(id, record))?;
        if let Some(guarded) = &self.opened.read().guarded {
            guarded.records.lock().insert(id.to_owned(), record.to_owned());
        }
        Ok(())
    }

    /// Removes a record durably.
    pub(crate) fn forget(&self, id: &str) -> Result<(), Error> {
        self.call(|journal| journal.forget(id))?;
        if let Some(guarded) = &self.opened.read().guarded {
            guarded.records.lock().remove(id);
        }
        Ok(())
    }

    /// Writes records again that disappeared while the directory was being removed.
    pub(crate) fn complete(&self) -> Result<(), Error> {
        self.recover()?;
        let opened = self.opened.read();
        let Some(guarded) = &opened.guarded else { return Ok(()) };
        // The open journal has its files even if they are removed.
        let on_disk = Journal::open(&guarded.part.path)?;
        let found = on_disk.finished()?;
        for (id, record) in guarded.records.lock().iter().filter(|(id, _)| !found.contains_key(*id)) {
            on_disk.record(id, record)?;
        }
        Ok(())
    }

    /// Returns all records whose seal verifies, by id.
    pub(crate) fn finished(&self) -> Result<BTreeMap<String, Bytes>, Error> {
        let mut records = self.call(Journal::finished)?;
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
            return self.call(Journal::durations);
        }
        let recorded = self.finished()?.remove(DURATIONS);
        let seconds: BTreeMap<String, f64> =
            recorded.and_then(|text| serde_json::from_slice(&text).ok()).unwrap_or_default();
        Ok(seconds.into_iter().collect())
    }

    /// Records durations for later runs.
    pub(crate) fn record_durations(&self, durations: &Durations) -> Result<(), Error> {
        if self.seal.is_none() {
            return self.call(|journal| journal.record_durations(durations));
        }
        let seconds: BTreeMap<&str, f64> = durations.iter().collect();
        self.record(
            DURATIONS,
            &serde_json::to_vec(&seconds).expect("names and finite numbers always serialise"),
        )
    }
}

impl Opened {
    fn is_gone(&self) -> bool {
        self.guarded.as_ref().is_some_and(|guarded| guarded.part.is_gone())
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

    #[test]
    fn records_survive_the_removal_of_their_directory() {
        let project = tempfile::tempdir().unwrap();
        let (directory, _lock) = crate::state_dir::lock(project.path()).unwrap();
        let state = directory.path().to_owned();
        let home = Arc::new(StateHome::new(project.path(), directory, &[]));
        let journal = RunJournal::open_guarded(Arc::clone(&home), None).unwrap();
        journal.record("a", b"1").unwrap();
        journal.record("b", b"1").unwrap();
        std::fs::remove_dir_all(&state).unwrap();
        journal.forget("b").unwrap();
        assert!(home.take_restored().is_some());
        journal.record("c", b"1").unwrap();
        // Files vanish before their directory does.
        for entry in std::fs::read_dir(state.join("journal")).unwrap() {
            std::fs::remove_file(entry.unwrap().path()).unwrap();
        }
        journal.record("d", b"1").unwrap();
        journal.complete().unwrap();
        drop(journal);
        let again = RunJournal::open(state.join("journal"), None).unwrap();
        assert_eq!(again.finished().unwrap().into_keys().collect::<Vec<_>>(), ["a", "c", "d"]);
    }
}
