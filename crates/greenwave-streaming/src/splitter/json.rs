//! Splits a stream into JSON values, concatenated or newline-delimited, without validating them.

use crate::cut::{Cut, Cuts};
use crate::layout::UnitKind;
use crate::splitter::{Cap, SplitError, Splitter};

/// Splits a stream into JSON values (RFC 8259), with or without white space between them.
///
/// Brackets must match and be nested within the depth cap. Values are not validated further:
/// `[1,,]` is one value, which a parser will reject. A number or literal ends before white space, a
/// bracket, a quote, a comma, a colon or the end of the stream. A value that is cut off by the end
/// of the stream is [incomplete](crate::Unit::is_complete). A value is never split: more than
/// `unit_bytes_max` bytes is an error.
#[derive(Debug)]
pub struct Json {
    unit_bytes_max: usize,
    depth_max: usize,
    state: JsonScan,
    /// The expected closing brackets, innermost last.
    closing: Vec<u8>,
}

/// The position of the scanner. `Idle -> Scalar -> Idle`, `Idle <-> String`, `Idle -> Nested <->
/// String`, `Nested -> Idle`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum JsonScan {
    /// Between values.
    Idle,
    /// In a top-level number or literal.
    Scalar,
    /// Inside brackets, outside strings.
    Nested,
    /// Inside a string.
    String,
    /// Inside a string, after a backslash.
    Escape,
}

impl Default for Json {
    /// Up to 16 MiB and 127 levels, the depth limit of `serde_json`.
    fn default() -> Self {
        Self::new(16 << 20, 127)
    }
}

impl Json {
    /// Creates a splitter for values of up to `unit_bytes_max` bytes, clamped as in [`Cap::error`],
    /// and up to `depth_max` levels. With a depth of zero, only scalars are accepted.
    #[must_use]
    pub fn new(unit_bytes_max: usize, depth_max: usize) -> Self {
        let unit_bytes_max = Cap::error(unit_bytes_max).bytes_max();
        Self { unit_bytes_max, depth_max, state: JsonScan::Idle, closing: Vec::new() }
    }

    fn check(&self, start: usize, end: usize) -> Result<(), SplitError> {
        if end - start > self.unit_bytes_max {
            return Err(SplitError::too_long(start, self.unit_bytes_max));
        }
        Ok(())
    }

    fn emit(&mut self, start: usize, end: usize, out: &mut Cuts) -> Result<usize, SplitError> {
        debug_assert!(self.closing.is_empty(), "a value ends outside brackets");
        self.check(start, end)?;
        self.state = JsonScan::Idle;
        out.push(Cut::new(UnitKind::Json, start..end));
        Ok(end)
    }

    fn open(&mut self, start: usize, at: usize, closing: u8) -> Result<(), SplitError> {
        if self.closing.len() >= self.depth_max {
            // Checks the length first, so that the error does not depend on chunk boundaries.
            self.check(start, at)?;
            return Err(SplitError::too_deep(at, self.depth_max));
        }
        self.closing.push(closing);
        self.state = JsonScan::Nested;
        Ok(())
    }

    /// Processes the byte at `at` inside brackets but outside strings. Returns the start of the
    /// open value, or the end of the value that the byte completes.
    #[inline]
    fn nested(&mut self, byte: u8, start: usize, at: usize, out: &mut Cuts) -> Result<usize, SplitError> {
        match byte {
            b'"' => self.state = JsonScan::String,
            b'{' => self.open(start, at, b'}')?,
            b'[' => self.open(start, at, b']')?,
            b'}' | b']' => {
                if self.closing.pop() != Some(byte) {
                    self.check(start, at)?;
                    return Err(SplitError::malformed(at, "the matching bracket"));
                }
                if self.closing.is_empty() {
                    return self.emit(start, at + 1, out);
                }
            }
            _ => {}
        }
        Ok(start)
    }
}

impl Splitter for Json {
    fn scan(&mut self, window: &[u8], fresh: usize, out: &mut Cuts) -> Result<usize, SplitError> {
        let mut start = 0;
        let mut at = fresh;
        while at < window.len() {
            let byte = window[at];
            match self.state {
                JsonScan::Idle => {
                    start = at;
                    match byte {
                        b' ' | b'\t' | b'\n' | b'\r' => start = at + 1,
                        b'{' => self.open(start, at, b'}')?,
                        b'[' => self.open(start, at, b']')?,
                        b'"' => self.state = JsonScan::String,
                        b'}' | b']' | b',' | b':' => return Err(SplitError::malformed(at, "a JSON value")),
                        _ => self.state = JsonScan::Scalar,
                    }
                    at += 1;
                }
                JsonScan::Scalar => match window[at..].iter().position(|byte| ends_scalar(*byte)) {
                    None => at = window.len(),
                    Some(i) => {
                        at += i;
                        start = self.emit(start, at, out)?;
                    }
                },
                JsonScan::Nested => {
                    start = self.nested(byte, start, at, out)?;
                    at += 1;
                }
                JsonScan::String => match memchr::memchr2(b'"', b'\\', &window[at..]) {
                    None => at = window.len(),
                    Some(i) => {
                        at += i + 1;
                        if window[at - 1] == b'\\' {
                            self.state = JsonScan::Escape;
                        } else if self.closing.is_empty() {
                            start = self.emit(start, at, out)?;
                        } else {
                            self.state = JsonScan::Nested;
                        }
                    }
                },
                JsonScan::Escape => {
                    self.state = JsonScan::String;
                    at += 1;
                }
            }
        }
        if self.state == JsonScan::Idle {
            return Ok(window.len());
        }
        self.check(start, window.len())?;
        Ok(start)
    }

    fn finish(&mut self, window: &[u8], out: &mut Cuts) -> Result<(), SplitError> {
        match self.state {
            JsonScan::Idle => debug_assert!(window.is_empty(), "no bytes are buffered between values"),
            JsonScan::Scalar => out.push(Cut::new(UnitKind::Json, 0..window.len())),
            JsonScan::Nested | JsonScan::String | JsonScan::Escape => {
                out.push(Cut::new(UnitKind::Json, 0..window.len()).incomplete());
            }
        }
        Ok(())
    }
}

fn ends_scalar(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\n' | b'\r' | b'{' | b'}' | b'[' | b']' | b'"' | b',' | b':')
}
