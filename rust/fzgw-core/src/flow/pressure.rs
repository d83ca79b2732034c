//! Who must go when the table is full (R26).
//!
//! A peer at its bound loses its own least recently active flow. To find it, a peer under pressure has its list of
//! flows sorted by their last activity, once; from then on each packet moves its flow to the end of the list. Peers
//! that never reach their bound pay nothing.

use super::slab::{NONE, Slab};

/// The flows of one peer, in lists through the slots.
pub(super) struct PeerFlows {
    /// Allowed flows; by their last activity while under pressure.
    pub(super) allowed: List,
    /// Denied flows.
    pub(super) denied: List,
    under_pressure: bool,
}

/// A doubly linked list through `peer_prev` and `peer_next` of the slots.
#[derive(Debug, Clone, Copy)]
pub(super) struct List {
    head: u32,
    tail: u32,
    len: usize,
}

impl PeerFlows {
    pub(super) fn new() -> Self {
        Self {
            allowed: List::EMPTY,
            denied: List::EMPTY,
            under_pressure: false,
        }
    }

    /// Begins to keep the list by activity. True: it was not kept before.
    pub(super) fn press(&mut self, slab: &mut Slab) -> bool {
        if self.under_pressure {
            return false;
        }
        self.under_pressure = true;
        let mut slots: Vec<u32> = self.allowed.iter(slab).collect();
        slots.sort_unstable_by_key(|slot| (slab[*slot].last, slab[*slot].serial));
        self.allowed = List::EMPTY;
        for slot in slots {
            self.allowed.push(slab, slot);
        }
        true
    }

    /// The pressure is over. True: there was some.
    pub(super) fn relax(&mut self) -> bool {
        std::mem::take(&mut self.under_pressure)
    }

    /// The flow has just been active.
    pub(super) fn touched(&mut self, slab: &mut Slab, slot: u32) {
        if self.under_pressure && self.allowed.tail != slot {
            self.allowed.remove(slab, slot);
            self.allowed.push(slab, slot);
        }
    }
}

impl List {
    const EMPTY: List = List {
        head: NONE,
        tail: NONE,
        len: 0,
    };

    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// The oldest; under pressure the least recently active.
    pub(super) fn head(&self) -> Option<u32> {
        (self.head != NONE).then_some(self.head)
    }

    pub(super) fn push(&mut self, slab: &mut Slab, slot: u32) {
        if self.tail == NONE {
            self.head = slot;
        } else {
            slab[self.tail].peer_next = slot;
        }
        slab[slot].peer_prev = self.tail;
        slab[slot].peer_next = NONE;
        self.tail = slot;
        self.len += 1;
    }

    pub(super) fn remove(&mut self, slab: &mut Slab, slot: u32) {
        let (prev, next) = (slab[slot].peer_prev, slab[slot].peer_next);
        if next == NONE {
            self.tail = prev;
        } else {
            slab[next].peer_prev = prev;
        }
        if prev == NONE {
            self.head = next;
        } else {
            slab[prev].peer_next = next;
        }
        self.len -= 1;
    }

    pub(super) fn iter<'a>(&self, slab: &'a Slab) -> impl Iterator<Item = u32> + use<'a> {
        let follow = |slot: u32| (slot != NONE).then_some(slot);
        std::iter::successors(follow(self.head), move |slot| follow(slab[*slot].peer_next))
    }
}
