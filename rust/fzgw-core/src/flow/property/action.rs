//! What can happen to a table, in a world so small that everything meets everything else.
//!
//! Plain data, without randomness and without a table: whoever can make a [`Case`], be it from a generator or from the
//! bytes of a fuzzer, can have it checked.

use std::net::{IpAddr, SocketAddr};

use super::super::record::{EndReason, NameId, OuterPath, PeerId};
use super::super::{Limits, Purpose, Side};

/// The life of one table.
#[derive(Debug, Clone)]
pub(crate) struct Case {
    /// Where the monotonic clock stands at first.
    pub(crate) start: u64,
    pub(crate) limits: Limits,
    pub(crate) purpose: Purpose,
    pub(crate) configured_peers: usize,
    pub(crate) actions: Vec<Action>,
    /// Every life ends with this reason, so many flows at a time (R27).
    pub(crate) end: (EndReason, usize),
}

#[derive(Debug, Clone, Copy)]
pub(crate) enum Action {
    /// Time passes; packets alone take a nanosecond each.
    Wait(u64),
    /// Time passes until so many nanoseconds after something is due.
    WaitUntilDue(i8),
    /// The wall clock is stepped by so many nanoseconds (R16).
    StepWallClock(i64),
    Packet(Packet),
    /// Denied packets to this many ports or hosts, from one of them on (R23).
    Scan(Scan),
    /// The peer has another outer path (R24).
    Roam {
        peer: u8,
        path: u8,
    },
    HandleTimeout,
    /// The present batch of packets is written, and the records leave.
    Drain,
    ClosePeer {
        peer: u8,
    },
    Configure {
        limits: Limits,
        /// None: the one that it had.
        purpose: Option<Purpose>,
        configured_peers: usize,
    },
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct Packet {
    pub(crate) ends: Ends,
    pub(crate) side: Side,
    pub(crate) what: What,
    /// It is the first fragment of a datagram with this identification.
    pub(crate) first_of: Option<u32>,
    /// It is a super-packet of segments with so much payload each, where it is TCP or UDP and no fragment (R22).
    pub(crate) segment_size: Option<u16>,
    pub(crate) policy: Policy,
    /// The packet's open flow is asked first, as the gateway does (P1), and its answer holds.
    pub(crate) asks: bool,
    pub(crate) fate: Fate,
}

/// Whose packets, and between which addresses: indices into this world's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Ends {
    pub(crate) peer: u8,
    pub(crate) family: u8,
    pub(crate) near: u8,
    pub(crate) far: u8,
}

/// Ports by index: the peer's and the other one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Ports {
    pub(crate) near: u8,
    pub(crate) far: u8,
}

#[derive(Debug, Clone, Copy)]
pub(crate) enum What {
    Tcp(Ports, Step),
    Udp(Ports, u16),
    Echo {
        identifier: u16,
        request: bool,
    },
    Query(u8),
    Other(u8),
    /// A fragment without ports: a later one, or a first one that is too short.
    Piece {
        protocol: u8,
        identification: u32,
        first: bool,
        payload: u16,
    },
    /// An ICMP error by index. What it quotes went the other way between the same ends.
    Error {
        kind: u8,
        about: About,
    },
}

/// The next segment of one end of a conversation. Sequence numbers go on by themselves.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Step {
    Syn,
    SynAck,
    Ack,
    Data(u16),
    Fin,
    Rst,
    /// The segment before, once more.
    Again,
    /// So many bytes that never come by here: they were lost, or come later.
    Skip(u16),
    /// Bytes from so far back.
    Old {
        back: u16,
        payload: u16,
    },
    /// Whatever.
    Odd {
        flags: u8,
        seq: u32,
        payload: u16,
    },
}

#[derive(Debug, Clone, Copy)]
pub(crate) enum About {
    Tcp(Ports),
    Udp(Ports),
    Echo { identifier: u16, request: bool },
    Other(u8),
    Nothing,
}

/// What access rules say: the index of a rule, if any.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Policy {
    Allow(Option<u8>),
    Deny(Option<u8>),
}

impl Policy {
    pub(crate) fn rule(self) -> Option<NameId> {
        let (Policy::Allow(rule) | Policy::Deny(rule)) = self;
        rule.map(|rule| NameId(rule.into()))
    }
}

/// What becomes of a packet that policy lets through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fate {
    Sent,
    /// It was counted and could not be written (R21), which is known at once, …
    LostAtOnce,
    /// … or when its batch is written, before the next records are drained.
    LostLater,
    /// It was dropped before it left.
    Dropped,
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct Scan {
    pub(crate) ends: Ends,
    pub(crate) side: Side,
    pub(crate) over: Over,
    pub(crate) from: u16,
    pub(crate) count: u16,
    pub(crate) rule: Option<u8>,
}

#[derive(Debug, Clone, Copy)]
pub(crate) enum Over {
    Ports,
    Hosts,
}

/// The last one is whoever it is in a capture without a configuration.
pub(crate) const PEERS: [PeerId; 3] = [PeerId(1), PeerId(2), PeerId::NOBODY];
/// IPv4, IPv6, and IPv4 mapped into IPv6, which is not IPv4.
pub(crate) const FAMILIES: u8 = 3;
pub(crate) const ADDRESSES: u8 = 2;
/// An index past them is an echo's identifier of the same number.
pub(crate) const PORTS: [u16; 3] = [7, 80, 0];
/// More than a flow lists (R24).
pub(crate) const PATHS: u8 = 20;

impl Ends {
    pub(crate) fn near(self) -> IpAddr {
        address(self.family, "100.64.0.0", "fd00:64::", self.near.into())
    }

    pub(crate) fn far(self) -> IpAddr {
        self.far_plus(0)
    }

    /// The far address that a scan finds so many further on.
    pub(crate) fn far_plus(self, offset: u16) -> IpAddr {
        address(
            self.family,
            "192.0.2.0",
            "2001:db8::",
            u32::from(self.far) + u32::from(offset),
        )
    }

    pub(crate) fn is_ipv4(self) -> bool {
        self.family == 0
    }
}

fn address(family: u8, v4: &str, v6: &str, offset: u32) -> IpAddr {
    let v4 = std::net::Ipv4Addr::from(u32::from(v4.parse::<std::net::Ipv4Addr>().expect("an address")) + offset);
    match family {
        0 => IpAddr::V4(v4),
        1 => {
            let v6: std::net::Ipv6Addr = v6.parse().expect("an address");
            IpAddr::V6((u128::from(v6) + u128::from(offset)).into())
        }
        _ => IpAddr::V6(v4.to_ipv6_mapped()),
    }
}

pub(crate) fn path(number: u8) -> OuterPath {
    let address = |last: u8, port: u16| SocketAddr::from(([203, 0, 113, last], port));
    OuterPath {
        remote: address(1, 1000 + u16::from(number)),
        local: address(2, 51820),
    }
}

/// Errors of ICMP: hard ones first, then enough to overflow a flow's list.
pub(crate) const ERRORS_V4: [(u8, u8); 22] = [
    (3, 3),
    (3, 2),
    (3, 4),
    (11, 0),
    (3, 0),
    (3, 1),
    (3, 5),
    (3, 6),
    (3, 7),
    (3, 8),
    (3, 9),
    (3, 10),
    (3, 11),
    (3, 12),
    (3, 13),
    (11, 1),
    (12, 0),
    (12, 1),
    (12, 2),
    (3, 14),
    (3, 15),
    (11, 2),
];

/// Errors of ICMPv6, likewise. Some have the numbers of a hard error of ICMP and are none.
pub(crate) const ERRORS_V6: [(u8, u8); 22] = [
    (1, 4),
    (3, 3),
    (2, 0),
    (3, 0),
    (3, 2),
    (1, 0),
    (1, 1),
    (1, 2),
    (1, 3),
    (1, 5),
    (1, 6),
    (1, 7),
    (3, 1),
    (4, 0),
    (4, 1),
    (4, 2),
    (4, 3),
    (2, 1),
    (1, 8),
    (2, 2),
    (3, 4),
    (4, 4),
];

pub(crate) const QUERIES_V4: [(u8, u8); 3] = [(13, 0), (14, 0), (13, 1)];
pub(crate) const QUERIES_V6: [(u8, u8); 3] = [(135, 0), (136, 0), (135, 1)];
/// GRE, ESP, SCTP.
pub(crate) const PROTOCOLS: [u8; 3] = [47, 50, 132];
