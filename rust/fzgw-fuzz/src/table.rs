//! The flow table alone, as the gateway's worker uses it: packets of one moment make a batch, the batch is flushed, what
//! could not be written is taken back, and only then records are drained.

use fzgw_core::capture::MAX_TIME;
use fzgw_core::flow::current::{record_packet, record_path, record_peer, record_standing};
use fzgw_core::flow::record::{EndReason, OuterPath};
use fzgw_core::flow::{
    Counted, FlowTable, Limits, NameId, PacketScope, PathId, PeerId, Purpose, Record, Side, Standing, Tally, Timestamp,
    Verdict,
};
use fzgw_core::packet::{PacketInfo, Transport};

use crate::audit::Audit;
use crate::lab;

/// Packets of a batch, as many as the worker takes at once.
const BATCH: usize = 64;

/// The table, and what it must come to.
pub struct Lab {
    table: FlowTable,
    purpose: Purpose,
    paths: Vec<PathId>,
    now: Timestamp,
    audit: Audit,
    records: Vec<Record>,
    /// What was counted since the last flush: the side, IP bytes, and the receipt.
    batch: Vec<(Side, u32, Counted)>,
    /// What was passed on and not taken back.
    passed: [Tally; 2],
    denied: Tally,
    took_back: bool,
}

/// A packet's way through the table.
#[derive(Debug, Clone, Copy)]
pub struct Way {
    /// Whose it is.
    pub peer: PeerId,
    /// Which way it goes.
    pub side: Side,
    /// Which of the outer paths.
    pub path: usize,
    /// What access rules say if its flow says nothing.
    pub verdict: Verdict,
}

impl Lab {
    /// An empty table; none if the system has no randomness to give.
    pub fn new(limits: Limits, peers: usize) -> Option<Self> {
        let purpose = lab::purpose(true);
        let mut table = FlowTable::new(limits, purpose).ok()?;
        table.configure(limits, purpose, peers);
        let path = |port| {
            let local = lab::GATEWAY.parse().ok()?;
            let remote = std::net::SocketAddr::from(([203, 0, 113, 1], port));
            Some(OuterPath { remote, local })
        };
        let paths = (1..=4).filter_map(path).map(|path| table.add_path(path)).collect();
        Some(Self {
            table,
            purpose,
            paths,
            now: Timestamp {
                mono: 0,
                wall: lab::START,
            },
            audit: Audit::default(),
            records: Vec::new(),
            batch: Vec::new(),
            passed: [Tally::default(); 2],
            denied: Tally::default(),
            took_back: false,
        })
    }

    /// Passes a packet on, if it is one and neither a rule nor its kind stops it.
    pub fn pass(&mut self, way: Way, bytes: &[u8]) {
        let Ok(info) = PacketInfo::parse(bytes) else { return };
        if info.transport == Transport::Redirect {
            return;
        }
        let mut scope = PacketScope::begin(&mut self.table, way.side, self.now);
        record_peer(way.peer);
        record_path(self.paths.get(way.path).copied().unwrap_or(PathId::NONE));
        record_packet(&info);
        let of_flow = scope.standing(way.peer, way.side, &info);
        let standing = of_flow.unwrap_or(Standing {
            verdict: way.verdict,
            rule: Some(NameId(0)),
            resource: None,
            domain: None,
        });
        record_standing(standing);
        drop(scope);
        match standing.verdict {
            Verdict::Allow => {
                self.passed[way.side as usize].add(info.len.into());
                let counted = self.table.take_counted();
                assert_ne!(counted, Counted::Nothing, "what passes is counted: {info:?}");
                self.batch.push((way.side, info.len, counted));
            }
            Verdict::Deny => self.denied.add(info.len.into()),
        }
        self.check();
        if self.batch.len() >= BATCH {
            self.flush(0);
        }
    }

    /// Ends the batch. Packets of which the bit is set in `failed` could not be written (R21, scenario 42).
    pub fn flush(&mut self, failed: u8) {
        for (number, (side, bytes, counted)) in std::mem::take(&mut self.batch).into_iter().enumerate() {
            if failed >> (number % 8) & 1 == 1 {
                self.table.take_back(counted);
                self.passed[side as usize].take(bytes.into());
                self.took_back = true;
                self.check();
            }
        }
        self.drain();
        self.audit.check(&self.table.ledger());
    }

    /// Time goes on, and what is due is done. The wall clock may be set back, which the other one knows nothing of.
    pub fn wait(&mut self, wall: u64) {
        self.flush(0);
        let mono = self.now.mono.saturating_add(wall.saturating_sub(self.now.wall));
        self.now = Timestamp {
            mono: mono.min(MAX_TIME),
            wall,
        };
        self.table.handle_timeout(self.now);
        self.check();
        self.flush(0);
    }

    /// The wall clock.
    pub fn wall(&self) -> u64 {
        self.now.wall
    }

    /// Takes new limits.
    pub fn configure(&mut self, limits: Limits, peers: usize) {
        self.flush(0);
        self.table.configure(limits, self.purpose, peers);
        self.check();
    }

    /// A peer leaves the configuration.
    pub fn remove_peer(&mut self, peer: PeerId) {
        self.flush(0);
        self.table.close_peer(peer);
        self.check();
    }

    /// Shuts down (R27): every flow ends, nothing waits, and the books are closed.
    pub fn shut_down(mut self) {
        self.flush(0);
        while self.table.close_some(EndReason::Shutdown, 3) {
            self.check();
        }
        self.drain();
        self.check();
        self.audit.check_end(&self.table.ledger(), !self.took_back);
    }

    fn drain(&mut self) {
        self.records.extend(self.table.drain_records());
        self.table.drain_openings();
        self.audit.take(&mut self.records);
    }

    fn check(&self) {
        let ledger = self.table.ledger();
        for (side, passed) in ledger.sides.iter().zip(self.passed) {
            assert!(side.balanced(), "L2: {ledger:?}");
            assert_eq!(
                side.forwarded, passed,
                "every packet that went is in the books, once: {ledger:?}"
            );
        }
        assert_eq!(ledger.attempts, self.denied, "L2b: {ledger:?}");
    }
}
