//! Pauses between tries: doubling up to a bound, each a random part of that, so that ten thousand agents whose
//! master restarts do not come back in step.

use std::time::Duration;

use rand::RngExt as _;

/// The pauses of one agent.
#[derive(Debug, Clone)]
pub(super) struct Backoff {
    first: Duration,
    longest: Duration,
    next: Duration,
}

impl Backoff {
    /// Pauses from `first` to `longest`.
    pub(super) fn new(first: Duration, longest: Duration) -> Self {
        let first = first.min(longest);
        Self {
            first,
            longest,
            next: first,
        }
    }

    /// The next pause: anything from nothing to its bound, which doubles.
    pub(super) fn next(&mut self) -> Duration {
        let bound = self.next;
        self.next = (bound * 2).min(self.longest);
        bound.mul_f64(rand::rng().random_range(0.0..1.0))
    }

    /// A pause in the upper half of the longest, for when coming back soon only does harm.
    pub(super) fn long(&self) -> Duration {
        self.longest.mul_f64(rand::rng().random_range(0.5..1.0))
    }

    /// Begins anew.
    pub(super) fn reset(&mut self) {
        self.next = self.first;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_their_bound_and_are_spread() {
        let mut backoff = Backoff::new(Duration::from_millis(500), Duration::from_secs(30));
        for bound_ms in [500, 1000, 2000, 4000, 8000, 16_000, 30_000, 30_000] {
            assert_eq!(backoff.next, Duration::from_millis(bound_ms));
            assert!(backoff.next() < Duration::from_millis(bound_ms));
        }
        let pauses: Vec<_> = (0..1000).map(|_| backoff.next().as_secs_f64()).collect();
        let mean = pauses.iter().sum::<f64>() / 1000.0;
        assert!((13.0..17.0).contains(&mean), "full jitter: {mean}");
        backoff.reset();
        assert!(backoff.next() < Duration::from_millis(500));
    }
}
