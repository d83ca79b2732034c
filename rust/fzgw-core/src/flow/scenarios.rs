//! The scenarios of the flow rules, by number, at the engine's public edge and under simulated time. Those that need a
//! tunnel are in `gateway/scenarios.rs`.

use super::Purpose;
use super::current::{record_packet, record_path, record_peer, record_standing};
use super::record::{Activity, ConnState, EndReason, IcmpErrors, OuterPath};
use super::{
    Counted, FlowRecord, FlowTable, Limits, PacketScope, PathId, PeerId, Record, Side, Standing, Timestamp, Untracked,
    Verdict,
};
use crate::packet::{PacketInfo, TcpFlags};
use crate::testkit::{echo, icmp_error, tcp, udp};

mod facts;
mod fragments;
mod reports;

const SECOND: u64 = 1_000_000_000;
const WALL: u64 = 1_700_000_000 * SECOND;
const PEER: PeerId = PeerId(1);
const CLIENT: &str = "100.64.0.2:4000";
const SERVER: &str = "192.0.2.1:80";
const SYN: u8 = TcpFlags::SYN;
const ACK: u8 = TcpFlags::ACK;
const FIN: u8 = TcpFlags::FIN;
const RST: u8 = TcpFlags::RST;

struct Engine {
    table: FlowTable,
    path: PathId,
    now: u64,
}

impl Engine {
    fn new() -> Self {
        Self::with(Limits::default())
    }

    fn with(limits: Limits) -> Self {
        let purpose = Purpose {
            records: true,
            updates: true,
            openings: false,
            rules: false,
        };
        let mut table = FlowTable::new(limits, purpose).unwrap();
        let path = table.add_path(path(1));
        Self { table, path, now: 0 }
    }

    fn at(&mut self, seconds: f64) -> &mut Self {
        self.now = (seconds * 1e9) as u64;
        self
    }

    fn moment(&self) -> Timestamp {
        Timestamp {
            mono: self.now,
            wall: WALL + self.now,
        }
    }

    fn handle(&mut self, peer: PeerId, side: Side, packet: &[u8], verdict: Verdict) -> Counted {
        self.pass(peer, side, &PacketInfo::parse(packet).unwrap(), verdict)
    }

    fn pass(&mut self, peer: PeerId, side: Side, packet: &PacketInfo, verdict: Verdict) -> Counted {
        let now = self.moment();
        let path = self.path;
        let scope = PacketScope::begin(&mut self.table, side, now);
        record_peer(peer);
        record_packet(packet);
        record_standing(Standing {
            verdict,
            rule: None,
            resource: None,
            domain: None,
        });
        record_path(path);
        drop(scope);
        self.table.take_counted()
    }

    /// A packet that the peer sends.
    fn up(&mut self, packet: &[u8]) -> Counted {
        self.handle(PEER, Side::FromPeer, packet, Verdict::Allow)
    }

    /// A packet to the peer.
    fn down(&mut self, packet: &[u8]) -> Counted {
        self.handle(PEER, Side::ToPeer, packet, Verdict::Allow)
    }

    fn deny(&mut self, packet: &[u8]) {
        self.handle(PEER, Side::FromPeer, packet, Verdict::Deny);
    }

    fn tick(&mut self) -> &mut Self {
        let now = self.moment();
        self.table.handle_timeout(now);
        self
    }

    /// The close records since the last call; open and update records go unseen.
    fn closed(&mut self) -> Vec<FlowRecord> {
        let mut flows = self.told();
        flows.retain(|flow| flow.activity == Activity::Close);
        flows
    }

    /// All records of flows since the last call.
    fn told(&mut self) -> Vec<FlowRecord> {
        let records = self.table.drain_records();
        records
            .filter_map(|record| {
                if let Record::Flow(flow) = record {
                    Some(flow)
                } else {
                    None
                }
            })
            .collect()
    }

    fn shut_down(&mut self) -> Vec<FlowRecord> {
        while self.table.close_some(EndReason::Shutdown, 100) {}
        self.closed()
    }

    fn only(&mut self) -> FlowRecord {
        let mut flows = self.shut_down();
        assert_eq!(flows.len(), 1, "one flow: {flows:#?}");
        flows.remove(0)
    }

    fn untracked(&self, reason: Untracked) -> u64 {
        self.table
            .ledger()
            .sides
            .iter()
            .map(|side| side.untracked[reason as usize].packets)
            .sum()
    }
}

impl Drop for Engine {
    /// L2 holds at the end of every scenario.
    fn drop(&mut self) {
        if !std::thread::panicking() {
            for side in self.table.ledger().sides {
                assert!(side.balanced(), "L2: {side:?}");
            }
        }
    }
}

fn path(number: u16) -> OuterPath {
    OuterPath {
        remote: ([203, 0, 113, 1], number).into(),
        local: ([198, 51, 100, 1], 51820).into(),
    }
}

/// A segment from the client.
fn seg(flags: u8, payload: &[u8]) -> Vec<u8> {
    tcp(CLIENT, SERVER, flags, payload)
}

/// A segment from the server.
fn back(flags: u8, payload: &[u8]) -> Vec<u8> {
    tcp(SERVER, CLIENT, flags, payload)
}

fn packets(flow: &FlowRecord) -> (u64, u64) {
    (flow.total.out.packets, flow.total.r#in.packets)
}

fn reason(flow: &FlowRecord) -> Option<EndReason> {
    flow.end_reason
}

#[test]
fn scenario_01_a_syn_opens_one_flow() {
    let mut engine = Engine::new();
    engine.up(&seg(SYN, b""));
    let flow = engine.only();
    assert_eq!(packets(&flow), (1, 0));
    assert!(flow.initiator_known);
}

#[test]
fn scenario_02_a_syn_sent_again_before_any_reply_is_the_same_flow() {
    let mut engine = Engine::new();
    engine.up(&seg(SYN, b""));
    engine.up(&seg(SYN, b""));
    assert_eq!(packets(&engine.only()), (2, 0));
}

#[test]
fn scenario_03_a_syn_sent_again_after_a_lost_syn_ack_is_the_same_flow() {
    let mut engine = Engine::new();
    engine.up(&seg(SYN, b""));
    engine.down(&back(SYN | ACK, b""));
    engine.up(&seg(SYN, b""));
    assert_eq!(packets(&engine.only()), (2, 1));
}

#[test]
fn scenario_04_a_syn_after_the_initiator_moved_on_splits() {
    let mut engine = Engine::new();
    engine.up(&seg(SYN, b""));
    engine.down(&back(SYN | ACK, b""));
    engine.up(&seg(ACK, b""));
    engine.up(&seg(SYN, b""));
    let first = engine.closed();
    assert_eq!(first.iter().map(packets).collect::<Vec<_>>(), [(2, 1)]);
    assert_eq!(reason(&first[0]), Some(EndReason::Reused));
    assert_eq!(packets(&engine.only()), (1, 0));
}

#[test]
fn scenario_05_a_bare_ack_opens_nothing() {
    let mut engine = Engine::new();
    engine.up(&seg(ACK, b""));
    assert_eq!(engine.untracked(Untracked::Stray), 1);
    assert_eq!(engine.shut_down(), []);
}

#[test]
fn scenario_06_a_payload_opens_mid_stream() {
    let mut engine = Engine::new();
    engine.up(&seg(ACK, &[0; 100]));
    let flow = engine.only();
    assert_eq!((packets(&flow), flow.total.out.payload), ((1, 0), 100));
    assert!(!flow.initiator_known);
}

/// R6, with what else opens nothing: no flags at all, SYN with FIN, SYN with RST; payload does not help.
#[test]
fn scenario_07_fin_and_rst_open_nothing_either_way() {
    let mut engine = Engine::new();
    for flags in [FIN, FIN | ACK, RST, RST | ACK, 0, SYN | FIN, SYN | RST] {
        engine.up(&seg(flags, b""));
        engine.up(&seg(flags, b"payload"));
        engine.down(&back(flags, b""));
    }
    assert_eq!(engine.untracked(Untracked::Stray), 21);
    assert_eq!(engine.shut_down(), []);
}

fn established(engine: &mut Engine) {
    engine.at(1.0).up(&seg(SYN, b""));
    engine.down(&back(SYN | ACK, b""));
    engine.up(&seg(ACK, b""));
}

#[test]
fn scenario_08_fin_both_ways_ends_once_with_the_last_packet() {
    let mut engine = Engine::new();
    established(&mut engine);
    engine.at(2.0).up(&seg(FIN | ACK, b""));
    engine.at(3.0).down(&back(FIN | ACK, b""));
    engine.at(5.0).tick();
    assert_eq!(engine.closed(), [], "within its delay");
    engine.at(5.1).tick();
    let closed = engine.closed();
    assert_eq!(closed.len(), 1);
    assert_eq!(reason(&closed[0]), Some(EndReason::Fin));
    assert_eq!(closed[0].end, WALL + 3 * SECOND);
    assert_eq!(engine.at(60.0).tick().shut_down(), [], "exactly one close record");
}

#[test]
fn scenario_09_the_final_ack_belongs_to_the_flow_and_later_ones_are_stray() {
    let mut engine = Engine::new();
    established(&mut engine);
    engine.at(2.0).up(&seg(FIN | ACK, b""));
    engine.at(3.0).down(&back(FIN | ACK, b""));
    engine.at(3.1).up(&seg(ACK, b""));
    // No timer runs: the delay is looked at when a packet comes (R17).
    engine.at(5.1).up(&seg(ACK, b""));
    assert_eq!(engine.untracked(Untracked::Stray), 1);
    let flow = engine.only();
    assert_eq!(packets(&flow), (4, 2));
    assert_eq!(flow.end, WALL + 31 * SECOND / 10);
}

#[test]
fn scenario_10_a_late_ack_of_an_idle_flow_is_stray() {
    let mut engine = Engine::new();
    established(&mut engine);
    engine.at(1202.0).up(&seg(ACK, b""));
    assert_eq!(engine.untracked(Untracked::Stray), 1);
    assert_eq!(reason(&engine.only()), Some(EndReason::Idle));
}

#[test]
fn scenario_11_12_an_rst_ends_the_flow_and_is_counted_either_way() {
    for from_client in [true, false] {
        let mut engine = Engine::new();
        established(&mut engine);
        let expected = if from_client { (3, 1) } else { (2, 2) };
        if from_client {
            engine.up(&seg(RST, b""));
        } else {
            engine.down(&back(RST, b""));
        }
        engine.at(4.0).tick();
        let closed = engine.closed();
        assert_eq!(closed.iter().map(packets).collect::<Vec<_>>(), [expected]);
        assert_eq!(reason(&closed[0]), Some(EndReason::Rst));
    }
}

#[test]
fn scenario_13_fin_one_way_then_silence_is_idle() {
    let mut engine = Engine::new();
    established(&mut engine);
    engine.at(2.0).up(&seg(FIN | ACK, b""));
    engine.at(1202.0).tick();
    assert_eq!(engine.closed(), []);
    engine.at(1202.1).tick();
    assert_eq!(reason(&engine.only()), Some(EndReason::Idle));
}

#[test]
fn scenario_14_silent_for_exactly_the_limit_is_open_and_one_tick_more_is_closed() {
    let mut engine = Engine::new();
    engine.at(1.0).up(&udp(CLIENT, SERVER, b"hello"));
    engine.now = 121 * SECOND;
    engine.tick();
    assert_eq!(engine.closed(), []);
    engine.now += 1;
    engine.tick();
    let flow = engine.only();
    assert_eq!((reason(&flow), flow.end), (Some(EndReason::Idle), WALL + SECOND));
}

#[test]
fn scenario_15_udp_request_and_reply() {
    let mut engine = Engine::new();
    engine.up(&udp(CLIENT, SERVER, b"hello"));
    engine.down(&udp(SERVER, CLIENT, b"world!"));
    let flow = engine.only();
    assert_eq!(packets(&flow), (1, 1));
    assert_eq!((flow.total.out.payload, flow.total.r#in.payload), (5, 6));
    assert_eq!(reason(&flow), Some(EndReason::Shutdown));
}

#[test]
fn scenario_16_a_syn_ack_first_means_that_its_receiver_began() {
    let mut engine = Engine::new();
    engine.down(&back(SYN | ACK, b""));
    let flow = engine.only();
    assert_eq!((flow.src_ip.to_string(), flow.src_port), ("100.64.0.2".into(), 4000));
    assert_eq!(packets(&flow), (0, 1));
    assert!(flow.initiator_known);
}

#[test]
fn scenario_18_19_20_paths_are_listed_and_split_no_flow() {
    let cases: [(&[u16], usize, u32); 4] = [
        (&[1, 2], 2, 2),
        (&[1, 2, 1], 3, 3),
        (&[1, 1, 1], 1, 1),
        (&[1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17], 16, 17),
    ];
    for (remotes, listed, total) in cases {
        let mut engine = Engine::new();
        for (number, remote) in remotes.iter().enumerate() {
            engine.path = engine.table.add_path(path(*remote));
            engine.at(number as f64).up(&udp(CLIENT, SERVER, b"x"));
        }
        let flow = engine.only();
        assert_eq!((flow.paths.len(), flow.paths_total), (listed, total), "{remotes:?}");
        assert_eq!(flow.paths[0].since, WALL);
        if listed > 1 {
            assert_eq!(flow.paths[1].since, WALL + SECOND, "stamped by its first packet");
            assert_eq!(
                flow.paths.last().map(|seen| seen.path.remote.port()),
                remotes.last().copied()
            );
        }
        assert_eq!(flow.total.out.packets, remotes.len() as u64);
    }
}

#[test]
fn scenario_21_a_packet_that_fails_half_way_leaves_no_half_record() {
    let mut engine = Engine::new();
    let now = engine.moment();
    let packet = PacketInfo::parse(&udp(CLIENT, SERVER, b"x")).unwrap();
    let scope = PacketScope::begin(&mut engine.table, Side::ToPeer, now);
    record_peer(PeerId(9));
    record_packet(&packet);
    drop(scope);
    assert_eq!(engine.table.take_counted(), Counted::Nothing);
    engine.up(&udp(CLIENT, SERVER, b"x"));
    assert_eq!(engine.only().peer, PEER, "the next packet is clean");
}

#[test]
fn scenario_22_flow_logs_off_makes_no_records() {
    let mut engine = Engine::new();
    engine.table.configure(Limits::default(), Purpose::default(), 1);
    engine.up(&seg(SYN, b""));
    assert_eq!(engine.table.ledger().opened_flows, 0);
    assert_eq!(engine.shut_down(), []);
}

#[test]
fn scenario_23_one_tuple_of_two_peers_is_two_flows() {
    let mut engine = Engine::new();
    for peer in [PeerId(1), PeerId(2)] {
        engine.handle(peer, Side::FromPeer, &udp(CLIENT, SERVER, b"x"), Verdict::Allow);
    }
    assert_eq!(engine.shut_down().len(), 2);
}

#[test]
fn scenario_25_a_server_that_reaches_in_is_the_initiator() {
    let mut engine = Engine::new();
    engine.down(&tcp("192.0.2.1:5000", "100.64.0.2:22", SYN, b""));
    engine.up(&tcp("100.64.0.2:22", "192.0.2.1:5000", SYN | ACK, b""));
    let flow = engine.only();
    assert_eq!(flow.direction, super::record::Direction::Inbound);
    assert_eq!((flow.src_ip.to_string(), flow.dst_port), ("192.0.2.1".into(), 22));
    assert_eq!(packets(&flow), (1, 1));
}

/// R12: one flow by identifier; a reply seen first means that its receiver began.
#[test]
fn scenario_26_echo_is_one_flow_by_identifier() {
    let mut engine = Engine::new();
    for (client, server) in [("100.64.0.2", "192.0.2.1"), ("fd00:64::2", "2001:db8::1")] {
        engine.up(&echo(client, server, 7, true));
        engine.down(&echo(server, client, 7, false));
        engine.up(&echo(client, server, 8, true));
        engine.down(&echo(server, client, 9, false));
    }
    let flows = engine.shut_down();
    assert_eq!(flows.len(), 6);
    for flow in &flows {
        let expected = match flow.src_port {
            7 => (1, 1),
            8 => (1, 0),
            _ => (0, 1),
        };
        assert_eq!(packets(flow), expected);
        assert!(flow.icmp == Some((8, 0)) || flow.icmp == Some((128, 0)));
    }
}

/// R13: the error is counted on its own, and ends a flow that never had an answer.
#[test]
fn scenario_27_port_unreachable_ends_a_flow_that_had_no_answer() {
    let mut engine = Engine::new();
    let question = udp(CLIENT, SERVER, b"hello");
    engine.up(&question);
    engine.down(&icmp_error("192.0.2.1", "100.64.0.2", 3, 3, &question));
    let closed = engine.closed();
    assert_eq!(closed.iter().map(packets).collect::<Vec<_>>(), [(1, 0)]);
    assert_eq!(reason(&closed[0]), Some(EndReason::IcmpUnreachable));
    assert_eq!(closed[0].conn_state, ConnState::S0, "Zeek's");
    assert_eq!(
        closed[0].icmp_errors,
        [IcmpErrors {
            kind: 3,
            code: 3,
            packets: 1,
            bytes: 61
        }]
    );
    assert_eq!(
        engine.table.ledger().sides[Side::ToPeer as usize].icmp_errors.packets,
        1
    );
}

#[test]
fn scenario_28_too_big_is_counted_and_the_flow_goes_on() {
    let mut engine = Engine::new();
    established(&mut engine);
    let big = seg(ACK, &[0; 1000]);
    engine.up(&big);
    engine.down(&icmp_error("192.0.2.9", "100.64.0.2", 3, 4, &big[..28]));
    assert_eq!(engine.closed(), []);
    let flow = engine.only();
    assert_eq!(packets(&flow), (3, 1));
    assert_eq!(
        flow.icmp_errors,
        [IcmpErrors {
            kind: 3,
            code: 4,
            packets: 1,
            bytes: 56
        }]
    );
}

/// R23: few keys, and the attempts add up.
#[test]
fn scenario_30_ten_thousand_denied_ports_or_hosts_are_few_records() {
    for hosts in [false, true] {
        let mut engine = Engine::new();
        for n in 0..10_000u32 {
            let destination = if hosts {
                format!("10.{}.{}.{}:80", n >> 16, n >> 8 & 255, n & 255)
            } else {
                format!("192.0.2.1:{}", n + 1)
            };
            engine.deny(&tcp(CLIENT, &destination, SYN, b""));
        }
        let flows = engine.shut_down();
        assert_eq!(flows.len(), if hosts { 513 } else { 257 });
        assert_eq!(flows.iter().map(|flow| flow.attempts.packets).sum::<u64>(), 10_000);
        assert!(
            flows
                .iter()
                .all(|flow| packets(flow) == (0, 0) && flow.verdict == Verdict::Deny)
        );
        assert_eq!(engine.table.ledger().attempts.packets, 10_000, "L2b");
    }
}

#[test]
fn a_denied_flow_ends_after_thirty_silent_seconds() {
    let mut engine = Engine::new();
    engine.deny(&seg(SYN, b""));
    engine.at(20.0).deny(&seg(ACK, b"whatever its flags"));
    engine.at(50.0).tick();
    assert_eq!(engine.closed(), []);
    engine.at(50.1).tick();
    let flow = engine.only();
    assert_eq!((flow.attempts.packets, flow.src_port, flow.dst_port), (2, 0, 80));
}

/// A table of 100,000 flows for eight peers, as scenario 33 has it.
fn for_eight_peers() -> Engine {
    let limits = Limits {
        max_flows: 100_000,
        open_after: 3600 * SECOND,
        ..Limits::default()
    };
    let mut engine = Engine::with(limits);
    let purpose = Purpose {
        records: true,
        ..<_>::default()
    };
    engine.table.configure(limits, purpose, 8);
    engine
}

/// R26: one peer's scan cannot evict another peer's flow, and every evicted flow is recorded. Memory is bounded by the
/// peer's share: a scan of a million tuples takes the slots of 12,500 flows.
#[test]
fn scenario_33_a_scan_of_a_million_tuples_evicts_its_own_flows() {
    let mut engine = for_eight_peers();
    let quiet = udp("100.64.0.3:1", SERVER, b"");
    for peer in 2..=8 {
        engine.handle(PeerId(peer), Side::FromPeer, &quiet, Verdict::Allow);
    }
    let mut syn = tcp("100.64.0.2:4000", "192.0.2.1:80", SYN, b"");
    let mut evicted = 0;
    for n in 0..1_000_000u32 {
        // Another address for each 50,000 ports.
        syn[17] = (n / 50_000) as u8;
        syn[22..24].copy_from_slice(&(n as u16 % 50_000 + 1).to_be_bytes());
        engine.at(f64::from(n) * 1e-5).up(&syn);
        if n % 10_000 == 9_999 {
            for flow in engine.closed() {
                assert_eq!(
                    (flow.peer, reason(&flow), packets(&flow)),
                    (PEER, Some(EndReason::Evicted), (1, 0))
                );
                evicted += 1;
            }
        }
    }
    assert_eq!(engine.table.ledger().live_flows, 12_500 + 7);
    assert_eq!(evicted, 1_000_000 - 12_500);
    assert!(engine.table.slots() <= 12_500 + 7 + 4096, "{}", engine.table.slots());
    assert_eq!(engine.shut_down().len(), 12_500 + 7);
}

/// R26: a flood of SYNs from distinct sources outside to one peer takes that peer's share and no more.
#[test]
fn r26_a_syn_flood_from_outside_takes_one_peers_share() {
    let mut engine = for_eight_peers();
    engine.handle(
        PeerId(2),
        Side::FromPeer,
        &udp("100.64.0.3:1", SERVER, b""),
        Verdict::Allow,
    );
    let mut syn = tcp("198.18.0.1:4000", "100.64.0.2:80", SYN, b"");
    for n in 0..200_000u32 {
        syn[12..16].copy_from_slice(&(0xc612_0000 + n).to_be_bytes());
        engine.at(f64::from(n) * 1e-5).down(&syn);
        if n % 10_000 == 9_999 {
            assert!(engine.closed().iter().all(|flow| flow.peer == PEER));
        }
    }
    assert_eq!(engine.table.ledger().live_flows, 12_500 + 1);
    assert!(engine.table.slots() <= 12_500 + 1 + 4096);
    assert!(engine.shut_down().iter().any(|flow| flow.peer == PeerId(2)));
}

/// R26: what was active lately stays.
#[test]
fn r26_the_least_recently_active_goes_first() {
    let mut engine = Engine::with(Limits {
        max_flows: 3,
        ..Limits::default()
    });
    let from = |port: u16| udp(&format!("100.64.0.2:{port}"), SERVER, b"");
    for (second, port) in [1, 2, 3, 1, 4, 2].into_iter().enumerate() {
        engine.at(second as f64).up(&from(port));
    }
    let gone: Vec<_> = engine.closed().iter().map(|flow| flow.src_port).collect();
    assert_eq!(gone, [2, 3]);
}

/// R26: where the table is full, the peer that holds most loses one.
#[test]
fn a_full_table_takes_from_the_peer_that_holds_most() {
    let limits = Limits {
        max_flows: 10,
        max_flows_per_peer: Some(9),
        ..Limits::default()
    };
    let mut engine = Engine::with(limits);
    for n in 0..9 {
        engine
            .at(n.into())
            .up(&udp(&format!("100.64.0.2:{}", n + 1), SERVER, b""));
    }
    for n in 0..3 {
        engine.at(20.0 + f64::from(n));
        let packet = udp(&format!("100.64.0.3:{}", n + 1), SERVER, b"");
        engine.handle(PeerId(2), Side::FromPeer, &packet, Verdict::Allow);
    }
    let evicted = engine.closed();
    assert_eq!(
        evicted
            .iter()
            .map(|flow| (flow.peer, flow.src_port))
            .collect::<Vec<_>>(),
        [(PEER, 1), (PEER, 2)]
    );
}

/// R22: a super-packet counts as the segments that travel, headers and all.
#[test]
fn scenario_34_a_super_packet_is_its_segments() {
    let mut engine = Engine::new();
    established(&mut engine);
    let info = PacketInfo::parse(&seg(ACK, &[0; 43 * 1380 + 100]))
        .unwrap()
        .segmented(1380);
    let counted = engine.pass(PEER, Side::FromPeer, &info, Verdict::Allow);
    let again = engine.pass(PEER, Side::FromPeer, &info, Verdict::Allow);
    engine.table.take_back(again);
    assert_ne!(counted, Counted::Nothing);
    let flow = engine.only();
    assert_eq!(flow.total.out.packets, 2 + 44);
    assert_eq!(flow.total.out.bytes, 2 * 40 + 43 * 1420 + 140);
    assert_eq!(flow.total.out.payload, 43 * 1380 + 100);
}

/// R10, R22: of a super-packet that goes back into what was sent, those of its segments are sent again that begin there.
#[test]
fn scenario_34_segments_sent_again_are_counted_one_by_one() {
    let at = |seq: u32, payload: usize| {
        let mut packet = seg(ACK, &vec![0; payload]);
        packet[24..28].copy_from_slice(&seq.to_be_bytes());
        PacketInfo::parse(&packet).unwrap().segmented(1000)
    };
    let mut engine = Engine::new();
    established(&mut engine);
    // 12 segments; 11 of them again and 3 new ones; then one that begins within the last.
    for (seq, payload) in [(5_000, 12_000), (6_000, 14_000), (19_500, 2_000)] {
        engine.pass(PEER, Side::FromPeer, &at(seq, payload), Verdict::Allow);
    }
    let tcp = engine.only().tcp.unwrap();
    assert_eq!(tcp.retransmits_out, 12);
    assert!(tcp.history.as_str().ends_with("TT"), "{}", tcp.history.as_str());
}

/// R6: after a restart in the middle of a download the peer's bare ACKs open nothing, the server's first payload does.
#[test]
fn scenario_38_a_restart_in_the_middle_of_a_download() {
    let mut engine = Engine::new();
    engine.up(&seg(ACK, b""));
    engine.down(&back(ACK, &[0; 1000]));
    engine.up(&seg(ACK, b""));
    assert_eq!(engine.untracked(Untracked::Stray), 1);
    let flow = engine.only();
    assert!(!flow.initiator_known);
    assert_eq!(flow.direction, super::record::Direction::Inbound);
    assert_eq!(packets(&flow), (1, 1));
}

/// R16: durations are monotonic, and the step is noted.
#[test]
fn scenario_35_a_stepped_wall_clock_changes_no_duration() {
    for step in [3600 * SECOND as i64, -3600 * SECOND as i64] {
        let mut engine = Engine::new();
        engine.at(1.0).tick().up(&udp(CLIENT, SERVER, b"x"));
        engine.at(11.0);
        let after = Timestamp {
            mono: engine.now,
            wall: (WALL + engine.now).wrapping_add_signed(step),
        };
        engine.table.handle_timeout(after);
        engine.up(&udp(CLIENT, SERVER, b"x"));
        let records: Vec<Record> = engine.table.drain_records().collect();
        let notes: Vec<_> = records
            .iter()
            .filter(|record| matches!(record, Record::Note(_)))
            .collect();
        assert_eq!(
            notes,
            [&Record::Note(super::record::Note::ClockStep {
                at: after.wall,
                by: step
            })]
        );
        let flow = engine.only();
        assert_eq!((flow.duration(), flow.start), (10 * SECOND, WALL + SECOND));
    }
}

/// R9: Linux waits up to 33 s between two SYNs of one connect.
#[test]
fn scenario_41_a_connect_to_a_silent_host_is_one_flow() {
    let mut engine = Engine::new();
    let mut at = 0.0;
    engine.at(at).up(&seg(SYN, b""));
    for wait in [1.0, 1.0, 1.0, 1.0, 1.0, 2.0, 4.0, 8.0, 16.0, 33.0] {
        at += wait;
        engine.at(at).tick().up(&seg(SYN, b""));
    }
    engine.at(at + 75.0).tick();
    assert_eq!(engine.closed(), []);
    engine.at(at + 75.1).tick();
    let flow = engine.only();
    assert_eq!((packets(&flow), reason(&flow)), ((11, 0), Some(EndReason::Idle)));
}

#[test]
fn scenario_42_a_failed_write_takes_its_counts_back() {
    let mut engine = Engine::new();
    engine.up(&udp(CLIENT, SERVER, b"one"));
    let second = engine.up(&udp(CLIENT, SERVER, b"second"));
    engine.table.take_back(second);
    let flow = engine.only();
    assert_eq!((packets(&flow), flow.total.out.payload), ((1, 0), 3));
}

/// R21: also when the flow was opened or ended by the packet that was not written.
#[test]
fn a_failed_write_is_taken_back_from_opened_and_ended_flows() {
    let mut engine = Engine::new();
    let opened = engine.up(&udp(CLIENT, SERVER, b"one"));
    engine.table.take_back(opened);
    assert_eq!(engine.shut_down(), [], "a flow whose only packet never left is no flow");

    established(&mut engine);
    let last = engine.up(&seg(ACK, b"data"));
    engine.up(&seg(SYN, b""));
    engine.table.take_back(last);
    assert_eq!(engine.closed().iter().map(packets).collect::<Vec<_>>(), [(2, 1)]);

    for stray in [seg(FIN, b""), icmp_error("192.0.2.1", "100.64.0.2", 3, 3, b"")] {
        let counted = engine.up(&stray);
        engine.table.take_back(counted);
    }
}

/// R7, R8: in the close delay a new SYN ends the delay at once, from either side.
#[test]
fn a_syn_in_the_close_delay_begins_the_next_flow() {
    let mut engine = Engine::new();
    engine.up(&seg(SYN, b""));
    engine.down(&back(RST | ACK, b""));
    engine.up(&seg(SYN, b""));
    let refused = engine.closed();
    assert_eq!(
        (packets(&refused[0]), reason(&refused[0])),
        ((1, 1), Some(EndReason::Rst))
    );
    assert_eq!(packets(&engine.only()), (1, 0));
}

/// R27: flows inside their close delay keep their own reason.
#[test]
fn shutdown_keeps_the_reason_of_closing_flows() {
    let mut engine = Engine::new();
    engine.up(&seg(SYN, b""));
    engine.down(&back(RST | ACK, b""));
    engine.up(&udp(CLIENT, SERVER, b""));
    let mut reasons: Vec<_> = engine
        .shut_down()
        .iter()
        .map(|flow| flow.end_reason.unwrap().as_str())
        .collect();
    reasons.sort_unstable();
    assert_eq!(reasons, ["rst", "shutdown"]);
}

/// The flows of a removed peer end, and no other peer's.
#[test]
fn a_removed_peer_ends_its_flows() {
    let mut engine = Engine::new();
    engine.up(&udp(CLIENT, SERVER, b""));
    engine.deny(&seg(SYN, b""));
    engine.handle(PeerId(2), Side::FromPeer, &udp(CLIENT, SERVER, b""), Verdict::Allow);
    engine.table.close_peer(PEER);
    let closed = engine.closed();
    assert_eq!(closed.len(), 2);
    assert!(
        closed
            .iter()
            .all(|flow| flow.peer == PEER && reason(flow) == Some(EndReason::PeerRemoved))
    );
    assert_eq!(engine.only().peer, PeerId(2));
}
