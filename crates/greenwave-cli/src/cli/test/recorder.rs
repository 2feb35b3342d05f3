//! Records a run of tests: in a trace file, and for a collector of OpenTelemetry.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use greenwave_testing::{Suite, SuiteEvent, SuiteReport};

use super::args::TestArgs;
use super::trace_file::TraceFile;
use crate::error::CliError;
#[cfg(not(feature = "otel"))]
use crate::no_otel::TestTelemetry;
#[cfg(feature = "otel")]
use crate::otel::TestTelemetry;
use crate::test_timeline::Timeline;

/// Records a run that has been loaded.
#[derive(Debug)]
pub(super) struct Recorder {
    timeline: Timeline,
    file: Option<TraceFile>,
    telemetry: Option<TestTelemetry>,
}

impl Recorder {
    /// Creates the recorder of a run that started at this time, if the arguments or the environment
    /// ask for one.
    ///
    /// # Errors
    /// [`CliError::Io`] if the trace file cannot be created.
    pub(super) fn start(project: &Path, args: &TestArgs, started: Instant) -> Result<Option<Self>, CliError> {
        let create = |path: &PathBuf| {
            TraceFile::create(project, path).map_err(|source| trace_error(path.clone(), source))
        };
        let mut file = args.trace.as_ref().map(create).transpose()?;
        let telemetry = TestTelemetry::start(project, started.elapsed());
        if file.is_none() && telemetry.is_none() {
            return Ok(None);
        }
        let timeline = Timeline::new(started);
        if let Some(file) = &mut file {
            file.add(&timeline.loading());
        }
        let mut recorder = Self { timeline, file, telemetry };
        if let Some(telemetry) = &mut recorder.telemetry {
            telemetry.add(&recorder.timeline.loading());
        }
        Ok(Some(recorder))
    }

    /// Adds an event that happens now.
    pub(super) fn event(&mut self, suite: &Suite, event: &SuiteEvent<'_>) {
        let now = self.timeline.elapsed();
        let Some(ended) = self.timeline.event(suite, event, now) else { return };
        if let Some(file) = &mut self.file {
            file.add(&ended);
        }
        if let Some(telemetry) = &mut self.telemetry {
            telemetry.add(&ended);
        }
    }

    /// Closes the file, and sends the rest within a limited time. A run that was stopped has no
    /// report.
    ///
    /// # Errors
    /// [`CliError::Io`] if the trace file could not be written.
    pub(super) async fn finish(self, report: Option<&SuiteReport>) -> Result<(), CliError> {
        if let Some(telemetry) = self.telemetry {
            telemetry.finish(report).await;
        }
        let file = self.file.map_or(Ok(()), TraceFile::finish);
        file.map_err(|(path, source)| trace_error(path, source))
    }
}

/// Sends the trace of a run that an up-to-date record has answered, if there is a collector.
pub(super) async fn send_up_to_date(project: &Path, started: Instant, (tests, saved): (usize, Duration)) {
    if let Some(telemetry) = TestTelemetry::start(project, started.elapsed()) {
        telemetry.finish_up_to_date(tests, saved).await;
    }
}

fn trace_error(path: PathBuf, source: std::io::Error) -> CliError {
    CliError::Io { operation: "write trace", path, source }
}
