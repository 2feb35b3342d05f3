//! Collects the bytes of an unfinished unit from several chunks.

use bytes::{Buf, Bytes, BytesMut};

/// Initial capacity in bytes, allocated when a chunk first ends inside a unit.
const BYTES_MIN: usize = 4096;
/// Chunks of up to this many bytes are copied without calling `memcpy`.
const SHORT_BYTES_MAX: usize = 32;
/// Bytes that are initialised ahead of the end for short chunks.
const ROOM_BYTES: usize = 512;

/// A block larger than this gives up the room behind it, which short blocks reuse, in bytes.
const REUSED_BYTES_MAX: usize = 64 << 10;

/// A buffer that grows at the end, shrinks at the front and hands out shared blocks.
///
/// Some memory after the end is initialised ahead of time. Short chunks (tokens) are then copied by
/// a few fixed-size moves, which takes a third of the time of a `memcpy` call.
#[derive(Debug, Default)]
pub(crate) struct PartialUnit {
    /// All bytes up to the length are initialised.
    bytes: BytesMut,
    /// Number of bytes that belong to the unit; the rest is spare.
    used: usize,
}

impl PartialUnit {
    #[inline]
    pub(crate) fn len(&self) -> usize {
        self.used
    }

    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.used == 0
    }

    #[inline]
    pub(crate) fn window(&self) -> &[u8] {
        &self.bytes[..self.used]
    }

    #[inline]
    pub(crate) fn append(&mut self, chunk: &[u8]) {
        if chunk.len() > SHORT_BYTES_MAX {
            return self.append_long(chunk);
        }
        let end = self.used + chunk.len();
        if end > self.bytes.len() {
            self.grow();
        }
        copy(&mut self.bytes[self.used..end], chunk);
        self.used = end;
    }

    fn append_long(&mut self, chunk: &[u8]) {
        self.bytes.truncate(self.used);
        if self.bytes.capacity() == 0 {
            self.bytes.reserve(chunk.len().max(BYTES_MIN));
        }
        self.bytes.extend_from_slice(chunk);
        self.used = self.bytes.len();
    }

    /// Initialises spare room for short chunks.
    #[cold]
    fn grow(&mut self) {
        self.bytes.truncate(self.used);
        let room = if self.bytes.capacity() == 0 { BYTES_MIN } else { ROOM_BYTES };
        self.bytes.reserve(room);
        self.bytes.resize(self.used + ROOM_BYTES, 0);
    }

    /// Splits off the first `bytes` bytes without a copy.
    pub(crate) fn take(&mut self, bytes: usize) -> Bytes {
        self.used -= bytes;
        if self.used == 0 && bytes > REUSED_BYTES_MAX {
            // The room behind a large block would keep the block in memory.
            let mut block = std::mem::take(&mut self.bytes);
            block.truncate(bytes);
            return block.freeze();
        }
        self.bytes.split_to(bytes).freeze()
    }

    /// Discards the first `bytes` bytes.
    #[inline]
    pub(crate) fn skip(&mut self, bytes: usize) {
        if bytes > 0 {
            self.used -= bytes;
            self.bytes.advance(bytes);
        }
    }
}

/// Copies between slices of equal length.
#[inline]
fn copy(to: &mut [u8], from: &[u8]) {
    match from.len() {
        0..4 => to.iter_mut().zip(from).for_each(|(to, from)| *to = *from),
        4..8 => copy_ends::<4>(to, from),
        8..16 => copy_ends::<8>(to, from),
        16..=SHORT_BYTES_MAX => copy_ends::<16>(to, from),
        _ => to.copy_from_slice(from),
    }
}

/// Copies between `N` and `2 * N` bytes: the first `N` and the last `N`, which may overlap.
#[inline]
fn copy_ends<const N: usize>(to: &mut [u8], from: &[u8]) {
    if let (Some(to), Some(from)) = (to.first_chunk_mut::<N>(), from.first_chunk()) {
        *to = *from;
    }
    if let (Some(to), Some(from)) = (to.last_chunk_mut::<N>(), from.last_chunk()) {
        *to = *from;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_of_any_length_are_concatenated() {
        let text: Vec<u8> = (0..100_000_u32).map(|i| (i * 7 % 251) as u8).collect();
        let (mut partial, mut blocks) = (PartialUnit::default(), Vec::new());
        let mut rest = &text[..];
        for size in (0..80).cycle() {
            let (chunk, left) = rest.split_at(size.min(rest.len()));
            partial.append(chunk);
            rest = left;
            match size % 11 {
                10 => blocks.push(partial.take(partial.len() / 2)),
                5 => {
                    blocks.push(Bytes::copy_from_slice(&partial.window()[..1]));
                    partial.skip(1);
                }
                _ => {}
            }
            if rest.is_empty() {
                break;
            }
        }
        blocks.push(partial.take(partial.len()));
        assert!(blocks.concat() == text && partial.is_empty());
    }
}
