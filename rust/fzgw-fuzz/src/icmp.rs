//! ICMP and ICMPv6 errors about anything, through the flow table (R13).

use arbitrary::Unstructured;
use fzgw_core::flow::{PeerId, Side, Verdict};
use fzgw_core::packet::PacketInfo;

use crate::lab;
use crate::make::{self, Ends};
use crate::script::{self, byte, raw};
use crate::table::{Lab, Way};

/// What a step does: the low three bits of its byte. Then come two bits of the peer, one that turns the side, and two of
/// the outer path.
pub mod op {
    /// A packet of the script.
    pub const PACKET: u8 = 0;
    /// A packet of the script that rules deny.
    pub const DENIED: u8 = 1;
    /// An error about one of the last packets: how many before the last, type, code, bytes of the quote.
    pub const ABOUT: u8 = 2;
    /// The same with three bytes of the quote overwritten: where and what as well.
    pub const ABOUT_BROKEN: u8 = 3;
    /// Time goes on: a step.
    pub const WAIT: u8 = 4;
    /// The batch ends: which packets fail.
    pub const FLUSH: u8 = 5;
    /// New limits: two bytes.
    pub const CONFIGURE: u8 = 6;
    /// The peer leaves.
    pub const REMOVE: u8 = 7;
    /// The other side.
    pub const TO_PEER: u8 = 0x20;
}

/// Packets that errors may be about.
const REMEMBERED: usize = 8;

/// Two bytes of limits, then steps.
pub fn run(data: &[u8]) {
    let input = &mut Unstructured::new(data);
    let limits = lab::limits(byte(input), byte(input));
    let Some(mut lab) = Lab::new(limits, 2) else { return };
    let mut sent: Vec<(Ends, Vec<u8>)> = Vec::new();
    while !input.is_empty() {
        let what = byte(input);
        let peer = PeerId((what >> 3 & 3).into());
        let side = if what & op::TO_PEER == 0 {
            Side::FromPeer
        } else {
            Side::ToPeer
        };
        let mut way = Way {
            peer,
            side,
            path: usize::from(what >> 6),
            verdict: Verdict::Allow,
        };
        match what & 7 {
            op::PACKET | op::DENIED => {
                if what & 7 == op::DENIED {
                    way.verdict = Verdict::Deny;
                }
                let packet = script::packet(input);
                lab.pass(way, &packet);
                let Some(ends) = ends_of(&packet) else { continue };
                if sent.len() == REMEMBERED {
                    sent.remove(0);
                }
                sent.push((ends, packet));
            }
            op::ABOUT | op::ABOUT_BROKEN => {
                let back = usize::from(byte(input)) % REMEMBERED;
                let (kind, code, len) = (byte(input), byte(input), usize::from(byte(input)));
                let Some((ends, packet)) = sent.iter().rev().nth(back) else {
                    continue;
                };
                let mut quote = packet[..packet.len().min(len)].to_vec();
                if what & 7 == op::ABOUT_BROKEN {
                    let at = usize::from(byte(input));
                    for (to, from) in quote.iter_mut().skip(at).zip(raw(input, 3)) {
                        *to = *from;
                    }
                }
                lab.pass(way, &make::icmp(ends.turned(), kind, code, &quote));
            }
            op::WAIT => {
                let time = script::after(lab.wall(), byte(input), input);
                lab.wait(time);
            }
            op::FLUSH => lab.flush(byte(input)),
            op::CONFIGURE => lab.configure(lab::limits(byte(input), byte(input)), 1 + usize::from(what >> 3 & 3)),
            _ => lab.remove_peer(peer),
        }
    }
    lab.shut_down();
}

/// The ends that a packet shows.
fn ends_of(packet: &[u8]) -> Option<Ends> {
    let info = PacketInfo::parse(packet).ok()?;
    Some(Ends {
        src: info.src,
        dst: info.dst,
        src_port: 0,
        dst_port: 0,
    })
}
