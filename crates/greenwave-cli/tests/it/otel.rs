//! Traces and metrics of runs, sent to a collector of OpenTelemetry.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::Command;
use std::sync::{Arc, Mutex};

use greenwave_testkit::service::skip;
use serde_json::Value;

use crate::program::{Finished, Program, Running, until};
use crate::shell_plan::{self, ShellFeature};
use crate::test_dir::TestDir;

fn dir() -> TestDir {
    let first = ShellFeature::new("first", "answer first.txt 1", "test -f first.txt");
    let second =
        ShellFeature::new("second", "answer x.txt 1", "test -f second.txt").after("first").attempts(2);
    TestDir::with_project().with("plan.toml", shell_plan::plan(&[first, second]))
}

fn run(dir: &TestDir, variables: &[(&str, &str)]) -> Finished {
    let program = dir.greenwave(["run", "plan.toml", "--format", "json", "--no-metrics"]);
    variables.iter().fold(program, |program, (name, value)| program.variable(name, value)).run().with_code(1)
}

/// Starts the collector that `.ci/run` installs. It prints all spans and metrics.
pub(crate) fn collector() -> Option<(Running, String)> {
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent()?;
    let program = target.join("ci-tools/bin/oteltap");
    if !program.exists() {
        skip("oteltap is not in target/ci-tools");
        return None;
    }
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let mut command = Command::new(program);
    command.args(["--port", &port.to_string()]);
    let mut running = Program::of(command).variable("PYTHONUNBUFFERED", "1").start();
    running.read_until("Listening");
    // It prints that before it listens.
    until("the collector listens", || TcpStream::connect(("127.0.0.1", port)).is_ok());
    Some((running, format!("http://127.0.0.1:{port}")))
}

/// Returns the value of an attribute.
pub(crate) fn attribute(span: &Value, key: &str) -> Option<Value> {
    let attributes = span["attributes"].as_array()?;
    let found = attributes.iter().find(|attribute| attribute["key"] == key)?;
    found["value"].as_object()?.values().next().cloned()
}

/// Returns whether a span has the status of an error.
pub(crate) fn is_error(span: &Value) -> bool {
    [Value::from(2), Value::from("STATUS_CODE_ERROR")].contains(&span["status"]["code"])
}

/// Reads the spans of a run that has ended, and at least one line of its metrics.
pub(crate) fn received(collector: &mut Running) -> (Vec<Value>, Vec<String>) {
    let (mut spans, mut metrics) = (Vec::new(), Vec::new());
    // The run has sent everything. Traces and metrics arrive in any order.
    while !spans.iter().any(|span: &Value| span["name"] == "run") || metrics.is_empty() {
        let line = collector.line().expect("the collector runs");
        let Ok(received) = serde_json::from_str::<Value>(&line) else { continue };
        if received["spanId"].is_string() {
            spans.push(received);
        } else {
            metrics.push(line);
        };
    }
    (spans, metrics)
}

#[test]
fn a_real_collector_receives_the_spans_and_metrics_of_a_run() {
    let Some((mut collector, url)) = collector() else { return };
    run(&dir(), &[("OTEL_EXPORTER_OTLP_ENDPOINT", &url)]);
    let (spans, mut metrics) = received(&mut collector);
    let named = |name: &str| {
        let found: Vec<&Value> = spans.iter().filter(|span| span["name"] == name).collect();
        assert!(!found.is_empty(), "no span {name}: {spans:#?}");
        found
    };
    let parent = |span: &Value| {
        let parent = spans.iter().find(|parent| parent["spanId"] == span["parentSpanId"]);
        parent.and_then(|parent| parent["name"].as_str()).unwrap_or("none").to_owned()
    };
    let run = named("run")[0];
    assert_eq!(parent(run), "none");
    assert!(spans.iter().all(|span| span["traceId"] == run["traceId"]), "{spans:#?}");
    assert_eq!(
        (parent(named("feature first")[0]), parent(named("feature second")[0])),
        ("run".into(), "run".into())
    );
    assert_eq!(parent(named("attempt 2")[0]), "feature second");
    let calls: Vec<String> = named("invoke_agent second").into_iter().map(parent).collect();
    assert_eq!(calls, ["attempt 1", "attempt 2"]);
    let call = named("invoke_agent first")[0];
    assert_eq!(attribute(call, "gen_ai.operation.name"), Some("invoke_agent".into()));
    assert_eq!(attribute(call, "gen_ai.agent.name"), Some("first".into()));
    let test = named("test first").into_iter().find(|test| parent(test) == "attempt 1").expect("a test");
    assert_eq!(attribute(test, "test.case.result.status"), Some("pass".into()));
    assert!(is_error(named("feature second")[0]), "{:#}", named("feature second")[0]);
    assert!(!is_error(named("feature first")[0]), "{:#}", named("feature first")[0]);
    assert!(spans.iter().all(|span| span["endTimeUnixNano"].as_str() >= span["startTimeUnixNano"].as_str()));
    // Metrics arrive in one request.
    while !metrics.iter().any(|line| line.contains("gen_ai.client.operation.duration")) {
        metrics.push(collector.line().expect("the collector runs"));
    }
}

/// A collector that keeps the requests, each with its head and its body.
fn keeper() -> (String, Arc<Mutex<Vec<Vec<u8>>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let (url, kept) = (format!("http://{}", listener.local_addr().unwrap()), Arc::default());
    let requests: Arc<Mutex<Vec<Vec<u8>>>> = Arc::clone(&kept);
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let mut reader = BufReader::new(stream);
            let (mut request, mut length) = (Vec::new(), 0);
            loop {
                let mut line = String::new();
                reader.read_line(&mut line).unwrap();
                let value = line.to_lowercase();
                if let Some(value) = value.strip_prefix("content-length: ") {
                    length = value.trim().parse().unwrap();
                }
                request.extend_from_slice(line.as_bytes());
                if line.trim().is_empty() {
                    break;
                }
            }
            let mut body = vec![0; length];
            reader.read_exact(&mut body).unwrap();
            request.extend(body);
            requests.lock().unwrap().push(request);
            let answer = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
            reader.get_mut().write_all(answer.as_bytes()).unwrap();
        }
    });
    (url, kept)
}

fn contains(bytes: &[u8], text: &str) -> bool {
    bytes.windows(text.len()).any(|window| window == text.as_bytes())
}

#[test]
fn headers_and_the_name_of_the_service_are_those_of_the_environment() {
    let (url, requests) = keeper();
    let variables = [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", url.as_str()),
        ("OTEL_EXPORTER_OTLP_HEADERS", "x-api-key=abc"),
        ("OTEL_SERVICE_NAME", "my-service"),
    ];
    let finished = run(&dir(), &variables);
    assert!(!finished.stderr.contains("telemetry"), "{}", finished.stderr);
    let sent = std::mem::take(&mut *requests.lock().unwrap());
    for path in ["POST /v1/traces ", "POST /v1/metrics "] {
        let request = sent.iter().find(|request| request.starts_with(path.as_bytes())).expect(path);
        assert!(contains(request, "x-api-key: abc"), "{path}");
        assert!(contains(request, "my-service"), "{path}");
    }
    // Without a name, it is that of the program.
    run(
        &dir(),
        &[("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", &format!("{url}/t")), ("OTEL_METRICS_EXPORTER", "none")],
    );
    let sent = requests.lock().unwrap();
    assert!(sent.iter().all(|request| request.starts_with(b"POST /t ")), "{}", sent.len());
    assert!(sent.iter().any(|request| contains(request, "service.name") && contains(request, "greenwave")));
}

#[test]
fn nothing_is_sent_unless_the_environment_names_a_collector() {
    let (url, requests) = keeper();
    run(&dir(), &[("OTEL_EXPORTER_OTLP_ENDPOINT", &url), ("OTEL_SDK_DISABLED", "true")]);
    run(&dir(), &[("OTEL_EXPORTER_OTLP_ENDPOINT", ""), ("OTEL_SERVICE_NAME", "a")]);
    assert_eq!(requests.lock().unwrap().len(), 0);
}

#[test]
fn a_collector_that_is_not_there_is_said_once_and_fails_no_run() {
    let finished = run(&dir(), &[("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1")]);
    let said = finished.stderr.matches("telemetry").count();
    assert_eq!(said, 1, "{}", finished.stderr);
    assert!(finished.stderr.contains("telemetry is incomplete: cannot send to http://127.0.0.1:1/"));
    let invalid = run(&dir(), &[("OTEL_EXPORTER_OTLP_ENDPOINT", "no url at all")]);
    assert_eq!(invalid.stderr.matches("telemetry").count(), 1, "{}", invalid.stderr);
}

#[test]
fn a_collector_that_hangs_ends_with_the_run() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    // It accepts connections, since the kernel does, and never answers.
    let finished = run(&dir(), &[("OTEL_EXPORTER_OTLP_ENDPOINT", &url)]);
    let expected = "telemetry is incomplete: the collector has not answered within 3s";
    assert!(finished.stderr.contains(expected), "{}", finished.stderr);
    drop(listener);
}
