//! The one lane to the daemon: a lock whose waiters are served by weight, lightest first.
//!
//! The daemon serves one request at a time, so a second one sent meanwhile only waits there, where it cannot be
//! taken back or overtaken. Here it can. Invariant: at most one [`Turn`] exists, and while somebody waits, one does.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use batwa_api::Timestamp;
use tokio::sync::oneshot;

use super::call::Weight;

/// The lock.
#[derive(Default, Clone)]
pub(super) struct Lane(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    /// Who has the turn; `None` only while nobody waits.
    holder: Option<Holder>,
    /// Lightest first, then oldest first.
    waiting: BTreeMap<(Weight, u64), Waiter>,
    arrivals: u64,
}

struct Waiter {
    what: String,
    turn: oneshot::Sender<Turn>,
}

/// What the lane is used for now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Holder {
    /// The call, for people.
    pub(super) what: String,
    /// Since when.
    pub(super) since: Timestamp,
}

/// The right to talk to the daemon; dropping it passes it on.
pub(super) struct Turn(Option<Lane>);

impl Lane {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for a turn; dropping the future gives up the place in the line.
    pub(super) async fn turn(&self, weight: Weight, what: impl Into<String>) -> Turn {
        let turn = {
            let mut state = self.state();
            if state.holder.is_none() {
                state.holder = Some(Holder::now(what.into()));
                return Turn(Some(self.clone()));
            }
            let (sender, turn) = oneshot::channel();
            let place = (weight, state.arrivals);
            state.arrivals += 1;
            let what = what.into();
            state.waiting.insert(place, Waiter { what, turn: sender });
            turn
        };
        turn.await
            .expect("the holder's turn keeps the line alive and passes on")
    }

    /// What the lane is used for now.
    pub(super) fn holder(&self) -> Option<Holder> {
        self.state().holder.clone()
    }

    fn pass_on(self) {
        loop {
            let waiter = {
                let mut state = self.state();
                let Some((_, waiter)) = state.waiting.pop_first() else {
                    state.holder = None;
                    return;
                };
                state.holder = Some(Holder::now(waiter.what.clone()));
                waiter
            };
            match waiter.turn.send(Turn(Some(self.clone()))) {
                Ok(()) => return,
                // It gave up: the turn that comes back must not pass itself on.
                Err(mut turn) => turn.0 = None,
            }
        }
    }
}

impl Holder {
    fn now(what: String) -> Self {
        Self {
            what,
            since: Timestamp::now(),
        }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        if let Some(lane) = self.0.take() {
            lane.pass_on();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::{task::JoinSet, time::timeout};

    use super::*;

    /// Lets every task run until it waits.
    async fn settle() {
        for _ in 0..20 {
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test]
    async fn the_lightest_goes_first_and_equals_in_their_order() {
        let lane = Lane::default();
        let held = lane.turn(Weight::Heavy, "stop a").await;
        let order = Arc::new(Mutex::new(Vec::new()));
        let mut tasks = JoinSet::new();
        for (weight, what) in [
            (Weight::Heavy, "stop b"),
            (Weight::Look, "info a"),
            (Weight::Heavy, "stop c"),
            (Weight::Quick, "list"),
            (Weight::Look, "info b"),
        ] {
            let (lane, order) = (lane.clone(), Arc::clone(&order));
            tasks.spawn(async move {
                let _turn = lane.turn(weight, what).await;
                order.lock().unwrap().push(what);
            });
            settle().await;
        }
        assert_eq!(lane.holder().unwrap().what, "stop a");
        drop(held);
        while tasks.join_next().await.is_some() {}
        assert_eq!(
            *order.lock().unwrap(),
            ["list", "info a", "info b", "stop b", "stop c"]
        );
        assert_eq!(lane.holder(), None);
    }

    #[tokio::test]
    async fn who_gave_up_is_passed_over_and_no_turn_is_lost() {
        let lane = Lane::default();
        let held = lane.turn(Weight::Heavy, "stop").await;
        for _ in 0..3 {
            let waiting = lane.turn(Weight::Quick, "list");
            assert!(timeout(Duration::from_millis(1), waiting).await.is_err());
        }
        drop(held);
        let _turn = timeout(Duration::from_secs(5), lane.turn(Weight::Heavy, "stop"))
            .await
            .expect("a free lane");
    }

    #[tokio::test]
    async fn a_turn_given_to_a_future_that_is_dropped_before_it_ran_is_passed_on() {
        let lane = Lane::default();
        let held = lane.turn(Weight::Heavy, "stop").await;
        let mut first = Box::pin(lane.turn(Weight::Quick, "list"));
        assert!(futures_util::poll!(&mut first).is_pending());
        drop(held);
        assert_eq!(lane.holder().unwrap().what, "list");
        drop(first);
        assert_eq!(lane.holder(), None);
    }
}
