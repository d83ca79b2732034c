//! Later fragments find their flow (R15).
//!
//! Only the first fragment of a datagram carries ports. So it leaves an entry under what all of them share, and the
//! later ones are counted in its flow. Those that come before it wait in the entry, as counts. The table is bounded and
//! its entries are short-lived: a datagram that is not whole by then never will be.

use std::collections::{HashMap, VecDeque};

use super::key::{Side, class, wide};
use super::record::{Counts, PeerId};
use crate::packet::PacketInfo;

/// What the fragments of one datagram share.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct FragmentKey {
    src: u128,
    dst: u128,
    peer: PeerId,
    identification: u32,
    side: Side,
    protocol: u8,
    class: u8,
}

impl FragmentKey {
    /// The key of a packet that is a fragment.
    pub fn of(peer: PeerId, side: Side, packet: &PacketInfo) -> Option<Self> {
        let fragment = packet.fragment?;
        Some(Self {
            src: wide(packet.src),
            dst: wide(packet.dst),
            peer,
            identification: fragment.identification,
            side,
            protocol: packet.protocol,
            class: if packet.src.is_ipv6() { class::IPV6 } else { 0 },
        })
    }
}

/// Where the fragments of a datagram belong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Home {
    /// The first has not come. So much waits for it.
    Waiting(Counts),
    /// The first was counted in this flow.
    Flow { slot: u32, serial: u64 },
    /// The first belongs to no flow.
    Untracked,
}

/// What became of fragments that waited.
#[derive(Debug, Clone, Copy)]
pub(super) enum Settled {
    /// They joined this flow.
    Flow {
        slot: u32,
        serial: u64,
        /// How many records had been made by then.
        made: u64,
        /// Whether they are the initiator's.
        out: bool,
    },
    /// They belong to no flow.
    Untracked,
}

/// An entry's name while it lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FragmentId(u64);

#[derive(Debug)]
struct Entry {
    home: Home,
    id: FragmentId,
    created: u64,
}

/// Counts that have waited in vain, and the side that they came from.
pub(super) struct Expired {
    pub(super) side: Side,
    pub(super) counts: Counts,
    pub(super) id: FragmentId,
}

/// What became of so many datagrams is remembered: more than are counted between two flushes.
const SETTLED: usize = 4096;

/// The table of datagrams in pieces.
pub(super) struct Fragments {
    entries: HashMap<FragmentKey, Entry, ahash::RandomState>,
    by_peer: HashMap<PeerId, usize, ahash::RandomState>,
    /// Entries by age; those that were replaced meanwhile are passed over.
    ages: VecDeque<(FragmentKey, u64)>,
    next_id: u64,
    /// What became of those that waited, oldest first: for packets that could not be written.
    settled: VecDeque<(FragmentId, Settled)>,
}

impl Fragments {
    pub(super) fn new(hasher: ahash::RandomState) -> Self {
        Self {
            entries: HashMap::with_hasher(hasher.clone()),
            by_peer: HashMap::with_hasher(hasher),
            ages: VecDeque::new(),
            next_id: 0,
            settled: VecDeque::new(),
        }
    }

    /// The home of a datagram's fragments, and its name.
    pub(super) fn get(&self, key: &FragmentKey) -> Option<(Home, FragmentId)> {
        self.entries.get(key).map(|entry| (entry.home, entry.id))
    }

    /// What waits for this datagram's first, to write.
    pub(super) fn waiting(&mut self, key: &FragmentKey) -> Option<(&mut Counts, FragmentId)> {
        let entry = self.entries.get_mut(key)?;
        match &mut entry.home {
            Home::Waiting(counts) => Some((counts, entry.id)),
            Home::Flow { .. } | Home::Untracked => None,
        }
    }

    /// What still waits under this name, by looking at all: for packets that could not be written.
    pub(super) fn waiting_by_id(&mut self, id: FragmentId) -> Option<&mut Counts> {
        self.entries.values_mut().find_map(|entry| match &mut entry.home {
            Home::Waiting(counts) if entry.id == id => Some(counts),
            Home::Waiting(_) | Home::Flow { .. } | Home::Untracked => None,
        })
    }

    /// Remembers what became of those that waited under this name.
    pub(super) fn settle(&mut self, id: FragmentId, settled: Settled) {
        if self.settled.len() == SETTLED {
            self.settled.pop_front();
        }
        self.settled.push_back((id, settled));
    }

    /// What became of those that waited under this name.
    pub(super) fn settled(&self, id: FragmentId) -> Option<Settled> {
        let found = self.settled.iter().rev().find(|(known, _)| *known == id);
        found.map(|(_, settled)| *settled)
    }

    /// Gives a datagram a home, young from now on, in place of the one that it had. What waited there has to be seen to
    /// before. `None`: there is no room, as `most` are there or this peer has `most_per_peer`.
    pub(super) fn put(
        &mut self,
        key: FragmentKey,
        home: Home,
        now: u64,
        most: usize,
        most_per_peer: usize,
    ) -> Option<FragmentId> {
        let known = self.entries.contains_key(&key);
        let of_peer = self.by_peer.get(&key.peer).copied().unwrap_or(0);
        if !known && (self.entries.len() >= most || of_peer >= most_per_peer) {
            return None;
        }
        let id = FragmentId(self.next_id);
        self.next_id += 1;
        let entry = Entry { home, id, created: now };
        if self.entries.insert(key, entry).is_none() {
            *self.by_peer.entry(key.peer).or_default() += 1;
        }
        self.ages.push_back((key, now));
        if self.ages.len() > 2 * most + 64 {
            let entries = &self.entries;
            self.ages
                .retain(|(key, created)| entries.get(key).is_some_and(|entry| entry.created == *created));
        }
        Some(id)
    }

    /// Forgets a datagram that is older than `timeout` at `now`.
    pub(super) fn expire_one(&mut self, key: &FragmentKey, now: u64, timeout: u64) -> Option<Expired> {
        let entry = self.entries.get(key)?;
        if now <= entry.created.saturating_add(timeout) {
            return None;
        }
        self.forget(key)
    }

    /// Forgets the oldest datagram if it is older than `timeout` at `now`. `None`: it is not.
    pub(super) fn expire_oldest(&mut self, now: u64, timeout: u64) -> Option<Option<Expired>> {
        let (key, created) = *self.ages.front()?;
        if now <= created.saturating_add(timeout) {
            return None;
        }
        self.ages.pop_front();
        let current = self.entries.get(&key).is_some_and(|entry| entry.created == created);
        Some(if current { self.forget(&key) } else { None })
    }

    /// The first moment at which `expire_oldest` has something to do.
    pub(super) fn poll_timeout(&self, timeout: u64) -> Option<u64> {
        let (_, created) = self.ages.front()?;
        Some(created.saturating_add(timeout).saturating_add(1))
    }

    /// Forgets everything.
    pub(super) fn clear(&mut self) -> Vec<Expired> {
        self.ages.clear();
        self.by_peer.clear();
        self.entries
            .drain()
            .filter_map(|(key, entry)| expired(&key, &entry))
            .collect()
    }

    fn forget(&mut self, key: &FragmentKey) -> Option<Expired> {
        let entry = self.entries.remove(key)?;
        if let Some(count) = self.by_peer.get_mut(&key.peer) {
            *count -= 1;
            if *count == 0 {
                self.by_peer.remove(&key.peer);
            }
        }
        expired(key, &entry)
    }
}

fn expired(key: &FragmentKey, entry: &Entry) -> Option<Expired> {
    match entry.home {
        Home::Waiting(counts) => Some(Expired {
            side: key.side,
            counts,
            id: entry.id,
        }),
        Home::Flow { .. } | Home::Untracked => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(identification: u32) -> FragmentKey {
        FragmentKey {
            src: 1,
            dst: 2,
            peer: PeerId(0),
            identification,
            side: Side::FromPeer,
            protocol: 17,
            class: 0,
        }
    }

    /// R15: a sender that begins the same datagram again and again makes nothing grow but up to the bound, and the
    /// datagrams that wait beside it expire as they would have.
    #[test]
    fn datagrams_begun_anew_leave_no_more_than_the_bound() {
        let mut fragments = Fragments::new(ahash::RandomState::with_seeds(1, 2, 3, 4));
        let most = 4;
        let one = Counts {
            packets: 1,
            ..Counts::ZERO
        };
        assert!(fragments.put(key(0), Home::Waiting(one), 0, most, most).is_some());
        let mut longest = 0;
        for now in 1..1000 {
            assert!(fragments.put(key(1), Home::Untracked, now, most, most).is_some());
            longest = longest.max(fragments.ages.len());
        }
        assert_eq!(longest, 2 * most + 64);
        let mut expired = Vec::new();
        while let Some(one) = fragments.expire_oldest(500, 100) {
            expired.extend(one.map(|expired| expired.counts));
        }
        assert_eq!(expired, [one], "the one that waits is over, the one begun anew is not");
        assert_eq!(fragments.poll_timeout(100).map(|at| at > 500), Some(true));
        assert!(fragments.get(&key(0)).is_none());
        assert!(fragments.get(&key(1)).is_some());
    }
}
