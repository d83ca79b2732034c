//! What a packet must pass before it goes on: its peer, its kind, its flow or the access rules.

use std::net::IpAddr;

use crate::flow::current::{record_packet, record_peer, record_standing};
use crate::flow::{PacketScope, PeerId, Side, Standing, Verdict};
use crate::packet::{PacketInfo, Transport};
use crate::peers::{PeerTable, Place};
use crate::policy::Policy;
use crate::stats::Drop;

/// Why a packet does not go on now.
pub(crate) enum Stop {
    Drop(Drop),
    /// Access rules need the ports of its datagram's first fragment (R15).
    Hold,
}

impl From<Drop> for Stop {
    fn from(reason: Drop) -> Self {
        Stop::Drop(reason)
    }
}

/// Whether a peer's packet may go on.
pub(crate) fn check_from_peer(
    scope: &mut PacketScope<'_>,
    peers: &PeerTable,
    policy: &Policy,
    place: Place,
    info: &PacketInfo,
) -> Result<(), Stop> {
    let peer = peers.get(place).ok_or(Drop::NoPeer)?;
    if !peers.is_own(place, info.src) {
        return Err(Stop::Drop(Drop::Spoofed));
    }
    check_kind(policy, info)?;
    record_packet(info);
    let standing = scope.standing(peer.id, Side::FromPeer, info);
    decide(standing, policy, peer.id, Side::FromPeer, info)
}

/// Whether a packet for the peer in `place` may go on; says that place.
pub(crate) fn check_to_peer(
    scope: &mut PacketScope<'_>,
    peers: &PeerTable,
    policy: &Policy,
    place: Option<Place>,
    info: &PacketInfo,
) -> Result<Place, Stop> {
    let place = place.ok_or(Drop::NoPeer)?;
    let peer = peers.get(place).ok_or(Drop::NoPeer)?;
    check_kind(policy, info)?;
    record_peer(peer.id);
    record_packet(info);
    let standing = scope
        .standing(peer.id, Side::ToPeer, info)
        .or_else(|| standing_at_other_peer(scope, peers, policy, place, info));
    decide(standing, policy, peer.id, Side::ToPeer, info)?;
    Ok(place)
}

/// Multicast has no one peer, also where somebody's allowed IPs are everything: what the kernel says on each of its
/// links (router solicitations, MLD) ends here.
pub(crate) fn route_to_peer(peers: &PeerTable, destination: IpAddr) -> Option<Place> {
    if destination.is_multicast() {
        return None;
    }
    peers.route(destination)
}

/// From peer to peer a packet passes the gateway twice. The second time it follows the flow that the first peer's
/// session opened: this very tuple was decrypted from the peer that its source belongs to. What opens no flow the
/// first time (a late ACK, a keepalive probe) has none to follow and is judged as the first peer's packet again (P4).
fn standing_at_other_peer(
    scope: &mut PacketScope<'_>,
    peers: &PeerTable,
    policy: &Policy,
    place: Place,
    info: &PacketInfo,
) -> Option<Standing> {
    let other = peers.route(info.src).filter(|other| *other != place)?;
    let id: PeerId = peers.get(other)?.id;
    let standing = scope
        .standing(id, Side::FromPeer, info)
        .or_else(|| match info.transport {
            Transport::Tcp { flags, .. } if !flags.is_syn() => Some(policy.judge(id, Side::FromPeer, info)),
            _ => None,
        });
    standing.filter(|standing| standing.verdict == Verdict::Allow)
}

fn check_kind(policy: &Policy, info: &PacketInfo) -> Result<(), Drop> {
    match info.transport {
        Transport::Redirect => Err(Drop::Redirect),
        // Rules need ports, and this is the fragment that should have them.
        Transport::Fragment if policy.has_rules() && info.fragment.is_none_or(|fragment| fragment.first) => {
            Err(Drop::Fragment)
        }
        Transport::Fragment
        | Transport::Tcp { .. }
        | Transport::Udp { .. }
        | Transport::Echo { .. }
        | Transport::Icmp { .. }
        | Transport::IcmpError { .. }
        | Transport::Other => Ok(()),
    }
}

/// What the packet's flow says of it, or else the access rules.
fn decide(
    standing: Option<Standing>,
    policy: &Policy,
    peer: PeerId,
    side: Side,
    info: &PacketInfo,
) -> Result<(), Stop> {
    let standing = match standing {
        Some(standing) => standing,
        None if policy.has_rules() && matches!(info.transport, Transport::Fragment) => return Err(Stop::Hold),
        None => policy.judge(peer, side, info),
    };
    record_standing(standing);
    match standing.verdict {
        Verdict::Allow => Ok(()),
        Verdict::Deny => Err(Stop::Drop(Drop::Denied)),
    }
}
