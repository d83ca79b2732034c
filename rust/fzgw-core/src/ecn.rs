//! Explicit congestion notification between inner and outer packets (RFC 6040).

use crate::offload::checksum;

/// The ECN field of an IP header.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Ecn(u8);

impl Ecn {
    /// The transport does not know ECN.
    pub const NOT_ECT: Ecn = Ecn(0b00);
    /// ECN-capable transport, codepoint 1.
    pub const ECT_1: Ecn = Ecn(0b01);
    /// ECN-capable transport, codepoint 0.
    pub const ECT_0: Ecn = Ecn(0b10);
    /// Congestion was experienced.
    pub const CE: Ecn = Ecn(0b11);

    /// The lower two bits of a traffic class.
    pub fn from_bits(bits: u8) -> Self {
        Ecn(bits & 0b11)
    }

    /// The two bits.
    pub fn bits(self) -> u8 {
        self.0
    }

    /// That of an IP packet, which at encapsulation is the outer packet's too (RFC 6040, section 4.1, normal mode).
    pub fn of_packet(packet: &[u8]) -> Self {
        match packet {
            [first, second, ..] if first >> 4 == 4 => Self::from_bits(*second),
            [first, second, ..] if first >> 4 == 6 => Self::from_bits(second >> 4),
            _ => Self::NOT_ECT,
        }
    }

    /// What the inner packet goes on with (RFC 6040, section 4.2); `None`: it must be dropped, since its transport would
    /// not hear of the congestion.
    pub fn decapsulated(inner: Self, outer: Self) -> Option<Self> {
        match (inner, outer) {
            (Self::NOT_ECT, Self::CE) => None,
            (Self::ECT_0 | Self::ECT_1, Self::CE) => Some(Self::CE),
            (Self::ECT_0, Self::ECT_1) => Some(Self::ECT_1),
            _ => Some(inner),
        }
    }

    /// Sets the field of an IP packet, and puts an IPv4 header's checksum right.
    pub fn set(self, packet: &mut [u8]) {
        match packet.first().map(|first| first >> 4) {
            Some(4) if packet.len() >= 20 => {
                let before = checksum::get(packet, 0);
                packet[1] = packet[1] & !0b11 | self.0;
                let after = checksum::get(packet, 0);
                // RFC 1624: HC' = ~(~HC + ~m + m').
                let sum = checksum::add(checksum::add(!checksum::get(packet, 10), !before), after);
                checksum::put(packet, 10, !sum);
            }
            Some(6) if packet.len() >= 40 => packet[1] = packet[1] & 0b1100_1111 | self.0 << 4,
            Some(_) | None => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 6040, figure 4.
    #[test]
    fn decapsulation_is_the_table_of_the_standard() {
        let (not, zero, one, ce) = (Ecn::NOT_ECT, Ecn::ECT_0, Ecn::ECT_1, Ecn::CE);
        let table = [
            (not, [Some(not), Some(not), Some(not), None]),
            (zero, [Some(zero), Some(zero), Some(one), Some(ce)]),
            (one, [Some(one), Some(one), Some(one), Some(ce)]),
            (ce, [Some(ce), Some(ce), Some(ce), Some(ce)]),
        ];
        for (inner, row) in table {
            for (outer, expected) in [not, zero, one, ce].into_iter().zip(row) {
                assert_eq!(Ecn::decapsulated(inner, outer), expected, "{inner:?} in {outer:?}");
            }
        }
    }

    #[test]
    fn a_mark_keeps_the_header_checksum_right() {
        for tos in 0..=255u8 {
            let mut packet = [0u8; 20];
            packet[0] = 0x45;
            packet[1] = tos;
            packet[3] = 20;
            packet[8] = tos.wrapping_mul(31);
            let sum = checksum::ipv4_header(&packet);
            checksum::put(&mut packet, 10, sum);
            for ecn in [Ecn::NOT_ECT, Ecn::ECT_1, Ecn::ECT_0, Ecn::CE] {
                ecn.set(&mut packet);
                assert_eq!(Ecn::of_packet(&packet), ecn);
                assert_eq!(packet[1] & 0b1111_1100, tos & 0b1111_1100);
                assert_eq!(checksum::folded(&packet), 0xffff);
            }
        }
    }

    #[test]
    fn ipv6_keeps_its_class_and_label() {
        let mut packet = [0u8; 40];
        packet[..4].copy_from_slice(&[0x6a, 0xbc, 0xde, 0xf0]);
        Ecn::CE.set(&mut packet);
        assert_eq!(packet[..4], [0x6a, 0xbc | 0x30, 0xde, 0xf0]);
        assert_eq!(Ecn::of_packet(&packet), Ecn::CE);
    }
}
