//! What the segments of a TCP flow tell (R7, R8, R10), by going through them from the first.

use super::super::record::{ConnState, History, TcpRecord};
use super::Event;
use crate::packet::{PacketInfo, TcpFlags, Transport};

#[derive(Clone, Copy)]
pub(super) struct Segment {
    pub(super) flags: TcpFlags,
    seq: u32,
    pub(super) payload: u32,
    /// How many travel, and how far apart they begin (R22).
    pieces: u32,
    apart: u32,
}

impl Segment {
    pub(super) fn of(packet: &PacketInfo) -> Option<Self> {
        match packet.transport {
            Transport::Tcp { flags, seq, .. } => Some(Self {
                flags,
                seq,
                payload: packet.payload,
                pieces: packet.segments,
                apart: packet.segment_size.into(),
            }),
            _ => None,
        }
    }

    pub(super) fn has(&self, flag: u8) -> bool {
        self.flags.has(flag)
    }

    /// Whether of SYN, FIN and RST this one is set and no other.
    fn is_alone(&self, flag: u8) -> bool {
        self.flags.0 & (TcpFlags::SYN | TcpFlags::FIN | TcpFlags::RST) == flag
    }

    pub(super) fn is_syn(&self) -> bool {
        self.is_alone(TcpFlags::SYN) && !self.has(TcpFlags::ACK)
    }

    fn is_syn_ack(&self) -> bool {
        self.is_alone(TcpFlags::SYN) && self.has(TcpFlags::ACK)
    }

    /// What it occupies of the sequence space.
    fn length(&self) -> u32 {
        self.payload + u32::from(self.has(TcpFlags::SYN)) + u32::from(self.has(TcpFlags::FIN))
    }

    /// Its letter in the history, in upper case.
    fn letter(&self) -> Option<char> {
        let (syn, fin, rst) = (
            self.has(TcpFlags::SYN),
            self.has(TcpFlags::FIN),
            self.has(TcpFlags::RST),
        );
        match (syn, fin, rst) {
            (true, false, false) if self.has(TcpFlags::ACK) => Some('H'),
            (true, false, false) => Some('S'),
            (false, true, false) => Some('F'),
            (false, false, true) => Some('R'),
            (_, true, true) => Some('I'),
            (true, _, _) => Some('Q'),
            (false, false, false) if self.payload > 0 => Some('D'),
            (false, false, false) => self.has(TcpFlags::ACK).then_some('A'),
        }
    }
}

/// The segments of one end, with the place of each in the list of events.
pub(super) fn from(events: &[Event], initiator: bool) -> impl Iterator<Item = (usize, Segment)> + Clone {
    let events = events.iter().enumerate();
    events.filter_map(move |(place, event)| Some((place, event.segment.filter(|_| event.from_initiator == initiator)?)))
}

/// How the close delay began (R8).
pub(super) struct Close {
    /// The place of the closing segment.
    place: usize,
    pub(super) by_reset: bool,
}

/// The segment that closes a flow, once it has come.
pub(super) fn close(events: &[Event]) -> Option<Close> {
    let (mut fin_out, mut fin_in) = (false, false);
    for (place, event) in events.iter().enumerate() {
        let Some(segment) = event.segment else { continue };
        if segment.has(TcpFlags::RST) {
            return Some(Close { place, by_reset: true });
        }
        if segment.has(TcpFlags::FIN) {
            let fin = if event.from_initiator {
                &mut fin_out
            } else {
                &mut fin_in
            };
            *fin = true;
        }
        if fin_out && fin_in {
            return Some(Close { place, by_reset: false });
        }
    }
    None
}

pub(super) fn tcp_conn_state(events: &[Event]) -> ConnState {
    let (initiator, responder) = (true, false);
    // What comes in the close delay ends nothing any more.
    let until_close = &events[..close(events).map_or(events.len(), |close| close.place + 1)];
    let has = |events, who, flag| from(events, who).any(|(_, segment)| segment.has(flag));
    let syn = |who| has(events, who, TcpFlags::SYN);
    let fin = |who| has(until_close, who, TcpFlags::FIN);
    let rst = |who| has(until_close, who, TcpFlags::RST);
    let answered = events.iter().any(|event| !event.from_initiator);
    if rst(responder) {
        return match (syn(initiator), syn(responder)) {
            (true, false) => ConnState::Rej,
            (true, true) => ConnState::Rstr,
            (false, _) => ConnState::Rstrh,
        };
    }
    if rst(initiator) {
        return if syn(responder) {
            ConnState::Rsto
        } else {
            ConnState::Rstos0
        };
    }
    match (fin(initiator), fin(responder)) {
        (true, true) => ConnState::Sf,
        (true, false) => {
            if syn(responder) {
                ConnState::S2
            } else {
                ConnState::Sh
            }
        }
        (false, true) => {
            if syn(initiator) {
                ConnState::S3
            } else {
                ConnState::Shr
            }
        }
        (false, false) => match (syn(initiator), syn(responder)) {
            (true, _) if !answered => ConnState::S0,
            (true, true) => ConnState::S1,
            (_, _) => ConnState::Oth,
        },
    }
}

pub(super) fn tcp_record(events: &[Event]) -> TcpRecord {
    let (initiator, responder) = (true, false);
    let flags = |who| from(events, who).fold(0, |flags, (_, segment)| flags | segment.flags.0);
    TcpRecord {
        history: History::from(history(events).as_str()),
        flags_out: flags(initiator),
        flags_in: flags(responder),
        syn_to_syn_ack: syn_to_syn_ack(events),
        syn_ack_to_ack: syn_ack_to_ack(events),
        retransmits_out: retransmissions(events, initiator).len() as u32,
        retransmits_in: retransmissions(events, responder).len() as u32,
    }
}

/// The places of one end's segments that begin before what it had sent already: of a super-packet, once for each of
/// its pieces.
fn retransmissions(events: &[Event], who: bool) -> Vec<usize> {
    let mut places = Vec::new();
    let mut next: Option<u32> = None;
    for (place, segment) in from(events, who).filter(|(_, segment)| !segment.has(TcpFlags::RST)) {
        let end = segment.seq.wrapping_add(segment.length());
        let before = |one: u32, other: u32| (one.wrapping_sub(other) as i32) < 0;
        match next {
            None => next = Some(end),
            Some(sent) => {
                let starts = (0..segment.pieces).map(|piece| segment.seq.wrapping_add(piece * segment.apart));
                let again = starts.filter(|start| segment.length() > 0 && before(*start, sent));
                places.extend(again.map(|_| place));
                if before(sent, end) {
                    next = Some(end);
                }
            }
        }
    }
    places
}

fn history(events: &[Event]) -> String {
    let mut history = String::new();
    let again = [retransmissions(events, false), retransmissions(events, true)];
    for (place, event) in events.iter().enumerate() {
        let Some(segment) = event.segment else { continue };
        let case = |letter: char| {
            if event.from_initiator {
                letter
            } else {
                letter.to_ascii_lowercase()
            }
        };
        if let Some(letter) = segment.letter().map(case)
            && !history.contains(letter)
        {
            history.push(letter);
        }
        let all = again[usize::from(event.from_initiator)].iter().enumerate();
        for (before, _) in all.filter(|(_, other)| **other == place) {
            if [1, 10, 100, 1_000, 10_000].contains(&(before + 1)) {
                history.push(case('T'));
            }
        }
    }
    history
}

/// The time of an event on the monotonic clock.
fn at(events: &[Event], place: usize) -> u64 {
    events[place].at.mono
}

fn syn_to_syn_ack(events: &[Event]) -> Option<u64> {
    let (syn_ack, _) = from(events, false).find(|(_, segment)| segment.is_syn_ack())?;
    let (syn, _) = from(&events[..syn_ack], true)
        .filter(|(_, segment)| segment.is_syn())
        .last()?;
    Some(at(events, syn_ack) - at(events, syn))
}

fn syn_ack_to_ack(events: &[Event]) -> Option<u64> {
    let mut syn_acks = from(events, false).filter(|(_, segment)| segment.is_syn_ack());
    let (first, _) = syn_acks.clone().next()?;
    let goes_on = |segment: &Segment| !segment.has(TcpFlags::SYN) && !segment.has(TcpFlags::RST);
    let (ack, _) = from(events, true).find(|(place, segment)| *place > first && goes_on(segment))?;
    let (last, _) = syn_acks.by_ref().take_while(|(place, _)| *place < ack).last()?;
    Some(at(events, ack) - at(events, last))
}
