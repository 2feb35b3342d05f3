//! Sends traces and metrics of runs to a collector of OpenTelemetry, as its usual environment
//! variables say.
//!
//! Spans follow from the events of the run. They wait in a bounded queue that a thread of the SDK
//! empties, so a collector that is slow or hangs delays nothing; what does not fit is dropped.

mod client;
mod exporter;
mod metrics;
mod spans;
mod test_run;

use std::collections::BTreeMap;
use std::time::SystemTime;

use greenwave::{Event, Plan, Report};

use self::exporter::Exporter;
use self::metrics::Metrics;
use self::spans::Spans;

pub(crate) use self::test_run::TestTelemetry;

/// The traces and metrics of a run of a plan.
pub(crate) struct RunTelemetry {
    exporter: Exporter,
    spans: Spans,
    metrics: Metrics,
}

impl RunTelemetry {
    /// Starts the trace of a run. Returns `None` if the environment names no collector, or one that
    /// cannot be used, which a note says.
    pub(crate) fn start(plan: &Plan) -> Option<Self> {
        let exporter = Exporter::start()?;
        let spans = Spans::start(exporter.tracer(), plan, SystemTime::now());
        let metrics = Metrics::new(exporter.meters());
        Some(Self { exporter, spans, metrics })
    }

    /// Adds an event that happens now.
    pub(crate) fn event(&mut self, event: &Event) {
        let called = self.spans.event(event, SystemTime::now());
        self.metrics.event(event);
        if let Some((agent, duration)) = called {
            self.metrics.call(&agent, duration);
        }
    }

    /// Ends the trace, and sends the rest within a limited time. Says if data were lost.
    pub(crate) async fn finish(mut self, report: Option<&Report>) {
        self.spans.finish(report, SystemTime::now());
        let agents: BTreeMap<&str, &str> = self.spans.agents().collect();
        for feature in report.iter().flat_map(|report| &report.features) {
            let agent = feature.agent.as_deref().or_else(|| agents.get(&*feature.feature).copied());
            self.metrics.usage(agent.unwrap_or_default(), &feature.usage);
        }
        self.exporter.finish().await;
    }
}
