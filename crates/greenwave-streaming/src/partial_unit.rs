//! The bytes of an unfinished unit, put together from chunks. Unaware of what they mean.

use bytes::{Buf, Bytes, BytesMut};

/// What is taken at once, in bytes, when a unit is first cut by the end of a chunk.
const BYTES_MIN: usize = 4096;
/// Up to this many bytes are copied without a call.
const SHORT_BYTES_MAX: usize = 32;
/// What is initialised at once for short chunks.
const ROOM_BYTES: usize = 512;

/// Bytes that grow at the end and leave at the front, as shared blocks where they are wanted.
///
/// For short chunks (tokens), some memory behind the end is initialised, so that they are copied by a few moves of fixed size, in a third
/// of the time that a call of `memcpy` takes.
#[derive(Debug, Default)]
pub(crate) struct PartialUnit {
    /// Initialised up to its length.
    bytes: BytesMut,
    /// How many of them count.
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

    /// Initialises room for some short chunks.
    #[cold]
    fn grow(&mut self) {
        self.bytes.truncate(self.used);
        let room = if self.bytes.capacity() == 0 { BYTES_MIN } else { ROOM_BYTES };
        self.bytes.reserve(room);
        self.bytes.resize(self.used + ROOM_BYTES, 0);
    }

    /// Takes the first `bytes` as a block of their own, without a copy.
    pub(crate) fn take(&mut self, bytes: usize) -> Bytes {
        self.used -= bytes;
        self.bytes.split_to(bytes).freeze()
    }

    /// Forgets the first `bytes`.
    #[inline]
    pub(crate) fn skip(&mut self, bytes: usize) {
        if bytes > 0 {
            self.used -= bytes;
            self.bytes.advance(bytes);
        }
    }
}

/// Copies between slices of the same length.
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

/// Copies `N` to twice `N` bytes: the first `N`, and the last, which may overlap them.
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
    fn chunks_of_any_length_are_put_together() {
        let text: Vec<u8> = (0..100_000_u32).map(|i| (i * 7 % 251) as u8).collect();
        let (mut carry, mut blocks) = (PartialUnit::default(), Vec::new());
        let mut rest = &text[..];
        for size in (0..80).cycle() {
            let (chunk, left) = rest.split_at(size.min(rest.len()));
            carry.append(chunk);
            rest = left;
            match size % 11 {
                10 => blocks.push(carry.take(carry.len() / 2)),
                5 => {
                    blocks.push(Bytes::copy_from_slice(&carry.window()[..1]));
                    carry.skip(1);
                }
                _ => {}
            }
            if rest.is_empty() {
                break;
            }
        }
        blocks.push(carry.take(carry.len()));
        assert!(blocks.concat() == text && carry.is_empty());
    }
}
