//! Captures through the same engine: what the gateway forwarded, replayed, gives the records that it gave.
//!
//! [`ReplayState`] is sans-IO: frames in, records out. Time goes by the packets' clock ([`clock`]). With a
//! configuration the peers are found by their allowed IPs, and its access rules judge as the gateway does. Without one
//! there are no peers, and either side may open a flow. [`reading`] reads files on a thread of its own and hands the
//! records over in batches, as the gateway does; but where the gateway loses records rather than wait, this waits.

mod clock;
mod legs;
mod parsed;
pub mod reading;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use self::clock::PacketClock;
use self::legs::{Legs, Mark};
use self::parsed::Content;
use crate::capture::Frame;
use crate::config::GatewayConfig;
use crate::flow::current::{record_path, record_peer};
use crate::flow::record::{EndReason, GatewayInfo, PeerInfo, Standing, Verdict};
use crate::flow::{
    Directory, FlowLedger, FlowRecord, FlowTable, Limits, PacketScope, Passed, PathId, PeerId, Purpose, Record, Side,
    Timestamp,
};
use crate::gateway::checks::{Stop, check_from_peer, check_to_peer, route_to_peer};
use crate::packet::{PacketInfo, Transport};
use crate::peers::{PeerTable, peer_info};
use crate::policy::{Names, Policy};
use crate::stats::{Drop, Stats};

pub use parsed::Parsed;
pub use reading::{Progress, Replay, ReplayResult};

/// Timers are looked at so often, in nanoseconds of the packets' clock.
const TIMERS_EVERY: u64 = 10_000_000;

/// What every packet of a capture without a configuration is told.
const ALLOWED: Standing = Standing {
    verdict: Verdict::Allow,
    rule: None,
    resource: None,
    domain: None,
};

/// What a replay runs on.
#[derive(Debug, Clone)]
pub struct ReplayOptions {
    /// Peers, rules and names; none: no peers.
    pub gateway: Option<GatewayConfig>,
    /// Limits of the flow table. With none for a peer, each may have all of it (R26).
    pub limits: Limits,
    /// Which records are made.
    pub purpose: Purpose,
    /// The product's version.
    pub version: String,
}

/// The books of a replay.
#[derive(Debug, Clone, Default)]
pub struct ReplayLedger {
    /// Frames read from the files.
    pub frames: u64,
    /// Frames that hold no IP packet that can be read, by reason.
    pub not_ip: Vec<(&'static str, u64)>,
    /// Ledger L1.
    pub stats: Stats,
    /// Ledgers L2 and L2b.
    pub flows: FlowLedger,
    /// Flow records made.
    pub made: u64,
}

impl ReplayLedger {
    /// Whether every frame and every packet is accounted for.
    pub fn balanced(&self) -> bool {
        let sides = &self.stats.sides;
        let received: u64 = sides.iter().map(|side| side.received.packets).sum();
        let not_ip: u64 = self.not_ip.iter().map(|(_, frames)| frames).sum();
        let denied: u64 = sides
            .iter()
            .map(|side| side.dropped[Drop::Denied as usize].packets)
            .sum();
        let agree = |(packets, flows): (&crate::stats::SideStats, &crate::flow::ledger::SideLedger)| {
            packets.balanced() && flows.balanced() && packets.forwarded == flows.forwarded
        };
        self.frames == received + not_ip
            && denied == self.flows.attempts.packets
            && sides.iter().zip(&self.flows.sides).all(agree)
    }
}

/// Peers and rules of a configuration.
struct Peers {
    table: PeerTable,
    policy: Policy,
    legs: Legs,
}

/// A replay without its files. See the module's documentation.
pub struct ReplayState {
    peers: Option<Peers>,
    flows: FlowTable,
    directory: Arc<Directory>,
    clock: PacketClock,
    now: Timestamp,
    /// When timers are looked at next.
    timers_at: u64,
    frames: u64,
    not_ip: HashMap<&'static str, u64>,
    stats: Stats,
    made: u64,
}

impl ReplayState {
    /// A replay that has read nothing.
    ///
    /// Errors: the system has no randomness to give.
    pub fn new(options: &ReplayOptions) -> Result<Self, getrandom::Error> {
        let limits = Limits {
            max_flows_per_peer: options.limits.max_flows_per_peer.or(Some(options.limits.max_flows)),
            ..options.limits
        };
        let purpose = Purpose {
            rules: true,
            ..options.purpose
        };
        let mut names = Names::default();
        let peers = match &options.gateway {
            Some(config) => {
                let table = PeerTable::new(config, 0)?;
                Some(Peers {
                    policy: Policy::new(config, table.iter(), &mut names),
                    table,
                    legs: Legs::new(),
                })
            }
            None => None,
        };
        let mut flows = FlowTable::new(limits, purpose)?;
        flows.configure(
            limits,
            purpose,
            options.gateway.as_ref().map_or(1, |config| config.peers.len()),
        );
        let directory = directory(options, peers.as_ref(), &names)?;
        Ok(Self {
            peers,
            flows,
            directory: Arc::new(directory),
            clock: PacketClock::default(),
            now: Timestamp::default(),
            timers_at: 0,
            frames: 0,
            not_ip: HashMap::new(),
            stats: Stats::default(),
            made: 0,
        })
    }

    /// The names behind the ids of the records.
    pub fn directory(&self) -> Arc<Directory> {
        self.directory.clone()
    }

    /// Takes a frame. Call [`ReplayState::handle_timers`] before it with its time.
    pub fn handle_frame(&mut self, frame: &Frame<'_>) {
        let (parsed, mark) = Parsed::of(frame, self.wants_marks());
        self.handle_parsed(&parsed, mark.as_ref());
    }

    /// Whether packets from peer to peer have to be told from each other.
    pub fn wants_marks(&self) -> bool {
        self.peers.is_some()
    }

    /// Fetches what the first [`LOOKAHEAD`](crate::flow::LOOKAHEAD) of these frames will need. With peers a packet's
    /// key is known only once it was routed, so then it does nothing.
    pub fn look_ahead(&self, frames: &[Parsed]) {
        if self.peers.is_none() {
            self.flows
                .look_ahead(frames.iter().filter_map(|frame| match &frame.content {
                    Content::Packet(info) => Some((PeerId::NOBODY, side_without_peers(info), info)),
                    Content::Malformed(_) | Content::NotIp(_) => None,
                }));
        }
    }

    /// Takes a frame that was parsed already, with its mark where [`ReplayState::wants_marks`] asks for one.
    pub fn handle_parsed(&mut self, parsed: &Parsed, mark: Option<&Mark>) {
        self.frames += 1;
        match &parsed.content {
            Content::Packet(info) => self.pass(info, mark),
            Content::Malformed(bytes) => {
                self.stats.side(Side::FromPeer).received.add(*bytes);
                self.stats.drop_packet(Side::FromPeer, Drop::Malformed, *bytes);
            }
            Content::NotIp(reason) => *self.not_ip.entry(reason.as_str()).or_default() += 1,
        }
    }

    /// Moves the clock on to a frame's time and does what is due by then, as far as one step goes. True: there is more
    /// to do at this time; records may be taken out in between, so that they do not pile up.
    pub fn handle_timers(&mut self, frame_time: u64) -> bool {
        self.now = self.clock.at(frame_time);
        if self.now.mono < self.timers_at {
            return false;
        }
        self.flows.handle_timeout(self.now);
        let more = self.flows.poll_timeout().is_some_and(|due| due <= self.now.mono);
        if !more {
            self.timers_at = self.now.mono + TIMERS_EVERY;
        }
        more
    }

    /// The capture is over: ends up to `most` flows and says whether any are left.
    pub fn close_some(&mut self, most: usize) -> bool {
        self.flows.close_some(EndReason::CaptureEnd, most)
    }

    /// How many records wait to be taken.
    pub fn records_waiting(&self) -> usize {
        self.flows.records_waiting()
    }

    /// Moves records and openings out.
    pub fn drain_records(&mut self, records: &mut Vec<Record>, openings: &mut Vec<FlowRecord>) {
        let before = records.len();
        records.extend(self.flows.drain_records());
        let flows = records[before..]
            .iter()
            .filter(|record| matches!(record, Record::Flow(_)));
        self.made += flows.count() as u64;
        openings.extend(self.flows.drain_openings());
    }

    /// Frames read so far.
    pub fn frames(&self) -> u64 {
        self.frames
    }

    /// Live flows.
    pub fn live_flows(&self) -> u64 {
        self.flows.ledger().live_flows
    }

    /// The books.
    pub fn ledger(&self) -> ReplayLedger {
        let mut not_ip: Vec<_> = self.not_ip.iter().map(|(reason, frames)| (*reason, *frames)).collect();
        not_ip.sort_unstable();
        ReplayLedger {
            frames: self.frames,
            not_ip,
            stats: self.stats,
            flows: self.flows.ledger(),
            made: self.made,
        }
    }

    fn pass(&mut self, info: &PacketInfo, mark: Option<&Mark>) {
        let (side, checked) = match &mut self.peers {
            None => {
                let side = side_without_peers(info);
                (side, check_without_peers(&mut self.flows, side, info, self.now))
            }
            Some(peers) => {
                let place = peers.table.route(info.src);
                let to = route_to_peer(&peers.table, info.dst);
                // From peer to peer a packet crosses the device twice.
                let second = place.is_some() && to.is_some() && mark.is_some_and(|mark| peers.legs.is_second(mark));
                let side = if place.is_some() && !second {
                    Side::FromPeer
                } else {
                    Side::ToPeer
                };
                let mut scope = PacketScope::begin(&mut self.flows, side, self.now);
                record_path(PathId::NONE);
                let checked = match place {
                    Some(place) if side == Side::FromPeer => {
                        if let Some(peer) = peers.table.get(place) {
                            record_peer(peer.id);
                        }
                        check_from_peer(&mut scope, &peers.table, &peers.policy, place, info)
                    }
                    Some(_) | None => check_to_peer(&mut scope, &peers.table, &peers.policy, to, info).map(|_| ()),
                };
                (side, checked)
            }
        };
        let len = info.len.into();
        self.stats.side(side).received.add(len);
        match checked {
            Ok(()) => self.stats.side(side).forwarded.add(len),
            Err(Stop::Drop(reason)) => self.stats.drop_packet(side, reason, len),
            // The gateway would have held it; a capture of what it forwarded has the first fragment before.
            Err(Stop::Hold) => self.stats.drop_packet(side, Drop::Fragment, len),
        }
    }
}

/// Which side a packet is from where there is no peer: both directions of a flow must differ in it, no more.
fn side_without_peers(info: &PacketInfo) -> Side {
    let ports = match info.transport {
        Transport::Tcp { src_port, dst_port, .. } | Transport::Udp { src_port, dst_port } => (src_port, dst_port),
        Transport::Echo {
            identifier,
            request: true,
        } => (identifier, 0),
        Transport::Echo {
            identifier,
            request: false,
        } => (0, identifier),
        Transport::Icmp { .. }
        | Transport::IcmpError { .. }
        | Transport::Redirect
        | Transport::Fragment
        | Transport::Other => (0, 0),
    };
    let mut from = (info.src, ports.0);
    let mut to = (info.dst, ports.1);
    // An error comes from anywhere on the way; the packet that it is about says which flow.
    if let Transport::IcmpError {
        original: Some(original),
        ..
    } = info.transport
    {
        from = (original.dst, original.dst_port);
        to = (original.src, original.src_port);
    }
    if order(from) <= order(to) {
        Side::FromPeer
    } else {
        Side::ToPeer
    }
}

fn order((address, port): (IpAddr, u16)) -> (u128, u16) {
    match address {
        IpAddr::V4(v4) => (v4.to_bits().into(), port),
        IpAddr::V6(v6) => (v6.to_bits(), port),
    }
}

fn check_without_peers(flows: &mut FlowTable, side: Side, info: &PacketInfo, now: Timestamp) -> Result<(), Stop> {
    if info.transport == Transport::Redirect {
        return Err(Stop::Drop(Drop::Redirect));
    }
    // Nothing of it is spread over layers, so it need not be gathered.
    let passed = Passed {
        peer: PeerId::NOBODY,
        side,
        packet: info,
        standing: ALLOWED,
        path: PathId::NONE,
    };
    flows.count_passed(passed, now);
    Ok(())
}

fn directory(options: &ReplayOptions, peers: Option<&Peers>, names: &Names) -> Result<Directory, getrandom::Error> {
    let boot_id = format!("{:016x}", getrandom::u64()?);
    let (uid, name) = match &options.gateway {
        Some(config) => (config.uid.clone(), config.name.clone()),
        None => ("replay".to_owned(), "replay".to_owned()),
    };
    let info = |peers: &Peers| -> HashMap<u32, PeerInfo> {
        peers.table.iter().map(|(id, peer)| (id.0, peer_info(peer))).collect()
    };
    Ok(Directory {
        gateway: GatewayInfo {
            uid,
            name,
            boot_id,
            version: options.version.clone(),
        },
        peers: peers.map(info).unwrap_or_default(),
        names: names.texts().to_vec(),
    })
}
