//! A durable journal of finished tasks and learned durations, stored in a greenwave-segment log. A
//! run that was killed continues from it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use greenwave_segment::{Log, Options};

use crate::{Durations, Error};

const FINISHED: &[u8] = b"finished/";
const DURATION: &[u8] = b"duration/";

/// A durable journal of finished tasks, each with a payload, and of durations. Threads and
/// processes may share its directory: each call sees records that others wrote before it.
#[derive(Debug)]
pub struct Journal {
    log: Log,
    dir: PathBuf,
}

impl Journal {
    /// Opens the journal in a directory, which is created if necessary.
    ///
    /// # Errors
    /// [`Error::Journal`], as for all methods.
    pub fn open(dir: impl AsRef<Path>) -> Result<Self, Error> {
        let dir = dir.as_ref();
        Self::on(Log::open(dir, Options::default()), dir)
    }

    /// Opens the journal in a process of a simulated machine.
    ///
    /// # Errors
    /// [`Error::Journal`].
    #[cfg(feature = "simulation")]
    pub fn open_simulated(
        process: &greenwave_segment::simulation::Process,
        dir: impl AsRef<Path>,
    ) -> Result<Self, Error> {
        use greenwave_segment::simulation::clock;
        let options = Options { clock, segment_bytes_max: 4096, ..Options::default() };
        Self::on(Log::open_simulated(process, &dir, options), dir.as_ref())
    }

    fn on(log: Result<Log, greenwave_segment::Error>, dir: &Path) -> Result<Self, Error> {
        let dir = dir.to_owned();
        match log {
            Ok(log) => Ok(Self { log, dir }),
            Err(source) => Err(Error::Journal { operation: "open", dir, source: source.into() }),
        }
    }

    /// Records a task as finished. The record is durable when the call returns.
    ///
    /// # Errors
    /// [`Error::Journal`]; the task then counts as not finished.
    pub fn record(&self, id: &str, payload: &[u8]) -> Result<(), Error> {
        let key = [FINISHED, id.as_bytes()].concat();
        self.see_others()?;
        self.log.put(&key, payload).and_then(|_| self.log.flush()).map_err(self.failed("append to"))
    }

    /// Removes the record of a finished task. The removal is durable when the call returns.
    ///
    /// # Errors
    /// [`Error::Journal`].
    pub fn forget(&self, id: &str) -> Result<(), Error> {
        let key = [FINISHED, id.as_bytes()].concat();
        self.see_others()?;
        let flush = |removed| {
            if removed {
                self.log.flush()
            } else {
                // Another process may have removed the record without making that durable.
                self.log.flush_shared()
            }
        };
        self.log.remove(&key).and_then(flush).map_err(self.failed("append to"))
    }

    /// Returns all finished tasks with their payloads. A task whose record is damaged counts as not
    /// finished.
    ///
    /// # Errors
    /// [`Error::Journal`].
    pub fn finished(&self) -> Result<BTreeMap<String, Bytes>, Error> {
        Ok(self.entries(FINISHED)?.into_iter().collect())
    }

    /// Returns the durations recorded by earlier runs.
    ///
    /// # Errors
    /// [`Error::Journal`].
    pub fn durations(&self) -> Result<Durations, Error> {
        let seconds = |bytes: Bytes| {
            let seconds = f64::from_le_bytes(bytes.as_ref().try_into().ok()?);
            (seconds.is_finite() && seconds >= 0.0).then_some(seconds)
        };
        let entries = self.entries(DURATION)?.into_iter();
        Ok(entries.filter_map(|(key, bytes)| Some((key, seconds(bytes)?))).collect())
    }

    /// Records durations for later runs. They only improve estimates, so they are not synced to
    /// disk.
    ///
    /// # Errors
    /// [`Error::Journal`].
    pub fn record_durations(&self, durations: &Durations) -> Result<(), Error> {
        for (key, seconds) in durations.iter() {
            let key = [DURATION, key.as_bytes()].concat();
            self.log.put(&key, &seconds.to_le_bytes()).map_err(self.failed("append to"))?;
        }
        Ok(())
    }

    fn entries(&self, prefix: &[u8]) -> Result<Vec<(String, Bytes)>, Error> {
        self.see_others()?;
        let mut entries = Vec::new();
        for key in self.log.keys_with_prefix(prefix) {
            // A name that is no text was not written by this journal. Converted, it could take the
            // place of another one.
            let Ok(name) = String::from_utf8(key[prefix.len()..].to_vec()) else { continue };
            let value = self.log.get(&key).map_err(self.failed("read"))?;
            entries.extend(value.map(|value| (name, value)));
        }
        Ok(entries)
    }

    /// Reads the records of other processes, so that the next write supersedes them.
    fn see_others(&self) -> Result<(), Error> {
        self.log.refresh_if_stale().map(drop).map_err(self.failed("read"))
    }

    fn failed(&self, operation: &'static str) -> impl FnOnce(greenwave_segment::Error) -> Error + use<> {
        let dir = self.dir.clone();
        move |source| Error::Journal { operation, dir, source: source.into() }
    }
}
