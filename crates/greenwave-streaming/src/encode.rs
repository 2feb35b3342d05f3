//! Encoders for the formats that the splitters read.
//!
//! Each appends one unit, which its splitter finds unchanged among other units.

/// A value that a format cannot express.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("cannot encode {value}: it contains {part}")]
pub struct EncodeError {
    value: &'static str,
    part: &'static str,
}

impl EncodeError {
    pub(crate) fn new(value: &'static str, part: &'static str) -> Self {
        Self { value, part }
    }
}

/// Appends a line for [`Lines`](crate::Lines), ended by LF.
///
/// # Errors
/// If the line contains LF or CR. `out` is unchanged then.
pub fn encode_line(line: &[u8], out: &mut Vec<u8>) -> Result<(), EncodeError> {
    if memchr::memchr2(b'\n', b'\r', line).is_some() {
        return Err(EncodeError::new("the line", "a line end"));
    }
    out.extend_from_slice(line);
    out.push(b'\n');
    Ok(())
}

/// Appends a record for [`Delimited`](crate::Delimited), followed by the delimiter.
///
/// # Errors
/// If the delimiter is empty, or begins inside the record. `out` is unchanged then.
pub fn encode_record(record: &[u8], delimiter: &[u8], out: &mut Vec<u8>) -> Result<(), EncodeError> {
    let start = out.len();
    out.extend_from_slice(record);
    out.extend_from_slice(delimiter);
    if delimiter.is_empty() || memchr::memmem::find(&out[start..], delimiter) != Some(record.len()) {
        out.truncate(start);
        return Err(EncodeError::new("the record", "the delimiter, or part of it at its end"));
    }
    Ok(())
}

/// Appends a fenced code block for [`Fences`](crate::Fences), whose fence is longer than any in the
/// code. A last line without a line end gets one.
///
/// # Errors
/// If the info string contains a line end or a backtick. `out` is unchanged then.
pub fn encode_fence(info: &str, code: &str, out: &mut String) -> Result<(), EncodeError> {
    if info.contains(['\n', '\r', '`']) {
        return Err(EncodeError::new("the info string", "a line end or a backtick"));
    }
    let longest = code.split(|character| character != '`').map(str::len).max().unwrap_or(0);
    let fence = "`".repeat(longest.max(2) + 1);
    for part in [&fence, info, "\n", code] {
        out.push_str(part);
    }
    if !code.is_empty() && !code.ends_with(['\n', '\r']) {
        out.push('\n');
    }
    out.push_str(&fence);
    out.push('\n');
    Ok(())
}
