//! Answers `greenwave test` from an up-to-date record, without opening the results or reading
//! tests.
//!
//! A record is stored when all tests of a project have cached passes. It holds everything that this
//! depends on; the next run only checks that nothing of it has changed.

use std::io::ErrorKind;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use greenwave::{Environment, ResultStore, UserKey};
use greenwave_dir::read_regular;
use greenwave_testing::{
    DiscoveredTests, Harnesses, RecordKey, Suite, SuiteReport, TraceMode, TraceStatus, UpToDateRecord,
};

use super::args::TestArgs;
use super::select::is_selected;
use crate::config::{Overrides, VARIABLE};
use crate::diagnostic::FILE_BYTES_MAX;
use crate::dirs::default_results_dir;
use crate::error::CliError;
use crate::format::{Format, Show};
use crate::reader::SETTINGS_FILE;
use crate::user_key::user_key;

/// An up-to-date check for one call of `greenwave test`.
pub(super) struct FastPath {
    project: PathBuf,
    results: PathBuf,
    /// Everything besides the settings file that decides which tests there are and how they run.
    parts: Vec<Vec<u8>>,
    /// Fingerprint of the results when the program started.
    fingerprint: [u8; 32],
}

/// Tests of an up-to-date project.
pub(super) struct AllCached {
    pub(super) tests: usize,
    /// Total duration of the runs that produced the results.
    pub(super) saved: Duration,
    pub(super) tracing: TraceStatus,
}

/// The settings that a record needs. They exist only for projects that store results in the default
/// directory.
pub(super) struct Recordable {
    /// Text of the settings file, if there is one.
    pub(super) text: Option<String>,
    /// Maximum age of a result.
    pub(super) ttl: Duration,
    pub(super) origin: Origin,
}

/// The origin of a project's tests.
pub(super) enum Origin {
    /// The settings file declares them.
    Declared,
    /// The harnesses have discovered them.
    Discovered {
        harnesses: Harnesses,
        /// The commands that collected tests, if there were any, and the report of their run.
        collections: Option<Box<(Suite, SuiteReport)>>,
    },
}

impl FastPath {
    /// Creates the check. Returns `None` if the call asks for more than the closing line, or if the
    /// results do not exist.
    pub(super) fn new(project: &Path, args: &TestArgs) -> Result<Option<Self>, CliError> {
        // The check compares timestamps of directories. An outer run that traces this program would
        // not see which names in them the result depends on.
        let is_traced = TraceStatus::of(TraceMode::WhenPossible) == TraceStatus::TracedByOuter;
        if is_traced || !is_plain(args) {
            return Ok(None);
        }
        // The slow path reports errors.
        let Ok(results) = default_results_dir() else { return Ok(None) };
        let Some(program) = program_identity() else { return Ok(None) };
        let Some(fingerprint) = ResultStore::fingerprint(&results) else { return Ok(None) };
        let flags = [u8::from(args.strict), u8::from(args.keep_failures)];
        let mut parts = vec![program, flags.to_vec(), results.as_os_str().as_bytes().to_vec()];
        parts.extend(settings(&args.overrides()?).into_iter().map(String::into_bytes));
        Ok(Some(Self { project: project.to_owned(), results, parts, fingerprint }))
    }

    /// Returns the number of selected tests, if the project is up to date and there are any.
    pub(super) async fn check(&self, filters: &[String]) -> Option<AllCached> {
        let record = self.record_of_project().await?;
        let (tests, saved) = match filters {
            [] => (record.tests, record.saved),
            _ => record.count(|name| is_selected(name, filters)),
        };
        (tests > 0).then_some(AllCached { tests, saved, tracing: record.tracing })
    }

    async fn record_of_project(&self) -> Option<UpToDateRecord> {
        let user = user_key(&self.project).ok()?;
        let text = match read_regular(self.project.join(SETTINGS_FILE), FILE_BYTES_MAX) {
            Ok(text) => Some(text),
            Err(error) if error.kind() == ErrorKind::NotFound => None,
            Err(_) => return None,
        };
        let key = self.key(text.as_deref(), user);
        let environment = Environment::new(std::env::vars_os());
        UpToDateRecord::check(&self.project, &Harnesses::builtin(), &environment, &key).await
    }

    /// Stores a record if all tests of the run had cached passes.
    pub(super) fn record(&self, suite: &Suite, report: &SuiteReport, recordable: &Recordable) {
        // The run may or may not have seen what another process has stored or removed meanwhile.
        if ResultStore::fingerprint(&self.results) != Some(self.fingerprint) {
            return;
        }
        let Ok(user) = user_key(&self.project) else { return };
        let discovered = match &recordable.origin {
            Origin::Declared => None,
            Origin::Discovered { harnesses, collections } => Some(DiscoveredTests {
                harnesses,
                collections: collections.as_deref().map(|(suite, report)| (suite, report)),
            }),
        };
        let key = self.key(recordable.text.as_ref().map(String::as_bytes), user);
        suite.record_up_to_date(report, &key, recordable.ttl, discovered.as_ref());
    }

    fn key(&self, text: Option<&[u8]>, user: UserKey) -> RecordKey {
        let has_settings: &[u8] = if text.is_some() { &[1] } else { &[0] };
        let parts = [has_settings, text.unwrap_or_default()];
        let parts = parts.into_iter().chain(self.parts.iter().map(Vec::as_slice));
        RecordKey { question: UpToDateRecord::question(parts), results: self.fingerprint, user }
    }
}

/// Returns whether a call prints only the closing line for an up-to-date project.
fn is_plain(args: &TestArgs) -> bool {
    args.arguments.is_empty()
        && args.affected.is_none()
        && !args.last_failed
        && args.shard.is_none()
        && args.timings.is_none()
        && args.explain.is_none()
        && !args.why_not_cached
        && !args.dry_run
        && !args.verbose
        && !args.per_test
        && args.format == Format::Human
        && args.output() != Show::All
        && args.junit.is_none()
        && args.summary().is_none()
        && args.trace.is_none()
}

/// Returns what distinguishes this program from other builds of it.
fn program_identity() -> Option<Vec<u8>> {
    let metadata = std::env::current_exe().ok()?.metadata().ok()?;
    let numbers = [metadata.dev(), metadata.ino(), metadata.size()];
    let times = [metadata.mtime(), metadata.mtime_nsec(), metadata.ctime(), metadata.ctime_nsec()]
        .map(i64::to_le_bytes);
    Some(numbers.map(u64::to_le_bytes).into_iter().chain(times).flatten().collect())
}

/// Returns the settings of the environment and the command line as texts, in a fixed order.
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
