//! Lines outside blocks that name the file in the next block.

use std::ops::Range;

use crate::splitter::fences::block::Block;
use crate::splitter::info::{self, HeadingPath};
use crate::splitter::structure::Structure;

/// The names found outside blocks.
#[derive(Debug, Default)]
pub(super) struct Names {
    pub(super) heading: Option<Heading>,
    /// The path given by an element for a later element, and the number of lines since.
    pub(super) element: Option<(Range<usize>, usize)>,
    pub(super) held: Option<HeldFile>,
}

/// A line that names the file in the block after it.
#[derive(Debug, Clone)]
pub(super) struct Heading {
    pub(super) path: Range<usize>,
    pub(super) is_item: bool,
    /// It is one of several items that name files, none of which belongs to the next block.
    pub(super) is_enumerated: bool,
    pub(super) is_strong: bool,
    /// Whether a line of text followed it.
    pub(super) has_text: bool,
    /// Whether a blank line followed it. A second one invalidates the heading.
    pub(super) is_blank: bool,
}

/// A Markdown file that was closed by a fence, unless that fence opens a block inside it.
#[derive(Debug)]
pub(super) struct HeldFile {
    pub(super) block: Box<Block>,
    /// End of the content.
    pub(super) end: usize,
    pub(super) structure: Structure,
    /// Number of lines since.
    pub(super) lines: usize,
}

impl Heading {
    pub(super) fn new(path: Range<usize>) -> Self {
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
    pub(super) fn take_heading(&mut self) -> Option<Range<usize>> {
        self.heading.take().filter(|heading| !heading.is_enumerated).map(|heading| heading.path)
    }
}

/// Returns the heading after a line of text that starts at `start`.
pub(super) fn next_heading(
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
