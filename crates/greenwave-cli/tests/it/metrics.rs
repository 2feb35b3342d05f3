//! The metrics endpoint during a run.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::time::Duration;

use greenwave_testkit::service;
use insta::assert_snapshot;
use rustix::process::Signal;
use serde_json::Value;

use crate::program::{Program, until};
use crate::shell_plan::{self, Report, ShellFeature};
use crate::test_dir::{STATE, TestDir};

/// Sends a request and returns the whole response.
pub(crate) fn get(address: &str, path: &str) -> String {
    get_as(address, path, "*/*")
}

/// Like [`get`], for a client that accepts a format.
fn get_as(address: &str, path: &str, accept: &str) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let head = format!("Host: {address}\r\nAccept: {accept}\r\nConnection: close");
    write!(stream, "GET {path} HTTP/1.1\r\n{head}\r\n\r\n").unwrap();
    let mut response = String::new();
    stream.read_to_string(&mut response).unwrap();
    response
}

fn metrics(address: &str) -> Value {
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
fn metrics_change_during_a_run() {
    let dir = TestDir::with_project();
    let here = dir.path("").display().to_string();
    // Each script waits for a file that this test creates, or 30 seconds.
    let wait =
        |name: &str| format!("for w in $(seq 3000); do test -e {here}{name} && break; sleep 0.01; done");
    let script = format!("echo 'hello <b>'; echo {SECRET}; {}; answer one.txt 1", wait("answer"));
    let asking = ShellFeature::new("one", &script, "test -f one.txt");
    let test = format!("test -f two.txt || exit 1; {}", wait("pass"));
    let testing = ShellFeature::new("two", "answer two.txt 2", &test);
    dir.write("plan.toml", shell_plan::plan(&[asking, testing]) + "[resources]\nport = 1\n");
    let args = ["run", "plan.toml", "--format", "json", "--metrics-port", "0"];
    let mut running = dir.greenwave(args).start();
    let settings: Value = serde_json::from_str(&running.read_until("settings")).unwrap();
    let url = settings["metrics"].as_str().unwrap();
    let address = url.strip_prefix("http://").unwrap().strip_suffix("/metrics").unwrap();
    assert!(address.starts_with("127.0.0.1:"), "{address}");

    until("an agent request is open and a test runs", || {
        let now = metrics(address);
        now["run"]["requests_in_flight"] == 1 && now["parallel"]["active_workers"] == 1
    });
    let busy = metrics(address);
    assert_eq!(keys(&busy["cache"]), ["hit_rate", "total_hits", "total_misses"]);
    assert_eq!(keys(&busy["parallel"]), ["active_workers", "efficiency", "queue_depth"]);
    assert_eq!(keys(&busy["memory"]), ["peak_mb", "spillover_active", "used_mb"]);
    let misses = busy["cache"]["total_misses"].as_u64().unwrap();
    assert!(misses >= 2, "the tests run before there is code: {busy}");
    assert!(busy["memory"]["used_mb"].as_u64().unwrap() > 0);
    assert!(busy["memory"]["peak_mb"].as_u64() >= busy["memory"]["used_mb"].as_u64());
    assert_eq!(busy["memory"]["spillover_active"], false);
    let percent = |value: &Value| (0.0..=100.0).contains(&value.as_f64().unwrap());
    assert!(percent(&busy["cache"]["hit_rate"]) && percent(&busy["parallel"]["efficiency"]));
    assert_eq!((&busy["run"]["features"], &busy["run"]["green"]), (&2.into(), &0.into()));

    dir.write("pass", "");
    until("one feature is green", || metrics(address)["run"]["green"] == 1);
    let later = metrics(address);
    assert_eq!(later["parallel"]["active_workers"], 0);
    assert!(later["cache"]["total_hits"].as_u64().unwrap() >= 1, "the merge uses the cached result: {later}");
    assert!(get(address, "/nothing").starts_with("HTTP/1.1 404"));
    check_text(get_as(address, "/metrics", "text/plain").split_once("\r\n\r\n").unwrap().1);
    check_dashboard(address);
    let end = Events::open(address);
    dir.write("answer", "");
    let finished = running.finish().with_code(0);
    assert_eq!(Report::of(&finished).phases(), [("one", "green"), ("two", "green")]);
    let end = end.until("\"event\":\"finished\"");
    assert!(end.lines().any(|line| line.contains("finished") && line.contains("\"green\":2")), "{end}");
}

/// The form of a credential.
const SECRET: &str = "ghp_0123456789abcdefghijklmnopqrstuvwxyz";

/// The stream of events of a dashboard.
pub(crate) struct Events(BufReader<TcpStream>);

impl Events {
    pub(crate) fn open(address: &str) -> Self {
        let mut stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        write!(stream, "GET /events HTTP/1.1\r\nHost: {address}\r\n\r\n").unwrap();
        Self(BufReader::new(stream))
    }

    /// Returns all lines up to the one with a text.
    pub(crate) fn until(mut self, text: &str) -> String {
        let mut lines = String::new();
        loop {
            let start = lines.len();
            assert!(self.0.read_line(&mut lines).unwrap() > 0, "no `{text}` in {lines}");
            if lines[start..].contains(text) {
                return lines;
            }
        }
    }
}

/// Checks the dashboard of a run whose feature `two` is green, while the agent of `one` is working.
fn check_dashboard(address: &str) {
    assert!(get(address, "/").contains("<title>Greenwave</title>"));
    let events = Events::open(address).until("\"phase\":\"green\"");
    for part in [
        r#""event":"plan","features":[{"after":[],"id":"one","title":"one"},{"after":[],"id":"two""#,
        r#""event":{"attempt":1,"event":"phase","feature":"one","phase":"yellow"}"#,
        "\nevent: line\n",
        r#""feature":"one","text":"hello <b>""#,
        r#""text":"[masked]""#,
    ] {
        assert!(events.contains(part), "no {part} in {events}");
    }
    assert!(!events.contains(SECRET), "{events}");
    let attempts = |feature: &str| -> Value {
        let response = get(address, &format!("/feature?id={feature}"));
        serde_json::from_str(response.split_once("\r\n\r\n").unwrap().1).unwrap()
    };
    let two = attempts("two");
    assert_eq!((&two[0]["outcome"], &two[1]), (&"passed".into(), &Value::Null), "{two}");
    assert!(two[0]["diff"].as_str().unwrap().contains("\n+2\n"), "{two}");
    assert_eq!(attempts("one"), Value::Array(Vec::new()), "no attempt has ended");
    assert!(get(address, "/feature?id=other").starts_with("HTTP/1.1 404"));
}

#[test]
fn recorded_runs_are_shown_again() {
    let project = TestDir::with_project();
    let failing = ShellFeature::new("two", "answer other.txt 2", "test -f two.txt");
    let features = [ShellFeature::new("one", "answer one.txt 1", "test -f one.txt"), failing];
    let dir = project.with("plan.toml", shell_plan::plan(&features));
    let list = || dir.greenwave(["dashboard", "plan.toml", "--list"]).run().with_code(0).stdout;
    assert_eq!(list(), "No runs are recorded\n");
    let none = dir.greenwave(["dashboard", "plan.toml"]).run().with_code(2);
    assert_snapshot!(none.stderr, @r"
    error: cannot find run 1: 0 recorded
    hint: run a plan with `greenwave run PLAN`
    ");
    dir.run_plan().with_code(1);
    let listed = list();
    assert!(listed.starts_with("  1  plan, ") && listed.ends_with(" ago\n"), "{listed}");
    let other = dir.greenwave(["dashboard", "plan.toml", "--run", "2"]).run().with_code(2);
    assert_snapshot!(other.stderr, @r"
    error: cannot find run 2: 1 recorded
    hint: list the recorded runs with `greenwave dashboard --list`
    ");
    let mut running = dir.greenwave(["dashboard", "plan.toml", "--metrics-port", "0"]).start();
    let line = running.read_until("Dashboard: ");
    let address = line.trim().strip_prefix("Dashboard: http://").unwrap().strip_suffix('/').unwrap();
    assert!(get(address, "/").contains("<title>Greenwave</title>"));
    let events = Events::open(address).until("\"event\":\"finished\"");
    for part in [r#""event":"plan""#, r#""phase":"green""#, r#""event":"failed","feature":"two""#] {
        assert!(events.contains(part), "no {part} in {events}");
    }
    let attempts = get(address, "/feature?id=two");
    assert!(attempts.contains("\"outcome\":\"failed\"") && attempts.contains("+2"), "{attempts}");
    assert!(get(address, "/feature?id=other").starts_with("HTTP/1.1 404"));
}

#[test]
fn a_recorded_run_is_compared_with_an_earlier_one() {
    let feature = ShellFeature::new("two", "answer other.txt 2", "test -f two.txt");
    let features = [ShellFeature::new("one", "answer one.txt 1", "test -f one.txt"), feature];
    let dir = TestDir::with_project().with("plan.toml", shell_plan::plan(&features));
    dir.run_plan().with_code(1);
    let missing = dir.greenwave(["dashboard", "plan.toml", "--compare", "2"]).run().with_code(2);
    assert!(missing.stderr.contains("cannot find run 2: 1 recorded"), "{}", missing.stderr);
    dir.write("project/two.txt", "2");
    dir.run_plan();
    let args = ["dashboard", "plan.toml", "--compare", "2", "--metrics-port", "0"];
    let mut running = dir.greenwave(args).start();
    let line = running.read_until("Dashboard: ");
    let address = line.trim().strip_prefix("Dashboard: http://").unwrap().strip_suffix('/').unwrap();
    let shown = running.read_until("Shows the run of");
    assert!(shown.contains(" and compares it with that of plan, "), "{shown}");
    let events = Events::open(address).until("\"event\":\"finished\"");
    let line = events.lines().find(|line| line.contains("\"event\":\"comparison\"")).unwrap();
    let comparison: Value = serde_json::from_str(line.trim_start_matches("data: ")).unwrap();
    let runs = &comparison["event"]["runs"];
    let figures = |run: &Value| (run["green"].clone(), run["failed"].clone(), run["finished"].clone());
    assert_eq!(figures(&runs[0]), (1.into(), 1.into(), true.into()), "{comparison}");
    assert_eq!(runs[1]["features"], 2, "{comparison}");
    assert!(runs[0]["seconds"].as_f64().unwrap() > 0.0 && runs[0]["tests_run"].as_u64().unwrap() > 0);
}

#[test]
fn the_dashboard_of_a_stopped_run_shows_that() {
    let plan = shell_plan::plan(&[ShellFeature::new("one", "sleep 30", "test -f one.txt")]);
    let dir = TestDir::with_project().with("plan.toml", plan);
    let mut running = dir.greenwave(["run", "plan.toml", "--format", "json", "--metrics-port", "0"]).start();
    let settings: Value = serde_json::from_str(&running.read_until("settings")).unwrap();
    let url = settings["dashboard"].as_str().unwrap();
    let address = url.strip_prefix("http://").unwrap().strip_suffix('/').unwrap();
    until("the agent is asked", || metrics(address)["run"]["requests_in_flight"] == 1);
    let events = Events::open(address);
    running.signal(Signal::INT);
    events.until("\"event\":\"stopped\"");
    running.finish().with_code(130);
    let listed = dir.greenwave(["dashboard", "plan.toml", "--list"]).run().with_code(0).stdout;
    assert!(listed.ends_with(" ago, stopped\n"), "{listed}");
}

/// On other addresses, anybody in the network can connect.
#[test]
fn outside_of_the_loopback_the_dashboard_needs_its_token() {
    let dir = TestDir::with_project();
    let here = dir.path("").display().to_string();
    let script =
        format!("for w in $(seq 3000); do test -e {here}seen && break; sleep 0.01; done; answer one.txt 1");
    dir.write("plan.toml", shell_plan::plan(&[ShellFeature::new("one", &script, "test -f one.txt")]));
    let set = ["--set", "metrics.address=0.0.0.0", "--metrics-port", "0"];
    let mut running = dir.greenwave(["run", "plan.toml", "--format", "json"].into_iter().chain(set)).start();
    let settings: Value = serde_json::from_str(&running.read_until("settings")).unwrap();
    let url = settings["dashboard"].as_str().unwrap().strip_prefix("http://0.0.0.0:").unwrap();
    let (port, path) = url.split_once('/').unwrap();
    let address = format!("127.0.0.1:{port}");
    assert!(path.starts_with("?token=") && path.len() == 39, "{path}");
    assert!(get(&address, "/").starts_with("HTTP/1.1 403"));
    assert!(get(&address, "/events").starts_with("HTTP/1.1 403"));
    assert!(get(&address, &format!("/{path}")).starts_with("HTTP/1.1 200"));
    assert!(get(&address, "/metrics").starts_with("HTTP/1.1 200"));
    dir.write("seen", "");
    running.finish().with_code(0);
}

/// Checks the text for Prometheus, while one of two features is green and the other's agent is
/// working.
fn check_text(text: &str) {
    for line in [
        "greenwave_run_info{plan=\"plan\"} 1",
        "greenwave_features{phase=\"yellow\"} 1",
        "greenwave_features{phase=\"green\"} 1",
        "greenwave_features{phase=\"waiting\"} 0",
        "greenwave_resource_used{resource=\"agents\"} 1",
        "greenwave_resource_limit{resource=\"merge\"} 1",
        "greenwave_plan_resource_limit{resource=\"port\"} 1",
        "greenwave_agent_requests_total 2",
        "greenwave_answer_files_total 1",
        "greenwave_agent_sessions_used{agent=\"one\"} 1",
        "greenwave_agent_turn_duration_seconds_count 1",
        "greenwave_agent_first_unit_seconds_count 1",
        "greenwave_merge_duration_seconds_count 1",
        // Both tests before there is code, and the one of the answer.
        "greenwave_test_duration_seconds_count 3",
        "greenwave_test_results_total{result=\"failed\",cached=\"false\"} 2",
        "greenwave_test_results_total{result=\"passed\",cached=\"false\"} 1",
    ] {
        assert!(text.lines().any(|found| found == line), "no `{line}` in:\n{text}");
    }
    let waits = text.lines().find_map(|line| line.strip_prefix("greenwave_queue_wait_seconds_count "));
    assert!(waits.unwrap().parse::<u32>().unwrap() >= 5, "{text}");
    let page = include_str!("../../../../docs/metrics.md");
    let documented = page.lines().filter_map(|line| line.strip_prefix("| `greenwave_")?.split('`').next());
    let typed = text.lines().filter_map(|line| line.strip_prefix("# TYPE greenwave_")?.split(' ').next());
    let (documented, typed): (BTreeSet<_>, BTreeSet<_>) = (documented.collect(), typed.collect());
    assert_eq!(documented, typed, "docs/metrics.md lists exactly the metrics of a run");
    for name in include_str!("../../../../docs/grafana.json").split("greenwave_").skip(1) {
        let name =
            name.split(|letter: char| letter != '_' && !letter.is_ascii_alphanumeric()).next().unwrap();
        assert!(typed.contains(name.trim_end_matches("_bucket")), "no metric {name} for docs/grafana.json");
    }
    check_with_promtool(text);
}

/// `promtool check metrics` reports invalid lines, and names that break the conventions.
fn check_with_promtool(text: &str) {
    let mut command = Command::new("promtool");
    let piped = command.args(["check", "metrics"]).stdin(Stdio::piped());
    let spawned = piped.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let Ok(mut checker) = spawned else { return service::skip("promtool is not installed") };
    checker.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    let output = checker.wait_with_output().unwrap();
    let complaints = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success() && complaints.is_empty(), "{complaints}\n{text}");
}

#[test]
fn a_taken_port_is_an_error() {
    let other = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = other.local_addr().unwrap().port().to_string();
    let plan = shell_plan::plan(&[ShellFeature::new("one", "answer one.txt 1", "test -f one.txt")]);
    let dir = TestDir::with_project().with("plan.toml", plan);
    let finished = dir.greenwave(["run", "plan.toml", "--metrics-port", &port]).run().with_code(2);
    assert_eq!(finished.stdout, "");
    assert_snapshot!(finished.stderr.replace(&port, "[PORT]"), @r"
    error: cannot serve metrics on 127.0.0.1:[PORT]: the port is taken
    hint: pass `--metrics-port 0` for a free port, or `--no-metrics`
    ");
    assert!(!dir.path("project/.greenwave").exists(), "the run must not start");
}

#[test]
fn without_metrics_there_is_no_address() {
    let plan = shell_plan::plan(&[ShellFeature::new("one", "answer one.txt 1", "test -f one.txt")]);
    let dir = TestDir::with_project().with("plan.toml", plan);
    let events = dir.run_plan().with_code(0).events();
    assert_eq!((&events[0]["event"], &events[0]["metrics"]), (&"settings".into(), &Value::Null));
    assert_eq!(events[0]["dashboard"], Value::Null);
}

/// Any user of the machine, and any page in a browser, can connect to the port.
#[test]
fn a_flood_of_requests_without_an_end_leaves_a_run_its_descriptors() {
    /// Limit of the descriptors of the run.
    const DESCRIPTORS_MAX: usize = 1024;
    const CLIENTS: usize = 400;
    const CONNECTIONS_MAX: usize = 64;
    /// Connections, and files that the run itself has open.
    const MOST: usize = CONNECTIONS_MAX + 64;
    let dir = TestDir::with_project();
    let here = dir.path("").display().to_string();
    let script = format!(
        "for w in $(seq 3000); do test -e {here}flooded && break; sleep 0.01; done; answer one.txt 1"
    );
    dir.write("plan.toml", shell_plan::plan(&[ShellFeature::new("one", &script, "test -f one.txt")]));
    let mut command = Command::new("sh");
    let limit = format!("ulimit -n {DESCRIPTORS_MAX}; echo $$ > {here}process; exec \"$0\" \"$@\"");
    command.args(["-c", &limit, env!("CARGO_BIN_EXE_greenwave"), "run", "plan.toml", "--format", "json"]);
    command.arg("--metrics-port=0");
    let run = Program::of(command).within(&dir.path(""));
    let mut running = run.variable("XDG_STATE_HOME", dir.path(STATE)).start();
    let settings: Value = serde_json::from_str(&running.read_until("settings")).unwrap();
    let url = settings["metrics"].as_str().unwrap();
    let address = url.strip_prefix("http://").unwrap().strip_suffix("/metrics").unwrap();
    let descriptors = || {
        let process = dir.read("process");
        std::fs::read_dir(format!("/proc/{}/fd", process.trim())).map_or(0, Iterator::count)
    };
    let mut clients = Vec::new();
    for _ in 0..CLIENTS {
        // Further ones wait in the queue of the system, until that is full.
        let address = address.parse().unwrap();
        let Ok(mut client) = TcpStream::connect_timeout(&address, Duration::from_millis(100)) else { break };
        let _ = client.write_all(b"GET /metrics HTTP/1.1\r\n");
        clients.push(client);
    }
    // With a connection for each of them, the run would have more descriptors than the maximum.
    assert!(clients.len() > MOST, "{} clients", clients.len());
    until("the run has as many connections as it opens", || descriptors() > CONNECTIONS_MAX);
    let most = (0..200).map(|_| {
        std::thread::sleep(Duration::from_millis(5));
        descriptors()
    });
    let most = most.max().unwrap_or(0);
    assert!(most <= MOST, "{most} descriptors for {} clients", clients.len());
    dir.write("flooded", "");
    let finished = running.finish().with_code(0);
    assert_eq!(Report::of(&finished).phases(), [("one", "green")]);
}
