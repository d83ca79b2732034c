//! What a TCP segment does to a flow (R6–R9). No table and no clock here: flags in, a decision out.

use super::key::Initiator;
use super::record::EndReason;
use super::slab::flag;
use crate::packet::TcpFlags;

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
pub(super) fn splits(state: u16, from_initiator: bool, segment: TcpFlags) -> bool {
    if !segment.is_syn() {
        return false;
    }
    if state & flag::CLOSING != 0 {
        return true;
    }
    // A SYN from the responder before the initiator moved on is a simultaneous open: the same connection.
    let moved_on = state & flag::MOVED_ON != 0;
    let mid_stream = state & flag::INITIATOR_KNOWN == 0;
    moved_on || (mid_stream && !from_initiator)
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
        state |= flag::CLOSING_RST;
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
    (state & flag::CLOSING_RST != 0).then_some(EndReason::Rst)
}
