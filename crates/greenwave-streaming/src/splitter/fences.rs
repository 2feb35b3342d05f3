//! Fenced code blocks of CommonMark (<https://spec.commonmark.org/0.31.2/#fenced-code-blocks>), and the files an answer holds in them.

use std::ops::Range;

use crate::splitter::ends::find_end;
use crate::splitter::{Cap, Cut, Cuts, Fault, Splitter, info};
use crate::unit::{Form, Kind};

/// A line outside code blocks that is longer than this many bytes neither opens a block nor names a file.
const LINE_BYTES_MAX: usize = 4096;

/// Fenced code blocks: `` ``` `` or `~~~`, closed by at least as many of the same; up to three spaces of indentation, taken from the
/// lines of the block as well; an info string. What stands outside blocks is passed over.
///
/// The unit is the content, each line with its end. A block that the end of the stream leaves open is
/// [incomplete](crate::Unit::is_complete); CommonMark closes it there.
///
/// Fences are found at document level: a block inside a block quote, or indented by four columns inside a list, is not.
/// Blocks of HTML are not recognised, so a fence inside `<pre>` opens a block.
#[derive(Debug)]
pub struct Fences(Scanner);

/// The files in an agent's answer: fenced code blocks that name a file, in the info string or on the line above.
///
/// Info strings: `rust src/lib.rs`, `rust path=src/lib.rs` (also `file=`, `filename=`, `title=`, with quotes or without),
/// `src/lib.rs`, `rust:src/lib.rs`. The line above (a blank one may stand between): a heading, bold or backticked path, or the path
/// alone, each with or without `File:` in front, a colon behind or a remark in brackets. A sentence that mentions a path names no file,
/// as what follows it is too often a part of the file only.
///
/// The unit is a [`Kind::File`] with its [`path`](crate::Unit::path) exactly as given; keeping it inside a folder is for the caller. A
/// block without a path is a [`Kind::Code`]. Otherwise as [`Fences`].
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
    fn scan(&mut self, window: &[u8], fresh: usize, out: &mut Cuts) -> Result<usize, Fault> {
        self.0.scan(window, fresh, out)
    }

    fn finish(&mut self, window: &[u8], out: &mut Cuts) -> Result<(), Fault> {
        self.0.finish(window, out)
    }
}

impl Splitter for Files {
    fn scan(&mut self, window: &[u8], fresh: usize, out: &mut Cuts) -> Result<usize, Fault> {
        self.0.scan(window, fresh, out)
    }

    fn finish(&mut self, window: &[u8], out: &mut Cuts) -> Result<(), Fault> {
        self.0.finish(window, out)
    }
}

/// The machine behind both. All offsets are offsets of the window.
#[derive(Debug)]
struct Scanner {
    cap: Cap,
    /// Whether blocks may name files.
    files: bool,
    state: State,
    /// Where the current line starts; before the window, taken as its start, when the line was split.
    line: usize,
    /// Bytes of the current line that lie before the window.
    line_before: usize,
    /// Up to where line ends have been looked for.
    next: usize,
    heading: Option<Heading>,
}

/// `Prose -> Skipping -> Prose`, `Prose -> Block -> Prose`.
#[derive(Debug)]
enum State {
    /// Outside blocks.
    Prose,
    /// Outside blocks, in a line that can mean nothing any more.
    Skipping,
    /// Inside a block.
    Block(Block),
}

/// A line that names the file of the block that follows it.
#[derive(Debug, Clone)]
struct Heading {
    path: Range<usize>,
    /// Whether a blank line has followed it. A second one ends its meaning.
    blank: bool,
}

#[derive(Debug, Clone)]
struct Block {
    kind: Kind,
    marker: u8,
    width: usize,
    indent: u8,
    /// Where the content that was not handed on yet starts.
    body: usize,
    info: Option<Range<usize>>,
    path: Option<Range<usize>>,
    /// A piece of it was handed on already, and the labels with it.
    continued: bool,
    body_at_line_start: bool,
}

impl Scanner {
    fn new(cap: Cap, files: bool) -> Self {
        Self { cap, files, state: State::Prose, line: 0, line_before: 0, next: 0, heading: None }
    }

    fn scan(&mut self, window: &[u8], fresh: usize, out: &mut Cuts) -> Result<usize, Fault> {
        debug_assert!(self.next == fresh || self.next + 1 == fresh, "all but a last CR was looked at");
        while let Some(end) = find_end(window, self.next) {
            let after = match (window[end], window.get(end + 1)) {
                (b'\n', _) => end + 1,
                (_, Some(b'\n')) => end + 2,
                (_, Some(_)) => end + 1,
                (_, None) => {
                    // Whether this CR ends the line alone or with an LF, only the next byte can tell.
                    self.next = end;
                    return self.partial(window, out);
                }
            };
            self.line_end(window, end, after, out)?;
        }
        self.next = window.len();
        self.partial(window, out)
    }

    fn finish(&mut self, window: &[u8], out: &mut Cuts) -> Result<(), Fault> {
        if self.next < window.len() {
            self.line_end(window, self.next, window.len(), out)?;
        } else if self.line < window.len() {
            self.line_end(window, window.len(), window.len(), out)?;
        }
        if let State::Block(block) = std::mem::replace(&mut self.state, State::Prose) {
            out.push(block.cut(block.body..window.len()).incomplete());
        }
        Ok(())
    }

    /// A line is complete: its content ends at `end`, the next one starts at `after`.
    fn line_end(&mut self, window: &[u8], end: usize, after: usize, out: &mut Cuts) -> Result<(), Fault> {
        let line = self.line..end;
        match &mut self.state {
            State::Skipping => {
                self.state = State::Prose;
                self.heading = None;
            }
            State::Prose => self.prose_line(window, line, after),
            State::Block(block) => {
                let is_short = self.line_before + line.len() <= self.cap.bytes_max();
                if is_short && block.is_closed_by(&window[line.clone()]) {
                    out.push(block.cut(block.body..line.start));
                    self.state = State::Prose;
                } else {
                    block.enforce(self.cap, window, line, out)?;
                }
            }
        }
        self.line = after;
        self.line_before = 0;
        self.next = after;
        Ok(())
    }

    fn prose_line(&mut self, window: &[u8], line: Range<usize>, after: usize) {
        let heading = self.heading.take();
        if line.len() > LINE_BYTES_MAX {
            return;
        }
        let text = &window[line.clone()];
        if let Some(open) = Opening::parse(text) {
            self.state = State::Block(self.block(window, &line, &open, heading, after));
        } else if self.files {
            self.heading = next_heading(text, line.start, heading);
        }
    }

    fn block(
        &self,
        window: &[u8],
        line: &Range<usize>,
        open: &Opening,
        heading: Option<Heading>,
        body: usize,
    ) -> Block {
        let info = line.start + open.info.start..line.start + open.info.end;
        let text = std::str::from_utf8(&window[info.clone()]).unwrap_or_default();
        let path = self.files.then(|| match info::path_of_info(text) {
            Some(path) => Some(info.start + path.start..info.start + path.end),
            None => heading.filter(|_| !info::is_no_file(text)).map(|heading| heading.path),
        });
        let path = path.flatten();
        Block {
            kind: if path.is_some() { Kind::File } else { Kind::Code },
            marker: open.marker,
            width: open.width,
            indent: open.indent,
            body,
            info: (!info.is_empty()).then_some(info),
            path,
            continued: false,
            body_at_line_start: true,
        }
    }

    /// The window has ended inside a line that was looked at up to `next`. Returns how much of the window is done with.
    fn partial(&mut self, window: &[u8], out: &mut Cuts) -> Result<usize, Fault> {
        let line = self.line..self.next;
        match &mut self.state {
            State::Skipping => {}
            State::Prose => {
                let first = window[line.clone()].iter().find(|byte| **byte != b' ');
                let may_open = matches!(first, None | Some(b'`' | b'~'));
                if line.len() > LINE_BYTES_MAX || !(may_open || self.files) {
                    self.state = State::Skipping;
                }
            }
            State::Block(block) => {
                if self.line_before + line.len() > self.cap.bytes_max() {
                    block.enforce(self.cap, window, line, out)?;
                }
            }
        }
        Ok(self.release())
    }

    /// Lets go of what is not needed any more, and moves all offsets by as much.
    fn release(&mut self) -> usize {
        let keep = match &self.state {
            State::Skipping => self.next,
            State::Prose => self.heading.as_ref().map_or(self.line, |heading| heading.path.start),
            State::Block(block) => block.keep(),
        };
        self.next -= keep;
        self.line_before += keep.saturating_sub(self.line);
        self.line = self.line.saturating_sub(keep);
        if let Some(heading) = &mut self.heading {
            shift(&mut heading.path, keep);
        }
        if let State::Block(block) = &mut self.state {
            block.body -= keep;
            [&mut block.info, &mut block.path].into_iter().flatten().for_each(|range| shift(range, keep));
        }
        keep
    }
}

impl Block {
    fn cut(&self, body: Range<usize>) -> Cut {
        let form = match self.indent {
            0 => Form::Plain,
            columns => Form::Indented { columns, at_line_start: self.body_at_line_start },
        };
        Cut::new(self.kind, body)
            .with_path(self.path.clone())
            .with_info(self.info.clone())
            .with_form(form)
            .continued(self.continued)
    }

    /// CommonMark: at least as many markers as the opening fence, indented by at most three spaces, and nothing but blanks behind.
    fn is_closed_by(&self, line: &[u8]) -> bool {
        let Some((indent, rest)) = indentation(line) else { return false };
        let width = rest.iter().take_while(|byte| **byte == self.marker).count();
        indent <= 3 && width >= self.width && rest[width..].iter().all(|byte| matches!(byte, b' ' | b'\t'))
    }

    /// Cuts what is beyond the cap: at the start of `line` if that is enough, so that indentation and closing fences stay whole.
    fn enforce(&mut self, cap: Cap, window: &[u8], line: Range<usize>, out: &mut Cuts) -> Result<(), Fault> {
        while line.end - self.body > cap.bytes_max() {
            let end = cap.cut(window, &(self.body..line.end), out)?;
            let end = if line.start > self.body { line.start } else { end };
            out.push(self.cut(self.body..end).incomplete());
            self.body = end;
            self.body_at_line_start = end == line.start;
            self.continued = true;
            // They left with the first piece; kept, they would hold the whole block in the window.
            (self.info, self.path) = (None, None);
        }
        Ok(())
    }

    /// Where the part of the window starts that is still needed.
    fn keep(&self) -> usize {
        let labels = [&self.path, &self.info].into_iter().flatten().map(|range| range.start);
        labels.fold(self.body, usize::min)
    }
}

/// An opening fence; `info` is a range of its line.
struct Opening {
    marker: u8,
    width: usize,
    indent: u8,
    info: Range<usize>,
}

impl Opening {
    fn parse(line: &[u8]) -> Option<Self> {
        let (indent, rest) = indentation(line)?;
        let marker = *rest.first().filter(|byte| matches!(byte, b'`' | b'~'))?;
        let width = rest.iter().take_while(|byte| **byte == marker).count();
        let info = rest[width..].trim_ascii();
        let is_fence = width >= 3 && indent <= 3 && !(marker == b'`' && info.contains(&b'`'));
        let behind = indent + width;
        let lead = rest[width..].len() - rest[width..].trim_ascii_start().len();
        let start = behind + lead.min(rest.len() - width - info.len());
        is_fence.then(|| Self {
            marker,
            width,
            indent: u8::try_from(indent).expect("a fence is indented by at most 3"),
            info: start..start + info.len(),
        })
    }
}

/// The leading spaces and the rest; `None` where a tab makes it a code block by indentation.
fn indentation(line: &[u8]) -> Option<(usize, &[u8])> {
    let indent = line.iter().take_while(|byte| **byte == b' ').count();
    (line.get(indent) != Some(&b'\t')).then(|| (indent, &line[indent..]))
}

fn next_heading(text: &[u8], start: usize, before: Option<Heading>) -> Option<Heading> {
    if text.iter().all(u8::is_ascii_whitespace) {
        return before.filter(|heading| !heading.blank).map(|heading| Heading { blank: true, ..heading });
    }
    let path = info::path_of_heading(std::str::from_utf8(text).ok()?)?;
    Some(Heading { path: start + path.start..start + path.end, blank: false })
}

fn shift(range: &mut Range<usize>, by: usize) {
    *range = range.start - by..range.end - by;
}
