//! Packets that are passed on: each opens a flow, is counted in one, splits one, or belongs to none.

use super::super::record::{EndReason, MAX_ICMP_ERRORS, OuterPath};
use super::super::{PeerId, Side, Standing, Timestamp, Untracked};
use super::identity::{Opener, Subject, Tuple};
use super::segments::{Segment, close, from};
use super::{Arrival, ErrorKind, Event, Flow, Life, Model, Place};
use crate::packet::{Original, TcpFlags, Transport, protocol};

/// R13: the type and code that stand for all that a full list has no place for.
const FURTHER_ERRORS: (u8, u8) = (255, 255);

impl Model {
    pub(super) fn pass(&mut self, number: usize, arrival: Arrival<'_>, standing: Standing, path: OuterPath) -> Place {
        let place = match arrival.packet.transport {
            Transport::IcmpError { kind, code, original } => self.list_error(number, arrival, (kind, code), original),
            Transport::Fragment => self.join_datagram(number, arrival, path),
            Transport::Redirect
            | Transport::Tcp { .. }
            | Transport::Udp { .. }
            | Transport::Echo { .. }
            | Transport::Icmp { .. }
            | Transport::Other => self.count(number, arrival, standing, path),
        };
        if arrival.packet.fragment.is_some_and(|fragment| fragment.first) {
            self.begin_datagram(arrival, place);
        }
        place
    }

    /// R6 to R8, R11, R12, R14: counts the packet in its flow, which it may open or split.
    fn count(&mut self, number: usize, arrival: Arrival<'_>, standing: Standing, path: OuterPath) -> Place {
        let Arrival {
            peer,
            side,
            packet,
            now,
        } = arrival;
        let Some(tuple) = Tuple::of(packet) else {
            return Place::Untracked(Untracked::Stray);
        };
        let segment = Segment::of(packet);
        if let Some(flow) = self.find(peer, side, &tuple, now) {
            if !segment.is_some_and(|segment| self.splits(flow, segment)) {
                self.add(flow, number, arrival, segment, path);
                return Place::Flow(flow);
            }
            self.end(flow, EndReason::Reused);
        }
        let Some(opener) = Opener::of(packet) else {
            return Place::Untracked(Untracked::Stray);
        };
        self.make_room(peer);
        let (tuple, initiator) = match opener {
            Opener::Sender | Opener::SenderMidStream => (tuple, side),
            Opener::Receiver => (tuple.turned(), side.turned()),
        };
        let known = !matches!(opener, Opener::SenderMidStream);
        let flow = self.open(peer, initiator, known, Subject::Passed(tuple), standing, now);
        self.add(flow, number, arrival, segment, path);
        Place::Flow(flow)
    }

    /// The live flow of this packet, seen from either end. One that is over ends here (R17).
    pub(super) fn find(&mut self, peer: PeerId, side: Side, tuple: &Tuple, now: Timestamp) -> Option<usize> {
        let flow = (0..self.flows.len()).find(|flow| {
            let flow = &self.flows[*flow];
            let seen = if side == flow.initiator { *tuple } else { tuple.turned() };
            flow.is_live() && flow.peer == peer && flow.subject == Subject::Passed(seen)
        })?;
        self.unless_over(flow, now)
    }

    /// Ends a flow whose time is over, and says what is left.
    pub(super) fn unless_over(&mut self, flow: usize, now: Timestamp) -> Option<usize> {
        if self.deadline(flow) <= now.mono {
            self.end(flow, EndReason::Idle);
            return None;
        }
        Some(flow)
    }

    pub(super) fn open(
        &mut self,
        peer: PeerId,
        initiator: Side,
        initiator_known: bool,
        subject: Subject,
        standing: Standing,
        start: Timestamp,
    ) -> usize {
        let flow = self.flows.len();
        self.flows.push(Flow {
            peer,
            initiator,
            initiator_known,
            subject,
            standing,
            start,
            events: Vec::new(),
            closes_at: None,
            errors: Vec::new(),
            told: Vec::new(),
            looked_at: 0,
            life: Life::Live,
        });
        flow
    }

    pub(super) fn add(
        &mut self,
        flow: usize,
        number: usize,
        arrival: Arrival<'_>,
        segment: Option<Segment>,
        path: OuterPath,
    ) {
        let now = arrival.now;
        let close_delay = self.limits.close_delay;
        let flow = &mut self.flows[flow];
        flow.events.push(Event {
            packet: number,
            at: now,
            from_initiator: arrival.side == flow.initiator,
            segment,
            path: Some(path),
        });
        if flow.closes_at.is_none() && close(&flow.events).is_some() {
            flow.closes_at = Some(now.mono.saturating_add(close_delay));
        }
    }

    /// R7, R8: whether a segment on an open flow begins another one.
    pub(super) fn splits(&self, flow: usize, segment: Segment) -> bool {
        let flow = &self.flows[flow];
        let moved_on = from(&flow.events, true).any(|(_, segment)| !segment.has(TcpFlags::SYN));
        segment.is_syn() && (flow.closes_at.is_some() || moved_on)
    }

    /// R13: lists the error of this type and code at the flow that it is about.
    fn list_error(
        &mut self,
        number: usize,
        arrival: Arrival<'_>,
        (kind, code): (u8, u8),
        original: Option<Original>,
    ) -> Place {
        let Arrival {
            peer,
            side,
            packet,
            now,
        } = arrival;
        // What it complains about went the other way.
        let found = original.and_then(|original| self.find(peer, side.turned(), &Tuple::of_original(&original), now));
        let Some(number_of_flow) = found else {
            return Place::Untracked(Untracked::IcmpError);
        };
        let flow = &mut self.flows[number_of_flow];
        let listed = flow.errors.len();
        let place = |wanted| {
            flow.errors
                .iter()
                .position(|listed| (listed.kind, listed.code) == wanted)
        };
        // Once there is a place for all further ones, nothing is listed by itself any more.
        if let Some(place) = place((kind, code)).or(place(FURTHER_ERRORS)) {
            flow.errors[place].packets.push(number);
        } else if listed < MAX_ICMP_ERRORS {
            let packets = vec![number];
            flow.errors.push(ErrorKind { kind, code, packets });
        } else {
            let last = &mut flow.errors[MAX_ICMP_ERRORS - 1];
            (last.kind, last.code) = FURTHER_ERRORS;
            last.packets.push(number);
        }
        let hard = match packet.protocol {
            protocol::ICMP => kind == 3 && (code == 2 || code == 3),
            protocol::ICMPV6 => kind == 1 && code == 4,
            _ => false,
        };
        if hard && side != flow.initiator && !flow.is_answered() && flow.closes_at.is_none() {
            self.end(number_of_flow, EndReason::IcmpUnreachable);
        }
        Place::IcmpError(number_of_flow)
    }

    /// R26: makes room for one more flow of this peer.
    fn make_room(&mut self, peer: PeerId) {
        loop {
            let held: Vec<usize> = (0..self.flows.len())
                .filter(|flow| self.flows[*flow].is_live() && !self.flows[*flow].is_denied())
                .collect();
            let holds = |peer: PeerId| held.iter().filter(|flow| self.flows[**flow].peer == peer).count();
            let loser = if holds(peer) >= self.share() {
                peer
            } else if held.len() >= self.limits.max_flows {
                // Of peers that hold equally many, the one with the lowest number: the rule leaves it open.
                let peers = held.iter().map(|flow| self.flows[*flow].peer);
                let Some(most) = peers.max_by_key(|peer| (holds(*peer), std::cmp::Reverse(*peer))) else {
                    return;
                };
                most
            } else {
                return;
            };
            let of_loser = held.into_iter().filter(|flow| self.flows[*flow].peer == loser);
            let Some(least_recent) = of_loser.min_by_key(|flow| self.flows[*flow].last()) else {
                return;
            };
            // Also one that is over and was not looked at since: it is not met, it goes.
            self.end(least_recent, EndReason::Evicted);
        }
    }

    /// How many flows one peer may hold (R26). At least one, or a peer could open none.
    fn share(&self) -> usize {
        let default = if self.configured_peers <= 1 {
            self.limits.max_flows
        } else {
            self.limits.max_flows / 8
        };
        self.limits.max_flows_per_peer.unwrap_or(default).max(1)
    }
}
