//! One inner IP packet, parsed once: what the other layers may know about it.
//!
//! [`PacketInfo::parse`] checks every length against the bytes that are there. A packet that lies about its length
//! has no [`PacketInfo`], so nothing behind the parser meets one.

use std::net::IpAddr;

use etherparse::err::ip::LaxHeaderSliceError;
use etherparse::err::ipv6_exts::HeaderSliceError;
use etherparse::{Ipv4HeaderSlice, Ipv6ExtensionSlice, Ipv6ExtensionsSlice, LaxIpSlice};

/// IP protocol numbers that the engine treats by name.
pub mod protocol {
    /// ICMP.
    pub const ICMP: u8 = 1;
    /// TCP.
    pub const TCP: u8 = 6;
    /// UDP.
    pub const UDP: u8 = 17;
    /// ICMPv6.
    pub const ICMPV6: u8 = 58;
}

/// TCP flags as they stand in the header, without NS.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct TcpFlags(pub u8);

impl TcpFlags {
    /// FIN.
    pub const FIN: u8 = 0x01;
    /// SYN.
    pub const SYN: u8 = 0x02;
    /// RST.
    pub const RST: u8 = 0x04;
    /// ACK.
    pub const ACK: u8 = 0x10;

    /// Whether every flag of `mask` is set.
    pub fn has(self, mask: u8) -> bool {
        self.0 & mask == mask
    }

    /// Whether this is a SYN without ACK, RST or FIN: somebody opens a connection.
    pub fn is_syn(self) -> bool {
        self.0 & (Self::SYN | Self::ACK | Self::RST | Self::FIN) == Self::SYN
    }
}

/// The layer above IP.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    /// A TCP segment.
    Tcp {
        /// Source port.
        src_port: u16,
        /// Destination port.
        dst_port: u16,
        /// Its flags.
        flags: TcpFlags,
        /// Its sequence number.
        seq: u32,
    },
    /// A UDP datagram.
    Udp {
        /// Source port.
        src_port: u16,
        /// Destination port.
        dst_port: u16,
    },
    /// An ICMP or ICMPv6 echo.
    Echo {
        /// The identifier, which stands for the initiator's port (R1).
        identifier: u16,
        /// Request or reply.
        request: bool,
    },
    /// Any other ICMP message that is neither an error nor a redirect.
    Icmp {
        /// Type.
        kind: u8,
        /// Code.
        code: u8,
    },
    /// An ICMP error, which belongs to the flow of the packet inside it (R13).
    IcmpError {
        /// Type.
        kind: u8,
        /// Code.
        code: u8,
        /// The packet that it complains about; none where too little of it is there.
        original: Option<Original>,
    },
    /// An ICMP redirect: never passed on (R13).
    Redirect,
    /// A later fragment, or a first one too short for its ports: [`PacketInfo::fragment`] says which.
    Fragment,
    /// Any other protocol (R14).
    Other,
}

/// The packet inside an ICMP error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Original {
    /// Who sent it.
    pub src: IpAddr,
    /// Who it was for.
    pub dst: IpAddr,
    /// IP protocol number.
    pub protocol: u8,
    /// Source port, or the identifier of an echo request.
    pub src_port: u16,
    /// Destination port, or the identifier of an echo reply.
    pub dst_port: u16,
}

/// Which piece of a fragmented datagram a packet is (R15).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fragment {
    /// What the pieces of one datagram share.
    pub identification: u32,
    /// The piece that carries the ports.
    pub first: bool,
}

/// What is known of a well-formed packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PacketInfo {
    /// Inner source address.
    pub src: IpAddr,
    /// Inner destination address.
    pub dst: IpAddr,
    /// IP protocol number, behind the extension headers.
    pub protocol: u8,
    /// Length by the IP header: what counts as bytes (R20).
    pub len: u32,
    /// Bytes above the TCP or UDP header; for a later fragment those above the IP headers; 0 for anything else.
    pub payload: u32,
    /// The layer above.
    pub transport: Transport,
    /// Set where it is a piece of a datagram.
    pub fragment: Option<Fragment>,
    /// How many packets travel: 1, or the segments of a super-packet (R22).
    pub segments: u32,
    /// Payload bytes of each segment of a super-packet, of which the last has what is left; 0 for a packet.
    pub segment_size: u16,
}

/// A packet whose bytes are not what its headers say (scenario 40).
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("malformed packet")]
pub struct Malformed;

/// Why the packet in a captured frame is not known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Unreadable {
    /// Its bytes are not what its headers say.
    #[error("malformed packet")]
    Malformed,
    /// The capture kept too few of its bytes for ports and flags.
    #[error("the capture cut its headers off")]
    Cut,
}

impl From<Malformed> for Unreadable {
    fn from(_: Malformed) -> Self {
        Unreadable::Malformed
    }
}

/// An IPv4 header without options.
pub(crate) const IPV4_MIN_HEADER: usize = 20;
/// An IPv6 header without extension headers.
pub(crate) const IPV6_HEADER: usize = 40;
/// IPv6's next header that says that there is none.
const NO_NEXT_HEADER: u8 = 59;

impl PacketInfo {
    /// Parses an inner packet. Bytes behind its own length are WireGuard's padding and are not looked at.
    pub fn parse(bytes: &[u8]) -> Result<Self, Malformed> {
        let len = ip_length(bytes)?;
        let packet = bytes.get(..len).ok_or(Malformed)?;
        // Nothing is cut off, so a packet that lacks something is malformed.
        Self::read(packet, len).map_err(|_| Malformed)
    }

    /// Parses the packet of a captured frame, of which the capture may have kept only the first bytes. Its lengths are
    /// held against `wire_len`, what there was on the wire from the IP header on.
    ///
    /// An IP length of 0 takes the frame's: the sender's own captures show packets like that before the network card
    /// has cut them into segments.
    pub fn parse_captured(bytes: &[u8], wire_len: usize) -> Result<Self, Unreadable> {
        let len = match ip_length(bytes) {
            Ok(len) if len == IPV6_HEADER && bytes[6] != NO_NEXT_HEADER && bytes[0] >> 4 == 6 => wire_len,
            Ok(len) => len,
            Err(Malformed) if has_no_length(bytes) => wire_len,
            Err(Malformed) if is_cut_ip(bytes, wire_len) => return Err(Unreadable::Cut),
            Err(Malformed) => return Err(Unreadable::Malformed),
        };
        if len > wire_len {
            return Err(Unreadable::Malformed);
        }
        Self::read(&bytes[..len.min(bytes.len())], len)
    }

    /// Reads a packet of `len` bytes, the first of which are in `packet`.
    fn read(packet: &[u8], len: usize) -> Result<Self, Unreadable> {
        // What is missing was cut off by the capture, or was never there.
        let missing = if packet.len() < len {
            Unreadable::Cut
        } else {
            Unreadable::Malformed
        };
        let (ip, stopped) = LaxIpSlice::from_slice(packet).map_err(|error| match error {
            LaxHeaderSliceError::Len(_) => missing,
            LaxHeaderSliceError::Content(_) => Unreadable::Malformed,
        })?;
        match stopped {
            None => {}
            Some((HeaderSliceError::Len(_), _)) => return Err(missing),
            Some((HeaderSliceError::Content(_), _)) => return Err(Unreadable::Malformed),
        }
        let payload = ip.payload();
        let protocol = payload.ip_number.0;
        let body = payload.payload;
        // The headers reach from the packet's start to where its payload begins.
        let above = len - (packet.len() - body.len());
        let fragment = fragment(&ip);
        let (transport, payload_len) = match fragment {
            Some(Fragment { first: false, .. }) => (Transport::Fragment, above),
            Some(Fragment { first: true, .. }) => match Transport::parse(protocol, body, above, missing) {
                Ok(parsed) => parsed,
                Err(Unreadable::Cut) => return Err(Unreadable::Cut),
                // Too short for its ports.
                Err(Unreadable::Malformed) => (Transport::Fragment, above),
            },
            None => Transport::parse(protocol, body, above, missing)?,
        };
        let (src, dst) = (ip.source_addr(), ip.destination_addr());
        let transport = match transport {
            Transport::IcmpError { .. } => transport.of_sender(dst),
            other => other,
        };
        Ok(Self {
            src,
            dst,
            protocol,
            // An IP length fits 32 bits: 16 bits of length and a fixed header, or a frame's length.
            len: len as u32,
            payload: payload_len as u32,
            transport,
            fragment,
            segments: 1,
            segment_size: 0,
        })
    }

    /// A super-packet as the segments that travel, of `size` payload bytes each: every one has the headers (R22).
    #[must_use]
    pub fn segmented(self, size: u16) -> Self {
        let segments = self.payload.div_ceil(size.max(1).into()).max(1);
        let headers = self.len - self.payload;
        Self {
            len: self.payload + headers * segments,
            segments,
            segment_size: size,
            ..self
        }
    }
}

/// The length that an IP header gives to its packet, from 20 up.
///
/// Errors: [`Malformed`] where there is no whole header or no known version.
pub fn ip_length(bytes: &[u8]) -> Result<usize, Malformed> {
    let be16 = |at: usize| usize::from(u16::from_be_bytes([bytes[at], bytes[at + 1]]));
    match bytes.first().map(|first| first >> 4) {
        Some(4) if bytes.len() >= IPV4_MIN_HEADER && be16(2) >= IPV4_MIN_HEADER => Ok(be16(2)),
        Some(6) if bytes.len() >= IPV6_HEADER => Ok(IPV6_HEADER + be16(4)),
        Some(_) | None => Err(Malformed),
    }
}

/// Whether an IPv4 header says 0 for its packet's length.
fn has_no_length(bytes: &[u8]) -> bool {
    bytes.len() >= IPV4_MIN_HEADER && bytes[0] >> 4 == 4 && bytes[2..4] == [0, 0]
}

/// Whether the capture kept less than an IP header of a packet that had one.
fn is_cut_ip(bytes: &[u8], wire_len: usize) -> bool {
    let header = match bytes.first().map(|first| first >> 4) {
        Some(4) => IPV4_MIN_HEADER,
        Some(6) => IPV6_HEADER,
        Some(_) => return false,
        None => 1,
    };
    bytes.len() < header && wire_len >= header
}

fn fragment(ip: &LaxIpSlice<'_>) -> Option<Fragment> {
    match ip {
        LaxIpSlice::Ipv4(v4) => fragment_v4(&v4.header()),
        LaxIpSlice::Ipv6(v6) => fragment_v6(v6.extensions()),
    }
}

fn fragment_v4(header: &Ipv4HeaderSlice<'_>) -> Option<Fragment> {
    let (offset, more) = (header.fragments_offset().value(), header.more_fragments());
    Fragment::of(offset, more, header.identification().into())
}

fn fragment_v6(extensions: &Ipv6ExtensionsSlice<'_>) -> Option<Fragment> {
    extensions.clone().into_iter().find_map(|extension| match extension {
        Ipv6ExtensionSlice::Fragment(header) => {
            let (offset, more) = (header.fragment_offset().value(), header.more_fragments());
            Fragment::of(offset, more, header.identification())
        }
        Ipv6ExtensionSlice::HopByHop(_)
        | Ipv6ExtensionSlice::Routing(_)
        | Ipv6ExtensionSlice::DestinationOptions(_)
        | Ipv6ExtensionSlice::Authentication(_) => None,
    })
}

impl Fragment {
    fn of(offset: u16, more: bool, identification: u32) -> Option<Self> {
        (offset != 0 || more).then_some(Self {
            identification,
            first: offset == 0,
        })
    }
}

const TCP_HEADER: usize = 20;
const UDP_HEADER: usize = 8;
const ICMP_HEADER: usize = 8;

/// A segment's header up to its flags, which is as much of it as is looked at.
const TCP_TO_FLAGS: usize = 14;

impl Transport {
    /// Reads the header of a transport that is `length` bytes long, the first of which are in `bytes`, and says how many
    /// bytes are above it. Errors: `missing` where `bytes` ends too early.
    ///
    /// TCP is read by hand, because a capture may have kept its flags and cut its options off.
    fn parse(protocol: u8, bytes: &[u8], length: usize, missing: Unreadable) -> Result<(Self, usize), Unreadable> {
        match protocol {
            protocol::TCP => {
                let head: &[u8; TCP_TO_FLAGS] = bytes.first_chunk().ok_or(missing)?;
                let header = usize::from(head[12] >> 4) * 4;
                if header < TCP_HEADER || header > length {
                    return Err(Unreadable::Malformed);
                }
                let transport = Self::Tcp {
                    src_port: u16::from_be_bytes([head[0], head[1]]),
                    dst_port: u16::from_be_bytes([head[2], head[3]]),
                    flags: TcpFlags(head[13]),
                    seq: u32::from_be_bytes([head[4], head[5], head[6], head[7]]),
                };
                Ok((transport, length - header))
            }
            protocol::UDP => {
                let head: &[u8; 6] = bytes.first_chunk().ok_or(missing)?;
                let claimed = usize::from(u16::from_be_bytes([head[4], head[5]]));
                // A length of 0 is a jumbogram's, or a packet's that a network card was to cut into segments.
                if length < UDP_HEADER || (claimed != 0 && claimed < UDP_HEADER) {
                    return Err(Unreadable::Malformed);
                }
                let transport = Self::Udp {
                    src_port: u16::from_be_bytes([head[0], head[1]]),
                    dst_port: u16::from_be_bytes([head[2], head[3]]),
                };
                Ok((transport, length - UDP_HEADER))
            }
            protocol::ICMP => Ok((Self::icmp(bytes).ok_or(missing)?, 0)),
            protocol::ICMPV6 => Ok((Self::icmpv6(bytes).ok_or(missing)?, 0)),
            _ => Ok((Self::Other, 0)),
        }
    }

    /// An ICMP error is about a packet of the one it goes to. One that quotes another's could reach anybody in the name
    /// of a flow that is not its own, so it is about nothing.
    fn of_sender(self, destination: IpAddr) -> Self {
        match self {
            Self::IcmpError { kind, code, original } => Self::IcmpError {
                kind,
                code,
                original: original.filter(|original| original.src == destination),
            },
            _ => self,
        }
    }

    fn icmp(bytes: &[u8]) -> Option<Self> {
        let (kind, code, identifier) = icmp_header(bytes)?;
        Some(match kind {
            8 | 0 => Self::Echo {
                identifier,
                request: kind == 8,
            },
            3 | 11 | 12 => Self::IcmpError {
                kind,
                code,
                original: Original::parse(&bytes[ICMP_HEADER..]),
            },
            5 => Self::Redirect,
            _ => Self::Icmp { kind, code },
        })
    }

    fn icmpv6(bytes: &[u8]) -> Option<Self> {
        let (kind, code, identifier) = icmp_header(bytes)?;
        Some(match kind {
            128 | 129 => Self::Echo {
                identifier,
                request: kind == 128,
            },
            1..=4 => Self::IcmpError {
                kind,
                code,
                original: Original::parse(&bytes[ICMP_HEADER..]),
            },
            137 => Self::Redirect,
            _ => Self::Icmp { kind, code },
        })
    }
}

/// Type, code and the identifier of an echo. Some queries are shorter than 8 bytes nowhere, so 8 it is.
fn icmp_header(bytes: &[u8]) -> Option<(u8, u8, u16)> {
    let header: &[u8; ICMP_HEADER] = bytes.first_chunk()?;
    Some((header[0], header[1], u16::from_be_bytes([header[4], header[5]])))
}

fn ports(bytes: &[u8]) -> Option<(u16, u16)> {
    let head = bytes.get(..4)?;
    Some((
        u16::from_be_bytes([head[0], head[1]]),
        u16::from_be_bytes([head[2], head[3]]),
    ))
}

impl Original {
    /// The start of a packet as a router quotes it: cut short, so that its lengths may not be believed.
    fn parse(bytes: &[u8]) -> Option<Self> {
        let (slice, stopped) = LaxIpSlice::from_slice(bytes).ok()?;
        // Extension headers that were not read to their end must not be looked through: etherparse's iterator over them
        // trusts that they are whole. Without them the protocol and the ports are not known anyway.
        if stopped.is_some() {
            return None;
        }
        let payload = slice.payload();
        if matches!(fragment(&slice), Some(Fragment { first: false, .. })) {
            return None;
        }
        let protocol = payload.ip_number.0;
        let (src_port, dst_port) = match protocol {
            protocol::TCP | protocol::UDP => ports(payload.payload)?,
            protocol::ICMP | protocol::ICMPV6 => {
                let (kind, _, identifier) = icmp_header(payload.payload)?;
                match kind {
                    8 | 128 => (identifier, 0),
                    0 | 129 => (0, identifier),
                    _ => return None,
                }
            }
            _ => (0, 0),
        };
        Some(Self {
            src: slice.source_addr(),
            dst: slice.destination_addr(),
            protocol,
            src_port,
            dst_port,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testkit;

    #[test]
    fn udp_counts_ip_bytes_and_payload() {
        let bytes = testkit::udp("10.0.0.1:4000", "192.0.2.1:53", b"hello");
        let info = PacketInfo::parse(&bytes).unwrap();
        assert_eq!((info.len, info.payload), (33, 5));
        assert_eq!(
            info.transport,
            Transport::Udp {
                src_port: 4000,
                dst_port: 53
            }
        );
    }

    #[test]
    fn padding_behind_the_packet_is_not_counted() {
        for (src, dst) in [
            ("10.0.0.1:4000", "192.0.2.1:53"),
            ("[fd00::1]:4000", "[2001:db8::1]:53"),
        ] {
            let mut bytes = testkit::udp(src, dst, b"");
            let len = bytes.len();
            bytes.resize(len + 15, 0);
            assert_eq!(PacketInfo::parse(&bytes).unwrap().len as usize, len);
        }
    }

    /// Scenario 40: bad IP length, bad header length, shorter than it says.
    #[test]
    fn scenario_40_lies_about_length_are_malformed() {
        let good = testkit::tcp("10.0.0.1:4000", "192.0.2.1:80", TcpFlags::SYN, b"");
        assert!(PacketInfo::parse(&good).is_ok());
        assert_eq!(
            PacketInfo::parse(&good[..good.len() - 1]),
            Err(Malformed),
            "shorter than it says"
        );
        for (at, value) in [
            (0, 0x44),
            (0, 0x4f),
            (0, 0x55),
            (2, 0xff),
            (3, 19),
            (20 + 12, 0x40),
            (20 + 12, 0xf0),
        ] {
            let mut bytes = good.clone();
            bytes[at] = value;
            assert_eq!(PacketInfo::parse(&bytes), Err(Malformed), "byte {at} = {value:#x}");
        }
        assert_eq!(PacketInfo::parse(&[]), Err(Malformed));
    }

    #[test]
    fn an_icmp_error_names_the_packet_inside() {
        let inner = testkit::udp("10.0.0.1:4000", "192.0.2.1:53", b"hello");
        let bytes = testkit::icmp_error("192.0.2.1", "10.0.0.1", 3, 3, &inner[..28]);
        let Transport::IcmpError {
            kind: 3,
            code: 3,
            original: Some(original),
        } = PacketInfo::parse(&bytes).unwrap().transport
        else {
            panic!("not an ICMP error");
        };
        assert_eq!((original.src_port, original.dst_port), (4000, 53));
    }

    /// A quote whose IPv6 extension headers are cut short says nothing, and nothing behind its end is read.
    #[test]
    fn an_icmp_error_may_quote_extension_headers_that_are_cut_short() {
        let mut quoted = testkit::udp("[fd00::1]:1", "[fd00::2]:2", b"");
        quoted.truncate(40);
        // Hop-by-hop, which says that destination options follow; they do not.
        quoted[6] = 0;
        quoted.extend([60, 0, 1, 4, 0, 0, 0, 0]);
        let error = testkit::icmpv6_error("fd00::2", "fd00::1", 1, 4, &quoted);
        let info = PacketInfo::parse(&error).unwrap();
        assert!(
            matches!(info.transport, Transport::IcmpError { original: None, .. }),
            "{info:?}"
        );
    }

    #[test]
    fn no_prefix_of_a_packet_panics() {
        for packet in [
            testkit::udp("[fd00::1]:1", "[fd00::2]:2", b"payload"),
            testkit::tcp("10.0.0.1:1", "10.0.0.2:2", TcpFlags::ACK, b"payload"),
            testkit::echo("10.0.0.1", "10.0.0.2", 7, true),
        ] {
            for end in 0..packet.len() {
                let _ = PacketInfo::parse(&packet[..end]);
                for bit in 0..8 {
                    let mut bytes = packet.clone();
                    bytes[end] ^= 1 << bit;
                    let _ = PacketInfo::parse(&bytes);
                }
            }
        }
    }
}
