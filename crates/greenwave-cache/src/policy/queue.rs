//! Queues of slots, linked through one table that they share. Knows nothing of why a slot stands in one.

/// No neighbour.
const NONE: u32 = u32::MAX;

/// A slot's neighbours in its queue, and beside them, because whoever needs the one needs the other, what stands for its key.
#[derive(Debug, Clone, Copy)]
pub(super) struct Link {
    newer: u32,
    older: u32,
    pub(super) hash: u64,
}

impl Link {
    /// Of a slot that stands in no queue.
    pub(super) const ALONE: Self = Self { newer: NONE, older: NONE, hash: 0 };
}

/// Slots in the order in which they came. Every call takes the table of links that all queues of a policy share.
#[derive(Debug)]
pub(super) struct Queue {
    newest: u32,
    oldest: u32,
    len: usize,
}

impl Queue {
    pub(super) const EMPTY: Self = Self { newest: NONE, oldest: NONE, len: 0 };

    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn push(&mut self, links: &mut [Link], slot: u32) {
        let older = std::mem::replace(&mut self.newest, slot);
        let link = &mut links[slot as usize];
        (link.newer, link.older) = (NONE, older);
        match older {
            NONE => self.oldest = slot,
            older => links[older as usize].newer = slot,
        }
        self.len += 1;
    }

    pub(super) fn unlink(&mut self, links: &mut [Link], slot: u32) {
        let Link { newer, older, .. } = links[slot as usize];
        match newer {
            NONE => self.newest = older,
            newer => links[newer as usize].older = older,
        }
        match older {
            NONE => self.oldest = newer,
            older => links[older as usize].newer = newer,
        }
        self.len -= 1;
    }

    /// The oldest.
    pub(super) fn peek(&self) -> Option<u32> {
        (self.oldest != NONE).then_some(self.oldest)
    }

    /// Takes the oldest out.
    pub(super) fn pop(&mut self, links: &mut [Link]) -> Option<u32> {
        let slot = self.peek()?;
        self.unlink(links, slot);
        Some(slot)
    }

    /// All slots, the oldest first.
    pub(super) fn iter<'a>(&self, links: &'a [Link]) -> impl Iterator<Item = u32> + use<'a> {
        let known = |slot: u32| (slot != NONE).then_some(slot);
        std::iter::successors(known(self.oldest), move |slot| known(links[*slot as usize].newer))
    }
}
