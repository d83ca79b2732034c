//! Single packets, for the target `packet`: three bytes that say how long it was on the wire, then the packet.

use fzgw_core::packet::{TcpFlags, protocol};
use fzgw_fuzz::make::{self, Ends, Piece};
use fzgw_fuzz::script;

use crate::{Seed, of};

/// As long on the wire as here.
const WHOLE: [u8; 3] = [0xfc, 0, 0];

pub(crate) fn v4() -> Ends {
    script::ends(0, false)
}

pub(crate) fn v6() -> Ends {
    script::ends(0, true)
}

pub(crate) fn seeds() -> Vec<Seed> {
    let (v4, v6) = (v4(), v6());
    let syn = make::tcp(v4, TcpFlags::SYN, 1, 0);
    let datagram = make::udp(v4, 100);
    let first = Piece {
        identification: 7,
        offset: 0,
        more: true,
    };
    let later = Piece {
        offset: 5,
        more: false,
        ..first
    };
    let packets = vec![
        ("v4-tcp-syn", syn.clone()),
        ("v4-udp", make::udp(v4, 5)),
        ("v4-udp-with-padding", [make::udp(v4, 5), vec![0; 13]].concat()),
        ("v4-echo-request", make::echo(v4, true)),
        ("v4-timestamp-request", make::icmp(v4, 13, 0, &[])),
        ("v4-redirect", make::icmp(v4.turned(), 5, 1, &datagram)),
        ("v4-port-unreachable", make::icmp(v4.turned(), 3, 3, &datagram[..28])),
        (
            "v4-unreachable-quotes-too-little",
            make::icmp(v4.turned(), 3, 1, &datagram[..22]),
        ),
        (
            "v4-unreachable-quotes-another-sender",
            make::icmp(v4, 3, 3, &datagram[..28]),
        ),
        ("v4-unreachable-quotes-later-fragment", {
            let quoted = make::fragment(v4, protocol::UDP, later, &[0; 8]);
            make::icmp(v4.turned(), 3, 3, &quoted)
        }),
        ("v4-gre", make::ip(v4, 47, &[0; 12])),
        ("v4-no-body", make::ip(v4, 253, &[])),
        ("v4-options", with_options(&syn)),
        (
            "v4-authentication-header",
            make::ip(v4, 51, &[&authentication(17)[..], &make::udp_body(v4, 3)].concat()),
        ),
        (
            "v4-first-fragment",
            make::fragment(v4, protocol::UDP, first, &make::udp_body(v4, 16)),
        ),
        (
            "v4-first-fragment-too-short",
            make::fragment(v4, protocol::TCP, first, &[0; 8]),
        ),
        ("v4-later-fragment", make::fragment(v4, protocol::UDP, later, &[0; 16])),
        ("v4-length-beyond-the-bytes", changed(&datagram, 2, &[0x01, 0xf4])),
        ("v4-length-below-the-header", changed(&datagram, 2, &[0, 19])),
        ("v4-header-length-4", changed(&datagram, 0, &[0x44])),
        ("v4-version-5", changed(&datagram, 0, &[0x55])),
        ("v4-tcp-data-offset-4", changed(&syn, 32, &[0x40])),
        ("v4-tcp-data-offset-beyond-the-end", changed(&syn, 32, &[0xf0])),
        ("v4-udp-length-7", changed(&datagram, 24, &[0, 7])),
        ("v6-udp", make::udp(v6, 5)),
        ("v6-tcp-syn-ack", make::tcp(v6, TcpFlags::SYN | TcpFlags::ACK, 1, 0)),
        ("v6-echo-reply", make::echo(v6, false)),
        (
            "v6-too-big-about-tcp",
            make::icmp(v6.turned(), 2, 0, &make::tcp(v6, TcpFlags::ACK, 1, 20)),
        ),
        ("v6-error-quotes-extensions-cut-short", {
            // Destination options should follow, and nothing does.
            let quoted = make::ip(v6, 0, &[60, 0, 1, 4, 0, 0, 0, 0]);
            make::icmp(v6.turned(), 1, 4, &quoted)
        }),
        ("v6-neighbour-solicitation", make::icmp(v6, 135, 0, &[0; 16])),
        ("v6-mapped-addresses", make::udp(script::ends(2, true), 1)),
        ("v6-no-next-header", make::ip(v6, 59, &[])),
        (
            "v6-hop-by-hop-first-fragment",
            make::fragment(v6, protocol::UDP, first, &make::udp_body(v6, 16)),
        ),
        (
            "v6-hop-by-hop-later-fragment",
            make::fragment(v6, protocol::UDP, later, &[0; 16]),
        ),
        ("v6-atomic-fragment", {
            let whole = Piece { more: false, ..first };
            make::fragment(v6, protocol::UDP, whole, &make::udp_body(v6, 4))
        }),
        (
            "v6-all-extensions",
            make::ip(v6, 0, &all_extensions(&make::udp_body(v6, 9))),
        ),
        (
            "v6-extension-beyond-the-end",
            make::ip(v6, 0, &[60, 200, 0, 0, 0, 0, 0, 0]),
        ),
        ("empty", vec![]),
    ];
    let mut seeds = of(
        "packet",
        packets
            .into_iter()
            .map(|(name, packet)| (name, [&WHOLE[..], &packet].concat()))
            .collect(),
    );
    let big = make::udp(v4, 300);
    let no_length_v4 = changed(&big, 2, &[0, 0]);
    let no_length_v6 = changed(&make::udp(v6, 300), 4, &[0, 0]);
    seeds.extend(of(
        "packet",
        vec![
            (
                "captured-34-bytes-of-tcp",
                [&[1 | 54 << 2, 0x04, 0x00][..], &make::tcp(v4, TcpFlags::ACK, 1, 0)].concat(),
            ),
            (
                "captured-28-bytes-of-udp",
                [&[1 | 13 << 2, 0x04, 0x00][..], &datagram].concat(),
            ),
            ("captured-first-fragment-without-ports", {
                let fragment = make::fragment(v4, protocol::UDP, first, &make::udp_body(v4, 16));
                [&[30 << 2, 0, 0][..], &fragment].concat()
            }),
            ("captured-error-without-its-quote", {
                [&[30 << 2, 0, 0][..], &make::icmp(v4.turned(), 3, 3, &datagram[..28])].concat()
            }),
            ("captured-v6-extensions-cut", {
                [
                    &[45 << 2, 0, 0][..],
                    &make::ip(v6, 0, &all_extensions(&make::udp_body(v6, 9))),
                ]
                .concat()
            }),
            (
                "captured-less-than-a-header",
                [&[1, 0x04, 0x00][..], &datagram[..12]].concat(),
            ),
            (
                "captured-without-length-v4",
                [&[1, 0x04, 0x00][..], &no_length_v4].concat(),
            ),
            (
                "captured-without-length-v6",
                [&[1, 0x04, 0x00][..], &no_length_v6].concat(),
            ),
            (
                "captured-without-length-4-gib",
                [&[3, 0, 0][..], &no_length_v4].concat(),
            ),
            ("longer-than-on-the-wire", [&[2, 0, 100][..], &datagram].concat()),
        ],
    ));
    seeds
}

fn changed(packet: &[u8], at: usize, bytes: &[u8]) -> Vec<u8> {
    let mut packet = packet.to_vec();
    packet[at..at + bytes.len()].copy_from_slice(bytes);
    packet
}

/// Four bytes of IPv4 options.
fn with_options(packet: &[u8]) -> Vec<u8> {
    let mut out = [&packet[..20], &[1, 1, 1, 0], &packet[20..]].concat();
    out[0] = 0x46;
    let len = out.len() as u16;
    out[2..4].copy_from_slice(&len.to_be_bytes());
    out
}

fn authentication(next: u8) -> Vec<u8> {
    vec![next, 1, 0, 0, 0, 0, 0, 1, 0, 0, 0, 1]
}

fn all_extensions(body: &[u8]) -> Vec<u8> {
    let padding = [1, 4, 0, 0, 0, 0];
    let hop_by_hop = [&[43, 0][..], &padding].concat();
    let routing = [60, 0, 4, 0, 0, 0, 0, 0];
    let destination = [&[44, 0][..], &padding].concat();
    let fragment = [51, 0, 0, 1, 0, 0, 0, 9];
    // An authentication header in IPv6 is a multiple of 8.
    let authentication = [17, 2, 0, 0, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 0];
    [
        &hop_by_hop[..],
        &routing,
        &destination,
        &fragment,
        &authentication,
        body,
    ]
    .concat()
}
