//! Merging and cutting against a plain reference: what was put together and cut again is what a plain device carries.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::io;

use bytes::BytesMut;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};

use super::checksum::{put, segment_checksums_are_right};
use super::merge::{MAX_SEGMENTS, Merger};
use super::split::{segment, segment_len};
use super::{Arrived, Offload, VnetHeader, arrived};
use crate::packet::{IPV4_MIN_HEADER, IPV6_HEADER};

const CASES: u32 = 100;
/// The source port of flows whose identifications stay the same.
const SAME_ID: u16 = 7_000;

/// What is different about a packet.
#[derive(Debug, Clone, Copy)]
enum Oddity {
    None,
    Ack,
    Fin,
    Push,
    Window,
    Option,
    Ecn,
    Ttl,
    Gap,
    Shorter,
    Longer,
    IdJump,
    WrongChecksum,
    WrongIpChecksum,
    Fragment,
    Padded,
    NoChecksum,
    Icmp,
    Empty,
}

#[derive(Debug, Clone)]
struct Step {
    flow: usize,
    oddity: Oddity,
    run: usize,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    use Oddity as O;
    let odd = prop::sample::select(vec![
        O::Ack,
        O::Fin,
        O::Push,
        O::Window,
        O::Option,
        O::Ecn,
        O::Ttl,
        O::Gap,
        O::Shorter,
        O::Longer,
        O::IdJump,
        O::WrongChecksum,
        O::WrongIpChecksum,
        O::Fragment,
        O::Padded,
        O::NoChecksum,
        O::Icmp,
        O::Empty,
    ]);
    let step =
        (0..8usize, prop_oneof![3 => Just(O::None), 2 => odd], 1..70usize).prop_map(|(flow, oddity, run)| Step {
            flow,
            oddity,
            run: if matches!(oddity, O::None) { run } else { 1 },
        });
    vec(step, 1..24)
}

/// One end of a flow: what it would send next.
struct Flow {
    v6: bool,
    tcp: bool,
    port: u16,
    sequence: u32,
    id: u16,
    size: usize,
    sent: u8,
}

impl Flow {
    fn new(number: usize) -> Self {
        Self {
            v6: number & 1 != 0,
            tcp: number & 2 == 0,
            port: if number & 4 != 0 { SAME_ID } else { 5_000 } + number as u16,
            // Both counters wrap around soon.
            sequence: u32::MAX - 20_000,
            id: u16::MAX - 20,
            size: [1_380, 512, 100, 1_200][number / 2 % 4],
            sent: 0,
        }
    }

    fn same_id(&self) -> bool {
        self.port >= SAME_ID
    }

    fn packet(&mut self, oddity: Oddity) -> Vec<u8> {
        self.sent = self.sent.wrapping_add(1);
        let size = match oddity {
            Oddity::Ack if self.tcp => 0,
            Oddity::Empty => 0,
            Oddity::Shorter => self.size / 2,
            Oddity::Longer => self.size + 8,
            _ => self.size,
        };
        if matches!(oddity, Oddity::Gap) {
            self.sequence = self.sequence.wrapping_add(11);
        }
        if matches!(oddity, Oddity::IdJump) {
            self.id = self.id.wrapping_add(9);
        }
        let payload: Vec<u8> = (0..size).map(|at| (at as u8).wrapping_mul(7) ^ self.sent).collect();
        let mut transport = if self.tcp { self.segment(oddity) } else { vec![0; 8] };
        put(&mut transport, 0, self.port);
        put(&mut transport, 2, 443);
        if !self.tcp {
            put(&mut transport, 4, (8 + size) as u16);
        }
        transport.extend_from_slice(&payload);
        self.sequence = self.sequence.wrapping_add(size as u32);
        let protocol = match (oddity, self.v6, self.tcp) {
            (Oddity::Icmp, false, _) => 1,
            (Oddity::Icmp, true, _) => 58,
            (_, _, true) => 6,
            (_, _, false) => 17,
        };
        let mut packet = self.ip(oddity, protocol, transport.len());
        let header = packet.len();
        packet.extend_from_slice(&transport);
        let at = header + if self.tcp { 16 } else { 6 };
        let sum = !naive(&pseudo(&packet, protocol, &transport));
        put(&mut packet, at, if sum == 0 { 0xffff } else { sum });
        match oddity {
            Oddity::WrongChecksum => packet[at] ^= 0x55,
            Oddity::NoChecksum if !self.tcp => put(&mut packet, at, 0),
            Oddity::WrongIpChecksum if !self.v6 => packet[10] ^= 0x55,
            Oddity::Padded => packet.push(0),
            _ => {}
        }
        if !self.same_id() {
            self.id = self.id.wrapping_add(1);
        }
        packet
    }

    fn segment(&self, oddity: Oddity) -> Vec<u8> {
        let mut header = vec![0; 32];
        header[4..8].copy_from_slice(&self.sequence.to_be_bytes());
        header[8..12].copy_from_slice(&77u32.to_be_bytes());
        header[12] = 0x80;
        header[13] = match oddity {
            Oddity::Fin => 0x11,
            Oddity::Push => 0x18,
            _ => 0x10,
        };
        put(
            &mut header,
            14,
            if matches!(oddity, Oddity::Window) { 900 } else { 1_000 },
        );
        header[20..24].copy_from_slice(&[1, 1, 8, 10]);
        header[24] = u8::from(matches!(oddity, Oddity::Option));
        header
    }

    fn ip(&self, oddity: Oddity, protocol: u8, transport: usize) -> Vec<u8> {
        let class = u8::from(matches!(oddity, Oddity::Ecn)) * 3;
        let ttl = if matches!(oddity, Oddity::Ttl) { 63 } else { 64 };
        if self.v6 {
            let mut header = vec![0; IPV6_HEADER];
            header[0] = 0x60;
            header[1] = class << 4;
            put(&mut header, 4, transport as u16);
            header[6] = if matches!(oddity, Oddity::Fragment) {
                44
            } else {
                protocol
            };
            header[7] = ttl;
            header[8] = 0xfd;
            header[24] = 0xfd;
            header[39] = 9;
            return header;
        }
        let mut header = vec![0; IPV4_MIN_HEADER];
        header[0] = 0x45;
        header[1] = class;
        put(&mut header, 2, (IPV4_MIN_HEADER + transport) as u16);
        put(&mut header, 4, self.id);
        header[6] = if self.same_id() { 0x40 } else { 0 };
        if matches!(oddity, Oddity::Fragment) {
            header[7] = 1;
        }
        header[8] = ttl;
        header[9] = protocol;
        header[12..20].copy_from_slice(&[100, 64, 0, 2, 10, 1, 2, 3]);
        let sum = !naive(&header);
        put(&mut header, 10, sum);
        header
    }
}

/// RFC 1071 word by word.
fn naive(bytes: &[u8]) -> u16 {
    let mut sum = 0u32;
    for word in bytes.chunks(2) {
        sum += u32::from(u16::from_be_bytes([word[0], word.get(1).copied().unwrap_or(0)]));
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}

fn pseudo(packet: &[u8], protocol: u8, transport: &[u8]) -> Vec<u8> {
    let addresses = if packet[0] >> 4 == 4 { 12..20 } else { 8..40 };
    let mut bytes = packet[addresses].to_vec();
    bytes.extend_from_slice(&[0, protocol]);
    bytes.extend_from_slice(&(transport.len() as u16).to_be_bytes());
    bytes.extend_from_slice(transport);
    bytes
}

/// What the kernel would carry on of a write.
fn carried(pieces: &[io::IoSlice<'_>]) -> Vec<Vec<u8>> {
    let bytes: Vec<u8> = pieces.iter().flat_map(|piece| piece.iter().copied()).collect();
    let (header, packet) = bytes.split_first_chunk::<{ VnetHeader::LEN }>().unwrap();
    let mut packet = packet.to_vec();
    let header = VnetHeader::from_bytes(header);
    match arrived(header, &mut packet) {
        Arrived::Packet => vec![packet],
        Arrived::Super(how) => {
            assert_eq!(usize::from(header.header_len), usize::from(how.headers));
            (0..how.count(packet.len()))
                .map(|index| {
                    let mut out = BytesMut::from(&b"before"[..]);
                    segment(&packet, &how, index, &mut out);
                    let out = out.strip_prefix(b"before").unwrap().to_vec();
                    assert_eq!(out.len(), segment_len(packet.len(), &how, index));
                    assert!(segment_checksums_are_right(&out, usize::from(how.ip_header)));
                    out
                })
                .collect()
        }
        Arrived::Broken => panic!("the kernel would refuse {header:?}"),
    }
}

/// Where every packet of a flow has the same identification, it means nothing.
fn comparable(packet: &[u8]) -> Vec<u8> {
    let mut packet = packet.to_vec();
    if packet[0] == 0x45 && packet[6] & 0x40 != 0 && packet.len() > 28 {
        packet[4..6].fill(0);
        packet[10..12].fill(0);
    }
    packet
}

/// What must not overtake: protocol and ports; none for what has no ports that can be read.
fn flow_of(packet: &[u8]) -> (u8, Option<Vec<u8>>) {
    let (header, protocol, plain) = match packet[0] >> 4 {
        4 => (IPV4_MIN_HEADER, packet[9], packet[6] & 0x3f == 0 && packet[7] == 0),
        _ => (IPV6_HEADER, packet[6], true),
    };
    let ports = (plain && matches!(protocol, 6 | 17)).then(|| [&[protocol], &packet[header..header + 4]].concat());
    (packet[0] >> 4, ports)
}

fn runner() -> TestRunner {
    let config = Config {
        cases: CASES,
        failure_persistence: None,
        ..Config::default()
    };
    TestRunner::new_with_rng(config, TestRng::from_seed(RngAlgorithm::ChaCha, &[5; 32]))
}

fn batch(steps: &[Step]) -> Vec<Vec<u8>> {
    let mut flows: Vec<Flow> = (0..8).map(Flow::new).collect();
    let packets = steps.iter().flat_map(|step| {
        (0..step.run)
            .map(|_| flows[step.flow].packet(step.oddity))
            .collect::<Vec<_>>()
    });
    packets.collect()
}

#[test]
fn merged_and_cut_again_every_packet_is_itself_and_in_its_place() {
    let mut saved = 0;
    for offload in [Offload::TsoUso, Offload::Tso, Offload::Off] {
        let merger = RefCell::new(Merger::new(offload));
        let (writes, total) = (Cell::new(0usize), Cell::new(0usize));
        runner()
            .run(&steps(), |steps| {
                let packets = batch(&steps);
                let mut out = Vec::new();
                merger.borrow_mut().write(
                    &packets,
                    |pieces| {
                        writes.set(writes.get() + 1);
                        assert!(pieces.len() <= MAX_SEGMENTS + 2);
                        assert!(pieces.iter().map(|piece| piece.len()).sum::<usize>() <= 65_535 + VnetHeader::LEN + 1);
                        out.extend(carried(pieces));
                        Ok(())
                    },
                    |_| panic!("nothing was refused"),
                );
                total.set(total.get() + packets.len());
                prop_assert_eq!(out.len(), packets.len());
                // Which of the packets each one is: equal ones in their order.
                let mut places: HashMap<Vec<u8>, Vec<usize>> = HashMap::new();
                for (at, packet) in packets.iter().enumerate().rev() {
                    places.entry(comparable(packet)).or_default().push(at);
                }
                let order: Vec<usize> = out
                    .iter()
                    .map(|packet| {
                        places
                            .get_mut(&comparable(packet))
                            .and_then(Vec::pop)
                            .expect("a packet that was sent")
                    })
                    .collect();
                let flows: Vec<_> = order.iter().map(|place| flow_of(&packets[*place])).collect();
                for (at, later) in order.iter().enumerate() {
                    for (before, (version, ports)) in order[..at].iter().zip(&flows) {
                        let related = *version == flows[at].0
                            && (*ports == flows[at].1 || ports.is_none() || flows[at].1.is_none());
                        prop_assert!(!related || before < later, "{} was overtaken by {}", later, before);
                    }
                }
                Ok(())
            })
            .unwrap();
        let (writes, total) = (writes.get(), total.get());
        match offload {
            Offload::Off => assert_eq!(writes, total),
            _ => saved += total - writes,
        }
        if offload == Offload::TsoUso {
            assert!(writes * 3 < total, "{writes} writes for {total} packets");
        }
    }
    assert!(saved > 0);
}

/// A device that refuses super-packets gets the packets one by one, and those that it refuses even so are told.
#[test]
fn what_is_refused_goes_one_by_one() {
    let mut flow = Flow::new(0);
    let packets: Vec<Vec<u8>> = (0..10).map(|_| flow.packet(Oddity::None)).collect();
    let mut merger = Merger::new(Offload::TsoUso);
    let (mut written, mut failed, mut attempts) = (Vec::new(), Vec::new(), 0);
    merger.write(
        &packets,
        |pieces| {
            attempts += 1;
            let bytes: Vec<u8> = pieces[1..].iter().flat_map(|piece| piece.iter().copied()).collect();
            if pieces.len() > 2 || bytes == packets[3] {
                return Err(io::Error::from_raw_os_error(22));
            }
            written.push(bytes);
            Ok(())
        },
        |at| failed.push(at),
    );
    assert_eq!((attempts, written.len(), failed), (11, 9, vec![3]));
    // A full device takes nothing, and is not asked packet by packet.
    let (mut attempts, mut failed) = (0, Vec::new());
    merger.write(
        &packets,
        |_| {
            attempts += 1;
            Err(io::ErrorKind::WouldBlock.into())
        },
        |at| failed.push(at),
    );
    assert_eq!((attempts, failed), (1, (0..10).collect()));
}

/// Any header in front of any bytes: an answer, and nothing beyond the packet is touched.
#[test]
fn no_header_and_no_packet_breaks_the_reader() {
    let header = (any::<bool>(), 0..8u8, any::<[u16; 4]>());
    let packet = prop_oneof![
        vec(any::<u8>(), 0..200),
        (steps(), 0..40usize).prop_map(|(steps, cut)| {
            let mut packet = batch(&steps[..1]).remove(0);
            packet.truncate(packet.len().saturating_sub(cut));
            packet
        })
    ];
    let small = prop::sample::select(vec![0u16, 6, 8, 16, 20, 40, 60, 100]);
    runner()
        .run(
            &(header, packet, small.clone(), small),
            |((needs, gso, words), mut packet, start, offset)| {
                for (start, offset) in [(words[0], words[1]), (start, offset)] {
                    let header = VnetHeader {
                        needs_checksum: needs,
                        gso_type: gso,
                        header_len: words[2],
                        gso_size: words[3] % 2_000,
                        checksum_start: start,
                        checksum_offset: offset,
                    };
                    prop_assert_eq!(VnetHeader::from_bytes(&header.to_bytes()), header);
                    if let Arrived::Super(how) = arrived(header, &mut packet) {
                        let mut payload = 0;
                        for index in 0..how.count(packet.len()) {
                            let mut out = BytesMut::new();
                            segment(&packet, &how, index, &mut out);
                            payload += out.len() - usize::from(how.headers);
                        }
                        prop_assert_eq!(payload, packet.len() - usize::from(how.headers));
                    }
                }
                Ok(())
            },
        )
        .unwrap();
}
