//! Collects the units that a splitter reports, as ranges of its window.

use std::borrow::Cow;
use std::ops::Range;

use bytes::Bytes;

use crate::layout::{Detail, Form, Label, Span, UnitKind};

/// A unit as reported by a splitter: ranges of the window.
#[derive(Debug, Clone)]
pub struct Cut {
    body: Range<usize>,
    detail: Detail,
    /// Only the kind has been set.
    is_plain: bool,
}

impl Cut {
    /// Creates a complete unit without labels.
    #[must_use]
    pub fn new(kind: UnitKind, body: Range<usize>) -> Self {
        Self { body, detail: Detail::plain(kind), is_plain: true }
    }

    /// Changes the unit's detail.
    fn with(mut self, say: impl FnOnce(&mut Detail)) -> Self {
        say(&mut self.detail);
        self.is_plain = false;
        self
    }

    /// Marks the unit as incomplete: the stream ended before the unit did, or the unit was split
    /// here.
    #[must_use]
    pub fn incomplete(self) -> Self {
        self.with(|detail| detail.complete = false)
    }

    /// Marks the unit as the continuation of a split unit, if `continued` is set.
    #[must_use]
    pub fn continued(self, continued: bool) -> Self {
        if continued { self.with(|detail| detail.continued = true) } else { self }
    }

    /// Sets the path that the unit belongs to, if any.
    #[must_use]
    pub fn with_path(self, path: Option<Range<usize>>) -> Self {
        if path.is_none() { self } else { self.with(|detail| detail.first = Label::new(path)) }
    }

    /// Sets the info string of the unit's fence, if any.
    #[must_use]
    pub fn with_info(self, info: Option<Range<usize>>) -> Self {
        if info.is_none() { self } else { self.with(|detail| detail.second = Label::new(info)) }
    }

    /// Sets the event's type, if the event has one.
    #[must_use]
    pub fn with_event(self, event: Option<Range<usize>>) -> Self {
        if event.is_none() { self } else { self.with(|detail| detail.first = Label::new(event)) }
    }

    /// Sets the event's id, if the id is in the window.
    #[must_use]
    pub fn with_id(self, id: Option<Range<usize>>) -> Self {
        if id.is_none() { self } else { self.with(|detail| detail.second = Label::new(id)) }
    }

    /// Sets the event's id to the one [carried](Cuts::carry) over from an earlier window.
    #[must_use]
    pub fn with_carried_id(self) -> Self {
        self.with(|detail| detail.second = Label::CARRIED)
    }

    /// Sets the event's type and id, which may be outside the window.
    pub(crate) fn with_labels(self, event: Label, id: Label) -> Self {
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
    /// One per span, or empty while all units are plain and of kind `plain`, so that a line costs
    /// eight bytes.
    pub(crate) details: Vec<Detail>,
    pub(crate) plain: UnitKind,
    pub(crate) carried: Bytes,
    /// Decoded text of labels that were not UTF-8.
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

    /// Reports a complete unit without labels.
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

    /// Adds a detail and, before it, the missing details of all plain units.
    #[cold]
    fn push_detail(&mut self, detail: Detail) {
        self.details.resize(self.spans.len(), Detail::plain(self.plain));
        self.details.push(detail);
    }

    pub(crate) fn detail(&self, index: usize) -> Detail {
        self.details.get(index).copied().unwrap_or(Detail::plain(self.plain))
    }

    /// Removes all units and keeps the allocated capacity.
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

    /// Returns whether all labels are in the window.
    pub(crate) fn has_no_labels(&self) -> bool {
        self.carried.is_empty() && self.replaced.is_empty()
    }

    /// Returns a label for a range of the window. Bytes that are not UTF-8 are decoded with
    /// replacement.
    pub(crate) fn label(&mut self, window: &[u8], range: Range<usize>) -> Label {
        match String::from_utf8_lossy(&window[range.clone()]) {
            Cow::Borrowed(_) => Label::new(Some(range)),
            Cow::Owned(decoded) => {
                let start = self.replaced.len();
                self.replaced.extend_from_slice(decoded.as_bytes());
                Label::replaced(&(start..self.replaced.len()))
            }
        }
    }

    /// Provides a label from an earlier window, for [`Cut::with_carried_id`].
    pub fn carry(&mut self, label: Bytes) {
        self.carried = label;
    }

    /// Returns the number of reported units.
    #[must_use]
    pub fn len(&self) -> usize {
        self.spans.len()
    }

    /// Returns whether no unit was reported.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.spans.is_empty()
    }
}
