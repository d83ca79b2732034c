//! The handshake gate: how many initiations the gateway lets cost it a key agreement (about 0.2 ms each).
//!
//! The protocol library limits per source address, without a bound on how many addresses it remembers. This gate
//! counts them all: above its rate, initiators that no live tunnel knows must first show by a cookie that they own
//! their address, and above a second rate even cookies are not made. Peers that are connected pass by it.

use crate::flow::Timestamp;

const SECOND: u64 = 1_000_000_000;
/// Cookies checked or made a second at most. It bounds what the library's limiter remembers: an address each.
pub(super) const COOKIES_PER_SECOND: u32 = 10_000;
/// A connected peer's address passes by the gate this often.
const KNOWN_INTERVAL: u64 = SECOND / 20;

/// What an initiation has to go through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Load {
    /// Its first code alone.
    Calm,
    /// A cookie.
    Loaded,
    /// Nothing helps now.
    Flooded,
}

/// The gate. Two counters and two times: nothing that a sender can fill.
#[derive(Debug)]
pub(super) struct Gate {
    rate: u32,
    second: u64,
    count: u32,
    cookies: u32,
    loaded_until: u64,
}

impl Gate {
    pub(super) fn new(rate: u32) -> Self {
        Self {
            rate,
            second: 0,
            count: 0,
            cookies: 0,
            loaded_until: 0,
        }
    }

    pub(super) fn set_rate(&mut self, rate: u32) {
        self.rate = rate;
    }

    /// Whether not even a look at its first code is worth it. It keeps bounded what the limiters remember.
    pub(super) fn is_flooded(&self, now: Timestamp) -> bool {
        self.cookies > COOKIES_PER_SECOND && now.mono < self.second + SECOND
    }

    /// Counts an initiation. `last_known` is when a live tunnel last used its address to pass by.
    pub(super) fn admit(&mut self, now: Timestamp, last_known: Option<&mut u64>) -> Load {
        if now.mono >= self.second + SECOND {
            self.second = now.mono;
            self.count = 0;
            self.cookies = 0;
        }
        if let Some(last) = last_known
            && (*last == 0 || now.mono >= *last + KNOWN_INTERVAL)
        {
            *last = now.mono.max(1);
            return Load::Calm;
        }
        self.count = self.count.saturating_add(1);
        if self.count > self.rate {
            self.loaded_until = now.mono + SECOND;
        }
        if now.mono >= self.loaded_until {
            return Load::Calm;
        }
        self.cookies += 1;
        if self.cookies > COOKIES_PER_SECOND {
            Load::Flooded
        } else {
            Load::Loaded
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(mono: u64) -> Timestamp {
        Timestamp { mono, wall: mono }
    }

    #[test]
    fn above_its_rate_the_unknown_meet_cookies_and_the_known_pass() {
        let mut gate = Gate::new(200);
        for n in 0..200 {
            assert_eq!(gate.admit(at(n), None), Load::Calm);
        }
        assert_eq!(gate.admit(at(300), None), Load::Loaded);
        let mut last = 0;
        assert_eq!(gate.admit(at(400), Some(&mut last)), Load::Calm, "a connected peer");
        assert_eq!(
            gate.admit(at(500), Some(&mut last)),
            Load::Loaded,
            "not as often as it likes"
        );
        assert_eq!(gate.admit(at(2 * SECOND), None), Load::Calm, "it is over");
    }

    #[test]
    fn a_flood_costs_a_bounded_number_of_cookies() {
        let mut gate = Gate::new(1);
        let verdicts: Vec<Load> = (0..50_000).map(|n| gate.admit(at(n), None)).collect();
        let loaded = verdicts.iter().filter(|load| **load == Load::Loaded).count();
        assert_eq!(loaded, COOKIES_PER_SECOND as usize);
        assert_eq!(verdicts.last(), Some(&Load::Flooded));
    }
}
