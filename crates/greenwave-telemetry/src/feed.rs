//! Keeps the events of a run for readers that come late, lose their connection, or read slowly.

use std::collections::VecDeque;
use std::fmt::Write as _;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use tokio::sync::watch;

/// Maximum size of all stored events, in bytes.
const EVENT_BYTES_MAX: usize = 8 << 20;
/// Maximum size of all stored lines, in bytes.
const LINE_BYTES_MAX: usize = 1 << 20;

/// The events of a run, for any number of dashboards. Clones share them.
///
/// Events describe the course of the run, and lines the output of its agents. Readers that come
/// late get all events and the newest lines: up to 8 MiB of events and 1 MiB of lines are stored,
/// and the oldest are dropped first. Publishing never waits for readers.
#[derive(Debug, Clone)]
pub struct EventFeed {
    shared: Arc<SharedFeed>,
}

#[derive(Debug)]
struct SharedFeed {
    /// Identifies this feed, so that a reader of another one starts from the beginning.
    name: String,
    kept: Mutex<Kept>,
    /// Number of the newest event, or [`CLOSED`].
    newest: watch::Sender<u64>,
}

/// Number that no event has, once the feed is closed.
const CLOSED: u64 = u64::MAX;

#[derive(Debug)]
struct Kept {
    last: u64,
    events: Queue,
    lines: Queue,
}

/// Events in order. A full queue drops the oldest.
#[derive(Debug)]
struct Queue {
    frames: VecDeque<(u64, Bytes)>,
    bytes: usize,
    bytes_max: usize,
    /// Number of the newest dropped event; 0 for none.
    dropped: u64,
}

/// The next events for a reader.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Batch {
    /// Frames of server-sent events.
    pub(crate) frames: Vec<u8>,
    /// Position after the batch.
    pub(crate) position: u64,
    /// Whether events after the former position were dropped.
    pub(crate) has_gap: bool,
}

impl EventFeed {
    /// Creates a feed without events.
    pub fn new() -> Self {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let name = format!("{:x}-{:x}", std::process::id(), since.as_nanos());
        let queue = |bytes_max| Queue { frames: VecDeque::new(), bytes: 0, bytes_max, dropped: 0 };
        let kept = Kept { last: 0, events: queue(EVENT_BYTES_MAX), lines: queue(LINE_BYTES_MAX) };
        let shared = SharedFeed { name, kept: Mutex::new(kept), newest: watch::Sender::new(0) };
        Self { shared: Arc::new(shared) }
    }

    /// Publishes an event, as JSON.
    pub fn publish(&self, json: &str) {
        self.push("", json, |kept| &mut kept.events);
    }

    /// Publishes a line of output, as JSON.
    pub fn publish_line(&self, json: &str) {
        self.push("event: line\n", json, |kept| &mut kept.lines);
    }

    fn push(&self, kind: &str, json: &str, queue: fn(&mut Kept) -> &mut Queue) {
        let mut kept = self.kept();
        let id = kept.last + 1;
        let mut frame = format!("id: {}.{id}\n{kind}", self.shared.name);
        // A line of JSON has no line ends. Others would end the frame.
        for line in json.split(['\n', '\r']) {
            writeln!(frame, "data: {line}").expect("writing to a string does not fail");
        }
        frame.push('\n');
        kept.last = id;
        queue(&mut kept).push(id, frame.into());
        drop(kept);
        self.shared.newest.send_if_modified(|newest| {
            let is_newer = *newest != CLOSED && *newest < id;
            if is_newer {
                *newest = id;
            }
            is_newer
        });
    }

    /// Ends the feed: readers that have got all events are disconnected.
    pub fn close(&self) {
        self.shared.newest.send_replace(CLOSED);
    }

    /// Returns a receiver that changes with each event, and is [`CLOSED`] at the end.
    pub(crate) fn changes(&self) -> watch::Receiver<u64> {
        self.shared.newest.subscribe()
    }

    /// Returns whether the feed ends, given the value of [`changes`](Self::changes).
    pub(crate) fn is_end(newest: u64) -> bool {
        newest == CLOSED
    }

    /// Returns the position after the event with an id, if it is an event of this feed.
    pub(crate) fn position(&self, id: &str) -> Option<u64> {
        let (name, number) = id.rsplit_once('.')?;
        let number = number.parse().ok().filter(|_| name == self.shared.name)?;
        (number <= self.kept().last).then_some(number)
    }

    /// Returns the events and lines after a position, in order, up to about `bytes_max` bytes.
    pub(crate) fn after(&self, position: u64, bytes_max: usize) -> Batch {
        let kept = self.kept();
        let (mut events, mut lines) = (kept.events.after(position), kept.lines.after(position));
        let has_gap = kept.events.dropped > position || (position > 0 && kept.lines.dropped > position);
        let mut batch = Batch { frames: Vec::new(), position, has_gap };
        while batch.frames.len() < bytes_max {
            let number = |next: Option<&&(u64, Bytes)>| next.map_or(u64::MAX, |(id, _)| *id);
            let is_event = number(events.peek()) < number(lines.peek());
            let Some((id, frame)) = (if is_event { events.next() } else { lines.next() }) else { break };
            batch.frames.extend_from_slice(frame);
            batch.position = *id;
        }
        batch
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        // Nothing that holds the lock leaves it half changed.
        self.shared.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Default for EventFeed {
    fn default() -> Self {
        Self::new()
    }
}

impl Queue {
    fn push(&mut self, id: u64, frame: Bytes) {
        self.bytes += frame.len();
        self.frames.push_back((id, frame));
        while self.bytes > self.bytes_max {
            let Some((dropped, frame)) = self.frames.pop_front() else { break };
            self.bytes -= frame.len();
            self.dropped = dropped;
        }
    }

    fn after(&self, position: u64) -> std::iter::Peekable<impl Iterator<Item = &(u64, Bytes)>> {
        let from = self.frames.partition_point(|(id, _)| *id <= position);
        self.frames.range(from..).peekable()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(batch: &Batch) -> &str {
        std::str::from_utf8(&batch.frames).expect("frames are text")
    }

    #[test]
    fn events_and_lines_come_in_order() {
        let feed = EventFeed::new();
        feed.publish("1");
        feed.publish_line("2");
        feed.publish("3\n4\r5");
        let batch = feed.after(0, usize::MAX);
        let frames = text(&batch).replace(&feed.shared.name, "RUN");
        let expected = "id: RUN.1\ndata: 1\n\nid: RUN.2\nevent: line\ndata: 2\n\n\
                        id: RUN.3\ndata: 3\ndata: 4\ndata: 5\n\n";
        assert_eq!((frames.as_str(), batch.position, batch.has_gap), (expected, 3, false));
        assert_eq!(feed.after(3, usize::MAX), Batch { position: 3, ..Batch::default() });
        assert_eq!(feed.after(0, 1).position, 1, "a batch has at least one event");
    }

    #[test]
    fn a_reader_continues_only_in_the_same_feed() {
        let feed = EventFeed::new();
        feed.publish("1");
        let name = &feed.shared.name;
        assert_eq!(feed.position(&format!("{name}.1")), Some(1));
        assert_eq!(feed.position(&format!("{name}.2")), None, "there is no such event yet");
        assert_eq!(feed.position(&format!("{name}0.1")), None);
        assert_eq!(feed.position(&format!("{name}.-1")), None);
        assert_eq!(feed.position("1"), None);
    }

    #[test]
    fn memory_is_bounded_and_a_gap_is_reported() {
        let feed = EventFeed::new();
        feed.publish("first");
        let line = "x".repeat(1000);
        for _ in 0..3000 {
            feed.publish_line(&line);
        }
        let batch = feed.after(0, usize::MAX);
        assert!(text(&batch).contains("data: first\n"), "lines do not displace events");
        assert!(batch.frames.len() < LINE_BYTES_MAX + 1000, "{}", batch.frames.len());
        assert!(!batch.has_gap, "a new reader gets the newest lines");
        assert!(feed.after(1, usize::MAX).has_gap, "a slow reader has lost lines");
        let event = "y".repeat(1 << 20);
        for _ in 0..9 {
            feed.publish(&event);
        }
        let batch = feed.after(0, usize::MAX);
        assert!(batch.has_gap && !text(&batch).contains("data: first\n"));
        assert!(batch.frames.len() <= EVENT_BYTES_MAX + LINE_BYTES_MAX);
    }
}
