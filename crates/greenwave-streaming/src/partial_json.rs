//! Turns an unfinished JSON value into a valid one by closing open strings and brackets.

mod number;

use crate::error::Error;
use number::NumberState;

/// An incrementally received JSON value (RFC 8259) that is valid at any time.
///
/// [`text`](Self::text) is the longest prefix of the input that becomes a value by closing its
/// strings and brackets, with them closed. `{"a":"x` gives `{"a":"x"}`, and so does `{"a":"x","b`,
/// because the second key has no value yet. A number is shown up to its last valid digit. The cost
/// of a push is proportional to the length of the chunk and the nesting depth, independent of
/// earlier input.
///
/// ```
/// use greenwave_streaming::PartialJson;
///
/// let mut arguments = PartialJson::default();
/// arguments.push(br#"{"path":"src/li"#)?;
/// assert_eq!(arguments.text(), Some(r#"{"path":"src/li"}"#));
/// arguments.push(br#"b.rs","line":1"#)?;
/// assert_eq!(arguments.text(), Some(r#"{"path":"src/lib.rs","line":1}"#));
/// assert!(!arguments.is_complete());
/// # Ok::<(), greenwave_streaming::Error>(())
/// ```
#[derive(Debug)]
pub struct PartialJson {
    bytes_max: usize,
    depth_max: usize,
    /// The prefix, followed by the characters that close it.
    shown: String,
    /// Length of the prefix.
    prefix: usize,
    /// Input after the prefix that cannot be shown yet.
    pending: String,
    /// The open brackets, innermost last.
    open_brackets: Vec<Bracket>,
    state: JsonState,
    /// Bytes pushed.
    offset: u64,
    /// The error that ended the value.
    error: Option<PartialJsonError>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Bracket {
    Array,
    Object,
}

/// The reason that the input is not a value within the limits, with its offset.
#[derive(Debug, Clone, Copy)]
enum PartialJsonError {
    Malformed(u64, &'static str),
    TooDeep(u64),
    TooLong,
}

/// The input that may come next.
#[derive(Debug, Clone, Copy)]
enum JsonState {
    /// A value.
    Value,
    /// A value or the end of an array.
    FirstElement,
    /// A key or the end of an object.
    FirstKey,
    /// A key.
    Key,
    /// The colon after a key.
    Colon,
    /// The input after a value.
    AfterValue,
    /// More of a string.
    String { is_key: bool, position: StringState },
    /// More of a number.
    Number(NumberState),
    /// The rest of a literal.
    Literal(&'static [u8]),
}

/// The position position a string.
#[derive(Debug, Clone, Copy)]
enum StringState {
    /// Between characters.
    Plain,
    /// After a backslash.
    Escape,
    /// In the digits of `\u`, with the first half of the surrogate pair if this is the second.
    Unicode { digits: u8, code: u16, high: Option<u16> },
    /// After the first half of a surrogate pair; `has_backslash` is set if the backslash of the
    /// second half was read.
    Half { high: u16, has_backslash: bool },
    /// In a character of several bytes.
    Character { bytes: [u8; 4], len: u8 },
}

impl Default for PartialJson {
    /// Up to 16 MiB and 127 levels, the depth limit of `serde_json`.
    fn default() -> Self {
        Self::new(16 << 20, 127)
    }
}

impl PartialJson {
    /// Creates an empty value of up to `bytes_max` bytes, nested up to `depth_max` levels.
    #[must_use]
    pub fn new(bytes_max: usize, depth_max: usize) -> Self {
        Self {
            bytes_max,
            depth_max,
            shown: String::new(),
            prefix: 0,
            pending: String::new(),
            open_brackets: Vec::new(),
            state: JsonState::Value,
            offset: 0,
            error: None,
        }
    }

    /// Appends a chunk of the value.
    ///
    /// # Errors
    /// If the input cannot become a value, or exceeds a limit. All later calls return the same
    /// error. [`text`](Self::text) remains available.
    pub fn push(&mut self, chunk: &[u8]) -> Result<(), Error> {
        if self.error.is_none() {
            self.shown.truncate(self.prefix);
            self.error = self.read(chunk).err();
            self.prefix = self.shown.len();
            self.close();
        }
        self.error.map_or(Ok(()), |error| Err(self.stream_error(error)))
    }

    /// Returns the value received up to now, or `None` before its first character.
    #[must_use]
    pub fn text(&self) -> Option<&str> {
        (!self.shown.is_empty()).then_some(&self.shown)
    }

    /// Returns whether the value is complete. A top-level number may always continue.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        let is_whole = match self.state {
            JsonState::AfterValue => true,
            JsonState::Number(number) => number.is_valid(),
            _ => false,
        };
        is_whole && self.open_brackets.is_empty() && self.error.is_none()
    }

    fn read(&mut self, chunk: &[u8]) -> Result<(), PartialJsonError> {
        let mut rest = chunk;
        while let Some((byte, left)) = rest.split_first() {
            if self.offset >= self.bytes_max as u64 {
                return Err(PartialJsonError::TooLong);
            }
            let run = self.run(rest);
            if run > 0 {
                self.offset += run as u64;
                rest = &rest[run..];
                continue;
            }
            self.byte(*byte)?;
            self.offset += 1;
            rest = left;
        }
        Ok(())
    }

    /// Appends characters of a string that need no further parsing; returns the number of bytes.
    fn run(&mut self, rest: &[u8]) -> usize {
        let JsonState::String { is_key, position: StringState::Plain } = self.state else { return 0 };
        let room = usize::try_from(self.bytes_max as u64 - self.offset).unwrap_or(usize::MAX);
        let is_special = |byte: &u8| matches!(byte, b'"' | b'\\' | ..0x20 | 0x80..);
        let run = rest.iter().take(room).position(is_special).unwrap_or(rest.len().min(room));
        let text = std::str::from_utf8(&rest[..run]).unwrap_or_default();
        if is_key {
            self.pending.push_str(text);
        } else {
            self.shown.push_str(text);
        }
        run
    }

    fn byte(&mut self, byte: u8) -> Result<(), PartialJsonError> {
        match self.state {
            JsonState::String { is_key, position } => self.in_string(byte, is_key, position),
            JsonState::Number(number) => self.in_number(byte, number),
            JsonState::Literal(rest) => self.in_literal(byte, rest),
            _ if matches!(byte, b' ' | b'\t' | b'\n' | b'\r') => {
                self.hold(byte);
                // White space can be shown if the prefix could end before it.
                if matches!(self.state, JsonState::AfterValue | JsonState::FirstElement | JsonState::FirstKey)
                {
                    self.show();
                }
                Ok(())
            }
            JsonState::FirstElement if byte == b']' => self.end(byte, Bracket::Array),
            JsonState::Value | JsonState::FirstElement => self.begin(byte),
            JsonState::FirstKey if byte == b'}' => self.end(byte, Bracket::Object),
            JsonState::FirstKey | JsonState::Key => {
                self.expect(byte, b'"', "a key")?;
                self.state = JsonState::String { is_key: true, position: StringState::Plain };
                Ok(())
            }
            JsonState::Colon => {
                self.expect(byte, b':', "a colon")?;
                self.state = JsonState::Value;
                Ok(())
            }
            JsonState::AfterValue => self.after_value(byte),
        }
    }

    fn begin(&mut self, byte: u8) -> Result<(), PartialJsonError> {
        match byte {
            b'"' => {
                self.hold(byte);
                self.show();
                self.state = JsonState::String { is_key: false, position: StringState::Plain };
            }
            b'[' => self.open(byte, Bracket::Array, JsonState::FirstElement)?,
            b'{' => self.open(byte, Bracket::Object, JsonState::FirstKey)?,
            b't' => self.literal(byte, b"rue"),
            b'f' => self.literal(byte, b"alse"),
            b'n' => self.literal(byte, b"ull"),
            _ => {
                let number = NumberState::begin(byte).ok_or_else(|| self.malformed("a JSON value"))?;
                self.hold(byte);
                self.number(number);
            }
        }
        Ok(())
    }

    fn open(&mut self, byte: u8, bracket: Bracket, state: JsonState) -> Result<(), PartialJsonError> {
        if self.open_brackets.len() >= self.depth_max {
            return Err(PartialJsonError::TooDeep(self.offset));
        }
        self.open_brackets.push(bracket);
        self.hold(byte);
        self.show();
        self.state = state;
        Ok(())
    }

    fn end(&mut self, byte: u8, bracket: Bracket) -> Result<(), PartialJsonError> {
        if self.open_brackets.last() != Some(&bracket) {
            return Err(self.malformed("the matching bracket"));
        }
        self.open_brackets.pop();
        self.hold(byte);
        self.show();
        self.state = JsonState::AfterValue;
        Ok(())
    }

    fn after_value(&mut self, byte: u8) -> Result<(), PartialJsonError> {
        match (byte, self.open_brackets.last()) {
            (b',', Some(Bracket::Array)) => self.state = JsonState::Value,
            (b',', Some(Bracket::Object)) => self.state = JsonState::Key,
            (b']', Some(_)) => return self.end(byte, Bracket::Array),
            (b'}', Some(_)) => return self.end(byte, Bracket::Object),
            (_, Some(_)) => return Err(self.malformed("a comma or the matching bracket")),
            (_, None) => return Err(self.malformed("only white space")),
        }
        self.hold(byte);
        Ok(())
    }

    fn literal(&mut self, byte: u8, rest: &'static [u8]) {
        self.hold(byte);
        self.state = JsonState::Literal(rest);
    }

    fn in_literal(&mut self, byte: u8, rest: &'static [u8]) -> Result<(), PartialJsonError> {
        let Some((next, rest)) = rest.split_first().filter(|(next, _)| **next == byte) else {
            return Err(self.malformed("true, false or null"));
        };
        self.hold(*next);
        self.state = JsonState::Literal(rest);
        if rest.is_empty() {
            self.show();
            self.state = JsonState::AfterValue;
        }
        Ok(())
    }

    fn number(&mut self, number: NumberState) {
        if number.is_valid() {
            self.show();
        }
        self.state = JsonState::Number(number);
    }

    fn in_number(&mut self, byte: u8, number: NumberState) -> Result<(), PartialJsonError> {
        if let Some(number) = number.next(byte) {
            self.hold(byte);
            self.number(number);
            return Ok(());
        }
        if !number.is_valid() {
            return Err(self.malformed("a digit"));
        }
        self.state = JsonState::AfterValue;
        self.byte(byte)
    }

    fn in_string(&mut self, byte: u8, is_key: bool, position: StringState) -> Result<(), PartialJsonError> {
        let position = match (position, byte) {
            (StringState::Plain, b'"') => {
                self.hold(byte);
                self.state = if is_key { JsonState::Colon } else { JsonState::AfterValue };
                if !is_key {
                    self.show();
                }
                return Ok(());
            }
            (StringState::Plain, b'\\') => StringState::Escape,
            (StringState::Plain, ..0x20) => {
                return Err(self.malformed("an escaped control character"));
            }
            (StringState::Plain, _) => return self.in_character(byte, is_key, [0; 4], 0),
            (StringState::Character { bytes, len }, _) => return self.in_character(byte, is_key, bytes, len),
            (StringState::Escape, b'u') => StringState::Unicode { digits: 0, code: 0, high: None },
            (StringState::Escape, b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => {
                StringState::Plain
            }
            (StringState::Escape, _) => return Err(self.malformed("an escape")),
            (StringState::Half { high, has_backslash: false }, b'\\') => {
                StringState::Half { high, has_backslash: true }
            }
            (StringState::Half { high, has_backslash: true }, b'u') => {
                StringState::Unicode { digits: 0, code: 0, high: Some(high) }
            }
            (StringState::Half { .. }, _) => {
                return Err(self.malformed("the second half of a surrogate pair"));
            }
            (StringState::Unicode { digits, code, high }, _) => self.unicode(byte, digits, code, high)?,
        };
        self.hold(byte);
        self.in_string_at(is_key, position);
        Ok(())
    }

    fn unicode(
        &self,
        byte: u8,
        digits: u8,
        code: u16,
        high: Option<u16>,
    ) -> Result<StringState, PartialJsonError> {
        let digit = char::from(byte).to_digit(16).ok_or_else(|| self.malformed("four hexadecimal digits"))?;
        let code = code << 4 | digit as u16;
        Ok(match (digits + 1, code, high) {
            (..4, ..) => StringState::Unicode { digits: digits + 1, code, high },
            (_, 0xDC00..=0xDFFF, Some(_)) => StringState::Plain,
            (_, 0xD800..=0xDBFF, None) => StringState::Half { high: code, has_backslash: false },
            (_, 0xDC00..=0xDFFF, None) | (.., Some(_)) => return Err(self.malformed("a surrogate pair")),
            _ => StringState::Plain,
        })
    }

    fn in_character(
        &mut self,
        byte: u8,
        is_key: bool,
        mut bytes: [u8; 4],
        len: u8,
    ) -> Result<(), PartialJsonError> {
        let at = usize::from(len);
        // An invalid sequence is detected at the fourth byte at the latest.
        bytes[at.min(3)] = byte;
        match std::str::from_utf8(&bytes[..=at.min(3)]) {
            Ok(character) => {
                self.pending.push_str(character);
                self.in_string_at(is_key, StringState::Plain);
                Ok(())
            }
            Err(error) if error.error_len().is_none() => {
                self.state =
                    JsonState::String { is_key, position: StringState::Character { bytes, len: len + 1 } };
                Ok(())
            }
            Err(_) => Err(self.malformed("UTF-8")),
        }
    }

    /// Moves to a position in a string. The string of a value is shown at character boundaries.
    fn in_string_at(&mut self, is_key: bool, position: StringState) {
        if matches!(position, StringState::Plain) && !is_key {
            self.show();
        }
        self.state = JsonState::String { is_key, position };
    }

    fn expect(&mut self, byte: u8, wanted: u8, expected: &'static str) -> Result<(), PartialJsonError> {
        if byte != wanted {
            return Err(self.malformed(expected));
        }
        self.hold(byte);
        Ok(())
    }

    /// Appends an ASCII byte to the pending input.
    fn hold(&mut self, byte: u8) {
        debug_assert!(byte.is_ascii(), "others are held as characters");
        self.pending.push(char::from(byte));
    }

    /// Extends the prefix by the pending input.
    fn show(&mut self) {
        self.shown.push_str(&self.pending);
        self.pending.clear();
    }

    fn close(&mut self) {
        if self.prefix == 0 {
            return;
        }
        if matches!(self.state, JsonState::String { is_key: false, .. }) {
            self.shown.push('"');
        }
        let closing = |bracket: &Bracket| if *bracket == Bracket::Array { ']' } else { '}' };
        self.shown.extend(self.open_brackets.iter().rev().map(closing));
    }

    fn malformed(&self, expected: &'static str) -> PartialJsonError {
        PartialJsonError::Malformed(self.offset, expected)
    }

    fn stream_error(&self, error: PartialJsonError) -> Error {
        match error {
            PartialJsonError::Malformed(offset, expected) => Error::Malformed { offset, expected },
            PartialJsonError::TooDeep(offset) => Error::TooDeep { offset, depth_max: self.depth_max },
            PartialJsonError::TooLong => Error::UnitTooLong { offset: 0, bytes_max: self.bytes_max },
        }
    }
}
