//! A child with all that it starts, as one thing to end.

use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::{
    process::Child,
    time::{Instant, sleep, timeout_at},
};

/// A child and everything in its process group; all of it is killed when this is dropped.
pub(super) struct Group {
    id: Option<Pid>,
    pub(super) child: Child,
}

impl Group {
    pub(super) fn of(child: Child) -> Self {
        // The child leads its group, so both go by one number.
        let id = child
            .id()
            .and_then(|id| Pid::from_raw(i32::try_from(id).ok()?));
        Self { id, child }
    }

    pub(super) fn signal(&self, signal: Signal) {
        if let Some(id) = self.id {
            // Fails only when nobody is left in it.
            let _ = kill_process_group(id, signal);
        }
    }

    /// Kills the group, once: afterwards its number may be given to another.
    pub(super) fn kill(&mut self) {
        self.signal(Signal::KILL);
        self.id = None;
    }

    /// Asks the group to end, and kills what is left after `grace`.
    pub(super) async fn end(&mut self, grace: Duration) {
        self.signal(Signal::TERM);
        let until = Instant::now() + grace;
        if timeout_at(until, self.child.wait()).await.is_ok() {
            // The leader is gone; what it started gets what is left of the time only if there is any of it.
            while self.has_members() && Instant::now() < until {
                sleep(Duration::from_millis(10)).await;
            }
        }
        self.kill();
        let _ = self.child.wait().await;
    }

    fn has_members(&self) -> bool {
        self.id
            .is_some_and(|id| rustix::process::test_kill_process_group(id).is_ok())
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        self.kill();
    }
}
