//! Bounds and cleans the output of programs before it is stored and shown.

use std::collections::VecDeque;

/// The first and the last bytes of a stream, with what lies between left out.
#[derive(Debug, Clone)]
pub(crate) struct Excerpt {
    head: Vec<u8>,
    tail: VecDeque<u8>,
    side_bytes_max: usize,
    left_out: u64,
}

impl Excerpt {
    /// Creates an excerpt of at most `bytes_max` bytes: half from the start, half from the end.
    pub(crate) fn new(bytes_max: usize) -> Self {
        let side_bytes_max = bytes_max / 2;
        Self { head: Vec::new(), tail: VecDeque::new(), side_bytes_max, left_out: 0 }
    }

    /// Adds the next bytes of the stream.
    pub(crate) fn push(&mut self, chunk: &[u8]) {
        let room = self.side_bytes_max - self.head.len();
        let (first, rest) = chunk.split_at(room.min(chunk.len()));
        self.head.extend_from_slice(first);
        self.tail.extend(rest);
        let excess = self.tail.len().saturating_sub(self.side_bytes_max);
        self.tail.drain(..excess);
        self.left_out += excess as u64;
    }

    /// Returns the excerpt as text without control characters. Begins and ends the part that is
    /// left out at whole lines where possible.
    pub(crate) fn text(&self) -> String {
        let tail: Vec<u8> = self.tail.iter().copied().collect();
        if self.left_out == 0 {
            return clean(&[self.head.as_slice(), &tail].concat());
        }
        let line_end = self.head.iter().rposition(|&byte| byte == b'\n');
        // A long line is cut between words, so that no secret is cut in two.
        let word_end = || self.head.iter().rposition(u8::is_ascii_whitespace);
        let line_end = line_end.or_else(word_end).map_or(self.head.len(), |at| at + 1);
        let line_start = tail.iter().position(|&byte| byte == b'\n');
        let word_start = || tail.iter().position(u8::is_ascii_whitespace);
        let line_start = line_start.or_else(word_start).map_or(0, |at| at + 1);
        let left_out = self.left_out + (self.head.len() - line_end) as u64 + line_start as u64;
        let (head, tail) = (clean(&self.head[..line_end]), clean(&tail[line_start..]));
        let separator = if head.ends_with('\n') { "" } else { "\n" };
        format!("{head}{separator}[… {left_out} bytes left out …]\n{tail}")
    }
}

/// Returns a text without escape sequences and without control characters except line feeds and
/// tabs. A carriage return that does not end a line discards the line before it, as on a terminal.
pub(crate) fn clean(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    let mut cleaned = String::with_capacity(text.len());
    let mut line = 0;
    let mut characters = text.chars().peekable();
    while let Some(character) = characters.next() {
        match character {
            '\x1b' => skip_escape(&mut characters),
            // The one-character form of `ESC [`.
            '\u{9b}' => skip_control_sequence(&mut characters),
            '\r' if matches!(characters.peek(), Some('\n' | '\r') | None) => {}
            '\r' => cleaned.truncate(line),
            '\n' => {
                cleaned.push('\n');
                line = cleaned.len();
            }
            '\t' => cleaned.push('\t'),
            // Overprinting, as in the output of `man`.
            '\x08' => {
                if cleaned.len() > line {
                    cleaned.pop();
                }
            }
            other if other.is_control() || is_invisible(other) => {}
            other => cleaned.push(other),
        }
    }
    cleaned
}

/// Returns whether a character changes how the text around it is displayed without being visible:
/// marks of bidirectional text, which can disguise code ("Trojan Source", CVE-2021-42574).
fn is_invisible(character: char) -> bool {
    matches!(character, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}')
}

/// Returns a JSON text in which characters that change the display are visible: control characters,
/// and marks of bidirectional text. Those below U+0020 are escaped in JSON.
pub(crate) fn visible_json(json: &str) -> String {
    let mut visible = String::with_capacity(json.len());
    for character in json.chars() {
        if character != '\n' && (character.is_control() || is_invisible(character)) {
            visible.push('\\');
            visible.extend(character.escape_unicode());
        } else {
            visible.push(character);
        }
    }
    visible
}

/// Returns a text on one line, in which characters that change the display are visible, as
/// `\u{202e}`.
pub(crate) fn visible_line(text: &str) -> String {
    let mut visible = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '\n' | '\r' => visible.push(' '),
            other if other.is_control() || is_invisible(other) => visible.extend(other.escape_unicode()),
            other => visible.push(other),
        }
    }
    visible
}

/// Skips an escape sequence (ECMA-48) after its first character.
fn skip_escape(characters: &mut std::iter::Peekable<std::str::Chars<'_>>) {
    match characters.peek() {
        Some('[') => {
            characters.next();
            skip_control_sequence(characters);
        }
        // Strings, which end with BEL or `ESC \`: titles of windows, links, images.
        Some(']' | 'P' | 'X' | '^' | '_') => {
            characters.next();
            while let Some(character) = characters.next_if(|&character| character != '\n') {
                if character == '\x07' {
                    return;
                }
                if character == '\x1b' {
                    characters.next_if_eq(&'\\');
                    return;
                }
            }
        }
        _ => {
            while characters.next_if(|character| (' '..='/').contains(character)).is_some() {}
            characters.next_if(|character| ('0'..='~').contains(character));
        }
    }
}

fn skip_control_sequence(characters: &mut std::iter::Peekable<std::str::Chars<'_>>) {
    while characters.next_if(|character| (' '..='?').contains(character)).is_some() {}
    characters.next_if(|character| ('@'..='~').contains(character));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_shows_what_changes_the_display() {
        let json = serde_json::json!({"a\u{202e}": "\u{9b}2J\u{7f}\u{2066}é", "b": 1}).to_string();
        let visible: serde_json::Value = serde_json::from_str(&visible_json(&json)).unwrap();
        assert_eq!(visible["a\\u{202e}"], "\\u{9b}2J\\u{7f}\\u{2066}é");
        assert_eq!(visible_json("{\"a\":\"b\"}"), "{\"a\":\"b\"}");
    }

    #[test]
    fn escape_sequences_and_control_characters_are_removed() {
        let table = [
            ("plain\ttext\n", "plain\ttext\n"),
            ("\x1b[1;31mred\x1b[0m", "red"),
            ("\x1b]0;title\x07text", "text"),
            ("\x1b]8;;http://x\x1b\\link\x1b]8;;\x1b\\", "link"),
            ("\x1b(Btext\x1b=", "text"),
            ("10 %\r50 %\r100 %\r\nnext\r\n", "100 %\nnext\n"),
            ("b\x08bold", "bold"),
            ("\x07bell\x00nul\x7f", "bellnul"),
            ("\u{9b}31mred", "red"),
            ("a\u{202e}b", "ab"),
            ("cut \x1b[3", "cut "),
            ("cut \x1b", "cut "),
            ("open \x1b]0;title\nnext", "open \nnext"),
            ("日本\x1b[K語", "日本語"),
        ];
        for (text, expected) in table {
            assert_eq!(clean(text.as_bytes()), expected, "{text:?}");
        }
        assert_eq!(clean(b"\xff\xfe"), "\u{fffd}\u{fffd}");
    }

    #[test]
    fn a_short_stream_is_whole_and_a_long_one_has_head_and_tail() {
        let excerpt = |text: &str, chunk: usize| {
            let mut excerpt = Excerpt::new(20);
            text.as_bytes().chunks(chunk).for_each(|chunk| excerpt.push(chunk));
            excerpt.text()
        };
        for chunk in [1, 3, 7, 100] {
            assert_eq!(excerpt("", chunk), "");
            assert_eq!(excerpt("12345678901234567890", chunk), "12345678901234567890");
            assert_eq!(
                excerpt("one\ntwo\nthree\nfour\nfive\nsix\n", chunk),
                "one\ntwo\n[… 11 bytes left out …]\nfive\nsix\n"
            );
            assert_eq!(
                excerpt("1234567890abcdefghij1234567890", chunk),
                "1234567890\n[… 10 bytes left out …]\n1234567890"
            );
        }
    }
}
