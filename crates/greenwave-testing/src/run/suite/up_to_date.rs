//! Stores up-to-date records of runs in which all tests were cached passes.

use std::time::Duration;

use super::Suite;
use super::context::SuiteContext;
use super::report::SuiteReport;
use crate::harness::discover::{StoredState, stored_state};
use crate::results::state::StateFile;
use crate::results::up_to_date::{Discovered, RecordKey, RecordOrigin, UpToDateRecord};
use crate::{Error, Harnesses};

/// The origin of the tests of a suite that were [discovered](crate::discover).
#[derive(Debug, Clone, Copy)]
pub struct DiscoveredTests<'a> {
    /// The harnesses that discovered them.
    pub harnesses: &'a Harnesses,
    /// The suite of the commands that collected the tests, if there were any, and its report.
    pub collections: Option<(&'a Suite, &'a SuiteReport)>,
}

impl Suite {
    /// Stores a record for [`UpToDateRecord::check`] if all tests of the project have a cached
    /// result. Returns whether it was stored. The record expires when its oldest result reaches
    /// `age_max`.
    ///
    /// If the tests were [discovered](crate::discover), `discovered` says how. The record is about
    /// the discovery as well.
    pub fn record_up_to_date(
        &self,
        report: &SuiteReport,
        key: &RecordKey,
        age_max: Duration,
        discovered: Option<&DiscoveredTests<'_>>,
    ) -> bool {
        let stored = match discovered {
            None => self.record_in(StateFile::UpToDate, report, key, age_max, RecordOrigin::default()),
            Some(DiscoveredTests { harnesses, collections }) => {
                let (root, environment) = (self.context.project.root(), self.context.runner.environment());
                let Some(StoredState { state, directories }) =
                    stored_state(&self.state, root, harnesses, environment)
                else {
                    return false;
                };
                let own = collections.map_or(Ok(true), |(suite, report)| {
                    let origin =
                        RecordOrigin { directories: Some(directories.clone()), ..RecordOrigin::default() };
                    suite.record_in(StateFile::CollectionsUpToDate, report, key, age_max, origin)
                });
                own.and_then(|stored| {
                    let discovered = Some(Discovered { state, has_collections: collections.is_some() });
                    let origin = RecordOrigin { directories: Some(directories), discovered };
                    Ok(stored && self.record_in(StateFile::UpToDate, report, key, age_max, origin)?)
                })
            }
        };
        stored.unwrap_or_else(|error| {
            tracing::warn!(%error, "cannot store the up-to-date record");
            false
        })
    }

    fn record_in(
        &self,
        file: StateFile,
        report: &SuiteReport,
        key: &RecordKey,
        age_max: Duration,
        origin: RecordOrigin,
    ) -> Result<bool, Error> {
        let SuiteContext { project, tests, runner } = &*self.context;
        let suite = (project, &tests[..], runner);
        UpToDateRecord::record((&self.state, file), suite, report, key, age_max, origin)
    }
}
