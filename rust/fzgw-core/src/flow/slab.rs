//! Flows in fixed-size slots, in chunks that never move.
//!
//! Most flows of a scan or a flood are one packet that nobody answers. So a [`Slot`] has what such a flow needs; what
//! an answer brings is in a [`Body`], and what few flows ever have in an [`Extra`]. IPv6 addresses stand beside the
//! slot as well ([`Wide`]), so that IPv4 does not pay for them.

use std::net::{IpAddr, Ipv6Addr};

use super::history::History;
use super::key::{FlowKey, class};
use super::paths::PathId;
use super::record::{Counts, IcmpErrors, PathSeen, PeerId, Traffic};
use super::tcp;
use crate::packet::{TcpFlags, protocol};

/// No slot, no bucket, no side entry.
pub(super) const NONE: u32 = u32::MAX;
/// Entries are allocated by the chunk; 4,096 slots are 448 KiB.
const CHUNK: usize = 4096;

/// Bits of [`Slot::flags`].
pub(super) mod flag {
    /// The slot holds a flow.
    pub(crate) const LIVE: u16 = 1;
    /// The peer is the initiator.
    pub(crate) const INITIATOR_IS_PEER: u16 = 1 << 1;
    /// The first packet said who began (R3).
    pub(crate) const INITIATOR_KNOWN: u16 = 1 << 2;
    /// The responder has sent something.
    pub(crate) const ANSWERED: u16 = 1 << 3;
    /// TCP: the initiator has sent a segment that is not a SYN (R7).
    pub(crate) const MOVED_ON: u16 = 1 << 4;
    /// TCP: the flow began with a SYN that was not answered at its time (R9).
    pub(crate) const BEGAN_WITH_SYN: u16 = 1 << 5;
    /// TCP: FIN seen from the initiator.
    pub(crate) const FIN_OUT: u16 = 1 << 6;
    /// TCP: FIN seen from the responder.
    pub(crate) const FIN_IN: u16 = 1 << 7;
    /// TCP: in its close delay, ended by FINs (R8).
    pub(crate) const CLOSING_FIN: u16 = 1 << 8;
    /// TCP: in its close delay, ended by the initiator's RST (R8).
    pub(crate) const CLOSING_RST_OUT: u16 = 1 << 9;
    /// TCP: in its close delay, ended by the responder's RST (R8).
    pub(crate) const CLOSING_RST_IN: u16 = 1 << 10;
    /// TCP: any of the three.
    pub(crate) const CLOSING: u16 = CLOSING_FIN | CLOSING_RST_OUT | CLOSING_RST_IN;
    /// It has had its open record (R18).
    pub(crate) const REPORTED: u16 = 1 << 11;
    /// Nothing was counted in it since its last record (R19).
    pub(crate) const CLEAN: u16 = 1 << 12;
}

/// One flow. Its fields are the table's; the slab only keeps them.
#[derive(Debug, Clone)]
pub(super) struct Slot {
    pub(super) serial: u64,
    pub(super) start_mono: u64,
    pub(super) start_wall: u64,
    pub(super) last: u64,
    /// Initiator to responder; the attempts of a denied flow.
    pub(super) out: Counts,
    /// The key's addresses: IPv4 as it is, IPv6 by its place among the [`Wide`]s in `near`.
    near: u32,
    far: u32,
    peer: u32,
    pub(super) path: PathId,
    /// Index of the interned verdict (rule, resource, domain).
    pub(super) standing: u32,
    /// Where its [`Body`] is.
    pub(super) body: u32,
    pub(super) timer_prev: u32,
    pub(super) timer_next: u32,
    pub(super) peer_prev: u32,
    pub(super) peer_next: u32,
    /// TCP: what the initiator would send next.
    pub(super) next_out: u32,
    near_port: u16,
    far_port: u16,
    pub(super) timer_bucket: u16,
    pub(super) flags: u16,
    protocol: u8,
    class: u8,
    /// TCP flags seen from the initiator, OR-ed.
    pub(super) tcp_out: u8,
}

/// It decides the memory of a million flows.
const _: () = assert!(size_of::<Slot>() <= 112);
const _: () = assert!(size_of::<Body>() <= 128);

impl Slot {
    pub(super) fn is(&self, flag: u16) -> bool {
        self.flags & flag != 0
    }

    pub(super) fn peer(&self) -> PeerId {
        PeerId(self.peer)
    }

    pub(super) fn protocol(&self) -> u8 {
        self.protocol
    }

    pub(super) fn is_denied(&self) -> bool {
        self.class & class::DENIED != 0
    }
}

/// What a flow needs once it is more than one side's first packet.
#[derive(Debug, Clone)]
pub(super) struct Body {
    /// Responder to initiator.
    pub(super) r#in: Counts,
    /// When the close delay ends.
    pub(super) closes_at: u64,
    pub(super) handshake: tcp::Handshake,
    pub(super) retransmits_out: u32,
    pub(super) retransmits_in: u32,
    /// What the responder would send next.
    pub(super) next_in: u32,
    /// Letters that `history` has: see `tcp::note`.
    pub(super) letters: u32,
    pub(super) history: History,
    /// Where its [`Extra`] is; the next free place in an empty entry.
    pub(super) extra: u32,
    pub(super) tcp_in: u8,
    /// A segment set `next_out`, one set `next_in`.
    pub(super) sent: [bool; 2],
}

/// What few flows have.
#[derive(Debug, Clone)]
pub(super) struct Extra {
    /// What the last record said (R19).
    pub(super) reported: Traffic,
    /// How many records there were; 0: none or one.
    pub(super) number: u32,
    /// When the next update is due.
    pub(super) next_update: u64,
    /// All paths, once there is a second.
    pub(super) paths: Vec<PathSeen>,
    pub(super) paths_total: u32,
    /// Who tried first, on a denied flow.
    pub(super) first_src: Option<IpAddr>,
    pub(super) icmp_errors: Vec<IcmpErrors>,
    next_free: u32,
}

/// The addresses of an IPv6 flow's key.
#[derive(Debug, Clone)]
struct Wide {
    near: u128,
    far: u128,
    next_free: u32,
}

/// Something that is kept in [`Chunks`].
pub(super) trait Entry: Clone {
    /// What stands in an unused place.
    const FREE: Self;
    /// The next unused place, in an unused one.
    fn next_free(&mut self) -> &mut u32;
}

impl Entry for Slot {
    const FREE: Slot = Slot {
        serial: 0,
        start_mono: 0,
        start_wall: 0,
        last: 0,
        out: Counts::ZERO,
        near: 0,
        far: 0,
        peer: 0,
        path: PathId::NONE,
        standing: 0,
        body: NONE,
        timer_prev: NONE,
        timer_next: NONE,
        peer_prev: NONE,
        peer_next: NONE,
        next_out: 0,
        near_port: 0,
        far_port: 0,
        timer_bucket: u16::MAX,
        flags: 0,
        protocol: 0,
        class: 0,
        tcp_out: 0,
    };

    fn next_free(&mut self) -> &mut u32 {
        &mut self.timer_next
    }
}

impl Entry for Body {
    const FREE: Body = Body {
        r#in: Counts::ZERO,
        closes_at: 0,
        handshake: tcp::Handshake::NONE,
        retransmits_out: 0,
        retransmits_in: 0,
        next_in: 0,
        letters: 0,
        history: History::EMPTY,
        extra: NONE,
        tcp_in: 0,
        sent: [false; 2],
    };

    fn next_free(&mut self) -> &mut u32 {
        &mut self.extra
    }
}

impl Entry for Extra {
    const FREE: Extra = Extra {
        reported: Traffic {
            out: Counts::ZERO,
            r#in: Counts::ZERO,
        },
        number: 0,
        next_update: u64::MAX,
        paths: Vec::new(),
        paths_total: 0,
        first_src: None,
        icmp_errors: Vec::new(),
        next_free: NONE,
    };

    fn next_free(&mut self) -> &mut u32 {
        &mut self.next_free
    }
}

impl Entry for Wide {
    const FREE: Wide = Wide {
        near: 0,
        far: 0,
        next_free: NONE,
    };

    fn next_free(&mut self) -> &mut u32 {
        &mut self.next_free
    }
}

/// Entries addressed by number. Freed ones are used again, last freed first.
pub(super) struct Chunks<T> {
    chunks: Vec<Box<[T]>>,
    /// Head of the list of unused places.
    free: u32,
    len: usize,
}

impl<T: Entry> Chunks<T> {
    fn new() -> Self {
        Self {
            chunks: Vec::new(),
            free: NONE,
            len: 0,
        }
    }

    fn take(&mut self) -> u32 {
        if self.free == NONE {
            self.grow();
        }
        let place = self.free;
        self.free = *self[place].next_free();
        self[place] = T::FREE;
        self.len += 1;
        place
    }

    fn put_back(&mut self, place: u32) {
        let free = self.free;
        let entry = &mut self[place];
        *entry = T::FREE;
        *entry.next_free() = free;
        self.free = place;
        self.len -= 1;
    }

    fn grow(&mut self) {
        let first = (self.chunks.len() * CHUNK) as u32;
        let mut chunk = vec![T::FREE; CHUNK].into_boxed_slice();
        for (entry, number) in chunk.iter_mut().zip(first..) {
            *entry.next_free() = number + 1;
        }
        if let Some(last) = chunk.last_mut() {
            *last.next_free() = self.free;
        }
        self.chunks.push(chunk);
        self.free = first;
    }
}

impl<T> std::ops::Index<u32> for Chunks<T> {
    type Output = T;
    fn index(&self, place: u32) -> &T {
        &self.chunks[place as usize / CHUNK][place as usize % CHUNK]
    }
}

impl<T> std::ops::IndexMut<u32> for Chunks<T> {
    fn index_mut(&mut self, place: u32) -> &mut T {
        &mut self.chunks[place as usize / CHUNK][place as usize % CHUNK]
    }
}

/// The flows: slots, and what stands beside them.
pub(super) struct Slab {
    slots: Chunks<Slot>,
    bodies: Chunks<Body>,
    extras: Chunks<Extra>,
    wides: Chunks<Wide>,
}

impl Slab {
    pub(super) fn new() -> Self {
        Self {
            slots: Chunks::new(),
            bodies: Chunks::new(),
            extras: Chunks::new(),
            wides: Chunks::new(),
        }
    }

    /// Live slots.
    pub(super) fn len(&self) -> usize {
        self.slots.len
    }

    /// Allocated slots.
    #[cfg(test)]
    pub(super) fn capacity(&self) -> usize {
        self.slots.chunks.len() * CHUNK
    }

    /// A slot with this key, live from now on.
    pub(super) fn take(&mut self, key: &FlowKey) -> u32 {
        let (near, far) = if key.class & class::IPV6 == 0 {
            (key.near as u32, key.far as u32)
        } else {
            let wide = self.wides.take();
            self.wides[wide].near = key.near;
            self.wides[wide].far = key.far;
            (wide, 0)
        };
        let slot = self.slots.take();
        let flow = &mut self.slots[slot];
        flow.near = near;
        flow.far = far;
        flow.peer = key.peer.0;
        flow.near_port = key.near_port;
        flow.far_port = key.far_port;
        flow.protocol = key.protocol;
        flow.class = key.class;
        flow.flags = flag::LIVE;
        slot
    }

    /// Gives a slot back, and all that stands beside it.
    pub(super) fn put_back(&mut self, slot: u32) {
        let Slot { body, near, class, .. } = self.slots[slot];
        if body != NONE {
            let extra = self.bodies[body].extra;
            if extra != NONE {
                self.extras.put_back(extra);
            }
            self.bodies.put_back(body);
        }
        if class & class::IPV6 != 0 {
            self.wides.put_back(near);
        }
        self.slots.put_back(slot);
    }

    /// Whether this slot has this key.
    pub(super) fn has_key(&self, slot: u32, key: &FlowKey) -> bool {
        let flow = &self.slots[slot];
        let rest = flow.near_port == key.near_port
            && flow.far_port == key.far_port
            && flow.peer == key.peer.0
            && flow.protocol == key.protocol
            && flow.class == key.class;
        rest && if key.class & class::IPV6 == 0 {
            flow.near == key.near as u32 && flow.far == key.far as u32
        } else {
            let wide = &self.wides[flow.near];
            wide.near == key.near && wide.far == key.far
        }
    }

    /// The slot's key.
    pub(super) fn key(&self, slot: u32) -> FlowKey {
        let flow = &self.slots[slot];
        let (near, far) = if flow.class & class::IPV6 != 0 {
            let wide = &self.wides[flow.near];
            (wide.near, wide.far)
        } else {
            let mapped = |address: u32| u128::from(Ipv6Addr::from_bits(0xffff << 32 | u128::from(address)));
            // In the key of a denied flow `near` is a number, not an address.
            let near = if flow.is_denied() {
                flow.near.into()
            } else {
                mapped(flow.near)
            };
            (near, mapped(flow.far))
        };
        FlowKey {
            near,
            far,
            peer: flow.peer(),
            near_port: flow.near_port,
            far_port: flow.far_port,
            protocol: flow.protocol,
            class: flow.class,
        }
    }

    /// The body of a slot that has one.
    pub(super) fn body(&self, slot: u32) -> Option<&Body> {
        let body = self.slots[slot].body;
        (body != NONE).then(|| &self.bodies[body])
    }

    /// Reads from both ends of a slot.
    pub(super) fn touch(&self, slot: u32) -> u64 {
        let flow = &self.slots[slot];
        flow.serial ^ u64::from(flow.near_port)
    }

    /// A slot and its body, which it gets now if it had none. A TCP flow's begins with what its first segment said.
    pub(super) fn with_body(&mut self, slot: u32) -> (&mut Slot, &mut Body) {
        let flow = &mut self.slots[slot];
        if flow.body == NONE {
            flow.body = self.bodies.take();
            let body = &mut self.bodies[flow.body];
            if flow.protocol == protocol::TCP && flow.out.packets > 0 && !flow.is_denied() {
                body.sent[0] = true;
                let first = TcpFlags(flow.tcp_out);
                tcp::note(body, first, flow.out.payload > 0, true);
                body.handshake.initiator_sent(first, flow.start_mono);
            }
        }
        let body = flow.body;
        (flow, &mut self.bodies[body])
    }

    /// The extra of a slot that has one.
    pub(super) fn extra(&self, slot: u32) -> Option<&Extra> {
        let extra = self.body(slot)?.extra;
        (extra != NONE).then(|| &self.extras[extra])
    }

    /// A slot's extra, which it gets now if it had none.
    pub(super) fn with_extra(&mut self, slot: u32) -> &mut Extra {
        let body = self.with_body(slot).1;
        if body.extra != NONE {
            let extra = body.extra;
            return &mut self.extras[extra];
        }
        let extra = self.extras.take();
        self.with_body(slot).1.extra = extra;
        &mut self.extras[extra]
    }

    /// Both directions' counts.
    pub(super) fn traffic(&self, slot: u32) -> Traffic {
        Traffic {
            out: self.slots[slot].out,
            r#in: self.body(slot).map_or(Counts::ZERO, |body| body.r#in),
        }
    }

    /// How many records there were of this flow.
    pub(super) fn number(&self, slot: u32) -> u32 {
        if !self.slots[slot].is(flag::REPORTED) {
            return 0;
        }
        self.extra(slot).map_or(1, |extra| extra.number.max(1))
    }

    /// Numbers of the live slots from this one on, by scanning: for shutdown and new limits, never per packet.
    pub(super) fn live_from(&self, first: u32) -> impl Iterator<Item = u32> + '_ {
        let (chunk, rest) = (first as usize / CHUNK, first as usize % CHUNK);
        let slots = self
            .slots
            .chunks
            .iter()
            .skip(chunk)
            .flat_map(|chunk| chunk.iter())
            .skip(rest)
            .zip(first..);
        slots.filter(|(slot, _)| slot.is(flag::LIVE)).map(|(_, number)| number)
    }
}

impl std::ops::Index<u32> for Slab {
    type Output = Slot;
    fn index(&self, slot: u32) -> &Slot {
        &self.slots[slot]
    }
}

impl std::ops::IndexMut<u32> for Slab {
    fn index_mut(&mut self, slot: u32) -> &mut Slot {
        &mut self.slots[slot]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(class: u8) -> FlowKey {
        FlowKey {
            near: 0xffff << 32 | 0x0a00_0001,
            far: 0xffff << 32 | 0xc000_0201,
            peer: PeerId(3),
            near_port: 4000,
            far_port: 80,
            protocol: protocol::TCP,
            class,
        }
    }

    /// R1: two flows that differ in one part of their tuple are two, whatever their hashes are.
    #[test]
    fn a_slot_has_its_own_key_and_no_other() {
        for class in [0, class::IPV6] {
            let key = key(class);
            let mut slab = Slab::new();
            let slot = slab.take(&key);
            assert!(slab.has_key(slot, &key));
            assert_eq!(slab.key(slot), key);
            let others = [
                FlowKey {
                    near: key.near + 1,
                    ..key
                },
                FlowKey {
                    far: key.far + 1,
                    ..key
                },
                FlowKey { peer: PeerId(4), ..key },
                FlowKey { near_port: 4001, ..key },
                FlowKey { far_port: 81, ..key },
                FlowKey {
                    protocol: protocol::UDP,
                    ..key
                },
                FlowKey {
                    class: class | class::ICMP_QUERY,
                    ..key
                },
            ];
            for other in others {
                assert!(!slab.has_key(slot, &other), "{other:?}");
            }
        }
    }

    /// Slots are numbered through their chunks; each is live from its taking to its giving back, and used again after.
    #[test]
    fn live_slots_are_those_that_were_taken_across_chunks() {
        let mut slab = Slab::new();
        let all = 2 * CHUNK as u32 + 10;
        let taken: std::collections::BTreeSet<u32> = (0..all).map(|_| slab.take(&key(class::IPV6))).collect();
        assert_eq!(taken.len(), all as usize, "each is a slot of its own");
        assert_eq!(slab.capacity(), 3 * CHUNK);
        let (gone, kept): (Vec<u32>, Vec<u32>) = taken.iter().partition(|slot| *slot % 3 == 0);
        for slot in &gone {
            slab.put_back(*slot);
        }
        assert_eq!(slab.len(), kept.len());
        let edge = CHUNK as u32;
        for first in [0, 1, edge - 1, edge, edge + 1, 2 * edge, 2 * edge + 5, 3 * edge] {
            let expected: Vec<u32> = kept.iter().copied().filter(|slot| *slot >= first).collect();
            assert_eq!(slab.live_from(first).collect::<Vec<_>>(), expected, "from {first}");
        }
        for _ in &gone {
            assert!(gone.contains(&slab.take(&key(0))));
        }
        assert_eq!(slab.capacity(), 3 * CHUNK);
    }
}
