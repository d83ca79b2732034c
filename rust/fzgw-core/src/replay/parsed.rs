//! What reading a frame comes to, on its way from the thread that reads to the one that counts.

use super::legs::Mark;
use crate::capture::{Frame, NotIp, ip_packet};
use crate::packet::{PacketInfo, Unreadable};

/// What is known of one frame: all that the engine needs.
#[derive(Debug, Clone)]
pub struct Parsed {
    /// Nanoseconds since the Unix epoch.
    pub time: u64,
    pub(super) content: Content,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Content {
    Packet(PacketInfo),
    /// A packet whose bytes are not what its headers say, of this length.
    Malformed(u64),
    NotIp(NotIp),
}

impl Parsed {
    /// Parses a frame, and gives what tells a packet's legs apart where that is asked for.
    pub fn of(frame: &Frame<'_>, wants_mark: bool) -> (Self, Option<Mark>) {
        let mut mark = None;
        let content = match ip_packet(frame) {
            Ok(ip) => {
                if wants_mark {
                    mark = Some(Mark::of(ip.bytes));
                }
                match PacketInfo::parse_captured(ip.bytes, ip.wire_len) {
                    Ok(info) => Content::Packet(info),
                    Err(Unreadable::Cut) => Content::NotIp(NotIp::Cut),
                    Err(Unreadable::Malformed) => Content::Malformed(ip.wire_len as u64),
                }
            }
            Err(reason) => Content::NotIp(reason),
        };
        let time = frame.time;
        (Self { time, content }, mark)
    }
}
