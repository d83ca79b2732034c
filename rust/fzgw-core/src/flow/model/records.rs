//! What a record shows.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::super::record::{
    Activity, ConnState, Counts, Direction, EndReason, IcmpErrors, MAX_PATHS, Note, PathSeen, Traffic,
};
use super::super::{FlowRecord, PeerId, Record, Side, Tally};
use super::identity::{Port, Subject};
use super::segments::{close, tcp_conn_state, tcp_record};
use super::{ErrorKind, Event, Flow, Life, Model};
use crate::packet::protocol;

/// A record that was made and is not drained yet.
pub(super) enum Promise {
    Flow {
        flow: usize,
        activity: Activity,
        /// From 1.
        number: u32,
        /// The events up to the record before, and up to this one.
        events: (usize, usize),
        errors: Vec<ErrorKind>,
        end_reason: Option<EndReason>,
    },
    Note(Note),
}

impl Model {
    /// Ends a flow. In its close delay it keeps its own reason (R8, R27).
    pub(super) fn end(&mut self, flow: usize, reason: EndReason) {
        let reason = match close(&self.flows[flow].events) {
            Some(close) if close.by_reset => EndReason::Rst,
            Some(_) => EndReason::Fin,
            None => reason,
        };
        self.flows[flow].life = Life::Ended;
        if self.purpose.records {
            self.promise(flow, Activity::Close, Some(reason));
        }
    }

    /// Makes a record of a flow: whatever it is to show is settled.
    pub(super) fn promise(&mut self, number: usize, activity: Activity, end_reason: Option<EndReason>) {
        let flow = &mut self.flows[number];
        let before = flow.told.last().copied().unwrap_or(0);
        flow.told.push(flow.events.len());
        self.promises.push(Promise::Flow {
            flow: number,
            activity,
            number: flow.told.len() as u32,
            events: (before, flow.events.len()),
            errors: flow.errors.clone(),
            end_reason,
        });
    }

    /// Whether anything that was counted in a flow is left.
    pub(super) fn is_something(&self, flow: usize) -> bool {
        let events = &self.flows[flow].events;
        events.iter().any(|event| !self.packets[event.packet].taken_back)
    }

    /// The record, as things stand; none of a flow that never was.
    pub(super) fn keep(&self, promise: &Promise) -> Option<Record> {
        match promise {
            Promise::Note(note) => Some(Record::Note(*note)),
            Promise::Flow { flow, .. } if !self.is_something(*flow) => None,
            Promise::Flow {
                flow,
                activity,
                number,
                events,
                errors,
                end_reason,
            } => Some(Record::Flow(FlowRecord {
                activity: *activity,
                number: *number,
                icmp_errors: self.icmp_errors(errors),
                end_reason: *end_reason,
                ..self.record(*flow, *events)
            })),
        }
    }

    /// What handlers are told when the flow opens: no number, no delta (R18).
    pub(super) fn opening(&self, flow: usize) -> FlowRecord {
        let opening = self.record(flow, (0, self.flows[flow].events.len().min(1)));
        FlowRecord {
            delta: Traffic::default(),
            attempts_delta: Tally::default(),
            ..opening
        }
    }

    /// What a flow shows of itself and of its events up to `until`; delta is what came from `since` on.
    fn record(&self, number: usize, (since, until): (usize, usize)) -> FlowRecord {
        let flow = &self.flows[number];
        let events = &flow.events[..until];
        let nobody = |responder: IpAddr| match responder {
            IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
        };
        let none = Port::Number(0);
        let (src, dst) = match flow.subject {
            Subject::Passed(tuple) => (tuple.from, tuple.to),
            Subject::DeniedPort {
                first, responder, port, ..
            } => ((first, none), (responder, Port::Number(port))),
            Subject::DeniedHost(responder) => ((nobody(responder), none), (responder, none)),
            // Both families join here.
            Subject::DeniedRule => {
                let unspecified = IpAddr::V6(Ipv6Addr::UNSPECIFIED);
                ((unspecified, none), (unspecified, none))
            }
        };
        let shown = |port: Port| match port {
            Port::Number(number) => number,
            Port::Query(..) => 0,
        };
        let icmp = match (flow.protocol(), src.1) {
            _ if flow.is_denied() => None,
            (_, Port::Query(kind, code)) => Some((kind, code)),
            (protocol::ICMP, Port::Number(_)) => Some((8, 0)),
            (protocol::ICMPV6, Port::Number(_)) => Some((128, 0)),
            (_, Port::Number(_)) => None,
        };
        let (total, delta) = (self.total(events), self.total(&events[since..]));
        let attempts = |traffic: Traffic| Tally {
            packets: traffic.out.packets,
            bytes: traffic.out.bytes,
        };
        let none = (Traffic::default(), Tally::default());
        let (total, attempts_total) = if flow.is_denied() {
            (none.0, attempts(total))
        } else {
            (total, none.1)
        };
        let (delta, attempts_delta) = if flow.is_denied() {
            (none.0, attempts(delta))
        } else {
            (delta, none.1)
        };
        let last = events.last().map_or(flow.start.mono, |event| event.at.mono);
        let (paths, paths_total) = paths(events);
        FlowRecord {
            serial: number as u64,
            activity: Activity::Open,
            number: 0,
            peer: flow.peer,
            protocol: flow.protocol(),
            src_ip: src.0,
            src_port: shown(src.1),
            dst_ip: dst.0,
            dst_port: shown(dst.1),
            icmp,
            initiator_known: flow.initiator_known,
            direction: match flow.initiator {
                _ if flow.peer == PeerId::NOBODY => Direction::Unknown,
                Side::FromPeer => Direction::Outbound,
                Side::ToPeer => Direction::Inbound,
            },
            verdict: flow.standing.verdict,
            rule: flow.standing.rule,
            resource: flow.standing.resource,
            domain: flow.standing.domain,
            start: flow.start.wall,
            end: flow.start.wall + (last - flow.start.mono),
            total,
            delta,
            attempts: attempts_total,
            attempts_delta,
            conn_state: self.conn_state(flow, events),
            tcp: (flow.protocol() == protocol::TCP && !flow.is_denied()).then(|| tcp_record(events)),
            icmp_errors: Vec::new(),
            paths,
            paths_total,
            end_reason: None,
        }
    }

    pub(super) fn total(&self, events: &[Event]) -> Traffic {
        let mut total = Traffic::default();
        for event in events {
            let packet = &self.packets[event.packet];
            let counts = if event.from_initiator {
                &mut total.out
            } else {
                &mut total.r#in
            };
            if !packet.taken_back {
                *counts = Counts {
                    packets: counts.packets + packet.tally.packets,
                    bytes: counts.bytes + packet.tally.bytes,
                    payload: counts.payload + packet.payload,
                };
            }
        }
        total
    }

    fn icmp_errors(&self, errors: &[ErrorKind]) -> Vec<IcmpErrors> {
        let mut shown = Vec::new();
        for listed in errors {
            let mut left = Tally::default();
            for packet in listed.packets.iter().map(|packet| &self.packets[*packet]) {
                if !packet.taken_back {
                    left.join(packet.tally);
                }
            }
            if left.packets > 0 {
                shown.push(IcmpErrors {
                    kind: listed.kind,
                    code: listed.code,
                    packets: left.packets,
                    bytes: left.bytes,
                });
            }
        }
        shown
    }

    /// R10, in Zeek's words.
    fn conn_state(&self, flow: &Flow, events: &[Event]) -> ConnState {
        match flow.protocol() {
            _ if flow.is_denied() => ConnState::Oth,
            protocol::TCP => tcp_conn_state(events),
            protocol::UDP => {
                let total = self.total(events);
                match (total.out.packets, total.r#in.packets) {
                    // Nobody, as what it was told of could not be written.
                    (0, 0) => ConnState::Oth,
                    (0, _) => ConnState::Shr,
                    (_, 0) => ConnState::S0,
                    (_, _) => ConnState::Sf,
                }
            }
            _ => ConnState::Oth,
        }
    }
}

/// The outer paths of a flow's packets (R24), and how many there were.
fn paths(events: &[Event]) -> (Vec<PathSeen>, u32) {
    let mut paths: Vec<PathSeen> = Vec::new();
    let mut total = 0;
    for event in events {
        let Some(path) = event.path else { continue };
        if paths.last().is_some_and(|last| last.path == path) {
            continue;
        }
        total += 1;
        paths.truncate(MAX_PATHS - 1);
        let since = event.at.wall;
        paths.push(PathSeen { path, since });
    }
    (paths, total)
}
