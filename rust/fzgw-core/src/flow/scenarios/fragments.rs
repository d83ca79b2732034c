//! R15: fragments, over IPv4 and over IPv6 with a hop-by-hop header (scenario 39).

use super::*;
use crate::testkit::{fragments_v4, fragments_v6};

/// Three fragments of one UDP datagram from the client, 8 + 1200 bytes in all.
fn pieces(v6: bool, identification: u16) -> Vec<Vec<u8>> {
    let payload = [0; 1200];
    if v6 {
        let packet = udp("[fd00:64::2]:4000", "[2001:db8::1]:53", &payload);
        return fragments_v6(&packet, identification.into(), 480);
    }
    fragments_v4(&udp(CLIENT, SERVER, &payload), identification, 480)
}

fn bytes(pieces: &[Vec<u8>]) -> u64 {
    pieces.iter().map(|piece| piece.len() as u64).sum()
}

#[test]
fn scenario_31_39_fragments_belong_to_the_flow_of_their_first() {
    for v6 in [false, true] {
        let pieces = pieces(v6, 77);
        assert_eq!(pieces.len(), 3);
        for order in [[0, 1, 2], [1, 2, 0], [2, 0, 1]] {
            let mut engine = Engine::new();
            for piece in order {
                engine.up(&pieces[piece]);
            }
            assert_eq!(engine.table.ledger().sides[0].pending_fragments.packets, 0);
            let flow = engine.only();
            assert_eq!(
                (packets(&flow), flow.total.out.bytes),
                ((3, 0), bytes(&pieces)),
                "{order:?}"
            );
            assert_eq!((flow.total.out.payload, flow.src_port), (1200, 4000));
        }
    }
}

#[test]
fn scenario_31_without_their_first_they_are_untracked() {
    for v6 in [false, true] {
        let mut engine = Engine::new();
        for piece in &pieces(v6, 77)[1..] {
            engine.up(piece);
        }
        let ledger = engine.table.ledger();
        assert_eq!((ledger.sides[0].pending_fragments.packets, ledger.live_flows), (2, 0));
        engine.at(30.0).tick();
        assert_eq!(engine.untracked(Untracked::Fragment), 0);
        engine.at(30.1).tick();
        assert_eq!(engine.untracked(Untracked::Fragment), 2);
        assert_eq!(engine.table.ledger().sides[0].pending_fragments.packets, 0);
        engine.up(&pieces(v6, 77)[0]);
        assert_eq!(packets(&engine.only()), (1, 0), "too late for the others");
    }
}

/// R15: the table is bounded, and what finds no room is untracked at once.
#[test]
fn r15_the_table_is_bounded() {
    let mut engine = Engine::with(Limits {
        max_fragments: 8,
        ..Limits::default()
    });
    for identification in 0..100 {
        engine.up(&pieces(false, identification)[1]);
    }
    assert_eq!(engine.table.ledger().sides[0].pending_fragments.packets, 8);
    assert_eq!(engine.untracked(Untracked::Fragment), 92);
    engine.shut_down();
    assert_eq!(engine.untracked(Untracked::Fragment), 100, "shutdown gives them up");
}

/// R15, R8: a flow that has ended takes no more fragments.
#[test]
fn r15_fragments_of_an_ended_flow_are_untracked() {
    let mut engine = Engine::new();
    let pieces = pieces(false, 5);
    engine.up(&pieces[0]);
    engine.table.close_peer(PEER);
    engine.up(&pieces[1]);
    assert_eq!(engine.untracked(Untracked::Fragment), 1);
}

/// R21: a waiting fragment that was not written is taken back, also after it has joined its flow.
#[test]
fn r21_fragments_are_taken_back() {
    for joined in [false, true] {
        let mut engine = Engine::new();
        let pieces = pieces(false, 5);
        let second = engine.up(&pieces[1]);
        engine.up(&pieces[2]);
        if joined {
            engine.up(&pieces[0]);
        }
        engine.table.take_back(second);
        let ledger = engine.table.ledger();
        if joined {
            assert_eq!(packets(&engine.only()), (2, 0));
        } else {
            assert_eq!(ledger.sides[0].pending_fragments.bytes, pieces[2].len() as u64);
        }
    }
}
