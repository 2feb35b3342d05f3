//! Shortens a text to its beginning and its end.

/// Returns the text if it has at most `bytes_max` bytes. Otherwise returns whole lines from its
/// beginning and its end, with a mark of how much is left out between them.
///
/// The beginning gets a third: compilers put the first error there, test runners their summary at
/// the end.
pub(super) fn to_bytes(text: &str, bytes_max: usize) -> String {
    let text = text.trim_matches('\n');
    if text.len() <= bytes_max {
        return text.to_owned();
    }
    let head_max = bytes_max / 3;
    let head = head(text, head_max);
    let tail = tail(&text[head.len()..], bytes_max - head_max);
    let left_out = text.len() - head.len() - tail.len();
    let newline = if head.is_empty() || head.ends_with('\n') { "" } else { "\n" };
    format!("{head}{newline}[{left_out} bytes left out]\n{tail}")
}

/// Returns the first lines, with at most `bytes_max` bytes, and the number of those left out.
pub(super) fn to_lines(lines: &[String], bytes_max: usize) -> String {
    let mut bytes = 0;
    let fits = |line: &&String| {
        bytes += line.len() + 1;
        bytes <= bytes_max
    };
    let mut shown: Vec<&str> = lines.iter().take_while(fits).map(String::as_str).collect();
    let mark = format!("[{} more left out]", lines.len() - shown.len());
    if shown.len() < lines.len() {
        shown.push(&mark);
    }
    shown.join("\n")
}

/// Returns the beginning, up to the end of a line if there is one.
fn head(text: &str, bytes_max: usize) -> &str {
    let end = (0..=bytes_max.min(text.len())).rev().find(|&at| text.is_char_boundary(at)).unwrap_or(0);
    let line_end = text[..end].rfind('\n').map_or(end, |at| at + 1);
    &text[..line_end]
}

/// Returns the end, from the start of a line if there is one.
fn tail(text: &str, bytes_max: usize) -> &str {
    let from = text.len().saturating_sub(bytes_max);
    let from = (from..=text.len()).find(|&at| text.is_char_boundary(at)).unwrap_or(text.len());
    let line_start = if from == 0 { Some(0) } else { text[from..].find('\n').map(|at| at + 1) };
    &text[from + line_start.filter(|at| from + at < text.len()).unwrap_or(0)..]
}
