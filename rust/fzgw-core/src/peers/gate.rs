//! The handshake gate: how many initiations the gateway lets cost it a key agreement (about 0.2 ms each).
//!
//! The protocol library limits per source address, without a bound on how many addresses it remembers. This gate
//! counts them all: above its rate, initiators that no live tunnel knows must first show by a cookie that they own
//! their address, and one address gets a few key agreements a second with it. Peers that are connected pass by it.

use std::net::IpAddr;

use crate::flow::Timestamp;

const SECOND: u64 = 1_000_000_000;
/// Messages whose codes are looked at in a second. It bounds what the library's limiters remember: an address each,
/// about 5 MB.
const CHECKS_PER_SECOND: u32 = 100_000;
/// Cookies made in a second.
const COOKIES_PER_SECOND: u32 = 10_000;
/// Key agreements that one address gets in a second under load, with a cookie.
const AGREEMENTS_PER_SOURCE: u8 = 10;
/// Counters of sources, by hash: two that share one share its allowance for a second.
const SOURCES: usize = 4096;
/// A connected peer's address passes by the gate this often.
const KNOWN_INTERVAL: u64 = SECOND / 20;

/// What an initiation has to go through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Load {
    /// Its first code alone.
    Calm,
    /// A cookie.
    Loaded,
}

/// The gate. Counters and times: nothing that a sender can fill.
pub(super) struct Gate {
    rate: u32,
    second: u64,
    checks: u32,
    unknown: u32,
    cookies: u32,
    agreements: u32,
    sources: Box<[u8; SOURCES]>,
    hasher: ahash::RandomState,
    loaded_until: u64,
}

impl Gate {
    /// `hasher` is keyed per boot: sources are a sender's to choose.
    pub(super) fn new(rate: u32, hasher: ahash::RandomState) -> Self {
        Self {
            rate,
            second: 0,
            checks: 0,
            unknown: 0,
            cookies: 0,
            agreements: 0,
            sources: Box::new([0; SOURCES]),
            hasher,
            loaded_until: 0,
        }
    }

    pub(super) fn set_rate(&mut self, rate: u32) {
        self.rate = rate;
    }

    /// Whether a message's codes may be looked at.
    pub(super) fn check(&mut self, now: Timestamp) -> bool {
        if now.mono >= self.second + SECOND {
            self.second = now.mono;
            self.checks = 0;
            self.unknown = 0;
            self.cookies = 0;
            self.agreements = 0;
            self.sources.fill(0);
        }
        self.checks = self.checks.saturating_add(1);
        self.checks <= CHECKS_PER_SECOND
    }

    /// Counts an initiation whose first code is right. `last_known` is when a live tunnel last used its address to pass
    /// by.
    pub(super) fn admit(&mut self, now: Timestamp, last_known: Option<&mut u64>) -> Load {
        if let Some(last) = last_known
            && (*last == 0 || now.mono >= *last + KNOWN_INTERVAL)
        {
            *last = now.mono.max(1);
            return Load::Calm;
        }
        self.unknown = self.unknown.saturating_add(1);
        if self.unknown > self.rate {
            self.loaded_until = now.mono + SECOND;
        }
        if now.mono < self.loaded_until {
            Load::Loaded
        } else {
            Load::Calm
        }
    }

    /// Whether a cookie may be made.
    pub(super) fn answer(&mut self) -> bool {
        self.cookies = self.cookies.saturating_add(1);
        self.cookies <= COOKIES_PER_SECOND
    }

    /// Whether the owner of this address, shown by its cookie, may have a key agreement.
    pub(super) fn agree(&mut self, source: IpAddr) -> bool {
        let network = match source {
            IpAddr::V4(v4) => u64::from(u32::from(v4)),
            // An IPv6 host chooses the lower half itself.
            IpAddr::V6(v6) => (u128::from(v6) >> 64) as u64,
        };
        let used = &mut self.sources[self.hasher.hash_one(network) as usize % SOURCES];
        if *used >= AGREEMENTS_PER_SOURCE || self.agreements >= self.rate {
            return false;
        }
        *used += 1;
        self.agreements += 1;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gate(rate: u32) -> Gate {
        Gate::new(rate, ahash::RandomState::with_seeds(1, 2, 3, 4))
    }

    fn at(mono: u64) -> Timestamp {
        Timestamp { mono, wall: mono }
    }

    #[test]
    fn above_its_rate_the_unknown_meet_cookies_and_the_known_pass() {
        let mut gate = gate(200);
        for n in 0..200 {
            assert!(gate.check(at(n)));
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
        assert!(gate.check(at(2 * SECOND)));
        assert_eq!(gate.admit(at(2 * SECOND), None), Load::Calm, "it is over");
    }

    #[test]
    fn a_flood_costs_a_bounded_number_of_everything() {
        let mut gate = gate(200);
        let times = |mut what: Box<dyn FnMut(u64) -> bool + '_>| (0..300_000).filter(|n| what(*n)).count();
        assert_eq!(times(Box::new(|n| gate.check(at(n)))), CHECKS_PER_SECOND as usize);
        assert_eq!(times(Box::new(|_| gate.answer())), COOKIES_PER_SECOND as usize);
        let one = "203.0.113.1".parse().unwrap();
        assert_eq!(times(Box::new(|_| gate.agree(one))), usize::from(AGREEMENTS_PER_SOURCE));
        let many = |n: u64| IpAddr::from([10, (n >> 16) as u8, (n >> 8) as u8, n as u8]);
        assert_eq!(
            times(Box::new(|n| gate.agree(many(n)))),
            200 - usize::from(AGREEMENTS_PER_SOURCE)
        );
    }
}
