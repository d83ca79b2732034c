//! Does to the table and to the model what a [`Case`] says, and finds where they differ.
//!
//! The driver stands for the gateway: it knows the peers' paths, hands out sequence numbers, and asks and counts as the
//! gateway does. It compares ledgers and timers after every action, and records whenever they are drained. How records of
//! different flows are mixed is not defined, so they are compared flow by flow; serial numbers are compared by their
//! sameness alone.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt::Write as _;
use std::net::IpAddr;

use super::super::current::{record_packet, record_path, record_peer, record_standing};
use super::super::model::{Arrival, Model};
use super::super::record::{Activity, Counts, MAX_PATHS, NameId, Note, Traffic};
use super::super::{
    Counted, FlowRecord, FlowTable, PacketScope, PathId, PeerId, Purpose, Record, Side, Standing, Tally, Timestamp,
    Untracked, Verdict,
};
use super::action::{
    About, Action, Case, ERRORS_V4, ERRORS_V6, Ends, Fate, Over, PEERS, PORTS, PROTOCOLS, Packet, Policy, Ports,
    QUERIES_V4, QUERIES_V6, Scan, Step, What, path,
};
use crate::packet::{Fragment, Original, PacketInfo, TcpFlags, Transport, protocol};

const WALL: u64 = 1_700_000_000_000_000_000;

/// Words for what a case came to.
pub(crate) type Reached = BTreeSet<&'static str>;

/// Runs a case. Errors: what differs, in words. Lines about what happens are added to `trace`.
pub(crate) fn check(case: &Case, trace: Option<&mut String>) -> Result<Reached, String> {
    let mut driver = Driver::new(case, trace);
    driver.handle_timeout()?;
    for action in &case.actions {
        driver.act(*action)?;
        driver.compare_books()?;
    }
    driver.shut_down(case)
}

struct Driver<'a> {
    table: FlowTable,
    model: Model,
    now: Timestamp,
    start: u64,
    purpose: Purpose,
    /// Records were wanted all the time, so that they tell of all.
    told_all: bool,
    /// By peer: the number of its path, and the table's for it.
    paths: Vec<(u8, PathId)>,
    conversations: HashMap<(Ends, Ports, Side), Sender>,
    /// Packets of the present batch that will turn out not to have left.
    lost: Vec<(Counted, Option<usize>)>,
    /// The table's serial number of a flow, and the model's.
    serials: HashMap<u64, u64>,
    /// All records of each flow.
    told: BTreeMap<u64, Vec<FlowRecord>>,
    trace: Option<&'a mut String>,
}

/// One end of a TCP conversation.
#[derive(Clone, Copy)]
struct Sender {
    next: u32,
    last: (TcpFlags, u32, u16),
}

impl<'a> Driver<'a> {
    fn new(case: &'a Case, trace: Option<&'a mut String>) -> Self {
        let mut table = FlowTable::exact(case.limits, case.purpose).expect("randomness");
        table.configure(case.limits, case.purpose, case.configured_peers);
        let mut model = Model::new(case.limits, case.purpose);
        model.configure(case.limits, case.purpose, case.configured_peers);
        let paths = (0..PEERS.len() as u8)
            .map(|peer| (peer, table.add_path(path(peer))))
            .collect();
        let now = Timestamp {
            mono: case.start,
            wall: WALL,
        };
        Self {
            table,
            model,
            now,
            start: case.start,
            purpose: case.purpose,
            told_all: case.purpose.records,
            paths,
            conversations: HashMap::new(),
            lost: Vec::new(),
            serials: HashMap::new(),
            told: BTreeMap::new(),
            trace,
        }
    }

    fn act(&mut self, action: Action) -> Result<(), String> {
        match action {
            Action::Packet(_) => {}
            Action::Scan(_)
            | Action::Wait(_)
            | Action::WaitUntilDue(_)
            | Action::StepWallClock(_)
            | Action::Roam { .. }
            | Action::HandleTimeout
            | Action::Drain
            | Action::ClosePeer { .. }
            | Action::Configure { .. } => self.say(|| format!("{action:?}")),
        }
        match action {
            Action::Wait(time) => self.wait(time),
            Action::WaitUntilDue(after) => {
                let due = self.model.next_due().unwrap_or(0).saturating_add_signed(after.into());
                // Some limits are as good as never.
                let time = due.saturating_sub(self.now.mono);
                if time < 1 << 60 {
                    self.wait(time);
                }
            }
            Action::StepWallClock(by) => self.now.wall = self.now.wall.saturating_add_signed(by),
            Action::Packet(packet) => {
                self.wait(1);
                self.packet(&packet)?;
            }
            Action::Scan(scan) => self.scan(&scan)?,
            Action::Roam { peer, path: number } => {
                let new = (number, self.table.add_path(path(number)));
                let old = std::mem::replace(&mut self.paths[usize::from(peer)], new);
                self.table.release_path(old.1);
            }
            Action::HandleTimeout => self.handle_timeout()?,
            Action::Drain => {
                self.write_batch();
                self.compare_records()?;
            }
            Action::ClosePeer { peer } => {
                let peer = PEERS[usize::from(peer)];
                self.table.close_peer(peer);
                self.model.close_peer(peer);
            }
            Action::Configure {
                limits,
                purpose,
                configured_peers,
            } => {
                self.purpose = purpose.unwrap_or(self.purpose);
                self.told_all &= self.purpose.records;
                self.table.configure(limits, self.purpose, configured_peers);
                self.model.configure(limits, self.purpose, configured_peers);
            }
        }
        Ok(())
    }

    fn handle_timeout(&mut self) -> Result<(), String> {
        self.table.handle_timeout(self.now);
        self.model.handle_timeout(self.now);
        match self.table.poll_timeout() {
            Some(poll) if poll <= self.now.mono => {
                Err(format!("the table wants to be called at {poll}, which is over"))
            }
            Some(_) | None => Ok(()),
        }
    }

    fn shut_down(mut self, case: &Case) -> Result<Reached, String> {
        let (reason, most) = case.end;
        self.say(|| format!("the end: {reason:?}"));
        self.write_batch();
        while self.table.close_some(reason, most) {}
        self.model.close_all(reason);
        self.compare_books()?;
        self.compare_records()?;
        self.compare_lives()?;
        Ok(self.reached())
    }

    fn wait(&mut self, time: u64) {
        self.now.mono += time;
        self.now.wall += time;
    }

    fn say(&mut self, what: impl FnOnce() -> String) {
        let now = self.now.mono - self.start;
        if let Some(trace) = &mut self.trace {
            let (seconds, nanos) = (now / 1_000_000_000, now % 1_000_000_000);
            writeln!(trace, "{seconds:>6}.{nanos:09} {}", what()).expect("a string takes it");
        }
    }
}

// ---------------------------------------------------------------------------------------------------------------------
// Packets
// ---------------------------------------------------------------------------------------------------------------------

impl Driver<'_> {
    fn packet(&mut self, spec: &Packet) -> Result<(), String> {
        let Some(packet) = self.build(spec) else {
            self.say(|| format!("{:?}", spec.what));
            return Ok(());
        };
        let (verdict, rule) = match spec.policy {
            Policy::Allow(_) => (Verdict::Allow, spec.policy.rule()),
            Policy::Deny(_) => (Verdict::Deny, spec.policy.rule()),
        };
        let judged = Standing {
            verdict,
            rule,
            resource: rule,
            domain: rule.map(|rule| NameId(rule.0 + 100)),
        };
        let peer = PEERS[usize::from(spec.ends.peer)];
        self.say(|| describe(peer, spec.side, &packet, &judged, spec.asks, spec.fate));
        self.handle(spec.ends.peer, spec.side, &packet, judged, spec.asks, spec.fate)
    }

    fn scan(&mut self, scan: &Scan) -> Result<(), String> {
        let standing = Standing {
            verdict: Verdict::Deny,
            rule: scan.rule.map(|rule| NameId(rule.into())),
            resource: None,
            domain: None,
        };
        for number in scan.from..scan.from.saturating_add(scan.count) {
            self.wait(1);
            let (far, port) = match scan.over {
                Over::Ports => (scan.ends.far(), number),
                Over::Hosts => (scan.ends.far_plus(number), 80),
            };
            let (src, dst, src_port, dst_port) = match scan.side {
                Side::FromPeer => (scan.ends.near(), far, 7, port),
                Side::ToPeer => (far, scan.ends.near(), 7, port),
            };
            let packet = PacketInfo {
                src,
                dst,
                protocol: protocol::UDP,
                len: 28,
                payload: 0,
                transport: Transport::Udp { src_port, dst_port },
                fragment: None,
                segments: 1,
                segment_size: 0,
            };
            self.handle(scan.ends.peer, scan.side, &packet, standing, false, Fate::Sent)?;
        }
        Ok(())
    }

    fn handle(
        &mut self,
        peer: u8,
        side: Side,
        packet: &PacketInfo,
        judged: Standing,
        asks: bool,
        fate: Fate,
    ) -> Result<(), String> {
        let (number, path_id) = self.paths[usize::from(peer)];
        let peer = PEERS[usize::from(peer)];
        let now = self.now;
        let arrival = Arrival {
            peer,
            side,
            packet,
            now,
        };
        let mut scope = PacketScope::begin(&mut self.table, side, now);
        record_peer(peer);
        record_packet(packet);
        let asked = asks.then(|| (scope.standing(peer, side, packet), self.model.standing(arrival)));
        let standing = asked.and_then(|(answer, _)| answer).unwrap_or(judged);
        record_standing(standing);
        if standing.verdict == Verdict::Allow && fate != Fate::Dropped {
            record_path(path_id);
        }
        drop(scope);
        if let Some((table, model)) = asked
            && table != model
        {
            return Err(format!("what the open flow says: table {table:?}, model {model:?}"));
        }
        let counted = self.table.take_counted();
        let passes = fate != Fate::Dropped || standing.verdict == Verdict::Deny;
        let known = passes
            .then(|| self.model.handle(arrival, standing, path(number)))
            .flatten();
        match fate {
            Fate::Sent | Fate::Dropped => {}
            Fate::LostAtOnce => self.take_back(counted, known),
            Fate::LostLater => self.lost.push((counted, known)),
        }
        Ok(())
    }

    fn take_back(&mut self, counted: Counted, known: Option<usize>) {
        self.table.take_back(counted);
        if let Some(number) = known {
            self.model.take_back(number);
        }
    }

    /// What could not be written is taken back before records are drained, though some may have been made of it.
    fn write_batch(&mut self) {
        for (counted, known) in std::mem::take(&mut self.lost) {
            self.take_back(counted, known);
        }
    }

    /// The packet that is meant; none where nothing is sent.
    fn build(&mut self, spec: &Packet) -> Option<PacketInfo> {
        let ends = spec.ends;
        let (src, dst) = match spec.side {
            Side::FromPeer => (ends.near(), ends.far()),
            Side::ToPeer => (ends.far(), ends.near()),
        };
        let (ip_header, icmp) = if ends.is_ipv4() {
            (20, protocol::ICMP)
        } else {
            (40, protocol::ICMPV6)
        };
        let by_family = |v4: &[(u8, u8)], v6: &[(u8, u8)], which: u8| {
            let kinds = if ends.is_ipv4() { v4 } else { v6 };
            kinds[usize::from(which) % kinds.len()]
        };
        let (protocol, transport, header, payload) = match spec.what {
            What::Tcp(ports, step) => {
                let (flags, seq, payload) = self.segment((ends, ports, spec.side), step)?;
                let (src_port, dst_port) = ports.seen(spec.side);
                let transport = Transport::Tcp {
                    src_port,
                    dst_port,
                    flags,
                    seq,
                };
                (protocol::TCP, transport, 20, payload)
            }
            What::Udp(ports, payload) => {
                let (src_port, dst_port) = ports.seen(spec.side);
                (protocol::UDP, Transport::Udp { src_port, dst_port }, 8, payload)
            }
            What::Echo { identifier, request } => (icmp, Transport::Echo { identifier, request }, 8, 0),
            What::Query(which) => {
                let (kind, code) = by_family(&QUERIES_V4, &QUERIES_V6, which);
                (icmp, Transport::Icmp { kind, code }, 8, 0)
            }
            What::Other(which) => (PROTOCOLS[usize::from(which) % PROTOCOLS.len()], Transport::Other, 12, 0),
            What::Piece { protocol, payload, .. } => (protocol, Transport::Fragment, 0, payload),
            What::Error { kind, about } => {
                let (kind, code) = by_family(&ERRORS_V4, &ERRORS_V6, kind);
                let original = about.quoted(icmp, spec.side.turned(), dst, src);
                (icmp, Transport::IcmpError { kind, code, original }, 36, 0)
            }
        };
        let fragment = match spec.what {
            What::Piece {
                identification, first, ..
            } => Some(Fragment { identification, first }),
            What::Tcp(..)
            | What::Udp(..)
            | What::Echo { .. }
            | What::Query(_)
            | What::Other(_)
            | What::Error { .. } => {
                let first = true;
                spec.first_of.map(|identification| Fragment { identification, first })
            }
        };
        let whole = PacketInfo {
            src,
            dst,
            protocol,
            len: ip_header + header + u32::from(payload),
            payload: payload.into(),
            transport,
            fragment,
            segments: 1,
            segment_size: 0,
        };
        let can_be_cut = matches!(spec.what, What::Tcp(..) | What::Udp(..)) && fragment.is_none();
        let size = spec.segment_size.filter(|_| can_be_cut);
        Some(size.map_or(whole, |size| whole.segmented(size)))
    }

    fn segment(&mut self, conversation: (Ends, Ports, Side), step: Step) -> Option<(TcpFlags, u32, u16)> {
        // Both ends are about to wrap, one of them where the sign changes.
        let first = match conversation.2 {
            Side::FromPeer => u32::MAX - 60,
            Side::ToPeer => (1 << 31) - 60,
        };
        let sender = self.conversations.entry(conversation).or_insert(Sender {
            next: first,
            last: (TcpFlags(TcpFlags::SYN), first, 0),
        });
        let (syn, ack, fin, rst) = (TcpFlags::SYN, TcpFlags::ACK, TcpFlags::FIN, TcpFlags::RST);
        let next = sender.next;
        let (flags, seq, payload) = match step {
            Step::Syn => (syn, next, 0),
            Step::SynAck => (syn | ack, next, 0),
            Step::Ack => (ack, next, 0),
            Step::Data(payload) => (ack, next, payload),
            Step::Fin => (fin | ack, next, 0),
            Step::Rst => (rst, next, 0),
            Step::Again => return Some(sender.last),
            Step::Skip(bytes) => {
                sender.next = next.wrapping_add(bytes.into());
                return None;
            }
            Step::Old { back, payload } => return Some((TcpFlags(ack), next.wrapping_sub(back.into()), payload)),
            Step::Odd { flags, seq, payload } => return Some((TcpFlags(flags), seq, payload)),
        };
        let length = u32::from(payload) + u32::from(flags & syn != 0) + u32::from(flags & fin != 0);
        sender.next = next.wrapping_add(length);
        sender.last = (TcpFlags(flags), seq, payload);
        Some(sender.last)
    }
}

impl Ports {
    /// Source and destination of what travels to `side`.
    fn seen(self, side: Side) -> (u16, u16) {
        let port = |index: u8| PORTS[usize::from(index) % PORTS.len()];
        match side {
            Side::FromPeer => (port(self.near), port(self.far)),
            Side::ToPeer => (port(self.far), port(self.near)),
        }
    }
}

impl About {
    fn quoted(self, icmp: u8, side: Side, src: IpAddr, dst: IpAddr) -> Option<Original> {
        let (protocol, (src_port, dst_port)) = match self {
            About::Tcp(ports) => (protocol::TCP, ports.seen(side)),
            About::Udp(ports) => (protocol::UDP, ports.seen(side)),
            About::Echo {
                identifier,
                request: true,
            } => (icmp, (identifier, 0)),
            About::Echo {
                identifier,
                request: false,
            } => (icmp, (0, identifier)),
            About::Other(which) => (PROTOCOLS[usize::from(which) % PROTOCOLS.len()], (0, 0)),
            About::Nothing => return None,
        };
        Some(Original {
            src,
            dst,
            protocol,
            src_port,
            dst_port,
        })
    }
}

fn describe(peer: PeerId, side: Side, packet: &PacketInfo, judged: &Standing, asks: bool, fate: Fate) -> String {
    let PacketInfo {
        src,
        dst,
        protocol,
        len,
        payload,
        transport,
        fragment,
        segments,
        segment_size,
    } = packet;
    let asks = if asks { ", asks" } else { "" };
    let fragment = fragment.map(|fragment| format!(" {fragment:?}")).unwrap_or_default();
    let Standing { verdict, rule, .. } = judged;
    format!(
        "peer {} {} {src} > {dst} protocol {protocol} {transport:?}{fragment} len {len} payload {payload} in \
         {segments} of {segment_size}: {verdict:?} by {rule:?}{asks}, {fate:?}",
        peer.0,
        side.as_str(),
    )
}

// ---------------------------------------------------------------------------------------------------------------------
// Comparison
// ---------------------------------------------------------------------------------------------------------------------

impl Driver<'_> {
    /// Ledgers L2 and L2b, and that no timer is late.
    fn compare_books(&self) -> Result<(), String> {
        let (table, model) = (self.table.ledger(), self.model.ledger());
        if table != model {
            return Err(format!("ledgers:\n{}", difference(&table, &model)));
        }
        if let Some(side) = table.sides.iter().find(|side| !side.balanced()) {
            return Err(format!("L2 does not hold: {side:#?}"));
        }
        let due = self.model.next_due().unwrap_or(u64::MAX);
        let poll = self.table.poll_timeout().unwrap_or(u64::MAX);
        if poll > due {
            return Err(format!(
                "something is due at {due}, and the table wants to be called at {poll}"
            ));
        }
        Ok(())
    }

    fn compare_records(&mut self) -> Result<(), String> {
        let openings: Vec<FlowRecord> = self.table.drain_openings().collect();
        let model_openings = self.model.drain_openings();
        self.compare_flows(&openings, &model_openings, "opening")?;
        let (flows, notes) = sorted(self.table.drain_records());
        let (model_flows, model_notes) = sorted(self.model.drain_records().into_iter());
        if notes != model_notes {
            return Err(format!("notes:\n{}", difference(&notes, &model_notes)));
        }
        self.compare_flows(&flows, &model_flows, "record")?;
        for flow in flows {
            self.told.entry(flow.serial).or_default().push(flow);
        }
        Ok(())
    }

    /// Flow by flow: the records of one have an order, and among those of different flows there is none.
    fn compare_flows(&mut self, table: &[FlowRecord], model: &[FlowRecord], what: &str) -> Result<(), String> {
        let mut model = by_flow(model);
        for (serial, ours) in by_flow(table) {
            let twin = match self.serials.get(&serial) {
                Some(twin) => *twin,
                None => {
                    let strangers = model
                        .iter()
                        .filter(|(twin, _)| !self.serials.values().any(|known| known == *twin));
                    let twin = strangers
                        .map(|(twin, flows)| (*twin, flows[0]))
                        .find(|(_, flow)| same_flow(flow, ours[0]));
                    let Some((twin, _)) = twin else {
                        return Err(format!("a {what} that the model does not make: {:#?}", ours[0]));
                    };
                    self.serials.insert(serial, twin);
                    twin
                }
            };
            let theirs = model.remove(&twin).unwrap_or_default();
            for (ours, theirs) in ours.iter().zip(&theirs) {
                let theirs = FlowRecord {
                    serial,
                    ..(*theirs).clone()
                };
                if **ours != theirs {
                    return Err(format!("a {what} of flow {serial}:\n{}", difference(*ours, &theirs)));
                }
            }
            if let Some(ours) = ours.get(theirs.len()) {
                return Err(format!("a {what} that the model does not make: {ours:#?}"));
            }
            if let Some(theirs) = theirs.get(ours.len()) {
                return Err(format!("a {what} that the table does not make: {theirs:#?}"));
            }
        }
        match model.values().next() {
            Some(flows) => Err(format!("a {what} that the table does not make: {:#?}", flows[0])),
            None => Ok(()),
        }
    }

    /// R8, R19 over whole lives: numbers from 1 on, deltas that add up, one close record and nothing after it.
    fn compare_lives(&self) -> Result<(), String> {
        if !self.told_all {
            return Ok(());
        }
        if self.told.len() != self.model.flows_that_were() {
            return Err(format!(
                "{} flows had records, and not {}",
                self.told.len(),
                self.model.flows_that_were()
            ));
        }
        for (serial, records) in &self.told {
            let (mut sum, mut attempts) = (Traffic::default(), Tally::default());
            for (place, record) in records.iter().enumerate() {
                add(&mut sum.out, record.delta.out);
                add(&mut sum.r#in, record.delta.r#in);
                attempts.join(record.attempts_delta);
                let is_last = place + 1 == records.len();
                if record.number as usize != place + 1
                    || (record.activity == Activity::Close) != is_last
                    || (record.activity == Activity::Open) && place != 0
                    || record.end_reason.is_some() != is_last
                    || (sum, attempts) != (record.total, record.attempts)
                {
                    return Err(format!("the records of flow {serial} make no whole: {records:#?}"));
                }
            }
        }
        Ok(())
    }
}

impl Driver<'_> {
    fn reached(&self) -> Reached {
        let mut reached = Reached::new();
        for side in self.table.ledger().sides {
            for reason in Untracked::ALL {
                reached.extend((side.untracked[reason as usize].packets > 0).then_some(reason.as_str()));
            }
        }
        for record in self.told.values().flatten() {
            reached.extend([
                record.activity.as_str(),
                record.direction.as_str(),
                record.conn_state.as_str(),
            ]);
            reached.extend(record.end_reason.map(|reason| reason.as_str()));
            let denied = record.verdict == Verdict::Deny;
            let letters = record.tcp.map(|tcp| tcp.history);
            let has = |letter| letters.is_some_and(|letters| letters.as_str().contains(letter));
            for (is, word) in [
                (denied, "denied"),
                (denied && record.src_ip.is_unspecified(), "joined_by_host"),
                (denied && record.dst_ip.is_unspecified(), "joined_by_rule"),
                (
                    record.icmp_errors.iter().any(|errors| errors.kind == 255),
                    "further_icmp_errors",
                ),
                (record.paths_total as usize > MAX_PATHS, "further_paths"),
                (record.number > 3, "several_updates"),
                (!record.initiator_known, "mid_stream"),
                (record.delta.out.packets > 300, "super_packet"),
                (has('T') && has('t'), "retransmissions"),
                (has('I') || has('i'), "fin_with_rst"),
                (has('Q') || has('q'), "syn_with_fin_or_rst"),
                (
                    record.tcp.is_some_and(|tcp| tcp.syn_to_syn_ack.is_some()),
                    "syn_to_syn_ack",
                ),
                (
                    record.tcp.is_some_and(|tcp| tcp.syn_ack_to_ack.is_some()),
                    "syn_ack_to_ack",
                ),
                (
                    record.tcp.is_some_and(|tcp| tcp.retransmits_out >= 10),
                    "ten_retransmissions",
                ),
            ] {
                reached.extend(is.then_some(word));
            }
        }
        reached
    }
}

fn add(sum: &mut Counts, more: Counts) {
    sum.packets += more.packets;
    sum.bytes += more.bytes;
    sum.payload += more.payload;
}

fn sorted(records: impl Iterator<Item = Record>) -> (Vec<FlowRecord>, Vec<Record>) {
    let (mut flows, mut others) = (Vec::new(), Vec::new());
    for record in records {
        match record {
            Record::Flow(flow) => flows.push(flow),
            Record::Note(Note::ClockStep { .. }) | Record::Gap(_) => others.push(record),
        }
    }
    (flows, others)
}

fn by_flow(records: &[FlowRecord]) -> BTreeMap<u64, Vec<&FlowRecord>> {
    let mut flows: BTreeMap<u64, Vec<&FlowRecord>> = BTreeMap::new();
    for record in records {
        flows.entry(record.serial).or_default().push(record);
    }
    flows
}

/// Whether two records that have not met can be of one flow.
fn same_flow(one: &FlowRecord, other: &FlowRecord) -> bool {
    let identity = |flow: &FlowRecord| {
        let src = (flow.src_ip, flow.src_port, flow.peer);
        let dst = (flow.dst_ip, flow.dst_port, flow.rule);
        (
            src,
            dst,
            flow.protocol,
            flow.icmp,
            flow.direction,
            flow.verdict,
            flow.start,
        )
    };
    identity(one) == identity(other)
}

/// What two values show differently, line by line.
fn difference<T: std::fmt::Debug>(table: &T, model: &T) -> String {
    let (table, model) = (format!("{table:#?}"), format!("{model:#?}"));
    if table.lines().count() != model.lines().count() {
        return format!("table {table}\nmodel {model}");
    }
    let mut out = String::new();
    for (ours, theirs) in table.lines().zip(model.lines()) {
        if ours == theirs {
            let _ = writeln!(out, "        {ours}");
        } else {
            let _ = writeln!(out, "  table {ours}\n  model {theirs}");
        }
    }
    out
}
