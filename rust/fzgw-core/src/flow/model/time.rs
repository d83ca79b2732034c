//! When a flow is over, and when it is told of.

use base64::Engine as _;

use super::super::Timestamp;
use super::super::community::community_id;
use super::super::record::{Activity, Note};
use super::Model;
use super::records::Promise;
use crate::packet::{TcpFlags, protocol};

const SECOND: u64 = 1_000_000_000;
/// R23: a denied flow ends after this silence.
const DENIED_IDLE: u64 = 30 * SECOND;
/// R16: a wall clock that is off by more than this was stepped.
const CLOCK_STEP: u64 = SECOND;

impl Model {
    /// The first nanosecond at which a flow is over (R8, R9, R17, R23).
    pub(super) fn deadline(&self, flow: usize) -> u64 {
        let flow = &self.flows[flow];
        if let Some(closes_at) = flow.closes_at {
            return closes_at.saturating_add(1);
        }
        let began_with_syn = flow.events.first().is_some_and(|event| {
            event.from_initiator && event.segment.is_some_and(|segment| segment.has(TcpFlags::SYN))
        });
        let idle = match flow.protocol() {
            _ if flow.is_denied() => DENIED_IDLE,
            protocol::TCP if began_with_syn && !flow.is_answered() => self.limits.tcp_opening_idle,
            protocol::TCP => self.limits.tcp_idle,
            protocol::UDP => self.limits.udp_idle,
            protocol::ICMP | protocol::ICMPV6 => self.limits.icmp_idle,
            _ => self.limits.other_idle,
        };
        flow.last().saturating_add(idle).saturating_add(1)
    }

    /// Whether open and update records of this flow are wanted. In its close delay it has none.
    pub(super) fn tells(&self, flow: usize) -> bool {
        self.purpose.records && self.purpose.updates && self.flows[flow].closes_at.is_none()
    }

    /// R18, R19: makes the open or update record that is due.
    pub(super) fn tell(&mut self, flow: usize, now: u64) {
        if self.flows[flow].told.is_empty() {
            if now >= self.flows[flow].start.mono.saturating_add(self.limits.open_after) {
                self.flows[flow].looked_at = now;
                self.promise(flow, Activity::Open, None);
            }
        } else if self.next_tick(flow) <= now {
            self.flows[flow].looked_at = now;
            if self.has_news(flow) {
                self.promise(flow, Activity::Update, None);
            }
        }
    }

    /// When the next of them is due.
    pub(super) fn due_to_tell(&self, flow: usize) -> u64 {
        if self.flows[flow].told.is_empty() {
            self.flows[flow].start.mono.saturating_add(self.limits.open_after)
        } else if self.has_news(flow) {
            self.next_tick(flow)
        } else {
            u64::MAX
        }
    }

    /// Whether there was traffic since the flow's last record (R19).
    fn has_news(&self, flow: usize) -> bool {
        let flow = &self.flows[flow];
        let told = flow.told.last().copied().unwrap_or(0);
        flow.events[told..]
            .iter()
            .any(|event| !self.packets[event.packet].taken_back)
    }

    /// The first moment after the last look at which this flow is to be told of (R19).
    fn next_tick(&self, flow: usize) -> u64 {
        let shown = self.opening(flow);
        let (src, dst) = ((shown.src_ip, shown.src_port), (shown.dst_ip, shown.dst_port));
        let community_id = community_id(src, dst, shown.protocol, shown.icmp);
        let hash = base64::engine::general_purpose::STANDARD
            .decode(&community_id[2..])
            .expect("base64");
        let head: [u8; 8] = hash[..8].try_into().expect("20 bytes");
        let every = self.limits.update_every;
        let phase = u64::from_be_bytes(head) % every;
        let after = self.flows[flow].looked_at;
        let round = after - after % every;
        [round + phase, round.saturating_add(every).saturating_add(phase)]
            .into_iter()
            .find(|tick| *tick > after)
            .unwrap_or(u64::MAX)
    }

    /// R16: notes that the wall clock does not go with the monotonic one.
    pub(super) fn watch_clock(&mut self, now: Timestamp) {
        if let Some(before) = self.clock.replace(now) {
            let by = i128::from(now.wall) - i128::from(before.wall) - i128::from(now.mono - before.mono);
            if by.unsigned_abs() > CLOCK_STEP.into() && self.purpose.records {
                let by = i64::try_from(by).expect("tests step by hours");
                self.promises.push(Promise::Note(Note::ClockStep { at: now.wall, by }));
            }
        }
    }
}
