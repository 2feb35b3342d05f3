//! Collects tests in a process that then runs them.

use std::ffi::OsString;
use std::path::Path;

use super::batch::{FORKS, FORKS_NAME, PLUGIN_NAME, write_module, write_plugin};
use super::{PREFIX, collection, is_file};
use crate::harness::continuation::Continuation;
use crate::harness::discovery::SINGLE_TESTS_VARIABLE;
use crate::harness::launch::LaunchSpec;
use crate::{Environment, Error, Test};

/// A collection by pytest.
#[derive(Debug, Clone, Copy)]
pub(super) struct PytestContinuation;

/// A pytest plugin that waits after the collection.
const WAITING: &str = include_str!("continued.py");
const WAITING_NAME: &str = "greenwave_continued";
/// Module name of the program that collects, which the plugin imports.
const COLLECTION_NAME: &str = "greenwave_collection";

/// Returns how a collection continues; `None` for a test that is no collection, and for one that
/// lists single tests, which run alone.
pub(super) fn continuation(test: &Test) -> Option<&'static PytestContinuation> {
    let continues = collection::is_collection(test) && !test.set.contains_key(SINGLE_TESTS_VARIABLE);
    continues.then_some(&PytestContinuation)
}

impl Continuation for PytestContinuation {
    fn prepare(
        &self,
        collection: &Test,
        mut command: LaunchSpec,
        directory: &Path,
        environment: &Environment,
    ) -> Result<LaunchSpec, Error> {
        write_module(directory, COLLECTION_NAME, collection::SCRIPT)?;
        write_module(directory, WAITING_NAME, WAITING)?;
        write_module(directory, FORKS_NAME, FORKS)?;
        let variable = write_plugin(collection, directory, environment)?;
        // The words of the user come last, since theirs may be files.
        let [module, pytest, own @ ..] = PREFIX;
        let plugins = ["-p", PLUGIN_NAME, "-p", WAITING_NAME];
        let words = [module, pytest].into_iter().chain(plugins).chain(own).map(OsString::from);
        let user = collection.command.iter().skip(3).map(OsString::from);
        command.arguments = words.chain(user).collect();
        Ok(command.replace_variables([variable]))
    }

    fn order(&self, collection: &Test, tests: &[&Test]) -> Option<Vec<u8>> {
        let base = collection::base(collection);
        let can_run =
            |test: &&Test| is_file(test) && test.command.starts_with(&base.command) && is_alike(&base, test);
        let words: Option<Vec<&str>> = tests
            .iter()
            .map(|test| test.command.last().filter(|_| can_run(test)).map(String::as_str))
            .collect();
        serde_json::to_vec(&words?).ok()
    }
}

/// Returns whether the processes of two tests have the same conditions, except for their arguments.
fn is_alike(one: &Test, other: &Test) -> bool {
    one.directory == other.directory
        && one.outputs == other.outputs
        && one.servers == other.servers
        && one.env == other.env
        && one.set == other.set
}
