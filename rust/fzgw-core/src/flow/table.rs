//! The table of flows: its edge, and their beginning and end.
//!
//! The public edge is small: [`FlowTable::standing`] asks what an open flow says of a packet, a [`PacketScope`]
//! counts it when it ends, [`FlowTable::take_back`] undoes that for a packet that could not be written,
//! [`FlowTable::handle_timeout`] reports and ends what is due, and [`FlowTable::drain_records`] gives the records out.
//!
//! [`PacketScope`]: super::PacketScope

use std::collections::HashMap;

use super::current::PacketFacts;
use super::fragments::{FragmentKey, Fragments, Home, Settled};
use super::index::Index;
use super::key::{FlowKey, Initiator, Side};
use super::ledger::{FlowLedger, Untracked};
use super::lookahead::LOOKAHEAD;
use super::paths::{PathId, PathTable};
use super::pressure::PeerFlows;
use super::record::{EndReason, FlowRecord, Note, OuterPath, PeerId, Record, Standing, Timestamp, Traffic, Verdict};
use super::slab::{Slab, Slot, flag};
use super::takeback::{Counted, FORGOTTEN};
use super::tcp;
use super::wheel::Wheel;
use super::{Limits, Purpose};
use crate::packet::{PacketInfo, Transport};

/// A wall clock that moved by more than this against the monotonic one was stepped (R16).
const CLOCK_STEP: u64 = 1_000_000_000;
/// Flows that make way for a new one at most: 1, but for bounds that were lowered meanwhile.
const EVICTIONS_PER_OPENING: usize = 8;
/// Flows that one call of `handle_timeout` looks at, at most: a turn stays short when a million flows fall silent at
/// once.
const TIMEOUT_BUDGET: usize = 4096;

/// The table. One worker thread owns it.
pub struct FlowTable {
    pub(super) purpose: Purpose,
    pub(super) limits: Limits,
    pub(super) hasher: ahash::RandomState,
    pub(super) index: Index,
    pub(super) slab: Slab,
    pub(super) wheel: Wheel,
    pub(super) paths: PathTable,
    pub(super) peers: HashMap<PeerId, PeerFlows, ahash::RandomState>,
    pub(super) configured_peers: usize,
    /// How many of `peers` are under pressure.
    pub(super) pressed: usize,
    pub(super) fragments: Fragments,
    pub(super) standings: Standings,
    pub(super) ledger: FlowLedger,
    pub(super) records: Vec<Record>,
    /// Records that have been drained.
    pub(super) records_drained: u64,
    /// Whether any record that waits was forgotten (see `takeback`).
    pub(super) any_forgotten: bool,
    pub(super) openings: Vec<FlowRecord>,
    next_serial: u64,
    /// Where [`FlowTable::close_some`] goes on.
    close_from: u32,
    /// The present packet's key and slot, so that asking and counting look up once.
    found: Option<(FlowKey, u32)>,
    pub(super) counted: Counted,
    /// When `handle_timeout` was called last.
    pub(super) clock: Option<Timestamp>,
}

impl FlowTable {
    /// An empty table. Its hash is keyed from the system's randomness.
    ///
    /// Errors: the system has no randomness to give.
    pub fn new(limits: Limits, purpose: Purpose) -> Result<Self, getrandom::Error> {
        Self::with_wheel(limits, purpose, Wheel::new())
    }

    /// A table whose timers are never late, to be compared with a model.
    #[cfg(test)]
    pub(crate) fn exact(limits: Limits, purpose: Purpose) -> Result<Self, getrandom::Error> {
        Self::with_wheel(limits, purpose, Wheel::exact())
    }

    fn with_wheel(limits: Limits, purpose: Purpose, wheel: Wheel) -> Result<Self, getrandom::Error> {
        let seed = || getrandom::u64();
        let hasher = ahash::RandomState::with_seeds(seed()?, seed()?, seed()?, seed()?);
        Ok(Self {
            purpose,
            limits,
            index: Index::new(),
            slab: Slab::new(),
            wheel,
            paths: PathTable::default(),
            peers: HashMap::with_hasher(hasher.clone()),
            configured_peers: 1,
            pressed: 0,
            fragments: Fragments::new(hasher.clone()),
            standings: Standings::new(hasher.clone()),
            ledger: FlowLedger::default(),
            records: Vec::new(),
            records_drained: 0,
            any_forgotten: false,
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
        let reports_changed = self.purpose.reports() != purpose.reports();
        self.purpose = purpose;
        if limits_changed || reports_changed {
            for slot in self.slab.live_from(0).collect::<Vec<_>>() {
                self.set_next_update(slot);
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

    /// What an open flow says of this packet (P1); for an ICMP error, the flow of the packet inside it; for a later
    /// fragment, the flow of its datagram. `None` where there is none, or where this packet begins another flow on the
    /// tuple (R7).
    pub fn standing(&mut self, peer: PeerId, side: Side, packet: &PacketInfo, now: Timestamp) -> Option<Standing> {
        if !self.tracks() {
            return None;
        }
        let key = match packet.transport {
            Transport::IcmpError { original, .. } => FlowKey::of_original(peer, side, &original?),
            Transport::Fragment => {
                let slot = self.flow_of_fragment(&FragmentKey::of(peer, side, packet)?, now)?;
                return Some(self.standings.get(self.slab[slot].standing));
            }
            _ => FlowKey::of(peer, side, packet)?.0,
        };
        let slot = self.lookup(&key, now)?;
        self.found = Some((key, slot));
        let flow = &self.slab[slot];
        if let Transport::Tcp { flags, .. } = packet.transport
            && tcp::splits(flow.flags, flags)
        {
            return None;
        }
        Some(self.standings.get(flow.standing))
    }

    /// What was counted for the packet whose scope ended last.
    pub fn take_counted(&mut self) -> Counted {
        std::mem::take(&mut self.counted)
    }

    /// Reports and ends what is due, and notes a stepped wall clock. Call it before the packets of the same moment.
    pub fn handle_timeout(&mut self, now: Timestamp) {
        self.watch_clock(now);
        while let Some(expired) = self.fragments.expire_oldest(now.mono, self.limits.fragment_timeout) {
            self.give_up_fragments(expired);
        }
        for _ in 0..TIMEOUT_BUDGET / LOOKAHEAD {
            let mut due = [0; LOOKAHEAD];
            let mut count = 0;
            while count < LOOKAHEAD {
                let (limits, purpose) = (&self.limits, self.purpose);
                let next = self.wheel.next_due(&mut self.slab, now.mono, |slab, slot| {
                    deadline(limits, purpose, slab, slot)
                });
                let Some(slot) = next else { break };
                due[count] = slot;
                count += 1;
            }
            self.fetch_to_end(&due[..count]);
            for slot in &due[..count] {
                self.look_at(*slot, now);
            }
            if count < LOOKAHEAD {
                return;
            }
        }
    }

    /// Does what is due of a flow that stands in no bucket of the wheel.
    fn look_at(&mut self, slot: u32, now: Timestamp) {
        if over_from(&self.limits, &self.slab, slot) <= now.mono {
            return self.end(slot, EndReason::Idle);
        }
        if record_due(&self.limits, self.purpose, &self.slab, slot) <= now.mono {
            self.report(slot);
        }
        self.schedule(slot);
    }

    /// The monotonic nanoseconds at which `handle_timeout` has something to do.
    pub fn poll_timeout(&self) -> Option<u64> {
        let fragments = self.fragments.poll_timeout(self.limits.fragment_timeout);
        match (self.wheel.poll_timeout(), fragments) {
            (Some(flows), Some(fragments)) => Some(flows.min(fragments)),
            (flows, fragments) => flows.or(fragments),
        }
    }

    /// Ends the flows of a peer that left the configuration.
    pub fn close_peer(&mut self, peer: PeerId) {
        while let Some(flows) = self.peers.get(&peer) {
            let Some(slot) = flows.allowed.head().or(flows.denied.head()) else {
                break;
            };
            self.end(slot, EndReason::PeerRemoved);
        }
        if let Some(mut flows) = self.peers.remove(&peer)
            && flows.relax()
        {
            self.pressed -= 1;
        }
    }

    /// Ends up to `most` flows and says whether any are left. In their close delay they keep their own reason (R27).
    pub fn close_some(&mut self, reason: EndReason, most: usize) -> bool {
        let slots: Vec<u32> = self.slab.live_from(self.close_from).take(most).collect();
        // Nothing opens meanwhile, so what is behind stays empty: a million flows are scanned once.
        self.close_from = slots.last().map_or(0, |last| last + 1);
        for group in slots.chunks(LOOKAHEAD) {
            self.fetch_to_end(group);
            for slot in group {
                self.end(*slot, reason);
            }
        }
        let more = self.slab.len() > 0;
        if !more {
            self.close_from = 0;
            for expired in self.fragments.clear() {
                self.give_up_fragments(Some(expired));
            }
        }
        more
    }

    /// The records made since the last call, in order.
    pub fn drain_records(&mut self) -> std::vec::Drain<'_, Record> {
        self.records_drained += self.records.len() as u64;
        if std::mem::take(&mut self.any_forgotten) {
            self.records
                .retain(|record| !matches!(record, Record::Flow(flow) if flow.serial == FORGOTTEN));
        }
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

    /// How many records and openings wait to be drained.
    pub fn records_waiting(&self) -> usize {
        self.records.len() + self.openings.len()
    }

    /// The books.
    pub fn ledger(&self) -> FlowLedger {
        FlowLedger {
            live_flows: self.slab.len() as u64,
            opened_flows: self.next_serial - 1,
            ..self.ledger
        }
    }

    /// Slots that are allocated, in use or not.
    #[cfg(test)]
    pub(super) fn slots(&self) -> usize {
        self.slab.capacity()
    }

    /// How many records have been made.
    pub(super) fn records_made(&self) -> u64 {
        self.records_drained + self.records.len() as u64
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

    /// Counts a packet that was passed on, of which everything is known at once.
    pub fn count_passed(&mut self, passed: Passed<'_>, now: Timestamp) {
        self.begin_packet();
        if self.tracks() {
            self.pass(passed, now);
        }
    }

    /// Opens a flow with its first packet.
    pub(super) fn open(
        &mut self,
        key: FlowKey,
        initiator: Initiator,
        flags: u16,
        passed: Passed<'_>,
        now: Timestamp,
    ) -> u32 {
        self.make_room(key.peer);
        let by_peer = if initiator.is_peer(passed.side) {
            flag::INITIATOR_IS_PEER
        } else {
            0
        };
        self.paths.hold(passed.path);
        let slot = self.take_slot(&key, flags | by_peer, passed.standing, passed.path, now);
        let peer = self.peers.entry(key.peer).or_insert_with(PeerFlows::new);
        peer.allowed.push(&mut self.slab, slot);
        self.add_first(slot, passed, now);
        self.schedule(slot);
        self.announce(slot);
        slot
    }

    /// A blank flow with this key.
    pub(super) fn take_slot(
        &mut self,
        key: &FlowKey,
        flags: u16,
        standing: Standing,
        path: PathId,
        now: Timestamp,
    ) -> u32 {
        let standing = self.standings.number(standing);
        let slot = self.slab.take(key);
        let flow = &mut self.slab[slot];
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
        if let Some((found, slot)) = &self.found {
            let (same, slot) = (found == key, *slot);
            self.found = None;
            if same {
                return Some(slot);
            }
        }
        let slab = &self.slab;
        let slot = self
            .index
            .find(self.hasher.hash_one(key), |slot| slab.has_key(slot, key))?;
        self.still_open(slot, now).then_some(slot)
    }

    /// Whether a live flow is still open at `now`. One whose time is over ends here.
    pub(super) fn still_open(&mut self, slot: u32, now: Timestamp) -> bool {
        let over = over_from(&self.limits, &self.slab, slot) <= now.mono;
        if over {
            self.end(slot, EndReason::Idle);
        }
        !over
    }

    /// Whether this slot holds this flow.
    pub(super) fn is_live(&self, slot: u32, serial: u64) -> bool {
        self.slab[slot].serial == serial
    }

    /// Makes room for one more flow of this peer (R26). More than one goes where a reload has lowered a bound.
    fn make_room(&mut self, peer: PeerId) {
        for _ in 0..EVICTIONS_PER_OPENING {
            let Some(loser) = self.loser(peer) else { return };
            let Some(flows) = self.peers.get_mut(&loser) else {
                return;
            };
            if flows.press(&mut self.slab) {
                self.pressed += 1;
            }
            let Some(slot) = flows.allowed.head() else { return };
            self.end(slot, EndReason::Evicted);
        }
    }

    /// Who has to give one up for a new flow of this peer: itself at its bound, else whoever holds most in a full table.
    fn loser(&mut self, peer: PeerId) -> Option<PeerId> {
        let total = self.allowed_flows();
        let bound = self.limits.flows_per_peer(self.configured_peers);
        if total < bound / 2 && self.pressed == 0 {
            return None;
        }
        let own = self.peers.get(&peer).map_or(0, |flows| flows.allowed.len());
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
            && flows.relax()
        {
            self.pressed -= 1;
        }
        None
    }

    fn allowed_flows(&self) -> usize {
        self.slab.len() - self.ledger.live_denied as usize
    }

    /// Ends a flow: its record is made, its slot is free. In its close delay a flow keeps its own reason.
    pub(super) fn end(&mut self, slot: u32, reason: EndReason) {
        let reason = tcp::end_reason(self.slab[slot].flags).unwrap_or(reason);
        let traffic = self.slab.traffic(slot);
        if self.purpose.records && traffic != Traffic::default() {
            let record = self.close_record(slot, reason);
            self.records.push(Record::Flow(record));
        }
        let key = self.slab.key(slot);
        let flow = &self.slab[slot];
        let path = flow.path;
        let denied = flow.is_denied();
        if denied {
            self.ledger.live_denied -= 1;
        } else {
            for side in Side::BOTH {
                let counts = if from_initiator(flow, side) {
                    traffic.out
                } else {
                    traffic.r#in
                };
                let books = self.ledger.side(side);
                books.live.part(counts.tally());
                books.ended.join(counts.tally());
            }
        }
        self.index.remove(self.hasher.hash_one(key), slot);
        self.wheel.cancel(&mut self.slab, slot);
        if let Some(flows) = self.peers.get_mut(&key.peer) {
            let list = if denied { &mut flows.denied } else { &mut flows.allowed };
            list.remove(&mut self.slab, slot);
        }
        self.paths.release(path);
        self.slab.put_back(slot);
    }

    pub(super) fn schedule(&mut self, slot: u32) {
        let deadline = deadline(&self.limits, self.purpose, &self.slab, slot);
        self.wheel.schedule(&mut self.slab, slot, deadline);
    }

    /// The flow that a datagram's later fragments belong to.
    pub(super) fn flow_of_fragment(&mut self, key: &FragmentKey, now: Timestamp) -> Option<u32> {
        self.expire_fragment(key, now);
        let (Home::Flow { slot, serial, .. }, _) = self.fragments.get(key)? else {
            return None;
        };
        (self.is_live(slot, serial) && self.still_open(slot, now)).then_some(slot)
    }

    pub(super) fn expire_fragment(&mut self, key: &FragmentKey, now: Timestamp) {
        let expired = self.fragments.expire_one(key, now.mono, self.limits.fragment_timeout);
        self.give_up_fragments(expired);
    }

    fn give_up_fragments(&mut self, expired: Option<super::fragments::Expired>) {
        let Some(super::fragments::Expired { side, counts, id }) = expired else {
            return;
        };
        self.fragments.settle(id, Settled::Untracked);
        let books = self.ledger.side(side);
        books.pending_fragments.part(counts.tally());
        books.untracked[Untracked::Fragment as usize].join(counts.tally());
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
}

/// The first nanosecond at which a flow is over.
fn over_from(limits: &Limits, slab: &Slab, slot: u32) -> u64 {
    let flow = &slab[slot];
    let last_open = match slab.body(slot) {
        Some(body) if flow.is(flag::CLOSING) => body.closes_at,
        Some(_) | None => flow.last.saturating_add(limits.idle(flow)),
    };
    last_open.saturating_add(1)
}

/// When a flow's open or update record is due.
fn record_due(limits: &Limits, purpose: Purpose, slab: &Slab, slot: u32) -> u64 {
    let flow = &slab[slot];
    if !purpose.reports() || flow.is(flag::CLOSING) {
        return u64::MAX;
    }
    if !flow.is(flag::REPORTED) {
        return flow.start_mono.saturating_add(limits.open_after);
    }
    if flow.is(flag::CLEAN) {
        return u64::MAX;
    }
    slab.extra(slot).map_or(u64::MAX, |extra| extra.next_update)
}

/// When a flow is to be looked at.
fn deadline(limits: &Limits, purpose: Purpose, slab: &Slab, slot: u32) -> u64 {
    over_from(limits, slab, slot).min(record_due(limits, purpose, slab, slot))
}

/// A packet that was passed on.
#[derive(Clone, Copy)]
pub struct Passed<'a> {
    /// Whose it is.
    pub peer: PeerId,
    /// Which way it travels.
    pub side: Side,
    /// What it is.
    pub packet: &'a PacketInfo,
    /// Why it was let pass.
    pub standing: Standing,
    /// Its outer path.
    pub path: PathId,
}

pub(super) fn from_initiator(flow: &Slot, side: Side) -> bool {
    flow.is(flag::INITIATOR_IS_PEER) == (side == Side::FromPeer)
}

/// Verdicts and names by number: flows share the few that a configuration makes.
pub(super) struct Standings {
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

    pub(super) fn get(&self, number: u32) -> Standing {
        self.all[number as usize]
    }
}
