//! Records of flows: open, update and close (R18, R19).

use super::community;
use super::key::{class, narrow};
use super::record::{
    Activity, ConnState, Direction, EndReason, FlowRecord, PathSeen, PeerId, Record, TcpRecord, Traffic,
};
use super::slab::flag;
use super::table::FlowTable;
use super::tcp;
use crate::flow::ledger::Tally;
use crate::packet::{TcpFlags, protocol};

impl FlowTable {
    /// Tells handlers that a flow opened.
    pub(super) fn announce(&mut self, slot: u32) {
        if self.purpose.openings {
            let opening = self.record(slot, Activity::Open, None);
            self.openings.push(FlowRecord {
                number: 0,
                delta: Traffic::default(),
                attempts_delta: Tally::default(),
                ..opening
            });
        }
    }

    /// Makes the open record of a flow, or its next update.
    pub(super) fn report(&mut self, slot: u32) {
        let first = !self.slab[slot].is(flag::REPORTED);
        let activity = if first { Activity::Open } else { Activity::Update };
        let record = self.record(slot, activity, None);
        let number = record.number;
        self.records.push(Record::Flow(record));
        self.slab[slot].flags |= flag::REPORTED | flag::CLEAN;
        if !first {
            self.slab.with_extra(slot).number = number;
        }
    }

    /// Something is about to be counted in a flow of which the last record tells everything.
    pub(super) fn soil(&mut self, slot: u32) {
        let reported = self.slab.traffic(slot);
        self.slab.with_extra(slot).reported = reported;
        self.slab[slot].flags &= !flag::CLEAN;
        self.set_next_update(slot);
        self.schedule(slot);
    }

    /// Says when a flow's next update is due: at its own moment within each `update_every`, so that flows that began
    /// together do not report together (R19).
    pub(super) fn set_next_update(&mut self, slot: u32) {
        let flow = &self.slab[slot];
        if !flow.is(flag::REPORTED) || flow.is(flag::CLEAN) {
            return;
        }
        let every = self.limits.update_every.max(1);
        let phase = self.phase(slot) % every;
        let after = self.clock.map_or(0, |clock| clock.mono);
        // The first moment after `after` that is the phase more than some rounds.
        let rounds = if after < phase { 0 } else { (after - phase) / every + 1 };
        self.slab.with_extra(slot).next_update = phase.saturating_add(rounds.saturating_mul(every));
    }

    /// The close record of a flow.
    pub(super) fn close_record(&self, slot: u32, reason: EndReason) -> FlowRecord {
        self.record(slot, Activity::Close, Some(reason))
    }

    /// A number that is the same for a flow wherever it is seen, and as good as random between flows.
    fn phase(&self, slot: u32) -> u64 {
        let tuple = self.tuple(slot);
        let digest = community::digest(tuple.src, tuple.dst, tuple.protocol, tuple.icmp);
        digest
            .first_chunk()
            .map_or(0, |head: &[u8; 8]| u64::from_be_bytes(*head))
    }

    fn tuple(&self, slot: u32) -> Tuple {
        let flow = &self.slab[slot];
        let key = self.slab.key(slot);
        let by_peer = flow.is(flag::INITIATOR_IS_PEER);
        let near = (narrow(key.near, key.class), key.near_port);
        let far = (narrow(key.far, key.class), key.far_port);
        if flow.is_denied() {
            let first = self.slab.extra(slot).and_then(|extra| extra.first_src);
            let src = (first.unwrap_or(super::denied::nobody(far.0)), 0);
            return Tuple {
                src,
                dst: far,
                protocol: key.protocol,
                icmp: None,
            };
        }
        let (src, dst) = if by_peer { (near, far) } else { (far, near) };
        // The key of a query has its type and code where ports are.
        let port = |port: u16| if key.class & class::ICMP_QUERY != 0 { 0 } else { port };
        Tuple {
            src: (src.0, port(src.1)),
            dst: (dst.0, port(dst.1)),
            protocol: key.protocol,
            icmp: key.icmp(by_peer),
        }
    }

    fn record(&self, slot: u32, activity: Activity, end_reason: Option<EndReason>) -> FlowRecord {
        let flow = &self.slab[slot];
        let standing = self.standings.get(flow.standing);
        let extra = self.slab.extra(slot);
        let tuple = self.tuple(slot);
        let denied = flow.is_denied();
        let counted = self.slab.traffic(slot);
        let new = match extra {
            _ if !flow.is(flag::REPORTED) => counted,
            Some(extra) if !flow.is(flag::CLEAN) => counted.since(extra.reported),
            Some(_) | None => Traffic::default(),
        };
        let ((total, delta), (attempts, attempts_delta)) = if denied {
            (
                (Traffic::default(), Traffic::default()),
                (counted.out.tally(), new.out.tally()),
            )
        } else {
            ((counted, new), (Tally::default(), Tally::default()))
        };
        let mut paths = extra.map(|extra| extra.paths.clone()).unwrap_or_default();
        if paths.is_empty() {
            paths.extend(self.paths.get(flow.path).map(|path| PathSeen {
                path,
                since: flow.start_wall,
            }));
        }
        let paths_total = extra.map_or(0, |extra| extra.paths_total).max(paths.len() as u32);
        let direction = match flow.peer() {
            PeerId::NOBODY => Direction::Unknown,
            _ if flow.is(flag::INITIATOR_IS_PEER) => Direction::Outbound,
            _ => Direction::Inbound,
        };
        FlowRecord {
            serial: flow.serial,
            activity,
            number: self.slab.number(slot) + 1,
            peer: flow.peer(),
            protocol: tuple.protocol,
            src_ip: tuple.src.0,
            src_port: tuple.src.1,
            dst_ip: tuple.dst.0,
            dst_port: tuple.dst.1,
            icmp: tuple.icmp,
            initiator_known: flow.is(flag::INITIATOR_KNOWN),
            direction,
            verdict: standing.verdict,
            rule: standing.rule,
            resource: standing.resource,
            domain: standing.domain,
            start: flow.start_wall,
            end: flow.start_wall + (flow.last - flow.start_mono),
            total,
            delta,
            attempts,
            attempts_delta,
            conn_state: self.conn_state(slot, total),
            tcp: (tuple.protocol == protocol::TCP && !denied).then(|| self.tcp_record(slot)),
            icmp_errors: extra.map(|extra| extra.icmp_errors.clone()).unwrap_or_default(),
            paths,
            paths_total,
            end_reason,
        }
    }

    fn conn_state(&self, slot: u32, total: Traffic) -> ConnState {
        let flow = &self.slab[slot];
        match flow.protocol() {
            _ if flow.is_denied() => ConnState::Oth,
            protocol::TCP => {
                let flags_in = self.slab.body(slot).map_or(0, |body| body.tcp_in);
                tcp::conn_state(flow.flags, flow.tcp_out, flags_in)
            }
            protocol::UDP => udp_state(total),
            _ => ConnState::Oth,
        }
    }

    fn tcp_record(&self, slot: u32) -> TcpRecord {
        let flow = &self.slab[slot];
        match self.slab.body(slot) {
            Some(body) => TcpRecord {
                history: body.history,
                flags_out: flow.tcp_out,
                flags_in: body.tcp_in,
                syn_to_syn_ack: body.handshake.syn_to_syn_ack(),
                syn_ack_to_ack: body.handshake.syn_ack_to_ack(),
                retransmits_out: body.retransmits_out,
                retransmits_in: body.retransmits_in,
            },
            None => TcpRecord {
                history: tcp::history_of_one(TcpFlags(flow.tcp_out), flow.out.payload > 0),
                flags_out: flow.tcp_out,
                flags_in: 0,
                syn_to_syn_ack: None,
                syn_ack_to_ack: None,
                retransmits_out: 0,
                retransmits_in: 0,
            },
        }
    }
}

/// UDP's state is who spoke (R10).
pub(super) fn udp_state(total: Traffic) -> ConnState {
    match (total.out.packets > 0, total.r#in.packets > 0) {
        (true, true) => ConnState::Sf,
        (true, false) => ConnState::S0,
        (false, true) => ConnState::Shr,
        (false, false) => ConnState::Oth,
    }
}

/// What a record shows of a flow's key.
struct Tuple {
    src: (std::net::IpAddr, u16),
    dst: (std::net::IpAddr, u16),
    protocol: u8,
    icmp: Option<(u8, u8)>,
}
