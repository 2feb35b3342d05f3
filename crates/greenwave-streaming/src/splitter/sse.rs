//! Server-sent events, as the HTML standard parses them
//! (<https://html.spec.whatwg.org/multipage/server-sent-events.html>).

use std::ops::Range;
use std::time::Duration;

use bytes::Bytes;

use crate::cut::{Cut, Cuts};
use crate::layout::{Form, Label, UnitKind};
use crate::splitter::line_ends::find_end;
use crate::splitter::{Cap, SplitError, Splitter};

const BOM: &[u8] = b"\xEF\xBB\xBF";

/// The length of the longest field name, `event` or `retry`.
const NAME_BYTES_MAX: usize = 5;

/// Cuts an event stream into its events; the unit is the event's data, with
/// [`event`](crate::Unit::event) and [`id`](crate::Unit::id).
///
/// Byte order mark, all three line ends, comments, empty data, ids with NUL and unknown fields are
/// treated as the standard says; an event that the end of the stream cuts off is discarded, as it
/// says. In types and ids, what is not UTF-8 becomes U+FFFD, as it says; in data such bytes stay as
/// they are: decode the unit with replacement to get the standard's text. An event is never split:
/// more than `unit_bytes_max` bytes of lines is an error.
#[derive(Debug)]
pub struct Sse {
    unit_bytes_max: usize,
    /// Nothing has been scanned yet: a byte order mark may stand here.
    at_start: bool,
    after_cr: bool,
    /// Where in the window the unfinished line starts.
    line: usize,
    event: Event,
    /// The last event id, where it stands before the window.
    last_id: Vec<u8>,
    /// The same for units that have it from there; made when one needs it.
    shared_id: Option<Bytes>,
    retry: Option<Duration>,
}

/// The event that is being read. Ranges of the window.
#[derive(Debug, Default)]
struct Event {
    data: Option<Range<usize>>,
    data_lines: usize,
    name: Option<Range<usize>>,
    id: Option<Range<usize>>,
}

/// The last event id, where it stands in the window.
#[derive(Debug)]
struct Id {
    range: Range<usize>,
    label: Label,
}

impl Default for Sse {
    /// Events up to 16 MiB.
    fn default() -> Self {
        Self::new(16 << 20)
    }
}

impl Sse {
    /// Events up to `unit_bytes_max` bytes, counted over all their lines and taken as by
    /// [`Cap::error`].
    #[must_use]
    pub fn new(unit_bytes_max: usize) -> Self {
        Self {
            unit_bytes_max: Cap::error(unit_bytes_max).bytes_max(),
            at_start: true,
            after_cr: false,
            line: 0,
            event: Event::default(),
            last_id: Vec::new(),
            shared_id: None,
            retry: None,
        }
    }

    /// Goes on after a break: events without an id have `last_event_id`, as in the stream before.
    #[must_use]
    pub fn after(mut self, last_event_id: &[u8]) -> Self {
        self.last_id = String::from_utf8_lossy(last_event_id).into_owned().into_bytes();
        self
    }

    /// The last event id, which is UTF-8: what to send as `Last-Event-ID` when the stream is opened
    /// again.
    #[must_use]
    pub fn last_event_id(&self) -> &[u8] {
        &self.last_id
    }

    /// How long to wait before the stream is opened again, where the stream has said so.
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

    /// Takes in one line that is not empty. Most are `data: …`.
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
        // The names that mean anything are short.
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

    /// The event has ended; reports it if it has data. `id` becomes the last event id of this
    /// window.
    #[inline]
    fn dispatch(&mut self, window: &[u8], id: &mut Option<Id>, out: &mut Cuts) {
        let event = std::mem::take(&mut self.event);
        if let Some(range) = event.id {
            *id = Some(Id { label: out.label(window, range.clone()), range });
        }
        let Some(data) = event.data else { return };
        let form = if event.data_lines > 1 { Form::DataLines } else { Form::Plain };
        let name = event.name.map_or(Label::NONE, |name| out.label(window, name));
        self.report(Cut::new(UnitKind::Event, data).with_form(form), name, id.as_ref(), out);
    }

    #[inline]
    fn report(&mut self, cut: Cut, name: Label, id: Option<&Id>, out: &mut Cuts) {
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

    /// The data of the line that ends at `end`, if it is an event of its own: one line of data, and
    /// a blank one. Most events are.
    #[inline]
    fn whole_event(&self, window: &[u8], line: usize, end: usize) -> Option<Range<usize>> {
        if !self.event.is_empty() || window[end..].first_chunk() != Some(b"\n\n") {
            return None;
        }
        let value = window[line..end].strip_prefix(b"data:")?;
        let space = usize::from(value.first() == Some(&b' '));
        Some(line + b"data:".len() + space..end)
    }

    /// Steps over a byte order mark; `None` while it may still be one.
    #[cold]
    fn start(&mut self, window: &[u8]) -> Option<usize> {
        if window.len() < BOM.len() && BOM.starts_with(window) {
            return None;
        }
        self.at_start = false;
        Some(if window.starts_with(BOM) { BOM.len() } else { 0 })
    }

    /// Where the line after the end at `end` starts.
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

    /// Looks at all lines that end at or after `fresh`; where the first of them does may be known.
    fn lines(
        &mut self,
        window: &[u8],
        fresh: usize,
        mut first: Option<usize>,
        out: &mut Cuts,
    ) -> Result<usize, SplitError> {
        // Where the event starts of which something must be kept, and from where on line ends are
        // looked for.
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
        let mut id: Option<Id> = None;
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

impl Event {
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
            // Most short chunks end no line. The window starts with the event or the line that they
            // go on with.
            None => self.check(0, window.len()).map(|()| 0),
            first => self.lines(window, fresh, first, out),
        }
    }

    fn finish(&mut self, _window: &[u8], _out: &mut Cuts) -> Result<(), SplitError> {
        Ok(())
    }
}

/// The next end of a line. That of a blank one is seen without a search.
#[inline]
fn next_end(window: &[u8], line: usize, from: usize) -> Option<usize> {
    match window.get(line) {
        Some(b'\n' | b'\r') if line == from => Some(line),
        _ => find_end(window, from),
    }
}

/// Only ASCII digits count; a number beyond 64 bits is no time to wait for and is ignored.
fn milliseconds(digits: &[u8]) -> Option<Duration> {
    if !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(digits).ok()?.parse().ok().map(Duration::from_millis)
}
