//! A log of the dependencies of results, which explains why a test has to run again.
//!
//! The log is for display only. Lookups never use it, so a lost or damaged log makes no result
//! stale.

use std::collections::{BTreeMap, HashSet};
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use crate::results::path_table::{NumberSet, Table};
use crate::results::readers::PathsByReader;
use crate::results::state::{StateDirectory, StateFile};
use crate::{Error, Manifest, Status};
use greenwave_inputs::{ObservedStates, text};

/// Suffix in dependency records of a directory whose names were read.
pub(crate) const NAMES: &str = " (its names)";
/// Suffix in dependency records of a path in a cache that tests maintain.
pub(crate) const MAINTAINED: &str = " (in a cache)";
/// Suffix in dependency records of a directory in such a cache whose names were read.
pub(crate) const MAINTAINED_NAMES: &str = " (names in a cache)";
/// Suffix in dependency records of a `.git` of which nothing but its existence was observed.
pub(crate) const REPOSITORY: &str = " (a repository)";
/// Suffix in dependency records of a program that was executed and not read.
pub(crate) const LOADED: &str = " (without debug information)";
/// Suffix in dependency records of a workspace that cargo must build.
pub(crate) const BUILDS: &str = " (what cargo builds)";
/// The suffix of the dependency on the whole project, whose name holds the patterns that exclude
/// files from it.
pub(crate) const TREE: &str = " (all files of the project)";
/// The text before each of these patterns.
pub(crate) const TREE_PATTERN: &str = " !";

/// Maximum number of paths in the log: those of manifests, those of the tables, and the ranges of
/// the sets.
const PATHS_MAX: usize = 1_000_000;

/// The dependencies of the last runs of each test.
///
/// Tests of one kind have mostly the same inputs and discovered dependencies, so each set is
/// saved once, and tests refer to it by its hash. The sets of different tests differ in few paths,
/// so a path is saved once, too.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct DependencyLog {
    /// Last run and last run whose result was stored, by name.
    tests: BTreeMap<String, (DependencyRecord, Option<DependencyRecord>)>,
    /// Hashes of input files by path, for each manifest, by the hash of the manifest.
    manifests: BTreeMap<String, BTreeMap<String, String>>,
    /// Discovered dependencies, each with its state.
    observed: Table<(String, String)>,
    /// Sets of discovered dependencies, by the hash of the set.
    discovered: BTreeMap<String, NumberSet>,
    /// Paths with a reader.
    read: Table<String>,
    /// The paths that each program read, by the hash of all of them.
    readers: BTreeMap<String, BTreeMap<String, NumberSet>>,
    #[serde(skip)]
    is_changed: bool,
}

/// Everything that the key chain of a run covers.
///
/// Values of variables may be secrets, so only their hashes are recorded.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct DependencyRecord {
    pub(crate) command: Vec<String>,
    pub(crate) directory: String,
    /// Hashes of the values of visible variables, by name.
    pub(crate) variables: BTreeMap<String, String>,
    /// Fingerprints of the program and its toolchain.
    pub(crate) tools: Vec<String>,
    /// Hash of the manifest of inputs.
    pub(crate) inputs: String,
    /// Hash of the states of discovered dependencies.
    pub(crate) discovered: String,
    /// The states themselves, until [`DependencyLog::put`] moves them to the log.
    #[serde(skip)]
    pub(crate) discovered_states: Arc<ObservedStates>,
    /// Hash of the programs that read the dependencies.
    #[serde(default)]
    pub(crate) readers: String,
    /// The programs themselves, until [`DependencyLog::put`] moves them to the log.
    #[serde(skip)]
    pub(crate) paths_by_reader: Arc<PathsByReader>,
    /// Time of the run, in milliseconds since the Unix epoch.
    pub(crate) at: u64,
    pub(crate) status: Status,
    /// Reason why the result was not stored.
    pub(crate) not_stored: Option<String>,
    /// The setting of the test after which its results are stored.
    #[serde(default)]
    pub(crate) setting: Option<String>,
}

/// A dependency that has changed since an earlier run.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Difference {
    /// The command or its arguments.
    Command,
    /// The working directory.
    Directory,
    /// The value of this variable.
    Variable(String),
    /// The program, or the toolchain behind it.
    Tool,
    /// An input file whose content or mode has changed.
    Changed(PathBuf),
    /// An input file that is new.
    Added(PathBuf),
    /// An input file that was removed.
    Removed(PathBuf),
    /// A discovered dependency.
    Discovered(PathBuf),
}

impl Difference {
    /// Returns the path in its display form without the kind of access.
    fn path(&self) -> Option<&str> {
        let path = match self {
            Difference::Changed(path)
            | Difference::Added(path)
            | Difference::Removed(path)
            | Difference::Discovered(path) => path.to_str()?,
            _ => return None,
        };
        let kinds = [NAMES, MAINTAINED, MAINTAINED_NAMES, REPOSITORY, LOADED];
        Some(kinds.iter().find_map(|kind| path.strip_suffix(kind)).unwrap_or(path))
    }
}

impl fmt::Display for Difference {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Difference::Command => out.write_str("the command was changed"),
            Difference::Directory => out.write_str("the working directory was changed"),
            Difference::Variable(name) => write!(out, "variable {name} was changed"),
            Difference::Tool => out.write_str("the program or its toolchain was changed"),
            Difference::Changed(path) => write!(out, "input {} was changed", path.display()),
            Difference::Added(path) => write!(out, "input {} was added", path.display()),
            Difference::Removed(path) => write!(out, "input {} was removed", path.display()),
            Difference::Discovered(path) => {
                write!(out, "discovered dependency {} was changed", path.display())
            }
        }
    }
}

impl DependencyLog {
    /// Loads the log that an earlier run saved. A missing or damaged file counts as empty.
    pub(crate) fn load(state: &StateDirectory) -> Self {
        state.load_json(StateFile::DependencyLog)
    }

    /// Returns the last run of a test.
    pub(crate) fn last(&self, test: &str) -> Option<&DependencyRecord> {
        self.tests.get(test).map(|(last, _)| last)
    }

    /// Returns the last run of a test whose result was stored.
    pub(crate) fn last_stored(&self, test: &str) -> Option<&DependencyRecord> {
        self.tests.get(test)?.1.as_ref()
    }

    /// Returns the names of tests whose last run discovered a dependency for which `matches` holds.
    pub(crate) fn have_accessed<'n>(
        &'n self,
        matches: impl Fn(&Path) -> bool + 'n,
    ) -> impl Iterator<Item = &'n str> {
        let accessed = self.observed.matches(|(path, _)| matches(Path::new(path)));
        let has_match = |(_, set): &(&String, &NumberSet)| set.has_any(&accessed);
        let matching: HashSet<&String> =
            self.discovered.iter().filter(has_match).map(|(hash, _)| hash).collect();
        let tests = self.tests.iter().filter(move |(_, (last, _))| matching.contains(&last.discovered));
        tests.map(|(name, _)| name.as_str())
    }

    /// Returns the discovered dependencies of a run, each with its state.
    pub(crate) fn discovered_by(&self, run: &DependencyRecord) -> impl Iterator<Item = &(String, String)> {
        let set = self.discovered.get(&run.discovered);
        set.into_iter().flat_map(|set| self.observed.elements(set))
    }

    /// Returns the command line of the process that was the first to read a dependency of a run.
    pub(crate) fn reader_of(&self, run: &DependencyRecord, difference: &Difference) -> Option<&str> {
        let (path, readers) = (difference.path()?, self.readers.get(&run.readers)?);
        let is_read = self.read.matches(|read| read == path);
        let reads = |(_, paths): &(&String, &NumberSet)| paths.has_any(&is_read);
        readers.iter().find(reads).map(|(command, _)| command.as_str())
    }

    /// Records the last run of a test. `inputs` is the manifest of its inputs.
    pub(crate) fn put(&mut self, test: &str, mut run: DependencyRecord, inputs: &Manifest) {
        if !self.manifests.contains_key(&run.inputs) {
            self.manifests.insert(run.inputs.clone(), input_hashes(inputs));
        }
        let (states, readers) =
            (std::mem::take(&mut run.discovered_states), std::mem::take(&mut run.paths_by_reader));
        if !self.discovered.contains_key(&run.discovered) {
            let states = states.iter().map(|(path, state)| (path.clone(), state.clone()));
            self.discovered.insert(run.discovered.clone(), self.observed.add(states));
        }
        if !self.readers.contains_key(&run.readers) {
            let sets = readers
                .iter()
                .map(|(command, paths)| (command.clone(), self.read.add(paths.iter().cloned())));
            self.readers.insert(run.readers.clone(), sets.collect());
        }
        let last_stored = if run.is_stored() {
            Some(run.clone())
        } else {
            self.tests.remove(test).and_then(|(_, last_stored)| last_stored)
        };
        self.tests.insert(test.to_owned(), (run, last_stored));
        self.is_changed = true;
    }

    /// Returns the differences between an earlier run and the current state.
    ///
    /// `inputs` is the current manifest of inputs, and `now.discovered_states` the current states
    /// of the discovered dependencies of the earlier run.
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
        if let Some(before) = self.manifests.get(&then.inputs).filter(|_| then.inputs != now.inputs) {
            let after = input_hashes(inputs);
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
        let mut observed: Vec<&(String, String)> = self.discovered_by(then).collect();
        observed.sort_unstable();
        for (path, state) in observed {
            check(
                now.discovered_states.get(path).is_some_and(|now| now != state),
                Difference::Discovered(path.into()),
            );
        }
        differences
    }

    /// Saves the log if it has changed, without the manifests and sets that no run refers to.
    ///
    /// # Errors
    /// [`Error::Inputs`] if the file cannot be replaced.
    pub(crate) fn save(&mut self, state: &StateDirectory) -> Result<(), Error> {
        if !self.is_changed {
            return Ok(());
        }
        self.remove_unused();
        state.save_json(StateFile::DependencyLog, &self)?;
        self.is_changed = false;
        Ok(())
    }

    /// Removes sets without a run that refers to them, and sets beyond [`PATHS_MAX`].
    fn remove_unused(&mut self) {
        let Self { tests, manifests, observed, discovered, read, readers, .. } = self;
        let runs = || tests.values().flat_map(|(last, stored)| [Some(last), stored.as_ref()]).flatten();
        let is_used: HashSet<&String> =
            runs().flat_map(|run| [&run.inputs, &run.discovered, &run.readers]).collect();
        let mut paths = 0;
        manifests.retain(|hash, set| {
            paths += set.len();
            is_used.contains(hash) && paths <= PATHS_MAX
        });
        let mut marks = observed.marks();
        discovered.retain(|hash, set| {
            let is_used = is_used.contains(hash);
            paths += if is_used { set.mark(&mut marks) + set.range_count() } else { 0 };
            is_used && paths <= PATHS_MAX
        });
        let mut marks = read.marks();
        readers.retain(|hash, sets| {
            let is_used = is_used.contains(hash);
            let size = |set: &NumberSet| set.mark(&mut marks) + set.range_count();
            paths += if is_used { sets.values().map(size).sum() } else { 0 };
            is_used && paths <= PATHS_MAX
        });
        observed.compact(discovered.values_mut());
        read.compact(readers.values_mut().flat_map(BTreeMap::values_mut));
    }
}

impl DependencyRecord {
    fn is_stored(&self) -> bool {
        self.status == Status::Passed && self.not_stored.is_none()
    }

    /// Returns the time since the run.
    pub(crate) fn age(&self) -> Duration {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        since.saturating_sub(Duration::from_millis(self.at))
    }
}

/// Returns the kind and hash of each input file, by path.
fn input_hashes(inputs: &Manifest) -> BTreeMap<String, String> {
    let hash_of = |(path, entry): (&Path, crate::ManifestEntry)| {
        (
            path.to_string_lossy().into_owned(),
            format!("{}{}", entry.kind as u8, text::short_hash(&entry.hash)),
        )
    };
    inputs.files().map(hash_of).collect()
}
