//! Splits a response into fenced code blocks of CommonMark
//! (<https://spec.commonmark.org/0.31.2/#fenced-code-blocks>), and into the files that they
//! contain.

mod block;
mod names;
mod scanner;

use self::scanner::Scanner;
use crate::cut::Cuts;
use crate::splitter::{Cap, SplitError, Splitter};

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
///
/// [`UnitKind::Ambiguous`]: crate::UnitKind::Ambiguous
/// [`UnitKind::Code`]: crate::UnitKind::Code
/// [`UnitKind::Diff`]: crate::UnitKind::Diff
/// [`UnitKind::Edit`]: crate::UnitKind::Edit
/// [`UnitKind::File`]: crate::UnitKind::File
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
