//! Many events on the dashboard: none is lost, and the page's memory stays small.
//!
//! `cargo xtask long dashboard-events` sends as many as an hour has at 1,000 a second, as fast as
//! the page takes them, and `dashboard-rate` sends 1,000 a second without waiting for the page.

use std::time::{Duration, Instant};

use greenwave_telemetry::{Dashboard, EventFeed, MetricsEndpoint, MetricsServer, MetricsSnapshot};
use greenwave_testkit::simulation::seeds;
use serde_json::{Value, json};

use crate::any_port;
use crate::browser::Browser;

/// Number of features of the run.
const FEATURES: u64 = 200;
/// Number of events that are published before the page has shown them. They fit into the feed.
const CHUNK: u64 = 5_000;
/// Maximum size of the page's objects, in bytes.
const HEAP_BYTES_MAX: u64 = 64 << 20;

/// Counts the events in the page, each of which has the next number.
const COUNT: &str = "
    var seen = 0, wrong = 0;
    const count = (handle) => (data) => {
        const number = JSON.parse(data).number;
        if (number === seen + 1) seen = number; else if (number !== undefined) wrong++;
        handle(data);
    };
    receive = count(receive);
    receiveLine = count(receiveLine);
    true";

/// Publishes an event with a number, as a run would: half of all events are lines of agents.
fn publish(feed: &EventFeed, number: u64) {
    let feature = format!("feature-{}", number % FEATURES);
    let attempt = 1 + number % 7;
    let at = number / 1000;
    if number.is_multiple_of(2) {
        let text = format!("line {number}: reading src/module_{}.rs and its tests", number % 97);
        let line = json!({"number": number, "at": at, "feature": feature, "attempt": attempt, "text": text});
        return feed.publish_line(&line.to_string());
    }
    let phase = ["red", "yellow", "review", "merging"][(number / FEATURES) as usize % 4];
    let event = match number % 5 {
        0 => json!({"event": "phase", "feature": feature, "phase": phase, "attempt": attempt}),
        1 => json!({"event": "waiting", "feature": feature, "attempt": attempt, "reason": "rate limit"}),
        2 => json!({
            "event": "refused", "feature": feature, "attempt": attempt, "reason": format!("test {number} failed"),
        }),
        _ => json!({
            "event": "tests", "feature": feature, "test": format!("test-{number}"), "phase": phase,
            "status": "passed", "cached": number.is_multiple_of(3), "seconds": 0.25,
        }),
    };
    feed.publish(&json!({"number": number, "at": at, "event": event}).to_string());
}

async fn open(feed: &EventFeed, browser: &mut Browser) -> MetricsServer {
    let endpoint = MetricsEndpoint::bind(any_port()).await.unwrap();
    let server = endpoint.serve_with(MetricsSnapshot::default, Dashboard::new(feed.clone()));
    let features: Vec<Value> = (0..FEATURES)
        .map(|number| json!({"id": format!("feature-{number}"), "title": "A feature", "after": []}))
        .collect();
    let plan = json!({"event": "plan", "name": "volume", "features": features});
    browser.open(&format!("http://{}/", server.address()));
    feed.publish(&json!({"at": 0, "event": plan}).to_string());
    browser.until(&format!("document.querySelectorAll('#lanes button').length === {FEATURES}"));
    assert_eq!(browser.evaluate(COUNT), json!(true));
    server
}

/// Checks that the page has seen all events in their order, and shows the last ones.
fn check(browser: &mut Browser, last: u64) {
    assert_eq!(browser.evaluate("[seen, wrong, run.gap]"), json!([last, 0, false]));
    let last_line = last - last % 2;
    browser.until(&format!("document.getElementById('lines').textContent.includes('line {last_line}: ')"));
    assert_eq!(browser.problems(), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn no_event_is_lost_and_the_page_stays_small() {
    let Some(mut browser) = Browser::start() else { return };
    let events = seeds("GREENWAVE_DASHBOARD_EVENTS", 30_000).end;
    let (feed, started) = (EventFeed::new(), Instant::now());
    let _server = open(&feed, &mut browser).await;
    let (mut published, mut used_most) = (0, 0);
    while published < events {
        let chunk = CHUNK.min(events - published);
        (0..chunk).for_each(|_| {
            published += 1;
            publish(&feed, published);
        });
        browser.until(&format!("seen + wrong >= {published}"));
        used_most = used_most.max(browser.heap_bytes());
    }
    check(&mut browser, events);
    browser.collect_garbage();
    let left = browser.heap_bytes();
    println!(
        "{events} events in {:.1} s: objects of the page up to {:.1} MB, {:.1} MB after garbage collection",
        started.elapsed().as_secs_f64(),
        used_most as f64 / 1e6,
        left as f64 / 1e6
    );
    assert!(left < HEAP_BYTES_MAX, "{left} bytes");
    assert!(used_most < HEAP_BYTES_MAX, "{used_most} bytes");
}

/// The publisher does not wait for the page, as a run does not.
#[tokio::test(flavor = "multi_thread")]
async fn no_event_of_a_thousand_a_second_is_lost() {
    let Some(mut browser) = Browser::start() else { return };
    let seconds = seeds("GREENWAVE_DASHBOARD_SECONDS", 1).end;
    let feed = EventFeed::new();
    let _server = open(&feed, &mut browser).await;
    let mut ticks = tokio::time::interval(Duration::from_millis(10));
    let publisher = feed.clone();
    let publishing = tokio::spawn(async move {
        for number in 1..=1000 * seconds {
            if number % 10 == 1 {
                ticks.tick().await;
            }
            publish(&publisher, number);
        }
    });
    publishing.await.unwrap();
    browser.until(&format!("seen + wrong >= {}", 1000 * seconds));
    check(&mut browser, 1000 * seconds);
    println!("{seconds} s: objects of the page {:.1} MB", browser.heap_bytes() as f64 / 1e6);
}
