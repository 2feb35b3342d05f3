//! Turns the parts of a run of tests into spans and metrics.

use std::path::Path;
use std::time::{Duration, SystemTime};

use greenwave_testing::{CaseReport, CaseStatus, SuiteReport};
use opentelemetry::metrics::{Counter, Histogram, MeterProvider};
use opentelemetry::trace::{SpanBuilder, Status, TraceContextExt, Tracer};
use opentelemetry::{Context, KeyValue};
use opentelemetry_sdk::trace::SdkTracer;

use super::exporter::Exporter;
use super::metrics::{count, seconds};
use super::spans::number;
use crate::test_timeline::{Ended, Part, TestPart};

/// Maximum number of cached results with a span. Their lookup ends at once, and more would not fit
/// into the queue. The numbers are complete.
const CACHED_SPANS_MAX: usize = 1_000;
/// Maximum number of single tests of a test that are events of its span: the usual limit of the
/// specification.
const CASES_MAX: usize = 128;

/// The trace and the metrics of a run of tests.
#[derive(Debug)]
pub(crate) struct TestTelemetry {
    exporter: Exporter,
    tracer: SdkTracer,
    run: Context,
    started: SystemTime,
    cached_spans: usize,
    metrics: TestMetrics,
}

impl TestTelemetry {
    /// Starts the trace of a run that has taken this long. Returns `None` if the environment names
    /// no collector that can be used.
    pub(crate) fn start(project: &Path, elapsed: Duration) -> Option<Self> {
        let exporter = Exporter::start()?;
        let now = SystemTime::now();
        let started = now.checked_sub(elapsed).unwrap_or(now);
        let name = project.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let span = SpanBuilder::from_name("run")
            .with_start_time(started)
            .with_attributes([KeyValue::new("greenwave.project", name)]);
        let tracer = exporter.tracer();
        let run = Context::new().with_span(tracer.build_with_context(span, &Context::new()));
        let metrics = TestMetrics::new(exporter.meters());
        Some(Self { exporter, tracer, run, started, cached_spans: 0, metrics })
    }

    /// Adds a part that has ended.
    pub(crate) fn add(&mut self, ended: &Ended<'_>) {
        self.metrics.add(ended);
        let (name, attributes, problem) = match &ended.part {
            Part::Loading => ("discover".to_owned(), Vec::new(), None),
            Part::Lookup { cached, running } => {
                let numbers = [("greenwave.tests.cached", *cached), ("greenwave.tests.to_run", *running)];
                let numbers = numbers.map(|(key, value)| number(key, value as u64));
                ("look up".to_owned(), numbers.to_vec(), None)
            }
            Part::Build { directory, succeeded } => {
                let problem = (!succeeded).then(|| "the programs could not be built".to_owned());
                let directory_of = KeyValue::new("greenwave.directory", directory.clone());
                (format!("build {directory}"), vec![directory_of], problem)
            }
            Part::Test(test) => {
                self.cached_spans += usize::from(test.cached);
                if test.cached && self.cached_spans > CACHED_SPANS_MAX {
                    return;
                }
                let problem = (!test.passed).then(|| test.status.clone());
                (format!("test {}", test.name), attributes(test), problem)
            }
        };
        let span = SpanBuilder::from_name(name).with_start_time(self.started + ended.start);
        let span = self.tracer.build_with_context(span.with_attributes(attributes), &self.run);
        let span = self.run.with_span(span);
        if let Part::Test(test) = &ended.part {
            add_cases(&span, &test.cases, self.started + ended.end);
        }
        if let Some(problem) = problem {
            span.span().set_status(Status::error(problem));
        }
        span.span().end_with_timestamp(self.started + ended.end);
    }

    /// Ends the trace, and sends the rest within a limited time. Says if data were lost.
    pub(crate) async fn finish(self, report: Option<&SuiteReport>) {
        let Some(report) = report else {
            self.run.span().set_status(Status::error("stopped"));
            return self.end().await;
        };
        let results = || report.results.iter().flatten();
        let is_passed = |result: &Result<greenwave_testing::Outcome, _>| {
            result.as_ref().is_ok_and(greenwave_testing::Outcome::passed)
        };
        let cached = results().flatten().filter(|outcome| outcome.is_cached()).count();
        let failed = results().filter(|result| !is_passed(result)).count();
        self.summarise([results().count(), cached, failed], report.saved);
        if failed > 0 {
            self.run.span().set_status(Status::error("some tests have failed"));
        }
        self.end().await;
    }

    /// Ends the trace of a run in which all results were cached, and none was looked up.
    pub(crate) async fn finish_up_to_date(self, tests: usize, saved: Duration) {
        self.metrics.add_cached(tests);
        self.summarise([tests, tests, 0], saved);
        self.end().await;
    }

    fn summarise(&self, [all, cached, failed]: [usize; 3], saved: Duration) {
        let numbers = [
            ("greenwave.tests.selected", all),
            ("greenwave.tests.cached", cached),
            ("greenwave.tests.failed", failed),
        ];
        let span = self.run.span();
        span.set_attributes(numbers.map(|(key, value)| number(key, value as u64)));
        span.set_attribute(KeyValue::new("greenwave.saved_seconds", saved.as_secs_f64()));
        self.metrics.saved.add(saved.as_secs_f64(), &[]);
    }

    async fn end(self) {
        self.run.span().end();
        self.exporter.finish().await;
    }
}

fn attributes(test: &TestPart<'_>) -> Vec<KeyValue> {
    let mut attributes = vec![
        KeyValue::new("test.case.name", test.name.to_owned()),
        KeyValue::new("test.case.result.status", result_of(test)),
        KeyValue::new("greenwave.status", test.status.clone()),
        KeyValue::new("greenwave.runner", test.runner.to_owned()),
        KeyValue::new("greenwave.cached", test.cached),
        number("greenwave.attempts", test.attempts.into()),
        number("greenwave.cases", test.cases.len() as u64),
    ];
    let reason = test.not_stored.clone();
    attributes.extend(reason.map(|reason| KeyValue::new("greenwave.not_stored", reason)));
    attributes
}

/// Adds the single tests of a test as events, failures first.
fn add_cases(span: &Context, cases: &[CaseReport], at: SystemTime) {
    let is_failed = |case: &&CaseReport| case.status == CaseStatus::Failed;
    let failed = cases.iter().filter(is_failed);
    for case in failed.chain(cases.iter().filter(|case| !is_failed(case))).take(CASES_MAX) {
        let status = match case.status {
            CaseStatus::Passed => "pass",
            CaseStatus::Failed => "fail",
            CaseStatus::Skipped => "skip",
        };
        let mut attributes = vec![
            KeyValue::new("test.case.name", case.name.clone()),
            KeyValue::new("test.case.result.status", status),
        ];
        let seconds = case.duration.map(|duration| duration.as_secs_f64());
        attributes.extend(seconds.map(|seconds| KeyValue::new("greenwave.seconds", seconds)));
        span.span().add_event_with_timestamp("case", at, attributes);
    }
}

fn result_of(test: &TestPart<'_>) -> &'static str {
    if test.passed { "pass" } else { "fail" }
}

/// The metrics of a run of tests, with bounded labels: no names of tests.
#[derive(Debug)]
struct TestMetrics {
    tests: Counter<u64>,
    duration: Histogram<f64>,
    builds: Histogram<f64>,
    saved: Counter<f64>,
}

impl TestMetrics {
    fn new(provider: &impl MeterProvider) -> Self {
        let meter = provider.meter("greenwave");
        let saved = meter.f64_counter("greenwave.saved").with_unit("s");
        Self {
            tests: count(&meter, "greenwave.tests", "{test}", "Results of test commands"),
            duration: seconds(&meter, "greenwave.test.duration", "Duration of test commands that ran"),
            builds: seconds(&meter, "greenwave.build.duration", "Duration of builds of test programs"),
            saved: saved.with_description("Time that cached results have saved").build(),
        }
    }

    fn add(&self, ended: &Ended<'_>) {
        let result = |result: &'static str| KeyValue::new("test.case.result.status", result);
        match &ended.part {
            Part::Test(test) => {
                let labels = [result(result_of(test)), KeyValue::new("cached", test.cached)];
                self.tests.add(1, &labels);
                if !test.cached {
                    self.duration.record(test.duration.as_secs_f64(), &labels[..1]);
                }
            }
            Part::Build { succeeded, .. } => {
                let duration = ended.end.saturating_sub(ended.start);
                self.builds.record(duration.as_secs_f64(), &[KeyValue::new("succeeded", *succeeded)]);
            }
            Part::Loading | Part::Lookup { .. } => {}
        }
    }

    /// Adds tests with a cached pass.
    fn add_cached(&self, tests: usize) {
        let labels = [KeyValue::new("test.case.result.status", "pass"), KeyValue::new("cached", true)];
        self.tests.add(tests as u64, &labels);
    }
}
