//! Splits a response into fenced code blocks of CommonMark
//! (<https://spec.commonmark.org/0.31.2/#fenced-code-blocks>), and into the files that they
//! contain.

use std::ops::Range;

use crate::cut::{Cut, Cuts};
use crate::layout::{Form, UnitKind};
use crate::line_prefix::LinePrefix;
use crate::splitter::changed_path::changed_path;
use crate::splitter::element::{self, Shape, Tag};
use crate::splitter::info::{self, HeadingPath, Named, language_of_file};
use crate::splitter::line_ends::find_end;
use crate::splitter::path::{fits, is_markdown};
use crate::splitter::structure::{LineRole, Opening, Structure, fence};
use crate::splitter::{Cap, SplitError, Splitter};

/// Maximum length, in bytes, of a line outside code blocks that can open a block or name a file.
const LINE_BYTES_MAX: usize = 4096;

/// Number of bytes after a fence inside a Markdown file, without another fence, after which the
/// fence is considered to have closed the file.
const DOUBT_BYTES_MAX: usize = 16 << 10;

/// Maximum number of lines between an element with a path and the element with the content.
const ELEMENT_LINES_MAX: usize = 4;

/// Splits text into fenced code blocks: `` ``` `` or `~~~`, closed by at least as many of the same
/// characters, with an optional info string. A fence may be indented by up to three spaces, which
/// are removed from the block's lines too. Text outside blocks is skipped.
///
/// The unit is the content, including line endings. A block that is still open at the end of the
/// stream is [incomplete](crate::Unit::is_complete), although CommonMark closes it there.
///
/// Fences are recognized as in CommonMark. Inside block quotes and list items, the quote markers
/// and indentation are removed from the content, and the end of the container closes the block.
/// Fences inside HTML blocks are ignored, and so are fences inside more than eight nested
/// containers with a quote among them.
#[derive(Debug)]
pub struct Fences(Scanner);

/// Splits an agent's response into files and other code blocks: [`UnitKind::File`],
/// [`UnitKind::Edit`], [`UnitKind::Diff`], [`UnitKind::Ambiguous`] and [`UnitKind::Code`].
///
/// A wrong file is worse than a missing one, so a block is a file only if its path is certain. The
/// path is returned [exactly as written](crate::Unit::path); the caller must confine it to a
/// directory.
///
/// # File names
///
/// - **The info string**: `rust src/lib.rs`, `rust:src/lib.rs`, `src/lib.rs`, `rust
///   path=src/lib.rs` (also `file`, `filename`, `filepath`, `title`, `caption`, `label`, `source`
///   and `name`, with quotes or without), `rust // src/lib.rs`. The path is an attribute, or among
///   the first two words.
/// - **The line above**, if it consists of the path. A blank line may follow it. It may be a
///   heading, bold, code or a list item; it may have numbers or emoji in front, a label (`File:`,
///   `Path:`, `Create file:`, `Step 2: Create`), words that announce a whole file (`Complete`,
///   `Contents of`, `Here is the full`), rules around it (`=== src/lib.rs ===`), tags
///   (`<summary>`), comment markers, or a remark in brackets or after a dash or colon. One line of
///   text may follow a heading, a bold line or a label. A heading or bold line may also have a
///   short title before the path, in brackets or as code (`### Backend (src/lib.rs)`), unless a
///   word of the title announces a part of a file, a command or an error.
/// - **The first line of the block**, if it is a comment that consists of the path, as in `//
///   src/lib.rs` or `# filepath: app.py`; or a later line after `#!`, `<?php`, a document type, a
///   coding line, a rule, a blank line or the line that opens the comment. The comment remains part
///   of the content, except in JSON, which has no comments.
/// - **An element** with the path in an attribute (`<boltAction type="file" filePath="…">`,
///   `<PlandexBlock path="…">`, `<file path="…">`), after an element with the path
///   (`<path>…</path>`, then `<content>`), or used as a fence below a line with the path
///   (`<source>`). The file is the content up to the closing tag; a fence or CDATA section that
///   encloses the content is removed.
///
/// # Recognized paths
///
/// A name with a common file extension, or a common name without one (`Makefile`, `.gitignore`,
/// `Dockerfile.dev`). After a directory, any extension that begins with a letter. After a label or
/// in an attribute, other names too. A path may contain brackets (`app/(shop)/[id]/page.tsx`), and
/// also blanks if it is quoted or marked as code. Media types (`text/plain`), alternatives
/// (`Input/Output`), products (`Node.js`), versions, domains, attributes (`os.path`,
/// `console.log`), URLs, requests (`GET /users.json`), commands (`python a.py`), placeholders
/// (`{name}.py`) and paths below an environment variable (`$HOME/.bashrc`) are not paths.
///
/// # Excluded names
///
/// A sentence that mentions a path, because a part of the file often follows. A line of text about
/// a part, a change, a run or an example. A list of several files. A block in another language than
/// the file, such as the command below a script's name. Line ranges of a file (`12:15:src/lib.rs`),
/// search/replace blocks, conflicts, and code with comments for omitted lines (`// ...`) are an
/// [`UnitKind::Edit`]; unified diffs and patches are a [`UnitKind::Diff`]. Both are also recognized
/// outside fences and in elements (`<diff>`). Their [`edited_path`](crate::Unit::edited_path) is
/// the one above them, or the only one in their headers, without the prefixes `a/` and `b/` of git.
///
/// # Fences inside files
///
/// A fence with an info string, as long as the one around the file, opens a block inside the file:
/// the fences are paired. A bare fence can either close a Markdown file or open a block in it. The
/// text after it decides. After a blank line, the end of the stream or a fence with an info string,
/// the file was closed. After two fences in a row, the second one closed it. Otherwise, and if a
/// file with such fences is never closed, it is a [`UnitKind::Ambiguous`]. Agents can avoid this
/// with a longer fence around the file.
///
/// Block quotes and lists work as in [`Fences`], except that content may be indented less than its
/// list item, and HTML is plain text. A block without a path is a [`UnitKind::Code`].
#[derive(Debug)]
pub struct Files(Scanner);

impl Fences {
    /// Creates a splitter for blocks of up to `cap`.
    #[must_use]
    pub fn new(cap: Cap) -> Self {
        Self(Scanner::new(cap, false))
    }
}

impl Files {
    /// Creates a splitter for files of up to `cap`.
    #[must_use]
    pub fn new(cap: Cap) -> Self {
        Self(Scanner::new(cap, true))
    }
}

impl Default for Fences {
    /// Up to 16 MiB per block; a longer block is an error.
    fn default() -> Self {
        Self::new(Cap::error(16 << 20))
    }
}

impl Default for Files {
    /// Up to 16 MiB per file; a longer file is an error.
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

/// The state machine behind [`Fences`] and [`Files`]. All offsets are relative to the window.
#[derive(Debug)]
struct Scanner {
    cap: Cap,
    state: FenceState,
    structure: Structure,
    /// Start of the current line; 0 if it starts before the window because the line was split.
    line: usize,
    /// Bytes of the current line before the window.
    line_before: usize,
    /// End of the part of the window that was searched for line endings.
    next: usize,
    /// Candidates for file names; `None` for [`Fences`].
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

/// The names found outside blocks.
#[derive(Debug, Default)]
struct Names {
    heading: Option<Heading>,
    /// The path given by an element for a later element, and the number of lines since.
    element: Option<(Range<usize>, usize)>,
    held: Option<HeldFile>,
}

/// A line that names the file in the block after it.
#[derive(Debug, Clone)]
struct Heading {
    path: Range<usize>,
    is_item: bool,
    /// It is one of several items that name files, none of which belongs to the next block.
    is_enumerated: bool,
    is_strong: bool,
    /// Whether a line of text followed it.
    has_text: bool,
    /// Whether a blank line followed it. A second one invalidates the heading.
    is_blank: bool,
}

/// A Markdown file that was closed by a fence, unless that fence opens a block inside it.
#[derive(Debug)]
struct HeldFile {
    block: Box<Block>,
    /// End of the content.
    end: usize,
    structure: Structure,
    /// Number of lines since.
    lines: usize,
}

#[derive(Debug, Clone)]
struct Block {
    /// Decided when the first piece is reported.
    kind: Option<UnitKind>,
    /// It is an edit, regardless of its content.
    is_part: bool,
    close: Close,
    marker: u8,
    width: usize,
    prefix: LinePrefix,
    /// Start of the content that was not reported yet.
    body: usize,
    info: Option<Range<usize>>,
    path: Option<Range<usize>>,
    /// A piece with the labels was reported already.
    continued: bool,
    body_at_line_start: bool,
    /// Fences inside may belong to the content.
    nests: bool,
    may_be_markdown: bool,
    /// Its lines should be indented like its list item.
    in_list: bool,
    /// The widths of the open fences inside.
    inner: Vec<usize>,
    has_inner: bool,
    is_ambiguous: bool,
    /// Start of the line after the fence that made it ambiguous.
    reopened: Option<usize>,
}

/// The line that closes a block.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Close {
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

impl Heading {
    fn new(path: Range<usize>) -> Self {
        Self {
            path,
            is_item: false,
            is_enumerated: false,
            is_strong: false,
            has_text: false,
            is_blank: false,
        }
    }
}

impl Names {
    /// Takes the path of the line above.
    fn take_heading(&mut self) -> Option<Range<usize>> {
        self.heading.take().filter(|heading| !heading.is_enumerated).map(|heading| heading.path)
    }
}

impl Scanner {
    fn new(cap: Cap, files: bool) -> Self {
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

    fn scan(&mut self, window: &[u8], fresh: usize, out: &mut Cuts) -> Result<usize, SplitError> {
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

    fn finish(&mut self, window: &[u8], out: &mut Cuts) -> Result<(), SplitError> {
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

    /// Decides the kind and path from the content or its first piece.
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
        let is_change = matches!(kind, UnitKind::Edit | UnitKind::Diff);
        if is_change && decided.path.is_none() && !self.continued {
            let content = std::str::from_utf8(&window[decided.body..end]).unwrap_or_default();
            let in_comment = || path_in(content, "").filter(|_| kind == UnitKind::Edit);
            let path = changed_path(content).or_else(in_comment);
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
    fn ended(&self, window: &[u8], end: usize, is_files: bool) -> Cut {
        let cut = self.cut(window, end, is_files);
        if is_files { cut.incomplete() } else { cut }
    }

    /// Detects a fence that opens a block inside this one.
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

    /// Splits off what exceeds the cap: at the start of `line` if possible, so that indentation and
    /// closing fences are not split.
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
            // The first piece carries the labels. Retaining them would keep the whole block in the
            // window.
            (self.info, self.path) = (None, None);
        }
        Ok(())
    }

    fn shift(&mut self, by: usize) {
        self.body -= by;
        self.reopened = self.reopened.and_then(|at| at.checked_sub(by));
        [&mut self.info, &mut self.path].into_iter().flatten().for_each(|range| shift(range, by));
    }

    /// Returns the start of the part of the window that is still needed.
    fn needed_from(&self) -> usize {
        let labels = [&self.path, &self.info].into_iter().flatten().map(|range| range.start);
        labels.fold(self.body, usize::min)
    }
}

/// Removes the markers of a CDATA section that makes up the whole content of an element.
fn without_cdata(window: &[u8], content: Range<usize>) -> Range<usize> {
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

/// Returns the heading after a line of text that starts at `start`.
fn next_heading(
    text: &str,
    found: Option<HeadingPath>,
    start: usize,
    heading: Option<Heading>,
) -> Option<Heading> {
    match (found, heading) {
        (Some(found), before) => {
            let is_enumerated = found.is_item && before.is_some_and(|before| before.is_item);
            let path = start + found.path.start..start + found.path.end;
            let (is_item, is_strong) = (found.is_item, found.is_strong);
            Some(Heading { is_item, is_enumerated, is_strong, ..Heading::new(path) })
        }
        (None, Some(heading)) if is_ornament(text) => Some(Heading { is_blank: false, ..heading }),
        (None, Some(heading)) if heading.is_strong && !heading.has_text && !info::is_partial_line(text) => {
            Some(Heading { has_text: true, is_blank: false, ..heading })
        }
        (None, _) => None,
    }
}

/// Returns whether a line only decorates the heading above it: an underline, a rule, a closing tag.
fn is_ornament(text: &str) -> bool {
    let text = text.trim();
    let is_rule =
        text.len() >= 3 && ['-', '=', '*', '_', '~'].iter().any(|mark| text.chars().all(|c| c == *mark));
    is_rule || text.starts_with("</") && text.ends_with('>')
}

fn shift(range: &mut Range<usize>, by: usize) {
    *range = range.start - by..range.end - by;
}
