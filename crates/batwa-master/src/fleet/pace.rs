//! How fast one agent may tell changes: an honest one never notices, a flood waits in its own stream.
//!
//! Each change costs the master a moment and every follower of events a line, so an agent without measure would be
//! felt by all. What it has to wait for is paid by its own link: the agent sends no further than its stream's window, and
//! what changes meanwhile it tells as one snapshot.

use std::time::Duration;

use batwa_api::event::WatchEvent;
use tokio::time::Instant;

/// Changes a second that an agent may tell for ever: a thousand VMs that start at once are over in two seconds.
const PER_SECOND: f64 = 500.0;
/// Changes that it may tell at once: the largest snapshot, and a busy minute.
const BURST: f64 = 20_000.0;

/// What one agent may tell without waiting.
#[derive(Debug)]
pub(super) struct Pace {
    left: f64,
    at: Instant,
}

impl Pace {
    /// One that has told nothing yet.
    pub(super) fn new(now: Instant) -> Self {
        Self {
            left: BURST,
            at: now,
        }
    }

    /// Takes one event; how long to wait before the next is read.
    pub(super) fn take(&mut self, event: &WatchEvent, now: Instant) -> Duration {
        let cost = match event {
            WatchEvent::Snapshot { vms, .. } => vms.len().max(1),
            _ => 1,
        };
        let earned = now.duration_since(self.at).as_secs_f64() * PER_SECOND;
        self.at = now;
        #[expect(
            clippy::cast_precision_loss,
            reason = "no agent has so many VMs that it would matter"
        )]
        let cost = cost as f64;
        self.left = (self.left + earned).min(BURST) - cost;
        if self.left >= 0.0 {
            Duration::ZERO
        } else {
            Duration::from_secs_f64(-self.left / PER_SECOND)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn change() -> WatchEvent {
        WatchEvent::KeepAlive { revision: 1 }
    }

    #[test]
    fn a_busy_agent_never_waits_and_a_flood_does() {
        let start = Instant::now();
        let mut pace = Pace::new(start);
        // Four hundred a second for an hour.
        for n in 0..400 * 3600_u64 {
            let now = start + Duration::from_millis(n * 5 / 2);
            assert_eq!(pace.take(&change(), now), Duration::ZERO);
        }
        let mut pace = Pace::new(start);
        let mut now = start;
        let mut told = 0_u32;
        while now < start + Duration::from_secs(60) {
            now += pace.take(&change(), now);
            told += 1;
        }
        assert!(told > 20_000, "{told}");
        assert!(told < 20_000 + 60 * 500 + 10, "{told}");
    }
}
