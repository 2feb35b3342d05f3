//! Answers `greenwave test` at once where that is the same question as before, nothing that the answer hangs on has changed, and it was that everything
//! passes. Knows nothing of how tests are looked up.

use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use greenwave::{Environment, ResultStore};
use greenwave_testing::{RecordKey, Suite, SuiteReport, UpToDateRecord};

use super::test::usual_results_folder;
use super::{CliError, Format, Show, TestArgs};
use crate::config::{FILE, Overrides, VARIABLE};

/// A question that can be answered without saying anything of single tests.
pub(super) struct Asked {
    project: PathBuf,
    /// Where results are kept.
    results: PathBuf,
    /// What decides which tests there are and how they are run, beside the project's file.
    parts: Vec<Vec<u8>>,
    /// The results that there were before anything was looked up.
    kept: [u8; 32],
}

/// What an answer hangs on of the settings, if it can be remembered at all: what was asked for is in the project's file, and results are where they
/// usually are.
pub(super) struct Rules {
    /// The project's file.
    pub(super) text: String,
    /// How long results count.
    pub(super) ttl: Duration,
}

impl Asked {
    /// `None` for questions whose answer is more than that all pass.
    pub(super) fn new(project: &Path, args: &TestArgs) -> Result<Option<Self>, CliError> {
        let is_plain = args.filters.is_empty()
            && args.affected.is_none()
            && args.explain.is_none()
            && !args.dry_run
            && !args.verbose
            && !args.per_test
            && args.format == Format::Human
            && args.output != Show::All
            && args.junit.is_none()
            && args.summary.as_ref().is_none_or(|path| path.as_os_str().is_empty());
        if !is_plain {
            return Ok(None);
        }
        // What there is not, is told where it is needed.
        let Ok(results) = usual_results_folder() else { return Ok(None) };
        let (Some(program), Some(kept)) = (program(), ResultStore::fingerprint(&results)) else {
            return Ok(None);
        };
        let flags = [u8::from(args.strict), u8::from(args.keep_failures)];
        let mut parts = vec![program, flags.to_vec(), results.as_os_str().as_bytes().to_vec()];
        parts.extend(settings(&args.overrides()?).into_iter().map(String::into_bytes));
        Ok(Some(Self { project: project.to_owned(), results, parts, kept }))
    }

    /// What was the answer before, if it is still.
    pub(super) async fn recall(&self) -> Option<UpToDateRecord> {
        let secret = ResultStore::secret(&self.results)?;
        let text = std::fs::read(self.project.join(FILE)).ok()?;
        let terms = self.terms(&text, secret);
        UpToDateRecord::check(&self.project, &Environment::new(std::env::vars_os()), &terms).await
    }

    /// Remembers the answer, if it is that everything is known and passes.
    pub(super) fn keep(&self, suite: &Suite, report: &SuiteReport, rules: &Rules) {
        // What others have kept or removed meanwhile may have been seen or not.
        if ResultStore::fingerprint(&self.results) != Some(self.kept) {
            return;
        }
        if let Some(secret) = ResultStore::secret_or_create(&self.results) {
            suite.record_up_to_date(report, &self.terms(rules.text.as_bytes(), secret), rules.ttl);
        }
    }

    fn terms(&self, text: &[u8], secret: [u8; 32]) -> RecordKey {
        let parts = [text].into_iter().chain(self.parts.iter().map(Vec::as_slice));
        RecordKey { question: UpToDateRecord::question(parts), results: self.kept, secret }
    }
}

/// What tells this program from another, or from another build of it.
fn program() -> Option<Vec<u8>> {
    let metadata = std::env::current_exe().ok()?.metadata().ok()?;
    let numbers = [metadata.dev(), metadata.ino(), metadata.size()];
    let times = [metadata.mtime(), metadata.mtime_nsec(), metadata.ctime(), metadata.ctime_nsec()]
        .map(i64::to_le_bytes);
    Some(numbers.map(u64::to_le_bytes).into_iter().chain(times).flatten().collect())
}

/// Settings that were given outside files, as texts in a fixed order.
fn settings(overrides: &Overrides) -> Vec<String> {
    let mut variables: Vec<_> =
        overrides.variables.iter().filter(|(name, _)| name.starts_with(VARIABLE)).collect();
    variables.sort_unstable();
    let counts = [variables.len(), overrides.flags.len()].map(|count| count.to_string());
    let variables = variables.into_iter().flat_map(|(name, value)| [name.clone(), value.clone()]);
    let flags = overrides.flags.iter().flat_map(|(_, key, value)| [key.clone(), value.clone()]);
    let profile = overrides.profile.iter().cloned();
    counts.into_iter().chain(variables).chain(flags).chain(profile).collect()
}
