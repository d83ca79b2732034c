//! Denied packets make denied flows (R23): few keys, however many ports or hosts are tried.

use std::net::IpAddr;

use super::key::{FlowKey, Side, class, wide};
use super::paths::PathId;
use super::pressure::PeerFlows;
use super::record::{PeerId, Standing, Timestamp};
use super::slab::flag;
use super::table::FlowTable;
use crate::packet::{PacketInfo, Transport};

/// Past so many live keys of one peer, its denials join by responder address and rule.
const JOIN_HOSTS_FROM: usize = 256;
/// Past so many, by rule alone. A peer holds this many denied flows and one a rule and direction at most.
const JOIN_RULES_FROM: usize = 512;

/// How much of the tuple a denied flow keeps.
#[derive(Clone, Copy)]
enum Grain {
    Port,
    Host,
    Rule,
}

impl FlowTable {
    /// Counts a packet that policy dropped. Any counts, whatever its flags.
    pub(super) fn deny(&mut self, peer: PeerId, side: Side, packet: &PacketInfo, standing: Standing, now: Timestamp) {
        let key = |grain| key(grain, peer, side, packet, standing);
        // A key that is there already goes on counting, however many others there are by now.
        let candidates = [Grain::Port, Grain::Host, Grain::Rule];
        let found = candidates.into_iter().find_map(|grain| self.lookup(&key(grain), now));
        let slot = match found {
            Some(slot) => slot,
            None => {
                // Only now: a key that the look-ups found over has ended by them.
                let grain = match self.denied_flows(peer) {
                    0..JOIN_HOSTS_FROM => Grain::Port,
                    JOIN_HOSTS_FROM..JOIN_RULES_FROM => Grain::Host,
                    _ => Grain::Rule,
                };
                let first = matches!(grain, Grain::Port).then_some(packet.src);
                self.open_denied(key(grain), side, standing, first, now)
            }
        };
        self.count_attempt(slot, packet, now);
        if found.is_none() {
            self.announce(slot);
        }
    }

    fn open_denied(
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
        let slot = self.take_slot(&key, flag::INITIATOR_KNOWN | by_peer, standing, PathId::NONE, now);
        if first_src.is_some() {
            self.slab.with_extra(slot).first_src = first_src;
        }
        let peer = self.peers.entry(key.peer).or_insert_with(PeerFlows::new);
        peer.denied.push(&mut self.slab, slot);
        self.ledger.live_denied += 1;
        self.schedule(slot);
        slot
    }

    fn count_attempt(&mut self, slot: u32, packet: &PacketInfo, now: Timestamp) {
        if self.slab[slot].is(flag::CLEAN) {
            self.soil(slot);
        }
        let flow = &mut self.slab[slot];
        // A denied flow has no forwarded counts: their place holds the attempts.
        flow.out.count(packet);
        flow.last = now.mono;
        self.ledger.attempts.count(packet);
    }

    fn denied_flows(&self, peer: PeerId) -> usize {
        self.peers.get(&peer).map_or(0, |flows| flows.denied.len())
    }
}

fn key(grain: Grain, peer: PeerId, side: Side, packet: &PacketInfo, standing: Standing) -> FlowKey {
    let port = match packet.transport {
        Transport::Tcp { dst_port, .. } | Transport::Udp { dst_port, .. } => dst_port,
        Transport::Echo { .. }
        | Transport::Icmp { .. }
        | Transport::IcmpError { .. }
        | Transport::Redirect
        | Transport::Fragment
        | Transport::Other => 0,
    };
    let family = if packet.dst.is_ipv6() { class::IPV6 } else { 0 };
    let inbound = match side {
        Side::FromPeer => 0,
        Side::ToPeer => class::INBOUND,
    };
    let (far, far_port, protocol, joined) = match grain {
        Grain::Port => (wide(packet.dst), port, packet.protocol, family),
        Grain::Host => (wide(packet.dst), 0, 0, class::JOINED_HOST | family),
        Grain::Rule => (0, 0, 0, class::JOINED_RULE | class::IPV6),
    };
    FlowKey {
        near: standing.rule.map_or(u32::MAX, |rule| rule.0).into(),
        far,
        peer,
        near_port: 0,
        far_port,
        protocol,
        class: class::DENIED | inbound | joined,
    }
}

/// Where a denied flow tells no initiator: several were joined.
pub(super) fn nobody(responder: IpAddr) -> IpAddr {
    match responder {
        IpAddr::V4(_) => IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED),
        IpAddr::V6(_) => IpAddr::V6(std::net::Ipv6Addr::UNSPECIFIED),
    }
}
