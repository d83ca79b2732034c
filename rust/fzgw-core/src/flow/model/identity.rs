//! What flow a packet belongs to (R1, R12), and who began it (R3, R6).

use std::net::IpAddr;

use super::segments::Segment;
use crate::packet::{Original, PacketInfo, TcpFlags, Transport};

/// What a flow is about: the identity of R1, or of R23.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Subject {
    Passed(Tuple),
    /// Denials of one protocol and responder; who tried first is shown, and is no part of the identity.
    DeniedPort {
        first: IpAddr,
        protocol: u8,
        responder: IpAddr,
        port: u16,
    },
    DeniedHost(IpAddr),
    DeniedRule,
}

/// The end of a flow's packets: address, and port or what stands for it.
pub(super) type End = (IpAddr, Port);

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Port {
    /// A port, an echo's identifier, or 0.
    Number(u16),
    /// Type and code of another ICMP query, which take the place that the identifier has in an echo (R12).
    Query(u8, u8),
}

/// Who speaks to whom (R1), from the first to the second.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Tuple {
    pub(super) protocol: u8,
    pub(super) from: End,
    pub(super) to: End,
}

impl Tuple {
    /// None for what has no flow of its own.
    pub(super) fn of(packet: &PacketInfo) -> Option<Self> {
        let (from, to) = match packet.transport {
            Transport::Tcp { src_port, dst_port, .. } | Transport::Udp { src_port, dst_port } => {
                (Port::Number(src_port), Port::Number(dst_port))
            }
            Transport::Echo {
                identifier,
                request: true,
            } => (Port::Number(identifier), Port::Number(0)),
            Transport::Echo {
                identifier,
                request: false,
            } => (Port::Number(0), Port::Number(identifier)),
            Transport::Icmp { kind, code } => (Port::Query(kind, code), Port::Number(0)),
            Transport::Other => (Port::Number(0), Port::Number(0)),
            Transport::IcmpError { .. } | Transport::Redirect | Transport::Fragment => return None,
        };
        Some(Self {
            protocol: packet.protocol,
            from: (packet.src, from),
            to: (packet.dst, to),
        })
    }

    pub(super) fn of_original(original: &Original) -> Self {
        Self {
            protocol: original.protocol,
            from: (original.src, Port::Number(original.src_port)),
            to: (original.dst, Port::Number(original.dst_port)),
        }
    }

    pub(super) fn turned(self) -> Self {
        Self {
            from: self.to,
            to: self.from,
            ..self
        }
    }
}

/// Who began the flow that a packet opens (R3, R6, R12).
pub(super) enum Opener {
    Sender,
    SenderMidStream,
    Receiver,
}

impl Opener {
    /// None for a packet that opens nothing.
    pub(super) fn of(packet: &PacketInfo) -> Option<Self> {
        if let Transport::Echo { request: false, .. } = packet.transport {
            return Some(Opener::Receiver);
        }
        let Some(segment) = Segment::of(packet) else {
            return Some(Opener::Sender);
        };
        let ends = segment.has(TcpFlags::FIN) || segment.has(TcpFlags::RST);
        match (segment.has(TcpFlags::SYN), segment.has(TcpFlags::ACK)) {
            _ if ends || segment.flags.0 == 0 => None,
            (true, false) => Some(Opener::Sender),
            (true, true) => Some(Opener::Receiver),
            (false, _) => (segment.payload > 0).then_some(Opener::SenderMidStream),
        }
    }
}
