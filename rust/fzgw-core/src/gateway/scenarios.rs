//! A gateway and its clients, both ends of real tunnels, under simulated time and a bad network.
//!
//! The clients are gateways too: WireGuard is symmetrical, so a client is a state with one peer, whose allowed IPs are
//! everything. The protocol library's own clock is moved along with ours.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::BytesMut;
use mock_instant::thread_local::MockClock;

use super::{GatewayState, Output, Receipt};
use crate::config::{GatewayConfig, PeerConfig, ResourceConfig, RuleConfig};
use crate::ecn::Ecn;
use crate::flow::Purpose;
use crate::flow::record::{EndReason, OuterPath};
use crate::flow::{FlowRecord, Record, Side, Timestamp};
use crate::packet::{PacketInfo, TcpFlags, Transport};
use crate::peers::{MAX_WAITING, public_key};
use crate::stats::{DatagramDrop, Drop, Originated, RecordStats, Snapshot};
use crate::testkit::{config, echo, icmp_error, peer, tcp, udp};

mod fragments;
mod super_packets;

const SECOND: u64 = 1_000_000_000;
const GATEWAY: &str = "198.51.100.1:51820";
const SERVER: &str = "192.0.2.1:80";
const SYN: u8 = TcpFlags::SYN;
const ACK: u8 = TcpFlags::ACK;

/// One end: its state and what came out of it.
struct End {
    state: GatewayState,
    address: SocketAddr,
    /// Packets that it wrote to its TUN device.
    packets: Vec<BytesMut>,
    records: Vec<FlowRecord>,
}

/// Gateway and clients with a network between them.
struct Lab {
    now: u64,
    gateway: End,
    clients: Vec<End>,
    /// How a datagram fares: loss, duplication, reordering. Numbers come from a fixed sequence.
    loss_percent: u64,
    disorder: bool,
    /// The ECN field of every datagram when it arrives.
    outer: Ecn,
    random: u64,
    /// Datagrams that wait for their turn: (to the gateway, client, from, bytes).
    network: Vec<(bool, usize, SocketAddr, BytesMut)>,
}

fn client_key(number: usize) -> [u8; 32] {
    [number as u8 + 1; 32]
}

fn client_address(number: usize) -> String {
    format!("100.64.0.{}", number + 2)
}

impl Lab {
    fn new(clients: usize) -> Self {
        Self::with(clients, |_| {}, |_| {})
    }

    fn with(clients: usize, gateway: impl Fn(&mut GatewayConfig), client: impl Fn(&mut GatewayConfig)) -> Self {
        MockClock::set_time(Duration::ZERO);
        let mut of_gateway = config();
        for number in 0..clients {
            let allowed = format!("{}/32", client_address(number));
            let name = format!("client-{number}");
            of_gateway.peers.push(peer(&name, number as u8 + 1, &allowed));
        }
        gateway(&mut of_gateway);
        let gateway_key = public_key(&of_gateway.private_key);
        let ends = (0..clients).map(|number| {
            let mut config = config();
            config.private_key = client_key(number);
            config.addresses = vec![];
            config.purpose = Purpose::default();
            config.peers = vec![PeerConfig {
                public_key: gateway_key,
                allowed_ips: vec!["0.0.0.0/0".parse().unwrap(), "::/0".parse().unwrap()],
                endpoint: Some(GATEWAY.parse().unwrap()),
                ..peer("gateway", 0, "0.0.0.0/0")
            }];
            client(&mut config);
            let address = format!("203.0.113.{}:40000", number + 1);
            End::new(&config, &address)
        });
        Self {
            now: 0,
            clients: ends.collect(),
            gateway: End::new(&of_gateway, GATEWAY),
            loss_percent: 0,
            disorder: false,
            outer: Ecn::NOT_ECT,
            random: 0x9e37_79b9_7f4a_7c15,
            network: Vec::new(),
        }
    }

    fn moment(&self) -> Timestamp {
        Timestamp {
            mono: self.now,
            wall: 1_700_000_000 * SECOND + self.now,
        }
    }

    fn random(&mut self) -> u64 {
        // xorshift: all that a test needs, and the same in every run.
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random
    }

    /// The client's kernel sends a packet.
    fn send(&mut self, client: usize, packet: &[u8]) {
        let now = self.moment();
        self.clients[client].state.handle_packet(now, BytesMut::from(packet));
        self.settle();
    }

    /// Somebody behind the gateway sends a packet.
    fn reply(&mut self, packet: &[u8]) {
        let now = self.moment();
        self.gateway.state.handle_packet(now, BytesMut::from(packet));
        self.settle();
    }

    /// Moves time on in steps of 50 ms, timers and all.
    fn pass(&mut self, seconds: f64) {
        let end = self.now + (seconds * 1e9) as u64;
        while self.now < end {
            self.now += SECOND / 20;
            MockClock::set_time(Duration::from_nanos(self.now));
            let now = self.moment();
            self.gateway.state.handle_timeout(now);
            for client in &mut self.clients {
                client.state.handle_timeout(now);
            }
            self.settle();
        }
    }

    /// Carries datagrams until none is left.
    fn settle(&mut self) {
        loop {
            for (number, client) in self.clients.iter_mut().enumerate() {
                let from = client.address;
                self.network
                    .extend(client.flush().into_iter().map(|(_, bytes)| (true, number, from, bytes)));
            }
            for (to, bytes) in self.gateway.flush() {
                let client = self.clients.iter().position(|client| client.address == to);
                self.network
                    .extend(client.map(|client| (false, client, self.gateway.address, bytes)));
            }
            if self.network.is_empty() {
                return;
            }
            let place = if self.disorder {
                self.random() as usize % self.network.len()
            } else {
                0
            };
            let (to_gateway, client, from, bytes) = self.network.remove(place);
            if self.random() % 100 < self.loss_percent {
                continue;
            }
            if self.disorder && self.random() % 100 < 5 {
                self.network.push((to_gateway, client, from, bytes.clone()));
            }
            let now = self.moment();
            let end = if to_gateway {
                &mut self.gateway
            } else {
                &mut self.clients[client]
            };
            let path = OuterPath {
                remote: from,
                local: end.address,
            };
            end.state.handle_datagram(now, path, self.outer, bytes);
        }
    }

    fn snapshot(&self) -> Snapshot {
        let records = RecordStats::default();
        let snapshot = self.gateway.state.snapshot(self.moment(), records);
        assert!(snapshot.balanced(), "L1, L2, L2b: {snapshot:#?}");
        snapshot
    }

    fn dropped(&self, side: Side, reason: Drop) -> u64 {
        self.snapshot().stats.sides[side as usize].dropped[reason as usize].packets
    }

    fn shut_down(&mut self) -> Vec<FlowRecord> {
        self.gateway.state.give_up_waiting();
        while self.gateway.state.close_some(10) {}
        self.gateway.flush();
        assert_eq!(self.snapshot().stats.sides[Side::ToPeer as usize].waiting.packets, 0);
        std::mem::take(&mut self.gateway.records)
    }
}

impl End {
    fn new(config: &GatewayConfig, address: &str) -> Self {
        let address: SocketAddr = address.parse().unwrap();
        let state = GatewayState::new(config, address.port()).unwrap();
        Self {
            state,
            address,
            packets: Vec::new(),
            records: Vec::new(),
        }
    }

    /// Takes packets and records out; returns the datagrams with their destinations.
    fn flush(&mut self) -> Vec<(SocketAddr, BytesMut)> {
        let Output { tun, udp } = self.state.take_output();
        self.packets.extend(tun.into_iter().map(|to_tun| to_tun.packet));
        let (mut records, mut openings) = (Vec::new(), Vec::new());
        self.state.drain_records(&mut records, &mut openings);
        for record in records {
            if let Record::Flow(flow) = record {
                self.records.push(flow);
            }
        }
        udp.into_iter()
            .map(|to_udp| (to_udp.datagram.path.remote, to_udp.datagram.bytes))
            .collect()
    }
}

fn question(client: usize) -> Vec<u8> {
    udp(&format!("{}:4000", client_address(client)), "192.0.2.1:53", b"question")
}

fn answer(client: usize) -> Vec<u8> {
    udp("192.0.2.1:53", &format!("{}:4000", client_address(client)), b"answer")
}

#[test]
fn a_packet_brings_up_the_tunnel_and_crosses_it_both_ways() {
    let mut lab = Lab::new(2);
    for client in 0..2 {
        lab.send(client, &question(client));
        assert_eq!(lab.gateway.packets.pop().as_deref(), Some(&question(client)[..]));
        lab.reply(&answer(client));
        assert_eq!(lab.clients[client].packets.pop().as_deref(), Some(&answer(client)[..]));
    }
    let flows = lab.shut_down();
    assert_eq!(flows.len(), 2);
    for flow in flows {
        assert_eq!((flow.total.out.packets, flow.total.r#in.packets), (1, 1));
        assert_eq!(flow.paths[0].path.local, GATEWAY.parse().unwrap());
        assert_eq!(flow.end_reason, Some(EndReason::Shutdown));
    }
}

/// Scenario 17, R21: what waits for a session is in no flow; it is dropped when nobody comes.
#[test]
fn scenario_17_a_reply_without_a_session_is_not_in_the_flow() {
    let mut lab = Lab::new(1);
    lab.reply(&answer(0));
    assert_eq!(lab.snapshot().stats.sides[Side::ToPeer as usize].waiting.packets, 1);
    assert_eq!(lab.snapshot().flows.opened_flows, 0);
    lab.pass(95.0);
    assert_eq!(lab.dropped(Side::ToPeer, Drop::NoSession), 1);
    assert_eq!(lab.shut_down(), []);
}

/// R21: what waits is sent and counted when the session comes, and the queue is bounded.
#[test]
fn r21_packets_wait_in_a_bounded_queue_and_are_counted_when_they_leave() {
    let mut lab = Lab::new(1);
    for _ in 0..MAX_WAITING + 10 {
        lab.reply(&answer(0));
    }
    assert_eq!(lab.dropped(Side::ToPeer, Drop::NoSession), 10);
    lab.pass(3.0);
    lab.send(0, &question(0));
    lab.pass(0.1);
    assert_eq!(lab.clients[0].packets.len(), MAX_WAITING);
    let flow = &lab.shut_down()[0];
    // The client's question may have come first or last: both ways are one flow.
    assert_eq!(flow.total.out.packets + flow.total.r#in.packets, MAX_WAITING as u64 + 1);
}

/// R2, scenario 24: a source that is not the peer's, or that a longer prefix gives to another.
#[test]
fn scenario_24_a_peer_that_lies_about_its_source_opens_nothing() {
    let widen = |config: &mut GatewayConfig| config.peers[0].allowed_ips = vec!["100.64.0.0/24".parse().unwrap()];
    let mut lab = Lab::with(2, widen, |_| {});
    lab.send(0, &udp("100.64.0.9:1", SERVER, b"within its own prefix"));
    assert_eq!(lab.gateway.packets.len(), 1);
    lab.send(0, &udp("10.9.9.9:1", SERVER, b"nobody's"));
    lab.send(0, &udp("100.64.0.3:1", SERVER, b"the other peer's"));
    assert_eq!(lab.dropped(Side::FromPeer, Drop::Spoofed), 2);
    assert_eq!(lab.gateway.packets.len(), 1);
    assert_eq!(lab.shut_down().len(), 1);
}

/// R2: an address that a reload gave to another peer, by a longer prefix or altogether, is no longer the old one's,
/// however many packets came from it before.
#[test]
fn r2_an_address_that_moved_is_the_old_peers_no_longer() {
    let mut lab = Lab::new(2);
    for _ in 0..3 {
        lab.send(0, &question(0));
    }
    let longer = vec![
        peer("client-0", 1, "100.64.0.0/24"),
        peer("client-1", 2, "100.64.0.2/32"),
    ];
    let other = vec![
        peer("client-0", 1, "100.64.0.9/32"),
        peer("client-1", 2, "100.64.0.2/32"),
    ];
    for (times, peers) in [longer, other].into_iter().enumerate() {
        let new = GatewayConfig { peers, ..config() };
        lab.gateway.state.reconfigure(&new);
        lab.send(0, &question(0));
        assert_eq!(lab.dropped(Side::FromPeer, Drop::Spoofed), times as u64 + 1);
    }
    assert_eq!(lab.gateway.packets.len(), 3);
}

/// R24, scenario 18: a peer that roams keeps its flow, and its replies find it.
#[test]
fn scenario_18_a_roaming_peer_keeps_its_flow_and_is_found() {
    let mut lab = Lab::new(1);
    lab.send(0, &question(0));
    lab.pass(1.0);
    lab.clients[0].address = "203.0.113.77:9999".parse().unwrap();
    lab.send(0, &question(0));
    lab.reply(&answer(0));
    assert_eq!(lab.clients[0].packets.len(), 1);
    let flow = &lab.shut_down()[0];
    assert_eq!(flow.paths.len(), 2);
    assert_eq!(flow.paths[1].path.remote, "203.0.113.77:9999".parse().unwrap());
    assert_eq!(flow.paths[1].since - flow.paths[0].since, SECOND);
}

/// A datagram that does not authenticate moves nobody: an attacker cannot steer a peer's traffic to himself.
#[test]
fn a_forged_datagram_moves_no_peer() {
    let mut lab = Lab::new(1);
    lab.send(0, &question(0));
    let now = lab.moment();
    lab.clients[0]
        .state
        .handle_packet(now, BytesMut::from(&question(0)[..]));
    let (_, mut forged) = lab.clients[0].flush().pop().unwrap();
    let original = forged.clone();
    let last = forged.len() - 1;
    forged[last] ^= 1;
    let attacker = OuterPath {
        remote: "203.0.113.66:6".parse().unwrap(),
        local: GATEWAY.parse().unwrap(),
    };
    lab.gateway.state.handle_datagram(now, attacker, Ecn::NOT_ECT, forged);
    let real = OuterPath {
        remote: lab.clients[0].address,
        ..attacker
    };
    lab.gateway
        .state
        .handle_datagram(now, real, Ecn::NOT_ECT, original.clone());
    // Replayed from elsewhere: authentic once, not twice.
    lab.gateway.state.handle_datagram(now, attacker, Ecn::NOT_ECT, original);
    let dropped = lab.snapshot().stats.datagrams.dropped;
    assert_eq!(dropped[DatagramDrop::Unauthentic as usize], 1);
    assert_eq!(dropped[DatagramDrop::Replayed as usize], 1);
    lab.reply(&answer(0));
    assert_eq!(lab.clients[0].packets.len(), 1);
}

/// Scenario 40: counted as malformed, and nothing else is touched.
#[test]
fn scenario_40_a_malformed_packet_is_dropped() {
    let mut lab = Lab::new(1);
    lab.send(0, &question(0));
    let mut bad = question(0);
    bad[3] = 200;
    let now = lab.moment();
    // The client is honest about its own packets, so the lie is told below it.
    let place = lab.clients[0].state.peers.route("192.0.2.1".parse().unwrap()).unwrap();
    let mut control = Vec::new();
    let sealed = lab.clients[0]
        .state
        .peers
        .seal(now, place, BytesMut::from(&bad[..]), 0, &mut control)
        .unwrap();
    let path = OuterPath {
        remote: lab.clients[0].address,
        local: GATEWAY.parse().unwrap(),
    };
    lab.gateway.state.handle_datagram(now, path, Ecn::NOT_ECT, sealed.bytes);
    assert_eq!(lab.dropped(Side::FromPeer, Drop::Malformed), 1);
    lab.reply(&bad);
    assert_eq!(lab.dropped(Side::ToPeer, Drop::Malformed), 1);
    assert_eq!(lab.shut_down().len(), 1);
}

fn only_wiki(config: &mut GatewayConfig) {
    config.resources = vec![ResourceConfig {
        name: "wiki".into(),
        addresses: vec!["192.0.2.0/24".parse().unwrap()],
        ports: vec![crate::config::PortRange::Tcp(80, 80), crate::config::PortRange::Icmp],
        domain: None,
    }];
    config.rules = Some(vec![RuleConfig {
        name: "wiki".into(),
        groups: vec![],
        users: vec![],
        peers: vec!["client-0".into()],
        resources: vec!["wiki".into()],
        inbound: false,
    }]);
}

/// R23, scenario 29: a denied flow with its rule, ICMP prohibited to the peer, nothing forwarded.
#[test]
fn scenario_29_a_denied_syn_is_told_and_recorded() {
    let mut lab = Lab::with(1, only_wiki, |_| {});
    lab.send(0, &tcp("100.64.0.2:4000", "192.0.2.1:25", TcpFlags::SYN, b""));
    assert!(lab.gateway.packets.is_empty());
    let told = lab.clients[0].packets.pop().unwrap();
    let Transport::IcmpError { kind: 3, code: 13, .. } = PacketInfo::parse(&told).unwrap().transport else {
        panic!("not administratively prohibited");
    };
    assert_eq!(
        lab.snapshot().stats.originated[Originated::ProhibitedToPeer as usize],
        1
    );
    let directory = lab.gateway.state.directory();
    let flow = lab.shut_down().remove(0);
    assert_eq!(
        (flow.attempts.packets, flow.dst_port, flow.total.out.packets),
        (1, 25, 0)
    );
    assert_eq!(directory.name(flow.rule.unwrap()), "default-deny");
}

/// R23: at most 100 answers a second for one peer, however much it tries.
#[test]
fn r23_prohibited_is_told_at_most_a_hundred_times_a_second() {
    let mut lab = Lab::with(1, only_wiki, |_| {});
    for port in 1000..1500 {
        lab.send(
            0,
            &tcp("100.64.0.2:4000", &format!("192.0.2.1:{port}"), TcpFlags::SYN, b""),
        );
    }
    assert_eq!(lab.clients[0].packets.len(), 100);
    lab.pass(1.0);
    lab.send(0, &tcp("100.64.0.2:4000", "192.0.2.1:25", TcpFlags::SYN, b""));
    assert_eq!(lab.clients[0].packets.len(), 101);
}

/// P1: replies and ICMP errors follow their flow; an inbound opening needs a rule of its own.
#[test]
fn p1_replies_follow_their_flow_and_strangers_do_not() {
    let mut lab = Lab::with(1, only_wiki, |_| {});
    lab.send(0, &tcp("100.64.0.2:4000", SERVER, TcpFlags::SYN, b""));
    lab.reply(&tcp(SERVER, "100.64.0.2:4000", TcpFlags::SYN | TcpFlags::ACK, b""));
    lab.send(0, &echo("100.64.0.2", "192.0.2.1", 7, true));
    lab.reply(&echo("192.0.2.1", "100.64.0.2", 7, false));
    assert_eq!(lab.clients[0].packets.len(), 2);
    lab.reply(&tcp("192.0.2.1:5000", "100.64.0.2:22", TcpFlags::SYN, b""));
    assert_eq!(lab.dropped(Side::ToPeer, Drop::Denied), 1);
    assert_eq!(lab.clients[0].packets.len(), 2);
    // The stranger is told, out of the TUN device.
    assert_eq!(
        lab.snapshot().stats.originated[Originated::ProhibitedToOutside as usize],
        1
    );
}

/// P1: whatever peers and outsiders send, in whatever order, nothing of a peer without a rule passes, and nothing
/// reaches it. The oracle is the rule itself: only client 0 may open, and only TCP port 80 and echo of one network.
#[test]
fn p1_nothing_of_a_peer_without_a_rule_ever_passes() {
    let mut lab = Lab::with(2, only_wiki, |_| {});
    lab.disorder = true;
    for _ in 0..3000 {
        let client = (lab.random() % 2) as usize;
        let near = format!("{}:{}", client_address(client), 4000 + lab.random() % 4);
        let far = [
            "192.0.2.1:80",
            "192.0.2.1:25",
            "10.0.0.1:80",
            "100.64.0.2:80",
            "100.64.0.3:80",
        ];
        let far = far[lab.random() as usize % far.len()];
        let flags = [SYN, SYN | ACK, ACK, ACK | TcpFlags::FIN, TcpFlags::RST, SYN | 0xc0][lab.random() as usize % 6];
        let payload: &[u8] = if lab.random().is_multiple_of(2) {
            b""
        } else {
            b"payload"
        };
        let (from, to) = if lab.random().is_multiple_of(3) {
            (far, &*near)
        } else {
            (&*near, far)
        };
        let packet = match lab.random() % 4 {
            0 => udp(from, to, payload),
            1 => {
                let ip = |text: &str| text.split(':').next().unwrap_or_default().to_owned();
                echo(&ip(from), &ip(to), 7, lab.random().is_multiple_of(2))
            }
            _ => tcp(from, to, flags, payload),
        };
        if from == near {
            lab.send(client, &packet)
        } else {
            lab.reply(&packet)
        }
        if lab.random().is_multiple_of(200) {
            lab.pass(40.0);
        }
        for packet in lab.gateway.packets.drain(..) {
            let info = PacketInfo::parse(&packet).unwrap();
            // What the gateway tells an outsider on its own behalf.
            if matches!(info.transport, Transport::IcmpError { kind: 3, code: 13, .. }) {
                continue;
            }
            assert_eq!(info.src.to_string(), "100.64.0.2", "{info:?}");
            assert_eq!(info.dst.to_string(), "192.0.2.1", "{info:?}");
            let allowed = matches!(
                info.transport,
                Transport::Tcp { dst_port: 80, .. } | Transport::Echo { .. }
            );
            assert!(allowed, "{info:?}");
        }
        for packet in lab.clients[1].packets.drain(..) {
            let info = PacketInfo::parse(&packet).unwrap();
            assert!(
                matches!(info.transport, Transport::IcmpError { kind: 3, code: 13, .. }),
                "{info:?}"
            );
        }
    }
    let passed = lab.snapshot().stats.sides[Side::FromPeer as usize].forwarded.packets;
    assert!(passed > 50, "the rule was met: {passed}");
}

/// P1: peer to peer needs one rule; the second leg follows the flow that the first peer opened.
#[test]
fn p1_peer_to_peer_needs_one_rule() {
    let rules = |config: &mut GatewayConfig| {
        only_wiki(config);
        config.resources[0].addresses = vec!["100.64.0.3/32".parse().unwrap()];
    };
    let mut lab = Lab::with(2, rules, |_| {});
    lab.send(1, &question(1));
    let syn = tcp("100.64.0.2:4000", "100.64.0.3:80", TcpFlags::SYN, b"");
    lab.send(0, &syn);
    let hairpin = lab.gateway.packets.pop().unwrap();
    lab.reply(&hairpin);
    assert_eq!(lab.clients[1].packets.pop().as_deref(), Some(&syn[..]));
    // Somebody else who claims the first peer's address has no such flow.
    lab.reply(&tcp("100.64.0.2:5000", "100.64.0.3:80", TcpFlags::SYN, b""));
    assert_eq!(lab.dropped(Side::ToPeer, Drop::Denied), 1);
}

/// The kernel's own multicast on the device is nobody's, also where a peer's allowed IPs are everything.
#[test]
fn multicast_on_the_device_has_no_peer() {
    let all = |config: &mut GatewayConfig| config.peers[0].allowed_ips = vec!["::/0".parse().unwrap()];
    let mut lab = Lab::with(1, all, |_| {});
    lab.reply(&udp("[fe80::1]:1", "[ff02::16]:1", b""));
    lab.reply(&udp("198.51.100.9:1", "203.0.113.200:1", b"no such peer"));
    assert_eq!(lab.dropped(Side::ToPeer, Drop::NoPeer), 2);
}

/// L1 and L2 hold, and every packet that the gateway passed on came whole, over loss, duplication and disorder.
#[test]
fn a_bad_network_unbalances_nothing() {
    let mut lab = Lab::new(3);
    lab.loss_percent = 20;
    lab.disorder = true;
    for round in 0..400u64 {
        let client = (lab.random() % 3) as usize;
        match lab.random() % 5 {
            0 => lab.send(
                client,
                &tcp(
                    &format!("{}:{}", client_address(client), 1000 + round % 20),
                    SERVER,
                    TcpFlags::SYN,
                    b"",
                ),
            ),
            1 => lab.reply(&tcp(
                SERVER,
                &format!("{}:{}", client_address(client), 1000 + round % 20),
                TcpFlags::SYN | TcpFlags::ACK,
                b"",
            )),
            2 => lab.send(client, &question(client)),
            3 => lab.reply(&answer(client)),
            _ => lab.pass(2.0),
        }
        if round % 50 == 49 {
            lab.clients[client].address.set_port(41_000 + round as u16);
        }
        lab.snapshot();
    }
    let stats = lab.snapshot().stats;
    let forwarded = stats.sides[Side::FromPeer as usize].forwarded.packets;
    assert_eq!(forwarded, lab.gateway.packets.len() as u64);
    assert!(forwarded > 20, "the tunnel worked: {forwarded}");
    assert!(
        stats.datagrams.dropped[DatagramDrop::Replayed as usize] > 0,
        "duplicates were met"
    );
    let flows = lab.shut_down();
    let counted: u64 = flows
        .iter()
        .map(|flow| flow.delta.out.packets + flow.delta.r#in.packets)
        .sum();
    let untracked: u64 = lab
        .snapshot()
        .flows
        .sides
        .iter()
        .flat_map(|side| side.untracked)
        .map(|tally| tally.packets)
        .sum();
    let both: u64 = stats.sides.iter().map(|side| side.forwarded.packets).sum();
    assert_eq!(counted + untracked, both, "records add up to what was forwarded");
}

/// A tunnel rekeys without losing a packet, also where data flows one way only.
#[test]
fn a_trickle_crosses_several_rekeys() {
    for both_ways in [true, false] {
        let mut lab = Lab::new(1);
        let mut sent = 0;
        for _ in 0..420 {
            lab.send(0, &question(0));
            if both_ways {
                lab.reply(&answer(0));
            }
            sent += 1;
            lab.pass(1.0);
        }
        assert_eq!(lab.gateway.packets.len(), sent, "both ways: {both_ways}");
        assert_eq!(lab.clients[0].packets.len(), if both_ways { sent } else { 0 });
    }
}

/// The gateway starts the handshake where it knows the endpoint.
#[test]
fn the_gateway_initiates_to_a_configured_endpoint() {
    let knows = |config: &mut GatewayConfig| config.peers[0].endpoint = Some("203.0.113.1:40000".parse().unwrap());
    let mut lab = Lab::with(1, knows, |_| {});
    lab.reply(&answer(0));
    lab.pass(0.1);
    assert_eq!(lab.clients[0].packets.len(), 1);
    let flow = lab.shut_down().remove(0);
    assert_eq!(
        (flow.src_ip.to_string(), flow.total.out.packets),
        ("192.0.2.1".to_owned(), 1)
    );
}

/// Persistent keepalive finds a client again that was away for longer than the protocol tries.
#[test]
fn persistent_keepalive_never_gives_up() {
    let keepalive = |config: &mut GatewayConfig| config.peers[0].persistent_keepalive = Some(25);
    let mut lab = Lab::with(1, |_| {}, keepalive);
    lab.pass(1.0);
    assert!(lab.snapshot().peers[0].last_handshake_age.is_some());
    let address = lab.clients[0].address;
    lab.clients[0].address = "203.0.113.250:1".parse().unwrap();
    lab.loss_percent = 100;
    lab.pass(700.0);
    lab.loss_percent = 0;
    lab.clients[0].address = address;
    lab.pass(60.0);
    lab.reply(&answer(0));
    assert_eq!(lab.clients[0].packets.len(), 1);
}

/// A wrong preshared key, an unknown key and a wrong first code: silence.
#[test]
fn strangers_meet_silence() {
    let psk = |config: &mut GatewayConfig| config.peers[0].preshared_key = Some([9; 32]);
    let mut lab = Lab::with(1, psk, |_| {});
    lab.send(0, &question(0));
    lab.pass(10.0);
    assert_eq!(lab.snapshot().stats.sides[Side::FromPeer as usize].received.packets, 0);

    let mut lab = Lab::with(1, |config| config.peers.clear(), |_| {});
    lab.send(0, &question(0));
    assert!(lab.gateway.flush().is_empty());
    assert_eq!(
        lab.snapshot().stats.datagrams.dropped[DatagramDrop::UnknownPeer as usize],
        1
    );

    let mut lab = Lab::new(1);
    let now = lab.moment();
    lab.clients[0]
        .state
        .handle_packet(now, BytesMut::from(&question(0)[..]));
    let (_, mut initiation) = lab.clients[0].flush().pop().unwrap();
    initiation[130] ^= 1;
    let path = OuterPath {
        remote: lab.clients[0].address,
        local: GATEWAY.parse().unwrap(),
    };
    for garbage in [&initiation[..], b"", b"x", &[1, 0, 0, 0], &[4; 40], &[7; 2000]] {
        lab.gateway
            .state
            .handle_datagram(now, path, Ecn::NOT_ECT, BytesMut::from(garbage));
    }
    assert!(lab.gateway.flush().is_empty());
    assert_eq!(
        lab.snapshot().stats.datagrams.dropped[DatagramDrop::InvalidMac as usize],
        1
    );
}

/// Under load a stranger needs a cookie and, being honest, gets in with it; whoever is connected rekeys as ever.
#[test]
fn under_load_strangers_meet_cookies_and_get_in() {
    let slow = |config: &mut GatewayConfig| config.handshake_rate = 1;
    let mut lab = Lab::with(3, slow, |_| {});
    for client in 0..3 {
        lab.send(client, &question(client));
    }
    assert!(lab.snapshot().stats.datagrams.dropped[DatagramDrop::Cookie as usize] > 0);
    lab.pass(12.0);
    let connected = lab
        .snapshot()
        .peers
        .iter()
        .filter(|peer| peer.last_handshake_age.is_some())
        .count();
    assert_eq!(connected, 3);
}

/// Scenario 42 at the gateway: a failed write is `dropped{write}` and in no flow.
#[test]
fn scenario_42_a_failed_write_moves_to_dropped() {
    let mut lab = Lab::new(1);
    lab.send(0, &question(0));
    let now = lab.moment();
    lab.clients[0]
        .state
        .handle_packet(now, BytesMut::from(&question(0)[..]));
    let (_, bytes) = lab.clients[0].flush().pop().unwrap();
    let path = OuterPath {
        remote: lab.clients[0].address,
        local: GATEWAY.parse().unwrap(),
    };
    lab.gateway.state.handle_datagram(now, path, Ecn::NOT_ECT, bytes);
    let Output { tun, .. } = lab.gateway.state.take_output();
    assert!(matches!(tun[0].receipt, Receipt::Forwarded { .. }));
    lab.gateway.state.not_written(tun[0].receipt);
    assert_eq!(lab.dropped(Side::FromPeer, Drop::Write), 1);
    assert_eq!(lab.shut_down()[0].total.out.packets, 1);
}

/// P2, P3: an ICMP error answers for the flow that it quotes, towards that flow's own end, and for nothing else.
#[test]
fn p2_an_icmp_error_is_no_way_past_the_rules() {
    let mut lab = Lab::with(1, only_wiki, |_| {});
    lab.send(0, &tcp("100.64.0.2:4000", SERVER, SYN, b""));
    lab.gateway.packets.clear();
    let answer = tcp(SERVER, "100.64.0.2:4000", SYN | ACK, b"");
    lab.send(0, &icmp_error("100.64.0.2", "192.0.2.1", 3, 4, &answer));
    assert_eq!(lab.gateway.packets.len(), 1, "about its own flow");
    for elsewhere in ["10.0.0.1", "192.0.2.2", "100.64.0.3", "100.64.0.1"] {
        lab.send(0, &icmp_error("100.64.0.2", elsewhere, 3, 4, &answer));
    }
    assert_eq!(lab.gateway.packets.len(), 1);
    assert_eq!(lab.dropped(Side::FromPeer, Drop::Denied), 4);
}

/// P1, P4: a rule for those who reach in is no way out, but for the rest of a TCP connection that the log forgot.
#[test]
fn p4_a_rule_for_reaching_in_is_no_way_out() {
    let inbound = |config: &mut GatewayConfig| {
        only_wiki(config);
        config.resources[0].addresses = vec!["100.64.0.2/32".parse().unwrap()];
        config.resources[0].ports.push(crate::config::PortRange::Udp(53, 53));
        config.rules.as_mut().unwrap()[0].inbound = true;
    };
    let mut lab = Lab::with(1, inbound, |_| {});
    lab.send(0, &tcp("100.64.0.2:80", "10.0.0.1:5000", ACK, b"rest"));
    assert_eq!(lab.gateway.packets.len(), 1);
    for packet in [
        udp("100.64.0.2:53", "10.0.0.1:53", b"question"),
        echo("100.64.0.2", "10.0.0.1", 7, false),
        tcp("100.64.0.2:80", "10.0.0.1:80", SYN, b""),
        tcp("100.64.0.2:81", "10.0.0.1:80", ACK, b"data"),
    ] {
        lab.send(0, &packet);
    }
    assert_eq!(lab.gateway.packets.len(), 1);
    assert_eq!(lab.dropped(Side::FromPeer, Drop::Denied), 4);
}

/// P4 between peers: a keepalive probe of a connection that the log forgot still gets through both legs.
#[test]
fn p4_a_late_ack_passes_from_peer_to_peer() {
    let rules = |config: &mut GatewayConfig| {
        only_wiki(config);
        config.resources[0].addresses = vec!["100.64.0.3/32".parse().unwrap()];
    };
    let mut lab = Lab::with(2, rules, |_| {});
    lab.send(1, &question(1));
    let probe = tcp("100.64.0.2:4000", "100.64.0.3:80", ACK, b"");
    lab.send(0, &probe);
    let hairpin = lab.gateway.packets.pop().unwrap();
    lab.reply(&hairpin);
    assert_eq!(lab.clients[1].packets.pop().as_deref(), Some(&probe[..]));
}

/// R21: nothing is sent by a session that the other end has not confirmed.
#[test]
fn r21_an_unconfirmed_session_carries_nothing() {
    let psk = |config: &mut GatewayConfig| config.peers[0].preshared_key = Some([9; 32]);
    let mut lab = Lab::with(1, psk, |_| {});
    lab.send(0, &question(0));
    lab.reply(&answer(0));
    let snapshot = lab.snapshot();
    assert_eq!(snapshot.stats.sides[Side::ToPeer as usize].waiting.packets, 1);
    assert_eq!(snapshot.peers[0].last_handshake_age, None);
}

/// R2: a packet that waits for a peer is not sent to it after its address went to another.
#[test]
fn r2_a_waiting_packet_does_not_follow_the_old_peer() {
    let mut lab = Lab::new(2);
    lab.reply(&answer(0));
    let mut new = config();
    new.peers = vec![
        peer("client-0", 1, "100.64.0.9/32"),
        peer("client-1", 2, "100.64.0.2/32"),
    ];
    lab.gateway.state.reconfigure(&new);
    lab.send(0, &question(0));
    lab.pass(1.0);
    assert!(lab.clients[0].packets.is_empty());
    assert_eq!(lab.dropped(Side::ToPeer, Drop::NoSession), 1);
}

/// A reload keeps the tunnels and flows of peers that stay and ends those of peers that go.
#[test]
fn a_reload_touches_only_what_changed() {
    let mut lab = Lab::new(2);
    lab.send(0, &question(0));
    lab.send(1, &question(1));
    let mut new = config();
    new.peers = vec![PeerConfig {
        groups: vec!["new".into()],
        ..peer("client-0", 1, "100.64.0.2/32")
    }];
    lab.gateway.state.reconfigure(&new);
    lab.send(0, &question(0));
    lab.send(1, &question(1));
    assert_eq!(
        lab.gateway.packets.len(),
        3,
        "the second peer is gone, the first goes on"
    );
    let directory = lab.gateway.state.directory();
    let gone = std::mem::take(&mut lab.gateway.records);
    let gone: Vec<_> = gone
        .iter()
        .map(|flow| (flow.end_reason, directory.peer(flow.peer)))
        .collect();
    assert_eq!(gone.len(), 1);
    assert_eq!(gone[0].0, Some(EndReason::PeerRemoved));
    assert_eq!(
        gone[0].1.map(|info| info.name.as_str()),
        Some("client-1"),
        "its record still knows its name"
    );
    let kept = lab.shut_down().remove(0);
    assert_eq!(kept.total.out.packets, 2);
    assert_eq!(
        directory.peer(kept.peer).map(|info| info.groups.clone()),
        Some(vec!["new".into()])
    );
}
