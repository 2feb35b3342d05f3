//! Tracks the block structure of CommonMark (<https://spec.commonmark.org/0.31.2/>) line by line,
//! as far as needed to distinguish fences from content.

use std::ops::Range;

use crate::line_prefix::{CONTAINERS_MAX, LineCursor, LinePrefix, QUOTE, is_blank};

/// The quotes and list items around a line, and the leaf block that the line may continue.
#[derive(Debug, Clone, Default)]
pub(super) struct Structure {
    containers: Vec<Container>,
    leaf: Leaf,
    /// HTML blocks hide fences.
    has_html: bool,
    /// The content of a fence inside a list may be indented less than its list item.
    is_lenient: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Container {
    Quote,
    /// A list item whose content is indented by `columns` columns.
    Item {
        columns: usize,
        /// Only its marker was read.
        is_empty: bool,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Leaf {
    #[default]
    None,
    Paragraph,
    Fence {
        marker: u8,
        width: usize,
    },
    Html(HtmlEnd),
}

/// The end of an HTML block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum HtmlEnd {
    Blank,
    RawTag,
    Text(&'static [u8]),
}

/// The role of a line.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum LineRole {
    Blank,
    /// Text that starts at this offset, after markers of quotes and lists.
    Text(usize),
    Opens(Opening),
    Content,
    Closes,
}

/// An opening fence; `info` is a range of its line.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Opening {
    pub(super) marker: u8,
    pub(super) width: usize,
    pub(super) info: Range<usize>,
    pub(super) prefix: LinePrefix,
    /// All its containers are list items, and there is at least one.
    pub(super) in_list: bool,
}

impl Structure {
    pub(super) fn strict() -> Self {
        Self { has_html: true, ..Self::default() }
    }

    pub(super) fn lenient() -> Self {
        Self { is_lenient: true, ..Self::default() }
    }

    /// Processes a line without its line ending. The flag is set if an open fence has ended before
    /// the line, because its quote or list has.
    pub(super) fn line(&mut self, text: &[u8]) -> (bool, LineRole) {
        if let (Leaf::Fence { marker, width }, true) = (self.leaf, self.containers.is_empty()) {
            return (false, self.fence_line(LineCursor::new(text), marker, width));
        }
        let mut at = LineCursor::new(text);
        let matched = self.matching(&mut at);
        let is_all = matched == self.containers.len();
        let mut has_ended = false;
        match self.leaf {
            Leaf::Fence { marker, width } if is_all => return (false, self.fence_line(at, marker, width)),
            Leaf::Html(end) if is_all => {
                if end.is_met_by(at.rest()) {
                    self.leaf = Leaf::None;
                }
                return (false, if at.is_blank() { LineRole::Blank } else { LineRole::Text(at.at) });
            }
            Leaf::Fence { .. } => {
                has_ended = true;
                self.close_unmatched(matched);
            }
            Leaf::Html(_) => self.close_unmatched(matched),
            Leaf::None | Leaf::Paragraph => {}
        }
        (has_ended, self.outside(at, matched))
    }

    /// Processes an oversized line by its beginning.
    pub(super) fn long_line(&mut self, beginning: &[u8]) -> bool {
        let before = self.leaf;
        let (has_ended, line) = self.line(beginning);
        match line {
            LineRole::Opens(_) => self.leaf = Leaf::Paragraph,
            LineRole::Closes => self.leaf = before,
            _ => {}
        }
        has_ended
    }

    /// Returns whether a line belongs to the open fence, regardless of its content.
    pub(super) fn has_line(&self, beginning: &[u8]) -> bool {
        self.matching_count(&mut LineCursor::new(beginning)) == self.containers.len()
    }

    /// Reopens the fence that the last line closed.
    pub(super) fn reopen(&mut self, marker: u8, width: usize) {
        self.leaf = Leaf::Fence { marker, width };
    }

    fn fence_line(&mut self, at: LineCursor<'_>, marker: u8, width: usize) -> LineRole {
        // CommonMark: at least as many markers as the opening fence, indented by at most three
        // spaces, followed only by white space.
        let rest = at.rest_trimmed();
        let run = rest.iter().take_while(|byte| **byte == marker).count();
        if run >= width && rest[run..].iter().all(is_blank) && at.indent() <= 3 {
            self.leaf = Leaf::None;
            return LineRole::Closes;
        }
        LineRole::Content
    }

    fn matching(&mut self, at: &mut LineCursor<'_>) -> usize {
        let matched = self.matching_count(at);
        if !at.is_blank() {
            for container in &mut self.containers[..matched] {
                if let Container::Item { is_empty, .. } = container {
                    *is_empty = false;
                }
            }
        }
        matched
    }

    /// Returns how many of the containers continue in the line.
    fn matching_count(&self, at: &mut LineCursor<'_>) -> usize {
        let is_lenient = self.is_lenient && matches!(self.leaf, Leaf::Fence { .. });
        let mut continues = |container: &Container| match *container {
            Container::Quote => at.take_quote(),
            Container::Item { columns, is_empty } => {
                if at.is_blank() {
                    at.take_columns(columns);
                    return !is_empty || is_lenient;
                }
                let fits = at.indent() >= columns;
                if fits || is_lenient {
                    at.take_columns(columns.min(at.indent()));
                }
                fits || is_lenient
            }
        };
        let mut matched = 0;
        while self.containers.get(matched).is_some_and(&mut continues) {
            matched += 1;
        }
        matched
    }

    fn outside(&mut self, mut at: LineCursor<'_>, mut matched: usize) -> LineRole {
        let mut is_all = matched == self.containers.len();
        loop {
            if at.is_blank() {
                self.close_unmatched(matched);
                return LineRole::Blank;
            }
            let indent = at.indent();
            let is_paragraph = self.leaf == Leaf::Paragraph;
            if indent >= 4 {
                if !is_paragraph {
                    self.close_unmatched(matched);
                }
                return LineRole::Text(at.at);
            }
            let rest = at.rest_trimmed();
            if rest[0] == b'>' {
                self.close_unmatched(matched);
                at.take_quote();
                self.containers.push(Container::Quote);
            } else if is_heading(rest) {
                self.close_unmatched(matched);
                return LineRole::Text(at.at + at.spaces());
            } else if let Some(fence) = fence(rest) {
                self.close_unmatched(matched);
                return self.open_fence(fence, indent, at.at + at.spaces());
            } else if let Some(end) = html(rest, is_paragraph).filter(|_| self.has_html) {
                self.close_unmatched(matched);
                let is_over = end != HtmlEnd::Blank && end.is_met_by(rest);
                self.leaf = if is_over { Leaf::None } else { Leaf::Html(end) };
                return LineRole::Text(at.at);
            } else if is_paragraph && is_all && is_underline(rest) {
                self.leaf = Leaf::None;
                return LineRole::Text(at.at);
            } else if is_rule(rest) {
                self.close_unmatched(matched);
                return LineRole::Text(at.at);
            } else if let Some((width, is_empty)) = list_marker(rest, is_paragraph && is_all) {
                self.close_unmatched(matched);
                at.take_columns(indent);
                let columns = indent + at.take_marker(width);
                self.containers.push(Container::Item { columns, is_empty });
            } else {
                break;
            }
            matched = self.containers.len();
            is_all = true;
        }
        // A paragraph continues without the markers of its containers.
        if is_all || self.leaf != Leaf::Paragraph {
            self.close_unmatched(matched);
            self.leaf = Leaf::Paragraph;
        }
        LineRole::Text(at.at + at.spaces())
    }

    /// Opens a fence that starts at `start` in its line.
    fn open_fence(&mut self, fence: (u8, usize, Range<usize>), indent: usize, start: usize) -> LineRole {
        let (marker, width, info) = fence;
        let Some(prefix) = self.prefix(indent) else {
            // Nested too deeply to remove the prefix from the content.
            self.leaf = Leaf::Paragraph;
            return LineRole::Text(start);
        };
        self.leaf = Leaf::Fence { marker, width };
        let in_list = !self.containers.is_empty() && !self.containers.contains(&Container::Quote);
        let info = start + info.start..start + info.end;
        LineRole::Opens(Opening { marker, width, info, prefix, in_list })
    }

    /// Closes the containers that did not continue, and the leaf.
    fn close_unmatched(&mut self, matched: usize) {
        self.containers.truncate(matched);
        self.leaf = Leaf::None;
    }

    fn prefix(&self, indent: usize) -> Option<LinePrefix> {
        let mut prefix = LinePrefix { columns: u8::try_from(indent).ok()?, ..LinePrefix::default() };
        if self.containers.iter().all(|container| *container != Container::Quote) {
            // The number of columns is the same for every line.
            let columns = self.containers.iter().map(|container| container.columns()).sum::<usize>();
            prefix.columns = u8::try_from(columns + indent).ok()?;
            return Some(prefix);
        }
        if self.containers.len() > CONTAINERS_MAX {
            return None;
        }
        for (step, container) in prefix.steps.iter_mut().zip(&self.containers) {
            *step = match container {
                Container::Quote => QUOTE,
                Container::Item { columns, .. } => {
                    u8::try_from(*columns).ok().filter(|step| *step != QUOTE)?
                }
            };
        }
        Some(prefix)
    }
}

impl Container {
    fn columns(self) -> usize {
        match self {
            Self::Quote => 0,
            Self::Item { columns, .. } => columns,
        }
    }
}

impl HtmlEnd {
    fn is_met_by(self, line: &[u8]) -> bool {
        let has = |end: &[u8]| line.windows(end.len()).any(|bytes| bytes.eq_ignore_ascii_case(end));
        match self {
            Self::Blank => line.iter().all(is_blank),
            Self::RawTag => [&b"</script>"[..], b"</pre>", b"</style>", b"</textarea>"].into_iter().any(has),
            Self::Text(end) => has(end),
        }
    }
}

/// `# …` to `###### …`.
fn is_heading(text: &[u8]) -> bool {
    let marks = text.iter().take_while(|byte| **byte == b'#').count();
    (1..=6).contains(&marks) && text.get(marks).is_none_or(is_blank)
}

/// Parses the marker, width and info string of an opening fence.
pub(super) fn fence(text: &[u8]) -> Option<(u8, usize, Range<usize>)> {
    let marker = *text.first().filter(|byte| matches!(byte, b'`' | b'~'))?;
    let width = text.iter().take_while(|byte| **byte == marker).count();
    let after = &text[width..];
    let lead = after.len() - after.trim_ascii_start().len();
    let info = after.trim_ascii();
    let is_fence = width >= 3 && !(marker == b'`' && info.contains(&b'`'));
    let start = if info.is_empty() { width } else { width + lead };
    is_fence.then_some((marker, width, start..start + info.len()))
}

/// Returns whether a line below a paragraph makes it a heading.
fn is_underline(text: &[u8]) -> bool {
    let text = text.trim_ascii_end();
    text.iter().all(|byte| *byte == b'=') || text.iter().all(|byte| *byte == b'-')
}

/// `***`, `- - -`, `___`.
fn is_rule(text: &[u8]) -> bool {
    let mark = text[0];
    let marks = text.iter().filter(|byte| **byte == mark).count();
    matches!(mark, b'*' | b'-' | b'_')
        && marks >= 3
        && text.iter().all(|byte| *byte == mark || is_blank(byte))
}

/// Returns the width of a list marker, and whether the rest of the line is empty. Only some items
/// may interrupt a paragraph.
fn list_marker(text: &[u8], interrupts: bool) -> Option<(usize, bool)> {
    let digits = text.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let width = match (digits, text.get(digits)) {
        (0, Some(b'-' | b'+' | b'*')) => 1,
        (1..=9, Some(b'.' | b')')) => digits + 1,
        _ => return None,
    };
    let after = &text[width..];
    let is_empty = after.iter().all(is_blank);
    let starts_at_one = digits == 0 || &text[..digits] == b"1";
    let is_marker = is_empty || is_blank(&after[0]);
    (is_marker && !(interrupts && (is_empty || !starts_at_one))).then_some((width, is_empty))
}

/// Returns the end of the HTML block that starts here (CommonMark 4.6), if one does.
fn html(text: &[u8], interrupts: bool) -> Option<HtmlEnd> {
    let inside = text.strip_prefix(b"<")?;
    if inside.starts_with(b"!--") {
        return Some(HtmlEnd::Text(b"-->"));
    }
    if inside.starts_with(b"?") {
        return Some(HtmlEnd::Text(b"?>"));
    }
    if inside.starts_with(b"![CDATA[") {
        return Some(HtmlEnd::Text(b"]]>"));
    }
    if inside.first() == Some(&b'!') && inside.get(1).is_some_and(u8::is_ascii_alphabetic) {
        return Some(HtmlEnd::Text(b">"));
    }
    let is_closing = inside.first() == Some(&b'/');
    let named = &inside[usize::from(is_closing)..];
    let length = named.iter().take_while(|byte| byte.is_ascii_alphanumeric() || **byte == b'-').count();
    let (name, after) = named.split_at(length);
    let name =
        std::str::from_utf8(name).ok().filter(|name| name.starts_with(|c: char| c.is_ascii_alphabetic()))?;
    let name = name.to_ascii_lowercase();
    let ends = after.is_empty() || matches!(after[0], b' ' | b'\t' | b'>');
    let is_raw = ["script", "pre", "style", "textarea"].contains(&name.as_str());
    if is_raw && ends && !is_closing {
        return Some(HtmlEnd::RawTag);
    }
    if HTML_BLOCKS.contains(&name.as_str()) && (ends || after.starts_with(b"/>")) {
        return Some(HtmlEnd::Blank);
    }
    let is_alone = tag_end(after, is_closing).is_some_and(|rest| rest.iter().all(is_blank));
    (is_alone && !is_raw && !interrupts).then_some(HtmlEnd::Blank)
}

/// Returns the text after a tag whose attributes start here (CommonMark 6.6).
fn tag_end(mut text: &[u8], is_closing: bool) -> Option<&[u8]> {
    loop {
        let trimmed = text.trim_ascii_start();
        if let Some(rest) = trimmed.strip_prefix(b">") {
            return Some(rest);
        }
        if is_closing {
            return None;
        }
        if let Some(rest) = trimmed.strip_prefix(b"/>") {
            return Some(rest);
        }
        let is_name = |byte: &u8| byte.is_ascii_alphanumeric() || b"_:.-".contains(byte);
        let starts = |byte: &u8| byte.is_ascii_alphabetic() || b"_:".contains(byte);
        if trimmed.len() == text.len() || !trimmed.first().is_some_and(starts) {
            return None;
        }
        text = &trimmed[trimmed.iter().take_while(|byte| is_name(byte)).count()..];
        let Some(value) = text.trim_ascii_start().strip_prefix(b"=") else { continue };
        let value = value.trim_ascii_start();
        let end = match value.first()? {
            quote @ (b'"' | b'\'') => value[1..].iter().position(|byte| byte == quote)? + 2,
            _ => {
                let is_end = |byte: &u8| b" \t\"'=<>`".contains(byte);
                value.iter().position(is_end).unwrap_or(value.len())
            }
        };
        if end == 0 {
            return None;
        }
        text = &value[end..];
    }
}

const HTML_BLOCKS: [&str; 62] = [
    "address",
    "article",
    "aside",
    "base",
    "basefont",
    "blockquote",
    "body",
    "caption",
    "center",
    "col",
    "colgroup",
    "dd",
    "details",
    "dialog",
    "dir",
    "div",
    "dl",
    "dt",
    "fieldset",
    "figcaption",
    "figure",
    "footer",
    "form",
    "frame",
    "frameset",
    "h1",
    "h2",
    "h3",
    "h4",
    "h5",
    "h6",
    "head",
    "header",
    "hr",
    "html",
    "iframe",
    "legend",
    "li",
    "link",
    "main",
    "menu",
    "menuitem",
    "nav",
    "noframes",
    "ol",
    "optgroup",
    "option",
    "p",
    "param",
    "search",
    "section",
    "summary",
    "table",
    "tbody",
    "td",
    "tfoot",
    "th",
    "thead",
    "title",
    "tr",
    "track",
    "ul",
];
