//! The seam between bytes and units: what a splitter is asked, and how it answers. Knows nothing of streams, time or memory.

mod delimited;
mod element;
mod fences;
mod info;
mod json;
mod line_ends;
mod lines;
mod paragraphs;
mod path;
mod sentences;
mod sse;
mod structure;

use std::borrow::Cow;
use std::fmt::Debug;
use std::ops::Range;

use bytes::Bytes;

pub use delimited::Delimited;
pub use fences::{Fences, Files};
pub(crate) use info::{first_word, language_of_file};
pub use json::Json;
pub use lines::Lines;
pub use paragraphs::Paragraphs;
pub use sentences::Sentences;
pub use sse::Sse;
pub(crate) use structure::Prefix;

use crate::error::Error;
use crate::unit::{Detail, Form, Label, Span, UnitKind};

/// The largest cap of a unit, in bytes: offsets inside a batch have 32 bits.
pub const UNIT_BYTES_MAX: usize = 1 << 30;

/// An incremental state machine that finds the units of a byte stream.
///
/// The bytes stay with the caller. It shows the splitter a *window*: what the splitter has not let go of yet, with the new bytes at
/// its end. The splitter reports units as ranges of the window and says how much of its front it is done with.
///
/// # Contract
///
/// - `scan` reports the units of all bytes seen so far that are certain, in order, and returns how many bytes at the front of `window`
///   it is done with. That number covers every range reported in this call. The next window starts right after them.
/// - `window[..fresh]` was in the window of the call before. A splitter looks at those bytes again only where a unit ends.
/// - The units depend on the bytes alone, never on where the windows end.
/// - What a splitter leaves in the window is bounded by a cap of its own (twice the cap, plus a few kilobytes).
/// - A unit never ends inside a character of well-formed UTF-8, unless the format itself cuts there.
/// - `finish` is called at most once, after the last `scan`, with what is left of the window. It reports what is still open, as
///   [incomplete](Cut::incomplete) where the end of the unit was not seen.
/// - After a [`SplitError`] nothing more is called. Units reported before it count.
/// - Nothing blocks, and nothing panics whatever the bytes are.
///
/// The suite in `conformance` (feature) checks this; `examples/custom_splitter.rs` is a splitter to start from.
pub trait Splitter: Debug + Send + 'static {
    /// Looks at `window[fresh..]`; returns how many bytes at the front of the window are no longer needed.
    fn scan(&mut self, window: &[u8], fresh: usize, out: &mut Cuts) -> Result<usize, SplitError>;

    /// The stream has ended; `window` is what `scan` had not let go of.
    fn finish(&mut self, window: &[u8], out: &mut Cuts) -> Result<(), SplitError>;
}

impl<S: Splitter + ?Sized> Splitter for Box<S> {
    fn scan(&mut self, window: &[u8], fresh: usize, out: &mut Cuts) -> Result<usize, SplitError> {
        (**self).scan(window, fresh, out)
    }

    fn finish(&mut self, window: &[u8], out: &mut Cuts) -> Result<(), SplitError> {
        (**self).finish(window, out)
    }
}

/// How long a unit may be, and what happens to a longer one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cap {
    bytes_max: usize,
    overflow: Overflow,
}

/// What happens to a unit that is longer than its cap.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Overflow {
    /// The stream fails.
    #[default]
    Error,
    /// The unit leaves in pieces. All but the last are incomplete, all but the first are continued, and labels (path, info string)
    /// stand on the first.
    Split,
}

impl Default for Cap {
    /// One mebibyte, then an error.
    fn default() -> Self {
        Self::error(1 << 20)
    }
}

impl Cap {
    /// A longer unit is an error. Below 4 bytes, the longest character, `bytes_max` is taken as 4; above [`UNIT_BYTES_MAX`], as that.
    #[must_use]
    pub const fn error(bytes_max: usize) -> Self {
        Self::new(bytes_max, Overflow::Error)
    }

    /// A longer unit is split. `bytes_max` is taken as by [`Cap::error`].
    #[must_use]
    pub const fn split(bytes_max: usize) -> Self {
        Self::new(bytes_max, Overflow::Split)
    }

    /// The cap in bytes.
    #[must_use]
    pub const fn bytes_max(self) -> usize {
        self.bytes_max
    }

    /// What happens beyond it.
    #[must_use]
    pub const fn overflow(self) -> Overflow {
        self.overflow
    }

    const fn new(bytes_max: usize, overflow: Overflow) -> Self {
        let bytes_max = match bytes_max {
            0..4 => 4,
            4..=UNIT_BYTES_MAX => bytes_max,
            _ => UNIT_BYTES_MAX,
        };
        Self { bytes_max, overflow }
    }

    /// Where the next piece of the too long `body` ends, or the error that it is.
    fn cut(self, window: &[u8], body: &Range<usize>, out: &mut Cuts) -> Result<usize, SplitError> {
        debug_assert!(body.len() > self.bytes_max, "only a too long unit is cut");
        match self.overflow {
            Overflow::Error => Err(SplitError::too_long(body.start, self.bytes_max)),
            Overflow::Split => {
                out.overflows += 1;
                Ok(char_floor(window, body.start, body.start + self.bytes_max))
            }
        }
    }

    /// Cuts pieces off the front of `body` until the rest is within the cap; returns where the rest starts.
    fn enforce(
        self,
        window: &[u8],
        mut body: Range<usize>,
        out: &mut Cuts,
        mut piece: impl FnMut(Range<usize>) -> Cut,
    ) -> Result<usize, SplitError> {
        while body.len() > self.bytes_max {
            let end = self.cut(window, &body, out)?;
            out.push(piece(body.start..end));
            body.start = end;
        }
        Ok(body.start)
    }
}

/// The last character boundary in `start+1..=at`, or `at` where the bytes are no UTF-8.
fn char_floor(window: &[u8], start: usize, at: usize) -> usize {
    let is_boundary = |&i: &usize| window[i] & 0xC0 != 0x80;
    (at.saturating_sub(3).max(start + 1)..=at).rev().find(is_boundary).unwrap_or(at)
}

/// Why a splitter cannot go on; offsets count from the start of the window.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SplitError {
    at: usize,
    reason: Reason,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reason {
    TooLong { bytes_max: usize },
    TooDeep { depth_max: usize },
    Malformed { expected: &'static str },
}

impl SplitError {
    /// The unit that starts at `at` is beyond its cap.
    #[must_use]
    pub const fn too_long(at: usize, bytes_max: usize) -> Self {
        Self { at, reason: Reason::TooLong { bytes_max } }
    }

    /// The nesting that opens at `at` is beyond its cap.
    #[must_use]
    pub const fn too_deep(at: usize, depth_max: usize) -> Self {
        Self { at, reason: Reason::TooDeep { depth_max } }
    }

    /// What stands at `at` is not what was `expected`.
    #[must_use]
    pub const fn malformed(at: usize, expected: &'static str) -> Self {
        Self { at, reason: Reason::Malformed { expected } }
    }

    /// The error it is for the reader of a stream whose window starts at `base`.
    pub(crate) fn at_base(self, base: u64) -> Error {
        let offset = base + self.at as u64;
        match self.reason {
            Reason::TooLong { bytes_max } => Error::UnitTooLong { offset, bytes_max },
            Reason::TooDeep { depth_max } => Error::TooDeep { offset, depth_max },
            Reason::Malformed { expected } => Error::Malformed { offset, expected },
        }
    }
}

/// One unit as a splitter reports it: ranges of the window.
#[derive(Debug, Clone)]
pub struct Cut {
    body: Range<usize>,
    detail: Detail,
    /// Nothing was said of it but its kind.
    is_plain: bool,
}

impl Cut {
    /// A complete unit without labels.
    #[must_use]
    pub fn new(kind: UnitKind, body: Range<usize>) -> Self {
        Self { body, detail: Detail::plain(kind), is_plain: true }
    }

    /// With something said of it.
    fn with(mut self, say: impl FnOnce(&mut Detail)) -> Self {
        say(&mut self.detail);
        self.is_plain = false;
        self
    }

    /// Its end was not seen: the stream ended first, or the unit was split here.
    #[must_use]
    pub fn incomplete(self) -> Self {
        self.with(|detail| detail.complete = false)
    }

    /// It goes on where the unit before it was split, if `continued`.
    #[must_use]
    pub fn continued(self, continued: bool) -> Self {
        if continued { self.with(|detail| detail.continued = true) } else { self }
    }

    /// The path it belongs to, if any.
    #[must_use]
    pub fn with_path(self, path: Option<Range<usize>>) -> Self {
        if path.is_none() { self } else { self.with(|detail| detail.first = Label::new(path)) }
    }

    /// The info string of its fence, if any.
    #[must_use]
    pub fn with_info(self, info: Option<Range<usize>>) -> Self {
        if info.is_none() { self } else { self.with(|detail| detail.second = Label::new(info)) }
    }

    /// The type of the event, if it named one.
    #[must_use]
    pub fn with_event(self, event: Option<Range<usize>>) -> Self {
        if event.is_none() { self } else { self.with(|detail| detail.first = Label::new(event)) }
    }

    /// The id of the event, if it stands in the window.
    #[must_use]
    pub fn with_id(self, id: Option<Range<usize>>) -> Self {
        if id.is_none() { self } else { self.with(|detail| detail.second = Label::new(id)) }
    }

    /// The id of the event is the one that was [carried](Cuts::carry) over from before this window.
    #[must_use]
    pub fn with_carried_id(self) -> Self {
        self.with(|detail| detail.second = Label::CARRIED)
    }

    /// The type of the event and its id, where they may stand outside of the window.
    fn with_labels(self, event: Label, id: Label) -> Self {
        if (event, id) == (Label::NONE, Label::NONE) {
            return self;
        }
        self.with(|detail| (detail.first, detail.second) = (event, id))
    }

    pub(crate) fn with_form(self, form: Form) -> Self {
        if form == Form::Plain { self } else { self.with(|detail| detail.form = form) }
    }
}

/// The units that a splitter reports in one call.
#[derive(Debug, Default)]
pub struct Cuts {
    pub(crate) spans: Vec<Span>,
    /// One for each span, or none at all while every unit is a plain one of kind `plain`: lines cost eight bytes each.
    pub(crate) details: Vec<Detail>,
    pub(crate) plain: UnitKind,
    pub(crate) carried: Bytes,
    /// Labels that are not UTF-8, decoded.
    pub(crate) replaced: Vec<u8>,
    pub(crate) overflows: u64,
}

impl Cuts {
    /// Reports a unit.
    #[expect(clippy::needless_pass_by_value, reason = "a cut is built for this call")]
    #[inline]
    pub fn push(&mut self, cut: Cut) {
        if self.spans.is_empty() {
            self.plain = cut.detail.kind;
        }
        if !(self.details.is_empty() && cut.is_plain && cut.detail.kind == self.plain) {
            self.push_detail(cut.detail);
        }
        self.spans.push(Span::new(&cut.body));
    }

    /// Reports a unit of which there is nothing to say but its kind.
    #[inline]
    pub(crate) fn push_plain(&mut self, kind: UnitKind, body: &Range<usize>) {
        if self.spans.is_empty() {
            self.plain = kind;
        }
        if !self.details.is_empty() || self.plain != kind {
            self.push_detail(Detail::plain(kind));
        }
        self.spans.push(Span::new(body));
    }

    pub(crate) fn push_detailed(&mut self, detail: Detail, body: &Range<usize>) {
        self.push(Cut { body: body.clone(), detail, is_plain: detail == Detail::plain(detail.kind) });
    }

    /// From the first unit on that is more than plain, each has its detail.
    #[cold]
    fn push_detail(&mut self, detail: Detail) {
        self.details.resize(self.spans.len(), Detail::plain(self.plain));
        self.details.push(detail);
    }

    pub(crate) fn detail(&self, index: usize) -> Detail {
        self.details.get(index).copied().unwrap_or(Detail::plain(self.plain))
    }

    /// Empty again, with the room that it has.
    #[inline]
    pub(crate) fn clear(&mut self) {
        self.spans.clear();
        self.details.clear();
        if !self.carried.is_empty() {
            self.carried = Bytes::new();
        }
        self.replaced.clear();
        self.overflows = 0;
    }

    /// Whether no label stands outside of the window.
    pub(crate) fn has_no_labels(&self) -> bool {
        self.carried.is_empty() && self.replaced.is_empty()
    }

    /// A label of these bytes of the window, which are decoded if they are not UTF-8.
    fn label(&mut self, window: &[u8], range: Range<usize>) -> Label {
        match String::from_utf8_lossy(&window[range.clone()]) {
            Cow::Borrowed(_) => Label::new(Some(range)),
            Cow::Owned(decoded) => {
                let start = self.replaced.len();
                self.replaced.extend_from_slice(decoded.as_bytes());
                Label::replaced(&(start..self.replaced.len()))
            }
        }
    }

    /// Makes a label available that stood in an earlier window, for [`Cut::with_carried_id`].
    pub fn carry(&mut self, label: Bytes) {
        self.carried = label;
    }

    /// How many units were reported.
    #[must_use]
    pub fn len(&self) -> usize {
        self.spans.len()
    }

    /// Whether none was.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.spans.is_empty()
    }
}
