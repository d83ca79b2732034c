//! Flows in fixed-size slots, in chunks that never move.

use super::paths::PathId;
use super::record::{Counts, Traffic};

/// No slot, no bucket, no side entry.
pub(super) const NONE: u32 = u32::MAX;
/// Slots are allocated by the chunk; 4,096 slots are about 0.75 MiB.
const CHUNK: usize = 4096;

/// Bits of [`Slot::flags`].
pub(super) mod flag {
    /// The slot holds a flow.
    pub(crate) const LIVE: u16 = 1;
    /// The peer is the initiator.
    pub(crate) const INITIATOR_IS_PEER: u16 = 2;
    /// The first packet said who began (R3).
    pub(crate) const INITIATOR_KNOWN: u16 = 4;
    /// The responder has sent something.
    pub(crate) const ANSWERED: u16 = 8;
    /// TCP: the initiator has sent a segment that is not a SYN (R7).
    pub(crate) const MOVED_ON: u16 = 16;
    /// TCP: the flow began with a SYN that was not answered at its time (R9).
    pub(crate) const BEGAN_WITH_SYN: u16 = 32;
    /// TCP: FIN seen from the initiator.
    pub(crate) const FIN_OUT: u16 = 64;
    /// TCP: FIN seen from the responder.
    pub(crate) const FIN_IN: u16 = 128;
    /// TCP: in its close delay, ended by FINs (R8).
    pub(crate) const CLOSING_FIN: u16 = 256;
    /// TCP: in its close delay, ended by an RST (R8).
    pub(crate) const CLOSING_RST: u16 = 512;
    /// TCP: either of the two.
    pub(crate) const CLOSING: u16 = CLOSING_FIN | CLOSING_RST;
}

/// One flow. Its fields are the table's; the slab only keeps them.
#[derive(Debug, Clone)]
pub(super) struct Slot {
    pub(super) near: u128,
    pub(super) far: u128,
    pub(super) serial: u64,
    pub(super) start_mono: u64,
    pub(super) start_wall: u64,
    pub(super) last: u64,
    /// When the close delay ends; unused before.
    pub(super) closes_at: u64,
    pub(super) traffic: Traffic,
    pub(super) peer: u32,
    pub(super) near_port: u16,
    pub(super) far_port: u16,
    pub(super) path: PathId,
    /// Index of the interned verdict (rule, resource, domain).
    pub(super) standing: u32,
    pub(super) extra: u32,
    pub(super) timer_prev: u32,
    pub(super) timer_next: u32,
    pub(super) peer_prev: u32,
    pub(super) peer_next: u32,
    pub(super) timer_bucket: u16,
    pub(super) flags: u16,
    pub(super) protocol: u8,
    pub(super) class: u8,
    pub(super) tcp_out: u8,
    pub(super) tcp_in: u8,
}

/// What a slot may grow to: it decides the memory of a million flows.
const MAX_SLOT_BYTES: usize = 192;
const _: () = assert!(size_of::<Slot>() <= MAX_SLOT_BYTES);

const FREE: Slot = Slot {
    near: 0,
    far: 0,
    serial: 0,
    start_mono: 0,
    start_wall: 0,
    last: 0,
    closes_at: 0,
    traffic: Traffic {
        out: Counts {
            packets: 0,
            bytes: 0,
            payload: 0,
        },
        r#in: Counts {
            packets: 0,
            bytes: 0,
            payload: 0,
        },
    },
    peer: 0,
    near_port: 0,
    far_port: 0,
    path: PathId::NONE,
    standing: 0,
    extra: NONE,
    timer_prev: NONE,
    timer_next: NONE,
    peer_prev: NONE,
    peer_next: NONE,
    timer_bucket: u16::MAX,
    flags: 0,
    protocol: 0,
    class: 0,
    tcp_out: 0,
    tcp_in: 0,
};

impl Slot {
    pub(super) fn is(&self, flag: u16) -> bool {
        self.flags & flag != 0
    }
}

/// The slots, addressed by number. Freed ones are used again, last freed first.
pub(super) struct Slab {
    chunks: Vec<Box<[Slot]>>,
    /// Head of the list of free slots, linked by `timer_next`.
    free: u32,
    len: usize,
}

impl Slab {
    pub(super) fn new() -> Self {
        Self {
            chunks: Vec::new(),
            free: NONE,
            len: 0,
        }
    }

    /// Live slots.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// A blank slot, live from now on.
    pub(super) fn take(&mut self) -> u32 {
        if self.free == NONE {
            self.grow();
        }
        let slot = self.free;
        self.free = self[slot].timer_next;
        self[slot] = Slot {
            flags: flag::LIVE,
            ..FREE
        };
        self.len += 1;
        slot
    }

    /// Gives a slot back.
    pub(super) fn put_back(&mut self, slot: u32) {
        let free = self.free;
        self[slot] = Slot {
            timer_next: free,
            ..FREE
        };
        self.free = slot;
        self.len -= 1;
    }

    /// Numbers of the live slots from this one on, by scanning: for shutdown and new limits, never per packet.
    pub(super) fn live_from(&self, first: u32) -> impl Iterator<Item = u32> + '_ {
        let (chunk, rest) = (first as usize / CHUNK, first as usize % CHUNK);
        let slots = self
            .chunks
            .iter()
            .skip(chunk)
            .flat_map(|chunk| chunk.iter())
            .skip(rest)
            .zip(first..);
        slots.filter(|(slot, _)| slot.is(flag::LIVE)).map(|(_, number)| number)
    }

    fn grow(&mut self) {
        let first = (self.chunks.len() * CHUNK) as u32;
        let mut chunk = vec![FREE; CHUNK].into_boxed_slice();
        for (slot, number) in chunk.iter_mut().zip(first..) {
            slot.timer_next = number + 1;
        }
        if let Some(last) = chunk.last_mut() {
            last.timer_next = self.free;
        }
        self.chunks.push(chunk);
        self.free = first;
    }
}

impl std::ops::Index<u32> for Slab {
    type Output = Slot;
    fn index(&self, slot: u32) -> &Slot {
        &self.chunks[slot as usize / CHUNK][slot as usize % CHUNK]
    }
}

impl std::ops::IndexMut<u32> for Slab {
    fn index_mut(&mut self, slot: u32) -> &mut Slot {
        &mut self.chunks[slot as usize / CHUNK][slot as usize % CHUNK]
    }
}
