//! Recognizes files in XML-like elements, and search/replace blocks and patches outside fences,
//! line by line.

use std::ops::Range;

use super::info::is_elision;
use super::path::{Trust, is_path};

/// Elements with the path in an attribute, in lower case, with the required value of `type`.
const WITH_ATTRIBUTE: [(&str, Option<&str>); 20] = [
    ("boltaction", Some("file")),
    ("plandexblock", None),
    ("file", None),
    ("write_file", None),
    ("create_file", None),
    ("new_file", None),
    ("source_file", None),
    ("dyad-write", None),
    ("lov-write", None),
    ("file_content", None),
    ("write_to_file", None),
    ("write", None),
    ("artifact_file", None),
    ("antartifact", None),
    ("artifact", None),
    ("code_file", None),
    ("source", None),
    ("sourcecode", None),
    ("code", None),
    ("codeblock", None),
];

/// Elements that replace a fence below a line that names the file. aider uses them for files that
/// contain fences.
const FENCES: [&str; 6] = ["source", "sourcecode", "code", "codeblock", "pre", "plandexblock"];

/// Attributes that hold a path.
const ATTRIBUTES: [&str; 9] =
    ["filepath", "file_path", "path", "filename", "file_name", "name", "file", "title", "src"];

/// Returns the attributes that hold the path of an element. In HTML, `<source src="a.mp4">` is
/// another resource.
fn attributes_of(name: &str) -> &'static [&'static str] {
    if name == "file" { &ATTRIBUTES } else { &ATTRIBUTES[..ATTRIBUTES.len() - 1] }
}

/// Elements whose whole content is a path.
const PATHS: [&str; 8] =
    ["path", "file_path", "filepath", "filename", "file_name", "name", "source", "target_file"];

/// Elements that contain a file whose path was given by an earlier element.
const CONTENTS: [&str; 9] = [
    "content",
    "contents",
    "document_content",
    "document_contents",
    "file_content",
    "file_contents",
    "file_text",
    "code",
    "source",
];

/// Elements that contain changes of such a file.
const PARTS: [&str; 3] = ["code_edit", "diff", "patch"];

/// The tag found in a line outside fences.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Tag {
    /// An element with a path or with content. Ranges are relative to the line.
    Opens { path: Option<Range<usize>>, name: Range<usize>, body: usize },
    /// The path for a later element.
    Path(Range<usize>),
}

/// Returns the name and the length of a tag that replaces a fence.
pub(super) fn tag_as_fence(line: &str) -> Option<(Range<usize>, usize)> {
    let tag = line.trim().strip_prefix('<')?.strip_suffix('>')?;
    let name = tag.split(char::is_whitespace).next()?;
    let is_plain = name == tag || name.eq_ignore_ascii_case("plandexblock");
    let is_fence = is_plain && FENCES.iter().any(|listed| name.eq_ignore_ascii_case(listed));
    is_fence.then(|| (range_in(line, name), line.len()))
}

/// Returns whether an element of this name contains changes of a file.
pub(super) fn contains_part(name: &str) -> bool {
    PARTS.iter().any(|listed| name.eq_ignore_ascii_case(listed))
}

/// Finds a tag about files in a line.
pub(super) fn tag(line: &str, has_path: bool) -> Option<Tag> {
    let mut at = line.len() - line.trim_start().len();
    let mut path = None;
    loop {
        let rest = &line[at..];
        if !rest.starts_with('<') {
            break;
        }
        let Some(end) = tag_end(rest) else { break };
        let inside = &rest[1..end];
        let name_length = inside.find(|c: char| c.is_whitespace() || c == '/').unwrap_or(inside.len());
        let name = &inside[..name_length];
        let lower = name.to_ascii_lowercase();
        let body = at + end + 1;
        let name_range = at + 1..at + 1 + name_length;
        if let Some((_, kind)) = WITH_ATTRIBUTE.iter().find(|(listed, _)| *listed == lower)
            && let Some(value) =
                attribute(inside, attributes_of(&lower)).filter(|value| is_path(value, Trust::Labelled))
            && kind.is_none_or(|kind| attribute(inside, &["type"]) == Some(kind))
        {
            let opens = Tag::Opens { path: Some(range_in(line, value)), name: name_range, body };
            return (!inside.ends_with('/')).then_some(opens);
        }
        if (CONTENTS.contains(&lower.as_str()) || contains_part(name)) && (path.is_some() || has_path) {
            return Some(Tag::Opens { path, name: name_range, body });
        }
        let close = format!("</{name}>");
        if PATHS.contains(&lower.as_str())
            && let Some((value, _)) = line[body..].split_once(close.as_str())
        {
            let value = value.trim();
            if is_path(value, Trust::Labelled) {
                path = Some(range_in(line, value));
            }
            at = body + line[body..].find(close.as_str()).unwrap_or_default() + close.len();
        } else {
            at = body;
        }
        at += line[at..].len() - line[at..].trim_start().len();
    }
    path.map(Tag::Path)
}

/// Returns the offset of the `>` that ends the tag at the start of the text.
fn tag_end(text: &str) -> Option<usize> {
    let mut quote = None;
    text.char_indices().find_map(|(at, c)| {
        match (quote, c) {
            (Some(open), _) if open == c => quote = None,
            (Some(_), _) => {}
            (None, '"' | '\'') => quote = Some(c),
            (None, '>') => return Some(at),
            _ => {}
        }
        None
    })
}

/// Returns the value of the first of the given attributes.
fn attribute<'a>(tag: &'a str, names: &[&str]) -> Option<&'a str> {
    let mut rest = tag;
    let mut found: Option<(usize, &str)> = None;
    while let Some((before, after)) = rest.split_once('=') {
        let name =
            before.trim_end().rsplit(char::is_whitespace).next().unwrap_or_default().to_ascii_lowercase();
        let after = after.trim_start();
        let quote = after.chars().next().filter(|c| ['"', '\''].contains(c));
        let (value, left) = match quote {
            Some(quote) => after[1..].split_once(quote)?,
            None => after.split_at(after.find(char::is_whitespace).unwrap_or(after.len())),
        };
        let rank = names.iter().position(|listed| *listed == name);
        if let Some(rank) = rank
            && found.is_none_or(|(best, _)| rank < best)
        {
            found = Some((rank, value));
        }
        rest = left;
    }
    found.map(|(_, value)| value)
}

/// Returns whether a line opens a search/replace block.
pub(super) fn opens_edit(line: &str) -> bool {
    let line = line.trim_end();
    let marks = |mark: char| line.chars().take_while(|c| *c == mark).count();
    let is_marked =
        |mark, word: &str| (5..=9).contains(&marks(mark)) && line.trim_start_matches(mark).trim() == word;
    is_marked('<', "SEARCH") || is_marked('-', "SEARCH") || is_marked('<', "ORIGINAL")
}

/// Returns whether a line closes a search/replace block.
pub(super) fn closes_edit(line: &str) -> bool {
    let line = line.trim_end();
    ['>', '+'].iter().any(|mark| {
        let word = line.trim_start_matches(*mark);
        line.len() - word.len() >= 5 && ["REPLACE", "UPDATED"].contains(&word.trim())
    })
}

/// Returns whether a line opens a patch: `Some(true)` for a unified diff, whose lines start with
/// `+`, `-` or a blank, and `Some(false)` for a patch with an end marker.
pub(super) fn opens_patch(line: &str) -> Option<bool> {
    if line.trim_end() == "*** Begin Patch" {
        return Some(false);
    }
    (line.starts_with("diff --git ") || line.starts_with("--- a/") || line.starts_with("--- /dev/null"))
        .then_some(true)
}

/// Returns whether a line continues a unified diff.
pub(super) fn continues_diff(line: &str) -> bool {
    const HEADS: [&str; 13] = [
        "diff ",
        "index ",
        "new file",
        "deleted file",
        "old mode",
        "new mode",
        "similarity ",
        "rename ",
        "copy ",
        "Binary ",
        "GIT binary",
        "@@",
        "\\ No newline",
    ];
    line.starts_with(['+', '-', ' ']) || HEADS.iter().any(|head| line.starts_with(head))
}

/// The form of a block's content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shape {
    Edit,
    Diff,
    Plain,
}

/// Returns the form of a block's content.
pub(super) fn shape(language: &str, content: &str) -> Shape {
    let language = language.to_ascii_lowercase();
    if ["diff", "patch", "udiff", "gitdiff", "git-diff"].contains(&language.as_str()) && !has_edit(content) {
        return Shape::Diff;
    }
    let has_dots =
        ["...", "…"].iter().any(|dots| memchr::memmem::find(content.as_bytes(), dots.as_bytes()).is_some());
    if has_edit(content) || has_dots && content.lines().any(is_elision) {
        return Shape::Edit;
    }
    let mut lines = content.lines().filter(|line| !line.trim().is_empty());
    let (first, second) = (lines.next().unwrap_or_default(), lines.next().unwrap_or_default());
    let is_hunk = |line: &str| line.starts_with("@@ ") && line[3..].contains("@@");
    let is_diff = first.starts_with("diff --git ")
        || first.starts_with("--- ") && second.starts_with("+++ ")
        || is_hunk(first)
        || first.trim_end() == "*** Begin Patch";
    if is_diff { Shape::Diff } else { Shape::Plain }
}

/// Returns whether the content has the markers of a search/replace block or of a conflict at line
/// starts, in order.
fn has_edit(content: &str) -> bool {
    if memchr::memmem::find(content.as_bytes(), b"=====").is_none() {
        return false;
    }
    let mut lines = content.lines();
    let opens = |line: &str| opens_edit(line) || line.starts_with("<<<<<<< ");
    let closes = |line: &str| closes_edit(line) || line.starts_with(">>>>>>> ");
    lines.any(opens) && lines.any(|line| line.starts_with("=====")) && lines.any(closes)
}

/// Returns the range of `part`, a slice of `whole`, in `whole`.
fn range_in(whole: &str, part: &str) -> Range<usize> {
    let start = part.as_ptr().addr() - whole.as_ptr().addr();
    debug_assert!(start + part.len() <= whole.len(), "the part lies in the whole");
    start..start + part.len()
}
