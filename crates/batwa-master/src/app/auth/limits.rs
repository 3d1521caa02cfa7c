//! How often one may fail to sign in.
//!
//! Plain data and one clock value in, a decision out. The first five failures are free; after that each must
//! wait, 1 s and twice as long every time, up to 30 s: never a ban, for whoever could ban an account's owner by
//! failing in their name. Failures count for the account and for the address they came from; an address
//! that signed in to that account before has a count of its own with it, so that others do not hold it up.
//!
//! An attempt counts as failed from its beginning, so that a thousand at once are no way around; success
//! takes it back. A refused attempt does not count.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv6Addr},
    time::Duration,
};

use tokio::time::Instant;

/// Failures that cost nothing.
const FREE: u32 = 5;

/// The longest wait.
const LONGEST: Duration = Duration::from_secs(30);

/// Failures are forgotten this long after the last.
const MEMORY: Duration = Duration::from_secs(15 * 60);

/// Counts held at a time; the oldest make room.
const MAX_COUNTS: usize = 20_000;

/// Whether `address` signed in to the account before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Acquaintance {
    /// It did.
    Known,
    /// It did not, or there is no such account.
    Unknown,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Key {
    Account(String),
    Address(IpAddr),
    Known(String, IpAddr),
}

#[derive(Clone, Copy, Debug)]
struct Count {
    failures: u32,
    last: Instant,
}

/// An attempt under way; counted as failed unless [`Limits::succeeded`] gets it back.
#[derive(Debug)]
#[must_use = "an attempt that succeeded must be given back"]
pub(crate) struct Attempt {
    keys: Vec<Key>,
}

/// The failures of late.
#[derive(Debug, Default)]
pub(crate) struct Limits {
    counts: HashMap<Key, Count>,
}

impl Limits {
    /// Begins an attempt to sign in as `account` from `address`, or says how long to wait.
    pub(crate) fn begin(
        &mut self,
        account: &str,
        address: IpAddr,
        acquaintance: Acquaintance,
        now: Instant,
    ) -> Result<Attempt, Duration> {
        let account = account.to_lowercase();
        let address = subscriber(address);
        let keys = match acquaintance {
            Acquaintance::Known => vec![Key::Known(account, address)],
            Acquaintance::Unknown => vec![Key::Account(account), Key::Address(address)],
        };
        let wait = keys
            .iter()
            .map(|key| self.wait(key, now))
            .max()
            .unwrap_or_default();
        if !wait.is_zero() {
            return Err(wait);
        }
        for key in &keys {
            let failures = self.failures(key, now) + 1;
            self.counts.insert(
                key.clone(),
                Count {
                    failures,
                    last: now,
                },
            );
        }
        self.make_room(now);
        Ok(Attempt { keys })
    }

    /// The attempt succeeded: the account's failures are over, and the address has one fewer.
    ///
    /// Only one: an own account must not be a way to try others' for ever.
    pub(crate) fn succeeded(&mut self, attempt: Attempt) {
        for key in attempt.keys {
            match &key {
                Key::Account(_) | Key::Known(..) => {
                    self.counts.remove(&key);
                }
                Key::Address(_) => {
                    if let Some(count) = self.counts.get_mut(&key) {
                        count.failures = count.failures.saturating_sub(1);
                    }
                }
            }
        }
    }

    fn failures(&self, key: &Key, now: Instant) -> u32 {
        self.counts
            .get(key)
            .filter(|count| now.duration_since(count.last) < MEMORY)
            .map_or(0, |count| count.failures)
    }

    fn wait(&self, key: &Key, now: Instant) -> Duration {
        let Some(count) = self.counts.get(key) else {
            return Duration::ZERO;
        };
        let until = count.last + wait_after(self.failures(key, now));
        until.saturating_duration_since(now)
    }

    fn make_room(&mut self, now: Instant) {
        if self.counts.len() <= MAX_COUNTS {
            return;
        }
        self.counts
            .retain(|_, count| now.duration_since(count.last) < MEMORY);
        if self.counts.len() > MAX_COUNTS {
            // A tenth at once, so that this is not done for every attempt of a flood.
            let mut times: Vec<Instant> = self.counts.values().map(|count| count.last).collect();
            let (_, limit, _) = times.select_nth_unstable(MAX_COUNTS / 10);
            let limit = *limit;
            self.counts.retain(|_, count| count.last > limit);
        }
    }
}

/// How long to wait after the last of so many failures.
fn wait_after(failures: u32) -> Duration {
    match failures.checked_sub(FREE) {
        None => Duration::ZERO,
        Some(beyond) => Duration::from_secs(1 << beyond.min(5)).min(LONGEST),
    }
}

/// Who is behind an address: with IPv6 a whole /64 is one subscriber's.
fn subscriber(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => {
            let prefix = u128::from(v6) & !u128::from(u64::MAX);
            IpAddr::V6(Ipv6Addr::from(prefix))
        }
        v4 => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOME: &str = "192.0.2.1";
    const ELSEWHERE: &str = "198.51.100.7";

    /// Fails to sign in, or says how many seconds to wait.
    fn fail(
        limits: &mut Limits,
        account: &str,
        address: &str,
        known: Acquaintance,
    ) -> Result<(), u64> {
        limits
            .begin(account, address.parse().unwrap(), known, Instant::now())
            .map(drop)
            .map_err(|wait| wait.as_secs())
    }

    #[tokio::test(start_paused = true)]
    async fn the_first_five_failures_are_free_then_the_wait_doubles_up_to_thirty_seconds() {
        let mut limits = Limits::default();
        for _ in 0..5 {
            assert_eq!(
                fail(&mut limits, "ann", HOME, Acquaintance::Unknown),
                Ok(())
            );
        }
        for expected in [1, 2, 4, 8, 16, 30, 30, 30] {
            assert_eq!(
                fail(&mut limits, "ann", HOME, Acquaintance::Unknown),
                Err(expected)
            );
            tokio::time::advance(Duration::from_secs(expected) - Duration::from_millis(1)).await;
            assert_eq!(
                fail(&mut limits, "ann", HOME, Acquaintance::Unknown),
                Err(0),
                "1 ms too early"
            );
            tokio::time::advance(Duration::from_millis(1)).await;
            assert_eq!(
                fail(&mut limits, "ann", HOME, Acquaintance::Unknown),
                Ok(()),
                "never a ban"
            );
        }
    }

    #[tokio::test(start_paused = true)]
    async fn refused_attempts_do_not_make_the_wait_longer() {
        let mut limits = Limits::default();
        for _ in 0..5 {
            assert_eq!(
                fail(&mut limits, "ann", HOME, Acquaintance::Unknown),
                Ok(())
            );
        }
        for _ in 0..1000 {
            assert_eq!(
                fail(&mut limits, "ann", HOME, Acquaintance::Unknown),
                Err(1)
            );
        }
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!(
            fail(&mut limits, "ann", HOME, Acquaintance::Unknown),
            Ok(())
        );
    }

    #[tokio::test(start_paused = true)]
    async fn failures_count_for_the_account_from_anywhere_and_for_the_address_on_any_account() {
        let mut limits = Limits::default();
        for n in 0..5 {
            let address = format!("203.0.113.{n}");
            assert_eq!(
                fail(&mut limits, "ann", &address, Acquaintance::Unknown),
                Ok(())
            );
        }
        assert_eq!(
            fail(&mut limits, "Ann", ELSEWHERE, Acquaintance::Unknown),
            Err(1),
            "case is no way around"
        );
        for n in 0..5 {
            assert_eq!(
                fail(
                    &mut limits,
                    &format!("user{n}"),
                    HOME,
                    Acquaintance::Unknown
                ),
                Ok(())
            );
        }
        assert_eq!(
            fail(&mut limits, "bob", HOME, Acquaintance::Unknown),
            Err(1)
        );
        assert_eq!(
            fail(&mut limits, "bob", ELSEWHERE, Acquaintance::Unknown),
            Ok(())
        );
    }

    #[tokio::test(start_paused = true)]
    async fn an_address_that_signed_in_before_is_held_up_by_its_own_failures_only() {
        let mut limits = Limits::default();
        for n in 0..5 {
            let address = format!("203.0.113.{n}");
            assert_eq!(
                fail(&mut limits, "ann", &address, Acquaintance::Unknown),
                Ok(())
            );
            assert_eq!(
                fail(
                    &mut limits,
                    &format!("user{n}"),
                    HOME,
                    Acquaintance::Unknown
                ),
                Ok(())
            );
        }
        for _ in 0..5 {
            assert_eq!(fail(&mut limits, "ann", HOME, Acquaintance::Known), Ok(()));
        }
        assert_eq!(fail(&mut limits, "ann", HOME, Acquaintance::Known), Err(1));
    }

    #[tokio::test(start_paused = true)]
    async fn a_thousand_attempts_at_once_are_no_way_around() {
        let mut limits = Limits::default();
        let begun = (0..1000)
            .filter(|_| fail(&mut limits, "ann", HOME, Acquaintance::Unknown).is_ok())
            .count();
        assert_eq!(begun, 5);
    }

    #[tokio::test(start_paused = true)]
    async fn success_clears_the_account_but_an_own_account_is_no_way_to_try_others() {
        let mut limits = Limits::default();
        let home: IpAddr = HOME.parse().unwrap();
        for _ in 0..4 {
            assert_eq!(
                fail(&mut limits, "ann", HOME, Acquaintance::Unknown),
                Ok(())
            );
        }
        let own = limits
            .begin("mallory", home, Acquaintance::Unknown, Instant::now())
            .unwrap();
        limits.succeeded(own);
        assert_eq!(
            fail(&mut limits, "ann", HOME, Acquaintance::Unknown),
            Ok(())
        );
        assert_eq!(
            fail(&mut limits, "ann", HOME, Acquaintance::Unknown),
            Err(1)
        );

        tokio::time::advance(Duration::from_secs(1)).await;
        let right = limits
            .begin("ann", home, Acquaintance::Unknown, Instant::now())
            .unwrap();
        limits.succeeded(right);
        assert_eq!(
            fail(&mut limits, "ann", ELSEWHERE, Acquaintance::Unknown),
            Ok(()),
            "the account is clear"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn failures_are_forgotten_in_time() {
        let mut limits = Limits::default();
        for _ in 0..5 {
            assert_eq!(
                fail(&mut limits, "ann", HOME, Acquaintance::Unknown),
                Ok(())
            );
        }
        tokio::time::advance(MEMORY).await;
        for _ in 0..5 {
            assert_eq!(
                fail(&mut limits, "ann", HOME, Acquaintance::Unknown),
                Ok(())
            );
        }
        assert_eq!(
            fail(&mut limits, "ann", HOME, Acquaintance::Unknown),
            Err(1)
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_flood_of_names_takes_bounded_memory() {
        let mut limits = Limits::default();
        for n in 0..30_000_u32 {
            let address = IpAddr::from(n.to_be_bytes());
            drop(limits.begin(
                &format!("user{n}"),
                address,
                Acquaintance::Unknown,
                Instant::now(),
            ));
            if n.is_multiple_of(100) {
                tokio::time::advance(Duration::from_millis(1)).await;
            }
        }
        assert!(limits.counts.len() <= MAX_COUNTS, "{}", limits.counts.len());
        assert!(limits.counts.len() > MAX_COUNTS / 2, "the recent ones stay");
    }

    #[test]
    fn neighbours_in_one_ipv6_network_are_one_subscriber() {
        let of = |text: &str| subscriber(text.parse().unwrap());
        assert_eq!(of("2001:db8::1"), of("2001:db8::ffff:1"));
        assert_ne!(of("2001:db8::1"), of("2001:db8:0:1::1"));
        assert_eq!(of("::ffff:192.0.2.1"), of("192.0.2.1"));
    }
}
