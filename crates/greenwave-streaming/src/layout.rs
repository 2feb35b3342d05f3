//! Describes where the parts of a unit lie in its block, and how its content is assembled.

use std::borrow::Cow;
use std::ops::Range;

use crate::line_prefix::LinePrefix;

/// The kind of a unit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum UnitKind {
    /// A line, without its line ending.
    #[default]
    Line,
    /// The bytes between two delimiters.
    Record,
    /// Lines of text between blank lines.
    Paragraph,
    /// A sentence of text.
    Sentence,
    /// A code block, without its fences.
    Code,
    /// A whole file of a response, with its path.
    File,
    /// A JSON value.
    Json,
    /// The data of a server-sent event.
    Event,
    /// A change to part of a file: a search/replace block, or code in which comments replace
    /// omitted lines.
    Edit,
    /// A unified diff, or a patch in another format.
    Diff,
    /// A file whose end is ambiguous, because it contains fences as long as its own.
    Ambiguous,
    /// A kind defined by a splitter outside this crate.
    Other(u16),
}

/// A range of a block, stored in eight bytes instead of sixteen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Span {
    pub(crate) start: u32,
    pub(crate) end: u32,
}

const _: () = assert!(size_of::<Span>() == 8, "a line costs eight bytes");

impl Span {
    pub(crate) fn new(range: &Range<usize>) -> Self {
        let narrow = |offset: usize| u32::try_from(offset).expect("a window is shorter than 4 GiB");
        Self { start: narrow(range.start), end: narrow(range.end) }
    }

    pub(crate) fn range(self) -> Range<usize> {
        self.start as usize..self.end as usize
    }
}

/// The location of a unit's label: in the block, carried over from an earlier window, or decoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Label(pub(crate) Span);

impl Label {
    pub(crate) const NONE: Self = Self(Span { start: u32::MAX, end: u32::MAX });
    pub(crate) const CARRIED: Self = Self(Span { start: u32::MAX, end: 0 });

    pub(crate) fn new(range: Option<Range<usize>>) -> Self {
        range.map_or(Self::NONE, |range| Self(Span::new(&range)))
    }

    /// Returns a label whose text is in [`Cuts::replaced`](crate::cut::Cuts). The range must not be
    /// empty: its ends are stored swapped, which distinguishes it from ranges of the block.
    pub(crate) fn replaced(range: &Range<usize>) -> Self {
        debug_assert!(!range.is_empty(), "a label that was decoded has a character at least");
        let Span { start, end } = Span::new(range);
        Self(Span { start: end, end: start })
    }
}

/// Properties of a unit other than its span.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Detail {
    pub(crate) kind: UnitKind,
    pub(crate) form: Form,
    pub(crate) complete: bool,
    pub(crate) continued: bool,
    /// Path of a file, or type of an event.
    pub(crate) first: Label,
    /// Info string of a code block, or id of an event.
    pub(crate) second: Label,
}

impl Detail {
    pub(crate) const fn plain(kind: UnitKind) -> Self {
        Self {
            kind,
            form: Form::Plain,
            complete: true,
            continued: false,
            first: Label::NONE,
            second: Label::NONE,
        }
    }
}

/// The way a unit's content is derived from its bytes in the block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    /// The bytes are the content.
    Plain,
    /// The prefix is removed from each line; from the first line only if `at_line_start`.
    Framed { prefix: LinePrefix, at_line_start: bool },
    /// The values of `data` lines are joined. The bytes start with the value of the first one.
    DataLines,
}

impl Form {
    #[inline]
    pub(crate) fn apply(self, raw: &[u8]) -> Cow<'_, [u8]> {
        match self {
            Self::Plain => Cow::Borrowed(raw),
            Self::Framed { prefix, at_line_start } => {
                Cow::Owned(without_prefixes(raw, prefix, at_line_start))
            }
            Self::DataLines => Cow::Owned(join_data_lines(raw)),
        }
    }
}

/// Removes the prefix from each line.
fn without_prefixes(raw: &[u8], prefix: LinePrefix, mut at_line_start: bool) -> Vec<u8> {
    let mut out = Vec::with_capacity(raw.len());
    for line in raw.split_inclusive(|&byte| byte == b'\n') {
        // A lone CR ends a line too, unless it is part of a CRLF.
        for part in split_after_lone_cr(line) {
            if at_line_start {
                prefix.strip(part, &mut out);
            } else {
                out.extend_from_slice(part);
            }
            at_line_start = true;
        }
    }
    out
}

fn split_after_lone_cr(line: &[u8]) -> impl Iterator<Item = &[u8]> {
    let body = line.strip_suffix(b"\r\n").map_or(line.len(), <[u8]>::len);
    let mut rest = Some(line);
    std::iter::from_fn(move || {
        let now = rest.take().filter(|now| !now.is_empty())?;
        let start = line.len() - now.len();
        let cr = line[start..body.max(start)].iter().position(|&byte| byte == b'\r');
        let (part, left) = now.split_at(cr.map_or(now.len(), |cr| cr + 1));
        rest = Some(left);
        Some(part)
    })
}

fn join_data_lines(raw: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(raw.len());
    // Splitting CRLF yields an empty line, which is not a `data` line and is therefore skipped.
    let mut lines = raw.split(|&byte| byte == b'\n' || byte == b'\r');
    out.extend_from_slice(lines.next().unwrap_or_default());
    for line in lines {
        let Some(rest) = line.strip_prefix(b"data") else { continue };
        let value = match rest {
            [] => rest,
            [b':', b' ', value @ ..] | [b':', value @ ..] => value,
            _ => continue,
        };
        out.push(b'\n');
        out.extend_from_slice(value);
    }
    out
}
