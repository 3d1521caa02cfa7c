//! Distributions of latencies.

use std::time::Duration;

/// Latencies of one kind of request.
#[derive(Debug, Default)]
pub(crate) struct Latencies(Vec<Duration>);

impl Latencies {
    /// Adds one.
    pub(crate) fn push(&mut self, latency: Duration) {
        self.0.push(latency);
    }

    /// Adds all of `others`.
    pub(crate) fn extend(&mut self, others: Self) {
        self.0.extend(others.0);
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// The latency that `percent` of them do not exceed, in milliseconds; NaN when there are none.
    pub(crate) fn percentile_ms(&mut self, percent: usize) -> f64 {
        self.0.sort_unstable();
        let Some(last) = self.0.len().checked_sub(1) else {
            return f64::NAN;
        };
        let at = (self.0.len() * percent / 100).min(last);
        self.0[at].as_secs_f64() * 1e3
    }

    /// The middle one, in milliseconds.
    pub(crate) fn p50(&mut self) -> f64 {
        self.percentile_ms(50)
    }

    /// The one that 1 % exceed, in milliseconds.
    pub(crate) fn p99(&mut self) -> f64 {
        self.percentile_ms(99)
    }
}
