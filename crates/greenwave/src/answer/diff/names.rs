//! The names of files in the headers of diffs.

use std::borrow::Cow;

/// Returns the two paths of a `diff --git` line. They are usually equal, so a path with blanks is
/// split in the middle.
pub(super) fn git_paths(text: &str) -> (Cow<'_, str>, Cow<'_, str>) {
    let split = |at: usize| {
        let (old, new) = (unquoted(&text[..at]), unquoted(text[at..].trim_start()));
        (without_side(old, 'a'), without_side(new, 'b'))
    };
    let blanks: Vec<usize> = text.match_indices(' ').map(|(at, _)| at).collect();
    let equal = blanks.iter().copied().find(|&at| {
        let (old, new) = split(at);
        old == new
    });
    let sides = text.find(" b/").or_else(|| text.find(" \"b/"));
    split(equal.or(sides).or(blanks.first().copied()).unwrap_or(text.len()))
}

/// Returns the path of a `---` or `+++` line: a timestamp may follow after a tab.
pub(super) fn name(text: &str) -> Cow<'_, str> {
    let text = text.trim_end_matches(['\n', '\r']);
    unquoted(text.split('\t').next().unwrap_or(text).trim_end())
}

pub(super) fn has_sides(old: &str, new: &str) -> bool {
    old.starts_with("a/") && new.starts_with("b/")
}

/// Removes `a/` or `b/` from a path.
pub(super) fn without_side(path: Cow<'_, str>, side: char) -> Cow<'_, str> {
    let prefix = [side, '/'].iter().collect::<String>();
    match path {
        Cow::Borrowed(path) => Cow::Borrowed(path.strip_prefix(prefix.as_str()).unwrap_or(path)),
        Cow::Owned(path) => Cow::Owned(path.strip_prefix(prefix.as_str()).unwrap_or(&path).to_owned()),
    }
}

/// Resolves the quotes and escapes that git puts around unusual paths (`core.quotePath`).
pub(super) fn unquoted(text: &str) -> Cow<'_, str> {
    let text = text.trim();
    let Some(inside) = text.strip_prefix('"').and_then(|text| text.strip_suffix('"')) else {
        return Cow::Borrowed(text);
    };
    let mut bytes = Vec::with_capacity(inside.len());
    let mut rest = inside.bytes().peekable();
    while let Some(byte) = rest.next() {
        if byte != b'\\' {
            bytes.push(byte);
            continue;
        }
        match rest.next() {
            Some(first @ b'0'..=b'3') => {
                let mut value = u32::from(first - b'0');
                for _ in 0..2 {
                    if let Some(digit) = rest.next_if(|byte| (b'0'..=b'7').contains(byte)) {
                        value = value * 8 + u32::from(digit - b'0');
                    }
                }
                bytes.push(u8::try_from(value).unwrap_or(b'?'));
            }
            Some(b't') => bytes.push(b'\t'),
            Some(b'n') => bytes.push(b'\n'),
            Some(b'r') => bytes.push(b'\r'),
            Some(other) => bytes.push(other),
            None => {}
        }
    }
    Cow::Owned(String::from_utf8_lossy(&bytes).into_owned())
}
