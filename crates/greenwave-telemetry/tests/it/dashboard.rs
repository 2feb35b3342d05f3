//! Tests of the dashboard: its requests, its stream of events, and the page in a real browser.

use std::time::Duration;

use greenwave_telemetry::{
    CacheMetrics, Dashboard, EventFeed, MetricsEndpoint, MetricsServer, MetricsSnapshot, ParallelMetrics,
};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;

use crate::browser::Browser;
use crate::{any_port, get, send};

fn snapshot() -> MetricsSnapshot {
    let run = json!({
        "features": 3, "green": 1, "failed": 1, "skipped": 0, "requests_in_flight": 1,
        "workers": 4, "agents": 8, "cost_usd": 0.25, "seconds": 90.0,
    });
    let storage = json!({"memory_bytes": 20_000_000, "memory_bytes_max": 50_000_000, "spill_bytes": 35_000_000, "spilled": 0});
    MetricsSnapshot {
        cache: CacheMetrics::new(7, 1),
        parallel: ParallelMetrics::new(3, 2, 0.5),
        extra: serde_json::Map::from_iter([("run".to_owned(), run), ("storage".to_owned(), storage)]),
        ..MetricsSnapshot::default()
    }
}

async fn serve(dashboard: Dashboard) -> MetricsServer {
    MetricsEndpoint::bind(any_port()).await.unwrap().serve_with(snapshot, dashboard)
}

/// A reader of the events.
struct Reader {
    lines: BufReader<TcpStream>,
}

impl Reader {
    async fn open(server: &MetricsServer, last_id: Option<&str>) -> Self {
        let mut stream = TcpStream::connect(server.address()).await.unwrap();
        let last_id = last_id.map(|id| format!("Last-Event-ID: {id}\r\n")).unwrap_or_default();
        let request = format!("GET /events HTTP/1.1\r\nHost: localhost\r\n{last_id}\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        Self { lines: BufReader::new(stream) }
    }

    /// Returns the next line that begins with one of these words, or `None` at the end.
    async fn next(&mut self, words: &[&str]) -> Option<String> {
        let mut line = String::new();
        while self.lines.read_line(&mut line).await.unwrap() > 0 {
            if words.iter().any(|word| line.starts_with(word)) {
                return Some(line.trim_end().to_owned());
            }
            line.clear();
        }
        None
    }
}

#[tokio::test]
async fn the_page_allows_only_its_own_script_and_styles() {
    let server = serve(Dashboard::new(EventFeed::new())).await;
    let response = get(server.address(), "/").await;
    let (head, page) = response.split_once("\r\n\r\n").unwrap();
    let head = head.to_lowercase();
    assert!(head.starts_with("http/1.1 200") && head.contains("text/html; charset=utf-8"), "{head}");
    for header in
        ["cache-control: no-store", "x-content-type-options: nosniff", "referrer-policy: no-referrer"]
    {
        assert!(head.contains(header), "no {header} in {head}");
    }
    let policy = response.lines().find_map(|line| line.strip_prefix("content-security-policy: ")).unwrap();
    for (element, directive) in [("script", "script-src"), ("style", "style-src")] {
        let (opening, closing) = (format!("<{element}>"), format!("</{element}>"));
        let parts: Vec<&str> = page.split(&opening).collect();
        assert_eq!(parts.len(), 2, "the page has one {element}");
        let expected = format!("{directive} 'sha256-{}'", sha256(parts[1].split(&closing).next().unwrap()));
        assert!(policy.contains(&expected), "dashboard.rs needs {expected}");
    }
    assert!(!policy.contains("unsafe"), "{policy}");
    for part in ["http://", "https://", "innerHTML", "outerHTML", "insertAdjacentHTML", "document.write"] {
        let mut lines = page.lines().filter(|line| !line.contains("www.w3.org/2000/svg"));
        let found = lines.find(|line| line.contains(part));
        assert!(found.is_none(), "`{part}`: {found:?}");
    }
}

/// Returns the SHA-256 of a text in base64.
fn sha256(text: &str) -> String {
    let digits = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut bytes = Sha256::digest(text).to_vec();
    // 32 bytes, and one that only completes the last digit.
    bytes.push(0);
    let groups = bytes.chunks(3).map(|group| group.iter().fold(0, |sum, byte| sum << 8 | usize::from(*byte)));
    let text = groups.flat_map(|group| [18, 12, 6, 0].map(|shift| char::from(digits[group >> shift & 63])));
    text.take(43).chain(['=']).collect()
}

#[tokio::test]
async fn requests_of_the_dashboard_are_checked_like_those_for_metrics() {
    let server = serve(Dashboard::new(EventFeed::new())).await;
    for path in ["/", "/events", "/feature?id=a"] {
        let rebound = send(server.address(), &format!("GET {path} HTTP/1.1\r\nHost: evil.example\r\n")).await;
        assert!(rebound.starts_with("HTTP/1.1 421"), "{rebound}");
        let page = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nOrigin: http://evil.example\r\n");
        assert!(send(server.address(), &page).await.starts_with("HTTP/1.1 403"), "{path}");
        let post = format!("POST {path} HTTP/1.1\r\nHost: localhost\r\n");
        assert!(send(server.address(), &post).await.starts_with("HTTP/1.1 405"), "{path}");
    }
    assert!(get(server.address(), "/other").await.starts_with("HTTP/1.1 404"));
    // A server without a dashboard lacks these paths.
    let plain = MetricsEndpoint::bind(any_port()).await.unwrap().serve(snapshot);
    assert!(get(plain.address(), "/events").await.starts_with("HTTP/1.1 404"));
}

#[tokio::test]
async fn other_addresses_need_the_token_for_all_but_the_metrics() {
    let dashboard = Dashboard::new(EventFeed::new()).with_token("secret");
    let everywhere = "0.0.0.0:0".parse().unwrap();
    let server = MetricsEndpoint::bind(everywhere).await.unwrap().serve_with(snapshot, dashboard);
    let address = std::net::SocketAddr::new(std::net::Ipv4Addr::LOCALHOST.into(), server.address().port());
    for path in ["/", "/events", "/feature?id=a", "/?token=wrong"] {
        assert!(get(address, path).await.starts_with("HTTP/1.1 403"), "{path}");
    }
    assert!(get(address, "/?token=secret").await.starts_with("HTTP/1.1 200"));
    assert!(get(address, "/metrics").await.starts_with("HTTP/1.1 200"));
}

#[tokio::test]
async fn details_come_from_their_source() {
    let dashboard = Dashboard::new(EventFeed::new())
        .with_details(|id| async move { (id == "a b").then(|| "[\"details\"]".to_owned()) });
    let server = serve(dashboard).await;
    assert!(get(server.address(), "/feature?id=a%20b").await.ends_with("\r\n\r\n[\"details\"]"));
    for path in ["/feature?id=a", "/feature", "/feature?id=%ff"] {
        assert!(get(server.address(), path).await.starts_with("HTTP/1.1 404"), "{path}");
    }
}

/// A connection that is used for many requests.
struct KeptConnection {
    stream: BufReader<TcpStream>,
}

impl KeptConnection {
    async fn open(server: &MetricsServer) -> Self {
        Self { stream: BufReader::new(TcpStream::connect(server.address()).await.unwrap()) }
    }

    /// Returns whether the response has `Connection: close`, and its body.
    async fn get(&mut self, path: &str) -> (bool, String) {
        let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n");
        self.stream.get_mut().write_all(request.as_bytes()).await.unwrap();
        let (mut is_last, mut length) = (false, 0);
        loop {
            let mut line = String::new();
            assert!(self.stream.read_line(&mut line).await.unwrap() > 0, "the connection was closed");
            let line = line.trim_end().to_lowercase();
            is_last |= line == "connection: close";
            length = line.strip_prefix("content-length: ").map_or(length, |it| it.parse().unwrap());
            if line.is_empty() {
                break;
            }
        }
        let mut body = vec![0; length];
        self.stream.read_exact(&mut body).await.unwrap();
        (is_last, String::from_utf8(body).unwrap())
    }

    async fn is_closed(&mut self) -> bool {
        self.stream.read(&mut [0]).await.unwrap() == 0
    }
}

/// Uses a connection without long pauses, until it has this age.
async fn use_until(connection: &mut KeptConnection, age: u64) {
    for _ in 0..age / 4 {
        let (is_last, body) = connection.get("/metrics").await;
        assert!(!is_last && body.ends_with("}\n"), "{body}");
        tokio::time::sleep(Duration::from_secs(4)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_connection_in_use_ends_with_a_response_that_says_so() {
    let server = serve(Dashboard::new(EventFeed::new())).await;
    let mut connection = KeptConnection::open(&server).await;
    use_until(&mut connection, 52).await;
    let (is_last, body) = connection.get("/metrics").await;
    assert!(is_last && body.ends_with("}\n"), "{body}");
    assert!(connection.is_closed().await);
}

#[tokio::test(start_paused = true)]
async fn a_slow_response_is_complete_on_a_connection_of_any_age() {
    let details = |_| async {
        tokio::time::sleep(Duration::from_secs(25)).await;
        Some("[\"details\"]".to_owned())
    };
    let server = serve(Dashboard::new(EventFeed::new()).with_details(details)).await;
    let mut connection = KeptConnection::open(&server).await;
    use_until(&mut connection, 48).await;
    assert_eq!(connection.get("/feature?id=a").await, (true, "[\"details\"]".to_owned()));
    assert!(connection.is_closed().await);
}

#[tokio::test]
async fn a_reader_that_connects_again_continues_where_it_was() {
    let feed = EventFeed::new();
    let server = serve(Dashboard::new(feed.clone())).await;
    feed.publish("1");
    let mut reader = Reader::open(&server, None).await;
    assert_eq!(reader.next(&["event: ", "data: 1"]).await.unwrap(), "event: reset");
    let id = reader.next(&["id: "]).await.unwrap();
    assert_eq!(reader.next(&["data: "]).await.unwrap(), "data: 1");
    // Published while the reader waits.
    feed.publish("2");
    assert_eq!(reader.next(&["data: "]).await.unwrap(), "data: 2");
    drop(reader);
    feed.publish_line("3");
    let mut again = Reader::open(&server, id.strip_prefix("id: ")).await;
    let seen = ["event: ", "data: "];
    assert_eq!(again.next(&seen).await.unwrap(), "data: 2", "no reset");
    assert_eq!(again.next(&seen).await.unwrap(), "event: line");
    assert_eq!(again.next(&seen).await.unwrap(), "data: 3");
    // An id of another run.
    let mut other = Reader::open(&server, Some("1-2.1")).await;
    assert_eq!(other.next(&seen).await.unwrap(), "event: reset");
}

#[tokio::test]
async fn a_reader_that_does_not_read_delays_nobody() {
    let feed = EventFeed::new();
    let server = serve(Dashboard::new(feed.clone())).await;
    let _slow = Reader::open(&server, None).await;
    let mut fast = Reader::open(&server, None).await;
    let text = format!("\"{}\"", "x".repeat(1000));
    let mut seen = 0;
    for _ in 0..20 {
        // Much more than the buffers of a connection hold.
        for _ in 0..1000 {
            feed.publish(&text);
        }
        while seen < 1000 {
            let data = fast.next(&["data: \"", "event: gap"]).await.unwrap();
            assert!(data.starts_with("data: "), "nothing is lost for a reader that reads");
            seen += 1;
        }
        seen = 0;
    }
}

#[tokio::test]
async fn readers_get_all_events_before_the_end() {
    let feed = EventFeed::new();
    let server = serve(Dashboard::new(feed.clone())).await;
    let mut reader = Reader::open(&server, None).await;
    assert_eq!(reader.next(&["event: "]).await.unwrap(), "event: reset");
    (0..1000).for_each(|number| feed.publish(&number.to_string()));
    let reading = tokio::spawn(async move {
        let mut last = None;
        while let Some(data) = reader.next(&["data: "]).await {
            last = Some(data);
        }
        last
    });
    server.finish(Duration::from_secs(20)).await;
    assert_eq!(reading.await.unwrap().unwrap(), "data: 999");
}

#[tokio::test]
async fn a_reader_that_does_not_read_delays_the_end_by_a_limited_time() {
    let feed = EventFeed::new();
    let server = serve(Dashboard::new(feed.clone())).await;
    let mut reader = Reader::open(&server, None).await;
    assert_eq!(reader.next(&["event: "]).await.unwrap(), "event: reset");
    let text = format!("\"{}\"", "x".repeat(1 << 20));
    (0..7).for_each(|_| feed.publish(&text));
    server.finish(Duration::from_millis(10)).await;
}

#[tokio::test]
async fn too_many_dashboards_leave_connections_for_metrics() {
    let server = serve(Dashboard::new(EventFeed::new())).await;
    let mut readers = Vec::new();
    for _ in 0..32 {
        let mut reader = Reader::open(&server, None).await;
        assert_eq!(reader.next(&["event: "]).await.unwrap(), "event: reset");
        readers.push(reader);
    }
    assert!(get(server.address(), "/events").await.starts_with("HTTP/1.1 503"));
    assert!(get(server.address(), "/metrics").await.starts_with("HTTP/1.1 200"));
    drop(readers.pop());
    while get_head(&server).await != "HTTP/1.1 200 OK\r\n" {
        tokio::task::yield_now().await;
    }
}

/// Returns the first line of the response to a request for events.
async fn get_head(server: &MetricsServer) -> String {
    let mut reader = Reader::open(server, None).await;
    let mut line = String::new();
    reader.lines.read_line(&mut line).await.unwrap();
    line
}

/// Events of a run with three features. Names and texts are markup.
fn publish_run(feed: &EventFeed) {
    let publish = |at: f64, event: Value| feed.publish(&json!({"at": at, "event": event}).to_string());
    let phase = |at: f64, feature: &str, phase: &str, attempt: u32| {
        publish(at, json!({"event": "phase", "feature": feature, "phase": phase, "attempt": attempt}));
    };
    let feature =
        |id: &str, after: &[&str]| json!({"id": id, "title": format!("<i>{id}</i>"), "after": after});
    let features = [feature("first", &[]), feature("second", &[]), feature("third", &["second"])];
    publish(0.0, json!({"event": "plan", "name": "<b>plan</b>", "features": features}));
    phase(1.0, "first", "red", 0);
    phase(2.0, "second", "red", 0);
    phase(10.0, "first", "yellow", 1);
    for number in 0..100 {
        let text = format!("<script>document.title = 'taken'</script> {number}");
        feed.publish_line(&json!({"at": 11, "feature": "first", "attempt": 1, "text": text}).to_string());
    }
    publish(20.0, json!({"event": "refused", "feature": "first", "attempt": 1, "reason": "<img src=x>"}));
    phase(20.0, "first", "yellow", 2);
    phase(40.0, "first", "green", 2);
    publish(50.0, json!({"event": "failed", "feature": "second", "reason": "no attempt is left"}));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_page_shows_the_run_and_the_figures_of_the_json() {
    let Some(mut browser) = Browser::start() else { return };
    let feed = EventFeed::new();
    let attempts = json!([{
        "number": 1, "outcome": "failed", "reason": "<img src=x>", "test_output": "<b>left</b> == right",
        "words": "", "stderr": "", "exit": "", "diff": "-old\n+<script>new</script>\n",
        "files": [{"path": "a<b>.rs", "change": "modified"}],
    }]);
    let details = move |id: String| std::future::ready((id == "first").then(|| attempts.to_string()));
    let server = serve(Dashboard::new(feed.clone()).with_details(details)).await;
    publish_run(&feed);
    browser.open(&format!("http://{}/", server.address()));

    let text = |id: &str| format!("document.getElementById('{id}').textContent");
    browser.until(&format!("{} === '1 of 3, 1 failed'", text("green")));
    for (id, expected) in [
        ("workers", "3 of 4"),
        ("agents", "1 of 8"),
        ("queued", "2"),
        ("hits", "87.5 % of 8"),
        ("contents", "20.0 MB of 50.0 MB"),
        ("cost", "$0.2500"),
        ("plan", "<b>plan</b>"),
    ] {
        browser.until(&format!("{} === {}", text(id), json!(expected)));
    }
    browser.until("document.getElementById('spill-mark').style.left.includes('70%')");
    browser.until("document.querySelectorAll('#lanes button').length === 3");
    let states = "[...document.querySelectorAll('#lanes .state')].map((it) => it.textContent).join('; ')";
    browser.until(&format!("{states} === 'green; failed: no attempt is left; waiting: for second'"));
    let rects = "[...document.querySelectorAll('#lanes li:first-child rect')].map((it) => it.getAttribute('class')).join()";
    browser.until(&format!("{rects} === 'waiting,red,yellow,yellow,green'"));
    // A lane is as wide as the run is long: 90 seconds.
    browser.until("Math.abs(document.querySelector('#lanes svg').viewBox.baseVal.width - 91) < 20");
    browser.until("document.querySelector('#lines pre').textContent.split('\\n').length === 12");
    browser.until("document.querySelector('#lines pre').textContent.endsWith(' 99')");

    use_the_keyboard(&mut browser);

    // Live, without another request for the page.
    let needs = json!({
        "event": "needs_you", "feature": "third", "attempt": 1, "kind": "approval", "reason": "it is held",
        "action": "approve it",
    });
    feed.publish(&json!({"at": 55, "event": needs}).to_string());
    browser.until(&format!("{states}.endsWith('waiting, needs you: it is held (approve it)')"));
    browser.until("document.title.startsWith('Needs you: ')");
    feed.publish(
        &json!({"at": 60, "event": {"event": "skipped", "feature": "third", "because": "second"}})
            .to_string(),
    );
    browser.until(&format!("{states}.endsWith('skipped: depends on second')"));
    let mut figures = serde_json::to_value(snapshot()).unwrap();
    figures["run"]["green"] = json!(2);
    feed.publish(&json!({"at": 61, "event": {"event": "finished", "figures": figures}}).to_string());
    browser.until(&format!("{} === '2 of 3, 1 failed'", text("green")));
    browser.until(
        "document.getElementById('status').textContent.startsWith('Finished: 1 green, 1 failed, 1 skipped')",
    );

    // Nothing that was published is markup.
    let counts = "[...document.querySelectorAll('b, i, img, script')].length";
    assert_eq!(browser.evaluate(counts), json!(1), "the page's own script");
    assert_eq!(browser.evaluate("document.title"), json!("<b>plan</b> – Greenwave"));
    browser.resize(400);
    assert_eq!(browser.evaluate("document.documentElement.scrollWidth <= 400"), json!(true));
    assert_eq!(browser.problems(), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_page_shows_two_runs_side_by_side() {
    let Some(mut browser) = Browser::start() else { return };
    let feed = EventFeed::new();
    let server = serve(Dashboard::new(feed.clone())).await;
    publish_run(&feed);
    browser.open(&format!("http://{}/", server.address()));
    browser.until("document.querySelectorAll('#lanes button').length === 3");
    assert_eq!(browser.evaluate("document.getElementById('comparison').hidden"), json!(true));
    let run = |seconds: f64, green: u32, hit_rate: Value, cost: Value| {
        json!({
            "plan": "p", "started_ms": 1_790_000_000_000_u64, "finished": true, "seconds": seconds,
            "features": 3, "green": green, "failed": 3 - green, "skipped": 0, "attempts": 4,
            "tests_run": 5, "tests_cached": 5, "hit_rate": hit_rate, "cost_usd": cost,
        })
    };
    let end = |phase: &str, attempts: u32| json!({"phase": phase, "attempts": attempts, "seconds": 1.5});
    let comparison = json!({
        "event": "comparison",
        "runs": [run(10.0, 3, json!(50.0), json!(0.25)), run(12.5, 2, json!(75.5), Value::Null)],
        "slower": [{"test": "<b>slow</b>", "before": 1.0, "after": 2.25}],
        "features": [{"feature": "<i>a</i>", "before": end("green", 1), "after": end("failed", 3)},
            {"feature": "new", "before": null, "after": end("green", 2)}],
    });
    feed.publish(&json!({"at": 0, "event": comparison}).to_string());
    browser.until("!document.getElementById('comparison').hidden");
    let rows = "[...document.querySelectorAll('#compared tbody tr')].map((row) => [...row.children].map((it) => it.textContent).join('|')).slice(1).join('; ')";
    let expected = [
        "Duration|10.00 s|12.50 s|+2.50 s",
        "Features green|3|2|−1",
        "Features failed|0|1|+1",
        "Features skipped|0|0|",
        "Attempts|4|4|",
        "Tests that ran|5|5|",
        "Cached test results|50.0 %|75.5 %|+25.5 %",
        "Cost of agents|$0.2500|–|",
        "<b>slow</b>|1.00 s|2.25 s|+1.25 s",
        "<i>a</i>|green, 1 attempt, 1.50 s|failed, 3 attempts, 1.50 s",
        "new|–|green, 2 attempts, 1.50 s",
    ];
    assert_eq!(browser.evaluate(rows), json!(expected.join("; ")));
    assert_eq!(browser.evaluate("document.querySelectorAll('#compared b, #compared i').length"), json!(0));
    browser.resize(400);
    assert_eq!(browser.evaluate("document.documentElement.scrollWidth <= 400"), json!(true));
    assert_eq!(browser.problems(), Vec::<String>::new());
}

/// Moves from lane to lane, opens the attempts of a feature and closes them.
fn use_the_keyboard(browser: &mut Browser) {
    browser.evaluate("document.querySelector('#lanes button').focus()");
    browser.key("ArrowDown");
    browser.until("document.activeElement.dataset.id === 'second'");
    browser.key("ArrowUp");
    browser.key("Enter");
    browser.until("document.activeElement.id === 'detail-name'");
    browser.until("document.querySelector('#attempts pre.scroll span.added').textContent === '+<script>new</script>\\n'");
    browser.key("Escape");
    browser
        .until("document.getElementById('detail').hidden && document.activeElement.dataset.id === 'first'");
}
