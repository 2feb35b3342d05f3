//! Finds the ends of messages in the protocol of Redis, and their sizes before they are complete.
//!
//! The protocol: <https://redis.io/docs/latest/develop/reference/protocol-spec/>

/// Maximum length of a line, in bytes: the text of an error, the length of a value.
const LINE_BYTES_MAX: u64 = 64 * 1024;
/// Maximum number of values in one message, those within lists included. A step of a listing has
/// about a thousand.
const VALUES_MAX: u64 = 100_000;
/// Maximum depth of lists in lists.
const DEPTH_MAX: usize = 8;

/// Reads messages as they pass, in any pieces, and keeps nothing of them but the current line.
#[derive(Debug)]
pub(super) struct MessageScanner {
    bytes_max: u64,
    state: ScanState,
    /// Start of the current line.
    line: Vec<u8>,
    /// Number of bytes of the current line.
    line_bytes: u64,
    /// Numbers of values that the open lists still need, from the outermost list.
    open: Vec<u64>,
    /// Number of bytes in values of the current message.
    bytes: u64,
    /// Number of values of the current message.
    values: u64,
    /// Number of messages that have ended.
    complete: u64,
}

#[derive(Debug, Clone, Copy)]
enum ScanState {
    /// The next byte begins a value, or continues the line that does.
    Line,
    /// This many bytes of a value and its end are to come.
    Value(u64),
}

/// Size of the start of a line, in bytes. A length has at most 20 digits.
const LINE_KEPT_BYTES: usize = 32;

impl MessageScanner {
    /// Creates a scanner of messages with up to this number of bytes in their values.
    pub(super) fn new(bytes_max: u64) -> Self {
        Self {
            bytes_max,
            state: ScanState::Line,
            line: Vec::new(),
            line_bytes: 0,
            open: Vec::new(),
            bytes: 0,
            values: 0,
            complete: 0,
        }
    }

    /// Returns the number of messages that have ended.
    pub(super) fn complete(&self) -> u64 {
        self.complete
    }

    /// Returns whether nothing of a further message was read.
    pub(super) fn is_between_messages(&self) -> bool {
        matches!(self.state, ScanState::Line) && self.open.is_empty() && self.line_bytes == 0
    }

    /// Reads the next bytes.
    ///
    /// # Errors
    /// Describes a message that is invalid, or that is or will be too large.
    pub(super) fn read(&mut self, mut input: &[u8]) -> Result<(), String> {
        while !input.is_empty() {
            input = match self.state {
                ScanState::Line => self.read_line(input)?,
                ScanState::Value(left) => self.read_value(input, left),
            };
        }
        Ok(())
    }

    /// Reads up to the end of the line, and returns what comes after it.
    fn read_line<'a>(&mut self, input: &'a [u8]) -> Result<&'a [u8], String> {
        let end = input.iter().position(|byte| *byte == b'\n').map_or(input.len(), |at| at + 1);
        let (part, rest) = input.split_at(end);
        let kept = part.len().min(LINE_KEPT_BYTES - self.line.len());
        self.line.extend_from_slice(&part[..kept]);
        self.line_bytes += part.len() as u64;
        if self.line_bytes > LINE_BYTES_MAX {
            return Err(format!("a line of more than {LINE_BYTES_MAX} bytes"));
        }
        if part.ends_with(b"\n") {
            let line = std::mem::take(&mut self.line);
            let line_bytes = std::mem::take(&mut self.line_bytes);
            self.begin(&line, line_bytes)?;
        }
        Ok(rest)
    }

    fn read_value<'a>(&mut self, input: &'a [u8], left: u64) -> &'a [u8] {
        let part = usize::try_from(left).unwrap_or(usize::MAX).min(input.len());
        match left - part as u64 {
            0 => {
                self.state = ScanState::Line;
                self.end_value();
            }
            left => self.state = ScanState::Value(left),
        }
        &input[part..]
    }

    /// Begins the value that a line describes.
    fn begin(&mut self, line: &[u8], line_bytes: u64) -> Result<(), String> {
        self.values += 1;
        if self.values > VALUES_MAX {
            return Err(format!("a message of more than {VALUES_MAX} values"));
        }
        match line.first() {
            Some(b'+' | b'-' | b':' | b'_' | b'#' | b',' | b'(') => {
                self.take(line_bytes)?;
                self.end_value();
            }
            Some(b'$' | b'=' | b'!') => match length(line)? {
                None => self.end_value(),
                Some(len) => {
                    self.take(len)?;
                    self.state = ScanState::Value(len + 2);
                }
            },
            Some(b'*' | b'~') => self.begin_list(length(line)?.unwrap_or(0))?,
            Some(b'%') => self.begin_list(length(line)?.unwrap_or(0).saturating_mul(2))?,
            _ => return Err("a message of an unknown kind".to_owned()),
        }
        Ok(())
    }

    fn begin_list(&mut self, values: u64) -> Result<(), String> {
        if values > VALUES_MAX - self.values {
            return Err(format!("a message of more than {VALUES_MAX} values"));
        }
        if self.open.len() == DEPTH_MAX {
            return Err(format!("more than {DEPTH_MAX} lists in each other"));
        }
        self.open.push(values + 1);
        self.end_value();
        Ok(())
    }

    /// Adds bytes to the message.
    fn take(&mut self, bytes: u64) -> Result<(), String> {
        if bytes > self.bytes_max - self.bytes {
            return Err(format!("a message of more than {} bytes", self.bytes_max));
        }
        self.bytes += bytes;
        Ok(())
    }

    /// Ends a value, and the lists that end with it. A list counts itself, so that an empty one
    /// ends at once.
    fn end_value(&mut self) {
        while let Some(left) = self.open.last_mut() {
            *left -= 1;
            if *left > 0 {
                return;
            }
            self.open.pop();
        }
        (self.bytes, self.values) = (0, 0);
        self.complete += 1;
    }
}

/// Returns the length in a line, or `None` for a value that does not exist.
fn length(line: &[u8]) -> Result<Option<u64>, String> {
    let digits = line.get(1..).and_then(|rest| rest.strip_suffix(b"\r\n"));
    let digits = digits.and_then(|digits| std::str::from_utf8(digits).ok());
    match digits {
        Some("-1") => Ok(None),
        Some(digits) if digits.bytes().all(|byte| byte.is_ascii_digit()) => {
            digits.parse().map(Some).map_err(|_| "an invalid length".to_owned())
        }
        _ => Err("an invalid length".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Reads a text at once and byte by byte, and returns the number of messages.
    fn scan(text: &[u8]) -> Result<u64, String> {
        let mut whole = MessageScanner::new(100);
        let result = whole.read(text).map(|()| whole.complete());
        let mut bytewise = MessageScanner::new(100);
        let one_by_one = text.iter().try_for_each(|byte| bytewise.read(&[*byte]));
        assert_eq!(one_by_one.map(|()| bytewise.complete()), result, "{}", text.escape_ascii());
        result
    }

    #[test]
    fn messages_of_every_kind_are_counted() {
        for (text, expected) in [
            (&b"+OK\r\n"[..], 1),
            (b"-ERR no\r\n:7\r\n_\r\n#t\r\n,1.5\r\n(12345678901234567890123\r\n", 6),
            (b"$5\r\nhello\r\n$-1\r\n$0\r\n\r\n", 3),
            (b"$4\r\n\r\n\r\n\r\n=7\r\ntxt:abc\r\n!3\r\nERR\r\n", 3),
            (b"*0\r\n*-1\r\n*2\r\n$1\r\na\r\n$-1\r\n", 3),
            (b"*2\r\n$1\r\n0\r\n*2\r\n*0\r\n:1\r\n+OK\r\n", 2),
            (b"%2\r\n+a\r\n:1\r\n+b\r\n*0\r\n~1\r\n+c\r\n", 2),
            (b"*2\r\n+a\r\n", 0),
            (b"$5\r\nhell", 0),
            (b"", 0),
        ] {
            assert_eq!(scan(text), Ok(expected), "{}", text.escape_ascii());
        }
    }

    #[test]
    fn what_is_too_large_is_refused_before_it_arrives() {
        assert_eq!(scan(format!("$100\r\n{}\r\n", "x".repeat(100)).as_bytes()), Ok(1));
        let many = format!("*100000\r\n{}", ":1\r\n".repeat(20));
        let deep = "*1\r\n".repeat(9);
        for (text, expected) in [
            ("$101\r\n", "more than 100 bytes"),
            ("$18446744073709551615\r\n", "more than 100 bytes"),
            ("*2\r\n$60\r\n", ""),
            ("*99999999\r\n", "more than 100000 values"),
            ("%18446744073709551615\r\n", "more than 100000 values"),
            (&many, "more than 100000 values"),
            (&deep, "more than 8 lists"),
            ("$18446744073709551616\r\n", "invalid length"),
            ("$-2\r\n", "invalid length"),
            ("$1 \r\n", "invalid length"),
            ("$1\n", "invalid length"),
            ("*1000000000000000000000000000000000000000\r\n", "invalid length"),
            (">2\r\n", "unknown kind"),
            ("\r\n", "unknown kind"),
        ] {
            let result = scan(text.as_bytes());
            let found = result.clone().err().unwrap_or_default();
            assert!(
                found.contains(expected) && found.is_empty() == expected.is_empty(),
                "{text}: {result:?}"
            );
        }
        let two = format!("*2\r\n$60\r\n{}\r\n$60\r\n", "x".repeat(60));
        assert!(scan(two.as_bytes()).unwrap_err().contains("more than 100 bytes"));
        let endless = format!("+{}", "x".repeat(70_000));
        let error = MessageScanner::new(1 << 20).read(endless.as_bytes()).unwrap_err();
        assert_eq!(error, "a line of more than 65536 bytes");
    }

    #[test]
    fn a_message_that_has_begun_is_known() {
        let mut scanner = MessageScanner::new(100);
        assert!(scanner.is_between_messages());
        for part in ["$", "2\r\n", "ab\r", "\n*1\r\n"] {
            scanner.read(part.as_bytes()).unwrap();
            assert!(!scanner.is_between_messages(), "{part:?}");
        }
        scanner.read(b"_\r\n").unwrap();
        assert!(scanner.is_between_messages());
    }
}
