//! Server-sent events as values.

use std::fmt;
use std::time::Duration;

use crate::encode::EncodeError;
use crate::unit::Unit;

/// A server-sent event, as the HTML standard defines it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Event {
    /// Type of the event: `message` if the stream named none. Empty counts as `message` when the
    /// event is encoded.
    pub event: String,
    /// The data. Bytes that are not UTF-8 are replaced by U+FFFD, as the standard requires.
    pub data: String,
    /// The stream's last event id at this event, or empty.
    pub id: String,
    /// The reconnection delay that the stream had requested when the event was read, in
    /// milliseconds when it is encoded.
    pub retry: Option<Duration>,
}

impl Event {
    /// Creates an event of the type `message`, without an id.
    #[must_use]
    pub fn new(data: impl Into<String>) -> Self {
        Self { data: data.into(), ..Self::default() }
    }

    /// Sets the type.
    #[must_use]
    pub fn with_event(self, event: impl Into<String>) -> Self {
        Self { event: event.into(), ..self }
    }

    /// Sets the id.
    #[must_use]
    pub fn with_id(self, id: impl Into<String>) -> Self {
        Self { id: id.into(), ..self }
    }

    /// Sets the reconnection delay, which is rounded down to a millisecond.
    #[must_use]
    pub fn with_retry(self, retry: Duration) -> Self {
        Self { retry: Some(retry), ..self }
    }

    pub(crate) fn of(unit: Unit<'_>, retry: Option<Duration>) -> Self {
        Self {
            event: unit.event().unwrap_or_default().to_owned(),
            data: String::from_utf8_lossy(&unit.content()).into_owned(),
            id: unit.id().unwrap_or_default().to_owned(),
            retry,
        }
    }

    /// Appends the event to `out` as lines of an event stream.
    ///
    /// LF, CRLF and CR in the data become LF, because the format has no others.
    ///
    /// # Errors
    /// If the type or the id has a line end, or the id a NUL, which the format cannot express.
    /// `out` is unchanged then.
    pub fn encode(&self, out: &mut String) -> Result<(), EncodeError> {
        let has_line_end = |text: &str| text.contains(['\n', '\r']);
        if has_line_end(&self.event) {
            return Err(EncodeError::new("the type of an event", "a line end"));
        }
        if has_line_end(&self.id) || self.id.contains('\0') {
            return Err(EncodeError::new("the id of an event", "a line end or NUL"));
        }
        let fields = [("event", &self.event), ("id", &self.id)];
        for (name, value) in fields.into_iter().filter(|(_, value)| !value.is_empty()) {
            field(out, name, value);
        }
        if let Some(retry) = self.retry {
            field(out, "retry", &retry.as_millis().to_string());
        }
        let data = self.data.replace("\r\n", "\n");
        data.split(['\n', '\r']).for_each(|line| field(out, "data", line));
        out.push('\n');
        Ok(())
    }
}

fn field(out: &mut String, name: &str, value: &str) {
    // A space after the colon is not part of the value, so one that is must follow another.
    for part in [name, ": ", value, "\n"] {
        out.push_str(part);
    }
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.data)
    }
}
