//! Chance that is the same each time: what fails once can be had again by its seed.

use std::time::Duration;

/// A sequence of numbers that look like any others (xorshift64*).
#[derive(Debug, Clone)]
pub(super) struct Dice(u64);

impl Dice {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    /// Others, for somebody else.
    pub(super) fn split(&mut self) -> Self {
        Self::new(self.roll())
    }

    fn roll(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// A number below `limit`, which is not 0.
    pub(super) fn below(&mut self, limit: u64) -> u64 {
        (self.roll() >> 16) % limit
    }

    /// A time below `limit`, in whole milliseconds.
    pub(super) fn time(&mut self, limit: Duration) -> Duration {
        let millis = u64::try_from(limit.as_millis()).unwrap_or(u64::MAX).max(1);
        Duration::from_millis(self.below(millis))
    }
}
