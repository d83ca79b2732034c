//! Super-packets: many segments of one flow in one read or write of the TUN device.
//!
//! The kernel hands over a TCP stream, or a burst of equal UDP datagrams, as one packet of up to 64 KiB with a note of
//! how to cut it ([`VnetHeader`]), and takes the same from us. [`split`] cuts what was read into the packets that
//! travel in the tunnel; [`merge`] puts together what comes out of it. Both keep each packet as it is: what a receiver
//! behind them sees is what a plain device would have carried, packet by packet.

pub mod checksum;
pub mod merge;
#[cfg(test)]
mod property;
pub mod split;

use crate::packet::{IPV4_MIN_HEADER, IPV6_HEADER};

/// A TCP header without options.
pub(crate) const TCP_HEADER: usize = 20;
pub(crate) const UDP_HEADER: usize = 8;
/// What an IP length field can say of an IPv4 packet.
pub(crate) const MAX_PACKET: usize = 65_535;

/// What the device can do beyond one packet a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Offload {
    /// Nothing.
    Off,
    /// TCP, both IP versions.
    Tso,
    /// TCP and UDP, both IP versions.
    TsoUso,
}

impl Offload {
    /// The word of the statistics.
    pub fn as_str(self) -> &'static str {
        match self {
            Offload::Off => "off",
            Offload::Tso => "tso",
            Offload::TsoUso => "tso+uso",
        }
    }
}

/// What a super-packet carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// One stretch of a TCP stream.
    Tcp,
    /// Datagrams of one size, the last one shorter perhaps.
    Udp,
}

/// How a super-packet is cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Segmentation {
    /// What it carries.
    pub kind: Kind,
    /// Payload bytes of each segment; the last one has what is left. Never 0.
    pub size: u16,
    /// Length of the IP header, extension headers included.
    pub ip_header: u16,
    /// Length of all headers, which each segment has.
    pub headers: u16,
}

impl Segmentation {
    /// How many segments a super-packet of `len` bytes becomes.
    pub fn count(&self, len: usize) -> usize {
        (len.saturating_sub(self.headers.into()))
            .div_ceil(self.size.into())
            .max(1)
    }
}

/// The header that the kernel puts in front of each packet of such a device: `struct virtio_net_hdr` of its user
/// interface (linux/virtio_net.h), in the byte order of the machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct VnetHeader {
    /// Whether the transport checksum is still to be completed.
    pub needs_checksum: bool,
    /// How it is cut; see `GSO_…`.
    pub gso_type: u8,
    /// Length of all headers. The kernel says it is a hint.
    pub header_len: u16,
    /// Payload bytes of each segment.
    pub gso_size: u16,
    /// Where the checksum starts to count.
    pub checksum_start: u16,
    /// Where it is, from there on.
    pub checksum_offset: u16,
}

/// `VIRTIO_NET_HDR_GSO_NONE`
pub(crate) const GSO_NONE: u8 = 0;
/// `VIRTIO_NET_HDR_GSO_TCPV4`
pub(crate) const GSO_TCPV4: u8 = 1;
/// `VIRTIO_NET_HDR_GSO_TCPV6`
pub(crate) const GSO_TCPV6: u8 = 4;
/// `VIRTIO_NET_HDR_GSO_UDP_L4`
pub(crate) const GSO_UDP_L4: u8 = 5;
/// `VIRTIO_NET_HDR_F_NEEDS_CSUM`
const NEEDS_CHECKSUM: u8 = 1;

impl VnetHeader {
    /// Its length.
    pub const LEN: usize = 10;

    /// Reads it.
    pub fn from_bytes(bytes: &[u8; Self::LEN]) -> Self {
        let word = |at: usize| u16::from_ne_bytes([bytes[at], bytes[at + 1]]);
        Self {
            needs_checksum: bytes[0] & NEEDS_CHECKSUM != 0,
            gso_type: bytes[1],
            header_len: word(2),
            gso_size: word(4),
            checksum_start: word(6),
            checksum_offset: word(8),
        }
    }

    /// Writes it.
    pub fn to_bytes(self) -> [u8; Self::LEN] {
        let [h0, h1] = self.header_len.to_ne_bytes();
        let [g0, g1] = self.gso_size.to_ne_bytes();
        let [s0, s1] = self.checksum_start.to_ne_bytes();
        let [o0, o1] = self.checksum_offset.to_ne_bytes();
        let flags = if self.needs_checksum { NEEDS_CHECKSUM } else { 0 };
        [flags, self.gso_type, h0, h1, g0, g1, s0, s1, o0, o1]
    }
}

/// What was read from the device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Arrived {
    /// One packet, as it travels.
    Packet,
    /// A super-packet.
    Super(Segmentation),
    /// Header and packet contradict each other.
    Broken,
}

/// Looks at a packet that came with this header, and completes the checksum of one that is not to be cut.
pub fn arrived(header: VnetHeader, packet: &mut [u8]) -> Arrived {
    match header.gso_type {
        GSO_NONE if !header.needs_checksum => Arrived::Packet,
        GSO_NONE => match checksum::complete(header, packet) {
            Some(()) => Arrived::Packet,
            None => Arrived::Broken,
        },
        _ => segmentation(header, packet).map_or(Arrived::Broken, Arrived::Super),
    }
}

/// The kernel's description, held against the packet. The lengths are read from the packet itself.
fn segmentation(header: VnetHeader, packet: &[u8]) -> Option<Segmentation> {
    let version = packet.first()? >> 4;
    let (kind, checksum_offset) = match (header.gso_type, version) {
        (GSO_TCPV4, 4) | (GSO_TCPV6, 6) => (Kind::Tcp, 16),
        (GSO_UDP_L4, 4 | 6) => (Kind::Udp, 6),
        _ => return None,
    };
    let ip_header = usize::from(header.checksum_start);
    let least = if version == 4 { IPV4_MIN_HEADER } else { IPV6_HEADER };
    let transport = packet.get(ip_header..)?;
    let transport_header = match kind {
        Kind::Tcp => usize::from(*transport.get(12)? >> 4) * 4,
        Kind::Udp => UDP_HEADER,
    };
    let shortest = match kind {
        Kind::Tcp => TCP_HEADER,
        Kind::Udp => UDP_HEADER,
    };
    let right = header.needs_checksum
        && usize::from(header.checksum_offset) == checksum_offset
        && header.gso_size > 0
        && ip_header >= least
        && transport_header >= shortest
        && transport_header < transport.len()
        && packet.len() <= MAX_PACKET + IPV6_HEADER;
    right.then_some(Segmentation {
        kind,
        size: header.gso_size,
        ip_header: ip_header as u16,
        headers: (ip_header + transport_header) as u16,
    })
}
