//! Classic pcap: a file header, then frames behind headers of 16 bytes.

use super::buffer::Buffer;
use super::order::Order;
use super::{CaptureError, Found, LinkType, MAX_CAPTURED};

const FILE_HEADER: usize = 24;
const FRAME_HEADER: usize = 16;
/// The version since 1998. The ones before disagree about the order of the two lengths.
const VERSION: (u16, u16) = (2, 4);

/// What a file's magic tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Kind {
    order: Order,
    /// Nanoseconds of one unit of the fraction of a second.
    unit: u32,
}

/// A file's header.
#[derive(Debug)]
pub(super) struct Pcap {
    kind: Kind,
    link: LinkType,
}

impl Pcap {
    /// Whether a file that begins so is pcap.
    pub(super) fn by_magic(magic: [u8; 4]) -> Option<Kind> {
        let (order, unit) = match magic {
            [0xd4, 0xc3, 0xb2, 0xa1] => (Order::Little, 1000),
            [0xa1, 0xb2, 0xc3, 0xd4] => (Order::Big, 1000),
            [0x4d, 0x3c, 0xb2, 0xa1] => (Order::Little, 1),
            [0xa1, 0xb2, 0x3c, 0x4d] => (Order::Big, 1),
            _ => return None,
        };
        Some(Kind { order, unit })
    }

    /// Takes the file's header.
    pub(super) fn open(kind: Kind, buffer: &mut Buffer) -> Result<Self, CaptureError> {
        if !buffer.ensure(FILE_HEADER)? {
            return Err(buffer.truncated("a pcap file header", FILE_HEADER));
        }
        let header = buffer.front();
        let version = (kind.order.u16(header, 4), kind.order.u16(header, 6));
        if version != VERSION {
            let (major, minor) = version;
            return Err(buffer.corrupt(format!("pcap version {major}.{minor}, and only 2.4 is known")));
        }
        // The upper half is about frame check sequences, which stay behind the packet as padding does.
        let link = LinkType(kind.order.u32(header, 20) as u16);
        buffer.take(FILE_HEADER);
        Ok(Self { kind, link })
    }

    #[inline]
    pub(super) fn next(&mut self, buffer: &mut Buffer) -> Result<Option<Found>, CaptureError> {
        if !buffer.ensure(FRAME_HEADER)? {
            if buffer.front().is_empty() {
                return Ok(None);
            }
            return Err(buffer.truncated("a frame header", FRAME_HEADER));
        }
        let order = self.kind.order;
        let header = buffer.front();
        let seconds = order.u32(header, 0);
        let fraction = order.u32(header, 4);
        let captured = order.u32(header, 8);
        let on_wire = order.u32(header, 12);
        let len = captured as usize;
        if len > MAX_CAPTURED {
            return Err(buffer.corrupt(format!(
                "a frame with {captured} captured bytes, and at most {MAX_CAPTURED} can be"
            )));
        }
        if !buffer.ensure(FRAME_HEADER + len)? {
            return Err(buffer.truncated("a frame with its header", FRAME_HEADER + len));
        }
        let at = buffer.take(FRAME_HEADER + len);
        Ok(Some(Found {
            link: self.link,
            // Below the year 2107 and so below MAX_TIME, whatever the fraction is.
            time: u64::from(seconds) * 1_000_000_000 + u64::from(fraction) * u64::from(self.kind.unit),
            wire_len: on_wire.max(captured),
            start: at + FRAME_HEADER,
            len,
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::super::build::{Sample, pcap_frame, pcap_header, read_all, samples, source};
    use super::*;

    fn sample(bytes: &[u8], wire_len: u32) -> Sample {
        Sample {
            link: LinkType::ETHERNET,
            time: 5_000_000_000,
            bytes: bytes.to_vec(),
            wire_len,
        }
    }

    /// A length beyond the bound and an unknown version are told with their offset, after the frames before.
    #[test]
    fn faults() {
        let frame = pcap_frame(Order::Big, 1000, &samples()[3]);
        let header = pcap_header(Order::Big, 1000, LinkType::ETHERNET);
        let mut longer = frame.clone();
        longer[8..12].copy_from_slice(&262_145_u32.to_be_bytes());
        let mut version = header.clone();
        version[7] = 3;
        for (bytes, frames, text) in [
            (
                [&header[..], &frame, &longer].concat(),
                1,
                "corrupt at offset 100: a frame with 262145 captured bytes, and at most 262144 can be",
            ),
            (
                [&header[..], &frame, &frame[..3]].concat(),
                1,
                "truncated at offset 100: a frame header of 16 bytes begins here, and 3 are there",
            ),
            (
                version,
                0,
                "corrupt at offset 0: pcap version 2.3, and only 2.4 is known",
            ),
            (
                header[..23].to_vec(),
                0,
                "truncated at offset 0: a pcap file header of 24 bytes begins here, and 23 are there",
            ),
        ] {
            let (read, fault) = read_all(source(&bytes, usize::MAX));
            assert_eq!((read.len(), fault.unwrap().to_string().as_str()), (frames, text));
        }
    }

    /// A wire length below what was captured is what was captured.
    #[test]
    fn a_wire_length_is_never_below_the_captured_one() {
        let header = pcap_header(Order::Little, 1, LinkType::ETHERNET);
        let bytes = [header, pcap_frame(Order::Little, 1, &sample(b"abc", 2))].concat();
        let (read, fault) = read_all(source(&bytes, usize::MAX));
        assert!(fault.is_none());
        assert_eq!(read, [sample(b"abc", 3)]);
    }

    /// The link type is the lower half of its field; the upper one tells of check sequences.
    #[test]
    fn the_link_type_is_the_lower_half() {
        let mut header = pcap_header(Order::Big, 1, LinkType::LINUX_SLL2);
        header[20] = 0x24;
        let bytes = [header, pcap_frame(Order::Big, 1, &sample(b"", 0))].concat();
        assert_eq!(read_all(source(&bytes, usize::MAX)).0[0].link, LinkType::LINUX_SLL2);
    }

    /// The largest times that the format can state do not overflow.
    #[test]
    fn the_latest_time() {
        let header = pcap_header(Order::Big, 1000, LinkType::ETHERNET);
        let bytes = [&header[..], &[0xff; 8], &[0; 8]].concat();
        let (read, _) = read_all(source(&bytes, usize::MAX));
        let seconds = u64::from(u32::MAX);
        assert_eq!(read[0].time, seconds * 1_000_000_000 + seconds * 1000);
    }
}
