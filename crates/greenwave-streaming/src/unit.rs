//! Provides access to units and to the batches that hold them.

use std::borrow::Cow;
use std::fmt;
use std::ops::Range;
use std::str::Utf8Error;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};

use bytes::Bytes;

use crate::budget::{Budget, Charge};
use crate::cut::Cuts;
use crate::layout::{Detail, Label, Span, UnitKind};
use crate::splitter::info::{first_word, language_of_file};

/// A non-empty batch of units that were completed by the same chunk and share one block of memory.
/// Clones share the block.
///
/// The block is charged to the stream's [`Budget`] until the last clone is dropped.
#[derive(Clone)]
pub struct UnitBatch {
    block: Bytes,
    first_seq: u64,
    index: Index,
    text: Utf8Check,
}

/// Caches whether a block is valid UTF-8.
#[derive(Default)]
struct Utf8Check(AtomicU8);

impl Utf8Check {
    const UNKNOWN: u8 = 0;
    const VALID: u8 = 1;
    const INVALID: u8 = 2;

    /// Returns whether `block` is UTF-8. Every call must pass the same block.
    #[inline]
    fn is_text(&self, block: &[u8]) -> bool {
        // Relaxed: the flag depends on nothing but the block. A thread that misses another's result
        // computes it again.
        match self.0.load(Ordering::Relaxed) {
            Self::UNKNOWN => self.check(block),
            state => state == Self::VALID,
        }
    }

    fn check(&self, block: &[u8]) -> bool {
        let is_text = simdutf8::basic::from_utf8(block).is_ok();
        self.0.store(if is_text { Self::VALID } else { Self::INVALID }, Ordering::Relaxed);
        is_text
    }
}

impl Clone for Utf8Check {
    fn clone(&self) -> Self {
        Self(AtomicU8::new(self.0.load(Ordering::Relaxed)))
    }
}

/// Maximum number of units that a batch stores inline. A 1400-byte network chunk of a chat rarely
/// has more events.
const INLINE_UNITS_MAX: usize = 5;

/// The spans and details of a batch's units.
#[derive(Clone)]
enum Index {
    /// Up to `INLINE_UNITS_MAX` plain units of one kind, without an allocation. Most batches from a
    /// network are of this form.
    Inline {
        kind: UnitKind,
        len: u8,
        spans: [Span; INLINE_UNITS_MAX],
    },
    /// One unit with its detail, whose labels are all in the block.
    Single(Span, Detail),
    Shared(SharedIndex),
}

/// A handle to an index whose memory the stream reuses once all clones of the batch are dropped.
struct SharedIndex(Arc<IndexSlot>);

/// The contents of a shared index, recycled by [`IndexPool`].
struct IndexSlot {
    cuts: Cuts,
    charge: Option<Charge>,
    /// Number of handles held by batches, excluding the stream's own. Maintained only if there is a
    /// charge, which the last handle releases.
    users: AtomicUsize,
    /// The batch that this one is part of, which holds the charge.
    _whole: Option<Box<UnitBatch>>,
}

impl UnitBatch {
    /// Returns the number of units, which is at least one.
    #[must_use]
    #[expect(clippy::len_without_is_empty, reason = "a batch is never empty")]
    pub fn len(&self) -> usize {
        match &self.index {
            Index::Inline { len, .. } => usize::from(*len),
            Index::Single(..) => 1,
            Index::Shared(shared) => shared.0.cuts.len(),
        }
    }

    /// Returns the sequence number of the first unit. The others follow without gaps.
    #[must_use]
    pub fn first_sequence(&self) -> u64 {
        self.first_seq
    }

    /// Returns the block that contains the units and the bytes between them.
    #[must_use]
    pub fn block(&self) -> &Bytes {
        &self.block
    }

    /// Returns the unit at `index`, counted from 0.
    #[must_use]
    pub fn get(&self, index: usize) -> Option<Unit<'_>> {
        (index < self.len()).then_some(Unit { batch: self, index })
    }

    /// Renumbers the units, starting at `first_seq`.
    pub(crate) fn renumbered(mut self, first_seq: u64) -> Self {
        self.first_seq = first_seq;
        self
    }

    /// Removes the first `units` units; `units` must be less than the batch's length.
    pub(crate) fn without_first(self, units: usize) -> Self {
        if units == 0 {
            return self;
        }
        let mut cuts = Cuts::default();
        for index in units..self.len() {
            cuts.push_detailed(self.detail(index), &self.span(index));
        }
        cuts.carry(Bytes::copy_from_slice(self.carried()));
        if let Index::Shared(shared) = &self.index {
            cuts.replaced.clone_from(&shared.0.cuts.replaced);
        }
        let (block, first_seq) = (self.block.clone(), self.first_seq + units as u64);
        Self::with_index(block, cuts, first_seq, Some(Box::new(self)))
    }

    /// Creates a batch from a journal record, which is its block.
    #[cfg(feature = "journal")]
    pub(crate) fn recorded(block: Bytes, cuts: Cuts, first_seq: u64) -> Self {
        Self::with_index(block, cuts, first_seq, None)
    }

    fn with_index(block: Bytes, cuts: Cuts, first_seq: u64, whole: Option<Box<Self>>) -> Self {
        let slot = IndexSlot { cuts, charge: None, users: AtomicUsize::new(1), _whole: whole };
        Self {
            block,
            first_seq,
            index: Index::Shared(SharedIndex(Arc::new(slot))),
            text: Utf8Check::default(),
        }
    }

    fn span(&self, index: usize) -> Range<usize> {
        match &self.index {
            Index::Inline { spans, .. } => spans[index].range(),
            Index::Single(span, _) => span.range(),
            Index::Shared(shared) => shared.0.cuts.spans[index].range(),
        }
    }

    fn detail(&self, index: usize) -> Detail {
        match &self.index {
            Index::Inline { kind, .. } => Detail::plain(*kind),
            Index::Single(_, detail) => *detail,
            Index::Shared(shared) => shared.0.cuts.detail(index),
        }
    }

    fn replaced(&self, range: Range<u32>) -> &[u8] {
        match &self.index {
            Index::Inline { .. } | Index::Single(..) => &[],
            Index::Shared(shared) => &shared.0.cuts.replaced[range.start as usize..range.end as usize],
        }
    }

    fn carried(&self) -> &[u8] {
        match &self.index {
            Index::Inline { .. } | Index::Single(..) => &[],
            Index::Shared(shared) => &shared.0.cuts.carried,
        }
    }

    /// Iterates over the units in order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = Unit<'_>> + DoubleEndedIterator {
        (0..self.len()).map(|index| Unit { batch: self, index })
    }

    /// Iterates over the units in order; each keeps the batch alive.
    pub fn into_units(self) -> impl ExactSizeIterator<Item = OwnedUnit> {
        (0..self.len()).map(move |index| OwnedUnit { batch: self.clone(), index })
    }
}

/// Creates the batches of one stream and reuses the index of the last batch once it is dropped.
#[derive(Default)]
pub(crate) struct IndexPool {
    last: Option<Arc<IndexSlot>>,
}

impl IndexPool {
    /// Creates a batch of the units in `cuts`, which is empty afterwards.
    #[inline]
    pub(crate) fn batch(
        &mut self,
        block: Bytes,
        cuts: &mut Cuts,
        first_seq: u64,
        budget: Option<&Budget>,
    ) -> UnitBatch {
        if budget.is_none()
            && let Some(spans) = inline_spans(cuts)
        {
            let (kind, len) = (cuts.plain, cuts.spans.len() as u8);
            cuts.clear();
            let index = Index::Inline { kind, len, spans };
            return UnitBatch { block, first_seq, index, text: Utf8Check::default() };
        }
        let index = match (&cuts.spans[..], &cuts.details[..]) {
            ([span], [detail]) if budget.is_none() && cuts.has_no_labels() => Index::Single(*span, *detail),
            _ => Index::Shared(self.shared(cuts, budget.map(|budget| budget.charge(block.len())))),
        };
        cuts.clear();
        UnitBatch { block, first_seq, index, text: Utf8Check::default() }
    }

    fn shared(&mut self, cuts: &mut Cuts, charge: Option<Charge>) -> SharedIndex {
        let free = self.last.as_mut().and_then(Arc::get_mut);
        let Some(slot) = free else {
            let users = AtomicUsize::new(1);
            let slot = IndexSlot { cuts: std::mem::take(cuts), charge, users, _whole: None };
            return SharedIndex(self.last.insert(Arc::new(slot)).clone());
        };
        std::mem::swap(&mut slot.cuts, cuts);
        (slot.charge, slot.users) = (charge, AtomicUsize::new(1));
        SharedIndex(self.last.as_ref().expect("it was free").clone())
    }
}

/// Returns the spans if there are at most `INLINE_UNITS_MAX` units and all of them are plain.
#[inline]
fn inline_spans(cuts: &Cuts) -> Option<[Span; INLINE_UNITS_MAX]> {
    let unused = Span { start: 0, end: 0 };
    match cuts.spans[..] {
        _ if !cuts.details.is_empty() => None,
        [a] => Some([a, unused, unused, unused, unused]),
        [a, b] => Some([a, b, unused, unused, unused]),
        [a, b, c] => Some([a, b, c, unused, unused]),
        [a, b, c, d] => Some([a, b, c, d, unused]),
        [a, b, c, d, e] => Some([a, b, c, d, e]),
        _ => None,
    }
}

impl fmt::Debug for IndexPool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("IndexPool").field("has_one", &self.last.is_some()).finish()
    }
}

impl Clone for SharedIndex {
    fn clone(&self) -> Self {
        if self.0.charge.is_some() {
            // Relaxed: the caller owns a handle, so the count is not zero, and nothing needs to
            // become visible yet.
            self.0.users.fetch_add(1, Ordering::Relaxed);
        }
        Self(self.0.clone())
    }
}

impl Drop for SharedIndex {
    fn drop(&mut self) {
        // The stream's own handle is not counted. AcqRel: the last user sees the writes of all
        // others.
        if let Some(charge) = &self.0.charge
            && self.0.users.fetch_sub(1, Ordering::AcqRel) == 1
        {
            charge.release();
        }
    }
}

impl fmt::Debug for UnitBatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

/// A unit of a batch, borrowed.
#[derive(Clone, Copy)]
pub struct Unit<'a> {
    batch: &'a UnitBatch,
    index: usize,
}

impl<'a> Unit<'a> {
    /// Returns the unit's kind.
    #[must_use]
    pub fn kind(&self) -> UnitKind {
        self.detail().kind
    }

    /// Returns the unit's number in the stream, counted from 0 or from
    /// [`Pull::starting_at`](crate::Pull::starting_at).
    #[must_use]
    pub fn sequence(&self) -> u64 {
        self.batch.first_seq.saturating_add(self.index as u64)
    }

    /// Returns whether the unit's end was seen. A unit that was cut off by the end of the stream or
    /// by its cap is incomplete.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.detail().complete
    }

    /// Returns whether the unit continues one that was split at the cap.
    #[must_use]
    pub fn is_continued(&self) -> bool {
        self.detail().continued
    }

    /// Returns the content as a slice of the block. It is assembled on each call if it is not
    /// contiguous: a code block with an indented fence, or an event with several `data` lines.
    #[must_use]
    pub fn bytes(&self) -> Bytes {
        match self.content() {
            Cow::Borrowed(slice) => self.batch.block.slice_ref(slice),
            Cow::Owned(built) => built.into(),
        }
    }

    /// Returns the size of the block that [`bytes`](Self::bytes) keeps in memory, in bytes.
    #[must_use]
    pub fn block_bytes(&self) -> usize {
        self.batch.block.len()
    }

    /// Returns the content, borrowed if it is contiguous in the block.
    #[must_use]
    #[inline]
    pub fn content(&self) -> Cow<'a, [u8]> {
        let raw = &self.batch.block[self.batch.span(self.index)];
        self.detail().form.apply(raw)
    }

    /// Returns the content as text.
    ///
    /// # Errors
    /// If the content is not UTF-8. Splitters never cut inside a character.
    pub fn text(&self) -> Result<Cow<'a, str>, Utf8Error> {
        Ok(match self.content() {
            Cow::Borrowed(slice) => Cow::Borrowed(self.checked(slice)?),
            Cow::Owned(built) => Cow::Owned(String::from_utf8(built).map_err(|error| error.utf8_error())?),
        })
    }

    /// Returns a slice of the block as text. The whole block is validated once, which takes half
    /// the time if units are short.
    #[inline]
    fn checked(&self, slice: &'a [u8]) -> Result<&'a str, Utf8Error> {
        let block = self.batch.block();
        let end = self.batch.span(self.index).end;
        let starts = |byte: Option<&u8>| byte.is_none_or(|byte| byte & 0xC0 != 0x80);
        if starts(slice.first()) && starts(block.get(end)) && self.batch.text.is_text(block) {
            // SAFETY: the block is valid UTF-8, and the slice starts and ends at character
            // boundaries.
            return Ok(unsafe { std::str::from_utf8_unchecked(slice) });
        }
        std::str::from_utf8(slice)
    }

    /// Returns the path of a [`File`](UnitKind::File), exactly as the response gives it: it may be
    /// absolute or contain `..`.
    #[must_use]
    pub fn path(&self) -> Option<&'a str> {
        (self.kind() == UnitKind::File).then(|| self.text_of(self.detail().first)).flatten()
    }

    /// Returns the path of the file that an edit, a diff or an ambiguous file is about, as the
    /// response gives it; `None` if it names none or several. The path of a diff of git is without
    /// the prefix `a/` or `b/`.
    #[must_use]
    pub fn edited_path(&self) -> Option<&'a str> {
        let is_about = matches!(self.kind(), UnitKind::Edit | UnitKind::Diff | UnitKind::Ambiguous);
        is_about.then(|| self.text_of(self.detail().first)).flatten()
    }

    /// Returns the language that the info string of a code block or file names.
    #[must_use]
    pub fn language(&self) -> Option<&'a str> {
        match self.kind() {
            UnitKind::Code => self.info().and_then(first_word),
            UnitKind::File | UnitKind::Edit | UnitKind::Diff | UnitKind::Ambiguous => {
                self.info().and_then(language_of_file)
            }
            _ => None,
        }
    }

    /// Returns the info string of a code block or file, trimmed. Escapes are not resolved.
    #[must_use]
    pub fn info(&self) -> Option<&'a str> {
        let has_fence = matches!(
            self.kind(),
            UnitKind::Code | UnitKind::File | UnitKind::Edit | UnitKind::Diff | UnitKind::Ambiguous
        );
        has_fence.then(|| self.text_of(self.detail().second)).flatten()
    }

    /// Returns the type of an event: `message` if it names none. Bytes that are not UTF-8 are
    /// replaced by U+FFFD, as the standard requires.
    #[must_use]
    pub fn event(&self) -> Option<&'a str> {
        (self.kind() == UnitKind::Event).then(|| self.text_of(self.detail().first).unwrap_or("message"))
    }

    /// Returns the stream's last event id at this event, if any event so far had one. Bytes that
    /// are not UTF-8 are replaced by U+FFFD.
    #[must_use]
    pub fn id(&self) -> Option<&'a str> {
        (self.kind() == UnitKind::Event).then(|| self.text_of(self.detail().second)).flatten()
    }

    /// Returns an owned handle that keeps the batch alive.
    #[must_use]
    pub fn to_owned_unit(&self) -> OwnedUnit {
        OwnedUnit { batch: self.batch.clone(), index: self.index }
    }

    /// Returns the path or type, and the info string or id, depending on the kind.
    #[cfg(feature = "journal")]
    pub(crate) fn labels(&self) -> (Option<&'a str>, Option<&'a str>) {
        let detail = self.detail();
        (self.text_of(detail.first), self.text_of(detail.second))
    }

    fn detail(&self) -> Detail {
        self.batch.detail(self.index)
    }

    fn text_of(&self, label: Label) -> Option<&'a str> {
        let bytes = match label {
            Label::NONE => return None,
            Label::CARRIED => self.batch.carried(),
            Label(Span { start, end }) if start > end => self.batch.replaced(end..start),
            Label(span) => &self.batch.block[span.range()],
        };
        std::str::from_utf8(bytes).ok().filter(|text| !text.is_empty())
    }
}

impl fmt::Debug for Unit<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut out = f.debug_struct("Unit");
        out.field("sequence", &self.sequence()).field("kind", &self.kind());
        let labels =
            [("path", self.path()), ("info", self.info()), ("event", self.event()), ("id", self.id())];
        for (name, label) in labels {
            if let Some(label) = label {
                out.field(name, &label);
            }
        }
        out.field("content", &String::from_utf8_lossy(&self.content()))
            .field("complete", &self.is_complete())
            .finish()
    }
}

/// A unit that keeps its batch alive, and with it the batch's charge to the [`Budget`].
#[derive(Clone)]
pub struct OwnedUnit {
    batch: UnitBatch,
    index: usize,
}

impl OwnedUnit {
    /// Returns the unit.
    #[must_use]
    pub fn get(&self) -> Unit<'_> {
        Unit { batch: &self.batch, index: self.index }
    }
}

impl fmt::Debug for OwnedUnit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.get().fmt(f)
    }
}
