//! What a test's result depended on, told one by one, so that it can be said what has changed since. Knows nothing of results.

use std::collections::{BTreeMap, HashSet};
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use crate::{Error, Manifest, Status};
use greenwave_inputs::replace;
use greenwave_inputs::{ObservedStates, short};

/// Most files of all tests together that are noted.
const FILES_MAX: usize = 1_000_000;

/// What the last run of each test depended on.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct DependencyLog {
    /// By name: the last run, and the last whose result was kept.
    tests: BTreeMap<String, (DependencyRecord, Option<DependencyRecord>)>,
    /// The manifests of inputs, each once, by their hash.
    manifests: BTreeMap<String, BTreeMap<String, String>>,
    /// What tests were seen to look at, with its state, each once, by a hash of it: tests of a kind look at the same.
    #[serde(default)]
    looks: BTreeMap<String, ObservedStates>,
    #[serde(skip)]
    is_changed: bool,
}

/// Everything that a test's key is made of, and what it was seen to look at. Values of variables are not kept, only their hashes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct DependencyRecord {
    pub(crate) command: Vec<String>,
    pub(crate) directory: String,
    pub(crate) variables: BTreeMap<String, String>,
    pub(crate) tools: Vec<String>,
    pub(crate) inputs: String,
    /// A hash of what it looked at.
    pub(crate) looks: String,
    /// That itself, until it is noted.
    #[serde(skip)]
    pub(crate) looked: Arc<ObservedStates>,
    /// Milliseconds since the Unix epoch.
    pub(crate) at: u64,
    pub(crate) status: Status,
    /// Why its result was not kept.
    pub(crate) not_kept: Option<String>,
}

/// One thing that is not as it was.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Difference {
    /// The command's words.
    Command,
    /// The folder that it runs in.
    Directory,
    /// A variable that it sees.
    Variable(String),
    /// Its program, or the tool chain behind it.
    Tool,
    /// An input file that was changed.
    Changed(PathBuf),
    /// An input file that is new.
    Added(PathBuf),
    /// An input file that is gone.
    Removed(PathBuf),
    /// Something that it looked at beside its inputs.
    Discovered(PathBuf),
}

impl fmt::Display for Difference {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Difference::Command => out.write_str("its command is another"),
            Difference::Directory => out.write_str("it runs in another folder"),
            Difference::Variable(name) => write!(out, "variable {name} has another value"),
            Difference::Tool => out.write_str("its program or tool chain is another"),
            Difference::Changed(path) => write!(out, "input {} was changed", path.display()),
            Difference::Added(path) => write!(out, "input {} is new", path.display()),
            Difference::Removed(path) => write!(out, "input {} is gone", path.display()),
            Difference::Discovered(path) => {
                write!(out, "{}, which it looked at, is not as it was", path.display())
            }
        }
    }
}

impl DependencyLog {
    pub(crate) fn load(file: &Path) -> Self {
        let read = fs::read(file).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok());
        read.unwrap_or_default()
    }

    /// The last run of a test.
    pub(crate) fn last(&self, test: &str) -> Option<&DependencyRecord> {
        self.tests.get(test).map(|(last, _)| last)
    }

    /// The last run of a test whose result was kept.
    pub(crate) fn last_stored(&self, test: &str) -> Option<&DependencyRecord> {
        self.tests.get(test)?.1.as_ref()
    }

    /// The tests that have looked at one of these, as they last ran.
    pub(crate) fn have_accessed<'n>(
        &'n self,
        is_one: impl Fn(&Path) -> bool + 'n,
    ) -> impl Iterator<Item = &'n str> {
        let has = |(_, looks): &(&String, &ObservedStates)| looks.keys().any(|path| is_one(Path::new(path)));
        let found: HashSet<&String> = self.looks.iter().filter(has).map(|(hash, _)| hash).collect();
        let tests = self.tests.iter().filter(move |(_, (last, _))| found.contains(&last.looks));
        tests.map(|(name, _)| name.as_str())
    }

    /// What a test looked at then.
    pub(crate) fn looks_of(&self, facts: &DependencyRecord) -> impl Iterator<Item = (&String, &String)> {
        self.looks.get(&facts.looks).into_iter().flatten()
    }

    pub(crate) fn put(&mut self, test: &str, facts: DependencyRecord, inputs: &Manifest) {
        if !self.manifests.contains_key(&facts.inputs) {
            let of_file = |(path, entry): (&Path, crate::Entry)| {
                (path.to_string_lossy().into_owned(), format!("{}{}", entry.kind as u8, short(&entry.hash)))
            };
            self.manifests.insert(facts.inputs.clone(), inputs.files().map(of_file).collect());
        }
        if !self.looks.contains_key(&facts.looks) {
            self.looks.insert(facts.looks.clone(), (*facts.looked).clone());
        }
        let kept = match facts.is_kept() {
            true => Some(facts.clone()),
            false => self.tests.remove(test).and_then(|(_, kept)| kept),
        };
        self.tests.insert(test.to_owned(), (facts, kept));
        self.is_changed = true;
    }

    /// What differs between what was noted and what is now.
    pub(crate) fn differences(
        &self,
        then: &DependencyRecord,
        now: &DependencyRecord,
        inputs: &Manifest,
    ) -> Vec<Difference> {
        let mut differences = Vec::new();
        let mut check = |differs: bool, difference: Difference| {
            if differs {
                differences.push(difference);
            }
        };
        check(then.command != now.command, Difference::Command);
        check(then.directory != now.directory, Difference::Directory);
        check(then.tools != now.tools, Difference::Tool);
        let names = then
            .variables
            .keys()
            .chain(now.variables.keys().filter(|name| !then.variables.contains_key(*name)));
        for name in names {
            check(then.variables.get(name) != now.variables.get(name), Difference::Variable(name.clone()));
        }
        if let (true, Some(before)) = (then.inputs != now.inputs, self.manifests.get(&then.inputs)) {
            let after: BTreeMap<String, String> = inputs
                .files()
                .map(|(path, entry)| {
                    (
                        path.to_string_lossy().into_owned(),
                        format!("{}{}", entry.kind as u8, short(&entry.hash)),
                    )
                })
                .collect();
            for (path, hash) in before {
                match after.get(path) {
                    None => check(true, Difference::Removed(path.into())),
                    Some(now) => check(now != hash, Difference::Changed(path.into())),
                }
            }
            for path in after.keys().filter(|path| !before.contains_key(*path)) {
                check(true, Difference::Added(path.into()));
            }
        }
        for (path, state) in self.looks_of(then) {
            check(now.looked.get(path).is_some_and(|now| now != state), Difference::Discovered(path.into()));
        }
        differences
    }

    pub(crate) fn save(&mut self, file: &Path) -> Result<(), Error> {
        if !self.is_changed {
            return Ok(());
        }
        let facts = || self.tests.values().flat_map(|(last, kept)| [Some(last), kept.as_ref()]).flatten();
        let inputs: HashSet<&String> = facts().map(|facts| &facts.inputs).collect();
        let looks: HashSet<&String> = facts().map(|facts| &facts.looks).collect();
        let mut files = 0;
        for (all, used) in [(&mut self.manifests, inputs), (&mut self.looks, looks)] {
            all.retain(|digest, of_files| {
                files += of_files.len();
                used.contains(digest) && files <= FILES_MAX
            });
        }
        replace(file, &serde_json::to_vec(&self).unwrap_or_default())?;
        self.is_changed = false;
        Ok(())
    }
}

impl DependencyRecord {
    fn is_kept(&self) -> bool {
        self.status == Status::Passed && self.not_kept.is_none()
    }

    /// How long ago that was.
    pub(crate) fn age(&self) -> Duration {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        since.saturating_sub(Duration::from_millis(self.at))
    }
}
