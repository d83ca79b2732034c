//! A packet that could not be written after all: its counts are taken back (R21, scenario 42).
//!
//! Counts alone: what the packet said of the connection's state (flags, history, its time) stays. The batch in which it
//! was counted has not been flushed, so no record that tells of it has left the table: those are put right as well.

use super::fragments::{FragmentId, Settled};
use super::key::Side;
use super::ledger::Untracked;
use super::record::{Counts, EndReason, FlowRecord, Record, Traffic};
use super::reports::udp_state;
use super::slab::flag;
use super::table::FlowTable;
use crate::packet::protocol;

/// The serial number of no flow.
pub(super) const FORGOTTEN: u64 = 0;

/// What was counted for one packet, to be taken back if it could not be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Counted {
    /// Nothing.
    #[default]
    Nothing,
    /// In this flow.
    Flow(InFlow),
    /// As an ICMP error of a flow.
    IcmpError {
        /// The flow's slot.
        slot: u32,
        /// Its serial number: the slot may be another flow's by then.
        serial: u64,
        /// How many records had been made, of any flow.
        made: u64,
        /// ICMP type.
        kind: u8,
        /// ICMP code.
        code: u8,
        /// Which way it went.
        side: Side,
        /// IP bytes.
        bytes: u32,
    },
    /// As a fragment that waits for its datagram's first.
    Waiting {
        /// The datagram.
        id: FragmentId,
        /// Which way it went.
        side: Side,
        /// What was counted.
        counts: Counts,
    },
    /// In no flow.
    Untracked {
        /// Why.
        reason: Untracked,
        /// Which way it went.
        side: Side,
        /// What was counted.
        counts: Counts,
    },
}

impl Counted {
    /// One segment's part of what was counted for a super-packet.
    pub fn one(self, bytes: u32, payload: u32) -> Self {
        let counts = Counts {
            packets: 1,
            bytes: bytes.into(),
            payload: payload.into(),
        };
        match self {
            Counted::Flow(in_flow) => Counted::Flow(InFlow { counts, ..in_flow }),
            Counted::Untracked { reason, side, .. } => Counted::Untracked { reason, side, counts },
            // Neither errors nor fragments come as super-packets.
            other @ (Counted::Nothing | Counted::IcmpError { .. } | Counted::Waiting { .. }) => other,
        }
    }
}

/// What was counted in a flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InFlow {
    /// The flow's slot.
    pub(super) slot: u32,
    /// Its serial number: the slot may be another flow's by then.
    pub(super) serial: u64,
    /// How many records had been made, of any flow.
    pub(super) made: u64,
    /// Whether it was the initiator's packet.
    pub(super) out: bool,
    /// Which way it went.
    pub(super) side: Side,
    pub(super) counts: Counts,
}

impl FlowTable {
    /// The packet was not written after all: its counts are taken back.
    pub fn take_back(&mut self, counted: Counted) {
        match counted {
            Counted::Nothing => {}
            Counted::Flow(place) => {
                self.ledger.side(place.side).forwarded.part(place.counts.tally());
                self.take_back_from_flow(place);
            }
            Counted::IcmpError {
                slot,
                serial,
                made,
                kind,
                code,
                side,
                bytes,
            } => {
                self.ledger.side(side).forwarded.take(bytes.into());
                self.ledger.side(side).icmp_errors.take(bytes.into());
                self.take_back_error(slot, serial, made, (kind, code), bytes);
            }
            Counted::Waiting { id, side, counts } => {
                self.ledger.side(side).forwarded.part(counts.tally());
                self.take_back_fragment(id, side, counts);
            }
            Counted::Untracked { reason, side, counts } => {
                self.ledger.side(side).forwarded.part(counts.tally());
                self.ledger.side(side).untracked[reason as usize].part(counts.tally());
            }
        }
    }

    fn take_back_from_flow(&mut self, place: InFlow) {
        let shrink = |traffic: &mut Traffic| {
            let counts = if place.out { &mut traffic.out } else { &mut traffic.r#in };
            counts.part(place.counts);
        };
        let reported = self.amend(place.serial, place.made, |record, first| {
            shrink(&mut record.total);
            if record.protocol == protocol::UDP {
                record.conn_state = udp_state(record.total);
            }
            if first {
                shrink(&mut record.delta);
            }
        });
        if !self.is_live(place.slot, place.serial) {
            self.ledger.side(place.side).ended.part(place.counts.tally());
            self.forget_if_empty(place.serial);
            return;
        }
        let flow = &mut self.slab[place.slot];
        if reported && !flow.is(flag::CLEAN) {
            shrink(&mut self.slab.with_extra(place.slot).reported);
        }
        let flow = &mut self.slab[place.slot];
        if place.out {
            flow.out.part(place.counts);
        } else {
            self.slab.with_body(place.slot).1.r#in.part(place.counts);
        }
        self.ledger.side(place.side).live.part(place.counts.tally());
        if self.slab.traffic(place.slot) == Traffic::default() {
            // The flow's only packet never left: there was no flow.
            self.openings.retain(|opening| opening.serial != place.serial);
            self.forget_if_empty(place.serial);
            self.end(place.slot, EndReason::Evicted);
            return;
        }
        self.clean_if_told(place.slot);
    }

    /// Once a flow's last record tells everything again, there is nothing to update (R19).
    fn clean_if_told(&mut self, slot: u32) {
        let traffic = self.slab.traffic(slot);
        if !self.slab[slot].is(flag::REPORTED) || self.slab[slot].is(flag::CLEAN) {
            return;
        }
        let told = self.slab.extra(slot).is_some_and(|extra| extra.reported == traffic);
        if told {
            self.slab[slot].flags |= flag::CLEAN;
        }
    }

    fn take_back_error(&mut self, slot: u32, serial: u64, made: u64, kind: (u8, u8), bytes: u32) {
        self.amend(serial, made, |record, _| {
            super::errors::take(&mut record.icmp_errors, kind, bytes)
        });
        if self.is_live(slot, serial) {
            super::errors::take(&mut self.slab.with_extra(slot).icmp_errors, kind, bytes);
        }
    }

    fn take_back_fragment(&mut self, id: FragmentId, side: Side, counts: Counts) {
        if let Some(waiting) = self.fragments.waiting_by_id(id) {
            waiting.part(counts);
            return self.ledger.side(side).pending_fragments.part(counts.tally());
        }
        match self.fragments.settled(id) {
            Some(Settled::Flow {
                slot,
                serial,
                made,
                out,
            }) => self.take_back_from_flow(InFlow {
                slot,
                serial,
                made,
                out,
                side,
                counts,
            }),
            Some(Settled::Untracked) | None => {
                self.ledger.side(side).untracked[Untracked::Fragment as usize].part(counts.tally());
            }
        }
    }

    /// Puts right the records of a flow that have not left yet and were made after so many of all: they tell of what
    /// was counted then. The first of them has it in its delta. Says whether there is any.
    fn amend(&mut self, serial: u64, made: u64, mut put_right: impl FnMut(&mut FlowRecord, bool)) -> bool {
        let mut any = false;
        let before = made.saturating_sub(self.records_drained) as usize;
        for record in self.records.iter_mut().skip(before) {
            if let Record::Flow(flow) = record
                && flow.serial == serial
            {
                put_right(flow, !any);
                any = true;
            }
        }
        any
    }

    /// A flow of which nothing is left never was: its records do not leave, and neither do its openings. Their places
    /// stay, since others know theirs by number.
    fn forget_if_empty(&mut self, serial: u64) {
        let of_flow = |record: &Record| match record {
            Record::Flow(flow) if flow.serial == serial => Some(flow.total),
            Record::Flow(_) | Record::Gap(_) | Record::Note(_) => None,
        };
        // The last one has all that the flow ever had.
        if self.records.iter().rev().find_map(of_flow) != Some(Traffic::default()) {
            return;
        }
        for record in &mut self.records {
            if let Record::Flow(flow) = record
                && flow.serial == serial
            {
                flow.serial = FORGOTTEN;
            }
        }
        self.any_forgotten = true;
        self.openings.retain(|opening| opening.serial != serial);
    }
}
