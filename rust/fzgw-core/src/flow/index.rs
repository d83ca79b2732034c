//! Which slot a key is in: open addressing over pairs of tag and slot, 8 bytes each.
//!
//! The tag is half of the key's hash, so that a probe seldom touches a slot that is not the one, and growing needs
//! no key: a bucket's place comes from its tag alone. The hash is keyed per boot, as tuples are a sender's to choose.

/// A bucket that holds nothing.
const EMPTY: u32 = u32::MAX;
/// The smallest table: 32 KiB.
const MIN_BUCKETS: usize = 4096;

#[derive(Clone, Copy)]
struct Bucket {
    tag: u32,
    slot: u32,
}

/// The index. It knows hashes and slots; the caller compares keys.
pub(super) struct Index {
    buckets: Vec<Bucket>,
    len: usize,
}

impl Index {
    pub(super) fn new() -> Self {
        Self {
            buckets: vec![Bucket { tag: 0, slot: EMPTY }; MIN_BUCKETS],
            len: 0,
        }
    }

    /// The slot with this hash for which `is_it` holds.
    pub(super) fn find(&self, hash: u64, mut is_it: impl FnMut(u32) -> bool) -> Option<u32> {
        let tag = tag(hash);
        let mut at = self.home(tag);
        loop {
            let bucket = self.buckets[at];
            if bucket.slot == EMPTY {
                return None;
            }
            if bucket.tag == tag && is_it(bucket.slot) {
                return Some(bucket.slot);
            }
            at = (at + 1) & self.mask();
        }
    }

    /// The slot that a search for this hash looks at first, whether or not it is the one.
    pub(super) fn first_at(&self, hash: u64) -> Option<u32> {
        let slot = self.buckets[self.home(tag(hash))].slot;
        (slot != EMPTY).then_some(slot)
    }

    /// Adds a slot that is not in the index.
    pub(super) fn insert(&mut self, hash: u64, slot: u32) {
        if (self.len + 1) * 4 > self.buckets.len() * 3 {
            self.grow();
        }
        self.place(Bucket { tag: tag(hash), slot });
        self.len += 1;
    }

    /// Takes a slot out; one that is not in it is left out as well.
    pub(super) fn remove(&mut self, hash: u64, slot: u32) {
        let mut hole = self.home(tag(hash));
        loop {
            match self.buckets[hole].slot {
                EMPTY => return,
                found if found == slot => break,
                _ => hole = (hole + 1) & self.mask(),
            }
        }
        // Move back what the hole would hide, so that no tombstones gather.
        let mut at = hole;
        loop {
            at = (at + 1) & self.mask();
            let bucket = self.buckets[at];
            if bucket.slot == EMPTY {
                break;
            }
            let home = self.home(bucket.tag);
            if (at.wrapping_sub(home) & self.mask()) >= (at.wrapping_sub(hole) & self.mask()) {
                self.buckets[hole] = bucket;
                hole = at;
            }
        }
        self.buckets[hole].slot = EMPTY;
        self.len -= 1;
    }

    fn grow(&mut self) {
        let bigger = vec![Bucket { tag: 0, slot: EMPTY }; self.buckets.len() * 2];
        for bucket in std::mem::replace(&mut self.buckets, bigger) {
            if bucket.slot != EMPTY {
                self.place(bucket);
            }
        }
    }

    fn place(&mut self, bucket: Bucket) {
        let mut at = self.home(bucket.tag);
        while self.buckets[at].slot != EMPTY {
            at = (at + 1) & self.mask();
        }
        self.buckets[at] = bucket;
    }

    fn mask(&self) -> usize {
        self.buckets.len() - 1
    }

    /// The tag's first bucket. Tags have 32 bits, which is enough for as many buckets as a table may have.
    fn home(&self, tag: u32) -> usize {
        tag as usize & self.mask()
    }
}

fn tag(hash: u64) -> u32 {
    (hash >> 32) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every slot that is in is found, every slot that was taken out is not, also among colliding hashes.
    #[test]
    fn finds_what_is_in_and_nothing_else() {
        let hash = |slot: u32| u64::from(slot % 97) << 32;
        let mut index = Index::new();
        for slot in 0..10_000 {
            index.insert(hash(slot), slot);
        }
        for slot in (0..10_000).step_by(3) {
            index.remove(hash(slot), slot);
        }
        for slot in 0..10_000 {
            let found = index.find(hash(slot), |candidate| candidate == slot);
            assert_eq!(found.is_some(), slot % 3 != 0, "slot {slot}");
        }
    }

    /// The same among clusters of neighbouring places that reach over the table's end, in any order of coming and going.
    #[test]
    fn finds_the_same_as_a_set_around_the_tables_end() {
        let home = |slot: u32| MIN_BUCKETS as u32 - 6 + slot % 11;
        let hash = |slot: u32| u64::from(home(slot)) << 32;
        let (mut index, mut there) = (Index::new(), std::collections::BTreeSet::new());
        let mut random = 1u32;
        for _ in 0..20_000 {
            random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let slot = (random >> 16) % 64;
            if there.remove(&slot) {
                index.remove(hash(slot), slot);
            } else {
                there.insert(slot);
                index.insert(hash(slot), slot);
            }
            for slot in 0..64 {
                let found = index.find(hash(slot), |candidate| candidate == slot);
                assert_eq!(found.is_some(), there.contains(&slot), "slot {slot} of {there:?}");
            }
        }
        assert_eq!(index.buckets.len(), MIN_BUCKETS, "what goes makes room");
    }

    /// Another slot's hash finds nothing, also where it leads to the same place.
    #[test]
    fn a_place_is_not_enough_to_be_found() {
        let mut index = Index::new();
        index.insert(7 << 32, 1);
        assert_eq!(index.find((7 + MIN_BUCKETS as u64) << 32, |_| true), None);
        assert_eq!(index.find(7 << 32, |_| false), None);
    }

    /// Taking out what is not there changes nothing, beside neighbours or alone.
    #[test]
    fn what_is_not_there_cannot_be_taken_out() {
        let mut index = Index::new();
        index.remove(7 << 32, 1);
        index.insert(7 << 32, 1);
        index.remove(7 << 32, 2);
        assert_eq!(index.find(7 << 32, |slot| slot == 1), Some(1));
        assert_eq!(index.len, 1);
    }

    /// It doubles before it is more than three quarters full.
    #[test]
    fn grows_at_three_quarters() {
        let mut index = Index::new();
        let most = MIN_BUCKETS as u32 / 4 * 3;
        for slot in 0..most {
            index.insert(u64::from(slot) << 32, slot);
        }
        assert_eq!(index.buckets.len(), MIN_BUCKETS);
        index.insert(u64::from(most) << 32, most);
        assert_eq!(index.buckets.len(), 2 * MIN_BUCKETS);
    }
}
