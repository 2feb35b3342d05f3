//! Sends nothing: the program was built without the feature `otel`.

use std::convert::Infallible;
use std::path::Path;
use std::time::Duration;

use greenwave::{Event, Plan, Report};
use greenwave_testing::SuiteReport;

use crate::test_timeline::Ended;

/// The traces and metrics of a run of a plan, which this program never has.
pub(crate) struct RunTelemetry(Infallible);

impl RunTelemetry {
    pub(crate) fn start(_plan: &Plan) -> Option<Self> {
        None
    }

    pub(crate) fn event(&mut self, _event: &Event) {
        match self.0 {}
    }

    pub(crate) async fn finish(self, _report: Option<&Report>) {
        match self.0 {}
    }
}

/// The traces and metrics of a run of tests, which this program never has.
#[derive(Debug)]
pub(crate) struct TestTelemetry(Infallible);

impl TestTelemetry {
    pub(crate) fn start(_project: &Path, _elapsed: Duration) -> Option<Self> {
        None
    }

    pub(crate) fn add(&mut self, _ended: &Ended<'_>) {
        match self.0 {}
    }

    pub(crate) async fn finish(self, _report: Option<&SuiteReport>) {
        match self.0 {}
    }

    pub(crate) async fn finish_up_to_date(self, _tests: usize, _saved: Duration) {
        match self.0 {}
    }
}
