//! What a TCP segment does to a flow (R6–R10). No table and no clock here: segments in, a decision or a fact out.

use super::history::History;
use super::key::Initiator;
use super::record::{ConnState, EndReason};
use super::slab::{Body, flag};
use crate::packet::{PacketInfo, TcpFlags};

/// Whether a segment for which there is no flow opens one (R6): who began, whether that is known, and whether it is
/// half-open. `None`: it is stray.
pub(super) fn opening(flags: TcpFlags, payload: u32) -> Option<Opening> {
    if flags.0 & (TcpFlags::FIN | TcpFlags::RST) != 0 || flags.0 == 0 {
        return None;
    }
    let opening = |initiator, known, half_open| {
        Some(Opening {
            initiator,
            known,
            half_open,
        })
    };
    match (flags.has(TcpFlags::SYN), flags.has(TcpFlags::ACK)) {
        (true, false) => opening(Initiator::Sender, true, true),
        (true, true) => opening(Initiator::Receiver, true, false),
        (false, _) if payload > 0 => opening(Initiator::Sender, false, false),
        (false, _) => None,
    }
}

/// How a segment opens a flow.
pub(super) struct Opening {
    pub(super) initiator: Initiator,
    pub(super) known: bool,
    /// It is a SYN that waits for its answer (R9).
    pub(super) half_open: bool,
}

/// Whether a SYN on an open flow begins another one (R7). A retransmitted SYN does not, also not after a SYN-ACK
/// that got lost: only what the initiator sent after its SYN shows that the first connection came about. In the close
/// delay any SYN does (R8).
///
/// A SYN from the responder before the initiator moved on is a simultaneous open: the same connection.
pub(super) fn splits(state: u16, segment: TcpFlags) -> bool {
    segment.is_syn() && state & (flag::CLOSING | flag::MOVED_ON) != 0
}

/// The flow's flags after this segment.
pub(super) fn after(state: u16, from_initiator: bool, segment: TcpFlags) -> u16 {
    let mut state = state;
    if from_initiator && !segment.has(TcpFlags::SYN) {
        state |= flag::MOVED_ON;
    }
    if state & flag::CLOSING != 0 {
        return state;
    }
    if segment.has(TcpFlags::FIN) {
        state |= if from_initiator { flag::FIN_OUT } else { flag::FIN_IN };
    }
    if segment.has(TcpFlags::RST) {
        state |= if from_initiator {
            flag::CLOSING_RST_OUT
        } else {
            flag::CLOSING_RST_IN
        };
    } else if state & flag::FIN_OUT != 0 && state & flag::FIN_IN != 0 {
        state |= flag::CLOSING_FIN;
    }
    state
}

/// Why a flow in its close delay ended; `None` outside it.
pub(super) fn end_reason(state: u16) -> Option<EndReason> {
    if state & flag::CLOSING_FIN != 0 {
        return Some(EndReason::Fin);
    }
    (state & flag::CLOSING != 0).then_some(EndReason::Rst)
}

/// How far a connection came, as Zeek's `conn_state` has it.
pub(super) fn conn_state(state: u16, flags_out: u8, flags_in: u8) -> ConnState {
    let has = |flag: u16| state & flag != 0;
    let syn_out = flags_out & TcpFlags::SYN != 0;
    let syn_in = flags_in & TcpFlags::SYN != 0;
    if has(flag::CLOSING_RST_IN) {
        return match (syn_out, syn_in) {
            (true, false) => ConnState::Rej,
            (true, true) => ConnState::Rstr,
            (false, _) => ConnState::Rstrh,
        };
    }
    if has(flag::CLOSING_RST_OUT) {
        return if syn_in { ConnState::Rsto } else { ConnState::Rstos0 };
    }
    match (has(flag::FIN_OUT), has(flag::FIN_IN)) {
        (true, true) => ConnState::Sf,
        (true, false) if syn_in => ConnState::S2,
        (true, false) => ConnState::Sh,
        (false, true) if syn_out => ConnState::S3,
        (false, true) => ConnState::Shr,
        (false, false) if syn_out && !has(flag::ANSWERED) => ConnState::S0,
        (false, false) if syn_out && syn_in => ConnState::S1,
        (false, false) => ConnState::Oth,
    }
}

/// What a segment occupies of the sequence space.
pub(super) fn sequence_length(flags: TcpFlags, payload: u32) -> u32 {
    payload + u32::from(flags.has(TcpFlags::SYN)) + u32::from(flags.has(TcpFlags::FIN))
}

/// What one side would send next, and how far before that the segment begins: it repeats what was sent already where
/// that is not 0. `None` for `next`: this is its first segment.
pub(super) fn sequence(next: Option<u32>, seq: u32, length: u32) -> (u32, u32) {
    let end = seq.wrapping_add(length);
    let Some(next) = next else { return (end, 0) };
    let repeats = length > 0 && (seq.wrapping_sub(next) as i32) < 0;
    let later = (end.wrapping_sub(next) as i32) > 0;
    let behind = if repeats { next.wrapping_sub(seq) } else { 0 };
    (if later { end } else { next }, behind)
}

/// How many segments repeat what was sent already, where a packet begins `behind` what its side would send next (R22).
pub(super) fn repeated(packet: &PacketInfo, behind: u32) -> u32 {
    match packet.segment_size {
        0 => behind.min(1),
        size => behind.div_ceil(size.into()).min(packet.segments),
    }
}

/// The letters of a history that stand once for each side.
const LETTERS: &[u8; 8] = b"SHADFRIQ";

/// The letter of a segment, as its place among [`LETTERS`].
fn letter(flags: TcpFlags, has_payload: bool) -> Option<usize> {
    let (syn, fin, rst) = (
        flags.has(TcpFlags::SYN),
        flags.has(TcpFlags::FIN),
        flags.has(TcpFlags::RST),
    );
    match (syn, fin, rst) {
        (true, false, false) => Some(usize::from(flags.has(TcpFlags::ACK))),
        (false, false, false) if has_payload => Some(3),
        (false, false, false) => flags.has(TcpFlags::ACK).then_some(2),
        (false, true, false) => Some(4),
        (false, false, true) => Some(5),
        (_, true, true) => Some(6),
        (true, true, false) | (true, false, true) => Some(7),
    }
}

/// Adds a segment's letter to the history, where its side has not sent one like it yet.
pub(super) fn note(body: &mut Body, flags: TcpFlags, has_payload: bool, from_initiator: bool) {
    let Some(letter) = letter(flags, has_payload) else {
        return;
    };
    let bit = 1 << (letter + if from_initiator { 0 } else { LETTERS.len() });
    if body.letters & bit == 0 {
        body.letters |= bit;
        body.history.push(LETTERS[letter], from_initiator);
    }
}

/// Counts a retransmission; its letter comes with the 1st, 10th, 100th, ….
pub(super) fn note_retransmission(body: &mut Body, from_initiator: bool) {
    let count = if from_initiator {
        &mut body.retransmits_out
    } else {
        &mut body.retransmits_in
    };
    *count = count.saturating_add(1);
    if 10u32.pow(count.ilog10()) == *count {
        body.history.push(b'T', from_initiator);
    }
}

/// The history of a flow that is one segment.
pub(super) fn history_of_one(flags: TcpFlags, has_payload: bool) -> History {
    let mut history = History::EMPTY;
    if let Some(letter) = letter(flags, has_payload) {
        history.push(LETTERS[letter], true);
    }
    history
}

/// No time.
const NEVER: u64 = u64::MAX;

/// How long either side took to establish the connection. Monotonic nanoseconds.
#[derive(Debug, Clone, Copy)]
pub(super) struct Handshake {
    syn: u64,
    syn_ack: u64,
    syn_to_syn_ack: u64,
    syn_ack_to_ack: u64,
}

impl Handshake {
    pub(super) const NONE: Handshake = Handshake {
        syn: NEVER,
        syn_ack: NEVER,
        syn_to_syn_ack: NEVER,
        syn_ack_to_ack: NEVER,
    };

    /// The initiator's segment. Of SYNs that were sent again the last one counts: it is the one that was answered.
    pub(super) fn initiator_sent(&mut self, flags: TcpFlags, now: u64) {
        if flags.is_syn() {
            self.syn = now;
        }
        let completes = flags.0 & (TcpFlags::SYN | TcpFlags::RST) == 0;
        if completes && self.syn_ack != NEVER && self.syn_ack_to_ack == NEVER {
            self.syn_ack_to_ack = now - self.syn_ack;
        }
    }

    /// The responder's segment.
    pub(super) fn responder_sent(&mut self, flags: TcpFlags, now: u64) {
        if flags.0 & (TcpFlags::SYN | TcpFlags::ACK | TcpFlags::RST | TcpFlags::FIN) != TcpFlags::SYN | TcpFlags::ACK {
            return;
        }
        if self.syn_ack == NEVER && self.syn != NEVER {
            self.syn_to_syn_ack = now - self.syn;
        }
        self.syn_ack = now;
    }

    /// From the SYN to the SYN-ACK.
    pub(super) fn syn_to_syn_ack(&self) -> Option<u64> {
        (self.syn_to_syn_ack != NEVER).then_some(self.syn_to_syn_ack)
    }

    /// From the SYN-ACK to what the initiator sent then.
    pub(super) fn syn_ack_to_ack(&self) -> Option<u64> {
        (self.syn_ack_to_ack != NEVER).then_some(self.syn_ack_to_ack)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// R10: sequence numbers wrap.
    #[test]
    fn a_retransmission_is_told_from_new_data_across_the_wrap() {
        let (next, behind) = sequence(None, u32::MAX - 9, 10);
        assert_eq!((next, behind), (0, 0));
        assert_eq!(sequence(Some(0), 0, 5), (5, 0), "new data behind the wrap");
        assert_eq!(
            sequence(Some(5), u32::MAX - 9, 10),
            (5, 15),
            "sent again from before it"
        );
        assert_eq!(sequence(Some(5), 5, 0), (5, 0), "a bare ACK repeats nothing");
        assert_eq!(sequence(Some(5), 3, 10), (13, 2), "in part");
    }
}
