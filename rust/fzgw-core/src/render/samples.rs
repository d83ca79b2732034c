//! Records that the renderers' tests share, made by hand and at random.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};

use super::parts::{TCP, UDP};
use crate::flow::Tally;
use crate::flow::record::{
    Activity, ConnState, Counts, Direction, Directory, EndReason, FlowRecord, Gap, GatewayInfo, History, IcmpErrors,
    MAX_ICMP_ERRORS, MAX_PATHS, NameId, Note, OuterPath, PathSeen, PeerId, PeerInfo, Record, TcpRecord, Traffic,
    Verdict,
};

pub(super) const START: u64 = 1_700_000_000_123_456_789;
pub(super) const SECOND: u64 = 1_000_000_000;

pub(super) fn directory() -> Directory {
    let laptop = PeerInfo {
        name: "laptop-7".to_owned(),
        user: Some("someone@example.com".to_owned()),
        groups: vec!["engineering".to_owned(), "staff".to_owned()],
        public_key: "bGFwdG9w".to_owned(),
    };
    let printer = PeerInfo {
        name: "printer".to_owned(),
        public_key: "cHJpbnRlcg==".to_owned(),
        ..PeerInfo::default()
    };
    Directory {
        gateway: GatewayInfo {
            uid: "gw-1".to_owned(),
            name: "exit-1".to_owned(),
            boot_id: "00c0ffee12345678".to_owned(),
            version: "0.1.0".to_owned(),
        },
        peers: HashMap::from([(7, laptop), (8, printer)]),
        names: ["engineering-wiki", "wiki", "wiki.example.com", "default-deny"]
            .map(str::to_owned)
            .to_vec(),
    }
}

/// A TCP connection that ended as it should, opened by the laptop.
pub(super) fn tcp() -> FlowRecord {
    FlowRecord {
        serial: 0x2a,
        activity: Activity::Close,
        number: 3,
        peer: PeerId(7),
        protocol: TCP,
        src_ip: "100.64.0.2".parse().unwrap(),
        src_port: 49152,
        dst_ip: "10.1.2.3".parse().unwrap(),
        dst_port: 443,
        icmp: None,
        initiator_known: true,
        direction: Direction::Outbound,
        verdict: Verdict::Allow,
        rule: Some(NameId(0)),
        resource: Some(NameId(1)),
        domain: Some(NameId(2)),
        start: START,
        end: START + 90 * SECOND,
        total: Traffic {
            out: Counts {
                packets: 10,
                bytes: 1500,
                payload: 980,
            },
            r#in: Counts {
                packets: 12,
                bytes: 9000,
                payload: 8376,
            },
        },
        delta: Traffic {
            out: Counts {
                packets: 2,
                bytes: 104,
                payload: 0,
            },
            r#in: Counts {
                packets: 1,
                bytes: 52,
                payload: 0,
            },
        },
        attempts: Tally::default(),
        attempts_delta: Tally::default(),
        conn_state: ConnState::Sf,
        tcp: Some(TcpRecord {
            history: History::from("ShADadTFf"),
            flags_out: 0x1b,
            flags_in: 0x13,
            syn_to_syn_ack: Some(12_345_678),
            syn_ack_to_ack: Some(345_678),
            retransmits_out: 1,
            retransmits_in: 0,
        }),
        icmp_errors: Vec::new(),
        paths: vec![PathSeen {
            path: OuterPath {
                remote: "203.0.113.7:40000".parse().unwrap(),
                local: "198.51.100.1:51820".parse().unwrap(),
            },
            since: START,
        }],
        paths_total: 1,
        end_reason: Some(EndReason::Fin),
    }
}

/// The connection of [`tcp`] in a capture that was read without a configuration.
pub(super) fn tcp_of_nobody() -> FlowRecord {
    FlowRecord {
        number: 1,
        peer: PeerId::NOBODY,
        direction: Direction::Unknown,
        rule: None,
        resource: None,
        domain: None,
        delta: tcp().total,
        paths: Vec::new(),
        paths_total: 0,
        end_reason: Some(EndReason::CaptureEnd),
        ..tcp()
    }
}

/// What the printer got from outside, without rules.
pub(super) fn udp_inbound() -> FlowRecord {
    FlowRecord {
        peer: PeerId(8),
        protocol: UDP,
        src_ip: "2001:db8::53".parse().unwrap(),
        src_port: 53,
        dst_ip: "fd00:64::8".parse().unwrap(),
        dst_port: 40001,
        direction: Direction::Inbound,
        rule: None,
        resource: None,
        domain: None,
        tcp: None,
        paths: Vec::new(),
        paths_total: 0,
        end_reason: Some(EndReason::Idle),
        ..tcp()
    }
}

/// An echo that the laptop sent, and what came back of it.
pub(super) fn echo() -> FlowRecord {
    FlowRecord {
        protocol: 1,
        src_port: 777,
        dst_port: 0,
        icmp: Some((8, 0)),
        rule: None,
        resource: None,
        domain: None,
        conn_state: ConnState::Oth,
        tcp: None,
        end_reason: Some(EndReason::Idle),
        ..tcp()
    }
}

/// Datagrams to a closed port, and the two kinds of errors that they met (R13).
pub(super) fn udp_unreachable() -> FlowRecord {
    let out = Counts {
        packets: 3,
        bytes: 123,
        payload: 39,
    };
    let total = Traffic {
        out,
        ..Traffic::default()
    };
    let errors = |kind, code, packets, bytes| IcmpErrors {
        kind,
        code,
        packets,
        bytes,
    };
    FlowRecord {
        number: 1,
        protocol: UDP,
        dst_port: 9,
        rule: None,
        resource: None,
        domain: None,
        total,
        delta: total,
        conn_state: ConnState::S0,
        tcp: None,
        icmp_errors: vec![errors(11, 0, 1, 68), errors(3, 3, 2, 138)],
        end_reason: Some(EndReason::IcmpUnreachable),
        ..tcp()
    }
}

/// A SYN that the rules denied three times, and once more since the record before (R23).
pub(super) fn denied() -> FlowRecord {
    FlowRecord {
        activity: Activity::Update,
        number: 2,
        src_port: 0,
        dst_port: 22,
        rule: Some(NameId(3)),
        resource: None,
        domain: None,
        verdict: Verdict::Deny,
        total: Traffic::default(),
        delta: Traffic::default(),
        attempts: Tally { packets: 4, bytes: 240 },
        attempts_delta: Tally { packets: 1, bytes: 60 },
        conn_state: ConnState::Oth,
        tcp: None,
        end_reason: None,
        ..tcp()
    }
}

/// Denials past 512 keys of one peer, which keep the peer and the rule alone (R23).
pub(super) fn denied_joined() -> FlowRecord {
    let attempts = Tally {
        packets: 40,
        bytes: 2400,
    };
    FlowRecord {
        activity: Activity::Close,
        number: 1,
        protocol: 0,
        src_ip: "0.0.0.0".parse().unwrap(),
        dst_ip: "0.0.0.0".parse().unwrap(),
        dst_port: 0,
        attempts,
        attempts_delta: attempts,
        end_reason: Some(EndReason::Idle),
        ..denied()
    }
}

/// One line out of many that are easier to read.
pub(super) fn golden(text: &str) -> String {
    text.lines().map(str::trim).chain(["\n"]).collect()
}

/// The members of a line's object. Panics where it is none, or a member stands twice in it or in an object inside.
pub(super) fn members(line: &[u8]) -> serde_json::Map<String, serde_json::Value> {
    let value: serde_json::Value = serde_json::from_slice(line).unwrap();
    // A member that stood twice is one in the value.
    let text = serde_json::to_string(&value).unwrap();
    let colons = |bytes: &[u8]| bytes.iter().filter(|&&byte| byte == b':').count();
    assert_eq!(colons(line), colons(text.as_bytes()), "{text}");
    let serde_json::Value::Object(members) = value else {
        panic!("not an object: {text}");
    };
    members
}

/// Records of any kind and size, and names as nobody would choose them, from a seed (SplitMix64).
pub(super) struct Random(u64);

impl Random {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ mixed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ mixed >> 31
    }

    fn below(&mut self, end: usize) -> usize {
        (self.next() % end as u64) as usize
    }

    fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len())]
    }

    pub(super) fn one_in(&mut self, end: usize) -> bool {
        self.below(end) == 0
    }

    /// Of any size: small numbers are as likely as large ones. Two of them add up without an overflow.
    fn number(&mut self) -> u64 {
        let bits = self.below(63);
        self.next() >> 1 >> (62 - bits)
    }

    pub(super) fn text(&mut self) -> String {
        const PARTS: [&str; 16] = [
            "", "laptop", "\"", "\\", "\n", "\r\n", "\t", "\0", "\u{1f}", "\u{7f}", "\u{2028}", "é", "🦀", "},{",
            "\":", "\\u0000",
        ];
        let parts = self.below(6);
        (0..parts).map(|_| self.pick(&PARTS)).collect()
    }

    pub(super) fn directory(&mut self) -> Directory {
        let peers = (0..3).map(|id| {
            let groups = self.below(3);
            let info = PeerInfo {
                name: self.text(),
                user: self.one_in(2).then(|| self.text()),
                groups: (0..groups).map(|_| self.text()).collect(),
                public_key: self.text(),
            };
            (id, info)
        });
        Directory {
            peers: peers.collect(),
            gateway: GatewayInfo {
                uid: self.text(),
                name: self.text(),
                boot_id: self.text(),
                version: self.text(),
            },
            names: (0..3).map(|_| self.text()).collect(),
        }
    }

    pub(super) fn record(&mut self) -> Record {
        match self.below(16) {
            0 => Record::Gap(Gap {
                records: self.number(),
                packets: self.number(),
                bytes: self.number(),
                from: self.number(),
                until: self.number(),
            }),
            1 => Record::Note(Note::ClockStep {
                at: self.next(),
                by: self.next() as i64,
            }),
            _ => Record::Flow(self.flow()),
        }
    }

    fn flow(&mut self) -> FlowRecord {
        let start = self.number();
        let activity = self.pick(&[Activity::Open, Activity::Update, Activity::Close, Activity::Close]);
        let protocol = self.pick(&[0, 1, TCP, TCP, UDP, 47, 58, 132, 255]);
        // Without a configuration there are no peers and no rules.
        let nobody = (PeerId::NOBODY, Direction::Unknown, Verdict::Allow);
        let somebody = (
            PeerId(self.below(4) as u32),
            self.pick(&[Direction::Outbound, Direction::Inbound]),
            self.pick(&[Verdict::Allow, Verdict::Allow, Verdict::Deny]),
        );
        let (peer, direction, verdict) = self.pick(&[nobody, somebody, somebody]);
        let errors = self.few(MAX_ICMP_ERRORS);
        let paths = self.few(MAX_PATHS);
        FlowRecord {
            serial: self.number(),
            activity,
            number: self.next() as u32,
            peer,
            protocol,
            src_ip: self.ip(),
            src_port: self.next() as u16,
            dst_ip: self.ip(),
            dst_port: self.next() as u16,
            icmp: self.one_in(3).then(|| (self.next() as u8, self.next() as u8)),
            initiator_known: self.one_in(2),
            direction,
            verdict,
            rule: self.name(),
            resource: self.name(),
            domain: self.name(),
            start,
            end: start + self.number(),
            total: self.traffic(),
            delta: self.traffic(),
            attempts: self.tally(),
            attempts_delta: self.tally(),
            conn_state: self.pick(&[
                ConnState::S0,
                ConnState::S1,
                ConnState::Sf,
                ConnState::Rej,
                ConnState::S2,
                ConnState::S3,
                ConnState::Rsto,
                ConnState::Rstr,
                ConnState::Rstos0,
                ConnState::Rstrh,
                ConnState::Sh,
                ConnState::Shr,
                ConnState::Oth,
            ]),
            tcp: (protocol == TCP).then(|| self.tcp_record()),
            icmp_errors: (0..errors).map(|_| self.icmp_errors()).collect(),
            paths: (0..paths).map(|_| self.path()).collect(),
            paths_total: self.next() as u32,
            end_reason: (activity == Activity::Close).then(|| {
                self.pick(&[
                    EndReason::Fin,
                    EndReason::Rst,
                    EndReason::Idle,
                    EndReason::IcmpUnreachable,
                    EndReason::Reused,
                    EndReason::Evicted,
                    EndReason::PeerRemoved,
                    EndReason::Shutdown,
                    EndReason::CaptureEnd,
                ])
            }),
        }
    }

    /// Mostly none, now and then all that there is room for.
    fn few(&mut self, most: usize) -> usize {
        self.pick(&[0, 0, 1, 2, most])
    }

    fn name(&mut self) -> Option<NameId> {
        self.one_in(2).then(|| NameId(self.below(4) as u32))
    }

    fn ip(&mut self) -> IpAddr {
        match self.below(4) {
            0 => Ipv4Addr::UNSPECIFIED.into(),
            1 => Ipv6Addr::from_bits(self.number().into()).into(),
            2 => Ipv6Addr::from_bits(u128::from(self.next()) << 64 | u128::from(self.next())).into(),
            _ => Ipv4Addr::from_bits(self.next() as u32).into(),
        }
    }

    fn counts(&mut self) -> Counts {
        Counts {
            packets: self.number(),
            bytes: self.number(),
            payload: self.number(),
        }
    }

    fn traffic(&mut self) -> Traffic {
        Traffic {
            out: self.counts(),
            r#in: self.counts(),
        }
    }

    fn tally(&mut self) -> Tally {
        Tally {
            packets: self.number(),
            bytes: self.number(),
        }
    }

    fn tcp_record(&mut self) -> TcpRecord {
        TcpRecord {
            history: self.pick(&["", "S", "ShADadFf", "DTtTtTt"]).into(),
            flags_out: self.next() as u8,
            flags_in: self.next() as u8,
            syn_to_syn_ack: self.one_in(2).then(|| self.next()),
            syn_ack_to_ack: self.one_in(2).then(|| self.next()),
            retransmits_out: self.next() as u32,
            retransmits_in: self.next() as u32,
        }
    }

    fn icmp_errors(&mut self) -> IcmpErrors {
        IcmpErrors {
            kind: self.next() as u8,
            code: self.next() as u8,
            packets: self.number(),
            bytes: self.number(),
        }
    }

    fn path(&mut self) -> PathSeen {
        PathSeen {
            path: OuterPath {
                remote: SocketAddr::new(self.ip(), self.next() as u16),
                local: match self.ip() {
                    IpAddr::V4(ip) => (ip, 51820).into(),
                    IpAddr::V6(ip) => SocketAddrV6::new(ip, 51820, 0, self.next() as u32).into(),
                },
            },
            since: self.number(),
        }
    }
}
