//! Tests of the formats of Prometheus: as text, with its own checker, and with a real server.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use greenwave_telemetry::{
    CacheMetrics, Histogram, MetricFamily, MetricsEndpoint, MetricsServer, MetricsSnapshot, ParallelMetrics,
};
use greenwave_testkit::server::Server;
use greenwave_testkit::service;

use crate::{any_port, get, send};

const BOUNDS: [f64; 2] = [0.5, 2.0];

/// Returns a snapshot with a metric of each kind.
fn snapshot() -> MetricsSnapshot {
    let turns = Histogram::new(&BOUNDS);
    for milliseconds in [100, 500, 501, 2000, 60_000] {
        turns.observe(Duration::from_millis(milliseconds));
    }
    MetricsSnapshot {
        cache: CacheMetrics::new(3, 1),
        parallel: ParallelMetrics::new(4, 12, 0.725),
        families: vec![
            MetricFamily::gauge("run_info", "The plan.").sample(&[("plan", "a \"b\"\\\nc")], 1.0),
            MetricFamily::counter("wait_seconds", "Time with a \"quote\" and a \\.").sample(&[], 1.5),
            MetricFamily::histogram("turn_duration_seconds", "Turns.")
                .observed(&[("agent", "x")], turns.snapshot()),
            MetricFamily::gauge("empty", "A family without samples."),
            MetricFamily::gauge("odd", "Values that are no numbers.")
                .sample(&[("sign", "plus")], f64::INFINITY)
                .sample(&[("sign", "minus")], f64::NEG_INFINITY)
                .sample(&[("sign", "none")], f64::NAN),
        ],
        ..MetricsSnapshot::default()
    }
}

async fn serve() -> MetricsServer {
    MetricsEndpoint::bind(any_port()).await.unwrap().serve(snapshot)
}

/// Returns the head and the body of a response to a client that accepts a format.
async fn scrape(server: &MetricsServer, accept: &str) -> (String, String) {
    let request = format!("GET /metrics HTTP/1.1\r\nHost: localhost\r\nAccept: {accept}\r\n");
    let response = send(server.address(), &request).await;
    let (head, body) = response.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 200"), "{head}");
    (head.to_lowercase(), body.to_owned())
}

#[tokio::test]
async fn text_has_every_metric() {
    let (head, body) = scrape(&serve().await, "text/plain").await;
    assert!(head.contains("content-type: text/plain; version=0.0.4; charset=utf-8"), "{head}");
    assert!(head.contains("vary: accept"), "{head}");
    let cache = "# TYPE greenwave_cache_hits_total counter\n\
                 # HELP greenwave_cache_hits_total Cache lookups that hit.\n\
                 greenwave_cache_hits_total 3\n";
    assert!(body.starts_with(cache), "{body}");
    let own = &body[body.find("# TYPE run_info").unwrap()..];
    let expected = r#"# TYPE run_info gauge
# HELP run_info The plan.
run_info{plan="a \"b\"\\\nc"} 1
# TYPE wait_seconds_total counter
# HELP wait_seconds_total Time with a "quote" and a \\.
wait_seconds_total 1.5
# TYPE turn_duration_seconds histogram
# HELP turn_duration_seconds Turns.
turn_duration_seconds_bucket{agent="x",le="0.5"} 2
turn_duration_seconds_bucket{agent="x",le="2.0"} 4
turn_duration_seconds_bucket{agent="x",le="+Inf"} 5
turn_duration_seconds_sum{agent="x"} 63.101
turn_duration_seconds_count{agent="x"} 5
# TYPE odd gauge
# HELP odd Values that are no numbers.
odd{sign="plus"} +Inf
odd{sign="minus"} -Inf
odd{sign="none"} NaN
"#;
    assert_eq!(own, expected);
}

#[tokio::test]
async fn open_metrics_have_units_and_an_end() {
    let server = serve().await;
    let (head, body) = scrape(&server, "application/openmetrics-text; version=1.0.0").await;
    assert!(head.contains("content-type: application/openmetrics-text; version=1.0.0; charset=utf-8"));
    assert!(body.ends_with("\n# EOF\n"), "{body}");
    let wait = "# TYPE wait_seconds counter\n\
                # UNIT wait_seconds seconds\n\
                # HELP wait_seconds Time with a \\\"quote\\\" and a \\\\.\n\
                wait_seconds_total 1.5\n";
    assert!(body.contains(wait), "{body}");
    // The JSON does not contain the families.
    assert!(!get(server.address(), "/metrics").await.contains("wait_seconds"));
}

#[test]
fn a_histogram_counts_from_several_threads() {
    let histogram = Arc::new(Histogram::default());
    let threads = (0..4).map(|_| {
        let histogram = Arc::clone(&histogram);
        std::thread::spawn(move || (0..1000).for_each(|_| histogram.observe(Duration::from_millis(250))))
    });
    threads.collect::<Vec<_>>().into_iter().for_each(|thread| thread.join().unwrap());
    let snapshot = histogram.snapshot();
    assert_eq!((snapshot.count(), snapshot.sum()), (4000, 1000.0));
    let counts: Vec<(f64, u64)> = snapshot.cumulative().filter(|(_, count)| *count > 0).take(1).collect();
    assert_eq!(counts, [(0.25, 4000)], "the bound is inclusive");
}

#[test]
fn extreme_durations_are_counted() {
    let histogram = Histogram::new(&[]);
    for duration in [Duration::ZERO, Duration::MAX, Duration::MAX] {
        histogram.observe(duration);
    }
    let snapshot = histogram.snapshot();
    assert_eq!(snapshot.cumulative().collect::<Vec<_>>(), [(f64::INFINITY, 3)]);
    assert!(snapshot.sum() >= 1.8e10, "{}", snapshot.sum());
}

#[test]
fn invalid_names_are_refused() {
    let panics = |make: fn() -> MetricFamily| std::panic::catch_unwind(make).is_err();
    assert!(panics(|| MetricFamily::gauge("", "")));
    assert!(panics(|| MetricFamily::gauge("1a", "")));
    assert!(panics(|| MetricFamily::gauge("a b", "")));
    assert!(panics(|| MetricFamily::counter("a_total", "")));
    assert!(panics(|| MetricFamily::gauge("a", "").sample(&[("b:c", "")], 1.0)));
    assert!(panics(|| MetricFamily::gauge("a", "").sample(&[("le", "")], 1.0)));
    assert!(panics(|| MetricFamily::histogram("a", "").sample(&[], 1.0)));
    assert!(std::panic::catch_unwind(|| Histogram::new(&[2.0, 1.0])).is_err());
    assert!(!panics(|| MetricFamily::gauge("a:b_1", "").sample(&[("c_1", "")], 1.0)));
}

/// `promtool check metrics` also complains about names that break the conventions.
#[tokio::test]
async fn the_checker_of_prometheus_has_no_complaint() {
    let (_, body) = scrape(&serve().await, "text/plain").await;
    let spawned = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let Ok(mut checker) = spawned else { return service::skip("promtool is not installed") };
    checker.stdin.take().unwrap().write_all(body.as_bytes()).unwrap();
    let output = checker.wait_with_output().unwrap();
    let complaints = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success() && complaints.is_empty(), "{complaints}\n{body}");
}

/// Returns the response of Prometheus to a call of its API; `null` while it is starting.
fn api(port: u16, path: &str, parameter: &str) -> serde_json::Value {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    let encoded: String = parameter.bytes().map(|byte| format!("%{byte:02x}")).collect();
    write!(stream, "GET /api/v1/{path}={encoded} HTTP/1.0\r\n\r\n").unwrap();
    let mut response = String::new();
    stream.read_to_string(&mut response).unwrap();
    let (_, body) = response.split_once("\r\n\r\n").unwrap();
    serde_json::from_str(body).unwrap_or_default()
}

/// Returns the value of a query that has a single one.
fn query(port: u16, query: &str) -> Option<f64> {
    let result = api(port, "query?query", query);
    assert_eq!(result["status"], "success", "{query}: {result}");
    result["data"]["result"][0]["value"][1].as_str().map(|value| value.parse().unwrap())
}

/// Returns the queries of the board for Grafana, with values for its variables.
fn board_queries() -> Vec<String> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/grafana.json");
    let board: serde_json::Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    let targets = board["panels"].as_array().unwrap().iter().flat_map(|it| it["targets"].as_array().unwrap());
    let queries: Vec<String> = targets
        .map(|target| target["expr"].as_str().unwrap())
        .map(|query| query.replace("$instance", ".*").replace("$__rate_interval", "1m"))
        .collect();
    assert!(queries.len() >= 20, "{queries:?}");
    queries
}

fn add_target(prometheus: &Server, address: SocketAddr) {
    let targets = serde_json::json!([{"targets": [address.to_string()]}]);
    std::fs::write(prometheus.directory().join("targets.json"), targets.to_string()).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn prometheus_scrapes_every_kind_of_metric() {
    let Some(prometheus) = Server::prometheus() else { return };
    let (server, port) = (serve().await, prometheus.port());
    add_target(&prometheus, server.address());
    let started = Instant::now();
    while api(port, "query?query", "odd")["data"]["result"][2].is_null() {
        assert!(started.elapsed() < Duration::from_secs(30), "{}", api(port, "targets?state", "active"));
        std::thread::sleep(Duration::from_millis(50));
    }
    for (expression, expected) in [
        ("up", 1.0),
        ("greenwave_workers_busy", 4.0),
        ("greenwave_cache_hits_total / (greenwave_cache_hits_total + greenwave_cache_misses_total)", 0.75),
        ("wait_seconds_total", 1.5),
        ("turn_duration_seconds_count{agent=\"x\"}", 5.0),
        ("turn_duration_seconds_bucket{le=\"2.0\"}", 4.0),
        ("histogram_quantile(0.4, turn_duration_seconds_bucket)", 0.5),
        ("run_info{plan=\"a \\\"b\\\"\\\\\\nc\"}", 1.0),
        ("odd{sign=\"plus\"}", f64::INFINITY),
    ] {
        assert_eq!(query(port, expression), Some(expected), "{expression}");
    }
    for expression in board_queries() {
        let answer = api(port, "query?query", &expression);
        assert_eq!(answer["status"], "success", "{expression}: {answer}");
    }
    // Only OpenMetrics has units.
    let metadata = api(port, "targets/metadata?metric", "turn_duration_seconds");
    assert_eq!(metadata["data"][0]["unit"], "seconds", "{metadata}");
    assert_eq!(metadata["data"][0]["type"], "histogram", "{metadata}");
}
