//! Capture files: frames in the order of the file, and the IP packet in each.
//!
//! 1. [`compress`] takes the source as it comes, finds out whether it is compressed, and gives plain bytes.
//! 2. [`buffer`] keeps one piece of them in memory and knows its offset.
//! 3. [`pcap`] or [`pcapng`] finds the next frame in the buffer. [`CaptureReader::next_frame`] lends it to the caller: no
//!    byte is copied and nothing is allocated for a frame.
//! 4. [`ip_packet`] ([`link`]) takes the link header off.
//!
//! No length in the file is believed. What is complete before a fault is delivered before the fault is told.

mod buffer;
#[cfg(test)]
mod build;
mod compress;
mod link;
mod order;
mod pcap;
mod pcapng;

use std::fmt;
use std::io::{self, Read};

use self::buffer::Buffer;
pub use self::compress::Compression;
use self::compress::Stream;
pub use self::link::{IpFrame, LinkType, NotIp, ip_packet};
use self::pcap::Pcap;
use self::pcapng::PcapNg;

/// The most bytes that a frame may have in a file: libpcap's own limit for network devices.
pub const MAX_CAPTURED: usize = 262_144;
/// The latest time of a frame, in nanoseconds since the epoch: in the year 2262. Later ones, which only pcapng can
/// state, become this one. The frame around a wrong time is still whole, so its packet is counted; and what lies above
/// is room, so that a sum of a time and a timeout does not overflow.
pub const MAX_TIME: u64 = i64::MAX as u64;

/// One frame as it was captured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Frame<'a> {
    /// What kind of frame it is.
    pub link: LinkType,
    /// Nanoseconds since the Unix epoch, at most [`MAX_TIME`].
    pub time: u64,
    /// The captured bytes: a snaplen may have cut the frame's end.
    pub bytes: &'a [u8],
    /// Its length on the wire. Where the file states less than it holds, this is what it holds: bytes that were
    /// captured were on the wire.
    pub wire_len: u32,
}

/// Why reading stops. Each is one clear line.
#[derive(Debug, thiserror::Error)]
pub enum CaptureError {
    /// The source is no capture.
    #[error("not a capture: {begins}")]
    NotACapture {
        /// What it is or begins with, in words.
        begins: String,
    },
    /// The source ends too early.
    #[error("truncated at {place}: {what}")]
    Truncated {
        /// Where the incomplete thing begins, or where decompressed bytes end.
        place: Place,
        /// What was expected, and what is there.
        what: String,
    },
    /// The source holds what cannot be.
    #[error("corrupt at {place}: {what}")]
    Corrupt {
        /// Where the thing at fault begins, or where decompressed bytes end.
        place: Place,
        /// What was expected, and what is there.
        what: String,
    },
    /// The source cannot be read.
    #[error("cannot read on at {place}: {source}")]
    Io {
        /// Where the bytes read so far end.
        place: Place,
        /// What the system said.
        source: io::Error,
    },
}

impl CaptureError {
    /// Where in the decompressed bytes; none where they are no capture.
    pub fn offset(&self) -> Option<u64> {
        match self {
            Self::NotACapture { .. } => None,
            Self::Truncated { place, .. } | Self::Corrupt { place, .. } | Self::Io { place, .. } => Some(place.offset),
        }
    }
}

/// A place in a source.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// Bytes from the start, after decompression.
    pub offset: u64,
    /// How the source is compressed.
    pub compression: Compression,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "offset {}", self.offset)?;
        match self.compression {
            Compression::Plain => Ok(()),
            Compression::Gzip | Compression::Zstd => write!(f, " of the decompressed {}", self.compression),
        }
    }
}

/// Reads the frames of one pcap or pcapng file.
pub struct CaptureReader {
    buffer: Buffer,
    format: Format,
    ended: bool,
}

#[derive(Debug)]
enum Format {
    Pcap(Pcap),
    PcapNg(PcapNg),
}

/// A frame's place in the buffer.
#[derive(Debug, Clone, Copy)]
struct Found {
    link: LinkType,
    time: u64,
    wire_len: u32,
    start: usize,
    len: usize,
}

impl CaptureReader {
    /// Reads the start of `source`: pcap with microseconds or nanoseconds in either byte order or pcapng, plain or in
    /// gzip or zstd. It need not be seekable.
    ///
    /// Errors: [`CaptureError::NotACapture`] for anything else, the other ones where its header is at fault.
    pub fn open(source: Box<dyn Read + Send>) -> Result<Self, CaptureError> {
        let stream = Stream::open(source).map_err(|source| CaptureError::Io {
            place: Place {
                offset: 0,
                compression: Compression::Plain,
            },
            source,
        })?;
        let mut buffer = Buffer::new(stream);
        buffer.ensure(4)?;
        let format = match buffer.front() {
            [a, b, c, d, ..] => match Pcap::by_magic([*a, *b, *c, *d]) {
                Some(kind) => Some(Format::Pcap(Pcap::open(kind, &mut buffer)?)),
                None if [*a, *b, *c, *d] == pcapng::MAGIC => Some(Format::PcapNg(PcapNg::open(&mut buffer)?)),
                None => None,
            },
            _ => None,
        };
        let Some(format) = format else {
            return Err(CaptureError::NotACapture {
                begins: beginning(buffer.front(), buffer.place().compression),
            });
        };
        Ok(Self {
            buffer,
            format,
            ended: false,
        })
    }

    /// The next frame; none at the end of the source, and from then on.
    ///
    /// Errors: the fault that ends the reading, once, after every frame before it.
    #[inline]
    pub fn next_frame(&mut self) -> Result<Option<Frame<'_>>, CaptureError> {
        if self.ended {
            return Ok(None);
        }
        let found = match &mut self.format {
            Format::Pcap(pcap) => pcap.next(&mut self.buffer),
            Format::PcapNg(pcapng) => pcapng.next(&mut self.buffer),
        };
        match found {
            Ok(Some(found)) => Ok(Some(Frame {
                link: found.link,
                time: found.time,
                bytes: self.buffer.taken(found.start, found.len),
                wire_len: found.wire_len,
            })),
            Ok(None) => {
                self.ended = true;
                Ok(None)
            }
            Err(error) => {
                self.ended = true;
                Err(error)
            }
        }
    }

    /// Whether nothing is left of what was read: the next frame waits for its source, which may be silent for long.
    #[inline]
    pub fn is_drained(&self) -> bool {
        self.buffer.front().is_empty()
    }

    /// Bytes of the source, after decompression, up to the end of the last frame.
    pub fn offset(&self) -> u64 {
        self.buffer.place().offset
    }
}

/// What a source that is no capture begins with.
fn beginning(head: &[u8], compression: Compression) -> String {
    let inside = match compression {
        Compression::Plain => String::new(),
        Compression::Gzip | Compression::Zstd => format!("{compression}, inside "),
    };
    if head.is_empty() {
        return format!("{inside}empty");
    }
    let hex: Vec<String> = head.iter().take(4).map(|byte| format!("{byte:02x}")).collect();
    format!(
        "{inside}begins with the bytes {}; pcap or pcapng was expected, plain or in gzip or zstd",
        hex.join(" ")
    )
}

#[cfg(test)]
mod tests {
    use super::build::{Random, Sample, gzip, pcap, pcapng, read_all, samples, source, zstd};
    use super::order::Order;
    use super::*;

    const ORDERS: [Order; 2] = [Order::Little, Order::Big];

    /// The parts of one capture in each format.
    fn formats(frames: &[Sample]) -> Vec<(String, Vec<Vec<u8>>)> {
        let mut formats = Vec::new();
        for order in ORDERS {
            formats.push((format!("pcap µs {order:?}"), pcap(order, 1000, frames)));
            formats.push((format!("pcap ns {order:?}"), pcap(order, 1, frames)));
            formats.push((format!("pcapng {order:?}"), pcapng(order, frames)));
        }
        formats
    }

    /// One file in each compression.
    fn compressions(bytes: &[u8]) -> Vec<(&'static str, Vec<u8>)> {
        let (a, b) = bytes.split_at(bytes.len() / 2);
        let skippable = [&[0x5a, 0x2a, 0x4d, 0x18, 3, 0, 0, 0, 1, 2, 3][..], &zstd(bytes, 100)].concat();
        vec![
            ("plain", bytes.to_vec()),
            ("gzip", gzip(bytes)),
            ("gzip of three members", [gzip(a), gzip(&[]), gzip(b)].concat()),
            ("zstd", zstd(bytes, usize::MAX)),
            ("zstd of many blocks", zstd(bytes, 7)),
            (
                "zstd of three frames",
                [zstd(a, 50), zstd(&[], 1), zstd(b, 50)].concat(),
            ),
            ("zstd behind a skippable frame", skippable),
        ]
    }

    /// Every format, byte order, resolution and compression gives the same frames, however few bytes a read gives.
    #[test]
    fn the_same_frames_from_every_format() {
        let frames = samples();
        for (format, parts) in formats(&frames) {
            for (compression, bytes) in compressions(&parts.concat()) {
                for step in [1, 13, usize::MAX] {
                    let (read, fault) = read_all(source(&bytes, step));
                    assert!(fault.is_none(), "{format}, {compression}, {step}: {fault:?}");
                    assert_eq!(read, frames, "{format}, {compression}, {step}");
                }
            }
        }
    }

    /// A file that is cut anywhere gives every frame before the cut, then one fault at the part that was cut; none where
    /// the cut is between two parts.
    #[test]
    fn a_cut_file_gives_what_came_before() {
        let frames = samples();
        for (format, parts) in formats(&frames) {
            let bytes = parts.concat();
            let heads = parts.len() - frames.len();
            for cut in 0..=bytes.len() {
                let (mut edge, mut whole) = (0, 0);
                while whole < parts.len() && edge + parts[whole].len() <= cut {
                    edge += parts[whole].len();
                    whole += 1;
                }
                let (read, fault) = read_all(source(&bytes[..cut], usize::MAX));
                assert_eq!(read, frames[..whole.saturating_sub(heads)], "{format} cut at {cut}");
                match fault {
                    None => assert!(edge == cut && whole > 0, "{format} cut at {cut} ends well"),
                    Some(CaptureError::NotACapture { .. }) => assert!(cut < 4, "{format} cut at {cut}"),
                    Some(CaptureError::Truncated { place, what }) => {
                        assert_eq!(place.offset, edge as u64, "{format} cut at {cut}: {what}");
                        let found = format!("and {} are there", cut - edge);
                        assert!(what.ends_with(&found), "{format} cut at {cut}: {what}");
                    }
                    Some(error) => panic!("{format} cut at {cut}: {error}"),
                }
            }
        }
    }

    /// A compressed file that is cut anywhere gives a beginning of the frames and always a fault: even where no frame is
    /// missing, the end of its compression is.
    #[test]
    fn a_cut_compressed_file_gives_what_came_before() {
        let frames = samples();
        let plain = pcap(Order::Little, 1000, &frames).concat();
        for bytes in [gzip(&plain), zstd(&plain, 30)] {
            for cut in 0..bytes.len() {
                let (read, fault) = read_all(source(&bytes[..cut], usize::MAX));
                assert_eq!(read, frames[..read.len()], "cut at {cut}");
                let fault = fault.unwrap();
                match fault {
                    CaptureError::NotACapture { .. } => assert!(cut < 4, "cut at {cut}"),
                    CaptureError::Truncated { .. } => assert!(
                        fault.to_string().contains("of the decompressed"),
                        "cut at {cut}: {fault}"
                    ),
                    CaptureError::Corrupt { .. } | CaptureError::Io { .. } => panic!("cut at {cut}: {fault}"),
                }
            }
        }
    }

    /// What is no capture is told in one line that names what it begins with.
    #[test]
    fn not_a_capture() {
        let expected = "; pcap or pcapng was expected, plain or in gzip or zstd";
        for (bytes, text) in [
            (vec![], "not a capture: empty".to_owned()),
            (
                b"hello, world".to_vec(),
                format!("not a capture: begins with the bytes 68 65 6c 6c{expected}"),
            ),
            (
                vec![0xd4, 0xc3],
                format!("not a capture: begins with the bytes d4 c3{expected}"),
            ),
            (gzip(b""), "not a capture: gzip data, inside empty".to_owned()),
            (
                zstd(b"hello", 9),
                format!("not a capture: zstd data, inside begins with the bytes 68 65 6c 6c{expected}"),
            ),
        ] {
            let (frames, fault) = read_all(source(&bytes, usize::MAX));
            let fault = fault.unwrap();
            assert_eq!((frames.len(), fault.to_string()), (0, text));
            assert_eq!(fault.offset(), None);
        }
    }

    /// Damaged compression is told with the place that decompression reached.
    #[test]
    fn damaged_compression() {
        let frames = samples();
        let plain = pcap(Order::Little, 1000, &frames).concat();
        for (bytes, place, from_end) in [
            (
                gzip(&plain),
                "of the decompressed gzip data: the gzip data is damaged",
                8,
            ),
            (
                zstd(&plain, 30),
                "of the decompressed zstd data: the zstd data is damaged (",
                4,
            ),
        ] {
            let mut broken = bytes.clone();
            let at = broken.len() - from_end;
            broken[at] ^= 1;
            let (read, fault) = read_all(source(&broken, usize::MAX));
            let fault = fault.unwrap();
            assert_eq!(read, frames, "its checksum is behind the frames");
            assert_eq!(fault.offset(), Some(plain.len() as u64));
            assert!(fault.to_string().contains(place), "{fault}");

            let garbage = [&bytes[..], b"garbage"].concat();
            let (read, fault) = read_all(source(&garbage, usize::MAX));
            assert_eq!(read, frames);
            assert!(matches!(fault, Some(CaptureError::Corrupt { .. })), "{fault:?}");
        }
    }

    /// A source that fails gives every frame before, then what the system said, with its place.
    #[test]
    fn a_source_that_fails() {
        struct Failing(io::Cursor<Vec<u8>>);
        impl Read for Failing {
            fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
                match self.0.read(out)? {
                    0 => Err(io::Error::other("the disk is gone")),
                    read => Ok(read),
                }
            }
        }
        let frames = samples();
        let plain = pcap(Order::Big, 1, &frames).concat();
        for bytes in [plain.clone(), gzip(&plain), zstd(&plain, 30)] {
            let (read, fault) = read_all(Box::new(Failing(io::Cursor::new(bytes))));
            let fault = fault.unwrap();
            assert_eq!(read, frames);
            assert!(matches!(fault, CaptureError::Io { .. }), "{fault}");
            assert_eq!(fault.offset(), Some(plain.len() as u64));
            assert!(fault.to_string().ends_with("the disk is gone"), "{fault}");
        }
        let (_, fault) = read_all(Box::new(Failing(io::Cursor::new(Vec::new()))));
        assert!(matches!(fault, Some(CaptureError::Io { .. })));
    }

    /// Frames of every length up to the longest cross the buffer's end unharmed, and make it grow.
    #[test]
    fn long_captures_and_long_frames() {
        let mut random = Random(1);
        let frames: Vec<Sample> = (0..80)
            .map(|number| {
                let len = match number % 8 {
                    0 => MAX_CAPTURED - number / 8,
                    1 => 65_535 - number,
                    _ => random.below(2000),
                };
                let fill = random.next() as u8;
                Sample {
                    link: LinkType::ETHERNET,
                    time: 1_000_000_000 + number as u64,
                    bytes: (0..len).map(|at| at as u8 ^ fill).collect(),
                    wire_len: len as u32,
                }
            })
            .collect();
        for parts in [pcap(Order::Little, 1, &frames), pcapng(Order::Big, &frames)] {
            let bytes = parts.concat();
            for bytes in [bytes.clone(), gzip(&bytes), zstd(&bytes, usize::MAX)] {
                for step in [1000, 65_536, usize::MAX] {
                    let (read, fault) = read_all(source(&bytes, step));
                    assert!(fault.is_none(), "{fault:?}");
                    assert!(read == frames, "the same frames");
                }
            }
        }
    }

    /// `offset` goes from frame to frame and ends at the source's length.
    #[test]
    fn the_offset_is_the_end_of_the_last_frame() {
        let frames = samples();
        let parts = pcap(Order::Little, 1000, &frames);
        let mut reader = CaptureReader::open(source(&gzip(&parts.concat()), usize::MAX)).unwrap();
        let mut end = 0;
        for part in &parts {
            end += part.len() as u64;
            assert_eq!(reader.offset(), end);
            let _ = reader.next_frame().unwrap();
        }
        assert_eq!(reader.offset(), end);
    }

    /// No damage makes the reader panic, run on for ever, or give a frame that is longer than its bytes (scenario 40
    /// for whole files).
    #[test]
    fn no_damage_panics_or_goes_on_for_ever() {
        let frames = samples();
        let mut files: Vec<Vec<u8>> = formats(&frames).into_iter().map(|(_, parts)| parts.concat()).collect();
        files.push(pcapng::tests::many_blocks());
        for plain in [files[0].clone(), files[2].clone()] {
            files.push(gzip(&plain));
            files.push(zstd(&plain, 60));
        }
        let links = [0, 1, 12, 101, 108, 113, 228, 276, 147].map(LinkType);
        let mut random = Random(7);
        for round in 0..200_000 {
            let bytes = random.mutate(&files[round % files.len()]);
            let len = bytes.len();
            let Ok(mut reader) = CaptureReader::open(source(&bytes, usize::MAX)) else {
                continue;
            };
            let mut frames = 0;
            while let Ok(Some(frame)) = reader.next_frame() {
                frames += 1;
                assert!(frame.bytes.len() <= frame.wire_len as usize && frame.time <= MAX_TIME);
                for link in links {
                    if let Ok(packet) = ip_packet(&Frame { link, ..frame }) {
                        assert!(!packet.bytes.is_empty() && packet.bytes.len() <= packet.wire_len);
                    }
                }
            }
            // The shortest frame has 16 bytes in the file, and compression does not multiply these by much.
            assert!(frames <= len * 100, "{frames} frames from {len} bytes");
            assert!(matches!(reader.next_frame(), Ok(None)));
        }
    }
}
