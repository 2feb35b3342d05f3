//! The suite that every splitter passes, for authors of splitters. Knows nothing of any splitter.
//!
//! ```
//! # #[cfg(test)]
//! mod lines {
//!     greenwave_streaming::splitter_conformance! {
//!         || greenwave_streaming::Lines::default(),
//!         [b"one\ntwo".as_slice(), b"", "ä\r\nö\r".as_bytes()]
//!     }
//! }
//! ```

use bytes::Bytes;

use crate::error::Error;
use crate::splitter::Splitter;
use crate::splitting::Splitting;
use crate::unit::{Kind, Unit, UnitBatch};

/// Emits one `#[test]` per promise of [`Splitter`], for a closure that makes the splitter and inputs that exercise it.
#[macro_export]
macro_rules! splitter_conformance {
    ($make:expr, $inputs:expr $(,)?) => {
        #[test]
        fn any_chunking_gives_the_same_units() {
            for input in $inputs {
                $crate::conformance::any_chunking($make, input.as_ref());
            }
        }

        #[test]
        fn characters_stay_whole() {
            for input in $inputs {
                $crate::conformance::characters_stay_whole($make, input.as_ref());
            }
        }

        #[test]
        fn units_are_numbered_without_gaps() {
            for input in $inputs {
                $crate::conformance::numbered($make, input.as_ref());
            }
        }

        #[test]
        fn an_empty_stream_has_no_units() {
            $crate::conformance::empty($make);
        }
    };
}

/// Everything that can be seen of a unit, to compare.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// [`Unit::kind`].
    pub kind: Kind,
    /// [`Unit::bytes`].
    pub bytes: Bytes,
    /// [`Unit::path`].
    pub path: Option<String>,
    /// [`Unit::info`].
    pub info: Option<String>,
    /// [`Unit::event`].
    pub event: Option<String>,
    /// [`Unit::id`].
    pub id: Option<String>,
    /// [`Unit::is_complete`].
    pub complete: bool,
    /// [`Unit::is_continued`].
    pub continued: bool,
}

impl From<Unit<'_>> for Seen {
    fn from(unit: Unit<'_>) -> Self {
        Self {
            kind: unit.kind(),
            bytes: unit.bytes(),
            path: unit.path().map(str::to_owned),
            info: unit.info().map(str::to_owned),
            event: unit.event().map(str::to_owned),
            id: unit.id().map(str::to_owned),
            complete: unit.is_complete(),
            continued: unit.is_continued(),
        }
    }
}

/// The units of `chunks` and the error that ended them, if one did.
pub fn units<'a>(
    splitter: impl Splitter,
    chunks: impl IntoIterator<Item = &'a [u8]>,
) -> (Vec<Seen>, Option<Error>) {
    let mut splitting = Splitting::new(splitter);
    let mut seen = Vec::new();
    for chunk in chunks {
        match splitting.feed(Bytes::copy_from_slice(chunk)) {
            Ok(batch) => seen.extend(batch.iter().flat_map(|batch| batch.iter().map(Seen::from))),
            Err(error) => return (seen, Some(error)),
        }
    }
    match splitting.finish() {
        Ok(batch) => seen.extend(batch.iter().flat_map(|batch| batch.iter().map(Seen::from))),
        Err(error) => return (seen, Some(error)),
    }
    (seen, splitting.take_failure())
}

/// Promise: the units, and the error, depend on the bytes alone. Tries bytes one by one, every cut in two, and 32 random chunkings.
pub fn any_chunking<S: Splitter>(make: impl Fn() -> S, input: &[u8]) {
    let expected = units(make(), [input]);
    let check = |sizes: &mut dyn FnMut() -> usize, what: &str| {
        let found = units(make(), chunked(input, sizes));
        assert_eq!(
            format!("{found:#?}"),
            format!("{expected:#?}"),
            "{what} of {:?}",
            input.escape_ascii().to_string()
        );
    };
    check(&mut || 1, "bytes one by one");
    for at in (1..input.len()).step_by(input.len().div_ceil(256).max(1)) {
        let mut sizes = [at, input.len() - at].into_iter();
        check(&mut || sizes.next().unwrap_or(1), &format!("cut at {at}"));
    }
    for seed in 0..32 {
        let mut state = seed;
        check(&mut || 1 + (next_random(&mut state) % 7) as usize, &format!("chunking {seed}"));
    }
}

/// Promise: the units of well-formed UTF-8 are well-formed UTF-8.
pub fn characters_stay_whole<S: Splitter>(make: impl Fn() -> S, input: &[u8]) {
    if std::str::from_utf8(input).is_err() {
        return;
    }
    for unit in units(make(), chunked(input, &mut || 1)).0 {
        assert!(
            std::str::from_utf8(&unit.bytes).is_ok(),
            "{unit:?} of {:?}",
            input.escape_ascii().to_string()
        );
    }
}

/// Promise: sequence numbers have no gap, across batches.
pub fn numbered<S: Splitter>(make: impl Fn() -> S, input: &[u8]) {
    let mut splitting = Splitting::new(make()).starting_at(7);
    let mut expected = 7;
    for chunk in chunked(input, &mut || 3) {
        let Ok(batch) = splitting.feed(Bytes::copy_from_slice(chunk)) else { return };
        for unit in batch.iter().flat_map(UnitBatch::iter) {
            assert_eq!(unit.sequence(), expected);
            expected += 1;
        }
    }
    assert_eq!(splitting.next_sequence(), expected);
}

/// Promise: a stream without bytes has no units and no error.
pub fn empty<S: Splitter>(make: impl Fn() -> S) {
    let (seen, error) = units(make(), []);
    assert!(seen.is_empty() && error.is_none(), "{seen:?} {error:?}");
}

/// `input` in chunks of the sizes that `sizes` gives.
pub fn chunked<'a>(input: &'a [u8], sizes: &mut dyn FnMut() -> usize) -> Vec<&'a [u8]> {
    let mut rest = input;
    let mut chunks = Vec::new();
    while !rest.is_empty() {
        let (chunk, left) = rest.split_at(sizes().clamp(1, rest.len()));
        chunks.push(chunk);
        rest = left;
    }
    chunks
}

/// SplitMix64: a seed is enough, and no dependency.
fn next_random(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let mut mixed = *state;
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    mixed ^ (mixed >> 31)
}
