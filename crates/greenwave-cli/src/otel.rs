//! Sends traces and metrics of a run to a collector of OpenTelemetry, as its usual environment
//! variables say.
//!
//! Spans follow from the events of the run. They wait in a bounded queue that a thread of the SDK
//! empties, so a collector that is slow or hangs delays nothing; what does not fit is dropped.

mod client;
mod metrics;
mod spans;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use greenwave::{Event, Plan, Report};
use opentelemetry::Key;
use opentelemetry::trace::TracerProvider;
use opentelemetry_otlp::{ExporterBuildError, MetricExporter, SpanExporter, WithHttpConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::metrics::SdkMeterProvider;
use opentelemetry_sdk::trace::SdkTracerProvider;

use self::client::Client;
use self::metrics::Metrics;
use self::spans::Spans;
use crate::output;

/// Variables that name a collector. One of them must be set.
const ENDPOINTS: [&str; 3] = [
    "OTEL_EXPORTER_OTLP_ENDPOINT",
    "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT",
    "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT",
];
/// Maximum time for the last spans and metrics to be sent at the end of a run.
const END_TIME_MAX: Duration = Duration::from_secs(3);
const SERVICE_NAME: &str = "service.name";

/// The traces and metrics of a run.
pub(crate) struct RunTelemetry {
    client: Arc<Client>,
    traces: SdkTracerProvider,
    meters: SdkMeterProvider,
    spans: Spans,
    metrics: Metrics,
}

impl RunTelemetry {
    /// Starts the trace of a run. Returns `None` if the environment names no collector, or one that
    /// cannot be used, which a note says.
    pub(crate) fn start(plan: &Plan) -> Option<Self> {
        let variable = |name: &str| std::env::var(name).unwrap_or_default();
        let is_disabled = variable("OTEL_SDK_DISABLED").eq_ignore_ascii_case("true");
        if is_disabled || ENDPOINTS.iter().all(|name| variable(name).is_empty()) {
            return None;
        }
        let wants = |signal: &str| variable(signal) != "none";
        let started = Client::new().and_then(|client| {
            let client = Arc::new(client);
            let traces = traces(&client, wants("OTEL_TRACES_EXPORTER"))?;
            let meters = meters(&client, wants("OTEL_METRICS_EXPORTER"))?;
            Ok((client, traces, meters))
        });
        match started {
            Ok((client, traces, meters)) => {
                let spans = Spans::start(traces.tracer("greenwave"), plan, SystemTime::now());
                let metrics = Metrics::new(&meters);
                Some(Self { client, traces, meters, spans, metrics })
            }
            Err(error) => {
                output::note(&format!("no telemetry is sent: {}", with_causes(&*error)));
                None
            }
        }
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
        let (traces, meters) = (self.traces.clone(), self.meters.clone());
        let (ended, end) = tokio::sync::oneshot::channel();
        // The end of the program waits for threads of the runtime, and not for this one.
        std::thread::spawn(move || {
            let metrics = std::thread::spawn(move || meters.shutdown_with_timeout(END_TIME_MAX));
            let traces = traces.shutdown_with_timeout(END_TIME_MAX);
            let metrics = metrics.join();
            // The receiver is dropped after the time limit.
            let _ = ended.send(traces.is_ok() && matches!(metrics, Ok(Ok(()))));
        });
        let sent = tokio::time::timeout(END_TIME_MAX, end).await;
        let problem = match (self.client.problem(), sent) {
            (Some(problem), _) => problem,
            (None, Ok(Ok(true))) => return,
            (None, Err(_)) => format!("the collector has not answered within {END_TIME_MAX:?}"),
            (None, _) => "the last data were not sent".to_owned(),
        };
        output::note(&format!("telemetry is incomplete: {problem}"));
    }
}

type BoxError = Box<dyn std::error::Error + Send + Sync>;

fn traces(client: &Arc<Client>, is_wanted: bool) -> Result<SdkTracerProvider, BoxError> {
    let provider = SdkTracerProvider::builder().with_resource(resource());
    if !is_wanted {
        return Ok(provider.build());
    }
    let exporter: Result<SpanExporter, ExporterBuildError> =
        SpanExporter::builder().with_http().with_shared_http_client(Arc::clone(client) as _).build();
    Ok(provider.with_batch_exporter(exporter?).build())
}

fn meters(client: &Arc<Client>, is_wanted: bool) -> Result<SdkMeterProvider, BoxError> {
    let provider = SdkMeterProvider::builder().with_resource(resource());
    if !is_wanted {
        return Ok(provider.build());
    }
    let exporter: Result<MetricExporter, ExporterBuildError> =
        MetricExporter::builder().with_http().with_shared_http_client(Arc::clone(client) as _).build();
    Ok(provider.with_periodic_exporter(exporter?).build())
}

/// Returns the resource of the environment. The name of the service is that of the program, unless
/// the environment names one.
fn resource() -> Resource {
    let resource = Resource::builder().build();
    let name = resource.get(&Key::new(SERVICE_NAME)).map(|name| name.to_string());
    let is_named = name.is_some_and(|name| !name.starts_with("unknown_service"));
    let version = opentelemetry::KeyValue::new("service.version", env!("CARGO_PKG_VERSION"));
    let builder = Resource::builder().with_attribute(version);
    if is_named { builder.build() } else { builder.with_service_name("greenwave").build() }
}

fn with_causes(error: &(dyn std::error::Error + 'static)) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}
