//! An unfinished JSON value as one that can be shown: the longest prefix that becomes valid by closing what is open. Unaware of streams.

mod number;

use crate::error::Error;
use number::Number;

/// A JSON value (RFC 8259) as it comes in, valid at any time.
///
/// [`text`](Self::text) is the longest prefix of what was pushed that is a value once its strings and brackets are closed, with them
/// closed: `{"a":"x` gives `{"a":"x"}`, and so does `{"a":"x","b`, as the second key has no value yet. A number is shown as far as it is
/// one. A push costs time in proportion to what is pushed and to the depth, whatever came before.
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
    /// The prefix, and behind it what closes it.
    shown: String,
    /// Length of the prefix.
    prefix: usize,
    /// What follows the prefix and cannot be shown yet.
    pending: String,
    /// What closes the brackets that are open, innermost last.
    due: Vec<Bracket>,
    state: State,
    /// Bytes pushed.
    offset: u64,
    /// Where and why it is no value.
    fault: Option<SplitError>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Bracket {
    Array,
    Object,
}

/// What was expected at a place, or a limit that was passed there.
#[derive(Debug, Clone, Copy)]
enum SplitError {
    Malformed(u64, &'static str),
    TooDeep(u64),
    TooLong,
}

/// What may come next.
#[derive(Debug, Clone, Copy)]
enum State {
    /// A value.
    Value,
    /// A value or the end of the array that has just begun.
    FirstElement,
    /// A key or the end of the object that has just begun.
    FirstKey,
    /// A key.
    Key,
    /// The colon behind a key.
    Colon,
    /// What follows a value.
    Behind,
    /// More of a string.
    String { is_key: bool, inside: Inside },
    /// More of a number.
    Number(Number),
    /// The rest of a literal.
    Literal(&'static [u8]),
}

/// Where in a string.
#[derive(Debug, Clone, Copy)]
enum Inside {
    /// Between characters.
    Plain,
    /// Behind a backslash.
    Escape,
    /// In the digits of `\u`; the first half of a surrogate pair, if this is the second.
    Unicode { digits: u8, code: u16, high: Option<u16> },
    /// Behind the first half of a surrogate pair, whose second half has to follow; whether its backslash has.
    Half { high: u16, has_backslash: bool },
    /// In a character of several bytes.
    Character { bytes: [u8; 4], len: u8 },
}

impl Default for PartialJson {
    /// Up to 16 MiB and 127 levels, which is as deep as `serde_json` goes.
    fn default() -> Self {
        Self::new(16 << 20, 127)
    }
}

impl PartialJson {
    /// A value of up to `bytes_max` bytes, nested in up to `depth_max` levels.
    #[must_use]
    pub fn new(bytes_max: usize, depth_max: usize) -> Self {
        Self {
            bytes_max,
            depth_max,
            shown: String::new(),
            prefix: 0,
            pending: String::new(),
            due: Vec::new(),
            state: State::Value,
            offset: 0,
            fault: None,
        }
    }

    /// Takes in more of the value.
    ///
    /// # Errors
    /// If it cannot become a value, or is beyond its limits; from then on always. What was valid before is still shown.
    pub fn push(&mut self, chunk: &[u8]) -> Result<(), Error> {
        if self.fault.is_none() {
            self.shown.truncate(self.prefix);
            self.fault = self.read(chunk).err();
            self.prefix = self.shown.len();
            self.close();
        }
        self.fault.map_or(Ok(()), |fault| Err(self.error(fault)))
    }

    /// The value so far; `None` while there is none.
    #[must_use]
    pub fn text(&self) -> Option<&str> {
        (!self.shown.is_empty()).then_some(&self.shown)
    }

    /// Whether the value is there as a whole. A number outside brackets may always go on.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        let is_whole = match self.state {
            State::Behind => true,
            State::Number(number) => number.is_valid(),
            _ => false,
        };
        is_whole && self.due.is_empty() && self.fault.is_none()
    }

    fn read(&mut self, chunk: &[u8]) -> Result<(), SplitError> {
        let mut rest = chunk;
        while let Some((byte, left)) = rest.split_first() {
            if self.offset >= self.bytes_max as u64 {
                return Err(SplitError::TooLong);
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

    /// Takes characters of a string that mean nothing else; returns how many bytes they are.
    fn run(&mut self, rest: &[u8]) -> usize {
        let State::String { is_key, inside: Inside::Plain } = self.state else { return 0 };
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

    fn byte(&mut self, byte: u8) -> Result<(), SplitError> {
        match self.state {
            State::String { is_key, inside } => self.in_string(byte, is_key, inside),
            State::Number(number) => self.in_number(byte, number),
            State::Literal(rest) => self.in_literal(byte, rest),
            _ if matches!(byte, b' ' | b'\t' | b'\n' | b'\r') => {
                self.hold(byte);
                // A blank can be shown where the prefix could end before it.
                if matches!(self.state, State::Behind | State::FirstElement | State::FirstKey) {
                    self.show();
                }
                Ok(())
            }
            State::FirstElement if byte == b']' => self.end(byte, Bracket::Array),
            State::Value | State::FirstElement => self.begin(byte),
            State::FirstKey if byte == b'}' => self.end(byte, Bracket::Object),
            State::FirstKey | State::Key => {
                self.expect(byte, b'"', "a key")?;
                self.state = State::String { is_key: true, inside: Inside::Plain };
                Ok(())
            }
            State::Colon => {
                self.expect(byte, b':', "a colon")?;
                self.state = State::Value;
                Ok(())
            }
            State::Behind => self.behind(byte),
        }
    }

    fn begin(&mut self, byte: u8) -> Result<(), SplitError> {
        match byte {
            b'"' => {
                self.hold(byte);
                self.show();
                self.state = State::String { is_key: false, inside: Inside::Plain };
            }
            b'[' => self.open(byte, Bracket::Array, State::FirstElement)?,
            b'{' => self.open(byte, Bracket::Object, State::FirstKey)?,
            b't' => self.literal(byte, b"rue"),
            b'f' => self.literal(byte, b"alse"),
            b'n' => self.literal(byte, b"ull"),
            _ => {
                let number = Number::begin(byte).ok_or_else(|| self.malformed("a JSON value"))?;
                self.hold(byte);
                self.number(number);
            }
        }
        Ok(())
    }

    fn open(&mut self, byte: u8, bracket: Bracket, state: State) -> Result<(), SplitError> {
        if self.due.len() >= self.depth_max {
            return Err(SplitError::TooDeep(self.offset));
        }
        self.due.push(bracket);
        self.hold(byte);
        self.show();
        self.state = state;
        Ok(())
    }

    fn end(&mut self, byte: u8, bracket: Bracket) -> Result<(), SplitError> {
        if self.due.last() != Some(&bracket) {
            return Err(self.malformed("the bracket that matches"));
        }
        self.due.pop();
        self.hold(byte);
        self.show();
        self.state = State::Behind;
        Ok(())
    }

    fn behind(&mut self, byte: u8) -> Result<(), SplitError> {
        match (byte, self.due.last()) {
            (b',', Some(Bracket::Array)) => self.state = State::Value,
            (b',', Some(Bracket::Object)) => self.state = State::Key,
            (b']', Some(_)) => return self.end(byte, Bracket::Array),
            (b'}', Some(_)) => return self.end(byte, Bracket::Object),
            (_, Some(_)) => return Err(self.malformed("a comma or the bracket that matches")),
            (_, None) => return Err(self.malformed("nothing but blanks")),
        }
        self.hold(byte);
        Ok(())
    }

    fn literal(&mut self, byte: u8, rest: &'static [u8]) {
        self.hold(byte);
        self.state = State::Literal(rest);
    }

    fn in_literal(&mut self, byte: u8, rest: &'static [u8]) -> Result<(), SplitError> {
        let Some((next, rest)) = rest.split_first().filter(|(next, _)| **next == byte) else {
            return Err(self.malformed("true, false or null"));
        };
        self.hold(*next);
        self.state = State::Literal(rest);
        if rest.is_empty() {
            self.show();
            self.state = State::Behind;
        }
        Ok(())
    }

    fn number(&mut self, number: Number) {
        if number.is_valid() {
            self.show();
        }
        self.state = State::Number(number);
    }

    fn in_number(&mut self, byte: u8, number: Number) -> Result<(), SplitError> {
        if let Some(number) = number.next(byte) {
            self.hold(byte);
            self.number(number);
            return Ok(());
        }
        if !number.is_valid() {
            return Err(self.malformed("a digit"));
        }
        self.state = State::Behind;
        self.byte(byte)
    }

    fn in_string(&mut self, byte: u8, is_key: bool, inside: Inside) -> Result<(), SplitError> {
        let inside = match (inside, byte) {
            (Inside::Plain, b'"') => {
                self.hold(byte);
                self.state = if is_key { State::Colon } else { State::Behind };
                if !is_key {
                    self.show();
                }
                return Ok(());
            }
            (Inside::Plain, b'\\') => Inside::Escape,
            (Inside::Plain, ..0x20) => return Err(self.malformed("an escape instead of a control character")),
            (Inside::Plain, _) => return self.in_character(byte, is_key, [0; 4], 0),
            (Inside::Character { bytes, len }, _) => return self.in_character(byte, is_key, bytes, len),
            (Inside::Escape, b'u') => Inside::Unicode { digits: 0, code: 0, high: None },
            (Inside::Escape, b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => Inside::Plain,
            (Inside::Escape, _) => return Err(self.malformed("an escape")),
            (Inside::Half { high, has_backslash: false }, b'\\') => {
                Inside::Half { high, has_backslash: true }
            }
            (Inside::Half { high, has_backslash: true }, b'u') => {
                Inside::Unicode { digits: 0, code: 0, high: Some(high) }
            }
            (Inside::Half { .. }, _) => return Err(self.malformed("the other half of a surrogate pair")),
            (Inside::Unicode { digits, code, high }, _) => self.unicode(byte, digits, code, high)?,
        };
        self.hold(byte);
        self.inside(is_key, inside);
        Ok(())
    }

    fn unicode(&self, byte: u8, digits: u8, code: u16, high: Option<u16>) -> Result<Inside, SplitError> {
        let digit = char::from(byte).to_digit(16).ok_or_else(|| self.malformed("four hexadecimal digits"))?;
        let code = code << 4 | digit as u16;
        Ok(match (digits + 1, code, high) {
            (..4, ..) => Inside::Unicode { digits: digits + 1, code, high },
            (_, 0xDC00..=0xDFFF, Some(_)) => Inside::Plain,
            (_, 0xD800..=0xDBFF, None) => Inside::Half { high: code, has_backslash: false },
            (_, 0xDC00..=0xDFFF, None) | (.., Some(_)) => return Err(self.malformed("a surrogate pair")),
            _ => Inside::Plain,
        })
    }

    fn in_character(
        &mut self,
        byte: u8,
        is_key: bool,
        mut bytes: [u8; 4],
        len: u8,
    ) -> Result<(), SplitError> {
        let at = usize::from(len);
        // What is no character after four bytes was found out before.
        bytes[at.min(3)] = byte;
        match std::str::from_utf8(&bytes[..=at.min(3)]) {
            Ok(character) => {
                self.pending.push_str(character);
                self.inside(is_key, Inside::Plain);
                Ok(())
            }
            Err(error) if error.error_len().is_none() => {
                self.state = State::String { is_key, inside: Inside::Character { bytes, len: len + 1 } };
                Ok(())
            }
            Err(_) => Err(self.malformed("UTF-8")),
        }
    }

    /// In a string, that of a value is shown between characters.
    fn inside(&mut self, is_key: bool, inside: Inside) {
        if matches!(inside, Inside::Plain) && !is_key {
            self.show();
        }
        self.state = State::String { is_key, inside };
    }

    fn expect(&mut self, byte: u8, wanted: u8, expected: &'static str) -> Result<(), SplitError> {
        if byte != wanted {
            return Err(self.malformed(expected));
        }
        self.hold(byte);
        Ok(())
    }

    /// Takes an ASCII byte that cannot be shown yet.
    fn hold(&mut self, byte: u8) {
        debug_assert!(byte.is_ascii(), "others are held as characters");
        self.pending.push(char::from(byte));
    }

    /// The prefix goes up to here.
    fn show(&mut self) {
        self.shown.push_str(&self.pending);
        self.pending.clear();
    }

    fn close(&mut self) {
        if self.prefix == 0 {
            return;
        }
        if matches!(self.state, State::String { is_key: false, .. }) {
            self.shown.push('"');
        }
        let closing = |bracket: &Bracket| if *bracket == Bracket::Array { ']' } else { '}' };
        self.shown.extend(self.due.iter().rev().map(closing));
    }

    fn malformed(&self, expected: &'static str) -> SplitError {
        SplitError::Malformed(self.offset, expected)
    }

    fn error(&self, fault: SplitError) -> Error {
        match fault {
            SplitError::Malformed(offset, expected) => Error::Malformed { offset, expected },
            SplitError::TooDeep(offset) => Error::TooDeep { offset, depth_max: self.depth_max },
            SplitError::TooLong => Error::UnitTooLong { offset: 0, bytes_max: self.bytes_max },
        }
    }
}
