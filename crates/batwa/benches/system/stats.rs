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

/// Loads that a quiet moment is compared with: what a latency may be to count as unchanged, on a machine that
/// measures itself.
pub(crate) mod unchanged {
    use super::Latencies;

    /// Times the quiet one.
    const FACTOR: f64 = 1.5;
    /// Milliseconds above the quiet one that nobody notices.
    const NOTICEABLE_MS: f64 = 1.0;

    /// For the middle one.
    pub(crate) fn p50(quiet: &mut Latencies) -> f64 {
        (quiet.p50() * FACTOR).max(quiet.p50() + NOTICEABLE_MS)
    }

    /// For the slowest 1 %: few, so that they scatter more.
    pub(crate) fn p99(quiet: &mut Latencies) -> f64 {
        (quiet.p99() * FACTOR).max(quiet.p99() + 5.0 * NOTICEABLE_MS)
    }
}
