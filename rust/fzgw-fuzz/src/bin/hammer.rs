//! Mutated packets through a replay, as many as wanted and as fast as it goes: `hammer [PACKETS [SEED [CORPUS]]]`.
//!
//! Conversations of all kinds run beside each other; what they and the corpus say is sent as it is, or with bits
//! flipped, bytes set, ends cut off, parts exchanged, twice, late, or one hop on. Time goes on in uneven steps, stands
//! still, and is set back. Replays with and without a configuration take turns, with limits small and usual. The books
//! are looked at every thousand packets and the records held against them at the end of each turn.
//!
//! The same seed sends the same packets. A run that fails tells how many it takes to fail again.

use std::io::Write as _;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;
use std::{env, fs, io};

use fzgw_core::capture::{CaptureReader, Frame, LinkType, ip_packet};
use fzgw_core::flow::{Record, Tally, Untracked};
use fzgw_core::packet::{TcpFlags, protocol};
use fzgw_core::replay::{ReplayLedger, ReplayOptions, ReplayState};
use fzgw_core::stats::Drop as DropReason;
use fzgw_fuzz::audit::Audit;
use fzgw_fuzz::lab;
use fzgw_fuzz::make::{self, Ends, Piece};

const USAGE: &str = "hammer [PACKETS [SEED [CORPUS]]]: packets to send (1,000,000), a seed (1), a folder of corpora";
/// Packets of one replay.
const TURN: u64 = 2_000_000;
/// The books are looked at so often.
const LOOK_EVERY: u64 = 1000;
/// Flows that are ended at once.
const CLOSE_STEP: usize = 1000;
/// Conversations that run beside each other.
const CONVERSATIONS: usize = 512;
/// Packets that may come again, late or in part.
const REMEMBERED: usize = 256;
/// No packet is made longer than this; conversations' payloads are what Ethernet carries.
const MAX_PACKET: usize = 4096;
const MICROSECOND: u64 = 1000;
const SECOND: u64 = 1_000_000_000;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = env::args().skip(1);
    let mut number = |default: u64| match arguments.next() {
        Some(text) => text.replace('_', "").parse().map_err(|_| format!("usage: {USAGE}")),
        None => Ok(default),
    };
    let (packets, seed) = (number(1_000_000)?, number(1)?);
    let corpus = arguments.next().map_or_else(
        || PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/corpus")),
        PathBuf::from,
    );
    let mut source = Source::new(seed, read_corpus(&corpus)?);
    let mut sums = Sums::default();
    let watch = Watch::start();
    while sums.packets < packets {
        let turn = TURN.min(packets - sums.packets);
        run(&mut source, turn, seed, &mut sums)?;
    }
    sums.print(seed, watch.elapsed())?;
    Ok(())
}

/// One replay of so many packets.
fn run(source: &mut Source, packets: u64, seed: u64, sums: &mut Sums) -> io::Result<()> {
    let limits = lab::limits(source.random.byte(), source.random.byte());
    let limits = if sums.turns % 4 < 2 { limits } else { <_>::default() };
    let options = ReplayOptions {
        gateway: (sums.turns % 2 == 1).then(|| lab::config(limits)),
        limits,
        purpose: lab::purpose(source.random.one_in(2)),
        version: "0".to_owned(),
    };
    let mut state = ReplayState::new(&options)?;
    let mut audit = Audit::default();
    let mut records = Vec::new();
    let mut openings = Vec::new();
    let mut until = Place {
        packets: sums.packets,
        seed,
        options: &options,
    };
    for number in 1..=packets {
        until.packets = sums.packets + number;
        source.next();
        let frame = source.frame();
        while state.handle_timers(frame.time) {}
        state.handle_frame(&frame);
        if number % LOOK_EVERY == 0 {
            look(&mut state, &mut audit, &mut records, &mut openings);
        }
    }
    while state.close_some(CLOSE_STEP) {
        look(&mut state, &mut audit, &mut records, &mut openings);
    }
    look(&mut state, &mut audit, &mut records, &mut openings);
    let ledger = state.ledger();
    audit.check_end(&ledger.flows, true);
    sums.add(&ledger);
    Ok(())
}

fn look(
    state: &mut ReplayState,
    audit: &mut Audit,
    records: &mut Vec<Record>,
    openings: &mut Vec<fzgw_core::flow::FlowRecord>,
) {
    state.drain_records(records, openings);
    audit.take(records);
    openings.clear();
    let ledger = state.ledger();
    assert!(ledger.balanced(), "L1, L2, L2b: {ledger:?}");
    assert_eq!(ledger.made, audit.made(), "every record comes out");
    audit.check(&ledger.flows);
}

/// Where a run is: told if it ends here.
struct Place<'a> {
    packets: u64,
    seed: u64,
    options: &'a ReplayOptions,
}

impl std::ops::Drop for Place<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            // Nothing is left to be done about a standard error that cannot be written.
            let _ = writeln!(
                io::stderr(),
                "again: hammer {} {}\nconfiguration: {}, {:?}",
                self.packets,
                self.seed,
                self.options.gateway.is_some(),
                self.options.limits
            );
        }
    }
}

/// Where packets come from: the next one, in a buffer that is used again.
struct Source {
    random: Random,
    corpus: Vec<Vec<u8>>,
    conversations: Vec<Conversation>,
    recent: Vec<Vec<u8>>,
    time: u64,
    packet: Vec<u8>,
    link: LinkType,
    wire_len: u32,
}

impl Source {
    fn new(seed: u64, corpus: Vec<Vec<u8>>) -> Self {
        let mut random = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
        let conversations = (0..CONVERSATIONS).map(|_| Conversation::new(&mut random)).collect();
        Self {
            random,
            corpus,
            conversations,
            recent: vec![Vec::new(); REMEMBERED],
            time: lab::START,
            packet: Vec::new(),
            link: LinkType::RAW,
            wire_len: 0,
        }
    }

    fn frame(&self) -> Frame<'_> {
        Frame {
            link: self.link,
            time: self.time,
            bytes: &self.packet,
            wire_len: self.wire_len,
        }
    }

    /// Makes the next packet and its time.
    fn next(&mut self) {
        self.step();
        self.packet.clear();
        match self.random.below(16) {
            0 if !self.corpus.is_empty() => {
                let at = self.random.index(self.corpus.len());
                self.packet.extend_from_slice(&self.corpus[at]);
            }
            // Again, or late: it was remembered a while ago.
            1 | 2 => {
                let at = self.random.index(REMEMBERED);
                self.packet.extend_from_slice(&self.recent[at]);
            }
            _ => {
                let at = self.random.index(CONVERSATIONS);
                let conversation = &mut self.conversations[at];
                self.packet = conversation.next(&mut self.random);
                if conversation.is_over() {
                    *conversation = Conversation::new(&mut self.random);
                }
            }
        }
        if self.random.one_in(2) {
            for _ in 0..1 + self.random.below(3) {
                self.mutate();
            }
        }
        if self.random.one_in(4) {
            let at = self.random.index(REMEMBERED);
            self.recent[at].clone_from(&self.packet);
        }
        self.wire_len = self.packet.len() as u32;
        self.link = match self.random.below(64) {
            0 => LinkType(u16::from(self.random.byte())),
            1 => {
                self.packet
                    .splice(0..0, [2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 0x81, 0, 0, 1, 8, 0]);
                self.wire_len = self.packet.len() as u32;
                LinkType::ETHERNET
            }
            // A snaplen cuts it.
            2 => {
                self.packet.truncate(self.random.index(129));
                LinkType::RAW
            }
            _ => LinkType::RAW,
        };
    }

    fn step(&mut self) {
        let forward = match self.random.below(4096) {
            0 => self.random.below(1300 * SECOND),
            1..=8 => self.random.below(3 * SECOND),
            9 => {
                self.time = self.time.saturating_sub(self.random.below(7200 * SECOND));
                0
            }
            10..=40 => {
                self.time = self.time.saturating_sub(self.random.below(SECOND));
                0
            }
            41..=1000 => 0,
            _ => self.random.below(200 * MICROSECOND),
        };
        self.time += forward;
    }

    fn mutate(&mut self) {
        let len = self.packet.len();
        if len == 0 {
            return;
        }
        // Headers say most: half of all places are in the first 64 bytes.
        let at = if self.random.one_in(2) {
            self.random.index(len.min(64))
        } else {
            self.random.index(len)
        };
        match self.random.below(8) {
            0 | 1 => self.packet[at] ^= 1 << self.random.below(8),
            2 => self.packet[at] = self.random.byte(),
            3 => self.packet[at] = [0, 1, 0x7f, 0x80, 0xff, 17, 6, 44][self.random.index(8)],
            4 => self.packet.truncate(at),
            5 => {
                let other = &self.recent[self.random.index(REMEMBERED)];
                let from = self.random.index(other.len() + 1);
                self.packet.truncate(at);
                self.packet.extend_from_slice(&other[from..]);
                self.packet.truncate(MAX_PACKET);
            }
            6 => {
                let hops = if self.packet[0] >> 4 == 6 { 7 } else { 8 };
                if let Some(hops) = self.packet.get_mut(hops) {
                    *hops = hops.wrapping_sub(1);
                }
            }
            // A length that is right again: what follows is looked at.
            _ => self.mend_length(),
        }
    }

    fn mend_length(&mut self) {
        let len = self.packet.len();
        match self.packet.first().map(|first| first >> 4) {
            Some(4) if len >= 4 => self.packet[2..4].copy_from_slice(&(len as u16).to_be_bytes()),
            Some(6) if len >= 40 => self.packet[4..6].copy_from_slice(&((len - 40) as u16).to_be_bytes()),
            Some(_) | None => {}
        }
    }
}

/// Two hosts that speak to each other as their protocol has it.
struct Conversation {
    ends: Ends,
    kind: Kind,
    at: u64,
    length: u64,
    next_out: u32,
    next_in: u32,
}

#[derive(Clone, Copy)]
enum Kind {
    Tcp { reset: bool },
    Udp,
    Echo,
    Other(u8),
    Fragments,
}

impl Conversation {
    fn new(random: &mut Random) -> Self {
        let kind = match random.below(16) {
            0..=7 => Kind::Tcp {
                reset: random.one_in(4),
            },
            8..=11 => Kind::Udp,
            12 | 13 => Kind::Echo,
            14 => Kind::Other(random.byte()),
            _ => Kind::Fragments,
        };
        Self {
            ends: ends(random),
            kind,
            at: 0,
            length: 1 + random.below(40),
            next_out: random.next() as u32,
            next_in: random.next() as u32,
        }
    }

    fn is_over(&self) -> bool {
        self.at > self.length
    }

    fn next(&mut self, random: &mut Random) -> Vec<u8> {
        let at = self.at;
        self.at += 1;
        let out = at == 0 || random.one_in(2);
        let ends = if out { self.ends } else { self.ends.turned() };
        let most = if random.one_in(8) { 1400 } else { 64 };
        let payload = random.index(most);
        let packet = match self.kind {
            Kind::Tcp { reset } => self.tcp(at, out, payload, reset),
            Kind::Udp => make::udp(ends, payload),
            Kind::Echo => make::echo(ends, out),
            Kind::Other(protocol) => make::ip(ends, protocol, &vec![0; payload]),
            Kind::Fragments => {
                let piece = Piece {
                    identification: (at / 4) as u32,
                    offset: (at % 4) as u16,
                    more: at % 4 != 3,
                };
                let body = if piece.offset == 0 {
                    make::udp_body(self.ends, 16)
                } else {
                    vec![0; payload]
                };
                make::fragment(self.ends, protocol::UDP, piece, &body)
            }
        };
        if random.one_in(64) {
            return error_about(&packet, ends, random);
        }
        packet
    }

    /// SYN, SYN-ACK, ACK, data both ways, then FINs or an RST.
    fn tcp(&mut self, at: u64, out: bool, payload: usize, reset: bool) -> Vec<u8> {
        let left = self.length.saturating_sub(at);
        let (out, flags, payload) = match (at, left) {
            (0, _) => (true, TcpFlags::SYN, 0),
            (1, _) => (false, TcpFlags::SYN | TcpFlags::ACK, 0),
            (2, _) => (true, TcpFlags::ACK, 0),
            (_, 0) if reset => (out, TcpFlags::RST, 0),
            (_, 0) => (false, TcpFlags::FIN | TcpFlags::ACK, 0),
            (_, 1) if !reset => (true, TcpFlags::FIN | TcpFlags::ACK, 0),
            _ => (out, TcpFlags::ACK, payload),
        };
        let next = if out { &mut self.next_out } else { &mut self.next_in };
        let seq = *next;
        let counts = TcpFlags(flags).has(TcpFlags::SYN) || TcpFlags(flags).has(TcpFlags::FIN);
        *next = next.wrapping_add(payload as u32 + u32::from(counts));
        let ends = if out { self.ends } else { self.ends.turned() };
        make::tcp(ends, flags, seq, payload)
    }
}

fn error_about(packet: &[u8], ends: Ends, random: &mut Random) -> Vec<u8> {
    let quote = &packet[..packet.len().min(random.index(100))];
    let (kind, code) = match ends.src {
        IpAddr::V4(_) => ([3, 3, 11, 12, 5][random.index(5)], random.index(16)),
        IpAddr::V6(_) => ([1, 1, 2, 3, 4][random.index(5)], random.index(8)),
    };
    make::icmp(ends.turned(), kind, code as u8, quote)
}

/// Hosts inside and outside: those of the configuration's peers and resources, and others.
fn ends(random: &mut Random) -> Ends {
    let near = [2, 3, 2, 9][random.index(4)];
    let far = random.byte();
    let (src, dst): (IpAddr, IpAddr) = if random.one_in(3) {
        let far = [
            [0xfd00, 1, 2, 0, 0, 0, 0, far.into()],
            [0x2001, 0xdb8, 0, 0, 0, 0, 0, far.into()],
            [0xfd00, 0x64, 0, 0, 0, 0, 0, 3],
        ][random.index(3)];
        ([0xfd00, 0x64, 0, 0, 0, 0, 0, near.into()].into(), far.into())
    } else {
        let far = [[10, 1, 2, far], [192, 0, 2, far], [100, 64, 0, 3]][random.index(3)];
        ([100, 64, 0, near].into(), far.into())
    };
    let ends = Ends {
        src,
        dst,
        src_port: 1024 + random.below(2000) as u16,
        dst_port: [443, 53, 22, 80][random.index(4)],
    };
    if random.one_in(4) { ends.turned() } else { ends }
}

/// Packets of the corpora of `packet` and `capture`.
fn read_corpus(folder: &std::path::Path) -> io::Result<Vec<Vec<u8>>> {
    let mut packets = Vec::new();
    for file in files(&folder.join("packet"))? {
        packets.extend(fs::read(file)?.get(3..).map(<[u8]>::to_vec));
    }
    for file in files(&folder.join("capture"))? {
        let Ok(mut reader) = CaptureReader::open(Box::new(fs::File::open(file)?)) else {
            continue;
        };
        // A fault ends the reading: what came before is enough here.
        while let Ok(Some(frame)) = reader.next_frame() {
            packets.extend(ip_packet(&frame).map(|ip| ip.bytes.to_vec()));
        }
    }
    Ok(packets)
}

/// The files of a folder in an order that is always the same.
fn files(folder: &std::path::Path) -> io::Result<Vec<PathBuf>> {
    let entries = fs::read_dir(folder)?.map(|entry| entry.map(|entry| entry.path()));
    let mut files = entries.collect::<io::Result<Vec<_>>>()?;
    files.sort();
    Ok(files)
}

/// xorshift64*: fast, and the same everywhere.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// Below `bound`, which is not 0.
    fn below(&mut self, bound: u64) -> u64 {
        ((u128::from(self.next()) * u128::from(bound)) >> 64) as u64
    }

    fn index(&mut self, len: usize) -> usize {
        self.below(len as u64) as usize
    }

    fn one_in(&mut self, times: u64) -> bool {
        self.below(times) == 0
    }

    fn byte(&mut self) -> u8 {
        self.below(256) as u8
    }
}

/// What all turns came to.
#[derive(Default)]
struct Sums {
    turns: u64,
    packets: u64,
    flows: u64,
    records: u64,
    forwarded: u64,
    icmp_errors: u64,
    dropped: [Tally; DropReason::ALL.len()],
    untracked: [Tally; Untracked::ALL.len()],
    not_ip: Vec<(&'static str, u64)>,
}

impl Sums {
    fn add(&mut self, ledger: &ReplayLedger) {
        self.turns += 1;
        self.packets += ledger.frames;
        self.flows += ledger.flows.opened_flows;
        self.records += ledger.made;
        for (packets, flows) in ledger.stats.sides.iter().zip(&ledger.flows.sides) {
            self.forwarded += packets.forwarded.packets;
            self.icmp_errors += flows.icmp_errors.packets;
            for (sum, more) in self.dropped.iter_mut().zip(packets.dropped) {
                sum.join(more);
            }
            for (sum, more) in self.untracked.iter_mut().zip(flows.untracked) {
                sum.join(more);
            }
        }
        for (reason, frames) in &ledger.not_ip {
            match self.not_ip.iter_mut().find(|(known, _)| known == reason) {
                Some((_, sum)) => *sum += frames,
                None => self.not_ip.push((reason, *frames)),
            }
        }
        self.not_ip.sort_unstable();
    }

    fn print(&self, seed: u64, elapsed: Duration) -> io::Result<()> {
        let mut out = io::stdout().lock();
        let seconds = elapsed.as_secs_f64();
        write!(
            out,
            "seed {seed}: {} packets in {seconds:.1} s ({:.2} million/s), {} replays, {} flows, {} records; forwarded {}, \
             of them ICMP errors {}",
            self.packets,
            self.packets as f64 / seconds / 1e6,
            self.turns,
            self.flows,
            self.records,
            self.forwarded,
            self.icmp_errors
        )?;
        for (reason, tally) in Untracked::ALL.iter().zip(self.untracked) {
            write!(out, ", untracked{{{}}} {}", reason.as_str(), tally.packets)?;
        }
        for (reason, tally) in DropReason::ALL.iter().zip(self.dropped) {
            if tally.packets > 0 {
                write!(out, ", dropped{{{}}} {}", reason.as_str(), tally.packets)?;
            }
        }
        for (reason, frames) in &self.not_ip {
            write!(out, ", not_ip{{{reason}}} {frames}")?;
        }
        writeln!(out, "; every ledger balanced")
    }
}

/// The time that a run takes: the packets' own clock is another matter.
struct Watch(std::time::Instant);

impl Watch {
    // The engine reads no clock; this is about the driver around it.
    #[allow(clippy::disallowed_methods)]
    fn start() -> Self {
        Self(std::time::Instant::now())
    }

    fn elapsed(&self) -> Duration {
        self.0.elapsed()
    }
}
