//! R10 and R13: what a flow tells of its connection.

use super::*;
use crate::testkit::segment;

/// One step: whether the client sends, flags, sequence number, payload bytes.
type Step = (bool, u8, u32, usize);

const C: bool = true;
const S: bool = false;

fn play(steps: &[Step]) -> FlowRecord {
    let mut engine = Engine::new();
    for (n, (from_client, flags, seq, payload)) in steps.iter().enumerate() {
        engine.at(n as f64 * 0.01);
        let payload = vec![0; *payload];
        if *from_client {
            engine.up(&segment(CLIENT, SERVER, *flags, *seq, &payload));
        } else {
            engine.down(&segment(SERVER, CLIENT, *flags, *seq, &payload));
        }
    }
    engine.only()
}

/// R10: where the answer to a SYN is all that was seen, the initiator's first segment is its first, whatever its
/// number is.
#[test]
fn r10_an_initiator_met_in_the_middle_repeats_nothing() {
    for seq in [1, 0x7fff_ffff, 0x8000_0000, 0xffff_fff0] {
        let flow = play(&[(S, SYN | ACK, 100, 0), (C, ACK, seq, 10), (S, ACK, 101, 10)]);
        let tcp = flow.tcp.unwrap();
        assert_eq!((tcp.retransmits_out, tcp.retransmits_in), (0, 0), "{seq:#x}");
        assert_eq!(tcp.history.as_str(), "hDd");
    }
}

/// R10: the thirteen states of Zeek and the history that leads there.
#[test]
fn r10_conn_state_and_history() {
    let open: [Step; 3] = [(C, SYN, 0, 0), (S, SYN | ACK, 100, 0), (C, ACK, 1, 0)];
    let cases: [(&str, &str, Vec<Step>); 16] = [
        ("S0", "S", vec![(C, SYN, 0, 0)]),
        ("S0", "ST", vec![(C, SYN, 0, 0), (C, SYN, 0, 0)]),
        ("S1", "ShA", open.to_vec()),
        (
            "SF",
            "ShADadFf",
            [
                &open[..],
                &[
                    (C, ACK, 1, 10),
                    (S, ACK, 101, 0),
                    (S, ACK, 101, 20),
                    (C, FIN | ACK, 11, 0),
                    (S, FIN | ACK, 121, 0),
                ],
            ]
            .concat(),
        ),
        ("REJ", "Sr", vec![(C, SYN, 0, 0), (S, RST | ACK, 0, 0)]),
        ("S2", "ShAF", [&open[..], &[(C, FIN | ACK, 1, 0)]].concat()),
        ("S3", "ShAf", [&open[..], &[(S, FIN | ACK, 101, 0)]].concat()),
        ("RSTO", "ShAR", [&open[..], &[(C, RST, 1, 0)]].concat()),
        ("RSTR", "ShAr", [&open[..], &[(S, RST, 101, 0)]].concat()),
        ("RSTOS0", "SR", vec![(C, SYN, 0, 0), (C, RST, 1, 0)]),
        ("RSTRH", "hr", vec![(S, SYN | ACK, 100, 0), (S, RST, 101, 0)]),
        ("SH", "SF", vec![(C, SYN, 0, 0), (C, FIN | ACK, 1, 0)]),
        ("SHR", "hf", vec![(S, SYN | ACK, 100, 0), (S, FIN | ACK, 101, 0)]),
        ("OTH", "Dd", vec![(C, ACK, 1, 10), (S, ACK, 101, 10)]),
        ("RSTO", "ShAI", [&open[..], &[(C, FIN | RST, 1, 0)]].concat()),
        (
            "S1",
            "SsHh",
            vec![
                (C, SYN, 0, 0),
                (S, SYN, 100, 0),
                (C, SYN | ACK, 0, 0),
                (S, SYN | ACK, 100, 0),
            ],
        ),
    ];
    for (state, history, steps) in cases {
        let flow = play(&steps);
        let tcp = flow.tcp.unwrap();
        let letters: String = tcp.history.as_str().chars().filter(|c| !"Tt".contains(*c)).collect();
        let expected: String = history.chars().filter(|c| !"Tt".contains(*c)).collect();
        assert_eq!(
            (flow.conn_state.as_str(), letters.as_str()),
            (state, expected.as_str()),
            "{steps:?}"
        );
    }
}

/// R10: UDP by who spoke, everything else OTH.
#[test]
fn r10_conn_state_of_other_protocols() {
    let mut engine = Engine::new();
    engine.up(&udp("100.64.0.2:1", SERVER, b""));
    engine.up(&udp("100.64.0.2:2", SERVER, b""));
    engine.down(&udp(SERVER, "100.64.0.2:2", b""));
    engine.up(&echo("100.64.0.2", "192.0.2.1", 7, true));
    let mut states: Vec<_> = engine.shut_down().iter().map(|flow| flow.conn_state.as_str()).collect();
    states.sort_unstable();
    assert_eq!(states, ["OTH", "S0", "SF"]);
}

/// R10: retransmitted segments by direction; `T` comes with the 1st and the 10th.
#[test]
fn r10_retransmissions_are_counted_by_direction() {
    let mut steps = vec![
        (C, SYN, u32::MAX, 0),
        (S, SYN | ACK, 100, 0),
        (C, ACK, 0, 0),
        (C, ACK, 0, 10),
    ];
    steps.extend([(C, ACK, 0, 10); 12]);
    steps.extend([(C, ACK, 10, 10), (S, ACK, 101, 5), (S, ACK, 101, 5), (S, RST, 0, 5)]);
    let tcp = play(&steps).tcp.unwrap();
    assert_eq!((tcp.retransmits_out, tcp.retransmits_in), (12, 1));
    assert_eq!(tcp.history.as_str(), "ShADTTdtr");
}

/// R10: a SYN that is sent again is a retransmission, and the handshake is timed from the one that was answered.
#[test]
fn r10_handshake_times_on_both_sides() {
    let mut engine = Engine::new();
    engine.at(0.0).up(&segment(CLIENT, SERVER, SYN, 7, b""));
    engine.at(1.0).up(&segment(CLIENT, SERVER, SYN, 7, b""));
    engine.at(1.25).down(&segment(SERVER, CLIENT, SYN | ACK, 9, b""));
    engine.at(1.5).up(&segment(CLIENT, SERVER, ACK, 8, b""));
    engine.at(9.0).up(&segment(CLIENT, SERVER, ACK, 8, b"x"));
    let tcp = engine.only().tcp.unwrap();
    assert_eq!(
        (tcp.syn_to_syn_ack, tcp.syn_ack_to_ack),
        (Some(SECOND / 4), Some(SECOND / 4))
    );
    assert_eq!(
        (tcp.retransmits_out, tcp.history.as_str()),
        (1, "STHAD".replace('H', "h").as_str())
    );
    assert_eq!((tcp.flags_out, tcp.flags_in), (SYN | ACK, SYN | ACK));
}

/// R13: past sixteen types and codes the last entry stands for the others, and the sums stay exact.
#[test]
fn r13_the_list_of_icmp_errors_is_bounded_and_exact() {
    let mut engine = Engine::new();
    let question = udp(CLIENT, SERVER, b"hello");
    engine.up(&question);
    engine.down(&udp(SERVER, CLIENT, b"answered"));
    for code in 0..40 {
        engine.down(&icmp_error("192.0.2.1", "100.64.0.2", 11, code, &question));
    }
    engine.down(&icmp_error("192.0.2.1", "100.64.0.2", 11, 3, &question));
    let flow = engine.only();
    assert_eq!(flow.icmp_errors.len(), 16);
    assert_eq!((flow.icmp_errors[3].code, flow.icmp_errors[3].packets), (3, 2));
    assert_eq!((flow.icmp_errors[15].kind, flow.icmp_errors[15].packets), (255, 25));
    let sum: u64 = flow.icmp_errors.iter().map(|errors| errors.packets).sum();
    assert_eq!(
        sum,
        engine.table.ledger().sides[Side::ToPeer as usize].icmp_errors.packets
    );
    assert_eq!(packets(&flow), (1, 1), "in nothing else");
}

/// R13, R17: errors keep no flow alive. R21: one that was not written is in no list.
#[test]
fn r13_errors_keep_nothing_alive_and_are_taken_back() {
    let mut engine = Engine::new();
    let question = udp(CLIENT, SERVER, b"hello");
    engine.up(&question);
    engine.at(100.0);
    let error = engine.down(&icmp_error("192.0.2.1", "100.64.0.2", 11, 0, &question));
    engine.table.take_back(error);
    engine.at(120.1).tick();
    let flow = engine.only();
    assert_eq!((reason(&flow), flow.end), (Some(EndReason::Idle), WALL));
    assert_eq!(flow.icmp_errors, []);
}
