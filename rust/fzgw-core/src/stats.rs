//! Counters of the gateway: every drop has a typed reason (ledger L1), every packet of its own is counted.

use crate::flow::{FlowLedger, Side, Tally};

/// Declares the reasons of one kind: the enum, their order and their words, in one place.
macro_rules! reasons {
    ($(#[$doc:meta])* $name:ident { $($(#[$variant_doc:meta])* $variant:ident = $word:literal,)* }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum $name { $($(#[$variant_doc])* $variant,)* }

        impl $name {
            /// All, in the order of arrays indexed by it.
            pub const ALL: &'static [$name] = &[$($name::$variant,)*];

            /// The word of the ledgers.
            pub fn as_str(self) -> &'static str {
                match self { $($name::$variant => $word,)* }
            }
        }
    };
}

reasons! {
    /// Why an inner packet was not passed on.
    Drop {
        /// Its lengths are not what its bytes are (scenario 40).
        Malformed = "malformed",
        /// Its source is not the peer's (R2).
        Spoofed = "spoofed",
        /// No peer has its destination.
        NoPeer = "no_peer",
        /// Its peer had no session in time, or too many waited (R21).
        NoSession = "no_session",
        /// Access rules (R23).
        Denied = "denied",
        /// An ICMP redirect (R13).
        Redirect = "redirect",
        /// A later fragment where access rules need its ports (R15).
        Fragment = "fragment",
        /// It met congestion in the tunnel, and its transport does not know ECN (RFC 6040).
        Ecn = "ecn",
        /// It could not be written (scenario 42).
        Write = "write",
    }
}

reasons! {
    /// Why an outer datagram came to nothing.
    DatagramDrop {
        /// Not WireGuard, by type or length.
        Malformed = "malformed",
        /// The first message authentication code is wrong: answered with silence.
        InvalidMac = "invalid_mac",
        /// A handshake with a key that is no peer's.
        UnknownPeer = "unknown_peer",
        /// No session or handshake has this receiver index.
        UnknownIndex = "unknown_index",
        /// It did not decrypt.
        Unauthentic = "unauthentic",
        /// Seen before, or older than the replay window.
        Replayed = "replayed",
        /// An unknown initiator under load: answered with a cookie.
        Cookie = "cookie",
        /// More under load than cookies are made for.
        Flood = "flood",
        /// The protocol did not expect it now.
        Unexpected = "unexpected",
        /// It could not be sent.
        Send = "send",
    }
}

reasons! {
    /// Packets that the gateway makes itself.
    Originated {
        /// ICMP administratively prohibited, into the tunnel (R23).
        ProhibitedToPeer = "prohibited_to_peer",
        /// The same, out of the TUN device, to somebody outside.
        ProhibitedToOutside = "prohibited_to_outside",
    }
}

/// Ledger L1 of one side: `received = forwarded + waiting + Σ dropped`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SideStats {
    /// Packets that came.
    pub received: Tally,
    /// Packets that went.
    pub forwarded: Tally,
    /// Packets that wait for a session.
    pub waiting: Tally,
    /// By [`Drop`].
    pub dropped: [Tally; Drop::ALL.len()],
}

impl SideStats {
    /// Whether the equality holds.
    pub fn balanced(&self) -> bool {
        let mut sum = self.forwarded;
        sum.join(self.waiting);
        for dropped in self.dropped {
            sum.join(dropped);
        }
        sum == self.received
    }
}

/// Datagrams on the UDP port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct DatagramStats {
    /// Datagrams that came.
    pub received: u64,
    /// Datagrams that were sent.
    pub sent: u64,
    /// By [`DatagramDrop`].
    pub dropped: [u64; DatagramDrop::ALL.len()],
}

/// What a gateway has counted since its start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Stats {
    /// By [`Side`].
    pub sides: [SideStats; 2],
    /// The UDP port.
    pub datagrams: DatagramStats,
    /// By [`Originated`].
    pub originated: [u64; Originated::ALL.len()],
    /// Denied while there was no table to hold denied flows.
    pub denied_untracked: u64,
}

impl Stats {
    /// One side, to write.
    pub fn side(&mut self, side: Side) -> &mut SideStats {
        &mut self.sides[side as usize]
    }

    /// Counts a packet that is not passed on.
    pub fn drop_packet(&mut self, side: Side, reason: Drop, bytes: u64) {
        self.side(side).dropped[reason as usize].add(bytes);
    }

    /// Counts a datagram that came to nothing.
    pub fn drop_datagram(&mut self, reason: DatagramDrop) {
        self.datagrams.dropped[reason as usize] += 1;
    }
}

/// One peer's tunnel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerStats {
    /// Its name.
    pub name: String,
    /// Its public key, base64.
    pub public_key: String,
    /// Where it is.
    pub endpoint: Option<std::net::SocketAddr>,
    /// Nanoseconds since the last handshake.
    pub last_handshake_age: Option<u64>,
    /// Bytes of datagrams from it.
    pub rx_bytes: u64,
    /// Bytes of datagrams to it.
    pub tx_bytes: u64,
}

/// Everything at one quiet moment between two batches.
#[derive(Debug, Clone)]
pub struct Snapshot {
    /// Packets and datagrams.
    pub stats: Stats,
    /// Flows.
    pub flows: FlowLedger,
    /// Records made, handed to Python, and lost for a full queue.
    pub records: RecordStats,
    /// Tunnels.
    pub peers: Vec<PeerStats>,
    /// Whether flows were counted all the time, so that L2 speaks of every packet.
    pub tracks: bool,
    /// Why the gateway ended by itself.
    pub failure: Option<String>,
}

/// Ledger L3, as far as the engine knows it: `made = handed + waiting + lost`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RecordStats {
    /// Flow records made.
    pub made: u64,
    /// Flow records put on the queue to Python.
    pub handed: u64,
    /// Flow records that the full queue could not take: each is in a gap record.
    pub lost: u64,
    /// Openings that the full queue could not take (`handler_missed`).
    pub openings_lost: u64,
}

impl Snapshot {
    /// Whether ledgers L1, L2, L2b and L3 hold.
    pub fn balanced(&self) -> bool {
        let denied: u64 = self
            .stats
            .sides
            .iter()
            .map(|side| side.dropped[Drop::Denied as usize].packets)
            .sum();
        self.stats.sides.iter().all(SideStats::balanced)
            && self.flows.sides.iter().all(|side| side.balanced())
            && denied == self.flows.attempts.packets + self.stats.denied_untracked
            && self.records.made == self.records.handed + self.records.lost
            && (!self.tracks || self.forwarded_agree())
    }

    fn forwarded_agree(&self) -> bool {
        self.stats
            .sides
            .iter()
            .zip(&self.flows.sides)
            .all(|(packets, flows)| packets.forwarded == flows.forwarded)
    }
}
