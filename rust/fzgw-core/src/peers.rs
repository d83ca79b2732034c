//! WireGuard tunnels: found by public key, by receiver index, by allowed IPs.
//!
//! The protocol is gotatun's `Tunn`, and this is the only file that says so. It keeps its own clock for its timers;
//! all else goes by the `now` of the caller. Its queue of packets without a session holds no packet of anybody's (only
//! keepalives of its own that had none): ours is bounded, counted, and knows each packet ([`Waiting`]).

mod gate;

use std::cell::Cell;
use std::collections::{HashMap, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use base64::Engine as _;
use bytes::BytesMut;
use gotatun::noise::errors::WireGuardError;
use gotatun::noise::handshake::parse_handshake_anon;
use gotatun::noise::index_table::IndexTable;
use gotatun::noise::rate_limiter::RateLimiter;
use gotatun::noise::{Tunn, TunnResult};
use gotatun::packet::{Packet, WgKind};
use gotatun::x25519::{PublicKey, StaticSecret};
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use prefix_trie::PrefixMap;

use self::gate::{Gate, Load};
use crate::config::{GatewayConfig, PeerConfig};
use crate::ecn::Ecn;
use crate::flow::record::{OuterPath, PeerId, PeerInfo};
use crate::flow::{PathId, Timestamp};
use crate::packet::PacketInfo;
use crate::stats::{DatagramDrop, PeerStats};

/// Packets that one peer may have waiting for a session; with an MTU of 1,420 about 180 KiB.
pub const MAX_WAITING: usize = 128;
/// Packets that may wait for all peers together: about 22 MiB.
pub const MAX_WAITING_TOTAL: usize = 16_384;
/// A packet waits no longer than the protocol tries to reach its peer.
const WAIT_LIMIT: u64 = 90_000_000_000;
/// An answered initiation is confirmed within this, or the handshake is started from here.
const CONFIRM_PATIENCE: u64 = 5_000_000_000;
/// How often the protocol's timers are looked at.
const TICK: u64 = 100_000_000;
/// WireGuard pads to this, within the MTU.
const PADDING: usize = 16;
/// What a data message is longer than its packet: header and tag.
pub const DATA_OVERHEAD: usize = 32;
/// A packet is padded up to the size of the one before it, by this much at most, so that the kernel takes both in one
/// send of equal segments.
pub const MAX_FILL: usize = 128;

/// The public key of a private key.
pub fn public_key(private: &[u8; 32]) -> [u8; 32] {
    PublicKey::from(&StaticSecret::from(*private)).to_bytes()
}

/// A new private key, clamped as Curve25519 wants it.
///
/// Errors: the system has no randomness to give.
pub fn generate_private_key() -> Result<[u8; 32], getrandom::Error> {
    let mut key = [0; 32];
    getrandom::fill(&mut key)?;
    key[0] &= 248;
    key[31] = (key[31] & 127) | 64;
    Ok(key)
}

/// A datagram to be sent.
#[derive(Debug)]
pub struct Datagram {
    /// From where to where.
    pub path: OuterPath,
    /// The ECN field of its IP header.
    pub ecn: Ecn,
    /// Its bytes.
    pub bytes: BytesMut,
}

impl Datagram {
    /// One of the protocol's own.
    fn control(path: OuterPath, bytes: BytesMut) -> Self {
        let ecn = Ecn::NOT_ECT;
        Self { path, ecn, bytes }
    }
}

/// A packet that waits for its peer's session (R21). Rules judge it again when it leaves.
pub struct Waiting {
    /// The packet, without padding.
    pub packet: BytesMut,
    /// What it is.
    pub info: PacketInfo,
    since: u64,
}

/// A peer's place in the table. Places are used again; [`PeerId`]s are not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place(usize);

/// What a datagram brought.
pub struct Received {
    /// Whose it was.
    pub place: Place,
    /// The peer is somewhere else now.
    pub moved: bool,
    /// The packet inside, with padding; none for handshakes and keepalives.
    pub packet: Option<BytesMut>,
}

/// ICMP errors that the gateway makes for one peer's packets: at most 100 a second (R23).
#[derive(Debug, Clone, Copy, Default)]
pub struct ErrorBudget {
    second: u64,
    used: u32,
}

impl ErrorBudget {
    const PER_SECOND: u32 = 100;

    /// Takes one, if there is one.
    pub fn take(&mut self, now: Timestamp) -> bool {
        let second = now.mono / 1_000_000_000;
        if second != self.second {
            *self = Self { second, used: 0 };
        }
        let free = self.used < Self::PER_SECOND;
        self.used += u32::from(free);
        free
    }
}

/// One peer and its tunnel.
pub struct Peer {
    /// Its number in flows and records.
    pub id: PeerId,
    /// What is left of its allowance of ICMP errors this second.
    pub errors: ErrorBudget,
    /// Where its datagrams go.
    pub path: Option<OuterPath>,
    /// The flow engine's number of `path`, once a packet used it.
    pub path_id: Option<PathId>,
    config: PeerConfig,
    /// The last address that was found to be its own: it has few, and asking the prefixes for each packet shows.
    own: Cell<Option<IpAddr>>,
    tunn: Tunn,
    /// Receiver indexes that may be the tunnel's; the library says which still are.
    indexes: Vec<u32>,
    waiting: VecDeque<Waiting>,
    last_handshake: Option<u64>,
    /// When an initiation of the peer was answered that it has not confirmed yet.
    answered: Option<u64>,
    /// The peer has shown that it has the keys of a session: by data, or by answering our initiation. The library
    /// would send by a tunnel's first session at once, also to a wrong preshared key or a replayed initiation.
    confirmed: bool,
    /// When the gate last let it pass by.
    passed_gate: u64,
    /// When an initiation was last tried for the sake of persistent keepalive alone.
    last_revival: u64,
    rx_bytes: u64,
    tx_bytes: u64,
}

/// All tunnels.
pub struct PeerTable {
    private: StaticSecret,
    public: PublicKey,
    mtu: usize,
    port: u16,
    index_table: IndexTable,
    /// Checks first codes alone.
    calm: Arc<RateLimiter>,
    /// Always wants a cookie.
    loaded: RateLimiter,
    gate: Gate,
    peers: Vec<Option<Peer>>,
    by_key: HashMap<[u8; 32], usize>,
    by_index: HashMap<u32, usize, ahash::RandomState>,
    /// Endpoints of tunnels: their initiations pass by the gate.
    by_endpoint: HashMap<SocketAddr, usize, ahash::RandomState>,
    routes4: PrefixMap<Ipv4Net, usize>,
    routes6: PrefixMap<Ipv6Net, usize>,
    next_id: u32,
    next_tick: u64,
    waiting_total: usize,
}

impl PeerTable {
    /// The tunnels of a configuration, none of them up. `port` is the local UDP port.
    ///
    /// Errors: the system has no randomness to give.
    pub fn new(config: &GatewayConfig, port: u16) -> Result<Self, getrandom::Error> {
        let private = StaticSecret::from(config.private_key);
        let public = PublicKey::from(&private);
        let seed = || getrandom::u64();
        let hasher = ahash::RandomState::with_seeds(seed()?, seed()?, seed()?, seed()?);
        let mut table = Self {
            calm: Arc::new(RateLimiter::new(&public, u64::MAX)),
            loaded: RateLimiter::new(&public, 0),
            private,
            public,
            mtu: config.mtu.into(),
            port,
            index_table: IndexTable::from_os_rng(),
            gate: Gate::new(config.handshake_rate, hasher.clone()),
            peers: Vec::new(),
            by_key: HashMap::new(),
            by_index: HashMap::with_hasher(hasher.clone()),
            by_endpoint: HashMap::with_hasher(hasher),
            routes4: PrefixMap::new(),
            routes6: PrefixMap::new(),
            next_id: 1,
            next_tick: 0,
            waiting_total: 0,
        };
        table.reconfigure(config);
        Ok(table)
    }

    /// Takes the peers of a new configuration. Returns those that are gone, and the paths that the others no longer
    /// use. A peer is its public key: whatever else changes, its tunnel goes on.
    pub fn reconfigure(&mut self, config: &GatewayConfig) -> (Vec<Peer>, Vec<PathId>) {
        self.gate.set_rate(config.handshake_rate);
        let (mut gone, mut left) = (Vec::new(), Vec::new());
        for place in 0..self.peers.len() {
            let stays = |peer: &Peer| config.peers.iter().any(|new| new.public_key == peer.config.public_key);
            if let Some(peer) = self.peers[place].take_if(|peer| !stays(peer)) {
                self.by_key.remove(&peer.config.public_key);
                self.by_index.retain(|_, at| *at != place);
                self.by_endpoint.retain(|_, at| *at != place);
                self.waiting_total -= peer.waiting.len();
                gone.push(peer);
            }
        }
        for new in &config.peers {
            match self.by_key.get(&new.public_key) {
                Some(place) => left.extend(self.update_peer(*place, new)),
                None => self.add_peer(new),
            }
        }
        self.routes4 = PrefixMap::new();
        self.routes6 = PrefixMap::new();
        for (place, peer) in self.peers.iter().enumerate() {
            for net in peer.iter().flat_map(|peer| &peer.config.allowed_ips) {
                match net {
                    IpNet::V4(v4) => self.routes4.insert(v4.trunc(), place),
                    IpNet::V6(v6) => self.routes6.insert(v6.trunc(), place),
                };
            }
        }
        for peer in self.peers.iter().flatten() {
            peer.own.set(None);
        }
        (gone, left)
    }

    /// Every peer with its configuration.
    pub fn iter(&self) -> impl Iterator<Item = (PeerId, &PeerConfig)> {
        self.peers.iter().flatten().map(|peer| (peer.id, &peer.config))
    }

    /// The peer at a place that this table gave out.
    pub fn get(&self, place: Place) -> Option<&Peer> {
        self.peers.get(place.0)?.as_ref()
    }

    /// The same, to write.
    pub fn get_mut(&mut self, place: Place) -> Option<&mut Peer> {
        self.peers.get_mut(place.0)?.as_mut()
    }

    /// Whose address this is: the longest prefix of all peers' allowed IPs (R2).
    pub fn route(&self, address: IpAddr) -> Option<Place> {
        let place = match address {
            IpAddr::V4(v4) => self.routes4.get_lpm(&Ipv4Net::from(v4)).map(|(_, place)| *place),
            IpAddr::V6(v6) => self.routes6.get_lpm(&Ipv6Net::from(v6)).map(|(_, place)| *place),
        };
        place.map(Place)
    }

    /// Whether this is an address of the peer in `place`, as [`PeerTable::route`] says it.
    pub fn is_own(&self, place: Place, address: IpAddr) -> bool {
        let Some(peer) = self.get(place) else { return false };
        if peer.own.get() == Some(address) {
            return true;
        }
        let is_own = self.route(address) == Some(place);
        if is_own {
            peer.own.set(Some(address));
        }
        is_own
    }

    /// Takes a datagram from the UDP port. Answers of the protocol go to `out`.
    pub fn receive(
        &mut self,
        now: Timestamp,
        path: OuterPath,
        datagram: BytesMut,
        out: &mut Vec<Datagram>,
    ) -> Result<Received, DatagramDrop> {
        let len = datagram.len();
        let packet = self.screen(now, path, datagram, out)?;
        let initiation = matches!(packet, WgKind::HandshakeInit(_));
        let place = match &packet {
            WgKind::HandshakeInit(init) => {
                let half = parse_handshake_anon(&self.private, &self.public, init);
                let key = half.map_err(|_| DatagramDrop::Unauthentic)?.peer_static_public;
                *self.by_key.get(&key).ok_or(DatagramDrop::UnknownPeer)?
            }
            WgKind::HandshakeResp(response) => self.by_index(response.receiver_idx.get())?,
            WgKind::CookieReply(reply) => self.by_index(reply.receiver_idx.get())?,
            WgKind::Data(data) => self.by_index(data.header.receiver_idx.get())?,
        };
        let cookie = matches!(packet, WgKind::CookieReply(_));
        let response = matches!(packet, WgKind::HandshakeResp(_));
        let peer = self.peers[place].as_mut().ok_or(DatagramDrop::UnknownPeer)?;
        let had_session = initiation && peer.tunn.time_since_last_handshake().is_some();
        let packet = match peer.tunn.handle_incoming_packet(packet) {
            TunnResult::Done => None,
            TunnResult::Err(error) => return Err(reason(&error)),
            TunnResult::WriteToTunnel(mut packet) => {
                peer.confirmed = true;
                if let Some(answered) = peer.answered.take() {
                    peer.last_handshake = Some(answered);
                }
                Some(std::mem::take(packet.buf_mut()))
            }
            TunnResult::WriteToNetwork(answer) => {
                if initiation {
                    peer.answered = Some(now.mono);
                    peer.confirmed &= had_session;
                } else {
                    peer.last_handshake = Some(now.mono);
                    peer.confirmed = true;
                }
                let answer = self.seal_control(place, answer);
                out.push(Datagram::control(path, answer));
                None
            }
        };
        let Some(peer) = &mut self.peers[place] else {
            return Err(DatagramDrop::UnknownPeer);
        };
        peer.rx_bytes += len as u64;
        // A cookie is no proof of the peer: it does not move it.
        let moved = !cookie && peer.path != Some(path);
        if moved {
            if let Some(before) = peer.path.replace(path)
                && self.by_endpoint.get(&before.remote) == Some(&place)
            {
                self.by_endpoint.remove(&before.remote);
            }
            self.by_endpoint.insert(path.remote, place);
        }
        if initiation || response {
            tracing::debug!(peer = %peer.config.name, endpoint = %path.remote, initiation, "handshake");
        }
        Ok(Received {
            place: Place(place),
            moved,
            packet: packet.filter(|packet| !packet.is_empty()),
        })
    }

    /// Encrypts a packet for the peer. Gives it back, and starts a handshake, where there is no session. `fill` is the
    /// size that a slightly smaller packet is padded to.
    pub fn seal(
        &mut self,
        now: Timestamp,
        place: Place,
        mut packet: BytesMut,
        fill: usize,
        out: &mut Vec<Datagram>,
    ) -> Result<Datagram, BytesMut> {
        let len = packet.len();
        let ecn = Ecn::of_packet(&packet);
        let mtu = self.mtu;
        let Some(peer) = self.get_mut(place) else {
            return Err(packet);
        };
        let Some(path) = peer.path else {
            return Err(packet);
        };
        let padded = len.next_multiple_of(PADDING).min(mtu).max(len);
        let fills = (padded..=padded + MAX_FILL).contains(&fill);
        packet.resize(if fills { fill } else { padded }, 0);
        let sealed = if peer.confirmed {
            peer.tunn.encapsulate_with_session(Packet::from_bytes(packet))
        } else {
            Err(Packet::from_bytes(packet))
        };
        match sealed {
            Ok(sealed) => {
                let bytes = take_bytes(sealed.into_bytes());
                peer.tx_bytes += bytes.len() as u64;
                Ok(Datagram { path, ecn, bytes })
            }
            Err(packet) => {
                let mut packet = take_bytes(packet);
                packet.truncate(len);
                // An initiation that was just answered: the other end speaks next, and a second one would cross it.
                let answered = peer.answered.is_some_and(|at| now.mono < at + CONFIRM_PATIENCE);
                if !answered && let Some(initiation) = peer.tunn.format_handshake_initiation(false) {
                    let bytes = self.seal_control(place.0, initiation.into());
                    out.push(Datagram::control(path, bytes));
                }
                Err(packet)
            }
        }
    }

    /// Lets a packet wait for its peer's session. Returns one that had to make way: the oldest of the peer's.
    pub fn wait(&mut self, place: Place, packet: BytesMut, info: PacketInfo, now: Timestamp) -> Option<Waiting> {
        let full = self.waiting_total >= MAX_WAITING_TOTAL;
        // A copy of its own: the buffer that it came in is a small part of a large one.
        let packet = BytesMut::from(&packet[..]);
        let waiting = Waiting {
            packet,
            info,
            since: now.mono,
        };
        let Some(peer) = self.get_mut(place) else {
            return Some(waiting);
        };
        let loser = if peer.waiting.len() >= MAX_WAITING || (full && !peer.waiting.is_empty()) {
            peer.waiting.pop_front()
        } else if full {
            return Some(waiting);
        } else {
            None
        };
        peer.waiting.push_back(waiting);
        self.waiting_total += usize::from(loser.is_none());
        loser
    }

    /// The packet that has waited longest for this peer.
    pub fn next_waiting(&mut self, place: Place) -> Option<Waiting> {
        let waiting = self.get_mut(place)?.waiting.pop_front()?;
        self.waiting_total -= 1;
        Some(waiting)
    }

    /// Everything that waits, of all peers.
    pub fn take_waiting(&mut self) -> Vec<Waiting> {
        self.waiting_total = 0;
        self.peers
            .iter_mut()
            .flatten()
            .flat_map(|peer| peer.waiting.drain(..))
            .collect()
    }

    /// Puts back what [`PeerTable::next_waiting`] gave.
    pub fn unwait(&mut self, place: Place, waiting: Waiting) {
        if let Some(peer) = self.get_mut(place) {
            peer.waiting.push_front(waiting);
            self.waiting_total += 1;
        }
    }

    /// Runs the protocol's timers: rekeys, retries, keepalives. Packets that waited too long go to `expired`.
    pub fn handle_timeout(&mut self, now: Timestamp, out: &mut Vec<Datagram>, expired: &mut Vec<Waiting>) {
        if now.mono < self.next_tick {
            return;
        }
        self.next_tick = now.mono + TICK;
        self.calm.try_reset_count();
        self.loaded.try_reset_count();
        for place in 0..self.peers.len() {
            let Some(peer) = &mut self.peers[place] else { continue };
            let due = peer.tunn.update_timers();
            // Without an endpoint the protocol has tried nothing: the packet's own time decides.
            if let Err(WireGuardError::ConnectionExpired) = due
                && peer.path.is_some()
            {
                expired.extend(peer.waiting.drain(..));
            }
            let limit = now.mono.saturating_sub(WAIT_LIMIT);
            while peer.waiting.front().is_some_and(|waiting| waiting.since < limit) {
                expired.extend(peer.waiting.pop_front());
            }
            let message = match due {
                Ok(message) => message,
                Err(_) => peer.revive(now),
            };
            let (Some(message), Some(path)) = (message, peer.path) else {
                continue;
            };
            let bytes = self.seal_control(place, message);
            out.push(Datagram::control(path, bytes));
        }
        self.waiting_total = self.peers.iter().flatten().map(|peer| peer.waiting.len()).sum();
    }

    /// The monotonic nanoseconds of the next tick.
    pub fn poll_timeout(&self) -> u64 {
        self.next_tick
    }

    /// What each tunnel has done.
    pub fn stats(&self, now: Timestamp) -> Vec<PeerStats> {
        let peers = self.peers.iter().flatten();
        let stats = peers.map(|peer| PeerStats {
            name: peer.config.name.clone(),
            public_key: base64(&peer.config.public_key),
            endpoint: peer.path.map(|path| path.remote),
            last_handshake_age: peer.last_handshake.map(|at| now.mono.saturating_sub(at)),
            rx_bytes: peer.rx_bytes,
            tx_bytes: peer.tx_bytes,
        });
        stats.collect()
    }

    /// Recognises a message and lets handshakes through the gate.
    fn screen(
        &mut self,
        now: Timestamp,
        path: OuterPath,
        datagram: BytesMut,
        out: &mut Vec<Datagram>,
    ) -> Result<WgKind, DatagramDrop> {
        let reserved = datagram.get(1..4).ok_or(DatagramDrop::Malformed)?;
        if reserved != [0, 0, 0] {
            return Err(DatagramDrop::Malformed);
        }
        let message = Packet::from_bytes(datagram)
            .try_into_wg()
            .map_err(|_| DatagramDrop::Malformed)?;
        match message {
            WgKind::Data(_) | WgKind::CookieReply(_) => return Ok(message),
            WgKind::HandshakeInit(_) => {}
            WgKind::HandshakeResp(ref response) => {
                // It answers an initiation of ours, so it costs nothing that we did not ask for.
                self.by_index(response.receiver_idx.get())?;
            }
        }
        let initiation = matches!(message, WgKind::HandshakeInit(_));
        if !self.gate.check(now) && !self.by_endpoint.contains_key(&path.remote) {
            return Err(DatagramDrop::Flood);
        }
        let checked = self.calm.verify_packet(path.remote, into_packet(message));
        let message = checked.map_err(|result| match result {
            TunnResult::Err(error) => reason(&error),
            TunnResult::Done | TunnResult::WriteToNetwork(_) | TunnResult::WriteToTunnel(_) => DatagramDrop::Unexpected,
        })?;
        if !initiation {
            return Ok(message);
        }
        let known = self
            .by_endpoint
            .get(&path.remote)
            .and_then(|place| self.peers[*place].as_mut());
        match self.gate.admit(now, known.map(|peer| &mut peer.passed_gate)) {
            Load::Calm => Ok(message),
            Load::Loaded => match self.loaded.verify_packet(path.remote, into_packet(message)) {
                Ok(message) if self.gate.agree(path.remote.ip()) => Ok(message),
                Ok(_) => Err(DatagramDrop::Flood),
                Err(TunnResult::WriteToNetwork(_)) if !self.gate.answer() => Err(DatagramDrop::Flood),
                Err(TunnResult::WriteToNetwork(cookie)) => {
                    out.push(Datagram::control(path, take_bytes(into_packet(cookie))));
                    Err(DatagramDrop::Cookie)
                }
                Err(TunnResult::Err(error)) => Err(reason(&error)),
                Err(TunnResult::Done | TunnResult::WriteToTunnel(_)) => Err(DatagramDrop::Unexpected),
            },
        }
    }

    fn by_index(&self, index: u32) -> Result<usize, DatagramDrop> {
        self.by_index.get(&index).copied().ok_or(DatagramDrop::UnknownIndex)
    }

    /// Takes the bytes of a message of the protocol, and learns the receiver index that it announces.
    fn seal_control(&mut self, place: usize, message: WgKind) -> BytesMut {
        let announced = match &message {
            WgKind::HandshakeInit(init) => Some(init.sender_idx.get()),
            WgKind::HandshakeResp(response) => Some(response.sender_idx.get()),
            WgKind::CookieReply(_) | WgKind::Data(_) => None,
        };
        let bytes = take_bytes(into_packet(message));
        if let Some(peer) = &mut self.peers[place] {
            peer.tx_bytes += bytes.len() as u64;
            if let Some(index) = announced {
                // The library frees an index with its session; what it no longer uses is forgotten here too, so that
                // a peer has about ten.
                let (index_table, by_index) = (&self.index_table, &mut self.by_index);
                peer.indexes.retain(|old| {
                    let used = index_table.in_use(*old);
                    if !used {
                        by_index.remove(old);
                    }
                    used
                });
                peer.indexes.push(index);
                by_index.insert(index, place);
            }
        }
        bytes
    }

    fn add_peer(&mut self, config: &PeerConfig) {
        let tunn = Tunn::new(
            self.private.clone(),
            PublicKey::from(config.public_key),
            config.preshared_key,
            config.persistent_keepalive,
            self.index_table.clone(),
            self.calm.clone(),
        );
        let peer = Peer {
            id: PeerId(self.next_id),
            errors: ErrorBudget::default(),
            path: config.endpoint.map(|remote| self.path_to(remote)),
            path_id: None,
            config: config.clone(),
            own: Cell::new(None),
            tunn,
            indexes: Vec::new(),
            waiting: VecDeque::new(),
            last_handshake: None,
            answered: None,
            confirmed: false,
            passed_gate: 0,
            last_revival: 0,
            rx_bytes: 0,
            tx_bytes: 0,
        };
        self.next_id += 1;
        let place = self.peers.iter().position(Option::is_none).unwrap_or_else(|| {
            self.peers.push(None);
            self.peers.len() - 1
        });
        self.peers[place] = Some(peer);
        self.by_key.insert(config.public_key, place);
    }

    /// Returns the number of the path that a new endpoint replaces.
    fn update_peer(&mut self, place: usize, new: &PeerConfig) -> Option<PathId> {
        let path = new.endpoint.map(|remote| self.path_to(remote));
        let peer = self.peers[place].as_mut()?;
        if peer.config.preshared_key != new.preshared_key {
            peer.tunn.set_preshared_key(new.preshared_key);
        }
        if peer.config.persistent_keepalive != new.persistent_keepalive {
            peer.tunn.set_persistent_keepalive(new.persistent_keepalive);
        }
        let moved = peer.config.endpoint != new.endpoint && path.is_some();
        peer.config = new.clone();
        if !moved {
            return None;
        }
        peer.path = path;
        let left = peer.path_id.take();
        self.by_endpoint.retain(|_, at| *at != place);
        left
    }

    /// The path to a configured endpoint: the system picks the local address.
    fn path_to(&self, remote: SocketAddr) -> OuterPath {
        let unspecified: IpAddr = match remote {
            SocketAddr::V4(_) => std::net::Ipv4Addr::UNSPECIFIED.into(),
            SocketAddr::V6(_) => std::net::Ipv6Addr::UNSPECIFIED.into(),
        };
        OuterPath {
            remote,
            local: SocketAddr::new(unspecified, self.port),
        }
    }
}

impl Peer {
    /// What records say of it.
    pub fn info(&self) -> PeerInfo {
        peer_info(&self.config)
    }

    /// Packets that wait for its session.
    pub fn waiting(&self) -> impl Iterator<Item = &Waiting> {
        self.waiting.iter()
    }

    /// Whether any packet waits.
    pub fn has_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// Persistent keepalive keeps trying after the protocol has given up, once an interval.
    fn revive(&mut self, now: Timestamp) -> Option<WgKind> {
        let interval = u64::from(self.config.persistent_keepalive.filter(|seconds| *seconds > 0)?) * 1_000_000_000;
        self.path?;
        if now.mono < self.last_revival + interval {
            return None;
        }
        self.last_revival = now.mono;
        self.tunn.format_handshake_initiation(false).map(Into::into)
    }
}

fn into_packet(message: WgKind) -> Packet {
    match message {
        WgKind::HandshakeInit(packet) => packet.into_bytes(),
        WgKind::HandshakeResp(packet) => packet.into_bytes(),
        WgKind::CookieReply(packet) => packet.into_bytes(),
        WgKind::Data(packet) => packet.into_bytes(),
    }
}

fn take_bytes(mut packet: Packet) -> BytesMut {
    std::mem::take(packet.buf_mut())
}

fn reason(error: &WireGuardError) -> DatagramDrop {
    match error {
        WireGuardError::InvalidMac => DatagramDrop::InvalidMac,
        WireGuardError::InvalidAeadTag | WireGuardError::WrongKey => DatagramDrop::Unauthentic,
        WireGuardError::DuplicateCounter
        | WireGuardError::InvalidCounter
        | WireGuardError::WrongTai64nTimestamp
        | WireGuardError::InvalidTai64nTimestamp => DatagramDrop::Replayed,
        WireGuardError::NoCurrentSession | WireGuardError::WrongIndex => DatagramDrop::UnknownIndex,
        WireGuardError::IncorrectPacketLength
        | WireGuardError::WrongPacketType
        | WireGuardError::InvalidPacket
        | WireGuardError::DestinationBufferTooSmall => DatagramDrop::Malformed,
        WireGuardError::UnexpectedPacket | WireGuardError::LockFailed | WireGuardError::ConnectionExpired => {
            DatagramDrop::Unexpected
        }
    }
}

/// What records say of a peer.
pub fn peer_info(config: &PeerConfig) -> PeerInfo {
    PeerInfo {
        name: config.name.clone(),
        user: config.user.clone(),
        groups: config.groups.clone(),
        public_key: base64(&config.public_key),
    }
}

/// Base64 of a key, as WireGuard's tools write it.
pub fn base64(key: &[u8; 32]) -> String {
    base64::engine::general_purpose::STANDARD.encode(key)
}
