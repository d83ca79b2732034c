//! How long flows live, how many there may be, and what the table is for.

use super::slab::{Slot, flag};
use crate::packet::protocol;

const SECOND: u64 = 1_000_000_000;

/// How long and how many. Times in nanoseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Allowed flows in all (R26).
    pub max_flows: usize,
    /// Allowed flows of one peer; none: an eighth of `max_flows`, or all of it for a single peer.
    pub max_flows_per_peer: Option<usize>,
    /// TCP is idle after this silence (R17).
    pub tcp_idle: u64,
    /// A SYN that nobody answers (R9).
    pub tcp_opening_idle: u64,
    /// UDP.
    pub udp_idle: u64,
    /// ICMP and ICMPv6.
    pub icmp_idle: u64,
    /// Any other protocol.
    pub other_idle: u64,
    /// TCP stays this long after its end (R8).
    pub close_delay: u64,
    /// A flow that is this old has its open record (R18).
    pub open_after: u64,
    /// A flow with traffic has an update record so often (R19).
    pub update_every: u64,
    /// Datagrams in pieces whose fragments find their flow (R15). One takes about 250 bytes.
    pub max_fragments: usize,
    /// A datagram whose pieces have not come by then never is whole (R15).
    pub fragment_timeout: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_flows: 1_000_000,
            max_flows_per_peer: None,
            tcp_idle: 1200 * SECOND,
            tcp_opening_idle: 75 * SECOND,
            udp_idle: 120 * SECOND,
            icmp_idle: 30 * SECOND,
            other_idle: 120 * SECOND,
            close_delay: 2 * SECOND,
            open_after: 5 * SECOND,
            update_every: 60 * SECOND,
            max_fragments: 4096,
            fragment_timeout: 30 * SECOND,
        }
    }
}

/// A denied flow ends after this silence (R23).
const DENIED_IDLE: u64 = 30 * SECOND;

impl Limits {
    /// How long this flow may be silent.
    pub(super) fn idle(&self, flow: &Slot) -> u64 {
        match flow.protocol() {
            _ if flow.is_denied() => DENIED_IDLE,
            protocol::TCP if flow.is(flag::BEGAN_WITH_SYN) && !flow.is(flag::ANSWERED) => self.tcp_opening_idle,
            protocol::TCP => self.tcp_idle,
            protocol::UDP => self.udp_idle,
            protocol::ICMP | protocol::ICMPV6 => self.icmp_idle,
            _ => self.other_idle,
        }
    }

    /// How many flows one of so many peers may have.
    pub(super) fn flows_per_peer(&self, peers: usize) -> usize {
        let share = if peers <= 1 { self.max_flows } else { self.max_flows / 8 };
        self.max_flows_per_peer.unwrap_or(share).clamp(1, self.max_flows.max(1))
    }

    /// How many datagrams in pieces one of so many peers may have.
    pub(super) fn fragments_per_peer(&self, peers: usize) -> usize {
        if peers <= 1 {
            self.max_fragments
        } else {
            self.max_fragments / 4
        }
    }
}

/// What the table is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Purpose {
    /// Records are wanted.
    pub records: bool,
    /// Open and update records too (R18, R19).
    pub updates: bool,
    /// Openings are announced besides (R18).
    pub openings: bool,
    /// Access rules need to know the open flows, records or not (P4).
    pub rules: bool,
}

impl Purpose {
    pub(super) fn tracks(self) -> bool {
        self.records || self.rules
    }

    pub(super) fn reports(self) -> bool {
        self.records && self.updates
    }
}
