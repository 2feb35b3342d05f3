//! Queues of slots, as doubly linked lists in one shared table.

/// Marks the end of a queue.
const NONE: u32 = u32::MAX;

/// Neighbours of a slot in its queue. The key's hash is stored with them because both are used
/// together.
#[derive(Debug, Clone, Copy)]
pub(super) struct QueueLink {
    newer: u32,
    older: u32,
    pub(super) hash: u64,
}

impl QueueLink {
    /// Link of a slot that is in no queue.
    pub(super) const UNLINKED: Self = Self { newer: NONE, older: NONE, hash: 0 };
}

/// Slots in order of insertion. Every call takes the table of links, which all queues of a policy
/// share.
#[derive(Debug)]
pub(super) struct SlotQueue {
    newest: u32,
    oldest: u32,
    len: usize,
}

impl SlotQueue {
    pub(super) const EMPTY: Self = Self { newest: NONE, oldest: NONE, len: 0 };

    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn push(&mut self, links: &mut [QueueLink], slot: u32) {
        let older = std::mem::replace(&mut self.newest, slot);
        let link = &mut links[slot as usize];
        (link.newer, link.older) = (NONE, older);
        match older {
            NONE => self.oldest = slot,
            older => links[older as usize].newer = slot,
        }
        self.len += 1;
    }

    pub(super) fn unlink(&mut self, links: &mut [QueueLink], slot: u32) {
        let QueueLink { newer, older, .. } = links[slot as usize];
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

    /// Returns the oldest slot.
    pub(super) fn peek(&self) -> Option<u32> {
        (self.oldest != NONE).then_some(self.oldest)
    }

    /// Removes and returns the oldest slot.
    pub(super) fn pop(&mut self, links: &mut [QueueLink]) -> Option<u32> {
        let slot = self.peek()?;
        self.unlink(links, slot);
        Some(slot)
    }

    /// Iterates over all slots, the oldest first.
    pub(super) fn iter<'a>(&self, links: &'a [QueueLink]) -> impl Iterator<Item = u32> + use<'a> {
        let slot_or_end = |slot: u32| (slot != NONE).then_some(slot);
        std::iter::successors(slot_or_end(self.oldest), move |slot| slot_or_end(links[*slot as usize].newer))
    }
}
