//! Units and the batches they leave in. Knows nothing of how they were found.

use std::borrow::Cow;
use std::fmt;
use std::ops::Range;
use std::str::Utf8Error;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};

use bytes::Bytes;

use crate::budget::{Budget, Charge};
use crate::splitter::{Cuts, Prefix, first_word, language_of_file};

/// What a unit is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum UnitKind {
    /// A line, without its end.
    #[default]
    Line,
    /// What stands between two delimiters.
    Record,
    /// Lines of text between blank ones.
    Paragraph,
    /// A sentence of text.
    Sentence,
    /// A code block, without its fences.
    Code,
    /// A whole file of an answer, with its path.
    File,
    /// A JSON value.
    Json,
    /// The data of a server-sent event.
    Event,
    /// A change to a part of a file: a search/replace block, or code in which comments stand for what was left out.
    Edit,
    /// A unified diff, or a patch in another format of its own.
    Diff,
    /// A file of which nobody can say where it ends, since it holds fences as long as its own.
    Ambiguous,
    /// A kind of a splitter from outside.
    Other(u16),
}

/// Units that became complete together, sharing one block of memory. Cloning shares it.
///
/// While a clone is alive, the block is charged to the [`Budget`] of its stream.
#[derive(Clone)]
pub struct UnitBatch {
    block: Bytes,
    first_seq: u64,
    index: Index,
    text: Checked,
}

/// Whether a block is UTF-8, once anyone has asked.
#[derive(Default)]
struct Checked(AtomicU8);

impl Checked {
    const UNKNOWN: u8 = 0;
    const VALID: u8 = 1;
    const INVALID: u8 = 2;

    /// Whether `block`, which is always the same, is UTF-8.
    #[inline]
    fn is_text(&self, block: &[u8]) -> bool {
        // Relaxed: the block was there before the flag, and who finds no answer looks for itself.
        match self.0.load(Ordering::Relaxed) {
            Self::UNKNOWN => self.check(block),
            known => known == Self::VALID,
        }
    }

    fn check(&self, block: &[u8]) -> bool {
        let is_text = simdutf8::basic::from_utf8(block).is_ok();
        self.0.store(if is_text { Self::VALID } else { Self::INVALID }, Ordering::Relaxed);
        is_text
    }
}

impl Clone for Checked {
    fn clone(&self) -> Self {
        Self(AtomicU8::new(self.0.load(Ordering::Relaxed)))
    }
}

/// How many units a batch holds without an index of its own. A chunk of 1400 bytes has no more events of a chat than that.
const FEW: usize = 5;

/// Where the units of a batch lie.
#[derive(Clone)]
enum Index {
    /// A few units of which nothing but the kind is known, as in most batches of a stream from a network: nothing is shared.
    Few {
        kind: UnitKind,
        len: u8,
        spans: [Span; FEW],
    },
    /// One unit with all that is known of it, but for a label that stands in an earlier block.
    One(Span, Detail),
    Many(Shared),
}

/// The index of a batch in memory that its stream uses again once all clones of the batch are gone.
struct Shared(Arc<Slot>);

/// See [`Slots`].
struct Slot {
    cuts: Cuts,
    charge: Option<Charge>,
    /// Handles of batches, as opposed to the stream's own; counted only where there is a charge, which the last one gives back.
    users: AtomicUsize,
    /// The batch that this is a part of, for its charge.
    _whole: Option<Box<UnitBatch>>,
}

impl UnitBatch {
    /// How many units it holds; at least one.
    #[must_use]
    #[expect(clippy::len_without_is_empty, reason = "a batch is never empty")]
    pub fn len(&self) -> usize {
        match &self.index {
            Index::Few { len, .. } => usize::from(*len),
            Index::One(..) => 1,
            Index::Many(shared) => shared.0.cuts.len(),
        }
    }

    /// The sequence number of its first unit; the others follow without a gap.
    #[must_use]
    pub fn first_sequence(&self) -> u64 {
        self.first_seq
    }

    /// The bytes that the units lie in, with whatever stands between them.
    #[must_use]
    pub fn block(&self) -> &Bytes {
        &self.block
    }

    /// The unit at `index`, counted from 0.
    #[must_use]
    pub fn get(&self, index: usize) -> Option<Unit<'_>> {
        (index < self.len()).then_some(Unit { batch: self, index })
    }

    /// The same units with other numbers.
    pub(crate) fn renumbered(mut self, first_seq: u64) -> Self {
        self.first_seq = first_seq;
        self
    }

    /// Without its first `units`, of which there are fewer than it has.
    pub(crate) fn without_first(self, units: usize) -> Self {
        if units == 0 {
            return self;
        }
        let mut cuts = Cuts::default();
        for index in units..self.len() {
            cuts.push_detailed(self.detail(index), &self.span(index));
        }
        cuts.carry(Bytes::copy_from_slice(self.carried()));
        if let Index::Many(shared) = &self.index {
            cuts.replaced.clone_from(&shared.0.cuts.replaced);
        }
        let (block, first_seq) = (self.block.clone(), self.first_seq + units as u64);
        Self::with_index(block, cuts, first_seq, Some(Box::new(self)))
    }

    /// Units that were recorded, and lie in the record.
    #[cfg(feature = "journal")]
    pub(crate) fn recorded(block: Bytes, cuts: Cuts, first_seq: u64) -> Self {
        Self::with_index(block, cuts, first_seq, None)
    }

    fn with_index(block: Bytes, cuts: Cuts, first_seq: u64, whole: Option<Box<Self>>) -> Self {
        let slot = Slot { cuts, charge: None, users: AtomicUsize::new(1), _whole: whole };
        Self { block, first_seq, index: Index::Many(Shared(Arc::new(slot))), text: Checked::default() }
    }

    fn span(&self, index: usize) -> Range<usize> {
        match &self.index {
            Index::Few { spans, .. } => spans[index].range(),
            Index::One(span, _) => span.range(),
            Index::Many(shared) => shared.0.cuts.spans[index].range(),
        }
    }

    fn detail(&self, index: usize) -> Detail {
        match &self.index {
            Index::Few { kind, .. } => Detail::plain(*kind),
            Index::One(_, detail) => *detail,
            Index::Many(shared) => shared.0.cuts.detail(index),
        }
    }

    fn replaced(&self, range: Range<u32>) -> &[u8] {
        match &self.index {
            Index::Few { .. } | Index::One(..) => &[],
            Index::Many(shared) => &shared.0.cuts.replaced[range.start as usize..range.end as usize],
        }
    }

    fn carried(&self) -> &[u8] {
        match &self.index {
            Index::Few { .. } | Index::One(..) => &[],
            Index::Many(shared) => &shared.0.cuts.carried,
        }
    }

    /// The units in order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = Unit<'_>> + DoubleEndedIterator {
        (0..self.len()).map(|index| Unit { batch: self, index })
    }

    /// The units in order, each keeping the batch alive.
    pub fn into_units(self) -> impl ExactSizeIterator<Item = OwnedUnit> {
        (0..self.len()).map(move |index| OwnedUnit { batch: self.clone(), index })
    }
}

/// The stream's side of the batches: makes them, and uses the memory of the last one's index again if nobody has it any more.
#[derive(Default)]
pub(crate) struct Slots {
    last: Option<Arc<Slot>>,
}

impl Slots {
    /// A batch of the units in `cuts`, which is left empty.
    #[inline]
    pub(crate) fn batch(
        &mut self,
        block: Bytes,
        cuts: &mut Cuts,
        first_seq: u64,
        budget: Option<&Budget>,
    ) -> UnitBatch {
        if budget.is_none()
            && let Some(spans) = few(cuts)
        {
            let (kind, len) = (cuts.plain, cuts.spans.len() as u8);
            cuts.clear();
            let index = Index::Few { kind, len, spans };
            return UnitBatch { block, first_seq, index, text: Checked::default() };
        }
        let index = match (&cuts.spans[..], &cuts.details[..]) {
            ([span], [detail]) if budget.is_none() && cuts.has_no_labels() => Index::One(*span, *detail),
            _ => Index::Many(self.shared(cuts, budget.map(|budget| budget.charge(block.len())))),
        };
        cuts.clear();
        UnitBatch { block, first_seq, index, text: Checked::default() }
    }

    fn shared(&mut self, cuts: &mut Cuts, charge: Option<Charge>) -> Shared {
        let free = self.last.as_mut().and_then(Arc::get_mut);
        let Some(slot) = free else {
            let users = AtomicUsize::new(1);
            let slot = Slot { cuts: std::mem::take(cuts), charge, users, _whole: None };
            return Shared(self.last.insert(Arc::new(slot)).clone());
        };
        std::mem::swap(&mut slot.cuts, cuts);
        (slot.charge, slot.users) = (charge, AtomicUsize::new(1));
        Shared(self.last.as_ref().expect("it was free").clone())
    }
}

/// The places of so few units, if they are and nothing is known of them but their kind.
#[inline]
fn few(cuts: &Cuts) -> Option<[Span; FEW]> {
    let none = Span { start: 0, end: 0 };
    match cuts.spans[..] {
        _ if !cuts.details.is_empty() => None,
        [a] => Some([a, none, none, none, none]),
        [a, b] => Some([a, b, none, none, none]),
        [a, b, c] => Some([a, b, c, none, none]),
        [a, b, c, d] => Some([a, b, c, d, none]),
        [a, b, c, d, e] => Some([a, b, c, d, e]),
        _ => None,
    }
}

impl fmt::Debug for Slots {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Slots").field("has_one", &self.last.is_some()).finish()
    }
}

impl Clone for Shared {
    fn clone(&self) -> Self {
        if self.0.charge.is_some() {
            // Whoever clones has a handle, so that the count is not zero and nothing has to be seen by others yet.
            self.0.users.fetch_add(1, Ordering::Relaxed);
        }
        Self(self.0.clone())
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        // The stream's own handle lives on, and does not count. AcqRel: the last one sees all that the others did.
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

/// One unit of a batch, borrowed.
#[derive(Clone, Copy)]
pub struct Unit<'a> {
    batch: &'a UnitBatch,
    index: usize,
}

impl<'a> Unit<'a> {
    /// What it is.
    #[must_use]
    pub fn kind(&self) -> UnitKind {
        self.detail().kind
    }

    /// Its number in the stream, counted from 0 unless [`Pull::starting_at`](crate::Pull::starting_at) said otherwise.
    #[must_use]
    pub fn sequence(&self) -> u64 {
        self.batch.first_seq.saturating_add(self.index as u64)
    }

    /// Whether its end was seen. A unit that the end of the stream or its cap cut off is not complete.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.detail().complete
    }

    /// Whether it goes on where the unit before it was split at the cap.
    #[must_use]
    pub fn is_continued(&self) -> bool {
        self.detail().continued
    }

    /// Its content: a slice of the block without a copy, unless the content is not contiguous there (a code block with an indented
    /// fence, an event with several `data` lines), which is put together on each call.
    #[must_use]
    pub fn bytes(&self) -> Bytes {
        match self.content() {
            Cow::Borrowed(slice) => self.batch.block.slice_ref(slice),
            Cow::Owned(built) => built.into(),
        }
    }

    /// Its content, borrowed where it is contiguous.
    #[must_use]
    #[inline]
    pub fn content(&self) -> Cow<'a, [u8]> {
        let raw = &self.batch.block[self.batch.span(self.index)];
        self.detail().form.apply(raw)
    }

    /// Its content as text.
    ///
    /// # Errors
    /// If the content is not UTF-8. The stream itself never cuts a character.
    pub fn text(&self) -> Result<Cow<'a, str>, Utf8Error> {
        Ok(match self.content() {
            Cow::Borrowed(slice) => Cow::Borrowed(self.checked(slice)?),
            Cow::Owned(built) => Cow::Owned(String::from_utf8(built).map_err(|error| error.utf8_error())?),
        })
    }

    /// A slice of the block as text. The block is checked as a whole, and once, which takes half the time where units are short.
    #[inline]
    fn checked(&self, slice: &'a [u8]) -> Result<&'a str, Utf8Error> {
        let block = self.batch.block();
        let end = self.batch.span(self.index).end;
        let starts = |byte: Option<&u8>| byte.is_none_or(|byte| byte & 0xC0 != 0x80);
        if starts(slice.first()) && starts(block.get(end)) && self.batch.text.is_text(block) {
            // SAFETY: the block is UTF-8, and the slice of it begins and ends where characters do.
            return Ok(unsafe { std::str::from_utf8_unchecked(slice) });
        }
        std::str::from_utf8(slice)
    }

    /// Of a file: its path exactly as the answer gives it, so possibly absolute or with `..` in it.
    #[must_use]
    pub fn path(&self) -> Option<&'a str> {
        (self.kind() == UnitKind::File).then(|| self.text_of(self.detail().first)).flatten()
    }

    /// Of an edit, a diff or a refused file: the path of the file that it is about, where the answer names one, exactly as it does.
    #[must_use]
    pub fn edited_path(&self) -> Option<&'a str> {
        let is_about = matches!(self.kind(), UnitKind::Edit | UnitKind::Diff | UnitKind::Ambiguous);
        is_about.then(|| self.text_of(self.detail().first)).flatten()
    }

    /// Of a code block or file: the language that its info string names.
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

    /// Of a code block or file: its info string, trimmed; escapes are left as they are.
    #[must_use]
    pub fn info(&self) -> Option<&'a str> {
        let has_fence = matches!(
            self.kind(),
            UnitKind::Code | UnitKind::File | UnitKind::Edit | UnitKind::Diff | UnitKind::Ambiguous
        );
        has_fence.then(|| self.text_of(self.detail().second)).flatten()
    }

    /// Of an event: its type; `message` where it named none, and with U+FFFD for what is not UTF-8, as the standard has it.
    #[must_use]
    pub fn event(&self) -> Option<&'a str> {
        (self.kind() == UnitKind::Event).then(|| self.text_of(self.detail().first).unwrap_or("message"))
    }

    /// Of an event: the last event id of the stream at that point, where any event so far gave one; with U+FFFD for what is not UTF-8.
    #[must_use]
    pub fn id(&self) -> Option<&'a str> {
        (self.kind() == UnitKind::Event).then(|| self.text_of(self.detail().second)).flatten()
    }

    /// The same unit, keeping its batch alive.
    #[must_use]
    pub fn to_owned_unit(&self) -> OwnedUnit {
        OwnedUnit { batch: self.batch.clone(), index: self.index }
    }

    /// Path or type, and info string or id, whichever its kind has.
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

/// One unit that keeps its batch alive, and with it the batch's share of the [`Budget`].
#[derive(Clone)]
pub struct OwnedUnit {
    batch: UnitBatch,
    index: usize,
}

impl OwnedUnit {
    /// The unit itself.
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

/// A range of a block, in half the memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Span {
    start: u32,
    end: u32,
}

const _: () = assert!(size_of::<Span>() == 8, "a line costs eight bytes");

impl Span {
    pub(crate) fn new(range: &Range<usize>) -> Self {
        let narrow = |offset: usize| u32::try_from(offset).expect("a window is shorter than 4 GiB");
        Self { start: narrow(range.start), end: narrow(range.end) }
    }

    pub(crate) fn range(self) -> Range<usize> {
        self.start as usize..self.end as usize
    }
}

/// Where a label of a unit stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Label(Span);

impl Label {
    pub(crate) const NONE: Self = Self(Span { start: u32::MAX, end: u32::MAX });
    pub(crate) const CARRIED: Self = Self(Span { start: u32::MAX, end: 0 });

    pub(crate) fn new(range: Option<Range<usize>>) -> Self {
        range.map_or(Self::NONE, |range| Self(Span::new(&range)))
    }

    /// One that stands in [`Cuts::replaced`]; it is not empty, and its ends are swapped to tell it from others.
    pub(crate) fn replaced(range: &Range<usize>) -> Self {
        debug_assert!(!range.is_empty(), "a label that was decoded has a character at least");
        let Span { start, end } = Span::new(range);
        Self(Span { start: end, end: start })
    }
}

/// Whatever is known of a unit beyond its span.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Detail {
    pub(crate) kind: UnitKind,
    pub(crate) form: Form,
    pub(crate) complete: bool,
    pub(crate) continued: bool,
    /// Path of a file, or type of an event.
    pub(crate) first: Label,
    /// Info string of a code block, or id of an event.
    pub(crate) second: Label,
}

impl Detail {
    pub(crate) const fn plain(kind: UnitKind) -> Self {
        Self {
            kind,
            form: Form::Plain,
            complete: true,
            continued: false,
            first: Label::NONE,
            second: Label::NONE,
        }
    }
}

/// How the content of a unit lies in the block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    /// As it is.
    Plain,
    /// With what stands in front of its content to be taken from each line; the first line may have lost it already.
    Framed { prefix: Prefix, at_line_start: bool },
    /// As the value of a first `data` line, then whole lines of which the `data` values count.
    DataLines,
}

impl Form {
    #[inline]
    fn apply(self, raw: &[u8]) -> Cow<'_, [u8]> {
        match self {
            Self::Plain => Cow::Borrowed(raw),
            Self::Framed { prefix, at_line_start } => {
                Cow::Owned(without_prefixes(raw, prefix, at_line_start))
            }
            Self::DataLines => Cow::Owned(join_data_lines(raw)),
        }
    }
}

/// Takes off each line what stands in front of its content.
fn without_prefixes(raw: &[u8], prefix: Prefix, mut at_line_start: bool) -> Vec<u8> {
    let mut out = Vec::with_capacity(raw.len());
    for line in raw.split_inclusive(|&byte| byte == b'\n') {
        // A lone CR ends a line too, but not the one that a CRLF begins with.
        for part in split_after_lone_cr(line) {
            if at_line_start {
                prefix.strip(part, &mut out);
            } else {
                out.extend_from_slice(part);
            }
            at_line_start = true;
        }
    }
    out
}

fn split_after_lone_cr(line: &[u8]) -> impl Iterator<Item = &[u8]> {
    let body = line.strip_suffix(b"\r\n").map_or(line.len(), <[u8]>::len);
    let mut rest = Some(line);
    std::iter::from_fn(move || {
        let now = rest.take().filter(|now| !now.is_empty())?;
        let start = line.len() - now.len();
        let cr = line[start..body.max(start)].iter().position(|&byte| byte == b'\r');
        let (part, left) = now.split_at(cr.map_or(now.len(), |cr| cr + 1));
        rest = Some(left);
        Some(part)
    })
}

fn join_data_lines(raw: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(raw.len());
    // CRLF gives an empty line between CR and LF, which is no `data` line and so does no harm.
    let mut lines = raw.split(|&byte| byte == b'\n' || byte == b'\r');
    out.extend_from_slice(lines.next().unwrap_or_default());
    for line in lines {
        let Some(rest) = line.strip_prefix(b"data") else { continue };
        let value = match rest {
            [] => rest,
            [b':', b' ', value @ ..] | [b':', value @ ..] => value,
            _ => continue,
        };
        out.push(b'\n');
        out.extend_from_slice(value);
    }
    out
}
