//! Reads the attempts that runs have stored in a project.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use greenwave_storage::{Attempt, AttemptOutcome, Attempts, ChangeKind};
use serde::Serialize;

use crate::adapters;
use crate::boxed::boxed;
use crate::error::Error;
use crate::report::Usage;
use crate::settings::Settings;
use crate::state_dir;

/// The stored attempts of a project. Reading them does not disturb a run that is active.
#[derive(Debug)]
pub struct AttemptLog {
    attempts: Attempts,
}

/// An attempt at a feature, with its complete transcript.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct StoredAttempt {
    /// Id of the feature.
    pub feature: String,
    /// Number of the attempt in the store, from 1. Counts the attempts of all runs.
    pub number: u32,
    /// `passed`, `failed` (its tests), `aborted` (nothing could be tested), `not chosen` (another
    /// candidate was), or `red` (it wrote the tests, and they fail as they must).
    pub outcome: &'static str,
    /// Why it was refused, in one line. Empty if it passed.
    pub reason: String,
    /// Output of the failing test.
    pub test_output: String,
    /// Text of the agent's answer.
    pub words: String,
    /// Standard error of the agent's program.
    pub stderr: String,
    /// Exit of the agent's program.
    pub exit: String,
    /// Time from the request to the end of the agent's answer. Serialised in seconds. `None` if
    /// another run sent the request.
    #[serde(rename = "seconds", serialize_with = "seconds")]
    pub duration: Option<Duration>,
    /// Tokens and money that the agent has used, if it reported any.
    pub usage: Option<Usage>,
    /// The files that the attempt changed.
    pub files: Vec<StoredFile>,
    /// The changes as unified diffs.
    pub diff: String,
}

/// A file that an attempt changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct StoredFile {
    /// Path of the file, relative to the project.
    pub path: String,
    /// `created`, `modified` or `deleted`.
    pub change: &'static str,
}

/// Contents of the files that an attempt changed, by path.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AttemptFiles {
    /// Contents before the attempt. A file that the attempt created is missing.
    pub before: BTreeMap<String, Vec<u8>>,
    /// Contents after the attempt. A file that the attempt deleted is missing.
    pub after: BTreeMap<String, Vec<u8>>,
}

impl AttemptLog {
    /// Opens the attempts of a project. Returns `None` if the project has none.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub fn open(project: &Path, settings: &Settings) -> Result<Option<Self>, Error> {
        let Some(directory) = state_dir::existing(project, "store")? else { return Ok(None) };
        let (store, seal) = (adapters::store(settings, &directory)?, settings.seal_of(project)?);
        Ok(Some(Self { attempts: Attempts::new(store, &adapters::attempts_namespace(seal.as_ref())) }))
    }

    /// Reads the attempts of a run that is active.
    pub(crate) fn of(attempts: Attempts) -> Self {
        Self { attempts }
    }

    /// Returns the newest attempts at a feature, in order.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub(crate) async fn newest(&self, feature: &str, count: usize) -> Result<Vec<StoredAttempt>, Error> {
        let all = self.attempts.list(feature).await.map_err(Error::store("read from"))?;
        let older = all.len().saturating_sub(count);
        self.describe_all(all.into_iter().skip(older)).await
    }

    /// Returns the features that have attempts, sorted by id.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub fn features(&self) -> impl Future<Output = Result<Vec<String>, Error>> + Send {
        boxed(async { self.attempts.features().await.map_err(Error::store("read from")) })
    }

    /// Returns the attempts at a feature, in order.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub fn attempts<'a>(
        &'a self,
        feature: &'a str,
    ) -> impl Future<Output = Result<Vec<StoredAttempt>, Error>> + Send + 'a {
        boxed(self.list(feature))
    }

    /// Returns the changes between two attempts at a feature as unified diffs. Returns `None` if
    /// one of them does not exist.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub fn diff<'a>(
        &'a self,
        feature: &'a str,
        from: u32,
        to: u32,
    ) -> impl Future<Output = Result<Option<String>, Error>> + Send + 'a {
        boxed(async move {
            for number in [from, to] {
                if self.get(feature, number).await?.is_none() {
                    return Ok(None);
                }
            }
            let diff = self.attempts.diff(feature, from, to).await.map_err(Error::store("read from"))?;
            Ok(Some(diff.to_string()))
        })
    }

    /// Returns the contents of the files that an attempt changed. Returns `None` if it does not
    /// exist.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub fn files<'a>(
        &'a self,
        feature: &'a str,
        number: u32,
    ) -> impl Future<Output = Result<Option<AttemptFiles>, Error>> + Send + 'a {
        boxed(async move {
            let Some(attempt) = self.get(feature, number).await? else { return Ok(None) };
            let before = Attempt { files: attempt.base.clone(), ..attempt.clone() };
            Ok(Some(AttemptFiles {
                before: self.contents(&before).await?,
                after: self.contents(&attempt).await?,
            }))
        })
    }

    async fn get(&self, feature: &str, number: u32) -> Result<Option<Attempt>, Error> {
        self.attempts.get(feature, number).await.map_err(Error::store("read from"))
    }

    async fn contents(&self, attempt: &Attempt) -> Result<BTreeMap<String, Vec<u8>>, Error> {
        let files = self.attempts.files(attempt).await.map_err(Error::store("read from"))?;
        Ok(files.into_iter().map(|(path, content)| (path, content.to_vec())).collect())
    }

    async fn list(&self, feature: &str) -> Result<Vec<StoredAttempt>, Error> {
        let all = self.attempts.list(feature).await.map_err(Error::store("read from"))?;
        self.describe_all(all).await
    }

    async fn describe_all(
        &self,
        attempts: impl IntoIterator<Item = Attempt>,
    ) -> Result<Vec<StoredAttempt>, Error> {
        let mut found = Vec::new();
        for attempt in attempts {
            found.push(self.describe(attempt).await?);
        }
        Ok(found)
    }

    async fn describe(&self, attempt: Attempt) -> Result<StoredAttempt, Error> {
        let changes = self.attempts.changes(&attempt).await.map_err(Error::store("read from"))?;
        let files = changes.files.iter().map(|file| StoredFile {
            path: file.path.clone(),
            change: match file.change {
                ChangeKind::Added => "created",
                ChangeKind::Removed => "deleted",
                ChangeKind::Modified => "modified",
            },
        });
        let figures = attempt.figures;
        let usage = figures.map(|figures| Usage {
            input_tokens: figures.input_tokens,
            cached_tokens: figures.cached_tokens,
            output_tokens: figures.output_tokens,
            cost: figures.cost,
        });
        Ok(StoredAttempt {
            duration: figures.map(|figures| Duration::from_millis(figures.millis)),
            usage: usage.filter(|usage| !usage.is_empty()),
            files: files.collect(),
            diff: changes.to_string(),
            feature: attempt.feature,
            number: attempt.number,
            outcome: match attempt.outcome {
                AttemptOutcome::Passed => "passed",
                AttemptOutcome::Failed => "failed",
                AttemptOutcome::Aborted => "aborted",
                AttemptOutcome::NotChosen => "not chosen",
                AttemptOutcome::Red => "red",
            },
            reason: attempt.reason,
            test_output: attempt.note,
            words: attempt.transcript.words,
            stderr: attempt.transcript.stderr,
            exit: attempt.transcript.exit,
        })
    }
}

#[expect(clippy::ref_option, reason = "the signature that serde requires")]
fn seconds<S: serde::Serializer>(duration: &Option<Duration>, out: S) -> Result<S::Ok, S::Error> {
    match duration {
        Some(duration) => out.serialize_some(&duration.as_secs_f64()),
        None => out.serialize_none(),
    }
}
