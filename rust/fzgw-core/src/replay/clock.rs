//! The packets' clock.

use crate::capture::MAX_TIME;
use crate::flow::Timestamp;

/// A packet that is earlier than one before it by no more than this was put out of order on its way into the file;
/// past that the clock was stepped back.
const DISORDER: u64 = 1_000_000_000;

/// Turns the times of frames into both clocks of the engine. Monotonic time never goes back: it stands still for a
/// packet that is out of order, and goes on from where it is after a step back. Forwards it goes as far as the packets'
/// times do, however far.
#[derive(Debug, Default)]
pub(super) struct PacketClock {
    last: Option<u64>,
    mono: u64,
}

impl PacketClock {
    /// The moment of a frame with this time, in nanoseconds since the epoch.
    pub(super) fn at(&mut self, time: u64) -> Timestamp {
        match self.last {
            Some(last) if time < last => {
                if last - time > DISORDER {
                    self.last = Some(time);
                }
            }
            last => {
                let passed = last.map_or(0, |last| time - last);
                // Room is left above, so that a time and a timeout add up wherever they do.
                self.mono = self.mono.saturating_add(passed).min(MAX_TIME);
                self.last = Some(time);
            }
        }
        Timestamp {
            mono: self.mono,
            wall: time,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_never_goes_back_and_goes_on_after_a_step() {
        const SECOND: u64 = 1_000_000_000;
        let mut clock = PacketClock::default();
        let mut mono = |time: u64| clock.at(time).mono;
        assert_eq!(mono(1000 * SECOND), 0);
        assert_eq!(mono(1002 * SECOND), 2 * SECOND);
        assert_eq!(mono(1001 * SECOND + 5), 2 * SECOND, "out of order");
        assert_eq!(mono(1003 * SECOND), 3 * SECOND, "disorder adds nothing");
        assert_eq!(mono(10 * SECOND), 3 * SECOND, "a step back");
        assert_eq!(mono(11 * SECOND), 4 * SECOND);
        assert_eq!(mono(9000 * SECOND), 8993 * SECOND, "a long silence");
        assert_eq!(mono(MAX_TIME), 8993 * SECOND + (MAX_TIME - 9000 * SECOND));
        mono(0);
        assert_eq!(mono(MAX_TIME), MAX_TIME, "the end of time");
    }
}
