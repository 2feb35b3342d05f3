//! Finds line endings (LF and CR) in windows of any length.

/// Returns the offset of the first LF or CR at or after `from`.
///
/// `memchr` scans fewer than sixteen bytes one by one. Chunks as short as tokens are usually at the
/// end of a longer window. In that case the last sixteen bytes are compared together, and the bytes
/// before `from` are masked out.
#[inline]
pub(super) fn find_end(window: &[u8], from: usize) -> Option<usize> {
    let fresh = window.len() - from;
    if fresh <= 2 * LANES && window.len() >= 2 * LANES {
        return find_in_tail(window, fresh);
    }
    memchr::memchr2(b'\n', b'\r', &window[from..]).map(|i| from + i)
}

/// Searches up to `2 * LANES` bytes at the end of a window that is at least that long.
#[inline]
fn find_in_tail(window: &[u8], fresh: usize) -> Option<usize> {
    let (rest, last) = window.split_last_chunk::<LANES>()?;
    let last_mask = u64::from(ends_of(last));
    let mask = if fresh <= LANES {
        last_mask << LANES
    } else {
        let (_, before) = rest.split_last_chunk::<LANES>()?;
        u64::from(ends_of(before)) | last_mask << LANES
    };
    let fresh_mask = mask >> (2 * LANES - fresh);
    (fresh_mask != 0).then(|| window.len() - fresh + fresh_mask.trailing_zeros() as usize)
}

/// An iterator over all LF and CR at or after `from`, optimized for short lines: 64 bytes are
/// compared together, and their line endings are read from a mask. `memchr` skips blocks without
/// one.
#[derive(Debug)]
pub(super) struct LineEnds<'a> {
    window: &'a [u8],
    /// Start of the block that `mask` describes.
    block: usize,
    /// A bit for each line ending in the block that was not returned yet.
    mask: u64,
    /// Start of the next block.
    next: usize,
}

const LANES: usize = 16;
const BLOCK: usize = 4 * LANES;

impl<'a> LineEnds<'a> {
    #[inline]
    pub(super) fn new(window: &'a [u8], from: usize) -> Self {
        Self { window, block: from, mask: 0, next: from }
    }

    /// Moves to the next block with a line ending; returns whether there is one.
    fn refill(&mut self) -> bool {
        while self.next < self.window.len() {
            self.block = self.next;
            match self.window[self.block..].first_chunk::<BLOCK>() {
                Some(block) => {
                    self.mask = ends_of_block(block);
                    self.next = self.block + BLOCK;
                }
                None => {
                    self.mask = ends_of_tail(self.window, self.block);
                    self.next = self.window.len();
                }
            }
            if self.mask != 0 {
                return true;
            }
            self.next = find_end(self.window, self.next).unwrap_or(self.window.len());
        }
        false
    }
}

impl Iterator for LineEnds<'_> {
    type Item = usize;

    #[inline]
    fn next(&mut self) -> Option<usize> {
        if self.mask == 0 && !self.refill() {
            return None;
        }
        let end = self.block + self.mask.trailing_zeros() as usize;
        self.mask &= self.mask - 1;
        Some(end)
    }
}

#[inline]
fn ends_of_block(block: &[u8; BLOCK]) -> u64 {
    let (lanes, _) = block.as_chunks::<LANES>();
    lanes.iter().rev().fold(0, |mask, lanes| mask << LANES | u64::from(ends_of(lanes)))
}

/// Returns the mask of fewer than `BLOCK` bytes at the end of a window.
#[inline]
fn ends_of_tail(window: &[u8], from: usize) -> u64 {
    let fresh = window.len() - from;
    if let Some(block) = window.last_chunk::<BLOCK>() {
        return ends_of_block(block) >> (BLOCK - fresh);
    }
    let mut block = [0; BLOCK];
    block[..fresh].copy_from_slice(&window[from..]);
    ends_of_block(&block)
}

/// A bit for each byte that is LF or CR.
#[cfg(all(target_arch = "x86_64", target_feature = "sse2"))]
#[inline]
fn ends_of(lanes: &[u8; LANES]) -> u16 {
    use std::arch::x86_64::{_mm_cmpeq_epi8, _mm_movemask_epi8, _mm_or_si128, _mm_set_epi64x, _mm_set1_epi8};

    let bits = u128::from_le_bytes(*lanes);
    // SAFETY: these intrinsics require SSE2, and this function is compiled only for targets that
    // have it.
    unsafe {
        // Two adjacent halves compile to one load.
        let lanes = _mm_set_epi64x((bits >> 64) as i64, bits as i64);
        let lf = _mm_cmpeq_epi8(lanes, _mm_set1_epi8(b'\n' as i8));
        let cr = _mm_cmpeq_epi8(lanes, _mm_set1_epi8(b'\r' as i8));
        _mm_movemask_epi8(_mm_or_si128(lf, cr)) as u16
    }
}

/// A bit for each byte that is LF or CR.
#[cfg(not(all(target_arch = "x86_64", target_feature = "sse2")))]
#[inline]
fn ends_of(lanes: &[u8; LANES]) -> u16 {
    lanes.iter().rev().fold(0, |mask, byte| mask << 1 | u16::from(matches!(byte, b'\n' | b'\r')))
}

#[cfg(test)]
mod tests;
