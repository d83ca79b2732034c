//! Packets and steps of time, read front to back out of a fuzzer's bytes.
//!
//! Everything is small on purpose: a handful of hosts, ports and identifications, so that packets meet in the same
//! flows and the same datagrams again and again. Bytes that are missing at the end are 0.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use arbitrary::Unstructured;
use fzgw_core::capture::MAX_TIME;
use fzgw_core::packet::protocol;

use crate::make::{self, Ends, Piece};

const MILLISECOND: u64 = 1_000_000;
const SECOND: u64 = 1_000_000_000;

/// One byte of the script; 0 past its end.
pub fn byte(input: &mut Unstructured<'_>) -> u8 {
    input.arbitrary().unwrap_or(0)
}

/// At most so many bytes of the script, as they are.
pub fn raw<'a>(input: &mut Unstructured<'a>, most: usize) -> &'a [u8] {
    let len = most.min(input.len());
    input.bytes(len).unwrap_or(&[])
}

/// Kinds of packets: the low half of a packet's first byte.
pub mod kind {
    /// TCP: flags, sequence number (a signed byte around the turn of 2^32), payload length.
    pub const TCP: u8 = 0;
    /// TCP too, so that half of all bytes make the two usual protocols.
    pub const TCP_AGAIN: u8 = 1;
    /// UDP: payload length.
    pub const UDP: u8 = 2;
    /// UDP too.
    pub const UDP_AGAIN: u8 = 3;
    /// Echo request.
    pub const REQUEST: u8 = 4;
    /// Echo reply.
    pub const REPLY: u8 = 5;
    /// ICMP: type, code.
    pub const ICMP: u8 = 6;
    /// ICMP error: type and code, length of the quote (255: all), the packet that it quotes.
    pub const ERROR: u8 = 7;
    /// ICMP error about bytes as they are: type, code, length, bytes.
    pub const ERROR_RAW: u8 = 8;
    /// Another protocol: its number, payload length.
    pub const OTHER: u8 = 9;
    /// Later fragment: identification, payload length.
    pub const LATER: u8 = 10;
    /// First fragment of UDP: identification, payload length.
    pub const FIRST_UDP: u8 = 11;
    /// First fragment of TCP: identification, flags.
    pub const FIRST_TCP: u8 = 12;
    /// First fragment that is too short for its ports: identification, length.
    pub const FIRST_SHORT: u8 = 13;
    /// No length in the IP header, as a sender's own capture has it: payload length.
    pub const NO_LENGTH: u8 = 14;
    /// Bytes as they are: length, bytes.
    pub const RAW: u8 = 15;
    /// IPv6 instead of IPv4.
    pub const V6: u8 = 0x10;
    /// From the far host to the near one.
    pub const BACK: u8 = 0x20;
    /// Later fragments and short first ones are TCP's, not UDP's.
    pub const OF_TCP: u8 = 0x40;
}

/// An ICMP error may quote an ICMP error, and so on: but not for ever.
const MAX_QUOTES: usize = 3;

/// One packet.
pub fn packet(input: &mut Unstructured<'_>) -> Vec<u8> {
    quoted_packet(input, MAX_QUOTES)
}

fn quoted_packet(input: &mut Unstructured<'_>, quotes: usize) -> Vec<u8> {
    let first = byte(input);
    if first & 0x0f == kind::RAW {
        let most = byte(input).into();
        return raw(input, most).to_vec();
    }
    let ends = ends(byte(input), first & kind::V6 != 0);
    let ends = if first & kind::BACK != 0 { ends.turned() } else { ends };
    let of_fragment = if first & kind::OF_TCP != 0 {
        protocol::TCP
    } else {
        protocol::UDP
    };
    match first & 0x0f {
        kind::TCP | kind::TCP_AGAIN => {
            let flags = byte(input);
            let seq = (byte(input) as i8) as u32;
            make::tcp(ends, flags, seq, byte(input).into())
        }
        kind::UDP | kind::UDP_AGAIN => make::udp(ends, byte(input).into()),
        kind::REQUEST => make::echo(ends, true),
        kind::REPLY => make::echo(ends, false),
        kind::ICMP => {
            let kind = byte(input);
            make::icmp(ends, kind, byte(input), &[])
        }
        kind::ERROR => {
            let (kind, code) = error(byte(input), first & kind::V6 != 0);
            let len = usize::from(byte(input));
            if quotes == 0 {
                return make::icmp(ends, kind, code, &[]);
            }
            let quoted = quoted_packet(input, quotes - 1);
            let len = if len == 255 {
                quoted.len()
            } else {
                len.min(quoted.len())
            };
            make::icmp(ends, kind, code, &quoted[..len])
        }
        kind::ERROR_RAW => {
            let (kind, code) = error(byte(input), first & kind::V6 != 0);
            let most = byte(input).into();
            make::icmp(ends, kind, code, raw(input, most))
        }
        kind::OTHER => {
            let protocol = byte(input);
            make::ip(ends, protocol, &vec![0; byte(input).into()])
        }
        kind::LATER => {
            let piece = piece(byte(input), 1);
            make::fragment(ends, of_fragment, piece, &vec![0; byte(input).into()])
        }
        kind::FIRST_UDP => {
            let piece = piece(byte(input), 0);
            make::fragment(ends, protocol::UDP, piece, &make::udp_body(ends, byte(input).into()))
        }
        kind::FIRST_TCP => {
            let piece = piece(byte(input), 0);
            make::fragment(ends, protocol::TCP, piece, &make::tcp_body(ends, byte(input), 0, 8))
        }
        kind::FIRST_SHORT => {
            let piece = piece(byte(input), 0);
            make::fragment(ends, of_fragment, piece, &vec![0; usize::from(byte(input) & 7)])
        }
        _ => {
            let mut packet = make::udp(ends, byte(input).into());
            let at = if ends.src.is_ipv4() { 2 } else { 4 };
            packet[at..at + 2].fill(0);
            packet
        }
    }
}

/// A type and a code: the errors that there are, and what is no error.
fn error(byte: u8, v6: bool) -> (u8, u8) {
    let kinds: [u8; 8] = if v6 {
        [1, 1, 2, 3, 4, 137, 0, 100]
    } else {
        [3, 3, 3, 11, 12, 5, 4, 13]
    };
    (kinds[usize::from(byte & 7)], byte >> 3)
}

fn piece(byte: u8, offset: u16) -> Piece {
    Piece {
        identification: (byte & 3).into(),
        offset: offset * (1 + u16::from(byte >> 3 & 15)),
        // A first fragment that is not one: nothing follows it.
        more: byte & 4 == 0,
    }
}

/// Hosts and ports of a byte: two bits for each of near host, far host, near port and far port.
pub fn ends(byte: u8, v6: bool) -> Ends {
    let [near, far, near_port, far_port] = [0, 2, 4, 6].map(|shift| usize::from(byte >> shift & 3));
    let (near, far): (IpAddr, IpAddr) = if v6 {
        (NEAR_V6[near].into(), FAR_V6[far].into())
    } else {
        (NEAR_V4[near].into(), FAR_V4[far].into())
    };
    Ends {
        src: near,
        dst: far,
        src_port: [4000, 4001, 53, 22][near_port],
        dst_port: [443, 53, 80, 22][far_port],
    }
}

/// Two peers of [`crate::lab::config`], an address of theirs that a longer prefix gives to another, and a stranger.
const NEAR_V4: [Ipv4Addr; 4] = [
    Ipv4Addr::new(100, 64, 0, 2),
    Ipv4Addr::new(100, 64, 0, 3),
    Ipv4Addr::new(10, 20, 0, 7),
    Ipv4Addr::new(198, 51, 100, 7),
];
/// The resource that rules allow, another, a peer, and what nobody may reach (P3).
const FAR_V4: [Ipv4Addr; 4] = [
    Ipv4Addr::new(10, 1, 2, 3),
    Ipv4Addr::new(192, 0, 2, 1),
    Ipv4Addr::new(100, 64, 0, 3),
    Ipv4Addr::new(169, 254, 169, 254),
];
const NEAR_V6: [Ipv6Addr; 4] = [
    Ipv6Addr::new(0xfd00, 0x64, 0, 0, 0, 0, 0, 2),
    Ipv6Addr::new(0xfd00, 0x64, 0, 0, 0, 0, 0, 3),
    Ipv6Addr::new(0, 0, 0, 0, 0, 0xffff, 0x6440, 2),
    Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 7),
];
const FAR_V6: [Ipv6Addr; 4] = [
    Ipv6Addr::new(0xfd00, 1, 2, 0, 0, 0, 0, 3),
    Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1),
    Ipv6Addr::new(0xfd00, 0x64, 0, 0, 0, 0, 0, 3),
    Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1),
];

/// Steps of time, by number: the engine's limits, the least past them, and back.
pub mod step {
    /// None.
    pub const NONE: u8 = 0;
    /// A millisecond.
    pub const MILLISECOND: u8 = 3;
    /// Ten milliseconds: a replay's timers are looked at as often.
    pub const TEN_MILLISECONDS: u8 = 4;
    /// A second.
    pub const SECOND: u8 = 6;
    /// The close delay and one nanosecond.
    pub const PAST_CLOSE_DELAY: u8 = 8;
    /// `open_after`.
    pub const OPEN_AFTER: u8 = 9;
    /// The fragments' time.
    pub const FRAGMENTS: u8 = 10;
    /// One nanosecond past the fragments' time.
    pub const PAST_FRAGMENTS: u8 = 11;
    /// `update_every`.
    pub const UPDATE_EVERY: u8 = 12;
    /// UDP's idle limit.
    pub const UDP_IDLE: u8 = 14;
    /// One nanosecond past UDP's idle limit.
    pub const PAST_UDP_IDLE: u8 = 15;
    /// One nanosecond past TCP's idle limit.
    pub const PAST_TCP_IDLE: u8 = 17;
    /// A day.
    pub const DAY: u8 = 19;
    /// To the latest time that there is.
    pub const TO_THE_END: u8 = 21;
    /// An hour back.
    pub const HOUR_BACK: u8 = 26;
    /// To the epoch.
    pub const TO_THE_START: u8 = 28;
}

/// The time after a step, from 0 to [`MAX_TIME`]. Only the low five bits of `step` count.
pub fn after(time: u64, step: u8, input: &mut Unstructured<'_>) -> u64 {
    let forward = |by: u64| time.saturating_add(by).min(MAX_TIME);
    let back = |by: u64| time.saturating_sub(by);
    match step & 31 {
        step::NONE => time,
        1 => forward(1),
        2 => forward(1000),
        step::MILLISECOND => forward(MILLISECOND),
        step::TEN_MILLISECONDS => forward(10 * MILLISECOND),
        5 => forward(100 * MILLISECOND),
        step::SECOND => forward(SECOND),
        7 => forward(2 * SECOND),
        step::PAST_CLOSE_DELAY => forward(2 * SECOND + 1),
        step::OPEN_AFTER => forward(5 * SECOND),
        step::FRAGMENTS => forward(30 * SECOND),
        step::PAST_FRAGMENTS => forward(30 * SECOND + 1),
        step::UPDATE_EVERY => forward(60 * SECOND),
        13 => forward(75 * SECOND + 1),
        step::UDP_IDLE => forward(120 * SECOND),
        step::PAST_UDP_IDLE => forward(120 * SECOND + 1),
        16 => forward(1200 * SECOND),
        step::PAST_TCP_IDLE => forward(1200 * SECOND + 1),
        18 => forward(3600 * SECOND),
        step::DAY => forward(86_400 * SECOND),
        20 => forward(10 * 31_557_600 * SECOND),
        step::TO_THE_END => MAX_TIME,
        22 => back(1),
        23 => back(MILLISECOND),
        24 => back(SECOND - 1),
        25 => back(SECOND + 1),
        step::HOUR_BACK => back(3600 * SECOND),
        27 => back(10 * 31_557_600 * SECOND),
        step::TO_THE_START => 0,
        // A tick of the timers' wheel, and all of its turn.
        29 => forward(1 << 26),
        30 => forward(1 << 38),
        _ => forward(u64::from(byte(input)) * MILLISECOND),
    }
}
