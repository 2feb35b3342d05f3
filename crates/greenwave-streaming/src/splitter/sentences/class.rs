//! Classifies characters for sentence boundaries (UAX #29, table 4).

/// The classes that the rules distinguish. `Extend` includes `Format`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Class {
    ParaSep,
    Space,
    Extend,
    Upper,
    Lower,
    OtherLetter,
    Numeric,
    FullStop,
    Terminator,
    Continue,
    Close,
    Other,
}

/// Returns the class and length of the character at `at`. Returns `None` at the end of the window,
/// and if the window ends inside a character that may continue. An invalid byte is one byte of
/// `Other`.
#[inline]
pub(super) fn next_char(window: &[u8], at: usize, is_last: bool) -> Option<(Class, usize)> {
    let first = *window.get(at)?;
    if first.is_ascii() {
        return Some((class_of(char::from(first)), 1));
    }
    let bytes = &window[at..window.len().min(at + 4)];
    let text = match std::str::from_utf8(bytes) {
        Ok(text) => text,
        Err(error) if error.valid_up_to() > 0 => {
            std::str::from_utf8(&bytes[..error.valid_up_to()]).unwrap_or_default()
        }
        Err(error) if error.error_len().is_none() && !is_last => return None,
        Err(_) => "",
    };
    Some(text.chars().next().map_or((Class::Other, 1), |c| (class_of(c), c.len_utf8())))
}

fn class_of(c: char) -> Class {
    match c {
        'a'..='z' => Class::Lower,
        'A'..='Z' => Class::Upper,
        '0'..='9' => Class::Numeric,
        '\n' | '\r' | '\u{85}' | '\u{2028}' | '\u{2029}' => Class::ParaSep,
        '.' | '\u{2024}' | '\u{FE52}' | '\u{FF0E}' => Class::FullStop,
        '!' | '?' | '؟' | '۔' | '।' | '॥' | '‼' | '⁇' | '⁈' | '⁉' | '。' | '！' | '？' | '｡' => {
            Class::Terminator
        }
        ',' | '-' | ':' | ';' | '،' | '–' | '—' | '、' | '，' | '－' | '：' | '､' => {
            Class::Continue
        }
        '"' | '\'' | '(' | ')' | '[' | ']' | '{' | '}' | '«' | '»' | '\u{2018}'..='\u{201F}' | '‹' | '›' => {
            Class::Close
        }
        '〈'..='】' | '〔'..='〛' | '（' | '）' | '［' | '］' | '｛' | '｝' | '｢' | '｣' => {
            Class::Close
        }
        '\u{AD}' | '\u{300}'..='\u{36F}' | '\u{200B}'..='\u{200F}' | '\u{202A}'..='\u{202E}' => Class::Extend,
        '\u{2060}'..='\u{2064}' | '\u{20D0}'..='\u{20F0}' | '\u{FE00}'..='\u{FE0F}' | '\u{FEFF}' => {
            Class::Extend
        }
        _ if c.is_whitespace() => Class::Space,
        _ if c.is_lowercase() => Class::Lower,
        _ if c.is_uppercase() => Class::Upper,
        _ if c.is_alphabetic() => Class::OtherLetter,
        _ if c.is_numeric() => Class::Numeric,
        _ => Class::Other,
    }
}
