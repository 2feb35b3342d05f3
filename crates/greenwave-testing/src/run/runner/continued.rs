//! Runs a collection in a process that then runs the tests which it has found.
//!
//! Their results depend on everything that the process has read, also during the collection, unless
//! another process has collected for it. As the process starts before the tests are looked up, no
//! input may be younger than its start.

use std::path::Path;
use std::sync::Arc;

use greenwave_inputs::{CLOCK_TICK, Manifest};
use greenwave_sandbox::TraceStatus;

use super::attempt::{AttemptResult, TestJob, ToMark, is_observed};
use crate::harness::LaunchSpec;
use crate::results::key_chain::KeyChain;
use crate::run::continuation::WaitingProcess;
use crate::run::isolation::Isolation;
use crate::run::process;
use crate::{Error, Test};

impl TestJob<'_> {
    /// Returns whether the process of a collection is to continue with the tests that it finds:
    /// only the first time. Later, most tests have results with separate traces.
    pub(super) fn can_continue(&self, chain: &KeyChain) -> bool {
        let Self { runner, test, .. } = *self;
        let options = &runner.options;
        chain.dependencies().is_empty()
            && options.continuations.is_some()
            && !options.strict
            && test.retries == 0
            && test.reports.is_none()
            && runner.trace_status() == TraceStatus::Traced
            && runner.harness(test).continuation(test).is_some()
    }

    /// Runs a collection until it waits or has ended.
    ///
    /// # Errors
    /// If it cannot be run.
    pub(super) async fn run_to_mark(
        &self,
        launch: &LaunchSpec,
        isolation: Isolation,
    ) -> Result<ToMark, Error> {
        let Self { runner, test, .. } = *self;
        let (options, environment) = (&runner.options, &runner.environment);
        let (Some(continuation), Some(waiting)) =
            (runner.harness(test).continuation(test), &options.continuations)
        else {
            let process = self.run_once(launch, &isolation).await?;
            return Ok(ToMark::Ended(Box::new(process), isolation));
        };
        let launch = continuation.prepare(test, launch.clone(), isolation.directory(), environment)?;
        let (stdin, order) =
            std::io::pipe().map_err(Error::io("create a pipe for", isolation.directory()))?;
        let mut job = self.job(&launch, isolation.directory(), self.variables(&launch, &isolation));
        (job.has_mark, job.has_parts) = (true, true);
        let mut running = process::start(&job, options, environment, None, Some(stdin)).await?;
        match process::reach_mark(&mut running, test, options, environment).await {
            Some(process) => {
                self.record_maintained(&process.seen).await;
                let filter = self.access_filter(isolation.directory());
                let result = self.attempt_result(process, 1, &filter, None)?;
                waiting.add(WaitingProcess { collection: test.clone(), running, isolation, order });
                Ok(ToMark::Waiting(Box::new(result)))
            }
            None => {
                // A process that waits nevertheless is not to continue.
                drop(order);
                let process = process::finish(running, test, options, environment).await?;
                self.record_maintained(&process.seen).await;
                Ok(ToMark::Ended(Box::new(process), isolation))
            }
        }
    }

    /// Orders the process of a collection to run several tests, if one waits that can.
    ///
    /// # Errors
    /// If its output cannot be read.
    pub(super) async fn continue_together(
        &self,
        tests: &[&Test],
    ) -> Result<Option<(AttemptResult, Isolation)>, Error> {
        let Self { runner, test, .. } = *self;
        let options = &runner.options;
        let Some(waiting) = &options.continuations else { return Ok(None) };
        let Some((running, isolation)) = waiting.run(&options.harnesses, tests).await else {
            return Ok(None);
        };
        let process = process::finish(running, test, options, &runner.environment).await?;
        self.record_maintained(&process.seen).await;
        let began = process.began;
        let filter = self.access_filter(isolation.directory());
        let result = self.attempt_result(process, 1, &filter, None)?.of_common_part();
        Ok(Some((AttemptResult { started_before: Some(began), ..result }, isolation)))
    }
}

impl AttemptResult {
    /// Removes what only a collection observed that has run in a separate process, and has
    /// announced its part.
    fn of_common_part(mut self) -> Self {
        if let Some(parts) = &self.process.seen.parts {
            let reached = parts.closure(0);
            Arc::make_mut(&mut self.accesses.accesses).retain(|access| is_observed(access, parts, &reached));
        }
        self
    }

    /// Returns an input that may have changed between the start of the process and the lookup of
    /// the test. Only the process of a collection starts before the lookup.
    pub(super) fn younger_input<'a>(&self, inputs: &'a Manifest) -> Option<&'a Path> {
        let tick = i64::try_from(CLOCK_TICK.as_nanos()).unwrap_or(0);
        inputs.changed_since(self.started_before?.saturating_sub(tick))
    }
}
