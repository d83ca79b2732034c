//! Super-packets from the device (R22), and congestion marks between inner and outer packets (RFC 6040).

use super::*;
use crate::offload::checksum;
use crate::offload::{Arrived, Segmentation, VnetHeader, arrived};

const SIZE: u16 = 1_000;
const HEADERS: u64 = 28;

/// A burst of datagrams from the server as the kernel hands it over, and how it is cut.
fn burst(payload: &[u8]) -> (Vec<u8>, Segmentation) {
    let mut packet = udp("192.0.2.1:53", &format!("{}:4000", client_address(0)), payload);
    let transport = packet.len() - 20;
    let sum = checksum::pseudo_header(&packet, 17, transport);
    checksum::put(&mut packet, 26, sum);
    let header = VnetHeader {
        needs_checksum: true,
        gso_type: 5,
        header_len: HEADERS as u16,
        gso_size: SIZE,
        checksum_start: 20,
        checksum_offset: 6,
    };
    match arrived(header, &mut packet) {
        Arrived::Super(how) => (packet, how),
        other => panic!("{other:?}"),
    }
}

fn payload() -> Vec<u8> {
    (0..3_500u32).map(|at| (at * 7 % 251) as u8).collect()
}

/// A tunnel that is up, and a burst into it that has not left yet.
fn with_a_burst() -> Lab {
    let mut lab = Lab::new(1);
    lab.send(0, &question(0));
    let (packet, how) = burst(&payload());
    lab.reply_at_once(&packet, &how);
    lab
}

impl Lab {
    fn reply_at_once(&mut self, packet: &[u8], how: &Segmentation) {
        let now = self.moment();
        self.gateway.state.handle_super_packet(now, packet, how);
    }

    /// What the client's packets carried, in order.
    fn carried(&self) -> Vec<u8> {
        let payloads = self.clients[0].packets.iter().map(|packet| {
            assert!(PacketInfo::parse(packet).is_ok());
            assert!(checksum::segment_checksums_are_right(packet, 20));
            packet[HEADERS as usize..].to_vec()
        });
        payloads.collect::<Vec<_>>().concat()
    }
}

/// R22: four datagrams travel, and four are counted, headers and all.
#[test]
fn r22_a_super_packet_travels_and_counts_as_its_segments() {
    let mut lab = with_a_burst();
    let sent: Vec<usize> = lab
        .gateway
        .state
        .output
        .udp
        .iter()
        .map(|one| one.datagram.bytes.len())
        .collect();
    assert_eq!(sent.len(), 4);
    assert_eq!(sent[0], sent[2], "equal segments are equal datagrams");
    lab.settle();
    assert_eq!(lab.carried(), payload());
    let books = lab.snapshot().stats.sides[Side::ToPeer as usize];
    assert_eq!(
        (books.forwarded.packets, books.forwarded.bytes),
        (4, 3_500 + 4 * HEADERS)
    );
    assert_eq!(books.received, books.forwarded);
    let flow = &lab.shut_down()[0];
    assert_eq!(
        (flow.total.r#in.packets, flow.total.r#in.bytes, flow.total.r#in.payload),
        (4, 3_500 + 4 * HEADERS, 3_500)
    );
}

/// R21: without a session the segments wait one by one, and are counted when they leave.
#[test]
fn r21_a_super_packet_without_a_session_waits_as_its_segments() {
    let mut lab = Lab::new(1);
    let (packet, how) = burst(&payload());
    lab.reply_at_once(&packet, &how);
    let books = lab.snapshot().stats.sides[Side::ToPeer as usize];
    assert_eq!((books.waiting.packets, books.waiting.bytes), (4, 3_500 + 4 * HEADERS));
    lab.send(0, &question(0));
    lab.pass(3.0);
    assert_eq!(lab.carried(), payload());
    assert_eq!(lab.snapshot().stats.sides[Side::ToPeer as usize].forwarded.packets, 4);
}

/// Scenario 42: a segment that could not be sent is taken back, it alone.
#[test]
fn scenario_42_one_segment_that_cannot_be_sent_is_taken_back_alone() {
    let mut lab = with_a_burst();
    let last = lab.gateway.state.output.udp.pop().expect("four datagrams");
    lab.gateway.state.not_written(last.receipt);
    lab.settle();
    let books = lab.snapshot().stats.sides[Side::ToPeer as usize];
    assert_eq!(books.forwarded.packets, 3);
    assert_eq!(books.dropped[Drop::Write as usize].bytes, 500 + HEADERS);
    assert_eq!(lab.shut_down()[0].total.r#in.payload, 3_000);
}

/// R23: a denied super-packet is as many attempts as it has segments, and a broken one is malformed.
#[test]
fn a_super_packet_that_is_dropped_is_dropped_as_its_segments() {
    let rules = |config: &mut GatewayConfig| config.rules = Some(vec![]);
    let mut lab = Lab::with(1, rules, |_| {});
    let (packet, how) = burst(&payload());
    lab.reply_at_once(&packet, &how);
    assert_eq!(lab.dropped(Side::ToPeer, Drop::Denied), 4);
    assert_eq!(lab.snapshot().flows.attempts.packets, 4);
    let mut lying = packet.clone();
    lying[3] ^= 1;
    lab.reply_at_once(&lying, &how);
    lab.gateway.state.handle_broken_packet(77);
    assert_eq!(lab.dropped(Side::ToPeer, Drop::Malformed), 2);
}

/// RFC 6040: the outer packet has the inner one's mark.
#[test]
fn the_outer_packet_is_marked_as_the_inner_one() {
    let mut lab = Lab::new(1);
    lab.send(0, &question(0));
    for ecn in [Ecn::NOT_ECT, Ecn::ECT_1, Ecn::ECT_0, Ecn::CE] {
        let mut packet = answer(0);
        ecn.set(&mut packet);
        let now = lab.moment();
        lab.gateway.state.handle_packet(now, BytesMut::from(&packet[..]));
        assert_eq!(lab.gateway.state.output.udp[0].datagram.ecn, ecn);
        lab.settle();
    }
}

/// RFC 6040: congestion in the tunnel is told to a transport that hears of it, and a packet of another is dropped.
#[test]
fn congestion_in_the_tunnel_is_heard_or_the_packet_is_dropped() {
    let mut lab = Lab::new(1);
    lab.send(0, &question(0));
    lab.gateway.packets.clear();
    lab.outer = Ecn::CE;
    let mut packet = question(0);
    Ecn::ECT_0.set(&mut packet);
    lab.send(0, &packet);
    Ecn::CE.set(&mut packet);
    assert_eq!(lab.gateway.packets.pop().as_deref(), Some(&packet[..]));
    lab.send(0, &question(0));
    assert_eq!(lab.gateway.packets.len(), 0);
    assert_eq!(lab.dropped(Side::FromPeer, Drop::Ecn), 1);
    assert_eq!(lab.shut_down()[0].total.out.packets, 2);
}
