//! What time it is, for the agent's deadlines: the machine's clocks, or one that a test moves.

use std::{sync::Arc, time::Duration};

use batwa_api::Timestamp;
use jiff::SignedDuration;
use tokio::sync::watch;

use crate::host;

/// Wall clock, time since the boot, and which boot that was. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Clock(Option<Arc<Moved>>);

/// A clock that stands still until it is moved.
#[derive(Debug)]
struct Moved {
    boot_id: String,
    wall: Timestamp,
    moved: watch::Sender<Duration>,
}

impl Clock {
    /// The machine's clocks.
    #[must_use]
    pub fn of_the_machine() -> Self {
        Self(None)
    }

    /// A clock that stands still, on a machine booted just now in boot `boot_id`: for tests.
    #[must_use]
    pub fn standing_still(boot_id: &str) -> Self {
        Self(Some(Arc::new(Moved {
            boot_id: boot_id.to_owned(),
            wall: Timestamp::now(),
            moved: watch::Sender::new(Duration::ZERO),
        })))
    }

    /// Moves a clock that stands still; the machine's clocks cannot be moved.
    pub fn advance(&self, by: Duration) {
        if let Some(moved) = &self.0 {
            moved.moved.send_modify(|since| *since += by);
        }
    }

    /// The time of day.
    pub(crate) fn now(&self) -> Timestamp {
        match &self.0 {
            None => Timestamp::now(),
            Some(moved) => {
                let since = SignedDuration::try_from(*moved.moved.borrow()).unwrap_or_default();
                moved.wall.checked_add(since).unwrap_or(moved.wall)
            }
        }
    }

    /// Time since the machine's boot, whatever was done to its wall clock.
    pub(crate) fn since_boot(&self) -> Duration {
        match &self.0 {
            None => machine_since_boot(),
            Some(moved) => *moved.moved.borrow(),
        }
    }

    /// What tells this boot of the machine from every other; `None` where it does not say.
    pub(crate) fn boot_id(&self) -> Option<String> {
        match &self.0 {
            None => host::boot_id(),
            Some(moved) => Some(moved.boot_id.clone()),
        }
    }

    /// Resolves after `patience`, or at once when the clock was moved.
    pub(crate) async fn tick(&self, patience: Duration) {
        match &self.0 {
            None => tokio::time::sleep(patience).await,
            Some(moved) => {
                let mut moves = moved.moved.subscribe();
                let _ = tokio::time::timeout(patience, moves.changed()).await;
            }
        }
    }
}

/// Time that the machine slept does not count: nobody was idle then.
fn machine_since_boot() -> Duration {
    use rustix::time::{ClockId, clock_gettime};
    let time = clock_gettime(ClockId::Monotonic);
    Duration::from_secs(u64::try_from(time.tv_sec).unwrap_or(0))
}
