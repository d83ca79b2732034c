//! What leaves the engine: flow records, notes and gaps, and the words in them.
//!
//! A record holds ids of peers, rules and resources; the [`Directory`] of its batch gives them their names, so that
//! a flow costs no reference counting while it lives.

use std::net::{IpAddr, SocketAddr};

pub use super::history::History;
use super::ledger::Tally;
use crate::packet::PacketInfo;

/// An opaque number of a peer, never reused while the process runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PeerId(pub u32);

impl PeerId {
    /// The peer of flows in a capture that is read without a configuration.
    pub const NOBODY: PeerId = PeerId(u32::MAX);
}

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

impl Counts {
    /// Nothing.
    pub const ZERO: Counts = Counts {
        packets: 0,
        bytes: 0,
        payload: 0,
    };

    /// A packet more, as the segments that travel.
    pub(super) fn count(&mut self, packet: &PacketInfo) {
        self.packets += u64::from(packet.segments);
        self.bytes += u64::from(packet.len);
        self.payload += u64::from(packet.payload);
    }

    /// All of `other` more.
    pub(super) fn join(&mut self, other: Counts) {
        self.packets += other.packets;
        self.bytes += other.bytes;
        self.payload += other.payload;
    }

    /// All of `other` less.
    pub(super) fn part(&mut self, other: Counts) {
        self.packets -= other.packets;
        self.bytes -= other.bytes;
        self.payload -= other.payload;
    }

    /// Packets and bytes alone.
    pub(super) fn tally(self) -> Tally {
        Tally {
            packets: self.packets,
            bytes: self.bytes,
        }
    }
}

/// Counts of both directions: out is initiator to responder.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Traffic {
    /// Initiator to responder.
    pub out: Counts,
    /// Responder to initiator.
    pub r#in: Counts,
}

impl Traffic {
    /// What came since `before`, an earlier state of the same flow.
    pub(super) fn since(mut self, before: Traffic) -> Traffic {
        self.out.part(before.out);
        self.r#in.part(before.r#in);
        self
    }
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
    /// In a capture without a configuration there is no peer (see [`PeerId::NOBODY`]).
    Unknown,
}

impl Direction {
    /// The word of the records.
    pub fn as_str(self) -> &'static str {
        match self {
            Direction::Outbound => "outbound",
            Direction::Inbound => "inbound",
            Direction::Unknown => "unknown",
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
    /// The capture ended.
    CaptureEnd,
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
            EndReason::CaptureEnd => "capture_end",
        }
    }
}

/// How far a conversation came, in the words of Zeek's conn.log (R10).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ConnState {
    /// The initiator spoke and had no answer.
    S0,
    /// TCP: established and not ended.
    S1,
    /// TCP: established and ended by both. UDP: both spoke.
    Sf,
    /// TCP: the responder refused the SYN with an RST.
    Rej,
    /// TCP: established, and the initiator alone has ended its side.
    S2,
    /// TCP: established, and the responder alone has ended its side.
    S3,
    /// TCP: established, and the initiator reset it.
    Rsto,
    /// TCP: the responder reset it.
    Rstr,
    /// TCP: the initiator sent a SYN and then an RST, and no SYN-ACK was seen.
    Rstos0,
    /// TCP: the responder sent a SYN-ACK and then an RST, and no SYN was seen.
    Rstrh,
    /// TCP: the initiator sent a SYN and then a FIN, and no SYN-ACK was seen.
    Sh,
    /// TCP: the responder sent a SYN-ACK and then a FIN, and no SYN was seen. UDP: only the responder spoke.
    Shr,
    /// None of these: met in the middle, or a protocol that has no such states.
    Oth,
}

impl ConnState {
    /// The word of the records.
    pub fn as_str(self) -> &'static str {
        match self {
            ConnState::S0 => "S0",
            ConnState::S1 => "S1",
            ConnState::Sf => "SF",
            ConnState::Rej => "REJ",
            ConnState::S2 => "S2",
            ConnState::S3 => "S3",
            ConnState::Rsto => "RSTO",
            ConnState::Rstr => "RSTR",
            ConnState::Rstos0 => "RSTOS0",
            ConnState::Rstrh => "RSTRH",
            ConnState::Sh => "SH",
            ConnState::Shr => "SHR",
            ConnState::Oth => "OTH",
        }
    }
}

/// What is told of a TCP connection alone (R10).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TcpRecord {
    /// What happened, in order.
    pub history: History,
    /// Flags seen from the initiator, OR-ed.
    pub flags_out: u8,
    /// Flags seen from the responder, OR-ed.
    pub flags_in: u8,
    /// Nanoseconds from the last SYN before the first SYN-ACK to that: the responder's side of the gateway.
    pub syn_to_syn_ack: Option<u64>,
    /// Nanoseconds from the last SYN-ACK to the initiator's first segment after it: the initiator's side.
    pub syn_ack_to_ack: Option<u64>,
    /// Segments of the initiator that began before what it had sent already.
    pub retransmits_out: u32,
    /// Segments of the responder that began before what it had sent already.
    pub retransmits_in: u32,
}

/// ICMP errors of one type and code about a flow (R13).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IcmpErrors {
    /// ICMP or ICMPv6 type, by the flow's IP version; 255 with code 255 for those past [`MAX_ICMP_ERRORS`] kinds.
    pub kind: u8,
    /// Its code.
    pub code: u8,
    /// Errors.
    pub packets: u64,
    /// Their IP bytes.
    pub bytes: u64,
}

/// A flow lists at most this many types and codes; the last one stands for all further ones.
pub const MAX_ICMP_ERRORS: usize = 16;

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
    /// What was denied since the flow began; 0 on an allowed flow.
    pub attempts: Tally,
    /// What was denied since the flow's record before this one.
    pub attempts_delta: Tally,
    /// How far it came (R10).
    pub conn_state: ConnState,
    /// Of an allowed TCP flow.
    pub tcp: Option<TcpRecord>,
    /// ICMP errors about it, by type and code in the order of their first, since the flow began (R13).
    pub icmp_errors: Vec<IcmpErrors>,
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
