//! Turns the events of a run into spans: the run, its features, their attempts, requests to agents
//! and tests.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use greenwave::{Event, Plan, Report};
use opentelemetry::trace::{SpanBuilder, SpanKind, Status, TraceContextExt, Tracer};
use opentelemetry::{Context, KeyValue};
use opentelemetry_sdk::trace::SdkTracer;

/// The operation of a request to an agent, in the semantic conventions for generative AI.
pub(super) const INVOKE_AGENT: &str = "invoke_agent";
/// Maximum length of a reason in characters. `greenwave attempts` shows all of it.
const REASON_CHARS_MAX: usize = 500;

/// The open spans of a run.
pub(super) struct Spans {
    tracer: SdkTracer,
    run: Context,
    features: BTreeMap<String, Feature>,
    /// The agent of each feature.
    agents: BTreeMap<String, Agents>,
}

/// The names of a feature's agents.
struct Agents {
    code: String,
    tests: Option<String>,
    review: Option<String>,
}

/// The open spans of a feature.
struct Feature {
    span: Context,
    attempt: Option<(u32, Context)>,
    /// A request to an agent: its name, its span and its start.
    call: Option<(String, Context, SystemTime)>,
}

impl Spans {
    /// Starts the trace of a run.
    pub(super) fn start(tracer: SdkTracer, plan: &Plan, at: SystemTime) -> Self {
        let span = SpanBuilder::from_name("run")
            .with_start_time(at)
            .with_attributes([KeyValue::new("greenwave.plan", plan.name.clone())]);
        let run = Context::new().with_span(tracer.build_with_context(span, &Context::new()));
        let agents = plan.features.iter().map(|feature| {
            let agents = Agents {
                code: feature.agent.clone(),
                tests: feature.test_agent.as_ref().map(|agent| agent.agent.clone()),
                review: feature.reviewer.clone(),
            };
            (feature.id.clone(), agents)
        });
        Self { tracer, run, features: BTreeMap::new(), agents: agents.collect() }
    }

    /// Returns the features and their agents.
    pub(super) fn agents(&self) -> impl Iterator<Item = (&str, &str)> {
        self.agents.iter().map(|(feature, agents)| (feature.as_str(), agents.code.as_str()))
    }

    /// Adds an event. Returns the agent and the duration of a request that has ended with it.
    pub(super) fn event(&mut self, event: &Event, at: SystemTime) -> Option<(String, Duration)> {
        let feature = feature_of(event)?;
        // Events of a feature follow the answer of its agent.
        let called = self.end_call(feature, at);
        match event {
            Event::Phase { phase, attempt, .. } => self.phase(feature, phase, *attempt, at),
            Event::Tests { test, phase, status, cached, seconds, .. } => {
                let seconds = if *cached { 0.0 } else { *seconds };
                let start = at.checked_sub(Duration::try_from_secs_f64(seconds).unwrap_or_default());
                let attributes = [
                    KeyValue::new("test.case.name", test.clone()),
                    KeyValue::new(
                        "test.case.result.status",
                        if status == "passed" { "pass" } else { "fail" },
                    ),
                    KeyValue::new("greenwave.status", status.clone()),
                    KeyValue::new("greenwave.phase", *phase),
                    KeyValue::new("greenwave.cached", *cached),
                ];
                let span =
                    SpanBuilder::from_name(format!("test {test}")).with_start_time(start.unwrap_or(at));
                let parent = self.innermost(feature, at);
                let span = self.tracer.build_with_context(span.with_attributes(attributes), &parent);
                parent.with_span(span).span().end_with_timestamp(at);
            }
            Event::Fallback { agent, .. } => {
                if let Some(agents) = self.agents.get_mut(feature) {
                    agents.code.clone_from(agent);
                }
            }
            Event::Refused { reason, .. } => {
                let status = Status::error(shortened(reason));
                self.innermost(feature, at).span().set_status(status);
            }
            Event::Failed { reason, .. } => self.end_feature(feature, Some(reason), at),
            Event::Skipped { because, .. } => {
                self.end_feature(feature, Some(&format!("depends on {because}")), at);
            }
            Event::UpToDate { .. } | Event::Adopted { .. } => self.end_feature(feature, None, at),
            Event::Waiting { reason, .. } | Event::NeedsYou { reason, .. } => {
                let reason = KeyValue::new("greenwave.reason", shortened(reason));
                self.innermost(feature, at).span().add_event_with_timestamp("waiting", at, vec![reason]);
            }
            _ => {}
        }
        called
    }

    /// Ends all spans, with the usage of each feature and of the run.
    pub(super) fn finish(&mut self, report: Option<&Report>, at: SystemTime) {
        let open: Vec<String> = self.features.keys().cloned().collect();
        for feature in open {
            self.end_call(&feature, at);
            self.end_feature(&feature, None, at);
        }
        if let Some(report) = report {
            let usage = report.totals.usage;
            self.run.span().set_attributes([
                number("gen_ai.usage.input_tokens", usage.input_tokens),
                number("gen_ai.usage.output_tokens", usage.output_tokens),
                number("greenwave.tests.run", report.totals.tests_run.into()),
                number("greenwave.tests.cached", report.totals.tests_cached.into()),
            ]);
            if !report.all_green() {
                self.run.span().set_status(Status::error("some features are not green"));
            }
        } else {
            self.run.span().set_status(Status::error("stopped"));
        }
        self.run.span().end_with_timestamp(at);
    }

    fn phase(&mut self, id: &str, phase: &str, attempt: u32, at: SystemTime) {
        self.feature(id, at).span.span().add_event_with_timestamp(
            format!("phase {phase}"),
            at,
            vec![number("greenwave.attempt", attempt.into())],
        );
        let is_other = |(number, _): &(u32, Context)| *number != attempt;
        if let Some((_, span)) = self.feature(id, at).attempt.take_if(|it| is_other(it)) {
            span.span().end_with_timestamp(at);
        }
        if attempt > 0 && phase != "green" && self.feature(id, at).attempt.is_none() {
            let span = SpanBuilder::from_name(format!("attempt {attempt}"))
                .with_start_time(at)
                .with_attributes([number("greenwave.attempt", attempt.into())]);
            let parent = self.feature(id, at).span.clone();
            let span = parent.with_span(self.tracer.build_with_context(span, &parent));
            self.feature(id, at).attempt = Some((attempt, span));
        }
        let agents = self.agents.get(id);
        let agent = agents.and_then(|agents| match phase {
            "yellow" => Some(agents.code.clone()),
            "tests" => agents.tests.clone(),
            "review" => agents.review.clone(),
            _ => None,
        });
        if let Some(agent) = agent {
            self.begin_call(id, agent, at);
        }
        if phase == "green" {
            self.end_feature(id, None, at);
        }
    }

    fn begin_call(&mut self, id: &str, agent: String, at: SystemTime) {
        let span = SpanBuilder::from_name(format!("{INVOKE_AGENT} {agent}"))
            .with_kind(SpanKind::Client)
            .with_start_time(at)
            .with_attributes([
                KeyValue::new("gen_ai.operation.name", INVOKE_AGENT),
                KeyValue::new("gen_ai.agent.name", agent.clone()),
            ]);
        let parent = self.innermost(id, at);
        let span = parent.with_span(self.tracer.build_with_context(span, &parent));
        self.feature(id, at).call = Some((agent, span, at));
    }

    fn end_call(&mut self, id: &str, at: SystemTime) -> Option<(String, Duration)> {
        let (agent, span, start) = self.features.get_mut(id)?.call.take()?;
        span.span().end_with_timestamp(at);
        Some((agent, at.duration_since(start).unwrap_or_default()))
    }

    fn end_feature(&mut self, id: &str, problem: Option<&str>, at: SystemTime) {
        self.feature(id, at);
        let Some(feature) = self.features.remove(id) else { return };
        if let Some(problem) = problem {
            feature.span.span().set_status(Status::error(shortened(problem)));
        }
        if let Some((_, attempt)) = feature.attempt {
            attempt.span().end_with_timestamp(at);
        }
        feature.span.span().end_with_timestamp(at);
    }

    /// Returns the spans of a feature. Starts them with its first event.
    fn feature(&mut self, id: &str, at: SystemTime) -> &mut Feature {
        let (tracer, run) = (&self.tracer, &self.run);
        self.features.entry(id.to_owned()).or_insert_with(|| {
            let span = SpanBuilder::from_name(format!("feature {id}"))
                .with_start_time(at)
                .with_attributes([KeyValue::new("greenwave.feature", id.to_owned())]);
            let span = run.with_span(tracer.build_with_context(span, run));
            Feature { span, attempt: None, call: None }
        })
    }

    /// Returns the span of a feature's attempt, or that of the feature.
    fn innermost(&mut self, id: &str, at: SystemTime) -> Context {
        let feature = self.feature(id, at);
        feature.attempt.as_ref().map_or(&feature.span, |(_, span)| span).clone()
    }
}

/// Returns the feature that an event is about. Notes do not end a request to an agent.
fn feature_of(event: &Event) -> Option<&str> {
    match event {
        Event::UpToDate { feature }
        | Event::Adopted { feature }
        | Event::Phase { feature, .. }
        | Event::File { feature, .. }
        | Event::NotTaken { feature, .. }
        | Event::Tests { feature, .. }
        | Event::Waiting { feature, .. }
        | Event::Fallback { feature, .. }
        | Event::Reviewed { feature, .. }
        | Event::TestsWritten { feature, .. }
        | Event::NeedsYou { feature, .. }
        | Event::Refused { feature, .. }
        | Event::Merged { feature, .. }
        | Event::Failed { feature, .. }
        | Event::Skipped { feature, .. } => Some(feature),
        _ => None,
    }
}

/// Returns an attribute with a number.
pub(super) fn number(key: &'static str, value: u64) -> KeyValue {
    KeyValue::new(key, i64::try_from(value).unwrap_or(i64::MAX))
}

fn shortened(text: &str) -> String {
    let mut short: String = text.chars().take(REASON_CHARS_MAX).collect();
    if short.len() < text.len() {
        short.push('…');
    }
    short
}
