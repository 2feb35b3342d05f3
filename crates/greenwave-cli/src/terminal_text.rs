//! Makes untrusted text safe for a terminal.
//!
//! Output of tests and agents, file names and answers of servers can hold control sequences that
//! write to the clipboard, set the window's title, or forge lines. Of all sequences, only colors
//! and text styles reach the terminal. Everything else is shown as visible text.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::io::{self, Write};
use std::sync::OnceLock;

/// Ends all colors and text styles.
const RESET: &str = "\x1b[0m";

/// Returns a text in which control characters are visible, except line breaks, tabs and the
/// sequences that set colors and text styles (ECMA-48, "Select Graphic Rendition").
///
/// Characters that change the direction of the text around them are shown as `\u{202e}`: they can
/// make a line read differently from what it says ("Trojan Source", Boucher and Anderson, 2021).
pub(crate) fn safe(text: &str) -> Cow<'_, str> {
    replaced(text, |safe, from, first| match style_length(from) {
        0 => {
            push_visible(safe, first);
            first.len_utf8()
        }
        style => {
            safe.push_str(&from[..style]);
            style
        }
    })
}

/// Returns the output of a program as [`safe`] text. A carriage return, which programs use to
/// overwrite a line, becomes a line break. Colors end with the text.
pub(crate) fn safe_output(text: &str) -> String {
    let lines = text.replace("\r\n", "\n").replace('\r', "\n");
    let mut safe = safe(&lines).into_owned();
    if safe.contains("\x1b[") {
        safe.push_str(RESET);
    }
    safe
}

/// Returns a text without colors, in which all other control characters are visible as in [`safe`].
pub(crate) fn plain(text: &str) -> String {
    // Nothing but colors is a sequence after the first step.
    console::strip_ansi_codes(&safe(text)).into_owned()
}

/// Returns a JSON text in which the characters that [`safe`] replaces are escaped. JSON holds them
/// in strings only, where an escape means the same.
pub(crate) fn safe_json(json: &str) -> Cow<'_, str> {
    replaced(json, |safe, _, first| {
        let _ = write!(safe, "\\u{:04x}", u32::from(first));
        first.len_utf8()
    })
}

/// Returns a text in which no line is a command of GitHub's workflows. There, lines that begin with
/// `::`, and those that contain `##[`, set outputs, variables and annotations of the step.
pub(crate) fn without_commands(text: &str) -> Cow<'_, str> {
    if !text.contains("::") && !text.contains("##[") {
        return Cow::Borrowed(text);
    }
    let mut result = String::with_capacity(text.len() + COLON.len());
    for line in text.split_inclusive('\n') {
        let command = line.trim_start();
        result.push_str(&line[..line.len() - command.len()]);
        match command.strip_prefix("::") {
            Some(rest) => result.extend([COLON, ":", &rest.replace("##[", SHARPS)]),
            None => result.push_str(&command.replace("##[", SHARPS)),
        }
    }
    Cow::Owned(result)
}

/// A visible form of a colon, which means the same in JSON.
const COLON: &str = "\\u003a";
/// A visible form of `##[`, which means the same in JSON.
const SHARPS: &str = "#\\u0023[";

/// A writer to standard error whose text is [`safe`].
#[derive(Debug)]
pub(crate) struct SafeStderr;

impl Write for SafeStderr {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        io::stderr().write_all(shown(&safe(&String::from_utf8_lossy(bytes))).as_bytes())?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stderr().flush()
    }
}

/// Replaces unsafe characters. `replace` gets the result so far, the text from the unsafe character
/// on, and that character, and returns how many bytes of the text it has handled.
fn replaced(text: &str, replace: impl Fn(&mut String, &str, char) -> usize) -> Cow<'_, str> {
    let mut rest = text;
    let mut safe = String::new();
    while let Some((at, first)) = rest.char_indices().find(|(_, character)| is_unsafe(*character)) {
        safe.push_str(&rest[..at]);
        let handled = replace(&mut safe, &rest[at..], first);
        rest = &rest[at + handled..];
    }
    if rest.len() == text.len() {
        return Cow::Borrowed(text);
    }
    safe.push_str(rest);
    Cow::Owned(safe)
}

fn is_unsafe(character: char) -> bool {
    let is_plain = matches!(character, '\n' | '\t');
    (character.is_control() && !is_plain) || changes_direction(character)
}

/// Returns whether a character changes the direction of the text that follows (Unicode Standard
/// Annex 9: embeddings, overrides and isolates).
pub(crate) fn changes_direction(character: char) -> bool {
    matches!(character, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// Returns the length of the sequence at the start of the text that sets colors or text styles, in
/// bytes. Returns 0 without one.
fn style_length(text: &str) -> usize {
    let Some(parameters) = text.strip_prefix("\x1b[") else { return 0 };
    let is_parameter = |byte: &u8| matches!(byte, b'0'..=b'9' | b';' | b':');
    let length = parameters.bytes().take_while(|byte| is_parameter(byte)).count();
    if parameters.as_bytes().get(length) == Some(&b'm') { "\x1b[".len() + length + 1 } else { 0 }
}

/// Appends a visible form of an unsafe character.
fn push_visible(text: &mut String, character: char) {
    match character {
        '\0'..='\x1f' => text.extend(char::from_u32(u32::from(character) + 0x2400)),
        '\x7f' => text.push('\u{2421}'),
        other => text.extend(other.escape_unicode()),
    }
}

/// Returns a text as it is written to a standard stream: without commands, if this is a step of a
/// workflow on GitHub.
pub(crate) fn shown(text: &str) -> Cow<'_, str> {
    if is_workflow() { without_commands(text) } else { Cow::Borrowed(text) }
}

/// Returns whether this is a step of a workflow on GitHub.
pub(crate) fn is_workflow() -> bool {
    static IS_WORKFLOW: OnceLock<bool> = OnceLock::new();
    *IS_WORKFLOW.get_or_init(|| std::env::var_os("GITHUB_ACTIONS").is_some_and(|value| value == "true"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_line_is_a_command_of_a_workflow() {
        let cases = [
            ("a::b\n ##\n", "a::b\n ##\n"),
            ("::error::x", "\\u003a:error::x"),
            ("a\n \t::set-output name=a::b\n", "a\n \t\\u003a:set-output name=a::b\n"),
            ("x ##[error]y ##[z", "x #\\u0023[error]y #\\u0023[z"),
            ("\u{2003}::stop-commands::t ##[", "\u{2003}\\u003a:stop-commands::t #\\u0023["),
            ("{\"a\":\"##[error]\"}", "{\"a\":\"#\\u0023[error]\"}"),
        ];
        for (text, expected) in cases {
            assert_eq!(without_commands(text), expected);
        }
        let json = without_commands("{\"a\":\"##[error]\"}").into_owned();
        assert_eq!(serde_json::from_str::<serde_json::Value>(&json).unwrap()["a"], "##[error]");
    }

    #[test]
    fn colors_and_styles_pass() {
        for text in ["plain\n\ttext", "\x1b[31mred\x1b[0m", "\x1b[1;38:5:196mx\x1b[m", "häß 日本"] {
            assert_eq!(safe(text), text);
        }
    }

    #[test]
    fn other_sequences_are_visible() {
        let cases = [
            ("\x1b]52;c;ZXZpbA==\x07", "␛]52;c;ZXZpbA==␇"),
            ("\x1b]0;title\x1b\\", "␛]0;title␛\\"),
            ("a\x1b[2Jb", "a␛[2Jb"),
            ("\x1b[1A\x1b[2K", "␛[1A␛[2K"),
            ("\x1bc", "␛c"),
            ("\x1b[31", "␛[31"),
            ("\x1b[>4m", "␛[>4m"),
            ("a\rb\x08", "a␍b␈"),
            ("\u{9b}2J\u{7f}", "\\u{9b}2J␡"),
            ("a\u{202e}b\u{2066}", "a\\u{202e}b\\u{2066}"),
        ];
        for (text, visible) in cases {
            assert_eq!(safe(text), visible);
        }
    }

    #[test]
    fn output_of_a_program_ends_its_colors_and_keeps_overwritten_lines() {
        assert_eq!(safe_output("10%\r20%\r\ndone"), "10%\n20%\ndone");
        assert_eq!(safe_output("\x1b[31mred"), "\x1b[31mred\x1b[0m");
    }

    #[test]
    fn json_means_the_same() {
        let value = serde_json::json!({"name": "a\u{202e}\u{9b}\u{7f}b\n"});
        let text = value.to_string();
        let safe = safe_json(&text);
        assert!(safe.contains(r"\u202e") && safe.is_ascii(), "{safe}");
        assert_eq!(serde_json::from_str::<serde_json::Value>(&safe).ok(), Some(value));
    }
}
