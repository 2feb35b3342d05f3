//! What an info string or the line above a fence says: a language, a path. Pure functions of one line of text.

use std::ops::Range;

/// Attributes whose value is a path. `title` and `name` are often prose, so their value must look like one.
const PATH_KEYS: [(&str, bool); 6] = [
    ("path", true),
    ("file", true),
    ("filename", true),
    ("filepath", true),
    ("title", false),
    ("name", false),
];

/// Words that may stand before the path on the line above a fence.
const HEADING_WORDS: [&str; 4] = ["file", "filename", "file name", "path"];

/// Files that are known by a name without an extension, in this spelling: in another, `makefile` and `dockerfile` are languages.
const BARE_NAMES: [&str; 31] = [
    "Appfile",
    "AUTHORS",
    "Berksfile",
    "Brewfile",
    "Caddyfile",
    "Capfile",
    "CHANGELOG",
    "CODEOWNERS",
    "Containerfile",
    "COPYING",
    "Dangerfile",
    "Dockerfile",
    "Earthfile",
    "Fastfile",
    "Gemfile",
    "GNUmakefile",
    "Guardfile",
    "Jenkinsfile",
    "Justfile",
    "justfile",
    "LICENSE",
    "Makefile",
    "Pipfile",
    "Podfile",
    "Procfile",
    "Puppetfile",
    "Rakefile",
    "README",
    "Snakefile",
    "Tiltfile",
    "Vagrantfile",
];

/// Languages of what is shown rather than saved: the line above names what it is about, not what it is.
const NO_FILE: [&str; 5] = ["diff", "patch", "console", "output", "shell-session"];

/// The language of a code block: the first word of its info string.
pub(crate) fn first_word(info: &str) -> Option<&str> {
    info.split_ascii_whitespace().next()
}

/// The language of a file: the first word of its info string, unless that is the path or names it.
pub(crate) fn language_of_file(info: &str) -> Option<&str> {
    let word = first_word(info)?;
    if attribute(word).is_some() {
        return None;
    }
    match word.split_once(':') {
        Some((language, path)) if looks_like_path(path) => {
            Some(language).filter(|language| !language.is_empty())
        }
        _ => Some(word).filter(|word| !looks_like_path(word)),
    }
}

/// The path that an info string names.
pub(super) fn path_of_info(info: &str) -> Option<Range<usize>> {
    let path = words(info).find_map(|word| path_of_word(word))?;
    Some(range_in(info, path))
}

/// Whether an info string says that its block is no file, whatever the line above names.
pub(super) fn is_no_file(info: &str) -> bool {
    first_word(info).is_some_and(|language| NO_FILE.contains(&language))
}

/// The path that the line above a fence consists of.
pub(super) fn path_of_heading(line: &str) -> Option<Range<usize>> {
    let mut text = line.trim();
    text = text.trim_start_matches('#').trim_start();
    text = without_list_marker(text);
    text = without_remark(unwrapped(text));
    text = unwrapped(text.trim_end_matches(':').trim_end());
    if let Some((word, path)) = text.split_once(':') {
        let word = word.trim_matches('*').trim();
        if HEADING_WORDS.iter().any(|known| word.eq_ignore_ascii_case(known)) {
            text = path.trim_start_matches('*').trim();
        }
    }
    text = unwrapped(text.trim_end_matches(':').trim_end());
    looks_like_path(text).then(|| range_in(line, text))
}

fn path_of_word(word: &str) -> Option<&str> {
    if let Some((value, is_certain)) = attribute(word) {
        return Some(value).filter(|value| !value.is_empty() && (is_certain || looks_like_path(value)));
    }
    match word.split_once(':') {
        Some((_, path)) if looks_like_path(path) => Some(path),
        _ => looks_like_path(word).then_some(word),
    }
}

/// The value of `path=…` and the like, without its quotes, and whether the key alone makes it a path.
fn attribute(word: &str) -> Option<(&str, bool)> {
    let (key, value) = word.trim_matches(['{', '}', ',']).split_once('=')?;
    let (_, is_certain) = PATH_KEYS.into_iter().find(|(known, _)| key.eq_ignore_ascii_case(known))?;
    Some((value.trim_matches(['"', '\'']), is_certain))
}

/// Words between blanks, where a quoted value may hold blanks.
fn words(info: &str) -> impl Iterator<Item = &str> {
    let mut rest = info.trim();
    std::iter::from_fn(move || {
        let mut quote = None;
        let end = rest.find(|c: char| match quote {
            Some(open) if c == open => {
                quote = None;
                false
            }
            Some(_) => false,
            None if c == '"' || c == '\'' => {
                quote = Some(c);
                false
            }
            None => c.is_ascii_whitespace(),
        });
        let (word, left) = rest.split_at(end.unwrap_or(rest.len()));
        rest = left.trim_start();
        (!word.is_empty()).then_some(word)
    })
}

/// `1. `, `2) `, `- `.
fn without_list_marker(text: &str) -> &str {
    let digits = text.trim_start_matches(|c: char| c.is_ascii_digit());
    let marked = if digits.len() < text.len() {
        digits.strip_prefix(['.', ')'])
    } else {
        text.strip_prefix(['-', '+'])
    };
    marked.filter(|rest| rest.starts_with(' ')).map_or(text, str::trim_start)
}

/// Without a remark in brackets at the end, as in `src/lib.rs (new)`.
fn without_remark(text: &str) -> &str {
    match text.trim_end_matches(':').strip_suffix(')').and_then(|open| open.rsplit_once(" (")) {
        Some((text, _)) => text.trim_end(),
        None => text,
    }
}

/// Without the bold or code marks around it, in either nesting, and a colon inside them.
fn unwrapped(mut text: &str) -> &str {
    for marks in ["**", "__", "`", "*", "**", "`"] {
        if let Some(inner) = text.strip_prefix(marks).and_then(|rest| rest.strip_suffix(marks)) {
            text = inner.trim().trim_end_matches(':');
        }
    }
    text
}

/// One word with a folder, an extension that starts with a letter, a leading dot, or a name that files are known by.
fn looks_like_path(text: &str) -> bool {
    let is_foreign = |c: char| c.is_whitespace() || c.is_control() || "`*<>|\"':;,=?(){}#!".contains(c);
    if text.is_empty() || text.ends_with('/') || text.contains(is_foreign) {
        return false;
    }
    // What is left of a URL behind its colon.
    if text.starts_with("//") {
        return false;
    }
    let name = text.rsplit(['/', '\\']).next().unwrap_or(text);
    if name.is_empty() || name.bytes().all(|byte| byte == b'.') {
        return false;
    }
    let has_folder = name.len() < text.len();
    let extension = name.rsplit_once('.').map(|(_, extension)| extension);
    // `vb.net` and `asp.net` are languages.
    let is_extension = |extension: &str| {
        extension.starts_with(|c: char| c.is_ascii_alphabetic())
            && extension.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
            && extension != "net"
    };
    has_folder || extension.is_some_and(is_extension) || BARE_NAMES.contains(&name)
}

/// Where `part`, which is a slice of `whole`, stands in it.
fn range_in(whole: &str, part: &str) -> Range<usize> {
    let start = part.as_ptr().addr() - whole.as_ptr().addr();
    debug_assert!(start + part.len() <= whole.len(), "the part lies in the whole");
    start..start + part.len()
}

#[cfg(test)]
mod tests;
