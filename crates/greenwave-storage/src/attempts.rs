//! Records the attempts at a feature: their files, their outcome, and the changes between them.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::Mutex as AsyncMutex;

use crate::diff::{Diff, FileDiff};
use crate::record_codec::{RecordReader, RecordWriter, sorted_files};
use crate::{BlobId, Error, Store};

/// Kind of the record of an attempt without figures.
const KIND: [u8; 4] = *b"GWA\x02";
/// Kind of the record of an attempt with figures.
const KIND_WITH_FIGURES: [u8; 4] = *b"GWA\x03";
const EXPECTED: &str = "an attempt of version 2 or 3";

/// Outcome of an attempt.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum AttemptOutcome {
    /// The attempt passed its tests.
    Passed,
    /// The attempt failed its tests.
    Failed,
    /// The attempt produced nothing that could be tested, such as no usable answer.
    #[default]
    Aborted,
    /// Another answer to the same attempt was chosen.
    NotChosen,
    /// The attempt wrote tests, and they fail as they must before the code exists.
    Red,
}

/// Words of the author of an attempt, such as a coding agent, and its exit. All texts are
/// stored as they are: bound their size, and remove secrets first.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Transcript {
    /// The text of the answer.
    pub words: String,
    /// The text on standard error.
    pub stderr: String,
    /// Exit of the program, such as `exit status: 1`. Empty if there was no program.
    pub exit: String,
}

/// Time and usage of an attempt.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct AttemptFigures {
    /// Time that the author took, in milliseconds.
    pub millis: u64,
    /// Tokens that a model has read, including cached ones.
    pub input_tokens: u64,
    /// Those of them that came from the provider's cache.
    pub cached_tokens: u64,
    /// Tokens that a model has written.
    pub output_tokens: u64,
    /// Cost in millionths of a US dollar. `None` if it is unknown.
    pub cost: Option<u64>,
}

/// An attempt to record.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NewAttempt {
    /// Contents of the files by path.
    pub files: BTreeMap<String, Bytes>,
    /// Blob ids of further files by path, whose contents this store has put since it was opened.
    pub stored: BTreeMap<String, BlobId>,
    /// Blob ids before the attempt, by path, of files that it changed or removed.
    pub base: BTreeMap<String, BlobId>,
    /// Outcome of the attempt.
    pub outcome: AttemptOutcome,
    /// Why the attempt failed, in one line. Empty if it passed.
    pub reason: String,
    /// Free text, such as the failure message.
    pub note: String,
    /// Words of the author.
    pub transcript: Transcript,
    /// Time and usage, if the caller measures them.
    pub figures: Option<AttemptFigures>,
}

/// A recorded attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attempt {
    /// Name of the feature.
    pub feature: String,
    /// Number of the attempt at this feature, from 1.
    pub number: u32,
    /// Blob ids of the files by path.
    pub files: BTreeMap<String, BlobId>,
    /// Blob ids before the attempt, by path, of files that it changed or removed.
    pub base: BTreeMap<String, BlobId>,
    /// Outcome of the attempt.
    pub outcome: AttemptOutcome,
    /// Why the attempt failed, in one line. Empty if it passed.
    pub reason: String,
    /// Free text.
    pub note: String,
    /// Words of the author.
    pub transcript: Transcript,
    /// Time and usage, if the caller measures them.
    pub figures: Option<AttemptFigures>,
}

/// Summary of all attempts at a feature.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AttemptSummary {
    /// Name of the feature.
    pub feature: String,
    /// Number of attempts.
    pub attempts: u32,
    /// Number of the last attempt that passed.
    pub passed: Option<u32>,
    /// Paths of all files in any attempt.
    pub paths: BTreeSet<String>,
    /// Number of distinct file contents in all attempts. Equal contents are stored once.
    pub blobs: usize,
}

/// Records attempts in a [`Store`], under names that begin with a namespace. Clones share the
/// numbering.
#[derive(Debug, Clone)]
pub struct Attempts {
    store: Store,
    namespace: String,
    /// Last number of each feature, cached. The lock keeps concurrent attempts from getting the
    /// same number.
    numbering: Arc<AsyncMutex<HashMap<String, u32>>>,
}

impl Attempts {
    /// Creates a view of the attempts under `namespace`, which must be used only by this value and
    /// its clones.
    pub fn new(store: Store, namespace: &str) -> Self {
        Self { store, namespace: escape(namespace), numbering: Arc::default() }
    }

    /// Records an attempt under the feature's next number. It is durable after the store's next
    /// flush.
    ///
    /// # Errors
    ///
    /// Returns the errors of [`Store::put`].
    pub async fn record(&self, feature: &str, attempt: NewAttempt) -> Result<Attempt, Error> {
        let NewAttempt { files, stored: mut ids, base: old, outcome, reason, note, transcript, figures } =
            attempt;
        let before = if files.is_empty() { None } else { self.latest(feature).await? };
        for (path, contents) in files {
            let base = before.as_ref().and_then(|attempt| attempt.files.get(&path));
            let id = match base {
                Some(base) => self.store.put_blob_with_base(contents, base).await?,
                None => self.store.put_blob(contents).await?,
            };
            ids.insert(path, id);
        }
        let mut numbering = self.numbering.lock().await;
        let last = match numbering.get(feature) {
            Some(last) => *last,
            None => self.attempt_numbers(feature).await?.last().copied().unwrap_or(0),
        };
        let number = last + 1;
        let feature_name = feature.to_owned();
        let attempt = Attempt {
            feature: feature_name,
            number,
            files: ids,
            base: old,
            outcome,
            reason,
            note,
            transcript,
            figures,
        };
        let record = attempt.encode().into();
        let base = self.store.resolve(&self.name(feature, last)).await?;
        let requires = attempt.blobs().copied().collect();
        self.store.put_named(&self.name(feature, number), record, base, Some(requires)).await?;
        numbering.insert(feature.to_owned(), number);
        Ok(attempt)
    }

    /// Returns the latest attempt. An unreadable one is treated as missing, because it only serves
    /// as a delta base.
    async fn latest(&self, feature: &str) -> Result<Option<Attempt>, Error> {
        let recorded = self.numbering.lock().await.get(feature).copied();
        let last = match recorded {
            Some(last) => Some(last),
            None => self.attempt_numbers(feature).await?.last().copied(),
        };
        let Some(last) = last else { return Ok(None) };
        match self.get(feature, last).await {
            Err(Error::InvalidRecord { .. } | Error::Missing { .. }) => Ok(None),
            other => other,
        }
    }

    /// Returns the features that have attempts, sorted.
    ///
    /// # Errors
    ///
    /// Returns [`Error::ColdTier`] if the cold tier cannot be read.
    pub async fn features(&self) -> Result<Vec<String>, Error> {
        let prefix = format!("{}/", self.namespace);
        let names = self.store.list(&prefix).await?;
        let features =
            names.iter().filter_map(|name| Some(unescape(name[prefix.len()..].split_once('/')?.0)));
        Ok(features.collect::<BTreeSet<_>>().into_iter().collect())
    }

    /// Returns the attempts at a feature, in order.
    ///
    /// # Errors
    ///
    /// Returns [`Error::ColdTier`], [`Error::InvalidRecord`] or [`Error::Missing`].
    pub async fn list(&self, feature: &str) -> Result<Vec<Attempt>, Error> {
        let mut attempts = Vec::new();
        for number in self.attempt_numbers(feature).await? {
            attempts.extend(self.get(feature, number).await?);
        }
        Ok(attempts)
    }

    /// Returns one attempt at a feature.
    ///
    /// # Errors
    ///
    /// Returns [`Error::ColdTier`], [`Error::InvalidRecord`] or [`Error::Missing`].
    pub async fn get(&self, feature: &str, number: u32) -> Result<Option<Attempt>, Error> {
        let name = self.name(feature, number);
        let Some(id) = self.store.resolve(&name).await? else { return Ok(None) };
        let missing = || Error::Missing { what: name.clone(), blob: id };
        let bytes = self.store.get_blob(&id).await?.ok_or_else(missing)?;
        Attempt::decode(&bytes).map(Some).ok_or(Error::InvalidRecord { name, expected: EXPECTED })
    }

    /// Returns a summary of all attempts at a feature.
    ///
    /// # Errors
    ///
    /// Returns the errors of [`list`](Self::list).
    pub async fn summary(&self, feature: &str) -> Result<AttemptSummary, Error> {
        let attempts = self.list(feature).await?;
        let passed = attempts.iter().rev().find(|attempt| attempt.outcome == AttemptOutcome::Passed);
        let blobs: HashSet<BlobId> = attempts.iter().flat_map(|a| a.files.values()).copied().collect();
        Ok(AttemptSummary {
            feature: feature.to_owned(),
            attempts: u32::try_from(attempts.len()).expect("numbers are 32 bits"),
            passed: passed.map(|attempt| attempt.number),
            paths: attempts.iter().flat_map(|attempt| attempt.files.keys()).cloned().collect(),
            blobs: blobs.len(),
        })
    }

    /// Returns the changes between two attempts at a feature, as unified diffs. A file that an
    /// attempt did not change is compared as it was before. An attempt that does not exist is
    /// treated as one without files.
    ///
    /// # Errors
    ///
    /// Returns the errors of [`list`](Self::list).
    pub async fn diff(&self, feature: &str, from: u32, to: u32) -> Result<Diff, Error> {
        let files_of = |attempt: Option<Attempt>| {
            attempt.map(|attempt| (attempt.files, attempt.base)).unwrap_or_default()
        };
        let (old, new) = (files_of(self.get(feature, from).await?), files_of(self.get(feature, to).await?));
        let paths: BTreeSet<&String> =
            [&old.0, &old.1, &new.0, &new.1].into_iter().flat_map(BTreeMap::keys).collect();
        let mut files = Vec::new();
        for path in paths {
            let (before, after) = (state(path, &old, &new.1), state(path, &new, &old.1));
            if before == after {
                continue;
            }
            let before = self.contents(path, before).await?;
            let after = self.contents(path, after).await?;
            files.push(FileDiff::new(path, before.as_deref(), after.as_deref()));
        }
        Ok(Diff { files })
    }

    /// Returns the changes that an attempt made to the files before it, as unified diffs.
    ///
    /// # Errors
    ///
    /// Returns [`Error::ColdTier`] or [`Error::Missing`].
    pub async fn changes(&self, attempt: &Attempt) -> Result<Diff, Error> {
        let paths: BTreeSet<&String> = attempt.base.keys().chain(attempt.files.keys()).collect();
        let mut files = Vec::new();
        for path in paths {
            let before = self.contents(path, attempt.base.get(path)).await?;
            let after = self.contents(path, attempt.files.get(path)).await?;
            if before != after {
                files.push(FileDiff::new(path, before.as_deref(), after.as_deref()));
            }
        }
        Ok(Diff { files })
    }

    /// Returns the files of the last attempt that passed.
    ///
    /// # Errors
    ///
    /// Returns the errors of [`list`](Self::list).
    pub async fn latest_passing_files(
        &self,
        feature: &str,
    ) -> Result<Option<BTreeMap<String, Bytes>>, Error> {
        let mut numbers = self.attempt_numbers(feature).await?;
        while let Some(number) = numbers.pop() {
            let Some(attempt) = self.get(feature, number).await? else { continue };
            if attempt.outcome == AttemptOutcome::Passed {
                return self.files(&attempt).await.map(Some);
            }
        }
        Ok(None)
    }

    /// Returns the files of an attempt with their contents.
    ///
    /// # Errors
    ///
    /// Returns [`Error::ColdTier`] or [`Error::Missing`].
    pub async fn files(&self, attempt: &Attempt) -> Result<BTreeMap<String, Bytes>, Error> {
        let ids: Vec<BlobId> = attempt.files.values().copied().collect();
        let contents = self.store.get_many(&ids).await?;
        let named = attempt.files.iter().zip(contents);
        named
            .map(|((path, id), found)| Ok((path.clone(), found.ok_or_else(|| missing(path, *id))?)))
            .collect()
    }

    /// Returns the contents that a [`Store::sweep`] must keep for these attempts.
    ///
    /// # Errors
    ///
    /// Returns the errors of [`list`](Self::list).
    pub async fn blobs(&self) -> Result<HashSet<BlobId>, Error> {
        let mut blobs = HashSet::new();
        for feature in self.features().await? {
            blobs.extend(self.list(&feature).await?.iter().flat_map(Attempt::blobs));
        }
        Ok(blobs)
    }

    async fn contents(&self, path: &str, id: Option<&BlobId>) -> Result<Option<Bytes>, Error> {
        let Some(id) = id else { return Ok(None) };
        self.store.get_blob(id).await?.ok_or_else(|| missing(path, *id)).map(Some)
    }

    async fn attempt_numbers(&self, feature: &str) -> Result<Vec<u32>, Error> {
        let prefix = format!("{}/{}/", self.namespace, escape(feature));
        let names = self.store.list(&prefix).await?;
        Ok(names.iter().filter_map(|name| name[prefix.len()..].parse().ok()).collect())
    }

    /// Pads the number with zeros, so that names sort in numeric order.
    fn name(&self, feature: &str, number: u32) -> String {
        format!("{}/{}/{number:010}", self.namespace, escape(feature))
    }
}

impl Attempt {
    /// Returns the contents that the record refers to.
    fn blobs(&self) -> impl Iterator<Item = &BlobId> {
        self.files.values().chain(self.base.values())
    }

    fn encode(&self) -> Vec<u8> {
        let mut record = RecordWriter::new(if self.figures.is_some() { KIND_WITH_FIGURES } else { KIND });
        let outcome = match self.outcome {
            AttemptOutcome::Passed => 0,
            AttemptOutcome::Failed => 1,
            AttemptOutcome::Aborted => 2,
            AttemptOutcome::NotChosen => 3,
            AttemptOutcome::Red => 4,
        };
        record.text(&self.feature).number(self.number).number(outcome).text(&self.reason).text(&self.note);
        let Transcript { words, stderr, exit } = &self.transcript;
        record.text(words).text(stderr).text(exit);
        for files in [&self.files, &self.base] {
            record.len(files.len());
            for (path, id) in files {
                record.text(path).blob(id);
            }
        }
        if let Some(AttemptFigures { millis, input_tokens, cached_tokens, output_tokens, cost }) =
            self.figures
        {
            record.wide(millis).wide(input_tokens).wide(cached_tokens).wide(output_tokens);
            record.number(u32::from(cost.is_some()));
            if let Some(cost) = cost {
                record.wide(cost);
            }
        }
        record.finish()
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let with_figures = RecordReader::new(bytes, KIND_WITH_FIGURES);
        let has_figures = with_figures.is_some();
        let mut record = with_figures.or_else(|| RecordReader::new(bytes, KIND))?;
        let (feature, number) = (record.text()?, record.number()?);
        let outcome = match record.number()? {
            0 => AttemptOutcome::Passed,
            1 => AttemptOutcome::Failed,
            2 => AttemptOutcome::Aborted,
            3 => AttemptOutcome::NotChosen,
            4 => AttemptOutcome::Red,
            _ => return None,
        };
        let (reason, note) = (record.text()?, record.text()?);
        let transcript = Transcript { words: record.text()?, stderr: record.text()?, exit: record.text()? };
        let mut files = || {
            let files = (0..record.number()?).map(|_| Some((record.text()?, record.blob()?)));
            sorted_files(files.collect::<Option<_>>()?)
        };
        let (files, base) = (files()?, files()?);
        let figures = if has_figures { Some(AttemptFigures::decode(&mut record)?) } else { None };
        record.finish()?;
        Some(Self { feature, number, files, base, outcome, reason, note, transcript, figures })
    }
}

impl AttemptFigures {
    fn decode(record: &mut RecordReader<'_>) -> Option<Self> {
        let [millis, input_tokens, cached_tokens, output_tokens] =
            [record.wide()?, record.wide()?, record.wide()?, record.wide()?];
        let cost = match record.number()? {
            0 => None,
            1 => Some(record.wide()?),
            _ => return None,
        };
        Some(Self { millis, input_tokens, cached_tokens, output_tokens, cost })
    }
}

/// Files of an attempt by path, after it and before it.
type BothFiles = (BTreeMap<String, BlobId>, BTreeMap<String, BlobId>);

/// Returns the content of a path after an attempt. One that the attempt does not mention is as it
/// was before another attempt.
fn state<'a>(
    path: &str,
    (files, base): &'a BothFiles,
    other: &'a BTreeMap<String, BlobId>,
) -> Option<&'a BlobId> {
    files.get(path).or_else(|| if base.contains_key(path) { None } else { other.get(path) })
}

fn missing(path: &str, blob: BlobId) -> Error {
    Error::Missing { what: path.to_owned(), blob }
}

/// Escapes slashes, so that the name of one feature cannot reach into another's.
fn escape(text: &str) -> String {
    text.replace('%', "%25").replace('/', "%2F")
}

fn unescape(text: &str) -> String {
    text.replace("%2F", "/").replace("%25", "%")
}

/// Decodes arbitrary bytes as a record, and checks that encoding the result yields the same bytes.
#[cfg(feature = "conformance")]
pub(crate) fn check_record(record: &[u8]) {
    if let Some(read) = Attempt::decode(record) {
        assert_eq!(read.encode(), record);
    }
}
