//! Converts captured output to plain text.

/// End of the line that replaces the omitted middle of a long output.
pub(crate) const LEFT_OUT: &str = "bytes omitted …]";

/// Returns an output as text without escape sequences and control characters.
///
/// Characters that change the direction of the text (Unicode Standard Annex 9) appear as
/// `\u{202e}`. Bytes that are not UTF-8 are replaced by U+FFFD. A lone carriage return becomes a
/// line break, so that text that a progress bar has overwritten stays readable.
pub(crate) fn plain(output: &[u8]) -> String {
    let text = String::from_utf8_lossy(output);
    let mut plain = String::with_capacity(text.len());
    let mut rest = text.chars().peekable();
    while let Some(character) = rest.next() {
        match character {
            '\x1b' => skip_escape(&mut rest),
            '\n' | '\t' => plain.push(character),
            '\r' if rest.peek() != Some(&'\n') => plain.push('\n'),
            '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => plain.extend(character.escape_unicode()),
            other if other.is_control() || matches!(other, '\u{fffe}' | '\u{ffff}') => {}
            other => plain.push(other),
        }
    }
    plain
}

/// Returns a name or a reason as one line of plain text.
pub(crate) fn one_line(text: &str) -> String {
    plain(text.as_bytes()).trim_end().replace(['\n', '\t'], " ")
}

/// Skips the rest of an escape sequence (ECMA-48): a control sequence, a string with its
/// terminator, or one character.
fn skip_escape(rest: &mut std::iter::Peekable<std::str::Chars<'_>>) {
    match rest.next() {
        Some('[') => while rest.next().is_some_and(|it| !('@'..='~').contains(&it)) {},
        Some(']' | 'P' | '^' | '_' | 'X') => {
            while let Some(character) = rest.next() {
                if character == '\x07' || (character == '\x1b' && rest.next_if_eq(&'\\').is_some()) {
                    return;
                }
            }
        }
        _ => {}
    }
}
