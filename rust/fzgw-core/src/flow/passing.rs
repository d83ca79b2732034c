//! Packets that were passed on: which flow they belong to, and what they do to it.

use super::errors;
use super::fragments::{FragmentKey, Home, Settled};
use super::key::{FlowKey, Side};
use super::ledger::Untracked;
use super::paths::PathId;
use super::record::{Counts, EndReason, MAX_PATHS, PathSeen, PeerId, Timestamp};
use super::slab::{Body, flag};
use super::table::{FlowTable, Passed, from_initiator};
use super::takeback::{Counted, InFlow};
use super::tcp;
use crate::packet::{Fragment, Original, PacketInfo, TcpFlags, Transport, protocol};

/// What is looked at of an ICMP error.
struct IcmpError {
    kind: u8,
    code: u8,
    original: Option<Original>,
}

/// What is looked at of a TCP segment.
#[derive(Clone, Copy)]
struct Segment {
    flags: TcpFlags,
    seq: u32,
}

impl FlowTable {
    /// Counts a packet that was passed on.
    pub(super) fn pass(&mut self, passed: Passed<'_>, now: Timestamp) {
        let Passed { peer, side, packet, .. } = passed;
        let flow = match packet.transport {
            Transport::IcmpError { kind, code, original } => {
                self.pass_icmp_error(peer, side, packet, &IcmpError { kind, code, original }, now);
                None
            }
            Transport::Fragment => return self.pass_fragment(passed, now),
            Transport::Redirect => {
                // Dropped by the gateway before it comes here; a caller that passes one on gets it in the books.
                self.leave_untracked(Untracked::IcmpError, side, packet);
                None
            }
            Transport::Tcp { flags, seq, .. } => self.pass_tcp(passed, Segment { flags, seq }, now),
            Transport::Udp { .. } | Transport::Echo { .. } | Transport::Icmp { .. } | Transport::Other => {
                self.pass_other(passed, now)
            }
        };
        if packet.fragment.is_some() {
            self.settle_fragments(passed, flow, now);
        }
    }

    fn pass_other(&mut self, passed: Passed<'_>, now: Timestamp) -> Option<u32> {
        let (key, initiator) = FlowKey::of(passed.peer, passed.side, passed.packet)?;
        Some(match self.lookup(&key, now) {
            Some(slot) => {
                self.add(slot, passed, None, now);
                slot
            }
            None => self.open(key, initiator, flag::INITIATOR_KNOWN, passed, now),
        })
    }

    fn pass_tcp(&mut self, passed: Passed<'_>, segment: Segment, now: Timestamp) -> Option<u32> {
        let Passed { peer, side, packet, .. } = passed;
        let (key, _) = FlowKey::of(peer, side, packet)?;
        if let Some(slot) = self.lookup(&key, now) {
            let flow = &self.slab[slot];
            if !tcp::splits(flow.flags, segment.flags) {
                self.add(slot, passed, Some(segment), now);
                return Some(slot);
            }
            self.end(slot, EndReason::Reused);
        }
        let Some(opening) = tcp::opening(segment.flags, packet.payload) else {
            self.leave_untracked(Untracked::Stray, side, packet);
            return None;
        };
        let known = if opening.known { flag::INITIATOR_KNOWN } else { 0 };
        let half_open = if opening.half_open { flag::BEGAN_WITH_SYN } else { 0 };
        Some(self.open(key, opening.initiator, known | half_open, passed, now))
    }

    /// An ICMP error belongs to the flow that its embedded packet names and keeps nothing alive (R13).
    fn pass_icmp_error(&mut self, peer: PeerId, side: Side, packet: &PacketInfo, error: &IcmpError, now: Timestamp) {
        let slot = error
            .original
            .and_then(|original| self.lookup(&FlowKey::of_original(peer, side, &original), now));
        let Some(slot) = slot else {
            return self.leave_untracked(Untracked::IcmpError, side, packet);
        };
        let books = self.ledger.side(side);
        books.forwarded.count(packet);
        books.icmp_errors.count(packet);
        let made = self.records_made();
        errors::add(
            &mut self.slab.with_extra(slot).icmp_errors,
            (error.kind, error.code),
            packet.len,
        );
        let flow = &self.slab[slot];
        self.counted = Counted::IcmpError {
            slot,
            serial: flow.serial,
            made,
            kind: error.kind,
            code: error.code,
            side,
            bytes: packet.len,
        };
        let hard = match packet.protocol {
            protocol::ICMP => error.kind == 3 && matches!(error.code, 2 | 3),
            _ => error.kind == 1 && error.code == 4,
        };
        if hard && !flow.is(flag::ANSWERED | flag::CLOSING) && !from_initiator(flow, side) {
            self.end(slot, EndReason::IcmpUnreachable);
        }
    }

    /// A fragment without ports goes where its datagram's first went, or waits for that (R15).
    fn pass_fragment(&mut self, passed: Passed<'_>, now: Timestamp) {
        let Passed { peer, side, packet, .. } = passed;
        let (Some(key), Some(Fragment { first, .. })) = (FragmentKey::of(peer, side, packet), packet.fragment) else {
            return self.leave_untracked(Untracked::Fragment, side, packet);
        };
        if first {
            // It is the one that has the ports, and is too short to hold them.
            self.leave_untracked(Untracked::Fragment, side, packet);
            return self.settle_fragments(passed, None, now);
        }
        if let Some(slot) = self.flow_of_fragment(&key, now) {
            return self.add(slot, passed, None, now);
        }
        let mut one = Counts::ZERO;
        one.count(packet);
        let (most, most_per_peer) = (
            self.limits.max_fragments,
            self.limits.fragments_per_peer(self.configured_peers),
        );
        let id = match self.fragments.get(&key) {
            Some((Home::Flow { .. } | Home::Untracked, _)) => None,
            Some((Home::Waiting(_), _)) => self.fragments.waiting(&key).map(|(counts, id)| {
                counts.join(one);
                id
            }),
            None => self
                .fragments
                .put(key, Home::Waiting(one), now.mono, most, most_per_peer),
        };
        let Some(id) = id else {
            return self.leave_untracked(Untracked::Fragment, side, packet);
        };
        let books = self.ledger.side(side);
        books.forwarded.count(packet);
        books.pending_fragments.count(packet);
        self.counted = Counted::Waiting { id, side, counts: one };
    }

    /// The first fragment of a datagram came and was counted in `flow`, or in none: what waited for it follows.
    fn settle_fragments(&mut self, passed: Passed<'_>, flow: Option<u32>, now: Timestamp) {
        let Passed { peer, side, packet, .. } = passed;
        let Some(key) = FragmentKey::of(peer, side, packet) else {
            return;
        };
        self.expire_fragment(&key, now);
        let waiting = self.fragments.waiting(&key).map(|(counts, id)| (*counts, id));
        let home = match flow {
            Some(slot) => Home::Flow {
                slot,
                serial: self.slab[slot].serial,
            },
            None => Home::Untracked,
        };
        let (most, most_per_peer) = (
            self.limits.max_fragments,
            self.limits.fragments_per_peer(self.configured_peers),
        );
        // Without room the later ones wait for a first that has gone by, in the books as well.
        let _ = self.fragments.put(key, home, now.mono, most, most_per_peer);
        let Some((waiting, id)) = waiting else { return };
        let books = self.ledger.side(side);
        books.pending_fragments.part(waiting.tally());
        let Some(slot) = flow else {
            books.untracked[Untracked::Fragment as usize].join(waiting.tally());
            return self.fragments.settle(id, Settled::Untracked);
        };
        books.live.join(waiting.tally());
        let out = from_initiator(&self.slab[slot], side);
        let made = self.records_made();
        let (flow, body) = self.slab.with_body(slot);
        if out {
            flow.out.join(waiting);
        } else {
            body.r#in.join(waiting);
        }
        let serial = flow.serial;
        self.fragments.settle(
            id,
            Settled::Flow {
                slot,
                serial,
                made,
                out,
            },
        );
    }

    fn leave_untracked(&mut self, reason: Untracked, side: Side, packet: &PacketInfo) {
        let books = self.ledger.side(side);
        books.forwarded.count(packet);
        books.untracked[reason as usize].count(packet);
        let mut counts = Counts::ZERO;
        counts.count(packet);
        self.counted = Counted::Untracked { reason, side, counts };
    }

    /// Counts a flow's first packet.
    pub(super) fn add_first(&mut self, slot: u32, passed: Passed<'_>, now: Timestamp) {
        let packet = passed.packet;
        let segment = match packet.transport {
            Transport::Tcp { flags, seq, .. } => Some(Segment { flags, seq }),
            _ => None,
        };
        if !from_initiator(&self.slab[slot], passed.side) {
            return self.add(slot, passed, segment, now);
        }
        let flow = &mut self.slab[slot];
        flow.out.count(packet);
        // What an initiator's first segment says is kept in the slot alone: most floods and scans stay at that.
        if let Some(Segment { flags, seq }) = segment {
            flow.tcp_out = flags.0;
            flow.next_out = seq.wrapping_add(tcp::sequence_length(flags, packet.payload));
            flow.flags = tcp::after(flow.flags, true, flags);
        }
        self.enter(slot, passed, true);
    }

    /// Counts a packet in its flow.
    fn add(&mut self, slot: u32, passed: Passed<'_>, segment: Option<Segment>, now: Timestamp) {
        let Passed { side, packet, path, .. } = passed;
        let flow = &self.slab[slot];
        if flow.is(flag::CLEAN) {
            self.soil(slot);
        }
        let flow = &mut self.slab[slot];
        let out = from_initiator(flow, side);
        flow.last = now.mono;
        let is_tcp = flow.protocol() == protocol::TCP;
        let opening_is_longer = self.limits.tcp_opening_idle > self.limits.tcp_idle;
        let (mut closes, mut sooner) = (false, false);
        if out && !is_tcp {
            flow.out.count(packet);
        } else {
            let close_delay = self.limits.close_delay;
            let (flow, body) = self.slab.with_body(slot);
            if out {
                flow.out.count(packet);
            } else {
                body.r#in.count(packet);
                sooner = opening_is_longer && !flow.is(flag::ANSWERED);
                flow.flags |= flag::ANSWERED;
            }
            if let Some(segment) = segment {
                let before = flow.flags;
                flow.flags = tcp::after(before, out, segment.flags);
                let next_out = &mut flow.next_out;
                let seen = if out { &mut flow.tcp_out } else { &mut body.tcp_in };
                *seen |= segment.flags.0;
                take_in(body, next_out, segment, packet, out, now.mono);
                closes = before & flag::CLOSING == 0 && flow.is(flag::CLOSING);
                if closes {
                    body.closes_at = now.mono.saturating_add(close_delay);
                }
            }
        }
        self.enter(slot, passed, out);
        if closes || sooner {
            self.schedule(slot);
        }
        if self.pressed > 0
            && let Some(flows) = self.peers.get_mut(&passed.peer)
        {
            flows.touched(&mut self.slab, slot);
        }
        if self.slab[slot].path != path {
            self.change_path(slot, path, now);
        }
    }

    /// Writes a packet that was just counted in a flow into the books.
    fn enter(&mut self, slot: u32, passed: Passed<'_>, out: bool) {
        let Passed { side, packet, .. } = passed;
        let books = self.ledger.side(side);
        books.forwarded.count(packet);
        books.live.count(packet);
        let mut counts = Counts::ZERO;
        counts.count(packet);
        self.counted = Counted::Flow(InFlow {
            slot,
            serial: self.slab[slot].serial,
            made: self.records_made(),
            out,
            side,
            counts,
        });
    }

    fn change_path(&mut self, slot: u32, path: PathId, now: Timestamp) {
        let (Some(old), Some(new)) = (self.paths.get(self.slab[slot].path), self.paths.get(path)) else {
            return;
        };
        let flow = &mut self.slab[slot];
        let since = flow.start_wall;
        self.paths.hold(path);
        self.paths.release(std::mem::replace(&mut flow.path, path));
        if old == new {
            return;
        }
        let extra = self.slab.with_extra(slot);
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
}

/// What a segment says of its connection (R10).
fn take_in(body: &mut Body, next_out: &mut u32, segment: Segment, packet: &PacketInfo, out: bool, now: u64) {
    let Segment { flags, seq } = segment;
    tcp::note(body, flags, packet.payload > 0, out);
    if out {
        body.handshake.initiator_sent(flags, now);
    } else {
        body.handshake.responder_sent(flags, now);
    }
    // An RST's number is what the other side expects, and its payload is a message.
    if flags.has(TcpFlags::RST) {
        return;
    }
    let next = if out { next_out } else { &mut body.next_in };
    let known = std::mem::replace(&mut body.sent[usize::from(!out)], true).then_some(*next);
    let (after, behind) = tcp::sequence(known, seq, tcp::sequence_length(flags, packet.payload));
    *next = after;
    for _ in 0..tcp::repeated(packet, behind) {
        tcp::note_retransmission(body, out);
    }
}
