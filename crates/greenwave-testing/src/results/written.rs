//! Records the files of a project that its tests write.
//!
//! A test that reads such a file depends on the test that writes it: if that one runs again, the
//! file can have other content afterwards. A trace does not show this.

use std::collections::{HashMap, HashSet};
use std::path::PathBuf;
use std::sync::Arc;

use greenwave_cache::{Key, Tiered};
use greenwave_inputs::{AccessKind, DiscoveredDeps};
use tokio::sync::Mutex;

use crate::results::record::{self, StoredRecord};

/// Maximum number of files of a project that are recorded. With more, every file counts as
/// written.
const WRITTEN_MAX: usize = 10_000;

/// The files that tests write, by the key of the project's record.
#[derive(Debug, Default)]
pub(crate) struct WrittenFiles {
    loaded: Mutex<HashMap<Key, Arc<WrittenSet>>>,
}

/// The files that tests of a project write, relative to the project. A directory includes all files
/// below it.
pub(crate) type WrittenSet = HashSet<PathBuf>;

impl WrittenFiles {
    /// Returns the files that tests of a project have written.
    pub(crate) async fn of(&self, tiers: &Tiered, project: &Key) -> Arc<WrittenSet> {
        let mut loaded = self.loaded.lock().await;
        if let Some(set) = loaded.get(project) {
            return Arc::clone(set);
        }
        let set = Arc::new(load(tiers, project).await);
        loaded.insert(*project, Arc::clone(&set));
        set
    }

    /// Adds files that a test of a project has written. Returns all of them.
    pub(crate) async fn add(
        &self,
        tiers: &Tiered,
        project: &Key,
        written: impl Iterator<Item = PathBuf>,
    ) -> Arc<WrittenSet> {
        let before = self.of(tiers, project).await;
        let new: Vec<PathBuf> = written.filter(|path| !before.contains(path)).collect();
        if new.is_empty() || before.len() > WRITTEN_MAX {
            return before;
        }
        let mut loaded = self.loaded.lock().await;
        // Other processes may have added files.
        let mut set = load(tiers, project).await;
        set.extend(before.iter().cloned().chain(new));
        if let Some(others) = loaded.get(project) {
            set.extend(others.iter().cloned());
        }
        let accesses = set.iter().take(WRITTEN_MAX + 1).map(|path| (path.clone(), AccessKind::Content));
        // An error is logged by the tiers, and the files are added again by the next run.
        let _ = tiers.put(project, &record::dependencies(&DiscoveredDeps::new(accesses))).await;
        let set = Arc::new(set);
        loaded.insert(*project, Arc::clone(&set));
        set
    }
}

async fn load(tiers: &Tiered, project: &Key) -> WrittenSet {
    let record = tiers.get(project).await;
    match record.as_ref().and_then(StoredRecord::decode) {
        Some(StoredRecord::Dependencies(set)) => set.accesses.iter().map(|(path, _)| path.clone()).collect(),
        _ => WrittenSet::default(),
    }
}

/// Returns a file of a trace that a test writes.
pub(crate) fn first_written<'t>(trace: &'t DiscoveredDeps, written: &WrittenSet) -> Option<&'t PathBuf> {
    if written.is_empty() {
        return None;
    }
    let is_written = |path: &PathBuf| {
        path.is_relative()
            && (written.len() > WRITTEN_MAX || path.ancestors().any(|above| written.contains(above)))
    };
    let mut paths = trace.accesses.iter().filter(|(_, kind)| *kind == AccessKind::Content);
    paths.find(|(path, _)| is_written(path)).map(|(path, _)| path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_file_counts_as_written_if_there_are_too_many() {
        let trace =
            DiscoveredDeps::new([("/out".into(), AccessKind::Content), ("a".into(), AccessKind::Content)]);
        let written = |count: usize| (0..count).map(|number| PathBuf::from(number.to_string())).collect();
        assert_eq!(first_written(&trace, &written(WRITTEN_MAX)), None);
        assert_eq!(first_written(&trace, &written(WRITTEN_MAX + 1)), Some(&PathBuf::from("a")));
        assert_eq!(first_written(&trace, &HashSet::from([PathBuf::from("a")])), Some(&PathBuf::from("a")));
        let inside = DiscoveredDeps::new([("target/a".into(), AccessKind::Content)]);
        let expected = Some(&inside.accesses[0].0);
        assert_eq!(first_written(&inside, &HashSet::from([PathBuf::from("target")])), expected);
    }
}
