//! Writes traces for Perfetto and `chrome://tracing`.
//!
//! The format is the JSON array of the [Trace Event Format][format]. Each event is written when it
//! happens, and the closing bracket is optional, so that a killed run leaves a trace up to that
//! moment. Times are in microseconds since the start of the run. Events lie on numbered tracks, in
//! groups that viewers sort by their number.
//!
//! [format]: https://docs.google.com/document/d/1CvAClvFfyA5R-PhYUmn5OOQtYMH4h6I0nSsKchNAySU

use std::io::{self, Write};
use std::time::Duration;

use serde_json::{Value, json};

use crate::terminal_text::safe_json;

/// A group and the number of a track in it.
pub(crate) type Track = (u32, u32);

/// Writes the events of a trace.
#[derive(Debug)]
pub(crate) struct TraceEvents<W> {
    out: W,
    is_first: bool,
    /// End of the last slice on each track of the group that shows what runs at the same time.
    parallel: Vec<Duration>,
}

impl<W: Write> TraceEvents<W> {
    /// Begins a trace with these groups, in their order.
    pub(crate) fn begin(out: W, groups: &[(u32, &str)]) -> io::Result<Self> {
        let mut events = Self { out, is_first: true, parallel: Vec::new() };
        for (group, name) in groups {
            events
                .write(&json!({"ph": "M", "name": "process_name", "pid": group, "args": {"name": name}}))?;
            let args = json!({"sort_index": group});
            events.write(&json!({"ph": "M", "name": "process_sort_index", "pid": group, "args": args}))?;
        }
        Ok(events)
    }

    /// Names a track.
    pub(crate) fn name_track(&mut self, (group, track): Track, name: &str) -> io::Result<()> {
        let args = json!({"name": name});
        self.write(&json!({"ph": "M", "name": "thread_name", "pid": group, "tid": track, "args": args}))
    }

    /// Writes a slice of a track.
    pub(crate) fn slice(
        &mut self,
        (group, track): Track,
        name: &str,
        [start, end]: [Duration; 2],
        details: &Value,
    ) -> io::Result<()> {
        self.write(&json!({
            "ph": "X", "name": name, "pid": group, "tid": track, "ts": micros(start),
            "dur": micros(end.saturating_sub(start)), "args": details,
        }))
    }

    /// Writes a slice to the first track of a group whose last slice ended before this one starts.
    /// A trace has one such group.
    pub(crate) fn parallel_slice(
        &mut self,
        group: u32,
        name: &str,
        [start, end]: [Duration; 2],
        details: &Value,
    ) -> io::Result<()> {
        let free = self.parallel.iter().position(|end| *end <= start);
        let index = free.unwrap_or(self.parallel.len());
        let track = (group, number_of(index));
        if free.is_none() {
            self.parallel.push(end);
            self.name_track(track, &format!("worker {}", index + 1))?;
        }
        self.parallel[index] = end;
        self.slice(track, name, [start, end], details)
    }

    /// Writes an event that has no duration. Without a track, it concerns the whole trace.
    pub(crate) fn moment(
        &mut self,
        group: u32,
        track: Option<u32>,
        name: &str,
        at: Duration,
        details: &Value,
    ) -> io::Result<()> {
        let (track, scope) = track.map_or((0, "g"), |track| (track, "t"));
        self.write(&json!({
            "ph": "i", "name": name, "s": scope, "pid": group, "tid": track, "ts": micros(at), "args": details,
        }))
    }

    /// Writes the values of a counter.
    pub(crate) fn counts(&mut self, group: u32, name: &str, at: Duration, counts: &Value) -> io::Result<()> {
        self.write(&json!({"ph": "C", "name": name, "pid": group, "ts": micros(at), "args": counts}))
    }

    /// Writes buffered events, so that a killed run leaves them.
    pub(crate) fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }

    /// Ends the array.
    pub(crate) fn end(&mut self) -> io::Result<()> {
        self.out.write_all(b"\n]\n")?;
        self.out.flush()
    }

    /// Returns the written text.
    #[cfg(test)]
    pub(crate) fn written(self) -> W {
        self.out
    }

    fn write(&mut self, event: &Value) -> io::Result<()> {
        self.out.write_all(if std::mem::replace(&mut self.is_first, false) { b"[\n" } else { b",\n" })?;
        self.out.write_all(safe_json(&event.to_string()).as_bytes())
    }
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

/// Returns the number of a track from its index.
pub(crate) fn number_of(index: usize) -> u32 {
    u32::try_from(index).unwrap_or(u32::MAX - 1)
}
