//! Replays of captures that are made here: raw IP frames at given times.

use super::*;
use crate::capture::LinkType;
use crate::flow::record::{Activity, Direction, Note};
use crate::packet::TcpFlags;
use crate::testkit::{config, echo, fragments_v4, icmp_error, peer, tcp, udp};

const SECOND: u64 = 1_000_000_000;
const START: u64 = 1_700_000_000 * SECOND;
const SYN: u8 = TcpFlags::SYN;
const ACK: u8 = TcpFlags::ACK;
const A: &str = "10.0.0.1:4000";
const B: &str = "192.0.2.1:80";

struct Run {
    state: ReplayState,
    records: Vec<Record>,
}

impl Run {
    fn new(gateway: Option<GatewayConfig>) -> Self {
        let options = ReplayOptions {
            gateway,
            limits: Limits::default(),
            purpose: Purpose {
                records: true,
                updates: true,
                ..<_>::default()
            },
            version: "0".into(),
        };
        Self {
            state: ReplayState::new(&options).unwrap(),
            records: Vec::new(),
        }
    }

    fn at(&mut self, seconds: f64, packet: &[u8]) {
        self.cut(seconds, packet, packet.len());
    }

    /// A frame of which the capture kept `kept` bytes.
    fn cut(&mut self, seconds: f64, packet: &[u8], kept: usize) {
        let frame = Frame {
            link: LinkType::RAW,
            time: START.wrapping_add_signed((seconds * 1e9) as i64),
            bytes: &packet[..kept],
            wire_len: packet.len() as u32,
        };
        while self.state.handle_timers(frame.time) {}
        self.state.handle_frame(&frame);
    }

    /// All records of flows, in order.
    fn end(&mut self) -> Vec<FlowRecord> {
        while self.state.close_some(10) {}
        self.state.drain_records(&mut self.records, &mut Vec::new());
        assert!(self.state.ledger().balanced(), "{:?}", self.state.ledger());
        let flows = self.records.iter().filter_map(|record| match record {
            Record::Flow(flow) => Some(flow.clone()),
            Record::Gap(_) | Record::Note(_) => None,
        });
        flows.collect()
    }
}

/// Without a configuration there are no peers and both sides may open flows.
#[test]
fn without_peers_either_side_opens() {
    for (from, to) in [
        (A, B),
        (B, A),
        ("[fd00::1]:9", "[2001:db8::1]:80"),
        ("10.0.0.1:9", "10.0.0.1:7"),
    ] {
        let mut run = Run::new(None);
        run.at(0.0, &tcp(from, to, SYN, b""));
        run.at(0.1, &tcp(to, from, SYN | ACK, b""));
        run.at(0.2, &tcp(from, to, ACK, b"hello"));
        let flows = run.end();
        assert_eq!(flows.len(), 1, "{from} {to}");
        let flow = &flows[0];
        assert_eq!(
            format!("{}:{}", flow.src_ip, flow.src_port),
            from.replace(['[', ']'], "")
        );
        assert_eq!((flow.total.out.packets, flow.total.r#in.packets), (2, 1));
        assert_eq!((flow.peer, flow.direction), (PeerId::NOBODY, Direction::Unknown));
        assert_eq!((flow.end_reason, flow.paths.len()), (Some(EndReason::CaptureEnd), 0));
    }
}

/// R12, R13, R15 without peers: echo, errors and fragments find their flow, whoever sent first.
#[test]
fn without_peers_echoes_errors_and_fragments_meet() {
    for (near, far) in [("10.0.0.1", "192.0.2.1"), ("192.0.2.1", "10.0.0.1")] {
        let mut run = Run::new(None);
        run.at(0.0, &echo(near, far, 7, true));
        run.at(0.1, &echo(far, near, 7, false));
        let question = udp(&format!("{near}:53"), &format!("{far}:99"), &[0; 1000]);
        for piece in fragments_v4(&question, 3, 400) {
            run.at(0.2, &piece);
        }
        run.at(0.3, &icmp_error("198.51.100.9", near, 3, 3, &question));
        let flows = run.end();
        assert_eq!(flows.len(), 2);
        for flow in flows {
            let packets = (flow.total.out.packets, flow.total.r#in.packets);
            if flow.protocol == 17 {
                assert_eq!((packets, flow.icmp_errors.len()), ((3, 0), 1));
                assert_eq!(flow.end_reason, Some(EndReason::IcmpUnreachable));
            } else {
                assert_eq!(packets, (1, 1));
            }
        }
    }
}

/// R20: lengths come from the IP header, also where the capture kept only the first bytes.
#[test]
fn a_snaplen_changes_no_count() {
    let segment = tcp(A, B, ACK, &[0; 1000]);
    let mut run = Run::new(None);
    run.cut(0.0, &segment, 34);
    run.cut(0.1, &segment, 64);
    run.at(0.2, &segment);
    let flows = run.end();
    assert_eq!((flows.len(), flows[0].total.out.packets), (1, 3));
    assert_eq!((flows[0].total.out.bytes, flows[0].total.out.payload), (3 * 1040, 3000));

    let mut run = Run::new(None);
    run.cut(0.0, &segment, 33);
    run.cut(0.0, &segment, 10);
    assert_eq!(run.end(), []);
    assert_eq!(run.state.ledger().not_ip, [("cut", 2)]);
}

/// Scenario 40: an IP length that the frame does not have is malformed, one of 0 takes the frame's.
#[test]
fn scenario_40_in_captures() {
    let mut longer = udp(A, B, &[0; 100]);
    longer[2..4].copy_from_slice(&500u16.to_be_bytes());
    let mut zero = udp(A, B, &[0; 3000]);
    zero[2..4].copy_from_slice(&[0, 0]);
    let mut zero_v6 = udp("[fd00::1]:1", "[fd00::2]:2", &[0; 3000]);
    zero_v6[4..6].copy_from_slice(&[0, 0]);
    let mut run = Run::new(None);
    run.at(0.0, &longer);
    run.at(0.1, &zero);
    run.at(0.2, &zero_v6);
    let flows = run.end();
    let bytes: Vec<_> = flows
        .iter()
        .map(|flow| (flow.src_ip.is_ipv6(), flow.total.out.bytes))
        .collect();
    assert_eq!(bytes, [(false, 3028), (true, 3048)]);
    let dropped = run.state.ledger().stats.sides[0].dropped[Drop::Malformed as usize].packets;
    assert_eq!(dropped, 1);
}

/// R16, R17: time goes by the packets' clock, and a step back neither breaks it nor lengthens a flow.
#[test]
fn time_is_the_packets() {
    let mut run = Run::new(None);
    run.at(0.0, &udp(A, B, b"x"));
    run.at(1.0, &udp(A, B, b"x"));
    run.at(-3600.0, &udp(A, B, b"x"));
    run.at(-3599.0, &udp(A, B, b"x"));
    run.at(-3478.9, &udp(A, B, b"x"));
    run.at(-3478.8, &udp("10.0.0.9:1", B, b"x"));
    let flows: Vec<_> = run
        .end()
        .into_iter()
        .filter(|flow| flow.activity == Activity::Close)
        .collect();
    assert_eq!(flows.len(), 3);
    assert_eq!(
        (flows[0].duration(), flows[0].end_reason),
        (2 * SECOND, Some(EndReason::Idle))
    );
    assert_eq!((flows[0].start, flows[0].total.out.packets), (START, 4));
    let notes: Vec<_> = run
        .records
        .iter()
        .filter(|record| matches!(record, Record::Note(_)))
        .collect();
    let [Record::Note(Note::ClockStep { by, .. })] = notes[..] else {
        panic!("{notes:?}");
    };
    assert_eq!(*by, -3601 * SECOND as i64);
}

/// R18, R19: open and update records are made as the packets' time passes.
#[test]
fn long_flows_are_told_while_they_run() {
    let mut run = Run::new(None);
    for second in 0..200 {
        run.at(second.into(), &udp(A, B, b"x"));
    }
    let flows = run.end();
    let activities: Vec<_> = flows.iter().map(|flow| flow.activity).collect();
    assert_eq!(activities.first(), Some(&Activity::Open));
    assert_eq!(activities.last(), Some(&Activity::Close));
    assert!((5..=6).contains(&flows.len()), "{activities:?}");
    assert_eq!(flows.iter().map(|flow| flow.delta.out.packets).sum::<u64>(), 200);
}

/// With a configuration peers are found by their allowed IPs, on either side, and strangers are counted.
#[test]
fn with_a_configuration_peers_have_names() {
    let mut gateway = config();
    gateway.peers = vec![peer("laptop", 1, "100.64.0.2/32"), peer("phone", 2, "100.64.0.3/32")];
    let mut run = Run::new(Some(gateway));
    run.at(0.0, &udp("100.64.0.2:1", "192.0.2.1:53", b"x"));
    run.at(0.1, &udp("192.0.2.1:53", "100.64.0.2:1", b"x"));
    run.at(0.2, &udp("192.0.2.1:53", "100.64.0.3:1", b"x"));
    run.at(0.3, &udp("192.0.2.1:53", "100.64.0.9:1", b"x"));
    let directory = run.state.directory();
    let flows = run.end();
    let told: Vec<_> = flows
        .iter()
        .map(|flow| {
            (
                directory.peer(flow.peer).unwrap().name.as_str(),
                flow.direction,
                flow.total.r#in.packets,
            )
        })
        .collect();
    assert_eq!(
        told,
        [("laptop", Direction::Outbound, 1), ("phone", Direction::Inbound, 0)]
    );
    assert_eq!(
        run.state.ledger().stats.sides[1].dropped[Drop::NoPeer as usize].packets,
        1
    );
}

/// A packet from peer to peer crosses the device twice and is in a flow of each, as on the gateway.
#[test]
fn from_peer_to_peer_each_has_a_flow() {
    let mut gateway = config();
    gateway.peers = vec![peer("laptop", 1, "100.64.0.2/32"), peer("phone", 2, "100.64.0.3/32")];
    let mut run = Run::new(Some(gateway));
    for (from, to) in [("100.64.0.2:1", "100.64.0.3:2"), ("100.64.0.3:2", "100.64.0.2:1")] {
        let mut packet = udp(from, to, b"x");
        run.at(0.0, &packet);
        packet[8] -= 1;
        run.at(0.0, &packet);
    }
    let flows = run.end();
    let mut told: Vec<_> = flows
        .iter()
        .map(|flow| {
            (
                flow.peer.0,
                flow.direction,
                flow.total.out.packets,
                flow.total.r#in.packets,
            )
        })
        .collect();
    told.sort_unstable_by_key(|flow| flow.0);
    assert_eq!(
        told.iter().map(|flow| (flow.1, flow.2, flow.3)).collect::<Vec<_>>(),
        [(Direction::Outbound, 1, 1), (Direction::Inbound, 1, 1)]
    );
}

/// R13: redirects are dropped here as on the gateway.
#[test]
fn redirects_are_dropped() {
    let mut run = Run::new(None);
    run.at(0.0, &icmp_error("192.0.2.1", "10.0.0.1", 5, 1, &udp(A, B, b"x")));
    assert_eq!(run.end(), []);
    assert_eq!(
        run.state
            .ledger()
            .stats
            .sides
            .iter()
            .map(|side| side.dropped[Drop::Redirect as usize].packets)
            .sum::<u64>(),
        1
    );
}
