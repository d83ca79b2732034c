//! pcapng: sections of blocks, each with its length at both ends. A section has one byte order and a list of
//! interfaces, each with its link type and clock.

use super::buffer::{Buffer, MAX_ROOM, incomplete};
use super::order::Order;
use super::{CaptureError, Found, LinkType, MAX_CAPTURED, MAX_TIME};

/// What a file begins with: the type of a section header, the same in both byte orders.
pub(super) const MAGIC: [u8; 4] = [0x0a, 0x0d, 0x0d, 0x0a];

/// Block types.
mod kind {
    pub(super) const SECTION: u32 = 0x0a0d_0d0a;
    pub(super) const INTERFACE: u32 = 1;
    pub(super) const OBSOLETE_PACKET: u32 = 2;
    pub(super) const SIMPLE_PACKET: u32 = 3;
    pub(super) const ENHANCED_PACKET: u32 = 6;
}

/// Options of an interface.
mod option {
    pub(super) const END: u16 = 0;
    pub(super) const TSRESOL: u16 = 9;
    pub(super) const TSOFFSET: u16 = 14;
}

/// Type and length.
const BLOCK_HEADER: usize = 8;
/// The length again.
const BLOCK_TRAILER: usize = 4;
const MIN_BLOCK: usize = BLOCK_HEADER + BLOCK_TRAILER;
/// Up to the byte-order magic, without which the length cannot be read.
const SECTION_START: usize = 12;
const MIN_SECTION: usize = 28;
const MIN_INTERFACE: usize = 20;
/// Bytes in front of the captured ones.
const PACKET_HEADER: usize = 28;
const SIMPLE_PACKET_HEADER: usize = 12;
/// Interfaces of one section: 2 MiB.
const MAX_INTERFACES: usize = 65_536;

const _: () = assert!(MAX_INTERFACES * size_of::<Interface>() <= 2 << 20);

/// The section that is being read.
#[derive(Debug)]
pub(super) struct PcapNg {
    order: Order,
    interfaces: Vec<Interface>,
    /// A simple packet has no time: it gets that of the frame before it.
    last_time: u64,
}

#[derive(Debug, Clone, Copy)]
struct Interface {
    clock: Clock,
    /// Captured bytes of a frame at most; 0 for any.
    snaplen: u32,
    link: LinkType,
}

impl PcapNg {
    /// Takes the first section's header.
    pub(super) fn open(buffer: &mut Buffer) -> Result<Self, CaptureError> {
        let mut new = Self {
            order: Order::Little,
            interfaces: Vec::new(),
            last_time: 0,
        };
        new.section(buffer)?;
        Ok(new)
    }

    #[inline]
    pub(super) fn next(&mut self, buffer: &mut Buffer) -> Result<Option<Found>, CaptureError> {
        loop {
            if !buffer.ensure(BLOCK_HEADER)? {
                if buffer.front().is_empty() {
                    return Ok(None);
                }
                return Err(buffer.truncated("a block header", BLOCK_HEADER));
            }
            match self.order.u32(buffer.front(), 0) {
                kind::ENHANCED_PACKET => return self.packet(buffer, Order::u32).map(Some),
                kind::OBSOLETE_PACKET => {
                    return self
                        .packet(buffer, |order, block, at| order.u16(block, at).into())
                        .map(Some);
                }
                kind::SIMPLE_PACKET => return self.simple_packet(buffer).map(Some),
                kind::INTERFACE => self.interface(buffer)?,
                kind::SECTION => self.section(buffer)?,
                _ => self.skip(buffer)?,
            }
        }
    }

    /// An enhanced packet, or an obsolete one: they differ in the width of the interface's number alone.
    #[inline]
    fn packet(
        &mut self,
        buffer: &mut Buffer,
        number: impl Fn(Order, &[u8], usize) -> u32,
    ) -> Result<Found, CaptureError> {
        let total = self.whole_block(buffer, "a packet block", PACKET_HEADER + BLOCK_TRAILER)?;
        let block = buffer.front();
        let number = number(self.order, block, 8);
        let units = u64::from(self.order.u32(block, 12)) << 32 | u64::from(self.order.u32(block, 16));
        let captured = self.order.u32(block, 20);
        let on_wire = self.order.u32(block, 24);
        let interface = self.interface_of(buffer, number)?;
        let len = captured_len(buffer, captured, total - PACKET_HEADER - BLOCK_TRAILER)?;
        self.last_time = interface.clock.time(units);
        let at = buffer.take(total);
        Ok(Found {
            link: interface.link,
            time: self.last_time,
            wire_len: on_wire.max(captured),
            start: at + PACKET_HEADER,
            len,
        })
    }

    fn simple_packet(&mut self, buffer: &mut Buffer) -> Result<Found, CaptureError> {
        let total = self.whole_block(buffer, "a simple packet block", SIMPLE_PACKET_HEADER + BLOCK_TRAILER)?;
        let on_wire = self.order.u32(buffer.front(), 8);
        let interface = self.interface_of(buffer, 0)?;
        let captured = match interface.snaplen {
            0 => on_wire,
            snaplen => on_wire.min(snaplen),
        };
        let len = captured_len(buffer, captured, total - SIMPLE_PACKET_HEADER - BLOCK_TRAILER)?;
        let at = buffer.take(total);
        Ok(Found {
            link: interface.link,
            time: self.last_time,
            wire_len: on_wire,
            start: at + SIMPLE_PACKET_HEADER,
            len,
        })
    }

    #[inline]
    fn interface_of(&self, buffer: &Buffer, number: u32) -> Result<Interface, CaptureError> {
        match self.interfaces.get(number as usize) {
            Some(interface) => Ok(*interface),
            None => Err(buffer.corrupt(format!(
                "a packet of interface {number}, and the section has described {}",
                self.interfaces.len()
            ))),
        }
    }

    #[cold]
    fn section(&mut self, buffer: &mut Buffer) -> Result<(), CaptureError> {
        if !buffer.ensure(SECTION_START)? {
            return Err(buffer.truncated("a section header", MIN_SECTION));
        }
        self.order = match buffer.front().get(8..12) {
            Some([0x4d, 0x3c, 0x2b, 0x1a]) => Order::Little,
            Some([0x1a, 0x2b, 0x3c, 0x4d]) => Order::Big,
            Some(_) | None => {
                return Err(buffer.corrupt("a section header without the byte-order magic".to_owned()));
            }
        };
        let total = self.whole_block(buffer, "a section header", MIN_SECTION)?;
        let major = self.order.u16(buffer.front(), 12);
        if major != 1 {
            return Err(buffer.corrupt(format!("a section of pcapng version {major}, and only 1 is known")));
        }
        self.interfaces.clear();
        buffer.take(total);
        Ok(())
    }

    #[cold]
    fn interface(&mut self, buffer: &mut Buffer) -> Result<(), CaptureError> {
        let total = self.whole_block(buffer, "an interface description", MIN_INTERFACE)?;
        if self.interfaces.len() == MAX_INTERFACES {
            return Err(buffer.corrupt(format!("a section of more than {MAX_INTERFACES} interfaces")));
        }
        let block = &buffer.front()[..total];
        let link = LinkType(self.order.u16(block, 8));
        let snaplen = self.order.u32(block, 12);
        let clock = Clock::parse(self.order, &block[MIN_INTERFACE - BLOCK_TRAILER..total - BLOCK_TRAILER])
            .map_err(|what| buffer.corrupt(what.to_owned()))?;
        self.interfaces.push(Interface { clock, snaplen, link });
        buffer.take(total);
        Ok(())
    }

    /// A block that does not matter here. It may be longer than the buffer.
    #[cold]
    fn skip(&mut self, buffer: &mut Buffer) -> Result<(), CaptureError> {
        const WHAT: &str = "a block";
        let total = self.block_len(buffer, MIN_BLOCK)?;
        let place = buffer.place();
        let missing = buffer.skip(total - BLOCK_TRAILER)?;
        if missing > 0 || !buffer.ensure(BLOCK_TRAILER)? {
            let found = total - BLOCK_TRAILER - missing + buffer.front().len();
            return Err(CaptureError::Truncated {
                place,
                what: incomplete(WHAT, total, found),
            });
        }
        let trailer = self.order.u32(buffer.front(), 0);
        if trailer as usize != total {
            return Err(CaptureError::Corrupt {
                place,
                what: lengths_differ(total, trailer),
            });
        }
        buffer.take(BLOCK_TRAILER);
        Ok(())
    }

    /// The length of the block at the front, which is `min` bytes or longer and is waited for.
    #[inline]
    fn whole_block(&self, buffer: &mut Buffer, what: &str, min: usize) -> Result<usize, CaptureError> {
        let total = self.block_len(buffer, min)?;
        if total > MAX_ROOM {
            return Err(buffer.corrupt(format!("{what} of {total} bytes, and at most {MAX_ROOM} can be")));
        }
        if !buffer.ensure(total)? {
            return Err(buffer.truncated(what, total));
        }
        let trailer = self.order.u32(buffer.front(), total - BLOCK_TRAILER);
        if trailer as usize != total {
            return Err(buffer.corrupt(lengths_differ(total, trailer)));
        }
        Ok(total)
    }

    #[inline]
    fn block_len(&self, buffer: &Buffer, min: usize) -> Result<usize, CaptureError> {
        let total = self.order.u32(buffer.front(), 4) as usize;
        if total < min || !total.is_multiple_of(4) {
            return Err(buffer.corrupt(format!(
                "a block of {total} bytes, and a multiple of 4 from {min} up was expected"
            )));
        }
        Ok(total)
    }
}

#[inline]
fn captured_len(buffer: &Buffer, captured: u32, room: usize) -> Result<usize, CaptureError> {
    let len = captured as usize;
    if len > room {
        return Err(buffer.corrupt(format!(
            "a packet with {captured} captured bytes in a block that has room for {room}"
        )));
    }
    if len > MAX_CAPTURED {
        return Err(buffer.corrupt(format!(
            "a packet with {captured} captured bytes, and at most {MAX_CAPTURED} can be"
        )));
    }
    Ok(len)
}

#[cold]
fn lengths_differ(total: usize, trailer: u32) -> String {
    format!("a block of {total} bytes at its start and {trailer} at its end")
}

/// How an interface counts time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Clock {
    scale: Scale,
    /// Seconds to add.
    offset: i64,
}

/// From units to nanoseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Scale {
    /// A unit is so many of them.
    Times(u64),
    /// So many units are one.
    Divided(u64),
    /// A second is two to this power of units.
    Binary(u8),
    /// Units are so short that 64 bits of them are none.
    Nothing,
}

const NANOSECONDS: u64 = 1_000_000_000;
const NANOSECOND_DIGITS: u32 = 9;

impl Clock {
    /// From an interface's options; microseconds where they do not say.
    fn parse(order: Order, options: &[u8]) -> Result<Self, &'static str> {
        let mut clock = Self {
            scale: Scale::Times(1000),
            offset: 0,
        };
        let mut rest = options;
        while rest.len() >= 4 {
            let (code, len) = (order.u16(rest, 0), usize::from(order.u16(rest, 2)));
            let value = rest
                .get(4..4 + len)
                .ok_or("an interface option longer than its block")?;
            match (code, value) {
                (option::END, _) => break,
                (option::TSRESOL, [resolution]) => clock.scale = Scale::of(*resolution),
                (option::TSRESOL, _) => return Err("an if_tsresol that is not 1 byte long"),
                (option::TSOFFSET, [_, _, _, _, _, _, _, _]) => clock.offset = order.i64(value, 0),
                (option::TSOFFSET, _) => return Err("an if_tsoffset that is not 8 bytes long"),
                (_, _) => {}
            }
            rest = rest.get(4 + len.next_multiple_of(4)..).unwrap_or_default();
        }
        Ok(clock)
    }

    /// Nanoseconds since the epoch, from 0 to [`MAX_TIME`].
    #[inline]
    fn time(self, units: u64) -> u64 {
        if let (Scale::Times(factor), 0) = (self.scale, self.offset) {
            return units.saturating_mul(factor).min(MAX_TIME);
        }
        let units = u128::from(units);
        let since = match self.scale {
            Scale::Times(factor) => units * u128::from(factor),
            Scale::Divided(divisor) => units / u128::from(divisor),
            Scale::Binary(bits) => (units * u128::from(NANOSECONDS)) >> bits,
            Scale::Nothing => 0,
        };
        // A product of 64 and 30 bits has room in 127.
        let time = since as i128 + i128::from(self.offset) * i128::from(NANOSECONDS);
        time.clamp(0, MAX_TIME.into()) as u64
    }
}

impl Scale {
    /// From an if_tsresol: the negative power of 10 or, with the highest bit, of 2 that a unit is of a second.
    fn of(resolution: u8) -> Self {
        let power = u32::from(resolution & 0x7f);
        if resolution & 0x80 != 0 {
            return Self::Binary(resolution & 0x7f);
        }
        match power.checked_sub(NANOSECOND_DIGITS) {
            None => Self::Times(10_u64.pow(NANOSECOND_DIGITS - power)),
            Some(digits) => 10_u64.checked_pow(digits).map_or(Self::Nothing, Self::Divided),
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::super::build::{Sample, block, enhanced, interface, read_all, section, source};
    use super::*;

    const LITTLE: Order = Order::Little;

    fn sample(link: LinkType, time: u64, bytes: &[u8], wire_len: u32) -> Sample {
        Sample {
            link,
            time,
            bytes: bytes.to_vec(),
            wire_len,
        }
    }

    fn simple(order: Order, wire_len: u32, bytes: &[u8]) -> Vec<u8> {
        block(order, 3, &[&order.put32(wire_len)[..], bytes].concat())
    }

    fn obsolete(order: Order, number: u16, units: u32, bytes: &[u8], wire_len: u32) -> Vec<u8> {
        let body = [
            &order.put16(number)[..],
            &order.put16(77),
            &order.put32(0),
            &order.put32(units),
            &order.put32(bytes.len() as u32),
            &order.put32(wire_len),
            bytes,
        ]
        .concat();
        block(order, 2, &body)
    }

    /// A file with every kind of block: two sections of different byte order, three interfaces.
    pub(in super::super) fn many_blocks() -> Vec<u8> {
        let big = Order::Big;
        [
            section(LITTLE),
            interface(LITTLE, LinkType::ETHERNET, 4, &[(2, b"eth0"), (9, &[6]), (0, &[])]),
            block(LITTLE, 5, &[0; 20]),
            interface(LITTLE, LinkType::RAW, 0, &[(9, &[0x80 | 20]), (14, &LITTLE.put64(100))]),
            enhanced(LITTLE, 0, 7, b"abcd", 90),
            enhanced(LITTLE, 1, 3 << 20, b"E", 1),
            block(LITTLE, 0x0bad, b"custom"),
            simple(LITTLE, 9, b"1234"),
            obsolete(LITTLE, 1, 1 << 19, b"old", 3),
            section(big),
            interface(big, LinkType::LINUX_SLL, 0, &[]),
            enhanced(big, 0, 1 << 40, b"last", 4),
            simple(big, 2, b"xy"),
        ]
        .concat()
    }

    /// Sections, interfaces with their own link types and clocks, every packet block; other blocks are passed over. A
    /// simple packet is cut to the interface's snaplen and has the time of the packet before it.
    #[test]
    fn sections_interfaces_and_packets() {
        let (read, fault) = read_all(source(&many_blocks(), 5));
        assert!(fault.is_none(), "{fault:?}");
        let late = (1 << 40) * 1000;
        assert_eq!(
            read,
            [
                sample(LinkType::ETHERNET, 7000, b"abcd", 90),
                sample(LinkType::RAW, 103_000_000_000, b"E", 1),
                sample(LinkType::ETHERNET, 103_000_000_000, b"1234", 9),
                sample(LinkType::RAW, 100_500_000_000, b"old", 3),
                sample(LinkType::LINUX_SLL, late, b"last", 4),
                sample(LinkType::LINUX_SLL, late, b"xy", 2),
            ]
        );
    }

    /// Options and a wire length below the captured one change nothing of a packet.
    #[test]
    fn packet_options_are_passed_over() {
        let body = [
            &[0, 0, 0, 0, 0, 0, 0, 0, 9, 0, 0, 0, 3, 0, 0, 0, 2, 0, 0, 0][..],
            b"abc\0",
            &[1, 0, 2, 0, b'h', b'i', 0, 0, 0, 0, 0, 0],
        ]
        .concat();
        let bytes = [
            section(LITTLE),
            interface(LITTLE, LinkType::RAW, 0, &[]),
            block(LITTLE, 6, &body),
        ]
        .concat();
        assert_eq!(
            read_all(source(&bytes, usize::MAX)).0,
            [sample(LinkType::RAW, 9000, b"abc", 3)]
        );
    }

    /// A block that nobody needs may be longer than the buffer; it is not kept. Cut or with another length at its end, it
    /// is a fault at its beginning.
    #[test]
    fn unknown_blocks_of_any_length() {
        let head = [section(LITTLE), interface(LITTLE, LinkType::RAW, 0, &[])].concat();
        let long = block(LITTLE, 0x0bad, &vec![7; 3 << 20]);
        let packet = enhanced(LITTLE, 0, 1, b"E", 1);
        let bytes = [&head[..], &long, &packet].concat();
        for step in [1000, usize::MAX] {
            let (read, fault) = read_all(source(&bytes, step));
            assert!(fault.is_none(), "{fault:?}");
            assert_eq!(read, [sample(LinkType::RAW, 1000, b"E", 1)]);
        }

        let start = head.len();
        let (_, fault) = read_all(source(&bytes[..start + long.len() - 3], usize::MAX));
        let (total, found) = (long.len(), long.len() - 3);
        assert_eq!(
            fault.unwrap().to_string(),
            format!("truncated at offset {start}: a block of {total} bytes begins here, and {found} are there")
        );

        let mut lying = bytes.clone();
        lying[start + long.len() - 4] ^= 4;
        let (_, fault) = read_all(source(&lying, usize::MAX));
        assert_eq!(
            fault.unwrap().to_string(),
            format!(
                "corrupt at offset {start}: a block of {total} bytes at its start and {} at its end",
                total ^ 4
            )
        );
    }

    /// What cannot be is told with the offset of its block.
    #[test]
    fn faults() {
        let head = [section(LITTLE), interface(LITTLE, LinkType::RAW, 2, &[])].concat();
        let packet = enhanced(LITTLE, 0, 1, b"E", 1);
        let with = |at: usize, value: u32| {
            let mut packet = packet.clone();
            packet[at..at + 4].copy_from_slice(&value.to_le_bytes());
            packet
        };
        let huge = enhanced(LITTLE, 0, 1, &vec![0; MAX_CAPTURED + 1], 1);
        let mut later_section = section(LITTLE);
        later_section[12] = 2;
        let mut no_order = section(LITTLE);
        no_order[8] = 0;
        for (part, text) in [
            (
                with(4, 35),
                "a block of 35 bytes, and a multiple of 4 from 32 up was expected",
            ),
            (
                with(4, 28),
                "a block of 28 bytes, and a multiple of 4 from 32 up was expected",
            ),
            (
                with(4, 2 << 20),
                "a packet block of 2097152 bytes, and at most 1048576 can be",
            ),
            (with(32, 0), "a block of 36 bytes at its start and 0 at its end"),
            (with(8, 1), "a packet of interface 1, and the section has described 1"),
            (
                with(20, 5),
                "a packet with 5 captured bytes in a block that has room for 4",
            ),
            (
                with(20, u32::MAX),
                "a packet with 4294967295 captured bytes in a block that has room for 4",
            ),
            (huge, "a packet with 262145 captured bytes, and at most 262144 can be"),
            (
                simple(LITTLE, 9, b""),
                "a packet with 2 captured bytes in a block that has room for 0",
            ),
            (
                block(LITTLE, 99, b"")[..4]
                    .iter()
                    .copied()
                    .chain([8, 0, 0, 0])
                    .collect(),
                "a block of 8 bytes, and a multiple of 4 from 12 up was expected",
            ),
            (later_section, "a section of pcapng version 2, and only 1 is known"),
            (no_order, "a section header without the byte-order magic"),
            (
                interface(LITTLE, LinkType::RAW, 0, &[(9, &[])]),
                "an if_tsresol that is not 1 byte long",
            ),
            (
                interface(LITTLE, LinkType::RAW, 0, &[(14, &[0; 4])]),
                "an if_tsoffset that is not 8 bytes long",
            ),
            (
                block(LITTLE, 1, &[1, 0, 0, 0, 0, 0, 0, 0, 2, 0, 9, 0, 0, 0, 0, 0]),
                "an interface option longer than its block",
            ),
        ] {
            let bytes = [&head[..], &packet, &part].concat();
            let (read, fault) = read_all(source(&bytes, usize::MAX));
            let offset = head.len() + packet.len();
            assert_eq!(
                fault.unwrap().to_string(),
                format!("corrupt at offset {offset}: {text}")
            );
            assert_eq!(read.len(), 1, "{text}");
        }
    }

    /// A section's interfaces end with it, and their number is bounded.
    #[test]
    fn interfaces_are_of_one_section_and_bounded() {
        let described = interface(LITTLE, LinkType::RAW, 0, &[]);
        let packet = enhanced(LITTLE, 0, 1, b"E", 1);
        let bytes = [section(LITTLE), described.clone(), section(LITTLE), packet].concat();
        let (_, fault) = read_all(source(&bytes, usize::MAX));
        assert!(fault.unwrap().to_string().contains("has described 0"));

        let full = [section(LITTLE), described.repeat(MAX_INTERFACES)].concat();
        assert!(read_all(source(&full, usize::MAX)).1.is_none());
        let (_, fault) = read_all(source(&[full, described].concat(), usize::MAX));
        assert!(fault.unwrap().to_string().contains("more than 65536 interfaces"));
    }

    /// Every resolution gives nanoseconds, rounded down; offsets move them; what has no place in 63 bits becomes the
    /// nearest time that has.
    #[test]
    fn clocks() {
        for (resolution, offset, units, time) in [
            (6, 0, 1_700_000_000_000_001, 1_700_000_000_000_001_000),
            (9, 0, 1_700_000_000_000_000_001, 1_700_000_000_000_000_001),
            (0, 0, 1_700_000_000, 1_700_000_000_000_000_000),
            (3, 0, 5, 5_000_000),
            (12, 0, 1_999, 1),
            (28, 0, u64::MAX, 1),
            (29, 0, u64::MAX, 0),
            (127, 0, u64::MAX, 0),
            (0x80, 0, 3, 3_000_000_000),
            (0x80 | 10, 0, 1, 976_562),
            (0x80 | 32, 0, 1 << 33, 2_000_000_000),
            (0x80 | 64, 0, u64::MAX, 999_999_999),
            (0x80 | 127, 0, u64::MAX, 0),
            (6, 10, 1, 10_000_001_000),
            (6, -1, 2_500_000, 1_500_000_000),
            (6, -1, 500_000, 0),
            (6, i64::MIN, u64::MAX, 0),
            (6, i64::MAX, 0, MAX_TIME),
            (0, i64::MAX, u64::MAX, MAX_TIME),
            (6, 0, u64::MAX, MAX_TIME),
            (9, 0, u64::MAX, MAX_TIME),
            (9, 0, MAX_TIME, MAX_TIME),
        ] {
            let clock = Clock {
                scale: Scale::of(resolution),
                offset,
            };
            assert_eq!(clock.time(units), time, "{resolution:#x}, {offset}, {units}");
        }
    }
}
