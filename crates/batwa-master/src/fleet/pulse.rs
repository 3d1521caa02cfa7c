//! How often an old agent's heart beats, learnt from arrivals, and when its silence counts.

use std::time::Duration;

/// What is assumed before two heartbeats have come.
const FIRST_INTERVAL: Duration = Duration::from_secs(30);
/// Heartbeats that may be missed.
const MISSES: u32 = 3;
/// An agent told to beat faster than this is still given this long, as networks stall for a moment.
const SHORTEST_INTERVAL: Duration = Duration::from_secs(1);
/// One told to beat slower is looked at as if it beat so.
const LONGEST_INTERVAL: Duration = Duration::from_secs(600);

/// The heartbeats of one agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Pulse {
    /// When the last one came, in milliseconds.
    last_ms: Option<i64>,
    /// The time between two, in milliseconds, as learnt.
    interval_ms: Option<i64>,
}

impl Pulse {
    /// Takes one heartbeat.
    pub(crate) fn beat(&mut self, now_ms: i64) {
        if let Some(last) = self.last_ms {
            let gap = (now_ms - last).clamp(0, ms(LONGEST_INTERVAL));
            self.interval_ms = Some(match self.interval_ms {
                // A late one or two at once do not change what was learnt by much; a changed setting does in a few.
                Some(known) => known + (gap - known) / 4,
                None => gap,
            });
        }
        self.last_ms = Some(now_ms);
    }

    /// Whether a heartbeat ever came.
    pub(crate) fn has_beaten(&self) -> bool {
        self.last_ms.is_some()
    }

    /// How long silence may last.
    pub(crate) fn patience(&self) -> Duration {
        let interval = self.interval_ms.map_or(FIRST_INTERVAL, |ms| {
            Duration::from_millis(ms.unsigned_abs())
        });
        // Half an interval more, as the third one may be on its way.
        let interval = interval.clamp(SHORTEST_INTERVAL, LONGEST_INTERVAL);
        interval * MISSES + interval / 2
    }

    /// Whether heartbeats came and stopped coming.
    pub(crate) fn is_missed(&self, now_ms: i64) -> bool {
        self.last_ms
            .is_some_and(|last| now_ms - last > ms(self.patience()))
    }
}

fn ms(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn beats(times_s: &[i64]) -> Pulse {
        let mut pulse = Pulse::default();
        for second in times_s {
            pulse.beat(second * 1000);
        }
        pulse
    }

    #[test]
    fn three_missed_heartbeats_are_silence() {
        let pulse = beats(&[0]);
        assert!(!pulse.is_missed(90_000));
        assert!(pulse.is_missed(106_000));
        assert!(!Pulse::default().is_missed(1_000_000), "it never beat");
    }

    #[test]
    fn the_interval_is_learnt_from_arrivals() {
        let fast = beats(&[0, 2, 4, 6]);
        assert!(!fast.is_missed(12_000));
        assert!(fast.is_missed(14_000));
        let slow = beats(&[0, 120, 240]);
        assert!(!slow.is_missed(240_000 + 300_000));
        assert!(slow.is_missed(240_000 + 430_000));
        let late_once = beats(&[0, 30, 60, 150, 180]);
        assert!(late_once.is_missed(180_000 + 200_000));
    }
}
