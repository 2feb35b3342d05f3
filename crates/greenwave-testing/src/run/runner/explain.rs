//! Records the dependencies of a result, so that a later run can explain why the test runs again.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use greenwave_inputs::{AccessKind, DiscoveredDeps, PathStates, text};

use super::prepare::Prepared;
use crate::results::dependencies::{
    BUILDS, DependencyRecord, LOADED, MAINTAINED, MAINTAINED_NAMES, NAMES, REPOSITORY, TREE, TREE_PATTERN,
};
use crate::results::readers::NamedReaders;
use crate::run::observation::Seen;
use crate::{Status, Test};

impl Prepared<'_> {
    /// Returns the current states of paths from a dependency record.
    pub(crate) fn states_of<'p>(&self, paths: impl Iterator<Item = &'p String>) -> BTreeMap<String, String> {
        let state = |path: &'p String| {
            let with_suffix = |suffix: &str, kind| path.strip_suffix(suffix).map(|name| (name, kind));
            let access = with_suffix(NAMES, AccessKind::Names)
                .or_else(|| with_suffix(MAINTAINED, AccessKind::Maintained))
                .or_else(|| with_suffix(MAINTAINED_NAMES, AccessKind::MaintainedNames))
                .or_else(|| with_suffix(REPOSITORY, AccessKind::Repository))
                .or_else(|| with_suffix(LOADED, AccessKind::Loaded))
                .or_else(|| with_suffix(BUILDS, AccessKind::Build))
                .or_else(|| with_suffix(TREE, AccessKind::Tree));
            let (name, kind) = access.unwrap_or((path.as_str(), AccessKind::Content));
            let name =
                if kind == AccessKind::Tree { name.replace(TREE_PATTERN, "\0") } else { name.to_owned() };
            let (state, _) = self.snapshot.states.state(Path::new(&name), kind);
            (path.clone(), text::short_hash(&state.digest()))
        };
        paths.map(state).collect()
    }

    /// Returns a record of everything that a run of the test depended on, with the programs that
    /// read it.
    pub(crate) fn record_of_run(
        &self,
        test: &Test,
        discovered: &[Arc<DiscoveredDeps>],
        states: &PathStates,
        (project, seen): (&Path, &Seen),
    ) -> DependencyRecord {
        let named = || NamedReaders::new(project, &seen.accesses, &seen.readers);
        // Tests of a batch share the trace.
        let NamedReaders { hash, paths } = seen.named_readers.get_or_init(named).clone();
        let record = self.dependency_record(test, discovered, states);
        DependencyRecord { readers: hash, paths_by_reader: paths, ..record }
    }

    /// Returns a record of everything that the test depends on.
    pub(crate) fn dependency_record(
        &self,
        test: &Test,
        discovered: &[Arc<DiscoveredDeps>],
        states: &PathStates,
    ) -> DependencyRecord {
        let hash = |text: &[u8]| text::short_hash(blake3::hash(text).as_bytes());
        let seen =
            self.environment.iter().map(|(name, value)| ((*name).to_owned(), hash(value.as_encoded_bytes())));
        let set = test.set.iter().map(|(name, value)| (name.clone(), hash(value.as_bytes())));
        let describe = |(path, kind): &(std::path::PathBuf, AccessKind)| {
            let suffix = match kind {
                AccessKind::Content => "",
                AccessKind::Names => NAMES,
                AccessKind::Build => BUILDS,
                AccessKind::Tree => TREE,
                AccessKind::Maintained => MAINTAINED,
                AccessKind::MaintainedNames => MAINTAINED_NAMES,
                AccessKind::Repository => REPOSITORY,
                AccessKind::Loaded => LOADED,
            };
            let name = path.display().to_string();
            (
                format!("{}{suffix}", name.replace('\0', TREE_PATTERN)),
                text::short_hash(&states.state(path, *kind).0.digest()),
            )
        };
        let (discovered, discovered_states) = states
            .describe(discovered, |sets| sets.iter().flat_map(|set| &set.accesses).map(describe).collect());
        DependencyRecord {
            command: test.command.clone(),
            directory: test.directory.display().to_string(),
            variables: seen.chain(set).collect(),
            tools: self.tools.iter().map(|tool| text::short_hash(tool)).collect(),
            inputs: text::short_hash(self.snapshot.inputs.digest()),
            discovered,
            discovered_states,
            readers: String::new(),
            paths_by_reader: Arc::default(),
            at: 0,
            status: Status::Passed,
            not_stored: None,
            setting: None,
        }
    }
}
