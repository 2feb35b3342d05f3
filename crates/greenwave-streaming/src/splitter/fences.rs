//! Fenced code blocks of CommonMark (<https://spec.commonmark.org/0.31.2/#fenced-code-blocks>), and
//! the files an answer holds in them.

use std::ops::Range;

use crate::cut::{Cut, Cuts};
use crate::layout::{Form, UnitKind};
use crate::line_prefix::LinePrefix;
use crate::splitter::element::{self, Shape, Tag};
use crate::splitter::info::{self, Named, language_of_file};
use crate::splitter::line_ends::find_end;
use crate::splitter::path::{fits, is_markdown};
use crate::splitter::structure::{Line, Opening, Structure, fence};
use crate::splitter::{Cap, SplitError, Splitter};

/// A line outside code blocks that is longer than this many bytes neither opens a block nor names a
/// file.
const LINE_BYTES_MAX: usize = 4096;

/// How much may follow a fence that closes a file of Markdown, unless it opens a block in it,
/// before it is taken to have closed it.
const DOUBT_BYTES_MAX: usize = 16 << 10;

/// How many lines may stand between an element with a path and the one with the content.
const ELEMENT_LINES_MAX: usize = 4;

/// Fenced code blocks: `` ``` `` or `~~~`, closed by at least as many of the same; up to three
/// spaces of indentation, taken from the lines of the block as well; an info string. What stands
/// outside blocks is passed over.
///
/// The unit is the content, each line with its end. A block that the end of the stream leaves open
/// is [incomplete](crate::Unit::is_complete); CommonMark closes it there.
///
/// Fences are found where CommonMark finds them: also in block quotes and list items, whose marks
/// and indentation are taken off the content, and whose end closes a block; not in blocks of HTML.
/// In more than eight quotes and lists around each other, with a quote among them, they are not
/// found.
#[derive(Debug)]
pub struct Fences(Scanner);

/// The files in an agent's answer, and what is none: [`UnitKind::File`], [`UnitKind::Edit`],
/// [`UnitKind::Diff`], [`UnitKind::Ambiguous`], [`UnitKind::Code`].
///
/// A wrong file is worse than a missing one, so a block is a file only where its path is certain.
/// The path is given [exactly as the answer has it](crate::Unit::path); confining it to a directory
/// is for the caller.
///
/// # What names a file
///
/// - **The info string**: `rust src/lib.rs`, `rust:src/lib.rs`, `src/lib.rs`, `rust
///   path=src/lib.rs` (also `file`, `filename`, `filepath`, `title` and `name`, with quotes or
///   without), `rust // src/lib.rs`. The path is an attribute, or among the first two words.
/// - **The line above**, if it consists of the path; a blank line may stand between. A heading,
///   bold or code, a list item, numbers and emoji in front, a label (`File:`, `Path:`, `Create
///   file:`, `Step 2: Create`), rules around it (`=== src/lib.rs ===`), tags (`<summary>`), a
///   comment, a remark in brackets or behind a dash. Below a heading, a bold line or a label there
///   may be one line of text.
/// - **The first line of the block**, if it is a comment that consists of the path, as in `//
///   src/lib.rs` or `# filepath: app.py`; or the second one behind `#!`, `<?php` or a document
///   type. The comment stays a part of the content, except in JSON, which has none.
/// - **An element** with the path in an attribute (`<boltAction type="file" filePath="…">`,
///   `<PlandexBlock path="…">`, `<file path="…">`), behind an element with the path
///   (`<path>…</path>`, then `<content>`), or in place of a fence below a line with it
///   (`<source>`). Its content is the file, up to the closing tag; a fence inside that encloses it
///   is taken off.
///
/// # What is a path
///
/// A name with an extension that files have, or one that is known without (`Makefile`,
/// `.gitignore`, `Dockerfile.dev`); in a directory, any extension that begins with a letter. Behind
/// a label or attribute other names are paths too. Blanks and brackets may be in it
/// (`app/(shop)/[id]/page.tsx`), blanks only where it is quoted or marked as code. Media types
/// (`text/plain`), alternatives (`Input/Output`), products (`Node.js`), versions, domains,
/// attributes (`os.path`, `console.log`) and URLs are none.
///
/// # What names none
///
/// A sentence that mentions a path, since a part of the file often follows. A line of text that
/// speaks of a part, a change, a run or an example. A block in another language than the file, such
/// as the command below a script's name. Lines of a file (`12:15:src/lib.rs`), search/replace
/// blocks, conflicts, and code with comments for what was left out (`// ... existing code ...`) are
/// an [`UnitKind::Edit`]; unified diffs and patches a [`UnitKind::Diff`]: both also outside of fences, and
/// with [`edited_path`](crate::Unit::edited_path).
///
/// # Fences inside files
///
/// A fence with an info string, as long as that around a file, opens a block inside the file: the
/// fences are paired. Where a bare fence may either close a file of Markdown or open a block in it,
/// what follows decides: a blank line, the end, or a fence with an info string say that the file
/// was closed; two fences in a row, that it was not until the second. Otherwise, and where a file
/// that holds such fences is never closed, it is a [`UnitKind::Ambiguous`]. A longer fence around the
/// file has no such question.
///
/// Block quotes and lists are as in [`Fences`], except that content may be indented less than its
/// list item, and HTML is plain text. A block without a path is a [`UnitKind::Code`].
#[derive(Debug)]
pub struct Files(Scanner);

impl Fences {
    /// Blocks up to `cap`.
    #[must_use]
    pub fn new(cap: Cap) -> Self {
        Self(Scanner::new(cap, false))
    }
}

impl Files {
    /// Files up to `cap`.
    #[must_use]
    pub fn new(cap: Cap) -> Self {
        Self(Scanner::new(cap, true))
    }
}

impl Default for Fences {
    /// Blocks up to 16 MiB.
    fn default() -> Self {
        Self::new(Cap::error(16 << 20))
    }
}

impl Default for Files {
    /// Files up to 16 MiB.
    fn default() -> Self {
        Self::new(Cap::error(16 << 20))
    }
}

impl Splitter for Fences {
    fn scan(&mut self, window: &[u8], fresh: usize, out: &mut Cuts) -> Result<usize, SplitError> {
        self.0.scan(window, fresh, out)
    }

    fn finish(&mut self, window: &[u8], out: &mut Cuts) -> Result<(), SplitError> {
        self.0.finish(window, out)
    }
}

impl Splitter for Files {
    fn scan(&mut self, window: &[u8], fresh: usize, out: &mut Cuts) -> Result<usize, SplitError> {
        self.0.scan(window, fresh, out)
    }

    fn finish(&mut self, window: &[u8], out: &mut Cuts) -> Result<(), SplitError> {
        self.0.finish(window, out)
    }
}

/// The machine behind both. All offsets are offsets of the window.
#[derive(Debug)]
struct Scanner {
    cap: Cap,
    state: State,
    structure: Structure,
    /// Where the current line starts; before the window, taken as its start, when the line was
    /// split.
    line: usize,
    /// Bytes of the current line that lie before the window.
    line_before: usize,
    /// Up to where line ends have been looked for.
    next: usize,
    /// What may name a file, if files are looked for.
    names: Option<Names>,
}

/// `Prose -> Skipping -> Prose`, `Prose -> Block -> Prose`.
#[derive(Debug)]
enum State {
    /// Outside blocks.
    Prose,
    /// Outside blocks, in a line that can mean nothing any more.
    Skipping,
    /// Inside a block, which is boxed since it is taken out and put back with each line.
    Block(Box<Block>),
}

/// What was said outside of blocks.
#[derive(Debug, Default)]
struct Names {
    heading: Option<Heading>,
    /// The path that an element has named for another, and how many lines have followed.
    element: Option<(Range<usize>, usize)>,
    held: Option<Held>,
}

/// A line that names the file of the block that follows it.
#[derive(Debug, Clone)]
struct Heading {
    path: Range<usize>,
    is_strong: bool,
    /// Whether a line of text has followed it.
    has_text: bool,
    /// Whether a blank line has followed it. A second one ends its meaning.
    is_blank: bool,
}

/// A file of Markdown that a fence has closed, unless it opens a block inside.
#[derive(Debug)]
struct Held {
    block: Box<Block>,
    /// Where its content ends.
    end: usize,
    structure: Structure,
    /// Lines that have followed.
    lines: usize,
}

#[derive(Debug, Clone)]
struct Block {
    /// Decided when the first of it is handed on.
    kind: Option<UnitKind>,
    /// It is an edit, whatever is in it.
    is_part: bool,
    close: Close,
    marker: u8,
    width: usize,
    prefix: LinePrefix,
    /// Where the content that was not handed on yet starts.
    body: usize,
    info: Option<Range<usize>>,
    path: Option<Range<usize>>,
    /// A piece of it was handed on already, and the labels with it.
    continued: bool,
    body_at_line_start: bool,
    /// Fences inside may be its own.
    nests: bool,
    may_be_markdown: bool,
    /// Its lines should be indented as its list item asks for.
    in_list: bool,
    /// The widths of fences that are open inside.
    inner: Vec<usize>,
    has_inner: bool,
    is_ambiguous: bool,
    /// Where the line starts behind the fence that made it ambiguous.
    reopened: Option<usize>,
}

/// What closes a block.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Close {
    Fence,
    /// This tag. Until its first line is seen, a fence may open around the content.
    Tag {
        tag: Vec<u8>,
        is_new: bool,
    },
    /// The last mark of a search/replace block.
    Edit,
    /// `*** End Patch`.
    Patch,
    /// The first line that is not of a unified diff.
    Diff,
}

impl Scanner {
    fn new(cap: Cap, files: bool) -> Self {
        Self {
            cap,
            state: State::Prose,
            structure: if files { Structure::lenient() } else { Structure::strict() },
            line: 0,
            line_before: 0,
            next: 0,
            names: files.then(Names::default),
        }
    }

    fn scan(&mut self, window: &[u8], fresh: usize, out: &mut Cuts) -> Result<usize, SplitError> {
        debug_assert!(self.next == fresh || self.next + 1 == fresh, "all but a last CR was looked at");
        while let Some(end) = find_end(window, self.next) {
            let after = match (window[end], window.get(end + 1)) {
                (b'\n', _) => end + 1,
                (_, Some(b'\n')) => end + 2,
                (_, Some(_)) => end + 1,
                (_, None) => {
                    // Whether this CR ends the line alone or with an LF, only the next byte can
                    // tell.
                    self.next = end;
                    return self.partial(window, out);
                }
            };
            self.line_end(window, end, after, out)?;
        }
        self.next = window.len();
        self.partial(window, out)
    }

    fn finish(&mut self, window: &[u8], out: &mut Cuts) -> Result<(), SplitError> {
        if self.next < window.len() {
            self.line_end(window, self.next, window.len(), out)?;
        } else if self.line < window.len() {
            self.line_end(window, window.len(), window.len(), out)?;
        }
        self.close_held(window, out);
        if let State::Block(mut block) = std::mem::replace(&mut self.state, State::Prose) {
            let is_over = block.close == Close::Diff;
            block.is_ambiguous |= block.has_inner;
            let cut = block.cut(window, window.len(), self.names.is_some());
            out.push(if is_over { cut } else { cut.incomplete() });
        }
        Ok(())
    }

    /// A line is complete: its content ends at `end`, the next one starts at `after`.
    fn line_end(
        &mut self,
        window: &[u8],
        end: usize,
        after: usize,
        out: &mut Cuts,
    ) -> Result<(), SplitError> {
        let line = self.line..end;
        match std::mem::replace(&mut self.state, State::Prose) {
            State::Skipping => {}
            State::Prose => self.prose_line(window, line, after, out),
            State::Block(block) => self.block_line(block, window, line, after, out)?,
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
        self.seen(what, window, line, after, out);
    }

    /// A line outside blocks that means nothing, by its beginning.
    fn long_prose_line(&mut self, window: &[u8], line: &Range<usize>, out: &mut Cuts) {
        self.close_held(window, out);
        self.forget();
        self.structure.long_line(&window[line.start..line.start + LINE_BYTES_MAX]);
    }

    /// A line outside blocks, of which the structure says what it is.
    fn seen(&mut self, what: Line, window: &[u8], line: Range<usize>, after: usize, out: &mut Cuts) {
        if self.is_of_held(&what, &line, after) {
            return;
        }
        if let Some(names) = &mut self.names {
            names.element = names.element.take().filter(|(_, lines)| *lines < ELEMENT_LINES_MAX);
            names.element.iter_mut().for_each(|(_, lines)| *lines += 1);
        }
        let is_settled = self.names.as_ref().and_then(|names| names.held.as_ref()).is_some_and(|held| {
            let first = held.lines == 0;
            matches!(what, Line::Opens(_))
                || first && what == Line::Blank
                || after - held.end > DOUBT_BYTES_MAX
        });
        if is_settled {
            self.close_held(window, out);
        }
        if let Some(held) = self.names.as_mut().and_then(|names| names.held.as_mut()) {
            held.lines += 1;
        }
        match what {
            Line::Opens(open) => {
                self.state = State::Block(Box::new(self.block(window, line.start, &open, after)));
            }
            Line::Text(start) if self.names.is_some() => {
                self.text(window, line.start + start..line.end, after, out);
            }
            Line::Blank => {
                if let Some(names) = &mut self.names {
                    names.heading = names.heading.take().filter(|heading| !heading.is_blank);
                    names.heading.iter_mut().for_each(|heading| heading.is_blank = true);
                }
            }
            Line::Text(_) | Line::Content | Line::Closes => {}
        }
    }

    /// Whether a bare fence has shown that the one before has opened a block inside a file, or may
    /// have: then the file goes on.
    fn is_of_held(&mut self, what: &Line, line: &Range<usize>, after: usize) -> bool {
        let Line::Opens(open) = what else { return false };
        let Some(names) = &mut self.names else { return false };
        let is_bare = |held: &mut Held| {
            open.info.is_empty() && open.marker == held.block.marker && open.width >= held.block.width
        };
        let Some(held) = names.held.take_if(is_bare) else { return false };
        debug_assert!(held.end <= line.start, "what follows a file stands behind it");
        let mut block = held.block;
        block.is_ambiguous = true;
        block.reopened = Some(after);
        self.structure = held.structure;
        self.structure.reopen(block.marker, block.width);
        (names.heading, names.element) = (None, None);
        self.state = State::Block(block);
        true
    }

    fn close_held(&mut self, window: &[u8], out: &mut Cuts) {
        if let Some(held) = self.names.as_mut().and_then(|names| names.held.take()) {
            out.push(held.block.cut(window, held.end, true));
        }
    }

    /// A line of text outside blocks, where files are looked for.
    fn text(&mut self, window: &[u8], range: Range<usize>, after: usize, out: &mut Cuts) {
        let Some(names) = &mut self.names else { return };
        let Ok(text) = std::str::from_utf8(&window[range.clone()]) else {
            (names.heading, names.element) = (None, None);
            return;
        };
        let in_window = |part: Range<usize>| range.start + part.start..range.start + part.end;
        match element::tag(text, names.element.is_some()) {
            Some(Tag::Opens { path, name, body }) => {
                let path = path.map(in_window).or(names.element.take().map(|(path, _)| path));
                let tag = [b"</", &window[in_window(name)], b">"].concat();
                self.close_held(window, out);
                self.element(path, tag, window, range.start + body..range.end, after, out);
                return;
            }
            Some(Tag::Path(path)) => {
                let path = in_window(path);
                names.element = Some((path.clone(), 0));
                names.heading = Some(Heading { path, is_strong: true, has_text: false, is_blank: false });
                return;
            }
            None => {}
        }
        if let Some((name, body)) = element::tag_as_fence(text)
            && let Some(heading) = names.heading.take()
        {
            let tag = [b"</", &window[in_window(name)], b">"].concat();
            self.close_held(window, out);
            self.element(Some(heading.path), tag, window, range.start + body..range.end, after, out);
            return;
        }
        let close = if element::opens_edit(text) {
            Some(Close::Edit)
        } else {
            element::opens_patch(text).map(|is_diff| if is_diff { Close::Diff } else { Close::Patch })
        };
        if let Some(close) = close {
            let path = names.heading.take().map(|heading| heading.path);
            names.element = None;
            self.close_held(window, out);
            let kind = if close == Close::Edit { UnitKind::Edit } else { UnitKind::Diff };
            self.state =
                State::Block(Box::new(Block { kind: Some(kind), path, ..Block::new(close, range.start) }));
            return;
        }
        names.heading = match (info::path_of_heading(text), names.heading.take()) {
            (Some(found), _) => Some(Heading {
                path: in_window(found.path),
                is_strong: found.is_strong,
                has_text: false,
                is_blank: false,
            }),
            (None, Some(heading)) if is_ornament(text) => Some(Heading { is_blank: false, ..heading }),
            (None, Some(heading))
                if heading.is_strong && !heading.has_text && !info::is_partial_line(text) =>
            {
                Some(Heading { has_text: true, is_blank: false, ..heading })
            }
            (None, _) => None,
        };
    }

    /// An element with the content of a file, which begins at `rest`.
    fn element(
        &mut self,
        path: Option<Range<usize>>,
        tag: Vec<u8>,
        window: &[u8],
        rest: Range<usize>,
        after: usize,
        out: &mut Cuts,
    ) {
        self.forget();
        self.structure = Structure::lenient();
        let is_inline = !window[rest.clone()].trim_ascii().is_empty();
        let body = if is_inline { rest.start } else { after };
        let mut block = Block { path, ..Block::new(Close::Edit, body) };
        if let Some(at) = memchr::memmem::find(&window[rest.clone()], &tag) {
            out.push(block.cut(window, rest.start + at, true));
            return;
        }
        block.close = Close::Tag { tag, is_new: !is_inline };
        self.state = State::Block(Box::new(block));
    }

    /// What was said before a block is not said of the next one.
    fn forget(&mut self) {
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
            let heading = names.heading.take().map(|heading| heading.path);
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
                    if text[..at].trim_ascii().is_empty() { line.start } else { line.start + at }
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
        } else if let Close::Tag { is_new, .. } = &mut block.close
            && *is_new
            && !text.trim_ascii().is_empty()
        {
            *is_new = false;
            let is_markdown = block
                .path
                .as_ref()
                .is_some_and(|path| std::str::from_utf8(&window[path.clone()]).is_ok_and(is_markdown));
            // A fence around the content; Markdown may begin with one of its own.
            if is_short
                && line.len() <= LINE_BYTES_MAX
                && !is_markdown
                && let (_, Line::Opens(open)) = self.structure.line(text)
            {
                let path = block.path.take();
                let mut inside = self.block(window, line.start, &open, after);
                (inside.path, inside.nests, inside.is_part) = (path, true, false);
                self.state = State::Block(Box::new(inside));
                return Ok(());
            }
        }
        block.enforce(self.cap, window, line, is_files, out)?;
        self.state = State::Block(block);
        Ok(())
    }

    /// Whether a line is the last one of a block that no fence closes, or, of a diff, the first one
    /// behind it.
    fn is_last(&self, block: &mut Block, text: &[u8]) -> bool {
        let as_text = |test: fn(&str) -> bool| std::str::from_utf8(text).is_ok_and(test);
        match &block.close {
            Close::Fence => false,
            Close::Tag { tag, .. } => memchr::memmem::find(text, tag).is_some(),
            Close::Edit => as_text(element::closes_edit),
            Close::Patch => text.trim_ascii_end() == b"*** End Patch",
            Close::Diff => !as_text(element::is_of_diff),
        }
    }

    /// A line inside a fenced block that is not too long to be a fence.
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
            self.seen(what, window, line, after, out);
            return Ok(());
        }
        if what == Line::Closes {
            if block.reopened.take() == Some(line.start) {
                // Else the fence before this one would have opened a block without content, behind
                // the file.
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
                    names.held = Some(Held { block, end: line.start, structure, lines: 0 });
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
        self.state = State::Block(block);
        Ok(())
    }

    /// The window has ended inside a line that was looked at up to `next`. Returns how much of the
    /// window is done with.
    fn partial(&mut self, window: &[u8], out: &mut Cuts) -> Result<usize, SplitError> {
        let line = self.line..self.next;
        let is_files = self.names.is_some();
        match &mut self.state {
            State::Skipping => {}
            State::Prose => {
                if line.len() > LINE_BYTES_MAX {
                    self.state = State::Skipping;
                    self.long_prose_line(window, &line, out);
                }
            }
            State::Block(block) => {
                let cap = self.cap.bytes_max();
                if self.line_before + line.len() > cap {
                    let is_out = block.close == Close::Fence
                        && self.line_before == 0
                        && !self.structure.has_line(&window[line.start..=line.start + cap]);
                    if !is_out {
                        block.enforce(self.cap, window, line, is_files, out)?;
                    } else if line.len() > LINE_BYTES_MAX {
                        out.push(block.ended(window, line.start, is_files));
                        self.state = State::Skipping;
                        self.long_prose_line(window, &line, out);
                    }
                }
            }
        }
        Ok(self.release())
    }

    /// Lets go of what is not needed any more, and moves all offsets by as much.
    fn release(&mut self) -> usize {
        let mut keep = match &self.state {
            State::Skipping => self.next,
            State::Prose => self.line,
            State::Block(block) => block.keep(),
        };
        if let Some(names) = &self.names
            && keep > 0
        {
            let heading = names.heading.iter().map(|heading| heading.path.start);
            let element = names.element.iter().map(|(path, _)| path.start);
            let held = names.held.iter().map(|held| held.block.keep());
            keep = heading.chain(element).chain(held).fold(keep, usize::min);
        }
        if keep == 0 {
            return 0;
        }
        self.next -= keep;
        self.line_before += keep.saturating_sub(self.line);
        self.line = self.line.saturating_sub(keep);
        if let Some(names) = &mut self.names {
            names.heading.iter_mut().for_each(|heading| shift(&mut heading.path, keep));
            names.element.iter_mut().for_each(|(path, _)| shift(path, keep));
            if let Some(held) = &mut names.held {
                held.end -= keep;
                held.block.shift(keep);
            }
        }
        if let State::Block(block) = &mut self.state {
            block.shift(keep);
        }
        keep
    }
}

impl Block {
    fn new(close: Close, body: usize) -> Self {
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

    /// What it is, once its content, or the first piece of it, is known.
    fn decide(&mut self, window: &[u8], end: usize, is_files: bool) {
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
            Shape::Edit => self.kind = Some(UnitKind::Edit),
            Shape::Diff => self.kind = Some(UnitKind::Diff),
            Shape::Plain if self.is_part => self.kind = Some(UnitKind::Edit),
            Shape::Plain => {
                let named =
                    path_in(content, language).map(|path| self.body + path.start..self.body + path.end);
                let said = self.path.clone().map(text);
                // A heading may give the name only, and the comment the directory as well.
                let is_longer = |path: &Range<usize>| {
                    said.is_none_or(|said| {
                        text(path.clone())
                            .strip_suffix(said)
                            .is_some_and(|directory| directory.ends_with('/'))
                    })
                };
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

    fn cut(&self, window: &[u8], end: usize, is_files: bool) -> Cut {
        let mut decided = self.clone();
        decided.decide(window, end, is_files);
        let form = if decided.prefix.is_empty() {
            Form::Plain
        } else {
            Form::Framed { prefix: decided.prefix, at_line_start: self.body_at_line_start }
        };
        let kind = decided.kind.unwrap_or(UnitKind::Code);
        Cut::new(kind, decided.body..end)
            .with_path(if kind == UnitKind::Code { None } else { decided.path })
            .with_info(decided.info)
            .with_form(form)
            .continued(self.continued)
    }

    /// The quote or the list around it has ended, and CommonMark says that the block has as well; a
    /// file should have had its fence.
    fn ended(&self, window: &[u8], end: usize, is_files: bool) -> Cut {
        let cut = self.cut(window, end, is_files);
        if is_files { cut.incomplete() } else { cut }
    }

    /// A fence that opens a block inside this one.
    fn look_for_inner(&mut self, line: &[u8]) {
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

    /// Cuts what is beyond the cap: at the start of `line` if that is enough, so that indentation
    /// and closing fences stay whole.
    fn enforce(
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
            // They left with the first piece; kept, they would hold the whole block in the window.
            (self.info, self.path) = (None, None);
        }
        Ok(())
    }

    fn shift(&mut self, by: usize) {
        self.body -= by;
        self.reopened = self.reopened.and_then(|at| at.checked_sub(by));
        [&mut self.info, &mut self.path].into_iter().flatten().for_each(|range| shift(range, by));
    }

    /// Where the part of the window starts that is still needed.
    fn keep(&self) -> usize {
        let labels = [&self.path, &self.info].into_iter().flatten().map(|range| range.start);
        labels.fold(self.body, usize::min)
    }
}

/// The path that a comment in the first lines of a block names.
fn path_in(content: &str, language: &str) -> Option<Range<usize>> {
    let first = content.lines().next()?;
    let lower = first.to_ascii_lowercase();
    let is_second = ["#!", "<?php", "<?xml", "<!doctype"].iter().any(|start| lower.starts_with(start));
    let start = if is_second { content.find('\n')? + 1 } else { 0 };
    let path = info::path_of_comment(content[start..].lines().next()?, language)?;
    Some(start + path.start..start + path.end)
}

/// Whether a line only adorns the heading above it: an underline, a rule, a closing tag.
fn is_ornament(text: &str) -> bool {
    let text = text.trim();
    let is_rule =
        text.len() >= 3 && ['-', '=', '*', '_', '~'].iter().any(|mark| text.chars().all(|c| c == *mark));
    is_rule || text.starts_with("</") && text.ends_with('>')
}

fn shift(range: &mut Range<usize>, by: usize) {
    *range = range.start - by..range.end - by;
}
