//! Capture files, for the targets `capture` and `engine`.

use std::io::{self, Write};

use flate2::Compression;
use flate2::write::GzEncoder;
use fzgw_core::packet::TcpFlags;
use fzgw_fuzz::make;

use crate::packets::{v4, v6};
use crate::{Seed, of};

const START: u32 = 1_700_000_000;
const ETHERNET: u16 = 1;
const RAW: u16 = 101;

pub(crate) fn seeds() -> io::Result<Vec<Seed>> {
    let plain = pcap(Order::Little, MICROSECONDS, ETHERNET, &frames());
    let mut seeds = of("capture", pcaps());
    seeds.extend(of("capture", pcapngs()));
    seeds.extend(of("capture", compressed(&plain)?));
    seeds.extend(of("capture", links()));
    seeds.extend(of(
        "capture",
        vec![("empty", &b""[..]), ("text", b"GET / HTTP/1.1\r\n\r\n")],
    ));
    Ok(seeds)
}

/// A TCP conversation as raw IP packets, for the target `engine`.
pub(crate) fn conversation() -> Vec<u8> {
    let (out, back) = (v4(), v4().turned());
    let packets = [
        make::tcp(out, TcpFlags::SYN, 100, 0),
        make::tcp(back, TcpFlags::SYN | TcpFlags::ACK, 200, 0),
        make::tcp(out, TcpFlags::ACK, 101, 0),
        make::tcp(out, TcpFlags::ACK, 101, 10),
        make::tcp(out, TcpFlags::ACK, 101, 10),
        make::tcp(back, TcpFlags::ACK, 201, 60),
        make::tcp(out, TcpFlags::ACK | TcpFlags::FIN, 111, 0),
        make::tcp(back, TcpFlags::ACK | TcpFlags::FIN, 261, 0),
        make::tcp(out, TcpFlags::ACK, 112, 0),
    ];
    pcap(Order::Little, MICROSECONDS, RAW, &packets)
}

/// Packets of every kind in one pcapng file with two interfaces, for the target `engine`.
pub(crate) fn mixture() -> Vec<u8> {
    let order = Order::Little;
    let mut out = [
        section(order),
        interface(order, RAW, &[]),
        interface(order, ETHERNET, &[]),
    ]
    .concat();
    for (number, packet) in [
        make::udp(v4(), 5),
        make::icmp(v4().turned(), 3, 3, &make::udp(v4(), 5)),
        make::echo(v6(), true),
        make::echo(v6().turned(), false),
        make::ip(v4(), 47, &[0; 4]),
    ]
    .into_iter()
    .enumerate()
    {
        out.extend(enhanced(order, 0, number as u64 * 1_000_000, &packet));
    }
    out.extend(enhanced(order, 1, 9_000_000, &ethernet(&[0x08, 0x06], &[0; 28])));
    out
}

fn frames() -> Vec<Vec<u8>> {
    vec![
        ethernet(&[0x08, 0x00], &make::tcp(v4(), TcpFlags::SYN, 1, 0)),
        ethernet(&[0x86, 0xdd], &make::udp(v6(), 3)),
        ethernet(&[0x08, 0x06], &[0; 28]),
    ]
}

#[derive(Clone, Copy)]
enum Order {
    Little,
    Big,
}

impl Order {
    fn u16(self, value: u16) -> [u8; 2] {
        match self {
            Order::Little => value.to_le_bytes(),
            Order::Big => value.to_be_bytes(),
        }
    }

    fn u32(self, value: u32) -> [u8; 4] {
        match self {
            Order::Little => value.to_le_bytes(),
            Order::Big => value.to_be_bytes(),
        }
    }
}

const MICROSECONDS: u32 = 0xa1b2_c3d4;
const NANOSECONDS: u32 = 0xa1b2_3c4d;

fn pcap(order: Order, magic: u32, link: u16, frames: &[Vec<u8>]) -> Vec<u8> {
    let mut out = Vec::new();
    out.extend(order.u32(magic));
    out.extend(order.u16(2));
    out.extend(order.u16(4));
    for field in [0, 0, 262_144, u32::from(link)] {
        out.extend(order.u32(field));
    }
    for (number, frame) in frames.iter().enumerate() {
        let len = frame.len() as u32;
        for field in [START + number as u32, 999_999, len, len] {
            out.extend(order.u32(field));
        }
        out.extend(frame);
    }
    out
}

fn pcaps() -> Vec<(&'static str, Vec<u8>)> {
    let all = frames();
    let plain = pcap(Order::Little, MICROSECONDS, ETHERNET, &all);
    let changed = |at: usize, byte: u8| {
        let mut file = plain.clone();
        file[at] = byte;
        file
    };
    vec![
        ("pcap-us-little", plain.clone()),
        ("pcap-us-big", pcap(Order::Big, MICROSECONDS, ETHERNET, &all)),
        ("pcap-ns-little", pcap(Order::Little, NANOSECONDS, ETHERNET, &all)),
        ("pcap-ns-big", pcap(Order::Big, NANOSECONDS, ETHERNET, &all)),
        ("pcap-header-alone", plain[..24].to_vec()),
        ("pcap-header-truncated", plain[..20].to_vec()),
        ("pcap-frame-header-truncated", plain[..33].to_vec()),
        ("pcap-frame-truncated", plain[..plain.len() - 1].to_vec()),
        ("pcap-frame-longer-than-can-be", changed(24 + 11, 0x7f)),
        ("pcap-frame-shorter-on-the-wire", changed(24 + 12, 1)),
        ("pcap-version-2.3", changed(6, 3)),
    ]
}

fn block(order: Order, kind: u32, body: &[u8]) -> Vec<u8> {
    let mut body = body.to_vec();
    body.resize(body.len().next_multiple_of(4), 0);
    let len = order.u32(body.len() as u32 + 12);
    [&order.u32(kind)[..], &len, &body, &len].concat()
}

fn section(order: Order) -> Vec<u8> {
    let body = [&order.u32(0x1a2b_3c4d)[..], &order.u16(1), &order.u16(0), &[0xff; 8]].concat();
    block(order, 0x0a0d_0d0a, &body)
}

fn interface(order: Order, link: u16, options: &[(u16, &[u8])]) -> Vec<u8> {
    let mut body = [&order.u16(link)[..], &[0, 0], &order.u32(0)].concat();
    for (code, value) in options {
        body.extend(order.u16(*code));
        body.extend(order.u16(value.len() as u16));
        body.extend_from_slice(value);
        body.resize(body.len().next_multiple_of(4), 0);
    }
    block(order, 1, &body)
}

fn enhanced(order: Order, interface: u32, time: u64, frame: &[u8]) -> Vec<u8> {
    let len = frame.len() as u32;
    let fields = [interface, (time >> 32) as u32, time as u32, len, len];
    let head: Vec<u8> = fields.into_iter().flat_map(|field| order.u32(field)).collect();
    block(order, 6, &[&head[..], frame].concat())
}

fn pcapngs() -> Vec<(&'static str, Vec<u8>)> {
    let (little, big) = (Order::Little, Order::Big);
    let frame = ethernet(&[0x08, 0x00], &make::udp(v4(), 3));
    let raw = make::udp(v4(), 3);
    let start = [section(little), interface(little, ETHERNET, &[])].concat();
    let plain = [start.clone(), enhanced(little, 0, 1_700_000_000_000_000, &frame)].concat();
    let simple = block(little, 3, &[&little.u32(frame.len() as u32)[..], &frame].concat());
    let obsolete = {
        let len = little.u32(frame.len() as u32);
        block(little, 2, &[&[0; 12][..], &len, &len, &frame].concat())
    };
    let clock = |options: &[(u16, &[u8])]| {
        let interface = interface(little, RAW, options);
        [section(little), interface, enhanced(little, 0, u64::MAX, &raw)].concat()
    };
    let mut other_trailer = plain.clone();
    if let Some(last) = other_trailer.last_mut() {
        *last = 1;
    }
    vec![
        ("pcapng-little", plain.clone()),
        (
            "pcapng-big",
            [section(big), interface(big, RAW, &[]), enhanced(big, 0, 1, &raw)].concat(),
        ),
        ("pcapng-two-interfaces", {
            [
                start.clone(),
                interface(little, RAW, &[]),
                enhanced(little, 1, 1, &raw),
                enhanced(little, 0, 2, &frame),
            ]
            .concat()
        }),
        ("pcapng-second-section-of-the-other-order", {
            [
                plain.clone(),
                section(big),
                interface(big, RAW, &[]),
                enhanced(big, 0, 1, &raw),
            ]
            .concat()
        }),
        ("pcapng-simple-packet", [start.clone(), simple].concat()),
        ("pcapng-obsolete-packet", [start.clone(), obsolete].concat()),
        (
            "pcapng-unknown-block",
            [
                start.clone(),
                block(little, 0x0bad, &[7; 40]),
                enhanced(little, 0, 3, &frame),
            ]
            .concat(),
        ),
        ("pcapng-unknown-block-of-4-gib", {
            [
                start.clone(),
                [&little.u32(0x0bad)[..], &[0xfc, 0xff, 0xff, 0xff, 0, 0]].concat(),
            ]
            .concat()
        }),
        (
            "pcapng-no-interface",
            [section(little), enhanced(little, 0, 1, &frame)].concat(),
        ),
        ("pcapng-truncated", plain[..plain.len() - 9].to_vec()),
        ("pcapng-lengths-differ", other_trailer),
        ("pcapng-nanoseconds", clock(&[(9, &[9])])),
        ("pcapng-tsresol-binary", clock(&[(9, &[0x80 | 20])])),
        ("pcapng-tsresol-too-fine", clock(&[(9, &[127])])),
        (
            "pcapng-tsoffset-back",
            clock(&[(9, &[9]), (14, &(-1_000_000_000_i64).to_le_bytes())]),
        ),
        ("pcapng-tsresol-of-two-bytes", clock(&[(9, &[9, 9])])),
        ("pcapng-version-2", {
            let mut file = plain.clone();
            file[12] = 2;
            file
        }),
    ]
}

fn gzip(bytes: &[u8]) -> io::Result<Vec<u8>> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(bytes)?;
    encoder.finish()
}

fn zstd(bytes: &[u8]) -> io::Result<Vec<u8>> {
    zstd::encode_all(bytes, 19)
}

fn compressed(plain: &[u8]) -> io::Result<Vec<(&'static str, Vec<u8>)>> {
    let (front, back) = plain.split_at(60);
    let gz = gzip(plain)?;
    let zst = zstd(plain)?;
    let damaged = |file: &[u8], at: usize| {
        let mut file = file.to_vec();
        file[at] ^= 0x10;
        file
    };
    let end = |file: &[u8]| file[..file.len() - 3].to_vec();
    let empty_frames = pcap(Order::Little, MICROSECONDS, RAW, &vec![vec![]; 2_100]);
    let skippable = [&0x184d_2a50_u32.to_le_bytes()[..], &4_u32.to_le_bytes(), b"skip", &zst].concat();
    Ok(vec![
        ("gzip", gz.clone()),
        ("gzip-two-members", [gzip(front)?, gzip(back)?].concat()),
        ("gzip-truncated", end(&gz)),
        ("gzip-damaged", damaged(&gz, 40)),
        ("gzip-with-zeros-behind", [&gz[..], &[0; 16]].concat()),
        ("gzip-of-text", gzip(b"no capture at all")?),
        ("gzip-of-2100-empty-frames", gzip(&empty_frames)?),
        ("zstd", zst.clone()),
        ("zstd-two-frames", [zstd(front)?, zstd(back)?].concat()),
        ("zstd-skippable-frame-first", skippable),
        ("zstd-truncated", end(&zst)),
        ("zstd-damaged", damaged(&zst, 40)),
        ("zstd-of-2100-empty-frames", zstd(&empty_frames)?),
    ])
}

fn ethernet(kind: &[u8], rest: &[u8]) -> Vec<u8> {
    [&[2; 12][..], kind, rest].concat()
}

fn links() -> Vec<(&'static str, Vec<u8>)> {
    let (v4, v6) = (make::udp(v4(), 3), make::udp(v6(), 3));
    let file = |link, frames: &[Vec<u8>]| pcap(Order::Little, MICROSECONDS, link, frames);
    let pppoe = |protocol: &[u8], packet: &[u8]| {
        let len = (protocol.len() + packet.len()) as u16;
        let head = [&[0x88, 0x64, 0x11, 0, 0, 1][..], &len.to_be_bytes(), protocol].concat();
        ethernet(&head, packet)
    };
    vec![
        (
            "link-ethernet-vlan",
            file(ETHERNET, &[ethernet(&[0x81, 0, 0, 5, 0x08, 0], &v4)]),
        ),
        (
            "link-ethernet-qinq",
            file(
                ETHERNET,
                &[ethernet(&[0x88, 0xa8, 0, 5, 0x81, 0, 0, 6, 0x86, 0xdd], &v6)],
            ),
        ),
        (
            "link-ethernet-too-many-tags",
            file(ETHERNET, &[ethernet(&[0x81, 0, 0, 5].repeat(12), &v4)]),
        ),
        (
            "link-ethernet-snap",
            file(ETHERNET, &[ethernet(&[0, 60, 0xaa, 0xaa, 3, 0, 0, 0, 0x08, 0], &v4)]),
        ),
        (
            "link-ethernet-pppoe",
            file(
                ETHERNET,
                &[pppoe(&[0, 0x21], &v4), pppoe(&[0x57], &v6), pppoe(&[0, 0x21], &[])],
            ),
        ),
        ("link-cooked", file(113, &[[&[0; 14][..], &[0x08, 0], &v4].concat()])),
        (
            "link-cooked-2",
            file(276, &[[&[0x86, 0xdd][..], &[0; 18], &v6].concat()]),
        ),
        (
            "link-null",
            file(
                0,
                &[
                    [&2_u32.to_le_bytes()[..], &v4].concat(),
                    [&30_u32.to_be_bytes()[..], &v6].concat(),
                ],
            ),
        ),
        ("link-raw", file(RAW, &[v4.clone(), v6.clone(), vec![0x70; 40], vec![]])),
        ("link-v4", file(228, std::slice::from_ref(&v4))),
        ("link-unknown", file(147, &[v4])),
    ]
}
