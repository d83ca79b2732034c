//! Memory that is about to be needed, fetched before it is.
//!
//! With many live flows each packet waits for its bucket and its slot, one after the other, since each says where the
//! next is; and a flow that is ended waits for its bucket again. Asked for by the group, these waits overlap: a step
//! touches the same kind of place for all of a group before the next step begins. Nothing changes by it.

use std::hint::black_box;

use super::key::{FlowKey, Side};
use super::record::PeerId;
use super::table::FlowTable;
use crate::packet::PacketInfo;

/// Packets of a group: enough to overlap what the processor can, few enough that what was fetched is still there.
pub const LOOKAHEAD: usize = 32;

/// With fewer live flows than this, what is fetched is mostly in the processor's caches, and asking costs more than
/// waiting.
const LARGE: usize = 1 << 16;

impl FlowTable {
    /// Fetches what counting these packets will read, the first [`LOOKAHEAD`] of them, and what ending the flows will
    /// that may have to make way for them.
    pub fn look_ahead<'a>(&self, packets: impl IntoIterator<Item = (PeerId, Side, &'a PacketInfo)>) {
        if self.slab.len() < LARGE {
            return;
        }
        let mut hashes = [0; LOOKAHEAD];
        let mut count = 0;
        let mut peer_of_all = None;
        for (peer, side, packet) in packets.into_iter().take(LOOKAHEAD) {
            if let Some((key, _)) = FlowKey::of(peer, side, packet) {
                hashes[count] = self.hasher.hash_one(key);
                count += 1;
                peer_of_all = Some(peer);
            }
        }
        self.fetch(&hashes[..count]);
        if self.pressed > 0
            && let Some(flows) = peer_of_all.and_then(|peer| self.peers.get(&peer))
        {
            let mut oldest = [0; LOOKAHEAD];
            let mut count = 0;
            for slot in flows.allowed.iter(&self.slab).take(LOOKAHEAD) {
                oldest[count] = slot;
                count += 1;
            }
            self.fetch_to_end(&oldest[..count]);
        }
    }

    /// Fetches what ending these flows will read.
    pub(super) fn fetch_to_end(&self, slots: &[u32]) {
        if self.slab.len() < LARGE {
            return;
        }
        let mut hashes = [0; LOOKAHEAD];
        for (hash, slot) in hashes.iter_mut().zip(slots) {
            *hash = self.hasher.hash_one(self.slab.key(*slot));
        }
        let fetched = hashes[..slots.len().min(LOOKAHEAD)].iter();
        black_box(
            fetched
                .filter_map(|hash| self.index.first_at(*hash))
                .fold(0, u32::wrapping_add),
        );
    }

    fn fetch(&self, hashes: &[u64]) {
        let mut slots = [None; LOOKAHEAD];
        for (hash, slot) in hashes.iter().zip(&mut slots) {
            *slot = self.index.first_at(*hash);
        }
        for slot in slots.into_iter().flatten() {
            black_box(self.slab.touch(slot));
        }
    }
}
