//! Splits an event stream into server-sent events, as the HTML standard defines
//! (<https://html.spec.whatwg.org/multipage/server-sent-events.html>).

use std::ops::Range;
use std::time::Duration;

use bytes::Bytes;

use crate::cut::{Cut, Cuts};
use crate::layout::{Form, Label, UnitKind};
use crate::splitter::line_ends::find_end;
use crate::splitter::{Cap, SplitError, Splitter};

const BOM: &[u8] = b"\xEF\xBB\xBF";

/// Length of the longest field name, `event` or `retry`.
const NAME_BYTES_MAX: usize = 5;

/// Splits an event stream into events. The unit is the event's data, with
/// [`event`](crate::Unit::event) and [`id`](crate::Unit::id).
///
/// The byte order mark, all three line endings, comments, empty data, ids with NUL and unknown
/// fields are handled as the standard requires. An event that is cut off by the end of the stream
/// is discarded. In types and ids, bytes that are not UTF-8 are replaced by U+FFFD. In data they
/// are preserved: decode the unit with replacement to get the standard's text. An event is never
/// split: more than `unit_bytes_max` bytes of lines is an error.
#[derive(Debug)]
pub struct Sse {
    unit_bytes_max: usize,
    /// No byte was scanned yet, so a byte order mark may follow.
    at_start: bool,
    after_cr: bool,
    /// Start of the unfinished line in the window.
    line: usize,
    event: PendingEvent,
    /// The last event id, if it is before the window.
    last_id: Vec<u8>,
    /// `last_id` as a shared buffer, created when a unit needs it.
    shared_id: Option<Bytes>,
    retry: Option<Duration>,
}

/// The event that is being read. All ranges are relative to the window.
#[derive(Debug, Default)]
struct PendingEvent {
    data: Option<Range<usize>>,
    data_lines: usize,
    name: Option<Range<usize>>,
    id: Option<Range<usize>>,
}

/// The last event id, if it is in the window.
#[derive(Debug)]
struct WindowId {
    range: Range<usize>,
    label: Label,
}

impl Default for Sse {
    /// Events of up to 16 MiB.
    fn default() -> Self {
        Self::new(16 << 20)
    }
}

impl Sse {
    /// Creates a splitter for events of up to `unit_bytes_max` bytes, summed over all lines of an
    /// event and clamped as in [`Cap::error`].
    #[must_use]
    pub fn new(unit_bytes_max: usize) -> Self {
        Self {
            unit_bytes_max: Cap::error(unit_bytes_max).bytes_max(),
            at_start: true,
            after_cr: false,
            line: 0,
            event: PendingEvent::default(),
            last_id: Vec::new(),
            shared_id: None,
            retry: None,
        }
    }

    /// Continues a broken stream: events without an id have `last_event_id`.
    #[must_use]
    pub fn after(mut self, last_event_id: &[u8]) -> Self {
        self.last_id = String::from_utf8_lossy(last_event_id).into_owned().into_bytes();
        self
    }

    /// Returns the last event id, which is UTF-8. Send it as `Last-Event-ID` to reopen the stream.
    #[must_use]
    pub fn last_event_id(&self) -> &[u8] {
        &self.last_id
    }

    /// Returns the reconnection delay that the stream requested, if any.
    #[must_use]
    pub fn retry(&self) -> Option<Duration> {
        self.retry
    }

    fn check(&self, start: usize, end: usize) -> Result<(), SplitError> {
        if end.saturating_sub(start) > self.unit_bytes_max {
            return Err(SplitError::too_long(start, self.unit_bytes_max));
        }
        Ok(())
    }

    /// Processes a non-empty line. Most are `data: …`.
    #[inline]
    fn line(&mut self, window: &[u8], line: Range<usize>) {
        if let Some(value) = window[line.clone()].strip_prefix(b"data:") {
            let space = usize::from(value.first() == Some(&b' '));
            self.event.add_data(line.start + b"data:".len() + space..line.end);
        } else {
            self.field(window, line);
        }
    }

    fn field(&mut self, window: &[u8], line: Range<usize>) {
        let text = &window[line.clone()];
        // All defined field names are short.
        let colon = text.iter().take(NAME_BYTES_MAX + 1).position(|byte| *byte == b':');
        let name = &text[..colon.unwrap_or(text.len())];
        let value = colon.map_or(line.end, |colon| {
            let space = text.get(colon + 1) == Some(&b' ');
            line.start + colon + 1 + usize::from(space)
        });
        let value = value..line.end;
        match name {
            b"data" => self.event.add_data(value),
            b"event" => self.event.name = Some(value),
            b"id" if memchr::memchr(0, &window[value.clone()]).is_none() => self.event.id = Some(value),
            b"retry" => self.retry = milliseconds(&window[value]).or(self.retry),
            _ => {}
        }
    }

    /// Ends the event and reports it if it has data. `id` becomes the last event id of this window.
    #[inline]
    fn dispatch(&mut self, window: &[u8], id: &mut Option<WindowId>, out: &mut Cuts) {
        let event = std::mem::take(&mut self.event);
        if let Some(range) = event.id {
            *id = Some(WindowId { label: out.label(window, range.clone()), range });
        }
        let Some(data) = event.data else { return };
        let form = if event.data_lines > 1 { Form::DataLines } else { Form::Plain };
        let name = event.name.map_or(Label::NONE, |name| out.label(window, name));
        self.report(Cut::new(UnitKind::Event, data).with_form(form), name, id.as_ref(), out);
    }

    #[inline]
    fn report(&mut self, cut: Cut, name: Label, id: Option<&WindowId>, out: &mut Cuts) {
        let label = match id {
            Some(id) => id.label,
            None if self.last_id.is_empty() => Label::NONE,
            None => {
                let shared = self.shared_id.get_or_insert_with(|| Bytes::copy_from_slice(&self.last_id));
                out.carry(shared.clone());
                Label::CARRIED
            }
        };
        out.push(cut.with_labels(name, label));
    }

    /// Returns the data of the line that ends at `end` if it is a complete event: one line of data
    /// and a blank line. Most events are.
    #[inline]
    fn whole_event(&self, window: &[u8], line: usize, end: usize) -> Option<Range<usize>> {
        if !self.event.is_empty() || window[end..].first_chunk() != Some(b"\n\n") {
            return None;
        }
        let value = window[line..end].strip_prefix(b"data:")?;
        let space = usize::from(value.first() == Some(&b' '));
        Some(line + b"data:".len() + space..end)
    }

    /// Skips a byte order mark. Returns `None` while the window may still be the start of one.
    #[cold]
    fn start(&mut self, window: &[u8]) -> Option<usize> {
        if window.len() < BOM.len() && BOM.starts_with(window) {
            return None;
        }
        self.at_start = false;
        Some(if window.starts_with(BOM) { BOM.len() } else { 0 })
    }

    /// Returns the start of the line after the line ending at `end`.
    #[inline]
    fn line_after(&mut self, window: &[u8], end: usize) -> usize {
        if window[end] == b'\n' {
            return end + 1;
        }
        match window.get(end + 1) {
            Some(b'\n') => end + 2,
            Some(_) => end + 1,
            None => {
                self.after_cr = true;
                end + 1
            }
        }
    }

    /// Processes all lines that end at or after `fresh`. `first` is the end of the first of them,
    /// if it was found already.
    fn lines(
        &mut self,
        window: &[u8],
        fresh: usize,
        mut first: Option<usize>,
        out: &mut Cuts,
    ) -> Result<usize, SplitError> {
        // The start of the open event, and the offset from which to search for line endings.
        let (mut start, mut from) = (0, fresh);
        if self.at_start {
            let Some(skipped) = self.start(window) else { return Ok(0) };
            (start, from, self.line) = (skipped, skipped, skipped);
        }
        if self.after_cr {
            self.after_cr = window.get(from).is_none();
            if window.get(from) == Some(&b'\n') {
                from += 1;
                self.line = from;
                start = if self.event.is_empty() { from } else { 0 };
            }
        }
        let mut line = self.line;
        let mut id: Option<WindowId> = None;
        while let Some(end) = first.take().or_else(|| next_end(window, line, from)) {
            if end == line {
                self.dispatch(window, &mut id, out);
                line = self.line_after(window, end);
            } else {
                self.check(start, end)?;
                if let Some(data) = self.whole_event(window, line, end) {
                    if id.is_none() && self.last_id.is_empty() {
                        out.push_plain(UnitKind::Event, &data);
                    } else {
                        self.report(Cut::new(UnitKind::Event, data), Label::NONE, id.as_ref(), out);
                    }
                    line = end + 2;
                } else {
                    self.line(window, line..end);
                    line = self.line_after(window, end);
                }
            }
            from = line;
            if self.event.is_empty() {
                start = line;
            }
        }
        if line < window.len() {
            self.check(start, window.len())?;
        }
        if start > 0 {
            if let Some(id) = id {
                self.last_id.clear();
                self.last_id.extend_from_slice(String::from_utf8_lossy(&window[id.range]).as_bytes());
                self.shared_id = None;
            }
            self.event.shift(start);
        }
        self.line = line - start;
        Ok(start)
    }
}

impl PendingEvent {
    fn is_empty(&self) -> bool {
        self.data.is_none() && self.name.is_none() && self.id.is_none()
    }

    fn add_data(&mut self, value: Range<usize>) {
        let start = self.data.as_ref().map_or(value.start, |data| data.start);
        self.data = Some(start..value.end);
        self.data_lines += 1;
    }

    fn shift(&mut self, by: usize) {
        for range in [&mut self.data, &mut self.name, &mut self.id].into_iter().flatten() {
            *range = range.start - by..range.end - by;
        }
    }
}

impl Splitter for Sse {
    fn scan(&mut self, window: &[u8], fresh: usize, out: &mut Cuts) -> Result<usize, SplitError> {
        let is_inside_line = self.line < fresh && !self.at_start && !self.after_cr;
        if !is_inside_line {
            return self.lines(window, fresh, None, out);
        }
        match find_end(window, fresh) {
            // Most short chunks do not end a line. The window starts with the open event or line.
            None => self.check(0, window.len()).map(|()| 0),
            first => self.lines(window, fresh, first, out),
        }
    }

    fn finish(&mut self, _window: &[u8], _out: &mut Cuts) -> Result<(), SplitError> {
        Ok(())
    }
}

/// Returns the next line ending. The end of a blank line is found without a search.
#[inline]
fn next_end(window: &[u8], line: usize, from: usize) -> Option<usize> {
    match window.get(line) {
        Some(b'\n' | b'\r') if line == from => Some(line),
        _ => find_end(window, from),
    }
}

/// Parses ASCII digits. A number beyond 64 bits is ignored.
fn milliseconds(digits: &[u8]) -> Option<Duration> {
    if !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(digits).ok()?.parse().ok().map(Duration::from_millis)
}
