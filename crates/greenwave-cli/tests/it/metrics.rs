//! The live figures, asked for while a run is at work.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::Duration;

use insta::assert_snapshot;
use serde_json::Value;

use crate::folder::Folder;
use crate::program::until;
use crate::sketch::{self, Report, Sketch};

/// One request, and the whole response.
fn get(address: &str, path: &str) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n").unwrap();
    let mut response = String::new();
    stream.read_to_string(&mut response).unwrap();
    response
}

fn figures(address: &str) -> Value {
    let response = get(address, "/metrics");
    let (head, body) = response.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 200 OK"), "{head}");
    assert!(head.to_lowercase().contains("content-type: application/json"), "{head}");
    serde_json::from_str(body).unwrap()
}

fn keys(value: &Value) -> Vec<&str> {
    value.as_object().unwrap().keys().map(String::as_str).collect()
}

#[test]
fn figures_are_live() {
    let folder = Folder::with_project();
    let here = folder.path("").display().to_string();
    // Each waits until the test says go on; `w` leaves off in the end whatever happens.
    let wait =
        |name: &str| format!("for w in $(seq 3000); do test -e {here}{name} && break; sleep 0.01; done");
    let asking = Sketch::new("one", &format!("{}; answer one.txt 1", wait("answer")), "test -f one.txt");
    let test = format!("test -f two.txt || exit 1; {}", wait("pass"));
    let testing = Sketch::new("two", "answer two.txt 2", &test);
    folder.write("plan.toml", sketch::plan(&[asking, testing]));
    let args = ["run", "plan.toml", "--format", "json", "--metrics-port", "0"];
    let mut running = folder.greenwave(args).start();
    let settings: Value = serde_json::from_str(&running.read_until("settings")).unwrap();
    let url = settings["metrics"].as_str().unwrap();
    let address = url.strip_prefix("http://").unwrap().strip_suffix("/metrics").unwrap();
    assert!(address.starts_with("127.0.0.1:"), "{address}");

    until("an agent is asked and a test runs", || {
        let now = figures(address);
        now["run"]["requests_in_flight"] == 1 && now["parallel"]["active_workers"] == 1
    });
    let busy = figures(address);
    assert_eq!(keys(&busy["cache"]), ["hit_rate", "total_hits", "total_misses"]);
    assert_eq!(keys(&busy["parallel"]), ["active_workers", "efficiency", "queue_depth"]);
    assert_eq!(keys(&busy["memory"]), ["peak_mb", "spillover_active", "used_mb"]);
    let misses = busy["cache"]["total_misses"].as_u64().unwrap();
    assert!(misses >= 2, "the tests were run before there was any code: {busy}");
    assert!(busy["memory"]["used_mb"].as_u64().unwrap() > 0);
    assert!(busy["memory"]["peak_mb"].as_u64() >= busy["memory"]["used_mb"].as_u64());
    assert_eq!(busy["memory"]["spillover_active"], false);
    let percent = |value: &Value| (0.0..=100.0).contains(&value.as_f64().unwrap());
    assert!(percent(&busy["cache"]["hit_rate"]) && percent(&busy["parallel"]["efficiency"]));
    assert_eq!((&busy["run"]["features"], &busy["run"]["green"]), (&2.into(), &0.into()));

    folder.write("pass", "");
    until("one feature is green", || figures(address)["run"]["green"] == 1);
    let later = figures(address);
    assert_eq!(later["parallel"]["active_workers"], 0);
    assert!(later["cache"]["total_hits"].as_u64().unwrap() >= 1, "the merge knew the result: {later}");
    assert!(get(address, "/nothing").starts_with("HTTP/1.1 404"));
    folder.write("answer", "");
    let finished = running.finish().with_code(0);
    assert_eq!(Report::of(&finished).phases(), [("one", "green"), ("two", "green")]);
}

#[test]
fn a_taken_port_is_named() {
    let other = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = other.local_addr().unwrap().port().to_string();
    let plan = sketch::plan(&[Sketch::new("one", "answer one.txt 1", "test -f one.txt")]);
    let folder = Folder::with_project().with("plan.toml", plan);
    let finished = folder.greenwave(["run", "plan.toml", "--metrics-port", &port]).run().with_code(2);
    assert_eq!(finished.stdout, "");
    assert_snapshot!(finished.stderr.replace(&port, "[PORT]"), @r"
    error: cannot serve metrics on 127.0.0.1:[PORT]: the port is taken
    hint: `--metrics-port 0` takes any free port, `--no-metrics` does without
    ");
    assert!(!folder.path("project/.greenwave").exists(), "nothing was begun");
}

#[test]
fn without_metrics_no_address_is_told() {
    let plan = sketch::plan(&[Sketch::new("one", "answer one.txt 1", "test -f one.txt")]);
    let folder = Folder::with_project().with("plan.toml", plan);
    let events = folder.run_plan().with_code(0).events();
    assert_eq!((&events[0]["event"], &events[0]["metrics"]), (&"settings".into(), &Value::Null));
}
