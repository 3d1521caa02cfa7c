//! Callers that were looked up a moment ago, so that a page of twenty requests asks the store once.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

use super::Caller;

/// How long an answer of the store holds: what another process withdraws (another master on the same database,
/// `batwa admin`) is noticed after this at the latest. What is withdrawn here is noticed at once.
const HOLDS: Duration = Duration::from_secs(1);
/// Most that are remembered.
const MOST: usize = 4096;

/// A session's or token's kind and hash: the secret of one is never good as the other.
pub(super) type Key = (Kind, [u8; 32]);

/// By what a caller is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Kind {
    /// A session's cookie.
    Session,
    /// An API token.
    Token,
}

/// The callers.
#[derive(Debug, Default)]
pub(super) struct Recent(Mutex<HashMap<Key, Answer>>);

#[derive(Debug)]
struct Answer {
    caller: Caller,
    /// How many withdrawals there had been before the store was asked: one more, and this is no longer the answer.
    withdrawals: u64,
    until: Instant,
}

impl Recent {
    /// The caller, unless that was too long ago or something has been withdrawn since.
    pub(super) fn get(&self, key: &Key, withdrawals: u64) -> Option<Caller> {
        let answers = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let answer = answers.get(key)?;
        let holds = answer.withdrawals == withdrawals && Instant::now() < answer.until;
        holds.then(|| answer.caller.clone())
    }

    /// Remembers what the store said after so many withdrawals.
    pub(super) fn put(&self, key: Key, withdrawals: u64, caller: Caller) {
        let mut answers = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if answers.len() >= MOST {
            let now = Instant::now();
            answers.retain(|_, answer| now < answer.until);
            if answers.len() >= MOST {
                answers.clear();
            }
        }
        let answer = Answer {
            caller,
            withdrawals,
            until: Instant::now() + HOLDS,
        };
        answers.insert(key, answer);
    }
}

#[cfg(test)]
mod tests {
    use batwa_api::{
        id::{TokenId, UserId},
        user::Role,
    };

    use super::*;
    use crate::app::auth::{Source, Via};

    fn caller() -> Caller {
        Caller {
            user_id: UserId::new(),
            name: "ann".into(),
            role: Role::Operator,
            terminal: true,
            via: Via::Token(TokenId::new()),
            source: Source::new("192.0.2.1".parse().unwrap(), "r".into()),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_holds_for_its_kind_until_it_is_old_or_something_is_withdrawn() {
        let recent = Recent::default();
        recent.put((Kind::Token, [1; 32]), 7, caller());
        let asked =
            |kind, hash, withdrawals| recent.get(&(kind, [hash; 32]), withdrawals).is_some();
        assert!(asked(Kind::Token, 1, 7));
        assert!(!asked(Kind::Session, 1, 7));
        assert!(!asked(Kind::Token, 2, 7));
        assert!(!asked(Kind::Token, 1, 8));
        tokio::time::advance(HOLDS).await;
        assert!(!asked(Kind::Token, 1, 7));
    }

    #[tokio::test(start_paused = true)]
    async fn many_callers_take_bounded_memory_and_the_newest_is_remembered() {
        let recent = Recent::default();
        for n in 0..2 * MOST {
            let mut hash = [0; 32];
            hash[..8].copy_from_slice(&n.to_le_bytes());
            recent.put((Kind::Session, hash), 0, caller());
            assert!(recent.get(&(Kind::Session, hash), 0).is_some());
        }
        assert!(recent.0.lock().unwrap().len() <= MOST);
    }
}
