//! JSON values, concatenated or newline-delimited. Finds where they end; what stands inside is for
//! a parser to judge.

use crate::cut::{Cut, Cuts};
use crate::layout::UnitKind;
use crate::splitter::{Cap, SplitError, Splitter};

/// Cuts a stream into JSON values (RFC 8259), with or without white space between them.
///
/// Brackets must match and be nested within the depth cap. Beyond that a value is not validated:
/// `[1,,]` is one value, which a parser will refuse. A number or literal ends where white space, a
/// bracket, a quote, a comma or a colon follows, or the stream ends. A value that the end of the
/// stream cuts off is [incomplete](crate::Unit::is_complete). A value is never split: beyond
/// `unit_bytes_max` is an error.
#[derive(Debug)]
pub struct Json {
    unit_bytes_max: usize,
    depth_max: usize,
    state: State,
    /// The closing brackets that are due, innermost last.
    due: Vec<u8>,
}

/// Where in a value the scanner stands. `Idle -> Scalar -> Idle`, `Idle <-> String`, `Idle ->
/// Nested <-> String`, `Nested -> Idle`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Between values.
    Idle,
    /// In a number or literal that is a value of its own.
    Scalar,
    /// Inside brackets, outside strings.
    Nested,
    /// Inside a string.
    String,
    /// Inside a string, after a backslash.
    Escape,
}

impl Default for Json {
    /// Values up to 16 MiB and 127 levels, which is as deep as `serde_json` goes.
    fn default() -> Self {
        Self::new(16 << 20, 127)
    }
}

impl Json {
    /// Values up to `unit_bytes_max` bytes, taken as by [`Cap::error`], nested in up to `depth_max`
    /// levels; with zero, only scalars.
    #[must_use]
    pub fn new(unit_bytes_max: usize, depth_max: usize) -> Self {
        let unit_bytes_max = Cap::error(unit_bytes_max).bytes_max();
        Self { unit_bytes_max, depth_max, state: State::Idle, due: Vec::new() }
    }

    fn check(&self, start: usize, end: usize) -> Result<(), SplitError> {
        if end - start > self.unit_bytes_max {
            return Err(SplitError::too_long(start, self.unit_bytes_max));
        }
        Ok(())
    }

    fn emit(&mut self, start: usize, end: usize, out: &mut Cuts) -> Result<usize, SplitError> {
        debug_assert!(self.due.is_empty(), "a value ends outside brackets");
        self.check(start, end)?;
        self.state = State::Idle;
        out.push(Cut::new(UnitKind::Json, start..end));
        Ok(end)
    }

    fn open(&mut self, start: usize, at: usize, closing: u8) -> Result<(), SplitError> {
        if self.due.len() >= self.depth_max {
            // The length comes first, whichever of the two a chunk's end shows first.
            self.check(start, at)?;
            return Err(SplitError::too_deep(at, self.depth_max));
        }
        self.due.push(closing);
        self.state = State::Nested;
        Ok(())
    }
}

impl Splitter for Json {
    fn scan(&mut self, window: &[u8], fresh: usize, out: &mut Cuts) -> Result<usize, SplitError> {
        let mut start = 0;
        let mut at = fresh;
        while at < window.len() {
            let byte = window[at];
            match self.state {
                State::Idle => {
                    start = at;
                    match byte {
                        b' ' | b'\t' | b'\n' | b'\r' => start = at + 1,
                        b'{' => self.open(start, at, b'}')?,
                        b'[' => self.open(start, at, b']')?,
                        b'"' => self.state = State::String,
                        b'}' | b']' | b',' | b':' => return Err(SplitError::malformed(at, "a JSON value")),
                        _ => self.state = State::Scalar,
                    }
                    at += 1;
                }
                State::Scalar => match window[at..].iter().position(|byte| ends_scalar(*byte)) {
                    None => at = window.len(),
                    Some(i) => {
                        at += i;
                        start = self.emit(start, at, out)?;
                    }
                },
                State::Nested => {
                    match byte {
                        b'"' => self.state = State::String,
                        b'{' => self.open(start, at, b'}')?,
                        b'[' => self.open(start, at, b']')?,
                        b'}' | b']' => {
                            if self.due.pop() != Some(byte) {
                                self.check(start, at)?;
                                return Err(SplitError::malformed(at, "the bracket that matches"));
                            }
                            if self.due.is_empty() {
                                start = self.emit(start, at + 1, out)?;
                            }
                        }
                        _ => {}
                    }
                    at += 1;
                }
                State::String => match memchr::memchr2(b'"', b'\\', &window[at..]) {
                    None => at = window.len(),
                    Some(i) => {
                        at += i + 1;
                        if window[at - 1] == b'\\' {
                            self.state = State::Escape;
                        } else if self.due.is_empty() {
                            start = self.emit(start, at, out)?;
                        } else {
                            self.state = State::Nested;
                        }
                    }
                },
                State::Escape => {
                    self.state = State::String;
                    at += 1;
                }
            }
        }
        if self.state == State::Idle {
            return Ok(window.len());
        }
        self.check(start, window.len())?;
        Ok(start)
    }

    fn finish(&mut self, window: &[u8], out: &mut Cuts) -> Result<(), SplitError> {
        match self.state {
            State::Idle => debug_assert!(window.is_empty(), "nothing is kept between values"),
            State::Scalar => out.push(Cut::new(UnitKind::Json, 0..window.len())),
            State::Nested | State::String | State::Escape => {
                out.push(Cut::new(UnitKind::Json, 0..window.len()).incomplete());
            }
        }
        Ok(())
    }
}

fn ends_scalar(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\n' | b'\r' | b'{' | b'}' | b'[' | b']' | b'"' | b',' | b':')
}
