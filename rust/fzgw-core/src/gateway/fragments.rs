//! Later fragments that came before their first, held where access rules need its ports (R15).
//!
//! They are packets that wait (ledger L1): they go on when their first has gone, and are dropped with it, by their age,
//! or for want of room.

use std::collections::{HashMap, VecDeque};

use bytes::BytesMut;

use crate::flow::{FragmentKey, PeerId, Side};
use crate::peers::Place;

/// Of one datagram: more come only where somebody cuts it into shreds.
const MAX_PER_DATAGRAM: usize = 8;
/// Of one peer, and of all: at most 9 MB with the largest MTU, 1.5 MB with the usual one.
const MAX_PER_PEER: usize = 256;
const MAX: usize = 1024;

/// A packet that waits for its datagram's first fragment.
#[derive(Debug)]
pub(super) struct Held {
    pub(super) side: Side,
    pub(super) peer: PeerId,
    pub(super) place: Place,
    pub(super) packet: BytesMut,
    /// IP bytes.
    pub(super) bytes: u64,
}

/// The packets that wait.
pub(super) struct HeldFragments {
    datagrams: HashMap<FragmentKey, Datagram, ahash::RandomState>,
    /// Datagrams by age; those that went on meanwhile are passed over.
    ages: VecDeque<(FragmentKey, u64)>,
    by_peer: HashMap<PeerId, usize>,
    packets: usize,
}

struct Datagram {
    since: u64,
    packets: Vec<Held>,
}

impl HeldFragments {
    pub(super) fn new(hasher: ahash::RandomState) -> Self {
        Self {
            datagrams: HashMap::with_hasher(hasher),
            ages: VecDeque::new(),
            by_peer: HashMap::new(),
            packets: 0,
        }
    }

    /// Holds a packet. Gives it back where there is no room.
    pub(super) fn hold(&mut self, key: FragmentKey, held: Held, now: u64) -> Result<(), Held> {
        let of_peer = self.by_peer.get(&held.peer).copied().unwrap_or(0);
        if self.packets >= MAX || of_peer >= MAX_PER_PEER {
            return Err(held);
        }
        let datagram = self.datagrams.entry(key).or_insert_with(|| {
            self.ages.push_back((key, now));
            Datagram {
                since: now,
                packets: Vec::new(),
            }
        });
        if datagram.packets.len() >= MAX_PER_DATAGRAM {
            return Err(held);
        }
        *self.by_peer.entry(held.peer).or_default() += 1;
        self.packets += 1;
        datagram.packets.push(held);
        Ok(())
    }

    /// What waited for this datagram's first, in the order in which it came.
    pub(super) fn take(&mut self, key: &FragmentKey) -> Vec<Held> {
        let Some(datagram) = self.datagrams.remove(key) else {
            return Vec::new();
        };
        if self.ages.len() > 2 * MAX {
            let datagrams = &self.datagrams;
            self.ages
                .retain(|(key, since)| datagrams.get(key).is_some_and(|datagram| datagram.since == *since));
        }
        self.forget(&datagram.packets);
        datagram.packets
    }

    /// What has waited longer than `timeout` at `now`, one datagram a call; `None`: nothing has.
    pub(super) fn take_expired(&mut self, now: u64, timeout: u64) -> Option<Vec<Held>> {
        let (key, since) = *self.ages.front()?;
        if now <= since.saturating_add(timeout) {
            return None;
        }
        self.ages.pop_front();
        let current = self.datagrams.get(&key).is_some_and(|datagram| datagram.since == since);
        Some(if current { self.take(&key) } else { Vec::new() })
    }

    /// The monotonic nanoseconds at which `take_expired` has something to do.
    pub(super) fn poll_timeout(&self, timeout: u64) -> Option<u64> {
        let (_, since) = self.ages.front()?;
        Some(since.saturating_add(timeout).saturating_add(1))
    }

    /// Everything of this peer, or of everybody.
    pub(super) fn take_all(&mut self, of: Option<PeerId>) -> Vec<Held> {
        let taken = |held: &Held| of.is_none_or(|peer| held.peer == peer);
        let mut all = Vec::new();
        self.datagrams.retain(|_, datagram| {
            all.extend(datagram.packets.extract_if(.., |held| taken(held)));
            !datagram.packets.is_empty()
        });
        self.forget(&all);
        all
    }

    fn forget(&mut self, gone: &[Held]) {
        self.packets -= gone.len();
        for held in gone {
            if let Some(count) = self.by_peer.get_mut(&held.peer) {
                *count -= 1;
                if *count == 0 {
                    self.by_peer.remove(&held.peer);
                }
            }
        }
    }
}
