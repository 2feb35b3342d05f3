//! Defines the `Splitter` trait, unit caps and the errors of splitters.

mod changed_path;
mod delimited;
mod element;
mod fences;
pub(crate) mod info;
mod json;
mod language;
mod line_ends;
mod lines;
mod paragraphs;
mod path;
mod sentences;
mod sse;
mod structure;

use std::fmt::Debug;
use std::ops::Range;

pub use delimited::Delimited;
pub use fences::{Fences, Files};
pub use json::Json;
pub use lines::Lines;
pub use paragraphs::Paragraphs;
pub use sentences::Sentences;
pub use sse::Sse;

use crate::cut::{Cut, Cuts};
use crate::error::Error;

/// Largest cap of a unit, in bytes. Offsets inside a batch have 32 bits.
pub const UNIT_BYTES_MAX: usize = 1 << 30;

/// An incremental state machine that finds the units of a byte stream.
///
/// The caller owns the bytes. It passes a *window*: the bytes that the splitter has not released
/// yet, followed by the new bytes. The splitter reports units as ranges of the window and returns
/// how many bytes at its front it no longer needs.
///
/// # Contract
///
/// - `scan` reports, in order, all units that are certain after the bytes seen so far, and returns
///   the number of bytes at the front of `window` to release. That number covers every range
///   reported in this call. The next window starts right after the released bytes.
/// - `window[..fresh]` was in the previous window. A splitter reads those bytes again only where a
///   unit ends.
/// - The units depend on the bytes alone, never on where the windows end.
/// - The bytes that a splitter leaves in the window are bounded by its cap (twice the cap, plus a
///   few kilobytes).
/// - A unit never ends inside a character of valid UTF-8, unless the format itself ends it there.
/// - `finish` is called at most once, after the last `scan`, with the rest of the window. It
///   reports the open unit, marked as [incomplete](Cut::incomplete) if its end was not seen.
/// - After a [`SplitError`] the splitter is not called again. Units reported before the error are
///   valid.
/// - No call blocks or panics, for any input.
///
/// The suite in `conformance` (feature) checks this. `examples/custom_splitter.rs` is a template.
pub trait Splitter: Debug + Send + 'static {
    /// Scans `window[fresh..]` and returns how many bytes at the front of the window to release.
    fn scan(&mut self, window: &[u8], fresh: usize, out: &mut Cuts) -> Result<usize, SplitError>;

    /// Reports the open unit at the end of the stream. `window` holds the bytes that `scan` did not
    /// release.
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

/// The maximum length of a unit, and the behavior for longer units.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cap {
    bytes_max: usize,
    overflow: Overflow,
}

/// The behavior for a unit that is longer than its cap.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Overflow {
    /// The stream fails.
    #[default]
    Error,
    /// The unit is split. All pieces but the last are incomplete, all but the first are continued,
    /// and only the first has the labels (path, info string).
    Split,
}

impl Default for Cap {
    /// 1 MiB; a longer unit is an error.
    fn default() -> Self {
        Self::error(1 << 20)
    }
}

impl Cap {
    /// Creates a cap beyond which a unit is an error. `bytes_max` is clamped to between 4 bytes
    /// (the longest character) and [`UNIT_BYTES_MAX`].
    #[must_use]
    pub const fn error(bytes_max: usize) -> Self {
        Self::new(bytes_max, Overflow::Error)
    }

    /// Creates a cap beyond which a unit is split. `bytes_max` is clamped as in [`Cap::error`].
    #[must_use]
    pub const fn split(bytes_max: usize) -> Self {
        Self::new(bytes_max, Overflow::Split)
    }

    /// Returns the cap in bytes.
    #[must_use]
    pub const fn bytes_max(self) -> usize {
        self.bytes_max
    }

    /// Returns the behavior for longer units.
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

    /// Returns the end of the next piece of the oversized `body`, or an error.
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

    /// Splits pieces off the front of `body` until the rest is within the cap; returns where the
    /// rest starts.
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

/// Returns the last character boundary in `start+1..=at`, or `at` if the bytes are not UTF-8.
fn char_floor(window: &[u8], start: usize, at: usize) -> usize {
    let is_boundary = |&i: &usize| window[i] & 0xC0 != 0x80;
    (at.saturating_sub(3).max(start + 1)..=at).rev().find(is_boundary).unwrap_or(at)
}

/// An error found by a splitter. Offsets count from the start of the window.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SplitError {
    at: usize,
    kind: SplitErrorKind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum SplitErrorKind {
    TooLong { bytes_max: usize },
    TooDeep { depth_max: usize },
    Malformed { expected: &'static str },
}

impl SplitError {
    /// Reports that the unit that starts at `at` exceeds its cap.
    #[must_use]
    pub const fn too_long(at: usize, bytes_max: usize) -> Self {
        Self { at, kind: SplitErrorKind::TooLong { bytes_max } }
    }

    /// Reports that the nesting level that opens at `at` exceeds the cap.
    #[must_use]
    pub const fn too_deep(at: usize, depth_max: usize) -> Self {
        Self { at, kind: SplitErrorKind::TooDeep { depth_max } }
    }

    /// Reports that the bytes at `at` differ from those `expected`.
    #[must_use]
    pub const fn malformed(at: usize, expected: &'static str) -> Self {
        Self { at, kind: SplitErrorKind::Malformed { expected } }
    }

    /// Converts to a stream error; the window starts at `base` in the stream.
    pub(crate) fn at_base(self, base: u64) -> Error {
        let offset = base + self.at as u64;
        match self.kind {
            SplitErrorKind::TooLong { bytes_max } => Error::UnitTooLong { offset, bytes_max },
            SplitErrorKind::TooDeep { depth_max } => Error::TooDeep { offset, depth_max },
            SplitErrorKind::Malformed { expected } => Error::Malformed { offset, expected },
        }
    }
}
