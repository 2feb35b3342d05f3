//! Prints the output of tests while they run, line by line.

use std::collections::HashMap;

use console::strip_ansi_codes;
use greenwave_testing::OutputObserver;
use parking_lot::Mutex;

use crate::output;
use crate::terminal_text::{safe, safe_output};
use crate::text::printable;

/// Maximum size of a line, in bytes. Longer ones are broken.
const LINE_BYTES_MAX: usize = 64 * 1024;

/// Returns an observer that prints each line behind the name of its test.
pub(super) fn observer() -> OutputObserver {
    let partial: Mutex<HashMap<String, Vec<u8>>> = Mutex::default();
    OutputObserver::new(move |test, block| {
        // Printing under the lock, so that lines do not mix.
        let mut partial = partial.lock();
        if block.is_empty() {
            let rest = partial.remove(&test.name).filter(|rest| !rest.is_empty());
            rest.iter().for_each(|line| print(&test.name, line));
            return;
        }
        let rest = partial.entry(test.name.clone()).or_default();
        rest.extend_from_slice(block);
        for line in complete_lines(rest) {
            print(&test.name, &line);
        }
    })
}

/// Removes the complete lines from the start of a buffer.
fn complete_lines(buffer: &mut Vec<u8>) -> Vec<Vec<u8>> {
    let end = buffer.iter().rposition(|byte| *byte == b'\n').map(|at| at + 1);
    let end = end.or((buffer.len() >= LINE_BYTES_MAX).then_some(buffer.len())).unwrap_or(0);
    let complete: Vec<u8> = buffer.drain(..end).collect();
    let lines = complete.split_inclusive(|byte| *byte == b'\n');
    lines.map(|line| line.strip_suffix(b"\n").unwrap_or(line).to_vec()).collect()
}

fn print(name: &str, line: &[u8]) {
    let text = String::from_utf8_lossy(line);
    let text = text.trim_end_matches('\r');
    let text = if console::colors_enabled() { text.into() } else { strip_ansi_codes(text) };
    output::raw_line(&labeled(name, &text));
}

fn labeled(name: &str, text: &str) -> String {
    format!("{} | {}", safe(&printable(name)), safe_output(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_lines_cannot_change_the_terminal() {
        assert_eq!(
            labeled("a\u{202e}b\n\x1b[2J", "x\u{202e}"),
            "a\\u{202e}b\u{fffd}\u{fffd}[2J | x\\u{202e}"
        );
    }

    #[test]
    fn lines_are_complete_or_long() {
        let mut buffer = b"one\ntwo\nend".to_vec();
        assert_eq!(complete_lines(&mut buffer), [b"one".to_vec(), b"two".to_vec()]);
        assert_eq!(buffer, b"end");
        buffer.resize(LINE_BYTES_MAX, b'x');
        assert_eq!(complete_lines(&mut buffer).len(), 1);
        assert!(buffer.is_empty());
    }
}
