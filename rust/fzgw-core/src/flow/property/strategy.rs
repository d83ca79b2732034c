//! How random cases are made: much of what happens every day, and some of what never should.
//!
//! Every strategy has a box. By value, what proptest keeps of all of them to make a case smaller is more than the stack of
//! a test.

use proptest::collection::vec;
use proptest::prelude::*;

use crate::packet::TcpFlags;

use super::super::record::EndReason;
use super::super::{Limits, Purpose, Side};
use super::action::{
    ADDRESSES, About, Action, Case, ERRORS_V4, Ends, FAMILIES, Fate, Over, PATHS, PEERS, PORTS, PROTOCOLS, Packet,
    Policy, Ports, QUERIES_V4, Scan, Step, What,
};

const MILLISECOND: u64 = 1_000_000;
const SECOND: u64 = 1_000_000_000;
const HOUR: u64 = 3600 * SECOND;
const NEVER: u64 = u64::MAX;
/// The bound of cases that are not about it.
const MANY_FLOWS: usize = 1000;

pub(crate) fn case() -> BoxedStrategy<Case> {
    let start = prop_oneof![Just(0), Just(12_345), Just(1_700_000_000 * SECOND)];
    let end = (
        prop_oneof![Just(EndReason::Shutdown), Just(EndReason::CaptureEnd)],
        1..6usize,
    );
    let actions = vec(actions(), 1..50);
    (start, limits(), purpose(), peers(), actions, end, any::<bool>())
        .prop_map(|(start, limits, purpose, configured_peers, actions, end, crowded)| {
            let bounded = |limits: Limits| if crowded { limits } else { unbounded(limits) };
            let actions = actions.into_iter().flatten().map(|action| match action {
                Action::Configure {
                    limits,
                    purpose,
                    configured_peers,
                } => Action::Configure {
                    limits: bounded(limits),
                    purpose,
                    configured_peers,
                },
                action => action,
            });
            Case {
                start,
                limits: bounded(limits),
                purpose,
                configured_peers,
                actions: actions.collect(),
                end,
            }
        })
        .boxed()
}

fn unbounded(limits: Limits) -> Limits {
    Limits {
        max_flows: MANY_FLOWS,
        max_flows_per_peer: None,
        ..limits
    }
}

fn peers() -> BoxedStrategy<usize> {
    prop_oneof![Just(1), Just(2), Just(8)].boxed()
}

fn purpose() -> BoxedStrategy<Purpose> {
    let mostly = |weight| prop::bool::weighted(weight);
    (mostly(0.95), mostly(0.85), mostly(0.3), mostly(0.3))
        .prop_map(|(records, updates, openings, rules)| Purpose {
            records,
            updates,
            // Whoever listens to openings wants records, too.
            openings: openings && records,
            rules,
        })
        .boxed()
}

fn limits() -> BoxedStrategy<Limits> {
    let idle = (limit(), limit(), limit(), limit(), limit());
    let flows = (1..9usize, prop::option::of(1..5usize));
    let open_after = prop_oneof![2 => Just(0), 1 => Just(SECOND), 2 => limit()];
    let update_every = prop_oneof![
        2 => Just(1),
        2 => Just(7),
        2 => Just(MILLISECOND),
        4 => Just(SECOND),
        4 => Just(60 * SECOND),
        1 => Just(HOUR),
        1 => Just(NEVER),
    ];
    let fragments = (
        prop_oneof![1 => 0..4usize, 2 => Just(4), 2 => Just(8), 2 => Just(4096)],
        limit(),
    );
    (idle, flows, limit(), open_after, update_every, fragments)
        .prop_map(
            |(idle, flows, close_delay, open_after, update_every, fragments)| Limits {
                max_flows: flows.0,
                max_flows_per_peer: flows.1,
                tcp_idle: idle.0,
                tcp_opening_idle: idle.1,
                udp_idle: idle.2,
                icmp_idle: idle.3,
                other_idle: idle.4,
                close_delay,
                open_after,
                update_every,
                max_fragments: fragments.0,
                fragment_timeout: fragments.1,
            },
        )
        .boxed()
}

/// From nothing to never, most often so long that a flow comes to something.
fn limit() -> BoxedStrategy<u64> {
    prop_oneof![
        1 => Just(0),
        1 => Just(1),
        1 => Just(10),
        1 => Just(MILLISECOND),
        8 => (1..=60u64).prop_map(|seconds| seconds * SECOND),
        6 => Just(HOUR),
        2 => Just(NEVER),
    ]
    .boxed()
}

/// A thing that happens in so many actions.
fn actions() -> BoxedStrategy<Vec<Action>> {
    prop_oneof![
        40 => packet().prop_map(|packet| vec![Action::Packet(packet)]),
        10 => time(),
        12 => conversation(),
        8 => exchange(),
        6 => datagram(),
        3 => errors(),
        2 => travel(),
        1 => scan(),
        8 => Just(vec![Action::HandleTimeout]),
        6 => Just(vec![Action::Drain]),
        3 => roam().prop_map(|roam| vec![roam]),
        3 => configuration().prop_map(|change| vec![change]),
    ]
    .boxed()
}

fn time() -> BoxedStrategy<Vec<Action>> {
    let wait = prop_oneof![
        4 => (-2i8..3).prop_map(Action::WaitUntilDue),
        2 => limit().prop_map(|time| Action::Wait(time.min(1000 * 24 * HOUR))),
        1 => (0..10 * HOUR).prop_map(Action::Wait),
        1 => prop_oneof![
            Just(HOUR as i64),
            Just(-(HOUR as i64)),
            Just(SECOND as i64),
            Just(-(SECOND as i64) - 1),
            Just(SECOND as i64 + 1)
        ]
        .prop_map(Action::StepWallClock),
    ];
    (wait, any::<bool>())
        .prop_map(|(wait, look)| {
            let mut actions = vec![wait];
            actions.extend(
                look.then_some([Action::HandleTimeout, Action::Drain])
                    .into_iter()
                    .flatten(),
            );
            actions
        })
        .boxed()
}

fn configuration() -> BoxedStrategy<Action> {
    prop_oneof![
        (limits(), prop::option::weighted(0.3, purpose()), peers()).prop_map(|(limits, purpose, configured_peers)| {
            Action::Configure {
                limits,
                purpose,
                configured_peers,
            }
        }),
        few(PEERS.len() as u8).prop_map(|peer| Action::ClosePeer { peer }),
    ]
    .boxed()
}

fn roam() -> BoxedStrategy<Action> {
    (few(PEERS.len() as u8), 0..PATHS)
        .prop_map(|(peer, path)| Action::Roam { peer, path })
        .boxed()
}

/// An index below `most`, nearly always the same, or nothing would meet.
fn few(most: u8) -> BoxedStrategy<u8> {
    prop_oneof![4 => Just(0), 1 => 0..most].boxed()
}

fn ends() -> BoxedStrategy<Ends> {
    (few(PEERS.len() as u8), few(FAMILIES), few(ADDRESSES), few(ADDRESSES))
        .prop_map(|(peer, family, near, far)| Ends {
            peer,
            family,
            near,
            far,
        })
        .boxed()
}

fn ports() -> BoxedStrategy<Ports> {
    (few(PORTS.len() as u8), few(PORTS.len() as u8))
        .prop_map(|(near, far)| Ports { near, far })
        .boxed()
}

fn side() -> BoxedStrategy<Side> {
    prop_oneof![Just(Side::FromPeer), Just(Side::ToPeer)].boxed()
}

fn policy() -> BoxedStrategy<Policy> {
    let rule = || prop::option::of(0..2u8);
    prop_oneof![7 => rule().prop_map(Policy::Allow), 1 => rule().prop_map(Policy::Deny)].boxed()
}

fn fate() -> BoxedStrategy<Fate> {
    prop_oneof![
        16 => Just(Fate::Sent),
        1 => Just(Fate::LostAtOnce),
        2 => Just(Fate::LostLater),
        1 => Just(Fate::Dropped),
    ]
    .boxed()
}

fn packet() -> BoxedStrategy<Packet> {
    let pieces = (
        prop::option::weighted(0.2, 0..3u32),
        prop::option::weighted(0.2, 1..600u16),
    );
    (ends(), side(), what(), pieces, policy(), any::<bool>(), fate())
        .prop_map(
            |(ends, side, what, (first_of, segment_size), policy, asks, fate)| Packet {
                ends,
                side,
                what,
                first_of,
                segment_size,
                policy,
                asks,
                fate,
            },
        )
        .boxed()
}

fn what() -> BoxedStrategy<What> {
    prop_oneof![
        8 => (ports(), step()).prop_map(|(ports, step)| What::Tcp(ports, step)),
        3 => (ports(), size()).prop_map(|(ports, payload)| What::Udp(ports, payload)),
        2 => (0..2u16, any::<bool>()).prop_map(|(identifier, request)| What::Echo { identifier, request }),
        1 => few(QUERIES_V4.len() as u8).prop_map(What::Query),
        1 => few(PROTOCOLS.len() as u8).prop_map(What::Other),
        2 => piece(),
        2 => (few(ERRORS_V4.len() as u8), about()).prop_map(|(kind, about)| What::Error { kind, about }),
    ]
    .boxed()
}

fn size() -> BoxedStrategy<u16> {
    prop_oneof![Just(0u16), Just(1), Just(5), Just(1000), Just(u16::MAX)].boxed()
}

fn step() -> BoxedStrategy<Step> {
    let old = (0..1500u16, size()).prop_map(|(back, payload)| Step::Old { back, payload });
    let (syn, ack, fin, rst) = (TcpFlags::SYN, TcpFlags::ACK, TcpFlags::FIN, TcpFlags::RST);
    let each = (any::<bool>(), any::<bool>(), any::<bool>(), any::<bool>());
    let flags = prop_oneof![
        1 => any::<u8>(),
        3 => each.prop_map(move |(has_syn, has_ack, has_fin, has_rst)| {
            let bit = |has, flag| if has { flag } else { 0 };
            bit(has_syn, syn) | bit(has_ack, ack) | bit(has_fin, fin) | bit(has_rst, rst)
        }),
    ];
    let odd = (flags, any::<u32>(), size()).prop_map(|(flags, seq, payload)| Step::Odd { flags, seq, payload });
    prop_oneof![
        4 => Just(Step::Syn),
        3 => Just(Step::SynAck),
        3 => Just(Step::Ack),
        5 => size().prop_map(Step::Data),
        3 => Just(Step::Fin),
        1 => Just(Step::Rst),
        3 => Just(Step::Again),
        1 => size().prop_map(Step::Skip),
        1 => old,
        2 => odd,
    ]
    .boxed()
}

fn about() -> BoxedStrategy<About> {
    prop_oneof![
        4 => ports().prop_map(About::Tcp),
        3 => ports().prop_map(About::Udp),
        1 => (0..2u16, any::<bool>()).prop_map(|(identifier, request)| About::Echo { identifier, request }),
        1 => few(PROTOCOLS.len() as u8).prop_map(About::Other),
        1 => Just(About::Nothing),
    ]
    .boxed()
}

fn piece() -> BoxedStrategy<What> {
    let protocol = prop_oneof![3 => Just(6u8), 3 => Just(17), 1 => Just(1), 1 => Just(47)];
    (protocol, 0..3u32, prop::bool::weighted(0.1), size())
        .prop_map(|(protocol, identification, first, payload)| What::Piece {
            protocol,
            identification,
            first,
            payload,
        })
        .boxed()
}

/// A packet that is passed on without ado.
fn plain(ends: Ends, side: Side, what: What) -> Packet {
    Packet {
        ends,
        side,
        what,
        first_of: None,
        segment_size: None,
        policy: Policy::Allow(None),
        asks: true,
        fate: Fate::Sent,
    }
}

/// What the network does to one packet of many.
#[derive(Debug, Clone, Copy)]
enum Weather {
    Fair,
    /// It comes by twice.
    Twice,
    /// It never comes by.
    Lost,
    /// It comes by and could not be written.
    Unwritten,
    /// It comes by after the next.
    Late,
    Slow(u64),
}

fn weather() -> BoxedStrategy<Weather> {
    prop_oneof![
        20 => Just(Weather::Fair),
        2 => Just(Weather::Twice),
        2 => Just(Weather::Lost),
        1 => Just(Weather::Unwritten),
        2 => Just(Weather::Late),
        2 => limit().prop_map(|time| Weather::Slow(time.min(HOUR))),
    ]
    .boxed()
}

/// A TCP connection from its SYN on, how far ever it comes.
fn conversation() -> BoxedStrategy<Vec<Action>> {
    let ending = prop_oneof![
        3 => Just(vec![(true, Step::Fin), (false, Step::Ack), (false, Step::Fin), (true, Step::Ack)]),
        2 => Just(vec![(false, Step::Fin), (true, Step::Fin), (false, Step::Ack)]),
        1 => Just(vec![(true, Step::Rst)]),
        1 => Just(vec![(false, Step::Rst)]),
        2 => Just(vec![]),
    ];
    let opening = prop_oneof![
        5 => Just(vec![(true, Step::Syn), (false, Step::SynAck), (true, Step::Ack)]),
        1 => Just(vec![(true, Step::Syn), (false, Step::Syn), (true, Step::SynAck), (false, Step::SynAck)]),
        1 => Just(vec![(true, Step::Syn), (true, Step::Again), (true, Step::Again)]),
    ];
    let data = vec((any::<bool>(), size().prop_map(Step::Data)), 0..5);
    (ends(), ports(), side(), opening, data, ending, vec(weather(), 12))
        .prop_map(|(ends, ports, client, opening, data, ending, weather)| {
            let mut actions = Vec::new();
            let mut late = None;
            let steps = opening.into_iter().chain(data).chain(ending);
            for ((by_client, step), weather) in steps.zip(weather) {
                let side = if by_client { client } else { client.turned() };
                let packet = plain(ends, side, What::Tcp(ports, step));
                let before = late.take();
                match weather {
                    Weather::Fair => actions.push(Action::Packet(packet)),
                    Weather::Twice => actions.extend([Action::Packet(packet); 2]),
                    Weather::Lost => {}
                    Weather::Unwritten => actions.push(Action::Packet(Packet {
                        fate: Fate::LostLater,
                        ..packet
                    })),
                    Weather::Late => late = Some(Action::Packet(packet)),
                    Weather::Slow(time) => {
                        actions.extend([Action::Wait(time), Action::HandleTimeout, Action::Packet(packet)]);
                    }
                }
                actions.extend(before);
            }
            actions.extend(late);
            actions
        })
        .boxed()
}

/// Both ends of a flow of any protocol, speaking now and then.
fn exchange() -> BoxedStrategy<Vec<Action>> {
    let what = prop_oneof![
        3 => (ports(), size()).prop_map(|(ports, payload)| What::Udp(ports, payload)),
        2 => (ports(), size()).prop_map(|(ports, payload)| What::Tcp(ports, Step::Data(payload))),
        1 => ports().prop_map(|ports| What::Tcp(ports, Step::Again)),
        1 => (0..2u16).prop_map(|identifier| What::Echo { identifier, request: true }),
        1 => few(PROTOCOLS.len() as u8).prop_map(What::Other),
    ];
    let pause = prop_oneof![
        3 => Just(vec![]),
        2 => (-1i8..2).prop_map(|after| vec![Action::WaitUntilDue(after), Action::HandleTimeout]),
        1 => (1..20u64).prop_map(|time| vec![Action::Wait(time), Action::HandleTimeout]),
        1 => (1..20u64).prop_map(|time| vec![Action::Wait(time * SECOND), Action::HandleTimeout]),
        1 => Just(vec![Action::HandleTimeout]),
        1 => Just(vec![Action::HandleTimeout, Action::Drain]),
    ];
    let said = (prop::bool::weighted(0.7), pause, fate());
    (ends(), side(), what, vec(said, 2..16))
        .prop_map(|(ends, client, what, said)| {
            let mut actions = Vec::new();
            for (by_client, pause, fate) in said {
                let (side, what) = match what {
                    What::Echo { identifier, .. } if !by_client => (
                        client.turned(),
                        What::Echo {
                            identifier,
                            request: false,
                        },
                    ),
                    _ if !by_client => (client.turned(), what),
                    _ => (client, what),
                };
                actions.push(Action::Packet(Packet {
                    fate,
                    ..plain(ends, side, what)
                }));
                actions.extend(pause);
            }
            actions
        })
        .boxed()
}

/// The pieces of one datagram, in some order (R15).
fn datagram() -> BoxedStrategy<Vec<Action>> {
    let first = prop_oneof![
        3 => (ports(), size()).prop_map(|(ports, payload)| (17u8, What::Udp(ports, payload))),
        2 => (ports(), step()).prop_map(|(ports, step)| (6, What::Tcp(ports, step))),
        1 => Just((47, What::Other(0))),
    ];
    let pieces = vec((prop::bool::weighted(0.35), weather()), 1..6);
    (ends(), side(), first, 0..3u32, pieces)
        .prop_map(|(ends, side, (protocol, first), identification, pieces)| {
            let mut actions = Vec::new();
            for (is_first, weather) in pieces {
                let later = What::Piece {
                    protocol,
                    identification,
                    first: false,
                    payload: 8,
                };
                let packet = Packet {
                    first_of: Some(identification),
                    fate: match weather {
                        Weather::Unwritten => Fate::LostLater,
                        Weather::Lost => Fate::LostAtOnce,
                        Weather::Fair | Weather::Twice | Weather::Late | Weather::Slow(_) => Fate::Sent,
                    },
                    ..plain(ends, side, if is_first { first } else { later })
                };
                if let Weather::Slow(time) = weather {
                    actions.push(Action::Wait(time));
                }
                actions.push(Action::Packet(packet));
            }
            actions
        })
        .boxed()
}

/// So many kinds of errors about one flow that its list overflows, and has room again when lost ones are taken back (R13).
fn errors() -> BoxedStrategy<Vec<Action>> {
    let about = prop_oneof![
        ports().prop_map(|ports| (What::Udp(ports, 1), About::Udp(ports))),
        ports().prop_map(|ports| (What::Tcp(ports, Step::Data(1)), About::Tcp(ports))),
    ];
    let kind = prop_oneof![20 => 2..ERRORS_V4.len() as u8, 1 => 0..2u8];
    let fate = prop_oneof![fate(), prop_oneof![Just(Fate::Sent), Just(Fate::LostLater)]];
    let errors = vec((kind, fate, prop::bool::weighted(0.1)), 1..60);
    (ends(), side(), about, errors)
        .prop_map(|(ends, side, (what, about), errors)| {
            let mut actions = vec![Action::Packet(plain(ends, side.turned(), what))];
            for (kind, fate, drains) in errors {
                actions.push(Action::Packet(Packet {
                    fate,
                    ..plain(ends, side, What::Error { kind, about })
                }));
                actions.extend(drains.then_some(Action::Drain));
            }
            actions
        })
        .boxed()
}

/// A peer that changes its path for every packet (R24).
fn travel() -> BoxedStrategy<Vec<Action>> {
    (ends(), ports(), vec(0..PATHS, 1..24))
        .prop_map(|(ends, ports, paths)| {
            let leg = |path| {
                let packet = plain(ends, Side::FromPeer, What::Udp(ports, 1));
                let peer = ends.peer;
                [Action::Roam { peer, path }, Action::Packet(packet)]
            };
            paths.into_iter().flat_map(leg).collect()
        })
        .boxed()
}

/// Denials at the edges of what a peer keeps keys of, and some more, also when the first of them are over (R23).
fn scan() -> BoxedStrategy<Vec<Action>> {
    let rule = prop::option::of(0..2u8);
    let (ports, hosts) = (prop_oneof![2 => 1..10u16, 1 => 254..259u16], 510..515u16);
    let first = prop_oneof![
        3 => (Just(Over::Ports), ports.clone()),
        1 => (Just(Over::Hosts), ports),
        2 => (Just(Over::Hosts), hosts),
    ];
    // Of the same ports and hosts, or of others.
    let from = prop_oneof![0..4u16, Just(1000)];
    let more = vec(
        (side(), prop_oneof![Just(Over::Ports), Just(Over::Hosts)], from, 1..4u16),
        1..4,
    );
    (ends(), side(), first, rule, prop::option::of(-1..3i8), more)
        .prop_map(|(ends, side, (over, count), rule, wait, more)| {
            let scan = |side, over, from, count| {
                Action::Scan(Scan {
                    ends,
                    side,
                    over,
                    from,
                    count,
                    rule,
                })
            };
            let mut actions = vec![scan(side, over, 0, count)];
            actions.extend(wait.map(Action::WaitUntilDue));
            actions.extend(
                more.into_iter()
                    .map(|(side, over, from, count)| scan(side, over, from, count)),
            );
            actions
        })
        .boxed()
}
