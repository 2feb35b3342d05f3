//! Explains why a test has a cached result or has none.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use greenwave_inputs::{AccessKind, DiscoveredDeps};

use super::context::SuiteContext;
use super::lookup::SuiteLookup;
use crate::Error;
use crate::results::dependencies::{DependencyLog, DependencyRecord, Difference};
use crate::results::lookup::Lookup;
use crate::results::outcome::{Outcome, Status};
use crate::run::test_id::TestId;

/// An explanation of why a test has a cached result or has none.
#[derive(Debug)]
pub struct Explanation {
    /// The cached result.
    pub cached: Option<Outcome>,
    /// Whether the result is valid only if a build of the test's program would change nothing.
    pub depends_on_build: bool,
    /// Age and status of the last run in this project, and the reason why its result was not
    /// stored.
    pub last: Option<(Duration, Status, Option<String>)>,
    /// Age of the last run in this project whose result was stored.
    pub stored: Option<Duration>,
    /// Changes since the last run whose result was stored.
    pub differences: Vec<ChangedDependency>,
    /// Whether the stored result does not hold under the time limit that the test has now.
    pub over_limit: bool,
    /// Number of input files that the result depends on.
    pub inputs: usize,
    /// Paths of discovered dependencies.
    pub discovered: Vec<PathBuf>,
}

/// A dependency that has changed since an earlier run, and who read it then.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChangedDependency {
    /// The dependency.
    pub difference: Difference,
    /// The command line of the process that was the first to read it in the earlier run. `None` if
    /// the run was not traced or no process read it, and for installed programs and libraries.
    pub read_by: Option<String>,
}

/// A test whose last run passed and was not stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NotStored {
    /// The test.
    pub test: TestId,
    /// The reason, followed by advice in parentheses.
    pub reason: String,
    /// The setting of the test in `greenwave.toml` after which its results are stored.
    pub setting: Option<String>,
    /// Age of the last run in this project whose result was stored. `None` if the test has no such
    /// run.
    pub stored: Option<Duration>,
}

/// Looks a test up, and compares its dependencies with those of its last runs.
///
/// # Errors
/// If the project cannot be read or the test cannot be run.
pub(super) async fn explain(
    context: &Arc<SuiteContext>,
    id: TestId,
    log: &DependencyLog,
) -> Result<Explanation, Error> {
    let found = SuiteLookup::without_builds(context, &context.scan().await?, &[id]).await.found.pop();
    let is_hit = matches!(found, Some((_, Ok(Lookup::Hit(..)))));
    let (snapshot, test) = (context.scan().await?, context.test(id));
    let mut prepared = context.runner.prepare_all(&context.project, &snapshot, &[test]).await;
    let prepared = prepared.pop().ok_or(Error::Stopped)??;
    let mut over_limit = false;
    let (cached, chain) = match context.runner.lookup(&prepared).await {
        Lookup::Hit(outcome, chain) => (is_hit.then_some(outcome), Some(chain)),
        Lookup::Miss(chain) => (None, Some(chain)),
        Lookup::OverLimit(chain) => {
            over_limit = true;
            (None, Some(chain))
        }
        Lookup::Corrupt => (None, None),
    };
    let depends_on_build = chain.as_ref().is_some_and(|chain| chain.builds().next().is_some());
    let discovered = chain.map(|chain| chain.dependencies().to_vec()).unwrap_or_default();
    let mut now = prepared.dependency_record(test, &discovered, &prepared.snapshot.states);
    let stored = log.last_stored(&test.name);
    if let Some(stored) = stored {
        // Compare the current states of the same paths.
        let paths = log.discovered_by(stored).map(|(path, _)| path);
        now.discovered_states = Arc::new(prepared.states_of(paths));
    }
    let mut differences = match (&cached, stored) {
        (None, Some(stored)) => log.differences(stored, &now, &prepared.snapshot.inputs),
        _ => Vec::new(),
    };
    let trace = context.runner.latest_trace(&prepared).await;
    let manifest = &prepared.snapshot.inputs;
    let inputs = match &trace {
        Some(trace) => {
            retain_traced(&mut differences, trace);
            let is_input = |(path, kind): &&(PathBuf, AccessKind)| {
                *kind == AccessKind::Content && manifest.get(path).is_some()
            };
            trace.accesses.iter().filter(is_input).count()
        }
        None => manifest.len(),
    };
    let read_by = |difference: &Difference| Some(log.reader_of(stored?, difference)?.to_owned());
    let with_reader =
        |difference: Difference| ChangedDependency { read_by: read_by(&difference), difference };
    let last = log.last(&test.name);
    let accesses = discovered.iter().flat_map(|set| &set.accesses);
    Ok(Explanation {
        last: last.map(|record| (record.age(), record.status, record.not_stored.clone())),
        stored: stored.map(DependencyRecord::age),
        differences: differences.into_iter().map(with_reader).collect(),
        inputs,
        discovered: accesses
            .filter(|(_, kind)| !matches!(kind, AccessKind::Build | AccessKind::Tree))
            .map(|(path, _)| path.clone())
            .collect(),
        cached,
        depends_on_build,
        over_limit,
    })
}

/// Removes differences of paths that are not part of the complete trace of the last stored run. If
/// none is part of it, all remain.
fn retain_traced(differences: &mut Vec<Difference>, trace: &DiscoveredDeps) {
    let is_traced = |difference: &Difference| match difference {
        Difference::Changed(path) | Difference::Added(path) | Difference::Removed(path) => {
            trace.accesses.iter().any(|(traced, kind)| *kind == AccessKind::Content && traced == path)
        }
        _ => true,
    };
    if differences.iter().any(is_traced) {
        differences.retain(is_traced);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_files_of_the_trace_explain_why_a_test_runs_again() {
        let changed = |path: &str| Difference::Changed(path.into());
        let trace = DiscoveredDeps::new([("a.txt".into(), AccessKind::Content)]);
        let mut differences = vec![changed("README.md"), changed("a.txt"), Difference::Tool];
        retain_traced(&mut differences, &trace);
        assert_eq!(differences, [changed("a.txt"), Difference::Tool]);
        let mut differences = vec![changed("README.md")];
        retain_traced(&mut differences, &trace);
        assert_eq!(differences, [changed("README.md")]);
    }
}
