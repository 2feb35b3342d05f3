//! Decisions of the user about answers that are held before their merge.
//!
//! A run stores which answer of a feature it holds, and another process stores the user's decision
//! about it, each in a sealed file in `.greenwave/approvals`. A decision counts for exactly the
//! answer that it was made about. A file without a valid seal counts as missing, as everywhere in
//! the state directory.
//!
//! The names of the files have the feature's id and definition: two plans of a project can have
//! features with equal ids.

use std::collections::BTreeSet;
use std::io;
use std::path::Path;
use std::sync::Arc;

use greenwave_dir::Dir;
use greenwave_testing::{STATE_DIRECTORY, StateSeal};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::error::Error;
use crate::green_record::{self, definition};
use crate::plan::{Feature, Plan};
use crate::settings::Settings;
use crate::state_home::StateHome;
use crate::tree::Change;

/// Version of the files. A file of another version does not count.
const VERSION: u32 = 1;
/// Name of the directory in the state directory.
const NAME: &str = "approvals";
/// Ending of the file with the answer that is held.
const HELD: &str = "held";
/// Ending of the file with the decision about it.
const DECISION: &str = "decision";
/// Ending of the file that exists if the user wants to approve a feature.
const WANTED: &str = "wanted";
/// Endings of all files about a feature.
const ENDINGS: [&str; 3] = [HELD, DECISION, WANTED];
/// Maximum size of a file, in bytes.
const FILE_BYTES_MAX: u64 = 1 << 20;
/// Maximum size of a comment, in bytes. It becomes a part of a prompt.
const COMMENT_BYTES_MAX: usize = 64 << 10;

/// Decision of the user about an answer that is held.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Decision {
    /// The answer is merged.
    Approve,
    /// The agent gets another attempt.
    Reject {
        /// Text for the agent. At most 64 KiB count.
        comment: String,
    },
}

/// An answer that a run holds. It is identified by its content.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct HeldAnswer {
    version: u32,
    /// Hash of the feature's [`definition`].
    definition: String,
    attempt: u32,
    /// Hash of the changes, and of the review that has approved them.
    answer: String,
}

/// A decision, with the answer that it is about.
#[derive(Debug, Serialize, Deserialize)]
struct DecisionRecord {
    about: HeldAnswer,
    decision: Decision,
}

/// The held answers of a run, and the decisions about them.
#[derive(Debug)]
pub(crate) struct Approvals {
    home: Arc<StateHome>,
    seal: Option<StateSeal>,
}

impl HeldAnswer {
    pub(crate) fn new(feature: &Feature, definition: &str, attempt: u32, changes: &[Change]) -> Self {
        let review = feature.review.as_ref().map(|review| (&review.command, &review.directory));
        let text = serde_json::to_vec(&(changes, review)).unwrap_or_default();
        let answer = blake3::hash(&text).to_hex().to_string();
        Self { version: VERSION, definition: definition.to_owned(), attempt, answer }
    }
}

impl Approvals {
    pub(crate) fn new(home: Arc<StateHome>, seal: Option<StateSeal>) -> Self {
        Self { home, seal }
    }

    /// Stores that a run holds an answer, unless that is stored already.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub(crate) fn hold(&self, feature: &str, held: &HeldAnswer) -> Result<(), Error> {
        let directory = self.directory()?;
        let name = held_name(feature, &held.definition);
        if read::<HeldAnswer>(&directory, self.seal.as_ref(), &name).as_ref() == Some(held) {
            return Ok(());
        }
        write(&directory, self.seal.as_ref(), &name, held)
    }

    /// Returns whether an answer is stored as held.
    pub(crate) fn is_held(&self, feature: &str, held: &HeldAnswer) -> bool {
        let directory = self.directory();
        directory.is_ok_and(|directory| {
            let name = held_name(feature, &held.definition);
            read(&directory, self.seal.as_ref(), &name).as_ref() == Some(held)
        })
    }

    /// Returns the decision about an answer, if there is one.
    ///
    /// # Errors
    /// [`Error::Io`] if the directory cannot be opened.
    pub(crate) fn decision(&self, feature: &str, held: &HeldAnswer) -> Result<Option<Decision>, Error> {
        let name = decision_name(feature, &held.definition);
        let found: Option<DecisionRecord> = read(&self.directory()?, self.seal.as_ref(), &name);
        Ok(found.filter(|found| found.about == *held).map(|found| found.decision))
    }

    /// Returns the number of the attempt whose answer is held, if one is.
    ///
    /// # Errors
    /// [`Error::Io`] if the directory cannot be opened.
    pub(crate) fn held_attempt(&self, feature: &str, definition: &str) -> Result<Option<u32>, Error> {
        let held = held_answer(&self.directory()?, self.seal.as_ref(), feature, definition);
        Ok(held.map(|held| held.attempt))
    }

    /// Stores a decision about the answer that is held. Returns the number of its attempt, or
    /// `None` if none is held.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub(crate) fn decide(
        &self,
        feature: &str,
        definition: &str,
        decision: &Decision,
    ) -> Result<Option<u32>, Error> {
        decide_in(&self.directory()?, self.seal.as_ref(), (feature, definition), decision)
    }

    /// Stores whether the user wants to approve a feature, or takes that back.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub(crate) fn set_wanted(&self, feature: &str, definition: &str, is_wanted: bool) -> Result<(), Error> {
        let directory = self.directory()?;
        let key = green_record::name(feature, definition);
        let name = file_name(&key, WANTED);
        if is_wanted {
            return write(&directory, self.seal.as_ref(), &name, &key);
        }
        match directory.remove_file(&name) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(Error::io("remove", directory.path().join(name))(error))
            }
            _ => Ok(()),
        }
    }

    /// Returns the [names](green_record::name) of the features that the user wants to approve
    /// although the plan may not say so.
    pub(crate) fn wanted(&self, project: &Path) -> BTreeSet<String> {
        let Some(directory) = existing(project).ok().flatten() else { return BTreeSet::new() };
        let entries = directory.entries().unwrap_or_default();
        let names = entries.iter().filter_map(|entry| entry.name.to_str());
        let features = names.filter_map(|name| {
            let key: String = read(&directory, self.seal.as_ref(), name)?;
            (file_name(&key, WANTED) == name).then_some(key)
        });
        features.collect()
    }

    /// Removes the records of a feature with a definition.
    pub(crate) fn forget(&self, feature: &str, definition: &str) {
        if let Ok(directory) = self.directory() {
            let key = green_record::name(feature, definition);
            ENDINGS.iter().for_each(|ending| remove(&directory, &file_name(&key, ending)));
        }
    }

    fn directory(&self) -> Result<Dir, Error> {
        Ok(self.home.part(NAME)?.into_directory())
    }
}

/// Stores the user's decision about the answer of a feature that is held.
///
/// A run in progress takes the decision within a second, and otherwise the next run does. Returns
/// the number of the attempt that the decision is about, or `None` if no answer of the feature is
/// held.
///
/// # Errors
/// [`Error::Io`] if the project's state cannot be read or written.
pub fn decide(
    plan: &Plan,
    settings: &Settings,
    feature: &str,
    decision: &Decision,
) -> Result<Option<u32>, Error> {
    let (directory, seal) = (existing(&plan.project)?, settings.seal_of(&plan.project)?);
    let (Some(directory), Some(feature)) = (directory, plan.features.iter().find(|it| it.id == feature))
    else {
        return Ok(None);
    };
    decide_in(&directory, seal.as_ref(), (&feature.id, &definition(feature)), decision)
}

/// Stores a decision about the held answer of a feature with a definition.
fn decide_in(
    directory: &Dir,
    seal: Option<&StateSeal>,
    (feature, definition): (&str, &str),
    decision: &Decision,
) -> Result<Option<u32>, Error> {
    let Some(about) = held_answer(directory, seal, feature, definition) else { return Ok(None) };
    let attempt = about.attempt;
    let mut decision = decision.clone();
    if let Decision::Reject { comment } = &mut decision {
        comment.truncate(comment.floor_char_boundary(COMMENT_BYTES_MAX));
    }
    write(directory, seal, &decision_name(feature, definition), &DecisionRecord { about, decision })?;
    Ok(Some(attempt))
}

/// Returns the features of a plan that have a held answer, in the order of the plan.
///
/// # Errors
/// [`Error::Io`] if the project's state cannot be read.
pub fn held_features(plan: &Plan, settings: &Settings) -> Result<Vec<String>, Error> {
    let Some(directory) = existing(&plan.project)? else { return Ok(Vec::new()) };
    let seal = settings.seal_of(&plan.project)?;
    let is_held = |feature: &&Feature| {
        held_answer(&directory, seal.as_ref(), &feature.id, &definition(feature)).is_some()
    };
    Ok(plan.features.iter().filter(is_held).map(|feature| feature.id.clone()).collect())
}

/// Removes the records of the features of a project with an id and any definition.
///
/// # Errors
/// [`Error::Io`] if the directory cannot be opened or read.
pub(crate) fn forget_held(project: &Path, feature: &str) -> Result<(), Error> {
    let Some(directory) = existing(project)? else { return Ok(()) };
    let entries = directory.entries().map_err(Error::io("read", directory.path()))?;
    let names = entries.iter().filter_map(|entry| entry.name.to_str());
    names.filter(|name| feature_of(name) == Some(feature)).for_each(|name| remove(&directory, name));
    Ok(())
}

/// Returns the answer of a feature with a definition that a run holds.
fn held_answer(
    directory: &Dir,
    seal: Option<&StateSeal>,
    feature: &str,
    definition: &str,
) -> Option<HeldAnswer> {
    let held: HeldAnswer = read(directory, seal, &held_name(feature, definition))?;
    (held.version == VERSION && held.definition == definition).then_some(held)
}

/// Opens the directory of a project, if it exists.
fn existing(project: &Path) -> Result<Option<Dir>, Error> {
    let below = Path::new(STATE_DIRECTORY).join(NAME);
    match Dir::open(project).and_then(|project| project.subdirectory(&below)) {
        Ok(directory) => Ok(Some(directory)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Error::io("open", project.join(below))(error)),
    }
}

fn held_name(feature: &str, definition: &str) -> String {
    file_name(&green_record::name(feature, definition), HELD)
}

fn decision_name(feature: &str, definition: &str) -> String {
    file_name(&green_record::name(feature, definition), DECISION)
}

/// Returns the name of a file about a feature with a [name](green_record::name).
fn file_name(key: &str, ending: &str) -> String {
    format!("{}.{ending}", key.replace('/', "."))
}

/// Returns the id of the feature in the name of a file.
fn feature_of(name: &str) -> Option<&str> {
    let (key, ending) = name.rsplit_once('.')?;
    let (feature, _) = key.rsplit_once('.')?;
    ENDINGS.contains(&ending).then_some(feature)
}

/// Reads a file. A file that is missing, damaged or not sealed by the user is `None`.
fn read<T: DeserializeOwned>(directory: &Dir, seal: Option<&StateSeal>, name: &str) -> Option<T> {
    let sealed = directory.read(name, FILE_BYTES_MAX).ok()?;
    let text = match seal {
        Some(seal) => seal.unseal(&sealed_name(name), &sealed)?,
        None => &sealed,
    };
    serde_json::from_slice(text).ok()
}

fn write(directory: &Dir, seal: Option<&StateSeal>, name: &str, value: &impl Serialize) -> Result<(), Error> {
    let text = serde_json::to_vec(value).expect("strings and numbers always serialise");
    let text = match seal {
        Some(seal) => seal.seal(&sealed_name(name), text),
        None => text,
    };
    let written = directory.replace_file(name, &text, 0o600);
    written.map_err(Error::io("write", directory.path().join(name)))
}

/// Removes a file. If it stays, it is of no effect, since it is about an old answer.
fn remove(directory: &Dir, name: &str) {
    match directory.remove_file(name) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            tracing::warn!(%error, name, "cannot remove a decision");
        }
        _ => {}
    }
}

/// Returns the name of a file in its seal.
fn sealed_name(name: &str) -> String {
    format!("{NAME}/{name}")
}
