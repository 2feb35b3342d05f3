//! Where the units of a new attempt meet those of the one before. Pure decisions on units; unaware of sources and time.

use std::collections::VecDeque;

use bytes::Bytes;

use crate::resume::source::ResumeStrategy;
use crate::unit::{Unit, UnitBatch, UnitKind};

/// What of a unit has to be the same for it to be the same.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Trace {
    kind: UnitKind,
    label: Option<Box<str>>,
    pub(super) bytes: Bytes,
}

impl Trace {
    /// Copied, so that it keeps no block of a batch alive.
    pub(super) fn of(unit: &Unit<'_>) -> Self {
        let label = unit.path().or(unit.event()).map(Box::from);
        Self { kind: unit.kind(), label, bytes: Bytes::copy_from_slice(&unit.content()) }
    }
}

/// The state of a seam while the first units of an attempt come in.
#[derive(Debug)]
pub(super) enum Splice {
    /// The next unit is the next unit.
    Joined,
    /// These come again first.
    Again(VecDeque<Trace>),
    /// Some of `tail` may come again. What has come is held until it is certain.
    Overlap { tail: Vec<Trace>, held: Vec<UnitBatch> },
}

/// What becomes of a batch.
#[derive(Debug)]
pub(super) enum SpliceResult {
    /// These are to be handed on; before them, so many units have come again.
    Deliver { batches: Vec<UnitBatch>, repeated: usize },
    /// More has to come first.
    Hold,
    /// The attempt does not fit.
    Mismatch,
}

impl Splice {
    /// The seam of an attempt behind units of which `tail` are the last, `since_cursor` of them after the last cursor; `None` if
    /// that seam cannot be told by so few.
    pub(super) fn new(strategy: ResumeStrategy, tail: &VecDeque<Trace>, since_cursor: usize) -> Option<Self> {
        let last = |units: usize| tail.iter().skip(tail.len() - units).cloned();
        match strategy {
            ResumeStrategy::Start | ResumeStrategy::Next => Some(Self::Joined),
            ResumeStrategy::Cursor if since_cursor == 0 => Some(Self::Joined),
            ResumeStrategy::Cursor => {
                (since_cursor <= tail.len()).then(|| Self::Again(last(since_cursor).collect()))
            }
            ResumeStrategy::Overlap { units_max } => {
                let tail = last(units_max.min(tail.len())).collect();
                Some(Self::Overlap { tail, held: Vec::new() })
            }
        }
    }

    /// Whether batches are held back until it is decided.
    pub(super) fn holds(&self) -> bool {
        matches!(self, Self::Overlap { .. })
    }

    /// Takes in a batch.
    pub(super) fn join(&mut self, batch: UnitBatch) -> SpliceResult {
        match self {
            Self::Joined => SpliceResult::Deliver { batches: vec![batch], repeated: 0 },
            Self::Again(expected) => {
                let same = batch
                    .iter()
                    .zip(&*expected)
                    .take_while(|(unit, trace)| Trace::of(unit) == **trace)
                    .count();
                if same < batch.len().min(expected.len()) {
                    return SpliceResult::Mismatch;
                }
                expected.drain(..same);
                if expected.is_empty() {
                    *self = Self::Joined;
                }
                deliver(vec![batch], same)
            }
            Self::Overlap { tail, held } => {
                held.push(batch);
                let decided = overlap(tail, held, false);
                self.settle(decided)
            }
        }
    }

    /// The attempt has ended well: what is held has to do.
    pub(super) fn end(&mut self) -> SpliceResult {
        match self {
            Self::Joined => SpliceResult::Hold,
            // It ended before all that was there before.
            Self::Again(_) => SpliceResult::Mismatch,
            Self::Overlap { tail, held } => {
                let decided = overlap(tail, held, true);
                self.settle(decided)
            }
        }
    }

    fn settle(&mut self, decided: Overlap) -> SpliceResult {
        let repeated = match decided {
            Overlap::Open => return SpliceResult::Hold,
            Overlap::Ambiguous => return SpliceResult::Mismatch,
            Overlap::Units(units) => units,
        };
        match std::mem::replace(self, Self::Joined) {
            Self::Overlap { held, .. } => deliver(held, repeated),
            Self::Joined | Self::Again(_) => SpliceResult::Hold,
        }
    }
}

/// Leaves out the first units.
fn deliver(batches: Vec<UnitBatch>, repeated: usize) -> SpliceResult {
    let mut left = repeated;
    let mut kept = Vec::new();
    for batch in batches {
        if left >= batch.len() {
            left -= batch.len();
        } else {
            kept.push(batch.without_first(left));
            left = 0;
        }
    }
    SpliceResult::Deliver { batches: kept, repeated }
}

/// How many of the first units were there before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Overlap {
    Units(usize),
    /// More has to be seen.
    Open,
    /// Several numbers would fit.
    Ambiguous,
}

/// The lengths at which the end of `tail` is the beginning of what has come, as far as it has. No overlap is always possible; it is
/// taken where no other is.
fn overlap(tail: &[Trace], held: &[UnitBatch], is_end: bool) -> Overlap {
    let units = held.iter().flat_map(UnitBatch::iter).take(tail.len());
    let come: Vec<Trace> = units.map(|unit| Trace::of(&unit)).collect();
    let fits = |units: &usize| {
        let seen = (*units).min(come.len());
        tail[tail.len() - units..][..seen] == come[..seen]
    };
    let mut possible = (1..=tail.len()).filter(fits).filter(|units| !is_end || *units <= come.len());
    match (possible.next(), possible.next()) {
        (None, _) => Overlap::Units(0),
        (Some(units), None) if units <= come.len() => Overlap::Units(units),
        (Some(_), Some(second)) if second <= come.len() => Overlap::Ambiguous,
        _ => Overlap::Open,
    }
}
