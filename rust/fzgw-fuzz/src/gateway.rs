//! A gateway without its sockets: any bytes from the TUN device and the UDP port, with and without a tunnel, with writes
//! that fail and configurations that change.
//!
//! The far end of the tunnel is a gateway as well. Its keys are new in every run, so what is inside a datagram repeats
//! and the datagram does not; no decision depends on that.

use arbitrary::Unstructured;
use bytes::BytesMut;
use fzgw_core::config::GatewayConfig;
use fzgw_core::ecn::Ecn;
use fzgw_core::flow::record::OuterPath;
use fzgw_core::flow::{Purpose, Record, Timestamp};
use fzgw_core::gateway::{GatewayState, ToUdp};
use fzgw_core::offload::{Arrived, VnetHeader, arrived};
use fzgw_core::stats::RecordStats;

use crate::audit::Audit;
use crate::lab;
use crate::make;
use crate::script::{self, byte, raw};

/// What a step does: the low three bits of its byte. The upper five are a step of time.
pub mod op {
    /// A packet of the script from the TUN device: the packet, how it is cut (0: not at all).
    pub const FROM_TUN: u8 = 0;
    /// A packet of the script from the laptop, through its tunnel: where the laptop is, the packet.
    pub const FROM_LAPTOP: u8 = 1;
    /// A datagram: where it comes from, its type, how many bytes follow, and those.
    pub const DATAGRAM: u8 = 2;
    /// A packet of the laptop whose datagram is damaged: where the laptop is, the packet, offset, a byte to change it by
    /// (0: cut there).
    pub const DAMAGED: u8 = 3;
    /// Everything is written but what fails, by bits; what the laptop gets, it answers.
    pub const FLUSH: u8 = 4;
    /// A new configuration: what of it, two bytes of limits.
    pub const RECONFIGURE: u8 = 5;
    /// The laptop's last datagram again: where it comes from.
    pub const REPLAYED: u8 = 6;
    /// What waits is given up, as before a shutdown.
    pub const GIVE_UP: u8 = 7;
}

/// What the first byte says, and the one of [`op::RECONFIGURE`].
pub mod mode {
    /// The configuration has no rules.
    pub const NO_RULES: u8 = 1;
    /// The laptop is not in it.
    pub const NO_LAPTOP: u8 = 2;
    /// Nor is the phone.
    pub const NO_PHONE: u8 = 4;
    /// No records are wanted, from the start to the end.
    pub const NO_RECORDS: u8 = 8;
    /// The laptop's tunnel is up from the start.
    pub const TUNNEL: u8 = 16;
}

/// Datagrams that one flush passes to and fro: a handshake is three.
const MAX_ROUNDS: usize = 4;

/// Three bytes (a mode and limits), then steps.
pub fn run(data: &[u8]) {
    let input = &mut Unstructured::new(data);
    let mode = byte(input);
    let config = config(mode, byte(input), byte(input));
    let Some(mut lab) = Lab::new(&config) else { return };
    if mode & mode::TUNNEL != 0 {
        lab.shake_hands();
    }
    while !input.is_empty() {
        let what = byte(input);
        lab.wait(script::after(lab.now.wall, what >> 3, input));
        match what & 7 {
            op::FROM_TUN => {
                let packet = script::packet(input);
                lab.read(packet, byte(input));
            }
            op::FROM_LAPTOP => {
                let place = byte(input);
                lab.send_from_laptop(place, &script::packet(input));
            }
            op::DATAGRAM => {
                let (place, kind, most) = (byte(input), byte(input), byte(input));
                let mut datagram = BytesMut::from(&[kind, 0, 0, 0][..]);
                datagram.extend_from_slice(raw(input, most.into()));
                lab.gateway.handle_datagram(lab.now, path(place), ecn(place), datagram);
            }
            op::DAMAGED => {
                let place = byte(input);
                let packet = script::packet(input);
                let (at, change) = (byte(input), byte(input));
                for mut datagram in lab.laptop_sends(&packet) {
                    let at = usize::from(at) % datagram.len().max(1);
                    match datagram.get_mut(at) {
                        Some(value) if change != 0 => *value ^= change,
                        Some(_) | None => datagram.truncate(at),
                    }
                    lab.gateway.handle_datagram(lab.now, path(place), ecn(place), datagram);
                }
            }
            op::FLUSH => lab.flush(byte(input)),
            op::RECONFIGURE => {
                lab.flush(0);
                // What was not recorded for a while is in no record.
                let mode = (byte(input) & !mode::NO_RECORDS) | (mode & mode::NO_RECORDS);
                lab.gateway.reconfigure(&self::config(mode, byte(input), byte(input)));
            }
            op::REPLAYED => {
                let place = byte(input);
                let datagram = BytesMut::from(&lab.last[..]);
                lab.gateway.handle_datagram(lab.now, path(place), ecn(place), datagram);
            }
            _ => lab.gateway.give_up_waiting(),
        }
        lab.check();
    }
    lab.shut_down(mode & mode::NO_RECORDS == 0);
}

fn config(mode: u8, how_many: u8, how_long: u8) -> GatewayConfig {
    let mut config = lab::config(lab::limits(how_many, how_long));
    if mode & mode::NO_RULES != 0 {
        config.rules = None;
    }
    config.peers.retain(|peer| {
        let gone = match peer.name.as_str() {
            "laptop" => mode::NO_LAPTOP,
            _ => mode::NO_PHONE,
        };
        mode & gone == 0
    });
    if mode & mode::NO_RECORDS != 0 {
        config.purpose = Purpose::default();
    }
    config
}

/// The laptop is in one of four places, one of which nobody can be in.
fn path(place: u8) -> OuterPath {
    let port = [40_000, 40_001, 40_002, 0][usize::from(place & 3)];
    OuterPath {
        remote: ([203, 0, 113, 1], port).into(),
        local: ([198, 51, 100, 1], 51820).into(),
    }
}

/// What the kernel would say of a super-packet with so many payload bytes in each segment.
fn vnet_header(packet: &[u8], cut: u8) -> VnetHeader {
    if cut == 0 {
        return VnetHeader::default();
    }
    let (checksum_start, protocol) = match packet {
        [first, ..] if first >> 4 == 6 && packet.len() >= 40 => (40, packet[6]),
        [first, ..] if packet.len() >= 20 => (u16::from(first & 15) * 4, packet[9]),
        _ => (20, 0),
    };
    let (gso_type, checksum_offset) = match (protocol, packet.first().map_or(0, |first| first >> 4)) {
        (17, _) => (5, 6),
        (_, 4) => (1, 16),
        _ => (4, 16),
    };
    let broken = u16::from(cut >> 7);
    VnetHeader {
        needs_checksum: cut & 0x40 == 0,
        gso_type: if cut & 0x20 == 0 { gso_type } else { 0 },
        header_len: 0,
        gso_size: u16::from(cut & 0x1f),
        checksum_start: checksum_start + broken,
        checksum_offset,
    }
}

/// The mark with which a datagram from there arrives: none from most places.
fn ecn(place: u8) -> Ecn {
    Ecn::from_bits(if place & 0x20 == 0 { 0 } else { place >> 6 })
}

/// A gateway, the laptop, and the network between them.
struct Lab {
    gateway: GatewayState,
    laptop: GatewayState,
    now: Timestamp,
    place: u8,
    /// The laptop's last datagram.
    last: Vec<u8>,
    audit: Audit,
    records: Vec<Record>,
    took_back: bool,
}

impl Lab {
    fn new(config: &GatewayConfig) -> Option<Self> {
        Some(Self {
            gateway: GatewayState::new(config, 51820).ok()?,
            laptop: GatewayState::new(&lab::laptop(), 40_000).ok()?,
            now: Timestamp {
                mono: 0,
                wall: lab::START,
            },
            place: 0,
            last: Vec::new(),
            audit: Audit::default(),
            records: Vec::new(),
            took_back: false,
        })
    }

    /// The laptop's first packet brings its tunnel up.
    fn shake_hands(&mut self) {
        let ends = script::ends(0, false);
        self.send_from_laptop(0, &make::udp(ends, 1));
        self.flush(0);
        self.check();
    }

    fn send_from_laptop(&mut self, place: u8, packet: &[u8]) {
        for datagram in self.laptop_sends(packet) {
            self.last = datagram.to_vec();
            self.place = place;
            self.gateway
                .handle_datagram(self.now, path(place), ecn(place), datagram);
        }
    }

    /// A read of the TUN device. The high bit of `cut` breaks the header that came with the packet.
    fn read(&mut self, mut packet: Vec<u8>, cut: u8) {
        match arrived(vnet_header(&packet, cut), &mut packet) {
            Arrived::Packet => self.gateway.handle_packet(self.now, BytesMut::from(&packet[..])),
            Arrived::Super(how) => self.gateway.handle_super_packet(self.now, &packet, &how),
            Arrived::Broken => self.gateway.handle_broken_packet(packet.len()),
        }
    }

    /// The datagrams that the laptop makes of a packet: none without a tunnel but those of a handshake.
    fn laptop_sends(&mut self, packet: &[u8]) -> Vec<BytesMut> {
        self.laptop.handle_packet(self.now, BytesMut::from(packet));
        self.take_from_laptop()
    }

    fn take_from_laptop(&mut self) -> Vec<BytesMut> {
        let output = self.laptop.take_output();
        output.udp.into_iter().map(|to_udp| to_udp.datagram.bytes).collect()
    }

    fn wait(&mut self, wall: u64) {
        if wall == self.now.wall {
            return;
        }
        self.flush(0);
        let mono = self.now.mono.saturating_add(wall.saturating_sub(self.now.wall));
        self.now = Timestamp {
            mono: mono.min(fzgw_core::capture::MAX_TIME),
            wall,
        };
        self.gateway.handle_timeout(self.now);
        self.laptop.handle_timeout(self.now);
        self.flush(0);
    }

    /// Writes the batch. What has its bit in `failed` cannot be written; what is for the laptop gets there.
    fn flush(&mut self, failed: u8) {
        for round in 0..MAX_ROUNDS {
            let mut output = self.gateway.take_output();
            let mut number = 0;
            let mut fails = || {
                number += 1;
                round == 0 && failed >> ((number - 1) % 8) & 1 == 1
            };
            for to_tun in output.tun.drain(..) {
                if fails() {
                    self.gateway.not_written(to_tun.receipt);
                    self.took_back = true;
                }
            }
            for ToUdp { datagram, receipt } in output.udp.drain(..) {
                if fails() {
                    self.gateway.not_written(receipt);
                    self.took_back = true;
                    continue;
                }
                self.gateway.datagrams_sent(1);
                if datagram.path.remote.ip() == path(0).remote.ip() {
                    let way = OuterPath {
                        remote: datagram.path.local,
                        local: datagram.path.remote,
                    };
                    self.laptop.handle_datagram(self.now, way, datagram.ecn, datagram.bytes);
                }
            }
            self.gateway.written(output);
            for datagram in self.take_from_laptop() {
                self.gateway
                    .handle_datagram(self.now, path(self.place), ecn(self.place), datagram);
            }
            if !self.gateway.has_output() {
                break;
            }
        }
        // What a last round left is written as well: records may only be drained behind it.
        let output = self.gateway.take_output();
        self.gateway.written(output);
        self.gateway.drain_records(&mut self.records, &mut Vec::new());
        self.audit.take(&mut self.records);
    }

    fn check(&self) {
        let snapshot = self.gateway.snapshot(self.now, RecordStats::default());
        assert!(snapshot.balanced(), "L1, L2, L2b: {snapshot:?}");
    }

    fn shut_down(mut self, records: bool) {
        self.flush(0);
        self.gateway.give_up_waiting();
        while self.gateway.close_some(2) {
            self.check();
        }
        self.flush(0);
        self.check();
        let snapshot = self.gateway.snapshot(self.now, RecordStats::default());
        for side in snapshot.stats.sides {
            assert_eq!(side.waiting.packets, 0, "nothing waits any more: {snapshot:?}");
        }
        if records {
            self.audit.check_end(&snapshot.flows, !self.took_back);
        }
    }
}
