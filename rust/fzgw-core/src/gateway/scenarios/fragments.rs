//! R15 where access rules exist: fragments are held until the first one says whether they may pass.

use super::*;
use crate::flow::Untracked;
use crate::testkit::fragments_v4;

/// Fragments of one UDP datagram of 2,408 bytes above IP.
fn pieces(from: &str, to: &str, identification: u16) -> Vec<Vec<u8>> {
    fragments_v4(&udp(from, to, &[0; 2400]), identification, 480)
}

fn udp_to_wiki(config: &mut GatewayConfig) {
    only_wiki(config);
    config.resources[0].ports = vec![crate::config::PortRange::Udp(53, 53)];
}

fn waiting(lab: &Lab, side: Side) -> u64 {
    lab.snapshot().stats.sides[side as usize].waiting.packets
}

fn dropped(lab: &Lab, side: Side) -> u64 {
    lab.snapshot().stats.sides[side as usize].dropped[Drop::Fragment as usize].packets
}

/// Scenario 31 with rules: the later ones are held, and follow the first in their order, both ways.
#[test]
fn scenario_31_with_rules_fragments_wait_for_their_first() {
    let mut lab = Lab::with(1, udp_to_wiki, |_| {});
    let up = pieces("100.64.0.2:4000", "192.0.2.1:53", 9);
    for piece in [2, 1, 4, 3] {
        lab.send(0, &up[piece]);
    }
    assert_eq!((lab.gateway.packets.len(), waiting(&lab, Side::FromPeer)), (0, 4));
    lab.send(0, &up[0]);
    let passed: Vec<_> = lab.gateway.packets.iter().map(|packet| packet[6..8].to_vec()).collect();
    let expected: Vec<_> = [0, 2, 1, 4, 3].iter().map(|piece| up[*piece][6..8].to_vec()).collect();
    assert_eq!((passed, waiting(&lab, Side::FromPeer)), (expected, 0));

    let down = pieces("192.0.2.1:53", "100.64.0.2:4000", 10);
    for piece in [4, 0, 1, 2, 3] {
        lab.reply(&down[piece]);
    }
    assert_eq!(lab.clients[0].packets.len(), 5);
    let flow = lab.shut_down().remove(0);
    assert_eq!((flow.total.out.packets, flow.total.r#in.packets), (5, 5));
    assert_eq!(
        lab.snapshot().flows.sides[0].untracked[Untracked::Fragment as usize].packets,
        0
    );
}

/// With rules: what no first ever allowed is dropped, after its time, with a denied first, or past eight a datagram.
#[test]
fn r15_with_rules_held_fragments_that_nothing_allows_are_dropped() {
    let mut lab = Lab::with(1, udp_to_wiki, |_| {});
    let denied = pieces("100.64.0.2:4000", "192.0.2.1:54", 9);
    lab.send(0, &denied[1]);
    lab.send(0, &denied[0]);
    assert_eq!((waiting(&lab, Side::FromPeer), dropped(&lab, Side::FromPeer)), (0, 1));

    let orphan = pieces("100.64.0.2:4000", "192.0.2.1:53", 10);
    lab.send(0, &orphan[1]);
    lab.pass(29.0);
    assert_eq!(waiting(&lab, Side::FromPeer), 1);
    lab.pass(2.0);
    assert_eq!((waiting(&lab, Side::FromPeer), dropped(&lab, Side::FromPeer)), (0, 2));

    let shreds = fragments_v4(&udp("100.64.0.2:4000", "192.0.2.1:53", &[0; 1000]), 11, 80);
    for piece in &shreds[1..] {
        lab.send(0, piece);
    }
    assert_eq!(
        (waiting(&lab, Side::FromPeer), dropped(&lab, Side::FromPeer)),
        (8, 2 + 12 - 8)
    );
    lab.gateway.state.give_up_waiting();
    assert_eq!(waiting(&lab, Side::FromPeer), 0);
    assert!(lab.gateway.packets.is_empty());
    assert!(lab.snapshot().balanced());
}

/// Many datagrams without a first do not take more than their share.
#[test]
fn r15_with_rules_a_peer_holds_a_bounded_number() {
    let mut lab = Lab::with(1, udp_to_wiki, |_| {});
    for identification in 0..2000 {
        lab.send(0, &pieces("100.64.0.2:4000", "192.0.2.1:53", identification)[1]);
    }
    assert_eq!(
        (waiting(&lab, Side::FromPeer), dropped(&lab, Side::FromPeer)),
        (256, 2000 - 256)
    );
    assert!(lab.snapshot().balanced());
}
