//! Link headers: from a frame to the IP packet in it.
//!
//! Only as much is read as says where the packet begins. Whether it is well-formed is [`crate::packet`]'s question; its
//! version is looked at only where the link header does not tell it.

use std::fmt;

use super::Frame;

/// The kind of a frame, as numbered for pcap and pcapng by tcpdump.org.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct LinkType(pub u16);

impl LinkType {
    /// BSD loopback: an address family in the byte order of the machine.
    pub const NULL: Self = Self(0);
    /// Ethernet.
    pub const ETHERNET: Self = Self(1);
    /// An IP packet and nothing else, as some systems number it.
    pub const DLT_RAW: Self = Self(12);
    /// An IP packet and nothing else, as OpenBSD numbers it.
    pub const DLT_RAW_OPENBSD: Self = Self(14);
    /// An IP packet and nothing else.
    pub const RAW: Self = Self(101);
    /// OpenBSD loopback: an address family in network byte order.
    pub const LOOP: Self = Self(108);
    /// Linux cooked capture.
    pub const LINUX_SLL: Self = Self(113);
    /// An IPv4 packet and nothing else.
    pub const IPV4: Self = Self(228);
    /// An IPv6 packet and nothing else.
    pub const IPV6: Self = Self(229);
    /// Linux cooked capture, version 2.
    pub const LINUX_SLL2: Self = Self(276);
}

impl fmt::Display for LinkType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The IP packet of a frame, not yet parsed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IpFrame<'a> {
    /// What was captured of it, at least one byte. Padding may follow the packet.
    pub bytes: &'a [u8],
    /// The frame's length on the wire behind the link header: not less than `bytes`.
    pub wire_len: usize,
}

/// Why a frame holds no IP packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NotIp {
    /// A link type that is not known here.
    UnknownLink,
    /// Another protocol: ARP, spanning tree, …
    OtherProtocol,
    /// The snaplen left too little of the link header, or nothing of what follows it.
    Cut,
    /// A link header that cannot be.
    Malformed,
}

impl NotIp {
    /// All, in the order of arrays indexed by it.
    pub const ALL: &'static [NotIp] = &[Self::UnknownLink, Self::OtherProtocol, Self::Cut, Self::Malformed];

    /// The word of the ledgers.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::UnknownLink => "unknown_link",
            Self::OtherProtocol => "not_ip",
            Self::Cut => "cut",
            Self::Malformed => "malformed",
        }
    }
}

/// Values of an Ethernet type field, which Linux cooked headers share.
mod ethertype {
    /// Up to here the field is a length, and an LLC header follows.
    pub(super) const MAX_LENGTH: u16 = 1500;
    pub(super) const IPV4: u16 = 0x0800;
    pub(super) const IPV6: u16 = 0x86dd;
    pub(super) const VLAN: u16 = 0x8100;
    pub(super) const QINQ: u16 = 0x88a8;
    /// QinQ before its standard.
    pub(super) const OLD_QINQ: u16 = 0x9100;
    pub(super) const PPPOE_SESSION: u16 = 0x8864;
}

/// Address families in loopback headers: IPv6 has another number on each system.
mod family {
    pub(super) const INET: u32 = 2;
    pub(super) const LINUX_INET6: u32 = 10;
    pub(super) const WINDOWS_INET6: u32 = 23;
    pub(super) const OPENBSD_INET6: u32 = 24;
    pub(super) const FREEBSD_INET6: u32 = 28;
    pub(super) const DARWIN_INET6: u32 = 30;
}

const ETHERNET_TYPE: usize = 12;
const SLL_PROTOCOL: usize = 14;
const SLL2_PROTOCOL: usize = 0;
const SLL2_HEADER: usize = 20;
const LOOPBACK_HEADER: usize = 4;
const TAG: usize = 4;
const PPPOE_HEADER: usize = 6;
/// VLAN tags of one frame: two are usual.
const MAX_TAGS: usize = 8;
/// LLC and SNAP in front of an Ethernet type (RFC 1042).
const SNAP: [u8; 6] = [0xaa, 0xaa, 0x03, 0, 0, 0];

/// The IP packet in a frame.
#[inline]
pub fn ip_packet<'a>(frame: &Frame<'a>) -> Result<IpFrame<'a>, NotIp> {
    match frame.link {
        LinkType::ETHERNET => by_type(frame, be16(frame, ETHERNET_TYPE)?, ETHERNET_TYPE + 2),
        LinkType::RAW | LinkType::DLT_RAW | LinkType::DLT_RAW_OPENBSD => raw(frame),
        LinkType::IPV4 | LinkType::IPV6 => packet_at(frame, 0),
        LinkType::LINUX_SLL => by_type(frame, be16(frame, SLL_PROTOCOL)?, SLL_PROTOCOL + 2),
        LinkType::LINUX_SLL2 => by_type(frame, be16(frame, SLL2_PROTOCOL)?, SLL2_HEADER),
        LinkType::NULL | LinkType::LOOP => loopback(frame),
        LinkType(_) => Err(NotIp::UnknownLink),
    }
}

#[inline]
fn by_type<'a>(frame: &Frame<'a>, ethertype: u16, at: usize) -> Result<IpFrame<'a>, NotIp> {
    match ethertype {
        ethertype::IPV4 | ethertype::IPV6 => packet_at(frame, at),
        _ => behind_tags(frame, ethertype, at),
    }
}

fn behind_tags<'a>(frame: &Frame<'a>, mut ethertype: u16, mut at: usize) -> Result<IpFrame<'a>, NotIp> {
    for _ in 0..=MAX_TAGS {
        match ethertype {
            ethertype::IPV4 | ethertype::IPV6 => return packet_at(frame, at),
            ethertype::VLAN | ethertype::QINQ | ethertype::OLD_QINQ => {
                ethertype = be16(frame, at + 2)?;
                at += TAG;
            }
            ethertype::PPPOE_SESSION => return pppoe(frame, at),
            ..=ethertype::MAX_LENGTH => return snap(frame, at),
            _ => return Err(NotIp::OtherProtocol),
        }
    }
    Err(NotIp::Malformed)
}

fn snap<'a>(frame: &Frame<'a>, at: usize) -> Result<IpFrame<'a>, NotIp> {
    if bytes_at(frame, at)? != SNAP {
        return Err(NotIp::OtherProtocol);
    }
    match be16(frame, at + SNAP.len())? {
        ethertype::IPV4 | ethertype::IPV6 => packet_at(frame, at + SNAP.len() + 2),
        _ => Err(NotIp::OtherProtocol),
    }
}

/// PPP in Ethernet (RFC 2516). Its length is believed where the frame has as much: then it is the packet's, and
/// Ethernet's padding follows.
fn pppoe<'a>(frame: &Frame<'a>, at: usize) -> Result<IpFrame<'a>, NotIp> {
    let [version_and_type, code] = bytes_at(frame, at)?;
    if (version_and_type, code) != (0x11, 0) {
        return Err(NotIp::Malformed);
    }
    let len = usize::from(be16(frame, at + 4)?);
    let at = at + PPPOE_HEADER;
    // An odd first byte is a protocol number of its own: the two-byte ones begin with an even one.
    let (protocol, protocol_len) = match bytes_at(frame, at)? {
        [first] if first & 1 == 1 => (u16::from(first), 1),
        [_] => (be16(frame, at)?, 2),
    };
    let Some(len) = len.checked_sub(protocol_len) else {
        return Err(NotIp::Malformed);
    };
    match protocol {
        0x21 | 0x57 => {}
        _ => return Err(NotIp::OtherProtocol),
    }
    let packet = packet_at(frame, at + protocol_len)?;
    if len == 0 {
        return Err(NotIp::Malformed);
    }
    Ok(IpFrame {
        bytes: &packet.bytes[..packet.bytes.len().min(len)],
        wire_len: packet.wire_len.min(len),
    })
}

fn raw<'a>(frame: &Frame<'a>) -> Result<IpFrame<'a>, NotIp> {
    let [first] = bytes_at(frame, 0)?;
    match first >> 4 {
        4 | 6 => packet_at(frame, 0),
        _ => Err(NotIp::Malformed),
    }
}

fn loopback<'a>(frame: &Frame<'a>) -> Result<IpFrame<'a>, NotIp> {
    let family = u32::from_be_bytes(bytes_at(frame, 0)?);
    // Families are small, so the byte order shows.
    let family = if family > 0xffff { family.swap_bytes() } else { family };
    match family {
        family::INET
        | family::LINUX_INET6
        | family::WINDOWS_INET6
        | family::OPENBSD_INET6
        | family::FREEBSD_INET6
        | family::DARWIN_INET6 => packet_at(frame, LOOPBACK_HEADER),
        _ => Err(NotIp::OtherProtocol),
    }
}

#[inline]
fn packet_at<'a>(frame: &Frame<'a>, at: usize) -> Result<IpFrame<'a>, NotIp> {
    match frame.bytes.get(at..) {
        Some(bytes) if !bytes.is_empty() => Ok(IpFrame {
            bytes,
            wire_len: wire_len(frame) - at,
        }),
        Some(_) | None => Err(missing(frame)),
    }
}

#[inline]
fn be16(frame: &Frame<'_>, at: usize) -> Result<u16, NotIp> {
    bytes_at(frame, at).map(u16::from_be_bytes)
}

#[inline]
fn bytes_at<const N: usize>(frame: &Frame<'_>, at: usize) -> Result<[u8; N], NotIp> {
    match frame.bytes.get(at..).and_then(|rest| rest.first_chunk()) {
        Some(bytes) => Ok(*bytes),
        None => Err(missing(frame)),
    }
}

/// What a frame without some byte is: cut where it was longer on the wire, else too short to be one.
fn missing(frame: &Frame<'_>) -> NotIp {
    if wire_len(frame) > frame.bytes.len() {
        NotIp::Cut
    } else {
        NotIp::Malformed
    }
}

/// A frame need not come from a reader of this module, so its lengths may disagree.
#[inline]
fn wire_len(frame: &Frame<'_>) -> usize {
    frame.bytes.len().max(frame.wire_len as usize)
}

#[cfg(test)]
mod tests {
    use super::*;

    const V4: &[u8] = &[0x45, 1, 2, 3];
    const V6: &[u8] = &[0x60, 1, 2, 3, 4];
    const MACS: &[u8] = &[2; 12];
    const SLL: &[u8] = &[0, 0, 0, 1, 0, 6, 2, 2, 2, 2, 2, 2, 0, 0];
    const SLL2_REST: &[u8] = &[0, 0, 0, 0, 0, 2, 0, 1, 0, 6, 2, 2, 2, 2, 2, 2, 0, 0];

    /// A name, the link type, the link header and what follows it.
    fn with_ip() -> Vec<(&'static str, LinkType, Vec<u8>, &'static [u8])> {
        let ethernet = |rest: &[u8]| [MACS, rest].concat();
        vec![
            ("Ethernet", LinkType::ETHERNET, ethernet(&[8, 0]), V4),
            ("Ethernet", LinkType::ETHERNET, ethernet(&[0x86, 0xdd]), V6),
            ("802.1Q", LinkType::ETHERNET, ethernet(&[0x81, 0, 0, 9, 8, 0]), V4),
            (
                "QinQ",
                LinkType::ETHERNET,
                ethernet(&[0x88, 0xa8, 0, 9, 0x81, 0, 0, 7, 0x86, 0xdd]),
                V6,
            ),
            (
                "old QinQ",
                LinkType::ETHERNET,
                ethernet(&[0x91, 0, 0, 9, 0x81, 0, 0, 7, 8, 0]),
                V4,
            ),
            (
                "eight tags",
                LinkType::ETHERNET,
                ethernet(&[&[0x81, 0, 0, 9].repeat(8)[..], &[8, 0]].concat()),
                V4,
            ),
            (
                "SNAP",
                LinkType::ETHERNET,
                ethernet(&[0, 12, 0xaa, 0xaa, 3, 0, 0, 0, 8, 0]),
                V4,
            ),
            (
                "PPPoE",
                LinkType::ETHERNET,
                ethernet(&[0x88, 0x64, 0x11, 0, 0, 1, 0, 6, 0, 0x21]),
                V4,
            ),
            (
                "PPPoE",
                LinkType::ETHERNET,
                ethernet(&[0x88, 0x64, 0x11, 0, 0, 1, 0, 7, 0, 0x57]),
                V6,
            ),
            (
                "PPPoE, short protocol",
                LinkType::ETHERNET,
                ethernet(&[0x88, 0x64, 0x11, 0, 0, 1, 0, 5, 0x21]),
                V4,
            ),
            (
                "PPPoE, short protocol",
                LinkType::ETHERNET,
                ethernet(&[0x88, 0x64, 0x11, 0, 0, 1, 0, 6, 0x57]),
                V6,
            ),
            (
                "PPPoE in a VLAN",
                LinkType::ETHERNET,
                ethernet(&[0x81, 0, 0, 9, 0x88, 0x64, 0x11, 0, 0, 1, 0, 6, 0, 0x21]),
                V4,
            ),
            ("raw", LinkType::RAW, vec![], V4),
            ("raw", LinkType::RAW, vec![], V6),
            ("raw as 12", LinkType::DLT_RAW, vec![], V4),
            ("raw as 14", LinkType::DLT_RAW_OPENBSD, vec![], V6),
            ("IPv4", LinkType::IPV4, vec![], V4),
            ("IPv6", LinkType::IPV6, vec![], V6),
            ("cooked", LinkType::LINUX_SLL, [SLL, &[8, 0]].concat(), V4),
            ("cooked", LinkType::LINUX_SLL, [SLL, &[0x86, 0xdd]].concat(), V6),
            (
                "cooked, VLAN",
                LinkType::LINUX_SLL,
                [SLL, &[0x81, 0, 0, 9, 8, 0]].concat(),
                V4,
            ),
            ("cooked 2", LinkType::LINUX_SLL2, [&[8, 0], SLL2_REST].concat(), V4),
            (
                "cooked 2",
                LinkType::LINUX_SLL2,
                [&[0x86, 0xdd], SLL2_REST].concat(),
                V6,
            ),
            (
                "cooked 2, VLAN",
                LinkType::LINUX_SLL2,
                [&[0x81, 0], SLL2_REST, &[0, 9, 8, 0]].concat(),
                V4,
            ),
            ("loopback, little", LinkType::NULL, vec![2, 0, 0, 0], V4),
            ("loopback, big", LinkType::NULL, vec![0, 0, 0, 2], V4),
            ("loopback, FreeBSD", LinkType::NULL, vec![28, 0, 0, 0], V6),
            ("loopback, Darwin", LinkType::NULL, vec![30, 0, 0, 0], V6),
            ("loopback, NetBSD, big", LinkType::NULL, vec![0, 0, 0, 24], V6),
            ("loopback, Linux", LinkType::NULL, vec![10, 0, 0, 0], V6),
            ("loopback, Windows", LinkType::NULL, vec![23, 0, 0, 0], V6),
            ("loop", LinkType::LOOP, vec![0, 0, 0, 2], V4),
            ("loop", LinkType::LOOP, vec![0, 0, 0, 24], V6),
        ]
    }

    fn parse(link: LinkType, bytes: &[u8], wire_len: usize) -> Result<(&[u8], usize), NotIp> {
        let frame = Frame {
            link,
            time: 0,
            bytes,
            wire_len: wire_len as u32,
        };
        ip_packet(&frame).map(|packet| (packet.bytes, packet.wire_len))
    }

    /// Each link header ends where the IP packet begins, whole or cut by the snaplen anywhere. A cut in the header or
    /// right behind it is `cut`; the same frame with nothing more on the wire is `malformed`.
    #[test]
    fn every_link_header() {
        for (name, link, header, packet) in with_ip() {
            let bytes = [&header[..], packet].concat();
            let len = packet.len();
            assert_eq!(parse(link, &bytes, bytes.len()), Ok((packet, len)), "{name}");
            for cut in 1..len {
                let captured = &bytes[..bytes.len() - cut];
                let expected = Ok((&packet[..len - cut], len));
                assert_eq!(parse(link, captured, bytes.len()), expected, "{name}, {cut} cut");
            }
            for captured in 0..=header.len() {
                let captured = &bytes[..captured];
                assert_eq!(parse(link, captured, bytes.len()), Err(NotIp::Cut), "{name}");
                assert_eq!(parse(link, captured, captured.len()), Err(NotIp::Malformed), "{name}");
            }
        }
    }

    /// The wire length is the frame's without the link header, with Ethernet's padding. PPPoE tells its own length, which
    /// is believed up to the frame's.
    #[test]
    fn wire_lengths() {
        let ethernet = [MACS, &[8, 0], V4, &[0; 42]].concat();
        assert_eq!(
            parse(LinkType::ETHERNET, &ethernet, 60).unwrap(),
            (&ethernet[14..], 46),
            "padding may follow"
        );
        assert_eq!(parse(LinkType::ETHERNET, &ethernet, 1514).unwrap().1, 1500);
        let pppoe = |len: u8| [MACS, &[0x88, 0x64, 0x11, 0, 0, 1, 0, len, 0, 0x21], V4, &[0; 34]].concat();
        assert_eq!(
            parse(LinkType::ETHERNET, &pppoe(6), 60),
            Ok((V4, 4)),
            "PPPoE knows it is none"
        );
        let bytes = pppoe(200);
        assert_eq!(parse(LinkType::ETHERNET, &bytes, 60), Ok((&bytes[22..], 38)));
        assert_eq!(parse(LinkType::ETHERNET, &bytes, 220), Ok((&bytes[22..], 198)));
        assert_eq!(
            parse(LinkType::ETHERNET, &bytes, 0),
            Ok((&bytes[22..], 38)),
            "no wire length"
        );
    }

    /// What is no IP packet has a reason.
    #[test]
    fn not_ip() {
        let tags = [0x81, 0, 0, 9].repeat(9);
        for (reason, name, link, bytes) in [
            (
                NotIp::OtherProtocol,
                "ARP",
                LinkType::ETHERNET,
                [MACS, &[8, 6], V4].concat(),
            ),
            (
                NotIp::OtherProtocol,
                "MPLS",
                LinkType::ETHERNET,
                [MACS, &[0x88, 0x47], V4, V4].concat(),
            ),
            (
                NotIp::OtherProtocol,
                "spanning tree",
                LinkType::ETHERNET,
                [MACS, &[0, 38, 0x42, 0x42, 3], &[0; 40]].concat(),
            ),
            (
                NotIp::OtherProtocol,
                "SNAP, other",
                LinkType::ETHERNET,
                [MACS, &[0, 9, 0xaa, 0xaa, 3, 0, 0, 12, 1, 4], V4].concat(),
            ),
            (
                NotIp::OtherProtocol,
                "SNAP, ARP",
                LinkType::ETHERNET,
                [MACS, &[0, 9, 0xaa, 0xaa, 3, 0, 0, 0, 8, 6], V4].concat(),
            ),
            (
                NotIp::OtherProtocol,
                "VLAN, ARP",
                LinkType::ETHERNET,
                [MACS, &[0x81, 0, 0, 9, 8, 6], V4].concat(),
            ),
            (
                NotIp::OtherProtocol,
                "LCP",
                LinkType::ETHERNET,
                [MACS, &[0x88, 0x64, 0x11, 0, 0, 1, 0, 6, 0xc0, 0x21], V4].concat(),
            ),
            (
                NotIp::OtherProtocol,
                "cooked ARP",
                LinkType::LINUX_SLL,
                [SLL, &[8, 6], V4].concat(),
            ),
            (
                NotIp::OtherProtocol,
                "loopback, AppleTalk",
                LinkType::NULL,
                [&[16, 0, 0, 0], V4].concat(),
            ),
            (
                NotIp::OtherProtocol,
                "loopback, no family",
                LinkType::NULL,
                [&[1, 0, 0, 2], V4].concat(),
            ),
            (
                NotIp::Malformed,
                "nine tags",
                LinkType::ETHERNET,
                [MACS, &tags, &[8, 0], V4].concat(),
            ),
            (
                NotIp::Malformed,
                "PPPoE, version",
                LinkType::ETHERNET,
                [MACS, &[0x88, 0x64, 0x21, 0, 0, 1, 0, 6, 0, 0x21], V4].concat(),
            ),
            (
                NotIp::Malformed,
                "PPPoE, code",
                LinkType::ETHERNET,
                [MACS, &[0x88, 0x64, 0x11, 9, 0, 1, 0, 6, 0, 0x21], V4].concat(),
            ),
            (
                NotIp::Malformed,
                "PPPoE, length 1",
                LinkType::ETHERNET,
                [MACS, &[0x88, 0x64, 0x11, 0, 0, 1, 0, 1, 0, 0x21], V4].concat(),
            ),
            (
                NotIp::Malformed,
                "PPPoE, length 2",
                LinkType::ETHERNET,
                [MACS, &[0x88, 0x64, 0x11, 0, 0, 1, 0, 2, 0, 0x21], V4].concat(),
            ),
            (NotIp::Malformed, "raw, version 5", LinkType::RAW, vec![0x55; 40]),
            (NotIp::Malformed, "nothing", LinkType::RAW, vec![]),
            (NotIp::UnknownLink, "802.11", LinkType(105), V4.to_vec()),
        ] {
            assert_eq!(parse(link, &bytes, bytes.len()), Err(reason), "{name}");
        }
    }

    /// The ledgers' words, in the order of their array.
    #[test]
    fn words() {
        for (index, reason) in NotIp::ALL.iter().enumerate() {
            assert_eq!(*reason as usize, index);
        }
        assert_eq!(
            NotIp::ALL.iter().map(|reason| reason.as_str()).collect::<Vec<_>>(),
            ["unknown_link", "not_ip", "cut", "malformed"]
        );
    }
}
