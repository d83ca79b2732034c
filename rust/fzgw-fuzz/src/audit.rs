//! What the records of a run must be, whatever came in (R8, R19, R23): held against each other and the ledgers.

use std::collections::HashMap;

use fzgw_core::flow::record::{Activity, Counts, Direction, MAX_ICMP_ERRORS, MAX_PATHS, Traffic, Verdict};
use fzgw_core::flow::{FlowLedger, FlowRecord, Record, Tally};
use fzgw_core::packet::protocol;

/// What the records of a flow have told so far.
#[derive(Default)]
struct Told {
    number: u32,
    total: Traffic,
    attempts: Tally,
    icmp_errors: u64,
}

/// Takes every record of a run, in order.
#[derive(Default)]
pub struct Audit {
    /// Flows that have had a record, and no close record.
    open: HashMap<u64, Told>,
    /// Close records.
    closed: u64,
    /// Records of flows.
    made: u64,
    /// What the close records tell: by side from `peers` on, in any order without them.
    ended: [Tally; 2],
    attempts: Tally,
    icmp_errors: Tally,
    /// There are no peers, so that records do not tell sides.
    sideless: bool,
}

impl Audit {
    /// Records of flows seen.
    pub fn made(&self) -> u64 {
        self.made
    }

    /// Flows that have ended.
    pub fn closed(&self) -> u64 {
        self.closed
    }

    /// Takes records out of a list. Panics where one does not follow from those before it.
    pub fn take(&mut self, records: &mut Vec<Record>) {
        for record in records.drain(..) {
            match record {
                Record::Flow(flow) => self.flow(&flow),
                Record::Note(_) => {}
                Record::Gap(gap) => assert_eq!(gap.records, 0, "only a full queue makes gaps: {gap:?}"),
            }
        }
    }

    fn flow(&mut self, flow: &FlowRecord) {
        let mut told = self.open.remove(&flow.serial).unwrap_or_default();
        assert_eq!(flow.number, told.number + 1, "numbers go up by 1 (R19): {flow:?}");
        let expected = match (told.number, flow.activity) {
            (_, Activity::Close) => Activity::Close,
            (0, _) => Activity::Open,
            (_, _) => Activity::Update,
        };
        assert_eq!(flow.activity, expected, "open, updates, close (R18, R19): {flow:?}");
        assert_eq!(flow.end_reason.is_some(), flow.activity == Activity::Close, "{flow:?}");
        assert!(flow.start <= flow.end, "a flow ends after it begins (R16): {flow:?}");
        told.number = flow.number;

        let total = sum(told.total, flow.delta);
        assert_eq!(total, flow.total, "deltas add up to the total (R19): {flow:?}");
        told.total = flow.total;
        let mut attempts = told.attempts;
        attempts.join(flow.attempts_delta);
        assert_eq!(attempts, flow.attempts, "deltas add up to the attempts: {flow:?}");
        told.attempts = flow.attempts;
        match flow.verdict {
            Verdict::Allow => assert_eq!(flow.attempts, Tally::default(), "{flow:?}"),
            Verdict::Deny => assert_eq!(flow.total, Traffic::default(), "{flow:?}"),
        }
        if flow.activity != Activity::Update {
            let counted = flow.total.out.packets + flow.total.r#in.packets + flow.attempts.packets;
            assert!(counted > 0, "no flow without a packet: {flow:?}");
        }
        let is_tcp = flow.protocol == protocol::TCP && flow.verdict == Verdict::Allow;
        assert_eq!(flow.tcp.is_some(), is_tcp, "{flow:?}");

        let mut errors = Tally::default();
        for error in &flow.icmp_errors {
            assert!(error.packets > 0, "{flow:?}");
            errors.packets += error.packets;
            errors.bytes += error.bytes;
        }
        assert!(flow.icmp_errors.len() <= MAX_ICMP_ERRORS, "{flow:?}");
        assert!(errors.packets >= told.icmp_errors, "errors are cumulative: {flow:?}");
        told.icmp_errors = errors.packets;
        let paths = (flow.paths.len(), flow.paths_total as usize);
        assert!(paths.0 <= MAX_PATHS && paths.0 <= paths.1, "{flow:?}");

        self.made += 1;
        if flow.activity != Activity::Close {
            self.open.insert(flow.serial, told);
            return;
        }
        self.closed += 1;
        let (out, r#in) = match flow.direction {
            Direction::Outbound => (0, 1),
            Direction::Inbound => (1, 0),
            Direction::Unknown => {
                self.sideless = true;
                (0, 1)
            }
        };
        self.ended[out].join(tally(flow.total.out));
        self.ended[r#in].join(tally(flow.total.r#in));
        self.attempts.join(flow.attempts);
        self.icmp_errors.join(errors);
    }

    /// Holds the records against the books, once all that were made have been taken.
    pub fn check(&self, ledger: &FlowLedger) {
        let ended = ledger.sides.map(|side| side.ended);
        if self.sideless {
            assert_eq!(both(self.ended), both(ended), "close records tell what has ended");
        } else {
            assert_eq!(self.ended, ended, "close records tell what has ended (L2)");
        }
        let errors = both(ledger.sides.map(|side| side.icmp_errors));
        assert!(self.attempts.packets <= ledger.attempts.packets, "{ledger:?}");
        assert!(self.icmp_errors.packets <= errors.packets, "{ledger:?}");
        assert!(self.open.len() as u64 <= ledger.live_flows, "{ledger:?}");
        assert!(self.closed + ledger.live_flows <= ledger.opened_flows, "{ledger:?}");
    }

    /// The same once every flow has ended and nothing waits. `exact`: no packet was taken back, so that no flow has gone
    /// without a record.
    pub fn check_end(&self, ledger: &FlowLedger, exact: bool) {
        self.check(ledger);
        assert_eq!(
            (ledger.live_flows, ledger.live_denied),
            (0, 0),
            "no flow is left: {ledger:?}"
        );
        assert_eq!(
            self.open.len(),
            0,
            "each flow that had a record has a close record (R8)"
        );
        assert_eq!(self.attempts, ledger.attempts, "attempts of denied flows (L2b)");
        for side in ledger.sides {
            assert_eq!(side.live, Tally::default(), "{ledger:?}");
            assert_eq!(
                side.pending_fragments,
                Tally::default(),
                "nothing waits (R15): {ledger:?}"
            );
        }
        if exact {
            assert_eq!(self.closed, ledger.opened_flows, "one close record a flow (R8)");
            let errors = both(ledger.sides.map(|side| side.icmp_errors));
            assert_eq!(self.icmp_errors, errors, "records tell every ICMP error (R13)");
        }
    }
}

fn sum(mut a: Traffic, b: Traffic) -> Traffic {
    for (to, from) in [(&mut a.out, b.out), (&mut a.r#in, b.r#in)] {
        to.packets += from.packets;
        to.bytes += from.bytes;
        to.payload += from.payload;
    }
    a
}

fn tally(counts: Counts) -> Tally {
    Tally {
        packets: counts.packets,
        bytes: counts.bytes,
    }
}

fn both([mut a, b]: [Tally; 2]) -> Tally {
    a.join(b);
    a
}
