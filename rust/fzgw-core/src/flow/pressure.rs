//! Who must go when the table is full (R26).
//!
//! A peer at its bound loses its own least recently active flow. To find it, a peer under pressure gets a heap of
//! (last activity, flow). Activity after that does not touch the heap: an entry that turns out to be stale is put
//! back with its present time, so that the first fresh one is the least recent exactly, and each packet pays for at
//! most one such step. Peers that never reach their bound pay nothing.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use super::slab::{NONE, Slab, flag};

/// The flows of one peer: lists through the slots, and the heap while under pressure.
pub(super) struct PeerFlows {
    /// Allowed flows, newest first.
    pub(super) allowed: List,
    /// Denied flows, newest first.
    pub(super) denied: List,
    recency: Option<BinaryHeap<Reverse<Entry>>>,
}

/// Last activity, serial number, slot.
type Entry = (u64, u64, u32);

/// A doubly linked list through `peer_prev` and `peer_next` of the slots.
#[derive(Debug, Clone, Copy)]
pub(super) struct List {
    head: u32,
    len: usize,
}

impl PeerFlows {
    pub(super) fn new() -> Self {
        let empty = List { head: NONE, len: 0 };
        Self {
            allowed: empty,
            denied: empty,
            recency: None,
        }
    }

    /// A flow was opened and stands in the list.
    pub(super) fn opened(&mut self, slab: &Slab, slot: u32) {
        let Some(heap) = &mut self.recency else { return };
        heap.push(Reverse((slab[slot].last, slab[slot].serial, slot)));
        // Entries of flows that ended by themselves are only met at the top; do not let them gather.
        if heap.len() > 2 * self.allowed.len + 64 {
            self.recency = Some(self.ranked(slab));
        }
    }

    /// The least recently active allowed flow; of several, the one opened first.
    pub(super) fn least_recent(&mut self, slab: &Slab) -> Option<u32> {
        if self.recency.is_none() {
            self.recency = Some(self.ranked(slab));
        }
        let heap = self.recency.as_mut()?;
        while let Some(Reverse((seen, serial, slot))) = heap.pop() {
            let flow = &slab[slot];
            if flow.serial != serial || !flow.is(flag::LIVE) {
                continue;
            }
            if flow.last > seen {
                heap.push(Reverse((flow.last, serial, slot)));
                continue;
            }
            return Some(slot);
        }
        None
    }

    /// The pressure is over.
    pub(super) fn relax(&mut self) {
        self.recency = None;
    }

    fn ranked(&self, slab: &Slab) -> BinaryHeap<Reverse<Entry>> {
        self.allowed
            .iter(slab)
            .map(|slot| Reverse((slab[slot].last, slab[slot].serial, slot)))
            .collect()
    }
}

impl List {
    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn head(&self) -> Option<u32> {
        (self.head != NONE).then_some(self.head)
    }

    pub(super) fn push(&mut self, slab: &mut Slab, slot: u32) {
        if self.head != NONE {
            slab[self.head].peer_prev = slot;
        }
        slab[slot].peer_prev = NONE;
        slab[slot].peer_next = self.head;
        self.head = slot;
        self.len += 1;
    }

    pub(super) fn remove(&mut self, slab: &mut Slab, slot: u32) {
        let (prev, next) = (slab[slot].peer_prev, slab[slot].peer_next);
        if next != NONE {
            slab[next].peer_prev = prev;
        }
        if prev == NONE {
            self.head = next;
        } else {
            slab[prev].peer_next = next;
        }
        self.len -= 1;
    }

    fn iter<'a>(&self, slab: &'a Slab) -> impl Iterator<Item = u32> + use<'a> {
        let follow = |slot: u32| (slot != NONE).then_some(slot);
        std::iter::successors(follow(self.head), move |slot| follow(slab[*slot].peer_next))
    }
}
