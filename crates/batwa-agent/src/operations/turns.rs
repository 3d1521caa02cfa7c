//! Whose turn it is at a driver: so many at a time, and fair to those who ask.
//!
//! Operations that wait stand in one line for each account, and the accounts take turns. Somebody who asks for a
//! hundred VMs waits long for the hundredth; somebody who asks for one after that waits for the next turn.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::oneshot;

/// The turns of one driver for one sort of work.
#[derive(Debug)]
pub(super) struct Turns {
    desk: Mutex<Desk>,
}

#[derive(Debug)]
struct Desk {
    /// Turns that nobody has.
    free: usize,
    waiting: Lines<oneshot::Sender<()>>,
}

/// The right to be at work; given back when it is dropped.
#[derive(Debug)]
pub(super) struct Turn(Arc<Turns>);

impl Turns {
    /// So many at a time, at least one.
    pub(super) fn new(limit: usize) -> Self {
        Self {
            desk: Mutex::new(Desk {
                free: limit.max(1),
                waiting: Lines::default(),
            }),
        }
    }

    fn desk(&self) -> MutexGuard<'_, Desk> {
        self.desk.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for a turn, in the line of `account`; those who do not say who they are share one. Whoever stops waiting
    /// has left the line.
    pub(super) async fn take(self: &Arc<Self>, account: Option<String>) -> Turn {
        let mut waiting = {
            let mut desk = self.desk();
            if desk.free > 0 {
                desk.free -= 1;
                return Turn(Arc::clone(self));
            }
            let (call, called) = oneshot::channel();
            desk.waiting.join(account, call);
            Waiting {
                turns: self,
                called,
            }
        };
        // Nobody drops the other end without calling: it stands in a line of `self` until then.
        let _ = (&mut waiting.called).await;
        Turn(Arc::clone(self))
    }

    /// Hands a turn on to whoever is next.
    fn give_back(&self) {
        let mut desk = self.desk();
        while let Some(call) = desk.waiting.next() {
            if call.send(()).is_ok() {
                return;
            }
        }
        desk.free += 1;
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.0.give_back();
    }
}

/// A place in a line.
struct Waiting<'a> {
    turns: &'a Turns,
    called: oneshot::Receiver<()>,
}

impl Drop for Waiting<'_> {
    /// A turn that came to somebody who had just left goes to the next.
    fn drop(&mut self) {
        self.called.close();
        if self.called.try_recv().is_ok() {
            self.turns.give_back();
        }
    }
}

/// One line for each account that has somebody waiting, in the order in which their turns come.
#[derive(Debug)]
struct Lines<T>(VecDeque<(Option<String>, VecDeque<T>)>);

impl<T> Default for Lines<T> {
    fn default() -> Self {
        Self(VecDeque::new())
    }
}

impl<T> Lines<T> {
    fn join(&mut self, account: Option<String>, waiting: T) {
        match self.0.iter_mut().find(|(other, _)| *other == account) {
            Some((_, line)) => line.push_back(waiting),
            None => self.0.push_back((account, VecDeque::from([waiting]))),
        }
    }

    /// The first of the account whose turn it is, which is the last one then.
    fn next(&mut self) -> Option<T> {
        let (account, mut line) = self.0.pop_front()?;
        let first = line.pop_front();
        if !line.is_empty() {
            self.0.push_back((account, line));
        }
        first
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    fn account(name: &str) -> Option<String> {
        Some(name.to_owned())
    }

    #[test]
    fn accounts_take_turns_and_each_keeps_its_order() {
        let mut lines = Lines::default();
        for n in 0..4 {
            lines.join(account("many"), format!("many {n}"));
        }
        lines.join(account("one"), "one".to_owned());
        lines.join(None, "nobody".to_owned());
        let mut order = Vec::new();
        while let Some(next) = lines.next() {
            order.push(next);
            // One who comes later, with others already waiting, is behind them and not behind their last.
            if order.len() == 3 {
                lines.join(account("late"), "late".to_owned());
            }
        }
        let expected = [
            "many 0", "one", "nobody", "many 1", "late", "many 2", "many 3",
        ];
        assert_eq!(order, expected);
    }

    #[tokio::test]
    async fn no_more_than_the_limit_and_none_is_lost() {
        let turns = Arc::new(Turns::new(2));
        let first = turns.take(account("a")).await;
        let second = turns.take(account("a")).await;
        let mut third = Box::pin(turns.take(account("a")));
        let mut fourth = Box::pin(turns.take(account("b")));
        assert!((&mut third).now_or_never().is_none());
        assert!((&mut fourth).now_or_never().is_none());
        drop(first);
        let third = third.await;
        assert!((&mut fourth).now_or_never().is_none());
        drop((second, third));
        let fourth = fourth.await;
        let fifth = turns.take(None).await;
        assert!(turns.take(None).now_or_never().is_none());
        drop((fourth, fifth));
        assert_eq!(turns.desk().free, 2);
    }

    #[tokio::test]
    async fn whoever_leaves_the_line_takes_no_turn_along() {
        let turns = Arc::new(Turns::new(1));
        let held = turns.take(None).await;
        let mut leaves_before = Box::pin(turns.take(account("a")));
        let mut leaves_called = Box::pin(turns.take(account("b")));
        let mut stays = Box::pin(turns.take(account("c")));
        for waiting in [&mut leaves_before, &mut leaves_called, &mut stays] {
            assert!(waiting.now_or_never().is_none());
        }
        drop(leaves_before);
        drop(held);
        assert!(
            (&mut stays).now_or_never().is_none(),
            "it is another's turn"
        );
        drop(leaves_called);
        drop(stays.now_or_never().expect("its turn has come"));
        assert_eq!(turns.desk().free, 1);
    }
}
