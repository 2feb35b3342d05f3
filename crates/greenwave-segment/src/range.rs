//! Ordered iteration over a range of keys.
//!
//! The index is a hash table, so that a put costs no search. An iterator therefore reads its keys
//! page by page: each page takes one pass over the index, which copies the keys up to one that a
//! random sample of all keys estimates to end the page.

use std::collections::VecDeque;
use std::fmt;
use std::ops::{Bound, RangeBounds};

use bytes::Bytes;

use crate::Error;
use crate::index::Index;
use crate::inner::Inner;
use crate::read::Reader;

/// Number of keys up to which a log is read in one page.
const PAGE_KEYS_MIN: usize = 4_096;
/// Number of keys in the sample. A narrow range contains few of them.
const SAMPLE_KEYS: usize = 4_096;
/// Number of pages of a scan of all keys, if there are enough.
const PAGES: usize = 64;

type Bounds = (Bound<Vec<u8>>, Bound<Vec<u8>>);

/// The keys of a [`Range`], without their values.
pub struct Keys<'l> {
    inner: &'l Inner,
    /// The part of the range that has not been read, if any.
    rest: Option<Bounds>,
    /// Keys before and after that part, sorted.
    front: VecDeque<Vec<u8>>,
    back: VecDeque<Vec<u8>>,
}

/// The keys of a range in order, with their values. Returned by [`Log::range`](crate::Log::range)
/// and [`Log::prefix`](crate::Log::prefix).
///
/// A key that the log has from the first call to the last is returned once. A key that is put or
/// removed meanwhile may be returned or not. Each value is the newest at the time of its call.
pub struct Range<'l>(Keys<'l>);

impl<'l> Keys<'l> {
    pub(crate) fn new<K: AsRef<[u8]> + ?Sized>(inner: &'l Inner, range: &impl RangeBounds<K>) -> Self {
        let owned = |bound: Bound<&K>| bound.map(|key| key.as_ref().to_vec());
        let rest = Some((owned(range.start_bound()), owned(range.end_bound())));
        Self { inner, rest, front: VecDeque::new(), back: VecDeque::new() }
    }

    pub(crate) fn with_prefix(inner: &'l Inner, prefix: &[u8]) -> Self {
        let end = after_prefix(prefix).map_or(Bound::Unbounded, Bound::Excluded);
        let rest = Some((Bound::Included(prefix.to_vec()), end));
        Self { inner, rest, front: VecDeque::new(), back: VecDeque::new() }
    }

    /// Reads the first keys of the rest, or the last ones. The lock of the index is held for one
    /// pass over it.
    fn read_page(&mut self, end: End) -> VecDeque<Vec<u8>> {
        let Some((mut from, mut to)) = self.rest.take() else { return VecDeque::new() };
        let index = self.inner.index.read();
        if let Some(last) = last_of_page(&index, (slice(&from), slice(&to)), end) {
            self.rest = Some(match end {
                End::Front => {
                    (Bound::Excluded(last.clone()), std::mem::replace(&mut to, Bound::Included(last)))
                }
                End::Back => {
                    (std::mem::replace(&mut from, Bound::Included(last.clone())), Bound::Excluded(last))
                }
            });
        }
        let range = (slice(&from), slice(&to));
        let keys = index.live_keys().filter(|key| RangeBounds::<[u8]>::contains(&range, *key));
        let mut keys: Vec<Vec<u8>> = keys.map(<[u8]>::to_vec).collect();
        drop(index);
        keys.sort_unstable();
        keys.into()
    }
}

/// The end of a range at which a page is read.
#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    Front,
    Back,
}

/// Returns the key at which a page of a range ends; `None` if the page is the whole range.
fn last_of_page(index: &Index, range: (Bound<&[u8]>, Bound<&[u8]>), end: End) -> Option<Vec<u8>> {
    let places = index.places();
    if places <= PAGE_KEYS_MIN {
        return None;
    }
    let sample = (0..SAMPLE_KEYS as u64).filter_map(|number| index.live_key_at(place(number, places)));
    let mut sample: Vec<&[u8]> = sample.filter(|key| RangeBounds::<[u8]>::contains(&range, *key)).collect();
    sample.sort_unstable();
    sample.dedup();
    // With few keys in the sample, two pages would be as inexact as one is large.
    let in_page = (SAMPLE_KEYS / PAGES).max(SAMPLE_KEYS.saturating_mul(PAGE_KEYS_MIN) / places);
    let at = match end {
        _ if sample.len() <= 2 * in_page => return None,
        End::Front => in_page,
        End::Back => sample.len() - 1 - in_page,
    };
    sample.get(at).map(|key| key.to_vec())
}

/// Returns a place of the index for a key of the sample, by the generator SplitMix64 (Steele, Lea
/// and Flood, 2014).
fn place(number: u64, places: usize) -> usize {
    let mut hash = (number + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    hash = (hash ^ (hash >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    hash = (hash ^ (hash >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    ((hash ^ (hash >> 31)) % places.max(1) as u64) as usize
}

impl Iterator for Keys<'_> {
    type Item = Vec<u8>;

    fn next(&mut self) -> Option<Vec<u8>> {
        if self.front.is_empty() {
            self.front = self.read_page(End::Front);
        }
        self.front.pop_front().or_else(|| self.back.pop_front())
    }
}

impl DoubleEndedIterator for Keys<'_> {
    fn next_back(&mut self) -> Option<Vec<u8>> {
        if self.back.is_empty() {
            self.back = self.read_page(End::Back);
        }
        self.back.pop_back().or_else(|| self.front.pop_back())
    }
}

impl<'l> Range<'l> {
    pub(crate) fn new(keys: Keys<'l>) -> Self {
        Self(keys)
    }

    /// Returns the keys alone, which reads no values.
    #[must_use]
    pub fn keys(self) -> Keys<'l> {
        self.0
    }

    /// Reads the value of a key; `None` if it was removed meanwhile.
    fn read(&self, key: Vec<u8>) -> Option<Result<(Vec<u8>, Bytes), Error>> {
        let value = Reader::new(self.0.inner).get(&key).transpose()?;
        Some(value.map(|value| (key, value)))
    }
}

impl Iterator for Range<'_> {
    type Item = Result<(Vec<u8>, Bytes), Error>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let key = self.0.next()?;
            if let Some(entry) = self.read(key) {
                return Some(entry);
            }
        }
    }
}

impl DoubleEndedIterator for Range<'_> {
    fn next_back(&mut self) -> Option<Self::Item> {
        loop {
            let key = self.0.next_back()?;
            if let Some(entry) = self.read(key) {
                return Some(entry);
            }
        }
    }
}

impl fmt::Debug for Keys<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Keys").field("rest", &self.rest).finish_non_exhaustive()
    }
}

impl fmt::Debug for Range<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Range").field(&self.0).finish()
    }
}

fn slice(bound: &Bound<Vec<u8>>) -> Bound<&[u8]> {
    bound.as_ref().map(Vec::as_slice)
}

/// Returns the first key after those with a prefix; `None` after a prefix of bytes 255 only.
fn after_prefix(prefix: &[u8]) -> Option<Vec<u8>> {
    let (at, last) = prefix.iter().enumerate().rfind(|(_, byte)| **byte < u8::MAX)?;
    Some([&prefix[..at], &[*last + 1]].concat())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_a_prefix_is_the_next_key_of_its_length_or_less() {
        for (prefix, end) in [
            (&b"ab"[..], Some(&b"ac"[..])),
            (b"a\xff", Some(b"b")),
            (b"\xff\xff", None),
            (b"", None),
            (b"\x00", Some(b"\x01")),
        ] {
            assert_eq!(after_prefix(prefix).as_deref(), end);
        }
    }
}
