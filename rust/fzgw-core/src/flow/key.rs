//! What identifies a flow (R1).

use std::hash::{Hash, Hasher};
use std::net::{IpAddr, Ipv6Addr};

use super::record::PeerId;
use crate::packet::{Original, PacketInfo, Transport, protocol};

/// Which way a packet crosses the gateway.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Side {
    /// Decrypted, on its way to the TUN device.
    FromPeer,
    /// Read from the TUN device, on its way into the tunnel.
    ToPeer,
}

impl Side {
    /// Both, in the order of arrays indexed by `Side as usize`.
    pub const BOTH: [Side; 2] = [Side::FromPeer, Side::ToPeer];

    /// The word of the ledgers.
    pub fn as_str(self) -> &'static str {
        match self {
            Side::FromPeer => "from_peer",
            Side::ToPeer => "to_peer",
        }
    }

    /// The other way.
    pub fn turned(self) -> Self {
        match self {
            Side::FromPeer => Side::ToPeer,
            Side::ToPeer => Side::FromPeer,
        }
    }
}

/// The identity of a flow: a peer, and the tuple with the peer's own address first, whoever began. Both directions
/// therefore have the same key, and one look-up finds the flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FlowKey {
    /// The peer's inner address, IPv4 mapped; the rule's number in the key of a denied flow.
    pub(super) near: u128,
    /// The address beyond the gateway; the responder's in the key of a denied flow.
    pub(super) far: u128,
    pub(super) peer: PeerId,
    pub(super) near_port: u16,
    pub(super) far_port: u16,
    pub(super) protocol: u8,
    pub(super) class: u8,
}

/// Bits of [`FlowKey::class`]: they keep apart what would otherwise look alike.
pub(super) mod class {
    /// Addresses are IPv6 (a mapped IPv4 address inside an IPv6 packet is not IPv4).
    pub(crate) const IPV6: u8 = 1;
    /// The peer's port field holds an ICMP type and code, not an echo's identifier.
    pub(crate) const ICMP_QUERY: u8 = 2;
    /// A denied flow (R23).
    pub(crate) const DENIED: u8 = 4;
    /// A denied flow towards the peer.
    pub(crate) const INBOUND: u8 = 8;
    /// Denials of a peer joined by responder address and rule.
    pub(crate) const JOINED_HOST: u8 = 16;
    /// Denials of a peer joined by rule.
    pub(crate) const JOINED_RULE: u8 = 32;
}

/// What stands in front of an IPv4 address that is mapped into IPv6.
const MAPPED: u128 = 0xffff << 32;

/// IPv4 as mapped IPv6.
#[inline]
pub(super) fn wide(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(v4) => MAPPED | u128::from(v4.to_bits()),
        IpAddr::V6(v6) => u128::from(v6),
    }
}

/// What [`wide`] was given.
pub(super) fn narrow(address: u128, class: u8) -> IpAddr {
    let v6 = Ipv6Addr::from(address);
    match v6.to_ipv4_mapped() {
        Some(v4) if class & class::IPV6 == 0 => IpAddr::V4(v4),
        Some(_) | None => IpAddr::V6(v6),
    }
}

impl FlowKey {
    /// The key of the flow that this packet belongs to, and who its initiator is if this packet opens it; `None` for
    /// what has no flow of its own (ICMP errors, redirects, fragments).
    #[inline]
    pub(super) fn of(peer: PeerId, side: Side, info: &PacketInfo) -> Option<(Self, Initiator)> {
        let (src_port, dst_port, class, initiator) = match info.transport {
            Transport::Tcp { src_port, dst_port, .. } | Transport::Udp { src_port, dst_port } => {
                (src_port, dst_port, 0, Initiator::Sender)
            }
            Transport::Echo {
                identifier,
                request: true,
            } => (identifier, 0, 0, Initiator::Sender),
            Transport::Echo {
                identifier,
                request: false,
            } => (0, identifier, 0, Initiator::Receiver),
            Transport::Icmp { kind, code } => (
                u16::from_be_bytes([kind, code]),
                0,
                class::ICMP_QUERY,
                Initiator::Sender,
            ),
            Transport::Other => (0, 0, 0, Initiator::Sender),
            Transport::IcmpError { .. } | Transport::Redirect | Transport::Fragment => return None,
        };
        let (src, dst) = ((&info.src, src_port), (&info.dst, dst_port));
        Some((Self::from_tuple(peer, side, src, dst, info.protocol, class), initiator))
    }

    /// The key of the flow that an ICMP error travelling to `side` complains about: its packet went the other way.
    pub(super) fn of_original(peer: PeerId, side: Side, original: &Original) -> Self {
        let src = (&original.src, original.src_port);
        let dst = (&original.dst, original.dst_port);
        Self::from_tuple(peer, side.turned(), src, dst, original.protocol, 0)
    }

    #[inline]
    fn from_tuple(
        peer: PeerId,
        side: Side,
        (src, src_port): (&IpAddr, u16),
        (dst, dst_port): (&IpAddr, u16),
        protocol: u8,
        class: u8,
    ) -> Self {
        let family = if src.is_ipv6() { class::IPV6 } else { 0 };
        let (src, dst) = (wide(*src), wide(*dst));
        let (near, far, near_port, far_port) = match side {
            Side::FromPeer => (src, dst, src_port, dst_port),
            Side::ToPeer => (dst, src, dst_port, src_port),
        };
        Self {
            near,
            far,
            peer,
            near_port,
            far_port,
            protocol,
            class: class | family,
        }
    }

    /// The ICMP type and code of an echo or query flow that `initiator_is_peer` began.
    pub(super) fn icmp(&self, initiator_is_peer: bool) -> Option<(u8, u8)> {
        if self.class & class::ICMP_QUERY != 0 {
            let port = if initiator_is_peer {
                self.near_port
            } else {
                self.far_port
            };
            let [kind, code] = port.to_be_bytes();
            return Some((kind, code));
        }
        match self.protocol {
            protocol::ICMP => Some((8, 0)),
            protocol::ICMPV6 => Some((128, 0)),
            _ => None,
        }
    }
}

/// Who began a flow, seen from the packet that opens it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Initiator {
    Sender,
    Receiver,
}

impl Initiator {
    /// Whether the peer is the initiator, for a packet that travels to `side`.
    pub(super) fn is_peer(self, side: Side) -> bool {
        (self == Initiator::Sender) == (side == Side::FromPeer)
    }
}

impl Hash for FlowKey {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u128(self.near);
        state.write_u128(self.far);
        let ports = u64::from(self.near_port) << 16 | u64::from(self.far_port);
        state.write_u64(u64::from(self.peer.0) << 32 | ports);
        state.write_u16(u16::from_be_bytes([self.protocol, self.class]));
    }
}
