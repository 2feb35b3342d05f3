//! Sends spans and metrics to a collector, as the usual environment variables say.

use std::sync::Arc;
use std::time::Duration;

use opentelemetry::Key;
use opentelemetry::trace::TracerProvider;
use opentelemetry_otlp::{ExporterBuildError, MetricExporter, SpanExporter, WithHttpConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::metrics::SdkMeterProvider;
use opentelemetry_sdk::trace::{SdkTracer, SdkTracerProvider};

use super::client::{BoxError, Client, with_causes};
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

/// A connection to a collector.
#[derive(Debug)]
pub(super) struct Exporter {
    client: Arc<Client>,
    traces: SdkTracerProvider,
    meters: SdkMeterProvider,
}

impl Exporter {
    /// Creates an exporter. Returns `None` if the environment names no collector, or one that
    /// cannot be used, which a note says.
    pub(super) fn start() -> Option<Self> {
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
            Ok(Self { client, traces, meters })
        });
        let failed = |error: &BoxError| {
            output::note(&format!("no telemetry is sent: {}", with_causes(&**error)));
        };
        started.inspect_err(failed).ok()
    }

    /// Returns the tracer of the program.
    pub(super) fn tracer(&self) -> SdkTracer {
        self.traces.tracer("greenwave")
    }

    /// Returns the provider of instruments.
    pub(super) fn meters(&self) -> &SdkMeterProvider {
        &self.meters
    }

    /// Sends the rest within a limited time. Says if data were lost.
    pub(super) async fn finish(self) {
        let Self { client, traces, meters } = self;
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
        let problem = match (client.problem(), sent) {
            (Some(problem), _) => problem,
            (None, Ok(Ok(true))) => return,
            (None, Err(_)) => format!("the collector has not answered within {END_TIME_MAX:?}"),
            (None, _) => "the last data were not sent".to_owned(),
        };
        output::note(&format!("telemetry is incomplete: {problem}"));
    }
}

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
