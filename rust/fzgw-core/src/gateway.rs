//! The gateway without its sockets: datagrams, packets and time in; datagrams, packets and records out.
//!
//! [`GatewayState`] routes and decides nothing: tunnels are in [`crate::peers`], access rules in [`crate::policy`],
//! flows in [`crate::flow`]. It counts each packet once on arrival and once where it goes (ledger L1). One worker
//! thread owns it.

pub(crate) mod checks;
mod fragments;
#[cfg(test)]
mod scenarios;
mod super_packets;

use std::collections::HashMap;
use std::sync::Arc;

use bytes::BytesMut;
use ipnet::IpNet;

use self::checks::{Stop, check_from_peer, check_to_peer, route_to_peer};
use self::fragments::{Held, HeldFragments};
pub use self::super_packets::CUTTINGS;
use crate::config::GatewayConfig;
use crate::ecn::Ecn;
use crate::flow::Purpose;
use crate::flow::current::{record_path, record_peer};
use crate::flow::record::{EndReason, GatewayInfo, OuterPath, PeerInfo};
use crate::flow::{
    Counted, Directory, FlowRecord, FlowTable, FragmentKey, PacketScope, PeerId, Record, Side, Tally, Timestamp,
};
use crate::icmp;
use crate::packet::{Fragment, PacketInfo};
use crate::peers::{DATA_OVERHEAD, Datagram, Peer, PeerTable, Place, Waiting, peer_info};
use crate::policy::{Names, Policy};
use crate::stats::{DatagramDrop, Drop, Originated, RecordStats, Snapshot, Stats};

/// What to undo if something could not be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Receipt {
    /// A packet of somebody's.
    Forwarded {
        /// Which way it goes.
        side: Side,
        /// IP bytes.
        bytes: u32,
        /// What the flow engine counted.
        counted: Counted,
    },
    /// Something that the gateway made itself: handshakes, keepalives, ICMP errors.
    Own,
}

/// A packet for the TUN device.
#[derive(Debug)]
pub struct ToTun {
    /// The packet, without padding.
    pub packet: BytesMut,
    /// What to give back to [`GatewayState::not_written`] if it fails.
    pub receipt: Receipt,
}

impl AsRef<[u8]> for ToTun {
    fn as_ref(&self) -> &[u8] {
        &self.packet
    }
}

/// A datagram for the UDP port.
#[derive(Debug)]
pub struct ToUdp {
    /// From where to where, and what.
    pub datagram: Datagram,
    /// What to give back to [`GatewayState::not_written`] if it fails.
    pub receipt: Receipt,
}

/// What a call leaves to be written.
#[derive(Debug, Default)]
pub struct Output {
    /// For the TUN device, in order.
    pub tun: Vec<ToTun>,
    /// For the UDP port, in order.
    pub udp: Vec<ToUdp>,
}

/// The gateway. See the module's documentation.
pub struct GatewayState {
    info: GatewayInfo,
    peers: PeerTable,
    policy: Policy,
    flows: FlowTable,
    names: Names,
    directory: Arc<Directory>,
    addresses: Vec<IpNet>,
    stats: Stats,
    output: Output,
    /// Whether flows were counted from the first packet on.
    always_tracked: bool,
    /// The protocol's own datagrams of the present call; kept for its capacity.
    control: Vec<Datagram>,
    expired: Vec<Waiting>,
    held: HeldFragments,
    fragment_timeout: u64,
    /// Room for the segments of super-packets until they are sealed.
    cuttings: BytesMut,
}

impl GatewayState {
    /// A gateway whose UDP port is `port`.
    ///
    /// Errors: the system has no randomness to give.
    pub fn new(config: &GatewayConfig, port: u16) -> Result<Self, getrandom::Error> {
        let info = GatewayInfo {
            uid: config.uid.clone(),
            name: config.name.clone(),
            boot_id: format!("{:016x}", getrandom::u64()?),
            version: config.version.clone(),
        };
        let purpose = purpose(config);
        let mut names = Names::default();
        let peers = PeerTable::new(config, port)?;
        let policy = Policy::new(config, peers.iter(), &mut names);
        let mut flows = FlowTable::new(config.limits, purpose)?;
        flows.configure(config.limits, purpose, config.peers.len());
        let mut state = Self {
            info,
            peers,
            policy,
            always_tracked: flows.tracks(),
            flows,
            names,
            directory: Arc::new(Directory::default()),
            addresses: config.addresses.clone(),
            stats: Stats::default(),
            output: Output::default(),
            control: Vec::new(),
            expired: Vec::new(),
            held: HeldFragments::new(ahash::RandomState::with_seeds(
                getrandom::u64()?,
                getrandom::u64()?,
                getrandom::u64()?,
                getrandom::u64()?,
            )),
            fragment_timeout: config.limits.fragment_timeout,
            cuttings: BytesMut::new(),
        };
        state.directory = Arc::new(state.make_directory(config, &[]));
        Ok(state)
    }

    /// 16 hex digits, new at each start.
    pub fn boot_id(&self) -> &str {
        &self.info.boot_id
    }

    /// The names behind the ids of records made now.
    pub fn directory(&self) -> Arc<Directory> {
        self.directory.clone()
    }

    /// Takes a datagram from the UDP port.
    pub fn handle_datagram(&mut self, now: Timestamp, path: OuterPath, ecn: Ecn, datagram: BytesMut) {
        self.stats.datagrams.received += 1;
        if path.remote.port() == 0 {
            // Nothing could ever be sent there.
            return self.stats.drop_datagram(DatagramDrop::Malformed);
        }
        let received = self.peers.receive(now, path, datagram, &mut self.control);
        self.send_control();
        let received = match received {
            Ok(received) => received,
            Err(reason) => return self.stats.drop_datagram(reason),
        };
        if received.moved {
            self.change_path(received.place, path);
        }
        if let Some(mut packet) = received.packet {
            if hear_congestion(&mut packet, ecn) {
                self.pass_from_peer(now, received.place, packet, Arrival::New);
            } else {
                let info = PacketInfo::parse(&packet).ok();
                self.arrived(Side::FromPeer, size(info.as_ref(), &packet), Arrival::New);
                self.drop_packet(now, Side::FromPeer, Drop::Ecn, &packet, info, None);
            }
        }
        if self.peers.get(received.place).is_some_and(Peer::has_waiting) {
            self.send_waiting(now, received.place);
        }
    }

    /// Takes a packet from the TUN device.
    pub fn handle_packet(&mut self, now: Timestamp, packet: BytesMut) {
        self.pass_to_peer(now, packet, Arrival::New);
        self.send_control();
    }

    /// Does what is due: ends flows, rekeys, keepalives. Call it before the packets of the same moment.
    pub fn handle_timeout(&mut self, now: Timestamp) {
        self.flows.handle_timeout(now);
        let mut expired = std::mem::take(&mut self.expired);
        self.peers.handle_timeout(now, &mut self.control, &mut expired);
        self.send_control();
        for waiting in expired.drain(..) {
            self.give_up(&waiting);
        }
        self.expired = expired;
        while let Some(held) = self.held.take_expired(now.mono, self.fragment_timeout) {
            self.give_up_held(held);
        }
    }

    /// The monotonic nanoseconds at which `handle_timeout` has something to do.
    pub fn poll_timeout(&self) -> u64 {
        let flows = self.flows.poll_timeout().unwrap_or(u64::MAX);
        let held = self.held.poll_timeout(self.fragment_timeout).unwrap_or(u64::MAX);
        self.peers.poll_timeout().min(flows).min(held)
    }

    /// Whether anything is to be written.
    pub fn has_output(&self) -> bool {
        !self.output.tun.is_empty() || !self.output.udp.is_empty()
    }

    /// What is to be written now. Give the vectors back emptied with [`GatewayState::written`].
    pub fn take_output(&mut self) -> Output {
        std::mem::take(&mut self.output)
    }

    /// The batch is written; its vectors are used again.
    pub fn written(&mut self, mut output: Output) {
        output.tun.clear();
        output.udp.clear();
        if self.output.tun.is_empty() && self.output.udp.is_empty() {
            self.output = output;
        }
    }

    /// Something of the batch could not be written: its counts are taken back (R21, scenario 42).
    pub fn not_written(&mut self, receipt: Receipt) {
        match receipt {
            Receipt::Forwarded { side, bytes, counted } => {
                self.flows.take_back(counted);
                self.stats.side(side).forwarded.take(bytes.into());
                self.stats.drop_packet(side, Drop::Write, bytes.into());
            }
            Receipt::Own => self.stats.drop_datagram(DatagramDrop::Send),
        }
    }

    /// Datagrams that the port took.
    pub fn datagrams_sent(&mut self, count: u64) {
        self.stats.datagrams.sent += count;
    }

    /// Takes a new configuration, all of it. Tunnels of peers that stay go on, and so do their flows.
    pub fn reconfigure(&mut self, config: &GatewayConfig) {
        let (gone, left) = self.peers.reconfigure(config);
        for path in left {
            self.flows.release_path(path);
        }
        for peer in &gone {
            self.flows.close_peer(peer.id);
            if let Some(path) = peer.path_id {
                self.flows.release_path(path);
            }
            for waiting in peer.waiting() {
                self.give_up(waiting);
            }
            let held = self.held.take_all(Some(peer.id));
            self.give_up_held(held);
        }
        self.policy = Policy::new(config, self.peers.iter(), &mut self.names);
        let purpose = purpose(config);
        self.flows.configure(config.limits, purpose, config.peers.len());
        self.fragment_timeout = config.limits.fragment_timeout;
        self.always_tracked &= self.flows.tracks();
        self.addresses.clone_from(&config.addresses);
        self.info.name.clone_from(&config.name);
        self.directory = Arc::new(self.make_directory(config, &gone));
    }

    /// Drops what still waits for a session or a first fragment: there will be none (R21).
    pub fn give_up_waiting(&mut self) {
        for waiting in self.peers.take_waiting() {
            self.give_up(&waiting);
        }
        let held = self.held.take_all(None);
        self.give_up_held(held);
    }

    /// Ends up to `most` flows for good and says whether any are left (R27).
    pub fn close_some(&mut self, most: usize) -> bool {
        self.flows.close_some(EndReason::Shutdown, most)
    }

    /// Whether records or openings wait.
    pub fn has_records(&self) -> bool {
        self.flows.has_records()
    }

    /// Moves records and openings out. Call it after a flush, so that nothing in them can still be taken back.
    pub fn drain_records(&mut self, records: &mut Vec<Record>, openings: &mut Vec<FlowRecord>) {
        records.extend(self.flows.drain_records());
        openings.extend(self.flows.drain_openings());
    }

    /// The books between two batches.
    pub fn snapshot(&self, now: Timestamp, records: RecordStats) -> Snapshot {
        Snapshot {
            stats: self.stats,
            flows: self.flows.ledger(),
            records,
            peers: self.peers.stats(now),
            tracks: self.always_tracked,
            failure: None,
        }
    }

    /// Passes a peer's packet on to the TUN device.
    fn pass_from_peer(&mut self, now: Timestamp, place: Place, mut packet: BytesMut, arrival: Arrival) {
        let side = Side::FromPeer;
        let Some(peer) = self.peers.get(place) else { return };
        let (id, path_id) = (peer.id, peer.path_id);
        let mut scope = PacketScope::begin(&mut self.flows, side, now);
        record_peer(id);
        if let Some(path_id) = path_id {
            record_path(path_id);
        }
        let info = PacketInfo::parse(&packet).ok();
        let checked = Checked::from_peer(&mut scope, &self.peers, &self.policy, place, info);
        std::mem::drop(scope);
        self.arrived(side, checked.size(&packet), arrival);
        let info = match checked.result {
            Ok((info, ..)) => info,
            Err(stop) => return self.stop(now, side, stop, packet, checked.info, Some(place)),
        };
        packet.truncate(info.len as usize);
        let receipt = self.forwarded(side, info);
        self.output.tun.push(ToTun { packet, receipt });
        self.release(now, id, side, &info);
    }

    /// Passes a packet on into its peer's tunnel.
    fn pass_to_peer(&mut self, now: Timestamp, packet: BytesMut, arrival: Arrival) {
        let side = Side::ToPeer;
        let mut scope = PacketScope::begin(&mut self.flows, side, now);
        let info = PacketInfo::parse(&packet).ok();
        let checked = Checked::to_peer(&mut scope, &self.peers, &self.policy, info);
        let size = checked.size(&packet);
        let (info, place) = match checked.result {
            Ok(passed) => passed,
            Err(stop) => {
                std::mem::drop(scope);
                self.arrived(side, size, arrival);
                return self.stop(now, side, stop, packet, checked.info, checked.place);
            }
        };
        match self.peers.seal(
            now,
            place,
            packet,
            fill(&self.output, &self.peers, place),
            &mut self.control,
        ) {
            Ok(datagram) => {
                depart(scope, &mut self.peers, place, datagram.path);
                self.arrived(side, size, arrival);
                self.sent(now, place, info, datagram);
            }
            Err(packet) => {
                // Its path is not known yet: the scope forgets it, and it is counted when it leaves (R21).
                std::mem::drop(scope);
                self.arrived(side, size, arrival);
                self.stats.side(side).waiting.join(size);
                if let Some(loser) = self.peers.wait(place, packet, info, now) {
                    self.give_up(&loser);
                }
            }
        }
    }

    /// Enters a packet into the books: a new one has been received, one that was held waits no longer.
    fn arrived(&mut self, side: Side, size: Tally, arrival: Arrival) {
        match arrival {
            Arrival::New => self.stats.side(side).received.join(size),
            Arrival::Held => self.stats.side(side).waiting.part(size),
        }
    }

    /// A packet goes no further, or not yet.
    fn stop(
        &mut self,
        now: Timestamp,
        side: Side,
        stop: Stop,
        packet: BytesMut,
        info: Option<PacketInfo>,
        place: Option<Place>,
    ) {
        let peer = place.and_then(|place| self.peers.get(place)).map(|peer| peer.id);
        let key = match (&info, peer) {
            (Some(info), Some(peer)) => FragmentKey::of(peer, side, info),
            _ => None,
        };
        if let (Stop::Hold, Some(key), Some(peer), Some(place)) = (&stop, key, peer, place) {
            let bytes = info.map_or(0, |info| info.len.into());
            let held = Held {
                side,
                peer,
                place,
                packet,
                bytes,
            };
            match self.held.hold(key, held, now.mono) {
                Ok(()) => self.stats.side(side).waiting.add(bytes),
                Err(held) => self.stats.drop_packet(side, Drop::Fragment, held.bytes),
            }
            return;
        }
        let reason = match stop {
            Stop::Drop(reason) => reason,
            Stop::Hold => Drop::Fragment,
        };
        self.drop_packet(now, side, reason, &packet, info, place);
        if let (Some(key), Some(Fragment { first: true, .. })) = (key, info.and_then(|info| info.fragment)) {
            let held = self.held.take(&key);
            self.give_up_held(held);
        }
    }

    /// A packet has gone on. If others waited for it to be known, they follow.
    fn release(&mut self, now: Timestamp, peer: PeerId, side: Side, info: &PacketInfo) {
        if !info.fragment.is_some_and(|fragment| fragment.first) {
            return;
        }
        let Some(key) = FragmentKey::of(peer, side, info) else {
            return;
        };
        for held in self.held.take(&key) {
            match side {
                Side::FromPeer => self.pass_from_peer(now, held.place, held.packet, Arrival::Held),
                Side::ToPeer => self.pass_to_peer(now, held.packet, Arrival::Held),
            }
        }
    }

    /// Sends what waited for this peer's session, as far as it goes.
    fn send_waiting(&mut self, now: Timestamp, place: Place) {
        let side = Side::ToPeer;
        while let Some(mut waiting) = self.peers.next_waiting(place) {
            // Rules and allowed IPs may have changed since it came: it is looked at again (R2, P1).
            let mut scope = PacketScope::begin(&mut self.flows, side, now);
            let info = PacketInfo::parse(&waiting.packet).ok();
            let checked = Checked::to_peer(&mut scope, &self.peers, &self.policy, info);
            let info = match checked.result {
                Ok((info, at)) if at == place => info,
                Ok(_) => {
                    std::mem::drop(scope);
                    self.give_up(&waiting);
                    continue;
                }
                Err(stop) => {
                    std::mem::drop(scope);
                    self.stats.side(side).waiting.take(waiting.info.len.into());
                    self.stop(now, side, stop, waiting.packet, checked.info, checked.place);
                    continue;
                }
            };
            let packet = std::mem::take(&mut waiting.packet);
            let fill = fill(&self.output, &self.peers, place);
            let datagram = match self.peers.seal(now, place, packet, fill, &mut self.control) {
                Ok(datagram) => datagram,
                Err(packet) => {
                    std::mem::drop(scope);
                    waiting.packet = packet;
                    self.peers.unwait(place, waiting);
                    break;
                }
            };
            depart(scope, &mut self.peers, place, datagram.path);
            self.stats.side(side).waiting.take(info.len.into());
            self.sent(now, place, info, datagram);
        }
        self.send_control();
    }

    fn sent(&mut self, now: Timestamp, place: Place, info: PacketInfo, datagram: Datagram) {
        let receipt = self.forwarded(Side::ToPeer, info);
        self.output.udp.push(ToUdp { datagram, receipt });
        if let Some(peer) = self.peers.get(place).map(|peer| peer.id) {
            self.release(now, peer, Side::ToPeer, &info);
        }
    }

    fn forwarded(&mut self, side: Side, info: PacketInfo) -> Receipt {
        self.stats.side(side).forwarded.add(info.len.into());
        Receipt::Forwarded {
            side,
            bytes: info.len,
            counted: self.flows.take_counted(),
        }
    }

    fn give_up(&mut self, waiting: &Waiting) {
        let bytes = waiting.info.len.into();
        self.stats.side(Side::ToPeer).waiting.take(bytes);
        self.stats.drop_packet(Side::ToPeer, Drop::NoSession, bytes);
    }

    fn give_up_held(&mut self, held: Vec<Held>) {
        for held in held {
            self.stats.side(held.side).waiting.take(held.bytes);
            self.stats.drop_packet(held.side, Drop::Fragment, held.bytes);
        }
    }

    fn drop_packet(
        &mut self,
        now: Timestamp,
        side: Side,
        reason: Drop,
        packet: &[u8],
        info: Option<PacketInfo>,
        place: Option<Place>,
    ) {
        let size = size(info.as_ref(), packet);
        self.stats.side(side).dropped[reason as usize].join(size);
        if reason != Drop::Denied {
            return;
        }
        if !self.flows.tracks() {
            self.stats.denied_untracked += size.packets;
        }
        if let (Some(info), Some(place)) = (info, place) {
            self.prohibit(now, side, packet, &info, place);
        }
    }

    /// Tells the sender of a denied packet (R23).
    fn prohibit(&mut self, now: Timestamp, side: Side, packet: &[u8], info: &PacketInfo, place: Place) {
        let Some(peer) = self.peers.get_mut(place) else { return };
        let own = self
            .addresses
            .iter()
            .map(IpNet::addr)
            .find(|own| own.is_ipv4() == info.src.is_ipv4());
        let from = match side {
            Side::FromPeer => own.unwrap_or(info.dst),
            // The kernel takes a packet from the device with an address of its own for a forgery, so the error comes
            // from where the packet was for.
            Side::ToPeer => info.dst,
        };
        let Some(error) = icmp::prohibited(packet, info, from) else {
            return;
        };
        if !peer.errors.take(now) {
            return;
        }
        let error = BytesMut::from(&error[..]);
        let kind = match side {
            Side::FromPeer => {
                // Without a session there is nobody to tell: the packet came in by one, so it is gone since.
                let Ok(datagram) = self.peers.seal(now, place, error, 0, &mut self.control) else {
                    return;
                };
                self.output.udp.push(ToUdp {
                    datagram,
                    receipt: Receipt::Own,
                });
                Originated::ProhibitedToPeer
            }
            Side::ToPeer => {
                self.output.tun.push(ToTun {
                    packet: error,
                    receipt: Receipt::Own,
                });
                Originated::ProhibitedToOutside
            }
        };
        self.stats.originated[kind as usize] += 1;
    }

    fn send_control(&mut self) {
        for datagram in self.control.drain(..) {
            self.output.udp.push(ToUdp {
                datagram,
                receipt: Receipt::Own,
            });
        }
    }

    fn change_path(&mut self, place: Place, path: OuterPath) {
        let Some(peer) = self.peers.get_mut(place) else { return };
        if let Some(before) = peer.path_id.replace(self.flows.add_path(path)) {
            self.flows.release_path(before);
        }
    }

    fn make_directory(&self, config: &GatewayConfig, gone: &[Peer]) -> Directory {
        let mut peers: HashMap<u32, PeerInfo> = self.peers.iter().map(|(id, peer)| (id.0, peer_info(peer))).collect();
        peers.extend(gone.iter().map(|peer| (peer.id.0, peer.info())));
        let gateway = GatewayInfo {
            name: config.name.clone(),
            ..self.info.clone()
        };
        Directory {
            gateway,
            peers,
            names: self.names.texts().to_vec(),
        }
    }
}

/// Ends the scope of a packet that travels this path: it is counted with the path, which is registered at its first.
fn depart(mut scope: PacketScope<'_>, peers: &mut PeerTable, place: Place, path: OuterPath) {
    let Some(peer) = peers.get_mut(place) else { return };
    let path_id = scope.path_id(peer.path_id, path);
    peer.path_id = Some(path_id);
    record_path(path_id);
}

/// The size of the packet before, where it goes the same way: see [`PeerTable::seal`].
fn fill(output: &Output, peers: &PeerTable, place: Place) -> usize {
    let path = peers.get(place).and_then(|peer| peer.path);
    let before = output
        .udp
        .last()
        .map(|to_udp| &to_udp.datagram)
        .filter(|before| Some(before.path) == path);
    before.map_or(0, |before| before.bytes.len().saturating_sub(DATA_OVERHEAD))
}

fn purpose(config: &GatewayConfig) -> Purpose {
    Purpose {
        rules: config.rules.is_some(),
        ..config.purpose
    }
}

/// Whether a packet has just come or has waited for its datagram's first fragment.
#[derive(Clone, Copy)]
enum Arrival {
    New,
    Held,
}

/// What the checks found, also where they end in a drop.
struct Checked {
    info: Option<PacketInfo>,
    place: Option<Place>,
    result: Result<(PacketInfo, Place), Stop>,
}

impl Checked {
    fn from_peer(
        scope: &mut PacketScope<'_>,
        peers: &PeerTable,
        policy: &Policy,
        place: Place,
        info: Option<PacketInfo>,
    ) -> Self {
        let result = info
            .ok_or(Stop::Drop(Drop::Malformed))
            .and_then(|info| check_from_peer(scope, peers, policy, place, &info).map(|()| (info, place)));
        Self {
            info,
            place: Some(place),
            result,
        }
    }

    fn to_peer(scope: &mut PacketScope<'_>, peers: &PeerTable, policy: &Policy, info: Option<PacketInfo>) -> Self {
        let place = info.and_then(|info| route_to_peer(peers, info.dst));
        let result = info.ok_or(Stop::Drop(Drop::Malformed)).and_then(|info| {
            let place = check_to_peer(scope, peers, policy, place, &info)?;
            Ok((info, place))
        });
        Self { info, place, result }
    }

    fn size(&self, packet: &[u8]) -> Tally {
        size(self.info.as_ref(), packet)
    }
}

/// Packets and IP bytes, as the segments that travel (R22); all bytes of what is no packet.
fn size(info: Option<&PacketInfo>, packet: &[u8]) -> Tally {
    match info {
        Some(info) => Tally {
            packets: info.segments.into(),
            bytes: info.len.into(),
        },
        None => Tally {
            packets: 1,
            bytes: packet.len() as u64,
        },
    }
}

/// Marks a packet that met congestion in the tunnel (RFC 6040). False: its transport would not hear of it, so it must be
/// dropped.
fn hear_congestion(packet: &mut [u8], outer: Ecn) -> bool {
    let inner = Ecn::of_packet(packet);
    match Ecn::decapsulated(inner, outer) {
        Some(marked) => {
            if marked != inner {
                marked.set(packet);
            }
            true
        }
        None => false,
    }
}
