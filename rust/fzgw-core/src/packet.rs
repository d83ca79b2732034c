//! One inner IP packet, parsed once: what the other layers may know about it.
//!
//! [`PacketInfo::parse`] checks every length against the bytes that are there. A packet that lies about its length
//! has no [`PacketInfo`], so nothing behind the parser meets one.

use std::net::IpAddr;

use etherparse::{IpSlice, Ipv4HeaderSlice, Ipv6ExtensionSlice, Ipv6ExtensionsSlice, LaxIpSlice, TcpSlice};

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
    /// A later fragment, or a first one too short for its ports.
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
    /// Bytes above the TCP or UDP header; 0 for anything else.
    pub payload: u32,
    /// The layer above.
    pub transport: Transport,
}

/// A packet whose bytes are not what its headers say (scenario 40).
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("malformed packet")]
pub struct Malformed;

const IPV4_MIN_HEADER: usize = 20;
const IPV6_HEADER: usize = 40;

impl PacketInfo {
    /// Parses an inner packet. Bytes behind its own length are WireGuard's padding and are not looked at.
    pub fn parse(bytes: &[u8]) -> Result<Self, Malformed> {
        let len = ip_length(bytes)?;
        let packet = bytes.get(..len).ok_or(Malformed)?;
        let ip = IpSlice::from_slice(packet).map_err(|_| Malformed)?;
        let payload = ip.payload();
        let protocol = payload.ip_number.0;
        let (transport, payload_len) = match fragment(&ip) {
            Some(Fragment::Later) => (Transport::Fragment, 0),
            Some(Fragment::First) => Transport::parse(protocol, payload.payload).unwrap_or((Transport::Fragment, 0)),
            None => Transport::parse(protocol, payload.payload)?,
        };
        let transport = transport.of_sender(ip.destination_addr());
        Ok(Self {
            src: ip.source_addr(),
            dst: ip.destination_addr(),
            protocol,
            // An IP length fits 32 bits: 16 bits of length and a fixed header.
            len: len as u32,
            payload: payload_len as u32,
            transport,
        })
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

enum Fragment {
    First,
    Later,
}

fn fragment(ip: &IpSlice<'_>) -> Option<Fragment> {
    match ip {
        IpSlice::Ipv4(v4) => fragment_v4(&v4.header()),
        IpSlice::Ipv6(v6) => fragment_v6(v6.extensions()),
    }
}

fn fragment_v4(header: &Ipv4HeaderSlice<'_>) -> Option<Fragment> {
    Fragment::of(header.fragments_offset().value(), header.more_fragments())
}

fn fragment_v6(extensions: &Ipv6ExtensionsSlice<'_>) -> Option<Fragment> {
    extensions.clone().into_iter().find_map(|extension| match extension {
        Ipv6ExtensionSlice::Fragment(header) => Fragment::of(header.fragment_offset().value(), header.more_fragments()),
        Ipv6ExtensionSlice::HopByHop(_)
        | Ipv6ExtensionSlice::Routing(_)
        | Ipv6ExtensionSlice::DestinationOptions(_)
        | Ipv6ExtensionSlice::Authentication(_) => None,
    })
}

impl Fragment {
    fn of(offset: u16, more: bool) -> Option<Self> {
        match (offset, more) {
            (0, false) => None,
            (0, true) => Some(Fragment::First),
            (_, _) => Some(Fragment::Later),
        }
    }
}

const UDP_HEADER: usize = 8;
const ICMP_HEADER: usize = 8;

impl Transport {
    fn parse(protocol: u8, bytes: &[u8]) -> Result<(Self, usize), Malformed> {
        match protocol {
            protocol::TCP => {
                let tcp = TcpSlice::from_slice(bytes).map_err(|_| Malformed)?;
                let flags = TcpFlags(tcp.header_slice()[13]);
                let (src_port, dst_port) = (tcp.source_port(), tcp.destination_port());
                Ok((
                    Self::Tcp {
                        src_port,
                        dst_port,
                        flags,
                    },
                    tcp.payload().len(),
                ))
            }
            protocol::UDP => {
                let (src_port, dst_port) = ports(bytes).ok_or(Malformed)?;
                let header = bytes.get(..UDP_HEADER).ok_or(Malformed)?;
                if usize::from(u16::from_be_bytes([header[4], header[5]])) < UDP_HEADER {
                    return Err(Malformed);
                }
                Ok((Self::Udp { src_port, dst_port }, bytes.len() - UDP_HEADER))
            }
            protocol::ICMP => Ok((Self::icmp(bytes)?, 0)),
            protocol::ICMPV6 => Ok((Self::icmpv6(bytes)?, 0)),
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

    fn icmp(bytes: &[u8]) -> Result<Self, Malformed> {
        let (kind, code, identifier) = icmp_header(bytes)?;
        Ok(match kind {
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

    fn icmpv6(bytes: &[u8]) -> Result<Self, Malformed> {
        let (kind, code, identifier) = icmp_header(bytes)?;
        Ok(match kind {
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
fn icmp_header(bytes: &[u8]) -> Result<(u8, u8, u16), Malformed> {
    let header = bytes.get(..ICMP_HEADER).ok_or(Malformed)?;
    Ok((header[0], header[1], u16::from_be_bytes([header[4], header[5]])))
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
        let (slice, _) = LaxIpSlice::from_slice(bytes).ok()?;
        let payload = slice.payload();
        let fragment = match &slice {
            LaxIpSlice::Ipv4(v4) => fragment_v4(&v4.header()),
            LaxIpSlice::Ipv6(v6) => fragment_v6(v6.extensions()),
        };
        if matches!(fragment, Some(Fragment::Later)) {
            return None;
        }
        let protocol = payload.ip_number.0;
        let (src_port, dst_port) = match protocol {
            protocol::TCP | protocol::UDP => ports(payload.payload)?,
            protocol::ICMP | protocol::ICMPV6 => {
                let (kind, _, identifier) = icmp_header(payload.payload).ok()?;
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
