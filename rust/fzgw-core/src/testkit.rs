//! Packets for the tests of this crate, built by etherparse so that headers are right where a test does not break them.

use std::net::{IpAddr, SocketAddr};

use etherparse::PacketBuilder;

use crate::config::{GatewayConfig, PeerConfig};
use crate::flow::Limits;
use crate::flow::Purpose;

fn address(text: &str) -> SocketAddr {
    text.parse().expect("an address and port")
}

macro_rules! ip_builder {
    ($src:expr, $dst:expr) => {
        match ($src, $dst) {
            (IpAddr::V4(src), IpAddr::V4(dst)) => PacketBuilder::ipv4(src.octets(), dst.octets(), 64),
            (IpAddr::V6(src), IpAddr::V6(dst)) => PacketBuilder::ipv6(src.octets(), dst.octets(), 64),
            _ => panic!("one address family"),
        }
    };
}

/// A UDP datagram.
pub(crate) fn udp(src: &str, dst: &str, payload: &[u8]) -> Vec<u8> {
    let (src, dst) = (address(src), address(dst));
    let mut out = Vec::new();
    let builder = ip_builder!(src.ip(), dst.ip()).udp(src.port(), dst.port());
    builder.write(&mut out, payload).expect("fits");
    out
}

/// A TCP segment.
pub(crate) fn tcp(src: &str, dst: &str, flags: u8, payload: &[u8]) -> Vec<u8> {
    let (src, dst) = (address(src), address(dst));
    let mut out = Vec::new();
    let builder = ip_builder!(src.ip(), dst.ip()).tcp(src.port(), dst.port(), 1, 65535);
    builder.write(&mut out, payload).expect("fits");
    let header = out.len() - payload.len() - 20;
    out[header + 13] = flags;
    out
}

/// An ICMP or ICMPv6 echo without payload.
pub(crate) fn echo(src: &str, dst: &str, identifier: u16, request: bool) -> Vec<u8> {
    let (src, dst): (IpAddr, IpAddr) = (src.parse().expect("address"), dst.parse().expect("address"));
    let mut out = Vec::new();
    let builder = ip_builder!(src, dst);
    let written = match (src.is_ipv4(), request) {
        (true, true) => builder.icmpv4_echo_request(identifier, 1).write(&mut out, &[]),
        (true, false) => builder.icmpv4_echo_reply(identifier, 1).write(&mut out, &[]),
        (false, true) => builder.icmpv6_echo_request(identifier, 1).write(&mut out, &[]),
        (false, false) => builder.icmpv6_echo_reply(identifier, 1).write(&mut out, &[]),
    };
    written.expect("fits");
    out
}

/// An ICMP (v4) error that quotes `original`.
pub(crate) fn icmp_error(src: &str, dst: &str, kind: u8, code: u8, original: &[u8]) -> Vec<u8> {
    let (src, dst): (IpAddr, IpAddr) = (src.parse().expect("address"), dst.parse().expect("address"));
    let mut out = Vec::new();
    ip_builder!(src, dst)
        .icmpv4_raw(kind, code, [0; 4])
        .write(&mut out, original)
        .expect("fits");
    out
}

/// An ICMPv6 error that quotes `original`.
pub(crate) fn icmpv6_error(src: &str, dst: &str, kind: u8, code: u8, original: &[u8]) -> Vec<u8> {
    let (src, dst): (IpAddr, IpAddr) = (src.parse().expect("address"), dst.parse().expect("address"));
    let mut out = Vec::new();
    ip_builder!(src, dst)
        .icmpv6_raw(kind, code, [0; 4])
        .write(&mut out, original)
        .expect("fits");
    out
}

/// A configuration without peers: 100.64.0.1/16 and fd00:64::1/64, no rules, records wanted.
pub(crate) fn config() -> GatewayConfig {
    GatewayConfig {
        uid: "test".into(),
        name: "exit-1".into(),
        version: "0".into(),
        private_key: [0x77; 32],
        listen: 0,
        interface: "fzgw0".into(),
        mtu: 1420,
        addresses: vec![
            "100.64.0.1/16".parse().expect("net"),
            "fd00:64::1/64".parse().expect("net"),
        ],
        peers: vec![],
        resources: vec![],
        rules: None,
        limits: Limits::default(),
        purpose: Purpose {
            records: true,
            updates: true,
            openings: false,
            rules: false,
        },
        tun_offload: true,
        handshake_rate: 200,
    }
}

/// A peer with this allowed IP; its private key is 32 times `key`.
pub(crate) fn peer(name: &str, key: u8, allowed_ip: &str) -> PeerConfig {
    PeerConfig {
        name: name.into(),
        user: None,
        groups: vec![],
        public_key: crate::peers::public_key(&[key; 32]),
        preshared_key: None,
        allowed_ips: vec![allowed_ip.parse().expect("net")],
        persistent_keepalive: None,
        endpoint: None,
    }
}

/// A TCP segment with a sequence number.
pub(crate) fn segment(src: &str, dst: &str, flags: u8, seq: u32, payload: &[u8]) -> Vec<u8> {
    let mut out = tcp(src, dst, flags, payload);
    let header = out.len() - payload.len() - 20;
    out[header + 4..header + 8].copy_from_slice(&seq.to_be_bytes());
    out
}

/// Cuts an IPv4 packet into fragments, so many payload bytes each (a multiple of 8).
pub(crate) fn fragments_v4(packet: &[u8], identification: u16, size: usize) -> Vec<Vec<u8>> {
    let (header, payload) = packet.split_at(20);
    let pieces = payload.chunks(size).enumerate().map(|(number, piece)| {
        let last = (number + 1) * size >= payload.len();
        let field = (number * size / 8) as u16 | if last { 0 } else { 0x2000 };
        let mut out = header.to_vec();
        out[2..4].copy_from_slice(&((20 + piece.len()) as u16).to_be_bytes());
        out[4..6].copy_from_slice(&identification.to_be_bytes());
        out[6..8].copy_from_slice(&field.to_be_bytes());
        out.extend_from_slice(piece);
        out
    });
    pieces.collect()
}

/// The same for IPv6, behind a hop-by-hop header.
pub(crate) fn fragments_v6(packet: &[u8], identification: u32, size: usize) -> Vec<Vec<u8>> {
    let (header, payload) = packet.split_at(40);
    let pieces = payload.chunks(size).enumerate().map(|(number, piece)| {
        let last = (number + 1) * size >= payload.len();
        let field = (number * size) as u16 | u16::from(!last);
        let mut out = header.to_vec();
        out[4..6].copy_from_slice(&((16 + piece.len()) as u16).to_be_bytes());
        out[6] = 0;
        // Hop-by-hop: the fragment header comes next; PadN of 4 bytes.
        out.extend_from_slice(&[44, 0, 1, 4, 0, 0, 0, 0]);
        out.extend_from_slice(&[header[6], 0]);
        out.extend_from_slice(&field.to_be_bytes());
        out.extend_from_slice(&identification.to_be_bytes());
        out.extend_from_slice(piece);
        out
    });
    pieces.collect()
}
