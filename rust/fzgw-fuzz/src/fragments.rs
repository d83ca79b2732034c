//! Fragments in any order, of few datagrams, through a fragment table that is too small (R15).

use arbitrary::Unstructured;
use fzgw_core::flow::{PeerId, Side, Verdict};
use fzgw_core::packet::protocol;

use crate::lab;
use crate::make::{self, Piece};
use crate::script::{self, byte};
use crate::table::{Lab, Way};

/// What a step does: the low three bits of its first byte. Then come two bits of the identification, and one each for
/// IPv6, the side and the peer. A second byte follows.
pub mod op {
    /// A later fragment; payload length.
    pub const LATER: u8 = 0;
    /// A first fragment of UDP; payload length.
    pub const FIRST_UDP: u8 = 1;
    /// A first fragment of TCP; flags. Without SYN and payload it opens nothing (R6).
    pub const FIRST_TCP: u8 = 2;
    /// A later fragment of TCP; payload length.
    pub const LATER_TCP: u8 = 3;
    /// A first fragment that is too short for its ports; payload length, of which three bits count.
    pub const FIRST_SHORT: u8 = 4;
    /// A first fragment that rules deny; payload length. With the highest bit a later one.
    pub const DENIED: u8 = 5;
    /// The same tuple in one piece: flags of TCP.
    pub const WHOLE: u8 = 6;
    /// See [`super::control`].
    pub const CONTROL: u8 = 7;
    /// IPv6.
    pub const V6: u8 = 0x20;
    /// The other side.
    pub const TO_PEER: u8 = 0x40;
    /// The other peer.
    pub const OTHER_PEER: u8 = 0x80;
}

/// What [`op::CONTROL`] does, in place of the identification.
pub mod control {
    /// Time goes on: a step.
    pub const WAIT: u8 = 0;
    /// The batch ends: which packets fail.
    pub const FLUSH: u8 = 1 << 3;
    /// New limits: one byte, and the next.
    pub const CONFIGURE: u8 = 2 << 3;
    /// The peer leaves.
    pub const REMOVE: u8 = 3 << 3;
}

/// Two bytes of limits, then steps.
pub fn run(data: &[u8]) {
    let input = &mut Unstructured::new(data);
    let limits = lab::limits(byte(input), byte(input));
    let Some(mut lab) = Lab::new(limits, 2) else { return };
    while !input.is_empty() {
        let (what, value) = (byte(input), byte(input));
        let to_peer = what & op::TO_PEER != 0;
        let other = what & op::OTHER_PEER != 0;
        let way = Way {
            peer: PeerId(other.into()),
            side: if to_peer { Side::ToPeer } else { Side::FromPeer },
            path: 0,
            verdict: if what & 7 == op::DENIED {
                Verdict::Deny
            } else {
                Verdict::Allow
            },
        };
        let near = script::ends(u8::from(other), what & op::V6 != 0);
        let ends = if to_peer { near.turned() } else { near };
        let first = Piece {
            identification: (what >> 3 & 3).into(),
            offset: 0,
            more: true,
        };
        let later = Piece {
            offset: 1,
            more: value & 1 == 0,
            ..first
        };
        let length = usize::from(value);
        let packet = match what & 7 {
            op::LATER => make::fragment(ends, protocol::UDP, later, &vec![0; length]),
            op::LATER_TCP => make::fragment(ends, protocol::TCP, later, &vec![0; length]),
            op::FIRST_UDP => make::fragment(ends, protocol::UDP, first, &make::udp_body(ends, length)),
            op::FIRST_TCP => make::fragment(ends, protocol::TCP, first, &make::tcp_body(ends, value, 0, 0)),
            op::FIRST_SHORT => make::fragment(ends, protocol::UDP, first, &vec![0; length & 7]),
            op::DENIED if value & 0x80 != 0 => make::fragment(ends, protocol::UDP, later, &vec![0; length & 0x7f]),
            op::DENIED => make::fragment(ends, protocol::UDP, first, &make::udp_body(ends, length)),
            op::WHOLE => make::tcp(ends, value, 0, 1),
            _ => {
                match what & 0x18 {
                    control::WAIT => {
                        let time = script::after(lab.wall(), value, input);
                        lab.wait(time);
                    }
                    control::FLUSH => lab.flush(value),
                    control::CONFIGURE => lab.configure(lab::limits(value, byte(input)), 1 + usize::from(other)),
                    _ => lab.remove_peer(way.peer),
                }
                continue;
            }
        };
        lab.pass(way, &packet);
    }
    lab.shut_down();
}
