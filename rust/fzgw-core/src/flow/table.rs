//! The table of flows: open, count, end, expire.
//!
//! The public edge is small: [`FlowTable::standing`] asks what an open flow says of a packet, a [`PacketScope`]
//! counts it when it ends, [`FlowTable::take_back`] undoes that for a packet that could not be written,
//! [`FlowTable::handle_timeout`] ends what is due, and [`FlowTable::drain_records`] gives the records out.
//!
//! [`PacketScope`]: super::PacketScope

use std::collections::HashMap;
use std::net::IpAddr;

use super::current::PacketFacts;
use super::denied::{DENIED_IDLE, nobody};
use super::index::Index;
use super::key::{FlowKey, Initiator, Side, class, narrow};
use super::ledger::{FlowLedger, Tally, Untracked};
use super::paths::{PathId, PathTable};
use super::pressure::PeerFlows;
use super::record::{
    Activity, Direction, EndReason, FlowRecord, MAX_PATHS, Note, OuterPath, PathSeen, PeerId, Record, Standing,
    Timestamp, Traffic, Verdict,
};
use super::slab::{NONE, Slab, Slot, flag};
use super::tcp;
use super::wheel::Wheel;
use crate::packet::{Original, PacketInfo, Transport, protocol};

const SECOND: u64 = 1_000_000_000;
/// A wall clock that moved by more than this against the monotonic one was stepped (R16).
const CLOCK_STEP: u64 = SECOND;
/// Flows that make way for a new one at most: 1, but for bounds that were lowered meanwhile.
const EVICTIONS_PER_OPENING: usize = 8;
/// Flows that one call of `handle_timeout` ends at most: a turn stays short when a million flows fall silent at once.
const EXPIRE_BUDGET: usize = 4096;

/// How long and how many. Times in nanoseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Allowed flows in all (R26).
    pub max_flows: usize,
    /// Allowed flows of one peer; none: an eighth of `max_flows`, or all of it for a single peer.
    pub max_flows_per_peer: Option<usize>,
    /// TCP is idle after this silence (R17).
    pub tcp_idle: u64,
    /// A SYN that nobody answers (R9).
    pub tcp_opening_idle: u64,
    /// UDP.
    pub udp_idle: u64,
    /// ICMP and ICMPv6.
    pub icmp_idle: u64,
    /// Any other protocol.
    pub other_idle: u64,
    /// TCP stays this long after its end (R8).
    pub close_delay: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_flows: 1_000_000,
            max_flows_per_peer: None,
            tcp_idle: 1200 * SECOND,
            tcp_opening_idle: 75 * SECOND,
            udp_idle: 120 * SECOND,
            icmp_idle: 30 * SECOND,
            other_idle: 120 * SECOND,
            close_delay: 2 * SECOND,
        }
    }
}

impl Limits {
    /// When a flow is to be looked at: the first nanosecond at which it is over.
    fn deadline(&self, flow: &Slot) -> u64 {
        if flow.is(flag::CLOSING) {
            return flow.closes_at.saturating_add(1);
        }
        let idle = match flow.protocol {
            _ if flow.class & class::DENIED != 0 => DENIED_IDLE,
            protocol::TCP if flow.is(flag::BEGAN_WITH_SYN) && !flow.is(flag::ANSWERED) => self.tcp_opening_idle,
            protocol::TCP => self.tcp_idle,
            protocol::UDP => self.udp_idle,
            protocol::ICMP | protocol::ICMPV6 => self.icmp_idle,
            _ => self.other_idle,
        };
        flow.last.saturating_add(idle).saturating_add(1)
    }

    fn per_peer(&self, peers: usize) -> usize {
        let share = if peers <= 1 { self.max_flows } else { self.max_flows / 8 };
        self.max_flows_per_peer.unwrap_or(share).clamp(1, self.max_flows.max(1))
    }
}

/// What the table is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Purpose {
    /// Records are wanted.
    pub records: bool,
    /// Openings are announced besides (R18).
    pub openings: bool,
    /// Access rules need to know the open flows, records or not (P4).
    pub rules: bool,
}

impl Purpose {
    fn tracks(self) -> bool {
        self.records || self.rules
    }
}

/// What was counted for one packet, to be taken back if it could not be written (R21).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Counted {
    /// Nothing.
    #[default]
    Nothing,
    /// In this flow.
    Flow {
        /// The flow's slot.
        slot: u32,
        /// Its serial number: the slot may be another flow's by then.
        serial: u64,
        /// Whether it was the initiator's packet.
        out: bool,
        /// Which way it went.
        side: Side,
        /// IP bytes.
        bytes: u32,
        /// Payload bytes.
        payload: u32,
    },
    /// As an ICMP error of a flow.
    IcmpError {
        /// Which way it went.
        side: Side,
        /// IP bytes.
        bytes: u32,
    },
    /// In no flow.
    Untracked {
        /// Why.
        reason: Untracked,
        /// Which way it went.
        side: Side,
        /// IP bytes.
        bytes: u32,
    },
}

/// What few flows have, kept beside the slots.
#[derive(Default)]
struct Extra {
    /// All paths, once there is a second.
    paths: Vec<PathSeen>,
    paths_total: u32,
    /// Who tried first, on a denied flow.
    first_src: Option<IpAddr>,
}

/// The table. One worker thread owns it.
pub struct FlowTable {
    purpose: Purpose,
    limits: Limits,
    hasher: ahash::RandomState,
    index: Index,
    slab: Slab,
    wheel: Wheel,
    paths: PathTable,
    peers: HashMap<PeerId, PeerFlows, ahash::RandomState>,
    configured_peers: usize,
    standings: Standings,
    extras: Extras,
    ledger: FlowLedger,
    records: Vec<Record>,
    openings: Vec<FlowRecord>,
    next_serial: u64,
    /// Where [`FlowTable::close_some`] goes on.
    close_from: u32,
    /// The present packet's key and slot, so that asking and counting look up once.
    found: Option<(FlowKey, u32)>,
    counted: Counted,
    clock: Option<Timestamp>,
}

impl FlowTable {
    /// An empty table. Its hash is keyed from the system's randomness.
    ///
    /// Errors: the system has no randomness to give.
    pub fn new(limits: Limits, purpose: Purpose) -> Result<Self, getrandom::Error> {
        let seed = || getrandom::u64();
        let hasher = ahash::RandomState::with_seeds(seed()?, seed()?, seed()?, seed()?);
        Ok(Self {
            purpose,
            limits,
            index: Index::new(),
            slab: Slab::new(),
            wheel: Wheel::new(),
            paths: PathTable::default(),
            peers: HashMap::with_hasher(hasher.clone()),
            configured_peers: 1,
            standings: Standings::new(hasher.clone()),
            extras: Extras::default(),
            ledger: FlowLedger::default(),
            records: Vec::new(),
            openings: Vec::new(),
            next_serial: 1,
            close_from: 0,
            found: None,
            counted: Counted::Nothing,
            clock: None,
            hasher,
        })
    }

    /// Takes new limits and a new purpose. Open flows go on under them; without a purpose they end here.
    pub fn configure(&mut self, limits: Limits, purpose: Purpose, configured_peers: usize) {
        let limits_changed = std::mem::replace(&mut self.limits, limits) != limits;
        self.configured_peers = configured_peers;
        if !purpose.tracks() {
            while self.close_some(EndReason::Shutdown, usize::MAX) {}
        }
        self.purpose = purpose;
        if limits_changed {
            for slot in self.slab.live_from(0).collect::<Vec<_>>() {
                self.schedule(slot);
            }
        }
    }

    /// Whether packets are counted at all.
    pub fn tracks(&self) -> bool {
        self.purpose.tracks()
    }

    /// A number for an outer path, to be given to `record_path`; [`FlowTable::release_path`] gives it back.
    pub fn add_path(&mut self, path: OuterPath) -> PathId {
        self.paths.add(path)
    }

    /// The holder of this path has another one now.
    pub fn release_path(&mut self, path: PathId) {
        self.paths.release(path);
    }

    /// What an open flow says of this packet (P1); for an ICMP error, the flow of the packet inside it. `None` where
    /// there is none, or where this packet begins another flow on the tuple (R7).
    pub fn standing(&mut self, peer: PeerId, side: Side, packet: &PacketInfo, now: Timestamp) -> Option<Standing> {
        if !self.tracks() {
            return None;
        }
        let key = match packet.transport {
            Transport::IcmpError { original, .. } => FlowKey::of_original(peer, side, &original?),
            _ => FlowKey::of(peer, side, packet)?.0,
        };
        let slot = self.lookup(&key, now)?;
        self.found = Some((key, slot));
        let flow = &self.slab[slot];
        if let Transport::Tcp { flags, .. } = packet.transport
            && tcp::splits(flow.flags, from_initiator(flow, side), flags)
        {
            return None;
        }
        Some(self.standings.get(flow.standing))
    }

    /// What was counted for the packet whose scope ended last.
    pub fn take_counted(&mut self) -> Counted {
        std::mem::take(&mut self.counted)
    }

    /// The packet was not written after all: its counts are taken back (R21, scenario 42).
    pub fn take_back(&mut self, counted: Counted) {
        match counted {
            Counted::Nothing => {}
            Counted::Flow {
                slot,
                serial,
                out,
                side,
                bytes,
                payload,
            } => {
                self.ledger.side(side).forwarded.take(bytes.into());
                self.take_back_from_flow(slot, serial, out, side, bytes.into(), payload.into());
            }
            Counted::IcmpError { side, bytes } => {
                self.ledger.side(side).forwarded.take(bytes.into());
                self.ledger.side(side).icmp_errors.take(bytes.into());
            }
            Counted::Untracked { reason, side, bytes } => {
                self.ledger.side(side).forwarded.take(bytes.into());
                self.ledger.side(side).untracked[reason as usize].take(bytes.into());
            }
        }
    }

    /// Ends what is due, and notes a stepped wall clock. Call it before the packets of the same moment.
    pub fn handle_timeout(&mut self, now: Timestamp) {
        self.watch_clock(now);
        for _ in 0..EXPIRE_BUDGET {
            let limits = &self.limits;
            let due = self
                .wheel
                .next_due(&mut self.slab, now.mono, |slab, slot| limits.deadline(&slab[slot]));
            let Some(slot) = due else { return };
            if self.limits.deadline(&self.slab[slot]) <= now.mono {
                self.end(slot, EndReason::Idle);
            } else {
                self.schedule(slot);
            }
        }
    }

    /// The monotonic nanoseconds at which `handle_timeout` has something to do.
    pub fn poll_timeout(&self) -> Option<u64> {
        self.wheel.poll_timeout()
    }

    /// Ends the flows of a peer that left the configuration.
    pub fn close_peer(&mut self, peer: PeerId) {
        while let Some(flows) = self.peers.get(&peer) {
            let Some(slot) = flows.allowed.head().or(flows.denied.head()) else {
                break;
            };
            self.end(slot, EndReason::PeerRemoved);
        }
        self.peers.remove(&peer);
    }

    /// Ends up to `most` flows and says whether any are left. In their close delay they keep their own reason (R27).
    pub fn close_some(&mut self, reason: EndReason, most: usize) -> bool {
        let slots: Vec<u32> = self.slab.live_from(self.close_from).take(most).collect();
        // Nothing opens meanwhile, so what is behind stays empty: a million flows are scanned once.
        self.close_from = slots.last().map_or(0, |last| last + 1);
        for slot in slots {
            self.end(slot, reason);
        }
        self.slab.len() > 0
    }

    /// The records made since the last call, in order.
    pub fn drain_records(&mut self) -> std::vec::Drain<'_, Record> {
        self.records.drain(..)
    }

    /// The openings since the last call, in order: events for handlers, not records (R18).
    pub fn drain_openings(&mut self) -> std::vec::Drain<'_, FlowRecord> {
        self.openings.drain(..)
    }

    /// Whether records or openings wait to be drained.
    pub fn has_records(&self) -> bool {
        !self.records.is_empty() || !self.openings.is_empty()
    }

    /// The books.
    pub fn ledger(&self) -> FlowLedger {
        FlowLedger {
            live_flows: self.slab.len() as u64,
            opened_flows: self.next_serial - 1,
            ..self.ledger
        }
    }

    pub(super) fn begin_packet(&mut self) {
        self.found = None;
        self.counted = Counted::Nothing;
    }

    /// Counts a packet by its facts. Incomplete ones are forgotten: a half-known packet leaves no half record.
    pub(super) fn count(&mut self, facts: &PacketFacts, now: Timestamp) {
        let (Some(peer), Some(packet), Some(standing)) = (facts.peer, &facts.packet, facts.standing) else {
            return;
        };
        if !self.tracks() {
            return;
        }
        match standing.verdict {
            Verdict::Deny => self.deny(peer, facts.side, packet, standing, now),
            Verdict::Allow => {
                let Some(path) = facts.path else { return };
                self.pass(
                    Passed {
                        peer,
                        side: facts.side,
                        packet,
                        standing,
                        path,
                    },
                    now,
                );
            }
        }
    }

    fn pass(&mut self, passed: Passed<'_>, now: Timestamp) {
        let Passed { peer, side, packet, .. } = passed;
        match packet.transport {
            Transport::IcmpError { kind, code, original } => {
                self.pass_icmp_error(peer, side, packet, IcmpError { kind, code, original }, now);
            }
            Transport::Fragment => self.leave_untracked(Untracked::Fragment, side, packet.len),
            // Dropped by the gateway before it comes here; a caller that passes one on gets it in the books.
            Transport::Redirect => self.leave_untracked(Untracked::IcmpError, side, packet.len),
            Transport::Tcp { flags, .. } => self.pass_tcp(passed, flags, now),
            Transport::Udp { .. } | Transport::Echo { .. } | Transport::Icmp { .. } | Transport::Other => {
                let Some((key, initiator)) = FlowKey::of(peer, side, packet) else {
                    return;
                };
                match self.lookup(&key, now) {
                    Some(slot) => self.add(slot, passed, now),
                    None => {
                        let known = flag::INITIATOR_KNOWN;
                        self.open(key, initiator, known, passed, now);
                    }
                }
            }
        }
    }

    fn pass_tcp(&mut self, passed: Passed<'_>, segment: crate::packet::TcpFlags, now: Timestamp) {
        let Passed { peer, side, packet, .. } = passed;
        let Some((key, _)) = FlowKey::of(peer, side, packet) else {
            return;
        };
        if let Some(slot) = self.lookup(&key, now) {
            let flow = &self.slab[slot];
            if !tcp::splits(flow.flags, from_initiator(flow, side), segment) {
                return self.add(slot, passed, now);
            }
            self.end(slot, EndReason::Reused);
        }
        let Some(opening) = tcp::opening(segment, packet.payload) else {
            return self.leave_untracked(Untracked::Stray, side, packet.len);
        };
        let known = if opening.known { flag::INITIATOR_KNOWN } else { 0 };
        let half_open = if opening.half_open { flag::BEGAN_WITH_SYN } else { 0 };
        self.open(key, opening.initiator, known | half_open, passed, now);
    }

    /// An ICMP error belongs to the flow that its embedded packet names and keeps nothing alive (R13).
    fn pass_icmp_error(&mut self, peer: PeerId, side: Side, packet: &PacketInfo, error: IcmpError, now: Timestamp) {
        let slot = error
            .original
            .and_then(|original| self.lookup(&FlowKey::of_original(peer, side, &original), now));
        let Some(slot) = slot else {
            return self.leave_untracked(Untracked::IcmpError, side, packet.len);
        };
        let books = self.ledger.side(side);
        books.forwarded.add(packet.len.into());
        books.icmp_errors.add(packet.len.into());
        self.counted = Counted::IcmpError {
            side,
            bytes: packet.len,
        };
        let hard = match packet.protocol {
            protocol::ICMP => error.kind == 3 && matches!(error.code, 2 | 3),
            _ => error.kind == 1 && error.code == 4,
        };
        let flow = &self.slab[slot];
        if hard && !flow.is(flag::ANSWERED | flag::CLOSING) && !from_initiator(flow, side) {
            self.end(slot, EndReason::IcmpUnreachable);
        }
    }

    fn leave_untracked(&mut self, reason: Untracked, side: Side, bytes: u32) {
        let books = self.ledger.side(side);
        books.forwarded.add(bytes.into());
        books.untracked[reason as usize].add(bytes.into());
        self.counted = Counted::Untracked { reason, side, bytes };
    }

    /// Counts a packet in its flow.
    fn add(&mut self, slot: u32, passed: Passed<'_>, now: Timestamp) {
        let Passed { side, packet, path, .. } = passed;
        let flow = &mut self.slab[slot];
        let out = from_initiator(flow, side);
        let counts = if out {
            &mut flow.traffic.out
        } else {
            &mut flow.traffic.r#in
        };
        counts.packets += 1;
        counts.bytes += u64::from(packet.len);
        counts.payload += u64::from(packet.payload);
        flow.last = now.mono;
        if !out {
            flow.flags |= flag::ANSWERED;
        }
        self.counted = Counted::Flow {
            slot,
            serial: flow.serial,
            out,
            side,
            bytes: packet.len,
            payload: packet.payload,
        };
        let mut closes = false;
        if let Transport::Tcp { flags, .. } = packet.transport {
            let seen = if out { &mut flow.tcp_out } else { &mut flow.tcp_in };
            *seen |= flags.0;
            let before = flow.flags;
            flow.flags = tcp::after(before, out, flags);
            closes = before & flag::CLOSING == 0 && flow.is(flag::CLOSING);
            if closes {
                flow.closes_at = now.mono.saturating_add(self.limits.close_delay);
            }
        }
        let moved = flow.path != path;
        let books = self.ledger.side(side);
        books.forwarded.add(packet.len.into());
        books.live.add(packet.len.into());
        if closes {
            self.schedule(slot);
        }
        if moved {
            self.change_path(slot, path, now);
        }
    }

    fn open(&mut self, key: FlowKey, initiator: Initiator, flags: u16, passed: Passed<'_>, now: Timestamp) {
        self.make_room(key.peer);
        let by_peer = if initiator.is_peer(passed.side) {
            flag::INITIATOR_IS_PEER
        } else {
            0
        };
        self.paths.hold(passed.path);
        let slot = self.take_slot(key, flags | by_peer, passed.standing, passed.path, now);
        let peer = self.peers.entry(key.peer).or_insert_with(PeerFlows::new);
        peer.allowed.push(&mut self.slab, slot);
        peer.opened(&self.slab, slot);
        self.add(slot, passed, now);
        self.schedule(slot);
        self.announce(slot);
    }

    pub(super) fn open_denied(
        &mut self,
        key: FlowKey,
        side: Side,
        standing: Standing,
        first_src: Option<IpAddr>,
        now: Timestamp,
    ) -> u32 {
        let by_peer = if side == Side::FromPeer {
            flag::INITIATOR_IS_PEER
        } else {
            0
        };
        let slot = self.take_slot(key, flag::INITIATOR_KNOWN | by_peer, standing, PathId::NONE, now);
        if first_src.is_some() {
            self.extras.of(&mut self.slab[slot]).first_src = first_src;
        }
        let peer = self.peers.entry(key.peer).or_insert_with(PeerFlows::new);
        peer.denied.push(&mut self.slab, slot);
        self.ledger.live_denied += 1;
        self.schedule(slot);
        slot
    }

    pub(super) fn count_attempt(&mut self, slot: u32, bytes: u32, now: Timestamp) {
        let flow = &mut self.slab[slot];
        // A denied flow has no forwarded counts: their place holds the attempts.
        flow.traffic.out.packets += 1;
        flow.traffic.out.bytes += u64::from(bytes);
        flow.last = now.mono;
        self.ledger.attempts.add(bytes.into());
    }

    pub(super) fn denied_flows(&self, peer: PeerId) -> usize {
        self.peers.get(&peer).map_or(0, |flows| flows.denied.len())
    }

    /// Tells handlers that a flow opened.
    pub(super) fn announce(&mut self, slot: u32) {
        if self.purpose.openings {
            let opening = self.record(slot, Activity::Open, None);
            self.openings.push(FlowRecord {
                number: 0,
                delta: Traffic::default(),
                ..opening
            });
        }
    }

    fn take_slot(&mut self, key: FlowKey, flags: u16, standing: Standing, path: PathId, now: Timestamp) -> u32 {
        let standing = self.standings.number(standing);
        let slot = self.slab.take();
        let flow = &mut self.slab[slot];
        flow.near = key.near;
        flow.far = key.far;
        flow.peer = key.peer.0;
        flow.near_port = key.near_port;
        flow.far_port = key.far_port;
        flow.protocol = key.protocol;
        flow.class = key.class;
        flow.serial = self.next_serial;
        flow.start_mono = now.mono;
        flow.start_wall = now.wall;
        flow.last = now.mono;
        flow.path = path;
        flow.standing = standing;
        flow.flags |= flags;
        self.next_serial += 1;
        self.index.insert(self.hasher.hash_one(key), slot);
        slot
    }

    /// The live flow with this key. One whose time is over ends here, whether or not a timer ran (R17).
    pub(super) fn lookup(&mut self, key: &FlowKey, now: Timestamp) -> Option<u32> {
        if let Some((found, slot)) = self.found.take()
            && found == *key
        {
            return Some(slot);
        }
        let slab = &self.slab;
        let slot = self
            .index
            .find(self.hasher.hash_one(key), |slot| key_of(&slab[slot]) == *key)?;
        if self.limits.deadline(&self.slab[slot]) <= now.mono {
            self.end(slot, EndReason::Idle);
            return None;
        }
        Some(slot)
    }

    /// Makes room for one more flow of this peer (R26). More than one goes where a reload has lowered a bound.
    fn make_room(&mut self, peer: PeerId) {
        for _ in 0..EVICTIONS_PER_OPENING {
            let Some(loser) = self.loser(peer) else { return };
            let slot = self
                .peers
                .get_mut(&loser)
                .and_then(|flows| flows.least_recent(&self.slab));
            let Some(slot) = slot else { return };
            self.end(slot, EndReason::Evicted);
        }
    }

    /// Who has to give one up for a new flow of this peer: itself at its bound, else whoever holds most in a full table.
    fn loser(&mut self, peer: PeerId) -> Option<PeerId> {
        let bound = self.limits.per_peer(self.configured_peers);
        let own = self.peers.get(&peer).map_or(0, |flows| flows.allowed.len());
        let total = self.allowed_flows();
        if own >= bound {
            return Some(peer);
        }
        if total >= self.limits.max_flows {
            let most = self
                .peers
                .iter()
                .max_by_key(|(id, flows)| (flows.allowed.len(), std::cmp::Reverse(**id)));
            return most.map(|(id, _)| *id);
        }
        if own < bound / 2
            && total < self.limits.max_flows / 2
            && let Some(flows) = self.peers.get_mut(&peer)
        {
            flows.relax();
        }
        None
    }

    fn allowed_flows(&self) -> usize {
        self.slab.len() - self.ledger.live_denied as usize
    }

    /// Ends a flow: its record is made, its slot is free. In its close delay a flow keeps its own reason.
    fn end(&mut self, slot: u32, reason: EndReason) {
        let reason = tcp::end_reason(self.slab[slot].flags).unwrap_or(reason);
        let empty = self.slab[slot].traffic == Traffic::default();
        if self.purpose.records && !empty {
            let record = self.record(slot, Activity::Close, Some(reason));
            self.records.push(Record::Flow(record));
        }
        let flow = &self.slab[slot];
        let key = key_of(flow);
        let path = flow.path;
        if key.class & class::DENIED == 0 {
            for side in Side::BOTH {
                let counts = if from_initiator(flow, side) {
                    flow.traffic.out
                } else {
                    flow.traffic.r#in
                };
                let tally = Tally {
                    packets: counts.packets,
                    bytes: counts.bytes,
                };
                let books = self.ledger.side(side);
                books.live.part(tally);
                books.ended.join(tally);
            }
        } else {
            self.ledger.live_denied -= 1;
        }
        self.index.remove(self.hasher.hash_one(key), slot);
        self.wheel.cancel(&mut self.slab, slot);
        if let Some(flows) = self.peers.get_mut(&key.peer) {
            let list = if key.class & class::DENIED == 0 {
                &mut flows.allowed
            } else {
                &mut flows.denied
            };
            list.remove(&mut self.slab, slot);
        }
        self.paths.release(path);
        self.extras.free(&mut self.slab[slot]);
        self.slab.put_back(slot);
    }

    fn take_back_from_flow(&mut self, slot: u32, serial: u64, out: bool, side: Side, bytes: u64, payload: u64) {
        let shrink = |traffic: &mut Traffic| {
            let counts = if out { &mut traffic.out } else { &mut traffic.r#in };
            counts.packets -= 1;
            counts.bytes -= bytes;
            counts.payload -= payload;
        };
        if self.slab[slot].serial == serial {
            shrink(&mut self.slab[slot].traffic);
            self.ledger.side(side).live.take(bytes);
            if self.slab[slot].traffic == Traffic::default() {
                // The flow's only packet never left: there was no flow.
                self.openings.retain(|opening| opening.serial != serial);
                self.end(slot, EndReason::Evicted);
            }
            return;
        }
        // It ended between its packet and the flush. Its record has not left yet: records are drained after a flush.
        self.ledger.side(side).ended.take(bytes);
        let place = self.records.iter().rposition(
            |record| matches!(record, Record::Flow(flow) if flow.serial == serial && flow.end_reason.is_some()),
        );
        let Some(place) = place else { return };
        let Record::Flow(record) = &mut self.records[place] else {
            return;
        };
        shrink(&mut record.total);
        shrink(&mut record.delta);
        if record.total == Traffic::default() {
            self.records.remove(place);
        }
    }

    fn change_path(&mut self, slot: u32, path: PathId, now: Timestamp) {
        let (Some(old), Some(new)) = (self.paths.get(self.slab[slot].path), self.paths.get(path)) else {
            return;
        };
        let flow = &mut self.slab[slot];
        self.paths.hold(path);
        self.paths.release(std::mem::replace(&mut flow.path, path));
        if old == new {
            return;
        }
        let since = flow.start_wall;
        let extra = self.extras.of(flow);
        if extra.paths.is_empty() {
            extra.paths.push(PathSeen { path: old, since });
            extra.paths_total = 1;
        }
        if extra.paths.len() == MAX_PATHS {
            extra.paths.pop();
        }
        extra.paths.push(PathSeen {
            path: new,
            since: now.wall,
        });
        extra.paths_total = extra.paths_total.saturating_add(1);
    }

    fn schedule(&mut self, slot: u32) {
        let deadline = self.limits.deadline(&self.slab[slot]);
        self.wheel.schedule(&mut self.slab, slot, deadline);
    }

    /// A wall clock that jumps changes no duration, and is noted (R16).
    fn watch_clock(&mut self, now: Timestamp) {
        let Some(before) = self.clock.replace(now) else { return };
        let expected = before.wall.saturating_add(now.mono.saturating_sub(before.mono));
        if now.wall.abs_diff(expected) > CLOCK_STEP && self.purpose.records {
            let by = i128::from(now.wall) - i128::from(expected);
            let by = i64::try_from(by).unwrap_or(if by < 0 { i64::MIN } else { i64::MAX });
            self.records.push(Record::Note(Note::ClockStep { at: now.wall, by }));
        }
    }

    fn record(&self, slot: u32, activity: Activity, end_reason: Option<EndReason>) -> FlowRecord {
        let flow = &self.slab[slot];
        let standing = self.standings.get(flow.standing);
        let extra = self.extras.get(flow);
        let by_peer = flow.is(flag::INITIATOR_IS_PEER);
        let near = (narrow(flow.near, flow.class), flow.near_port);
        let far = (narrow(flow.far, flow.class), flow.far_port);
        let denied = flow.class & class::DENIED != 0;
        let (src, dst) = match (denied, by_peer) {
            (true, _) => {
                let first = extra.and_then(|extra| extra.first_src);
                ((first.unwrap_or(nobody(far.0)), 0), far)
            }
            (false, true) => (near, far),
            (false, false) => (far, near),
        };
        let query = flow.class & class::ICMP_QUERY != 0;
        let port = |port: u16| if query { 0 } else { port };
        let (total, attempts) = if denied {
            (Traffic::default(), flow.traffic.out)
        } else {
            (flow.traffic, <_>::default())
        };
        let mut paths = extra.map(|extra| extra.paths.clone()).unwrap_or_default();
        if paths.is_empty() {
            paths.extend(self.paths.get(flow.path).map(|path| PathSeen {
                path,
                since: flow.start_wall,
            }));
        }
        let paths_total = extra.map_or(0, |extra| extra.paths_total).max(paths.len() as u32);
        FlowRecord {
            serial: flow.serial,
            activity,
            number: 1,
            peer: PeerId(flow.peer),
            protocol: flow.protocol,
            src_ip: src.0,
            src_port: port(src.1),
            dst_ip: dst.0,
            dst_port: port(dst.1),
            icmp: if denied { None } else { key_of(flow).icmp(by_peer) },
            initiator_known: flow.is(flag::INITIATOR_KNOWN),
            direction: if by_peer {
                Direction::Outbound
            } else {
                Direction::Inbound
            },
            verdict: standing.verdict,
            rule: standing.rule,
            resource: standing.resource,
            domain: standing.domain,
            start: flow.start_wall,
            end: flow.start_wall + (flow.last - flow.start_mono),
            total,
            delta: total,
            attempts: attempts.packets,
            attempted_bytes: attempts.bytes,
            tcp_flags: (flow.protocol == protocol::TCP && !denied).then_some((flow.tcp_out, flow.tcp_in)),
            paths,
            paths_total,
            end_reason,
        }
    }
}

/// A packet that was passed on.
#[derive(Clone, Copy)]
struct Passed<'a> {
    peer: PeerId,
    side: Side,
    packet: &'a PacketInfo,
    standing: Standing,
    path: PathId,
}

struct IcmpError {
    kind: u8,
    code: u8,
    original: Option<Original>,
}

fn from_initiator(flow: &Slot, side: Side) -> bool {
    flow.is(flag::INITIATOR_IS_PEER) == (side == Side::FromPeer)
}

fn key_of(flow: &Slot) -> FlowKey {
    FlowKey {
        near: flow.near,
        far: flow.far,
        peer: PeerId(flow.peer),
        near_port: flow.near_port,
        far_port: flow.far_port,
        protocol: flow.protocol,
        class: flow.class,
    }
}

/// Verdicts and names by number: flows share the few that a configuration makes.
struct Standings {
    all: Vec<Standing>,
    numbers: HashMap<Standing, u32, ahash::RandomState>,
}

impl Standings {
    fn new(hasher: ahash::RandomState) -> Self {
        Self {
            all: Vec::new(),
            numbers: HashMap::with_hasher(hasher),
        }
    }

    fn number(&mut self, standing: Standing) -> u32 {
        *self.numbers.entry(standing).or_insert_with(|| {
            self.all.push(standing);
            (self.all.len() - 1) as u32
        })
    }

    fn get(&self, number: u32) -> Standing {
        self.all[number as usize]
    }
}

/// The [`Extra`]s, addressed by [`Slot::extra`].
#[derive(Default)]
struct Extras {
    entries: Vec<Extra>,
    free: Vec<u32>,
}

impl Extras {
    fn of(&mut self, flow: &mut Slot) -> &mut Extra {
        if flow.extra == NONE {
            flow.extra = self.free.pop().unwrap_or_else(|| {
                self.entries.push(Extra::default());
                (self.entries.len() - 1) as u32
            });
        }
        &mut self.entries[flow.extra as usize]
    }

    fn get(&self, flow: &Slot) -> Option<&Extra> {
        self.entries.get(flow.extra as usize)
    }

    fn free(&mut self, flow: &mut Slot) {
        if flow.extra != NONE {
            self.entries[flow.extra as usize] = Extra::default();
            self.free.push(flow.extra);
            flow.extra = NONE;
        }
    }
}
