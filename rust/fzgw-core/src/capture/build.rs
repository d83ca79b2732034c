//! Captures made byte by byte, for tests.

use std::io::{self, Cursor, Read, Write};

use super::order::Order;
use super::{CaptureError, CaptureReader, Frame, LinkType};

/// A frame to write, and one that was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Sample {
    pub(super) link: LinkType,
    pub(super) time: u64,
    pub(super) bytes: Vec<u8>,
    pub(super) wire_len: u32,
}

impl From<Frame<'_>> for Sample {
    fn from(frame: Frame<'_>) -> Self {
        Self {
            link: frame.link,
            time: frame.time,
            bytes: frame.bytes.to_vec(),
            wire_len: frame.wire_len,
        }
    }
}

/// Frames of several lengths, whole and cut, at whole microseconds.
pub(super) fn samples() -> Vec<Sample> {
    [(0, 0), (1, 0), (14, 6), (60, 0), (61, 1400), (3, 65_000)]
        .into_iter()
        .zip(0_u64..)
        .map(|((len, cut), number)| Sample {
            link: LinkType::ETHERNET,
            time: 1_700_000_000_123_456_000 + number * 1_000_001_000,
            bytes: (0..len).map(|at| at as u8 ^ 0x5a).collect(),
            wire_len: len + cut,
        })
        .collect()
}

impl Order {
    pub(super) fn put16(self, value: u16) -> [u8; 2] {
        match self {
            Order::Little => value.to_le_bytes(),
            Order::Big => value.to_be_bytes(),
        }
    }

    pub(super) fn put32(self, value: u32) -> [u8; 4] {
        match self {
            Order::Little => value.to_le_bytes(),
            Order::Big => value.to_be_bytes(),
        }
    }

    pub(super) fn put64(self, value: i64) -> [u8; 8] {
        match self {
            Order::Little => value.to_le_bytes(),
            Order::Big => value.to_be_bytes(),
        }
    }
}

/// A pcap file's header; `unit` is 1 for nanoseconds and 1000 for microseconds.
pub(super) fn pcap_header(order: Order, unit: u32, link: LinkType) -> Vec<u8> {
    let magic = if unit == 1 { 0xa1b2_3c4d } else { 0xa1b2_c3d4 };
    [
        &order.put32(magic)[..],
        &order.put16(2),
        &order.put16(4),
        &[0; 8],
        &order.put32(65_535),
        &order.put32(link.0.into()),
    ]
    .concat()
}

/// A frame of a pcap file.
pub(super) fn pcap_frame(order: Order, unit: u32, frame: &Sample) -> Vec<u8> {
    [
        &order.put32((frame.time / 1_000_000_000) as u32)[..],
        &order.put32((frame.time % 1_000_000_000) as u32 / unit),
        &order.put32(frame.bytes.len() as u32),
        &order.put32(frame.wire_len),
        &frame.bytes,
    ]
    .concat()
}

/// A pcap file's parts: its header, then its frames.
pub(super) fn pcap(order: Order, unit: u32, frames: &[Sample]) -> Vec<Vec<u8>> {
    let header = pcap_header(order, unit, LinkType::ETHERNET);
    let frames = frames.iter().map(|frame| pcap_frame(order, unit, frame));
    std::iter::once(header).chain(frames).collect()
}

/// A pcapng block of any type.
pub(super) fn block(order: Order, kind: u32, body: &[u8]) -> Vec<u8> {
    let padding = vec![0; body.len().next_multiple_of(4) - body.len()];
    let total = order.put32((12 + body.len() + padding.len()) as u32);
    [&order.put32(kind)[..], &total, body, &padding, &total].concat()
}

/// A section header of unknown length.
pub(super) fn section(order: Order) -> Vec<u8> {
    let body = [
        &order.put32(0x1a2b_3c4d)[..],
        &order.put16(1),
        &order.put16(0),
        &order.put64(-1),
    ]
    .concat();
    block(order, 0x0a0d_0d0a, &body)
}

/// An interface with options of code and value.
pub(super) fn interface(order: Order, link: LinkType, snaplen: u32, options: &[(u16, &[u8])]) -> Vec<u8> {
    let mut body = [&order.put16(link.0)[..], &[0; 2], &order.put32(snaplen)].concat();
    for (code, value) in options {
        body.extend(order.put16(*code));
        body.extend(order.put16(value.len() as u16));
        body.extend(*value);
        body.resize(body.len().next_multiple_of(4), 0);
    }
    block(order, 1, &body)
}

/// An enhanced packet. `units` is its time as its interface counts it.
pub(super) fn enhanced(order: Order, interface: u32, units: u64, bytes: &[u8], wire_len: u32) -> Vec<u8> {
    let body = [
        &order.put32(interface)[..],
        &order.put32((units >> 32) as u32),
        &order.put32(units as u32),
        &order.put32(bytes.len() as u32),
        &order.put32(wire_len),
        bytes,
    ]
    .concat();
    block(order, 6, &body)
}

/// A pcapng file's parts: a section header, an interface with nanoseconds, then packets.
pub(super) fn pcapng(order: Order, frames: &[Sample]) -> Vec<Vec<u8>> {
    let head = [
        section(order),
        interface(order, LinkType::ETHERNET, 0, &[(9, &[9]), (0, &[])]),
    ];
    let packets = frames
        .iter()
        .map(|frame| enhanced(order, 0, frame.time, &frame.bytes, frame.wire_len));
    head.into_iter().chain(packets).collect()
}

/// One gzip member.
pub(super) fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// One zstd frame with a checksum, of blocks of `flush_every` bytes.
pub(super) fn zstd(bytes: &[u8], flush_every: usize) -> Vec<u8> {
    let mut encoder = zstd::Encoder::new(Vec::new(), 3).unwrap();
    encoder.include_checksum(true).unwrap();
    for chunk in bytes.chunks(flush_every) {
        encoder.write_all(chunk).unwrap();
        encoder.flush().unwrap();
    }
    encoder.finish().unwrap()
}

/// A source that gives at most `step` bytes a read, as a pipe may.
pub(super) struct Trickle {
    pub(super) bytes: Cursor<Vec<u8>>,
    pub(super) step: usize,
}

impl Read for Trickle {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let len = out.len().min(self.step);
        self.bytes.read(&mut out[..len])
    }
}

/// A source of `step` bytes a read.
pub(super) fn source(bytes: &[u8], step: usize) -> Box<dyn Read + Send> {
    Box::new(Trickle {
        bytes: Cursor::new(bytes.to_vec()),
        step,
    })
}

/// Every frame of a source, and the fault that ended it. Claims on the way that an end stays one.
pub(super) fn read_all(source: Box<dyn Read + Send>) -> (Vec<Sample>, Option<CaptureError>) {
    let mut frames = Vec::new();
    let mut reader = match CaptureReader::open(source) {
        Ok(reader) => reader,
        Err(error) => return (frames, Some(error)),
    };
    let fault = loop {
        match reader.next_frame() {
            Ok(Some(frame)) => frames.push(Sample::from(frame)),
            Ok(None) => break None,
            Err(error) => break Some(error),
        }
    };
    for _ in 0..2 {
        assert!(matches!(reader.next_frame(), Ok(None)), "the end is the end");
    }
    (frames, fault)
}

/// Pseudorandom numbers (splitmix64), the same in each run.
pub(super) struct Random(pub(super) u64);

impl Random {
    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    pub(super) fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound.max(1) as u64) as usize
    }

    /// Bytes with a few changes: bits, whole bytes, words that are lengths' extremes, cuts, insertions.
    pub(super) fn mutate(&mut self, bytes: &[u8]) -> Vec<u8> {
        const WORDS: [u32; 8] = [0, 1, 11, 12, 0x7fff_ffff, 0x8000_0000, 0xffff_fffc, 0xffff_ffff];
        let mut bytes = bytes.to_vec();
        for _ in 0..1 + self.below(3) {
            let at = self.below(bytes.len());
            match self.below(6) {
                0 => bytes.truncate(at),
                1 => bytes.insert(at, self.next() as u8),
                2 | 3 => {
                    if let Some(byte) = bytes.get_mut(at) {
                        *byte ^= 1 << self.below(8);
                    }
                }
                4 => {
                    let word = WORDS[self.below(WORDS.len())].to_le_bytes();
                    if let Some(place) = bytes.get_mut(at & !3..).and_then(|rest| rest.first_chunk_mut()) {
                        *place = word;
                    }
                }
                _ => {
                    let random = self.next() as u8;
                    if let Some(byte) = bytes.get_mut(at) {
                        *byte = random;
                    }
                }
            }
        }
        bytes
    }
}
