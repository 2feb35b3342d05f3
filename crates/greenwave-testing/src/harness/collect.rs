//! Replaces discovered tests by the tests that a harness's own collection finds.

use std::path::Path;

use super::Harness;
use super::discovery::{Discovery, SINGLE_TESTS_VARIABLE};
use super::listing::ListingContext;
use super::registry::Harnesses;
use crate::Test;

impl Discovery {
    /// Appends arguments of the user to the commands of a harness's collections, and so to those of
    /// the tests that they find, or to its tests if it has no collection. Returns the names of the
    /// tests that take no arguments.
    pub fn add_arguments(&mut self, harness: &dyn Harness, arguments: &[String]) -> Vec<String> {
        let is_own = |test: &&mut Test| test.harness.as_str() == harness.name();
        let mut has_collection = false;
        for test in self.collections.iter_mut().filter(is_own) {
            has_collection = true;
            test.command.extend_from_slice(arguments);
        }
        let mut refused = Vec::new();
        for test in self.tests.iter_mut().filter(|test| !has_collection && is_own(test)) {
            match harness.with_arguments(test, arguments) {
                Some(changed) => *test = changed,
                None => refused.push(test.name.clone()),
            }
        }
        refused
    }

    /// Has collections find single tests instead of files.
    pub fn collect_single_tests(&mut self) {
        for test in &mut self.collections {
            test.set.insert(SINGLE_TESTS_VARIABLE.to_owned(), "tests".to_owned());
        }
    }

    /// Returns the commands whose outcome [`collect`](Self::collect) needs, to be run as a
    /// [`Suite`](crate::Suite) before it.
    ///
    /// In a run that is `traced`, they declare only the manifests of their directory, so that only
    /// a change of a file that they read makes them run again.
    pub fn collection_commands(&self, harnesses: &Harnesses, project: &Path, traced: bool) -> Vec<Test> {
        let narrow = |test: &Test| {
            let manifests = harnesses.get(&test.harness).discovery_inputs().manifests;
            let manifests = manifests.iter().map(|name| test.directory.join(name));
            let existing = manifests.filter(|manifest| project.join(manifest).is_file());
            let inputs: Vec<String> = existing.map(|manifest| super::project::pattern(&manifest)).collect();
            if !traced || inputs.is_empty() {
                return test.clone();
            }
            Test { inputs, directories: Vec::new(), ..test.clone() }
        };
        self.collections.iter().map(narrow).collect()
    }

    /// Replaces the tests in the directories of collections by those that the collections found.
    ///
    /// Tests of a collection that did not run stay as they were discovered.
    pub fn collect(&mut self, harnesses: &Harnesses, context: &ListingContext<'_>) {
        let collections = std::mem::take(&mut self.collections);
        for harness in harnesses.iter() {
            let own: Vec<&Test> =
                collections.iter().filter(|test| test.harness.as_str() == harness.name()).collect();
            for (collection, found) in own.iter().zip(harness.collected(&own, context)) {
                let Some(found) = found else { continue };
                self.tests.retain(|test| {
                    test.harness != collection.harness || owner(&own, &test.directory) != Some(*collection)
                });
                self.tests.extend(found.tests);
                self.notes.extend(found.notes);
            }
        }
        let rank = |test: &Test| harnesses.iter().position(|it| it.name() == test.harness.as_str());
        self.tests.sort_by_key(rank);
        self.make_names_unique();
    }
}

/// Returns the collection of the deepest directory that contains `directory`.
fn owner<'t>(collections: &[&'t Test], directory: &Path) -> Option<&'t Test> {
    let around = collections.iter().filter(|collection| directory.starts_with(&collection.directory));
    around.max_by_key(|collection| collection.directory.components().count()).copied()
}
