//! The flow table once more, slow and obvious, as the rules tell it: what the property test holds the real one against.
//!
//! The model keeps every packet that it was told of, and every flow with the list of its events. A record is a promise: it
//! remembers how many events there were when it was made, and what it shows is worked out from them when it is drained.
//! Nothing is counted along the way, so a packet that is taken back (R21) is crossed out in the list of packets and is gone
//! from every record and every ledger at once. Nothing is looked up but by going through all there is.
//!
//! Where the rules leave a choice, the comment says which one was made.

use super::record::{EndReason, OuterPath, Traffic};
use super::{
    FlowLedger, FlowRecord, Limits, PeerId, Purpose, Record, Side, Standing, Tally, Timestamp, Untracked, Verdict,
};
use crate::packet::{PacketInfo, Transport};
use datagrams::Datagram;
use identity::{Subject, Tuple};
use records::Promise;
use segments::Segment;

mod datagrams;
mod denials;
mod identity;
mod passing;
mod records;
mod segments;
mod time;

/// The model of [`FlowTable`](super::FlowTable). Flows and packets are named by their place in its lists.
pub(super) struct Model {
    limits: Limits,
    purpose: Purpose,
    configured_peers: usize,
    packets: Vec<Packet>,
    flows: Vec<Flow>,
    fragments: Vec<Datagram>,
    promises: Vec<Promise>,
    openings: Vec<(usize, FlowRecord)>,
    clock: Option<Timestamp>,
}

/// What comes with every packet.
#[derive(Clone, Copy)]
pub(super) struct Arrival<'a> {
    pub(super) peer: PeerId,
    pub(super) side: Side,
    pub(super) packet: &'a PacketInfo,
    pub(super) now: Timestamp,
}

impl Model {
    pub(super) fn new(limits: Limits, purpose: Purpose) -> Self {
        Self {
            limits,
            purpose,
            configured_peers: 1,
            packets: Vec::new(),
            flows: Vec::new(),
            fragments: Vec::new(),
            promises: Vec::new(),
            openings: Vec::new(),
            clock: None,
        }
    }

    pub(super) fn configure(&mut self, limits: Limits, purpose: Purpose, configured_peers: usize) {
        self.limits = limits;
        self.configured_peers = configured_peers;
        if !(purpose.records || purpose.rules) {
            self.close_all(EndReason::Shutdown);
        }
        self.purpose = purpose;
        // A new `update_every` has its ticks from here on, and here is where time was told last.
        let now = self.clock.map_or(0, |clock| clock.mono);
        for flow in &mut self.flows {
            flow.looked_at = flow.looked_at.max(now);
        }
    }

    /// What the packet's open flow says of it (P1).
    pub(super) fn standing(&mut self, arrival: Arrival<'_>) -> Option<Standing> {
        if !self.tracks() {
            return None;
        }
        let Arrival {
            peer,
            side,
            packet,
            now,
        } = arrival;
        let flow = match packet.transport {
            Transport::IcmpError { original, .. } => {
                self.find(peer, side.turned(), &Tuple::of_original(&original?), now)?
            }
            Transport::Fragment => self.flow_of_datagram(arrival)?,
            _ => self.find(peer, side, &Tuple::of(packet)?, now)?,
        };
        if Segment::of(packet).is_some_and(|segment| self.splits(flow, segment)) {
            return None;
        }
        Some(self.flows[flow].standing)
    }

    /// A packet that was passed on by `path`, or denied. Says its number where it can be taken back.
    pub(super) fn handle(&mut self, arrival: Arrival<'_>, standing: Standing, path: OuterPath) -> Option<usize> {
        if !self.tracks() {
            return None;
        }
        let number = self.packets.len();
        let Arrival { side, packet, .. } = arrival;
        self.packets.push(Packet {
            side,
            tally: Tally {
                packets: packet.segments.into(),
                bytes: packet.len.into(),
            },
            payload: packet.payload.into(),
            place: Place::Waiting,
            taken_back: false,
        });
        let flows = self.flows.len();
        let known = match standing.verdict {
            Verdict::Deny => {
                self.packets[number].place = self.deny(number, arrival, standing);
                None
            }
            Verdict::Allow => {
                self.packets[number].place = self.pass(number, arrival, standing, path);
                Some(number)
            }
        };
        if self.purpose.openings {
            let opened = (flows..self.flows.len()).map(|flow| (flow, self.opening(flow)));
            self.openings.extend(opened.collect::<Vec<_>>());
        }
        known
    }

    /// The packet could not be written (R21). Its counts go and nothing else does, but for a flow without any.
    pub(super) fn take_back(&mut self, number: usize) {
        self.packets[number].taken_back = true;
        match self.packets[number].place {
            Place::Flow(flow) => {
                if self.flows[flow].is_live() && self.total(&self.flows[flow].events) == Traffic::default() {
                    self.flows[flow].life = Life::NeverWas;
                }
            }
            Place::IcmpError(flow) => {
                for kind in &mut self.flows[flow].errors {
                    kind.packets.retain(|packet| *packet != number);
                }
                self.flows[flow].errors.retain(|kind| !kind.packets.is_empty());
            }
            Place::Waiting | Place::Untracked(_) | Place::Denied => {}
        }
    }

    /// Ends what is due, tells what is due, notes a stepped clock.
    pub(super) fn handle_timeout(&mut self, now: Timestamp) {
        self.watch_clock(now);
        for place in (0..self.fragments.len()).rev() {
            if self.fragments[place].deadline(&self.limits) <= now.mono {
                self.forget_datagram(place);
            }
        }
        for flow in 0..self.flows.len() {
            if !self.flows[flow].is_live() {
                continue;
            }
            if self.deadline(flow) <= now.mono {
                self.end(flow, EndReason::Idle);
            } else if self.tells(flow) {
                self.tell(flow, now.mono);
            }
        }
    }

    /// The first nanosecond at which `handle_timeout` has something to do.
    pub(super) fn next_due(&self) -> Option<u64> {
        let live = (0..self.flows.len()).filter(|flow| self.flows[*flow].is_live());
        let flows = live.map(|flow| {
            let told = if self.tells(flow) {
                self.due_to_tell(flow)
            } else {
                u64::MAX
            };
            self.deadline(flow).min(told)
        });
        let fragments = self.fragments.iter().map(|datagram| datagram.deadline(&self.limits));
        flows.chain(fragments).min()
    }

    pub(super) fn close_peer(&mut self, peer: PeerId) {
        for flow in 0..self.flows.len() {
            if self.flows[flow].is_live() && self.flows[flow].peer == peer {
                self.end(flow, EndReason::PeerRemoved);
            }
        }
    }

    /// Ends every flow (R27). What waits for its first fragment waits in vain.
    pub(super) fn close_all(&mut self, reason: EndReason) {
        for flow in 0..self.flows.len() {
            if self.flows[flow].is_live() {
                self.end(flow, reason);
            }
        }
        while !self.fragments.is_empty() {
            self.forget_datagram(0);
        }
    }

    /// The records since the last call. Their serial is the flow's number in the model.
    pub(super) fn drain_records(&mut self) -> Vec<Record> {
        let promises = std::mem::take(&mut self.promises);
        promises.iter().filter_map(|promise| self.keep(promise)).collect()
    }

    /// The openings since the last call (R18).
    pub(super) fn drain_openings(&mut self) -> Vec<FlowRecord> {
        let openings = std::mem::take(&mut self.openings);
        let were = openings.into_iter().filter(|(flow, _)| self.is_something(*flow));
        were.map(|(_, opening)| opening).collect()
    }

    /// Flows that have had, or are to have, a close record.
    pub(super) fn flows_that_were(&self) -> usize {
        (0..self.flows.len()).filter(|flow| self.is_something(*flow)).count()
    }

    /// The books, counted anew.
    pub(super) fn ledger(&self) -> FlowLedger {
        let mut ledger = FlowLedger::default();
        for packet in self.packets.iter().filter(|packet| !packet.taken_back) {
            if packet.place == Place::Denied {
                ledger.attempts.join(packet.tally);
                continue;
            }
            let side = ledger.side(packet.side);
            side.forwarded.join(packet.tally);
            let place = match packet.place {
                Place::Flow(flow) if self.flows[flow].is_live() => &mut side.live,
                Place::Flow(_) => &mut side.ended,
                Place::IcmpError(_) => &mut side.icmp_errors,
                Place::Waiting => &mut side.pending_fragments,
                Place::Untracked(reason) => &mut side.untracked[reason as usize],
                Place::Denied => continue,
            };
            place.join(packet.tally);
        }
        let live = self.flows.iter().filter(|flow| flow.is_live());
        ledger.live_flows = live.clone().count() as u64;
        ledger.live_denied = live.filter(|flow| flow.is_denied()).count() as u64;
        // A flow whose only packet never left was opened all the same.
        ledger.opened_flows = self.flows.len() as u64;
        ledger
    }

    fn tracks(&self) -> bool {
        self.purpose.records || self.purpose.rules
    }
}

/// A packet that was counted, and where.
struct Packet {
    side: Side,
    /// Of a super-packet, what travels (R22).
    tally: Tally,
    payload: u64,
    place: Place,
    taken_back: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    Flow(usize),
    IcmpError(usize),
    /// In the entry of a datagram whose first fragment has not come (R15).
    Waiting,
    Untracked(Untracked),
    Denied,
}

struct Flow {
    peer: PeerId,
    /// The side to which the initiator's packets travel.
    initiator: Side,
    initiator_known: bool,
    subject: Subject,
    standing: Standing,
    start: Timestamp,
    events: Vec<Event>,
    /// Set by the segment that closes it: the last nanosecond of its close delay (R8).
    closes_at: Option<u64>,
    errors: Vec<ErrorKind>,
    /// How many events each of its records was told of.
    told: Vec<usize>,
    /// When it was last looked at for a record: ticks of `update_every` up to then are over (R19).
    looked_at: u64,
    life: Life,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Life {
    Live,
    Ended,
    /// All that was counted in it was taken back (R21).
    NeverWas,
}

/// One counted packet of a flow, or one that waited and joined it (R15).
#[derive(Clone, Copy)]
struct Event {
    packet: usize,
    at: Timestamp,
    from_initiator: bool,
    /// Of a TCP packet that has its header: not of later fragments.
    segment: Option<Segment>,
    /// None for what has waited: where it went then is not known any more.
    path: Option<OuterPath>,
}

/// ICMP errors that are listed together (R13).
#[derive(Clone)]
struct ErrorKind {
    kind: u8,
    code: u8,
    packets: Vec<usize>,
}

impl Flow {
    fn is_live(&self) -> bool {
        self.life == Life::Live
    }

    fn is_denied(&self) -> bool {
        self.standing.verdict == Verdict::Deny
    }

    fn protocol(&self) -> u8 {
        match self.subject {
            Subject::Passed(tuple) => tuple.protocol,
            Subject::DeniedPort { protocol, .. } => protocol,
            Subject::DeniedHost(_) | Subject::DeniedRule => 0,
        }
    }

    fn is_answered(&self) -> bool {
        self.events.iter().any(|event| !event.from_initiator)
    }

    fn last(&self) -> u64 {
        self.events.last().map_or(self.start.mono, |event| event.at.mono)
    }
}
