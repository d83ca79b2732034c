//! When to look at a flow again: a wheel of 4,096 buckets of 67 ms, 275 s around.
//!
//! A flow stands in one bucket, by its nearest deadline or the wheel's horizon. A packet that moves the deadline away
//! does not touch the wheel: the flow is looked at, found not due, and put where it belongs then. So a flow costs the
//! wheel nothing per packet and a step each 275 s at most.

use super::slab::{NONE, Slab};

/// A tick is 2^26 ns.
const TICK_SHIFT: u32 = 26;
const BUCKETS: u64 = 4096;
/// The list of those that a walk through the present tick found due.
const DUE: usize = BUCKETS as usize;
/// The present tick is walked through at most this often while flows in it fall due, so that many in one tick are not
/// walked through for each of them. They are late by as much; what comes for them meanwhile finds them over (R17).
const WALK_EVERY: u64 = 1 << 24;
/// The bucket number of a slot that stands in none.
const OFF: u16 = u16::MAX;

/// The wheel. Its lists run through the slots.
pub(super) struct Wheel {
    heads: Vec<u32>,
    /// One bit a bucket that is not empty.
    filled: [u64; (BUCKETS / 64) as usize],
    /// The tick that `advance` stands in: all before it are done.
    tick: u64,
    /// Nothing in the present tick is due before this.
    nearest: u64,
    walk_every: u64,
}

impl Wheel {
    pub(super) fn new() -> Self {
        Self {
            heads: vec![NONE; DUE + 1],
            filled: [0; (BUCKETS / 64) as usize],
            tick: 0,
            nearest: u64::MAX,
            walk_every: WALK_EVERY,
        }
    }

    /// A wheel that is never late, at the price of walking through the present tick again and again.
    #[cfg(test)]
    pub(super) fn exact() -> Self {
        Self {
            walk_every: 0,
            ..Self::new()
        }
    }

    /// Puts a slot where it is looked at no later than `deadline`; takes it from where it stood.
    pub(super) fn schedule(&mut self, slab: &mut Slab, slot: u32, deadline: u64) {
        self.cancel(slab, slot);
        let tick = (deadline >> TICK_SHIFT).clamp(self.tick, self.tick + BUCKETS - 1);
        if tick == self.tick {
            self.nearest = self.nearest.min(deadline);
        }
        self.put(slab, slot, (tick % BUCKETS) as usize);
    }

    fn put(&mut self, slab: &mut Slab, slot: u32, bucket: usize) {
        let head = self.heads[bucket];
        if head != NONE {
            slab[head].timer_prev = slot;
        }
        let entry = &mut slab[slot];
        entry.timer_prev = NONE;
        entry.timer_next = head;
        entry.timer_bucket = bucket as u16;
        self.heads[bucket] = slot;
        if bucket != DUE {
            self.filled[bucket / 64] |= 1 << (bucket % 64);
        }
    }

    /// Takes a slot out, where it stands in the wheel at all.
    pub(super) fn cancel(&mut self, slab: &mut Slab, slot: u32) {
        let entry = &mut slab[slot];
        let (bucket, prev, next) = (entry.timer_bucket, entry.timer_prev, entry.timer_next);
        if bucket == OFF {
            return;
        }
        entry.timer_bucket = OFF;
        if next != NONE {
            slab[next].timer_prev = prev;
        }
        if prev != NONE {
            slab[prev].timer_next = next;
            return;
        }
        let bucket = usize::from(bucket);
        self.heads[bucket] = next;
        if next == NONE && bucket != DUE {
            self.filled[bucket / 64] &= !(1 << (bucket % 64));
        }
    }

    /// Takes out one slot whose bucket has come. The caller looks at it and schedules it again or ends it. `None`
    /// when nothing more can be due at `now`.
    pub(super) fn next_due(&mut self, slab: &mut Slab, now: u64, due: impl Fn(&Slab, u32) -> u64) -> Option<u32> {
        if let Some(slot) = self.take_head(slab, DUE) {
            return Some(slot);
        }
        let last = now >> TICK_SHIFT;
        if last.saturating_sub(self.tick) >= BUCKETS {
            // A full turn without a visit: all are looked at, and put where they belong from now on.
            self.take_all(slab);
            self.tick = last;
            self.nearest = 0;
            if let Some(slot) = self.take_head(slab, DUE) {
                return Some(slot);
            }
        }
        while self.tick < last {
            if let Some(slot) = self.take_head(slab, (self.tick % BUCKETS) as usize) {
                return Some(slot);
            }
            self.tick = self.next_filled(self.tick + 1, last);
            self.nearest = 0;
        }
        if now < self.nearest {
            return None;
        }
        // The present tick is partly due: one walk takes out what is, and learns when the next will be.
        let mut at = self.heads[(self.tick % BUCKETS) as usize];
        self.nearest = u64::MAX;
        while at != NONE {
            let next = slab[at].timer_next;
            let deadline = due(slab, at);
            if deadline <= now {
                self.cancel(slab, at);
                self.put(slab, at, DUE);
            } else {
                self.nearest = self.nearest.min(deadline);
            }
            at = next;
        }
        let found = self.take_head(slab, DUE);
        if found.is_some() {
            self.nearest = self.nearest.max(now + self.walk_every);
        }
        found
    }

    /// Moves every slot to those that are due.
    fn take_all(&mut self, slab: &mut Slab) {
        for bucket in 0..DUE {
            while let Some(slot) = self.take_head(slab, bucket) {
                self.put(slab, slot, DUE);
            }
        }
    }

    fn take_head(&mut self, slab: &mut Slab, bucket: usize) -> Option<u32> {
        let head = self.heads[bucket];
        if head == NONE {
            return None;
        }
        self.cancel(slab, head);
        Some(head)
    }

    /// The monotonic nanoseconds at which `next_due` should be asked again.
    pub(super) fn poll_timeout(&self) -> Option<u64> {
        if self.heads[DUE] != NONE {
            return Some(0);
        }
        let present = self.heads[(self.tick % BUCKETS) as usize] != NONE;
        let nearest = if present { self.nearest } else { u64::MAX };
        let end = self.tick + BUCKETS;
        let next = self.next_filled(self.tick + 1, end);
        let next = if next < end { next << TICK_SHIFT } else { u64::MAX };
        let due = nearest.min(next);
        (due != u64::MAX).then_some(due)
    }

    /// The first tick from `from` on whose bucket is not empty, or `end`.
    fn next_filled(&self, from: u64, end: u64) -> u64 {
        let mut tick = from;
        while tick < end && tick < from + BUCKETS {
            let bucket = (tick % BUCKETS) as usize;
            let rest = self.filled[bucket / 64] >> (bucket % 64);
            if rest != 0 {
                return (tick + u64::from(rest.trailing_zeros())).min(end);
            }
            tick += 64 - (bucket % 64) as u64;
        }
        end
    }
}

#[cfg(test)]
mod tests {
    use super::super::key::FlowKey;
    use super::*;

    fn key(n: u128) -> FlowKey {
        FlowKey {
            near: n,
            far: 0,
            peer: super::super::PeerId(0),
            near_port: 0,
            far_port: 0,
            protocol: 0,
            class: 0,
        }
    }

    /// Each slot comes up at its deadline, never before it, in steps that miss nothing.
    #[test]
    fn every_slot_comes_up_at_its_deadline() {
        let mut slab = Slab::new();
        let mut wheel = Wheel::new();
        let deadlines: Vec<u64> = (0..2000u64)
            .map(|n| (n * n * 7_919_113) % 900_000_000_000 + 1)
            .collect();
        let slots: Vec<u32> = deadlines.iter().map(|_| slab.take(&key(0))).collect();
        for (slot, deadline) in slots.iter().zip(&deadlines) {
            slab[*slot].start_mono = *deadline;
            wheel.schedule(&mut slab, *slot, *deadline);
        }
        let mut now = 0;
        let mut seen = 0;
        while seen < deadlines.len() {
            let next = wheel.poll_timeout().expect("slots are left");
            assert!(next > now || seen == 0, "time goes on");
            now = next;
            while let Some(slot) = wheel.next_due(&mut slab, now, |slab, slot| slab[slot].start_mono) {
                let deadline = slab[slot].start_mono;
                if deadline > now {
                    wheel.schedule(&mut slab, slot, deadline);
                    continue;
                }
                assert!(
                    now - deadline <= WALK_EVERY,
                    "never early, and late by one walk at most"
                );
                seen += 1;
            }
        }
        assert_eq!(wheel.poll_timeout(), None);
    }

    #[test]
    fn a_long_sleep_finds_everything_at_once() {
        let mut slab = Slab::new();
        let mut wheel = Wheel::new();
        for n in 0..100u64 {
            let slot = slab.take(&key(0));
            slab[slot].start_mono = n * 10_000_000_000;
            wheel.schedule(&mut slab, slot, n * 10_000_000_000);
        }
        let now = 10_000_000_000_000;
        let mut seen = 0;
        while let Some(slot) = wheel.next_due(&mut slab, now, |slab, slot| slab[slot].start_mono) {
            assert!(slab[slot].start_mono <= now);
            seen += 1;
        }
        assert_eq!(seen, 100);
    }
}
