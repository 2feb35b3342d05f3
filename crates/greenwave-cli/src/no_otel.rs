//! Sends nothing: the program was built without the feature `otel`.

use std::convert::Infallible;

use greenwave::{Event, Plan, Report};

/// The traces and metrics of a run, which this program never has.
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
