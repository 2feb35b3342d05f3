//! A block that is open: its labels, and the units that it is cut into.

use std::ops::Range;

use crate::cut::{Cut, Cuts};
use crate::layout::{Form, UnitKind};
use crate::line_prefix::LinePrefix;
use crate::splitter::changed_path::changed_path;
use crate::splitter::element::{self, Shape};
use crate::splitter::info::{self, language_of_file};
use crate::splitter::structure::fence;
use crate::splitter::{Cap, SplitError};

#[derive(Debug, Clone)]
pub(super) struct Block {
    /// Decided when the first piece is reported.
    pub(super) kind: Option<UnitKind>,
    /// It is an edit, regardless of its content.
    pub(super) is_part: bool,
    pub(super) close: Close,
    pub(super) marker: u8,
    pub(super) width: usize,
    pub(super) prefix: LinePrefix,
    /// Start of the content that was not reported yet.
    pub(super) body: usize,
    pub(super) info: Option<Range<usize>>,
    pub(super) path: Option<Range<usize>>,
    /// A piece with the labels was reported already.
    pub(super) continued: bool,
    pub(super) body_at_line_start: bool,
    /// Fences inside may belong to the content.
    pub(super) nests: bool,
    pub(super) may_be_markdown: bool,
    /// Its lines should be indented like its list item.
    pub(super) in_list: bool,
    /// The widths of the open fences inside.
    pub(super) inner: Vec<usize>,
    pub(super) has_inner: bool,
    pub(super) is_ambiguous: bool,
    /// Start of the line after the fence that made it ambiguous.
    pub(super) reopened: Option<usize>,
}

/// The line that closes a block.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Close {
    Fence,
    /// A closing tag. Until the first line of content, a fence may open around it.
    Tag {
        tag: Vec<u8>,
        is_new: bool,
    },
    /// The last marker of a search/replace block.
    Edit,
    /// `*** End Patch`.
    Patch,
    /// The first line that is not part of a unified diff.
    Diff,
}

impl Block {
    pub(super) fn new(close: Close, body: usize) -> Self {
        Self {
            kind: None,
            is_part: false,
            close,
            marker: 0,
            width: 0,
            prefix: LinePrefix::default(),
            body,
            info: None,
            path: None,
            continued: false,
            body_at_line_start: true,
            nests: false,
            may_be_markdown: false,
            in_list: false,
            inner: Vec::new(),
            has_inner: false,
            is_ambiguous: false,
            reopened: None,
        }
    }

    /// Decides the kind and path from the content or its first piece.
    pub(super) fn decide(&mut self, window: &[u8], end: usize, is_files: bool) {
        if self.kind.is_some() {
            return;
        }
        self.kind = Some(UnitKind::Code);
        if self.in_list {
            self.prefix.limit_to(&window[self.body..end]);
        }
        if !is_files {
            return;
        }
        let text = |range: Range<usize>| std::str::from_utf8(&window[range]).unwrap_or_default();
        let language = self.info.clone().map(text).and_then(language_of_file).unwrap_or_default();
        let content = text(self.body..end);
        match element::shape(language, content) {
            // `$ python app.py`: commands and their output.
            Shape::Plain if content.starts_with("$ ") && !self.is_part => {}
            Shape::Edit => self.kind = Some(UnitKind::Edit),
            Shape::Diff => self.kind = Some(UnitKind::Diff),
            Shape::Plain if self.is_part => self.kind = Some(UnitKind::Edit),
            Shape::Plain => {
                let named =
                    path_in(content, language).map(|path| self.body + path.start..self.body + path.end);
                let named_before = self.path.clone().map(text);
                // A heading may give only the file name, and the comment the directory as well.
                let is_longer = |path: &Range<usize>| {
                    named_before.is_none_or(|named_before| {
                        text(path.clone())
                            .strip_suffix(named_before)
                            .is_some_and(|directory| directory.ends_with('/'))
                    })
                };
                if let Some(path) = &named
                    && names_several(content, path.start - self.body..path.end - self.body)
                {
                    return;
                }
                if let Some(path) = named.filter(is_longer) {
                    if text(path.clone()).ends_with(".json")
                        && let Some(line) = content.find('\n')
                    {
                        // JSON has no comments.
                        self.body += line + 1;
                    }
                    self.path = Some(path);
                }
                if self.path.is_some() {
                    self.kind = Some(if self.is_ambiguous { UnitKind::Ambiguous } else { UnitKind::File });
                }
            }
        }
    }

    pub(super) fn cut(&self, window: &[u8], end: usize, is_files: bool) -> Cut {
        let mut decided = self.clone();
        decided.decide(window, end, is_files);
        let form = if decided.prefix.is_empty() {
            Form::Plain
        } else {
            Form::Framed { prefix: decided.prefix, at_line_start: self.body_at_line_start }
        };
        let kind = decided.kind.unwrap_or(UnitKind::Code);
        let is_change = matches!(kind, UnitKind::Edit | UnitKind::Diff);
        if is_change && decided.path.is_none() && !self.continued {
            let content = std::str::from_utf8(&window[decided.body..end]).unwrap_or_default();
            let in_comment = || path_in(content, "").filter(|_| kind == UnitKind::Edit);
            let path = changed_path(content, decided.prefix.indentation()).or_else(in_comment);
            decided.path = path.map(|path| decided.body + path.start..decided.body + path.end);
        }
        Cut::new(kind, decided.body..end)
            .with_path(if kind == UnitKind::Code { None } else { decided.path })
            .with_info(decided.info)
            .with_form(form)
            .continued(self.continued)
    }

    /// Ends the block because the quote or list around it has ended. This is the end according to
    /// CommonMark; a file should have had a closing fence.
    pub(super) fn ended(&self, window: &[u8], end: usize, is_files: bool) -> Cut {
        let cut = self.cut(window, end, is_files);
        if is_files { cut.incomplete() } else { cut }
    }

    /// Detects a fence that opens a block inside this one.
    pub(super) fn look_for_inner(&mut self, line: &[u8]) {
        let indent = line.iter().take_while(|byte| **byte == b' ').count();
        let least = self.inner.last().copied().unwrap_or(self.width);
        if indent <= 3
            && line.get(indent) == Some(&self.marker)
            && let Some((marker, width, info)) = fence(&line[indent..])
            && marker == self.marker
            && width >= least
            && !info.is_empty()
        {
            self.inner.push(width);
            self.has_inner = true;
        }
    }

    /// Splits off what exceeds the cap: at the start of `line` if possible, so that indentation and
    /// closing fences are not split.
    pub(super) fn enforce(
        &mut self,
        cap: Cap,
        window: &[u8],
        line: Range<usize>,
        is_files: bool,
        out: &mut Cuts,
    ) -> Result<(), SplitError> {
        while line.end - self.body > cap.bytes_max() {
            let end = cap.cut(window, &(self.body..line.end), out)?;
            let end = if line.start > self.body { line.start } else { end };
            out.push(self.cut(window, end, is_files).incomplete());
            self.decide(window, end, is_files);
            self.body = end;
            self.body_at_line_start = end == line.start;
            self.continued = true;
            // The first piece carries the labels. Retaining them would keep the whole block in the
            // window.
            (self.info, self.path) = (None, None);
        }
        Ok(())
    }

    pub(super) fn shift(&mut self, by: usize) {
        self.body -= by;
        self.reopened = self.reopened.and_then(|at| at.checked_sub(by));
        [&mut self.info, &mut self.path].into_iter().flatten().for_each(|range| shift(range, by));
    }

    /// Returns the start of the part of the window that is still needed.
    pub(super) fn needed_from(&self) -> usize {
        let labels = [&self.path, &self.info].into_iter().flatten().map(|range| range.start);
        labels.fold(self.body, usize::min)
    }
}

/// Removes the markers of a CDATA section that makes up the whole content of an element.
pub(super) fn without_cdata(window: &[u8], content: Range<usize>) -> Range<usize> {
    let text = window.get(content.clone()).unwrap_or_default();
    let inner = text.trim_ascii().strip_prefix(b"<![CDATA[").and_then(|rest| rest.strip_suffix(b"]]>"));
    let Some(inner) = inner else { return content };
    let start = content.start + (text.len() - text.trim_ascii_start().len()) + b"<![CDATA[".len();
    // As after a tag, a line ending after the opening marker is not content, nor are blanks before
    // the closing one.
    let line_end =
        [&b"\r\n"[..], b"\n"].into_iter().find(|end| inner.starts_with(end)).map_or(0, <[u8]>::len);
    let indent = inner.iter().rev().take_while(|c| matches!(c, b' ' | b'\t')).count();
    let is_indent = inner[..inner.len() - indent].ends_with(b"\n");
    let end = start + inner.len() - if is_indent { indent } else { 0 };
    (start + line_end).min(end)..end
}

/// Returns the path that a comment in the first lines of a block names.
fn path_in(content: &str, language: &str) -> Option<Range<usize>> {
    let mut start = 0;
    let mut in_comment = false;
    // Lines that must come first, blank lines and rules, or the start of a comment.
    for _ in 0..3 {
        let line = content[start..].lines().next()?;
        let lower = line.trim().to_ascii_lowercase();
        let opens_comment = ["/*", "/**", "/*!", "<!--", "{/*", "\"\"\"", "'''"].contains(&lower.as_str());
        in_comment |= opens_comment;
        let is_before = ["#!", "<?php", "<?xml", "<!doctype", "# -*-", "'use strict'", "\"use strict\""];
        let is_rule = lower.len() >= 3
            && ["#", "-", "/", "*", "=", "\"", "'"].iter().any(|mark| lower.replace(mark, "").is_empty());
        if !lower.is_empty()
            && !is_rule
            && !opens_comment
            && !is_before.iter().any(|before| lower.starts_with(before))
        {
            break;
        }
        start += content[start..].find('\n')? + 1;
    }
    let line = content[start..].lines().next()?;
    let path = if in_comment {
        info::path_in_comment(line, language)
    } else {
        info::path_of_comment(line, language)
    }?;
    Some(start + path.start..start + path.end)
}

/// Returns whether a block joins several files: a comment like the one that names its path names
/// another one.
fn names_several(content: &str, path: Range<usize>) -> bool {
    let first = content[..path.start].rfind('\n').map_or(0, |end| end + 1);
    let (before, after) = (&content[first..path.start], &content[path.end..]);
    let after = after.lines().next().unwrap_or_default();
    let path = &content[path];
    let between = |line: &'_ str| {
        let inner = line.strip_prefix(before).and_then(|rest| rest.strip_suffix(after));
        inner.is_some_and(|other| other != path && info::path_of_comment(line, "").is_some())
    };
    !before.trim().is_empty() && content.lines().any(between)
}

pub(super) fn shift(range: &mut Range<usize>, by: usize) {
    *range = range.start - by..range.end - by;
}
