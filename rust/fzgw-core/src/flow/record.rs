//! What leaves the engine: flow records, notes and gaps, and the words in them.
//!
//! A record holds ids of peers, rules and resources; the [`Directory`] of its batch gives them their names, so that
//! a flow costs no reference counting while it lives.

use std::net::{IpAddr, SocketAddr};

/// An opaque number of a peer, never reused while the process runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PeerId(pub u32);

/// An interned name of a rule or resource: an index into [`Directory::names`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct NameId(pub u32);

/// One moment on both clocks, taken once per batch by the worker and passed down.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Timestamp {
    /// Nanoseconds of the monotonic clock since the engine started: durations and limits come from it.
    pub mono: u64,
    /// Nanoseconds since the Unix epoch: what records show.
    pub wall: u64,
}

/// Packets, IP bytes and payload bytes (above TCP or UDP) of one direction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    /// Inner IP packets.
    pub packets: u64,
    /// Inner IP bytes, headers included (R20).
    pub bytes: u64,
    /// Bytes above the TCP or UDP header.
    pub payload: u64,
}

/// Counts of both directions: out is initiator to responder.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Traffic {
    /// Initiator to responder.
    pub out: Counts,
    /// Responder to initiator.
    pub r#in: Counts,
}

/// Which of a flow's records this is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Activity {
    /// The flow began.
    Open,
    /// The flow goes on.
    Update,
    /// The flow ended.
    Close,
}

impl Activity {
    /// The word of the records.
    pub fn as_str(self) -> &'static str {
        match self {
            Activity::Open => "open",
            Activity::Update => "update",
            Activity::Close => "close",
        }
    }
}

/// Who opened the flow, seen from the gateway.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// The peer opened it.
    Outbound,
    /// Somebody outside opened it towards the peer.
    Inbound,
}

impl Direction {
    /// The word of the records.
    pub fn as_str(self) -> &'static str {
        match self {
            Direction::Outbound => "outbound",
            Direction::Inbound => "inbound",
        }
    }
}

/// Whether access rules let the flow through.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Verdict {
    /// Its packets are passed on.
    Allow,
    /// Its packets are dropped and counted as attempts (R23).
    Deny,
}

impl Verdict {
    /// The word of the records.
    pub fn as_str(self) -> &'static str {
        match self {
            Verdict::Allow => "allow",
            Verdict::Deny => "deny",
        }
    }
}

/// What access rules say of a flow, and what the configuration calls its responder.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Standing {
    /// Whether its packets pass.
    pub verdict: Verdict,
    /// The rule that decided; none where there are no rules.
    pub rule: Option<NameId>,
    /// The resource that the responder belongs to.
    pub resource: Option<NameId>,
    /// The domain that the configuration gives to that resource.
    pub domain: Option<NameId>,
}

/// Why a flow ended, after IPFIX element 136 with finer words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EndReason {
    /// FIN in both directions (R8).
    Fin,
    /// An RST (R8).
    Rst,
    /// Silent for longer than its limit (R9, R17).
    Idle,
    /// A hard ICMP error for a flow that never had an answer (R13).
    IcmpUnreachable,
    /// A new SYN on the same tuple (R7).
    Reused,
    /// The table was full (R26).
    Evicted,
    /// Its peer left the configuration.
    PeerRemoved,
    /// The gateway stopped (R27).
    Shutdown,
}

impl EndReason {
    /// The word of the records.
    pub fn as_str(self) -> &'static str {
        match self {
            EndReason::Fin => "fin",
            EndReason::Rst => "rst",
            EndReason::Idle => "idle",
            EndReason::IcmpUnreachable => "icmp_unreachable",
            EndReason::Reused => "reused",
            EndReason::Evicted => "evicted",
            EndReason::PeerRemoved => "peer_removed",
            EndReason::Shutdown => "shutdown",
        }
    }
}

/// The outer path of a tunnel: the two ends of its datagrams.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct OuterPath {
    /// The peer's endpoint.
    pub remote: SocketAddr,
    /// The gateway's address and port that the datagrams are sent to.
    pub local: SocketAddr,
}

/// A path and when the flow first used it (R24).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PathSeen {
    /// The path.
    pub path: OuterPath,
    /// Wall clock nanoseconds of the flow's first packet on it.
    pub since: u64,
}

/// One record of one flow.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FlowRecord {
    /// The serial number of the flow in this boot; with the boot id it makes the uid.
    pub serial: u64,
    /// Which record of the flow this is.
    pub activity: Activity,
    /// The record's number within the flow, from 1.
    pub number: u32,
    /// The peer, *who*.
    pub peer: PeerId,
    /// The IP protocol number.
    pub protocol: u8,
    /// The initiator's inner address; unspecified where denials were joined (R23).
    pub src_ip: IpAddr,
    /// The initiator's port, the ICMP identifier, or 0.
    pub src_port: u16,
    /// The responder's inner address; unspecified where denials were joined (R23).
    pub dst_ip: IpAddr,
    /// The responder's port, or 0.
    pub dst_port: u16,
    /// The ICMP type and code of an echo or query flow.
    pub icmp: Option<(u8, u8)>,
    /// False where the flow was met in the middle (R3).
    pub initiator_known: bool,
    /// Which side opened it.
    pub direction: Direction,
    /// Whether its packets pass.
    pub verdict: Verdict,
    /// The rule that decided; none where there are no rules.
    pub rule: Option<NameId>,
    /// The resource that the responder belongs to.
    pub resource: Option<NameId>,
    /// The domain that the configuration gives to that resource.
    pub domain: Option<NameId>,
    /// Wall clock nanoseconds of the first packet.
    pub start: u64,
    /// `start` plus the monotonic time to the last packet (R16).
    pub end: u64,
    /// Counts since the flow began. All 0 on a denied flow.
    pub total: Traffic,
    /// Counts since the flow's record before this one (R19).
    pub delta: Traffic,
    /// Packets that were denied; 0 on an allowed flow.
    pub attempts: u64,
    /// IP bytes that were denied; 0 on an allowed flow.
    pub attempted_bytes: u64,
    /// TCP flags seen from the initiator and from the responder, OR-ed.
    pub tcp_flags: Option<(u8, u8)>,
    /// Outer paths, oldest first, at most [`MAX_PATHS`].
    pub paths: Vec<PathSeen>,
    /// How many paths there were, also past [`MAX_PATHS`].
    pub paths_total: u32,
    /// Set on the close record alone.
    pub end_reason: Option<EndReason>,
}

impl FlowRecord {
    /// Monotonic nanoseconds from the first to the last packet.
    pub fn duration(&self) -> u64 {
        self.end - self.start
    }

    /// Its Community ID; none for a denied flow, which stands for attempts from many ports.
    pub fn community_id(&self) -> Option<String> {
        let (src, dst) = ((self.src_ip, self.src_port), (self.dst_ip, self.dst_port));
        (self.verdict == Verdict::Allow).then(|| super::community::community_id(src, dst, self.protocol, self.icmp))
    }
}

/// A flow lists at most this many paths (R24): bounds a record to about 2 KiB.
pub const MAX_PATHS: usize = 16;

/// Records that are missing, and what was in them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Gap {
    /// Missing records.
    pub records: u64,
    /// Packets in their deltas.
    pub packets: u64,
    /// Bytes in their deltas.
    pub bytes: u64,
    /// Wall clock nanoseconds of the first loss.
    pub from: u64,
    /// Wall clock nanoseconds of the last loss.
    pub until: u64,
}

/// Something that a reader of the records must know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Note {
    /// The wall clock was stepped by this many nanoseconds (R16).
    ClockStep {
        /// When it was noticed, in the new wall clock's nanoseconds.
        at: u64,
        /// Forward is positive.
        by: i64,
    },
}

/// What the engine hands over. Nearly all are flows, so a box would only cost an allocation a record.
#[allow(clippy::large_enum_variant)]
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Record {
    /// One record of one flow.
    Flow(FlowRecord),
    /// Records that were lost, and why is in its kind: the queue to Python was full.
    Gap(Gap),
    /// A note.
    Note(Note),
}

/// What a peer is called.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PeerInfo {
    /// The configuration's name.
    pub name: String,
    /// The user behind it, where the configuration says so.
    pub user: Option<String>,
    /// Its groups.
    pub groups: Vec<String>,
    /// The WireGuard public key, base64.
    pub public_key: String,
}

/// The gateway that made the records.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct GatewayInfo {
    /// Unique and stable across restarts.
    pub uid: String,
    /// The configuration's name.
    pub name: String,
    /// 16 hex digits, new at each start.
    pub boot_id: String,
    /// The product's version.
    pub version: String,
}

/// The names behind the ids of a batch of records. Immutable; a reload makes a new one.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Directory {
    /// The gateway.
    pub gateway: GatewayInfo,
    /// By [`PeerId`], also those that a reload removed: their close records come after it.
    pub peers: std::collections::HashMap<u32, PeerInfo>,
    /// By [`NameId`].
    pub names: Vec<String>,
}

impl Directory {
    /// The peer's names; `None` for an id that no configuration ever had.
    pub fn peer(&self, id: PeerId) -> Option<&PeerInfo> {
        self.peers.get(&id.0)
    }

    /// The text of an interned name.
    pub fn name(&self, id: NameId) -> &str {
        self.names.get(id.0 as usize).map_or("", String::as_str)
    }

    /// The flow's uid: unique across gateways and restarts (R4).
    pub fn flow_uid(&self, serial: u64) -> String {
        format!("{}-{serial:x}", self.gateway.boot_id)
    }
}
