//! Super-packets from the TUN device: looked at once, counted as the segments that travel (R22), sealed one by one.

use bytes::BytesMut;

use super::{Arrival, Checked, GatewayState, Receipt, ToUdp, depart, fill};
use crate::flow::{PacketScope, Side, Timestamp};
use crate::offload::Segmentation;
use crate::offload::split::{segment, segment_len};
use crate::packet::PacketInfo;
use crate::peers::MAX_FILL;
use crate::stats::Drop;

impl GatewayState {
    /// Takes a super-packet from the TUN device, as [`crate::offload::arrived`] found it to be.
    pub fn handle_super_packet(&mut self, now: Timestamp, packet: &[u8], how: &Segmentation) {
        let side = Side::ToPeer;
        let mut scope = PacketScope::begin(&mut self.flows, side, now);
        let checked = Checked::to_peer(&mut scope, &self.peers, &self.policy, parse(packet, how));
        let size = checked.size(packet);
        let (info, place) = match checked.result {
            Ok(passed) => passed,
            Err(stop) => {
                std::mem::drop(scope);
                self.arrived(side, size, Arrival::New);
                // It is no fragment, so it is not held, and this copy is made for a drop alone.
                let packet = BytesMut::from(packet);
                return self.stop(now, side, stop, packet, checked.info, checked.place);
            }
        };
        let first = cut(&mut self.cuttings, packet, how, 0);
        let filled = fill(&self.output, &self.peers, place);
        let Ok(first) = self.peers.seal(now, place, first, filled, &mut self.control) else {
            // Without a session they wait one by one, and are counted when they leave (R21).
            std::mem::drop(scope);
            for index in 0..info.segments as usize {
                let segment = cut(&mut self.cuttings, packet, how, index);
                self.pass_to_peer(now, segment, Arrival::New);
            }
            return self.send_control();
        };
        depart(scope, &mut self.peers, place, first.path);
        self.arrived(side, size, Arrival::New);
        self.stats.side(side).forwarded.join(size);
        let counted = self.flows.take_counted();
        let receipt = |index: usize| {
            let bytes = segment_len(packet.len(), how, index) as u32;
            Receipt::Forwarded {
                side,
                bytes,
                counted: counted.one(bytes, bytes - u32::from(how.headers)),
            }
        };
        self.output.udp.push(ToUdp {
            datagram: first,
            receipt: receipt(0),
        });
        for index in 1..info.segments as usize {
            let segment = cut(&mut self.cuttings, packet, how, index);
            let filled = fill(&self.output, &self.peers, place);
            match self.peers.seal(now, place, segment, filled, &mut self.control) {
                Ok(datagram) => self.output.udp.push(ToUdp {
                    datagram,
                    receipt: receipt(index),
                }),
                // The session ended between two segments: its counter is used up.
                Err(_) => self.not_written(receipt(index)),
            }
        }
        self.send_control();
    }

    /// Counts a read whose header and packet contradict each other.
    pub fn handle_broken_packet(&mut self, len: usize) {
        self.stats.side(Side::ToPeer).received.add(len as u64);
        self.stats.drop_packet(Side::ToPeer, Drop::Malformed, len as u64);
    }
}

/// Memory for segments that are being sealed: one at a time is in use.
pub const CUTTINGS: usize = 64 << 10;

/// A segment, with room to pad.
fn cut(room: &mut BytesMut, packet: &[u8], how: &Segmentation, index: usize) -> BytesMut {
    let len = segment_len(packet.len(), how, index);
    let capacity = len.next_multiple_of(16) + MAX_FILL;
    if room.capacity() < capacity {
        // The pieces before are sealed and gone: this takes the same memory from its start.
        room.reserve(CUTTINGS.max(capacity));
    }
    segment(packet, how, index, room);
    room.resize(capacity, 0);
    let mut piece = room.split();
    piece.truncate(len);
    piece
}

/// What a super-packet is; `None` where its headers say something else than `how`.
fn parse(packet: &[u8], how: &Segmentation) -> Option<PacketInfo> {
    let info = PacketInfo::parse(packet).ok()?;
    let payload = packet.len() - usize::from(how.headers);
    let agrees = info.len as usize == packet.len() && info.payload as usize == payload && info.fragment.is_none();
    agrees.then(|| info.segmented(how.size))
}
