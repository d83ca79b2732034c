//! Packets, made byte by byte: right where nobody breaks them afterwards. Checksums stay 0, which the engine does not
//! look at.

use std::net::IpAddr;

use fzgw_core::packet::protocol;

/// Both ends of a packet.
#[derive(Debug, Clone, Copy)]
pub struct Ends {
    /// Who sends it.
    pub src: IpAddr,
    /// Who it is for: of the same family.
    pub dst: IpAddr,
    /// Source port, or an echo's identifier.
    pub src_port: u16,
    /// Destination port.
    pub dst_port: u16,
}

impl Ends {
    /// The way back.
    pub fn turned(self) -> Self {
        Self {
            src: self.dst,
            dst: self.src,
            src_port: self.dst_port,
            dst_port: self.src_port,
        }
    }

    /// The protocol number of ICMP in this family.
    pub fn icmp_protocol(self) -> u8 {
        match self.src {
            IpAddr::V4(_) => protocol::ICMP,
            IpAddr::V6(_) => protocol::ICMPV6,
        }
    }
}

/// Which piece of a datagram a fragment is.
#[derive(Debug, Clone, Copy)]
pub struct Piece {
    /// What all pieces share. IPv4 has room for 16 bits of it.
    pub identification: u32,
    /// In units of 8 bytes.
    pub offset: u16,
    /// Others follow behind it.
    pub more: bool,
}

/// An IP packet around `body`.
pub fn ip(ends: Ends, protocol: u8, body: &[u8]) -> Vec<u8> {
    match (ends.src, ends.dst) {
        (IpAddr::V4(src), IpAddr::V4(dst)) => {
            let len = (20 + body.len()) as u16;
            let mut out = vec![0x45, 0, 0, 0, 0, 0, 0, 0, 64, protocol, 0, 0];
            out[2..4].copy_from_slice(&len.to_be_bytes());
            out.extend_from_slice(&src.octets());
            out.extend_from_slice(&dst.octets());
            out.extend_from_slice(body);
            out
        }
        (src, dst) => {
            let mut out = vec![0x60, 0, 0, 0, 0, 0, protocol, 64];
            out[4..6].copy_from_slice(&(body.len() as u16).to_be_bytes());
            for address in [src, dst] {
                let v6 = match address {
                    IpAddr::V4(v4) => v4.to_ipv6_mapped(),
                    IpAddr::V6(v6) => v6,
                };
                out.extend_from_slice(&v6.octets());
            }
            out.extend_from_slice(body);
            out
        }
    }
}

/// An IP packet that is a piece of a datagram. In IPv6 a hop-by-hop header stands in front (scenario 39).
pub fn fragment(ends: Ends, protocol: u8, piece: Piece, body: &[u8]) -> Vec<u8> {
    match ends.src {
        IpAddr::V4(_) => {
            let mut out = ip(ends, protocol, body);
            out[4..6].copy_from_slice(&(piece.identification as u16).to_be_bytes());
            let field = (piece.offset & 0x1fff) | if piece.more { 0x2000 } else { 0 };
            out[6..8].copy_from_slice(&field.to_be_bytes());
            out
        }
        IpAddr::V6(_) => {
            // Hop-by-hop with a PadN of 4 bytes; next is a fragment header.
            let mut inner = vec![44, 0, 1, 4, 0, 0, 0, 0, protocol, 0];
            inner.extend_from_slice(&(piece.offset << 3 | u16::from(piece.more)).to_be_bytes());
            inner.extend_from_slice(&piece.identification.to_be_bytes());
            inner.extend_from_slice(body);
            ip(ends, 0, &inner)
        }
    }
}

/// A TCP header and so many payload bytes.
pub fn tcp_body(ends: Ends, flags: u8, seq: u32, payload: usize) -> Vec<u8> {
    let mut out = Vec::with_capacity(20 + payload);
    out.extend_from_slice(&ends.src_port.to_be_bytes());
    out.extend_from_slice(&ends.dst_port.to_be_bytes());
    out.extend_from_slice(&seq.to_be_bytes());
    out.extend_from_slice(&[0, 0, 0, 0, 0x50, flags, 0xff, 0xff, 0, 0, 0, 0]);
    out.resize(20 + payload, 0);
    out
}

/// A UDP header and so many payload bytes.
pub fn udp_body(ends: Ends, payload: usize) -> Vec<u8> {
    let mut out = Vec::with_capacity(8 + payload);
    out.extend_from_slice(&ends.src_port.to_be_bytes());
    out.extend_from_slice(&ends.dst_port.to_be_bytes());
    out.extend_from_slice(&((8 + payload) as u16).to_be_bytes());
    out.resize(8 + payload, 0);
    out
}

/// A TCP segment.
pub fn tcp(ends: Ends, flags: u8, seq: u32, payload: usize) -> Vec<u8> {
    ip(ends, protocol::TCP, &tcp_body(ends, flags, seq, payload))
}

/// A UDP datagram.
pub fn udp(ends: Ends, payload: usize) -> Vec<u8> {
    ip(ends, protocol::UDP, &udp_body(ends, payload))
}

/// An echo, with the source port as identifier of a request and the destination port as that of a reply.
pub fn echo(ends: Ends, request: bool) -> Vec<u8> {
    let kind = match (ends.src, request) {
        (IpAddr::V4(_), true) => 8,
        (IpAddr::V4(_), false) => 0,
        (IpAddr::V6(_), true) => 128,
        (IpAddr::V6(_), false) => 129,
    };
    let identifier = if request { ends.src_port } else { ends.dst_port };
    let [high, low] = identifier.to_be_bytes();
    ip(ends, ends.icmp_protocol(), &[kind, 0, 0, 0, high, low, 0, 1])
}

/// Any ICMP message: type, code, four bytes of 0, and what follows.
pub fn icmp(ends: Ends, kind: u8, code: u8, rest: &[u8]) -> Vec<u8> {
    let mut body = vec![kind, code, 0, 0, 0, 0, 0, 0];
    body.extend_from_slice(rest);
    ip(ends, ends.icmp_protocol(), &body)
}
