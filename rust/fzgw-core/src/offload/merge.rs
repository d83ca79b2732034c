//! Packets for the device put together into super-packets, without a copy of their payload.
//!
//! A packet joins the newest item of its flow, and only where cutting the result would give both back: the next bytes
//! of the stream (or a datagram of the same size), headers alike in all that cutting does not set, checksums that are
//! right. Whatever else a flow sends (a pure ACK, a FIN, other options, another ECN mark) is an item of its own, after
//! which nothing joins the one before: within a flow nothing overtakes. Between flows the order of a batch may change.
//!
//! One thing does change: where every packet of an IPv4 flow has the same identification and must not be fragmented, as
//! some stacks send it, the cut packets count theirs up. Nobody may look at it there (RFC 6864, section 4.1).

use std::io::{self, IoSlice};

use super::checksum::{add, folded, get, ipv4_header, pseudo_header, put};
use super::{GSO_TCPV4, GSO_TCPV6, GSO_UDP_L4, Kind, MAX_PACKET, Offload, TCP_HEADER, UDP_HEADER, VnetHeader};
use crate::packet::protocol::{TCP, UDP};
use crate::packet::{IPV4_MIN_HEADER, IPV6_HEADER};

/// Segments of one item. Kernels before 6.12 take 64 of UDP, and 45 fill an item of full ones.
pub const MAX_SEGMENTS: usize = 64;
/// The longest headers that are merged: IPv6 and TCP with all its options.
const MAX_HEADERS: usize = IPV6_HEADER + 60;
/// So many of the newest items are looked at for a flow: a batch with more flows merges less.
const LOOK_BACK: usize = 32;

const ACK: u8 = 0x10;
const PSH: u8 = 0x08;
/// "Don't fragment" in byte 6 of an IPv4 header.
const DONT_FRAGMENT: u8 = 0x40;
const NONE: u32 = u32::MAX;

/// Which packets may overtake each other: those whose keys do not [match](Key::matches).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Key {
    src: u128,
    dst: u128,
    /// Protocol and ports; none where they are not known, and then every packet between the two matches.
    transport: Option<(u8, u32)>,
}

impl Key {
    fn matches(&self, other: &Key) -> bool {
        self.src == other.src
            && self.dst == other.dst
            && (self.transport == other.transport || self.transport.is_none() || other.transport.is_none())
    }
}

/// What can be merged at all.
#[derive(Debug, Clone, Copy)]
struct Candidate {
    kind: Kind,
    ip_header: usize,
    headers: usize,
    payload: usize,
    /// TCP: its sequence number.
    sequence: u32,
    /// TCP: nothing comes after it.
    pushed: bool,
    /// IPv4: its identification.
    id: u16,
    dont_fragment: bool,
}

/// How the identifications of an item's packets go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ids {
    /// One packet so far, or no identifications.
    Any,
    Counting,
    Same,
}

/// One write.
#[derive(Debug)]
struct Item {
    key: Key,
    first: u32,
    last: u32,
    count: usize,
    /// Whether another packet may join.
    open: bool,
    candidate: Option<Candidate>,
    /// IP bytes of the whole.
    len: usize,
    next_sequence: u32,
    ids: Ids,
    pushed: bool,
}

/// Plans the writes of a batch. It keeps its memory from batch to batch.
#[derive(Debug)]
pub struct Merger {
    offload: Offload,
    items: Vec<Item>,
    /// By packet: the next one of its item.
    next: Vec<u32>,
}

impl Merger {
    /// For a device that can do so much.
    pub fn new(offload: Offload) -> Self {
        Self {
            offload,
            items: Vec::new(),
            next: Vec::new(),
        }
    }

    /// Writes a batch: `write` gets header and packet of each item in pieces; `failed` the numbers of packets that could
    /// not be written. An item that is refused is tried again packet by packet.
    pub fn write<P: AsRef<[u8]>>(
        &mut self,
        packets: &[P],
        mut write: impl FnMut(&[IoSlice<'_>]) -> io::Result<()>,
        mut failed: impl FnMut(usize),
    ) {
        self.plan(packets);
        for item in &self.items {
            let result = match item.count {
                1 => write_one(packets[item.first as usize].as_ref(), &mut write),
                _ => self.write_item(packets, item, &mut write),
            };
            match result {
                Ok(()) => {}
                Err(error) if item.count > 1 && error.kind() != io::ErrorKind::WouldBlock => {
                    tracing::debug!(%error, segments = item.count, "the device refused a super-packet");
                    for at in self.packets_of(item) {
                        if write_one(packets[at].as_ref(), &mut write).is_err() {
                            failed(at);
                        }
                    }
                }
                Err(error) => {
                    tracing::trace!(%error, "write to the device");
                    self.packets_of(item).for_each(&mut failed);
                }
            }
        }
    }

    fn plan<P: AsRef<[u8]>>(&mut self, packets: &[P]) {
        self.items.clear();
        self.next.clear();
        self.next.resize(packets.len(), NONE);
        for (at, packet) in packets.iter().enumerate() {
            let packet = packet.as_ref();
            let (key, candidate) = look_at(packet, self.offload);
            let newest = self
                .items
                .iter_mut()
                .rev()
                .take(LOOK_BACK)
                .find(|item| item.key.matches(&key));
            if let Some(item) = newest {
                let first = packets[item.first as usize].as_ref();
                if let Some(candidate) = &candidate
                    && item.takes(first, packet, candidate)
                {
                    self.next[item.last as usize] = at as u32;
                    item.last = at as u32;
                    continue;
                }
                item.open = false;
            }
            self.items.push(Item {
                key,
                first: at as u32,
                last: at as u32,
                count: 1,
                open: candidate.is_some_and(|candidate| !candidate.pushed),
                candidate,
                len: packet.len(),
                next_sequence: candidate.map_or(0, |c| c.sequence.wrapping_add(c.payload as u32)),
                ids: Ids::Any,
                pushed: candidate.is_some_and(|candidate| candidate.pushed),
            });
        }
    }

    fn packets_of(&self, item: &Item) -> impl Iterator<Item = usize> {
        let follow = |at: u32| (at != NONE).then_some(at);
        std::iter::successors(follow(item.first), move |at| follow(self.next[*at as usize])).map(|at| at as usize)
    }

    fn write_item<P: AsRef<[u8]>>(
        &self,
        packets: &[P],
        item: &Item,
        write: &mut impl FnMut(&[IoSlice<'_>]) -> io::Result<()>,
    ) -> io::Result<()> {
        let Some(how) = &item.candidate else {
            return Err(io::ErrorKind::InvalidInput.into());
        };
        let mut headers = [0; MAX_HEADERS];
        let headers = &mut headers[..how.headers];
        headers.copy_from_slice(&packets[item.first as usize].as_ref()[..how.headers]);
        let transport_len = item.len - how.ip_header;
        let version = headers[0] >> 4;
        if version == 4 {
            put(headers, 2, item.len as u16);
            put(headers, 10, 0);
            let sum = ipv4_header(&headers[..how.ip_header]);
            put(headers, 10, sum);
        } else {
            put(headers, 4, (item.len - IPV6_HEADER) as u16);
        }
        let (protocol, checksum_offset, gso_type) = match (how.kind, version) {
            (Kind::Tcp, 4) => (TCP, 16, GSO_TCPV4),
            (Kind::Tcp, _) => (TCP, 16, GSO_TCPV6),
            (Kind::Udp, _) => (UDP, 6, GSO_UDP_L4),
        };
        let pseudo = pseudo_header(headers, protocol, transport_len);
        let transport = &mut headers[how.ip_header..];
        match how.kind {
            Kind::Tcp if item.pushed => transport[13] |= PSH,
            Kind::Tcp => {}
            Kind::Udp => put(transport, 4, transport_len as u16),
        }
        put(transport, checksum_offset, pseudo);
        let vnet = VnetHeader {
            needs_checksum: true,
            gso_type,
            header_len: how.headers as u16,
            gso_size: how.payload as u16,
            checksum_start: how.ip_header as u16,
            checksum_offset: checksum_offset as u16,
        }
        .to_bytes();
        let mut slices = [IoSlice::new(&[]); MAX_SEGMENTS + 2];
        slices[0] = IoSlice::new(&vnet);
        slices[1] = IoSlice::new(headers);
        for (slice, at) in slices[2..].iter_mut().zip(self.packets_of(item)) {
            *slice = IoSlice::new(&packets[at].as_ref()[how.headers..]);
        }
        write(&slices[..item.count + 2])
    }
}

fn write_one(packet: &[u8], write: &mut impl FnMut(&[IoSlice<'_>]) -> io::Result<()>) -> io::Result<()> {
    write(&[IoSlice::new(&[0; VnetHeader::LEN]), IoSlice::new(packet)])
}

impl Item {
    /// Takes a packet of the same flow in, if it may. `first` is the item's first packet.
    fn takes(&mut self, first: &[u8], packet: &[u8], new: &Candidate) -> bool {
        let Some(how) = &self.candidate else { return false };
        let fits = self.open
            && self.count < MAX_SEGMENTS
            && new.kind == how.kind
            && new.ip_header == how.ip_header
            && new.headers == how.headers
            && new.payload <= how.payload
            && self.len + new.payload <= MAX_PACKET
            && (how.kind == Kind::Udp || new.sequence == self.next_sequence)
            && same_headers(first, packet, how);
        if !fits {
            return false;
        }
        if first[0] >> 4 == 4 {
            let counting = new.id == how.id.wrapping_add(self.count as u16);
            let same = new.id == how.id && how.dont_fragment;
            self.ids = match self.ids {
                Ids::Any | Ids::Counting if counting => Ids::Counting,
                Ids::Any | Ids::Same if same => Ids::Same,
                _ => return false,
            };
        }
        self.count += 1;
        self.len += new.payload;
        self.next_sequence = self.next_sequence.wrapping_add(new.payload as u32);
        self.pushed = new.pushed;
        self.open = new.payload == how.payload && !new.pushed;
        true
    }
}

/// Whether two packets of a flow have the same headers but for lengths, identification, checksums, sequence number and
/// PSH.
fn same_headers(a: &[u8], b: &[u8], how: &Candidate) -> bool {
    let ip = if a[0] >> 4 == 4 {
        // Type of service; flags, lifetime, protocol. Addresses are the key's.
        a[..2] == b[..2] && a[6..10] == b[6..10]
    } else {
        // Class and label; next header and hop limit.
        a[..4] == b[..4] && a[6..8] == b[6..8]
    };
    let (a, b) = (&a[how.ip_header..how.headers], &b[how.ip_header..how.headers]);
    ip && match how.kind {
        // Acknowledgement, length, window; urgent pointer and options. Flags are ACK and perhaps PSH.
        Kind::Tcp => a[8..13] == b[8..13] && a[14..16] == b[14..16] && a[18..] == b[18..],
        Kind::Udp => true,
    }
}

/// A packet's key, and what it takes to merge it, if it can be.
fn look_at(packet: &[u8], offload: Offload) -> (Key, Option<Candidate>) {
    let wide = |bytes: &[u8]| bytes.iter().fold(0u128, |sum, byte| sum << 8 | u128::from(*byte));
    let unknown = |src, dst| {
        let key = Key {
            src,
            dst,
            transport: None,
        };
        (key, None)
    };
    let (src, dst, protocol, ip_header, plain) = match packet.first().map(|first| first >> 4) {
        Some(4) if packet.len() >= IPV4_MIN_HEADER => {
            let whole = packet[0] == 0x45
                && usize::from(get(packet, 2)) == packet.len()
                && packet[6] & !DONT_FRAGMENT == 0
                && packet[7] == 0;
            (
                wide(&packet[12..16]),
                wide(&packet[16..20]),
                packet[9],
                IPV4_MIN_HEADER,
                whole,
            )
        }
        Some(6) if packet.len() >= IPV6_HEADER => {
            let whole = usize::from(get(packet, 4)) + IPV6_HEADER == packet.len();
            (
                wide(&packet[8..24]),
                wide(&packet[24..40]),
                packet[6],
                IPV6_HEADER,
                whole,
            )
        }
        _ => return unknown(0, 0),
    };
    let transport = &packet[ip_header..];
    let least = match protocol {
        TCP => TCP_HEADER,
        UDP => UDP_HEADER,
        _ => return unknown(src, dst),
    };
    if !plain || transport.len() < least {
        return unknown(src, dst);
    }
    let ports = u32::from(get(transport, 0)) << 16 | u32::from(get(transport, 2));
    let key = Key {
        src,
        dst,
        transport: Some((protocol, ports)),
    };
    let candidate = match protocol {
        TCP if offload != Offload::Off => tcp(packet, ip_header),
        UDP if offload == Offload::TsoUso => udp(packet, ip_header),
        _ => None,
    };
    let right = |candidate: &Candidate| {
        candidate.payload > 0
            && (ip_header != IPV4_MIN_HEADER || folded(&packet[..IPV4_MIN_HEADER]) == 0xffff)
            && add(pseudo_header(packet, protocol, transport.len()), folded(transport)) == 0xffff
    };
    (key, candidate.filter(right))
}

fn tcp(packet: &[u8], ip_header: usize) -> Option<Candidate> {
    let transport = &packet[ip_header..];
    let header = usize::from(transport[12] >> 4) * 4;
    let flags = transport[13];
    let plain = header >= TCP_HEADER
        && header <= transport.len()
        && transport[12] & 0x0f == 0
        && flags & !PSH == ACK
        && transport[18..20] == [0, 0];
    plain.then(|| Candidate {
        kind: Kind::Tcp,
        ip_header,
        headers: ip_header + header,
        payload: transport.len() - header,
        sequence: u32::from_be_bytes([transport[4], transport[5], transport[6], transport[7]]),
        pushed: flags & PSH != 0,
        id: get(packet, 4),
        dont_fragment: packet[6] & DONT_FRAGMENT != 0,
    })
}

fn udp(packet: &[u8], ip_header: usize) -> Option<Candidate> {
    let transport = &packet[ip_header..];
    let plain = usize::from(get(transport, 4)) == transport.len() && get(transport, 6) != 0;
    plain.then(|| Candidate {
        kind: Kind::Udp,
        ip_header,
        headers: ip_header + UDP_HEADER,
        payload: transport.len() - UDP_HEADER,
        sequence: 0,
        pushed: false,
        id: get(packet, 4),
        dont_fragment: packet[6] & DONT_FRAGMENT != 0,
    })
}
