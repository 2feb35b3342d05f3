//! Decides where the units of a new attempt continue those of the previous one.

use std::collections::VecDeque;

use bytes::Bytes;

use crate::layout::UnitKind;
use crate::resume::source::ResumeStrategy;
use crate::unit::{Unit, UnitBatch};

/// The properties by which a repeated unit is recognized.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct UnitTrace {
    kind: UnitKind,
    label: Option<Box<str>>,
    pub(super) bytes: Bytes,
}

impl UnitTrace {
    /// Copies the content, so that no block stays alive.
    pub(super) fn of(unit: &Unit<'_>) -> Self {
        let label = unit.path().or(unit.event()).map(Box::from);
        Self { kind: unit.kind(), label, bytes: Bytes::copy_from_slice(&unit.content()) }
    }
}

/// The state while the first units of an attempt arrive.
#[derive(Debug)]
pub(super) enum Splice {
    /// The attempt is aligned: its next unit is new.
    Aligned,
    /// These units must be repeated first.
    Repeating(VecDeque<UnitTrace>),
    /// Some units of `tail` may be repeated. Batches are held until the number is certain.
    Overlap { tail: Vec<UnitTrace>, held: Vec<UnitBatch> },
}

/// The outcome of splicing a batch.
#[derive(Debug)]
pub(super) enum SpliceResult {
    /// Deliver these batches; `repeated` units before them were skipped.
    Deliver { batches: Vec<UnitBatch>, repeated: usize },
    /// More units are needed.
    Hold,
    /// The attempt does not match the delivered units.
    Mismatch,
}

impl Splice {
    /// Returns the initial state. `tail` holds the last units delivered; the last `since_cursor` of
    /// them follow the last cursor. Returns `None` if `tail` is too short for the strategy.
    pub(super) fn new(
        strategy: ResumeStrategy,
        tail: &VecDeque<UnitTrace>,
        since_cursor: usize,
    ) -> Option<Self> {
        let last = |units: usize| tail.iter().skip(tail.len() - units).cloned();
        match strategy {
            ResumeStrategy::Start | ResumeStrategy::Next => Some(Self::Aligned),
            ResumeStrategy::Cursor if since_cursor == 0 => Some(Self::Aligned),
            ResumeStrategy::Cursor => {
                (since_cursor <= tail.len()).then(|| Self::Repeating(last(since_cursor).collect()))
            }
            ResumeStrategy::Overlap { units_max } => {
                let tail = last(units_max.min(tail.len())).collect();
                Some(Self::Overlap { tail, held: Vec::new() })
            }
        }
    }

    /// Returns whether batches are held until the overlap is decided.
    pub(super) fn holds(&self) -> bool {
        matches!(self, Self::Overlap { .. })
    }

    /// Splices a batch.
    pub(super) fn push(&mut self, batch: UnitBatch) -> SpliceResult {
        match self {
            Self::Aligned => SpliceResult::Deliver { batches: vec![batch], repeated: 0 },
            Self::Repeating(expected) => {
                let same = batch
                    .iter()
                    .zip(&*expected)
                    .take_while(|(unit, trace)| UnitTrace::of(unit) == **trace)
                    .count();
                if same < batch.len().min(expected.len()) {
                    return SpliceResult::Mismatch;
                }
                expected.drain(..same);
                if expected.is_empty() {
                    *self = Self::Aligned;
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

    /// Decides with the units seen, because the attempt has ended.
    pub(super) fn end(&mut self) -> SpliceResult {
        match self {
            Self::Aligned => SpliceResult::Hold,
            // The attempt ended before repeating all units.
            Self::Repeating(_) => SpliceResult::Mismatch,
            Self::Overlap { tail, held } => {
                let decided = overlap(tail, held, true);
                self.settle(decided)
            }
        }
    }

    fn settle(&mut self, decided: Overlap) -> SpliceResult {
        let repeated = match decided {
            Overlap::Undecided => return SpliceResult::Hold,
            Overlap::Ambiguous => return SpliceResult::Mismatch,
            Overlap::Units(units) => units,
        };
        match std::mem::replace(self, Self::Aligned) {
            Self::Overlap { held, .. } => deliver(held, repeated),
            Self::Aligned | Self::Repeating(_) => SpliceResult::Hold,
        }
    }
}

/// Skips the first `repeated` units.
fn deliver(batches: Vec<UnitBatch>, repeated: usize) -> SpliceResult {
    let mut left = repeated;
    let mut new = Vec::new();
    for batch in batches {
        if left >= batch.len() {
            left -= batch.len();
        } else {
            new.push(batch.without_first(left));
            left = 0;
        }
    }
    SpliceResult::Deliver { batches: new, repeated }
}

/// The number of repeated units at the start of an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Overlap {
    Units(usize),
    /// More units are needed.
    Undecided,
    /// Several numbers are possible.
    Ambiguous,
}

/// Finds the lengths at which the end of `tail` equals the start of the new units. Zero is chosen
/// only if no other length is possible.
fn overlap(tail: &[UnitTrace], held: &[UnitBatch], is_end: bool) -> Overlap {
    let units = held.iter().flat_map(UnitBatch::iter).take(tail.len());
    let seen_units: Vec<UnitTrace> = units.map(|unit| UnitTrace::of(&unit)).collect();
    let fits = |units: &usize| {
        let seen = (*units).min(seen_units.len());
        tail[tail.len() - units..][..seen] == seen_units[..seen]
    };
    let mut possible = (1..=tail.len()).filter(fits).filter(|units| !is_end || *units <= seen_units.len());
    match (possible.next(), possible.next()) {
        (None, _) => Overlap::Units(0),
        (Some(units), None) if units <= seen_units.len() => Overlap::Units(units),
        (Some(_), Some(second)) if second <= seen_units.len() => Overlap::Ambiguous,
        _ => Overlap::Undecided,
    }
}
