//! ICMP errors that the gateway makes itself: "administratively prohibited" (R23).

use std::net::IpAddr;

use etherparse::PacketBuilder;

use crate::packet::{PacketInfo, Transport};

/// What an error quotes of the packet: all of it, up to what keeps the error within the minimum MTU of its family.
const QUOTE_V4: usize = 576 - 20 - 8;
const QUOTE_V6: usize = 1280 - 40 - 8;
const TTL: u8 = 64;

/// The error for a denied packet, from `from` to the packet's source. `None` where the rules of ICMP forbid one: in
/// answer to an error, a multicast or a later fragment.
pub fn prohibited(packet: &[u8], info: &PacketInfo, from: IpAddr) -> Option<Vec<u8>> {
    let answerable = match info.transport {
        Transport::IcmpError { .. } | Transport::Redirect | Transport::Fragment => false,
        Transport::Tcp { .. }
        | Transport::Udp { .. }
        | Transport::Echo { .. }
        | Transport::Icmp { .. }
        | Transport::Other => true,
    };
    if !answerable || info.dst.is_multicast() || info.src.is_multicast() || info.src.is_unspecified() {
        return None;
    }
    let packet = &packet[..packet.len().min(info.len as usize)];
    let mut out = Vec::with_capacity(1280);
    let written = match (from, info.src) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            let quote = &packet[..packet.len().min(QUOTE_V4)];
            PacketBuilder::ipv4(from.octets(), to.octets(), TTL)
                .icmpv4_raw(3, 13, [0; 4])
                .write(&mut out, quote)
        }
        (IpAddr::V6(from), IpAddr::V6(to)) => {
            let quote = &packet[..packet.len().min(QUOTE_V6)];
            PacketBuilder::ipv6(from.octets(), to.octets(), TTL)
                .icmpv6_raw(1, 1, [0; 4])
                .write(&mut out, quote)
        }
        (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => return None,
    };
    written.ok().map(|()| out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::TcpFlags;
    use crate::testkit;

    /// R23: the error names the packet that was denied and goes to its sender, in both families.
    #[test]
    fn r23_quotes_the_denied_packet() {
        for (src, dst, own, kind) in [
            ("100.64.0.2:4000", "192.0.2.1:25", "100.64.0.1", (3, 13)),
            ("[fd00:64::2]:4000", "[2001:db8::1]:25", "fd00:64::1", (1, 1)),
        ] {
            let packet = testkit::tcp(src, dst, TcpFlags::SYN, b"");
            let info = PacketInfo::parse(&packet).unwrap();
            let error = prohibited(&packet, &info, own.parse().unwrap()).unwrap();
            let parsed = PacketInfo::parse(&error).unwrap();
            assert_eq!(parsed.dst, info.src);
            let Transport::IcmpError {
                kind: seen,
                code,
                original: Some(original),
            } = parsed.transport
            else {
                panic!("not an ICMP error");
            };
            assert_eq!((seen, code), kind);
            assert_eq!((original.src_port, original.dst_port), (4000, 25));
        }
    }

    /// R23: never in answer to an ICMP error.
    #[test]
    fn r23_no_error_about_an_error() {
        let inner = testkit::udp("10.0.0.1:1", "10.0.0.2:2", b"");
        let error = testkit::icmp_error("192.0.2.1", "10.0.0.1", 3, 3, &inner);
        let info = PacketInfo::parse(&error).unwrap();
        assert_eq!(prohibited(&error, &info, "100.64.0.1".parse().unwrap()), None);
    }
}
