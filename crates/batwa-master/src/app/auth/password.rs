//! Passwords: Argon2id, computed beside the requests and a few at a time.

use std::{sync::Arc, time::Duration};

use argon2::{
    Algorithm, Argon2, Params, Version,
    password_hash::{PasswordHasher, PasswordVerifier, phc::PasswordHash},
};
use secrecy::{ExposeSecret, SecretString};
use tokio::sync::Semaphore;

use crate::app::Error;

/// Shortest password, in characters.
const MIN_CHARS: usize = 8;

/// Longest password, in bytes: more costs us more than it gives them.
const MAX_BYTES: usize = 1024;

/// Sign-ins that wait for their turn; more are told to come back.
const MAX_WAITING: usize = 64;

/// How long one of them waits.
const PATIENCE: Duration = Duration::from_secs(10);

/// Memory of one hash in KiB, with one pass: the first of the settings that OWASP's cheat sheet for storing
/// passwords has for Argon2id.
///
/// Of those it is also the one that gives the memory back: glibc maps what is larger than 32 MiB and unmaps it
/// when freed, while smaller blocks stay with the process after the first sign-in.
const MEMORY_KIB: u32 = 47_104;

fn argon2() -> Argon2<'static> {
    let params = Params::new(MEMORY_KIB, 1, 1, None).expect("within the limits of Argon2");
    Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
}

/// Computes password hashes. A hash costs 46 MiB and tens of milliseconds of one CPU, so at most half of the
/// CPUs do that at a time: everybody else goes on undisturbed, however many try to sign in.
#[derive(Clone, Debug)]
pub(crate) struct Passwords {
    running: Arc<Semaphore>,
    places: Arc<Semaphore>,
    /// What is checked for a name that does not exist, so that it takes as long as for one that does.
    nobody: Arc<str>,
}

impl Default for Passwords {
    fn default() -> Self {
        let cpus = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        Self {
            running: Arc::new(Semaphore::new((cpus / 2).max(1))),
            places: Arc::new(Semaphore::new(MAX_WAITING)),
            // Of a password that nobody knows; made by the parameters in use.
            nobody: "$argon2id$v=19$m=47104,t=1,p=1$YmF0d2Etbm9ib2R5LTE2$\
                     ieJXQKqkLiFAp5jLuIBtXCdB1m4jaaaN9kzOX1vIkjs"
                .into(),
        }
    }
}

impl Passwords {
    /// The hash to store of a new password.
    pub(crate) async fn hash(&self, password: SecretString) -> Result<String, Error> {
        self.compute(move || {
            argon2()
                .hash_password(password.expose_secret().as_bytes())
                .map(|hash| hash.to_string())
                .map_err(Error::internal)
        })
        .await?
    }

    /// Whether `password` is the one with this hash; without a hash it takes as long and is not.
    pub(crate) async fn verify(
        &self,
        password: SecretString,
        hash: Option<String>,
    ) -> Result<bool, Error> {
        if password.expose_secret().len() > MAX_BYTES {
            return Ok(false);
        }
        let nobody = Arc::clone(&self.nobody);
        self.compute(move || {
            let parsed =
                PasswordHash::new(hash.as_deref().unwrap_or(&nobody)).map_err(Error::internal)?;
            let right = argon2()
                .verify_password(password.expose_secret().as_bytes(), &parsed)
                .is_ok();
            Ok(right && hash.is_some())
        })
        .await?
    }

    async fn compute<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Error> {
        let busy = Error::Unavailable("too many people sign in at once: try again in a moment");
        let Ok(_place) = self.places.try_acquire() else {
            return Err(busy);
        };
        let turn = Arc::clone(&self.running).acquire_owned();
        let Ok(turn) = tokio::time::timeout(PATIENCE, turn).await else {
            return Err(busy);
        };
        // The turn goes along: a caller that gives up does not let the next one start beside it.
        tokio::task::spawn_blocking(move || {
            let _turn = turn;
            work()
        })
        .await
        .map_err(Error::internal)
    }
}

/// Refuses a password that is too short or too long, naming `field`.
pub(crate) fn check(field: &str, password: &SecretString) -> Result<(), Error> {
    let password = password.expose_secret();
    if password.chars().count() < MIN_CHARS {
        Err(Error::invalid(
            field,
            format!("a password has at least {MIN_CHARS} characters"),
        ))
    } else if password.len() > MAX_BYTES {
        Err(Error::invalid(
            field,
            format!("a password has at most {MAX_BYTES} bytes"),
        ))
    } else {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn only_the_right_password_fits_its_hash() {
        let passwords = Passwords::default();
        let hash = passwords.hash("correct horse".into()).await.unwrap();
        assert!(hash.starts_with("$argon2id$v=19$"), "{hash}");
        let check = async |password: &str, hash: Option<&String>| {
            passwords
                .verify(password.into(), hash.cloned())
                .await
                .unwrap()
        };
        assert!(check("correct horse", Some(&hash)).await);
        assert!(!check("correct horsf", Some(&hash)).await);
        assert!(!check("", Some(&hash)).await);
        assert!(!check(&"x".repeat(MAX_BYTES + 1), Some(&hash)).await);
        assert!(!check("correct horse", None).await);
    }

    #[test]
    fn the_stand_in_for_unknown_names_costs_what_real_hashes_cost() {
        let stand_in = Passwords::default().nobody;
        let stand_in = PasswordHash::new(&stand_in).unwrap();
        let real = argon2().hash_password(b"x").unwrap();
        assert_eq!(stand_in.algorithm, real.algorithm);
        assert_eq!(stand_in.params, real.params);
        assert_eq!(stand_in.hash.unwrap().len(), real.hash.unwrap().len());
    }

    #[tokio::test]
    async fn a_crowd_is_told_to_come_back_rather_than_queued_without_end() {
        let passwords = Passwords {
            running: Arc::new(Semaphore::new(0)),
            places: Arc::new(Semaphore::new(0)),
            ..Passwords::default()
        };
        let refused = passwords.verify("whatever".into(), None).await.unwrap_err();
        assert!(matches!(refused, Error::Unavailable(_)), "{refused:?}");
    }

    #[test]
    fn short_and_endless_passwords_are_refused() {
        for bad in ["", "7 chars", &"x".repeat(MAX_BYTES + 1)] {
            assert!(check("password", &bad.into()).is_err(), "{}", bad.len());
        }
        for good in ["8 chars!", "pässwörd", &"x".repeat(MAX_BYTES)] {
            assert!(check("password", &good.into()).is_ok(), "{good}");
        }
    }
}
