//! The state machine that finds blocks in a response.

use std::ops::Range;

use crate::cut::Cuts;
use crate::layout::UnitKind;
use crate::splitter::element::{self, Tag};
use crate::splitter::fences::block::{Block, Close, shift, without_cdata};
use crate::splitter::fences::names::{Heading, HeldFile, Names, next_heading};
use crate::splitter::info::{self, Named, language_of_file};
use crate::splitter::language::{fits, is_markdown};
use crate::splitter::line_ends::find_end;
use crate::splitter::structure::{LineRole, Opening, Structure};
use crate::splitter::{Cap, SplitError};

/// Maximum length, in bytes, of a line outside code blocks that can open a block or name a file.
const LINE_BYTES_MAX: usize = 4096;

/// Number of bytes after a fence inside a Markdown file, without another fence, after which the
/// fence is considered to have closed the file.
const DOUBT_BYTES_MAX: usize = 16 << 10;

/// Maximum number of lines between an element with a path and the element with the content.
const ELEMENT_LINES_MAX: usize = 4;

/// The state machine behind [`Fences`](super::Fences) and [`Files`](super::Files). All offsets are
/// relative to the window.
#[derive(Debug)]
pub(super) struct Scanner {
    cap: Cap,
    state: FenceState,
    structure: Structure,
    /// Start of the current line; 0 if it starts before the window because the line was split.
    line: usize,
    /// Bytes of the current line before the window.
    line_before: usize,
    /// End of the part of the window that was searched for line endings.
    next: usize,
    /// Candidates for file names; `None` for [`Fences`](super::Fences).
    names: Option<Names>,
}

/// The position in a response: `Prose -> Skipping -> Prose`, `Prose -> Block -> Prose`.
#[derive(Debug)]
enum FenceState {
    /// Outside blocks.
    Prose,
    /// Outside blocks, in a line that is too long to be relevant.
    Skipping,
    /// Inside a block, which is boxed because it is moved out and back for each line.
    Block(Box<Block>),
}

impl Scanner {
    pub(super) fn new(cap: Cap, files: bool) -> Self {
        Self {
            cap,
            state: FenceState::Prose,
            structure: if files { Structure::lenient() } else { Structure::strict() },
            line: 0,
            line_before: 0,
            next: 0,
            names: files.then(Names::default),
        }
    }

    pub(super) fn scan(&mut self, window: &[u8], fresh: usize, out: &mut Cuts) -> Result<usize, SplitError> {
        debug_assert!(self.next == fresh || self.next + 1 == fresh, "all bytes but a last CR were scanned");
        while let Some(end) = find_end(window, self.next) {
            let after = match (window[end], window.get(end + 1)) {
                (b'\n', _) => end + 1,
                (_, Some(b'\n')) => end + 2,
                (_, Some(_)) => end + 1,
                (_, None) => {
                    // The next byte decides whether this CR is part of a CRLF.
                    self.next = end;
                    return self.partial(window, out);
                }
            };
            self.line_end(window, end, after, out)?;
        }
        self.next = window.len();
        self.partial(window, out)
    }

    pub(super) fn finish(&mut self, window: &[u8], out: &mut Cuts) -> Result<(), SplitError> {
        if self.next < window.len() {
            self.line_end(window, self.next, window.len(), out)?;
        } else if self.line < window.len() {
            self.line_end(window, window.len(), window.len(), out)?;
        }
        self.close_held(window, out);
        if let FenceState::Block(mut block) = std::mem::replace(&mut self.state, FenceState::Prose) {
            let is_over = block.close == Close::Diff;
            block.is_ambiguous |= block.has_inner;
            let cut = block.cut(window, window.len(), self.names.is_some());
            out.push(if is_over { cut } else { cut.incomplete() });
        }
        Ok(())
    }

    /// Handles a complete line whose content ends at `end`; the next line starts at `after`.
    fn line_end(
        &mut self,
        window: &[u8],
        end: usize,
        after: usize,
        out: &mut Cuts,
    ) -> Result<(), SplitError> {
        let line = self.line..end;
        match std::mem::replace(&mut self.state, FenceState::Prose) {
            FenceState::Skipping => {}
            FenceState::Prose => self.prose_line(window, line, after, out),
            FenceState::Block(block) => self.block_line(block, window, line, after, out)?,
        }
        self.line = after;
        self.line_before = 0;
        self.next = after;
        Ok(())
    }

    fn prose_line(&mut self, window: &[u8], line: Range<usize>, after: usize, out: &mut Cuts) {
        if line.len() > LINE_BYTES_MAX {
            self.long_prose_line(window, &line, out);
            return;
        }
        let (_, what) = self.structure.line(&window[line.clone()]);
        self.classified_line(what, window, line, after, out);
    }

    /// Handles an oversized line outside blocks by its beginning.
    fn long_prose_line(&mut self, window: &[u8], line: &Range<usize>, out: &mut Cuts) {
        self.close_held(window, out);
        self.clear_names();
        self.structure.long_line(&window[line.start..line.start + LINE_BYTES_MAX]);
    }

    /// Handles a line outside blocks after the structure has classified it.
    fn classified_line(
        &mut self,
        what: LineRole,
        window: &[u8],
        line: Range<usize>,
        after: usize,
        out: &mut Cuts,
    ) {
        if self.reopens_held(&what, &line, after) {
            return;
        }
        if let Some(names) = &mut self.names {
            names.element = names.element.take().filter(|(_, lines)| *lines < ELEMENT_LINES_MAX);
            names.element.iter_mut().for_each(|(_, lines)| *lines += 1);
        }
        let is_closed = self.names.as_ref().and_then(|names| names.held.as_ref()).is_some_and(|held| {
            let first = held.lines == 0;
            matches!(what, LineRole::Opens(_))
                || first && what == LineRole::Blank
                || after - held.end > DOUBT_BYTES_MAX
        });
        if is_closed {
            self.close_held(window, out);
        }
        if let Some(held) = self.names.as_mut().and_then(|names| names.held.as_mut()) {
            held.lines += 1;
        }
        match what {
            LineRole::Opens(open) => {
                self.state = FenceState::Block(Box::new(self.block(window, line.start, &open, after)));
            }
            LineRole::Text(start) if self.names.is_some() => {
                self.text(window, line.start + start..line.end, after, out);
            }
            LineRole::Blank => {
                if let Some(names) = &mut self.names {
                    names.heading = names.heading.take().filter(|heading| !heading.is_blank);
                    names.heading.iter_mut().for_each(|heading| heading.is_blank = true);
                }
            }
            LineRole::Text(_) | LineRole::Content | LineRole::Closes => {}
        }
    }

    /// Returns whether a bare fence shows that the previous one may have opened a block inside the
    /// held file. The file then continues.
    fn reopens_held(&mut self, what: &LineRole, line: &Range<usize>, after: usize) -> bool {
        let LineRole::Opens(open) = what else { return false };
        let Some(names) = &mut self.names else { return false };
        let is_bare = |held: &mut HeldFile| {
            open.info.is_empty() && open.marker == held.block.marker && open.width >= held.block.width
        };
        let Some(held) = names.held.take_if(is_bare) else { return false };
        debug_assert!(held.end <= line.start, "a line after a file starts after its end");
        let mut block = held.block;
        block.is_ambiguous = true;
        block.reopened = Some(after);
        self.structure = held.structure;
        self.structure.reopen(block.marker, block.width);
        (names.heading, names.element) = (None, None);
        self.state = FenceState::Block(block);
        true
    }

    fn close_held(&mut self, window: &[u8], out: &mut Cuts) {
        if let Some(held) = self.names.as_mut().and_then(|names| names.held.take()) {
            out.push(held.block.cut(window, held.end, true));
        }
    }

    /// Handles a line of text outside blocks when splitting into files.
    fn text(&mut self, window: &[u8], range: Range<usize>, after: usize, out: &mut Cuts) {
        let Ok(text) = std::str::from_utf8(&window[range.clone()]) else {
            self.clear_names();
            return;
        };
        if self.tag_line(window, text, &range, after, out) || self.opens_change(window, text, &range, out) {
            return;
        }
        if let Some(names) = &mut self.names {
            let mut found = info::path_of_heading(text);
            // The structure has removed the markers of an item that begins in this line.
            let marker = window.get(self.line..range.start).unwrap_or_default();
            found.iter_mut().for_each(|found| found.is_item |= !marker.trim_ascii().is_empty());
            names.heading = next_heading(text, found, range.start, names.heading.take());
        }
    }

    /// Handles a line with a tag about a file; returns whether it has one.
    fn tag_line(
        &mut self,
        window: &[u8],
        text: &str,
        range: &Range<usize>,
        after: usize,
        out: &mut Cuts,
    ) -> bool {
        let Some(names) = &mut self.names else { return false };
        let in_window = |part: Range<usize>| range.start + part.start..range.start + part.end;
        let (path, name, body) = match element::tag(text, names.element.is_some()) {
            Some(Tag::Opens { path, name, body }) => {
                (path.map(in_window).or(names.element.take().map(|(path, _)| path)), name, body)
            }
            Some(Tag::Path(path)) => {
                let path = in_window(path);
                names.element = Some((path.clone(), 0));
                names.heading = Some(Heading { is_strong: true, ..Heading::new(path) });
                return true;
            }
            None => {
                let Some((name, body)) = element::tag_as_fence(text) else { return false };
                let Some(path) = names.take_heading() else { return false };
                (Some(path), name, body)
            }
        };
        let is_part = element::contains_part(&text[name.clone()]);
        let tag = [b"</", &window[in_window(name)], b">"].concat();
        self.close_held(window, out);
        let block = Block { path, is_part, ..Block::new(Close::Tag { tag, is_new: true }, after) };
        self.element(block, window, range.start + body..range.end, out);
        true
    }

    /// Handles a line that opens a search/replace block or a patch; returns whether it does.
    fn opens_change(&mut self, window: &[u8], text: &str, range: &Range<usize>, out: &mut Cuts) -> bool {
        let close = if element::opens_edit(text) {
            Close::Edit
        } else {
            match element::opens_patch(text) {
                Some(true) => Close::Diff,
                Some(false) => Close::Patch,
                None => return false,
            }
        };
        let names = self.names.as_mut();
        let path = names.and_then(|names| {
            let element = names.element.take().map(|(path, _)| path);
            names.take_heading().or(element)
        });
        self.close_held(window, out);
        let kind = if close == Close::Edit { UnitKind::Edit } else { UnitKind::Diff };
        self.state =
            FenceState::Block(Box::new(Block { kind: Some(kind), path, ..Block::new(close, range.start) }));
        true
    }

    /// Opens an element with the content of a file or edit, which begins at `rest` or after its
    /// line.
    fn element(&mut self, mut block: Block, window: &[u8], rest: Range<usize>, out: &mut Cuts) {
        self.clear_names();
        self.structure = Structure::lenient();
        let is_inline = !window[rest.clone()].trim_ascii().is_empty();
        if is_inline {
            block.body = rest.start;
        }
        let Close::Tag { tag, is_new } = &mut block.close else { return };
        if let Some(at) = memchr::memmem::find(&window[rest.clone()], tag) {
            block.body = rest.start;
            out.push(block.cut(window, rest.start + at, true));
            return;
        }
        *is_new = !is_inline;
        self.state = FenceState::Block(Box::new(block));
    }

    /// Discards the names that precede a block, so that they do not apply to the next one.
    fn clear_names(&mut self) {
        if let Some(names) = &mut self.names {
            (names.heading, names.element) = (None, None);
        }
    }

    fn block(&mut self, window: &[u8], line: usize, open: &Opening, body: usize) -> Block {
        let info = line + open.info.start..line + open.info.end;
        let text = std::str::from_utf8(&window[info.clone()]).unwrap_or_default();
        let mut block = Block {
            marker: open.marker,
            width: open.width,
            prefix: open.prefix,
            in_list: open.in_list && self.names.is_some(),
            ..Block::new(Close::Fence, body)
        };
        if let Some(names) = &mut self.names {
            let heading = names.take_heading();
            names.element = None;
            let language = language_of_file(text).unwrap_or_default();
            let in_info = |path: Range<usize>| info.start + path.start..info.start + path.end;
            let text_of =
                |path: &Range<usize>| std::str::from_utf8(&window[path.clone()]).unwrap_or_default();
            block.path = match info::path_of_info(text) {
                Named::Path(path) => Some(in_info(path)),
                Named::Part(path) => {
                    block.is_part = true;
                    Some(in_info(path))
                }
                Named::No => heading.filter(|path| fits(language, text_of(path))),
            };
            block.may_be_markdown = match &block.path {
                Some(path) => is_markdown(text_of(path)),
                None => is_markdown(language),
            };
            block.nests = block.path.is_some() || block.may_be_markdown;
        }
        block.info = (!info.is_empty()).then_some(info);
        block
    }

    fn block_line(
        &mut self,
        mut block: Box<Block>,
        window: &[u8],
        line: Range<usize>,
        after: usize,
        out: &mut Cuts,
    ) -> Result<(), SplitError> {
        let is_short = self.line_before + line.len() <= self.cap.bytes_max();
        let is_files = self.names.is_some();
        let text = &window[line.clone()];
        if block.close == Close::Fence {
            if is_short {
                return self.fence_line(block, window, line, after, out);
            }
            if self.line_before == 0 && !self.structure.has_line(&text[..=self.cap.bytes_max()]) {
                out.push(block.ended(window, line.start, is_files));
                self.prose_line(window, line, after, out);
                return Ok(());
            }
        } else if is_short && self.is_last(&mut block, text) {
            let end = match &block.close {
                Close::Tag { tag, .. } => {
                    let at = memchr::memmem::find(text, tag).unwrap_or(text.len());
                    let end = if text[..at].trim_ascii().is_empty() { line.start } else { line.start + at };
                    let content = without_cdata(window, block.body..end);
                    block.body = content.start;
                    content.end
                }
                Close::Edit | Close::Patch => after,
                Close::Fence | Close::Diff => line.start,
            };
            let is_over = block.close == Close::Diff;
            out.push(block.cut(window, end.max(block.body), is_files));
            if is_over {
                self.prose_line(window, line, after, out);
            }
            return Ok(());
        } else if self.opens_inside_tag(&mut block, window, &line, after) {
            return Ok(());
        }
        block.enforce(self.cap, window, line, is_files, out)?;
        self.state = FenceState::Block(block);
        Ok(())
    }

    /// Handles the first line of content after a tag; returns whether it is a fence around the
    /// content.
    fn opens_inside_tag(
        &mut self,
        block: &mut Block,
        window: &[u8],
        line: &Range<usize>,
        after: usize,
    ) -> bool {
        let text = &window[line.clone()];
        let Close::Tag { is_new, .. } = &mut block.close else { return false };
        if !*is_new || text.trim_ascii().is_empty() {
            return false;
        }
        *is_new = false;
        let is_short = self.line_before + line.len() <= self.cap.bytes_max();
        let path = block.path.as_ref().and_then(|path| std::str::from_utf8(&window[path.clone()]).ok());
        // A Markdown file may start with a fence that belongs to it.
        if !is_short || line.len() > LINE_BYTES_MAX || path.is_some_and(is_markdown) {
            return false;
        }
        let (_, LineRole::Opens(open)) = self.structure.line(text) else { return false };
        let path = block.path.take();
        let mut inside = self.block(window, line.start, &open, after);
        (inside.path, inside.nests, inside.is_part) = (path, true, false);
        self.state = FenceState::Block(Box::new(inside));
        true
    }

    /// Returns whether a line is the last one of a block without fences, or the first one after a
    /// diff.
    fn is_last(&self, block: &mut Block, text: &[u8]) -> bool {
        let as_text = |test: fn(&str) -> bool| std::str::from_utf8(text).is_ok_and(test);
        match &block.close {
            Close::Fence => false,
            Close::Tag { tag, .. } => memchr::memmem::find(text, tag).is_some(),
            Close::Edit => as_text(element::closes_edit),
            Close::Patch => text.trim_ascii_end() == b"*** End Patch",
            Close::Diff => !as_text(element::continues_diff),
        }
    }

    /// Handles a line inside a fenced block that is short enough to be a fence.
    fn fence_line(
        &mut self,
        mut block: Box<Block>,
        window: &[u8],
        line: Range<usize>,
        after: usize,
        out: &mut Cuts,
    ) -> Result<(), SplitError> {
        let is_files = self.names.is_some();
        let text = &window[line.clone()];
        let (has_ended, what) = self.structure.line(text);
        if has_ended {
            out.push(block.ended(window, line.start, is_files));
            self.classified_line(what, window, line, after, out);
            return Ok(());
        }
        if what == LineRole::Closes {
            if block.reopened.take() == Some(line.start) {
                // Otherwise the previous fence would have opened an empty block after the file.
                block.is_ambiguous = false;
            }
            if let Some(&inner) = block.inner.last() {
                let width = text.iter().filter(|byte| **byte == block.marker).count();
                if width >= inner {
                    block.inner.pop();
                }
                self.structure.reopen(block.marker, block.width);
            } else if block.may_be_markdown && !block.continued {
                let structure = self.structure.clone();
                if let Some(names) = &mut self.names {
                    names.held = Some(HeldFile { block, end: line.start, structure, lines: 0 });
                }
                return Ok(());
            } else {
                out.push(block.cut(window, line.start, is_files));
                return Ok(());
            }
        } else if block.nests {
            block.look_for_inner(text);
        }
        block.enforce(self.cap, window, line, is_files, out)?;
        self.state = FenceState::Block(block);
        Ok(())
    }

    /// Handles the end of the window inside a line that was scanned up to `next`. Returns how many
    /// bytes to release.
    fn partial(&mut self, window: &[u8], out: &mut Cuts) -> Result<usize, SplitError> {
        let line = self.line..self.next;
        let is_files = self.names.is_some();
        match &mut self.state {
            FenceState::Skipping => {}
            FenceState::Prose => {
                if line.len() > LINE_BYTES_MAX {
                    self.state = FenceState::Skipping;
                    self.long_prose_line(window, &line, out);
                }
            }
            FenceState::Block(block) => {
                let cap = self.cap.bytes_max();
                if self.line_before + line.len() > cap {
                    let is_out = block.close == Close::Fence
                        && self.line_before == 0
                        && !self.structure.has_line(&window[line.start..=line.start + cap]);
                    if !is_out {
                        block.enforce(self.cap, window, line, is_files, out)?;
                    } else if line.len() > LINE_BYTES_MAX {
                        out.push(block.ended(window, line.start, is_files));
                        self.state = FenceState::Skipping;
                        self.long_prose_line(window, &line, out);
                    }
                }
            }
        }
        Ok(self.release())
    }

    /// Releases the bytes that are no longer needed and shifts all offsets.
    fn release(&mut self) -> usize {
        let mut released = match &self.state {
            FenceState::Skipping => self.next,
            FenceState::Prose => self.line,
            FenceState::Block(block) => block.needed_from(),
        };
        if let Some(names) = &self.names
            && released > 0
        {
            let heading = names.heading.iter().map(|heading| heading.path.start);
            let element = names.element.iter().map(|(path, _)| path.start);
            let held = names.held.iter().map(|held| held.block.needed_from());
            released = heading.chain(element).chain(held).fold(released, usize::min);
        }
        if released == 0 {
            return 0;
        }
        self.next -= released;
        self.line_before += released.saturating_sub(self.line);
        self.line = self.line.saturating_sub(released);
        if let Some(names) = &mut self.names {
            names.heading.iter_mut().for_each(|heading| shift(&mut heading.path, released));
            names.element.iter_mut().for_each(|(path, _)| shift(path, released));
            if let Some(held) = &mut names.held {
                held.end -= released;
                held.block.shift(released);
            }
        }
        if let FenceState::Block(block) = &mut self.state {
            block.shift(released);
        }
        released
    }
}
