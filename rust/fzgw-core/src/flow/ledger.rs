//! The books of the flow engine: ledger L2 and L2b, in packets and bytes, per side.

use super::key::Side;
use crate::packet::PacketInfo;

/// Packets and IP bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Tally {
    /// Packets.
    pub packets: u64,
    /// IP bytes.
    pub bytes: u64,
}

impl Tally {
    /// One packet more.
    pub fn add(&mut self, bytes: u64) {
        self.packets += 1;
        self.bytes += bytes;
    }

    /// A packet more, as the segments that travel.
    pub(super) fn count(&mut self, packet: &PacketInfo) {
        self.packets += u64::from(packet.segments);
        self.bytes += u64::from(packet.len);
    }

    /// One packet less.
    pub fn take(&mut self, bytes: u64) {
        self.packets -= 1;
        self.bytes -= bytes;
    }

    /// All of `other` more.
    pub fn join(&mut self, other: Tally) {
        self.packets += other.packets;
        self.bytes += other.bytes;
    }

    /// All of `other` less.
    pub fn part(&mut self, other: Tally) {
        self.packets -= other.packets;
        self.bytes -= other.bytes;
    }
}

/// Why a packet that was passed on belongs to no flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Untracked {
    /// TCP that opens nothing: late ACKs, FINs, RSTs (R6).
    Stray,
    /// An ICMP error that matches no flow (R13).
    IcmpError,
    /// A later fragment whose first never came, or whose flow is over (R15).
    Fragment,
}

impl Untracked {
    /// All, in the order of arrays indexed by `Untracked as usize`.
    pub const ALL: [Untracked; 3] = [Untracked::Stray, Untracked::IcmpError, Untracked::Fragment];

    /// The word of the ledgers.
    pub fn as_str(self) -> &'static str {
        match self {
            Untracked::Stray => "stray",
            Untracked::IcmpError => "icmp_error",
            Untracked::Fragment => "fragment",
        }
    }
}

/// One side of ledger L2: `forwarded = ended + live + icmp_errors + pending_fragments + Σ untracked`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SideLedger {
    /// What the flow engine was told was passed on.
    pub forwarded: Tally,
    /// In flows that have ended.
    pub ended: Tally,
    /// In flows that go on.
    pub live: Tally,
    /// ICMP errors that belong to a flow.
    pub icmp_errors: Tally,
    /// Fragments that wait for their first (R15).
    pub pending_fragments: Tally,
    /// By [`Untracked`].
    pub untracked: [Tally; Untracked::ALL.len()],
}

impl SideLedger {
    /// Whether the equality holds.
    pub fn balanced(&self) -> bool {
        let mut sum = self.ended;
        sum.join(self.live);
        sum.join(self.icmp_errors);
        sum.join(self.pending_fragments);
        for untracked in self.untracked {
            sum.join(untracked);
        }
        sum == self.forwarded
    }
}

/// Ledgers L2 and L2b.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct FlowLedger {
    /// By [`Side`].
    pub sides: [SideLedger; 2],
    /// Attempts of denied flows, live and ended (L2b).
    pub attempts: Tally,
    /// Live flows, denied ones too.
    pub live_flows: u64,
    /// Live denied flows.
    pub live_denied: u64,
    /// Flows opened since the start, denied ones too.
    pub opened_flows: u64,
}

impl FlowLedger {
    /// One side, to write.
    pub fn side(&mut self, side: Side) -> &mut SideLedger {
        &mut self.sides[side as usize]
    }
}
