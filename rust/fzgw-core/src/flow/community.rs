//! Community ID v1 (R4): the same text for a flow in every tool that has seen it, whoever saw it from where.

use std::net::IpAddr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sha1::{Digest, Sha1};

use crate::packet::protocol;

/// The Community ID of a flow, seed 0. `icmp` is the type and code of an ICMP flow's first message; ports of ICMP and
/// of protocols without ports are not looked at.
pub fn community_id(src: (IpAddr, u16), dst: (IpAddr, u16), protocol: u8, icmp: Option<(u8, u8)>) -> String {
    text(src, dst, protocol, icmp).into_iter().map(char::from).collect()
}

/// As [`community_id`], without an allocation: ASCII that needs no escapes in JSON.
pub(crate) fn text(src: (IpAddr, u16), dst: (IpAddr, u16), protocol: u8, icmp: Option<(u8, u8)>) -> [u8; TEXT_BYTES] {
    let mut text = [0; TEXT_BYTES];
    let (version, hash) = text.split_at_mut(VERSION.len());
    version.copy_from_slice(VERSION);
    let written = STANDARD.encode_slice(digest(src, dst, protocol, icmp), hash);
    debug_assert_eq!(written, Ok(TEXT_BYTES - VERSION.len()));
    text
}

/// The hash that the text of a Community ID is made of.
pub(super) fn digest(src: (IpAddr, u16), dst: (IpAddr, u16), protocol: u8, icmp: Option<(u8, u8)>) -> [u8; 20] {
    let ports = match (protocol, icmp) {
        (protocol::TCP | protocol::UDP | SCTP, _) => Some((src.1, dst.1, false)),
        (_, Some(message)) => Some(icmp_ports(protocol, message)),
        _ => None,
    };
    let (src_port, dst_port, one_way) = ports.unwrap_or((0, 0, false));
    let (src, dst) = (octets(src.0), octets(dst.0));
    let ordered = one_way || (src.as_slice(), src_port) <= (dst.as_slice(), dst_port);
    let ((low, low_port), (high, high_port)) = if ordered {
        ((&src, src_port), (&dst, dst_port))
    } else {
        ((&dst, dst_port), (&src, src_port))
    };
    let mut hash = Sha1::new();
    hash.update(SEED.to_be_bytes());
    hash.update(low.as_slice());
    hash.update(high.as_slice());
    hash.update([protocol, 0]);
    if ports.is_some() {
        hash.update(low_port.to_be_bytes());
        hash.update(high_port.to_be_bytes());
    }
    hash.finalize().into()
}

/// What Zeek puts where ports are: the type of the message and the type that answers it. A message that knows no answer
/// goes one way (the third value), and its code stands in the other place.
pub(crate) fn icmp_ports(protocol: u8, (kind, code): (u8, u8)) -> (u16, u16, bool) {
    let answers = if protocol == protocol::ICMP {
        ICMP_ANSWERS
    } else {
        ICMPV6_ANSWERS
    };
    let other = answers.iter().find_map(|pair| match *pair {
        (ask, reply) if ask == kind => Some(reply),
        (ask, reply) if reply == kind => Some(ask),
        _ => None,
    });
    (kind.into(), other.unwrap_or(code).into(), other.is_none())
}

/// Bytes of a Community ID's text: the version and 20 bytes in base64.
const TEXT_BYTES: usize = VERSION.len() + 28;
const VERSION: &[u8] = b"1:";
const SEED: u16 = 0;
const SCTP: u8 = 132;
/// Messages and their answers, as Zeek pairs them.
const ICMP_ANSWERS: &[(u8, u8)] = &[(8, 0), (13, 14), (15, 16), (10, 9), (17, 18)];
const ICMPV6_ANSWERS: &[(u8, u8)] = &[(128, 129), (130, 131), (133, 134), (135, 136), (139, 140), (144, 145)];

fn octets(address: IpAddr) -> Octets {
    match address {
        IpAddr::V4(v4) => Octets {
            bytes: v4.to_ipv6_mapped().octets(),
            from: 12,
        },
        IpAddr::V6(v6) => Octets {
            bytes: v6.octets(),
            from: 0,
        },
    }
}

/// An address in its own length.
struct Octets {
    bytes: [u8; 16],
    from: usize,
}

impl Octets {
    fn as_slice(&self) -> &[u8] {
        &self.bytes[self.from..]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Values of the specification's baseline, and of the reference implementation for what it lacks.
    #[test]
    fn r4_community_ids_are_the_published_ones() {
        let port = |text: &str, port| (text.parse().unwrap(), port);
        for (src, dst, protocol, icmp, expected) in [
            (
                port("128.232.110.120", 34855),
                port("66.35.250.204", 80),
                6,
                None,
                "1:LQU9qZlK+B5F3KDmev6m5PMibrg=",
            ),
            (
                port("66.35.250.204", 80),
                port("128.232.110.120", 34855),
                6,
                None,
                "1:LQU9qZlK+B5F3KDmev6m5PMibrg=",
            ),
            (
                port("192.168.1.52", 54585),
                port("8.8.8.8", 53),
                17,
                None,
                "1:d/FP5EW3wiY1vCndhwleRRKHowQ=",
            ),
            (
                port("192.168.0.89", 7),
                port("192.168.0.1", 0),
                1,
                Some((8, 0)),
                "1:X0snYXpgwiv9TZtqg64sgzUn6Dk=",
            ),
            (
                port("10.0.0.1", 0),
                port("10.0.0.2", 0),
                1,
                Some((13, 0)),
                "1:6zK3cgZa+RmEpj3VhWmGXnOWUZk=",
            ),
            (
                port("fe80::200:86ff:fe05:80da", 0),
                port("fe80::260:97ff:fe07:69ea", 0),
                58,
                Some((135, 0)),
                "1:dGHyGvjMfljg6Bppwm3bg0LO8TY=",
            ),
            (
                port("fe80::1", 9),
                port("fe80::2", 0),
                58,
                Some((128, 0)),
                "1:3H+V/JVcqh/phPel5utt4dOKqOU=",
            ),
            (
                port("3ffe:507:0:1:260:97ff:fe07:69ea", 0),
                port("3ffe:507:0:1:200:86ff:fe05:80da", 0),
                58,
                Some((3, 0)),
                "1:NdobDX8PQNJbAyfkWxhtL2Pqp5w=",
            ),
            (
                port("10.1.24.4", 0),
                port("10.1.12.1", 0),
                47,
                None,
                "1:6JFBmF1p0LABA19nAHNSi9mGLPM=",
            ),
        ] {
            assert_eq!(community_id(src, dst, protocol, icmp), expected);
        }
    }
}
