//! Extracts the language and path from an info string, a line above a fence or a first line of
//! code.

use std::ops::Range;

mod words;

use words::{
    ANNOUNCEMENTS, CHANGES, CONTINUATIONS, FAULTS, FILLERS, LABELS, OTHER_TITLES, PARTIAL, PARTIAL_IN_LINES,
    VERBS,
};

use super::language::{fits, is_markdown, is_output};
use super::path::{Trust, is_in_sources, is_path};

/// Attributes whose value is a path. `title` and `name` often contain prose, so their value must
/// also look like a path.
const PATH_KEYS: [(&str, Trust); 13] = [
    ("path", Trust::Attribute),
    ("file", Trust::Attribute),
    ("filename", Trust::Attribute),
    ("filepath", Trust::Attribute),
    ("file_path", Trust::Attribute),
    ("file-path", Trust::Attribute),
    ("file_name", Trust::Attribute),
    ("file-name", Trust::Attribute),
    ("title", Trust::Quoted),
    ("name", Trust::Quoted),
    ("caption", Trust::Quoted),
    ("label", Trust::Quoted),
    ("source", Trust::Quoted),
];

/// Returns the language of a code block, which is the first word of its info string.
pub(crate) fn first_word(info: &str) -> Option<&str> {
    info.split_ascii_whitespace().next()
}

/// Returns the language of a file: the first word of its info string, unless that is or names the
/// path.
pub(crate) fn language_of_file(info: &str) -> Option<&str> {
    let word = first_word(info)?;
    if attribute(word).is_some() {
        return None;
    }
    match word.split_once(':') {
        Some((first, second)) if is_path(first, Trust::Word) && !is_path(second, Trust::Word) => Some(second),
        Some((language, _)) => Some(language),
        None => Some(word).filter(|word| !is_path(bare(word), Trust::Word)),
    }
    .filter(|language| !language.is_empty())
}

/// The file that an info string names.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Named {
    /// Nothing.
    No,
    /// Its path.
    Path(Range<usize>),
    /// The path of a file, only some lines of which follow.
    Part(Range<usize>),
}

/// Finds the path in an info string: among its first two words, or in an attribute.
pub(super) fn path_of_info(info: &str) -> Named {
    let mut before = Trust::Word;
    let mut found = None;
    // `GET /users.json`.
    let is_request = |word: &str| word.len() > 2 && word.bytes().all(|c| c.is_ascii_uppercase());
    if first_word(info).is_some_and(is_request) {
        return Named::No;
    }
    for (index, word) in words(info).enumerate() {
        if found.is_some() {
            // `(1-10)`, `#L3-L9`, `lines=3-9`.
            if is_span_of_lines(word) {
                return found.map_or(Named::No, Named::Part);
            }
            continue;
        }
        if let Some((value, trust)) = attribute(word) {
            found = is_path(value, trust).then(|| range_in(info, value));
        } else if index < 2 || before == Trust::Labelled {
            let is_only_path = index == 1 && is_language_and_path(info);
            let trust = if is_only_path { Trust::Labelled } else { before };
            match path_of_word(word, trust) {
                Some((path, true)) => return Named::Part(range_in(info, path)),
                Some((path, false)) => found = Some(range_in(info, path)),
                None => {}
            }
            let label = word.trim_end_matches(':').trim_start_matches(['/', '#', '{', '|', '-']);
            let is_label = label.is_empty() || LABELS.iter().any(|listed| label.eq_ignore_ascii_case(listed));
            before = if is_label { Trust::Labelled } else { Trust::Word };
        }
    }
    found.map_or(Named::No, Named::Path)
}

/// Returns whether an info string consists of a language and one word below a directory of sources,
/// as in `text src/main`. Other words with a slash need an extension: `text Input/Output` is no
/// file.
fn is_language_and_path(info: &str) -> bool {
    let is_language = |word: &str| {
        !is_output(word) && word.bytes().all(|c| c.is_ascii_alphanumeric() || b"+-#_.".contains(&c))
    };
    let mut words = info.split_ascii_whitespace();
    let (first, second) = (words.next(), words.next());
    first.is_some_and(is_language) && second.is_some_and(is_in_sources) && words.next().is_none()
}

/// The path that a line above a fence consists of.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct HeadingPath {
    pub(super) path: Range<usize>,
    /// It is an item of a list.
    pub(super) is_item: bool,
    /// It is a heading, bold, or labelled. One line of text may follow before the fence.
    pub(super) is_strong: bool,
}

/// Finds the path in the line above a fence. The line may also contain heading and list markers,
/// numbers, emoji, labels, tags and remarks.
pub(super) fn path_of_heading(line: &str) -> Option<HeadingPath> {
    let mut text = line.trim();
    let mut is_strong = text.starts_with('#');
    let is_item = !is_strong && without_list_marker(text) != text;
    let mut trust = Trust::Word;
    // Decorations come in any order.
    loop {
        let before = text;
        text = without_tags(text);
        text = text.trim_start_matches('#').trim_start();
        text = without_rules(text);
        text = without_list_marker(text);
        text = without_brackets(text);
        text = without_symbols(text);
        text = text.strip_prefix("// ").unwrap_or(text);
        if let Some(inner) = text.strip_prefix("<!--").and_then(|rest| rest.strip_suffix("-->")) {
            text = inner.trim();
        }
        // `__init__.py` is not bold text.
        let underlined = text.strip_prefix("__").filter(|rest| rest.trim_end_matches(':').ends_with("__"));
        if let Some(inner) = text.strip_prefix("**").or(underlined) {
            is_strong = true;
            text = inner.trim_start();
        }
        if let Some(rest) = without_label(text) {
            (trust, is_strong, text) = (Trust::Labelled, true, rest);
        }
        if text == before {
            break;
        }
    }
    text = text.trim_end_matches('#').trim_end();
    let (path, remark, quoted) = first_term(text)?;
    let trust = if quoted { trust.max(Trust::Quoted) } else { trust };
    // `**src/app.py**: the entry point`, `### src/app.py: the entry point`.
    let is_described = is_strong
        && remark.starts_with(' ')
        && text.strip_prefix(path).is_some_and(|rest| rest.starts_with("**:") || rest.starts_with(':'))
        && !words_of(remark).any(|word| FAULTS.contains(&word.as_str()));
    let is_whole = is_remark(remark, quoted || is_strong) && !is_partial(remark) && !names_another(remark)
        || is_described && !is_partial_line(remark);
    if is_whole && is_path(path, trust) {
        return Some(HeadingPath { path: range_in(line, path), is_item, is_strong });
    }
    let path = path_after_title(text).filter(|_| is_strong)?;
    Some(HeadingPath { path: range_in(line, path), is_item, is_strong })
}

/// Finds the path at the end of a heading that also has a title, as in ``Backend (`src/app.py`)``,
/// ``Backend: `src/app.py` `` and ``Backend - `src/app.py` ``.
fn path_after_title(text: &str) -> Option<&str> {
    let text = text.trim_end_matches(['*', ':', ' ']);
    let (title, path) = match text.strip_suffix(')') {
        Some(inner) => inner.rsplit_once('(')?,
        // Without brackets, the marks of code are required.
        None => [": `", " - `", " – `", " — `"].into_iter().find_map(|between| {
            let (title, path) = text.strip_suffix('`')?.split_once(between)?;
            Some((title, path))
        })?,
    };
    let title = title.trim_end_matches(['*', ' ']);
    let path = path.trim_matches('`');
    // A title about one file, not a sentence.
    let is_title = (1..=5).contains(&words_of(title).count()) && !title.contains(['`', '/', '.', ',']);
    // `Tests (tests/test_app.py)` is about the file.
    let is_test = |word: &str| ["test", "tests"].contains(&word) && path.contains("test");
    let is_about_part =
        words_of(title).any(|word| OTHER_TITLES.contains(&word.as_str()) && !is_test(word.as_str()));
    (is_title && !is_about_part && !is_partial_line(title) && is_path(path, Trust::Word)).then_some(path)
}

/// Finds the path in a comment at the start of a block.
pub(super) fn path_of_comment(line: &str, language: &str) -> Option<Range<usize>> {
    const MARKS: [(&str, &str); 15] = [
        ("<!--", "-->"),
        ("{/*", "*/}"),
        ("/**", "*/"),
        ("/*", "*/"),
        ("(*", "*)"),
        ("\"\"\"", "\"\"\""),
        ("'''", "'''"),
        ("{{!--", "--}}"),
        ("<%#", "%>"),
        ("//", ""),
        ("--", ""),
        ("#", ""),
        (";", ""),
        ("%", ""),
        ("\"", ""),
    ];
    let text = line.trim();
    let (open, close) = MARKS.into_iter().find(|(open, _)| text.starts_with(open))?;
    let inner = text.strip_prefix(open)?.strip_suffix(close)?.trim_start_matches([';', '/', '!', '#']);
    // A Markdown heading is not a comment.
    if open == "#" && is_markdown(language) {
        return None;
    }
    let path = path_of_comment_text(inner, language)?;
    let is_markdown_title = open == "#" && is_markdown(path) && language.is_empty();
    (!is_markdown_title).then(|| range_in(line, path))
}

/// Finds the path in a line of a comment that began in an earlier line, as in ` * src/app.js`.
pub(super) fn path_in_comment(line: &str, language: &str) -> Option<Range<usize>> {
    let text = line.trim().trim_start_matches('*');
    Some(range_in(line, path_of_comment_text(text, language)?))
}

/// Returns the path that the text of a comment consists of.
fn path_of_comment_text<'a>(text: &'a str, language: &str) -> Option<&'a str> {
    let mut text = without_list_marker(without_brackets(without_rules(text.trim())));
    let mut trust = Trust::Word;
    if let Some(rest) = without_label(text) {
        (text, trust) = (rest, Trust::Labelled);
    }
    let (path, remark, quoted) = first_term(text)?;
    let trust = if quoted { trust.max(Trust::Quoted) } else { trust };
    let is_whole = is_remark(remark, quoted) && !is_partial(remark) && !names_another(remark);
    (is_whole && is_path(path, trust) && fits(language, path)).then_some(path)
}

/// Returns whether a line of text between a heading and its block announces a part of the file, or
/// something else.
pub(super) fn is_partial_line(text: &str) -> bool {
    is_partial(text) || words_of(text).any(|word| PARTIAL_IN_LINES.contains(&word.as_str()))
}

/// Returns whether a remark announces a part of a file.
fn is_partial(text: &str) -> bool {
    let mut was_line = false;
    words_of(text).any(|word| {
        // `line 12`, `lines 3-9`, but not `command line`.
        let is_span = was_line && word.starts_with(|c: char| c.is_ascii_digit());
        was_line = word == "line" || word == "lines";
        is_span || PARTIAL.contains(&word.as_str())
    })
}

fn words_of(text: &str) -> impl Iterator<Item = String> {
    text.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty()).map(str::to_ascii_lowercase)
}

/// Returns whether a line of code replaces omitted lines, as in `// ... existing code ...`.
pub(super) fn is_elision(line: &str) -> bool {
    let line = line.trim();
    let Some(dots) = line.find("...").or_else(|| line.find('…')) else { return false };
    let is_comment =
        ["//", "#", "/*", "<!--", "--", "{/*", ";", "%", "..."].iter().any(|mark| line.starts_with(mark));
    let words = line.to_ascii_lowercase();
    let phrases = [
        "existing",
        "rest of",
        "remaining",
        "unchanged",
        "remains",
        "same as before",
        "other code",
        "previous code",
        "keep",
    ];
    // A comment of dots only, as in `// ...`.
    let is_bare = line.starts_with(['/', '#', '<', '{', '-'])
        && line.chars().all(|c| "./#*<>!-{}… ".contains(c))
        && line.chars().filter(|c| ['.', '…'].contains(c)).count() <= 3;
    is_comment && dots < 40 && (is_bare || phrases.iter().any(|phrase| words.contains(phrase)))
}

/// Finds the path in a word of an info string, and whether the word names a range of lines.
fn path_of_word(word: &str, trust: Trust) -> Option<(&str, bool)> {
    let word = bare(word);
    if is_path(word, trust.max(Trust::Quoted)) {
        return Some((word, false));
    }
    // `12:15:path`, `path:12-15`, `path#L3`.
    let mut parts = word.splitn(3, ':');
    if let (Some(first), Some(second), Some(path)) = (parts.next(), parts.next(), parts.next())
        && [first, second].iter().all(|part| part.bytes().all(|c| c.is_ascii_digit()))
        && is_path(path, Trust::Word)
    {
        return Some((path, true));
    }
    if let Some((path, lines)) = word.split_once('#').or_else(|| word.rsplit_once(':'))
        && is_span_of_lines(lines)
        && is_path(path, Trust::Word)
    {
        return Some((path, true));
    }
    let (first, second) = word.split_once(':')?;
    let is_label = LABELS.iter().any(|listed| first.eq_ignore_ascii_case(listed));
    if is_path(second, if is_label { Trust::Labelled } else { Trust::Quoted }) && !second.contains(' ') {
        return Some((second, false));
    }
    is_path(first, Trust::Word).then_some((first, false))
}

/// `3-9`, `L3-L9`, `(3-9)`, `{3,9}`, `lines`.
fn is_span_of_lines(word: &str) -> bool {
    let word = word.trim_matches(['(', ')', '{', '}', '[', ']', '#']);
    let word = word.strip_prefix("lines").or_else(|| word.strip_prefix("line")).unwrap_or(word);
    let word = word.trim_start_matches(['=', ':']);
    let is_number = |part: &str| {
        let digits = part.trim_start_matches(['L', 'l']);
        !digits.is_empty() && digits.bytes().all(|c| c.is_ascii_digit())
    };
    !word.is_empty() && word.split('-').all(is_number) && (word.contains('-') || word.starts_with(['L', 'l']))
}

/// Removes brackets, braces and code markers around a word.
fn bare(word: &str) -> &str {
    let word = word.trim_matches(['`', '"', '\'', ',']);
    let inner = |open, close| word.strip_prefix(open).and_then(|rest: &str| rest.strip_suffix(close));
    let inner =
        inner('[', ']').or_else(|| inner('(', ')')).or_else(|| inner('{', '}')).or_else(|| inner('<', '>'));
    // `[id].tsx` keeps its brackets, `[...slug]/page.tsx` too.
    inner.filter(|inner| !inner.contains(['[', ']'])).unwrap_or(word)
}

/// Returns the value of `path=…` and similar attributes, without quotes, and the trust that the key
/// implies.
fn attribute(word: &str) -> Option<(&str, Trust)> {
    let (key, value) = word.trim_matches(['{', '}', ',']).split_once('=')?;
    let key = key.trim_start_matches(['{', '.']);
    let (_, trust) = PATH_KEYS.into_iter().find(|(listed, _)| key.eq_ignore_ascii_case(listed))?;
    Some((value.trim_matches(['"', '\'']), trust))
}

/// Splits at white space outside quotes.
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

/// `1. `, `2) `, `- `, `* `, `3: `, `1.2 `, `[x] `, `Step 4: `, `File 1: `.
fn without_list_marker(text: &str) -> &str {
    for word in ["Step", "STEP", "step", "Part", "Phase", "File", "FILE"] {
        if let Some(rest) = text.strip_prefix(word).filter(|rest| rest.starts_with([' ', '#'])) {
            let rest = rest.trim_start_matches([' ', '#']);
            let digits = rest.trim_start_matches(|c: char| c.is_ascii_digit());
            if digits.len() == rest.len() {
                continue;
            }
            // `File 2 of 3:`, `File 2/3:`.
            let of = digits.trim_start().strip_prefix("of ").or_else(|| digits.strip_prefix('/'));
            let rest = of.map_or(digits, |of| of.trim_start_matches(|c: char| c.is_ascii_digit()));
            return rest.trim_start_matches([':', '.', ')', '-', '–', '—', ' ']);
        }
    }
    for mark in ["[ ] ", "[x] ", "[X] ", "- ", "+ ", "* ", "• ", "– ", "— ", "> "] {
        if let Some(rest) = text.strip_prefix(mark) {
            return rest.trim_start();
        }
    }
    // `[NEW] `, `(new) `, `[CREATE]** `, `(1) `, `(a) `, `[1/3] `.
    if let Some((mark, rest)) = text.strip_prefix(['[', '(']).and_then(|rest| rest.split_once([']', ')']))
        && let rest = rest.trim_start_matches('*')
        && rest.starts_with(' ')
        && (["new", "new file", "create", "created", "add", "added"]
            .iter()
            .any(|listed| mark.eq_ignore_ascii_case(listed))
            || mark.len() == 1 && mark.bytes().all(|c| c.is_ascii_lowercase())
            || (1..=5).contains(&mark.len()) && mark.bytes().all(|c| c.is_ascii_digit() || c == b'/'))
    {
        return rest.trim_start();
    }
    // `A. `, `b) `.
    let mut letters = text.chars();
    if letters.next().is_some_and(|c| c.is_ascii_alphabetic())
        && letters.next().is_some_and(|c| ['.', ')'].contains(&c))
        && letters.next() == Some(' ')
    {
        return text[3..].trim_start();
    }
    let rest = text.trim_start_matches(|c: char| c.is_ascii_digit() || c == '.');
    let is_numbered = text.starts_with(|c: char| c.is_ascii_digit()) && text.len() - rest.len() <= 8;
    let marked = rest.strip_prefix([')', ':']).unwrap_or(rest);
    if is_numbered && marked.starts_with([' ', '\u{fe0f}', '\u{20e3}']) { marked.trim_start() } else { text }
}

/// Removes leading emoji, arrows and other symbols that are neither letters, digits nor ASCII.
fn without_symbols(text: &str) -> &str {
    // A line of a directory tree is not a heading.
    let is_drawing = |c: char| ('\u{2500}'..='\u{257f}').contains(&c);
    let is_symbol = |c: char| !c.is_ascii() && !c.is_alphanumeric() && !is_drawing(c) && c != '“';
    text.trim_start_matches(is_symbol).trim_start()
}

/// Removes `=== … ===`, `--- … ---` and similar rules around the text.
fn without_rules(text: &str) -> &str {
    for mark in ['=', '-', '*', '~', '_', '+', '/', '<', '>', '─', '═', '━'] {
        let rest = text.trim_start_matches(mark);
        let count = text.chars().take_while(|c| *c == mark).count();
        if count >= 3 && rest.starts_with(' ') {
            let closing = if mark == '<' { '>' } else { mark };
            return rest.trim_end_matches(closing).trim();
        }
    }
    text
}

/// Removes brackets around a label and its path, as in `[File: src/lib.rs]`, and CJK brackets.
fn without_brackets(text: &str) -> &str {
    if let Some(inner) = text.strip_prefix('【').and_then(|rest| rest.strip_suffix('】')) {
        return inner.trim();
    }
    let inner = text.strip_prefix(['[', '<']).and_then(|rest| rest.strip_suffix([']', '>']));
    inner.filter(|inner| without_label(inner).is_some()).unwrap_or(text)
}

/// Removes HTML tags around the text, as in `<summary><b>src/lib.rs</b></summary>`.
fn without_tags(mut text: &str) -> &str {
    const TAGS: [&str; 13] =
        ["summary", "b", "strong", "code", "kbd", "h1", "h2", "h3", "h4", "h5", "p", "i", "em"];
    while let Some((tag, rest)) = text.strip_prefix('<').and_then(|rest| rest.split_once('>')) {
        let name = tag.split(' ').next().unwrap_or_default();
        let close = format!("</{name}>");
        match rest.trim_end().strip_suffix(close.as_str()) {
            Some(inner) if TAGS.contains(&name) => text = inner.trim(),
            _ if name == "details" => text = rest.trim(),
            _ => break,
        }
    }
    text
}

/// Returns the text after a label or verb that announces a file.
fn without_label(text: &str) -> Option<&str> {
    for announcement in [
        "Save as ",
        "Save this as ",
        "Save it as ",
        "Saved as ",
        "START OF FILE ",
        "START OF ",
        "BEGIN FILE ",
        "BEGIN ",
    ] {
        if let Some(rest) = text.strip_prefix(announcement) {
            let (path, ..) = first_term(rest)?;
            return is_path(path, Trust::Word).then_some(rest);
        }
    }
    let label = text.split_once([':', '\u{ff1a}', '=']).or_else(|| text.split_once(" - "));
    if let Some((label, rest)) = label {
        // Bold and code markers may be on either side of the colon.
        let label = label.trim_matches(['*', '_', '`', ' ']);
        let label = label.strip_prefix("Create ").or_else(|| label.strip_prefix("New ")).unwrap_or(label);
        let is_label = LABELS.contains(&label.to_lowercase().as_str())
            || VERBS.iter().any(|listed| label.eq_ignore_ascii_case(listed));
        if is_label {
            return Some(rest.trim_start_matches(['*', '_']).trim_start());
        }
    }
    let text = without_continuation(text);
    let mut words = text.split_ascii_whitespace();
    let first = words.next()?;
    let is_verb = VERBS.iter().any(|listed| first.eq_ignore_ascii_case(listed));
    let first_lower = first.to_lowercase();
    let is_file =
        !["location", "path"].contains(&first_lower.as_str()) && LABELS.contains(&first_lower.as_str());
    if !is_verb && !is_file {
        return None;
    }
    let mut rest = text[first.len()..].trim_start();
    if is_verb {
        while let Some(word) = rest.split_ascii_whitespace().next()
            && FILLERS.iter().any(|listed| word.trim_end_matches(':').eq_ignore_ascii_case(listed))
        {
            rest = rest[word.len()..].trim_start();
        }
    }
    // `Add main.rs` is a heading, `Add main` is not: without a colon, the word itself must be a
    // path.
    let (path, ..) = first_term(rest)?;
    is_path(path, Trust::Word).then_some(rest)
}

/// Removes `Next, ` before `create`, and `Here is the ` before `complete`.
fn without_continuation(text: &str) -> &str {
    for opening in ["Here is the ", "Here's the ", "This is the "] {
        if let Some(rest) = text.strip_prefix(opening)
            && ["full ", "complete ", "final ", "new "].iter().any(|word| rest.starts_with(word))
        {
            return rest;
        }
    }
    let Some((first, rest)) = text.split_once(' ') else { return text };
    let first = first.trim_end_matches(',');
    let is_continuation = CONTINUATIONS.iter().any(|listed| first.eq_ignore_ascii_case(listed));
    let next = rest.split(' ').next().unwrap_or_default();
    let is_verb = ["create", "write", "add"].iter().any(|verb| next.eq_ignore_ascii_case(verb));
    if is_continuation && is_verb { rest } else { text }
}

/// Returns whether a remark consists of another path, as in ``→ `src/b.py` ``.
fn names_another(remark: &str) -> bool {
    let rest = remark.trim().trim_start_matches(['-', '–', '—', '→', '←', '|', '/', '#', '>']).trim_start();
    first_term(rest).is_some_and(|(path, rest, _)| rest.is_empty() && is_path(path, Trust::Word))
}

/// Splits a text into its first term and the rest, and returns whether the term was marked as code,
/// quoted or a link.
fn first_term(text: &str) -> Option<(&str, &str, bool)> {
    let pairs = [
        ("`", "`"),
        ("**`", "`**"),
        ("\"", "\""),
        ("'", "'"),
        ("“", "”"),
        ("**", "**"),
        ("__", "__"),
        ("*", "*"),
    ];
    for (open, close) in pairs.into_iter().rev() {
        // The longest marker first.
        if open == "*" && text.starts_with("**")
            || open == "__" && !text.trim_end_matches(':').ends_with("__")
        {
            continue;
        }
        if let Some((inner, rest)) = text.strip_prefix(open).and_then(|rest| rest.split_once(close)) {
            let inner = inner.trim();
            if let Some((deeper, remark, _)) =
                first_term(inner).filter(|_| inner.starts_with(['`', '"', '\'', '*']))
            {
                return Some((deeper, if remark.is_empty() { rest } else { remark }, true));
            }
            let is_code = !open.starts_with(['*', '_']) || open.contains('`');
            let inner = inner.trim_end_matches(':');
            return Some((inner, rest.trim_start_matches(['*', '_']), is_code));
        }
    }
    if let Some((inner, rest)) = text.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        // A link, or brackets around the path. `[id].tsx` is a name.
        let target = rest.strip_prefix('(').and_then(|rest| rest.split_once(')'));
        if let Some((target, rest)) = target {
            // `src/app.py#L3-L9` is a part of a file.
            if target.rsplit_once('#').is_some_and(|(_, lines)| is_span_of_lines(lines)) {
                return None;
            }
            return Some((inner.trim_matches('`'), rest, true));
        }
        if rest.is_empty() || rest.starts_with([':', ' ', '*']) {
            return Some((inner.trim_matches('`'), rest, true));
        }
    }
    let end = text.find(char::is_whitespace).unwrap_or(text.len());
    let (word, rest) = text.split_at(end);
    let trimmed = word.trim_end_matches([':', '*', '`', '_']);
    let trimmed = if trimmed.is_empty() { word } else { trimmed };
    (!word.is_empty()).then_some((trimmed, rest, false))
}

/// Returns whether the text after a path is a remark on it rather than the rest of a sentence.
fn is_remark(text: &str, is_marked: bool) -> bool {
    let text = text.trim().trim_matches(['*', '_', '`']).trim();
    let text = text.strip_suffix([':', '.']).unwrap_or(text).trim_matches(['*', '_']).trim();
    if text.is_empty() {
        return true;
    }
    let is_bracketed =
        text.starts_with(['(', '[']) && text.trim_end_matches([':', '*']).ends_with([')', ']']);
    let dashes = ["- ", "– ", "— ", "-- ", "→ ", "← ", "| ", "# ", "// "];
    let described = dashes.iter().find_map(|dash| text.strip_prefix(dash));
    // `src/app.py - add a route` is about a change.
    let first = described.and_then(|text| words_of(text).next());
    let is_dashed = described.is_some() && !first.is_some_and(|word| CHANGES.contains(&word.as_str()));
    let is_colon = is_marked && text.starts_with(": ");
    let without_emoji = without_symbols(text);
    let is_emoji =
        without_emoji.is_empty() || without_emoji != text && without_emoji.eq_ignore_ascii_case("new");
    let is_announcement = is_marked && ANNOUNCEMENTS.iter().any(|listed| text.eq_ignore_ascii_case(listed));
    is_bracketed || is_dashed || is_colon || is_emoji || is_announcement
}

/// Returns the range of `part`, a slice of `whole`, in `whole`.
fn range_in(whole: &str, part: &str) -> Range<usize> {
    let start = part.as_ptr().addr() - whole.as_ptr().addr();
    debug_assert!(start + part.len() <= whole.len(), "`part` is a slice of `whole`");
    start..start + part.len()
}

#[cfg(test)]
mod tests;
