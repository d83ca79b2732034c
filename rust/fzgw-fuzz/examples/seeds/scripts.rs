//! Scripts, for the targets that read packets and steps of time: `engine`, `icmp`, `fragments`, `gateway`.

use fzgw_core::packet::TcpFlags;
use fzgw_fuzz::script::{kind, step};
use fzgw_fuzz::{engine, fragments, gateway, icmp};

use crate::captures::{conversation, mixture};
use crate::{Seed, of};

const SYN: u8 = TcpFlags::SYN;
const ACK: u8 = TcpFlags::ACK;
const FIN: u8 = TcpFlags::FIN;
const RST: u8 = TcpFlags::RST;

/// Hosts and ports: laptop to wiki, laptop to the open internet, laptop to phone, a stranger to the open internet; and,
/// turned round, the open internet to the laptop's ssh.
const WIKI: u8 = 0;
const INTERNET: u8 = 0b0000_0100;
const PHONE: u8 = 0b1100_1000;
const STRANGER: u8 = 0b0000_0111;
const SSH: u8 = 0b0011_0100;

/// Limits: four flows, four datagrams in pieces; records as by default, or an update a second.
const FEW: u8 = 0x22;
const ONE: u8 = 0x00;
const AS_USUAL: u8 = 0x0a;
const TALKATIVE: u8 = 0x04;

pub(crate) fn seeds() -> Vec<Seed> {
    let mut seeds = of("engine", engine_seeds());
    seeds.extend(of(
        "engine",
        vec![("pcap-tcp-conversation", conversation()), ("pcapng-mixture", mixture())],
    ));
    seeds.extend(of("icmp", icmp_seeds()));
    seeds.extend(of("fragments", fragment_seeds()));
    seeds.extend(of("gateway", gateway_seeds()));
    seeds
}

fn tcp(ends: u8, flags: u8, seq: i8, payload: u8) -> Vec<u8> {
    vec![kind::TCP, ends, flags, seq as u8, payload]
}

fn udp(ends: u8, payload: u8) -> Vec<u8> {
    vec![kind::UDP, ends, payload]
}

/// The same packet from the far host.
fn back(mut packet: Vec<u8>) -> Vec<u8> {
    packet[0] |= kind::BACK;
    packet
}

/// The same packet in IPv6.
fn v6(mut packet: Vec<u8>) -> Vec<u8> {
    packet[0] |= kind::V6;
    packet
}

/// An ICMP error about a packet, all of it, to its sender. `error` is type (three bits) and code.
fn about(error: u8, packet: Vec<u8>) -> Vec<u8> {
    let ends = packet[1];
    let head = (packet[0] & kind::V6) | (!packet[0] & kind::BACK) | kind::ERROR;
    [&[head, ends, error, 255][..], &packet].concat()
}

/// A frame of a script for `engine` or a packet of one for `gateway`.
fn at(step: u8, op: u8, packet: &[u8]) -> Vec<u8> {
    [&[step << 3 | op][..], packet].concat()
}

fn engine_seeds() -> Vec<(&'static str, Vec<u8>)> {
    let script = |mode: u8, limits: [u8; 2], frames: &[(u8, Vec<u8>)]| {
        let mut out = vec![mode, limits[0], limits[1]];
        for (step, packet) in frames {
            out.extend(at(*step, engine::op::PACKET, packet));
        }
        out
    };
    let handshake = |ends: u8| {
        vec![
            (step::NONE, tcp(ends, SYN, -2, 0)),
            (step::MILLISECOND, back(tcp(ends, SYN | ACK, 5, 0))),
            (step::MILLISECOND, tcp(ends, ACK, -1, 0)),
        ]
    };
    let then = |mut frames: Vec<(u8, Vec<u8>)>, more: Vec<(u8, Vec<u8>)>| {
        frames.extend(more);
        frames
    };
    let usual = [FEW, AS_USUAL];
    let configured = engine::mode::CONFIGURED;
    vec![
        (
            "syn-then-rst",
            script(
                0,
                usual,
                &[
                    (0, tcp(WIKI, SYN, 0, 0)),
                    (step::MILLISECOND, back(tcp(WIKI, RST | ACK, 0, 0))),
                ],
            ),
        ),
        ("handshake-data-and-fin-both-ways", {
            let frames = vec![
                (step::MILLISECOND, tcp(WIKI, ACK, -1, 10)),
                (step::MILLISECOND, back(tcp(WIKI, ACK, 6, 100))),
                (step::SECOND, tcp(WIKI, FIN | ACK, 9, 0)),
                (step::MILLISECOND, back(tcp(WIKI, FIN | ACK, 106, 0))),
                (step::PAST_CLOSE_DELAY, tcp(WIKI, ACK, 10, 0)),
            ];
            script(configured, usual, &then(handshake(WIKI), frames))
        }),
        (
            "syn-ack-first",
            script(
                0,
                usual,
                &[(0, back(tcp(WIKI, SYN | ACK, 0, 0))), (0, tcp(WIKI, ACK, 0, 0))],
            ),
        ),
        (
            "syn-again-splits",
            script(
                0,
                usual,
                &then(handshake(WIKI), vec![(step::SECOND, tcp(WIKI, SYN, 9, 0))]),
            ),
        ),
        (
            "stray-ack-fin-and-rst",
            script(
                0,
                usual,
                &[
                    (0, tcp(WIKI, ACK, 0, 0)),
                    (0, tcp(WIKI, FIN, 0, 3)),
                    (0, tcp(WIKI, RST, 0, 3)),
                ],
            ),
        ),
        ("retransmissions-over-the-turn-of-2-32", {
            let frames = [-20, -20, -10, 0, -10, 10].map(|seq| (step::MILLISECOND, tcp(WIKI, ACK, seq, 10)));
            script(0, usual, &frames)
        }),
        (
            "udp-silent-for-the-limit-and-past-it",
            script(
                0,
                usual,
                &[
                    (0, udp(WIKI, 5)),
                    (step::UDP_IDLE, back(udp(WIKI, 6))),
                    (step::PAST_UDP_IDLE, udp(WIKI, 1)),
                ],
            ),
        ),
        ("fifth-flow-evicts-one", {
            let frames: Vec<_> = (0..6).map(|port| (step::SECOND, udp(port << 4, 1))).collect();
            script(0, usual, &frames)
        }),
        ("room-for-one-flow", {
            let frames: Vec<_> = (0..5)
                .map(|port| (step::MILLISECOND, udp((port % 3) << 4, 1)))
                .collect();
            script(configured, [ONE, TALKATIVE], &frames)
        }),
        ("update-records-every-second", {
            let frames: Vec<_> = (0..12).map(|_| (step::SECOND, udp(WIKI, 1))).collect();
            script(0, [FEW, TALKATIVE], &frames)
        }),
        ("update-records-every-10-ms", {
            let frames: Vec<_> = (0..6).map(|_| (step::TEN_MILLISECONDS, udp(WIKI, 1))).collect();
            script(0, [FEW, 0], &frames)
        }),
        (
            "close-records-alone",
            script(
                engine::mode::NO_UPDATES,
                [FEW, 0],
                &[(0, udp(WIKI, 1)), (step::SECOND, udp(WIKI, 1))],
            ),
        ),
        ("fragments-last-first", {
            let later = vec![kind::LATER, WIKI, 0, 16];
            let frames = [
                (0, later.clone()),
                (0, later),
                (step::SECOND, vec![kind::FIRST_UDP, WIKI, 0, 24]),
            ];
            script(0, usual, &frames)
        }),
        ("v6-fragments-last-first", {
            let frames = [
                (0, v6(vec![kind::LATER, WIKI, 1, 16])),
                (0, v6(vec![kind::FIRST_UDP, WIKI, 1, 24])),
            ];
            script(0, usual, &frames)
        }),
        ("fragments-whose-first-is-too-late", {
            let frames = [
                (0, vec![kind::LATER, WIKI, 0, 8]),
                (step::PAST_FRAGMENTS, vec![kind::FIRST_UDP, WIKI, 0, 8]),
            ];
            script(0, usual, &frames)
        }),
        ("fragments-under-rules", {
            let frames = [
                (0, vec![kind::FIRST_UDP, 0b0100_0000, 0, 8]),
                (0, vec![kind::LATER, 0b0100_0000, 0, 8]),
                (0, vec![kind::LATER, WIKI, 2, 8]),
            ];
            script(configured, usual, &frames)
        }),
        (
            "port-unreachable-ends-udp",
            script(
                0,
                usual,
                &[(0, udp(WIKI, 5)), (0, about(3 << 3, udp(WIKI, 5))), (0, udp(WIKI, 5))],
            ),
        ),
        ("too-big-about-tcp-v6", {
            let frames = [(0, v6(tcp(WIKI, SYN, 0, 0))), (0, about(2, v6(tcp(WIKI, SYN, 0, 0))))];
            script(configured, usual, &frames)
        }),
        (
            "error-about-an-error",
            script(0, usual, &[(0, udp(WIKI, 5)), (0, about(0, about(0, udp(WIKI, 5))))]),
        ),
        ("seventeen-kinds-of-errors", {
            let errors = (0..20).map(|code| (step::MILLISECOND, about(code << 3 | 3, tcp(WIKI, SYN, 0, 0))));
            let frames: Vec<_> = [(0, tcp(WIKI, SYN, 0, 0))].into_iter().chain(errors).collect();
            script(0, usual, &frames)
        }),
        (
            "redirect",
            script(configured, usual, &[(0, back(vec![kind::ERROR_RAW, WIKI, 5, 0]))]),
        ),
        (
            "echo-reply-first",
            script(
                0,
                usual,
                &[(0, back(vec![kind::REPLY, WIKI])), (0, vec![kind::REQUEST, WIKI])],
            ),
        ),
        (
            "query-and-other-protocol",
            script(
                configured,
                usual,
                &[(0, vec![kind::ICMP, WIKI, 13, 0]), (0, vec![kind::OTHER, WIKI, 47, 9])],
            ),
        ),
        (
            "hour-back",
            script(
                0,
                usual,
                &[
                    (0, udp(WIKI, 1)),
                    (step::HOUR_BACK, udp(WIKI, 1)),
                    (step::PAST_UDP_IDLE, udp(WIKI, 1)),
                ],
            ),
        ),
        (
            "to-the-end-of-time-and-back",
            script(
                0,
                usual,
                &[
                    (0, udp(WIKI, 1)),
                    (step::TO_THE_END, udp(WIKI, 1)),
                    (step::TO_THE_START, udp(WIKI, 1)),
                    (step::MILLISECOND, udp(WIKI, 1)),
                ],
            ),
        ),
        ("to-the-end-of-time-again-and-again", {
            let there_and_back = [
                step::TO_THE_END,
                step::TO_THE_START,
                step::TO_THE_END,
                step::TO_THE_START,
                step::TO_THE_END,
            ];
            script(0, usual, &there_and_back.map(|step| (step, udp(WIKI, 1))))
        }),
        ("denied-ports-and-hosts", {
            let frames: Vec<_> = (0..8)
                .map(|n| (step::MILLISECOND, tcp(n << 5 | n << 2 & 0x0c, SYN, 0, 0)))
                .collect();
            script(configured, [FEW, TALKATIVE], &frames)
        }),
        (
            "unknown-source-and-destination",
            script(configured, usual, &[(0, udp(STRANGER, 1)), (0, back(udp(STRANGER, 1)))]),
        ),
        (
            "inbound-ssh",
            script(configured, usual, &[(0, back(tcp(SSH, SYN, 0, 0)))]),
        ),
        (
            "no-rules",
            script(
                configured | engine::mode::NO_RULES,
                usual,
                &[(0, udp(INTERNET, 1)), (0, back(udp(INTERNET, 1)))],
            ),
        ),
        (
            "never-allowed-destination",
            script(
                configured | engine::mode::NO_RULES,
                usual,
                &[(0, udp(0x0c, 1)), (0, v6(udp(0x0c, 1)))],
            ),
        ),
        ("from-peer-to-peer", {
            let mut out = vec![configured, FEW, AS_USUAL];
            out.extend(at(0, engine::op::PACKET, &tcp(PHONE, SYN, 0, 0)));
            out.extend(at(0, engine::op::ONE_HOP_ON, &[]));
            out.extend(at(0, engine::op::PACKET, &back(tcp(PHONE, SYN | ACK, 0, 0))));
            out.extend(at(0, engine::op::ONE_HOP_ON, &[]));
            out.extend(at(0, engine::op::AGAIN, &[]));
            out
        }),
        ("cut-by-a-snaplen", {
            let mut out = vec![0, FEW, AS_USUAL];
            for kept in [60, 34, 33, 19, 0] {
                out.extend(at(0, engine::op::CUT, &[&[kept][..], &tcp(WIKI, ACK, 0, 200)].concat()));
            }
            out
        }),
        ("link-types", {
            let mut out = vec![0, FEW, AS_USUAL];
            for link in [0, 1, 12, 14, 101, 108, 113, 147, 228, 229] {
                out.extend(at(0, engine::op::FRAME, &[&[link][..], &udp(WIKI, 9)].concat()));
            }
            out
        }),
        (
            "without-a-length",
            script(
                0,
                usual,
                &[
                    (0, vec![kind::NO_LENGTH, WIKI, 200]),
                    (0, v6(vec![kind::NO_LENGTH, WIKI, 200])),
                ],
            ),
        ),
        (
            "bytes-as-they-are",
            script(
                configured,
                usual,
                &[(0, vec![kind::RAW, 9, 0x45, 0, 0, 9, 0, 0, 0, 0, 64])],
            ),
        ),
    ]
}

fn icmp_seeds() -> Vec<(&'static str, Vec<u8>)> {
    use icmp::op::{ABOUT, ABOUT_BROKEN, CONFIGURE, DENIED, FLUSH, PACKET, REMOVE, TO_PEER, WAIT};
    let limits = vec![FEW, AS_USUAL];
    let script = |steps: &[Vec<u8>]| [limits.clone(), steps.concat()].concat();
    let packet = |packet: Vec<u8>| [vec![PACKET], packet].concat();
    let error = |kind: u8, code: u8, len: u8| vec![ABOUT | TO_PEER, 0, kind, code, len];
    vec![
        (
            "port-unreachable-ends-udp",
            script(&[packet(udp(WIKI, 9)), error(3, 3, 28), packet(udp(WIKI, 9))]),
        ),
        (
            "port-unreachable-of-an-answered-flow",
            script(&[
                packet(udp(WIKI, 9)),
                [vec![PACKET | TO_PEER], back(udp(WIKI, 3))].concat(),
                vec![ABOUT | TO_PEER, 1, 3, 3, 28],
            ]),
        ),
        (
            "v6-port-unreachable",
            script(&[packet(v6(udp(WIKI, 9))), error(1, 4, 60)]),
        ),
        (
            "v6-quote-with-a-fragment-header",
            script(&[packet(v6(vec![kind::FIRST_UDP, WIKI, 0, 8])), error(3, 1, 90)]),
        ),
        (
            "too-big-about-tcp",
            script(&[packet(tcp(WIKI, SYN, 0, 0)), error(3, 4, 40)]),
        ),
        (
            "time-exceeded-about-echo",
            script(&[packet(vec![kind::REQUEST, WIKI]), error(11, 0, 28)]),
        ),
        (
            "about-an-echo-reply",
            script(&[
                [vec![PACKET | TO_PEER], back(vec![kind::REPLY, WIKI])].concat(),
                vec![ABOUT, 0, 3, 1, 28],
            ]),
        ),
        (
            "about-another-protocol",
            script(&[packet(vec![kind::OTHER, WIKI, 47, 4]), error(3, 2, 24)]),
        ),
        (
            "about-a-query",
            script(&[packet(vec![kind::ICMP, WIKI, 13, 0]), error(3, 1, 28)]),
        ),
        (
            "about-nothing-that-is-open",
            script(&[packet(tcp(WIKI, ACK, 0, 0)), error(3, 1, 40)]),
        ),
        (
            "about-a-denied-packet",
            script(&[[vec![DENIED], udp(WIKI, 9)].concat(), error(3, 3, 28)]),
        ),
        (
            "from-the-initiators-side",
            script(&[packet(udp(WIKI, 9)), vec![ABOUT, 0, 3, 3, 28]]),
        ),
        (
            "of-another-peer",
            script(&[packet(udp(WIKI, 9)), vec![ABOUT | TO_PEER | 1 << 3, 0, 3, 3, 28]]),
        ),
        (
            "quote-too-short-for-ports",
            script(&[packet(udp(WIKI, 9)), error(3, 3, 23)]),
        ),
        (
            "quote-with-options",
            script(&[
                packet(udp(WIKI, 9)),
                vec![ABOUT_BROKEN | TO_PEER, 0, 3, 3, 40, 0, 0x46, 0, 0],
            ]),
        ),
        (
            "quote-of-a-later-fragment",
            script(&[
                packet(udp(WIKI, 9)),
                vec![ABOUT_BROKEN | TO_PEER, 0, 3, 3, 28, 6, 0, 1, 64],
            ]),
        ),
        (
            "quote-claims-another-length",
            script(&[
                packet(udp(WIKI, 9)),
                vec![ABOUT_BROKEN | TO_PEER, 0, 3, 3, 28, 2, 0xff, 0xff, 0],
            ]),
        ),
        ("seventeen-kinds", {
            let mut steps = vec![packet(tcp(WIKI, SYN, 0, 0))];
            steps.extend((0..20).map(|code| error(12, code, 40)));
            script(&steps)
        }),
        ("seventeen-kinds-taken-back", {
            let mut steps = vec![packet(tcp(WIKI, SYN, 0, 0)), vec![FLUSH, 0]];
            steps.extend((0..20).map(|code| error(12, code, 40)));
            steps.push(vec![FLUSH, 0xff]);
            script(&steps)
        }),
        (
            "error-and-its-flow-taken-back",
            script(&[packet(udp(WIKI, 9)), error(3, 3, 28), vec![FLUSH, 0xff]]),
        ),
        (
            "error-taken-back-alone",
            script(&[
                packet(udp(WIKI, 9)),
                error(3, 1, 28),
                vec![FLUSH, 0x02],
                error(3, 1, 28),
            ]),
        ),
        (
            "error-in-the-close-delay",
            script(&[
                packet(tcp(WIKI, SYN, 0, 0)),
                packet(tcp(WIKI, RST, 0, 0)),
                vec![ABOUT | TO_PEER, 1, 3, 3, 40],
            ]),
        ),
        (
            "error-after-the-idle-limit",
            script(&[packet(udp(WIKI, 9)), vec![WAIT, step::PAST_UDP_IDLE], error(3, 3, 28)]),
        ),
        (
            "open-record-then-error-then-close",
            script(&[
                packet(udp(WIKI, 9)),
                vec![WAIT, step::OPEN_AFTER],
                error(3, 1, 28),
                vec![WAIT, step::UPDATE_EVERY],
            ]),
        ),
        (
            "peer-leaves-then-error",
            script(&[packet(udp(WIKI, 9)), vec![REMOVE], error(3, 3, 28)]),
        ),
        (
            "lower-limits",
            script(&[
                packet(udp(WIKI, 9)),
                packet(udp(INTERNET, 9)),
                vec![CONFIGURE, ONE, 0],
                packet(udp(PHONE, 9)),
            ]),
        ),
    ]
}

fn fragment_seeds() -> Vec<(&'static str, Vec<u8>)> {
    use fragments::control::{CONFIGURE, FLUSH, REMOVE, WAIT};
    use fragments::op::{
        CONTROL, DENIED, FIRST_SHORT, FIRST_TCP, FIRST_UDP, LATER, LATER_TCP, OTHER_PEER, TO_PEER, V6, WHOLE,
    };
    let script = |steps: &[[u8; 2]]| [vec![FEW, AS_USUAL], steps.concat()].concat();
    let cramped = |steps: &[[u8; 2]]| [vec![0x12, AS_USUAL], steps.concat()].concat();
    let wait = |step: u8| [CONTROL | WAIT, step];
    vec![
        ("in-order", script(&[[FIRST_UDP, 8], [LATER, 8], [LATER, 9]])),
        ("last-first", script(&[[LATER, 9], [LATER, 8], [FIRST_UDP, 8]])),
        (
            "v6-last-first",
            script(&[[LATER | V6, 9], [LATER | V6, 8], [FIRST_UDP | V6, 8]]),
        ),
        (
            "first-never-comes",
            script(&[[LATER, 8], [LATER, 9], wait(step::PAST_FRAGMENTS)]),
        ),
        (
            "first-comes-at-the-limit",
            script(&[[LATER, 8], wait(step::FRAGMENTS), [FIRST_UDP, 8]]),
        ),
        (
            "first-comes-past-the-limit",
            script(&[[LATER, 8], wait(step::PAST_FRAGMENTS), [FIRST_UDP, 8], [LATER, 8]]),
        ),
        (
            "first-twice",
            script(&[[FIRST_UDP, 8], [LATER, 8], [FIRST_UDP, 8], [LATER, 8]]),
        ),
        (
            "first-opens-nothing",
            script(&[[LATER_TCP, 8], [FIRST_TCP, ACK], [LATER_TCP, 8]]),
        ),
        ("first-too-short", script(&[[LATER, 8], [FIRST_SHORT, 7], [LATER, 8]])),
        (
            "first-denied",
            script(&[[LATER, 8], [DENIED, 8], [LATER, 8], wait(step::PAST_FRAGMENTS)]),
        ),
        ("later-denied", script(&[[FIRST_UDP, 8], [DENIED, 0x88], [LATER, 8]])),
        (
            "flow-ends-before-the-rest",
            script(&[
                [FIRST_TCP, SYN],
                [WHOLE, RST],
                wait(step::PAST_CLOSE_DELAY),
                [LATER_TCP, 8],
            ]),
        ),
        (
            "flow-reused-before-the-rest",
            script(&[[FIRST_TCP, SYN], [WHOLE, ACK], [WHOLE, SYN], [LATER_TCP, 8]]),
        ),
        (
            "table-of-one",
            cramped(&[
                [LATER, 8],
                [LATER | 1 << 3, 8],
                [FIRST_UDP | 1 << 3, 8],
                [FIRST_UDP, 8],
                [LATER | 1 << 3, 8],
            ]),
        ),
        (
            "table-of-none",
            [vec![0x02, AS_USUAL], [[LATER, 8], [FIRST_UDP, 8], [LATER, 8]].concat()].concat(),
        ),
        (
            "both-sides-and-peers",
            script(&[
                [LATER, 8],
                [LATER | TO_PEER, 8],
                [LATER | OTHER_PEER, 8],
                [FIRST_UDP | TO_PEER, 8],
                [FIRST_UDP | OTHER_PEER, 8],
                [FIRST_UDP, 8],
            ]),
        ),
        (
            "waiting-taken-back",
            script(&[[LATER, 8], [CONTROL | FLUSH, 1], [FIRST_UDP, 8]]),
        ),
        (
            "joined-then-taken-back",
            script(&[[LATER, 8], [FIRST_UDP, 8], [CONTROL | FLUSH, 1]]),
        ),
        (
            "joined-then-all-taken-back",
            script(&[
                [LATER, 8],
                [FIRST_UDP, 8],
                [LATER, 8],
                [CONTROL | FLUSH, 0xff],
                [LATER, 8],
            ]),
        ),
        (
            "settled-untracked-then-taken-back",
            script(&[[LATER, 8], [FIRST_SHORT, 3], [CONTROL | FLUSH, 3]]),
        ),
        (
            "smaller-table-while-they-wait",
            script(&[
                [LATER, 8],
                [LATER | 1 << 3, 8],
                [CONTROL | CONFIGURE, 0x02],
                [AS_USUAL, 0],
                [FIRST_UDP, 8],
            ]),
        ),
        (
            "peer-leaves-while-they-wait",
            script(&[[LATER, 8], [CONTROL | REMOVE, 0], [FIRST_UDP, 8]]),
        ),
        (
            "flow-evicted-while-they-come",
            [
                vec![0x20, AS_USUAL],
                [[FIRST_UDP, 8], [FIRST_TCP | 1 << 3, SYN], [LATER, 8]].concat(),
            ]
            .concat(),
        ),
        (
            "still-waiting-at-the-end",
            script(&[[LATER, 8], [LATER | V6 | TO_PEER, 8]]),
        ),
    ]
}

fn gateway_seeds() -> Vec<(&'static str, Vec<u8>)> {
    use gateway::mode::{NO_LAPTOP, NO_RECORDS, NO_RULES, TUNNEL};
    use gateway::op::{DAMAGED, DATAGRAM, FLUSH, FROM_LAPTOP, FROM_TUN, GIVE_UP, RECONFIGURE, REPLAYED};
    let script = |mode: u8, steps: &[Vec<u8>]| [vec![mode, FEW, AS_USUAL], steps.concat()].concat();
    let out = |packet: Vec<u8>| at(0, FROM_LAPTOP, &[&[0][..], &packet].concat());
    let cut = |packet: Vec<u8>, size: u8| at(0, FROM_TUN, &[&packet[..], &[size]].concat());
    let r#in = |packet: Vec<u8>| cut(packet, 0);
    let flush = |failed: u8| vec![FLUSH, failed];
    vec![
        (
            "conversation",
            script(
                TUNNEL,
                &[
                    out(tcp(WIKI, SYN, 0, 0)),
                    r#in(back(tcp(WIKI, SYN | ACK, 0, 0))),
                    flush(0),
                    out(tcp(WIKI, ACK, 1, 50)),
                    at(step::SECOND, FLUSH, &[0]),
                ],
            ),
        ),
        (
            "from-tun-without-a-tunnel",
            script(
                0,
                &[
                    r#in(back(udp(WIKI, 1))),
                    r#in(back(tcp(SSH, SYN, 0, 0))),
                    flush(0),
                    at(step::DAY, FLUSH, &[0]),
                ],
            ),
        ),
        (
            "super-packets",
            script(
                TUNNEL,
                &[
                    out(udp(WIKI, 1)),
                    out(tcp(WIKI, SYN, 0, 0)),
                    cut(back(udp(WIKI, 200)), 31),
                    cut(back(tcp(WIKI, ACK, 1, 250)), 16),
                    flush(0b0101_0000),
                    // Partial checksums, and headers that lie.
                    cut(back(udp(WIKI, 200)), 0x20),
                    cut(back(udp(WIKI, 200)), 0x9f),
                    cut(back(tcp(WIKI, ACK, 1, 250)), 0x50),
                    flush(0),
                ],
            ),
        ),
        (
            "super-packet-that-waits",
            script(0, &[cut(back(udp(WIKI, 200)), 31), out(udp(WIKI, 1)), flush(0)]),
        ),
        (
            "handshake-in-the-script",
            script(0, &[out(udp(WIKI, 1)), flush(0), out(udp(WIKI, 1)), flush(0)]),
        ),
        (
            "spoofed-and-unknown",
            script(
                TUNNEL,
                &[out(udp(0x02, 1)), out(udp(STRANGER, 1)), r#in(back(udp(STRANGER, 1)))],
            ),
        ),
        (
            "denied-and-told",
            script(
                TUNNEL,
                &[out(udp(INTERNET, 1)), r#in(back(tcp(WIKI, SYN, 0, 0))), flush(0)],
            ),
        ),
        (
            "writes-fail",
            script(
                TUNNEL,
                &[
                    out(udp(WIKI, 1)),
                    r#in(back(udp(WIKI, 2))),
                    out(udp(WIKI, 3)),
                    flush(0x05),
                    out(udp(WIKI, 1)),
                ],
            ),
        ),
        (
            "fragments-held-under-rules",
            script(
                TUNNEL,
                &[
                    out(vec![kind::LATER, 0b0100_0000, 0, 8]),
                    out(vec![kind::LATER, 0b0100_0000, 0, 9]),
                    out(vec![kind::FIRST_UDP, 0b0100_0000, 0, 8]),
                    flush(0x02),
                ],
            ),
        ),
        (
            "fragments-held-too-long",
            script(
                TUNNEL,
                &[
                    out(vec![kind::LATER, 0b0100_0000, 0, 8]),
                    at(step::PAST_FRAGMENTS, FLUSH, &[0]),
                ],
            ),
        ),
        (
            "peer-to-peer",
            script(
                TUNNEL,
                &[out(tcp(PHONE, SYN, 0, 0)), r#in(tcp(PHONE, SYN, 0, 0)), flush(0)],
            ),
        ),
        (
            "roams",
            script(
                TUNNEL,
                &[
                    at(0, FROM_LAPTOP, &[&[1][..], &udp(WIKI, 1)].concat()),
                    at(0, FROM_LAPTOP, &[&[2][..], &udp(WIKI, 1)].concat()),
                    r#in(back(udp(WIKI, 1))),
                    flush(0),
                ],
            ),
        ),
        (
            "port-0",
            script(TUNNEL, &[at(0, FROM_LAPTOP, &[&[3][..], &udp(WIKI, 1)].concat())]),
        ),
        (
            "datagrams-of-each-type",
            script(
                TUNNEL,
                &(0..=5)
                    .map(|kind| [vec![DATAGRAM, 1, kind, 40], vec![kind; 40]].concat())
                    .collect::<Vec<_>>(),
            ),
        ),
        (
            "initiation-of-nobody",
            script(0, &[[vec![DATAGRAM, 1, 1, 144], vec![7; 144]].concat()]),
        ),
        (
            "damaged-and-cut",
            script(
                TUNNEL,
                &[
                    at(0, DAMAGED, &[&[0][..], &udp(WIKI, 1), &[20, 1]].concat()),
                    at(0, DAMAGED, &[&[0][..], &udp(WIKI, 1), &[9, 0]].concat()),
                ],
            ),
        ),
        (
            "replayed",
            script(
                TUNNEL,
                &[out(udp(WIKI, 1)), vec![REPLAYED, 0], vec![REPLAYED, 2], flush(0)],
            ),
        ),
        (
            "malformed-from-tun",
            script(NO_RULES, &[r#in(vec![kind::RAW, 6, 0x45, 0, 0, 6, 0, 0])]),
        ),
        (
            "laptop-leaves-and-comes-back",
            script(
                TUNNEL,
                &[
                    out(udp(WIKI, 1)),
                    vec![RECONFIGURE, NO_LAPTOP, FEW, AS_USUAL],
                    out(udp(WIKI, 1)),
                    vec![RECONFIGURE, 0, ONE, 0],
                    out(udp(WIKI, 1)),
                    flush(0),
                ],
            ),
        ),
        (
            "rules-leave-while-fragments-wait",
            script(
                TUNNEL,
                &[
                    out(vec![kind::LATER, 0b0100_0000, 0, 8]),
                    vec![RECONFIGURE, NO_RULES, FEW, AS_USUAL],
                    out(vec![kind::FIRST_UDP, 0b0100_0000, 0, 8]),
                ],
            ),
        ),
        (
            "records-not-wanted",
            script(
                TUNNEL | NO_RECORDS,
                &[out(udp(WIKI, 1)), out(udp(INTERNET, 1)), flush(0xff)],
            ),
        ),
        (
            "waits-then-given-up",
            script(0, &[r#in(back(tcp(SSH, SYN, 0, 0))), vec![GIVE_UP], flush(0)]),
        ),
    ]
}
